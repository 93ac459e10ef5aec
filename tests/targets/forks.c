/* Threads that fork all the time, and each child loads a library: `begin` and `end`, which returns how many there were
 * and waits for all of them. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 3 };

static pthread_t threads[THREADS];
static _Atomic int children, ending;

static void *fork_on_and_on(void *library) {
    while (!ending) {
        int status = -1;
        pid_t child = fork();
        if (child == 0) {
            _exit(dlopen(library, RTLD_NOW) == NULL);
        }
        if (waitpid(child, &status, 0) != child || status != 0) {
            abort();
        }
        children++;
    }
    return NULL;
}

void begin(char *library) {
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, fork_on_and_on, library);
    }
}

int end(void) {
    ending = 1;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    return children;
}
