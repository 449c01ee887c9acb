/* selftest: does this build, on this machine, compute what it should?
 *
 * --invariance MODEL..: the logits of three sequences must have the same bits for every kernel set this CPU
 * runs, thread count, batch size, chunking and prefix sharing, in every activation mode.
 * Without it: fixed vectors of the parts that need no model, and the demonstration model's files and golden
 * logits where they are at hand. */
#include "cli/cli.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int verdicts[2];         /* failed, passed */

static void verdict(bool passed, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void verdict(bool passed, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    printf("%s  ", passed ? "ok  " : "FAIL");
    vprintf(format, ap);
    printf("\n");
    va_end(ap);
    verdicts[passed]++;
}

/* ---- invariance ---- */

enum { SEQUENCES = 3, LONGEST = 129, TOTAL = 129 + 70 + 33 };
static const int lengths[SEQUENCES] = { LONGEST, 70, 33 };
enum { COMMON = 21 };           /* tokens that all sequences begin with */

struct variant {
    const char *what;
    const char *kernels;        /* NULL: the default set */
    int threads, batch, chunk;  /* chunk 0: each sequence in one span, all spans in one call */
    bool share, in_place;
};

static int token_at(const struct model *m, int seq, int i)
{
    if (i == 0 && m->config.bos >= 0)
        return m->config.bos;
    return (int)(random_at(i < COMMON ? 7 : 100 + (uint64_t)seq, (uint64_t)i) % (uint64_t)m->config.vocab);
}

/* Append ids[from .. n) of a sequence in chunks and hash each row of logits. */
static bool feed(struct engine *e, struct seq *seq, const int32_t *ids, int from, int n, int chunk, int vocab, float *logits,
                 uint64_t *hashes, struct error *err)
{
    for (int at = from; at < n; at += chunk) {
        int now = n - at < chunk ? n - at : chunk;
        struct span span = { seq, ids + at, now, 0 };
        if (!engine_forward(e, &span, 1, logits, err))
            return false;
        for (int i = 0; i < now; i++)
            hashes[at + i] = hash_bytes(logits + (size_t)i * (size_t)vocab, (size_t)vocab * sizeof *logits);
    }
    return true;
}

static bool run_apart(struct engine *e, const struct variant *v, int32_t ids[][LONGEST], const int *n, int vocab, float *logits,
                      uint64_t hashes[][LONGEST], struct error *err)
{
    struct seq *prefix = NULL;
    bool ok = true;
    if (v->share)
        ok = seq_open(&prefix, e, NULL, err) && feed(e, prefix, ids[0], 0, COMMON, COMMON, vocab, logits, hashes[0], err);
    for (int s = 0; ok && s < SEQUENCES; s++) {
        struct seq *seq = NULL;
        int from = v->share ? COMMON : 0, chunk = v->chunk ? v->chunk : LONGEST;
        if (s && from)
            memcpy(hashes[s], hashes[0], COMMON * sizeof hashes[0][0]);
        ok = seq_open(&seq, e, prefix, err) && feed(e, seq, ids[s], from, n[s], chunk, vocab, logits, hashes[s], err);
        seq_close(seq);
    }
    seq_close(prefix);
    return ok;
}

static bool run_together(struct engine *e, int32_t ids[][LONGEST], const int *n, int vocab, float *logits,
                         uint64_t hashes[][LONGEST], struct error *err)
{
    struct seq *seqs[SEQUENCES] = { 0 };
    struct span spans[SEQUENCES];
    bool ok = true;
    for (int s = 0; ok && s < SEQUENCES; s++) {
        ok = seq_open(&seqs[s], e, NULL, err);
        spans[s] = (struct span){ seqs[s], ids[s], n[s], 0 };
    }
    ok = ok && engine_forward(e, spans, SEQUENCES, logits, err);
    const float *row = logits;
    for (int s = 0; ok && s < SEQUENCES; s++)
        for (int i = 0; i < n[s]; i++, row += vocab)
            hashes[s][i] = hash_bytes(row, (size_t)vocab * sizeof *row);
    for (int s = 0; s < SEQUENCES; s++)
        seq_close(seqs[s]);
    return ok;
}

static bool run_variant(const struct model *m, enum act_mode act, const struct variant *v, uint64_t hashes[][LONGEST],
                        struct error *err)
{
    struct engine_options o = { act, v->threads, v->kernels, v->in_place, v->batch };
    struct engine *e = NULL;
    int32_t ids[SEQUENCES][LONGEST];
    int n[SEQUENCES], vocab = m->config.vocab;
    for (int s = 0; s < SEQUENCES; s++) {
        n[s] = lengths[s] < m->config.context ? lengths[s] : m->config.context;
        for (int i = 0; i < n[s]; i++)
            ids[s][i] = token_at(m, s, i);
    }
    bool together = !v->chunk && !v->share;
    float *logits = mem_new((size_t)vocab * (together ? TOTAL : LONGEST), sizeof *logits, err);
    bool ok = logits && engine_open(&e, m, &o, err) &&
              (together ? run_together(e, ids, n, vocab, logits, hashes, err) : run_apart(e, v, ids, n, vocab, logits, hashes, err));
    engine_close(e);
    free(logits);
    return ok;
}

static const struct variant reference = { "one thread, generic kernels, one token at a time", "generic", 1, 0, 1, false, false };
static const struct variant variants[] = {
    { "1 thread", NULL, 1, 0, 0, false, false },
    { "2 threads", NULL, 2, 0, 0, false, false },
    { "3 threads, batch 5", NULL, 3, 5, 0, false, false },
    { "batch 1", NULL, 2, 1, 0, false, false },
    { "batch 64", NULL, 2, 64, 0, false, false },
    { "chunks of 1", NULL, 2, 0, 1, false, false },
    { "chunks of 7", NULL, 2, 0, 7, false, false },
    { "chunks of 16", NULL, 1, 0, 16, false, false },
    { "chunks of 17", NULL, 2, 0, 17, false, false },
    { "shared prefix", NULL, 2, 0, 0, true, false },
    { "shared prefix, chunks of 7, batch 3", NULL, 2, 3, 7, true, false },
    { "in place", NULL, 2, 0, 0, false, true },
    { "in place, chunks of 1", NULL, 1, 0, 1, false, true },
};

static int differing_rows(const struct model *m, uint64_t a[][LONGEST], uint64_t b[][LONGEST])
{
    int bad = 0;
    for (int s = 0; s < SEQUENCES; s++)
        for (int i = 0; i < lengths[s] && i < m->config.context; i++)
            bad += a[s][i] != b[s][i];
    return bad;
}

static bool check_variant(const struct model *m, enum act_mode act, const struct variant *v, uint64_t want[][LONGEST],
                          struct error *err)
{
    static uint64_t got[SEQUENCES][LONGEST];
    memset(got, 0, sizeof got);
    if (!run_variant(m, act, v, got, err))
        return false;
    int bad = differing_rows(m, want, got);
    verdict(bad == 0, "%s: %s, %s kernels, %s%s", m->label, act_mode_names[act], v->kernels ? v->kernels : "default", v->what,
            bad ? ": logits differ" : "");
    return true;
}

static bool invariance_of(const char *spec, struct error *err)
{
    static uint64_t want[SEQUENCES][LONGEST];
    struct model m;
    if (!model_open(&m, spec, false, err))
        return false;
    bool ok = true;
    for (int act = 0; ok && act < ACT_COUNT; act++) {
        memset(want, 0, sizeof want);
        ok = run_variant(&m, (enum act_mode)act, &reference, want, err);
        for (size_t i = 0; ok && i < ARRAY_LEN(variants); i++)
            ok = check_variant(&m, (enum act_mode)act, &variants[i], want, err);
        for (const char *const *k = engine_kernel_sets(); ok && *k; k++) {
            struct variant v = { "2 threads", *k, 2, 0, 0, false, false };
            if (engine_kernel_supported(*k))
                ok = check_variant(&m, (enum act_mode)act, &v, want, err);
        }
    }
    model_close(&m);
    return ok;
}

/* ---- parts that need no model ---- */

static void check_vectors(void)
{
    struct py_random r;
    py_random_seed(&r, 1234);
    uint32_t a = py_random_bits(&r, 32), b = py_random_bits(&r, 32);
    verdict(a == 4150886329u && b == 3342196574u, "CPython random numbers");
    uint8_t digest[32];
    char hex[65] = "";
    if (sha256_bytes("abc", 3, digest, NULL))
        hex_of(digest, 32, hex);
    verdict(strcmp(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") == 0, "SHA-256");
    struct interval w = wilson(900, 1319, 0.95);
    verdict(fabs(w.lo - .65671) < 5e-6 && fabs(w.hi - .70690) < 5e-6, "Wilson interval");
    verdict(fabs(mcnemar_midp(10, 20) - .070756) < 5e-7, "mid-p McNemar");
    for (int f = 0; f < FORMAT_COUNT; f++)
        if (formats[f].block_bytes <= 0 || formats[f].block <= 0 || !formats[f].to_f32)
            verdict(false, "format %d has no decoder", f);
    verdict(f16_to_f32(0x3c01) == 1.0009765625f && f32_to_f16(65504.0f) == 0x7bff, "f16 conversion");
}

/* "PATH BYTES SHA256" lines of models/demo/MANIFEST, paths relative to it. */
static bool check_manifest(const char *folder, struct error *err)
{
    struct text path = { 0 }, text = { 0 };
    path_join(&path, folder, "MANIFEST");
    bool ok = file_read(text_str(&path), 1 << 20, &text, err);
    char *save = NULL;
    for (char *line = ok && text.data ? strtok_r(text.data, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
        char name[256], want[65], got[65];
        unsigned long long bytes;
        uint8_t digest[32];
        uint64_t size = 0;
        if (line[0] == '#' || sscanf(line, "%255s %llu %64s", name, &bytes, want) != 3)
            continue;
        text_clear(&path);
        path_join(&path, folder, name);
        struct error why = { 0 };
        bool same = file_size(text_str(&path), &size, &why) && sha256_file(text_str(&path), digest, &why);
        if (same) {
            hex_of(digest, 32, got);
            same = size == bytes && strcmp(got, want) == 0;
        }
        verdict(same, "%s: %s", text_str(&path), same ? "size and SHA-256" : why.status ? why.text : "size or SHA-256 differ from MANIFEST");
    }
    text_free(&path);
    text_free(&text);
    return ok;
}

enum { GOLDEN_TOKENS = 64 };    /* of each of the golden sequences */

/* Largest difference between our f32 logits of the sequences in ids and want, [rows][vocab]. */
static bool golden_distance(const struct model *m, const int32_t *ids, size_t rows, const float *want, double *worst, struct error *err)
{
    struct engine_options o = { .act = ACT_F32 };
    struct engine *e = NULL;
    size_t vocab = (size_t)m->config.vocab;
    float *got = mem_new(GOLDEN_TOKENS * vocab, sizeof *got, err);
    bool ok = got && engine_open(&e, m, &o, err);
    *worst = 0;
    for (size_t at = 0; ok && at + GOLDEN_TOKENS <= rows; at += GOLDEN_TOKENS) {
        struct seq *seq = NULL;
        struct span span = { .ids = ids + at, .n = GOLDEN_TOKENS };
        ok = seq_open(&seq, e, NULL, err) && (span.seq = seq, engine_forward(e, &span, 1, got, err));
        for (size_t i = 0; ok && i < GOLDEN_TOKENS * vocab; i++)
            *worst = fmax(*worst, fabs((double)got[i] - (double)want[at * vocab + i]));
        seq_close(seq);
    }
    engine_close(e);
    free(got);
    return ok;
}

/* golden/NAME.ids.i32 and golden/NAME.logits.f32 beside a model folder: max |difference| <= 2e-4 in f32 mode. */
static bool check_golden(const char *folder, const char *name, struct error *err)
{
    struct text model = { 0 }, ids = { 0 }, logits = { 0 }, path = { 0 };
    struct model m = { 0 };
    double worst = 0;
    path_join(&model, folder, name);
    text_printf(&path, "%s/golden/%s.ids.i32", folder, name);
    bool ok = file_read(text_str(&path), 1 << 20, &ids, err);
    text_clear(&path);
    text_printf(&path, "%s/golden/%s.logits.f32", folder, name);
    ok = ok && file_read(text_str(&path), 1 << 26, &logits, err) && model_open(&m, text_str(&model), false, err);
    size_t rows = ids.len / 4;
    ok = ok && ((rows && rows % GOLDEN_TOKENS == 0 && rows * (size_t)m.config.vocab * 4 == logits.len) ||
                fail(err, STATUS_FORMAT, "%s: %zu bytes, expected %zu rows of %d logits", text_str(&path), logits.len, rows, m.config.vocab));
    ok = ok && golden_distance(&m, (const int32_t *)(const void *)text_str(&ids), rows, (const float *)(const void *)text_str(&logits),
                               &worst, err);
    if (ok)
        verdict(worst <= 2e-4, "%s: logits within %.2g of the reference", text_str(&model), worst);
    model_close(&m);
    text_free(&model);
    text_free(&ids);
    text_free(&logits);
    text_free(&path);
    return ok;
}

static bool check_demo(const struct settings *s, struct error *err)
{
    static const char folder[] = "models/demo";
    if (!dir_exists(folder)) {
        note(s, "selftest: %s is not here; its files are not checked", folder);
        return true;
    }
    return check_manifest(folder, err) && check_golden(folder, "bf16", err) && check_golden(folder, "qat-unquantized", err);
}

int cmd_selftest(const struct settings *s, struct error *err)
{
    bool ok = true;
    verdicts[0] = verdicts[1] = 0;
    if (s->invariance && !s->rest.n)
        return fail(err, STATUS_USAGE, "selftest: --invariance needs models"), EXIT_USAGE;
    if (s->invariance) {
        for (size_t i = 0; ok && i < s->rest.n; i++)
            ok = invariance_of(s->rest.words[i], err);
    } else {
        check_vectors();
        ok = check_demo(s, err);
    }
    if (!ok)
        return EXIT_FAILED;
    printf("selftest: %d passed, %d failed\n", verdicts[1], verdicts[0]);
    return verdicts[0] ? EXIT_FAILED : EXIT_DONE;
}
