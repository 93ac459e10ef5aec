/* The hooks, which recognise each GIL and record what happens to it. */
#ifndef GILTRACE_GIL_H
#define GILTRACE_GIL_H

#include "elf.h"
#include "store.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct gil {
    pthread_mutex_t *_Atomic mutex; /* A: guards the GIL; NULL while the slot is free */
    pthread_mutex_t *switch_mutex;  /* B: guards the forced switch */
    pthread_cond_t *cond;           /* C: "the GIL is free"; NULL until seen */
    pthread_cond_t *switch_cond;    /* D: "somebody took it" */
    const void *last_holder;        /* these three change under A only */
    uint64_t switches;
    bool locked;
    bool switch_requested; /* since the last acquire */
    void *holder_state;    /* the holder's PyThreadState, if known */
    uint16_t id;
};

/* Put in place from the first to the last, and taken away from the last to the first: a lock that a hook has seen is
 * given back through a hook, too. Where the signals change over, the recording begins and ends. */
enum gil_hook { HOOK_UNLOCK, HOOK_DESTROY, HOOK_SIGNAL, HOOK_TIMEDWAIT, HOOK_CREATE, HOOK_LOCK, HOOK_COUNT };

extern const struct elf_redirect gil_redirects[HOOK_COUNT], gil_originals[HOOK_COUNT];
extern void (*gil_stop)(void);

void gil_resolve(const struct elf_object *python);
void gil_choose_core_source(void);
void gil_after_fork(void);
void gil_start(const struct plan *plan);

#endif
