/* The loaded objects, looked through without the loader's lock. */
#ifndef GILTRACE_OBJECT_H
#define GILTRACE_OBJECT_H

#include <stdbool.h>
#include <stdint.h>

bool object_at_defines(uintptr_t address, const char *symbol);

#endif
