/* Hear of a seccomp filter before there is one, in a process that nothing was preloaded into.
 *
 * Libc's `prctl` and `syscall` lead to one, and libffi's `ffi_call`, by which ctypes and cffi call what they have asked
 * for long ago. Each is led to us, in the objects that import it, and in the symbol table of the object that defines
 * it, where whoever asks from now on will look. All hand over to the function itself, as their last act. */
#include "confine.h"

#include "elf.h"
#include "file.h"
#include "peek.h"

#include <linux/prctl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/syscall.h>

enum { WORDS_MAX = 1024 };

typedef int prctl_function(int, unsigned long, unsigned long, unsigned long, unsigned long);
typedef void ffi_function(const void *, void (*)(void), void *, void **);

/* In syscall.S, which needs the address of what it hands over to. */
void confine_syscall(void);
uintptr_t confine_next_syscall;

static _Atomic uintptr_t functions[CONFINE_FUNCTIONS];
static struct {
    void **place;
    void *found, *ours;
} taken[WORDS_MAX];
static unsigned taken_count;

static inline uintptr_t function(enum confine_function which) {
    return atomic_load_explicit(&functions[which], memory_order_acquire);
}

/* Not with "..." as in the header: in registers the arguments lie alike. */
static int confine_prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d) {
    if (option == PR_SET_SECCOMP) {
        file_reserve();
    }
    return ((prctl_function *)function(CONFINE_PRCTL))(option, a, b, c, d);
}

/* ffi_cif begins like this. */
struct ffi_call {
    int abi;
    unsigned count;
};

/* An argument as an integer: of its lowest bytes, which are enough. */
static int argument(const struct ffi_call *call, void **arguments, unsigned which) {
    return which < call->count ? *(const int *)arguments[which] : -1;
}

static bool leads_to_a_filter(const struct ffi_call *call, uintptr_t called, void **arguments) {
    if (called == function(CONFINE_PRCTL)) {
        return argument(call, arguments, 0) == PR_SET_SECCOMP;
    }
    if (called == function(CONFINE_SYSCALL)) {
        int number = argument(call, arguments, 0);
        return number == SYS_seccomp || (number == SYS_prctl && argument(call, arguments, 1) == PR_SET_SECCOMP);
    }
    return false;
}

/* Several libraries may bring one each. */
static inline void call_by(enum confine_function ffi, const void *call, void (*called)(void), void *result,
                           void **arguments) {
    if (leads_to_a_filter(call, (uintptr_t)called, arguments)) {
        file_reserve();
    }
    ((ffi_function *)function(ffi))(call, called, result, arguments);
}

static void ffi_0(const void *call, void (*called)(void), void *result, void **arguments) {
    call_by(CONFINE_FFI, call, called, result, arguments);
}

static void ffi_1(const void *call, void (*called)(void), void *result, void **arguments) {
    call_by(CONFINE_FFI + 1, call, called, result, arguments);
}

static void ffi_2(const void *call, void (*called)(void), void *result, void **arguments) {
    call_by(CONFINE_FFI + 2, call, called, result, arguments);
}

static void ffi_3(const void *call, void (*called)(void), void *result, void **arguments) {
    call_by(CONFINE_FFI + 3, call, called, result, arguments);
}

static uintptr_t ours(uint64_t which) {
    const uintptr_t all[CONFINE_FUNCTIONS] = {
        [CONFINE_PRCTL] = (uintptr_t)confine_prctl, [CONFINE_SYSCALL] = (uintptr_t)confine_syscall,
        [CONFINE_FFI] = (uintptr_t)ffi_0,           [CONFINE_FFI + 1] = (uintptr_t)ffi_1,
        [CONFINE_FFI + 2] = (uintptr_t)ffi_2,       [CONFINE_FFI + 3] = (uintptr_t)ffi_3,
    };
    return which < CONFINE_FUNCTIONS ? all[which] : 0;
}

/* Write to a place that may be gone since it was found, with the object that it was in. */
static bool exchange(void **place, const void *from, void *to) {
    void *now = NULL;
    return peek_own((uintptr_t)place, &now, sizeof now) && now == from && elf_write(place, to);
}

/* Lead to us what leads to these functions. `found` may be NULL: somebody else tells of filters. */
void confine_start(const struct confine_found *found) {
    taken_count = 0;
    for (unsigned i = 0; found != NULL && i < CONFINE_FUNCTIONS; i++) {
        atomic_store_explicit(&functions[i], found->functions[i], memory_order_release);
    }
    confine_next_syscall = function(CONFINE_SYSCALL);
    for (uint64_t i = 0; found != NULL && i < found->count && taken_count < WORDS_MAX; i++) {
        const struct confine_word *word = &found->words[i];
        void **place = (void **)word->place;
        void *before = (void *)word->found, *after = (void *)(ours(word->function) - word->base);
        if (ours(word->function) != 0 && function(word->function) != 0 && exchange(place, before, after)) {
            taken[taken_count].place = place;
            taken[taken_count].found = before;
            taken[taken_count++].ours = after;
        }
    }
}

/* Put back what was found, where ours still stands; in a process that takes no system calls any more, nothing. */
void confine_stop(void) {
    while (taken_count > 0 && !file_confined()) {
        taken_count--;
        exchange(taken[taken_count].place, taken[taken_count].ours, taken[taken_count].found);
    }
}
