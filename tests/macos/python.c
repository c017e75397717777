// bin/python3: loads the library of Python (PYTHON_LIBRARY) out of lib/ and hands over the command line.

#include <dlfcn.h>
#include <stdio.h>

typedef int (*py_main_t)(int, char **);

int main(int argc, char **argv)
{
    void *library = dlopen("@executable_path/../lib/" PYTHON_LIBRARY, RTLD_NOW | RTLD_GLOBAL);
    py_main_t py_main = library ? (py_main_t)dlsym(library, "Py_BytesMain") : NULL;
    if (!py_main) {
        fprintf(stderr, "python3: %s\n", dlerror());
        return 103;
    }
    return py_main(argc, argv);
}
