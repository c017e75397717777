/* wherry.exe: the launcher on the Python beside it, `python -I -m launcher WORDS...`, with its streams and its exit code.
 *
 * It is in bin\, which is on PATH, and in python\, where the launcher looks for itself beside python.exe. The QEMU of this
 * installation comes after all others on PATH. When this program is ended by force its Python ends too, but not what that started
 * and cut loose. */
#include <windows.h>
#include <stdio.h>
#include <wchar.h>

#define LONGEST 32768 /* characters of a path, a command line, a variable of the environment */

static wchar_t home[LONGEST], python[LONGEST], line[LONGEST], path[LONGEST];

static int fail(const wchar_t *what)
{
    fwprintf(stderr, L"wherry: %ls (Windows error %lu). Install wherry again.\n", what, GetLastError());
    return 127;
}

/* Cuts the last part off a path; 0 when there is none. */
static int up(wchar_t *text)
{
    wchar_t *last = wcsrchr(text, L'\\');
    if (!last)
        return 0;
    *last = 0;
    return 1;
}

/* What follows the program's own name on the command line. CreateProcess takes that name up to its closing quote, or a blank. */
static const wchar_t *words(const wchar_t *text)
{
    if (*text == L'"') {
        for (text++; *text && *text != L'"'; text++)
            ;
        return *text ? text + 1 : text;
    }
    while (*text && *text != L' ' && *text != L'\t')
        text++;
    return text;
}

/* Ctrl-C goes to both of us: Python decides, and we wait for it. The handler is not inherited, as ignoring would be. */
static BOOL WINAPI wait_for_python(DWORD event)
{
    return event == CTRL_C_EVENT || event == CTRL_BREAK_EVENT;
}

static void add_qemu(void)
{
    DWORD have = GetEnvironmentVariableW(L"PATH", path, LONGEST);
    if (have + wcslen(home) + 8 < LONGEST) {
        swprintf(path + have, LONGEST - have, L"%ls%ls\\qemu", have ? L";" : L"", home);
        SetEnvironmentVariableW(L"PATH", path);
    }
}

/* The job ends Python with us, and lets go of what Python starts (JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK), asked to or not. */
static void tie(HANDLE process)
{
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION limits = {0};
    HANDLE job = CreateJobObjectW(NULL, NULL);
    limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK |
                                              JOB_OBJECT_LIMIT_BREAKAWAY_OK;
    if (job && SetInformationJobObject(job, JobObjectExtendedLimitInformation, &limits, sizeof limits))
        AssignProcessToJobObject(job, process); /* refused inside some jobs: then Python merely outlives us */
}

int wmain(void)
{
    STARTUPINFOW start = {.cb = sizeof start};
    PROCESS_INFORMATION child;
    DWORD code = 127, length = GetModuleFileNameW(NULL, home, LONGEST);

    if (!length || length >= LONGEST || !up(home) || !up(home))
        return fail(L"cannot tell where it is");
    if (swprintf(python, LONGEST, L"%ls\\python\\python.exe", home) < 0 ||
        swprintf(line, LONGEST, L"\"%ls\" -I -m launcher%ls", python, words(GetCommandLineW())) < 0)
        return fail(L"the command line is too long");
    add_qemu();
    SetConsoleCtrlHandler(wait_for_python, TRUE);
    GetStartupInfoW(&start);
    if (!CreateProcessW(python, line, NULL, NULL, TRUE, CREATE_SUSPENDED, NULL, NULL, &start, &child))
        return fail(L"its Python cannot be started");
    tie(child.hProcess);
    ResumeThread(child.hThread);
    WaitForSingleObject(child.hProcess, INFINITE);
    GetExitCodeProcess(child.hProcess, &code);
    return (int)code;
}
