/* merge, export, import: databases. */
#include "cli/cli.h"

#include <stdio.h>

int cmd_merge(const struct settings *s, struct error *err)
{
    struct store *into = NULL;
    bool ok = store_open(&into, s->out, STORE_WRITE, err);
    for (size_t i = 0; ok && i < s->rest.n; i++)
        ok = store_merge(into, s->rest.words[i], err);
    store_close(into);
    return ok ? EXIT_DONE : EXIT_FAILED;
}

int cmd_export(const struct settings *s, struct error *err)
{
    struct store *store = NULL;
    if (!store_open(&store, s->db, STORE_READ, err))
        return EXIT_FAILED;
    FILE *out = s->out ? fopen(s->out, "wb") : stdout;
    bool ok = out ? store_export(store, out, s->run, err) : fail_errno(err, s->out, "cannot create");
    if (out && out != stdout && fclose(out) != 0 && ok)
        ok = fail_errno(err, s->out, "cannot write");
    store_close(store);
    return ok ? EXIT_DONE : EXIT_FAILED;
}

int cmd_import(const struct settings *s, struct error *err)
{
    struct store *store = NULL;
    bool ok = store_open(&store, s->db, STORE_WRITE, err);
    for (size_t i = 0; ok && i < s->rest.n; i++) {
        FILE *in = fopen(s->rest.words[i], "rb");
        ok = in ? store_import(store, in, s->rest.words[i], err) : fail_errno(err, s->rest.words[i], "cannot open");
        if (in)
            fclose(in);
    }
    store_close(store);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
