#include "table.h"

#include "file.h"
#include "system.h"

#include <string.h>

/* Room for 7/8 of 2^bits keys; false if there is no memory. */
bool table_make(struct table *table, uint32_t bits) {
    if (table->slots == NULL) {
        *table = (struct table){system_memory(sizeof *table->slots << bits), bits, 0};
    }
    return table->slots != NULL;
}

/* Empty a slot, and close the gap that this leaves for a search. */
void table_remove(struct table *table, struct slot *slot) {
    uint32_t gap = (uint32_t)(slot - table->slots), mask = (1u << table->bits) - 1;
    for (uint32_t at = (gap + 1) & mask; table->slots[at].key != 0; at = (at + 1) & mask) {
        uint32_t home = table_home(table, table->slots[at].key);
        if (((at - home) & mask) >= ((at - gap) & mask)) {
            table->slots[gap] = table->slots[at];
            gap = at;
        }
    }
    table->slots[gap].key = 0;
    table->count--;
}

void table_empty(struct table *table) {
    size_t size = sizeof *table->slots << table->bits;
    if (table->count == 0) {
        return;
    }
    if (!file_careful() && file_enter()) {
        system_call(SYS_madvise, (long)table->slots, (long)size, MADV_DONTNEED, 0, 0, 0);
        file_leave();
    } else {
        memset(table->slots, 0, size);
    }
    table->count = 0;
}
