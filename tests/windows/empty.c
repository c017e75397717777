// python3.dll has no code of its own: every name of the stable ABI leads to python3XX.dll.

int __stdcall DllMainCRTStartup(void *module, unsigned reason, void *reserved)
{
    (void)module, (void)reason, (void)reserved;
    return 1;
}
