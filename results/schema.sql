-- schema.sql - the one description of qdelta's results database.
--
-- The item row is the product: whatever a report says is derived from these rows by SQL.  Tables may change
-- with the version below; the views (v_scores, v_items, v_choices, v_runs) are what others may build on:
--
--   sqlite3 results/qdelta.db "SELECT model, task, avg(score) FROM v_scores WHERE metric = 'acc' GROUP BY 1, 2"
--
-- The program carries this text inside it and runs it, in one transaction, on a database it makes.
-- A program refuses a database whose user_version is newer than its own.

PRAGMA application_id = 1902406772;      -- 'qdlt'
PRAGMA user_version = 1;

-- One file of weights under one name.  The same label with other weights is another model.
CREATE TABLE models (
    id              INTEGER PRIMARY KEY,
    label           TEXT    NOT NULL,            -- the name the user gave, or the file's stem
    sha256          TEXT    NOT NULL,            -- of the weights file(s), hex
    path            TEXT    NOT NULL DEFAULT '', -- where it was first seen
    arch            TEXT    NOT NULL DEFAULT '',
    recipe          TEXT    NOT NULL DEFAULT '', -- type of each tensor class
    format          TEXT    NOT NULL DEFAULT '', -- how bytes decode: 'q4_0'
    method          TEXT    NOT NULL DEFAULT '', -- who chose the values: 'rtn', 'gptq', 'qat'; '' unknown
    bits_per_weight REAL    NOT NULL DEFAULT 0,
    file_bytes      INTEGER NOT NULL DEFAULT 0,
    UNIQUE (label, sha256)
);

-- One model answering one task under one setting.  Everything in UNIQUE can change a row, so it is the run's
-- identity: said again, the same run goes on.  The rest are facts about how it was done.
CREATE TABLE runs (
    id              INTEGER PRIMARY KEY,
    model           INTEGER NOT NULL REFERENCES models (id),
    tokenizer_hash  TEXT    NOT NULL DEFAULT '',
    template_name   TEXT    NOT NULL DEFAULT '', -- chat template; '' none
    task            TEXT    NOT NULL,
    task_version    TEXT    NOT NULL,
    metric          TEXT    NOT NULL,            -- the task's primary metric
    prompt_mode     TEXT    NOT NULL,            -- 'stable', 'compat'
    shots           INTEGER NOT NULL,
    item_limit      INTEGER NOT NULL,            -- 0: all items
    seed            TEXT    NOT NULL,            -- unsigned 64 bits, decimal
    shard           TEXT    NOT NULL,            -- 'I/N'; reports join the shards of one run
    act             TEXT    NOT NULL,            -- activations: 'i16', 'f32', 'q8'
    tag             TEXT    NOT NULL DEFAULT '', -- set apart on purpose, e.g. a night's date
    program_version TEXT    NOT NULL DEFAULT '', -- these three: of every invocation that added rows, in order
    git_commit      TEXT    NOT NULL DEFAULT '',
    kernels         TEXT    NOT NULL DEFAULT '',
    threads         INTEGER NOT NULL DEFAULT 0,  -- of the first invocation, as are command and started_at
    command         TEXT    NOT NULL DEFAULT '',
    started_at      INTEGER NOT NULL,            -- seconds since 1970
    items_expected  INTEGER NOT NULL DEFAULT 0,
    finished        INTEGER NOT NULL DEFAULT 0,  -- 1: every expected item was answered
    seconds         REAL    NOT NULL DEFAULT 0,  -- sums over the invocations that lived to report them
    prompt_tokens   INTEGER NOT NULL DEFAULT 0,
    new_tokens      INTEGER NOT NULL DEFAULT 0,
    peak_bytes      INTEGER NOT NULL DEFAULT 0,  -- largest of them
    UNIQUE (model, tokenizer_hash, template_name, task, task_version, metric, prompt_mode, shots, item_limit,
            seed, shard, act, tag)
);

-- One answered item.  Written together with its choices, extractions and scores in one transaction.
CREATE TABLE items (
    id              INTEGER PRIMARY KEY,
    run             INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    item            TEXT    NOT NULL,            -- unique in the task: 'abstract_algebra/17'
    group_name      TEXT    NOT NULL DEFAULT '', -- subject
    prompt_hash     TEXT    NOT NULL,            -- SHA-256 of the prompt's token ids, hex
    prompt_tokens   INTEGER NOT NULL DEFAULT 0,
    gold            TEXT    NOT NULL DEFAULT '',
    answer          TEXT,                        -- NULL: nothing that counts as an answer
    output          TEXT,                        -- generated text; NULL where choices are scored
    finish          TEXT    NOT NULL DEFAULT '', -- 'choice', 'eos', 'stop', 'length', 'too-long' (not asked)
    output_tokens   INTEGER NOT NULL DEFAULT 0,
    margin          REAL,                        -- top-1 minus top-2 log-probability, nats; NULL unknown
    elapsed_ns      INTEGER NOT NULL DEFAULT 0,
    UNIQUE (run, item)
);

CREATE TABLE choices (
    item            INTEGER NOT NULL REFERENCES items (id) ON DELETE CASCADE,
    position        INTEGER NOT NULL,            -- 0 is the first choice
    logprob         REAL    NOT NULL,            -- natural log, sum over the choice's tokens
    tokens          INTEGER NOT NULL,
    chars           INTEGER NOT NULL,
    bytes           INTEGER NOT NULL,
    PRIMARY KEY (item, position)
) WITHOUT ROWID;

CREATE TABLE extractions (
    item            INTEGER NOT NULL REFERENCES items (id) ON DELETE CASCADE,
    rule            TEXT    NOT NULL,            -- 'strict-match'
    value           TEXT,                        -- NULL: the rule found nothing
    PRIMARY KEY (item, rule)
) WITHOUT ROWID;

CREATE TABLE scores (
    item            INTEGER NOT NULL REFERENCES items (id) ON DELETE CASCADE,
    metric          TEXT    NOT NULL,            -- 'acc', 'exact_match,strict-match'
    score           REAL    NOT NULL,            -- 0 or 1, or a fraction
    PRIMARY KEY (item, metric)
) WITHOUT ROWID;

-- Token-level measures of a model against a base on one text: KL divergence, same top token, perplexity.
CREATE TABLE measures (
    model_sha256    TEXT    NOT NULL,
    base_sha256     TEXT    NOT NULL,
    text_sha256     TEXT    NOT NULL,
    act             TEXT    NOT NULL,
    name            TEXT    NOT NULL,            -- 'kld_mean', 'same_top'
    value           REAL    NOT NULL,
    PRIMARY KEY (model_sha256, base_sha256, text_sha256, act, name)
) WITHOUT ROWID;

-- ---- views: documented, kept stable ----

-- v_scores: one row an item and metric.
--   run     runs.id                      item    id of the item in its task
--   model   label                        metric  'acc', 'exact_match,strict-match'
--   task    name                         score   0 or 1, or a fraction
CREATE VIEW v_scores (run, model, task, item, metric, score) AS
SELECT runs.id, models.label, runs.task, items.item, scores.metric, scores.score
FROM scores
JOIN items  ON items.id = scores.item
JOIN runs   ON runs.id = items.run
JOIN models ON models.id = runs.model;

-- v_items: one row an item, with what was asked and answered.
CREATE VIEW v_items (run, model, task, task_version, item, group_name, prompt_hash, prompt_tokens, gold, answer,
                     output, finish, output_tokens, margin, elapsed_ns) AS
SELECT runs.id, models.label, runs.task, runs.task_version, items.item, items.group_name, items.prompt_hash,
       items.prompt_tokens, items.gold, items.answer, items.output, items.finish, items.output_tokens,
       items.margin, items.elapsed_ns
FROM items
JOIN runs   ON runs.id = items.run
JOIN models ON models.id = runs.model;

-- v_choices: one row a choice of an item; position 0 is the first.
CREATE VIEW v_choices (run, model, task, item, position, logprob, tokens, chars, bytes) AS
SELECT runs.id, models.label, runs.task, items.item, choices.position, choices.logprob, choices.tokens,
       choices.chars, choices.bytes
FROM choices
JOIN items  ON items.id = choices.item
JOIN runs   ON runs.id = items.run
JOIN models ON models.id = runs.model;

-- v_runs: one row a run: who answered what under which setting, how far it got, and the mean of its primary
-- metric over the items it has.
CREATE VIEW v_runs (run, model, sha256, path, arch, recipe, format, method, bits_per_weight, file_bytes,
                    tokenizer_hash, template_name, task, task_version, metric, prompt_mode, shots, item_limit, seed,
                    shard, act, tag, program_version, git_commit, kernels, threads, command, started_at,
                    items_expected, items, finished, score, seconds, prompt_tokens, new_tokens, peak_bytes) AS
SELECT runs.id, models.label, models.sha256, models.path, models.arch, models.recipe, models.format, models.method,
       models.bits_per_weight, models.file_bytes, runs.tokenizer_hash, runs.template_name, runs.task,
       runs.task_version, runs.metric, runs.prompt_mode, runs.shots, runs.item_limit, runs.seed, runs.shard, runs.act,
       runs.tag, runs.program_version, runs.git_commit, runs.kernels, runs.threads, runs.command, runs.started_at,
       runs.items_expected,
       (SELECT count(*) FROM items WHERE items.run = runs.id),
       runs.finished,
       (SELECT avg(scores.score) FROM items JOIN scores ON scores.item = items.id AND scores.metric = runs.metric
        WHERE items.run = runs.id),
       runs.seconds, runs.prompt_tokens, runs.new_tokens, runs.peak_bytes
FROM runs
JOIN models ON models.id = runs.model;
