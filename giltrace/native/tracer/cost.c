/* What the hooks cost on this machine: the calls of one release and one acquire, hooked against bare. */
#include "clock.h"
#include "gil.h"
#include "store.h"

#include <stdlib.h>

enum { PAIRS = 2000, ROUNDS = 8 };

/* As the interpreter keeps it. */
static struct {
    pthread_cond_t cond;
    pthread_mutex_t mutex;
    pthread_cond_t switch_cond;
    pthread_mutex_t switch_mutex;
} gil = {PTHREAD_COND_INITIALIZER, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_MUTEX_INITIALIZER};

typedef int mutex_call(pthread_mutex_t *);
typedef int cond_call(pthread_cond_t *);

static uint64_t time_pairs(mutex_call *lock, mutex_call *unlock, cond_call *signal) {
    uint64_t start = clock_ns();
    for (int i = 0; i < PAIRS; i++) {
        lock(&gil.mutex);
        lock(&gil.switch_mutex);
        signal(&gil.switch_cond);
        unlock(&gil.switch_mutex);
        unlock(&gil.mutex);
        lock(&gil.mutex);
        signal(&gil.cond);
        unlock(&gil.mutex);
    }
    return clock_ns() - start;
}

/* Picoseconds per pair, the best of some rounds, in a process that is not being traced. The records go to memory that
 * is already mapped, so the cost of mapping more is not in it: a lower bound. */
__attribute__((visibility("default"))) uint64_t giltrace_pair_cost_ps(void) {
    struct thread kept = self;
    gt_record *room = calloc(2 * PAIRS + 1, sizeof *room);
    mutex_call *lock = NULL, *unlock = NULL, *destroy = NULL;
    cond_call *signal = NULL;
    *(void **)&lock = gil_redirects[HOOK_LOCK].target;
    *(void **)&unlock = gil_redirects[HOOK_UNLOCK].target;
    *(void **)&signal = gil_redirects[HOOK_SIGNAL].target;
    *(void **)&destroy = gil_redirects[HOOK_DESTROY].target;
    uint64_t hooked = UINT64_MAX, bare = UINT64_MAX;
    clock_choose();
    for (int round = 0; room != NULL && round < ROUNDS; round++) {
        self = (struct thread){
            .cursor = room,
            .end = room + 2 * PAIRS + 1,
            .base = clock_ticks(),
            .named = true,
            .generation = store_generation,
            .gil = self.gil,
        };
        uint64_t one = time_pairs(lock, unlock, signal);
        uint64_t other = time_pairs(pthread_mutex_lock, pthread_mutex_unlock, pthread_cond_signal);
        hooked = one < hooked ? one : hooked;
        bare = other < bare ? other : bare;
    }
    destroy(&gil.mutex); /* forget this GIL */
    gil.mutex = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    free(room);
    self = kept;
    return hooked > bare ? (hooked - bare) * 1000 / PAIRS : 0;
}
