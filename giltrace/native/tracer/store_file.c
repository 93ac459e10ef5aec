/* The recording's file of this process: one per program image, in the recording's folder.
 *
 * One lock guards what the file is and where in it there is room; it is taken once per chunk. A file that loses a
 * piece, since somebody has cut it off, is left, and another one begun, as in a forked child. */
#include "store_file.h"

#include "bus.h"
#include "clock.h"
#include "count.h"
#include "file.h"
#include "guard.h"
#include "pieces.h"
#include "room.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PATH_TRIES = 1000 }; /* program images that one process may go through */

static const uint64_t LEASE_NS = 10000000000; /* as recorders grant it */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char path[PATH_MAX], folder[PATH_MAX - 64]; /* room for the name of a file in it */
static struct plan plan;
/* A head once mapped stays mapped, and the next recording's takes its place: a thread on its way out of a recording
 * may still write to it. */
static struct gt_header *_Atomic header;
static struct gt_header *head_page;
static uint32_t next_thread;
static bool inherited; /* what is mapped is the parent's */
static _Atomic bool noted;
static _Atomic uint32_t lost_pieces; /* since anybody looked */
static uint32_t damaged;
static _Atomic bool was_ever_cut;

struct gt_header *store_header(void) {
    return atomic_load_explicit(&header, memory_order_acquire);
}

/* The first one stays. */
void store_note(const char *text) {
    struct gt_header *head = store_header();
    if (head != NULL && !atomic_exchange(&noted, true)) {
        snprintf(head->note, sizeof head->note, "%s", text);
    }
}

/* When the recording began, in ticks; 0 if there is none. */
uint64_t store_start(void) {
    struct gt_header *head = store_header();
    return head != NULL ? __atomic_load_n(&head->start_ticks, __ATOMIC_RELAXED) : 0;
}

/* What the recorder says: bits of enum gt_control. */
uint32_t store_control(void) {
    const struct gt_header *head = atomic_load_explicit(&header, memory_order_relaxed);
    return head != NULL ? __atomic_load_n(&head->control, __ATOMIC_RELAXED) : 0;
}

/* The recorder has seen a seccomp filter that nobody here has heard of. */
void store_confined(void) {
    struct gt_header *head = store_header();
    file_confine();
    if (head != NULL) {
        head->confined = 1;
    }
}

/* The path of this image's file whose name begins with `prefix` instead of "gil"; false if there is no image's file. */
bool store_sibling(char *out, size_t size, const char *prefix) {
    pthread_mutex_lock(&lock);
    const char *name = strrchr(path, '/');
    int wrote = -1;
    if (store_header() != NULL && name != NULL) {
        wrote = snprintf(out, size, "%.*s/%s%s", (int)(name - path), path, prefix, name + strlen("/gil"));
    }
    pthread_mutex_unlock(&lock);
    return wrote > 0 && (size_t)wrote < size;
}

static void describe_process(struct gt_header *head, uint32_t parent) {
    uint64_t ticks, ns, error;
    head->version = GT_VERSION;
    __atomic_store_n(&head->pid, (uint32_t)getpid(), __ATOMIC_RELAXED); /* stragglers may look at it */
    head->ppid = parent;
    head->clock = clock_is_tsc() ? GT_CLOCK_TSC : GT_CLOCK_MONOTONIC_NS;
    clock_pair(&ticks, &ns, &error);
    __atomic_store_n(&head->start_ticks, ticks, __ATOMIC_RELAXED);
    head->start_ns = ns;
    file_link("/proc/self/exe", head->executable, sizeof head->executable);
    file_read("/proc/self/cmdline", head->cmdline, sizeof head->cmdline); /* NUL between the words, as there */
    memcpy(head->python, plan.python, sizeof head->python);
    head->status = plan.status;
    __atomic_store_n(&head->lease_ns, plan.lease_ns, __ATOMIC_RELAXED);
    head->ring_size = plan.ring_size;
    head->damaged = damaged;
    head->confined = file_confined();
    head->timed_every = GT_TIMED_EVERY;
    __atomic_store_n(&head->magic, GT_MAGIC, __ATOMIC_RELEASE);
}

/* Create this image's file. Its number tells apart the images that one process executes in turn. */
static bool open_next(void) {
    uint32_t parent;
    if (folder[0] == 0 || file_confined()) {
        return false;
    }
    file_start(&parent);
    long error = -EEXIST;
    for (int image = 0; error == -EEXIST && image < PATH_TRIES; image++) {
        snprintf(path, sizeof path, "%s/gil-%d-%d.bin", folder, (int)getpid(), image);
        error = file_create(path);
    }
    if (error != 0) {
        return false;
    }
    if (inherited) { /* not unmapped: whoever mapped a piece may yet do that, also in the child */
        pieces_replace_all();
        inherited = false;
    }
    struct gt_header *head = file_map(path, 0, GT_HEADER_SIZE, false, head_page);
    if (head == NULL) {
        file_remove(path);
        return false;
    }
    head_page = head;
    next_thread = 0;
    room_start(plan.ring_size);
    count_reset();
    atomic_store(&noted, false);
    describe_process(head, parent);
    atomic_store_explicit(&header, head, memory_order_release);
    if (damaged != 0) {
        store_note("a file of this recording was cut off while it was written: what it held is missing");
        damaged = 0;
    }
    return true;
}

/* Take the lock, and begin the file if that was put off: a forked child has none until it first uses a GIL, as most
 * children only execute another program. NULL if there is none to be had, now. */
struct gt_header *store_locked(void) {
    pthread_mutex_lock(&lock);
    if (store_header() == NULL) {
        open_next();
    }
    return store_header();
}

void store_unlock(void) {
    pthread_mutex_unlock(&lock);
}

/* The next three: to be called with the lock. */
const char *store_path(void) {
    return path;
}

uint32_t store_next_thread(void) {
    return next_thread++;
}

static void take_room_ahead(void) {
    struct gt_header *head = store_locked();
    if (head != NULL) {
        if (!count_only()) {
            room_reserve(path);
        }
        if (plan.count != COUNT_NOTHING) {
            count_reserve(path);
        }
        head->confined = 1;
    }
    store_unlock();
}

/* Begin a recording in the folder `where`. What threads know of an earlier one, or of the time between, is not true of
 * it: that is said first, so that who sees the new head has seen that as well. */
bool store_open(const char *where, const struct plan *how) {
    pthread_mutex_lock(&lock);
    snprintf(folder, sizeof folder, "%s", where);
    plan = *how;
    count_choose((enum count_mode)plan.count);
    guard_start();
    guard_change();
    file_on_reserve(take_room_ahead);
    bus_start(plan.ready, store_piece_lost);
    bool opened = open_next();
    if (opened && plan.count != COUNT_NOTHING) {
        count_begin(path);
    }
    pthread_mutex_unlock(&lock);
    return opened;
}

/* The hooks are in place, now and in what follows. */
void store_hooked(void) {
    pthread_mutex_lock(&lock);
    plan.status |= GT_HOOKED;
    if (store_header() != NULL) {
        __atomic_fetch_or(&store_header()->status, GT_HOOKED, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&lock);
}

/* Nothing is recorded any more, here and in children. Records that are on their way still go to the old file. */
void store_close(void) {
    pthread_mutex_lock(&lock);
    folder[0] = 0;
    atomic_store_explicit(&header, NULL, memory_order_relaxed);
    guard_change();
    room_end();
    count_reset();
    pthread_mutex_unlock(&lock);
}

/* Say in the head that all is written, and map no file any more: threads may sleep for hours with a chunk at hand.
 * Where files have been cut off, a thread may be on its way into SIGBUS's handler even now: there it stays. */
void store_end(struct gt_header *head) {
    if (head != NULL) {
        __atomic_fetch_or(&head->status, GT_STOPPED, __ATOMIC_RELEASE);
    }
    if (file_enter()) {
        pieces_replace_all();
        if (!atomic_load(&was_ever_cut)) {
            bus_stop();
        }
        file_leave();
    }
}

/* In a signal's handler, or wherever else it is noticed. Every thread will come by `store_forget`. */
void store_piece_lost(void) {
    atomic_store(&was_ever_cut, true);
    atomic_fetch_add(&lost_pieces, 1);
    guard_change();
}

/* Leave a file that has lost a piece: the next one will name everything anew. */
void store_restart_if_lost(void) {
    if (atomic_load_explicit(&lost_pieces, memory_order_relaxed) == 0) {
        return;
    }
    pthread_mutex_lock(&lock);
    uint32_t lost = atomic_exchange(&lost_pieces, 0);
    struct gt_header *head = store_header();
    if (lost != 0 && head != NULL) {
        damaged += lost;
        head->damaged += lost;
        __atomic_fetch_or(&head->status, GT_STOPPED, __ATOMIC_RELEASE);
        plan.lease_ns = plan.lease_ns != 0 ? clock_ns() + LEASE_NS : 0;
        atomic_store_explicit(&header, NULL, memory_order_relaxed);
        guard_change();
    }
    pthread_mutex_unlock(&lock);
}

/* In the child: the mappings are the parent's file, which only the parent may write. Without a GIL there will be no
 * first use of one, so then the child's file is opened at once. */
void store_file_after_fork(bool goes_on) {
    pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    lock = fresh;
    struct gt_header *head = store_header();
    if (head != NULL) {
        plan.lease_ns = head->lease_ns;
    }
    inherited = true;
    damaged = 0;
    atomic_store(&lost_pieces, 0);
    file_after_fork();
    room_end();
    count_after_fork();
    if (!goes_on) {
        store_close();
        return;
    }
    atomic_store_explicit(&header, NULL, memory_order_relaxed);
    guard_change();
    if ((plan.status & GT_FREE_THREADED) != 0) {
        store_locked();
        store_unlock();
    }
}
