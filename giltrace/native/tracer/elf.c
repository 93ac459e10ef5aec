/* Find the object that is the interpreter, and redirect what it imports, in that object only. */
#include "elf.h"

#include <elf.h>
#include <link.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__x86_64__)
enum { RELOC_JUMP_SLOT = R_X86_64_JUMP_SLOT, RELOC_GLOB_DAT = R_X86_64_GLOB_DAT };
#elif defined(__aarch64__)
enum { RELOC_JUMP_SLOT = R_AARCH64_JUMP_SLOT, RELOC_GLOB_DAT = R_AARCH64_GLOB_DAT };
#else
#error "giltrace's tracer knows x86-64 and aarch64"
#endif

/* The parts of PT_DYNAMIC that matter here. */
struct dynamic {
    const ElfW(Sym) * symbols;
    const char *strings;
    const uint32_t *gnu_hash;
    const uint32_t *sysv_hash;
    uintptr_t jump, reloc;
    size_t jump_size, rela_size, rel_size;
    uintptr_t rel;
    bool jump_is_rela;
};

/* glibc relocates the addresses in PT_DYNAMIC in place, musl does not. */
static uintptr_t absolute(const struct elf_object *object, uintptr_t value) {
    return value < object->base ? value + object->base : value;
}

static void read_dynamic(const struct elf_object *object, struct dynamic *out) {
    memset(out, 0, sizeof *out);
    for (const ElfW(Dyn) *entry = object->dynamic; entry->d_tag != DT_NULL; entry++) {
        uintptr_t address = absolute(object, entry->d_un.d_ptr);
        switch (entry->d_tag) {
        case DT_SYMTAB: out->symbols = (const void *)address; break;
        case DT_STRTAB: out->strings = (const void *)address; break;
        case DT_GNU_HASH: out->gnu_hash = (const void *)address; break;
        case DT_HASH: out->sysv_hash = (const void *)address; break;
        case DT_JMPREL: out->jump = address; break;
        case DT_PLTRELSZ: out->jump_size = entry->d_un.d_val; break;
        case DT_PLTREL: out->jump_is_rela = entry->d_un.d_val == DT_RELA; break;
        case DT_RELA: out->reloc = address; break;
        case DT_RELASZ: out->rela_size = entry->d_un.d_val; break;
        case DT_REL: out->rel = address; break;
        case DT_RELSZ: out->rel_size = entry->d_un.d_val; break;
        default: break;
        }
    }
}

static const ElfW(Sym) * match(const struct dynamic *dynamic, uint32_t index, const char *name) {
    const ElfW(Sym) *symbol = &dynamic->symbols[index];
    bool defined = symbol->st_shndx != SHN_UNDEF && symbol->st_value != 0;
    return defined && strcmp(dynamic->strings + symbol->st_name, name) == 0 ? symbol : NULL;
}

/* GNU hash section: nbuckets, symoffset, bloom_size, bloom_shift, bloom words, buckets, chain of hashes. */
static const ElfW(Sym) * find_gnu(const struct dynamic *dynamic, const char *name) {
    const uint32_t *table = dynamic->gnu_hash;
    uint32_t bucket_count = table[0], first = table[1], bloom_size = table[2];
    const uint32_t *buckets = (const uint32_t *)((const ElfW(Addr) *)(table + 4) + bloom_size);
    const uint32_t *chain = buckets + bucket_count;
    uint32_t hash = 5381;
    for (const unsigned char *c = (const unsigned char *)name; *c != 0; c++) {
        hash = hash * 33 + *c;
    }
    if (bucket_count == 0) {
        return NULL;
    }
    uint32_t index = buckets[hash % bucket_count];
    if (index < first) {
        return NULL;
    }
    for (;; index++) {
        uint32_t entry = chain[index - first];
        if ((entry | 1u) == (hash | 1u)) {
            const ElfW(Sym) *symbol = match(dynamic, index, name);
            if (symbol != NULL) {
                return symbol;
            }
        }
        if ((entry & 1u) != 0) {
            return NULL;
        }
    }
}

/* The older hash section begins with nbucket, nchain; nchain is the number of symbols. */
static const ElfW(Sym) * find_sysv(const struct dynamic *dynamic, const char *name) {
    for (uint32_t index = 1; index < dynamic->sysv_hash[1]; index++) {
        const ElfW(Sym) *symbol = match(dynamic, index, name);
        if (symbol != NULL) {
            return symbol;
        }
    }
    return NULL;
}

/* The address that the object defines `name` at, and its `size` where that is wanted; NULL if it does not. */
void *elf_symbol(const struct elf_object *object, const char *name, size_t *size) {
    struct dynamic dynamic;
    read_dynamic(object, &dynamic);
    if (dynamic.symbols == NULL || dynamic.strings == NULL) {
        return NULL;
    }
    const ElfW(Sym) *symbol = NULL;
    if (dynamic.gnu_hash != NULL) {
        symbol = find_gnu(&dynamic, name);
    } else if (dynamic.sysv_hash != NULL) {
        symbol = find_sysv(&dynamic, name);
    }
    if (symbol == NULL) {
        return NULL;
    }
    if (size != NULL) {
        *size = symbol->st_size;
    }
    return (void *)(object->base + symbol->st_value);
}

struct search {
    const char *symbol;
    struct elf_object *object;
};

static int visit(struct dl_phdr_info *info, size_t size, void *data) {
    (void)size;
    struct search *search = data;
    struct elf_object object = {.base = info->dlpi_addr};
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        if (segment->p_type == PT_DYNAMIC) {
            object.dynamic = (const void *)(object.base + segment->p_vaddr);
        } else if (segment->p_type == PT_GNU_RELRO) {
            object.relro_start = object.base + segment->p_vaddr;
            /* Whole pages only: what shares its page with data that is written stays writable. */
            uintptr_t page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
            object.relro_end = (object.relro_start + segment->p_memsz) & ~(page_size - 1);
        }
    }
    /* The vDSO's PT_DYNAMIC holds offsets on some kernels and nothing of interest on all. */
    if (object.dynamic == NULL || strstr(info->dlpi_name, "vdso") != NULL ||
        elf_symbol(&object, search->symbol, NULL) == NULL) {
        return 0;
    }
    *search->object = object;
    return 1;
}

bool elf_find_defining(const char *symbol, struct elf_object *object) {
    struct search search = {symbol, object};
    return dl_iterate_phdr(visit, &search) == 1;
}

/* A relro page is read-only once the object is relocated: open it for the write, then close it again. */
static bool write_slot(const struct elf_object *object, void **slot, void *value) {
    uintptr_t page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t address = (uintptr_t)slot;
    void *page = (void *)(address & ~(page_size - 1));
    bool relro = address >= object->relro_start && address < object->relro_end;
    if (relro && mprotect(page, page_size, PROT_READ | PROT_WRITE) != 0) {
        return false;
    }
    __atomic_store_n(slot, value, __ATOMIC_RELEASE);
    if (relro) {
        mprotect(page, page_size, PROT_READ);
    }
    return true;
}

static int redirect_table(const struct elf_object *object, const struct dynamic *dynamic, uintptr_t table, size_t bytes,
                          size_t stride, const struct elf_redirect *redirects, size_t count) {
    int written = 0;
    for (size_t at = 0; at + stride <= bytes; at += stride) {
        /* Elf_Rel is the first two fields of Elf_Rela. */
        const ElfW(Rel) *entry = (const void *)(table + at);
        unsigned type = (unsigned)ELF64_R_TYPE(entry->r_info);
        if (type != RELOC_JUMP_SLOT && type != RELOC_GLOB_DAT) {
            continue;
        }
        const char *name = dynamic->strings + dynamic->symbols[ELF64_R_SYM(entry->r_info)].st_name;
        for (size_t i = 0; i < count; i++) {
            if (strcmp(name, redirects[i].symbol) == 0) {
                written += write_slot(object, (void **)(object->base + entry->r_offset), redirects[i].target);
            }
        }
    }
    return written;
}

/* Redirect each named import, wherever a slot for it exists; returns how many slots were written. */
int elf_redirect_imports(const struct elf_object *object, const struct elf_redirect *redirects, size_t count) {
    struct dynamic dynamic;
    read_dynamic(object, &dynamic);
    size_t jump_stride = dynamic.jump_is_rela ? sizeof(ElfW(Rela)) : sizeof(ElfW(Rel));
    int written = 0;
    written += redirect_table(object, &dynamic, dynamic.jump, dynamic.jump_size, jump_stride, redirects, count);
    written += redirect_table(object, &dynamic, dynamic.reloc, dynamic.rela_size, sizeof(ElfW(Rela)), redirects, count);
    written += redirect_table(object, &dynamic, dynamic.rel, dynamic.rel_size, sizeof(ElfW(Rel)), redirects, count);
    return written;
}
