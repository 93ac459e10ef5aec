/* System calls as the kernel takes them: they are no cancellation points, leave errno alone, pass by whatever else has
 * put itself in libc's place, and need no symbol of any libc. A result from -4095 to -1 is a negated errno. */
#ifndef GILTRACE_SYSTEM_H
#define GILTRACE_SYSTEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

static inline long system_call(long number, long a, long b, long c, long d, long e, long f) {
#if defined(__x86_64__)
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
#else
#error "giltrace's tracer knows x86-64 and aarch64"
#endif
}

static inline bool system_failed(long result) {
    return (unsigned long)result > -4096ul;
}

/* Memory of our own, zeroed, and taken from the machine only as it is touched; NULL if there is none. */
static inline void *system_memory(size_t size) {
    long memory = system_call(SYS_mmap, 0, (long)size, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return system_failed(memory) ? NULL : (void *)memory;
}

#endif
