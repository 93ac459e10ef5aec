/* The numbers of stacks by their hashes: a table in which one look at a cache line finds a stack again, without a lock.
 *
 * It begins small, so that programs with few stacks touch little memory, and grows with their number. The larger table
 * begins empty: what is not found there is asked for once more. */
#include "known.h"

#include "file.h"
#include "intern.h"
#include "system.h"

#include <stddef.h>

enum { FIRST_BITS = 9, STEP_BITS = 2, LAST_BITS = 17 }; /* 32 KiB to 8 MiB, which are there as they are touched */

_Static_assert((int)STACK_BITS < (int)KNOWN_ID_BITS, "the number of a stack fits an entry");

_Atomic uintptr_t known_table;

static unsigned bits_of(uintptr_t table) {
    return (unsigned)(table & KNOWN_SIZE_MASK);
}

static size_t size_of(unsigned bits) {
    return sizeof(struct known_line) << bits;
}

/* Put a table of 2^bits lines in place of `before`, which others may still read and write: only its memory goes. */
static void replace(uintptr_t before, unsigned bits) {
    if (!file_enter()) {
        return;
    }
    uintptr_t table = (uintptr_t)system_memory(size_of(bits)), expected = before;
    if (table != 0 && !atomic_compare_exchange_strong(&known_table, &expected, table | bits)) {
        system_call(SYS_munmap, (long)table, (long)size_of(bits), 0, 0, 0, 0); /* another thread did the same */
    } else if (table != 0 && before != 0 && !file_careful()) {
        system_call(SYS_madvise, (long)known_line(before, 0), (long)size_of(bits_of(before)), MADV_DONTNEED, 0, 0, 0);
    }
    file_leave();
}

/* False if there is no memory. */
bool known_start(void) {
    if (atomic_load(&known_table) == 0) {
        replace(0, FIRST_BITS);
    }
    return atomic_load(&known_table) != 0;
}

/* As large as it gets, before nothing can be had any more. */
void known_reserve(void) {
    uintptr_t table = atomic_load(&known_table);
    if (table != 0 && bits_of(table) < LAST_BITS) {
        replace(table, LAST_BITS);
    }
}

/* Remember the number of a stack. There are about as many as the number says. */
void known_keep(uint64_t hash, uint32_t id) {
    static _Atomic unsigned victim;
    uintptr_t table = atomic_load_explicit(&known_table, memory_order_acquire);
    if (id > ((uint32_t)KNOWN_WAYS << bits_of(table)) / 2 && bits_of(table) < LAST_BITS) {
        replace(table, bits_of(table) + STEP_BITS);
        table = atomic_load_explicit(&known_table, memory_order_acquire);
    }
    struct known_line *line = known_line(table, hash);
    unsigned way = 0;
    while (way < KNOWN_WAYS && atomic_load_explicit(&line->entries[way], memory_order_relaxed) != 0) {
        way++;
    }
    if (way == KNOWN_WAYS) {
        way = atomic_fetch_add_explicit(&victim, 1, memory_order_relaxed) % KNOWN_WAYS;
    }
    atomic_store_explicit(&line->entries[way], (hash & ~KNOWN_ID_MASK) | id, memory_order_relaxed);
}
