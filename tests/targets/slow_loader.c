/* A library in which a thread stays until a byte comes on descriptor SLOW_LOADER, with the loader's lock held: in the
 * constructor, in the destructor (SLOW_END), or while it goes through the loaded objects (`walk`). */
#define _GNU_SOURCE
#include <link.h>
#include <stdlib.h>
#include <unistd.h>

static void wait_at(const char *variable) {
    const char *descriptor = getenv(variable);
    char byte;
    while (descriptor != NULL && read(atoi(descriptor), &byte, 1) != 1) {
    }
}

__attribute__((constructor)) static void begin(void) {
    wait_at("SLOW_LOADER");
}

__attribute__((destructor)) static void end(void) {
    wait_at("SLOW_END");
}

static int visit(struct dl_phdr_info *info, size_t size, void *data) {
    (void)info, (void)size, (void)data;
    wait_at("SLOW_WALK");
    return 1;
}

void walk(void) {
    dl_iterate_phdr(visit, NULL);
}
