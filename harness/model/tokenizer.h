/* tokenizer.h - text -> token ids -> text, and chat templates as literal strings by family.
 *
 * Kinds: SPM with scores (GGUF "llama"), BPE on raw UTF-8 ("gemma4", and Hugging Face tokenizer.json with
 * byte fallback), byte-level BPE ("gpt2" with pre-tokenizers llama-bpe, qwen2, qwen35, smollm, gpt-2).
 * A tokenizer is read-only after it was built: threads may share it. */
#ifndef QDELTA_MODEL_TOKENIZER_H
#define QDELTA_MODEL_TOKENIZER_H

#include "base/base.h"

struct tokenizer;

struct ids {                    /* zero-initialise */
    int32_t *data;
    size_t n, cap;
};
bool ids_add(struct ids *ids, int32_t id, struct error *err);
void ids_free(struct ids *ids);

enum token_type { TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER_DEFINED, TOKEN_UNUSED, TOKEN_BYTE };

/* What a tokenizer is made of, filled from GGUF metadata or tokenizer.json; all borrowed during the call. */
struct tokenizer_spec {
    const char *where;          /* for messages */
    const char *kind;           /* "llama", "gemma4", "gpt2" */
    const char *pre;            /* pre-tokenizer of gpt2; NULL otherwise */
    int n_tokens;
    const char *const *tokens;  /* NUL-terminated; token_lens because a token may hold a NUL */
    const uint32_t *token_lens;
    const float *scores;        /* NULL when absent */
    const int32_t *types;       /* enum token_type; NULL: all normal */
    int64_t n_merges;
    const char *const *merges;  /* "left right", split at the first blank from index 1 */
    int bos, eos, unk, pad;     /* -1 = none */
    bool add_bos, add_space_prefix, ignore_merges, nfc;
};
bool tokenizer_new(struct tokenizer **out, const struct tokenizer_spec *spec, struct error *err);
/* From a Hugging Face tokenizer.json (tokenizer_config.json beside it, when there, tells bos and template). */
bool tokenizer_from_json(struct tokenizer **out, const char *tokenizer_json_path, struct error *err);
/* A Hugging Face tokenizer.json that gives the same ids.  STATUS_UNSUPPORTED: the vocabulary holds what JSON cannot. */
bool tokenizer_write_json(const struct tokenizer *t, const char *path, struct error *err);
void tokenizer_free(struct tokenizer *t);

/* Append the ids of text (invalid UTF-8 goes through byte tokens; nothing crashes, time is linear).
 * parse_special: control tokens' texts in text become those tokens (for template text, never for content;
 * user-defined tokens always do).  bos: put the BOS token first if the model wants one. */
bool tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool bos, bool parse_special,
                      struct ids *out, struct error *err);
/* Append the bytes of one token; control tokens give nothing unless special. */
void tokenizer_decode(const struct tokenizer *t, int32_t id, bool special, struct text *out);
/* The same for a whole sequence, with the decoder's rule for a leading blank (SPM). */
void tokenizer_decode_all(const struct tokenizer *t, const int32_t *ids, size_t n, struct text *out);

int tokenizer_size(const struct tokenizer *t);
int tokenizer_bos(const struct tokenizer *t);               /* id put first by encode(bos true); -1 = none */
int tokenizer_find(const struct tokenizer *t, const char *token);      /* id or -1 */
const char *tokenizer_token(const struct tokenizer *t, int32_t id, size_t *len, enum token_type *type);
bool tokenizer_hash(const struct tokenizer *t, char hex[65], struct error *err);
const char *tokenizer_kind(const struct tokenizer *t);

/* ---- chat ---- */

enum chat_family { CHAT_NONE, CHAT_GEMMA3, CHAT_GEMMA4_SMALL, CHAT_GEMMA4_LARGE, CHAT_LLAMA3, CHAT_QWEN25, CHAT_QWEN3,
                   CHAT_SMOLLM2, CHAT_GEMMA2, CHAT_QWEN2, CHAT_CHATML, CHAT_LLAMA3_0, CHAT_QWEN3_INSTRUCT, CHAT_QWEN3_THINKING, CHAT_SMOLLM3,
                   CHAT_SMOLLM3_UNDATED, CHAT_GEMMA4_SMALL_FIRST, CHAT_GEMMA4_LARGE_FIRST, CHAT_COUNT };
extern const char *const chat_family_names[CHAT_COUNT];

/* Which family a Jinja template text is, by its marks; CHAT_NONE when it is none that we render. */
enum chat_family chat_detect(const char *template_text);

struct chat_turn {
    const char *role;           /* "system", "user", "assistant" */
    const char *content;
};
/* Append the prompt text up to where the assistant's answer begins (without BOS text: encode adds the id).
 * Spans of the output that came from content, so must not be parsed for special tokens, are reported as
 * alternating pieces: see chat_encode, which is what callers want. */
bool chat_encode(const struct tokenizer *t, enum chat_family family, const struct chat_turn *turns, int n,
                 bool thinking, struct ids *out, struct error *err);
/* The same as text, for looking and for tests (BOS text included). */
bool chat_render(enum chat_family family, const struct chat_turn *turns, int n, bool thinking, struct text *out,
                 struct error *err);

#endif
