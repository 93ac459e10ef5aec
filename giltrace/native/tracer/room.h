/* Where chunks lie: in the file, and in memory. */
#ifndef GILTRACE_ROOM_H
#define GILTRACE_ROOM_H

#include "layout.h"

#include <stdbool.h>
#include <stdint.h>

struct stretch;

/* A chunk of the file, mapped. */
struct room {
    struct gt_chunk *chunk;
    struct stretch *stretch; /* that it is part of; NULL if it is a piece of its own */
    uint64_t offset;
    uint32_t size;
    bool used_before; /* in the ring */
    bool reserved;    /* part of a larger piece, which stays mapped */
};

void room_start(uint64_t ring);
bool room_take(const char *path, uint32_t size, struct gt_header *head, struct room *room);
bool room_is_lost(const struct room *room);
void room_leave(const struct room *room, uint64_t now);
void room_unmap(const struct room *room);
void room_reserve(const char *path);
void room_end(void);

#endif
