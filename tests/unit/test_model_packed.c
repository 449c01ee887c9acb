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

/* Code number nth of a stream of words that stand stride words apart, lowest bit first. */
static void put_code(uint32_t *words, int stride, int bits, int nth, int v)
{
    int at = bits * nth, shift = at % 32;
    uint32_t *word = words + at / 32 * stride, field = (uint32_t)v & ((1u << bits) - 1);
    *word |= field << shift;
    if (shift + bits > 32)
        word[stride] |= field >> (32 - shift);
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

/* Does inspect's recipe say that activations are to be rounded? */
static void check_note(const struct tiny *t, bool want)
{
    struct error err;
    struct model m;
    MUST(model_open(&m, t->dir, false, &err));
    CHECK((strstr(m.recipe, "activations not rounded") != NULL) == want, "recipe \"%s\"", m.recipe);
    model_close(&m);
}

static void add_gptq(struct tiny *t, const struct matrix *m, bool v1, bool with_g_idx)
{
    static uint32_t weight[K * N], zeros[G * N];
    int down = K * m->bits / 32, across = N * m->bits / 32;
    uint16_t scales[G * N];
    int32_t g_idx[K];
    memset(weight, 0, sizeof weight);
    memset(zeros, 0, sizeof zeros);
    for (int n = 0; n < N; n++) {
        for (int k = 0; k < K; k++)
            put_code(&weight[n], N, m->bits, k, m->code[n][k]);
        for (int g = 0; g < G; g++)
            put_code(&zeros[g * across], 1, m->bits, n, m->zero[n][g] - v1);
    }
    for (int k = 0; k < K; k++)
        g_idx[k] = m->g_idx[k];
    scales_f16(m, false, false, scales);
    tiny_add(t, Q_PROJ ".qweight", "I32", down, N, weight, (size_t)(down * N) * 4);
    tiny_add(t, Q_PROJ ".qzeros", "I32", G, across, zeros, (size_t)(G * across) * 4);
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
        { 3, true, false, ",\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":3,\"group_size\":32}" },
        { 3, true, true, ",\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":3,\"group_size\":32,\"desc_act\":true}" },
        { 4, true, false, ",\"quantization_config\":{\"quant_method\":\"auto-round\",\"packing_format\":\"auto_round:auto_gptq\",\"bits\":4}" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct tiny t;
        static struct matrix m;
        matrix_fill(&m, cases[i].bits, cases[i].shuffled);
        tiny_start(&t, Q_PROJ ".weight");
        add_gptq(&t, &m, cases[i].v1, i != 1);
        tiny_write(&t, cases[i].config, NULL);
        check_values(&t, &m, cases[i].bits == 8 ? FORMAT_I8M : FORMAT_I4Z, cases[i].config);
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
                put_code(&weight[k * (N / 8) + w], 1, 4, i, m.code[8 * w + order[i]][k]);
            for (int g = 0; g < G; g++)
                put_code(&zeros[g * (N / 8) + w], 1, 4, i, m.zero[8 * w + order[i]][g]);
        }
    scales_f16(&m, false, false, scales);
    tiny_start(&t, Q_PROJ ".weight");
    tiny_add(&t, Q_PROJ ".qweight", "I32", K, N / 8, weight, sizeof weight);
    tiny_add(&t, Q_PROJ ".qzeros", "I32", G, N / 8, zeros, sizeof zeros);
    tiny_add(&t, Q_PROJ ".scales", "F16", G, N, scales, sizeof scales);
    tiny_write(&t, ",\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":32,\"version\":\"gemm\"}", NULL);
    check_values(&t, &m, FORMAT_I4Z, "awq");
    tiny_write(&t, ",\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":32,\"version\":\"gemv\"}", NULL);
    tiny_refused(t.dir, "gemv", "awq gemv");
    tiny_remove(&t);
}

static void compressed_case(int bits, bool symmetric, bool shuffled)
{
    static struct matrix m;
    static uint32_t weight[N * K / 4], zeros[N / 4 * G];
    uint16_t scales[N * G];
    int64_t shape[2] = { N, K };
    int across = K * bits / 32, down = N * bits / 32;
    struct tiny t;
    char what[64];
    memset(weight, 0, sizeof weight);
    memset(zeros, 0, sizeof zeros);
    matrix_fill(&m, bits, shuffled);
    for (int n = 0; n < N; n++) {
        for (int k = 0; k < K; k++)
            put_code(&weight[n * across], 1, bits, k, m.code[n][k]);
        for (int g = 0; g < G; g++) {
            m.zero[n][g] = symmetric ? 1 << (bits - 1) : m.zero[n][g];
            put_code(&zeros[g], G, bits, n, m.zero[n][g]);
        }
    }
    scales_f16(&m, true, true, scales);
    tiny_start(&t, Q_PROJ ".weight");
    tiny_add(&t, Q_PROJ ".weight_packed", "I32", N, across, weight, (size_t)(N * across) * 4);
    tiny_add(&t, Q_PROJ ".weight_scale", "BF16", N, G, scales, sizeof scales);
    tiny_add(&t, Q_PROJ ".weight_shape", "I64", 2, 0, shape, sizeof shape);
    if (!symmetric)
        tiny_add(&t, Q_PROJ ".weight_zero_point", "I32", down, G, zeros, (size_t)(down * G) * 4);
    if (shuffled)
        tiny_add(&t, Q_PROJ ".weight_g_idx", "I32", K, 0, m.g_idx, sizeof m.g_idx);
    tiny_write(&t, ",\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\",\"config_groups\":"
                   "{\"group_0\":{\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":4,\"type\":\"int\"}}}}", NULL);
    snprintf(what, sizeof what, "%d bits, symmetric %d, g_idx %d", bits, symmetric, shuffled);
    check_values(&t, &m, bits > 4 ? FORMAT_I8M : FORMAT_I4Z, what);
    tiny_remove(&t);
}

static void test_compressed_tensors(void **state)
{
    (void)state;
    for (int bits = 2; bits <= 8; bits++)
        for (int symmetric = 0; symmetric < 2; symmetric++)
            compressed_case(bits, symmetric, false);
    compressed_case(4, true, true);
    compressed_case(8, false, true);
}

/* MLX: weight, scales and biases; fault 1 leaves out the biases, 2 the last column of scales. */
static void add_mlx(struct tiny *t, const struct matrix *m, int fault)
{
    static uint32_t weight[N * K / 4];
    static float scales[N * G], biases[N * G];
    int across = K * m->bits / 32;
    memset(weight, 0, sizeof weight);
    for (int n = 0; n < N; n++) {
        for (int k = 0; k < K; k++)
            put_code(&weight[n * across], 1, m->bits, k, m->code[n][k]);
        for (int g = 0; g < G; g++) {
            scales[n * G + g] = m->scale[n][g];
            biases[n * G + g] = -m->scale[n][g] * (float)m->zero[n][g];
        }
    }
    tiny_start(t, Q_PROJ ".weight");
    tiny_add(t, Q_PROJ ".weight", "U32", N, across, weight, (size_t)(N * across) * 4);
    tiny_add(t, Q_PROJ ".scales", "F32", N, fault == 2 ? G - 1 : G, scales, (size_t)(N * (fault == 2 ? G - 1 : G)) * 4);
    if (fault != 1)
        tiny_add(t, Q_PROJ ".biases", "F32", N, G, biases, sizeof biases);
}

static void test_mlx(void **state)
{
    (void)state;
    static struct matrix m;
    struct tiny t;
    for (int bits = 2; bits <= 8; bits++) {
        matrix_fill(&m, bits, false);
        add_mlx(&t, &m, 0);
        tiny_write(&t, ",\"quantization\":{\"group_size\":32,\"bits\":4}", NULL);
        if (bits == 7)
            tiny_refused(t.dir, "7 bits each", "mlx with 7 bits");
        else
            check_values(&t, &m, bits > 4 ? FORMAT_I8M : FORMAT_I4Z, "mlx");
        tiny_write(&t, ",\"quantization\":{\"group_size\":32,\"bits\":8,\"mode\":\"mxfp6\"}", NULL);
        tiny_refused(t.dir, "mxfp6", "mlx mxfp6");
        tiny_remove(&t);
    }
    static const char *const words[] = { "", "biases", "biases" };
    for (int fault = 1; fault < 3; fault++) {
        matrix_fill(&m, 3, false);
        add_mlx(&t, &m, fault);
        tiny_write(&t, ",\"quantization\":{\"group_size\":32,\"bits\":3}", NULL);
        tiny_refused(t.dir, words[fault], "a broken MLX matrix");
        tiny_remove(&t);
    }
}

/* MLX's 4-bit floats: a byte of scale for 32 (E8M0) or 16 (E4M3) elements; the values are those of ggml's blocks. */
static void test_mlx_fp4(void **state)
{
    (void)state;
    static const float e2m1[16] = { 0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6 };
    for (int sub = 16; sub <= 32; sub += 16) {
        static uint32_t weight[N * K / 8];
        static uint8_t scales[N * K / 16], nibble[N * K];
        const char *mode = sub == 16 ? "nvfp4" : "mxfp4";
        enum format_id format = sub == 16 ? FORMAT_NVFP4 : FORMAT_MXFP4;
        char config[96];
        struct error err;
        struct model m;
        const struct tensor *q;
        struct tiny t;
        memset(weight, 0, sizeof weight);
        for (int i = 0; i < N * K; i++) {
            nibble[i] = (uint8_t)(random_at(7, (uint64_t)i) & 15);
            put_code(weight, 1, 4, i, nibble[i]);
            scales[i / sub] = (uint8_t)(sub == 16 ? random_at(8, (uint64_t)(i / sub)) % 0x7f : 100 + random_at(8, (uint64_t)(i / sub)) % 40);
        }
        tiny_start(&t, Q_PROJ ".weight");
        tiny_add(&t, Q_PROJ ".weight", "U32", N, K / 8, weight, sizeof weight);
        tiny_add(&t, Q_PROJ ".scales", "U8", N, K / sub, scales, (size_t)(N * K / sub));
        snprintf(config, sizeof config, ",\"quantization\":{\"group_size\":%d,\"bits\":4,\"mode\":\"%s\"}", sub, mode);
        tiny_write(&t, config, NULL);
        MUST(model_open(&m, t.dir, false, &err));
        MUST(model_tensor(&m, "blk.0.attn_q.weight", N, K, 1, &q, &err));
        CHECK(q->format == format && str_starts(m.recipe, "mlx"), "%s: format %s, recipe %s", mode, formats[q->format].name, m.recipe);
        for (int i = 0; i < N * K; i++) {
            float row[K];
            int s = scales[i / sub], mantissa = s & 7, exponent = s >> 3;
            double scale = sub == 32 ? ldexp(1, s - 127) : exponent ? ldexp(8 + mantissa, exponent - 10) : ldexp(mantissa, -9);
            tensor_row(q, 0, i / K, row);
            CHECK((double)row[i % K] == (double)e2m1[nibble[i]] * scale, "%s, element %d: got %g, want %g x %g", mode, i, (double)row[i % K],
                  (double)e2m1[nibble[i]], scale);
        }
        model_close(&m);
        ((uint8_t *)t.data[t.n - 1])[5] = sub == 16 ? 0x7f : 0xff;
        tiny_write(&t, config, NULL);
        tiny_refused(t.dir, "not a finite positive number", mode);
        t.e[t.n - 1].dims[0] = N / 2;
        t.e[t.n - 1].dims[1] = 2 * K / sub;
        tiny_write(&t, config, NULL);
        tiny_refused(t.dir, "scales", mode);
        tiny_remove(&t);
    }
}

/* Two weights a byte, as compressed-tensors and modelopt have them; global 0: no scale for the matrix. */
struct fp4_case {
    const char *weight, *scale_type, *global_name, *config;
    float global;
    bool divide;
    enum format_id format;
};

static void add_fp4(struct tiny *t, const struct fp4_case *c, uint8_t *nibble, uint8_t *scales)
{
    static uint32_t words[N * K / 8];
    bool e4m3 = strcmp(c->scale_type, "U8") != 0;
    int sub = e4m3 ? 16 : 32;
    memset(words, 0, sizeof words);
    for (int i = 0; i < N * K; i++) {
        nibble[i] = (uint8_t)(random_at(7, (uint64_t)i) & 15);
        put_code(words, 1, 4, i, nibble[i]);
        scales[i / sub] = (uint8_t)(e4m3 ? random_at(8, (uint64_t)(i / sub)) % 0x7f : 100 + random_at(8, (uint64_t)(i / sub)) % 40);
    }
    tiny_start(t, Q_PROJ ".weight");
    tiny_add(t, c->weight, "U8", N, K / 2, words, sizeof words);
    tiny_add(t, Q_PROJ ".weight_scale", c->scale_type, N, K / sub, scales, (size_t)(N * K / sub));
    if (c->global != 0)
        tiny_add(t, c->global_name, "F32", 1, 0, &c->global, 4);
    tiny_add(t, Q_PROJ ".input_scale", "F32", 1, 0, (float[]){ 2 }, 4);
    tiny_write(t, c->config, NULL);
}

#define COMPRESSED_FP4(FORMAT) ",\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"" FORMAT "\",\"config_groups\":" \
    "{\"g\":{\"weights\":{\"num_bits\":4,\"type\":\"float\"}}}}"
#define MODELOPT(ALGORITHM) ",\"quantization_config\":{\"quant_method\":\"modelopt\",\"quant_algo\":\"" ALGORITHM "\"}"
static const struct fp4_case fp4_cases[] = {
    { Q_PROJ ".weight_packed", "F8_E4M3", Q_PROJ ".weight_global_scale", COMPRESSED_FP4("nvfp4-pack-quantized"), 96, true, FORMAT_F4 },
    { Q_PROJ ".weight_packed", "U8", "", COMPRESSED_FP4("mxfp4-pack-quantized"), 0, false, FORMAT_MXFP4 },
    { Q_PROJ ".weight", "F8_E4M3", Q_PROJ ".weight_scale_2", MODELOPT("NVFP4"), 0.0078f, false, FORMAT_F4 },
    { Q_PROJ ".weight", "F8_E4M3", "", MODELOPT("NVFP4"), 0, false, FORMAT_NVFP4 },
};

static void test_fp4(void **state)
{
    (void)state;
    for (size_t c = 0; c < ARRAY_LEN(fp4_cases); c++) {
        static uint8_t nibble[N * K], scales[N * K / 16];
        const struct fp4_case *fc = &fp4_cases[c];
        struct error err;
        struct tiny t;
        struct model m;
        const struct tensor *q;
        float row[K];
        add_fp4(&t, fc, nibble, scales);
        MUST(model_open(&m, t.dir, false, &err));
        MUST(model_tensor(&m, "blk.0.attn_q.weight", N, K, 1, &q, &err));
        CHECK(q->format == fc->format, "%s: format %s", fc->config, formats[q->format].name);
        for (int i = 0; i < N * K; i++) {
            static const float e2m1[16] = { 0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6 };
            float scale = fc->format == FORMAT_MXFP4 ? ldexpf(1, scales[i / 32] - 127) : e4m3_to_f32(scales[i / 16]);
            scale = fc->global == 0 ? scale : fc->divide ? scale / fc->global : scale * fc->global;
            tensor_row(q, 0, i / K, row);
            CHECK(row[i % K] == e2m1[nibble[i]] * scale, "%s, element %d: got %g, want %g x %g", fc->config, i, (double)row[i % K],
                  (double)e2m1[nibble[i]], (double)scale);
        }
        model_close(&m);
        tiny_remove(&t);
    }
}

static void test_broken_fp4(void **state)
{
    (void)state;
    static const char *const words[] = { "not a finite positive number", "not a finite positive number", "weight_scale", "expected U8 or F8_E4M3", "weight_packed" };
    for (int fault = 0; fault < 5; fault++) {
        static uint8_t nibble[N * K], scales[N * K / 16];
        struct tiny t;
        add_fp4(&t, &fp4_cases[0], nibble, scales);
        if (fault == 0)
            ((uint8_t *)t.data[t.n - 3])[9] = 0x7f;
        if (fault == 1)
            *(float *)t.data[t.n - 2] = 0;
        if (fault == 2)
            t.e[t.n - 3].dims[0] /= 2, t.e[t.n - 3].dims[1] *= 2;
        if (fault == 3)
            t.e[t.n - 3].dtype = "I8";
        if (fault == 4)
            t.e[t.n - 4].dims[0] /= 2, t.e[t.n - 4].dims[1] *= 2;
        tiny_write(&t, fp4_cases[0].config, NULL);
        tiny_refused(t.dir, words[fault], words[fault]);
        tiny_remove(&t);
    }
}

/* modelopt's config in a file of its own. */
static void test_modelopt_file(void **state)
{
    (void)state;
    static uint8_t nibble[N * K], scales[N * K / 16];
    struct fp4_case c = fp4_cases[2];
    struct tiny t;
    c.config = "";
    add_fp4(&t, &c, nibble, scales);
    tiny_put(&t, "hf_quant_config.json", "{\"producer\":{\"name\":\"modelopt\"},\"quantization\":{\"quant_algo\":\"NVFP4\"}}");
    check_note(&t, true);
    tiny_put(&t, "hf_quant_config.json", "{\"producer\":{\"name\":\"modelopt\"},\"quantization\":{\"quant_algo\":\"INT4_AWQ\"}}");
    tiny_refused(t.dir, "INT4_AWQ", "another algorithm of modelopt");
    tiny_remove(&t);
}

static void add_int4(struct tiny *t, const struct matrix *m)
{
    static int8_t qdata[N * K / 2];
    static float scales[G * N], zeros[G * N];
    for (int n = 0; n < N; n++) {
        for (int k = 0; k < K; k += 2)
            qdata[n * (K / 2) + k / 2] = (int8_t)(((m->code[n][k] - 8) & 15) | ((m->code[n][k + 1] - 8) & 15) << 4);
        for (int g = 0; g < G; g++) {
            scales[g * N + n] = m->scale[n][g];
            zeros[g * N + n] = m->scale[n][g] * (float)(8 - m->zero[n][g]);
        }
    }
    tiny_start(t, Q_PROJ ".weight");
    tiny_add(t, Q_PROJ "._weight_qdata", "I8", N, K / 2, qdata, sizeof qdata);
    tiny_add(t, Q_PROJ "._weight_scale", "F32", G, N, scales, sizeof scales);
    tiny_add(t, Q_PROJ "._weight_zero_point", "F32", G, N, zeros, sizeof zeros);
}

/* Int8Tensor and IntxUnpackedToInt8Tensor: codes as signed bytes, zero points in I8 or absent. */
static void add_int8(struct tiny *t, struct matrix *m, bool zeros)
{
    static int8_t qdata[N * K], zero[N * G];
    static float scales[N * G];
    for (int n = 0; n < N; n++) {
        for (int k = 0; k < K; k++)
            qdata[n * K + k] = (int8_t)(m->code[n][k] - 128);
        for (int g = 0; g < G; g++) {
            m->zero[n][g] = zeros ? m->zero[n][g] : 128;
            zero[n * G + g] = (int8_t)(m->zero[n][g] - 128);
            scales[n * G + g] = m->scale[n][g];
        }
    }
    tiny_start(t, Q_PROJ ".weight");
    tiny_add(t, Q_PROJ "._weight_qdata", "I8", N, K, qdata, sizeof qdata);
    tiny_add(t, Q_PROJ "._weight_scale", "F32", N, G, scales, sizeof scales);
    if (zeros)
        tiny_add(t, Q_PROJ "._weight_zero_point", "I8", N, G, zero, sizeof zero);
}

#define TORCHAO(CLASS) { "tensor_names", "[]", Q_PROJ ".weight", CLASS, NULL }
static const char torchao_config[] = ",\"quantization_config\":{\"quant_method\":\"torchao\"}";

static void test_torchao(void **state)
{
    (void)state;
    static const char *const int4[] = TORCHAO("{\"_type\": \"Int4Tensor\"}");
    static const char *const intx[] = TORCHAO("{\"_type\": \"IntxUnpackedToInt8Tensor\", \"_data\": {\"activation_quantization\": null}}");
    static const char *const int8[] = TORCHAO("{\"_type\": \"Int8Tensor\", \"_data\": {\"act_quant_kwargs\": null}}");
    static struct matrix m;
    struct tiny t;
    matrix_fill(&m, 4, false);
    add_int4(&t, &m);
    tiny_write(&t, torchao_config, int4);
    check_values(&t, &m, FORMAT_I4H, "torchao Int4Tensor");
    tiny_remove(&t);
    /* activations that it would round do not change the weights */
    static const char *const rounded[] = TORCHAO("{\"_type\": \"Int8Tensor\", \"_data\": {\"act_quant_kwargs\": {\"granularity\": 1}}}");
    matrix_fill(&m, 8, false);
    add_int8(&t, &m, false);
    tiny_write(&t, torchao_config, rounded);
    check_values(&t, &m, FORMAT_I8M, "torchao with rounded activations");
    check_note(&t, true);
    tiny_remove(&t);
    for (int zeros = 0; zeros < 2; zeros++) {
        matrix_fill(&m, 8, false);
        add_int8(&t, &m, zeros);
        tiny_write(&t, torchao_config, zeros ? intx : int8);
        check_values(&t, &m, FORMAT_I8M, "torchao, a byte a weight");
        tiny_remove(&t);
    }
}

static void test_torchao_refusals(void **state)
{
    (void)state;
    static const struct { const char *words, *meta[5]; } cases[] = {
        { "Int4TilePackedTo4dTensor", TORCHAO("{\"_type\": \"Int4TilePackedTo4dTensor\"}") },
        { "(not named)", { "tensor_names", "[]", NULL } },
        { "scaled activations", TORCHAO("{\"_type\": \"Int4Tensor\"}") },
        { "_weight_zero_point", TORCHAO("{\"_type\": \"Int4Tensor\"}") },
        { "_weight_scale", TORCHAO("{\"_type\": \"Int4Tensor\"}") },
        { "_weight_qdata", TORCHAO("{\"_type\": \"Int8Tensor\", \"_data\": {}}") },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        static struct matrix m;
        struct tiny t;
        matrix_fill(&m, 4, false);
        add_int4(&t, &m);
        if (i == 2)
            tiny_add(&t, Q_PROJ "._weight_act_pre_scale", "F32", K, 0, (float[K]){ 0 }, K * 4);
        if (i == 3 || i == 4)
            t.e[t.n - 1 - (i == 4)].name = "model.x";
        tiny_write(&t, torchao_config, cases[i].meta);
        tiny_refused(t.dir, cases[i].words, cases[i].words);
        tiny_remove(&t);
    }
}

/* A byte a weight with scales [d0 x d1] (d1 0: one dimension; both 0: a number) that rows_each x cols_each elements share. */
struct bytes_case {
    const char *dtype, *scale, *config;
    int d0, d1, rows_each, cols_each;
};

static void add_bytes(struct tiny *t, const struct bytes_case *c, uint8_t *codes, float *scales)
{
    int n = (c->d0 ? c->d0 : 1) * (c->d1 ? c->d1 : 1);
    for (int i = 0; i < N * K; i++) {
        codes[i] = (uint8_t)random_at(9, (uint64_t)i);
        codes[i] = (codes[i] & 0x7f) == 0x7f ? 0x7e : codes[i];
    }
    for (int i = 0; i < n; i++)
        scales[i] = (float)(i + 1) / 64;
    tiny_start(t, Q_PROJ ".weight");
    tiny_add(t, Q_PROJ ".weight", c->dtype, N, K, codes, N * K);
    tiny_add(t, c->scale, "F32", c->d0, c->d1, scales, (size_t)n * 4);
    t->e[t->n - 1].n_dims = c->d0 ? t->e[t->n - 1].n_dims : 0;
    tiny_write(t, c->config, NULL);
}

static void check_bytes(const struct bytes_case *c)
{
    static uint8_t codes[N * K];
    float scales[N * G], row[K];
    bool f8 = strcmp(c->dtype, "I8") != 0;
    struct error err;
    struct tiny t;
    struct model m;
    const struct tensor *q;
    add_bytes(&t, c, codes, scales);
    MUST(model_open(&m, t.dir, false, &err));
    MUST(model_tensor(&m, "blk.0.attn_q.weight", N, K, 1, &q, &err));
    CHECK(q->format == (f8 ? FORMAT_F8 : FORMAT_I8M), "%s: format %s", c->config, formats[q->format].name);
    for (int i = 0; i < N * K; i++) {
        struct block_f8 one = { .d = scales[i / K / c->rows_each * (c->d1 ? c->d1 : 1) + i % K / c->cols_each] };
        float want[32];
        one.qs[0] = codes[i];
        formats[FORMAT_F8].to_f32(&one, want, 32);
        if (!f8)
            want[0] = one.d * (float)(int8_t)codes[i];
        tensor_row(q, 0, i / K, row);
        CHECK(row[i % K] == want[0], "%s [%d x %d], element %d: got %g, want %g", c->config, c->d0, c->d1, i, (double)row[i % K], (double)want[0]);
    }
    model_close(&m);
    tiny_remove(&t);
}

#define FP8(MORE) ",\"quantization_config\":{\"quant_method\":\"fp8\"" MORE "}"
#define COMPRESSED(FORMAT, TYPE) ",\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"" FORMAT "\",\"config_groups\":" \
    "{\"g\":{\"weights\":{\"num_bits\":8,\"type\":\"" TYPE "\"},\"input_activations\":{\"num_bits\":8,\"dynamic\":true}}}}"
static const struct bytes_case bytes_cases[] = {
    { "F8_E4M3", Q_PROJ ".weight_scale_inv", FP8(",\"weight_block_size\":[32,32]"), N / 32, K / 32, 32, 32 },
    { "F8_E4M3", Q_PROJ ".weight_scale_inv", FP8(",\"weight_block_size\":[48,32]"), 2, K / 32, 48, 32 },
    { "F8_E4M3", Q_PROJ ".weight_scale_inv", FP8(""), 0, 0, N, K },
    { "F8_E4M3", Q_PROJ ".weight_scale", ",\"quantization_config\":{\"quant_method\":\"fbgemm_fp8\"}", N, 1, 1, K },
    { "F8_E4M3", Q_PROJ ".weight_scale", COMPRESSED("float-quantized", "float"), N, 1, 1, K },
    { "F8_E4M3", Q_PROJ ".weight_scale", COMPRESSED("float-quantized", "float"), 1, 0, N, K },
    { "F8_E4M3", Q_PROJ ".weight_scale", MODELOPT("FP8"), 0, 0, N, K },
    { "I8", Q_PROJ ".weight_scale", COMPRESSED("int-quantized", "int"), N, 1, 1, K },
    { "I8", Q_PROJ ".weight_scale", COMPRESSED("int-quantized", "int"), N, G, 1, GROUP },
};

static void test_bytes(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bytes_cases); i++)
        check_bytes(&bytes_cases[i]);
}

static void test_broken_bytes(void **state)
{
    (void)state;
    static const char *const words[] = { "is not a number", "not a finite number", "fits neither rows nor the blocks that config.json names", "weight_scale_inv", "F8_E4M3" };
    for (int fault = 0; fault < 5; fault++) {
        static uint8_t codes[N * K];
        float scales[N * G];
        struct tiny t;
        add_bytes(&t, &bytes_cases[0], codes, scales);
        if (fault == 0)
            ((uint8_t *)t.data[t.n - 2])[70] = 0xff;
        if (fault == 1)
            ((float *)t.data[t.n - 1])[3] = INFINITY;
        if (fault == 2)
            t.e[t.n - 1].dims[0] = 1, t.e[t.n - 1].dims[1] = 4;
        if (fault == 3)
            t.e[t.n - 1].dtype = "I32";
        if (fault == 4)
            t.e[t.n - 1].name = "model.x";
        tiny_write(&t, bytes_cases[0].config, NULL);
        tiny_refused(t.dir, words[fault], words[fault]);
        tiny_remove(&t);
    }
}

/* MLX mxfp8: E4M3 bytes in words, an E8M0 scale for 32. */
static void test_mlx_fp8(void **state)
{
    (void)state;
    static const char config[] = ",\"quantization\":{\"group_size\":32,\"bits\":8,\"mode\":\"mxfp8\"}";
    static uint8_t codes[N * K], scales[N * G];
    struct error err;
    struct tiny t;
    struct model m;
    const struct tensor *q;
    for (int i = 0; i < N * K; i++) {
        codes[i] = (uint8_t)(random_at(9, (uint64_t)i) & 0xbf);
        scales[i / 32] = (uint8_t)(100 + i / 32 % 60);
    }
    tiny_start(&t, Q_PROJ ".weight");
    tiny_add(&t, Q_PROJ ".weight", "U32", N, K / 4, codes, sizeof codes);
    tiny_add(&t, Q_PROJ ".scales", "U8", N, G, scales, sizeof scales);
    tiny_write(&t, config, NULL);
    MUST(model_open(&m, t.dir, false, &err));
    MUST(model_tensor(&m, "blk.0.attn_q.weight", N, K, 1, &q, &err));
    for (int i = 0; i < N * K; i++) {
        struct block_f8 one = { .d = ldexpf(1, scales[i / 32] - 127), .qs = { codes[i] } };
        float want[32], row[K];
        formats[FORMAT_F8].to_f32(&one, want, 32);
        tensor_row(q, 0, i / K, row);
        CHECK(row[i % K] == want[0], "element %d: got %g, want %g", i, (double)row[i % K], (double)want[0]);
    }
    model_close(&m);
    ((uint8_t *)t.data[t.n - 1])[5] = 0xff;
    tiny_write(&t, config, NULL);
    tiny_refused(t.dir, "not a finite number", "an E8M0 NaN");
    tiny_remove(&t);
}

/* Google's layout: bytes filled from the lowest bits, zero in the middle, a scale a row; a name of its own for embeddings. */
static void test_gemma(void **state)
{
    (void)state;
    static const char config[] = ",\"quantization_config\":{\"quant_method\":\"gemma\",\"num_bits\":4}";
    for (int bits = 2; bits <= 8; bits *= 2) {
        static struct matrix m;
        static uint32_t words[N * K / 4];
        static uint8_t table[TINY_VOCAB * 32];
        float scales[N], halves[TINY_VOCAB], activation = bits == 4 ? 0.5f : 0;
        struct tiny t;
        matrix_fill(&m, bits, false);
        memset(words, 0, sizeof words);
        for (int n = 0; n < N; n++) {
            for (int k = 0; k < K; k++)
                put_code(&words[n * K * bits / 32], 1, bits, k, bits == 8 ? m.code[n][k] ^ 128 : m.code[n][k]);
            scales[n] = m.scale[n][0];
            for (int g = 0; g < G; g++)
                m.scale[n][g] = scales[n], m.zero[n][g] = 1 << (bits - 1);
        }
        for (int i = 0; i < TINY_VOCAB; i++)
            halves[i] = 0.5f;
        memset(table, 0x88, sizeof table);
        tiny_start(&t, Q_PROJ ".weight");
        t.e[0] = (struct safetensors_entry){ "model.embed_tokens.embedding_quantized", "U8", 2, { TINY_VOCAB, 32 } };
        memcpy(t.data[0], table, t.bytes[0] = sizeof table);
        tiny_add(&t, Q_PROJ ".weight", bits == 8 ? "I8" : "U8", N, K * bits / 8, words, (size_t)(N * K * bits / 8));
        tiny_add(&t, Q_PROJ ".weight_scale", "F32", N, 1, scales, sizeof scales);
        tiny_add(&t, Q_PROJ ".input_activation_scale", "F32", 1, 0, &activation, 4);
        tiny_add(&t, Q_PROJ ".k_cache_scale", "F32", 1, 0, &activation, 4);
        tiny_add(&t, "model.embed_tokens.embedding_scale", "F32", TINY_VOCAB, 1, halves, sizeof halves);
        tiny_write(&t, config, NULL);
        check_values(&t, &m, bits == 8 ? FORMAT_I8M : FORMAT_I4Z, "gemma");
        check_note(&t, bits == 4);
        t.e[t.n - 4].dims[1] = 2;
        t.e[t.n - 4].dims[0] = N / 2;
        tiny_write(&t, config, NULL);
        tiny_refused(t.dir, "weight_scale", "scales of another shape");
        tiny_remove(&t);
    }
}

/* Codes of the flat matrix as rows of one group, laid over one another in `per` parts, the first in the highest bits. */
static void add_hqq(struct tiny *t, const struct matrix *m, int axis)
{
    enum { ALL = N * G };
    static uint8_t bytes[N * K];
    static int32_t words[N * K];
    static float scales[ALL], zeros[ALL];
    int width = m->bits > 4 ? 8 : m->bits, per = m->bits == 3 ? 10 : 8 / width, parts = (ALL + per - 1) / per;
    int32_t nbits = m->bits, group = GROUP, axis_number = axis;
    memset(words, 0, sizeof words);
    for (int i = 0; i < N * K; i++) {
        int row = i / GROUP, unit = row % parts * GROUP + i % GROUP;
        words[unit] |= m->code[i / K][i % K] << width * (per - 1 - row / parts);
        bytes[unit] = (uint8_t)words[unit];
        scales[row] = m->scale[row / G][row % G];
        zeros[row] = (float)m->zero[row / G][row % G];
    }
    tiny_start(t, Q_PROJ ".weight");
    if (m->bits == 3)
        tiny_add(t, Q_PROJ ".W_q", "I32", parts, GROUP, words, (size_t)(parts * GROUP) * 4);
    else
        tiny_add(t, Q_PROJ ".W_q", "U8", parts, GROUP, bytes, (size_t)(parts * GROUP));
    tiny_add(t, Q_PROJ ".scale", "F32", ALL, 1, scales, sizeof scales);
    tiny_add(t, Q_PROJ ".zero", "F32", ALL, 1, zeros, sizeof zeros);
    tiny_add(t, Q_PROJ ".nbits", "I32", 1, 0, &nbits, 4);
    tiny_add(t, Q_PROJ ".group_size", "I32", 1, 0, &group, 4);
    tiny_add(t, Q_PROJ ".axis", "I32", 1, 0, &axis_number, 4);
    tiny_add(t, Q_PROJ ".view_as_float", "U8", 1, 0, "", 1);
    tiny_add(t, Q_PROJ ".packing", "U8", 7, 0, "4bit_u8", 7);
}

static void test_hqq(void **state)
{
    (void)state;
    static const char config[] = ",\"quantization_config\":{\"quant_method\":\"hqq\"}";
    static const char *const words[] = { "axis 0", "codes kept as floats", "W_q", "scale", "no number group_size", "zero", "not a finite number" };
    static struct matrix m;
    struct tiny t;
    for (int bits = 1; bits <= 8; bits++) {
        matrix_fill(&m, bits, false);
        add_hqq(&t, &m, 1);
        tiny_write(&t, config, NULL);
        if (bits == 7)
            tiny_refused(t.dir, "7-bit", "hqq with 7 bits");
        else
            check_values(&t, &m, bits > 4 ? FORMAT_I8M : FORMAT_I4Z, "hqq");
        tiny_remove(&t);
    }
    for (int fault = 0; fault < 7; fault++) {
        matrix_fill(&m, 4, false);
        add_hqq(&t, &m, fault != 0);
        int first = t.n - 8;
        if (fault == 1)
            *(uint8_t *)t.data[first + 6] = 1;
        if (fault == 2)
            t.e[first].dims[0] /= 2, t.e[first].dims[1] *= 2;
        if (fault == 3 || fault == 5)
            t.e[first + (fault == 3 ? 1 : 2)].name = "model.x";
        if (fault == 4)
            t.e[first + 4].name = "model.x";
        if (fault == 6)
            ((float *)t.data[first + 1])[70] = NAN;
        tiny_write(&t, config, NULL);
        tiny_refused(t.dir, words[fault], words[fault]);
        tiny_remove(&t);
    }
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

/* Each layout that is not read is named, with the reason and what is read. */
static void test_refused_methods(void **state)
{
    (void)state;
    static const char *const methods[] = { "exl2", "exl3", "aqlm", "vptq", "quip", "higgs", "fp_quant", "spqr", "marlin", "eetq", "quanto",
                                           "mxfp8", "mxfp4", "nvfp4", "fouroversix", "quark", "sinq", "bitnet", "gguf", "something-new" };
    struct tiny t;
    tiny_start(&t, "");
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        char config[96], quoted[64];
        snprintf(config, sizeof config, ",\"quantization_config\":{\"quant_method\":\"%s\"}", methods[i]);
        snprintf(quoted, sizeof quoted, "quant_method \"%s\" is not read: ", methods[i]);
        tiny_write(&t, config, NULL);
        tiny_refused(t.dir, quoted, methods[i]);
        tiny_refused(t.dir, "checkpoints that are: gptq, awq, auto-round, intel/auto-round, bitsandbytes, compressed-tensors, torchao, mlx", methods[i]);
    }
    tiny_remove(&t);
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct { const char *config, *words; } cases[] = {
        { ",\"quantization_config\":{\"quant_method\":\"gptq\",\"checkpoint_format\":\"gptq_p\"}", "gptq_p" },
        { ",\"quantization_config\":{\"quant_method\":\"bitsandbytes\",\"load_in_8bit\":true}", "load_in_8bit" },
        { ",\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"config_groups\":{\"g\":{\"format\":\"mxfp6-pack-quantized\"}}}",
          "mxfp6-pack-quantized" },
        { ",\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"float-quantized\",\"config_groups\":{\"g\":{\"weights\":"
          "{\"type\":\"float\",\"num_bits\":6}}}}", "floats of 4 and 8 bits" },
        { ",\"quantization_config\":{\"quant_method\":\"modelopt\",\"quant_algo\":\"W4A8_AWQ\"}", "W4A8_AWQ" },
        { ",\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[0,128]}", "two numbers of rows and columns" },
        { ",\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"config_groups\":{\"g\":{\"format\":\"sparse-24-bitmask\"}}}",
          "sparse-24-bitmask" },
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

/* The numbers of one block among many decide how large all are; to the bit they stay what they were. */
static void test_smallest_blocks(void **state)
{
    (void)state;
    static const struct { float scale, min; enum format_id format; } cases[] = {
        { 0.25f, -0.75f, FORMAT_I4Z },     { 0.25f, -63.75f, FORMAT_I4Z },  { -0.25f, 0.75f, FORMAT_I4Z },     { 0.25f, -0.0f, FORMAT_I4Z },
        { 0, -0.0f, FORMAT_I4Z },          { 0.25f, 0, FORMAT_I4H },        { 0.25f, -64, FORMAT_I4H },        { 0.25f, -0.3125f, FORMAT_I4H },
        { 0.25f, 0.25f, FORMAT_I4H },      { 0, 1, FORMAT_I4H },            { 0x1p-30f, -0x1p-30f, FORMAT_I4M }, { 0.25f, 0x1.0002p-3f, FORMAT_I4M },
        { 0x1.002p0f, 0, FORMAT_I4M },     { 1e5f, 0, FORMAT_I4M },
    };
    enum { ODD = 5 * G + 1 };
    for (size_t c = 0; c < ARRAY_LEN(cases); c++) {
        uint32_t weight[N * K / 8];
        float scales[N * G], biases[N * G], row[K];
        struct error err;
        struct model m;
        struct tiny t;
        const struct tensor *q;
        for (int i = 0; i < N * G; i++) {
            scales[i] = i == ODD ? cases[c].scale : 0.25f;
            biases[i] = i == ODD ? cases[c].min : -0.75f;
        }
        for (int i = 0; i < N * K / 8; i++)
            weight[i] = (uint32_t)random_at(4, (uint64_t)i);
        tiny_start(&t, Q_PROJ ".weight");
        tiny_add(&t, Q_PROJ ".weight", "U32", N, K / 8, weight, sizeof weight);
        tiny_add(&t, Q_PROJ ".scales", "F32", N, G, scales, sizeof scales);
        tiny_add(&t, Q_PROJ ".biases", "F32", N, G, biases, sizeof biases);
        tiny_write(&t, ",\"quantization\":{\"group_size\":32,\"bits\":4}", NULL);
        MUST(model_open(&m, t.dir, false, &err));
        MUST(model_tensor(&m, "blk.0.attn_q.weight", N, K, 1, &q, &err));
        CHECK(q->format == cases[c].format, "%g, %g: %s", (double)cases[c].scale, (double)cases[c].min, formats[q->format].name);
        for (int i = 0; i < N * K; i++) {
            float want = scales[i / 32] * (float)(weight[i / 8] >> 4 * (i % 8) & 15) + biases[i / 32];
            tensor_row(q, 0, i / K, row);
            CHECK(memcmp(&row[i % K], &want, sizeof want) == 0, "%g, %g [%d]: %g, not %g", (double)cases[c].scale, (double)cases[c].min, i,
                  (double)row[i % K], (double)want);
        }
        model_close(&m);
        tiny_remove(&t);
    }
}

static void add_expert(struct tiny *t, int e, const char *part, const uint32_t *weight, float bias)
{
    static char names[18][96];
    static const char *const suffixes[] = { "weight", "scales", "biases" };
    float numbers[2][N * G];
    char (*name)[96] = names + 9 * e + 3 * (*part == 'u') + 6 * (*part == 'd');
    for (int i = 0; i < N * G; i++) {
        numbers[0][i] = 0.25f;
        numbers[1][i] = i == N ? bias : -0.75f;
    }
    for (int s = 0; s < 3; s++) {
        snprintf(name[s], sizeof name[s], "model.layers.0.mlp.experts.%d.%s_proj.%s", e, part, suffixes[s]);
        tiny_add(t, name[s], s ? "F32" : "U32", N, s ? G : K / 8, s ? (const void *)numbers[s - 1] : weight, s ? sizeof numbers[0] : N * K / 2);
    }
}

/* Experts of one stack whose numbers would fit blocks of different sizes take those that hold all. */
static void test_experts_agree(void **state)
{
    (void)state;
    static const struct { float bias[2]; enum format_id format; } cases[] = {
        { { -0.75f, -0.75f }, FORMAT_I4Z }, { { -0.75f, 0x1.0002p-3f }, FORMAT_I4M }, { { -0.3125f, -0.75f }, FORMAT_I4M },
    };
    for (size_t c = 0; c < ARRAY_LEN(cases); c++) {
        struct tiny t;
        struct error err;
        struct model m;
        const struct tensor *up;
        uint32_t weight[N * K / 8];
        float row[K];
        for (int i = 0; i < N * K / 8; i++)
            weight[i] = (uint32_t)random_at(4, (uint64_t)i);
        tiny_start(&t, "model.layers.0.mlp.gate_proj.weight");
        t.n -= 2;       /* up_proj, down_proj */
        free(t.data[t.n]);
        free(t.data[t.n + 1]);
        tiny_add_f32(&t, "model.layers.0.mlp.gate.weight", 2, 64);
        tiny_add_f32(&t, "model.layers.0.self_attn.q_norm.weight", 32, 0);
        tiny_add_f32(&t, "model.layers.0.self_attn.k_norm.weight", 32, 0);
        for (int e = 0; e < 2; e++) {
            add_expert(&t, e, "gate", weight, -0.75f);
            add_expert(&t, e, "up", weight, cases[c].bias[e]);
            add_expert(&t, e, "down", weight, -0.75f);
        }
        tiny_write(&t, "", NULL);
        tiny_put(&t, "config.json", "{\"model_type\":\"qwen3_moe\",\"num_hidden_layers\":1,\"hidden_size\":64,\"num_attention_heads\":2,"
                 "\"num_key_value_heads\":1,\"head_dim\":32,\"intermediate_size\":64,\"moe_intermediate_size\":64,\"num_experts\":2,"
                 "\"num_experts_per_tok\":1,\"norm_topk_prob\":true,\"vocab_size\":40,\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5,"
                 "\"hidden_act\":\"silu\",\"tie_word_embeddings\":true,\"quantization\":{\"group_size\":32,\"bits\":4}}");
        MUST(model_open(&m, t.dir, false, &err));
        MUST(model_tensor(&m, "blk.0.ffn_up_exps.weight", 64, 64, 2, &up, &err));
        CHECK(up->format == cases[c].format, "case %zu: %s", c, formats[up->format].name);
        for (int e = 0; e < 2; e++) {
            tensor_row(up, e, N / 2, row);
            CHECK(row[0] == 0.25f * (float)(weight[N * K / 16] & 15) + cases[c].bias[e], "case %zu, expert %d: %g", c, e, (double)row[0]);
        }
        model_close(&m);
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
        cmocka_unit_test(test_mlx),        cmocka_unit_test(test_mlx_fp4),      cmocka_unit_test(test_fp4),
        cmocka_unit_test(test_broken_fp4), cmocka_unit_test(test_modelopt_file), cmocka_unit_test(test_torchao),
        cmocka_unit_test(test_torchao_refusals), cmocka_unit_test(test_bytes), cmocka_unit_test(test_broken_bytes),
        cmocka_unit_test(test_mlx_fp8),    cmocka_unit_test(test_gemma),       cmocka_unit_test(test_hqq),   cmocka_unit_test(test_bitsandbytes),
        cmocka_unit_test(test_refused_methods), cmocka_unit_test(test_refusals), cmocka_unit_test(test_broken_parts),
        cmocka_unit_test(test_smallest_blocks), cmocka_unit_test(test_experts_agree), cmocka_unit_test(test_mlx_folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
