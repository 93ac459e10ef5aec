/* What a libc may offer to what is preloaded into any program. Nothing here is needed: each is weak, so that the
 * library loads under every libc, in programs with half of one, and finds out by itself what there is. */
#ifndef GILTRACE_LIBC_H
#define GILTRACE_LIBC_H

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdbool.h>
#include <stddef.h>

#pragma weak dlopen
#pragma weak dlsym
#pragma weak dlerror
#pragma weak dladdr
#pragma weak dl_iterate_phdr
#pragma weak __errno_location

extern char **environ __attribute__((weak));

/* Defined by the interpreter alone, and by no more than one object that was linked into the program. */
extern char _PyRuntime __attribute__((weak));

/* Each is exported by one libc only. */
extern const char *gnu_get_libc_version(void) __attribute__((weak));
extern void __dls3(void *, void *) __attribute__((weak));

static inline bool libc_is_musl(void) {
    return __dls3 != NULL;
}

static inline bool libc_is_glibc(void) {
    return !libc_is_musl() && gnu_get_libc_version != NULL;
}

static inline int libc_errno(void) {
    return __errno_location != NULL ? errno : 0;
}

static inline void libc_set_errno(int value) {
    if (__errno_location != NULL) {
        errno = value;
    }
}

#endif
