/* Ticks for the records: the TSC where the kernel itself trusts it, CLOCK_MONOTONIC elsewhere. */
#include "clock.h"

#include "file.h"

#include <string.h>

_Atomic bool clock_by_tsc;

/* The kernel checks the TSC against other clocks and between cores; its verdict is the file's content. */
void clock_choose(void) {
#if defined(__x86_64__)
    char name[16];
    file_read("/sys/devices/system/clocksource/clocksource0/current_clocksource", name, sizeof name);
    atomic_store_explicit(&clock_by_tsc, strcmp(name, "tsc\n") == 0, memory_order_relaxed);
#endif
}

/* Read both clocks at one instant; the error is half of the time that reading took, best of a few tries. */
void clock_pair(uint64_t *ticks, uint64_t *ns, uint64_t *error_ns) {
    uint64_t best = UINT64_MAX;
    for (int attempt = 0; attempt < 16; attempt++) {
        uint64_t ns_before = clock_ns();
        uint64_t now = clock_ticks();
        uint64_t ns_after = clock_ns();
        if (ns_after - ns_before < best) {
            best = ns_after - ns_before;
            *ticks = now;
            *ns = ns_before + best / 2;
            *error_ns = best / 2;
        }
    }
    if (!clock_is_tsc()) {
        *ns = *ticks;
        *error_ns = 0;
    }
}
