/* Ticks, which all records are stamped with, and nanoseconds. */
#ifndef GILTRACE_CLOCK_H
#define GILTRACE_CLOCK_H

#include "likely.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

extern _Atomic bool clock_by_tsc;

void clock_choose(void);
void clock_pair(uint64_t *ticks, uint64_t *ns, uint64_t *error_ns);

static inline uint64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Are ticks those of the TSC? */
static inline bool clock_is_tsc(void) {
    return atomic_load_explicit(&clock_by_tsc, memory_order_relaxed);
}

static inline uint64_t clock_ticks(void) {
#if defined(__x86_64__)
    if (likely(clock_is_tsc())) {
        return __builtin_ia32_rdtsc();
    }
#endif
    return clock_ns();
}

/* The ticks after everything before, such as taking a lock: a core may otherwise read the TSC while it still waits
 * for the lock, some hundred ticks before another thread's reading under that lock. */
static inline uint64_t clock_ticks_in_order(void) {
#if defined(__x86_64__)
    __builtin_ia32_lfence();
#endif
    return clock_ticks();
}

#endif
