/* A host that uses a GIL and locks with the very calls that CPython makes, 3.12 for locks that are semaphores and 3.14
 * for those that park threads, and does nothing else: for builds of the tracer under a sanitizer, which sees all of
 * such a process. While its threads pass the GIL around, sleep and wake each other, and others come and go, recordings
 * begin and end beside them, signals interrupt them, and it forks.
 *
 * Arguments: the library, a folder for the recordings, how many of them, and of every how many to fork. Exits with 0.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
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

/* What a wait may end with; the interpreter gives up the process where it is anything else. */
static bool was_woken(int result) {
    if (result != 0 && errno != ETIMEDOUT && errno != EINTR) {
        fprintf(stderr, "host: a wait ended with %s\n", strerror(errno));
        abort();
    }
    return result == 0;
}

static struct timespec in_ns(clockid_t clock, long ns) {
    struct timespec until;
    clock_gettime(clock, &until);
    until.tv_nsec += ns;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    return until;
}

/* A lock that is a semaphore: of three threads that hold the GIL now and then, one at most has it. Some do not wait
 * for long, and one waits for a time that has passed. */
static sem_t lock;
static int owned;

static bool wait_for_lock(int turn) {
    struct timespec until;
    if (turn % 3 == 0) {
        until = in_ns(CLOCK_MONOTONIC, 3000000);
        return was_woken(sem_clockwait(&lock, CLOCK_MONOTONIC, &until));
    }
    until = in_ns(CLOCK_REALTIME, 3000000);
    until.tv_sec -= turn % 3 == 1 ? 1 : 0;
    return was_woken(sem_timedwait(&lock, &until));
}

static void use_lock(int turn) {
    bool had = sem_trywait(&lock) == 0;
    if (!had) {
        drop_gil();
        had = wait_for_lock(turn);
        take_gil();
    }
    if (had) {
        must(__atomic_fetch_add(&owned, 1, __ATOMIC_SEQ_CST) == 0 ? 0 : EDEADLK);
        drop_gil();
        sched_yield();
        take_gil();
        __atomic_fetch_sub(&owned, 1, __ATOMIC_SEQ_CST);
        must(sem_post(&lock));
    }
}

/* One that is gone as soon as its thread is woken: nobody may look at it after that. */
static sem_t *given;

static void wait_once(void) {
    sem_t *mine = malloc(sizeof *mine), *none = NULL;
    must(mine == NULL || sem_init(mine, 0, 0) != 0);
    if (__atomic_compare_exchange_n(&given, &none, mine, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        drop_gil();
        while (!was_woken(sem_wait(mine))) {
        }
        take_gil();
    }
    must(sem_destroy(mine));
    memset(mine, 0xEE, sizeof *mine);
    free(mine);
}

/* A lock that parks those that wait, each with an entry on its stack. */
struct node {
    struct node *next, *prev;
};

struct entry {
    void *argument;
    uintptr_t address;
    sem_t semaphore;
    struct node node;
};

static struct node parked = {&parked, &parked};
static pthread_mutex_t bucket = PTHREAD_MUTEX_INITIALIZER;

static void unlink_node(struct node *node) {
    struct node *next = node->next, *prev = node->prev;
    SET(next->prev, prev);
    SET(prev->next, next);
    SET(node->next, NULL);
    SET(node->prev, NULL);
}

static void park(int turn) {
    struct entry entry = {.argument = turn % 4 == 1 ? &entry : NULL, .address = (uintptr_t)&parked};
    struct timespec until = in_ns(CLOCK_MONOTONIC, 1000000);
    must(sem_init(&entry.semaphore, 0, 0));
    must(pthread_mutex_lock(&bucket));
    entry.node.prev = parked.prev;
    entry.node.next = &parked;
    SET(parked.prev->next, &entry.node);
    SET(parked.prev, &entry.node);
    must(pthread_mutex_unlock(&bucket));
    drop_gil();
    bool woken = was_woken(sem_clockwait(&entry.semaphore, CLOCK_MONOTONIC, &until));
    must(pthread_mutex_lock(&bucket));
    bool listed = entry.node.next != NULL;
    if (listed) {
        unlink_node(&entry.node);
    }
    must(pthread_mutex_unlock(&bucket));
    while (!woken && !listed) { /* somebody has taken it out, and is about to wake it */
        woken = was_woken(sem_wait(&entry.semaphore));
    }
    take_gil();
    must(sem_destroy(&entry.semaphore));
}

static void unpark(void) {
    must(pthread_mutex_lock(&bucket));
    struct node *node = parked.next;
    if (node != &parked) {
        unlink_node(node);
    }
    must(pthread_mutex_unlock(&bucket));
    if (node != &parked) {
        must(sem_post(&((struct entry *)((char *)node - offsetof(struct entry, node)))->semaphore));
    }
}

/* Wakes whoever waits, without a GIL. */
static void *wake(void *unused) {
    while (GET(ending) < 2) {
        sem_t *next = __atomic_exchange_n(&given, NULL, __ATOMIC_SEQ_CST);
        if (next != NULL) {
            must(sem_post(next));
        }
        unpark();
        sched_yield();
    }
    return unused;
}

static void ignore(int unused) {
    (void)unused;
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
    for (int turn = 0; !GET(ending); turn++) {
        work(500);
        use_lock(turn);
        if (turn % 2 == 0) {
            wait_once();
        } else {
            park(turn);
        }
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
    must(sem_init(&lock, 0, 1));
    owned = 0;
    for (int turn = 0; turn < 20; turn++) {
        work(10);
        use_lock(turn);
    }
    must(sem_trywait(&lock));
    must(wait_for_lock(0) ? EDEADLK : 0);
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

static pthread_t threads[BUSY];

static void run_round(int number, const char *folder, int (*start)(const char *, unsigned, uint64_t, const void *),
                      void (*attach)(const char *, unsigned, uint64_t, uint64_t, int *, const void *),
                      void (*stop)(void)) {
    char where[512];
    pthread_t passing;
    int result = -1;
    snprintf(where, sizeof where, "%s/%d", folder, number);
    must(mkdir(where, 0777) == 0 ? 0 : errno);
    must(pthread_create(&passing, NULL, brief, NULL));
    unsigned how = (unsigned)(number % 3) << 16; /* recording, both, counting alone */
    if (number % 2 == 0) { /* as through ctypes: holding the GIL */
        take_gil();
        result = start(where, how, 0, NULL);
        drop_gil();
    } else {
        attach(where, how, 0, number % 4 == 1 ? 1 << 20 : 0, &result, NULL);
    }
    must(result == 0 ? 0 : EBUSY);
    for (unsigned long enough = GET(takes) + ROUND_TAKES; GET(takes) < enough;) {
        pthread_kill(threads[enough % BUSY], SIGUSR1);
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
    int (*start)(const char *, unsigned, uint64_t, const void *);
    void (*attach)(const char *, unsigned, uint64_t, uint64_t, int *, const void *);
    void (*stop)(void);
    *(void **)&start = dlsym(library, "giltrace_start");
    *(void **)&attach = dlsym(library, "giltrace_attach");
    *(void **)&stop = dlsym(library, "giltrace_stop");
    struct sigaction action = {.sa_handler = ignore};
    pthread_t waker;
    make_gil();
    must(sem_init(&lock, 0, 1) | sigaction(SIGUSR1, &action, NULL));
    must(pthread_create(&waker, NULL, wake, NULL));
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
    SET(ending, 2);
    must(pthread_join(waker, NULL));
    return 0;
}
