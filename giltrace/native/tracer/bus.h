/* SIGBUS: a piece of a file that has been cut off. */
#ifndef GILTRACE_BUS_H
#define GILTRACE_BUS_H

#include <stdbool.h>

void bus_start(int (*ready)(void), void (*lost)(void));
bool bus_watch(void);
bool bus_watching(void);
void bus_stop(void);
void bus_after_fork(void);

#endif
