/* Pieces of the file that the small chunks of many threads share: mapped once, and unmapped by the last who leaves.
 *
 * Who uses a piece is counted here, not in the piece, whose file others can write to. */
#include "stretch.h"

#include "file.h"

#include <stdatomic.h>
#include <stddef.h>

/* A thread that goes on for ever may keep each of them. */
enum { STRETCHES = 4096 };

struct stretch {
    void *_Atomic base; /* NULL: free */
    uint32_t size;
    bool stays; /* as part of a larger piece */
    _Atomic uint32_t users;
};

static struct stretch stretches[STRETCHES];
static unsigned next; /* of them that may be free */

/* One to begin with; NULL if there are too many. This and the next are called with the store's lock. */
struct stretch *stretch_free(void) {
    for (unsigned i = 0; i < STRETCHES; i++) {
        struct stretch *stretch = &stretches[next++ % STRETCHES];
        if (atomic_load(&stretch->base) == NULL) {
            return stretch;
        }
    }
    return NULL;
}

/* What is mapped at `base` has a user from now on: whoever takes chunks from it. */
void stretch_begin(struct stretch *stretch, void *base, uint32_t size, bool stays) {
    stretch->size = size;
    stretch->stays = stays;
    atomic_store(&stretch->users, 1);
    atomic_store(&stretch->base, base);
}

/* One user more, beside one that there is; returns where the stretch begins. */
void *stretch_use(struct stretch *stretch) {
    atomic_fetch_add(&stretch->users, 1);
    return stretch_base(stretch);
}

/* To be asked by a user. */
void *stretch_base(const struct stretch *stretch) {
    return atomic_load(&stretch->base);
}

void stretch_leave(struct stretch *stretch) {
    if (atomic_fetch_sub(&stretch->users, 1) == 1) {
        if (!stretch->stays) {
            file_unmap(atomic_load(&stretch->base), stretch->size);
        }
        atomic_store(&stretch->base, NULL);
    }
}
