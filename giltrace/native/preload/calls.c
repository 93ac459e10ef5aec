/* Functions before libc's. Each hands over to the one that would have been called, with all that it was given; as its
 * last act, so that the stack is as if the caller had called that.
 *
 * Until the constructor has run nobody knows that function: another object's constructor that calls one of these is
 * then answered by the kernel. */
#include "calls.h"

#include "../tracer/system.h"
#include "libc.h"

#include <linux/prctl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define EXPORT __attribute__((visibility("default")))

typedef int prctl_function(int, unsigned long, unsigned long, unsigned long, unsigned long);
typedef int clock_function(pthread_condattr_t *, clockid_t);

EXPORT prctl_function prctl;
EXPORT clock_function pthread_condattr_setclock;

void (*_Atomic calls_confining)(void);
void (*_Atomic calls_clock_chosen)(uintptr_t caller);

static long as_libc_returns(long result) {
    if (system_failed(result)) {
        libc_set_errno((int)-result);
        return -1;
    }
    return result;
}

static long bare_syscall(long number, long a, long b, long c, long d, long e, long f) {
    return as_libc_returns(system_call(number, a, b, c, d, e, f));
}

static int bare_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d) {
    return (int)as_libc_returns(system_call(SYS_prctl, option, (long)a, (long)b, (long)c, (long)d, 0));
}

system_function *calls_next_syscall = bare_syscall;
static prctl_function *next_prctl = bare_prctl;
static clock_function *_Atomic next_clock;

static _Atomic bool confined;

void calls_confine(void) {
    atomic_store_explicit(&confined, true, memory_order_relaxed);
    void (*tell)(void) = atomic_load_explicit(&calls_confining, memory_order_acquire);
    if (tell != NULL) {
        tell();
    }
}

/* What `os.getrandom(1, CALLS_ASK)` gets: whether the process has put a filter on. Our Python code inside the program
 * writes files at the end, which that may kill for, and has no other way to find out without a system call. */
long calls_answer(long number, char *answer) {
    (void)number;
    *answer = (char)atomic_load_explicit(&confined, memory_order_relaxed);
    return 1;
}

/* Not with "..." as in the header: in registers the arguments lie alike. */
int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d) {
    if (__builtin_expect(option == PR_SET_SECCOMP, 0)) {
        calls_confine();
    }
    return next_prctl(option, a, b, c, d);
}

/* Before glibc 2.34 in a library of its own, which may have come with the caller. */
static clock_function *find_clock(void) {
    clock_function *found = NULL;
    *(void **)&found = dlsym != NULL ? dlsym(RTLD_NEXT, "pthread_condattr_setclock") : NULL;
    if (found == NULL && dlopen != NULL) {
        void *threads = dlopen("libpthread.so.0", RTLD_LAZY | RTLD_NOLOAD);
        *(void **)&found = threads != NULL ? dlsym(threads, "pthread_condattr_setclock") : NULL;
    }
    return found;
}

/* The interpreter calls this on its way to its first GIL, and hardly anybody else does. */
int pthread_condattr_setclock(pthread_condattr_t *attributes, clockid_t clock) {
    void (*tell)(uintptr_t) = atomic_load_explicit(&calls_clock_chosen, memory_order_acquire);
    if (tell != NULL) {
        tell((uintptr_t)__builtin_return_address(0));
    }
    clock_function *next = atomic_load_explicit(&next_clock, memory_order_relaxed);
    if (next == NULL) {
        next = find_clock();
        atomic_store_explicit(&next_clock, next, memory_order_relaxed);
    }
    return next != NULL ? next(attributes, clock) : ENOSYS;
}

/* Whose turn is next: libc's, or that of another library which puts itself before it. Asked for at the start, because
 * later some thread may be inside of a constructor, and the loader waits for that. */
void calls_resolve(void) {
    if (dlsym == NULL) {
        return;
    }
    void *found = dlsym(RTLD_NEXT, "syscall");
    if (found != NULL) {
        *(void **)&calls_next_syscall = found;
    }
    found = dlsym(RTLD_NEXT, "prctl");
    if (found != NULL) {
        *(void **)&next_prctl = found;
    }
    clock_function *next = NULL;
    *(void **)&next = dlsym(RTLD_NEXT, "pthread_condattr_setclock");
    atomic_store_explicit(&next_clock, next, memory_order_relaxed);
    if (next == NULL && dlerror != NULL) {
        dlerror(); /* the program is not to find an error that is none of its own */
    }
}
