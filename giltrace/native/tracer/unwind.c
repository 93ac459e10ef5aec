/* How did a thread come back for the GIL: straight from the eval loop, or through one of the functions that end a
 * release of its own accord? Its native stack tells, from the hook up to one of the two, past a few frames of the
 * interpreter's. What lies beyond them may be another stack's, or none, and is not looked at.
 *
 * An API function may not have a frame, where it ends in a jump to another function: then the call tells, which names
 * it. The eval loop may be in a part of its own that the compiler has put elsewhere: that jumps back into it. */
#include "unwind.h"

#include "cfi.h"
#include "peek.h"

#include <string.h>

enum { OWN_MAX = 8, PYTHON_MAX = 6, PAGE = 4096 };

static const char *const api_names[] = {"PyEval_RestoreThread", "PyEval_AcquireThread", "PyEval_AcquireLock",
                                        "PyThreadState_Swap", "PyGILState_Ensure"};
enum { API_COUNT = sizeof api_names / sizeof api_names[0] };

static uintptr_t api[API_COUNT];
static struct cfi_extent loop;
static struct elf_object own, interpreter;

/* Where this library is: the linker's. */
extern const char __ehdr_start[] __attribute__((visibility("hidden")));

void unwind_resolve(const struct elf_object *python) {
    interpreter = *python;
    elf_at((uintptr_t)__ehdr_start, &own);
    for (int i = 0; i < API_COUNT; i++) {
        api[i] = (uintptr_t)elf_symbol(python, api_names[i], NULL);
    }
    size_t size = 0;
    loop.start = (uintptr_t)elf_symbol(python, "_PyEval_EvalFrameDefault", &size);
    loop.end = loop.start + size;
}

static bool is_api(uintptr_t start) {
    for (int i = 0; i < API_COUNT; i++) {
        if (start != 0 && start == api[i]) {
            return true;
        }
    }
    return false;
}

/* The page of our own frame is there, and so is the rest of a live stack: but is it one? */
static __attribute__((noinline, no_sanitize("address", "thread"))) bool read_stack(uintptr_t address, uintptr_t *out) {
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    if (address % sizeof *out == 0 && address / PAGE == here / PAGE) {
        *out = *(volatile const uintptr_t *)address;
        return true;
    }
    return peek_own(address, out, sizeof *out);
}

/* The interpreter's code is there for as long as it runs. */
static bool read_code(uintptr_t address, void *to, size_t size) {
    if (elf_in_text(&interpreter, address) && elf_in_text(&interpreter, address + size - 1)) {
        memcpy(to, (const void *)address, size);
        return true;
    }
    return peek_own(address, to, size);
}

/* The function that the instruction before a return address calls, past the stub of another object's; 0 if that is in a
 * register. */
static uintptr_t called_before(uintptr_t back) {
    uintptr_t target = 0, slot = 0;
    uint8_t stub[ELF_STUB_SIZE];
#if defined(__x86_64__)
    uint8_t code[6];
    int32_t distance;
    if (!read_code(back - sizeof code, code, sizeof code)) {
        return 0;
    }
    memcpy(&distance, code + 2, sizeof distance);
    if (code[0] == 0xFF && code[1] == 0x15) { /* call *slot */
        slot = back + (uintptr_t)(intptr_t)distance;
    } else if (code[1] == 0xE8) {
        target = back + (uintptr_t)(intptr_t)distance;
    }
#else
    uint32_t code;
    if (!read_code(back - sizeof code, &code, sizeof code)) {
        return 0;
    }
    if (code >> 26 == 0x25) { /* bl */
        target = back - sizeof code + (uintptr_t)((int64_t)((uint64_t)code << 38) >> 36);
    }
#endif
    if (target != 0 && read_code(target, stub, sizeof stub)) {
        slot = elf_stub_slot(stub, target);
    }
    return slot != 0 && !peek_own(slot, &target, sizeof target) ? 0 : target;
}

/* Does the code jump to within the eval loop? */
static bool is_part_of_loop(const struct cfi_extent *extent) {
    const uint8_t *code = (const uint8_t *)extent->start, *end = (const uint8_t *)extent->end;
#if defined(__x86_64__)
    for (; end - code >= 5; code++) {
        int32_t distance;
        memcpy(&distance, code + 1, sizeof distance);
        uintptr_t target = (uintptr_t)code + 5 + (uintptr_t)(intptr_t)distance;
        if (*code == 0xE9 && target > loop.start && target < loop.end) {
            return true;
        }
    }
#else
    for (; end - code >= 4; code += 4) {
        uint32_t word;
        memcpy(&word, code, sizeof word);
        uintptr_t target = (uintptr_t)code + (uintptr_t)((int64_t)((uint64_t)word << 38) >> 36);
        if (word >> 26 == 0x05 && target > loop.start && target < loop.end) { /* b */
            return true;
        }
    }
#endif
    return false;
}

/* Where this function is; the rest follows from its own description. */
#if defined(__x86_64__)
#define CAPTURE(frame)                                                                                                 \
    __asm__ volatile("lea 0(%%rip), %0\n\tmov %%rsp, %1\n\tmov %%rbp, %2"                                              \
                     : "=&r"((frame).code), "=&r"((frame).stack), "=&r"((frame).frame))
#else
#define CAPTURE(frame)                                                                                                 \
    __asm__ volatile("adr %0, .\n\tmov %1, sp\n\tmov %2, x29\n\tmov %3, x30"                                           \
                     : "=&r"((frame).code), "=&r"((frame).stack), "=&r"((frame).frame), "=&r"((frame).link))
#endif

/* Called by a hook that the interpreter has called for the GIL, at most as often as others ask for that. */
__attribute__((noinline)) bool unwind_meets_api(void) {
    struct cfi_frame frame = {0};
    struct cfi_extent extent;
    CAPTURE(frame);
    int own_count = 0, python_count = 0;
    while (elf_in_text(&own, frame.code) && python_count == 0) {
        if (++own_count > OWN_MAX || !cfi_find(&own, &frame, &extent) || !cfi_step(&extent, &frame, read_stack)) {
            return false;
        }
    }
    while (elf_in_text(&interpreter, frame.code)) {
        if (++python_count > PYTHON_MAX || !cfi_find(&interpreter, &frame, &extent)) {
            return false;
        }
        if (is_api(extent.start)) {
            return true;
        }
        if (extent.start == loop.start || is_part_of_loop(&extent) || !cfi_step(&extent, &frame, read_stack)) {
            return false;
        }
        uintptr_t called = called_before(frame.code);
        bool outside = !elf_in_text(&interpreter, frame.code);
        if (is_api(called) || (called == 0 && outside)) {
            return true;
        }
    }
    return false;
}
