/* The hooks, which record what happens to each GIL. */
#ifndef GILTRACE_GIL_H
#define GILTRACE_GIL_H

#include "elf.h"
#include "store.h"

#include <stdatomic.h>

/* Put in place from the first to the last, and taken away from the last to the first. Where the signals change over,
 * the recording begins and ends. */
enum gil_hook { HOOK_DESTROY, HOOK_SIGNAL, HOOK_TIMEDWAIT, HOOK_CREATE, HOOK_LOCK, HOOK_COUNT };

extern const struct elf_hook gil_hooks[HOOK_COUNT];
extern void (*_Atomic gil_obey)(uint32_t control);

void gil_resolve(const struct elf_object *python);
void gil_start(const struct plan *plan);
void gil_end(void);
void gil_after_fork(void);

#endif
