/* Which memory of this process is a piece of one of our files. */
#ifndef GILTRACE_PIECES_H
#define GILTRACE_PIECES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What was at an address: no piece, one that had been replaced by then, or one that now has been. */
enum pieces_found { PIECES_NONE, PIECES_BEFORE, PIECES_NOW };

bool pieces_add(void *base, size_t size);
bool pieces_take(void *base);
void pieces_keep(void *base);
bool pieces_remove(void *base);
enum pieces_found pieces_replace(uintptr_t address);
void pieces_replace_all(void);
void pieces_after_fork(void);

#endif
