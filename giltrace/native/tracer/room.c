/* Where chunks lie: at the end of the file, in place of a ring's oldest, or, once the process may call the kernel no
 * more, in what was mapped before. Small ones lie in stretches of the file, so that a thread that does little costs no
 * system call. The store's lock guards all of it. */
#include "room.h"

#include "file.h"
#include "ring.h"
#include "stretch.h"
#include "system.h"

#include <stddef.h>
#include <sys/mman.h>

enum {
    RESERVE = 16 << 20, /* bytes for the rest of a confined process's life: some two million records */
    LARGEST_PIECE = 1 << 20,
    FIRST_STRETCH = 4096, /* threads may be few, too */
    LARGEST_STRETCH = 1 << 16,
};

static uint64_t file_size;

/* A stretch of the file, mapped as a whole. In a ring it is all of the ring. */
static struct {
    char *base;
    uint64_t offset, size, used;
} reserve;

/* The stretch that small chunks are taken from. */
static struct {
    struct stretch *stretch; /* NULL: none yet */
    uint64_t offset;
    uint32_t size, used;
} small;

/* Begin a file that has a head and nothing else. */
void room_start(uint64_t ring) {
    file_size = GT_HEADER_SIZE;
    ring_start(ring);
    room_end();
}

static void end_stretch(void) {
    if (small.stretch != NULL) {
        stretch_leave(small.stretch);
        small.stretch = NULL;
    }
}

/* Another file is written to, or nobody's business: what is mapped already is not for new chunks. */
void room_end(void) {
    reserve.base = NULL;
    reserve.size = reserve.used = 0;
    end_stretch();
    small.size = small.used = 0;
}

static bool take_reserved(struct room *room) {
    if (ring_is_on()) {
        if (room->offset - reserve.offset + room->size > reserve.size) {
            return false;
        }
    } else if (reserve.size - reserve.used < room->size) {
        return false;
    } else {
        room->offset = reserve.offset + reserve.used;
        reserve.used += room->size;
    }
    room->chunk = (struct gt_chunk *)(reserve.base + (room->offset - reserve.offset));
    room->reserved = true;
    return true;
}

static bool take_at_end(const char *path, struct room *room) {
    room->offset = file_size;
    room->chunk = file_map(path, room->offset, room->size, false, NULL);
    file_size += room->chunk != NULL ? room->size : 0;
    return room->chunk != NULL;
}

static bool take_in_ring(const char *path, struct gt_header *head, struct room *room) {
    uint64_t complete_from = 0;
    *room = (struct room){.size = ring_chunk()};
    if (!ring_extend(&room->offset)) {
        room->used_before = ring_reuse(&room->offset, &complete_from);
        if (!room->used_before) {
            return false;
        }
    }
    if (!file_confined()) {
        room->chunk = file_map(path, room->offset, room->size, false, NULL);
    }
    if (room->chunk == NULL && !(file_confined() && take_reserved(room))) {
        if (room->used_before) {
            ring_retire(room->offset, complete_from);
        } else {
            ring_shrink();
        }
        return false;
    }
    if (room->used_before) {
        ring_forget_before(head, complete_from);
        ring_empty(room->chunk, head);
    }
    return true;
}

static bool take_piece(const char *path, uint32_t size, struct room *room) {
    *room = (struct room){.size = size};
    if (!file_confined() && take_at_end(path, room)) {
        return true;
    }
    /* Also where the process was about to confine itself when we looked, and has done so since. */
    return file_confined() && take_reserved(room);
}

/* Begin another stretch; false if there is no room for it. */
static bool begin_stretch(const char *path) {
    uint32_t size = small.size == 0 ? FIRST_STRETCH : small.size < LARGEST_STRETCH ? small.size * 4 : LARGEST_STRETCH;
    struct room piece;
    end_stretch();
    small.used = small.size;
    struct stretch *stretch = stretch_free();
    if (stretch == NULL || !take_piece(path, size, &piece)) {
        return false;
    }
    small.stretch = stretch;
    small.offset = piece.offset;
    small.size = size;
    small.used = GT_SMALL_CHUNK;
    stretch_begin(stretch, piece.chunk, size, piece.reserved);
    struct gt_stretch *head = (void *)piece.chunk;
    head->size = size;
    head->chunk = GT_SMALL_CHUNK;
    __atomic_store_n(&head->magic, GT_STRETCH_MAGIC, __ATOMIC_RELEASE);
    return true;
}

static bool take_small(const char *path, struct room *room) {
    if (small.used == small.size && !begin_stretch(path)) {
        return false;
    }
    *room = (struct room){
        .chunk = (void *)((char *)stretch_use(small.stretch) + small.used),
        .stretch = small.stretch,
        .offset = small.offset + small.used,
        .size = GT_SMALL_CHUNK,
    };
    small.used += GT_SMALL_CHUNK;
    return true;
}

/* Find room for a chunk of `size` bytes, or of the ring's size; false if there is none. */
bool room_take(const char *path, uint32_t size, struct gt_header *head, struct room *room) {
    if (ring_is_on()) {
        return take_in_ring(path, head, room);
    }
    if (size == GT_SMALL_CHUNK) {
        return take_small(path, room) || take_piece(path, GT_LEAST_CHUNK, room);
    }
    return take_piece(path, size, room);
}

/* Is it part of a stretch whose mark was cut off, in a file that has grown again since? What it holds nobody finds. */
bool room_is_lost(const struct room *room) {
    return room->stretch != NULL && ((const struct gt_stretch *)stretch_base(room->stretch))->magic != GT_STRETCH_MAGIC;
}

/* A chunk is full, or its thread has ended: all of it is in the file. */
void room_leave(const struct room *room, uint64_t now) {
    room_unmap(room);
    if (ring_is_on()) {
        ring_retire(room->offset, now);
    }
}

void room_unmap(const struct room *room) {
    if (room->stretch != NULL) {
        stretch_leave(room->stretch);
    } else if (!room->reserved) {
        file_unmap(room->chunk, room->size);
    }
}

/* The largest piece, a power of two of bytes, that fits into so many. */
static size_t piece_of(uint64_t left) {
    size_t piece = LARGEST_PIECE;
    while (piece > left) {
        piece /= 2;
    }
    return piece;
}

/* System calls are about to end: map what is left of the ring, or so much that it lasts. */
void room_reserve(const char *path) {
    uint64_t offset = ring_is_on() ? GT_HEADER_SIZE : file_size;
    uint64_t size = ring_is_on() ? ring_size() - GT_HEADER_SIZE : RESERVE;
    if (size == 0 || reserve.base != NULL) {
        return;
    }
    long base = system_call(SYS_mmap, 0, (long)size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (system_failed(base)) {
        return;
    }
    uint64_t done = 0;
    while (done < size) {
        size_t piece = piece_of(size - done);
        if (file_map(path, offset + done, piece, false, (char *)base + done) == NULL) {
            break;
        }
        done += piece;
    }
    if (done < size) {
        system_call(SYS_munmap, base + (long)done, (long)(size - done), 0, 0, 0, 0);
    }
    reserve.base = done == 0 ? NULL : (char *)base;
    reserve.offset = offset;
    reserve.size = done;
    reserve.used = 0;
    file_size += ring_is_on() ? 0 : done;
}
