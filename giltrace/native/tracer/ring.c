/* The flight recorder: once the file is as large as it may be, the chunk that was left longest ago is used again.
 *
 * All chunks of a ring have one size. Those in use belong to their threads; the others wait here in the order in which
 * they were left, so that what is overwritten is always the oldest, and everything after the time at which the newest
 * of those was left is still there. */
#include "ring.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

struct retired {
    uint64_t offset;
    uint64_t ticks; /* when its thread left it */
};

static struct {
    pthread_mutex_t lock;
    struct retired *queue;
    uint64_t capacity, first, count;
    uint64_t size, used; /* bytes of the file */
} ring = {.lock = PTHREAD_MUTEX_INITIALIZER};

bool ring_is_on(void) {
    return ring.size != 0;
}

/* Begin an empty ring of `size` bytes; 0 turns it off. Nobody uses it yet. */
void ring_start(uint64_t size) {
    if (ring.queue != NULL) {
        munmap(ring.queue, ring.capacity * sizeof *ring.queue);
        ring.queue = NULL;
    }
    ring.size = size;
    ring.capacity = size / RING_CHUNK;
    ring.used = GT_HEADER_SIZE;
    ring.first = ring.count = 0;
    if (ring.capacity != 0) {
        void *memory =
            mmap(NULL, ring.capacity * sizeof *ring.queue, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        ring.queue = memory == MAP_FAILED ? NULL : memory;
    }
}

void ring_after_fork(void) {
    pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    ring.lock = fresh;
}

/* May the file grow by `size`? */
bool ring_extends(uint64_t size) {
    if (ring.size == 0) {
        return true;
    }
    pthread_mutex_lock(&ring.lock);
    bool extends = ring.used + size <= ring.size;
    ring.used += extends ? size : 0;
    pthread_mutex_unlock(&ring.lock);
    return extends;
}

void ring_retire(uint64_t offset, uint64_t now) {
    pthread_mutex_lock(&ring.lock);
    if (ring.queue != NULL && ring.count < ring.capacity) {
        struct retired *last = &ring.queue[(ring.first + ring.count++) % ring.capacity];
        last->offset = offset;
        last->ticks = now;
    }
    pthread_mutex_unlock(&ring.lock);
}

/* Take the chunk that was left longest ago; false if all are in use. */
bool ring_reuse(uint64_t *offset, uint64_t *complete_from) {
    pthread_mutex_lock(&ring.lock);
    bool found = ring.queue != NULL && ring.count != 0;
    if (found) {
        *offset = ring.queue[ring.first].offset;
        *complete_from = ring.queue[ring.first].ticks;
        ring.first = (ring.first + 1) % ring.capacity;
        ring.count--;
    }
    pthread_mutex_unlock(&ring.lock);
    return found;
}

/* Of what happened before, some is missing from now on. */
void ring_forget_before(struct gt_header *head, uint64_t ticks) {
    uint64_t known = __atomic_load_n(&head->complete_from, __ATOMIC_RELAXED);
    while (known < ticks && !__atomic_compare_exchange_n(&head->complete_from, &known, ticks, false, __ATOMIC_RELEASE,
                                                         __ATOMIC_RELAXED)) {
    }
}

/* In this order, so that a reader that finds the head as it was before and after has read the chunk as it was. */
void ring_empty(struct gt_chunk *chunk, struct gt_header *head) {
    const gt_record *record = (const gt_record *)(chunk + 1), *end = (const gt_record *)((char *)chunk + RING_CHUNK);
    uint64_t written = 0;
    while (record + written != end && record[written] != 0) {
        written++;
    }
    if (head != NULL) {
        __atomic_fetch_add(&head->overwritten, written, __ATOMIC_RELAXED);
    }
    __atomic_store_n(&chunk->magic, 0, __ATOMIC_RELEASE);
    atomic_thread_fence(memory_order_release);
    memset((char *)chunk + sizeof chunk->magic, 0, RING_CHUNK - sizeof chunk->magic);
    atomic_thread_fence(memory_order_release);
}
