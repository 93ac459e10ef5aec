/* The victim samples the culprit: a thread that waits for a GIL has nothing better to do than to look, now and then,
 * what its holder does. It costs nothing where nobody waits. */
#include "sample.h"

#include "clock.h"
#include "count.h"
#include "guard.h"
#include "stacks.h"

#include <errno.h>

static const uint64_t SAMPLE_NS = 1000000;
static const uint64_t LATEST_NS = 200000;
/* How often waits begin is looked at again after so many of them, or so long. */
enum { WAITS = 64, MOST_SPARING = 6 };
/* Who only counts does it for days: one look in 8 ms, of which each takes the looker 15 us, tells the same lines. */
enum { COUNTING_SPARING = 3 };
static const uint64_t WAITS_NS = 4000000;
/* A deadline further away than that is not by our clock. */
static const int64_t MOST_LEFT_NS = 3600000000000;

/* When the holder is to be looked at next: once in each millisecond, or in each 2^sparing of them, at an instant that
 * depends on nothing that happens in the program. One that did, such as the beginning of a wait, would favour the lines
 * that make it happen. */
static uint64_t next_instant(uint64_t now, uint32_t sparing) {
    uint64_t length = SAMPLE_NS << sparing;
    for (uint64_t slot = now / length;; slot++) {
        uint64_t at = slot * length + (slot * 0x9E3779B97F4A7C15ull >> 32) % length;
        if (at > now) {
            return at;
        }
    }
}

/* A wait that could end before the kernel's next tick makes the kernel set the clock of its core, and set it back when
 * the thread is woken up: on a virtual machine these are two ways to the host, several microseconds, which is as much
 * as a short wait costs. So where many waits begin in a millisecond, one look is due in half as many milliseconds. For
 * which that is depends on waits of the past alone. */
static void count_waits(struct gil *gil, uint64_t now) {
    uint64_t took = now - gil->waits_from_ns;
    if (gil->waits < WAITS && took < WAITS_NS) {
        return;
    }
    uint32_t sparing = count_only() ? COUNTING_SPARING : 0;
    while (sparing < MOST_SPARING && took << sparing < gil->waits * SAMPLE_NS / 2) {
        sparing++;
    }
    gil->sparing = sparing;
    gil->waits = 0;
    gil->waits_from_ns = now;
}

/* For who waits now; the GIL's mutex is held. */
uint64_t sample_next(struct gil *gil, uint64_t now) {
    count_waits(gil, now);
    return next_instant(now, gil->sparing);
}

/* What does the holder do? Nobody is kept from giving the GIL up, or taking it, meanwhile; if another thread had it by
 * the time of the look, the stack is of somebody without the GIL, and is not told of. */
static void look(struct thread *thread, struct gil *gil, pthread_mutex_t *mutex, uint32_t sparing,
                 lock_function *lock) {
    const struct gil_state *state = gil_state(gil);
    uint64_t switches = state->switch_number;
    struct stacks_instant instant = {.counter = &state->switch_number};
    pthread_mutex_unlock(mutex);
    uint32_t stack = stacks_of_holder(gil_holder(gil), &instant);
    lock(mutex);
    if (stack != 0 && instant.count == switches && thread->generation == guard_generation()) {
        store_number(thread, instant.ticks, GT_HOLDER_STACK, stack);
        store_emit(thread, instant.ticks, GT_TIMEOUT, gil->id, instant.collecting ? GT_COLLECTING : 0, GT_SAMPLE);
        count_sample(stack, instant.collecting, sparing);
    }
}

/* An instant that passed while nobody looked, since the thread that did was woken up for nothing: so late it is taken
 * still, or the first moments of each hold would never be seen. */
static bool has_missed(const struct thread *thread, const struct gil *gil, uint64_t now) {
    uint64_t since = now - LATEST_NS;
    since = gil->sampled_until_ns > since ? gil->sampled_until_ns : since;
    since = thread->waits_since_ns > since ? thread->waits_since_ns : since;
    return since < now && next_instant(since, gil->sparing) <= now;
}

static uint64_t first_look(const struct thread *thread, struct gil *gil) {
    uint64_t now = clock_ns();
    gil->waits++;
    uint64_t next = sample_next(gil, now);
    return has_missed(thread, gil, now) ? now : next;
}

/* Is there somebody to be looked at in a wait that may take `left`? */
bool sample_due(struct thread *thread, int64_t left) {
    return left > 0 && left < MOST_LEFT_NS && stacks_of_others(thread);
}

/* Wait, and look at the holder while there is nothing better to do. The program is to notice nothing of that: the
 * thread wakes when it would have, and its time runs out when it would have. Only if the GIL comes free while we look
 * there is nobody whom that could wake; then it is as if the wait had ended without a reason, which interpreters
 * expect.
 *
 * Waiting in pieces puts a thread at the end of the queue with each of them, and the GIL goes to the head. So it is the
 * one that came last who looks: it loses no place. Who looked before it wakes once more, and is then left alone.
 *
 * `asked`: the thread has just asked the holder to give the GIL up. That one is about to, and wants the mutex; how long
 * it has to wait for it decides who gets the GIL next. So nothing is computed before the wait that was not before. */
int sample_and_wait(struct thread *thread, struct gil *gil, pthread_cond_t *cond, pthread_mutex_t *mutex,
                    const struct timespec *until, bool asked, wait_function *wait, lock_function *lock) {
    uint64_t deadline = (uint64_t)until->tv_sec * 1000000000u + (uint64_t)until->tv_nsec;
    uint64_t at = asked ? thread->next_look_ns : first_look(thread, gil);
    uint32_t sparing = gil->sparing;
    int saved_errno = errno;
    int result = ETIMEDOUT;
    gil->sampler = thread;
    for (;;) {
        bool last = at >= deadline || gil->sampler != thread || thread->generation != guard_generation();
        struct timespec wake = {.tv_sec = (time_t)(at / 1000000000), .tv_nsec = (long)(at % 1000000000)};
        result = wait(cond, mutex, last ? until : &wake);
        if (last || result != ETIMEDOUT) {
            break;
        }
        /* Who is not the one any more is back in the queue at once, before the one that is. */
        bool mine = gil->sampler == thread || gil->sampler == NULL;
        bool due = mine && gil->sampled_until_ns < at;
        gil->sampled_until_ns = due ? at : gil->sampled_until_ns;
        if (due && gil_state(gil)->locked && thread->generation == guard_generation()) {
            look(thread, gil, mutex, sparing, lock);
        }
        if (!gil_state(gil)->locked) {
            result = 0;
            break;
        }
        uint64_t now = clock_ns();
        at = sample_next(gil, now > at ? now : at); /* on and on, also where somebody has the clock stand still */
        sparing = gil->sparing;
    }
    if (gil->sampler == thread) {
        gil->sampler = NULL;
        /* An instant that passed while this thread was waking up is not done yet. */
        uint64_t now = clock_ns();
        now = at <= now ? at - 1 : now;
        gil->sampled_until_ns = now > gil->sampled_until_ns ? now : gil->sampled_until_ns;
    }
    errno = saved_errno;
    return result;
}
