/* What syscall() and prctl() return, a line each; and whether they leave the caller's stack alone. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void show(const char *what, long result) {
    printf("%s %ld errno %d\n", what, result, errno);
    errno = 0;
}

int main(void) {
    char name[17] = "";
    errno = 0;
    show("getpid", syscall(SYS_getpid) == getpid());
    show("close", syscall(SYS_close, -1));
    void *page = (void *)syscall(SYS_mmap, 0L, 4096L, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1L, 0L);
    show("mmap", page != MAP_FAILED);
    show("mmap at no page", syscall(SYS_mmap, 0L, 4096L, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1L, 1L));
    show("set name", prctl(PR_SET_NAME, "by name"));
    show("get name", prctl(PR_GET_NAME, name));
    puts(name);
    show("prctl of nothing", prctl(-1, 0, 0, 0, 0));
    show("no such filter", prctl(PR_SET_SECCOMP, 99, 0, 0, 0));
    show("nor that", syscall(SYS_seccomp, 99L, 0L, 0L));
    show("nor that", syscall(SYS_prctl, (long)PR_SET_SECCOMP, 99L, 0L, 0L, 0L));
    long child = syscall(SYS_clone, (long)SIGCHLD, 0L, 0L, 0L, 0L);
    if (child == 0) {
        syscall(SYS_exit_group, 7L);
    }
    int status;
    waitpid((pid_t)child, &status, 0);
    show("child", WEXITSTATUS(status));
    return 0;
}
