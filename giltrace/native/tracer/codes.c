/* Give each code object a number, and write out what tells its name and lines.
 *
 * Code objects are freed and their addresses used again: the type's deallocator is wrapped, so that a known one that
 * goes is forgotten. Equal ones, as of a source that is compiled again and again, have the same number. */
#include "codes.h"

#include "frames.h"
#include "guard.h"
#include "peek.h"
#include "stackfile.h"
#include "store.h"
#include "system.h"
#include "table.h"

#include <string.h>

enum {
    CODE_BITS = 17,
    TEXT_MAX = 4096,     /* characters of a name */
    TABLE_MAX = 1 << 22, /* bytes of a line table */
    RECORD_MAX = 1 << 23,
    HEAD_WORDS = 3, /* kind, number, first line */
    NO_OBJECT = 4096,
};

_Atomic uint64_t codes_salts[CODES_SALTS];
pthread_mutex_t codes_lock = PTHREAD_MUTEX_INITIALIZER;

/* Under the lock. */
static struct table addresses; /* of code objects that live */
static struct table contents;  /* of all that were written: digests */
static uint32_t *record;
static uint64_t of_library[(1 << CODE_BITS) / 64]; /* a bit for each number */
static _Atomic uint32_t generation;                /* of the recording that all this belongs to */

static void (*_Atomic real_dealloc)(void *);
static bool watching; /* our deallocator is in place */

/* Read what a code object refers to: `own` if the thread's own frame keeps it alive. */
static bool get(bool own, uintptr_t from, void *to, size_t size) {
    if (own) {
        memcpy(to, (const void *)from, size);
    }
    return own || peek(from, to, size);
}

/* Writes texts and tables of bytes: u32 width, u32 length, characters, padding. */
struct writer {
    bool own;
    uint32_t *at;
};

static bool put(struct writer *out, uintptr_t data, uint32_t width, uint32_t length) {
    size_t size = (size_t)width * length;
    out->at[0] = width;
    out->at[1] = length;
    out->at[2 + size / 4] = 0;
    bool got = get(out->own, data, &out->at[2], size);
    out->at += 2 + (size + 3) / 4;
    return got;
}

static bool put_text(struct writer *out, uintptr_t field) {
    uintptr_t object = 0;
    uint64_t length = 0;
    uint32_t state = 0;
    /* PyASCIIObject's state: kind in bits 2-4, compact in 5, ascii in 6 */
    if (!get(out->own, field, &object, sizeof object) ||
        !get(out->own, object + frames_field(TEXT_LENGTH), &length, sizeof length) ||
        !get(out->own, object + frames_field(TEXT_STATE), &state, sizeof state)) {
        return false;
    }
    uint32_t width = (state >> 2) & 7;
    if ((state & 0x20) == 0 || (width != 1 && width != 2 && width != 4)) {
        *out->at++ = 1;
        *out->at++ = 1;
        *out->at++ = '?';
        return true;
    }
    uint32_t start =
        (state & 0x40) != 0 ? frames_field(frames_layout.text_ascii) : frames_field(frames_layout.text_other);
    return put(out, object + start, width, length < TEXT_MAX ? (uint32_t)length : TEXT_MAX);
}

static bool put_bytes(struct writer *out, uintptr_t field) {
    uintptr_t object = 0;
    uint64_t length = 0;
    return get(out->own, field, &object, sizeof object) &&
           get(out->own, object + frames_field(OBJECT_SIZE), &length, sizeof length) &&
           put(out, object + frames_field(BYTES_START), 1, length <= TABLE_MAX ? (uint32_t)length : 0);
}

/* CODE, but for its number: first line, then file name, name and line table; the record's words, 0 if it is torn. */
static size_t describe(bool own, uintptr_t code) {
    struct writer out = {own, record + HEAD_WORDS};
    bool whole = get(own, code + frames_layout.code_first_line, &record[2], sizeof record[2]) &&
                 put_text(&out, code + frames_layout.code_filename) && put_text(&out, code + frames_layout.code_name) &&
                 put_bytes(&out, code + frames_layout.code_linetable);
    return whole ? (size_t)(out.at - record) : 0;
}

static uint64_t digest(const uint32_t *words, size_t count) {
    uint64_t hash = count;
    for (size_t i = 0; i < count; i++) {
        hash = (hash ^ words[i]) * 0x9E3779B97F4A7C15ull;
        hash ^= hash >> 29;
    }
    return hash != 0 ? hash : 1;
}

static uint32_t no_room(void) {
    store_note("more Python functions than there is room for: stacks with the later ones were not recorded");
    return CODES_LOST;
}

/* Is it a path of the standard library, or of what is installed? recording/libraries.py has the last word: what is
 * taken for a library's here is looked at there, with the frames around it. */
static bool is_library(const char *path) {
    static const char *const parts[] = {"/site-packages/", "/dist-packages/", "/lib/python", "/lib64/python", "/Lib/"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (strstr(path, parts[i]) != NULL) {
            return true;
        }
    }
    return path[0] == '<';
}

/* Whose code the one is that has just been described; its file name ends with a zero, if only that of what follows. */
static void keep_whose(uint32_t number) {
    const uint32_t *text = record + HEAD_WORDS;
    uint64_t bit = (uint64_t)1 << number % 64;
    bool library = text[0] == 1 && is_library((const char *)(text + 2));
    of_library[number / 64] = library ? of_library[number / 64] | bit : of_library[number / 64] & ~bit;
}

/* Is it in all likelihood not the user's code? Under the lock. */
bool codes_of_library(uint32_t number) {
    return (of_library[number / 64] >> number % 64 & 1) != 0;
}

/* The number of a code object by what it says. */
static uint32_t by_content(bool own, uintptr_t code) {
    size_t words = describe(own, code);
    if (words == 0) {
        return CODES_NONE;
    }
    uint64_t key = digest(record + 2, words - 2);
    struct slot *slot = table_find(&contents, key);
    if (slot->key != 0) {
        return slot->id;
    }
    if (table_full(&contents)) {
        return no_room();
    }
    record[1] = contents.count + 1;
    if (!stackfile_append(STACKFILE_CODE, record, words)) {
        return CODES_LOST;
    }
    table_add(&contents, slot, key, contents.count + 1);
    keep_whose(slot->id);
    return slot->id;
}

/* The number of the code object of a frame of the calling thread, which keeps it alive. (Frames of C code have other
 * things in its place.) */
uint32_t codes_own(uintptr_t code) {
    if (code < NO_OBJECT) {
        return CODES_NONE;
    }
    struct slot *slot = table_find(&addresses, code);
    if (slot->key != 0) {
        return slot->id;
    }
    if (*(const uintptr_t *)(code + frames_field(OBJECT_TYPE)) != frames_types.code) {
        return CODES_NONE;
    }
    if (table_full(&addresses)) {
        return no_room();
    }
    uint32_t id = by_content(true, code);
    if (id != CODES_LOST) {
        table_add(&addresses, slot, code, id);
    }
    return id;
}

/* The number of what was seen in another thread's frame. It may be gone by now, so its address is not learned. */
uint32_t codes_seen(uintptr_t code) {
    if (code < NO_OBJECT) {
        return CODES_NONE;
    }
    const struct slot *slot = table_find(&addresses, code);
    if (slot->key != 0) {
        return slot->id;
    }
    uintptr_t type = 0;
    bool is_code = peek(code + frames_field(OBJECT_TYPE), &type, sizeof type) && type == frames_types.code;
    return is_code ? by_content(false, code) : CODES_NONE;
}

/* In place of the code type's deallocator: forget a known code object before its address can serve another. */
static void forget(void *code) {
    /* Any thread that holds the GIL of any interpreter comes here; also one in a child that nobody told us of, where
     * the lock may be held by a thread that is not there. */
    if (atomic_load_explicit(&generation, memory_order_relaxed) == guard_generation()) {
        pthread_mutex_lock(&codes_lock);
        struct slot *slot = table_find(&addresses, (uintptr_t)code);
        if (slot->key != 0) {
            table_remove(&addresses, slot);
            atomic_fetch_add_explicit(&codes_salts[((uintptr_t)code >> 6) % CODES_SALTS], 0xD1B54A32D192ED03ull,
                                      memory_order_relaxed);
        }
        pthread_mutex_unlock(&codes_lock);
    }
    /* Called by its name, gcc 12 reads it as if it were not atomic. */
    atomic_load_explicit(&real_dealloc, memory_order_acquire)(code);
}

static void **dealloc_slot(void) {
    return (void **)(frames_types.code + frames_field(TYPE_DEALLOC));
}

static void *current_dealloc(void) {
    return __atomic_load_n(dealloc_slot(), __ATOMIC_ACQUIRE);
}

/* Begin to watch the code type, which `frames_choose` has recognised; false if its deallocator is not the interpreter's
 * own, or there is no memory. */
bool codes_start(const struct elf_object *python) {
    if (watching) {
        return true; /* somebody has wrapped our wrapper and keeps it */
    }
    uintptr_t found = (uintptr_t)current_dealloc();
    if (found < python->text_start || found >= python->text_end) {
        return false;
    }
    record = record != NULL ? record : system_memory(RECORD_MAX);
    if (record == NULL || !table_make(&addresses, CODE_BITS) || !table_make(&contents, CODE_BITS)) {
        return false;
    }
    atomic_store_explicit(&real_dealloc, (void (*)(void *))found, memory_order_release);
    watching = true;
    __atomic_store_n(dealloc_slot(), (void *)(uintptr_t)forget, __ATOMIC_RELEASE);
    return true;
}

/* Give the deallocator back, unless somebody has wrapped it after us. */
void codes_stop(void) {
    if (watching && current_dealloc() == (void *)(uintptr_t)forget) {
        watching = false;
        __atomic_store_n(dealloc_slot(), (void *)(uintptr_t)atomic_load(&real_dealloc), __ATOMIC_RELEASE);
    }
}

/* Begin a new file, to which nothing is known yet. */
void codes_reset(uint32_t new_generation) {
    table_empty(&addresses);
    table_empty(&contents);
    atomic_store_explicit(&generation, new_generation, memory_order_relaxed);
}
