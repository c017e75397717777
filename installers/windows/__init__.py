"""setup.exe, the MSI, and the manifests of winget and Scoop."""
