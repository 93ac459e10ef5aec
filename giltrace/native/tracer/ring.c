/* The flight recorder: once the file is as large as it may be, the chunk that was left longest ago is used again.
 *
 * All chunks of a ring have one size. Those in use belong to their threads; the others wait here in the order in which
 * they were left, so that what is overwritten is always the oldest, and everything after the time at which the newest
 * of those was left is still there. The store's lock guards all of it. */
#include "ring.h"

#include "system.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

struct retired {
    uint64_t offset;
    uint64_t ticks; /* when its thread left it */
};

static struct {
    struct retired *queue;
    uint64_t capacity, first, count;
    uint64_t size, used; /* bytes of the file */
    uint32_t chunk;
} ring;

bool ring_is_on(void) {
    return ring.size != 0;
}

/* Bytes of a chunk. */
uint32_t ring_chunk(void) {
    return ring.chunk;
}

/* Bytes that the file grows to. */
uint64_t ring_size(void) {
    return GT_HEADER_SIZE + ring.capacity * ring.chunk;
}

/* Begin an empty ring of `size` bytes; 0 turns it off. A small one has small chunks, so that many threads find one. */
void ring_start(uint64_t size) {
    if (ring.queue != NULL) {
        system_call(SYS_munmap, (long)ring.queue, (long)(ring.capacity * sizeof *ring.queue), 0, 0, 0, 0);
        ring.queue = NULL;
    }
    ring.size = size;
    ring.chunk = size < GT_SMALL_RING ? GT_SMALL_RING_CHUNK : GT_RING_CHUNK;
    ring.capacity = size > GT_HEADER_SIZE ? (size - GT_HEADER_SIZE) / ring.chunk : 0;
    ring.used = 0;
    ring.first = ring.count = 0;
    if (ring.capacity != 0) {
        long memory = system_call(SYS_mmap, 0, (long)(ring.capacity * sizeof *ring.queue), PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        ring.queue = system_failed(memory) ? NULL : (void *)memory;
    }
}

/* May the file grow by a chunk? If so, where. */
bool ring_extend(uint64_t *offset) {
    if (ring.used == ring.capacity) {
        return false;
    }
    *offset = GT_HEADER_SIZE + ring.used++ * ring.chunk;
    return true;
}

/* The chunk by which it was to grow could not be had. */
void ring_shrink(void) {
    ring.used--;
}

void ring_retire(uint64_t offset, uint64_t now) {
    if (ring.queue != NULL && ring.count < ring.capacity) {
        struct retired *last = &ring.queue[(ring.first + ring.count++) % ring.capacity];
        last->offset = offset;
        last->ticks = now;
    }
}

/* Take the chunk that was left longest ago; false if all are in use. */
bool ring_reuse(uint64_t *offset, uint64_t *complete_from) {
    if (ring.queue == NULL || ring.count == 0) {
        return false;
    }
    *offset = ring.queue[ring.first].offset;
    *complete_from = ring.queue[ring.first].ticks;
    ring.first = (ring.first + 1) % ring.capacity;
    ring.count--;
    return true;
}

/* Of what happened before, some is missing from now on. */
void ring_forget_before(struct gt_header *head, uint64_t ticks) {
    if (head->complete_from < ticks) {
        __atomic_store_n(&head->complete_from, ticks, __ATOMIC_RELEASE);
    }
}

/* In this order, so that a reader that finds the head as it was before and after has read the chunk as it was. */
void ring_empty(struct gt_chunk *chunk, struct gt_header *head) {
    const gt_record *record = (const gt_record *)(chunk + 1), *end = (const gt_record *)((char *)chunk + ring.chunk);
    uint64_t written = 0;
    while (record + written != end && record[written] != 0) {
        written++;
    }
    head->overwritten += written;
    __atomic_store_n(&chunk->magic, 0, __ATOMIC_RELEASE);
    atomic_thread_fence(memory_order_release);
    memset((char *)chunk + sizeof chunk->magic, 0, ring.chunk - sizeof chunk->magic);
    atomic_thread_fence(memory_order_release);
}
