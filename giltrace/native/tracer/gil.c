/* The hooks: see how the interpreter uses each GIL; uses.c writes down what happens to it.
 *
 *   acquire   lock(A) [timed waits on C with A] lock(B) signal(D) unlock(B) unlock(A)
 *   release   lock(A) signal(C) unlock(A), and sometimes then lock(B) [wait D] unlock(B)
 *
 * Whatever else comes by passes through as if there were no hook, and so does everything while nothing is recorded: a
 * hook may stay reachable for ever, where another tool has kept its address. ACQUIRE and RELEASE are stamped while A is
 * held, so the order of their times is the order of the events. */
#include "gil.h"

#include "clock.h"
#include "cost.h"
#include "gils.h"
#include "names.h"
#include "sample.h"
#include "unwind.h"
#include "uses.h"

#include <errno.h>

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

/* Were there more GILs than can be told apart? To look at one that may be another, and for those that have ended, takes
 * long: it is done once in so many times then. */
static _Atomic bool crowded;
static _Atomic uint32_t passed;
enum { PASSED = 1024 };

/* Does what the recorder has asked for, from within a hook. */
void (*_Atomic gil_obey)(uint32_t control);

void gil_resolve(const struct elf_object *python) {
    gils_resolve(python);
    uses_resolve();
    unwind_resolve(python);
}

void gil_start(const struct plan *plan) {
    uses_limit(plan->wait_limit, plan->hold_limit);
    atomic_store_explicit(&crowded, false, memory_order_relaxed);
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
    if (unlikely(thread->gil_number != gil->id)) {
        store_turn(thread, gil->id);
        thread->holds = false; /* else an interpreter has ended, and its GIL with it */
    }
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
    bool many = atomic_load_explicit(&crowded, memory_order_relaxed);
    if ((many && atomic_fetch_add_explicit(&passed, 1, memory_order_relaxed) % PASSED != 0) ||
        !gils_is_one(place, locked, &interpreter)) {
        return NULL;
    }
    struct gil *gil = gils_learn(place, interpreter);
    if (gil == NULL) {
        atomic_store_explicit(&crowded, true, memory_order_relaxed);
        store_note("more than 64 GILs at once: the later ones were not recorded");
        return NULL;
    }
    thread->release = NULL; /* of another GIL, which it left for this one: not forced */
    meet(thread, gil);
    gil->followed = many; /* who has it may have taken it unmet */
    return gil;
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
    uint64_t begin = cost_begin(thread);
    thread->request = 0;
    thread->request_written = false;
    thread->asked = true;
    if (unlikely(thread->release != NULL)) {
        uses_came_back(thread, gil);
    }
    cost_pause(thread, begin);
    /* Who has the GIL is about to give it up, and waits for nobody but whoever looks at it. */
    int result = thread->holds ? NEXT(lock)(mutex) : try_lock(mutex);
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
        place = address - GIL_C;
        bool given_up = (uintptr_t)thread->locked[1] == place + GIL_A;
        if (gil == NULL && (given_up || gils_in_runtime(place))) {
            gil = learn(thread, place, false);
            takes = gil == NULL;
        }
    }
    if (gil != NULL && takes) {
        uses_acquired(thread, gil);
    } else if (gil != NULL) {
        uses_released(thread, gil, gil_holder(gil), uses_release_time(gil));
    }
}

static int hook_signal(pthread_cond_t *cond) {
    struct thread *thread = &self;
    if (likely(gil_recording(thread))) {
        struct gil *gil = thread->gil;
        uint64_t begin = cost_resume(thread);
        if (likely(gil != NULL && gil_has(gil, cond, GIL_D))) {
            uses_acquired(thread, gil);
            cost_end(thread, begin);
        } else if (likely(gil != NULL && gil_has(gil, cond, GIL_C))) {
            /* First the waiters: which of them gets the GIL is decided within a microsecond (who asked for it is often
             * still awake, and takes the signal from who has waited longer), and is to be as it is without us. Nobody
             * has the GIL before the mutex is free, so the thread's stack stays what it is. */
            uint64_t now = uses_release_time(gil);
            cost_pause(thread, begin);
            int result = NEXT(signal)(cond);
            begin = cost_resume(thread);
            uses_released(thread, gil, gil_holder(gil), now);
            cost_end(thread, begin);
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
    uint64_t begin = cost_resume(thread);
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
        uses_request(thread, gil, gt_wait(left));
    }
    uint64_t switches = gil_state(gil)->switch_number;
    cost_pause(thread, begin);
    int result = sample_due(thread, left)
                     ? sample_and_wait(thread, gil, cond, mutex, until, asked, NEXT(timedwait), NEXT(lock))
                     : NEXT(timedwait)(cond, mutex, until);
    /* If the recording ended meanwhile, what is known of this wait ended with it. */
    if (result == ETIMEDOUT && likely(thread->generation == guard_generation())) {
        begin = cost_resume(thread);
        uses_timed_out(thread, gil, switches, gt_wait(left));
        cost_pause(thread, begin);
    }
    return result;
}

/* An interpreter ends and takes its GIL with it: the address may serve another purpose from now on. */
static int hook_destroy(pthread_mutex_t *mutex) {
    struct thread *thread = &self;
    struct gil *gil = gils_with((uintptr_t)mutex, GIL_A);
    if (gil != NULL) {
        if (gil->last_holder == thread && gil_recording(thread) && thread->holds) {
            uses_released(thread, gil, 0, uses_release_time(gil));
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
