/* Where each CPython keeps its frames. 3.13 and later publish their offsets at the head of _PyRuntime; for the versions
 * before, the table holds what their headers say. That a build is as its version says is not taken on trust: the code
 * type has to look like one, and before the first walk a stack is followed with care and has to make sense. What is not
 * recognised is traced without stacks. */
#include "frames.h"

#include "peek.h"

#include <stdio.h>
#include <string.h>

enum { CHECKED_FRAMES = 64, MANY_LINES = 1 << 28, NO_OBJECT = 4096 /* no object lies below */ };

struct frame_layout frames_layout;
struct frame_types frames_types;

static const struct {
    int minor;
    struct frame_layout layout;
} tables[] = {
    /* PyFrameObject: f_back, f_code, f_lasti; the latter in bytes up to 3.9, in units of two bytes in 3.10 */
    {8, {24, -1, 24, 32, 104, 4, 1, 104, 112, 120, 40, 0, 176, 48, 72, 8, true, 544, true, true, 0}},
    {9, {24, -1, 24, 32, 104, 4, 1, 104, 112, 120, 40, 0, 176, 48, 72, 8, true, 816, false, true, 0}},
    {10, {24, -1, 24, 32, 96, 4, 2, 104, 112, 120, 40, 0, 176, 48, 72, 8, true, 816, false, true, 0}},
    /* _PyInterpreterFrame: previous, f_code, prev_instr; co_qualname instead of co_name from here on */
    {11, {56, 8, 48, 32, 56, 8, 1, 112, 128, 136, 72, 184, 184, 48, 72, 16, true, 848, false, true, 0}},
    {12, {56, 0, 8, 0, 56, 8, 1, 112, 128, 136, 68, 192, 192, 40, 56, 72, false, 312, false, true, 0}},
};

/* _Py_DebugOffsets: cookie, version, free_threaded, then groups of 8-byte offsets, each begun by a size. The groups
 * grew from one version to the next, so the places of the three that matter most are listed. */
static const struct {
    int minor;
    unsigned state, frame, code, gc_place, gc;
} published[] = {
    {13, 19, 28, 34, 10, 71},
    {14, 22, 31, 39, 11, 81},
    {15, 22, 39, 47, 11, 94},
};
enum { INTERPRETER_SIZE = 6, THREADS_HEAD = 9 };

/* From this version on each thread of a free-threaded build executes a copy of a function's code of its own, which does
 * not tell by its place which instruction it is. */
enum { THREADS_OWN_CODE = 14 };

/* The collector's state as it was up to 3.12: its newest generation's address stands between the generations and
 * `collecting`, and says that this is the place. */
enum { GENERATIONS_BEFORE = 176, NEWEST_BEFORE = 104 };

static uintptr_t runtime_state;

/* The sizes that begin the groups tell whether the places are right. */
static bool makes_sense(const uint64_t *state, const uint64_t *frame, const uint64_t *code) {
    return state[1] == STATE_PREVIOUS && state[2] == STATE_NEXT && state[3] == STATE_INTERPRETER &&
           state[0] > state[4] && frame[0] > frame[3] && frame[0] < 256 && code[0] > code[5] && code[9] == code[0] - 8;
}

static bool read_published(const uint64_t *runtime, int minor) {
    for (size_t i = 0; i < sizeof published / sizeof published[0]; i++) {
        if (published[i].minor != minor || memcmp(runtime, "xdebugpy", 8) != 0 ||
            runtime[1] >> 16 != (0x300u | (unsigned)minor)) {
            continue;
        }
        bool free_threaded = runtime[2] != 0;
        if (free_threaded && minor >= THREADS_OWN_CODE) {
            return false;
        }
        const uint64_t *state = runtime + published[i].state, *frame = runtime + published[i].frame;
        const uint64_t *code = runtime + published[i].code;
        frames_layout = (struct frame_layout){
            .state_frame = (uint32_t)state[4],
            .cframe_current = -1,
            .previous = (uint32_t)frame[1],
            .code = (uint32_t)frame[2],
            .instruction = (uint32_t)frame[3],
            .instruction_size = 8,
            .instruction_scale = 1,
            .code_filename = (uint32_t)code[1],
            .code_name = (uint32_t)code[3],
            .code_linetable = (uint32_t)code[4],
            .code_first_line = (uint32_t)code[5],
            .code_start = (uint32_t)code[9],
            .code_size = (uint32_t)code[9],
            .text_ascii = 40,
            .text_other = 56,
            .first_state = (uint32_t)runtime[THREADS_HEAD],
            .wider = free_threaded ? 16 : 0,
        };
        const uint64_t *gc = runtime + published[i].gc;
        uint64_t place = runtime[published[i].gc_place];
        if (gc[0] > gc[1] && gc[1] % sizeof(int) == 0 && place + gc[0] <= runtime[INTERPRETER_SIZE]) {
            frames_layout.collecting = (uint32_t)(place + gc[1]);
        }
        return makes_sense(state, frame, code);
    }
    return false;
}

/* "3.12.0 (main, ...) ..."; alphas and betas ("3.12.0b1") are not as the tables say. */
static bool choose_layout(const void *runtime, const char *version) {
    int minor = 0, micro = 0, used = 0;
    if (sscanf(version, "3.%d.%d%n", &minor, &micro, &used) != 2) {
        return false;
    }
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        if (tables[i].minor == minor) {
            frames_layout = tables[i].layout;
            return version[used] != 'a' && version[used] != 'b';
        }
    }
    return runtime != NULL && read_published(runtime, minor);
}

static bool is_type(uintptr_t type, const char *expected) {
    uintptr_t name = 0;
    char found[16] = {0};
    size_t size = strlen(expected) + 1;
    return type != 0 && peek_own(type + frames_field(TYPE_NAME), &name, sizeof name) && peek_own(name, found, size) &&
           memcmp(found, expected, size) == 0;
}

static bool recognise(const struct elf_object *python, const char *version) {
    frames_types = (struct frame_types){
        .code = (uintptr_t)elf_symbol(python, "PyCode_Type", NULL),
        .text = (uintptr_t)elf_symbol(python, "PyUnicode_Type", NULL),
        .bytes = (uintptr_t)elf_symbol(python, "PyBytes_Type", NULL),
    };
    uint64_t size = 0;
    runtime_state = (uintptr_t)elf_symbol(python, "_PyRuntime", NULL);
    return choose_layout((const void *)runtime_state, version) && is_type(frames_types.code, "code") &&
           is_type(frames_types.text, "str") && is_type(frames_types.bytes, "bytes") &&
           peek_own(frames_types.code + frames_field(TYPE_SIZE), &size, sizeof size) && size == frames_layout.code_size;
}

/* Choose the layout of the interpreter `python`, whose `Py_GetVersion()` this is; false if it is not known. Once: the
 * hooks of a recording that has ended may still look at it. */
bool frames_choose(const struct elf_object *python, const char *version) {
    static bool asked, known;
    if (!asked) {
        known = recognise(python, version);
        asked = true;
    }
    return known;
}

static bool points_to(uintptr_t field, uintptr_t type) {
    uintptr_t object = 0, found = 0;
    return peek_own(field, &object, sizeof object) &&
           peek_own(object + frames_field(OBJECT_TYPE), &found, sizeof found) && found == type;
}

static bool lies_within(uintptr_t code, uintptr_t instruction) {
    if (frames_layout.instruction_size == 4) {
        return (int32_t)instruction >= -1 && (int32_t)instruction < MANY_LINES;
    }
    int64_t units = 0;
    intptr_t offset = (intptr_t)(instruction - code) - (intptr_t)frames_layout.code_start;
    return peek_own(code + frames_field(OBJECT_SIZE), &units, sizeof units) && offset >= -2 && offset < 2 * units;
}

static bool is_code(uintptr_t code, uintptr_t instruction) {
    int32_t first_line = -1;
    return points_to(code + frames_layout.code_filename, frames_types.text) &&
           points_to(code + frames_layout.code_name, frames_types.text) &&
           points_to(code + frames_layout.code_linetable, frames_types.bytes) &&
           peek_own(code + frames_layout.code_first_line, &first_line, sizeof first_line) && first_line >= 0 &&
           first_line < MANY_LINES && lies_within(code, instruction);
}

/* Does the stack of the live thread state make sense? Only such as has a frame can tell. */
enum frames_verdict frames_check(uintptr_t state) {
    uintptr_t frame = 0;
    bool found = false;
    if (!peek_own(state + frames_layout.state_frame, &frame, sizeof frame) ||
        (frame != 0 && frames_layout.cframe_current >= 0 &&
         !peek_own(frame + (uintptr_t)frames_layout.cframe_current, &frame, sizeof frame))) {
        return FRAMES_WRONG;
    }
    for (int i = 0; frame != 0 && i < CHECKED_FRAMES; i++) {
        uintptr_t code = 0, instruction = 0, type = 0;
        if (!peek_own(frame + frames_layout.code, &code, sizeof code) ||
            !peek_own(frame + frames_layout.instruction, &instruction, frames_layout.instruction_size) ||
            !peek_own(frame + frames_layout.previous, &frame, sizeof frame)) {
            return FRAMES_WRONG;
        }
        code = frames_untagged(code);
        if (code < NO_OBJECT) {
            continue;
        }
        if (!peek_own(code + frames_field(OBJECT_TYPE), &type, sizeof type)) {
            return FRAMES_WRONG;
        }
        if (type == frames_types.code) {
            if (!is_code(code, instruction)) {
                return FRAMES_WRONG;
            }
            found = true;
        }
    }
    return found ? FRAMES_RIGHT : FRAMES_NONE;
}

/* Does the interpreter of the thread state collect garbage? False also where that is not known. */
bool frames_collecting(uintptr_t state) {
    uintptr_t owner = runtime_state, newest = 0;
    int collecting = 0;
    if (frames_layout.collecting == 0 ||
        (!frames_layout.of_runtime && !peek(state + STATE_INTERPRETER, &owner, sizeof owner))) {
        return false;
    }
    uintptr_t place = owner + frames_layout.collecting;
    if (frames_layout.generations &&
        (!peek(place - NEWEST_BEFORE, &newest, sizeof newest) || newest != place - GENERATIONS_BEFORE)) {
        return false;
    }
    return peek(place, &collecting, sizeof collecting) && collecting == 1;
}
