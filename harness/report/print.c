/* print.c - comparisons as an aligned table or as JSON. */
#include "report/study.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 9 };
static const char *const heads[COLUMNS] = { "  model", "score %", "(95 %)", "delta", "(95 %)", "lost", "won", "other", "mid-p" };

/* Cells of one task's block; widths are those of the longest. */
struct table {
    struct text cell[COLUMNS];
    int width[COLUMNS];
};

static void fill_row(struct table *t, const struct comparison *c)
{
    for (int i = 0; i < COLUMNS; i++)
        text_clear(&t->cell[i]);
    text_printf(&t->cell[0], "  %s", c->model);
    if (c->refused)
        return;
    text_printf(&t->cell[1], "%.1f", 100 * c->score);
    text_printf(&t->cell[2], "%.1f to %.1f", 100 * c->score_lo, 100 * c->score_hi);
    put_points(&t->cell[3], c->delta, true);
    put_points(&t->cell[4], c->delta_lo, true);
    text_puts(&t->cell[4], " to ");
    put_points(&t->cell[4], c->delta_hi, true);
    text_printf(&t->cell[5], "%d", c->lost);
    text_printf(&t->cell[6], "%d", c->won);
    text_printf(&t->cell[7], "%d", c->other);
    put_p(&t->cell[8], c->p);
}

static int shown_width(const char *s)
{
    return (int)utf8_count(s, strlen(s));
}

static void widen(struct table *t)
{
    for (int i = 0; i < COLUMNS; i++) {
        int w = shown_width(text_str(&t->cell[i]));
        t->width[i] = w > t->width[i] ? w : t->width[i];
    }
}

static void put_row(FILE *out, const struct table *t, const char *verdict)
{
    for (int i = 0; i < COLUMNS; i++) {
        int pad = t->width[i] - shown_width(text_str(&t->cell[i]));
        if (i == 0)
            fprintf(out, "%s%*s", text_str(&t->cell[i]), pad, "");
        else
            fprintf(out, "  %*s%s", pad, "", text_str(&t->cell[i]));
    }
    fprintf(out, "  %s\n", verdict);
}

static bool same_block(const struct comparison *a, const struct comparison *b)
{
    return strcmp(a->task, b->task) == 0 && a->exploratory == b->exploratory &&
           (a->refused || b->refused || (strcmp(a->metric, b->metric) == 0 && a->n == b->n && a->base_score == b->base_score));
}

static void put_title(FILE *out, const struct comparison *c)
{
    if (c->refused) {
        fprintf(out, "%s\n", c->task);
        return;
    }
    fprintf(out, "%s  %s%s: base %s %.1f %% (%.1f to %.1f), n = %d, act %s, prompts %s, %d-shot%s\n", c->task, c->metric,
            c->exploratory ? " (exploratory)" : "", c->base, 100 * c->base_score, 100 * c->base_lo, 100 * c->base_hi, c->n,
            c->act, c->prompt_mode, c->shots, c->binary ? "" : ", fractions (paired t)");
}

static void print_block(FILE *out, struct table *t, const struct comparison *c, int n)
{
    const struct comparison *titled = c;
    for (int i = 0; titled->refused && i < n; i++)
        titled = &c[i];
    put_title(out, titled);
    for (int i = 0; i < COLUMNS; i++)
        t->width[i] = shown_width(heads[i]);
    for (int i = 0; i < n; i++) {
        fill_row(t, &c[i]);
        widen(t);
    }
    for (int i = 0; i < COLUMNS; i++) {
        text_clear(&t->cell[i]);
        text_puts(&t->cell[i], heads[i]);
    }
    put_row(out, t, "verdict");
    for (int i = 0; i < n; i++) {
        fill_row(t, &c[i]);
        put_row(out, t, c[i].refused ? "not compared" : verdict_names[c[i].verdict]);
    }
    for (int i = 0; i < n; i++)
        fprintf(out, "  %s: %s\n", c[i].model, c[i].words);
}

static void print_table(FILE *out, const struct comparison *c, int n)
{
    struct table t = { 0 };
    for (int i = 0, k; i < n; i = k) {
        for (k = i + 1; k < n && same_block(&c[i], &c[k]); k++)
            ;
        if (i)
            fputc('\n', out);
        print_block(out, &t, c + i, k - i);
    }
    for (int i = 0; i < COLUMNS; i++)
        text_free(&t.cell[i]);
}

/* ---- JSON ---- */

static void add_number(cJSON *o, const char *key, double x)
{
    if (isfinite(x))
        cJSON_AddNumberToObject(o, key, x);
    else
        cJSON_AddNullToObject(o, key);
}

static void add_text(cJSON *o, const char *key, const char *s)
{
    cJSON_AddStringToObject(o, key, s ? s : "");
}

static void add_facts(cJSON *o, const char *key, const struct model_facts *f)
{
    cJSON *m = cJSON_AddObjectToObject(o, key);
    if (!m)
        return;
    add_text(m, "label", f->label);
    add_text(m, "sha256", f->sha256);
    add_text(m, "runs", f->runs);
    add_text(m, "format", f->format);
    add_text(m, "method", f->method);
    add_text(m, "recipe", f->recipe);
    add_text(m, "kernels", f->kernels);
    add_text(m, "commit", f->commit);
    add_number(m, "bits_per_weight", f->bits_per_weight);
    add_number(m, "file_bytes", (double)f->file_bytes);
    add_number(m, "peak_bytes", (double)f->peak_bytes);
    add_number(m, "tokens_per_s", f->tokens_per_s);
    add_number(m, "items_per_s", f->items_per_s);
}

static cJSON *json_of(const struct comparison *c)
{
    static const struct {
        const char *key;
        size_t offset;
    } counts[] = {
#define COUNT(member) { #member, offsetof(struct comparison, member) }
        COUNT(n), COUNT(both), COUNT(lost), COUNT(won), COUNT(neither), COUNT(other), COUNT(invalid), COUNT(truncated),
        COUNT(base_invalid), COUNT(base_truncated), COUNT(lost_tie), COUNT(won_tie), COUNT(lost_sure), COUNT(won_sure),
#undef COUNT
    }, numbers[] = {
#define NUMBER(member) { #member, offsetof(struct comparison, member) }
        NUMBER(score), NUMBER(score_lo), NUMBER(score_hi), NUMBER(base_score), NUMBER(base_lo), NUMBER(base_hi),
        NUMBER(delta), NUMBER(delta_lo), NUMBER(delta_hi), NUMBER(p), NUMBER(p_holm), NUMBER(detectable), NUMBER(chance),
#undef NUMBER
    };
    cJSON *o = cJSON_CreateObject();
    add_text(o, "task", c->task);
    add_text(o, "metric", c->metric);
    add_text(o, "base", c->base);
    add_text(o, "model", c->model);
    for (size_t i = 0; i < ARRAY_LEN(counts); i++)
        cJSON_AddNumberToObject(o, counts[i].key, *(const int *)((const char *)c + counts[i].offset));
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        add_number(o, numbers[i].key, *(const double *)((const char *)c + numbers[i].offset));
    cJSON_AddBoolToObject(o, "at_chance", c->at_chance);
    cJSON_AddBoolToObject(o, "base_at_chance", c->base_at_chance);
    cJSON_AddBoolToObject(o, "exploratory", c->exploratory);
    cJSON_AddBoolToObject(o, "refused", c->refused);
    add_text(o, "verdict", c->refused ? "not compared" : verdict_names[c->verdict]);
    add_text(o, "words", c->words);
    if (!c->refused) {
        add_text(o, "act", c->act);
        add_text(o, "prompt_mode", c->prompt_mode);
        add_text(o, "task_version", c->task_version);
        cJSON_AddNumberToObject(o, "shots", c->shots);
        add_facts(o, "base_facts", &c->base_facts);
        add_facts(o, "facts", &c->facts);
    }
    return o;
}

static bool print_json(FILE *out, const struct comparison *c, int n, struct error *err)
{
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < n; i++)
        cJSON_AddItemToArray(list, json_of(&c[i]));
    char *text = cJSON_Print(list);
    cJSON_Delete(list);
    if (!text)
        return fail(err, STATUS_MEMORY, "out of memory");
    fprintf(out, "%s\n", text);
    cJSON_free(text);
    return true;
}

bool report_print(FILE *out, const struct comparison *c, int n, bool json, struct error *err)
{
    if (json && !print_json(out, c, n, err))
        return false;
    if (!json)
        print_table(out, c, n);
    return !ferror(out) || fail_errno(err, "output", "cannot write");
}
