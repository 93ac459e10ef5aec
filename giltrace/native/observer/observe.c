/* Observe the GILs of another process: a thread that reads their state some ten thousand times a second. The process is
 * neither stopped nor changed; it does not even know. Python starts it, fetches its events and ends it. */
#include "observe.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum {
    LIST_NS = 100000000,  /* how often the target's threads are listed */
    IDLE_NS = 20000000,   /* after so long with no GIL held, */
    IDLE_GAP_NS = 100000, /* the pace goes down to this: 10 kHz */
    SHOW_SAMPLES = 64,
    TURN_NS = 100000,  /* the least that it takes */
    UNKNOWN_MAX = 100, /* holders in a row that are no thread of the process */
};

/* Read all GILs at once; false once that is not possible. */
static bool read_gils(struct observer *observer, struct gil_reading *out, uint32_t first, uint32_t count) {
    struct iovec local = {out, count * sizeof *out}, remote[GT_MAX_GILS];
    for (uint32_t i = 0; i < count; i++) {
        remote[i] = (struct iovec){(void *)(uintptr_t)observer->gils[first + i].address, sizeof *out};
    }
    ssize_t got = process_vm_readv((pid_t)observer->setup.pid, &local, 1, remote, count, 0);
    return got == (ssize_t)(count * sizeof *out);
}

static bool sensible(const struct observed_gil *gil, const struct gil_reading *now) {
    return (now->locked == 0 || now->locked == 1) && now->interval_us != 0 &&
           (!gil->started || (now->switches >= gil->last.switches && now->switches - gil->last.switches < 1u << 20));
}

/* The words of a reading are not copied at one instant: take one that a second reading confirms. */
static bool settle(struct observer *observer, uint32_t at, struct gil_reading *reading, uint64_t *time) {
    for (int attempt = 0; attempt < 4; attempt++) {
        struct gil_reading again;
        uint64_t now = clock_ns();
        if (!read_gils(observer, &again, at, 1)) {
            return false;
        }
        bool same =
            again.switches == reading->switches && again.locked == reading->locked && again.holder == reading->holder;
        *reading = again;
        if (same) {
            return true;
        }
        *time = now;
    }
    return true;
}

/* One reading of every GIL; OBSERVE_RUNNING if the observation goes on. */
static enum observe_end sample(struct observer *observer, uint64_t *time, bool *busy) {
    struct gil_reading readings[GT_MAX_GILS];
    uint32_t count = atomic_load_explicit(&observer->gil_count, memory_order_acquire);
    uint64_t begin = clock_ns();
    if (!read_gils(observer, readings, 0, count)) {
        return errno == ESRCH ? OBSERVE_GONE : OBSERVE_REPLACED;
    }
    *time = begin + (clock_ns() - begin) / 2;
    *busy = false;
    for (uint32_t i = 0; i < count; i++) {
        struct observed_gil *gil = &observer->gils[i];
        uint64_t at = *time;
        if (observe_unchanged(observer, gil, &readings[i])) {
            gil->time = at;
        } else {
            if (!settle(observer, i, &readings[i], &at)) {
                return OBSERVE_GONE;
            }
            if (!sensible(gil, &readings[i])) {
                return OBSERVE_SENSELESS;
            }
            observe_advance(observer, gil, &readings[i], at);
        }
        *busy |= readings[i].locked || gil->waiting > 0;
    }
    return observer->unknown_holders > UNKNOWN_MAX ? OBSERVE_SENSELESS : OBSERVE_RUNNING;
}

static void show_stats(struct observer *observer) {
    pthread_mutex_lock(&observer->lock);
    observer->shown = observer->stats;
    pthread_mutex_unlock(&observer->lock);
}

static void count_sample(struct observer *observer, uint64_t gap) {
    struct observe_stats *stats = &observer->stats;
    struct timespec cpu;
    stats->samples++;
    stats->sampled_ns += gap;
    stats->squared_gaps += (double)gap * (double)gap;
    stats->longest_gap_ns = gap > stats->longest_gap_ns ? gap : stats->longest_gap_ns;
    stats->threads = observer->thread_count;
    if (stats->samples % SHOW_SAMPLES == 1) {
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
        stats->cpu_ns = (uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec;
        show_stats(observer);
    }
}

static void sleep_until(uint64_t time) {
    struct timespec until = {(time_t)(time / 1000000000u), (long)(time % 1000000000u)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

/* On a busy machine a sample would otherwise have to wait for a core, as often as not for the very threads that it is
 * to look at. Where that is not allowed (CAP_SYS_NICE or RLIMIT_RTPRIO), ask for short turns at least: kernels
 * from 6.12 on give those sooner. */
static void ask_for_turns(void) {
    struct sched_param first = {.sched_priority = 1};
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } turns = {.size = sizeof turns, .nice = getpriority(PRIO_PROCESS, 0), .runtime = TURN_NS};
    if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &first) != 0) {
        syscall(SYS_sched_setattr, 0, &turns, 0);
    }
}

static void *observe(void *argument) {
    struct observer *observer = argument;
    enum observe_end end = OBSERVE_RUNNING;
    uint64_t time = clock_ns(), last = 0, due = time, busy_at = time;
    prctl(PR_SET_NAME, "giltrace-observe");
    ask_for_turns();
    prctl(PR_SET_TIMERSLACK, 1); /* the default of 50 us is longer than a gap should be */
    observe_list_threads(observer, time);
    while (end == OBSERVE_RUNNING && !atomic_load_explicit(&observer->stop, memory_order_relaxed)) {
        bool busy;
        uint64_t woken = clock_ns();
        end = sample(observer, &time, &busy);
        if (end != OBSERVE_RUNNING) {
            break;
        }
        count_sample(observer, last == 0 ? 0 : time - last);
        last = time;
        observe_glance(observer, time);
        if (time - observer->listed > LIST_NS) {
            observe_list_threads(observer, time);
        }
        if (time > OBSERVE_HOLDBACK_NS) {
            observe_flush(observer, time - OBSERVE_HOLDBACK_NS);
            observer->stats.known_until_ns = time - OBSERVE_HOLDBACK_NS;
        }
        busy_at = busy ? time : busy_at;
        uint64_t pace = observer->setup.interval_ns;
        if (time - busy_at > IDLE_NS && pace < IDLE_GAP_NS) {
            pace = IDLE_GAP_NS;
        }
        due += pace;
        /* Never more than half of a core, however many threads there are to look at; what was missed is not made up
         * for. */
        uint64_t now = clock_ns(), rested = now + (now - woken);
        due = due > rested ? due : rested;
        sleep_until(due);
    }
    observe_flush(observer, UINT64_MAX);
    observer->stats.known_until_ns = last;
    observer->stats.end = end == OBSERVE_RUNNING ? OBSERVE_STOPPED : end;
    show_stats(observer);
    return NULL;
}

/* Another GIL of the same process, to be read from the next sample on; false if there are too many. */
EXPORT bool giltrace_observe_add(struct observer *observer, uint64_t address) {
    uint32_t count = atomic_load_explicit(&observer->gil_count, memory_order_relaxed);
    if (count == GT_MAX_GILS) {
        return false;
    }
    observer->gils[count] = (struct observed_gil){.address = address, .holder = -1, .released_by = -1};
    atomic_store_explicit(&observer->gil_count, count + 1, memory_order_release);
    return true;
}

EXPORT void giltrace_observe_stats(struct observer *observer, struct observe_stats *out) {
    pthread_mutex_lock(&observer->lock);
    *out = observer->shown;
    pthread_mutex_unlock(&observer->lock);
}

/* Observe the GIL at `address`, which was read once when this returns; NULL if there is no memory or no thread. */
EXPORT struct observer *giltrace_observe_start(const struct observe_setup *setup, uint64_t address) {
    struct observer *observer = calloc(1, sizeof *observer);
    struct observe_event *ring = calloc(OBSERVE_RING, sizeof *ring);
    if (observer != NULL && ring != NULL) {
        observer->setup = *setup;
        observer->ring = ring;
        observer->wrefs_at = -1;
        pthread_mutex_init(&observer->lock, NULL);
        giltrace_observe_add(observer, address);
        if (pthread_create(&observer->thread, NULL, observe, observer) == 0) {
            struct observe_stats stats = {0};
            while (stats.samples == 0 && stats.end == OBSERVE_RUNNING) {
                sleep_until(clock_ns() + IDLE_GAP_NS);
                giltrace_observe_stats(observer, &stats);
            }
            return observer;
        }
    }
    free(ring);
    free(observer);
    return NULL;
}

/* Fetch up to `room` events in order of time; returns how many. */
EXPORT size_t giltrace_observe_read(struct observer *observer, struct observe_event *out, size_t room) {
    uint64_t tail = atomic_load_explicit(&observer->ring_tail, memory_order_relaxed);
    uint64_t head = atomic_load_explicit(&observer->ring_head, memory_order_acquire);
    size_t count = 0;
    while (tail < head && count < room) {
        out[count++] = observer->ring[tail++ % OBSERVE_RING];
    }
    atomic_store_explicit(&observer->ring_tail, tail, memory_order_release);
    return count;
}

/* The ids of the threads from number `first` on; returns how many were written. */
EXPORT size_t giltrace_observe_threads(struct observer *observer, uint32_t first, uint32_t *tids, size_t room) {
    size_t count = 0;
    pthread_mutex_lock(&observer->lock);
    for (; first + count < observer->thread_count && count < room; count++) {
        tids[count] = observer->threads[first + count].tid;
    }
    pthread_mutex_unlock(&observer->lock);
    return count;
}

/* End the observation. The last events can still be fetched. */
EXPORT void giltrace_observe_stop(struct observer *observer) {
    atomic_store_explicit(&observer->stop, true, memory_order_relaxed);
    pthread_join(observer->thread, NULL);
}

EXPORT void giltrace_observe_free(struct observer *observer) {
    for (uint32_t i = 0; i < observer->alive_count; i++) {
        close(observer->threads[observer->alive[i]].fd);
    }
    pthread_mutex_destroy(&observer->lock);
    free(observer->threads);
    free(observer->alive);
    free(observer->ring);
    free(observer);
}
