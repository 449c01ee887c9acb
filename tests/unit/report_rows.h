/* report_rows.h - made-up runs with the shape of real ones, for the tests of reports.
 *
 * Each item has a signed margin under the base: right when positive.  A model sees the same margin, shifted and
 * blurred; so flips happen where the base was undecided, as they do with quantized weights. */
#ifndef QDELTA_TEST_REPORT_ROWS_H
#define QDELTA_TEST_REPORT_ROWS_H

#include "scratch.h"
#include "store/store.h"

static const char *const mmlu_subjects[] = {
    "abstract_algebra", "anatomy", "astronomy", "business_ethics", "clinical_knowledge", "college_biology",
    "college_chemistry", "college_computer_science", "college_mathematics", "college_medicine", "college_physics",
    "computer_security", "conceptual_physics", "econometrics", "electrical_engineering", "elementary_mathematics",
    "formal_logic", "global_facts", "high_school_biology", "high_school_chemistry", "high_school_computer_science",
    "high_school_european_history", "high_school_geography", "high_school_government_and_politics",
    "high_school_macroeconomics", "high_school_mathematics", "high_school_microeconomics", "high_school_physics",
    "high_school_psychology", "high_school_statistics", "high_school_us_history", "high_school_world_history",
    "human_aging", "human_sexuality", "international_law", "jurisprudence", "logical_fallacies", "machine_learning",
    "management", "marketing", "medical_genetics", "miscellaneous", "moral_disputes", "moral_scenarios", "nutrition",
    "philosophy", "prehistory", "professional_accounting", "professional_law", "professional_medicine",
    "professional_psychology", "public_relations", "security_studies", "sociology", "us_foreign_policy", "virology",
    "world_religions",
};

struct made_task {
    const char *name, *metric;
    int n, choices;             /* choices 0: generated answers */
    double ability;             /* mean margin of the base, nats; its spread is 2 */
};
struct made_model {
    const char *label, *sha256, *format, *method;
    double bits, blur, shift;   /* blur and shift in nats; shift -INFINITY: guesses */
    const char *act;
};

static const struct made_task made_tasks[] = {
    { "gsm8k", "exact_match,flexible-extract", 1319, 0, .9 },
    { "mmlu", "acc", 2000, 4, 1.1 },
};
static const struct made_model made_models[] = {
    { "bf16", "b0b16f0000000000000000000000000000000000000000000000000000000001", "bf16", "", 16, 0, 0, "i16" },
    { "q8_0", "a8a8a80000000000000000000000000000000000000000000000000000000002", "q8_0", "rtn", 8.5, .02, 0, "i16" },
    { "rtn-q4_0", "4c4c4c0000000000000000000000000000000000000000000000000000000003", "q4_0", "rtn", 4.66, .45, -.34, "i16" },
    { "qat-q4_0", "9a9a9a0000000000000000000000000000000000000000000000000000000004", "q4_0", "qat", 4.66, .3, -.04, "i16" },
};

static inline double made_normal(uint64_t seed, uint64_t at)
{
    double sum = -6;
    for (uint64_t k = 0; k < 12; k++)
        sum += random_unit_at(seed, 12 * at + k);
    return sum;
}

struct made_item {
    struct item_row row;
    char id[64], gold[16], answer[16], output[400];
    struct item_choice choices[8];
    struct item_extraction extractions[2];
    struct item_score scores[2];
};

static inline double made_margin(const struct made_task *t, const struct made_model *m, int i)
{
    uint64_t task_seed = hash_bytes(t->name, strlen(t->name));
    if (isinf(m->shift))
        return random_unit_at(task_seed + hash_bytes(m->label, strlen(m->label)), (uint64_t)i) <
                       1.0 / (t->choices ? t->choices : 400)
                   ? .2
                   : -.2;
    return t->ability + 2 * made_normal(task_seed, (uint64_t)i) +
           (m->blur > 0 ? m->shift + m->blur * made_normal(task_seed + hash_bytes(m->label, strlen(m->label)), (uint64_t)i) : 0);
}

static inline void made_fill(struct made_item *x, const struct made_task *t, const struct made_model *m, int i)
{
    double margin = made_margin(t, m, i);
    bool right = margin > 0;
    memset(x, 0, sizeof *x);
    int subject = i % (int)ARRAY_LEN(mmlu_subjects), number = 2 + (i * 7919) % 397, slip = number + (margin < -3 ? 10 : 1);
    if (t->choices) {
        int gold = (i * 31 + 7) % t->choices, chosen = right ? gold : (gold + 1 + (margin < -2)) % t->choices;
        snprintf(x->id, sizeof x->id, "%s/%d", mmlu_subjects[subject], i / (int)ARRAY_LEN(mmlu_subjects));
        snprintf(x->gold, sizeof x->gold, "%c", 'A' + gold);
        snprintf(x->answer, sizeof x->answer, "%c", 'A' + chosen);
        for (int c = 0; c < t->choices; c++)
            x->choices[c] = (struct item_choice){ c == chosen ? -.2 : -.2 - fabs(margin) - .1 * c, 1, 1, 1 };
    } else {
        snprintf(x->id, sizeof x->id, "test/%d", i);
        snprintf(x->gold, sizeof x->gold, "%d", number);
        snprintf(x->answer, sizeof x->answer, "%d", right ? number : slip);
        snprintf(x->output, sizeof x->output, "She starts with %d and buys %d more, so she has %d + %d = %s.\n#### %s", number / 2,
                 number - number / 2, number / 2, number - number / 2, x->answer, x->answer);
    }
    bool invalid = !t->choices && margin < -4.5;
    x->scores[0] = (struct item_score){ t->metric, right };
    x->scores[1] = (struct item_score){ t->choices ? "acc_norm" : "exact_match,strict-match", right && i % 50 };
    x->extractions[0] = (struct item_extraction){ "flexible-extract", invalid ? NULL : x->answer };
    x->row = (struct item_row){
        .id = x->id, .group = t->choices ? mmlu_subjects[subject] : "", .prompt_tokens = 600 + i % 90, .gold = x->gold,
        .answer = invalid ? NULL : x->answer, .output = t->choices ? NULL : x->output,
        .finish = t->choices ? "choice" : invalid ? "length" : "stop", .output_tokens = t->choices ? 0 : 80 + i % 40,
        .margin = fabs(margin), .elapsed_ns = 100000000 + i, .choices = x->choices, .n_choices = t->choices,
        .extractions = x->extractions, .n_extractions = t->choices ? 0 : 1, .scores = x->scores, .n_scores = 2,
    };
    snprintf(x->row.prompt_hash, sizeof x->row.prompt_hash, "%016llx%048d", (unsigned long long)hash_bytes(x->id, strlen(x->id)),
             i);
}

static inline struct run_identity made_identity(const struct made_task *t, const struct made_model *m, int n)
{
    return (struct run_identity){
        .model_label = m->label, .model_path = "models/gemma-4-e2b.gguf", .model_sha256 = m->sha256, .arch = "gemma4",
        .recipe = m->bits == 16 ? "bf16 all" : "q4_0 matrices, q6_K embeddings, f32 norms", .format = m->format,
        .method = m->method, .bits_per_weight = m->bits, .file_bytes = (uint64_t)(4.6e9 * m->bits / 8),
        .tokenizer_hash = "70ce17e6", .template_name = "", .task = t->name, .task_version = "1+0123456789ab",
        .metric = t->metric, .prompt_mode = "stable", .shots = 5, .limit = 0, .seed = 0, .shard = "1/1", .act = m->act,
        .program_version = "0.1.0", .commit = "0f3a9c1d2e4b", .kernels = "avx512", .threads = 2, .items_expected = n,
        .command = "qdelta run",
    };
}

/* A run of its own identity: items first, first + step .. below n. */
static inline int64_t made_items(struct store *s, const struct run_identity *id, const struct made_task *t,
                                 const struct made_model *m, int first, int step, int n)
{
    struct error err = { 0 };
    struct made_item item;
    int64_t run;
    bool resumed;
    MUST(store_begin(s, &err));
    MUST(store_run(s, id, &run, &resumed, &err));
    for (int i = first; i < n; i += step) {
        made_fill(&item, t, m, i);
        MUST(store_put_item(s, run, &item.row, &err));
    }
    MUST(store_run_totals(s, run, true, n * .8 * m->bits / 16, n * 640, t->choices ? 0 : n * 100, (uint64_t)(5e9 * m->bits / 8),
                          &err));
    MUST(store_commit(s, &err));
    return run;
}

static inline int64_t made_run(struct store *s, const struct made_task *t, const struct made_model *m, const char *tag, int n)
{
    struct run_identity id = made_identity(t, m, n);
    id.tag = tag;
    return made_items(s, &id, t, m, 0, 1, n);
}

/* All models on all tasks; measures of conversion and KLD beside them. */
static inline void made_database(struct store *s)
{
    struct error err = { 0 };
    for (size_t m = 0; m < ARRAY_LEN(made_models); m++)
        for (size_t t = 0; t < ARRAY_LEN(made_tasks); t++)
            made_run(s, &made_tasks[t], &made_models[m], NULL, made_tasks[t].n);
    static const struct { const char *name; double q8, rtn, qat; } measures[] = {
        { "kld_mean", .00031, .0712, .0931 },  { "kld_se", .00001, .0011, .0015 }, { "kld_p1", .0000005, .00012, .00015 },
        { "kld_p10", .00001, .0017, .0021 },   { "kld_p50", .00012, .0231, .0312 }, { "kld_p90", .0008, .172, .22 },
        { "kld_p99", .0031, .74, .99 },        { "kld_max", .021, 6.1, 8.3 },       { "same_top", .9931, .893, .871 },
        { "delta_p_rms", .0041, .061, .072 },  { "ppl", 9.412, 10.07, 9.21 },       { "ppl_base", 9.408, 9.408, 9.408 },
        { "tokens", 65536, 65536, 65536 },
    };
    for (size_t i = 0; i < ARRAY_LEN(measures); i++)
        for (int m = 1; m < 4; m++)
            MUST(store_put_measure(s, made_models[m].sha256, made_models[0].sha256, "7e57", "i16", measures[i].name,
                                   m == 1 ? measures[i].q8 : m == 2 ? measures[i].rtn : measures[i].qat, &err));
    for (size_t i = 0; i < ARRAY_LEN(measures); i++)    /* the QAT file against its own unquantized checkpoint */
        MUST(store_put_measure(s, made_models[3].sha256, "0a7c4ec900000000000000000000000000000000000000000000000000000005",
                               "7e57", "i16", measures[i].name, measures[i].q8, &err));
}

/* ---- the database of a test ---- */

static struct store *store;

static inline int make_empty(void **state)
{
    struct error err = { 0 };
    return make_scratch(state) == 0 && store_open(&store, in_dir("rows.db"), STORE_WRITE, &err) ? 0 : -1;
}

static inline int make_database(void **state)
{
    if (make_empty(state) != 0)
        return -1;
    made_database(store);
    return 0;
}

static inline int remove_database(void **state)
{
    store_close(store);
    return remove_scratch(state);
}

#endif
