/* threads.h - a pool that runs numbered jobs.
 *
 * Which thread takes which job is left open, so jobs must not share sums: every job writes its own
 * outputs, and results are the same for any number of threads. */
#ifndef QDELTA_THREADS_H
#define QDELTA_THREADS_H

#include <stdbool.h>

#include "error.h"

struct pool;

/* threads <= 0: one for each online CPU.  The caller's thread is one of them. */
bool pool_open(struct pool **out, int threads, struct error *err);
void pool_close(struct pool *p);            /* fine on NULL */
int pool_threads(const struct pool *p);     /* in use; 1 for NULL */
void pool_use(struct pool *p, int n);       /* from now on the first n threads take jobs, 1 <= n <= those opened */

/* Call job(ctx, i, thread) once for each i in [0, jobs), thread in [0, pool_threads); returns when all
 * are done.  Not reentrant.  p NULL: runs them here in order. */
void pool_run(struct pool *p, int jobs, void (*job)(void *ctx, int i, int thread), void *ctx);

int cpu_count(void);

#endif
