/* A host that uses a GIL with the very calls that CPython 3.12 makes, and does nothing else: for builds of the tracer
 * under a sanitizer, which sees all of such a process. While its threads pass the GIL around, and others come and go,
 * recordings begin and end beside them, and it forks.
 *
 * Arguments: the library, a folder for the recordings, how many of them, and of every how many to fork. Exits with 0. */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct state {
    struct state *prev, *next;
    void *interp;
};

struct gil {
    unsigned long interval; /* microseconds */
    struct state *last_holder;
    int locked;
    unsigned long switch_number;
    pthread_cond_t cond;
    pthread_mutex_t mutex;
    pthread_cond_t switch_cond;
    pthread_mutex_t switch_mutex;
};

struct {
    char before[64];
    struct gil gil;
} _PyRuntime;

#define GIL (&_PyRuntime.gil)
#define GET(field) __atomic_load_n(&(field), __ATOMIC_SEQ_CST)
#define SET(field, value) __atomic_store_n(&(field), value, __ATOMIC_SEQ_CST)

enum { BUSY = 3, ROUND_TAKES = 60 };

static __thread struct state own;
static int drop_request, ending;
static unsigned long takes;

static void must(int result) {
    if (result != 0) {
        fprintf(stderr, "host: %s\n", strerror(result));
        abort();
    }
}

static void make_gil(void) {
    pthread_condattr_t attr;
    must(pthread_condattr_init(&attr));
    must(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC));
    memset(GIL, 0, sizeof *GIL);
    GIL->interval = 500;
    must(pthread_mutex_init(&GIL->mutex, NULL));
    must(pthread_mutex_init(&GIL->switch_mutex, NULL));
    must(pthread_cond_init(&GIL->cond, &attr));
    must(pthread_cond_init(&GIL->switch_cond, &attr));
    must(pthread_condattr_destroy(&attr));
}

static void drop_gil(void) {
    SET(GIL->last_holder, &own);
    must(pthread_mutex_lock(&GIL->mutex));
    SET(GIL->locked, 0);
    must(pthread_cond_signal(&GIL->cond));
    must(pthread_mutex_unlock(&GIL->mutex));
    if (GET(drop_request)) {
        must(pthread_mutex_lock(&GIL->switch_mutex));
        if (GET(GIL->last_holder) == &own) {
            SET(drop_request, 0);
            must(pthread_cond_wait(&GIL->switch_cond, &GIL->switch_mutex));
        }
        must(pthread_mutex_unlock(&GIL->switch_mutex));
    }
}

static void wait_for_gil(void) {
    while (GET(GIL->locked)) {
        unsigned long before = GIL->switch_number;
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (long)GIL->interval * 1000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        int result = pthread_cond_timedwait(&GIL->cond, &GIL->mutex, &until);
        if (result == ETIMEDOUT && GET(GIL->locked) && GIL->switch_number == before) {
            SET(drop_request, 1);
        }
    }
}

static void take_gil(void) {
    must(pthread_mutex_lock(&GIL->mutex));
    wait_for_gil();
    must(pthread_mutex_lock(&GIL->switch_mutex));
    SET(GIL->locked, 1);
    if (GET(GIL->last_holder) != &own) {
        SET(GIL->last_holder, &own);
        GIL->switch_number++;
    }
    must(pthread_cond_signal(&GIL->switch_cond));
    must(pthread_mutex_unlock(&GIL->switch_mutex));
    SET(drop_request, 0);
    must(pthread_mutex_unlock(&GIL->mutex));
    __atomic_fetch_add(&takes, 1, __ATOMIC_SEQ_CST);
}

/* The functions by which a release of a thread's own accord is told from a forced one. */
void PyEval_SaveThread(void) {
    drop_gil();
}

void PyEval_RestoreThread(void) {
    take_gil();
}

void _PyEval_EvalFrameDefault(void) {
    if (GET(drop_request)) {
        drop_gil();
        take_gil();
    }
}

static void work(int turns) {
    for (int turn = 0; turn < turns; turn++) {
        _PyEval_EvalFrameDefault();
    }
    PyEval_SaveThread();
    sched_yield();
    PyEval_RestoreThread();
}

static void *busy(void *unused) {
    take_gil();
    while (!GET(ending)) {
        work(2000);
    }
    drop_gil();
    return unused;
}

static void *brief(void *unused) {
    take_gil();
    work(10);
    drop_gil();
    return unused;
}

/* What becomes of the GIL in a forked child, whose only thread is the one that forked: holding it, as os.fork does. */
static void run_child(void) {
    make_gil();
    take_gil();
    for (int turn = 0; turn < 20; turn++) {
        work(10);
    }
    _exit(0);
}

static void fork_once(void) {
    take_gil();
    pid_t child = fork();
    if (child == 0) {
        run_child();
    }
    drop_gil();
    int status = -1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
        fprintf(stderr, "host: a child ended with status %#x\n", (unsigned)status);
        exit(1);
    }
}

static void run_round(int number, const char *folder, int (*start)(const char *, unsigned, const void *),
                      void (*attach)(const char *, unsigned, uint64_t, uint64_t, int *, const void *),
                      void (*stop)(void)) {
    char where[512];
    pthread_t passing;
    int result = -1;
    snprintf(where, sizeof where, "%s/%d", folder, number);
    must(mkdir(where, 0777) == 0 ? 0 : errno);
    must(pthread_create(&passing, NULL, brief, NULL));
    if (number % 2 == 0) { /* as through ctypes: holding the GIL */
        take_gil();
        result = start(where, 0, NULL);
        drop_gil();
    } else {
        attach(where, 0, 0, number % 4 == 1 ? 1 << 20 : 0, &result, NULL);
    }
    must(result == 0 ? 0 : EBUSY);
    for (unsigned long enough = GET(takes) + ROUND_TAKES; GET(takes) < enough;) {
        sched_yield();
    }
    stop();
    must(pthread_join(passing, NULL));
}

int main(int argc, char **argv) {
    void *library = argc == 5 ? dlopen(argv[1], RTLD_NOW) : NULL;
    if (library == NULL) {
        fprintf(stderr, "host: %s\n", argc == 5 ? dlerror() : "wrong arguments");
        return 2;
    }
    int (*start)(const char *, unsigned, const void *);
    void (*attach)(const char *, unsigned, uint64_t, uint64_t, int *, const void *);
    void (*stop)(void);
    *(void **)&start = dlsym(library, "giltrace_start");
    *(void **)&attach = dlsym(library, "giltrace_attach");
    *(void **)&stop = dlsym(library, "giltrace_stop");
    make_gil();
    pthread_t threads[BUSY];
    for (int i = 0; i < BUSY; i++) {
        must(pthread_create(&threads[i], NULL, busy, NULL));
    }
    for (int number = 0; number < atoi(argv[3]); number++) {
        run_round(number, argv[2], start, attach, stop);
        if (number % atoi(argv[4]) == 0) {
            fork_once();
        }
    }
    SET(ending, 1);
    for (int i = 0; i < BUSY; i++) {
        must(pthread_join(threads[i], NULL));
    }
    return 0;
}
