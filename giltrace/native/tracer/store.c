/* Where records go: each thread has a chunk of the recording's file to itself, and another when that is full. */
#include "store.h"

#include "bus.h"
#include "file.h"
#include "ring.h"
#include "system.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

/* Of the rounds of destructors that a thread ends with, ours is the last, but for ThreadSanitizer's. */
#if defined(__SANITIZE_THREAD__)
#define LAST_ROUND (PTHREAD_DESTRUCTOR_ITERATIONS - 1)
#else
#define LAST_ROUND PTHREAD_DESTRUCTOR_ITERATIONS
#endif

enum {
    LARGEST_CHUNK = 1 << 20,
    /* Looking for room at every event would slow the host down; what is in the way may be gone in a moment, or stay. */
    LEAST_PATIENCE = 64,
    MOST_PATIENCE = 1 << 16,
    SCRATCH = sizeof((struct gt_tally *)0)->scratch / sizeof(gt_record),
};

__thread struct thread self = SELF_BEGINS_AS;

static void (*tell_forked)(void);
static pthread_key_t end_key;
static bool end_key_made;

/* Once, before the first recording. */
void store_call_back(void (*forked)(void)) {
    tell_forked = forked;
}

/* Tell the recorder that a limit was exceeded; the calling thread has the GIL's mutex, so there is one at a time. */
void store_trigger(enum gt_trigger kind, uint64_t length, uint64_t now) {
    struct gt_header *head = store_header();
    if (head != NULL) {
        head->trigger_ticks = now;
        head->trigger_length = length;
        head->trigger_kind = kind;
        head->trigger_tid = self.tid;
        __atomic_fetch_add(&head->trigger_count, 1, __ATOMIC_RELEASE);
    }
}

/* Count what took the calling thread long, which is no part of the hooks' ordinary cost. */
void store_took(uint64_t ticks) {
    struct gt_header *head = store_header();
    self.slow += ticks;
    if (head != NULL) {
        __atomic_fetch_add(&head->slow_ticks, ticks, __ATOMIC_RELAXED);
    }
}

static bool has_chunk(const struct thread *thread) {
    return thread->room.chunk != NULL;
}

static gt_record *chunk_end(const struct thread *thread) {
    return (gt_record *)((char *)thread->room.chunk + thread->room.size);
}

/* What a thread knows of GILs stays true in a forked child and in a later recording; where its records go does not.
 * Also a thread that meets neither comes by here once, at its first hook. */
__attribute__((noinline, cold)) void store_forget(struct thread *thread) {
    if (guard_forked()) {
        tell_forked();
    } else {
        store_restart_if_lost();
    }
    if (has_chunk(thread)) {
        room_unmap(&thread->room);
    }
    thread->generation = guard_generation();
    thread->cursor = thread->end = thread->release = NULL;
    thread->room.chunk = NULL;
    thread->tally = NULL;
    thread->registered = thread->named = thread->crowded = false;
    thread->sequence = thread->stack = thread->starved = thread->patience = thread->held_next = 0;
    memset(thread->held, 0, sizeof thread->held);
    thread->type_name = 0;
    thread->request = 0;
    thread->request_written = thread->asked = thread->holds = thread->timed = false;
    /* Any of its first uses may be the one that is timed: threads may be short. */
    thread->untimed = 1 + (uint32_t)(clock_ticks() * 0x9E3779B97F4A7C15ull >> 32) % GT_TIMED_EVERY;
}

void store_after_fork(bool goes_on) {
    store_file_after_fork(goes_on);
    store_forget(&self);
}

/* The thread has no more use for its chunk. One without its mark was cut off meanwhile, and with it what it held. */
static void leave_chunk(struct thread *thread, struct gt_header *head, uint64_t now) {
    const struct gt_chunk *chunk = thread->room.chunk;
    if (chunk->magic != GT_CHUNK_MAGIC) {
        uint64_t records = (uint64_t)(thread->cursor - (const gt_record *)(chunk + 1));
        __atomic_fetch_add(&head->lost, records, __ATOMIC_RELAXED);
        store_piece_lost();
    }
    room_leave(&thread->room, now);
}

static void thread_ends(void *unused) {
    (void)unused;
    struct thread *thread = &self;
    if (++thread->ending < LAST_ROUND) {
        pthread_setspecific(end_key, thread); /* other destructors may still use the GIL: come back after them */
        return;
    }
    store_check(thread); /* the recording that it had a number in may be over */
    if (has_chunk(thread) || thread->tally != NULL) {
        uint64_t now = clock_ticks();
        store_emit(thread, now, GT_THREAD_END, 0, 0, 0);
        struct gt_header *head = store_locked();
        bool goes_on = head != NULL && thread->generation == guard_generation();
        if (goes_on && thread->tally != NULL) {
            count_leave(thread->tally, now);
        }
        if (goes_on && has_chunk(thread)) {
            leave_chunk(thread, head, now);
        } else if (has_chunk(thread)) {
            room_unmap(&thread->room);
        }
        store_unlock();
        /* A destructor of the last round may still come through here: begin a new chunk if so. */
        thread->room.chunk = NULL;
        thread->tally = NULL;
        thread->cursor = thread->end = thread->release = NULL;
    }
}

static void make_end_key(void) {
    end_key_made = pthread_key_create(&end_key, thread_ends) == 0;
}

/* The kernel's number of the calling thread. Libc writes it into each lock that the thread takes. */
static uint32_t thread_id(void) {
#if defined(__GLIBC__)
    if (file_careful() || file_confined()) {
        pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
        pthread_mutex_lock(&mutex);
        uint32_t id = (uint32_t)mutex.__data.__owner;
        pthread_mutex_unlock(&mutex);
        return id;
    }
#endif
    return (uint32_t)system_call(SYS_gettid, 0, 0, 0, 0, 0, 0);
}

static void register_thread(struct thread *thread) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_end_key);
    thread->registered = true;
    thread->tid = thread_id();
    thread->index = store_next_thread();
    if (end_key_made) {
        pthread_setspecific(end_key, thread);
    }
}

/* Chunks grow as a thread fills them: 512 bytes, as threads may be many and short, 4 KiB, 16 KiB, ... 1 MiB. The first
 * thread of all begins with the second size: it may be the only one. One that was left because its time ran out (a
 * thread that slept for minutes) is followed by a small one, and so is one that was not to be had. */
static uint32_t next_size(const struct thread *thread) {
    if (!has_chunk(thread) || thread->cursor != chunk_end(thread) || thread->patience != 0) {
        return thread->index == 0 && thread->sequence == 0 ? GT_LEAST_CHUNK : GT_SMALL_CHUNK;
    }
    if (thread->room.size < GT_LEAST_CHUNK) {
        return GT_LEAST_CHUNK;
    }
    return thread->room.size < LARGEST_CHUNK ? thread->room.size * 4 : LARGEST_CHUNK;
}

static void describe_chunk(struct thread *thread, const struct room *room, const char *name, uint64_t time) {
    struct gt_chunk *chunk = room->chunk;
    chunk->size = room->size;
    chunk->thread = thread->index;
    chunk->tid = thread->tid;
    chunk->base = time;
    chunk->sequence = thread->sequence++;
    memcpy(chunk->name, name, sizeof chunk->name);
    __atomic_store_n(&chunk->magic, GT_CHUNK_MAGIC, __ATOMIC_RELEASE);
}

/* Give the thread a chunk in place of the one it has; false if there is none to be had. When all chunks of a ring are
 * in use by other threads, it goes on in its own. Either way a release that might turn out to be forced is there no
 * more: something came after it, so it was not. */
static bool renew_chunk(struct thread *thread, struct gt_header *head, uint64_t time) {
    struct room room;
    char name[sizeof((struct gt_chunk *)0)->name] = {0};
    if (has_chunk(thread)) {
        memcpy(name, thread->room.chunk->name, sizeof name);
    }
    if (room_take(store_path(), next_size(thread), head, &room)) {
        if (room_is_lost(&room)) {
            store_piece_lost();
            room_unmap(&room);
            return false;
        }
        if (has_chunk(thread)) {
            leave_chunk(thread, head, time);
        }
    } else if (ring_is_on() && has_chunk(thread)) {
        room = thread->room;
        ring_forget_before(head, time);
        ring_empty(room.chunk, head);
    } else {
        return false;
    }
    describe_chunk(thread, &room, name, time);
    thread->release = NULL;
    thread->room = room;
    thread->base = time;
    thread->cursor = (gt_record *)(room.chunk + 1);
    if (ring_is_on() && thread->stack != 0) {
        /* The chunk that says so may be gone by the time that this one is read. */
        *thread->cursor++ = (uint64_t)GT_STACK << GT_KIND_SHIFT | thread->stack;
    }
    return true;
}

/* Count an event that has no room; the counter lives in the thread's newest chunk, or else in the head. */
static gt_record *lose(struct thread *thread) {
    struct gt_header *head = store_header();
    if (has_chunk(thread)) {
        thread->room.chunk->lost++;
    } else if (head != NULL && thread->generation == guard_generation()) {
        __atomic_fetch_add(&head->lost, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static gt_record *starve(struct thread *thread) {
    uint32_t longer = thread->patience == 0 ? LEAST_PATIENCE : thread->patience * 2;
    thread->patience = thread->starved = longer < MOST_PATIENCE ? longer : MOST_PATIENCE;
    if (file_confined()) {
        store_note("the program confined itself by a seccomp filter: there was no more room for some of its events");
    }
    return lose(thread);
}

/* A recorder that was killed renews its lease no more. The hooks look at `control` before they touch a lock. */
static void expire_lease(struct gt_header *head) {
    uint64_t lease = __atomic_load_n(&head->lease_ns, __ATOMIC_RELAXED);
    if (lease != 0 && clock_ns() > lease) {
        __atomic_fetch_or(&head->control, GT_CONTROL_STOP, __ATOMIC_RELAXED);
    }
}

/* Until the interpreter has looked at the process's signals, so that SIGBUS can be watched, we look at each event. */
static gt_record *open_window(struct thread *thread) {
    bool watched = true;
    /* A stretch, or a tally, was looked after when it was mapped. */
    if (!((thread->room.stretch != NULL || !has_chunk(thread)) && bus_watching()) && file_enter()) {
        watched = bus_watch();
        file_leave();
    }
    gt_record *end = has_chunk(thread) ? chunk_end(thread) : thread->tally->scratch + SCRATCH;
    thread->end = watched ? end : thread->cursor + 1;
    return thread->cursor;
}

/* Nobody keeps the records: they go to the same few words again and again. */
static gt_record *begin_again(struct thread *thread, struct gt_header *head, uint64_t time) {
    thread->base = time;
    thread->cursor = thread->tally->scratch;
    expire_lease(head);
    return open_window(thread);
}

static gt_record *more_locked(struct thread *thread, struct gt_header *head, uint64_t time) {
    if (thread->generation != guard_generation()) {
        return NULL; /* it began in another recording, and is in none */
    }
    if (head == NULL) {
        return starve(thread);
    }
    if (head->magic != GT_MAGIC) {
        store_piece_lost(); /* cut off, and grown again */
        return NULL;
    }
    if (!thread->registered) {
        register_thread(thread);
    }
    bool counts = atomic_load_explicit(&count_mode, memory_order_relaxed) != COUNT_NOTHING;
    /* Nobody would take leave of a tally that a thread takes after it has ended. */
    if (thread->tally == NULL && counts && thread->ending < LAST_ROUND) {
        thread->tally = count_take(store_path(), thread->tid, thread->gil_number, !thread->crowded);
        thread->crowded |= thread->tally == NULL;
    }
    if (count_only()) {
        return thread->tally == NULL ? starve(thread) : begin_again(thread, head, time);
    }
    if (!renew_chunk(thread, head, time)) {
        return starve(thread);
    }
    thread->patience = 0;
    expire_lease(head);
    return open_window(thread);
}

/* The current chunk is full, or `time` is too far from its base: give the thread another. NULL, and the event
 * counted, if there is none to be had. */
__attribute__((noinline, cold)) gt_record *store_more(struct thread *thread, uint64_t time) {
    if (thread->starved != 0) {
        thread->starved--;
        return lose(thread);
    }
    if (has_chunk(thread) && thread->cursor != chunk_end(thread) && (time - thread->base) >> GT_TIME_BITS == 0) {
        return open_window(thread);
    }
    struct gt_header *head = store_header();
    if (thread->tally != NULL && count_only() && head != NULL && thread->generation == guard_generation()) {
        return begin_again(thread, head, time);
    }
    int saved_errno = errno;
    uint64_t begin = clock_ticks();
    gt_record *record = more_locked(thread, store_locked(), time);
    store_unlock();
    store_took(clock_ticks() - begin);
    errno = saved_errno;
    return record;
}

/* The thread goes on with another GIL, and what it counts from now on is of that. */
__attribute__((noinline, cold)) void store_turn(struct thread *thread, uint16_t gil) {
    thread->gil_number = gil;
    if (thread->tally == NULL || thread->generation != guard_generation()) {
        return;
    }
    int saved_errno = errno;
    uint64_t begin = clock_ticks();
    /* Since when it wants that, at the latest. */
    uint64_t now = thread->request != 0 ? thread->request : begin;
    if (store_locked() != NULL && thread->generation == guard_generation()) {
        thread->tally = count_turn(store_path(), thread->tally, gil, !thread->crowded, now);
        thread->crowded |= thread->tally->gil != gil;
    }
    store_unlock();
    store_took(clock_ticks() - begin);
    errno = saved_errno;
}

/* Has the thread, which only counts, somewhere to? One that never has a GIL comes by here first. */
bool store_counts(struct thread *thread, uint64_t time) {
    if (thread->tally == NULL) {
        store_more(thread, time);
    }
    return thread->tally != NULL;
}

/* What belongs together is to stand in one chunk: see that there is room for so many words, the last of them with this
 * time. A chunk that ends before is filled up with what is known already. False, and the event counted, if there is no
 * room to be had. */
bool store_together(struct thread *thread, uint64_t time, uint32_t words) {
    bool fresh = !has_chunk(thread) || (time - thread->base) >> GT_TIME_BITS != 0;
    ptrdiff_t left = fresh ? 0 : chunk_end(thread) - thread->cursor;
    for (; left < (ptrdiff_t)words && left > 0; left--) {
        store_number(thread, time, GT_STACK, thread->stack);
    }
    return !(fresh || thread->cursor == thread->end) || store_more(thread, time) != NULL;
}
