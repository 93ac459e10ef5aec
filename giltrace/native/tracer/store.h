/* Where records go: the calling thread and its chunk of the recording's file. */
#ifndef GILTRACE_STORE_H
#define GILTRACE_STORE_H

#include "clock.h"
#include "count.h"
#include "guard.h"
#include "layout.h"
#include "likely.h"
#include "room.h"
#include "store_file.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gil;

enum { HELD_MAX = 8 };

/* Everything the hooks know of the calling thread. */
struct thread {
    struct gil *gil; /* the one it used last */
    gt_record *cursor, *end;
    uint64_t base;      /* of the current chunk */
    gt_record *release; /* its newest RELEASE, if that may yet prove to have been forced */
    uint64_t request;   /* ticks; 0 when the acquire under way did not have to wait */
    bool request_written;
    bool asked; /* its way into the acquire under way was seen */
    bool holds;
    bool registered;
    bool named;
    uint8_t ending;      /* rounds of destructors since the thread ended */
    uint32_t generation; /* of the recording that the rest belongs to */
    uint32_t starved;    /* so many events are lost before it looks for room again */
    uint32_t patience;   /* as many as the last time */
    uint32_t untimed;    /* of cost.c: uses until one is timed, that one included */
    bool timed;          /* likewise: the use under way is */
    uint32_t index, tid, sequence;
    uint32_t stack;                   /* the number that the thread's newest STACK gives */
    struct gt_tally *tally;           /* where it counts; NULL if it does not */
    bool crowded;                     /* it has found no room for one before */
    uint16_t gil_number;              /* of `gil` */
    uint64_t stack_hash;              /* of stacks.c: of the stack that it asked for last, */
    uint32_t stack_number;            /* which has this number */
    uintptr_t own_state;              /* likewise: the thread state that was the thread's own at that time */
    struct room room;                 /* the current chunk, if there is one */
    uint64_t acquired;                /* ticks of the hold under way */
    uint64_t waits_since_ns;          /* of the wait under way, from where it had to sleep */
    bool just_asked;                  /* it timed out, and asked the holder to give the GIL up */
    int64_t left_ns;                  /* that the last timed wait was to take at most */
    uint64_t timed_out_ns;            /* when that ended */
    uint64_t next_look_ns;            /* after that */
    const pthread_mutex_t *locked[2]; /* the last ones that were of no known GIL: one may prove to be */
    uintptr_t held[HELD_MAX];         /* of locks.c: semaphores that it took and has not given back; 0 for none */
    uint32_t held_next;               /* where the next one goes, modulo HELD_MAX, in the place of the oldest */
    uintptr_t type_name;  /* likewise: where the name is of the type that an object had whose lock it slept in last, */
    uint32_t type_number; /* which has this number */
    uint64_t timed_ticks; /* of cost.c: of the use that is timed */
    uint64_t slow;        /* ticks of this thread that the head counts as slow; */
    uint64_t slow_before; /* as the clock began to run */
};

/* Seen from outside, so that what LD_PRELOAD names can define it first (the same): in the block that every thread has
 * from its start. Under a name of this build's alone, since a process may load another's tracer too. */
#ifndef GILTRACE_SELF
#define GILTRACE_SELF giltrace_self
#endif
#define self GILTRACE_SELF
/* It has not come by yet, whatever the guard says. */
#define SELF_BEGINS_AS                                                                                                 \
    { .generation = UINT32_MAX }

extern __thread __attribute__((visibility("default"))) struct thread self;

/* `forked`: what the units above do when this proves to be a forked child. */
void store_call_back(void (*forked)(void));
void store_took(uint64_t ticks);
void store_forget(struct thread *thread);
void store_after_fork(bool goes_on);
void store_trigger(enum gt_trigger kind, uint64_t length, uint64_t now);
gt_record *store_more(struct thread *thread, uint64_t time);
void store_turn(struct thread *thread, uint16_t gil);
bool store_counts(struct thread *thread, uint64_t time);
bool store_together(struct thread *thread, uint64_t time, uint32_t words);

/* First of all, in each hook: what the thread knows may be of a recording that has ended, or of another process. */
static inline void store_check(struct thread *thread) {
    if (unlikely(thread->generation != guard_generation())) {
        store_forget(thread);
    }
}

/* Append a record of the calling thread; NULL if there was no room. */
static inline gt_record *store_emit(struct thread *thread, uint64_t time, enum gt_kind kind, uint16_t gil,
                                    uint32_t core, unsigned flags) {
    gt_record *record = thread->cursor;
    uint64_t offset = time - thread->base;
    if (unlikely(record == thread->end || offset >> GT_TIME_BITS != 0)) {
        record = store_more(thread, time);
        if (record == NULL) {
            return NULL;
        }
        offset = time - thread->base;
    }
    thread->cursor = record + 1;
    *record = offset | (uint64_t)kind << GT_KIND_SHIFT | (uint64_t)flags << GT_FLAG_SHIFT |
              (uint64_t)gil << GT_GIL_SHIFT | (uint64_t)core << GT_CORE_SHIFT;
    return record;
}

/* Append a record that has no time; `time` is that of the record which it belongs to. */
static inline void store_word(struct thread *thread, uint64_t time, gt_record word) {
    gt_record *record = thread->cursor;
    if (unlikely(record == thread->end)) {
        record = store_more(thread, time);
        if (record == NULL) {
            return;
        }
    }
    thread->cursor = record + 1;
    *record = word;
}

/* One that holds a number. */
static inline void store_number(struct thread *thread, uint64_t time, enum gt_kind kind, uint32_t number) {
    store_word(thread, time, (uint64_t)kind << GT_KIND_SHIFT | number);
}

/* One that holds an address; the flag says of what. */
static inline void store_address(struct thread *thread, uint64_t time, enum gt_flag flag, uintptr_t address) {
    uint64_t low = address & (((uint64_t)1 << GT_TIME_BITS) - 1), high = (uint64_t)address >> GT_TIME_BITS;
    store_word(thread, time,
               low | (uint64_t)GT_STACK << GT_KIND_SHIFT | (uint64_t)flag << GT_FLAG_SHIFT | high << GT_GIL_SHIFT);
}

#endif
