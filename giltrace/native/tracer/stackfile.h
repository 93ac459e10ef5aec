/* The file of stacks: records, one after the other. */
#ifndef GILTRACE_STACKFILE_H
#define GILTRACE_STACKFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum stackfile_kind { STACKFILE_PADDING = 3, STACKFILE_CODE = 4, STACKFILE_STACK = 5, STACKFILE_TYPE = 6 };

bool stackfile_append(enum stackfile_kind kind, uint32_t *record, size_t words);
void stackfile_reserve(size_t size);
void stackfile_reset(void);

#endif
