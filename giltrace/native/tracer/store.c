/* Where records go: one file per program image and process, mapped piece by piece, in the recording's folder.
 *
 * A file is opened for the moment of mapping a piece only: a descriptor kept open would be closed by programs that
 * close everything they did not open, and its number given to a file of theirs. Space is allocated before it is
 * mapped, so that a full disk shows as a lost event and not as SIGBUS. */
#include "store.h"

#include "names.h"
#include "ring.h"
#include "stacks.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum {
    FIRST_CHUNK = 4096, /* threads may be many and short */
    LARGEST_CHUNK = 1 << 20,
    FALLOCATE_TRIES = 100,
    RING_RETRY = 1000, /* events that a thread loses before it looks for room again */
    PATH_TRIES = 1000, /* program images that one process may go through */
};

__thread struct thread self;

_Atomic uint32_t store_generation;

static char path[PATH_MAX], folder[PATH_MAX - 64]; /* room for the name of a file in it */
/* A head once mapped stays mapped, and the next recording's takes its place: a thread on its way out of a recording
 * may still write to it. */
static struct gt_header *_Atomic header;
static struct gt_header *head_page;
static struct plan plan;
/* What a forked child's head takes over. */
static char parent_python[sizeof head_page->python];
static uint32_t parent_status;
static _Atomic uint64_t file_size;
static _Atomic uint32_t next_thread;
static pthread_key_t end_key;
static bool end_key_made;
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;

struct gt_header *store_header(void) {
    return atomic_load_explicit(&header, memory_order_relaxed);
}

void store_note(const char *text) {
    struct gt_header *head = store_header();
    if (head != NULL && head->note[0] == 0) {
        snprintf(head->note, sizeof head->note, "%s", text);
    }
}

/* Does the recorder want no more of it? */
bool store_stop_wanted(void) {
    struct gt_header *head = store_header();
    return head != NULL && unlikely((__atomic_load_n(&head->control, __ATOMIC_RELAXED) & GT_CONTROL_STOP) != 0);
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

/* Beyond RLIMIT_FSIZE, growing the file would raise SIGXFSZ, which ends a host that does not ignore it. */
static bool may_grow_to(uint64_t size) {
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || size <= limit.rlim_cur;
}

/* Map `size` bytes of the file, allocated on disk beforehand; in place of what is at `where`, unless NULL. */
static void *map_piece(int fd, uint64_t offset, size_t size, void *where) {
    int error = EFBIG;
    if (may_grow_to(offset + size)) {
        int tries = 0;
        do { /* a host with a busy interval timer interrupts it */
            error = posix_fallocate(fd, (off_t)offset, (off_t)size);
        } while (error == EINTR && ++tries < FALLOCATE_TRIES);
    }
    if (error != 0) {
        errno = error;
        return NULL;
    }
    int flags = MAP_SHARED | (where != NULL ? MAP_FIXED : 0);
    void *piece = mmap(where, size, PROT_READ | PROT_WRITE, flags, fd, (off_t)offset);
    if (piece == MAP_FAILED) {
        return NULL;
    }
    /* One call instead of a page fault for every 256 records; older kernels just fault. */
    madvise(piece, size, MADV_POPULATE_WRITE);
    return piece;
}

/* The path of this image's file whose name begins with `prefix` instead of "gil"; false if there is no image's file. */
bool store_sibling(char *out, size_t size, const char *prefix) {
    const char *name = strrchr(path, '/');
    if (store_header() == NULL || name == NULL) {
        return false;
    }
    int wrote = snprintf(out, size, "%.*s/%s%s", (int)(name - path), path, prefix, name + strlen("/gil"));
    return wrote > 0 && (size_t)wrote < size;
}

static void read_file(const char *name, char *out, size_t size) {
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t got = read(fd, out, size - 1);
        out[got > 0 ? got : 0] = 0;
        close(fd);
    }
}

static void describe_process(struct gt_header *head) {
    uint64_t error;
    head->version = GT_VERSION;
    head->pid = (uint32_t)getpid();
    head->ppid = (uint32_t)getppid();
    head->clock = clock_is_tsc ? GT_CLOCK_TSC : GT_CLOCK_MONOTONIC_NS;
    clock_pair(&head->start_ticks, &head->start_ns, &error);
    ssize_t got = readlink("/proc/self/exe", head->executable, sizeof head->executable - 1);
    head->executable[got > 0 ? got : 0] = 0;
    read_file("/proc/self/cmdline", head->cmdline, sizeof head->cmdline); /* NUL between the words, as there */
    memcpy(head->python, parent_python, sizeof parent_python);
    head->status |= parent_status;
    head->lease_ns = plan.lease_ns;
    head->ring_size = plan.ring_size;
    __atomic_store_n(&head->magic, GT_MAGIC, __ATOMIC_RELEASE);
}

/* Where `store_open` is to create its file; nowhere, if that is empty. */
void store_choose(const char *where, const struct plan *how) {
    pthread_mutex_lock(&open_lock);
    snprintf(folder, sizeof folder, "%s", where);
    plan = *how;
    pthread_mutex_unlock(&open_lock);
}

/* Create this image's file. Its number tells apart the images that one process executes in turn. */
bool store_open(void) {
    if (folder[0] == 0) {
        return false;
    }
    int fd = -1;
    for (int image = 0; fd < 0 && image < PATH_TRIES; image++) {
        snprintf(path, sizeof path, "%s/gil-%d-%d.bin", folder, (int)getpid(), image);
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd < 0 && errno != EEXIST) {
            return false;
        }
    }
    if (fd < 0) {
        return false;
    }
    struct gt_header *head = map_piece(fd, 0, GT_HEADER_SIZE, head_page);
    close(fd);
    if (head == NULL) {
        unlink(path);
        return false;
    }
    head_page = head;
    atomic_store_explicit(&file_size, GT_HEADER_SIZE, memory_order_relaxed);
    ring_start(plan.ring_size);
    describe_process(head);
    atomic_store_explicit(&header, head, memory_order_release);
    return true;
}

/* Name the calling thread in its current chunk; at its first acquire, because its parent stored the name before it
 * gave the GIL up for the first time. */
void store_name(struct thread *thread) {
    thread->named = true;
    if (thread->chunk != NULL) {
        int saved_errno = errno;
        names_take(thread->tid, thread->chunk->name, sizeof thread->chunk->name);
        errno = saved_errno;
    }
}

/* What a thread knows of GILs stays true in a forked child and in a later recording; where its records go does not. */
void store_forget(struct thread *thread) {
    if (thread->chunk != NULL) {
        munmap(thread->chunk, thread->chunk_size);
    }
    thread->generation = atomic_load_explicit(&store_generation, memory_order_relaxed);
    thread->cursor = thread->end = thread->release = NULL;
    thread->chunk = NULL;
    thread->registered = thread->named = false;
    thread->sequence = thread->stack = thread->starved = 0;
    /* Locked before, perhaps given back behind our back. */
    thread->held_count = 0;
    thread->request = 0;
    thread->request_written = thread->asked = thread->holds = false;
}

/* In the child: the mappings are the parent's file, which only the parent may write. Without a GIL there will be no
 * first use of one, so then the child's file is opened at once. */
void store_after_fork(bool goes_on) {
    pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    open_lock = fresh;
    struct gt_header *head = store_header();
    if (head != NULL) {
        memcpy(parent_python, head->python, sizeof parent_python);
        parent_status = (head->status & GT_FREE_THREADED) | GT_HOOKED;
        plan.lease_ns = head->lease_ns;
    }
    ring_after_fork();
    store_close();
    store_forget(&self);
    if (!goes_on) {
        folder[0] = 0;
    } else if ((parent_status & GT_FREE_THREADED) != 0) {
        store_open();
    }
}

/* Begin anew with the next `store_open`. Records that are on their way still go to the old file. */
void store_close(void) {
    atomic_store_explicit(&header, NULL, memory_order_relaxed);
    atomic_store_explicit(&next_thread, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&store_generation, 1, memory_order_relaxed);
}

/* The thread has no more use for its chunk: all of it is in the file. */
static void leave_chunk(struct thread *thread, uint64_t now) {
    munmap(thread->chunk, thread->chunk_size);
    if (ring_is_on() && thread->generation == atomic_load_explicit(&store_generation, memory_order_relaxed)) {
        ring_retire(thread->chunk_offset, now);
    }
}

static void thread_ends(void *unused) {
    (void)unused;
    struct thread *thread = &self;
    if (++thread->ending < PTHREAD_DESTRUCTOR_ITERATIONS) {
        pthread_setspecific(end_key, thread); /* other destructors may still use the GIL: come back after them */
        return;
    }
    stacks_end(thread);
    if (thread->generation != atomic_load_explicit(&store_generation, memory_order_relaxed)) {
        store_forget(thread); /* the recording that it had a number in is over */
    }
    if (thread->chunk != NULL) {
        uint64_t now = clock_ticks();
        store_emit(thread, now, GT_THREAD_END, 0, 0, 0);
        leave_chunk(thread, now);
        /* A destructor of the last round may still come through here: begin a new chunk if so. */
        thread->chunk = NULL;
        thread->cursor = thread->end = thread->release = NULL;
    }
}

static void make_end_key(void) {
    end_key_made = pthread_key_create(&end_key, thread_ends) == 0;
}

static void register_thread(struct thread *thread) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_end_key);
    thread->registered = true;
    thread->tid = (uint32_t)syscall(SYS_gettid);
    thread->index = atomic_fetch_add_explicit(&next_thread, 1, memory_order_relaxed);
    if (end_key_made) {
        pthread_setspecific(end_key, thread);
    }
}

/* Chunks grow as a thread fills them: 4 KiB, 16 KiB, ... 1 MiB. One that was left because its time ran out (a
 * thread that slept for minutes) is followed by a small one. */
static uint32_t next_size(const struct thread *thread) {
    if (ring_is_on()) {
        return RING_CHUNK;
    }
    if (thread->chunk == NULL || thread->cursor != thread->end) {
        return FIRST_CHUNK;
    }
    return thread->chunk_size < LARGEST_CHUNK ? thread->chunk_size * 4 : LARGEST_CHUNK;
}

/* A forked child opens its file when it first uses a GIL: most children only execute another program. */
static bool ensure_open(void) {
    pthread_mutex_lock(&open_lock);
    bool opened = store_header() != NULL || store_open();
    pthread_mutex_unlock(&open_lock);
    return opened;
}

/* Room for a chunk: at the end of the file (true), or in place of the ring's oldest (false; offset 0 if there is none).
 */
static bool find_room(uint32_t size, uint64_t *offset) {
    if (ring_extends(size)) {
        *offset = atomic_fetch_add_explicit(&file_size, size, memory_order_relaxed);
        return true;
    }
    uint64_t complete_from;
    struct gt_header *head = store_header();
    if (!ring_reuse(offset, &complete_from) || head == NULL) {
        *offset = 0;
        return false;
    }
    ring_forget_before(head, complete_from);
    return false;
}

static void describe_chunk(struct gt_chunk *chunk, struct thread *thread, uint32_t size, uint64_t time) {
    chunk->size = size;
    chunk->thread = thread->index;
    chunk->tid = thread->tid;
    chunk->base = time;
    chunk->sequence = thread->sequence++;
    __atomic_store_n(&chunk->magic, GT_CHUNK_MAGIC, __ATOMIC_RELEASE);
}

static struct gt_chunk *begin_chunk(struct thread *thread, uint64_t time, uint64_t *offset) {
    if (!ensure_open()) {
        return NULL;
    }
    uint32_t size = next_size(thread);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return NULL;
    }
    bool reused = !find_room(size, offset);
    struct gt_chunk *chunk = reused && *offset == 0 ? NULL : map_piece(fd, *offset, size, NULL);
    close(fd);
    if (chunk == NULL) {
        return NULL;
    }
    if (reused) {
        ring_empty(chunk, store_header());
    }
    if (thread->chunk != NULL) {
        memcpy(chunk->name, thread->chunk->name, sizeof chunk->name);
    }
    describe_chunk(chunk, thread, size, time);
    return chunk;
}

/* All chunks of the ring are in use by other threads, so this one goes on in its own. */
static struct gt_chunk *begin_own_again(struct thread *thread, uint64_t time) {
    struct gt_chunk *chunk = thread->chunk;
    char name[sizeof chunk->name];
    memcpy(name, chunk->name, sizeof name);
    struct gt_header *head = store_header();
    if (head != NULL) {
        ring_forget_before(head, time);
    }
    ring_empty(chunk, store_header());
    memcpy(chunk->name, name, sizeof name);
    describe_chunk(chunk, thread, RING_CHUNK, time);
    return chunk;
}

/* Count an event that has no room; the counter lives in the thread's newest chunk, or else in the head. */
static gt_record *lose(struct thread *thread) {
    struct gt_header *head = store_header();
    if (thread->chunk != NULL) {
        thread->chunk->lost++;
    } else if (head != NULL) {
        __atomic_fetch_add(&head->lost, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

/* A recorder that was killed renews its lease no more. The hooks look at `control` before they touch a lock. */
static void expire_lease(void) {
    struct gt_header *head = store_header();
    uint64_t lease = head == NULL ? 0 : __atomic_load_n(&head->lease_ns, __ATOMIC_RELAXED);
    if (lease != 0 && clock_ns() > lease) {
        __atomic_fetch_or(&head->control, GT_CONTROL_STOP, __ATOMIC_RELAXED);
    }
}

/* The current chunk is full, or `time` is too far from its base: give the thread another. NULL, and the event
 * counted, if there is none to be had. */
gt_record *store_more(struct thread *thread, uint64_t time) {
    if (thread->starved != 0) {
        thread->starved -= thread->starved != UINT32_MAX;
        return lose(thread);
    }
    int saved_errno = errno;
    if (!thread->registered) {
        register_thread(thread);
    }
    /* To open a file is a cancellation point, where the host has none: a thread cancelled in it would keep the GIL. */
    int cancel_state;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    uint64_t offset;
    struct gt_chunk *chunk = begin_chunk(thread, time, &offset);
    pthread_setcancelstate(cancel_state, NULL);
    if (chunk == NULL && ring_is_on() && thread->chunk != NULL) {
        chunk = begin_own_again(thread, time);
        offset = thread->chunk_offset;
    } else if (chunk == NULL) {
        /* Trying again at every event would slow the host down. In a ring another thread's end makes room. */
        thread->starved = ring_is_on() ? RING_RETRY : UINT32_MAX;
        errno = saved_errno;
        return lose(thread);
    } else if (thread->chunk != NULL) {
        leave_chunk(thread, time);
    }
    thread->chunk = chunk;
    thread->chunk_size = chunk->size;
    thread->chunk_offset = offset;
    thread->base = time;
    thread->cursor = (gt_record *)(chunk + 1);
    thread->end = (gt_record *)((char *)chunk + chunk->size);
    if (ring_is_on() && thread->stack != 0) {
        /* The chunk that says so may be gone by the time that this one is read. */
        *thread->cursor++ = (uint64_t)GT_STACK << GT_KIND_SHIFT | thread->stack;
    }
    expire_lease();
    errno = saved_errno;
    return thread->cursor;
}
