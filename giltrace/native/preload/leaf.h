/* A file of a head only, for a program image that is not traced. */
#ifndef GILTRACE_LEAF_H
#define GILTRACE_LEAF_H

void leaf_not_python(const char *folder);
void leaf_note(const char *folder, const char *note);

#endif
