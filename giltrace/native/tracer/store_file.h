/* The recording's file of this process: its head, and what begins and ends it. */
#ifndef GILTRACE_STORE_FILE_H
#define GILTRACE_STORE_FILE_H

#include "layout.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a recording is to be like. */
struct plan {
    uint64_t lease_ns, ring_size;    /* as in the head */
    uint64_t wait_limit, hold_limit; /* ticks that trigger, 0: none */
    uint32_t count;                  /* enum count_mode */
    uint32_t status;                 /* bits of enum gt_status that every head of this process begins with */
    char python[sizeof((struct gt_header *)0)->python];
    int (*ready)(void); /* is the interpreter done with looking at the process's signals? */
};

bool store_open(const char *folder, const struct plan *plan);
void store_hooked(void);
void store_close(void);
void store_end(struct gt_header *head);

/* For store.c: */
struct gt_header *store_locked(void);
void store_unlock(void);
const char *store_path(void);
uint32_t store_next_thread(void);
void store_piece_lost(void);
void store_restart_if_lost(void);
void store_file_after_fork(bool goes_on);

struct gt_header *store_header(void);
void store_note(const char *text);
uint64_t store_start(void);
uint32_t store_control(void);
void store_confined(void);
bool store_sibling(char *out, size_t size, const char *prefix);

#endif
