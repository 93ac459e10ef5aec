/* A host that runs Python on stacks of its own making, small ones between pages that may not be touched, while another
 * thread of Python asks for the GIL all the time.
 *
 * Arguments: where a stack's first function finds itself: "context" (makecontext's work), "bare" (at the very top, with
 * a return address of 0 above which there is nothing) or "lost" (the same, called from code that nothing describes);
 * and what it does: "counts" in Python, so that the GIL is taken from it, or "polite": holds the GIL for long and
 * gives it up of its own accord. Exits with 0. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

enum { PAGE = 4096, STACK = 64 * PAGE, FIBERS = 6, TURNS = 5 };

void (*act)(void);
static ucontext_t home;
void *home_stack; /* named by the code below, as is `act` */

static void hold(long ms) {
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 < ms);
}

/* Each turn ends when the other thread has had the GIL, which was not offered. */
static void counts(void) {
    PyGILState_STATE state = PyGILState_Ensure();
    PyRun_SimpleString("for _ in range(5):\n"
                       "    before = number\n"
                       "    while number == before: pass");
    PyGILState_Release(state);
}

static void polite(void) {
    PyGILState_STATE state = PyGILState_Ensure();
    for (int i = 0; i < TURNS; i++) {
        hold(12);
        Py_BEGIN_ALLOW_THREADS Py_END_ALLOW_THREADS
    }
    PyGILState_Release(state);
}

/* Between two pages that may not be touched. */
static char *new_stack(void) {
    char *memory = mmap(NULL, STACK + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(memory + PAGE, STACK, PROT_READ | PROT_WRITE);
    return memory + PAGE;
}

static void run_context(char *stack) {
    ucontext_t fiber;
    getcontext(&fiber);
    fiber.uc_stack.ss_sp = stack;
    fiber.uc_stack.ss_size = STACK;
    fiber.uc_link = &home;
    makecontext(&fiber, act, 0);
    swapcontext(&home, &fiber);
}

/* switch_to(top, function): run it on the stack that ends at `top`, and come back from `switch_back`. */
void switch_to(void *top, void (*function)(void));
void switch_back(void);
void trampoline(void);

#if defined(__x86_64__)
__asm__(".text\n"
        "switch_to:\n"
        "    push %rbp\n    push %rbx\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
        "    mov %rsp, home_stack(%rip)\n"
        "    lea -8(%rdi), %rsp\n"
        "    movq $0, (%rsp)\n"
        "    xor %ebp, %ebp\n"
        "    jmp *%rsi\n"
        "switch_back:\n"
        "    mov home_stack(%rip), %rsp\n"
        "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbx\n    pop %rbp\n"
        "    ret\n"
        /* Without a word on how to get out of it. */
        "trampoline:\n"
        "    sub $8, %rsp\n"
        "    call *act(%rip)\n"
        "    jmp switch_back\n");

static void bare(void) {
    act();
    switch_back();
}

static void run_bare(char *stack) {
    switch_to(stack + STACK, bare);
}

static void run_lost(char *stack) {
    switch_to(stack + STACK, trampoline);
}
#else
#define run_bare run_context
#define run_lost run_context
#endif

static const char *name;

static void *run_all(void *run) {
    pthread_setname_np(pthread_self(), name);
    for (int i = 0; i < FIBERS; i++) {
        ((void (*)(char *))run)(new_stack());
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        return 2;
    }
    void (*run)(char *) = argv[1][0] == 'c' ? run_context : argv[1][0] == 'b' ? run_bare : run_lost;
    name = argv[2];
    act = *name == 'c' ? counts : polite;
    Py_InitializeEx(0);
    PyRun_SimpleString("import threading\n"
                       "number, ended = 0, False\n"
                       "def spin():\n"
                       "    global number\n"
                       "    while not ended: number += 1\n"
                       "thread = threading.Thread(target=spin, name='spinner')\n"
                       "thread.start()");
    pthread_t thread;
    Py_BEGIN_ALLOW_THREADS pthread_create(&thread, NULL, run_all, (void *)run);
    pthread_join(thread, NULL);
    Py_END_ALLOW_THREADS PyRun_SimpleString("ended = True\nthread.join()");
    return Py_FinalizeEx();
}
