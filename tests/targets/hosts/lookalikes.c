/* A host whose own locks look like GILs: two mutexes, one taken within the other, and a condition signalled in both;
 * and a structure with the very members of a GIL, filled with what a GIL holds, used as a GIL is. Then Python runs
 * beside them. The answers that odd mutexes give are checked too: in a program that is linked with libpython
 * statically, they pass through whatever is in the interpreter's way. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

struct queue {
    pthread_mutex_t outer, inner;
    pthread_cond_t filled;
};

struct ticket {
    unsigned long interval;
    void *owner;
    int taken;
    unsigned long number;
    pthread_cond_t free;
    pthread_mutex_t guard;
    pthread_cond_t gone;
    pthread_mutex_t going;
};

enum { QUEUES = 80, TICKETS = 4, TURNS = 50 };

static struct queue queues[QUEUES];
static struct ticket near_[TICKETS];
static struct ticket *tickets[2 * TICKETS];

static void expect(int is, int wanted, const char *what) {
    if (is != wanted) {
        printf("%s: %d instead of %d\n", what, is, wanted);
        exit(1);
    }
}

static void use_queue(struct queue *queue) {
    pthread_mutex_lock(&queue->outer);
    pthread_mutex_lock(&queue->inner);
    pthread_cond_signal(&queue->filled);
    pthread_mutex_unlock(&queue->inner);
    pthread_mutex_unlock(&queue->outer);
}

static void use_ticket(struct ticket *ticket) {
    pthread_mutex_lock(&ticket->guard);
    if (ticket->taken) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec = (until.tv_nsec + 100000) % 1000000000;
        pthread_cond_timedwait(&ticket->free, &ticket->guard, &until);
    }
    pthread_mutex_lock(&ticket->going);
    ticket->taken = 1;
    ticket->number++;
    pthread_cond_signal(&ticket->gone);
    pthread_mutex_unlock(&ticket->going);
    pthread_mutex_unlock(&ticket->guard);
    pthread_mutex_lock(&ticket->guard);
    ticket->taken = 0;
    pthread_cond_signal(&ticket->free);
    pthread_mutex_unlock(&ticket->guard);
}

static void *use_all(void *unused) {
    for (int turn = 0; turn < TURNS; turn++) {
        for (int i = 0; i < QUEUES; i++) {
            use_queue(&queues[i]);
        }
        for (int i = 0; i < 2 * TICKETS; i++) {
            use_ticket(tickets[i]);
        }
    }
    return unused;
}

/* `owner` is a thread state that lives. */
static void make_all(void *owner) {
    for (int i = 0; i < QUEUES; i++) {
        pthread_mutex_init(&queues[i].outer, NULL);
        pthread_mutex_init(&queues[i].inner, NULL);
        pthread_cond_init(&queues[i].filled, NULL);
    }
    for (int i = 0; i < 2 * TICKETS; i++) {
        tickets[i] = i < TICKETS ? &near_[i] : malloc(sizeof *tickets[i]);
        *tickets[i] = (struct ticket){.interval = 5000, .owner = owner, .taken = i % 2, .number = 1};
        pthread_cond_init(&tickets[i]->free, NULL);
        pthread_mutex_init(&tickets[i]->guard, NULL);
        pthread_cond_init(&tickets[i]->gone, NULL);
        pthread_mutex_init(&tickets[i]->going, NULL);
    }
}

static void make(pthread_mutex_t *mutex, int type, int robust) {
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, type);
    pthread_mutexattr_setrobust(&attr, robust);
    pthread_mutex_init(mutex, &attr);
    pthread_mutexattr_destroy(&attr);
}

static void *dies_with(void *mutex) {
    pthread_mutex_lock(mutex);
    return mutex;
}

static void check_answers(void) {
    pthread_mutex_t mutex;
    pthread_t thread;
    make(&mutex, PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_STALLED);
    expect(pthread_mutex_lock(&mutex), 0, "recursive, once");
    expect(pthread_mutex_lock(&mutex), 0, "recursive, again");
    expect(pthread_mutex_unlock(&mutex), 0, "recursive, once less");
    expect(pthread_mutex_destroy(&mutex), EBUSY, "destroyed while held");
    expect(pthread_mutex_unlock(&mutex), 0, "recursive, no more");
    expect(pthread_mutex_unlock(&mutex), EPERM, "not held");
    make(&mutex, PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_STALLED);
    expect(pthread_mutex_lock(&mutex), 0, "checked, once");
    expect(pthread_mutex_lock(&mutex), EDEADLK, "checked, again");
    expect(pthread_mutex_trylock(&mutex), EBUSY, "checked, tried");
    expect(pthread_mutex_unlock(&mutex), 0, "checked, no more");
    make(&mutex, PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ROBUST);
    pthread_create(&thread, NULL, dies_with, &mutex);
    pthread_join(thread, NULL);
    expect(pthread_mutex_lock(&mutex), EOWNERDEAD, "left by its owner");
    expect(pthread_mutex_unlock(&mutex), 0, "given up for good");
    expect(pthread_mutex_lock(&mutex), ENOTRECOVERABLE, "beyond repair");
}

int main(void) {
    pthread_t thread;
    make_all(&thread);
    use_all(NULL);
    Py_InitializeEx(0);
    make_all(PyThreadState_Get());
    pthread_create(&thread, NULL, use_all, NULL);
    use_all(NULL);
    int failed = PyRun_SimpleString("import threading, time\n"
                                    "def work():\n"
                                    "    for _ in range(100): time.sleep(0.001)\n"
                                    "threads = [threading.Thread(target=work, name='worker') for _ in range(3)]\n"
                                    "for t in threads: t.start()\n"
                                    "work()\n"
                                    "for t in threads: t.join()\n");
    pthread_join(thread, NULL);
    check_answers();
    return failed || Py_FinalizeEx() != 0;
}
