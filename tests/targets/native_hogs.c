/* Functions that compute for so many steps, and call nothing: what a sample finds them in is known.
 *
 * `hidden` is the function after `nearest` in the library's code. Without the library's own symbols `nearest` is the
 * last one before it that has a name, and a wrong one. */

__attribute__((noinline)) unsigned long exported(unsigned long steps) {
    unsigned long sum = 1;
    for (unsigned long i = 0; i < steps; i++) {
        sum = sum * 6364136223846793005UL + i;
        __asm__ volatile("" : "+r"(sum));
    }
    return sum;
}

__attribute__((noinline)) unsigned long nearest(void) {
    return 1;
}

/* Compilers give a frame only to what needs one. */
#ifdef WITH_FRAME
static volatile unsigned long *kept;
#endif

static __attribute__((noinline)) unsigned long hidden(unsigned long steps) {
    unsigned long sum = 2;
#ifdef WITH_FRAME
    volatile unsigned long local = steps;
    kept = &local;
#endif
    for (unsigned long i = 0; i < steps; i++) {
        sum = sum * 6364136223846793005UL + i;
        __asm__ volatile("" : "+r"(sum));
    }
    return sum;
}

__attribute__((noinline)) unsigned long call_hidden(unsigned long steps) {
    unsigned long sum = hidden(steps) + nearest();
    __asm__ volatile("" : "+r"(sum));
    return sum;
}
