/* The hooks: see how the interpreter uses each GIL, and record what happens to it.
 *
 *   acquire   lock(A) [timed waits on C with A] lock(B) signal(D) unlock(B) unlock(A)
 *   release   lock(A) signal(C) unlock(A), and sometimes then lock(B) [wait D] unlock(B)
 *
 * Whatever else comes by passes through as if there were no hook, and so does everything while nothing is recorded: a
 * hook may stay reachable for ever, where another tool has kept its address. ACQUIRE and RELEASE are stamped while A is
 * held, so the order of their times is the order of the events. */
#include "gil.h"

#include "clock.h"
#include "gils.h"
#include "names.h"
#include "sample.h"
#include "stacks.h"
#include "unwind.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* What the hooks call: libc's functions, or what another tool has put in their place. */
static struct {
    int (*_Atomic lock)(pthread_mutex_t *);
    int (*_Atomic destroy)(pthread_mutex_t *);
    int (*_Atomic signal)(pthread_cond_t *);
    int (*_Atomic timedwait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
} next = {pthread_mutex_lock, pthread_mutex_destroy, pthread_cond_signal, pthread_cond_timedwait};

#define NEXT(function) atomic_load_explicit(&next.function, memory_order_relaxed)

/* Is anything recorded? */
static _Atomic bool active;

/* Does what the recorder has asked for, from within a hook. */
void (*_Atomic gil_obey)(uint32_t control);

/* Waits and holds that last longer are told to the recorder. */
static _Atomic uint64_t wait_limit = UINT64_MAX, hold_limit = UINT64_MAX;

#define LIMIT(what) atomic_load_explicit(&what##_limit, memory_order_relaxed)

/* The core that a thread is on: the kernel keeps it in the thread's rseq area where libc registered one (a load),
 * otherwise it costs a call, which the recorder asks for only if it has no scheduling data. */
extern const ptrdiff_t __rseq_offset __attribute__((weak)); /* glibc's, from 2.35 on */
extern const unsigned __rseq_size __attribute__((weak));
static ptrdiff_t rseq_offset;
static bool use_getcpu;

static void choose_core_source(void) {
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

void gil_resolve(const struct elf_object *python) {
    choose_core_source();
    gils_resolve(python);
    unwind_resolve(python);
}

void gil_start(const struct plan *plan) {
    wait_limit = plan->wait_limit != 0 ? plan->wait_limit : UINT64_MAX;
    hold_limit = plan->hold_limit != 0 ? plan->hold_limit : UINT64_MAX;
    atomic_store_explicit(&active, true, memory_order_release);
}

void gil_end(void) {
    atomic_store_explicit(&active, false, memory_order_release);
}

/* The child makes its GILs anew, at the same addresses, and its thread takes the one that it has. */
void gil_after_fork(void) {
    self.holds = false;
    self.gil = NULL;
}

/* A recording may have ended, and another begun, since the thread came by last: is anything recorded now? */
__attribute__((noinline)) bool gil_joins(struct thread *thread) {
    if (!atomic_load_explicit(&active, memory_order_acquire)) {
        return false;
    }
    store_forget(thread);
    thread->gil = NULL; /* so that the GIL, too, is met anew */
    return true;
}

/* The thread uses this GIL from now on, and has locked its A. */
static struct gil *meet(struct thread *thread, struct gil *gil) {
    thread->gil = gil;
    if (gil->generation != thread->generation) {
        gil->generation = thread->generation;
        gil->followed = gil->switch_requested = false;
        gil->last_holder = gil->sampler = NULL; /* so that the next acquire tells the new head */
    }
    return gil;
}

/* Does it prove to be a GIL that the thread has locked A of? NULL if not. */
static struct gil *learn(struct thread *thread, uintptr_t place, bool locked) {
    uintptr_t interpreter;
    if (!gils_is_one(place, locked, &interpreter)) {
        return NULL;
    }
    struct gil *gil = gils_learn(place, interpreter);
    if (gil == NULL) {
        store_note("more than 64 GILs at once: the later ones were not recorded");
        return NULL;
    }
    thread->release = NULL; /* of another GIL, which it left for this one: not forced */
    return meet(thread, gil);
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
void gil_name(struct thread *thread) {
    struct gt_chunk *chunk = thread->room.chunk;
    struct gt_tally *tally = thread->tally;
    thread->named = true;
    if (chunk != NULL || tally != NULL) {
        int saved_errno = errno;
        char *name = chunk != NULL ? chunk->name : tally->name;
        names_take(thread->tid, name, sizeof chunk->name);
        if (tally != NULL && name != tally->name) {
            memcpy(tally->name, name, sizeof tally->name);
        }
        errno = saved_errno;
    }
}

/* After the request that it answers, if there was one. */
static inline uint64_t release_time(const struct gil *gil) {
    return likely(!gil->switch_requested) ? clock_ticks() : clock_ticks_in_order();
}

/* `state`: the thread state that gives the GIL up; 0 if that is not known. `now`: when it did. */
static void released(struct thread *thread, struct gil *gil, uintptr_t state, uint64_t now) {
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
    if (unlikely(thread->tally != NULL)) {
        count_length(thread->tally, GT_HOLDS, now - (thread->holds ? thread->acquired : store_start()));
    }
    thread->release = gil->switch_requested ? release : NULL;
    thread->request = 0; /* a contended A on the way out is not a wait for the GIL */
    thread->asked = false;
    if (unlikely(now - thread->acquired > LIMIT(hold)) && thread->holds) {
        store_trigger(GT_TRIGGER_HOLD, now - thread->acquired, now);
    }
    thread->holds = false;
    gil->followed = true;
}

/* Write down since when the thread wants the GIL. If the recording began while it was on its way to it, the time is
 * that of the beginning. (A thread that is on record already and was not seen to ask is on its way as the recording
 * ends: the lock is the first of the functions that is given back.) `interval` is that of the timed wait to come. */
static void write_request(struct thread *thread, const struct gil *gil, uint32_t interval) {
    uint64_t start = store_start(), since = thread->request;
    bool under_way = thread->asked ? since < start : !thread->registered && start != 0;
    since = under_way ? start : since;
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

static void acquired(struct thread *thread, struct gil *gil) {
    if (unlikely(gil->last_holder == thread && thread->holds)) {
        /* Up to 3.8 an interpreter ends with its GIL held, and the next one makes it anew at the same address. */
        released(thread, gil, 0, release_time(gil));
    }
    /* Only a hand-off is to be ordered against another thread's record, so only it pays for that. */
    uint64_t now = likely(gil->last_holder == thread) ? clock_ticks() : clock_ticks_in_order();
    if (unlikely(!thread->asked || (thread->request != 0 && !thread->request_written))) {
        write_request(thread, gil, 0); /* it did not come to a timed wait */
    }
    if (unlikely(now - thread->request > LIMIT(wait)) && thread->request != 0) {
        store_trigger(GT_TRIGGER_WAIT, now - thread->request, now);
    }
    store_emit(thread, now, GT_ACQUIRE, gil->id, current_core(), 0);
    if (unlikely(thread->tally != NULL)) {
        count_acquire(thread, now);
    }
    if (unlikely(!thread->named)) {
        gil_name(thread);
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
static __attribute__((noinline)) void came_back(struct thread *thread, const struct gil *gil) {
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

/* EBUSY if it is another's. A tool whose own function is there is to see the lock. */
static inline int try_lock(pthread_mutex_t *mutex) {
    int result = pthread_mutex_trylock(mutex);
    if (unlikely(result == 0 && NEXT(lock) != pthread_mutex_lock)) {
        pthread_mutex_unlock(mutex);
        result = NEXT(lock)(mutex);
    }
    return result;
}

static inline int lock_gil(struct thread *thread, struct gil *gil, pthread_mutex_t *mutex) {
    gil_hear();
    if (unlikely(!gil_recording(thread))) {
        return NEXT(lock)(mutex);
    }
    thread->request = 0;
    thread->request_written = false;
    thread->asked = true;
    if (unlikely(thread->release != NULL)) {
        came_back(thread, gil);
    }
    int result = try_lock(mutex);
    if (unlikely(result == EBUSY)) {
        if (thread->request == 0) {
            thread->request = clock_ticks();
        }
        result = NEXT(lock)(mutex);
    }
    if (unlikely(thread->gil != gil) && result == 0) {
        meet(thread, gil);
    }
    return result;
}

/* A mutex that is not the A of the GIL that the thread used last: that of another? NULL if not. */
static __attribute__((noinline)) struct gil *lookup(struct thread *thread, const pthread_mutex_t *mutex) {
    struct gil *gil = gils_with((uintptr_t)mutex, GIL_A);
    if (gil == NULL) {
        thread->locked[0] = thread->locked[1];
        thread->locked[1] = mutex;
    }
    return gil;
}

static int hook_lock(pthread_mutex_t *mutex) {
    struct thread *thread = &self;
    struct gil *gil = thread->gil;
    if (unlikely(gil == NULL || !gil_has(gil, mutex, GIL_A))) {
        if (gil != NULL && gil_has(gil, mutex, GIL_B)) {
            return NEXT(lock)(mutex);
        }
        gil = lookup(thread, mutex);
        if (gil == NULL) {
            return NEXT(lock)(mutex);
        }
    }
    return lock_gil(thread, gil, mutex);
}

/* The condition is none of the thread's GIL: is it another's, or that of one seen for the first time? */
static __attribute__((noinline)) void signal_unknown(struct thread *thread, const pthread_cond_t *cond) {
    uintptr_t address = (uintptr_t)cond;
    bool takes = true;
    struct gil *gil = gils_with(address, GIL_D);
    if (gil == NULL) {
        gil = gils_with(address, GIL_C);
        takes = gil == NULL;
    }
    if (gil != NULL) {
        meet(thread, gil); /* locked before the hooks were in place */
    } else {
        uintptr_t place = address - GIL_D;
        bool nested = (uintptr_t)thread->locked[0] == place + GIL_A && (uintptr_t)thread->locked[1] == place + GIL_B;
        if (nested || gils_in_runtime(place)) {
            gil = learn(thread, place, true);
            thread->asked |= gil != NULL && nested; /* its lock of A was seen, as that of a mutex like others */
        }
        if (gil == NULL && gils_in_runtime(address - GIL_C)) {
            gil = learn(thread, address - GIL_C, false);
            takes = gil == NULL;
        }
    }
    if (gil != NULL && takes) {
        acquired(thread, gil);
    } else if (gil != NULL) {
        released(thread, gil, gil_holder(gil), release_time(gil));
    }
}

static int hook_signal(pthread_cond_t *cond) {
    struct thread *thread = &self;
    if (likely(gil_recording(thread))) {
        struct gil *gil = thread->gil;
        if (likely(gil != NULL && gil_has(gil, cond, GIL_D))) {
            acquired(thread, gil);
        } else if (likely(gil != NULL && gil_has(gil, cond, GIL_C))) {
            /* First the waiters: which of them gets the GIL is decided within a microsecond (who asked for it is often
             * still awake, and takes the signal from who has waited longer), and is to be as it is without us. Nobody
             * has the GIL before the mutex is free, so the thread's stack stays what it is. */
            uint64_t now = release_time(gil);
            int result = NEXT(signal)(cond);
            released(thread, gil, gil_holder(gil), now);
            return result;
        } else {
            signal_unknown(thread, cond);
        }
    }
    return NEXT(signal)(cond);
}

/* The GIL that the thread waits for; NULL if it waits for something else. */
static struct gil *waited_for(struct thread *thread, const pthread_cond_t *cond, const pthread_mutex_t *mutex) {
    if (likely(thread->gil != NULL && gil_has(thread->gil, mutex, GIL_A))) {
        return thread->gil;
    }
    uintptr_t place = (uintptr_t)mutex - GIL_A;
    struct gil *gil = gils_with((uintptr_t)mutex, GIL_A);
    if (gil != NULL) {
        return meet(thread, gil);
    }
    if ((uintptr_t)cond == place + GIL_C && (gil = learn(thread, place, true)) != NULL) {
        thread->request = 0;
        thread->request_written = false;
        thread->asked = thread->locked[1] == mutex;
    }
    return gil;
}

/* A wait for the GIL ran out of time; the thread has A again. */
static void timed_out(struct thread *thread, struct gil *gil, uint64_t switches, uint32_t interval) {
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
    thread->just_asked = asks && stacks_of_others();
    thread->timed_out_ns = clock_ns();
    thread->next_look_ns = sample_next(thread->timed_out_ns);
}

enum { MOST_LATE_NS = 10000 };

/* How long a wait until then may take. */
static inline int64_t left_until(const struct timespec *until, uint64_t now) {
    return (int64_t)((uint64_t)until->tv_sec * 1000000000u + (uint64_t)until->tv_nsec - now);
}

static int hook_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until) {
    struct thread *thread = &self;
    struct gil *gil = gil_recording(thread) ? waited_for(thread, cond, mutex) : NULL;
    if (gil == NULL) {
        return NEXT(timedwait)(cond, mutex, until);
    }
    /* Before all else; but who has just asked the holder, and will look at it, saves the time that this takes (see
     * sample.c). The interval is then what it was before, but for what went by since. */
    bool asked = thread->just_asked && thread->request_written;
    int64_t left = left_until(until, likely(!asked) ? clock_ns() : thread->timed_out_ns);
    int64_t late = left - thread->left_ns;
    if (asked && late >= 0 && late < MOST_LATE_NS) {
        left = thread->left_ns;
    }
    thread->left_ns = left;
    thread->just_asked = false;
    if (thread->request == 0) {
        thread->request = clock_ticks();
    }
    if (!thread->request_written) {
        thread->waits_since_ns = clock_ns();
        /* Now, so that a thread that never gets the GIL is seen to want it. */
        write_request(thread, gil, gt_wait(left));
    }
    uint64_t switches = gil_state(gil)->switch_number;
    int result = sample_due(left) ? sample_and_wait(thread, gil, cond, mutex, until, asked, NEXT(timedwait), NEXT(lock))
                                  : NEXT(timedwait)(cond, mutex, until);
    /* If the recording ended meanwhile, what is known of this wait ended with it. */
    if (result == ETIMEDOUT && likely(thread->generation == guard_generation())) {
        timed_out(thread, gil, switches, gt_wait(left));
    }
    return result;
}

/* An interpreter ends and takes its GIL with it: the address may serve another purpose from now on. */
static int hook_destroy(pthread_mutex_t *mutex) {
    struct thread *thread = &self;
    struct gil *gil = gils_with((uintptr_t)mutex, GIL_A);
    if (gil != NULL) {
        if (gil->last_holder == thread && gil_recording(thread) && thread->holds) {
            released(thread, gil, 0, release_time(gil));
        }
        gils_forget(gil);
    }
    return NEXT(destroy)(mutex);
}

const struct elf_hook gil_hooks[HOOK_COUNT] = {
    [HOOK_DESTROY] = {"pthread_mutex_destroy", hook_destroy, pthread_mutex_destroy, (void **)&next.destroy},
    [HOOK_SIGNAL] = {"pthread_cond_signal", hook_signal, pthread_cond_signal, (void **)&next.signal},
    [HOOK_TIMEDWAIT] = {"pthread_cond_timedwait", hook_timedwait, pthread_cond_timedwait, (void **)&next.timedwait},
    [HOOK_CREATE] = {"pthread_create", names_hook_create, pthread_create, (void **)&names_next_create},
    [HOOK_LOCK] = {"pthread_mutex_lock", hook_lock, pthread_mutex_lock, (void **)&next.lock},
};
