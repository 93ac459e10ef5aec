/* Which memory of this process is a piece of one of our files: what a signal's handler looks an address up in.
 *
 * One word per piece in a table of fixed size, so that nobody needs a lock: where it begins (a multiple of 4096), the
 * power of two of its pages, and who is at it. A piece stands within a few places of where its address says, so to add
 * and to remove one costs the same however many there are; only who looks for an address reads the whole table.
 *
 * Two may want the same piece gone: its owner, who unmaps it, and whoever replaces it by memory of no file. Unmapped
 * by the one, the addresses may be somebody else's before the other gets there; so the word passes from hand to hand.
 */
#include "pieces.h"

#include "system.h"

#include <stdatomic.h>
#include <sys/mman.h>

enum {
    PIECES_LOG = 16,
    PIECES = 1 << PIECES_LOG, /* as many mappings as Linux grants a process by default */
    NEAR = 64,                /* places that a piece may stand in */
    PAGE = 4096,
    SIZE_SHIFT = 2,
    SIZE_MASK = 31,
    OWNER_MASK = 3,
};

enum owner {
    OWNED = 1,     /* by who mapped it */
    REPLACING = 2, /* somebody puts other memory, or another file's, in its place */
    REPLACED = 3,  /* that is done: no piece of a file any more, for its owner to unmap */
    LEFT = 0,      /* its owner came by meanwhile: who replaces it unmaps it */
};

static _Atomic uintptr_t table[PIECES];

static uintptr_t base_of(uintptr_t word) {
    return word & ~(uintptr_t)(PAGE - 1);
}

static size_t size_of(uintptr_t word) {
    return (size_t)PAGE << (word >> SIZE_SHIFT & SIZE_MASK);
}

static uintptr_t owned_by(uintptr_t word, enum owner owner) {
    return (word & ~(uintptr_t)OWNER_MASK) | (uintptr_t)owner;
}

static _Atomic uintptr_t *place(uintptr_t base, unsigned step) {
    uint64_t hash = (base / PAGE) * 0x9E3779B97F4A7C15ull >> (64 - PIECES_LOG);
    return &table[(hash + step) % PIECES];
}

static _Atomic uintptr_t *find(uintptr_t base) {
    for (unsigned step = 0; step < NEAR; step++) {
        _Atomic uintptr_t *slot = place(base, step);
        if (base_of(atomic_load(slot)) == base) {
            return slot;
        }
    }
    return NULL;
}

static void unmap(uintptr_t word) {
    system_call(SYS_munmap, (long)base_of(word), (long)size_of(word), 0, 0, 0, 0);
}

/* `size` is a power of two of pages. False if there is no room, which takes tens of thousands of pieces. */
bool pieces_add(void *base, size_t size) {
    uintptr_t word = owned_by((uintptr_t)base | (uintptr_t)__builtin_ctzl(size / PAGE) << SIZE_SHIFT, OWNED);
    _Atomic uintptr_t *known = find((uintptr_t)base); /* taken before, so that this one could be mapped over it */
    if (known != NULL) {
        atomic_store(known, word);
        return true;
    }
    for (unsigned step = 0; step < NEAR; step++) {
        uintptr_t none = 0;
        if (atomic_compare_exchange_strong(place((uintptr_t)base, step), &none, word)) {
            return true;
        }
    }
    return false;
}

/* Another is to be mapped over what is at `base`, by its owner, who says by `pieces_add` or `pieces_keep` how it went.
 * False if somebody is replacing it right now, and would not notice. */
bool pieces_take(void *base) {
    _Atomic uintptr_t *slot = find((uintptr_t)base);
    uintptr_t word = slot == NULL ? 0 : atomic_load(slot);
    while (word != 0) {
        if ((word & OWNER_MASK) == REPLACING) {
            return false;
        }
        if (atomic_compare_exchange_strong(slot, &word, owned_by(word, REPLACING))) {
            return true;
        }
    }
    return true; /* memory that was never a file's */
}

void pieces_keep(void *base) {
    _Atomic uintptr_t *slot = find((uintptr_t)base);
    if (slot != NULL) {
        atomic_store(slot, owned_by(atomic_load(slot), OWNED));
    }
}

/* Its owner wants it gone: true if it is to unmap it. */
bool pieces_remove(void *base) {
    _Atomic uintptr_t *slot = find((uintptr_t)base);
    uintptr_t word = slot == NULL ? 0 : atomic_load(slot);
    while (word != 0) {
        bool replacing = (word & OWNER_MASK) == REPLACING;
        if (atomic_compare_exchange_strong(slot, &word, replacing ? owned_by(word, LEFT) : 0)) {
            return !replacing;
        }
    }
    return false;
}

/* Memory of no file, empty, at the same addresses. False if it was done before, or the kernel refuses. */
static bool replace(_Atomic uintptr_t *slot, uintptr_t word) {
    uintptr_t expected = owned_by(word, OWNED);
    if (!atomic_compare_exchange_strong(slot, &expected, owned_by(word, REPLACING))) {
        return false;
    }
    long memory = system_call(SYS_mmap, (long)base_of(word), (long)size_of(word), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    enum owner next = system_failed(memory) ? OWNED : REPLACED;
    expected = owned_by(word, REPLACING);
    if (!atomic_compare_exchange_strong(slot, &expected, owned_by(word, next))) {
        unmap(word);
        atomic_store(slot, 0);
    }
    return next == REPLACED;
}

/* From a signal's handler: what lies at `address` has lost its file. If it is a piece, it can be used again. */
enum pieces_found pieces_replace(uintptr_t address) {
    for (unsigned i = 0; i < PIECES; i++) {
        uintptr_t word = atomic_load(&table[i]);
        if (word != 0 && address - base_of(word) < size_of(word)) {
            if (replace(&table[i], word)) {
                return PIECES_NOW;
            }
            return (atomic_load(&table[i]) & OWNER_MASK) == OWNED ? PIECES_NONE : PIECES_BEFORE;
        }
    }
    return PIECES_NONE;
}

/* Leave no file mapped. Who still writes to a piece writes to memory that nobody reads. */
void pieces_replace_all(void) {
    for (unsigned i = 0; i < PIECES; i++) {
        uintptr_t word = atomic_load(&table[i]);
        if (word != 0) {
            replace(&table[i], word);
        }
    }
}

/* In a forked child, where nobody is replacing anything. */
void pieces_after_fork(void) {
    for (unsigned i = 0; i < PIECES; i++) {
        uintptr_t word = atomic_load(&table[i]);
        if (word != 0 && (word & OWNER_MASK) == LEFT) {
            unmap(word);
            atomic_store(&table[i], 0);
        } else if ((word & OWNER_MASK) == REPLACING) {
            atomic_store(&table[i], owned_by(word, OWNED));
        }
    }
}
