/* Files of a head only: what a reader must know of a program image in which no tracer is at work.
 *
 * By system calls throughout: this runs in programs of any kind, at their start, and often. */
#include "leaf.h"

#include "../tracer/layout.h"
#include "../tracer/system.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <time.h>

enum { IMAGES_MAX = 1000 };

/* Not on the stack: a program's first thread may have little of that. Its pages are touched only if it is used. */
static union {
    struct gt_header head;
    char bytes[GT_HEADER_SIZE];
} leaf;

static char path[PATH_MAX];

static long open_at(const char *name, int flags) {
    return system_call(SYS_openat, AT_FDCWD, (long)name, flags | O_CLOEXEC, 0644, 0, 0);
}

static void close_file(long fd) {
    system_call(SYS_close, fd, 0, 0, 0, 0, 0);
}

static long read_from(const char *name, void *out, size_t size) {
    long fd = open_at(name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW);
    if (system_failed(fd)) {
        return -1;
    }
    long got = system_call(SYS_read, fd, (long)out, (long)size, 0, 0, 0);
    close_file(fd);
    return got;
}

static bool name_file(const char *folder, long pid, int image) {
    struct text text = text_begin(path, sizeof path);
    text_add(&text, folder);
    text_add(&text, "/gil-");
    text_add_number(&text, pid);
    text_add(&text, "-");
    text_add_number(&text, image);
    text_add(&text, ".bin");
    return !text.cut;
}

static uint64_t now_ns(void) {
    struct timespec now = {0};
    system_call(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&now, 0, 0, 0, 0);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Ticks as the recording counts them. */
static void stamp(uint32_t clock) {
    leaf.head.clock = clock;
    leaf.head.start_ns = leaf.head.start_ticks = now_ns();
#if defined(__x86_64__)
    if (clock == GT_CLOCK_TSC) {
        leaf.head.start_ticks = __builtin_ia32_rdtsc();
    }
#endif
}

static void describe(long pid, uint32_t status, const char *note) {
    leaf.head.magic = GT_MAGIC;
    leaf.head.version = GT_VERSION;
    leaf.head.pid = (uint32_t)pid;
    leaf.head.ppid = (uint32_t)system_call(SYS_getppid, 0, 0, 0, 0, 0, 0);
    leaf.head.status = status;
    struct text text = text_begin(leaf.head.note, sizeof leaf.head.note);
    text_add(&text, note);
    system_call(SYS_readlinkat, AT_FDCWD, (long)"/proc/self/exe", (long)leaf.head.executable,
                sizeof leaf.head.executable - 1, 0, 0);
    read_from("/proc/self/cmdline", leaf.head.cmdline, sizeof leaf.head.cmdline - 1);
}

/* Beyond RLIMIT_FSIZE, a write would raise SIGXFSZ. */
static bool may_write(void) {
    struct rlimit limit;
    long result = system_call(SYS_prlimit64, 0, RLIMIT_FSIZE, 0, (long)&limit, 0, 0);
    return !system_failed(result) && (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= sizeof leaf);
}

static void write_out(const char *folder, long pid) {
    if (!may_write()) {
        return;
    }
    for (int image = 0; image < IMAGES_MAX && name_file(folder, pid, image); image++) {
        long fd = open_at(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW);
        if (!system_failed(fd)) {
            system_call(SYS_write, fd, (long)leaf.bytes, sizeof leaf, 0, 0, 0);
            close_file(fd);
            return;
        }
        if (fd != -EEXIST) {
            return;
        }
    }
}

/* This image is no Python. If one of this process before it was, readers must know that it is over. */
void leaf_not_python(const char *folder) {
    long pid = system_call(SYS_getpid, 0, 0, 0, 0, 0, 0);
    if (!name_file(folder, pid, 0) || read_from(path, &leaf, sizeof leaf) != sizeof leaf ||
        leaf.head.magic != GT_MAGIC) {
        return;
    }
    uint32_t clock = leaf.head.clock;
    for (size_t at = 0; at < sizeof leaf; at++) {
        leaf.bytes[at] = 0;
    }
    stamp(clock);
    describe(pid, GT_NOT_PYTHON, "");
    write_out(folder, pid);
}

/* This image is a Python that is not traced. */
void leaf_note(const char *folder, const char *note) {
    long pid = system_call(SYS_getpid, 0, 0, 0, 0, 0, 0);
    stamp(GT_CLOCK_MONOTONIC_NS);
    describe(pid, 0, note);
    write_out(folder, pid);
}
