/* Counting: what the hooks see is added up, per thread, in a page that others may read. */
#ifndef GILTRACE_COUNT_H
#define GILTRACE_COUNT_H

#include "count_layout.h"
#include "likely.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* What is done with what the hooks see: records alone, both, or counts alone. */
enum count_mode { COUNT_NOTHING, COUNT_TOO, COUNT_ONLY };

extern _Atomic uint32_t count_mode;
extern struct gt_count_head *_Atomic count_head;

void count_choose(enum count_mode mode);
void count_reset(void);
void count_begin(const char *path);
void count_reserve(const char *path);
void count_after_fork(void);
struct gt_tally *count_take(const char *path, uint32_t tid, uint16_t gil, bool first);
struct gt_tally *count_turn(const char *path, struct gt_tally *tally, uint16_t gil, bool first, uint64_t now);
void count_leave(const struct gt_tally *tally, uint64_t now);
void count_at(enum gt_table table, struct gt_tally *tally, uint32_t stack, uint64_t ticks);
void count_sample(uint32_t stack, bool collecting, uint32_t sparing);

/* Is nothing else kept? */
static inline bool count_only(void) {
    return unlikely(atomic_load_explicit(&count_mode, memory_order_relaxed) == COUNT_ONLY);
}

/* Odd from here on, and even from there on, whatever it was: a thread on its way out of an earlier file, or a handler
 * that came in between, may have left it the one or the other. */
static inline void count_open(uint32_t *version) {
    __atomic_store_n(version, *version | 1, __ATOMIC_RELAXED);
    atomic_thread_fence(memory_order_release);
}

static inline void count_close(uint32_t *version) {
    __atomic_store_n(version, (*version | 1) + 1, __ATOMIC_RELEASE);
}

static inline uint32_t count_bucket(uint64_t ticks, uint64_t scale) {
    uint64_t units = (uint64_t)((unsigned __int128)ticks * scale >> 32);
    if (units >> GT_SHORTEST == 0) {
        return 0;
    }
    uint32_t bucket = 64u - (uint32_t)__builtin_clzll(units) - GT_SHORTEST;
    return bucket < GT_BUCKETS ? bucket : GT_BUCKETS - 1;
}

static inline void count_one(struct gt_tally *tally, uint64_t *what) {
    count_open(&tally->version);
    ++*what;
    count_close(&tally->version);
}

/* Of this kind one has begun at `since`; 0: none has. */
static inline void count_since(struct gt_tally *tally, enum gt_length kind, uint64_t since) {
    __atomic_store_n(&tally->since[kind], since, __ATOMIC_RELAXED);
}

/* One has ended that took so long. */
static inline void count_length(struct gt_tally *tally, enum gt_length kind, uint64_t ticks) {
    const struct gt_count_head *head = atomic_load_explicit(&count_head, memory_order_relaxed);
    if (unlikely(head == NULL)) {
        return;
    }
    count_open(&tally->version);
    tally->number[kind]++;
    tally->sum[kind] += ticks;
    tally->buckets[kind][count_bucket(ticks, head->scale)]++;
    if (unlikely(ticks > tally->longest[kind] || tally->reading != head->reading)) {
        if (tally->reading != head->reading) {
            tally->reading = head->reading;
            tally->longest[GT_HOLDS] = tally->longest[GT_WAITS] = tally->longest[GT_SLEEPS] = 0;
        }
        tally->longest[kind] = ticks > tally->longest[kind] ? ticks : tally->longest[kind];
    }
    tally->since[kind] = 0;
    count_close(&tally->version);
}

#endif
