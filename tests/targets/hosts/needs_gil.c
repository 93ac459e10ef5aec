/* An extension that does not say that it can do without a GIL: a free-threaded build switches its GIL on for it. */
#include <Python.h>

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, .m_name = "needs_gil", .m_size = -1};

PyMODINIT_FUNC PyInit_needs_gil(void) {
    return PyModule_Create(&definition);
}
