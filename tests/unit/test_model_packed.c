/* Packed checkpoint layouts: matrices packed here by the documented layout must come out with exactly their values. */
#include "tiny_folder.h"

#define Q_PROJ "model.layers.0.self_attn.q_proj"
enum { N = 64, K = 64, GROUP = 32, G = K / GROUP };

/* One matrix: codes and zero points of `bits` bits, scales that 16-bit floats hold. */
struct matrix {
    int bits;
    int code[N][K], zero[N][G], g_idx[K];
    float scale[N][G];
};

static void matrix_fill(struct matrix *m, int bits, bool shuffled)
{
    m->bits = bits;
    for (int n = 0; n < N; n++) {
        for (int k = 0; k < K; k++)
            m->code[n][k] = (int)(random_at(1, (uint64_t)(n * K + k)) % (1u << bits));
        for (int g = 0; g < G; g++) {
            m->zero[n][g] = 1 + (int)(random_at(2, (uint64_t)(n * G + g)) % ((1u << bits) - 1));
            m->scale[n][g] = (float)((int)(random_at(3, (uint64_t)(n * G + g)) % 255) - 127) / 1024.0f;
        }
    }
    for (int k = 0; k < K; k++)
        m->g_idx[k] = shuffled ? k % G : k / GROUP;
}

static float value(const struct matrix *m, int n, int k)
{
    int g = m->g_idx[k];
    return m->scale[n][g] * (float)(m->code[n][k] - m->zero[n][g]);
}

static void put_field(uint32_t *word, int bits, int at, int v)
{
    *word |= (uint32_t)(v & ((1 << bits) - 1)) << (bits * at);
}

/* [G][N] of 16-bit scales, or [N][G] */
static void scales_f16(const struct matrix *m, bool by_row, bool bf16, uint16_t *out)
{
    for (int n = 0; n < N; n++)
        for (int g = 0; g < G; g++)
            out[by_row ? n * G + g : g * N + n] = bf16 ? f32_to_bf16(m->scale[n][g]) : f32_to_f16(m->scale[n][g]);
}

static void check_values(const struct tiny *t, const struct matrix *m, enum format_id format, const char *what)
{
    struct error err;
    struct model model;
    const struct tensor *q;
    float row[K];
    MUST(model_open(&model, t->dir, false, &err));
    MUST(model_tensor(&model, "blk.0.attn_q.weight", N, K, 1, &q, &err));
    CHECK(q->format == format, "%s: format %s", what, formats[q->format].name);
    for (int n = 0; n < N; n++) {
        tensor_row(q, 0, n, row);
        for (int k = 0; k < K; k++)
            CHECK(row[k] == value(m, n, k), "%s [%d][%d]: got %.9g, want %.9g", what, n, k, (double)row[k], (double)value(m, n, k));
    }
    model_close(&model);
}

static void add_gptq(struct tiny *t, const struct matrix *m, bool v1, bool with_g_idx)
{
    int pack = 32 / m->bits;
    static uint32_t weight[K * N], zeros[G * N];
    uint16_t scales[G * N];
    int32_t g_idx[K];
    memset(weight, 0, sizeof weight);
    memset(zeros, 0, sizeof zeros);
    for (int n = 0; n < N; n++) {
        for (int k = 0; k < K; k++)
            put_field(&weight[k / pack * N + n], m->bits, k % pack, m->code[n][k]);
        for (int g = 0; g < G; g++)
            put_field(&zeros[g * (N / pack) + n / pack], m->bits, n % pack, m->zero[n][g] - v1);
    }
    for (int k = 0; k < K; k++)
        g_idx[k] = m->g_idx[k];
    scales_f16(m, false, false, scales);
    tiny_add(t, Q_PROJ ".qweight", "I32", K / pack, N, weight, (size_t)(K / pack * N) * 4);
    tiny_add(t, Q_PROJ ".qzeros", "I32", G, N / pack, zeros, (size_t)(G * N / pack) * 4);
    tiny_add(t, Q_PROJ ".scales", "F16", G, N, scales, sizeof scales);
    if (with_g_idx)
        tiny_add(t, Q_PROJ ".g_idx", "I32", K, 0, g_idx, sizeof g_idx);
    tiny_add(t, Q_PROJ ".bias", "F32", N, 0, (float[N]){ 0 }, N * 4);
}

static void test_gptq(void **state)
{
    (void)state;
    static const struct { int bits; bool v1, shuffled; const char *config; } cases[] = {
        { 4, true, false, ",\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,\"sym\":false}" },
        { 4, false, false, ",\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,\"checkpoint_format\":\"gptq_v2\"}" },
        { 4, true, true, ",\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,\"desc_act\":true}" },
        { 8, true, false, ",\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":8,\"group_size\":32}" },
        { 2, true, true, ",\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":2,\"group_size\":32}" },
        { 4, true, false, ",\"quantization_config\":{\"quant_method\":\"auto-round\",\"packing_format\":\"auto_round:auto_gptq\",\"bits\":4}" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct tiny t;
        static struct matrix m;
        matrix_fill(&m, cases[i].bits, cases[i].shuffled);
        tiny_start(&t, Q_PROJ ".weight");
        add_gptq(&t, &m, cases[i].v1, i != 1);
        tiny_write(&t, cases[i].config, NULL);
        check_values(&t, &m, cases[i].bits == 8 ? FORMAT_I8M : FORMAT_I4M, cases[i].config);
        tiny_remove(&t);
    }
}

static void test_awq(void **state)
{
    (void)state;
    static const int order[8] = { 0, 2, 4, 6, 1, 3, 5, 7 };     /* column held by nibble i */
    static struct matrix m;
    static uint32_t weight[K * N / 8], zeros[G * N / 8];
    uint16_t scales[G * N];
    struct tiny t;
    matrix_fill(&m, 4, false);
    for (int w = 0; w < N / 8; w++)
        for (int i = 0; i < 8; i++) {
            for (int k = 0; k < K; k++)
                put_field(&weight[k * (N / 8) + w], 4, i, m.code[8 * w + order[i]][k]);
            for (int g = 0; g < G; g++)
                put_field(&zeros[g * (N / 8) + w], 4, i, m.zero[8 * w + order[i]][g]);
        }
    scales_f16(&m, false, false, scales);
    tiny_start(&t, Q_PROJ ".weight");
    tiny_add(&t, Q_PROJ ".qweight", "I32", K, N / 8, weight, sizeof weight);
    tiny_add(&t, Q_PROJ ".qzeros", "I32", G, N / 8, zeros, sizeof zeros);
    tiny_add(&t, Q_PROJ ".scales", "F16", G, N, scales, sizeof scales);
    tiny_write(&t, ",\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":32,\"version\":\"gemm\"}", NULL);
    check_values(&t, &m, FORMAT_I4M, "awq");
    tiny_write(&t, ",\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":32,\"version\":\"gemv\"}", NULL);
    tiny_refused(t.dir, "gemv", "awq gemv");
    tiny_remove(&t);
}

static void test_compressed_tensors(void **state)
{
    (void)state;
    for (int symmetric = 0; symmetric < 2; symmetric++) {
        static struct matrix m;
        static uint32_t weight[N * K / 8], zeros[N / 8 * G];
        uint16_t scales[N * G];
        int64_t shape[2] = { N, K };
        struct tiny t;
        memset(weight, 0, sizeof weight);
        memset(zeros, 0, sizeof zeros);
        matrix_fill(&m, 4, false);
        for (int n = 0; n < N; n++) {
            for (int k = 0; k < K; k++)
                put_field(&weight[n * (K / 8) + k / 8], 4, k % 8, m.code[n][k]);
            for (int g = 0; g < G; g++) {
                m.zero[n][g] = symmetric ? 8 : m.zero[n][g];
                put_field(&zeros[n / 8 * G + g], 4, n % 8, m.zero[n][g]);
            }
        }
        scales_f16(&m, true, true, scales);
        tiny_start(&t, Q_PROJ ".weight");
        tiny_add(&t, Q_PROJ ".weight_packed", "I32", N, K / 8, weight, sizeof weight);
        tiny_add(&t, Q_PROJ ".weight_scale", "BF16", N, G, scales, sizeof scales);
        tiny_add(&t, Q_PROJ ".weight_shape", "I64", 2, 0, shape, sizeof shape);
        if (!symmetric)
            tiny_add(&t, Q_PROJ ".weight_zero_point", "I32", N / 8, G, zeros, sizeof zeros);
        tiny_write(&t, ",\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\",\"config_groups\":"
                       "{\"group_0\":{\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":4,\"type\":\"int\"}}}}", NULL);
        check_values(&t, &m, FORMAT_I4M, symmetric ? "symmetric" : "asymmetric");
        tiny_remove(&t);
    }
}

static void test_mlx(void **state)
{
    (void)state;
    for (int bits = 2; bits <= 8; bits *= 2) {
        static struct matrix m;
        static uint32_t weight[N * K / 4];
        static float scales[N * G], biases[N * G];
        int pack = 32 / bits;
        struct tiny t;
        memset(weight, 0, sizeof weight);
        matrix_fill(&m, bits, false);
        for (int n = 0; n < N; n++) {
            for (int k = 0; k < K; k++)
                put_field(&weight[n * (K / pack) + k / pack], bits, k % pack, m.code[n][k]);
            for (int g = 0; g < G; g++) {
                scales[n * G + g] = m.scale[n][g];
                biases[n * G + g] = -m.scale[n][g] * (float)m.zero[n][g];
            }
        }
        tiny_start(&t, Q_PROJ ".weight");
        tiny_add(&t, Q_PROJ ".weight", "U32", N, K / pack, weight, (size_t)(N * K / pack) * 4);
        tiny_add(&t, Q_PROJ ".scales", "F32", N, G, scales, sizeof scales);
        tiny_add(&t, Q_PROJ ".biases", "F32", N, G, biases, sizeof biases);
        tiny_write(&t, ",\"quantization\":{\"group_size\":32,\"bits\":4}", NULL);
        check_values(&t, &m, bits == 8 ? FORMAT_I8M : FORMAT_I4M, "mlx");
        tiny_write(&t, ",\"quantization\":{\"group_size\":32,\"bits\":4,\"mode\":\"mxfp4\"}", NULL);
        tiny_refused(t.dir, "mxfp4", "mlx mxfp4");
        tiny_remove(&t);
    }
}

static void test_torchao(void **state)
{
    (void)state;
    static struct matrix m;
    static int8_t qdata[N * K / 2];
    static float scales[G * N], zeros[G * N];
    static const char *const meta[] = { "tensor_names", "[]", Q_PROJ ".weight", "{\"_type\": \"Int4Tensor\"}", NULL };
    struct tiny t;
    matrix_fill(&m, 4, false);
    for (int n = 0; n < N; n++) {
        for (int k = 0; k < K; k += 2)
            qdata[n * (K / 2) + k / 2] = (int8_t)(((m.code[n][k] - 8) & 15) | ((m.code[n][k + 1] - 8) & 15) << 4);
        for (int g = 0; g < G; g++) {
            scales[g * N + n] = m.scale[n][g];
            zeros[g * N + n] = m.scale[n][g] * (float)(8 - m.zero[n][g]);
        }
    }
    tiny_start(&t, Q_PROJ ".weight");
    tiny_add(&t, Q_PROJ "._weight_qdata", "I8", N, K / 2, qdata, sizeof qdata);
    tiny_add(&t, Q_PROJ "._weight_scale", "F32", G, N, scales, sizeof scales);
    tiny_add(&t, Q_PROJ "._weight_zero_point", "F32", G, N, zeros, sizeof zeros);
    tiny_write(&t, ",\"quantization_config\":{\"quant_method\":\"torchao\"}", meta);
    check_values(&t, &m, FORMAT_I4M, "torchao");
    tiny_remove(&t);
}

/* Codes of the flat matrix, high nibble first; absmax plain or itself quantized. */
static void test_bitsandbytes(void **state)
{
    (void)state;
    enum { BLOCKS = N * K / 64 };
    for (int nested = 0; nested < 2; nested++) {
        static uint8_t packed[N * K / 2], small[BLOCKS];
        static float absmax[BLOCKS], map[256], nested_absmax[1] = { 3.5f };
        char json[256];
        struct error err;
        struct model m;
        const struct tensor *q;
        struct tiny t;
        for (int i = 0; i < N * K / 2; i++)
            packed[i] = (uint8_t)random_at(5, (uint64_t)i);
        for (int i = 0; i < 256; i++)
            map[i] = (float)(i - 128) / 128;
        for (int i = 0; i < BLOCKS; i++) {
            small[i] = (uint8_t)random_at(6, (uint64_t)i);
            absmax[i] = nested ? map[small[i]] * nested_absmax[0] + 0.25f : 0.125f * (float)(i + 1);
        }
        snprintf(json, sizeof json, "{\"quant_type\":\"nf4\",\"blocksize\":64,\"dtype\":\"bfloat16\",\"shape\":[64,64]%s}",
                 nested ? ",\"nested_blocksize\":256,\"nested_dtype\":\"float32\",\"nested_offset\":0.25" : "");
        tiny_start(&t, Q_PROJ ".weight");
        tiny_add(&t, Q_PROJ ".weight", "U8", N * K / 2, 1, packed, sizeof packed);
        tiny_add(&t, Q_PROJ ".weight.absmax", nested ? "U8" : "F32", BLOCKS, 0, nested ? (void *)small : (void *)absmax, nested ? sizeof small : sizeof absmax);
        tiny_add(&t, Q_PROJ ".weight.quant_map", "F32", 16, 0, nf4_values, 64);
        tiny_add(&t, Q_PROJ ".weight.quant_state.bitsandbytes__nf4", "U8", (int64_t)strlen(json), 0, json, strlen(json));
        if (nested) {
            tiny_add(&t, Q_PROJ ".weight.nested_absmax", "F32", 1, 0, nested_absmax, 4);
            tiny_add(&t, Q_PROJ ".weight.nested_quant_map", "F32", 256, 0, map, sizeof map);
        }
        tiny_write(&t, ",\"quantization_config\":{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true}", NULL);
        MUST(model_open(&m, t.dir, false, &err));
        MUST(model_tensor(&m, "blk.0.attn_q.weight", N, K, 1, &q, &err));
        for (int i = 0; i < N * K; i++) {
            float row[K], want = nf4_values[packed[i / 2] >> (i % 2 ? 0 : 4) & 15] * absmax[i / 64];
            tensor_row(q, 0, i / K, row);
            CHECK(row[i % K] == want, "nested %d, element %d: got %g, want %g", nested, i, (double)row[i % K], (double)want);
        }
        model_close(&m);
        tiny_remove(&t);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct { const char *config, *words; } cases[] = {
        { ",\"quantization_config\":{\"quant_method\":\"exl2\"}", "exl2" },
        { ",\"quantization_config\":{\"quant_method\":\"aqlm\"}", "aqlm" },
        { ",\"quantization_config\":{\"quant_method\":\"hqq\"}", "hqq" },
        { ",\"quantization_config\":{\"quant_method\":\"marlin\"}", "marlin" },
        { ",\"quantization_config\":{\"quant_method\":\"fp8\"}", "fp8" },
        { ",\"quantization_config\":{\"quant_method\":\"something-new\"}", "something-new" },
        { ",\"quantization_config\":{\"quant_method\":\"gptq\",\"checkpoint_format\":\"gptq_p\"}", "gptq_p" },
        { ",\"quantization_config\":{\"quant_method\":\"bitsandbytes\",\"load_in_8bit\":true}", "load_in_8bit" },
        { ",\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"config_groups\":{\"g\":{\"format\":\"float-quantized\"}}}", "float-quantized" },
        { ",\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\",\"config_groups\":{\"g\":{\"input_activations\":"
          "{\"num_bits\":8}}}}", "activations" },
        { ",\"quantization_config\":{\"quant_method\":\"auto-round\",\"packing_format\":\"auto_round\"}", "packing_format" },
    };
    struct tiny t;
    tiny_start(&t, "");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        tiny_write(&t, cases[i].config, NULL);
        tiny_refused(t.dir, cases[i].words, cases[i].config);
    }
    tiny_remove(&t);
}

/* Wrong shapes, missing parts, bad group numbers and NaN scales end in a message that names the matrix. */
static void test_broken_parts(void **state)
{
    (void)state;
    static const char config[] = ",\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32}";
    for (int fault = 0; fault < 5; fault++) {
        static const char *const words[] = { "scales", "qzeros", "qweight", "g_idx", "not a finite number" };
        static struct matrix m;
        struct tiny t;
        matrix_fill(&m, 4, false);
        tiny_start(&t, Q_PROJ ".weight");
        add_gptq(&t, &m, true, true);
        int weight = t.n - 5;
        if (fault < 2)
            t.e[weight + 2 - fault].name = fault ? "model.x" : "model.y";
        if (fault == 2)
            t.e[weight].dtype = "F32";
        if (fault == 3)
            ((int32_t *)t.data[weight + 3])[7] = 99;
        if (fault == 4)
            ((uint16_t *)t.data[weight + 2])[70] = 0x7e00;
        tiny_write(&t, config, NULL);
        tiny_refused(t.dir, words[fault], words[fault]);
        tiny_remove(&t);
    }
}

static void test_mlx_folders(void **state)
{
    (void)state;
    static const struct { const char *name; int layers; bool quantized; const char *refusal; } cases[] = {
        { "tiny_gemma3", 2, false, NULL }, { "tiny_gemma4", 4, false, NULL }, { "tiny_llama3", 2, false, NULL }, { "tiny_llama3_tied", 2, true, NULL },
        { "tiny_mistral", 2, false, NULL }, { "tiny_mistral_tied", 2, true, NULL }, { "tiny_qwen3", 2, false, NULL }, { "tiny_qwen3_5", 0, false, "qwen3_5" },
        { "tiny_qwen3_5_tied", 0, false, "qwen3_5" }, { "tiny_qwen3_sharded", 2, true, NULL }, { "tiny_qwen3_tied", 2, true, NULL },
    };
    NEED_SHARED(here, "models/mlx_tiny_random/tiny_gemma3/config.json");
    (void)here;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char name[128];
        struct error err;
        struct model m;
        snprintf(name, sizeof name, "models/mlx_tiny_random/%s", cases[i].name);
        const char *path = shared_data(name);
        if (cases[i].refusal) {
            tiny_refused(path, cases[i].refusal, cases[i].name);
            continue;
        }
        MUST(model_open(&m, path, false, &err));
        CHECK(m.config.n_layers == cases[i].layers && model_is_quantized(&m) == cases[i].quantized, "%s: %d layers", cases[i].name, m.config.n_layers);
        model_close(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gptq),       cmocka_unit_test(test_awq),         cmocka_unit_test(test_compressed_tensors),
        cmocka_unit_test(test_mlx),        cmocka_unit_test(test_torchao),     cmocka_unit_test(test_bitsandbytes),
        cmocka_unit_test(test_refusals),   cmocka_unit_test(test_broken_parts), cmocka_unit_test(test_mlx_folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
