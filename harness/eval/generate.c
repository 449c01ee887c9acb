/* generate.c - kind generate: greedy text up to a stop string, extracted by every rule of the task. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

enum { PREFIX_TOKENS = 8192 };      /* of prefixes held while a batch runs */

struct writing {                    /* one request being answered */
    struct generation g;
    const struct request *q;
    const struct generator *of;
    struct text text;               /* decoded so far */
    size_t decoded;                 /* tokens in it */
};
struct generator {
    struct run *run;
    struct portion *portion;
    struct writing *writings;       /* [portion.n] */
    int next, end;                  /* requests of the portion still to hand out */
    size_t longest_stop;
};

static const char *finish_name(const struct generation *g)
{
    return g->finish == FINISH_EOS ? "eos" : g->finish == FINISH_STOP ? "stop" : "length";
}

/* ---- stops ---- */

static const char **stops_of(const struct task_spec *s, const char **own, int *n)
{
    *n = s->stops ? s->n_stops : 1;
    *own = s->shot_delimiter;
    return s->stops ? s->stops : own;
}

/* Is there a stop string that ends in the last `fresh` bytes? */
static bool met_stop(const struct task_spec *s, const struct text *t, size_t fresh, size_t longest)
{
    const char *own;
    int n;
    const char **stops = stops_of(s, &own, &n);
    size_t window = fresh + longest < t->len ? fresh + longest : t->len;
    for (int i = 0; i < n; i++)
        if (*stops[i] && strstr(text_str(t) + t->len - window, stops[i]))
            return true;
    return false;
}

/* Drop NUL bytes from t[from..]: the text is searched as a C string, and a model may write one. */
static void drop_nul(struct text *t, size_t from)
{
    size_t n = from;
    for (size_t i = from; i < t->len; i++)
        if (t->data[i])
            t->data[n++] = t->data[i];
    if (n < t->len)
        t->data[n] = '\0';
    t->len = n;
}

static bool stop_now(void *ctx, const struct generation *g)
{
    struct writing *w = ctx;
    size_t before = w->text.len;
    const struct run *r = w->of->run;
    for (; w->decoded < g->out.n; w->decoded++)
        tokenizer_decode(r->model->tokenizer, g->out.data[w->decoded], false, &w->text);
    drop_nul(&w->text, before);
    return met_stop(&r->task->spec, &w->text, w->text.len - before, w->of->longest_stop);
}

/* As the reference does: for each stop in turn, what follows its first occurrence is dropped. */
static void cut_at_stops(const struct task_spec *s, struct text *t)
{
    const char *own;
    int n;
    const char **stops = stops_of(s, &own, &n);
    for (int i = 0; i < n && t->len; i++) {
        char *hit = *stops[i] ? strstr(t->data, stops[i]) : NULL;
        if (hit) {
            *hit = '\0';
            t->len = (size_t)(hit - t->data);
        }
    }
}

/* ---- rows ---- */

static bool extract_all(const struct extractor *e, const struct text *output, struct arena *a, struct item_extraction *out,
                        struct error *err)
{
    for (int i = 0; i < extractor_rules(e); i++) {
        struct text value = { 0 };
        bool found, ok = extractor_apply(e, i, text_str(output), output->len, &value, &found, err);
        out[i] = (struct item_extraction){ .rule = extractor_rule_name(e, i) };
        ok = ok && (!found || (out[i].value = arena_str(a, text_str(&value), value.len, err)));
        text_free(&value);
        if (!ok)
            return false;
    }
    return true;
}

static bool put_writing(struct run *r, struct writing *w, struct error *err)
{
    const struct task_spec *s = &r->task->spec;
    struct arena a = { 0 };
    struct text output = { 0 };
    cut_at_stops(s, &w->text);
    text_add_valid(&output, text_str(&w->text), w->text.len);
    int n = extractor_rules(s->extractor);
    struct item_extraction *found = arena_new(&a, (size_t)n * sizeof *found, err);
    struct item_score *scores = arena_new(&a, (size_t)s->n_metrics * sizeof *scores, err);
    bool ok = found && scores && text_ok(&w->text, err) && text_ok(&output, err) &&
              extract_all(s->extractor, &output, &a, found, err);
    for (int i = 0; ok && i < s->n_metrics; i++) {
        const char *value = found[exact_match_rule(s->extractor, s->metrics[i])].value;
        scores[i] = (struct item_score){ s->metrics[i], value && strcmp(value, w->q->text.gold) == 0 };
    }
    if (ok) {
        struct item_row row = { .answer = found[exact_match_rule(s->extractor, s->metrics[0])].value, .output = text_str(&output),
                                .finish = finish_name(&w->g), .output_tokens = (int)w->g.out.n, .margin = w->g.least_margin,
                                .elapsed_ns = w->g.elapsed_ns, .extractions = found, .n_extractions = n,
                                .scores = scores, .n_scores = s->n_metrics };
        r->prompt_tokens += w->g.n_prompt;
        r->new_tokens += (int64_t)w->g.out.n;
        ok = run_put(r, w->q, &row, err);
    }
    text_free(&output);
    arena_free(&a);
    return ok;
}

/* ---- the feed ---- */

static void writing_free(struct writing *w)
{
    ids_free(&w->g.out);
    text_free(&w->text);
}

static struct generation *next_request(void *ctx)
{
    struct generator *x = ctx;
    const struct portion *p = x->portion;
    while (x->next < x->end && p->requests[x->next].too_long)
        x->next++;
    if (x->next == x->end || run_cancelled(x->run))
        return NULL;
    struct writing *w = &x->writings[x->next];
    const struct family *f = &p->families[p->family_of[x->next]];
    const struct task_spec *s = &x->run->task->spec;
    int base = f->prefix ? f->n_prefix : 0;
    w->q = &p->requests[x->next++];
    w->of = x;
    w->g = (struct generation){ .prefix = f->prefix, .prompt = w->q->seqs[0].ids + base, .n_prompt = w->q->seqs[0].n - base,
                                .max_new = x->run->encoder.chat == CHAT_NONE ? s->max_tokens : s->max_tokens_chat,
                                .stop = stop_now, .ctx = w };
    return &w->g;
}

static bool request_done(void *ctx, struct generation *g, struct error *err)
{
    struct generator *x = ctx;
    struct writing *w = g->ctx;
    stop_now(w, g);                 /* decodes what a stop at the last token left over */
    bool ok = put_writing(x->run, w, err);
    writing_free(w);
    return ok;
}

/* Whole families while their prefixes fit. */
static int batch_end(const struct portion *p, int first)
{
    int end = first;
    for (int64_t tokens = 0; end < p->n;) {
        const struct family *f = &p->families[p->family_of[end]];
        tokens += f->n_prefix;
        if (end > first && tokens > PREFIX_TOKENS)
            break;
        end = f->first + f->n;
    }
    return end;
}

static bool generate_all(struct generator *x, struct error *err)
{
    struct run *r = x->run;
    struct portion *p = x->portion;
    for (int first = 0; first < p->n && !run_cancelled(r); first = x->end) {
        x->next = first;
        x->end = batch_end(p, first);
        struct generation_feed feed = { next_request, request_done, x, r->options->batch_width };
        if (!prefixes_open(r, p, first, x->end - first, err) || !engine_generate(r->engine, &feed, err))
            return false;
        for (int i = first; i < x->end; i++) {
            struct family *f = &p->families[p->family_of[i]];
            seq_close(f->prefix);
            f->prefix = NULL;
        }
    }
    return true;
}

bool generate_portion(struct run *r, struct portion *p, struct error *err)
{
    struct generator x = { .run = r, .portion = p };
    const char *own;
    int n_stops;
    const char **stops = stops_of(&r->task->spec, &own, &n_stops);
    for (int i = 0; i < n_stops; i++)
        x.longest_stop = strlen(stops[i]) > x.longest_stop ? strlen(stops[i]) : x.longest_stop;
    if (!(x.writings = mem_new((size_t)p->n, sizeof *x.writings, err)))
        return false;
    bool ok = generate_all(&x, err);
    for (int i = 0; i < p->n; i++)
        writing_free(&x.writings[i]);
    free(x.writings);
    return ok;
}
