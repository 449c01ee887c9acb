/* write.c - a report folder: index.html, report.md, plots/, data/.  From the database alone, no dates of its own,
 * so the same rows give the same bytes. */
#include "report/sections.h"

#include <stdlib.h>
#include <string.h>

/* To add a section: its function in sections.h, a row here. */
static const section sections[] = {
    section_head,     section_summary, section_size,        section_tasks, section_gap,    section_flips,
    section_subjects, section_measures, section_history,    section_items, section_exploratory, section_models,
    section_reading,
};

static bool make_folders(const char *dir, struct error *err)
{
    static const char *const names[] = { "plots", "data" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct text path = { 0 };
        path_join(&path, dir, names[i]);
        bool ok = text_ok(&path, err) && make_dirs(text_str(&path), err);
        text_free(&path);
        if (!ok)
            return false;
    }
    return true;
}

static bool write_text(const char *dir, const char *name, const struct text *t, struct error *err)
{
    struct text path = { 0 };
    path_join(&path, dir, name);
    bool ok = text_ok(t, err) && text_ok(&path, err) && file_write(text_str(&path), text_str(t), t->len, err);
    text_free(&path);
    return ok;
}

static bool put_title(struct doc *d, const struct study *st, struct error *err)
{
    struct text t = { 0 };
    for (int i = 0; i < st->n_models && i < 4; i++)
        text_printf(&t, "%s%s", i ? ", " : "", st->models[i].shown);
    if (st->n_models > 4)
        text_printf(&t, " and %d more", st->n_models - 4);
    text_printf(&t, " against %s", st->base.shown);
    d->title = arena_str(&d->arena, text_str(&t), t.len, err);
    bool ok = text_ok(&t, err) && d->title;
    text_free(&t);
    return ok;
}

static bool write_comparisons(const char *dir, const struct study *st, struct error *err)
{
    struct text t = { 0 };
    text_puts(
        &t, "task\tmetric\tprimary\tmodel\tn\tscore\tscore_lo\tscore_hi\tbase_score\tdelta\tdelta_lo\tdelta_hi\tlost\twon\tother\t"
            "p\tp_holm\tdetectable\tverdict\n");
    for (int i = 0; i < st->n; i++) {
        const struct comparison *c = &st->contrasts[i].c;
        if (!c->refused)
            text_printf(&t, "%s\t%s\t%d\t%s\t%d\t%.8g\t%.8g\t%.8g\t%.8g\t%.8g\t%.8g\t%.8g\t%d\t%d\t%d\t%.8g\t%.8g\t%.8g\t%s\n",
                        c->task, c->metric, !c->exploratory, c->model, c->n, c->score, c->score_lo, c->score_hi, c->base_score,
                        c->delta, c->delta_lo, c->delta_hi, c->lost, c->won, c->other, c->p, c->p_holm, c->detectable,
                        verdict_names[c->verdict]);
    }
    bool ok = write_text(dir, "data/comparisons.tsv", &t, err);
    text_free(&t);
    return ok;
}

static bool write_pages(const char *dir, const struct doc *d, struct error *err)
{
    struct text markdown = { 0 }, html = { 0 };
    doc_markdown(d, &markdown);
    bool ok = doc_html(d, dir, &html, err) && write_text(dir, "report.md", &markdown, err) &&
              write_text(dir, "index.html", &html, err);
    text_free(&markdown);
    text_free(&html);
    return ok;
}

bool report_write(struct store *s, const struct report_options *o, const char *dir, bool *plots_missing, struct error *err)
{
    struct study st;
    struct doc doc = { 0 };
    struct plots plots = { .dir = dir };
    struct writing w = { &st, &doc, &plots };
    *plots_missing = false;
    if (!study_make(&st, s, o, err))
        return false;
    bool ok = put_title(&doc, &st, err) && make_folders(dir, err) && write_comparisons(dir, &st, err);
    for (size_t i = 0; ok && i < ARRAY_LEN(sections); i++)
        ok = sections[i](&w, err);
    if (ok && plots.failed)
        doc_paragraph(&doc, "Plots: %s.", plots.why);
    ok = ok && doc_ok(&doc, err) && write_pages(dir, &doc, err);
    *plots_missing = ok && plots.failed;
    doc_free(&doc);
    study_free(&st);
    return ok;
}
