/* schedule.c - eval_run: which items are asked together.
 *
 * Items that are not stored yet are put in order of group and shots, cut into portions, and encoded a portion
 * ahead by a thread of their own.  In a portion, requests that begin with the same tokens form a family whose
 * common beginning is computed once.  None of this changes a row: the engine's logits do not depend on it. */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

enum {
    CHOICE_PORTION = 512,       /* items encoded together */
    GENERATE_PORTION = 4096,    /* more, so that the batch runs dry less often */
    LEAST_PREFIX = 8,           /* a shorter common beginning is not worth a sequence of its own */
};

bool run_cancelled(const struct run *r)
{
    return r->sink->cancelled && r->sink->cancelled(r->sink->ctx);
}

static void show_progress(const struct run *r)
{
    if (r->sink->progress)
        r->sink->progress(r->sink->ctx, r->done, r->total, r->prompt_tokens, r->new_tokens);
}

bool run_put(struct run *r, const struct request *q, struct item_row *row, struct error *err)
{
    row->id = q->text.id;
    row->group = q->text.group;
    row->gold = q->text.gold;
    memcpy(row->prompt_hash, q->prompt_hash, sizeof row->prompt_hash);
    row->prompt_tokens = q->seqs[0].n_context;
    r->n_crossed += q->crossed;
    r->n_too_long += q->too_long;
    if (!writer_put(r->writer, row, err))
        return false;
    r->done++;
    show_progress(r);
    return true;
}

/* ---- portions ---- */

static int common(const struct token_seq *a, const struct token_seq *b, int limit)
{
    int n = 0;
    while (n < limit && n < b->n && a->ids[n] == b->ids[n])
        n++;
    return n;
}

/* Longest beginning of all the family's sequences that leaves each of them a context token of its own. */
static int family_prefix(const struct portion *p, const struct family *f)
{
    const struct token_seq *first = &p->requests[f->first].seqs[0];
    int n = first->n_context - 1;
    for (int i = f->first; i < f->first + f->n; i++)
        for (int s = 0; s < p->requests[i].n_seqs; s++) {
            const struct token_seq *seq = &p->requests[i].seqs[s];
            n = common(first, seq, n < seq->n_context - 1 ? n : seq->n_context - 1);
        }
    return n >= LEAST_PREFIX ? n : 0;
}

static int longest(const struct request *q)
{
    int n = 0;
    for (int s = 0; s < q->n_seqs; s++)
        n = q->seqs[s].n > n ? q->seqs[s].n : n;
    return n;
}

/* Longest first: a batch then holds sequences of like length and no straggler ends it. */
static int by_length(const void *a, const void *b)
{
    const struct request *x = a, *y = b;
    int m = longest(x), n = longest(y);
    return m != n ? n - m : strcmp(x->text.id, y->text.id);
}

static bool same_shots(const struct task *t, const struct item *a, const struct item *b)
{
    return t->records.list[a->record].group == t->records.list[b->record].group &&
           (!t->n_shots || memcmp(a->shots, b->shots, (size_t)t->n_shots * sizeof *a->shots) == 0);
}

struct preparation {                /* one portion, encoded by its own thread */
    const struct encoder *encoder;
    bool share;
    const int *items;
    int n;
    struct portion portion;
    struct error err;
    bool ok;
};

static bool build_families(struct preparation *x)
{
    struct portion *p = &x->portion;
    const struct task *t = x->encoder->task;
    p->families = arena_new(&p->arena, (size_t)x->n * sizeof *p->families, &x->err);
    p->family_of = arena_new(&p->arena, (size_t)x->n * sizeof *p->family_of, &x->err);
    if (!p->families || !p->family_of)
        return false;
    for (int i = 0; i < x->n; i++) {
        bool begins = i == 0 || !x->share || !same_shots(t, &t->items[x->items[i - 1]], &t->items[x->items[i]]);
        if (begins)
            p->families[p->n_families++] = (struct family){ .first = i };
        p->families[p->n_families - 1].n++;
        p->family_of[i] = p->n_families - 1;
    }
    for (int i = 0; i < p->n_families; i++) {
        struct family *f = &p->families[i];
        f->left = f->n;
        f->n_prefix = f->n > 1 ? family_prefix(p, f) : 0;
        qsort(p->requests + f->first, (size_t)f->n, sizeof *p->requests, by_length);
    }
    return true;
}

static void *prepare(void *ctx)
{
    struct preparation *x = ctx;
    struct portion *p = &x->portion;
    p->requests = arena_new(&p->arena, (size_t)x->n * sizeof *p->requests, &x->err);
    x->ok = p->requests != NULL;
    for (; x->ok && p->n < x->n; p->n++)
        x->ok = request_encode(x->encoder, x->items[p->n], &p->arena, &p->requests[p->n], &x->err);
    x->ok = x->ok && build_families(x);
    return NULL;
}

static void portion_close(struct portion *p)
{
    for (int i = 0; i < p->n_families; i++)
        seq_close(p->families[i].prefix);
    arena_free(&p->arena);
    *p = (struct portion){ 0 };
}

/* ---- prefixes ---- */

bool prefixes_open(struct run *r, struct portion *p, int first, int n, struct error *err)
{
    struct span *spans = mem_new((size_t)n, sizeof *spans, err);
    int n_spans = 0;
    bool ok = spans != NULL;
    for (int i = first; ok && i < first + n; i++) {
        struct family *f = &p->families[p->family_of[i]];
        if (!f->n_prefix || f->prefix || !f->left)      /* none left: all of them too long */
            continue;
        ok = seq_open(&f->prefix, r->engine, NULL, err);
        spans[n_spans++] = (struct span){ f->prefix, p->requests[f->first].seqs[0].ids, f->n_prefix, f->n_prefix };
        r->prompt_tokens += f->n_prefix;
    }
    ok = ok && (!n_spans || engine_forward(r->engine, spans, n_spans, NULL, err));
    free(spans);
    return ok;
}

void family_done(struct family *f)
{
    if (--f->left == 0) {
        seq_close(f->prefix);
        f->prefix = NULL;
    }
}

/* ---- too long: a row that says so ---- */

static bool put_too_long(struct run *r, const struct request *q, struct error *err)
{
    const struct task_spec *s = &r->task->spec;
    struct item_score *scores = mem_new((size_t)s->n_metrics, sizeof *scores, err);
    if (!scores)
        return false;
    for (int i = 0; i < s->n_metrics; i++)
        scores[i] = (struct item_score){ s->metrics[i], 0 };
    struct item_row row = { .finish = "too-long", .margin = NAN, .scores = scores, .n_scores = s->n_metrics };
    bool ok = run_put(r, q, &row, err);
    free(scores);
    return ok;
}

static bool take_out_too_long(struct run *r, struct portion *p, struct error *err)
{
    for (int i = 0; i < p->n; i++)
        if (p->requests[i].too_long) {
            p->families[p->family_of[i]].left--;
            if (!put_too_long(r, &p->requests[i], err))
                return false;
        }
    return true;
}

/* ---- the run ---- */

struct queue {
    int *items;
    int n, cap, next;
    struct preparation preparation;
    pthread_t thread;
    bool started;
};

static bool queue_start(struct queue *q, struct run *r, struct error *err)
{
    int portion = r->task->spec.kind->generates ? GENERATE_PORTION : CHOICE_PORTION;
    int n = q->n - q->next < portion ? q->n - q->next : portion;
    q->preparation = (struct preparation){ .encoder = &r->encoder, .share = r->options->share_prefixes, .items = q->items + q->next, .n = n };
    q->next += n;
    if (!n)
        return true;
    if (pthread_create(&q->thread, NULL, prepare, &q->preparation) != 0)
        return fail(err, STATUS_MEMORY, "cannot start a thread");
    q->started = true;
    return true;
}

/* Wait for the portion under preparation; n 0: no more. */
static bool queue_take(struct queue *q, struct portion *out, struct error *err)
{
    *out = (struct portion){ 0 };
    if (!q->started)
        return true;
    pthread_join(q->thread, NULL);
    q->started = false;
    *out = q->preparation.portion;
    q->preparation.portion = (struct portion){ 0 };
    if (!q->preparation.ok && err)
        *err = q->preparation.err;
    return q->preparation.ok;
}

struct place {
    const struct task *task;
    int item;
};

static int by_shots(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    const struct task *t = x->task;
    const struct item *i = &t->items[x->item], *j = &t->items[y->item];
    int g = t->records.list[i->record].group, h = t->records.list[j->record].group;
    if (g != h)
        return g < h ? -1 : 1;
    for (int s = 0; s < t->n_shots; s++)
        if (i->shots[s] != j->shots[s])
            return i->shots[s] < j->shots[s] ? -1 : 1;
    return x->item - y->item;
}

/* Items that are not stored yet, those with the same shots side by side. */
static bool queue_fill(struct queue *q, struct run *r, struct error *err)
{
    const struct task *t = r->task;
    struct place *places = mem_new((size_t)t->n_items, sizeof *places, err);
    q->items = mem_new((size_t)t->n_items, sizeof *q->items, err);
    bool ok = places && q->items;
    for (int i = 0; ok && i < t->n_items; i++)
        if (r->sink->have && r->sink->have(r->sink->ctx, t->items[i].id))
            r->done++;
        else
            places[q->n++] = (struct place){ t, i };
    if (ok && q->n)
        qsort(places, (size_t)q->n, sizeof *places, by_shots);
    for (int i = 0; ok && i < q->n; i++)
        q->items[i] = places[i].item;
    free(places);
    return ok;
}

static bool ask_portions(struct run *r, struct queue *q, struct error *err)
{
    if (!queue_start(q, r, err))
        return false;
    while (!run_cancelled(r)) {
        struct portion p;
        bool ok = queue_take(q, &p, err);
        if (!ok || !p.n) {
            portion_close(&p);
            return ok;
        }
        ok = queue_start(q, r, err) && take_out_too_long(r, &p, err) &&
             (r->task->spec.kind->generates ? generate_portion(r, &p, err) : choose_portion(r, &p, err));
        portion_close(&p);
        if (!ok)
            return false;
    }
    return true;
}

static void say_remarks(const struct run *r)
{
    char text[256];
    if (!r->options->note)
        return;
    if (r->options->chat == CHAT_AUTO && r->model->chat_template && r->encoder.chat == CHAT_NONE) {
        snprintf(text, sizeof text, "%s: %s has a chat template of no known family; it was asked without one, as with --chat off", r->task->spec.name,
                 r->model->label);
        r->options->note(r->options->note_ctx, text);
    }
    if (r->n_too_long) {
        snprintf(text, sizeof text, "%s: %d of %d items do not fit the model's context of %d tokens; they are stored as \"too-long\", score 0",
                 r->task->spec.name, r->n_too_long, r->total, r->model->config.context);
        r->options->note(r->options->note_ctx, text);
    }
    if (r->n_crossed) {
        snprintf(text, sizeof text, "%s: in %d of %d items a token spans the end of the prompt and the choice; divided by count, as the reference does",
                 r->task->spec.name, r->n_crossed, r->total);
        r->options->note(r->options->note_ctx, text);
    }
}

bool eval_run(struct engine *e, const struct model *m, const struct task *t, const struct eval_options *o,
              const struct eval_sink *sink, struct error *err)
{
    struct run r = { .engine = e, .model = m, .task = t, .options = o, .sink = sink, .encoder = { t, m, CHAT_NONE }, .total = t->n_items };
    struct queue q = { 0 };
    if (!m->tokenizer)
        return fail(err, STATUS_INPUT, "%s: no tokenizer, and task %s needs text: %s", m->path, t->spec.name,
                    m->tokenizer_error ? m->tokenizer_error : "none found");
    bool ok = eval_chat_family(m, o->chat, &r.encoder.chat, err) && queue_fill(&q, &r, err) && writer_open(&r.writer, sink, err);
    show_progress(&r);
    ok = ok && ask_portions(&r, &q, err);
    struct portion left;
    queue_take(&q, &left, NULL);
    portion_close(&left);
    struct error unwritten;
    if (!writer_close(r.writer, &unwritten) && ok) {
        *err = unwritten;
        ok = false;
    }
    free(q.items);
    say_remarks(&r);
    return ok;
}

bool eval_chat_family(const struct model *m, enum chat_mode mode, enum chat_family *out, struct error *err)
{
    *out = mode == CHAT_OFF || !m->chat_template ? CHAT_NONE : chat_detect(m->chat_template);
    if (mode != CHAT_ON || *out != CHAT_NONE)
        return true;
    if (!m->chat_template)
        return fail(err, STATUS_INPUT, "%s: --chat on, but the file has no chat template", m->path);
    struct text known = { 0 };
    for (int f = CHAT_NONE + 1; f < CHAT_COUNT; f++)
        text_printf(&known, "%s%s", f > CHAT_NONE + 1 ? ", " : "", chat_family_names[f]);
    fail(err, STATUS_UNSUPPORTED, "%s: --chat on, but its chat template, which begins \"%.60s\", is of no known family (%s)", m->path, m->chat_template,
         text_str(&known));
    text_free(&known);
    return false;
}
