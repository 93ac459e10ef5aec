/* The functions that are put before libc's, in every program. */
#ifndef GILTRACE_CALLS_H
#define GILTRACE_CALLS_H

/* getrandom()'s flags, which no kernel knows, in a question of our Python code inside the program: see calls_answer.
 * Its lower half is zero, for syscall.S. */
#define CALLS_ASK 0x67690000

#ifndef __ASSEMBLER__
#include <stdint.h>

/* Set by whoever wants to know: that the process is about to confine itself to fewer system calls, in a call that has
 * not been made yet; and that an object may be an interpreter that has just been loaded, with an address in it. */
extern void (*_Atomic calls_confining)(void);
extern void (*_Atomic calls_clock_chosen)(uintptr_t caller);

void calls_resolve(void);

/* For syscall.S: what it hands over to, and what it calls before a filter. */
typedef long system_function(long, long, long, long, long, long, long);
extern system_function *calls_next_syscall;
void calls_confine(void);
long calls_answer(long number, char *answer);

#endif
#endif
