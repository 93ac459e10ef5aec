/* syscall(), as it stands before libc's: hands over to the function that would have been called, and tells of a filter
 * before there is one. The stub takes it in under libc's own name, and has it answer a question besides.
 *
 * In assembly, because all registers and the stack must stay as they came: a caller may pass fewer arguments than there
 * can be, so that the last one's place on the stack is anybody's, and its call may go on with a stack of its own. */
#include <asm/unistd.h>

#ifndef SYSCALL
#define SYSCALL confine_syscall
#define SYSCALL_NEXT confine_next_syscall
#define SYSCALL_CONFINE file_reserve
.hidden confine_syscall
#endif

#define PR_SET_SECCOMP 22

.text
.globl SYSCALL
.type SYSCALL, %function
.p2align 4
SYSCALL:
    .cfi_startproc
#if defined(__x86_64__)
    endbr64
    cmp $__NR_seccomp, %rdi
    je 2f
#ifdef SYSCALL_ANSWER
    cmp $__NR_getrandom, %rdi
    je 3f
#endif
    cmp $__NR_prctl, %rdi
    jne 1f
    cmp $PR_SET_SECCOMP, %rsi
    je 2f
1:  jmp *SYSCALL_NEXT(%rip)
2:  push %rdi
    push %rsi
    push %rdx
    push %rcx
    push %r8
    push %r9
    sub $8, %rsp
    .cfi_adjust_cfa_offset 56
    call SYSCALL_CONFINE
    add $8, %rsp
    pop %r9
    pop %r8
    pop %rcx
    pop %rdx
    pop %rsi
    pop %rdi
    .cfi_adjust_cfa_offset -56
    jmp 1b
#ifdef SYSCALL_ANSWER
3:  cmp $CALLS_ASK, %ecx
    jne 1b
    jmp SYSCALL_ANSWER
#endif
#elif defined(__aarch64__)
    hint #34 /* bti c */
    cmp x0, #__NR_seccomp
    b.eq 2f
#ifdef SYSCALL_ANSWER
    cmp x0, #__NR_getrandom
    b.eq 3f
#endif
    cmp x0, #__NR_prctl
    b.ne 1f
    cmp x1, #PR_SET_SECCOMP
    b.eq 2f
1:  adrp x16, SYSCALL_NEXT
    ldr x16, [x16, :lo12:SYSCALL_NEXT]
    br x16
2:  stp x29, x30, [sp, #-80]!
    .cfi_def_cfa_offset 80
    .cfi_offset x29, -80
    .cfi_offset x30, -72
    stp x0, x1, [sp, #16]
    stp x2, x3, [sp, #32]
    stp x4, x5, [sp, #48]
    stp x6, x7, [sp, #64]
    bl SYSCALL_CONFINE
    ldp x0, x1, [sp, #16]
    ldp x2, x3, [sp, #32]
    ldp x4, x5, [sp, #48]
    ldp x6, x7, [sp, #64]
    ldp x29, x30, [sp], #80
    .cfi_restore x29
    .cfi_restore x30
    .cfi_def_cfa_offset 0
    b 1b
#ifdef SYSCALL_ANSWER
3:  movz w16, #(CALLS_ASK >> 16), lsl #16
    cmp w3, w16
    b.ne 1b
    b SYSCALL_ANSWER
#endif
#endif
    .cfi_endproc
.size SYSCALL, . - SYSCALL

.section .note.GNU-stack, "", %progbits
#if defined(__x86_64__) && defined(__CET__)
#include <cet.h>
#endif
