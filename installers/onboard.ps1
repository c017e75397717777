# Has wherry on this computer, and a machine as a project's wherry.toml wants it. It only installs: all else is `wherry up -f`,
# which prints what it changes and does nothing the second time, so this may run every morning.
#
#   powershell -ExecutionPolicy Bypass -File onboard.ps1 [FILE | URL#sha256=HEX] [OPTIONS of wherry up]
#
# Without one: .\wherry.toml, if it is there. WHERRY_PACKAGE is what to install, in pip's words: wherry (the default),
# wherry==1.2, a wheel.
$ErrorActionPreference = 'Stop'
Set-StrictMode -Version 2

$package = if ($env:WHERRY_PACKAGE) { $env:WHERRY_PACKAGE } else { 'wherry' }

function Say([string]$text) { [Console]::Error.WriteLine("wherry: $text") }

function Test-Program([string]$name) { [bool](Get-Command $name -CommandType Application -ErrorAction SilentlyContinue) }

# The words of a Python that wherry runs on: the launcher's newest, else what is on PATH. The `python` of a Windows without one
# only opens the store, and answers nothing.
function Find-Python {
    foreach ($words in @(@('py', '-3'), @('python'), @('python3'))) {
        if (-not (Test-Program $words[0])) { continue }
        $rest = @($words | Select-Object -Skip 1) + @('-c', 'import sys; print(sys.version_info >= (3, 11))')
        $told = try { & $words[0] @rest 2>$null } catch { '' }
        if ("$told".Trim() -eq 'True') { return , $words }
    }
    return $null
}

# Where wherry is: on PATH, or where pipx and pip have put it though that is not on PATH yet.
function Find-Wherry($python) {
    $found = Get-Command 'wherry' -CommandType Application -ErrorAction SilentlyContinue | Select-Object -First 1
    if ($found) { return $found.Source }
    if (-not $python) { return $null }
    $pipx = if ($env:PIPX_BIN_DIR) { $env:PIPX_BIN_DIR } else { Join-Path $env:USERPROFILE '.local\bin' }
    $rest = @($python | Select-Object -Skip 1) + @('-c', 'import sysconfig; print(sysconfig.get_path("scripts", "nt_user"))')
    foreach ($folder in @($pipx, "$(& $python[0] @rest)".Trim())) {
        $program = Join-Path $folder 'wherry.exe'
        if (Test-Path -LiteralPath $program) {
            Say "$folder is not on your PATH: add it to have wherry there."
            return $program
        }
    }
    return $null
}

function Install-Wherry($python) {
    $first, $rest = $python[0], @($python | Select-Object -Skip 1)
    if (Test-Program 'pipx') {
        Say "installing $package with pipx"
        $interpreter = "$(& $first @rest -c 'import sys; print(sys.executable)')".Trim()
        & pipx install --python $interpreter $package | Out-Host
    } else {
        Say "installing $package with pip, for you alone"
        & $first @rest -m pip install --user --disable-pip-version-check $package | Out-Host
    }
    return $LASTEXITCODE -eq 0
}

function Stop-ByHand([string]$why) {
    Say $why
    [Console]::Error.WriteLine('        Install Python 3.11 or later, then run this again:  winget install Python.Python.3.13')
    exit 4
}

$words = @($args)
if ($words.Count -eq 0 -and (Test-Path -LiteralPath 'wherry.toml')) { $words = @('wherry.toml') }
if ($words.Count -gt 0) { $words = @('-f') + $words }
$wherry = Find-Wherry $null
if (-not $wherry) {
    $python = Find-Python
    if (-not $python) { Stop-ByHand 'there is no Python of 3.11 or later on this computer.' }
    $wherry = Find-Wherry $python
    if (-not $wherry) {
        if (-not (Install-Wherry $python)) { Stop-ByHand "$package could not be installed: neither pipx nor pip did it." }
        $wherry = Find-Wherry $python
    }
    if (-not $wherry) { Stop-ByHand "$package is installed, but there is no wherry to be found." }
}
& $wherry up @words
exit $LASTEXITCODE
