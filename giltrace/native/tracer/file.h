/* Files as a tracer may use them inside somebody else's process: mapped piece by piece, by system calls of its own.
 *
 * Nothing here is a cancellation point, changes errno, or raises a signal. */
#ifndef GILTRACE_FILE_H
#define GILTRACE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void file_start(uint32_t *parent);
long file_create(const char *path);
void *file_map(const char *path, uint64_t offset, size_t size, bool create, void *where);
void file_unmap(void *piece, size_t size);
size_t file_read(const char *path, char *out, size_t size);
size_t file_link(const char *path, char *out, size_t size);
void file_remove(const char *path);

bool file_careful(void);
bool file_confined(void);
bool file_enter(void);
void file_leave(void);
void file_on_reserve(void (*take)(void));
void file_reserve(void);
void file_confine(void);
void file_after_fork(void);

#endif
