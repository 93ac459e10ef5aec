/* Another tool: it counts the interpreter's calls of pthread_mutex_lock, by way of the same slots that giltrace uses,
 * and calls what it found in them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

enum { SLOTS = 8, PAGE = 4096 };

typedef int lock_call(pthread_mutex_t *);

static struct {
    lock_call **place;
    lock_call *found;
} slots[SLOTS];
static int count;
static long seen;
static lock_call *real;

static int mine(pthread_mutex_t *mutex) {
    __atomic_fetch_add(&seen, 1, __ATOMIC_RELAXED);
    return real(mutex);
}

long calls(void) {
    return seen;
}

static void search(struct link_map *map, const ElfW(Rela) * table, size_t bytes, const ElfW(Sym) * symbols,
                   const char *strings) {
    for (size_t i = 0; i < bytes / sizeof *table; i++) {
        unsigned type = (unsigned)ELF64_R_TYPE(table[i].r_info);
        const char *name = strings + symbols[ELF64_R_SYM(table[i].r_info)].st_name;
#if defined(__x86_64__)
        int fits = type == R_X86_64_JUMP_SLOT || type == R_X86_64_GLOB_DAT;
#else
        int fits = type == R_AARCH64_JUMP_SLOT || type == R_AARCH64_GLOB_DAT;
#endif
        if (fits && count < SLOTS && strcmp(name, "pthread_mutex_lock") == 0) {
            slots[count++].place = (lock_call **)(map->l_addr + table[i].r_offset);
        }
    }
}

/* Find the slots of the object that `of` is part of; returns how many there are. */
int find(void *of) {
    Dl_info info;
    struct link_map *map;
    const ElfW(Rela) * tables[2] = {0};
    size_t bytes[2] = {0};
    const ElfW(Sym) *symbols = NULL;
    const char *strings = NULL;
    dladdr1(of, &info, (void **)&map, RTLD_DL_LINKMAP);
    for (const ElfW(Dyn) *entry = map->l_ld; entry->d_tag != DT_NULL; entry++) {
        const void *pointer = (const void *)entry->d_un.d_ptr;
        switch (entry->d_tag) {
        case DT_SYMTAB: symbols = pointer; break;
        case DT_STRTAB: strings = pointer; break;
        case DT_JMPREL: tables[0] = pointer; break;
        case DT_PLTRELSZ: bytes[0] = entry->d_un.d_val; break;
        case DT_RELA: tables[1] = pointer; break;
        case DT_RELASZ: bytes[1] = entry->d_un.d_val; break;
        default: break;
        }
    }
    for (int i = 0; i < 2; i++) {
        search(map, tables[i], bytes[i], symbols, strings);
    }
    return count;
}

/* As in /proc/self/maps: "r--p". */
static void protection(const void *at, char out[5]) {
    char line[512];
    unsigned long start, end;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps) != NULL &&
           (sscanf(line, "%lx-%lx %4s", &start, &end, out) != 3 || (unsigned long)at >= end)) {
    }
    fclose(maps);
}

static void write_slot(int i, lock_call *value) {
    void *page = (void *)((unsigned long)slots[i].place & ~(PAGE - 1ul));
    char before[5];
    protection(slots[i].place, before);
    mprotect(page, PAGE, PROT_READ | PROT_WRITE);
    __atomic_store_n(slots[i].place, value, __ATOMIC_RELEASE);
    if (before[1] != 'w') {
        mprotect(page, PAGE, PROT_READ);
    }
}

void come(void) {
    real = *slots[0].place;
    for (int i = 0; i < count; i++) {
        slots[i].found = *slots[i].place;
        write_slot(i, mine);
    }
}

void go(void) {
    for (int i = 0; i < count; i++) {
        write_slot(i, slots[i].found);
    }
}

/* What stands in the slots, and how their pages are protected. */
void describe(char *out, size_t size) {
    for (int i = 0; i < count; i++) {
        char is[5];
        protection(slots[i].place, is);
        int wrote = snprintf(out, size, "%p %s\n", (void *)*slots[i].place, is);
        out += wrote;
        size -= (size_t)wrote;
    }
}
