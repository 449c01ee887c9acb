/* foreign.c - files that people have and that are no model we read: what they are and what to do, by name. */
#include "files.h"

/* ---- folders ---- */

static const struct neighbour {
    const char *name;           /* of a file in the folder, or its end */
    bool end, for_config;       /* for_config: also says why config.json is missing */
    const char *what;
} neighbours[] = {
    { "adapter_config.json", false, true, "says that this is a LoRA adapter and no model: merge it into its base model (peft's merge_and_unload), "
                                          "open that" },
    { "consolidated.safetensors", false, true, "is Mistral's own layout: take model-*.safetensors, their index and config.json of the same repository, or "
                                               "convert it (transformers' convert_mistral_weights_to_hf.py)" },
    { "consolidated.00.pth", false, true, "is Meta's own layout, pickled: convert it (transformers' convert_llama_weights_to_hf.py)" },
    { "qmodel.pt", false, true, "is HQQ's pickled form: only safetensors are read (hqq's save_to_safetensors writes them)" },
    { ".safetensors", true, false, "has a name of its own: give its path, with config.json beside it (shards need model.safetensors.index.json)" },
    { ".gguf", true, true, "is a GGUF file: give its path" },
    { ".bin", true, true, "is pickled: only safetensors are read (transformers' save_pretrained writes them)" },
    { ".bin.index.json", true, true, "says that the weights are pickled: only safetensors are read (transformers' save_pretrained writes them)" },
    { ".pth", true, true, "is pickled: only safetensors are read" },
    { ".pt", true, true, "is pickled: only safetensors are read" },
    { "onnx", true, true, "is ONNX, a graph: take the safetensors of the same repository" },
    { ".h5", true, true, "is TensorFlow's: take the safetensors of the same repository" },
    { ".msgpack", true, true, "is Flax's: take the safetensors of the same repository" },
};

static const char *neighbour_in(char *const *names, size_t n, const struct neighbour *row)
{
    for (size_t i = 0; i < n; i++)
        if (row->end ? str_ends(names[i], row->name) : !strcmp(names[i], row->name))
            return names[i];
    return NULL;
}

bool foreign_folder(const char *dir, const char *missing, struct error *err)
{
    bool config = !strcmp(missing, "config.json");
    const char *found = NULL;
    char **names;
    size_t n;
    if (!dir_names(dir, &names, &n, err))
        return false;
    for (size_t i = 0; i < ARRAY_LEN(neighbours) && !found; i++) {
        found = config && !neighbours[i].for_config ? NULL : neighbour_in(names, n, &neighbours[i]);
        if (found)
            fail(err, STATUS_INPUT, "%s: no %s in the folder; %s %s", dir, missing, found, neighbours[i].what);
    }
    if (!found)
        fail(err, STATUS_INPUT, "%s: no %s in the folder", dir, missing);
    names_free(names, n);
    return false;
}

/* ---- files, by their first bytes ---- */

bool foreign_file(const struct mapping *map, const char *path, struct error *err)
{
    static const struct { const char *start; const char *what; } kinds[] = {
        { "version https://git-lfs", "a git-lfs pointer, not the file itself: run `git lfs pull` in the folder" },
        { "PK\003\004", "a zip archive, most likely PyTorch's pickled weights: only safetensors and GGUF are read" },
        { "\200\002", "a Python pickle: only safetensors and GGUF are read" },
        { "\211HDF", "HDF5, TensorFlow's weights: only safetensors and GGUF are read" },
        { "lmgg", "ggml of early 2023: convert the original model again" },
        { "fmgg", "ggmf of early 2023: convert the original model again" },
        { "tjgg", "ggjt of 2023: convert the original model again" },
        { "algg", "a LoRA adapter of 2023 and no model" },
        { "<!DOCTYPE", "a web page, most likely an error message of a download" },
        { "<html", "a web page, most likely an error message of a download" },
    };
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        size_t len = strlen(kinds[i].start);
        if (map->size >= len && !memcmp(map->data, kinds[i].start, len))
            return fail(err, STATUS_FORMAT, "%s: %s", path, kinds[i].what);
    }
    return true;
}

/* ---- GGUF files that hold something else ---- */

bool foreign_gguf(const struct model_files *f, const char *path, struct error *err)
{
    static const struct { const char *key, *value, *what; } kinds[] = {
        { "general.type", "adapter", "a LoRA adapter and no model: merge it into its base model (llama-export-lora)" },
        { "general.type", "imatrix", "an importance matrix and no model: `quantize --imatrix` takes it" },
        { "general.type", "mmproj", "a vision or audio projector (mmproj): open the language model's GGUF, text needs no projector" },
        { "general.architecture", "clip", "a vision or audio projector (mmproj): open the language model's GGUF, text needs no projector" },
        { "general.architecture", "gemma4-assistant", "a drafter that works on another model's cache: open that model" },
    };
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        const char *v = kv_string(f, kinds[i].key);
        if (v && !strcmp(v, kinds[i].value))
            return fail(err, STATUS_UNSUPPORTED, "%s: %s", path, kinds[i].what);
    }
    if (f->n_raw == 0)
        return fail(err, STATUS_UNSUPPORTED, "%s: holds metadata and no weights", path);
    return true;
}
