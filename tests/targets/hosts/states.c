/* What an embedder may do with thread states. Loaded by Python through ctypes, so the API is in the process already. */
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

typedef struct state state;
extern void *PyInterpreterState_Head(void);
extern state *PyThreadState_New(void *), *PyThreadState_Swap(state *);
extern void PyThreadState_Clear(state *), PyThreadState_Delete(state *), PyEval_AcquireThread(state *);
extern void PyEval_ReleaseThread(state *);
extern state *PyEval_SaveThread(void);
extern void PyEval_RestoreThread(state *);
extern int PyRun_SimpleString(const char *);
extern unsigned long PyThread_start_new_thread(void (*)(void *), void *);

static state *first;
static const char *program;
static sem_t made, deleted;

static void give_up(state *own) {
    PyThreadState_Clear(own);
    PyEval_ReleaseThread(own);
    PyThreadState_Delete(own);
}

static void run(state *own) {
    PyEval_AcquireThread(own);
    PyRun_SimpleString(program);
}

static void *embedder(void *unused) {
    (void)unused;
    first = PyThreadState_New(PyInterpreterState_Head());
    run(first);
    PyEval_ReleaseThread(first);
    sem_post(&made);
    sem_wait(&deleted);
    state *second = PyThreadState_New(PyInterpreterState_Head());
    run(second);
    PyEval_ReleaseThread(second);
    run(second);
    give_up(second);
    return NULL;
}

/* A thread runs `source` in two states of its own; between, another thread deletes the one that the thread's own data
 * point to, and its memory serves other ends. Called with the GIL. */
void dangle(const char *source) {
    pthread_t thread;
    state *own = PyEval_SaveThread();
    program = source;
    sem_init(&made, 0, 0);
    sem_init(&deleted, 0, 0);
    pthread_create(&thread, NULL, embedder, NULL);
    sem_wait(&made);
    PyEval_RestoreThread(own);
    PyThreadState_Clear(first);
    PyThreadState_Delete(first);
    own = PyEval_SaveThread();
    static char *kept[2000];
    for (int i = 0; i < 2000; i++) {
        size_t size = 96 + 8 * (size_t)(i % 250);
        kept[i] = memset(malloc(size), 0x55, size);
    }
    sem_post(&deleted);
    pthread_join(thread, NULL);
    for (int i = 0; i < 2000; i++) {
        free(kept[i]);
    }
    PyEval_RestoreThread(own);
}

static sem_t ended;

static void body(void *unused) {
    (void)unused;
    sem_post(&ended);
}

/* Start a thread while no thread state is current; up to 3.11 the GIL stays held. Called with the GIL. */
void start_without_state(void) {
    sem_init(&ended, 0, 0);
    state *own = PyThreadState_Swap(NULL);
    PyThread_start_new_thread(body, NULL);
    sem_wait(&ended);
    PyThreadState_Swap(own);
}
