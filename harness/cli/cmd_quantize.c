/* quantize, convert, audit: model files into model files, and what a QAT file's weights lie on. */
#include "cli/cli.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct quantizing {
    const struct settings *s;
    struct progress progress;
    char what[128];
};

static void show(void *ctx, const char *what, int done, int total)
{
    struct quantizing *q = ctx;
    snprintf(q->what, sizeof q->what, "%s", what);
    q->progress.what = q->what;
    progress_show(&q->progress, done, total, 0, 0);
}

static void warn(void *ctx, const char *text)
{
    (void)ctx;
    fprintf(stderr, "qdelta: warning: %s\n", text);
}

static bool print_rows(const struct settings *s, const struct quantize_report *r, struct error *err)
{
    static const char *const heads[] = { "tensor", "from", "to", "method", "relative rms", "loss" };
    struct table *t = table_new(6, heads, "llllrr", err);
    if (!t)
        return false;
    for (int i = 0; i < r->n; i++) {
        const struct quantize_row *row = &r->rows[i];
        table_cell(t, "%s", row->name);
        table_cell(t, "%s", formats[row->from].name);
        table_cell(t, "%s", formats[row->to].name);
        table_cell(t, "%s", row->method);
        table_cell(t, isnan(row->relative_rms) ? "-" : "%.5f", row->relative_rms);
        table_cell(t, isnan(row->loss) ? "-" : "%.4g", row->loss);
    }
    (void)s;
    return table_print(t, stdout, err);
}

static bool print_json(const struct quantize_report *r, struct error *err)
{
    cJSON *o = cJSON_CreateObject(), *rows = cJSON_AddArrayToObject(o, "tensors");
    cJSON_AddNumberToObject(o, "bits_per_weight", r->bits_per_weight);
    cJSON_AddNumberToObject(o, "seconds", r->seconds);
    cJSON_AddNumberToObject(o, "bytes_in", (double)r->bytes_in);
    cJSON_AddNumberToObject(o, "bytes_out", (double)r->bytes_out);
    cJSON_AddNumberToObject(o, "peak_bytes", (double)r->peak_bytes);
    for (int i = 0; i < r->n; i++) {
        cJSON *row = cJSON_CreateObject();
        cJSON_AddStringToObject(row, "name", r->rows[i].name);
        cJSON_AddStringToObject(row, "from", formats[r->rows[i].from].name);
        cJSON_AddStringToObject(row, "to", formats[r->rows[i].to].name);
        cJSON_AddStringToObject(row, "method", r->rows[i].method);
        if (!isnan(r->rows[i].relative_rms))
            cJSON_AddNumberToObject(row, "relative_rms", r->rows[i].relative_rms);
        if (!isnan(r->rows[i].loss))
            cJSON_AddNumberToObject(row, "loss", r->rows[i].loss);
        cJSON_AddItemToArray(rows, row);
    }
    return json_print(o, err);
}

static bool options_of(const struct settings *s, struct quantizing *q, const char ***set, struct quantize_options *o,
                       struct error *err)
{
    *set = mem_new(s->set.n + 1, sizeof **set, err);
    if (!*set)
        return false;
    if (s->set.n)
        memcpy(*set, s->set.words, s->set.n * sizeof **set);
    *o = (struct quantize_options){
        .method = s->method, .calib = s->calib, .calib_rows = (int)s->calib_rows, .calib_tokens = (int)s->calib_tokens,
        .imatrix_in = s->imatrix_in, .imatrix_out = s->imatrix_out, .seed = (uint64_t)s->seed, .threads = (int)s->threads,
        .requantize = s->requantize, .program_version = qdelta_version, .settings = *set, .progress = show, .warn = warn, .ctx = q,
    };
    q->s = s;
    progress_start(&q->progress, "quantizing", s->quiet);
    return true;
}

static int transform(const struct settings *s, bool convert, struct error *err)
{
    struct model m;
    struct quantizing q;
    struct quantize_options o;
    struct quantize_report report = { 0 };
    const char **set = NULL;
    if (!model_open(&m, s->rest.words[0], true, err))
        return EXIT_FAILED;
    bool ok = options_of(s, &q, &set, &o, err) &&
              (convert ? convert_model(&m, s->out, s->recipe, &o, &report, err) : quantize_model(&m, s->out, &o, &report, err));
    progress_end(&q.progress);
    if (ok && s->json)
        ok = print_json(&report, err);
    else if (ok && s->verbose)
        ok = print_rows(s, &report, err);
    if (ok)
        note(s, "%s: %.1f MiB -> %.1f MiB, %.3f bits per weight, %.1f s, peak %.0f MiB", s->out, (double)report.bytes_in / 1048576,
             (double)report.bytes_out / 1048576, report.bits_per_weight, report.seconds, (double)report.peak_bytes / 1048576);
    quantize_report_free(&report);
    free(set);
    model_close(&m);
    return ok ? EXIT_DONE : err->status == STATUS_USAGE ? EXIT_USAGE : EXIT_FAILED;
}

int cmd_quantize(const struct settings *s, struct error *err)
{
    return transform(s, false, err);
}

int cmd_convert(const struct settings *s, struct error *err)
{
    return transform(s, true, err);
}

/* ---- audit ---- */

static double percent(int64_t part, int64_t whole)
{
    return whole ? 100.0 * (double)part / (double)whole : 0;
}

/* "-8: 97.1 %, 7: 2.9 %": which code the extremum of the on-grid blocks has. */
static void rule_words(const struct lattice_row *r, char *out, size_t size)
{
    size_t len = 0;
    out[0] = '\0';
    for (int k = 0; k < 16; k++)
        if (r->by_k[k] && len < size)
            len += (size_t)snprintf(out + len, size - len, "%s%d: %.1f %%", len ? ", " : "", k - 8,
                                    percent(r->by_k[k], r->on_grid - r->zero));
}

static bool print_audit(const struct lattice_row *rows, int n, struct error *err)
{
    static const char *const heads[] = { "tensors", "blocks", "on Q4_0 grid", "zero", "bf16 scales", "f16 subnormal",
                                         "stock changes", "stock rel. rms", "lattice rel. rms", "extremum's code" };
    struct table *t = table_new(10, heads, "lrrrrrrrrl", err);
    if (!t)
        return false;
    for (int i = 0; i < n; i++) {
        const struct lattice_row *r = &rows[i];
        char words[160];
        rule_words(r, words, sizeof words);
        table_cell(t, "%s", r->name);
        table_cell(t, "%lld", (long long)r->blocks);
        table_cell(t, "%.2f %%", percent(r->on_grid, r->blocks));
        table_cell(t, "%lld", (long long)r->zero);
        table_cell(t, "%.2f %%", percent(r->scale_bf16, r->on_grid - r->zero));
        table_cell(t, "%lld", (long long)r->subnormal);
        table_cell(t, "%.2f %%", 100 * r->stock_changed);
        table_cell(t, "%.5f", r->stock_rms);
        table_cell(t, "%.5f", r->lattice_rms);
        table_cell(t, "%s", words);
    }
    return table_print(t, stdout, err);
}

static bool print_audit_json(const struct lattice_row *rows, int n, struct error *err)
{
    cJSON *array = cJSON_CreateArray();
    for (int i = 0; i < n; i++) {
        const struct lattice_row *r = &rows[i];
        cJSON *o = cJSON_CreateObject(), *by_k = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "tensors", r->name);
        cJSON_AddNumberToObject(o, "blocks", (double)r->blocks);
        cJSON_AddNumberToObject(o, "zero", (double)r->zero);
        cJSON_AddNumberToObject(o, "on_grid", (double)r->on_grid);
        cJSON_AddNumberToObject(o, "scale_bf16", (double)r->scale_bf16);
        cJSON_AddNumberToObject(o, "scale_f16", (double)r->scale_f16);
        cJSON_AddNumberToObject(o, "f16_subnormal", (double)r->subnormal);
        cJSON_AddNumberToObject(o, "stock_relative_rms", r->stock_rms);
        cJSON_AddNumberToObject(o, "stock_changed_blocks", r->stock_changed);
        cJSON_AddNumberToObject(o, "lattice_relative_rms", r->lattice_rms);
        for (int k = 0; k < 16; k++) {
            char key[8];
            snprintf(key, sizeof key, "%d", k - 8);
            if (r->by_k[k])
                cJSON_AddNumberToObject(by_k, key, (double)r->by_k[k]);
        }
        cJSON_AddItemToObject(o, "extremum_code", by_k);
        cJSON_AddItemToArray(array, o);
    }
    return json_print(array, err);
}

int cmd_audit(const struct settings *s, struct error *err)
{
    struct model m, twin = { 0 };
    struct lattice_row *rows = NULL;
    int n = 0;
    if (!model_open(&m, s->rest.words[0], false, err))
        return EXIT_FAILED;
    bool ok = (!s->against || model_open(&twin, s->against, false, err)) &&
              lattice_audit(&m, s->against ? &twin : NULL, (int)s->threads, &rows, &n, err) &&
              (s->json ? print_audit_json(rows, n, err) : print_audit(rows, n, err));
    lattice_free(rows, n);
    model_close(&twin);
    model_close(&m);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
