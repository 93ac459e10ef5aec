/* Python stacks, walked by the thread that they belong to and known by number. */
#ifndef GILTRACE_STACKS_H
#define GILTRACE_STACKS_H

#include "tracer.h"

enum { STACK_DEPTH_MAX = 128, STACK_CACHE = 512 };

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

struct stack_frame {
    uintptr_t code, instruction;
};

/* frames.c */
bool frames_layout(const void *runtime, const char *version, struct frame_layout *out);

/* intern.c */
extern struct frame_layout intern_layout;
extern _Atomic uint64_t intern_epoch;
extern uint32_t intern_depth;
bool intern_start(const struct elf_object *python, const char *version, unsigned depth);
void intern_stop(void);
void intern_after_fork(void);
bool intern_peek(uintptr_t address, void *to, size_t size);
uint32_t intern_stack(uint64_t hash, const struct stack_frame *frames, uint32_t count, bool truncated);

#endif
