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
    uintptr_t text_start, text_end;   /* from its first code to its last */
    uintptr_t relro_start, relro_end; /* read-only once the object is loaded */
    const uint8_t *frame_table;       /* PT_GNU_EH_FRAME; NULL if it has none */
};

/* An import that is to lead to `target` for a time. */
struct elf_hook {
    const char *symbol;
    void *target;
    void *original; /* what the import means to us */
    void **next;    /* where `target` finds what to call: the original, or what another tool has put in its place */
};

enum { ELF_STUB_SIZE = 16 };

bool elf_find_defining(const char *symbol, struct elf_object *object);
bool elf_at(uintptr_t header, struct elf_object *object);
void *elf_symbol(const struct elf_object *object, const char *symbol, size_t *size);
uintptr_t elf_stub_slot(const uint8_t *code, uintptr_t address);
int elf_hook(const struct elf_object *object, const struct elf_hook *hook);
void elf_unhook(const struct elf_hook *hook);
bool elf_write(void **place, void *value);

static inline bool elf_in_text(const struct elf_object *object, uintptr_t address) {
    return address >= object->text_start && address < object->text_end;
}

#endif
