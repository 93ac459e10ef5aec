/* What makes a GIL: its members lie where they have lain since 3.2, hold what they must hold when the interpreter uses
 * them, and belong to an interpreter: they are part of `_PyRuntime`, as the first interpreter's are, or else the
 * interpreter of the thread state that has the GIL points to them. A program that is linked with libpython has
 * mutexes of its own in the same object: nothing of the kind counts that is not the interpreter's. */
#include "gils.h"

#include "layout.h"
#include "peek.h"

#include <string.h>

enum {
    STATE_INTERPRETER = 16, /* where a thread state has its interpreter's */
    INTERPRETER_SEARCHED = 4096,
    PIECE = 512, /* of it, read at once: stacks may be small */
    INTERVAL_MAX = 1000000000,
    INTERPRETERS_MAX = 100000,
};

static struct gil gils[GT_MAX_GILS];
static _Atomic uint32_t gil_count;
static uintptr_t runtime_start, runtime_end;

void gils_resolve(const struct elf_object *python) {
    size_t size = 0;
    runtime_start = (uintptr_t)elf_symbol(python, "_PyRuntime", &size);
    runtime_end = runtime_start + size;
}

/* The GIL that has a member of its own at `address`, `offset` bytes from its start; NULL if none that is known has. */
struct gil *gils_with(uintptr_t address, size_t offset) {
    uint32_t count = atomic_load_explicit(&gil_count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++) {
        if (atomic_load_explicit(&gils[i].place, memory_order_relaxed) == address - offset) {
            return &gils[i];
        }
    }
    return NULL;
}

bool gils_in_runtime(uintptr_t place) {
    return place >= runtime_start && place < runtime_end && runtime_end - place >= sizeof(struct gil_state);
}

/* Does the interpreter state say that this is its GIL? */
static bool is_pointed_to(uintptr_t interpreter, uintptr_t place) {
    uintptr_t words[PIECE / sizeof(uintptr_t)];
    for (uintptr_t at = interpreter; at < interpreter + INTERPRETER_SEARCHED; at += PIECE) {
        if (!peek_own(at, words, PIECE)) {
            return false;
        }
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
            if (words[i] == place) {
                return true;
            }
        }
    }
    return false;
}

/* Is it a GIL, that the calling thread uses and has locked A of? `locked`: it is the thread's, or another's. Tells the
 * interpreter that owns it; 0 if it is part of the runtime. */
bool gils_is_one(uintptr_t place, bool locked, uintptr_t *interpreter) {
    struct gil_state state;
    if (place % _Alignof(struct gil_state) != 0 || !peek_own(place, &state, offsetof(struct gil_state, cond)) ||
        state.interval - 1 >= INTERVAL_MAX - 1 || state.last_holder == 0 || state.locked != locked ||
        state.switch_number == 0) {
        return false;
    }
    *interpreter = 0;
    return gils_in_runtime(place) ||
           (peek_own(state.last_holder + STATE_INTERPRETER, interpreter, sizeof *interpreter) &&
            *interpreter % sizeof *interpreter == 0 && is_pointed_to(*interpreter, place));
}

/* Has the interpreter ended? Its GIL goes with it, and nobody destroys the mutexes. Where the list of those that live
 * begins is published from 3.13 on; in 3.12, the first version to have more than one GIL, it is known. */
static bool has_ended(uintptr_t interpreter) {
    const uint64_t *words = (const uint64_t *)runtime_start;
    bool published = memcmp(words, "xdebugpy", sizeof *words) == 0;
    uintptr_t head = published ? words[5] : 40, next = published ? words[8] : 0;
    uintptr_t at = runtime_start + head - next;
    for (int i = 0; interpreter != 0 && i < INTERPRETERS_MAX; i++) {
        if (!peek_own(at + next, &at, sizeof at) || at == interpreter) {
            return false;
        }
        if (at == 0) {
            return true;
        }
    }
    return false;
}

/* Free the slots of GILs that ended without a word. */
static void sweep(void) {
    for (uint32_t i = 0; i < GT_MAX_GILS; i++) {
        uintptr_t place = atomic_load(&gils[i].place);
        if (has_ended(atomic_load(&gils[i].interpreter))) {
            atomic_compare_exchange_strong(&gils[i].place, &place, 0);
        }
    }
}

/* The first one is that of the runtime's: of the main interpreter, whichever is met first. */
static struct gil *take_slot(uintptr_t place, uintptr_t interpreter) {
    for (uint32_t i = interpreter == 0 ? 0 : 1; i < GT_MAX_GILS; i++) {
        uintptr_t none = 0;
        if (atomic_compare_exchange_strong(&gils[i].place, &none, place)) {
            gils[i].id = (uint16_t)i;
            gils[i].generation = 0;
            atomic_store(&gils[i].interpreter, interpreter);
            uint32_t count = atomic_load(&gil_count);
            while (count < i + 1 && !atomic_compare_exchange_weak(&gil_count, &count, i + 1)) {
            }
            return &gils[i];
        }
    }
    return NULL;
}

/* A slot for a GIL whose A the caller has locked; NULL if all are taken. */
struct gil *gils_learn(uintptr_t place, uintptr_t interpreter) {
    struct gil *gil = take_slot(place, interpreter);
    if (gil == NULL) {
        sweep();
        gil = take_slot(place, interpreter);
    }
    return gil;
}

void gils_forget(struct gil *gil) {
    atomic_store_explicit(&gil->place, 0, memory_order_release);
}
