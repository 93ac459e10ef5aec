/* The native frames between a hook and the interpreter's eval loop, as far as one question needs them. */
#ifndef GILTRACE_UNWIND_H
#define GILTRACE_UNWIND_H

#include "elf.h"

#include <stdbool.h>

void unwind_resolve(const struct elf_object *python);
bool unwind_meets_api(void);

#endif
