/* A number that tells recordings and processes apart. Everything that a thread knows of its place in a recording goes
 * with the number that was there at the time; one load and a comparison in each hook tell whether it still holds. */
#include "guard.h"

#include "system.h"

#include <sys/mman.h>

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

_Alignas(GUARD_PAGE) union guard_page guard;

static _Atomic uint32_t newest; /* the same in memory that a child keeps */

void guard_change(void) {
    uint32_t next;
    do {
        next = atomic_fetch_add(&newest, 1) + 1;
    } while (next == 0 || next == UINT32_MAX); /* what a child finds, and a thread begins with */
    atomic_store(&guard.generation, next);
}

/* Older kernels cannot: there the handler of pthread_atfork is all that tells of a child. */
void guard_start(void) {
    if (guard_generation() == 0) {
        system_call(SYS_madvise, (long)&guard, sizeof guard, MADV_WIPEONFORK, 0, 0, 0);
        uint32_t none = 0;
        /* In this order the first time: a thread that looks in between is not to take itself for a child's. */
        if (atomic_load(&newest) == 0) {
            atomic_store(&guard.generation, 1);
            atomic_compare_exchange_strong(&newest, &none, 1);
        } else {
            guard_change();
        }
    }
}

/* Is this a child that has not been looked after? */
bool guard_forked(void) {
    return guard_generation() == 0 && atomic_load_explicit(&newest, memory_order_relaxed) != 0;
}
