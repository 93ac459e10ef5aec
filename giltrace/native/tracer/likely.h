/* Hints to the compiler, for the paths that every use of the GIL takes. */
#ifndef GILTRACE_LIKELY_H
#define GILTRACE_LIKELY_H

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#endif
