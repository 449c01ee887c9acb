/* Mistakes that other programs made with these architectures and files (models.md section 8), each as a test.  The
 * list, and which test holds which item, is in tests/README.md. */
#include "engine_golden.h"
#include "scratch.h"
#include "engine/kernels/kernels.h"
#include "quantizers.h"

static char base_path[256], edited_path[256];

/* ---- a golden model as GGUF, and copies of it with something changed ---- */

static bool base_gguf(const char *name)
{
    const char *config = golden_path(name, "config.json");
    struct model m;
    struct quantize_options o = { .threads = 1, .program_version = "test" };
    struct quantize_report report;
    char folder[1024];
    if (!config)
        return false;
    folder_of(config, folder);
    MUST(model_open(&m, folder, false, &err));
    MUST(convert_model(&m, base_path, "f32", &o, &report, &err));
    quantize_report_free(&report);
    model_close(&m);
    return true;
}

enum { MOST_ADDED = 12 };
struct edit {
    const char *drop_key[3], *drop_tensor;
    const char *as_f16;         /* this tensor in 16 bits */
    struct gguf_kv kv[MOST_ADDED];
    int n_kv;
    struct writer_tensor added[4];
    const float *added_data[4];
    int n_added;
};

static bool named(const char *name, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] && strcmp(list[i], name) == 0)
            return true;
    return false;
}

static void put_tensor(struct gguf_writer *w, const struct tensor *t, bool half)
{
    if (!half) {
        MUST(gguf_writer_data(w, t->data, t->bytes, &err));
        return;
    }
    for (int64_t i = 0; i < t->cols * t->rows * t->mats; i++) {
        uint16_t h = f32_to_f16(((const float *)t->data)[i]);
        MUST(gguf_writer_data(w, &h, sizeof h, &err));
    }
}

static void write_edited(const struct edit *e)
{
    struct model m;
    struct gguf_kv *kv, all[128];
    struct writer_tensor t[256];
    const struct tensor *from[256];
    struct gguf_writer *w;
    int n_kv, n = 0, n_all = 0;
    MUST(model_open(&m, base_path, false, &err));
    MUST(model_metadata(&m, &kv, &n_kv, &err));
    for (int i = 0; i < n_kv; i++)
        if (!named(kv[i].key, e->drop_key, ARRAY_LEN(e->drop_key)))
            all[n_all++] = kv[i];
    for (int i = 0; i < e->n_kv; i++)
        all[n_all++] = e->kv[i];
    for (int i = 0; i < m.n_tensors; i++) {
        const struct tensor *s = &m.tensors[i];
        if (named(s->name, &e->drop_tensor, 1))
            continue;
        from[n] = s;
        t[n++] = (struct writer_tensor){ s->name, named(s->name, &e->as_f16, 1) ? FORMAT_F16 : s->format, s->mats > 1 ? 3 : s->rows > 1 ? 2 : 1,
                                         { s->cols, s->rows, s->mats } };
    }
    memcpy(t + n, e->added, (size_t)e->n_added * sizeof *t);
    MUST(gguf_writer_open(&w, edited_path, all, n_all, t, n + e->n_added, &err));
    for (int i = 0; i < n; i++)
        put_tensor(w, from[i], t[i].format == FORMAT_F16);
    for (int i = 0; i < e->n_added; i++)
        MUST(gguf_writer_data(w, e->added_data[i], (uint64_t)(t[n + i].dims[0] * (t[n + i].n_dims > 1 ? t[n + i].dims[1] : 1)) * sizeof(float), &err));
    MUST(gguf_writer_commit(w, &err));
    model_close(&m);
}

static float *some_logits(const char *path, size_t *n)
{
    struct model m;
    MUST(model_open(&m, path, false, &err));
    int32_t ids[24];
    for (int i = 0; i < 24; i++)
        ids[i] = (i * 37 + 2) % m.config.vocab;
    *n = 24 * (size_t)m.config.vocab;
    struct engine *e = engine_with(&m, ACT_F32, 1, 0);
    struct seq *s = seq_with(e, NULL);
    float *out = mem_new(*n, sizeof *out, &err);
    feed_all(e, s, ids, 24, out);
    seq_close(s);
    engine_close(e);
    model_close(&m);
    return out;
}

/* Logits of the edited file against factor times those of the base, exactly. */
static void check_edited(const char *what, float factor)
{
    size_t n, m;
    float *want = some_logits(base_path, &n), *got = some_logits(edited_path, &m);
    CHECK(n == m, "%s: %zu logits, expected %zu", what, m, n);
    for (size_t i = 0; i < n; i++)
        CHECK(got[i] == factor * want[i], "%s: logit %zu is %.9g, expected %.9g", what, i, (double)got[i], (double)(factor * want[i]));
    free(want);
    free(got);
}

static void check_refused(const char *word, const char *what)
{
    struct model m;
    err.text[0] = '\0';
    bool opened = model_open(&m, edited_path, false, &err);
    if (opened)
        model_close(&m);
    CHECK(!opened, "%s: opened", what);
    CHECK(strstr(err.text, word), "%s: \"%s\" does not name %s", what, err.text, word);
}

/* ---- files ---- */

/* Every tensor is missed by name.  What files may lack: V of a full Gemma 4 layer (K = V) and Llama's rope_freqs. */
static void test_missing_tensors(void **state)
{
    (void)state;
    static const char *const names[] = { "gemma4_e", "gemma4_moe", "gemma3", "llama3", "qwen2", "qwen3_moe" };
    for (size_t k = 0; k < ARRAY_LEN(names); k++) {
        struct model m;
        if (!base_gguf(names[k]))
            skip();
        MUST(model_open(&m, base_path, false, &err));
        for (int i = 0; i < m.n_tensors; i++) {
            const char *name = m.tensors[i].name;
            bool full = str_starts(name, "blk.") && !m.config.layers[atol(name + 4)].sliding;
            bool optional = (strcmp(m.config.arch, "gemma4") == 0 && full && str_ends(name, "attn_v.weight")) ||
                            (strcmp(m.config.arch, "llama") == 0 && strcmp(name, "rope_freqs.weight") == 0) || strcmp(name, "output.weight") == 0;
            if (optional)
                continue;
            write_edited(&(struct edit){ .drop_tensor = name });
            char what[96];
            snprintf(what, sizeof what, "%s without %s", names[k], name);
            /* Without fused experts the separate ones are missed; the first layer's scalar tells whether there are any. */
            bool other = strstr(name, "gate_up_exps") || strstr(name, "layer_output_scale");
            check_refused(other ? "blk." : name, what);
        }
        model_close(&m);
    }
}

static void test_extra_tensor(void **state)
{
    (void)state;
    static const float zeros[64];
    if (!base_gguf("gemma3"))
        skip();
    static const char *const strangers[] = { "blk.0.attn_sinks.weight", "blk.7.attn_norm.weight", "mtp.weight", "blk.0.attn_q.bias" };
    for (size_t i = 0; i < ARRAY_LEN(strangers); i++) {
        write_edited(&(struct edit){ .added = { { strangers[i], FORMAT_F32, 1, { 64 } } }, .added_data = { zeros }, .n_added = 1 });
        check_refused(strangers[i], strangers[i]);
    }
}

/* Early uploads carry K and V of layers that borrow them; nothing may read them, or overwrite the donors'. */
static void test_unused_kv(void **state)
{
    (void)state;
    static float odd[32 * 64];
    if (!base_gguf("gemma4_e"))
        skip();
    for (size_t i = 0; i < ARRAY_LEN(odd); i++)
        odd[i] = (float)i;
    write_edited(&(struct edit){
        .added = { { "blk.3.attn_k.weight", FORMAT_F32, 2, { 64, 32 } }, { "blk.3.attn_v.weight", FORMAT_F32, 2, { 64, 32 } },
                   { "blk.3.attn_k_norm.weight", FORMAT_F32, 1, { 32 } } },
        .added_data = { odd, odd, odd }, .n_added = 3 });
    check_edited("gemma4_e with K and V that nothing reads", 1);
}

/* 1e30 in 16 bits is infinity. */
static void test_rope_freqs_in_16_bits(void **state)
{
    (void)state;
    if (!base_gguf("gemma4_dense"))
        skip();
    write_edited(&(struct edit){ .as_f16 = "rope_freqs.weight" });
    check_refused("rope_freqs.weight", "rope_freqs in f16");
}

/* Google's Gemma 3 QAT files say neither the local theta nor the pattern: 10000 and 6. */
static void test_gemma3_without_local_keys(void **state)
{
    (void)state;
    if (!base_gguf("gemma3"))
        skip();
    write_edited(&(struct edit){ .drop_key = { "gemma3.rope.freq_base_swa", "gemma3.attention.sliding_window_pattern" } });
    check_edited("gemma3 without local theta and pattern", 1);
}

/* A Gemma file may bring a head of its own; then that is the head. */
static void test_gemma_with_output(void **state)
{
    (void)state;
    struct model m;
    static float twice[320 * 64];
    if (!base_gguf("gemma3"))
        skip();
    MUST(model_open(&m, base_path, false, &err));
    for (size_t i = 0; i < ARRAY_LEN(twice); i++)
        twice[i] = 2 * ((const float *)model_find(&m, "token_embd.weight")->data)[i];
    model_close(&m);
    write_edited(&(struct edit){ .added = { { "output.weight", FORMAT_F32, 2, { 64, 320 } } }, .added_data = { twice }, .n_added = 1 });
    check_edited("gemma3 with a head of twice the embedding", 2);
}

/* NaN and infinity at every place of a block of every format: refused exactly where the decoded weights show them. */
static void test_scale_places(void **state)
{
    (void)state;
    static const uint32_t patterns[] = { 0x7e00, 0x7c00, 0xfc00, 0x7fc00000, 0x7f800000 };
    for (int f = 0; f < FORMAT_COUNT; f++)
        for (int at = 0; formats[f].quantized && at + 2 <= formats[f].block_bytes; at++)
            for (size_t k = 0; k < ARRAY_LEN(patterns); k++) {
                uint8_t block[512] = { 0 };
                float out[256];
                bool finite = true;
                if (at + 4 > formats[f].block_bytes && patterns[k] > 0xffff)
                    continue;
                memcpy(block + at, &patterns[k], patterns[k] > 0xffff ? 4 : 2);
                formats[f].to_f32(block, out, formats[f].block);
                for (int i = 0; i < formats[f].block; i++)
                    finite &= isfinite(out[i]) != 0;
                struct tensor t = { .name = "t", .format = (enum format_id)f, .cols = formats[f].block, .rows = 1, .mats = 1, .data = block };
                CHECK(tensor_check_scales(&t, 0, 1, &err) == finite, "%s: %x at byte %d: weights are %sfinite", formats[f].name, (unsigned)patterns[k], at,
                      finite ? "" : "not ");
            }
}

/* ---- BOS, and what ends an answer ---- */

enum { N_TOKENS = 290 };
static struct gguf_string tokens[N_TOKENS];
static int32_t kinds[N_TOKENS];
static float scores[N_TOKENS];

static void gemma4_vocabulary(struct edit *e, bool add_bos)
{
    static char names[N_TOKENS][16];
    static const char *const first[] = { "<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>", "</s>", "\n" };
    static const struct gguf_string merges[] = { { "a b", 3 } };
    for (int i = 0; i < N_TOKENS; i++) {
        int byte = i - (int)ARRAY_LEN(first), letter = byte - 256;
        if (byte < 0)
            snprintf(names[i], sizeof names[i], "%s", first[i]);
        else if (letter < 0)
            snprintf(names[i], sizeof names[i], "<0x%02X>", (unsigned)byte);
        else if (letter == 22)
            snprintf(names[i], sizeof names[i], "ab");
        else
            snprintf(names[i], sizeof names[i], "%c", 'a' + letter);
        tokens[i] = (struct gguf_string){ names[i], strlen(names[i]) };
        kinds[i] = i < 9 ? TOKEN_CONTROL : byte >= 0 && letter < 0 ? TOKEN_BYTE : TOKEN_NORMAL;
    }
    const struct gguf_kv kv[] = {
        { .key = "tokenizer.ggml.model", .type = GGUF_STRING, .value.s = { "gemma4", 6 } },
        { .key = "tokenizer.ggml.tokens", .type = GGUF_ARRAY, .element = GGUF_STRING, .count = N_TOKENS, .value.array = tokens },
        { .key = "tokenizer.ggml.token_type", .type = GGUF_ARRAY, .element = GGUF_I32, .count = N_TOKENS, .value.array = kinds },
        { .key = "tokenizer.ggml.scores", .type = GGUF_ARRAY, .element = GGUF_F32, .count = N_TOKENS, .value.array = scores },
        { .key = "tokenizer.ggml.merges", .type = GGUF_ARRAY, .element = GGUF_STRING, .count = 1, .value.array = merges },
        { .key = "tokenizer.ggml.bos_token_id", .type = GGUF_U32, .value.u = 2 },
        { .key = "tokenizer.ggml.eos_token_id", .type = GGUF_U32, .value.u = 1 },
        { .key = "tokenizer.ggml.add_bos_token", .type = GGUF_BOOL, .value.u = add_bos },
    };
    memcpy(e->kv, kv, sizeof kv);
    e->n_kv = (int)ARRAY_LEN(kv);
}

static int bos_in(const struct ids *ids)
{
    int n = 0;
    for (size_t i = 0; i < ids->n; i++)
        n += ids->data[i] == 2;
    return n;
}

/* add_bos false in the file: still one BOS on plain text, one in a chat, none where none was asked for. */
static void test_bos(void **state)
{
    (void)state;
    if (!base_gguf("gemma4_dense"))
        skip();
    for (int add_bos = 0; add_bos < 2; add_bos++) {
        struct edit e = { .drop_key = { "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id" } };
        struct model m;
        struct ids plain = { 0 }, chat = { 0 }, bare = { 0 };
        const struct chat_turn turns[] = { { "system", "ab" }, { "user", "<bos>ab" } };
        gemma4_vocabulary(&e, add_bos);
        write_edited(&e);
        MUST(model_open(&m, edited_path, true, &err));
        CHECK(m.tokenizer, "%s", m.tokenizer_error);
        MUST(tokenizer_encode(m.tokenizer, "abc", 3, true, false, &plain, &err));
        MUST(tokenizer_encode(m.tokenizer, "abc", 3, false, false, &bare, &err));
        MUST(chat_encode(m.tokenizer, CHAT_GEMMA4_LARGE, turns, 2, false, &chat, &err));
        CHECK(plain.n == 3 && plain.data[0] == 2 && bos_in(&plain) == 1, "add_bos %d: %zu tokens, %d BOS", add_bos, plain.n, bos_in(&plain));
        CHECK(chat.data[0] == 2 && bos_in(&chat) == 1, "add_bos %d: a chat has %d BOS", add_bos, bos_in(&chat));
        CHECK(bare.n == 2 && bos_in(&bare) == 0, "add_bos %d: BOS where none was asked for", add_bos);
        for (int i = 0; i < m.config.n_stop; i++)
            CHECK(m.config.stop_ids[i] == 1 || m.config.stop_ids[i] == 5, "token %d ends answers (\"</s>\" is 9, an ordinary one)", m.config.stop_ids[i]);
        CHECK(m.config.n_stop == 2, "%d stop ids, expected <eos> and <turn|>", m.config.n_stop);
        ids_free(&plain);
        ids_free(&chat);
        ids_free(&bare);
        model_close(&m);
    }
}

/* ---- forward pass ---- */

/* The final softcap where it bends: a final norm 40 times as large makes logits over 60. */
static void test_softcap(void **state)
{
    (void)state;
    static const char *const names[] = { "gemma2", "gemma4_e" };
    for (size_t k = 0; k < ARRAY_LEN(names); k++) {
        struct golden g;
        if (!golden_open(&g, names[k]))
            skip();
        size_t n = TOKENS * (size_t)g.m.config.vocab;
        float *out[2] = { mem_new(n, sizeof **out, &err), mem_new(n, sizeof **out, &err) }, norm[64], largest = 0;
        const struct tensor *old = model_find(&g.m, "output_norm.weight");
        struct tensor large = { .name = old->name, .format = FORMAT_F32, .cols = 64, .rows = 1, .mats = 1, .data = norm, .bytes = sizeof norm };
        tensor_row(old, 0, 0, norm);
        for (int i = 0; i < 64; i++)
            norm[i] *= 40;
        CHECK(g.m.config.final_softcap == 30, "%s: softcap %g", names[k], (double)g.m.config.final_softcap);
        for (int capped = 0; capped < 2; capped++) {
            g.m.config.final_softcap = capped ? 30 : 0;
            struct engine *e = engine_with(&g.m, ACT_F32, 1, 0);
            MUST(engine_replace(e, &large, &err));
            struct seq *s = seq_with(e, NULL);
            feed_all(e, s, g.ids[0], TOKENS, out[capped]);
            seq_close(s);
            engine_close(e);
        }
        for (size_t i = 0; i < n; i++) {
            CHECK_NEAR(out[1][i], 30 * tanh((double)out[0][i] / 30), 4e-6, "%s: softcap of %g", names[k], (double)out[0][i]);
            largest = fabsf(out[0][i]) > largest ? fabsf(out[0][i]) : largest;
        }
        CHECK(largest > 60, "%s: the largest logit is %g, the test wants over 60", names[k], (double)largest);
        free(out[0]);
        free(out[1]);
        golden_close(&g);
    }
}

/* One sliding layer: what a token changes are the window's tokens from itself on, W of them, and no other. */
static void test_window_rule(void **state)
{
    (void)state;
    static const char *const names[] = { "gemma2", "gemma3", "gemma4_dense", "gemma4_moe" };
    enum { N = 60, D = 64 };
    for (size_t k = 0; k < ARRAY_LEN(names); k++) {
        struct golden g;
        if (!golden_open(&g, names[k]))
            skip();
        struct engine *e = engine_with(&g.m, ACT_F32, 1, 0);
        int w = g.m.config.layers[0].window;
        static float before[N * D], x[N * D];
        MUST(engine_stream_embed(e, g.ids[0], 1, N, before, NULL, &err));
        MUST(engine_stream_layer(e, 0, 1, N, before, NULL, &err));
        for (int j = 0; j < N; j += 19) {
            MUST(engine_stream_embed(e, g.ids[0], 1, N, x, NULL, &err));
            for (int i = 0; i < D; i++)
                x[j * D + i] = (float)(i % 5) - 2;
            MUST(engine_stream_layer(e, 0, 1, N, x, NULL, &err));
            for (int p = 0; p < N; p++) {
                bool sees = p >= j && p - j < w, changed = memcmp(x + p * D, before + p * D, D * sizeof *x) != 0;
                CHECK(sees == changed, "%s, window %d: token %d %s token %d", names[k], w, p, changed ? "sees" : "does not see", j);
            }
        }
        engine_close(e);
        golden_close(&g);
    }
}

/* ---- Gemma 4's router ---- */

struct router_view {
    float x[TOKENS][64];        /* its input */
    int rows, of_expert[8];     /* rows each expert took */
};
static void see_router(void *ctx, const char *name, int expert, const float *x, int n, int64_t cols, size_t ld)
{
    struct router_view *v = ctx;
    for (int i = 0; i < n && strcmp(name, "blk.0.ffn_gate_inp.weight") == 0; i++)
        memcpy(v->x[v->rows++], x + (size_t)i * ld, (size_t)cols * sizeof *x);
    if (strcmp(name, "blk.0.ffn_down_exps.weight") == 0)
        v->of_expert[expert] += n;
}

static void run_router(struct golden *g, const struct tensor *instead, struct router_view *v, float *x)
{
    struct engine *e = engine_with(&g->m, ACT_F32, 1, TOKENS);
    struct engine_tap tap = { see_router, v };
    *v = (struct router_view){ .rows = 0 };
    MUST(!instead || engine_replace(e, instead, &err));
    MUST(engine_stream_embed(e, g->ids[0], 1, TOKENS, x, NULL, &err));
    engine_set_tap(e, &tap);
    MUST(engine_stream_layer(e, 0, 1, TOKENS, x, NULL, &err));
    engine_close(e);
    CHECK(v->rows == TOKENS, "the router saw %d rows", v->rows);
}

/* A vector of the layer, times by[i % 8]. */
static struct tensor times(struct golden *g, const char *name, const float by[8], float *room)
{
    const struct tensor *t = model_find(&g->m, name);
    tensor_row(t, 0, 0, room);
    for (int64_t i = 0; i < t->cols; i++)
        room[i] *= by[i % 8];
    return (struct tensor){ .name = t->name, .format = FORMAT_F32, .cols = t->cols, .rows = 1, .mats = 1, .data = room, .bytes = (uint64_t)t->cols * 4 };
}

/* Its input is rms(residual) * scale * hidden^-0.5: no pre-FFN norm before, the scale before the matrix; the experts' own
 * scales come after the choice. */
static void test_router_order(void **state)
{
    (void)state;
    static const float some[8] = { 4, 0.25f, 2, 1, 8, 0.5f, 1, 2 }, two[8] = { 2, 2, 2, 2, 2, 2, 2, 2 };
    static struct router_view plain, now;
    static float before[TOKENS * 64], after[TOKENS * 64], room[64];
    struct golden g;
    if (!golden_open(&g, "gemma4_moe"))
        skip();
    run_router(&g, NULL, &plain, before);
    const struct tensor *scale = model_find(&g.m, "blk.0.ffn_gate_inp.scale");
    for (int t = 0; t < TOKENS; t++) {  /* what is left when scale and hidden^-0.5 are taken away has a mean square of 1 */
        double sum = 0;
        tensor_row(scale, 0, 0, room);
        for (int i = 0; i < 64; i++)
            sum += pow((double)plain.x[t][i] * 8 / (double)room[i], 2);
        CHECK_NEAR(sum / 64, 1, 1e-4, "token %d: mean square of the router's input", t);
    }
    static const char *const norms[] = { "blk.0.ffn_norm.weight", "blk.0.pre_ffw_norm_2.weight" };
    for (size_t i = 0; i < ARRAY_LEN(norms); i++) {
        struct tensor t = times(&g, norms[i], some, room);
        run_router(&g, &t, &now, after);
        CHECK(memcmp(plain.x, now.x, sizeof now.x) == 0 && memcmp(before, after, sizeof after) != 0, "the router's input goes through %s", norms[i]);
    }
    struct tensor t = times(&g, "blk.0.ffn_gate_inp.scale", two, room);
    run_router(&g, &t, &now, after);
    for (int i = 0; i < TOKENS * 64; i++)
        CHECK(now.x[i / 64][i % 64] == 2 * plain.x[i / 64][i % 64], "twice the scale, but not twice the router's input");
    for (int expert = 0; expert < 8; expert++) {
        float by[8] = { 1, 1, 1, 1, 1, 1, 1, 1 };
        int changed = 0;
        by[expert] = 1000;
        t = times(&g, "blk.0.ffn_down_exps.scale", by, room);
        run_router(&g, &t, &now, after);
        for (int i = 0; i < TOKENS; i++)
            changed += memcmp(before + i * 64, after + i * 64, 64 * sizeof *after) != 0;
        CHECK(memcmp(plain.of_expert, now.of_expert, sizeof now.of_expert) == 0, "the scale of expert %d has a say in the choice", expert);
        CHECK(changed == plain.of_expert[expert], "expert %d: %d tokens chose it, %d changed with its scale", expert, plain.of_expert[expert], changed);
    }
    golden_close(&g);
}

/* ---- K = V ---- */

static void logits_with(struct golden *g, const struct tensor *instead, int n, const int32_t *ids, float *out)
{
    struct engine *e = engine_with(&g->m, ACT_F32, 1, TOKENS);
    for (int i = 0; i < n; i++)
        MUST(engine_replace(e, &instead[i], &err));
    struct seq *s = seq_with(e, NULL);
    feed_all(e, s, ids, TOKENS, out);
    seq_close(s);
    engine_close(e);
}

/* With q_norm 0 every token attends evenly to what it sees, so only values are left.  Of one token repeated they are the same
 * at every position, unless they are turned; and K's norm has no say in them. */
static void test_values_stand_still(void **state)
{
    (void)state;
    enum { LAYERS = 6 };
    static const float none[8], some[8] = { 4, 0.25f, 2, 1, 8, 0.5f, 1, 2 };
    static float room[2 * LAYERS][64];
    struct tensor q[2 * LAYERS];
    struct golden g;
    char name[64];
    int32_t same[TOKENS];
    if (!golden_open(&g, "gemma4_dense"))
        skip();
    CHECK(g.m.config.n_layers == LAYERS && g.m.config.layers[2].v_from_k, "%d layers", g.m.config.n_layers);
    size_t vocab = (size_t)g.m.config.vocab, n = TOKENS * vocab;
    float *out = mem_new(n, sizeof *out, &err), *other = mem_new(n, sizeof *out, &err);
    for (int l = 0; l < LAYERS; l++) {
        snprintf(name, sizeof name, "blk.%d.attn_q_norm.weight", l);
        q[l] = times(&g, name, none, room[l]);
        snprintf(name, sizeof name, "blk.%d.attn_k_norm.weight", l);
        q[LAYERS + l] = times(&g, name, some, room[LAYERS + l]);
    }
    for (int i = 0; i < TOKENS; i++)
        same[i] = 7;
    logits_with(&g, q, LAYERS, same, out);
    for (size_t i = vocab; i < n; i++)
        CHECK_NEAR(out[i], out[i % vocab], 1e-3, "position %zu, logit %zu", i / vocab, i % vocab);
    logits_with(&g, q, LAYERS, g.ids[0], out);
    logits_with(&g, q, 2 * LAYERS, g.ids[0], other);
    CHECK(memcmp(out, other, n * sizeof *out) == 0, "values go through K's norm");
    logits_with(&g, q + LAYERS, LAYERS, g.ids[0], other);
    CHECK(memcmp(out, other, n * sizeof *out) != 0, "K's norm changes nothing at all");
    free(out);
    free(other);
    golden_close(&g);
}

/* ---- sizes as published ---- */

static void test_donors(void **state)
{
    (void)state;
    static const struct { const char *shape; int own, sliding, full; } rows[] = { { "gemma4-e2b", 15, 13, 14 }, { "gemma4-e4b", 24, 22, 23 } };
    for (size_t k = 0; k < ARRAY_LEN(rows); k++) {
        struct model m;
        MUST(model_shape(&m, rows[k].shape, "bf16", &err));
        for (int i = 0; i < m.config.n_layers; i++) {
            const struct layer_config *l = &m.config.layers[i];
            int want = i < rows[k].own ? i : l->sliding ? rows[k].sliding : rows[k].full;
            CHECK(l->kv_source == want, "%s: layer %d reads the K/V of %d, expected %d", rows[k].shape, i, l->kv_source, want);
        }
        CHECK(!m.config.layers[m.config.n_layers - 1].sliding, "%s: the last layer slides", rows[k].shape);
        model_close(&m);
    }
}

/* Gemma 4's full layers: pairs (i, i + 256), i < 64, of a 512-wide head; the exponent's denominator is 512. */
static void test_proportional_rope(void **state)
{
    (void)state;
    if (!base_gguf("gemma4_dense"))
        skip();
    struct model m;
    MUST(model_open(&m, base_path, false, &err));
    const struct layer_config *l = &m.config.layers[2];
    const float *inv = m.config.rope[l->rope_table].inv_freq;
    int half = l->head_size / 2, turned = half / 4;
    for (int p = 700; p <= 5000; p += 430) {
        float x[64], c[32], s[32];
        CHECK(l->head_size == 64, "head size %d", l->head_size);
        for (int i = 0; i < 64; i++)
            x[i] = (float)(random_unit_at(5, (uint64_t)i) - 0.5);
        rope_row(inv, half, p, c, s);
        for (int k = 0; kernels_all()[k]; k++) {
            float y[64];
            memcpy(y, x, sizeof y);
            if (!kernels_supported(kernels_all()[k]))
                continue;
            vec_rope(kernels_all()[k], y, c, s, 64);
            for (int i = 0; i < half; i++) {
                double a = i < turned ? p * pow(1e6, -2.0 * i / 64) : 0;
                /* the angle is a float32: 5000 of them are known to 2^-12 */
                CHECK_NEAR(y[i], (double)x[i] * cos(a) - (double)x[i + half] * sin(a), 3e-4, "position %d, element %d", p, i);
                CHECK_NEAR(y[i + half], (double)x[i + half] * cos(a) + (double)x[i] * sin(a), 3e-4, "position %d, element %d", p, i + half);
            }
        }
    }
    model_close(&m);
}

static int name_files(void **state)
{
    if (make_scratch(state) != 0)
        return -1;
    snprintf(base_path, sizeof base_path, "%s", in_dir("base.gguf"));
    snprintf(edited_path, sizeof edited_path, "%s", in_dir("edited.gguf"));
    return 0;
}
static int remove_files(void **state)
{
    unlink(base_path);
    unlink(edited_path);
    return remove_empty_scratch(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing_tensors),       cmocka_unit_test(test_extra_tensor),
        cmocka_unit_test(test_unused_kv),             cmocka_unit_test(test_rope_freqs_in_16_bits),
        cmocka_unit_test(test_gemma3_without_local_keys), cmocka_unit_test(test_gemma_with_output),
        cmocka_unit_test(test_scale_places),
        cmocka_unit_test(test_bos),                   cmocka_unit_test(test_softcap),
        cmocka_unit_test(test_window_rule),           cmocka_unit_test(test_router_order),
        cmocka_unit_test(test_values_stand_still),
        cmocka_unit_test(test_donors),                cmocka_unit_test(test_proportional_rope),
    };
    return cmocka_run_group_tests_name("pitfalls", tests, name_files, remove_files);
}
