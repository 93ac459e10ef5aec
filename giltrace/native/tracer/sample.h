/* Looks at what the holder of a GIL does, by those that wait for it. */
#ifndef GILTRACE_SAMPLE_H
#define GILTRACE_SAMPLE_H

#include "gils.h"
#include "store.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

typedef int wait_function(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until);
typedef int lock_function(pthread_mutex_t *mutex);

bool sample_due(struct thread *thread, int64_t left);
uint64_t sample_next(struct gil *gil, uint64_t now);
int sample_and_wait(struct thread *thread, struct gil *gil, pthread_cond_t *cond, pthread_mutex_t *mutex,
                    const struct timespec *until, bool asked, wait_function *wait, lock_function *lock);

#endif
