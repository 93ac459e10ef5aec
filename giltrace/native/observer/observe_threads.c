/* The threads of an observed process: who they are, and what each does, from /proc. */
#include "observe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

bool observe_peek(const struct observer *observer, uint64_t address, void *out, size_t size) {
    struct iovec local = {out, size}, remote = {(void *)(uintptr_t)address, size};
    return process_vm_readv((pid_t)observer->setup.pid, &local, 1, &remote, 1, 0) == (ssize_t)size;
}

/* The id that the thread has in the innermost pid namespace: that is what Python and glibc keep. */
static uint32_t own_tid(uint32_t pid, uint32_t tid) {
    char path[64], text[2048];
    snprintf(path, sizeof path, "/proc/%u/task/%u/status", pid, tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0) {
        close(fd);
    }
    text[got > 0 ? got : 0] = 0;
    char *line = strstr(text, "\nNSpid:");
    if (line == NULL) {
        return tid;
    }
    char *end = strchr(line + 1, '\n');
    if (end != NULL) {
        *end = 0;
    }
    char *last = strrchr(line + 1, '\t');
    return last == NULL ? tid : (uint32_t)strtoul(last, NULL, 10);
}

/* Make room for one more; false if there is none to be had. */
static bool grow(struct observer *observer) {
    if (observer->thread_count < observer->thread_room) {
        return true;
    }
    uint32_t room = observer->thread_room == 0 ? 64 : 2 * observer->thread_room;
    struct observed_thread *threads = realloc(observer->threads, room * sizeof *threads);
    if (threads != NULL) {
        observer->threads = threads;
    }
    uint32_t *alive = realloc(observer->alive, room * sizeof *alive);
    if (alive != NULL) {
        observer->alive = alive;
    }
    if (threads == NULL || alive == NULL) {
        return false;
    }
    observer->thread_room = room;
    return true;
}

static void add_thread(struct observer *observer, uint32_t tid) {
    for (uint32_t i = 0; i < observer->alive_count; i++) {
        if (observer->threads[observer->alive[i]].tid == tid) {
            return;
        }
    }
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/task/%u/syscall", observer->setup.pid, tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    pthread_mutex_lock(&observer->lock);
    if (grow(observer)) {
        observer->alive[observer->alive_count++] = observer->thread_count;
        observer->threads[observer->thread_count++] = (struct observed_thread){
            .tid = tid, .own_tid = own_tid(observer->setup.pid, tid), .fd = fd, .waits_for = -1, .asker = -1};
        fd = -1;
    }
    pthread_mutex_unlock(&observer->lock);
    if (fd >= 0) {
        close(fd);
    }
}

/* The thread has ended; its id may be given to another. */
void observe_bury(struct observer *observer, uint32_t thread) {
    close(observer->threads[thread].fd);
    observer->threads[thread].fd = -1;
    for (uint32_t i = 0; i < observer->alive_count; i++) {
        if (observer->alive[i] == thread) {
            observer->alive[i] = observer->alive[--observer->alive_count];
            return;
        }
    }
}

void observe_list_threads(struct observer *observer, uint64_t now) {
    char path[32];
    snprintf(path, sizeof path, "/proc/%u/task", observer->setup.pid);
    observer->listed = now;
    DIR *folder = opendir(path);
    if (folder == NULL) {
        return;
    }
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        uint32_t tid = (uint32_t)strtoul(entry->d_name, NULL, 10);
        if (tid != 0) {
            add_thread(observer, tid);
        }
    }
    closedir(folder);
}

static int32_t find(const struct observer *observer, uint32_t tid) {
    for (uint32_t i = 0; i < observer->alive_count; i++) {
        if (observer->threads[observer->alive[i]].own_tid == tid) {
            return (int32_t)observer->alive[i];
        }
    }
    return -1;
}

/* The thread whose PyThreadState this is, -1 if none is: from the id that Python keeps there, else from the one that
 * the C library keeps. The former is stale in children forked by some versions. */
int32_t observe_thread_of(struct observer *observer, uint64_t state, uint64_t now) {
    const struct observe_setup *setup = &observer->setup;
    uint64_t native = 0, pthread = 0;
    uint32_t tid = 0;
    if (setup->native_id == 0 || !observe_peek(observer, state + setup->native_id, &native, sizeof native)) {
        native = 0;
    }
    for (int attempt = 0; attempt < 2; attempt++) {
        int32_t found = native == 0 ? -1 : find(observer, (uint32_t)native);
        if (found < 0 && setup->pthread_tid != 0 &&
            observe_peek(observer, state + setup->thread_id, &pthread, sizeof pthread) &&
            observe_peek(observer, pthread + setup->pthread_tid, &tid, sizeof tid)) {
            found = find(observer, tid);
        }
        if (found >= 0) {
            return found;
        }
        observe_list_threads(observer, now); /* it may be new */
    }
    return -1;
}

/* What a thread does at this instant. If it waits for a GIL, `gil` says which. */
enum observe_look observe_look(struct observer *observer, uint32_t thread, int32_t *gil) {
    struct observed_thread *one = &observer->threads[thread];
    char text[192];
    errno = 0;
    ssize_t got = one->fd < 0 ? -1 : pread(one->fd, text, sizeof text - 1, 0);
    if (got <= 0) {
        /* Any other failure passes: the kernel was interrupted, or the thread was on its way. */
        return one->fd < 0 || errno == ESRCH ? LOOK_ENDED : LOOK_RUNS;
    }
    text[got] = 0;
    char *end;
    long number = strtol(text, &end, 10);
    if (end == text) {
        return LOOK_RUNS; /* "running" */
    }
    if (number != SYS_futex) {
        return LOOK_BLOCKED;
    }
    uint64_t address = strtoull(end, NULL, 16);
    uint32_t count = atomic_load_explicit(&observer->gil_count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t at = address - observer->gils[i].address;
        if (at < OBSERVE_COND_AT || at >= OBSERVE_GIL_SIZE) {
            continue;
        }
        uint64_t word = (at - OBSERVE_COND_AT) / 4;
        /* The word that a waiter sleeps on tells the layout of glibc's condition: the last two words up to 2.40, the
         * two before since; the count of waiters stands before them. Other C libraries sleep elsewhere. */
        if (observer->wrefs_at < 0 && word >= 8 && word < 12) {
            observer->wrefs_at = word >= 10 ? 7 : 5;
        }
        *gil = (int32_t)i;
        return LOOK_WAITS;
    }
    return LOOK_BLOCKED;
}
