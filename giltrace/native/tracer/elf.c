/* Find the object that is the interpreter, and redirect what it imports, in that object only. */
#include "elf.h"

#include "system.h"

#include <elf.h>
#include <errno.h>
#include <link.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SLOTS_MAX = 64 };

#if defined(__x86_64__)
static const uint8_t ENDBR64[] = {0xF3, 0x0F, 0x1E, 0xFA};
#else
enum { BTI_C = 0xD503245F };
#endif

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

/* What is looked for: the object that defines `symbol`. */
struct search {
    const char *symbol;
    struct elf_object *object;
};

static void read_segment(struct elf_object *object, const ElfW(Phdr) * segment) {
    uintptr_t start = object->base + segment->p_vaddr, end = start + segment->p_memsz;
    if (segment->p_type == PT_DYNAMIC) {
        object->dynamic = (const void *)start;
    } else if (segment->p_type == PT_GNU_EH_FRAME) {
        object->frame_table = (const uint8_t *)start;
    } else if (segment->p_type == PT_GNU_RELRO) {
        object->relro_start = start;
        object->relro_end = end;
    } else if (segment->p_type == PT_LOAD && (segment->p_flags & (PF_R | PF_X)) == (PF_R | PF_X)) {
        object->text_start = object->text_start == 0 || start < object->text_start ? start : object->text_start;
        object->text_end = end > object->text_end ? end : object->text_end;
    }
}

static int visit(struct dl_phdr_info *info, size_t size, void *data) {
    (void)size;
    struct search *search = data;
    struct elf_object object = {.base = info->dlpi_addr};
    for (int i = 0; i < info->dlpi_phnum; i++) {
        read_segment(&object, &info->dlpi_phdr[i]);
    }
    /* The vDSO's PT_DYNAMIC holds offsets on some kernels and nothing of interest on all. */
    if (object.dynamic == NULL || strstr(info->dlpi_name, "vdso") != NULL) {
        return 0;
    }
    bool found = elf_symbol(&object, search->symbol, NULL) != NULL;
    if (found) {
        *search->object = object;
    }
    return found;
}

/* The loader's list is locked meanwhile, and stays so for ever in a child that another thread forks then: nothing for a
 * process that does as it likes. */
bool elf_find_defining(const char *symbol, struct elf_object *object) {
    struct search search = {.symbol = symbol, .object = object};
    return dl_iterate_phdr(visit, &search) == 1;
}

/* The object whose ELF header is loaded at this address; false if it is none. */
bool elf_at(uintptr_t header, struct elf_object *object) {
    const ElfW(Ehdr) *head = (const void *)header;
    const ElfW(Phdr) *segments = (const void *)(header + head->e_phoff);
    *object = (struct elf_object){0};
    for (int i = head->e_phnum; i-- > 0;) {
        object->base =
            segments[i].p_type == PT_LOAD ? header - segments[i].p_vaddr + segments[i].p_offset : object->base;
    }
    for (int i = 0; i < head->e_phnum; i++) {
        read_segment(object, &segments[i]);
    }
    return object->dynamic != NULL;
}

/* The slot that a stub in a procedure linkage table jumps through; 0 if the ELF_STUB_SIZE bytes of `code`, which lie at
 * `address`, are none. */
uintptr_t elf_stub_slot(const uint8_t *code, uintptr_t address) {
#if defined(__x86_64__)
    size_t at = memcmp(code, ENDBR64, sizeof ENDBR64) == 0 ? sizeof ENDBR64 : 0;
    at += code[at] == 0xF2; /* bnd */
    int32_t distance;
    memcpy(&distance, code + at + 2, sizeof distance);
    return code[at] == 0xFF && code[at + 1] == 0x25 ? address + at + 6 + (uintptr_t)(intptr_t)distance : 0;
#else
    uint32_t words[ELF_STUB_SIZE / 4];
    memcpy(words, code, sizeof words);
    size_t at = words[0] == BTI_C;
    /* adrp x16, page; ldr x17, [x16, #offset] */
    if ((words[at] & 0x9F00001F) != 0x90000010 || (words[at + 1] & 0xFFC003FF) != 0xF9400211) {
        return 0;
    }
    int64_t pages = (int64_t)((uint64_t)(words[at] >> 5 & 0x7FFFF) << 45) >> 43 | (words[at] >> 29 & 3);
    uintptr_t page = ((address + at * 4) & ~(uintptr_t)0xFFF) + ((uintptr_t)pages << 12);
    return page + (words[at + 1] >> 10 & 0xFFF) * 8;
#endif
}

/* The slots that have been written to, once and for all: a place that was left is come back to. */
static struct slot {
    void **place;
    const struct elf_hook *hook;
    void *found; /* what stood there, and is put back */
    bool buried; /* when we left, somebody else's function stood there: it may well call ours */
} slots[SLOTS_MAX];
static int slot_count;

static struct slot *slot_at(void **place, const struct elf_hook *hook) {
    for (int i = 0; i < slot_count; i++) {
        if (slots[i].place == place) {
            return &slots[i];
        }
    }
    if (slot_count == SLOTS_MAX) {
        return NULL;
    }
    slots[slot_count] = (struct slot){.place = place, .hook = hook};
    return &slots[slot_count++];
}

/* Adding nothing to a word in the kernel's way changes nothing, and fails where it may not be written. */
static bool is_writable(void **place) {
    long operation = FUTEX_OP(FUTEX_OP_ADD, 0, FUTEX_OP_CMP_EQ, 0);
    return system_call(SYS_futex, (long)place, FUTEX_WAKE_OP_PRIVATE, 0, 0, (long)place, operation) != -EFAULT;
}

/* Most objects' slots are read-only once they are relocated. The page is left as it was found. */
bool elf_write(void **place, void *value) {
    uintptr_t page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    void *page = (void *)((uintptr_t)place & ~(page_size - 1));
    bool closed = !is_writable(place);
    if (closed && mprotect(page, page_size, PROT_READ | PROT_WRITE) != 0) {
        return false;
    }
    __atomic_store_n(place, value, __ATOMIC_RELEASE);
    if (closed) {
        mprotect(page, page_size, PROT_READ);
    }
    return true;
}

/* The object's own way to the original: its stub for calls, or what binds a function that was never called yet. */
static bool is_own_way(const struct elf_object *object, const void *found) {
    if (!elf_in_text(object, (uintptr_t)found)) {
        return false;
    }
    const uint8_t *code = found;
    if (elf_stub_slot(code, (uintptr_t)code) != 0) {
        return true;
    }
#if defined(__x86_64__)
    code += memcmp(code, ENDBR64, sizeof ENDBR64) == 0 ? sizeof ENDBR64 : 0;
    return *code == 0x68; /* push $number; jmp ... */
#else
    const uint32_t *word = found;
    return word[word[0] == BTI_C] == 0xA9BF7BF0; /* stp x16, x30, [sp, #-16]! */
#endif
}

/* What the target is to call: the original, unless one of the slots held another tool's function. */
static void choose_next(const struct elf_object *object, const struct elf_hook *hook) {
    void *next = hook->original;
    for (int i = 0; i < slot_count; i++) {
        if (slots[i].hook == hook && slots[i].found != NULL && !is_own_way(object, slots[i].found)) {
            next = slots[i].found != hook->original ? slots[i].found : next;
        }
    }
    __atomic_store_n(hook->next, next, __ATOMIC_RELAXED);
}

/* Let what goes through the slot come to us. A function that another tool put there after ours is left: it may call
 * ours, and the two would call each other. */
static bool take_slot(const struct elf_object *object, void **place, const struct elf_hook *hook) {
    struct slot *slot = slot_at(place, hook);
    void *now = __atomic_load_n(place, __ATOMIC_ACQUIRE);
    if (slot == NULL) {
        return false;
    }
    if (now == hook->target || (slot->buried && now != hook->original && !is_own_way(object, now))) {
        return true;
    }
    slot->buried = false;
    slot->found = now;
    choose_next(object, hook);
    return elf_write(place, hook->target);
}

static int hook_table(const struct elf_object *object, const struct dynamic *dynamic, uintptr_t table, size_t bytes,
                      size_t stride, const struct elf_hook *hook) {
    int taken = 0;
    for (size_t at = 0; at + stride <= bytes; at += stride) {
        /* Elf_Rel is the first two fields of Elf_Rela. */
        const ElfW(Rel) *entry = (const void *)(table + at);
        unsigned type = (unsigned)ELF64_R_TYPE(entry->r_info);
        if (type != RELOC_JUMP_SLOT && type != RELOC_GLOB_DAT) {
            continue;
        }
        const char *name = dynamic->strings + dynamic->symbols[ELF64_R_SYM(entry->r_info)].st_name;
        if (strcmp(name, hook->symbol) == 0) {
            taken += take_slot(object, (void **)(object->base + entry->r_offset), hook);
        }
    }
    return taken;
}

/* Redirect the import, wherever a slot for it exists; returns how many slots lead to the target now. */
int elf_hook(const struct elf_object *object, const struct elf_hook *hook) {
    struct dynamic dynamic;
    read_dynamic(object, &dynamic);
    size_t jump_stride = dynamic.jump_is_rela ? sizeof(ElfW(Rela)) : sizeof(ElfW(Rel));
    int taken = 0;
    taken += hook_table(object, &dynamic, dynamic.jump, dynamic.jump_size, jump_stride, hook);
    taken += hook_table(object, &dynamic, dynamic.reloc, dynamic.rela_size, sizeof(ElfW(Rela)), hook);
    taken += hook_table(object, &dynamic, dynamic.rel, dynamic.rel_size, sizeof(ElfW(Rel)), hook);
    return taken;
}

/* Put back what was found, where ours still stands. The target stays callable: somebody may have taken its address. */
void elf_unhook(const struct elf_hook *hook) {
    for (int i = 0; i < slot_count; i++) {
        struct slot *slot = &slots[i];
        if (slot->hook == hook) {
            bool ours = __atomic_load_n(slot->place, __ATOMIC_ACQUIRE) == hook->target;
            slot->buried = !ours || !elf_write(slot->place, slot->found);
        }
    }
}
