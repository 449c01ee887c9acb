/* convert: folder -> GGUF -> folder, every architecture, every activation mode: the same logits, bit for bit.
 * (A vocabulary and a chat template go along: tests/cli/chat.sh.) */
#include "engine_golden.h"
#include "scratch.h"
#include "quantizers.h"

static void convert(const char *from, const char *out, const char *recipe)
{
    struct model m;
    struct quantize_options o = { .threads = 2, .program_version = "test" };
    struct quantize_report report;
    MUST(model_open(&m, from, true, &err));
    CHECK(convert_model(&m, out, recipe, &o, &report, &err), "%s -> %s: %s", from, out, err.text);
    CHECK(report.n == m.n_tensors && report.bytes_out > 0, "%s: %d rows for %d tensors", out, report.n, m.n_tensors);
    quantize_report_free(&report);
    model_close(&m);
}

static float *logits_of(const char *path, const int32_t *ids, int seqs, int tokens, enum act_mode act, size_t *n)
{
    struct model m;
    MUST(model_open(&m, path, false, &err));
    size_t floats = (size_t)tokens * (size_t)m.config.vocab;
    struct engine *e = engine_with(&m, act, 1, 0);
    float *out = mem_new((size_t)seqs * floats, sizeof *out, &err);
    assert_non_null(out);
    for (int s = 0; s < seqs; s++) {
        struct seq *seq = seq_with(e, NULL);
        feed_all(e, seq, ids + s * tokens, tokens, out + (size_t)s * floats);
        seq_close(seq);
    }
    *n = (size_t)seqs * floats;
    engine_close(e);
    model_close(&m);
    return out;
}

/* Both paths give the same bits. */
static void same_logits(const char *want_path, const char *got_path, const int32_t *ids, int seqs, int tokens, enum act_mode act, const char *what)
{
    size_t n_want, n_got;
    float *want = logits_of(want_path, ids, seqs, tokens, act, &n_want), *got = logits_of(got_path, ids, seqs, tokens, act, &n_got);
    CHECK(n_want == n_got, "%s: %zu logits, expected %zu", what, n_got, n_want);
    for (size_t i = 0; i < n_want; i++)
        CHECK(memcmp(&want[i], &got[i], sizeof *want) == 0, "%s, act %s, logit %zu: %.9g became %.9g", what, act_mode_names[act], i, (double)want[i],
              (double)got[i]);
    free(want);
    free(got);
}

static bool golden_source(const char *name, char folder[1024], int32_t ids[SEQS][TOKENS])
{
    const char *config = golden_path(name, "config.json"), *path = golden_path(name, "ids.i32");
    if (!config || !path)
        return false;
    folder_of(config, folder);
    read_into(path, ids, SEQS * TOKENS * sizeof(int32_t));
    return true;
}

static void test_there_and_back(void **state)
{
    (void)state;
    for (int i = 0; i < GOLDEN_COUNT; i++) {
        char folder[1024];
        int32_t ids[SEQS][TOKENS];
        if (!golden_source(golden_names[i], folder, ids))
            skip();
        convert(folder, in_dir("a.gguf"), NULL);
        convert(in_dir("a.gguf"), in_dir("b.gguf"), NULL);
        convert(in_dir("a.gguf"), in_dir("back"), NULL);
        convert(folder, in_dir("copy"), NULL);
        static const char *const outputs[] = { "a.gguf", "b.gguf", "back", "copy" };
        for (int act = 0; act < ACT_COUNT; act++)
            for (size_t k = 0; k < ARRAY_LEN(outputs); k++) {
                char what[64];
                snprintf(what, sizeof what, "%s as %s", golden_names[i], outputs[k]);
                same_logits(folder, in_dir(outputs[k]), ids[0], SEQS, TOKENS, (enum act_mode)act, what);
            }
        unlink(in_dir("a.gguf"));
        unlink(in_dir("b.gguf"));
        remove_hf_folder(in_dir("back"));
        remove_hf_folder(in_dir("copy"));
    }
}

/* Mistral: Llama's tensors, a window on every layer.  Its GGUF is a llama one and goes back to a Mistral folder. */
static void test_mistral(void **state)
{
    (void)state;
    static const char config[] = "{\"model_type\":\"mistral\",\"num_hidden_layers\":4,\"hidden_size\":64,\"num_attention_heads\":4,"
                                 "\"num_key_value_heads\":2,\"head_dim\":16,\"intermediate_size\":96,\"vocab_size\":320,"
                                 "\"max_position_embeddings\":8192,\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\","
                                 "\"tie_word_embeddings\":false,\"rope_theta\":10000.0,\"sliding_window\":16}";
    char folder[1024], weights[1100];
    int32_t ids[SEQS][TOKENS];
    struct text file = { 0 };
    if (!golden_source("llama3", folder, ids))
        skip();
    snprintf(weights, sizeof weights, "%s/model.safetensors", folder);
    MUST(file_read(weights, 0, &file, &err) && make_dirs(in_dir("mistral"), &err));
    MUST(file_write(in_dir("mistral/model.safetensors"), file.data, file.len, &err));
    MUST(file_write(in_dir("mistral/config.json"), config, strlen(config), &err));
    convert(in_dir("mistral"), in_dir("m.gguf"), NULL);
    convert(in_dir("m.gguf"), in_dir("back"), NULL);
    same_logits(in_dir("mistral"), in_dir("m.gguf"), ids[0], SEQS, TOKENS, ACT_F32, "mistral as GGUF");
    same_logits(in_dir("mistral"), in_dir("back"), ids[0], SEQS, TOKENS, ACT_F32, "mistral and back");
    text_clear(&file);
    MUST(file_read(in_dir("back/config.json"), 0, &file, &err));
    CHECK(strstr(file.data, "MistralForCausalLM") && strstr(file.data, "10000.0"), "config.json: %s", file.data);
    text_free(&file);
    unlink(in_dir("m.gguf"));
    remove_hf_folder(in_dir("mistral"));
    remove_hf_folder(in_dir("back"));
}

static void check_same_words(const char *file, const char *other)
{
    static const char text[] = "Tom has 12 apples.\n\nHe  buys 3; how many? \xC3\xA9\xF0\x9F\x98\x80 <|turn> \t\n";
    struct model a, b;
    struct ids want = { 0 }, got = { 0 };
    MUST(model_open(&a, file, true, &err) && model_open(&b, other, true, &err));
    CHECK(a.tokenizer && b.tokenizer, "%s: %s", other, b.tokenizer_error ? b.tokenizer_error : "");
    MUST(tokenizer_encode(a.tokenizer, text, strlen(text), true, false, &want, &err) &&
         tokenizer_encode(b.tokenizer, text, strlen(text), true, false, &got, &err));
    CHECK(want.n == got.n && memcmp(want.data, got.data, want.n * sizeof *want.data) == 0, "%s: %zu ids, %zu from %s", file, want.n,
          got.n, other);
    CHECK(a.config.n_stop == b.config.n_stop && memcmp(a.config.stop_ids, b.config.stop_ids, (size_t)a.config.n_stop * sizeof(int)) == 0 &&
          a.config.bos == b.config.bos && a.config.pad == b.config.pad, "%s: stop ids of %s", file, other);
    ids_free(&want);
    ids_free(&got);
    model_close(&a);
    model_close(&b);
}

/* The vocabulary of a GGUF becomes the tokenizer files of a folder, and those a GGUF's again: same ids, same tokens that
 * end an answer.  Scores become merges, and merges that came from scores become scores. */
static void test_tokenizer_goes_along(void **state)
{
    (void)state;
    const char *stories = shared_data("models/stories260K/gguf/stories260K-f32.gguf");
    const char *const files[] = { "models/demo/qat-q4_0.gguf", stories }, *const kinds[] = { "gemma4", "llama" };
    for (int i = 0; i < (stories ? 2 : 1); i++) {
        struct model m;
        convert(files[i], in_dir("words"), NULL);
        convert(in_dir("words"), in_dir("words.gguf"), NULL);
        check_same_words(files[i], in_dir("words"));
        check_same_words(files[i], in_dir("words.gguf"));
        MUST(model_open(&m, in_dir("words.gguf"), true, &err));
        CHECK(strcmp(tokenizer_kind(m.tokenizer), kinds[i]) == 0, "%s and back: kind %s", files[i], tokenizer_kind(m.tokenizer));
        model_close(&m);
        remove_hf_folder(in_dir("words"));
        unlink(in_dir("words.gguf"));
    }
}

/* Weights that are blocks: a GGUF keeps them, so every mode agrees; a folder holds their values as floats. */
static void test_blocks(void **state)
{
    (void)state;
    static const char *const recipes[] = { "q4_0", "q8_0", "google-q4_0" };
    for (int i = 0; i < GOLDEN_COUNT; i++) {
        char folder[1024];
        int32_t ids[SEQS][TOKENS];
        const char *recipe = recipes[i % 3];
        if (!golden_source(golden_names[i], folder, ids))
            skip();
        convert(folder, in_dir("q.gguf"), recipe);
        convert(in_dir("q.gguf"), in_dir("again.gguf"), NULL);
        convert(in_dir("q.gguf"), in_dir("floats"), NULL);
        char what[64];
        snprintf(what, sizeof what, "%s in %s", golden_names[i], recipe);
        for (int act = 0; act < ACT_COUNT; act++)
            same_logits(in_dir("q.gguf"), in_dir("again.gguf"), ids[0], 1, TOKENS, (enum act_mode)act, what);
        same_logits(in_dir("q.gguf"), in_dir("floats"), ids[0], 1, TOKENS, ACT_F32, what);
        unlink(in_dir("q.gguf"));
        unlink(in_dir("again.gguf"));
        remove_hf_folder(in_dir("floats"));
    }
}

/* Checkpoints of other libraries: what GGUF has no type for becomes f32, value by value. */
static void test_checkpoints(void **state)
{
    (void)state;
    static const char *const names[] = { "gptq_4bit", "awq_gemm", "bitsandbytes_nf4", "bitsandbytes_nf4_double", "bitsandbytes_fp4", "compressed_tensors_sym",
                                         "compressed_tensors_asym", "compressed_tensors_channel", "mlx_affine2", "mlx_affine4", "mlx_affine8", "gptq_3bit",
                                         "compressed_tensors_w8_asym", "mlx_affine5", "mlx_mxfp4", "mlx_nvfp4", "torchao_int4", "torchao_int8", "hqq_4bit", "fp8_block",
                                         "mlx_mxfp8", "compressed_tensors_int8", "compressed_tensors_nvfp4" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char folder[128], file[160];
        int32_t ids[32];
        snprintf(folder, sizeof folder, "tests/golden/checkpoints/%s", names[i]);
        snprintf(file, sizeof file, "%s/ids.i32", folder);
        read_into(file, ids, sizeof ids);
        convert(folder, in_dir("c.gguf"), NULL);
        same_logits(folder, in_dir("c.gguf"), ids, 2, 16, ACT_F32, names[i]);
        unlink(in_dir("c.gguf"));
    }
}

/* ---- scales that are no numbers ---- */

/* File a with the first scale of row row of tensor name made NaN, as b. */
static void spoil(const char *a, const char *b, const char *name, int64_t row)
{
    struct model m;
    struct text file = { 0 };
    MUST(model_open(&m, a, false, &err));
    MUST(file_read(a, 0, &file, &err));
    const struct tensor *t = model_find(&m, name);
    CHECK(t && formats[t->format].quantized, "%s: no quantized %s", a, name);
    int64_t row_bytes = format_row_bytes(t->format, t->cols);
    size_t at = 0, n = 0, want = (size_t)t->bytes;
    for (size_t i = 0; i + want <= file.len; i++)
        if (memcmp(file.data + i, t->data, want) == 0) {
            at = i;
            n++;
        }
    CHECK(n == 1, "%s: the bytes of %s are there %zu times", a, name, n);
    memcpy(file.data + at + row * row_bytes, "\0\x7e", 2);    /* all formats used here begin with their scale */
    MUST(file_write(b, file.data, file.len, &err));
    text_free(&file);
    model_close(&m);
}

/* Found when the engine opens (whole matrices) or when a token reads its row (embeddings that are no head). */
static void test_scales_not_finite(void **state)
{
    (void)state;
    static const struct { const char *name; int row; bool when_read; } cases[] = {
        { "blk.0.attn_q.weight", 0, false }, { "blk.2.ffn_down.weight", 63, false }, { "token_embd.weight", 319, false },
        { "per_layer_token_embd.weight", 7, true },
    };
    static const int32_t good[] = { 1, 2, 3 }, bad[] = { 1, 7, 3 };
    char folder[1024], row[32];
    int32_t ids[SEQS][TOKENS];
    if (!golden_source("gemma4_e", folder, ids))
        skip();
    convert(folder, in_dir("q.gguf"), "q4_0-q8_0");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (int in_place = 0; in_place < 2; in_place++) {
            struct model m;
            struct engine *e = NULL;
            struct engine_options o = { .threads = 2, .in_place = in_place };
            float logits[3 * 320];
            spoil(in_dir("q.gguf"), in_dir("nan.gguf"), cases[i].name, cases[i].row);
            MUST(model_open(&m, in_dir("nan.gguf"), false, &err));
            bool ok = engine_open(&e, &m, &o, &err);
            CHECK(ok == cases[i].when_read, "%s, in place %d: the engine %s", cases[i].name, in_place, ok ? "opened" : err.text);
            if (ok) {
                struct seq *s = seq_with(e, NULL);
                struct span span = { s, bad, 3, 0 };
                feed_all(e, s, good, 3, logits);
                ok = engine_forward(e, &span, 1, logits, &err);
                feed_all(e, s, good, 3, logits);        /* the refused call left no trace */
                seq_close(s);
            }
            snprintf(row, sizeof row, "row %d", cases[i].row);
            CHECK(!ok && strstr(err.text, cases[i].name) && strstr(err.text, row), "%s: %s", cases[i].name, ok ? "read" : err.text);
            engine_close(e);
            model_close(&m);
        }
    unlink(in_dir("q.gguf"));
    unlink(in_dir("nan.gguf"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_mistral),
        cmocka_unit_test(test_tokenizer_goes_along),
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_checkpoints),
        cmocka_unit_test(test_scales_not_finite),
    };
    return cmocka_run_group_tests_name("convert", tests, make_scratch, remove_empty_scratch);
}
