/* bench's results: machine facts; a table or JSON on stdout, and bench.md with bench.tsv under -o. */
#include "cli/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- machine facts ---- */

/* First line of a small file into out, without its newline; "" when there is none. */
static void read_line(const char *path, char *out, int size)
{
    FILE *f = fopen(path, "r");
    out[0] = '\0';
    if (f && fgets(out, size, f))
        out[strcspn(out, "\n")] = '\0';
    if (f)
        fclose(f);
}

static void cpu_name(char *out, size_t size)
{
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[256];
    snprintf(out, size, "unknown");
    while (f && fgets(line, sizeof line, f))
        if (str_starts(line, "model name") && strchr(line, ':')) {
            snprintf(out, size, "%.*s", (int)size - 1, strchr(line, ':') + 2);
            out[strcspn(out, "\n")] = '\0';
            break;
        }
    if (f)
        fclose(f);
}

static void cpu_caches(char *out, size_t size)
{
    size_t at = 0;
    snprintf(out, size, "unknown");
    for (int i = 0; i < 8; i++) {
        char path[96], level[16], type[32], bytes[32];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/level", i);
        read_line(path, level, sizeof level);
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/type", i);
        read_line(path, type, sizeof type);
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        read_line(path, bytes, sizeof bytes);
        if (level[0] && strcmp(type, "Instruction") != 0 && at < size)
            at += (size_t)snprintf(out + at, size - at, "%sL%s %s", at ? ", " : "", level, bytes);
    }
}

void bench_machine(struct bench_facts *f)
{
    cpu_name(f->cpu, sizeof f->cpu);
    cpu_caches(f->caches, sizeof f->caches);
    long pages = sysconf(_SC_PHYS_PAGES), bytes = sysconf(_SC_PAGESIZE);
    f->memory_gb = pages > 0 && bytes > 0 ? (double)pages * (double)bytes / 1e9 : 0;
}

/* ---- stdout ---- */

static bool print_json(const struct bench_results *r, struct error *err)
{
    static const char *const units[PEAK_COUNT] = { "int8_gops", "int16_gops", "f32_gflops", "read_gbs" };
    cJSON *o = cJSON_CreateObject(), *m = cJSON_AddObjectToObject(o, "machine");
    cJSON_AddStringToObject(m, "cpu", r->facts.cpu);
    cJSON_AddStringToObject(m, "caches", r->facts.caches);
    cJSON_AddNumberToObject(m, "memory_gb", r->facts.memory_gb);
    cJSON_AddStringToObject(m, "kernels", r->facts.kernels);
    cJSON_AddStringToObject(m, "act", r->facts.act);
    cJSON_AddNumberToObject(m, "threads", r->facts.threads);
    cJSON *peaks[] = { cJSON_AddObjectToObject(o, "peaks"), cJSON_AddObjectToObject(o, "peaks_one_thread") };
    for (int t = 0; t < 2; t++)
        for (int p = 0; p < PEAK_COUNT; p++)
            cJSON_AddNumberToObject(peaks[t], units[p], r->facts.peaks[t][p]);
    cJSON *rows = cJSON_AddArrayToObject(o, "rows");
    for (size_t i = 0; i < r->n; i++) {
        cJSON *row = cJSON_CreateObject();
        cJSON_AddStringToObject(row, "model", r->rows[i].model);
        cJSON_AddStringToObject(row, "work", r->rows[i].work);
        cJSON_AddNumberToObject(row, "tokens_per_second", r->rows[i].tokens_s);
        if (r->rows[i].items_s > 0)
            cJSON_AddNumberToObject(row, "items_per_second", r->rows[i].items_s);
        cJSON_AddNumberToObject(row, "share_of_peak", r->rows[i].share);
        cJSON_AddStringToObject(row, "bound_by", r->rows[i].bound);
        cJSON_AddItemToArray(rows, row);
    }
    return json_print(o, err);
}

static bool print_table(const struct bench_results *r, struct error *err)
{
    static const char *const heads[] = { "model", "work", "tokens/s", "items/s", "of peak", "bound by" };
    struct table *t = table_new(6, heads, "llrrrl", err);
    if (!t)
        return false;
    for (size_t i = 0; i < r->n; i++) {
        const struct bench_row *row = &r->rows[i];
        table_cell(t, "%s", row->model);
        table_cell(t, "%s", row->work);
        table_cell(t, "%.2f", row->tokens_s);
        if (row->items_s > 0)
            table_cell(t, "%.2f", row->items_s);
        else
            table_cell(t, "%s", "");
        table_cell(t, "%.1f %%", 100 * row->share);
        table_cell(t, "%s", row->bound);
    }
    return table_print(t, stdout, err);
}

/* ---- files ---- */

static void write_facts(const struct bench_facts *f, struct text *md)
{
    text_printf(md, "# Speed on one machine\n\nWritten by `qdelta bench -o`, version %s, commit %s.\n\n"
                    "- CPU: %s; %s; %.1f GB of memory\n- kernels %s, activations %s, %d threads\n\n"
                    "| peak | %d threads | 1 thread |\n| --- | --- | --- |\n",
                qdelta_version, qdelta_commit, f->cpu, f->caches, f->memory_gb, f->kernels, f->act, f->threads, f->threads);
    for (int p = 0; p < PEAK_COUNT; p++)
        text_printf(md, "| %s, %s | %.1f | %.1f |\n", peak_names[p], p == PEAK_READ ? "GB/s" : "GOP/s", f->peaks[0][p], f->peaks[1][p]);
}

static bool write_files(const char *dir, const struct bench_results *r, struct error *err)
{
    struct text md = { 0 }, tsv = { 0 }, path = { 0 };
    write_facts(&r->facts, &md);
    text_printf(&md, "\nMedians; shares are of the peak measured beside each repetition.\n\n"
                     "| model | work | tokens/s | items/s | of peak | bound by |\n| --- | --- | --- | --- | --- | --- |\n");
    text_printf(&tsv, "model\twork\ttokens_per_second\titems_per_second\tshare_of_peak\tbound_by\n");
    for (size_t i = 0; i < r->n; i++) {
        const struct bench_row *row = &r->rows[i];
        char items[32] = "";
        if (row->items_s > 0)
            snprintf(items, sizeof items, "%.2f", row->items_s);
        text_printf(&md, "| %s | %s | %.2f | %s | %.1f %% | %s |\n", row->model, row->work, row->tokens_s, items, 100 * row->share, row->bound);
        text_printf(&tsv, "%s\t%s\t%.3f\t%s\t%.4f\t%s\n", row->model, row->work, row->tokens_s, items, row->share, row->bound);
    }
    path_join(&path, dir, "bench.md");
    bool ok = make_dirs(dir, err) && text_ok(&md, err) && text_ok(&tsv, err) && file_write(text_str(&path), text_str(&md), md.len, err);
    text_clear(&path);
    path_join(&path, dir, "bench.tsv");
    ok = ok && file_write(text_str(&path), text_str(&tsv), tsv.len, err);
    text_free(&md);
    text_free(&tsv);
    text_free(&path);
    return ok;
}

bool bench_print(const struct settings *s, const struct bench_results *r, struct error *err)
{
    return (s->json ? print_json(r, err) : print_table(r, err)) && (!s->out || write_files(s->out, r, err));
}
