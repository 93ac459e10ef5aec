/* Where each CPython keeps what a walk of its stacks needs, and whether this one does. */
#ifndef GILTRACE_FRAMES_H
#define GILTRACE_FRAMES_H

#include "elf.h"

#include <stdbool.h>
#include <stdint.h>

/* Where an interpreter keeps what a walk needs: byte offsets. */
struct frame_layout {
    uint32_t state_frame;   /* thread state: the current frame, or what `cframe` points to holds it */
    int32_t cframe_current; /* 3.11 and 3.12: the frame within the C frame; -1 elsewhere */
    uint32_t previous, code, instruction;
    uint32_t instruction_size;  /* 4: an index (3.8-3.10); 8: a pointer into the code */
    uint32_t instruction_scale; /* bytes per unit of an index */
    uint32_t code_filename, code_name, code_linetable, code_first_line, code_start, code_size;
    uint32_t text_ascii, text_other; /* where the characters of a compact str begin */
    uint32_t first_state;            /* interpreter state: its newest thread state */
    bool one_current;                /* up to 3.11 one thread state is current in the process, not one in each thread */
    uint32_t collecting;             /* interpreter state (3.8: the runtime): an int, whether it collects garbage */
    bool of_runtime;                 /* see there */
    bool generations;                /* before that stand the generations, up to 3.12 */
    uint32_t wider;                  /* bytes that the head of an object has beyond 16: 16 in a free-threaded build */
};

/* What objects are told by. */
struct frame_types {
    uintptr_t code, text, bytes;
};

enum { STATE_PREVIOUS = 0, STATE_NEXT = 8, STATE_INTERPRETER = 16 }; /* of a thread state, in every version */
enum { OBJECT_TYPE = 8, OBJECT_SIZE = 16, TYPE_NAME = 24, TYPE_SIZE = 32, TYPE_DEALLOC = 48 };
enum { TEXT_LENGTH = 16, TEXT_STATE = 32, BYTES_START = 32 };

enum frames_verdict { FRAMES_NONE, FRAMES_RIGHT, FRAMES_WRONG };

extern struct frame_layout frames_layout;
extern struct frame_types frames_types;

bool frames_choose(const struct elf_object *python, const char *version);
enum frames_verdict frames_check(uintptr_t state);
bool frames_collecting(uintptr_t state);

/* Is it a build that can do without a GIL? */
static inline bool frames_free_threaded(void) {
    return frames_layout.wider != 0;
}

/* Where a field of an object lies whose offset is this where objects have the usual head: all of the above have. */
static inline uint32_t frames_field(uint32_t offset) {
    return offset + frames_layout.wider;
}

/* The tag bits of a frame's code (a stack reference from 3.14 on) are no part of its address. */
static inline uintptr_t frames_untagged(uintptr_t code) {
    return code & ~(uintptr_t)7;
}

#endif
