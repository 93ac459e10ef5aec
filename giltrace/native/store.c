/* Where records go: one file per program image and process, mapped piece by piece, in the recording's folder.
 *
 * A file is opened for the moment of mapping a piece only: a descriptor kept open would be closed by programs that
 * close everything they did not open, and its number given to a file of theirs. Space is allocated before it is
 * mapped, so that a full disk shows as a lost event and not as SIGBUS. */
#include "tracer.h"

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
    PATH_TRIES = 1000, /* program images that one process may go through */
};

__thread struct thread self;

_Atomic uint32_t store_generation;

static char path[PATH_MAX], folder[PATH_MAX - 64]; /* room for the name of a file in it */
static struct gt_header *header;
/* What a forked child's head takes over. */
static char parent_python[sizeof header->python];
static uint32_t parent_status;
static _Atomic uint64_t file_size;
static _Atomic uint32_t next_thread;
static pthread_key_t end_key;
static bool end_key_made;
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;

struct gt_header *store_header(void) {
    return header;
}

void store_note(const char *text) {
    if (header != NULL && header->note[0] == 0) {
        snprintf(header->note, sizeof header->note, "%s", text);
    }
}

/* Beyond RLIMIT_FSIZE, growing the file would raise SIGXFSZ, which ends a host that does not ignore it. */
static bool may_grow_to(uint64_t size) {
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || size <= limit.rlim_cur;
}

/* Map `size` bytes of the file, allocated on disk beforehand. */
static void *map_piece(int fd, uint64_t offset, size_t size) {
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
    void *piece = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
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
    if (header == NULL || name == NULL) {
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

static void describe_process(void) {
    uint64_t error;
    header->version = GT_VERSION;
    header->pid = (uint32_t)getpid();
    header->ppid = (uint32_t)getppid();
    header->clock = clock_is_tsc ? GT_CLOCK_TSC : GT_CLOCK_MONOTONIC_NS;
    clock_pair(&header->start_ticks, &header->start_ns, &error);
    ssize_t got = readlink("/proc/self/exe", header->executable, sizeof header->executable - 1);
    header->executable[got > 0 ? got : 0] = 0;
    read_file("/proc/self/cmdline", header->cmdline, sizeof header->cmdline); /* NUL between the words, as there */
    memcpy(header->python, parent_python, sizeof parent_python);
    header->status |= parent_status;
    __atomic_store_n(&header->magic, GT_MAGIC, __ATOMIC_RELEASE);
}

/* Where `store_open` is to create its file; nowhere, if that is empty. */
void store_choose(const char *where) {
    snprintf(folder, sizeof folder, "%s", where);
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
    header = map_piece(fd, 0, GT_HEADER_SIZE);
    close(fd);
    if (header == NULL) {
        unlink(path);
        return false;
    }
    atomic_store_explicit(&file_size, GT_HEADER_SIZE, memory_order_relaxed);
    describe_process();
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
    thread->registered = thread->starved = thread->named = false;
    thread->sequence = thread->stack = 0;
}

/* In the child: the mappings are the parent's file, which only the parent may write. Without a GIL there will be no
 * first use of one, so then the child's file is opened at once. */
void store_after_fork(void) {
    pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    open_lock = fresh;
    if (header != NULL) {
        memcpy(parent_python, header->python, sizeof parent_python);
        parent_status = header->status & (GT_HOOKED | GT_FREE_THREADED);
    }
    store_close();
    store_forget(&self);
    if ((parent_status & GT_FREE_THREADED) != 0) {
        store_open();
    }
}

/* Begin anew with the next `store_open`. Records that are on their way still go to the old file. */
void store_close(void) {
    header = NULL;
    atomic_store_explicit(&next_thread, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&store_generation, 1, memory_order_relaxed);
}

static void thread_ends(void *unused) {
    (void)unused;
    struct thread *thread = &self;
    if (++thread->ending < PTHREAD_DESTRUCTOR_ITERATIONS) {
        pthread_setspecific(end_key, thread); /* other destructors may still use the GIL: come back after them */
        return;
    }
    stacks_end(thread);
    if (thread->chunk != NULL) {
        store_emit(thread, clock_ticks(), GT_THREAD_END, 0, 0, 0);
        munmap(thread->chunk, thread->chunk->size);
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
    if (thread->chunk == NULL || thread->cursor != thread->end) {
        return FIRST_CHUNK;
    }
    return thread->chunk_size < LARGEST_CHUNK ? thread->chunk_size * 4 : LARGEST_CHUNK;
}

/* A forked child opens its file when it first uses a GIL: most children only execute another program. */
static bool ensure_open(void) {
    pthread_mutex_lock(&open_lock);
    bool opened = header != NULL || store_open();
    pthread_mutex_unlock(&open_lock);
    return opened;
}

static struct gt_chunk *begin_chunk(struct thread *thread, uint64_t time) {
    if (!ensure_open()) {
        return NULL;
    }
    uint32_t size = next_size(thread);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return NULL;
    }
    uint64_t offset = atomic_fetch_add_explicit(&file_size, size, memory_order_relaxed);
    struct gt_chunk *chunk = map_piece(fd, offset, size);
    close(fd);
    if (chunk == NULL) {
        return NULL;
    }
    chunk->size = size;
    chunk->thread = thread->index;
    chunk->tid = thread->tid;
    chunk->base = time;
    chunk->sequence = thread->sequence++;
    __atomic_store_n(&chunk->magic, GT_CHUNK_MAGIC, __ATOMIC_RELEASE);
    return chunk;
}

/* Count an event that has no room; the counter lives in the thread's newest chunk, or else in the head. */
static gt_record *lose(struct thread *thread) {
    if (thread->chunk != NULL) {
        thread->chunk->lost++;
    } else if (header != NULL) {
        __atomic_fetch_add(&header->lost, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

/* The current chunk is full, or `time` is too far from its base: give the thread another. NULL, and the event
 * counted, if there is none to be had. */
gt_record *store_more(struct thread *thread, uint64_t time) {
    if (thread->starved) {
        return lose(thread);
    }
    int saved_errno = errno;
    if (!thread->registered) {
        register_thread(thread);
    }
    /* To open a file is a cancellation point, where the host has none: a thread cancelled in it would keep the GIL. */
    int cancel_state;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    struct gt_chunk *chunk = begin_chunk(thread, time);
    pthread_setcancelstate(cancel_state, NULL);
    if (chunk == NULL) {
        thread->starved = true; /* trying again at every event would slow the host down */
        errno = saved_errno;
        return lose(thread);
    }
    if (thread->chunk != NULL) {
        munmap(thread->chunk, thread->chunk->size);
    }
    thread->chunk = chunk;
    thread->chunk_size = chunk->size;
    thread->base = time;
    thread->cursor = (gt_record *)(chunk + 1);
    thread->end = (gt_record *)((char *)chunk + chunk->size);
    errno = saved_errno;
    return thread->cursor;
}
