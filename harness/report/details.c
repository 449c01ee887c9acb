/* details.c - what lies under the scores: gap closed, flips, subjects, token-level measures, history, single items. */
#include "report/sections.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum { REPLICATES = 10000, SEED = 1, SHOWN_ITEMS = 20, SHOWN_CHARS = 2000 };

static bool sql_fail(struct writing *w, struct error *err)
{
    return fail(err, STATUS_INPUT, "reading the database: %s", sqlite3_errmsg(store_db(w->st->s)));
}

static bool prepare(struct writing *w, const char *sql, sqlite3_stmt **out, struct error *err)
{
    return sqlite3_prepare_v2(store_db(w->st->s), sql, -1, out, NULL) == SQLITE_OK || sql_fail(w, err);
}

/* ---- gap closed ---- */

static bool says_qat(const char *s)
{
    for (; *s; s++)
        if (strncasecmp(s, "qat", 3) == 0)
            return true;
    return false;
}

/* Files of QAT checkpoints seldom say so; then the label is what there is. */
static bool is_qat(const struct contrast *x)
{
    return says_qat(x->model->method) || (!*x->model->method && says_qat(x->model->label));
}

/* Only where the base clearly beats ptq is there a gap to speak of (the ratio of two noises says nothing). */
static bool has_gap(const struct contrast *ptq)
{
    return is_primary(ptq) && ptq->c.verdict == VERDICT_WORSE && !is_qat(ptq);
}

static bool shares_items(const struct contrast *x, const struct contrast *y)
{
    if (x->base != y->base || x->c.n != y->c.n)
        return false;
    for (int i = 0; i < x->c.n; i++)
        if (strcmp(x->pairs[i].item, y->pairs[i].item) != 0)
            return false;
    return true;
}

static bool gap_row(struct writing *w, const struct contrast *ptq, const struct contrast *x, struct error *err)
{
    int n = x->c.n;
    double *scores = mem_new(3 * (size_t)n, sizeof *scores, err);
    struct gap_closed g;
    if (!scores)
        return false;
    for (int i = 0; i < n; i++) {
        scores[i] = x->pairs[i].base;
        scores[n + i] = ptq->pairs[i].model;
        scores[2 * n + i] = x->pairs[i].model;
    }
    bool ok = gap_closed(scores, scores + n, scores + 2 * n, n, REPLICATES, SEED, .95, &g, err);
    free(scores);
    if (!ok)
        return false;
    doc_cell(w->doc, "", "%s", x->c.model);
    doc_cell(w->doc, "", "%s", ptq->c.model);
    doc_cell(w->doc, "", "%s", x->c.task);
    cell_points(w->doc, ptq->c.delta);
    cell_points(w->doc, x->c.delta);
    doc_cell(w->doc, "", "%.0f %%", 100 * g.share);
    doc_cell(w->doc, "quiet", "%.0f to %.0f %%", 100 * g.interval.lo, 100 * g.interval.hi);
    return true;
}

bool section_gap(struct writing *w, struct error *err)
{
    const struct study *st = w->st;
    bool any = false, qat = false;
    for (int i = 0; i < st->n; i++)
        qat |= is_primary(&st->contrasts[i]) && is_qat(&st->contrasts[i]);
    for (int p = 0; p < st->n; p++)
        for (int i = 0; i < st->n; i++) {
            const struct contrast *ptq = &st->contrasts[p], *x = &st->contrasts[i];
            if (i == p || !has_gap(ptq) || !is_primary(x) || strcmp(x->c.task, ptq->c.task) != 0 || !shares_items(x, ptq) ||
                (qat ? !is_qat(x) : x->c.score <= ptq->c.score))
                continue;
            if (!any) {
                doc_heading(w->doc, 2, "Gap closed");
                doc_paragraph(w->doc,
                              "How much of what a quantized model lost against %s another one has not lost: (model - quantized) / "
                              "(base - quantized), with a 95 %% interval from %d bootstrap replicates of all three together. Shown "
                              "only where the loss itself is significant.",
                              st->base.shown, REPLICATES);
                doc_table(w->doc, "lllrrrr", "Model|Quantized|Task|Quantized: delta|Model: delta|Closed|95 %");
            }
            any = true;
            if (!gap_row(w, ptq, x, err))
                return false;
        }
    return doc_ok(w->doc, err);
}

/* ---- flips ---- */

static void flip_row(struct doc *d, const struct comparison *c)
{
    doc_cell(d, "", "%s", c->model);
    doc_cell(d, "", "%s", c->task);
    doc_cell(d, "", "%d", c->lost);
    doc_cell(d, "", "%d", c->won);
    doc_cell(d, "", "%d", c->other);
    doc_cell(d, "", "%.1f %%", 100.0 * (c->lost + c->won) / c->n);
    doc_cell(d, "", "%d, %d", c->lost_sure, c->won_sure);
    doc_cell(d, "", "%d, %d", c->lost_tie, c->won_tie);
    doc_cell(d, "", "%d (%d)", c->invalid, c->base_invalid);
    doc_cell(d, "", "%d (%d)", c->truncated, c->base_truncated);
}

bool section_flips(struct writing *w, struct error *err)
{
    const struct study *st = w->st;
    struct text tsv = { 0 };
    int rows = 0, y = 0;
    for (int i = 0; i < st->n; i++)
        rows += is_primary(&st->contrasts[i]) && st->contrasts[i].c.binary;
    if (rows == 0)
        return true;
    doc_heading(w->doc, 2, "Flips");
    doc_paragraph(w->doc,
                  "A score can stay while its items change. Flips in both directions at near-ties are movement; flips of items "
                  "that the base was sure of are damage or repair.");
    text_puts(&tsv, "y\tlabel\tlost_sure\tlost\tlost_tie\twon_sure\twon\twon_tie\n");
    for (int i = 0; i < st->n; i++) {
        const struct comparison *c = &st->contrasts[i].c;
        double each = 100.0 / (c->n ? c->n : 1);
        if (is_primary(&st->contrasts[i]) && c->binary)
            text_printf(&tsv, "%d\t%s: %s\t%.6g\t%.6g\t%.6g\t%.6g\t%.6g\t%.6g\n", rows - 1 - y++, c->task,
                        c->model + common_start(st), each * c->lost_sure, each * (c->lost - c->lost_sure - c->lost_tie),
                        each * c->lost_tie, each * c->won_sure, each * (c->won - c->won_sure - c->won_tie), each * c->won_tie);
    }
    if (!add_figure(w, "flips", "flips", &tsv, "Items lost and won against the base, by how sure the base was of its answer.", err))
        return false;
    doc_table(w->doc, "llrrrrrrrr", "Model|Task|Lost|Won|Other wrong|Flips|Base sure: lost, won|Ties: lost, won|Invalid (base)|"
                                    "Cut off (base)");
    for (int i = 0; i < st->n; i++)
        if (is_primary(&st->contrasts[i]) && st->contrasts[i].c.binary)
            flip_row(w->doc, &st->contrasts[i].c);
    return doc_ok(w->doc, err);
}

/* ---- subjects ---- */

struct subject {
    const char *name;
    int n, lost, won, base_right;
    double delta, p, adjusted;
    struct interval interval;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct subject *)a)->name, ((const struct subject *)b)->name);
}

static int by_delta(const void *a, const void *b)
{
    const struct subject *x = a, *y = b;
    return x->delta < y->delta ? -1 : x->delta > y->delta ? 1 : strcmp(x->name, y->name);
}

static bool count_subjects(const struct contrast *x, struct subject **out, int *n, struct error *err)
{
    struct map seen = { 0 };
    struct subject *s = mem_new((size_t)x->c.n + 1, sizeof *s, err);
    bool ok = s != NULL;
    *n = 0;
    for (int i = 0; ok && i < x->c.n; i++) {
        const struct pair *p = &x->pairs[i];
        int64_t at = *n;
        if (!map_get(&seen, p->group, strlen(p->group), &at)) {
            ok = map_put(&seen, p->group, strlen(p->group), at, err);
            s[(*n)++].name = p->group;
        }
        s[at].n++;
        s[at].base_right += p->base >= 1;
        s[at].lost += p->base >= 1 && p->model < 1;
        s[at].won += p->base < 1 && p->model >= 1;
    }
    map_free(&seen);
    *out = s;
    return ok;
}

static bool measure_subjects(struct subject *s, int n, struct error *err)
{
    double *p = mem_new(2 * (size_t)n, sizeof *p, err);
    if (!p)
        return false;
    qsort(s, (size_t)n, sizeof *s, by_name);
    for (int i = 0; i < n; i++) {
        s[i].delta = ((double)s[i].won - s[i].lost) / s[i].n;
        s[i].interval = tango(s[i].won, s[i].lost, s[i].n, .95);
        s[i].p = p[i] = mcnemar_midp(s[i].won, s[i].lost);
    }
    benjamini_hochberg(p, n, p + n);
    for (int i = 0; i < n; i++)
        s[i].adjusted = p[n + i];
    free(p);
    qsort(s, (size_t)n, sizeof *s, by_delta);
    return true;
}

static bool subject_figure(struct writing *w, const struct contrast *x, const struct subject *s, int n, struct error *err)
{
    struct text tsv = { 0 };
    char name[120], caption[400];
    text_puts(&tsv, "y\tlabel\tdelta\tlo\thi\titems\tp\tadjusted_p\n");
    for (int i = 0; i < n; i++)
        text_printf(&tsv, "%d\t%s\t%.6g\t%.6g\t%.6g\t%d\t%.6g\t%.6g\n", i, *s[i].name ? s[i].name : "-", 100 * s[i].delta,
                    100 * s[i].interval.lo, 100 * s[i].interval.hi, s[i].n, s[i].p, s[i].adjusted);
    plots_name(name, sizeof name, "subjects-%.40s-%.60s", x->c.task, x->c.model);
    snprintf(caption, sizeof caption,
             "%.100s, %.100s: difference to the base by subject, 95 %% intervals. Triangles: significant after "
             "Benjamini-Hochberg over %d subjects.",
             x->c.task, x->c.model, n);
    return add_figure(w, "subjects", name, &tsv, caption, err);
}

static bool subject_block(struct writing *w, const struct contrast *x, struct error *err)
{
    struct subject *s;
    int n;
    struct doc *d = w->doc;
    bool ok = count_subjects(x, &s, &n, err);
    if (ok && n > 1) {
        doc_fold(d, "%s, %s: %d subjects", x->c.task, x->c.model, n);
        ok = measure_subjects(s, n, err) && subject_figure(w, x, s, n, err);
        doc_table(d, "lrrrrrrrr", "Subject|n|Base %|Delta|95 %|Lost|Won|Mid-p|BH p");
        for (int i = 0; ok && i < n; i++) {
            doc_cell(d, "", "%s", *s[i].name ? s[i].name : "-");
            doc_cell(d, "", "%d", s[i].n);
            cell_percent(d, (double)s[i].base_right / s[i].n);
            cell_points(d, s[i].delta);
            cell_interval(d, s[i].interval.lo, s[i].interval.hi, true);
            doc_cell(d, "", "%d", s[i].lost);
            doc_cell(d, "", "%d", s[i].won);
            cell_p(d, s[i].p);
            cell_p(d, s[i].adjusted);
        }
        doc_fold_end(d);
    }
    free(s);
    return ok;
}

static bool has_groups(const struct contrast *x)
{
    for (int i = 1; i < x->c.n; i++)
        if (strcmp(x->pairs[i].group, x->pairs[0].group) != 0)
            return true;
    return false;
}

bool section_subjects(struct writing *w, struct error *err)
{
    bool any = false;
    for (int i = 0; i < w->st->n; i++) {
        const struct contrast *x = &w->st->contrasts[i];
        if (!is_primary(x) || !x->c.binary || !has_groups(x))
            continue;
        if (!any) {
            doc_heading(w->doc, 2, "By subject");
            doc_paragraph(w->doc, "Exploratory: a screen for damage confined to some subjects, adjusted for their number.");
        }
        any = true;
        if (!subject_block(w, x, err))
            return false;
    }
    return doc_ok(w->doc, err);
}

/* ---- token-level measures ---- */

enum { KNOWN = 13 };
static const char *const known[KNOWN] = { "kld_mean", "kld_se", "kld_p1", "kld_p10", "kld_p50", "kld_p90", "kld_p99",
                                          "kld_max", "same_top", "delta_p_rms", "ppl", "ppl_base", "tokens" };
static const char *const also[KNOWN] = { "", "", "", "", "kld_median", "", "kld_99", "", "", "", "", "", "" };

struct measured {               /* of one model against one base on one text */
    const char *model, *base, *text, *act;
    bool of_study_base;
    double value[KNOWN];
};

/* A digest's name: a model of the report, else any label in the database, else its first digits. */
static const char *name_of(struct writing *w, const char *sha256)
{
    const struct study *st = w->st;
    char digits[16];
    if (strcmp(sha256, st->base.sha256) == 0)
        return st->base.shown;
    for (int i = 0; i < st->n_models; i++)
        if (strcmp(sha256, st->models[i].sha256) == 0)
            return st->models[i].shown;
    for (int i = 0; i < st->n_groups; i++)
        if (strcmp(sha256, st->groups[i].sha256) == 0)
            return st->groups[i].label;
    int len = snprintf(digits, sizeof digits, "%.12s", sha256);
    const char *kept = arena_str(&w->st->arena, digits, (size_t)len, NULL);
    return kept ? kept : "";
}

static bool in_study(const struct study *st, const char *sha256)
{
    for (int i = 0; i < st->n_models; i++)
        if (strcmp(sha256, st->models[i].sha256) == 0)
            return true;
    return false;
}

static const char *kept_column(struct writing *w, sqlite3_stmt *q, int at)
{
    const char *s = (const char *)sqlite3_column_text(q, at);
    s = arena_str(&w->st->arena, s ? s : "", s ? strlen(s) : 0, NULL);
    return s ? s : "";
}

static bool take_measure(struct writing *w, sqlite3_stmt *q, struct measured **list, size_t *cap, int *n, struct error *err)
{
    const char *model = (const char *)sqlite3_column_text(q, 0), *base = (const char *)sqlite3_column_text(q, 1);
    if (!in_study(w->st, model))
        return true;
    if (sqlite3_column_int(q, 6) || *n == 0) {              /* first row of its (model, base, text, act) */
        if (!mem_grow(list, cap, (size_t)*n + 1, sizeof **list, err))
            return false;
        struct measured *m = &(*list)[(*n)++];
        *m = (struct measured){ name_of(w, model), name_of(w, base), kept_column(w, q, 2), kept_column(w, q, 3),
                                strcmp(base, w->st->base.sha256) == 0, { 0 } };
        for (int i = 0; i < KNOWN; i++)
            m->value[i] = NAN;
    }
    const char *name = (const char *)sqlite3_column_text(q, 4);
    for (int i = 0; i < KNOWN; i++)
        if (strcmp(known[i], name) == 0 || (*also[i] && strcmp(also[i], name) == 0))
            (*list)[*n - 1].value[i] = sqlite3_column_double(q, 5);
    return true;
}

static bool read_measures(struct writing *w, struct measured **list, int *n, struct error *err)
{
    sqlite3_stmt *q;
    size_t cap = 0;
    *list = NULL;
    *n = 0;
    if (!prepare(w, "SELECT model_sha256, base_sha256, text_sha256, act, name, value, row_number() OVER (PARTITION BY "
                    "base_sha256, text_sha256, act, model_sha256) = 1 FROM measures ORDER BY base_sha256, text_sha256, act, "
                    "model_sha256", &q, err))
        return false;
    int rc;
    bool ok = true;
    while (ok && (rc = sqlite3_step(q)) != SQLITE_DONE)
        ok = (rc == SQLITE_ROW || sql_fail(w, err)) && take_measure(w, q, list, &cap, n, err);
    sqlite3_finalize(q);
    return ok;
}

static void cell_measure(struct doc *d, double x, const char *format)
{
    char s[40];
    if (isnan(x)) {
        doc_cell(d, "quiet", "-");
        return;
    }
    snprintf(s, sizeof s, *format == '%' ? "%.1f %%" : "%.4g", *format == '%' ? 100 * x : x);
    doc_cell(d, "", "%s", s);
}

static void measure_row(struct doc *d, const struct measured *m)
{
    const double *v = m->value;
    doc_cell(d, "", "%s", m->model);
    doc_cell(d, "", "%s", m->base);
    doc_cell(d, "code", "%.8s", m->text);
    if (isnan(v[12]))
        doc_cell(d, "quiet", "-");
    else
        doc_cell(d, "", "%.0f", v[12]);
    cell_measure(d, v[0], "");
    cell_measure(d, v[1], "");
    cell_measure(d, v[4], "");
    cell_measure(d, v[6], "");
    cell_measure(d, v[8], "%");
    cell_measure(d, v[9], "%");
    if (isnan(v[10]))
        doc_cell(d, "quiet", "-");
    else
        doc_cell(d, "", "%.3f (%.3f)", v[10], v[11]);
    doc_cell(d, "quiet", "%s", m->act);
}

/* Against the report's base, or against other references: a QAT file's own unquantized checkpoint. */
static void measure_part(struct doc *d, const struct measured *m, int n, bool of_study_base)
{
    bool any = false;
    for (int i = 0; i < n; i++) {
        if (m[i].of_study_base != of_study_base)
            continue;
        if (!any) {
            doc_heading(d, 3, of_study_base ? "Against the base" : "Conversion: against another reference");
            doc_table(d, "lllrrrrrrrrl",
                      "Model|Reference|Text|Tokens|KLD mean|SE|Median|99 %|Same top|Delta p|Perplexity (ref.)|Act");
        }
        any = true;
        measure_row(d, &m[i]);
    }
}

static bool has_distribution(const struct measured *m)
{
    bool all = !isnan(m->value[0]);
    for (int i = 2; i <= 6; i++)
        all &= !isnan(m->value[i]);
    return all;
}

static bool measure_figure(struct writing *w, const struct measured *m, int n, struct error *err)
{
    struct text tsv = { 0 };
    int rows = 0, y = 0;
    for (int i = 0; i < n; i++)
        rows += has_distribution(&m[i]);
    if (rows == 0)
        return true;
    text_puts(&tsv, "y\tlabel\tp1\tp10\tp50\tp90\tp99\tmean\n");
    for (int i = 0; i < n; i++) {
        const double *v = m[i].value;
        if (has_distribution(&m[i]))
            text_printf(&tsv, "%d\t%s / %s\t%.6g\t%.6g\t%.6g\t%.6g\t%.6g\t%.6g\n", rows - 1 - y++, m[i].model, m[i].base, v[2],
                        v[3], v[4], v[5], v[6], v[0]);
    }
    return add_figure(w, "kld", "kld", &tsv,
                      "KL divergence over the tokens: line 1 % to 99 %, bar 10 % to 90 %, circle the median, "
                      "diamond the mean.",
                      err);
}

bool section_measures(struct writing *w, struct error *err)
{
    struct measured *m;
    int n;
    bool ok = read_measures(w, &m, &n, err);
    if (ok && n > 0) {
        doc_heading(w->doc, 2, "Token-level distance");
        doc_paragraph(
            w->doc,
            "KL divergence measures distance, not quality. Training moves a QAT model away from the original weights, so a "
            "large value against them is expected and says nothing bad; against the unquantized QAT checkpoint it tells whether "
            "the conversion was faithful. Perplexity on a text depends on what the model was tuned on, so it is never the "
            "headline.");
        measure_part(w->doc, m, n, true);
        measure_part(w->doc, m, n, false);
        ok = measure_figure(w, m, n, err);
    }
    free(m);
    return ok && doc_ok(w->doc, err);
}

/* ---- history ---- */

static bool same_series(const struct group *a, const struct group *b)
{
    return strcmp(a->label, b->label) == 0 && strcmp(a->task, b->task) == 0 && strcmp(a->task_version, b->task_version) == 0 &&
           strcmp(a->prompt_mode, b->prompt_mode) == 0 && strcmp(a->act, b->act) == 0 && strcmp(a->metric, b->metric) == 0 &&
           strcmp(a->template_name, b->template_name) == 0 && a->shots == b->shots && a->limit == b->limit;
}

static void put_date(struct text *t, int64_t seconds)
{
    time_t when = (time_t)seconds;
    struct tm tm;
    char s[32];
    if (gmtime_r(&when, &tm) && strftime(s, sizeof s, "%Y-%m-%d", &tm) > 0)
        text_puts(t, s);
}

static bool series_figure(struct writing *w, const struct group *first, struct error *err)
{
    const struct study *st = w->st;
    struct text tsv = { 0 };
    char name[120], caption[400];
    int rows = 0;
    text_puts(&tsv, "number\twhen\tscore\tlo\thi\trun\n");
    for (const struct group *g = first; g < st->groups + st->n_groups; g++) {
        if (!same_series(first, g) || !g->finished)
            continue;
        struct interval i = wilson((int)lround(g->score * g->items), g->items, .95);
        text_printf(&tsv, "%d\t", ++rows);
        if (*g->tag)
            text_puts(&tsv, g->tag);
        else
            put_date(&tsv, g->started_at);
        text_printf(&tsv, "\t%.6g\t%.6g\t%.6g\t%s\n", 100 * g->score, 100 * i.lo, 100 * i.hi, g->runs);
    }
    plots_name(name, sizeof name, "history-%.40s-%.60s", first->task, first->label);
    snprintf(caption, sizeof caption, "%.100s, %.100s: score from run to run with Wilson 95 %% intervals.", first->task,
             first->label);
    return add_figure(w, "history", name, &tsv, caption, err);
}

/* A series: finished runs of one label on one task under one setting, told apart by weights or tag. */
bool section_history(struct writing *w, struct error *err)
{
    const struct study *st = w->st;
    bool any = false;
    for (int i = 0; i < st->n_groups; i++) {
        const struct group *g = &st->groups[i];
        bool wanted = strcmp(g->label, st->base.label) == 0, first = g->finished && g->items > 0;
        for (int m = 0; m < st->n_models; m++)
            wanted |= strcmp(g->label, st->models[m].label) == 0;
        int later = 0;
        for (int k = 0; k < st->n_groups; k++)
            if (k != i && st->groups[k].finished && same_series(g, &st->groups[k])) {
                first &= k > i;
                later += k > i;
            }
        if (!wanted || !first || later == 0)
            continue;
        if (!any)
            doc_heading(w->doc, 2, "History");
        any = true;
        if (!series_figure(w, g, err))
            return false;
    }
    return doc_ok(w->doc, err);
}

/* ---- single items ---- */

struct flip {
    const struct contrast *x;
    const struct pair *p;
};

/* Most surprising first: what the base was surest of. */
static int by_surprise(const void *a, const void *b)
{
    const struct flip *x = a, *y = b;
    double m = isnan(x->p->base_margin) ? -1 : x->p->base_margin, k = isnan(y->p->base_margin) ? -1 : y->p->base_margin;
    if (m != k)
        return m > k ? -1 : 1;
    int by = strcmp(x->p->item, y->p->item);
    return by ? by : strcmp(x->x->c.model, y->x->c.model);
}

static bool collect_flips(const struct study *st, struct flip **out, int *n, struct error *err)
{
    size_t cap = 0;
    *out = NULL;
    *n = 0;
    for (int i = 0; i < st->n; i++) {
        const struct contrast *x = &st->contrasts[i];
        for (int k = 0; is_primary(x) && x->c.binary && k < x->c.n; k++) {
            if (x->pairs[k].base == x->pairs[k].model)
                continue;
            if (!mem_grow(out, &cap, (size_t)*n + 1, sizeof **out, err))
                return false;
            (*out)[(*n)++] = (struct flip){ x, &x->pairs[k] };
        }
    }
    if (*n)
        qsort(*out, (size_t)*n, sizeof **out, by_surprise);
    return true;
}

/* Generated text, or the choices with their log-probabilities. */
static bool put_output(struct writing *w, const char *runs, const char *item, struct text *out, struct error *err)
{
    struct text sql = { 0 };
    sqlite3_stmt *q = NULL;
    text_printf(&sql,
                "SELECT items.output, choices.position, choices.logprob FROM items LEFT JOIN choices ON choices.item = items.id "
                "WHERE items.run IN (%s) AND items.item = ?1 ORDER BY choices.position",
                runs);
    bool ok = text_ok(&sql, err) && prepare(w, text_str(&sql), &q, err);
    text_free(&sql);
    if (ok)
        sqlite3_bind_text(q, 1, item, -1, SQLITE_STATIC);
    while (ok && sqlite3_step(q) == SQLITE_ROW) {
        const char *s = (const char *)sqlite3_column_text(q, 0);
        if (s && out->len == 0) {
            size_t len = strlen(s);
            text_add(out, s, len > SHOWN_CHARS ? SHOWN_CHARS : len);
            text_puts(out, len > SHOWN_CHARS ? " [...]" : "");
        }
        if (sqlite3_column_type(q, 1) != SQLITE_NULL)
            text_printf(out, "%c  %9.4f\n", 'A' + sqlite3_column_int(q, 1) % 26, sqlite3_column_double(q, 2));
    }
    sqlite3_finalize(q);
    return ok && text_ok(out, err);
}

static const char *answer(const char *s)
{
    return s ? s : "invalid";
}

static bool show_flip(struct writing *w, const struct flip *f, struct error *err)
{
    const struct comparison *c = &f->x->c;
    struct text base = { 0 }, model = { 0 }, base_title = { 0 }, title = { 0 };
    bool lost = f->p->base > f->p->model;
    bool ok = put_output(w, f->x->base->runs, f->p->item, &base, err) && put_output(w, f->x->model->runs, f->p->item, &model, err);
    if (ok) {
        text_printf(&base_title, "%s: %s", c->base, answer(f->p->base_answer));
        text_printf(&title, "%s: %s", c->model, answer(f->p->answer));
        if (!isnan(f->p->base_margin))
            text_printf(&base_title, ", margin %.2f", f->p->base_margin);
        if (!isnan(f->p->margin))
            text_printf(&title, ", margin %.2f", f->p->margin);
        doc_fold(w->doc, "%s %s / %s, %s: gold %s, %s -> %s", lost ? "lost" : "won", c->task, f->p->item, c->model, f->p->gold,
                 answer(f->p->base_answer), answer(f->p->answer));
        doc_sides(w->doc, text_str(&base_title), text_str(&base), text_str(&title), text_str(&model));
        doc_fold_end(w->doc);
    }
    text_free(&base);
    text_free(&model);
    text_free(&base_title);
    text_free(&title);
    return ok;
}

bool section_items(struct writing *w, struct error *err)
{
    struct flip *flips;
    int n;
    bool ok = collect_flips(w->st, &flips, &n, err);
    if (ok && n > 0) {
        doc_heading(w->doc, 2, "Items that flipped");
        doc_paragraph(w->doc, "The %d of %d flips that the base was surest about, with both outputs.",
                      n < SHOWN_ITEMS ? n : SHOWN_ITEMS, n);
        for (int i = 0; ok && i < n && i < SHOWN_ITEMS; i++)
            ok = show_flip(w, &flips[i], err);
    }
    free(flips);
    return ok && doc_ok(w->doc, err);
}
