/* A program that is no Python until it opens libpython, argv[1], which then runs argv[2]. */
#include <dlfcn.h>
#include <stdio.h>

int main(int count, char **words) {
    void *python = count == 3 ? dlopen(words[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (python == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    void (*begin)(int);
    int (*run)(const char *), (*finish)(void);
    *(void **)&begin = dlsym(python, "Py_InitializeEx");
    *(void **)&run = dlsym(python, "PyRun_SimpleString");
    *(void **)&finish = dlsym(python, "Py_FinalizeEx");
    begin(1);
    int result = run(words[2]);
    return finish() != 0 || result != 0;
}
