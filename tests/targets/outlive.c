/* C threads that use the GIL for some time and end long after, without it. */
#include <pthread.h>
#include <semaphore.h>

enum { MOST = 200 };

static pthread_t threads[MOST];
static sem_t used, leave;
static int (*ensure)(void);
static void (*release)(int);

static void *use(void *times) {
    for (long i = 0; i < (long)times; i++) {
        release(ensure());
    }
    sem_post(&used);
    sem_wait(&leave);
    return NULL;
}

/* Thread i uses the GIL `times + i` times; returns once all have. */
void launch(int (*ensure_)(void), void (*release_)(int), long times, int count) {
    ensure = ensure_;
    release = release_;
    sem_init(&used, 0, 0);
    sem_init(&leave, 0, 0);
    for (int i = 0; i < count; i++) {
        pthread_create(&threads[i], NULL, use, (void *)(times + i));
    }
    for (int i = 0; i < count; i++) {
        sem_wait(&used);
    }
}

void finish(int count) {
    for (int i = 0; i < count; i++) {
        sem_post(&leave);
    }
    for (int i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
    }
}
