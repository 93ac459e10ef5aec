/* Numbers by key: open addressing in memory that is touched only as it fills. */
#ifndef GILTRACE_TABLE_H
#define GILTRACE_TABLE_H

#include <stdbool.h>
#include <stdint.h>

struct slot {
    uint64_t key; /* 0: free */
    uint32_t id;
};

struct table {
    struct slot *slots;
    uint32_t bits, count;
};

bool table_make(struct table *table, uint32_t bits);
void table_remove(struct table *table, struct slot *slot);
void table_empty(struct table *table);

static inline uint32_t table_home(const struct table *table, uint64_t key) {
    return (uint32_t)((key * 0x9E3779B97F4A7C15ull) >> (64 - table->bits));
}

/* The slot of `key`, which is not 0, or the free one where it belongs. */
static inline struct slot *table_find(const struct table *table, uint64_t key) {
    uint32_t at = table_home(table, key), mask = (1u << table->bits) - 1;
    while (table->slots[at].key != 0 && table->slots[at].key != key) {
        at = (at + 1) & mask;
    }
    return &table->slots[at];
}

/* A key more would make it slow to search. */
static inline bool table_full(const struct table *table) {
    return table->count >= (1u << table->bits) / 8 * 7;
}

/* Into the free slot that `table_find` gave, of a table that is not full. */
static inline void table_add(struct table *table, struct slot *slot, uint64_t key, uint32_t id) {
    *slot = (struct slot){key, id};
    table->count++;
}

#endif
