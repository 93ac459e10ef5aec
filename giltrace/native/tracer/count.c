/* The file of counts: one tally for each thread that lives, and one for each role whose threads have ended; where there
 * are several GILs, one for each that these have used.
 *
 * A thread writes its own tally alone, without a lock. What is shared is a table of stacks for each question, which
 * only those write to who have just waited. Whoever reads asks the versions whether it has read something whole. */
#include "count.h"

#include "clock.h"
#include "file.h"

#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    ROLES = 32,  /* of ended threads that are kept apart, and those of each GIL that are not */
    TRIES = 200, /* to get at a table */
    REST = 64,   /* pieces that lie idle before one serves again */
    AHEAD = 16,  /* pieces for the rest of a confined process's life: for some four hundred threads at a time */
    CALIBRATION_NS = 500000,
};

static const uint64_t SAMPLE_NS = 1000000;       /* that a sample stands for */
static const uint64_t UNITS = (uint64_t)1 << 30; /* of a second */

_Atomic uint32_t count_mode;
struct gt_count_head *_Atomic count_head;

/* Not read from the file, which somebody may have cut off. */
static _Atomic uint64_t sample_ticks;

/* Under the lock of store_file.c. */
static char path[PATH_MAX];
static char *pieces[GT_MOST_PIECES];
static uint32_t piece_count;
/* Pieces once mapped stay mapped, since a thread on its way out of a recording may still write to them; those of later
 * files take their places, the one that was given up first before the others. */
static char *idle[REST + GT_MOST_PIECES];
static uint32_t idle_first, idle_count;
static uint32_t first_free; /* no tally before is free */
/* The next one of the same thread, round: GT_MAX_GILS at most, whatever the file says by now. */
static uint16_t beside[GT_MOST_PIECES * (GT_COUNT_PIECE / sizeof(struct gt_tally))];
static struct gt_tally *roles[ROLES + GT_MAX_GILS];
static uint32_t role_count;

static atomic_flag busy[GT_TABLES] = {ATOMIC_FLAG_INIT, ATOMIC_FLAG_INIT, ATOMIC_FLAG_INIT};

void count_choose(enum count_mode mode) {
    atomic_store_explicit(&count_mode, mode, memory_order_relaxed);
}

/* Another file begins, or none. */
void count_reset(void) {
    atomic_store_explicit(&count_head, NULL, memory_order_relaxed);
    for (uint32_t i = 0; i < piece_count; i++) {
        idle[(idle_first + idle_count++) % (REST + GT_MOST_PIECES)] = pieces[i];
    }
    piece_count = first_free = role_count = 0;
}

/* Who was at a table is not in the child. */
void count_after_fork(void) {
    count_reset();
    for (int i = 0; i < GT_TABLES; i++) {
        atomic_flag_clear(&busy[i]);
    }
}

/* How many units of time a tick takes, times 2^32. The kernel does not say how fast the TSC is. */
static uint64_t scale(void) {
    if (!clock_is_tsc()) {
        return (uint64_t)(((unsigned __int128)UNITS << 32) / 1000000000u);
    }
    static uint64_t known;
    if (known == 0) {
        uint64_t ticks, ns, later, until, error;
        clock_pair(&ticks, &ns, &error);
        while (clock_ns() < ns + CALIBRATION_NS) {
        }
        clock_pair(&later, &until, &error);
        unsigned __int128 units = (unsigned __int128)(until - ns) * UNITS / 1000000000u;
        known = later > ticks ? (uint64_t)((units << 32) / (later - ticks)) : 1;
    }
    return known;
}

static char *next_piece(void) {
    if (piece_count == GT_MOST_PIECES) {
        return NULL;
    }
    char *where = idle_count > REST ? idle[idle_first] : NULL;
    char *piece = file_map(path, (uint64_t)piece_count * GT_COUNT_PIECE, GT_COUNT_PIECE, piece_count == 0, where);
    if (piece != NULL) {
        pieces[piece_count++] = piece;
        struct gt_count_head *head = atomic_load_explicit(&count_head, memory_order_relaxed);
        if (head != NULL) {
            __atomic_store_n(&head->pieces, piece_count, __ATOMIC_RELEASE);
        }
        if (where != NULL) {
            idle_first = (idle_first + 1) % (REST + GT_MOST_PIECES);
            idle_count--;
        }
    }
    return piece;
}

/* Begin the file beside the one of records, whose name it has but for the first word. */
static bool begin(const char *records) {
    const char *name = strrchr(records, '/');
    uint64_t ticks, ns, error;
    clock_pair(&ticks, &ns, &error); /* before what takes its time: holds under way count from here on */
    int wrote = name == NULL ? -1
                             : snprintf(path, sizeof path, "%.*s/count%s", (int)(name - records), records,
                                        name + strlen("/gil"));
    struct gt_count_head *head = NULL;
    if (wrote > 0 && (size_t)wrote < sizeof path) {
        head = (struct gt_count_head *)(void *)next_piece();
    }
    if (head == NULL) {
        return false;
    }
    uint64_t by = scale();
    unsigned __int128 units = (unsigned __int128)SAMPLE_NS * UNITS / 1000000000u;
    atomic_store_explicit(&sample_ticks, (uint64_t)((units << 32) / by), memory_order_relaxed);
    head->version = GT_COUNT_VERSION;
    head->pid = (uint32_t)getpid();
    head->scale = by;
    head->pieces = piece_count;
    head->start_ticks = ticks;
    head->start_ns = ns;
    __atomic_store_n(&head->magic, GT_COUNT_MAGIC, __ATOMIC_RELEASE);
    atomic_store_explicit(&count_head, head, memory_order_release);
    return true;
}

enum {
    IN_FIRST = (GT_COUNT_PIECE - GT_FIRST_TALLY) / sizeof(struct gt_tally),
    IN_OTHERS = GT_COUNT_PIECE / sizeof(struct gt_tally),
};

/* NULL beyond the last one that there is. */
static struct gt_tally *tally_at(uint32_t index) {
    uint32_t piece = index < IN_FIRST ? 0 : 1 + (index - IN_FIRST) / IN_OTHERS;
    if (piece >= piece_count) {
        return NULL;
    }
    size_t begin = piece == 0 ? GT_FIRST_TALLY : 0;
    uint32_t place = piece == 0 ? index : (index - IN_FIRST) % IN_OTHERS;
    return (struct gt_tally *)(void *)(pieces[piece] + begin + place * sizeof(struct gt_tally));
}

static uint32_t index_of(const struct gt_tally *tally) {
    for (uint32_t piece = 0; piece < piece_count; piece++) {
        size_t at = (size_t)((const char *)tally - pieces[piece]);
        if (at < GT_COUNT_PIECE) {
            return piece == 0 ? (uint32_t)((at - GT_FIRST_TALLY) / sizeof *tally)
                              : IN_FIRST + (piece - 1) * IN_OTHERS + (uint32_t)(at / sizeof *tally);
        }
    }
    return 0;
}

/* The head, begun if there is none yet; NULL if there is no room, now. */
static struct gt_count_head *begun(const char *records) {
    struct gt_count_head *head = atomic_load_explicit(&count_head, memory_order_relaxed);
    return head != NULL || !begin(records) ? head : atomic_load_explicit(&count_head, memory_order_relaxed);
}

/* The next five: to be called with the lock of store_file.c. A program that does nothing yet is to be there, too. */
void count_begin(const char *records) {
    begun(records);
}

/* System calls are about to end: take room for all threads that may come. */
void count_reserve(const char *records) {
    struct gt_count_head *head = begun(records);
    while (head != NULL && piece_count < AHEAD && next_piece() != NULL) {
    }
}

/* A tally for what the calling thread does with that GIL; NULL if there is no room, which is told if it asks for the
 * `first` time. */
struct gt_tally *count_take(const char *records, uint32_t tid, uint16_t gil, bool first) {
    struct gt_count_head *head = begun(records);
    if (head == NULL) {
        return NULL;
    }
    struct gt_tally *tally;
    while ((tally = tally_at(first_free)) != NULL && tally->state != GT_TALLY_FREE) {
        first_free++;
    }
    if (tally == NULL) {
        if (next_piece() == NULL) {
            head->lost += first;
            return NULL;
        }
        tally = tally_at(first_free);
    }
    beside[first_free] = (uint16_t)first_free;
    first_free++;
    tally->tid = tid;
    tally->gil = gil;
    tally->reading = head->reading;
    __atomic_store_n(&tally->state, GT_TALLY_BEGINS, __ATOMIC_RELEASE);
    return tally;
}

/* The thread goes on with another GIL: its tally for that, or the one that it has if there is no room for one, which is
 * told if it asks for the `first` time. An interpreter that has ended took the GIL with it that the thread had. */
struct gt_tally *count_turn(const char *records, struct gt_tally *tally, uint16_t gil, bool first, uint64_t now) {
    if (tally->state == GT_TALLY_BEGINS) {
        tally->gil = gil; /* it has not had any */
        return tally;
    }
    if (tally->since[GT_HOLDS] != 0) {
        count_length(tally, GT_HOLDS, now - tally->since[GT_HOLDS]);
    }
    uint32_t mine = index_of(tally), index = mine;
    struct gt_tally *other = tally;
    for (uint32_t i = 0; i < GT_MAX_GILS && other->gil != gil; i++) {
        index = beside[index];
        other = tally_at(index);
    }
    if (other->gil != gil) {
        other = count_take(records, tally->tid, gil, first);
        if (other == NULL) {
            return tally;
        }
        memcpy(other->name, tally->name, sizeof other->name);
        index = index_of(other);
        beside[index] = beside[mine];
        beside[mine] = (uint16_t)index;
    }
    __atomic_store_n(&tally->state, GT_TALLY_LEFT, __ATOMIC_RELEASE);
    __atomic_store_n(&other->state, GT_TALLY_LIVES, __ATOMIC_RELEASE);
    return other;
}

static bool is_digit(char letter) {
    return letter >= '0' && letter <= '9';
}

/* Threads whose names differ in their numbers alone do the same work. */
static bool same_role(const char *one, const char *other) {
    for (;;) {
        if (is_digit(*one) && is_digit(*other)) {
            while (is_digit(*one)) {
                one++;
            }
            while (is_digit(*other)) {
                other++;
            }
        } else if (*one != *other) {
            return false;
        } else if (*one == 0) {
            return true;
        } else {
            one++;
            other++;
        }
    }
}

static void add(struct gt_tally *to, const struct gt_tally *from, uint32_t reading) {
    to->threads++;
    to->forced += from->forced;
    to->requests += from->requests;
    for (int kind = 0; kind < GT_LENGTHS; kind++) {
        to->number[kind] += from->number[kind];
        to->sum[kind] += from->sum[kind];
        uint64_t before = to->reading == reading ? to->longest[kind] : 0;
        uint64_t other = from->reading == reading ? from->longest[kind] : 0;
        to->longest[kind] = other > before ? other : before;
        for (uint32_t bucket = 0; bucket < GT_BUCKETS; bucket++) {
            to->buckets[kind][bucket] += from->buckets[kind][bucket];
        }
    }
    to->reading = reading;
}

/* Where the threads go that have the role of this one and have ended: NULL if it is the first of them. */
static struct gt_tally *role_of(const struct gt_tally *tally) {
    struct gt_tally *nameless = NULL;
    for (uint32_t i = 0; i < role_count; i++) {
        if (roles[i]->gil == tally->gil && same_role(roles[i]->name, tally->name)) {
            return roles[i];
        }
        if (i >= ROLES && roles[i]->gil == tally->gil) {
            nameless = roles[i];
        }
    }
    return nameless;
}

/* What a thread that has ended did with one GIL goes to its role. What it was still at has ended now. */
static void leave(struct gt_count_head *head, uint32_t index, uint64_t now) {
    struct gt_tally *tally = tally_at(index);
    for (int kind = 0; kind < GT_LENGTHS; kind++) {
        if (tally->since[kind] != 0) {
            count_length(tally, (enum gt_length)kind, now - tally->since[kind]);
        }
    }
    struct gt_tally *role = role_of(tally);
    __atomic_fetch_add(&head->folds, 1, __ATOMIC_ACQ_REL);
    if (role == NULL && role_count < ROLES + GT_MAX_GILS) {
        if (role_count >= ROLES) {
            memset(tally->name, 0, sizeof tally->name); /* nor is it the thread of any number */
            tally->tid = 0;
        }
        tally->threads = 1;
        tally->state = GT_TALLY_ENDED;
        roles[role_count++] = tally;
    } else {
        if (role != NULL) {
            add(role, tally, head->reading);
        }
        memset(tally, 0, sizeof *tally);
        first_free = index < first_free ? index : first_free;
    }
    __atomic_fetch_add(&head->folds, 1, __ATOMIC_ACQ_REL);
}

/* The thread has ended: what it has counted goes to its role. */
void count_leave(const struct gt_tally *tally, uint64_t now) {
    struct gt_count_head *head = atomic_load_explicit(&count_head, memory_order_relaxed);
    if (head == NULL) {
        return;
    }
    uint32_t mine = index_of(tally), index = mine;
    for (uint32_t i = 0; i < GT_MAX_GILS && (i == 0 || index != mine); i++) {
        leave(head, index, now);
        index = beside[index];
    }
}

static uint32_t find(const struct gt_count_table *table, uint32_t hint, uint32_t stack) {
    uint32_t used = table->used < GT_PLACES ? table->used : GT_PLACES;
    if (hint < used && table->stacks[hint] == stack) {
        return hint;
    }
    for (uint32_t i = 0; i < used; i++) {
        if (table->stacks[i] == stack) {
            return i;
        }
    }
    return GT_PLACES;
}

/* A place for a stack that has none: a free one, or that of the least. */
static uint32_t make_place(struct gt_count_table *table, uint32_t stack) {
    uint32_t place = 0;
    if (table->used < GT_PLACES) {
        place = table->used;
        table->used++;
    } else {
        for (uint32_t i = 1; i < GT_PLACES; i++) {
            place = table->ticks[i] < table->ticks[place] ? i : place;
        }
        table->error[place] = table->ticks[place];
    }
    table->stacks[place] = stack;
    return place;
}

/* Put so many ticks on the account of a stack. */
void count_at(enum gt_table which, struct gt_tally *tally, uint32_t stack, uint64_t ticks) {
    struct gt_count_head *head = atomic_load_explicit(&count_head, memory_order_relaxed);
    if (head == NULL) {
        return;
    }
    struct gt_count_table *table = &head->tables[which];
    int tries = 0;
    while (atomic_flag_test_and_set_explicit(&busy[which], memory_order_acquire)) {
        if (++tries == TRIES) {
            __atomic_fetch_add(&table->missed, ticks, __ATOMIC_RELAXED);
            return;
        }
    }
    uint32_t hint = tally != NULL ? tally->hint[which] : 0;
    uint32_t place = find(table, hint, stack);
    count_open(&table->version);
    if (place == GT_PLACES) {
        place = make_place(table, stack);
    }
    table->times[place]++;
    table->ticks[place] += ticks;
    count_close(&table->version);
    atomic_flag_clear_explicit(&busy[which], memory_order_release);
    if (tally != NULL) {
        tally->hint[which] = (uint16_t)place;
    }
}

/* The holder was seen in this stack, for whom others wait: at the one look in 2^sparing ms. */
void count_sample(uint32_t stack, bool collecting, uint32_t sparing) {
    uint64_t ticks = atomic_load_explicit(&sample_ticks, memory_order_relaxed) << sparing;
    count_at(GT_CULPRITS, NULL, stack | (collecting ? GT_COLLECTS : 0), ticks);
}
