/* The bytes of a gil-<pid>-<n>.bin file. FORMAT.md tells what they mean; recording/layout.py is the reader's
 * side, and a test compares the two through giltrace_layout(). All integers are little endian. */
#ifndef GILTRACE_LAYOUT_H
#define GILTRACE_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#define GT_MAGIC 0x45434152544C4947ull /* "GILTRACE" */
#define GT_CHUNK_MAGIC 0x4B435447u     /* "GTCK" */
#define GT_STRETCH_MAGIC 0x54535447u   /* "GTST" */
#define GT_VERSION 3u
#define GT_HEADER_SIZE 4096u
#define GT_MAX_GILS 64u
#define GT_RING_CHUNK 16384u   /* bytes of each chunk of a ring */
#define GT_SMALL_RING 4194304u /* of one with less bytes than this: */
#define GT_SMALL_RING_CHUNK 4096u
#define GT_LEAST_CHUNK 4096u /* bytes of a chunk that is a piece of the file by itself */
#define GT_SMALL_CHUNK 512u  /* bytes of each chunk of a stretch */
#define GT_TIMED_EVERY 256u
#define GT_TIMED_MOST 65536u /* ticks */

enum gt_clock { GT_CLOCK_MONOTONIC_NS = 0, GT_CLOCK_TSC = 1 };

enum gt_kind {
    GT_NONE = 0,
    GT_REQUEST = 1,
    GT_TIMEOUT = 2,
    GT_ACQUIRE = 3,
    GT_RELEASE = 4,
    GT_THREAD_END = 5, /* with one of enum gt_more in the place of the GIL: that */
    GT_STACK = 6,
    GT_HOLDER_STACK = 7,
};

enum gt_more { GT_BLOCK = 1, GT_BLOCK_END = 2, GT_WAKE = 3 };

enum gt_flag {
    GT_FORCED = 1,
    GT_SWITCH_REQUEST = 2,
    GT_UNDER_WAY = 1,
    GT_SAMPLE = 1,
    GT_LATE = 1,
    GT_OWNED = 2,
    /* What a STACK gives in place of a stack's number: */
    GT_SEMAPHORE = 1,
    GT_LOCK = 2,
    GT_HELD = 3,
    /* A HOLDER_STACK with this gives no stack's number, but a type's: */
    GT_TYPE = 1,
};

/* Where the core stands: of a BLOCK, how it is slept; of a BLOCK_END, how that ended. */
enum gt_way {
    GT_SEMAPHORE_ITSELF = 0,
    GT_PARKED = 1,
    GT_RAW = 2,
    GT_TIMED = 4,
    GT_WITH_ARGUMENT = 8,
    GT_OWN_STATE = 16
};

enum gt_outcome { GT_WOKEN = 0, GT_TIMED_OUT = 1, GT_INTERRUPTED = 2, GT_FAILED = 3 };

enum gt_status {
    GT_HOOKED = 1,
    GT_GIL_SEEN = 2,
    GT_FREE_THREADED = 4,
    GT_STOPPED = 8,
    GT_OBSERVED = 16,
    GT_NOT_PYTHON = 32
};

enum gt_control { GT_CONTROL_STOP = 1, GT_CONTROL_CONFINED = 2 };

enum gt_trigger { GT_TRIGGER_WAIT = 1, GT_TRIGGER_HOLD = 2 };

struct gt_header {
    uint64_t magic;
    uint32_t version;
    uint32_t pid;
    uint32_t ppid;
    uint32_t gil_count;
    uint64_t lost; /* events of threads that never got a chunk */
    uint64_t start_ticks;
    uint64_t start_ns;
    uint32_t clock;
    uint32_t status;
    uint64_t gils[GT_MAX_GILS];
    char python[128];
    char executable[512];
    char cmdline[2048];
    char note[256];
    uint64_t lease_ns; /* CLOCK_MONOTONIC after which nobody listens any more; 0: no limit. Written by the recorder */
    uint32_t control;  /* bits of enum gt_control. Written by the recorder */
    uint32_t trigger_count; /* how many limits were exceeded; what follows tells the newest */
    uint64_t trigger_ticks;
    uint64_t trigger_length; /* ticks */
    uint32_t trigger_kind;   /* enum gt_trigger */
    uint32_t trigger_tid;
    uint64_t ring_size;     /* bytes that the file may grow to before its oldest chunks are used again; 0: no limit */
    uint64_t overwritten;   /* records that had to make room */
    uint64_t complete_from; /* ticks: of what happened before, some is missing */
    /* Of an observation only (GT_OBSERVED): */
    uint64_t samples;
    uint64_t sampled_ns;     /* from the first sample to the last */
    uint64_t known_until_ns; /* what happened before, as far as seen, is in the file */
    uint64_t longest_gap_ns;
    uint64_t typical_gap_ns; /* that an instant lies in: mean over time */
    uint64_t switches;
    uint64_t switches_missed;
    /* Of what befell the recording: */
    uint64_t lost_stacks; /* stacks that could not be written */
    uint32_t damaged;     /* pieces of files that were cut off, in this file or in the one that it takes the place of */
    uint32_t confined;    /* 1: the process put a seccomp filter on, and the tracer has made no system call since */
    uint64_t slow_ticks; /* that threads spent on room for records, on stacks not met before, and on looks at holders */
    /* Of what the hooks cost: one in so many uses of a GIL, and other things that hooks do, is timed. */
    uint64_t timed_ticks;       /* that those took which were timed, but for what is slow */
    uint64_t timed_squares;     /* of the ticks that each took */
    uint64_t timed;             /* how many */
    uint32_t timed_every;       /* GT_TIMED_EVERY; 0: nothing is */
    uint32_t timed_interrupted; /* so many more took GT_TIMED_MOST and longer: their threads had lost their cores */
};

struct gt_chunk {
    uint32_t magic;
    uint32_t size; /* bytes, this head included: a multiple of 4096, or as its stretch says */
    uint32_t thread;
    uint32_t tid;
    uint32_t sequence;
    uint32_t reserved;
    uint64_t base; /* ticks that the times of the records count from */
    uint64_t lost; /* events of this thread that found no room, since this chunk began */
    char name[88];
};

/* In place of a chunk: many small ones, one after the other, the first of them `chunk` bytes after this head. */
struct gt_stretch {
    uint32_t magic;
    uint32_t size;  /* bytes, this head included; a multiple of 4096 */
    uint32_t chunk; /* bytes of each chunk in it */
    uint32_t reserved;
};

/* A record is one word, so that it is there whole or not at all:
 *
 *   63         51 50    45 44  43 42  40 39                                      0
 *  +-------------+--------+------+------+-----------------------------------------+
 *  | core, wait  | GIL id | flag | kind | ticks since the chunk's base            |
 *  +-------------+--------+------+------+-----------------------------------------+
 *
 * The topmost bits hold the core of an ACQUIRE and the length of the timed wait of a REQUEST or TIMEOUT: microseconds,
 * three digits and the power of ten that they are multiplied by in the lowest three bits. Of a TIMEOUT that is a sample
 * they say whether the holder was collecting garbage. In a STACK or HOLDER_STACK
 * the number of a stack takes the place of the time. Kind 0 means that nothing was written there yet. A STACK with a
 * flag has an address instead, of which bits 40 to 58 stand above the flags:
 *
 *   63                                  45 44  43 42  40 39                                      0
 *  +--------------------------------------+------+------+-----------------------------------------+
 *  | bits 40-58 of the address            | flag | STACK| bits 0-39 of the address                |
 *  +--------------------------------------+------+------+-----------------------------------------+
 */
typedef uint64_t gt_record;

#define GT_TIME_BITS 40
#define GT_KIND_SHIFT 40
#define GT_FLAG_SHIFT 43
#define GT_GIL_SHIFT 45
#define GT_CORE_SHIFT 51
#define GT_NO_CORE 0x1FFFu
#define GT_POWER_BITS 3
#define GT_COLLECTING 1u

_Static_assert(sizeof(struct gt_header) <= GT_HEADER_SIZE, "the head fits its page");
_Static_assert(sizeof(struct gt_chunk) == 128, "a chunk's head is two cache lines");
_Static_assert(GT_MAX_GILS <= 1u << (GT_CORE_SHIFT - GT_GIL_SHIFT), "a GIL id fits its bits");

/* How long a timed wait is to take at most, which is the interpreter's switch interval, as REQUEST and TIMEOUT store
 * it. The interpreter has just added it to the clock, so little is missing: three digits, rounded up, make up for that.
 */
static inline uint32_t gt_wait(int64_t ns) {
    uint64_t digits = ns > 0 ? ((uint64_t)ns + 999) / 1000 : 0;
    uint32_t power = 0;
    for (; digits > 999; power++) {
        digits = (digits + 9) / 10;
    }
    return power < 1u << GT_POWER_BITS ? (uint32_t)digits << GT_POWER_BITS | power : 0;
}

#endif
