#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "memory.h"

/* A round is one call of pool_run.  Its jobs fall into as many ranges as there are threads; a thread takes those of its
 * own in order, so that what it reads follows on, then what is left of the others'.  A range's ticket holds the round's
 * number above and the next job below; a job is taken by raising the ticket, so a thread that wakes late finds nothing
 * left and nobody waits for it.  Between rounds tickets are closed (odd numbers, no job): whoever still reads the last
 * round's job cannot take one of the next. */
struct range {
    _Alignas(64) _Atomic uint64_t ticket;
    _Atomic uint32_t end;
};

struct pool {
    int threads;
    atomic_int in_use;          /* threads that take jobs */
    pthread_t *others;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    struct range *ranges;       /* [threads opened] */
    _Atomic uint32_t round;
    void (*_Atomic job)(void *, int, int);
    void *_Atomic ctx;
    atomic_int jobs, finished;  /* of this round */
    atomic_int asleep;          /* helpers that must be woken */
    atomic_bool waiting;        /* the caller must be woken */
    atomic_bool stop;
};

struct start {
    struct pool *pool;
    int thread;
};

/* Jobs of a forward pass follow each other within microseconds; watching for the next round that long before sleeping
 * saves two wake-ups for each of them, and costs little where the processor is shared. */
enum { SPIN_NS = 50 * 1000, PAUSES = 16 };

static void pause_once(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    sched_yield();
#endif
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Has a round begun that the helper has not seen? */
static bool begun(struct pool *p, uint32_t seen)
{
    return atomic_load(&p->round) != seen || atomic_load(&p->stop);
}

static bool finished(struct pool *p, uint32_t unused)
{
    (void)unused;
    return atomic_load(&p->finished) == atomic_load(&p->jobs);
}

static bool spin(struct pool *p, bool (*ready)(struct pool *, uint32_t), uint32_t seen)
{
    int64_t end = 0;
    do {
        for (int i = 0; i < PAUSES; i++) {
            if (ready(p, seen))
                return true;
            pause_once();
        }
        end = end ? end : now_ns() + SPIN_NS;
    } while (now_ns() < end);
    return false;
}

/* Take jobs of one range until there are none; returns how many. */
static int work_range(struct pool *p, struct range *r, int thread)
{
    int did = 0;
    uint64_t t = atomic_load(&r->ticket);
    for (;;) {
        void (*job)(void *, int, int) = atomic_load(&p->job);
        void *ctx = atomic_load(&p->ctx);
        if ((uint32_t)t >= atomic_load(&r->end))
            return did;
        if (!atomic_compare_exchange_strong(&r->ticket, &t, t + 1))
            continue;
        job(ctx, (int)(uint32_t)t, thread);
        did++;
        t = atomic_load(&r->ticket);
    }
}

static void work(struct pool *p, int thread)
{
    int did = 0, ranges = atomic_load(&p->in_use);
    for (int i = 0; i < ranges; i++)
        did += work_range(p, &p->ranges[(thread + i) % ranges], thread);
    if (did)
        atomic_fetch_add(&p->finished, did);
}

static void sleep_until_round(struct pool *p, uint32_t seen)
{
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->asleep, 1);
    while (!begun(p, seen))
        pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->asleep, 1);
    pthread_mutex_unlock(&p->lock);
}

static void *thread_main(void *arg)
{
    struct start s = *(struct start *)arg;
    free(arg);
    struct pool *p = s.pool;
    for (uint32_t seen = 0;;) {
        if (!spin(p, begun, seen))
            sleep_until_round(p, seen);
        if (atomic_load(&p->stop))
            return NULL;
        seen = atomic_load(&p->round);
        if (s.thread < atomic_load(&p->in_use))
            work(p, s.thread);
        if (atomic_load(&p->waiting) && finished(p, 0)) {
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
    p->ranges = mem_new_aligned((size_t)want, sizeof *p->ranges, err);
    bool ok = p->others && p->ranges;
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
    pool_use(p, p->threads);
    *out = p;
    return true;
}

void pool_close(struct pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->stop, true);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i + 1 < p->threads; i++)
        pthread_join(p->others[i], NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p->others);
    free(p->ranges);
    free(p);
}

int pool_threads(const struct pool *p)
{
    return p ? atomic_load(&p->in_use) : 1;
}

void pool_use(struct pool *p, int n)
{
    atomic_store(&p->in_use, n);
}

static void round_begin(struct pool *p, int jobs, void (*job)(void *, int, int), void *ctx)
{
    uint64_t round = atomic_load(&p->round) + 2u, n = (uint64_t)atomic_load(&p->in_use);
    for (int i = 0; i < p->threads; i++)
        atomic_store(&p->ranges[i].ticket, (round - 1) << 32 | UINT32_MAX);
    atomic_store(&p->job, job);
    atomic_store(&p->ctx, ctx);
    atomic_store(&p->finished, 0);
    atomic_store(&p->jobs, jobs);
    for (uint64_t i = 0; i < n; i++) {
        atomic_store(&p->ranges[i].end, (uint32_t)((uint64_t)jobs * (i + 1) / n));
        atomic_store(&p->ranges[i].ticket, round << 32 | (uint64_t)jobs * i / n);
    }
    atomic_store(&p->round, (uint32_t)round);
    if (!atomic_load(&p->asleep))
        return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

void pool_run(struct pool *p, int jobs, void (*job)(void *, int, int), void *ctx)
{
    if (pool_threads(p) == 1 || jobs <= 1) {
        for (int i = 0; i < jobs; i++)
            job(ctx, i, 0);
        return;
    }
    round_begin(p, jobs, job, ctx);
    work(p, 0);
    if (spin(p, finished, 0))
        return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->waiting, true);
    while (!finished(p, 0))
        pthread_cond_wait(&p->done, &p->lock);
    atomic_store(&p->waiting, false);
    pthread_mutex_unlock(&p->lock);
}
