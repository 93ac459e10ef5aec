/* Observing a GIL from another process: what the units of the observer share. None of this runs in a target.
 * observe_threads knows the threads of the target, observe_gil makes events of what was read, observe drives them. */
#ifndef GILTRACE_OBSERVE_H
#define GILTRACE_OBSERVE_H

#include "../tracer/clock.h"
#include "../tracer/layout.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/types.h>

enum {
    OBSERVE_PENDING = 2048,
    OBSERVE_RING = 1 << 16,
    /* Events stay this long within reach: whether a release was forced shows only once its thread is back. */
    OBSERVE_HOLDBACK_NS = 30000000,
};

/* The head of CPython's struct _gil_runtime_state, the same from 3.8 to 3.15. */
struct gil_reading {
    uint64_t interval_us;
    uint64_t holder; /* PyThreadState of the last holder */
    int32_t locked;  /* -1 before the GIL is made */
    int32_t padding;
    uint64_t switches;
    uint64_t waits_begun; /* glibc's pthread_cond_t begins with it; times two */
    uint32_t cond[10];
};

enum { OBSERVE_GIL_SIZE = 208, OBSERVE_COND_AT = 32 };

/* One event, as Python takes it; fields as in a record of the file. */
struct observe_event {
    uint64_t time;
    uint32_t thread;
    uint16_t gil;
    uint8_t kind, flags;
};

/* What Python found out about the target. Offsets are within PyThreadState, and within glibc's struct pthread. */
struct observe_setup {
    uint64_t interval_ns;
    uint32_t pid;
    uint32_t thread_id;
    uint32_t native_id;   /* 0: this Python keeps none */
    uint32_t pthread_tid; /* where struct pthread keeps the thread's id */
};

enum observe_end {
    OBSERVE_RUNNING = 0,
    OBSERVE_STOPPED = 1,
    OBSERVE_GONE = 2,     /* the process has ended */
    OBSERVE_REPLACED = 3, /* its memory is another program's */
    OBSERVE_SENSELESS = 4 /* what is read there is no GIL's state */
};

struct observe_stats {
    uint64_t samples;
    uint64_t sampled_ns;      /* from the first sample to the last */
    uint64_t known_until_ns;  /* all that happened before, as far as seen, is out */
    uint64_t longest_gap_ns;  /* between two samples */
    double squared_gaps;      /* sum of squares of all gaps, ns */
    uint64_t switches;        /* by the GILs' own counters */
    uint64_t switches_missed; /* of these: to whom is not known */
    uint64_t lost;            /* events that Python did not fetch in time */
    uint64_t cpu_ns;          /* of the observing thread */
    uint64_t threads;         /* how many were ever known */
    uint64_t end;             /* enum observe_end */
};

struct observed_thread {
    uint32_t tid, own_tid; /* the kernel's id here, and in the target's own pid namespace */
    int fd;                /* its /proc/.../syscall; -1 once it has ended */
    int32_t waits_for;     /* id of a GIL, -1 for none */
    uint64_t timed_since;  /* when its timed wait began */
    uint64_t last;         /* time of its newest event */
    uint64_t released;     /* when it last gave a GIL up; 0 once that is settled */
    uint16_t released_gil;
    bool may_be_forced; /* that release came an interval or more after the last switch, with somebody waiting */
    int32_t asker;      /* who then had waited longest and is to be told to have asked; -1 if that is told */
    uint64_t asked;
    bool seen;         /* has events */
    uint8_t elsewhere; /* times in a row that it was seen not to wait any more */
};

struct observed_gil {
    uint64_t address;
    bool started, asked; /* asked: a switch request since the last switch is told */
    struct gil_reading last;
    uint64_t time;     /* of that reading */
    uint64_t switched; /* time of the last switch */
    int32_t holder;    /* thread, -1 if unknown */
    int32_t released_by;
    uint32_t waiting; /* threads that wait for it, as far as known */
    uint64_t quick;   /* timed waits of the last two samples that no thread was seen in */
};

struct observer {
    struct observe_setup setup;
    pthread_t thread;
    _Atomic bool stop;

    struct observed_gil gils[GT_MAX_GILS];
    _Atomic uint32_t gil_count;
    int wrefs_at; /* word in gil_reading.cond that counts waiters; -1 until a waiter has told the layout */

    struct observed_thread *threads; /* all that were ever known, by number */
    uint32_t *alive;                 /* numbers of those that have not ended */
    uint32_t thread_count, thread_room, alive_count;
    uint64_t listed; /* when the target's threads were last listed */
    uint32_t next_look;
    uint32_t unknown_holders;

    struct observe_event pending[OBSERVE_PENDING];
    uint32_t pending_count;
    uint64_t flushed; /* all events before are out */

    struct observe_event *ring;
    _Atomic uint64_t ring_head, ring_tail;
    struct observe_stats stats;
    pthread_mutex_t lock; /* guards the table of threads and `shown` against Python's reading */
    struct observe_stats shown;
};

/* --- observe_threads.c --------------------------------------------------------------------------------------- */

enum observe_look { LOOK_RUNS, LOOK_BLOCKED, LOOK_WAITS, LOOK_ENDED };

bool observe_peek(const struct observer *observer, uint64_t address, void *out, size_t size);
void observe_list_threads(struct observer *observer, uint64_t now);
void observe_bury(struct observer *observer, uint32_t thread);
int32_t observe_thread_of(struct observer *observer, uint64_t state, uint64_t now);
enum observe_look observe_look(struct observer *observer, uint32_t thread, int32_t *gil);

/* --- observe_gil.c ------------------------------------------------------------------------------------------- */

void observe_advance(struct observer *observer, struct observed_gil *gil, const struct gil_reading *now, uint64_t time);
void observe_glance(struct observer *observer, uint64_t time);
bool observe_unchanged(const struct observer *observer, const struct observed_gil *gil, const struct gil_reading *now);
void observe_flush(struct observer *observer, uint64_t before);

#endif
