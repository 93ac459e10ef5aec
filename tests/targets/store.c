/* Uses the tracer's store as the hooks do, without a Python. The first argument says how, the second is a folder.
 *
 * between   events between two recordings, then one recording with 1000 of them
 * series    threads that hardly pause beside 20 recordings: prints "recording tid events" of what each must have
 * ring      the same with a ring
 * cut       threads beside recordings whose files are cut off all the time
 * child     one recording, whose process forks with a piece of another file mapped, which the child gives back late
 * confined, confined-ring   one recording, of a process that confines itself: prints the same
 * brief     one recording of many threads that end soon; their process forks amid them, and the child does the same:
 *           prints the same, of the child as of recording 1
 * together, together-ring   blocks, some with words before them, at times that go on by leaps
 * regrown   threads that end soon before and after their file is cut off, while the first one makes it grow again:
 *           prints the same, of those after as of recording 1
 * brief-confined   without the child, but the process confines itself amid them */
#include "store.h"
#include "file.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 6, RECORDINGS = 20, LEAST = 300 };

static struct {
    _Atomic uint64_t events;
    _Atomic int tid;
    char apart[48];
} counters[THREADS];
static _Atomic bool ended;

static void hook(void) {
    store_check(&self);
    store_number(&self, clock_ticks(), GT_STACK, 1);
    store_emit(&self, clock_ticks(), GT_ACQUIRE, 0, GT_NO_CORE, 0);
    if (store_control() != 0) { /* which reads the head */
        abort();
    }
}

static void *use(void *counter) {
    _Atomic uint64_t *events = counter;
    counters[(size_t)((char *)counter - (char *)counters) / sizeof counters[0]].tid = (int)gettid();
    while (!ended) {
        hook();
        if (atomic_fetch_add(events, 1) % 64 == 0) {
            usleep(100); /* or the recordings are as large as the machine is slow */
        }
    }
    return NULL;
}

static int is_ready(void) {
    return 1;
}

static const char *begin(const char *folder, int number, uint64_t ring) {
    static char path[4096];
    struct plan plan = {.ring_size = ring, .ready = is_ready, .python = "3.11.0"};
    snprintf(path, sizeof path, "%s/%d", folder, number);
    mkdir(path, 0755);
    if (!store_open(path, &plan)) {
        abort();
    }
    return path;
}

static void end(void) {
    struct gt_header *head = store_header();
    store_close();
    store_end(head);
}

static void in_child(void) {
    store_after_fork(true);
}

static void between(const char *folder) {
    begin(folder, 0, 0);
    hook();
    end();
    for (int i = 0; i < 1000; i++) {
        hook();
    }
    begin(folder, 1, 0);
    for (int i = 0; i < 1000; i++) {
        hook();
    }
    end();
}

/* Until every thread has done something more. */
static void wait_for(uint64_t *seen) {
    for (int i = 0; i < THREADS; i++) {
        while (counters[i].events < seen[i] + LEAST) {
            sched_yield();
        }
    }
}

static void note(uint64_t *seen) {
    for (int i = 0; i < THREADS; i++) {
        seen[i] = counters[i].events;
    }
}

static void cut(const char *path) {
    char name[4200];
    for (int image = 0; image < 3; image++) {
        snprintf(name, sizeof name, "%s/gil-%d-%d.bin", path, (int)getpid(), image);
        if (truncate(name, image % 2 == 0 ? 0 : GT_HEADER_SIZE) != 0 && image == 0) {
            abort();
        }
        usleep(300);
    }
}

static void beside(const char *folder, uint64_t ring, bool cuts) {
    pthread_t threads[THREADS];
    uint64_t before[THREADS], after[THREADS] = {0};
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, use, &counters[i].events);
    }
    for (int number = 0; number < RECORDINGS; number++) {
        const char *path = begin(folder, number, ring);
        note(before);
        if (cuts) {
            cut(path);
        }
        wait_for(before);
        note(after);
        end();
        for (int i = 0; i < THREADS; i++) {
            /* The first may have begun before. */
            printf("%d %d %llu\n", number, counters[i].tid, (unsigned long long)(after[i] - before[i] - 1));
        }
        wait_for(after);
    }
    ended = true;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
}

static void child(const char *folder) {
    char name[4200];
    snprintf(name, sizeof name, "%s/piece", begin(folder, 0, 0));
    void *piece = file_map(name, 0, 4096, true, NULL);
    hook();
    if (piece == NULL) {
        abort();
    }
    pid_t made = fork();
    if (made == 0) {
        in_child();
        hook();
        file_unmap(piece, 4096);
        for (int i = 1; i < 3000; i++) {
            hook();
        }
        _exit(0);
    }
    int status = -1;
    waitpid(made, &status, 0);
    if (status != 0) {
        abort();
    }
    end();
}

static void confined(const char *folder, uint64_t ring) {
    pthread_t threads[THREADS];
    uint64_t after[THREADS];
    begin(folder, 0, ring);
    for (int i = 0; i < THREADS; i++) {
        if (i == THREADS / 2) {
            file_reserve();
        }
        pthread_create(&threads[i], NULL, use, &counters[i].events);
    }
    for (int round = 0; round < 10; round++) {
        note(after);
        wait_for(after);
    }
    ended = true;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    note(after);
    for (int i = 0; i < THREADS; i++) {
        printf("0 %d %llu\n", counters[i].tid, (unsigned long long)after[i]);
    }
    end();
}

struct brief {
    int events, tid;
};

static void *use_briefly(void *how) {
    struct brief *brief = how;
    brief->tid = (int)gettid();
    for (int i = 0; i < brief->events; i++) {
        hook();
    }
    return NULL;
}

/* Threads of 1 to 40 events, some at a time, told of as of a recording `number`. */
static void start_briefly(int count, int number) {
    pthread_t threads[THREADS];
    struct brief briefs[THREADS];
    for (int done = 0; done < count; done += THREADS) {
        for (int i = 0; i < THREADS; i++) {
            briefs[i].events = 1 + (done + i) % 40;
            pthread_create(&threads[i], NULL, use_briefly, &briefs[i]);
        }
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
            printf("%d %d %d\n", number, briefs[i].tid, briefs[i].events);
        }
    }
    fflush(stdout);
}

/* Pieces of the recording's file that are mapped. */
static int mapped(void) {
    char line[5000];
    int found = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
        found += strstr(line, "/gil-") != NULL;
    }
    fclose(maps);
    return found;
}

/* From a thread that has a small chunk, which its parent goes on with. */
static void *fork_briefly(void *unused) {
    hook();
    fflush(stdout);
    pid_t made = fork();
    if (made == 0) {
        in_child();
        hook();
        printf("1 %d 1\n", (int)gettid());
        start_briefly(500, 1);
        _exit(0);
    }
    int status = -1;
    waitpid(made, &status, 0);
    if (status != 0) {
        abort();
    }
    hook();
    printf("0 %d 2\n", (int)gettid());
    return unused;
}

static void brief(const char *folder, bool confines) {
    pthread_t forks;
    begin(folder, 0, 0);
    hook();
    printf("0 %d 1\n", (int)gettid());
    start_briefly(1500, 0);
    if (confines) {
        file_reserve();
    } else {
        pthread_create(&forks, NULL, fork_briefly, NULL);
        pthread_join(forks, NULL);
    }
    start_briefly(1500, 0);
    if (!confines && mapped() > 4) { /* the head, the first thread's chunk, and the stretch for those to come */
        abort();
    }
    end();
}

/* The first chunk stays, so that nobody alive misses anything. */
static void regrown(const char *folder) {
    char name[4200];
    snprintf(name, sizeof name, "%s/gil-%d-0.bin", begin(folder, 0, 0), (int)getpid());
    hook();
    start_briefly(THREADS, 0);
    if (truncate(name, GT_HEADER_SIZE + GT_LEAST_CHUNK) != 0) {
        abort();
    }
    for (int i = 0; i < LEAST; i++) {
        hook();
    }
    start_briefly(10 * THREADS, 1);
    end();
}

/* Each block says in its addresses which one it is. The recording ends where the leaps of its clock do. */
static void together(const char *folder, uint64_t ring) {
    begin(folder, 0, ring);
    uint64_t time = clock_ticks();
    store_check(&self);
    for (uint32_t number = 1; number <= 20000; number++) {
        time += number % 977 == 0 ? (uint64_t)1 << (GT_TIME_BITS - number % 2) : 100;
        uint32_t held = number % 7 % (HELD_MAX + 1);
        if (!store_together(&self, time, HELD_MAX + 4)) {
            abort();
        }
        if (number % 3 == 0) {
            self.stack = number;
            store_number(&self, time, GT_STACK, number);
        }
        for (uint32_t i = 0; i < held; i++) {
            store_address(&self, time, GT_HELD, (uintptr_t)number << 26 | i);
        }
        if (number % 2 == 0) {
            store_address(&self, time, GT_LOCK, (uintptr_t)number << 26 | 1 << 20);
        }
        store_address(&self, time, GT_SEMAPHORE, (uintptr_t)number << 26 | 1 << 21);
        store_emit(&self, time, GT_THREAD_END, GT_BLOCK, number % 8, 0);
        if (number % 5 == 0) {
            store_emit(&self, time, GT_THREAD_END, GT_BLOCK_END, 0, 0);
        }
    }
    end();
}

int main(int count, char **words) {
    store_call_back(in_child);
    clock_choose();
    if (count != 3) {
        return 2;
    }
    if (strcmp(words[1], "between") == 0) {
        between(words[2]);
    } else if (strcmp(words[1], "series") == 0) {
        beside(words[2], 0, false);
    } else if (strcmp(words[1], "ring") == 0) {
        beside(words[2], 1 << 18, false);
    } else if (strcmp(words[1], "cut") == 0) {
        beside(words[2], 0, true);
    } else if (strcmp(words[1], "child") == 0) {
        child(words[2]);
    } else if (strcmp(words[1], "confined") == 0) {
        confined(words[2], 0);
    } else if (strcmp(words[1], "confined-ring") == 0) {
        confined(words[2], 1 << 18);
    } else if (strcmp(words[1], "brief") == 0) {
        brief(words[2], false);
    } else if (strcmp(words[1], "brief-confined") == 0) {
        brief(words[2], true);
    } else if (strcmp(words[1], "together") == 0) {
        together(words[2], 0);
    } else if (strcmp(words[1], "together-ring") == 0) {
        together(words[2], 1 << 18);
    } else if (strcmp(words[1], "regrown") == 0) {
        regrown(words[2]);
    }
    return 0;
}
