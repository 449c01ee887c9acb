/* Methods end to end on small models: NF4 against bitsandbytes' own file, imatrix files, GPTQ and AWQ runs, folders. */
#include "scratch.h"

#include <math.h>
#include <signal.h>
#include <sys/resource.h>

#include "engine/engine.h"
#include "quantizers.h"

#include "../../quantizers/calibrate.h"
#include "../../quantizers/imatrix.h"

static char warnings[4096];
static void warn(void *ctx, const char *text)
{
    (void)ctx;
    size_t n = strlen(warnings);
    snprintf(warnings + n, sizeof warnings - n, "%s\n", text);
}

struct run {
    const char *method, *calib, *imatrix_in, *imatrix_out;
    int rows, tokens, threads;
    const char *const *settings;
};
static bool run(const struct model *m, const char *out, struct run r, struct quantize_report *report, struct error *err)
{
    struct quantize_options o = { .method = r.method, .calib = r.calib, .calib_rows = r.rows, .calib_tokens = r.tokens, .threads = r.threads,
                                  .imatrix_in = r.imatrix_in, .imatrix_out = r.imatrix_out, .seed = 3, .program_version = "test", .warn = warn,
                                  .settings = r.settings };
    warnings[0] = '\0';
    return quantize_model(m, out, &o, report, err);
}

/* The tiny model of an architecture, and its token file. */
static bool open_golden(const char *arch, struct model *m, char ids[1024])
{
    struct error err;
    char name[96], folder[1024];
    snprintf(name, sizeof name, "models/tiny_golden/%s/ids.i32", arch);
    const char *path = shared_data(name);
    if (!path)
        return false;
    snprintf(ids, 1024, "%s", path);
    folder_of(ids, folder);
    MUST(model_open(m, folder, false, &err));
    return true;
}

/* tests/golden/checkpoints was written by bitsandbytes from tiny_golden/llama3 (down_proj and lm_head left whole). */
static void test_nf4_equals_bitsandbytes(void **state)
{
    (void)state;
    static const char *const cases[][2] = { { "nf4", "bitsandbytes_nf4" }, { "nf4:nf4-double", "bitsandbytes_nf4_double" }, { "fp4", "bitsandbytes_fp4" } };
    NEED_SHARED(config, "models/tiny_golden/llama3/config.json");
    char folder[1024];
    folder_of(config, folder);
    struct error err;
    struct model source;
    MUST(model_open(&source, folder, false, &err));
    for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
        char golden[256];
        snprintf(golden, sizeof golden, "tests/golden/checkpoints/%s", cases[k][1]);
        struct quantize_report report;
        struct model ours, theirs;
        MUST(run(&source, in_dir("bnb"), (struct run){ .method = cases[k][0], .threads = 2 }, &report, &err));
        quantize_report_free(&report);
        MUST(model_open(&ours, in_dir("bnb"), false, &err));
        MUST(model_open(&theirs, golden, false, &err));
        int packed = 0;
        for (int i = 0; i < ours.n_tensors; i++) {
            const struct tensor *a = &ours.tensors[i], *b = model_find(&theirs, a->name);
            CHECK(b && a->format == b->format && a->bytes == b->bytes, "%s: %s", cases[k][1], a->name);
            packed += a->format == FORMAT_NF4 || a->format == FORMAT_FP4;
            int64_t differ = 0;
            for (int64_t r = 0; r < a->rows; r++) {
                float x[512], y[512];
                tensor_row(a, 0, r, x);
                tensor_row(b, 0, r, y);
                for (int64_t c = 0; c < a->cols; c++)
                    differ += x[c] != y[c];
            }
            /* a tie of the 8-bit map moves one block's scale; fp4's ties are open in the library too */
            CHECK(differ <= (k == 0 ? 0 : k == 1 ? 64 : 4), "%s: %s differs in %d weights", cases[k][1], a->name, (int)differ);
        }
        CHECK(packed == 24, "%s: %d packed matrices", cases[k][1], packed);
        model_close(&ours);
        model_close(&theirs);
        remove_hf_folder(in_dir("bnb"));
    }
    model_close(&source);
}

static void test_imatrix_files(void **state)
{
    (void)state;
    struct error err;
    struct imatrix *a, *b;
    MUST(imatrix_new(&a, "test", &err));
    struct imatrix_entry *e = imatrix_entry(a, "blk.0.attn_q.weight", 40, 1, &err);
    for (int i = 0; i < 40; i++)
        e->sum2[i] = (float)i * 0.5f;
    e->counts[0] = 8;
    e = imatrix_entry(a, "blk.0.ffn_down_exps.weight", 8, 3, &err);
    for (int i = 0; i < 24; i++)
        e->sum2[i] = (float)i;
    e->counts[0] = 2;
    e->counts[2] = 4;
    a->chunks = 5;
    a->chunk_size = 512;
    MUST(imatrix_finish(a, &err));
    MUST(imatrix_write(a, in_dir("im.gguf"), "some text", &err));
    MUST(imatrix_read(&b, in_dir("im.gguf"), &err));
    CHECK(b->n == 2 && b->chunks == 5 && b->chunk_size == 512, "%d entries, %d chunks", b->n, (int)b->chunks);
    const float want[] = { 0, 0.5f, 1, 1, 4, 5.75f };
    const struct tensor q = { .name = "blk.0.attn_q.weight", .cols = 40, .rows = 4, .mats = 1 };
    const struct tensor x = { .name = "blk.0.ffn_down_exps.weight", .cols = 8, .rows = 4, .mats = 3 };
    const float *qi = imatrix_importance(b, &q), *xi = imatrix_importance(b, &x);
    assert_non_null(qi);
    assert_non_null(xi);
    CHECK(qi[0] == 0 && qi[16] == 1 && xi[1] == want[1] && xi[8] == 1 && xi[16] == want[4] && xi[23] == want[5],
          "means %g %g %g %g %g %g", (double)qi[0], (double)qi[16], (double)xi[1], (double)xi[8], (double)xi[16], (double)xi[23]);
    imatrix_free(a);
    imatrix_free(b);
    struct text whole = { 0 };
    MUST(file_read(in_dir("im.gguf"), 0, &whole, &err));
    for (size_t cut = 4; cut < whole.len; cut += cut < 400 ? 7 : 61) {        /* every cut is refused, none crashes */
        MUST(file_write(in_dir("cut.gguf"), whole.data, cut, &err));
        CHECK(!imatrix_read(&b, in_dir("cut.gguf"), &err), "%zu of %zu bytes were accepted", cut, whole.len);
    }
    text_free(&whole);
    unlink(in_dir("im.gguf"));
    unlink(in_dir("cut.gguf"));
}

static void test_calibrated_runs(void **state)
{
    (void)state;
    struct error err;
    struct model m;
    NEED_SHARED(path, "models/stories260K/gguf/stories260K-ffn192-f32.gguf");
    NEED_SHARED(text, "models/stories260K/golden/tinystories_sample.txt");
    MUST(model_open(&m, path, true, &err));
    static const char *const rtn[] = { "algorithm=rtn", NULL }, *const cd[] = { "algorithm=cd", NULL };
    struct quantize_report gptq, plain, descent;
    struct run r = { .method = "gptq:q4_0", .calib = text, .rows = 3, .tokens = 96, .threads = 1 };
    MUST(run(&m, in_dir("a.gguf"), r, &gptq, &err));
    r.threads = 3;
    struct quantize_report again;
    MUST(run(&m, in_dir("b.gguf"), r, &again, &err));
    r.settings = rtn;
    MUST(run(&m, in_dir("c.gguf"), r, &plain, &err));
    r.settings = cd;
    MUST(run(&m, in_dir("c.gguf"), r, &descent, &err));
    double sum[3] = { 0 };
    int n = 0;
    for (int i = 0; i < gptq.n; i++)
        if (strcmp(gptq.rows[i].method, "gptq") == 0) {
            sum[0] += gptq.rows[i].loss;
            sum[1] += plain.rows[i].loss;
            sum[2] += descent.rows[i].loss;
            CHECK(gptq.rows[i].to == FORMAT_Q4_0 && gptq.rows[i].relative_rms < 0.2, "%s", gptq.rows[i].name);
            n++;
        }
    CHECK(n == 35, "%d matrices by gptq", n);
    CHECK(sum[0] < 0.9 * sum[1] && sum[2] < sum[1], "losses: gptq %g rtn %g cd %g", sum[0], sum[1], sum[2]);
    struct mapping a = { 0 }, b = { 0 };
    MUST(mapping_open(&a, in_dir("a.gguf"), &err));
    MUST(mapping_open(&b, in_dir("b.gguf"), &err));
    CHECK(a.size == b.size && memcmp(a.data, b.data, a.size) == 0, "1 and 3 threads differ");
    mapping_close(&a);
    mapping_close(&b);
    struct model back;
    MUST(model_open(&back, in_dir("a.gguf"), true, &err));
    struct gguf_kv *kv;
    int n_kv, found = 0;
    MUST(model_metadata(&back, &kv, &n_kv, &err));
    for (int i = 0; i < n_kv; i++) {
        found += strcmp(kv[i].key, "qdelta.quantize.method") == 0 && strncmp(kv[i].value.s.data, "gptq:q4_0", 9) == 0;
        found += strcmp(kv[i].key, "qdelta.quantize.calibration.sha256") == 0 && kv[i].value.s.len == 64;
        found += strcmp(kv[i].key, "qdelta.quantize.version") == 0;
        found += strcmp(kv[i].key, "qdelta.quantize.drift") == 0 && strcmp(kv[i].value.s.data, "1") == 0;
    }
    CHECK(found == 4, "provenance: %d of 4 keys", found);
    model_close(&back);
    quantize_report_free(&gptq);
    quantize_report_free(&again);
    quantize_report_free(&plain);
    quantize_report_free(&descent);
    unlink(in_dir("a.gguf"));
    unlink(in_dir("b.gguf"));
    unlink(in_dir("c.gguf"));
    model_close(&m);
}

/* Each fold is proven on logits inside; here: on every architecture some hold, none fails. */
static void test_awq_folds(void **state)
{
    (void)state;
    static const char *const archs[] = { "gemma2", "gemma4_e", "gemma4_moe", "qwen2", "qwen3_moe", "smollm3" };
    static const char *const settings[] = { "grid=4", NULL };
    for (size_t i = 0; i < ARRAY_LEN(archs); i++) {
        struct error err;
        struct model m, back;
        struct quantize_report report;
        char ids[1024];
        if (!open_golden(archs[i], &m, ids))
            skip();
        MUST(run(&m, in_dir("a.gguf"), (struct run){ .method = "awq:q4_0", .calib = ids, .rows = 1, .tokens = 40, .threads = 2, .settings = settings }, &report, &err));
        CHECK(!strstr(warnings, "folding changes"), "%s: %s", archs[i], warnings);
        int folded = 0;
        for (int k = 0; k < report.n; k++)
            folded += strcmp(report.rows[k].method, "awq") == 0;
        CHECK(folded > m.config.n_layers, "%s: %d matrices were folded", archs[i], folded);
        quantize_report_free(&report);
        MUST(model_open(&back, in_dir("a.gguf"), false, &err));
        model_close(&back);
        model_close(&m);
        unlink(in_dir("a.gguf"));
    }
}

/* Groups of 128 in a folder: q, k and v share inputs, of which only v is clipped, on the grid's own groups; any number
 * of threads writes the same. */
static void test_awq_groups(void **state)
{
    (void)state;
    struct error err;
    struct model m;
    struct quantize_report report;
    struct text weights[2] = { { 0 }, { 0 } };
    MUST(model_open(&m, "models/demo/bf16", true, &err));
    for (int k = 0; k < 2; k++) {
        MUST(run(&m, in_dir("a"), (struct run){ .method = "awq:int4-g128-asym", .calib = "tasks/demo-text/calibration.txt", .rows = 2, .tokens = 64,
                                                .threads = k + 1 }, &report, &err));
        MUST(file_read(in_dir("a/model.safetensors"), 0, &weights[k], &err));
        int rounded = 0;
        for (int i = 0; i < report.n; i++)
            rounded += strcmp(report.rows[i].method, "awq") == 0 || strcmp(report.rows[i].method, "rtn diag") == 0;
        CHECK(rounded == 40, "%d matrices", rounded);
        CHECK(!strstr(warnings, "skipped"), "%s", warnings);
        quantize_report_free(&report);
        remove_tree(in_dir("a"));
    }
    CHECK(weights[0].len == weights[1].len && memcmp(weights[0].data, weights[1].data, weights[0].len) == 0, "1 and 2 threads differ");
    text_free(&weights[0]);
    text_free(&weights[1]);
    model_close(&m);
}

/* The unrounded stream goes beside the rounded one on every architecture (shared K/V, per-layer inputs, experts): the
 * first matrices, whose inputs have not drifted, lose the same with and without, later ones do not. */
static void test_drift(void **state)
{
    (void)state;
    static const char *const archs[] = { "gemma2", "gemma3", "gemma4_dense", "gemma4_e", "gemma4_moe", "llama3", "qwen2", "qwen3", "qwen3_moe", "smollm3" };
    static const char *const with[] = { "drift=1", NULL }, *const without[] = { "drift=0", NULL };
    for (size_t i = 0; i < ARRAY_LEN(archs); i++) {
        struct error err;
        struct model m;
        struct quantize_report a, b;
        char ids[1024];
        if (!open_golden(archs[i], &m, ids))
            skip();
        struct run r = { .method = "gptq:q4_0", .calib = ids, .rows = 1, .tokens = 40, .threads = 2, .settings = with };
        MUST(run(&m, in_dir("a.gguf"), r, &a, &err));
        r.settings = without;
        MUST(run(&m, in_dir("a.gguf"), r, &b, &err));
        int same = 0, other = 0;
        for (int k = 0; k < a.n; k++) {
            if (strcmp(a.rows[k].method, "gptq"))
                continue;
            bool first = strstr(a.rows[k].name, "blk.0.attn_") && !strstr(a.rows[k].name, "output");
            CHECK(!first || memcmp(&a.rows[k].loss, &b.rows[k].loss, sizeof(double)) == 0, "%s %s: loss %.9g with drift, %.9g without", archs[i],
                  a.rows[k].name, a.rows[k].loss, b.rows[k].loss);
            same += first;
            other += a.rows[k].loss > b.rows[k].loss || a.rows[k].loss < b.rows[k].loss;
        }
        CHECK(same > 0 && other > same, "%s: %d matrices as before, %d otherwise", archs[i], same, other);
        quantize_report_free(&a);
        quantize_report_free(&b);
        model_close(&m);
        unlink(in_dir("a.gguf"));
    }
}

static void test_bad_calibration(void **state)
{
    (void)state;
    struct error err;
    struct model m, bare;
    NEED_SHARED(path, "models/stories260K/gguf/stories260K-ffn192-f32.gguf");
    NEED_SHARED(config, "models/tiny_golden/llama3/config.json");
    char folder[1024];
    folder_of(config, folder);
    MUST(model_open(&m, path, true, &err));
    MUST(model_open(&bare, folder, false, &err));
    const struct { const char *name, *text; size_t len; } files[] = {
        { "empty.txt", " \n\n", 3 }, { "binary.txt", "some text\0and more, enough to be a window of tokens if it were text", 60 },
        { "latin1.txt", "caf\xe9 and more text, enough to be a window of tokens if it were text", 60 }, { "short.txt", "Once upon a time", 16 },
        { "odd.i32", "12345", 5 }, { "large.i32", "\xff\xff\xff\x7f", 4 }, { "chat.jsonl", "{\"text\": 1}\n", 12 },
    };
    static const char *const says[] = { "empty", "byte 9 is 0x00", "byte 3 is 0xe9", "at least 32", "5 bytes", "position 0", "messages" };
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        struct quantize_report report;
        MUST(file_write(in_dir(files[i].name), files[i].text, files[i].len, &err));
        CHECK(!run(&m, in_dir("a.gguf"), (struct run){ .method = "gptq:q4_0", .calib = in_dir(files[i].name) }, &report, &err), "%s was accepted", files[i].name);
        CHECK(strstr(err.text, says[i]), "%s: %s", files[i].name, err.text);
        unlink(in_dir(files[i].name));
    }
    struct quantize_report report;
    CHECK(!run(&bare, in_dir("a.gguf"), (struct run){ .method = "gptq:q4_0" }, &report, &err) && strstr(err.text, "tokenizer"), "%s", err.text);
    static const char *const bad[] = { "damp=-2", NULL };
    CHECK(!run(&m, in_dir("a.gguf"), (struct run){ .method = "gptq:q4_0", .rows = 1, .tokens = 32, .settings = bad }, &report, &err) &&
              strstr(err.text, "damp=-2"), "%s", err.text);
    CHECK(!run(&m, in_dir("a.gguf"), (struct run){ .method = "nf4" }, &report, &err) && strstr(err.text, "folder"), "%s", err.text);
    CHECK(!run(&m, in_dir("a"), (struct run){ .method = "rtn:q4_0" }, &report, &err) && strstr(err.text, ".gguf"), "%s", err.text);
    CHECK(!run(&m, in_dir("a"), (struct run){ .method = "gptq:int4-g128" }, &report, &err) && strstr(err.text, "groups of 128"), "%s", err.text);
    CHECK(!file_exists(in_dir("a.gguf")) && !file_exists(in_dir("a.gguf.partial")), "something was left");
    model_close(&m);
    model_close(&bare);
}

/* Weights and activations that are no numbers: the tensor or the layer is named, and no file appears. */
static void test_not_finite(void **state)
{
    (void)state;
    struct error err;
    struct model m;
    NEED_SHARED(path, "models/stories260K/gguf/stories260K-ffn192-f32.gguf");
    static const struct { const char *tensor; float value; const char *says, *layer; } cases[] = {
        { "blk.2.ffn_up.weight", NAN, "blk.2.ffn_up", "layer 2" }, { "blk.1.attn_norm.weight", 3e38f, "layer 1", "layer 1" },
        { "token_embd.weight", INFINITY, "token_embd", "layer 0" },
    };
    static const char *const calibrated[] = { "gptq:q4_0", "awq:q4_0", "imatrix:q4_0" };
    for (size_t c = 0; c < ARRAY_LEN(cases); c++)
        for (size_t k = 0; k < ARRAY_LEN(calibrated); k++) {
            MUST(model_open(&m, path, true, &err));
            struct tensor *t = (struct tensor *)(uintptr_t)model_find(&m, cases[c].tensor);
            float *copy = malloc(t->bytes);
            memcpy(copy, t->data, t->bytes);
            for (int64_t i = t->rows / 2 * t->cols; i < t->rows * t->cols; i++)
                copy[i] = cases[c].value;
            t->data = copy;
            struct quantize_report report;
            CHECK(!run(&m, in_dir("a.gguf"), (struct run){ .method = calibrated[k], .rows = 2, .tokens = 64, .threads = 2 }, &report, &err),
                  "%s with %s = %g was accepted", calibrated[k], cases[c].tensor, (double)cases[c].value);
            bool weights_first = strcmp(calibrated[k], "imatrix:q4_0") != 0;
            CHECK(strstr(err.text, weights_first ? cases[c].says : cases[c].layer), "%s of %s: %s", calibrated[k], cases[c].tensor, err.text);
            CHECK(!file_exists(in_dir("a.gguf")) && !file_exists(in_dir("a.gguf.partial")), "something was left");
            model_close(&m);
            free(copy);
        }
}

/* A finite weight that the scales of a format do not reach: every method refuses it by name instead of clamping it, and
 * before it calibrates (imatrix after it: there the inputs behind a larger one are refused).  NF4's scale is a float and
 * holds it. */
static void test_too_large(void **state)
{
    (void)state;
    static const struct { const char *method, *out; float value; const char *says; } cases[] = {
        { "imatrix:q4_0", "a.gguf", 1e9f, "blk.2.ffn_up.weight" }, { "gptq:q4_0", "a.gguf", 1e30f, "blk.2.ffn_up.weight" },
        { "gptq:q4_1", "a.gguf", 1e30f, "blk.2.ffn_up.weight" }, { "gptq:iq4_nl", "a.gguf", 1e30f, "blk.2.ffn_up.weight" },
        { "awq:q4_0", "a.gguf", 1e30f, "blk.2.ffn_up.weight" }, { "awq:q4_1", "a.gguf", 1e30f, "blk.2.ffn_up.weight" },
        { "hqq", "a.gguf", 1e30f, "blk.2.ffn_up.weight" }, { "lattice", "a.gguf", 1e30f, "blk.2.ffn_up.weight" },
        { "rtn:f16", "a.gguf", 1e30f, "blk.2.ffn_up.weight" }, { "gptq:int4-g32", "a", 1e30f, "blk.2.ffn_up.weight" },
        { "awq:int4-g32-asym", "a", 1e30f, "blk.2.ffn_up.weight" }, { "gptq:q4_0", "a.gguf", 524289, "blk.2.ffn_up.weight" },
        { "gptq:q4_0", "a.gguf", 60000, NULL }, { "lattice", "a.gguf", 524000, NULL }, { "nf4", "a", 1e30f, NULL },
    };
    struct error err;
    NEED_SHARED(path, "models/stories260K/gguf/stories260K-ffn192-f32.gguf");
    for (size_t c = 0; c < ARRAY_LEN(cases); c++) {
        struct model m, back;
        struct quantize_report report;
        MUST(model_open(&m, path, true, &err));
        struct tensor *t = (struct tensor *)(uintptr_t)model_find(&m, "blk.2.ffn_up.weight");
        float *copy = malloc(t->bytes), row[64];
        memcpy(copy, t->data, t->bytes);
        copy[t->cols * 7 + 40] = cases[c].value;
        t->data = copy;
        bool done = run(&m, in_dir(cases[c].out), (struct run){ .method = cases[c].method, .rows = 2, .tokens = 64, .threads = 2 }, &report, &err);
        CHECK(done == !cases[c].says, "%s of %g: %s", cases[c].method, (double)cases[c].value, done ? "accepted" : err.text);
        CHECK(done || (strstr(err.text, cases[c].says) && strstr(err.text, "too large")), "%s: %s", cases[c].method, err.text);
        if (done) {
            MUST(model_open(&back, in_dir(cases[c].out), false, &err));
            tensor_row(model_find(&back, "blk.2.ffn_up.weight"), 0, 7, row);
            CHECK(fabsf(row[40] / cases[c].value - 1) < 0.2f, "%s: %g became %g", cases[c].method, (double)cases[c].value, (double)row[40]);
            model_close(&back);
            quantize_report_free(&report);
        }
        remove_tree(in_dir(cases[c].out));
        CHECK(!file_exists(in_dir("a.gguf.partial")), "something was left");
        model_close(&m);
        free(copy);
    }
}

/* The disk takes no more (a file size limit stands in for it): a folder that the run made goes again, one that was there
 * keeps what it held. */
static void test_no_room(void **state)
{
    (void)state;
    struct rlimit old, small;
    struct error err;
    struct model m;
    struct quantize_report report;
    char ids[1024];
    if (!open_golden("llama3", &m, ids))
        skip();
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 1 << 14;
    signal(SIGXFSZ, SIG_IGN);
    MUST(make_dirs(in_dir("there"), &err));
    MUST(file_write(in_dir("there/notes"), "mine", 4, &err));
    static const char *const choices[] = { "nf4", "gptq:int4-g32" }, *const outs[] = { "new", "there" };
    for (int k = 0; k < 4; k++) {
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        bool done = run(&m, in_dir(outs[k % 2]), (struct run){ .method = choices[k / 2], .calib = ids, .rows = 1, .tokens = 40, .threads = 1 }, &report, &err);
        setrlimit(RLIMIT_FSIZE, &old);
        CHECK(!done && strstr(err.text, outs[k % 2]), "%s: %s", choices[k / 2], done ? "a full disk went unnoticed" : err.text);
        CHECK(!dir_exists(in_dir("new")), "an empty folder was left");
        char **names;
        size_t n;
        MUST(dir_names(in_dir("there"), &names, &n, &err));
        CHECK(n == 1 && !strcmp(names[0], "notes"), "%zu files", n);
        names_free(names, n);
    }
    remove_tree(in_dir("there"));
    model_close(&m);
}

static void test_builtin_text(void **state)
{
    (void)state;
    struct text a = { 0 }, b = { 0 }, c = { 0 };
    calibration_text(&a, 1, 200000);
    calibration_text(&b, 1, 200000);
    calibration_text(&c, 2, 200000);
    CHECK(a.len >= 200000 && a.len < 202000, "%zu bytes", a.len);
    CHECK(a.len == b.len && memcmp(a.data, b.data, a.len) == 0, "the same seed gives other text");
    CHECK(memcmp(a.data, c.data, 1000) != 0, "another seed gives the same text");
    CHECK(utf8_check(a.data, a.len) == a.len, "not UTF-8");
    struct error err;
    uint8_t digest[32];
    char hex[65];
    MUST(sha256_bytes(a.data, a.len, digest, &err));
    hex_of(digest, 32, hex);
    CHECK(!strcmp(hex, "d715b6f35510b9ea7f4f41b2b5dccc319e6344b426d83e552155319c40c1ffc4"), "other text than other compilers' builds make: %s", hex);
    text_free(&a);
    text_free(&b);
    text_free(&c);
}

/* Nothing asked for: 128 windows of 1024 tokens, each with BOS first and the text's own tokens after it, which windows
 * and in what order by the seed. */
static void test_windows(void **state)
{
    (void)state;
    struct error err;
    struct model m;
    struct text text = { 0 };
    MUST(model_open(&m, "models/demo/bf16", true, &err));
    int bos = tokenizer_bos(m.tokenizer);
    CHECK(bos >= 0, "the demonstration model has a BOS");
    calibration_text(&text, 5, 2000000);
    MUST(file_write(in_dir("long.txt"), text_str(&text), text.len, &err));
    struct quantize_options o = { .method = "gptq", .calib = in_dir("long.txt"), .seed = 5, .warn = warn };
    char hash[3][65];
    for (int k = 0; k < 3; k++) {
        struct job j = { .model = &m, .o = &o };
        o.seed = k == 2 ? 6 : 5;
        MUST(calibration_load(&j, &err));
        const struct calibration *c = j.calibration;
        CHECK(c->rows == 128 && c->tokens == 1024, "%d windows of %d tokens", c->rows, c->tokens);
        CHECK(strstr(text_str(&j.notes), "calibration.windows=128 x 1024\n") && strstr(text_str(&j.notes), c->sha256), "notes: %s", text_str(&j.notes));
        memcpy(hash[k], c->sha256, sizeof hash[k]);
        for (int r = 0; r < c->rows; r++) {
            CHECK(c->ids[r * 1024] == bos, "window %d begins with %d", r, (int)c->ids[r * 1024]);
            for (int t = 1; t < 1024; t++)
                CHECK(c->ids[r * 1024 + t] != bos, "a second BOS in window %d at %d", r, t);
        }
        calibration_free(j.calibration);
        text_free(&j.notes);
    }
    struct job bare = { .model = &m, .o = &o };
    o.calib = NULL;
    warnings[0] = '\0';
    MUST(calibration_load(&bare, &err));
    CHECK(strstr(warnings, "built-in"), "the built-in text must be announced: %s", warnings);
    calibration_free(bare.calibration);
    text_free(&bare.notes);
    CHECK(!strcmp(hash[0], hash[1]), "one seed, two hashes");
    CHECK(strcmp(hash[0], hash[2]), "two seeds, one hash");
    unlink(in_dir("long.txt"));
    text_free(&text);
    model_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nf4_equals_bitsandbytes),
        cmocka_unit_test(test_imatrix_files),
        cmocka_unit_test(test_calibrated_runs),
        cmocka_unit_test(test_awq_folds),
        cmocka_unit_test(test_awq_groups),
        cmocka_unit_test(test_drift),
        cmocka_unit_test(test_bad_calibration),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_builtin_text),
        cmocka_unit_test(test_windows),
    };
    return cmocka_run_group_tests_name("quant_methods", tests, make_scratch, remove_empty_scratch);
}
