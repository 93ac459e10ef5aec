/* Which recording this is, of which process: changes when one begins, ends or is lost, and in every child. */
#ifndef GILTRACE_GUARD_H
#define GILTRACE_GUARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#if defined(__x86_64__)
#define GUARD_PAGE 4096
#else
#define GUARD_PAGE 65536 /* the largest that there is */
#endif

/* A page of its own, which the kernel empties in a child, also in one made by the system call alone. */
union guard_page {
    _Atomic uint32_t generation;
    char bytes[GUARD_PAGE];
};

extern union guard_page guard;

/* 0 before the first recording, and in a child that nobody has looked after yet. */
static inline uint32_t guard_generation(void) {
    return atomic_load_explicit(&guard.generation, memory_order_relaxed);
}

void guard_start(void);
void guard_change(void);
bool guard_forked(void);

#endif
