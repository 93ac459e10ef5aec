/* Walk Python stacks.
 *
 * A release happens on the thread whose frames are read, before anybody else can have the GIL: nothing moves, so the
 * walk is exact and needs no pause. It only hashes what identifies a stack; a stack seen before costs nothing more. */
#include "stacks.h"

#include "intern.h"
#include "likely.h"

#include <errno.h>
#include <sys/mman.h>

struct cached {
    uint64_t hash;
    uint32_t id;
};

static void *(*this_thread_state)(void);
static bool walking;

void stacks_start(const struct elf_object *python, const char *version, unsigned depth) {
    *(void **)&this_thread_state = elf_symbol(python, "PyGILState_GetThisThreadState", NULL);
    walking = this_thread_state != NULL && intern_start(python, version, depth);
}

void *stacks_state(void) {
    return walking ? this_thread_state() : NULL;
}

static inline uintptr_t load(uintptr_t address) {
    return *(const uintptr_t *)address;
}

static inline uintptr_t load_instruction(uintptr_t address) {
    return intern_layout.instruction_size == 4 ? (uintptr_t) * (const uint32_t *)address : load(address);
}

static inline uintptr_t first_frame(uintptr_t state) {
    uintptr_t frame = load(state + intern_layout.state_frame);
    return intern_layout.cframe_current < 0 || frame == 0 ? frame
                                                          : load(frame + (uintptr_t)intern_layout.cframe_current);
}

static inline uint64_t mix(uint64_t hash, uintptr_t code, uintptr_t instruction) {
    hash = (hash ^ code) * 0x9E3779B97F4A7C15ull;
    return (hash ^ (hash >> 29)) + instruction * 0xC2B2AE3D27D4EB4Full;
}

static uint64_t seed(void) {
    return atomic_load_explicit(&intern_epoch, memory_order_relaxed) | 1;
}

/* The code's tag bits (a stack reference from 3.14 on) are no part of its address. */
static inline uintptr_t untagged(uintptr_t code) {
    return code & ~(uintptr_t)7;
}

/* A thread's cache is memory of its own: thread-local storage would come off stacks that may be small. */
static struct cached *own_cache(struct thread *thread) {
    if (unlikely(thread->stack_cache == NULL)) {
        void *memory =
            mmap(NULL, STACK_CACHE * sizeof(struct cached), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        thread->stack_cache = memory == MAP_FAILED ? NULL : memory;
    }
    return thread->stack_cache;
}

void stacks_end(struct thread *thread) {
    if (thread->stack_cache != NULL) {
        munmap(thread->stack_cache, STACK_CACHE * sizeof(struct cached));
        thread->stack_cache = NULL;
    }
}

static __attribute__((noinline)) uint32_t intern_own(uintptr_t frame, uint64_t hash) {
    struct stack_frame frames[STACK_DEPTH_MAX];
    uint32_t count = 0;
    while (frame != 0 && count < intern_depth) {
        frames[count].code = untagged(load(frame + intern_layout.code));
        frames[count++].instruction = load_instruction(frame + intern_layout.instruction);
        frame = load(frame + intern_layout.previous);
    }
    int saved_errno = errno;
    uint32_t id = intern_stack(hash, frames, count, frame != 0);
    errno = saved_errno;
    return id;
}

/* The number of the calling thread's stack; 0 if it has no Python frame or stacks are off. */
uint32_t stacks_own(struct thread *thread) {
    uintptr_t state = (uintptr_t)stacks_state();
    thread->state = (void *)state;
    if (state == 0) {
        return 0;
    }
    uintptr_t top = first_frame(state);
    uint64_t hash = seed();
    uint32_t left = intern_depth;
    for (uintptr_t frame = top; frame != 0 && left != 0; frame = load(frame + intern_layout.previous), left--) {
        hash =
            mix(hash, untagged(load(frame + intern_layout.code)), load_instruction(frame + intern_layout.instruction));
    }
    if (hash == seed()) {
        return 0;
    }
    struct cached *cache = own_cache(thread);
    if (cache == NULL) {
        return 0;
    }
    struct cached *slot = &cache[hash % STACK_CACHE];
    if (unlikely(slot->hash != hash)) {
        slot->id = intern_own(top, hash);
        slot->hash = hash;
    }
    return slot->id;
}

/* The number of the stack of the thread that holds the GIL, read while it runs: a sample, and 0 where it cannot be had.
 */
uint32_t stacks_of_holder(const void *state) {
    struct stack_frame frames[STACK_DEPTH_MAX];
    uint32_t count = 0;
    uintptr_t frame = 0;
    uint64_t hash = seed();
    if (!walking || state == NULL || !intern_peek((uintptr_t)state + intern_layout.state_frame, &frame, sizeof frame)) {
        return 0;
    }
    if (intern_layout.cframe_current >= 0 &&
        (frame == 0 || !intern_peek(frame + (uintptr_t)intern_layout.cframe_current, &frame, sizeof frame))) {
        return 0;
    }
    int saved_errno = errno;
    while (frame != 0 && count < intern_depth) {
        uintptr_t code = 0, instruction = 0;
        if (!intern_peek(frame + intern_layout.code, &code, sizeof code) ||
            !intern_peek(frame + intern_layout.instruction, &instruction, intern_layout.instruction_size) ||
            !intern_peek(frame + intern_layout.previous, &frame, sizeof frame)) {
            break;
        }
        frames[count].code = untagged(code);
        frames[count].instruction = instruction;
        hash = mix(hash, frames[count].code, instruction);
        count++;
    }
    uint32_t id = count == 0 ? 0 : intern_stack(hash, frames, count, frame != 0);
    errno = saved_errno;
    return id;
}

/* The recording is over: code objects go without us again. */
void stacks_stop(void) {
    walking = false;
    intern_stop();
}

void stacks_after_fork(void) {
    intern_after_fork();
}
