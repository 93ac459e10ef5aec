/* Files as a tracer may use them inside somebody else's process.
 *
 * A file is opened for the moment of mapping a piece only: a descriptor kept open would be closed by programs that
 * close everything they did not open, and its number given to a file of theirs. Space is allocated before it is
 * mapped, so that a full disk shows as a lost event and not as SIGBUS.
 *
 * A process under a seccomp filter may be killed for a system call that it does not know of. One that has its filter
 * from whoever started it gets the calls alone that its loader has just made. One that puts a filter on gets none from
 * then on: what it will need is taken before (`file_reserve`). */
#include "file.h"

#include "bus.h"
#include "pieces.h"
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum {
    PAGE = 4096,
    INTERRUPTIONS = 100, /* a host with a busy interval timer */
    RESERVES = 4,
    KERNEL_SIGSET = 8,
};

static _Atomic bool careful; /* begun anew beside threads that go on */
static _Atomic bool confined;
static _Atomic int inside; /* threads that may be in a system call of ours */
static void (*reserves[RESERVES])(void);
static unsigned reserve_count;

bool file_careful(void) {
    return atomic_load_explicit(&careful, memory_order_relaxed);
}

bool file_confined(void) {
    return atomic_load_explicit(&confined, memory_order_relaxed);
}

/* May this thread call the kernel? If so it says by `file_leave` when it is done. */
bool file_enter(void) {
    atomic_fetch_add(&inside, 1);
    if (atomic_load(&confined)) {
        atomic_fetch_sub(&inside, 1);
        return false;
    }
    return true;
}

void file_leave(void) {
    atomic_fetch_sub(&inside, 1);
}

/* `take` is called, once, when system calls are about to end. */
void file_on_reserve(void (*take)(void)) {
    for (unsigned i = 0; i < reserve_count; i++) {
        if (reserves[i] == take) {
            return;
        }
    }
    if (reserve_count < RESERVES) {
        reserves[reserve_count++] = take;
    }
}

/* The process is about to confine itself: take what will be needed, and call the kernel no more. */
void file_reserve(void) {
    if (file_confined()) {
        return;
    }
    for (unsigned i = 0; i < reserve_count; i++) {
        reserves[i]();
    }
    atomic_store(&confined, true);
    while (atomic_load(&inside) > 0) { /* a filter may be meant for all threads: let them finish */
        system_call(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
    }
}

/* It has confined itself unseen: call the kernel no more, with what there is. */
void file_confine(void) {
    atomic_store(&confined, true);
}

void file_after_fork(void) {
    bus_after_fork();
    pieces_after_fork();
    atomic_store(&inside, 0);
}

static long open_file(const char *path, int flags) {
    long fd;
    int tries = 0;
    do {
        fd = system_call(SYS_openat, AT_FDCWD, (long)path, flags | O_CLOEXEC | O_NOFOLLOW, 0644, 0, 0);
    } while (fd == -EINTR && ++tries < INTERRUPTIONS);
    return fd;
}

static void close_file(long fd) {
    system_call(SYS_close, fd, 0, 0, 0, 0, 0);
}

/* Up to `size - 1` bytes of a small file, ended by 0; how many. */
size_t file_read(const char *path, char *out, size_t size) {
    size_t used = 0;
    long fd = open_file(path, O_RDONLY);
    if (!system_failed(fd)) {
        long got;
        while ((got = system_call(SYS_read, fd, (long)(out + used), (long)(size - 1 - used), 0, 0, 0)) > 0) {
            used += (size_t)got;
        }
        close_file(fd);
    }
    out[used] = 0;
    return used;
}

/* Up to `size - 1` bytes of what a link says, ended by 0; how many. */
size_t file_link(const char *path, char *out, size_t size) {
#if defined(SYS_readlink)
    long got = system_call(SYS_readlink, (long)path, (long)out, (long)(size - 1), 0, 0, 0);
#else
    long got = system_call(SYS_readlinkat, AT_FDCWD, (long)path, (long)out, (long)(size - 1), 0, 0);
#endif
    size_t used = got > 0 ? (size_t)got : 0;
    out[used] = 0;
    return used;
}

void file_remove(const char *path) {
    system_call(SYS_unlinkat, AT_FDCWD, (long)path, 0, 0, 0, 0);
}

static uint32_t number_after(const char *text, const char *name) {
    const char *at = strstr(text, name);
    uint32_t number = 0;
    if (at != NULL) {
        for (at += strlen(name); *at >= '0' && *at <= '9'; at++) {
            number = number * 10 + (uint32_t)(*at - '0');
        }
    }
    return number;
}

/* Look which calls may be made, where nothing says so the plainest. Also tells who our parent is. */
void file_start(uint32_t *parent) {
    char status[4096];
    file_read("/proc/self/status", status, sizeof status);
    atomic_store_explicit(&careful, strstr(status, "\nSeccomp:\t0") == NULL, memory_order_relaxed);
    *parent = number_after(status, "\nPPid:\t");
}

/* Begin a file that is not there yet; a negated errno if that fails. */
long file_create(const char *path) {
    if (!file_enter()) {
        return -EPERM;
    }
    long fd = open_file(path, O_RDWR | O_CREAT | O_EXCL);
    if (!system_failed(fd)) {
        close_file(fd);
        fd = 0;
    }
    file_leave();
    return fd;
}

/* Beyond RLIMIT_FSIZE, growing the file would raise SIGXFSZ, which ends a host that does not ignore it. */
static bool may_grow_to(uint64_t size) {
    struct rlimit limit;
    long failed = system_call(SYS_prlimit64, 0, RLIMIT_FSIZE, 0, (long)&limit, 0, 0);
    return failed != 0 || limit.rlim_cur == RLIM_INFINITY || size <= limit.rlim_cur;
}

/* Where the file system cannot allocate, or must not be asked to: zeros, if there is a hole or the end of the file. */
static long write_zeros(long fd, uint64_t offset, size_t size) {
    static const char zeros[PAGE];
    long hole = system_call(SYS_lseek, fd, (long)offset, SEEK_HOLE, 0, 0, 0);
    if (hole >= (long)(offset + size)) {
        return 0;
    }
    long at = system_call(SYS_lseek, fd, (long)offset, SEEK_SET, 0, 0, 0);
    int tries = 0;
    size_t done = 0;
    while (!system_failed(at) && done < size) {
        size_t part = size - done < sizeof zeros ? size - done : sizeof zeros;
        long wrote = system_call(SYS_write, fd, (long)zeros, (long)part, 0, 0, 0);
        if (wrote == -EINTR && ++tries < INTERRUPTIONS) {
            continue;
        }
        if (wrote <= 0) {
            return wrote == 0 ? -ENOSPC : wrote;
        }
        done += (size_t)wrote;
    }
    return system_failed(at) ? at : 0;
}

static long allocate(long fd, uint64_t offset, size_t size) {
    long error = -EOPNOTSUPP;
    for (int tries = 0; !file_careful() && tries < INTERRUPTIONS; tries++) {
        error = system_call(SYS_fallocate, fd, 0, (long)offset, (long)size, 0, 0);
        if (error != -EINTR) {
            break;
        }
    }
    return error == -EOPNOTSUPP || error == -ENOSYS || error == -EPERM ? write_zeros(fd, offset, size) : error;
}

/* Allocate, though the limit may be lowered by another thread meanwhile: its signal waits, and is taken back. */
static bool allocate_quietly(long fd, uint64_t offset, size_t size) {
    if (!may_grow_to(offset + size)) {
        return false;
    }
    uint64_t signal = (uint64_t)1 << (SIGXFSZ - 1), before = 0, pending = 0;
    system_call(SYS_rt_sigprocmask, SIG_BLOCK, (long)&signal, (long)&before, KERNEL_SIGSET, 0, 0);
    if ((before & signal) != 0) {
        system_call(SYS_rt_sigpending, (long)&pending, KERNEL_SIGSET, 0, 0, 0, 0);
    }
    long error = allocate(fd, offset, size);
    if (error == -EFBIG && (pending & signal) == 0) {
        const struct timespec now = {0};
        system_call(SYS_rt_sigtimedwait, (long)&signal, 0, (long)&now, KERNEL_SIGSET, 0, 0);
    }
    system_call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&before, 0, KERNEL_SIGSET, 0, 0);
    return error == 0;
}

static void *map_open(long fd, uint64_t offset, size_t size, void *where) {
    if (!allocate_quietly(fd, offset, size) || (where != NULL && !pieces_take(where))) {
        return NULL;
    }
    int flags = MAP_SHARED | (where != NULL ? MAP_FIXED : 0);
    long piece = system_call(SYS_mmap, (long)where, (long)size, PROT_READ | PROT_WRITE, flags, fd, (long)offset);
    if (system_failed(piece)) {
        if (where != NULL) {
            pieces_keep(where);
        }
        return NULL;
    }
    if (!pieces_add((void *)piece, size)) {
        system_call(SYS_munmap, piece, (long)size, 0, 0, 0, 0);
        return NULL;
    }
    if (!file_careful()) {
        /* One call instead of a page fault for every 256 records; older kernels just fault. */
        system_call(SYS_madvise, piece, (long)size, MADV_POPULATE_WRITE, 0, 0, 0);
    }
    return (void *)piece;
}

/* Map `size` bytes, a power of two of pages, at `offset` of the file at `path` (begun if `create`), allocated
 * beforehand; in place of what is at `where`, unless NULL. NULL if that cannot be had: perhaps later. */
void *file_map(const char *path, uint64_t offset, size_t size, bool create, void *where) {
    void *piece = NULL;
    if (!file_enter()) {
        return NULL;
    }
    bus_watch();
    long fd = open_file(path, O_RDWR | (create ? O_CREAT : 0));
    if (!system_failed(fd)) {
        piece = map_open(fd, offset, size, where);
        close_file(fd);
    }
    file_leave();
    return piece;
}

/* Without system calls it stays mapped. */
void file_unmap(void *piece, size_t size) {
    if (file_enter()) {
        if (pieces_remove(piece)) {
            system_call(SYS_munmap, (long)piece, (long)size, 0, 0, 0, 0);
        }
        file_leave();
    }
}
