/* Walk Python stacks.
 *
 * A release happens on the thread whose frames are read, before anybody else can have the GIL: nothing moves, so the
 * walk is exact and needs no pause. It only hashes what identifies a stack; a stack seen before costs nothing more.
 * Nothing is walked from a thread state that is not proven to be live, nor in an interpreter that is not known. */
#include "stacks.h"

#include "codes.h"
#include "file.h"
#include "frames.h"
#include "intern.h"
#include "known.h"
#include "likely.h"
#include "peek.h"

#include <string.h>

enum { FRAME_SPAN = 128 }; /* what matters of a frame lies within */

/* The layout is known, as its version's; then it has proved true of a stack at hand, too. */
enum { OFF, UNPROVEN, PROVEN };

static _Atomic int walking;
static uint32_t depth_max;
static void *(*this_thread_state)(void);
static void *(*holders_state)(void);
static int (*finalizing)(void);

void stacks_start(const struct elf_object *python, const char *version, unsigned depth) {
    atomic_store_explicit(&walking, OFF, memory_order_relaxed);
    if (depth == 0) {
        return;
    }
    depth_max = depth < STACK_DEPTH_MAX ? depth : STACK_DEPTH_MAX;
    /* Found once: threads of the last recording may be on their way to call them still. */
    if (this_thread_state == NULL) {
        void *is_finalizing = elf_symbol(python, "Py_IsFinalizing", NULL); /* from 3.13 on */
        *(void **)&finalizing = is_finalizing != NULL ? is_finalizing : elf_symbol(python, "_Py_IsFinalizing", NULL);
        *(void **)&this_thread_state = elf_symbol(python, "PyGILState_GetThisThreadState", NULL);
    }
    if (this_thread_state == NULL || !frames_choose(python, version)) {
        store_note(strstr(version, "free-threading") != NULL
                       ? "free-threaded build: uses of a GIL are recorded, if there are any, without Python stacks"
                       : "this interpreter's frames are not known: recorded without Python stacks");
        return;
    }
    if (frames_layout.one_current && holders_state == NULL) {
        *(void **)&holders_state = elf_symbol(python, "_PyThreadState_UncheckedGet", NULL);
    }
    if (!intern_start(python)) {
        store_note("the end of code objects cannot be watched: recorded without Python stacks");
        return;
    }
    file_on_reserve(intern_reserve);
    file_on_reserve(known_reserve);
    atomic_store_explicit(&walking, known_start() ? UNPROVEN : OFF, memory_order_release);
}

static inline uintptr_t load(uintptr_t address) {
    return *(const uintptr_t *)address;
}

static inline uintptr_t load_instruction(uintptr_t address) {
    return frames_layout.instruction_size == 4 ? (uintptr_t) * (const uint32_t *)address : load(address);
}

static inline uintptr_t first_frame(uintptr_t state) {
    uintptr_t frame = load(state + frames_layout.state_frame);
    return frames_layout.cframe_current < 0 || frame == 0 ? frame
                                                          : load(frame + (uintptr_t)frames_layout.cframe_current);
}

/* What tells a stack from others, as long as its code objects live. One multiplication waits for the frame before; the
 * rest hides behind it. */
static inline uint64_t digest(uint64_t hash, uintptr_t frame, bool narrow) {
    const struct frame_layout layout = frames_layout;
    for (uint32_t left = depth_max; frame != 0 && left != 0; left--) {
        uintptr_t code = frames_untagged(load(frame + layout.code)), place = frame + layout.instruction;
        uint64_t instruction = narrow ? *(const uint32_t *)place : load(place);
        hash = (hash ^ ((code ^ codes_salt(code)) + instruction * 0xC2B2AE3D27D4EB4Full)) * 0x9E3779B97F4A7C15ull;
        hash ^= hash >> 32;
        frame = load(frame + layout.previous);
    }
    return hash;
}

/* What one recording remembered means nothing in the next. */
static inline uint64_t seed(const struct thread *thread) {
    return (uint64_t)thread->generation << 32 | 1;
}

/* A thread state that is not the thread's own by its thread-local data (of a sub-interpreter, or one that an embedder
 * made) is live if its neighbour, or the interpreter, points to it; a freed one is linked no more. */
static __attribute__((noinline)) bool linked(uintptr_t state) {
    uintptr_t word[3], back = 0;
    if (!peek_own(state, word, sizeof word)) {
        return false;
    }
    uintptr_t previous = word[STATE_PREVIOUS / 8], next = word[STATE_NEXT / 8];
    uintptr_t place = previous != 0 ? previous + STATE_NEXT
                      : next != 0   ? next + STATE_PREVIOUS
                                    : word[STATE_INTERPRETER / 8] + frames_layout.first_state;
    return peek_own(place, &back, sizeof back) && back == state;
}

/* The thread-local pointer is cleared when its thread deletes the state: then there is one release more, which needs no
 * second look. If another thread did that, it is not the state that the GIL was had with. */
static inline bool is_live(struct thread *thread, uintptr_t state) {
    uintptr_t own = (uintptr_t)this_thread_state(), before = thread->own_state;
    thread->own_state = own;
    return state != 0 && (likely(own == state) || ((own != 0 || before != state) && linked(state)));
}

/* The first stack that there is tells whether the interpreter is as its version says. */
static __attribute__((noinline)) bool prove(struct thread *thread, uintptr_t state) {
    if (atomic_load_explicit(&walking, memory_order_relaxed) != UNPROVEN || !is_live(thread, state)) {
        return false;
    }
    enum frames_verdict verdict = frames_check(state);
    if (verdict == FRAMES_NONE) {
        return false;
    }
    if (verdict == FRAMES_WRONG) {
        store_note("this interpreter's frames are not as its version's: recorded without Python stacks");
    }
    int unproven = UNPROVEN;
    atomic_compare_exchange_strong(&walking, &unproven, verdict == FRAMES_RIGHT ? PROVEN : OFF);
    return verdict == FRAMES_RIGHT;
}

/* The number of a stack that nobody remembers; true if it may be remembered. */
static __attribute__((noinline)) bool number(const struct thread *thread, uintptr_t frame, uint64_t hash,
                                             uint32_t *id) {
    struct stack_frame frames[STACK_DEPTH_MAX];
    uint64_t begin = clock_ticks();
    uint32_t count = 0;
    while (frame != 0 && count < depth_max) {
        frames[count].code = frames_untagged(load(frame + frames_layout.code));
        frames[count++].instruction = load_instruction(frame + frames_layout.instruction);
        frame = load(frame + frames_layout.previous);
    }
    bool known = intern_own(thread->generation, frames, count, frame != 0, id);
    if (known && *id != 0) {
        known_keep(hash, *id);
    }
    store_took(clock_ticks() - begin);
    return known;
}

/* An interpreter that ends frees the thread states of all threads but the one that ends it, and those of them that wait
 * for the GIL may have it once more, to find that they are to end. */
static inline bool may_be_freed(const struct thread *thread) {
    const struct gt_header *head = store_header();
    bool ends_it = head != NULL && thread->tid == __atomic_load_n(&head->pid, __ATOMIC_RELAXED);
    return !ends_it && finalizing != NULL && finalizing();
}

/* The number of the calling thread's stack, `state` being the thread state that its GIL was last had with; 0 if it has
 * no Python frame or stacks are off. */
uint32_t stacks_own(struct thread *thread, uintptr_t state) {
    if (unlikely(may_be_freed(thread))) {
        return 0;
    }
    if (unlikely(atomic_load_explicit(&walking, memory_order_acquire) != PROVEN)) {
        if (!prove(thread, state)) {
            return 0;
        }
    } else if (unlikely(!is_live(thread, state))) {
        return 0;
    }
    uintptr_t top = first_frame(state);
    if (top == 0) {
        return 0;
    }
    uint64_t hash =
        frames_layout.instruction_size == 4 ? digest(seed(thread), top, true) : digest(seed(thread), top, false);
    if (likely(hash == thread->stack_hash)) {
        return thread->stack_number;
    }
    uint32_t id = known_recall(hash);
    if (likely(id != 0) || number(thread, top, hash, &id)) {
        thread->stack_hash = hash;
        thread->stack_number = id;
    }
    return id;
}

/* The thread state that is the thread's own, whoever has the GIL; 0 if that is not known. */
uintptr_t stacks_own_state(void) {
    bool possible = atomic_load_explicit(&walking, memory_order_acquire) != OFF;
    return possible ? (uintptr_t)this_thread_state() : 0;
}

/* Where the calling thread is, also if it has no GIL. */
uint32_t stacks_here(struct thread *thread) {
    return stacks_own(thread, stacks_own_state());
}

static bool see_first_frame(uintptr_t state, uintptr_t *frame) {
    return peek(state + frames_layout.state_frame, frame, sizeof *frame) &&
           (frames_layout.cframe_current < 0 ||
            (*frame != 0 && peek(*frame + (uintptr_t)frames_layout.cframe_current, frame, sizeof *frame)));
}

static uintptr_t word_at(const unsigned char *bytes, uint32_t offset, size_t size) {
    uintptr_t word = 0;
    memcpy(&word, bytes + offset, size);
    return word;
}

/* Is the layout proven? Where nobody has given the GIL up yet, the stack of the calling thread, which waits for it,
 * tells. */
static inline bool proven(struct thread *thread) {
    int now = atomic_load_explicit(&walking, memory_order_acquire);
    return likely(now == PROVEN) ||
           (now == UNPROVEN && !may_be_freed(thread) && prove(thread, (uintptr_t)this_thread_state()));
}

/* Can stacks be had from a thread that runs? */
bool stacks_of_others(struct thread *thread) {
    return proven(thread) && !file_careful() && !file_confined();
}

/* The number of a stack whose memory nobody vouches for; 0 where it cannot be had. */
static uint32_t seen(uintptr_t state, struct stacks_instant *instant) {
    struct stack_frame frames[STACK_DEPTH_MAX];
    uint32_t count = 0;
    uintptr_t frame = 0;
    uint64_t begin = clock_ticks();
    if (state == 0 || !see_first_frame(state, &frame)) {
        return 0;
    }
    uint32_t span = frames_layout.instruction + 8;
    span = frames_layout.previous + 8 > span ? frames_layout.previous + 8 : span;
    span = frames_layout.code + 8 > span ? frames_layout.code + 8 : span;
    unsigned char bytes[FRAME_SPAN];
    while (frame != 0 && count < depth_max && peek(frame, bytes, span)) {
        if (count == 0) {
            instant->ticks = clock_ticks();
            instant->collecting = frames_collecting(state);
            instant->count = __atomic_load_n(instant->counter, __ATOMIC_RELAXED);
        }
        frames[count].code = frames_untagged(word_at(bytes, frames_layout.code, 8));
        frames[count++].instruction = word_at(bytes, frames_layout.instruction, frames_layout.instruction_size);
        frame = word_at(bytes, frames_layout.previous, 8);
    }
    uint32_t id = count == 0 ? 0 : intern_seen(self.generation, frames, count, frame != 0);
    store_took(clock_ticks() - begin);
    return id;
}

/* The number of the stack of the thread that holds the GIL, read while it runs: a sample, and 0 where it cannot be had.
 * `state` is the thread state that the GIL was had with. */
uint32_t stacks_of_holder(uintptr_t state, struct stacks_instant *instant) {
    if (atomic_load_explicit(&walking, memory_order_acquire) != PROVEN) {
        return 0;
    }
    uintptr_t current = holders_state != NULL ? (uintptr_t)holders_state() : 0;
    return seen(current != 0 ? current : state, instant);
}

/* Likewise of the calling thread, which has no GIL: an interpreter that ends may free its state at any time. */
uint32_t stacks_of_waiter(struct thread *thread) {
    uint64_t nothing = 0;
    struct stacks_instant instant = {.counter = &nothing};
    return proven(thread) && !may_be_freed(thread) ? seen(stacks_own_state(), &instant) : 0;
}

/* The recording is over: code objects go without us again. */
void stacks_stop(void) {
    atomic_store_explicit(&walking, OFF, memory_order_relaxed);
    intern_stop();
}

void stacks_after_fork(void) {
    intern_after_fork();
}
