/* packed.c - layouts of quantized Hugging Face checkpoints. */
#include "files.h"

#include <stdlib.h>

struct packed {
    int unused;
};

bool packed_open(struct packed **out, struct model_files *f, const char *dir, struct error *err)
{
    (void)dir;
    *out = NULL;
    if (json_get(f->config, "quantization_config") || json_get(f->config, "quantization"))
        return fail(err, STATUS_UNSUPPORTED, "%s: quantization_config: this layout is not supported", f->metadata_path);
    return true;
}

bool packed_load(struct packed *p, struct model_files *f, const char *base, const struct slot *s, struct tensor *t, bool *found, struct error *err)
{
    (void)p, (void)f, (void)base, (void)s, (void)t, (void)err;
    *found = false;
    return true;
}

void packed_close(struct packed *p)
{
    free(p);
}
