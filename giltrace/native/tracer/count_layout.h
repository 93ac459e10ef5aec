/* The bytes of a count-<pid>-<n>.bin file: what a process adds up instead of writing it down. FORMAT.md tells what they
 * mean; metrics/layout.py is the reader's side, and a test compares the two. All integers are little endian. */
#ifndef GILTRACE_COUNT_LAYOUT_H
#define GILTRACE_COUNT_LAYOUT_H

#include "layout.h"

#include <stdint.h>

#define GT_COUNT_MAGIC 0x544E554F434C4947ull /* "GILCOUNT" */
#define GT_COUNT_VERSION 2u
#define GT_COUNT_PIECE 32768u /* bytes that the file grows by */
#define GT_MOST_PIECES 160u
#define GT_BUCKETS 32u
#define GT_SHORTEST 7u /* what is shorter than 2 to this units is in the first bucket */
#define GT_PLACES 128u
#define GT_COLLECTS 0x80000000u /* in a number of a stack: garbage was collected there */

enum gt_table { GT_CULPRITS = 0, GT_VICTIMS = 1, GT_SLEEPERS = 2, GT_TABLES = 3 };

/* Stacks and what is on their account, the most of them: when there is no place left the least of all makes room, and
 * the new one takes its figures over; so much too large it may be. `version` is odd while anything changes. */
struct gt_count_table {
    uint32_t version;
    uint32_t used;
    uint64_t missed; /* ticks that could not be put to any account */
    uint32_t stacks[GT_PLACES];
    uint64_t times[GT_PLACES];
    uint64_t ticks[GT_PLACES];
    uint64_t error[GT_PLACES];
};

/* The file begins with this; tallies follow, as many as fit, and fill each further piece from its beginning. */
struct gt_count_head {
    uint64_t magic;
    uint32_t version;
    uint32_t pid;
    uint64_t start_ticks;
    uint64_t start_ns;
    uint64_t scale;   /* ticks times this, without the lowest 32 bits: units of 2^-30 s */
    uint64_t lost;    /* threads that found no tally, or none for one more GIL */
    uint32_t pieces;  /* of the file, so far */
    uint32_t folds;   /* odd while what one tally says goes to another */
    uint32_t reading; /* a reader adds one: what is longest is that since then */
    uint32_t reserved[3];
    struct gt_count_table tables[GT_TABLES];
};

/* BEGINS: its thread has no name yet, so it cannot be said what it is. LEFT: its thread lives, and uses another GIL
 * now. */
enum gt_tally_state {
    GT_TALLY_FREE = 0,
    GT_TALLY_LIVES = 1,
    GT_TALLY_ENDED = 2,
    GT_TALLY_BEGINS = 3,
    GT_TALLY_LEFT = 4
};

enum gt_length { GT_HOLDS = 0, GT_WAITS = 1, GT_SLEEPS = 2, GT_LENGTHS = 3 };

/* Of what one thread that lives did with one GIL, or of all those with the same role that have ended. All but the
 * numbers are ticks. */
struct gt_tally {
    uint32_t state;   /* enum gt_tally_state */
    uint32_t version; /* odd while anything changes */
    uint32_t tid;
    uint32_t threads; /* that have ended */
    uint64_t number[GT_LENGTHS];
    uint64_t sum[GT_LENGTHS];
    uint64_t since[GT_LENGTHS]; /* of the one that is under way; 0: none is */
    uint64_t longest[GT_LENGTHS];
    uint64_t forced;
    uint64_t requests;
    uint32_t reading; /* that what is longest belongs to */
    uint32_t asleep;  /* in this stack, if it sleeps */
    uint16_t hint[GT_TABLES];
    uint16_t gil; /* its number in the head of the records' file */
    uint16_t reserved[4];
    uint64_t buckets[GT_LENGTHS][GT_BUCKETS];
    char name[88];
    gt_record scratch[32]; /* records that nobody keeps */
    uint64_t padding[2];
};

_Static_assert(sizeof(struct gt_tally) == 1280, "a tally is twenty cache lines");

#define GT_FIRST_TALLY                                                                                                 \
    ((sizeof(struct gt_count_head) + sizeof(struct gt_tally) - 1) / sizeof(struct gt_tally) * sizeof(struct gt_tally))

_Static_assert(GT_FIRST_TALLY < GT_COUNT_PIECE / 2, "the first piece has room for tallies");

#endif
