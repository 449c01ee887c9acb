/* task.h - inside eval/: an opened task as its kinds and the runner see it.
 *
 * spec.c reads task.json, data.c finds, checks and reads the files, prompt.c chooses items and shots and
 * renders them; the kinds (choice.c, generate.c) only see rendered items. */
#ifndef QDELTA_EVAL_TASK_H
#define QDELTA_EVAL_TASK_H

#include "eval.h"
#include "extract.h"
#include "reader.h"
#include "template.h"

struct task_kind;

/* A list of choices (or contexts): fixed templates, or one for each element of a list in the record. */
struct choice_spec {
    struct template **fixed;
    int n_fixed;
    char *of;                           /* path of the list; NULL: fixed */
    struct template *text, *label, *is_true;    /* NULL: not given */
};

enum gold_as { GOLD_LETTER, GOLD_INDEX, GOLD_NUMBER, GOLD_TEXT, GOLD_LABEL, GOLD_TRUE, GOLD_COUNT };

struct source {                         /* where records come from */
    const struct reader *reader;
    struct reader_options options;
    const cJSON *files;                 /* a name or a list of names */
    const char *labels;
};

struct task_spec {
    char *path;                         /* of task.json, for messages */
    char **folders;                     /* the task's, then those it extends */
    size_t n_folders, folders_cap;
    cJSON *root;                        /* merged; the texts below point into it */
    struct text bytes;                  /* every task.json read, for the version */
    const char *name, *title, *version, *source, *licence, *sums, *target_delimiter, *shot_delimiter;
    const struct task_kind *kind;
    struct source test, shots;
    bool pinned, shots_own_file, shots_random;      /* own_file: shots come from the test file itself */
    const char *preamble_files, *preamble_after;
    int n_shots;
    struct template *description, *prompt, *target, *gold, *group, *id, *shot_prompt, *shot_target, *continuation;
    struct choice_spec choices;         /* contexts of kind partial */
    enum gold_as gold_as;
    const char **metrics;
    int n_metrics;
    /* generate */
    const char **stops;
    int n_stops, max_tokens, max_tokens_chat;
    struct extractor *extractor;
    struct arena arena;
};
bool spec_read(struct task_spec *s, const char *folder, enum prompt_mode mode, struct error *err);
void spec_free(struct task_spec *s);

struct group {
    char *name, *preamble;
    int *pool, n_pool;                  /* records that its shots may come from */
    int *fixed, n_fixed;                /* stable random: the records of least hash */
};
struct item {
    int record;
    char *id;
    int *shots;                         /* into task.shot_records; [n_shots] */
};
struct task {
    struct task_spec spec;
    struct task_options options;
    char *data_dir;                     /* NULL: the usual places */
    char *full_version;
    struct records records, shot_records;
    char **ids;                         /* of every record */
    struct group *groups;
    size_t n_groups, groups_cap;
    struct item *items;
    int n_items, n_shots;
    struct arena arena;
};

/* data.c */
bool data_read(struct task *t, struct error *err);          /* records, groups, version */
bool data_find(const struct task *t, const char *name, struct text *path, struct error *err);
bool data_is_there(const struct task *t);                   /* the test file(s); reads nothing */
/* prompt.c */
bool items_choose(struct task *t, struct error *err);

/* ---- rendered items ---- */

struct item_text {                      /* strings live in the arena given */
    const char *id, *group;
    const char *description;            /* "" when none */
    const char **shot_query, **shot_answer;
    int n_shots;
    const char *query;                  /* NULL for kind partial */
    const char **choices;               /* continuations without delimiter */
    const char **queries;               /* kind partial: one a choice; else NULL */
    bool *right;
    int n_choices;
    const char *reference;              /* generate: before normalisation; else NULL */
    const char *gold;                   /* "B", "A,C"; generate: normalised reference */
};
bool item_render(const struct task *t, int i, struct arena *a, struct item_text *out, struct error *err);
/* Plain text up to the query; prefix_bytes: description and shots. */
void item_prompt(const struct task *t, const struct item_text *x, const char *query, struct text *out, size_t *prefix_bytes);

#endif
