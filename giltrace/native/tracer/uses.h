/* What happens to a GIL, written down. */
#ifndef GILTRACE_USES_H
#define GILTRACE_USES_H

#include "clock.h"
#include "gils.h"
#include "likely.h"
#include "store.h"

#include <stdbool.h>
#include <stdint.h>

void uses_resolve(void);
void uses_limit(uint64_t wait, uint64_t hold);
void uses_name(struct thread *thread);
void uses_released(struct thread *thread, struct gil *gil, uintptr_t state, uint64_t now);
void uses_request(struct thread *thread, const struct gil *gil, uint32_t interval);
void uses_acquired(struct thread *thread, struct gil *gil);
void uses_came_back(struct thread *thread, const struct gil *gil);
void uses_timed_out(struct thread *thread, struct gil *gil, uint64_t switches, uint32_t interval);

/* After the request that it answers, if there was one. */
static inline uint64_t uses_release_time(const struct gil *gil) {
    return likely(!gil->switch_requested) ? clock_ticks() : clock_ticks_in_order();
}

#endif
