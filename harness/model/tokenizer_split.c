/* tokenizer_split.c - pre-tokenizers of byte-level BPE: a row each, cut by PCRE2. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer_private.h"

#include <pcre2.h>
#include <string.h>

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"

/* To add a pre-tokenizer: this row.  Text that a stage does not match is passed to the next stage, and is a
 * piece of its own after the last; what a stage that isolates matches is a piece at once. */
struct pretokenizer {
    const char *name;
    const char *isolate;        /* stage before the pattern, or NULL */
    const char *pattern;
    bool nfc, ignore_merges;
};
static const struct pretokenizer pretokenizers[] = {
    { "llama-bpe", NULL,
      CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
      .ignore_merges = true },
    { "qwen2", NULL,
      CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
      .nfc = true },
    { "qwen35", NULL,
      CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
      .nfc = true },
    { "smollm", "\\p{N}", GPT2_PATTERN, false, false },
    { "gpt-2", NULL, GPT2_PATTERN, false, false },
};

const struct pretokenizer *pretokenizer_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(pretokenizers); i++)
        if (strcmp(pretokenizers[i].name, name) == 0)
            return &pretokenizers[i];
    return NULL;
}

const struct pretokenizer *pretokenizer_by_pattern(const char *pattern)
{
    for (size_t i = 0; i < ARRAY_LEN(pretokenizers); i++) {
        size_t n = strlen(pretokenizers[i].pattern);
        const char *rest = pattern + n;
        if (strncmp(pretokenizers[i].pattern, pattern, n) == 0 && !pretokenizers[i].isolate &&
            (!*rest || strcmp(rest, "|\\s+") == 0))     /* blanks left over are pieces either way */
            return &pretokenizers[i];
    }
    return NULL;
}

const char *pretokenizer_name(const struct pretokenizer *p)
{
    return p->name;
}

const char *pretokenizer_pattern(const struct pretokenizer *p)
{
    return strcmp(p->pattern, GPT2_PATTERN) == 0 ? NULL : p->pattern;
}

bool pretokenizer_isolates_digits(const struct pretokenizer *p)
{
    return p->isolate != NULL;
}

bool pretokenizer_nfc(const struct pretokenizer *p)
{
    return p->nfc;
}

bool pretokenizer_ignore_merges(const struct pretokenizer *p)
{
    return p->ignore_merges;
}

void pretokenizer_names(struct text *out)
{
    for (size_t i = 0; i < ARRAY_LEN(pretokenizers); i++)
        text_printf(out, "%s%s", i ? ", " : "", pretokenizers[i].name);
}

static bool pcre_fail(int code, const char *what, struct error *err)
{
    char text[256] = "";
    pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
    return fail(err, STATUS_FORMAT, "%s: %s", what, text);
}

bool pretokenizer_compile(struct tokenizer *t, struct error *err)
{
    const char *stages[2] = { t->pre->isolate, t->pre->pattern };
    for (int i = 0; i < 2; i++) {
        if (!stages[i])
            continue;
        int code;
        PCRE2_SIZE at;
        t->regex[i] = pcre2_compile((PCRE2_SPTR)stages[i], PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &at,
                                    NULL);
        if (!t->regex[i])
            return pcre_fail(code, t->pre->name, err);
        pcre2_jit_compile(t->regex[i], PCRE2_JIT_COMPLETE);     /* without JIT matching is only slower */
    }
    return true;
}

void pretokenizer_free(struct tokenizer *t)
{
    for (int i = 0; i < 2; i++)
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
    int index;                  /* into t->regex; 2: done, the range is a piece */
    const char *text;
    piece_fn *piece;
    void *ctx;
};

static bool run_stage(const struct stage *s, size_t from, size_t to, struct error *err)
{
    if (from == to)
        return true;
    if (s->index == 2)
        return s->piece(s->ctx, from, to - from, err);
    struct stage rest = *s;
    rest.index++;
    const pcre2_code *code = s->t->regex[s->index];
    if (!code)
        return run_stage(&rest, from, to, err);
    /* A later stage sees only its own stretch of text, so offsets count from there. */
    const char *base = s->text + from;
    size_t len = to - from, at = 0;
    while (at < len) {
        int rc = match(s->m, code, base, at, len);
        if (rc == PCRE2_ERROR_NOMATCH)
            break;
        if (rc < 0)
            return pcre_fail(rc, s->t->pre->name, err);
        const PCRE2_SIZE *hit = pcre2_get_ovector_pointer(s->m->data);
        size_t first = hit[0], end = hit[1];
        if (!run_stage(&rest, from + at, from + first, err) || !s->piece(s->ctx, from + first, end - first, err))
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
