/* The hooks: recognise each GIL by how the interpreter uses it, and record what happens to it.
 *
 *   acquire   lock(A) [timed waits on C with A] lock(B) signal(D) unlock(B) unlock(A)
 *   release   lock(A) signal(C) unlock(A), and sometimes then lock(B) [wait D] unlock(B)
 *
 * A signal inside two nested locks is the signature that makes (A, B, D) known; C is the other condition used
 * with A. From then on a GIL is told by addresses alone. ACQUIRE and RELEASE are stamped while A is held, so the
 * order of their times is the order of the events. */
#include "gil.h"

#include "clock.h"
#include "names.h"
#include "stacks.h"

#include <dlfcn.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <unwind.h>

/* The four addresses lie in one struct of the interpreter; anything further apart is not a GIL. */
enum { GIL_SPAN_MAX = 512 };

static struct gil gils[GT_MAX_GILS];
static _Atomic uint32_t gil_count;
static pthread_mutex_t learn_lock = PTHREAD_MUTEX_INITIALIZER;

/* The core that a thread is on: the kernel keeps it in the thread's rseq area where libc registered one (a load),
 * otherwise it costs a call, which the recorder asks for only if it has no scheduling data. */
static ptrdiff_t rseq_offset;
static bool use_getcpu;

void gil_choose_core_source(void) {
    const ptrdiff_t *offset = dlsym(RTLD_DEFAULT, "__rseq_offset");
    const unsigned *size = dlsym(RTLD_DEFAULT, "__rseq_size");
    if (offset != NULL && size != NULL && *size >= 8) {
        rseq_offset = *offset;
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

void gil_after_fork(void) {
    pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    learn_lock = fresh;
    for (uint32_t i = 0; i < gil_count; i++) {
        gils[i].locked = false; /* the child makes its GILs anew, at the same addresses */
        gils[i].switch_requested = false;
        gils[i].last_holder = NULL; /* so that the next acquire, though by the same thread, tells the new head */
    }
    self.holds = false;
    self.held_count = 0;
}

/* Was a release forced? Its thread answers when it comes back for the GIL: the eval loop goes straight from the
 * one to the other, while C code that gave the GIL up of its own accord returns through one of these functions.
 * (The interpreter's visit to B after a release does not tell: it is skipped when the next holder is quick.) */
static const char *const api_names[] = {"PyEval_RestoreThread", "PyEval_AcquireThread", "PyThreadState_Swap",
                                        "PyGILState_Ensure"};
enum { API_COUNT = sizeof api_names / sizeof api_names[0], FRAMES_MAX = 12 };
static struct { uintptr_t start, end; } api_code[API_COUNT];

void gil_resolve(const struct elf_object *python) {
    for (int i = 0; i < API_COUNT; i++) {
        size_t size = 0;
        api_code[i].start = (uintptr_t)elf_symbol(python, api_names[i], &size);
        api_code[i].end = api_code[i].start + size;
    }
}

struct walk {
    int frames;
    bool found;
};

static _Unwind_Reason_Code visit_frame(struct _Unwind_Context *context, void *data) {
    struct walk *walk = data;
    uintptr_t ip = _Unwind_GetIP(context);
    for (int i = 0; i < API_COUNT; i++) {
        /* A return address is behind its call, so the range is open on the left. */
        walk->found |= ip > api_code[i].start && ip <= api_code[i].end;
    }
    return walk->found || ++walk->frames == FRAMES_MAX ? _URC_END_OF_STACK : _URC_NO_REASON;
}

/* Only where a switch was requested, a few hundred times a second at most; the caller does not hold the GIL. */
static __attribute__((noinline)) bool called_through_api(void) {
    struct walk walk = {0};
    int saved_errno = errno;
    _Unwind_Backtrace(visit_frame, &walk);
    errno = saved_errno;
    return walk.found;
}

/* Waits and holds that last longer are told to the recorder. */
static uint64_t wait_limit = UINT64_MAX, hold_limit = UINT64_MAX;

/* Ends the recording, from within a hook. */
void (*gil_stop)(void);

/* A later recording in the same process finds the GIL held: by whoever starts it, or else by whoever comes next. */
void gil_start(const struct plan *plan) {
    wait_limit = plan->wait_limit != 0 ? plan->wait_limit : UINT64_MAX;
    hold_limit = plan->hold_limit != 0 ? plan->hold_limit : UINT64_MAX;
    for (uint32_t i = 0; i < gil_count; i++) {
        gils[i].locked = true;
        gils[i].switch_requested = false;
        gils[i].last_holder = NULL; /* so that the next acquire tells the new head */
    }
}

static struct gil *find(const pthread_mutex_t *mutex) {
    uint32_t count = atomic_load_explicit(&gil_count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++) {
        if (atomic_load_explicit(&gils[i].mutex, memory_order_acquire) == mutex) {
            return &gils[i];
        }
    }
    return NULL;
}

static struct gil *find_by_cond(const pthread_cond_t *cond) {
    uint32_t count = atomic_load_explicit(&gil_count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++) {
        if (atomic_load_explicit(&gils[i].mutex, memory_order_acquire) != NULL &&
            (cond == gils[i].switch_cond || cond == gils[i].cond)) {
            return &gils[i];
        }
    }
    return NULL;
}

static uintptr_t distance(const void *one, const void *other) {
    uintptr_t a = (uintptr_t)one, b = (uintptr_t)other;
    return a > b ? a - b : b - a;
}

static struct gil *learn(pthread_mutex_t *mutex, pthread_mutex_t *switch_mutex, pthread_cond_t *switch_cond) {
    if (mutex == switch_mutex || distance(mutex, switch_mutex) > GIL_SPAN_MAX ||
        distance(mutex, switch_cond) > GIL_SPAN_MAX) {
        return NULL;
    }
    pthread_mutex_lock(&learn_lock);
    struct gil *gil = find(NULL); /* the slot of a GIL that was destroyed */
    if (gil == NULL && gil_count < GT_MAX_GILS) {
        gil = &gils[gil_count];
        gil->id = (uint16_t)gil_count;
    }
    if (gil != NULL) {
        gil->switch_mutex = switch_mutex;
        gil->switch_cond = switch_cond;
        gil->cond = NULL;
        gil->last_holder = NULL;
        gil->locked = false;
        atomic_store_explicit(&gil->mutex, mutex, memory_order_release);
        if (gil->id == gil_count) {
            atomic_fetch_add_explicit(&gil_count, 1, memory_order_release);
        }
    } else {
        store_note("more than 64 GILs at once: the later ones were not recorded");
    }
    pthread_mutex_unlock(&learn_lock);
    return gil;
}

/* Keep the head up to date: also in the file that a forked child begins. */
static void publish(const struct gil *gil) {
    struct gt_header *header = store_header();
    if (unlikely(header != NULL && header->gils[gil->id] == 0)) {
        header->gils[gil->id] = (uintptr_t)gil->mutex;
        /* Only those that this recording has seen. */
        header->gil_count = header->gil_count > gil->id ? header->gil_count : gil->id + 1u;
        __atomic_fetch_or(&header->status, GT_GIL_SEEN, __ATOMIC_RELAXED);
    }
}

/* A recording in this process may have ended and another begun since the thread's last record. */
static inline void follow_recording(struct thread *thread) {
    if (unlikely(thread->generation != atomic_load_explicit(&store_generation, memory_order_relaxed))) {
        store_forget(thread);
    }
}

static void released(struct thread *thread, struct gil *gil) {
    uint32_t stack = stacks_own(thread);
    if (stack != thread->stack) {
        thread->stack = stack;
        store_number(thread, GT_STACK, stack);
    }
    /* After the request that it answers, if there was one. */
    uint64_t now = likely(!gil->switch_requested) ? clock_ticks() : clock_ticks_in_order();
    gt_record *release = store_emit(thread, now, GT_RELEASE, gil->id, 0, 0);
    thread->release = gil->switch_requested ? release : NULL;
    thread->request = 0; /* a contended A on the way out is not a wait for the GIL */
    thread->asked = false;
    if (unlikely(now - thread->acquired > hold_limit) && thread->holds) {
        store_trigger(GT_TRIGGER_HOLD, now - thread->acquired, now);
    }
    thread->holds = false;
    gil->locked = false;
}

/* Write down since when the thread wants the GIL. If the recording began while it was on its way to it, the time is
 * that of the beginning. (A thread that is on record already and was not seen to ask is on its way as the recording
 * ends: the lock is the first of the functions that is given back.) */
static void write_request(struct thread *thread, const struct gil *gil) {
    const struct gt_header *header = store_header();
    uint64_t start = header != NULL ? header->start_ticks : 0;
    if (thread->asked ? thread->request < start : !thread->registered && header != NULL) {
        store_emit(thread, start, GT_REQUEST, gil->id, 0, GT_UNDER_WAY);
    } else if (thread->request != 0) {
        store_emit(thread, thread->request, GT_REQUEST, gil->id, 0, 0);
    }
    thread->request_written = thread->asked = true;
}

static void acquired(struct thread *thread, struct gil *gil) {
    if (unlikely(gil->locked && gil->last_holder == thread && thread->holds)) {
        /* Up to 3.11 an interpreter ends with its GIL held, and the next one makes it anew at the same address. */
        released(thread, gil);
    }
    /* Only a hand-off is to be ordered against another thread's record, so only it pays for that. */
    uint64_t now = likely(gil->last_holder == thread) ? clock_ticks() : clock_ticks_in_order();
    if (unlikely(!thread->asked || (thread->request != 0 && !thread->request_written))) {
        write_request(thread, gil);
    }
    if (unlikely(now - thread->request > wait_limit) && thread->request != 0) {
        store_trigger(GT_TRIGGER_WAIT, now - thread->request, now);
    }
    store_emit(thread, now, GT_ACQUIRE, gil->id, current_core(), 0);
    if (unlikely(!thread->named)) {
        store_name(thread);
        thread->state = stacks_state();
    }
    thread->request = 0;
    thread->request_written = thread->asked = false;
    thread->holds = true;
    thread->acquired = now;
    gil->locked = true;
    gil->holder_state = thread->state;
    gil->switch_requested = false;
    if (gil->last_holder != thread) {
        gil->last_holder = thread;
        gil->switches++;
        publish(gil);
    }
}

static int lock_gil(struct thread *thread, pthread_mutex_t *mutex) {
    if (store_stop_wanted()) {
        gil_stop();
    }
    follow_recording(thread);
    thread->request = 0;
    thread->request_written = false;
    thread->asked = true;
    if (unlikely(thread->release != NULL)) {
        if (!called_through_api()) {
            *thread->release |= (uint64_t)GT_FORCED << GT_FLAG_SHIFT;
            /* The eval loop never stopped wanting the GIL: what it lost since then was lost to the switch. */
            thread->request = thread->base + (*thread->release & (((uint64_t)1 << GT_TIME_BITS) - 1));
        }
        thread->release = NULL;
    }
    if (likely(pthread_mutex_trylock(mutex) == 0)) {
        return 0;
    }
    if (thread->request == 0) {
        thread->request = clock_ticks();
    }
    return pthread_mutex_lock(mutex);
}

static int hook_lock(pthread_mutex_t *mutex) {
    struct thread *thread = &self;
    struct gil *gil = thread->gil;
    if (likely(gil != NULL)) {
        if (mutex == gil->mutex) {
            return lock_gil(thread, mutex);
        }
        if (mutex == gil->switch_mutex) {
            return pthread_mutex_lock(mutex);
        }
    }
    gil = find(mutex);
    if (gil != NULL) {
        thread->gil = gil;
        return lock_gil(thread, mutex);
    }
    follow_recording(thread);
    int result = pthread_mutex_lock(mutex);
    if (result == 0 && thread->held_count < HELD_MAX) {
        thread->held[thread->held_count++] = mutex;
    }
    return result;
}

static int hook_unlock(pthread_mutex_t *mutex) {
    struct thread *thread = &self;
    if (unlikely(thread->held_count != 0)) {
        for (int i = thread->held_count - 1; i >= 0; i--) {
            if (thread->held[i] == mutex) {
                thread->held_count = (uint8_t)i;
                thread->request = 0; /* whatever it waited for was no GIL */
                break;
            }
        }
    }
    return pthread_mutex_unlock(mutex);
}

/* The condition is none of the known ones: is it the D of a GIL seen for the first time, or the C of a new one? */
static void signal_unknown(struct thread *thread, pthread_cond_t *cond) {
    struct gil *gil = find_by_cond(cond);
    if (gil != NULL) {
        /* A known one, which the thread locked before the hooks were in place. */
        thread->gil = gil;
        (cond == gil->switch_cond ? acquired : released)(thread, gil);
        return;
    }
    gil = thread->gil;
    if (thread->held_count >= 2) {
        gil = learn(thread->held[thread->held_count - 2], thread->held[thread->held_count - 1], cond);
        if (gil != NULL) {
            thread->gil = gil;
            thread->held_count = 0;
            thread->release = NULL; /* of another GIL, which it left for this one: not forced */
            thread->asked = true;   /* its lock of A was seen, as that of a mutex like others */
            acquired(thread, gil);
        }
    } else if (gil != NULL && gil->mutex != NULL && gil->cond == NULL && thread->holds &&
               distance(cond, gil->mutex) <= GIL_SPAN_MAX) {
        gil->cond = cond;
        released(thread, gil);
    }
}

static int hook_signal(pthread_cond_t *cond) {
    struct thread *thread = &self;
    struct gil *gil = thread->gil;
    follow_recording(thread);
    if (likely(gil != NULL && cond == gil->switch_cond)) {
        acquired(thread, gil);
    } else if (likely(gil != NULL && cond == gil->cond)) {
        released(thread, gil);
    } else {
        signal_unknown(thread, cond);
    }
    return pthread_cond_signal(cond);
}

/* How long a timed wait is to take at most, which is the interpreter's switch interval, as TIMEOUT stores it. The
 * interpreter has just added it to the clock, so little is missing: three digits, rounded up, make up for that. */
static uint32_t interval_until(const struct timespec *until) {
    int64_t ns = (int64_t)until->tv_sec * 1000000000 + until->tv_nsec - (int64_t)clock_ns();
    uint64_t digits = ns > 0 ? ((uint64_t)ns + 999) / 1000 : 0;
    uint32_t power = 0;
    for (; digits > 999; power++) {
        digits = (digits + 9) / 10;
    }
    return power < 1u << GT_POWER_BITS ? (uint32_t)digits << GT_POWER_BITS | power : 0;
}

static int hook_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until) {
    struct thread *thread = &self;
    struct gil *gil = thread->gil;
    if (unlikely(gil == NULL || mutex != gil->mutex)) {
        gil = find(mutex);
        thread->gil = gil != NULL ? gil : thread->gil;
    }
    if (gil == NULL) {
        if (thread->held_count == 1 && thread->held[0] == mutex && thread->request == 0) {
            thread->request = clock_ticks(); /* in case that this proves to be the GIL */
        }
        return pthread_cond_timedwait(cond, mutex, until);
    }
    uint32_t interval = interval_until(until); /* before anything that takes time */
    follow_recording(thread);
    if (unlikely(gil->cond == NULL)) {
        gil->cond = cond;
    }
    if (thread->request == 0) {
        thread->request = clock_ticks();
    }
    if (!thread->request_written) {
        /* Now, so that a thread that never gets the GIL is seen to want it. */
        write_request(thread, gil);
    }
    uint64_t switches = gil->switches;
    uint32_t generation = thread->generation;
    int result = pthread_cond_timedwait(cond, mutex, until);
    if (unlikely(generation != atomic_load_explicit(&store_generation, memory_order_relaxed))) {
        return result; /* the recording ended meanwhile, and what is known of this wait with it */
    }
    if (result == ETIMEDOUT) {
        /* The interpreter's own condition for asking the holder to drop the GIL. */
        bool asks = gil->locked && gil->switches == switches;
        gil->switch_requested |= asks;
        if (asks) {
            uint32_t stack = stacks_of_holder(gil->holder_state);
            if (stack != 0) {
                store_number(thread, GT_HOLDER_STACK, stack);
            }
        }
        store_emit(thread, clock_ticks_in_order(), GT_TIMEOUT, gil->id, interval, asks ? GT_SWITCH_REQUEST : 0);
    }
    return result;
}

/* An interpreter ends and takes its GIL with it: the address may serve another purpose from now on. */
static int hook_destroy(pthread_mutex_t *mutex) {
    struct gil *gil = find(mutex);
    if (gil != NULL) {
        gil->cond = gil->switch_cond = NULL;
        gil->switch_mutex = NULL;
        atomic_store_explicit(&gil->mutex, NULL, memory_order_release);
    }
    return pthread_mutex_destroy(mutex);
}

const struct elf_redirect gil_redirects[HOOK_COUNT] = {
    [HOOK_UNLOCK] = {"pthread_mutex_unlock", hook_unlock},
    [HOOK_DESTROY] = {"pthread_mutex_destroy", hook_destroy},
    [HOOK_SIGNAL] = {"pthread_cond_signal", hook_signal},
    [HOOK_TIMEDWAIT] = {"pthread_cond_timedwait", hook_timedwait},
    [HOOK_CREATE] = {"pthread_create", names_hook_create},
    [HOOK_LOCK] = {"pthread_mutex_lock", hook_lock},
};
const struct elf_redirect gil_originals[HOOK_COUNT] = {
    [HOOK_UNLOCK] = {"pthread_mutex_unlock", pthread_mutex_unlock},
    [HOOK_DESTROY] = {"pthread_mutex_destroy", pthread_mutex_destroy},
    [HOOK_SIGNAL] = {"pthread_cond_signal", pthread_cond_signal},
    [HOOK_TIMEDWAIT] = {"pthread_cond_timedwait", pthread_cond_timedwait},
    [HOOK_CREATE] = {"pthread_create", pthread_create},
    [HOOK_LOCK] = {"pthread_mutex_lock", pthread_mutex_lock},
};
