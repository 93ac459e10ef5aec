/* What the hooks cost: in the program, of which one in so many uses is timed; and on this machine, the calls of one
 * release and one acquire, hooked against bare. */
#include "cost.h"

#include "clock.h"
#include "gil.h"
#include "gils.h"
#include "store.h"

#include <stdlib.h>

enum { PAIRS = 2000, ROUNDS = 8, READINGS = 64 };

static uint64_t reading = UINT64_MAX; /* ticks that it takes to read the clock */

/* Before there are hooks. */
void cost_calibrate(void) {
    for (int i = 0; i < READINGS; i++) {
        uint64_t begin = clock_ticks(), took = clock_ticks() - begin;
        reading = took < reading ? took : reading;
    }
}

/* It is this use's turn. */
__attribute__((noinline, cold)) uint64_t cost_start(struct thread *thread) {
    thread->untimed = GT_TIMED_EVERY;
    thread->timed_ticks = 0;
    thread->timed = true;
    return cost_go_on(thread);
}

__attribute__((noinline, cold)) uint64_t cost_go_on(struct thread *thread) {
    thread->slow_before = thread->slow;
    return clock_ticks();
}

/* What the head counts as slow is not counted twice. */
__attribute__((noinline, cold)) void cost_halt(struct thread *thread, uint64_t begin) {
    uint64_t took = clock_ticks() - begin, other = reading + thread->slow - thread->slow_before;
    thread->timed_ticks += took > other ? took - other : 0;
}

/* Whoever was taken off its core meanwhile has not worked for so long: that is told apart. */
__attribute__((noinline, cold)) void cost_write(struct thread *thread, uint64_t begin) {
    cost_halt(thread, begin);
    struct gt_header *head = store_header();
    uint64_t took = thread->timed_ticks;
    thread->timed = false;
    if (head == NULL || thread->generation != guard_generation()) {
        return;
    }
    if (took >= GT_TIMED_MOST) {
        __atomic_fetch_add(&head->timed_interrupted, 1, __ATOMIC_RELAXED);
        return;
    }
    __atomic_fetch_add(&head->timed_ticks, took, __ATOMIC_RELAXED);
    __atomic_fetch_add(&head->timed_squares, took * took, __ATOMIC_RELAXED);
    __atomic_fetch_add(&head->timed, 1, __ATOMIC_RELAXED);
}

static struct gil_state gil = {
    .cond = PTHREAD_COND_INITIALIZER,
    .mutex = PTHREAD_MUTEX_INITIALIZER,
    .switch_cond = PTHREAD_COND_INITIALIZER,
    .switch_mutex = PTHREAD_MUTEX_INITIALIZER,
};

typedef int mutex_call(pthread_mutex_t *);
typedef int cond_call(pthread_cond_t *);

static uint64_t time_pairs(mutex_call *lock, cond_call *signal) {
    uint64_t start = clock_ns();
    for (int i = 0; i < PAIRS; i++) {
        lock(&gil.mutex);
        lock(&gil.switch_mutex);
        signal(&gil.switch_cond);
        pthread_mutex_unlock(&gil.switch_mutex);
        pthread_mutex_unlock(&gil.mutex);
        lock(&gil.mutex);
        signal(&gil.cond);
        pthread_mutex_unlock(&gil.mutex);
    }
    return clock_ns() - start;
}

/* Picoseconds per pair, the best of some rounds, in a process that is not being traced. The records go to memory that
 * is already mapped, so the cost of mapping more is not in it: a lower bound. */
__attribute__((visibility("default"))) uint64_t giltrace_pair_cost_ps(void) {
    struct thread kept = self;
    gt_record *room = calloc(2 * PAIRS + 1, sizeof *room);
    mutex_call *lock = NULL;
    cond_call *signal = NULL;
    *(void **)&lock = gil_hooks[HOOK_LOCK].target;
    *(void **)&signal = gil_hooks[HOOK_SIGNAL].target;
    struct gil *known = gils_learn((uintptr_t)&gil, 0);
    uint64_t hooked = UINT64_MAX, bare = UINT64_MAX;
    clock_choose();
    for (int round = 0; room != NULL && known != NULL && round < ROUNDS; round++) {
        self = (struct thread){
            .cursor = room,
            .end = room + 2 * PAIRS + 1,
            .base = clock_ticks(),
            .named = true,
            .generation = guard_generation(),
            .gil = known,
        };
        uint64_t one = time_pairs(lock, signal);
        uint64_t other = time_pairs(pthread_mutex_lock, pthread_cond_signal);
        hooked = one < hooked ? one : hooked;
        bare = other < bare ? other : bare;
    }
    if (known != NULL) {
        gils_forget(known);
    }
    free(room);
    self = kept;
    return hooked > bare ? (hooked - bare) * 1000 / PAIRS : 0;
}
