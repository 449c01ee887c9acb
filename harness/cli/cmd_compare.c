/* compare, report, gate: what the rows say. */
#include "cli/cli.h"

#include <stdlib.h>

/* Model arguments as labels; every path is turned into the label that `run` gave it. */
static bool labels_of(const struct settings *s, struct report_options *o, char ***owned, struct error *err)
{
    size_t n = s->rest.n + 1;
    *owned = mem_new(n, sizeof **owned, err);
    if (!*owned)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!((*owned)[i] = model_label_of(i ? s->rest.words[i - 1] : s->base, err)))
            return false;
    *o = (struct report_options){ .base = (*owned)[0], .models = (const char *const *)(*owned + 1), .n_models = (int)s->rest.n,
                                  .task = s->task, .margin = s->margin, .alpha = 0.05,
                                  .common_items = s->common };
    return true;
}

static int with_store(const struct settings *s, struct error *err,
                      bool (*use)(const struct settings *, struct store *, const struct report_options *, struct error *))
{
    struct store *store = NULL;
    struct report_options o = { 0 };
    char **owned = NULL;
    bool ok = labels_of(s, &o, &owned, err) && store_open(&store, s->db, STORE_READ, err) && use(s, store, &o, err);
    store_close(store);
    for (size_t i = 0; owned && i <= s->rest.n; i++)
        free(owned[i]);
    free(owned);
    return ok ? EXIT_DONE : EXIT_FAILED;
}

static bool use_compare(const struct settings *s, struct store *store, const struct report_options *o, struct error *err)
{
    struct comparison *rows = NULL;
    int n = 0;
    bool ok = report_compare(store, o, &rows, &n, err);
    int shown = n;
    while (!s->verbose && !s->json && shown > 0 && rows[shown - 1].exploratory)     /* they come last */
        shown--;
    ok = ok && report_print(stdout, rows, shown, s->json, err);
    if (ok && shown < n)
        note(s, "other metrics of these tasks: %d more with -v", n - shown);
    report_compare_free(rows, n);
    return ok;
}

static bool use_report(const struct settings *s, struct store *store, const struct report_options *o, struct error *err)
{
    bool plots_missing = false;
    if (!report_write(store, o, s->out, &plots_missing, err))
        return false;
    if (plots_missing)
        fprintf(stderr, "qdelta: gnuplot is missing or failed, so no plots were drawn; tables and data are written "
                        "(install gnuplot-nox and say report again)\n");
    printf("%s/index.html\n", s->out);
    return true;
}

int cmd_compare(const struct settings *s, struct error *err)
{
    return with_store(s, err, use_compare);
}

int cmd_report(const struct settings *s, struct error *err)
{
    return with_store(s, err, use_report);
}

int cmd_gate(const struct settings *s, struct error *err)
{
    static const int codes[] = { [GATE_PASS] = EXIT_DONE, [GATE_REGRESSION] = EXIT_REGRESSION, [GATE_CANNOT_TELL] = EXIT_CANNOT_TELL };
    struct store *store = NULL;
    enum gate_result result = GATE_CANNOT_TELL;
    struct gate_options o = { .baseline = s->baseline, .candidate = s->candidate, .margin = s->margin, .max_flips = (int)s->max_flips };
    bool ok = store_open(&store, s->db, STORE_READ, err) && report_gate(store, &o, stdout, s->json, &result, err);
    store_close(store);
    return ok ? codes[result] : EXIT_FAILED;
}
