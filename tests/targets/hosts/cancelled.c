/* Threads with a cancellation pending, which use the GIL where the bare interpreter has no cancellation point. Each
 * function returns 1 if its thread came through. */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
    int (*ensure)(void);
    void (*release)(int);
    void *(*save)(void);
    void (*restore)(void *);
} api;

void set(void *ensure, void *release, void *save, void *restore) {
    void **to = (void **)&api;
    to[0] = ensure, to[1] = release, to[2] = save, to[3] = restore;
}

static void use(int times) {
    for (int i = 0; i < times; i++) {
        api.restore(api.save());
    }
}

static void spare(void) {
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, 0);
}

static void *at_every_use(void *arg) {
    int state = api.ensure();
    pthread_cancel(pthread_self());
    use(20000);
    spare();
    api.release(state);
    return arg;
}

static void *in_a_child(void *arg) {
    int state = api.ensure(), status = -1;
    pid_t child = fork();
    if (child == 0) {
        pthread_cancel(pthread_self());
        use(2000);
        _exit(0);
    }
    waitpid(child, &status, 0);
    api.release(state);
    return status == 0 ? arg : 0;
}

static void *at_its_end(void *arg) {
    int state = api.ensure();
    use(10);
    api.release(state);
    pthread_cancel(pthread_self());
    return arg;
}

static int run(void *(*start)(void *)) {
    pthread_t thread;
    void *out = 0;
    pthread_create(&thread, 0, start, &api);
    pthread_join(thread, &out);
    return out == &api;
}

int every_use(void) {
    return run(at_every_use);
}
int child(void) {
    return run(in_a_child);
}
int end(void) {
    return run(at_its_end);
}
