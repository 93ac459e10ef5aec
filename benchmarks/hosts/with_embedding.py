"""A C program that embeds Python: its own threads call into Python, which is ended and started anew."""

import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

PROGRAM = r"""
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>

static void *work(void *code) {
    for (int i = 0; i < 200; i++) {
        PyGILState_STATE state = PyGILState_Ensure();
        PyRun_SimpleString(code);
        PyGILState_Release(state);
    }
    return NULL;
}

int main(void) {
    pthread_t threads[4];
    for (int turn = 0; turn < 3; turn++) {
        Py_Initialize();
        PyRun_SimpleString("total = []");
        Py_BEGIN_ALLOW_THREADS
        for (int i = 0; i < 4; i++) {
            pthread_create(&threads[i], NULL, work, "total.append(sum(i * i for i in range(20000)))");
        }
        for (int i = 0; i < 4; i++) {
            pthread_join(threads[i], NULL);
        }
        Py_END_ALLOW_THREADS
        PyRun_SimpleString("print(len(total), sum(total), flush=True)");
        if (Py_FinalizeEx() < 0) {
            return 120;
        }
    }
    return 0;
}
"""


def prepare():
    Path("embedded.c").write_text(PROGRAM)
    names = ("LIBDIR", "LIBS", "SYSLIBS", "LINKFORSHARED")
    known = {name: str(sysconfig.get_config_var(name) or "") for name in names}
    version = sysconfig.get_config_var("LDVERSION")
    include = sysconfig.get_path("include")
    command = ["cc", "-O1", "embedded.c", "-o", "embedded", "-I" + include, "-L" + known["LIBDIR"]]
    command += ["-lpython" + version, "-Wl,-rpath," + known["LIBDIR"], "-lpthread"]
    libraries = shlex.split(" ".join(known[name] for name in names[1:]))
    subprocess.run([*command, *libraries, "-lm"], check=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["prepare"]:
        prepare()
    else:
        sys.exit(subprocess.call(["./embedded"]))
