/* Give each distinct stack a number, and write it out once: the frames, and what tells their names and lines.
 *
 * The file stacks-<pid>-<n>.bin is drawn in FORMAT.md. Numbers count from 1. Code objects may be freed and their
 * addresses used again; the type's deallocator is wrapped, so that a known one that goes is forgotten, and with it
 * every hash that it was part of. */
#include "intern.h"

#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

struct frame_layout intern_layout;
_Atomic uint64_t intern_epoch;
uint32_t intern_depth;

enum {
    STACK_SLOTS = 1 << 18, /* stacks per process; the table's memory is touched only as it fills */
    CODE_SLOTS = 1 << 17,
    TP_DEALLOC = 48, /* of PyTypeObject, in every version */
    OB_TYPE = 8,
    TEXT_MAX = 1 << 20,
};

struct known_stack {
    uint64_t hash;
    uint32_t id;
};

struct known_code {
    uintptr_t code; /* 0: free; 1: once used */
    uint32_t id;
};

static struct known_stack *stacks;
static struct known_code *codes;
static uint32_t stack_count, code_count;
static pthread_mutex_t intern_lock = PTHREAD_MUTEX_INITIALIZER;
static const void *code_type;
static void (*real_dealloc)(void *);
static bool watching; /* our deallocator is in place */

/* Records are put together here, under the lock. */
static struct {
    unsigned char bytes[1 << 16];
    size_t used;
    int fd;
    bool failed;
} out;

static void flush(void) {
    size_t done = 0;
    while (!out.failed && done < out.used) {
        ssize_t wrote = write(out.fd, out.bytes + done, out.used - done);
        if (wrote < 0 && errno == EINTR) {
            continue;
        }
        out.failed = wrote <= 0;
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    out.used = 0;
}

static void put(const void *data, size_t size) {
    const unsigned char *from = data;
    while (size > 0) {
        size_t room = sizeof out.bytes - out.used, part = size < room ? size : room;
        memcpy(out.bytes + out.used, from, part);
        out.used += part;
        from += part;
        size -= part;
        if (out.used == sizeof out.bytes) {
            flush();
        }
    }
}

static void put_u32(uint32_t value) {
    put(&value, sizeof value);
}

/* Read memory that another thread may be changing or giving back; false instead of a fault. */
bool intern_peek(uintptr_t address, void *to, size_t size) {
    struct iovec here = {to, size}, there = {(void *)address, size};
    return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == (ssize_t)size;
}

/* Characters of a compact str, or the bytes of a bytes object: where they are, how many, and how wide. */
struct blob {
    uintptr_t data;
    uint32_t width, length;
};

static bool describe_text(uintptr_t object, struct blob *blob) {
    uint64_t length = 0;
    uint32_t state = 0;
    /* PyASCIIObject: length at 16; state at 32, with kind in bits 2-4, compact in 5, ascii in 6 */
    if (object == 0 || !intern_peek(object + 16, &length, sizeof length) ||
        !intern_peek(object + 32, &state, sizeof state) || (state & 0x20) == 0 || length > TEXT_MAX) {
        return false;
    }
    blob->width = (state >> 2) & 7;
    blob->length = (uint32_t)length;
    blob->data = object + ((state & 0x40) != 0 ? intern_layout.text_ascii : intern_layout.text_other);
    return true;
}

static bool describe_bytes(uintptr_t object, struct blob *blob) {
    uint64_t length = 0;
    /* PyBytesObject: ob_size at 16, the bytes at 32 */
    if (object == 0 || !intern_peek(object + 16, &length, sizeof length) || length > TEXT_MAX) {
        return false;
    }
    *blob = (struct blob){object + 32, 1, (uint32_t)length};
    return true;
}

static void put_blob(const struct blob *blob) {
    unsigned char part[512];
    size_t size = (size_t)blob->width * blob->length;
    put_u32(blob->width);
    put_u32(blob->length);
    for (size_t at = 0; at < size; at += sizeof part) {
        size_t now = size - at < sizeof part ? size - at : sizeof part;
        memset(part, '?', now);
        intern_peek(blob->data + at, part, now);
        put(part, now);
    }
}

/* CODE: u32 kind 1, u32 id, i32 first line, then file name, name and line table: u32 width, u32 length, characters */
static bool write_code(uintptr_t code, uint32_t id) {
    struct blob file, name, lines;
    uintptr_t pointers[3] = {0};
    int32_t first_line = 0;
    if (!intern_peek(code + intern_layout.code_filename, &pointers[0], sizeof pointers[0]) ||
        !intern_peek(code + intern_layout.code_name, &pointers[1], sizeof pointers[1]) ||
        !intern_peek(code + intern_layout.code_linetable, &pointers[2], sizeof pointers[2]) ||
        !intern_peek(code + intern_layout.code_first_line, &first_line, sizeof first_line) ||
        !describe_text(pointers[0], &file) || !describe_text(pointers[1], &name) ||
        !describe_bytes(pointers[2], &lines)) {
        return false;
    }
    put_u32(1);
    put_u32(id);
    put_u32((uint32_t)first_line);
    put_blob(&file);
    put_blob(&name);
    put_blob(&lines);
    return true;
}

static struct known_code *code_slot(uintptr_t code) {
    struct known_code *reusable = NULL;
    for (uint32_t i = 0; i < CODE_SLOTS; i++) {
        struct known_code *slot = &codes[((code >> 4) * 0x9E3779B1u + i) % CODE_SLOTS];
        if (slot->code == code) {
            return slot;
        }
        if (slot->code == 1 && reusable == NULL) {
            reusable = slot;
        }
        if (slot->code == 0) {
            return reusable != NULL ? reusable : slot;
        }
    }
    return reusable;
}

/* The number of a code object, written out when it is new; 0 if `code` is none (frames of C code have other things). */
static uint32_t code_id(uintptr_t code) {
    const void *type = NULL;
    struct known_code *slot = code_slot(code);
    if (slot == NULL) {
        return 0;
    }
    if (slot->code == code) {
        return slot->id;
    }
    if (code < 4096 || !intern_peek(code + OB_TYPE, &type, sizeof type) || type != code_type ||
        !write_code(code, code_count + 1)) {
        return 0;
    }
    slot->code = code;
    slot->id = ++code_count;
    return slot->id;
}

static uint32_t instruction_offset(const struct stack_frame *frame) {
    if (intern_layout.instruction_size == 4) {
        return (uint32_t)frame->instruction * intern_layout.instruction_scale;
    }
    return (uint32_t)(frame->instruction - frame->code - intern_layout.code_start);
}

/* STACK: u32 kind 2, u32 id, u32 depth, u32 truncated, then depth x {u32 code id, u32 byte offset of the instruction}
 */
static void write_stack(uint32_t id, const struct stack_frame *frames, uint32_t count, bool truncated) {
    uint32_t ids[STACK_DEPTH_MAX], depth = 0;
    for (uint32_t i = 0; i < count; i++) {
        ids[i] = code_id(frames[i].code);
        depth += ids[i] != 0;
    }
    put_u32(2);
    put_u32(id);
    put_u32(depth);
    put_u32(truncated);
    for (uint32_t i = 0; i < count; i++) {
        if (ids[i] != 0) {
            put_u32(ids[i]);
            put_u32(instruction_offset(&frames[i]));
        }
    }
}

/* The slot of `hash`, or the free one where it belongs; NULL when the table is (nearly) full. */
static struct known_stack *stack_slot(uint64_t hash) {
    for (uint32_t i = 0; stack_count < STACK_SLOTS - STACK_SLOTS / 8; i++) {
        struct known_stack *slot = &stacks[(hash + i) % STACK_SLOTS];
        if (slot->id == 0 || slot->hash == hash) {
            return slot;
        }
    }
    store_note("more distinct Python stacks than there is room for: the later ones were not recorded");
    return NULL;
}

static uint32_t write_new(struct known_stack *slot, uint64_t hash, const struct stack_frame *frames, uint32_t count,
                          bool truncated) {
    char path[PATH_MAX];
    if (!store_sibling(path, sizeof path, "stacks")) {
        return 0;
    }
    out.fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    out.failed = out.fd < 0;
    out.used = 0;
    write_stack(stack_count + 1, frames, count, truncated);
    flush();
    if (out.fd >= 0) {
        close(out.fd);
    }
    if (out.failed) {
        store_note("Python stacks could not be written (disk full?): some are missing");
        return 0;
    }
    slot->hash = hash;
    slot->id = ++stack_count;
    return slot->id;
}

uint32_t intern_stack(uint64_t hash, const struct stack_frame *frames, uint32_t count, bool truncated) {
    pthread_mutex_lock(&intern_lock);
    struct known_stack *slot = stack_slot(hash);
    uint32_t id = 0;
    if (slot != NULL) {
        id = slot->id != 0 ? slot->id : write_new(slot, hash, frames, count, truncated);
    }
    pthread_mutex_unlock(&intern_lock);
    return id;
}

/* In place of the code type's deallocator: forget a known code object before its address can serve another. */
static void forget_code(void *code) {
    pthread_mutex_lock(&intern_lock);
    struct known_code *slot = code_slot((uintptr_t)code);
    if (slot != NULL && slot->code == (uintptr_t)code) {
        slot->code = 1;
        atomic_fetch_add_explicit(&intern_epoch, 2, memory_order_relaxed);
    }
    pthread_mutex_unlock(&intern_lock);
    real_dealloc(code);
}

static void **dealloc_slot(void) {
    return (void **)((uintptr_t)code_type + TP_DEALLOC);
}

static void watch_code(void) {
    if (watching) {
        return; /* somebody has wrapped our wrapper and keeps it */
    }
    watching = true;
    *(void **)&real_dealloc = *dealloc_slot();
    __atomic_store_n(dealloc_slot(), (void *)(uintptr_t)forget_code, __ATOMIC_RELEASE);
}

static void *table(size_t count, size_t size) {
    void *memory = mmap(NULL, count * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* Begin a new file, to which nothing is known yet. The epoch makes every remembered hash miss. */
static void intern_reset(void) {
    if (stacks != NULL) {
        madvise(stacks, STACK_SLOTS * sizeof *stacks, MADV_DONTNEED);
        madvise(codes, CODE_SLOTS * sizeof *codes, MADV_DONTNEED);
    }
    stack_count = code_count = 0;
    atomic_fetch_add_explicit(&intern_epoch, 2, memory_order_relaxed);
}

void intern_after_fork(void) {
    pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    intern_lock = fresh;
    intern_reset();
}

/* Prepare for the interpreter at hand; false if its stacks cannot or shall not be read. */
bool intern_start(const struct elf_object *python, const char *version, unsigned depth) {
    intern_depth = depth < STACK_DEPTH_MAX ? depth : STACK_DEPTH_MAX;
    if (depth == 0) {
        return false;
    }
    if (stacks != NULL) {
        watch_code(); /* a later recording in the same process */
        return true;
    }
    code_type = elf_symbol(python, "PyCode_Type", NULL);
    if (code_type == NULL || !frames_layout(elf_symbol(python, "_PyRuntime", NULL), version, &intern_layout)) {
        store_note("this interpreter's frames are not known: recorded without Python stacks");
        return false;
    }
    stacks = table(STACK_SLOTS, sizeof *stacks);
    codes = table(CODE_SLOTS, sizeof *codes);
    if (stacks == NULL || codes == NULL) {
        if (stacks != NULL) {
            munmap(stacks, STACK_SLOTS * sizeof *stacks);
            stacks = NULL;
        }
        return false;
    }
    watch_code();
    return true;
}

/* Give the deallocator back, unless somebody has wrapped it after us, and the tables' memory. */
void intern_stop(void) {
    if (stacks == NULL) {
        return;
    }
    if (*dealloc_slot() == (void *)(uintptr_t)forget_code) {
        watching = false;
        __atomic_store_n(dealloc_slot(), *(void **)&real_dealloc, __ATOMIC_RELEASE);
    }
    pthread_mutex_lock(&intern_lock);
    intern_reset();
    pthread_mutex_unlock(&intern_lock);
}
