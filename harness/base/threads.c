#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "memory.h"

struct pool {
    int threads;
    pthread_t *others;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    void (*job)(void *, int, int);
    void *ctx;
    int jobs;
    atomic_int next, busy;      /* next job; helpers that have not finished this round */
    _Atomic unsigned long round;
    bool stop;
};

struct start {
    struct pool *pool;
    int thread;
};

/* Jobs of a forward pass follow each other within microseconds; spinning for some 20 us before sleeping
 * saves two wake-ups for each of them, and costs little where the processor is shared. */
enum { SPINS = 400 };

static void spin_once(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    sched_yield();
#endif
}

static void work(struct pool *p, int thread)
{
    for (int i; (i = atomic_fetch_add(&p->next, 1)) < p->jobs;)
        p->job(p->ctx, i, thread);
}

static void *thread_main(void *arg)
{
    struct start s = *(struct start *)arg;
    free(arg);
    struct pool *p = s.pool;
    unsigned long seen = 0;
    for (;;) {
        for (int i = 0; i < SPINS && atomic_load_explicit(&p->round, memory_order_acquire) == seen; i++)
            spin_once();
        pthread_mutex_lock(&p->lock);
        while (atomic_load(&p->round) == seen && !p->stop)
            pthread_cond_wait(&p->wake, &p->lock);
        seen = atomic_load(&p->round);
        bool stop = p->stop;
        pthread_mutex_unlock(&p->lock);
        if (stop)
            return NULL;
        work(p, s.thread);
        if (atomic_fetch_sub(&p->busy, 1) == 1) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

int cpu_count(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

bool pool_open(struct pool **out, int threads, struct error *err)
{
    *out = NULL;
    struct pool *p = mem_new(1, sizeof *p, err);
    if (!p)
        return false;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    p->threads = 1;
    int want = threads > 0 ? threads : cpu_count();
    p->others = mem_new((size_t)want, sizeof *p->others, err);
    bool ok = p->others != NULL;
    while (ok && p->threads < want) {
        struct start *s = mem_new(1, sizeof *s, err);
        ok = s != NULL;
        if (!ok)
            break;
        *s = (struct start){ p, p->threads };
        if (pthread_create(&p->others[p->threads - 1], NULL, thread_main, s) != 0) {
            free(s);
            ok = fail(err, STATUS_MEMORY, "cannot start thread %d of %d", p->threads + 1, want);
        } else {
            p->threads++;
        }
    }
    if (!ok) {
        pool_close(p);
        return false;
    }
    *out = p;
    return true;
}

void pool_close(struct pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i + 1 < p->threads; i++)
        pthread_join(p->others[i], NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p->others);
    free(p);
}

int pool_threads(const struct pool *p)
{
    return p ? p->threads : 1;
}

void pool_run(struct pool *p, int jobs, void (*job)(void *, int, int), void *ctx)
{
    if (!p || p->threads == 1 || jobs <= 1) {
        for (int i = 0; i < jobs; i++)
            job(ctx, i, 0);
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->job = job;
    p->ctx = ctx;
    p->jobs = jobs;
    atomic_store(&p->busy, p->threads - 1);
    atomic_store(&p->next, 0);
    atomic_fetch_add(&p->round, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    work(p, 0);
    for (int i = 0; i < SPINS && atomic_load_explicit(&p->busy, memory_order_acquire); i++)
        spin_once();
    if (!atomic_load(&p->busy))
        return;
    pthread_mutex_lock(&p->lock);
    while (atomic_load(&p->busy))
        pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}
