// python.exe: loads the python3XX.dll beside it (PYTHON_DLL) and hands over the command line.

#include <stdio.h>
#include <wchar.h>
#include <windows.h>

typedef int (*py_main_t)(int, wchar_t **);

int wmain(int argc, wchar_t **argv)
{
    HMODULE library = LoadLibraryW(PYTHON_DLL);
    if (!library) {
        fprintf(stderr, "python.exe: no library: error %lu\n", GetLastError());
        return 103;
    }
    py_main_t py_main = (py_main_t)(void *)GetProcAddress(library, "Py_Main");
    if (!py_main) {
        fprintf(stderr, "python.exe: the library has no Py_Main\n");
        return 104;
    }
    return py_main(argc, argv);
}
