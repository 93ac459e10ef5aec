/* Fills every register, waits ("read": in a system call, "spin": in its own code) until a byte comes on its standard
 * input, and prints a line for everything that is not as it was: registers, signal mask, alternate stack, errno. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef WIDE
#define VECTORS 32
#define WIDTH 64
#else
#define VECTORS 16
#define WIDTH 32
#endif

uint64_t general_in[16], general_out[16];
uint8_t vectors_in[32][64] __attribute__((aligned(64))), vectors_out[32][64] __attribute__((aligned(64)));
uint64_t masks_in[8], masks_out[8];
uint32_t mxcsr_in, mxcsr_out;
uint16_t x87_in, x87_out;
uint64_t own_stack;
volatile uint8_t go;

void fill_and_wait(long spin);

/* In the order of the index: rax rbx rcx rdx rsi rdi rbp r8-r15. */
__asm__(".text\n"
        ".globl fill_and_wait\n"
        "fill_and_wait:\n"
        "  push %rbx\n  push %rbp\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
        "  sub $128, %rsp\n"
        "  mov %rsp, own_stack(%rip)\n"
        "  ldmxcsr mxcsr_in(%rip)\n  fldcw x87_in(%rip)\n"
#define LOAD_BYTES(n, kind) "  vmovdqu" kind " vectors_in+64*" #n "(%rip), %"
#ifdef WIDE
#define VECTOR_IN(n) LOAD_BYTES(n, "64") "zmm" #n "\n"
#define VECTOR_OUT(n) "  vmovdqu64 %zmm" #n ", vectors_out+64*" #n "(%rip)\n"
#else
#define VECTOR_IN(n) LOAD_BYTES(n, "") "ymm" #n "\n"
#define VECTOR_OUT(n) "  vmovdqu %ymm" #n ", vectors_out+64*" #n "(%rip)\n"
#endif
#define MASK_IN(n) "  kmovw masks_in+8*" #n "(%rip), %k" #n "\n"
#define MASK_OUT(n) "  kmovw %k" #n ", masks_out+8*" #n "(%rip)\n"
#define EIGHT(F, a, b, c, d, e, f, g, h) F(a) F(b) F(c) F(d) F(e) F(f) F(g) F(h)
#ifdef WIDE
#define ALL(F) EIGHT(F, 0, 1, 2, 3, 4, 5, 6, 7) EIGHT(F, 8, 9, 10, 11, 12, 13, 14, 15) \
    EIGHT(F, 16, 17, 18, 19, 20, 21, 22, 23) EIGHT(F, 24, 25, 26, 27, 28, 29, 30, 31)
        EIGHT(MASK_IN, 0, 1, 2, 3, 4, 5, 6, 7)
#else
#define ALL(F) EIGHT(F, 0, 1, 2, 3, 4, 5, 6, 7) EIGHT(F, 8, 9, 10, 11, 12, 13, 14, 15)
#endif
        ALL(VECTOR_IN)
        "  cmp $0, %rdi\n"
#define GENERAL(F) F(0, "rax") F(1, "rbx") F(2, "rcx") F(3, "rdx") F(4, "rsi") F(5, "rdi") F(6, "rbp") F(7, "r8") \
    F(8, "r9") F(9, "r10") F(10, "r11") F(11, "r12") F(12, "r13") F(13, "r14") F(14, "r15")
#define GENERAL_IN(n, name) "  mov general_in+8*" #n "(%rip), %" name "\n"
#define GENERAL_OUT(n, name) "  mov %" name ", general_out+8*" #n "(%rip)\n"
        GENERAL(GENERAL_IN)
        "  jne 1f\n"
        "  syscall\n"
        "  jmp 2f\n"
        "1: cmpb $0, go(%rip)\n"
        "  je 1b\n"
        "2:\n" GENERAL(GENERAL_OUT) ALL(VECTOR_OUT)
#ifdef WIDE
            EIGHT(MASK_OUT, 0, 1, 2, 3, 4, 5, 6, 7)
#endif
        "  stmxcsr mxcsr_out(%rip)\n  fnstcw x87_out(%rip)\n"
        "  mov own_stack(%rip), %rax\n  sub %rsp, %rax\n  mov %rax, general_out+8*15(%rip)\n"
        "  add $128, %rsp\n"
        "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbp\n  pop %rbx\n"
        "  vzeroupper\n"
        "  ret\n");

static void *wait_for_byte(void *unused) {
    char byte;
    go = read(0, &byte, 1) == 1;
    return unused;
}

static int wrong(const char *what, int index, int is_wrong) {
    if (is_wrong) {
        printf("%s %d changed\n", what, index);
    }
    return is_wrong;
}

int main(int argc, char **argv) {
    int spin = argc > 1 && strcmp(argv[1], "spin") == 0, changed = 0;
    char byte;
    static char alternate[1 << 16];
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate}, stack_after;
    sigaltstack(&stack, NULL);
    pthread_t thread;
    if (spin) {
        pthread_create(&thread, NULL, wait_for_byte, NULL);
    }
    sigset_t mask, mask_after;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigaddset(&mask, SIGRTMIN + 3);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    for (int i = 0; i < 16; i++) {
        general_in[i] = 0x0123456789abcdefu * (uint64_t)(i + 3);
    }
    for (int i = 0; i < VECTORS * 64; i++) {
        vectors_in[i / 64][i % 64] = (uint8_t)(i * 7 + i / 64 + 1);
    }
    for (int i = 0; i < 8; i++) {
        masks_in[i] = 0xa5a5u ^ (uint64_t)(i * 0x1111);
    }
    mxcsr_in = 0x7fa0; /* round to zero, an exception flag */
    x87_in = 0x0f7f;   /* round to zero */
    if (!spin) {
        general_in[0] = 0; /* read(0, &byte, 1), which gives 1 and loses rcx and r11 */
        general_in[5] = 0;
        general_in[4] = (uint64_t)&byte;
        general_in[3] = 1;
    }
    printf("ready\n");
    fflush(stdout);
    errno = 12345;
    fill_and_wait(spin);
    int errno_after = errno;
    pthread_sigmask(SIG_SETMASK, NULL, &mask_after);
    sigaltstack(NULL, &stack_after);
    if (!spin) {
        changed += wrong("result", 0, general_out[0] != 1);
        general_out[0] = general_in[0];
        general_out[2] = general_in[2];
        general_out[10] = general_in[10];
    }
    for (int i = 0; i < 15; i++) {
        changed += wrong("general register", i, general_in[i] != general_out[i]);
    }
    changed += wrong("stack pointer", 0, general_out[15] != 0);
    for (int i = 0; i < VECTORS; i++) {
        changed += wrong("vector register", i, memcmp(vectors_in[i], vectors_out[i], WIDTH) != 0);
    }
#ifdef WIDE
    for (int i = 0; i < 8; i++) {
        changed += wrong("mask register", i, (uint16_t)masks_in[i] != (uint16_t)masks_out[i]);
    }
#endif
    changed += wrong("mxcsr", 0, mxcsr_in != mxcsr_out);
    changed += wrong("x87 control word", 0, x87_in != x87_out);
    for (int i = 1; i < 65; i++) {
        changed += wrong("signal", i, sigismember(&mask, i) != sigismember(&mask_after, i));
    }
    changed += wrong("alternate stack", 0, memcmp(&stack, &stack_after, sizeof stack) != 0);
    changed += wrong("errno", errno_after, errno_after != 12345);
    printf("%d changed\n", changed);
    return changed != 0;
}
