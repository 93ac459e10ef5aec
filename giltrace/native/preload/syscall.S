/* syscall(), with the one question that calls_answer answers. */
#include "calls.h"

#define SYSCALL syscall
#define SYSCALL_NEXT calls_next_syscall
#define SYSCALL_CONFINE calls_confine
#define SYSCALL_ANSWER calls_answer
#include "../tracer/syscall.S"
