/* Pieces of the file that the small chunks of many threads share. */
#ifndef GILTRACE_STRETCH_H
#define GILTRACE_STRETCH_H

#include <stdbool.h>
#include <stdint.h>

struct stretch;

struct stretch *stretch_free(void);
void stretch_begin(struct stretch *stretch, void *base, uint32_t size, bool stays);
void *stretch_use(struct stretch *stretch);
void *stretch_base(const struct stretch *stretch);
void stretch_leave(struct stretch *stretch);

#endif
