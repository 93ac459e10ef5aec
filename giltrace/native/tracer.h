/* What the units of the tracer share. Each uses those above it only: clock, elf, ring, store, names, stacks
 * (with frames and intern below it), gil, tracer. */
#ifndef GILTRACE_TRACER_H
#define GILTRACE_TRACER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* dl_iterate_phdr, sched_getcpu, posix_fallocate */
#endif

#include "layout.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* --- clock.c ------------------------------------------------------------------------------------------------ */

extern bool clock_is_tsc;

void clock_choose(void);
void clock_pair(uint64_t *ticks, uint64_t *ns, uint64_t *error_ns);

static inline uint64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline uint64_t clock_ticks(void) {
#if defined(__x86_64__)
    if (likely(clock_is_tsc)) {
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

/* --- elf.c -------------------------------------------------------------------------------------------------- */

/* A loaded object: what the dynamic linker knows of it. */
struct elf_object {
    uintptr_t base;
    const void *dynamic;
    uintptr_t relro_start, relro_end;
};

struct elf_redirect {
    const char *symbol;
    void *target;
};

bool elf_find_defining(const char *symbol, struct elf_object *object);
void *elf_symbol(const struct elf_object *object, const char *symbol, size_t *size);
int elf_redirect_imports(const struct elf_object *object, const struct elf_redirect *redirects, size_t count);

/* --- ring.c ------------------------------------------------------------------------------------------------- */

enum { RING_CHUNK = 16384 };

void ring_start(uint64_t size);
bool ring_is_on(void);
bool ring_extends(uint64_t size);
void ring_retire(uint64_t offset, uint64_t now);
bool ring_reuse(uint64_t *offset, uint64_t *complete_from);
void ring_forget_before(struct gt_header *head, uint64_t ticks);
void ring_empty(struct gt_chunk *chunk, struct gt_header *head);
void ring_after_fork(void);

/* --- store.c ------------------------------------------------------------------------------------------------ */

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

enum { HELD_MAX = 4 };

/* Everything the hooks know of the calling thread. */
struct thread {
    struct gil *gil; /* the one it used last */
    gt_record *cursor, *end;
    uint64_t base;      /* of the current chunk */
    gt_record *release; /* its newest RELEASE, if that may yet prove to have been forced */
    uint64_t request;   /* ticks; 0 when the acquire under way did not have to wait */
    bool request_written;
    bool asked; /* its way into the acquire under way was seen */
    bool holds;
    bool registered;
    bool named;
    uint8_t ending; /* rounds of destructors since the thread ended */
    uint8_t held_count;
    uint32_t starved;    /* so many events are lost before it looks for room again; UINT32_MAX: all */
    uint32_t generation; /* of the recording that the rest belongs to */
    uint32_t index, tid, sequence, chunk_size;
    uint32_t stack;    /* the number that the thread's newest STACK gives */
    void *state;       /* its PyThreadState when it last released */
    void *stack_cache; /* of stacks.c */
    struct gt_chunk *chunk;
    uint64_t chunk_offset;           /* where in the file it is */
    uint64_t acquired;               /* ticks of the hold under way */
    pthread_mutex_t *held[HELD_MAX]; /* mutexes of no known GIL, to recognise one by its nesting */
};

extern __thread struct thread self;

extern _Atomic uint32_t store_generation; /* of recordings in this process */

/* What a recording is to be like. */
struct plan {
    uint64_t lease_ns, ring_size;    /* as in the head */
    uint64_t wait_limit, hold_limit; /* ticks that trigger, 0: none */
};

void store_choose(const char *folder, const struct plan *plan);
bool store_open(void);
void store_close(void);
void store_forget(struct thread *thread);
void store_after_fork(bool goes_on);
struct gt_header *store_header(void);
void store_note(const char *text);
bool store_stop_wanted(void);
void store_trigger(enum gt_trigger kind, uint64_t length, uint64_t now);
bool store_sibling(char *out, size_t size, const char *prefix);
void store_name(struct thread *thread);
gt_record *store_more(struct thread *thread, uint64_t time);

/* Append a record of the calling thread; NULL if there was no room. */
static inline gt_record *store_emit(struct thread *thread, uint64_t time, enum gt_kind kind, uint16_t gil,
                                    uint32_t core, unsigned flags) {
    gt_record *record = thread->cursor;
    uint64_t offset = time - thread->base;
    if (unlikely(record == thread->end || offset >> GT_TIME_BITS != 0)) {
        record = store_more(thread, time);
        if (record == NULL) {
            return NULL;
        }
        offset = time - thread->base;
    }
    thread->cursor = record + 1;
    *record = offset | (uint64_t)kind << GT_KIND_SHIFT | (uint64_t)flags << GT_FLAG_SHIFT |
              (uint64_t)gil << GT_GIL_SHIFT | (uint64_t)core << GT_CORE_SHIFT;
    return record;
}

/* Append a record that holds a number and no time. */
static inline void store_number(struct thread *thread, enum gt_kind kind, uint32_t number) {
    gt_record *record = thread->cursor;
    if (unlikely(record == thread->end)) {
        record = store_more(thread, clock_ticks());
        if (record == NULL) {
            return;
        }
    }
    thread->cursor = record + 1;
    *record = (uint64_t)kind << GT_KIND_SHIFT | number;
}

/* --- names.c ------------------------------------------------------------------------------------------------ */

void names_resolve(const struct elf_object *python);
void names_after_fork(void);
void names_announce(pthread_t thread, const char *name);
void names_take(uint32_t tid, char *out, size_t size);
int names_hook_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg);

/* --- stacks.c ----------------------------------------------------------------------------------------------- */

void stacks_start(const struct elf_object *python, const char *version, unsigned depth);
void *stacks_state(void);
uint32_t stacks_own(struct thread *thread);
uint32_t stacks_of_holder(const void *state);
void stacks_end(struct thread *thread);
void stacks_stop(void);
void stacks_after_fork(void);

/* --- gil.c -------------------------------------------------------------------------------------------------- */

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
