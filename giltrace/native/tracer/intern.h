/* Distinct stacks, each written out once and known by number from then on. */
#ifndef GILTRACE_INTERN_H
#define GILTRACE_INTERN_H

#include "elf.h"
#include "frames.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { STACK_DEPTH_MAX = 128 };

struct stack_frame {
    uintptr_t code, instruction;
};

extern struct frame_layout intern_layout;
extern _Atomic uint64_t intern_epoch;
extern uint32_t intern_depth;
bool intern_start(const struct elf_object *python, const char *version, unsigned depth);
void intern_stop(void);
void intern_after_fork(void);
bool intern_peek(uintptr_t address, void *to, size_t size);
uint32_t intern_stack(uint64_t hash, const struct stack_frame *frames, uint32_t count, bool truncated);

#endif
