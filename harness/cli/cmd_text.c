/* tokenize, generate, logits: for looking at a model and for tests. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool need_tokenizer(const struct model *m, struct error *err)
{
    return m->tokenizer || fail(err, STATUS_INPUT, "%s: no tokenizer, and text is needed: %s", m->path,
                                m->tokenizer_error ? m->tokenizer_error : "none found");
}

static void print_ids(const struct ids *ids)
{
    for (size_t i = 0; i < ids->n; i++)
        printf("%s%d", i ? " " : "", ids->data[i]);
    printf("\n");
}

static bool read_all(FILE *f, const char *where, struct text *out, struct error *err)
{
    char buffer[1 << 14];
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, f)) > 0;)
        text_add(out, buffer, n);
    return !ferror(f) ? text_ok(out, err) : fail_errno(err, where, "cannot read");
}

static bool text_of(const struct settings *s, struct text *out, struct error *err)
{
    if (s->text && s->file)
        return fail(err, STATUS_USAGE, "tokenize: --text and --file exclude each other");
    if (s->text)
        return text_puts(out, s->text), text_ok(out, err);
    return s->file ? file_read(s->file, 0, out, err) : read_all(stdin, "standard input", out, err);
}

static bool print_tokens(const struct model *m, const struct settings *s, const struct ids *ids, struct error *err)
{
    if (s->ids)
        return print_ids(ids), true;
    cJSON *array = s->json ? cJSON_CreateArray() : NULL;
    for (size_t i = 0; i < ids->n; i++) {
        struct text piece = { 0 };
        tokenizer_decode(m->tokenizer, ids->data[i], true, &piece);
        if (array) {
            cJSON *row = cJSON_CreateObject();
            cJSON_AddNumberToObject(row, "id", ids->data[i]);
            if (utf8_check(text_str(&piece), piece.len) == piece.len)
                cJSON_AddStringToObject(row, "text", text_str(&piece));
            cJSON_AddItemToArray(array, row);
        } else {
            printf("%8d  '%s'\n", ids->data[i], text_str(&piece));
        }
        text_free(&piece);
    }
    char *printed = array ? cJSON_PrintUnformatted(array) : NULL;
    if (array)
        printf("%s\n", printed ? printed : "");
    cJSON_Delete(array);
    bool ok = !array || printed || fail(err, STATUS_MEMORY, "out of memory for %zu tokens", ids->n);
    cJSON_free(printed);
    return ok;
}

int cmd_tokenize(const struct settings *s, struct error *err)
{
    struct model m;
    struct text text = { 0 };
    struct ids ids = { 0 };
    if (!model_open(&m, s->rest.words[0], true, err))
        return EXIT_FAILED;
    bool ok = need_tokenizer(&m, err) && text_of(s, &text, err) &&
              tokenizer_encode(m.tokenizer, text_str(&text), text.len, !s->no_bos, s->special, &ids, err) &&
              print_tokens(&m, s, &ids, err);
    ids_free(&ids);
    text_free(&text);
    model_close(&m);
    return ok ? EXIT_DONE : err->status == STATUS_USAGE ? EXIT_USAGE : EXIT_FAILED;
}

/* ---- generate ---- */

static bool prompt_ids(const struct settings *s, const struct model *m, enum chat_family *family, struct ids *ids, struct error *err)
{
    enum chat_mode mode = strcmp(s->chat, "on") == 0 ? CHAT_ON : strcmp(s->chat, "off") == 0 ? CHAT_OFF : CHAT_AUTO;
    if (!eval_chat_family(m, mode, family, err))
        return false;
    if (*family == CHAT_NONE && (s->system || s->think))
        return fail(err, STATUS_USAGE, "generate: %s needs a chat template; %s", s->system ? "--system" : "--think",
                    mode == CHAT_OFF ? "--chat is off" : m->chat_template ? "the model's is of no known family" : "the model has none");
    if (*family == CHAT_NONE)
        return tokenizer_encode(m->tokenizer, s->prompt, strlen(s->prompt), !s->no_bos, s->special, ids, err);
    struct chat_turn turns[2] = { { "system", s->system }, { "user", s->prompt } };
    return chat_encode(m->tokenizer, *family, s->system ? turns : turns + 1, s->system ? 2 : 1, s->think, ids, err);
}

struct one {                    /* a feed of a single request */
    struct generation *g;
};

static struct generation *next_one(void *ctx)
{
    struct one *o = ctx;
    struct generation *g = o->g;
    o->g = NULL;
    return g;
}

static bool done_one(void *ctx, struct generation *g, struct error *err)
{
    (void)ctx;
    (void)g;
    (void)err;
    return true;
}

static void print_generation(const struct settings *s, const struct model *m, bool chat, const struct generation *g)
{
    if (s->ids) {
        print_ids(&g->out);
        return;
    }
    struct text text = { 0 };
    if (!chat)
        text_puts(&text, s->prompt);
    for (size_t i = 0; i < g->out.n; i++)
        tokenizer_decode(m->tokenizer, g->out.data[i], false, &text);
    printf("%s\n", text_str(&text));
    text_free(&text);
}

int cmd_generate(const struct settings *s, struct error *err)
{
    struct model m;
    struct engine *e = NULL;
    struct engine_options eo;
    struct ids prompt = { 0 };
    enum chat_family family = CHAT_NONE;
    if (!engine_options_of(s, &eo, err) || !model_open(&m, s->rest.words[0], true, err))
        return err->status == STATUS_USAGE ? EXIT_USAGE : EXIT_FAILED;
    bool ok = need_tokenizer(&m, err) && prompt_ids(s, &m, &family, &prompt, err) && engine_open(&e, &m, &eo, err);
    if (ok) {
        struct generation g = { .prompt = prompt.data, .n_prompt = (int)prompt.n, .max_new = (int)s->count };
        struct one one = { &g };
        struct generation_feed feed = { next_one, done_one, &one, 1 };
        ok = prompt.n > 0 || fail(err, STATUS_INPUT, "generate: the prompt has no tokens");
        ok = ok && engine_generate(e, &feed, err);
        if (ok)
            print_generation(s, &m, family != CHAT_NONE, &g);
        ids_free(&g.out);
    }
    engine_close(e);
    ids_free(&prompt);
    model_close(&m);
    return ok ? EXIT_DONE : err->status == STATUS_USAGE ? EXIT_USAGE : EXIT_FAILED;
}

/* ---- logits ---- */

/* Rows of logits held at once: a vocabulary of 262144 needs no more than about 64 MiB. */
enum { MOST_ROWS = 512, LOGITS_FLOATS = 1 << 24 };

struct logits_job {
    struct engine *e;
    int vocab, window;          /* rows of buffer */
    float *buffer;
    struct file_writer w;
};

/* count sequences of n ids side by side, which fit a window; or one, window after window. */
static bool write_sequences(struct logits_job *j, const int32_t *ids, int count, int n, struct error *err)
{
    struct seq *seqs[MOST_ROWS] = { 0 };
    struct span spans[MOST_ROWS];
    bool ok = true;
    for (int i = 0; ok && i < count; i++)
        ok = seq_open(&seqs[i], j->e, NULL, err);
    for (int at = 0; ok && at < n; at += j->window) {
        int now = n - at < j->window ? n - at : j->window;
        for (int i = 0; i < count; i++)
            spans[i] = (struct span){ .seq = seqs[i], .ids = ids + (ptrdiff_t)i * n + at, .n = now, .first_logits = 0 };
        ok = engine_forward(j->e, spans, count, j->buffer, err) &&
             file_writer_add(&j->w, j->buffer, (size_t)count * (size_t)now * (size_t)j->vocab * sizeof *j->buffer, err);
    }
    for (int i = 0; i < count; i++)
        seq_close(seqs[i]);
    return ok;
}

static bool write_logits(const struct settings *s, struct engine *e, int vocab, const int32_t *ids, size_t n, struct error *err)
{
    size_t each = s->seq ? (size_t)s->seq : n;
    if (n == 0)
        return fail(err, STATUS_INPUT, "%s: no ids in it", s->ids_file);
    if (n % each != 0)
        return fail(err, STATUS_INPUT, "%s: %zu ids, expected a multiple of --seq %zu", s->ids_file, n, each);
    int window = LOGITS_FLOATS / vocab;
    struct logits_job j = { .e = e, .vocab = vocab, .window = window < 1 ? 1 : window > MOST_ROWS ? MOST_ROWS : window };
    j.buffer = mem_new((size_t)j.window * (size_t)vocab, sizeof *j.buffer, err);
    if (!j.buffer || !file_writer_open(&j.w, s->out, err))
        return free(j.buffer), false;
    bool ok = true;
    size_t fit = (size_t)j.window / each, side_by_side = fit ? fit : 1;
    for (size_t at = 0, count; ok && at < n / each; at += count) {
        count = n / each - at < side_by_side ? n / each - at : side_by_side;
        ok = write_sequences(&j, ids + at * each, (int)count, (int)each, err);
    }
    if (ok)
        ok = file_writer_commit(&j.w, err);
    else
        file_writer_discard(&j.w);
    free(j.buffer);
    return ok;
}

int cmd_logits(const struct settings *s, struct error *err)
{
    struct model m;
    struct engine *e = NULL;
    struct engine_options eo;
    struct text raw = { 0 };
    if (!engine_options_of(s, &eo, err))
        return err->status == STATUS_USAGE ? EXIT_USAGE : EXIT_FAILED;
    if (!file_read(s->ids_file, 0, &raw, err) || !model_open(&m, s->rest.words[0], false, err)) {
        text_free(&raw);
        return EXIT_FAILED;
    }
    bool ok = raw.len % 4 == 0 || fail(err, STATUS_INPUT, "%s: %zu bytes, expected int32 ids (a multiple of 4)", s->ids_file, raw.len);
    ok = ok && engine_open(&e, &m, &eo, err) &&
         write_logits(s, e, m.config.vocab, (const int32_t *)(const void *)text_str(&raw), raw.len / 4, err);
    engine_close(e);
    model_close(&m);
    text_free(&raw);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
