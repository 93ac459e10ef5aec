/* Ticks for the records: the TSC where the kernel itself trusts it, CLOCK_MONOTONIC elsewhere. */
#include "clock.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

bool clock_is_tsc;

/* The kernel checks the TSC against other clocks and between cores; its verdict is the file's content. */
void clock_choose(void) {
#if defined(__x86_64__)
    char name[16] = {0};
    int fd = open("/sys/devices/system/clocksource/clocksource0/current_clocksource", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t got = read(fd, name, sizeof name - 1);
        close(fd);
        clock_is_tsc = got == 4 && memcmp(name, "tsc\n", 4) == 0;
    }
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
    if (!clock_is_tsc) {
        *ns = *ticks;
        *error_ns = 0;
    }
}
