/* What the use of a GIL leaves behind: records, counts, and a word to the recorder where a limit was exceeded. The
 * hooks of gil.c know which GIL it is and what happens; `A` is held, so the order of the times is that of the events.
 */
#include "uses.h"

#include "clock.h"
#include "count.h"
#include "names.h"
#include "sample.h"
#include "stacks.h"
#include "unwind.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* Waits and holds that last longer are told to the recorder. */
static _Atomic uint64_t wait_limit = UINT64_MAX, hold_limit = UINT64_MAX;

#define LIMIT(what) atomic_load_explicit(&what##_limit, memory_order_relaxed)

/* The core that a thread is on: the kernel keeps it in the thread's rseq area where libc registered one (a load),
 * otherwise it costs a call, which the recorder asks for only if it has no scheduling data. */
extern const ptrdiff_t __rseq_offset __attribute__((weak)); /* glibc's, from 2.35 on */
extern const unsigned __rseq_size __attribute__((weak));
static ptrdiff_t rseq_offset;
static bool use_getcpu;

/* Where the kernel keeps it is found out once. */
void uses_resolve(void) {
    if (&__rseq_offset != NULL && &__rseq_size != NULL) {
        rseq_offset = __rseq_size >= 8 ? __rseq_offset : 0;
    }
    use_getcpu = rseq_offset == 0 && getenv("GILTRACE_CORE") != NULL;
}

static inline uint32_t current_core(void) {
    if (likely(rseq_offset != 0)) {
        /* struct rseq: u32 cpu_id_start, u32 cpu_id (negative while unregistered) */
        int32_t core = *(volatile int32_t *)((char *)__builtin_thread_pointer() + rseq_offset + 4);
        return core < 0 ? GT_NO_CORE : (uint32_t)core;
    }
    int core = use_getcpu ? sched_getcpu() : -1;
    return core < 0 ? GT_NO_CORE : (uint32_t)core;
}

/* In ticks, 0 for none. */
void uses_limit(uint64_t wait, uint64_t hold) {
    wait_limit = wait != 0 ? wait : UINT64_MAX;
    hold_limit = hold != 0 ? hold : UINT64_MAX;
}

/* Keep the head up to date: also in the file that a forked child begins. False if there is none yet. */
static bool publish(const struct gil *gil) {
    struct gt_header *header = store_header();
    if (unlikely(header != NULL && header->gils[gil->id] == 0)) {
        header->gils[gil->id] = (uintptr_t)&gil_state(gil)->mutex;
        /* Only those that this recording has seen. Interpreters with GILs of their own come here at once. */
        uint32_t seen = __atomic_load_n(&header->gil_count, __ATOMIC_RELAXED);
        while (seen <= gil->id && !__atomic_compare_exchange_n(&header->gil_count, &seen, gil->id + 1u, true,
                                                               __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        }
        __atomic_fetch_or(&header->status, GT_GIL_SEEN, __ATOMIC_RELAXED);
    }
    return header != NULL;
}

/* In its current chunk, at its first acquire: its parent stored the name before it first gave the GIL up. */
void uses_name(struct thread *thread) {
    struct gt_chunk *chunk = thread->room.chunk;
    struct gt_tally *tally = thread->tally;
    thread->named = chunk != NULL || tally != NULL; /* else when there is room */
    if (thread->named) {
        int saved_errno = errno;
        char *name = chunk != NULL ? chunk->name : tally->name;
        names_take(thread->tid, name, sizeof chunk->name);
        if (tally != NULL && name != tally->name) {
            memcpy(tally->name, name, sizeof tally->name);
        }
        if (tally != NULL) {
            __atomic_store_n(&tally->state, GT_TALLY_LIVES, __ATOMIC_RELEASE);
        }
        errno = saved_errno;
    }
}

/* `state`: the thread state that gives the GIL up; 0 if that is not known. `now`: when it did. */
void uses_released(struct thread *thread, struct gil *gil, uintptr_t state, uint64_t now) {
    if (unlikely(!thread->holds && gil->followed)) {
        return; /* a free-threaded build has switched its GIL off: one that waits for it passes that on and goes without
                 */
    }
    /* Who only counts wants to know where it is when it waits; the first time it proves that this can be known. */
    uint32_t stack = count_only() && thread->stack != 0 ? thread->stack : stacks_own(thread, state);
    if (stack != thread->stack) {
        thread->stack = stack;
        store_number(thread, now, GT_STACK, stack);
    }
    gt_record *release = store_emit(thread, now, GT_RELEASE, gil->id, 0, 0);
    if (unlikely(!gil->followed)) {
        publish(gil); /* nobody has been seen to take it */
        gil->followed = true;
    }
    if (unlikely(thread->tally != NULL)) {
        /* A file that begins with this very event begins after it, and one that has just ended began at 0. */
        uint64_t since = thread->holds ? thread->acquired : store_start();
        count_length(thread->tally, GT_HOLDS, since != 0 && since < now ? now - since : 0);
        if (unlikely(!thread->named)) {
            uses_name(thread); /* what it has counted is of this GIL, and stays so */
        }
    }
    thread->release = gil->switch_requested ? release : NULL;
    thread->request = 0; /* a contended A on the way out is not a wait for the GIL */
    thread->asked = false;
    if (unlikely(now - thread->acquired > LIMIT(hold)) && thread->holds) {
        store_trigger(GT_TRIGGER_HOLD, now - thread->acquired, now);
    }
    thread->holds = false;
}

/* Write down since when the thread wants the GIL. If the recording began while it was on its way to it, the time is
 * that of the beginning. (A thread that is on record already and was not seen to ask is on its way as the recording
 * ends: the lock is the first of the functions that is given back.) `interval` is that of the timed wait to come. */
void uses_request(struct thread *thread, const struct gil *gil, uint32_t interval) {
    uint64_t start = store_start(), since = thread->request;
    bool under_way = thread->asked ? since < start : !thread->registered && start != 0;
    since = under_way ? start : since;
    publish(gil);
    if (unlikely(!thread->registered) && since != 0 && !count_only()) {
        /* It has not been seen to give the GIL up, and may never have it in this recording. */
        thread->stack = stacks_of_waiter(thread);
        if (thread->stack != 0) {
            store_number(thread, since, GT_STACK, thread->stack);
        }
    }
    if (since != 0) {
        store_emit(thread, since, GT_REQUEST, gil->id, interval, under_way ? GT_UNDER_WAY : 0);
    }
    thread->request_written = thread->asked = true;
    if (unlikely(thread->tally != NULL)) {
        count_since(thread->tally, GT_WAITS, since);
    }
}

/* The thread has the GIL; if it had to wait, that is over. */
static void count_acquire(struct thread *thread, uint64_t now) {
    struct gt_tally *tally = thread->tally;
    if (tally->since[GT_WAITS] != 0) {
        uint64_t waited = now - tally->since[GT_WAITS];
        uint32_t stack = count_only() ? stacks_here(thread) : thread->stack;
        count_length(tally, GT_WAITS, waited);
        count_at(GT_VICTIMS, tally, stack, waited);
    }
    count_since(tally, GT_HOLDS, now);
}

void uses_acquired(struct thread *thread, struct gil *gil) {
    if (unlikely(gil->last_holder == thread && thread->holds)) {
        /* Up to 3.8 an interpreter ends with its GIL held, and the next one makes it anew at the same address. */
        uses_released(thread, gil, 0, uses_release_time(gil));
    }
    /* Only a hand-off is to be ordered against another thread's record, so only it pays for that. */
    uint64_t now = likely(gil->last_holder == thread) ? clock_ticks() : clock_ticks_in_order();
    if (unlikely(!thread->asked || (thread->request != 0 && !thread->request_written))) {
        uses_request(thread, gil, 0); /* it did not come to a timed wait */
    }
    if (unlikely(now - thread->request > LIMIT(wait)) && thread->request != 0) {
        store_trigger(GT_TRIGGER_WAIT, now - thread->request, now);
    }
    store_emit(thread, now, GT_ACQUIRE, gil->id, current_core(), 0);
    if (unlikely(thread->tally != NULL)) {
        count_acquire(thread, now);
    }
    if (unlikely(!thread->named)) {
        uses_name(thread);
    }
    thread->request = 0;
    thread->request_written = thread->asked = false;
    thread->holds = gil->followed = true;
    thread->acquired = now;
    gil->switch_requested = false;
    if (gil->last_holder != thread) {
        gil->last_holder = publish(gil) ? thread : NULL;
    }
}

/* Back for the GIL after a release that answered a request: was it forced? The eval loop goes straight from the one to
 * the other, while C code that gave the GIL up of its own accord comes by an API function. (The interpreter's visit to
 * B after a release does not tell: it is skipped when the next holder is quick.) */
__attribute__((noinline)) void uses_came_back(struct thread *thread, const struct gil *gil) {
    gt_record release = *thread->release;
    if ((release >> GT_GIL_SHIFT & (GT_MAX_GILS - 1)) == gil->id && !unwind_meets_api()) {
        *thread->release = release | (uint64_t)GT_FORCED << GT_FLAG_SHIFT;
        /* The eval loop never stopped wanting the GIL: what it lost since then was lost to the switch. */
        thread->request = thread->base + (release & (((uint64_t)1 << GT_TIME_BITS) - 1));
        if (unlikely(thread->tally != NULL)) {
            count_one(thread->tally, &thread->tally->forced);
        }
    }
    thread->release = NULL;
}

/* A wait for the GIL ran out of time; the thread has A again. */
void uses_timed_out(struct thread *thread, struct gil *gil, uint64_t switches, uint32_t interval) {
    const struct gil_state *state = gil_state(gil);
    /* The interpreter's own condition for asking the holder to drop the GIL. */
    bool asks = state->locked && state->switch_number == switches;
    gil->switch_requested |= asks;
    if (asks && thread->tally != NULL) {
        count_one(thread->tally, &thread->tally->requests);
    }
    if (asks && !count_only()) {
        struct stacks_instant instant = {.counter = &state->switch_number};
        uint32_t stack = stacks_of_holder(gil_holder(gil), &instant);
        if (stack != 0) {
            store_number(thread, instant.ticks, GT_HOLDER_STACK, stack);
        }
    }
    store_emit(thread, clock_ticks_in_order(), GT_TIMEOUT, gil->id, interval, asks ? GT_SWITCH_REQUEST : 0);
    thread->just_asked = asks && stacks_of_others(thread);
    thread->timed_out_ns = clock_ns();
    thread->next_look_ns = sample_next(gil, thread->timed_out_ns);
}
