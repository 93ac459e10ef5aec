/* Where each CPython keeps what a walk of its stacks needs. */
#ifndef GILTRACE_FRAMES_H
#define GILTRACE_FRAMES_H

#include <stdbool.h>
#include <stdint.h>

/* Where an interpreter keeps what a walk needs: byte offsets. */
struct frame_layout {
    uint32_t state_frame;   /* thread state: the current frame, or what `cframe` points to holds it */
    int32_t cframe_current; /* 3.11 and 3.12: the frame within the C frame; -1 elsewhere */
    uint32_t previous, code, instruction;
    uint32_t instruction_size;  /* 4: an index (3.8-3.10); 8: a pointer into the code */
    uint32_t instruction_scale; /* bytes per unit of an index */
    uint32_t code_filename, code_name, code_linetable, code_first_line, code_start;
    uint32_t text_ascii, text_other; /* where the characters of a compact str begin */
};

/* The layout of the interpreter whose `_PyRuntime` and `Py_GetVersion()` these are; false if it is not known. */
bool frames_layout(const void *runtime, const char *version, struct frame_layout *out);

#endif
