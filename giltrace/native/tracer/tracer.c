/* Entry points: what happens when the library is loaded, when its host forks, and what Python calls through ctypes. */
#include "clock.h"
#include "confine.h"
#include "cost.h"
#include "count.h"
#include "elf.h"
#include "file.h"
#include "gil.h"
#include "guard.h"
#include "locks.h"
#include "names.h"
#include "stacks.h"
#include "store.h"
#include "uses.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT void giltrace_stop(void);

static struct elf_object python;

/* "3.13.0 experimental free-threading build (main, ...) [GCC ...]" */
static void describe_python(struct plan *plan) {
    const char *(*version)(void);
    *(void **)&version = elf_symbol(&python, "Py_GetVersion", NULL);
    if (version != NULL) {
        snprintf(plan->python, sizeof plan->python, "%s", version());
        if (strstr(plan->python, "free-threading") != NULL) {
            plan->status |= GT_FREE_THREADED;
        }
    }
    *(void **)&plan->ready = elf_symbol(&python, "Py_IsInitialized", NULL);
}

/* Under Yama's ptrace_scope=1 only descendants may be read: let the recorder, and py-spy below it, read us. */
static void allow_recorder(void) {
    const char *recorder = getenv("GILTRACE_RECORDER");
    if (recorder != NULL && !file_confined()) {
        prctl(PR_SET_PTRACER, strtoul(recorder, NULL, 10), 0, 0, 0);
    }
}

/* Who begins or ends a recording has it to itself until that is done. */
enum { IDLE, CHANGING, ACTIVE };
enum { CLAIM_TRIES = 100000 };
static _Atomic int state;

/* Whether a GIL can be followed: all but the creation of threads and the end of a GIL must come by. */
static bool install(void) {
    bool complete = true;
    for (int i = 0; i < HOOK_COUNT; i++) {
        complete &= elf_hook(&python, &gil_hooks[i]) > 0 || i == HOOK_CREATE || i == HOOK_DESTROY;
    }
    for (int i = 0; complete && i < LOCKS_HOOK_COUNT; i++) {
        elf_hook(&python, &locks_hooks[i]);
    }
    return complete;
}

/* A process that takes no system calls any more keeps the hooks: they let everything pass. */
static void uninstall(void) {
    for (int i = LOCKS_HOOK_COUNT; i-- > 0 && !file_confined();) {
        elf_unhook(&locks_hooks[i]);
    }
    for (int i = HOOK_COUNT; i-- > 0 && !file_confined();) {
        elf_unhook(&gil_hooks[i]);
    }
    confine_stop();
}

/* The recording is over, or did not come about. What has been written stays as it is. */
static void end(void) {
    struct gt_header *header = store_header();
    uninstall();
    gil_end();
    store_close();
    stacks_stop(); /* with nowhere to write to, so that nobody begins the stacks anew in the old file */
    store_end(header);
}

/* The fork may have met a recording that was just beginning or ending, with locks held by threads that are not here. */
static void after_fork_child(void) {
    bool goes_on = state == ACTIVE;
    store_after_fork(goes_on);
    names_after_fork();
    stacks_after_fork();
    gil_after_fork();
    locks_after_fork();
    if (goes_on) {
        allow_recorder();
    } else if (state == CHANGING) {
        end();
        state = IDLE;
    }
}

static void obey(uint32_t control) {
    if ((control & GT_CONTROL_CONFINED) != 0) {
        store_confined();
    }
    if ((control & GT_CONTROL_STOP) != 0) {
        giltrace_stop();
    }
}

/* What stays true for as long as the process lives; the first recording finds it out, before there are hooks. */
static bool resolve(uintptr_t interpreter) {
    static bool resolved;
    if (!resolved && (interpreter != 0 ? elf_at(interpreter, &python) : elf_find_defining("_PyRuntime", &python))) {
        clock_choose();
        cost_calibrate();
        names_resolve(&python);
        gil_resolve(&python);
        gil_obey = obey;
        store_call_back(after_fork_child);
        resolved = pthread_atfork(NULL, NULL, after_fork_child) == 0;
    }
    return resolved;
}

static bool begin(const char *folder, unsigned depth, struct plan *plan, const struct confine_found *found) {
    if (!resolve(found != NULL ? found->interpreter : 0)) {
        return false;
    }
    describe_python(plan);
    names_start((plan->status & GT_FREE_THREADED) != 0);
    if (!store_open(folder, plan)) {
        return false;
    }
    allow_recorder();
    confine_start(found);
    stacks_start(&python, plan->python, depth);
    gil_start(plan);
    if (!install()) {
        store_note("the interpreter does not import the pthread functions that a GIL is made of");
        return false;
    }
    store_hooked();
    return true;
}

/* A child that was forked while the first recording began knows nothing of it: our handler came too late for that fork.
 * Of a child that nobody has looked after the guard tells, which is there before anything changes. */
static void find_out_whose(void) {
    if (guard_forked()) {
        after_fork_child();
    }
    guard_start();
}

/* A recording that ends says so in its file a little before it has ended: who has read that may begin the next one. */
static bool claim(void) {
    for (int tries = 0; tries < CLAIM_TRIES; tries++) {
        int idle = IDLE;
        if (atomic_compare_exchange_strong(&state, &idle, CHANGING)) {
            return true;
        }
        if (idle == ACTIVE) {
            return false;
        }
        sched_yield();
    }
    return false;
}

/* Trace this process from now on. Returns 0, or 1 if it is traced already, or 2, and nothing is changed, if it is none
 * that can be traced. `found` is what was found in its memory, NULL if nobody has looked. */
static int start(const char *folder, unsigned depth, struct plan *plan, const struct confine_found *found) {
    find_out_whose();
    if (!claim()) {
        return 1;
    }
    bool begun = begin(folder, depth, plan, found);
    if (!begun) {
        end();
    }
    state = begun ? ACTIVE : IDLE;
    return begun ? 0 : 2;
}

static uint64_t number_in(const char *variable) {
    const char *text = getenv(variable);
    return text == NULL ? 0 : strtoull(text, NULL, 10);
}

__attribute__((constructor)) static void loaded(void) {
    store_call_back(after_fork_child);
    const char *folder = getenv("GILTRACE_OUT");
    if (folder != NULL) {
        const char *count = getenv("GILTRACE_COUNT");
        struct plan plan = {
            .count = count == NULL                ? COUNT_NOTHING
                     : strcmp(count, "only") == 0 ? COUNT_ONLY
                                                  : COUNT_TOO,
            .ring_size = number_in("GILTRACE_RING"),
            .wait_limit = number_in("GILTRACE_WAIT_LIMIT"),
            .hold_limit = number_in("GILTRACE_HOLD_LIMIT"),
        };
        /* Without effect below the target where there is no Python. */
        start(folder, (unsigned)number_in("GILTRACE_STACKS"), &plan, NULL);
    }
}

/* How deep stacks are walked, and above that what becomes of what the hooks see. */
enum { DEPTH_BITS = 16 };

static int start_as(const char *folder, uint32_t how, struct plan *plan, const struct confine_found *found) {
    plan->count = how >> DEPTH_BITS;
    return start(folder, how & ((1u << DEPTH_BITS) - 1), plan, found);
}

/* For giltrace.trace() and giltrace.watch(): called through ctypes with the GIL held. Of a ring of this size (0: none)
 * only the newest events are kept. Returns 0, or 1 if tracing is already under way (by `giltrace record`, for one), or
 * 2 if it cannot be. */
EXPORT int giltrace_start(const char *folder, uint32_t how, uint64_t ring_size, const struct confine_found *found) {
    struct plan plan = {.ring_size = ring_size};
    return start_as(folder, how, &plan, found);
}

/* For `giltrace attach`: called in a thread of the process at a moment when it may load libraries and allocate memory,
 * with or without the GIL. `result` is what giltrace_start would return. Without a recorder that goes on renewing the
 * lease, tracing ends by itself. */
EXPORT void giltrace_attach(const char *folder, uint32_t how, uint64_t lease_ns, uint64_t ring_size, int *result,
                            const struct confine_found *found) {
    struct plan plan = {.lease_ns = lease_ns, .ring_size = ring_size};
    int saved_errno = errno;
    *result = start_as(folder, how, &plan, found);
    errno = saved_errno;
}

/* For `giltrace attach --dump-on`, once giltrace_attach has begun: tell of waits and holds that last longer than so
 * many ticks, 0 for none, until the recording ends. */
EXPORT void giltrace_limit(uint64_t wait, uint64_t hold) {
    uses_limit(wait, hold);
}

/* From outside, or from within a hook. */
EXPORT void giltrace_stop(void) {
    int saved_errno = errno;
    find_out_whose();
    int active = ACTIVE;
    if (atomic_compare_exchange_strong(&state, &active, CHANGING)) {
        end();
        state = IDLE;
    }
    errno = saved_errno;
}

/* The process is about to put a seccomp filter on, and what it allows is not known: from now on the hooks call the
 * kernel no more. */
EXPORT void giltrace_confining(void) {
    file_reserve();
}

/* For giltrace.trace(): has the process put a filter on, which may kill it for files that are opened? */
EXPORT bool giltrace_is_confined(void) {
    return file_confined();
}

/* For giltrace.trace(): the name of a thread that runs already. */
EXPORT void giltrace_name_thread(unsigned long ident, const char *name) {
    names_announce((pthread_t)ident, name);
}

/* For the recorder, through ctypes: out is {ticks, CLOCK_MONOTONIC ns, error ns}; returns enum gt_clock. */
EXPORT int giltrace_clock_pair(uint64_t out[3]) {
    clock_choose();
    clock_pair(&out[0], &out[1], &out[2]);
    return clock_is_tsc() ? GT_CLOCK_TSC : GT_CLOCK_MONOTONIC_NS;
}
