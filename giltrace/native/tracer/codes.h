/* Code objects, each written out once and known by number from then on, until it is freed. */
#ifndef GILTRACE_CODES_H
#define GILTRACE_CODES_H

#include "elf.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Instead of a number: no code object, and no room for what would tell of it. */
#define CODES_NONE 0u
#define CODES_LOST UINT32_MAX

/* So many that a program which makes and frees code all the time leaves nearly all other stacks known. */
enum { CODES_SALTS = 1024 };

extern _Atomic uint64_t codes_salts[CODES_SALTS];
extern pthread_mutex_t codes_lock;

bool codes_start(const struct elf_object *python);
void codes_stop(void);
void codes_reset(uint32_t generation);
uint32_t codes_own(uintptr_t code);
uint32_t codes_seen(uintptr_t code);
bool codes_of_library(uint32_t number);

/* Belongs into whatever is remembered by the code's address: it changes when a known code object there is freed. */
static inline uint64_t codes_salt(uintptr_t code) {
    return atomic_load_explicit(&codes_salts[(code >> 6) % CODES_SALTS], memory_order_relaxed);
}

#endif
