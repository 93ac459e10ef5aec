/* SIGBUS: a piece of a file that has been cut off, or that the disk cannot give any more.
 *
 * In a piece of ours it is answered by memory of no file, and goes unnoticed. Any other is the host's: what was there
 * before is put back, and the fault comes again. Others do the same: faulthandler, say, which saves what it finds, and
 * puts it back for the next fault, or when it is switched off. So each time that we go on top of something new it is as
 * another handler, which knows what it lies on; whichever of them is called, it goes one further down. */
#include "bus.h"

#include "pieces.h"
#include "system.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

enum { LEVELS = 4 };

static struct sigaction below[LEVELS]; /* what each of our handlers lies on */
static unsigned levels;
static atomic_flag changing = ATOMIC_FLAG_INIT;
static int (*_Atomic host_ready)(void);
static void (*_Atomic tell_lost)(void);
static _Atomic bool watching;

static void on_bus(unsigned level, siginfo_t *info, void *context);

static void on_bus_0(int number, siginfo_t *info, void *context) {
    (void)number;
    on_bus(0, info, context);
}

static void on_bus_1(int number, siginfo_t *info, void *context) {
    (void)number;
    on_bus(1, info, context);
}

static void on_bus_2(int number, siginfo_t *info, void *context) {
    (void)number;
    on_bus(2, info, context);
}

static void on_bus_3(int number, siginfo_t *info, void *context) {
    (void)number;
    on_bus(3, info, context);
}

static void (*const handlers[LEVELS])(int, siginfo_t *, void *) = {on_bus_0, on_bus_1, on_bus_2, on_bus_3};

static bool is_same(const struct sigaction *one, const struct sigaction *other) {
    /* The other member of the union has the same place. */
    return one->sa_sigaction == other->sa_sigaction && ((one->sa_flags ^ other->sa_flags) & SA_SIGINFO) == 0;
}

/* Which of our handlers it is; LEVELS if none. */
static unsigned level_of(const struct sigaction *action) {
    unsigned level = 0;
    while (level < LEVELS && action->sa_sigaction != handlers[level]) {
        level++;
    }
    return level;
}

static void install(unsigned level) {
    /* On the host's alternative stack, if it has one; and open to a second fault, in the head that tells of it. */
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART};
    action.sa_sigaction = handlers[level];
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}

/* A fault comes again by itself when we return. A signal that somebody sent does not, and need not end the process. */
static void pass_on(unsigned level, siginfo_t *info) {
    sigaction(SIGBUS, &below[level], NULL);
    if (info->si_code > 0) {
        return;
    }
    long thread = system_call(SYS_gettid, 0, 0, 0, 0, 0, 0);
    system_call(SYS_rt_tgsigqueueinfo, getpid(), thread, SIGBUS, (long)info, 0, 0);
    struct sigaction now;
    if (sigaction(SIGBUS, NULL, &now) == 0 && is_same(&now, &below[level])) {
        install(level);
    }
}

static void on_bus(unsigned level, siginfo_t *info, void *context) {
    (void)context;
    int saved_errno = errno;
    enum pieces_found found = info->si_code == BUS_ADRERR ? pieces_replace((uintptr_t)info->si_addr) : PIECES_NONE;
    if (found == PIECES_NOW) {
        tell_lost();
    } else if (found == PIECES_NONE) {
        pass_on(level, info);
    }
    errno = saved_errno;
}

/* `ready`, if given, tells whether the host is done with looking at its signals; `lost` is called, in the handler, for
 * each piece. */
void bus_start(int (*ready)(void), void (*lost)(void)) {
    host_ready = ready;
    tell_lost = lost;
}

/* Does SIGBUS come to us first? */
bool bus_watching(void) {
    return atomic_load_explicit(&watching, memory_order_relaxed);
}

/* Be the first to hear of SIGBUS, from the moment on at which the host is ready; true if that is so. To be called again
 * and again, as the host may install what it likes. */
bool bus_watch(void) {
    if ((host_ready != NULL && !host_ready()) || atomic_flag_test_and_set(&changing)) {
        return bus_watching();
    }
    int saved_errno = errno;
    struct sigaction now;
    if (sigaction(SIGBUS, NULL, &now) == 0 && level_of(&now) == LEVELS) {
        unsigned level = 0;
        while (level < levels && !is_same(&now, &below[level])) {
            level++;
        }
        if (level < LEVELS) { /* else it has changed hands too often: stay below */
            below[level] = now;
            levels = level < levels ? levels : level + 1;
            install(level);
        }
    }
    errno = saved_errno;
    atomic_store_explicit(&watching, true, memory_order_relaxed);
    atomic_flag_clear(&changing);
    return true;
}

/* Put back what was found, unless somebody lies on top of it and may come back to us. */
void bus_stop(void) {
    int saved_errno = errno;
    struct sigaction now;
    if (sigaction(SIGBUS, NULL, &now) == 0) {
        unsigned level = level_of(&now);
        if (level < LEVELS) {
            sigaction(SIGBUS, &below[level], NULL);
        }
    }
    atomic_store_explicit(&watching, false, memory_order_relaxed);
    errno = saved_errno;
}

void bus_after_fork(void) {
    atomic_flag_clear(&changing);
}
