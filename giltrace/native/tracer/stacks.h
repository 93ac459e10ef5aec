/* Python stacks, walked by the thread that they belong to and known by number. */
#ifndef GILTRACE_STACKS_H
#define GILTRACE_STACKS_H

#include "elf.h"
#include "store.h"

#include <stdbool.h>
#include <stdint.h>

/* When a stack was read: its innermost frame, that is, which says the line. */
struct stacks_instant {
    const uint64_t *counter; /* of what must not have happened meanwhile */
    uint64_t count;          /* its value at that time */
    uint64_t ticks;
    bool collecting; /* garbage */
};

void stacks_start(const struct elf_object *python, const char *version, unsigned depth);
uint32_t stacks_own(struct thread *thread, uintptr_t state);
uintptr_t stacks_own_state(void);
uint32_t stacks_here(struct thread *thread);
bool stacks_of_others(struct thread *thread);
uint32_t stacks_of_holder(uintptr_t state, struct stacks_instant *instant);
uint32_t stacks_of_waiter(struct thread *thread);
void stacks_stop(void);
void stacks_after_fork(void);

#endif
