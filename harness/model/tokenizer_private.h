/* tokenizer_private.h - what the tokenizer files share; nobody outside the room includes it.
 *
 * All three kinds end in one merge loop over ids: a table of pairs (left, right) -> (rank, merged id).
 * SPM becomes such a table by splitting every token into two parts in every way and ranking the merged
 * token by its score, so highest score first and left-most first come out of the same loop. */
#ifndef QDELTA_MODEL_TOKENIZER_PRIVATE_H
#define QDELTA_MODEL_TOKENIZER_PRIVATE_H

#include "tokenizer.h"

enum {
    TOKEN_BYTES_MAX = 65535,        /* of one token's text; real ones stay under 600 */
    TOKEN_SPLIT_MAX = 1024,         /* of a token that SPM may reach by merging */
    TEXT_BYTES_MAX = 1 << 30,       /* of one encode call: offsets into the normalised text fit 32 bits */
    UNICODE_END = 0x110000,
};
#define SPACE_MARK "\xE2\x96\x81"   /* U+2581 stands for a blank in SPM-like vocabularies */
#define SPACE_MARK_CODE 0x2581u

enum tokenizer_kind { KIND_SPM, KIND_RAW_BPE, KIND_BYTE_BPE };

/* Hugging Face added tokens may swallow blanks beside them or ask for a word of their own. */
enum token_flags { TOKEN_STRIP_LEFT = 1, TOKEN_STRIP_RIGHT = 2, TOKEN_SINGLE_WORD = 4 };

enum space_prefix {
    PREFIX_NONE,
    PREFIX_PIECES,              /* a blank before every stretch of text, that is also after every special token */
    PREFIX_FIRST_UNLESS_BLANK,  /* only at the start of the text, if it does not start with a blank */
    PREFIX_PIECES_UNLESS_BLANK,
};

struct token {
    const char *text;           /* as the file has it */
    const char *piece;          /* what decoding prints */
    uint32_t len, piece_len;
    uint8_t type, flags;
};

struct pair {                   /* a slot of the pair table; left < 0: free */
    int32_t left, right, merged;
    uint32_t rank;
};
struct pair_table {
    struct pair *slots;
    size_t mask, count;
};
bool pair_table_new(struct pair_table *p, size_t pairs, struct error *err);
/* The first of equal pairs wins. */
void pair_put(struct pair_table *p, int32_t left, int32_t right, uint32_t rank, int32_t merged);
const struct pair *pair_get(const struct pair_table *p, int32_t left, int32_t right);

struct special_node {           /* byte trie of the special tokens; node 0 is the root */
    int32_t child, sibling, token;
    uint8_t byte;
};

struct pretokenizer;            /* tokenizer_split.c */
enum { PRETOKENIZER_STAGES = 6, PRETOKENIZER_NAMES = 8 };

struct tokenizer {
    enum tokenizer_kind kind;
    int n_tokens, bos, eos, unk, pad;
    bool add_bos, ignore_merges, nfc, newline_runs, split_at_blank;
    enum space_prefix prefix;
    struct token *tokens;
    struct map by_text;         /* every token, by the file's text */
    struct map words;           /* KIND_BYTE_BPE: mergeable tokens by their bytes */
    int32_t byte_ids[256];      /* -1: none */
    int32_t *char_ids;          /* [UNICODE_END] id + 1 of a one-character symbol, 0: none */
    struct pair_table pairs;
    uint8_t *joins;             /* bitmap: two code points side by side that some merge can join */
    struct special_node *specials;
    size_t n_specials, cap_specials;
    int32_t special_first[256]; /* child of the root by byte, 0: none */
    const struct pretokenizer *pre;
    void *regex[PRETOKENIZER_STAGES];           /* pcre2_code of pre's stages, NULL after the last */
    struct arena arena;
    char hash[65];
};

/* tokenizer_build.c: from a spec, plus what only tokenizer.json knows.  pairs: n_merges (left, right) ids in
 * rank order, or NULL to split spec->merges. */
struct tokenizer_extras {
    const int32_t (*pairs)[2];
    const uint8_t *flags;       /* enum token_flags of each token; NULL: none */
    bool exact;                 /* the file says everything: prefix counts, nothing is inferred from names */
    enum space_prefix prefix;
    bool split_at_blank, no_newline_runs;
};
bool tokenizer_build(struct tokenizer **out, const struct tokenizer_spec *spec,
                     const struct tokenizer_extras *extras, struct error *err);
/* Can merging produce this token from plain text? */
static inline bool token_mergeable(const struct token *t)
{
    return t->len && (t->type == TOKEN_NORMAL || t->type == TOKEN_USER_DEFINED || t->type == TOKEN_UNUSED);
}

/* Bit of joins[] for two neighbours.  A collision only makes a piece longer, never wrong. */
#define JOIN_BITS 22
static inline uint32_t join_bit(uint32_t a, uint32_t b)
{
    return (a * 0x9E3779B1u ^ b * 0x85EBCA6Bu) >> (32 - JOIN_BITS);
}

/* tokenizer_split.c: pre-tokenizers of byte-level BPE. */
const struct pretokenizer *pretokenizer_find(const char *name);
/* The row whose stages these n patterns of a tokenizer.json are, with these switches where several have them. */
const struct pretokenizer *pretokenizer_by_stages(const char *const *patterns, int n, bool nfc, bool ignore_merges);
extern const char pretokenizer_digits[], pretokenizer_gpt2[];   /* what Digits and ByteLevel of a tokenizer.json match */
const char *pretokenizer_name(const struct pretokenizer *p);
const char *pretokenizer_stage(const struct pretokenizer *p, int i);    /* NULL after the last */
bool pretokenizer_nfc(const struct pretokenizer *p);
bool pretokenizer_ignore_merges(const struct pretokenizer *p);
bool pretokenizer_adds_bos(const char *name);   /* false: an unknown name, NULL */
void pretokenizer_names(struct text *out);
bool pretokenizer_compile(struct tokenizer *t, struct error *err);
void pretokenizer_free(struct tokenizer *t);
/* Call piece(ctx, offset, len) for each piece of text[from..to), in order and without gaps. */
typedef bool piece_fn(void *ctx, size_t offset, size_t len, struct error *err);
bool pretokenizer_split(const struct tokenizer *t, const char *text, size_t from, size_t to, piece_fn *piece, void *ctx,
                        struct error *err);
/* GPT-2's table of printable stand-ins for bytes: the byte of a code point, or -1. */
int byte_of_stand_in(uint32_t code);

/* A stretch of text that is the template's own (specials are parsed there) or the user's.  Only that differs:
 * merging runs on over the border, as it does when a template engine hands over one string. */
struct span {
    size_t end;                 /* offset after its last byte; it starts where the one before ends */
    bool parse_special;
};
bool tokenizer_encode_spans(const struct tokenizer *t, const char *text, size_t len, const struct span *spans, size_t n,
                            bool bos, struct ids *out, struct error *err);

#endif
