/* The numbers of stacks by their hashes: what all threads remember together. */
#ifndef GILTRACE_KNOWN_H
#define GILTRACE_KNOWN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { KNOWN_ID_BITS = 20, KNOWN_WAYS = 8, KNOWN_SIZE_MASK = 63 };

#define KNOWN_ID_MASK ((UINT64_C(1) << KNOWN_ID_BITS) - 1)

/* A cache line. An entry is one word, whole or not there: the number of a stack below, and above it that part of its
 * hash; 0 is none. */
struct known_line {
    _Alignas(64) _Atomic uint64_t entries[KNOWN_WAYS];
};

/* Where the lines begin (at a page), and in the lowest bits how many bits of a hash choose one. */
extern _Atomic uintptr_t known_table;

bool known_start(void);
void known_keep(uint64_t hash, uint32_t id);
void known_reserve(void);

/* The line that a hash belongs in. */
static inline struct known_line *known_line(uintptr_t table, uint64_t hash) {
    struct known_line *lines = (struct known_line *)(table & ~(uintptr_t)KNOWN_SIZE_MASK);
    return &lines[hash & ((UINT64_C(1) << (table & KNOWN_SIZE_MASK)) - 1)];
}

/* The number of the stack with this hash; 0 if that is not remembered. */
static inline uint32_t known_recall(uint64_t hash) {
    const struct known_line *line = known_line(atomic_load_explicit(&known_table, memory_order_acquire), hash);
    for (unsigned way = 0; way < KNOWN_WAYS; way++) {
        uint64_t entry = atomic_load_explicit(&line->entries[way], memory_order_relaxed);
        if ((entry ^ hash) >> KNOWN_ID_BITS == 0) {
            return (uint32_t)(entry & KNOWN_ID_MASK);
        }
    }
    return 0;
}

#endif
