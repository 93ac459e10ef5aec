/* The ways by which a process that runs already may come to put a seccomp filter on. */
#ifndef GILTRACE_CONFINE_H
#define GILTRACE_CONFINE_H

#include <stdint.h>

enum confine_function { CONFINE_PRCTL, CONFINE_SYSCALL, CONFINE_FFI, CONFINE_FUNCTIONS = CONFINE_FFI + 4 };

/* A word that leads to one of the functions: its address, less `base`. */
struct confine_word {
    uint64_t place, found, base, function;
};

/* What was found in the process's memory: where the ELF header of the interpreter is, and the functions (0: not there)
 * with the words that lead to them. */
struct confine_found {
    uint64_t interpreter;
    uint64_t functions[CONFINE_FUNCTIONS];
    uint64_t count;
    struct confine_word words[];
};

void confine_start(const struct confine_found *found);
void confine_stop(void);

#endif
