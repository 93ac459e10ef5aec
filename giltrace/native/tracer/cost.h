/* What the hooks cost the program that they are in: one use of a GIL in GT_TIMED_EVERY is timed there, and so is as
 * much of what is done at other hooks. A use is an acquire, with its waits, or a release. The clock runs while the
 * hooks work, and stands while the program's own calls do. */
#ifndef GILTRACE_COST_H
#define GILTRACE_COST_H

#include "clock.h"
#include "likely.h"
#include "store.h"

#include <stdint.h>

void cost_calibrate(void);
uint64_t cost_start(struct thread *thread);
uint64_t cost_go_on(struct thread *thread);
void cost_halt(struct thread *thread, uint64_t begin);
void cost_write(struct thread *thread, uint64_t begin);

/* The hook begins to work. What this returns goes to one of the two at the end: 0 where nothing is timed. */
static inline uint64_t cost_begin(struct thread *thread) {
    return likely(--thread->untimed != 0) ? 0 : cost_start(thread);
}

/* Likewise, in a use that has begun before. */
static inline uint64_t cost_resume(struct thread *thread) {
    return likely(!thread->timed) ? 0 : cost_go_on(thread);
}

/* The program's own call comes next. */
static inline void cost_pause(struct thread *thread, uint64_t begin) {
    if (unlikely(begin != 0)) {
        cost_halt(thread, begin);
    }
}

/* The use is done with. */
static inline void cost_end(struct thread *thread, uint64_t begin) {
    if (unlikely(begin != 0)) {
        cost_write(thread, begin);
    }
}

#endif
