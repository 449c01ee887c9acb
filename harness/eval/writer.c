/* writer.c - rows go to the sink from a thread of their own, so that the engine never waits for a disk.
 *
 * A row is copied when it is put; at most ROWS_WAITING of them wait, then the one who puts waits.  Rows are written in the
 * order they were put.  The first failure ends the writing: the next put, or the close, reports it. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

enum { ROWS_WAITING = 256 };

struct waiting {
    struct arena arena;
    struct item_row row;
};

struct row_writer {
    const struct eval_sink *sink;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t more, room;
    struct waiting ring[ROWS_WAITING];
    int first, n;
    bool ended, failed;
    struct error err;
};

/* ---- copying a row ---- */

static const char *copy_str(struct arena *a, const char *s, bool *ok, struct error *err)
{
    const char *copy = s ? arena_str(a, s, strlen(s), err) : NULL;
    *ok &= !s || copy;
    return copy;
}

static const void *copy_array(struct arena *a, const void *from, int n, size_t size, bool *ok, struct error *err)
{
    void *copy = n > 0 ? arena_new(a, (size_t)n * size, err) : NULL;
    *ok &= n <= 0 || copy;
    return copy ? memcpy(copy, from, (size_t)n * size) : NULL;
}

/* Names of rules and metrics belong to the task, which outlives the run. */
static bool copy_row(struct waiting *w, const struct item_row *row, struct error *err)
{
    struct arena *a = &w->arena;
    bool ok = true;
    w->row = *row;
    w->row.id = copy_str(a, row->id, &ok, err);
    w->row.group = copy_str(a, row->group, &ok, err);
    w->row.gold = copy_str(a, row->gold, &ok, err);
    w->row.answer = copy_str(a, row->answer, &ok, err);
    w->row.output = copy_str(a, row->output, &ok, err);
    w->row.choices = copy_array(a, row->choices, row->n_choices, sizeof *row->choices, &ok, err);
    w->row.scores = copy_array(a, row->scores, row->n_scores, sizeof *row->scores, &ok, err);
    struct item_extraction *found = arena_new(a, (size_t)row->n_extractions * sizeof *found + 1, err);
    ok = ok && found;
    for (int i = 0; ok && i < row->n_extractions; i++)
        found[i] = (struct item_extraction){ row->extractions[i].rule, copy_str(a, row->extractions[i].value, &ok, err) };
    w->row.extractions = found;
    return ok;
}

/* ---- the thread ---- */

/* The oldest row, out of the ring; false: there will be none. */
static bool take(struct row_writer *w, struct waiting *out)
{
    pthread_mutex_lock(&w->lock);
    while (!w->n && !w->ended)
        pthread_cond_wait(&w->more, &w->lock);
    bool any = w->n > 0;
    if (any) {
        *out = w->ring[w->first];
        w->first = (w->first + 1) % ROWS_WAITING;
        w->n--;
        pthread_cond_signal(&w->room);
    }
    pthread_mutex_unlock(&w->lock);
    return any;
}

static void *write_rows(void *ctx)
{
    struct row_writer *w = ctx;
    struct waiting now;
    while (take(w, &now)) {
        struct error err = { 0 };
        bool ok = w->failed || w->sink->item(w->sink->ctx, &now.row, &err);      /* only this thread changes failed */
        arena_free(&now.arena);
        if (ok)
            continue;
        pthread_mutex_lock(&w->lock);
        w->failed = true;
        w->err = err;
        pthread_mutex_unlock(&w->lock);
    }
    return NULL;
}

/* ---- the one who puts ---- */

bool writer_open(struct row_writer **out, const struct eval_sink *sink, struct error *err)
{
    struct row_writer *w = *out = mem_new(1, sizeof *w, err);
    if (!w)
        return false;
    w->sink = sink;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->more, NULL);
    pthread_cond_init(&w->room, NULL);
    w->started = pthread_create(&w->thread, NULL, write_rows, w) == 0;
    return w->started || fail(err, STATUS_MEMORY, "cannot start a thread");
}

bool writer_put(struct row_writer *w, const struct item_row *row, struct error *err)
{
    struct waiting copy = { 0 };
    bool ok = copy_row(&copy, row, err);
    pthread_mutex_lock(&w->lock);
    while (ok && w->n == ROWS_WAITING)
        pthread_cond_wait(&w->room, &w->lock);
    if (w->failed) {
        *err = w->err;
        ok = false;
    }
    if (ok) {
        w->ring[(w->first + w->n++) % ROWS_WAITING] = copy;
        pthread_cond_signal(&w->more);
    } else {
        arena_free(&copy.arena);
    }
    pthread_mutex_unlock(&w->lock);
    return ok;
}

bool writer_close(struct row_writer *w, struct error *err)
{
    if (!w)
        return true;
    pthread_mutex_lock(&w->lock);
    w->ended = true;
    pthread_cond_signal(&w->more);
    pthread_mutex_unlock(&w->lock);
    if (w->started)
        pthread_join(w->thread, NULL);
    bool ok = !w->failed;
    if (!ok)
        *err = w->err;
    pthread_cond_destroy(&w->room);
    pthread_cond_destroy(&w->more);
    pthread_mutex_destroy(&w->lock);
    free(w);
    return ok;
}
