/* The names that Python gives its threads. */
#ifndef GILTRACE_NAMES_H
#define GILTRACE_NAMES_H

#include "elf.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void names_resolve(const struct elf_object *python);
void names_start(bool free_threaded);
void names_after_fork(void);
void names_announce(pthread_t thread, const char *name);
void names_take(uint32_t tid, char *out, size_t size);
extern int (*_Atomic names_next_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int names_hook_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg);

#endif
