/* sections.c - head, summary, scores by task, models, and how to read it. */
#include "report/sections.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *tone, *sign;
} verdict_looks[VERDICT_COUNT] = {      /* the signs are those of the plots */
    [VERDICT_BETTER] = { "better", "▲ better" },
    [VERDICT_WORSE] = { "worse", "▼ worse" },
    [VERDICT_EQUIVALENT] = { "equivalent", "■ equivalent" },
    [VERDICT_CANNOT_TELL] = { "unknown", "○ cannot tell" },
};

const char *verdict_tone(const struct comparison *c)
{
    return verdict_looks[c->verdict].tone;
}

const char *verdict_sign(const struct comparison *c)
{
    return c->refused ? "not compared" : verdict_looks[c->verdict].sign;
}

bool is_primary(const struct contrast *x)
{
    return !x->c.exploratory && !x->c.refused;
}

const char *nth_task(const struct study *st, int i)
{
    const char *last = NULL;
    for (int k = 0; k < st->n; k++)
        if (is_primary(&st->contrasts[k]) && (!last || strcmp(last, st->contrasts[k].c.task) != 0)) {
            last = st->contrasts[k].c.task;
            if (i-- == 0)
                return last;
        }
    return NULL;
}

void cell_percent(struct doc *d, double share)
{
    doc_cell(d, "", "%.1f", 100 * share);
}

void cell_points(struct doc *d, double share)
{
    struct text t = { 0 };
    put_points(&t, share, true);
    doc_cell(d, "", "%s", text_str(&t));
    text_free(&t);
}

void cell_interval(struct doc *d, double lo, double hi, bool points)
{
    struct text t = { 0 };
    if (points) {
        put_points(&t, lo, true);
        text_puts(&t, " to ");
        put_points(&t, hi, true);
    } else {
        text_printf(&t, "%.1f to %.1f", 100 * lo, 100 * hi);
    }
    doc_cell(d, "quiet", "%s", text_str(&t));
    text_free(&t);
}

void cell_p(struct doc *d, double p)
{
    struct text t = { 0 };
    put_p(&t, p);
    doc_cell(d, "", "%s", text_str(&t));
    text_free(&t);
}

bool add_figure(struct writing *w, const char *kind, const char *name, struct text *tsv, const char *caption, struct error *err)
{
    struct figure f;
    bool ok = plots_draw(w->plots, kind, name, tsv, &f, err);
    if (ok)
        doc_figure(w->doc, *f.file ? f.file : NULL, f.data, caption);
    text_free(tsv);
    return ok;
}

/* Long names that begin alike ("gemma-4-e2b-") would fill the plots: the common beginning is left out there. */
size_t common_start(const struct study *st)
{
    const char *base = st->base.shown;
    size_t common = strlen(base);
    for (int i = 0; i < st->n_models; i++) {
        size_t k = 0;
        while (k < common && st->models[i].shown[k] == base[k])
            k++;
        common = k;
    }
    while (common > 0 && !strchr("- /", base[common - 1]))
        common--;
    return common >= 4 ? common : 0;
}

/* ---- head ---- */

static const struct contrast *first_primary(const struct study *st)
{
    for (int i = 0; i < st->n; i++)
        if (is_primary(&st->contrasts[i]))
            return &st->contrasts[i];
    return NULL;
}

/* "a, b" of one string member over all groups compared, each value once. */
static void put_distinct(struct text *t, const struct study *st, size_t member)
{
    const char *seen[64];
    size_t n = 0;
    for (int i = 0; i < 2 * st->n; i++) {
        const struct contrast *x = &st->contrasts[i / 2];
        const char *s;
        if (!is_primary(x))
            continue;
        memcpy(&s, (const char *)(i % 2 ? x->model : x->base) + member, sizeof s);
        bool known = !*s;
        for (size_t k = 0; k < n; k++)
            known |= strcmp(seen[k], s) == 0;
        if (!known && n < ARRAY_LEN(seen)) {
            text_printf(t, "%s%s", n ? ", " : "", s);
            seen[n++] = s;
        }
    }
    if (n == 0)
        text_puts(t, "not recorded");
}

static void fact(struct doc *d, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void fact(struct doc *d, const char *name, const char *format, ...)
{
    struct text t = { 0 };
    char line[1024];
    va_list ap;
    va_start(ap, format);
    vsnprintf(line, sizeof line, format, ap);
    va_end(ap);
    text_puts(&t, line);
    doc_cell(d, "", "%s", name);
    doc_cell(d, "quiet", "%s", text_str(&t));
    text_free(&t);
}

static void distinct_fact(struct doc *d, const struct study *st, const char *name, size_t member)
{
    struct text t = { 0 };
    put_distinct(&t, st, member);
    doc_cell(d, "", "%s", name);
    doc_cell(d, "quiet", "%s", text_str(&t));
    text_free(&t);
}

static void task_facts(struct doc *d, const struct study *st)
{
    const char *task;
    for (int i = 0; (task = nth_task(st, i)) != NULL; i++)
        for (int k = 0; k < st->n; k++) {
            const struct comparison *c = &st->contrasts[k].c;
            if (!is_primary(&st->contrasts[k]) || strcmp(c->task, task) != 0)
                continue;
            doc_cell(d, "", "task %s", task);
            doc_cell(d, "quiet", "%d items, %s, %d-shot, prompts %s, version %s", c->n, c->metric, c->shots, c->prompt_mode,
                     c->task_version);
            break;
        }
}

bool section_head(struct writing *w, struct error *err)
{
    struct study *st = w->st;
    struct doc *d = w->doc;
    const struct contrast *x = first_primary(st);
    doc_heading(d, 1, "%s", d->title);
    if (!x) {
        doc_paragraph(d, "Nothing could be compared; the table below says why.");
        return doc_ok(d, err);
    }
    doc_paragraph(d, "Every model answered the same items with the same prompt tokens, so differences are paired, item by item. "
                     "A difference is called better or worse when its Holm-adjusted p is below %g, equivalent when its %g %% "
                     "interval lies within %g point%s of zero, and otherwise the data cannot tell.",
                  st->alpha, 100 * (1 - 2 * st->alpha), 100 * st->margin, st->margin == .01 ? "" : "s");
    doc_table(d, "ll", "What|Value");
    fact(d, "base", "%s, SHA-256 %s", st->base.shown, st->base.sha256);
    for (int i = 0; i < st->n_models; i++)
        fact(d, "compared", "%s, SHA-256 %s", st->models[i].shown, st->models[i].sha256);
    task_facts(d, st);
    if (st->common)
        fact(d, "items", "only those that both of two compared runs have");
    distinct_fact(d, st, "activations", offsetof(struct group, act));
    distinct_fact(d, st, "kernels", offsetof(struct group, kernels));
    distinct_fact(d, st, "program", offsetof(struct group, program_version));
    distinct_fact(d, st, "commit", offsetof(struct group, commit));
    return doc_ok(d, err);
}

/* ---- summary: models x tasks ---- */

static const struct contrast *find_primary(const struct study *st, const char *task, const char *model)
{
    for (int i = 0; i < st->n; i++) {
        const struct contrast *x = &st->contrasts[i];
        if (is_primary(x) && strcmp(x->c.task, task) == 0 && (!model || strcmp(x->c.model, model) == 0))
            return x;
    }
    return NULL;
}

static void cell_size(struct doc *d, double bytes)
{
    if (bytes <= 0)
        doc_cell(d, "quiet", "-");
    else if (bytes < 1e6)
        doc_cell(d, "", "%.0f kB", bytes / 1e3);
    else if (bytes < 1e9)
        doc_cell(d, "", "%.1f MB", bytes / 1e6);
    else
        doc_cell(d, "", "%.2f GB", bytes / 1e9);
}

static void cell_positive(struct doc *d, double x, const char *unit)
{
    if (x > 0 && isfinite(x))
        doc_cell(d, "", x < 100 ? "%.2f%s" : "%.0f%s", x, unit);
    else
        doc_cell(d, "quiet", "-");
}

static void summary_cell(struct doc *d, const struct comparison *c)
{
    struct text t = { 0 };
    text_printf(&t, "%s ", verdict_sign(c));
    put_points(&t, c->delta, true);
    text_puts(&t, " (");
    put_points(&t, c->delta_lo, true);
    text_puts(&t, " to ");
    put_points(&t, c->delta_hi, true);
    text_puts(&t, ")");
    doc_cell(d, verdict_tone(c), "%s", text_str(&t));
    text_free(&t);
}

static void summary_row(struct writing *w, const struct arm *m)
{
    const struct contrast *any = NULL;
    const char *task;
    for (int i = 0; !any && (task = nth_task(w->st, i)) != NULL; i++)
        any = find_primary(w->st, task, m->shown);
    if (!any)
        return;
    doc_cell(w->doc, "", "%s", m->shown);
    cell_size(w->doc, (double)any->model->file_bytes);
    cell_positive(w->doc, any->model->bits_per_weight, "");
    for (int i = 0; (task = nth_task(w->st, i)) != NULL; i++) {
        const struct contrast *x = find_primary(w->st, task, m->shown);
        if (x)
            summary_cell(w->doc, &x->c);
        else
            doc_cell(w->doc, "quiet", "-");
    }
}

bool section_summary(struct writing *w, struct error *err)
{
    struct study *st = w->st;
    struct doc *d = w->doc;
    struct text align = { 0 }, heads = { 0 };
    const char *task;
    const struct contrast *x = first_primary(st);
    if (!x)
        return true;
    doc_heading(d, 2, "In short");
    text_puts(&align, "lrr");
    text_puts(&heads, "Model|File|Bits/weight");
    for (int i = 0; (task = nth_task(st, i)) != NULL; i++) {
        text_putc(&align, 'l');
        text_printf(&heads, "|%s: delta in points (95 %%)", task);
    }
    doc_table(d, text_str(&align), text_str(&heads));
    doc_cell(d, "", "%s (base)", st->base.shown);
    cell_size(d, (double)x->base->file_bytes);
    cell_positive(d, x->base->bits_per_weight, "");
    for (int i = 0; (task = nth_task(st, i)) != NULL; i++)
        doc_cell(d, "quiet", "scores %.1f %%", 100 * find_primary(st, task, NULL)->c.base_score);
    for (int m = 0; m < st->n_models; m++)
        summary_row(w, &st->models[m]);
    text_free(&align);
    text_free(&heads);
    struct text tsv = { 0 };
    int rows = 0, y = 0;
    for (int i = 0; i < st->n; i++)
        rows += is_primary(&st->contrasts[i]);
    text_puts(&tsv, "y\tlabel\tdelta\tlo\thi\tverdict\tmargin\n");
    for (int i = 0; i < st->n; i++) {
        const struct comparison *c = &st->contrasts[i].c;
        if (is_primary(&st->contrasts[i]))
            text_printf(&tsv, "%d\t%s: %s\t%.6g\t%.6g\t%.6g\t%d\t%g\n", rows - 1 - y++, c->task, c->model + common_start(st),
                        100 * c->delta, 100 * c->delta_lo, 100 * c->delta_hi, (int)c->verdict, 100 * st->margin);
    }
    return add_figure(w, "forest", "forest", &tsv, "Paired difference to the base in points with its 95 % interval; the band is "
                      "the margin.", err) && doc_ok(d, err);
}

/* ---- score against size ---- */

/* Largest file of the task's rows, in bytes. */
static double largest_file(const struct study *st, const char *task)
{
    int64_t most = 0;
    for (int i = 0; i < st->n; i++) {
        const struct contrast *x = &st->contrasts[i];
        if (is_primary(x) && strcmp(x->c.task, task) == 0) {
            most = x->base->file_bytes > most ? x->base->file_bytes : most;
            most = x->model->file_bytes > most ? x->model->file_bytes : most;
        }
    }
    return (double)most;
}

/* A point of the size plot and where its name goes: 1 right of it, -1 left; 1 above, -1 below. */
struct size_point {
    const char *label;
    double x, y, lo, hi;        /* bytes; shares */
    int kind, side, level;
};

/* Rough boxes in shares of the plot: a letter is 1/90 of its width, a line 1/18 of its height. */
static bool names_touch(const struct size_point *a, const struct size_point *b, double width, double height)
{
    double a_long = (double)strlen(a->label) / 90, b_long = (double)strlen(b->label) / 90;
    double ax = a->x / width + a->side * (.02 + a_long / 2), bx = b->x / width + b->side * (.02 + b_long / 2);
    double ay = a->y / height + a->level * .04, by = b->y / height + b->level * .04;
    return fabs(ax - bx) < (a_long + b_long) / 2 && fabs(ay - by) < .055;
}

static void place_names(struct size_point *p, int n, double width, double height)
{
    static const int places[][2] = { { 1, 1 }, { -1, 1 }, { 1, -1 }, { -1, -1 } };
    for (int i = 0; i < n; i++)
        for (size_t k = 0; k < ARRAY_LEN(places); k++) {
            bool taken = false;
            p[i].side = places[k][0];
            p[i].level = places[k][1];
            taken |= p[i].side < 0 && p[i].x / width < .03 + (double)strlen(p[i].label) / 90;     /* over the axis */
            for (int j = 0; j < i; j++)
                taken |= names_touch(&p[i], &p[j], width, height);
            if (!taken)
                break;
        }
}

static int size_points(const struct study *st, const char *task, struct size_point *p)
{
    int n = 0;
    for (int i = 0; i < st->n; i++) {
        const struct contrast *x = &st->contrasts[i];
        const struct comparison *c = &x->c;
        if (!is_primary(x) || strcmp(c->task, task) != 0)
            continue;
        size_t skip = common_start(st);
        if (n == 0)
            p[n++] = (struct size_point){ c->base + skip, (double)x->base->file_bytes, c->base_score, c->base_score,
                                          c->base_score, 4, 1, 1 };
        double lo = c->base_score + c->delta_lo, hi = c->base_score + c->delta_hi;
        p[n++] = (struct size_point){ c->model + skip, (double)x->model->file_bytes, c->score, c->binary ? fmax(0, lo) : lo,
                                      c->binary ? fmin(1, hi) : hi, (int)c->verdict, 1, 1 };
    }
    return n;
}

static void put_size_rows(struct text *tsv, const struct size_point *p, int n, double widest)
{
    int power = widest >= 1e9 ? 9 : widest >= 1e6 ? 6 : 3;
    double unit = pow(10, power);
    text_puts(tsv, "label\tsize\tscore\tlo\thi\tkind\tplace\tpower\n");
    for (int i = 0; i < n; i++)
        text_printf(tsv, "%s\t%.6g\t%.6g\t%.6g\t%.6g\t%d\t%d\t%d\n", p[i].label, p[i].x / unit, 100 * p[i].y, 100 * p[i].lo,
                    100 * p[i].hi, p[i].kind, p[i].side + 3 * p[i].level, power);
}

static bool size_plot(struct writing *w, const char *task, struct error *err)
{
    struct text tsv = { 0 };
    char name[80], caption[300];
    double widest = largest_file(w->st, task), lo = 1, hi = 0;
    if (widest <= 0)
        return true;
    struct size_point *p = mem_new((size_t)w->st->n + 1, sizeof *p, err);
    if (!p)
        return false;
    int n = size_points(w->st, task, p);
    for (int i = 0; i < n; i++) {
        lo = fmin(lo, p[i].lo);
        hi = fmax(hi, p[i].hi);
    }
    place_names(p, n, 1.22 * widest, 1.24 * (hi - lo) + .002);      /* the ranges that size.gp sets */
    put_size_rows(&tsv, p, n, widest);
    free(p);
    plots_name(name, sizeof name, "size-%.60s", task);
    snprintf(caption, sizeof caption, "%.100s: score against file size. The bars are paired: where the score would lie with 95 %% "
             "confidence if the base's score were exact.", task);
    return add_figure(w, "size", name, &tsv, caption, err);
}

bool section_size(struct writing *w, struct error *err)
{
    const char *task;
    for (int i = 0; (task = nth_task(w->st, i)) != NULL; i++) {
        if (i == 0)
            doc_heading(w->doc, 2, "Score against file size");
        if (!size_plot(w, task, err))
            return false;
    }
    return doc_ok(w->doc, err);
}

/* ---- scores by task ---- */

/* The words repeat the verdict, which stands in the cell before. */
static const char *words_after_verdict(const struct comparison *c)
{
    const char *name = verdict_names[c->verdict], *p = c->words;
    if (str_starts(p, name))
        p += strlen(name);
    return p + strspn(p, ": ");
}

static void comparison_table(struct writing *w, const char *task, bool exploratory, const char *metric)
{
    struct doc *d = w->doc;
    doc_table(d, "lrrrrrrrrrll", "Model|n|Score %|95 %|Delta|95 %|Lost|Won|Mid-p|Holm p|Verdict|In words");
    bool base = false;
    for (int i = 0; i < w->st->n; i++) {
        const struct comparison *c = &w->st->contrasts[i].c;
        if (c->refused || c->exploratory != exploratory || strcmp(c->task, task) != 0 || strcmp(c->metric, metric) != 0)
            continue;
        if (!base) {
            doc_cell(d, "", "%s (base)", c->base);
            doc_cell(d, "", "%d", c->n);
            cell_percent(d, c->base_score);
            cell_interval(d, c->base_lo, c->base_hi, false);
            for (int k = 0; k < 6; k++)
                doc_cell(d, "", "%s", "");
            doc_cell(d, "", "%s", "");
            if (c->base_at_chance && c->binary)
                doc_cell(d, "words", c->generated ? "not above %.0f %%: hardly any answer is right" : "at chance level (%.1f %%)",
                         100 * c->chance);
            else
                doc_cell(d, "", "%s", "");
            base = true;
        }
        doc_cell(d, "", "%s", c->model);
        doc_cell(d, "", "%d", c->n);
        cell_percent(d, c->score);
        cell_interval(d, c->score_lo, c->score_hi, false);
        cell_points(d, c->delta);
        cell_interval(d, c->delta_lo, c->delta_hi, true);
        doc_cell(d, "", "%d", c->lost);
        doc_cell(d, "", "%d", c->won);
        cell_p(d, c->p);
        cell_p(d, c->p_holm);
        doc_cell(d, verdict_tone(c), "%s", verdict_sign(c));
        doc_cell(d, "words", "%s", words_after_verdict(c));
    }
}

bool section_tasks(struct writing *w, struct error *err)
{
    struct study *st = w->st;
    const char *task;
    doc_heading(w->doc, 2, "Scores by task");
    for (int i = 0; (task = nth_task(st, i)) != NULL; i++) {
        const struct contrast *x = find_primary(st, task, NULL);
        doc_heading(w->doc, 3, "%s: %s", task, x->c.metric);
        comparison_table(w, task, false, x->c.metric);
    }
    bool any = false;
    for (int i = 0; i < st->n; i++)
        if (st->contrasts[i].c.refused) {
            if (!any) {
                doc_heading(w->doc, 3, "Not compared");
                doc_table(w->doc, "lll", "Model|Task|Why");
            }
            any = true;
            doc_cell(w->doc, "", "%s", st->contrasts[i].c.model);
            doc_cell(w->doc, "", "%s", st->contrasts[i].c.task);
            doc_cell(w->doc, "", "%s", st->contrasts[i].c.words);
        }
    return doc_ok(w->doc, err);
}

bool section_exploratory(struct writing *w, struct error *err)
{
    const char *task = "", *metric = "";
    bool any = false;
    for (int i = 0; i < w->st->n; i++) {
        const struct comparison *c = &w->st->contrasts[i].c;
        if (!c->exploratory || (strcmp(c->task, task) == 0 && strcmp(c->metric, metric) == 0))
            continue;
        if (!any) {
            doc_heading(w->doc, 2, "Exploratory metrics");
            doc_paragraph(
                w->doc, "Not declared as a task's primary metric, so adjusted as a family of their own and no ground for a claim.");
        }
        any = true;
        task = c->task;
        metric = c->metric;
        doc_fold(w->doc, "%s: %s", task, metric);
        comparison_table(w, task, true, metric);
        doc_fold_end(w->doc);
    }
    return doc_ok(w->doc, err);
}

/* ---- models ---- */

static void model_row(struct doc *d, const struct model_facts *f, const char *shown)
{
    doc_cell(d, "", "%s", shown);
    doc_cell(d, "", "%s", *f->format ? f->format : "-");
    doc_cell(d, "", "%s", *f->method ? f->method : "-");
    cell_size(d, (double)f->file_bytes);
    cell_positive(d, f->bits_per_weight, "");
    cell_size(d, (double)f->peak_bytes);
    cell_positive(d, f->tokens_per_s, "");
    cell_positive(d, f->items_per_s, "");
    doc_cell(d, "", "%s", *f->recipe ? f->recipe : "-");
    doc_cell(d, "code", "%s", f->runs);
    doc_cell(d, "code", "%.12s", f->sha256);
}

bool section_models(struct writing *w, struct error *err)
{
    struct doc *d = w->doc;
    const char *task;
    doc_heading(d, 2, "Models and runs");
    for (int i = 0; (task = nth_task(w->st, i)) != NULL; i++) {
        bool base = false;
        doc_heading(d, 3, "%s", task);
        doc_table(d, "lllrrrrrlll", "Model|Format|Method|File|Bits/weight|Memory|Tokens/s|Items/s|Recipe|Run|SHA-256");
        for (int k = 0; k < w->st->n; k++) {
            const struct contrast *x = &w->st->contrasts[k];
            if (!is_primary(x) || strcmp(x->c.task, task) != 0)
                continue;
            if (!base)
                model_row(d, &x->c.base_facts, x->c.base);
            base = true;
            model_row(d, &x->c.facts, x->c.model);
        }
    }
    return doc_ok(d, err);
}

bool section_reading(struct writing *w, struct error *err)
{
    static const char *const lines[][2] = {
        { "score", "share of right answers; its interval is Wilson's. Intervals of two scores may overlap although the paired "
                   "difference is clear: most of their width is about the items, which both models share." },
        { "delta", "score minus the base's score, in points; its interval is Tango's score interval for paired shares, or "
                   "Student's for scores that are fractions." },
        { "lost, won", "items that the base had right and the model wrong, and the reverse. Equal numbers mean movement "
                       "without damage; only their difference moves the score." },
        { "mid-p, Holm p", "McNemar's mid-p test of lost against won, and the same adjusted for all primary rows of this report." },
        { "cannot tell", "not evidence of equality. The smallest difference that could have been seen is the one that this "
                         "many items find with probability .8." },
        { "chance level", "what a guesser scores. Two models that are not above it are never told apart." },
        { "margin", "how much more probable the base held its answer than the runner-up, in nats: a flip below .1 is a coin "
                    "toss, above 1 damage or repair." },
    };
    doc_heading(w->doc, 2, "How to read this");
    doc_table(w->doc, "ll", "Word|Meaning");
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        doc_cell(w->doc, "", "%s", lines[i][0]);
        doc_cell(w->doc, "quiet", "%s", lines[i][1]);
    }
    return doc_ok(w->doc, err);
}
