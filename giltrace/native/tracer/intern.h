/* Distinct stacks, each written out once and known by number from then on. */
#ifndef GILTRACE_INTERN_H
#define GILTRACE_INTERN_H

#include "elf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { STACK_DEPTH_MAX = 128, STACK_BITS = 18 /* of the number of a stack */ };

enum { TYPE_NAME_MAX = 64 };

struct stack_frame {
    uintptr_t code, instruction;
};

bool intern_start(const struct elf_object *python);
void intern_stop(void);
void intern_reserve(void);
void intern_after_fork(void);
bool intern_own(uint32_t generation, const struct stack_frame *frames, uint32_t count, bool truncated, uint32_t *id);
uint32_t intern_type(uint32_t generation, const char *name, size_t length);
uint32_t intern_seen(uint32_t generation, const struct stack_frame *frames, uint32_t count, bool truncated);

#endif
