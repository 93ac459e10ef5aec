/* stacks-<pid>-<n>.bin: records that are there whole or not at all (FORMAT.md).
 *
 * The file grows by mapped pieces, like the one of events, so that a record costs no system call. One that finds no
 * room costs only itself: a moment without a descriptor or without room on the disk passes. All of this happens under
 * the lock of intern.c. */
#include "stackfile.h"

#include "clock.h"
#include "file.h"
#include "store.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

enum {
    FIRST_PIECE = 1 << 14, /* processes may be many and short */
    LARGEST_PIECE = 1 << 20,
    KIND_BITS = 8,
    LONGEST_PAUSE_MS = 128,
};

struct piece {
    unsigned char *bytes;
    size_t size;
};

static struct {
    char path[PATH_MAX];
    struct piece now, ahead; /* the next one, if it is there already */
    size_t used;             /* bytes of the current piece */
    uint64_t end;            /* where in the file the next piece begins */
    uint64_t paused_until;   /* after a failure: ns */
    uint32_t pause_ms;
} file;

/* A power of two of pages. */
static size_t piece_size(size_t least) {
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    while (size < least) {
        size *= 2;
    }
    return size;
}

static struct piece map(size_t size) {
    struct piece piece = {file_map(file.path, file.end, size, true, NULL), size};
    file.end += piece.bytes != NULL ? size : 0;
    return piece;
}

/* The next piece, with room for `least` bytes: as large as is sensible, else as small as can be. Whoever was refused
 * asks again after a pause, and longer pauses. */
static struct piece next_piece(size_t least) {
    struct piece none = {NULL, 0};
    if (file_confined() || (file.paused_until != 0 && clock_ns() < file.paused_until) ||
        (file.path[0] == 0 && !store_sibling(file.path, sizeof file.path, "stacks"))) {
        return none;
    }
    size_t before = file.ahead.size > file.now.size ? file.ahead.size : file.now.size;
    size_t wanted = before == 0 ? FIRST_PIECE : before < LARGEST_PIECE ? 4 * before : LARGEST_PIECE;
    least = piece_size(least);
    wanted = piece_size(wanted > least ? wanted : least);
    struct piece piece = map(wanted);
    if (piece.bytes == NULL && least < wanted) {
        piece = map(least);
    }
    if (piece.bytes == NULL) {
        file.pause_ms = file.pause_ms == 0                 ? 1
                        : file.pause_ms < LONGEST_PAUSE_MS ? 2 * file.pause_ms
                                                           : LONGEST_PAUSE_MS;
        file.paused_until = clock_ns() + file.pause_ms * 1000000ull;
        return none;
    }
    file.paused_until = file.pause_ms = 0;
    return piece;
}

static void drop(struct piece *piece) {
    if (piece->bytes != NULL) {
        file_unmap(piece->bytes, piece->size);
    }
    *piece = (struct piece){NULL, 0};
}

/* The first word is the record's kind and length, and is written last. */
static void publish(uint32_t kind, size_t size) {
    __atomic_store_n((uint32_t *)(void *)(file.now.bytes + file.used), kind | (uint32_t)(size / 4) << KIND_BITS,
                     __ATOMIC_RELEASE);
    file.used += size;
}

static bool turn_over(size_t size) {
    struct piece next = file.ahead.bytes != NULL ? file.ahead : next_piece(size);
    if (next.bytes == NULL) {
        return false;
    }
    if (file.used < file.now.size) {
        publish(STACKFILE_PADDING, file.now.size - file.used);
    }
    drop(&file.now);
    file.now = next;
    file.ahead = (struct piece){NULL, 0};
    file.used = 0;
    return true;
}

/* Append a record of so many words, of which the first is left to us; false if there is no room for it now. */
bool stackfile_append(enum stackfile_kind kind, uint32_t *record, size_t words) {
    size_t size = 4 * words;
    while (file.now.size - file.used < size) {
        if (!turn_over(size)) {
            return false;
        }
    }
    memcpy(file.now.bytes + file.used + 4, record + 1, size - 4);
    publish(kind, size);
    if (file.ahead.bytes == NULL && file.now.size - file.used < file.now.size / 4) {
        file.ahead = next_piece(FIRST_PIECE); /* while there is still room to wait for better times */
    }
    return true;
}

/* Take room for so many bytes, because there will be none to be had later. */
void stackfile_reserve(size_t size) {
    if (file.now.bytes == NULL) {
        turn_over(FIRST_PIECE);
    }
    if (file.ahead.bytes == NULL && file.now.bytes != NULL) {
        file.ahead = next_piece(size);
    }
}

/* Begin with a new file. */
void stackfile_reset(void) {
    drop(&file.now);
    drop(&file.ahead);
    file.path[0] = 0;
    file.used = 0;
    file.end = file.paused_until = 0;
    file.pause_ms = 0;
}
