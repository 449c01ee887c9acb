/* list: what there is. */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

/* Print as a table, or as an array of objects keyed by the heads. */
struct listing {
    struct table *table;
    cJSON *array, *row;
    const char *const *heads;
    int columns, at;
};

static bool listing_start(struct listing *l, bool json, int columns, const char *const *heads, const char *align, struct error *err)
{
    *l = (struct listing){ .heads = heads, .columns = columns };
    if (json)
        return (l->array = cJSON_CreateArray()) != NULL || fail(err, STATUS_MEMORY, "out of memory for a list");
    return (l->table = table_new(columns, heads, align, err)) != NULL;
}

static void cell(struct listing *l, const char *value)
{
    if (l->array) {
        if (l->at % l->columns == 0)
            cJSON_AddItemToArray(l->array, l->row = cJSON_CreateObject());
        cJSON_AddStringToObject(l->row, l->heads[l->at % l->columns], value);
    } else {
        table_cell(l->table, "%s", value);
    }
    l->at++;
}

static void cell_int(struct listing *l, long long value)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", value);
    cell(l, text);
}

static bool listing_end(struct listing *l, struct error *err)
{
    if (l->table)
        return table_print(l->table, stdout, err);
    return json_print(l->array, err);
}

static bool list_tasks(const struct settings *s, struct error *err)
{
    static const char *const heads[] = { "task", "kind", "shots", "data", "title", "licence", "source" };
    struct task_options o = { .data_dir = s->data, .shots = -1, .shard = 1, .shards = 1 };
    struct task_info *tasks;
    struct listing l;
    int n;
    if (!task_list(&o, &tasks, &n, err))
        return false;
    bool ok = listing_start(&l, s->json, 7, heads, "llrllll", err);
    for (int i = 0; ok && i < n; i++) {
        cell(&l, tasks[i].name);
        cell(&l, tasks[i].kind);
        cell_int(&l, tasks[i].shots);
        cell(&l, tasks[i].data_found ? "found" : "missing");
        cell(&l, tasks[i].title ? tasks[i].title : "");
        cell(&l, tasks[i].licence ? tasks[i].licence : "");
        cell(&l, tasks[i].source ? tasks[i].source : "");
    }
    task_list_free(tasks, n);
    return ok && listing_end(&l, err);
}

static bool list_formats(const struct settings *s, struct error *err)
{
    static const char *const heads[] = { "format", "ggml type", "block", "bytes", "bits per weight", "products" };
    struct listing l;
    if (!listing_start(&l, s->json, 6, heads, "lrrrrl", err))
        return false;
    for (int i = 0; i < FORMAT_COUNT; i++) {
        const struct format *f = &formats[i];
        char bits[32];
        snprintf(bits, sizeof bits, "%.4f", 8.0 * f->block_bytes / f->block);
        cell(&l, f->name);
        if (f->ggml_type >= 0)
            cell_int(&l, f->ggml_type);
        else
            cell(&l, "-");
        cell_int(&l, f->block);
        cell_int(&l, f->block_bytes);
        cell(&l, bits);
        cell(&l, f->int_block ? "integer" : "f32");
    }
    return listing_end(&l, err);
}

static bool list_methods(const struct settings *s, struct error *err)
{
    static const char *const heads[] = { "method", "formats and recipes", "calibration", "what it does" };
    struct listing l;
    int n;
    const struct quantizer_info *q = quantizer_list(&n);
    if (!listing_start(&l, s->json, 4, heads, "llll", err))
        return false;
    for (int i = 0; i < n; i++) {
        struct text names = { 0 };
        for (const char *const *f = q[i].formats; *f; f++)
            text_printf(&names, "%s%s", f == q[i].formats ? "" : " ", *f);
        cell(&l, q[i].name);
        cell(&l, text_str(&names));
        cell(&l, q[i].needs_calibration ? "yes" : "no");
        cell(&l, q[i].summary);
        text_free(&names);
    }
    return listing_end(&l, err);
}

static void setting_cells(struct listing *l, const char *method, const struct quantizer_setting *set)
{
    for (; set && set->key; set++) {
        char range[64];
        snprintf(range, sizeof range, "%g to %g", set->lo, set->hi);
        cell(l, method);
        cell(l, set->key);
        cell(l, set->def);
        cell(l, set->words ? set->words : range);
        cell(l, set->help);
    }
}

static bool list_settings(const struct settings *s, struct error *err)
{
    static const char *const heads[] = { "method", "key", "default", "values", "meaning" };
    struct listing l;
    int n;
    const struct quantizer_info *q = quantizer_list(&n);
    if (!listing_start(&l, s->json, 5, heads, "lllll", err))
        return false;
    for (int i = 0; i < n; i++)
        setting_cells(&l, q[i].name, q[i].settings);
    setting_cells(&l, "all", quantizer_common_settings());
    return listing_end(&l, err);
}

static bool list_models(const struct settings *s, struct error *err)
{
    static const char *const heads[] = { "kind", "name", "models" };
    struct listing l;
    const char *name, *models;
    if (!listing_start(&l, s->json, 3, heads, "lll", err))
        return false;
    for (size_t i = 0; model_arch(i, &name, &models); i++) {
        cell(&l, "architecture");
        cell(&l, name);
        cell(&l, models);
    }
    for (const char *const *a = model_shapes(); *a; a++) {
        cell(&l, "shape");
        cell(&l, *a);
        cell(&l, "for inspect --shape and bench --shape");
    }
    return listing_end(&l, err);
}

static bool list_runs(const struct settings *s, struct error *err)
{
    static const char *const heads[] = { "run", "model", "task", "items", "expected", "finished", "act", "kernels", "started" };
    static const char sql[] =
        "SELECT run, model, task, items, items_expected, CASE finished WHEN 1 THEN 'yes' ELSE 'no' END, act, kernels, "
        "datetime(started_at, 'unixepoch') FROM v_runs ORDER BY run";
    struct store *store = NULL;
    struct listing l;
    sqlite3_stmt *q = NULL;
    if (!store_open(&store, s->db, STORE_READ, err))
        return false;
    bool ok = sqlite3_prepare_v2(store_db(store), sql, -1, &q, NULL) == SQLITE_OK ||
              fail(err, STATUS_IO, "%s: %s", s->db, sqlite3_errmsg(store_db(store)));
    ok = ok && listing_start(&l, s->json, 9, heads, "rllrrllll", err);
    while (ok && sqlite3_step(q) == SQLITE_ROW)
        for (int c = 0; c < 9; c++) {
            const char *text = (const char *)sqlite3_column_text(q, c);
            cell(&l, text ? text : "");
        }
    ok = ok && listing_end(&l, err);
    sqlite3_finalize(q);
    store_close(store);
    return ok;
}

static bool list_kernels(const struct settings *s, struct error *err)
{
    static const char *const heads[] = { "set", "this CPU" };
    struct listing l;
    if (!listing_start(&l, s->json, 2, heads, "ll", err))
        return false;
    for (const char *const *k = engine_kernel_sets(); *k; k++) {
        cell(&l, *k);
        cell(&l, engine_kernel_supported(*k) ? "runs it" : "lacks its instructions");
    }
    return listing_end(&l, err);
}

static const struct list {
    const char *name;
    bool (*print)(const struct settings *, struct error *);
} lists[] = {
    { "tasks", list_tasks },   { "formats", list_formats }, { "methods", list_methods },
    { "settings", list_settings }, { "models", list_models }, { "runs", list_runs }, { "kernels", list_kernels },
};

int cmd_list(const struct settings *s, struct error *err)
{
    const char *names[ARRAY_LEN(lists)];
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        names[i] = lists[i].name;
        if (strcmp(s->rest.words[0], lists[i].name) == 0)
            return lists[i].print(s, err) ? EXIT_DONE : EXIT_FAILED;
    }
    const char *near = nearest_word(s->rest.words[0], names, ARRAY_LEN(names));
    fail(err, STATUS_USAGE, "list: \"%s\" is not tasks, formats, methods, settings, models, runs or kernels%s%s%s", s->rest.words[0],
         near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    return EXIT_USAGE;
}
