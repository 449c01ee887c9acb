/* eval.h - the door of eval/: task file -> prompts -> scored items.
 *
 * Tasks are data: tasks/NAME/task.json says where the official files are, how they are read, how a prompt is
 * made and how an answer is scored (tasks/README.md describes every key).  task_kinds[] holds the few ways
 * of scoring (choice, generate, perplexity ...): a row and a file each.
 *
 * Two prompt modes.  compat: byte for byte what lm-evaluation-harness builds, its sequential few-shot draws
 * included.  stable (default): shots and subsets are a function of the item id alone, so prompts never
 * depend on limits, order or shards, and prefixes can be shared. */
#ifndef QDELTA_EVAL_H
#define QDELTA_EVAL_H

#include "base/base.h"
#include "engine/engine.h"
#include "model/model.h"

enum prompt_mode { PROMPT_STABLE, PROMPT_COMPAT };
enum chat_mode { CHAT_AUTO, CHAT_ON, CHAT_OFF };

struct task_options {
    const char *data_dir;       /* NULL: $QDELTA_DATA, then "data" */
    const char *tasks_dir;      /* NULL: $QDELTA_TASKS, "tasks" here, then PREFIX/share/qdelta/tasks */
    enum prompt_mode mode;
    int shots;                  /* -1: the task's own */
    int limit;                  /* items; 0 = all. stable: a fixed hash-chosen subset of the whole; compat: the first */
    int shard, shards;          /* 1 of 1 = all */
    uint64_t seed;              /* stable mode's choice of subset and shots; 0 = default */
};

struct task;                    /* one opened task: its files read, checked and indexed */

/* The folder that name stands for (a folder with a task.json, or a name looked up in tasks_dir), into path. */
bool task_folder(const char *name, const struct task_options *o, struct text *path, struct error *err);

/* name as above.  Errors name file, row and field; every item is rendered once here, so a bad record is an error
 * now and not hours later. */
bool task_open(struct task **out, const char *name, const struct task_options *o, struct error *err);
void task_close(struct task *t);
/* The folder that name stands for, into folder; errors name the nearest task. */
bool task_folder(const char *name, const struct task_options *o, struct text *folder, struct error *err);
const char *task_name(const struct task *t);
const char *task_version(const struct task *t);         /* "mmlu-1+0123456789ab": 12 digits of a digest over
                                                           task.json and every data file read */
const char *task_kind_name(const struct task *t);       /* "choice", "generate", ... */
const char *task_metric(const struct task *t);          /* primary metric: "acc" */
int task_size(const struct task *t);                    /* items after limit and shard */
int task_shots(const struct task *t);
/* The whole prompt of item i as text (without chat template), and its shared leading part in bytes. */
bool task_prompt(const struct task *t, int i, struct text *out, size_t *prefix_bytes, const char **item_id,
                 struct error *err);

struct task_info {              /* for `list tasks`; names are owned by the list */
    char *name, *title, *kind, *licence, *source;
    int shots;
    bool data_found;
};
bool task_list(const struct task_options *o, struct task_info **out, int *n, struct error *err);
void task_list_free(struct task_info *list, int n);

/* Where rows go.  have: true when this item is stored already (it is then skipped); all are asked before the first row
 * comes.  item is called from a thread of its own, one row at a time, so that the engine does not wait for it; all rows
 * are through when eval_run returns.  progress may be NULL; it counts rows handed over. */
struct eval_sink {
    bool (*have)(void *ctx, const char *item_id);
    bool (*item)(void *ctx, const struct item_row *row, struct error *err);
    void (*progress)(void *ctx, int done, int total, int64_t prompt_tokens, int64_t new_tokens);
    bool (*cancelled)(void *ctx);       /* polled between batches; may be NULL */
    void *ctx;
};
struct eval_options {
    enum chat_mode chat;
    bool share_prefixes;        /* default true; false must give the same rows */
    int batch_items;            /* 0 = default; changes speed only */
    int batch_width;            /* sequences generating at once; 0 = default */
    void (*note)(void *ctx, const char *text);      /* remarks for people; may be NULL */
    void *note_ctx;
};
/* Ask every item of t; rows come in no particular order, each as soon as it is scored. */
bool eval_run(struct engine *e, const struct model *m, const struct task *t, const struct eval_options *o,
              const struct eval_sink *sink, struct error *err);
/* The chat family that --chat resolves to for this model: errors by name when on and unknown. */
bool eval_chat_family(const struct model *m, enum chat_mode mode, enum chat_family *out, struct error *err);

/* ---- lock-step KL divergence and perplexity of token streams (kld command) ---- */

struct kld_result {
    int64_t tokens, chunks;
    double ppl_base, ppl, kld_mean, kld_se, kld_percentiles[7] /* min 1 10 50 90 99 max */, same_top,
           delta_p_mean, delta_p_rms, log_ratio_mean, log_ratio_se;
    float *kld_per_token;       /* [tokens], for the distribution plot; caller frees */
    /* standard errors as llama-perplexity prints them: tokens taken as independent, so they are too small */
    double ppl_base_se, ppl_se, same_top_se, delta_p_se, delta_p_rms_se, correlation;
};
/* Both engines see the same ids, windows of ctx tokens; the second half of each is scored.  As llama-perplexity
 * does: where the model has a BOS, one stands before the text (put there unless ids begin with it) and the first
 * token of every window is replaced by it.  KLD is of base from other, in double over the whole vocabulary.
 * base == other is allowed (perplexity alone).  The caller frees out->kld_per_token; zeroed on failure. */
bool eval_kld(struct engine *base, struct engine *other, const struct model *m, const int32_t *ids, size_t n, int ctx,
              struct kld_result *out, struct error *err);

#endif
