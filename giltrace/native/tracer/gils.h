/* The GILs of this process, each known by its place. */
#ifndef GILTRACE_GILS_H
#define GILTRACE_GILS_H

#include "elf.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The interpreter's struct _gil_runtime_state, the same since 3.2 (its first member grew from 3.2 to 3.8). */
struct gil_state {
    uint64_t interval;     /* microseconds */
    uintptr_t last_holder; /* the thread state that has it, or had it last */
    int32_t locked;
    uint64_t switch_number;
    pthread_cond_t cond;          /* C: "the GIL is free" */
    pthread_mutex_t mutex;        /* A: guards the GIL */
    pthread_cond_t switch_cond;   /* D: "somebody took it" */
    pthread_mutex_t switch_mutex; /* B: guards the forced switch */
};

struct gil {
    _Atomic uintptr_t place; /* of its struct gil_state; 0 while the slot is free */
    uint16_t id;
    _Atomic uintptr_t interpreter; /* that it came and goes with; 0 if it is part of the runtime */
    /* What follows changes under A only. */
    uint32_t generation;     /* of the recording that the rest belongs to */
    bool followed;           /* who has it is known */
    bool switch_requested;   /* since the last acquire */
    const void *last_holder; /* our own word for a thread */
    const void *sampler;     /* of those that wait for it, the one that looks what its holder does */
    uint64_t sampled_until_ns;
    uint64_t waits_from_ns; /* of sample.c: since then */
    uint32_t waits;         /* so many have begun */
    uint32_t sparing;       /* one look is due in 2^sparing ms */
};

void gils_resolve(const struct elf_object *python);
struct gil *gils_with(uintptr_t address, size_t offset);
bool gils_in_runtime(uintptr_t place);
bool gils_is_one(uintptr_t place, bool locked, uintptr_t *interpreter);
struct gil *gils_learn(uintptr_t place, uintptr_t interpreter);
void gils_forget(struct gil *gil);

#define GIL_A offsetof(struct gil_state, mutex)
#define GIL_B offsetof(struct gil_state, switch_mutex)
#define GIL_C offsetof(struct gil_state, cond)
#define GIL_D offsetof(struct gil_state, switch_cond)

/* Is the mutex or condition at `address` the one of this GIL that lies at `offset`? */
static inline bool gil_has(const struct gil *gil, const void *address, size_t offset) {
    return (uintptr_t)address == atomic_load_explicit(&gil->place, memory_order_relaxed) + offset;
}

/* The interpreter's own word on it; while A is held nothing of it changes but the last holder. */
static inline const struct gil_state *gil_state(const struct gil *gil) {
    return (const struct gil_state *)atomic_load_explicit(&gil->place, memory_order_relaxed);
}

static inline uintptr_t gil_holder(const struct gil *gil) {
    return __atomic_load_n(&gil_state(gil)->last_holder, __ATOMIC_RELAXED);
}

#endif
