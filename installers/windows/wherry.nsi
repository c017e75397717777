; setup.exe: everything below %LOCALAPPDATA%\Programs\Wherry, for one user, without an administrator.
; setup.py gives VERSION, NUMBERS, OUTPUT, LISTING, KILOBYTES and, where wanted, QUICK and SIGN.
; What needs more than copying is done by helper.py, on the Python that is installed: a string of NSIS ends at 1024 characters.
Unicode true
Target amd64-unicode
!include MUI2.nsh
!include LogicLib.nsh

!define UNINSTALL "Software\Microsoft\Windows\CurrentVersion\Uninstall\Wherry"

Name "Wherry ${VERSION}"
OutFile "${OUTPUT}"
RequestExecutionLevel user
InstallDir "$LOCALAPPDATA\Programs\Wherry"
InstallDirRegKey HKCU "${UNINSTALL}" "InstallLocation"
ManifestDPIAware true
!ifdef QUICK
  SetCompressor zlib
  SetCompress off
!else
  SetCompressor /SOLID lzma
!endif
!ifdef SIGN
  !uninstfinalize '"${SIGN}" file "%1"'
!endif

VIProductVersion "${NUMBERS}"
VIAddVersionKey "ProductName" "Wherry"
VIAddVersionKey "ProductVersion" "${VERSION}"
VIAddVersionKey "FileVersion" "${VERSION}"
VIAddVersionKey "FileDescription" "Wherry ${VERSION} Setup"
VIAddVersionKey "LegalCopyright" "Apache-2.0"

!insertmacro MUI_PAGE_WELCOME
!insertmacro MUI_PAGE_INSTFILES
!define MUI_FINISHPAGE_TEXT "Wherry is installed. Open a new terminal and begin with:$\r$\n$\r$\nwherry up"
!insertmacro MUI_PAGE_FINISH
!insertmacro MUI_UNPAGE_CONFIRM
!insertmacro MUI_UNPAGE_INSTFILES
!insertmacro MUI_LANGUAGE "English"

Var said

; Exit code of a verb of helper.py on top of the stack; its words in $said. The Python of $INSTDIR does it.
!macro HELPER script words
  nsExec::ExecToStack '"$INSTDIR\python\python.exe" -I "${script}" ${words}'
  Exch
  Pop $said
!macroend

; Nothing is changed; exit code CODE for whoever waits for one.
!macro GIVE_UP code
  SetErrorLevel ${code}
  Abort "Nothing is changed."
!macroend

; Ends all machines, asking first; gives up when one does not end. A Wherry that is too damaged to tell is gone over: what runs of it
; then still keeps its files from being replaced.
!macro STOP_MACHINES question
  !insertmacro HELPER "$INSTDIR\setup\helper.py" "running"
  Pop $0
  ${If} $0 == "3"
    ${If} ${Cmd} `MessageBox MB_OKCANCEL|MB_ICONQUESTION "${question}" /SD IDOK IDCANCEL`
      !insertmacro GIVE_UP 1
    ${EndIf}
    DetailPrint "Stopping machines"
    !insertmacro HELPER "$INSTDIR\setup\helper.py" "stop"
    Pop $0
    ${If} $0 != "0"
      DetailPrint "$said"
      MessageBox MB_OK|MB_ICONSTOP "A machine could not be stopped, and nothing is changed.$\r$\n$said" /SD IDOK
      !insertmacro GIVE_UP 2
    ${EndIf}
  ${ElseIf} $0 != "0"
    DetailPrint "$said"
    ${If} ${Cmd} `MessageBox MB_OKCANCEL|MB_ICONEXCLAMATION "Whether machines run cannot be told. Go on?$\r$\n$said" /SD IDOK IDCANCEL`
      !insertmacro GIVE_UP 1
    ${EndIf}
  ${EndIf}
!macroend

; What waits since login on the Python here (wherry autostart) holds its files, and is ended; "start" has it wait again. A helper of
; an earlier version may know no such verb: then the files are in use, or are not.
!macro DOORMEN verb
  InitPluginsDir
  !insertmacro HELPER "$INSTDIR\setup\helper.py" 'doormen ${verb} "$PLUGINSDIR\doormen"'
  Pop $0
  ${If} $0 != "0"
    DetailPrint "$said"
  ${EndIf}
!macroend

; What an earlier version has put here. What users keep in this folder is not ours, and stays. A terminal in which wherry still waits
; holds files: the folder then cannot be renamed, and nothing is lost yet.
!macro REMOVE_FILES
  !insertmacro DOORMEN "end"
  ClearErrors
  Rename "$INSTDIR\python" "$INSTDIR\python.old"
  ${If} ${Errors}
    !insertmacro DOORMEN "start"
    MessageBox MB_OK|MB_ICONSTOP "Files of Wherry are in use, and nothing is changed. Close the terminals in which wherry runs, and try again." /SD IDOK
    !insertmacro GIVE_UP 2
  ${EndIf}
  RMDir /r "$INSTDIR\python.old"
  RMDir /r "$INSTDIR\bin"
  RMDir /r "$INSTDIR\qemu"
  RMDir /r "$INSTDIR\setup"
  RMDir /r "$INSTDIR\iso"
  Delete "$INSTDIR\LICENSE.txt"
!macroend

Section
  ${If} ${FileExists} "$INSTDIR\python\python.exe"
    !insertmacro STOP_MACHINES "A machine of Wherry runs. It is shut down cleanly before the new version is put in place, and starts again with the next command."
    !insertmacro REMOVE_FILES
  ${EndIf}

  !include "${LISTING}"
  SetOutPath "$INSTDIR"
  WriteUninstaller "$INSTDIR\uninstall.exe"

  WriteRegStr HKCU "${UNINSTALL}" "DisplayName" "Wherry"
  WriteRegStr HKCU "${UNINSTALL}" "DisplayVersion" "${VERSION}"
  WriteRegStr HKCU "${UNINSTALL}" "Publisher" "The Wherry authors"
  WriteRegStr HKCU "${UNINSTALL}" "InstallLocation" "$INSTDIR"
  WriteRegStr HKCU "${UNINSTALL}" "UninstallString" '"$INSTDIR\uninstall.exe"'
  WriteRegStr HKCU "${UNINSTALL}" "QuietUninstallString" '"$INSTDIR\uninstall.exe" /S'
  WriteRegDWORD HKCU "${UNINSTALL}" "EstimatedSize" ${KILOBYTES}
  WriteRegDWORD HKCU "${UNINSTALL}" "NoModify" 1
  WriteRegDWORD HKCU "${UNINSTALL}" "NoRepair" 1
  CreateShortcut "$SMPROGRAMS\Wherry.lnk" "$SYSDIR\cmd.exe" '/s /k ""$INSTDIR\bin\wherry.exe" --help"' "$INSTDIR\bin\wherry.exe"

  ${If} ${FileExists} "$PLUGINSDIR\doormen"
    !insertmacro DOORMEN "start"
  ${EndIf}
  !insertmacro HELPER "$INSTDIR\setup\helper.py" 'path add "$INSTDIR\bin"'
  Pop $0
  ${If} $0 != "0"
    DetailPrint "$said"
    MessageBox MB_OK|MB_ICONEXCLAMATION "PATH could not be changed: add $INSTDIR\bin to it yourself.$\r$\n$said" /SD IDOK
    SetErrorLevel 3
  ${EndIf}
  ${If} ${FileExists} "$INSTDIR\iso\*.iso"
    DetailPrint "Taking in the image"
    !insertmacro HELPER "$INSTDIR\setup\helper.py" 'import "$INSTDIR\iso"'
    Pop $0
    ${If} $0 != "0"
      DetailPrint "$said"
      MessageBox MB_OK|MB_ICONEXCLAMATION "The image could not be taken in:$\r$\n$said" /SD IDOK
      SetErrorLevel 3
    ${EndIf}
  ${EndIf}
SectionEnd

Section Uninstall
  ; Nobody's data goes without a word of theirs: unasked, that is with /S, machines stay.
  ${If} ${FileExists} "$INSTDIR\python\python.exe"
    !insertmacro STOP_MACHINES "A machine of Wherry runs. It is shut down cleanly first."
    StrCpy $1 "leave"
    ${If} ${Cmd} `MessageBox MB_YESNO|MB_ICONQUESTION "Keep your machines, with all images, containers and volumes in them?$\r$\n$\r$\nThey are in $LOCALAPPDATA\wherry, and are there again when Wherry is." /SD IDYES IDNO`
    ${AndIf} ${Cmd} `MessageBox MB_YESNO|MB_ICONEXCLAMATION|MB_DEFBUTTON2 "Delete all machines, and everything in them? This cannot be taken back." /SD IDNO IDYES`
      StrCpy $1 "delete"
    ${EndIf}
    !insertmacro HELPER "$INSTDIR\setup\helper.py" "$1"
    Pop $0
    ${If} $0 != "0"
      DetailPrint "$said"
      ${If} ${Cmd} `MessageBox MB_OKCANCEL|MB_ICONEXCLAMATION "Not all could be taken back. Remove Wherry all the same?$\r$\n$said" /SD IDOK IDCANCEL`
        !insertmacro GIVE_UP 2
      ${EndIf}
    ${EndIf}
    !insertmacro HELPER "$INSTDIR\setup\helper.py" 'path remove "$INSTDIR\bin"'
    Pop $0
    SetOutPath "$TEMP"
    !insertmacro REMOVE_FILES
  ${EndIf}
  Delete "$SMPROGRAMS\Wherry.lnk"
  Delete "$INSTDIR\uninstall.exe"
  RMDir "$INSTDIR"
  DeleteRegKey HKCU "${UNINSTALL}"
SectionEnd
