/* Where records go: the calling thread, its chunk of the file, and the file. */
#ifndef GILTRACE_STORE_H
#define GILTRACE_STORE_H

#include "clock.h"
#include "layout.h"
#include "likely.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HELD_MAX = 4 };

struct gil;

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
    uint8_t ending; /* rounds of destructors since the thread ended */
    uint8_t held_count;
    uint32_t starved;    /* so many events are lost before it looks for room again; UINT32_MAX: all */
    uint32_t generation; /* of the recording that the rest belongs to */
    uint32_t index, tid, sequence, chunk_size;
    uint32_t stack;    /* the number that the thread's newest STACK gives */
    void *state;       /* its PyThreadState when it last released */
    void *stack_cache; /* of stacks.c */
    struct gt_chunk *chunk;
    uint64_t chunk_offset;           /* where in the file it is */
    uint64_t acquired;               /* ticks of the hold under way */
    pthread_mutex_t *held[HELD_MAX]; /* mutexes of no known GIL, to recognise one by its nesting */
};

extern __thread struct thread self;

extern _Atomic uint32_t store_generation; /* of recordings in this process */

/* What a recording is to be like. */
struct plan {
    uint64_t lease_ns, ring_size;    /* as in the head */
    uint64_t wait_limit, hold_limit; /* ticks that trigger, 0: none */
};

void store_choose(const char *folder, const struct plan *plan);
bool store_open(void);
void store_close(void);
void store_forget(struct thread *thread);
void store_after_fork(bool goes_on);
struct gt_header *store_header(void);
void store_note(const char *text);
bool store_stop_wanted(void);
void store_trigger(enum gt_trigger kind, uint64_t length, uint64_t now);
bool store_sibling(char *out, size_t size, const char *prefix);
void store_name(struct thread *thread);
gt_record *store_more(struct thread *thread, uint64_t time);

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

/* Append a record that holds a number and no time. */
static inline void store_number(struct thread *thread, enum gt_kind kind, uint32_t number) {
    gt_record *record = thread->cursor;
    if (unlikely(record == thread->end)) {
        record = store_more(thread, clock_ticks());
        if (record == NULL) {
            return;
        }
    }
    thread->cursor = record + 1;
    *record = (uint64_t)kind << GT_KIND_SHIFT | number;
}

#endif
