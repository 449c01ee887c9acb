/* tokenizer_split.c - pre-tokenizers of byte-level BPE: a row each, cut by PCRE2. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer_private.h"

#include <pcre2.h>
#include <string.h>

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"

#define O200K_WORD "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
#define O200K_CAPITALS "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
#define O200K_REST "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LLAMA3_PATTERN \
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* To add a pre-tokenizer: this row, or its name in a row of the same rule.  Each stage cuts every piece that the ones
 * before it left, into what it matches and what lies between. */
struct pretokenizer {
    const char *names[PRETOKENIZER_NAMES];      /* tokenizer.ggml.pre; the first is the one we write */
    const char *stages[PRETOKENIZER_STAGES];
    bool nfc, ignore_merges, add_bos;           /* where GGUF metadata does not tell */
};
static const struct pretokenizer pretokenizers[] = {
    { { "llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2" }, { LLAMA3_PATTERN }, .ignore_merges = true, .add_bos = true },
    { { "smaug-bpe", "dbrx" }, { LLAMA3_PATTERN }, .nfc = false },
    { { "qwen2", "deepseek-r1-qwen" },
      { CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+" }, .nfc = true },
    { { "qwen35" },
      { CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+" }, .nfc = true },
    { { "smollm", "starcoder", "refact", "command-r" }, { "\\p{N}", GPT2_PATTERN }, .nfc = false },
    { { "gpt-2", "phi-2", "mpt", "olmo", "mellum" }, { GPT2_PATTERN }, .nfc = false },
    { { "tekken" }, { O200K_WORD "|" O200K_CAPITALS "|\\p{N}" O200K_REST }, .ignore_merges = true, .add_bos = true },
    { { "gpt-4o", "llama4" }, { O200K_WORD CONTRACTIONS "?|" O200K_CAPITALS CONTRACTIONS "?|\\p{N}{1,3}" O200K_REST }, .nfc = false },
    { { "falcon" }, { "[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2_PATTERN, "[0-9][0-9][0-9]" }, .nfc = false },
    { { "deepseek-coder" },
      { "[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+", "\\p{N}" }, .nfc = false },
    { { "deepseek-v3", "hunyuan-dense" },
      { "\\p{N}{1,3}", "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+" },
      .nfc = false },
};

const char pretokenizer_digits[] = "\\p{N}", pretokenizer_gpt2[] = GPT2_PATTERN;

const struct pretokenizer *pretokenizer_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(pretokenizers); i++)
        for (int j = 0; j < PRETOKENIZER_NAMES && pretokenizers[i].names[j]; j++)
            if (strcmp(pretokenizers[i].names[j], name) == 0)
                return &pretokenizers[i];
    return NULL;
}

/* Blanks left over are pieces either way. */
static bool same_stage(const char *row, const char *pattern)
{
    size_t n = strlen(row);
    return strncmp(row, pattern, n) == 0 && (!pattern[n] || strcmp(pattern + n, "|\\s+") == 0);
}

const struct pretokenizer *pretokenizer_by_stages(const char *const *patterns, int n, bool nfc, bool ignore_merges)
{
    const struct pretokenizer *found = NULL;
    for (size_t i = 0; i < ARRAY_LEN(pretokenizers); i++) {
        const struct pretokenizer *p = &pretokenizers[i];
        bool same = n == PRETOKENIZER_STAGES || !p->stages[n];
        for (int k = 0; same && k < n; k++)
            same = p->stages[k] && same_stage(p->stages[k], patterns[k]);
        if (same && p->nfc == nfc && p->ignore_merges == ignore_merges)
            return p;
        found = same && !found ? p : found;
    }
    return found;
}

const char *pretokenizer_name(const struct pretokenizer *p)
{
    return p->names[0];
}

const char *pretokenizer_stage(const struct pretokenizer *p, int i)
{
    return i < PRETOKENIZER_STAGES ? p->stages[i] : NULL;
}

bool pretokenizer_nfc(const struct pretokenizer *p)
{
    return p->nfc;
}

bool pretokenizer_ignore_merges(const struct pretokenizer *p)
{
    return p->ignore_merges;
}

bool pretokenizer_adds_bos(const char *name)
{
    const struct pretokenizer *p = name ? pretokenizer_find(name) : NULL;
    return p && p->add_bos;
}

void pretokenizer_names(struct text *out)
{
    for (size_t i = 0; i < ARRAY_LEN(pretokenizers); i++)
        for (int j = 0; j < PRETOKENIZER_NAMES && pretokenizers[i].names[j]; j++)
            text_printf(out, "%s%s", i || j ? ", " : "", pretokenizers[i].names[j]);
}

static bool pcre_fail(int code, const char *what, struct error *err)
{
    char text[256] = "";
    pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
    return fail(err, STATUS_FORMAT, "%s: %s", what, text);
}

bool pretokenizer_compile(struct tokenizer *t, struct error *err)
{
    for (int i = 0; i < PRETOKENIZER_STAGES && t->pre->stages[i]; i++) {
        int code;
        PCRE2_SIZE at;
        t->regex[i] = pcre2_compile((PCRE2_SPTR)t->pre->stages[i], PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &at,
                                    NULL);
        if (!t->regex[i])
            return pcre_fail(code, t->pre->names[0], err);
        pcre2_jit_compile(t->regex[i], PCRE2_JIT_COMPLETE);     /* without JIT matching is only slower */
    }
    return true;
}

void pretokenizer_free(struct tokenizer *t)
{
    for (int i = 0; i < PRETOKENIZER_STAGES; i++)
        pcre2_code_free(t->regex[i]);
}

/* ---- matching ---- */

struct matcher {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

static void matcher_close(struct matcher *m)
{
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->context);
    pcre2_jit_stack_free(m->stack);
}

/* No limit that a long text could hit: a match backtracks at most over one run of blanks. */
static bool matcher_open(struct matcher *m, struct error *err)
{
    m->data = pcre2_match_data_create(1, NULL);
    m->context = pcre2_match_context_create(NULL);
    if (!m->data || !m->context)
        return fail(err, STATUS_MEMORY, "out of memory for a regular expression");
    pcre2_set_match_limit(m->context, UINT32_MAX);
    pcre2_set_depth_limit(m->context, UINT32_MAX);
    pcre2_set_heap_limit(m->context, UINT32_MAX);
    return true;
}

static int match(struct matcher *m, const pcre2_code *code, const char *text, size_t from, size_t len)
{
    /* The text was checked once; checking it at every match would take quadratic time. */
    uint32_t options = PCRE2_NO_UTF_CHECK;
    int rc = pcre2_match(code, (PCRE2_SPTR)text, len, from, options, m->data, m->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT && !m->stack) {
        m->stack = pcre2_jit_stack_create(1 << 16, 1 << 26, NULL);
        pcre2_jit_stack_assign(m->context, NULL, m->stack);
        rc = pcre2_match(code, (PCRE2_SPTR)text, len, from, options, m->data, m->context);
    }
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(code, (PCRE2_SPTR)text, len, from, options | PCRE2_NO_JIT, m->data, m->context);
    return rc;
}

struct stage {
    const struct tokenizer *t;
    struct matcher *m;
    int index;                  /* into t->regex; none there: done, the range is a piece */
    const char *text;
    piece_fn *piece;
    void *ctx;
};

static bool run_stage(const struct stage *s, size_t from, size_t to, struct error *err)
{
    if (from == to)
        return true;
    const pcre2_code *code = s->index < PRETOKENIZER_STAGES ? s->t->regex[s->index] : NULL;
    if (!code)
        return s->piece(s->ctx, from, to - from, err);
    struct stage rest = *s;
    rest.index++;
    /* A later stage sees only its own stretch of text, so offsets count from there. */
    const char *base = s->text + from;
    size_t len = to - from, at = 0;
    while (at < len) {
        int rc = match(s->m, code, base, at, len);
        if (rc == PCRE2_ERROR_NOMATCH)
            break;
        if (rc < 0)
            return pcre_fail(rc, s->t->pre->names[0], err);
        const PCRE2_SIZE *hit = pcre2_get_ovector_pointer(s->m->data);
        size_t first = hit[0], end = hit[1];
        if (!run_stage(&rest, from + at, from + first, err) || !run_stage(&rest, from + first, from + end, err))
            return false;
        at = end;
    }
    return run_stage(&rest, from + at, to, err);
}

bool pretokenizer_split(const struct tokenizer *t, const char *text, size_t from, size_t to, piece_fn *piece, void *ctx,
                        struct error *err)
{
    struct matcher m = { 0 };
    struct stage first = { t, &m, 0, text, piece, ctx };
    bool ok = from == to || (matcher_open(&m, err) && run_stage(&first, from, to, err));
    matcher_close(&m);
    return ok;
}

/* ---- GPT-2's stand-ins for bytes ---- */

static bool stands_for_itself(uint32_t c)
{
    return (c >= 33 && c <= 126) || (c >= 161 && c <= 172) || (c >= 174 && c <= 255);
}

int byte_of_stand_in(uint32_t code)
{
    if (code < 0x100)
        return stands_for_itself(code) ? (int)code : -1;
    uint32_t nth = code - 0x100;
    for (int b = 0; b < 256; b++)
        if (!stands_for_itself((uint32_t)b) && nth-- == 0)
            return b;
    return -1;
}
