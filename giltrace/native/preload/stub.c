/* What LD_PRELOAD names: in every program below the target, of whatever kind. It needs no library and no symbol, and
 * does nothing but load the tracer where there is an interpreter: at the start, where the program is linked with one,
 * or when one that was loaded by dlopen makes its first steps. */
#include "../tracer/store.h"
#include "calls.h"
#include "leaf.h"
#include "libc.h"
#include "object.h"
#include "text.h"

#include <linux/limits.h>
#include <stdatomic.h>

#if defined(__x86_64__)
#define MACHINE "x86_64"
#else
#define MACHINE "aarch64"
#endif

/* The tracer's, which finds it here: room in the block that threads have from their start, of which the loader has
 * little left for what is loaded later, and which other libraries may need. */
__thread struct thread self = SELF_BEGINS_AS;

static const char *folder;
static atomic_flag loading = ATOMIC_FLAG_INIT;

static const char *variable(const char *name) {
    for (char **entry = &environ != NULL ? environ : NULL; entry != NULL && *entry != NULL; entry++) {
        const char *at = *entry, *wanted = name;
        for (; *wanted != 0 && *at == *wanted; at++, wanted++) {
        }
        if (*wanted == 0 && *at == '=') {
            return at + 1;
        }
    }
    return NULL;
}

/* preload/MACHINE/PLATFORM/NAME is ours, and the tracers are where preload/ is. */
static bool find_tracer(char *out, size_t size) {
    Dl_info info;
    if (dladdr == NULL || dladdr((void *)&folder, &info) == 0 || info.dli_fname == NULL) {
        return false;
    }
    struct text text = text_begin(out, size);
    text_add(&text, info.dli_fname);
    for (int level = 0; level < 4; level++) {
        while (text.at > out && *--text.at != '/') {
        }
        *text.at = 0;
    }
    text_add(&text, "/libgiltrace-" MACHINE);
    text_add(&text, libc_is_musl() ? "-musl.so" : "-glibc.so");
    return !text.cut;
}

static void load_tracer(void) {
    if (dlopen == NULL || dlsym == NULL || !(libc_is_glibc() || libc_is_musl()) || atomic_flag_test_and_set(&loading)) {
        return;
    }
    char path[PATH_MAX];
    void *tracer = find_tracer(path, sizeof path) ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (tracer == NULL) {
        if (dlerror != NULL) {
            dlerror();
        }
        leaf_note(folder, libc_is_musl() ? "the tracer for musl was not built, or cannot be read by this process"
                                         : "the tracer for glibc was not built, or cannot be read by this process");
        return;
    }
    void (*confining)(void) = NULL;
    *(void **)&confining = dlsym(tracer, "giltrace_confining");
    if (confining == NULL && dlerror != NULL) {
        dlerror();
    }
    atomic_store_explicit(&calls_confining, confining, memory_order_release);
}

static void clock_chosen(uintptr_t caller) {
    static _Atomic uintptr_t known; /* to be none: programs that choose a clock often do so at one place */
    if (caller == atomic_load_explicit(&known, memory_order_relaxed)) {
        return;
    }
    if (object_at_defines(caller, "_PyRuntime")) {
        atomic_store_explicit(&calls_clock_chosen, NULL, memory_order_relaxed);
        int error = libc_errno();
        load_tracer();
        libc_set_errno(error);
    } else {
        atomic_store_explicit(&known, caller, memory_order_relaxed);
    }
}

__attribute__((constructor)) static void loaded(void) {
    int error = libc_errno();
    calls_resolve();
    folder = variable("GILTRACE_OUT");
    if (folder != NULL && &_PyRuntime != NULL) {
        load_tracer();
    } else if (folder != NULL) {
        leaf_not_python(folder);
        atomic_store_explicit(&calls_clock_chosen, clock_chosen, memory_order_release);
    }
    libc_set_errno(error);
}
