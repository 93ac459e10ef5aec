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
        guard_change();
    }
}

/* Is this a child that has not been looked after? */
bool guard_forked(void) {
    return guard_generation() == 0 && atomic_load_explicit(&newest, memory_order_relaxed) != 0;
}
