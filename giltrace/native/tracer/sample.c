/* The victim samples the culprit: a thread that waits for a GIL has nothing better to do than to look, now and then,
 * what its holder does. It costs nothing where nobody waits. */
#include "sample.h"

#include "clock.h"
#include "guard.h"
#include "stacks.h"

#include <errno.h>

static const uint64_t SAMPLE_NS = 1000000;
static const uint64_t LATEST_NS = 200000;
/* A deadline further away than that is not by our clock. */
static const int64_t MOST_LEFT_NS = 3600000000000;

/* When the holder is to be looked at next: once in each millisecond, at an instant that depends on nothing that
 * happens in the program. One that did, such as the beginning of a wait, would favour the lines that make it happen. */
static uint64_t next_sample(uint64_t now) {
    for (uint64_t slot = now / SAMPLE_NS;; slot++) {
        uint64_t at = slot * SAMPLE_NS + (slot * 0x9E3779B97F4A7C15ull >> 32) % SAMPLE_NS;
        if (at > now) {
            return at;
        }
    }
}

/* What does the holder do? Nobody is kept from giving the GIL up, or taking it, meanwhile; if another thread had it by
 * the time of the look, the stack is of somebody without the GIL, and is not told of. */
static void look(struct thread *thread, struct gil *gil, pthread_mutex_t *mutex, lock_function *lock) {
    const struct gil_state *state = gil_state(gil);
    uint64_t switches = state->switch_number;
    struct stacks_instant instant = {.counter = &state->switch_number};
    pthread_mutex_unlock(mutex);
    uint32_t stack = stacks_of_holder(gil_holder(gil), &instant);
    lock(mutex);
    if (stack != 0 && instant.count == switches && thread->generation == guard_generation()) {
        store_number(thread, GT_HOLDER_STACK, stack);
        store_emit(thread, instant.ticks, GT_TIMEOUT, gil->id, 0, GT_SAMPLE);
    }
}

/* An instant that passed while nobody looked, since the thread that did was woken up for nothing: so late it is taken
 * still, or the first moments of each hold would never be seen. But not of a holder that was just asked to give the GIL
 * up: it does so now, and needs the mutex for that. */
static bool has_missed(const struct thread *thread, const struct gil *gil, uint64_t now) {
    if (gil->switch_requested) {
        return false;
    }
    uint64_t since = now - LATEST_NS;
    since = gil->sampled_until_ns > since ? gil->sampled_until_ns : since;
    since = thread->waits_since_ns > since ? thread->waits_since_ns : since;
    return since < now && next_sample(since) <= now;
}

/* Is there a holder to look at, and nobody who does? `left` is how long the wait is to take. */
bool sample_due(const struct gil *gil, int64_t left) {
    return left > 0 && left < MOST_LEFT_NS && gil->sampler == NULL && stacks_of_others();
}

/* Wait, and look at the holder while there is nothing better to do. The program notices nothing of that: it wakes when
 * it would have, and its time runs out when it would have. Only if the GIL comes free while we look there is nobody
 * whom that could wake; then it is as if the wait had ended without a reason, which interpreters expect. */
int sample_and_wait(struct thread *thread, struct gil *gil, pthread_cond_t *cond, pthread_mutex_t *mutex,
                    const struct timespec *until, wait_function *wait, lock_function *lock) {
    uint64_t deadline = (uint64_t)until->tv_sec * 1000000000u + (uint64_t)until->tv_nsec;
    int saved_errno = errno;
    int result = ETIMEDOUT;
    uint64_t at = 0;
    gil->sampler = thread;
    for (bool missed = has_missed(thread, gil, clock_ns());; missed = false) {
        uint64_t now = clock_ns();
        at = missed ? now : next_sample(now);
        bool last = at >= deadline || thread->generation != guard_generation();
        struct timespec wake = {.tv_sec = (time_t)(at / 1000000000), .tv_nsec = (long)(at % 1000000000)};
        result = wait(cond, mutex, last ? until : &wake);
        if (last || result != ETIMEDOUT) {
            break;
        }
        if (gil_state(gil)->locked && thread->generation == guard_generation()) {
            look(thread, gil, mutex, lock);
        }
        if (!gil_state(gil)->locked) {
            result = 0;
            at = UINT64_MAX;
            break;
        }
    }
    if (gil->sampler == thread) {
        gil->sampler = NULL;
        /* An instant that passed while this thread was waking up is not done yet. */
        uint64_t now = clock_ns();
        gil->sampled_until_ns = at <= now ? at - 1 : now;
    }
    errno = saved_errno;
    return result;
}
