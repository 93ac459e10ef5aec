/* Every lock of the interpreter that makes a thread sleep does so in a semaphore of libc. There are two kinds:
 *
 *   a lock that is a semaphore (up to 3.12 all of them): its address is the lock's; to take it is a sem_trywait that
 *   succeeds, and each release is a sem_post;
 *   a lock in which threads are parked (PyMutex): only a thread that has to sleep comes by here, with a semaphore on
 *   its own stack. That is part of
 *
 *       struct wait_entry { void *park_arg; uintptr_t addr; _PySemaphore sema; struct llist_node node; ... }
 *
 *   where `addr` is the lock. The raw mutexes that guard the lists of such entries make threads sleep likewise, in
 *
 *       struct raw_mutex_entry { struct raw_mutex_entry *next; _PySemaphore sema; }
 *
 * Only sleeps are recorded, and the posts that may have ended one. A post where nobody sleeps costs two loads. */
#include "locks.h"

#include "clock.h"
#include "cost.h"
#include "frames.h"
#include "gil.h"
#include "gils.h"
#include "intern.h"
#include "likely.h"
#include "peek.h"
#include "stacks.h"
#include "uses.h"

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>

/* glibc's, from 2.30 on; an interpreter that calls it has it. */
extern int sem_clockwait(sem_t *, clockid_t, const struct timespec *) __attribute__((weak));

static struct {
    int (*_Atomic post)(sem_t *);
    int (*_Atomic destroy)(sem_t *);
    int (*_Atomic try)(sem_t *);
    int (*_Atomic clockwait)(sem_t *, clockid_t, const struct timespec *);
    int (*_Atomic timedwait)(sem_t *, const struct timespec *);
    int (*_Atomic wait)(sem_t *);
} next = {sem_post, sem_destroy, sem_trywait, sem_clockwait, sem_timedwait, sem_wait};

#define NEXT(function) atomic_load_explicit(&next.function, memory_order_relaxed)

/* Words of a BLOCK, with what comes before it: STACK, HELD, TYPE, LOCK, SEMAPHORE. */
enum { MOST_WORDS = HELD_MAX + 5 };

/* An object of a free-threaded build has its lock at this place, and lies at a multiple of 16. */
enum { OBJECT_LOCK = 10, OBJECT_ALIGNMENT = 16 };

enum { STATE_SPAN = 1024 /* less than a thread state has; what it parks for itself lies at its begin */ };
enum { PLACE_BITS = 10, NEAR = 4096 /* the entry of a parked thread lies in a frame a few calls up */ };

enum { LOOKS = 4 };

/* How many sleep in semaphores of this place, and above that how many ever began to: a word that changes whenever one
 * does. Semaphores may share a place: then posts are recorded that nobody slept for. */
static _Atomic uint64_t places[1 << PLACE_BITS];
static const uint64_t BEGUN = (uint64_t)1 << 32;

static inline _Atomic uint64_t *place_of(const sem_t *semaphore) {
    return &places[((uintptr_t)semaphore >> 3) * 0x9E3779B97F4A7C15ull >> (64 - PLACE_BITS)];
}

static inline bool somebody_sleeps(uint64_t place) {
    return (uint32_t)place != 0;
}

/* What a post is to be ordered against: a lock's release is not enough on every machine. */
static inline void post_has_happened(void) {
#if defined(__x86_64__)
    atomic_signal_fence(memory_order_seq_cst); /* what sem_post does is a full barrier */
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

static _Atomic uint32_t forks;

/* Nobody else is in the child. */
void locks_after_fork(void) {
    atomic_fetch_add_explicit(&forks, 1, memory_order_relaxed);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        atomic_store_explicit(&places[i], 0, memory_order_relaxed);
    }
}

/* True if the thread had taken it. */
static __attribute__((noinline)) bool give_back_other(struct thread *thread, const sem_t *semaphore) {
    uintptr_t *held = thread->held;
    uint32_t next = thread->held_next, age = 1;
    while (age <= HELD_MAX && held[(next - age) % HELD_MAX] != (uintptr_t)semaphore) {
        age++;
    }
    if (age > HELD_MAX) {
        return false;
    }
    for (; age > 1; age--) {
        held[(next - age) % HELD_MAX] = held[(next - age + 1) % HELD_MAX];
    }
    thread->held_next--;
    held[(next - 1) % HELD_MAX] = 0;
    return true;
}

/* Likewise; nearly always it is the one that the thread took last. */
static inline bool give_back(struct thread *thread, const sem_t *semaphore) {
    uintptr_t *newest = &thread->held[(thread->held_next - 1) % HELD_MAX];
    if (unlikely(*newest != (uintptr_t)semaphore)) {
        return give_back_other(thread, semaphore);
    }
    *newest = 0;
    thread->held_next--;
    return true;
}

/* Which semaphores the thread has taken: if it sleeps for ever, whoever sleeps in these does, too. The oldest is
 * forgotten first. */
static inline void take(struct thread *thread, const sem_t *semaphore) {
    thread->held[thread->held_next++ % HELD_MAX] = (uintptr_t)semaphore;
}

/* Is it part of an entry of the calling thread's own, which lies on its stack? */
static inline bool is_parked(const sem_t *semaphore) {
    return (uintptr_t)semaphore - (uintptr_t)__builtin_frame_address(0) < NEAR;
}

/* Does what follows `node` in a list lead back to it? Where no memory can be looked at, what looks like a node is one.
 */
static bool leads_back(const uintptr_t *node, uintptr_t next, uintptr_t previous) {
    uintptr_t back = 0;
    if (next == 0 || previous == 0 || (next | previous) % sizeof next != 0) {
        return false;
    }
    if (!peek(next + sizeof next, &back, sizeof back)) {
        return !peek((uintptr_t)node, &back, sizeof back);
    }
    return back == (uintptr_t)node || back == previous /* it is about to be taken out */;
}

/* Is it a node of a list: next, previous? One that was taken out, because somebody wakes the thread already, has
 * neither. Others change the list meanwhile, and some of the looks may find it in between. */
static bool is_listed(const uintptr_t *node) {
    for (int looks = 0; looks < LOOKS; looks++) {
        uintptr_t next = __atomic_load_n(&node[0], __ATOMIC_RELAXED);
        uintptr_t previous = __atomic_load_n(&node[1], __ATOMIC_RELAXED);
        if (next == previous || leads_back(node, next, previous)) {
            return true;
        }
    }
    return false;
}

/* A text of printable characters; its length, 0 if it is none, or too long. */
static size_t read_name(uintptr_t from, char *text, size_t size) {
    bool whole = peek(from, text, size);
    for (size_t length = 0; length < size && (whole || peek(from + length, &text[length], 1)); length++) {
        if (text[length] == 0) {
            return length;
        }
        if (text[length] < ' ' || text[length] > '~') {
            return 0;
        }
    }
    return 0;
}

/* The number of the type of the object whose lock this is; 0 if it is none's, or not known. */
static uint32_t type_of(struct thread *thread, uintptr_t lock) {
    uintptr_t object = lock - OBJECT_LOCK, type = 0, name = 0;
    char text[TYPE_NAME_MAX];
    if (!frames_free_threaded() || object % OBJECT_ALIGNMENT != 0 ||
        !peek(object + frames_field(OBJECT_TYPE), &type, sizeof type) || type % sizeof type != 0 ||
        !peek(type + frames_field(TYPE_NAME), &name, sizeof name)) {
        return 0;
    }
    if (thread->type_name != name) {
        thread->type_number = intern_type(thread->generation, text, read_name(name, text, sizeof text));
        thread->type_name = thread->type_number != 0 ? name : 0;
    }
    return thread->type_number;
}

/* How a sleep is begun, and, if it is parked, in which `lock`. */
static unsigned way_of(const sem_t *semaphore, uintptr_t *lock) {
    const uintptr_t *word = (const uintptr_t *)semaphore;
    *lock = 0;
    if (!is_parked(semaphore)) {
        return GT_SEMAPHORE_ITSELF;
    }
    uintptr_t address = word[-1], argument = word[-2];
    if (address == 0 || !is_listed(word + sizeof(sem_t) / sizeof *word)) {
        return GT_RAW;
    }
    *lock = address;
    uintptr_t own = stacks_own_state();
    return GT_PARKED | (argument != 0 ? GT_WITH_ARGUMENT : 0) | (address - own < STATE_SPAN ? GT_OWN_STATE : 0);
}

/* Where the calling thread is. One that has given its GIL up has said so then, unless it goes on without. */
static void tell_stack(struct thread *thread, uint64_t now) {
    const struct gil *gil = thread->gil;
    if (gil != NULL && !thread->holds && !frames_free_threaded() && !count_only()) {
        return;
    }
    uint32_t stack = 0;
    if (gil != NULL && thread->holds) {
        stack = stacks_own(thread, gil_holder(gil));
    } else if (gil == NULL && !frames_free_threaded()) {
        stack = stacks_of_waiter(thread); /* it has not been seen with a GIL, and its interpreter may end any time */
    } else {
        stack = stacks_here(thread);
    }
    if (stack != thread->stack) {
        thread->stack = stack;
        if (!count_only()) {
            store_number(thread, now, GT_STACK, stack);
        }
    }
}

/* A thread that has no name yet is given one where it may never have a GIL. */
static inline void introduce(struct thread *thread) {
    if (unlikely(!thread->named) && frames_free_threaded()) {
        uses_name(thread);
    }
}

static void write_block(struct thread *thread, const sem_t *semaphore, unsigned way, uintptr_t lock, uint64_t now) {
    if (!store_together(thread, now, MOST_WORDS)) {
        return;
    }
    introduce(thread);
    tell_stack(thread, now);
    for (uint32_t i = 0; i < HELD_MAX; i++) {
        uintptr_t held = thread->held[(thread->held_next + i) % HELD_MAX];
        if (held != 0) {
            store_address(thread, now, GT_HELD, held);
        }
    }
    uint32_t type = (way & GT_PARKED) != 0 && (way & GT_WITH_ARGUMENT) != 0 ? type_of(thread, lock) : 0;
    if (type != 0) {
        store_word(thread, now, (uint64_t)GT_HOLDER_STACK << GT_KIND_SHIFT | (uint64_t)GT_TYPE << GT_FLAG_SHIFT | type);
    }
    if (lock != 0) {
        store_address(thread, now, GT_LOCK, lock);
    }
    store_address(thread, now, GT_SEMAPHORE, (uintptr_t)semaphore);
    store_emit(thread, now, GT_THREAD_END, GT_BLOCK, way, 0);
}

static void write_wake(struct thread *thread, const sem_t *semaphore, uint64_t posted, unsigned flags) {
    if (count_only() || !store_together(thread, posted, MOST_WORDS)) {
        return;
    }
    introduce(thread);
    tell_stack(thread, posted);
    store_address(thread, posted, GT_SEMAPHORE, (uintptr_t)semaphore);
    store_emit(thread, posted, GT_THREAD_END, GT_WAKE, 0, flags);
}

/* What is needed of the moment in which a thread fell asleep when it wakes up. */
struct sleep {
    uint32_t generation, forks;
};

/* The thread is about to sleep, as far as it can tell. */
static __attribute__((noinline)) struct sleep fall_asleep(struct thread *thread, const sem_t *semaphore,
                                                          unsigned timed) {
    int saved_errno = errno;
    uint64_t begin = cost_begin(thread);
    struct sleep sleep = {thread->generation, atomic_load_explicit(&forks, memory_order_relaxed)};
    uintptr_t lock;
    unsigned way = way_of(semaphore, &lock);
    atomic_fetch_add(place_of(semaphore), BEGUN + 1);
    uint64_t now = clock_ticks();
    if (!count_only()) {
        write_block(thread, semaphore, way | timed, lock, now);
    } else if (store_counts(thread, now)) {
        introduce(thread);
        tell_stack(thread, now);
    }
    if (thread->tally != NULL) {
        thread->tally->asleep = thread->stack;
        count_since(thread->tally, GT_SLEEPS, now);
    }
    cost_end(thread, begin);
    errno = saved_errno;
    return sleep;
}

static enum gt_outcome outcome_of(int result) {
    if (result == 0) {
        return GT_WOKEN;
    }
    return errno == ETIMEDOUT ? GT_TIMED_OUT : errno == EINTR ? GT_INTERRUPTED : GT_FAILED;
}

/* The thread has slept: how long, and where. */
static void count_wake(struct gt_tally *tally, uint64_t now) {
    if (tally != NULL && tally->since[GT_SLEEPS] != 0) {
        uint64_t slept = now - tally->since[GT_SLEEPS];
        count_length(tally, GT_SLEEPS, slept);
        count_at(GT_SLEEPERS, tally, tally->asleep, slept);
    }
}

/* If the recording ended meanwhile, what is known of the sleep ended with it. A child that was made by a handler of a
 * signal that came meanwhile is another process. */
static __attribute__((noinline)) int wake_up(struct thread *thread, const sem_t *semaphore, struct sleep sleep,
                                             int result) {
    int saved_errno = errno;
    uint64_t begin = cost_begin(thread);
    enum gt_outcome outcome = outcome_of(result);
    if (sleep.forks == atomic_load_explicit(&forks, memory_order_relaxed)) {
        atomic_fetch_sub(place_of(semaphore), 1);
    }
    if (result == 0 && !is_parked(semaphore)) {
        give_back_other(thread, semaphore); /* a condition's waiter takes its own twice, now that it is notified */
        take(thread, semaphore);
    }
    if (sleep.generation == guard_generation()) {
        uint64_t now = clock_ticks_in_order();
        if (!count_only()) {
            store_emit(thread, now, GT_THREAD_END, GT_BLOCK_END, outcome, 0);
        }
        count_wake(thread->tally, now);
    }
    cost_end(thread, begin);
    errno = saved_errno;
    return result;
}

/* Could the semaphore be had at once? What is called to wait is often called where there is no need to. */
static inline bool try_first(struct thread *thread, sem_t *semaphore) {
    int saved_errno = errno;
    if (NEXT(try)(semaphore) != 0) {
        errno = saved_errno;
        return false;
    }
    if (!is_parked(semaphore)) {
        take(thread, semaphore);
    }
    return true;
}

static inline int wait_by(enum locks_hook which, sem_t *semaphore, clockid_t clock, const struct timespec *until) {
    return which == LOCKS_WAIT        ? NEXT(wait)(semaphore)
           : which == LOCKS_TIMEDWAIT ? NEXT(timedwait)(semaphore, until)
                                      : NEXT(clockwait)(semaphore, clock, until);
}

static inline int wait_for(enum locks_hook which, sem_t *semaphore, clockid_t clock, const struct timespec *until) {
    struct thread *thread = &self;
    gil_hear();
    if (unlikely(!gil_recording(thread))) {
        return wait_by(which, semaphore, clock, until);
    }
    if (try_first(thread, semaphore)) {
        return 0;
    }
    struct sleep sleep = fall_asleep(thread, semaphore, which == LOCKS_WAIT ? 0 : GT_TIMED);
    return wake_up(thread, semaphore, sleep, wait_by(which, semaphore, clock, until));
}

static int hook_wait(sem_t *semaphore) {
    return wait_for(LOCKS_WAIT, semaphore, 0, NULL);
}

static int hook_timedwait(sem_t *semaphore, const struct timespec *until) {
    return wait_for(LOCKS_TIMEDWAIT, semaphore, 0, until);
}

static int hook_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *until) {
    return wait_for(LOCKS_CLOCKWAIT, semaphore, clock, until);
}

static int hook_try(sem_t *semaphore) {
    struct thread *thread = &self;
    int result = NEXT(try)(semaphore);
    if (result == 0 && likely(gil_recording(thread))) {
        take(thread, semaphore);
    }
    return result;
}

/* Whoever is woken up is to run at once: what there is to be written is written after that. A thread that fell asleep
 * just before the post may have been seen by nobody then; it was woken up before the time that is told of that. */
static int hook_post(sem_t *semaphore) {
    struct thread *thread = &self;
    unsigned owned = give_back(thread, semaphore) ? GT_OWNED : 0;
    _Atomic uint64_t *place = place_of(semaphore);
    uint64_t before = atomic_load_explicit(place, memory_order_relaxed);
    uint64_t now = unlikely(somebody_sleeps(before)) ? clock_ticks() : 0;
    int result = NEXT(post)(semaphore);
    post_has_happened();
    bool late = now == 0 && atomic_load_explicit(place, memory_order_relaxed) != before;
    if (unlikely(now != 0 || late)) {
        int saved_errno = errno;
        gil_hear();
        if (gil_recording(thread)) {
            uint64_t begin = cost_begin(thread);
            write_wake(thread, semaphore, late ? clock_ticks() : now, owned | (late ? GT_LATE : 0));
            cost_end(thread, begin);
        }
        errno = saved_errno;
    }
    return result;
}

static int hook_destroy(sem_t *semaphore) {
    give_back(&self, semaphore);
    return NEXT(destroy)(semaphore);
}

const struct elf_hook locks_hooks[LOCKS_HOOK_COUNT] = {
    [LOCKS_POST] = {"sem_post", hook_post, sem_post, (void **)&next.post},
    [LOCKS_DESTROY] = {"sem_destroy", hook_destroy, sem_destroy, (void **)&next.destroy},
    [LOCKS_TRY] = {"sem_trywait", hook_try, sem_trywait, (void **)&next.try},
    [LOCKS_TIMEDWAIT] = {"sem_timedwait", hook_timedwait, sem_timedwait, (void **)&next.timedwait},
    [LOCKS_CLOCKWAIT] = {"sem_clockwait", hook_clockwait, sem_clockwait, (void **)&next.clockwait},
    [LOCKS_WAIT] = {"sem_wait", hook_wait, sem_wait, (void **)&next.wait},
};
