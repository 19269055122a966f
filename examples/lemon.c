/*  lemon.c - the command line tool of lemon.h: reads its arguments, calls the library, shows how far it is.

        cc -std=c99 -O3 lemon.c -o lemon -lm -pthread
        ./lemon                     short help with examples
        ./lemon train --help        all flags of a command

    Exit status: 0 done; 1 it could not be done; 2 wrong usage; 3 interrupted, state saved; 4 loss or gradients went to
    NaN or Inf, last good state saved.  Messages go to stderr as "lemon: error: ...".

    Contents
        1  What a run knows          settings, the state of a run
        2  Messages                  the one form of errors, "did you mean"
        3  The tables                commands, flags
        4  Arguments                 strict numbers, flags, what must and must not go together
        5  Help
        6  JSON
        7  Loading and saving
        8  info, convert, tokenize, eval, init, vocab
        9  generate, chat, compare
        10 fuse
        11 train
        12 main

    To add a flag: a field in settings, a row in flags[].  To add a command: a function and a row in commands[]. */
#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE 1        /* signal() whose handlers stay, also under a strict -std=c99 */
#endif
#ifndef LEMON_LINKED             /* the Makefile compiles the library once, for all programs */
#define LEMON_IMPLEMENTATION
#endif
#include "../lemon.h"
#include "choices.h"
#include "progress.h"
#include "report.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>

/* ====================================================================================================================
   1  WHAT A RUN KNOWS
   ================================================================================================================== */

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 3, EXIT_DIVERGED = 4 };

/*  The value of every flag.  NULL, 0 or -1 where a flag without a default was not given. */
typedef struct settings {
    int64_t dim, layers, heads, kv_heads, ffn, head_dim, seq, size;          /* shapes */
    int64_t params, tokens, field_layers, field_dims, learn;                 /* fusing */
    int64_t steps, batch, warmup, accumulate, eval_every, save_every;        /* training */
    int64_t max_tokens, count, top_k, seed, threads, shard_size, max_memory;
    double lr, min_lr, learn_lr, weight_decay, clip, distill, temperature;
    double temp, top_p, min_p, fraction;
    const char *method, *operators, *save_operators, *teacher, *schedule, *order, *moments, *dtype;
    const char *tokenizer, *trim_vocab, *choices, *eval_data, *log, *report, *prompt, *stop;
    const char **data;                                   /* n_data paths, in the order given */
    int64_t n_data;
    int untie, no_solve, no_correction, keep_teacher, recompute, resume, bytes, int8, json, quiet, help, version;
} settings;

enum { MAX_FLAGS = 96, MAX_PLAIN = 2 };

typedef struct command_row command_row;

/*  All that a run holds; run_close gives it back. */
typedef struct run {
    const command_row *command;
    settings set;
    unsigned char given[MAX_FLAGS];                      /* by row of flags[] */
    const char *plain[MAX_PLAIN];                        /* the arguments that are no flags */
    int n_plain;
    int argc;
    char **argv;
    progress bar;
    lemon_ctx *ctx;
    char *scratch;                                       /* OUT.part, where fusing keeps what is done */
    lemon_model *model, *teacher;
    lemon_model *whole;                                  /* what --trim-vocab trimmed; its weights are in use */
    lemon_tokens tokens, eval_tokens, kept;
    lemon_operators *operators;
    buffer text;
    FILE *log;
    buffer log_rows;                                     /* of an earlier run that this one resumes */
    double log_seconds;                                  /* how long that one took */
    report_series loss, kl, held_out;                    /* what a training report draws */
    int64_t first_step, tokens_before;                   /* of this run; 0 before its first step */
    lemon_step last_step, best_step;
    double first_loss;
} run;

struct command_row {
    const char *name, *arguments, *what;
    const char *example;                                 /* lines; @ stands for the folder of the tool, see help_example */
    unsigned bit;
    int n_plain;
    int (*go)(run *r);
};

/* ====================================================================================================================
   2  MESSAGES
   ================================================================================================================== */

/*  Prints "lemon: error: ..." and returns the exit status, so that `return complain(...)` ends a function. */
static int complain(run *r, int code, const char *format, ...) {
    va_list arguments;
    progress_clear(&r->bar);
    fflush(stdout);
    fputs("lemon: error: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    return code;
}

/*  The exit status of a library call; prints its message where it failed. */
static int check(run *r, lemon_status status) {
    if (status == LEMON_OK) return EXIT_DONE;
    return complain(r,
                    status == LEMON_E_ARG         ? EXIT_USAGE
                    : status == LEMON_E_CANCELLED ? EXIT_INTERRUPTED
                    : status == LEMON_E_DIVERGED  ? EXIT_DIVERGED
                                                  : EXIT_FAILED,
                    status == LEMON_E_MEMORY && r->set.max_memory ? "%s; that is --max-memory, give more" : "%s",
                    lemon_error(r->ctx));
}

/*  The same of a call that --data may be too short for: how short the library says, and this in which file. */
static int check_text(run *r, lemon_status status) {
    if (status != LEMON_E_ARG || r->set.n_data == 0 || strncmp(lemon_error(r->ctx), "the text has ", 13) != 0)
        return check(r, status);
    return complain(r, EXIT_FAILED, "%s: %s", r->set.data[0], lemon_error(r->ctx));
}

/*  Sizes and times for people; JSON has them exactly.  Each call has room of its own until its block ends. */
#define HUMAN 32
#define IN_COUNT(n) human_count((char[HUMAN]){0}, (double)(n), "")
#define IN_BYTES(n) human_count((char[HUMAN]){0}, (double)(n), "B")
#define IN_TIME(s) human_time((char[HUMAN]){0}, s)

/*  950, 12.3 k, 1.24 M, 6.74 G, 3.1 T; of bytes 950 B, 12.3 kB, ... */
static const char *human_count(char text[HUMAN], double n, const char *unit) {
    static const char *const steps[] = {"", "k", "M", "G", "T", "P", "E"};
    int step = 0;
    while (step < 6 && fabs(n) >= 999.5) n /= 1000, step++;
    if (n != n) return "not known";
    snprintf(text, HUMAN, "%.*f%s%s%s", step == 0 || n >= 99.95 ? 0 : n >= 9.995 ? 1 : 2, n, step || *unit ? " " : "",
             steps[step], unit);
    return text;
}

/*  0.42 s, 17 s, 3 min 20 s, 2 h 05 min. */
static const char *human_time(char text[HUMAN], double s) {
    long whole = s < 1e9 ? (long)(s + 0.5) : 999999999;
    if (s < 9.995) snprintf(text, HUMAN, "%.2f s", s);
    else if (whole < 60) snprintf(text, HUMAN, "%ld s", whole);
    else if (whole < 3600) snprintf(text, HUMAN, "%ld min %02ld s", whole / 60, whole % 60);
    else snprintf(text, HUMAN, "%ld h %02ld min", whole / 3600, whole / 60 % 60);
    return text;
}

/*  Edits that turn one word into another, neighbours that change places being one (Damerau 1964); of up to 31 letters. */
static int word_distance(const char *a, const char *b) {
    int rows[3][32], i, j, n = (int)strlen(b);
    if (n > 31 || strlen(a) > 31) return 99;
    for (j = 0; j <= n; j++) rows[0][j] = j;
    for (i = 1; a[i - 1]; i++) {
        int *row = rows[i % 3], *last = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
        row[0] = i;
        for (j = 1; j <= n; j++) {
            row[j] = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < row[j]) row[j] = last[j] + 1;
            if (row[j - 1] + 1 < row[j]) row[j] = row[j - 1] + 1;
            if (i < 2 || j < 2 || a[i - 1] != b[j - 2] || a[i - 2] != b[j - 1]) continue;
            if (before[j - 2] + 1 < row[j]) row[j] = before[j - 2] + 1;
        }
    }
    return rows[(i - 1) % 3][n];
}

/*  The candidate nearest to a word that is not known, if it is near at all. */
typedef struct suggestion {
    const char *word;
    char best[32];
    int distance;
} suggestion;

static void suggest_begin(suggestion *s, const char *word) {
    s->word = word;
    s->best[0] = 0;
    s->distance = 2 + (int)strlen(word) / 5;
}

/*  What a word begins, or is begun by, without the dashes of flags, is as near as one letter: gen, -p, --temperature. */
static int begins(const char *word, const char *candidate) {
    size_t n, m;
    word += strspn(word, "-"), candidate += strspn(candidate, "-");
    n = strlen(word), m = strlen(candidate);
    return n > 0 && m > 1 && strncmp(word, candidate, n < m ? n : m) == 0;
}

static void suggest(suggestion *s, const char *candidate) {
    int distance = begins(s->word, candidate) ? 1 : word_distance(s->word, candidate);
    if (distance >= s->distance || distance >= (int)strlen(candidate)) return;
    s->distance = distance;
    snprintf(s->best, sizeof s->best, "%s", candidate);
}

/* ====================================================================================================================
   3  THE TABLES
   ================================================================================================================== */

static int command_info(run *r);
static int command_convert(run *r);
static int command_fuse(run *r);
static int command_train(run *r);
static int command_eval(run *r);
static int command_generate(run *r);
static int command_tokenize(run *r);
static int command_init(run *r);
static int command_vocab(run *r);
static int command_compare(run *r);
static int command_chat(run *r);

enum {
    INFO = 1, CONVERT = 2, FUSE = 4, TRAIN = 8, EVAL = 16, GENERATE = 32, TOKENIZE = 64, INIT = 128, VOCAB = 256,
    COMPARE = 512, CHAT = 1024, WRITES = GENERATE | COMPARE | CHAT, ALL = 2047
};

#define SOME_TEXT "@stories --seed 2 --count 500 > text.txt\n"
#define OTHER_TEXT "@stories --seed 3 --count 20 > unseen.txt\n"
static const command_row commands[] = {
    {"info", "MODEL", "what a checkpoint holds", "@lemon info @data/teacher.lemon", INFO, 1, command_info},
    {"fuse", "TEACHER OUT", "a small model from a large one by linear fusion",
     "@lemon fuse @data/teacher.lemon student.lemon --fraction 0.25\n" SOME_TEXT
     "@lemon fuse @data/teacher.lemon student.lemon --dim 64 --layers 4 --heads 4 --kv-heads 2 --ffn 176 \\\n"
     "    --data text.txt --report fusion.html",
     FUSE, 2, command_fuse},
    {"train", "MODEL OUT", "go on training a model, alone or with a teacher",
     SOME_TEXT "@lemon fuse @data/teacher.lemon student.lemon --fraction 0.25 --data text.txt\n"
     "@lemon train student.lemon better.lemon --data text.txt --steps 100 --lr 4e-3\n"
     "@lemon train student.lemon taught.lemon --data text.txt --steps 30 --teacher @data/teacher.lemon --distill 0.9",
     TRAIN, 2, command_train},
    {"compare", "A B", "two models side by side: loss, size, speed, text",
     OTHER_TEXT "@lemon convert @data/teacher.lemon q4.lemon --dtype q4\n"
     "@lemon compare @data/teacher.lemon q4.lemon --data unseen.txt", COMPARE, 2, command_compare},
    {"generate", "MODEL", "text from a prompt", "@lemon generate @data/teacher.lemon --prompt \"Once upon a time\"", GENERATE,
     1, command_generate},
    {"chat", "MODEL", "a text written by turns: a line of yours, then the model goes on",
     "@lemon chat @data/teacher.lemon -n 40", CHAT, 1, command_chat},
    {"eval", "MODEL", "loss and perplexity on text", OTHER_TEXT "@lemon eval @data/teacher.lemon --data unseen.txt", EVAL, 1,
     command_eval},
    {"convert", "IN OUT", "a checkpoint in another format or number type",
     "@lemon convert @data/teacher.lemon teacher.gguf --dtype q8", CONVERT, 2, command_convert},
    {"tokenize", "MODEL TEXT", "token ids of a text", "@lemon tokenize @data/teacher.lemon \"Hello\"", TOKENIZE, 2,
     command_tokenize},
    {"vocab", "OUT", "a new vocabulary learned from text", SOME_TEXT "@lemon vocab tok.bin --data text.txt --size 512",
     VOCAB, 1, command_vocab},
    {"init", "OUT", "a new model with random weights",
     "@lemon init new.lemon --dim 128 --layers 6 --heads 8 --kv-heads 4 --ffn 352 --bytes", INIT, 1,
     command_init},
};
enum { N_COMMANDS = (int)(sizeof commands / sizeof commands[0]) };

/*  SWITCH is on when named; WHOLE and COUNT are int64_t, a COUNT may end in k, M or G; CHOICE is one of the words in
    `value`; FILES takes one or more paths and may be repeated. */
typedef enum flag_kind { SWITCH, WHOLE, COUNT, REAL, TEXT, CHOICE, FILES } flag_kind;

typedef struct flag {
    const char *name, *value;    /* value: what stands for it in help */
    flag_kind kind;
    size_t field;                /* where in settings */
    const char *fallback;        /* read as if given; NULL: none */
    double low, high;            /* of numbers */
    unsigned commands, required; /* which commands know it, which demand it */
    const char *help;
} flag;

#define FIELD(name) offsetof(settings, name)
#define METHODS "lemon|ligo|subclone|select|drop|slicegpt|modegpt|random"
#define ANY_SEED 9.2e18
#define SIZE_MOST 1e9

static const flag flags[] = {
    {"--dim", "D", WHOLE, FIELD(dim), NULL, 1, SIZE_MOST, FUSE | INIT, FUSE | INIT, "width of the residual stream"},
    {"--layers", "L", WHOLE, FIELD(layers), NULL, 1, SIZE_MOST, FUSE | INIT, FUSE | INIT, "layers"},
    {"--heads", "H", WHOLE, FIELD(heads), NULL, 1, SIZE_MOST, FUSE | INIT, FUSE | INIT, "query heads"},
    {"--kv-heads", "K", WHOLE, FIELD(kv_heads), NULL, 1, SIZE_MOST, FUSE | INIT, FUSE | INIT,
     "key-value heads, a divisor of H"},
    {"--ffn", "F", WHOLE, FIELD(ffn), NULL, 1, SIZE_MOST, FUSE | INIT, FUSE | INIT,
     "neurons of the feed-forward block"},
    {"--head-dim", "d", WHOLE, FIELD(head_dim), NULL, 1, SIZE_MOST, FUSE, 0, "channels of a head (the teacher's)"},
    {"--head-dim", "d", WHOLE, FIELD(head_dim), NULL, 1, SIZE_MOST, INIT, 0, "channels of a head (D / H)"},
    {"--params", "N", COUNT, FIELD(params), NULL, 1, 1e15, FUSE, 0,
     "a shape of at most about N parameters, found by itself; sizes that are given are kept"},
    {"--fraction", "X", REAL, FIELD(fraction), NULL, 0, 1, FUSE, 0, "the same, as a part of the teacher's"},
    {"--untie", NULL, SWITCH, FIELD(untie), NULL, 0, 0, FUSE | INIT, 0,
     "an output matrix of its own, not the embedding"},
    {"--bytes", NULL, SWITCH, FIELD(bytes), NULL, 0, 0, INIT, 0, "a byte-level tokenizer of 259 tokens"},
    {"--size", "N", COUNT, FIELD(size), NULL, 260, 65536, VOCAB, VOCAB, "tokens in the vocabulary"},

    {"--data", "FILE...", FILES, FIELD(data), NULL, 0, 0, FUSE, 0,
     "text, or token ids in .u16 and .u32 files (text that the teacher samples)"},
    {"--data", "FILE...", FILES, FIELD(data), NULL, 0, 0, TRAIN | EVAL | COMPARE, TRAIN | EVAL | COMPARE,
     "text, or token ids in .u16 and .u32 files"},
    {"--data", "FILE...", FILES, FIELD(data), NULL, 0, 0, VOCAB, VOCAB, "text"},
    {"--method", METHODS, CHOICE, FIELD(method), "lemon", 0, 0, FUSE, 0, "how the operators are found"},
    {"--tokens", "N", COUNT, FIELD(tokens), "0", 0, 1e12, FUSE, 0,
     "calibration tokens; a tenth is held out; 0: 65536 for lemon where it learns, else 32768"},
    {"--field-layers", "N", WHOLE, FIELD(field_layers), "0", 0, SIZE_MOST, FUSE, 0,
     "teacher layers that a student layer may draw on, 0: the method's choice"},
    {"--field-dims", "N", WHOLE, FIELD(field_dims), "0", 0, SIZE_MOST, FUSE, 0,
     "teacher channels that a student channel may read, 0: all"},
    {"--trim-vocab", "FILE", TEXT, FIELD(trim_vocab), NULL, 0, 0, FUSE | CONVERT, 0,
     "keep only the tokens that this text needs, and those for bytes and special ones"},
    {"--no-solve", NULL, SWITCH, FIELD(no_solve), NULL, 0, 0, FUSE, 0, "lemon: begin with a selection, nothing solved"},
    {"--no-correction", NULL, SWITCH, FIELD(no_correction), NULL, 0, 0, FUSE, 0,
     "lemon: leave out what least squares adds beyond Out W In"},
    {"--learn", "STEPS", COUNT, FIELD(learn), "-1", -1, 1e12, FUSE, 0,
     "steps of learning by gradients, -1: the method's own (lemon: four times through the text, ligo 100, others 0)"},
    {"--learn-lr", "X", REAL, FIELD(learn_lr), "-1", -1, 1e6, FUSE, 0, "learning rate of that, -1: the method's own"},
    {"--save-operators", "FILE", TEXT, FIELD(save_operators), NULL, 0, 0, FUSE, 0, "keep the operators for later"},
    {"--operators", "FILE", TEXT, FIELD(operators), NULL, 0, 0, FUSE, 0,
     "apply saved operators; finds none of its own"},

    {"--max-memory", "BYTES", COUNT, FIELD(max_memory), "0", 0, 9e18, FUSE, 0,
     "memory to keep to, 0: 4 GB; what is more lies in a file beside OUT, and the result is the same"},
    {"--max-memory", "BYTES", COUNT, FIELD(max_memory), "0", 0, 9e18, TRAIN, 0,
     "memory to keep to, 0: what there is; gradients and moments beyond it lie in a file beside OUT, with the same result"},

    {"--steps", "N", COUNT, FIELD(steps), NULL, 1, 1e12, TRAIN, TRAIN, "steps in all"},
    {"--batch", "B", WHOLE, FIELD(batch), "8", 1, SIZE_MOST, TRAIN, 0, "windows a step"},
    {"--seq", "T", WHOLE, FIELD(seq), "0", 0, SIZE_MOST, TRAIN | EVAL | COMPARE, 0,
     "tokens a window, 0: 256 or the context, the smaller"},
    {"--seq", "T", WHOLE, FIELD(seq), "0", 0, SIZE_MOST, INIT, 0, "the context: tokens that it can look back over, 0: 256"},
    {"--lr", "X", REAL, FIELD(lr), "1e-3", 0, 1e30, TRAIN, 0, "learning rate"},
    {"--min-lr", "X", REAL, FIELD(min_lr), "-1", -1, 1e30, TRAIN, 0,
     "where a cosine schedule ends, -1: a tenth of --lr"},
    {"--warmup", "N", COUNT, FIELD(warmup), "-1", -1, 1e12, TRAIN, 0, "steps until the rate is full, -1: steps / 20"},
    {"--schedule", "cosine|constant", CHOICE, FIELD(schedule), "cosine", 0, 0, TRAIN, 0, "how the rate goes on"},
    {"--weight-decay", "X", REAL, FIELD(weight_decay), "0.1", 0, 1e6, TRAIN, 0, "decoupled decay of matrices"},
    {"--clip", "X", REAL, FIELD(clip), "1", 0, 1e9, TRAIN, 0, "largest gradient norm, 0: off"},
    {"--accumulate", "N", WHOLE, FIELD(accumulate), "1", 1, SIZE_MOST, TRAIN, 0, "parts of a batch, to save memory"},
    {"--keep-teacher", NULL, SWITCH, FIELD(keep_teacher), NULL, 0, 0, TRAIN, 0, "ask the teacher once, keep what it says"},
    {"--recompute", NULL, SWITCH, FIELD(recompute), NULL, 0, 0, TRAIN, 0, "make activations twice, to save memory"},
    {"--moments", "f32|bf16", CHOICE, FIELD(moments), "f32", 0, 0, TRAIN, 0,
     "number type of what AdamW keeps of past gradients; bf16: 4 bytes a weight less"},
    {"--order", "random|sequential", CHOICE, FIELD(order), "random", 0, 0, TRAIN, 0, "of the windows"},
    {"--teacher", "MODEL", TEXT, FIELD(teacher), NULL, 0, 0, TRAIN, 0, "learn from this model's predictions too"},
    {"--distill", "W", REAL, FIELD(distill), "0.5", 0, 1, TRAIN, 0, "weight of the teacher in the loss"},
    {"--temperature", "X", REAL, FIELD(temperature), "1", 1e-3, 1e3, TRAIN, 0, "softens both predictions"},
    {"--eval-data", "FILE", TEXT, FIELD(eval_data), NULL, 0, 0, TRAIN, 0, "evaluate on this file"},
    {"--eval-every", "N", COUNT, FIELD(eval_every), "0", 0, 1e12, TRAIN, 0,
     "steps between evaluations, 0: only at the end"},
    {"--save-every", "N", COUNT, FIELD(save_every), "0", 0, 1e12, TRAIN, 0,
     "steps between saves of OUT and OUT.resume, 0: only OUT, at the end"},
    {"--resume", NULL, SWITCH, FIELD(resume), NULL, 0, 0, TRAIN, 0, "go on from OUT.resume"},
    {"--log", "FILE.csv", TEXT, FIELD(log), NULL, 0, 0, TRAIN, 0, "a line for each step"},

    {"--choices", "FILE.jsonl", TEXT, FIELD(choices), NULL, 0, 0, EVAL, 0,
     "in place of --data: {\"prompt\": text, \"choices\": [text, ...], \"answer\": index} a line, and how often it wins"},
    {"--max-tokens", "N", COUNT, FIELD(max_tokens), "0", 0, 1e15, EVAL | COMPARE, 0, "only the first N tokens, 0: all"},
    {"--prompt", "TEXT", TEXT, FIELD(prompt), "", 0, 0, GENERATE, 0, "what the text begins with"},
    {"--prompt", "TEXT", TEXT, FIELD(prompt), NULL, 0, 0, COMPARE, 0, "what both go on from (the data's first words)"},
    {"-n", "N", COUNT, FIELD(count), "256", 0, 1e12, GENERATE, 0, "new tokens at most"},
    {"-n", "N", COUNT, FIELD(count), "60", 0, 1e12, COMPARE | CHAT, 0, "new tokens at most, each time"},
    {"--temp", "X", REAL, FIELD(temp), "1", 0, 1e3, GENERATE | CHAT, 0, "temperature, 0: always the likeliest token"},
    {"--temp", "X", REAL, FIELD(temp), "0", 0, 1e3, COMPARE, 0, "temperature, 0: always the likeliest token"},
    {"--top-k", "K", WHOLE, FIELD(top_k), "0", 0, SIZE_MOST, WRITES, 0, "draw from the K likeliest, 0: all"},
    {"--top-p", "P", REAL, FIELD(top_p), "0.9", 0, 1, WRITES, 0, "draw from the likeliest that make up P"},
    {"--min-p", "P", REAL, FIELD(min_p), "0", 0, 1, WRITES, 0, "drop what is less likely than P times the likeliest"},
    {"--stop", "TEXT", TEXT, FIELD(stop), NULL, 0, 0, GENERATE, 0, "end before this text"},
    {"--dtype", "f32|bf16|f16|q8|q4", CHOICE, FIELD(dtype), NULL, 0, 0, CONVERT, 0, "number type (the input's)"},
    {"--shard-size", "BYTES", COUNT, FIELD(shard_size), "5G", 1, 9e18, CONVERT, 0,
     "largest file of weights in a Hugging Face folder, but for a larger tensor"},
    {"--seed", "S", WHOLE, FIELD(seed), "1", 0, ANY_SEED, FUSE | TRAIN | WRITES | INIT, 0, "of random numbers"},
    {"--report", "FILE.html", TEXT, FIELD(report), NULL, 0, 0, FUSE | TRAIN, 0,
     "a page with figures of what came of it"},

    {"--tokenizer", "FILE", TEXT, FIELD(tokenizer), NULL, 0, 0, ALL & ~VOCAB, 0,
     "a tokenizer.bin, tokenizer.json or tokenizer.model for models that bring none, or in place of theirs"},
    {"--threads", "N", WHOLE, FIELD(threads), "0", 0, 256, ALL, 0, "0: LEMON_THREADS, else all cores"},
    {"--int8", NULL, SWITCH, FIELD(int8), NULL, 0, 0, EVAL | GENERATE, 0,
     "multiply q8 and q4 weights by rounded bytes: faster, a little less exact"},
    {"--json", NULL, SWITCH, FIELD(json), NULL, 0, 0, ALL, 0,
     "the last line of the output is one JSON object: | tail -n 1 | jq ."},
    {"--quiet", NULL, SWITCH, FIELD(quiet), NULL, 0, 0, ALL, 0, "no progress and no remarks"},
    {"--help", NULL, SWITCH, FIELD(help), NULL, 0, 0, ALL, 0, "this text"},
    {"--version", NULL, SWITCH, FIELD(version), NULL, 0, 0, ALL, 0, "the version of lemon.h"},
};
enum { N_FLAGS = (int)(sizeof flags / sizeof flags[0]) };

/* ====================================================================================================================
   4  ARGUMENTS
   ================================================================================================================== */

static int find_flag(const char *name, size_t length, unsigned commands_bit) {
    int i;
    for (i = 0; i < N_FLAGS; i++)
        if ((flags[i].commands & commands_bit) && strlen(flags[i].name) == length &&
            !strncmp(flags[i].name, name, length))
            return i;
    return -1;
}

/*  Was this flag on the command line? */
static int was_given(const run *r, const char *name) {
    int i = find_flag(name, strlen(name), r->command->bit);
    return i >= 0 && r->given[i];
}

/*  A whole number, all of the text; k, M and G (or B), large or small, are thousands, millions and thousands of millions
    where allowed, also with a decimal point, as in 1.3G. */
static int parse_whole(const char *text, int suffix, int64_t *value) {
    int64_t unit = 1;
    char *end;
    long long number;
    size_t digits = strspn(text, "0123456789"), n = strlen(text);
    size_t decimals = text[digits] == '.' ? strspn(text + digits + 1, "0123456789") : 0;
    if (*text != '-' && digits == 0) return 0;
    if (suffix && n > 0 && strchr("kKmMgGbB", text[n - 1]))
        unit = strchr("kK", text[n - 1]) ? 1000 : strchr("mM", text[n - 1]) ? 1000000 : 1000000000;
    if (unit > 1 && digits > 0 && digits < 7 && decimals > 0 && digits + decimals + 2 == n) {
        *value = (int64_t)(strtod(text, NULL) * (double)unit + 0.5);
        return 1;
    }
    errno = 0;
    number = strtoll(text, &end, 10);
    if (errno || end == text || end[-1] == '-') return 0;
    if (unit > 1) end++;
    if (*end || number > INT64_MAX / unit || number < -INT64_MAX / unit) return 0;
    *value = (int64_t)number * unit;
    return 1;
}

/*  A decimal number, all of the text; no NaN, no Inf, no hexadecimal. */
static int parse_real(const char *text, double *value) {
    char *end;
    if (!*text || strspn(text, "0123456789+-.eE") != strlen(text)) return 0;
    *value = strtod(text, &end);
    return *end == 0 && *value - *value == 0;
}

/*  Is the word one of "a|b|c"? */
static int choice_known(const char *choices, const char *word) {
    size_t n = strlen(word);
    const char *p = choices;
    while (p) {
        if (strncmp(p, word, n) == 0 && (p[n] == '|' || p[n] == 0)) return 1;
        p = strchr(p, '|');
        if (p) p++;
    }
    return 0;
}

static int bad_number(run *r, const flag *f, const char *text) {
    char range[96];
    if (f->low == 0 && f->high >= SIZE_MOST) snprintf(range, sizeof range, "that is not negative");
    else if (f->high >= SIZE_MOST) snprintf(range, sizeof range, "not below %g", f->low);
    else snprintf(range, sizeof range, "from %g to %g", f->low, f->high);
    return complain(r, EXIT_USAGE, "%s is \"%s\", expected a %s %s%s; see lemon %s --help", f->name, text,
                    f->kind == REAL ? "number" : "whole number", range,
                    f->kind == COUNT ? " (30k, 4M and 1.3G are understood)" : "", r->command->name);
}

static int bad_choice(run *r, const flag *f, const char *text) {
    suggestion near;
    char word[32];
    const char *p = f->value;
    suggest_begin(&near, text);
    while (*p) {
        size_t n = strcspn(p, "|");
        snprintf(word, sizeof word, "%.*s", (int)n, p);
        suggest(&near, word);
        p += n + (p[n] == '|');
    }
    if (near.best[0])
        return complain(r, EXIT_USAGE, "%s is \"%s\", expected %s; did you mean %s?", f->name, text, f->value,
                        near.best);
    return complain(r, EXIT_USAGE, "%s is \"%s\", expected %s; see lemon %s --help", f->name, text, f->value,
                    r->command->name);
}

static int add_file(run *r, const char *path) {
    settings *set = &r->set;
    const char **grown = (const char **)realloc((void *)set->data, ((size_t)set->n_data + 1) * sizeof *grown);
    if (grown == NULL) return complain(r, EXIT_FAILED, "no memory");
    set->data = grown;
    set->data[set->n_data++] = path;
    return EXIT_DONE;
}

/*  Reads one value into its field of settings. */
static int set_value(run *r, const flag *f, const char *text) {
    char *field = (char *)&r->set + f->field;
    int64_t whole;
    double real;
    switch (f->kind) {
    case SWITCH: { int on = 1; memcpy(field, &on, sizeof on); return EXIT_DONE; }
    case FILES: return add_file(r, text);
    case CHOICE:
        if (!choice_known(f->value, text)) return bad_choice(r, f, text);
        memcpy(field, &text, sizeof text);
        return EXIT_DONE;
    case TEXT: memcpy(field, &text, sizeof text); return EXIT_DONE;
    case REAL:
        if (!parse_real(text, &real) || real < f->low || real > f->high) return bad_number(r, f, text);
        memcpy(field, &real, sizeof real);
        return EXIT_DONE;
    default:
        if (!parse_whole(text, f->kind == COUNT, &whole) || (double)whole < f->low || (double)whole > f->high)
            return bad_number(r, f, text);
        memcpy(field, &whole, sizeof whole);
        return EXIT_DONE;
    }
}

static int set_fallbacks(run *r) {
    int i, code = EXIT_DONE;
    for (i = 0; i < N_FLAGS && code == EXIT_DONE; i++)
        if (flags[i].fallback && (flags[i].commands & r->command->bit))
            code = set_value(r, &flags[i], flags[i].fallback);
    return code;
}

static int unknown_flag(run *r, const char *name, size_t length) {
    suggestion near;
    char word[32];
    int i, other = find_flag(name, length, ALL);
    snprintf(word, sizeof word, "%.*s", (int)(length < 31 ? length : 31), name);
    suggest_begin(&near, word);
    for (i = 0; i < N_FLAGS; i++)
        if ((flags[i].commands & r->command->bit) && (other < 0 || begins(word, flags[i].name)))
            suggest(&near, flags[i].name);
    for (i = 0; other >= 0 && i < N_COMMANDS; i++)
        if (flags[other].commands & commands[i].bit)
            return complain(r, EXIT_USAGE, near.best[0] ? "%s is no flag of lemon %s, but of lemon %s; did you mean %s?"
                                                        : "%s is no flag of lemon %s, but of lemon %s; see lemon %s --help",
                            word, r->command->name, commands[i].name, near.best[0] ? near.best : r->command->name);
    if (near.best[0])
        return complain(r, EXIT_USAGE, "%s is no flag of lemon %s; did you mean %s?", word, r->command->name,
                        near.best);
    return complain(r, EXIT_USAGE, "%s is no flag of lemon %s; see lemon %s --help", word, r->command->name,
                    r->command->name);
}

/*  One flag at argv[*i], with its value behind it or after "=".  *list becomes the flag that takes further files. */
static int parse_flag(run *r, int *i, const flag **list) {
    const char *word = r->argv[*i], *equals = strchr(word, '='), *value = equals ? equals + 1 : NULL;
    size_t length = equals ? (size_t)(equals - word) : strlen(word);
    int row = strcmp(word, "-h") == 0 ? find_flag("--help", 6, ALL) : find_flag(word, length, r->command->bit);
    const flag *f = row >= 0 ? &flags[row] : NULL;
    *list = NULL;
    if (f == NULL) return unknown_flag(r, word, length);
    if (f->kind == SWITCH && value) return complain(r, EXIT_USAGE, "%s takes no value, but has \"%s\"", f->name, value);
    if (f->kind != SWITCH && value == NULL) {
        const char *next = *i + 1 < r->argc ? r->argv[*i + 1] : NULL;
        if (next == NULL || find_flag(next, strlen(next), r->command->bit) >= 0)
            return complain(r, EXIT_USAGE, "%s has no value, expected %s; see lemon %s --help", f->name, f->value,
                            r->command->name);
        value = next;
        ++*i;
    }
    r->given[row] = 1;
    if (f->kind == FILES) *list = f;
    return set_value(r, f, value);
}

/*  A word that is no flag: one more file of the list before it once all arguments are there, else the next argument. */
static int parse_plain(run *r, const char *word, const flag **list) {
    if (r->n_plain < r->command->n_plain) {
        r->plain[r->n_plain++] = word;
        *list = NULL;
        return EXIT_DONE;
    }
    if (*list) return set_value(r, *list, word);
    return complain(r, EXIT_USAGE, "\"%s\" is one argument too many, expected lemon %s %s%s; see lemon %s --help", word,
                    r->command->name, r->command->arguments,
                    r->command->bit & GENERATE ? " --prompt TEXT" :
                    find_flag("--data", 6, r->command->bit) >= 0 ? " --data FILE" : "", r->command->name);
}

/*  -n or --seed, not "-" or a text such as "- an item". */
static int looks_like_flag(const char *word) {
    const char *name = word[0] == '-' && word[1] == '-' ? word + 2 : word + 1;
    return word[0] == '-' && (*name == '-' || isalpha((unsigned char)*name));
}

static int parse_arguments(run *r) {
    const flag *list = NULL;
    int i, only_plain = 0, code = set_fallbacks(r);
    for (i = 2; i < r->argc && code == EXIT_DONE; i++) {
        const char *word = r->argv[i];
        if (!only_plain && strcmp(word, "--") == 0) only_plain = 1, list = NULL;
        else if (!only_plain && looks_like_flag(word)) code = parse_flag(r, &i, &list);
        else code = parse_plain(r, word, &list);
    }
    return code;
}

/*  What makes sense only together with something else. */
static const char *const needs[][2] = {
    {"--distill", "--teacher"},     {"--temperature", "--teacher"}, {"--eval-every", "--eval-data"},
};
/*  What contradicts each other: saved operators bring what these flags would decide. */
static const char *const contradicts[][2] = {
    {"--operators", "--save-operators"}, {"--operators", "--learn"},      {"--operators", "--learn-lr"},
    {"--operators", "--no-solve"},       {"--operators", "--field-dims"}, {"--operators", "--field-layers"},
    {"--operators", "--params"},         {"--operators", "--fraction"},   {"--params", "--fraction"},
    {"--bytes", "--tokenizer"},          {"--choices", "--data"},
};

static int check_pairs(run *r) {
    size_t i;
    for (i = 0; i < sizeof needs / sizeof needs[0]; i++)
        if (was_given(r, needs[i][0]) && !was_given(r, needs[i][1]))
            return complain(r, EXIT_USAGE, "%s is given without %s; give both or neither", needs[i][0], needs[i][1]);
    for (i = 0; i < sizeof contradicts / sizeof contradicts[0]; i++)
        if (was_given(r, contradicts[i][0]) && was_given(r, contradicts[i][1]))
            return complain(r, EXIT_USAGE, "%s and %s contradict each other; give one of them", contradicts[i][0],
                            contradicts[i][1]);
    return EXIT_DONE;
}

static int check_arguments(run *r) {
    int i;
    if (r->n_plain < r->command->n_plain)
        return complain(r, EXIT_USAGE, "an argument is missing, expected lemon %s %s; see lemon %s --help",
                        r->command->name, r->command->arguments, r->command->name);
    for (i = 0; i < N_FLAGS; i++)
        if ((flags[i].required & r->command->bit) && !r->given[i] && !r->set.operators && !r->set.choices &&
            !r->set.params && !was_given(r, "--fraction"))
            return complain(r, EXIT_USAGE, "%s is missing, expected %s %s%s; see lemon %s --help", flags[i].name,
                            flags[i].name, flags[i].value,
                            r->command->bit == FUSE ? " and all other sizes, or --params N, or --fraction X" : "",
                            r->command->name);
    if (was_given(r, "--fraction") && !(r->set.fraction > 0))
        return complain(r, EXIT_USAGE, "--fraction is 0, expected a number above 0 and at most 1; see lemon fuse --help");
    return check_pairs(r);
}

/*  LEMON_ISA and LEMON_THREADS, which the library itself would pass over in silence when they make no sense. */
static int check_environment(run *r) {
    const char *isa = getenv("LEMON_ISA"), *threads = getenv("LEMON_THREADS");
    int64_t n;
    if (isa && *isa && lemon_isa_parse(isa) < 0)
        return complain(r, EXIT_USAGE,
                        "LEMON_ISA is \"%s\", expected scalar, avx2, avx512 or neon; unset it for the best", isa);
    if (isa && *isa && !lemon_isa_supported((lemon_isa)lemon_isa_parse(isa)))
        return complain(r, EXIT_USAGE, "LEMON_ISA is \"%s\", which this CPU or this build lacks; unset it for the best",
                        isa);
    if (threads && *threads && (!parse_whole(threads, 0, &n) || n < 0 || n > 256))
        return complain(r, EXIT_USAGE, "LEMON_THREADS is \"%s\", expected a whole number from 0 to 256; 0 is all cores",
                        threads);
    return EXIT_DONE;
}

/* ====================================================================================================================
   5  HELP
   ================================================================================================================== */

/*  An example as it can be typed here: @ is the folder in which this program lies, its data beside it. */
static void help_example(const char *program, const char *example) {
    const char *slash = strrchr(program, '/');
    int folder = slash ? (int)(slash + 1 - program) : 0;
    fputs("  ", stdout);
    for (; *example; example++) {
        if (*example == '@') printf("%.*s", folder, program);
        else putchar(*example);
        if (*example == '\n') fputs("  ", stdout);
    }
    putchar('\n');
}

static int help_short(const char *program) {
    int i;
    puts("lemon - small language models from large ones, by linear fusion of their weights\n\n"
         "usage: lemon COMMAND ...          lemon COMMAND --help tells its flags, with an example\n");
    for (i = 0; i < N_COMMANDS; i++)
        printf("  %-9s %-12s %s\n", commands[i].name, commands[i].arguments, commands[i].what);
    puts("\nfor example, a quarter of the shipped teacher:\n");
    help_example(program, SOME_TEXT
                 "@lemon fuse @data/teacher.lemon small.lemon --fraction 0.25 --data text.txt\n"
                 "@lemon train small.lemon better.lemon --data text.txt --steps 100 --lr 4e-3\n"
                 "@lemon compare @data/teacher.lemon better.lemon --data text.txt --max-tokens 20k\n"
                 "@lemon chat better.lemon");
    puts("\nMODEL is a .lemon file, a GGUF file, a Hugging Face folder or a llama2.c checkpoint.  OUT ends in .lemon, in\n"
         ".gguf, in .bin for llama2.c or in .h for a C array; any other name is a Hugging Face folder's.  fuse and train\n"
         "write 32-bit numbers; convert --dtype bf16, f16, q8 or q4 makes them smaller.  The vocabulary of NAME.bin goes\n"
         "into NAME.tokenizer.bin beside it: run NAME.bin -z NAME.tokenizer.bin");
    return EXIT_DONE;
}

static void help_flag(const flag *f, unsigned bit) {
    char name[128];
    snprintf(name, sizeof name, "%s%s%s", f->name, f->value ? " " : "", f->value ? f->value : "");
    if (strlen(name) > 22) printf("  %s\n  %-22s %s", name, "", f->help);
    else printf("  %-22s %s", name, f->help);
    if (f->required & bit) fputs(bit == FUSE ? " (required without --params or --fraction)" : " (required)", stdout);
    else if (f->fallback && *f->fallback) printf(" [%s]", f->fallback);
    putchar('\n');
}

static int help_command(const char *program, const command_row *c) {
    int i, common, shown;
    printf("lemon %s - %s\n\nusage: lemon %s %s [flags]\n", c->name, c->what, c->name, c->arguments);
    for (common = 0; common <= 1; common++)
        for (i = shown = 0; i < N_FLAGS; i++) {
            if (!(flags[i].commands & c->bit) || ((flags[i].commands | VOCAB) == ALL) != common) continue;
            if (!shown++) puts(common ? "\nfor all commands:" : "\nflags:");
            help_flag(&flags[i], c->bit);
        }
    puts("\nexample, on what is shipped:");
    help_example(program, c->example);
    return EXIT_DONE;
}

/* ====================================================================================================================
   6  JSON
   ================================================================================================================== */

/*  One object on one line of stdout, begun by the first and closed by json_end. */
static void json_key(const char *before, const char *name) { printf("%s\"%s\": ", before, name); }

static void json_whole(const char *before, const char *name, int64_t value) {
    json_key(before, name);
    printf("%lld", (long long)value);
}

/*  The shortest decimal number that reads back as this one; null for NaN and Inf, which JSON has not. */
static void json_real(const char *before, const char *name, double value) {
    char text[40];
    int digits;
    json_key(before, name);
    for (digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    fputs(value - value == 0 ? text : "null", stdout);
}

static void json_single(const char *before, const char *name, float value) {
    char text[40];
    int digits;
    json_key(before, name);
    for (digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if ((float)strtod(text, NULL) == value) break;
    }
    fputs(value - value == 0 ? text : "null", stdout);
}

/*  Broken UTF-8 becomes U+FFFD, byte by byte. */
static void json_string(const char *text, size_t bytes) {
    size_t i = 0;
    putchar('"');
    while (i < bytes) {
        int n = utf8_length(text + i, bytes - i);
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\') printf("\\%c", c);
        else if (c == '\n') fputs("\\n", stdout);
        else if (c < 0x20 || c == 0x7F) printf("\\u%04x", c);
        else if (n == 0) fputs("\\ufffd", stdout);
        else fwrite(text + i, 1, (size_t)n, stdout);
        i += n ? (size_t)n : 1;
    }
    putchar('"');
}

static void json_text(const char *before, const char *name, const char *text, size_t bytes) {
    json_key(before, name);
    json_string(text, bytes);
}

/*  Ids with something between them; `first`, if it is not negative, before all others. */
static void print_ids(int32_t first, const lemon_tokens *tokens, const char *between) {
    int64_t i;
    if (first >= 0) printf("%d", (int)first);
    for (i = 0; i < tokens->count; i++) printf("%s%d", i || first >= 0 ? between : "", (int)tokens->ids[i]);
}

static void json_tokens(const char *before, const char *name, int32_t first, const lemon_tokens *tokens) {
    json_key(before, name);
    putchar('[');
    print_ids(first, tokens, ", ");
    putchar(']');
}

static int json_end(void) {
    puts("}");
    return EXIT_DONE;
}

/* ====================================================================================================================
   7  LOADING AND SAVING
   ================================================================================================================== */

/*  Gives a model the tokenizer of --tokenizer, in place of its own. */
static int attach_tokenizer(run *r, lemon_model *model) {
    lemon_tokenizer *tokenizer = NULL;
    int code;
    if (r->set.tokenizer == NULL) return EXIT_DONE;
    code = check(r, lemon_tokenizer_load(r->ctx, r->set.tokenizer, model->config.vocab_size, &tokenizer));
    if (code) return code;
    lemon_model_set_tokenizer(r->ctx, model, tokenizer);
    return EXIT_DONE;
}

static int load_model(run *r, const char *path, lemon_model **model) {
    int code = check(r, lemon_load(r->ctx, path, model));
    return code ? code : attach_tokenizer(r, *model);
}

static int need_tokenizer(run *r, const lemon_model *model, const char *path) {
    if (model->tokenizer) return EXIT_DONE;
    return complain(r, EXIT_FAILED,
                    "%s: tokenizer is missing, expected one to read and write text; give --tokenizer FILE", path);
}

static int holds_ids(const char *path) {
    const char *dot = strrchr(path, '.');
    return dot && (strcmp(dot, ".u16") == 0 || strcmp(dot, ".u32") == 0);
}

/*  A model or another file of bytes, given for text by mistake, would be learned letter by letter: text has no byte 0. */
static int need_text(run *r, const char *path) {
    lemon_reader reader;
    char piece[4096];
    int code = check(r, lemon_file_reader(r->ctx, path, &reader)), zero = 0;
    if (code) return code;
    if (reader.size > 0) {
        size_t n = reader.size < sizeof piece ? (size_t)reader.size : sizeof piece;
        code = check(r, reader.read(reader.user, 0, piece, n));
        zero = code == EXIT_DONE && memchr(piece, 0, n) != NULL;
    }
    reader.close(reader.user);
    if (zero) code = complain(r, EXIT_FAILED, "%s: format is not text, expected UTF-8, or token ids in .u16 or .u32", path);
    return code;
}

/*  Files as token ids for a model; path is the model's, for messages. */
static int load_tokens(run *r, const lemon_model *model, const char *path, const char *const *files, int64_t n_files,
                       lemon_tokens *tokens) {
    int64_t i;
    int code = EXIT_DONE;
    for (i = 0; i < n_files && code == EXIT_DONE; i++)
        if (!holds_ids(files[i])) {
            code = need_tokenizer(r, model, path);
            if (code == EXIT_DONE) code = need_text(r, files[i]);
        }
    if (code) return code;
    return check(r,
                 lemon_tokens_from_files(r->ctx, model->tokenizer, model->config.vocab_size, files, n_files, tokens));
}

/*  The same, with something in them to predict. */
static int load_text(run *r, const lemon_model *model, const char *path, const char *const *files, int64_t n_files,
                     lemon_tokens *tokens) {
    int code = load_tokens(r, model, path, files, n_files, tokens);
    if (code || n_files == 0 || tokens->count > 1) return code;
    return complain(r, EXIT_FAILED, "%s: tokens is %lld, expected at least 2; give a file with text in it", files[0],
                    (long long)tokens->count);
}

static int load_data(run *r, const lemon_model *model, const char *path) {
    return load_text(r, model, path, r->set.data, r->set.n_data, &r->tokens);
}

/*  --trim-vocab: *model becomes one with the tokens that the file needs; the one that was read moves to r->whole. */
static int trim_vocabulary(run *r, const char *path, lemon_model **model) {
    lemon_tokens needed;
    int code;
    memset(&needed, 0, sizeof needed);
    if (r->set.trim_vocab == NULL) return EXIT_DONE;
    code = need_tokenizer(r, *model, path);
    if (code == EXIT_DONE) code = load_tokens(r, *model, path, &r->set.trim_vocab, 1, &needed);
    if (code == EXIT_DONE) {
        r->whole = *model;
        *model = NULL;
        code = check(r, lemon_model_trim(r->ctx, r->whole, needed.ids, needed.count, &r->kept, model));
    }
    lemon_tokens_free(r->ctx, &needed);
    return code;
}

/*  Can this file be written?  Asked before the long work, not after it. */
static int check_output(run *r, const char *path) {
    lemon_writer writer;
    int code = path ? check(r, lemon_file_writer(r->ctx, path, &writer)) : EXIT_DONE;
    if (path && code == EXIT_DONE) writer.abort(writer.user);
    return code;
}

static int ends_in(const char *path, const char *ending) {
    size_t n = strlen(path), m = strlen(ending);
    return n >= m && strcmp(path + n - m, ending) == 0;
}

/*  Whether lemon_save takes OUT for a folder. */
static int is_folder(const char *path) {
    return !ends_in(path, ".lemon") && !ends_in(path, ".gguf") && !ends_in(path, ".bin") && !ends_in(path, ".h");
}

/*  The same for OUT; a folder is not made before there is something to put into it, so a file beside it must do. */
static int check_model_output(run *r, const char *path) {
    char beside[4096];
    size_t n = strlen(path);
    if (!is_folder(path)) return check_output(r, path);
    while (n > 1 && path[n - 1] == '/') n--;
    if (n + 7 > sizeof beside) return complain(r, EXIT_USAGE, "OUT is \"%.60s...\", expected a shorter path", path);
    sprintf(beside, "%.*s.check", (int)n, path);
    return check_output(r, beside);
}

/*  llama2.c's .bin has no room for the vocabulary: it goes beside it, into NAME.tokenizer.bin beside NAME.bin. */
static int save_vocabulary(run *r, const char *path, const lemon_model *model) {
    char beside[4096];
    size_t n = strlen(path);
    lemon_status status;
    if (!ends_in(path, ".bin") || model->tokenizer == NULL) return EXIT_DONE;
    if (n + 11 > sizeof beside) return complain(r, EXIT_USAGE, "OUT is \"%.60s...\", expected a shorter path", path);
    sprintf(beside, "%.*s.tokenizer.bin", (int)n - 4, path);
    status = lemon_tokenizer_save(r->ctx, beside, model->tokenizer);
    if (status != LEMON_OK && status != LEMON_E_UNSUPPORTED) return check(r, status);
    progress_clear(&r->bar);
    if (status) fprintf(stderr, "lemon: no vocabulary beside it: %s\n", lemon_error(r->ctx));
    else if (!r->set.quiet) printf("%s: the vocabulary; llama2.c takes it by run %s -z %s\n", beside, path, beside);
    return EXIT_DONE;
}

/* ====================================================================================================================
   8  INFO, CONVERT, TOKENIZE, EVAL, INIT, VOCAB
   ================================================================================================================== */

static int json_model(const lemon_model *model, lemon_dtype dtype) {
    const lemon_config *c = &model->config;
    json_text("{", "format", model->format, strlen(model->format));
    json_text(", ", "dtype", lemon_dtype_name(dtype), strlen(lemon_dtype_name(dtype)));
    json_whole(", ", "params", lemon_config_params(c));
    json_whole(", ", "d_model", c->d_model);
    json_whole(", ", "n_layers", c->n_layers);
    json_whole(", ", "n_heads", c->n_heads);
    json_whole(", ", "kv_heads", c->kv_heads);
    json_whole(", ", "head_dim", c->head_dim);
    json_whole(", ", "d_ffn", c->d_ffn);
    json_whole(", ", "vocab_size", c->vocab_size);
    json_whole(", ", "max_seq", c->max_seq);
    json_single(", ", "rope_theta", c->rope_theta);
    json_single(", ", "rms_norm_eps", c->rms_norm_eps);
    json_key(", ", "tied_embeddings");
    fputs(c->tied_embeddings ? "true" : "false", stdout);
    return json_end();
}

static double weight_bytes(const lemon_model *model) {
    double sum = 0;
    int64_t i;
    for (i = 0; i < model->n_params; i++) sum += (double)lemon_tensor_bytes(&model->params[i]);
    return sum;
}

static void print_model(const char *path, const lemon_model *model) {
    const lemon_config *c = &model->config;
    static const char *const scalings[LEMON_ROPE_COUNT] = {"", ", linear RoPE", ", LLaMA 3's RoPE", ", YaRN"};
    printf("%s: %s, %s%s, %s parameters as %s, %s in memory\n", path,
           strcmp(model->format, "hf") == 0 ? "Hugging Face folder" : model->format[0] ? model->format : "lemon",
           lemon_config_family(c), scalings[c->rope_scaling], IN_COUNT(lemon_config_params(c)),
           lemon_dtype_name(model->dtype), IN_BYTES(weight_bytes(model)));
    printf("  width %d, %d layers, %d heads, %d key-value heads of %d channels, %d FFN neurons\n", (int)c->d_model,
           (int)c->n_layers, (int)c->n_heads, (int)c->kv_heads, (int)c->head_dim, (int)c->d_ffn);
    printf("  vocabulary %d (%s), context %d, embeddings %s, rope_theta %g, eps %g\n", (int)c->vocab_size,
           model->tokenizer ? "with tokenizer" : "no tokenizer", (int)c->max_seq,
           c->tied_embeddings ? "tied" : "untied", (double)c->rope_theta, (double)c->rms_norm_eps);
}

static int command_info(run *r) {
    int code = load_model(r, r->plain[0], &r->model);
    if (code) return code;
    print_model(r->plain[0], r->model);
    return r->set.json ? json_model(r->model, r->model->dtype) : EXIT_DONE;
}

/*  Saves r->model, reads it back and tells what is there now. */
static int save_and_tell(run *r, const char *path, lemon_dtype dtype) {
    lemon_model *saved = NULL;
    lemon_save_options options;
    int code;
    lemon_save_defaults(&options);
    options.dtype = dtype;
    if (r->set.shard_size > 0) options.shard_bytes = (uint64_t)r->set.shard_size;
    code = check(r, lemon_save_with(r->ctx, path, r->model, &options));
    if (code == EXIT_DONE) code = save_vocabulary(r, path, r->model);
    progress_clear(&r->bar);
    if (code == EXIT_DONE && ends_in(path, ".h")) { /* C source: nothing reads it back but a compiler */
        printf("%s: written as a C array, %s\n", path, lemon_dtype_name(dtype));
        return r->set.json ? json_model(r->model, dtype) : EXIT_DONE;
    }
    if (code == EXIT_DONE) code = check(r, lemon_load(r->ctx, path, &saved));
    if (code == EXIT_DONE) print_model(path, saved);
    if (code == EXIT_DONE && r->set.json) json_model(saved, saved->dtype);
    lemon_model_free(r->ctx, saved);
    return code;
}

/*  The number type of OUT where --dtype does not tell: that of the input if OUT's format has it, else f32. */
static lemon_dtype output_dtype(const run *r, const char *path, lemon_dtype input) {
    if (r->set.dtype) return (lemon_dtype)lemon_dtype_parse(r->set.dtype);
    if (ends_in(path, ".bin")) return input == LEMON_Q8 ? LEMON_Q8 : LEMON_F32;
    return is_folder(path) && input > LEMON_F16 ? LEMON_F32 : input;
}

static int command_convert(run *r) {
    int code = check_model_output(r, r->plain[1]);
    if (code == EXIT_DONE) code = load_model(r, r->plain[0], &r->model);
    if (code == EXIT_DONE) code = trim_vocabulary(r, r->plain[0], &r->model);
    if (code) return code;
    return save_and_tell(r, r->plain[1], output_dtype(r, r->plain[1], r->model->dtype));
}

/*  Ids on one line, BOS first where the tokenizer adds one. */
static int command_tokenize(run *r) {
    const char *text = r->plain[1];
    int32_t bos;
    int code = load_model(r, r->plain[0], &r->model);
    if (code == EXIT_DONE) code = need_tokenizer(r, r->model, r->plain[0]);
    if (code == EXIT_DONE) code = check(r, lemon_encode(r->ctx, r->model->tokenizer, text, strlen(text), &r->tokens));
    if (code) return code;
    bos = lemon_tokenizer_adds_bos(r->model->tokenizer) ? lemon_tokenizer_bos(r->model->tokenizer) : -1;
    print_ids(bos, &r->tokens, " ");
    putchar('\n');
    if (!r->set.json) return EXIT_DONE;
    json_tokens("{", "tokens", bos, &r->tokens);
    return json_end();
}

/*  Appends a file to r->text. */
static int read_text(run *r, const char *path) {
    lemon_reader reader;
    char piece[65536];
    uint64_t at;
    int code = check(r, lemon_file_reader(r->ctx, path, &reader));
    if (code) return code;
    for (at = 0; at < reader.size && code == EXIT_DONE; at += sizeof piece) {
        size_t n = reader.size - at < sizeof piece ? (size_t)(reader.size - at) : sizeof piece;
        code = check(r, reader.read(reader.user, at, piece, n));
        if (code == EXIT_DONE) buffer_add(&r->text, piece, n);
    }
    buffer_put(&r->text, "\n");
    reader.close(reader.user);
    if (code == EXIT_DONE && r->text.failed) code = complain(r, EXIT_FAILED, "%s: no memory for the text", path);
    return code;
}

/*  The log-likelihood of ids [from, n) behind those before them, which the session has been fed but for the last. */
static int choice_likelihood(run *r, lemon_session *session, const int32_t *ids, int64_t from, int64_t n, double *sum) {
    int32_t v, vocab = r->model->config.vocab_size;
    float *logits;
    int64_t i;
    int code = check(r, lemon_session_rewind(session, from - 1));
    for (i = from, *sum = 0; i < n && code == EXIT_DONE; i++) {
        double top = -INFINITY, all = 0;
        code = check(r, lemon_session_feed(session, ids + i - 1, 1, &logits));
        if (code) return code;
        for (v = 0; v < vocab; v++) top = (double)logits[v] > top ? (double)logits[v] : top;
        for (v = 0; v < vocab; v++) all += exp((double)logits[v] - top);
        *sum += (double)logits[ids[i]] - top - log(all);
    }
    return code;
}

/*  Ids of BOS, prompt and one choice, into r->tokens; *from: where the choice begins, which is where the ids part from
    those of the prompt alone.  Of what is longer than the context the end stays. */
static int choice_ids(run *r, const choice_item *item, long choice, int64_t *from) {
    const lemon_tokenizer *t = r->model->tokenizer;
    lemon_tokens alone = {NULL, 0, 0};
    int64_t over;
    int code;
    r->text.length = 0;
    buffer_put(&r->text, item->prompt);
    buffer_put(&r->text, item->choices[choice]);
    if (r->text.failed) return complain(r, EXIT_FAILED, "no memory for the text");
    r->tokens.count = 0;
    code = check(r, lemon_tokens_push(r->ctx, &r->tokens, lemon_tokenizer_bos(t)));
    if (code == EXIT_DONE) code = check(r, lemon_tokens_push(r->ctx, &alone, lemon_tokenizer_bos(t)));
    if (code == EXIT_DONE) code = check(r, lemon_encode(r->ctx, t, item->prompt, strlen(item->prompt), &alone));
    if (code == EXIT_DONE) code = check(r, lemon_encode(r->ctx, t, r->text.text, r->text.length, &r->tokens));
    for (*from = 1; *from < alone.count && *from < r->tokens.count && alone.ids[*from] == r->tokens.ids[*from]; ++*from) {}
    lemon_tokens_free(r->ctx, &alone);
    over = r->tokens.count - r->model->config.max_seq;
    if (code || over <= 0) return code;
    memmove(r->tokens.ids, r->tokens.ids + over, (size_t)(r->tokens.count - over) * sizeof *r->tokens.ids);
    r->tokens.count -= over;
    *from = *from - over > 1 ? *from - over : 1;
    return EXIT_DONE;
}

/*  Whether the right choice alone is the likeliest, raw and by byte. */
static int choice_answer(run *r, lemon_session *session, const choice_item *item, int won[2]) {
    double right[2] = {0, 0}, best[2] = {-INFINITY, -INFINITY};
    long i;
    int k, code = EXIT_DONE;
    for (i = 0; i < item->n_choices && code == EXIT_DONE; i++) {
        double score[2];
        int64_t from = 1;
        code = choice_ids(r, item, i, &from);
        if (code == EXIT_DONE) code = check(r, lemon_session_rewind(session, 0));
        if (code == EXIT_DONE && from > 1) code = check(r, lemon_session_feed(session, r->tokens.ids, from - 1, NULL));
        if (code == EXIT_DONE) code = choice_likelihood(r, session, r->tokens.ids, from, r->tokens.count, &score[0]);
        if (code) return code;
        score[1] = score[0] / (double)(strlen(item->choices[i]) + !*item->choices[i]);
        for (k = 0; k < 2; k++) {
            if (i == item->answer) right[k] = score[k];
            else if (score[k] > best[k]) best[k] = score[k];
        }
    }
    for (k = 0; k < 2; k++) won[k] += right[k] > best[k];
    return code;
}

static int choices_all(run *r, lemon_session *session, char *line, int won[2], int64_t *items) {
    int64_t number;
    int code = EXIT_DONE;
    for (number = 1; *line && code == EXIT_DONE; number++) {
        choice_item item;
        char *end = strchr(line, '\n'), *next = end ? end + 1 : line + strlen(line);
        if (end) *end = 0;
        if (line[strspn(line, " \t\r")]) {
            if (!choice_parse(line, &item))
                return complain(r, EXIT_FAILED,
                                "%s: line %lld is no question, expected {\"prompt\": text, \"choices\": [text, ...], "
                                "\"answer\": index}, 2 to %d choices", r->set.choices, (long long)number, CHOICES_MOST);
            code = choice_answer(r, session, &item, won);
            ++*items;
        }
        line = next;
    }
    return code;
}

static int eval_choices(run *r) {
    lemon_session *session = NULL;
    buffer file;
    int64_t items = 0;
    int won[2] = {0, 0}, code = need_tokenizer(r, r->model, r->plain[0]);
    if (code == EXIT_DONE) code = read_text(r, r->set.choices);
    file = r->text;
    memset(&r->text, 0, sizeof r->text);
    if (code == EXIT_DONE) code = check(r, lemon_session_open(r->ctx, r->model, &session));
    if (code == EXIT_DONE && memchr(file.text, 0, file.length))
        code = complain(r, EXIT_FAILED, "%s: it holds a 0 byte, expected text", r->set.choices);
    if (code == EXIT_DONE) code = choices_all(r, session, file.text, won, &items);
    if (code == EXIT_DONE && items == 0) code = complain(r, EXIT_FAILED, "%s: it holds no question", r->set.choices);
    lemon_session_close(session);
    buffer_free(&file);
    if (code) return code;
    progress_clear(&r->bar);
    printf("%.1f%% of %lld questions right, %.1f%% by likelihood per byte\n", 100.0 * won[0] / (double)items,
           (long long)items, 100.0 * won[1] / (double)items);
    if (!r->set.json) return EXIT_DONE;
    json_real("{", "accuracy", won[0] / (double)items);
    json_real(", ", "accuracy_normalised", won[1] / (double)items);
    json_whole(", ", "items", items);
    return json_end();
}

static int command_eval(run *r) {
    double loss = 0;
    int64_t counted = 0;
    int code = load_model(r, r->plain[0], &r->model);
    if (code == EXIT_DONE && r->set.choices) return eval_choices(r);
    if (code == EXIT_DONE) code = load_data(r, r->model, r->plain[0]);
    if (code == EXIT_DONE)
        code = check(r, lemon_eval(r->ctx, r->model, &r->tokens, r->set.seq, r->set.max_tokens, &loss, &counted));
    if (code) return code;
    progress_clear(&r->bar);
    printf("loss %.7f nats, perplexity %.5g, over %lld tokens (%s tokens/s)\n", loss, exp(loss), (long long)counted,
           IN_COUNT(r->bar.seconds > 0 ? (double)counted / r->bar.seconds : 0));
    if (!r->set.json) return EXIT_DONE;
    json_real("{", "loss", loss);
    json_real(", ", "ppl", exp(loss));
    json_whole(", ", "tokens", counted);
    return json_end();
}

/*  The tokenizer of a new model: the byte-level one, or that of --tokenizer. */
static int init_tokenizer(run *r, lemon_tokenizer **tokenizer) {
    if (r->set.bytes) return check(r, lemon_tokenizer_bytes(r->ctx, tokenizer));
    if (r->set.tokenizer) return check(r, lemon_tokenizer_load(r->ctx, r->set.tokenizer, 0, tokenizer));
    return complain(r, EXIT_USAGE,
                    "the vocabulary is missing, expected --tokenizer FILE or --bytes; lemon vocab makes a FILE");
}

static lemon_config init_config(const settings *set, const lemon_tokenizer *tokenizer) {
    lemon_config config;
    lemon_config_defaults(&config);
    config.d_model = (int32_t)set->dim;
    config.n_layers = (int32_t)set->layers;
    config.n_heads = (int32_t)set->heads;
    config.kv_heads = (int32_t)set->kv_heads;
    config.head_dim = (int32_t)(set->head_dim ? set->head_dim : set->dim / set->heads);
    config.d_ffn = (int32_t)set->ffn;
    config.vocab_size = lemon_tokenizer_size(tokenizer);
    if (set->seq) config.max_seq = (int32_t)set->seq;
    config.tied_embeddings = !set->untie;
    return config;
}

static int command_init(run *r) {
    lemon_tokenizer *tokenizer = NULL;
    lemon_config config;
    int code = check_model_output(r, r->plain[0]);
    if (code == EXIT_DONE && r->set.head_dim == 0 && r->set.dim % r->set.heads)
        return complain(r, EXIT_USAGE, "--heads is %lld, expected a divisor of --dim %lld; or give --head-dim",
                        (long long)r->set.heads, (long long)r->set.dim);
    if (code == EXIT_DONE) code = init_tokenizer(r, &tokenizer);
    if (code) return code;
    config = init_config(&r->set, tokenizer);
    code = check(r, lemon_model_create(r->ctx, &config, &r->model));
    if (code) {
        lemon_tokenizer_free(r->ctx, tokenizer);
        return code;
    }
    r->model->tokenizer = tokenizer;
    code = check(r, lemon_model_init(r->ctx, r->model, (uint64_t)r->set.seed));
    return code ? code : save_and_tell(r, r->plain[0], LEMON_F32);
}

/*  Takes out the lines that separate documents: they are no text to learn from. */
static void drop_marks(buffer *text) {
    size_t from = 0, to = 0;
    while (from < text->length) {
        const char *line = text->text + from, *end = (const char *)memchr(line, '\n', text->length - from);
        size_t n = end ? (size_t)(end + 1 - line) : text->length - from;
        size_t mark = n >= 13 && memcmp(line, "<|endoftext|>", 13) == 0 ? 13 : 0;
        if (mark && mark < n && line[mark] == '\r') mark++;
        if (!mark || (mark < n && line[mark] != '\n')) {
            memmove(text->text + to, line, n);
            to += n;
        }
        from += n;
    }
    text->length = to;
}

static int command_vocab(run *r) {
    lemon_tokenizer *tokenizer = NULL;
    int64_t i;
    int code = check_output(r, r->plain[0]);
    for (i = 0; i < r->set.n_data && code == EXIT_DONE; i++) code = read_text(r, r->set.data[i]);
    drop_marks(&r->text);
    if (code == EXIT_DONE)
        code = check(
            r, lemon_tokenizer_train(r->ctx, r->text.text, r->text.length, (int32_t)r->set.size, &tokenizer));
    if (code == EXIT_DONE) code = check(r, lemon_tokenizer_save(r->ctx, r->plain[0], tokenizer));
    if (code == EXIT_DONE) {
        progress_clear(&r->bar);
        printf("%s: %d tokens, as llama2.c's tokenizer.bin\n", r->plain[0], (int)lemon_tokenizer_size(tokenizer));
        if (r->set.json) json_whole("{", "vocab_size", lemon_tokenizer_size(tokenizer)), json_end();
    }
    lemon_tokenizer_free(r->ctx, tokenizer);
    return code;
}

/* ====================================================================================================================
   9  GENERATE
   ================================================================================================================== */

typedef struct writing {
    buffer text;                 /* the continuation, for JSON */
    int64_t tokens;
} writing;

/*  Shows each token as it comes; Ctrl-C ends the text. */
static int on_token(void *user, int32_t id, const char *text, size_t bytes) {
    writing *w = (writing *)user;
    w->tokens += id >= 0;
    buffer_add(&w->text, text, bytes);
    fwrite(text, 1, bytes, stdout);
    fflush(stdout);
    return progress_interrupted != 0;
}

static lemon_sampling sampling_from(const settings *set) {
    lemon_sampling sampling;
    lemon_sampling_defaults(&sampling);
    sampling.temperature = (float)set->temp;
    sampling.top_k = (int32_t)set->top_k;
    sampling.top_p = (float)set->top_p;
    sampling.min_p = (float)set->min_p;
    sampling.seed = (uint64_t)set->seed;
    sampling.stops = &set->stop;
    sampling.n_stops = set->stop != NULL;
    return sampling;
}

static int generate_end(run *r, const writing *w, lemon_stop stop) {
    double seconds = r->bar.seconds;
    putchar('\n');
    if (stop == LEMON_STOP_CONTEXT && !r->set.quiet)
        fprintf(stderr, "lemon: stopped at the end of the context of %d tokens\n", (int)r->model->config.max_seq);
    if (r->set.json) {
        json_text("{", "text", w->text.text ? w->text.text : "", w->text.length);
        json_tokens(", ", "tokens", -1, &r->tokens);
        json_real(", ", "tokens_per_second", seconds > 0 ? (double)w->tokens / seconds : (double)NAN);
        json_end();
    }
    if (w->text.failed) return complain(r, EXIT_FAILED, "no memory for the text");
    return stop == LEMON_STOP_CALLER ? complain(r, EXIT_INTERRUPTED, "interrupted") : EXIT_DONE;
}

static int command_generate(run *r) {
    lemon_sampling sampling = sampling_from(&r->set);
    lemon_stop stop = LEMON_STOP_COUNT;
    writing w;
    int code = load_model(r, r->plain[0], &r->model);
    if (code == EXIT_DONE) code = need_tokenizer(r, r->model, r->plain[0]);
    if (code) return code;
    memset(&w, 0, sizeof w);
    r->bar.quiet = 1;                /* the text itself is the progress */
    fputs(r->set.prompt, stdout);
    fflush(stdout);
    code = check(r, lemon_generate(r->ctx, r->model, r->set.prompt, r->set.count, &sampling, on_token, &w, &r->tokens,
                                   &stop));
    if (code == EXIT_DONE) code = generate_end(r, &w, stop);
    buffer_free(&w.text);
    return code;
}

/* ---- chat ---- */

typedef struct chatting {
    lemon_session *session;
    lemon_sampling sampling;
    lemon_rng rng;
    int32_t *scratch;
    int64_t fed, written;        /* of r->tokens: how many the session has seen; new tokens in all */
    double seconds;              /* that writing took */
    int told;                    /* that the beginning is forgotten */
    float *logits;               /* of what comes after the tokens fed */
    buffer text;                 /* all that the model wrote, for JSON */
} chatting;

static double seconds_now(void) {
#ifdef _WIN32
    return (double)clock() / CLOCKS_PER_SEC;             /* there it is the time on the wall */
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
#endif
}

/*  Feeds the tokens that the session has not seen.  Of a text longer than the context the older half is forgotten. */
static int chat_feed(run *r, chatting *c) {
    int64_t most = r->model->config.max_seq, n = r->tokens.count, keep = most / 2;
    if (n >= most) {
        if (!r->set.quiet && !c->told++)
            fprintf(stderr, "\nlemon: the context of %lld tokens is full: from here on the oldest text is forgotten\n",
                    (long long)most);
        memmove(r->tokens.ids + 1, r->tokens.ids + n - (keep - 1), (size_t)(keep - 1) * sizeof *r->tokens.ids);
        n = r->tokens.count = keep;
        c->fed = 0;
    }
    if (check(r, lemon_session_rewind(c->session, c->fed))) return EXIT_FAILED;
    if (n > c->fed && check(r, lemon_session_feed(c->session, r->tokens.ids + c->fed, n - c->fed, &c->logits)))
        return EXIT_FAILED;
    c->fed = n;
    return EXIT_DONE;
}

/*  A line of the user's, after what is there; a blank between, which some vocabularies put there themselves. */
static int chat_hear(run *r, buffer *line) {
    const lemon_tokenizer *t = r->model->tokenizer;
    int64_t before = r->tokens.count;
    const char *text = " ";
    size_t bytes = 1;
    int code = check(r, lemon_encode(r->ctx, t, line->text, line->length, &r->tokens));
    if (code == EXIT_DONE && before > 1 && r->tokens.count > before)
        code = check(r, lemon_decode(r->ctx, t, r->tokens.ids[before - 1], r->tokens.ids[before], &text, &bytes));
    if (code || before == 1 || (bytes > 0 && strchr(" \n", text[0]))) return code;
    r->tokens.count = before;
    buffer_put(line, " ");
    memmove(line->text + 1, line->text, line->length - 1);
    line->text[0] = ' ';
    return check(r, lemon_encode(r->ctx, t, line->text, line->length, &r->tokens));
}

/*  The model goes on until it has said enough, ends, or is interrupted. */
static int chat_say(run *r, chatting *c) {
    const lemon_tokenizer *t = r->model->tokenizer;
    double start = seconds_now();
    int64_t i;
    int code = chat_feed(r, c);
    for (i = 0; i < r->set.count && code == EXIT_DONE && !progress_interrupted; i++) {
        int32_t last = r->tokens.ids[r->tokens.count - 1],
                id = lemon_sample(c->logits, lemon_tokenizer_size(t), &c->sampling, &c->rng, c->scratch);
        const char *text;
        size_t bytes;
        if (id == lemon_tokenizer_eos(t) || id == lemon_tokenizer_bos(t)) break;
        code = check(r, lemon_decode(r->ctx, t, last, id, &text, &bytes));
        if (code) break;
        fwrite(text, 1, bytes, stdout);
        fflush(stdout);
        buffer_add(&c->text, text, bytes);
        code = check(r, lemon_tokens_push(r->ctx, &r->tokens, id));
        if (code == EXIT_DONE) code = chat_feed(r, c);
        c->written++;
    }
    c->seconds += seconds_now() - start;
    putchar('\n');
    fflush(stdout);
    return code;
}

/*  A line of stdin, without its end; 0: there is none.  Ctrl-C ends the program here, and only a reply elsewhere. */
static int chat_read(buffer *line) {
    char piece[512];
    line->length = 0;
    buffer_put(line, "");
    signal(SIGINT, SIG_DFL);
    while (fgets(piece, sizeof piece, stdin)) {
        buffer_put(line, piece);
        if (line->length && line->text[line->length - 1] == '\n') break;
    }
    progress_interrupted = 0;
    signal(SIGINT, progress_on_signal);
    if (line->length == 0) return 0;
    while (line->length && strchr("\r\n", line->text[line->length - 1])) line->text[--line->length] = 0;
    return !line->failed;
}

static int chat_turns(run *r, chatting *c, buffer *line) {
    int talking = !r->set.quiet && progress_terminal(0), code = EXIT_DONE;
    if (talking) puts("A line goes into the text, and the model goes on; an empty line: it goes on alone; Ctrl-C stops it; "
                      "/new begins\nanother text; /quit or Ctrl-D ends.");
    while (code == EXIT_DONE) {
        if (talking) fputs("> ", stdout), fflush(stdout);
        if (!chat_read(line) || strcmp(line->text, "/quit") == 0) break;
        if (strcmp(line->text, "/new") == 0) {
            r->tokens.count = 1;
            c->fed = 0;
            continue;
        }
        if (line->text[0] == '/' && isalpha((unsigned char)line->text[1]) && !strpbrk(line->text + 1, " /")) {
            fprintf(stderr, "lemon: %s is not known here, /new and /quit are\n", line->text);
            continue;
        }
        if (line->length) code = chat_hear(r, line);
        if (code == EXIT_DONE) code = chat_say(r, c);
    }
    return code;
}

static int command_chat(run *r) {
    chatting c;
    buffer line;
    int code = load_model(r, r->plain[0], &r->model);
    memset(&c, 0, sizeof c);
    memset(&line, 0, sizeof line);
    if (code == EXIT_DONE) code = need_tokenizer(r, r->model, r->plain[0]);
    if (code) return code;
    c.sampling = sampling_from(&r->set);
    lemon_rng_seed(&c.rng, c.sampling.seed);
    c.scratch = (int32_t *)malloc((size_t)r->model->config.vocab_size * 2 * sizeof *c.scratch);
    if (c.scratch == NULL) code = complain(r, EXIT_FAILED, "no memory");
    if (code == EXIT_DONE) code = check(r, lemon_session_open(r->ctx, r->model, &c.session));
    if (code == EXIT_DONE)
        code = check(r, lemon_tokens_push(r->ctx, &r->tokens, lemon_tokenizer_bos(r->model->tokenizer)));
    if (code == EXIT_DONE) code = chat_turns(r, &c, &line);
    if (code == EXIT_DONE && r->set.json) {
        json_text("{", "text", c.text.text ? c.text.text : "", c.text.length);
        json_tokens(", ", "tokens", -1, &r->tokens);
        json_real(", ", "tokens_per_second", c.seconds > 0 ? (double)c.written / c.seconds : (double)NAN);
        json_end();
    }
    lemon_session_close(c.session);
    free(c.scratch);
    buffer_free(&c.text);
    buffer_free(&line);
    return code;
}

/* ---- compare ---- */

typedef struct compared {
    const char *path, *name;
    const lemon_model *model;
    const lemon_tokens *tokens;
    double loss, bits, reads, writes;    /* nats a token, bits a byte (NaN: bytes not known), tokens a second */
    int64_t counted;
    writing text;
} compared;

/*  Bytes of the text that the tokens after the first stand for, documents' beginnings left out; 0: not known. */
static double text_bytes(run *r, const compared *c) {
    const lemon_tokenizer *t = c->model->tokenizer;
    double sum = 0;
    int64_t i;
    for (i = 1; t && i <= c->counted; i++) {
        const char *text;
        size_t bytes;
        if (c->tokens->ids[i] == lemon_tokenizer_bos(t)) continue;
        if (lemon_decode(r->ctx, t, c->tokens->ids[i - 1], c->tokens->ids[i], &text, &bytes)) return 0;
        sum += (double)bytes;
    }
    return sum;
}

static int compare_loss(run *r, compared *c, int64_t seq) {
    double bytes;
    int code = check(r, lemon_eval(r->ctx, c->model, c->tokens, seq, r->set.max_tokens, &c->loss, &c->counted));
    if (code) return code;
    bytes = text_bytes(r, c);
    c->reads = r->bar.seconds > 0 ? (double)c->counted / r->bar.seconds : (double)NAN;
    c->bits = bytes > 0 ? c->loss * (double)c->counted / bytes / log(2.0) : (double)NAN;
    return EXIT_DONE;
}

/*  The first words of the first document that begins in a text, to go on from, into r->text. */
static int first_words(run *r, const lemon_model *model, const lemon_tokens *tokens) {
    const lemon_tokenizer *t = model->tokenizer;
    int64_t i, from = 0;
    int code = EXIT_DONE;
    r->text.length = 0;
    buffer_put(&r->text, r->set.prompt ? r->set.prompt : "");
    while (from < tokens->count && tokens->ids[from] != lemon_tokenizer_bos(t)) from++;
    if (from + 1 >= tokens->count) from = 0;
    for (i = from + 1; !r->set.prompt && i < tokens->count && i <= from + 12 && code == EXIT_DONE; i++) {
        const char *text;
        size_t bytes;
        if (tokens->ids[i] == lemon_tokenizer_bos(t)) break;
        code = check(r, lemon_decode(r->ctx, t, tokens->ids[i - 1], tokens->ids[i], &text, &bytes));
        if (code == EXIT_DONE) buffer_add(&r->text, text, bytes);
    }
    return r->text.failed ? complain(r, EXIT_FAILED, "no memory for the text") : code;
}

static int keep_token(void *user, int32_t id, const char *text, size_t bytes) {
    writing *w = (writing *)user;
    w->tokens += id >= 0;
    buffer_add(&w->text, text, bytes);
    return progress_interrupted != 0;
}

/*  How a model goes on from r->text. */
static int go_on(run *r, const lemon_model *model, int64_t count, const lemon_sampling *sampling, writing *w) {
    lemon_tokens tokens = {NULL, 0, 0};
    int code = check(r, lemon_generate(r->ctx, model, r->text.text, count, sampling, keep_token, w, &tokens, NULL));
    lemon_tokens_free(r->ctx, &tokens);
    if (code == EXIT_DONE && progress_interrupted) return complain(r, EXIT_INTERRUPTED, "interrupted");
    return code;
}

static int compare_text(run *r, compared *c) {
    lemon_sampling sampling = sampling_from(&r->set);
    int code = go_on(r, c->model, r->set.count, &sampling, &c->text);
    c->writes = c->text.tokens > 0 && r->bar.seconds > 0 ? (double)c->text.tokens / r->bar.seconds : (double)NAN;
    return code;
}

/*  For a report: what a model makes of r->text, always the likeliest, if it can write at all. */
static int report_writing(run *r, report *page, const char *who, const lemon_model *model) {
    lemon_sampling sampling;
    writing w;
    int code = EXIT_DONE;
    memset(&w, 0, sizeof w);
    lemon_sampling_defaults(&sampling);
    sampling.temperature = 0;
    if (model == NULL || model->tokenizer == NULL || r->text.text == NULL) return EXIT_DONE;
    code = go_on(r, model, 80, &sampling, &w);
    if (code == EXIT_DONE) report_story(page, who, r->text.text, w.text.text ? w.text.text : "");
    buffer_free(&w.text);
    return code;
}

enum { COLUMN = 36 };

/*  Up to COLUMN characters of a text, broken at a blank where there is one; pads with blanks.  What is left of it. */
static const char *print_piece(const char *p, int pad) {
    const char *end = p, *blank = NULL;
    int width = 0, shown;
    while (*end && *end != '\n' && width < COLUMN) {
        if (*end == ' ') blank = end;
        width += ((unsigned char)*end & 0xC0) != 0x80;
        end++;
    }
    while (((unsigned char)*end & 0xC0) == 0x80) end++;
    if (*end && *end != '\n' && *end != ' ' && blank > p) end = blank;
    fwrite(p, 1, (size_t)(end - p), stdout);
    for (shown = 0; p < end; p++) shown += ((unsigned char)*p & 0xC0) != 0x80;
    for (; pad && shown < COLUMN + 2; shown++) putchar(' ');
    while (*end == ' ') end++;
    return *end == '\n' ? end + 1 : end;
}

static void compare_row(const char *name, const char *a, const char *b) { printf("%-22s %-24s %s\n", name, a, b); }

static const char *in_number(char text[HUMAN], double x) {
    snprintf(text, HUMAN, x - x == 0 ? "%.4f" : "not known", x);
    return text;
}
#define IN_NUMBER(x) in_number((char[HUMAN]){0}, x)

static const char *in_shape(char text[64], const lemon_config *c) {
    snprintf(text, 64, "%d wide, %d layers", (int)c->d_model, (int)c->n_layers);
    return text;
}

static void compare_print(run *r, const compared *c) {
    char shape[2][64];
    const char *p[2];
    const lemon_config *a = &c[0].model->config, *b = &c[1].model->config;
    int i;
    compare_row("", c[0].name, c[1].name);
    compare_row("parameters", IN_COUNT(lemon_config_params(a)), IN_COUNT(lemon_config_params(b)));
    compare_row("shape", in_shape(shape[0], a), in_shape(shape[1], b));
    compare_row("weights", IN_BYTES(weight_bytes(c[0].model)), IN_BYTES(weight_bytes(c[1].model)));
    compare_row("loss, nats a token", IN_NUMBER(c[0].loss), IN_NUMBER(c[1].loss));
    compare_row("perplexity", IN_NUMBER(exp(c[0].loss)), IN_NUMBER(exp(c[1].loss)));
    compare_row("bits a byte", IN_NUMBER(c[0].bits), IN_NUMBER(c[1].bits));
    compare_row("reads, tokens/s", IN_COUNT(c[0].reads), IN_COUNT(c[1].reads));
    if (!r->text.text) return;
    compare_row("writes, tokens/s", IN_COUNT(c[0].writes), IN_COUNT(c[1].writes));
    printf("\n%s ...\n\n", r->text.text);
    for (i = 0; i < 2; i++) p[i] = c[i].name;
    do {
        p[0] = print_piece(p[0], 1), p[1] = print_piece(p[1], 0);
        putchar('\n');
        for (i = 0; i < 2; i++)
            if (p[i] == c[i].name + strlen(c[i].name)) p[i] = c[i].text.text.text ? c[i].text.text.text : "";
    } while (*p[0] || *p[1]);
}

static int compare_json(const run *r, const compared *c) {
    int i;
    for (i = 0; i < 2; i++) {
        json_text(i ? ", {" : "{\"models\": [{", "model", c[i].path, strlen(c[i].path));
        json_whole(", ", "params", lemon_config_params(&c[i].model->config));
        json_whole(", ", "bytes", (int64_t)weight_bytes(c[i].model));
        json_real(", ", "loss", c[i].loss);
        json_real(", ", "ppl", exp(c[i].loss));
        json_real(", ", "bits_per_byte", c[i].bits);
        json_whole(", ", "tokens", c[i].counted);
        json_real(", ", "read_tokens_per_second", c[i].reads);
        json_real(", ", "tokens_per_second", r->text.text ? c[i].writes : (double)NAN);
        json_text(", ", "text", c[i].text.text.text ? c[i].text.text.text : "", c[i].text.text.length);
        putchar('}');
    }
    putchar(']');
    return json_end();
}

/*  Both read the same windows of the same text, each by its own vocabulary. */
static int compare_both(run *r, compared *c) {
    int64_t seq = r->set.seq;
    int i, code = load_model(r, c[0].path, &r->model), writes;
    if (code == EXIT_DONE) code = load_model(r, c[1].path, &r->teacher);
    if (code) return code;
    c[0].model = r->model, c[1].model = r->teacher;
    c[0].tokens = &r->tokens, c[1].tokens = &r->eval_tokens;
    for (i = 0; i < 2 && r->set.seq == 0; i++)
        if (i == 0 || c[i].model->config.max_seq < seq) seq = c[i].model->config.max_seq < 256 ? c[i].model->config.max_seq : 256;
    code = load_data(r, c[0].model, c[0].path);
    if (code == EXIT_DONE) code = load_text(r, c[1].model, c[1].path, r->set.data, r->set.n_data, &r->eval_tokens);
    for (i = 0; i < 2 && code == EXIT_DONE; i++) code = compare_loss(r, &c[i], seq);
    writes = c[0].model->tokenizer && c[1].model->tokenizer;
    if (code == EXIT_DONE && writes) code = first_words(r, c[0].model, c[0].tokens);
    for (i = 0; i < 2 && code == EXIT_DONE && writes; i++) code = compare_text(r, &c[i]);
    return code;
}

static int command_compare(run *r) {
    compared c[2];
    int i, code;
    memset(c, 0, sizeof c);
    for (i = 0; i < 2; i++) {
        const char *slash = strrchr(r->plain[i], '/');
        c[i].path = r->plain[i];
        c[i].name = slash && slash[1] ? slash + 1 : r->plain[i];
    }
    code = compare_both(r, c);
    progress_clear(&r->bar);
    if (code == EXIT_DONE) compare_print(r, c);
    if (code == EXIT_DONE && r->set.json) code = compare_json(r, c);
    for (i = 0; i < 2; i++) buffer_free(&c[i].text.text);
    return code;
}

/* ====================================================================================================================
   10 FUSE
   ================================================================================================================== */

/*  The student's shape: the teacher's constants with the sizes that were given, or one for a budget. */
static int fuse_shape(run *r, lemon_config *shape) {
    const settings *set = &r->set;
    lemon_config config = r->teacher->config;
    if (set->untie) config.tied_embeddings = 0;
    *shape = config;
    shape->d_model = (int32_t)set->dim;
    shape->n_layers = (int32_t)set->layers;
    shape->n_heads = (int32_t)set->heads;
    shape->kv_heads = (int32_t)set->kv_heads;
    shape->d_ffn = (int32_t)set->ffn;
    if (set->params || set->fraction > 0) {
        int64_t budget = set->params ? set->params
                                     : (int64_t)(set->fraction * (double)lemon_config_params(&r->teacher->config));
        shape->head_dim = (int32_t)set->head_dim;
        return check(r, lemon_fuse_shape(r->ctx, &config, budget, shape));
    }
    if (set->head_dim) shape->head_dim = (int32_t)set->head_dim;
    return EXIT_DONE;
}

static lemon_fuse_options fuse_options(const run *r) {
    const settings *set = &r->set;
    lemon_fuse_options options;
    lemon_fuse_defaults(&options);
    options.method = set->method;
    options.tokens = set->tokens;
    options.field_layers = set->field_layers;
    options.field_dims = set->field_dims;
    options.solve = !set->no_solve;
    options.correction = !set->no_correction;
    options.learn_steps = set->learn;
    options.learn_lr = set->learn_lr;
    options.seed = (uint64_t)set->seed;
    return options;
}

/*  A flag that repeats what an operator file holds must agree with it. */
static int operators_agree(run *r, const char *name, int64_t given, int64_t held) {
    if (!was_given(r, name) || given == held) return EXIT_DONE;
    return complain(r, EXIT_USAGE, "%s is %lld, expected %lld as in %s; leave it out", name, (long long)given,
                    (long long)held, r->set.operators);
}

static int operators_check(run *r) {
    const settings *set = &r->set;
    const lemon_config *c = &r->operators->student;
    int code = operators_agree(r, "--dim", set->dim, c->d_model);
    if (code == EXIT_DONE) code = operators_agree(r, "--layers", set->layers, c->n_layers);
    if (code == EXIT_DONE) code = operators_agree(r, "--heads", set->heads, c->n_heads);
    if (code == EXIT_DONE) code = operators_agree(r, "--kv-heads", set->kv_heads, c->kv_heads);
    if (code == EXIT_DONE) code = operators_agree(r, "--ffn", set->ffn, c->d_ffn);
    if (code == EXIT_DONE) code = operators_agree(r, "--head-dim", set->head_dim, c->head_dim);
    if (code == EXIT_DONE) code = operators_agree(r, "--untie", 1, !c->tied_embeddings);
    if (code == EXIT_DONE && was_given(r, "--method") && strcmp(set->method, r->operators->method) != 0)
        code = complain(r, EXIT_USAGE, "--method is %s, expected %s as in %s; leave it out", set->method,
                        r->operators->method, set->operators);
    return code;
}

/*  The part of the text that lemon_operators_fill holds out: the last tenth of its windows.  used: calibration tokens, where
    that is known; of saved operators it is not, and no method takes more of itself than 65,536. */
static lemon_tokens held_out(const run *r, int64_t used) {
    lemon_tokens held = r->tokens;
    int64_t most = r->set.tokens ? r->set.tokens : r->set.operators ? 65536 : used ? used : 32768;
    int64_t n = held.count < most ? held.count : most;
    int64_t seq = r->teacher->config.max_seq < 256 ? r->teacher->config.max_seq : 256;
    int64_t windows, last;
    while (n / seq < 10 && seq > 16) seq /= 2;
    windows = n / seq, last = windows < 10 ? windows > 0 : windows / 10;
    held.ids = held.ids ? held.ids + (windows - last) * seq : NULL;
    held.count = last * seq;
    return held;
}

/*  Operators from a file; the student's loss, if there is text. */
static int fuse_saved(run *r, lemon_fuse_result *result) {
    lemon_tokens held = held_out(r, 0);
    int code = check(r, lemon_operators_load(r->ctx, r->set.operators, &r->operators));
    if (code == EXIT_DONE) code = operators_check(r);
    if (code == EXIT_DONE)
        code = check(r, lemon_operators_apply(r->ctx, r->operators, r->teacher, !r->set.no_correction, &r->model));
    result->init_loss = result->learned_from = NAN;
    result->flops = lemon_flops(r->ctx);
    result->seconds = r->bar.seconds;
    if (code || held.count < 2) return code;
    return check(r, lemon_eval(r->ctx, r->model, &held, 0, 0, &result->init_loss, NULL));
}

/*  Fills operators, keeps them for the report or a file, and applies them. */
static int fuse_filled(run *r, const lemon_config *shape, const lemon_tokens *text, const lemon_fuse_options *options,
                       lemon_fuse_result *result) {
    int code = check_text(r, lemon_operators_fill(r->ctx, r->teacher, shape, text, options, &r->operators, result));
    if (code == EXIT_DONE && r->set.save_operators)
        code = check(r, lemon_operators_save(r->ctx, r->set.save_operators, r->operators));
    if (code) return code;
    return check(r, lemon_operators_apply(r->ctx, r->operators, r->teacher, options->correction, &r->model));
}

/*  Tells what work of more than some seconds will take. */
static int fuse_forecast(run *r, const lemon_config *shape, const lemon_fuse_options *options) {
    lemon_fuse_forecast f;
    int code = check(r, lemon_fuse_plan(r->ctx, r->teacher, shape, r->set.n_data ? r->tokens.count : 0, options, &f));
    if (code == EXIT_DONE && !r->set.quiet && f.seconds > 5) {
        progress_clear(&r->bar);
        fprintf(stderr, "lemon: about %s operations, %s on this machine, %s of memory, ", IN_COUNT(f.flops),
                IN_TIME(f.seconds), IN_BYTES(f.memory));
        if (r->scratch) fprintf(stderr, "%s in %s\n", IN_BYTES(f.scratch), r->scratch);
        else fprintf(stderr, "no file\n");
    }
    return code;
}

static int fuse_by_method(run *r, lemon_fuse_result *result) {
    lemon_config shape;
    lemon_fuse_options options = fuse_options(r);
    const lemon_tokens *text = r->set.n_data ? &r->tokens : NULL;
    int random = strcmp(options.method, "random") == 0, code = fuse_shape(r, &shape);
    if (code == EXIT_DONE) code = check(r, lemon_save_check(r->ctx, r->plain[1], &shape, LEMON_F32));
    if (code) return code;
    if (random && r->set.save_operators)
        return complain(r, EXIT_USAGE, "--save-operators has nothing to save: --method random has no operators");
    code = fuse_forecast(r, &shape, &options);
    if (code) return code;
    if (!random && (r->set.save_operators || r->set.report)) return fuse_filled(r, &shape, text, &options, result);
    return check_text(r, lemon_fuse(r->ctx, r->teacher, &shape, text, &options, &r->model, result));
}

/*  Operators that a program of its own made (09_own_method.c) may bring no name. */
static const char *fuse_method(const run *r) {
    if (r->set.operators == NULL) return r->set.method;
    return r->operators->method[0] ? r->operators->method : "own";
}

/*  The teacher as it was read. */
static const lemon_config *fuse_teacher(const run *r) { return r->whole ? &r->whole->config : &r->teacher->config; }

static int fuse_json(const run *r, const lemon_fuse_result *result) {
    size_t peak = 0;
    lemon_memory(r->ctx, &peak);
    json_text("{", "method", fuse_method(r), strlen(fuse_method(r)));
    json_whole(", ", "teacher_params", lemon_config_params(fuse_teacher(r)));
    json_whole(", ", "student_params", lemon_config_params(&r->model->config));
    json_whole(", ", "calibration_tokens", result->calibration_tokens);
    json_real(", ", "flops", result->flops);
    json_real(", ", "seconds", result->seconds);
    json_whole(", ", "peak_bytes", (int64_t)peak);
    json_real(", ", "init_loss", result->init_loss);
    if (r->whole) json_whole(", ", "kept_tokens", r->kept.count);
    return json_end();
}

static void fuse_shapes(report *page, const lemon_config *teacher, const lemon_config *student) {
    static const char *const columns[] = {"", "teacher", "student"};
    static const char *const names[] = {"parameters", "width", "layers", "heads", "key-value heads", "head width",
                                        "FFN neurons", "vocabulary", "embeddings tied"};
    enum { ROWS = 9 };
    const lemon_config *both[2];
    char text[ROWS - 1][2][24];
    const char *cells[3 * ROWS];
    int i, k;
    both[0] = teacher, both[1] = student;
    for (k = 0; k < 2; k++) {
        const lemon_config *c = both[k];
        int64_t values[ROWS - 1];
        values[0] = lemon_config_params(c), values[1] = c->d_model, values[2] = c->n_layers, values[3] = c->n_heads;
        values[4] = c->kv_heads, values[5] = c->head_dim, values[6] = c->d_ffn, values[7] = c->vocab_size;
        for (i = 0; i < ROWS - 1; i++) {
            snprintf(text[i][k], sizeof text[i][k], "%lld", (long long)values[i]);
            cells[3 * i + 1 + k] = text[i][k];
        }
        cells[3 * i + 1 + k] = c->tied_embeddings ? "yes" : "no";
    }
    for (i = 0; i < ROWS; i++) cells[3 * i] = names[i];
    report_table(page, "Shapes", columns, 3, cells, ROWS);
}

/*  Writes a finished page where --report says. */
static int write_report(run *r, report *page) {
    const char *message;
    report_command(page, r->ctx, r->argc, r->argv);
    message = report_write(page, r->ctx, r->set.report);
    report_free(page);
    return message ? complain(r, EXIT_FAILED, "%s", message) : EXIT_DONE;
}

/*  The sentences that a report of a fusion begins with. */
static void fuse_words(run *r, report *page, const lemon_fuse_result *result, double teacher_loss) {
    const lemon_config *t = fuse_teacher(r), *s = &r->model->config;
    double guess = log((double)s->vocab_size);
    report_text(page, "%s (%s parameters, %d layers, %d wide) became %s (%s parameters, %.0f %% of that, %d layers, %d wide) by "
                "method %s, with %s calibration tokens, in %s and %s operations.", r->plain[0], IN_COUNT(lemon_config_params(t)),
                (int)t->n_layers, (int)t->d_model, r->plain[1], IN_COUNT(lemon_config_params(s)),
                100.0 * (double)lemon_config_params(s) / (double)lemon_config_params(t), (int)s->n_layers, (int)s->d_model,
                fuse_method(r), IN_COUNT(result->calibration_tokens), IN_TIME(result->seconds), IN_COUNT(result->flops));
    if (result->init_loss == result->init_loss)
        report_text(page, "On text that was held out%s, the student's loss is %.4f nats a token before any training; a guess among "
                    "all tokens has %.4f.", r->set.n_data ? "" : " (the teacher's own, as no data were given)", result->init_loss,
                    guess);
    if (teacher_loss == teacher_loss && result->init_loss == result->init_loss)
        report_text(page, "The teacher's is %.4f there: the student begins with %.0f %% of the way from a guess to the teacher "
                    "behind it.", teacher_loss, 100 * (guess - result->init_loss) / (guess - teacher_loss));
    if (result->learned_from == result->learned_from)
        report_text(page, "Learning by gradients brought that loss down from %.4f.", result->learned_from);
    if (r->whole)
        report_text(page, "Of the vocabulary, %lld of %d tokens were kept: those that %s needs.",
                    (long long)r->kept.count, (int)r->whole->config.vocab_size, r->set.trim_vocab);
}

/*  How alike the layers are, and what is lost from one to the next. */
static int fuse_layers(run *r, report *page, const lemon_tokens *text) {
    int64_t t = r->teacher->config.n_layers + 1, s = r->model->config.n_layers + 1, i;
    float *cka = (float *)malloc((size_t)(t * t + s * t + s) * sizeof *cka), *with = cka + t * t, *error = with + s * t;
    report_series lost;
    int code = cka ? EXIT_DONE : complain(r, EXIT_FAILED, "no memory for the report");
    memset(&lost, 0, sizeof lost);
    lost.name = "error";
    if (code == EXIT_DONE) code = check(r, lemon_cka(r->ctx, r->teacher, r->teacher, text, cka));
    if (code == EXIT_DONE) code = check(r, lemon_cka(r->ctx, r->model, r->teacher, text, with));
    if (code == EXIT_DONE && r->operators)
        code = check(r, lemon_operators_error(r->ctx, r->operators, r->teacher, r->model, text, error));
    if (code == EXIT_DONE) {
        report_heading(page, "Layers");
        if (r->operators) report_layer_table(page, r->operators, with, error);
        for (i = 0; i < s && r->operators; i++) report_point(&lost, (double)i, (double)error[i]);
        if (r->operators) report_curves(page, "What is lost of the teacher's stream, by layer", "layers of the student",
                                        "share lost", &lost, 1);
        report_heading(page, "How alike the layers are (CKA)");
        report_grid(page, "The teacher's layers among themselves: 1 is the same up to a rotation. Layers that are alike can stand "
                    "for each other.", "after layer", (int)t, "after layer", (int)t, cka);
        report_grid(page, "The student's layers (rows) and the teacher's (columns).", "after layer", (int)s,
                    "after teacher layer", (int)t, with);
    }
    report_series_free(&lost);
    free(cka);
    return code;
}

static int fuse_texts(run *r, report *page, const lemon_tokens *held) {
    int code;
    if (r->teacher->tokenizer == NULL) return EXIT_DONE;
    code = first_words(r, r->teacher, held);
    report_heading(page, "What they write");
    if (code == EXIT_DONE) code = report_writing(r, page, "The teacher", r->teacher);
    return code ? code : report_writing(r, page, "The student, before any training", r->model);
}

static int fuse_report(run *r, const lemon_fuse_result *result) {
    report page;
    lemon_tokens held = held_out(r, result->calibration_tokens);
    double teacher_loss = (double)NAN;
    int code = EXIT_DONE;
    if (r->set.report == NULL) return EXIT_DONE;
    if (held.count < 4) held = r->tokens;
    if (held.count >= 4) code = check(r, lemon_eval(r->ctx, r->teacher, &held, 0, 0, &teacher_loss, NULL));
    if (code) return code;
    report_begin(&page, "A student fused from a teacher");
    fuse_words(r, &page, result, teacher_loss);
    fuse_shapes(&page, fuse_teacher(r), &r->model->config);
    code = fuse_layers(r, &page, held.count >= 4 ? &held : NULL);
    if (code == EXIT_DONE) code = fuse_texts(r, &page, &held);
    if (code) {
        report_free(&page);
        return code;
    }
    if (r->operators) report_operators(&page, r->operators);
    return write_report(r, &page);
}

/*  A shape that was found, as the flags that would give it. */
static void fuse_print_shape(const lemon_config *c) {
    printf("  --dim %d --layers %d --heads %d --kv-heads %d --head-dim %d --ffn %d\n", (int)c->d_model, (int)c->n_layers,
           (int)c->n_heads, (int)c->kv_heads, (int)c->head_dim, (int)c->d_ffn);
}

static void fuse_print(const run *r, const lemon_fuse_result *result) {
    printf("%s%s: %s parameters from %s by %s, %s calibration tokens, %s, %s operations\n", r->plain[1],
           is_folder(r->plain[1]) ? ", a folder" : "", IN_COUNT(lemon_config_params(&r->model->config)),
           IN_COUNT(lemon_config_params(fuse_teacher(r))), fuse_method(r),
           IN_COUNT(result->calibration_tokens), IN_TIME(result->seconds), IN_COUNT(result->flops));
    if (r->set.params || r->set.fraction > 0) fuse_print_shape(&r->model->config);
    if (r->whole)
        printf("  vocabulary of %lld tokens, those of %d that %s needs\n", (long long)r->kept.count,
               (int)r->whole->config.vocab_size, r->set.trim_vocab);
    if (result->learned_from == result->learned_from)
        printf("  loss on held-out text before learning %.4f nats\n", result->learned_from);
    if (result->init_loss == result->init_loss)
        printf("  loss on held-out text %.4f nats%s\n", result->init_loss,
               result->init_loss == result->learned_from ? ": learning did not lower it, so it was left out" : "");
}

static int fuse_outputs(run *r) {
    int code = strcmp(r->plain[0], r->plain[1]) ? check_model_output(r, r->plain[1])
        : complain(r, EXIT_USAGE, "OUT is %s, the teacher itself, expected another name", r->plain[1]);
    if (code == EXIT_DONE) code = check_output(r, r->set.report);
    return code ? code : check_output(r, r->set.save_operators);
}

/*  The teacher, of a smaller vocabulary where one is asked for; ids of the whole one do not go with that. */
static int fuse_load(run *r) {
    int64_t i;
    int code = load_model(r, r->plain[0], &r->teacher);
    for (i = 0; i < r->set.n_data && r->set.trim_vocab && code == EXIT_DONE; i++)
        if (holds_ids(r->set.data[i]))
            code = complain(r, EXIT_USAGE,
                            "--data is %s, expected text with --trim-vocab, which gives all tokens new ids",
                            r->set.data[i]);
    return code ? code : trim_vocabulary(r, r->plain[0], &r->teacher);
}

static int command_fuse(run *r) {
    lemon_fuse_result result;
    int code = fuse_outputs(r);
    memset(&result, 0, sizeof result);
    if (code == EXIT_DONE) code = fuse_load(r);
    if (code == EXIT_DONE) code = load_data(r, r->teacher, r->plain[0]);
    if (code == EXIT_DONE) code = r->set.operators ? fuse_saved(r, &result) : fuse_by_method(r, &result);
    if (code == EXIT_INTERRUPTED && !r->set.quiet)
        fprintf(stderr, "lemon: the same command goes on from what is in %s, if that is there\n", r->scratch);
    if (code == EXIT_DONE) code = check(r, lemon_save(r->ctx, r->plain[1], r->model, LEMON_F32));
    if (code == EXIT_DONE) code = save_vocabulary(r, r->plain[1], r->model);
    if (code == EXIT_DONE) code = fuse_report(r, &result);
    if (code) return code;
    if (r->scratch) remove(r->scratch);                  /* kept until all that it is for is saved */
    progress_clear(&r->bar);
    fuse_print(r, &result);
    return r->set.json ? fuse_json(r, &result) : EXIT_DONE;
}

/* ====================================================================================================================
   11 TRAIN
   ================================================================================================================== */

static const char log_header[] = "step,tokens,loss,kl,lr,grad_norm,seconds\n";

/*  Begins the log; on --resume the rows that are there are kept until it is known where the run goes on. */
static int log_open(run *r) {
    char piece[4096];
    size_t n;
    FILE *old = r->set.resume ? fopen(r->set.log, "rb") : NULL;
    while (old && (n = fread(piece, 1, sizeof piece, old)) > 0) buffer_add(&r->log_rows, piece, n);
    if (old) fclose(old);
    if (r->log_rows.failed) return complain(r, EXIT_FAILED, "%s: no memory", r->set.log);
    r->log = fopen(r->set.log, old ? "ab" : "wb");
    if (r->log == NULL) return complain(r, EXIT_FAILED, "%s: could not open: %s", r->set.log, strerror(errno));
    if (!old) fputs(log_header, r->log);
    return EXIT_DONE;
}

/*  Resumed at `step`: writes the log anew with the rows before it; its seconds go on from theirs. */
static void log_cut(run *r, int64_t step) {
    const char *row = r->log_rows.text ? r->log_rows.text : "";
    FILE *log = fopen(r->set.log, "wb");
    if (log == NULL) return;
    fclose(r->log);
    r->log = log;
    fputs(log_header, log);
    while (*row) {
        const char *end = strchr(row, '\n');
        if (end == NULL) break;                          /* a row that was cut off */
        if (*row >= '0' && *row <= '9' && strtoll(row, NULL, 10) < step) {
            const char *last = end;
            while (last > row && last[-1] != ',') last--;
            r->log_seconds = strtod(last, NULL);
            fwrite(row, 1, (size_t)(end + 1 - row), log);
        }
        row = end + 1;
    }
}

static void log_step(run *r, const lemon_step *step) {
    if (r->log == NULL) return;
    if (r->first_step == 0 && r->set.resume) log_cut(r, step->step);
    fprintf(r->log, "%lld,%lld,%.9g,%.9g,%.9g,%.9g,%.3f\n", (long long)step->step, (long long)step->tokens, step->loss,
            step->kl, step->lr, step->grad_norm, r->log_seconds + step->seconds);
    fflush(r->log);
}

static void on_step(void *user, const lemon_step *step) {
    run *r = (run *)user;
    log_step(r, step);
    r->last_step = *step;
    if (r->first_step == 0) {
        r->first_step = step->step;
        r->tokens_before = step->tokens - step->tokens / step->step;    /* steps are equally long */
        r->first_loss = step->loss;
    }
    if (step->step == r->first_step || step->loss < r->best_step.loss) r->best_step = *step;
    if (r->set.report == NULL) return;
    report_point(&r->loss, (double)step->tokens, step->loss);
    if (r->teacher) report_point(&r->kl, (double)step->tokens, step->kl);
    report_point(&r->held_out, (double)step->tokens, step->eval_loss);
}

static void on_plan(void *user, size_t bytes, size_t scratch) {
    const run *r = (const run *)user;
    if (r->set.quiet) return;
    printf("memory needed: %s", IN_BYTES(bytes));
    if (scratch) printf(", and %s in a file beside %s", IN_BYTES(scratch), r->plain[1]);
    printf("\n");
}

static lemon_train_options train_options(run *r) {
    const settings *set = &r->set;
    lemon_train_options options;
    lemon_train_defaults(&options);
    options.steps = set->steps;
    options.batch = set->batch;
    options.seq = set->seq;
    options.accumulate = set->accumulate;
    options.lr = set->lr;
    options.min_lr = set->min_lr;
    options.warmup = set->warmup;
    options.schedule = strcmp(set->schedule, "constant") == 0 ? LEMON_CONSTANT : LEMON_COSINE;
    options.weight_decay = set->weight_decay;
    options.clip = set->clip;
    options.teacher = r->teacher;
    options.distill = r->teacher ? set->distill : 0;
    options.temperature = set->temperature;
    options.order = strcmp(set->order, "sequential") == 0 ? LEMON_SEQUENTIAL : LEMON_RANDOM;
    options.seed = (uint64_t)set->seed;
    options.eval_tokens = set->eval_data ? &r->eval_tokens : NULL;
    options.eval_every = set->eval_every;
    options.save_path = r->plain[1];
    options.save_every = set->save_every;
    options.resume = set->resume;
    options.recompute = set->recompute;
    options.moments = strcmp(set->moments, "bf16") == 0 ? LEMON_BF16 : LEMON_F32;
    options.keep_teacher = set->keep_teacher;
    options.on_plan = on_plan;
    options.on_step = on_step;
    options.user = r;
    return options;
}

/*  Loads what is read, and makes of it a model of f32 weights that may be changed. */
static int train_model(run *r) {
    lemon_model *copy = NULL;
    int code = load_model(r, r->plain[0], &r->model);
    if (code == EXIT_DONE) code = check(r, lemon_model_clone(r->ctx, r->model, &copy));
    if (code) return code;
    lemon_model_free(r->ctx, r->model);
    r->model = copy;
    return EXIT_DONE;
}

/*  Is there a run to go on with?  Asked before the model and the text are read. */
static int check_resume(run *r) {
    char state[4096];
    FILE *file;
    snprintf(state, sizeof state, "%.4000s.resume", r->plain[1]);
    file = fopen(state, "rb");
    if (file) return fclose(file), EXIT_DONE;
    return complain(r, EXIT_FAILED, "%s: could not open: %s; there is nothing to go on with: leave out --resume, and give "
                    "--save-every N", state, strerror(errno));
}

static int train_load(run *r) {
    int code = check_model_output(r, r->plain[1]);
    if (code == EXIT_DONE) code = check_output(r, r->set.report);
    if (code == EXIT_DONE && r->set.resume) code = check_resume(r);
    if (code == EXIT_DONE) code = train_model(r);
    if (code == EXIT_DONE) code = check(r, lemon_save_check(r->ctx, r->plain[1], &r->model->config, LEMON_F32));
    if (code == EXIT_DONE && r->set.teacher) code = check(r, lemon_load(r->ctx, r->set.teacher, &r->teacher));
    if (code == EXIT_DONE) code = load_data(r, r->model, r->plain[0]);
    if (code == EXIT_DONE && r->set.eval_data)
        code = load_text(r, r->model, r->plain[0], &r->set.eval_data, 1, &r->eval_tokens);
    if (code == EXIT_DONE && r->set.log) code = log_open(r);
    return code;
}

static int train_report(run *r, const lemon_train_result *result) {
    report page;
    report_series series[3];
    int n = 0, code = EXIT_DONE, reported;
    if (r->set.report == NULL) return EXIT_DONE;
    r->loss.name = "training loss", r->kl.name = "KL to the teacher", r->held_out.name = "loss on held-out text";
    series[n++] = r->loss;
    if (r->held_out.count) series[n++] = r->held_out;
    if (r->kl.count) series[n++] = r->kl;
    report_begin(&page, "A training run");
    report_text(&page, "%s became %s, %s parameters: %lld steps, %s tokens, %s.", r->plain[0], r->plain[1],
                IN_COUNT(lemon_config_params(&r->model->config)), (long long)result->steps, IN_COUNT(result->tokens),
                IN_TIME(result->seconds));
    if (result->train_loss == result->train_loss)
        report_text(&page, "Mean training loss of the last ten steps: %.4f nats a token.", result->train_loss);
    if (result->eval_loss == result->eval_loss)
        report_text(&page, "Loss on held-out text at the end: %.4f nats a token.", result->eval_loss);
    report_heading(&page, "Curves");
    report_curves(&page, "Loss against tokens", "tokens", "nats a token", series, n);
    if (r->model->tokenizer && result->train_loss == result->train_loss) {
        report_heading(&page, r->teacher ? "What they write" : "What it writes");
        code = first_words(r, r->model, r->eval_tokens.count ? &r->eval_tokens : &r->tokens);
        if (code == EXIT_DONE) code = report_writing(r, &page, "The model as it is now", r->model);
        if (code == EXIT_DONE) code = report_writing(r, &page, "Its teacher", r->teacher);
    }
    reported = write_report(r, &page);
    return code ? code : reported;
}

static int train_json(const run *r, const lemon_train_result *result) {
    size_t peak = 0;
    lemon_memory(r->ctx, &peak);
    json_whole("{", "steps", result->steps);
    json_whole(", ", "tokens", result->tokens);
    json_real(", ", "train_loss", result->train_loss);
    json_real(", ", "eval_loss", result->eval_loss);
    json_real(", ", "tokens_per_second",
              result->seconds > 0 ? (double)(result->tokens - r->tokens_before) / result->seconds : (double)NAN);
    json_whole(", ", "peak_bytes", (int64_t)peak);
    json_real(", ", "flops", lemon_flops(r->ctx));
    return json_end();
}

static void train_print(const run *r, const lemon_train_result *result) {
    printf("%s%s: %lld steps, %s tokens, %s, %s operations, training loss %.4f nats\n", r->plain[1],
           is_folder(r->plain[1]) ? ", a folder" : "", (long long)result->steps, IN_COUNT(result->tokens),
           IN_TIME(result->seconds), IN_COUNT(lemon_flops(r->ctx)),
           result->train_loss);
    if (result->eval_loss == result->eval_loss) printf("  loss on %s %.4f nats\n", r->set.eval_data, result->eval_loss);
}

/*  A run that ends far above where it began has spoiled its model, with numbers that are all finite: no other error. */
static void train_warn(const run *r, const lemon_train_result *result) {
    if (r->set.quiet || !r->first_step || !(result->train_loss > r->first_loss + 0.5)) return;
    fprintf(stderr, "lemon: warning: the loss rose from %.4f at step %lld to %.4f; it was lowest at step %lld, %.4f; a lower --lr "
            "may help\n", r->first_loss, (long long)r->first_step, result->train_loss, (long long)r->best_step.step,
            r->best_step.loss);
}

/*  What is known of a run that ended early. */
static void train_partial(const run *r, lemon_train_result *result) {
    memset(result, 0, sizeof *result);
    result->steps = r->last_step.step;
    result->tokens = r->last_step.tokens;
    result->seconds = r->last_step.seconds;
    result->train_loss = result->eval_loss = NAN;
}

static int command_train(run *r) {
    lemon_train_result result;
    lemon_train_options options;
    int code = train_load(r), reported;
    if (code) return code;
    options = train_options(r);
    code = check_text(r, lemon_train(r->ctx, r->model, &r->tokens, &options, &result));
    if (code) train_partial(r, &result);
    else code = save_vocabulary(r, r->plain[1], r->model);
    if (code == EXIT_INTERRUPTED && !r->set.quiet && !r->first_step)
        fprintf(stderr, "lemon: no step was done, so nothing was saved; the same command begins again\n");
    else if (code == EXIT_INTERRUPTED && !r->set.quiet)
        fprintf(stderr, "lemon: saved; the same command with --resume goes on from %s.resume\n", r->plain[1]);
    reported = r->first_step ? train_report(r, &result) : EXIT_DONE;
    if (r->log && ferror(r->log) && code == EXIT_DONE)
        code = complain(r, EXIT_FAILED, "%s: could not write", r->set.log);
    if (code || reported) return code ? code : reported;
    progress_clear(&r->bar);
    train_print(r, &result);
    train_warn(r, &result);
    return r->set.json ? train_json(r, &result) : EXIT_DONE;
}

/* ====================================================================================================================
   12 MAIN
   ================================================================================================================== */

static const command_row *find_command(const char *name) {
    int i;
    for (i = 0; i < N_COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0) return &commands[i];
    return NULL;
}

static int unknown_command(run *r, const char *name) {
    suggestion near;
    int i;
    if (*name == '-')
        return complain(r, EXIT_USAGE, "%s is before the command, expected lemon COMMAND ... %s; lemon --help lists them", name,
                        name);
    suggest_begin(&near, name);
    for (i = 0; i < N_COMMANDS; i++) suggest(&near, commands[i].name);
    if (near.best[0]) return complain(r, EXIT_USAGE, "\"%s\" is no command; did you mean lemon %s?", name, near.best);
    return complain(r, EXIT_USAGE, "\"%s\" is no command; lemon --help lists them", name);
}

/*  OUT.part for fusing, and for training that is to keep to a limit; NULL for all else. */
static char *part_name(const run *r) {
    const char *out = r->plain[1];
    int wanted = r->command->bit == FUSE || (r->command->bit == TRAIN && r->set.max_memory > 0);
    size_t n = out && wanted ? strlen(out) : 0;
    char *name = n ? (char *)malloc(n + 6) : NULL;
    while (n > 1 && out[n - 1] == '/') n--;
    if (name) memcpy(name, out, n), memcpy(name + n, ".part", 6);
    return name;
}

static int run_open(run *r) {
    lemon_options options;
    int code = check_environment(r);
    if (code) return code;
    memset(&options, 0, sizeof options);
    options.threads = (int)r->set.threads;
    options.int8 = r->set.int8;
    options.memory = (size_t)r->set.max_memory;
    options.scratch = r->scratch = part_name(r);
    options.user = &r->bar;
    options.progress = progress_callback;
    progress_begin(&r->bar, r->set.quiet);
    r->ctx = lemon_open(&options);
    return r->ctx ? EXIT_DONE : complain(r, EXIT_FAILED, "no memory to begin with");
}

static void run_close(run *r) {
    if (r->log) fclose(r->log);
    if (r->ctx) {
        lemon_operators_free(r->ctx, r->operators);
        lemon_tokens_free(r->ctx, &r->tokens);
        lemon_tokens_free(r->ctx, &r->eval_tokens);
        lemon_tokens_free(r->ctx, &r->kept);
        lemon_model_free(r->ctx, r->teacher);
        lemon_model_free(r->ctx, r->model);
        lemon_model_free(r->ctx, r->whole);
    }
    lemon_close(r->ctx);
    free(r->scratch);
    report_series_free(&r->loss);
    report_series_free(&r->kl);
    report_series_free(&r->held_out);
    buffer_free(&r->text);
    buffer_free(&r->log_rows);
    free((void *)r->set.data);
}

static int tell_version(void) {
    puts("lemon " LEMON_VERSION);
    return EXIT_DONE;
}

static int run_command(run *r) {
    int code = parse_arguments(r);
    if (r->set.help) return help_command(r->argv[0], r->command);
    if (r->set.version) return tell_version();
    if (code == EXIT_DONE) code = check_arguments(r);
    if (code == EXIT_DONE) code = run_open(r);
    if (code == EXIT_DONE) code = r->command->go(r);
    progress_clear(&r->bar);
    return code;
}

/*  Were descriptors 0 to 2 closed, files would get them, and what is printed would go into these. */
static void hold_descriptors(void) {
#ifndef _WIN32
    int file = 0;
    while (file >= 0 && file < 3) file = open("/dev/null", O_RDONLY);
    if (file >= 0) close(file);
#endif
}

int main(int argc, char **argv) {
    run r;
    const command_row *named = NULL;                     /* in lemon help COMMAND */
    int code;
    hold_descriptors();
    memset(&r, 0, sizeof r);
    r.argc = argc;
    r.argv = argv;
    if (argc > 1) r.command = find_command(argv[1]);
    if (argc > 2) named = find_command(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "help") && named) code = help_command(argv[0], named);
    else if (argc < 2 || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"))
        code = help_short(argc > 0 ? argv[0] : "lemon");
    else if (strcmp(argv[1], "--version") == 0) code = tell_version();
    else code = r.command ? run_command(&r) : unknown_command(&r, argv[1]);
    if (code == EXIT_DONE && (fflush(stdout) || ferror(stdout)))
        code = complain(&r, EXIT_FAILED, "the output could not be written: %s", strerror(errno));
    run_close(&r);
    return code;
}
