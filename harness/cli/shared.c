/* What several commands need: progress, tables, notes, interrupts, options turned into structs. */
#include "cli/cli.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

bool engine_options_of(const struct settings *s, struct engine_options *o, struct error *err)
{
    *o = (struct engine_options){ .threads = (int)s->threads, .kernels = s->kernels, .in_place = s->in_place,
                                  .batch_tokens = (int)s->batch };
    for (int i = 0; i < ACT_COUNT; i++)
        if (strcmp(act_mode_names[i], s->act) == 0)
            o->act = (enum act_mode)i;
    if (!s->kernels)
        return true;
    const char *const *sets = engine_kernel_sets();
    size_t n = 0;
    while (sets[n]) {
        if (strcmp(sets[n], s->kernels) == 0)
            return engine_kernel_supported(s->kernels) ||
                   fail(err, STATUS_UNSUPPORTED, "--kernels %s: this CPU lacks its instructions", s->kernels);
        n++;
    }
    const char *near = nearest_word(s->kernels, sets, n);
    return fail(err, STATUS_USAGE, "--kernels %s: no such set; did you mean %s? (`qdelta list kernels`)", s->kernels,
                near ? near : sets[0]);
}

bool task_options_of(const struct settings *s, struct task_options *o, struct error *err)
{
    *o = (struct task_options){ .data_dir = s->data, .mode = strcmp(s->mode, "compat") == 0 ? PROMPT_COMPAT : PROMPT_STABLE,
                                .shots = (int)s->shots, .limit = (int)s->limit, .seed = (uint64_t)s->seed };
    char *end;
    long i = strtol(s->shard, &end, 10), n = *end == '/' ? strtol(end + 1, &end, 10) : 0;
    if (*end || i < 1 || n < i || n > 1000000)
        return fail(err, STATUS_USAGE, "--shard %s: expected I/N with 1 <= I <= N", s->shard);
    o->shard = (int)i;
    o->shards = (int)n;
    return true;
}

char *model_label_of(const char *arg, struct error *err)
{
    const char *equals = strchr(arg, '=');
    if (equals && equals > arg)
        return str_dup_n(arg, (size_t)(equals - arg), err);
    if (!strchr(arg, '/') && !str_ends(arg, ".gguf") && !str_ends(arg, ".safetensors"))
        return str_dup(arg, err);
    char *copy = str_dup(arg, err);
    if (!copy)
        return NULL;
    for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
        copy[n - 1] = '\0';
    const char *stem = path_base(copy);
    size_t len = strlen(stem) - (str_ends(stem, ".gguf") ? 5 : str_ends(stem, ".safetensors") ? 12 : 0);
    char *label = str_dup_n(stem, len, err);
    free(copy);
    return label;
}

uint64_t peak_rss_bytes(void)
{
    struct rusage r;
    return getrusage(RUSAGE_SELF, &r) == 0 ? (uint64_t)r.ru_maxrss * 1024 : 0;
}

void note(const struct settings *s, const char *format, ...)
{
    if (s->quiet)
        return;
    va_list ap;
    va_start(ap, format);
    vfprintf(stderr, format, ap);
    va_end(ap);
    fputc('\n', stderr);
}

/* ---- progress ---- */

static const int64_t TERMINAL_NS = 200000000, LOG_NS = 15000000000;

void progress_start(struct progress *p, const char *what, bool quiet)
{
    *p = (struct progress){ .what = what, .quiet = quiet, .terminal = isatty(STDERR_FILENO) == 1,
                            .started_ns = clock_ns(), .first = -1 };
    p->last_ns = p->started_ns;
}

void progress_show(struct progress *p, int done, int total, int64_t prompt_tokens, int64_t new_tokens)
{
    int64_t now = clock_ns();
    if (p->first < 0)
        p->first = done;
    if (p->quiet || now - p->last_ns < (p->terminal ? TERMINAL_NS : LOG_NS))
        return;
    p->last_ns = now;
    double seconds = (double)(now - p->started_ns) / 1e9, rate = (done - p->first) / seconds;
    int64_t left = rate > 0 ? (int64_t)((total - done) / rate + 0.5) : -1;
    char eta[32] = "?";
    if (left >= 0)
        snprintf(eta, sizeof eta, "%lld:%02lld:%02lld", (long long)left / 3600, (long long)left / 60 % 60, (long long)left % 60);
    fprintf(stderr, "%s%s: %d of %d, %.1f items/s, %.0f tokens/s, %s left%s", p->terminal ? "\r\033[K" : "", p->what, done, total,
            rate, (double)(prompt_tokens + new_tokens) / seconds, eta, p->terminal ? "" : "\n");
    p->drawn = p->terminal;
}

void progress_end(struct progress *p)
{
    if (p->drawn)
        fprintf(stderr, "\r\033[K");
    p->drawn = false;
}

bool json_print(cJSON *root, struct error *err)
{
    char *text = cJSON_Print(root);
    if (text)
        printf("%s\n", text);
    cJSON_free(text);
    cJSON_Delete(root);
    return text || fail(err, STATUS_MEMORY, "out of memory for the JSON text");
}

/* ---- interrupts ---- */

static volatile sig_atomic_t signal_seen;

static void on_signal(int number)
{
    signal_seen = number;
}

void catch_interrupts(void)
{
    struct sigaction a = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };     /* a second one kills at once */
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

bool interrupted(void *unused)
{
    (void)unused;
    return signal_seen != 0;
}

/* ---- tables ---- */

struct table {
    int columns;
    const char *align;
    char **cells;
    size_t n, cap;
    bool failed;
};

struct table *table_new(int columns, const char *const *heads, const char *align, struct error *err)
{
    struct table *t = mem_new(1, sizeof *t, err);
    if (!t)
        return NULL;
    t->columns = columns;
    t->align = align;
    for (int i = 0; i < columns; i++)
        table_cell(t, "%s", heads[i]);
    return t;
}

void table_cell(struct table *t, const char *format, ...)
{
    char cell[512];
    va_list ap;
    va_start(ap, format);
    vsnprintf(cell, sizeof cell, format, ap);
    va_end(ap);
    char *copy = str_dup(cell, NULL);
    if (!copy || !mem_grow(&t->cells, &t->cap, t->n + 1, sizeof *t->cells, NULL)) {
        free(copy);
        t->failed = true;
        return;
    }
    t->cells[t->n++] = copy;
}

void table_free(struct table *t)
{
    for (size_t i = 0; t && i < t->n; i++)
        free(t->cells[i]);
    if (t)
        free(t->cells);
    free(t);
}

bool table_print(struct table *t, FILE *out, struct error *err)
{
    bool ok = !t->failed || fail(err, STATUS_MEMORY, "out of memory for a table");
    size_t columns = (size_t)t->columns;
    for (size_t i = 0; ok && i < t->n; i++) {
        size_t width = 0, column = i % columns;
        for (size_t j = column; j < t->n; j += columns) {
            size_t n = utf8_count(t->cells[j], strlen(t->cells[j]));
            width = n > width ? n : width;
        }
        size_t pad = width - utf8_count(t->cells[i], strlen(t->cells[i]));
        bool right = t->align[column] == 'r', last = column + 1 == columns;
        fprintf(out, "%s%*s%s%*s", column ? "  " : "", right ? (int)pad : 0, "", t->cells[i], right || last ? 0 : (int)pad, "");
        if (last)
            fputc('\n', out);
    }
    table_free(t);
    return ok;
}
