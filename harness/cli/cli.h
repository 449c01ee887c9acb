/* cli.h - the command line: tables of options and commands, and the commands themselves.
 *
 * Parser, --help and the nearest-word hints all walk the same rows.  A command gets the filled settings and
 * returns an exit code; on an error it fills struct error and returns EXIT_FAILED, and main prints it. */
#ifndef QDELTA_CLI_H
#define QDELTA_CLI_H

#include "base/base.h"
#include "engine/engine.h"
#include "eval/eval.h"
#include "model/model.h"
#include "quantizers.h"
#include "report/report.h"
#include "store/store.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_REGRESSION = 3, EXIT_CANNOT_TELL = 4 };

struct word_list {
    const char **words;
    size_t n, cap;
};

struct settings {                   /* the field column of the option rows */
    struct word_list models, tasks, rest, only;
    const char *db, *data, *mode, *chat, *act, *kernels, *shard, *base, *task, *out, *baseline, *candidate,
        *method, *calib, *recipe, *against, *text, *file, *prompt, *shape, *ids_file, *imatrix_in, *imatrix_out, *system, *tag;
    int64_t shots, limit, threads, seed, max_flips, ctx, count, seq, layers, repeats, batch, batch_items, width,
        calib_rows, calib_tokens, run, prompt_tokens;
    double margin;
    bool json, ids, no_bos, resume, requantize, in_place, no_share, invariance, common, verbose, quiet, special, think, help;
    struct word_list set;
};

struct option {
    const char *name;               /* "limit" for --limit */
    char letter;                    /* 0: none */
    const char *arg;                /* "N"; NULL: a flag */
    const char *def;                /* default as text; NULL: none */
    const char *help;
    enum option_kind { OPT_FLAG, OPT_STRING, OPT_INT, OPT_DOUBLE, OPT_LIST } kind;
    size_t field;                   /* offset in struct settings */
    const char *choices;            /* "stable|compat"; NULL: anything */
    int64_t lo, hi;
};
extern const struct option options[];   /* ends with a NULL name */

struct command {
    const char *name;
    const char *args;               /* "--base MODEL MODEL.." */
    const char *summary;
    const char *option_names;       /* blank-separated; '!' after a name: required */
    const char *note;               /* more help, or NULL */
    int least_rest, most_rest;      /* positional arguments; -1 = any */
    int (*run)(const struct settings *s, struct error *err);
};
extern const struct command commands[];     /* ends with a NULL name */

/* Fill s for command c from argv[0..argc).  STATUS_USAGE errors carry the nearest valid word. */
bool options_parse(const struct command *c, int argc, char **argv, struct settings *s, struct error *err);
void settings_free(struct settings *s);
const struct command *command_find(const char *name, struct error *err);
void print_help(FILE *out);
void print_command_help(FILE *out, const struct command *c);

extern const char qdelta_version[];     /* "0.1.0" */
extern const char qdelta_commit[];

/* ---- shared by commands ---- */

bool engine_options_of(const struct settings *s, struct engine_options *o, struct error *err);
bool task_options_of(const struct settings *s, struct task_options *o, struct error *err);
/* The label a MODEL argument stands for: NAME of NAME=PATH, the stem of a path, or itself. Caller frees. */
char *model_label_of(const char *arg, struct error *err);
uint64_t peak_rss_bytes(void);

/* One line on a terminal, rewritten; a plain line now and then in a log; nothing with --quiet. */
struct progress {
    const char *what;
    bool quiet, terminal;
    int64_t started_ns, last_ns;
    int first;                  /* items that were there before this invocation */
    bool drawn;
};
void progress_start(struct progress *p, const char *what, bool quiet);
void progress_show(struct progress *p, int done, int total, int64_t prompt_tokens, int64_t new_tokens);
void progress_end(struct progress *p);
void note(const struct settings *s, const char *format, ...) __attribute__((format(printf, 2, 3)));  /* to stderr unless quiet */

/* True once after SIGINT or SIGTERM: finish the item, keep what is stored, stop. */
bool interrupted(void *unused);
void catch_interrupts(void);

/* A cell table on stdout: columns padded, numbers right-aligned. */
struct table;
struct table *table_new(int columns, const char *const *heads, const char *align /* "lrr" */, struct error *err);
void table_cell(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool table_print(struct table *t, FILE *out, struct error *err);    /* frees */
void table_free(struct table *t);                                   /* without printing; fine on NULL */

/* Print root on stdout and delete it; no memory for the text is an error, never a shorter answer. */
bool json_print(cJSON *root, struct error *err);

int cmd_run(const struct settings *s, struct error *err);
int cmd_compare(const struct settings *s, struct error *err);
int cmd_report(const struct settings *s, struct error *err);
int cmd_gate(const struct settings *s, struct error *err);
int cmd_quantize(const struct settings *s, struct error *err);
int cmd_convert(const struct settings *s, struct error *err);
int cmd_audit(const struct settings *s, struct error *err);
int cmd_kld(const struct settings *s, struct error *err);
int cmd_bench(const struct settings *s, struct error *err);
int cmd_inspect(const struct settings *s, struct error *err);
int cmd_tokenize(const struct settings *s, struct error *err);
int cmd_generate(const struct settings *s, struct error *err);
int cmd_logits(const struct settings *s, struct error *err);
int cmd_list(const struct settings *s, struct error *err);
int cmd_merge(const struct settings *s, struct error *err);
int cmd_export(const struct settings *s, struct error *err);
int cmd_import(const struct settings *s, struct error *err);
int cmd_fetch(const struct settings *s, struct error *err);
int cmd_selftest(const struct settings *s, struct error *err);

#endif
