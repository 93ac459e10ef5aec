/* Where each CPython keeps its frames. 3.13 and later publish their offsets at the head of _PyRuntime; for the versions
 * before, the table holds what their headers say. A version that is not known here is traced without stacks. */
#include "frames.h"

#include <stdio.h>
#include <string.h>

static const struct {
    int minor;
    struct frame_layout layout;
} tables[] = {
    /* PyFrameObject: f_back, f_code, f_lasti; the latter in bytes up to 3.9, in units of two bytes in 3.10 */
    {8, {24, -1, 24, 32, 104, 4, 1, 104, 112, 120, 40, 0, 48, 72}},
    {9, {24, -1, 24, 32, 104, 4, 1, 104, 112, 120, 40, 0, 48, 72}},
    {10, {24, -1, 24, 32, 96, 4, 2, 104, 112, 120, 40, 0, 48, 72}},
    /* _PyInterpreterFrame: previous, f_code, prev_instr; co_qualname instead of co_name from here on */
    {11, {56, 8, 48, 32, 56, 8, 1, 112, 128, 136, 72, 184, 48, 72}},
    {12, {56, 0, 8, 0, 56, 8, 1, 112, 128, 136, 68, 192, 40, 56}},
};

/* _Py_DebugOffsets: cookie, version, free_threaded, then groups of 8-byte offsets, each begun by a size. The groups
 * grew from one version to the next, so the places of the three that matter here are listed. */
static const struct {
    int minor;
    unsigned state, frame, code, start;
} published[] = {
    {13, 19, 28, 34, 9},
    {14, 22, 31, 39, 10},
    {15, 22, 39, 47, 10},
};

static bool read_published(const uint64_t *runtime, int minor, struct frame_layout *out) {
    for (size_t i = 0; i < sizeof published / sizeof published[0]; i++) {
        if (published[i].minor != minor || memcmp(runtime, "xdebugpy", 8) != 0) {
            continue;
        }
        const uint64_t *state = runtime + published[i].state, *frame = runtime + published[i].frame;
        const uint64_t *code = runtime + published[i].code;
        *out = (struct frame_layout){
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
            .text_ascii = 40,
            .text_other = 56,
        };
        /* The sizes that begin the groups tell whether the places are right. */
        return state[0] > state[4] && frame[0] > frame[3] && frame[0] < 256 && code[0] > code[5] &&
               code[9] == code[0] - 8;
    }
    return false;
}

bool frames_layout(const void *runtime, const char *version, struct frame_layout *out) {
    int minor = 0;
    if (sscanf(version, "3.%d.", &minor) != 1) {
        return false;
    }
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        if (tables[i].minor == minor) {
            *out = tables[i].layout;
            return true;
        }
    }
    return runtime != NULL && read_published(runtime, minor, out);
}
