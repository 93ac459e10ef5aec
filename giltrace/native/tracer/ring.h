/* The flight recorder: which chunk of a full file is to be used again. */
#ifndef GILTRACE_RING_H
#define GILTRACE_RING_H

#include "layout.h"

#include <stdbool.h>
#include <stdint.h>

void ring_start(uint64_t size);
bool ring_is_on(void);
uint32_t ring_chunk(void);
uint64_t ring_size(void);
bool ring_extend(uint64_t *offset);
void ring_shrink(void);
void ring_retire(uint64_t offset, uint64_t now);
bool ring_reuse(uint64_t *offset, uint64_t *complete_from);
void ring_forget_before(struct gt_header *head, uint64_t ticks);
void ring_empty(struct gt_chunk *chunk, struct gt_header *head);

#endif
