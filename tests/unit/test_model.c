/* Opening models: both sources give the same weights and config, shapes and memory, what configs must refuse. */
#include "tiny_folder.h"

#include "model/files.h"

static void test_tiny_golden_configs(void **state)
{
    (void)state;
    static const struct {
        const char *name, *arch;
        int layers, tensors, rope_tables, head0, head_full, kv_full;
        float attn_scale;
    } cases[] = {
        { "gemma4_e", "gemma4", 6, 99, 2, 32, 64, 1, 1 },         { "gemma4_dense", "gemma4", 6, 85, 2, 32, 64, 1, 1 },
        { "gemma4_moe", "gemma4", 6, 133, 2, 32, 64, 1, 1 },      { "gemma3", "gemma3", 7, 93, 2, 32, 32, 2, 0.17677669f },
        { "gemma2", "gemma2", 4, 46, 1, 32, 32, 2, 0.20412414f }, { "llama3", "llama", 4, 40, 1, 16, 16, 2, 0.25f },
        { "qwen2", "qwen2", 4, 50, 1, 16, 16, 2, 0.25f },         { "qwen3", "qwen3", 4, 47, 1, 32, 32, 2, 0.17677669f },
        { "qwen3_moe", "qwen3moe", 3, 39, 1, 32, 32, 2, 0.17677669f }, { "smollm3", "smollm3", 5, 47, 1, 16, 16, 2, 0.25f },
    };
    NEED_SHARED(here, "models/tiny_golden/summary.json");
    (void)here;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char name[128];
        struct error err;
        struct model m;
        snprintf(name, sizeof name, "models/tiny_golden/%s", cases[i].name);
        MUST(model_open(&m, shared_data(name), true, &err));
        const struct model_config *c = &m.config;
        const struct layer_config *full = &c->layers[!strcmp(cases[i].arch, "gemma3") ? 5 : c->n_layers - 1];
        CHECK(!strcmp(c->arch, cases[i].arch) && c->n_layers == cases[i].layers && c->vocab == 320 && c->hidden == 64, "%s: sizes", name);
        CHECK(m.n_tensors == cases[i].tensors && c->n_rope == cases[i].rope_tables, "%s: %d tensors, %d rope tables", name, m.n_tensors, c->n_rope);
        CHECK(c->layers[0].head_size == cases[i].head0 && full->head_size == cases[i].head_full && full->n_kv_heads == cases[i].kv_full, "%s: heads", name);
        CHECK_NEAR(c->attn_scale, cases[i].attn_scale, 1e-7, "%s: attention scale", name);
        CHECK(!m.tokenizer && strstr(m.tokenizer_error, "tokenizer.json"), "%s: tokenizer error \"%s\"", name, m.tokenizer_error);
        CHECK(!c->rope_pairs_adjacent, "%s: pairs of Hugging Face files are half a head apart", name);
        model_close(&m);
    }
}

static void open_golden(struct model *m, const char *name)
{
    char path[128];
    struct error err;
    snprintf(path, sizeof path, "models/tiny_golden/%s", name);
    MUST(model_open(m, shared_data(path), false, &err));
}

static void test_gemma4_switches(void **state)
{
    (void)state;
    NEED_SHARED(here, "models/tiny_golden/summary.json");
    (void)here;
    struct model m;
    open_golden(&m, "gemma4_e");
    const struct layer_config *l = m.config.layers;
    CHECK(l[3].kv_source == 1 && l[4].kv_source == 1 && l[5].kv_source == 2 && l[2].kv_source == 2, "donors %d %d %d", l[3].kv_source, l[4].kv_source,
          l[5].kv_source);
    CHECK(l[2].ffn_size == 96 && l[3].ffn_size == 192, "double width: %d %d", l[2].ffn_size, l[3].ffn_size);
    CHECK(m.config.ple_size == 32 && m.config.layer_scale && m.config.v_norm && !l[2].v_from_k, "per-layer input, scalars, V norm");
    const float *full = m.config.rope[l[2].rope_table].inv_freq;
    CHECK_NEAR(full[7], pow(1e6, -14.0 / 64), 1e-7, "exponent over the whole head");
    CHECK(full[8] == 0 && full[31] == 0, "three quarters of the pairs stand still");
    CHECK(l[0].window == 16 && l[0].sliding && !l[2].sliding && l[2].window == 0, "windows");
    model_close(&m);
    open_golden(&m, "gemma4_moe");
    CHECK(m.config.layers[0].moe == MOE_GEMMA4 && m.config.layers[0].n_experts == 8 && m.config.layers[0].n_experts_used == 2, "experts");
    CHECK(m.config.layers[2].v_from_k && !m.config.layers[1].v_from_k, "V from K on full layers only");
    CHECK(model_find(&m, "blk.5.ffn_gate_up_exps.weight")->mats == 8 && model_find(&m, "blk.5.ffn_gate_up_exps.weight")->rows == 64, "fused experts");
    model_close(&m);
    open_golden(&m, "smollm3");
    CHECK(m.config.layers[2].rope && !m.config.layers[3].rope && m.config.layers[4].rope, "every fourth layer without rope");
    model_close(&m);
    open_golden(&m, "gemma3");
    CHECK(model_find(&m, "output_norm.weight")->add == 1 && model_find(&m, "blk.0.attn_q_norm.weight")->add == 1 && model_find(&m, "token_embd.weight")->add == 0,
          "norms hold w - 1");
    CHECK_NEAR(m.config.rope[m.config.layers[5].rope_table].inv_freq[3] * 8, pow(1e6, -6.0 / 32), 1e-6, "linear scaling on full layers");
    CHECK(m.config.rope[m.config.layers[0].rope_table].inv_freq[0] == 1, "and on no other");
    model_close(&m);
}

/* Experts stored one by one come out as one stack, in order, and stay in the mapped file. */
static void test_expert_stacking(void **state)
{
    (void)state;
    NEED_SHARED(here, "models/tiny_golden/summary.json");
    (void)here;
    struct model m;
    struct error err;
    const struct tensor *t;
    open_golden(&m, "qwen3_moe");
    MUST(model_tensor(&m, "blk.1.ffn_gate_exps.weight", 32, 64, 8, &t, &err));
    CHECK(!t->data && t->parts && m.files->n_owned == 0, "%zu tensors were copied", m.files->n_owned);
    /* The file keeps experts apart; their first rows must differ from one another. */
    float first[64], other[64];
    tensor_row(t, 0, 0, first);
    for (int e = 1; e < 8; e++) {
        tensor_row(t, e, 0, other);
        CHECK(memcmp(first, other, sizeof first), "experts 0 and %d are the same", e);
    }
    CHECK(!model_tensor(&m, "blk.1.ffn_gate_exps.weight", 32, 64, 9, &t, &err) && strstr(err.text, "expected [9 x 32 x 64]"), "%s", err.text);
    CHECK(!model_tensor(&m, "blk.1.none", 1, 1, 1, &t, &err) && strstr(err.text, "no tensor blk.1.none"), "%s", err.text);
    model_close(&m);
}

/* The same weights from GGUF and from safetensors: equal but for the order of q and k rows. */
static void test_gguf_equals_folder(void **state)
{
    (void)state;
    NEED_SHARED(gguf, "models/stories260K/gguf/stories260K-f32.gguf");
    char spec[1200];
    struct error err;
    struct model a, b;
    snprintf(spec, sizeof spec, "stories=%s", gguf);
    MUST(model_open(&a, spec, true, &err));
    MUST(model_open(&b, shared_data("models/stories260K/hf_f32"), false, &err));
    CHECK(!strcmp(a.label, "stories") && !strcmp(a.path, gguf) && !strcmp(b.label, "hf_f32"), "labels %s, %s", a.label, b.label);
    CHECK(a.config.rope_pairs_adjacent && !b.config.rope_pairs_adjacent && a.n_tensors == b.n_tensors && a.tokenizer, "sources differ where they should");
    for (int i = 0; i < a.n_tensors; i++) {
        const struct tensor *t = &a.tensors[i], *u;
        int h = strstr(t->name, "attn_q") || strstr(t->name, "attn_k") ? 8 : 0;
        float x[512], y[512];
        MUST(model_tensor(&b, t->name, t->rows, t->cols, t->mats, &u, &err));
        for (int64_t r = 0; r < t->rows; r++) {
            int64_t in = h ? r % h : 0, twin = h ? r - in + in / 2 + (in % 2) * (h / 2) : r;
            tensor_row(t, 0, r, x);
            tensor_row(u, 0, twin, y);
            CHECK(!memcmp(x, y, (size_t)t->cols * sizeof *x), "%s row %d", t->name, (int)r);
        }
    }
    CHECK_NEAR(a.bits_per_weight, 32, 0, "bits per weight");
    model_close(&a);
    model_close(&b);
}

static void test_identity(void **state)
{
    (void)state;
    NEED_SHARED(gguf, "models/stories260K/gguf/stories260K-ffn192-q4_0.gguf");
    struct error err;
    struct model m;
    char cache[] = "/tmp/qdelta-cache-XXXXXX", first[65], second[65], direct[65];
    uint8_t digest[32];
    CHECK(mkdtemp(cache), "no temporary folder");
    setenv("XDG_CACHE_HOME", cache, 1);
    MUST(model_open(&m, gguf, true, &err));
    CHECK(!strcmp(m.recipe, "q4_0 (token_embd q8_0)"), "recipe %s", m.recipe);
    CHECK_NEAR(m.bits_per_weight, 5.039, 0.001, "bits per weight");
    MUST(model_sha256(&m, first, &err));
    MUST(model_sha256(&m, second, &err));
    MUST(sha256_file(gguf, digest, &err));
    hex_of(digest, 32, direct);
    CHECK(!strcmp(first, direct) && !strcmp(second, direct), "%s, cached %s, file %s", first, second, direct);
    MUST(model_tokenizer_hash(&m, first, &err));
    CHECK(strlen(first) == 64, "tokenizer hash \"%s\"", first);
    struct gguf_kv *kv;
    int n;
    MUST(model_metadata(&m, &kv, &n, &err));
    CHECK(n > 20 && !strcmp(kv[0].key, "general.architecture"), "%d keys, first %s", n, kv[0].key);
    model_close(&m);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", cache);
    CHECK(!system(command), "%s", command);
}

/* models.md 6: GiB needed at 8k, 32k, 128k. */
static void test_memory_table(void **state)
{
    (void)state;
    static const struct { const char *shape; double need[3], kv[3]; } table[] = {
        { "gemma4-e2b", { 3.68, 3.82, 4.38 }, { 0.06, 0.20, 0.76 } },    { "gemma4-e4b", { 5.46, 5.84, 7.34 }, { 0.16, 0.54, 2.04 } },
        { "gemma4-12b", { 7.59, 7.97, 9.47 }, { 0.59, 0.97, 2.47 } },    { "gemma4-26b-a4b", { 14.40, 14.87, 16.74 }, { 0.45, 0.92, 2.79 } },
        { "gemma4-31b", { 18.74, 20.61, 28.11 }, { 1.80, 3.67, 11.17 } },
    };
    static const int contexts[3] = { 8192, 32768, 131072 };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct error err;
        struct model m;
        MUST(model_shape(&m, table[i].shape, "google-q4_0", &err));
        CHECK(strstr(model_published_recipe(&m), "Google Q4_0"), "%s: recipe %s", table[i].shape, model_published_recipe(&m));
        for (int c = 0; c < 3; c++) {
            struct memory_need need = model_memory(&m, contexts[c]);
            CHECK_NEAR((double)need.total_bytes / 1073741824, table[i].need[c], 0.005, "%s at %d", table[i].shape, contexts[c]);
            CHECK_NEAR((double)need.kv_bytes / 1073741824, table[i].kv[c], 0.005, "%s K/V at %d", table[i].shape, contexts[c]);
        }
        model_close(&m);
    }
}

static void test_shapes(void **state)
{
    (void)state;
    static const struct { const char *shape; double params; } known[] = { /* models.md 1.2; the others are not written down */
        { "gemma4-e2b", 4.629e9 }, { "gemma4-e4b", 7.463e9 }, { "gemma4-12b", 11.907e9 }, { "gemma4-26b-a4b", 25.233e9 }, { "gemma4-31b", 30.697e9 },
    };
    struct error err;
    struct model m;
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        double weights = 0;
        MUST(model_shape(&m, known[i].shape, "bf16", &err));
        for (int t = 0; t < m.n_tensors; t++)
            weights += strcmp(m.tensors[t].name, "rope_freqs.weight") ? (double)(m.tensors[t].mats * m.tensors[t].rows * m.tensors[t].cols) : 0;
        CHECK_NEAR(weights / 1e9, known[i].params / 1e9, 0.0006, "%s", known[i].shape);
        model_close(&m);
    }
    for (const char *const *s = model_shapes(); *s; s++) {
        MUST(model_shape(&m, *s, "q4_0", &err));
        model_close(&m);
    }
    CHECK(!model_shape(&m, "gemma4-e3b", "bf16", &err) && strstr(err.text, "gemma4-e"), "%s", err.text);
    CHECK(!model_shape(&m, "gemma4-e2b", "q4", &err) && strstr(err.text, "recipe"), "%s", err.text);
}

/* Keys of config.json that would change the arithmetic, or that disagree with the tensors. */
static void test_config_refusals(void **state)
{
    (void)state;
    static const struct { const char *config, *words; } cases[] = {
        { "\"model_type\":\"mamba\"", "mamba" },
        { "\"num_hidden_layers\":3", "model_type" },
        { TINY_CONFIG ",\"attention_bias\":true", "attention_bias" },
        { TINY_CONFIG ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4}", "rope_scaling" },
        { TINY_CONFIG ",\"rope_parameters\":{\"rope_type\":\"longrope\"}", "longrope" },
        { TINY_CONFIG ",\"partial_rotary_factor\":0.5", "partial_rotary_factor" },
        { TINY_CONFIG ",\"layer_types\":[\"sliding_attention\"]", "layer_types" },
        { TINY_CONFIG ",\"layer_types\":[\"full_attention\",\"full_attention\"]", "layer_types" },
        { TINY_CONFIG ",\"attn_logit_softcapping\":50", "attn_logit_softcapping" },
        { TINY_CONFIG ",\"num_local_experts\":8", "num_local_experts" },
        { TINY_CONFIG ",\"logits_scaling\":2", "logits_scaling" },
        { "\"model_type\":\"llama\",\"hidden_act\":\"gelu\",\"num_hidden_layers\":1", "hidden_act" },
        { "\"model_type\":\"llama\",\"num_hidden_layers\":1e9,\"num_attention_heads\":2,\"intermediate_size\":64,\"hidden_size\":64", "layers" },
        { "\"model_type\":\"llama\",\"num_hidden_layers\":\"two\"", "num_hidden_layers" },
        { "\"model_type\":\"llama\",\"num_hidden_layers\":1.5", "num_hidden_layers" },
        { "\"model_type\":\"qwen2\",\"use_sliding_window\":true,\"num_hidden_layers\":1", "use_sliding_window" },
        { "\"model_type\":\"llama\",\"num_hidden_layers\":1,\"hidden_size\":64,\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":32,"
          "\"intermediate_size\":96,\"vocab_size\":40,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5,\"tie_word_embeddings\":true", "expected [1 x 96 x 64]" },
        { "\"model_type\":\"llama\",\"num_hidden_layers\":2,\"hidden_size\":64,\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":32,"
          "\"intermediate_size\":64,\"vocab_size\":40,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5,\"tie_word_embeddings\":true", "layers.1." },
        { "\"model_type\":\"llama\",\"num_hidden_layers\":1,\"hidden_size\":64,\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":32,"
          "\"intermediate_size\":64,\"vocab_size\":40,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5", "lm_head" },
        { "\"model_type\":\"qwen3\",\"num_hidden_layers\":1,\"hidden_size\":64,\"num_attention_heads\":2,\"num_key_value_heads\":1,\"head_dim\":32,"
          "\"intermediate_size\":64,\"vocab_size\":40,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5,\"tie_word_embeddings\":true", "q_norm" },
    };
    struct tiny t;
    tiny_start(&t, "");
    tiny_write(&t, "", NULL);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char config[1024];
        snprintf(config, sizeof config, "{%s}", cases[i].config);
        tiny_put(&t, "config.json", config);
        tiny_refused(t.dir, cases[i].words, cases[i].config);
    }
    tiny_remove(&t);
}

/* Multimodal prefixes, towers, a lone .safetensors path, borrowed leftovers. */
/* Mistral 3 as transformers saves it: the outer config says tied, the inner one not, and there is no head. */
static void test_outer_tie(void **state)
{
    (void)state;
    static const char config[] = ",\"text_config\":{\"tie_word_embeddings\":false," TINY_CONFIG "}";
    struct tiny t;
    struct model m;
    struct error err;
    tiny_start(&t, "");
    tiny_write(&t, config, NULL);
    MUST(model_open(&m, t.dir, false, &err));
    CHECK(m.config.tied_output, "an output of its own without a tensor for it");
    model_close(&m);
    tiny_add_f32(&t, "lm_head.weight", TINY_VOCAB, 64);
    tiny_write(&t, config, NULL);
    MUST(model_open(&m, t.dir, false, &err));
    CHECK(!m.config.tied_output && model_find(&m, "output.weight"), "the output of its own is not read");
    model_close(&m);
    tiny_remove(&t);
}

static void test_spellings(void **state)
{
    (void)state;
    struct tiny t;
    struct model m;
    struct error err;
    char path[128], *names[TINY_MAX];
    tiny_start(&t, "");
    tiny_add_f32(&t, "vision_tower.encoder.weight", 3, 5);
    tiny_add_f32(&t, "lm_head.weight", TINY_VOCAB, 64);
    int n = t.n;
    for (int i = 0; i < n; i++) {
        names[i] = malloc(160);
        bool text = str_starts(t.e[i].name, "model.");
        snprintf(names[i], 160, "%s%s", text ? "model.language_model." : "", t.e[i].name + (text ? 6 : 0));
        t.e[i].name = names[i];
    }
    tiny_write(&t, "", NULL);
    tiny_path(&t, "model.safetensors", path);
    MUST(model_open(&m, path, false, &err));
    CHECK(m.n_tensors == 11 && m.config.tied_output && !strcmp(m.label, "model"), "%d tensors, label %s", m.n_tensors, m.label);
    model_close(&m);
    t.e[n - 1].name = "model.language_model.layers.0.surprise.weight";
    tiny_write(&t, "", NULL);
    tiny_refused(t.dir, "surprise", "an extra tensor");
    tiny_remove(&t);
    for (int i = 0; i < n; i++)
        free(names[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny_golden_configs), cmocka_unit_test(test_gemma4_switches), cmocka_unit_test(test_expert_stacking),
        cmocka_unit_test(test_gguf_equals_folder),  cmocka_unit_test(test_identity),        cmocka_unit_test(test_memory_table),
        cmocka_unit_test(test_shapes),              cmocka_unit_test(test_config_refusals), cmocka_unit_test(test_spellings), cmocka_unit_test(test_outer_tie),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
