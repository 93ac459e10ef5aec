/* The interpreter's own locks: who sleeps in one, and who ends that. */
#ifndef GILTRACE_LOCKS_H
#define GILTRACE_LOCKS_H

#include "elf.h"

/* Put in place from the first to the last, once the GIL's are, and taken away before those. */
enum locks_hook {
    LOCKS_POST,
    LOCKS_DESTROY,
    LOCKS_TRY,
    LOCKS_TIMEDWAIT,
    LOCKS_CLOCKWAIT,
    LOCKS_WAIT,
    LOCKS_HOOK_COUNT
};

extern const struct elf_hook locks_hooks[LOCKS_HOOK_COUNT];

void locks_after_fork(void);

#endif
