/* The objects that are loaded in this process: what they define, and what they import. */
#ifndef GILTRACE_ELF_H
#define GILTRACE_ELF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A loaded object: what the dynamic linker knows of it. */
struct elf_object {
    uintptr_t base;
    const void *dynamic;
    uintptr_t relro_start, relro_end;
};

struct elf_redirect {
    const char *symbol;
    void *target;
};

bool elf_find_defining(const char *symbol, struct elf_object *object);
void *elf_symbol(const struct elf_object *object, const char *symbol, size_t *size);
int elf_redirect_imports(const struct elf_object *object, const struct elf_redirect *redirects, size_t count);

#endif
