/* choose.c - kinds choice and partial: log-probabilities of continuations.
 *
 * The sequences of an item form a tree: the tokens that all of them begin with are computed once (the item's
 * trunk, itself hanging on the family's prefix), what differs is computed on branches.  Choices of one token have
 * no branch at all: one pass over the trunk scores them together.  Logits are computed only where a token is
 * scored, a bounded number of rows at a time. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

enum {
    WAVE_TOKENS = 4096,                 /* computed side by side */
    LOGITS_BYTES = 128 << 20,           /* rows held at once */
    MAX_ROWS = 4096,
};

struct ask {                            /* add log p(token | row) to the choice */
    int row;                            /* position within the work's ids */
    int32_t token;
    struct item_choice *choice;
    bool *greedy;
};
struct work {
    struct seq *seq;
    const int32_t *ids;
    int n, first;                       /* logits from position first on; n = none */
    struct ask *asks;                   /* by row */
    int n_asks;
    int done, asked;
    int64_t *elapsed_ns;
};
struct answer {                         /* of one request */
    struct seq *trunk;
    struct item_choice *choices;
    bool *greedy;
    int64_t elapsed_ns;
    int n_trunk;                        /* tokens that all sequences share, family prefix included */
};
struct chooser {
    struct run *run;
    struct arena arena;                 /* of the wave */
    float *logits;
    int vocab, max_rows;
    struct span *spans;
    size_t spans_cap;
    struct work *works;
    size_t n_works, works_cap;
};

/* ---- forward with a bounded number of logits ---- */

static void answer_row(const struct chooser *c, struct work *w, int row, const float *logits)
{
    if (w->asked == w->n_asks || w->asks[w->asked].row != row)
        return;
    float first, second;
    double log_sum = logits_log_sum(logits, c->vocab);
    int top = logits_top(logits, c->vocab, &first, &second);
    for (; w->asked < w->n_asks && w->asks[w->asked].row == row; w->asked++) {
        const struct ask *a = &w->asks[w->asked];
        a->choice->logprob += (double)logits[a->token] - log_sum;
        *a->greedy &= a->token == top;
    }
}

/* Spans for works[from..): whole works while their rows fit, then a piece of the next one. */
static int gather_spans(const struct chooser *c, int from)
{
    int rows = 0, n = 0;
    for (int i = from; i < (int)c->n_works && rows < c->max_rows; i++, n++) {
        struct work *w = &c->works[i];
        int left = w->n - w->done, first = w->first > w->done ? w->first - w->done : 0;
        int wanted = left - first, take = left;
        if (wanted > c->max_rows - rows)
            take = first + c->max_rows - rows;
        rows += take > first ? take - first : 0;
        c->spans[n] = (struct span){ w->seq, w->ids + w->done, take, first < take ? first : take };
        if (take < left)
            return n + 1;
    }
    return n;
}

static void take_logits(const struct chooser *c, int from, int n, int64_t elapsed)
{
    const float *logits = c->logits;
    int64_t tokens = 0;
    for (int i = 0; i < n; i++)
        tokens += c->spans[i].n;
    for (int i = 0; i < n; i++) {
        struct work *w = &c->works[from + i];
        for (int k = c->spans[i].first_logits; k < c->spans[i].n; k++, logits += c->vocab)
            answer_row(c, w, w->done + k, logits);
        w->done += c->spans[i].n;
        *w->elapsed_ns += elapsed * c->spans[i].n / tokens;
        c->run->prompt_tokens += c->spans[i].n;
    }
}

static bool forward_works(struct chooser *c, struct error *err)
{
    if (!mem_grow(&c->spans, &c->spans_cap, c->n_works, sizeof *c->spans, err))
        return false;
    for (int i = 0; i < (int)c->n_works;) {
        int n = gather_spans(c, i);
        int64_t start = clock_ns();
        if (!engine_forward(c->run->engine, c->spans, n, c->logits, err))
            return false;
        take_logits(c, i, n, clock_ns() - start);
        i += n - (c->works[i + n - 1].done < c->works[i + n - 1].n);
    }
    c->n_works = 0;
    return true;
}

static struct work *work_add(struct chooser *c, struct seq *seq, const int32_t *ids, int n, size_t max_asks, struct answer *a,
                             struct error *err)
{
    if (!mem_grow(&c->works, &c->works_cap, c->n_works + 1, sizeof *c->works, err))
        return NULL;
    struct work *w = &c->works[c->n_works];
    *w = (struct work){ .seq = seq, .ids = ids, .n = n, .first = n, .elapsed_ns = &a->elapsed_ns };
    w->asks = arena_new(&c->arena, max_asks * sizeof *w->asks, err);
    c->n_works += w->asks != NULL;
    return w->asks ? w : NULL;
}

static void ask_add(struct work *w, int row, int32_t token, struct answer *a, int choice)
{
    w->asks[w->n_asks++] = (struct ask){ row, token, &a->choices[choice], &a->greedy[choice] };
    w->first = row < w->first ? row : w->first;
}

/* ---- the tree of one item ---- */

static int trunk_length(const struct request *q)
{
    int n = q->seqs[0].n - 1;           /* the last token of a sequence is only scored, never fed */
    for (int s = 1; s < q->n_seqs; s++) {
        const struct token_seq *a = &q->seqs[0], *b = &q->seqs[s];
        int k = 0;
        while (k < n && k < b->n - 1 && a->ids[k] == b->ids[k])
            k++;
        n = k;
    }
    return n;
}

static bool answer_open(struct chooser *c, const struct request *q, struct answer *a, struct error *err)
{
    *a = (struct answer){ .n_trunk = trunk_length(q) };
    a->choices = arena_new(&c->arena, (size_t)q->n_seqs * sizeof *a->choices, err);
    a->greedy = arena_new(&c->arena, (size_t)q->n_seqs * sizeof *a->greedy, err);
    for (int i = 0; a->choices && a->greedy && i < q->n_seqs; i++) {
        const char *text = q->text.choices[i];
        a->greedy[i] = true;
        a->choices[i] = (struct item_choice){ .tokens = q->seqs[i].n - q->seqs[i].n_context,
                                              .chars = (int)utf8_count(text, strlen(text)), .bytes = (int)strlen(text) };
    }
    return a->choices && a->greedy;
}

/* The trunk after the family's prefix; what it predicts is asked for each sequence whose continuation begins in it. */
static bool trunk_add(struct chooser *c, const struct request *q, const struct family *f, struct answer *a, struct error *err)
{
    int base = f->prefix ? f->n_prefix : 0, n = a->n_trunk - base;
    if (n < 1)
        return true;                    /* branches hang on the prefix itself */
    size_t asks = 0;
    for (int s = 0; s < q->n_seqs; s++)
        if (a->n_trunk >= q->seqs[s].n_context)
            asks += (size_t)(a->n_trunk - q->seqs[s].n_context + 1);
    if (!seq_open(&a->trunk, c->run->engine, f->prefix, err))
        return false;
    struct work *w = work_add(c, a->trunk, q->seqs[0].ids + base, n, asks, a, err);
    for (int p = base; w && p < a->n_trunk; p++)
        for (int s = 0; s < q->n_seqs; s++)
            if (p >= q->seqs[s].n_context - 1)
                ask_add(w, p - base, q->seqs[s].ids[p + 1], a, s);
    return w != NULL;
}

static bool branch_add(struct chooser *c, const struct request *q, const struct family *f, struct answer *a, int s,
                       struct seq **branch, struct error *err)
{
    const struct token_seq *t = &q->seqs[s];
    int n = t->n - 1 - a->n_trunk;
    if (n < 1)
        return true;
    if (!seq_open(branch, c->run->engine, a->trunk ? a->trunk : f->prefix, err))
        return false;
    struct work *w = work_add(c, *branch, t->ids + a->n_trunk, n, (size_t)n, a, err);
    for (int k = 0; w && k < n; k++)
        if (a->n_trunk + k >= t->n_context - 1)
            ask_add(w, k, t->ids[a->n_trunk + k + 1], a, s);
    return w != NULL;
}

/* ---- rows ---- */

static double margin_of(const struct scored_choices *s)
{
    double first = -INFINITY, second = -INFINITY;
    for (int i = 0; i < s->n; i++) {
        double v = s->choices[i].logprob;
        if (v > first) {
            second = first;
            first = v;
        } else if (v > second)
            second = v;
    }
    return s->n > 1 ? first - second : NAN;
}

static bool put_answer(struct chooser *c, const struct request *q, const struct answer *a, struct error *err)
{
    const struct task_spec *spec = &c->run->task->spec;
    struct scored_choices s = { a->choices, q->text.right, a->greedy, q->n_seqs };
    struct item_score *scores = arena_new(&c->arena, (size_t)spec->n_metrics * sizeof *scores, err);
    if (!scores)
        return false;
    for (int i = 0; i < spec->n_metrics; i++)
        scores[i] = (struct item_score){ spec->metrics[i], choice_metric_find(spec->metrics[i])->score(&s) };
    char answer[16];
    int pick = choice_metric_find(spec->metrics[0])->pick(&s);
    if (s.n <= 26)
        snprintf(answer, sizeof answer, "%c", 'A' + pick);
    else
        snprintf(answer, sizeof answer, "%d", pick + 1);
    struct item_row row = { .answer = answer, .finish = "choice", .margin = margin_of(&s), .elapsed_ns = a->elapsed_ns,
                            .choices = a->choices, .n_choices = s.n, .scores = scores, .n_scores = spec->n_metrics };
    return run_put(c->run, q, &row, err);
}

/* ---- waves ---- */

/* Tokens that a request costs beside its family's prefix. */
static int cost_of(const struct request *q, const struct family *f)
{
    int trunk = trunk_length(q), n = trunk - f->n_prefix;
    for (int s = 0; s < q->n_seqs; s++)
        n += q->seqs[s].n - 1 - trunk;
    return n;
}

static int wave_size(const struct chooser *c, const struct portion *p, int first)
{
    int n = 0, items = c->run->options->batch_items;
    for (int64_t tokens = 0; first + n < p->n; n++) {
        const struct request *q = &p->requests[first + n];
        const struct family *f = &p->families[p->family_of[first + n]];
        if (q->too_long)
            continue;
        bool begins = n == 0 || p->family_of[first + n] != p->family_of[first + n - 1];
        tokens += cost_of(q, f) + (begins && !f->prefix ? f->n_prefix : 0);
        if (n && (items > 0 ? n >= items : tokens > WAVE_TOKENS))
            break;
    }
    return n;
}

static bool ask_trunks(struct chooser *c, struct portion *p, int first, int n, struct answer *answers, struct error *err)
{
    for (int i = 0; i < n; i++) {
        const struct request *q = &p->requests[first + i];
        if (!q->too_long && (!answer_open(c, q, &answers[i], err) ||
                             !trunk_add(c, q, &p->families[p->family_of[first + i]], &answers[i], err)))
            return false;
    }
    return forward_works(c, err);
}

static bool ask_branches(struct chooser *c, struct portion *p, int first, int n, struct answer *answers, struct error *err)
{
    size_t count = 0;
    for (int i = 0; i < n; i++)
        count += (size_t)p->requests[first + i].n_seqs;
    struct seq **branches = mem_new(count, sizeof *branches, err), **next = branches;
    bool ok = branches != NULL;
    for (int i = 0; ok && i < n; i++) {
        const struct request *q = &p->requests[first + i];
        for (int s = 0; ok && s < q->n_seqs && !q->too_long; s++)
            ok = branch_add(c, q, &p->families[p->family_of[first + i]], &answers[i], s, next++, err);
    }
    ok = ok && forward_works(c, err);
    for (size_t i = 0; branches && i < count; i++)
        seq_close(branches[i]);
    free(branches);
    return ok;
}

static bool ask_wave(struct chooser *c, struct portion *p, int first, int n, struct error *err)
{
    struct answer *answers = mem_new((size_t)n, sizeof *answers, err);
    bool ok = answers && prefixes_open(c->run, p, first, n, err) && ask_trunks(c, p, first, n, answers, err) &&
              ask_branches(c, p, first, n, answers, err);
    for (int i = 0; answers && i < n; i++)
        seq_close(answers[i].trunk);
    for (int i = 0; ok && i < n; i++)
        if (!p->requests[first + i].too_long) {
            family_done(&p->families[p->family_of[first + i]]);
            ok = put_answer(c, &p->requests[first + i], &answers[i], err);
        }
    free(answers);
    c->n_works = 0;
    arena_free(&c->arena);
    return ok;
}

bool choose_portion(struct run *r, struct portion *p, struct error *err)
{
    struct chooser c = { .run = r, .vocab = r->model->config.vocab };
    size_t rows = (size_t)LOGITS_BYTES / ((size_t)c.vocab * sizeof *c.logits);
    c.max_rows = rows < 1 ? 1 : rows > MAX_ROWS ? MAX_ROWS : (int)rows;
    c.logits = mem_new((size_t)c.max_rows * (size_t)c.vocab, sizeof *c.logits, err);
    bool ok = c.logits != NULL;
    for (int first = 0, n; ok && first < p->n && !run_cancelled(r); first += n) {
        n = wave_size(&c, p, first);
        ok = ask_wave(&c, p, first, n, err);
    }
    free(c.logits);
    free(c.spans);
    free(c.works);
    return ok;
}
