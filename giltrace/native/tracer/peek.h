/* Memory that may not be there, or may be going. */
#ifndef GILTRACE_PEEK_H
#define GILTRACE_PEEK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool peek(uintptr_t address, void *to, size_t size);
bool peek_own(uintptr_t address, void *to, size_t size);

#endif
