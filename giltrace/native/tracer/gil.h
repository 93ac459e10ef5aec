/* The hooks, which record what happens to each GIL. */
#ifndef GILTRACE_GIL_H
#define GILTRACE_GIL_H

#include "elf.h"
#include "guard.h"
#include "likely.h"
#include "store.h"

#include <stdatomic.h>
#include <stdbool.h>

/* Put in place from the first to the last, and taken away from the last to the first. Where the signals change over,
 * the recording begins and ends. */
enum gil_hook { HOOK_DESTROY, HOOK_SIGNAL, HOOK_TIMEDWAIT, HOOK_CREATE, HOOK_LOCK, HOOK_COUNT };

extern const struct elf_hook gil_hooks[HOOK_COUNT];
extern void (*_Atomic gil_obey)(uint32_t control);

void gil_resolve(const struct elf_object *python);
void gil_start(const struct plan *plan);
void gil_end(void);
void gil_after_fork(void);
bool gil_joins(struct thread *thread);

/* Whether the thread's events are recorded. */
static inline bool gil_recording(struct thread *thread) {
    return likely(thread->generation == guard_generation()) || gil_joins(thread);
}

/* Do what the recorder has asked for. */
static inline void gil_hear(void) {
    uint32_t control = store_control();
    if (unlikely(control != 0)) {
        atomic_load_explicit(&gil_obey, memory_order_relaxed)(control);
    }
}

#endif
