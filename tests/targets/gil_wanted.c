/* A module that does not say that it can do without the GIL: importing it switches that on. */
#include <Python.h>

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "gil_wanted"};

PyMODINIT_FUNC PyInit_gil_wanted(void) {
    return PyModuleDef_Init(&definition);
}
