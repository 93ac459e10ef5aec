/* Give each distinct stack a number, and write it out once.
 *
 * A stack is what its frames say: the numbers of their code objects and the places in them. So one that comes again by
 * way of new code objects, equal to those before, is not written again. */
#include "intern.h"

#include "codes.h"
#include "count.h"
#include "frames.h"
#include "guard.h"
#include "stackfile.h"
#include "store.h"
#include "table.h"

#include <string.h>

enum { HEAD_WORDS = 4, RESERVE = 1 << 18, TYPE_BITS = 10, INNERMOST = 6 };

/* All under the lock of codes.c. */
static struct table stacks;
static struct table types; /* by their names */
static uint32_t record[HEAD_WORDS + 2 * STACK_DEPTH_MAX];
static uint32_t generation; /* of the recording that is known here */
static bool known;

/* Take the lock, for a thread whose records belong to the recording of this generation; false if that is over. */
static bool enter(uint32_t wanted) {
    pthread_mutex_lock(&codes_lock);
    uint32_t current = guard_generation();
    if (wanted != current) {
        pthread_mutex_unlock(&codes_lock);
        return false;
    }
    if (!known || generation != current) {
        table_empty(&stacks);
        table_empty(&types);
        stackfile_reset();
        codes_reset(current);
        generation = current;
        known = true;
    }
    return true;
}

static uint32_t offset_of(const struct stack_frame *frame) {
    if (frames_layout.instruction_size == 4) {
        return (uint32_t)frame->instruction * frames_layout.instruction_scale;
    }
    return (uint32_t)(frame->instruction - frame->code - frames_layout.code_start);
}

/* Who only counts has a few places for stacks, and wants to know what was called and from which of the program's own
 * lines: the innermost frames and the innermost of the user's. There a stack ends.
 *
 * STACK: u32 number, u32 depth, u32 truncated, then depth x {u32 code, u32 byte offset of the instruction}; all but
 * its number, as a record. Returns the depth, or CODES_LOST. */
static uint32_t describe(bool own, const struct stack_frame *frames, uint32_t count, bool truncated) {
    uint32_t *at = record + HEAD_WORDS;
    bool library = true;
    for (uint32_t i = 0; i < count && library; i++) {
        uint32_t code = own ? codes_own(frames[i].code) : codes_seen(frames[i].code);
        if (code == CODES_LOST) {
            return CODES_LOST;
        }
        library = !count_only() || code == CODES_NONE || codes_of_library(code);
        if (code != CODES_NONE && (!library || !count_only() || i < INNERMOST)) {
            *at++ = code;
            *at++ = offset_of(&frames[i]);
        }
    }
    record[2] = (uint32_t)(at - record - HEAD_WORDS) / 2;
    record[3] = truncated && library;
    return record[2];
}

static uint64_t digest(void) {
    uint64_t hash = record[3];
    for (uint32_t i = 0; i < record[2]; i++) {
        const uint32_t *frame = record + HEAD_WORDS + (size_t)2 * i;
        hash = (hash ^ frame[0] ^ (uint64_t)frame[1] << 32) * 0x9E3779B97F4A7C15ull;
        hash ^= hash >> 29;
    }
    return hash != 0 ? hash : 1;
}

/* The number of the described stack, which is written if it is new; 0 if there is no room for it. */
static uint32_t number(void) {
    uint64_t key = digest();
    struct slot *slot = table_find(&stacks, key);
    if (slot->key != 0) {
        return slot->id;
    }
    if (table_full(&stacks)) {
        store_note("more distinct Python stacks than there is room for: the later ones were not recorded");
        return 0;
    }
    record[1] = stacks.count + 1;
    if (!stackfile_append(STACKFILE_STACK, record, HEAD_WORDS + (size_t)2 * record[2])) {
        return 0;
    }
    table_add(&stacks, slot, key, stacks.count + 1);
    return slot->id;
}

/* A stack that an event will go without. */
static bool lose(void) {
    struct gt_header *head = store_header();
    if (head != NULL) {
        __atomic_fetch_add(&head->lost_stacks, 1, __ATOMIC_RELAXED);
    }
    return false;
}

static bool intern(bool own, uint32_t wanted, const struct stack_frame *frames, uint32_t count, bool truncated,
                   uint32_t *id) {
    *id = 0;
    if (!enter(wanted)) {
        return false;
    }
    uint32_t depth = describe(own, frames, count, truncated);
    bool lost = depth == CODES_LOST;
    if (!lost && depth != 0) {
        *id = number();
        lost = *id == 0;
    }
    pthread_mutex_unlock(&codes_lock);
    return lost ? lose() : true;
}

/* Number a stack of the calling thread's own live frames, innermost first: 0 if no Python code is in it. False if there
 * is no room for it now. */
bool intern_own(uint32_t wanted, const struct stack_frame *frames, uint32_t count, bool truncated, uint32_t *id) {
    return intern(true, wanted, frames, count, truncated, id);
}

/* Number what was seen of another thread's stack; 0 if it cannot be. */
uint32_t intern_seen(uint32_t wanted, const struct stack_frame *frames, uint32_t count, bool truncated) {
    uint32_t id;
    intern(false, wanted, frames, count, truncated, &id);
    return id;
}

/* TYPE: u32 number, u32 width, u32 length, the name and what fills it up. Returns the type's number; 0 if it has no
 * room. */
uint32_t intern_type(uint32_t wanted, const char *name, size_t length) {
    uint32_t id = 0;
    if (length == 0 || length > TYPE_NAME_MAX || !enter(wanted)) {
        return 0;
    }
    size_t words = HEAD_WORDS + (length + 3) / 4;
    memset(record, 0, words * sizeof *record);
    memcpy(record + HEAD_WORDS, name, length);
    record[2] = 1;
    record[3] = (uint32_t)length;
    uint64_t key = length;
    for (size_t i = HEAD_WORDS; i < words; i++) {
        key = (key ^ record[i]) * 0x9E3779B97F4A7C15ull;
        key ^= key >> 29;
    }
    struct slot *slot = table_find(&types, key != 0 ? key : 1);
    if (slot->key != 0) {
        id = slot->id;
    } else if (!table_full(&types)) {
        record[1] = types.count + 1;
        if (stackfile_append(STACKFILE_TYPE, record, words)) {
            table_add(&types, slot, key != 0 ? key : 1, types.count + 1);
            id = slot->id;
        }
    }
    pthread_mutex_unlock(&codes_lock);
    return id;
}

/* Take room ahead, before the process may not ask for any. */
void intern_reserve(void) {
    if (stacks.slots != NULL && enter(guard_generation())) {
        stackfile_reserve(RESERVE);
        pthread_mutex_unlock(&codes_lock);
    }
}

/* False if code objects cannot be watched, or there is no memory. */
bool intern_start(const struct elf_object *python) {
    return table_make(&stacks, STACK_BITS) && table_make(&types, TYPE_BITS) && codes_start(python);
}

/* The recording is over: code objects go without us again, and what was known and mapped of it is given back. */
void intern_stop(void) {
    codes_stop();
    if (stacks.slots != NULL && enter(guard_generation())) {
        pthread_mutex_unlock(&codes_lock);
    }
}

/* In the child: the file is the parent's. */
void intern_after_fork(void) {
    pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    codes_lock = fresh;
    known = false;
}
