/* Does the object that an address lies in define a symbol? dladdr and dlsym would tell, but they wait for whoever is
 * inside of a library's constructor. */
#include "object.h"

#include "libc.h"
#include "text.h"

struct search {
    uintptr_t address;
    const char *symbol;
    bool found;
};

struct table {
    const ElfW(Sym) * symbols;
    const char *strings;
    const uint32_t *gnu_hash, *sysv_hash;
};

/* glibc relocates the addresses in PT_DYNAMIC in place, musl does not. */
static const void *address_of(const struct dl_phdr_info *info, const ElfW(Dyn) * entry) {
    uintptr_t value = entry->d_un.d_ptr;
    return (const void *)(value < info->dlpi_addr ? value + info->dlpi_addr : value);
}

static struct table read_table(const struct dl_phdr_info *info, const ElfW(Dyn) * entry) {
    struct table table = {0};
    for (; entry->d_tag != DT_NULL; entry++) {
        switch (entry->d_tag) {
        case DT_SYMTAB: table.symbols = address_of(info, entry); break;
        case DT_STRTAB: table.strings = address_of(info, entry); break;
        case DT_GNU_HASH: table.gnu_hash = address_of(info, entry); break;
        case DT_HASH: table.sysv_hash = address_of(info, entry); break;
        default: break;
        }
    }
    return table;
}

static bool defines(const struct table *table, uint32_t index, const char *symbol) {
    const ElfW(Sym) *entry = &table->symbols[index];
    return entry->st_shndx != SHN_UNDEF && text_equal(table->strings + entry->st_name, symbol);
}

/* nbuckets, symoffset, bloom_size, bloom_shift, bloom words, buckets, chain of hashes whose lowest bit ends it */
static bool in_gnu_hash(const struct table *table, const char *symbol) {
    const uint32_t *head = table->gnu_hash;
    const uint32_t *buckets = (const uint32_t *)((const ElfW(Addr) *)(head + 4) + head[2]);
    uint32_t hash = 5381;
    for (const char *c = symbol; *c != 0; c++) {
        hash = hash * 33 + (unsigned char)*c;
    }
    uint32_t index = head[0] != 0 ? buckets[hash % head[0]] : 0;
    if (index < head[1]) {
        return false;
    }
    const uint32_t *chain = buckets + head[0] - head[1];
    for (;; index++) {
        if ((chain[index] | 1u) == (hash | 1u) && defines(table, index, symbol)) {
            return true;
        }
        if ((chain[index] & 1u) != 0) {
            return false;
        }
    }
}

/* nbucket, nchain, which is the number of symbols */
static bool in_sysv_hash(const struct table *table, const char *symbol) {
    for (uint32_t index = 1; index < table->sysv_hash[1]; index++) {
        if (defines(table, index, symbol)) {
            return true;
        }
    }
    return false;
}

static int visit(struct dl_phdr_info *info, size_t size, void *data) {
    (void)size;
    struct search *search = data;
    const ElfW(Dyn) *dynamic = NULL;
    bool inside = false;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + segment->p_vaddr;
        inside |= segment->p_type == PT_LOAD && search->address - start < segment->p_memsz;
        if (segment->p_type == PT_DYNAMIC) {
            dynamic = (const void *)start;
        }
    }
    if (!inside || dynamic == NULL) {
        return inside;
    }
    struct table table = read_table(info, dynamic);
    if (table.symbols != NULL && table.strings != NULL) {
        search->found = table.gnu_hash != NULL    ? in_gnu_hash(&table, search->symbol)
                        : table.sysv_hash != NULL ? in_sysv_hash(&table, search->symbol)
                                                  : false;
    }
    return 1;
}

bool object_at_defines(uintptr_t address, const char *symbol) {
    struct search search = {address, symbol, false};
    return dl_iterate_phdr != NULL && dl_iterate_phdr(visit, &search) != 0 && search.found;
}
