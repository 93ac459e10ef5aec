/* Call frame information (.eh_frame): how to get from a frame to its caller's. */
#ifndef GILTRACE_CFI_H
#define GILTRACE_CFI_H

#include "elf.h"

#include <stdbool.h>
#include <stdint.h>

/* What is known of a frame: enough for the frames of C code, whose start is told by the stack or the frame pointer. */
struct cfi_frame {
    uintptr_t code;  /* where it is at; behind the call where it called another */
    uintptr_t stack; /* stack pointer and frame pointer there */
    uintptr_t frame;
    uintptr_t link; /* of the innermost frame only: the register that holds the return address on some machines */
    bool called;    /* another */
};

/* The code that one description covers: a function, or a part of one. */
struct cfi_extent {
    uintptr_t start, end;
    const uint8_t *description;
};

bool cfi_find(const struct elf_object *object, const struct cfi_frame *frame, struct cfi_extent *out);
bool cfi_step(const struct cfi_extent *extent, struct cfi_frame *frame, bool read(uintptr_t address, uintptr_t *out));

#endif
