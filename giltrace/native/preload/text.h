/* Texts of bounded length, put together without a libc. */
#ifndef GILTRACE_TEXT_H
#define GILTRACE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct text {
    char *at, *end; /* where the next byte goes; where the last, which is 0, must be */
    bool cut;
};

static inline struct text text_begin(char *room, size_t size) {
    *room = 0;
    return (struct text){room, room + size - 1, false};
}

static inline void text_add(struct text *text, const char *what) {
    for (; *what != 0 && text->at < text->end; what++) {
        *text->at++ = *what;
    }
    *text->at = 0;
    text->cut |= *what != 0;
}

static inline void text_add_number(struct text *text, long number) {
    char digits[20];
    struct text reversed = text_begin(digits, sizeof digits);
    for (; number > 9; number /= 10) {
        *reversed.at++ = (char)('0' + number % 10);
    }
    char one[] = {(char)('0' + number), 0};
    text_add(text, one);
    while (reversed.at > digits) {
        one[0] = *--reversed.at;
        text_add(text, one);
    }
}

static inline bool text_equal(const char *one, const char *other) {
    for (; *one != 0 && *one == *other; one++, other++) {
    }
    return *one == *other;
}

#endif
