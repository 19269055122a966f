/*  lemon.h - v0.1.0 - a large language model in, a smaller one that already knows most of it out
                       public domain or MIT-0, at your choice; see the end of this file

    0  WHAT THIS IS, HOW TO USE IT

    lemon.h takes a LLaMA-type language model (the teacher) and makes a smaller one (the student) of any shape, not from
    random numbers but from the teacher's own weights, by two linear operators:

        student layer i  =  sum over teacher layers j in its field of   weight_ij * Out * W_j * In^T

    the LAYER OPERATOR says which teacher layers stand in the receptive field of a student layer, and how much; the
    DIMENSION OPERATOR maps the channels, heads and FFN neurons of the teacher to the student's.  It then goes on training
    the student, generates text with it, and saves it.  It is an implementation of LEMON (Chen et al., "Reviving Stronger
    and Smaller LMs from Larger LMs with Linear Parameter Fusion", ACL 2024) with operators that are solved, not only
    learned.

    Quick notes:
        In ONE C or C++ file:      #define LEMON_IMPLEMENTATION
                                   #include "lemon.h"
        In all others:             #include "lemon.h"
        Link with:                 -lm (and -pthread unless LEMON_NO_THREADS)
        C99 and later, C++11 and later.  No dependency but libc and libm.
        A call that fails returns a status that is not 0, frees what it had begun, and leaves a message in the context.

    TABLE OF CONTENTS: the line where a chapter's declarations begin, the line where it is explained and implemented (or a
    little before: `make -C tests contents` puts them right), and what is there.  Chapters use those above them only.
    Who has never met a transformer begins with examples/00_whole_idea.c: all of it in 250 lines of C.
        1  Platform        259   1293   contexts, status, memory, threads, CPU features, time, files
        2  Numbers         382   2410   bf16 and f16, random numbers, checksums
        3  Tensors         404   2561   a dense view, storage types, arenas
        4  GEMM            438   2831   the matrix product
        5  Kernels           -   4687   RMSNorm, RoPE, attention, SwiGLU, cross-entropy: forward and backward
        6  Tape            466   5790   reverse-mode automatic differentiation
        7  Model           542   6443   the config, the table of parameters, the LLaMA forward pass
        8  Checkpoints     673   7042   the .lemon format, byte by byte; Hugging Face, GGUF and llama2.c in and out
        9  Tokenizers      703  10157   text to ids and back; text files to training data
       10  Inference       792  12850   the key-value cache, sampling
       11  Training        857  13271   evaluation, AdamW, schedules, distillation, resume
       12  Fusion          929  14042   operators, the methods that fill them, apply and learn

    Five small programs.  They are compiled and run by the tests, one after the other, in a folder with a teacher.lemon (for
    example examples/data/teacher.lemon) and a text.txt (examples/stories --count 500 > text.txt).

    1. A teacher in, a student out.  What is not named of its shape stays the teacher's; more tokens to solve the operators on
       are better:

        #define LEMON_IMPLEMENTATION
        #include "lemon.h"

        int main(void) {
            lemon_ctx *ctx = lemon_open(NULL);
            lemon_model *teacher = NULL, *student = NULL;
            lemon_config shape;
            lemon_fuse_options options;
            lemon_status status = lemon_load(ctx, "teacher.lemon", &teacher);
            if (!status) {
                shape = teacher->config;
                shape.d_model = 64, shape.n_layers = 4, shape.n_heads = 4, shape.kv_heads = 2, shape.d_ffn = 176;
                lemon_fuse_defaults(&options);
                options.tokens = 8192;
                status = lemon_fuse(ctx, teacher, &shape, NULL, &options, &student, NULL);
            }
            if (!status) status = lemon_save(ctx, "student.lemon", student, LEMON_F32);
            if (status) fprintf(stderr, "lemon: error: %s\n", lemon_error(ctx));
            lemon_model_free(ctx, student);
            lemon_model_free(ctx, teacher);
            lemon_close(ctx);
            return status != LEMON_OK;
        }

    2. It goes on learning, from a text and from its teacher.  A loaded model is read only; its clone has weights to change:

        #define LEMON_IMPLEMENTATION
        #include "lemon.h"

        int main(void) {
            const char *data = "text.txt";
            lemon_ctx *ctx = lemon_open(NULL);
            lemon_model *file = NULL, *model = NULL, *teacher = NULL;
            lemon_tokens text = {NULL, 0, 0};
            lemon_train_options options;
            lemon_train_result result;
            lemon_status status = lemon_load(ctx, "student.lemon", &file);
            if (!status) status = lemon_model_clone(ctx, file, &model);
            if (!status) status = lemon_load(ctx, "teacher.lemon", &teacher);
            if (!status) status = lemon_tokens_from_files(ctx, model->tokenizer, model->config.vocab_size, &data, 1, &text);
            lemon_train_defaults(&options);
            options.steps = 20, options.batch = 4, options.lr = 2e-3;
            options.teacher = teacher, options.distill = 0.5;
            if (!status) status = lemon_train(ctx, model, &text, &options, &result);
            if (!status) status = lemon_save(ctx, "trained.lemon", model, LEMON_F32);
            if (!status) printf("loss %.4f\n", result.train_loss);
            if (status) fprintf(stderr, "lemon: error: %s\n", lemon_error(ctx));
            lemon_tokens_free(ctx, &text);
            lemon_model_free(ctx, teacher);
            lemon_model_free(ctx, model);
            lemon_model_free(ctx, file);
            lemon_close(ctx);
            return status != LEMON_OK;
        }

    3. It writes; each piece of text comes through a callback, which ends it by a result that is not 0:

        #define LEMON_IMPLEMENTATION
        #include "lemon.h"

        static int show(void *user, int32_t id, const char *text, size_t bytes) {
            (void)user, (void)id;
            return fwrite(text, 1, bytes, stdout) < bytes;
        }

        int main(void) {
            lemon_ctx *ctx = lemon_open(NULL);
            lemon_model *model = NULL;
            lemon_tokens ids = {NULL, 0, 0};
            lemon_sampling sampling;
            lemon_status status = lemon_load(ctx, "trained.lemon", &model);
            lemon_sampling_defaults(&sampling);
            sampling.temperature = 0.7f;
            if (!status) status = lemon_generate(ctx, model, "One day", 60, &sampling, show, NULL, &ids, NULL);
            lemon_tokens_free(ctx, &ids);
            lemon_model_free(ctx, model);
            lemon_close(ctx);
            return status != LEMON_OK;
        }

    4. The same a token a call, as in a game's loop, with a say in what comes: no token that has a full stop in it:

        #define LEMON_IMPLEMENTATION
        #include "lemon.h"

        int main(void) {
            lemon_ctx *ctx = lemon_open(NULL);
            lemon_model *model = NULL;
            lemon_session *session = NULL;
            lemon_status status = lemon_load(ctx, "trained.lemon", &model);
            int32_t id = status ? 0 : lemon_tokenizer_bos(model->tokenizer), last, i, frame;
            const char *text;
            float *scores;
            size_t bytes;
            if (!status) status = lemon_session_open(ctx, model, &session);
            for (frame = 0; !status && frame < 40; frame++) {
                status = lemon_session_feed(session, &id, 1, &scores);
                for (last = id, id = -1, i = 0; !status && i < model->config.vocab_size; i++) {
                    status = lemon_decode(ctx, model->tokenizer, last, i, &text, &bytes);
                    if (!status && !memchr(text, '.', bytes) && (id < 0 || scores[i] > scores[id])) id = i;
                }
                if (!status) status = lemon_decode(ctx, model->tokenizer, last, id, &text, &bytes);
                if (!status) fwrite(text, 1, bytes, stdout);
            }
            lemon_session_close(session);
            lemon_model_free(ctx, model);
            lemon_close(ctx);
            return status != LEMON_OK;
        }

    5. It goes to llama.cpp, in 8 bits, and comes back; what did that cost?

        #define LEMON_IMPLEMENTATION
        #include "lemon.h"

        int main(void) {
            const char *data = "text.txt", *path[] = {"trained.lemon", "trained.gguf"};
            lemon_ctx *ctx = lemon_open(NULL);
            lemon_status status = LEMON_OK;
            double loss;
            int i;
            for (i = 0; !status && i < 2; i++) {
                lemon_model *model = NULL;
                lemon_tokens text = {NULL, 0, 0};
                status = lemon_load(ctx, path[i], &model);
                if (!status)
                    status = lemon_tokens_from_files(ctx, model->tokenizer, model->config.vocab_size, &data, 1, &text);
                if (!status) status = lemon_eval(ctx, model, &text, 0, 8192, &loss, NULL);
                if (!status) printf("%s: loss %.4f\n", path[i], loss);
                if (!status && i == 0) status = lemon_save(ctx, path[1], model, LEMON_Q8);
                lemon_tokens_free(ctx, &text);
                lemon_model_free(ctx, model);
            }
            if (status) fprintf(stderr, "lemon: error: %s\n", lemon_error(ctx));
            lemon_close(ctx);
            return status != LEMON_OK;
        }

    Compile-time options, to be defined before the implementation is included:
        LEMON_STATIC           every function is static: two copies can live in one program
        LEMON_NO_THREADS       one thread, no pthread call, no atomics; so it is too where a compiler has no 64-bit atomics
        LEMON_NO_SIMD          plain C only
        LEMON_NO_STDIO         no files, environment or clock: models come from readers, and go to writers, of your own
        LEMON_NO_TRAIN         without chapters 6, 11 and 12, and what only they need
        LEMON_NO_FUSE          without chapter 12
        LEMON_NO_FORMATS       .lemon files alone are read and written
        LEMON_NO_BPE           ids become text, but no text becomes ids
        LEMON_MALLOC(bytes), LEMON_FREE(p)   the allocator that stands behind contexts which bring none (a LEMON_REALLOC
                               is not needed: what grows moves)
        LEMON_SECONDS()        a clock, as a double that grows; 0.0 will do where there is none
        LEMON_USE_BLIS         large matrix products go to cblas_sgemm of the BLIS, or any other CBLAS, that you link
        LEMON_ASSERT(x)        what checks the library's own invariants (default: nothing)
    No layout depends on any of them, and files that only include the declarations need not define them.

    Conventions:
        Shapes are [rows, cols], row-major; a weight matrix is [out, in], as in PyTorch, so y = x * W^T.
        Shape letters:  B sequences, T tokens in each, N = B * T rows, D d_model, H query heads, K key-value heads,
                        C head_dim, F d_ffn, V vocab_size, L layers.
        In formulas * between matrices is their product, between vectors it goes number by number; ^T is a transpose, |x| a
        length, E[...] the mean over all tokens of a text, softmax(z)_i = e^z_i / sum over j of e^z_j; logits are the scores
        z [V] of the next token before their softmax.
        A function that can fail returns a lemon_status; lemon_error(ctx) then says what was wrong and what to do, and what it
        hands out is NULL.  Errors that a comment does not name are these: LEMON_E_ARG for NULL, or a value that cannot be;
        LEMON_E_MEMORY; LEMON_E_CANCELLED of what calls the progress callback; and of what reads or writes files LEMON_E_IO,
        LEMON_E_FORMAT and LEMON_E_UNSUPPORTED.
        Numbers are float (f32) where no dtype is named, losses nats a token, times seconds, sizes bytes.
        What a function hands out through a pointer to a pointer belongs to the caller, who frees it; what it is given is
        read only while it runs, but for what its comment says.
        A context is used by one thread at a time; two threads use two contexts.  Models and tokenizers that are only read
        may be shared between contexts.
        Nothing here prints, exits or aborts.

    Questions that come up:
        The text is gibberish from its first word.  The tokenizer is another model's: lemon info tells the sizes, which must
            agree, and --tokenizer (lemon_model_set_tokenizer) gives the right one.  Ids of one vocabulary mean nothing in
            another, and a loss near the logarithm of its size, or above, says so.
        The text falls apart after some twenty tokens.  Rows of q and k are in another order: Hugging Face turns halves of a
            head, llama2.c, GGUF and .lemon turn neighbours.  lemon_load and lemon_save put them in order; a converter of
            your own must do it too, KV head by KV head, weights and biases.
        output.weight is missing, or there twice.  The embeddings are tied: one matrix reads and writes.  tied_embeddings
            says so; a student can have an output of its own all the same (set it to 0; --untie).
        Loss or gradients are NaN.  LEMON_E_DIVERGED; the weights are the last that did well.  A lower lr, a longer warmup,
            clip not 0.  A model that is NaN at once was so in its file, or was f16 out of range: try bf16.
        It needs too much memory.  on_plan tells before the first step.  Smaller batch or seq, accumulate, recompute; with
            lemon_options.scratch three quarters of what training keeps for each weight may lie in a file; a session with
            fewer max_seq, an f16 cache; lemon_options.memory is a limit that is kept, LEMON_E_MEMORY beyond.
        The first step is slow.  It lays out and touches all memory and reads the weights from disk; later steps allocate
            nothing.  Look at the third.
*/
#ifndef LEMON_H
#define LEMON_H

#include <stddef.h>
#include <stdint.h>

#define LEMON_VERSION_MAJOR 0
#define LEMON_VERSION_MINOR 1
#define LEMON_VERSION_PATCH 0
#define LEMON_VERSION "0.1.0"

#if defined(LEMON_STATIC) && (defined(__GNUC__) || defined(__clang__))
#define LEMON_API static __attribute__((unused))
#elif defined(LEMON_STATIC)
#define LEMON_API static
#else
#define LEMON_API extern
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ====================================================================================================================
   1  PLATFORM: contexts, status, memory, threads, CPU features, time, files
   ================================================================================================================== */

/*  What a call came to.  Zero is success; the message is in the context. */
typedef enum lemon_status {
    LEMON_OK = 0,
    LEMON_E_ARG,          /* an argument, a shape or an option that cannot be */
    LEMON_E_MEMORY,       /* the allocator said no */
    LEMON_E_IO,           /* a file could not be opened, read or written */
    LEMON_E_FORMAT,       /* a file is damaged or not what it claims to be */
    LEMON_E_UNSUPPORTED,  /* well-formed, but not something that lemon.h knows */
    LEMON_E_CANCELLED,    /* the progress callback asked to stop */
    LEMON_E_DIVERGED      /* loss or gradients went to NaN or Inf */
} lemon_status;

/*  The instruction sets that kernels exist for. */
typedef enum lemon_isa {
    LEMON_ISA_AUTO = 0,   /* the best that the CPU has */
    LEMON_ISA_SCALAR,
    LEMON_ISA_AVX2,       /* AVX2 and FMA */
    LEMON_ISA_AVX512,     /* AVX-512F besides */
    LEMON_ISA_NEON,
    LEMON_ISA_WASM        /* WebAssembly's SIMD128, where the compiler was told to use it (-msimd128) */
} lemon_isa;

/*  Where long work stands; given to the progress callback about ten times a second, and at the end of each piece of
    work. */
typedef struct lemon_progress {
    const char *what;         /* "train", "fuse", "eval", "generate", ... */
    int64_t done, total;      /* units of work; total may be 0 when it is not known */
    double loss;              /* the latest loss, or NaN where there is none */
    double seconds;           /* since this piece of work began */
} lemon_progress;

/*  How a context is to work.  A zeroed struct is the defaults.  The struct is copied. */
typedef struct lemon_options {
    int threads;              /* 0: LEMON_THREADS of the environment, else all cores */
    lemon_isa isa;            /* LEMON_ISA_AUTO: LEMON_ISA of the environment, else the best that the CPU has */
    void *user;               /* handed to the callbacks below */
    size_t memory;            /* most bytes that it may have at once; 0: as many as the machine has, where that is known */
    int int8;                 /* not 0: what is multiplied with q8 and q4 weights is rounded to blocks of 8 bits as well, so
                                 that their products are of integers: fewer instructions, about as exact as q8 itself.
                                 LEMON_NO_TRAIN, _THREADS and _SIMD together leave it out: they make the smallest program */
    /*  A file that fusion keeps in place of memory: the student, and where it stands, so that after a kill the same call
        goes on from the last finished layer; what would pass `memory` besides (in files beside it, without a name).  Training
        keeps gradients and moments in such a file where they would pass `memory`, with the same bits.  NULL: all in memory.
        The path must stay valid; the file is yours to remove; of several processes each has its own, PATH.RANK.  POSIX only;
        elsewhere it is not used. */
    const char *scratch;
    /*  Allocation in one function: makes (old NULL), resizes (neither is 0) and frees (new_bytes 0, returns NULL).
        NULL result otherwise: no memory.  At least 16-byte aligned.  NULL: malloc. */
    void *(*resize)(void *user, void *old, size_t old_bytes, size_t new_bytes);
    /*  Called by the thread that called the library; a non-zero result cancels the work (LEMON_E_CANCELLED). */
    int (*progress)(void *user, const lemon_progress *progress);
    /*  Your own threads in place of the context's: calls task(arg, i, worker) for each i = 0 ... count-1, and returns when
        all are done.  0 <= worker < threads, and no two tasks that run at the same time have the same.  NULL: a pool of
        `threads` that the context makes. */
    void (*parallel)(void *user, int64_t count, void (*task)(void *arg, int64_t index, int worker), void *arg);
    /*  Several processes on one training or one calibration: this one's number, and how many there are (0 and 1: alone).
        all_reduce puts in place of each of `count` numbers of `bytes` bytes each (4: float, 8: double) the sum of it over
        all processes, the same bits everywhere; a non-zero result ends the work (LEMON_E_IO).  All processes make the same
        calls on the same data.  Training shares the parts of a batch, of which there are `accumulate`; calibration its
        windows.  Process 0 saves. */
    int rank, ranks;
    int (*all_reduce)(void *user, void *buffer, int64_t count, size_t bytes);
} lemon_options;

typedef struct lemon_ctx lemon_ctx;

/*  Opens a context: the allocator, the threads, the last error.  options may be NULL (defaults).
    NULL when there is no memory, when the asked-for ISA is not in this CPU, or when threads is not in 0 ... 256. */
LEMON_API lemon_ctx *lemon_open(const lemon_options *options);

/*  Ends the threads and frees the context.  What was made with it must have been freed before.  NULL is fine. */
LEMON_API void lemon_close(lemon_ctx *ctx);

/*  The message of the last call that failed in this context; "" if none did.  Valid until the next failure.  Never NULL; of
    ctx NULL it says why lemon_open may have given that. */
LEMON_API const char *lemon_error(const lemon_ctx *ctx);

/*  A status as a short English phrase; a static string. */
LEMON_API const char *lemon_status_name(lemon_status status);

/*  The name of an ISA as LEMON_ISA spells it ("scalar", "avx2", "avx512", "neon", "wasm"; "auto"), and back.
    lemon_isa_parse returns -1 for a name it does not know. */
LEMON_API const char *lemon_isa_name(lemon_isa isa);
LEMON_API int lemon_isa_parse(const char *name);
/*  1 if this CPU (and this build) can run kernels for the ISA, else 0. */
LEMON_API int lemon_isa_supported(lemon_isa isa);
/*  What a context works with: its ISA and its number of threads.  NULL: what lemon_sgemm(NULL, ...) uses. */
LEMON_API lemon_isa lemon_ctx_isa(const lemon_ctx *ctx);
LEMON_API int lemon_ctx_threads(const lemon_ctx *ctx);

/*  Bytes that the context has allocated now, and the most it ever had at once. */
LEMON_API size_t lemon_memory(const lemon_ctx *ctx, size_t *peak);
/*  Floating-point operations that matrix products and attention have done in this context since it was opened. */
LEMON_API double lemon_flops(const lemon_ctx *ctx);

/*  Where bytes come from: a file, memory, your own storage.  All calls return LEMON_OK or LEMON_E_IO. */
typedef struct lemon_reader {
    void *user;
    const char *name;         /* for messages */
    uint64_t size;            /* bytes in all */
    const uint8_t *map;       /* all bytes in memory, or NULL; read is then used */
    lemon_status (*read)(void *user, uint64_t offset, void *buffer, size_t bytes);
    void (*close)(void *user);  /* may be NULL */
} lemon_reader;

/*  Where bytes go: appended in order, then committed (all is safe under its final name) or aborted (nothing is left). */
typedef struct lemon_writer {
    void *user;
    const char *name;
    lemon_status (*append)(void *user, const void *bytes, size_t count);
    lemon_status (*commit)(void *user);
    void (*abort)(void *user);
} lemon_writer;

/*  A reader of the file at `path` (UTF-8), mapped where the system can.  Close it with reader->close(reader->user). */
LEMON_API lemon_status lemon_file_reader(lemon_ctx *ctx, const char *path, lemon_reader *reader);
/*  A writer of the file at `path`: writes a new file beside it, and on commit flushes it and renames it over `path`. */
LEMON_API lemon_status lemon_file_writer(lemon_ctx *ctx, const char *path, lemon_writer *writer);

/* ====================================================================================================================
   2  NUMBERS: bf16 and f16, random numbers, checksums
   ================================================================================================================== */

/*  Conversions, round to nearest even; NaN stays NaN, overflow goes to Inf. */
LEMON_API uint16_t lemon_bf16_from_f32(float x);
LEMON_API float lemon_f32_from_bf16(uint16_t x);
LEMON_API uint16_t lemon_f16_from_f32(float x);
LEMON_API float lemon_f32_from_f16(uint16_t x);

/*  A random number generator (SplitMix64, Steele et al. 2014): the state is a counter, so it can be saved as one
    number. The same seed gives the same numbers everywhere. */
typedef struct lemon_rng { uint64_t state; } lemon_rng;
LEMON_API void lemon_rng_seed(lemon_rng *rng, uint64_t seed);
LEMON_API uint64_t lemon_rng_next(lemon_rng *rng);               /* 64 random bits */
LEMON_API int64_t lemon_rng_below(lemon_rng *rng, int64_t n);    /* uniform in 0 ... n-1, without bias; n >= 1 */
LEMON_API double lemon_rng_uniform(lemon_rng *rng);              /* uniform in [0, 1), 53 bits */
LEMON_API double lemon_rng_normal(lemon_rng *rng);               /* mean 0, variance 1 */

/*  CRC-32 as in zlib and PNG; begin with crc 0, or go on with an earlier result. */
LEMON_API uint32_t lemon_crc32(uint32_t crc, const void *bytes, size_t count);

/* ====================================================================================================================
   3  TENSORS: a dense view, storage types, arenas
   ================================================================================================================== */

/*  How numbers are stored.  q8 and q4 are blocks of 32 along a row: an f16 scale, then 32 signed bytes, or 16 bytes
    that hold two 4-bit numbers each (value = scale * (nibble - 8); low nibbles are numbers 0..15 of the block).  They
    are GGUF's Q8_0 and Q4_0; the last block of a row may be padded with zeros. */
typedef enum lemon_dtype {
    LEMON_F32 = 0, LEMON_BF16, LEMON_F16, LEMON_Q8, LEMON_Q4, LEMON_U8, LEMON_I32, LEMON_F64, LEMON_DTYPE_COUNT
} lemon_dtype;

/*  A dense row-major matrix [rows, cols] or vector [1, cols] in memory that somebody else owns. */
typedef struct lemon_tensor {
    void *data;
    lemon_dtype dtype;
    int64_t rows, cols;
} lemon_tensor;

LEMON_API const char *lemon_dtype_name(lemon_dtype dtype); /* "f32", "bf16", "f16", "q8", "q4", "u8", "i32", "f64" */
LEMON_API int lemon_dtype_parse(const char *name);               /* -1: unknown */
/*  Bytes of one row of `cols` numbers, and of a whole tensor; 0 where that is not representable (overflow, bad dtype). */
LEMON_API size_t lemon_row_bytes(lemon_dtype dtype, int64_t cols);
LEMON_API size_t lemon_tensor_bytes(const lemon_tensor *tensor);
/*  Decodes row `row` of a tensor (f32, bf16, f16, q8, q4; others: zeros) into cols floats, and encodes cols floats into a
    row (others: nothing).  Nothing is done for a NULL or a row that is not there. */
LEMON_API void lemon_row_to_f32(const lemon_tensor *tensor, int64_t row, float *out);
LEMON_API void lemon_row_from_f32(lemon_tensor *tensor, int64_t row, const float *in);

/*  An arena: many allocations, one free.  Zero the struct to begin; memory is 64-byte aligned and zeroed.
    lemon_arena_alloc returns NULL when there is no memory (the context's message says so). */
typedef struct lemon_arena { void *blocks; } lemon_arena;
LEMON_API void *lemon_arena_alloc(lemon_ctx *ctx, lemon_arena *arena, size_t bytes);
LEMON_API void lemon_arena_free(lemon_ctx *ctx, lemon_arena *arena);

/* ====================================================================================================================
   4  GEMM: the matrix product
   ================================================================================================================== */

/*  C = alpha * op(A) * op(B) + beta * C, single precision, row-major, with the meaning of cblas_sgemm:
    op(A) is [m, k], op(B) is [k, n], C is [m, n]; op transposes where trans_a, trans_b is not 0; lda, ldb, ldc are the
    distances between rows as stored.  beta 0 overwrites C even where it is NaN; NaN and Inf flow as in the naive loop.
    alpha 0 or k 0 only scales C and reads neither A nor B.
    ctx may be NULL: one thread.  The result has the same bits for any number of threads; with LEMON_USE_BLIS, where the
    product goes to a CBLAS, that is the CBLAS's affair, as is its number of threads.
    LEMON_E_ARG: a negative size, an ld smaller than a row, a NULL where data are needed.  LEMON_E_MEMORY: no packing
    buffers.  Threads: as any call on a context; with NULL, any number at once. */
LEMON_API lemon_status lemon_sgemm(lemon_ctx *ctx, int trans_a, int trans_b, int64_t m, int64_t n, int64_t k,
                                   float alpha, const float *a, int64_t lda, const float *b, int64_t ldb, float beta,
                                   float *c, int64_t ldc);

/*  op(B) [k, n] rearranged once, for many products: in the order in which the inner loops read it, so that B is never
    packed again and a few rows of A read it as one stream.  It holds a copy; B may go.  For the ISA of the context; freed
    with lemon_packed_free, NULL is fine.  LEMON_E_ARG as lemon_sgemm, LEMON_E_MEMORY. */
typedef struct lemon_packed lemon_packed;
LEMON_API lemon_status lemon_sgemm_pack(lemon_ctx *ctx, int trans_b, int64_t n, int64_t k, const float *b, int64_t ldb,
                                        lemon_packed **packed);
LEMON_API void lemon_packed_free(lemon_ctx *ctx, lemon_packed *packed);
/*  lemon_sgemm with a packed B; n and k are its own.  The context has the ISA that B was packed for (LEMON_E_ARG else).
    Same bits for any number of threads; they may differ in rounding from those of lemon_sgemm. */
LEMON_API lemon_status lemon_sgemm_packed(lemon_ctx *ctx, int trans_a, int64_t m, float alpha, const float *a,
                                          int64_t lda, const lemon_packed *packed, float beta, float *c, int64_t ldc);

/* ====================================================================================================================
   6  TAPE: reverse-mode automatic differentiation   (chapter 5, the kernels under it, has no public part)
   ================================================================================================================== */

/*  A tape records operations on matrices once; it is then planned (all memory is laid out, each buffer living only as long
    as somebody still needs it) and run as often as you like: forward computes values, backward adds the gradient of the
    last recorded loss to the gradients of the leaves.  After lemon_tape_plan nothing is allocated.

    Errors are sticky: a recording call that fails returns a negative variable, later calls with it fail too, and
    lemon_tape_plan returns the first error.  So a whole model is recorded with one check at its end. */
typedef struct lemon_tape lemon_tape;
typedef int32_t lemon_var;                     /* a value on a tape */
/*  How the parts of the loss are weighed; see lemon_tape_loss. */
typedef struct lemon_loss_options { float distill, temperature, scale; } lemon_loss_options;

#ifndef LEMON_NO_TRAIN
/*  An empty tape, to be closed before its context.  LEMON_E_MEMORY. */
LEMON_API lemon_status lemon_tape_open(lemon_ctx *ctx, lemon_tape **tape);
LEMON_API void lemon_tape_close(lemon_tape *tape);      /* NULL is fine */

/*  A matrix [rows, cols] of the caller's.  grad (same shape) is added to by backward; NULL makes it a constant. */
LEMON_API lemon_var lemon_tape_leaf(lemon_tape *tape, const float *data, float *grad, int64_t rows, int64_t cols);
/*  A constant of any storage type; only as the matrix of lemon_tape_matmul(trans_b = 1), lemon_tape_embed and
    lemon_tape_loss.  The tensor's data must outlive the tape. */
LEMON_API lemon_var lemon_tape_weight(lemon_tape *tape, const lemon_tensor *tensor);
/*  Rows of table [V, D] picked by tokens[rows]; the array is read anew at every run and must hold ids below V. */
LEMON_API lemon_var lemon_tape_embed(lemon_tape *tape, lemon_var table, const int32_t *tokens, int64_t rows);
/*  op(a) * op(b), transposed where the flags are set. */
LEMON_API lemon_var lemon_tape_matmul(lemon_tape *tape, lemon_var a, int trans_a, lemon_var b, int trans_b);
/*  a + b, equal shapes. */
LEMON_API lemon_var lemon_tape_add(lemon_tape *tape, lemon_var a, lemon_var b);
/*  bias [1, cols] added to each row of x. */
LEMON_API lemon_var lemon_tape_bias(lemon_tape *tape, lemon_var x, lemon_var bias);
/*  Each row of x divided by its root mean square, times gain [1, cols] (RMSNorm, Zhang and Sennrich 2019).  A gain that
    is shorter, by a whole number, is for heads side by side in a row, each divided by its own. */
LEMON_API lemon_var lemon_tape_rms_norm(lemon_tape *tape, lemon_var x, lemon_var gain, float eps);
/*  Rotary positions (RoPE, Su et al. 2021) on rows of heads side by side: in each head, channels 2i and 2i+1, a plane,
    turn by position * theta^(-2i/head_dim); row r stands at position r modulo seq. */
LEMON_API lemon_var lemon_tape_rope(lemon_tape *tape, lemon_var x, int64_t head_dim, int64_t seq, float theta);
/*  Causal grouped-query attention within each run of seq rows: q [N, H*C], k and v [N, K*C] to [N, H*C]; query head h
    reads key-value head h / (H/K); scores are scaled by 1/sqrt(C).  A row sees itself and the window-1 rows before it;
    window 0: all before it.  No T x T matrix is kept. */
LEMON_API lemon_var lemon_tape_attention(lemon_tape *tape, lemon_var q, lemon_var k, lemon_var v, int64_t n_heads,
                                         int64_t kv_heads, int64_t head_dim, int64_t seq, int64_t window);
/*  silu(gate) * up, elementwise (SwiGLU, Shazeer 2020). */
LEMON_API lemon_var lemon_tape_swiglu(lemon_tape *tape, lemon_var gate, lemon_var up);
/*  The layer operator: sum over i of weights[0][i] * x[i]; weights is [1, n], the x have equal shapes. */
LEMON_API lemon_var lemon_tape_mix(lemon_tape *tape, const lemon_var *x, int64_t n, lemon_var weights);
/*  The loss of a language model, the end of a tape:  scale * mean over rows of
        (1 - distill) * cross-entropy(targets, softmax(hidden * output^T))
        + distill * temperature^2 * KL(softmax(teacher logits / temperature), softmax(logits / temperature)).
    hidden [N, D]: the stream after its last norm; output [V, D].  Logits are made a few rows at a time and never stored
    whole.  teacher_hidden and teacher_output (negative: none) make the teacher's.  Rows whose target is negative do not
    count.  The value is [1, 2]: mean cross-entropy and mean KL, without scale; after lemon_tape_backward it is filled in
    as well. */
LEMON_API lemon_var lemon_tape_loss(lemon_tape *tape, lemon_var hidden, lemon_var output, const int32_t *targets,
                                    lemon_var teacher_hidden, lemon_var teacher_output,
                                    const lemon_loss_options *options);
/*  Keeps a value readable after the run; otherwise its memory may serve others. */
LEMON_API void lemon_tape_keep(lemon_tape *tape, lemon_var x);
/*  Begins a segment of what is recorded from here on.  again 1: what is made and used within the segment is not kept for
    backward, but made once more when backward comes there, with the same bits (activation recomputation, Chen et al. 2016):
    a segment's memory serves the others, for the time of one more forward pass of it. */
LEMON_API void lemon_tape_segment(lemon_tape *tape, int again);

/*  Lays out all memory; backward 0: only lemon_tape_forward will be called, and values are freed as soon as they are
    used. bytes (may be NULL) receives what the plan takes. */
LEMON_API lemon_status lemon_tape_plan(lemon_tape *tape, int backward, size_t *bytes);
/*  Runs all operations in order.  On a tape planned for backward, the loss itself is left to lemon_tape_backward. */
LEMON_API lemon_status lemon_tape_forward(lemon_tape *tape);
/*  After lemon_tape_forward: computes the loss and adds its gradient to every leaf's grad. */
LEMON_API lemon_status lemon_tape_backward(lemon_tape *tape);
/*  The value of a variable, [rows, cols], that is still there after the run (kept ones, leaves of f32, the loss); else NULL. */
LEMON_API const float *lemon_tape_value(const lemon_tape *tape, lemon_var x);
#endif /* LEMON_NO_TRAIN */

/* ====================================================================================================================
   7  MODEL: the config, the table of parameters, the LLaMA forward pass
   ================================================================================================================== */

/*  How RoPE's speeds are changed for contexts longer than those of pretraining: all by one factor (Chen et al. 2023); by
    what LLaMA 3.1 does, the fast planes not; by YaRN (Peng et al. 2023), which also lengthens queries and keys. */
typedef enum lemon_rope_scaling {
    LEMON_ROPE_PLAIN = 0, LEMON_ROPE_LINEAR, LEMON_ROPE_LLAMA3, LEMON_ROPE_YARN, LEMON_ROPE_COUNT
} lemon_rope_scaling;

/*  The shape and the constants of a model.  From qkv_bias on, zero is LLaMA's own. */
typedef struct lemon_config {
    int32_t d_model;          /* width of the residual stream */
    int32_t n_layers;
    int32_t n_heads;          /* query heads */
    int32_t kv_heads;         /* key and value heads; divides n_heads */
    int32_t head_dim;         /* channels of a head, even; often d_model / n_heads */
    int32_t d_ffn;            /* neurons of the feed-forward block */
    int32_t vocab_size;
    int32_t max_seq;          /* the context: the longest sequence in tokens */
    int32_t tied_embeddings;  /* 1: the output matrix is the embedding */
    float rope_theta;         /* the base of RoPE's speeds: see lemon_tape_rope */
    float rms_norm_eps;       /* added to the mean square of a norm */
    int32_t qkv_bias;         /* 1: queries, keys and values have biases (Qwen2) */
    int32_t qk_norm;          /* 1: RMSNorm of each head of queries and keys, before RoPE (Qwen3) */
    int32_t window;           /* tokens that a token sees, itself among them (Mistral); 0: all before it */
    int32_t rope_scaling;     /* a lemon_rope_scaling; what follows is its numbers */
    int32_t rope_original;    /* the context of pretraining (llama3, yarn) */
    float rope_factor;        /* how much slower the slow planes turn */
    float rope_slow;          /* planes that turn less often than this within the old context are slow: by the factor, */
    float rope_fast;          /*   those that turn more often than this are not slowed, the others by part of it */
    float rope_magnitude;     /* what queries and keys are multiplied by (yarn) */
} lemon_config;

/*  rope_theta 10000, eps 1e-5, tied, max_seq 256; the sizes are 0 and yours to set. */
LEMON_API void lemon_config_defaults(lemon_config *config);
/*  LEMON_OK, or LEMON_E_ARG with the field and the value that cannot be. */
LEMON_API lemon_status lemon_config_check(lemon_ctx *ctx, const lemon_config *config);
/*  How many numbers a model of that shape has; 0 for one that cannot be. */
LEMON_API int64_t lemon_config_params(const lemon_config *config);
/*  What others call the architecture: "llama", "mistral" (a window), "qwen2" (biases), "qwen3" (q and k norms). */
LEMON_API const char *lemon_config_family(const lemon_config *config);

/*  The roles that weights play, in llama2.c's order.  Everything that loops over weights loops over these. */
typedef enum lemon_role {
    LEMON_TOK_EMBED = 0,      /* [V, D] */
    LEMON_ATTN_NORM,          /* [1, D]    one per layer, as all that follow up to k_norm */
    LEMON_WQ,                 /* [H*C, D] */
    LEMON_WK,                 /* [K*C, D] */
    LEMON_WV,                 /* [K*C, D] */
    LEMON_WO,                 /* [D, H*C] */
    LEMON_FFN_NORM,           /* [1, D] */
    LEMON_W_GATE,             /* [F, D] */
    LEMON_W_UP,               /* [F, D] */
    LEMON_W_DOWN,             /* [D, F] */
    LEMON_BQ,                 /* [1, H*C]  this and the next two where qkv_bias is set */
    LEMON_BK,                 /* [1, K*C] */
    LEMON_BV,                 /* [1, K*C] */
    LEMON_Q_NORM,             /* [1, C]    this and the next where qk_norm is set */
    LEMON_K_NORM,             /* [1, C] */
    LEMON_FINAL_NORM,         /* [1, D]    one per model */
    LEMON_OUTPUT,             /* [V, D]    absent where the embeddings are tied */
    LEMON_ROLE_COUNT
} lemon_role;

/*  The joints of the network: where the output of one matrix meets the input of the next.  VALUE is what wv writes, HEADS
    what attention makes of it for wo, H heads side by side; HEAD is one of them, where the gains of qk_norm stand. */
typedef enum lemon_joint {
    LEMON_JOINT_NONE = 0, LEMON_JOINT_VOCAB, LEMON_JOINT_RESIDUAL, LEMON_JOINT_QUERY, LEMON_JOINT_KEY,
    LEMON_JOINT_VALUE, LEMON_JOINT_HEADS, LEMON_JOINT_FFN, LEMON_JOINT_HEAD
} lemon_joint;

/*  One row of the table of parameters. */
typedef struct lemon_role_info {
    const char *name;         /* in .lemon files: "layers.N." before it where per_layer */
    const char *hf, *gguf;    /* names in those formats, without ".weight" or ".bias" */
    int per_layer;
    int matrix;               /* 1: a matrix [out, in]; 0: a vector, [1, in] */
    int bias;                 /* 1: a vector that is added; 0: the gain of a norm */
    lemon_joint out, in;      /* the joints at its output and its input side */
} lemon_role_info;

/*  The row of a role; a static one, or NULL for what is no role. */
LEMON_API const lemon_role_info *lemon_role_get(lemon_role role);
/*  The size of a joint in a model of that shape. */
LEMON_API int64_t lemon_joint_size(const lemon_config *config, lemon_joint joint);

typedef struct lemon_tokenizer lemon_tokenizer;

/*  Bytes that a checkpoint brought and that go with the model unread: the tokenizer files of a Hugging Face folder under
    their names, metadata of a GGUF file that mean nothing here (licence, source, ...). */
typedef struct lemon_part {
    const char *name;
    const void *data;
    size_t bytes;
} lemon_part;

/*  A model: a config, and the table of parameters laid over memory.  Read its fields freely; write only through params. */
typedef struct lemon_model {
    lemon_config config;
    int64_t n_params;         /* tensors, not numbers: the table expanded, in the order of lemon_role and layer */
    lemon_tensor *params;
    float *block;             /* all numbers one behind the other when they are f32 and owned, else NULL */
    int64_t block_count;
    lemon_tokenizer *tokenizer;   /* owned; NULL where the file brought none */
    lemon_part *parts;        /* what else its files brought */
    int64_t n_parts;
    char format[8];           /* what it was read from: "lemon", "gguf", "llama2c", "hf"; "" if made here */
    lemon_dtype dtype;        /* of the matrices; where they differ, of most of their numbers; q8 of llama2.c's version 2,
                                 though its groups are decoded to f32 */
    lemon_reader source;      /* keeps mapped weights alive */
    lemon_arena arena;        /* owns parts, and weights that could not stay in the file */
} lemon_model;

/*  A model with all weights f32 and zero. */
LEMON_API lemon_status lemon_model_create(lemon_ctx *ctx, const lemon_config *config, lemon_model **model);
/*  Fresh weights: normal with deviation 0.02, those that write to the residual stream 0.02 / sqrt(2 L), gains 1,
    biases 0 (GPT-2's rule as llama2.c has it).  The model must own f32 weights. */
LEMON_API lemon_status lemon_model_init(lemon_ctx *ctx, lemon_model *model, uint64_t seed);
/*  A copy with its own f32 weights, whatever the source's storage; the tokenizer and the parts are copied too. */
LEMON_API lemon_status lemon_model_clone(lemon_ctx *ctx, const lemon_model *source, lemon_model **model);
/*  Copies the tokenizer and the parts of one model to another, of each what it has none of: to a student from its teacher,
    as lemon_fuse and lemon_operators_apply do themselves. */
LEMON_API lemon_status lemon_model_carry(lemon_ctx *ctx, const lemon_model *from, lemon_model *to);
/*  Gives a model another tokenizer, which it then owns; parts that describe the old one are dropped. */
LEMON_API void lemon_model_set_tokenizer(lemon_ctx *ctx, lemon_model *model, lemon_tokenizer *tokenizer);
LEMON_API void lemon_model_free(lemon_ctx *ctx, lemon_model *model);    /* NULL is fine */
/*  A weight by role and layer (0 for roles that are one per model); NULL where there is none.  LEMON_OUTPUT of a tied
    model is its embedding. */
LEMON_API lemon_tensor *lemon_model_param(const lemon_model *model, lemon_role role, int64_t layer);

/* ====================================================================================================================
   8  CHECKPOINTS: the .lemon format; Hugging Face, GGUF and llama2.c in and out
   ================================================================================================================== */

/*  Loads a model: a .lemon file, GGUF 2 or 3, llama2.c's .bin version 0, 1 or 2, all known by content, not by name; or a
    Hugging Face folder (or its config.json) with safetensors.  Weights stay in the mapped files where their layout allows,
    else they are copied; GGUF types that lemon_dtype has not (Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K) become f16. */
LEMON_API lemon_status lemon_load(lemon_ctx *ctx, const char *path, lemon_model **model);
/*  The same from any reader of one file; takes the reader over (it is closed with the model, or at once on error). */
LEMON_API lemon_status lemon_load_reader(lemon_ctx *ctx, const lemon_reader *reader, lemon_model **model);
/*  Saves a model.  The path decides:  *.lemon  f32, bf16, f16, q8, q4;  *.gguf  the same, q8 as Q8_0, q4 as Q4_0;
    *.bin  llama2.c's version 0 (f32) or 2 (q8), without a tokenizer;  *.h  a C array that holds a .lemon file;  anything
    else is a Hugging Face folder (f32, bf16, f16).  Vectors stay f32, but in such a folder.  What a format cannot carry is
    refused (LEMON_E_ARG).  A file appears whole under its name, or not at all; so does a new folder, which is written as
    PATH.tmp.  In a folder that is there already files are replaced, config.json last. */
LEMON_API lemon_status lemon_save(lemon_ctx *ctx, const char *path, const lemon_model *model, lemon_dtype dtype);
/*  The same with more to say.  Fill it with lemon_save_defaults, then change what you like. */
typedef struct lemon_save_options {
    lemon_dtype dtype;        /* f32 */
    uint64_t shard_bytes;     /* of weights in a file of a Hugging Face folder, but for one large tensor: 5e9 */
} lemon_save_options;
LEMON_API void lemon_save_defaults(lemon_save_options *options);
LEMON_API lemon_status lemon_save_with(lemon_ctx *ctx, const char *path, const lemon_model *model,
                                       const lemon_save_options *options);
/*  What lemon_save would refuse of a model of that shape, asked before the work that makes it. */
LEMON_API lemon_status lemon_save_check(lemon_ctx *ctx, const char *path, const lemon_config *config, lemon_dtype dtype);
/*  The .lemon bytes to any writer, which is committed, or aborted on error. */
LEMON_API lemon_status lemon_save_writer(lemon_ctx *ctx, const lemon_writer *writer, const lemon_model *model,
                                         lemon_dtype dtype);

/* ====================================================================================================================
   9  TOKENIZERS: text to ids and back; text files to training data
   ================================================================================================================== */

/*  A vocabulary, and the rule by which a text becomes ids of it.  Three kinds of files are known, by content:
    llama2.c's tokenizer.bin: id 0 unknown, 1 BOS, 2 EOS, byte b is id b + 3, then pieces with scores; Hugging Face's
    tokenizer.json with a model "BPE", of SentencePiece's family (LLaMA 1 and 2, TinyLlama) or of GPT-2's (GPT-2,
    LLaMA 3, Qwen 2 to 3.5, SmolLM); and SentencePiece's own tokenizer.model, BPE with byte pieces and no normalizer, as
    LLaMA 1 and 2 and Mistral have it.  What else such a file asks for is refused by name.
    vocab_size is that of the model, to check against; 0: as many ids as the file has.  A reader is taken over: it is closed. */
LEMON_API lemon_status lemon_tokenizer_load(lemon_ctx *ctx, const char *path, int32_t vocab_size,
                                            lemon_tokenizer **tokenizer);
LEMON_API lemon_status lemon_tokenizer_load_reader(lemon_ctx *ctx, const lemon_reader *reader, int32_t vocab_size,
                                                   lemon_tokenizer **tokenizer);
/*  The byte-level tokenizer: 259 ids. */
LEMON_API lemon_status lemon_tokenizer_bytes(lemon_ctx *ctx, lemon_tokenizer **tokenizer);
/*  Learns a vocabulary of `size` pieces (260 ... 65536) from text by byte-pair encoding (Sennrich et al. 2016): the
    most frequent pair of neighbours becomes a piece, again and again; merges stay within a word and the blank before
    it. */
LEMON_API lemon_status lemon_tokenizer_train(lemon_ctx *ctx, const char *text, size_t bytes, int32_t size,
                                             lemon_tokenizer **tokenizer);
/*  Writes llama2.c's tokenizer.bin, which can hold vocabularies of SentencePiece's family that are laid out as above. */
LEMON_API lemon_status lemon_tokenizer_save(lemon_ctx *ctx, const char *path, const lemon_tokenizer *tokenizer);
/*  A copy that owns all of itself; the end of one (NULL is fine); how many ids it has. */
LEMON_API lemon_status lemon_tokenizer_clone(lemon_ctx *ctx, const lemon_tokenizer *source,
                                             lemon_tokenizer **tokenizer);
LEMON_API void lemon_tokenizer_free(lemon_ctx *ctx, lemon_tokenizer *tokenizer);
LEMON_API int32_t lemon_tokenizer_size(const lemon_tokenizer *tokenizer);
/*  What texts begin with, the end-of-text token where there is no BOS of its own; what they end with.  -1: none known.
    tokenizer.json does not tell them, so there they are known by their names. */
LEMON_API int32_t lemon_tokenizer_bos(const lemon_tokenizer *tokenizer);
LEMON_API int32_t lemon_tokenizer_eos(const lemon_tokenizer *tokenizer);
/*  1 if the original puts BOS before each text that it encodes. */
LEMON_API int lemon_tokenizer_adds_bos(const lemon_tokenizer *tokenizer);
/*  The id of a token by its text, special ones ("<|im_end|>") included; -1: there is none. */
LEMON_API int32_t lemon_tokenizer_find(const lemon_tokenizer *tokenizer, const char *text, size_t bytes);
/*  1 for a token that steers the model and stands for no text. */
LEMON_API int lemon_tokenizer_special(const lemon_tokenizer *tokenizer, int32_t id);

/*  Token ids, owned by whoever asked for them; begin with a zeroed struct. */
typedef struct lemon_tokens {
    int32_t *ids;
    int64_t count, capacity;
} lemon_tokens;
/*  Appends one id, in memory that grows by doubling; frees all ids and zeroes the struct (NULL is fine). */
LEMON_API lemon_status lemon_tokens_push(lemon_ctx *ctx, lemon_tokens *tokens, int32_t id);
LEMON_API void lemon_tokens_free(lemon_ctx *ctx, lemon_tokens *tokens);

/*  A smaller tokenizer, of the given ids, the pieces that those are joined from, and all special and byte tokens.  A
    text whose ids are all given is encoded as before.  Appends to `kept` which id each new id was. */
LEMON_API lemon_status lemon_tokenizer_trim(lemon_ctx *ctx, const lemon_tokenizer *tokenizer, const int32_t *ids,
                                            int64_t n, lemon_tokens *kept, lemon_tokenizer **smaller);
/*  The same for a model and its tokenizer: of the embedding and the output matrix only the rows of kept tokens are
    copied.  All other weights stay the source's, which must outlive the new model.  What the source carries goes with
    it, with new ids, but for what lists the old vocabulary. */
LEMON_API lemon_status lemon_model_trim(lemon_ctx *ctx, const lemon_model *source, const int32_t *ids, int64_t n,
                                        lemon_tokens *kept, lemon_model **model);

/*  Appends the ids of `text` to tokens; no BOS is added.  Special tokens cannot be spelled out in a text by whoever wrote
    it: only lemon_encode_special looks for them, as chat templates need it (and as Hugging Face always does).  Where a
    vocabulary wants form C, the first text with marks leaves 200 KB of tables in the context, until a tokenizer is freed. */
LEMON_API lemon_status lemon_encode(lemon_ctx *ctx, const lemon_tokenizer *tokenizer, const char *text, size_t bytes,
                                    lemon_tokens *tokens);
LEMON_API lemon_status lemon_encode_special(lemon_ctx *ctx, const lemon_tokenizer *tokenizer, const char *text,
                                            size_t bytes, lemon_tokens *tokens);
/*  The bytes of one token: *text points into the tokenizer, valid as long as that.  previous: the id before it
    (llama2.c drops the blank after BOS), or -1. */
LEMON_API lemon_status lemon_decode(lemon_ctx *ctx, const lemon_tokenizer *tokenizer, int32_t previous, int32_t id,
                                    const char **text, size_t *bytes);
/*  The same for a stream of tokens, in whole characters: bytes of one that goes on in the next token are held back until
    it comes, or until id -1 ends the stream and hands out what is left.  Behind a BOS within the text blanks stay, as with
    SentencePiece and Hugging Face.  *text is valid until the next call. */
typedef struct lemon_stream {
    int32_t previous;         /* to be set to the id before the first one; all else begins as zero */
    char *text;
    int64_t given, held, capacity;
} lemon_stream;
LEMON_API lemon_status lemon_stream_next(lemon_ctx *ctx, const lemon_tokenizer *tokenizer, lemon_stream *stream,
                                         int32_t id, const char **text, size_t *bytes);
LEMON_API void lemon_stream_free(lemon_ctx *ctx, lemon_stream *stream);
/*  Text to training data: documents are split at lines that are exactly <|endoftext|>, stripped of ASCII white space,
    empty ones dropped; each becomes BOS and its tokens.  Appends to tokens. */
LEMON_API lemon_status lemon_tokens_from_text(lemon_ctx *ctx, const lemon_tokenizer *tokenizer, const char *text,
                                              size_t bytes, lemon_tokens *tokens);
/*  The same from files, in order; .u16 and .u32 files hold raw little-endian ids (below vocab_size).  tokenizer may be
    NULL if all files hold ids. */
LEMON_API lemon_status lemon_tokens_from_files(lemon_ctx *ctx, const lemon_tokenizer *tokenizer, int32_t vocab_size,
                                               const char *const *paths, int64_t n_paths, lemon_tokens *tokens);

/* ====================================================================================================================
   10  INFERENCE: the key-value cache, sampling
   ================================================================================================================== */

/*  A conversation with a model: the keys and values of all tokens so far.  The model is only read; many sessions can
    share it.  The context of a session must stay open as long as it. */
typedef struct lemon_session lemon_session;
LEMON_API lemon_status lemon_session_open(lemon_ctx *ctx, const lemon_model *model, lemon_session **session);
/*  The same where memory is short.  Fill it with lemon_session_defaults, then change what you like. */
typedef struct lemon_session_options {
    int64_t max_seq;          /* tokens that it can hold; 0, or more than the model's context: that */
    int64_t prefill;          /* tokens of a prompt that go through at once: 256 */
    lemon_dtype cache;        /* of keys and values: f32, or f16 in half the memory */
} lemon_session_options;
LEMON_API void lemon_session_defaults(lemon_session_options *options);
LEMON_API lemon_status lemon_session_open_with(lemon_ctx *ctx, const lemon_model *model,
                                               const lemon_session_options *options, lemon_session **session);
LEMON_API void lemon_session_close(lemon_session *session);      /* NULL is fine */
/*  Feeds n tokens (prefill: many; decoding: one).  *logits (may be NULL) points to the [V] scores of what comes after
    the last of them; yours to change until the next call (to allow some tokens only, make the others -INFINITY).
    LEMON_E_ARG beyond max_seq tokens.  Nothing is allocated.  One token takes 2 operations for each weight and
    4 * n_layers * n_heads * head_dim for each token before it, so the last one of a context takes longest: for a loop
    with a deadline, as in a game, measure that one (`make -C bench generate` prints it). */
LEMON_API lemon_status lemon_session_feed(lemon_session *session, const int32_t *ids, int64_t n, float **logits);
/*  Tokens fed so far. */
LEMON_API int64_t lemon_session_length(const lemon_session *session);
/*  Forgets all but the first `length` tokens. */
LEMON_API lemon_status lemon_session_rewind(lemon_session *session, int64_t length);
/*  The keys and values so far, as a file of .lemon's layout, and back into a session of the same model with the same type
    of cache, whose tokens they replace (after an error it is empty); the reader is taken over and closed.  What follows
    has the same bits as if nothing had been saved; for scores, rewind by one and feed the last token again. */
LEMON_API lemon_status lemon_session_save(lemon_session *session, const lemon_writer *writer);
LEMON_API lemon_status lemon_session_restore(lemon_session *session, const lemon_reader *reader);

/*  How the next token is drawn: candidates outside top_k, top_p and min_p fall away, in that order; and which texts end
    what is generated. */
typedef struct lemon_sampling {
    float temperature;        /* 0: greedy, the lowest id on ties */
    int32_t top_k;            /* 0: all */
    float top_p;              /* 1: all */
    float min_p;              /* 0: all; else at least min_p times the best one's probability */
    uint64_t seed;
    const char *const *stops; /* lemon_generate ends before the first of these [n_stops] texts; empty ones do not count */
    int32_t n_stops;
} lemon_sampling;
LEMON_API void lemon_sampling_defaults(lemon_sampling *sampling);    /* temperature 1, top_p 0.9, seed 1 */
/*  Draws one id; -1: n is below 1, or a NULL.  logits [n] are changed.  scratch: n * 2 int32_t of the caller's; it and rng may
    be NULL at temperature 0. */
LEMON_API int32_t lemon_sample(float *logits, int32_t n, const lemon_sampling *sampling, lemon_rng *rng,
                               int32_t *scratch);

/*  Text from a prompt.  on_token (may be NULL) sees each new token and its bytes; a non-zero result ends the
    generation (CALLER). Stops after n_new tokens (COUNT), at EOS or BOS (END), at the end of the model's context (CONTEXT),
    or before one of sampling->stops (TEXT); *stop (may be NULL) receives which. tokens receives BOS, prompt and
    continuation (not the token that ended it).
    Bytes that may begin a text of `stops` are held back: they come with a later token, or at the end with id -1. */
typedef enum lemon_stop {
    LEMON_STOP_COUNT = 0, LEMON_STOP_END, LEMON_STOP_CONTEXT, LEMON_STOP_CALLER, LEMON_STOP_TEXT
} lemon_stop;
LEMON_API lemon_status lemon_generate(lemon_ctx *ctx, const lemon_model *model, const char *prompt, int64_t n_new,
                                      const lemon_sampling *sampling,
                                      int (*on_token)(void *user, int32_t id, const char *text, size_t bytes),
                                      void *user, lemon_tokens *tokens, lemon_stop *stop);

#ifndef LEMON_NO_TRAIN
/* ====================================================================================================================
   11  TRAINING: evaluation, AdamW, schedules, distillation, resume
   ================================================================================================================== */

/*  Mean negative log-likelihood in nats of tokens[1..] in windows of `seq` (0: 256 or the model's context, the
    smaller): inputs t[s..s+T-1], targets t[s+1..s+T] for s = 0, T, 2T ..., the last window shorter.  max_tokens > 0
    takes only the first max_tokens tokens.  *counted (may be NULL) receives the number of targets. */
LEMON_API lemon_status lemon_eval(lemon_ctx *ctx, const lemon_model *model, const lemon_tokens *tokens, int64_t seq,
                                  int64_t max_tokens, double *loss, int64_t *counted);

typedef enum lemon_schedule { LEMON_COSINE = 0, LEMON_CONSTANT } lemon_schedule;
typedef enum lemon_order { LEMON_RANDOM = 0, LEMON_SEQUENTIAL } lemon_order;

/*  What one training step came to. */
typedef struct lemon_step {
    int64_t step, tokens;     /* from 1; tokens so far */
    double loss, kl;          /* means over the step's tokens, before its update; kl 0 without a teacher */
    double lr, grad_norm;     /* grad_norm before clipping */
    double seconds;           /* since the start */
    double eval_loss;         /* NaN where this step was not evaluated */
} lemon_step;

/*  How to train.  Fill it with lemon_train_defaults, then change what you like: zero then means zero. */
typedef struct lemon_train_options {
    int64_t steps, batch, seq;           /* a step takes `batch` windows of `seq` tokens; seq 0: 256 or the context */
    int64_t accumulate;                  /* cuts a batch into so many parts, to save memory; divides batch */
    double lr, min_lr;                   /* min_lr < 0: lr / 10 */
    int64_t warmup;                      /* steps; < 0: steps / 20 */
    lemon_schedule schedule;
    double weight_decay, clip;           /* clip: the gradient is at most so long; 0: off */
    const lemon_model *teacher;          /* NULL: none */
    int keep_teacher;                    /* 1: it reads the text once, before the first step, and its last states stay in
                                            memory ([tokens, its d_model] floats); pays from the second epoch on */
    double distill, temperature;         /* weight of the KL term, and its temperature */
    lemon_order order;
    uint64_t seed;
    const lemon_tokens *eval_tokens;     /* NULL: none */
    int64_t eval_every;                  /* steps; 0: only at the end */
    const char *save_path;               /* NULL: nothing is saved; else the model goes there at the end, */
    int64_t save_every; /*   and it and save_path.resume every so many steps (0: at the end only, no .resume) */
    int resume;                          /* go on from save_path.resume */
    int recompute;                       /* makes activations again in backward, layer by layer, with the same bits: for less
                                            memory forward runs twice but for the loss, at most a third more of time */
    lemon_dtype moments;                 /* AdamW's, LEMON_F32 or LEMON_BF16: 8 or 4 bytes a weight, in save_path.resume too */
    /*  Before the first step: the most bytes that the context will have had at once after the last one, with some room to
        save in.  scratch: bytes of gradients and moments in a file, 0 where they are in memory.  May be NULL. */
    void (*on_plan)(void *user, size_t bytes, size_t scratch);
    void (*on_step)(void *user, const lemon_step *step);    /* may be NULL */
    void *user;
} lemon_train_options;
/*  100 steps of 8 windows, lr 1e-3 cosine to a tenth, warm-up 1/20, decay 0.1, clip 1, temperature 1, order random,
    seed 1. */
LEMON_API void lemon_train_defaults(lemon_train_options *options);

/*  What a training run came to. */
typedef struct lemon_train_result {
    int64_t steps, tokens;
    double train_loss;                   /* mean of the last ten steps */
    double eval_loss;                    /* at the end; NaN without eval_tokens */
    double seconds;
    size_t planned_bytes, planned_scratch;      /* as on_plan had them */
} lemon_train_result;

/*  Trains a model that owns f32 weights, in place, with AdamW (Loshchilov and Hutter 2019): beta 0.9 / 0.95, eps 1e-8,
    decoupled decay on matrices only.  The objective is that of lemon_tape_loss.
    LEMON_E_DIVERGED: loss or gradient became NaN or Inf; the weights are the last that gave finite states, and are saved if
    save_path is set.  LEMON_E_CANCELLED: the progress callback stopped it; the state is saved likewise.
    Same seed, same data, same bits for any number of threads, resumed or not. */
LEMON_API lemon_status lemon_train(lemon_ctx *ctx, lemon_model *model, const lemon_tokens *tokens,
                                   const lemon_train_options *options, lemon_train_result *result);

#ifndef LEMON_NO_FUSE
/* ====================================================================================================================
   12  FUSION: operators, the methods that fill them, apply and learn
   ================================================================================================================== */

/*  A linear map between the channels of a teacher's joint and a student's: student-major, each student channel with
    `field` teacher channels (its receptive field) and their coefficients.  A selection has field 1, a band a few, a dense
    map all of them; index is NULL when dense. */
typedef struct lemon_map {
    int64_t student, teacher, field;
    int32_t *index;           /* [student, field], or NULL: the j-th coefficient is teacher channel j */
    float *value;             /* [student, field]; NULL: no map here */
} lemon_map;

/*  The places that maps stand at.  "write" maps carry teacher outputs to student outputs, "read" maps carry teacher
    inputs to student inputs; all are stored [student, teacher], so every matrix is Out * W * In^T. */
typedef enum lemon_place {
    LEMON_AT_RESIDUAL = 0,    /* write, one per model: embedding rows, wo, w_down */
    LEMON_AT_GAIN,            /* one per model: gains of norms */
    LEMON_AT_READ_OUTPUT,     /* read, one per model: the output matrix */
    LEMON_AT_READ_ATTN,       /* read, one per layer, as all that follow: wq, wk, wv */
    LEMON_AT_READ_FFN,        /* read: w_gate, w_up */
    LEMON_AT_QUERY,           /* write: wq */
    LEMON_AT_KEY,             /* write: wk */
    LEMON_AT_VALUE,           /* write: wv */
    LEMON_AT_READ_HEADS,      /* read: wo */
    LEMON_AT_FFN,             /* write: w_gate, w_up */
    LEMON_AT_READ_NEURONS,    /* read: w_down */
    LEMON_AT_QUERY_NORM,      /* gains of a head's queries, */
    LEMON_AT_KEY_NORM,        /*   and of its keys */
    LEMON_PLACE_COUNT
} lemon_place;

/*  A set of operators: all that turns a teacher of one shape into a student of another.  Student layer i has `slots`
    teacher layers in its field; each slot has a weight and may have maps of its own (a missing map of slot k > 0 is that
    of slot 0). */
typedef struct lemon_operators {
    lemon_config teacher, student;
    char method[16];
    int fold_gains; /* 1: gains are multiplied into the matrices that read them, the student's gains start at 1 */
    int64_t slots;
    int32_t *layer;           /* [L of the student, slots] teacher layer, or -1: empty */
    float *layer_weight;      /* [L of the student, slots] */
    lemon_map *maps;          /* [LEMON_PLACE_COUNT, L of the student, slots]; see lemon_operators_map */
    lemon_tensor *correction; /* per parameter of the student: what least squares adds (f32) or learning came to beyond the
                                 maps (f64, so that it has the same bits again); data NULL where nothing */
    lemon_arena arena;        /* owns all of the above, */
    lemon_reader source;      /*   but where they were loaded: maps and corrections lie in the file then, and are only read */
} lemon_operators;

/*  Empty operators, to be filled by a method of your own: all layers -1, all weights 0, no maps, no correction.  Both shapes
    are of one family and vocabulary; slots is from 1 to the teacher's layers.  LEMON_E_ARG, LEMON_E_MEMORY.  What must be
    filled in before lemon_operators_apply: a layer and a weight for each student layer, and in slot 0 a map for each place
    (that of LEMON_AT_READ_OUTPUT only with an output matrix, the last two only with qk_norm). */
LEMON_API lemon_status lemon_operators_create(lemon_ctx *ctx, const lemon_config *teacher, const lemon_config *student,
                                              int64_t slots, lemon_operators **operators);
/*  Makes the map at a place anew, all of it zero, with `field` teacher channels for each student channel (0: this slot adds
    nothing; the teacher's all: dense, without index), and hands it out to be filled in.  The operators own it.
    LEMON_E_ARG: no such place, layer (0 where there is one per model) or slot, or more channels than there are. */
LEMON_API lemon_status lemon_operators_set_map(lemon_ctx *ctx, lemon_operators *operators, lemon_place place,
                                               int64_t layer, int64_t slot, int64_t field, lemon_map **map);
/*  The map at a place, for a student layer (0 for places that are one per model) and a slot of its field. */
LEMON_API const lemon_map *lemon_operators_map(const lemon_operators *operators, lemon_place place, int64_t layer,
                                               int64_t slot);
LEMON_API const char *lemon_place_name(lemon_place place);     /* as files of operators have it; "unknown" for what is none */

/*  How to fuse.  Fill it with lemon_fuse_defaults, then change what you like. */
typedef struct lemon_fuse_options {
    const char *method;       /* "lemon", "ligo", "subclone", "select", "drop", "slicegpt", "modegpt", "random" */
    int64_t tokens;           /* calibration tokens; a tenth of them is held out.  0: the method's own number (65536 for what
                                 then goes through the text to learn, others 32768) */
    int64_t seq;              /* length of their windows; 0: 256 or the context */
    int64_t field_layers;     /* teacher layers that a student layer may draw on; 0: the method's own choice */
    int64_t field_dims;       /* teacher channels that a student channel may read; 0: all */
    int solve;                /* lemon: 1 solves the operators on activations, 0 begins with a selection */
    int correction;           /* lemon: 1 keeps what least squares adds beyond Out * W * In^T */
    int64_t learn_steps;      /* then learns by gradients; < 0: the method's own number (lemon, solved and with correction,
                                 up to 10^8 parameters: four times through the text; ligo 100; others 0) */
    double learn_lr;          /* < 0: the method's own */
    uint64_t seed;            /* of sampled text, random weights and the order of learning */
} lemon_fuse_options;
/*  lemon, solved, with correction, seed 1; how much text and learning is left to the method. */
LEMON_API void lemon_fuse_defaults(lemon_fuse_options *options);

/*  A shape for a student of about `params` parameters, embeddings counted, that can be fused from this teacher.  Sizes in
    *student that are not 0 are kept; the others are chosen, and all else becomes the teacher's.
    The rule: among the shapes that do not exceed the budget, the one that keeps the teacher's proportions best.  Width,
    layers, heads and neurons shrink by one factor, as a family's smaller members are built: losses of equally large
    models differ little over a wide range of proportions, and most at its ends (Kaplan et al. 2020, section 3.2).
    The distance is the variance of the logarithms of the four factors, plus the squared logarithms of what
    should not change (channels of a head, query heads to a key-value head), plus that of the budget's share that is
    left over, a tenth counting as 1.  d_model is n_heads * head_dim where it is so in the teacher, or a multiple of a
    power of two that the teacher's is, as d_ffn is.
    LEMON_E_ARG above the teacher's size, and below the smallest that can be; the message names it. */
LEMON_API lemon_status lemon_fuse_shape(lemon_ctx *ctx, const lemon_config *teacher, int64_t params,
                                        lemon_config *student);

/*  What a fusion came to. */
typedef struct lemon_fuse_result {
    int64_t calibration_tokens;
    double init_loss;         /* of the student on the held-out tenth; NaN if the method was given no text */
    double learned_from;      /* the same before learning; NaN if nothing was learned */
    double flops, seconds;
} lemon_fuse_result;

/*  What a fusion will take, told before it: floating-point operations as lemon_flops counts them, and how many of these are
    of float64, which are half as fast; most bytes of memory, and bytes of scratch (0 without); seconds by the speed of a
    product that is timed for it.  Of select, drop, subclone and lemon solved; without what learning of maps adds. */
typedef struct lemon_fuse_forecast { double flops, flops64, memory, scratch, seconds; } lemon_fuse_forecast;
/*  tokens: how many the text has; 0: there is none.  LEMON_E_ARG as lemon_fuse. */
LEMON_API lemon_status lemon_fuse_plan(lemon_ctx *ctx, const lemon_model *teacher, const lemon_config *student,
                                       int64_t tokens, const lemon_fuse_options *options, lemon_fuse_forecast *forecast);
/*  Fuses a teacher into a student of the given shape: fill, apply, and learning where asked for.
    text: calibration tokens; NULL: the teacher samples its own.  result may be NULL.
    LEMON_E_ARG where the student's shape cannot come from the teacher's; the message names the nearest one that can. */
LEMON_API lemon_status lemon_fuse(lemon_ctx *ctx, const lemon_model *teacher, const lemon_config *student,
                                  const lemon_tokens *text, const lemon_fuse_options *options, lemon_model **model,
                                  lemon_fuse_result *result);
/*  The operators alone, by the same methods (not "random", which has none). */
LEMON_API lemon_status lemon_operators_fill(lemon_ctx *ctx, const lemon_model *teacher, const lemon_config *student,
                                            const lemon_tokens *text, const lemon_fuse_options *options,
                                            lemon_operators **operators, lemon_fuse_result *result);
/*  Applies operators to a teacher of the shape they were made for: one loop over the table of parameters.  Corrections
    belong to the teacher they were solved on; correction 0 leaves them out.  LEMON_E_ARG: another shape, a map that is
    missing, or a layer or channel that the teacher has not. */
LEMON_API lemon_status lemon_operators_apply(lemon_ctx *ctx, const lemon_operators *operators,
                                             const lemon_model *teacher, int correction, lemon_model **student);
/*  The end of a set (NULL is fine); a set as a file of .lemon's layout, and back, checked as a stranger's file is. */
LEMON_API void lemon_operators_free(lemon_ctx *ctx, lemon_operators *operators);
LEMON_API lemon_status lemon_operators_save(lemon_ctx *ctx, const char *path, const lemon_operators *operators);
LEMON_API lemon_status lemon_operators_load(lemon_ctx *ctx, const char *path, lemon_operators **operators);

/*  What came of it, for a report; on the first 512 tokens of a text that was not learned from (NULL: the teacher samples
    its own).  Both look at the residual stream: row or entry 0 is the embedding, i is what leaves layer i - 1.

    How alike the streams of two models (one, or two of one vocabulary) are: linear CKA (Kornblith et al. 2019), which knows
    no difference between a stream and its rotation, of the normalised streams, without the bias that few tokens give it
    (U-centred Gram matrices, Szekely and Rizzo 2014).  1: the same, 0: unrelated.  cka: [layers of a + 1, of b + 1]. */
LEMON_API lemon_status lemon_cka(lemon_ctx *ctx, const lemon_model *a, const lemon_model *b, const lemon_tokens *text,
                                 float *cka);
/*  How far a student's stream is from the teacher's: sum |P x_t - x_s|^2 / sum |P x_t|^2, where P is the write map of the
    residual stream, and x_t leaves the last teacher layer that the student layer answers for.  error: [layers of the
    student + 1]. */
LEMON_API lemon_status lemon_operators_error(lemon_ctx *ctx, const lemon_operators *operators, const lemon_model *teacher,
                                             const lemon_model *student, const lemon_tokens *text, float *error);
#endif /* LEMON_NO_FUSE */
#endif /* LEMON_NO_TRAIN */

#ifdef __cplusplus
}
#endif
#endif /* LEMON_H */

#ifdef LEMON_IMPLEMENTATION
#ifndef LEMON_IMPLEMENTED
#define LEMON_IMPLEMENTED

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/*  Where products and sums are to be fused into one rounding, this code says so: else compilers make other bits.  (gcc's
    -std=c99 and later mean that without being told; its -std=gnu99 needs -ffp-contract=off.) */
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif

#if (defined(__unix__) || defined(__APPLE__)) && !defined(LEMON_NO_STDIO)
#define LEMON__POSIX 1
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>
#else
#define LEMON__POSIX 0
#ifndef LEMON_NO_STDIO
#include <stdio.h>
#include <time.h>
#endif
#if defined(_WIN32) && !defined(LEMON_NO_STDIO)
#include <io.h>
#include <wchar.h>
#ifdef __cplusplus
extern "C" {
#endif
__declspec(dllimport) int __stdcall MoveFileExW(const wchar_t *from, const wchar_t *to, unsigned long flags);
__declspec(dllimport) int __stdcall MultiByteToWideChar(unsigned page, unsigned long flags, const char *text, int bytes,
                                                        wchar_t *out, int room);
#ifdef __cplusplus
}
#endif
#endif
#endif

#if LEMON__POSIX && defined(__linux__) && defined(__GNUC__)
#define LEMON__LINUX 1
/*  Not declared under -std=c99; bound by its name, so that this declaration can never contradict another. */
#ifdef __cplusplus
extern "C"
#endif
int lemon__madvise(void *at, size_t bytes, int advice) __asm__("madvise");
#else
#define LEMON__LINUX 0
#endif

/*  Where there are 64-bit atomics; a browser's page has threads only if it asked for them. */
#if LEMON__POSIX && !defined(LEMON_NO_THREADS) && defined(__GCC_ATOMIC_LLONG_LOCK_FREE) && \
    __GCC_ATOMIC_LLONG_LOCK_FREE > 1 && (!defined(__EMSCRIPTEN__) || defined(__EMSCRIPTEN_PTHREADS__))
#define LEMON__THREADS 1
#include <pthread.h>
#else
#define LEMON__THREADS 0
#endif

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__) && !defined(LEMON_NO_SIMD)
#define LEMON__X86 1
#define LEMON__TARGET(isa) __attribute__((target(isa)))
#include <immintrin.h>
#else
#define LEMON__X86 0
#define LEMON__TARGET(isa)
#endif

/*  Every AArch64 CPU has NEON and FMA.  32-bit ARM has FMA with VFPv4 (-mfpu=neon-vfpv4), and half the registers; its NEON
    takes subnormal numbers for zero. */
#if (defined(__GNUC__) || defined(__clang__)) && !defined(__ARM_BIG_ENDIAN) && defined(__ARM_NEON) && \
    defined(__ARM_FEATURE_FMA) && !defined(LEMON_NO_SIMD)
#include <arm_neon.h>
#ifdef __aarch64__
#define LEMON__NEON 64
#else
#define LEMON__NEON 32
#endif
#else
#define LEMON__NEON 0
#endif

/*  SDOT adds up products of bytes.  A CPU may lack it; gcc compiles it for those that have it, which Linux knows. */
#if LEMON__NEON && defined(__ARM_FEATURE_DOTPROD)
#define LEMON__SDOT 1
#define LEMON__TARGET_sdot
#elif LEMON__NEON == 64 && LEMON__LINUX && !defined(__clang__)
#define LEMON__SDOT (getauxval(16 /* AT_HWCAP */) >> 20 & 1)    /* HWCAP_ASIMDDP */
#define LEMON__TARGET_sdot __attribute__((target("arch=armv8.2-a+dotprod")))
#include <sys/auxv.h>
#endif

/*  32-bit ARM adds two products of 16 bits at once; Cortex-M4 and M7 have that, and no other vectors. */
#if defined(__ARM_FEATURE_SIMD32) && !LEMON__NEON && !defined(__ARM_BIG_ENDIAN) && !defined(LEMON_NO_SIMD)
#define LEMON__SMLAD 1
#include <arm_acle.h>
#else
#define LEMON__SMLAD 0
#endif

/*  ARM converts f16; 32-bit ARM where its compiler was told so (-mfp16-format=ieee). */
#if defined(__ARM_FP16_FORMAT_IEEE) && defined(__ARM_FP) && !defined(LEMON_NO_SIMD)
#define LEMON__FP16 1
typedef __fp16 lemon__fp16;
#else
#define LEMON__FP16 0
typedef uint16_t lemon__fp16;
#endif

#if defined(__wasm_simd128__) && !defined(LEMON_NO_SIMD)
#define LEMON__WASM 1
#include <wasm_simd128.h>
#else
#define LEMON__WASM 0
#endif

#if defined(__GNUC__) || defined(__clang__)
#if defined(__MINGW32__) && !defined(__clang__)
#define LEMON__PRINTF(text, first) __attribute__((format(gnu_printf, text, first)))
#else
#define LEMON__PRINTF(text, first) __attribute__((format(printf, text, first)))
#endif
#else
#define LEMON__PRINTF(text, first)
#endif

/*  Options as conditions: what stands behind a 0 is compiled, and dropped. */
#ifdef LEMON_NO_FORMATS
enum { LEMON__FORMATS = 0 };
#else
enum { LEMON__FORMATS = 1 };
#endif
#ifdef LEMON_NO_BPE
enum { LEMON__BPE = 0 };
#else
enum { LEMON__BPE = 1 };
#endif

/*  A program that only generates, by plain C on one thread, may stand in a few kilobytes: products go by rows as they lie,
    without tiles and packing buffers, and arenas grow by small blocks. */
#if defined(LEMON_NO_TRAIN) && defined(LEMON_NO_THREADS) && !LEMON__X86 && !LEMON__NEON && !LEMON__WASM
#define LEMON__SMALL 1
#else
#define LEMON__SMALL 0
#endif
#if (defined(__GNUC__) || defined(__clang__)) && !(LEMON__SMALL && defined(__OPTIMIZE_SIZE__))
#define LEMON__INLINE static inline __attribute__((always_inline))
#else
#define LEMON__INLINE static inline             /* where few bytes count most the compiler knows what to repeat */
#endif
#if LEMON__SMALL && defined(LEMON_NO_SIMD)
enum { LEMON__INT8 = 0 };
#else
enum { LEMON__INT8 = 1 };
#endif
#if defined(__GNUC__) || defined(__clang__)
#define LEMON__APART static __attribute__((noinline))   /* shorter than as a part of its caller, whose frame is large */
#else
#define LEMON__APART static
#endif

/*  What an option leaves out leaves helpers behind that nobody calls: no fault, and compilers drop them. */
#if defined(__GNUC__) || defined(__clang__)
#pragma GCC diagnostic push
#if defined(LEMON_NO_TRAIN) || defined(LEMON_NO_FUSE) || defined(LEMON_NO_STDIO)
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#elif defined(_MSC_VER)
#pragma warning(push)
#pragma warning(disable : 4127 4505 4996)   /* constant conditions, the same, and that strerror has a sibling strerror_s */
#endif

/*  What reads and writes files or sets work up is most of the code, and nobody waits for it: gcc makes as few passes
    over it as for a debugger, so that all compiles sooner.  What computes, and the encoder, stand outside of such parts. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__OPTIMIZE__) && !defined(__OPTIMIZE_SIZE__)
#define LEMON__BRIEF_BEGIN _Pragma("GCC push_options") _Pragma("GCC optimize (\"Og\")")
#define LEMON__BRIEF_END _Pragma("GCC pop_options")
#else
#define LEMON__BRIEF_BEGIN
#define LEMON__BRIEF_END
#endif

/*  Micro-kernels say themselves which instructions they are, and gcc needs few passes to write them down.
    Nothing that is not always_inline may be called in them, or be inlined: so no pass looks for that. */
#if defined(__GNUC__) && !defined(__clang__) && LEMON__X86 && defined(__OPTIMIZE__) && !defined(__OPTIMIZE_SIZE__)
#define LEMON__EXACT_BEGIN _Pragma("GCC push_options") \
    _Pragma("GCC optimize (\"O1\", \"expensive-optimizations\", \"caller-saves\")")   /* VZEROUPPER; live over a call */
#define LEMON__EXACT_END _Pragma("GCC pop_options")
#else
#define LEMON__EXACT_BEGIN
#define LEMON__EXACT_END
#endif

#ifndef LEMON_MALLOC
#define LEMON_MALLOC(bytes) malloc(bytes)
#define LEMON_FREE(p) free(p)
#endif
#ifndef LEMON_ASSERT
#define LEMON_ASSERT(x) ((void)0)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ====================================================================================================================
   1  PLATFORM

   All that touches the operating system is here, and nothing else touches it.  A context (lemon_ctx) carries what a
   program would otherwise keep in globals: where memory comes from, how much of it is in use, the threads, the last
   error.  Every function gets it first, hands it down, and reports failures through it.
   ================================================================================================================== */

enum { LEMON__MAX_THREADS = 256, LEMON__ALIGN = 64, LEMON__MESSAGE = 512 };

/*  Behind each worker's packing buffers: room in which chapter 5 decodes some rows of a weight that is not f32; at
    least one row, for no joint of a model is wider (lemon_config_check). */
enum { LEMON__DECODE_FLOATS = LEMON__SMALL ? 4096 : 65536, LEMON__DECODE_BYTES = 4 * LEMON__DECODE_FLOATS };

typedef void (*lemon__task)(void *arg, int64_t index, int worker);
typedef struct lemon__pool lemon__pool;

struct lemon_ctx {
    lemon_options options;
    lemon_isa isa;
    int threads;
    size_t bytes, peak;             /* allocated now, and at most */
    struct lemon__spare *spare;     /* memory kept for the next who asks for as much, and its bytes: not among those */
    size_t spared;
    double flops;
    double tick_start, tick_last;   /* of the piece of work that reports progress */
    const char *tick_what;
    lemon__pool *pool;              /* NULL: one thread */
    float **workspace;              /* [threads] packing buffers of chapter 4, made when first needed */
    struct lemon__file *mapped;     /* files whose pages are mapped now */
    struct lemon__forms *forms;     /* tables of chapter 9, made when first needed */
    char message[LEMON__MESSAGE];
    lemon_status said;              /* what it is the message of */
};

/*  The packing buffers of chapter 4, which the context owns. */
static float *lemon__workspace(lemon_ctx *ctx, int worker);
static lemon_status lemon__workspaces(lemon_ctx *ctx);
static void lemon__workspaces_free(lemon_ctx *ctx);
static void lemon__forms_free(lemon_ctx *ctx);

/* ---- small helpers that every chapter uses ---- */

static int64_t lemon__min(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t lemon__max(int64_t a, int64_t b) { return a > b ? a : b; }
static int lemon__finite(double x) { return x - x <= 0.0; }     /* isfinite of a double warns with some compilers */
static int64_t lemon__ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/*  *out = a * b; 0 if that overflows. Sizes that come from files go through this before they are believed. */
static int lemon__mul(size_t a, size_t b, size_t *out) {
    if (b != 0 && a > SIZE_MAX / b) return 0;
    *out = a * b;
    return 1;
}

/*  Little-endian loads and stores by bytes: right on any host, for any alignment. */
static uint16_t lemon__get16(const uint8_t *p) { return (uint16_t)(p[0] | (uint16_t)(p[1] << 8)); }
static uint32_t lemon__get32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static uint64_t lemon__get64(const uint8_t *p) {
    return (uint64_t)lemon__get32(p) | (uint64_t)lemon__get32(p + 4) << 32;
}
static void lemon__put16(uint8_t *p, uint16_t v) { p[0] = (uint8_t)v; p[1] = (uint8_t)(v >> 8); }
static void lemon__put32(uint8_t *p, uint32_t v) {
    lemon__put16(p, (uint16_t)v);
    lemon__put16(p + 2, (uint16_t)(v >> 16));
}
static void lemon__put64(uint8_t *p, uint64_t v) {
    lemon__put32(p, (uint32_t)v);
    lemon__put32(p + 4, (uint32_t)(v >> 32));
}

LEMON__BRIEF_BEGIN
/* ---- text: the part of printf's notation that is used here.  Not every board has a printf, not every one that there is
        knows %lld, and a decimal point is a point here in any locale. ---- */

/*  Counts what does not fit. */
typedef struct lemon__text { char *out; size_t size, n; } lemon__text;

static void lemon__text_put(lemon__text *t, const char *p, size_t n) {
    for (; n > 0; n--, p++, t->n++)
        if (t->n + 1 < t->size) t->out[t->n] = *p;
}

static void lemon__text_fill(lemon__text *t, char c, int64_t n) {
    for (; n > 0; n--) lemon__text_put(t, &c, 1);
}

/*  At least `width` digits; by the notation d, u, x or X. */
static void lemon__text_number(lemon__text *t, uint64_t value, char notation, int width, char fill) {
    const unsigned base = notation == 'x' || notation == 'X' ? 16 : 10;
    char text[24];
    int n = 0;
    for (; value > 0 || n == 0; value /= base)      /* ASCII's small letters have this bit, and so have digits */
        text[sizeof text - (size_t)++n] = (char)("0123456789ABCDEF"[value % base] | (notation & 0x20));
    lemon__text_fill(t, fill, width - n);
    lemon__text_put(t, text + sizeof text - n, (size_t)n);
}

static int64_t lemon__text_ten(int power) { return power > 0 ? 10 * lemon__text_ten(power - 1) : 1; }

/*  x > 0 as a whole number of n digits; its first digit stands for 10 to the power that is returned. */
static int lemon__text_scale(double x, int n, int64_t *digits) {
    int power, shift, tiny = x < 1e-250 ? 100 : 0;          /* 10^shift would overflow */
    if (tiny) x *= 1e100;
    power = (int)floor(log10(x));
    shift = n - 1 - power;
    x = shift >= 0 ? x * pow(10.0, shift) : x / pow(10.0, -shift);
    *digits = (int64_t)(x + 0.5);
    if (*digits >= lemon__text_ten(n)) { *digits /= 10; power++; }       /* 9.99 became 10.0 */
    return power - tiny;
}

/*  %g: `n` digits, zeros at the end left out; to 15 digits, which a double has. */
static void lemon__text_real(lemon__text *t, double x, int n) {
    int64_t digits = 0;
    int power = 0, plain, behind;                           /* behind: digits behind the point */
    if (x < 0.0) { lemon__text_put(t, "-", 1); x = -x; }
    if (!(x <= 1.7e308)) { lemon__text_put(t, x > 0.0 ? "inf" : "nan", 3); return; }
    n = n < 1 ? 1 : n > 15 ? 15 : n;
    if (x > 0.0) power = lemon__text_scale(x, n, &digits);
    plain = power >= -4 && power < n;
    for (; n > 1 && digits % 10 == 0; n--) digits /= 10;
    behind = n - 1 - (plain ? power : 0);
    int64_t unit = lemon__text_ten(behind);
    lemon__text_number(t, (uint64_t)(digits / unit), 'd', 1, '0');
    if (behind > 0) { lemon__text_put(t, ".", 1); lemon__text_number(t, (uint64_t)(digits % unit), 'd', behind, '0'); }
    lemon__text_fill(t, '0', -behind);
    if (plain) return;
    lemon__text_put(t, power < 0 ? "e-" : "e+", 2);
    lemon__text_number(t, (uint64_t)(power < 0 ? -power : power), 'd', 2, '0');
}

/*  %s with at most `n` bytes, or all of them where n < 0. */
static void lemon__text_string(lemon__text *t, const char *p, int n) {
    for (; n != 0 && *p; n--) lemon__text_put(t, p++, 1);
}

/*  A whole number, negative ones by their two's complement. */
LEMON__APART uint64_t lemon__text_whole(va_list *args, int longs, int with_sign) {
    if (longs > 1) return with_sign ? (uint64_t)va_arg(*args, long long) : va_arg(*args, unsigned long long);
    if (longs) return with_sign ? (uint64_t)va_arg(*args, long) : va_arg(*args, unsigned long);
    return with_sign ? (uint64_t)va_arg(*args, int) : va_arg(*args, unsigned);
}

/*  One conversion, *format being behind its "%": 0 before a width, the width, a precision, "l" or "ll", and one of
    c s d u x X g. */
static void lemon__text_convert(lemon__text *t, const char **format, va_list *args) {
    const char *p = *format;
    int width = 0, precision = -1, longs = 0;
    char fill = *p == '0' ? '0' : ' ', c;
    uint64_t value;
    for (; *p >= '0' && *p <= '9'; p++) width = 10 * width + (*p - '0');
    if (*p == '.' && p[1] == '*') { precision = va_arg(*args, int); p += 2; }
    else if (*p == '.')
        for (p++, precision = 0; *p >= '0' && *p <= '9'; p++) precision = 10 * precision + (*p - '0');
    for (; *p == 'l'; p++) longs++;
    *format = p + 1;
    switch (*p) {
        case 'c': c = (char)va_arg(*args, int); lemon__text_put(t, &c, 1); break;
        case 's': lemon__text_string(t, va_arg(*args, const char *), precision); break;
        case 'd': case 'u': case 'x': case 'X':
            value = lemon__text_whole(args, longs, *p == 'd');
            if (*p == 'd' && value > INT64_MAX) { lemon__text_put(t, "-", 1); value = 0 - value; }
            lemon__text_number(t, value, *p, width, fill);
            break;
        case 'g': lemon__text_real(t, va_arg(*args, double), precision < 0 ? 6 : precision); break;
        default: lemon__text_put(t, p, 1); break;                   /* %% */
    }
}

/*  As vsnprintf: the result is what all of it would take, without the 0 at its end. */
static int lemon__vformat(char *out, size_t size, const char *format, va_list args) {
    lemon__text t;
    va_list rest;
    t.out = out, t.size = size, t.n = 0;
    va_copy(rest, args);                    /* where va_list is an array, only a copy has an address to be handed down */
    while (*format)
        if (*format != '%') lemon__text_put(&t, format++, 1);
        else { format++; lemon__text_convert(&t, &format, &rest); }
    va_end(rest);
    if (size > 0) out[t.n < size ? t.n : size - 1] = 0;
    return (int)t.n;
}

LEMON__PRINTF(3, 4)
static int lemon__format(char *out, size_t size, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = lemon__vformat(out, size, format, args);
    va_end(args);
    return n;
}

/* ---- status and messages ---- */

/*  Sets the context's message and returns the code: the one way in which every failure is reported. */
LEMON__PRINTF(3, 4)
static lemon_status lemon__fail(lemon_ctx *ctx, lemon_status code, const char *format, ...) {
    va_list args;
    if (ctx == NULL) return code;
    va_start(args, format);
    lemon__vformat(ctx->message, sizeof ctx->message, format, args);
    va_end(args);
    return ctx->said = code;
}

/*  Memory that lies in a file was not to be had for what the message says of the file. */
static lemon_status lemon__memory_or_file(const lemon_ctx *ctx, lemon_status status) {
    return status == LEMON_E_MEMORY && ctx->said == LEMON_E_IO ? LEMON_E_IO : status;
}

/*  1, and a message, unless a call has all arguments that it cannot do without. */
static int lemon__lacks(lemon_ctx *ctx, const char *call, int all) {
    if (ctx == NULL || !all) lemon__fail(ctx, LEMON_E_ARG, "%s: an argument, or what one must have, is NULL", call);
    return ctx == NULL || !all;
}

LEMON_API const char *lemon_error(const lemon_ctx *ctx) {
    return ctx ? ctx->message : "there is no context: lemon_open had no memory, or was asked for kernels that this "
                                "CPU lacks, or for more than 256 threads";
}

LEMON_API const char *lemon_status_name(lemon_status status) {
    static const char *const names[] = {"ok", "bad argument", "out of memory", "input/output error", "bad file",
                                        "not supported", "cancelled", "diverged"};
    return (unsigned)status < 8 ? names[status] : "unknown status";
}

/* ---- memory: blocks aligned to a cache line, counted; the hook's own pointer is kept just below the aligned one ---- */

/*  Large blocks lie on large pages where the system has them: a matrix of 16 MB is 8 pages then instead of 4,096, and
    the processor's table of pages holds them all. */
enum { LEMON__HUGE = 2 << 20 };

static size_t lemon__align(size_t bytes) {
    return LEMON__LINUX && bytes >= LEMON__HUGE ? (size_t)LEMON__HUGE : (size_t)LEMON__ALIGN;
}

static void lemon__use_large_pages(void *p, size_t bytes) {
#if LEMON__LINUX
    if (bytes >= LEMON__HUGE) lemon__madvise(p, bytes, 14);     /* MADV_HUGEPAGE; only a hint, so nothing can fail */
#endif
    (void)p;
    (void)bytes;
}

static void *lemon__raw_alloc(lemon_ctx *ctx, size_t bytes) {
    if (ctx && ctx->options.resize) return ctx->options.resize(ctx->options.user, NULL, 0, bytes);
    return LEMON_MALLOC(bytes);
}

static size_t lemon__raw_bytes(size_t bytes) { return bytes + lemon__align(bytes) + sizeof(void *); }

static void lemon__free(lemon_ctx *ctx, void *p, size_t bytes) {
    void *raw;
    if (p == NULL) return;
    memcpy(&raw, (char *)p - sizeof(void *), sizeof raw);
    LEMON_ASSERT(ctx == NULL || bytes <= ctx->bytes);
    if (ctx) ctx->bytes -= bytes;
    if (ctx && ctx->options.resize) ctx->options.resize(ctx->options.user, raw, lemon__raw_bytes(bytes), 0);
    else LEMON_FREE(raw);
}

/*  Large memory that will soon be asked for again in the same size is kept: new pages are dear, since the system clears
    each of them, and a virtual machine's host once more.  What is kept never raises the peak. */
typedef struct lemon__spare { struct lemon__spare *next; size_t bytes; } lemon__spare;

static void lemon__keep(lemon_ctx *ctx, void *p, size_t bytes) {
    lemon__spare *spare = (lemon__spare *)p;
    spare->next = ctx->spare;
    spare->bytes = bytes;
    ctx->spare = spare;
    ctx->spared += bytes;
    ctx->bytes -= bytes;
}

/*  Memory of just so many bytes out of what is kept; NULL: there is none. */
static void *lemon__kept(lemon_ctx *ctx, size_t bytes) {
    lemon__spare **at = &ctx->spare, *found;
    while (*at && (*at)->bytes != bytes) at = &(*at)->next;
    found = *at;
    if (found == NULL) return NULL;
    *at = found->next;
    ctx->spared -= bytes;
    ctx->bytes += bytes;
    return found;
}

/*  Frees what is kept beyond `most` bytes. */
static void lemon__spare_free(lemon_ctx *ctx, size_t most) {
    while (ctx->spared > most) {
        const size_t bytes = ctx->spare->bytes;
        lemon__free(ctx, lemon__kept(ctx, bytes), bytes);
    }
}

/*  bytes at a 64-byte boundary, not zeroed.  NULL with a message when there is no memory. */
static void *lemon__malloc(lemon_ctx *ctx, size_t bytes) {
    const size_t align = lemon__align(bytes);
    if (!LEMON__SMALL && ctx && ctx->spared) {
        void *kept = lemon__kept(ctx, bytes);
        if (kept) return kept;
        lemon__spare_free(ctx, ctx->peak - ctx->bytes > bytes ? ctx->peak - ctx->bytes - bytes : 0);
    }
    const size_t limit = ctx ? ctx->options.memory : SIZE_MAX / 2, used = ctx ? ctx->bytes : 0,
                 most = limit > used ? limit - used : 0;
    char *raw = bytes > most || bytes > SIZE_MAX / 2 ? NULL : (char *)lemon__raw_alloc(ctx, lemon__raw_bytes(bytes));
    if (raw == NULL) {
        lemon__fail(ctx, LEMON_E_MEMORY, "out of memory: %llu KB were asked for, %llu KB are in use%s",
                    (unsigned long long)bytes >> 10, (unsigned long long)used >> 10,
                    bytes > most ? ", and all of lemon_options.memory is not enough" : "");
        return NULL;
    }
    char *p = raw + sizeof(void *);
    p += (align - (size_t)((uintptr_t)p % align)) % align;
    lemon__use_large_pages(p, bytes);
    memcpy(p - sizeof(void *), &raw, sizeof raw);
    if (ctx) {
        ctx->bytes += bytes;
        if (ctx->bytes > ctx->peak) ctx->peak = ctx->bytes;
    }
    return p;
}

static void *lemon__calloc(lemon_ctx *ctx, size_t bytes) {
    void *p = lemon__malloc(ctx, bytes);
    if (p) memset(p, 0, bytes);
    return p;
}

/*  Room in an array for at least `need` elements of `each` bytes, twice as large as before if it had to grow; list: the
    address of the pointer to it, of whatever type.  0 with a message when there is no memory; the array is then unharmed. */
static int lemon__room(lemon_ctx *ctx, void *list, int64_t *capacity, int64_t need, size_t each) {
    int64_t room = lemon__max(16, lemon__max(need, 2 * *capacity));
    size_t bytes = SIZE_MAX;
    void *old;
    memcpy(&old, list, sizeof old);
    if (need <= *capacity && old) return 1;
    if ((uint64_t)room > SIZE_MAX || !lemon__mul((size_t)room, each, &bytes)) bytes = SIZE_MAX;
    void *p = lemon__malloc(ctx, bytes);
    if (p == NULL) return 0;
    if (old) memcpy(p, old, (size_t)*capacity * each);
    lemon__free(ctx, old, (size_t)*capacity * each);
    memcpy(list, &p, sizeof p);
    *capacity = room;
    return 1;
}

LEMON_API size_t lemon_memory(const lemon_ctx *ctx, size_t *peak) {
    if (peak) *peak = ctx ? ctx->peak : 0;
    return ctx ? ctx->bytes : 0;
}

LEMON_API double lemon_flops(const lemon_ctx *ctx) { return ctx ? ctx->flops : 0.0; }

/* ---- CPU features ---- */

LEMON_API const char *lemon_isa_name(lemon_isa isa) {
    static const char *const names[] = {"auto", "scalar", "avx2", "avx512", "neon", "wasm"};
    return (unsigned)isa <= LEMON_ISA_WASM ? names[isa] : "unknown";
}

LEMON_API int lemon_isa_parse(const char *name) {
    for (int i = 0; name && i <= LEMON_ISA_WASM; i++)
        if (strcmp(name, lemon_isa_name((lemon_isa)i)) == 0) return i;
    return -1;
}

LEMON_API int lemon_isa_supported(lemon_isa isa) {
    if (isa == LEMON_ISA_AUTO || isa == LEMON_ISA_SCALAR) return 1;
    if (isa == LEMON_ISA_NEON) return LEMON__NEON != 0;
    if (isa == LEMON_ISA_WASM) return LEMON__WASM;
#if LEMON__X86
    __builtin_cpu_init();   /* its answers include what the operating system saves (XGETBV) */
    if (isa == LEMON_ISA_AVX2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (isa == LEMON_ISA_AVX512) return lemon_isa_supported(LEMON_ISA_AVX2) && __builtin_cpu_supports("avx512f");
#endif
    return 0;
}

/*  What the environment says; NULL: nothing. */
static const char *lemon__environment(const char *name) {
#ifdef LEMON_NO_STDIO
    return name ? NULL : name;
#else
    return getenv(name);
#endif
}

/*  What `ask` says, asked once, for some systems take long to answer; all threads find the same.  *known is 0 until then. */
static long lemon__once(long *known, long (*ask)(void)) {
#if LEMON__THREADS
    if (__atomic_load_n(known, __ATOMIC_RELAXED) == 0) __atomic_store_n(known, ask(), __ATOMIC_RELAXED);
    return __atomic_load_n(known, __ATOMIC_RELAXED);
#else
    if (*known == 0) *known = ask();
    return *known;
#endif
}

/*  What AUTO means here: LEMON_ISA of the environment, else the best. */
static long lemon__ask_isa(void) {
    int isa = lemon_isa_parse(lemon__environment("LEMON_ISA"));
    if (isa > 0) return isa;
    if (lemon_isa_supported(LEMON_ISA_AVX512)) return LEMON_ISA_AVX512;
    if (lemon_isa_supported(LEMON_ISA_AVX2)) return LEMON_ISA_AVX2;
    return LEMON__NEON ? LEMON_ISA_NEON : LEMON__WASM ? LEMON_ISA_WASM : LEMON_ISA_SCALAR;
}

static lemon_isa lemon__default_isa(void) {
    static long known = 0;
    return (lemon_isa)lemon__once(&known, lemon__ask_isa);
}

/*  Bytes of a core's second cache, within what the blocks of chapter 4 can use. */
static long lemon__ask_l2(void) {
    long bytes = 0;
#ifdef _SC_LEVEL2_CACHE_SIZE
    bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
    return bytes <= 0 ? 512 << 10 : bytes < 256 << 10 ? 256 << 10 : bytes > 1 << 20 ? 1 << 20 : bytes;
}

static int64_t lemon__l2_bytes(void) {
    static long known = 0;
    return lemon__once(&known, lemon__ask_l2);
}

LEMON_API lemon_isa lemon_ctx_isa(const lemon_ctx *ctx) {
    if (ctx) return ctx->isa;
    lemon_isa isa = lemon__default_isa();
    return lemon_isa_supported(isa) ? isa : LEMON_ISA_SCALAR;
}

LEMON_API int lemon_ctx_threads(const lemon_ctx *ctx) { return ctx ? ctx->threads : 1; }

/* ---- time and progress ---- */

static double lemon__seconds(void) {
#ifdef LEMON_SECONDS
    return LEMON_SECONDS();
#elif LEMON__POSIX
    struct timeval now;
    gettimeofday(&now, NULL);
    return (double)now.tv_sec + 1e-6 * (double)now.tv_usec;
#elif defined(LEMON_NO_STDIO)
    return 0.0;
#else
    return (double)clock() / CLOCKS_PER_SEC;
#endif
}

/*  Begins a piece of work that lemon__tick then reports on. */
static void lemon__tick_begin(lemon_ctx *ctx, const char *what) {
    ctx->tick_what = what;
    ctx->tick_start = lemon__seconds();
    ctx->tick_last = 0;
}

/*  Reports progress, at most ten times a second and at the end; LEMON_E_CANCELLED when the caller wants to stop. */
static lemon_status lemon__tick(lemon_ctx *ctx, const char *what, int64_t done, int64_t total, double loss) {
    lemon_progress progress = {what, done, total, loss, 0.0};
    if (ctx == NULL || ctx->options.progress == NULL) return LEMON_OK;
    if (ctx->tick_what == NULL || strcmp(ctx->tick_what, what) != 0) lemon__tick_begin(ctx, what);
    double now = lemon__seconds();
    if (done < total && now - ctx->tick_last < 0.1) return LEMON_OK;
    ctx->tick_last = now;
    progress.seconds = now - ctx->tick_start;
    if (ctx->options.progress(ctx->options.user, &progress) == 0) return LEMON_OK;
    return lemon__fail(ctx, LEMON_E_CANCELLED, "%s was stopped after %lld of %lld", what, (long long)done, (long long)total);
}

LEMON__BRIEF_END
/* ---- threads: one pool a context.  A job is a count of tasks that workers take one by one.  Who takes a task cannot
        matter for its result: tasks write to places of their own. ---- */

#if LEMON__THREADS
/*  How often a waiting thread looks before it sleeps.  A worker without a job: about a millisecond, longer than the gap
    between two products, for a thread that slept is woken late, and often on the core of the one that woke it.  The
    caller whose last tasks others still work on: a twentieth of that, for one of them may be waiting for this very core. */
enum { LEMON__SPINS_WORKER = 100000, LEMON__SPINS_CALLER = 5000 };

typedef struct lemon__worker { lemon__pool *pool; pthread_t thread; int index; } lemon__worker;

/*  A job's tasks are dealt out in as many lots as there are threads, each with the next part of them all; a worker does its own
    lot, and then helps with others'.  So in one job after the other it has to do with the same rows, which lie in its cache.
    A lot's ticket is the number of the job and, in its lower half, the next task.  A worker takes a task by raising the
    ticket it has read; that fails if the job is over meanwhile, so a worker may come late, or never, to any job: the
    caller works too, and waits only for tasks that were taken.  The words that all threads write lie apart. */
typedef struct lemon__lot { uint64_t ticket; char apart[LEMON__ALIGN - sizeof(uint64_t)]; } lemon__lot;

struct lemon__pool {
    lemon__lot lots[LEMON__MAX_THREADS];
    uint64_t job;                   /* its number, in the upper half; written last */
    char apart[LEMON__ALIGN];
    int64_t done;                   /* tasks of this job that are finished */
    char apart_too[LEMON__ALIGN];
    lemon__task task;               /* of this job, as all that follows; written before the tickets */
    void *arg;
    int64_t count;
    pthread_mutex_t lock;           /* only for sleeping */
    pthread_cond_t wake, idle;
    int sleepers, waiting, stop;    /* workers asleep; the caller is; the end */
    unsigned forks;                 /* lemon__forks when the threads were made */
    int n;                          /* threads besides the caller's */
    lemon__worker worker[LEMON__MAX_THREADS];
};

/*  Counts how often this process is the child of a fork, in which a pool from before has no threads any more. */
static unsigned lemon__forks;
static void lemon__forked(void) { lemon__forks++; }
static void lemon__watch_forks(void) { pthread_atfork(NULL, NULL, lemon__forked); }

static uint64_t lemon__pool_job(lemon__pool *pool) { return __atomic_load_n(&pool->job, __ATOMIC_SEQ_CST); }

/*  Where a lot begins, and the one before it ends. */
static int64_t lemon__pool_begin(const lemon__pool *pool, int64_t count, int lot) { return count * lot / (pool->n + 1); }

/*  Does tasks of a lot of this job until none is left. */
static void lemon__pool_lot(lemon__pool *pool, uint64_t job, int lot, int worker) {
    for (;;) {
        uint64_t ticket = __atomic_load_n(&pool->lots[lot].ticket, __ATOMIC_SEQ_CST);
        const int64_t count = __atomic_load_n(&pool->count, __ATOMIC_ACQUIRE), i = (int64_t)(uint32_t)ticket;
        const lemon__task task = __atomic_load_n(&pool->task, __ATOMIC_RELAXED);
        void *arg = __atomic_load_n(&pool->arg, __ATOMIC_RELAXED);
        if (ticket >> 32 != job >> 32 || i >= lemon__pool_begin(pool, count, lot + 1)) return;
        if (!__atomic_compare_exchange_n(&pool->lots[lot].ticket, &ticket, ticket + 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
            continue;
        task(arg, i, worker);
        if (__atomic_add_fetch(&pool->done, 1, __ATOMIC_SEQ_CST) < count) continue;
        if (!__atomic_load_n(&pool->waiting, __ATOMIC_SEQ_CST)) return;
        pthread_mutex_lock(&pool->lock);
        pthread_cond_signal(&pool->idle);
        pthread_mutex_unlock(&pool->lock);
    }
}

static void lemon__pool_work(lemon__pool *pool, uint64_t job, int worker) {
    for (int i = 0; i <= pool->n; i++) lemon__pool_lot(pool, job, (worker + i) % (pool->n + 1), worker);
}

static void lemon__pause(void) {
#if LEMON__X86
    __builtin_ia32_pause();
#endif
}

/*  Waits for another job than `seen`, and tells it.  The same again: the pool is to close. */
static uint64_t lemon__pool_wait(lemon__pool *pool, uint64_t seen) {
    uint64_t job = lemon__pool_job(pool);
    for (int i = 0; i < LEMON__SPINS_WORKER && job == seen; i++, job = lemon__pool_job(pool)) lemon__pause();
    if (job != seen) return job;
    pthread_mutex_lock(&pool->lock);
    __atomic_add_fetch(&pool->sleepers, 1, __ATOMIC_SEQ_CST);
    while ((job = lemon__pool_job(pool)) == seen && !pool->stop) pthread_cond_wait(&pool->wake, &pool->lock);
    __atomic_sub_fetch(&pool->sleepers, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&pool->lock);
    return job;
}

static void *lemon__pool_main(void *arg) {
    lemon__worker *self = (lemon__worker *)arg;
    uint64_t seen = 0, job;
    while ((job = lemon__pool_wait(self->pool, seen)) != seen) {
        lemon__pool_work(self->pool, job, self->index);
        seen = job;
    }
    return NULL;
}

static int64_t lemon__pool_done(lemon__pool *pool) { return __atomic_load_n(&pool->done, __ATOMIC_SEQ_CST); }

static void lemon__pool_run(lemon__pool *pool, int64_t count, lemon__task task, void *arg) {
    const uint64_t job = lemon__pool_job(pool) + (UINT64_C(1) << 32);
    /*  Closes the old job: who still holds a ticket of it must not take a task by the new count. */
    for (int lot = 0; lot <= pool->n; lot++) __atomic_store_n(&pool->lots[lot].ticket, job - 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&pool->task, task, __ATOMIC_RELAXED);
    __atomic_store_n(&pool->arg, arg, __ATOMIC_RELAXED);
    __atomic_store_n(&pool->count, count, __ATOMIC_RELEASE);
    __atomic_store_n(&pool->done, 0, __ATOMIC_RELAXED);
    for (int lot = 0; lot <= pool->n; lot++)
        __atomic_store_n(&pool->lots[lot].ticket, job + (uint64_t)lemon__pool_begin(pool, count, lot), __ATOMIC_SEQ_CST);
    __atomic_store_n(&pool->job, job, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&pool->sleepers, __ATOMIC_SEQ_CST)) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->lock);
    }
    lemon__pool_work(pool, job, 0);
    for (int i = 0; i < LEMON__SPINS_CALLER && lemon__pool_done(pool) < count; i++) lemon__pause();
    if (lemon__pool_done(pool) == count) return;
    pthread_mutex_lock(&pool->lock);
    __atomic_store_n(&pool->waiting, 1, __ATOMIC_SEQ_CST);
    while (lemon__pool_done(pool) < count) pthread_cond_wait(&pool->idle, &pool->lock);
    __atomic_store_n(&pool->waiting, 0, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&pool->lock);
}

/*  In the child of a fork nobody is left to be joined, and the lock is held by nobody knows whom. */
static void lemon__pool_close(lemon_ctx *ctx, lemon__pool *pool) {
    if (pool->forks == lemon__forks) {
        pthread_mutex_lock(&pool->lock);
        pool->stop = 1;
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->lock);
        for (int i = 0; i < pool->n; i++) pthread_join(pool->worker[i].thread, NULL);
        pthread_cond_destroy(&pool->idle);
        pthread_cond_destroy(&pool->wake);
        pthread_mutex_destroy(&pool->lock);
    }
    lemon__free(ctx, pool, sizeof *pool);
}

/*  n threads besides the caller's; fewer when the system gives no more. */
static lemon__pool *lemon__pool_open(lemon_ctx *ctx, int n) {
    static pthread_once_t watched = PTHREAD_ONCE_INIT;
    lemon__pool *pool = (lemon__pool *)lemon__calloc(ctx, sizeof *pool);
    if (pool == NULL) return NULL;
    pthread_once(&watched, lemon__watch_forks);
    pool->forks = lemon__forks;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->idle, NULL);
    for (; pool->n < n; pool->n++) {
        lemon__worker *w = &pool->worker[pool->n];
        w->pool = pool;
        w->index = pool->n + 1;
        if (pthread_create(&w->thread, NULL, lemon__pool_main, w) != 0) break;
    }
    return pool;
}
#endif

/*  Calls task(arg, i, worker) for i = 0 ... count-1, on all threads of the context; not to be called from a task. */
static void lemon__parallel(lemon_ctx *ctx, int64_t count, lemon__task task, void *arg) {
    int64_t i;
    if (ctx && ctx->options.parallel && count > 1) {
        ctx->options.parallel(ctx->options.user, count, task, arg);
        return;
    }
#if LEMON__THREADS
    if (ctx && ctx->pool && count > 1 && ctx->pool->forks == lemon__forks) {
        lemon__pool_run(ctx->pool, count, task, arg);
        return;
    }
#endif
    for (i = 0; i < count; i++) task(arg, i, 0);
}

static int lemon__default_threads(void) {
    const char *text = lemon__environment("LEMON_THREADS");
    long n = text ? strtol(text, NULL, 10) : 0;
#if LEMON__POSIX
    if (n <= 0) n = sysconf(_SC_NPROCESSORS_ONLN);
#endif
    return n < 1 ? 1 : n > LEMON__MAX_THREADS ? LEMON__MAX_THREADS : (int)n;
}

/*  Bytes of memory that this machine has; SIZE_MAX / 2 where that is not known. */
static size_t lemon__machine_memory(void) {
#if LEMON__POSIX && defined(_SC_PHYS_PAGES)
    const long pages = sysconf(_SC_PHYS_PAGES), bytes = sysconf(_SC_PAGESIZE);
    if (pages > 0 && bytes > 0 && (size_t)pages < SIZE_MAX / 2 / (size_t)bytes) return (size_t)pages * (size_t)bytes;
#endif
    return SIZE_MAX / 2;
}

LEMON__BRIEF_BEGIN
/* ---- contexts ---- */

LEMON_API lemon_ctx *lemon_open(const lemon_options *options) {
    lemon_ctx seed, *ctx;
    memset(&seed, 0, sizeof seed);
    if (options) seed.options = *options;
    seed.isa = seed.options.isa == LEMON_ISA_AUTO ? lemon__default_isa() : seed.options.isa;
    seed.threads = seed.options.threads == 0 ? lemon__default_threads() : seed.options.threads;
    if (seed.options.memory == 0) seed.options.memory = lemon__machine_memory();
    if (seed.threads < 1 || seed.threads > LEMON__MAX_THREADS || !lemon_isa_supported(seed.isa)) return NULL;
    ctx = (lemon_ctx *)lemon__malloc(&seed, sizeof *ctx);
    if (ctx == NULL) return NULL;
    *ctx = seed;
    ctx->bytes = ctx->peak = sizeof *ctx;
#if LEMON__THREADS
    if (ctx->threads > 1 && !ctx->options.parallel) {
        ctx->pool = lemon__pool_open(ctx, ctx->threads - 1);
        if (ctx->pool == NULL) { lemon_close(ctx); return NULL; }
        ctx->threads = ctx->pool->n + 1;
    }
#else
    if (!ctx->options.parallel) ctx->threads = 1;
#endif
    return ctx;
}

LEMON_API void lemon_close(lemon_ctx *ctx) {
    lemon_ctx last;
    if (ctx == NULL) return;
#if LEMON__THREADS
    if (ctx->pool) lemon__pool_close(ctx, ctx->pool);
#endif
    lemon__workspaces_free(ctx);
    lemon__forms_free(ctx);
    last = *ctx;                    /* the allocator's hook outlives the block it is written in */
    lemon__free(&last, ctx, sizeof *ctx);
}

/*  Whether there are other processes on the same work, and sums over all of them. */
static int lemon__ranks(const lemon_ctx *ctx) {
    return ctx->options.all_reduce && ctx->options.ranks > 1 ? ctx->options.ranks : 1;
}

static lemon_status lemon__all_reduce(lemon_ctx *ctx, void *numbers, int64_t count, size_t bytes) {
    if (lemon__ranks(ctx) == 1 || ctx->options.all_reduce(ctx->options.user, numbers, count, bytes) == 0) return LEMON_OK;
    return lemon__fail(ctx, LEMON_E_IO, "process %d of %d could not reach the others; begin again from the last checkpoint",
                       ctx->options.rank, ctx->options.ranks);
}

/* ---- files: mapped for reading where the system can; written beside, flushed and renamed ---- */

#ifdef LEMON_NO_STDIO
/*  There are none: who asks for one is told so. */
static lemon_status lemon__no_file(lemon_ctx *ctx, const char *path) {
    return lemon__fail(ctx, LEMON_E_UNSUPPORTED, "%s: this program was built without files (LEMON_NO_STDIO); expected a "
                       "reader or a writer of its own", path ? path : "a file");
}
static lemon_status lemon__file_read(void *user, uint64_t offset, void *buffer, size_t bytes) {
    (void)user, (void)offset, (void)buffer, (void)bytes;
    return LEMON_E_IO;
}
static lemon_status lemon__file_append(void *user, const void *bytes, size_t count) {
    (void)user, (void)bytes, (void)count;
    return LEMON_E_IO;
}
LEMON_API lemon_status lemon_file_reader(lemon_ctx *ctx, const char *path, lemon_reader *reader) {
    if (reader) memset(reader, 0, sizeof *reader);
    return lemon__no_file(ctx, path);
}
LEMON_API lemon_status lemon_file_writer(lemon_ctx *ctx, const char *path, lemon_writer *writer) {
    if (writer) memset(writer, 0, sizeof *writer);
    return lemon__no_file(ctx, path);
}
#else
typedef struct lemon__file {
    lemon_ctx *ctx;
    char *path, *temporary;         /* both in one block behind this struct */
    size_t bytes;                   /* of that block */
    void *map;
    size_t map_bytes;
    struct lemon__file *next;       /* of those that are mapped */
    size_t used, filled;            /* scratch: bytes handed out, and bytes that the file has */
    FILE *stream;
    int fd;
} lemon__file;

static lemon__file *lemon__file_new(lemon_ctx *ctx, const char *path) {
    size_t n = strlen(path) + 1, bytes = sizeof(lemon__file) + 2 * n + 4;
    lemon__file *file = (lemon__file *)lemon__calloc(ctx, bytes);
    if (file == NULL) return NULL;
    file->ctx = ctx;
    file->bytes = bytes;
    file->fd = -1;
    file->path = (char *)(file + 1);
    file->temporary = file->path + n;
    memcpy(file->path, path, n);
    memcpy(file->temporary, path, n - 1);
    memcpy(file->temporary + n - 1, ".tmp", 5);
    return file;
}

static void lemon__file_close(void *user) {
    lemon__file *file = (lemon__file *)user;
#if LEMON__POSIX
    lemon__file **at = &file->ctx->mapped;
    while (*at && *at != file) at = &(*at)->next;
    if (*at) *at = file->next;
    if (file->map) munmap(file->map, file->map_bytes);
    if (file->fd >= 0) close(file->fd);
#else
    lemon__free(file->ctx, file->map, file->map_bytes);
    if (file->stream) fclose(file->stream);
#endif
    lemon__free(file->ctx, file, file->bytes);
}

static lemon_status lemon__io_error(lemon__file *file, const char *what) {
    return lemon__fail(file->ctx, LEMON_E_IO, "%s: could not %s: %s", file->path, what, strerror(errno));
}

#if LEMON__POSIX
#ifndef __cplusplus
extern int fsync(int fd);           /* strict -std=c99 hides it */
#endif

static int lemon__mkdir(const char *path) { return mkdir(path, 0777); }
static void lemon__folder_remove(const char *path) { rmdir(path); }
static void lemon__file_remove(const char *path) { remove(path); }
static int lemon__rename(const char *from, const char *to) { return rename(from, to); }

/*  read and write may move less than asked for, or be interrupted: both go on until all is done. */
static lemon_status lemon__file_read(void *user, uint64_t offset, void *buffer, size_t bytes) {
    lemon__file *file = (lemon__file *)user;
    char *p = (char *)buffer;
    if (lseek(file->fd, (off_t)offset, SEEK_SET) < 0) return lemon__io_error(file, "seek");
    while (bytes > 0) {
        ssize_t n = read(file->fd, p, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return lemon__io_error(file, "read");
        if (n == 0) return lemon__fail(file->ctx, LEMON_E_IO, "%s: became shorter while it was read", file->path);
        p += n;
        bytes -= (size_t)n;
    }
    return LEMON_OK;
}

/*  Notes what mmap gave; 0 where that is nothing. */
static int lemon__file_mapped(lemon__file *file, size_t bytes) {
    if (file->map == MAP_FAILED) file->map = NULL;
    if (file->map == NULL) return 0;
    file->map_bytes = bytes;
    file->next = file->ctx->mapped;
    file->ctx->mapped = file;
    return 1;
}

static lemon_status lemon__file_open_read(lemon__file *file, uint64_t *size) {
    struct stat info;
    file->fd = open(file->path, O_RDONLY);
    if (file->fd < 0 || fstat(file->fd, &info) != 0) return lemon__io_error(file, "open");
    if (S_ISDIR(info.st_mode))
        return lemon__fail(file->ctx, LEMON_E_UNSUPPORTED, "%s: is a folder without config.json, expected a file, or a "
                           "model's folder", file->path);
    if (!S_ISREG(info.st_mode))         /* its size is not known, and it cannot be read twice */
        return lemon__fail(file->ctx, LEMON_E_UNSUPPORTED, "%s: is a pipe or a device, expected a file", file->path);
    *size = (uint64_t)info.st_size;
    if (info.st_size > 0 && (uint64_t)info.st_size <= SIZE_MAX) {
        file->map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, file->fd, 0);
        lemon__file_mapped(file, (size_t)info.st_size);     /* read() serves as well */
    }
    return LEMON_OK;
}

static lemon_status lemon__file_append(void *user, const void *bytes, size_t count) {
    lemon__file *file = (lemon__file *)user;
    const char *p = (const char *)bytes;
    while (count > 0) {
        ssize_t n = write(file->fd, p, count);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return lemon__io_error(file, "write");
        p += n;
        count -= (size_t)n;
    }
    return LEMON_OK;
}

/*  What is no file would be gone with the rename: /dev/null, for whoever may. */
static lemon_status lemon__file_open_write(lemon__file *file) {
    struct stat info;
    if (stat(file->path, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode))
        return lemon__fail(file->ctx, LEMON_E_IO, "%s: is a pipe or a device, expected a file", file->path);
    file->fd = open(file->temporary, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    return file->fd < 0 ? lemon__io_error(file, "create") : LEMON_OK;
}

static int lemon__file_flush_close(lemon__file *file) {
    int bad = fsync(file->fd) != 0 && errno != EINVAL && errno != EROFS;    /* pipes and the like cannot be flushed */
    bad |= close(file->fd) != 0;
    file->fd = -1;
    return bad;
}
#else
/*  What C's library lacks, or Windows has under other names: paths are UTF-8 here and UTF-16 there, files may have more
    than 2 GB, and a file may take another one's place in one step. */
#ifdef _WIN32
enum { LEMON__WIDE = 1024 };

/*  "" where a path is no UTF-8 (65001), or too long: no file is called that. */
static const wchar_t *lemon__wide(const char *path, wchar_t *out) {
    if (MultiByteToWideChar(65001, 8 /* refuse what is invalid */, path, -1, out, LEMON__WIDE) == 0) out[0] = 0;
    return out;
}

static FILE *lemon__fopen(const char *path, int write) {
    wchar_t wide[LEMON__WIDE];
    return _wfopen(lemon__wide(path, wide), write ? L"wb" : L"rb");
}
static int lemon__fseek(FILE *stream, int64_t offset, int from) { return _fseeki64(stream, offset, from); }
static int64_t lemon__ftell(FILE *stream) { return _ftelli64(stream); }
static int lemon__fsync(FILE *stream) { return fflush(stream) != 0 || _commit(_fileno(stream)) != 0; }
static int lemon__mkdir(const char *path) {
    wchar_t wide[LEMON__WIDE];
    return _wmkdir(lemon__wide(path, wide));
}
static void lemon__folder_remove(const char *path) {
    wchar_t wide[LEMON__WIDE];
    _wrmdir(lemon__wide(path, wide));
}
static void lemon__file_remove(const char *path) {
    wchar_t wide[LEMON__WIDE];
    _wremove(lemon__wide(path, wide));
}
static int lemon__rename(const char *from, const char *to) {
    wchar_t old[LEMON__WIDE], name[LEMON__WIDE];
    if (MoveFileExW(lemon__wide(from, old), lemon__wide(to, name), 1 /* it replaces */)) return 0;
    errno = EACCES;
    return -1;
}
#else
static FILE *lemon__fopen(const char *path, int write) { return fopen(path, write ? "wb" : "rb"); }
static int lemon__fseek(FILE *stream, int64_t offset, int from) {
    return (long)offset == offset ? fseek(stream, (long)offset, from) : -1;
}
static int64_t lemon__ftell(FILE *stream) { return ftell(stream); }
static int lemon__fsync(FILE *stream) { return fflush(stream); }
static int lemon__mkdir(const char *path) { errno = path ? ENOSYS : EINVAL; return -1; }
static void lemon__folder_remove(const char *path) { (void)path; }
static void lemon__file_remove(const char *path) { remove(path); }
static int lemon__rename(const char *from, const char *to) {
    remove(to);                     /* rename does not replace everywhere */
    return rename(from, to);
}
#endif

static lemon_status lemon__file_read(void *user, uint64_t offset, void *buffer, size_t bytes) {
    lemon__file *file = (lemon__file *)user;
    if (lemon__fseek(file->stream, (int64_t)offset, SEEK_SET) != 0) return lemon__io_error(file, "seek");
    if (fread(buffer, 1, bytes, file->stream) == bytes) return LEMON_OK;
    if (ferror(file->stream)) return lemon__io_error(file, "read");
    return lemon__fail(file->ctx, LEMON_E_IO, "%s: became shorter while it was read", file->path);
}

static lemon_status lemon__file_open_read(lemon__file *file, uint64_t *size) {
    file->stream = lemon__fopen(file->path, 0);
    if (file->stream == NULL || lemon__fseek(file->stream, 0, SEEK_END) != 0) return lemon__io_error(file, "open");
    int64_t end = lemon__ftell(file->stream);
    if (end < 0) return lemon__io_error(file, "measure");
    *size = (uint64_t)end;
    return LEMON_OK;
}

static lemon_status lemon__file_append(void *user, const void *bytes, size_t count) {
    lemon__file *file = (lemon__file *)user;
    return fwrite(bytes, 1, count, file->stream) == count ? LEMON_OK : lemon__io_error(file, "write");
}

static lemon_status lemon__file_open_write(lemon__file *file) {
    file->stream = lemon__fopen(file->temporary, 1);
    return file->stream == NULL ? lemon__io_error(file, "create") : LEMON_OK;
}

static int lemon__file_flush_close(lemon__file *file) {
    int bad = lemon__fsync(file->stream) != 0;
    bad |= fclose(file->stream) != 0;
    file->stream = NULL;
    return bad;
}
#endif

static lemon_status lemon__folder_make(lemon_ctx *ctx, const char *path) {
    if (lemon__mkdir(path) == 0 || errno == EEXIST) return LEMON_OK;
    return lemon__fail(ctx, LEMON_E_IO, "%s: could not be made: %s", path, strerror(errno));
}

/*  `to` is replaced. */
static lemon_status lemon__file_move(lemon_ctx *ctx, const char *from, const char *to) {
    if (lemon__rename(from, to) == 0) return LEMON_OK;
    return lemon__fail(ctx, LEMON_E_IO, "%s: could not rename into place: %s", to, strerror(errno));
}

static void lemon__file_abort(void *user) {
    lemon__file *file = (lemon__file *)user;
    lemon__file_remove(file->temporary);
    lemon__file_close(file);
}

static lemon_status lemon__file_commit(void *user) {
    lemon__file *file = (lemon__file *)user;
    lemon_status status = LEMON_OK;
    if (lemon__file_flush_close(file)) status = lemon__io_error(file, "flush");
    else status = lemon__file_move(file->ctx, file->temporary, file->path);
    if (status) lemon__file_remove(file->temporary);
    lemon__file_close(file);
    return status;
}

LEMON_API lemon_status lemon_file_reader(lemon_ctx *ctx, const char *path, lemon_reader *reader) {
    lemon_reader opened = {NULL, NULL, 0, NULL, lemon__file_read, lemon__file_close};
    if (lemon__lacks(ctx, __func__, path && reader)) return LEMON_E_ARG;
    memset(reader, 0, sizeof *reader);
    lemon__file *file = lemon__file_new(ctx, path);
    if (file == NULL) return LEMON_E_MEMORY;
    lemon_status status = lemon__file_open_read(file, &opened.size);
    if (status) {
        int error = errno;
        lemon__file_close(file);
        errno = error;              /* whether there is no such file, or something else was wrong */
        return status;
    }
    opened.user = file;
    opened.name = file->path;
    opened.map = (const uint8_t *)file->map;
    *reader = opened;
    return LEMON_OK;
}

LEMON_API lemon_status lemon_file_writer(lemon_ctx *ctx, const char *path, lemon_writer *writer) {
    lemon_writer opened = {NULL, NULL, lemon__file_append, lemon__file_commit, lemon__file_abort};
    if (lemon__lacks(ctx, __func__, path && writer)) return LEMON_E_ARG;
    lemon__file *file = lemon__file_new(ctx, path);
    if (file == NULL) return LEMON_E_MEMORY;
    lemon_status status = lemon__file_open_write(file);
    if (status) { lemon__file_close(file); return status; }
    opened.user = file;
    opened.name = file->path;
    *writer = opened;
    return LEMON_OK;
}
#endif

/* ---- pages of files: memory that need not stay, and scratch, memory that lies in a file ---- */

enum { LEMON__SOON = 3, LEMON__GONE = 4 };                  /* MADV_WILLNEED, MADV_DONTNEED */

/*  Says of bytes that they will soon be read, or not again; only where they are pages of a mapped file, which keeps them. */
static void lemon__pages(const lemon_ctx *ctx, const void *p, size_t bytes, int advice) {
#if LEMON__LINUX
    const lemon__file *file = ctx->mapped;
    uintptr_t at = (uintptr_t)p;
    while (file && (at < (uintptr_t)file->map || at >= (uintptr_t)file->map + file->map_bytes)) file = file->next;
    if (file == NULL || bytes == 0) return;
    bytes += (at - (uintptr_t)file->map) % 65536;           /* pages have 64 KB at most */
    at -= (at - (uintptr_t)file->map) % 65536;
    lemon__madvise((void *)at, bytes, advice);
#endif
    (void)ctx, (void)p, (void)bytes, (void)advice;
}

#if LEMON__POSIX
/*  Two processes that write into one scratch file would crash each other.  Where a file cannot be locked, none is. */
static int lemon__scratch_lock(int fd) {
    struct flock all;
    memset(&all, 0, sizeof all);
    all.l_type = F_WRLCK;
    all.l_whence = SEEK_SET;
    return fcntl(fd, F_SETLK, &all) == 0 || (errno != EACCES && errno != EAGAIN);
}

/*  Opens scratch of up to `room` bytes; anew, or with what the file holds.  With an ending it stands beside the path that was
    asked for, without a name: it ends with the program.  Of several processes each has its own. */
static lemon_status lemon__scratch_open(lemon_ctx *ctx, const char *ending, size_t room, int anew, struct lemon__file **out) {
    char path[4096], rank[16] = "";
    struct stat info;
    lemon_status status = LEMON_OK;
    *out = NULL;
    if (lemon__ranks(ctx) > 1) lemon__format(rank, sizeof rank, ".%d", ctx->options.rank);
    if (lemon__format(path, sizeof path, "%s%s%s", ctx->options.scratch, rank, ending) >= (int)sizeof path)
        return lemon__fail(ctx, LEMON_E_ARG, "scratch is too long a path");
    lemon__file *file = *out = lemon__file_new(ctx, path);
    if (file == NULL) return LEMON_E_MEMORY;
    if (anew) lemon__file_remove(path);                     /* not emptied: somebody may have it mapped */
    file->fd = open(path, O_RDWR | O_CREAT, 0666);
    if (file->fd < 0 || fstat(file->fd, &info) != 0) status = lemon__io_error(file, "open");
    else if (!lemon__scratch_lock(file->fd))
        status = lemon__fail(ctx, LEMON_E_IO,
                             "%s is in use by another process; wait for it, or give the result another name", path);
    else {
        file->filled = (size_t)info.st_size;
        file->map = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_SHARED, file->fd, 0);
        if (!lemon__file_mapped(file, room)) status = lemon__io_error(file, "map");
        if (*ending) lemon__file_remove(path);
    }
    if (!status) return LEMON_OK;
    lemon__file_close(file);
    *out = NULL;
    return status;
}

/*  The next bytes of it: what the file held there, else zeros.  They are written to the file first, for a full disk is an
    error here, and the end of the program in mapped memory. */
static void *lemon__scratch_take(struct lemon__file *file, size_t bytes) {
    const uint8_t zeros[16384] = {0};
    size_t at = (file->used + 63) / 64 * 64;
    if (bytes > file->map_bytes || at > file->map_bytes - bytes) {
        lemon__fail(file->ctx, LEMON_E_MEMORY, "%s: %.4g MB are too many", file->path, (double)bytes / 1e6);
        return NULL;
    }
    if (file->filled < at + bytes && lseek(file->fd, (off_t)file->filled, SEEK_SET) < 0) {
        lemon__io_error(file, "seek");
        return NULL;
    }
    for (; file->filled < at + bytes; file->filled += sizeof zeros)
        if (lemon__file_append(file, zeros, sizeof zeros)) return NULL;
    file->used = at + bytes;
    return (uint8_t *)file->map + at;
}

/*  All that was written is on the disk. */
static lemon_status lemon__scratch_flush(struct lemon__file *file) {
    return msync(file->map, file->used, MS_SYNC) == 0 ? LEMON_OK : lemon__io_error(file, "flush");
}
static void lemon__scratch_close(struct lemon__file *file) { if (file) lemon__file_close(file); }
#else
static lemon_status lemon__scratch_open(lemon_ctx *ctx, const char *ending, size_t room, int anew, struct lemon__file **out) {
    (void)ending, (void)room, (void)anew;
    *out = NULL;
    return lemon__fail(ctx, LEMON_E_UNSUPPORTED, "%s: there is no scratch on this system", ctx->options.scratch);
}
static void *lemon__scratch_take(struct lemon__file *file, size_t bytes) { (void)file, (void)bytes; return NULL; }
static lemon_status lemon__scratch_flush(struct lemon__file *file) { (void)file; return LEMON_OK; }
static void lemon__scratch_close(struct lemon__file *file) { (void)file; }
#endif

/*  Where scratch is asked for and can be. */
static const char *lemon__scratch_path(const lemon_ctx *ctx) { return LEMON__POSIX ? ctx->options.scratch : NULL; }

LEMON__BRIEF_END
/* ====================================================================================================================
   2  NUMBERS

   Half-precision storage, random numbers and checksums.  bf16 is the upper half of a float; f16 has 5 bits of exponent
   and 10 of mantissa.  Both are only storage here: all arithmetic is float32, and sums that matter are float64.
   ================================================================================================================== */

static uint32_t lemon__bits(float x) { uint32_t b; memcpy(&b, &x, 4); return b; }
static uint64_t lemon__bits64(double x) { uint64_t b; memcpy(&b, &x, 8); return b; }
static float lemon__float(uint32_t b) { float x; memcpy(&x, &b, 4); return x; }
static float lemon__getf32(const uint8_t *p) { return lemon__float(lemon__get32(p)); }

LEMON_API uint16_t lemon_bf16_from_f32(float x) {      /* exercise 2 */
    uint32_t b = lemon__bits(x);
    if ((b & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((b >> 16) | 0x40u);      /* NaN: keep it one */
    return (uint16_t)((b + 0x7fffu + ((b >> 16) & 1u)) >> 16);
}

LEMON_API float lemon_f32_from_bf16(uint16_t x) { return lemon__float((uint32_t)x << 16); }

LEMON_API uint16_t lemon_f16_from_f32(float x) {
    uint32_t b = lemon__bits(x), sign = (b >> 16) & 0x8000u, a = b & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);        /* 65520 and more round to Inf */
    if (a < 0x38800000u) {                                          /* below 2^-14: let the adder round at 2^-24 */
        float magic = lemon__float(a) + 0.5f;
        return (uint16_t)(sign | (lemon__bits(magic) - 0x3f000000u));
    }
    a += 0xc8000fffu + ((a >> 13) & 1u);                            /* exponent bias 127 to 15, round half to even */
    return (uint16_t)(sign | (a >> 13));
}

LEMON_API float lemon_f32_from_f16(uint16_t x) {
    uint32_t sign = (uint32_t)(x & 0x8000u) << 16, a = (uint32_t)(x & 0x7fffu) << 13;
    lemon__fp16 half;
    memcpy(&half, &x, sizeof half);
    if (LEMON__FP16) return (float)half;
    if (a >= 0x0f800000u) return lemon__float(sign | (a + 0x70000000u));            /* Inf, NaN */
    if (a >= 0x00800000u) return lemon__float(sign | (a + 0x38000000u));
    return lemon__float(sign | lemon__bits(lemon__float(a + 0x38800000u) - lemon__float(0x38800000u))); /* subnormal */
}

LEMON_API void lemon_rng_seed(lemon_rng *rng, uint64_t seed) {
    if (rng) rng->state = seed * 0x9e3779b97f4a7c15u + 0x243f6a8885a308d3u;
}

LEMON_API uint64_t lemon_rng_next(lemon_rng *rng) {
    if (rng == NULL) return 0;
    uint64_t z = (rng->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

LEMON_API int64_t lemon_rng_below(lemon_rng *rng, int64_t n) {
    uint64_t range = (uint64_t)(n < 1 ? 1 : n), limit = UINT64_MAX - UINT64_MAX % range, x;
    do x = lemon_rng_next(rng); while (x >= limit);     /* the ragged end would favour small results */
    return (int64_t)(x % range);
}

LEMON_API double lemon_rng_uniform(lemon_rng *rng) {
    return (double)(lemon_rng_next(rng) >> 11) * (1.0 / 9007199254740992.0);
}

/*  Box and Muller 1958; the second of the pair is not kept, so that the state stays one number. */
LEMON_API double lemon_rng_normal(lemon_rng *rng) {      /* exercise 3 */
    double u = 1.0 - lemon_rng_uniform(rng), v = lemon_rng_uniform(rng);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

/*  Half a byte a step. */
static uint32_t lemon__crc_halves(uint32_t c, const uint8_t *p, size_t n) {
    static const uint32_t table[16] = {0, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u, 0x4db26158u,
                                       0x5005713cu, 0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu, 0x9b64c2b0u,
                                       0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu};
    for (; n > 0; n--, p++) {
        c ^= *p;
        c = table[c & 15u] ^ c >> 4;
        c = table[c & 15u] ^ c >> 4;
    }
    return c;
}

/*  Eight tables make eight bytes a step ("slicing by 8", Kounavis and Berry 2005).  They are made anew for each call
    that is long enough to pay, so that there is no global to set up. */
static void lemon__crc_tables(uint32_t table[8][256]) {
    const uint8_t zero = 0;
    for (uint32_t i = 0; i < 256; i++) table[0][i] = lemon__crc_halves(i, &zero, 1);
    for (uint32_t k = 1; k < 8; k++)
        for (uint32_t i = 0; i < 256; i++) table[k][i] = (table[k - 1][i] >> 8) ^ table[0][table[k - 1][i] & 255u];
}

LEMON_API uint32_t lemon_crc32(uint32_t crc, const void *bytes, size_t count) {
    const uint8_t *p = (const uint8_t *)bytes;
    uint32_t c = crc ^ 0xffffffffu;
    if (p == NULL) return crc;
    if (!LEMON__SMALL && count >= 4096) {
        uint32_t t[8][256];
        lemon__crc_tables(t);
        for (; count >= 8; count -= 8, p += 8) {
            uint32_t a = c ^ lemon__get32(p), b = lemon__get32(p + 4);
            c = t[7][a & 255u] ^ t[6][(a >> 8) & 255u] ^ t[5][(a >> 16) & 255u] ^ t[4][a >> 24] ^
                t[3][b & 255u] ^ t[2][(b >> 8) & 255u] ^ t[1][(b >> 16) & 255u] ^ t[0][b >> 24];
        }
    }
    return lemon__crc_halves(c, p, count) ^ 0xffffffffu;
}

/*  a * b as polynomials over bits, modulo the checksum's own; bit 31 is x^0. */
static uint32_t lemon__crc_times(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (; a; a <<= 1, b = b >> 1 ^ (b & 1u ? 0xedb88320u : 0u))
        if (a >> 31) product ^= b;
    return product;
}

/*  The checksum of two pieces in a row from those of each: a goes on over as many zeros as b's piece has bytes. */
static uint32_t lemon__crc_join(uint32_t a, uint32_t b, size_t bytes) {
    for (uint32_t power = UINT32_C(1) << 23; a && bytes; bytes >>= 1, power = lemon__crc_times(power, power))    /* x^8 */
        if (bytes & 1u) a = lemon__crc_times(a, power);
    return a ^ b;
}

enum { LEMON__CRC_PIECE = 1 << 20, LEMON__CRC_PIECES = 64 };
typedef struct lemon__crc_job { const uint8_t *bytes; size_t count; uint32_t pieces[LEMON__CRC_PIECES]; } lemon__crc_job;

static size_t lemon__crc_piece(const lemon__crc_job *job, int64_t i) {
    const size_t most = LEMON__CRC_PIECE, left = job->count - (size_t)i * most;
    return left < most ? left : most;
}

static void lemon__crc_task(void *arg, int64_t i, int worker) {
    lemon__crc_job *job = (lemon__crc_job *)arg;
    (void)worker;
    job->pieces[i] = lemon_crc32(0, job->bytes + (size_t)i * LEMON__CRC_PIECE, lemon__crc_piece(job, i));
}

/*  As lemon_crc32, by all threads, for what may be large. */
static uint32_t lemon__checksum(lemon_ctx *ctx, uint32_t crc, const void *bytes, size_t count) {
    const size_t most = (size_t)LEMON__CRC_PIECE * LEMON__CRC_PIECES;
    lemon__crc_job job = {(const uint8_t *)bytes, 0, {0}};
    if (LEMON__SMALL || count <= LEMON__CRC_PIECE) return lemon_crc32(crc, bytes, count);
    for (; count; count -= job.count, job.bytes += job.count) {
        job.count = count < most ? count : most;
        const int64_t n = lemon__ceil_div((int64_t)job.count, LEMON__CRC_PIECE);
        lemon__parallel(ctx, n, lemon__crc_task, &job);
        for (int64_t i = 0; i < n; i++) crc = lemon__crc_join(crc, job.pieces[i], lemon__crc_piece(&job, i));
    }
    return crc;
}

/* ====================================================================================================================
   3  TENSORS

   A tensor here is a matrix with a storage type: a pointer, rows and columns.  Matrices are stored row after row.  The
   quantised types (GGUF's Q8_0 and Q4_0) cut each row into blocks of 32 numbers x = scale * q with whole q of 8 or 4 bits,
   so a row is the unit that is decoded.  An arena hands out memory piece by piece and frees all of it at once.
   ================================================================================================================== */

enum { LEMON__BLOCK = 32, LEMON__Q8_BYTES = 34, LEMON__Q4_BYTES = 18 };

LEMON_API const char *lemon_dtype_name(lemon_dtype dtype) {
    static const char *const names[] = {"f32", "bf16", "f16", "q8", "q4", "u8", "i32", "f64"};
    return (unsigned)dtype < LEMON_DTYPE_COUNT ? names[dtype] : "unknown";
}

LEMON_API int lemon_dtype_parse(const char *name) {
    for (int i = 0; name && i < LEMON_DTYPE_COUNT; i++)
        if (strcmp(name, lemon_dtype_name((lemon_dtype)i)) == 0) return i;
    return -1;
}

LEMON_API size_t lemon_row_bytes(lemon_dtype dtype, int64_t cols) {
    static const uint8_t unit_bytes[LEMON_DTYPE_COUNT] = {4, 2, 2, LEMON__Q8_BYTES, LEMON__Q4_BYTES, 1, 4, 8};
    int64_t units = cols;
    if ((unsigned)dtype >= LEMON_DTYPE_COUNT || cols < 0 || cols > INT64_MAX / 64) return 0;
    if (dtype == LEMON_Q8 || dtype == LEMON_Q4) units = lemon__ceil_div(cols, LEMON__BLOCK);
    if ((uint64_t)units > SIZE_MAX / 64) return 0;
    return (size_t)units * unit_bytes[dtype];
}

LEMON_API size_t lemon_tensor_bytes(const lemon_tensor *tensor) {
    size_t bytes = 0;
    if (tensor == NULL || tensor->rows < 0 || (uint64_t)tensor->rows > SIZE_MAX) return 0;
    return lemon__mul((size_t)tensor->rows, lemon_row_bytes(tensor->dtype, tensor->cols), &bytes) ? bytes : 0;
}

/* ---- one block of 32; n < 32 at the ragged end of a row ---- */

static void lemon__q8_decode(const uint8_t *in, float *out, int64_t n) {
    float scale = lemon_f32_from_f16(lemon__get16(in));
    for (int64_t i = 0; i < n; i++) out[i] = scale * (float)(int8_t)in[2 + i];
}

static void lemon__q8_encode(const float *in, uint8_t *out, int64_t n) {
    float top = 0.0f;
    for (int64_t i = 0; i < n; i++) top = fabsf(in[i]) > top ? fabsf(in[i]) : top;
    float inverse = top > FLT_MIN * 127.0f ? 127.0f / top : 0.0f;      /* below that the scale is 0, and its inverse Inf */
    lemon__put16(out, lemon_f16_from_f32(top / 127.0f));
    memset(out + 2, 0, LEMON__BLOCK);
    for (int64_t i = 0; i < n; i++) out[2 + i] = (uint8_t)(int8_t)roundf(in[i] * inverse);
}

static void lemon__q4_decode(const uint8_t *in, float *out, int64_t n) {      /* exercise 4 */
    float scale = lemon_f32_from_f16(lemon__get16(in));
    int64_t i;
    for (i = 0; i < n; i++) {
        int nibble = i < 16 ? in[2 + i] & 15 : in[2 + i - 16] >> 4;
        out[i] = scale * (float)(nibble - 8);
    }
}

/*  The number of largest magnitude becomes -8 exactly: one more step on that side than a symmetric scale has. */
static void lemon__q4_encode(const float *in, uint8_t *out, int64_t n) {
    float top = 0.0f;
    for (int64_t i = 0; i < n; i++) top = fabsf(in[i]) > fabsf(top) ? in[i] : top;
    float inverse = fabsf(top) > FLT_MIN * 127.0f ? -8.0f / top : 0.0f;
    lemon__put16(out, lemon_f16_from_f32(top / -8.0f));
    memset(out + 2, 0x88, 16);                          /* padding is zero, which is nibble 8 */
    for (int64_t i = 0; i < n; i++) {
        int q = (int)(in[i] * inverse + 8.5f);
        uint8_t *byte = out + 2 + i % 16;
        q = q > 15 ? 15 : q;
        *byte = (uint8_t)(i < 16 ? (*byte & 0xf0) | q : (*byte & 0x0f) | q << 4);
    }
}

/* ---- rows ---- */

static const uint8_t *lemon__row(const lemon_tensor *tensor, int64_t row) {
    return (const uint8_t *)tensor->data + (size_t)row * lemon_row_bytes(tensor->dtype, tensor->cols);
}

static void lemon__blocks_decode(const uint8_t *in, float *out, int64_t cols, size_t block_bytes,
                                 void (*decode)(const uint8_t *, float *, int64_t)) {
    for (int64_t i = 0; i < cols; i += LEMON__BLOCK, in += block_bytes)
        decode(in, out + i, lemon__min(LEMON__BLOCK, cols - i));
}

/*  A block with NaN or Inf in it is NaN as a whole: no byte stands for either. */
static void lemon__blocks_encode(const float *in, uint8_t *out, int64_t cols, size_t block_bytes,
                                 void (*encode)(const float *, uint8_t *, int64_t)) {
    int64_t j, n;
    for (int64_t i = 0; i < cols; i += n, out += block_bytes) {
        n = lemon__min(LEMON__BLOCK, cols - i);
        for (j = 0; j < n && lemon__finite((double)in[i + j]); j++) {}
        if (j == n) { encode(in + i, out, n); continue; }
        memset(out, 0, block_bytes);
        lemon__put16(out, 0x7e00);
    }
}

static int lemon__has_row(const lemon_tensor *tensor, int64_t row) {
    return tensor && tensor->data && row >= 0 && row < tensor->rows && tensor->cols > 0;
}

LEMON_API void lemon_row_to_f32(const lemon_tensor *tensor, int64_t row, float *out) {
    if (!lemon__has_row(tensor, row) || out == NULL) return;
    const uint8_t *in = lemon__row(tensor, row);
    int64_t n = tensor->cols;
    switch (tensor->dtype) {
    case LEMON_F32: memcpy(out, in, (size_t)n * sizeof *out); break;
    case LEMON_BF16: for (int64_t i = 0; i < n; i++) out[i] = lemon_f32_from_bf16(lemon__get16(in + 2 * i)); break;
    case LEMON_F16: for (int64_t i = 0; i < n; i++) out[i] = lemon_f32_from_f16(lemon__get16(in + 2 * i)); break;
    case LEMON_Q8: lemon__blocks_decode(in, out, n, LEMON__Q8_BYTES, lemon__q8_decode); break;
    case LEMON_Q4: lemon__blocks_decode(in, out, n, LEMON__Q4_BYTES, lemon__q4_decode); break;
    default: memset(out, 0, (size_t)n * sizeof *out); break;      /* u8, i32 and f64 are no weights */
    }
}

LEMON_API void lemon_row_from_f32(lemon_tensor *tensor, int64_t row, const float *in) {
    if (!lemon__has_row(tensor, row) || in == NULL) return;
    uint8_t *out = (uint8_t *)tensor->data + (size_t)row * lemon_row_bytes(tensor->dtype, tensor->cols);
    int64_t n = tensor->cols;
    switch (tensor->dtype) {
    case LEMON_F32: memcpy(out, in, (size_t)n * sizeof *in); break;
    case LEMON_BF16: for (int64_t i = 0; i < n; i++) lemon__put16(out + 2 * i, lemon_bf16_from_f32(in[i])); break;
    case LEMON_F16: for (int64_t i = 0; i < n; i++) lemon__put16(out + 2 * i, lemon_f16_from_f32(in[i])); break;
    case LEMON_Q8: lemon__blocks_encode(in, out, n, LEMON__Q8_BYTES, lemon__q8_encode); break;
    case LEMON_Q4: lemon__blocks_encode(in, out, n, LEMON__Q4_BYTES, lemon__q4_encode); break;
    default: break;
    }
}

/* ---- zeros and copies: all threads write them where they are many, and so share the page faults of new memory ---- */

enum { LEMON__MOVED = 1 << 21 };

typedef struct lemon__moving { char *to; const char *from; size_t bytes; } lemon__moving;

static void lemon__move_task(void *arg, int64_t index, int worker) {
    const lemon__moving *g = (const lemon__moving *)arg;
    const size_t at = (size_t)index * LEMON__MOVED, n = g->bytes - at < LEMON__MOVED ? g->bytes - at : (size_t)LEMON__MOVED;
    (void)worker;
    if (g->from) memcpy(g->to + at, g->from + at, n);
    else memset(g->to + at, 0, n);
}

/*  from: NULL for zeros. */
static void lemon__move(lemon_ctx *ctx, void *to, const void *from, size_t bytes) {
    lemon__moving g;
    g.to = (char *)to, g.from = (const char *)from, g.bytes = bytes;
    lemon__parallel(ctx, (int64_t)((bytes + LEMON__MOVED - 1) / LEMON__MOVED), lemon__move_task, &g);
}

static void lemon__zero(lemon_ctx *ctx, void *p, size_t bytes) {
    if (LEMON__SMALL) memset(p, 0, bytes);
    else lemon__move(ctx, p, NULL, bytes);
}

/* ---- arenas: a chain of blocks, each with its size and the next in front ---- */

typedef struct lemon__arena_block {
    struct lemon__arena_block *next;
    size_t bytes, used;
    struct lemon__file *file;       /* scratch of the arena: what is large lies there; the same in all blocks, or NULL */
} lemon__arena_block;

enum { LEMON__ARENA_BLOCK = LEMON__SMALL ? 1 << 12 : 1 << 20, LEMON__ARENA_LARGE = 1 << 16, LEMON__SCRATCH_MORE = 1 << 28 };

LEMON_API void *lemon_arena_alloc(lemon_ctx *ctx, lemon_arena *arena, size_t bytes) {
    lemon__arena_block *block = arena ? (lemon__arena_block *)arena->blocks : NULL;
    if (bytes > SIZE_MAX / 2 || arena == NULL) return lemon__malloc(ctx, SIZE_MAX);     /* fails with the message */
    size_t need = (bytes + LEMON__ALIGN - 1) / LEMON__ALIGN * LEMON__ALIGN;
    if (block && block->file && need >= LEMON__ARENA_LARGE) return lemon__scratch_take(block->file, need);
    if (block == NULL || block->bytes - block->used < need) {
        size_t size = LEMON__ALIGN + (need > LEMON__ARENA_BLOCK / 4 ? need : (size_t)LEMON__ARENA_BLOCK);
        block = (lemon__arena_block *)lemon__malloc(ctx, size);
        if (block == NULL) return NULL;
        block->next = (lemon__arena_block *)arena->blocks;
        block->bytes = size;
        block->used = LEMON__ALIGN;
        block->file = block->next ? block->next->file : NULL;
        arena->blocks = block;
    }
    char *p = (char *)block + block->used;
    block->used += need;
    lemon__zero(ctx, p, need);
    return p;
}

LEMON_API void lemon_arena_free(lemon_ctx *ctx, lemon_arena *arena) {
    lemon__arena_block *block = arena ? (lemon__arena_block *)arena->blocks : NULL;
    while (block) {
        lemon__arena_block *next = block->next;
        if (next == NULL) lemon__scratch_close(block->file);
        lemon__free(ctx, block, block->bytes);
        block = next;
    }
    if (arena) arena->blocks = NULL;
}

/*  An empty arena takes scratch over. */
static lemon_status lemon__arena_scratch(lemon_ctx *ctx, lemon_arena *arena, struct lemon__file *file) {
    if (lemon_arena_alloc(ctx, arena, 1) == NULL) {
        lemon__scratch_close(file);
        return LEMON_E_MEMORY;
    }
    ((lemon__arena_block *)arena->blocks)->file = file;
    return LEMON_OK;
}

/*  Scratch without a name, beside the one that was asked for. */
static lemon_status lemon__scratch_beside(lemon_ctx *ctx, const char *ending, int64_t numbers, struct lemon__file **file) {
    size_t room;
    if (!lemon__mul((size_t)numbers, sizeof(float), &room) || room > SIZE_MAX / 2)
        return lemon__fail(ctx, LEMON_E_MEMORY, "%s%s: too large for this machine's address space", ctx->options.scratch,
                           ending);
    return lemon__scratch_open(ctx, ending, room + LEMON__SCRATCH_MORE, 1, file);
}

/*  An empty arena gets such scratch. */
static lemon_status lemon__arena_scratch_beside(lemon_ctx *ctx, lemon_arena *arena, const char *ending, int64_t numbers) {
    struct lemon__file *file;
    lemon_status status = lemon__scratch_beside(ctx, ending, numbers, &file);
    return status ? status : lemon__arena_scratch(ctx, arena, file);
}

/*  Frees what an arena in memory got since it had `until` as its newest block; the context keeps large blocks. */
static void lemon__arena_release(lemon_ctx *ctx, lemon_arena *arena, void *until) {
    while (arena->blocks != until) {
        lemon__arena_block *block = (lemon__arena_block *)arena->blocks;
        arena->blocks = block->next;
        if (block->bytes > LEMON__HUGE) lemon__keep(ctx, block, block->bytes);
        else lemon__free(ctx, block, block->bytes);
    }
}

/*  rows * cols numbers of `each` bytes from an arena; the size is checked for overflow. */
static void *lemon__numbers(lemon_ctx *ctx, lemon_arena *arena, int64_t rows, int64_t cols, size_t each) {
    size_t n = 0, bytes = 0;
    if (rows < 0 || cols < 0 || !lemon__mul((size_t)rows, (size_t)cols, &n) || !lemon__mul(n, each, &bytes)) bytes = SIZE_MAX;
    return lemon_arena_alloc(ctx, arena, bytes);
}

static float *lemon__floats(lemon_ctx *ctx, lemon_arena *arena, int64_t rows, int64_t cols) {
    return (float *)lemon__numbers(ctx, arena, rows, cols, sizeof(float));
}

static double *lemon__doubles(lemon_ctx *ctx, lemon_arena *arena, int64_t rows, int64_t cols) {
    return (double *)lemon__numbers(ctx, arena, rows, cols, sizeof(double));
}

static int32_t *lemon__ids(lemon_ctx *ctx, lemon_arena *arena, int64_t rows, int64_t cols) {
    return (int32_t *)lemon__numbers(ctx, arena, rows, cols, sizeof(int32_t));
}

/*  A tensor of a mapped file has no const of its own: whoever may not write to it knows that by model->block being
    NULL. */
static void *lemon__unconst(const void *p) {
    void *q;
    memcpy(&q, &p, sizeof q);
    return q;
}

/*  Numbers that stand somewhere, as a tensor. */
static lemon_tensor lemon__view(void *data, lemon_dtype dtype, int64_t rows, int64_t cols) {
    const lemon_tensor t = {data, dtype, rows, cols};
    return t;
}

/* ====================================================================================================================
   4  GEMM

   C = alpha * op(A) * op(B) + beta * C, with op(A) of m x k, op(B) of k x n and C of m x n.  Nine tenths of the time
   that a transformer takes are spent here, so this chapter is about one thing: keeping the arithmetic units fed.

   Why the naive loop is slow.  Three nested loops around c[i][j] += a[i][p] * b[p][j] load two numbers for each
   multiplication and addition.  A core of today does 16 or 32 of these (FMAs) in a cycle; it loads as many numbers in a
   cycle from its first cache, fewer from its second, and one or two from memory.  The way out is reuse: a tile of mr x nr
   elements of C needs mr + nr numbers for mr * nr FMAs at each step of k.  If the tile stays in registers, loads no longer
   limit us.

       AVX2      6 x 16   12 of 16 registers hold C, 2 a row of B, 1 a broadcast element of A:   8 loads, 12 FMAs
       AVX-512  14 x 32   28 of 32 registers hold C, 2 a row of B, 1 a broadcast element of A:  16 loads, 28 FMAs
       NEON      8 x 12   24 of 32 registers hold C, 3 a row of B, 2 a column of A, by its lanes: 5 loads, 24 FMAs
       ARMv7     6 x 8    12 of 16 registers hold C, as AVX2 does

   An FMA takes four cycles or five and two start in each, so at least ten must be under way: 12 and 28 independent sums
   are enough.  These are the largest tiles that fit, two vectors wide so that each broadcast is used twice.

   The five loops.  Around this micro-kernel the matrices are cut so that each level of cache holds what is reused most
   (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008; the loops as in BLIS):

       for each block of nc columns of C and B              jc
           for each block of kc steps of k                  pc     pack B: kc x nc, stays in L3
               for each block of mc rows of C and A         ic     pack A: mc x kc, stays in L2
                   for each panel of nr columns             jr     kc x nr of B, stays in L1
                       for each panel of mr rows            ir     mr x kc of A, streams from L2
                           micro-kernel                            mr x nr of C, in registers, for kc steps

            A packed, mr = 3:                  the numbers are addresses: a panel holds mr rows, step after step.
              panel 0 |  0  3  6  9 ...        B packed is the same with nr columns in place of mr rows.
                      |  1  4  7 10 ...
                      |  2  5  8 11 ...

   Packing copies a block into the very order in which the micro-kernel reads it, transposed or not: one stream, no
   wasted cache line, few pages.  It costs one pass over A for each nc columns and one over B: little when each element
   is used hundreds of times, much when the product is small.  So matrices that fit in L2 are read in place; the
   micro-kernel takes strides and does not know the difference.  So is A where it lies by rows: those of a panel are a few
   streams, which the hardware follows, unless they are a multiple of 4 KB apart and fall on the same places of L1.  A panel
   of B is packed just before its first use, and while the panel before it is multiplied, the micro-kernel asks the cache
   for it: multiplying hides the reading.

   Few rows of A.  A transformer that generates text reads each weight for one token.  Each element of B is used m times
   only then, memory is the limit, and B must be read as the hardware likes it: several streams, each from end to end.
   Where B is transposed that is a dot product for each of some rows of B; where it is not (a plain B), some scaled rows of B
   are added to C, which stays in L1.  From five rows on (of a transposed B nine or thirteen) a tile is full enough, and
   blocks of a plain B are asked for ahead, row after row.  Three things cost much speed and are kept away from: loads
   with a mask, which the hardware does not read ahead of; tiles of narrow columns, which touch a new page for each 128
   bytes; and rows a power of two apart, which fall on the same places of a cache.

   Where the time goes: nearly all cycles of a large product are FMAs; the others wait for C (each kc steps), pack, and
   miss pages.  `make -C bench gemm` measures it, beside other libraries.

   Bits.  The order in which the products of one element of C are summed depends on the shape of the whole product and
   on the instruction set only: not on the sizes of caches, for kc is fixed, and not on threads, which share out tiles of
   C and never split k.
   ================================================================================================================== */

/* ---- the tile ---- */

/*  What a micro-kernel computes: c = alpha * a * b + beta * c for a tile of as many rows as the kernel is made for.
    a(i, p) = a[i * a_row + p * a_step] and b(p, j) = b[p * b_step + j], packed or in place.  Meanwhile it asks the
    cache for what a later tile will read: at each step a piece as wide as the tile, `run` pieces next_step bytes apart,
    then on by next_jump bytes, and so on. */
typedef struct lemon__tile {
    const float *a, *b;
    float *c;
    uintptr_t next;
    int64_t k, a_row, a_step, b_step, ldc, columns, run;
    uintptr_t next_step, next_jump;
    float alpha, beta;
} lemon__tile;

typedef void (*lemon__kernel)(const lemon__tile *tile);
struct lemon__machine;

/*  One product, its operands by strides: a(i, p) = a[i * a_row + p * a_step], b(p, j) = b[p * b_step + j * b_col].  For
    each operand one of the two is 1; transposition only swaps them.  A part of C is a product as well: pointers moved
    on, blocks of its own (lemon__plan_part), and what the bits depend on as it was decided for the whole (lemon__plan). */
typedef struct lemon__product {
    const struct lemon__machine *machine;
    const float *a, *b;
    float *c;
    int64_t m, n, k, a_row, a_step, b_step, b_col, ldc;
    float alpha, beta;
    int64_t rows, block_m, block_n, block_k;    /* height of a tile, and the blocks of the five loops */
    int64_t packed_a, packed_b;                 /* floats of workspace for a packed block; 0: read in place */
    int64_t panel_b;                            /* floats from a packed column of B to the next; 0: one panel at a time */
    float *ready;                               /* B packed before, [k blocks, ready_n, block_k], or NULL */
    int64_t ready_n;                            /* its columns, a multiple of nr */
    lemon_dtype type;                           /* of B; rows of other types than f32 are b_bytes apart */
    size_t b_bytes;
    int path, thin;                             /* thin: one tile has all rows of A; a plain B by THIN_K x THIN_N, in place */
} lemon__product;

enum { LEMON__BY_SCALE, LEMON__BY_TILES, LEMON__BY_DOTS, LEMON__BY_SUMS };      /* the paths */

/*  For few rows of A.  A dot kernel computes some rows of C in up to `columns` columns, from rows of a transposed B; a
    sum kernel adds `steps` scaled rows of a plain B to some rows of C, in columns col to last - 1. */
typedef struct lemon__dots {
    void (*run)(const lemon__product *g, int64_t row, int64_t col, int64_t columns);
    int64_t columns;
} lemon__dots;

typedef struct lemon__sums {
    void (*run)(const lemon__product *g, int64_t row, int64_t p, int64_t col, int64_t last);
    int64_t steps;
} lemon__sums;

/*  What an instruction set brings. wide[r - 1] computes r x nr, narrow[r - 1] computes r x columns with columns <=
    half: no tile is padded, and nothing outside of the matrices is touched.  So for r rows dots[r - 1], sums[r - 1]. */
typedef struct lemon__machine {
    int64_t mr, nr, half, a_width;              /* a packed panel of A is a_width floats wide, for aligned copies */
    int64_t kc, nc;                             /* the largest blocks; mc follows from L2 */
    int64_t few_dots, dot_rows;                 /* up to how many rows of A dot products win, and so many at once */
    int64_t few_sums, sum_rows;                 /* the same for sums of rows */
    const lemon__kernel *wide, *narrow;
    const lemon__dots *dots[LEMON_DTYPE_COUNT]; /* by the type of B; NULL: none, its rows must be decoded first */
    const lemon__sums *sums;
    void (*pack)(float *out, int64_t width, const float *in, int64_t lane, int64_t step, int64_t lanes, int64_t steps);
} lemon__machine;

/*  Found by measurement.  LARGE: matrices of more numbers are packed, for smaller ones stay in L2 as they are; FEW: from
    so many numbers of B on, the order in which it is read counts; THIN_K x THIN_N: the blocks of B for a few rows of A,
    two of which fit in L2; SUMS: numbers of C that sums of rows keep in L1; PARALLEL: multiply-adds that are worth a
    second thread. */
enum {
    LEMON__LARGE = 131072, LEMON__FEW = 65536, LEMON__THIN_K = 128, LEMON__THIN_N = 256, LEMON__SUMS = 8192,
    LEMON__PARALLEL = 262144
};

/* ---- plain C: the specification of what follows ---- */

LEMON__INLINE void lemon__finish(float *c, float sum, float alpha, float beta) {
    *c = beta != 0 ? alpha * sum + beta * *c : alpha * sum;
}

/*  A row of the tile after the other: its eight sums are what compilers keep in registers without being told how. */
LEMON__INLINE void lemon__tile_plain(const lemon__tile *t, int rows) {
    for (int i = 0; i < rows; i++) {
        const float *a = t->a + i * t->a_row, *b = t->b;
        float sum[8] = {0}, *c = t->c + i * t->ldc;
        for (int64_t p = 0; p < t->k; p++, a += t->a_step, b += t->b_step)
            for (int j = 0; j < 8; j++) sum[j] += *a * b[j];
        for (int j = 0; j < 8; j++) lemon__finish(c + j, sum[j], t->alpha, t->beta);
    }
}

/*  A tile of less than eight columns, at the right edge. */
static void lemon__edge_plain(const lemon__tile *t, int rows) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < t->columns; j++) {
            float sum = 0;
            for (int64_t p = 0; p < t->k; p++) sum += t->a[i * t->a_row + p * t->a_step] * t->b[p * t->b_step + j];
            lemon__finish(t->c + i * t->ldc + j, sum, t->alpha, t->beta);
        }
}

#define LEMON__PLAIN_KERNELS(rows) \
    static void lemon__wide_plain_##rows(const lemon__tile *t) { lemon__tile_plain(t, rows); } \
    static void lemon__narrow_plain_##rows(const lemon__tile *t) { lemon__edge_plain(t, rows); }
LEMON__PLAIN_KERNELS(1) LEMON__PLAIN_KERNELS(2) LEMON__PLAIN_KERNELS(3) LEMON__PLAIN_KERNELS(4)

/*  Copies `lanes` rows or columns of a matrix side by side: out[s * width + l] = in[l * lane + s * step].  One of the
    two strides is 1: if it is `lane` this copies, if it is `step` it transposes.  What is beyond `lanes` is left as it
    is. */
static void lemon__pack_plain(float *out, int64_t width, const float *in, int64_t lane, int64_t step, int64_t lanes,
                              int64_t steps) {
    for (int64_t s = 0; s < steps; s++, in += step, out += width)
        for (int64_t l = 0; l < lanes; l++) out[l] = in[l * lane];
}

/*  Dot products by eight partial sums, added in a fixed order. */
static float lemon__dot_plain(const float *a, const float *b, int64_t k) {
    float sum[8] = {0};
    int64_t p;
    for (p = 0; p + 8 <= k; p += 8)
        for (int l = 0; l < 8; l++) sum[l] += a[p + l] * b[p + l];
    for (int l = 0; p < k; p++, l++) sum[l] += a[p] * b[p];
    return ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
}

/*  A row of a transposed B, and one number of it. */
LEMON__INLINE const uint8_t *lemon__b_row(const lemon__product *g, int64_t j) {
    return (const uint8_t *)(const void *)g->b + (size_t)j * g->b_bytes;
}

LEMON__INLINE float lemon__b_at(const lemon__product *g, const uint8_t *row, int64_t p) {
    const uint8_t *block = row + p / LEMON__BLOCK * LEMON__Q8_BYTES;
    if (g->type == LEMON_F32) return ((const float *)(const void *)row)[p];
    if (g->type == LEMON_BF16) return lemon_f32_from_bf16(lemon__get16(row + 2 * p));
    return lemon_f32_from_f16(lemon__get16(block)) * (float)(int8_t)block[2 + p % LEMON__BLOCK];
}

static void lemon__dots_plain(const lemon__product *g, int64_t row, int64_t col, int64_t columns) {
    const float *a = g->a + row * g->a_row, *b = g->b + col * g->b_col;
    float *c = g->c + row * g->ldc + col, *end = c + columns;
    for (; c < end; c++, b += g->b_col) lemon__finish(c, lemon__dot_plain(a, b, g->k), g->alpha, g->beta);
}

static void lemon__sums_plain(const lemon__product *g, int64_t row, int64_t p, int64_t col, int64_t last) {
    const float x = g->alpha * g->a[row * g->a_row + p * g->a_step], *b = g->b + p * g->b_step;
    const int64_t step = LEMON__SMALL ? g->b_col : 1;   /* where there are tiles, only they meet other steps */
    float *c = g->c + row * g->ldc;
    int64_t j;
    for (j = col, b += j * step; j < last; j++, b += step) c[j] += x * *b;
}

/*  c = beta * c, where zero also clears a NaN. */
static void lemon__scale(const lemon__product *g) {
    for (int64_t i = 0; i < g->m; i++) {
        float *c = g->c + i * g->ldc;
        if (g->beta == 0) memset(c, 0, (size_t)g->n * sizeof *c);
        else if (g->beta != 1) for (int64_t j = 0; j < g->n; j++) c[j] *= g->beta;
    }
}

/* ---- vectors: x86-64 with AVX2 and FMA or with AVX-512, ARM with NEON, WebAssembly with SIMD128 ---- */

/*  The kernels are written once for all.  V is m256, m512, neon or wasm, which yields the type LEMON__VEC_m256, that is
    __m256, the operation LEMON__FMA_m256 (which in wasm rounds twice) and so on; only the wide micro-kernel of AArch64
    differs in form.  Compilers keep a tile in registers only if each of its accumulators is a variable of its own, so the
    rows are unrolled by LEMON__ROWS_r(X, V), which is X(V, 0, ...) X(V, 1, ...) ... for r rows.  Every third row has a
    pointer; the two behind it are one and two strides away, which an address holds for nothing: p3[row * 2]. */

#define LEMON__ROWS_1(X, ...) X(__VA_ARGS__, 0, p0[0])
#define LEMON__ROWS_2(X, ...) LEMON__ROWS_1(X, __VA_ARGS__) X(__VA_ARGS__, 1, p0[row])
#define LEMON__ROWS_3(X, ...) LEMON__ROWS_2(X, __VA_ARGS__) X(__VA_ARGS__, 2, p0[row * 2])
#define LEMON__ROWS_4(X, ...) LEMON__ROWS_3(X, __VA_ARGS__) X(__VA_ARGS__, 3, p3[0])
#define LEMON__ROWS_5(X, ...) LEMON__ROWS_4(X, __VA_ARGS__) X(__VA_ARGS__, 4, p3[row])
#define LEMON__ROWS_6(X, ...) LEMON__ROWS_5(X, __VA_ARGS__) X(__VA_ARGS__, 5, p3[row * 2])
#define LEMON__ROWS_7(X, ...) LEMON__ROWS_6(X, __VA_ARGS__) X(__VA_ARGS__, 6, p6[0])
#define LEMON__ROWS_8(X, ...) LEMON__ROWS_7(X, __VA_ARGS__) X(__VA_ARGS__, 7, p6[row])
#define LEMON__ROWS_9(X, ...) LEMON__ROWS_8(X, __VA_ARGS__) X(__VA_ARGS__, 8, p6[row * 2])
#define LEMON__ROWS_10(X, ...) LEMON__ROWS_9(X, __VA_ARGS__) X(__VA_ARGS__, 9, p9[0])
#define LEMON__ROWS_11(X, ...) LEMON__ROWS_10(X, __VA_ARGS__) X(__VA_ARGS__, 10, p9[row])
#define LEMON__ROWS_12(X, ...) LEMON__ROWS_11(X, __VA_ARGS__) X(__VA_ARGS__, 11, p9[row * 2])
#define LEMON__ROWS_13(X, ...) LEMON__ROWS_12(X, __VA_ARGS__) X(__VA_ARGS__, 12, p12[0])
#define LEMON__ROWS_14(X, ...) LEMON__ROWS_13(X, __VA_ARGS__) X(__VA_ARGS__, 13, p12[row])

#define LEMON__STEPS_3(X, V, i) X(V, i, 0) X(V, i, 1) X(V, i, 2)
#define LEMON__STEPS_4(X, V, i) LEMON__STEPS_3(X, V, i) X(V, i, 3)
#define LEMON__STEPS_6(X, V, i) LEMON__STEPS_4(X, V, i) X(V, i, 4) X(V, i, 5)
#define LEMON__STEPS_8(X, V, i) LEMON__STEPS_6(X, V, i) X(V, i, 6) X(V, i, 7)

#if LEMON__X86
#define LEMON__VECTORS(X) X(m256) X(m512)
#elif LEMON__NEON
#define LEMON__VECTORS(X) X(neon)
#elif LEMON__WASM
#define LEMON__VECTORS(X) X(wasm)
#else
#define LEMON__VECTORS(X)
#endif
#define LEMON__ISA_m256 LEMON_ISA_AVX2
#define LEMON__ISA_m512 LEMON_ISA_AVX512
#define LEMON__ISA_neon LEMON_ISA_NEON
#define LEMON__ISA_wasm LEMON_ISA_WASM
#define LEMON__VEC_m256 __m256
#define LEMON__VEC_m512 __m512
#define LEMON__VEC_neon float32x4_t
#define LEMON__VEC_wasm v128_t
#define LEMON__SET_m256 _mm256_set1_ps
#define LEMON__SET_m512 _mm512_set1_ps
#define LEMON__SET_neon vdupq_n_f32
#define LEMON__SET_wasm wasm_f32x4_splat
#define LEMON__GET_m256 _mm256_loadu_ps
#define LEMON__GET_m512 _mm512_loadu_ps
#define LEMON__GET_neon vld1q_f32
#define LEMON__GET_wasm wasm_v128_load
#define LEMON__PUT_m256 _mm256_storeu_ps
#define LEMON__PUT_m512 _mm512_storeu_ps
#define LEMON__PUT_neon vst1q_f32
#define LEMON__PUT_wasm wasm_v128_store
#define LEMON__MUL_m256(a, b) ((a) * (b))
#define LEMON__MUL_m512 LEMON__MUL_m256
#define LEMON__MUL_neon vmulq_f32
#define LEMON__MUL_wasm wasm_f32x4_mul
#define LEMON__FMA_m256 _mm256_fmadd_ps
#define LEMON__FMA_m512 _mm512_fmadd_ps
#define LEMON__FMA_neon(a, b, c) vfmaq_f32(c, a, b)
#define LEMON__FMA_wasm(a, b, c) wasm_f32x4_add(c, wasm_f32x4_mul(a, b))

/*  F16C came before AVX2, in every CPU. */
#define LEMON__TARGET_m256 LEMON__TARGET("avx2,fma,f16c")
#define LEMON__TARGET_m512 LEMON__TARGET("avx512f,avx2,fma,f16c")
#define LEMON__TARGET_neon
#define LEMON__TARGET_wasm

/*  Masks: the first n lanes, n >= 0.  Lanes beyond are neither read nor written, and load as zero.  Only for edges, for
    the hardware does not read ahead of masked loads. */
#define LEMON__MASK_m256 __m256i
#define LEMON__MASK_m512 __mmask16
#define LEMON__MASK_neon int64_t
#define LEMON__MASK_wasm int64_t
#define LEMON__LOAD_m256(x, mask) _mm256_maskload_ps(x, mask)
#define LEMON__LOAD_m512(x, mask) _mm512_maskz_loadu_ps(mask, x)
#define LEMON__LOAD_neon lemon__load_neon
#define LEMON__LOAD_wasm lemon__load_wasm
#define LEMON__STORE_m256(x, mask, v) _mm256_maskstore_ps(x, mask, v)
#define LEMON__STORE_m512(x, mask, v) _mm512_mask_storeu_ps(x, mask, v)
#define LEMON__STORE_neon lemon__store_neon
#define LEMON__STORE_wasm lemon__store_wasm

#if LEMON__X86
LEMON__TARGET_m256 LEMON__INLINE __m256i lemon__first_m256(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n < 8 ? (int)n : 8), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
LEMON__TARGET_m512 LEMON__INLINE __mmask16 lemon__first_m512(int64_t n) {
    return (__mmask16)(n >= 16 ? 0xffffu : (1u << n) - 1u);
}
#endif

#define LEMON__PART_OF_VECTOR(V, read, write) \
LEMON__INLINE int64_t lemon__first_##V(int64_t n) { return n; } \
LEMON__INLINE LEMON__VEC_##V lemon__load_##V(const float *x, int64_t n) { \
    LEMON__VEC_##V v = LEMON__SET_##V(0); \
    if (n >= 4) return LEMON__GET_##V(x); \
    if (n > 0) v = read(x, v, 0); \
    if (n > 1) v = read(x + 1, v, 1); \
    if (n > 2) v = read(x + 2, v, 2); \
    return v; \
} \
LEMON__INLINE void lemon__store_##V(float *x, int64_t n, LEMON__VEC_##V v) { \
    if (n >= 4) { LEMON__PUT_##V(x, v); return; } \
    if (n > 0) write(x, v, 0); \
    if (n > 1) write(x + 1, v, 1); \
    if (n > 2) write(x + 2, v, 2); \
}
#if LEMON__NEON
LEMON__PART_OF_VECTOR(neon, vld1q_lane_f32, vst1q_lane_f32)
#elif LEMON__WASM
LEMON__PART_OF_VECTOR(wasm, wasm_v128_load32_lane, wasm_v128_store32_lane)
#endif

/*  Pieces of the micro-kernels: x and y are the left and right half of a row of the tile. */
#define LEMON__ROW_POINTER(V, i, at) const float *p##i = t->a + i * row; (void)p##i;
#define LEMON__ROW_NEXT(V, i, at) p##i += step;
#define LEMON__ROW_FETCH(V, i, at) LEMON__FETCH_ROW_##V((uintptr_t)(t->c + i * t->ldc))
#define LEMON__FETCH_m256(x) __builtin_prefetch((const void *)(x), 0, 2);
#define LEMON__FETCH_m512(x) LEMON__FETCH_m256(x) LEMON__FETCH_m256((x) + 64)
#define LEMON__FETCH_neon LEMON__FETCH_m256
#define LEMON__FETCH_wasm(x)
#define LEMON__FETCH_ROW_m256(x) LEMON__FETCH_m512(x)
#define LEMON__FETCH_ROW_m512(x) LEMON__FETCH_m512(x)
#define LEMON__FETCH_ROW_neon(x) __builtin_prefetch((const void *)(x), 1);
#define LEMON__FETCH_ROW_wasm(x)
#define LEMON__WIDE_ZERO(V, i, at) LEMON__VEC_##V x##i = LEMON__SET_##V(0), y##i = x##i;
#define LEMON__WIDE_ADD(V, i, at) \
    a = LEMON__SET_##V(at); \
    x##i = LEMON__FMA_##V(a, b0, x##i); \
    y##i = LEMON__FMA_##V(a, b1, y##i);
#define LEMON__WIDE_STORE(V, i, at) \
    LEMON__PUT_##V(t->c + i * t->ldc, LEMON__MUL_##V(x##i, a)); \
    LEMON__PUT_##V(t->c + i * t->ldc + lanes, LEMON__MUL_##V(y##i, a));
#define LEMON__WIDE_UPDATE(V, i, at) \
    b0 = LEMON__MUL_##V(beta, LEMON__GET_##V(t->c + i * t->ldc)); \
    b1 = LEMON__MUL_##V(beta, LEMON__GET_##V(t->c + i * t->ldc + lanes)); \
    LEMON__PUT_##V(t->c + i * t->ldc, LEMON__FMA_##V(a, x##i, b0)); \
    LEMON__PUT_##V(t->c + i * t->ldc + lanes, LEMON__FMA_##V(a, y##i, b1));
#define LEMON__NARROW_ZERO(V, i, at) LEMON__VEC_##V x##i = LEMON__SET_##V(0);
#define LEMON__NARROW_ADD(V, i, at) x##i = LEMON__FMA_##V(LEMON__SET_##V(at), b0, x##i);
#define LEMON__NARROW_STORE(V, i, at) LEMON__STORE_##V(t->c + i * t->ldc, mask, LEMON__MUL_##V(x##i, a));
#define LEMON__NARROW_UPDATE(V, i, at) \
    b0 = LEMON__MUL_##V(beta, LEMON__LOAD_##V(t->c + i * t->ldc, mask)); \
    LEMON__STORE_##V(t->c + i * t->ldc, mask, LEMON__FMA_##V(a, x##i, b0));

/*  Two micro-kernels for one number of rows: wide has two full vectors a row, narrow one vector with a mask. */
#define LEMON__WIDE_KERNEL(V, rows) \
LEMON__TARGET_##V static void lemon__wide_##V##_##rows(const lemon__tile *t) { \
    enum { lanes = sizeof(LEMON__VEC_##V) / 4 }; \
    const int64_t row = t->a_row, step = t->a_step, b_step = t->b_step; \
    const uintptr_t next_step = t->next_step; \
    uintptr_t next = t->next; \
    const float *b = t->b; \
    LEMON__VEC_##V a, b0, b1; \
    int64_t k, left; \
    LEMON__ROWS_##rows(LEMON__ROW_POINTER, V) \
    LEMON__ROWS_##rows(LEMON__WIDE_ZERO, V) \
    LEMON__ROWS_##rows(LEMON__ROW_FETCH, V) \
    for (left = t->k; left > 0; left -= t->run, next += t->next_jump) \
        for (k = t->run < left ? t->run : left; k > 0; k--) { \
            LEMON__FETCH_##V(next) \
            next += next_step; \
            b0 = LEMON__GET_##V(b); \
            b1 = LEMON__GET_##V(b + lanes); \
            LEMON__ROWS_##rows(LEMON__WIDE_ADD, V) \
            LEMON__ROWS_##rows(LEMON__ROW_NEXT, V) \
            b += b_step; \
        } \
    a = LEMON__SET_##V(t->alpha); \
    if (t->beta != 0) { \
        const LEMON__VEC_##V beta = LEMON__SET_##V(t->beta); \
        LEMON__ROWS_##rows(LEMON__WIDE_UPDATE, V) \
    } else { \
        LEMON__ROWS_##rows(LEMON__WIDE_STORE, V) \
    } \
}

#define LEMON__NARROW_KERNEL(V, rows) \
LEMON__TARGET_##V static void lemon__narrow_##V##_##rows(const lemon__tile *t) { \
    const int64_t row = t->a_row, step = t->a_step, b_step = t->b_step; \
    const LEMON__MASK_##V mask = lemon__first_##V(t->columns); \
    const float *b = t->b; \
    LEMON__VEC_##V a, b0; \
    int64_t k; \
    LEMON__ROWS_##rows(LEMON__ROW_POINTER, V) \
    LEMON__ROWS_##rows(LEMON__NARROW_ZERO, V) \
    for (k = t->k; k > 0; k--) { \
        b0 = LEMON__LOAD_##V(b, mask); \
        LEMON__ROWS_##rows(LEMON__NARROW_ADD, V) \
        LEMON__ROWS_##rows(LEMON__ROW_NEXT, V) \
        b += b_step; \
    } \
    a = LEMON__SET_##V(t->alpha); \
    if (t->beta != 0) { \
        const LEMON__VEC_##V beta = LEMON__SET_##V(t->beta); \
        LEMON__ROWS_##rows(LEMON__NARROW_UPDATE, V) \
    } else { \
        LEMON__ROWS_##rows(LEMON__NARROW_STORE, V) \
    } \
}

#define LEMON__KERNELS(V, rows) LEMON__WIDE_KERNEL(V, rows) LEMON__NARROW_KERNEL(V, rows)
#if LEMON__X86
LEMON__EXACT_BEGIN
LEMON__KERNELS(m256, 1) LEMON__KERNELS(m256, 2) LEMON__KERNELS(m256, 3)
LEMON__KERNELS(m256, 4) LEMON__KERNELS(m256, 5) LEMON__KERNELS(m256, 6)
LEMON__KERNELS(m512, 1) LEMON__KERNELS(m512, 2) LEMON__KERNELS(m512, 3) LEMON__KERNELS(m512, 4)
LEMON__KERNELS(m512, 5) LEMON__KERNELS(m512, 6) LEMON__KERNELS(m512, 7) LEMON__KERNELS(m512, 8)
LEMON__KERNELS(m512, 9) LEMON__KERNELS(m512, 10) LEMON__KERNELS(m512, 11) LEMON__KERNELS(m512, 12)
LEMON__KERNELS(m512, 13) LEMON__KERNELS(m512, 14)
LEMON__EXACT_END

/*  Transposes 8 x 8: out[s * width + l] = in[l][s].  The halves of rows l and l + 4 are loaded into one register, so
    that the rest happens within 128-bit lanes: 16 shuffles for 64 elements. */
LEMON__TARGET_m256 LEMON__INLINE void lemon__transpose_m256(float *out, int64_t width, const float *const in[8],
                                                           int64_t s) {
    __m256 r[8], t[8];
    int h, q;
    for (h = 0; h < 2; h++)
        for (q = 0; q < 4; q++)
            r[4 * h + q] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(in[q] + s + 4 * h)),
                                                _mm_loadu_ps(in[q + 4] + s + 4 * h), 1);
    for (h = 0; h < 8; h += 4) {
        t[h] = _mm256_unpacklo_ps(r[h], r[h + 1]);
        t[h + 1] = _mm256_unpackhi_ps(r[h], r[h + 1]);
        t[h + 2] = _mm256_unpacklo_ps(r[h + 2], r[h + 3]);
        t[h + 3] = _mm256_unpackhi_ps(r[h + 2], r[h + 3]);
        _mm256_storeu_ps(out + h * width, _mm256_shuffle_ps(t[h], t[h + 2], 0x44));
        _mm256_storeu_ps(out + (h + 1) * width, _mm256_shuffle_ps(t[h], t[h + 2], 0xee));
        _mm256_storeu_ps(out + (h + 2) * width, _mm256_shuffle_ps(t[h + 1], t[h + 3], 0x44));
        _mm256_storeu_ps(out + (h + 3) * width, _mm256_shuffle_ps(t[h + 1], t[h + 3], 0xee));
    }
}

/*  The lanes of four sums, each added up, always in the same order. */
LEMON__TARGET_m256 LEMON__INLINE void lemon__sum4_m256(float *out, __m256 w, __m256 x, __m256 y, __m256 z) {
    const __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(w, x), _mm256_hadd_ps(y, z));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}
LEMON__TARGET_m512 LEMON__INLINE __m256 lemon__fold_m512(__m512 x) {
    const __m512d d = _mm512_castps_pd(x);      /* masked by ones: g++ 12 warns of its own header without */
    return _mm256_add_ps(_mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xff, d, 0)),
                         _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xff, d, 1)));
}
LEMON__TARGET_m512 LEMON__INLINE void lemon__sum4_m512(float *out, __m512 w, __m512 x, __m512 y, __m512 z) {
    lemon__sum4_m256(out, lemon__fold_m512(w), lemon__fold_m512(x), lemon__fold_m512(y), lemon__fold_m512(z));
}

/*  A vector of a row of B, of each type, from element p on, a multiple of its length.  Memory is the limit here, so B
    is widened as it comes: half or a quarter of the bytes are read.  The scale of a block of q8 is spread over a vector
    as it is, f16, and then converted as a whole. */
LEMON__TARGET_m256 LEMON__INLINE __m256 lemon__bf16_m256(const uint8_t *w, int64_t p) {
    const __m128i x = _mm_loadu_si128((const __m128i *)(const void *)(w + 2 * p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
LEMON__TARGET_m512 LEMON__INLINE __m512 lemon__bf16_m512(const uint8_t *w, int64_t p) {
    const __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(w + 2 * p));
    return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, x), 16));
}
/*  Eight or sixteen weights of a block of q8 without its scale, and that for all lanes. */
LEMON__TARGET_m256 LEMON__INLINE __m256 lemon__bytes_m256(const uint8_t *w) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)w)));
}
LEMON__TARGET_m512 LEMON__INLINE __m512 lemon__bytes_m512(const uint8_t *w) {
    const __m128i x = _mm_loadu_si128((const __m128i *)(const void *)w);
    return _mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, x));
}
LEMON__INLINE short lemon__scale_of(const uint8_t *block) {
    short scale;
    memcpy(&scale, block, sizeof scale);
    return scale;
}
LEMON__TARGET_m256 LEMON__INLINE __m256 lemon__spread_m256(const uint8_t *block) {
    return _mm256_cvtph_ps(_mm_set1_epi16(lemon__scale_of(block)));
}
LEMON__TARGET_m512 LEMON__INLINE __m512 lemon__spread_m512(const uint8_t *block) {
    return _mm512_maskz_cvtph_ps(0xffff, _mm256_set1_epi16(lemon__scale_of(block)));
}
#define LEMON__Q8_OF_BLOCK(V) \
LEMON__TARGET_##V LEMON__INLINE LEMON__VEC_##V lemon__q8_##V(const uint8_t *w, int64_t p) { \
    const uint8_t *block = w + p / LEMON__BLOCK * LEMON__Q8_BYTES; \
    return LEMON__MUL_##V(lemon__spread_##V(block), lemon__bytes_##V(block + 2 + p % LEMON__BLOCK)); \
}
LEMON__VECTORS(LEMON__Q8_OF_BLOCK)
#endif /* LEMON__X86 */

#if LEMON__NEON == 64
#define lemon__pairs_neon vpaddq_f32
#define lemon__high_neon vmlal_high_s8
#define LEMON__SQRT_neon vsqrtq_f32
/*  Three vectors are a row of the tile.  An FMA of NEON takes its factor from any lane of a register, so where a column
    of A lies in a row (packed, or transposed in place), two loads bring all of it: the second one ends with the last
    row, so that nothing beyond is read.  Elsewhere, and for less than four rows, each element of A is loaded alone. */
#define LEMON__NEON_ZERO(rows, i, at) float32x4_t x##i = vdupq_n_f32(0), y##i = x##i, z##i = x##i;
#define LEMON__NEON_FETCH(rows, i, at) LEMON__ROW_FETCH(neon, i, at)
#define LEMON__NEON_FMA(rows, i, at) \
    x##i = vfmaq_n_f32(x##i, b0, at); \
    y##i = vfmaq_n_f32(y##i, b1, at); \
    z##i = vfmaq_n_f32(z##i, b2, at);
#define LEMON__NEON_LANE(v, b, rows, i) v##i = vfmaq_laneq_f32(v##i, b, i < 4 ? a0 : a1, i < 4 ? i : i + 4 - rows);
#define LEMON__NEON_LANES(rows, i, at) \
    LEMON__NEON_LANE(x, b0, rows, i) LEMON__NEON_LANE(y, b1, rows, i) LEMON__NEON_LANE(z, b2, rows, i)
#define LEMON__NEON_STORE(rows, i, at) \
    vst1q_f32(t->c + i * t->ldc, vmulq_f32(x##i, a0)); \
    vst1q_f32(t->c + i * t->ldc + 4, vmulq_f32(y##i, a0)); \
    vst1q_f32(t->c + i * t->ldc + 8, vmulq_f32(z##i, a0));
#define LEMON__NEON_UPDATE(rows, i, at) \
    vst1q_f32(t->c + i * t->ldc, vfmaq_f32(vmulq_f32(a1, vld1q_f32(t->c + i * t->ldc)), a0, x##i)); \
    vst1q_f32(t->c + i * t->ldc + 4, vfmaq_f32(vmulq_f32(a1, vld1q_f32(t->c + i * t->ldc + 4)), a0, y##i)); \
    vst1q_f32(t->c + i * t->ldc + 8, vfmaq_f32(vmulq_f32(a1, vld1q_f32(t->c + i * t->ldc + 8)), a0, z##i));

#define LEMON__NEON_LOOP(step_of_k) \
    for (left = t->k; left > 0; left -= t->run, next += t->next_jump) \
        for (k = lemon__min(t->run, left); k > 0; k--) { \
            LEMON__FETCH_neon(next) \
            next += next_step; \
            b0 = vld1q_f32(b); \
            b1 = vld1q_f32(b + 4); \
            b2 = vld1q_f32(b + 8); \
            b += b_step; \
            step_of_k \
        }

#define LEMON__NEON_KERNEL(rows) \
static void lemon__wide_neon_##rows(const lemon__tile *t) { \
    const int64_t row = t->a_row, step = t->a_step, b_step = t->b_step; \
    const uintptr_t next_step = t->next_step; \
    uintptr_t next = t->next; \
    const float *b = t->b; \
    float32x4_t a0, a1, b0, b1, b2; \
    int64_t k, left; \
    LEMON__ROWS_##rows(LEMON__ROW_POINTER, rows) \
    LEMON__ROWS_##rows(LEMON__NEON_ZERO, rows) \
    LEMON__ROWS_##rows(LEMON__NEON_FETCH, rows) \
    if (rows >= 4 && row == 1) { \
        LEMON__NEON_LOOP( \
            a0 = vld1q_f32(p0); \
            a1 = vld1q_f32(p0 + rows - 4); \
            p0 += step; \
            LEMON__ROWS_##rows(LEMON__NEON_LANES, rows)) \
    } else { \
        LEMON__NEON_LOOP(LEMON__ROWS_##rows(LEMON__NEON_FMA, rows) LEMON__ROWS_##rows(LEMON__ROW_NEXT, rows)) \
    } \
    a0 = vdupq_n_f32(t->alpha); \
    a1 = vdupq_n_f32(t->beta); \
    if (t->beta != 0) { \
        LEMON__ROWS_##rows(LEMON__NEON_UPDATE, rows) \
    } else { \
        LEMON__ROWS_##rows(LEMON__NEON_STORE, rows) \
    } \
}
#define LEMON__NEON_KERNELS(rows) LEMON__NEON_KERNEL(rows) LEMON__NARROW_KERNEL(neon, rows)
LEMON__NEON_KERNELS(1) LEMON__NEON_KERNELS(2) LEMON__NEON_KERNELS(3) LEMON__NEON_KERNELS(4)
LEMON__NEON_KERNELS(5) LEMON__NEON_KERNELS(6) LEMON__NEON_KERNELS(7) LEMON__NEON_KERNELS(8)
#elif LEMON__NEON
LEMON__KERNELS(neon, 1) LEMON__KERNELS(neon, 2) LEMON__KERNELS(neon, 3)
LEMON__KERNELS(neon, 4) LEMON__KERNELS(neon, 5) LEMON__KERNELS(neon, 6)

/*  What AArch64 has instructions for. */
#define lemon__high_neon(sum, x, y) vmlal_s8(sum, vget_high_s8(x), vget_high_s8(y))
#define LEMON__SQRT_neon lemon__sqrt_neon
LEMON__INLINE float32x4_t lemon__pairs_neon(float32x4_t x, float32x4_t y) {
    return vcombine_f32(vpadd_f32(vget_low_f32(x), vget_high_f32(x)), vpadd_f32(vget_low_f32(y), vget_high_f32(y)));
}
LEMON__INLINE float32x4_t lemon__sqrt_neon(float32x4_t x) {
    for (int i = 0; i < 4; i++) x[i] = sqrtf(x[i]);
    return x;
}
#endif

#if LEMON__NEON
LEMON__INLINE void lemon__transpose_neon(float *out, int64_t width, const float *const in[4], int64_t s) {
    const float32x4x2_t x = vtrnq_f32(vld1q_f32(in[0] + s), vld1q_f32(in[1] + s));
    const float32x4x2_t y = vtrnq_f32(vld1q_f32(in[2] + s), vld1q_f32(in[3] + s));
    for (int h = 0; h < 2; h++) {
        vst1q_f32(out + h * width, vcombine_f32(vget_low_f32(x.val[h]), vget_low_f32(y.val[h])));
        vst1q_f32(out + (h + 2) * width, vcombine_f32(vget_high_f32(x.val[h]), vget_high_f32(y.val[h])));
    }
}

LEMON__INLINE void lemon__sum4_neon(float *out, float32x4_t w, float32x4_t x, float32x4_t y, float32x4_t z) {
    vst1q_f32(out, lemon__pairs_neon(lemon__pairs_neon(w, x), lemon__pairs_neon(y, z)));
}
LEMON__INLINE float32x4_t lemon__bf16_neon(const uint8_t *w, int64_t p) {
    const uint16x4_t x = vreinterpret_u16_u8(vld1_u8(w + 2 * p));
    return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(x), 16));
}
LEMON__INLINE float lemon__half_neon(const uint8_t *w) {
    lemon__fp16 half;
    memcpy(&half, w, sizeof half);
    return LEMON__FP16 ? (float)half : lemon_f32_from_f16(lemon__get16(w));
}
LEMON__INLINE float32x4_t lemon__q8_neon(const uint8_t *w, int64_t p) {
    const uint8_t *block = w + p / LEMON__BLOCK * LEMON__Q8_BYTES;
    const int8x8_t x = vreinterpret_s8_u32(vdup_n_u32(lemon__get32(block + 2 + p % LEMON__BLOCK)));
    return vmulq_f32(vdupq_n_f32(lemon__half_neon(block)), vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(x)))));
}
#endif /* LEMON__NEON */

#if LEMON__WASM
LEMON__KERNELS(wasm, 1) LEMON__KERNELS(wasm, 2) LEMON__KERNELS(wasm, 3) LEMON__KERNELS(wasm, 4)

LEMON__INLINE void lemon__transpose_wasm(float *out, int64_t width, const float *const in[4], int64_t s) {
    const v128_t a = wasm_v128_load(in[0] + s), b = wasm_v128_load(in[1] + s);
    const v128_t c = wasm_v128_load(in[2] + s), d = wasm_v128_load(in[3] + s);
    const v128_t x = wasm_i32x4_shuffle(a, b, 0, 4, 1, 5), y = wasm_i32x4_shuffle(c, d, 0, 4, 1, 5);
    const v128_t z = wasm_i32x4_shuffle(a, b, 2, 6, 3, 7), w = wasm_i32x4_shuffle(c, d, 2, 6, 3, 7);
    wasm_v128_store(out, wasm_i64x2_shuffle(x, y, 0, 2));
    wasm_v128_store(out + width, wasm_i64x2_shuffle(x, y, 1, 3));
    wasm_v128_store(out + 2 * width, wasm_i64x2_shuffle(z, w, 0, 2));
    wasm_v128_store(out + 3 * width, wasm_i64x2_shuffle(z, w, 1, 3));
}
LEMON__INLINE v128_t lemon__pairs_wasm(v128_t x, v128_t y) {
    return wasm_f32x4_add(wasm_i32x4_shuffle(x, y, 0, 2, 4, 6), wasm_i32x4_shuffle(x, y, 1, 3, 5, 7));
}
LEMON__INLINE void lemon__sum4_wasm(float *out, v128_t w, v128_t x, v128_t y, v128_t z) {
    wasm_v128_store(out, lemon__pairs_wasm(lemon__pairs_wasm(w, x), lemon__pairs_wasm(y, z)));
}
LEMON__INLINE v128_t lemon__bf16_wasm(const uint8_t *w, int64_t p) {
    return wasm_i32x4_shl(wasm_u32x4_load16x4(w + 2 * p), 16);
}
/*  The scale as lemon_f32_from_f16 has it, without its branches: the exponent is put right by a product. */
LEMON__INLINE v128_t lemon__q8_wasm(const uint8_t *w, int64_t p) {
    const uint8_t *block = w + p / LEMON__BLOCK * LEMON__Q8_BYTES;
    const uint32_t h = lemon__get16(block);
    const uint32_t special = (h & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0;            /* Inf, NaN */
    const float scale = lemon__float((h & 0x7fffu) << 13) * lemon__float(0x77800000u);
    const v128_t x = wasm_i16x8_extend_low_i8x16(wasm_v128_load32_zero(block + 2 + p % LEMON__BLOCK));
    return wasm_f32x4_mul(wasm_f32x4_splat(lemon__float(lemon__bits(scale) | special | (h & 0x8000u) << 16)),
                          wasm_f32x4_convert_i32x4(wasm_i32x4_extend_low_i16x8(x)));
}
#endif /* LEMON__WASM */

#define LEMON__AHEAD_m256(x) __builtin_prefetch((const void *)(x));
#define LEMON__AHEAD_m512 LEMON__AHEAD_m256
#define LEMON__AHEAD_neon LEMON__AHEAD_m256
#define LEMON__AHEAD_wasm(x) (void)(x);

/*  The twin of lemon__pack_plain, by squares of 8 or 4.  A panel's width is a multiple of that, so whole vectors may be
    stored; lanes beyond the last are filled with anything, for no kernel uses them.  Rows that lie far apart are streams
    too short for the hardware to see, so the eighth from here is asked for. */
#define LEMON__PACK_KERNEL(V) \
LEMON__TARGET_##V static void lemon__pack_##V(float *out, int64_t width, const float *in, int64_t lane, int64_t step, \
                                              int64_t lanes, int64_t steps) { \
    enum { square = sizeof(LEMON__VEC_##V) / 4 }; \
    const LEMON__MASK_##V rest = lemon__first_##V(lanes % square); \
    const float *row[square]; \
    int64_t l, s, r; \
    for (s = 0; lane == 1 && s < steps; s++, in += step, out += width) { \
        LEMON__AHEAD_##V((uintptr_t)in + (uintptr_t)step * 8 * sizeof(float)) \
        for (l = 0; l + square <= lanes; l += square) LEMON__PUT_##V(out + l, LEMON__GET_##V(in + l)); \
        if (l < lanes) LEMON__PUT_##V(out + l, LEMON__LOAD_##V(in + l, rest)); \
    } \
    for (l = 0; lane != 1 && l < lanes; l += square) { \
        for (r = 0; r < square; r++) row[r] = in + lemon__min(l + r, lanes - 1) * lane; \
        for (s = 0; s + square <= steps; s += square) lemon__transpose_##V(out + s * width + l, width, row, s); \
        for (; s < steps; s++) \
            for (r = 0; r < square; r++) out[s * width + l + r] = row[r][s]; \
    } \
}

#define LEMON__F32_OF_ROW(V) \
LEMON__TARGET_##V LEMON__INLINE LEMON__VEC_##V lemon__f32_##V(const uint8_t *w, int64_t p) { \
    return LEMON__GET_##V((const float *)(const void *)w + p); \
}
LEMON__VECTORS(LEMON__F32_OF_ROW)

/*  How far ahead of a row of B to ask for what comes: short rows are streams too short for the hardware to see, so there
    it is the row as many further on as are read at once. */
LEMON__INLINE int64_t lemon__dots_ahead(const lemon__product *g, int64_t cols) {
    int64_t next = cols * (int64_t)g->b_bytes;
    return next <= 65536 ? next : 1024;
}

#if LEMON__X86 || LEMON__NEON || LEMON__WASM
/*  The steps of k that filled no vector, and the row of C; one function for all kernels, which would be twice as long. */
LEMON__APART void lemon__dots_finish(const lemon__product *g, int64_t row, int64_t col, int64_t columns, float *sum,
                                     int64_t k) {
    const float *a = g->a + row * g->a_row;
    for (int64_t j = 0; j < columns; j++) {
        for (int64_t p = k; p < g->k; p++) sum[j] += a[p] * lemon__b_at(g, lemon__b_row(g, col + j), p);
        lemon__finish(g->c + row * g->ldc + col + j, sum[j], g->alpha, g->beta);
    }
}
#endif

/*  Few rows of A, B transposed: `rows` rows of A times `cols` rows of B, a vector of k at a time.  As many rows of B as
    registers allow, for each is a stream that the hardware reads ahead of us.  Columns beyond the last repeat it, and
    are not stored. */
#define LEMON__DOT_ROW(V, i, at) const float *a##i = g->a + (row + i) * g->a_row;
#define LEMON__DOT_COLUMN(V, i, j) const uint8_t *w##j = lemon__b_row(g, col + (j < columns ? j : columns - 1));
#define LEMON__DOT_LOAD(V, type, j) \
    const LEMON__VEC_##V b##j = lemon__##type##_##V(w##j, p); \
    LEMON__AHEAD_##V(w##j + ahead + LEMON__AT_##type(p))
#define LEMON__AT_f32(p) 4 * (p)
#define LEMON__AT_bf16(p) 2 * (p)
#define LEMON__AT_q8(p) (p)
#define LEMON__DOT_SUM(V, i, j) LEMON__VEC_##V x##i##j = LEMON__SET_##V(0);
#define LEMON__DOT_FMA(V, i, j) x##i##j = LEMON__FMA_##V(a, b##j, x##i##j);
#define LEMON__DOT_FOLD(V, i, q, r, s, t) lemon__sum4_##V(sum + q, x##i##q, x##i##r, x##i##s, x##i##t);

/*  The parts for one row of A, by the number of columns. */
#define LEMON__DOT_ZERO(V, cols, i, at) LEMON__STEPS_##cols(LEMON__DOT_SUM, V, i)
#define LEMON__DOT_ADD(V, cols, i, at) a = LEMON__GET_##V(a##i + p); LEMON__STEPS_##cols(LEMON__DOT_FMA, V, i)
#define LEMON__DOT_FOLD_3(V, i) LEMON__DOT_FOLD(V, i, 0, 1, 2, 2)
#define LEMON__DOT_FOLD_4(V, i) LEMON__DOT_FOLD(V, i, 0, 1, 2, 3)
#define LEMON__DOT_FOLD_6(V, i) LEMON__DOT_FOLD_4(V, i) LEMON__DOT_FOLD(V, i, 4, 5, 5, 5)
#define LEMON__DOT_FOLD_8(V, i) LEMON__DOT_FOLD_4(V, i) LEMON__DOT_FOLD(V, i, 4, 5, 6, 7)
#define LEMON__DOT_STORE(V, cols, i, at) \
    LEMON__DOT_FOLD_##cols(V, i) lemon__dots_finish(g, row + i, col, columns, sum, k);

#define LEMON__DOT_KERNEL(V, type, rows, cols) \
LEMON__TARGET_##V static void lemon__dots_##V##_##type##_##rows(const lemon__product *g, int64_t row, int64_t col, \
                                                                int64_t columns) { \
    enum { lanes = sizeof(LEMON__VEC_##V) / 4 }; \
    const int64_t k = g->k / lanes * lanes, ahead = lemon__dots_ahead(g, cols); \
    float sum[8]; \
    LEMON__VEC_##V a; \
    int64_t p; \
    LEMON__ROWS_##rows(LEMON__DOT_ROW, V) \
    LEMON__STEPS_##cols(LEMON__DOT_COLUMN, V, 0) \
    LEMON__ROWS_##rows(LEMON__DOT_ZERO, V, cols) \
    for (p = 0; p < k; p += lanes) { \
        LEMON__STEPS_##cols(LEMON__DOT_LOAD, V, type) \
        LEMON__ROWS_##rows(LEMON__DOT_ADD, V, cols) \
    } \
    LEMON__ROWS_##rows(LEMON__DOT_STORE, V, cols) \
}

#if LEMON__X86
/*  One or two rows of A and q8 by blocks: the scale meets the sum of a block's products, not each weight, which is half
    of the work.  For more rows the scales are too many. */
#define LEMON__BLOCK_TAKE_m512(w) const __m512 c0 = lemon__bytes_m512(w), c1 = lemon__bytes_m512((w) + 16);
#define LEMON__BLOCK_TAKE_m256(w) \
    const __m256 c0 = lemon__bytes_m256(w), c1 = lemon__bytes_m256((w) + 8), c2 = lemon__bytes_m256((w) + 16), \
                 c3 = lemon__bytes_m256((w) + 24);
#define LEMON__BLOCK_PAIR(V, x, y, a, b) LEMON__FMA_##V(y, LEMON__GET_##V(b), LEMON__MUL_##V(x, LEMON__GET_##V(a)))
#define LEMON__BLOCK_DOT_m512(a) LEMON__BLOCK_PAIR(m512, c0, c1, a, (a) + 16)
#define LEMON__BLOCK_DOT_m256(a) LEMON__FMA_m256(c3, LEMON__GET_m256((a) + 24), \
    LEMON__FMA_m256(c2, LEMON__GET_m256((a) + 16), LEMON__BLOCK_PAIR(m256, c0, c1, a, (a) + 8)))
#define LEMON__BLOCK_ADD(V, i, j) x##i##j = LEMON__FMA_##V(scale, LEMON__BLOCK_DOT_##V(a##i + p), x##i##j);
#define LEMON__BLOCK_COLUMN(V, j, add) { \
    LEMON__BLOCK_TAKE_##V(w##j + 2) \
    const LEMON__VEC_##V scale = lemon__spread_##V(w##j); \
    LEMON__AHEAD_##V(w##j + ahead) \
    add \
    w##j += LEMON__Q8_BYTES; \
}
#define LEMON__BLOCK_COLUMN_1(V, i, j) LEMON__BLOCK_COLUMN(V, j, LEMON__BLOCK_ADD(V, 0, j))
#define LEMON__BLOCK_COLUMN_2(V, i, j) \
    LEMON__BLOCK_COLUMN(V, j, LEMON__BLOCK_ADD(V, 0, j) LEMON__BLOCK_ADD(V, 1, j))

#define LEMON__BLOCK_KERNEL(V, rows, cols) \
LEMON__TARGET_##V static void lemon__dots_##V##_q8_##rows(const lemon__product *g, int64_t row, int64_t col, \
                                                          int64_t columns) { \
    const int64_t k = g->k / LEMON__BLOCK * LEMON__BLOCK, ahead = lemon__dots_ahead(g, cols); \
    float sum[8]; \
    int64_t p; \
    LEMON__ROWS_##rows(LEMON__DOT_ROW, V) \
    LEMON__STEPS_##cols(LEMON__DOT_COLUMN, V, 0) \
    LEMON__ROWS_##rows(LEMON__DOT_ZERO, V, cols) \
    for (p = 0; p < k; p += LEMON__BLOCK) { LEMON__STEPS_##cols(LEMON__BLOCK_COLUMN_##rows, V, 0) } \
    LEMON__ROWS_##rows(LEMON__DOT_STORE, V, cols) \
}
#endif

/*  Few rows of A, B plain: adds `steps` scaled rows of B at once to each of `rows` rows of C.  Each row of B is read
    from end to end, and again as many at a time as registers allow. */
LEMON__INLINE void lemon__sums_edge(const lemon__product *g, int64_t row, int64_t rows, int64_t p, int64_t steps,
                                    int64_t col, int64_t last) {
    for (int64_t s = 0; s < steps && col < last; s++)
        for (int64_t i = 0; i < rows; i++) lemon__sums_plain(g, row + i, p + s, col, last);
}

#define LEMON__SUM_SCALE(V, i, s) const LEMON__VEC_##V x##i##s = LEMON__SET_##V(g->alpha * a[s * g->a_step]);
#define LEMON__SUM_LOAD(V, i, s) const LEMON__VEC_##V b##s = LEMON__GET_##V(b + s * g->b_step + j);
#define LEMON__SUM_FMA(V, i, s) x = LEMON__FMA_##V(x##i##s, b##s, x);
#define LEMON__SUM_BEGIN(V, steps, i, at) \
    float *c##i = g->c + (row + i) * g->ldc; \
    a = g->a + (row + i) * g->a_row + p * g->a_step; \
    LEMON__STEPS_##steps(LEMON__SUM_SCALE, V, i)
#define LEMON__SUM_ADD(V, steps, i, at) \
    x = LEMON__GET_##V(c##i + j); \
    LEMON__STEPS_##steps(LEMON__SUM_FMA, V, i) \
    LEMON__PUT_##V(c##i + j, x);

#define LEMON__SUM_KERNEL(V, rows, steps) \
LEMON__TARGET_##V static void lemon__sums_##V##_##rows(const lemon__product *g, int64_t row, int64_t p, int64_t col, \
                                                       int64_t last) { \
    enum { lanes = sizeof(LEMON__VEC_##V) / 4 }; \
    const float *a, *b = g->b + p * g->b_step; \
    LEMON__VEC_##V x; \
    int64_t j; \
    LEMON__ROWS_##rows(LEMON__SUM_BEGIN, V, steps) \
    for (j = col; j + lanes <= last; j += lanes) { \
        LEMON__STEPS_##steps(LEMON__SUM_LOAD, V, 0) \
        LEMON__ROWS_##rows(LEMON__SUM_ADD, V, steps) \
    } \
    lemon__sums_edge(g, row, rows, p, steps, j, last); \
}

/*  The kernels for few rows of A, by their numbers of rows and of columns or steps. */
#define LEMON__DOTS_m256(X, type) X(m256, type, 1, 8) X(m256, type, 2, 4) X(m256, type, 3, 3) X(m256, type, 4, 3)
#define LEMON__DOTS_m512(X, type) X(m512, type, 1, 8) X(m512, type, 2, 8) X(m512, type, 3, 6) X(m512, type, 4, 6)
#define LEMON__DOTS_wasm(X, type) X(wasm, type, 1, 8) X(wasm, type, 2, 4) X(wasm, type, 3, 3)
#define LEMON__SUMS_m256(X) X(m256, 1, 8) X(m256, 2, 4)
#define LEMON__SUMS_m512(X) X(m512, 1, 8) X(m512, 2, 8)
#define LEMON__SUMS_wasm(X) X(wasm, 1, 8) X(wasm, 2, 4)
#if LEMON__NEON == 64
#define LEMON__DOTS_neon(X, type) X(neon, type, 1, 8) X(neon, type, 2, 8) X(neon, type, 3, 6) X(neon, type, 4, 6)
#define LEMON__SUMS_neon(X) X(neon, 1, 8) X(neon, 2, 8) X(neon, 3, 4) X(neon, 4, 4)
#else
#define LEMON__DOTS_neon(X, type) X(neon, type, 1, 8) X(neon, type, 2, 4) X(neon, type, 3, 3)
#define LEMON__SUMS_neon(X) X(neon, 1, 8) X(neon, 2, 4)
#endif
#define LEMON__FEW_SUMS(V) LEMON__SUMS_##V(LEMON__SUM_KERNEL)
#define LEMON__FEW_DOTS(V) LEMON__DOTS_##V(LEMON__DOT_KERNEL, f32) LEMON__DOTS_##V(LEMON__DOT_KERNEL, bf16)
LEMON__VECTORS(LEMON__FEW_SUMS)
LEMON__EXACT_BEGIN
LEMON__VECTORS(LEMON__FEW_DOTS)
LEMON__EXACT_END

#if LEMON__X86
LEMON__PACK_KERNEL(m256)
LEMON__EXACT_BEGIN
LEMON__BLOCK_KERNEL(m256, 1, 8) LEMON__BLOCK_KERNEL(m256, 2, 4) LEMON__DOT_KERNEL(m256, q8, 3, 3)
LEMON__DOT_KERNEL(m256, q8, 4, 3) LEMON__BLOCK_KERNEL(m512, 1, 8) LEMON__BLOCK_KERNEL(m512, 2, 8)
LEMON__EXACT_END
LEMON__DOT_KERNEL(m512, q8, 3, 6) LEMON__DOT_KERNEL(m512, q8, 4, 6)     /* these are slower so */
#elif LEMON__NEON
LEMON__DOTS_neon(LEMON__DOT_KERNEL, q8) LEMON__PACK_KERNEL(neon)
#elif LEMON__WASM
LEMON__DOTS_wasm(LEMON__DOT_KERNEL, q8) LEMON__PACK_KERNEL(wasm)
#endif

/* ---- the table of machines ---- */

#define LEMON__LIST_4(name) name##_1, name##_2, name##_3, name##_4
#define LEMON__LIST_6(name) LEMON__LIST_4(name), name##_5, name##_6
#define LEMON__LIST_8(name) LEMON__LIST_6(name), name##_7, name##_8
#define LEMON__LIST_14(name) LEMON__LIST_8(name), name##_9, name##_10, name##_11, name##_12, name##_13, name##_14

static const lemon__dots lemon__plain_dots[] = {{lemon__dots_plain, 64}};
static const lemon__sums lemon__plain_sums[] = {{lemon__sums_plain, 1}};
#if LEMON__SMALL
static const lemon__machine lemon__machine_plain = {
    1, 1, 1, 1, INT64_MAX / 8, 1, INT64_MAX / 8, 1, INT64_MAX / 8, 1, NULL, NULL,
    {lemon__plain_dots, NULL, NULL, NULL, NULL, NULL, NULL, NULL}, lemon__plain_sums, lemon__pack_plain
};
#else
static const lemon__kernel lemon__wides_plain[] = {LEMON__LIST_4(lemon__wide_plain)};
static const lemon__kernel lemon__narrows_plain[] = {LEMON__LIST_4(lemon__narrow_plain)};
static const lemon__machine lemon__machine_plain = {
    4, 8, 8, 4, 256, 512, 8, 1, 1, 1, lemon__wides_plain, lemon__narrows_plain,
    {lemon__plain_dots, NULL, NULL, NULL, NULL, NULL, NULL, NULL}, lemon__plain_sums, lemon__pack_plain
};
#endif

/*  A machine with `rows` rows in its largest tile; the numbers are those that stand first in lemon__machine. */
#define LEMON__DOT_ROW_OF(V, type, rows, columns) {lemon__dots_##V##_##type##_##rows, columns},
#define LEMON__SUM_ROW_OF(V, rows, steps) {lemon__sums_##V##_##rows, steps},
#define LEMON__MACHINE(V, rows, pack, ...) \
static const lemon__kernel lemon__wides_##V[] = {LEMON__LIST_##rows(lemon__wide_##V)}; \
static const lemon__kernel lemon__narrows_##V[] = {LEMON__LIST_##rows(lemon__narrow_##V)}; \
static const lemon__dots lemon__f32_dots_##V[] = {LEMON__DOTS_##V(LEMON__DOT_ROW_OF, f32)}; \
static const lemon__dots lemon__bf16_dots_##V[] = {LEMON__DOTS_##V(LEMON__DOT_ROW_OF, bf16)}; \
static const lemon__dots lemon__q8_dots_##V[] = {LEMON__DOTS_##V(LEMON__DOT_ROW_OF, q8)}; \
static const lemon__sums lemon__all_sums_##V[] = {LEMON__SUMS_##V(LEMON__SUM_ROW_OF)}; \
static const lemon__machine lemon__machine_##V = { \
    __VA_ARGS__, lemon__wides_##V, lemon__narrows_##V, \
    {lemon__f32_dots_##V, lemon__bf16_dots_##V, NULL, lemon__q8_dots_##V, NULL, NULL, NULL, NULL}, \
    lemon__all_sums_##V, pack};
#if LEMON__X86
LEMON__MACHINE(m256, 6, lemon__pack_m256, 6, 16, 8, 8, 512, 1024, 8, 4, 8, 2)
LEMON__MACHINE(m512, 14, lemon__pack_m256, 14, 32, 16, 16, 1024, 1024, 12, 4, 4, 2)
#elif LEMON__NEON == 64
LEMON__MACHINE(neon, 8, lemon__pack_neon, 8, 12, 4, 8, 512, 1020, 8, 4, 4, 4)
#elif LEMON__NEON
LEMON__MACHINE(neon, 6, lemon__pack_neon, 6, 8, 4, 8, 512, 1024, 8, 3, 4, 2)
#elif LEMON__WASM
LEMON__MACHINE(wasm, 4, lemon__pack_wasm, 4, 8, 4, 4, 512, 1024, 8, 3, 4, 2)
#endif

#define LEMON__MACHINE_OF(V) if (isa == LEMON__ISA_##V) return &lemon__machine_##V;
static const lemon__machine *lemon__machine_of(lemon_isa isa) {
    LEMON__VECTORS(LEMON__MACHINE_OF)
    (void)isa;
    return &lemon__machine_plain;
}

/*  The tiles of products in float64, steps of k at once, and what their packed panels take: no panel is wider than 16. */
enum {
    LEMON__TILE64 = 256, LEMON__STEPS64 = 256, LEMON__PAD64 = 16,
    LEMON__FLOATS64 = 4 * (LEMON__TILE64 + LEMON__PAD64) * LEMON__STEPS64
};

/*  Floats of workspace that no plan exceeds. */
static int64_t lemon__gemm_floats_of(const lemon__machine *machine) {
    if (LEMON__SMALL) return 0;
    return lemon__l2_bytes() / (int64_t)sizeof(float) * machine->a_width / machine->mr + 16 * machine->kc +
           machine->nc * machine->kc;
}
static int64_t lemon__gemm_floats(lemon_isa isa) { return lemon__gemm_floats_of(lemon__machine_of(isa)); }

/* ---- the five loops ---- */

/*  A block of A or B as the micro-kernel reads it: panel q begins at data + q * panel, its element of lane l (a row of
    A, a column of B) and step s is at l * lane + s * step. */
typedef struct lemon__panels {
    const float *data;
    int64_t panel, lane, step;
} lemon__panels;

/*  Packs `lanes` x `steps` of A into `out` by panels of g->rows rows; out NULL: reads them in place.  Where A lies by
    columns, a few of them at a time for all panels, so that each page is visited once. */
static lemon__panels lemon__pack_a(const lemon__product *g, float *out, const float *in, int64_t lanes, int64_t steps) {
    const int64_t width = g->machine->a_width, each = g->a_row == 1 ? 8 : steps;
    lemon__panels v;
    v.data = out ? out : in;
    v.panel = out ? width * steps : g->rows * g->a_row;
    v.lane = out ? 1 : g->a_row;
    v.step = out ? width : g->a_step;
    for (int64_t s = 0; out && s < steps; s += each)
        for (int64_t l = 0; l < lanes; l += g->rows)
            g->machine->pack(out + l / g->rows * v.panel + s * width, width, in + l * g->a_row + s * g->a_step, g->a_row,
                             g->a_step, lemon__min(g->rows, lanes - l), lemon__min(each, steps - s));
    return v;
}

/*  The innermost loop: the tiles of C in one panel of B, or in a part of it.  The first of them has asked for what is
    needed next. */
static void lemon__tile_column(const lemon__product *g, const lemon__kernel *kernel, lemon__tile *t,
                               const lemon__panels *a, float *c, int64_t m) {
    for (int64_t i = 0; i < m; i += g->rows) {
        t->a = a->data + i / g->rows * a->panel;
        t->c = c + i * t->ldc;
        kernel[lemon__min(g->rows, m - i) - 1](t);
        t->next = (uintptr_t)t->b;
        t->next_step = t->next_jump = 0;
    }
}

/*  What the first tile of a panel asks the cache for, a vector or two at each of its steps: the next panel, if it is to
    be packed; or, where a few rows of A pass over a plain B, the share of the next block of B that falls to this panel,
    row after row: what is read of a row at one time is wider than a panel then, and few pages are touched. */
static void lemon__fetch_plan(const lemon__product *g, lemon__tile *t, const float *in, int64_t j, int pack) {
    const int64_t nr = g->machine->nr;
    const uintptr_t size = sizeof(float);
    t->run = t->k;
    t->next = (uintptr_t)t->b;
    t->next_step = t->next_jump = 0;
    if (pack && g->b_col == 1) {
        t->next = (uintptr_t)(in + j + nr);
        t->next_step = (uintptr_t)g->b_step * size;
    } else if (pack) {
        t->next = (uintptr_t)(in + (j + nr) * g->b_col);
        t->next_step = (uintptr_t)nr * size;
        t->run = lemon__ceil_div(t->k, nr);
        t->next_jump = (uintptr_t)(g->b_col - t->run * nr) * size;
    } else if (g->thin) {
        t->run = g->block_n / nr;
        t->next = (uintptr_t)(in + (g->block_k + (j / nr) * (g->block_k / t->run)) * g->b_step);
        t->next_step = (uintptr_t)nr * size;
        t->next_jump = (uintptr_t)(g->b_step - t->run * nr) * size;
    }
}

/*  A panel of a stored B, rows `row` ... of other types than f32 from element p on: decoded into the space behind the
    packing buffers, then packed from there. */
static void lemon__pack_stored(const lemon__product *g, float *workspace, float *out, int64_t row, int64_t columns,
                               int64_t p, int64_t steps) {
    float *decoded = workspace + lemon__gemm_floats_of(g->machine);
    for (int64_t l = 0; l < columns; l++) {
        lemon_tensor from = lemon__view(lemon__unconst(lemon__b_row(g, row + l) + lemon_row_bytes(g->type, p)), g->type, 1,
                                        steps);
        lemon_row_to_f32(&from, 0, decoded + l * steps);
    }
    g->machine->pack(out, g->machine->nr, decoded, steps, 1, columns, steps);
}

/*  Where a block of C lies: its first column, and the first step of k. */
typedef struct lemon__place_of { int64_t col, step; } lemon__place_of;

/*  The inner two loops: all tiles of a block of m x n elements of C.  `out` is the place of B's packed panels, or NULL.
    If they are to be packed now, each is just before its first use, and the next one is on its way into the cache
    meanwhile. */
static void lemon__block(const lemon__product *g, lemon__tile *t, const lemon__panels *a, lemon__place_of at,
                         float *workspace, float *out, int pack, float *c, int64_t m, int64_t n) {
    const lemon__machine *machine = g->machine;
    const int64_t nr = machine->nr, half = machine->half;
    const int stored = g->type != LEMON_F32;
    const float *in = stored ? NULL : g->b + at.step * g->b_step + at.col * g->b_col;
    for (int64_t j = 0; j < n; j += nr) {
        const int64_t columns = lemon__min(nr, n - j);
        const float *b = out ? out + j * g->panel_b : in + j * g->b_col;
        if (pack && stored)
            lemon__pack_stored(g, workspace, out + j * g->panel_b, at.col + j, columns, at.step, t->k);
        else if (pack)
            machine->pack(out + j * g->panel_b, nr, in + j * g->b_col, g->b_col, g->b_step, columns, t->k);
        for (int64_t h = 0; h < columns; h += t->columns) {
            const int wide = columns == nr;
            t->columns = wide ? nr : lemon__min(half, columns - h);
            t->b = b + h;
            lemon__fetch_plan(g, t, in, j, pack && !stored);
            lemon__tile_column(g, wide ? machine->wide : machine->narrow, t, a, c + j + h, m);
        }
    }
}

/*  The outer three loops.  B packed before has all its panels, in one order for each block of k; those of a part of C begin
    at `ready`. */
static void lemon__tiles(const lemon__product *g, float *workspace) {
    float *packed_a = g->packed_a ? workspace : NULL, *packed_b = g->packed_b ? workspace + g->packed_a : NULL;
    for (int64_t j = 0; j < g->n; j += g->block_n)
        for (int64_t p = 0; p < g->k; p += g->block_k) {
            const int64_t n = lemon__min(g->block_n, g->n - j), k = lemon__min(g->block_k, g->k - p);
            const lemon__place_of at = {j, p};
            if (g->ready) packed_b = g->ready + p * g->ready_n + j * g->block_k;
            for (int64_t i = 0; i < g->m; i += g->block_m) {
                const int64_t m = lemon__min(g->block_m, g->m - i);
                const lemon__panels a = lemon__pack_a(g, packed_a, g->a + i * g->a_row + p * g->a_step, m, k);
                lemon__tile t;
                t.k = k; t.a_row = a.lane; t.a_step = a.step; t.b_step = packed_b ? g->machine->nr : g->b_step;
                t.ldc = g->ldc; t.alpha = g->alpha; t.beta = p == 0 ? g->beta : 1;
                lemon__block(g, &t, &a, at, workspace, packed_b, packed_b && !g->ready && i == 0,
                             g->c + i * g->ldc + j, m, n);
            }
        }
}

/* ---- choosing a path ---- */

/*  The smallest even share of `total` that is at most `limit` and a multiple of `unit`, which limit is too. */
static int64_t lemon__share(int64_t total, int64_t limit, int64_t unit) {
    const int64_t parts = lemon__max(1, (total + limit - 1) / limit), units = (total + unit - 1) / unit;
    return lemon__max(1, (units + parts - 1) / parts) * unit;
}

/*  A column of C that lies like a row is one: C^T = op(B)^T * op(A)^T. */
static void lemon__turn(lemon__product *g) {
    const lemon__product old = *g;
    g->m = 1;
    g->n = old.m;
    g->a = old.b; g->a_row = old.b_col; g->a_step = old.b_step;
    g->b = old.a; g->b_col = old.a_row; g->b_step = old.a_step;
    g->b_bytes = (size_t)g->b_col * sizeof(float);
}

/*  Few rows of A: by rows of B as they lie, if B is large.  Five rows of A or more and a plain B go by tiles as long as one
    tile holds them all. */
static int lemon__path(const lemon__product *g) {
    const lemon__machine *machine = g->machine;
    const int large = g->m == 1 || (g->k >= 64 && g->k * g->n >= LEMON__FEW);
    if (g->k == 0) return LEMON__BY_SCALE;      /* alpha 0 too: see lemon__plan */
    if (LEMON__SMALL) return g->b_step == 1 && g->a_step == 1 ? LEMON__BY_DOTS : LEMON__BY_SUMS;
    if (g->ready) return LEMON__BY_TILES;
    if (g->type != LEMON_F32) return g->m <= machine->few_dots ? LEMON__BY_DOTS : LEMON__BY_TILES;
    if (large && g->m <= machine->few_dots && g->b_step == 1 && g->a_step == 1) return LEMON__BY_DOTS;
    if (large && g->m <= machine->few_sums && (g->m <= 4 || g->m > machine->mr) && g->b_col == 1) return LEMON__BY_SUMS;
    return LEMON__BY_TILES;
}

/*  What depends on the size of a part: its blocks, of A so many rows as fill a good half of L2, and what of it is packed.
    A goes in place if it is small, or if it lies by rows that do not fall on the same places of L1 (NEON wants its
    columns); B must lie by rows for that. */
static void lemon__plan_part(lemon__product *g) {
    const lemon__machine *machine = g->machine;
    const int streams = g->a_row != 1 && g->a_row % 1024 != 0 && !LEMON__NEON;
    const int pack_a = g->m * g->k > LEMON__LARGE && g->n > 4 * machine->nr && !streams;
    const int pack_b = !g->ready && (g->type != LEMON_F32 || g->b_col != 1 || (!g->thin && g->k * g->n > LEMON__LARGE));
    const int64_t half_l2 = lemon__l2_bytes() / (int64_t)sizeof(float) * 9 / 16;
    g->rows = lemon__share(g->m, machine->mr, 1);
    g->block_m = lemon__share(g->m, lemon__max(1, half_l2 / (g->block_k * machine->mr)) * g->rows, g->rows);
    g->block_n = g->thin ? LEMON__THIN_N / machine->nr * machine->nr : lemon__share(g->n, machine->nc, machine->nr);
    g->panel_b = g->block_m < g->m || g->ready ? g->block_k : 0;
    g->packed_a = pack_a ? (g->block_m / g->rows * machine->a_width * g->block_k + 15) / 16 * 16 : 0;
    g->packed_b = pack_b ? lemon__max(g->block_n * g->panel_b, machine->nr * g->block_k) : 0;
}

/*  What the bits depend on, and thus the shape of the whole product alone: the path, and where k is cut. */
static void lemon__plan(lemon__product *g) {
    if (g->alpha == 0) g->k = 0;
    if (!LEMON__SMALL && g->n == 1 && g->m > 1 && g->ldc == 1 && !g->ready && g->type == LEMON_F32) lemon__turn(g);
    g->path = lemon__path(g);
    if (LEMON__SMALL) return;
    g->thin = !g->ready && g->type == LEMON_F32 && g->b_col == 1 && g->m <= g->machine->mr && g->k * g->n > LEMON__FEW;
    const int64_t unit = g->type == LEMON_F32 ? 1 : LEMON__BLOCK;
    g->block_k = lemon__max(1, g->thin ? (int64_t)LEMON__THIN_K : lemon__share(g->k, g->machine->kc, unit));
    lemon__plan_part(g);
}

/*  The arguments as strides; the decisions come after, by lemon__plan. */
static lemon__product lemon__product_of(lemon_isa isa, int trans_a, int trans_b, int64_t m, int64_t n, int64_t k,
                                        float alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
                                        float beta, float *c, int64_t ldc) {
    lemon__product g;
    memset(&g, 0, sizeof g);
    g.machine = lemon__machine_of(isa);
    g.a = a; g.a_row = trans_a ? 1 : lda; g.a_step = trans_a ? lda : 1;
    g.b = b; g.b_step = trans_b ? 1 : ldb; g.b_col = trans_b ? ldb : 1;
    g.c = c; g.ldc = ldc;
    g.m = m; g.n = n; g.k = k; g.alpha = alpha; g.beta = beta;
    g.type = LEMON_F32; g.b_bytes = (size_t)g.b_col * sizeof(float);
    return g;
}

/*  B streams through once; the rows of it at hand stay in L1 while all rows of A pass. */
static void lemon__by_dots(const lemon__product *g) {
    const lemon__dots *dots = g->machine->dots[g->type];
    const int64_t rows = lemon__share(g->m, g->machine->dot_rows, 1), columns = dots[rows - 1].columns;
    for (int64_t j = 0; j < g->n; j += columns)
        for (int64_t i = 0; i < g->m; i += rows)
            dots[lemon__min(rows, g->m - i) - 1].run(g, i, j, lemon__min(columns, g->n - j));
}

/*  Adds eight scaled rows of B, or what is left of them, to some rows of C. */
static void lemon__sum_eight(const lemon__product *g, int64_t row, int64_t rows, int64_t p, int64_t col, int64_t last) {
    const lemon__sums *sums = &g->machine->sums[rows - 1];
    int64_t end = lemon__min(p + 8, g->k);
    if (end - p == 8)
        for (; p < end; p += sums->steps) sums->run(g, row, p, col, last);
    for (; p < end; p++)
        for (int64_t i = 0; i < rows; i++) lemon__sums_plain(g, row + i, p, col, last);
}

/*  As lemon__by_dots, with the rows of a plain B; the part of C that they are added to stays in L1. */
static void lemon__by_sums(const lemon__product *g) {
    const int64_t rows = lemon__share(g->m, g->machine->sum_rows, 1), block = lemon__max(64, LEMON__SUMS / g->m / 64 * 64);
    lemon__scale(g);
    for (int64_t j = 0; j < g->n; j += block)
        for (int64_t p = 0; p < g->k; p += 8)
            for (int64_t i = 0; i < g->m; i += rows)
                lemon__sum_eight(g, i, lemon__min(rows, g->m - i), p, j, lemon__min(j + block, g->n));
}

/*  Both ways without blocks, where the program is to be small (LEMON__SMALL). */
static void lemon__by_rows(const lemon__product *g) {
    if (g->path == LEMON__BY_SUMS) lemon__scale(g);
    for (int64_t i = 0; i < g->m; i++)
        if (g->path == LEMON__BY_DOTS) lemon__dots_plain(g, i, 0, g->n);
        else for (int64_t p = 0; p < g->k; p++) lemon__sums_plain(g, i, p, 0, g->n);
}

static void lemon__product_run(const lemon__product *g, float *workspace) {
    if (g->path == LEMON__BY_SCALE) lemon__scale(g);
    else if (LEMON__SMALL) lemon__by_rows(g);
    else if (g->path == LEMON__BY_DOTS) lemon__by_dots(g);
    else if (g->path == LEMON__BY_SUMS) lemon__by_sums(g);
    else lemon__tiles(g, workspace);
}

/*  The product on one thread and without checks, for use inside parallel tasks. `workspace` has lemon__gemm_floats(isa)
    floats. */
static void lemon__gemm(lemon_isa isa, float *workspace, int trans_a, int trans_b, int64_t m, int64_t n, int64_t k,
                        float alpha, const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                        int64_t ldc) {
    lemon__product g = lemon__product_of(isa, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    lemon__plan(&g);
    lemon__product_run(&g, workspace);
}

/*  c [m, n] = alpha * a * b + beta * c for operands that are in the caches as they lie, a(i, p) = a[i * a_row + p * a_step]
    and b(p, j) = b[p * b_step + j]: nothing is packed and little planned. */
static void lemon__gemm_near(lemon_isa isa, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t a_row,
                             int64_t a_step, const float *b, int64_t b_step, float beta, float *c, int64_t ldc) {
    lemon__product g = lemon__product_of(isa, 0, 0, m, n, k, alpha, a, a_row, b, b_step, beta, c, ldc);
    const lemon__place_of at = {0, 0};
    lemon__panels panels;
    lemon__tile t;
    g.a_step = a_step;
    if (LEMON__SMALL) {
        lemon__plan(&g);
        lemon__product_run(&g, NULL);
        return;
    }
    g.rows = lemon__share(m, g.machine->mr, 1);
    panels.data = a, panels.panel = g.rows * a_row, panels.lane = a_row, panels.step = a_step;
    t.k = k, t.a_row = a_row, t.a_step = a_step, t.b_step = b_step;
    t.ldc = ldc, t.alpha = alpha, t.beta = beta;
    lemon__block(&g, &t, &panels, at, NULL, NULL, 0, c, m, n);
}

/* ---- threads, and the public call ---- */

/*  The packing buffers of the context's workers, made once: all of them or none. */
static float *lemon__workspace(lemon_ctx *ctx, int worker) { return ctx->workspace[worker]; }

static size_t lemon__workspace_bytes(const lemon_ctx *ctx) {
    const int64_t floats = lemon__max(lemon__gemm_floats(ctx->isa), LEMON__SMALL ? 0 : (int64_t)LEMON__FLOATS64);
    return (size_t)floats * sizeof(float) + LEMON__DECODE_BYTES;
}

static void lemon__workspaces_free(lemon_ctx *ctx) {
    if (!ctx->workspace) return;
    for (int i = 0; i < ctx->threads; i++) lemon__free(ctx, ctx->workspace[i], lemon__workspace_bytes(ctx));
    lemon__free(ctx, ctx->workspace, (size_t)ctx->threads * sizeof *ctx->workspace);
    ctx->workspace = NULL;
}

static lemon_status lemon__workspaces(lemon_ctx *ctx) {
    int made = 0;
    if (ctx->workspace) return LEMON_OK;
    ctx->workspace = (float **)lemon__calloc(ctx, (size_t)ctx->threads * sizeof *ctx->workspace);
    if (!ctx->workspace) return LEMON_E_MEMORY;
    for (int i = 0; i < ctx->threads; i++) {
        ctx->workspace[i] = (float *)lemon__malloc(ctx, lemon__workspace_bytes(ctx));
        made += ctx->workspace[i] != NULL;
    }
    if (made == ctx->threads) return LEMON_OK;
    lemon__workspaces_free(ctx);
    return LEMON_E_MEMORY;
}

/*  How C is shared out: a grid of down x across parts. */
typedef struct lemon__grid {
    lemon_ctx *ctx;
    const lemon__product *whole;
    int64_t down, across;
} lemon__grid;

/*  Border q of `parts` in `total`, a multiple of `unit`. */
static int64_t lemon__border(int64_t q, int64_t parts, int64_t total, int64_t unit) {
    return lemon__min(total, (total + unit - 1) / unit * q / parts * unit);
}

static void lemon__grid_task(void *arg, int64_t index, int worker) {
    const lemon__grid *grid = (const lemon__grid *)arg;
    const lemon__product *whole = grid->whole;
    const int64_t y = index % grid->down, x = index / grid->down, nr = whole->machine->nr;
    const int64_t i = lemon__border(y, grid->down, whole->m, 1), j = lemon__border(x, grid->across, whole->n, nr);
    lemon__product part = *whole;
    part.m = lemon__border(y + 1, grid->down, whole->m, 1) - i;
    part.n = lemon__border(x + 1, grid->across, whole->n, nr) - j;
    part.a += i * whole->a_row;
    if (part.ready) part.ready += j * whole->block_k;
    else part.b = (const float *)(const void *)lemon__b_row(whole, j);
    part.c += i * whole->ldc + j;
    lemon__plan_part(&part);
    lemon__product_run(&part, lemon__workspace(grid->ctx, worker));
}

/*  The grid of `parts` whose largest part is the smallest; its area is what it computes, its sides what it packs.
    Returns what all parts come to if they are as large. */
static int64_t lemon__grid_choose(lemon__grid *grid, int64_t parts) {
    const lemon__product *g = grid->whole;
    const int64_t nr = g->machine->nr, panels = lemon__ceil_div(g->n, nr);
    int64_t best = INT64_MAX;
    grid->down = grid->across = 1;
    for (int64_t down = 1; down <= parts; down++) {
        const int64_t across = parts / down, m = lemon__ceil_div(g->m, down), n = lemon__ceil_div(panels, across) * nr;
        const int64_t cost = m * n + 8 * (m + n);
        if (parts % down || (down > 1 && g->path != LEMON__BY_TILES) || cost >= best) continue;
        best = cost;
        grid->down = down;
        grid->across = across;
    }
    return best * parts;
}

/*  Into how many parts: one if the threads cost more than they save (to hand out work and to wait for it takes about a
    microsecond), else one a thread, or several where they are large, so that a thread which comes late or is interrupted
    leaves its share to others, as long as that does not mean much more packing.  For few rows what counts is how much
    of B must be read, and in long rows. */
static int64_t lemon__parts(const lemon__product *g, int threads) {
    const double b = (double)g->k * (double)g->n, work = g->path == LEMON__BY_TILES ? (double)g->m * b : 4 * b;
    if (threads == 1 || g->path == LEMON__BY_SCALE || work < (double)LEMON__PARALLEL) return 1;
    return work < 128 * (double)LEMON__PARALLEL || g->path == LEMON__BY_SUMS || g->thin ? threads : 4 * (int64_t)threads;
}

/*  A planned product on all threads of the context. lemon__workspaces() has returned LEMON_OK before. */
static void lemon__product_threads(lemon_ctx *ctx, const lemon__product *g) {
    const int threads = lemon_ctx_threads(ctx);
    int64_t parts = lemon__parts(g, threads);
    lemon__grid grid = {ctx, g, 1, 1};
    if (g->path != LEMON__BY_SCALE) ctx->flops += 2.0 * (double)g->m * (double)g->n * (double)g->k;
    if (LEMON__SMALL) { lemon__product_run(g, NULL); return; }
    int64_t most = lemon__grid_choose(&grid, lemon__min(parts, threads));
    while (lemon__grid_choose(&grid, parts) > most + most / 32) parts /= 2;
    lemon__parallel(ctx, grid.down * grid.across, lemon__grid_task, &grid);
}

#ifdef LEMON_USE_BLIS
#ifdef __cplusplus
extern "C"
#endif
void cblas_sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a, int lda,
                 const float *b, int ldb, float beta, float *c, int ldc);

/*  1 if the product went to the CBLAS: 101 is row-major, 111 as it is, 112 transposed. */
static int lemon__cblas(int trans_a, int trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                        int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc) {
    const int64_t largest = lemon__max(lemon__max(m, n), lemon__max(lemon__max(k, lda), lemon__max(ldb, ldc)));
    if ((double)m * (double)n * (double)k < 1e6 || m < 16 || n < 16 || largest > INT32_MAX || alpha == 0) return 0;
    cblas_sgemm(101, trans_a ? 112 : 111, trans_b ? 112 : 111, (int)m, (int)n, (int)k, alpha, a, (int)lda, b, (int)ldb,
                beta, c, (int)ldc);
    return 1;
}
#endif

/*  The product on all threads of the context, without checks. */
static void lemon__gemm_threads(lemon_ctx *ctx, int trans_a, int trans_b, int64_t m, int64_t n, int64_t k, float alpha,
                                const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                                int64_t ldc) {
    lemon__product g = lemon__product_of(lemon_ctx_isa(ctx), trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c,
                                         ldc);
#ifdef LEMON_USE_BLIS
    if (lemon__cblas(trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)) {
        ctx->flops += 2.0 * (double)m * (double)n * (double)k;
        return;
    }
#endif
    lemon__plan(&g);
    lemon__product_threads(ctx, &g);
}

/*  y[rows, out] = x[rows, in] * W^T for W [out, in] as it is stored: by dot products for a few rows, decoded as it is
    packed for more; 0 if there is no kernel for so few. */
static int lemon__gemm_stored(lemon_ctx *ctx, int64_t rows, const float *x, const lemon_tensor *w, float *y) {
    lemon__product g = lemon__product_of(ctx->isa, 0, 1, rows, w->rows, w->cols, 1.0f, x, w->cols,
                                         (const float *)w->data, w->cols, 0.0f, y, w->rows);
    if (rows <= g.machine->few_dots && !g.machine->dots[w->dtype]) return 0;
    g.type = w->dtype;
    g.b_bytes = lemon_row_bytes(w->dtype, w->cols);
    lemon__plan(&g);
    lemon__product_threads(ctx, &g);
    return 1;
}

/* ---- products of bytes, on request (lemon_options.int8): q8 and q4 weights, and x rounded to blocks of 32 bytes:
        y = sum over blocks of (scale of x * scale of w) * sum of q_x * q_w.  The inner sums are integers, the same on any
        machine; the outer one is float32. ---- */

/*  A block of x.  SMLAD wants 16 bits, in the order in which it is given those of the weights. */
#if LEMON__SMLAD
typedef int16_t lemon__octet;
#define LEMON__OCTET_AT(i) ((i) / 4 * 4 + (i) % 2 * 2 + (i) / 2 % 2)
#else
typedef int8_t lemon__octet;
#define LEMON__OCTET_AT(i) (i)
#endif
typedef struct lemon__octets {
    float scale;
    int32_t sum;                    /* of q, for what q4 weights have to be less than their four bits say */
    lemon__octet q[LEMON__BLOCK];
} lemon__octets;

/*  n numbers, 1 to 32.  1.5 * 2^23 rounds to an integer, which then stands in the last byte.  With NaN or Inf in it the
    block is NaN. */
static void lemon__octets_of(const float *x, int64_t n, lemon__octets *out) {
    float top = 0.0f, odd = 0.0f;
    for (int64_t i = 0; i < n; i++) {
        top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
        odd += x[i] * 0.0f;
    }
    float inverse = top > FLT_MIN * 127.0f && odd == 0.0f ? 127.0f / top : 0.0f;
    memset(out, 0, sizeof *out);
    out->scale = inverse > 0 ? top / 127.0f : odd;
    for (int64_t i = 0; i < n && inverse > 0; i++) {
        const int8_t q = (int8_t)(lemon__bits(x[i] * inverse + 12582912.0f) & 0xff);
        out->q[LEMON__OCTET_AT(i)] = q;
        out->sum += q;
    }
}

/*  lemon__half_V: the scale of a block of weights.  lemon__octets_q8_V, _q4_V: a block of weights times one of x. */
#define LEMON__VEC_plain float
#define LEMON__SET_plain(x) (x)
#define LEMON__FMA_plain(a, b, c) ((c) + (a) * (b))
#define LEMON__TARGET_plain
LEMON__INLINE void lemon__sum4_plain(float *out, float w, float x, float y, float z) {
    out[0] = w, out[1] = x, out[2] = y, out[3] = z;
}
LEMON__INLINE float lemon__half_plain(const uint8_t *w) { return lemon_f32_from_f16(lemon__get16(w)); }

#if LEMON__SMLAD
LEMON__INLINE int16x2_t lemon__two(const void *p) {
    int16x2_t two;
    memcpy(&two, p, sizeof two);
    return two;
}
LEMON__INLINE float lemon__octets_q8_plain(const uint8_t *w, const lemon__octets *x) {
    int32_t sum = 0;
    for (int i = 0; i < LEMON__BLOCK; i += 4) {
        const uint32_t four = (uint32_t)lemon__two(w + i);
        sum = __smlad(__sxtb16((int8x4_t)four), lemon__two(x->q + i), sum);
        sum = __smlad(__sxtb16((int8x4_t)(four >> 8 | four << 24)), lemon__two(x->q + i + 2), sum);
    }
    return (float)sum;
}
LEMON__INLINE float lemon__octets_q4_plain(const uint8_t *w, const lemon__octets *x) {
    int32_t sum = -8 * x->sum;
    for (int i = 0; i < LEMON__BLOCK / 2; i += 4) {
        const uint32_t eight = (uint32_t)lemon__two(w + i), mask = 0xf000f;
        sum = __smlad((int16x2_t)(eight & mask), lemon__two(x->q + i), sum);
        sum = __smlad((int16x2_t)(eight >> 8 & mask), lemon__two(x->q + i + 2), sum);
        sum = __smlad((int16x2_t)(eight >> 4 & mask), lemon__two(x->q + i + 16), sum);
        sum = __smlad((int16x2_t)(eight >> 12 & mask), lemon__two(x->q + i + 18), sum);
    }
    return (float)sum;
}
#else
LEMON__INLINE float lemon__octets_q8_plain(const uint8_t *w, const lemon__octets *x) {
    int32_t sum = 0;
    for (int i = 0; i < LEMON__BLOCK; i++) sum += (int8_t)w[i] * x->q[i];
    return (float)sum;
}
LEMON__INLINE float lemon__octets_q4_plain(const uint8_t *w, const lemon__octets *x) {
    int32_t sum = -8 * x->sum;
    for (int i = 0; i < 16; i++) sum += (w[i] & 15) * x->q[i] + (w[i] >> 4) * x->q[i + 16];
    return (float)sum;
}
#endif

#if LEMON__X86
/*  MADDUBS wants one side without signs: |w|, and x with the sign of w.  128 * 127 twice is less than 2^15. */
LEMON__TARGET_m256 LEMON__INLINE float lemon__half_m256(const uint8_t *w) { return _cvtsh_ss(lemon__get16(w)); }
LEMON__TARGET_m256 LEMON__INLINE __m256 lemon__octets_m256(__m256i u, __m256i x) {
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(_mm256_maddubs_epi16(u, x), _mm256_set1_epi16(1)));
}
LEMON__TARGET_m256 LEMON__INLINE __m256 lemon__octets_q8_m256(const uint8_t *w, const lemon__octets *x) {
    const __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)w);
    const __m256i q = _mm256_loadu_si256((const __m256i *)(const void *)x->q);
    return lemon__octets_m256(_mm256_abs_epi8(v), _mm256_sign_epi8(q, v));
}
LEMON__TARGET_m256 LEMON__INLINE __m256 lemon__octets_q4_m256(const uint8_t *w, const lemon__octets *x) {
    const __m128i v = _mm_loadu_si128((const __m128i *)(const void *)w);
    const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(v), _mm_srli_epi16(v, 4), 1);
    const __m256i u = _mm256_and_si256(both, _mm256_set1_epi8(15));
    const __m256 sum = lemon__octets_m256(u, _mm256_loadu_si256((const __m256i *)(const void *)x->q));
    return _mm256_sub_ps(sum, _mm256_set1_ps((float)x->sum));       /* 8 times x->sum, shared out to eight */
}
#endif

#if LEMON__NEON
#define LEMON__VEC_sdot float32x4_t
#define LEMON__SET_sdot vdupq_n_f32
#define LEMON__FMA_sdot(a, b, c) vfmaq_f32(c, a, b)
#define lemon__sum4_sdot lemon__sum4_neon
#define lemon__half_sdot lemon__half_neon
LEMON__INLINE int32x4_t lemon__dot16_neon(int8x16_t w, const int8_t *q) {
    const int8x16_t x = vld1q_s8(q);
    return vpaddlq_s16(lemon__high_neon(vmull_s8(vget_low_s8(w), vget_low_s8(x)), w, x));      /* below 2 * 128 * 127 */
}
#ifdef LEMON__SDOT
LEMON__TARGET_sdot LEMON__INLINE int32x4_t lemon__dot16_sdot(int8x16_t w, const int8_t *q) {
    return vdotq_s32(vdupq_n_s32(0), w, vld1q_s8(q));
}
#endif
#define LEMON__OCTETS_NEON(V) \
LEMON__TARGET_##V LEMON__INLINE float32x4_t lemon__octets_q8_##V(const uint8_t *w, const lemon__octets *x) { \
    const int8x16_t low = vreinterpretq_s8_u8(vld1q_u8(w)), high = vreinterpretq_s8_u8(vld1q_u8(w + 16)); \
    return vcvtq_f32_s32(vaddq_s32(lemon__dot16_##V(low, x->q), lemon__dot16_##V(high, x->q + 16))); \
} \
LEMON__TARGET_##V LEMON__INLINE float32x4_t lemon__octets_q4_##V(const uint8_t *w, const lemon__octets *x) { \
    const uint8x16_t v = vld1q_u8(w); \
    const int8x16_t low = vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(15))), eight = vdupq_n_s8(8); \
    const int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(v, 4)); \
    return vcvtq_f32_s32(vaddq_s32(lemon__dot16_##V(vsubq_s8(low, eight), x->q), \
                                   lemon__dot16_##V(vsubq_s8(high, eight), x->q + 16))); \
}
#endif

/*  Four columns of W, of which those beyond the last repeat it, times a row of x, over all blocks of a row. */
#define LEMON__OCTETS_COLUMN(V, type, j) \
    const uint8_t *w##j = w + (size_t)lemon__min(j, columns - 1) * row; \
    LEMON__VEC_##V s##j = LEMON__SET_##V(0);
#define LEMON__OCTETS_ADD(V, type, j) \
    s##j = LEMON__FMA_##V(LEMON__SET_##V(x->scale * lemon__half_##V(w##j)), lemon__octets_##type##_##V(w##j + 2, x), s##j); \
    w##j += bytes;
#define LEMON__OCTETS_KERNEL(V, type, block) \
LEMON__TARGET_##V static void lemon__octets_dots_##V##_##type(const uint8_t *w, size_t row, int64_t columns, \
                                                             const lemon__octets *x, int64_t blocks, float *y) { \
    enum { bytes = block }; \
    float sum[4]; \
    LEMON__STEPS_4(LEMON__OCTETS_COLUMN, V, type) \
    for (; blocks > 0; blocks--, x++) { LEMON__STEPS_4(LEMON__OCTETS_ADD, V, type) } \
    lemon__sum4_##V(sum, s0, s1, s2, s3); \
    memcpy(y, sum, (size_t)columns * sizeof *y); \
}
#define LEMON__OCTETS_KERNELS(V) LEMON__OCTETS_KERNEL(V, q8, LEMON__Q8_BYTES) LEMON__OCTETS_KERNEL(V, q4, LEMON__Q4_BYTES)
typedef void (*lemon__octets_dots)(const uint8_t *w, size_t row, int64_t columns, const lemon__octets *x, int64_t blocks,
                                  float *y);
LEMON__OCTETS_KERNELS(plain)
#if LEMON__X86
LEMON__OCTETS_KERNELS(m256)
#endif
#if LEMON__NEON
LEMON__OCTETS_NEON(neon)
LEMON__OCTETS_KERNELS(neon)
#endif
#ifdef LEMON__SDOT
LEMON__OCTETS_NEON(sdot)
LEMON__OCTETS_KERNELS(sdot)
#endif

static lemon__octets_dots lemon__octets_dots_of(lemon_isa isa, int q4) {
#if LEMON__X86
    if (isa != LEMON_ISA_SCALAR) return q4 ? lemon__octets_dots_m256_q4 : lemon__octets_dots_m256_q8;
#elif LEMON__NEON
#ifdef LEMON__SDOT
    if (isa == LEMON_ISA_NEON && LEMON__SDOT) return q4 ? lemon__octets_dots_sdot_q4 : lemon__octets_dots_sdot_q8;
#endif
    if (isa == LEMON_ISA_NEON) return q4 ? lemon__octets_dots_neon_q4 : lemon__octets_dots_neon_q8;
#endif
    (void)isa;
    return q4 ? lemon__octets_dots_plain_q4 : lemon__octets_dots_plain_q8;
}

typedef struct lemon__octets_job {
    lemon_ctx *ctx;
    const lemon_tensor *w;
    const float *x;
    float *y;
    int64_t rows, each, blocks;     /* of x; of W in a task; in a row */
} lemon__octets_job;

/*  Some rows of W, for as many rows of x as the worker's buffer holds at a time. */
static void lemon__octets_task(void *arg, int64_t index, int worker) {
    const lemon__octets_job *t = (const lemon__octets_job *)arg;
    lemon__octets *x = (lemon__octets *)(void *)(lemon__workspace(t->ctx, worker) + lemon__gemm_floats(t->ctx->isa));
    const lemon__octets_dots dots = lemon__octets_dots_of(t->ctx->isa, t->w->dtype == LEMON_Q4);
    const int64_t to = lemon__min(t->w->rows, (index + 1) * t->each), k = t->w->cols;
    const int64_t most = LEMON__DECODE_BYTES / (int64_t)sizeof *x / t->blocks;
    int64_t n;
    for (int64_t r = 0; r < t->rows; r += n) {
        n = lemon__min(most, t->rows - r);
        for (int64_t i = 0; i < n; i++)
            for (int64_t b = 0; b < t->blocks; b++)
                lemon__octets_of(t->x + (r + i) * k + b * LEMON__BLOCK, lemon__min(LEMON__BLOCK, k - b * LEMON__BLOCK),
                                 x + i * t->blocks + b);
        for (int64_t j = index * t->each; j < to; j += 4)
            for (int64_t i = 0; i < n; i++)
                dots(lemon__row(t->w, j), lemon_row_bytes(t->w->dtype, k), lemon__min(4, to - j), x + i * t->blocks, t->blocks,
                     t->y + (r + i) * t->w->rows + j);
    }
}

/*  y[rows, out] = x[rows, in] * W^T; 0 if not so asked for, if W is not of bytes, or if a row is too long for the buffer. */
static int lemon__octets_product(lemon_ctx *ctx, int64_t rows, const float *x, const lemon_tensor *w, float *y) {
    const double work = (double)rows * (double)w->rows * (double)w->cols;
    const int64_t parts = work < 8 * (double)LEMON__PARALLEL ? 1 : lemon_ctx_threads(ctx);
    const int64_t each = lemon__ceil_div(lemon__ceil_div(w->rows, parts), 4) * 4;
    lemon__octets_job job = {ctx, w, x, y, rows, each, lemon__ceil_div(w->cols, LEMON__BLOCK)};
    if (!LEMON__INT8 || !ctx->options.int8 || (w->dtype != LEMON_Q8 && w->dtype != LEMON_Q4)) return 0;
    if (job.blocks * (int64_t)sizeof(lemon__octets) > LEMON__DECODE_BYTES) return 0;
    ctx->flops += 2.0 * work;
    lemon__parallel(ctx, lemon__ceil_div(w->rows, each), lemon__octets_task, &job);
    return 1;
}

#if !defined(LEMON_NO_TRAIN) && !defined(LEMON_NO_FUSE)
/* ---- the same in float64, for the solvers of chapter 12: C += alpha * A * B ----
        Tiles are the tasks, as tall as gives every thread as many; each number is summed up in one order, so bits do not
        depend on that.  A task packs what it reads, zeros at the edges, and adds to C by blocks of mr x nr numbers; those
        that C does not have whole are computed beside it first. ---- */

typedef struct lemon__machine64 {
    int64_t mr, nr;
    /* c [mr, nr] += alpha * a * b, both packed */
    void (*tile)(const double *a, const double *b, int64_t k, double alpha, double *c, int64_t ldc);
} lemon__machine64;

static void lemon__tile64_plain(const double *a, const double *b, int64_t k, double alpha, double *c, int64_t ldc) {
    double sum[16] = {0};
    for (; k > 0; k--, a += 4, b += 4)
        for (int64_t i = 0; i < 16; i++) sum[i] += a[i / 4] * b[i % 4];
    for (int64_t i = 0; i < 16; i++) c[i / 4 * ldc + i % 4] += alpha * sum[i];
}

#if LEMON__X86
#define LEMON__ZERO64(V, i, at) __##V##d x##i = _m##V##_setzero_pd(), y##i = x##i;
#define LEMON__ADD64(V, i, at) \
    v = _m##V##_set1_pd(a[i]); \
    x##i = _m##V##_fmadd_pd(v, b0, x##i); \
    y##i = _m##V##_fmadd_pd(v, b1, y##i);
#define LEMON__PUT64(V, i, at) \
    b0 = _m##V##_add_pd(_m##V##_loadu_pd(c + i * ldc), _m##V##_mul_pd(v, x##i)); \
    b1 = _m##V##_add_pd(_m##V##_loadu_pd(c + i * ldc + lanes), _m##V##_mul_pd(v, y##i)); \
    _m##V##_storeu_pd(c + i * ldc, b0); \
    _m##V##_storeu_pd(c + i * ldc + lanes, b1);
#define LEMON__KERNEL64(V, rows) \
LEMON__TARGET_##V static void lemon__tile64_##V(const double *a, const double *b, int64_t k, double alpha, double *c, \
                                                int64_t ldc) { \
    enum { lanes = sizeof(__##V##d) / sizeof(double) }; \
    __##V##d v, b0, b1; \
    LEMON__ROWS_##rows(LEMON__ZERO64, V) \
    for (; k > 0; k--, a += rows, b += 2 * lanes) { \
        b0 = _m##V##_loadu_pd(b); \
        b1 = _m##V##_loadu_pd(b + lanes); \
        LEMON__ROWS_##rows(LEMON__ADD64, V) \
    } \
    v = _m##V##_set1_pd(alpha); \
    LEMON__ROWS_##rows(LEMON__PUT64, V) \
}
LEMON__KERNEL64(m256, 6)
LEMON__KERNEL64(m512, 14)
#endif

static lemon__machine64 lemon__machine64_of(lemon_isa isa) {
    lemon__machine64 machine = {4, 4, lemon__tile64_plain};
#if LEMON__X86
    if (isa == LEMON_ISA_AVX2) { machine.mr = 6; machine.nr = 8; machine.tile = lemon__tile64_m256; }
    if (isa == LEMON_ISA_AVX512) { machine.mr = 14; machine.nr = 16; machine.tile = lemon__tile64_m512; }
#endif
    (void)isa;
    return machine;
}

/*  a(i, p) = a[i * a_row + p * a_step], b(p, j) = b[p * b_step + j * b_col].  lower: only c(i, j) with j <= i. */
typedef struct lemon__product64 {
    lemon_ctx *ctx;
    const double *a, *b;
    double *c, alpha;
    int64_t m, n, k, a_row, a_step, b_step, b_col, ldc;
    int lower;
    int64_t tall;                   /* rows of a task's tile */
} lemon__product64;

#if LEMON__X86
#define LEMON__AHEAD64(x, doubles) LEMON__AHEAD_m256((uintptr_t)(x) + (uintptr_t)(doubles) * sizeof(double))
#else
#define LEMON__AHEAD64(x, doubles)
#endif

/*  Panels of `width` rows of A or columns of B, step after step, with zeros beyond the last; the next is asked for ahead. */
static void lemon__pack64(double *out, int64_t width, const double *in, int64_t lane, int64_t step, int64_t lanes,
                          int64_t steps) {
    for (int64_t at = 0; at < lanes; at += width, in += width * lane, out += width * steps) {
        int64_t used = lemon__min(width, lanes - at);
        if (used < width) memset(out, 0, (size_t)(width * steps) * sizeof *out);
        for (int64_t s = 0; s < steps && lane == 1; s++) {
            LEMON__AHEAD64(in + s * step, width)
            memcpy(out + s * width, in + s * step, (size_t)used * sizeof *out);
        }
        for (int64_t s = 0; s < steps && lane != 1; s += 8)     /* a line of each row at a time: what is written stays near */
            for (int64_t l = 0; l < used; l++) {
                const double *from = in + l * lane + s;
                LEMON__AHEAD64(from, width * lane)
                for (int64_t i = s; i < lemon__min(s + 8, steps); i++) out[i * width + l] = *from++;
            }
    }
}

static void lemon__task64(void *arg, int64_t index, int worker) {
    const lemon__product64 *g = (const lemon__product64 *)arg;
    const lemon__machine64 machine = lemon__machine64_of(g->ctx->isa);
    const int64_t mr = machine.mr, nr = machine.nr, across = lemon__ceil_div(g->n, LEMON__TILE64);
    const int64_t row = index / across * g->tall, col = index % across * LEMON__TILE64;
    const int64_t m = lemon__min(g->tall, g->m - row), n = lemon__min(LEMON__TILE64, g->n - col);
    double *a = (double *)(void *)lemon__workspace(g->ctx, worker),
           *b = a + (LEMON__TILE64 + LEMON__PAD64) * LEMON__STEPS64, tile[14 * 16];
    if (g->lower && col > row + m - 1) return;
    for (int64_t p = 0; p < g->k; p += LEMON__STEPS64) {
        const int64_t k = lemon__min(LEMON__STEPS64, g->k - p);
        lemon__pack64(a, mr, g->a + row * g->a_row + p * g->a_step, g->a_row, g->a_step, m, k);
        lemon__pack64(b, nr, g->b + col * g->b_col + p * g->b_step, g->b_col, g->b_step, n, k);
        for (int64_t j = 0; j < n; j += nr)
            for (int64_t i = 0; i < m; i += mr) {
                const int64_t under = g->lower ? row + i - col - j : nr;        /* rows from the diagonal down */
                double *c = g->c + (row + i) * g->ldc + col + j;
                if (under <= -mr) continue;
                if (i + mr <= m && j + nr <= n && under >= nr - 1) {
                    machine.tile(a + i * k, b + j * k, k, g->alpha, c, g->ldc);
                    continue;
                }
                memset(tile, 0, sizeof tile);
                machine.tile(a + i * k, b + j * k, k, g->alpha, tile, nr);
                for (int64_t x = 0; x < lemon__min(mr, m - i); x++)
                    for (int64_t y = 0; y < lemon__min(lemon__min(nr, n - j), under + x + 1); y++)
                        c[x * g->ldc + y] += tile[x * nr + y];
            }
    }
}

/*  c [m, n] += alpha * a * op(b) on all threads; b is [k, n], or [n, k] where trans_b is set. */
static void lemon__gemm64(lemon_ctx *ctx, int trans_b, int lower, int64_t m, int64_t n, int64_t k, double alpha,
                          const double *a, int64_t lda, const double *b, int64_t ldb, double *c, int64_t ldc) {
    const int64_t across = lemon__ceil_div(n, LEMON__TILE64), mr = lemon__machine64_of(ctx->isa).mr,
                  tasks = lemon_ctx_threads(ctx) * lemon__ceil_div(m * across, LEMON__TILE64 * lemon_ctx_threads(ctx)),
                  tall = lemon__ceil_div(lemon__ceil_div(m * across, tasks), mr) * mr;
    lemon__product64 g = {ctx, a, b, c, alpha, m, n, k, lda, 1, trans_b ? 1 : ldb, trans_b ? ldb : 1, ldc, lower,
                           lemon__max(LEMON__TILE64 / 8, lemon__min(tall, LEMON__TILE64))};
    ctx->flops += 2.0 * ((double)m - (lower ? 0.5 * (double)n : 0.0)) * (double)n * (double)k;
    lemon__parallel(ctx, lemon__ceil_div(m, g.tall) * across, lemon__task64, &g);
}
#endif

/*  One matrix of `rows` x `cols` as stored. */
static lemon_status lemon__check_matrix(lemon_ctx *ctx, char name, const float *data, int64_t rows, int64_t cols,
                                        int64_t ld, int used) {
    if (ld < cols)
        return lemon__fail(ctx, LEMON_E_ARG, "lemon_sgemm: ld%c is %lld, expected at least %lld (a row of %c)", name,
                           (long long)ld, (long long)cols, name);
    const int64_t most = PTRDIFF_MAX / (int64_t)sizeof *data;
    const int none = !data || cols > most || (rows > 1 && ld > (most - cols) / (rows - 1));
    if (none && used && rows > 0 && cols > 0)
        return lemon__fail(ctx, LEMON_E_ARG, "lemon_sgemm: %c is %s, expected %lld x %lld floats", name,
                           data ? "larger than all memory" : "NULL", (long long)rows, (long long)cols);
    return LEMON_OK;
}

static lemon_status lemon__check_sizes(lemon_ctx *ctx, const lemon__product *g) {
    const int64_t size[3] = {g->m, g->n, g->k};
    for (int i = 0; i < 3; i++)
        if (size[i] < 0)
            return lemon__fail(ctx, LEMON_E_ARG, "lemon_sgemm: %c is %lld, expected 0 or more", "mnk"[i],
                               (long long)size[i]);
    return LEMON_OK;
}

/*  packed: B was checked before. */
static lemon_status lemon__check_product(lemon_ctx *ctx, const lemon__product *g, int trans_a, int64_t lda, int trans_b,
                                         int64_t ldb, int packed) {
    const int used = g->alpha != 0 && g->m > 0 && g->n > 0;
    lemon_status status = lemon__check_sizes(ctx, g);
    if (!status) status = lemon__check_matrix(ctx, 'a', g->a, trans_a ? g->k : g->m, trans_a ? g->m : g->k, lda, used);
    if (!status) status = lemon__check_matrix(ctx, 'c', g->c, g->m, g->n, g->ldc, 1);
    if (status || packed) return status;
    return lemon__check_matrix(ctx, 'b', g->b, trans_b ? g->n : g->k, trans_b ? g->k : g->n, ldb, used);
}

/*  Without a context there is no place to keep a workspace: just what is needed is allocated and freed, often nothing. */
static lemon_status lemon__product_alone(const lemon__product *g) {
    const size_t bytes = g->path == LEMON__BY_TILES ? (size_t)(g->packed_a + g->packed_b) * sizeof(float) : 0;
    float *workspace = bytes ? (float *)lemon__malloc(NULL, bytes) : NULL;
    if (bytes && !workspace)
        return lemon__fail(NULL, LEMON_E_MEMORY, "lemon_sgemm: no memory for %lld bytes", (long long)bytes);
    lemon__product_run(g, workspace);
    lemon__free(NULL, workspace, bytes);
    return LEMON_OK;
}

LEMON_API lemon_status lemon_sgemm(lemon_ctx *ctx, int trans_a, int trans_b, int64_t m, int64_t n, int64_t k,
                                   float alpha, const float *a, int64_t lda, const float *b, int64_t ldb, float beta,
                                   float *c, int64_t ldc) {
    lemon__product g = lemon__product_of(lemon_ctx_isa(ctx), trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c,
                                         ldc);
    lemon_status status = lemon__check_product(ctx, &g, trans_a, lda, trans_b, ldb, 0);
    if (status || m == 0 || n == 0) return status;
    if (!ctx) {
        lemon__plan(&g);
        return lemon__product_alone(&g);
    }
    status = lemon__workspaces(ctx);
    if (!status) lemon__gemm_threads(ctx, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    return status;
}

/* ---- B packed once ---- */

struct lemon_packed {
    lemon_isa isa;
    int64_t n, k, padded_n, block_k;
    size_t bytes;
    float *data;                    /* [k blocks][panels][block_k][nr] */
};

typedef struct lemon__pack_job { const lemon_packed *packed; const lemon__product *g; } lemon__pack_job;

/*  One panel, in all blocks of k.  What no column fills is zero, though nobody reads it. */
static void lemon__pack_task(void *arg, int64_t index, int worker) {
    const lemon__pack_job *job = (const lemon__pack_job *)arg;
    const lemon__product *g = job->g;
    const int64_t nr = g->machine->nr, j = index * nr, each = g->block_k;
    for (int64_t p = 0; p < g->k; p += each) {
        float *out = job->packed->data + p * job->packed->padded_n + j * each;
        memset(out, 0, (size_t)(nr * each) * sizeof *out);
        g->machine->pack(out, nr, g->b + p * g->b_step + j * g->b_col, g->b_col, g->b_step, lemon__min(nr, g->n - j),
                         lemon__min(each, g->k - p));
    }
    (void)worker;
}

LEMON_API lemon_status lemon_sgemm_pack(lemon_ctx *ctx, int trans_b, int64_t n, int64_t k, const float *b, int64_t ldb,
                                        lemon_packed **packed) {
    lemon__product g = lemon__product_of(lemon_ctx_isa(ctx), 0, trans_b, 1, n, k, 1, b, k, b, ldb, 0, NULL, n);
    const int64_t nr = g.machine->nr;
    lemon_packed *v = NULL;
    lemon__pack_job job;
    if (!packed) return lemon__fail(ctx, LEMON_E_ARG, "lemon_sgemm_pack: packed is NULL, expected a place for the result");
    *packed = NULL;
    lemon_status status = lemon__check_sizes(ctx, &g);
    if (!status) status = lemon__check_matrix(ctx, 'b', b, trans_b ? n : k, trans_b ? k : n, ldb, 1);
    if (status) return status;
    if (lemon__max(n, k) <= (int64_t)(SIZE_MAX / 16))       /* so that no sum below wraps */
        v = (lemon_packed *)lemon__calloc(ctx, sizeof *v);
    if (v) {
        g.block_k = lemon__max(1, lemon__share(k, g.machine->kc, 1));
        v->isa = lemon_ctx_isa(ctx);
        v->n = n;
        v->k = k;
        v->block_k = g.block_k;
        v->padded_n = lemon__ceil_div(n, nr) * nr;
        if (lemon__mul((size_t)(lemon__ceil_div(k, g.block_k) * g.block_k) * sizeof(float), (size_t)v->padded_n,
                       &v->bytes))
            v->data = (float *)lemon__malloc(ctx, v->bytes);
    }
    if (!v || !v->data) {
        lemon__free(ctx, v, sizeof *v);
        return lemon__fail(ctx, LEMON_E_MEMORY, "lemon_sgemm_pack: no memory for %lld x %lld floats", (long long)k,
                           (long long)n);
    }
    job.packed = *packed = v;
    job.g = &g;
    lemon__parallel(ctx, lemon__ceil_div(n, nr), lemon__pack_task, &job);
    return LEMON_OK;
}

LEMON_API void lemon_packed_free(lemon_ctx *ctx, lemon_packed *packed) {
    if (!packed) return;
    lemon__free(ctx, packed->data, packed->bytes);
    lemon__free(ctx, packed, sizeof *packed);
}

LEMON_API lemon_status lemon_sgemm_packed(lemon_ctx *ctx, int trans_a, int64_t m, float alpha, const float *a,
                                          int64_t lda, const lemon_packed *packed, float beta, float *c, int64_t ldc) {
    lemon__product g;
    if (!packed || packed->isa != lemon_ctx_isa(ctx))
        return lemon__fail(ctx, LEMON_E_ARG, "lemon_sgemm_packed: B is %s, expected one packed for %s",
                           packed ? lemon_isa_name(packed->isa) : "NULL", lemon_isa_name(lemon_ctx_isa(ctx)));
    g = lemon__product_of(packed->isa, trans_a, LEMON__SMALL, m, packed->n, packed->k, alpha, a, lda, packed->data,
                          LEMON__SMALL ? packed->k : 0, beta, c, ldc);
    g.ready = LEMON__SMALL ? NULL : packed->data;       /* panels of one column are the rows of B transposed */
    g.ready_n = packed->padded_n;
    lemon_status status = lemon__check_product(ctx, &g, trans_a, lda, 0, 0, 1);
    if (status || m == 0 || g.n == 0) return status;
    if (ctx) status = lemon__workspaces(ctx);
    if (status) return status;
    lemon__plan(&g);
    if (!ctx) return lemon__product_alone(&g);
    lemon__product_threads(ctx, &g);
    return LEMON_OK;
}
/* ====================================================================================================================
   5  KERNELS

   What a transformer does besides multiplying matrices, each operation with its backward pass beside it.  Shape letters
   are those of chapter 0.

   A kernel gets one struct, lemon__op: inputs, output, and where gradients go.  The tape fills it from its rows, the
   inference session and the fusion walk fill it by hand, so that there is one implementation of each operation.
   The backward kernel gets dy = dLoss/dOutput and writes dLoss/dInput to dx[i]; it adds to what is there if add[i],
   overwrites it otherwise, and leaves inputs alone whose dx[i] is NULL.

   Threads take blocks of rows, heads or columns.  A block's borders depend on shapes only, and no two tasks add to the
   same number, so the bits are the same for any number of threads.

        rms_norm    x * gain / sqrt(mean x^2 + eps)                          Zhang and Sennrich 2019
        rope        pairs of channels turn by position * theta^(-2i/C)       Su et al. 2021
        attention   softmax(Q K^T / sqrt(C)) V, causal, H heads over K       Vaswani et al. 2017, Ainslie et al. 2023;
                    by tiles that keep no T x T matrix                       Dao et al. 2022
        swiglu      silu(gate) * up,  silu(g) = g / (1 + e^-g)               Shazeer 2020
        loss        cross-entropy, Kullback-Leibler (KL) from a teacher      Hinton et al. 2015

   SIMD: what takes exponentials is written for vectors, as in chapter 4.  All other bodies are plain C that compilers
   vectorise (no branches in inner loops, sums in 16 lanes), compiled twice: for any CPU, and for AVX2.  Without FMA both
   give the same bits: the plain one is the other's twin.
   ================================================================================================================== */

typedef struct lemon__op {
    lemon_tensor in[4];
    float *dx[4];
    int add[4];
    float *y;                       /* [rows, cols] */
    const float *dy;
    int64_t rows, cols;
    float *aux;                     /* what forward leaves for backward; size by lemon__op_info */
    float *scratch;                 /* working memory of this run only */
    int64_t scratch_each;           /* floats of it for each worker */
    const int32_t *ids;             /* tokens (embed), targets (loss) */
    int trans_a, trans_b;           /* matmul */
    int64_t index;                  /* mix: which weight */
    int64_t n_heads, kv_heads, head_dim;
    int64_t seq;                    /* rows of a sequence */
    int64_t pos, kv_rows; /* attention: tokens before these in the cache, and rows of the cache per sequence */
    int64_t window;                 /* attention: keys that a row sees, 0: all */
    float eps;
    const float *angles;            /* rope: [position, C/2, 2] cosines and sines */
    const struct lemon__loops *loops;       /* swiglu */
    lemon_loss_options loss;
    int gradient;                   /* 1: this run is backward's, which is when the loss makes gradients too */
} lemon__op;

static const float *lemon__in(const lemon__op *op, int i) { return (const float *)op->in[i].data; }

enum { LEMON__ROWS = 32, LEMON__COLS = 64, LEMON__LANES = 16 };     /* rows and columns of a task; lanes of a sum */

/*  Compiles a body for any CPU and for AVX2, and chooses by the context's ISA. */
#if LEMON__X86
#define LEMON__CLONES(name, params, args)                                            \
    static void name##_plain params { name##_body args; }                            \
    LEMON__TARGET("avx2") static void name##_avx2 params { name##_body args; }       \
    static void (*name(lemon_isa isa)) params { return isa == LEMON_ISA_SCALAR ? name##_plain : name##_avx2; }
#else
#define LEMON__CLONES(name, params, args)                                            \
    static void name##_plain params { name##_body args; }                            \
    static void (*name(lemon_isa isa)) params { (void)isa; return name##_plain; }
#endif

/* ---- exp, softmax and SwiGLU, written once for vectors of 16, 8, 4 and 1 numbers ----
        V is m512, m256, neon or wasm as in chapter 4, or `one`: plain C, the twin of the others, which also does what is left
        at the end of a row.  All sums of products are asked for as fused operations or kept apart by a store, so that
        no compiler may round them otherwise. ---- */

LEMON__INLINE float lemon__whole_one(float n) {         /* k for n = 1.5 * 2^23 + k: by the bits, for x87 keeps more of n */
    int32_t bits;
    memcpy(&bits, &n, 4);
    return (float)(bits - 0x4b400000);
}

LEMON__INLINE float lemon__pow2_one(float n) {          /* 2^k for that n */
    uint32_t bits;
    memcpy(&bits, &n, 4);
    bits = (bits - 0x4b400000u + 127u) << 23;       /* NaN's come to something: the polynomial is NaN already */
    memcpy(&n, &bits, 4);
    return n;
}

#define LEMON__VEC_one float
#define LEMON__TARGET_one
#define LEMON__SET_one(x) ((float)(x))
#define LEMON__GET_one(x) (*(x))
#define LEMON__PUT_one(x, v) (*(x) = (v))
#define LEMON__ADD_one(a, b) ((a) + (b))
#define LEMON__ADD_m256 _mm256_add_ps
#define LEMON__ADD_m512 _mm512_add_ps
#define LEMON__ADD_neon vaddq_f32
#define LEMON__ADD_wasm wasm_f32x4_add
#define LEMON__SUB_one(a, b) ((a) - (b))
#define LEMON__SUB_m256 _mm256_sub_ps
#define LEMON__SUB_m512 _mm512_sub_ps
#define LEMON__SUB_neon vsubq_f32
#define LEMON__SUB_wasm wasm_f32x4_sub
#define LEMON__MUL_one(a, b) ((a) * (b))
#define LEMON__DIV_one(a, b) ((a) / (b))
#define LEMON__DIV_m256 _mm256_div_ps
#define LEMON__DIV_m512 _mm512_div_ps
#define LEMON__DIV_neon(a, b) ((a) / (b))
#define LEMON__DIV_wasm wasm_f32x4_div
#define LEMON__FMA_one(a, b, c) ((a) * (b) + (c))
#define LEMON__MAX_one(a, b) ((b) < (a) ? (a) : (b))    /* NaN in b stays, here and in the vectors */
#define LEMON__MAX_m256 _mm256_max_ps
#define LEMON__MAX_m512(a, b) _mm512_maskz_max_ps(0xffff, a, b)    /* gcc 12 warns of _mm512_max_ps' own header */
#define LEMON__MAX_neon vmaxq_f32
#define LEMON__MAX_wasm(a, b) wasm_f32x4_pmax(b, a)
#define LEMON__MIN_one(a, b) ((b) > (a) ? (a) : (b))
#define LEMON__MIN_m256 _mm256_min_ps
#define LEMON__MIN_m512(a, b) _mm512_maskz_min_ps(0xffff, a, b)
#define LEMON__MIN_neon vminq_f32
#define LEMON__MIN_wasm(a, b) wasm_f32x4_pmin(b, a)
#define LEMON__WHOLE_one lemon__whole_one
#define LEMON__WHOLE_m256(n) _mm256_sub_ps(n, _mm256_set1_ps(12582912.0f))
#define LEMON__WHOLE_m512(n) _mm512_sub_ps(n, _mm512_set1_ps(12582912.0f))
#define LEMON__WHOLE_neon(n) vsubq_f32(n, vdupq_n_f32(12582912.0f))
#define LEMON__WHOLE_wasm(n) wasm_f32x4_sub(n, wasm_f32x4_splat(12582912.0f))
#define LEMON__POW2_one lemon__pow2_one
#define LEMON__POW2_m256(n) _mm256_castsi256_ps(_mm256_slli_epi32( \
    _mm256_add_epi32(_mm256_castps_si256(n), _mm256_set1_epi32(127 - 0x4b400000)), 23))
#define LEMON__POW2_m512(n) _mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xffff, \
    _mm512_add_epi32(_mm512_castps_si512(n), _mm512_set1_epi32(127 - 0x4b400000)), 23))
#define LEMON__POW2_neon(n) vreinterpretq_f32_s32(vshlq_n_s32( \
    vaddq_s32(vreinterpretq_s32_f32(n), vdupq_n_s32(127 - 0x4b400000)), 23))
#define LEMON__POW2_wasm(n) wasm_i32x4_shl(wasm_i32x4_add(n, wasm_i32x4_splat(127 - 0x4b400000)), 23)

/*  e^x by x = n ln2 + r, |r| <= ln2 / 2, a polynomial for e^r (Cephes' expf, Moshier 1992) and n put into the exponent:
    relative error below 2e-7.  x is held within -87 and 87, where results are normal numbers; NaN stays NaN.  Adding
    1.5 * 2^23 rounds to a whole number, which stands in the low bits; ln2 is taken off in two parts, the first in few bits. */
#define LEMON__EXP(V) \
LEMON__TARGET_##V LEMON__INLINE LEMON__VEC_##V lemon__exp_##V(LEMON__VEC_##V x) { \
    LEMON__VEC_##V n, r, p; \
    x = LEMON__MIN_##V(LEMON__SET_##V(87.0f), LEMON__MAX_##V(LEMON__SET_##V(-87.0f), x)); \
    n = LEMON__FMA_##V(x, LEMON__SET_##V(1.44269504f), LEMON__SET_##V(12582912.0f)); \
    p = LEMON__WHOLE_##V(n); \
    r = LEMON__FMA_##V(p, LEMON__SET_##V(-0.693359375f), x); \
    r = LEMON__FMA_##V(p, LEMON__SET_##V(2.12194440e-4f), r); \
    p = LEMON__FMA_##V(r, LEMON__SET_##V(1.9875691500e-4f), LEMON__SET_##V(1.3981999507e-3f)); \
    p = LEMON__FMA_##V(p, r, LEMON__SET_##V(8.3334519073e-3f)); \
    p = LEMON__FMA_##V(p, r, LEMON__SET_##V(4.1665795894e-2f)); \
    p = LEMON__FMA_##V(p, r, LEMON__SET_##V(1.6666665459e-1f)); \
    p = LEMON__FMA_##V(p, r, LEMON__SET_##V(5.0000001201e-1f)); \
    p = LEMON__FMA_##V(p, LEMON__MUL_##V(r, r), r); \
    return LEMON__MUL_##V(LEMON__ADD_##V(p, LEMON__SET_##V(1.0f)), LEMON__POW2_##V(n)); \
}

/*  The lanes of a vector, added in order. */
#define LEMON__TOTAL(V) \
LEMON__TARGET_##V LEMON__INLINE float lemon__total_##V(LEMON__VEC_##V x) { \
    float lane[sizeof(x) / 4], sum = 0.0f; \
    size_t i; \
    LEMON__PUT_##V(lane, x); \
    for (i = 0; i < sizeof(x) / 4; i++) sum += lane[i]; \
    return sum; \
}

/*  The largest of n >= 1 numbers. */
#define LEMON__MAX_OF(V) \
LEMON__TARGET_##V static float lemon__max_##V(const float *x, int64_t n) { \
    enum { lanes = sizeof(LEMON__VEC_##V) / 4 }; \
    LEMON__VEC_##V a = LEMON__SET_##V(x[0]), b = a; \
    float lane[lanes], top; \
    int64_t i; \
    for (i = 0; i + 2 * lanes <= n; i += 2 * lanes) { \
        a = LEMON__MAX_##V(LEMON__GET_##V(x + i), a); \
        b = LEMON__MAX_##V(LEMON__GET_##V(x + i + lanes), b); \
    } \
    LEMON__PUT_##V(lane, LEMON__MAX_##V(a, b)); \
    for (top = lane[0]; i < n; i++) top = LEMON__MAX_one(x[i], top); \
    for (i = 1; i < lanes; i++) top = LEMON__MAX_one(lane[i], top); \
    return top; \
}

/*  x becomes e^(x * scale - shift); returns the sum.  With the largest as shift none overflows, and softmax is the same. */
#define LEMON__EXP_SUM(V) \
LEMON__TARGET_##V static float lemon__exp_sum_##V(float *x, int64_t n, float scale, float shift) { \
    enum { lanes = sizeof(LEMON__VEC_##V) / 4 }; \
    LEMON__VEC_##V a = LEMON__SET_##V(0.0f), b = a, u, w; \
    int64_t i; \
    float sum; \
    for (i = 0; i + 2 * lanes <= n; i += 2 * lanes) { \
        u = lemon__exp_##V(LEMON__FMA_##V(LEMON__GET_##V(x + i), LEMON__SET_##V(scale), LEMON__SET_##V(-shift))); \
        w = lemon__exp_##V(LEMON__FMA_##V(LEMON__GET_##V(x + i + lanes), LEMON__SET_##V(scale), LEMON__SET_##V(-shift))); \
        LEMON__PUT_##V(x + i, u); \
        LEMON__PUT_##V(x + i + lanes, w); \
        a = LEMON__ADD_##V(a, u); \
        b = LEMON__ADD_##V(b, w); \
    } \
    sum = lemon__total_##V(LEMON__ADD_##V(a, b)); \
    for (; i < n; i++) sum += x[i] = lemon__exp_one(x[i] * scale - shift); \
    return sum; \
}

/*  Softmax down the columns of s [n, LEMON__ROWS], without the division: top and sum of each column come out. */
#define LEMON__SOFTMAX_COLUMNS(V) \
LEMON__TARGET_##V static void lemon__softmax_columns_##V(float *s, int64_t n, float *top, float *sum) { \
    enum { lanes = sizeof(LEMON__VEC_##V) / 4 }; \
    int64_t j, c; \
    for (c = 0; c < LEMON__ROWS; c += lanes) { \
        LEMON__VEC_##V high = LEMON__GET_##V(s + c), total = LEMON__SET_##V(0.0f), x; \
        for (j = 1; j < n; j++) high = LEMON__MAX_##V(high, LEMON__GET_##V(s + j * LEMON__ROWS + c)); \
        for (j = 0; j < n; j++) { \
            x = lemon__exp_##V(LEMON__SUB_##V(LEMON__GET_##V(s + j * LEMON__ROWS + c), high)); \
            LEMON__PUT_##V(s + j * LEMON__ROWS + c, x); \
            total = LEMON__ADD_##V(total, x); \
        } \
        LEMON__PUT_##V(top + c, high); \
        LEMON__PUT_##V(sum + c, total); \
    } \
}

/*  p from scores and log-sum-exps of the columns, and ds = scale * p * (dp - d) in place of dp. */
#define LEMON__SOFTMAX_BACK(V) \
LEMON__TARGET_##V static void lemon__softmax_back_##V(float *p, float *ds, int64_t n, const float *lse, const float *d, \
                                                      float scale) { \
    enum { lanes = sizeof(LEMON__VEC_##V) / 4 }; \
    int64_t j, c; \
    for (c = 0; c < LEMON__ROWS; c += lanes) { \
        LEMON__VEC_##V shift = LEMON__GET_##V(lse + c), off = LEMON__GET_##V(d + c), x, y; \
        for (j = c; j < n * LEMON__ROWS; j += LEMON__ROWS) { \
            x = lemon__exp_##V(LEMON__SUB_##V(LEMON__GET_##V(p + j), shift)); \
            y = LEMON__MUL_##V(LEMON__SET_##V(scale), LEMON__SUB_##V(LEMON__GET_##V(ds + j), off)); \
            LEMON__PUT_##V(p + j, x); \
            LEMON__PUT_##V(ds + j, LEMON__MUL_##V(x, y)); \
        } \
    } \
}

/*  silu(g) * u with silu(g) = g s, s = 1 / (1 + e^-g) = e^g / (1 + e^g). */
#define LEMON__SWIGLU_LOOPS(V) \
LEMON__TARGET_##V LEMON__INLINE LEMON__VEC_##V lemon__sigmoid_##V(LEMON__VEC_##V g) { \
    g = lemon__exp_##V(g); \
    return LEMON__DIV_##V(g, LEMON__ADD_##V(LEMON__SET_##V(1.0f), g)); \
} \
LEMON__TARGET_##V static void lemon__swiglu_##V(const float *gate, const float *up, float *y, int64_t n) { \
    enum { lanes = sizeof(LEMON__VEC_##V) / 4 }; \
    int64_t i; \
    for (i = 0; i + lanes <= n; i += lanes) { \
        LEMON__VEC_##V g = LEMON__GET_##V(gate + i); \
        LEMON__PUT_##V(y + i, LEMON__MUL_##V(LEMON__MUL_##V(g, lemon__sigmoid_##V(g)), LEMON__GET_##V(up + i))); \
    } \
    for (; i < n; i++) y[i] = gate[i] * lemon__sigmoid_one(gate[i]) * up[i]; \
}

/*  For n numbers dgate += dy * up * silu'(gate), silu' = s + silu (1 - s), and dup += dy * silu(gate). */
#define LEMON__SWIGLU_BACK(V) \
LEMON__TARGET_##V static int64_t lemon__swiglu_back_##V(const float *gate, const float *up, const float *dy, \
                                                        float *dgate, float *dup, int64_t i, int64_t n) { \
    enum { lanes = sizeof(LEMON__VEC_##V) / 4 }; \
    for (; i + lanes <= n; i += lanes) { \
        LEMON__VEC_##V g = LEMON__GET_##V(gate + i), d = LEMON__GET_##V(dy + i), s = lemon__sigmoid_##V(g), silu; \
        silu = LEMON__MUL_##V(g, s); \
        s = LEMON__FMA_##V(silu, LEMON__SUB_##V(LEMON__SET_##V(1.0f), s), s); \
        if (dgate) \
            LEMON__PUT_##V(dgate + i, LEMON__FMA_##V(LEMON__MUL_##V(d, LEMON__GET_##V(up + i)), s, \
                                                     LEMON__GET_##V(dgate + i))); \
        if (dup) LEMON__PUT_##V(dup + i, LEMON__FMA_##V(d, silu, LEMON__GET_##V(dup + i))); \
    } \
    return i; \
}

/*  For a row of logits z and the teacher's q at temperature 1 / inverse: q becomes e^(q inverse - top_q), and the sums of
    e^(z inverse - top_z), of that, and of that times (q - z) inverse come out. */
#define LEMON__DISTILL_SUMS(V) \
LEMON__TARGET_##V static void lemon__distill_sums_##V(const float *z, float *q, int64_t n, float inverse, float top_z, \
                                                      float top_q, float *sums) { \
    enum { lanes = sizeof(LEMON__VEC_##V) / 4 }; \
    LEMON__VEC_##V a = LEMON__SET_##V(0.0f), b = a, cross = a, x, y, e; \
    int64_t i; \
    for (i = 0; i + lanes <= n; i += lanes) { \
        x = LEMON__GET_##V(z + i); \
        y = LEMON__GET_##V(q + i); \
        e = lemon__exp_##V(LEMON__FMA_##V(y, LEMON__SET_##V(inverse), LEMON__SET_##V(-top_q))); \
        LEMON__PUT_##V(q + i, e); \
        b = LEMON__ADD_##V(b, e); \
        cross = LEMON__FMA_##V(e, LEMON__MUL_##V(LEMON__SUB_##V(y, x), LEMON__SET_##V(inverse)), cross); \
        e = lemon__exp_##V(LEMON__FMA_##V(x, LEMON__SET_##V(inverse), LEMON__SET_##V(-top_z))); \
        a = LEMON__ADD_##V(a, LEMON__MAX_##V(LEMON__SET_##V(0.0f), e)); \
    } \
    sums[0] = lemon__total_##V(a); \
    sums[1] = lemon__total_##V(b); \
    sums[2] = lemon__total_##V(cross); \
    for (; i < n; i++) { \
        const float t = q[i]; \
        sums[0] += lemon__exp_one(z[i] * inverse - top_z); \
        sums[1] += q[i] = lemon__exp_one(t * inverse - top_q); \
        sums[2] += q[i] * ((t - z[i]) * inverse); \
    } \
}

/*  q becomes soft * (e^(z inverse - log_z) - q / sum_q). */
#define LEMON__DISTILL_SLOPE(V) \
LEMON__TARGET_##V static void lemon__distill_slope_##V(const float *z, float *q, int64_t n, float inverse, float log_z, \
                                                       float sum_q, float soft) { \
    enum { lanes = sizeof(LEMON__VEC_##V) / 4 }; \
    const float share = -1.0f / sum_q; \
    int64_t i; \
    for (i = 0; i + lanes <= n; i += lanes) { \
        LEMON__VEC_##V e = lemon__exp_##V(LEMON__FMA_##V(LEMON__GET_##V(z + i), LEMON__SET_##V(inverse), \
                                                         LEMON__SET_##V(-log_z))); \
        e = LEMON__FMA_##V(LEMON__GET_##V(q + i), LEMON__SET_##V(share), LEMON__MAX_##V(LEMON__SET_##V(0.0f), e)); \
        LEMON__PUT_##V(q + i, LEMON__MUL_##V(LEMON__SET_##V(soft), e)); \
    } \
    for (; i < n; i++) q[i] = soft * (lemon__exp_one(z[i] * inverse - log_z) + q[i] * share); \
}

#define LEMON__LOOPS(V) \
LEMON__EXP(V) LEMON__TOTAL(V) LEMON__MAX_OF(V) LEMON__EXP_SUM(V) LEMON__SOFTMAX_COLUMNS(V) LEMON__SOFTMAX_BACK(V) \
LEMON__SWIGLU_LOOPS(V) LEMON__SWIGLU_BACK(V) LEMON__DISTILL_SUMS(V) LEMON__DISTILL_SLOPE(V)
LEMON__LOOPS(one)
LEMON__VECTORS(LEMON__LOOPS)

typedef struct lemon__loops {
    float (*largest)(const float *x, int64_t n);
    float (*exp_sum)(float *x, int64_t n, float scale, float shift);
    void (*softmax_columns)(float *s, int64_t n, float *top, float *sum);
    void (*softmax_back)(float *p, float *ds, int64_t n, const float *lse, const float *d, float scale);
    void (*swiglu)(const float *gate, const float *up, float *y, int64_t n);
    int64_t (*swiglu_back)(const float *gate, const float *up, const float *dy, float *dgate, float *dup, int64_t i,
                           int64_t n);
    void (*distill_sums)(const float *z, float *q, int64_t n, float inverse, float top_z, float top_q, float *sums);
    void (*distill_slope)(const float *z, float *q, int64_t n, float inverse, float log_z, float sum_q, float soft);
} lemon__loops;

#if LEMON__SMALL
#define LEMON__LOOPS_TABLE(V) static const lemon__loops lemon__loops_##V = { \
    lemon__max_##V, lemon__exp_sum_##V, NULL, NULL, lemon__swiglu_##V, NULL, NULL, NULL};
#else
#define LEMON__LOOPS_TABLE(V) static const lemon__loops lemon__loops_##V = { \
    lemon__max_##V, lemon__exp_sum_##V, lemon__softmax_columns_##V, lemon__softmax_back_##V, lemon__swiglu_##V, \
    lemon__swiglu_back_##V, lemon__distill_sums_##V, lemon__distill_slope_##V};
#endif
LEMON__LOOPS_TABLE(one)
LEMON__VECTORS(LEMON__LOOPS_TABLE)

#define LEMON__LOOPS_OF(V) if (isa == LEMON__ISA_##V) return &lemon__loops_##V;
static const lemon__loops *lemon__loops_of(lemon_isa isa) {
    LEMON__VECTORS(LEMON__LOOPS_OF)
    (void)isa;
    return &lemon__loops_one;
}

/* ---- sums ---- */

LEMON__INLINE float lemon__lane_sum(const float *lane) {
    float a[8], b[4];
    for (int i = 0; i < 8; i++) a[i] = lane[i] + lane[i + 8];
    for (int i = 0; i < 4; i++) b[i] = a[i] + a[i + 4];
    return (b[0] + b[2]) + (b[1] + b[3]);
}

LEMON__INLINE float lemon__dot(const float *a, const float *b, int64_t n) {
    float lane[LEMON__LANES] = {0};
    int64_t i;
    for (i = 0; i + LEMON__LANES <= n; i += LEMON__LANES)
        for (int64_t j = 0; j < LEMON__LANES; j++) lane[j] += a[i + j] * b[i + j];
    for (int64_t j = 0; i < n; i++, j++) lane[j] += a[i] * b[i];
    return lemon__lane_sum(lane);
}

/* ---- running a body over bands: blocks of rows or of columns, from ... to - 1, each a task ---- */

typedef void (*lemon__band)(const lemon__op *op, int64_t from, int64_t to);
typedef struct lemon__bands { const lemon__op *op; lemon__band run; int64_t total, size; } lemon__bands;

static void lemon__band_task(void *arg, int64_t index, int worker) {
    const lemon__bands *blocks = (const lemon__bands *)arg;
    int64_t from = index * blocks->size;
    (void)worker;
    blocks->run(blocks->op, from, lemon__min(from + blocks->size, blocks->total));
}

static void lemon__over(lemon_ctx *ctx, const lemon__op *op, lemon__band run, int64_t total, int64_t size) {
    lemon__bands blocks = {op, run, total, size};
    lemon__parallel(ctx, lemon__ceil_div(total, size), lemon__band_task, &blocks);
}

/*  A body of (op, from, to), compiled as LEMON__CLONES has it; and an operation that runs it over blocks of rows. */
#define LEMON__BAND(name) LEMON__CLONES(name, (const lemon__op *op, int64_t from, int64_t to), (op, from, to))
#define LEMON__OVER_ROWS(operation, name) \
LEMON__BAND(name) \
static void operation(lemon_ctx *ctx, const lemon__op *op) { \
    lemon__over(ctx, op, name(ctx->isa), op->rows, LEMON__ROWS); \
}

/* ---- embedding: y[r] = table[ids[r]].  Backward: each task owns a range of ids and looks through all rows. ---- */

LEMON__INLINE void lemon__embed_rows_body(const lemon__op *op, int64_t from, int64_t to) {
    for (; from < to; from++) lemon_row_to_f32(&op->in[0], op->ids[from], op->y + from * op->cols);
}
LEMON__OVER_ROWS(lemon__embed_forward, lemon__embed_rows)

static void lemon__embed_back_body(const lemon__op *op, int64_t from, int64_t to) {
    int64_t n = op->cols;
    if (!op->add[0]) memset(op->dx[0] + from * n, 0, (size_t)((to - from) * n) * sizeof(float));
    for (int64_t r = 0; r < op->rows; r++) {
        float *d = op->dx[0] + op->ids[r] * n;
        if (op->ids[r] < from || op->ids[r] >= to) continue;
        for (int64_t c = 0; c < n; c++) d[c] += op->dy[r * n + c];
    }
}

static void lemon__embed_backward(lemon_ctx *ctx, const lemon__op *op) {
    int64_t vocab = op->in[0].rows;
    if (op->dx[0]) lemon__over(ctx, op, lemon__embed_back_body, vocab, lemon__ceil_div(vocab, 8));
}

/* ---- matrix product, and its two gradients, which are matrix products ----
        y = A B  has  dA = dY B^T  and  dB = A^T dY;  with transposes the same, each stored the way its matrix is. ---- */

typedef struct lemon__weight_job {
    lemon_ctx *ctx;
    const lemon_tensor *w;
    const float *x;
    float *y;
    int64_t rows, block;
} lemon__weight_job;

static void lemon__weight_task(void *arg, int64_t index, int worker) {
    const lemon__weight_job *job = (const lemon__weight_job *)arg;
    float *workspace = lemon__workspace(job->ctx, worker), *rows = workspace + lemon__gemm_floats(job->ctx->isa);
    int64_t k = job->w->cols, from = index * job->block, n = lemon__min(job->block, job->w->rows - from);
    const int plain = job->w->dtype == LEMON_F32;           /* only small builds send those here */
    for (int64_t i = 0; i < n && !plain; i++) lemon_row_to_f32(job->w, from + i, rows + i * k);
    lemon__gemm(job->ctx->isa, workspace, 0, 1, job->rows, n, k, 1.0f, job->x, k,
                plain ? (const float *)job->w->data + from * k : rows, k, 0.0f, job->y + from, job->w->rows);
}

/*  y[rows, out] = x[rows, in] * W^T for W [out, in] of any storage type.  Other types than f32 are decoded a few rows
    at a time into the worker's buffer, so the matrix is never expanded as a whole. */
static void lemon__weight_product(lemon_ctx *ctx, int64_t rows, const float *x, const lemon_tensor *w, float *y) {
    lemon__weight_job job = {ctx, w, x, y, rows, lemon__max(1, lemon__min(64, LEMON__DECODE_FLOATS / w->cols))};
    if (!LEMON__SMALL && w->dtype == LEMON_F32) {
        lemon__gemm_threads(ctx, 0, 1, rows, w->rows, w->cols, 1.0f, x, w->cols, (const float *)w->data, w->cols, 0.0f,
                            y, w->rows);
        return;
    }
    if (lemon__octets_product(ctx, rows, x, w, y)) return;
    if (!LEMON__SMALL && lemon__gemm_stored(ctx, rows, x, w, y)) return;
    ctx->flops += 2.0 * (double)rows * (double)w->rows * (double)w->cols;
    lemon__parallel(ctx, lemon__ceil_div(w->rows, job.block), lemon__weight_task, &job);
}

static void lemon__matmul_forward(lemon_ctx *ctx, const lemon__op *op) {
    const lemon_tensor *a = &op->in[0], *b = &op->in[1];
    int64_t k = op->trans_a ? a->rows : a->cols;
    if (op->trans_b && !op->trans_a) lemon__weight_product(ctx, op->rows, (const float *)a->data, b, op->y);
    else
        lemon__gemm_threads(ctx, op->trans_a, op->trans_b, op->rows, op->cols, k, 1.0f, (const float *)a->data, a->cols,
                            (const float *)b->data, b->cols, 0.0f, op->y, op->cols);
}

static void lemon__matmul_backward(lemon_ctx *ctx, const lemon__op *op) {
    const lemon_tensor *ta = &op->in[0], *tb = &op->in[1];
    const float *a = (const float *)ta->data, *b = (const float *)tb->data, *dy = op->dy;
    int64_t m = op->rows, n = op->cols, k = op->trans_a ? ta->rows : ta->cols;
    float beta_a = op->add[0] ? 1.0f : 0.0f, beta_b = op->add[1] ? 1.0f : 0.0f;
    if (op->dx[0] && !op->trans_a)
        lemon__gemm_threads(ctx, 0, !op->trans_b, m, k, n, 1.0f, dy, n, b, tb->cols, beta_a, op->dx[0], k);
    if (op->dx[0] && op->trans_a)
        lemon__gemm_threads(ctx, op->trans_b, 1, k, m, n, 1.0f, b, tb->cols, dy, n, beta_a, op->dx[0], m);
    if (op->dx[1] && !op->trans_b)
        lemon__gemm_threads(ctx, !op->trans_a, 0, k, n, m, 1.0f, a, ta->cols, dy, n, beta_b, op->dx[1], n);
    if (op->dx[1] && op->trans_b)
        lemon__gemm_threads(ctx, 1, op->trans_a, n, k, m, 1.0f, dy, n, a, ta->cols, beta_b, op->dx[1], k);
}

/* ---- residual: y = a + b; both get dy ---- */

LEMON__INLINE void lemon__add_rows_body(const lemon__op *op, int64_t from, int64_t to) {
    const float *a = lemon__in(op, 0), *b = lemon__in(op, 1);
    float *y = op->y;
    for (int64_t i = from * op->cols; i < to * op->cols; i++) y[i] = a[i] + b[i];
}
LEMON__OVER_ROWS(lemon__add_forward, lemon__add_rows)

/*  The gradient of an input that was multiplied by w: some rows of w * dy. */
LEMON__INLINE void lemon__pass(const lemon__op *op, int side, float w, int64_t from, int64_t to) {
    const float *dy = op->dy;
    float *d = op->dx[side];
    if (d == NULL) return;
    if (op->add[side]) for (int64_t i = from * op->cols; i < to * op->cols; i++) d[i] += w * dy[i];
    else if (w != 1.0f || d != dy) for (int64_t i = from * op->cols; i < to * op->cols; i++) d[i] = w * dy[i];
}

LEMON__INLINE void lemon__pass_rows_body(const lemon__op *op, int64_t from, int64_t to) {
    for (int side = 0; side < 2; side++) lemon__pass(op, side, 1.0f, from, to);
}
LEMON__OVER_ROWS(lemon__add_backward, lemon__pass_rows)

/* ---- bias: y = x + b, the row b added to each;  dx = dY, db the sum of its rows ---- */

LEMON__INLINE void lemon__bias_rows_body(const lemon__op *op, int64_t from, int64_t to) {
    const int64_t n = op->cols;
    for (; from < to; from++)
        for (int64_t i = 0; i < n; i++) op->y[from * n + i] = lemon__in(op, 0)[from * n + i] + lemon__in(op, 1)[i];
}
LEMON__OVER_ROWS(lemon__bias_forward, lemon__bias_rows)

LEMON__INLINE void lemon__bias_back_cols_body(const lemon__op *op, int64_t from, int64_t to) {
    float *db = op->dx[1];
    int64_t n = op->cols;
    if (!op->add[1]) memset(db + from, 0, (size_t)(to - from) * sizeof *db);
    for (int64_t r = 0; r < op->rows; r++)
        for (int64_t i = from; i < to; i++) db[i] += op->dy[r * n + i];
}
LEMON__BAND(lemon__bias_back_cols)

static void lemon__bias_backward(lemon_ctx *ctx, const lemon__op *op) {
    lemon__op pass = *op;
    if (op->dx[1]) lemon__over(ctx, op, lemon__bias_back_cols(ctx->isa), op->cols, LEMON__COLS);
    pass.dx[1] = NULL;
    lemon__add_backward(ctx, &pass);
}

/* ---- the layer operator, one term at a time: y = a + w[index] * x  (a may be absent);  inputs x, w, a ---- */

LEMON__INLINE void lemon__mix_rows_body(const lemon__op *op, int64_t from, int64_t to) {
    const float *x = lemon__in(op, 0), *a = lemon__in(op, 2);
    float w = lemon__in(op, 1)[op->index], *y = op->y;
    if (a) for (int64_t i = from * op->cols; i < to * op->cols; i++) y[i] = a[i] + w * x[i];
    else for (int64_t i = from * op->cols; i < to * op->cols; i++) y[i] = w * x[i];
}
LEMON__OVER_ROWS(lemon__mix_forward, lemon__mix_rows)

LEMON__INLINE void lemon__mix_back_rows_body(const lemon__op *op, int64_t from, int64_t to) {
    lemon__pass(op, 0, lemon__in(op, 1)[op->index], from, to);
    lemon__pass(op, 2, 1.0f, from, to);
}
LEMON__BAND(lemon__mix_back_rows)

/*  The weight's gradient is one number, <dy, x>: summed row by row in float64, in order. */
static void lemon__mix_backward(lemon_ctx *ctx, const lemon__op *op) {
    const float *x = lemon__in(op, 0);
    double sum = 0.0;
    lemon__over(ctx, op, lemon__mix_back_rows(ctx->isa), op->rows, LEMON__ROWS);
    if (op->dx[1] == NULL) return;
    if (!op->add[1]) memset(op->dx[1], 0, (size_t)op->in[1].cols * sizeof(float));
    for (int64_t r = 0; r < op->rows; r++) sum += (double)lemon__dot(op->dy + r * op->cols, x + r * op->cols, op->cols);
    op->dx[1][op->index] += (float)sum;
}

/* ---- RMSNorm:  y_i = gain_i x_i / rms,  rms = sqrt(mean x^2 + eps).  aux keeps 1 / rms of each row.
        With s = sum dy_i gain_i x_i:  dx_i = dy_i gain_i / rms - x_i s / (D rms^3),  dgain_i = sum_rows dy_i x_i / rms ---- */

LEMON__INLINE void lemon__norm_rows_body(const lemon__op *op, int64_t from, int64_t to) {      /* exercise 6 */
    const float *gain = lemon__in(op, 1);
    int64_t i, n = op->cols;
    for (; from < to; from++) {
        const float *x = lemon__in(op, 0) + from * n;
        float *y = op->y + from * n, inverse = 1.0f / sqrtf(lemon__dot(x, x, n) / (float)n + op->eps);
        for (i = 0; i < n; i++) y[i] = x[i] * inverse * gain[i];
        if (op->aux) op->aux[from] = inverse;
    }
}
LEMON__OVER_ROWS(lemon__norm_forward, lemon__norm_rows)

LEMON__INLINE void lemon__norm_back_rows_body(const lemon__op *op, int64_t from, int64_t to) {      /* exercise 8 */
    const float *gain = lemon__in(op, 1);
    int64_t i, j, n = op->cols;
    for (; from < to; from++) {
        const float *x = lemon__in(op, 0) + from * n, *dy = op->dy + from * n;
        float *dx = op->dx[0] + from * n, inverse = op->aux[from], pull, lane[LEMON__LANES] = {0};
        for (i = 0; i + LEMON__LANES <= n; i += LEMON__LANES)
            for (j = 0; j < LEMON__LANES; j++) lane[j] += dy[i + j] * gain[i + j] * x[i + j];
        for (j = 0; i < n; i++, j++) lane[j] += dy[i] * gain[i] * x[i];
        pull = lemon__lane_sum(lane) * inverse * inverse * inverse / (float)n;
        if (op->add[0]) for (i = 0; i < n; i++) dx[i] += dy[i] * gain[i] * inverse - x[i] * pull;
        else for (i = 0; i < n; i++) dx[i] = dy[i] * gain[i] * inverse - x[i] * pull;
    }
}
LEMON__BAND(lemon__norm_back_rows)

LEMON__INLINE void lemon__norm_back_cols_body(const lemon__op *op, int64_t from, int64_t to) {
    const float *x = lemon__in(op, 0);
    float *dgain = op->dx[1];
    int64_t n = op->cols;
    if (!op->add[1]) memset(dgain + from, 0, (size_t)(to - from) * sizeof(float));
    for (int64_t r = 0; r < op->rows; r++)
        for (int64_t i = from; i < to; i++) dgain[i] += op->dy[r * n + i] * x[r * n + i] * op->aux[r];
}
LEMON__BAND(lemon__norm_back_cols)

static void lemon__norm_backward(lemon_ctx *ctx, const lemon__op *op) {
    if (op->dx[0]) lemon__over(ctx, op, lemon__norm_back_rows(ctx->isa), op->rows, LEMON__ROWS);
    if (op->dx[1]) lemon__over(ctx, op, lemon__norm_back_cols(ctx->isa), op->cols, LEMON__COLS);
}

/* ---- RoPE: in each head, channels 2i and 2i+1 are a plane that turns by position * theta^(-2i/C), or slower where that
        is scaled.  A turn's backward is the turn back, but for the magnitude, which stays. ---- */

#define LEMON__TWO_PI 6.283185307179586476925

/*  The plane that turns so many times within the old context: a fraction. */
static double lemon__rope_plane(const lemon_config *c, float turns) {
    return c->head_dim * log(c->rope_original / ((double)turns * LEMON__TWO_PI)) / (2.0 * log((double)c->rope_theta));
}

/*  By how much plane i turns slower than without scaling: between 1 and rope_factor. */
static double lemon__rope_slower(const lemon_config *c, int64_t i) {
    double factor = (double)c->rope_factor, fast = 0.0, low, high;      /* fast: how much of its speed it keeps */
    if (c->rope_scaling == LEMON_ROPE_PLAIN) return 1.0;
    if (c->rope_scaling == LEMON_ROPE_LLAMA3) {     /* linear in the turns */
        double turns = c->rope_original * pow((double)c->rope_theta, -2.0 * (double)i / c->head_dim) / LEMON__TWO_PI;
        fast = (turns - (double)c->rope_slow) / ((double)c->rope_fast - (double)c->rope_slow);
    } else if (c->rope_scaling == LEMON_ROPE_YARN) {        /* linear in the planes */
        low = fmax(0.0, floor(lemon__rope_plane(c, c->rope_fast)));
        high = fmin(c->head_dim - 1.0, ceil(lemon__rope_plane(c, c->rope_slow)));
        fast = 1.0 - ((double)i - low) / fmax(0.001, high - low);
    }
    fast = fast < 0.0 ? 0.0 : fast > 1.0 ? 1.0 : fast;
    return 1.0 / ((1.0 - fast) / factor + fast);
}

/*  The cosines and sines of positions 0 ... seq-1: [seq, C/2, 2]. */
static void lemon__rope_angles(float *angles, int64_t seq, const lemon_config *c) {
    double size = c->rope_scaling == LEMON_ROPE_YARN ? (double)c->rope_magnitude : 1.0;
    int64_t planes = c->head_dim / 2;
    for (int64_t i = 0; i < planes; i++) {
        double speed = pow((double)c->rope_theta, -2.0 * (double)i / c->head_dim) / lemon__rope_slower(c, i);
        for (int64_t t = 0; t < seq; t++) {
            float *pair = angles + (t * planes + i) * 2;
            pair[0] = (float)(size * cos((double)t * speed));
            pair[1] = (float)(size * sin((double)t * speed));
        }
    }
}

LEMON__INLINE void lemon__rotate(const float *x, const float *angles, float sign, float *y, int64_t head_dim) {
    for (int64_t i = 0; i < head_dim; i += 2) {
        float a = x[i], b = x[i + 1], c = angles[i], s = sign * angles[i + 1];
        y[i] = a * c - b * s;
        y[i + 1] = a * s + b * c;
    }
}

static const float *lemon__rope_row(const lemon__op *op, int64_t row) {
    return op->angles + (op->pos + row % op->seq) * op->head_dim;
}

LEMON__INLINE void lemon__rope_rows_body(const lemon__op *op, int64_t from, int64_t to) {
    for (; from < to; from++)
        for (int64_t h = 0; h < op->cols; h += op->head_dim)
            lemon__rotate(lemon__in(op, 0) + from * op->cols + h, lemon__rope_row(op, from), 1.0f,
                          op->y + from * op->cols + h, op->head_dim);
}
LEMON__OVER_ROWS(lemon__rope_forward, lemon__rope_rows)

static void lemon__rope_back_body(const lemon__op *op, int64_t from, int64_t to) {
    int64_t c = op->head_dim;
    for (; from < to; from++)
        for (int64_t h = 0; h < op->cols; h += c) {
            const float *dy = op->dy + from * op->cols + h, *angles = lemon__rope_row(op, from);
            float *dx = op->dx[0] + from * op->cols + h, back[2];
            for (int64_t i = 0; i < c; i += 2) {
                lemon__rotate(dy + i, angles + i, -1.0f, back, 2);
                dx[i] = op->add[0] ? dx[i] + back[0] : back[0];
                dx[i + 1] = op->add[0] ? dx[i + 1] + back[1] : back[1];
            }
        }
}

static void lemon__rope_backward(lemon_ctx *ctx, const lemon__op *op) {
    if (op->dx[0]) lemon__over(ctx, op, lemon__rope_back_body, op->rows, LEMON__ROWS);
}

/* ---- causal grouped-query attention ----
        For each head, whose rows of q, k and v [T, C] are Q, K and V here (no sizes):  S = Q K^T / sqrt(C),
            P = softmax of each row over the keys up to its own position,  Y = P V.
        Nothing of size T x T is kept: a tile of LEMON__ROWS queries is done at a time, and aux keeps the log sum exp of
        each row [H, N], from which backward makes P again.  Backward, with dP = dY V^T and d = sum of dY * Y over a row:
            dS = P * (dP - d),   dQ = dS K / sqrt(C),   dK = dS^T Q / sqrt(C),   dV = P^T dY.
        A tile is held as its transpose, [keys, LEMON__ROWS]: the softmax then goes down the columns, a vector of queries
        at a time, whatever the head_dim, and each product has a side of full vectors:
            S^T = K Q^T,   Y^T = V^T P^T,   dP^T = V dY^T,   dQ^T = K^T dS^T.
        Inputs q [B*T, H*C], k and v [B*kv_rows, K*C]; query t of a sequence sees its keys 0 ... pos + t, with a window
        only the last so many of them: a tile begins with the first key that its first row sees. ---- */

enum {
    LEMON__FEW_QUERIES = 4,             /* so many are done one by one */
    LEMON__KEYS = 128,                  /* keys of a block in backward: two of them stay in the L1 cache */
    LEMON__HEAD_TASKS = 16,             /* so many heads are work enough for all threads */
    LEMON__PAIR = 32                    /* floats of two cache lines, which come as one: heads in them are one thread's */
};

/*  Floats that a worker needs for tiles of up to so many rows and keys. */
static int64_t lemon__attention_floats(int64_t rows, int64_t keys, int64_t head_dim, int backward) {
    if (backward) return LEMON__ROWS * (2 * lemon__min(keys, LEMON__KEYS) + 3 * head_dim);
    return LEMON__SMALL || rows <= LEMON__FEW_QUERIES ? keys : LEMON__ROWS * (keys + 2 * head_dim);
}

static int64_t lemon__attention_scratch(const lemon__op *op, int backward) {
    return lemon__attention_floats(op->seq, op->pos + op->seq, op->head_dim, backward);
}

typedef struct lemon__attention_job {
    const lemon__op *op;
    lemon_ctx *ctx;
    int64_t tiles, blocks, together;    /* of queries and of keys in a sequence; heads of a task */
} lemon__attention_job;

static lemon__attention_job lemon__attention_job_of(lemon_ctx *ctx, const lemon__op *op) {
    lemon__attention_job job = {op, ctx, lemon__ceil_div(op->seq, LEMON__ROWS), lemon__ceil_div(op->seq, LEMON__KEYS),
                                lemon__max(1, LEMON__PAIR / op->head_dim)};
    return job;
}

/*  Where one head of one sequence, and a tile of its queries, lie. */
typedef struct lemon__query_tile {
    const lemon__op *op;
    lemon_isa isa;
    const float *k, *v;             /* of the first key that the tile sees, as all that counts keys below */
    int64_t row, rows, keys;        /* first row of the tile in the batch, rows, and keys up to its last row's */
    int64_t q_width, kv_width;
    int64_t q_at, kv_at;            /* offsets of the tile in q, y and of the first key in k, v */
    int64_t first_keys;             /* keys up to the first row's own */
    int64_t begin;                  /* the first key's place in its sequence */
    int64_t window;                 /* how many of them a row sees */
    float *s, *ds;                  /* [keys, LEMON__ROWS] twice (ds: backward only, which holds a block of keys) */
    float *q, *y, *dy;              /* [C, LEMON__ROWS] queries, outputs (dQ in backward), dY (backward only) */
    float *lse;                     /* of the tile's rows; NULL: not asked for */
} lemon__query_tile;

/*  The tile's rows of q or dy, transposed; rows that it does not have are zero. */
static void lemon__tile_turn(const lemon__query_tile *t, const float *from, float *turned) {
    if (t->rows < LEMON__ROWS) memset(turned, 0, (size_t)(LEMON__ROWS * t->op->head_dim) * sizeof(float));
    lemon__machine_of(t->isa)->pack(turned, LEMON__ROWS, from + t->q_at, t->q_width, 1, t->rows, t->op->head_dim);
}

/*  The way back: the tile's rows of y or dq from [C, LEMON__ROWS], by whole vectors where none reaches into the next head. */
static void lemon__tile_turn_back(const lemon__query_tile *t, const float *turned, float *to, int add) {
    const int64_t n = t->op->head_dim;
    to += t->q_at;
    if (n % 8 == 0 && !add) {
        lemon__machine_of(t->isa)->pack(to, t->q_width, turned, LEMON__ROWS, 1, n, t->rows);
        return;
    }
    for (int64_t r = 0; r < t->rows; r++, to += t->q_width)
        for (int64_t c = 0; c < n; c++) to[c] = turned[c * LEMON__ROWS + r] + (add ? to[c] : 0.0f);
}

/*  A tile of a head's queries; the worker's scratch is s, q, y, or in backward s, ds, q, y, dy. */
static lemon__query_tile lemon__attention_tile(const lemon__attention_job *job, int64_t sequence, int64_t head,
                                               int64_t tile, int worker) {
    const lemon__op *op = job->op;
    lemon__query_tile t;
    int64_t group = op->n_heads / op->kv_heads, from = tile * LEMON__ROWS;
    t.op = op;
    t.isa = job->ctx->isa;
    t.window = op->window > 0 ? op->window : INT64_MAX;
    t.begin = lemon__max(0, op->pos + from + 1 - t.window);
    t.q_width = op->n_heads * op->head_dim;
    t.kv_width = op->kv_heads * op->head_dim;
    t.rows = lemon__min(LEMON__ROWS, op->seq - from);
    t.row = sequence * op->seq + from;
    t.first_keys = op->pos + from + 1 - t.begin;
    t.keys = t.first_keys + t.rows - 1;
    t.q_at = t.row * t.q_width + head * op->head_dim;
    t.kv_at = (sequence * op->kv_rows + t.begin) * t.kv_width + head / group * op->head_dim;
    t.k = lemon__in(op, 1) + t.kv_at;
    t.v = lemon__in(op, 2) + t.kv_at;
    t.s = op->scratch + worker * op->scratch_each;
    t.q = t.s + LEMON__ROWS * (op->gradient ? 2 * lemon__min(op->pos + op->seq, LEMON__KEYS) : t.keys);
    t.y = t.q + LEMON__ROWS * op->head_dim;
    t.dy = t.y + LEMON__ROWS * op->head_dim;
    t.ds = t.s + LEMON__ROWS * lemon__min(op->pos + op->seq, LEMON__KEYS);
    t.lse = op->aux ? op->aux + head * op->rows + t.row : NULL;
    return t;
}

/*  Gives the scores of keys from ... to - 1, which stand at s, that a query must not see a value. */
static void lemon__attention_mask(const lemon__query_tile *t, float *s, int64_t from, int64_t to, float value) {
    for (int64_t j = lemon__max(from, t->first_keys); j < to; j++)
        for (int64_t r = 0; r <= j - t->first_keys; r++) s[(j - from) * LEMON__ROWS + r] = value;
    for (int64_t j = from; j < lemon__min(to, t->keys - t->window); j++)
        for (int64_t r = j + 1 + t->window - t->first_keys; r < t->rows; r++) s[(j - from) * LEMON__ROWS + r] = value;
}

/*  The scores of keys from ... to - 1, transposed. */
static void lemon__attention_scores(const lemon__query_tile *t, int64_t from, int64_t to) {
    int64_t n = t->op->head_dim;
    lemon__gemm_near(t->isa, to - from, LEMON__ROWS, n, 1.0f / sqrtf((float)n), t->k + from * t->kv_width, t->kv_width, 1,
                     t->q, LEMON__ROWS, 0.0f, t->s, LEMON__ROWS);
}

static void lemon__attend_tile(const lemon__query_tile *t) {
    const lemon__op *op = t->op;
    float top[LEMON__ROWS], sum[LEMON__ROWS], inverse[LEMON__ROWS];
    int64_t n = op->head_dim;
    lemon__tile_turn(t, lemon__in(op, 0), t->q);
    lemon__attention_scores(t, 0, t->keys);
    lemon__attention_mask(t, t->s, 0, t->keys, -INFINITY);
    lemon__loops_of(t->isa)->softmax_columns(t->s, t->keys, top, sum);
    lemon__attention_mask(t, t->s, 0, t->keys, 0.0f);
    lemon__gemm_near(t->isa, n, LEMON__ROWS, t->keys, 1.0f, t->v, 1, t->kv_width, t->s, LEMON__ROWS, 0.0f, t->y, LEMON__ROWS);
    for (int64_t r = 0; r < LEMON__ROWS; r++) inverse[r] = 1.0f / sum[r];
    for (int64_t c = 0; c < n; c++)
        for (int64_t r = 0; r < LEMON__ROWS; r++) t->y[c * LEMON__ROWS + r] *= inverse[r];
    lemon__tile_turn_back(t, t->y, op->y, 0);
    for (int64_t r = 0; t->lse && r < t->rows; r++) t->lse[r] = top[r] + logf(sum[r]);
}

/*  One query alone, as in decoding: a tile would be nearly empty. */
static void lemon__attend_row(const lemon__query_tile *t, int64_t r, float *workspace) {
    const lemon__op *op = t->op;
    const lemon__loops *loops = lemon__loops_of(t->isa);
    const float *q = lemon__in(op, 0) + t->q_at + r * t->q_width;
    int64_t n = op->head_dim, seen = t->first_keys + r, keys = lemon__min(seen, t->window);
    int64_t hidden = (seen - keys) * t->kv_width;
    float *y = op->y + t->q_at + r * t->q_width;
    lemon__gemm(t->isa, workspace, 0, 1, 1, keys, n, 1.0f / sqrtf((float)n), q, t->q_width, t->k + hidden, t->kv_width, 0.0f,
                t->s, keys);
    float top = loops->largest(t->s, keys);
    float sum = loops->exp_sum(t->s, keys, 1.0f, top);
    lemon__gemm(t->isa, workspace, 0, 0, 1, n, keys, 1.0f, t->s, keys, t->v + hidden, t->kv_width, 0.0f, y, t->q_width);
    for (int64_t c = 0; c < n; c++) y[c] /= sum;
    if (t->lse) t->lse[r] = top + logf(sum);
}

static void lemon__attention_task(void *arg, int64_t index, int worker) {
    const lemon__attention_job *job = (const lemon__attention_job *)arg;
    const lemon__op *op = job->op;
    const int64_t tasks = lemon__ceil_div(op->n_heads, job->together), sequence = index / (tasks * job->tiles);
    const int64_t first = index / job->tiles % tasks * job->together;
    for (int64_t head = first; head < lemon__min(first + job->together, op->n_heads); head++) {
        lemon__query_tile t = lemon__attention_tile(job, sequence, head, index % job->tiles, worker);
        if (!LEMON__SMALL && t.rows > LEMON__FEW_QUERIES) lemon__attend_tile(&t);
        else for (int64_t r = 0; r < t.rows; r++) lemon__attend_row(&t, r, lemon__workspace(job->ctx, worker));
    }
}

static double lemon__attention_flops(const lemon__op *op) {     /* two products, half of each masked away */
    double keys = (double)op->pos + 0.5 * (double)op->seq;
    if (op->window > 0) keys = fmin(keys, (double)op->window);
    return 4.0 * (double)op->rows * (double)(op->n_heads * op->head_dim) * keys;
}

static void lemon__attention_forward(lemon_ctx *ctx, const lemon__op *op) {
    lemon__attention_job job = lemon__attention_job_of(ctx, op);
    ctx->flops += lemon__attention_flops(op);
    lemon__parallel(ctx, op->rows / op->seq * lemon__ceil_div(op->n_heads, job.together) * job.tiles, lemon__attention_task,
                    &job);
}

/*  What backward needs of a tile for all its blocks of keys. */
typedef struct lemon__tile_back { float lse[LEMON__ROWS], d[LEMON__ROWS]; } lemon__tile_back;

static void lemon__attention_back_open(const lemon__query_tile *t, lemon__tile_back *b) {
    const lemon__op *op = t->op;
    const float *dy = op->dy + t->q_at, *y = op->y + t->q_at;
    memset(b, 0, sizeof *b);
    for (int64_t r = 0; r < t->rows; r++) {
        b->lse[r] = t->lse[r];
        b->d[r] = lemon__dot(dy + r * t->q_width, y + r * t->q_width, op->head_dim);
    }
    lemon__tile_turn(t, lemon__in(op, 0), t->q);
    lemon__tile_turn(t, op->dy, t->dy);
}

/*  For keys from ... to - 1: s becomes P^T and ds becomes dS^T. */
static void lemon__attention_back_scores(const lemon__query_tile *t, const lemon__tile_back *b, int64_t from, int64_t to) {
    int64_t n = t->op->head_dim;
    lemon__attention_scores(t, from, to);
    lemon__gemm_near(t->isa, to - from, LEMON__ROWS, n, 1.0f, t->v + from * t->kv_width, t->kv_width, 1, t->dy, LEMON__ROWS,
                     0.0f, t->ds, LEMON__ROWS);
    lemon__loops_of(t->isa)->softmax_back(t->s, t->ds, to - from, b->lse, b->d, 1.0f / sqrtf((float)n));
    lemon__attention_mask(t, t->s, from, to, 0.0f);
    lemon__attention_mask(t, t->ds, from, to, 0.0f);
}

static void lemon__attention_back_keys(const lemon__query_tile *t, int64_t from, int64_t to) {
    const lemon__op *op = t->op;
    int64_t n = op->head_dim, at = t->kv_at + from * t->kv_width;
    if (op->dx[1])
        lemon__gemm_near(t->isa, to - from, n, t->rows, 1.0f, t->ds, LEMON__ROWS, 1, lemon__in(op, 0) + t->q_at, t->q_width,
                         1.0f, op->dx[1] + at, t->kv_width);
    if (op->dx[2])
        lemon__gemm_near(t->isa, to - from, n, t->rows, 1.0f, t->s, LEMON__ROWS, 1, op->dy + t->q_at, t->q_width, 1.0f,
                         op->dx[2] + at, t->kv_width);
}

/*  What keys from ... to - 1 give a tile's dQ, gathered in t->y, transposed, if queries is set, and with keys set what it
    adds to their dK and dV. */
static void lemon__attention_back_tile(const lemon__query_tile *t, int64_t from, int64_t to, int queries, int keys) {
    const lemon__op *op = t->op;
    int64_t n = op->head_dim, end;
    lemon__tile_back b;
    if (from >= to) return;
    lemon__attention_back_open(t, &b);
    for (int64_t at = from; at < to; at = end) {
        end = lemon__min(at + LEMON__KEYS, to);
        lemon__attention_back_scores(t, &b, at, end);
        if (queries && op->dx[0])
            lemon__gemm_near(t->isa, n, LEMON__ROWS, end - at, 1.0f, t->k + at * t->kv_width, 1, t->kv_width, t->ds,
                             LEMON__ROWS, at > from ? 1.0f : 0.0f, t->y, LEMON__ROWS);
        if (keys) lemon__attention_back_keys(t, at, end);
    }
    if (queries && op->dx[0]) lemon__tile_turn_back(t, t->y, op->dx[0], op->add[0]);
}

/*  Makes dK and dV of some keys zero, if nobody wrote them before. */
static void lemon__attention_back_clear(const lemon__query_tile *t, int64_t from, int64_t to) {
    const lemon__op *op = t->op;
    for (int side = 1; side <= 2; side++)
        for (int64_t j = from; op->dx[side] && !op->add[side] && j < to; j++)
            memset(op->dx[side] + t->kv_at + j * t->kv_width, 0, (size_t)op->head_dim * sizeof(float));
}

/*  Keys begin ... end - 1 of one key-value head of one sequence, with all query heads that read it: nobody else adds to
    their dK and dV.  queries: dQ too, for which these must be all keys. */
static void lemon__attention_back_head(const lemon__attention_job *job, int64_t sequence, int64_t head, int64_t begin,
                                       int64_t end, int queries, int worker) {
    int64_t group = job->op->n_heads / job->op->kv_heads, first = head * group;
    lemon__query_tile t = lemon__attention_tile(job, sequence, first, 0, worker);
    lemon__attention_back_clear(&t, begin, end);
    for (int64_t i = 0; i < group * job->tiles; i++) {
        t = lemon__attention_tile(job, sequence, first + i / job->tiles, i % job->tiles, worker);
        lemon__attention_back_tile(&t, lemon__max(0, begin - t.begin), lemon__min(end - t.begin, t.keys), queries, 1);
    }
}

static void lemon__attention_back_task(void *arg, int64_t index, int worker) {
    const lemon__attention_job *job = (const lemon__attention_job *)arg;
    const lemon__op *op = job->op;
    const int64_t tasks = lemon__ceil_div(op->kv_heads, job->together), first = index % tasks * job->together;
    for (int64_t head = first; head < lemon__min(first + job->together, op->kv_heads); head++)
        lemon__attention_back_head(job, index / tasks, head, 0, op->seq, 1, worker);
}

/*  Where heads are few, in two rounds: dQ by tiles of queries, then dK and dV by blocks of keys, whose scores are made
    once more. */
static void lemon__attention_back_rows(void *arg, int64_t index, int worker) {
    const lemon__attention_job *job = (const lemon__attention_job *)arg;
    const lemon__op *op = job->op;
    lemon__query_tile t = lemon__attention_tile(job, index / (op->n_heads * job->tiles), index / job->tiles % op->n_heads,
                                                index % job->tiles, worker);
    lemon__attention_back_tile(&t, 0, t.keys, 1, 0);
}

static void lemon__attention_back_block(void *arg, int64_t index, int worker) {
    const lemon__attention_job *job = (const lemon__attention_job *)arg;
    const int64_t heads = job->op->kv_heads, begin = index % job->blocks * LEMON__KEYS;
    lemon__attention_back_head(job, index / (heads * job->blocks), index / job->blocks % heads, begin,
                               lemon__min(begin + LEMON__KEYS, job->op->seq), 0, worker);
}

static void lemon__attention_backward(lemon_ctx *ctx, const lemon__op *op) {
    lemon__attention_job job = lemon__attention_job_of(ctx, op);
    const int64_t sequences = op->rows / op->seq, tasks = sequences * lemon__ceil_div(op->kv_heads, job.together);
    ctx->flops += 2.5 * lemon__attention_flops(op);
    if (tasks >= LEMON__HEAD_TASKS || job.blocks == 1) {
        lemon__parallel(ctx, tasks, lemon__attention_back_task, &job);
        return;
    }
    lemon__parallel(ctx, sequences * op->n_heads * job.tiles, lemon__attention_back_rows, &job);
    if (op->dx[1] || op->dx[2])
        lemon__parallel(ctx, sequences * op->kv_heads * job.blocks, lemon__attention_back_block, &job);
}

/* ---- SwiGLU: y = silu(gate) * up ---- */

static void lemon__swiglu_rows(const lemon__op *op, int64_t from, int64_t to) {
    const int64_t at = from * op->cols, n = (to - from) * op->cols;
    op->loops->swiglu(lemon__in(op, 0) + at, lemon__in(op, 1) + at, op->y + at, n);
}

/*  By pieces, so that what is made zero is still in L1 when it is added to. */
static void lemon__swiglu_back_rows(const lemon__op *op, int64_t from, int64_t to) {
    int64_t n;
    for (int64_t at = from * op->cols; at < to * op->cols; at += n) {
        const float *gate = lemon__in(op, 0) + at, *up = lemon__in(op, 1) + at, *dy = op->dy + at;
        float *dgate = op->dx[0] ? op->dx[0] + at : NULL, *dup = op->dx[1] ? op->dx[1] + at : NULL;
        n = lemon__min(1024, to * op->cols - at);
        if (dgate && !op->add[0]) memset(dgate, 0, (size_t)n * sizeof *dgate);
        if (dup && !op->add[1]) memset(dup, 0, (size_t)n * sizeof *dup);
        lemon__swiglu_back_one(gate, up, dy, dgate, dup, op->loops->swiglu_back(gate, up, dy, dgate, dup, 0, n), n);
    }
}

static void lemon__swiglu_run(lemon_ctx *ctx, const lemon__op *op, lemon__band run) {
    lemon__op with = *op;
    with.loops = lemon__loops_of(ctx->isa);
    lemon__over(ctx, &with, run, op->rows, LEMON__ROWS);
}

static void lemon__swiglu_forward(lemon_ctx *ctx, const lemon__op *op) {
    lemon__swiglu_run(ctx, op, lemon__swiglu_rows);
}
static void lemon__swiglu_backward(lemon_ctx *ctx, const lemon__op *op) {
    lemon__swiglu_run(ctx, op, lemon__swiglu_back_rows);
}

/* ---- the loss: output matrix, softmax, cross-entropy and distillation in one, a chunk of rows at a time ----
        With z the logits, p = softmax(z), t the target, W distill, X temperature, q = softmax(teacher's logits / X):
            loss = (1-W) (-log p_t) + W X^2 sum_v q_v log(q_v / p^X_v),  p^X = softmax(z / X)
            dloss/dz_v = (1-W) (p_v - [v = t]) + W X (p^X_v - q_v).
        Inputs hidden [N, D], output [V, D], and the teacher's two; aux holds the CE and KL of each row as doubles. ---- */

/*  Logits alive at once.  Each chunk of rows reads the output matrix twice and its gradient once, so chunks must be large
    enough for the arithmetic to hide that where the matrix does not stay in the caches: 512 rows of a vocabulary of
    32,000 are 64 MB. */
enum { LEMON__LOSS_FLOATS = 1 << 24, LEMON__LOSS_LARGE = 8192 };

static int64_t lemon__loss_chunk(int64_t vocab) {
    return lemon__max(16, lemon__min(vocab > LEMON__LOSS_LARGE ? 512 : 256, LEMON__LOSS_FLOATS / vocab / 16 * 16));
}

typedef struct lemon__loss_job {
    const lemon__op *op;
    lemon_isa isa;
    float *z, *teacher;
    int64_t first;
    float weight;
} lemon__loss_job;

/*  One row of distillation: z the student's logits and q the teacher's, which become the gradient, soft * (p^X - Q) with
    Q = softmax(q / X).  KL = sum Q (log Q - log p^X) = sum Q (q - z) / X - (log sum e^(q / X) - log sum e^(z / X)): without
    a logarithm for each entry. */
static double lemon__distill_row(const lemon__loops *loops, const float *z, float *q, int64_t n, float inverse,
                                 float soft) {
    float top_z = loops->largest(z, n) * inverse, top_q = loops->largest(q, n) * inverse, sums[3];
    loops->distill_sums(z, q, n, inverse, top_z, top_q, sums);
    float log_z = top_z + logf(sums[0]);
    float log_q = top_q + logf(sums[1]);
    loops->distill_slope(z, q, n, inverse, log_z, sums[1], soft);
    return (double)(sums[2] / sums[1]) - ((double)log_q - (double)log_z);
}

/*  z, on its way to a softmax, becomes share * z - hard * [v = target] plus the distillation's gradient. */
LEMON__INLINE void lemon__loss_gradient_row_body(float *z, const float *q, int64_t n, int64_t target, float share,
                                                 float hard) {
    for (int64_t i = 0; i < n; i++) z[i] *= share;
    z[target] -= hard;
    if (q) for (int64_t i = 0; i < n; i++) z[i] += q[i];
}
LEMON__CLONES(lemon__loss_gradient_row, (float *z, const float *q, int64_t n, int64_t target, float share, float hard),
              (z, q, n, target, share, hard))

static void lemon__loss_task(void *arg, int64_t r, int worker) {
    const lemon__loss_job *job = (const lemon__loss_job *)arg;
    const lemon__op *op = job->op;
    const lemon__loops *loops = lemon__loops_of(job->isa);
    int64_t vocab = op->in[1].rows, row = job->first + r;
    int32_t target = op->ids[row];
    float *z = job->z + r * vocab, *q = job->teacher ? job->teacher + r * vocab : NULL, w = op->loss.distill,
          hard = (1.0f - w) * job->weight, top, sum;
    double *out = (double *)(void *)op->aux + 2 * row;
    (void)worker;
    out[0] = out[1] = 0.0;
    if (target < 0) { memset(z, 0, (size_t)vocab * sizeof *z); return; }
    if (q)
        out[1] = lemon__distill_row(loops, z, q, vocab, 1.0f / op->loss.temperature,
                                    w * op->loss.temperature * job->weight);
    out[0] = -(double)z[target];
    top = loops->largest(z, vocab);
    sum = loops->exp_sum(z, vocab, 1.0f, top);
    out[0] += (double)(top + logf(sum));
    if (op->gradient) lemon__loss_gradient_row(job->isa)(z, q, vocab, target, hard / sum, hard);
}

/*  Gradients of one chunk: dHidden = dz W, and dW += dz^T hidden. */
static void lemon__loss_gradients(lemon_ctx *ctx, const lemon__op *op, const float *dz, int64_t first, int64_t n) {
    int64_t vocab = op->in[1].rows, width = op->in[1].cols;
    const float *hidden = lemon__in(op, 0) + first * width, *output = lemon__in(op, 1);
    if (op->dx[0])
        lemon__gemm_threads(ctx, 0, 0, n, width, vocab, 1.0f, dz, vocab, output, width, op->add[0] ? 1.0f : 0.0f,
                            op->dx[0] + first * width, width);
    if (op->dx[1])
        lemon__gemm_threads(ctx, 1, 0, vocab, width, n, 1.0f, dz, vocab, hidden, width,
                            op->add[1] || first > 0 ? 1.0f : 0.0f, op->dx[1], width);
}

static void lemon__loss_chunk_run(lemon_ctx *ctx, const lemon__op *op, int64_t first, int64_t n, float weight) {
    const int64_t vocab = op->in[1].rows;
    float *teacher = op->in[2].data ? op->scratch + lemon__loss_chunk(vocab) * vocab : NULL;
    lemon__loss_job job = {op, ctx->isa, op->scratch, teacher, first, weight};
    lemon__weight_product(ctx, n, lemon__in(op, 0) + first * op->in[0].cols, &op->in[1], job.z);
    if (teacher) lemon__weight_product(ctx, n, lemon__in(op, 2) + first * op->in[2].cols, &op->in[3], teacher);
    lemon__parallel(ctx, n, lemon__loss_task, &job);
    if (op->gradient) lemon__loss_gradients(ctx, op, job.z, first, n);
}

/*  Forward, or with op->gradient forward and backward in one, so that logits are made once.  y: mean CE, mean KL. */
static void lemon__loss_run(lemon_ctx *ctx, const lemon__op *op) {
    int64_t n = op->in[0].rows, chunk = lemon__loss_chunk(op->in[1].rows), counted = 0;
    const double *row = (const double *)(const void *)op->aux;
    double ce = 0.0, kl = 0.0;
    for (int64_t r = 0; r < n; r++) counted += op->ids[r] >= 0;
    for (int64_t first = 0; first < n; first += chunk)
        lemon__loss_chunk_run(ctx, op, first, lemon__min(chunk, n - first),
                              op->loss.scale / (float)lemon__max(1, counted));
    for (int64_t r = 0; r < n; r++) { ce += row[2 * r]; kl += row[2 * r + 1]; }
    op->y[0] = (float)(ce / (double)lemon__max(1, counted));
    op->y[1] = (float)(kl / (double)lemon__max(1, counted));
}

#ifndef LEMON_NO_TRAIN
LEMON__BRIEF_BEGIN
/* ====================================================================================================================
   6  TAPE

   Reverse-mode automatic differentiation.  A computation is a list of rows, each an operation on earlier values.  Running
   the rows in order gives the values; running them in reverse order, each one turning the gradient of its output into
   gradients of its inputs, gives the derivative of the last value by all others (Linnainmaa 1970), at about twice the cost of
   the forward run however many parameters there are.  That is the chain rule: with y = f(x) and the shapes as in chapter 5,

        dLoss/dx[j]  +=  sum over i of   dLoss/dy[i] * dy[i]/dx[j]        for a matmul  y = x W^T:   dx = dy W,  dW = dy^T x

   Time is a line: of n rows row i runs forward at time i and backward at 2n-1-i, or later where rows run again
   (lemon_tape_segment).  Every buffer is born at some time and dies at another: a value after the last row that reads it
   (forward, or backward where that row's derivative needs it), a gradient when the row that made the value has used it.
   lemon_tape_plan lays buffers whose lives do not overlap over the same memory, largest first, each at the lowest address
   that is free all its life (Pisarchyk and Lee 2020).
   ================================================================================================================== */

typedef enum lemon__code {
    LEMON__EMBED, LEMON__MATMUL, LEMON__ADD, LEMON__BIAS, LEMON__MIX, LEMON__NORM, LEMON__ROPE, LEMON__ATTENTION,
    LEMON__SWIGLU, LEMON__LOSS
} lemon__code;

/*  What the tape must know of an operation: its kernels, what backward reads again, and how much memory it wants. */
typedef struct lemon__op_info {
    void (*forward)(lemon_ctx *ctx, const lemon__op *op);
    void (*backward)(lemon_ctx *ctx, const lemon__op *op);
    unsigned reads;                                             /* bit i: backward reads input i; bit 7: the output */
    int64_t (*aux)(const lemon__op *op);                        /* floats kept from forward to backward */
    int64_t (*scratch)(const lemon__op *op, int backward);      /* floats of one run, for each worker */
} lemon__op_info;

enum { LEMON__READS_OUT = 128 };

static int64_t lemon__aux_norm(const lemon__op *op) { return op->rows; }
static int64_t lemon__aux_attention(const lemon__op *op) { return op->rows * op->n_heads; }

static const lemon__op_info lemon__op_table[] = {                /* in the order of lemon__code */
    {lemon__embed_forward, lemon__embed_backward, 0, NULL, NULL},
    {lemon__matmul_forward, lemon__matmul_backward, 1 | 2, NULL, NULL},
    {lemon__add_forward, lemon__add_backward, 0, NULL, NULL},
    {lemon__bias_forward, lemon__bias_backward, 0, NULL, NULL},
    {lemon__mix_forward, lemon__mix_backward, 1 | 2, NULL, NULL},
    {lemon__norm_forward, lemon__norm_backward, 1 | 2, lemon__aux_norm, NULL},
    {lemon__rope_forward, lemon__rope_backward, 0, NULL, NULL},
    {lemon__attention_forward, lemon__attention_backward, 1 | 2 | 4 | LEMON__READS_OUT, lemon__aux_attention,
     lemon__attention_scratch},
    {lemon__swiglu_forward, lemon__swiglu_backward, 1 | 2, NULL, NULL},
    {lemon__loss_run, lemon__loss_run, 1 | 2 | 4 | 8, NULL, NULL} /* its memory: lemon__plan_collect */
};

typedef struct lemon__value {
    lemon_tensor tensor;            /* shape; data of leaves, or set by the plan */
    float *grad;                    /* of leaves that want one, or set by the plan */
    int leaf, wants, keep;          /* wants: a gradient is asked for here or further up */
    int reached;                    /* 1: a loss depends on it; 2: somebody writes its gradient (lemon__plan_connect) */
    int64_t segment;                /* its maker's, made again where it is read there only; 0: kept, as leaves are */
    int64_t born, dies, born_again, dies_again, grad_born, grad_dies;       /* a second life ends with the pass; 0: none */
} lemon__value;

enum { LEMON__INPUTS = 4 };

typedef struct lemon__tape_row {
    lemon__code code;
    lemon_var in[LEMON__INPUTS], out;       /* -1: absent */
    int64_t segment;                        /* 0: of those that are not made again */
    int64_t again, back;                    /* when it runs once more (0: it does not), and backward */
    lemon__op op;
    float *scratch[2];                      /* forward, backward */
} lemon__tape_row;

struct lemon_tape {
    lemon_ctx *ctx;
    lemon_status status;                    /* the first error, kept */
    lemon__value *values;
    lemon__tape_row *rows;
    int64_t n_values, values_capacity, n_rows, rows_capacity;
    lemon__tape_row nowhere;                /* what is recorded after an error */
    lemon_arena arena;                      /* angles of RoPE */
    int64_t segment, n_segments;            /* what is recorded now belongs to; made so far */
    float *plan;                            /* all buffers */
    size_t plan_bytes;
    int planned, backward;
};

/* ---- recording ---- */

LEMON_API lemon_status lemon_tape_open(lemon_ctx *ctx, lemon_tape **tape) {
    if (lemon__lacks(ctx, __func__, tape != NULL)) return LEMON_E_ARG;
    *tape = NULL;
    if (lemon__workspaces(ctx)) return LEMON_E_MEMORY;
    *tape = (lemon_tape *)lemon__calloc(ctx, sizeof **tape);
    if (*tape == NULL) return LEMON_E_MEMORY;
    (*tape)->ctx = ctx;
    (*tape)->nowhere.out = -1;
    return LEMON_OK;
}

LEMON_API void lemon_tape_close(lemon_tape *tape) {
    lemon_ctx *ctx;
    if (tape == NULL) return;
    ctx = tape->ctx;
    lemon_arena_free(ctx, &tape->arena);
    lemon__free(ctx, tape->plan, tape->plan_bytes);
    lemon__free(ctx, tape->values, (size_t)tape->values_capacity * sizeof *tape->values);
    lemon__free(ctx, tape->rows, (size_t)tape->rows_capacity * sizeof *tape->rows);
    lemon__free(ctx, tape, sizeof *tape);
}

/*  The one way in which recording fails: the first message stays. */
LEMON__PRINTF(3, 4)
static lemon_var lemon__tape_fail(lemon_tape *tape, const char *call, const char *format, ...) {
    char message[LEMON__MESSAGE];
    va_list args;
    if (tape == NULL || tape->status) return -1;
    va_start(args, format);
    lemon__vformat(message, sizeof message, format, args);
    va_end(args);
    tape->status = lemon__fail(tape->ctx, LEMON_E_ARG, "%s: %s", call, message);
    return -1;
}

/*  A new value, with its place not known yet; -1: no memory. */
static lemon_var lemon__tape_make(lemon_tape *tape, int64_t rows, int64_t cols) {
    lemon__value *v;
    if (!lemon__room(tape->ctx, &tape->values, &tape->values_capacity, tape->n_values + 1, sizeof *v)) {
        tape->status = LEMON_E_MEMORY;
        return -1;
    }
    v = &tape->values[tape->n_values];
    memset(v, 0, sizeof *v);
    v->tensor.rows = rows;
    v->tensor.cols = cols;
    return (lemon_var)tape->n_values++;
}

static int lemon__tape_ready(lemon_tape *tape, const char *call) {
    if (tape == NULL || tape->status) return 0;
    if (tape->planned) lemon__tape_fail(tape, call, "the tape is planned already; record before lemon_tape_plan");
    return !tape->planned;
}

/*  An input of a call that records; NULL on error.  The pointer is good until something is recorded. */
static const lemon_tensor *lemon__tape_tensor(lemon_tape *tape, lemon_var x, const char *call) {
    if (!lemon__tape_ready(tape, call)) return NULL;
    if (x >= 0 && x < tape->n_values) return &tape->values[x].tensor;
    lemon__tape_fail(tape, call, "variable %d is not on this tape", (int)x);
    return NULL;
}

/*  A new row with up to four inputs (-1: absent) and an output [rows, cols]; tape->nowhere on error. */
static lemon__tape_row *lemon__tape_push(lemon_tape *tape, lemon__code code, int64_t rows, int64_t cols, lemon_var a,
                                         lemon_var b, lemon_var c, lemon_var d) {
    int there = lemon__room(tape->ctx, &tape->rows, &tape->rows_capacity, tape->n_rows + 1, sizeof *tape->rows);
    lemon_var out = there ? lemon__tape_make(tape, rows, cols) : -1;
    if (!there) tape->status = LEMON_E_MEMORY;
    if (out < 0) return &tape->nowhere;
    lemon__tape_row *row = &tape->rows[tape->n_rows++];
    memset(row, 0, sizeof *row);
    row->in[0] = a; row->in[1] = b; row->in[2] = c; row->in[3] = d;
    row->code = code;
    row->out = out;
    row->segment = tape->values[out].segment = tape->segment;
    row->op.rows = rows;
    row->op.cols = cols;
    for (int i = 0; i < LEMON__INPUTS; i++) {
        if (row->in[i] < 0) continue;
        row->op.in[i] = tape->values[row->in[i]].tensor;
        tape->values[out].wants |= tape->values[row->in[i]].wants;
        if (tape->values[row->in[i]].segment != row->segment) tape->values[row->in[i]].segment = 0;
    }
    return row;
}

LEMON_API lemon_var lemon_tape_weight(lemon_tape *tape, const lemon_tensor *tensor) {
    if (!lemon__tape_ready(tape, __func__)) return -1;
    if (tensor == NULL || tensor->data == NULL || tensor->rows < 1 || tensor->cols < 1)
        return lemon__tape_fail(tape, __func__, "the tensor is NULL or empty");
    lemon_var x = lemon__tape_make(tape, tensor->rows, tensor->cols);
    if (x < 0) return -1;
    tape->values[x].tensor = *tensor;
    tape->values[x].leaf = 1;
    return x;
}

LEMON_API lemon_var lemon_tape_leaf(lemon_tape *tape, const float *data, float *grad, int64_t rows, int64_t cols) {
    lemon_tensor tensor = lemon__view(NULL, LEMON_F32, rows, cols);
    memcpy(&tensor.data, &data, sizeof data);       /* a tensor's pointer is not const; leaves are only read */
    lemon_var x = lemon_tape_weight(tape, &tensor);
    if (x < 0) return -1;
    tape->values[x].grad = grad;
    tape->values[x].wants = grad != NULL;
    return x;
}

LEMON_API lemon_var lemon_tape_embed(lemon_tape *tape, lemon_var table, const int32_t *tokens, int64_t rows) {
    const lemon_tensor *t = lemon__tape_tensor(tape, table, __func__);
    if (t == NULL) return -1;
    if (tokens == NULL || rows < 1) return lemon__tape_fail(tape, __func__, "tokens is NULL or rows is %lld", (long long)rows);
    lemon__tape_row *row = lemon__tape_push(tape, LEMON__EMBED, rows, t->cols, table, -1, -1, -1);
    row->op.ids = tokens;
    return row->out;
}

/*  1, and an error, where x wants a gradient that cannot pass a stored matrix. */
static int lemon__tape_blocks(lemon_tape *tape, lemon_var x, const lemon_tensor *matrix, const char *call) {
    if (matrix->dtype == LEMON_F32 || !tape->values[x].wants) return 0;
    lemon__tape_fail(tape, call, "a gradient cannot pass a matrix of %s, expected f32", lemon_dtype_name(matrix->dtype));
    return 1;
}

LEMON_API lemon_var lemon_tape_matmul(lemon_tape *tape, lemon_var a, int trans_a, lemon_var b, int trans_b) {
    const lemon_tensor *ta = lemon__tape_tensor(tape, a, __func__), *tb = lemon__tape_tensor(tape, b, __func__);
    lemon__tape_row *row;
    if (!ta || !tb) return -1;
    int64_t ka = trans_a ? ta->rows : ta->cols;
    int64_t kb = trans_b ? tb->cols : tb->rows;
    if (ka != kb)
        return lemon__tape_fail(tape, __func__, "inner sizes are %lld and %lld, expected equal ones", (long long)ka,
                                (long long)kb);
    if (ta->dtype != LEMON_F32 || (tb->dtype != LEMON_F32 && (trans_a || !trans_b)))
        return lemon__tape_fail(tape, __func__, "a matrix is %s, expected f32 (other types only as b with trans_b)",
                                lemon_dtype_name(ta->dtype != LEMON_F32 ? ta->dtype : tb->dtype));
    if (lemon__tape_blocks(tape, a, tb, __func__)) return -1;
    row = lemon__tape_push(tape, LEMON__MATMUL, trans_a ? ta->cols : ta->rows, trans_b ? tb->rows : tb->cols, a, b, -1, -1);
    row->op.trans_a = trans_a;
    row->op.trans_b = trans_b;
    return row->out;
}

/*  Operations on two values of one shape. */
static lemon_var lemon__tape_pair(lemon_tape *tape, lemon__code code, lemon_var a, lemon_var b, const char *call) {
    const lemon_tensor *ta = lemon__tape_tensor(tape, a, call), *tb = lemon__tape_tensor(tape, b, call);
    if (!ta || !tb) return -1;
    if (ta->rows != tb->rows || ta->cols != tb->cols || ta->dtype != LEMON_F32 || tb->dtype != LEMON_F32)
        return lemon__tape_fail(tape, call, "shapes are [%lld, %lld] and [%lld, %lld], expected equal ones of f32",
                                (long long)ta->rows, (long long)ta->cols, (long long)tb->rows, (long long)tb->cols);
    return lemon__tape_push(tape, code, ta->rows, ta->cols, a, b, -1, -1)->out;
}

LEMON_API lemon_var lemon_tape_add(lemon_tape *tape, lemon_var a, lemon_var b) {
    return lemon__tape_pair(tape, LEMON__ADD, a, b, __func__);
}
LEMON_API lemon_var lemon_tape_swiglu(lemon_tape *tape, lemon_var gate, lemon_var up) {
    return lemon__tape_pair(tape, LEMON__SWIGLU, gate, up, __func__);
}

/*  A vector that goes with x, whose length divides the width of x: a gain, a bias.  Its row, or tape->nowhere. */
static lemon__tape_row *lemon__tape_vector(lemon_tape *tape, lemon__code code, lemon_var x, lemon_var vector,
                                           const char *call) {
    const lemon_tensor *tx = lemon__tape_tensor(tape, x, call), *tv = lemon__tape_tensor(tape, vector, call);
    if (!tx || !tv) return &tape->nowhere;
    if (tv->rows == 1 && tv->dtype == LEMON_F32 && tx->cols % tv->cols == 0 && (tv->cols == tx->cols || code == LEMON__NORM))
        return lemon__tape_push(tape, code, tx->rows, tx->cols, x, vector, -1, -1);
    lemon__tape_fail(tape, call, "%s is [%lld, %lld], expected [1, %lld] of f32", code == LEMON__NORM ? "gain" : "bias",
                     (long long)tv->rows, (long long)tv->cols, (long long)tx->cols);
    return &tape->nowhere;
}

LEMON_API lemon_var lemon_tape_bias(lemon_tape *tape, lemon_var x, lemon_var bias) {
    return tape ? lemon__tape_vector(tape, LEMON__BIAS, x, bias, __func__)->out : -1;
}

LEMON_API lemon_var lemon_tape_rms_norm(lemon_tape *tape, lemon_var x, lemon_var gain, float eps) {
    lemon__tape_row *row = tape ? lemon__tape_vector(tape, LEMON__NORM, x, gain, __func__) : NULL;
    if (row == NULL || row->out < 0) return -1;
    row->op.rows *= row->op.cols / row->op.in[1].cols;      /* heads are rows to the kernel */
    row->op.cols = row->op.in[1].cols;
    row->op.eps = eps;
    return row->out;
}

/*  The angles of a model's sequences; NULL: no memory. */
static const float *lemon__tape_angles(lemon_tape *tape, const lemon_config *c, int64_t seq) {
    float *angles = tape->status ? NULL : lemon__floats(tape->ctx, &tape->arena, seq, c->head_dim);
    if (angles) lemon__rope_angles(angles, seq, c);
    else if (!tape->status) tape->status = LEMON_E_MEMORY;
    return angles;
}

static lemon_var lemon__tape_turn(lemon_tape *tape, lemon_var x, int64_t head_dim, int64_t seq, const float *angles) {
    const lemon_tensor *t = lemon__tape_tensor(tape, x, "lemon_tape_rope");
    if (t == NULL || angles == NULL) return -1;
    lemon__tape_row *row = lemon__tape_push(tape, LEMON__ROPE, t->rows, t->cols, x, -1, -1, -1);
    row->op.angles = angles;
    row->op.head_dim = head_dim;
    row->op.seq = seq;
    return row->out;
}

LEMON_API lemon_var lemon_tape_rope(lemon_tape *tape, lemon_var x, int64_t head_dim, int64_t seq, float theta) {
    const lemon_tensor *t = lemon__tape_tensor(tape, x, __func__);
    lemon_config plain;
    if (t == NULL) return -1;
    if (head_dim < 2 || head_dim % 2 || head_dim > t->cols || seq < 1 || t->cols % head_dim || t->rows % seq)
        return lemon__tape_fail(tape, __func__,
                                "x is [%lld, %lld], expected multiples of seq %lld and of an even head_dim %lld",
                                (long long)t->rows, (long long)t->cols, (long long)seq, (long long)head_dim);
    lemon_config_defaults(&plain);
    plain.head_dim = (int32_t)head_dim;
    plain.rope_theta = theta;
    return lemon__tape_turn(tape, x, head_dim, seq, lemon__tape_angles(tape, &plain, seq));
}

LEMON_API lemon_var lemon_tape_attention(lemon_tape *tape, lemon_var q, lemon_var k, lemon_var v, int64_t n_heads,
                                         int64_t kv_heads, int64_t head_dim, int64_t seq, int64_t window) {
    const lemon_tensor *tq = lemon__tape_tensor(tape, q, __func__), *tk = lemon__tape_tensor(tape, k, __func__),
                       *tv = lemon__tape_tensor(tape, v, __func__);
    if (!tq || !tk || !tv) return -1;
    if (kv_heads < 1 || n_heads < 1 || n_heads % kv_heads || head_dim < 1 || seq < 1 || window < 0 || tq->rows % seq ||
        n_heads > tq->cols || head_dim > tq->cols || tq->cols != n_heads * head_dim || tk->rows != tq->rows ||
        tk->cols != kv_heads * head_dim || tv->cols != tk->cols || tv->rows != tq->rows)
        return lemon__tape_fail(tape, __func__,
                                "q is [%lld, %lld], k [%lld, %lld], v [%lld, %lld], expected %lld and %lld heads "
                                "of %lld, rows a multiple of %lld", (long long)tq->rows, (long long)tq->cols,
                                (long long)tk->rows, (long long)tk->cols, (long long)tv->rows, (long long)tv->cols,
                                (long long)n_heads, (long long)kv_heads, (long long)head_dim, (long long)seq);
    lemon__tape_row *row = lemon__tape_push(tape, LEMON__ATTENTION, tq->rows, tq->cols, q, k, v, -1);
    row->op.n_heads = n_heads;
    row->op.kv_heads = kv_heads;
    row->op.head_dim = head_dim;
    row->op.seq = row->op.kv_rows = seq;
    row->op.window = window;
    return row->out;
}

LEMON_API lemon_var lemon_tape_mix(lemon_tape *tape, const lemon_var *x, int64_t n, lemon_var weights) {
    const lemon_tensor *t = lemon__tape_tensor(tape, weights, __func__);
    lemon_var sum = -1;
    if (t == NULL) return -1;
    if (x == NULL || n < 1 || t->rows != 1 || t->cols != n)
        return lemon__tape_fail(tape, __func__, "weights are [%lld, %lld], expected [1, %lld]", (long long)t->rows,
                                (long long)t->cols, (long long)n);
    for (int64_t i = 0; i < n; i++) {
        const lemon_tensor *first = lemon__tape_tensor(tape, x[0], __func__);
        t = lemon__tape_tensor(tape, x[i], __func__);
        if (first == NULL || t == NULL) return -1;
        if (t->rows != first->rows || t->cols != first->cols)
            return lemon__tape_fail(tape, __func__, "term %lld is [%lld, %lld], expected [%lld, %lld]", (long long)i,
                                    (long long)t->rows, (long long)t->cols, (long long)first->rows,
                                    (long long)first->cols);
        lemon__tape_row *row = lemon__tape_push(tape, LEMON__MIX, t->rows, t->cols, x[i], weights, sum, -1);
        row->op.index = i;
        sum = row->out;
    }
    return sum;
}

static int lemon__output_fits(const lemon_tensor *hidden, const lemon_tensor *output) {
    return hidden && output && hidden->dtype == LEMON_F32 && output->cols == hidden->cols;
}

LEMON_API lemon_var lemon_tape_loss(lemon_tape *tape, lemon_var hidden, lemon_var output, const int32_t *targets,
                                    lemon_var teacher_hidden, lemon_var teacher_output, const lemon_loss_options *options) {
    const lemon_tensor *h = lemon__tape_tensor(tape, hidden, __func__), *o = lemon__tape_tensor(tape, output, __func__);
    const int taught = teacher_hidden >= 0;
    lemon__tape_row *row;
    if (!lemon__output_fits(h, o) || targets == NULL || options == NULL || !(options->temperature > 0.0f))
        return lemon__tape_fail(tape, __func__,
                                "hidden and output do not fit, targets is NULL, or temperature is not above 0");
    if (lemon__tape_blocks(tape, hidden, o, __func__)) return -1;
    if (taught) {
        const lemon_tensor *th = lemon__tape_tensor(tape, teacher_hidden, __func__),
                           *to = lemon__tape_tensor(tape, teacher_output, __func__);
        if (!lemon__output_fits(th, to) || th->rows != h->rows || to->rows != o->rows)
            return lemon__tape_fail(tape, __func__, "the teacher's hidden rows and vocabulary do not fit the student's "
                                    "(%lld rows, %lld tokens)", (long long)h->rows, (long long)o->rows);
        if (tape->values[teacher_hidden].wants || tape->values[teacher_output].wants)
            return lemon__tape_fail(tape, __func__, "the teacher wants a gradient, expected constants");
    }
    row = lemon__tape_push(tape, LEMON__LOSS, 1, 2, hidden, output, teacher_hidden, taught ? teacher_output : -1);
    row->op.ids = targets;
    row->op.loss = *options;
    lemon_tape_keep(tape, row->out);
    return row->out;
}

LEMON_API void lemon_tape_keep(lemon_tape *tape, lemon_var x) {
    if (tape == NULL || x < 0 || x >= tape->n_values) return;
    tape->values[x].keep = 1;
    tape->values[x].segment = 0;
}

LEMON_API void lemon_tape_segment(lemon_tape *tape, int again) {
    if (tape) tape->segment = again ? ++tape->n_segments : 0;
}

/* ---- planning ---- */

typedef struct lemon__buffer {
    int64_t floats, offset;
    int64_t born[2], dies[2];               /* two lives at one place; a second that begins at 0 is none */
    float **where;                          /* receives the address */
} lemon__buffer;

typedef struct lemon__layout { lemon__buffer *list; int64_t n, capacity; } lemon__layout;

static lemon__buffer *lemon__plan_add(lemon__layout *plan, int64_t floats, int64_t born, int64_t dies, float **where) {
    const lemon__buffer fresh = {(floats + 15) / 16 * 16, 0, {born, 0}, {dies, 0}, where};
    lemon__buffer *b = &plan->list[plan->n];
    if (floats > 0) plan->n++;              /* else the place is the next one's */
    *b = fresh;
    return b;
}

/*  Whether a row's backward is to run: a loss depends on what it made, and something above it wants a gradient. */
static int lemon__runs_backward(const lemon_tape *tape, const lemon__tape_row *row) {
    const lemon__value *out = &tape->values[row->out];
    return tape->backward && out->reached && (out->wants || row->code == LEMON__LOSS);
}

/*  Which values a loss depends on. */
static void lemon__plan_reached(lemon_tape *tape) {
    for (int64_t i = tape->n_rows - 1; i >= 0; i--) {
        lemon__tape_row *row = &tape->rows[i];
        tape->values[row->out].reached |= row->code == LEMON__LOSS;
        for (int k = 0; k < LEMON__INPUTS; k++)
            if (row->in[k] >= 0) tape->values[row->in[k]].reached |= tape->values[row->out].reached;
    }
}

/*  Backward reads this input of a row that runs backward (k = -1: its output). */
static int lemon__reads_again(const lemon_tape *tape, const lemon__tape_row *row, int k) {
    unsigned reads = lemon__op_table[row->code].reads;
    return lemon__runs_backward(tape, row) && (k < 0 ? (reads & LEMON__READS_OUT) != 0 : ((reads >> k) & 1u) != 0);
}

/*  Which rows of the segment that ends before `end` must run again: those whose output lives only there and is read once
    more, by backward or by such a row.  A value's dies_again is 1 for those. */
static void lemon__plan_again(lemon_tape *tape, int64_t begin, int64_t end) {
    for (int64_t i = end - 1; i >= begin; i--) {
        lemon__tape_row *row = &tape->rows[i];
        lemon__value *out = &tape->values[row->out];
        if (out->segment && lemon__reads_again(tape, row, -1)) out->dies_again = 1;
        row->again = out->dies_again;
        for (int k = 0; k < LEMON__INPUTS; k++)
            if (row->in[k] >= 0 && tape->values[row->in[k]].segment && (row->again || lemon__reads_again(tape, row, k)))
                tape->values[row->in[k]].dies_again = 1;
    }
}

static int64_t lemon__segment_begin(const lemon_tape *tape, int64_t end) {
    int64_t begin = end - 1;
    while (begin > 0 && tape->rows[begin - 1].segment == tape->rows[end - 1].segment) begin--;
    return begin;
}

/*  The times of backward, which follow those of forward, 0 ... n-1: segments from the last, their rows once more where
    they must, then their rows from the last. */
static void lemon__plan_times(lemon_tape *tape) {
    int64_t begin, time = tape->n_rows;
    for (int64_t end = tape->n_rows; end > 0; end = begin) {
        begin = lemon__segment_begin(tape, end);
        if (tape->backward && tape->rows[begin].segment) lemon__plan_again(tape, begin, end);
        for (int64_t i = begin; i < end; i++)
            if (tape->rows[i].again) tape->rows[i].again = time++;
        for (int64_t i = end - 1; i >= begin; i--) tape->rows[i].back = time++;
    }
}

/*  Somebody reads a value at a time: in its second life, or in its only one. */
static void lemon__plan_read(const lemon_tape *tape, lemon__value *v, int64_t time) {
    int64_t *dies = v->born_again && time >= tape->n_rows ? &v->dies_again : &v->dies;
    *dies = lemon__max(*dies, time);
}

/*  When values and gradients are first and last touched. */
static void lemon__plan_lives(lemon_tape *tape) {
    int64_t n = tape->n_rows;
    for (int64_t i = 0; i < n; i++) {
        lemon__tape_row *row = &tape->rows[i];
        lemon__value *out = &tape->values[row->out];
        out->born = out->dies = i;
        out->born_again = out->dies_again = row->again;
        out->grad_dies = row->back;
    }
    for (int64_t i = n - 1; i >= 0; i--) {
        lemon__tape_row *row = &tape->rows[i];
        if (lemon__reads_again(tape, row, -1)) lemon__plan_read(tape, &tape->values[row->out], row->back);
        for (int k = 0; k < LEMON__INPUTS; k++) {
            lemon__value *in = row->in[k] >= 0 ? &tape->values[row->in[k]] : NULL;
            if (in == NULL) continue;
            lemon__plan_read(tape, in, i);
            if (row->again) lemon__plan_read(tape, in, row->again);
            if (lemon__reads_again(tape, row, k)) lemon__plan_read(tape, in, row->back);
            if (lemon__runs_backward(tape, row) && in->wants && in->grad_born == 0) in->grad_born = row->back;
        }
    }
    for (int64_t i = 0; i < tape->n_values; i++)
        if (tape->values[i].keep) tape->values[i].dies = INT64_MAX;
}

/*  Values and their gradients, then what the rows need besides. */
static void lemon__plan_collect(lemon_tape *tape, lemon__layout *plan) {
    int64_t n = tape->n_rows, threads = tape->ctx->threads;
    for (int64_t i = 0; i < tape->n_values; i++) {
        lemon__value *v = &tape->values[i];
        int64_t floats = v->tensor.rows * v->tensor.cols;
        if (v->leaf) continue;
        lemon__buffer *b = lemon__plan_add(plan, floats, v->born, v->dies, (float **)&v->tensor.data);
        b->born[1] = v->born_again;
        b->dies[1] = v->dies_again;
        if (tape->backward && v->wants && v->reached && v->grad_born > 0)
            lemon__plan_add(plan, floats, v->grad_born, v->grad_dies, &v->grad);
    }
    for (int64_t i = 0; i < n; i++) {
        lemon__tape_row *row = &tape->rows[i];
        const lemon__op_info *info = &lemon__op_table[row->code];
        int64_t back = row->back;
        int again = lemon__runs_backward(tape, row);
        lemon__buffer *b;
        if (row->code == LEMON__LOSS) {                     /* logits of a chunk, the teacher's behind them */
            int64_t chunk = lemon__loss_chunk(row->op.in[1].rows) * row->op.in[1].rows * (row->in[2] >= 0 ? 2 : 1);
            lemon__plan_add(plan, 4 * row->op.in[0].rows, i, back, &row->op.aux);
            lemon__plan_add(plan, chunk, i, back, &row->scratch[0]);
            continue;
        }
        if (info->aux && again) {
            b = lemon__plan_add(plan, info->aux(&row->op), i, row->again ? i : back, &row->op.aux);
            if (row->again) b->born[1] = row->again, b->dies[1] = back;
        }
        if (info->scratch == NULL) continue;
        b = lemon__plan_add(plan, threads * info->scratch(&row->op, 0), i, i, &row->scratch[0]);
        b->born[1] = b->dies[1] = row->again;
        if (again) lemon__plan_add(plan, threads * info->scratch(&row->op, 1), back, back, &row->scratch[1]);
    }
}

static int lemon__buffer_larger(const void *a, const void *b) {
    const lemon__buffer *x = (const lemon__buffer *)a, *y = (const lemon__buffer *)b;
    if (x->floats != y->floats) return x->floats < y->floats ? 1 : -1;
    return x->born[0] < y->born[0] ? -1 : x->born[0] > y->born[0];
}

static int lemon__live_together(const lemon__buffer *a, const lemon__buffer *b) {
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 2; k++)
            if ((i == 0 || a->born[1]) && (k == 0 || b->born[1]) && a->born[i] <= b->dies[k] && b->born[k] <= a->dies[i])
                return 1;
    return 0;
}

/*  The lowest offset at which a buffer overlaps none of those placed before it that live at the same time. */
static int64_t lemon__plan_offset(const lemon__layout *plan, int64_t which) {
    const lemon__buffer *b = &plan->list[which];
    int64_t offset = 0, i;
    int moved = 1;
    while (moved)
        for (i = 0, moved = 0; i < which; i++) {
            const lemon__buffer *o = &plan->list[i];
            if (offset >= o->offset + o->floats || offset + b->floats <= o->offset || !lemon__live_together(o, b)) continue;
            offset = o->offset + o->floats;
            moved = 1;
        }
    return offset;
}

/*  Backward runs rows from the last: the first writer of a gradient overwrites it, later ones add.  Leaves always add. */
static void lemon__plan_connect(lemon_tape *tape) {
    for (int64_t i = 0; i < tape->n_values; i++) tape->values[i].reached &= 1;
    for (int64_t i = tape->n_rows - 1; i >= 0; i--) {
        lemon__tape_row *row = &tape->rows[i];
        lemon__value *out = &tape->values[row->out];
        row->op.y = (float *)out->tensor.data;
        row->op.dy = out->grad;
        for (int k = 0; k < LEMON__INPUTS; k++) {
            lemon__value *in = row->in[k] >= 0 ? &tape->values[row->in[k]] : NULL;
            if (in == NULL) continue;
            row->op.in[k] = in->tensor;
            if (!lemon__runs_backward(tape, row) || !in->wants) continue;
            row->op.dx[k] = in->grad;
            row->op.add[k] = in->leaf || (in->reached & 2);
            in->reached |= 2;
        }
    }
}

LEMON_API lemon_status lemon_tape_plan(lemon_tape *tape, int backward, size_t *bytes) {
    lemon__layout plan;
    int64_t total = 0;
    if (tape == NULL || tape->status) return tape ? tape->status : LEMON_E_ARG;
    if (tape->planned) return lemon__fail(tape->ctx, LEMON_E_ARG, "lemon_tape_plan: the tape is planned already");
    tape->backward = backward;
    plan.n = 0;
    plan.capacity = 2 * tape->n_values + 3 * tape->n_rows + 1;
    plan.list = (lemon__buffer *)lemon__calloc(tape->ctx, (size_t)plan.capacity * sizeof *plan.list);
    if (plan.list == NULL) return tape->status = LEMON_E_MEMORY;
    lemon__plan_reached(tape);
    lemon__plan_times(tape);
    lemon__plan_lives(tape);
    lemon__plan_collect(tape, &plan);
    qsort(plan.list, (size_t)plan.n, sizeof *plan.list, lemon__buffer_larger);
    for (int64_t i = 0; i < plan.n; i++) {
        plan.list[i].offset = lemon__plan_offset(&plan, i);
        total = lemon__max(total, plan.list[i].offset + plan.list[i].floats);
    }
    tape->plan_bytes = (size_t)total * sizeof(float);
    tape->plan = (float *)lemon__calloc(tape->ctx, tape->plan_bytes);
    for (int64_t i = 0; tape->plan && i < plan.n; i++) *plan.list[i].where = tape->plan + plan.list[i].offset;
    lemon__free(tape->ctx, plan.list, (size_t)plan.capacity * sizeof *plan.list);
    if (tape->plan == NULL) return tape->status = LEMON_E_MEMORY;       /* plan_bytes says what was asked for */
    lemon__plan_connect(tape);
    tape->planned = 1;
    if (bytes) *bytes = tape->plan_bytes;
    return LEMON_OK;
}

/* ---- running ---- */

static lemon_status lemon__tape_runnable(lemon_tape *tape, int backward, const char *call) {
    if (tape == NULL) return LEMON_E_ARG;
    if (tape->status) return tape->status;
    if (!tape->planned || (backward && !tape->backward))
        return lemon__fail(tape->ctx, LEMON_E_ARG, "%s: the tape is not planned for this; call lemon_tape_plan first", call);
    return LEMON_OK;
}

static void lemon__tape_run_row(lemon_tape *tape, lemon__tape_row *row, int backward) {
    const lemon__op_info *info = &lemon__op_table[row->code];
    row->op.scratch = row->scratch[row->code == LEMON__LOSS ? 0 : backward];
    row->op.scratch_each = info->scratch ? info->scratch(&row->op, backward) : 0;
    row->op.gradient = backward;
    if (backward) info->backward(tape->ctx, &row->op);
    else info->forward(tape->ctx, &row->op);
}

LEMON_API lemon_status lemon_tape_forward(lemon_tape *tape) {
    lemon_status status = lemon__tape_runnable(tape, 0, __func__);
    for (int64_t i = 0; !status && i < tape->n_rows; i++)
        if (tape->rows[i].code != LEMON__LOSS || !tape->backward) lemon__tape_run_row(tape, &tape->rows[i], 0);
    return status;
}

LEMON_API lemon_status lemon_tape_backward(lemon_tape *tape) {      /* exercise 10 */
    lemon_status status = lemon__tape_runnable(tape, 1, __func__);
    int64_t begin, end, i;
    for (end = tape ? tape->n_rows : 0; !status && end > 0; end = begin) {
        begin = lemon__segment_begin(tape, end);
        for (i = begin; i < end; i++)
            if (tape->rows[i].again) lemon__tape_run_row(tape, &tape->rows[i], 0);
        for (i = end - 1; i >= begin; i--)
            if (lemon__runs_backward(tape, &tape->rows[i])) lemon__tape_run_row(tape, &tape->rows[i], 1);
    }
    return status;
}

LEMON_API const float *lemon_tape_value(const lemon_tape *tape, lemon_var x) {
    const lemon__value *v = tape && x >= 0 && x < tape->n_values ? &tape->values[x] : NULL;
    return v && (v->leaf || v->keep) && v->tensor.dtype == LEMON_F32 ? (const float *)v->tensor.data : NULL;
}
LEMON__BRIEF_END
#endif /* LEMON_NO_TRAIN */
LEMON__BRIEF_BEGIN

/* ====================================================================================================================
   7  MODEL

   A LLaMA-type transformer (Touvron et al. 2023).  Each token becomes a vector of d_model numbers, the residual stream.
   Every layer reads the stream twice and adds to it twice:

        x += Wo * attention(rope(Wq * norm(x)), rope(Wk * norm(x)), Wv * norm(x))       what other tokens know
        x += W_down * (silu(W_gate * norm(x)) * (W_up * norm(x)))                       what this token makes of it

   and the logits of the next token are output * norm(x): from [N, D], by [N, H*C] and [N, F] within a layer, to [N, V]. The
   rest of the family differs in little: a window of tokens that attention sees (Mistral), biases behind Wq, Wk and Wv
   (Qwen2), a norm of each head of queries and keys before rope (Qwen3), slower turns for longer contexts (LLaMA 3, YaRN).
   Below stands one table of the weights; sizes, initial values, checkpoints, training and fusion are loops over it, and
   nothing else in this header lists the weights.
   ================================================================================================================== */

static const lemon_role_info lemon__roles[LEMON_ROLE_COUNT] = {
    {"tok_embed", "model.embed_tokens", "token_embd", 0, 1, 0, LEMON_JOINT_VOCAB, LEMON_JOINT_RESIDUAL},
    {"attn_norm", "input_layernorm", "attn_norm", 1, 0, 0, LEMON_JOINT_NONE, LEMON_JOINT_RESIDUAL},
    {"wq", "self_attn.q_proj", "attn_q", 1, 1, 0, LEMON_JOINT_QUERY, LEMON_JOINT_RESIDUAL},
    {"wk", "self_attn.k_proj", "attn_k", 1, 1, 0, LEMON_JOINT_KEY, LEMON_JOINT_RESIDUAL},
    {"wv", "self_attn.v_proj", "attn_v", 1, 1, 0, LEMON_JOINT_VALUE, LEMON_JOINT_RESIDUAL},
    {"wo", "self_attn.o_proj", "attn_output", 1, 1, 0, LEMON_JOINT_RESIDUAL, LEMON_JOINT_HEADS},
    {"ffn_norm", "post_attention_layernorm", "ffn_norm", 1, 0, 0, LEMON_JOINT_NONE, LEMON_JOINT_RESIDUAL},
    {"w_gate", "mlp.gate_proj", "ffn_gate", 1, 1, 0, LEMON_JOINT_FFN, LEMON_JOINT_RESIDUAL},
    {"w_up", "mlp.up_proj", "ffn_up", 1, 1, 0, LEMON_JOINT_FFN, LEMON_JOINT_RESIDUAL},
    {"w_down", "mlp.down_proj", "ffn_down", 1, 1, 0, LEMON_JOINT_RESIDUAL, LEMON_JOINT_FFN},
    {"bq", "self_attn.q_proj", "attn_q", 1, 0, 1, LEMON_JOINT_NONE, LEMON_JOINT_QUERY},
    {"bk", "self_attn.k_proj", "attn_k", 1, 0, 1, LEMON_JOINT_NONE, LEMON_JOINT_KEY},
    {"bv", "self_attn.v_proj", "attn_v", 1, 0, 1, LEMON_JOINT_NONE, LEMON_JOINT_VALUE},
    {"q_norm", "self_attn.q_norm", "attn_q_norm", 1, 0, 0, LEMON_JOINT_NONE, LEMON_JOINT_HEAD},
    {"k_norm", "self_attn.k_norm", "attn_k_norm", 1, 0, 0, LEMON_JOINT_NONE, LEMON_JOINT_HEAD},
    {"final_norm", "model.norm", "output_norm", 0, 0, 0, LEMON_JOINT_NONE, LEMON_JOINT_RESIDUAL},
    {"output", "lm_head", "output", 0, 1, 0, LEMON_JOINT_VOCAB, LEMON_JOINT_RESIDUAL}
};

LEMON_API const lemon_role_info *lemon_role_get(lemon_role role) {
    return (unsigned)role < LEMON_ROLE_COUNT ? &lemon__roles[role] : NULL;
}

LEMON_API int64_t lemon_joint_size(const lemon_config *c, lemon_joint joint) {
    switch (c ? joint : LEMON_JOINT_NONE) {
    case LEMON_JOINT_VOCAB: return c->vocab_size;
    case LEMON_JOINT_RESIDUAL: return c->d_model;
    case LEMON_JOINT_QUERY: case LEMON_JOINT_HEADS: return (int64_t)c->n_heads * c->head_dim;
    case LEMON_JOINT_KEY: case LEMON_JOINT_VALUE: return (int64_t)c->kv_heads * c->head_dim;
    case LEMON_JOINT_FFN: return c->d_ffn;
    case LEMON_JOINT_HEAD: return c->head_dim;
    default: return 1;
    }
}

/* ---- config ---- */

LEMON_API void lemon_config_defaults(lemon_config *config) {
    if (config == NULL) return;
    memset(config, 0, sizeof *config);
    config->max_seq = 256;
    config->tied_embeddings = 1;
    config->rope_theta = 10000.0f;
    config->rms_norm_eps = 1e-5f;
}

static const char *const lemon__rope_kinds[LEMON_ROPE_COUNT] = {"default", "linear", "llama3", "yarn"};
enum { LEMON__LINEAR = 1 << LEMON_ROPE_LINEAR, LEMON__LLAMA3 = 1 << LEMON_ROPE_LLAMA3, LEMON__YARN = 1 << LEMON_ROPE_YARN };

/*  The fields of the config, with the range that a whole number may have: so large that no real model is refused, so
    small that no product of sizes overflows 64 bits. */
static const struct lemon__field {
    const char *name;
    size_t offset;
    int real;
    int64_t low, high;
    const char *hf, *gguf;          /* names in other formats, GGUF's without the "llama." before it; NULL: told otherwise */
    int kinds;                      /* bit k: where rope_scaling is k; 0: always, but optional where hf is NULL */
} lemon__fields[] = {
    {"d_model", offsetof(lemon_config, d_model), 0, 1, 65536, "hidden_size", "embedding_length", 0},
    {"n_layers", offsetof(lemon_config, n_layers), 0, 1, 4096, "num_hidden_layers", "block_count", 0},
    {"n_heads", offsetof(lemon_config, n_heads), 0, 1, 4096, "num_attention_heads", "attention.head_count", 0},
    {"kv_heads", offsetof(lemon_config, kv_heads), 0, 1, 4096, "num_key_value_heads", "attention.head_count_kv", 0},
    {"head_dim", offsetof(lemon_config, head_dim), 0, 2, 4096, "head_dim", "attention.key_length", 0},
    {"d_ffn", offsetof(lemon_config, d_ffn), 0, 1, 65536, "intermediate_size", "feed_forward_length", 0},
    {"vocab_size", offsetof(lemon_config, vocab_size), 0, 1, 1 << 22, "vocab_size", "vocab_size", 0},
    {"qkv_bias", offsetof(lemon_config, qkv_bias), 0, 0, 1, NULL, NULL, 0},
    {"qk_norm", offsetof(lemon_config, qk_norm), 0, 0, 1, NULL, NULL, 0},
    {"max_seq", offsetof(lemon_config, max_seq), 0, 1, 1 << 24, "max_position_embeddings", "context_length", 0},
    {"tied_embeddings", offsetof(lemon_config, tied_embeddings), 0, 0, 1, "tie_word_embeddings", NULL, 0},
    {"window", offsetof(lemon_config, window), 0, 0, 1 << 24, NULL, NULL, 0},
    {"rope_scaling", offsetof(lemon_config, rope_scaling), 0, 0, LEMON_ROPE_COUNT - 1, NULL, NULL, 0},
    {"rope_original", offsetof(lemon_config, rope_original), 0, 0, 1 << 24, "original_max_position_embeddings",
     "rope.scaling.original_context_length", LEMON__LLAMA3 | LEMON__YARN},
    {"rope_theta", offsetof(lemon_config, rope_theta), 1, 0, 0, "rope_theta", "rope.freq_base", 0},
    {"rms_norm_eps", offsetof(lemon_config, rms_norm_eps), 1, 0, 0, "rms_norm_eps", "attention.layer_norm_rms_epsilon", 0},
    {"rope_factor", offsetof(lemon_config, rope_factor), 1, 0, 0, "factor", "rope.scaling.factor",
     LEMON__LINEAR | LEMON__LLAMA3 | LEMON__YARN},
    {"rope_slow", offsetof(lemon_config, rope_slow), 1, 0, 0, "low_freq_factor", NULL, LEMON__LLAMA3},
    {"rope_fast", offsetof(lemon_config, rope_fast), 1, 0, 0, "high_freq_factor", NULL, LEMON__LLAMA3},
    {"rope_slow", offsetof(lemon_config, rope_slow), 1, 0, 0, "beta_slow", "rope.scaling.yarn_beta_slow", LEMON__YARN},
    {"rope_fast", offsetof(lemon_config, rope_fast), 1, 0, 0, "beta_fast", "rope.scaling.yarn_beta_fast", LEMON__YARN},
    {"rope_magnitude", offsetof(lemon_config, rope_magnitude), 1, 0, 0, "attention_factor",
     "rope.scaling.yarn_attn_factor", LEMON__YARN}};
/*  What a teacher and its operators agree in: the first seven, which are sizes, and two more. */
enum { LEMON__FIELDS = sizeof lemon__fields / sizeof lemon__fields[0], LEMON__SIZES = 7, LEMON__SHAPE = 9 };

/*  A field that is a whole number. */
static int32_t lemon__field_value(const lemon_config *c, int i) {
    int32_t value;
    memcpy(&value, (const char *)c + lemon__fields[i].offset, sizeof value);
    return value;
}

/*  The value of a field, whole ones exactly. */
static double lemon__field_get(const lemon_config *config, const struct lemon__field *field) {
    float real;
    memcpy(&real, (const uint8_t *)config + field->offset, 4);
    return field->real ? (double)real : (double)lemon__field_value(config, (int)(field - lemon__fields));
}

static lemon_status lemon__check_whole(lemon_ctx *ctx, const char *name, int64_t value, int64_t low, int64_t high) {
    if (value >= low && value <= high) return LEMON_OK;
    return lemon__fail(ctx, LEMON_E_ARG, "%s is %lld, expected %lld to %lld", name, (long long)value, (long long)low,
                       (long long)high);
}

/*  Whether a config has a field: what RoPE's scaling is done with depends on its kind. */
static int lemon__field_used(const lemon_config *c, const struct lemon__field *field) {
    if (field->kinds == 0) return 1;
    return c->rope_scaling > 0 && c->rope_scaling < LEMON_ROPE_COUNT && (field->kinds >> c->rope_scaling & 1);
}

LEMON_API lemon_status lemon_config_check(lemon_ctx *ctx, const lemon_config *c) {
    lemon_status status = c ? LEMON_OK : lemon__fail(ctx, LEMON_E_ARG, "the config is NULL");
    int i;
    for (i = 0; !status && !lemon__fields[i].real; i++)
        status = lemon__check_whole(ctx, lemon__fields[i].name, lemon__field_value(c, i), lemon__fields[i].low,
                                    lemon__fields[i].high);
    if (status) return status;
    if (c->head_dim % 2) return lemon__fail(ctx, LEMON_E_ARG, "head_dim is %d, expected an even number", (int)c->head_dim);
    if (c->n_heads % c->kv_heads) {
        for (i = c->kv_heads - 1; c->n_heads % i; i--) {}
        return lemon__fail(ctx, LEMON_E_ARG, "kv_heads is %d, expected a divisor of n_heads, which is %d; %d is the nearest "
                           "below", (int)c->kv_heads, (int)c->n_heads, i);
    }
    if ((int64_t)c->n_heads * c->head_dim > 65536)
        return lemon__fail(ctx, LEMON_E_ARG, "n_heads times head_dim is %lld, expected at most 65536",
                           (long long)c->n_heads * c->head_dim);
    if (!(c->rms_norm_eps >= 0.0f) || !(c->rms_norm_eps < 1.0f))
        return lemon__fail(ctx, LEMON_E_ARG, "rms_norm_eps is %g, expected 0 to 1", (double)c->rms_norm_eps);
    for (i = 0; i < LEMON__FIELDS; i++) {
        const struct lemon__field *f = &lemon__fields[i];
        double value = lemon__field_get(c, f), most = f->kinds ? 1e9 : 1e12;
        int above = f->kinds || f->offset == offsetof(lemon_config, rope_theta);
        if (above && lemon__field_used(c, f) && !(value > 0 && value < most))
            return lemon__fail(ctx, LEMON_E_ARG, "%s is %g, expected a number above 0", f->name, value);
    }
    if (c->rope_scaling >= LEMON_ROPE_LLAMA3 && (!(c->rope_slow < c->rope_fast) || !(c->rope_theta > 1.0f)))
        return lemon__fail(ctx, LEMON_E_ARG, "rope_slow is %g, expected less than rope_fast, which is %g, and a rope_theta "
                           "above 1", (double)c->rope_slow, (double)c->rope_fast);
    return LEMON_OK;
}

LEMON_API const char *lemon_config_family(const lemon_config *c) {
    if (c == NULL) return "llama";
    return c->qk_norm ? "qwen3" : c->qkv_bias ? "qwen2" : c->window ? "mistral" : "llama";
}

/* ---- the table, expanded: index of a parameter <-> role and layer ---- */

/*  Whether a model of this config has weights of a role. */
static int lemon__has_role(const lemon_config *c, lemon_role role) {
    if (role >= LEMON_BQ && role <= LEMON_BV) return c->qkv_bias;
    return (role != LEMON_Q_NORM && role != LEMON_K_NORM) || c->qk_norm;
}

/*  Weights of a layer: those that all models have first, in the order of lemon_role. */
static int64_t lemon__per_layer(const lemon_config *c) {
    return LEMON_BQ - LEMON_ATTN_NORM + (c->qkv_bias ? 3 : 0) + (c->qk_norm ? 2 : 0);
}

static int64_t lemon__param_count(const lemon_config *c) {
    return 2 + lemon__per_layer(c) * c->n_layers + !c->tied_embeddings;
}

static lemon_role lemon__param_role(const lemon_config *c, int64_t i, int64_t *layer) {
    int64_t each = lemon__per_layer(c), last = each * c->n_layers;
    *layer = 0;
    if (i == 0) return LEMON_TOK_EMBED;
    if (i > last) return i == last + 1 ? LEMON_FINAL_NORM : LEMON_OUTPUT;
    *layer = (i - 1) / each;
    int64_t role = LEMON_ATTN_NORM + (i - 1) % each;
    return (lemon_role)(role >= LEMON_BQ && !c->qkv_bias ? role + 3 : role);
}

static int64_t lemon__param_index(const lemon_config *c, lemon_role role, int64_t layer) {
    if (role == LEMON_TOK_EMBED || (role == LEMON_OUTPUT && c->tied_embeddings)) return 0;
    if (role >= LEMON_FINAL_NORM) return 1 + lemon__per_layer(c) * c->n_layers + (role - LEMON_FINAL_NORM);
    return 1 + layer * lemon__per_layer(c) + (role - LEMON_ATTN_NORM) - (role >= LEMON_Q_NORM && !c->qkv_bias ? 3 : 0);
}

static void lemon__param_shape(const lemon_config *c, lemon_role role, int64_t *rows, int64_t *cols) {
    *rows = lemon_joint_size(c, lemon__roles[role].out);
    *cols = lemon_joint_size(c, lemon__roles[role].in);
}

/*  Whose names: lemon.h's own, Hugging Face's or GGUF's. */
typedef enum lemon__style { LEMON__STYLE_LEMON = 0, LEMON__STYLE_HF, LEMON__STYLE_GGUF } lemon__style;

/*  name: NULL, or what stands there in place of the role's own. */
static void lemon__param_name(const lemon_model *model, int64_t i, lemon__style style, const char *name, char *out,
                              size_t size) {
    static const char *const layers[] = {"layers.", "model.layers.", "blk."};
    int64_t layer;
    const lemon_role_info *info = &lemon__roles[lemon__param_role(&model->config, i, &layer)];
    const char *ending = style == LEMON__STYLE_LEMON ? "" : info->bias ? ".bias" : ".weight";
    if (!name) name = style == LEMON__STYLE_HF ? info->hf : style == LEMON__STYLE_GGUF ? info->gguf : info->name;
    if (info->per_layer) lemon__format(out, size, "%s%lld.%s%s", layers[style], (long long)layer, name, ending);
    else lemon__format(out, size, "%s%s", name, ending);
}

LEMON_API int64_t lemon_config_params(const lemon_config *c) {
    int64_t total = 0, rows, cols;
    if (lemon_config_check(NULL, c)) return 0;
    for (int role = 0; role < LEMON_ROLE_COUNT; role++) {
        if (!lemon__has_role(c, (lemon_role)role) || (role == LEMON_OUTPUT && c->tied_embeddings)) continue;
        lemon__param_shape(c, (lemon_role)role, &rows, &cols);
        total += rows * cols * (lemon__roles[role].per_layer ? c->n_layers : 1);
    }
    return total;
}

/* ---- models ---- */

/*  The end of all that makes a model: on failure nothing is left of it. */
static lemon_status lemon__model_done(lemon_ctx *ctx, lemon_status status, lemon_model **model) {
    if (status) {
        lemon_model_free(ctx, *model);
        *model = NULL;
    }
    return status;
}

/*  A model whose weights are nowhere yet. */
static lemon_status lemon__model_new(lemon_ctx *ctx, const lemon_config *config, lemon_model **model) {
    lemon_status status = lemon_config_check(ctx, config);
    lemon_model *m;
    int64_t layer;
    *model = NULL;
    if (status) return status;
    *model = m = (lemon_model *)lemon__calloc(ctx, sizeof *m);
    if (m == NULL) return LEMON_E_MEMORY;
    m->config = *config;
    m->n_params = lemon__param_count(config);
    m->params = (lemon_tensor *)lemon__calloc(ctx, (size_t)m->n_params * sizeof *m->params);
    for (int64_t i = 0; m->params && i < m->n_params; i++)
        lemon__param_shape(config, lemon__param_role(config, i, &layer), &m->params[i].rows, &m->params[i].cols);
    return lemon__model_done(ctx, m->params ? LEMON_OK : LEMON_E_MEMORY, model);
}

LEMON_API lemon_status lemon_model_create(lemon_ctx *ctx, const lemon_config *config, lemon_model **model) {
    size_t bytes = SIZE_MAX;                        /* stays so where it overflows */
    if (lemon__lacks(ctx, __func__, model != NULL)) return LEMON_E_ARG;
    lemon_status status = lemon__model_new(ctx, config, model);
    if (status) return status;
    lemon_model *m = *model;
    int64_t count = lemon_config_params(config), at = 0;
    lemon__mul((size_t)count, sizeof(float), &bytes);
    m->block = (float *)lemon__calloc(ctx, bytes);
    if (m->block == NULL) return lemon__model_done(ctx, LEMON_E_MEMORY, model);
    m->block_count = count;
    for (int64_t i = 0; i < m->n_params; i++) {
        m->params[i].data = m->block + at;
        m->params[i].dtype = LEMON_F32;
        at += m->params[i].rows * m->params[i].cols;
    }
    return LEMON_OK;
}

LEMON_API void lemon_model_free(lemon_ctx *ctx, lemon_model *model) {
    if (model == NULL) return;
    lemon_tokenizer_free(ctx, model->tokenizer);
    lemon__free(ctx, model->block, (size_t)model->block_count * sizeof(float));
    lemon__free(ctx, model->params, (size_t)model->n_params * sizeof(lemon_tensor));
    if (model->source.close) model->source.close(model->source.user);
    lemon_arena_free(ctx, &model->arena);
    lemon__free(ctx, model, sizeof *model);
}

LEMON_API lemon_tensor *lemon_model_param(const lemon_model *model, lemon_role role, int64_t layer) {
    if (model == NULL || (unsigned)role >= LEMON_ROLE_COUNT) return NULL;
    if (!lemon__has_role(&model->config, role)) return NULL;
    if (layer < 0 || layer >= (lemon__roles[role].per_layer ? model->config.n_layers : 1)) return NULL;
    return &model->params[lemon__param_index(&model->config, role, layer)];
}

LEMON_API lemon_status lemon_model_init(lemon_ctx *ctx, lemon_model *model, uint64_t seed) {
    lemon_rng rng;
    int64_t layer;
    if (ctx == NULL || model == NULL || model->block == NULL)
        return lemon__fail(ctx, LEMON_E_ARG,
            "lemon_model_init: the model is NULL or does not own f32 weights; lemon_model_clone makes one that does");
    lemon_rng_seed(&rng, seed);
    for (int64_t i = 0; i < model->n_params; i++) {
        const lemon_role_info *info = &lemon__roles[lemon__param_role(&model->config, i, &layer)];
        float *w = (float *)model->params[i].data;
        double deviation = info->out == LEMON_JOINT_RESIDUAL ? 0.02 / sqrt(2.0 * model->config.n_layers) : 0.02;
        for (int64_t j = 0; j < model->params[i].rows * model->params[i].cols; j++)
            w[j] = info->matrix ? (float)(deviation * lemon_rng_normal(&rng)) : info->bias ? 0.0f : 1.0f;
    }
    return LEMON_OK;
}

/* ---- parts ---- */

enum { LEMON__PARTS = 32 };

static const lemon_part *lemon__part_find(const lemon_model *model, const char *name) {
    for (int64_t i = 0; i < model->n_parts; i++)
        if (strcmp(model->parts[i].name, name) == 0) return &model->parts[i];
    return NULL;
}

/*  Copies name and bytes. */
static lemon_status lemon__part_add(lemon_ctx *ctx, lemon_model *model, const char *name, size_t name_bytes,
                                    const void *data, size_t bytes) {
    lemon_part *part;
    if (model->parts == NULL) model->parts = (lemon_part *)lemon_arena_alloc(ctx, &model->arena, LEMON__PARTS * sizeof *part);
    char *copy = model->parts ? (char *)lemon_arena_alloc(ctx, &model->arena, name_bytes + 1 + bytes) : NULL;
    if (copy == NULL) return LEMON_E_MEMORY;
    if (model->n_parts == LEMON__PARTS)
        return lemon__fail(ctx, LEMON_E_FORMAT, "part \"%.*s\" is one too many, expected at most %d", (int)name_bytes,
                           name, LEMON__PARTS);
    memcpy(copy, name, name_bytes);
    if (bytes > 0) memcpy(copy + name_bytes + 1, data, bytes);
    part = &model->parts[model->n_parts++];
    part->name = copy;
    part->data = copy + name_bytes + 1;
    part->bytes = bytes;
    return LEMON_OK;
}

LEMON_API lemon_status lemon_model_carry(lemon_ctx *ctx, const lemon_model *from, lemon_model *to) {
    lemon_status status = LEMON_OK;
    if (lemon__lacks(ctx, __func__, from && to)) return LEMON_E_ARG;
    if (from->tokenizer && !to->tokenizer) status = lemon_tokenizer_clone(ctx, from->tokenizer, &to->tokenizer);
    for (int64_t i = to->n_parts > 0 ? from->n_parts : 0; i < from->n_parts && !status; i++) {
        const lemon_part *p = &from->parts[i];
        status = lemon__part_add(ctx, to, p->name, strlen(p->name), p->data, p->bytes);
    }
    return status;
}

/*  Of the parts, those are about the tokenizer whose names say so, and Hugging Face's older names for it. */
LEMON_API void lemon_model_set_tokenizer(lemon_ctx *ctx, lemon_model *model, lemon_tokenizer *tokenizer) {
    static const char *const words[] = {"token", "vocab.json", "merges.txt", "chat_template"};
    int64_t kept = 0;
    size_t k;
    if (model == NULL) return;
    for (int64_t i = 0; i < model->n_parts; i++) {
        for (k = 0; k < 4 && strstr(model->parts[i].name, words[k]) == NULL; k++) {}
        if (k == 4) model->parts[kept++] = model->parts[i];
    }
    model->n_parts = kept;
    lemon_tokenizer_free(ctx, model->tokenizer);
    model->tokenizer = tokenizer;
}

LEMON_API lemon_status lemon_model_clone(lemon_ctx *ctx, const lemon_model *source, lemon_model **model) {
    if (lemon__lacks(ctx, __func__, source && model)) return LEMON_E_ARG;
    lemon_status status = lemon_model_create(ctx, &source->config, model);
    for (int64_t i = 0; i < source->n_params && !status; i++) {
        const lemon_tensor *from = &source->params[i];
        float *to = (float *)(*model)->params[i].data;
        for (int64_t r = 0; r < from->rows; r++) lemon_row_to_f32(from, r, to + r * from->cols);
    }
    if (!status) status = lemon_model_carry(ctx, source, *model);
    return lemon__model_done(ctx, status, model);
}

/*  Ids that a model can take: all in 0 ... vocab_size-1. */
static lemon_status lemon__check_ids(lemon_ctx *ctx, const lemon_model *model, const int32_t *ids, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= model->config.vocab_size)
            return lemon__fail(ctx, LEMON_E_ARG,
                               "token %lld is %d, expected 0 to %d (vocab_size); was it made with another tokenizer?",
                               (long long)i, (int)ids[i], (int)model->config.vocab_size - 1);
    return LEMON_OK;
}

#ifndef LEMON_NO_TRAIN
/* ---- the forward pass on a tape: for training, evaluation and learned operators.
        weights[i] is the variable of parameter i of the table; the result is norm(x) [batch * seq, D], which the output
        matrix turns into scores. ---- */

/*  Queries, keys or values (matrix: LEMON_WQ, WK, WV) from y, as attention takes them.  w[role] is the weight of this
    layer: the table is in order. */
static lemon_var lemon__tape_heads(lemon_tape *tape, const lemon_config *c, const lemon_var *w, lemon_role matrix,
                                   lemon_var y, int64_t seq, const float *angles) {
    int which = (int)matrix - (int)LEMON_WQ;
    lemon_var x = lemon_tape_matmul(tape, y, 0, w[matrix], 1);
    if (c->qkv_bias) x = lemon_tape_bias(tape, x, w[LEMON_BQ + which]);
    if (matrix == LEMON_WV) return x;
    if (c->qk_norm) x = lemon_tape_rms_norm(tape, x, w[lemon__param_index(c, (lemon_role)(LEMON_Q_NORM + which), 0)],
                                            c->rms_norm_eps);
    return lemon__tape_turn(tape, x, c->head_dim, seq, angles);
}

static lemon_var lemon__tape_layer(lemon_tape *tape, const lemon_config *c, const lemon_var *w, lemon_var x,
                                   int64_t seq, const float *angles) {
    lemon_var y = lemon_tape_rms_norm(tape, x, w[LEMON_ATTN_NORM], c->rms_norm_eps);
    lemon_var q = lemon__tape_heads(tape, c, w, LEMON_WQ, y, seq, angles);
    lemon_var k = lemon__tape_heads(tape, c, w, LEMON_WK, y, seq, angles);
    lemon_var v = lemon__tape_heads(tape, c, w, LEMON_WV, y, seq, angles);
    lemon_var z = lemon_tape_attention(tape, q, k, v, c->n_heads, c->kv_heads, c->head_dim, seq, c->window);
    x = lemon_tape_add(tape, x, lemon_tape_matmul(tape, z, 0, w[LEMON_WO], 1));
    y = lemon_tape_rms_norm(tape, x, w[LEMON_FFN_NORM], c->rms_norm_eps);
    lemon_var gate = lemon_tape_matmul(tape, y, 0, w[LEMON_W_GATE], 1);
    lemon_var up = lemon_tape_matmul(tape, y, 0, w[LEMON_W_UP], 1);
    return lemon_tape_add(tape, x, lemon_tape_matmul(tape, lemon_tape_swiglu(tape, gate, up), 0, w[LEMON_W_DOWN], 1));
}

static lemon_var lemon__tape_llama(lemon_tape *tape, const lemon_config *c, const lemon_var *weights,
                                   const int32_t *tokens, int64_t batch, int64_t seq, int again) {
    lemon_var x = lemon_tape_embed(tape, weights[0], tokens, batch * seq);
    const float *angles = lemon__tape_angles(tape, c, seq);
    for (int64_t layer = 0; layer < c->n_layers; layer++) {
        if (again) lemon_tape_segment(tape, layer + 1 < c->n_layers);       /* backward begins with the last */
        x = lemon__tape_layer(tape, c, weights + layer * lemon__per_layer(c), x, seq, angles);
    }
    return lemon_tape_rms_norm(tape, x, weights[lemon__param_index(c, LEMON_FINAL_NORM, 0)], c->rms_norm_eps);
}

/*  Leaves for all weights of a model; gradients go to grads, laid out as model->block is, or nowhere (NULL). */
static void lemon__tape_weights(lemon_tape *tape, const lemon_model *model, float *grads, lemon_var *weights) {
    for (int64_t i = 0; i < model->n_params; i++) {
        const lemon_tensor *t = &model->params[i];
        if (grads)
            weights[i] = lemon_tape_leaf(tape, (const float *)t->data, grads + ((const float *)t->data - model->block),
                                         t->rows, t->cols);
        else weights[i] = lemon_tape_weight(tape, t);
    }
}
#endif /* LEMON_NO_TRAIN */

/* ---- the forward pass without a tape: for generation and for fusion, which stop between the steps ---- */

/*  The state of rows on their way through a model: batch sequences of seq tokens each, after pos tokens already cached. */
typedef struct lemon__walk {
    lemon_ctx *ctx;
    const lemon_model *model;
    int64_t batch, seq, pos;
    int64_t kv_rows;                /* rows of a sequence in k and v */
    float *x;                       /* [N, D] the residual stream */
    float *y;                       /* [N, D] its norm, with or without gain */
    float *q, *z;                   /* [N, H*C] queries, outputs of the heads */
    float *gate, *up;               /* [N, F]; gate becomes the neurons' output */
    float *back;                    /* [N, D] what a block adds to x */
    float *gain;                    /* [D] a gain in f32 */
    float *angles, *scratch;
    int64_t scratch_each;
} lemon__walk;

static int64_t lemon__walk_rows(const lemon__walk *w) { return w->batch * w->seq; }

/*  The buffer that rows of weights are decoded into is small where the program is, and else as wide as a model can be. */
static lemon_status lemon__rows_fit(lemon_ctx *ctx, const lemon_model *model) {
    int64_t decoded = LEMON__SMALL ? model->n_params : 0;
    for (int64_t i = 0; i < decoded; i++)
        if (model->params[i].dtype != LEMON_F32 && model->params[i].cols > LEMON__DECODE_FLOATS)
            return lemon__fail(ctx, LEMON_E_UNSUPPORTED, "rows of %lld numbers not in f32: this build decodes %d at once",
                               (long long)model->params[i].cols, (int)LEMON__DECODE_FLOATS);
    return LEMON_OK;
}

/*  Memory for up to `rows` rows that look back over at most `keys` keys. */
static lemon_status lemon__walk_open(lemon_ctx *ctx, lemon_arena *arena, const lemon_model *model, int64_t rows,
                                     int64_t keys, lemon__walk *w) {
    const lemon_config *c = &model->config;
    const int64_t heads = lemon_joint_size(c, LEMON_JOINT_HEADS);
    const int64_t each = lemon__attention_floats(rows, keys, c->head_dim, 0);
    const struct { float **at; int64_t rows, cols; } all[] = {
        {&w->x, rows, c->d_model}, {&w->y, rows, c->d_model}, {&w->back, rows, c->d_model}, {&w->gain, 1, c->d_model},
        {&w->q, rows, heads}, {&w->z, rows, heads}, {&w->gate, rows, c->d_ffn}, {&w->up, rows, c->d_ffn},
        {&w->angles, keys, c->head_dim}, {&w->scratch, ctx->threads, each}};
    if (lemon__rows_fit(ctx, model)) return LEMON_E_UNSUPPORTED;
    memset(w, 0, sizeof *w);
    w->ctx = ctx;
    w->model = model;
    w->scratch_each = each;
    for (int i = 0; i < (int)(sizeof all / sizeof all[0]); i++)
        if ((*all[i].at = lemon__floats(ctx, arena, all[i].rows, all[i].cols)) == NULL) return LEMON_E_MEMORY;
    lemon__rope_angles(w->angles, keys, c);
    return lemon__workspaces(ctx);
}

/*  An operation on the rows at hand, y [rows, cols] from a and b, for the kernels of chapter 5. */
static lemon__op lemon__walk_op(const lemon__walk *w, float *a, float *b, float *y, int64_t cols) {
    const lemon_config *c = &w->model->config;
    lemon__op op;
    memset(&op, 0, sizeof op);
    op.in[0].data = a;
    op.in[1].data = b;
    op.y = y;
    op.rows = lemon__walk_rows(w), op.cols = cols;
    op.n_heads = c->n_heads, op.kv_heads = c->kv_heads, op.head_dim = c->head_dim;
    op.seq = w->seq, op.pos = w->pos, op.kv_rows = w->kv_rows, op.window = c->window;
    op.eps = c->rms_norm_eps;
    op.angles = w->angles;
    op.scratch = w->scratch, op.scratch_each = w->scratch_each;
    return op;
}

static void lemon__walk_embed(lemon__walk *w, const int32_t *ids) {
    lemon__op op = lemon__walk_op(w, NULL, NULL, w->x, w->model->config.d_model);
    op.in[0] = *lemon_model_param(w->model, LEMON_TOK_EMBED, 0);
    op.ids = ids;
    lemon__embed_forward(w->ctx, &op);
}

/*  y = norm(x), times the gain of a role, or without gain where role is negative. */
static void lemon__walk_norm(lemon__walk *w, int role, int64_t layer) {
    int64_t d = w->model->config.d_model;
    lemon__op op = lemon__walk_op(w, w->x, w->gain, w->y, d);
    for (int64_t i = 0; i < d; i++) w->gain[i] = 1.0f;
    if (role >= 0) lemon_row_to_f32(lemon_model_param(w->model, (lemon_role)role, layer), 0, w->gain);
    lemon__norm_forward(w->ctx, &op);
}

static void lemon__walk_product(lemon__walk *w, lemon_role role, int64_t layer, const float *x, float *y) {
    lemon__weight_product(w->ctx, lemon__walk_rows(w), x, lemon_model_param(w->model, role, layer), y);
}

/*  Queries, keys or values (matrix: LEMON_WQ, WK, WV) of the rows, as attention takes them; what follows the product is
    done in place. */
static void lemon__walk_heads(lemon__walk *w, lemon_role matrix, int64_t layer, float *x) {
    int which = (int)matrix - (int)LEMON_WQ;
    const lemon_tensor *bias = lemon_model_param(w->model, (lemon_role)(LEMON_BQ + which), layer), *gain = NULL;
    lemon__op op = lemon__walk_op(w, x, NULL, x, lemon_joint_size(&w->model->config, lemon__roles[matrix].out));
    lemon__walk_product(w, matrix, layer, w->y, x);
    if (which < 2) gain = lemon_model_param(w->model, (lemon_role)(LEMON_Q_NORM + which), layer);
    if (bias) {
        op.in[1] = *bias;
        lemon__bias_forward(w->ctx, &op);
    }
    if (gain) {
        lemon__op norm = op;
        norm.in[1] = *gain;
        norm.rows *= op.cols / op.head_dim;                 /* heads are rows to the kernel */
        norm.cols = op.head_dim;
        lemon__norm_forward(w->ctx, &norm);
    }
    if (which < 2) lemon__rope_forward(w->ctx, &op);
}

/*  z = attention over keys and values 0 ... pos+seq-1 of each sequence. */
static void lemon__walk_attend(lemon__walk *w, float *k, float *v) {
    lemon__op op = lemon__walk_op(w, w->q, k, w->z, lemon_joint_size(&w->model->config, LEMON_JOINT_HEADS));
    op.in[2].data = v;
    lemon__attention_forward(w->ctx, &op);
}

/*  gate = silu(W_gate y) * (W_up y): the neurons' outputs. */
static void lemon__walk_neurons(lemon__walk *w, int64_t layer) {
    lemon__op op = lemon__walk_op(w, w->gate, w->up, w->gate, w->model->config.d_ffn);
    lemon__walk_product(w, LEMON_W_GATE, layer, w->y, w->gate);
    lemon__walk_product(w, LEMON_W_UP, layer, w->y, w->up);
    lemon__swiglu_forward(w->ctx, &op);
}

/*  x += W * in, for the two matrices that write to the residual stream. */
static void lemon__walk_write(lemon__walk *w, lemon_role role, int64_t layer, const float *in) {
    lemon__op op = lemon__walk_op(w, w->x, w->back, w->x, w->model->config.d_model);
    lemon__walk_product(w, role, layer, in, w->back);
    lemon__add_forward(w->ctx, &op);
}

/*  A layer up to where keys and values are there, and the rest of it.  k and v receive the rows at positions pos, pos+1,
    ...; with more than one sequence the cache holds just these rows (kv_rows = seq, pos = 0). */
static void lemon__walk_look(lemon__walk *w, int64_t layer, float *k, float *v) {
    int64_t at = w->pos * lemon_joint_size(&w->model->config, LEMON_JOINT_KEY);
    lemon__walk_norm(w, LEMON_ATTN_NORM, layer);
    lemon__walk_heads(w, LEMON_WQ, layer, w->q);
    lemon__walk_heads(w, LEMON_WK, layer, k + at);
    lemon__walk_heads(w, LEMON_WV, layer, v + at);
}

static void lemon__walk_think(lemon__walk *w, int64_t layer, float *k, float *v) {
    lemon__walk_attend(w, k, v);
    lemon__walk_write(w, LEMON_WO, layer, w->z);
    lemon__walk_norm(w, LEMON_FFN_NORM, layer);
    lemon__walk_neurons(w, layer);
    lemon__walk_write(w, LEMON_W_DOWN, layer, w->gate);
}

static void lemon__walk_layer(lemon__walk *w, int64_t layer, float *k, float *v) {
    lemon__walk_look(w, layer, k, v);
    lemon__walk_think(w, layer, k, v);
}

LEMON__BRIEF_END
/* ====================================================================================================================
   8  CHECKPOINTS

   Everything that lemon.h saves is one kind of file: a container of keys (name, type, value) and of tensors (name,
   storage type, shape, data).  A model is such a file, a set of operators is one, the state of a training run is one.
   The pack writes containers, the unpack reads them; what a file is about is only a matter of which keys and tensors
   are in it.

       0         header    8 magic "LEMON\r\n\x1a"   u32 version 1   u32 flags 0   u32 n_keys   u32 n_tensors
                           u64 keys_bytes   u64 table_bytes   u64 data_bytes   u64 reserved 0
                           u32 CRC-32 of keys and table   u32 CRC-32 of the 60 bytes before it
       64        keys      u16 name bytes   u16 type (1 int64, 2 float64, 3 text)   u32 value bytes   name   value
       then      table     u16 name bytes   u16 dtype   u64 rows   u64 cols   u64 offset   u64 bytes   u32 CRC-32   name
       padded    data      padded to 64 with zeros; each tensor at its offset from here, padded to 64 likewise

   All numbers are little-endian; names are 1 to 63 printable ASCII characters.  The magic breaks visibly when a
   transfer changes line ends.  Every byte is either under a checksum or must be zero, so no flipped bit goes unseen.
   The key "requires" lists the parts ("model", "operators", ...) that a reader must know; all others may be skipped.

   dtype 0 f32, 1 bf16, 2 f16, 3 q8, 4 q4, 5 u8, 6 i32, 7 f64.  Data are rows, one behind the other.  A row of q8 is blocks
   of 34 bytes, an f16 scale and 32 signed bytes; of q4 blocks of 18, an f16 scale and 32 half-bytes, the low ones first,
   which are 8 too large; the last block of a row is padded with zeros.
   The part "model": the key "arch" (the family), those of lemon_config by their names (from qkv_bias on left out where
   they are 0), and the tensors of the table in chapter 7,
   "tok_embed", "layers.N.wq" ...; vectors are f32.  Keys "tokenizer.*" and "part.NAME" (what the model carries along) and
   tensors "tokenizer.*" may be there.  examples/lemon_read.py reads all of this in 60 lines.

   A file is the work of a stranger until it is checked.  Readers here follow three rules: bytes are only reached
   through a cursor that knows where they end; a size is believed only after it was compared with the file's real
   size, so a small file cannot ask for much memory; shapes are checked against the config, in one place, before
   anyone computes with them.
   ================================================================================================================== */

enum { LEMON__FILE_VERSION = 1, LEMON__HEADER = 64, LEMON__NAME = 64 };
enum { LEMON__INT = 1, LEMON__REAL = 2, LEMON__TEXT = 3 };

static const char lemon__magic[8] = {'L', 'E', 'M', 'O', 'N', '\r', '\n', 0x1a};
static const uint8_t lemon__zeros[256] = {0};

/*  Puts a file's name before the message of a check that knew nothing of files. */
static lemon_status lemon__blame(lemon_ctx *ctx, const char *name, lemon_status code) {
    char text[LEMON__MESSAGE];
    lemon__format(text, sizeof text, "%s", lemon_error(ctx));
    return lemon__fail(ctx, code, "%s: %s", name, text);
}

/* ---- words: byte strings found by their content; names in a file here, pieces of a vocabulary in chapter 9 ---- */

typedef struct lemon__span { size_t start, bytes; } lemon__span;

typedef struct lemon__words {
    const uint8_t *blob;            /* what the spans point into; belongs to somebody else */
    lemon__span *spans;             /* word i */
    int64_t count, capacity;
    int32_t *slots;                 /* hash table with open addressing: 1 + word, 0 where free */
    int64_t n_slots, used;          /* n_slots is a power of two, at least twice `used` */
} lemon__words;

/*  FNV-1a (Fowler, Noll, Vo 1991), its upper half folded in. */
static size_t lemon__hash(const uint8_t *bytes, size_t n) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ bytes[i]) * 0x100000001b3u;
    return (size_t)(h ^ h >> 32);
}

/*  The slot that holds these bytes, or the free one where they would go. */
static int32_t *lemon__words_slot(const lemon__words *words, const uint8_t *bytes, size_t n) {
    size_t mask = (size_t)words->n_slots - 1, i = lemon__hash(bytes, n) & mask;
    LEMON_ASSERT(words->used < words->n_slots);             /* a free slot ends every search */
    for (; words->slots[i] != 0; i = (i + 1) & mask) {
        const lemon__span *span = &words->spans[words->slots[i] - 1];
        if (span->bytes == n && memcmp(words->blob + span->start, bytes, n) == 0) break;
    }
    return &words->slots[i];
}

/*  The word with these bytes, or -1. */
static int32_t lemon__words_find(const lemon__words *words, const void *bytes, size_t n) {
    return words->n_slots == 0 ? -1 : *lemon__words_slot(words, (const uint8_t *)bytes, n) - 1;
}

static int lemon__words_rehash(lemon_ctx *ctx, lemon__words *words) {
    lemon__words old = *words;
    words->n_slots = lemon__max(64, 2 * old.n_slots);
    words->slots = (int32_t *)lemon__calloc(ctx, (size_t)words->n_slots * sizeof *words->slots);
    if (words->slots == NULL) { *words = old; return 0; }
    for (int64_t i = 0; i < old.n_slots; i++) {
        if (old.slots[i] == 0) continue;
        const lemon__span *span = &words->spans[old.slots[i] - 1];
        *lemon__words_slot(words, words->blob + span->start, span->bytes) = old.slots[i];
    }
    lemon__free(ctx, old.slots, (size_t)old.n_slots * sizeof *old.slots);
    return 1;
}

/*  Appends a word; where `found` is set it can be found from now on, unless an equal one came before.  0: no memory. */
static int lemon__words_push(lemon_ctx *ctx, lemon__words *words, size_t start, size_t bytes, int found) {
    if (!lemon__room(ctx, &words->spans, &words->capacity, words->count + 1, sizeof *words->spans)) return 0;
    if (words->count >= INT32_MAX - 1) { lemon__fail(ctx, LEMON_E_MEMORY, "more than 2^31 words"); return 0; }
    if (2 * words->used >= words->n_slots && !lemon__words_rehash(ctx, words)) return 0;
    words->spans[words->count].start = start;
    words->spans[words->count++].bytes = bytes;
    if (!found) return 1;
    int32_t *slot = lemon__words_slot(words, words->blob + start, bytes);
    if (*slot == 0) { *slot = (int32_t)words->count; words->used++; }
    return 1;
}

static void lemon__words_free(lemon_ctx *ctx, lemon__words *words) {
    lemon__free(ctx, words->spans, (size_t)words->capacity * sizeof *words->spans);
    lemon__free(ctx, words->slots, (size_t)words->n_slots * sizeof *words->slots);
    memset(words, 0, sizeof *words);
}

LEMON__BRIEF_BEGIN
/* ---- bytes in: a cursor that cannot run past the end ---- */

/*  Reading past the end sets `bad` and gives zeros; so a whole record is read first, and checked once. */
typedef struct lemon__cursor {
    const uint8_t *bytes;
    size_t size, at;
    int bad;
} lemon__cursor;

static const uint8_t *lemon__take(lemon__cursor *c, size_t n) {
    LEMON_ASSERT(c->at <= c->size);
    if (c->bad || n > c->size - c->at) { c->bad = 1; return NULL; }
    c->at += n;
    return c->bytes + (c->at - n);
}

/*  A little-endian number of so many bytes. */
static uint64_t lemon__take_number(lemon__cursor *c, size_t width) {
    const uint8_t *p = lemon__take(c, width);
    uint64_t value = 0;
    while (p && width-- > 0) value = value << 8 | p[width];
    return value;
}

static uint16_t lemon__take16(lemon__cursor *c) { return (uint16_t)lemon__take_number(c, 2); }
static uint32_t lemon__take32(lemon__cursor *c) { return (uint32_t)lemon__take_number(c, 4); }
static uint64_t lemon__take64(lemon__cursor *c) { return lemon__take_number(c, 8); }

static lemon__cursor lemon__cursor_at(const void *bytes, size_t size) {
    const lemon__cursor c = {(const uint8_t *)bytes, size, 0, 0};
    return c;
}

static lemon__cursor lemon__cursor_over(const lemon_reader *r) { return lemon__cursor_at(r->map, (size_t)r->size); }

static void lemon__reader_close(lemon_reader *reader) {
    if (reader->close) reader->close(reader->user);
    memset(reader, 0, sizeof *reader);
}

/*  Whether a caller's reader can be used: it has a name, and all bytes or a call that brings them. */
static int lemon__reader_ok(const lemon_reader *reader) {
    return reader && reader->name && (reader->map || reader->read || reader->size == 0);
}

static int lemon__writer_ok(const lemon_writer *writer) { return writer && writer->append && writer->name; }

/*  Copies a piece of the file.  Our own file reader says itself what went wrong; for others it is said here. */
static lemon_status lemon__fetch(lemon_ctx *ctx, const lemon_reader *reader, uint64_t offset, void *out, size_t bytes) {
    if (offset > reader->size || bytes > reader->size - offset)
        return lemon__fail(ctx, LEMON_E_FORMAT, "%s: size is %llu bytes, expected at least %llu; the file is cut short",
                           reader->name, (unsigned long long)reader->size, (unsigned long long)offset + bytes);
    if (reader->map) {
        if (bytes > 0) memcpy(out, reader->map + offset, bytes);
        return LEMON_OK;
    }
    lemon_status status = reader->read(reader->user, offset, out, bytes);
    if (status && reader->read != lemon__file_read)
        lemon__fail(ctx, LEMON_E_IO, "%s: %llu bytes at offset %llu could not be read", reader->name,
                    (unsigned long long)bytes, (unsigned long long)offset);
    return status ? LEMON_E_IO : LEMON_OK;
}

static int lemon__big_endian(void) {
    const uint16_t one = 1;
    uint8_t first;
    memcpy(&first, &one, 1);
    return first == 0;
}

/*  Turns numbers between file order (little-endian) and this host's, in place.  Half precision and quantised blocks are
    kept in file order in memory too (chapter 3), so only whole words are turned. */
static void lemon__swap(lemon_dtype dtype, void *data, size_t bytes) {
    size_t width = dtype == LEMON_F32 || dtype == LEMON_I32 ? 4 : dtype == LEMON_F64 ? 8 : 1;
    uint8_t *p = (uint8_t *)data;
    if (!lemon__big_endian() || width == 1) return;
    for (size_t i = 0; i + width <= bytes; i += width)
        for (size_t k = 0; k < width / 2; k++) {
            uint8_t byte = p[i + k];
            p[i + k] = p[i + width - 1 - k];
            p[i + width - 1 - k] = byte;
        }
}

/*  A file held in memory: this in front, then the bytes, then the name. */
typedef struct lemon__held { lemon_ctx *ctx; size_t total; } lemon__held;

static void lemon__held_close(void *user) {
    lemon__held *held = (lemon__held *)user;
    lemon__free(held->ctx, held, held->total);
}

/*  After this, all bytes stand at reader->map, aligned for doubles: all parsers below read memory, whatever the
    reader can do.  What is mapped stays where it is, but on big-endian hosts, where numbers must be turned. */
static lemon_status lemon__hold(lemon_ctx *ctx, lemon_reader *reader) {
    size_t name_bytes = strlen(reader->name) + 1, size = (size_t)reader->size;
    if (reader->close == lemon__held_close) return LEMON_OK;
    if (reader->map && (uintptr_t)reader->map % 8 == 0 && !lemon__big_endian()) return LEMON_OK;
    if (reader->size > SIZE_MAX / 4)
        return lemon__fail(ctx, LEMON_E_MEMORY, "%s: size is %llu bytes, too much for this machine's address space",
                           reader->name, (unsigned long long)reader->size);
    lemon__held *held = (lemon__held *)lemon__malloc(ctx, LEMON__HEADER + size + name_bytes);
    if (held == NULL) return LEMON_E_MEMORY;
    held->ctx = ctx;
    held->total = LEMON__HEADER + size + name_bytes;
    uint8_t *bytes = (uint8_t *)held + LEMON__HEADER;
    memcpy(bytes + size, reader->name, name_bytes);
    lemon_status status = lemon__fetch(ctx, reader, 0, bytes, size);
    if (status) { lemon__held_close(held); return status; }
    lemon__reader_close(reader);
    const lemon_reader now = {held, (const char *)(bytes + size), size, bytes, NULL, lemon__held_close};
    *reader = now;
    return LEMON_OK;
}

/* ---- JSON ----

   lemon__json_parse checks a whole text (RFC 8259) and lists its values in the order of the text, 16 bytes for each.  A
   value is known by its index in that list, the root by 0; what stands in an array or object follows it at once, and
   `next` is the first value behind all of it, so a loop over the members of an object is

       for (i = node + 1; i < json.nodes[node].next; i = json.nodes[i + 1].next)      i is a name, i + 1 its value

   and one over the items of an array the same with nodes[i].next.  Nothing is copied: the text must outlive the list.
   Strings without escapes are handed out where they stand; others are decoded when they are asked for.  The calls that
   ask take a negative index ("not there") for what is of no type at all, so they can be nested. */

typedef enum lemon__json_type {
    LEMON__JSON_NONE = 0, LEMON__JSON_NULL, LEMON__JSON_FALSE, LEMON__JSON_TRUE, LEMON__JSON_NUMBER, LEMON__JSON_STRING,
    LEMON__JSON_ARRAY, LEMON__JSON_OBJECT
} lemon__json_type;

typedef struct lemon__json_node {
    uint32_t start, bytes;          /* its text; of a string what is between the quotes */
    int32_t next;
    uint8_t type, escaped;
} lemon__json_node;

typedef struct lemon__json {
    lemon_ctx *ctx;
    const char *name;               /* of the file, for messages */
    const uint8_t *text;
    size_t bytes, at;
    lemon__json_node *nodes;
    int64_t count, capacity;
    lemon_arena decoded;            /* strings that had escapes */
} lemon__json;

enum { LEMON__JSON_DEPTH = 64 };

static void lemon__json_close(lemon__json *json) {
    if (json->ctx == NULL) return;
    lemon__free(json->ctx, json->nodes, (size_t)json->capacity * sizeof *json->nodes);
    lemon_arena_free(json->ctx, &json->decoded);
    memset(json, 0, sizeof *json);
}

static lemon_status lemon__json_bad(lemon__json *json, const char *expected) {
    size_t line = 1, column = 1;
    for (size_t i = 0; i < json->at && i < json->bytes; i++, column++)
        if (json->text[i] == '\n') { line++; column = 0; }
    return lemon__fail(json->ctx, LEMON_E_FORMAT, "%s: line %llu, column %llu: expected %s; it is damaged or no JSON",
                       json->name, (unsigned long long)line, (unsigned long long)column, expected);
}

/*  The character at the cursor behind white space; 0 at the end. */
static int lemon__json_peek(lemon__json *json) {
    for (; json->at < json->bytes; json->at++) {
        int c = json->text[json->at];
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t') return c;
    }
    return 0;
}

static int lemon__hex_digit(int c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/*  The number of four hexadecimal digits, or -1. */
static long lemon__json_hex(const uint8_t *p, size_t n) {
    long value = 0;
    for (size_t i = 0; i < 4 && value >= 0; i++) {
        int digit = i < n ? lemon__hex_digit(p[i]) : -1;
        value = digit < 0 ? -1 : 16 * value + digit;
    }
    return value;
}

/*  The character of an escape, p being behind its backslash, and how many bytes it takes there; -1: it is none.
    Characters above 0xffff come as two escapes, the halves of a surrogate pair. */
static long lemon__json_escape(const uint8_t *p, size_t n, size_t *taken) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *found = n > 0 && *p ? strchr(names, *p) : NULL;
    *taken = 1;
    if (found) return values[found - names];
    if (n == 0 || *p != 'u') return -1;
    *taken = 5;
    long high = lemon__json_hex(p + 1, n - 1);
    if (high < 0xd800 || high > 0xdfff) return high;
    *taken = 11;
    if (high > 0xdbff || n < 11 || p[5] != '\\' || p[6] != 'u') return -1;
    long low = lemon__json_hex(p + 7, 4);
    return low < 0xdc00 || low > 0xdfff ? -1 : 0x10000 + (high - 0xd800) * 1024 + (low - 0xdc00);
}

/*  Appends a character as UTF-8. */
static size_t lemon__utf8_put(uint8_t *out, long c) {
    int n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (int i = n - 1; i > 0; i--, c >>= 6) out[i] = (uint8_t)(0x80 | (c & 0x3f));
    out[0] = (uint8_t)(lead[n] | c);
    return (size_t)n;
}

/*  Behind the end of a string, the cursor being behind its first quote. */
static lemon_status lemon__json_scan_string(lemon__json *json, lemon__json_node *node) {
    size_t taken;
    for (; json->at < json->bytes; json->at++) {
        uint8_t c = json->text[json->at];
        if (c == '"') { json->at++; return LEMON_OK; }
        if (c < ' ') return lemon__json_bad(json, "an escape in place of a control character");
        if (c != '\\') continue;
        node->escaped = 1;
        if (lemon__json_escape(json->text + json->at + 1, json->bytes - json->at - 1, &taken) < 0)
            return lemon__json_bad(json, "an escape sequence that JSON knows");
        json->at += taken;
    }
    return lemon__json_bad(json, "a string that ends");
}

static size_t lemon__json_digits(lemon__json *json) {
    size_t from = json->at;
    while (json->at < json->bytes && json->text[json->at] >= '0' && json->text[json->at] <= '9') json->at++;
    return json->at - from;
}

static int lemon__json_accept(lemon__json *json, const char *set) {
    if (json->at >= json->bytes || json->text[json->at] == 0 || !strchr(set, json->text[json->at])) return 0;
    json->at++;
    return 1;
}

/*  true, false, null or a number. */
static lemon_status lemon__json_scan_word(lemon__json *json, lemon__json_node *node) {
    static const char *const words[] = {"null", "false", "true"};
    const uint8_t *p = json->text + json->at;
    size_t left = json->bytes - json->at;
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(words[i]);
        if (left < n || memcmp(p, words[i], n) != 0) continue;
        node->type = (uint8_t)(LEMON__JSON_NULL + i);
        json->at += n;
        return LEMON_OK;
    }
    node->type = LEMON__JSON_NUMBER;
    lemon__json_accept(json, "-");
    if (!lemon__json_accept(json, "0") && lemon__json_digits(json) == 0) return lemon__json_bad(json, "a value");
    if (lemon__json_accept(json, ".") && lemon__json_digits(json) == 0) return lemon__json_bad(json, "a digit");
    if (!lemon__json_accept(json, "eE")) return LEMON_OK;
    lemon__json_accept(json, "+-");
    return lemon__json_digits(json) > 0 ? LEMON_OK : lemon__json_bad(json, "a digit");
}

static lemon_status lemon__json_inside(lemon__json *json, int end, int depth);

/*  Appends the value at the cursor and all that is in it. */
static lemon_status lemon__json_value(lemon__json *json, int depth) {
    int c = lemon__json_peek(json), quoted = c == '"';
    int64_t i = json->count;
    lemon__json_node node = {(uint32_t)json->at + (uint32_t)quoted, 0, 0, LEMON__JSON_ARRAY, 0};
    lemon_status status;
    if (!lemon__room(json->ctx, &json->nodes, &json->capacity, ++json->count, sizeof node)) return LEMON_E_MEMORY;
    if (c == '{' || quoted) node.type = quoted ? LEMON__JSON_STRING : LEMON__JSON_OBJECT;
    if (quoted || c == '{' || c == '[') json->at++;
    if (quoted) status = lemon__json_scan_string(json, &node);
    else if (c == '{' || c == '[') status = lemon__json_inside(json, c == '{' ? '}' : ']', depth + 1);
    else status = lemon__json_scan_word(json, &node);
    node.bytes = (uint32_t)(json->at - node.start - (quoted ? 1 : 0));
    node.next = (int32_t)json->count;
    json->nodes[i] = node;
    return status;
}

/*  What is in an array or object, the cursor being behind its bracket, up to the end. */
static lemon_status lemon__json_inside(lemon__json *json, int end, int depth) {
    lemon_status status = depth > LEMON__JSON_DEPTH ? lemon__json_bad(json, "at most 64 levels") : LEMON_OK;
    int begun = 0;
    for (int c = lemon__json_peek(json); !status && c != end; c = lemon__json_peek(json), begun = 1) {
        if (begun && c != ',') return lemon__json_bad(json, end == '}' ? "a comma or }" : "a comma or ]");
        if (begun) json->at++;
        if (end == '}') {
            if (lemon__json_peek(json) != '"') return lemon__json_bad(json, "a name in quotes");
            status = lemon__json_value(json, depth);
            if (!status && lemon__json_peek(json) != ':') status = lemon__json_bad(json, "a colon");
            json->at++;
        }
        if (!status) status = lemon__json_value(json, depth);
    }
    json->at++;
    return status;
}

/*  name: of the file, for messages.  On error nothing needs to be closed; closing twice does no harm. */
static lemon_status lemon__json_parse(lemon_ctx *ctx, const char *name, const void *text, size_t bytes, lemon__json *json) {
    memset(json, 0, sizeof *json);
    json->ctx = ctx;
    json->name = name;
    json->text = (const uint8_t *)text;
    json->bytes = bytes;
    if (bytes > INT32_MAX)
        return lemon__fail(ctx, LEMON_E_UNSUPPORTED, "%s: size is %llu bytes, expected less than 2 GB of JSON", name,
                           (unsigned long long)bytes);
    lemon_status status = lemon__json_value(json, 0);
    if (!status && (lemon__json_peek(json) != 0 || json->at < bytes)) status = lemon__json_bad(json, "the end");
    if (status) lemon__json_close(json);
    return status;
}

/*  The type of a value; LEMON__JSON_NONE of what is not there. */
static lemon__json_type lemon__json_type_of(const lemon__json *json, int32_t node) {
    return node < 0 || node >= json->count ? LEMON__JSON_NONE : (lemon__json_type)json->nodes[node].type;
}

/*  The bytes of a string, not terminated.  NULL: it is none, or there is no memory. */
static const uint8_t *lemon__json_string(lemon__json *json, int32_t node, size_t *bytes) {
    size_t taken;
    *bytes = 0;
    if (lemon__json_type_of(json, node) != LEMON__JSON_STRING) return NULL;
    const uint8_t *p = json->text + json->nodes[node].start;
    size_t n = json->nodes[node].bytes;
    if (!json->nodes[node].escaped) { *bytes = n; return p; }
    uint8_t *out = (uint8_t *)lemon_arena_alloc(json->ctx, &json->decoded, n);
    for (size_t i = 0; out && i < n; i++) {
        if (p[i] != '\\') { out[(*bytes)++] = p[i]; continue; }
        *bytes += lemon__utf8_put(out + *bytes, lemon__json_escape(p + i + 1, n - i - 1, &taken));
        i += taken;
    }
    return out;
}

/*  Whether a value is this string; one that has escapes is not. */
static int lemon__json_is(const lemon__json *json, int32_t node, const char *text) {
    return lemon__json_type_of(json, node) == LEMON__JSON_STRING && !json->nodes[node].escaped &&
           json->nodes[node].bytes == strlen(text) && memcmp(json->text + json->nodes[node].start, text, strlen(text)) == 0;
}

/*  The value of a member; -1 where the node is no object or has no such member. */
static int32_t lemon__json_get(const lemon__json *json, int32_t node, const char *name) {
    if (lemon__json_type_of(json, node) != LEMON__JSON_OBJECT) return -1;
    for (int32_t i = node + 1; i < json->nodes[node].next; i = json->nodes[i + 1].next)
        if (lemon__json_is(json, i, name)) return i + 1;
    return -1;
}

/*  The text of a number; 0 where the value is none, or is longer than any number need be. */
static int lemon__json_digits_of(const lemon__json *json, int32_t node, char text[64]) {
    size_t n = node < 0 ? 0 : json->nodes[node].bytes;
    if (lemon__json_type_of(json, node) != LEMON__JSON_NUMBER || n >= 64) return 0;
    memcpy(text, json->text + json->nodes[node].start, n);
    text[n] = 0;
    return 1;
}

/*  1 if the whole text is a number.  strtod wants the decimal point of the program's locale. */
static int lemon__text_to_real(char *text, double *value) {
    char *point, *end;
    *value = strtod(text, &point);
    if (*point != '.') return *point == 0;
    *point = ',';
    *value = strtod(text, &end);
    *point = '.';
    return *end == 0;
}

/*  A number as it stands; 0 where the value is none. */
static int lemon__json_real(const lemon__json *json, int32_t node, double *value) {
    char text[64];
    *value = 0;
    return lemon__json_digits_of(json, node, text) && lemon__text_to_real(text, value);
}

/*  An integer; 0 where the value is none, or is no int64. */
static int lemon__json_int(const lemon__json *json, int32_t node, int64_t *value) {
    char text[64] = "", *end;
    int ok = lemon__json_digits_of(json, node, text);
    errno = 0;
    const int64_t whole = strtoll(text, &end, 10);
    ok = ok && errno == 0 && *end == 0;
    *value = ok ? whole : 0;
    return ok;
}

/* ---- bytes out: headers and texts that grow ---- */

/*  Once there was no memory, `status` says so and nothing more is added: a whole header is made first, and checked once. */
typedef struct lemon__bytes {
    lemon_ctx *ctx;
    lemon_status status;
    uint8_t *data;
    int64_t count, capacity;
} lemon__bytes;

static lemon__bytes lemon__bytes_in(lemon_ctx *ctx) {
    const lemon__bytes b = {ctx, LEMON_OK, NULL, 0, 0};
    return b;
}

/*  Room for n more bytes, which count from now on; NULL: no memory. */
static uint8_t *lemon__put_room(lemon__bytes *b, size_t n) {
    if (!b->status && !lemon__room(b->ctx, &b->data, &b->capacity, b->count + (int64_t)n, 1)) b->status = LEMON_E_MEMORY;
    if (b->status) return NULL;
    b->count += (int64_t)n;
    return b->data + b->count - n;
}

static void lemon__put(lemon__bytes *b, const void *from, size_t n) {
    uint8_t *p = lemon__put_room(b, n);
    if (p && n > 0) memcpy(p, from, n);
}

/*  The lowest `width` bytes of a number, little-endian. */
static void lemon__put_number(lemon__bytes *b, uint64_t value, size_t width) {
    uint8_t bytes[8];
    lemon__put64(bytes, value);
    lemon__put(b, bytes, width);
}

static uint64_t lemon__pad_to(uint64_t n, uint64_t align) { return (n + align - 1) / align * align; }
static uint64_t lemon__pad(uint64_t n) { return lemon__pad_to(n, 64); }

/*  Zeros up to a multiple of `align`, which is at most 256. */
static void lemon__put_padding(lemon__bytes *b, uint64_t align) {
    lemon__put(b, lemon__zeros, (size_t)(lemon__pad_to((uint64_t)b->count, align) - (uint64_t)b->count));
}

/*  A short text as printf makes it. */
LEMON__PRINTF(2, 3)
static void lemon__print(lemon__bytes *b, const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    int n = lemon__vformat(text, sizeof text, format, args);
    va_end(args);
    if (n >= 0 && n < (int)sizeof text) lemon__put(b, text, (size_t)n);
    else b->status = lemon__fail(b->ctx, LEMON_E_ARG, "a text is too long to be written");
}

/*  A float with as few digits as bring it back. */
static void lemon__print_real(lemon__bytes *b, double value) {
    char text[40];
    double back;
    int digits = 5, n;
    do {
        n = lemon__format(text, sizeof text, "%.*g", digits, value);
        lemon__text_to_real(text, &back);
    } while (digits++ < 9 && ((float)back < (float)value || (float)back > (float)value));
    lemon__put(b, text, (size_t)n);
}

/*  A JSON string. */
static void lemon__print_string(lemon__bytes *b, const uint8_t *text, size_t n) {
    lemon__put(b, "\"", 1);
    for (size_t i = 0; i < n; i++) {
        if (text[i] < ' ' || text[i] == 0x7f) lemon__print(b, "\\u%04x", (unsigned)text[i]);
        else if (text[i] == '"' || text[i] == '\\') lemon__print(b, "\\%c", text[i]);
        else lemon__put(b, text + i, 1);
    }
    lemon__put(b, "\"", 1);
}

static void lemon__bytes_free(lemon__bytes *b) {
    lemon__free(b->ctx, b->data, (size_t)b->capacity);
    b->data = NULL;
    b->count = b->capacity = 0;
}

/* ---- the pack: a file of tensors that is being written ---- */

typedef struct lemon__packed {      /* a row of the tensor table */
    char name[LEMON__NAME];
    lemon_tensor source, stored; /* what is given, and what goes into the file (no data: rows pass through a buffer) */
    int64_t halves;                 /* head_dim where rows go out in Hugging Face's order, else 0; */
    int vector;                     /*   the numbers of a vector are rows then */
    uint64_t offset;
    uint32_t crc;
} lemon__packed;

/*  Keys are copied, tensors are borrowed until lemon__pack_write.  Errors are sticky and come out there. */
typedef struct lemon__pack {
    lemon_ctx *ctx;
    lemon_status status;
    lemon__bytes keys;
    int64_t n_keys;
    lemon__packed *tensors;
    int64_t n_tensors, capacity;
    uint64_t align, data_bytes;     /* each tensor begins at a multiple of align in the data */
    void (*front)(const struct lemon__pack *pack, lemon__bytes *out);   /* what stands before the data */
    float *numbers;                 /* one row, decoded */
    uint8_t *slab;                  /* rows as stored */
    lemon_arena scratch;            /* owns these, and tensors that exist only to be written */
} lemon__pack;

/*  Header, keys, table and the padding behind them.  The checksums of the tensors must be known. */
static void lemon__pack_front(const lemon__pack *pack, lemon__bytes *out) {
    lemon__put(out, lemon__magic, 8);
    lemon__put_number(out, LEMON__FILE_VERSION, 8);
    lemon__put_number(out, (uint64_t)pack->n_keys, 4);
    lemon__put_number(out, (uint64_t)pack->n_tensors, 4);
    lemon__put_number(out, (uint64_t)pack->keys.count, 8);
    lemon__put(out, lemon__zeros, 8);
    lemon__put_number(out, pack->data_bytes, 8);
    lemon__put(out, lemon__zeros, 16);
    lemon__put(out, pack->keys.data, (size_t)pack->keys.count);
    for (int64_t i = 0; i < pack->n_tensors; i++) {
        const lemon__packed *t = &pack->tensors[i];
        lemon__put_number(out, strlen(t->name), 2);
        lemon__put_number(out, (uint64_t)t->stored.dtype, 2);
        lemon__put_number(out, (uint64_t)t->stored.rows, 8);
        lemon__put_number(out, (uint64_t)t->stored.cols, 8);
        lemon__put_number(out, t->offset, 8);
        lemon__put_number(out, lemon_tensor_bytes(&t->stored), 8);
        lemon__put_number(out, t->crc, 4);
        lemon__put(out, t->name, strlen(t->name));
    }
    uint64_t meta = (uint64_t)out->count - LEMON__HEADER;
    lemon__put_padding(out, 64);
    if (out->status) return;
    lemon__put64(out->data + 32, meta - (uint64_t)pack->keys.count);
    lemon__put32(out->data + 56, lemon_crc32(0, out->data + LEMON__HEADER, (size_t)meta));
    lemon__put32(out->data + 60, lemon_crc32(0, out->data, 60));
}

/*  Opens a pack that becomes a .lemon file; other formats put their own front and align in place. */
static void lemon__pack_open(lemon_ctx *ctx, lemon__pack *pack) {
    memset(pack, 0, sizeof *pack);
    pack->ctx = pack->keys.ctx = ctx;
    pack->front = lemon__pack_front;
    pack->align = 64;
}

static void lemon__pack_close(lemon__pack *pack) {
    lemon__bytes_free(&pack->keys);
    lemon__free(pack->ctx, pack->tensors, (size_t)pack->capacity * sizeof *pack->tensors);
    lemon_arena_free(pack->ctx, &pack->scratch);
    memset(pack, 0, sizeof *pack);
}

static int lemon__name_ok(const uint8_t *name, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        if (name[i] <= ' ' || name[i] > '~') return 0;
    return bytes >= 1 && bytes < LEMON__NAME;
}

static void lemon__pack_key(lemon__pack *pack, const char *name, int type, const void *value, size_t bytes) {
    size_t n = strlen(name);
    if (pack->status) return;
    if (!lemon__name_ok((const uint8_t *)name, n) || bytes >= UINT32_MAX) {
        pack->status = lemon__fail(pack->ctx, LEMON_E_ARG,
                                   "key \"%.80s\" cannot be saved: its name or its text is too long", name);
        return;
    }
    lemon__put_number(&pack->keys, n, 2);
    lemon__put_number(&pack->keys, (uint64_t)type, 2);
    lemon__put_number(&pack->keys, bytes, 4);
    lemon__put(&pack->keys, name, n);
    lemon__put(&pack->keys, value, bytes);
    pack->status = pack->keys.status;
    pack->n_keys++;
}

static void lemon__pack_int(lemon__pack *pack, const char *name, int64_t value) {
    uint8_t bytes[8];
    lemon__put64(bytes, (uint64_t)value);
    lemon__pack_key(pack, name, LEMON__INT, bytes, 8);
}

static void lemon__pack_real(lemon__pack *pack, const char *name, double value) {
    uint8_t bytes[8];
    lemon__put64(bytes, lemon__bits64(value));
    lemon__pack_key(pack, name, LEMON__REAL, bytes, 8);
}

static void lemon__pack_text(lemon__pack *pack, const char *name, const char *text, size_t bytes) {
    lemon__pack_key(pack, name, LEMON__TEXT, text, bytes);
}

/*  A tensor to be stored as type `as`: its own, or any of f32, bf16, f16, q8, q4 from any of these. */
static lemon__packed *lemon__pack_tensor(lemon__pack *pack, const char *name, const lemon_tensor *tensor, lemon_dtype as) {
    const size_t n = strlen(name);
    const lemon_tensor stored = lemon__view(NULL, as, tensor->rows, tensor->cols);
    const size_t bytes = lemon_tensor_bytes(&stored);
    lemon__packed *t;
    if (pack->status) return NULL;
    if (!lemon__name_ok((const uint8_t *)name, n) || tensor->data == NULL || bytes == 0 ||
        (as != tensor->dtype && (as > LEMON_Q4 || tensor->dtype > LEMON_Q4))) {
        pack->status = lemon__fail(
            pack->ctx, LEMON_E_ARG, "tensor \"%.80s\" is %s [%lld, %lld], which cannot be saved as %s", name,
            lemon_dtype_name(tensor->dtype), (long long)tensor->rows, (long long)tensor->cols, lemon_dtype_name(as));
        return NULL;
    }
    if (!lemon__room(pack->ctx, &pack->tensors, &pack->capacity, pack->n_tensors + 1, sizeof *t)) {
        pack->status = LEMON_E_MEMORY;
        return NULL;
    }
    t = &pack->tensors[pack->n_tensors++];
    memset(t, 0, sizeof *t);
    memcpy(t->name, name, n);
    t->source = *tensor;
    t->stored = stored;
    t->vector = tensor->rows == 1;
    t->offset = pack->data_bytes;
    pack->data_bytes += lemon__pad_to(bytes, pack->align);
    return t;
}

static lemon_status lemon__array_append(void *user, const void *bytes, size_t count);

/*  Whether a writer is ours, which says itself what went wrong; for others it is said below. */
static int lemon__own_writer(const lemon_writer *writer) {
    return writer->append == lemon__file_append || writer->append == lemon__array_append;
}

static lemon_status lemon__append(lemon_ctx *ctx, const lemon_writer *writer, const void *bytes, size_t count) {
    if (count == 0 || writer->append(writer->user, bytes, count) == LEMON_OK) return LEMON_OK;
    if (!lemon__own_writer(writer))
        lemon__fail(ctx, LEMON_E_IO, "%s: %llu bytes could not be written", writer->name, (unsigned long long)count);
    return LEMON_E_IO;
}

/*  Ends what went into a writer: commits it, or after an error aborts it. */
static lemon_status lemon__conclude(lemon_ctx *ctx, const lemon_writer *writer, lemon_status status) {
    if (status) {
        if (writer->abort) writer->abort(writer->user);
        return status;
    }
    if (writer->commit == NULL || writer->commit(writer->user) == LEMON_OK) return LEMON_OK;
    if (!lemon__own_writer(writer)) lemon__fail(ctx, LEMON_E_IO, "%s: could not be committed", writer->name);
    return LEMON_E_IO;
}

/*  A whole file. */
static lemon_status lemon__write_file(lemon_ctx *ctx, const char *path, const void *bytes, size_t n) {
    lemon_writer writer;
    memset(&writer, 0, sizeof writer);              /* g++ does not see that a failure leaves it alone */
    lemon_status status = lemon_file_writer(ctx, path, &writer);
    return status ? status : lemon__conclude(ctx, &writer, lemon__append(ctx, &writer, bytes, n));
}

enum { LEMON__SLAB = 65536 };

/*  Whether a tensor goes out as it stands. */
static int lemon__packed_plain(const lemon__packed *t) {
    return t->stored.dtype == t->source.dtype && !t->halves && !lemon__big_endian();
}

/*  Room for rows that are converted on their way into the file, so many at a time that a writer gets a fair piece. */
static lemon_status lemon__slab_make(lemon__pack *pack) {
    int64_t cols = 1;
    size_t bytes = LEMON__SLAB;
    for (int64_t i = 0; i < pack->n_tensors; i++) {
        const lemon_tensor *stored = &pack->tensors[i].stored;
        size_t row = lemon_row_bytes(stored->dtype, stored->cols);
        if (lemon__packed_plain(&pack->tensors[i])) continue;
        cols = lemon__max(cols, stored->cols);
        bytes = row > bytes ? row : bytes;
    }
    pack->numbers = lemon__floats(pack->ctx, &pack->scratch, 1, cols);
    pack->slab = (uint8_t *)lemon_arena_alloc(pack->ctx, &pack->scratch, bytes);
    return pack->numbers && pack->slab ? LEMON_OK : LEMON_E_MEMORY;
}

/*  RoPE turns channels 2i and 2i+1 of a head here, channels i and i + head_dim/2 in Hugging Face's models; so the rows
    of wq and wk stand in another order there.  The row of ours that is `row` in theirs. */
static int64_t lemon__row_of_halves(int64_t row, int64_t head_dim) {
    int64_t channel = row % head_dim, half = head_dim / 2;
    return row - channel + (channel < half ? 2 * channel : 2 * (channel - half) + 1);
}

/*  Rows from ... from+n-1 of a tensor as the file has them: where they stand, or converted into the slab. */
static const uint8_t *lemon__slab_fill(const lemon__pack *pack, const lemon__packed *t, int64_t from, int64_t n) {
    size_t row_bytes = lemon_row_bytes(t->stored.dtype, t->stored.cols);
    lemon_tensor rows = t->stored;
    if (lemon__packed_plain(t)) return lemon__row(&t->source, from);
    rows.data = pack->slab;
    for (int64_t i = 0; i < n; i++) {
        int64_t row = t->halves ? lemon__row_of_halves(from + i, t->halves) : from + i;
        if (t->stored.dtype == t->source.dtype) {
            memcpy(pack->slab + (size_t)i * row_bytes, lemon__row(&t->source, row), row_bytes);
        } else {
            lemon_row_to_f32(&t->source, row, pack->numbers);
            lemon_row_from_f32(&rows, i, pack->numbers);
        }
    }
    lemon__swap(t->stored.dtype, pack->slab, (size_t)n * row_bytes);
    return pack->slab;
}

/*  One pass over a tensor: to the writer, or without one only for the checksum. */
static lemon_status lemon__pack_pass(const lemon__pack *pack, lemon__packed *t, const lemon_writer *writer) {
    size_t row_bytes = lemon_row_bytes(t->stored.dtype, t->stored.cols), total = lemon_tensor_bytes(&t->stored);
    const int whole = writer == NULL && lemon__packed_plain(t);       /* threads share its checksum */
    int64_t n, step = whole ? t->stored.rows : lemon__max(1, (int64_t)(LEMON__SLAB / row_bytes));
    lemon_status status = LEMON_OK;
    for (int64_t row = 0; row < t->stored.rows && !status; row += n) {
        n = lemon__min(step, t->stored.rows - row);
        const uint8_t *bytes = lemon__slab_fill(pack, t, row, n);
        if (writer) status = lemon__append(pack->ctx, writer, bytes, (size_t)n * row_bytes);
        else t->crc = lemon__checksum(pack->ctx, t->crc, bytes, (size_t)n * row_bytes);
    }
    if (status || writer == NULL) return status;
    lemon__pages(pack->ctx, t->source.data, lemon_tensor_bytes(&t->source), LEMON__GONE);
    return lemon__append(pack->ctx, writer, lemon__zeros, (size_t)(lemon__pad_to(total, pack->align) - total));
}

/*  A .lemon file takes two passes: the table with the checksums stands before the data, and a writer cannot go back. */
static lemon_status lemon__pack_stream(lemon__pack *pack, const lemon_writer *writer) {
    lemon__bytes front = lemon__bytes_in(pack->ctx);
    lemon_status status = lemon__slab_make(pack);
    for (int64_t i = 0; i < pack->n_tensors && !status && pack->front == lemon__pack_front; i++)
        status = lemon__pack_pass(pack, &pack->tensors[i], NULL);
    if (!status) pack->front(pack, &front);
    if (!status) status = front.status;
    if (!status) status = lemon__append(pack->ctx, writer, front.data, (size_t)front.count);
    lemon__bytes_free(&front);
    for (int64_t i = 0; i < pack->n_tensors && !status; i++) status = lemon__pack_pass(pack, &pack->tensors[i], writer);
    return status;
}

/*  Writes the file and commits the writer; on any error, earlier ones included, the writer is aborted. */
static lemon_status lemon__pack_write(lemon__pack *pack, const lemon_writer *writer) {
    if (pack->status == LEMON_E_ARG) lemon__blame(pack->ctx, writer->name, pack->status);
    if (!pack->status) pack->status = lemon__pack_stream(pack, writer);
    return pack->status = lemon__conclude(pack->ctx, writer, pack->status);
}

/*  The same to a file. */
static lemon_status lemon__pack_write_file(lemon__pack *pack, const char *path) {
    lemon_writer writer;
    if (!pack->status) pack->status = lemon_file_writer(pack->ctx, path, &writer);
    return pack->status ? pack->status : lemon__pack_write(pack, &writer);
}

/* ---- the unpack: a container that is being read ---- */

typedef struct lemon__key {
    int type, used;
    const uint8_t *name, *value;
    size_t name_bytes, bytes, at;   /* at: of GGUF's, where it stands in their list */
} lemon__key;

/*  How GGUF stores numbers: blocks of `numbers` in `bytes`.  Those with a decoder have no storage type here. */
typedef struct lemon__coding {
    uint32_t id;
    lemon_dtype dtype;              /* what they are, or become, in memory */
    int16_t numbers, bytes;
    void (*decode)(const struct lemon__coding *coding, const uint8_t *in, float *out);
    const char *name;
} lemon__coding;

/*  A tensor as it stands in the file. */
typedef struct lemon__entry {
    lemon_tensor tensor;
    const lemon__coding *coding;    /* how it is decoded; NULL: as tensor.dtype says */
    uint64_t offset;                /* in the data, where these are found later */
    int used;                       /* it has become a weight of the model */
} lemon__entry;

/*  Everything in here points into the file, which stays open (or in memory) as long as this does. */
typedef struct lemon__unpack {
    lemon_ctx *ctx;
    lemon_reader source;
    lemon__words key_names, tensor_names;
    lemon__key *keys;
    lemon__entry *tensors;
    int64_t keys_capacity, tensors_capacity;
    const char *family;             /* GGUF: its architecture, which keys of the model begin with */
} lemon__unpack;

typedef struct lemon__header {
    uint32_t n_keys, n_tensors;
    uint64_t keys_bytes, table_bytes, data_bytes, data_at;
} lemon__header;

#define LEMON__DAMAGED "the file is damaged; get it anew"

static void lemon__unpack_close(lemon__unpack *u) {
    lemon__free(u->ctx, u->keys, (size_t)u->keys_capacity * sizeof *u->keys);
    lemon__free(u->ctx, u->tensors, (size_t)u->tensors_capacity * sizeof *u->tensors);
    lemon__words_free(u->ctx, &u->key_names);
    lemon__words_free(u->ctx, &u->tensor_names);
    lemon__reader_close(&u->source);
    memset(u, 0, sizeof *u);
}

/*  Refuses a file; what is said follows its name. */
LEMON__PRINTF(3, 4)
static lemon_status lemon__refuse(const lemon__unpack *u, lemon_status code, const char *format, ...) {
    char text[LEMON__MESSAGE];
    va_list args;
    va_start(args, format);
    lemon__vformat(text, sizeof text, format, args);
    va_end(args);
    return lemon__fail(u->ctx, code, "%s: %s", u->source.name, text);
}

/*  A number of the file that is not what it must be. */
static lemon_status lemon__unpack_bad(const lemon__unpack *u, const char *field, uint64_t value, uint64_t expected) {
    return lemon__refuse(u, LEMON_E_FORMAT, "%s is %llu, expected %llu; " LEMON__DAMAGED, field,
                         (unsigned long long)value, (unsigned long long)expected);
}

/*  All that follows trusts these sizes, so they must add up to the file's own. */
static lemon_status lemon__unpack_header(const lemon__unpack *u, lemon__header *h) {
    const uint8_t *p = u->source.map;
    uint64_t size = u->source.size, room = size - LEMON__HEADER;
    if (size < LEMON__HEADER) return lemon__unpack_bad(u, "size in bytes", size, LEMON__HEADER);
    const uint32_t version = lemon__get32(p + 8), flags = lemon__get32(p + 12), right = lemon_crc32(0, p, 60);
    const uint64_t reserved = lemon__get64(p + 48);
    uint32_t crc = lemon__get32(p + 60);
    h->n_keys = lemon__get32(p + 16);
    h->n_tensors = lemon__get32(p + 20);
    h->keys_bytes = lemon__get64(p + 24);
    h->table_bytes = lemon__get64(p + 32);
    h->data_bytes = lemon__get64(p + 40);
    if (version != LEMON__FILE_VERSION)
        return lemon__refuse(u, LEMON_E_UNSUPPORTED, "version is %lu, expected %d; it is damaged, or a newer lemon.h "
                             "wrote it", (unsigned long)version, LEMON__FILE_VERSION);
    if (crc != right) return lemon__unpack_bad(u, "header CRC-32", crc, right);
    if (flags != 0) return lemon__unpack_bad(u, "flags", flags, 0);
    if (reserved != 0) return lemon__unpack_bad(u, "reserved field", reserved, 0);
    if (h->keys_bytes > room) return lemon__unpack_bad(u, "keys_bytes", h->keys_bytes, room);
    room -= h->keys_bytes;
    if (h->table_bytes > room) return lemon__unpack_bad(u, "table_bytes", h->table_bytes, room);
    uint64_t front = LEMON__HEADER + h->keys_bytes + h->table_bytes;
    h->data_at = lemon__pad(front);
    if (h->data_at > size || h->data_bytes != size - h->data_at)
        return lemon__refuse(u, LEMON_E_FORMAT, "size is %llu bytes, expected %llu; the file was cut short or appended "
                             "to", (unsigned long long)size, (unsigned long long)(h->data_at + h->data_bytes));
    crc = lemon_crc32(0, p + LEMON__HEADER, (size_t)(front - LEMON__HEADER));
    if (crc != lemon__get32(p + 56))
        return lemon__unpack_bad(u, "CRC-32 of keys and tensor table", crc, lemon__get32(p + 56));
    if (memcmp(p + front, lemon__zeros, (size_t)(h->data_at - front)) != 0)
        return lemon__refuse(u, LEMON_E_FORMAT, "padding before the data is not zero; " LEMON__DAMAGED);
    return LEMON_OK;
}

/*  A name within the file, which must be printable and new (NULL stands for one that the file ends in), and a place for
    the key, or a zeroed one for the tensor, that belongs to it: at names->count - 1. */
static lemon_status lemon__unpack_name(lemon__unpack *u, const uint8_t *name, size_t bytes, lemon__words *names,
                                       const char *what) {
    if (name == NULL || !lemon__name_ok(name, bytes))
        return lemon__refuse(u, LEMON_E_FORMAT, "name of %s %lld is not 1 to 63 printable characters; " LEMON__DAMAGED,
                             what, (long long)names->count);
    if (lemon__words_find(names, name, bytes) >= 0)
        return lemon__refuse(u, LEMON_E_FORMAT, "%s \"%.*s\" is there twice; " LEMON__DAMAGED, what, (int)bytes,
                             (const char *)name);
    if (!lemon__words_push(u->ctx, names, (size_t)(name - names->blob), bytes, 1)) return LEMON_E_MEMORY;
    const int key = names == &u->key_names;
    if (!(key ? lemon__room(u->ctx, &u->keys, &u->keys_capacity, names->count, sizeof *u->keys)
              : lemon__room(u->ctx, &u->tensors, &u->tensors_capacity, names->count, sizeof *u->tensors)))
        return LEMON_E_MEMORY;
    if (!key) memset(&u->tensors[names->count - 1], 0, sizeof *u->tensors);
    return LEMON_OK;
}

static lemon_status lemon__unpack_one_key(lemon__unpack *u, lemon__cursor *c) {
    lemon__key key;
    memset(&key, 0, sizeof key);
    key.name_bytes = lemon__take16(c);
    key.type = lemon__take16(c);
    key.bytes = lemon__take32(c);
    key.name = lemon__take(c, key.name_bytes);
    lemon_status status = lemon__unpack_name(u, key.name, key.name_bytes, &u->key_names, "key");
    if (status) return status;
    key.value = lemon__take(c, key.bytes);
    if (key.value == NULL) return lemon__unpack_bad(u, "bytes of a key's value", key.bytes, c->size - c->at);
    if (key.type < LEMON__INT || key.type > LEMON__TEXT)
        return lemon__unpack_bad(u, "type of a key", (uint64_t)key.type, LEMON__TEXT);
    if (key.type != LEMON__TEXT && key.bytes != 8) return lemon__unpack_bad(u, "bytes of a key's number", key.bytes, 8);
    u->keys[u->key_names.count - 1] = key;
    return LEMON_OK;
}

/*  A row of the tensor table, and its data: where they must be, as many as the shape takes, under their checksum, zeros
    behind them.  *end is where the tensor before it ended, for none may overlap, or leave bytes between. */
static lemon_status lemon__unpack_one_tensor(lemon__unpack *u, const lemon__header *h, lemon__cursor *c, uint64_t *end) {
    size_t n = lemon__take16(c);
    unsigned dtype = lemon__take16(c);
    const unsigned long long rows = lemon__take64(c), cols = lemon__take64(c), offset = lemon__take64(c);
    const unsigned long long bytes = lemon__take64(c), begin = lemon__pad(*end), all = h->data_bytes;
    uint32_t crc = lemon__take32(c);
    const uint8_t *name = lemon__take(c, n);
    char called[LEMON__NAME + 16];
    lemon_status status = lemon__unpack_name(u, name, n, &u->tensor_names, "tensor");
    if (status) return status;
    lemon_tensor *t = &u->tensors[u->tensor_names.count - 1].tensor;
    lemon__format(called, sizeof called, "tensor \"%.*s\"", (int)n, (const char *)name);
    t->dtype = dtype < LEMON_DTYPE_COUNT ? (lemon_dtype)dtype : LEMON_DTYPE_COUNT;
    t->rows = rows <= INT64_MAX ? (int64_t)rows : 0;
    t->cols = cols <= INT64_MAX ? (int64_t)cols : 0;
    if (bytes == 0 || lemon_tensor_bytes(t) != bytes)
        return lemon__refuse(u, LEMON_E_FORMAT, "%s is %s [%llu, %llu] in %llu bytes, which cannot be; " LEMON__DAMAGED,
                             called, lemon_dtype_name(t->dtype), rows, cols, bytes);
    if (offset != begin)
        return lemon__refuse(u, LEMON_E_FORMAT, "%s begins at byte %llu of the data, expected %llu; " LEMON__DAMAGED,
                             called, offset, begin);
    if (offset > all || bytes > all - offset || lemon__pad(bytes) > all - offset)
        return lemon__refuse(u, LEMON_E_FORMAT, "%s ends at byte %llu of the data, which have only %llu; " LEMON__DAMAGED,
                             called, offset + bytes, all);
    const uint8_t *data = u->source.map + (h->data_at + offset);
    uint32_t actual = lemon__checksum(u->ctx, 0, data, (size_t)bytes);
    if (actual != crc || memcmp(data + bytes, lemon__zeros, (size_t)(lemon__pad(bytes) - bytes)) != 0)
        return lemon__refuse(u, LEMON_E_FORMAT, "%s %s; " LEMON__DAMAGED, called,
                             actual != crc ? "does not agree with its checksum" : "has padding that is not zero");
    t->data = lemon__unconst(data);
    lemon__swap(t->dtype, t->data, (size_t)bytes);
    *end = offset + bytes;
    return LEMON_OK;
}

LEMON__APART lemon_status lemon__unpack_contents(lemon__unpack *u, const lemon__header *h) {
    lemon__cursor c = lemon__cursor_over(&u->source);
    lemon_status status = LEMON_OK;
    uint64_t end = 0;
    c.at = LEMON__HEADER;
    c.size = (size_t)(c.at + h->keys_bytes);
    u->key_names.blob = u->tensor_names.blob = c.bytes;
    for (uint32_t i = 0; i < h->n_keys && !status; i++) status = lemon__unpack_one_key(u, &c);
    if (!status && c.at != c.size) status = lemon__unpack_bad(u, "keys_bytes", h->keys_bytes, c.at - LEMON__HEADER);
    c.size += (size_t)h->table_bytes;
    for (uint32_t i = 0; i < h->n_tensors && !status; i++) status = lemon__unpack_one_tensor(u, h, &c, &end);
    if (!status && c.at != c.size)
        status = lemon__unpack_bad(u, "table_bytes", h->table_bytes, c.at - LEMON__HEADER - h->keys_bytes);
    if (!status && lemon__pad(end) != h->data_bytes)
        status = lemon__unpack_bad(u, "data_bytes", h->data_bytes, lemon__pad(end));
    return status;
}

/*  Whether this word is one of a list, which are separated by blanks. */
static int lemon__list_has(const char *list, size_t bytes, const char *word, size_t n) {
    for (size_t i = 0; i + n <= bytes; i++)
        if ((i == 0 || list[i - 1] == ' ') && (i + n == bytes || list[i + n] == ' ') && memcmp(list + i, word, n) == 0)
            return 1;
    return 0;
}

static int lemon__unpack_has(const lemon__unpack *u, const char *name) {
    return lemon__words_find(&u->key_names, name, strlen(name)) >= 0;
}

/*  A key of a given type; NULL with a message where there is none. */
static const lemon__key *lemon__unpack_key(const lemon__unpack *u, const char *name, int type) {
    static const char *const types[] = {"", "an integer", "a real number", "a text"};
    int32_t i = lemon__words_find(&u->key_names, name, strlen(name));
    if (i >= 0 && u->keys[i].type == type) return &u->keys[i];
    lemon__refuse(u, LEMON_E_FORMAT, "key \"%s\" is %s, expected %s", name, i < 0 ? "missing" : "of another type",
                  types[type]);
    return NULL;
}

static lemon_status lemon__unpack_int(const lemon__unpack *u, const char *name, int64_t *value) {
    const lemon__key *key = lemon__unpack_key(u, name, LEMON__INT);
    *value = key ? (int64_t)lemon__get64(key->value) : 0;
    return key ? LEMON_OK : LEMON_E_FORMAT;
}

static lemon_status lemon__unpack_real(const lemon__unpack *u, const char *name, double *value) {
    const lemon__key *key = lemon__unpack_key(u, name, LEMON__REAL);
    uint64_t bits = key ? lemon__get64(key->value) : 0;
    memcpy(value, &bits, 8);
    return key ? LEMON_OK : LEMON_E_FORMAT;
}

/*  The text is not terminated. */
static lemon_status lemon__unpack_text(const lemon__unpack *u, const char *name, const char **text, size_t *bytes) {
    const lemon__key *key = lemon__unpack_key(u, name, LEMON__TEXT);
    *text = key ? (const char *)key->value : "";
    *bytes = key ? key->bytes : 0;
    return key ? LEMON_OK : LEMON_E_FORMAT;
}

/*  A tensor as it stands in the file; it must not be written to. */
static lemon_status lemon__unpack_tensor(const lemon__unpack *u, const char *name, lemon_tensor *tensor) {
    int32_t i = lemon__words_find(&u->tensor_names, name, strlen(name));
    memset(tensor, 0, sizeof *tensor);
    if (i < 0) return lemon__refuse(u, LEMON_E_FORMAT, "tensor \"%s\" is missing", name);
    *tensor = u->tensors[i].tensor;
    return LEMON_OK;
}

/*  Refuses another shape than this; `why` says where the expectation comes from, as in "d_model is 64". */
static lemon_status lemon__unpack_shape(const lemon__unpack *u, const char *name, const lemon_tensor *tensor,
                                        int64_t rows, int64_t cols, const char *why) {
    if (tensor->rows == rows && tensor->cols == cols) return LEMON_OK;
    return lemon__refuse(u, LEMON_E_FORMAT, "tensor \"%s\" is [%lld, %lld], expected [%lld, %lld] (%s)", name,
                         (long long)tensor->rows, (long long)tensor->cols, (long long)rows, (long long)cols, why);
}

/*  A tensor where only one type and shape will do; cols -1: a row of any length. */
static lemon_status lemon__unpack_shaped(const lemon__unpack *u, const char *name, lemon_dtype dtype, int64_t rows,
                                         int64_t cols, const char *why, lemon_tensor *tensor) {
    lemon_status status = lemon__unpack_tensor(u, name, tensor);
    if (!status) status = lemon__unpack_shape(u, name, tensor, rows, cols < 0 ? tensor->cols : cols, why);
    if (status || tensor->dtype == dtype) return status;
    return lemon__refuse(u, LEMON_E_FORMAT, "tensor \"%s\" is %s, expected %s", name, lemon_dtype_name(tensor->dtype),
                         lemon_dtype_name(dtype));
}

/*  Parts that the file requires and `known` does not list are refused by name; so is a file without `needed`. */
static lemon_status lemon__unpack_parts(const lemon__unpack *u, const char *known, const char *needed) {
    const char *list;
    size_t bytes, n;
    lemon_status status = lemon__unpack_text(u, "requires", &list, &bytes);
    if (status) return status;
    for (size_t at = 0; at < bytes; at += n + 1) {
        for (n = 0; at + n < bytes && list[at + n] != ' ';) n++;
        if (n > 0 && !lemon__list_has(known, strlen(known), list + at, n))
            return lemon__refuse(u, LEMON_E_UNSUPPORTED, "requires the part \"%.*s\", expected %s; it holds something "
                                 "else, or a newer lemon.h wrote it", (int)(n < 40 ? n : 40), list + at, known);
    }
    if (lemon__list_has(list, bytes, needed, strlen(needed))) return LEMON_OK;
    return lemon__refuse(u, LEMON_E_FORMAT, "has no part \"%s\"; it holds something else", needed);
}

/*  Opens a container and checks all of it, checksums included.  Takes the reader over: lemon__unpack_close closes it, or
    an error at once.  known: the parts that the caller can read; needed: the one that must be there. */
LEMON__APART lemon_status lemon__unpack_open(lemon_ctx *ctx, const lemon_reader *reader, const char *known,
                                             const char *needed, lemon__unpack *u) {
    lemon__header h;
    uint8_t magic[8];
    memset(&h, 0, sizeof h);
    memset(u, 0, sizeof *u);
    u->ctx = ctx;
    u->source = *reader;
    lemon_status status = lemon__fetch(ctx, reader, 0, magic, 8);
    if (!status && memcmp(magic, lemon__magic, 8) != 0)
        status = lemon__refuse(u, LEMON_E_FORMAT, "the first 8 bytes are not those of a .lemon file%s",
                               memcmp(magic, "LEMON", 5) ? "" : "; a transfer in text mode may have changed it");
    if (!status) status = lemon__hold(ctx, &u->source);
    if (!status) status = lemon__unpack_header(u, &h);
    if (!status) status = lemon__unpack_contents(u, &h);
    if (!status) status = lemon__unpack_parts(u, known, needed);
    if (status) lemon__unpack_close(u);
    return status;
}

/* ---- configs, as every format has them ---- */

/*  Stores a number of a file under the field's name there; what follows from the others is lemon_config_check's. */
static lemon_status lemon__field_set(lemon_ctx *ctx, const char *file, const char *name,
                                     const struct lemon__field *field, double value, lemon_config *config) {
    if (field->real && !(fabs(value) < 1e30))
        return lemon__fail(ctx, LEMON_E_FORMAT, "%s: %s is %g, expected a smaller number", file, name, value);
    if (!field->real && (!(value >= 0 && value <= INT32_MAX) || value < floor(value) || value > floor(value)))
        return lemon__fail(ctx, LEMON_E_FORMAT, "%s: %s is %.19g, expected 0 to %ld", file, name, value, (long)INT32_MAX);
    const float real = (float)value;
    const int32_t whole = field->real ? 0 : (int32_t)value;
    memcpy((uint8_t *)config + field->offset, field->real ? (const void *)&real : (const void *)&whole, 4);
    return LEMON_OK;
}

/*  prefix: "", or for files that hold two configs "teacher." and "student.". */
static void lemon__pack_config(lemon__pack *pack, const char *prefix, const lemon_config *config) {
    char name[LEMON__NAME];
    for (int i = 0; i < LEMON__FIELDS; i++) {
        double value = lemon__field_get(config, &lemon__fields[i]);
        if (!lemon__field_used(config, &lemon__fields[i]) || (lemon__fields[i].hf == NULL && value <= 0)) continue;
        lemon__format(name, sizeof name, "%s%s", prefix, lemon__fields[i].name);
        if (lemon__fields[i].real) lemon__pack_real(pack, name, value);
        else lemon__pack_int(pack, name, (int64_t)value);
    }
}

LEMON__APART lemon_status lemon__unpack_config(const lemon__unpack *u, const char *prefix, lemon_config *config) {
    char name[LEMON__NAME];
    lemon_status status = LEMON_OK;
    memset(config, 0, sizeof *config);
    for (int i = 0; i < LEMON__FIELDS && !status; i++) {
        const struct lemon__field *field = &lemon__fields[i];
        double value = 0;
        int64_t whole = 0;
        lemon__format(name, sizeof name, "%s%s", prefix, field->name);
        if (!lemon__field_used(config, field) || (field->hf == NULL && !lemon__unpack_has(u, name))) continue;
        status = field->real ? lemon__unpack_real(u, name, &value) : lemon__unpack_int(u, name, &whole);
        if (!field->real) value = (double)whole;
        if (!status) status = lemon__field_set(u->ctx, u->source.name, name, field, value, config);
    }
    if (!status && lemon_config_check(u->ctx, config)) status = lemon__blame(u->ctx, u->source.name, LEMON_E_FORMAT);
    return status;
}

/*  What YaRN multiplies queries and keys by, where nothing else is said. */
static double lemon__yarn_magnitude(double factor) { return factor > 1 ? 0.1 * log(factor) + 1 : 1; }

/*  A config out of a file that may leave fields out.  get: 1 and the value, 0 where there is none, -1 where it is no number. */
static lemon_status lemon__config_read(lemon_ctx *ctx, const char *file, lemon__style style, void *from,
                                       int (*get)(void *from, const struct lemon__field *field, double *value),
                                       int rope_scaling, lemon_config *config) {
    lemon_status status = LEMON_OK;
    memset(config, 0, sizeof *config);
    config->rope_theta = 10000.0f;
    config->rms_norm_eps = 1e-6f;           /* what Hugging Face's LlamaConfig has; GGUF always tells */
    config->rope_scaling = rope_scaling;
    if (rope_scaling >= LEMON_ROPE_LLAMA3) config->rope_slow = 1;
    if (rope_scaling >= LEMON_ROPE_LLAMA3) config->rope_fast = rope_scaling == LEMON_ROPE_YARN ? 32 : 4;
    for (int i = 0; i < LEMON__FIELDS && !status; i++) {
        const struct lemon__field *field = &lemon__fields[i];
        const char *name = style == LEMON__STYLE_HF ? field->hf : field->gguf;
        double value = 0;
        if (!lemon__field_used(config, field)) continue;
        int got = name ? get(from, field, &value) : 0;
        if (got > 0) status = lemon__field_set(ctx, file, name, field, value, config);
        else if (got < 0) status = lemon__fail(ctx, LEMON_E_FORMAT, "%s: %s is not a number", file, name);
        else if (field->offset == offsetof(lemon_config, kv_heads)) config->kv_heads = config->n_heads;
        else if (field->offset == offsetof(lemon_config, head_dim) && config->n_heads > 0)
            config->head_dim = config->d_model / config->n_heads;
        else if (field->offset == offsetof(lemon_config, rope_original)) config->rope_original = config->max_seq;
        else if (field->offset == offsetof(lemon_config, rope_magnitude))
            config->rope_magnitude = (float)lemon__yarn_magnitude((double)config->rope_factor);
        else if (!field->real && name && field->offset != offsetof(lemon_config, tied_embeddings))
            status = lemon__fail(ctx, LEMON_E_FORMAT, "%s: %s is missing, expected an integer", file, name);
    }
    return status;
}

/*  The name of an architecture as one of ours; others are refused with the reason, where there is one to tell. */
static lemon_status lemon__family_find(lemon_ctx *ctx, const char *file, const char *key, const uint8_t *name,
                                       size_t bytes, const char **family) {
    static const char *const known[] = {"llama", "mistral", "qwen2", "qwen3", "phi3"};
    static const char *const reasons[][2] = {
        {"moe", "; its layers are mixtures of experts"}, {"mixtral", "; its layers are mixtures of experts"},
        {"deepseek", "; its attention keeps latent vectors"}, {"gemma", "; its norms and activations are others"},
        {"phi", "; its norms or positions are others"}, {"gpt", "; its norms, activations and positions are others"},
        {"llama4", "; its layers are mixtures of experts"}, {"qwen", "; its attention is another"}, {"", ""}};
    char text[40];
    size_t i;
    lemon__format(text, sizeof text, "%.*s", name ? (int)lemon__min((int64_t)bytes, 39) : 7,
             name ? (const char *)name : "missing");
    for (i = 0; i < 5; i++)
        if (strcmp(text, known[i]) == 0) { *family = known[i]; return LEMON_OK; }
    for (i = 0; strstr(text, reasons[i][0]) == NULL; i++) {}
    return lemon__fail(ctx, LEMON_E_UNSUPPORTED, "%s: %s is %s, expected llama, mistral, qwen2, qwen3 or phi3%s", file,
                       key, text, reasons[i][1]);
}

/* ---- models as keys and tensors ---- */

/*  The tokenizer as keys and tensors is chapter 9's: the one place where this chapter looks ahead. */
static lemon_status lemon__tokenizer_pack(lemon__pack *pack, const lemon_tokenizer *tokenizer);
static lemon_status lemon__tokenizer_unpack(const lemon__unpack *u, lemon_tokenizer **tokenizer);
static lemon_status lemon__tokenizer_from_gguf(const lemon__unpack *u, lemon_tokenizer **tokenizer);
static void lemon__tokenizer_to_gguf(lemon__pack *pack, const lemon_tokenizer *tokenizer, int32_t vocab_size);
static void lemon__tokenizer_to_json(const lemon_tokenizer *tokenizer, lemon__bytes *out);
static void lemon__tokenizer_to_config(const lemon_model *model, lemon__bytes *out);
static void lemon__tags_to_gguf(lemon__pack *pack, const lemon_model *model);
static lemon_status lemon__tokenizer_from_parts(lemon_ctx *ctx, const char *folder, lemon_model *model);

/*  A tokenizer may be smaller than the model's vocabulary (some are padded), never larger. */
static lemon_status lemon__vocabulary_check(lemon_ctx *ctx, const lemon_tokenizer *tokenizer, int32_t vocab_size) {
    int32_t size = lemon_tokenizer_size(tokenizer);
    if (size <= vocab_size) return LEMON_OK;
    return lemon__fail(ctx, LEMON_E_ARG, "the tokenizer has %ld pieces, expected at most %ld, which is vocab_size",
                       (long)size, (long)vocab_size);
}

/*  The storage type of a parameter in a file.  Vectors stay f32, for they are few and everything is multiplied by them,
    but in Hugging Face's folders, where all tensors are of one type; GGUF has no padded blocks. */
static lemon_dtype lemon__param_dtype(const lemon_tensor *param, lemon__style style, lemon_dtype dtype) {
    if (param->rows == 1 && style != LEMON__STYLE_HF) return LEMON_F32;
    if (style == LEMON__STYLE_GGUF && dtype >= LEMON_Q8 && param->cols % LEMON__BLOCK) return LEMON_F16;
    return dtype;
}

/*  head_dim where a role's rows stand in Hugging Face's order in a file of this family, else 0; GGUF has LLaMA's in ours. */
static int64_t lemon__halves(const lemon_config *c, lemon_role role, lemon__style style, const char *family) {
    int turned = role == LEMON_WQ || role == LEMON_WK || role == LEMON_BQ || role == LEMON_BK || role == LEMON_Q_NORM ||
                 role == LEMON_K_NORM;
    int theirs = style == LEMON__STYLE_HF || (style == LEMON__STYLE_GGUF && (family[0] == 'q' || family[0] == 'p'));
    return turned && theirs ? c->head_dim : 0;
}

/*  A vector as a column, whose rows are its numbers. */
static void lemon__as_column(lemon_tensor *t) { t->rows = t->cols; t->cols = 1; }

/*  Parameters from ... to-1 of the table; matrices become `dtype`. */
static void lemon__pack_params(lemon__pack *pack, const lemon_model *model, int64_t from, int64_t to,
                               lemon__style style, lemon_dtype dtype) {
    char name[LEMON__NAME];
    int64_t layer;
    for (int64_t i = from; i < to; i++) {
        const lemon_tensor *param = &model->params[i];
        lemon_role role = lemon__param_role(&model->config, i, &layer);
        lemon__param_name(model, i, style, NULL, name, sizeof name);
        lemon__packed *t = lemon__pack_tensor(pack, name, param, lemon__param_dtype(param, style, dtype));
        if (t) t->halves = lemon__halves(&model->config, role, style, lemon_config_family(&model->config));
        if (t && t->halves && t->vector) { lemon__as_column(&t->source); lemon__as_column(&t->stored); }
    }
}

/*  The part "model": arch, the config, the parameters, the tokenizer if there is one, and what else the model carries. */
static void lemon__pack_model(lemon__pack *pack, const lemon_model *model, lemon_dtype dtype) {
    char name[2 * LEMON__NAME];
    if (!pack->status) pack->status = lemon__vocabulary_check(pack->ctx, model->tokenizer, model->config.vocab_size);
    lemon__pack_text(pack, "arch", lemon_config_family(&model->config), strlen(lemon_config_family(&model->config)));
    lemon__pack_config(pack, "", &model->config);
    for (int64_t i = 0; i < model->n_parts; i++) {
        lemon__format(name, sizeof name, "part.%s", model->parts[i].name);
        lemon__pack_text(pack, name, (const char *)model->parts[i].data, model->parts[i].bytes);
    }
    lemon__pack_params(pack, model, 0, model->n_params, LEMON__STYLE_LEMON, dtype);
    if (!pack->status && model->tokenizer) pack->status = lemon__tokenizer_pack(pack, model->tokenizer);
}

/*  Which number of the config a parameter's shape follows from, in words: the joint on the side that does not fit. */
static void lemon__shape_reason(const lemon_model *model, int64_t i, int rows_differ, char *out, size_t size) {
    static const char *const joints[] = {"a vector has one row", "vocab_size", "d_model", "n_heads * head_dim",
                                         "kv_heads * head_dim", "kv_heads * head_dim", "n_heads * head_dim", "d_ffn",
                                         "head_dim"};
    int64_t layer;
    const lemon_role_info *info = lemon_role_get(lemon__param_role(&model->config, i, &layer));
    lemon_joint joint = rows_differ ? info->out : info->in;
    if (joint == LEMON_JOINT_NONE) lemon__format(out, size, "%s", joints[joint]);
    else lemon__format(out, size, "%s is %lld", joints[joint], (long long)lemon_joint_size(&model->config, joint));
}

static size_t lemon__entry_row_bytes(const lemon__entry *e, int64_t cols) {
    if (!LEMON__FORMATS || !e->coding) return lemon_row_bytes(e->tensor.dtype, cols);
    return (size_t)(cols / e->coding->numbers) * (size_t)e->coding->bytes;
}

/*  A tensor of a file becomes a weight: it stays where it stands, or is copied where its numbers must be decoded (vectors
    are f32 in memory) or are not aligned, as in old safetensors, or where its rows must be put in order (halves). */
static lemon_status lemon__adopt(lemon_ctx *ctx, lemon_model *model, const lemon__entry *e, int64_t halves,
                                 lemon_tensor *param) {
    lemon_tensor from = e->tensor;
    const lemon__coding *coding = e->coding;
    const int as_is = !coding && (from.dtype == LEMON_F32 || from.rows > 1);
    *param = from;
    if (as_is && !halves && (uintptr_t)from.data % (from.dtype == LEMON_F32 ? 4 : 2) == 0) return LEMON_OK;
    if (from.rows == 1) param->dtype = LEMON_F32;
    param->data = lemon_arena_alloc(ctx, &model->arena, lemon_tensor_bytes(param));
    lemon_tensor to = *param;
    if (halves && from.rows == 1) { lemon__as_column(&from); lemon__as_column(&to); }
    size_t row_bytes = lemon__entry_row_bytes(e, from.cols);
    float *numbers = (float *)lemon__malloc(ctx, (size_t)from.cols * sizeof(float));
    for (int64_t i = 0; to.data && numbers && i < from.rows; i++) {
        const uint8_t *in = (const uint8_t *)from.data + (size_t)i * row_bytes;
        int64_t row = halves ? lemon__row_of_halves(i, halves) : i;
        if (as_is) {
            memcpy((uint8_t *)to.data + (size_t)row * row_bytes, in, row_bytes);
            continue;
        }
        for (int64_t j = 0; coding && j < from.cols; j += coding->numbers, in += coding->bytes)
            coding->decode(coding, in, numbers + j);
        if (!coding) lemon_row_to_f32(&from, i, numbers);
        lemon_row_from_f32(&to, row, numbers);
    }
    lemon__free(ctx, numbers, (size_t)from.cols * sizeof(float));
    if (to.data == NULL || numbers == NULL) return LEMON_E_MEMORY;
    lemon__pages(ctx, to.data, lemon_tensor_bytes(&to), LEMON__GONE);
    lemon__pages(ctx, from.data, (size_t)from.rows * row_bytes, LEMON__GONE);
    return LEMON_OK;
}

/*  Phi-3 has queries, keys and values in one matrix, and gate and up in another: its name, its rows, and the first of
    this role.  NULL: the role has a matrix of its own. */
static const char *lemon__fused_name(const lemon_config *c, lemon_role role, lemon__style style, int64_t *first,
                                     int64_t *rows) {
    static const char *const names[2][2] = {{"self_attn.qkv_proj", "attn_qkv"}, {"mlp.gate_up_proj", "ffn_up"}};
    int ffn = role > LEMON_WV;
    if (role < LEMON_WQ || role > LEMON_W_UP || role == LEMON_WO || role == LEMON_FFN_NORM) return NULL;
    *rows = 0;
    for (int i = ffn ? LEMON_W_GATE : LEMON_WQ; i <= (ffn ? LEMON_W_UP : LEMON_WV); i++) {
        if (i == (int)role) *first = *rows;
        *rows += lemon_joint_size(c, lemon__roles[i].out);
    }
    return names[ffn][style == LEMON__STYLE_GGUF];
}

/*  A parameter of the table: found by name in one of n files, of the shape that the config asks for, of a type for weights. */
static lemon_status lemon__unpack_param(lemon__unpack *u, int64_t n, lemon__style style, const char *family,
                                        lemon_model *model, int64_t i) {
    lemon_tensor *param = &model->params[i];
    char name[LEMON__NAME], why[96] = "";
    int32_t at = -1;
    int64_t k, layer, first = 0, rows = param->rows;
    lemon_role role = lemon__param_role(&model->config, i, &layer);
    const char *fused = NULL;
    if (LEMON__FORMATS && family[0] == 'p') fused = lemon__fused_name(&model->config, role, style, &first, &rows);
    lemon__param_name(model, i, style, fused, name, sizeof name);
    for (k = 0; k < n && at < 0; k++) at = lemon__words_find(&u[k].tensor_names, name, strlen(name));
    if (at < 0) return lemon__refuse(u, LEMON_E_FORMAT, "tensor \"%s\" is missing", name);
    u += k - 1;
    u->tensors[at].used = 1;
    lemon__entry e = u->tensors[at];
    lemon_tensor *t = &e.tensor;
    lemon__shape_reason(model, i, t->rows != rows, why, sizeof why);
    if (lemon__unpack_shape(u, name, t, rows, param->cols, why)) return LEMON_E_FORMAT;
    int64_t halves = lemon__halves(&model->config, role, style, family);
    if (t->dtype > (t->rows == 1 && style == LEMON__STYLE_LEMON ? LEMON_F32 : LEMON_Q4) ||
        (t->rows == 1 && halves && (t->dtype > LEMON_F16 || e.coding)))
        return lemon__refuse(u, LEMON_E_FORMAT, "tensor \"%s\" is %s, expected %s", name, lemon_dtype_name(t->dtype),
                             t->rows == 1 ? "f32" : "f32, bf16, f16, q8 or q4");
    t->rows = param->rows;
    t->data = (uint8_t *)t->data + (size_t)first * lemon__entry_row_bytes(&e, t->cols);
    if (LEMON__FORMATS) return lemon__adopt(u->ctx, model, &e, halves, param);
    *param = *t;                        /* what a .lemon file has is as it must be in memory */
    return LEMON_OK;
}

/*  The type that most numbers of the matrices have. */
static lemon_dtype lemon__model_dtype(const lemon_model *model) {
    int64_t count[LEMON_DTYPE_COUNT] = {0};
    int best = (int)model->params[0].dtype;
    for (int64_t i = 0; i < model->n_params; i++)
        if (model->params[i].rows > 1) count[model->params[i].dtype] += model->params[i].rows * model->params[i].cols;
    for (int64_t i = 0; i < LEMON_DTYPE_COUNT; i++)
        if (count[i] > count[best]) best = (int)i;
    return (lemon_dtype)best;
}

/*  A tensor that nothing consumes would be missed by the model that was trained with it.  Known to be idle are the
    output where it is tied to the embedding, and tables of RoPE factors; a .lemon file may have other parts too. */
static lemon_status lemon__unpack_idle(const lemon__unpack *u, lemon__style style) {
    static const char *const idle[] = {"lm_head.weight", "output.weight", ".rotary_emb.inv_freq"};
    for (int64_t i = 0; i < u->tensor_names.count; i++) {
        lemon__span span = u->tensor_names.spans[i];
        const char *name = (const char *)u->tensor_names.blob + span.start;
        int known = u->tensors[i].used ||
                    (style == LEMON__STYLE_LEMON && (span.bytes < 7 || memcmp(name, "layers.", 7) != 0));
        for (int j = 0; j < 3; j++) {
            size_t n = strlen(idle[j]);
            known |= span.bytes >= n && memcmp(name + span.bytes - n, idle[j], n) == 0;
        }
        if (!known)
            return lemon__refuse(u, LEMON_E_UNSUPPORTED, "tensor \"%.*s\" has no place in a LLaMA model of this "
                                 "config; the model is of a kind that lemon.h does not know", (int)span.bytes, name);
    }
    return LEMON_OK;
}

static lemon_status lemon__unpack_params(lemon__unpack *u, int64_t n, lemon__style style, const char *family,
                                         const lemon_config *config, lemon_model **model) {
    int64_t tensors = 0;
    for (int64_t i = 0; i < n; i++) tensors += u[i].tensor_names.count;
    if (config->n_layers > tensors)
        return lemon__refuse(u, LEMON_E_FORMAT, "n_layers is %ld, but there are only %lld tensors",
                             (long)config->n_layers, (long long)tensors);
    lemon_status status = lemon__model_new(u->ctx, config, model);
    if (!status && style == LEMON__STYLE_HF && lemon__scratch_path(u->ctx))     /* wq and wk, put in order */
        status = lemon__arena_scratch_beside(u->ctx, &(*model)->arena, ".teacher", lemon_config_params(config));
    for (int64_t i = 0; !status && i < (*model)->n_params; i++) status = lemon__unpack_param(u, n, style, family, *model, i);
    for (int64_t i = 0; !status && i < n; i++) status = lemon__unpack_idle(&u[i], style);
    if (!status) (*model)->dtype = lemon__model_dtype(*model);
    return lemon__memory_or_file(u->ctx, status);
}

/*  Keys whose names begin with "part." are what the model carries along. */
static lemon_status lemon__unpack_carried(const lemon__unpack *u, lemon_model *model) {
    lemon_status status = LEMON_OK;
    for (int64_t i = 0; i < u->key_names.count && !status; i++) {
        const lemon__key *key = &u->keys[i];
        if (key->name_bytes < 6 || memcmp(key->name, "part.", 5) != 0 || key->type != LEMON__TEXT) continue;
        status = lemon__part_add(u->ctx, model, (const char *)key->name + 5, key->name_bytes - 5, key->value, key->bytes);
    }
    return status;
}

/*  The end of reading a model out of a file, which it keeps, for its weights stay there; an error leaves neither. */
static lemon_status lemon__unpack_done(lemon__unpack *u, lemon_status status, const char *format, lemon_model **model) {
    lemon_ctx *ctx = u->ctx;
    if (!status && lemon__vocabulary_check(ctx, (*model)->tokenizer, (*model)->config.vocab_size))
        status = lemon__blame(ctx, u->source.name, LEMON_E_FORMAT);
    if (!status) {
        lemon__format((*model)->format, sizeof (*model)->format, "%s", format);
        (*model)->source = u->source;
        memset(&u->source, 0, sizeof u->source);
    }
    lemon__unpack_close(u);
    return lemon__model_done(ctx, status, model);
}

/*  A .lemon file with the part "model". */
static lemon_status lemon__load_lemon(lemon_ctx *ctx, const lemon_reader *reader, lemon_model **model) {
    lemon__unpack u;
    const char *arch;
    size_t bytes;
    lemon_config config;
    lemon_status status = lemon__unpack_open(ctx, reader, "model tokenizer", "model", &u);
    if (status) return status;
    status = lemon__unpack_text(&u, "arch", &arch, &bytes);
    memset(&config, 0, sizeof config);
    if (!status) status = lemon__unpack_config(&u, "", &config);
    const char *family = lemon_config_family(&config);
    if (!status && (bytes != strlen(family) || memcmp(arch, family, bytes) != 0))
        status = lemon__refuse(&u, LEMON_E_UNSUPPORTED, "arch is \"%.*s\", expected \"%s\", of which the other keys speak",
                               (int)(bytes < 40 ? bytes : 40), arch, family);
    if (!status) status = lemon__unpack_params(&u, 1, LEMON__STYLE_LEMON, family, &config, model);
    if (!status) status = lemon__unpack_carried(&u, *model);
    if (!status && lemon__unpack_has(&u, "tokenizer.type")) status = lemon__tokenizer_unpack(&u, &(*model)->tokenizer);
    return lemon__unpack_done(&u, status, "lemon", model);
}

/* ---- llama2.c's .bin, three versions.  Karpathy's run.c reads them so:

       0   seven int32 (a negative vocabulary size: the output is not tied), then f32 weights, each role stacked over
           the layers; behind the final norm two tables of RoPE factors that nobody needs any more; then the output,
           if untied
       1   "24ka", version, seven int32, one byte: tied; zeros up to byte 256; f32 weights, norms first
       2   as 1, but behind the byte an int32: the group size; each matrix is int8 numbers, then an f32 scale for each
           group of them
   ---- */

#define LEMON__L2C_MAGIC 0x616b3432u
enum { LEMON__L2C_HEADER = 256, LEMON__L2C_STEPS = 13, LEMON__L2C_ROPE = LEMON_ROLE_COUNT };

typedef struct lemon__llama2c {
    lemon__unpack file;             /* for messages */
    lemon_config config;
    int64_t version, group;         /* group: numbers that share a scale in version 2 */
    lemon__cursor at;
} lemon__llama2c;

static const uint8_t lemon__llama2c_order[2][LEMON__L2C_STEPS] = {
    {LEMON_TOK_EMBED, LEMON_ATTN_NORM, LEMON_WQ, LEMON_WK, LEMON_WV, LEMON_WO, LEMON_FFN_NORM, LEMON_W_GATE,
     LEMON_W_DOWN, LEMON_W_UP, LEMON_FINAL_NORM, LEMON__L2C_ROPE, LEMON_OUTPUT},
    {LEMON_ATTN_NORM, LEMON_FFN_NORM, LEMON_FINAL_NORM, LEMON_TOK_EMBED, LEMON_WQ, LEMON_WK, LEMON_WV, LEMON_WO,
     LEMON_W_GATE, LEMON_W_DOWN, LEMON_W_UP, LEMON_OUTPUT, LEMON__L2C_ROPE}};

/*  Its seven numbers, by their place in lemon__fields. */
static const uint8_t lemon__llama2c_fields[7] = {0, 5, 1, 2, 3, 6, 9};

/*  The role of a step (LEMON__L2C_ROPE: its tables), how many tensors follow, and how many numbers each has: 0 if absent. */
static int lemon__llama2c_step(const lemon_config *c, int64_t version, int step, uint64_t *count, uint64_t *numbers) {
    const int role = lemon__llama2c_order[version > 0][step];
    const lemon_role_info *info = lemon_role_get((lemon_role)role);
    *count = info && info->per_layer ? (uint64_t)c->n_layers : 1;
    *numbers = version == 0 ? (uint64_t)c->max_seq * (uint64_t)c->head_dim : 0;
    if (info) *numbers = (uint64_t)(lemon_joint_size(c, info->out) * lemon_joint_size(c, info->in));
    if (role == LEMON_OUTPUT && c->tied_embeddings) *numbers = 0;
    return role;
}

/*  The seven numbers, as they stand, into the config. */
static lemon_status lemon__llama2c_config(lemon__llama2c *in, const int64_t field[7], int tied) {
    lemon_config *c = &in->config;
    for (int i = 0; i < 7; i++)
        if (field[i] < 1 || field[i] > INT32_MAX)
            return lemon__refuse(&in->file, LEMON_E_FORMAT, "%s is %lld, expected at least 1; " LEMON__DAMAGED,
                                 lemon__fields[lemon__llama2c_fields[i]].name, (long long)field[i]);
    if (field[0] % field[3] != 0)
        return lemon__refuse(&in->file, LEMON_E_FORMAT, "n_heads is %lld, expected a divisor of d_model, which is %lld; "
                             LEMON__DAMAGED, (long long)field[3], (long long)field[0]);
    lemon_config_defaults(c);
    for (int i = 0; i < 7; i++)
        lemon__field_set(in->file.ctx, "", "", &lemon__fields[lemon__llama2c_fields[i]], (double)field[i], c);
    c->head_dim = (int32_t)(field[0] / field[3]);
    c->tied_embeddings = tied;
    return lemon_config_check(in->file.ctx, c) ? lemon__blame(in->file.ctx, in->file.source.name, LEMON_E_FORMAT) : LEMON_OK;
}

static void lemon__llama2c_ints(lemon__cursor *c, int64_t field[7]) {
    for (int i = 0; i < 7; i++) field[i] = (int64_t)(lemon__take32(c) ^ 0x80000000u) - 0x80000000LL;
}

static lemon_status lemon__llama2c_header(lemon__llama2c *in) {
    lemon__cursor *c = &in->at;
    int64_t field[7];
    if (c->size >= 4 && lemon__get32(c->bytes) == LEMON__L2C_MAGIC) {
        lemon__take(c, 4);
        in->version = lemon__take32(c);
        if (in->version != 1 && in->version != 2)
            return lemon__refuse(&in->file, LEMON_E_UNSUPPORTED, "version of the llama2.c file is %lld, expected 1 or 2",
                                 (long long)in->version);
    }
    lemon__llama2c_ints(c, field);
    int tied = field[5] > 0;
    if (in->version == 0) {
        field[5] = tied ? field[5] : -field[5];
    } else {
        tied = (int)lemon__take_number(c, 1);
        in->group = in->version == 2 ? lemon__take32(c) : 1;
        c->at = LEMON__L2C_HEADER;
        if (c->bad || c->size < LEMON__L2C_HEADER || in->group < 1 || tied > 1)
            return lemon__refuse(&in->file, LEMON_E_FORMAT, "header of the llama2.c file is cut short or damaged; get it anew");
    }
    return lemon__llama2c_config(in, field, tied);
}

/*  The next tensor of the file as floats. */
static void lemon__llama2c_read(lemon__llama2c *in, int quantised, float *out, uint64_t n) {
    uint64_t group = (uint64_t)in->group;
    const uint8_t *p = lemon__take(&in->at, (size_t)(quantised ? n : 4 * n));
    const uint8_t *scales = quantised ? lemon__take(&in->at, (size_t)(n / group * 4)) : p;
    for (uint64_t i = 0; i < n && p && scales; i++)
        out[i] = quantised ? (float)(int8_t)p[i] * lemon__getf32(scales + i / group * 4) : lemon__getf32(p + 4 * i);
}

/*  All tensors into a model, if there is one; *size: what a file with this header has, by the config's limits below 2^64. */
static lemon_status lemon__llama2c_weights(lemon__llama2c *in, const lemon_model *model, uint64_t *size) {
    uint64_t count, n;
    int i;
    for (i = 0, *size = in->at.at; i < LEMON__L2C_STEPS; i++) {
        int role = lemon__llama2c_step(&in->config, in->version, i, &count, &n);
        int quantised = in->version == 2 && role != LEMON__L2C_ROPE && lemon__roles[role].matrix;
        if (quantised && n % (uint64_t)in->group != 0)
            return lemon__refuse(&in->file, LEMON_E_FORMAT, "group size is %lld, expected a divisor of the %llu numbers of "
                                 "%s", (long long)in->group, (unsigned long long)n, lemon__roles[role].name);
        *size += count * (quantised ? n + n / (uint64_t)in->group * 4 : n * 4);
        if (model && role == LEMON__L2C_ROPE) lemon__take(&in->at, (size_t)(4 * n));
        for (uint64_t layer = 0; model && layer < count && n > 0 && role != LEMON__L2C_ROPE; layer++)
            lemon__llama2c_read(in, quantised, (float *)lemon_model_param(model, (lemon_role)role, (int64_t)layer)->data, n);
    }
    return LEMON_OK;
}

/*  The header must account for every byte of the file before anything is allocated. */
static lemon_status lemon__load_llama2c(lemon_ctx *ctx, const lemon_reader *reader, lemon_model **model) {
    lemon__llama2c in;
    uint64_t size;
    memset(&in, 0, sizeof in);
    in.file.ctx = ctx;
    in.file.source = *reader;
    in.at = lemon__cursor_over(reader);
    lemon_status status = lemon__llama2c_header(&in);
    if (!status) status = lemon__llama2c_weights(&in, NULL, &size);
    if (status) return status;
    const lemon_config *c = &in.config;
    if (size != reader->size)
        return lemon__refuse(&in.file, LEMON_E_FORMAT, "size is %llu bytes, expected %llu as llama2.c version %d with "
                             "d_model %ld, d_ffn %ld, n_layers %ld, vocab_size %ld; " LEMON__DAMAGED,
                             (unsigned long long)reader->size, (unsigned long long)size, (int)in.version, (long)c->d_model,
                             (long)c->d_ffn, (long)c->n_layers, (long)c->vocab_size);
    status = lemon_model_create(ctx, c, model);
    if (!status) status = lemon__llama2c_weights(&in, *model, &size);
    if (!status) memcpy((*model)->format, "llama2c", 8);
    if (!status && in.version == 2) (*model)->dtype = LEMON_Q8;         /* as the file has it; groups differ from ours */
    return status;
}

/* ---- Hugging Face folders: config.json, and weights in model.safetensors or in the files of
        model.safetensors.index.json

   A safetensors file is a u64, so many bytes of JSON, then data; the JSON has for each tensor {"dtype", "shape",
   "data_offsets": [begin, end]}, counted from the data's beginning.  Their order in the file means nothing. ---- */

enum { LEMON__PATH = 4096 };

static const char *const lemon__st_types[] = {"F32", "BF16", "F16"};    /* by lemon_dtype */

/*  folder/name, in a buffer of LEMON__PATH bytes. */
static lemon_status lemon__join(lemon_ctx *ctx, const char *folder, const char *name, char *out) {
    size_t n = strlen(folder), m = strlen(name) + 1;
    if (n + m >= LEMON__PATH)
        return lemon__fail(ctx, LEMON_E_ARG, "path \"%.60s...\" is too long, expected less than %d bytes", folder,
                           LEMON__PATH);
    memcpy(out, folder, n);
    if (n > 0 && folder[n - 1] != '/' && folder[n - 1] != '\\') out[n++] = '/';
    memcpy(out + n, name, m);
    return LEMON_OK;
}

/*  Opens a file of a folder.  It need not be there where `there` is given, which says so; what else goes wrong is an error. */
static lemon_status lemon__open_in(lemon_ctx *ctx, const char *folder, const char *name, lemon_reader *reader, int *there) {
    char path[LEMON__PATH];
    lemon_status status = lemon__join(ctx, folder, name, path);
    memset(reader, 0, sizeof *reader);
    if (!status) status = lemon_file_reader(ctx, path, reader);
    if (!status) status = lemon__hold(ctx, reader);
    if (status) lemon__reader_close(reader);
    if (there) *there = !status;
    return there && status == LEMON_E_IO && (errno == ENOENT || errno == ENOTDIR) ? LEMON_OK : status;
}

/*  Refuses a tensor of a file that others wrote. */
static lemon_status lemon__tensor_bad(const lemon__unpack *u, const void *name, size_t n, const char *what) {
    return lemon__refuse(u, LEMON_E_FORMAT, "tensor \"%.*s\" has %s; the file is damaged or cut short", (int)n,
                         (const char *)name, what);
}

/*  The integers of an array, at most `most`: their number, or -1 where it is none or has others. */
static int lemon__json_ints(const lemon__json *json, int32_t node, int64_t *out, int most) {
    int n = 0;
    if (lemon__json_type_of(json, node) != LEMON__JSON_ARRAY) return -1;
    for (int32_t k = node + 1; k < json->nodes[node].next; k = json->nodes[k].next, n++)
        if (n == most || !lemon__json_int(json, k, &out[n])) return -1;
    return n;
}

/*  Finds the data of all tensors, which begin somewhere in the file.  left: bytes that no tensor has claimed yet, for
    tensors that shared theirs would be copied into more memory than the file's size justifies. */
static lemon_status lemon__unpack_place(lemon__unpack *u, uint64_t data_at, uint64_t align) {
    uint64_t size = u->source.size, room = data_at > size ? 0 : size - data_at, left = room;
    for (int64_t i = 0; i < u->tensor_names.count; i++) {
        lemon__entry *e = &u->tensors[i];
        lemon__span name = u->tensor_names.spans[i];
        uint64_t bytes = (uint64_t)e->tensor.rows * lemon__entry_row_bytes(e, e->tensor.cols);
        if (e->offset % align != 0 || e->offset > room || bytes > room - e->offset || bytes > left)
            return lemon__tensor_bad(u, u->tensor_names.blob + name.start, name.bytes,
                                     "data beyond the file's end, or another tensor's");
        left -= bytes;
        e->tensor.data = lemon__unconst(u->source.map + data_at + e->offset);
        lemon__swap(e->tensor.dtype, e->tensor.data, (size_t)bytes);
    }
    return LEMON_OK;
}

/*  One member of the header: a tensor, its name being node i. */
static lemon_status lemon__st_tensor(lemon__unpack *u, lemon__json *json, int32_t i) {
    int32_t type = lemon__json_get(json, i + 1, "dtype");
    int64_t size[2] = {1, 1}, range[2] = {0, 0};
    int dtype = LEMON_F32;
    size_t bytes;
    const uint8_t *name = lemon__json_string(json, i, &bytes);
    if (json->nodes[i].escaped) name = NULL;
    lemon_status status = lemon__unpack_name(u, name, bytes, &u->tensor_names, "tensor");
    if (status) return status;
    while (dtype <= LEMON_F16 && !lemon__json_is(json, type, lemon__st_types[dtype])) dtype++;
    if (dtype > LEMON_F16)
        return lemon__refuse(u, LEMON_E_UNSUPPORTED, "tensor \"%.*s\" is of another type than F32, F16 and BF16; "
                             "quantised models must be converted to one of these", (int)bytes, (const char *)name);
    int n = lemon__json_ints(json, lemon__json_get(json, i + 1, "shape"), size, 2);
    int ok = n > 0 && lemon__json_ints(json, lemon__json_get(json, i + 1, "data_offsets"), range, 2) == 2;
    lemon__entry *e = &u->tensors[u->tensor_names.count - 1];
    e->tensor = lemon__view(NULL, (lemon_dtype)dtype, n == 2 ? size[0] : 1, size[n == 2]);
    if (!ok || range[0] < 0 || range[1] <= range[0] || lemon_tensor_bytes(&e->tensor) != (uint64_t)(range[1] - range[0]))
        return lemon__tensor_bad(u, name, bytes, "a shape or data_offsets that cannot be");
    e->offset = (uint64_t)range[0];
    return LEMON_OK;
}

/*  What `git clone` leaves in place of a large file where Git LFS is not installed: text that begins with "version ". */
#define LEMON__LFS_POINTER 0x206e6f6973726576u
#define LEMON__LFS_MESSAGE "a pointer of Git LFS in place of the file; git lfs pull fetches it"

/*  The header of a file that is held in memory already. */
static lemon_status lemon__st_open(lemon__unpack *u) {
    lemon__cursor c = lemon__cursor_over(&u->source);
    lemon__json json;
    uint64_t n = lemon__take64(&c);
    u->tensor_names.blob = c.bytes;
    if (!c.bad && n == LEMON__LFS_POINTER) return lemon__refuse(u, LEMON_E_FORMAT, "is " LEMON__LFS_MESSAGE);
    if (c.bad || n > u->source.size - 8)
        return lemon__unpack_bad(u, "size of the safetensors header", n, u->source.size < 8 ? 0 : u->source.size - 8);
    lemon_status status = lemon__json_parse(u->ctx, u->source.name, c.bytes + 8, (size_t)n, &json);
    if (status) return status;
    if (lemon__json_type_of(&json, 0) != LEMON__JSON_OBJECT)
        status = lemon__refuse(u, LEMON_E_FORMAT, "header is no JSON object");
    for (int32_t i = 1; i < json.nodes[0].next && !status; i = json.nodes[i + 1].next)
        if (!lemon__json_is(&json, i, "__metadata__")) status = lemon__st_tensor(u, &json, i);
    lemon__json_close(&json);
    return status ? status : lemon__unpack_place(u, 8 + n, 1);
}

/*  The files that a model's weights stand in; they are open as long as it lives. */
typedef struct lemon__shards {
    lemon_ctx *ctx;
    const char *folder;
    lemon__unpack *u;
    int64_t n, capacity;
} lemon__shards;

/*  there: as of lemon__open_in. */
static lemon_status lemon__shards_add(lemon__shards *shards, const char *name, int *there) {
    lemon__unpack *u;
    if (!lemon__room(shards->ctx, &shards->u, &shards->capacity, shards->n + 1, sizeof *u)) return LEMON_E_MEMORY;
    u = &shards->u[shards->n];
    memset(u, 0, sizeof *u);
    u->ctx = shards->ctx;
    lemon_status status = lemon__open_in(shards->ctx, shards->folder, name, &u->source, there);
    if (status || (there && !*there)) return status;
    shards->n++;
    return lemon__st_open(u);
}

static void lemon__shards_close(void *user) {
    lemon__shards *shards = (lemon__shards *)user;
    for (int64_t i = 0; i < shards->n; i++) lemon__unpack_close(&shards->u[i]);
    lemon__free(shards->ctx, shards->u, (size_t)shards->capacity * sizeof *shards->u);
    lemon__free(shards->ctx, shards, sizeof *shards);
}

/*  The files that an index names: names in the folder, not paths out of it. */
static lemon_status lemon__shards_index(lemon__shards *shards, lemon__json *json) {
    int32_t map = lemon__json_get(json, 0, "weight_map");
    lemon__words seen;
    lemon_status status = LEMON_OK;
    char name[256];
    memset(&seen, 0, sizeof seen);
    seen.blob = json->text;
    if (lemon__json_type_of(json, map) != LEMON__JSON_OBJECT)
        return lemon__fail(json->ctx, LEMON_E_FORMAT, "%s: weight_map is missing", json->name);
    for (int32_t i = map + 1; i < json->nodes[map].next && !status; i = json->nodes[i + 1].next) {
        size_t n;
        const uint8_t *file = lemon__json_string(json, i + 1, &n);
        if (file == NULL || n == 0 || n >= sizeof name || json->nodes[i + 1].escaped || memchr(file, '/', n) ||
            memchr(file, ':', n) || memchr(file, 0, n)) {
            status = lemon__fail(json->ctx, LEMON_E_FORMAT, "%s: weight_map has a value that is no file name", json->name);
        } else if (lemon__words_find(&seen, file, n) < 0) {
            lemon__format(name, sizeof name, "%.*s", (int)n, (const char *)file);
            status = lemon__words_push(json->ctx, &seen, json->nodes[i + 1].start, n, 1) ? LEMON_OK : LEMON_E_MEMORY;
            if (!status) status = lemon__shards_add(shards, name, NULL);
        }
    }
    lemon__words_free(json->ctx, &seen);
    if (!status && shards->n == 0) status = lemon__fail(json->ctx, LEMON_E_FORMAT, "%s: weight_map names no file", json->name);
    return status;
}

static lemon_status lemon__shards_open(lemon__shards *shards) {
    lemon_reader reader;
    lemon__json json;
    int there;
    lemon_status status = lemon__shards_add(shards, "model.safetensors", &there);
    if (status || there) return status;
    status = lemon__open_in(shards->ctx, shards->folder, "model.safetensors.index.json", &reader, &there);
    if (status) return status;
    if (!there)
        return lemon__fail(shards->ctx, LEMON_E_FORMAT, "%s: has neither model.safetensors nor "
                           "model.safetensors.index.json; PyTorch's .bin files must be saved as safetensors first, by "
                           "transformers' save_pretrained", shards->folder);
    status = lemon__json_parse(shards->ctx, reader.name, reader.map, (size_t)reader.size, &json);
    if (!status) status = lemon__shards_index(shards, &json);
    lemon__json_close(&json);
    lemon__reader_close(&reader);
    return status;
}

/*  The object that says how RoPE is scaled: rope_scaling, in newer files rope_parameters. */
static int32_t lemon__folder_scaling(const lemon__json *json) {
    int32_t node = lemon__json_get(json, 0, "rope_scaling");
    return lemon__json_type_of(json, node) > LEMON__JSON_NULL ? node : lemon__json_get(json, 0, "rope_parameters");
}

static int lemon__folder_field(void *from, const struct lemon__field *field, double *value) {
    lemon__json *json = (lemon__json *)from;
    int32_t rope = lemon__folder_scaling(json), node = lemon__json_get(json, field->kinds ? rope : 0, field->hf);
    if (node < 0) node = lemon__json_get(json, lemon__json_get(json, 0, "rope_parameters"), field->hf);
    lemon__json_type type = lemon__json_type_of(json, node);
    *value = type == LEMON__JSON_TRUE;
    if (type == LEMON__JSON_TRUE || type == LEMON__JSON_FALSE) return 1;
    if (type == LEMON__JSON_NONE || type == LEMON__JSON_NULL) return 0;
    return lemon__json_real(json, node, value) ? 1 : -1;
}

/*  Refuses a member by name, with its value and why. */
static lemon_status lemon__folder_bad(const lemon__json *json, const char *name, int32_t node, const char *why) {
    return lemon__fail(json->ctx, LEMON_E_UNSUPPORTED, "%s: %s is %.*s, %s", json->name, name,
                       (int)lemon__min(60, json->nodes[node].bytes), (const char *)json->text + json->nodes[node].start, why);
}

/*  Refuses by name what changes the computation and is not computed here. */
static lemon_status lemon__folder_refuse(lemon__json *json) {
    static const char *const absent[] = {"attention_bias", "mlp_bias", "quantization_config", "partial_rotary_factor"};
    int32_t node = lemon__json_get(json, 0, "hidden_act"), rope = lemon__json_get(json, 0, "rope_parameters");
    double value;
    if (node >= 0 && !lemon__json_is(json, node, "silu") && !lemon__json_is(json, node, "swish"))
        return lemon__folder_bad(json, "hidden_act", node, "expected \"silu\"; lemon.h has no other");
    for (int i = 0; i < 4; i++) {
        node = lemon__json_get(json, 0, absent[i]);
        if (i == 3 && node < 0) node = lemon__json_get(json, rope, absent[i]);
        if (lemon__json_type_of(json, node) > LEMON__JSON_FALSE &&
            !(i == 3 && lemon__json_real(json, node, &value) && value >= 1))
            return lemon__folder_bad(json, absent[i], node, i == 2 ? "which is not read here; take the folder whose weights "
                                     "are not quantised" : "which lemon.h does not compute");
    }
    return LEMON_OK;
}

static lemon_status lemon__folder_rope(lemon__json *json, int *kind) {
    int32_t node = lemon__folder_scaling(json), type = lemon__json_get(json, node, "rope_type");
    *kind = LEMON_ROPE_PLAIN;
    if (type < 0) type = lemon__json_get(json, node, "type");
    if (lemon__json_type_of(json, node) <= LEMON__JSON_NULL) return LEMON_OK;
    if (type < 0 && lemon__json_get(json, node, "rope_theta") >= 0) return LEMON_OK;
    while (*kind < LEMON_ROPE_COUNT && !lemon__json_is(json, type, lemon__rope_kinds[*kind])) ++*kind;
    if (*kind < LEMON_ROPE_COUNT && lemon__json_get(json, node, "truncate") < 0 && lemon__json_get(json, node, "mscale") < 0)
        return LEMON_OK;
    return lemon__folder_bad(json, "rope_scaling", node, "expected rope_type default, linear, llama3 or yarn, without "
                             "truncate or mscale");
}

/*  The window, which all layers have or none; Qwen's must be asked for, and begins at some layer. */
static lemon_status lemon__folder_window(lemon__json *json, const char *family, lemon_config *c) {
    int32_t node = lemon__json_get(json, 0, "sliding_window"), kinds = lemon__json_get(json, 0, "layer_types");
    int64_t window;
    if (!lemon__json_int(json, node, &window) || window >= c->max_seq) return LEMON_OK;
    if (family[0] == 'q') {
        double first;
        const int32_t begins = lemon__json_get(json, 0, "max_window_layers");
        lemon__json_real(json, begins, &first);             /* 0 where it says nothing */
        if (lemon__json_type_of(json, lemon__json_get(json, 0, "use_sliding_window")) != LEMON__JSON_TRUE ||
            first >= c->n_layers)
            return LEMON_OK;
        if (first > 0)
            return lemon__folder_bad(json, "max_window_layers", begins, "expected 0, a window for all layers");
    }
    if (family[0] == 'l' || window < 1)
        return lemon__folder_bad(json, "sliding_window", node, "which a model of this type does not have");
    if (lemon__json_type_of(json, kinds) == LEMON__JSON_ARRAY)
        for (int32_t i = kinds + 1; i < json->nodes[kinds].next; i = json->nodes[i].next)
            if (!lemon__json_is(json, i, "sliding_attention"))
                return lemon__folder_bad(json, "layer_types", kinds, "expected a window for all layers");
    c->window = (int32_t)window;
    return LEMON_OK;
}

/*  Files of a folder that a model carries along; what is in config.json and not in lemon_config goes with it too. */
static const char *const lemon__carried[] = {
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json", "chat_template.jinja", "README.md", "LICENSE",
    "LICENSE.txt", "LICENSE.md", "NOTICE", "NOTICE.txt", "USE_POLICY.md"};
enum { LEMON__CARRIED = sizeof lemon__carried / sizeof lemon__carried[0] };

static lemon_status lemon__folder_carry(lemon_ctx *ctx, const char *folder, lemon_model *model) {
    lemon_status status = LEMON_OK;
    lemon_reader reader;
    int there;
    for (int i = 0; i < LEMON__CARRIED && !status; i++) {
        status = lemon__open_in(ctx, folder, lemon__carried[i], &reader, &there);
        if (!there) continue;
        status = lemon__part_add(ctx, model, lemon__carried[i], strlen(lemon__carried[i]), reader.map, (size_t)reader.size);
        lemon__reader_close(&reader);
    }
    return status;
}

static lemon_status lemon__folder_config(lemon_ctx *ctx, const char *folder, lemon_config *config, int *tie_known,
                                         const char **family) {
    lemon_reader reader;
    lemon__json json;
    size_t n;
    int kind = 0;
    lemon_status status = lemon__open_in(ctx, folder, "config.json", &reader, NULL);
    if (status) return status;
    status = lemon__json_parse(ctx, reader.name, reader.map, (size_t)reader.size, &json);
    if (!status) {
        const uint8_t *type = lemon__json_string(&json, lemon__json_get(&json, 0, "model_type"), &n);
        status = lemon__family_find(ctx, reader.name, "model_type", type, n, family);
    }
    if (!status) status = lemon__folder_refuse(&json);
    if (!status) status = lemon__folder_rope(&json, &kind);
    if (!status) status = lemon__config_read(ctx, reader.name, LEMON__STYLE_HF, &json, lemon__folder_field, kind, config);
    if (!status) status = lemon__folder_window(&json, *family, config);
    if (!status) {
        config->qkv_bias = strcmp(*family, "qwen2") == 0;
        config->qk_norm = strcmp(*family, "qwen3") == 0;
        *tie_known = lemon__json_get(&json, 0, "tie_word_embeddings") >= 0;
        if (lemon_config_check(ctx, config)) status = lemon__blame(ctx, reader.name, LEMON_E_FORMAT);
    }
    lemon__json_close(&json);
    lemon__reader_close(&reader);
    return status;
}

static lemon_status lemon__load_folder(lemon_ctx *ctx, const char *folder, lemon_model **model) {
    lemon_config config;
    lemon__shards *shards = (lemon__shards *)lemon__calloc(ctx, sizeof *shards);
    const char *family;
    int tie_known = 0;
    int64_t i;
    if (shards == NULL) return LEMON_E_MEMORY;
    shards->ctx = ctx;
    shards->folder = folder;
    lemon_status status = lemon__folder_config(ctx, folder, &config, &tie_known, &family);
    if (!status) status = lemon__shards_open(shards);
    if (!status && !tie_known)
        for (i = 0, config.tied_embeddings = 1; i < shards->n; i++)
            if (lemon__words_find(&shards->u[i].tensor_names, "lm_head.weight", 14) >= 0) config.tied_embeddings = 0;
    if (!status) status = lemon__unpack_params(shards->u, shards->n, LEMON__STYLE_HF, family, &config, model);
    if (!status) status = lemon__folder_carry(ctx, folder, *model);
    if (!status) status = lemon__tokenizer_from_parts(ctx, folder, *model);
    if (!status) {
        memcpy((*model)->format, "hf", 3);
        (*model)->source.user = shards;
        (*model)->source.close = lemon__shards_close;
    } else lemon__shards_close(shards);
    return lemon__model_done(ctx, status, model);
}

/* ---- GGUF 2 and 3:  magic, u32 version, u64 tensors, u64 keys; the keys (text name, u32 type, value); the tensors
        (text name, u32 dimensions, u64 each, innermost first, u32 coding, u64 offset); padding; data.  A text is a u64
        and so many bytes, an array a u32 type, a u64 count and its items.

   Blocks with a scale (and for types ending in 1 or K an offset) for 32 numbers; the K types have 256, cut into runs of
   32 or 16 with short scales of their own.  What lemon.h has no storage type for becomes f16, whose rounding is
   far below theirs. ---- */

/*  Q4_1, Q5_0, Q5_1: half-bytes, for Q5 a bit more in a word of 32, and an offset that is stored or symmetric. */
static void lemon__q45_decode(const lemon__coding *coding, const uint8_t *in, float *out) {
    int five = coding->bytes >= 22, stored = coding->bytes == 20 || coding->bytes == 24;
    float scale = lemon_f32_from_f16(lemon__get16(in));
    float offset = stored ? lemon_f32_from_f16(lemon__get16(in + 2)) : -16.0f * scale;
    const uint8_t *nibbles = in + coding->bytes - 16;
    uint32_t high = five ? lemon__get32(nibbles - 4) : 0;
    for (int i = 0; i < 32; i++) {
        uint32_t q = i < 16 ? nibbles[i] & 15u : (uint32_t)nibbles[i - 16] >> 4;
        out[i] = scale * (float)(q | (high >> i & 1u) << 4) + offset;
    }
}

/*  Q4_K, Q5_K: eight runs of 32; scale and offset of a run are 6 bits each, packed into 12 bytes. */
static void lemon__q45k_decode(const lemon__coding *coding, const uint8_t *in, float *out) {
    float scale = lemon_f32_from_f16(lemon__get16(in)), offset = lemon_f32_from_f16(lemon__get16(in + 2));
    const uint8_t *s = in + 4, *high = coding->bytes == 176 ? in + 16 : NULL, *nibbles = in + coding->bytes - 128;
    for (int run = 0; run < 8; run++) {
        int a = run < 4 ? s[run] & 63 : (s[run + 4] & 15) | s[run - 4] >> 6 << 4;
        int b = run < 4 ? s[run + 4] & 63 : s[run + 4] >> 4 | s[run] >> 6 << 4;
        for (int i = 0; i < 32; i++) {
            int q = run % 2 ? nibbles[run / 2 * 32 + i] >> 4 : nibbles[run / 2 * 32 + i] & 15;
            if (high) q |= (high[i] >> run & 1) << 4;
            *out++ = scale * (float)a * (float)q - offset * (float)b;
        }
    }
}

/*  Q6_K: sixteen runs of 16 with a signed byte as scale; four low bits, and two high ones elsewhere. */
static void lemon__q6k_decode(const lemon__coding *coding, const uint8_t *in, float *out) {
    float scale = lemon_f32_from_f16(lemon__get16(in + 208));
    (void)coding;
    for (int i = 0; i < 256; i++) {
        int half = i / 128, quarter = i / 32 % 4, l = i % 32;
        uint8_t low = in[64 * half + 32 * (quarter & 1) + l];
        int q = (quarter < 2 ? low & 15 : low >> 4) | (in[128 + 32 * half + l] >> 2 * quarter & 3) << 4;
        out[i] = scale * (float)(int8_t)in[192 + i / 16] * (float)(q - 32);
    }
}

static const lemon__coding lemon__codings[] = {
    {0, LEMON_F32, 1, 4, NULL, "F32"},
    {1, LEMON_F16, 1, 2, NULL, "F16"},
    {30, LEMON_BF16, 1, 2, NULL, "BF16"},
    {8, LEMON_Q8, 32, 34, NULL, "Q8_0"},
    {2, LEMON_Q4, 32, 18, NULL, "Q4_0"},
    {3, LEMON_F16, 32, 20, lemon__q45_decode, "Q4_1"},
    {6, LEMON_F16, 32, 22, lemon__q45_decode, "Q5_0"},
    {7, LEMON_F16, 32, 24, lemon__q45_decode, "Q5_1"},
    {12, LEMON_F16, 256, 144, lemon__q45k_decode, "Q4_K"},
    {13, LEMON_F16, 256, 176, lemon__q45k_decode, "Q5_K"},
    {14, LEMON_F16, 256, 210, lemon__q6k_decode, "Q6_K"}};
enum { LEMON__CODINGS = sizeof lemon__codings / sizeof lemon__codings[0] };

enum { LEMON__GGUF_U32 = 4, LEMON__GGUF_F32 = 6, LEMON__GGUF_BOOL = 7, LEMON__GGUF_TEXT = 8, LEMON__GGUF_ARRAY = 9,
       LEMON__GGUF_I32 = 5, LEMON__GGUF_TYPES = 13 };
static const uint8_t lemon__gguf_width[LEMON__GGUF_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

static const uint8_t *lemon__take_text(lemon__cursor *c, size_t *bytes) {
    uint64_t n = lemon__take64(c);
    *bytes = n <= c->size ? (size_t)n : 0;
    if (n > c->size) c->bad = 1;
    return lemon__take(c, *bytes);
}

/*  Steps over a value. */
static void lemon__gguf_skip(lemon__cursor *c, uint32_t type) {
    uint64_t count = 1;
    size_t bytes;
    if (type == LEMON__GGUF_ARRAY) {
        type = lemon__take32(c);
        count = lemon__take64(c);
    }
    if (type >= LEMON__GGUF_TYPES || type == LEMON__GGUF_ARRAY || count > c->size) { c->bad = 1; return; }
    if (type == LEMON__GGUF_TEXT)
        for (uint64_t i = 0; i < count && !c->bad; i++) lemon__take_text(c, &bytes);
    else if (count > c->size / lemon__gguf_width[type]) c->bad = 1;
    else lemon__take(c, (size_t)count * lemon__gguf_width[type]);
}

/*  The next key of a list; 0: there is none, or it is damaged (c->bad). */
static int lemon__gguf_next(lemon__cursor *c, lemon__key *key) {
    if (c->bad || c->at == c->size) return 0;
    key->at = c->at;
    key->used = 0;
    key->name = lemon__take_text(c, &key->name_bytes);
    key->type = (int)lemon__take32(c);
    key->value = c->bytes + c->at;
    if (!c->bad) lemon__gguf_skip(c, (uint32_t)key->type);
    key->bytes = (size_t)(c->bytes + c->at - key->value);
    return !c->bad;
}

static int lemon__key_is(const lemon__key *key, const char *name) {
    return key->name_bytes == strlen(name) && memcmp(key->name, name, key->name_bytes) == 0;
}

static lemon_status lemon__gguf_tensor(lemon__unpack *u, lemon__cursor *c) {
    size_t n;
    const uint8_t *name = lemon__take_text(c, &n);
    uint32_t dims = lemon__take32(c);
    uint64_t size[4] = {1, 1, 1, 1};
    size_t k = 0;
    lemon_status status = lemon__unpack_name(u, name, n, &u->tensor_names, "tensor");
    if (status) return status;
    lemon__entry *e = &u->tensors[u->tensor_names.count - 1];
    for (uint32_t i = 0; i < dims && i < 4; i++) size[i] = lemon__take64(c);
    uint32_t id = lemon__take32(c);
    e->offset = lemon__take64(c);
    while (k < LEMON__CODINGS && lemon__codings[k].id != id) k++;
    const lemon__coding *coding = &lemon__codings[k];
    if (!c->bad && k == LEMON__CODINGS)
        return lemon__refuse(u, LEMON_E_UNSUPPORTED, "tensor \"%.*s\" is of GGUF type %lu, expected F32, F16, BF16, "
                             "Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K", (int)n, (const char *)name,
                             (unsigned long)id);
    if (c->bad || dims < 1 || dims > 4 || size[0] < 1 || size[0] > 1 << 28 || size[1] < 1 || size[1] > 1 << 28 ||
        size[2] != 1 || size[3] != 1 || size[0] % (uint64_t)coding->numbers)
        return lemon__tensor_bad(u, name, n, "a shape that cannot be");
    e->tensor = lemon__view(NULL, coding->dtype, (int64_t)size[1], (int64_t)size[0]);
    e->coding = coding->decode ? coding : NULL;
    return LEMON_OK;
}

/*  A key, which counts as understood from now on; NULL where there is none. */
static lemon__key *lemon__gguf_key(const lemon__unpack *u, const char *name) {
    int32_t i = lemon__words_find(&u->key_names, name, strlen(name));
    if (i < 0) return NULL;
    u->keys[i].used = 1;
    return &u->keys[i];
}

/*  1 and a number's value; 0: there is no such key; -1: it is no number. */
static int lemon__gguf_number(const lemon__unpack *u, const char *name, double *value) {
    const lemon__key *key = lemon__gguf_key(u, name);
    *value = 0;
    if (key == NULL) return 0;
    if (key->type == LEMON__GGUF_TEXT || key->type == LEMON__GGUF_ARRAY) return -1;
    lemon__cursor c = lemon__cursor_at(key->value, key->bytes);
    uint64_t bits = lemon__take_number(&c, key->bytes);
    if (key->type == LEMON__GGUF_F32) *value = (double)lemon__getf32(key->value);
    else if (key->type == 12) memcpy(value, &bits, 8);
    else if (key->type % 2 == 1 && key->type != LEMON__GGUF_BOOL && bits >> (8 * key->bytes - 1)) *value = -1;
    else *value = (double)bits;
    return 1;
}

/*  Whether a key has this text. */
static int lemon__gguf_is(const lemon__unpack *u, const char *name, const char *text) {
    const lemon__key *key = lemon__gguf_key(u, name);
    return key && key->type == LEMON__GGUF_TEXT && key->bytes == 8 + strlen(text) &&
           memcmp(key->value + 8, text, strlen(text)) == 0;
}

/*  The same for a key of the architecture. */
static int lemon__gguf_own(const lemon__unpack *u, const char *name, double *value) {
    char full[2 * LEMON__NAME];
    lemon__format(full, sizeof full, "%s.%s", u->family, name);
    return lemon__gguf_number(u, full, value);
}

/*  A number of the architecture, `other` where there is none. */
static double lemon__gguf_or(const lemon__unpack *u, const char *name, double other) {
    double value;
    return lemon__gguf_own(u, name, &value) > 0 ? value : other;
}

static int lemon__gguf_field(void *from, const struct lemon__field *field, double *value) {
    const lemon__unpack *u = (const lemon__unpack *)from;
    int got = lemon__gguf_own(u, field->gguf, value);
    if (got == 0 && field->offset == offsetof(lemon_config, rope_factor))
        return lemon__gguf_own(u, "rope.scale_linear", value);
    if (got == 0 && field->offset == offsetof(lemon_config, rope_magnitude)) {     /* as llama.cpp computes it */
        *value = lemon__yarn_magnitude(lemon__gguf_or(u, "rope.scaling.factor", 1)) *
                 lemon__gguf_or(u, "rope.scaling.attn_factor", 1);
        return 1;
    }
    if (got != 0 || field->offset != offsetof(lemon_config, vocab_size)) return got;
    int32_t i = lemon__words_find(&u->tensor_names, "token_embd.weight", 17);      /* older files do not tell it */
    if (i >= 0) *value = (double)u->tensors[i].tensor.rows;
    return i >= 0;
}

static lemon_status lemon__gguf_contents(lemon__unpack *u) {
    lemon__cursor c = lemon__cursor_over(&u->source);
    double align = 0;
    lemon_status status = LEMON_OK;
    u->key_names.blob = u->tensor_names.blob = c.bytes;
    lemon__take(&c, 4);
    uint32_t version = lemon__take32(&c);
    uint64_t n_tensors = lemon__take64(&c);
    uint64_t n_keys = lemon__take64(&c);
    if (c.bad || version < 2 || version > 3)
        return lemon__refuse(u, LEMON_E_UNSUPPORTED, "version of the GGUF file is %lu, expected 2 or 3, little-endian",
                             (unsigned long)version);
    for (uint64_t i = 0; i < n_keys && !status; i++) {
        lemon__key key;
        if (!lemon__gguf_next(&c, &key))
            return lemon__refuse(u, LEMON_E_FORMAT, "the file ends within key %llu, or is damaged; get it anew",
                                 (unsigned long long)i);
        status = lemon__unpack_name(u, key.name, key.name_bytes, &u->key_names, "key");
        if (!status) u->keys[u->key_names.count - 1] = key;
    }
    for (uint64_t i = 0; i < n_tensors && !status; i++) status = lemon__gguf_tensor(u, &c);
    if (!status && lemon__gguf_number(u, "general.alignment", &align) == 0) align = 32;
    if (!status && (!(align >= 1 && align <= 65536) || ((uint32_t)align & ((uint32_t)align - 1)) != 0))
        status = lemon__refuse(u, LEMON_E_FORMAT, "general.alignment is %g, expected a power of two", align);
    return status ? status : lemon__unpack_place(u, lemon__pad_to(c.at, (uint64_t)align), (uint64_t)align);
}

/*  Refuses by name what changes the computation and is not computed here. */
static lemon_status lemon__gguf_refuse(const lemon__unpack *u, const lemon_config *c) {
    const struct { const char *name; double expected; } keys[] = {
        {"expert_count", 0}, {"rope.scaling.yarn_ext_factor", 1}, {"rope.scaling.yarn_log_multiplier", 0},
        {"rope.dimension_count", (double)c->head_dim}, {"attention.value_length", (double)c->head_dim}};
    double value;
    for (int i = 0; i < 5; i++)
        if (lemon__gguf_own(u, keys[i].name, &value) != 0 && !(value >= keys[i].expected && value <= keys[i].expected))
            return lemon__refuse(u, LEMON_E_UNSUPPORTED, "%s.%s is %g, expected %g; lemon.h has no other", u->family,
                                 keys[i].name, value, keys[i].expected);
    if (lemon__gguf_number(u, "split.count", &value) != 0 && !(value <= 1))
        return lemon__refuse(u, LEMON_E_UNSUPPORTED, "split.count is %g, expected 1; lemon.h has no other", value);
    return LEMON_OK;
}

/*  The kind of RoPE's scaling; LLaMA 3's is told otherwise. */
static lemon_status lemon__gguf_rope(const lemon__unpack *u, int *kind) {
    double factor = lemon__gguf_or(u, "rope.scaling.factor", lemon__gguf_or(u, "rope.scale_linear", 1));
    char type[2 * LEMON__NAME];
    lemon__format(type, sizeof type, "%s.rope.scaling.type", u->family);
    *kind = factor > 0 && (factor < 1 || factor > 1) ? LEMON_ROPE_LINEAR : LEMON_ROPE_PLAIN;
    if (lemon__gguf_is(u, type, "none")) *kind = LEMON_ROPE_PLAIN;
    else if (lemon__gguf_is(u, type, "yarn")) *kind = LEMON_ROPE_YARN;
    else if (lemon__gguf_key(u, type) && !lemon__gguf_is(u, type, "linear"))
        return lemon__refuse(u, LEMON_E_UNSUPPORTED, "%s is another than none, linear and yarn; lemon.h has no other", type);
    return LEMON_OK;
}

/*  LLaMA 3's scaling stands in GGUF as by how much each plane turns slower.  Its numbers from those: the slowest plane has
    the factor; of the planes between, 1/slower is linear in the turns.  rope_original, slow and fast may grow together,
    so slow is about 1.  Where less than two such planes are there, fast is 4 times as much, as in all of LLaMA 3. */
static lemon_status lemon__gguf_freqs(lemon__unpack *u, lemon_config *c) {
    int32_t at = lemon__words_find(&u->tensor_names, "rope_freqs.weight", 17);
    int64_t planes = c->head_dim / 2, n = 0;
    double turns[2] = {0, 0}, fast[2] = {0.5, 0}, slope, base = 1.0 / 3;
    float slower[2048];                 /* as many as the config allows */
    int same = 1;
    if (at < 0) return LEMON_OK;
    const lemon_tensor *t = &u->tensors[at].tensor;
    u->tensors[at].used = 1;
    same = !c->rope_scaling && t->rows == 1 && t->cols == planes && t->dtype == LEMON_F32;
    if (same) memcpy(slower, t->data, (size_t)planes * sizeof *slower);
    double factor = same ? (double)slower[planes - 1] : 0;
    for (int64_t i = 0; i < planes && same; i++) {
        double x = pow((double)c->rope_theta, -2.0 * (double)i / c->head_dim) / LEMON__TWO_PI;
        int plain = (double)slower[i] < 1.00001;
        if (plain && n == 0) turns[0] = x * pow((double)c->rope_theta, -1.0 / c->head_dim);     /* half a plane on */
        if (plain || !((double)slower[i] < 0.99999 * factor)) continue;
        turns[n > 0] = x;
        fast[n++ > 0] = (1 / (double)slower[i] - 1 / factor) / (1 - 1 / factor);
    }
    slope = n > 1 ? (fast[0] - fast[1]) / (turns[0] - turns[1]) : turns[0] > 0 ? (fast[0] + base) / turns[0] : base;
    if (n > 1) base = slope * turns[0] - fast[0];
    if (factor > 1.00001 && slope / base >= 1 && slope / base < 1 << 24) {
        c->rope_scaling = LEMON_ROPE_LLAMA3;
        c->rope_factor = (float)factor;
        c->rope_original = (int32_t)(slope / base + 0.5);
        c->rope_slow = (float)(base * c->rope_original / slope);
        c->rope_fast = (float)((base + 1) * c->rope_original / slope);
    }
    same = same && lemon_config_check(u->ctx, c) == LEMON_OK;
    for (int64_t i = 0; i < planes && same; i++)
        same = fabs(lemon__rope_slower(c, i) / (double)slower[i] - 1) < 1e-3;
    if (same) return LEMON_OK;
    return lemon__refuse(u, LEMON_E_UNSUPPORTED, "tensor \"rope_freqs.weight\" is not what LLaMA 3's scaling makes");
}

static lemon_status lemon__gguf_config(lemon__unpack *u, lemon_config *c) {
    const lemon__key *key = lemon__gguf_key(u, "general.architecture");
    int text = key && key->type == LEMON__GGUF_TEXT;
    lemon_status status = lemon__family_find(u->ctx, u->source.name, "general.architecture", text ? key->value + 8 : NULL,
                                             text ? key->bytes - 8 : 0, &u->family);
    int kind = 0;
    if (!status) status = lemon__gguf_rope(u, &kind);
    if (!status) status = lemon__config_read(u->ctx, u->source.name, LEMON__STYLE_GGUF, u, lemon__gguf_field, kind, c);
    if (!status) status = lemon__gguf_refuse(u, c);
    if (status) return status;
    double window = lemon__gguf_or(u, "attention.sliding_window", 0);
    c->window = window > 0 && window < c->max_seq ? (int32_t)window : 0;
    c->tied_embeddings = lemon__words_find(&u->tensor_names, "output.weight", 13) < 0;
    c->qkv_bias = lemon__words_find(&u->tensor_names, "blk.0.attn_q.bias", 17) >= 0;
    c->qk_norm = lemon__words_find(&u->tensor_names, "blk.0.attn_q_norm.weight", 24) >= 0;
    if (lemon_config_check(u->ctx, c)) return lemon__blame(u->ctx, u->source.name, LEMON_E_FORMAT);
    return lemon__gguf_freqs(u, c);
}

/*  What nobody asked for goes along as it stands: what is about the tokenizer, and the rest. */
static lemon_status lemon__gguf_carry(const lemon__unpack *u, lemon_model *model) {
    static const char *const ours[] = {"general.file_type", "general.quantization_version", "general.size_label"};
    static const char *const parts[] = {"gguf.metadata", "gguf.tokenizer"};
    lemon_status status = LEMON_OK;
    for (int k = 0; k < 3; k++) lemon__gguf_key(u, ours[k]);
    for (int k = 0; k < 2 && !status; k++) {
        lemon__bytes b = lemon__bytes_in(u->ctx);
        for (int64_t i = 0; i < u->key_names.count; i++) {
            const lemon__key *key = &u->keys[i];
            if (key->used || (key->name_bytes > 10 && memcmp(key->name, "tokenizer.", 10) == 0) != k) continue;
            lemon__put(&b, key->name - 8, 8 + key->name_bytes + 4 + key->bytes);        /* all that it is in the file */
        }
        status = b.status;
        if (!status && b.count > 0)
            status = lemon__part_add(u->ctx, model, parts[k], strlen(parts[k]), b.data, (size_t)b.count);
        lemon__bytes_free(&b);
    }
    return status;
}

static lemon_status lemon__load_gguf(lemon_ctx *ctx, const lemon_reader *reader, lemon_model **model) {
    lemon_config config;
    lemon__unpack u;
    memset(&u, 0, sizeof u);
    u.ctx = ctx;
    u.source = *reader;
    lemon_status status = lemon__hold(ctx, &u.source);
    if (!status) status = lemon__gguf_contents(&u);
    if (!status) status = lemon__gguf_config(&u, &config);
    if (!status) status = lemon__unpack_params(&u, 1, LEMON__STYLE_GGUF, u.family, &config, model);
    if (!status) status = lemon__tokenizer_from_gguf(&u, &(*model)->tokenizer);
    if (!status) status = lemon__gguf_carry(&u, *model);
    return lemon__unpack_done(&u, status, "gguf", model);
}

/* ---- loading: the content decides ---- */

static lemon_status lemon__one_format(lemon_ctx *ctx, const char *name) {
    return lemon__fail(ctx, LEMON_E_UNSUPPORTED, "%s: format is another than .lemon, the only one in this program "
                       "(LEMON_NO_FORMATS); convert it", name);
}

/*  A file without a magic may be llama2.c's version 0 if its first seven numbers could be sizes.  One or two that
    could not still leave it one, a damaged one, so that the message can name them. */
static int lemon__looks_like_llama2c(const uint8_t *head, size_t n) {
    lemon__cursor c = lemon__cursor_at(head, n);
    int64_t field[7];
    int likely = 0;
    if (n < 28) return 0;
    if (lemon__get32(head) == LEMON__L2C_MAGIC) return 1;
    lemon__llama2c_ints(&c, field);
    for (int i = 0; i < 7; i++) {
        int64_t size = i == 5 && field[i] < 0 ? -field[i] : field[i];
        likely += size >= 1 && size <= 1 << 24;
    }
    return likely >= 5;
}

/*  Says what a file is that we cannot read. */
static lemon_status lemon__load_unknown(lemon_ctx *ctx, const lemon_reader *reader, const uint8_t *head, size_t n) {
    const char *what = NULL;
    size_t i = 0;
    if (n == 0) return lemon__fail(ctx, LEMON_E_FORMAT, "%s: is empty, expected a model", reader->name);
    while (i < n && (head[i] >= ' ' || strchr("\t\n\r\f\v", head[i]))) i++;
    if (n >= 9 && head[8] == '{' && lemon__get64(head) < ((uint64_t)1 << 32))
        what = "safetensors, of which config.json is a part: give the name of the folder that both lie in";
    else if (n >= 4 && memcmp(head, "PK\003\004", 4) == 0) what = "a zip archive, as PyTorch writes";
    else if (n >= 2 && head[0] == 0x1f && head[1] == 0x8b) what = "gzip, to be unpacked first";
    const lemon_status status = what ? LEMON_E_UNSUPPORTED : LEMON_E_FORMAT;
    if (n >= 8 && lemon__get64(head) == LEMON__LFS_POINTER) what = LEMON__LFS_MESSAGE;
    return lemon__fail(ctx, status, "%s: format is %s, expected .lemon, GGUF, llama2.c's .bin or a Hugging Face "
                       "folder%s", reader->name, what ? what : i == n ? "text" : "unknown",
                       what || i == n ? "" : "; it is damaged or no model");
}

LEMON_API lemon_status lemon_load_reader(lemon_ctx *ctx, const lemon_reader *reader, lemon_model **model) {
    uint8_t head[64];
    if (lemon__lacks(ctx, __func__, model && lemon__reader_ok(reader))) return LEMON_E_ARG;
    *model = NULL;
    lemon_reader r = *reader;
    size_t n = (size_t)(r.size < sizeof head ? r.size : sizeof head);
    lemon_status status = lemon__fetch(ctx, &r, 0, head, n);
    if (!status && n >= 5 && memcmp(head, lemon__magic, 5) == 0) return lemon__load_lemon(ctx, &r, model);
    if (!LEMON__FORMATS) {
        if (!status) status = lemon__one_format(ctx, r.name);
        lemon__reader_close(&r);
        return status;
    }
    if (!status && n >= 4 && memcmp(head, "GGUF", 4) == 0) return lemon__load_gguf(ctx, &r, model);
    if (!status && !lemon__looks_like_llama2c(head, n)) status = lemon__load_unknown(ctx, &r, head, n);
    if (!status) status = lemon__hold(ctx, &r);
    if (!status) status = lemon__load_llama2c(ctx, &r, model);
    lemon__reader_close(&r);            /* its weights were copied */
    return status;
}

LEMON_API lemon_status lemon_load(lemon_ctx *ctx, const char *path, lemon_model **model) {
    lemon_reader reader;
    lemon_status status;
    char folder[LEMON__PATH];
    int there;
    if (lemon__lacks(ctx, __func__, path && model)) return LEMON_E_ARG;
    *model = NULL;
    size_t n = LEMON__FORMATS ? strlen(path) : 0;
    if (n >= 11 && n < LEMON__PATH && strcmp(path + n - 11, "config.json") == 0 &&
        (n == 11 || path[n - 12] == '/' || path[n - 12] == '\\')) {
        lemon__format(folder, sizeof folder, "%.*s", (int)(n - 11), path);
        return lemon__load_folder(ctx, n == 11 ? "./" : folder, model);
    }
    if (LEMON__FORMATS) {
        status = lemon__open_in(ctx, path, "config.json", &reader, &there);
        lemon__reader_close(&reader);
        if (status || there) return status ? status : lemon__load_folder(ctx, path, model);
    }
    status = lemon_file_reader(ctx, path, &reader);
    return status ? status : lemon_load_reader(ctx, &reader, model);
}

/* ---- GGUF out ---- */

static void lemon__gguf_key_begin(lemon__pack *pack, const char *key, uint32_t type) {
    lemon__put_number(&pack->keys, strlen(key), 8);
    lemon__put(&pack->keys, key, strlen(key));
    lemon__put_number(&pack->keys, type, 4);
    pack->n_keys++;
}

/*  A number by its bits. */
static void lemon__gguf_put(lemon__pack *pack, const char *key, uint32_t type, uint64_t bits) {
    lemon__gguf_key_begin(pack, key, type);
    lemon__put_number(&pack->keys, bits, lemon__gguf_width[type]);
}

static void lemon__gguf_put_text(lemon__pack *pack, const char *key, const char *text, size_t bytes) {
    lemon__gguf_key_begin(pack, key, LEMON__GGUF_TEXT);
    lemon__put_number(&pack->keys, bytes, 8);
    lemon__put(&pack->keys, text, bytes);
}

/*  The items follow. */
static void lemon__gguf_put_array(lemon__pack *pack, const char *key, uint32_t type, uint64_t count) {
    lemon__gguf_key_begin(pack, key, LEMON__GGUF_ARRAY);
    lemon__put_number(&pack->keys, type, 4);
    lemon__put_number(&pack->keys, count, 8);
}

/*  Keys that came with the model: written as they are after a look at their form, for the model may come from a file
    that only says that they came from GGUF.  1: among them is the vocabulary. */
static int lemon__gguf_put_carried(lemon__pack *pack, const lemon_model *model, const char *name) {
    const lemon_part *part = lemon__part_find(model, name);
    lemon__key key;
    int vocabulary = 0;
    if (part == NULL) return 0;
    lemon__cursor c = lemon__cursor_at(part->data, part->bytes);
    while (lemon__gguf_next(&c, &key)) {
        if (!lemon__name_ok(key.name, key.name_bytes)) c.bad = 1;
        vocabulary |= lemon__key_is(&key, "tokenizer.ggml.model");
        pack->n_keys++;
    }
    if (c.bad) pack->status = lemon__fail(pack->ctx, LEMON_E_ARG, "part \"%s\" is no list of GGUF keys", name);
    else lemon__put(&pack->keys, part->data, part->bytes);
    return vocabulary;
}

/*  What came with the model may say again what we say: of keys with one name the first stays, in place. */
static void lemon__gguf_put_once(lemon__pack *pack) {
    lemon__bytes *b = &pack->keys;
    lemon__cursor c = lemon__cursor_at(b->data, (size_t)b->count);
    lemon__words names;
    lemon__key key;
    memset(&names, 0, sizeof names);
    names.blob = b->data;
    b->count = pack->n_keys = 0;
    while (!pack->status && lemon__gguf_next(&c, &key)) {
        if (lemon__words_find(&names, key.name, key.name_bytes) >= 0) continue;
        memmove(b->data + b->count, b->data + key.at, c.at - key.at);
        if (!lemon__words_push(pack->ctx, &names, (size_t)b->count + 8, key.name_bytes, 1)) pack->status = LEMON_E_MEMORY;
        b->count += (int64_t)(c.at - key.at);
        pack->n_keys++;
    }
    lemon__words_free(pack->ctx, &names);
}

static void lemon__gguf_front(const lemon__pack *pack, lemon__bytes *out) {
    lemon__put(out, "GGUF", 4);
    lemon__put_number(out, 3, 4);
    lemon__put_number(out, (uint64_t)pack->n_tensors, 8);
    lemon__put_number(out, (uint64_t)pack->n_keys, 8);
    lemon__put(out, pack->keys.data, (size_t)pack->keys.count);
    for (int64_t i = 0; i < pack->n_tensors; i++) {
        const lemon__packed *t = &pack->tensors[i];
        const lemon__coding *coding = lemon__codings;
        while (coding->dtype != t->stored.dtype) coding++;      /* those without a decoder come first */
        lemon__put_number(out, strlen(t->name), 8);
        lemon__put(out, t->name, strlen(t->name));
        lemon__put_number(out, t->vector ? 1 : 2, 4);
        lemon__put_number(out, (uint64_t)(t->vector ? t->stored.rows * t->stored.cols : t->stored.cols), 8);
        if (!t->vector) lemon__put_number(out, (uint64_t)t->stored.rows, 8);
        lemon__put_number(out, coding->id, 4);
        lemon__put_number(out, t->offset, 8);
    }
    lemon__put_padding(out, pack->align);
}

/*  Whose a model is and where it comes from, as the head of a README.md says it, and GGUF's keys. */
static const char *const lemon__origins[][2] = {
    {"license: ", "general.license"}, {"license_name: ", "general.license.name"},
    {"license_link: ", "general.license.link"}, {"base_model: ", "general.source.huggingface.repository"},
    {"base_model: ", "general.base_model.0.repo_url"}};     /* with a host before it; read where the former is missing */
enum { LEMON__ORIGINS = sizeof lemon__origins / sizeof *lemon__origins };

/*  Keys from the lines of that head; the first of a list stands in the next line, behind a dash.  One that came with the
    model as a key is that key still, see lemon__gguf_put_once. */
static void lemon__gguf_put_origins(lemon__pack *pack, const lemon_model *model) {
    const lemon_part *part = lemon__part_find(model, "README.md");
    const char *text = part ? (const char *)part->data : NULL, *end, *line;
    size_t bytes;
    int k, list = -1;
    if (text == NULL || part->bytes < 4 || memcmp(text, "---\n", 4) != 0) return;
    for (line = text + 4; (end = (const char *)memchr(line, '\n', part->bytes - (size_t)(line - text))); line = end + 1) {
        size_t left = (size_t)(end - line) - (end > line && end[-1] == '\r');
        if (left >= 3 && memcmp(line, "---", 3) == 0) return;
        for (bytes = 0; list >= 0 && bytes < left && (line[bytes] == ' ' || line[bytes] == '-');) bytes++;
        if (list >= 0 && bytes > 0 && bytes < left)
            lemon__gguf_put_text(pack, lemon__origins[list][1], line + bytes, left - bytes);
        for (k = 0, list = -1; k < LEMON__ORIGINS - 1; k++) {
            size_t n = strlen(lemon__origins[k][0]);
            if (left + 1 < n || memcmp(line, lemon__origins[k][0], left < n ? left : n) != 0) continue;
            if (left <= n) list = k;
            else lemon__gguf_put_text(pack, lemon__origins[k][1], line + n, left - n);
        }
    }
}

/*  A number of the architecture. */
static void lemon__gguf_put_own(lemon__pack *pack, const char *family, const char *name, int real, double value) {
    char full[2 * LEMON__NAME];
    lemon__format(full, sizeof full, "%s.%s", family, name);
    if (real) lemon__gguf_put(pack, full, LEMON__GGUF_F32, lemon__bits((float)value));
    else lemon__gguf_put(pack, full, LEMON__GGUF_U32, (uint64_t)value);
}

/*  How RoPE is scaled: keys for linear and YaRN besides its numbers, a tensor for LLaMA 3. */
static void lemon__gguf_put_rope(lemon__pack *pack, const char *family, const lemon_config *c) {
    const char *kind = lemon__rope_kinds[c->rope_scaling];
    char type[2 * LEMON__NAME];
    lemon_tensor t = lemon__view(NULL, LEMON_F32, 1, c->head_dim / 2);
    lemon__format(type, sizeof type, "%s.rope.scaling.type", family);
    if (c->rope_scaling == LEMON_ROPE_LLAMA3) {
        float *slower = lemon__floats(pack->ctx, &pack->scratch, 1, t.cols);
        for (int64_t i = 0; slower && i < t.cols; i++) slower[i] = (float)lemon__rope_slower(c, i);
        t.data = slower;
        if (slower) lemon__pack_tensor(pack, "rope_freqs.weight", &t, LEMON_F32);
        else pack->status = LEMON_E_MEMORY;
    } else if (c->rope_scaling) lemon__gguf_put_text(pack, type, kind, strlen(kind));
    if (c->rope_scaling == LEMON_ROPE_YARN)
        lemon__gguf_put_own(pack, family, "rope.scaling.attn_factor", 1,
                            (double)c->rope_magnitude / lemon__yarn_magnitude((double)c->rope_factor));
}

/*  What llama.cpp does not compute, or has no architecture for. */
static lemon_status lemon__gguf_fits(lemon_ctx *ctx, const char *path, const lemon_config *c) {
    const char *why = NULL;
    if (c->qkv_bias && lemon_joint_size(c, LEMON_JOINT_HEADS) != c->d_model)
        why = "with qkv_bias, n_heads * head_dim is not d_model";
    else if ((c->qkv_bias || c->qk_norm) && c->rope_scaling == LEMON_ROPE_LLAMA3)
        why = "rope_scaling is llama3's with qkv_bias or qk_norm";
    return why ? lemon__fail(ctx, LEMON_E_ARG, "%s: %s, which no architecture of GGUF has", path, why) : LEMON_OK;
}

static void lemon__gguf_keys(lemon__pack *pack, const lemon_model *model, lemon_dtype dtype) {
    static const uint8_t file_types[] = {0, 32, 1, 7, 2};       /* by lemon_dtype */
    const lemon_config *c = &model->config;
    const char *family = lemon_config_family(c);
    if (family[0] == 'm') family = "llama";                     /* Mistral's is LLaMA there */
    lemon__gguf_put_text(pack, "general.architecture", family, strlen(family));
    lemon__gguf_put(pack, "general.file_type", LEMON__GGUF_U32, file_types[dtype]);
    lemon__gguf_put(pack, "general.quantization_version", LEMON__GGUF_U32, 2);
    for (int i = 0; i < LEMON__FIELDS; i++) {
        double value = lemon__field_get(c, &lemon__fields[i]);
        int tensor = lemon__fields[i].kinds && c->rope_scaling == LEMON_ROPE_LLAMA3;
        if (lemon__fields[i].gguf && !tensor && lemon__field_used(c, &lemon__fields[i]))
            lemon__gguf_put_own(pack, family, lemon__fields[i].gguf, lemon__fields[i].real, value);
    }
    lemon__gguf_put_own(pack, family, "attention.value_length", 0, c->head_dim);
    lemon__gguf_put_own(pack, family, "rope.dimension_count", 0, c->head_dim);
    if (c->window) lemon__gguf_put_own(pack, family, "attention.sliding_window", 0, c->window);
    lemon__gguf_put_rope(pack, family, c);
    if (model->tokenizer) lemon__tokenizer_to_gguf(pack, model->tokenizer, c->vocab_size);
    if (model->tokenizer) lemon__tags_to_gguf(pack, model);
    lemon__gguf_put_carried(pack, model, "gguf.metadata");
    lemon__gguf_put_origins(pack, model);
    int vocabulary = lemon__gguf_put_carried(pack, model, "gguf.tokenizer");
    if (!model->tokenizer && !vocabulary) lemon__gguf_put_text(pack, "tokenizer.ggml.model", "no_vocab", 8);
    if (!pack->status) pack->status = pack->keys.status;
    if (!pack->status) lemon__gguf_put_once(pack);
}

static lemon_status lemon__save_gguf(lemon_ctx *ctx, const char *path, const lemon_model *model, lemon_dtype dtype) {
    lemon__pack pack;
    lemon__pack_open(ctx, &pack);
    pack.front = lemon__gguf_front;
    pack.align = 32;
    lemon__gguf_keys(&pack, model, dtype);
    lemon__pack_params(&pack, model, 0, model->n_params, LEMON__STYLE_GGUF, dtype);
    lemon_status status = pack.status ? lemon__blame(ctx, path, pack.status) : lemon__pack_write_file(&pack, path);
    lemon__pack_close(&pack);
    return status;
}

/* ---- llama2.c's .bin out: f32 as version 0, q8 as version 2 ---- */

/*  What the format has no field for must be what run.c takes for granted. */
static lemon_status lemon__bin_fits(lemon_ctx *ctx, const char *path, const lemon_config *c, lemon_dtype dtype) {
    const struct { const char *name; double value, expected; } fields[] = {
        {"qkv_bias", (double)c->qkv_bias, 0}, {"qk_norm", (double)c->qk_norm, 0}, {"window", (double)c->window, 0},
        {"rope_scaling", (double)c->rope_scaling, 0}, {"rope_theta", (double)c->rope_theta, 10000.0},
        {"rms_norm_eps", (double)c->rms_norm_eps, (double)1e-5f},
        {"head_dim", (double)c->head_dim, (double)c->d_model / (double)c->n_heads}};
    if (dtype != LEMON_F32 && dtype != LEMON_Q8)
        return lemon__fail(ctx, LEMON_E_ARG, "%s: dtype is %s, which llama2.c's .bin cannot carry, expected f32 or q8",
                           path, lemon_dtype_name(dtype));
    for (int i = 0; i < 7; i++)
        if (fields[i].value < fields[i].expected || fields[i].value > fields[i].expected)
            return lemon__fail(ctx, LEMON_E_ARG, "%s: %s is %g, expected %g; llama2.c's .bin has no other", path,
                               fields[i].name, fields[i].value, fields[i].expected);
    return LEMON_OK;
}

static void lemon__llama2c_put_header(const lemon_config *c, int version, int64_t group, lemon__bytes *out) {
    if (version > 0) lemon__put_number(out, LEMON__L2C_MAGIC, 4);
    if (version > 0) lemon__put_number(out, (uint64_t)version, 4);
    for (int i = 0; i < 7; i++) {
        int64_t value = (int64_t)lemon__field_get(c, &lemon__fields[lemon__llama2c_fields[i]]);
        lemon__put_number(out, (uint64_t)(i == 5 && version == 0 && !c->tied_embeddings ? -value : value), 4);
    }
    if (version == 0) return;
    lemon__put_number(out, (uint64_t)c->tied_embeddings, 1);
    lemon__put_number(out, (uint64_t)group, 4);
    lemon__put_padding(out, LEMON__L2C_HEADER);
}

/*  A row of f32; in version 2 a row of a matrix becomes bytes, and the scales of its groups go to `scales`. */
static void lemon__llama2c_put_row(const float *x, int64_t n, int64_t group, lemon__bytes *out, lemon__bytes *scales) {
    for (int64_t i = 0; i < n && group == 0; i++) lemon__put_number(out, lemon__bits(x[i]), 4);
    for (int64_t i = 0; i < n && group > 0; i += group) {
        float top = 0, scale = 0;
        for (int64_t j = i; j < i + group; j++) {
            top = fabsf(x[j]) > top ? fabsf(x[j]) : top;
            scale += x[j] * 0.0f;               /* 0, or NaN where a number is NaN or Inf: so is the group then */
        }
        scale += top / 127.0f;
        for (int64_t j = i; j < i + group; j++)
            lemon__put_number(out, (uint64_t)(int64_t)(scale > 0 ? roundf(x[j] / scale) : 0.0f), 1);
        lemon__put_number(scales, lemon__bits(scale), 4);
    }
}

/*  Passes on what is a megabyte or more. */
static void lemon__llama2c_flush(const lemon_writer *writer, lemon__bytes *out) {
    if (out->count < 1 << 20 || out->status) return;
    out->status = lemon__append(out->ctx, writer, out->data, (size_t)out->count);
    out->count = 0;
}

/*  Cosines, then sines, of every position's angles: nobody reads them any more. */
static void lemon__llama2c_put_rope(const lemon_config *c, const lemon_writer *writer, lemon__bytes *out) {
    for (int64_t table = 0; table < 2; table++)
        for (int64_t pos = 0; pos < c->max_seq && !out->status; pos++, lemon__llama2c_flush(writer, out))
            for (int64_t i = 0; i < c->head_dim / 2; i++) {
                double angle = (double)pos * pow((double)c->rope_theta, -2.0 * (double)i / c->head_dim);
                lemon__put_number(out, lemon__bits((float)(table ? sin(angle) : cos(angle))), 4);
            }
}

static lemon_status lemon__llama2c_write(lemon_ctx *ctx, const lemon_writer *writer, const lemon_model *model, int version) {
    const lemon_config *c = &model->config;
    int64_t group = version == 2 ? 64 : 0;
    uint64_t count, n;
    float *x = (float *)lemon__malloc(ctx, 65536 * sizeof *x);      /* no row is wider */
    lemon__bytes out = lemon__bytes_in(ctx), scales = out;
    lemon_status status;
    while (group && (c->d_model % group || c->d_ffn % group)) group /= 2;       /* as llama2.c's export.py does */
    lemon__llama2c_put_header(c, version, group, &out);
    for (int step = 0; step < LEMON__L2C_STEPS && x; step++) {
        int role = lemon__llama2c_step(c, version, step, &count, &n), rope = role == LEMON__L2C_ROPE;
        if (rope && n > 0) lemon__llama2c_put_rope(c, writer, &out);
        for (int64_t layer = 0; layer < (int64_t)count && n > 0 && !rope; layer++) {
            const lemon_tensor *t = lemon_model_param(model, (lemon_role)role, layer);
            for (int64_t r = 0; r < t->rows && !out.status; r++) {
                lemon_row_to_f32(t, r, x);
                lemon__llama2c_put_row(x, t->cols, lemon__roles[role].matrix ? group : 0, &out, &scales);
                lemon__llama2c_flush(writer, &out);
            }
            lemon__put(&out, scales.data, (size_t)scales.count);
            scales.count = 0;
        }
    }
    status = x == NULL || scales.status ? LEMON_E_MEMORY : out.status;
    if (!status) status = lemon__append(ctx, writer, out.data, (size_t)out.count);
    lemon__free(ctx, x, 65536 * sizeof *x);
    lemon__bytes_free(&out);
    lemon__bytes_free(&scales);
    return status;
}

/* ---- Hugging Face folders out ----

   A folder is written beside its place, as PATH.tmp, and then renamed; so it appears whole.  Where a folder stands
   there already (other people's files may be in it), the new files are moved into it one by one: the old config.json
   goes first and the new one comes last, so a reader never takes a mixture for a model, and what a kill between two
   renames leaves is whole, some of it in PATH.tmp. */

#ifdef LEMON_NO_STDIO
static lemon_status lemon__save_folder(lemon_ctx *ctx, const char *path, const lemon_model *model,
                                       const lemon_save_options *options) {
    (void)model, (void)options;
    return lemon__no_file(ctx, path);
}
#else
typedef struct lemon__folder {
    lemon_ctx *ctx;
    char beside[LEMON__PATH];       /* where it is written */
    lemon__bytes names;             /* of the files written, each closed by a 0 */
} lemon__folder;

/*  The path of a file that is about to be written. */
static lemon_status lemon__folder_note(lemon__folder *f, const char *name, char *path) {
    lemon__put(&f->names, name, strlen(name) + 1);
    return f->names.status ? f->names.status : lemon__join(f->ctx, f->beside, name, path);
}

static lemon_status lemon__folder_put(lemon__folder *f, const char *name, const void *bytes, size_t n) {
    char path[LEMON__PATH];
    lemon_status status = lemon__folder_note(f, name, path);
    return status ? status : lemon__write_file(f->ctx, path, bytes, n);
}

/*  Writes a text that was printed, and frees it. */
static lemon_status lemon__folder_put_text(lemon__folder *f, const char *name, lemon__bytes *text) {
    lemon_status status = text->status;
    if (!status) status = lemon__folder_put(f, name, text->data, (size_t)text->count);
    lemon__bytes_free(text);
    return status;
}

static void lemon__st_front(const lemon__pack *pack, lemon__bytes *out) {
    lemon__put_number(out, 0, 8);
    lemon__print(out, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int64_t i = 0; i < pack->n_tensors; i++) {
        const lemon__packed *t = &pack->tensors[i];
        lemon__print(out, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, lemon__st_types[t->stored.dtype]);
        if (!t->vector) lemon__print(out, "%lld,", (long long)t->stored.rows);
        lemon__print(out, "%lld],\"data_offsets\":[%llu,%llu]}",
                     (long long)(t->vector ? t->stored.rows * t->stored.cols : t->stored.cols),
                     (unsigned long long)t->offset, (unsigned long long)(t->offset + lemon_tensor_bytes(&t->stored)));
    }
    lemon__print(out, "}");
    while (out->count % 8 != 0 && !out->status) lemon__put(out, " ", 1);
    if (!out->status) lemon__put64(out->data, (uint64_t)out->count - 8);
}

/*  The first parameter that goes into another file than parameter `from`; the bytes before it are added to *total. */
static int64_t lemon__shard_end(const lemon_model *model, int64_t from, lemon_dtype dtype, uint64_t limit, uint64_t *total) {
    const uint64_t before = *total;
    int64_t i;
    for (i = from; i < model->n_params; i++) {
        const lemon_tensor t = lemon__view(NULL, dtype, model->params[i].rows, model->params[i].cols);
        if (*total - before + lemon_tensor_bytes(&t) > limit && i > from) break;
        *total += lemon_tensor_bytes(&t);
    }
    return i;
}

/*  The weights, in so many files of at most `limit` bytes as they take, and their index where that is more than one. */
static lemon_status lemon__folder_put_weights(lemon__folder *f, const lemon_model *model, lemon_dtype dtype, uint64_t limit) {
    lemon__bytes index = lemon__bytes_in(f->ctx);
    lemon_status status = LEMON_OK;
    int64_t to, n = 0, k = 0;
    uint64_t total = 0;
    for (int64_t from = 0; from < model->n_params; n++) from = lemon__shard_end(model, from, dtype, limit, &total);
    lemon__print(&index, "{\n  \"metadata\": {\"total_size\": %llu},\n  \"weight_map\": {", (unsigned long long)total);
    for (int64_t from = 0; from < model->n_params && !status; from = to, k++) {
        lemon__pack pack;
        char name[LEMON__NAME], path[LEMON__PATH];
        to = lemon__shard_end(model, from, dtype, limit, &total);
        if (n == 1) lemon__format(name, sizeof name, "model.safetensors");
        else lemon__format(name, sizeof name, "model-%05lld-of-%05lld.safetensors", (long long)k + 1, (long long)n);
        lemon__pack_open(f->ctx, &pack);
        pack.front = lemon__st_front;
        pack.align = 1;
        lemon__pack_params(&pack, model, from, to, LEMON__STYLE_HF, dtype);
        for (int64_t i = 0; i < pack.n_tensors; i++)
            lemon__print(&index, "%s\n    \"%s\": \"%s\"", from + i > 0 ? "," : "", pack.tensors[i].name, name);
        status = lemon__folder_note(f, name, path);
        if (!status) status = lemon__pack_write_file(&pack, path);
        lemon__pack_close(&pack);
    }
    lemon__print(&index, "\n  }\n}\n");
    if (!status) status = n > 1 ? lemon__folder_put_text(f, "model.safetensors.index.json", &index) : index.status;
    lemon__bytes_free(&index);
    return status;
}

/*  Members of the config.json that the model came with, those that this one says itself left out, and lists and objects
    (but that of several EOS ids) because they may speak of layers that are gone. */
static lemon_status lemon__folder_put_carried(const lemon_model *model, lemon__bytes *out) {
    static const char *const ours[] = {"architectures", "model_type", "torch_dtype", "dtype", "hidden_act", "attention_bias",
                                       "mlp_bias", "sliding_window", "use_sliding_window", "max_window_layers"};
    const lemon_part *part = lemon__part_find(model, "config.json");
    lemon__json json;
    size_t start;
    if (part == NULL) {
        if (model->tokenizer)
            lemon__print(out, ",\n  \"bos_token_id\": %ld,\n  \"eos_token_id\": %ld",
                         (long)lemon_tokenizer_bos(model->tokenizer), (long)lemon_tokenizer_eos(model->tokenizer));
        return LEMON_OK;
    }
    lemon_status status = lemon__json_parse(out->ctx, "config.json", part->data, part->bytes, &json);
    if (status) return status;
    for (int32_t i = 1; i < json.nodes[0].next && json.nodes[0].type == LEMON__JSON_OBJECT; i = json.nodes[i + 1].next) {
        const lemon__json_node *value = &json.nodes[i + 1];
        int known = value->type >= LEMON__JSON_ARRAY && !lemon__json_is(&json, i, "eos_token_id");
        for (size_t k = 0; k < 10; k++) known |= lemon__json_is(&json, i, ours[k]);
        for (size_t k = 0; k < LEMON__FIELDS; k++)
            known |= lemon__fields[k].hf && !lemon__fields[k].kinds && lemon__json_is(&json, i, lemon__fields[k].hf);
        if (known) continue;
        start = json.nodes[i].start - 1;                            /* from quote to quote */
        lemon__print(out, ",\n  ");
        lemon__put(out, json.text + start, value->start + value->bytes + (value->type == LEMON__JSON_STRING) - start);
    }
    lemon__json_close(&json);
    return LEMON_OK;
}

/*  What only some of the family have: a window, and how RoPE is scaled. */
static void lemon__folder_put_family(const lemon_config *c, lemon__bytes *out) {
    if (c->window) lemon__print(out, ",\n  \"sliding_window\": %ld", (long)c->window);
    if (c->qkv_bias || c->qk_norm)
        lemon__print(out, ",\n  \"use_sliding_window\": %s,\n  \"max_window_layers\": %ld", c->window ? "true" : "false",
                     c->window ? 0 : (long)c->n_layers);
    if (!c->rope_scaling) return;
    lemon__print(out, ",\n  \"rope_scaling\": {\"rope_type\": \"%s\"", lemon__rope_kinds[c->rope_scaling]);
    for (int i = 0; i < LEMON__FIELDS; i++) {
        if (lemon__fields[i].kinds == 0 || !lemon__field_used(c, &lemon__fields[i])) continue;
        lemon__print(out, ", \"%s\": ", lemon__fields[i].hf);
        lemon__print_real(out, lemon__field_get(c, &lemon__fields[i]));
    }
    lemon__print(out, "}");
}

static lemon_status lemon__folder_put_config(lemon__folder *f, const lemon_model *model, lemon_dtype dtype) {
    static const char *const types[] = {"float32", "bfloat16", "float16"};
    const char *family = lemon_config_family(&model->config);
    lemon__bytes text = lemon__bytes_in(f->ctx);
    lemon__print(&text, "{\n  \"architectures\": [\"%c%sForCausalLM\"],\n  \"model_type\": \"%s\",\n"
                        "  \"torch_dtype\": \"%s\",\n  \"hidden_act\": \"silu\",\n  \"attention_bias\": false,\n"
                        "  \"mlp_bias\": false", family[0] - 'a' + 'A', family + 1, family, types[dtype]);
    for (int i = 0; i < LEMON__FIELDS; i++) {
        double value = lemon__field_get(&model->config, &lemon__fields[i]);
        if (lemon__fields[i].hf == NULL || lemon__fields[i].kinds) continue;
        lemon__print(&text, ",\n  \"%s\": ", lemon__fields[i].hf);
        if (lemon__fields[i].offset == offsetof(lemon_config, tied_embeddings))
            lemon__print(&text, value > 0 ? "true" : "false");
        else if (lemon__fields[i].real) lemon__print_real(&text, value);
        else lemon__print(&text, "%ld", (long)value);
    }
    lemon__folder_put_family(&model->config, &text);
    if (!text.status) text.status = lemon__folder_put_carried(model, &text);
    if (!text.status) lemon__print(&text, "\n}\n");
    return lemon__folder_put_text(f, "config.json", &text);
}

/*  The head of a README.md for a model that came as GGUF. */
static lemon_status lemon__folder_put_origins(lemon__folder *f, const lemon_model *model) {
    static const char host[] = "https://huggingface.co/";
    const lemon_part *part = lemon__part_find(model, "gguf.metadata");
    lemon__bytes text = lemon__bytes_in(f->ctx);
    lemon__key key;
    int based = 0;
    if (lemon__part_find(model, "README.md")) return LEMON_OK;
    for (int k = 0; k < LEMON__ORIGINS; k++) {
        lemon__cursor c = lemon__cursor_at(part ? part->data : NULL, part ? part->bytes : 0);
        while (lemon__gguf_next(&c, &key)) {
            const uint8_t *said = key.value + 8;            /* behind its length */
            size_t n = key.bytes - 8;
            if (key.type != LEMON__GGUF_TEXT || !lemon__key_is(&key, lemon__origins[k][1]) || memchr(said, '\n', n)) continue;
            if (k >= LEMON__ORIGINS - 2 && based++) continue;
            if (n > sizeof host && memcmp(said, host, sizeof host - 1) == 0) { said += sizeof host - 1; n -= sizeof host - 1; }
            lemon__print(&text, "%s%s", text.count ? "" : "---\n", lemon__origins[k][0]);
            lemon__put(&text, said, n);
            lemon__print(&text, "\n");
        }
    }
    if (text.count == 0) return text.status;
    lemon__print(&text, "---\n");
    return lemon__folder_put_text(f, "README.md", &text);
}

/*  The tokenizer and the generation config: as they came, or made from ours. */
static lemon_status lemon__folder_put_texts(lemon__folder *f, const lemon_model *model) {
    const lemon_tokenizer *t = model->tokenizer;
    lemon__bytes text = lemon__bytes_in(f->ctx);
    lemon_status status = LEMON_OK;
    for (int i = 1; i < LEMON__CARRIED && !status; i++) {           /* 0 is config.json */
        const lemon_part *part = lemon__part_find(model, lemon__carried[i]);
        if (part) status = lemon__folder_put(f, part->name, part->data, part->bytes);
    }
    if (!status) status = lemon__folder_put_origins(f, model);
    if (status || t == NULL) return status;
    if (!lemon__part_find(model, "generation_config.json")) {
        lemon__print(&text, "{\n  \"bos_token_id\": %ld,\n  \"eos_token_id\": %ld\n}\n", (long)lemon_tokenizer_bos(t),
                     (long)lemon_tokenizer_eos(t));
        status = lemon__folder_put_text(f, "generation_config.json", &text);
    }
    if (status || lemon__part_find(model, "tokenizer.json")) return status;
    if (!lemon__part_find(model, "tokenizer_config.json")) {
        lemon__tokenizer_to_config(model, &text);
        status = lemon__folder_put_text(f, "tokenizer_config.json", &text);
    }
    if (status) return status;
    lemon__tokenizer_to_json(t, &text);
    return lemon__folder_put_text(f, "tokenizer.json", &text);
}

/*  The file of this name in a folder is removed, or becomes a file of another folder. */
static lemon_status lemon__folder_move(lemon__folder *f, const char *name, const char *folder, const char *other) {
    char from[LEMON__PATH], to[LEMON__PATH];
    lemon_status status = lemon__join(f->ctx, folder, name, from);
    if (!status && other) status = lemon__join(f->ctx, other, name, to);
    if (!status && other) return lemon__file_move(f->ctx, from, to);
    if (!status) lemon__file_remove(from);
    return status;
}

/*  All that was written is removed, or goes into a folder. */
static lemon_status lemon__folder_move_all(lemon__folder *f, const char *other) {
    const char *names = (const char *)f->names.data;
    lemon_status status = LEMON_OK;
    for (int64_t at = 0; at < f->names.count && !status; at += (int64_t)strlen(names + at) + 1)
        status = lemon__folder_move(f, names + at, f->beside, other);
    if (!status) lemon__folder_remove(f->beside);
    return status;
}

/*  Removes by what an earlier model in a folder would be found. */
static lemon_status lemon__folder_forget(lemon__folder *f, const char *folder) {
    static const char *const first[] = {"config.json", "model.safetensors", "model.safetensors.index.json"};
    lemon_status status = LEMON_OK;
    for (int i = 0; i < 3 && !status; i++) status = lemon__folder_move(f, first[i], folder, NULL);
    return status;
}

static lemon_status lemon__save_folder(lemon_ctx *ctx, const char *path, const lemon_model *model,
                                       const lemon_save_options *options) {
    lemon__folder f;
    int n = (int)lemon__min((int64_t)strlen(path), LEMON__PATH);
    char place[LEMON__PATH];
    while (n > 1 && path[n - 1] == '/') n--;
    if (n == 0 || n + 5 > LEMON__PATH) return lemon__fail(ctx, LEMON_E_ARG, "path \"%.60s\" is empty or too long", path);
    memset(&f, 0, sizeof f);
    f.ctx = ctx;
    f.names = lemon__bytes_in(ctx);
    lemon__format(place, sizeof place, "%.*s", n, path);
    lemon__format(f.beside, sizeof f.beside, "%.*s.tmp", (int)lemon__min(n, LEMON__PATH - 5), path);
    lemon_status status = lemon__folder_make(ctx, f.beside);
    if (!status) status = lemon__folder_forget(&f, f.beside);       /* what a kill may have left there */
    if (status) return status;
    status = lemon__folder_put_weights(&f, model, options->dtype, options->shard_bytes);
    if (!status) status = lemon__folder_put_texts(&f, model);
    if (!status) status = lemon__folder_put_config(&f, model, options->dtype);
    if (!status && lemon__rename(f.beside, place) != 0) {       /* it is there already */
        status = lemon__folder_forget(&f, place);
        if (!status) status = lemon__folder_move_all(&f, place);
    }
    if (status) lemon__folder_move_all(&f, NULL);
    lemon__bytes_free(&f.names);
    return status;
}
#endif

/* ---- saving ---- */

/*  What prints the bytes that it gets as the items of a C array. */
typedef struct lemon__array {
    lemon_ctx *ctx;
    lemon_writer out;
    unsigned column;
} lemon__array;

/*  The array is called after the file, in letters that C allows, and ends in _lemon. */
static void lemon__array_name(const char *path, char *name) {
    const char *p = path, *from = path;
    int n = 0;
    for (; *p; p++)
        if (*p == '/' || *p == '\\') from = p + 1;
    if (*from >= '0' && *from <= '9') name[n++] = '_';
    for (; *from && *from != '.' && n < 40; from++) {
        int plain = (*from >= 'a' && *from <= 'z') || (*from >= 'A' && *from <= 'Z') || (*from >= '0' && *from <= '9');
        name[n++] = plain ? *from : '_';
    }
    memcpy(name + n, "_lemon", 7);
}

static lemon_status lemon__array_append(void *user, const void *bytes, size_t count) {
    lemon__array *array = (lemon__array *)user;
    const uint8_t *p = (const uint8_t *)bytes, *end = p + count;
    lemon_status status = LEMON_OK;
    char text[4096];
    size_t n = 0;
    for (; p < end && !status; p++) {
        if (*p >= 100) text[n++] = (char)('0' + *p / 100);
        if (*p >= 10) text[n++] = (char)('0' + *p / 10 % 10);
        text[n++] = (char)('0' + *p % 10);
        text[n++] = ',';
        if (++array->column % 32 == 0) text[n++] = '\n';
        if (n + 8 < sizeof text && p + 1 < end) continue;
        status = lemon__append(array->ctx, &array->out, text, n);
        n = 0;
    }
    return status;
}

LEMON_API lemon_status lemon_save_writer(lemon_ctx *ctx, const lemon_writer *writer, const lemon_model *model,
                                         lemon_dtype dtype) {
    lemon__pack pack;
    if (lemon__lacks(ctx, __func__, model && lemon__writer_ok(writer))) return LEMON_E_ARG;
    lemon__pack_open(ctx, &pack);
    lemon__pack_text(&pack, "requires", "model", 5);
    lemon__pack_model(&pack, model, dtype);
    lemon_status status = lemon__pack_write(&pack, writer);
    lemon__pack_close(&pack);
    return status;
}

static lemon_status lemon__save_array(lemon_ctx *ctx, const char *path, const lemon_model *model, lemon_dtype dtype) {
    lemon__array array;
    const lemon_writer writer = {&array, path, lemon__array_append, NULL, NULL};
    char name[LEMON__NAME], text[1024];
    lemon__array_name(path, name);
    int n = lemon__format(text, sizeof text,
                          "/* A .lemon file as a C array, made by lemon.h.  lemon_load_reader reads it where it stands:\n"
                          "   name \"%s\", size sizeof %s, map %s, the other fields of the reader 0. */\n"
                          "#ifndef LEMON_ARRAY_%s\n#define LEMON_ARRAY_%s\n"
                          "#if defined(__GNUC__) || defined(__clang__)\n__attribute__((aligned(64)))\n"
                          "#elif defined(_MSC_VER)\n__declspec(align(64))\n#elif defined(__cplusplus)\nalignas(64)\n"
                          "#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L\n_Alignas(64)\n#endif\n"
                          "static const unsigned char %s[] = {\n", name, name, name, name, name, name);
    memset(&array, 0, sizeof array);
    array.ctx = ctx;
    lemon_status status = lemon_file_writer(ctx, path, &array.out);
    if (status) return status;
    status = lemon__append(ctx, &array.out, text, (size_t)n);
    if (!status) status = lemon_save_writer(ctx, &writer, model, dtype);
    if (!status) status = lemon__append(ctx, &array.out, "};\n#endif\n", 10);
    return lemon__conclude(ctx, &array.out, status);
}

/*  The ending of a path with its dot; "" where there is none. */
static const char *lemon__ending(const char *path) {
    const char *p, *dot = "";
    for (p = path; *p; p++) {
        if (*p == '.') dot = p;
        if (*p == '/' || *p == '\\') dot = "";
    }
    return dot;
}

LEMON_API void lemon_save_defaults(lemon_save_options *options) {
    static const lemon_save_options defaults = {LEMON_F32, 5000000000u};
    if (options) *options = defaults;
}

LEMON_API lemon_status lemon_save_check(lemon_ctx *ctx, const char *path, const lemon_config *config, lemon_dtype dtype) {
    if (lemon__lacks(ctx, __func__, path && config)) return LEMON_E_ARG;
    if ((unsigned)dtype > LEMON_Q4)
        return lemon__fail(ctx, LEMON_E_ARG, "%s: dtype is %s, expected f32, bf16, f16, q8 or q4", path,
                           lemon_dtype_name(dtype));
    const char *ending = lemon__ending(path);
    if (strcmp(ending, ".lemon") == 0 || strcmp(ending, ".h") == 0) return LEMON_OK;
    if (!LEMON__FORMATS) return lemon__one_format(ctx, path);
    if (strcmp(ending, ".bin") == 0) return lemon__bin_fits(ctx, path, config, dtype);
    if (config->qkv_bias && config->qk_norm)
        return lemon__fail(ctx, LEMON_E_ARG, "%s: qkv_bias and qk_norm are both set, which only .lemon and .h can carry", path);
    if (strcmp(ending, ".gguf") == 0) return lemon__gguf_fits(ctx, path, config);
    if (dtype <= LEMON_F16) return LEMON_OK;
    return lemon__fail(ctx, LEMON_E_ARG, "%s: dtype is %s, which a Hugging Face folder cannot carry, expected f32, bf16 or "
                       "f16; other endings are .lemon, .gguf, .bin and .h", path, lemon_dtype_name(dtype));
}

LEMON_API lemon_status lemon_save_with(lemon_ctx *ctx, const char *path, const lemon_model *model,
                                       const lemon_save_options *options) {
    lemon_writer writer;
    if (lemon__lacks(ctx, __func__, path && model && options)) return LEMON_E_ARG;
    lemon_status status = lemon_save_check(ctx, path, &model->config, options->dtype);
    if (status) return status;
    status = lemon__vocabulary_check(ctx, model->tokenizer, model->config.vocab_size);
    if (status) return lemon__blame(ctx, path, status);
    const char *ending = lemon__ending(path);
    if (strcmp(ending, ".gguf") == 0) return lemon__save_gguf(ctx, path, model, options->dtype);
    if (strcmp(ending, ".h") == 0) return lemon__save_array(ctx, path, model, options->dtype);
    if (strcmp(ending, ".bin") != 0 && strcmp(ending, ".lemon") != 0) return lemon__save_folder(ctx, path, model, options);
    status = lemon_file_writer(ctx, path, &writer);
    if (status) return status;
    if (strcmp(ending, ".lemon") == 0) return lemon_save_writer(ctx, &writer, model, options->dtype);
    return lemon__conclude(ctx, &writer, lemon__llama2c_write(ctx, &writer, model, options->dtype == LEMON_Q8 ? 2 : 0));
}

LEMON_API lemon_status lemon_save(lemon_ctx *ctx, const char *path, const lemon_model *model, lemon_dtype dtype) {
    lemon_save_options options;
    lemon_save_defaults(&options);
    options.dtype = dtype;
    return lemon_save_with(ctx, path, model, &options);
}

LEMON__BRIEF_END
/* ====================================================================================================================
   9  TOKENIZERS

   A language model reads and writes ids, each of which stands for a piece of text.  Nearly all vocabularies are made
   by byte-pair encoding (Sennrich et al. 2016), and come in two families.

   SentencePiece's (LLaMA 1 and 2, Mistral, TinyLlama, llama2.c): a text is characters, each of which becomes its piece,
   or its bytes (pieces <0x00> ... <0xFF>) where it has none.  A blank goes before the text, so that a word is the same
   piece wherever it stands; files write blanks as U+2581.
   GPT-2's (LLaMA 3, Qwen, SmolLM): a text is cut into words by a pattern, and a word is bytes.  Files write each byte
   as a printable character.  In memory all pieces are the bytes that they stand for.

   Then the two neighbours whose join is best become one piece, the leftmost ones where several are equal, again and
   again until no neighbours can be joined.  What is best says either a list of merges, pairs of pieces in the order in
   which they were learned (Hugging Face, and GPT-2's family everywhere), or the score of the piece that comes out
   (SentencePiece, llama2.c).  Looking at all neighbours for each join takes quadratic time, so joins wait in a heap,
   and those whose neighbours have changed are passed over when they come up.  No join can cross a place where two bytes
   meet that never meet in any piece, so SentencePiece texts are first cut there, mostly between words.

   To learn a vocabulary, the most frequent pair of neighbours becomes a piece, again and again.  Earlier pieces get
   better scores, so the encoder repeats the joins in the order they were learned in.

   Chapter 8 makes tokenizers of other files by lemon__tokenizer_new; rules; lemon__tokenizer_spell for each id in order;
   lemon__tokenizer_merge in order of rank; lemon__tokenizer_finish.  To write them it reads kinds, scores, merges
   and rules; lemon__put_spelling spells the pieces.
   ================================================================================================================== */

enum { LEMON__BOS = 1, LEMON__EOS = 2, LEMON__FIRST_BYTE = 3, LEMON__FIRST_PIECE = 259, LEMON__MAX_PIECES = 1 << 24 };
enum { LEMON__CLASS_BYTES = 0x34000 / 4 };

/*  What a piece is, by the numbers of GGUF's tokenizer.ggml.token_type; and flags: it takes the white space on its left
    or right along when it is found in a text. */
enum {
    LEMON__NORMAL = 1, LEMON__UNKNOWN, LEMON__CONTROL, LEMON__ADDED, LEMON__UNUSED, LEMON__BYTE,
    LEMON__KIND = 15, LEMON__STRIP_LEFT = 16, LEMON__STRIP_RIGHT = 32
};

/*  How a text is cut into words; none is SentencePiece's family. */
enum {
    LEMON__SPLIT_NONE = 0, LEMON__SPLIT_GPT2, LEMON__SPLIT_DIGITS, LEMON__SPLIT_LLAMA3, LEMON__SPLIT_QWEN2,
    LEMON__SPLIT_QWEN35, LEMON__SPLIT_COUNT
};

/*  When a blank goes before a text: never; before each part between special tokens; likewise, but not before a blank;
    the same, but only at the beginning of the text. */
enum { LEMON__PREFIX_NEVER = 0, LEMON__PREFIX_ALWAYS, LEMON__PREFIX_MISSING, LEMON__PREFIX_FIRST };

/*  All that a tokenizer is besides its pieces and merges; stored as named integers. */
typedef struct lemon__rules {
    int32_t llama2c;                /* laid out as llama2.c wants it: unknown, BOS, EOS, bytes, pieces */
    int32_t split, prefix;
    int32_t by_merges;              /* joins are ranked by the list of merges, not by scores */
    int32_t whole_words;            /* a word that is a piece is not looked at further ("ignore_merges") */
    int32_t blank_mark;             /* U+2581 in a text is a blank */
    int32_t nfc;                    /* texts are put into Unicode's form C first */
    int32_t add_bos;                /* the tokenizer adds BOS itself */
    int32_t bos, eos, unknown;      /* -1: none */
} lemon__rules;

/*  left and right become id; the first 8 bytes are the word under which it is found. */
typedef struct lemon__merge { int32_t left, right, id; } lemon__merge;

/*  A piece that is looked for in the text before anything else. */
typedef struct lemon__special { const uint8_t *bytes; size_t n; int32_t id; } lemon__special;

struct lemon_tokenizer {
    uint8_t *blob;                  /* all pieces, one behind the other */
    int64_t blob_bytes, blob_capacity;
    lemon__words pieces;            /* the piece of each id; found are those that text can become */
    float *scores;
    uint8_t *kinds;
    int64_t scores_capacity, kinds_capacity;
    lemon__merge *merges;           /* in order of rank */
    int64_t merges_capacity;
    lemon__words pairs;             /* one for each merge */
    lemon__rules rules;
    size_t longest;                 /* bytes of the longest piece */
    uint8_t meets[65536 / 8];       /* bit 256 a + b: byte b follows byte a inside of a piece that can be found */
    uint8_t bytes[256];             /* what byte pieces stand for, to be pointed to */
    /* lemon__tokenizer_finish makes the rest of what stands above */
    int32_t byte_ids[256];          /* the piece of a byte; -1: none */
    int64_t n_specials, specials_capacity;
    lemon__special *specials;       /* sorted by their bytes */
    uint8_t *classes;               /* of characters; NULL without a pattern */
};

/* ---- making and freeing ---- */

LEMON_API void lemon_tokenizer_free(lemon_ctx *ctx, lemon_tokenizer *tokenizer) {
    lemon_tokenizer *t = tokenizer;
    if (t == NULL) return;
    lemon__free(ctx, t->blob, (size_t)t->blob_capacity);
    lemon__free(ctx, t->scores, (size_t)t->scores_capacity * sizeof *t->scores);
    lemon__free(ctx, t->kinds, (size_t)t->kinds_capacity);
    lemon__free(ctx, t->merges, (size_t)t->merges_capacity * sizeof *t->merges);
    lemon__free(ctx, t->specials, (size_t)t->specials_capacity * sizeof *t->specials);
    lemon__free(ctx, t->classes, LEMON__CLASS_BYTES);
    lemon__words_free(ctx, &t->pieces);
    lemon__words_free(ctx, &t->pairs);
    lemon__free(ctx, t, sizeof *t);
    if (ctx) lemon__forms_free(ctx);
}

LEMON_API int32_t lemon_tokenizer_size(const lemon_tokenizer *tokenizer) {
    return tokenizer ? (int32_t)tokenizer->pieces.count : 0;
}

LEMON_API int32_t lemon_tokenizer_bos(const lemon_tokenizer *tokenizer) {
    return tokenizer && tokenizer->rules.bos >= 0 ? tokenizer->rules.bos : lemon_tokenizer_eos(tokenizer);
}

LEMON_API int32_t lemon_tokenizer_eos(const lemon_tokenizer *tokenizer) {
    return tokenizer ? tokenizer->rules.eos : -1;
}

LEMON_API int lemon_tokenizer_adds_bos(const lemon_tokenizer *tokenizer) {
    return tokenizer && tokenizer->rules.add_bos != 0;
}

LEMON_API int lemon_tokenizer_special(const lemon_tokenizer *tokenizer, int32_t id) {
    int kind = id < 0 || id >= lemon_tokenizer_size(tokenizer) ? LEMON__NORMAL : tokenizer->kinds[id] & LEMON__KIND;
    return kind == LEMON__CONTROL || kind == LEMON__UNKNOWN;
}

static const uint8_t *lemon__piece(const lemon_tokenizer *tokenizer, int32_t id, size_t *bytes) {
    *bytes = tokenizer->pieces.spans[id].bytes;
    return tokenizer->blob + tokenizer->pieces.spans[id].start;
}

/*  The byte that a piece of the form <0xNN> stands for, or -1. */
static int lemon__byte_of(const uint8_t *piece, size_t n) {
    if (n != 6 || memcmp(piece, "<0x", 3) != 0 || piece[5] != '>') return -1;
    int high = lemon__hex_digit(piece[3]);
    int low = lemon__hex_digit(piece[4]);
    return high < 0 || low < 0 ? -1 : 16 * high + low;
}

static lemon_status lemon__tokenizer_new(lemon_ctx *ctx, lemon_tokenizer **tokenizer) {
    static const lemon__rules llama2c = {1, 0, 0, 0, 0, 0, 0, 1, LEMON__BOS, LEMON__EOS, 0};
    lemon_tokenizer *t = (lemon_tokenizer *)lemon__calloc(ctx, sizeof *t);
    *tokenizer = t;
    if (t == NULL) return LEMON_E_MEMORY;
    t->rules = llama2c;
    for (int i = 0; i < 256; i++) t->bytes[i] = (uint8_t)i;
    return LEMON_OK;
}

/*  Frees what was begun if it failed. */
static lemon_status lemon__tokenizer_done(lemon_ctx *ctx, lemon_status status, lemon_tokenizer **tokenizer) {
    if (status) { lemon_tokenizer_free(ctx, *tokenizer); *tokenizer = NULL; }
    return status;
}

/*  Room for n more bytes at the end of the blob; NULL: no memory. */
static uint8_t *lemon__tokenizer_room(lemon_ctx *ctx, lemon_tokenizer *t, size_t n) {
    if (!lemon__room(ctx, &t->blob, &t->blob_capacity, t->blob_bytes + (int64_t)n, 1)) return NULL;
    t->pieces.blob = t->blob;
    return t->blob + t->blob_bytes;
}

/*  Makes the n bytes that were put into that room the piece of the next id.  Only normal ones can be found: no text
    becomes special and byte pieces by spelling them out. */
static lemon_status lemon__tokenizer_push(lemon_ctx *ctx, lemon_tokenizer *t, int kind, float score, size_t n) {
    int64_t id = t->pieces.count;
    const uint8_t *piece = t->blob + t->blob_bytes;
    int found = kind == LEMON__NORMAL && n > 0;
    if (!lemon__room(ctx, &t->scores, &t->scores_capacity, id + 1, sizeof *t->scores) ||
        !lemon__room(ctx, &t->kinds, &t->kinds_capacity, id + 1, 1) ||
        !lemon__words_push(ctx, &t->pieces, (size_t)t->blob_bytes, n, found))
        return LEMON_E_MEMORY;
    t->scores[id] = score;
    t->kinds[id] = (uint8_t)kind;
    t->blob_bytes += (int64_t)n;
    t->longest = n > t->longest ? n : t->longest;
    for (size_t i = 1; LEMON__BPE && found && i < n; i++)
        t->meets[32 * piece[i - 1] + piece[i] / 8] |= (uint8_t)(1u << piece[i] % 8);
    return LEMON_OK;
}

static lemon_status lemon__tokenizer_add(lemon_ctx *ctx, lemon_tokenizer *t, int kind, float score, const void *bytes,
                                         size_t n) {
    uint8_t *room = lemon__tokenizer_room(ctx, t, n);
    if (room == NULL) return LEMON_E_MEMORY;
    if (n > 0) memcpy(room, bytes, n);
    return lemon__tokenizer_push(ctx, t, kind, score, n);
}

/*  In llama2.c's vocabulary only the place and the form of a piece tell what it is. */
static int lemon__llama2c_kind(int64_t id, const uint8_t *piece, size_t n) {
    return id == 0 ? LEMON__UNKNOWN : id < LEMON__FIRST_BYTE ? LEMON__CONTROL
           : lemon__byte_of(piece, n) >= 0 ? LEMON__BYTE : LEMON__NORMAL;
}

/* ---- how files spell pieces ---- */

/*  GPT-2's alphabet: bytes that print are their own character, the others follow upon U+0100 in their order. */
static long lemon__letter_of(int byte) {
    return byte <= 32 ? 256 + byte : byte >= 127 && byte <= 160 ? 162 + byte : byte == 173 ? 323 : byte;
}

static int lemon__byte_of_letter(long c) {
    int byte = c < 256 ? (int)c : c <= 288 ? (int)c - 256 : c <= 322 ? (int)c - 162 : c == 323 ? 173 : -1;
    return byte >= 0 && lemon__letter_of(byte) == c ? byte : -1;
}

/*  Bytes of the UTF-8 character that begins here; 1 for a byte that begins none. */
static size_t lemon__char_bytes(const uint8_t *p, size_t n) {
    size_t size = p[0] < 0xc0 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf8 ? 4 : 1;
    if (size > n) return 1;
    for (size_t i = 1; i < size; i++)
        if ((p[i] & 0xc0) != 0x80) return 1;
    return size;
}

/*  The character itself; -1 for a byte that begins none. */
static long lemon__char_code(const uint8_t *p, size_t size) {
    return size == 1   ? (p[0] < 0x80 ? p[0] : -1)
           : size == 2 ? (p[0] & 0x1f) << 6 | (p[1] & 0x3f)
           : size == 3 ? (p[0] & 0x0f) << 12 | (p[1] & 0x3f) << 6 | (p[2] & 0x3f)
                       : (p[0] & 0x07L) << 18 | (p[1] & 0x3f) << 12 | (p[2] & 0x3f) << 6 | (p[3] & 0x3f);
}

/*  SentencePiece's blanks, U+2581, become blanks.  out may be text; returns how many bytes there are then. */
static size_t lemon__blanks(uint8_t *out, const uint8_t *text, size_t n) {
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        int mark = text[i] == 0xe2 && n - i >= 3 && text[i + 1] == 0x96 && text[i + 2] == 0x81;
        out[k++] = mark ? ' ' : text[i];
        if (mark) i += 2;
    }
    return k;
}

/*  A normal piece as it is written in a file -> its bytes.  One that is not of the alphabet stands for itself, and no text
    becomes it, though it may have the bytes of another. */
static size_t lemon__unspell(const lemon_tokenizer *t, uint8_t *out, const uint8_t *text, size_t n, int *kind) {
    size_t size, k = 0;
    if (t->rules.split == LEMON__SPLIT_NONE) return lemon__blanks(out, text, n);
    for (size_t at = 0; at < n; at += size) {
        size = lemon__char_bytes(text + at, n - at);
        int byte = lemon__byte_of_letter(lemon__char_code(text + at, size));
        if (byte < 0) {
            memcpy(out, text, n);
            *kind = LEMON__UNUSED;
            return n;
        }
        out[k++] = (uint8_t)byte;
    }
    return k;
}

/*  Appends a piece that is spelled as in tokenizer.json or GGUF; only normal ones are spelled otherwise than they are. */
static lemon_status lemon__tokenizer_spell(lemon_ctx *ctx, lemon_tokenizer *t, int kind, float score, const void *text,
                                           size_t n) {
    uint8_t *room = lemon__tokenizer_room(ctx, t, n);
    if (room == NULL) return LEMON_E_MEMORY;
    if (kind == LEMON__NORMAL) n = lemon__unspell(t, room, (const uint8_t *)text, n, &kind);
    else if (n > 0) memcpy(room, text, n);
    return lemon__tokenizer_push(ctx, t, kind, score, n);
}

/*  Appends a merge.  Scores that say the same are kept for files that know no merges. */
static lemon_status lemon__merge_push(lemon_ctx *ctx, lemon_tokenizer *t, const lemon__merge *m) {
    const int64_t rank = t->pairs.count;
    if (!lemon__room(ctx, &t->merges, &t->merges_capacity, rank + 1, sizeof *m)) return LEMON_E_MEMORY;
    t->pairs.blob = (const uint8_t *)t->merges;
    t->merges[rank] = *m;
    if (t->scores[m->id] >= 0) t->scores[m->id] = -(float)(rank + 1);
    return lemon__words_push(ctx, &t->pairs, (size_t)rank * sizeof *m, 8, 1) ? LEMON_OK : LEMON_E_MEMORY;
}

/*  A merge of two pieces, given as they are spelled. */
static lemon_status lemon__tokenizer_merge(lemon_ctx *ctx, lemon_tokenizer *t, const char *name, const void *left,
                                           size_t n_left, const void *right, size_t n_right) {
    uint8_t *room = lemon__tokenizer_room(ctx, t, n_left + n_right);
    int kind;
    if (room == NULL) return LEMON_E_MEMORY;
    if (n_left == 0 || n_right == 0)
        return lemon__fail(ctx, LEMON_E_FORMAT, "%s: merge %lld is no pair of pieces; " LEMON__DAMAGED, name,
                           (long long)t->pairs.count);
    size_t a = lemon__unspell(t, room, (const uint8_t *)left, n_left, &kind);
    size_t b = lemon__unspell(t, room + a, (const uint8_t *)right, n_right, &kind);
    const lemon__merge m = {lemon__words_find(&t->pieces, room, a), lemon__words_find(&t->pieces, room + a, b),
                            lemon__words_find(&t->pieces, room, a + b)};
    if (m.left < 0 || m.right < 0 || m.id < 0)
        return lemon__fail(ctx, LEMON_E_FORMAT, "%s: merge %lld is \"%.*s %.*s\", expected two pieces of the vocabulary "
                           "that make a third", name, (long long)t->pairs.count, (int)lemon__min((int64_t)n_left, 40),
                           (const char *)left, (int)lemon__min((int64_t)n_right, 40), (const char *)right);
    return lemon__merge_push(ctx, t, &m);
}

/*  The same, given as one text, "left right". */
static lemon_status lemon__tokenizer_merge_text(lemon_ctx *ctx, lemon_tokenizer *t, const char *name,
                                                const uint8_t *text, size_t n) {
    const uint8_t *gap = n > 1 ? (const uint8_t *)memchr(text + 1, ' ', n - 1) : NULL;
    size_t n_left = gap ? (size_t)(gap - text) : 0;
    return lemon__tokenizer_merge(ctx, t, name, text, n_left, gap ? gap + 1 : text, gap ? n - n_left - 1 : 0);
}

/* ---- classes of characters, for the patterns ---- */

/*  The tables below are numbers, lowest digits first, as printable characters: the last digit is 0 ... 64, those before it
    are 65 ... 89 and count 25 times less than the next.  They have the Unicode of Hugging Face's tokenizers 0.22: classes
    of 16.0 (Oniguruma's), form C of 9.0; `make -C tests judges-vocab` compares all of its characters. */
typedef struct lemon__table { const char *const *line, *const *end, *p; } lemon__table;

#define LEMON__TABLE(lines) {lines, lines + sizeof lines / sizeof *lines, lines[0]}

/*  0: there is none left. */
static int lemon__table_next(lemon__table *in, uint32_t *value) {
    uint32_t scale = 1, digit = 65;
    for (*value = 0; digit >= 65; scale *= 25) {
        if (*in->p == 0 && ++in->line == in->end) return 0;
        if (*in->p == 0) in->p = *in->line;
        digit = (uint32_t)(*in->p - '!' - (*in->p > '"') - (*in->p > '?') - (*in->p > '\\'));
        *value += digit * scale;
        in->p++;
    }
    return 1;
}

/*  Runs of characters of one class, from U+0000 to U+33FFF: 4 * (length - 1) + class.  Behind them there are only the marks
    U+E0100 ... U+E01EF. */
enum { LEMON__OTHER = 0, LEMON__LETTER, LEMON__NUMBER, LEMON__MARK, LEMON__SPACE, LEMON__END };

static const char *const lemon__class_runs[] = {
    "|&I:p#6p#x&#:(!#*$#!,!}!!k$!sj!.PW3:#!#dl13!'&/!#6#!+!#!q!!s,!r5!=z9!n%&#6z%>s&!%!)!)!%>t#./{#N2i&w!I.'%h/!#=&9')!1'I+&#`#%g$v#&r-N#WIs$F'.#&%",
    "&y!1#F#-#5h!l#-.L2h#!7>Fe&j#!u$|'-#k!#=H)&I!a-!@&'&y!!;!#*/&%#=&)&-#>%.'!+)&I'&8&#!%&-!7.'&y!!;!'!'!'&%!5.)&-*%:/!#:I)+%K-!D!+!y!!;!'!3&%#B!-!",
    "-&#[')&IC#9!-!@&'&y!!;!'!3&%#=&)&-:-.'!+)&I!#8G%#!7*+!/*'!#!'*'*+*P.5*-!1&#6%WUS5@!+!}!!a&%#=!-!1:)!+&#&')&I><!#-!@!+!}!!H!3&%#=!-!1:)6'!')&I!",
    "'%O1D!+!z%)#=!-!1#2+%<+)&n!!7!-!i!*h#!D!#&;*%.9!%!B6I&)S}&%'=2;B!Iq%'!#!3!h#!#!H%'F#&3!#!=!I&/n$#|!)6r!!%!%!%.)@!f%.s!!)3N!h%C%n(i&s!#I671/-#-",
    "'=+1TR#%I1&n%!#2#&i&!sU!/&;!#!/&z%!/&s$!/&;!#!/&]!o(!/&e*&-Cr!*a`f-&7*qk#&e!!p#2l+*,@:i!1Cm!-Ki!)OT!+!)Ot'q$*#.#%&I6Id-!%I6r-:3)w$%#2q*Gk$!R.R",
    "GIg$&3Km&.p#6Mi%}!5.x'J!e$&%I6IS#>m$g'5y&g!@*IdFO-g$V'Im&ZOf%s!>I*+If%&L2i&&+`-!w!/%7%'-#2e>t)xL&7&n%&7&@!#!#!#!k$&x'!;!#*+!;*/&7.T2+!;u1$#&82",
    "#I6To'u$d#.#&H!#*36#!#!#!/!L&/23.#!q''4o|#|(w+z!fm#h$nr&|D6/-'C$&n%!#2#&k(:#[%}!C;!;!;!;!;!;!;!;!q$x&#ll!'$k#E9!3&,'.f-&)&+!v-!/2i&!m.*0Go$|&a",
    "n$If$A!^n$Iq%^pSeqJq)og}$})u&&mK*aI'p!y&1!J!k$)q*I)i%D&x/&e*&'!#!@t!a%+%/%}!5.%*8Gt'O)l'k!GI6k!7*#!'%Ix#B&}!VO|#*1y&ZW#I63%HI3!z%ZC+%@)&I6}!*#",
    "-l'%#-')3)#%#g#+&L5&+)G7&7&7C;!;!i&!X6v1B!)&I6yxh!O}!.h'snVzZ&k0m%;O32#%H!T!3!#!'!'!s0r$nZh!r)&|'u%P.c`cq)3!{4l!I:p#6p#Kr-*7&7&7&+z$P!p#!m!!'!",
    "]&Xv$}2Or&Op(d(m1%f4|#*h'[%u#.o$0Cq!$@$2n%52g$&f%.@!4}%s8&I6f%.f%.v%>t'OL!]!;!'!L!]!;!'*t'OfRCy!G@g#7!e&!Dl*7&#!m&!'*#&}!&A}!&<k$>E|&m!!'24y!8",
    ".p#p*k(.('b&v&#-!)21/!+!|#&-.%E|!|#(!|#,n$@!x#).4`|'Gy!&Am!2Ai!|!<f,}*f(p'Sp':8f%1>I6Ix#*5!}!hCl$!e&!)*'`+f(1|#I#>y!N0s#i!1}%u!<p!}!C-x'_Kh$%'",
    ")#C1q&N:%Sl#:I6-f%Z!I.#)#>{$%&#C-}&Z/.1!)I#!#.r!Ki!!l#R6%'%i);!#!/!]!H:y&R2I61!@&'&y!!;!'!3!)#=&)&-&#6%23)&=*5KH!#&#!n%!#F!%&%!1!5#%#S){#x'k!/",
    "2I.%+f$}&s!'!#>Iy9y&=&F|!/)v$}&g!*#KIm%i&V#:I6r!w#t#&_.Q.;z<m&_o/r)n!O@&#&@!'!h#9!)&1#%#)OIp*@&r%=&=#!#%s##Jv%=#1>%>#Nu&c*#h!}*g@s$[I6D!j%B!B#",
    "[}#2g$&{!!Z|*;!'!n%9*%!)!=#%>I67!'!o$5!)!5#:IzQm!1C)#%T!w$=*5SI%z,#[v!h&yi%s/g1du>ei0y.[yh&`%7_Gqz82se#yfLg$k!Ivn*m|!:k$!I6|+!I6g$&5K}&=C/OI!<",
    "!u!2m!nf!q&*I|>r)e#f0l+.%#i(:1Tq)'!#%K)WfsG>nj'y%HzpY/!;!'!zN[#{#+&#W/>u`rf.o02T*D:H*)se:Iht!w&&f#}w!5*9>B&=f$1|6-|2r!Or!r0m#z4{,!u*!'&#&'&/!P",
    "!#!;!v)!/&@!;!x#!/!3!#*;!vV&l#!l#!k$!l#!k$!l#!k$!l#!k$!l#!@&m'is!i(.n'>%W%x!5!_{m&k$67mB=!g!&=!)!52j)r$%i1q&*=;&I.#tSg$%dm&1Ipl!x#1IqBg$)#Izn!",
    ";!/!'!]!y>&E=y%i*=#.Iym$x(!,!0o+r&!^l>/!t#!'!#&#!H!/!#!#6#.#!#!#!+!'!#&#!#!#!#!#!'!#&/!;!/!/!#!H!e!2+!3!e!fe#Uih1If{%qvj*n$|z96yC&jiEW}gP[yk#y",
    "f/ex!j|(r{>2eh:"
};

static lemon_status lemon__tokenizer_classes(lemon_ctx *ctx, lemon_tokenizer *t) {
    lemon__table in = LEMON__TABLE(lemon__class_runs);
    uint32_t run, at = 0;
    t->classes = (uint8_t *)lemon__calloc(ctx, LEMON__CLASS_BYTES);
    if (t->classes == NULL) return LEMON_E_MEMORY;
    while (lemon__table_next(&in, &run))
        for (uint32_t end = at + run / 4 + 1; at < end; at++) t->classes[at / 4] |= (uint8_t)(run % 4 << at % 4 * 2);
    return LEMON_OK;
}

/*  Unicode's White_Space. */
static int lemon__blank_char(long c) {
    return c <= ' ' ? c == ' ' || (c >= 9 && c <= 13)
                    : c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
                          c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/*  The class of the character that begins at `at`, and where it ends. */
static int lemon__class_at(const lemon_tokenizer *t, const uint8_t *p, size_t n, size_t at, size_t *end) {
    *end = at;
    if (at >= n) return LEMON__END;
    size_t size = lemon__char_bytes(p + at, n - at);
    *end = at + size;
    long c = lemon__char_code(p + at, size);
    if (c < 0) return LEMON__OTHER;
    if (lemon__blank_char(c)) return LEMON__SPACE;
    int class_of = c < 4 * LEMON__CLASS_BYTES ? t->classes[c / 4] >> c % 4 * 2 & 3
                                              : c >= 0xe0100 && c <= 0xe01ef ? LEMON__MARK : LEMON__OTHER;
    if (class_of != LEMON__MARK) return class_of;
    return t->rules.split == LEMON__SPLIT_QWEN35 ? LEMON__LETTER : LEMON__OTHER;
}

/* ---- Unicode's form C (Unicode Standard Annex 15), for Qwen: marks in their order, and joined with their letters ---- */

/*  A character that falls into two, or becomes another (second 0).  The first 8 bytes are what it is found by when the two
    are joined. */
typedef struct lemon__form { int32_t first, second, whole; } lemon__form;

enum { LEMON__FORMS = 2060, LEMON__CLASSED = 0x1e94b };

typedef struct lemon__forms {
    lemon__form list[LEMON__FORMS]; /* in order of `whole` */
    lemon__words pairs;
    uint8_t order[LEMON__CLASSED];  /* combining classes: the order of marks that stand on one letter; 0: a letter */
} lemon__forms;

/*  For each: three times how far it is from the one before, less one, plus 0 if it has no second part, 1 if the two are
    joined again, 2 if not; its first part, less that of the one before; its second part likewise.  Differences d are 2d,
    or -2d - 1. */
static const char *const lemon__form_list[] = {
    "q6t$z^#!$#!$#!$#!,#!&&&^#&q!#!$#!$#!.#*1#!$#!$#!.&,+#$'#!$#!$#!$#!,).1#!$#!$#!.#*/)2##!$#!$#!$#!,#!&&&^#&q!#!$#!$#!.#*1#!$#!$#!.&,+#$'#!$#!$#!",
    "$#!,).1#!$#!$#!.#*/&!0#z#)#d!#c&#d!#ch!#d!#_q!#d!#c$#d!#c,#d!#c,#d!#a!#d!)a1#d!#c&#d!#c$#d!#cf!#d!#cZ#d!#_5#d!#c*#d!#c$#d!#cd#d!#am!#d!)a$#d!#",
    "c$#d!#c&#d!#ch!#d!#ce!,$+#d!#an!#d!&ao!#d!#cp!#d!#cX#d!/_7#d!#cp!#d!#cX#d!,a1#d!#c&#d!#c,#d!)]5#d!#cp!#d!#cX#d!#a7#d!#c$#d!#cn!#d!#cX#d!#aY#d!",
    "#cX#d!)a3#d!#c$#d!#c&#d!#c*#d!#c$#d!#c^#d!#_o!#d!#_!#d!#c.#$/#d!#c.#d!#c,#d!o#y!A#d!KV!#d!y!r#@#d!#R!#d!#V!#d!#V!#d!#u'1#d!#c'#d!#c8#d!#c9#d!&",
    "z#*#d!#i9!#$!#t;!#d!)g,2#d!#Z!#d!#Z[#d!#w=k!#$!#r#2#|0!#rL!,i!7#d!)T##d!#n&$#d!#a!#d!#=!#d!#e.>#d!#c&#d!#Z%#d!#c&#d!#Z%#d!#c&#d!#V%#d!#c&#d!#]",
    "%#d!#c&#d!#]%#d!#c&#d!#g!M#d!#a!#d!){!V#d!5q!+#d!#Zd#d!#p(i!#d!#e!!#d!#u,(#d!#iD'#$!#}E!#d!s@iT!$%G$7'f%v%=oS5h(!#e]!!xZ#h[!#&!#&!&.!&.!#*!#f!",
    "!p!l#0#:!#:/#*!#&!#&!#G!p!F0#:!#-/#.!#*!/4!#!0t$x$1#!2&%/,;0/K/#%##8.B7!i#d!g!'-#!2&%/,j!0/Z/#%##8.j!m#4#$!j(}&3#d!Ko!!#d!#c&#d!)X%#d!)p,&#$!#",
    "}.!#d!#a!#d!)a)#d!#c*#d!#V!#d!)e-!#$!#o.!#d!#w!)#d!#c*#d!#c(#d!#Z'#d!)Z!#d!}CqFzd#!$#f!!#e!$#j!#y1r*!&J!TE!gi!kP|[82!)(!v#_!$$!$$!$,!$,!$$!$4!",
    "$*!l,s+y)#!URo!X$$!'<!p){)u)*.!s#g!!$$!$,!*A!o;h6}5)!R#!URo!X$$!|%n(y+y%s#T#$!##Uj.u)s)w-g)s)50!#!$&!J#*Is.m)y'#$!##Un0i+t(&!,#(+#'MjKl<iF@6!0",
    ",!0,!0,!IX%@m#w$'!&$t$:'$!<u$!Xf!y#@6!0,!0,!0,!IX%o,m+g)ou,hj(km(&&!&&!&&!&&!,*!k$v!!&&!)&!#$!&(!pu!oo5ie3#d!#a_#d!#c[#d!#c>#d!#q'j##d!#o,.#d!",
    "#c[#d!#c>#d!#c5#d!#c.#d!#m-}!#$!##$#$!#z/|!#d!#c(#d!#qDw!#$!#eG$#d!#a'#d!#a(#d!#c[#d!#cX#d!#cb#d!#c0#d!#a&#d!#s'h##d!#q,!#d!#ch!#d!#c>#d!#a=#d",
    "!#qv7a#$!#gy7e##d!#c)#d!#a{!#d!#c.#d!#c[#d!#aZ#d!#c[#d!#c>#d!#c)#d!#u'{!#d!#c0#d!#n&1#$!##$#$!#t3!#d!#c.#d!#_!#d!#c[#d!#{x7a#$!#q{7e##d!#aw!#d",
    "!#c[#d!#{1Z#$!#,!#$!#of7!#$!#}{7!#d!#c[#d!#c>#d!#c)#d!#a3#d!#c:#d!#c'#d!#z2{!#$!#$0#$!#r5+#d!#cd#d!#ai!#d!#c$#d!#c0#d!#c##d!#c[#d!#aZ#d!#c$#d!",
    "#a##d!#a+#d!#cf!#d!#c>#d!#F!#:u!#(&#&!&n4'/y8[#d!#cV#d!#i'1#d!#c##d!#c4#d!#c-#d!#ru7##$!#es7##$!####$!##4#$!##-#$!#{r7(#$!#hi8^#d!#cV#d!#c-#d!",
    "#q'%#d!#c##d!#c4#d!#c-#d!#yv7##$!#wj80#d!#cW#d!#V!#d!#cV#d!#q'1#d!#c##d!#c4#d!#c-#d!#tw7##$!#{i7##$!####$!##4#$!##-#$!##d#$!#|9!#d!#cV#d!#r81#",
    "$!####$!##4#$!##-#$!##d#$!#y:i!#d!#cj!#d!#cV#d!#c-#d!5mcC#!$#vu5J#$!##$#$!##t$#$!#lx5h##!$#{x5J#$!##$#$!##t$#$!#fv5h##!$#uv5J#$!##$#$!)ky5G#!$",
    "#zy5J#$!##$#$!)iw5G#!$#xw5J#$!##$#$!##t$#$!#nz5h##!$#}z5J#$!##$#$!##t$#$!#lx5h##!$#{x5J#$!##$#$!##t$#$!#q{5h##!$#g|5J#$!##$#$!##t$#$!#gy5h##!$",
    "#vy5J#$!##$#$!)l|5G#!$#{|5J#$!##$#$!){y5G#!$#qz5J#$!##$#$!##t$#$!&g}5f#&x}5J&!$&!t$#zz5h##!$#p{5J#$!##$#$!##t$#$!#fe6h##!$#ue6J#$!##$#$!##t$#$",
    "!#fe6u$$!$#*#$!$#&#$!$#&#$!$#.#$!$#.#$!$#*#$!$)xs5z$#$!#$!#$!#$!#$!#$!#$!#$!#$!#$!#$!#$!#$!#$!#$!#E!#$!#$!#$!#$!#$!#$!#$!#$!#$!#$!#$!#$!#$!#$!",
    "#$!#m#!#$!#$!#$!#$!#$!#$!#$!#$!#$!#$!#$!#$!#$!#$!#$!#re6o$#!%#ue6t$#te6!#+!&,'#kk6(#xm6o$#!%#!)$!$#!z$%t!)i`'#hr8(#pe6!#3!&4'#fl6(#wn6{$$!$#&#",
    "$!$#!z$#fn6{$#!$#!t$#lk6i$#!%#E)$!$)Dt$#E!#l#i$#!%#!)$!$&|r6##!$#!t$#no6i$#!%#.)$!$#5G#!$#*g##.!#o!i$#!%#!)$!$#)I#k^J$!$!h%)rx8z$#u}5!#,!&+'#p",
    "n6(#xq6{$$!$#6#$!$#!z$!|](r|8!$pCer6+mf!$5g$u,ss:g##&!Z&!f#j$!#*!#%!v%m#!/,!)(!j!S!&&!s!Q!)0!)&!&(!g!si;!&tk;!BJ!#fj;!#&!#xk;!#$!)<!#$!)(!#$!5",
    "(!#$!)0!#$!)(!#$!r#Y!#.!#$!#&!j%h#!#$!#K!#$!5d!#$!#$!#$!q&lj*!$xw(lr#!n}%tw#xpE&&!&&!&&!&&!&&!&&!&&!&&!&&!&&!&&!)(!&&!&&!50!#!$&(##!$&(##!$&(#",
    "#!$&(##!$g!t##>n&!K>!&&!&&!&&!&&!&&!&&!&&!&&!&&!&&!&&!)(!&&!&&!50!#!$&(##!$&(##!$&(##!$&(##!$g!t##)k%!#$!#$!#$!,8!rfh)ggl!!zz=!k|@!qI!fz7!pe:!",
    "h}#!fm_!!!}zY!rsN!gvQ!ln!!io&!jf0!}w&!iy$!w=!z8!zq%!{z>!z`!fn!!k_!vv,!kg*!fl&!kg_!xm#!{s2!tg%!pw/!w{2!snU!pr.!sj1!|j!!e|>!qw8!}o$!zhB!og&!|p$!",
    "qz#!hw7!mxU!lM!e7!}|-!qk$!uj%!rk#!yw&!vj$!l&!rq%!g{&!jx!!qT!||=!z2!}u!!sm$!mx+!rv(!eo/!ujI!km$!vm7!wu!!mz*!tr$!nu/!pu'!tiS!{i!!yq*!xn!!h8!vz*!",
    "r4!re3!jsW!ywE!prF!B!emA!yk!!nn$!tp.!xk(!wtA!zi%!|l:!|fR!sq*!xv!!{j/!rG!yo;!om>!zfB!mm,!ew-!gq8!pl%!fv2!uiB!wf#!zn8!oi*!fr$!}t8!{w<!ng<!wg'!xo",
    "9!x{8!mz-!ke@!mX!g'!v{1!ie0!vy#!ii&!re%!sxS!f:!wr#!qx#!u{$!xu'!ky&!mu6!pi#!|v!!y#!|v_!py/!qh#!ew<!pnH!ga!n(!vU!i|'!oL!}c!et#!vv!!jS!xm+!uu'!|p",
    "(!}a!uvU!t*!pK!wk6!p|2!pG!ekD!o7!si!!me&!tz,!lq&!kk=!|{%!nm#!xE!jQ!rm/!f.!tp(!i-!t}-!zi#!}%!f0!jw[!nyB!o}2!ho#!eoL!lm.!gP!ln(!{%!||&!w{!!gv%!t",
    "|!!en+!|v(!}t+!heO!kmG!wvW!np0!e)!fu#!i;!rw#!l:!l`!rg#!tu5!koZ!re-!lhK!h{Y!j{)!yf-!nr:!ulG!vC!i{$!uu(!h};!plX!lG!hh&!uj'!t8!g;!jx!!oh%!qF!yh'!",
    "t|&!G!ft&!sp#!svW!jy5!og5!ut7!nY!or-!t|,!j}#!hO!onM!pn$!mx/!fh%!j&!e=!qm'!pL!ij5!m|Q!ykK!soH!p#!{t)!|v!!ht4!vs:!yv-!wr$!oqA!n}$!jx*!uw)!klC!no",
    "*!s}!(vU%jz*(}h0!ms:!uk!!qR!h!!0!x!!kv7!eg5!x^%gq$%wl#(|s#!i/+hy%!<!|!!re#!ky)!ig$!iqZ!p8!s'!y=!Y!h(!pO!y'!k'!iF!w'!{m!!6!nv!!n0!p!!o'!lf!!i+!",
    "o-!oH!vm#!p,!r4!pO!r.!uH!j|!!k-!8!#!2!.!0!k#!$!u-!t$!|8!rM!M!{#!y7!i+!pG!t*!!!uF!hi#!h*!p<!{#!jA!u#!lW!y)!}w$!h6!j$!t}M!prg/!r}}-(jzJ!lj!!r%!o",
    "G!uD!h$!s9!q#!oV!h%!z$!k%!}R!r&!e+!C!e5!k/!pl!!0!|*!z$!m7!z(!}$!h*!f#!g+!v$!o@!p&!w#!j4!l6!p,!*!h$!hv!!t$!v>!jA!B!n&!s3!l:!zn$!{w#!i)!k)!s9!m+",
    "!u#!q1!&!g-!E!U!l&!5!g@!jG!g5!n.!m1!u+!y9!m/!ee!!}+!{i!!{D!|$!C!i7!}#!}!!w#!'!D!q%!{%!}=!jM!r8!e7!g1!ys!!u'!t(!f*!l!!:!k#!sZ!ne#!q}h,!-!lx(!xm",
    "y/!i}!!f!!gru0!e|'!}h;!yhe/!o%r'ljm$zoC'U(C36$!$$vlm'#$!$$unm'7$!$$!*$$!$$!$$!$$!$$!$$!'&!$$!$$!$$!$$!'&!'&!$$!'&!$$!'&!$$!$$!$$!$$!$L'$).$6!$",
    "4!sp9sxe(ief(&&!N6!f/t*h(#$!hbfKjK#!UnLe=y;#!5&!<s=y3x2#$!szq(y}o%wfp%$$!$04$!$$!$$!$$!$y)t&;$$!$$4$$!$#$$$!uzw-lw}+!+!4!wrr-!wtq-!u%!<!g%!e)!",
    "b!u%!R!wn6!gwr.!tjt-!0!C!I!ois-!ewq.!xx6!p!!oks-!sjs-!<!tZ!l[!4!kli2!ggi2!>!ii7!vm7!8!|!!,!hn7!st7!&!Y!O!8!$!E!o#!2!4!U!6!&!!!!!quu-!w|v,!gx6!",
    "M!vmv-!vlv-!.!M!s+!r'!C!d!f$!h&!W!x$!C!f!!!!M!G!2!A!t:!h5!k5!j/!j!!e|!!x|$!o6!p!!U!x)!x,!#!k)!ejz-!n}y-!,!A!K!2!r$!tf{-!v$!yyz-!i#!:!v%!x*!xm<",
    "!>!uy<!w#!!!rg|-!zu{-!M!A!:!|s|-!|r|-!0!ee!!wb!rl=!rq=!>!}%!p#!{ne.!ly}-!qy}-!ev}-!'!E!q'!$!pi>!uk>!z!!M!|!!ip>!x}l/!u{l/!ys>!(!(!K!yfm2!t{l2!",
    "pwg.!!!nf},!rz;!!!{v>!gxz/!v{F!vwh0!4!qz>!le@!q#!6!h!!l*!xp@!_!wt@!poi.!mki.!w)!*!&!%!g#!K!l!!=!8!i#!K!*!W!8!v$!h&!j!!m)!ztj.!mvj.!s$!f(!Y!i'!",
    "m{j.!mvj.!y&!Z!{kB!l{B!M!b!o!!owB!woC!^!{}l.!mtl.!s5!n-!zuC!u{C!}|C!k!!{z1!(!fz0!n'!ku4!hhR!ii<!*!.!l$!7!iqn.!fsy/!v{D!w(!y/!q#!lfn.!ren.!k(!e",
    "3!qrE!jvE!i'!g%!t.!ygn.!v|m.!ftF!vyF!ono.!ljo.!oyF!z{F!e#!Y!$!}op.!vp7!py7!{lp.!|wq.!znq.!>!r'!o-!t!!}#!v#!t!!A!<!{fq.!mmq.!q3!p$!ttH!g|H!)!|o",
    "q.!ngr.!k=!zmq.!k#!tjq.!t(!X!'!evI!yyI!q#!-!w#!|tr,!whr,!emr.!efr.!lgs.!fur.!<!Y!lpt.!olt.!M!ziu.!k1!miu.!E!itK!lvK!luK!!!liL!M!M!K!|$!ykL!fsL",
    "!|iw.!ygw.!jow.!ikw.!tfm-!xrl-!fky.!Q!t*!sft0!:!jlM!zsy.!#!r!!W!suy.!$!!!z!!hoM!ntM!lsM!y%!gwv0!|f{.!n$!r$!ogN!thx0!q{{.!yk|.!z!!uj|.!x&!lxN!h",
    "fO!6!,!|y}.!m7!!!gle/!h|N!vw{0!toe/!(!vqO!xl|0!jke/!j}O!efP!+!^!qsg/!rkg/!fhP!gpP!h$!x$!fvP!ggg1!b!sfg1!lrg1!ykh/!|sh/!wqh/!q'!8!xpi/!k%!loi/!",
    "}yi/!uxi/!zsr-!ekr/!{hR!{%!ekR!xoR!sz>!lmq0!>!feK!4!tqq-!(!}o*!p{^!jjS!-!G!urG!ltG!&!6!v!!rml/!sml/!{#!e%!m%!o*!w+!x!!n(!i4!|(!&!C!zml/!h8!n+!",
    "pjn1!qrT!&!j!!|rq/!ulq/!hrm/!n}o1!*!wnp1!r6!elq1!ppU!:!8!&!r$!e!!h*!{!!q+!z%!x$!Y!sgV!{nV!d!vnV!mvV!(!z}p/!rtp/!0!s{V!z}V!wlf!!xnl2!h.!sjw1!4!",
    "|zW!s%!}+!u/!h{r/!jtr/!O!t&!x&!vet/!|{i#!nhv+!@!s#!{vv+!t}u+!o'!vex/!Y!}}v/!z&!d!vtw/!zsw/!j6!h,!$!w&!{=![!igy/!j{w/!fr_!tu_!j}x/!{fl2!sk`!gfO",
    "!ymO!e|z/!p0!}oo2!2!zv`!ts|/!jyp2!pkq2!m{|/!!!`!ew}/!ih}/!m|`!fia!q)!Y!j$!uma!|wu2!ryf0!s7!r.!r}b!b!sjc!zqi0!goy2!rsy2!t4!{)!vzi0!m}c!mid!,!0!",
    "6!0!n!!ykl0"
};

/*  Runs of marks of one class: how far from the one before, length less one, class. */
static const char *const lemon__mark_list[] = {
    "h>6t(!!v(!%j(!!v(!!f(!&j(!#q'!%j(!#q'!,j(!&#!%j(!)t(!!e)!!t(!$j(!$t(!#j(#$t(!%j(!!t(!!v(!#j(!!t(!!w(!#x(!!w(!#x(!!w(!.t(o*&t(e*!j(!%t(!!j(!$t(",
    "!!l(!!j(!'t(!'j(!#t(!!j(!#t(!!l(!!r(!!t(!!,!!-!!.!!/!!0!!1!!2!!3!!4!#5!!6!!7!!8#!9#!:!!;#!t(!!j(#!4l!)t(!!A!!B!!CS!=!!>!!@!!A!!B!!C!!D!!E!#t(!",
    "#j(!&t(!!j(!#t(!!j(2!Fp#(t($%t(!!j(!!t($#t(#!j(!#t(!!j(F!GA!t(!!j(!#t(!!j(!#t(!$j(!!t(!#j(!!t(!!j(!$t(!!j(!!t(!!j(!!t(!!j(!!t(!!j(!#t(y%(t(!!j",
    "(!!t(E%t(#*t(#$t(#&t(N$j(j$/t(#!j(!#t(!!j(!#t(!!j(!$t(!$j(!!=!!>!!@!$t(!!j(!#t(!#j(!&t(`!)2!+%!t(!!j(!#t(r#!)2!+y#!)2!+y#!)2!+y#!)2!+q$!+q$!+)",
    "!x!!!f#p#!)2!+q$!+n$!+x##r#!!+/%v#w##h$0%l$p!#j(=!j(#!j(#!f(Z!s$!!t$#!v$'%t$$!t$##t(!!+##t(b!j({#!)##+v!!j(i<$t(mF!+B!+v%!+,!t(r'!r(h%!l(!!t(!",
    "!j(i(!t(!!j(k!!+6)t($!j(S&t(!'j(!#t(!!j(h$!)1!+I!t(!!j(!(t(Y#+^!)-#+g!!)q%$t(#!#!&j(!#t(!%j(!!t(#(#&!j((!t(%#t(m'#t(!!j(!(t(!!j(!#t(!!x(!!}'!!",
    "j(!!q'!Gt('!t(!!w(!!j(!!t(!!j(j<#t(!##!%t(!$#!#t(&!t(%##!!t(!!j(!!t(!##!%j(!!t(jj$$t(f%!+k#Bt(s5!h(!!r(!!v(!!l(!#n(t##*}rP!t(&+t(C#t(t!#t(p*!+",
    "}&!+=3t(]$j(H!+j#!).!+}(!t(##t(!!j($#t('#t(#!t(W!+k)!+lw@!<i>(t(!(j(!#t(mG!j(p(!j(n%&t(vd!j(#!t(K!t(!!#!!j(&!+e&!t(!!j(oW!+[!+]!+!!)i!$t(S#+b!",
    ")p!!++!)u#!+!!)r&!)!!+u!!)2!+:(t(%&t(t'!+%!)m$!+!!)p)!+!!)p$!+h$!+!!)e$!+nT!+ir@&#_(t(}tA!#hy'#f(!$#%!p(!&f(*)j($&t(!#j(A%t(m%$t(e|$(t(#2t($(t",
    "(##t(#&t(|y!(j(x#'t(!!)"
};

static int32_t lemon__difference(uint32_t n) { return n % 2 ? -(int32_t)(n / 2) - 1 : (int32_t)(n / 2); }

static void lemon__forms_free(lemon_ctx *ctx) {
    if (ctx->forms) lemon__words_free(ctx, &ctx->forms->pairs);
    lemon__free(ctx, ctx->forms, sizeof *ctx->forms);
    ctx->forms = NULL;
}

/*  Made for the first text that is not in form C by its looks, and kept with the context until a tokenizer is freed; NULL:
    no memory. */
static const lemon__forms *lemon__forms_of(lemon_ctx *ctx) {
    lemon__table in = LEMON__TABLE(lemon__form_list), marks = LEMON__TABLE(lemon__mark_list);
    int32_t whole = -1, first = 0, second = 0;
    uint32_t a, b, c = 0, at = 0;
    if (ctx->forms) return ctx->forms;
    lemon__forms *forms = ctx->forms = (lemon__forms *)lemon__calloc(ctx, sizeof *forms);
    if (forms == NULL) return NULL;
    forms->pairs.blob = (const uint8_t *)forms->list;
    for (int32_t i = 0; i < LEMON__FORMS && lemon__table_next(&in, &a); i++) {
        if (!lemon__table_next(&in, &b) || (a % 3 && !lemon__table_next(&in, &c))) break;
        forms->list[i].whole = whole += (int32_t)(a / 3) + 1;
        forms->list[i].first = first += lemon__difference(b);
        if (a % 3) forms->list[i].second = second += lemon__difference(c);
        if (lemon__words_push(ctx, &forms->pairs, (size_t)i * sizeof *forms->list, 8, a % 3 == 1)) continue;
        lemon__forms_free(ctx);
        return NULL;
    }
    while (lemon__table_next(&marks, &a) && lemon__table_next(&marks, &b) && lemon__table_next(&marks, &c)) {
        memset(forms->order + at + a, (int)c, b + 1);
        at += a + b + 1;
    }
    return forms;
}

/*  A character on its way; a byte that is none has the code -1 - byte. */
typedef struct lemon__point { int32_t code, order; int64_t place; } lemon__point;

/*  Appends a character in its smallest parts.  Korean syllables are computed: 19 beginnings, 21 middles, 27 ends or none. */
static void lemon__decompose(const lemon__forms *forms, int32_t c, lemon__bytes *points) {
    int32_t low = 0, high = c < 0xc0 ? 0 : LEMON__FORMS, syllable = c - 0xac00;     /* U+00C0 is the list's first */
    while (low < high) {
        int32_t middle = (low + high) / 2;
        if (forms->list[middle].whole < c) low = middle + 1;
        else high = middle;
    }
    if (syllable >= 0 && syllable < 11172) {
        lemon__decompose(forms, 0x1100 + syllable / 588, points);
        lemon__decompose(forms, 0x1161 + syllable % 588 / 28, points);
        if (syllable % 28) lemon__decompose(forms, 0x11a7 + syllable % 28, points);
    } else if (low < LEMON__FORMS && forms->list[low].whole == c) {
        lemon__decompose(forms, forms->list[low].first, points);
        if (forms->list[low].second) lemon__decompose(forms, forms->list[low].second, points);
    } else {
        const lemon__point p = {c, c >= 0 && c < LEMON__CLASSED ? forms->order[c] : 0, points->count};
        lemon__put(points, &p, sizeof p);
    }
}

/*  What two characters are joined to, or -1. */
static int32_t lemon__compose(const lemon__forms *forms, int32_t a, int32_t b) {
    const int32_t pair[] = {a, b};
    if (a >= 0x1100 && a < 0x1113 && b >= 0x1161 && b < 0x1176) return 0xac00 + (a - 0x1100) * 588 + (b - 0x1161) * 28;
    if (a >= 0xac00 && a < 0xd7a4 && (a - 0xac00) % 28 == 0 && b > 0x11a7 && b < 0x11c3) return a + (b - 0x11a7);
    int32_t found = lemon__words_find(&forms->pairs, pair, sizeof pair);
    return found < 0 ? -1 : forms->list[found].whole;
}

static int lemon__point_order(const void *a, const void *b) {
    const lemon__point *x = (const lemon__point *)a, *y = (const lemon__point *)b;
    return x->order != y->order ? x->order - y->order : x->place < y->place ? -1 : 1;
}

/*  Marks in order, then each joined with the letter before it unless one of its class or a letter stands between; what is
    left goes out, and there are no points any longer. */
static void lemon__recompose(const lemon__forms *forms, lemon__bytes *points, lemon__bytes *out) {
    lemon__point *p = (lemon__point *)(void *)points->data;
    size_t end, k = 0, letter = SIZE_MAX, n = (size_t)points->count / sizeof *p;
    int32_t last = -1;
    for (size_t i = 0; i < n; i = end + 1) {
        for (end = i; end < n && p[end].order > 0;) end++;
        if (end > i + 1) qsort(p + i, end - i, sizeof *p, lemon__point_order);
    }
    for (size_t i = 0; i < n; i++) {
        int32_t whole = letter != SIZE_MAX && last < p[i].order ? lemon__compose(forms, p[letter].code, p[i].code) : -1;
        if (whole >= 0) { p[letter].code = whole; continue; }
        if (p[i].order == 0) letter = k;
        last = p[i].order > 0 ? p[i].order : -1;
        p[k++] = p[i];
    }
    uint8_t *to = lemon__put_room(out, 4 * k);
    for (size_t i = 0; to && i < k; i++) {
        if (p[i].code < 0) *to++ = (uint8_t)(-1 - p[i].code);
        else to += lemon__utf8_put(to, p[i].code);
    }
    if (to) out->count = to - out->data;
    points->count = 0;
}

/*  Appends a text in form C.  What is below U+0300 is joined with nothing before it, so all before it can go out. */
static lemon_status lemon__form_c(const uint8_t *text, size_t n, lemon__bytes *out) {
    const lemon__forms *forms = lemon__forms_of(out->ctx);
    lemon__bytes points = lemon__bytes_in(out->ctx);
    if (forms == NULL) return LEMON_E_MEMORY;
    for (size_t at = 0, size; at < n; at += size) {
        size = lemon__char_bytes(text + at, n - at);
        long c = lemon__char_code(text + at, size);
        if (c < 0x300) lemon__recompose(forms, &points, out);
        lemon__decompose(forms, c < 0 ? -1 - text[at] : (int32_t)c, &points);
    }
    lemon__recompose(forms, &points, out);
    lemon__bytes_free(&points);
    return points.status ? points.status : out->status;
}

/* ---- the patterns: where the word that begins at `at` ends ---- */

/*  As files spell them.  SmolLM and StarCoder have GPT-2's in the pieces between single digits. */
static const struct lemon__pattern { const char *regex; int split; } lemon__patterns[] = {
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
     "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", LEMON__SPLIT_LLAMA3},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
     "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", LEMON__SPLIT_QWEN2},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|"
     "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", LEMON__SPLIT_QWEN35},
    {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", LEMON__SPLIT_GPT2},
};

/*  The end of a run of characters of one class, `most` at most. */
static size_t lemon__run_end(const lemon_tokenizer *t, const uint8_t *p, size_t n, size_t at, int class_of, int most) {
    size_t end;
    for (int i = 0; i != most && lemon__class_at(t, p, n, at, &end) == class_of; i++) at = end;
    return at;
}

/*  The end of an English contraction ('s, 't, 're, 've, 'm, 'll, 'd), or 0.  Where case does not matter, the long s
    (U+017F) is an s. */
static size_t lemon__contraction_end(const uint8_t *p, size_t n, size_t at, int any_case) {
    static const char *const ends[] = {"s", "t", "re", "ve", "m", "ll", "d"};
    size_t k;
    if (p[at++] != '\'') return 0;
    if (any_case && n - at >= 2 && p[at] == 0xc5 && p[at + 1] == 0xbf) return at + 2;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        for (k = 0; ends[i][k] && at + k < n; k++)
            if (p[at + k] != ends[i][k] && !(any_case && p[at + k] == ends[i][k] - 32)) break;
        if (ends[i][k] == 0) return at + k;
    }
    return 0;
}

static int lemon__is_newline(uint8_t c) { return c == '\r' || c == '\n'; }

/*  \s+(?!\S)|\s+: all of the white space at the end of the text, else all but the last, if there is more than one. */
static size_t lemon__space_end(const lemon_tokenizer *t, const uint8_t *p, size_t n, size_t at) {
    size_t end = lemon__run_end(t, p, n, at, LEMON__SPACE, -1), last = end, next;
    int follows = lemon__class_at(t, p, n, end, &next);
    if (follows == LEMON__END || (follows == LEMON__NUMBER && t->rules.split == LEMON__SPLIT_DIGITS)) return end;
    while ((p[--last] & 0xc0) == 0x80) {}
    return last > at ? last : end;
}

static size_t lemon__word_gpt2(const lemon_tokenizer *t, const uint8_t *p, size_t n, size_t at) {
    size_t first = at + (p[at] == ' '), end = lemon__contraction_end(p, n, at, 0);
    int class_of = lemon__class_at(t, p, n, first, &first);
    if (end) return end;
    if (class_of == LEMON__NUMBER && t->rules.split == LEMON__SPLIT_DIGITS) return p[at] == ' ' ? at + 1 : first;
    if (class_of < LEMON__SPACE) return lemon__run_end(t, p, n, first, class_of, -1);
    return lemon__space_end(t, p, n, at);
}

static size_t lemon__word_llama3(const lemon_tokenizer *t, const uint8_t *p, size_t n, size_t at) {
    size_t end = lemon__contraction_end(p, n, at, 1), next, behind;
    int class_of = lemon__class_at(t, p, n, at, &next);
    if (end) return end;
    if (class_of == LEMON__LETTER) return lemon__run_end(t, p, n, at, LEMON__LETTER, -1);
    if (class_of == LEMON__NUMBER)
        return lemon__run_end(t, p, n, at, LEMON__NUMBER, t->rules.split == LEMON__SPLIT_LLAMA3 ? 3 : 1);
    if (!lemon__is_newline(p[at]) && lemon__class_at(t, p, n, next, &behind) == LEMON__LETTER)
        return lemon__run_end(t, p, n, next, LEMON__LETTER, -1);
    end = lemon__run_end(t, p, n, at + (p[at] == ' '), LEMON__OTHER, -1);
    if (end > at + (p[at] == ' ')) {
        while (end < n && lemon__is_newline(p[end])) end++;
        return end;
    }
    for (end = lemon__run_end(t, p, n, at, LEMON__SPACE, -1); end > at; end--)
        if (lemon__is_newline(p[end - 1])) return end;
    return lemon__space_end(t, p, n, at);
}

/*  Without a pattern: up to where two bytes meet that meet in no piece.  That may cut a character in two, but only one that is
    no piece, whose bytes would have stood alone anyway. */
static size_t lemon__part_end(const lemon_tokenizer *t, const uint8_t *p, size_t n, size_t at) {
    for (at++; at < n && (t->meets[32 * p[at - 1] + p[at] / 8] >> p[at] % 8 & 1);) at++;
    return at;
}

static size_t lemon__word(const lemon_tokenizer *t, const uint8_t *p, size_t n, size_t at) {
    return t->rules.split == LEMON__SPLIT_NONE ? lemon__part_end(t, p, n, at)
           : t->rules.split <= LEMON__SPLIT_DIGITS ? lemon__word_gpt2(t, p, n, at) : lemon__word_llama3(t, p, n, at);
}

LEMON__BRIEF_BEGIN
/* ---- what the encoder needs besides the pieces ---- */

static int lemon__special_order(const void *a, const void *b) {
    const lemon__special *x = (const lemon__special *)a, *y = (const lemon__special *)b;
    int order = memcmp(x->bytes, y->bytes, x->n < y->n ? x->n : y->n);
    return order ? order : x->n != y->n ? (x->n < y->n ? -1 : 1) : x->id < y->id ? -1 : 1;
}

static lemon_status lemon__tokenizer_specials(lemon_ctx *ctx, lemon_tokenizer *t) {
    for (int32_t id = 0; id < lemon_tokenizer_size(t); id++) {
        int kind = t->kinds[id] & LEMON__KIND;
        lemon__special s = {NULL, 0, id};
        s.bytes = lemon__piece(t, id, &s.n);
        if (kind < LEMON__UNKNOWN || kind > LEMON__ADDED || s.n == 0) continue;
        if (!lemon__room(ctx, &t->specials, &t->specials_capacity, t->n_specials + 1, sizeof s)) return LEMON_E_MEMORY;
        t->specials[t->n_specials++] = s;
    }
    if (t->n_specials > 0) qsort(t->specials, (size_t)t->n_specials, sizeof *t->specials, lemon__special_order);
    return LEMON_OK;
}

/*  To be called once, when all pieces, merges and rules are there: checks them, and makes what is made of them. */
LEMON__APART lemon_status lemon__tokenizer_finish(lemon_ctx *ctx, const char *name, lemon_tokenizer *t) {
    int32_t id, size = lemon_tokenizer_size(t), byte;
    size_t n;
    for (byte = 0; byte < 256; byte++)
        t->byte_ids[byte] = t->rules.split ? lemon__words_find(&t->pieces, &t->bytes[byte], 1) : -1;
    for (id = 0; id < size; id++) {
        const uint8_t *piece = lemon__piece(t, id, &n);
        if (!(t->scores[id] <= INFINITY))
            return lemon__fail(ctx, LEMON_E_FORMAT, "%s: score of piece %ld is NaN, expected a number", name, (long)id);
        if ((t->kinds[id] & LEMON__KIND) != LEMON__BYTE) continue;
        byte = lemon__byte_of(piece, n);
        if (byte < 0)
            return lemon__fail(ctx, LEMON_E_FORMAT, "%s: piece %ld is a byte by its type, expected the form <0x41>", name,
                               (long)id);
        if (t->byte_ids[byte] < 0) t->byte_ids[byte] = id;
    }
    for (byte = 0; byte < 256 && !t->rules.split; byte++) {
        id = t->rules.llama2c ? byte + LEMON__FIRST_BYTE : t->byte_ids[byte];
        if (id >= 0 && t->byte_ids[byte] == id) continue;
        return lemon__fail(ctx, LEMON_E_UNSUPPORTED, "%s: piece %ld is not a byte, expected <0x%02X>; vocabularies "
                           "without byte pieces are not supported", name, (long)id, (unsigned)byte);
    }
    lemon_status status = LEMON__BPE ? lemon__tokenizer_specials(ctx, t) : LEMON_OK;
    if (!status && LEMON__BPE && t->rules.split) status = lemon__tokenizer_classes(ctx, t);
    return status;
}

/*  The 259 pieces that llama2.c's vocabularies begin with. */
static lemon_status lemon__tokenizer_add_bytes(lemon_ctx *ctx, lemon_tokenizer *t) {
    static const char *const specials[LEMON__FIRST_BYTE] = {"<unk>", "\n<s>\n", "\n</s>\n"};
    lemon_status status = LEMON_OK;
    char text[8];
    for (int i = 0; i < LEMON__FIRST_PIECE && !status; i++) {
        if (i < LEMON__FIRST_BYTE) lemon__format(text, sizeof text, "%s", specials[i]);
        else lemon__format(text, sizeof text, "<0x%02X>", (unsigned)(i - LEMON__FIRST_BYTE) & 255);
        status = lemon__tokenizer_add(ctx, t, lemon__llama2c_kind(i, (const uint8_t *)text, 6), 0.0f, text, strlen(text));
    }
    return status;
}

LEMON_API lemon_status lemon_tokenizer_bytes(lemon_ctx *ctx, lemon_tokenizer **tokenizer) {
    if (lemon__lacks(ctx, __func__, tokenizer != NULL)) return LEMON_E_ARG;
    lemon_status status = lemon__tokenizer_new(ctx, tokenizer);
    if (!status) status = lemon__tokenizer_add_bytes(ctx, *tokenizer);
    if (!status) status = lemon__tokenizer_finish(ctx, "bytes", *tokenizer);
    return lemon__tokenizer_done(ctx, status, tokenizer);
}

/*  A copy of the pieces for which keep is set (NULL: all), and of the merges that only need those. */
static lemon_status lemon__tokenizer_copy(lemon_ctx *ctx, const lemon_tokenizer *source, const uint8_t *keep,
                                          int32_t *new_ids, lemon_tokenizer **tokenizer) {
    lemon_status status = lemon__tokenizer_new(ctx, tokenizer);
    lemon_tokenizer *t = *tokenizer;
    int32_t size = lemon_tokenizer_size(source);
    size_t n;
    for (int32_t id = 0; id < size && !status; id++) {
        const uint8_t *piece = lemon__piece(source, id, &n);
        if (keep && !keep[id]) { new_ids[id] = -1; continue; }
        if (keep) new_ids[id] = lemon_tokenizer_size(t);
        status = lemon__tokenizer_add(ctx, t, source->kinds[id], source->scores[id], piece, n);
    }
    for (int64_t i = 0; i < source->pairs.count && !status; i++) {
        lemon__merge m = source->merges[i];
        if (keep && !(keep[m.left] && keep[m.right] && keep[m.id])) continue;
        if (keep) { m.left = new_ids[m.left]; m.right = new_ids[m.right]; m.id = new_ids[m.id]; }
        status = lemon__merge_push(ctx, t, &m);
    }
    if (status) return lemon__tokenizer_done(ctx, status, tokenizer);
    t->rules = source->rules;
    if (keep && t->rules.bos >= 0) t->rules.bos = new_ids[t->rules.bos];
    if (keep && t->rules.eos >= 0) t->rules.eos = new_ids[t->rules.eos];
    if (keep && t->rules.unknown >= 0) t->rules.unknown = new_ids[t->rules.unknown];
    return lemon__tokenizer_done(ctx, lemon__tokenizer_finish(ctx, "copy", t), tokenizer);
}

LEMON_API lemon_status lemon_tokenizer_clone(lemon_ctx *ctx, const lemon_tokenizer *source, lemon_tokenizer **tokenizer) {
    if (lemon__lacks(ctx, __func__, source && tokenizer)) return LEMON_E_ARG;
    return lemon__tokenizer_copy(ctx, source, NULL, NULL, tokenizer);
}

/* ---- files: llama2.c's tokenizer.bin ---- */

/*  vocab_size 0: as many pieces as there are. */
static lemon_status lemon__llama2c_load(lemon_ctx *ctx, const lemon_reader *reader, int32_t vocab_size, lemon_tokenizer *t) {
    lemon__cursor c = lemon__cursor_over(reader);
    uint32_t longest = lemon__take32(&c);
    lemon_status status = LEMON_OK;
    int32_t id;
    for (id = 0; (vocab_size ? id < vocab_size : c.at < c.size) && !status; id++) {
        float score = lemon__float(lemon__take32(&c));
        uint32_t n = lemon__take32(&c);
        const uint8_t *piece = lemon__take(&c, n);
        if (piece == NULL)
            return lemon__fail(ctx, LEMON_E_FORMAT, "%s: size is %llu bytes, which end within piece %ld, expected %ld "
                               "pieces (vocab_size); the file is cut short or belongs to another model", reader->name,
                               (unsigned long long)reader->size, (long)id, (long)(vocab_size ? vocab_size : id + 1));
        if (n > longest)
            return lemon__fail(ctx, LEMON_E_FORMAT, "%s: piece %ld has %lu bytes, expected at most %lu, the length of "
                               "the longest; " LEMON__DAMAGED, reader->name, (long)id, (unsigned long)n,
                               (unsigned long)longest);
        status = lemon__tokenizer_add(ctx, t, lemon__llama2c_kind(id, piece, n), score, piece, n);
    }
    if (!status && c.at != c.size)
        status = lemon__fail(ctx, LEMON_E_FORMAT, "%s: %llu bytes follow the last piece, expected %ld pieces "
                             "(vocab_size) and nothing more; it belongs to another model", reader->name,
                             (unsigned long long)(c.size - c.at), (long)vocab_size);
    /* with nothing but the bytes there is no blank to put before a text */
    t->rules.prefix = id > LEMON__FIRST_PIECE ? LEMON__PREFIX_ALWAYS : LEMON__PREFIX_NEVER;
    return status ? status : lemon__tokenizer_finish(ctx, reader->name, t);
}

/*  llama2.c looks for all in their places. */
LEMON_API lemon_status lemon_tokenizer_save(lemon_ctx *ctx, const char *path, const lemon_tokenizer *tokenizer) {
    const lemon_tokenizer *t = tokenizer;
    lemon__bytes out = lemon__bytes_in(ctx);
    int32_t byte = 0;
    if (t == NULL) return lemon__fail(ctx, LEMON_E_ARG, "lemon_tokenizer_save: there is no tokenizer to save");
    while (byte < 256 && t->byte_ids[byte] == byte + LEMON__FIRST_BYTE) byte++;
    if (byte < 256 || t->rules.split || t->rules.bos != LEMON__BOS || t->rules.eos != LEMON__EOS)
        return lemon__fail(ctx, LEMON_E_UNSUPPORTED, "%s: llama2.c's format holds SentencePiece vocabularies only, with "
                           "BOS 1, EOS 2 and the bytes from 3 on, and this is another; keep it in a .lemon file", path);
    lemon__put_number(&out, t->longest, 4);
    for (int32_t id = 0; id < lemon_tokenizer_size(t); id++) {
        size_t n;
        const uint8_t *piece = lemon__piece(t, id, &n);
        lemon__put_number(&out, lemon__bits(t->scores[id]), 4);
        lemon__put_number(&out, n, 4);
        lemon__put(&out, piece, n);
    }
    lemon_status status = out.status ? out.status : lemon__write_file(ctx, path, out.data, (size_t)out.count);
    lemon__bytes_free(&out);
    return status;
}

/* ---- files: the part "tokenizer" of a .lemon file ---- */

enum { LEMON__TOKENIZER_VERSION = 1 };

/*  The rules by name, with the values that they can have; most -1: an id, or -1. */
static const struct lemon__rule { const char *name; size_t offset; int32_t most; } lemon__rule_names[] = {
    {"tokenizer.split", offsetof(lemon__rules, split), LEMON__SPLIT_COUNT - 1},
    {"tokenizer.dummy_prefix", offsetof(lemon__rules, prefix), LEMON__PREFIX_FIRST},
    {"tokenizer.by_merges", offsetof(lemon__rules, by_merges), 1},
    {"tokenizer.whole_words", offsetof(lemon__rules, whole_words), 1},
    {"tokenizer.blank_mark", offsetof(lemon__rules, blank_mark), 1},
    {"tokenizer.nfc", offsetof(lemon__rules, nfc), 1},
    {"tokenizer.add_bos", offsetof(lemon__rules, add_bos), 1},
    {"tokenizer.bos", offsetof(lemon__rules, bos), -1},
    {"tokenizer.eos", offsetof(lemon__rules, eos), -1},
    {"tokenizer.unknown", offsetof(lemon__rules, unknown), -1},
};
enum { LEMON__RULES = sizeof lemon__rule_names / sizeof *lemon__rule_names };

/*  Scores, lengths and bytes of all pieces as three tensors; of other vocabularies than llama2.c's the rules as well,
    the kinds and the merges. */
static lemon_status lemon__tokenizer_pack(lemon__pack *pack, const lemon_tokenizer *t) {
    int32_t size = lemon_tokenizer_size(t), value;
    int32_t *lengths = (int32_t *)lemon_arena_alloc(pack->ctx, &pack->scratch, (size_t)size * sizeof *lengths);
    lemon_tensor scores = lemon__view(t->scores, LEMON_F32, 1, size), counts = lemon__view(lengths, LEMON_I32, 1, size),
                 pieces = lemon__view(t->blob, LEMON_U8, 1, t->blob_bytes), kinds = lemon__view(t->kinds, LEMON_U8, 1, size),
                 merges = lemon__view(t->merges, LEMON_I32, 1, 3 * t->pairs.count);
    if (lengths == NULL) return LEMON_E_MEMORY;
    for (int32_t id = 0; id < size; id++) lengths[id] = (int32_t)t->pieces.spans[id].bytes;
    lemon__pack_text(pack, "tokenizer.type", t->rules.llama2c ? "llama2c" : "bpe", t->rules.llama2c ? 7 : 3);
    if (!t->rules.llama2c) lemon__pack_int(pack, "tokenizer.version", LEMON__TOKENIZER_VERSION);
    for (int32_t i = 0; i < LEMON__RULES; i++) {
        memcpy(&value, (const char *)&t->rules + lemon__rule_names[i].offset, sizeof value);
        if (!t->rules.llama2c || lemon__rule_names[i].offset == offsetof(lemon__rules, prefix))
            lemon__pack_int(pack, lemon__rule_names[i].name, value);
    }
    lemon__pack_tensor(pack, "tokenizer.scores", &scores, LEMON_F32);
    lemon__pack_tensor(pack, "tokenizer.lengths", &counts, LEMON_I32);
    lemon__pack_tensor(pack, "tokenizer.pieces", &pieces, LEMON_U8);
    if (!t->rules.llama2c) lemon__pack_tensor(pack, "tokenizer.kinds", &kinds, LEMON_U8);
    if (t->pairs.count > 0) lemon__pack_tensor(pack, "tokenizer.merges", &merges, LEMON_I32);
    return pack->status;
}

LEMON__APART lemon_status lemon__unpack_pieces(const lemon__unpack *u, lemon_tokenizer *t) {
    lemon_tensor scores, lengths, pieces, kinds;
    int64_t i;
    const char *why = "one for each score";
    lemon_status status = lemon__unpack_shaped(u, "tokenizer.scores", LEMON_F32, 1, -1, "a row", &scores);
    if (!status) status = lemon__unpack_shaped(u, "tokenizer.lengths", LEMON_I32, 1, scores.cols, why, &lengths);
    if (!status) status = lemon__unpack_shaped(u, "tokenizer.pieces", LEMON_U8, 1, -1, "a row", &pieces);
    if (!status && !t->rules.llama2c)
        status = lemon__unpack_shaped(u, "tokenizer.kinds", LEMON_U8, 1, scores.cols, why, &kinds);
    if (!status && scores.cols > LEMON__MAX_PIECES)
        status = lemon__unpack_bad(u, "pieces of the tokenizer", (uint64_t)scores.cols, LEMON__MAX_PIECES);
    if (status) return status;
    lemon__cursor c = lemon__cursor_at(pieces.data, (size_t)pieces.cols);
    for (i = 0; i < scores.cols && !status; i++) {
        int32_t n = ((const int32_t *)lengths.data)[i];
        float score = ((const float *)scores.data)[i];
        const uint8_t *piece = n < 0 ? NULL : lemon__take(&c, (size_t)n);
        if (piece == NULL) break;
        int kind = t->rules.llama2c ? lemon__llama2c_kind(i, piece, (size_t)n) : ((const uint8_t *)kinds.data)[i];
        if ((kind & LEMON__KIND) < LEMON__NORMAL || (kind & LEMON__KIND) > LEMON__BYTE)
            return lemon__unpack_bad(u, "kind of a piece", (uint64_t)kind, LEMON__NORMAL);
        status = lemon__tokenizer_add(u->ctx, t, kind, score, piece, (size_t)n);
    }
    if (status || (i == scores.cols && c.at == c.size)) return status;
    return lemon__refuse(u, LEMON_E_FORMAT, "tensor \"tokenizer.lengths\" does not add up to the %lld bytes of "
                         "\"tokenizer.pieces\"", (long long)pieces.cols);
}

/*  Each id must be one of a piece that texts can become, and the third spell the first two: merges that make nothing
    longer would never end, and others no format could name. */
static int lemon__merge_joins(const lemon_tokenizer *t, const lemon__merge *m) {
    size_t n, a, b;
    const uint8_t *whole = lemon__piece(t, m->id, &n), *left = lemon__piece(t, m->left, &a),
                  *right = lemon__piece(t, m->right, &b);
    return a > 0 && b > 0 && a + b == n && memcmp(whole, left, a) == 0 && memcmp(whole + a, right, b) == 0 &&
           t->kinds[m->left] == LEMON__NORMAL && t->kinds[m->right] == LEMON__NORMAL && t->kinds[m->id] == LEMON__NORMAL;
}

static lemon_status lemon__unpack_merges(const lemon__unpack *u, lemon_tokenizer *t) {
    int64_t size = lemon_tokenizer_size(t);
    lemon_tensor row;
    lemon_status status = lemon__unpack_shaped(u, "tokenizer.merges", LEMON_I32, 1, -1, "a row", &row);
    for (int64_t i = 0; !status && i + 2 < row.cols; i += 3) {
        const int32_t *p = (const int32_t *)row.data + i;
        const lemon__merge m = {p[0], p[1], p[2]};
        if (p[0] < 0 || p[0] >= size || p[1] < 0 || p[1] >= size || p[2] < 0 || p[2] >= size || !lemon__merge_joins(t, &m))
            return lemon__refuse(u, LEMON_E_FORMAT, "merge %lld of the tokenizer joins no pieces; " LEMON__DAMAGED,
                                 (long long)i / 3);
        status = lemon__merge_push(u->ctx, t, &m);
    }
    return status;
}

static lemon_status lemon__unpack_type(const lemon__unpack *u, lemon_tokenizer *t) {
    const char *type;
    size_t n;
    int64_t version;
    lemon_status status = lemon__unpack_text(u, "tokenizer.type", &type, &n);
    if (status) return status;
    t->rules.llama2c = n == 7 && memcmp(type, "llama2c", 7) == 0;
    if (t->rules.llama2c) return LEMON_OK;
    if (n != 3 || memcmp(type, "bpe", 3) != 0)
        return lemon__refuse(u, LEMON_E_UNSUPPORTED, "tokenizer.type is \"%.*s\", expected \"llama2c\" or \"bpe\"",
                             (int)(n < 40 ? n : 40), type);
    status = lemon__unpack_int(u, "tokenizer.version", &version);
    if (!status && version != LEMON__TOKENIZER_VERSION)
        status = lemon__refuse(u, LEMON_E_UNSUPPORTED, "tokenizer.version is %lld, expected %d; it is damaged, or a "
                               "newer lemon.h wrote it", (long long)version, LEMON__TOKENIZER_VERSION);
    return status;
}

static lemon_status lemon__unpack_rules(const lemon__unpack *u, lemon_tokenizer *t) {
    lemon_status status = LEMON_OK;
    int64_t value;
    for (int32_t i = 0; i < LEMON__RULES && !status; i++) {
        const struct lemon__rule *rule = &lemon__rule_names[i];
        int64_t least = rule->most < 0 ? -1 : 0, most = rule->most < 0 ? t->pieces.count - 1 : rule->most;
        if (t->rules.llama2c && rule->offset != offsetof(lemon__rules, prefix)) continue;
        status = lemon__unpack_int(u, rule->name, &value);
        if (status) break;
        if (value < least || value > most) status = lemon__unpack_bad(u, rule->name, (uint64_t)value, (uint64_t)most);
        int32_t whole = (int32_t)value;
        memcpy((char *)&t->rules + rule->offset, &whole, sizeof whole);
    }
    return status;
}

LEMON__APART lemon_status lemon__tokenizer_unpack(const lemon__unpack *u, lemon_tokenizer **tokenizer) {
    lemon_status status = lemon__tokenizer_new(u->ctx, tokenizer);
    if (!status) status = lemon__unpack_type(u, *tokenizer);
    if (!status) status = lemon__unpack_pieces(u, *tokenizer);
    if (!status) status = lemon__unpack_rules(u, *tokenizer);
    if (!status && lemon__words_find(&u->tensor_names, "tokenizer.merges", 16) >= 0)
        status = lemon__unpack_merges(u, *tokenizer);
    if (!status) status = lemon__tokenizer_finish(u->ctx, u->source.name, *tokenizer);
    return lemon__tokenizer_done(u->ctx, status, tokenizer);
}

LEMON__BRIEF_END
/* ---- a heap: the lowest number first ---- */

typedef struct lemon__heap {
    uint64_t *items;
    int64_t count, capacity;
    const uint64_t *run, *run_end;  /* sorted numbers that are in it too */
} lemon__heap;

static lemon_status lemon__heap_push(lemon_ctx *ctx, lemon__heap *heap, uint64_t added) {
    int64_t i = heap->count;
    if (!lemon__room(ctx, &heap->items, &heap->capacity, i + 1, sizeof *heap->items)) return LEMON_E_MEMORY;
    for (heap->count++; i > 0 && added < heap->items[(i - 1) / 2]; i = (i - 1) / 2) heap->items[i] = heap->items[(i - 1) / 2];
    heap->items[i] = added;
    return LEMON_OK;
}

/*  0: the heap is empty. */
static int lemon__heap_pop(lemon__heap *heap, uint64_t *best) {
    uint64_t *items = heap->items;
    int64_t i = 0, child;
    if (heap->run < heap->run_end && (heap->count == 0 || *heap->run < items[0])) { *best = *heap->run++; return 1; }
    if (heap->count == 0) return 0;
    *best = items[0];
    uint64_t last = items[--heap->count];
    while ((child = 2 * i + 1) < heap->count) {
        if (child + 1 < heap->count) child += items[child + 1] < items[child];
        if (items[child] >= last) break;
        items[i] = items[child];
        i = child;
    }
    items[i] = last;
    return 1;
}

static void lemon__heap_free(lemon_ctx *ctx, lemon__heap *heap) {
    lemon__free(ctx, heap->items, (size_t)heap->capacity * sizeof *heap->items);
}

/* ---- tokens ---- */

LEMON_API void lemon_tokens_free(lemon_ctx *ctx, lemon_tokens *tokens) {
    if (tokens == NULL) return;
    lemon__free(ctx, tokens->ids, (size_t)tokens->capacity * sizeof *tokens->ids);
    memset(tokens, 0, sizeof *tokens);
}

LEMON_API lemon_status lemon_tokens_push(lemon_ctx *ctx, lemon_tokens *tokens, int32_t id) {
    if (lemon__lacks(ctx, __func__, tokens != NULL)) return LEMON_E_ARG;
    if (!lemon__room(ctx, &tokens->ids, &tokens->capacity, tokens->count + 1, sizeof id)) return LEMON_E_MEMORY;
    tokens->ids[tokens->count++] = id;
    return LEMON_OK;
}

/* ---- encoding: joins in a part of the text ---- */

/*  A symbol knows the join with its right neighbour: a merge, or the piece that comes out. */
typedef struct lemon__symbol {
    int32_t start, bytes;           /* its place in the part */
    int32_t left, right, id, join;  /* -1: none */
} lemon__symbol;

typedef struct lemon__encoder {
    lemon_ctx *ctx;
    lemon_status status;            /* the first that was wrong */
    const lemon_tokenizer *t;
    lemon_tokens *tokens;
    const uint8_t *text;            /* of this part */
    lemon__symbol *symbols;
    int64_t n_symbols, capacity;
    lemon__heap heap;               /* rank and symbol of each join; some are no longer what their symbol has */
    uint64_t *keys;                 /* of the joins that a long part begins with, and room to sort them */
    int64_t keys_capacity;
    uint8_t *passed;                /* if not NULL: set for each piece that comes about on the way */
    uint8_t *copy;                  /* of text that has to be changed before it is encoded */
    int64_t copy_capacity;
} lemon__encoder;

/*  Lower for better joins, and of equally good ones for those further to the left.  The bits of a float rise with it,
    those of negative ones fall. */
static uint64_t lemon__join_key(const lemon__encoder *e, int32_t i) {
    int32_t join = e->symbols[i].join;
    uint32_t rank = (uint32_t)join;
    if (!e->t->rules.by_merges) {
        rank = lemon__bits(e->t->scores[join] + 0.0f);      /* -0 becomes 0 */
        rank = rank >> 31 ? rank : INT32_MAX - rank;
    }
    return (uint64_t)rank << 32 | (uint64_t)i;
}

/*  The join of a symbol with the next one, -1: none.  By scores, bytes that stand for themselves never join. */
static int32_t lemon__join_of(const lemon__encoder *e, const lemon__symbol *a) {
    const lemon_tokenizer *t = e->t;
    if (a->right < 0) return -1;
    const lemon__symbol *b = &e->symbols[a->right];
    if (t->rules.by_merges) {
        const int32_t pair[] = {a->id, b->id};
        return lemon__words_find(&t->pairs, pair, sizeof pair);
    }
    if ((size_t)a->bytes + (size_t)b->bytes > t->longest || t->kinds[a->id] != LEMON__NORMAL ||
        t->kinds[b->id] != LEMON__NORMAL)
        return -1;
    return lemon__words_find(&t->pieces, e->text + a->start, (size_t)(a->bytes + b->bytes));
}

/*  Looks for the join of a symbol anew. */
static void lemon__encoder_offer(lemon__encoder *e, int32_t i) {
    lemon__symbol *s = &e->symbols[i];
    s->join = lemon__join_of(e, s);
    if (s->join >= 0 && lemon__heap_push(e->ctx, &e->heap, lemon__join_key(e, i))) e->status = LEMON_E_MEMORY;
}

enum { LEMON__LONG_PART = 256, LEMON__DIGITS = 2048 };

/*  The joins of a long part, sorted by rank, 11 bits after 11 bits, which takes less time than a heap; those of one
    rank stay in the order of the text. */
static void lemon__encoder_sort(lemon__encoder *e) {
    int64_t ends[LEMON__DIGITS], n = 0;
    if (!lemon__room(e->ctx, &e->keys, &e->keys_capacity, 2 * e->n_symbols, sizeof *e->keys)) {
        e->status = LEMON_E_MEMORY;
        return;
    }
    uint64_t *from = e->keys, *to;
    for (int32_t i = 0; i < e->n_symbols; i++) {
        e->symbols[i].join = lemon__join_of(e, &e->symbols[i]);
        if (e->symbols[i].join >= 0) from[n++] = lemon__join_key(e, i);
    }
    for (int shift = 32; shift < 64; shift += 11, from = to) {
        to = from == e->keys ? from + n : e->keys;
        memset(ends, 0, sizeof ends);
        for (int64_t k = 0; k < n; k++) ends[from[k] >> shift & (LEMON__DIGITS - 1)]++;
        for (int64_t k = 1; k < LEMON__DIGITS; k++) ends[k] += ends[k - 1];
        for (int64_t k = n - 1; k >= 0; k--) to[--ends[from[k] >> shift & (LEMON__DIGITS - 1)]] = from[k];
    }
    e->heap.run = from;
    e->heap.run_end = from + n;
}

/*  Joins a symbol with the next one. */
static void lemon__encoder_join(lemon__encoder *e, int32_t i) {
    lemon__symbol *a = &e->symbols[i], *b = &e->symbols[a->right];
    a->id = e->t->rules.by_merges ? e->t->merges[a->join].id : a->join;
    a->bytes += b->bytes;
    a->right = b->right;
    b->join = -1;
    if (e->passed) e->passed[a->id] = 1;
    if (a->right >= 0) e->symbols[a->right].left = i;
    if (a->left >= 0) lemon__encoder_offer(e, a->left);
    lemon__encoder_offer(e, i);
}

static void lemon__encoder_symbol(lemon__encoder *e, size_t start, size_t bytes, int32_t id) {
    const int32_t at = (int32_t)e->n_symbols;
    const lemon__symbol s = {(int32_t)start, (int32_t)bytes, at - 1, at + 1, id, -1};
    if (e->passed) e->passed[id] = 1;
    if (lemon__room(e->ctx, &e->symbols, &e->capacity, e->n_symbols + 1, sizeof s)) e->symbols[e->n_symbols++] = s;
    else e->status = LEMON_E_MEMORY;
}

/*  Characters that are pieces, and bytes; a byte that is no piece becomes the unknown one, or nothing. */
static void lemon__encoder_cut(lemon__encoder *e, size_t bytes) {
    const lemon_tokenizer *t = e->t;
    e->n_symbols = 0;
    for (size_t at = 0, n; at < bytes && !e->status; at += n) {
        n = t->rules.split ? 1 : lemon__char_bytes(e->text + at, bytes - at);
        int32_t id = t->rules.split ? -1 : lemon__words_find(&t->pieces, e->text + at, n);
        if (id >= 0) { lemon__encoder_symbol(e, at, n, id); continue; }
        for (size_t i = at; i < at + n; i++) {
            id = t->byte_ids[e->text[i]] >= 0 ? t->byte_ids[e->text[i]] : t->rules.unknown;
            if (id >= 0) lemon__encoder_symbol(e, i, 1, id);
        }
    }
    if (e->n_symbols > 0) e->symbols[e->n_symbols - 1].right = -1;
}

static void lemon__encoder_put(lemon__encoder *e, int32_t id) {
    if (!e->status) e->status = lemon_tokens_push(e->ctx, e->tokens, id);
}

/*  Encodes a part of the text that no join can leave. */
static void lemon__encoder_part(lemon__encoder *e, const uint8_t *text, size_t bytes) {
    uint64_t best;
    int32_t i;
    if (bytes > INT32_MAX / 2)
        e->status = lemon__fail(e->ctx, LEMON_E_ARG, "text has more than 2^30 characters in one run; break it up");
    e->text = text;
    lemon__encoder_cut(e, bytes);
    if (e->status || e->n_symbols == 0) return;
    if (e->n_symbols > LEMON__LONG_PART) lemon__encoder_sort(e);
    else for (i = 0; i < e->n_symbols; i++) lemon__encoder_offer(e, i);
    while (lemon__heap_pop(&e->heap, &best)) {
        i = (int32_t)(best & UINT32_MAX);
        if (e->symbols[i].join >= 0 && lemon__join_key(e, i) == best) lemon__encoder_join(e, i);
    }
    for (i = 0; i >= 0; i = e->symbols[i].right) lemon__encoder_put(e, e->symbols[i].id);
}

/* ---- encoding: parts of a text ---- */

static void lemon__encoder_words(lemon__encoder *e, const uint8_t *text, size_t n) {
    const int whole = e->t->rules.split && e->t->rules.whole_words;
    for (size_t at = 0, end; at < n && !e->status; at = end) {
        end = lemon__word(e->t, text, n, at);
        int32_t id = whole ? lemon__words_find(&e->t->pieces, text + at, end - at) : -1;
        if (id >= 0) lemon__encoder_put(e, id);
        else lemon__encoder_part(e, text + at, end - at);
    }
}

/*  Text with the blank before it that the rules ask for; `first` at the beginning of all. */
static lemon_status lemon__encoder_prefix(lemon__encoder *e, const uint8_t **text, size_t *n, int first) {
    const lemon__rules *rules = &e->t->rules;
    if (!lemon__room(e->ctx, &e->copy, &e->copy_capacity, (int64_t)*n + 1, 1)) return LEMON_E_MEMORY;
    e->copy[0] = ' ';
    memcpy(e->copy + 1, *text, *n);
    if (rules->blank_mark) *n = lemon__blanks(e->copy + 1, e->copy + 1, *n);
    int prefix = rules->prefix == LEMON__PREFIX_ALWAYS ||
                 (e->copy[1] != ' ' &&
                  (rules->prefix == LEMON__PREFIX_MISSING || (rules->prefix == LEMON__PREFIX_FIRST && first)));
    *text = e->copy + 1 - prefix;
    *n += (size_t)prefix;
    return LEMON_OK;
}

/*  Text between special tokens.  All below U+0300 is in form C. */
static void lemon__encoder_plain(lemon__encoder *e, const uint8_t *text, size_t n, int first) {
    const lemon__rules *rules = &e->t->rules;
    lemon__bytes formed = lemon__bytes_in(e->ctx);
    size_t at = 0;
    if (n == 0 || e->status) return;
    while (rules->nfc && at < n && text[at] < 0xcc) at++;
    if (rules->nfc && at < n) {
        e->status = lemon__form_c(text, n, &formed);
        text = formed.data;
        n = (size_t)formed.count;
    }
    if (!e->status && (rules->prefix || rules->blank_mark)) e->status = lemon__encoder_prefix(e, &text, &n, first);
    lemon__encoder_words(e, text, n);
    lemon__bytes_free(&formed);
}

/*  The longest special piece that begins here, by halving the sorted list for each byte; NULL: none.  Without `all` only
    those that are not control tokens. */
static const lemon__special *lemon__special_at(const lemon_tokenizer *t, const uint8_t *text, size_t n, int all) {
    int64_t low = 0, high = t->n_specials;
    const lemon__special *found = NULL;
    if (high > 0 && n > 0 && text[0] > t->specials[high - 1].bytes[0]) return NULL;     /* letters, mostly, are behind all */
    for (size_t i = 0; i < n && low < high; i++) {
        int64_t bound[2];
        for (int64_t k = 0; k < 2; k++) {   /* the first that has at least, and more than, this byte in this place */
            int64_t a = low, b = high;
            while (a < b) {
                int64_t middle = a + (b - a) / 2;
                const lemon__special *s = &t->specials[middle];
                if (s->n <= i || s->bytes[i] < text[i] + k) a = middle + 1;
                else b = middle;
            }
            bound[k] = a;
        }
        low = bound[0];
        high = bound[1];
        if (low < high && t->specials[low].n == i + 1 &&
            (all || (t->kinds[t->specials[low].id] & LEMON__KIND) == LEMON__ADDED))
            found = &t->specials[low];
    }
    return found;
}

/*  Widens the place of a special piece, text[*from ... *to-1], by the white space that it takes along; `low`: where the
    one before it ended. */
static void lemon__special_strip(const uint8_t *text, size_t low, size_t n, int kind, size_t *from, size_t *to) {
    size_t size;
    while ((kind & LEMON__STRIP_LEFT) && *from > low) {
        for (size = 1; size < 3 && size < *from - low && (text[*from - size] & 0xc0) == 0x80;) size++;
        if (lemon__char_bytes(text + *from - size, size) != size ||
            !lemon__blank_char(lemon__char_code(text + *from - size, size)))
            break;
        *from -= size;
    }
    while ((kind & LEMON__STRIP_RIGHT) && *to < n) {
        size = lemon__char_bytes(text + *to, n - *to);
        if (!lemon__blank_char(lemon__char_code(text + *to, size))) break;
        *to += size;
    }
}

static void lemon__encoder_text(lemon__encoder *e, const uint8_t *text, size_t n, int all) {
    size_t from = 0, at = 0;
    while (at < n && e->t->n_specials > 0 && !e->status) {
        const lemon__special *s = lemon__special_at(e->t, text + at, n - at, all);
        size_t begin = at;
        if (s == NULL) { at++; continue; }
        size_t end = at + s->n;
        lemon__special_strip(text, from, n, e->t->kinds[s->id], &begin, &end);
        lemon__encoder_plain(e, text + from, begin - from, from == 0);
        lemon__encoder_put(e, s->id);
        at = from = end;
    }
    lemon__encoder_plain(e, text + from, n - from, from == 0);
}

static void lemon__encoder_close(lemon__encoder *e) {
    lemon__free(e->ctx, e->symbols, (size_t)e->capacity * sizeof *e->symbols);
    lemon__free(e->ctx, e->copy, (size_t)e->copy_capacity);
    lemon__free(e->ctx, e->keys, (size_t)e->keys_capacity * sizeof *e->keys);
    lemon__heap_free(e->ctx, &e->heap);
}

static lemon__encoder lemon__encoder_open(lemon_ctx *ctx, const lemon_tokenizer *t, lemon_tokens *tokens) {
    const lemon__encoder e = {ctx, LEMON_OK, t, tokens, NULL, NULL, 0, 0, {NULL, 0, 0, NULL, NULL}, NULL, 0, NULL, NULL, 0};
    return e;
}

static lemon_status lemon__no_bpe(lemon_ctx *ctx) {
    return lemon__fail(ctx, LEMON_E_UNSUPPORTED, "this program was built without the encoder (LEMON_NO_BPE), expected ids "
                       "in place of a text");
}

static lemon_status lemon__encode(lemon_ctx *ctx, const lemon_tokenizer *t, const char *text, size_t bytes, int all,
                                  lemon_tokens *tokens) {
    if (!LEMON__BPE) return lemon__no_bpe(ctx);
    if (lemon__lacks(ctx, __func__, t && tokens && (text || bytes == 0))) return LEMON_E_ARG;
    int64_t before = tokens->count;
    lemon__encoder e = lemon__encoder_open(ctx, t, tokens);
    lemon__encoder_text(&e, (const uint8_t *)text, bytes, all);
    if (e.status) tokens->count = before;
    lemon__encoder_close(&e);
    return e.status;
}

LEMON_API lemon_status lemon_encode(lemon_ctx *ctx, const lemon_tokenizer *tokenizer, const char *text, size_t bytes,
                                    lemon_tokens *tokens) {
    return lemon__encode(ctx, tokenizer, text, bytes, 0, tokens);
}

LEMON_API lemon_status lemon_encode_special(lemon_ctx *ctx, const lemon_tokenizer *tokenizer, const char *text,
                                            size_t bytes, lemon_tokens *tokens) {
    return lemon__encode(ctx, tokenizer, text, bytes, 1, tokens);
}

static int32_t lemon__special_named(const lemon_tokenizer *t, const char *text, size_t n) {
    const lemon__special *s = lemon__special_at(t, (const uint8_t *)text, n, 1);
    return s && s->n == n ? s->id : -1;
}

LEMON_API int32_t lemon_tokenizer_find(const lemon_tokenizer *tokenizer, const char *text, size_t bytes) {
    if (tokenizer == NULL || text == NULL) return -1;
    int32_t id = lemon__special_named(tokenizer, text, bytes);
    return id >= 0 ? id : lemon__words_find(&tokenizer->pieces, text, bytes);
}

/* ---- decoding ---- */

LEMON_API lemon_status lemon_decode(lemon_ctx *ctx, const lemon_tokenizer *tokenizer, int32_t previous, int32_t id,
                                    const char **text, size_t *bytes) {
    const lemon_tokenizer *t = tokenizer;
    if (lemon__lacks(ctx, __func__, text && bytes)) return LEMON_E_ARG;
    if (id < 0 || id >= lemon_tokenizer_size(t))
        return lemon__fail(ctx, LEMON_E_ARG, "token id is %ld, expected 0 to %ld", (long)id,
                           (long)lemon_tokenizer_size(t) - 1);
    const uint8_t *piece = lemon__piece(t, id, bytes);
    if (t->kinds[id] == LEMON__BYTE) {
        piece = &t->bytes[lemon__byte_of(piece, *bytes)];
        *bytes = 1;
    } else if (previous >= 0 && previous == t->rules.bos && t->rules.prefix && *bytes > 0 && piece[0] == ' ') {
        piece++;
        --*bytes;
    }
    *text = (const char *)piece;
    return LEMON_OK;
}

/*  Bytes at the end of a text that begin a character which does not end there. */
static size_t lemon__unfinished(const uint8_t *p, size_t n) {
    for (size_t k = 1; k <= 3 && k <= n; k++) {
        uint8_t c = p[n - k];
        if ((c & 0xc0) == 0x80) continue;
        size_t size = c < 0xc2 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 1;
        return size > k ? k : 0;
    }
    return 0;
}

LEMON_API lemon_status lemon_stream_next(lemon_ctx *ctx, const lemon_tokenizer *tokenizer, lemon_stream *stream,
                                         int32_t id, const char **text, size_t *bytes) {
    const char *piece = NULL;
    size_t n = 0;
    if (lemon__lacks(ctx, __func__, stream && text && bytes)) return LEMON_E_ARG;
    lemon_status status = id < 0 ? LEMON_OK : lemon_decode(ctx, tokenizer, stream->previous, id, &piece, &n);
    *text = "";
    *bytes = 0;
    if (status) return status;
    if (stream->given > 0) memmove(stream->text, stream->text + stream->given, (size_t)stream->held);
    stream->given = 0;
    if (!lemon__room(ctx, &stream->text, &stream->capacity, stream->held + (int64_t)n, 1)) return LEMON_E_MEMORY;
    if (n > 0) memcpy(stream->text + stream->held, piece, n);
    n += (size_t)stream->held;
    stream->previous = id == lemon_tokenizer_bos(tokenizer) ? -1 : id;      /* only the text's first blank goes */
    stream->held = id < 0 ? 0 : (int64_t)lemon__unfinished((const uint8_t *)stream->text, n);
    stream->given = (int64_t)n - stream->held;
    *text = stream->text;
    *bytes = (size_t)stream->given;
    return LEMON_OK;
}

LEMON_API void lemon_stream_free(lemon_ctx *ctx, lemon_stream *stream) {
    if (stream == NULL) return;
    lemon__free(ctx, stream->text, (size_t)stream->capacity);
    memset(stream, 0, sizeof *stream);
}

LEMON__BRIEF_BEGIN
/* ---- smaller vocabularies ---- */

/*  A piece can only come about if the pieces do that it is joined from; they are those that its own bytes pass on their
    way.  A text whose pieces are all kept is then encoded as before: each join that was best still is. */
static void lemon__trim_keep(lemon__encoder *e, int32_t id) {
    size_t n;
    const uint8_t *piece = lemon__piece(e->t, id, &n);
    e->passed[id] = 1;
    e->tokens->count = 0;
    if (e->t->kinds[id] == LEMON__NORMAL && n > 0) lemon__encoder_part(e, piece, n);
}

LEMON_API lemon_status lemon_tokenizer_trim(lemon_ctx *ctx, const lemon_tokenizer *tokenizer, const int32_t *ids,
                                            int64_t n, lemon_tokens *kept, lemon_tokenizer **smaller) {
    const lemon__rules *rules = tokenizer ? &tokenizer->rules : NULL;
    int32_t size = lemon_tokenizer_size(tokenizer);
    size_t n_bytes = (size_t)size * 5;
    lemon_tokens ignored = {NULL, 0, 0};
    lemon__encoder e = lemon__encoder_open(ctx, tokenizer, &ignored);
    if (lemon__lacks(ctx, __func__, tokenizer && (ids || n < 1) && kept && smaller)) return LEMON_E_ARG;
    *smaller = NULL;
    if (!LEMON__BPE) return lemon__no_bpe(ctx);
    int32_t *new_ids = (int32_t *)lemon__calloc(ctx, n_bytes);
    if (new_ids == NULL) return LEMON_E_MEMORY;
    e.passed = (uint8_t *)(new_ids + size);
    for (int64_t i = 0; i < n && !e.status; i++) {
        if (ids[i] >= 0 && ids[i] < size) lemon__trim_keep(&e, ids[i]);
        else e.status = lemon__fail(ctx, LEMON_E_ARG, "token id is %ld, expected 0 to %ld", (long)ids[i], (long)size - 1);
    }
    lemon_status status = e.status;
    for (int32_t id = 0; id < size && !status; id++) {
        int kind = tokenizer->kinds[id] & LEMON__KIND, byte = rules->split && tokenizer->pieces.spans[id].bytes == 1;
        int end = id == rules->bos || id == rules->eos || id == rules->unknown;
        if (byte || end || (kind != LEMON__NORMAL && kind != LEMON__UNUSED)) e.passed[id] = 1;
    }
    if (!status) status = lemon__tokenizer_copy(ctx, tokenizer, e.passed, new_ids, smaller);
    for (int32_t id = 0; id < size && !status; id++)
        if (e.passed[id]) status = lemon_tokens_push(ctx, kept, id);
    lemon__encoder_close(&e);
    lemon_tokens_free(ctx, &ignored);
    lemon__free(ctx, new_ids, n_bytes);
    return lemon__tokenizer_done(ctx, status, smaller);
}

/*  The new id of a token, or -1. */
static int64_t lemon__trim_id(const lemon_tokens *kept, int64_t old) {
    for (int64_t i = 0; i < kept->count; i++)
        if (kept->ids[i] == old) return i;
    return -1;
}

static int lemon__names_id(const void *name, size_t n) {
    return n >= 9 && memcmp((const char *)name + n - 9, "_token_id", 9) == 0;
}

/*  A JSON object of a Hugging Face folder with new numbers in "..._token_id"; all else stays as it is. */
static lemon_status lemon__trim_json(const lemon_part *part, const lemon_tokens *kept, lemon__bytes *out) {
    lemon__json json;
    uint32_t at = 0;
    int64_t id;
    lemon_status status = lemon__json_parse(out->ctx, part->name, part->data, part->bytes, &json);
    if (status) return status;
    for (int32_t i = 1; json.nodes[0].type == LEMON__JSON_OBJECT && i < json.nodes[0].next; i = json.nodes[i + 1].next) {
        const lemon__json_node *name = &json.nodes[i], *value = name + 1;
        int list = lemon__json_is(&json, i, "added_tokens_decoder");    /* tokenizer.json has them too */
        for (int32_t k = i + 1; k < value->next; k++) {
            const lemon__json_node *number = &json.nodes[k];
            if (!list && !(lemon__names_id(json.text + name->start, name->bytes) && lemon__json_int(&json, k, &id))) continue;
            lemon__put(out, json.text + at, number->start - at);
            id = list ? -1 : lemon__trim_id(kept, id);
            if (id < 0) lemon__print(out, list ? "{}" : "null");
            else lemon__print(out, "%lld", (long long)id);
            at = number->start + number->bytes;
            if (list) break;
        }
    }
    lemon__put(out, json.text + at, part->bytes - at);
    lemon__json_close(&json);
    return out->status;
}

/*  GGUF's keys likewise.  Lists are gone, for they speak of all tokens. */
static lemon_status lemon__trim_gguf(const lemon_part *part, const lemon_tokens *kept, lemon__bytes *out) {
    lemon__cursor c = lemon__cursor_at(part->data, part->bytes);
    lemon__key key;
    while (lemon__gguf_next(&c, &key)) {
        int is_id = key.type == LEMON__GGUF_U32 && lemon__names_id(key.name, key.name_bytes);
        int64_t id = is_id ? lemon__trim_id(kept, lemon__get32(key.value)) : 0;
        if (key.type == LEMON__GGUF_ARRAY || id < 0) continue;
        lemon__put(out, c.bytes + key.at, c.at - key.at - (is_id ? 4 : 0));
        if (is_id) lemon__put_number(out, (uint64_t)id, 4);
    }
    return c.bad ? lemon__fail(out->ctx, LEMON_E_ARG, "part \"%s\" is no list of GGUF keys", part->name) : out->status;
}

static lemon_status lemon__trim_part(lemon_ctx *ctx, const lemon_part *part, const lemon_tokens *kept, lemon_model *to) {
    static const char *const gone[] = {"tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json"};
    lemon__bytes text = lemon__bytes_in(ctx);
    lemon_status status = LEMON_OK;
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++)
        if (strcmp(part->name, gone[i]) == 0) return LEMON_OK;
    if (strcmp(part->name, "gguf.tokenizer") == 0) status = lemon__trim_gguf(part, kept, &text);
    else if (strcmp(lemon__ending(part->name), ".json") == 0) status = lemon__trim_json(part, kept, &text);
    else lemon__put(&text, part->data, part->bytes);
    if (!status) status = text.status;
    if (!status) status = lemon__part_add(ctx, to, part->name, strlen(part->name), text.data, (size_t)text.count);
    lemon__bytes_free(&text);
    return status;
}

/*  A weight of the source as it stands, or the rows of it that are kept. */
static lemon_status lemon__trim_param(lemon_ctx *ctx, lemon_model *model, const lemon_tensor *from, int rows,
                                      const lemon_tokens *kept, lemon_tensor *to) {
    size_t bytes = lemon_row_bytes(from->dtype, from->cols);
    to->dtype = from->dtype;
    to->data = rows ? lemon_arena_alloc(ctx, &model->arena, (size_t)kept->count * bytes) : from->data;
    if (to->data == NULL) return LEMON_E_MEMORY;
    for (int64_t i = 0; i < kept->count && rows; i++)
        memcpy((char *)to->data + (size_t)i * bytes, (const char *)from->data + (size_t)kept->ids[i] * bytes, bytes);
    return LEMON_OK;
}

LEMON_API lemon_status lemon_model_trim(lemon_ctx *ctx, const lemon_model *source, const int32_t *ids, int64_t n,
                                        lemon_tokens *kept, lemon_model **model) {
    lemon_tokenizer *smaller = NULL;
    lemon_tokens now;
    lemon_config config;
    int64_t layer;
    if (lemon__lacks(ctx, __func__, source && source->tokenizer && (ids || n < 1) && kept && model)) return LEMON_E_ARG;
    *model = NULL;
    int64_t before = kept->count;
    lemon_status status = lemon__vocabulary_check(ctx, source->tokenizer, source->config.vocab_size);
    if (!status) status = lemon_tokenizer_trim(ctx, source->tokenizer, ids, n, kept, &smaller);
    if (status) return status;
    now.ids = kept->count ? kept->ids + before : NULL;      /* a tokenizer may have no piece at all */
    now.count = now.capacity = kept->count - before;
    config = source->config;
    config.vocab_size = (int32_t)now.count;
    status = lemon__model_new(ctx, &config, model);
    for (int64_t i = 0; i < source->n_params && !status; i++) {
        int rows = lemon__roles[lemon__param_role(&config, i, &layer)].out == LEMON_JOINT_VOCAB;
        status = lemon__trim_param(ctx, *model, &source->params[i], rows, &now, &(*model)->params[i]);
    }
    for (int64_t i = 0; i < source->n_parts && !status; i++) status = lemon__trim_part(ctx, &source->parts[i], &now, *model);
    if (status) lemon_tokenizer_free(ctx, smaller);
    else {
        (*model)->tokenizer = smaller;
        (*model)->dtype = source->dtype;
    }
    return lemon__model_done(ctx, status, model);
}

static int lemon__is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* ---- files: Hugging Face's tokenizer.json.  What it asks for and is not known here is refused by name. ---- */

typedef struct lemon__hf {
    lemon_ctx *ctx;
    lemon__json json;
    lemon_tokenizer *t;
    int32_t *node_of;               /* by id: its name in the vocabulary, or less than 0: minus its place in added_tokens */
    int64_t size, most;             /* ids so far, and room for them */
} lemon__hf;

static lemon_status lemon__hf_refuse(lemon__hf *hf, int32_t node, const char *field, const char *expected) {
    int32_t type = lemon__json_get(&hf->json, node, "type");
    const lemon__json_node *shown = node < 0 ? NULL : &hf->json.nodes[type < 0 ? node : type];
    return lemon__fail(hf->ctx, LEMON_E_UNSUPPORTED, "%s: %s is %.*s, expected %s", hf->json.name, field,
                       shown ? (int)lemon__min(shown->bytes, 120) : 7,
                       shown ? (const char *)hf->json.text + shown->start : "missing", expected);
}

static int lemon__hf_is(const lemon__hf *hf, int32_t node, const char *type) {
    return lemon__json_is(&hf->json, lemon__json_get(&hf->json, node, "type"), type);
}

/*  SentencePiece's blank, which some files write as an escape. */
static int lemon__hf_is_mark(lemon__hf *hf, int32_t node, const char *name) {
    size_t n;
    const uint8_t *text = lemon__json_string(&hf->json, lemon__json_get(&hf->json, node, name), &n);
    return text && n == 3 && memcmp(text, "\xe2\x96\x81", 3) == 0;
}

static lemon__json_type lemon__hf_type(const lemon__hf *hf, int32_t node, const char *name) {
    return lemon__json_type_of(&hf->json, lemon__json_get(&hf->json, node, name));
}

static int lemon__hf_true(const lemon__hf *hf, int32_t node, const char *name) {
    return lemon__hf_type(hf, node, name) == LEMON__JSON_TRUE;
}

/*  Calls step for a member of the file, or for each of the steps of its "Sequence"; null has none. */
static lemon_status lemon__hf_steps(lemon__hf *hf, const char *field, const char *items,
                                    lemon_status (*step)(lemon__hf *hf, int32_t node)) {
    int32_t node = lemon__json_get(&hf->json, 0, field);
    lemon_status status = LEMON_OK;
    if (lemon__json_type_of(&hf->json, node) <= LEMON__JSON_NULL) return LEMON_OK;
    if (!lemon__hf_is(hf, node, "Sequence")) return step(hf, node);
    int32_t list = lemon__json_get(&hf->json, node, items);
    if (lemon__json_type_of(&hf->json, list) != LEMON__JSON_ARRAY)
        return lemon__hf_refuse(hf, node, field, "a sequence with a list of steps");
    for (int32_t i = list + 1; i < hf->json.nodes[list].next && !status; i = hf->json.nodes[i].next) status = step(hf, i);
    return status;
}

static lemon_status lemon__hf_normalizer(lemon__hf *hf, int32_t node) {
    lemon__rules *rules = &hf->t->rules;
    int32_t pattern = lemon__json_get(&hf->json, lemon__json_get(&hf->json, node, "pattern"), "String");
    if (lemon__hf_is(hf, node, "NFC")) rules->nfc = 1;
    else if (lemon__hf_is(hf, node, "Prepend") && lemon__hf_is_mark(hf, node, "prepend")) rules->prefix = LEMON__PREFIX_ALWAYS;
    else if (lemon__hf_is(hf, node, "Replace") && lemon__json_is(&hf->json, pattern, " ") &&
             lemon__hf_is_mark(hf, node, "content"))
        rules->blank_mark = 1;
    else return lemon__hf_refuse(hf, node, "normalizer", "NFC, or LLaMA's Prepend and Replace");
    return LEMON_OK;
}

static lemon_status lemon__hf_split(lemon__hf *hf, int32_t node) {
    int32_t regex = lemon__json_get(&hf->json, lemon__json_get(&hf->json, node, "pattern"), "Regex");
    size_t n;
    const uint8_t *text = lemon__json_string(&hf->json, regex, &n);
    for (size_t i = 0; text && i < sizeof lemon__patterns / sizeof *lemon__patterns; i++) {
        if (n != strlen(lemon__patterns[i].regex) || memcmp(text, lemon__patterns[i].regex, n) != 0) continue;
        if (!lemon__json_is(&hf->json, lemon__json_get(&hf->json, node, "behavior"), "Isolated") ||
            lemon__hf_true(hf, node, "invert"))
            break;
        hf->t->rules.split = lemon__patterns[i].split;
        return LEMON_OK;
    }
    return lemon__hf_refuse(hf, regex < 0 ? node : regex, "pattern of pre_tokenizer",
                            "that of GPT-2, LLaMA 3 or Qwen, isolated");
}

static lemon_status lemon__hf_metaspace(lemon__hf *hf, int32_t node) {
    int32_t scheme = lemon__json_get(&hf->json, node, "prepend_scheme");
    lemon__rules *rules = &hf->t->rules;
    int never = scheme < 0 ? lemon__hf_type(hf, node, "add_prefix_space") == LEMON__JSON_FALSE     /* older files say it so */
                           : lemon__json_is(&hf->json, scheme, "never");
    rules->blank_mark = 1;
    rules->prefix = never                                       ? LEMON__PREFIX_NEVER
                    : lemon__json_is(&hf->json, scheme, "first") ? LEMON__PREFIX_FIRST
                                                                 : LEMON__PREFIX_MISSING;
    if (lemon__hf_type(hf, node, "split") == LEMON__JSON_FALSE && lemon__hf_is_mark(hf, node, "replacement")) return LEMON_OK;
    return lemon__hf_refuse(hf, node, "pre_tokenizer", "\"split\": false and U+2581 for blanks, as LLaMA has them");
}

/*  The byte alphabet is told by its last step, and the pattern by the one before it, or by the same. */
static lemon_status lemon__hf_pre_tokenizer(lemon__hf *hf, int32_t node) {
    lemon__rules *rules = &hf->t->rules;
    int use_regex = lemon__hf_type(hf, node, "use_regex") != LEMON__JSON_FALSE;
    if (lemon__hf_is(hf, node, "Metaspace")) return lemon__hf_metaspace(hf, node);
    if (lemon__hf_is(hf, node, "Split")) return lemon__hf_split(hf, node);
    if (lemon__hf_is(hf, node, "Digits") && lemon__hf_true(hf, node, "individual_digits")) {
        rules->split = LEMON__SPLIT_DIGITS;
        return LEMON_OK;
    }
    if (!lemon__hf_is(hf, node, "ByteLevel"))
        return lemon__hf_refuse(hf, node, "pre_tokenizer", "ByteLevel, Split, Digits one by one, or Metaspace");
    if (lemon__hf_true(hf, node, "add_prefix_space")) rules->prefix = LEMON__PREFIX_MISSING;
    if (use_regex && rules->split == LEMON__SPLIT_NONE) rules->split = LEMON__SPLIT_GPT2;
    if (use_regex ? rules->split <= LEMON__SPLIT_DIGITS : rules->split > LEMON__SPLIT_DIGITS) return LEMON_OK;
    return lemon__hf_refuse(hf, node, "pre_tokenizer", "one pattern, not none or two");
}

/*  SentencePiece's family has steps that undo the blanks, GPT-2's has the alphabet. */
static lemon_status lemon__hf_decoder(lemon__hf *hf, int32_t node) {
    static const char *const known[] = {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"};
    if (hf->t->rules.split && lemon__hf_is(hf, node, "ByteLevel")) return LEMON_OK;
    for (size_t i = 0; !hf->t->rules.split && i < sizeof known / sizeof *known; i++)
        if (lemon__hf_is(hf, node, known[i])) return LEMON_OK;
    return lemon__hf_refuse(hf, node, "decoder", "one that undoes what normalizer and pre_tokenizer do");
}

/*  Whether BOS goes before a text. */
static lemon_status lemon__hf_post_processor(lemon__hf *hf, int32_t node) {
    int32_t list = lemon__json_get(&hf->json, node, "single"), seen = 0;
    lemon__rules *rules = &hf->t->rules;
    size_t n;
    if (lemon__hf_is(hf, node, "ByteLevel")) return LEMON_OK;
    if (!lemon__hf_is(hf, node, "TemplateProcessing") || lemon__json_type_of(&hf->json, list) != LEMON__JSON_ARRAY)
        return lemon__hf_refuse(hf, node, "post_processor", "ByteLevel or TemplateProcessing");
    for (int32_t i = list + 1; i < hf->json.nodes[list].next; i = hf->json.nodes[i].next, seen++) {
        int32_t special = lemon__json_get(&hf->json, i, "SpecialToken");
        if (special < 0) continue;
        const uint8_t *name = lemon__json_string(&hf->json, lemon__json_get(&hf->json, special, "id"), &n);
        rules->bos = name ? lemon__special_named(hf->t, (const char *)name, n) : -1;
        rules->add_bos = 1;
        if (seen > 0 || rules->bos < 0)
            return lemon__hf_refuse(hf, list, "template of post_processor", "at most one token, before the text");
    }
    return LEMON_OK;
}

/*  tokenizer.json does not say which tokens begin and end a text (tokenizer_config.json does); their names do. */
static void lemon__hf_ends(lemon__hf *hf) {
    static const char *const begins[] = {"<s>", "<|begin_of_text|>", "<|startoftext|>", "<bos>"};
    static const char *const ends[] = {"</s>", "<|end_of_text|>", "<|endoftext|>", "<eos>", "<|im_end|>"};
    lemon__rules *rules = &hf->t->rules;
    for (size_t i = 0; rules->bos < 0 && i < sizeof begins / sizeof *begins; i++)
        rules->bos = lemon__special_named(hf->t, begins[i], strlen(begins[i]));
    for (size_t i = 0; rules->eos < 0 && i < sizeof ends / sizeof *ends; i++)
        rules->eos = lemon__special_named(hf->t, ends[i], strlen(ends[i]));
}

/*  Enters a node under an id, which can be no larger than there are bytes in the file. */
static lemon_status lemon__hf_enter(lemon__hf *hf, int32_t id_node, int32_t node, const char *field) {
    int64_t id;
    if (!lemon__json_int(&hf->json, id_node, &id) || id < 0 || id >= hf->most)
        return lemon__fail(hf->ctx, LEMON_E_FORMAT, "%s: an id in %s is not a number from 0 to %lld; " LEMON__DAMAGED,
                           hf->json.name, field, (long long)hf->most - 1);
    if (hf->node_of[id] == 0 || (node < 0 && hf->node_of[id] > 0)) hf->node_of[id] = node;
    hf->size = lemon__max(hf->size, id + 1);
    return LEMON_OK;
}

/*  A piece is special if added_tokens says so, else one of the vocabulary; ids without either are unused. */
static lemon_status lemon__hf_piece(lemon__hf *hf, int64_t id, const uint8_t *unknown, size_t n_unknown) {
    int32_t node = hf->node_of[id], added = node < 0 ? -node : 0,
            name = added ? lemon__json_get(&hf->json, added, "content") : node;
    int kind = name == 0 ? LEMON__UNUSED : LEMON__NORMAL;
    size_t n = 0;
    const uint8_t *text = name == 0 ? (const uint8_t *)"" : lemon__json_string(&hf->json, name, &n);
    if (text == NULL && lemon__json_type_of(&hf->json, name) == LEMON__JSON_STRING) return LEMON_E_MEMORY;
    if (text == NULL)
        return lemon__fail(hf->ctx, LEMON_E_FORMAT, "%s: the name of token %lld is no text; " LEMON__DAMAGED,
                           hf->json.name, (long long)id);
    if (unknown && n == n_unknown && memcmp(text, unknown, n) == 0) {
        hf->t->rules.unknown = (int32_t)id;
        if (added) kind = LEMON__UNKNOWN;
    } else if (added) kind = lemon__hf_true(hf, added, "special") ? LEMON__CONTROL : LEMON__ADDED;
    else if (!hf->t->rules.split && lemon__byte_of(text, n) >= 0) kind = LEMON__BYTE;
    if (added && lemon__hf_true(hf, added, "single_word"))
        return lemon__hf_refuse(hf, added, "single_word of an added token", "false");
    if (added && lemon__hf_true(hf, added, "lstrip")) kind |= LEMON__STRIP_LEFT;
    if (added && lemon__hf_true(hf, added, "rstrip")) kind |= LEMON__STRIP_RIGHT;
    return lemon__tokenizer_spell(hf->ctx, hf->t, kind, 0.0f, text, n);
}

static lemon_status lemon__hf_pieces(lemon__hf *hf, int32_t vocab, int32_t unknown) {
    int32_t added = lemon__json_get(&hf->json, 0, "added_tokens");
    size_t n;
    const uint8_t *name = lemon__json_string(&hf->json, unknown, &n);
    lemon_status status = LEMON_OK;
    for (int32_t i = vocab + 1; i < hf->json.nodes[vocab].next && !status; i = hf->json.nodes[i + 1].next)
        status = lemon__hf_enter(hf, i + 1, i, "model.vocab");
    for (int32_t i = added + 1; added >= 0 && i < hf->json.nodes[added].next && !status; i = hf->json.nodes[i].next)
        status = lemon__hf_enter(hf, lemon__json_get(&hf->json, i, "id"), -i, "added_tokens");
    for (int64_t id = 0; id < hf->size && !status; id++) status = lemon__hf_piece(hf, id, n > 0 ? name : NULL, n);
    return status;
}

/*  Merges are "left right", or in newer files ["left", "right"]. */
static lemon_status lemon__hf_merges(lemon__hf *hf, int32_t merges) {
    lemon_status status = LEMON_OK;
    for (int32_t i = merges + 1; i < hf->json.nodes[merges].next && !status; i = hf->json.nodes[i].next) {
        int pair = hf->json.nodes[i].type == LEMON__JSON_ARRAY && hf->json.nodes[i].next == i + 3;
        size_t n, m;
        const uint8_t *left = lemon__json_string(&hf->json, pair ? i + 1 : i, &n);
        const uint8_t *right = lemon__json_string(&hf->json, pair ? i + 2 : i, &m);
        if ((left == NULL && lemon__json_type_of(&hf->json, pair ? i + 1 : i) == LEMON__JSON_STRING) ||
            (right == NULL && lemon__json_type_of(&hf->json, pair ? i + 2 : i) == LEMON__JSON_STRING))
            return LEMON_E_MEMORY;
        status = pair ? lemon__tokenizer_merge(hf->ctx, hf->t, hf->json.name, left, n, right, m)
                      : lemon__tokenizer_merge_text(hf->ctx, hf->t, hf->json.name, left, n);
    }
    return status;
}

static lemon_status lemon__hf_model(lemon__hf *hf) {
    static const char *const absent[] = {"dropout", "continuing_subword_prefix", "end_of_word_suffix"};
    int32_t model = lemon__json_get(&hf->json, 0, "model"), vocab = lemon__json_get(&hf->json, model, "vocab"),
            merges = lemon__json_get(&hf->json, model, "merges"), i, node;
    /* the oldest files, GPT-2's among them, do not name the type, but no other type has merges */
    if (!lemon__hf_is(hf, model, "BPE") && (lemon__json_get(&hf->json, model, "type") >= 0 || merges < 0))
        return lemon__hf_refuse(hf, model, "model", "\"BPE\"");
    for (i = 0; i < 3; i++) {
        node = lemon__json_get(&hf->json, model, absent[i]);
        if (lemon__json_type_of(&hf->json, node) > LEMON__JSON_NULL && hf->json.nodes[node].bytes > 0)
            return lemon__hf_refuse(hf, node, absent[i], "null");
    }
    if (!hf->t->rules.split && !(hf->t->rules.blank_mark && lemon__hf_true(hf, model, "byte_fallback")))
        return lemon__hf_refuse(hf, -1, "pre_tokenizer \"ByteLevel\"",
                                "that, or byte_fallback and blanks as U+2581 as LLaMA has them");
    if (lemon__json_type_of(&hf->json, vocab) != LEMON__JSON_OBJECT)
        return lemon__hf_refuse(hf, vocab, "model.vocab", "an object of pieces and their ids");
    if (lemon__json_type_of(&hf->json, merges) != LEMON__JSON_ARRAY)
        return lemon__hf_refuse(hf, merges, "model.merges", "a list of pairs");
    hf->t->rules.whole_words = lemon__hf_true(hf, model, "ignore_merges");
    lemon_status status = lemon__hf_pieces(hf, vocab, lemon__json_get(&hf->json, model, "unk_token"));
    return status ? status : lemon__hf_merges(hf, merges);
}

static lemon_status lemon__hf_parse(lemon__hf *hf, int32_t vocab_size) {
    static const lemon__rules fresh = {0, 0, 0, 1, 0, 0, 0, 0, -1, -1, -1};
    hf->t->rules = fresh;
    lemon_status status = lemon__hf_steps(hf, "normalizer", "normalizers", lemon__hf_normalizer);
    if (!status) status = lemon__hf_steps(hf, "pre_tokenizer", "pretokenizers", lemon__hf_pre_tokenizer);
    if (!status) status = lemon__hf_steps(hf, "decoder", "decoders", lemon__hf_decoder);
    if (!status) status = lemon__hf_model(hf);
    if (!status && vocab_size > 0 && hf->size > vocab_size)
        status = lemon__fail(hf->ctx, LEMON_E_FORMAT, "%s: the largest id is %lld, expected at most %ld (vocab_size - "
                             "1); it belongs to another model", hf->json.name, (long long)hf->size - 1, (long)vocab_size - 1);
    if (!status) status = lemon__tokenizer_finish(hf->ctx, hf->json.name, hf->t);
    if (!status) status = lemon__hf_steps(hf, "post_processor", "processors", lemon__hf_post_processor);
    if (!status) lemon__hf_ends(hf);
    return status;
}

static lemon_status lemon__hf_load(lemon_ctx *ctx, const lemon_reader *reader, int32_t vocab_size, lemon_tokenizer *t) {
    lemon__hf hf;
    memset(&hf, 0, sizeof hf);
    hf.ctx = ctx;
    hf.t = t;
    lemon_status status = lemon__json_parse(ctx, reader->name, reader->map, (size_t)reader->size, &hf.json);
    if (status) return status;
    hf.most = lemon__min((int64_t)reader->size / 4, LEMON__MAX_PIECES);     /* "":0 takes four bytes */
    size_t bytes = (size_t)hf.most * sizeof *hf.node_of;
    hf.node_of = (int32_t *)lemon__calloc(ctx, bytes);
    status = hf.node_of ? lemon__hf_parse(&hf, vocab_size) : LEMON_E_MEMORY;
    lemon__free(ctx, hf.node_of, bytes);
    lemon__json_close(&hf.json);
    return status;
}

/* ---- files: SentencePiece's tokenizer.model, a protocol buffer: fields, each a number of its own and a value ---- */

/*  One field; where the value is bytes, `value` is how many. */
typedef struct lemon__proto {
    uint64_t number, value;
    lemon__cursor bytes;
} lemon__proto;

/*  Seven bits a byte, the lowest first; the last byte is below 128. */
static uint64_t lemon__take_varint(lemon__cursor *c) {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        const uint8_t *p = lemon__take(c, 1);
        if (p == NULL) return 0;
        value |= (uint64_t)(*p & 127) << shift;
        if (*p < 128) return value;
    }
    c->bad = 1;
    return 0;
}

/*  0: there is no other field, or it is damaged (c->bad). */
static int lemon__proto_next(lemon__cursor *c, lemon__proto *f) {
    if (c->bad || c->at == c->size) return 0;
    uint64_t tag = lemon__take_varint(c);
    f->number = tag >> 3;
    f->value = (tag & 7) == 1 ? lemon__take64(c) : (tag & 7) == 5 ? lemon__take32(c) : lemon__take_varint(c);
    const uint8_t *p = (tag & 7) == 2 && f->value <= c->size ? lemon__take(c, (size_t)f->value) : NULL;
    f->bytes = lemon__cursor_at(p, p ? (size_t)f->value : 0);
    if (f->number == 0 || (p == NULL && (tag & 7) != 0 && (tag & 7) != 1 && (tag & 7) != 5)) c->bad = 1;
    return !c->bad;
}

/*  What a file says of itself besides its pieces: the message and the field in which it stands, what holds where it
    does not, and what is asked for; -1: nothing. */
enum { LEMON__SP_PREFIX, LEMON__SP_UNKNOWN, LEMON__SP_BOS, LEMON__SP_EOS };
static const struct { uint64_t part, field; int32_t fallback, expected; const char *name; } lemon__sp_fields[] = {
    {3, 3, 1, -1, "normalizer_spec.add_dummy_prefix"},
    {2, 40, 0, -1, "trainer_spec.unk_id"},
    {2, 41, 1, -1, "trainer_spec.bos_id"},
    {2, 42, 2, -1, "trainer_spec.eos_id"},
    {2, 3, 1, 2, "trainer_spec.model_type (1 is unigram, 2 BPE, 3 words, 4 characters)"},
    {2, 24, 0, 0, "trainer_spec.treat_whitespace_as_suffix"},
    {3, 2, 0, 0, "size of normalizer_spec.precompiled_charsmap (normalizers like nmt_nfkc have one, identity has not)"},
    {3, 4, 1, 0, "normalizer_spec.remove_extra_whitespaces"},
    {3, 5, 1, 1, "normalizer_spec.escape_whitespaces"},
};
enum { LEMON__SP_FIELDS = sizeof lemon__sp_fields / sizeof *lemon__sp_fields };

static lemon_status lemon__sp_piece(lemon_ctx *ctx, const char *name, lemon__proto piece, lemon_tokenizer *t) {
    lemon__cursor text = lemon__cursor_at("", 0);
    lemon__proto f;
    float score = 0;
    uint64_t kind = LEMON__NORMAL;
    while (lemon__proto_next(&piece.bytes, &f)) {
        if (f.number == 1) text = f.bytes;
        if (f.number == 2) score = lemon__float((uint32_t)f.value);
        if (f.number == 3) kind = f.value;
    }
    if (piece.bytes.bad || kind < LEMON__NORMAL || kind > LEMON__BYTE || t->pieces.count >= LEMON__MAX_PIECES)
        return lemon__fail(ctx, LEMON_E_FORMAT, "%s: piece %lld is none, or one too many; " LEMON__DAMAGED, name,
                           (long long)t->pieces.count);
    return lemon__tokenizer_spell(ctx, t, (int)kind, score, text.bytes, text.size);
}

static lemon_status lemon__sp_load(lemon_ctx *ctx, const lemon_reader *reader, int32_t vocab_size, lemon_tokenizer *t) {
    static const lemon__rules fresh = {0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0};
    lemon__cursor c = lemon__cursor_over(reader);
    lemon__proto part, f;
    int32_t said[LEMON__SP_FIELDS], *ids[] = {&t->rules.unknown, &t->rules.bos, &t->rules.eos};
    lemon_status status = LEMON_OK;
    t->rules = fresh;
    for (int k = 0; k < LEMON__SP_FIELDS; k++) said[k] = lemon__sp_fields[k].fallback;
    while (!status && lemon__proto_next(&c, &part)) {
        if (part.number == 1) status = lemon__sp_piece(ctx, reader->name, part, t);
        while ((part.number == 2 || part.number == 3) && lemon__proto_next(&part.bytes, &f))
            for (int k = 0; k < LEMON__SP_FIELDS; k++)
                if (part.number == lemon__sp_fields[k].part && f.number == lemon__sp_fields[k].field)
                    said[k] = (int32_t)(uint32_t)f.value;
        c.bad |= part.number < 4 && part.bytes.bad;
    }
    if (!status && (c.bad || t->pieces.count == 0))
        return lemon__fail(ctx, LEMON_E_FORMAT, "%s: the file ends within a field, or is damaged; get it anew", reader->name);
    for (int k = 0; k < LEMON__SP_FIELDS && !status; k++)
        if (lemon__sp_fields[k].expected >= 0 && said[k] != lemon__sp_fields[k].expected)
            return lemon__fail(ctx, LEMON_E_UNSUPPORTED, "%s: %s is %ld, expected %ld; lemon.h has no other",
                               reader->name, lemon__sp_fields[k].name, (long)said[k], (long)lemon__sp_fields[k].expected);
    if (!status && vocab_size > 0 && t->pieces.count > vocab_size)
        return lemon__fail(ctx, LEMON_E_FORMAT, "%s: it has %lld pieces, expected at most %ld (vocab_size); it belongs "
                           "to another model", reader->name, (long long)t->pieces.count, (long)vocab_size);
    t->rules.prefix = said[LEMON__SP_PREFIX] ? LEMON__PREFIX_ALWAYS : LEMON__PREFIX_NEVER;
    for (int k = 0; k < 3; k++) *ids[k] = said[k + 1] >= 0 && said[k + 1] < t->pieces.count ? said[k + 1] : -1;
    t->rules.add_bos = t->rules.bos >= 0;
    return status ? status : lemon__tokenizer_finish(ctx, reader->name, t);
}

/* ---- vocabularies in GGUF: tokens as they are spelled, with scores or merges, and their kinds ---- */

/*  How GGUF calls the patterns, by split. */
static const char *const lemon__gguf_patterns[LEMON__SPLIT_COUNT] = {"default",   "gpt-2", "smollm",
                                                                     "llama-bpe", "qwen2", "qwen35"};

/*  An array of `type` as a cursor that stands before its first item; no items where there is none. */
static lemon__cursor lemon__gguf_array(const lemon__unpack *u, const char *name, uint32_t type, int64_t *count) {
    const lemon__key *key = lemon__gguf_key(u, name);
    int array = key && key->type == LEMON__GGUF_ARRAY;
    lemon__cursor c = lemon__cursor_at(array ? key->value : NULL, array ? key->bytes : 0);
    *count = 0;
    if (array && lemon__take32(&c) == type) *count = (int64_t)lemon__take64(&c);
    return c;
}

/*  A number where there is one. */
static int32_t lemon__gguf_id(const lemon__unpack *u, const char *name, int32_t otherwise, int64_t below) {
    double value;
    return lemon__gguf_number(u, name, &value) > 0 && value >= 0 && value < (double)below ? (int32_t)value : otherwise;
}

static lemon_status lemon__gguf_rules(const lemon__unpack *u, int64_t size, lemon__rules *rules) {
    static const lemon__rules fresh = {0, 0, 0, 0, 0, 1, 0, 0, -1, -1, -1};
    int merges = lemon__gguf_is(u, "tokenizer.ggml.model", "gpt2");
    *rules = fresh;
    while (merges && rules->split < LEMON__SPLIT_COUNT &&
           (rules->split == 0 || !lemon__gguf_is(u, "tokenizer.ggml.pre", lemon__gguf_patterns[rules->split])))
        rules->split++;
    if (rules->split == LEMON__SPLIT_COUNT || (!merges && !lemon__gguf_is(u, "tokenizer.ggml.model", "llama")))
        return lemon__refuse(u, LEMON_E_UNSUPPORTED, "tokenizer.ggml.%s is one that lemon.h does not know, expected %s",
                             merges ? "pre" : "model",
                             merges ? "gpt-2, smollm, llama-bpe, qwen2 or qwen35" : "llama, gpt2 or no_vocab");
    lemon__gguf_key(u, "tokenizer.ggml.pre");
    rules->by_merges = merges;
    rules->blank_mark = !merges;
    rules->whole_words = rules->split == LEMON__SPLIT_LLAMA3;
    rules->nfc = rules->split >= LEMON__SPLIT_QWEN2;
    int bos = !merges || rules->split == LEMON__SPLIT_LLAMA3;
    rules->add_bos = lemon__gguf_id(u, "tokenizer.ggml.add_bos_token", bos, 2);
    rules->prefix = lemon__gguf_id(u, "tokenizer.ggml.add_space_prefix", !merges, 2)
                        ? (merges ? LEMON__PREFIX_MISSING : LEMON__PREFIX_ALWAYS) : LEMON__PREFIX_NEVER;
    rules->bos = lemon__gguf_id(u, "tokenizer.ggml.bos_token_id", merges ? -1 : LEMON__BOS, size);
    rules->eos = lemon__gguf_id(u, "tokenizer.ggml.eos_token_id", merges ? -1 : LEMON__EOS, size);
    rules->unknown = lemon__gguf_id(u, "tokenizer.ggml.unknown_token_id", merges ? -1 : 0, size);
    return LEMON_OK;
}

static lemon_status lemon__gguf_pieces(const lemon__unpack *u, lemon_tokenizer *t) {
    int64_t n, n_scores, n_kinds, n_merges;
    lemon__cursor tokens = lemon__gguf_array(u, "tokenizer.ggml.tokens", LEMON__GGUF_TEXT, &n);
    lemon__cursor scores = lemon__gguf_array(u, "tokenizer.ggml.scores", LEMON__GGUF_F32, &n_scores);
    lemon__cursor kinds = lemon__gguf_array(u, "tokenizer.ggml.token_type", LEMON__GGUF_I32, &n_kinds);
    lemon__cursor merges = lemon__gguf_array(u, "tokenizer.ggml.merges", LEMON__GGUF_TEXT, &n_merges);
    lemon_status status = lemon__gguf_rules(u, n, &t->rules);
    size_t bytes;
    for (int64_t i = 0; i < n && !status; i++) {
        const uint8_t *piece = lemon__take_text(&tokens, &bytes);
        float score = i < n_scores ? lemon__float(lemon__take32(&scores)) : 0.0f;
        uint32_t kind = i < n_kinds ? lemon__take32(&kinds) : (uint32_t)LEMON__NORMAL;
        if (kind < LEMON__NORMAL || kind > LEMON__BYTE || n > LEMON__MAX_PIECES)
            return lemon__refuse(u, LEMON_E_FORMAT, "token_type of token %lld is %lu, expected 1 to 6", (long long)i,
                                 (unsigned long)kind);
        status = lemon__tokenizer_spell(u->ctx, t, (int)kind, score, piece, bytes);
    }
    while (!status && t->pieces.count > 0 && t->kinds[t->pieces.count - 1] == LEMON__UNUSED)
        t->blob_bytes = (int64_t)t->pieces.spans[--t->pieces.count].start;  /* they only fill up the vocabulary */
    for (int64_t i = 0; i < n_merges && t->rules.by_merges && !status; i++) {
        const uint8_t *text = lemon__take_text(&merges, &bytes);
        status = lemon__tokenizer_merge_text(u->ctx, t, u->source.name, text, bytes);
    }
    return status ? status : lemon__tokenizer_finish(u->ctx, u->source.name, t);
}

static lemon_status lemon__tokenizer_from_gguf(const lemon__unpack *u, lemon_tokenizer **tokenizer) {
    *tokenizer = NULL;
    if (lemon__words_find(&u->key_names, "tokenizer.ggml.model", 20) < 0 ||
        lemon__gguf_is(u, "tokenizer.ggml.model", "no_vocab"))
        return LEMON_OK;
    lemon_status status = lemon__tokenizer_new(u->ctx, tokenizer);
    if (!status) status = lemon__gguf_pieces(u, *tokenizer);
    return lemon__tokenizer_done(u->ctx, status, tokenizer);
}

/*  Appends a piece as files spell it, right >= 0: two with a blank between, as merges are written.  Only normal ones are
    spelled otherwise than they are, but llama2.c's BOS and EOS have line ends around them that others do not know. */
static void lemon__put_spelling(lemon__bytes *out, const lemon_tokenizer *t, int32_t left, int32_t right) {
    int kind = t->kinds[left] & LEMON__KIND;
    size_t n;
    const uint8_t *piece = lemon__piece(t, left, &n);
    uint8_t *to = lemon__put_room(out, 3 * n);
    if (to == NULL) return;
    if (t->rules.llama2c && kind == LEMON__CONTROL && n > 2 && *piece == '\n') { piece++; n -= 2; }
    for (size_t i = 0; i < n; i++) {
        if (kind == LEMON__NORMAL && t->rules.split) to += lemon__utf8_put(to, lemon__letter_of(piece[i]));
        else if (kind == LEMON__NORMAL && piece[i] == ' ') to += lemon__utf8_put(to, 0x2581);
        else *to++ = piece[i];
    }
    out->count = to - out->data;
    if (right < 0) return;
    lemon__put(out, " ", 1);
    lemon__put_spelling(out, t, right, -1);
}

/*  The same behind its length; an id without a piece gets a name that no text spells. */
static void lemon__gguf_put_spelling(lemon__bytes *b, const lemon_tokenizer *t, int32_t left, int32_t right) {
    lemon__put_number(b, 0, 8);
    const int64_t from = b->count;
    if (left < lemon_tokenizer_size(t) && ((t->kinds[left] & LEMON__KIND) != LEMON__UNUSED || t->pieces.spans[left].bytes > 0))
        lemon__put_spelling(b, t, left, right);
    else lemon__print(b, "[PAD%ld]", (long)left);
    if (!b->status) lemon__put64(b->data + from - 8, (uint64_t)(b->count - from));
}

/*  The keys of a vocabulary, for all ids of the model. */
static void lemon__tokenizer_to_gguf(lemon__pack *pack, const lemon_tokenizer *t, int32_t vocab_size) {
    static const char *const keys[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                                       "tokenizer.ggml.unknown_token_id"};
    const int32_t ids[] = {t->rules.bos, t->rules.eos, t->rules.unknown};
    lemon__bytes *b = &pack->keys;
    int32_t size = lemon_tokenizer_size(t);
    const char *model = t->rules.split ? "gpt2" : "llama", *pattern = lemon__gguf_patterns[t->rules.split];
    lemon__gguf_put_text(pack, "tokenizer.ggml.model", model, strlen(model));
    lemon__gguf_put_text(pack, "tokenizer.ggml.pre", pattern, strlen(pattern));
    lemon__gguf_put_array(pack, "tokenizer.ggml.tokens", LEMON__GGUF_TEXT, (uint64_t)vocab_size);
    for (int32_t id = 0; id < vocab_size; id++) lemon__gguf_put_spelling(b, t, id, -1);
    if (!t->rules.split) {
        lemon__gguf_put_array(pack, "tokenizer.ggml.scores", LEMON__GGUF_F32, (uint64_t)vocab_size);
        for (int32_t id = 0; id < vocab_size; id++) lemon__put_number(b, lemon__bits(id < size ? t->scores[id] : 0.0f), 4);
    }
    lemon__gguf_put_array(pack, "tokenizer.ggml.token_type", LEMON__GGUF_I32, (uint64_t)vocab_size);
    for (int32_t id = 0; id < vocab_size; id++)
        lemon__put_number(b, id < size ? t->kinds[id] & LEMON__KIND : LEMON__UNUSED, 4);
    if (t->rules.split) {
        lemon__gguf_put_array(pack, "tokenizer.ggml.merges", LEMON__GGUF_TEXT, (uint64_t)t->pairs.count);
        for (int64_t i = 0; i < t->pairs.count; i++) lemon__gguf_put_spelling(b, t, t->merges[i].left, t->merges[i].right);
    }
    for (int64_t i = 0; i < 3; i++)
        if (ids[i] >= 0) lemon__gguf_put(pack, keys[i], LEMON__GGUF_U32, (uint64_t)ids[i]);
    lemon__gguf_put(pack, "tokenizer.ggml.add_bos_token", LEMON__GGUF_BOOL, t->rules.add_bos && t->rules.bos >= 0);
    lemon__gguf_put(pack, "tokenizer.ggml.add_space_prefix", LEMON__GGUF_BOOL, t->rules.prefix != LEMON__PREFIX_NEVER);
}

/* ---- vocabularies of Hugging Face folders, in and out ---- */

/*  Tokens that were added to a tokenizer.model stand in added_tokens.json by their ids, which go on from its own. */
static lemon_status lemon__tokenizer_added(lemon_ctx *ctx, const lemon_part *part, lemon_tokenizer *t) {
    int64_t base = t->pieces.count, id;
    lemon__json json;
    int32_t *names, i;
    if (part == NULL) return LEMON_OK;
    lemon_status status = lemon__json_parse(ctx, part->name, part->data, part->bytes, &json);
    if (status) return status;
    names = (int32_t *)lemon__calloc(ctx, (size_t)json.count * sizeof *names);
    if (names == NULL) status = LEMON_E_MEMORY;
    for (i = 1; names && json.nodes[0].type == LEMON__JSON_OBJECT && i < json.nodes[0].next; i = json.nodes[i + 1].next)
        if (lemon__json_int(&json, i + 1, &id) && id >= base && id - base < json.count) names[id - base] = i;
    for (int64_t k = 0; !status && k < json.count && names[k] > 0; k++) {
        size_t n;
        const uint8_t *text = lemon__json_string(&json, names[k], &n);
        status = text ? lemon__tokenizer_spell(ctx, t, LEMON__CONTROL, 0.0f, text, n) : LEMON_E_MEMORY;
    }
    lemon__free(ctx, names, (size_t)json.count * sizeof *names);
    lemon__json_close(&json);
    t->n_specials = 0;
    return status ? status : lemon__tokenizer_specials(ctx, t);
}

/*  The tokenizer.json or tokenizer.model that came with a model. */
static lemon_status lemon__tokenizer_of_folder(lemon_ctx *ctx, lemon_model *model) {
    const lemon_part *json = lemon__part_find(model, "tokenizer.json"),
                     *part = json ? json : lemon__part_find(model, "tokenizer.model");
    if (part == NULL) return LEMON_OK;
    const lemon_reader reader = {NULL, part->name, part->bytes, (const uint8_t *)part->data, NULL, NULL};
    lemon_status status = lemon_tokenizer_load_reader(ctx, &reader, model->config.vocab_size, &model->tokenizer);
    if (status || json) return status;
    return lemon__tokenizer_added(ctx, lemon__part_find(model, "added_tokens.json"), model->tokenizer);
}

/*  A file that a model carries along as JSON; of one that is not there nothing is known. */
static lemon_status lemon__part_json(lemon_ctx *ctx, const lemon_model *model, const char *name, lemon__json *json) {
    const lemon_part *part = lemon__part_find(model, name);
    memset(json, 0, sizeof *json);
    return part ? lemon__json_parse(ctx, part->name, part->data, part->bytes, json) : LEMON_OK;
}

/*  Which ids begin and end a text config.json knows better, and tokenizer_config.json whether BOS is added; one that is
    damaged says nothing. */
static lemon_status lemon__tokenizer_from_parts(lemon_ctx *ctx, const char *folder, lemon_model *model) {
    lemon_status status = lemon__tokenizer_of_folder(ctx, model);
    lemon_tokenizer *t = model->tokenizer;
    lemon__json json;
    int64_t id;
    if (status || t == NULL) return status && status != LEMON_E_MEMORY ? lemon__blame(ctx, folder, status) : status;
    status = lemon__part_json(ctx, model, "tokenizer_config.json", &json);
    if (status == LEMON_E_MEMORY) return status;
    if (!t->rules.by_merges && lemon__json_type_of(&json, lemon__json_get(&json, 0, "add_bos_token")) == LEMON__JSON_FALSE)
        t->rules.add_bos = 0;
    lemon__json_close(&json);
    status = lemon__part_json(ctx, model, "config.json", &json);
    if (lemon__json_int(&json, lemon__json_get(&json, 0, "bos_token_id"), &id) && id >= 0 && id < t->pieces.count &&
        t->rules.bos < 0)
        t->rules.bos = (int32_t)id;
    int32_t node = lemon__json_get(&json, 0, "eos_token_id");
    if (lemon__json_type_of(&json, node) == LEMON__JSON_ARRAY) node++;
    if (lemon__json_int(&json, node, &id) && id >= 0 && id < t->pieces.count) t->rules.eos = (int32_t)id;
    lemon__json_close(&json);
    return status;
}

typedef struct lemon__scored { float score; lemon__merge merge; } lemon__scored;

/*  Merges in the order in which they are to be tried: pieces of better score first, of one piece those of lower ids. */
static int lemon__scored_order(const void *a, const void *b) {
    const lemon__scored *x = (const lemon__scored *)a, *y = (const lemon__scored *)b;
    if (x->score > y->score || x->score < y->score) return x->score > y->score ? -1 : 1;
    if (x->merge.left != y->merge.left) return x->merge.left < y->merge.left ? -1 : 1;
    return x->merge.right < y->merge.right ? -1 : x->merge.right > y->merge.right;
}

/*  Every way in which a piece is two pieces joined, where only scores are known. */
static void lemon__scored_merges(const lemon_tokenizer *t, lemon__bytes *out) {
    for (int32_t id = 0; id < lemon_tokenizer_size(t); id++) {
        size_t n;
        const uint8_t *piece = lemon__piece(t, id, &n);
        for (size_t k = 1; k < n && t->kinds[id] == LEMON__NORMAL; k++) {
            const lemon__scored s = {t->scores[id], {lemon__words_find(&t->pieces, piece, k),
                                                     lemon__words_find(&t->pieces, piece + k, n - k), id}};
            if (s.merge.left >= 0 && s.merge.right >= 0) lemon__put(out, &s, sizeof s);
        }
    }
    if (!out->status && out->count > 0)
        qsort(out->data, (size_t)out->count / sizeof(lemon__scored), sizeof(lemon__scored), lemon__scored_order);
}

/*  The same in quotes. */
static void lemon__print_piece(lemon__bytes *out, const lemon_tokenizer *t, int32_t left, int32_t right) {
    lemon__bytes piece = lemon__bytes_in(out->ctx);
    lemon__put_spelling(&piece, t, left, right);
    lemon__print_string(out, piece.data, (size_t)piece.count);
    if (piece.status) out->status = piece.status;
    lemon__bytes_free(&piece);
}

#define LEMON__BLANK "\xe2\x96\x81"        /* U+2581 */

/*  The steps before and behind the model: LLaMA's with blanks as U+2581 ... */
static void lemon__json_sentencepiece(lemon__bytes *out, int prefix) {
    static const char replace[] = "{\"type\": \"Replace\", \"pattern\": {\"String\": \"%s\"}, \"content\": \"%s\"}";
    lemon__print(out, "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [%s", prefix != LEMON__PREFIX_ALWAYS ? "" :
                 "{\"type\": \"Prepend\", \"prepend\": \"" LEMON__BLANK "\"}, ");
    lemon__print(out, replace, " ", LEMON__BLANK);
    lemon__print(out, "]},\n\"pre_tokenizer\": ");
    if (prefix <= LEMON__PREFIX_ALWAYS) lemon__print(out, "null");
    else lemon__print(out, "{\"type\": \"Metaspace\", \"replacement\": \"" LEMON__BLANK "\", \"prepend_scheme\": \"%s\", "
                           "\"split\": false}", prefix == LEMON__PREFIX_FIRST ? "first" : "always");
    lemon__print(out, ",\n\"decoder\": {\"type\": \"Sequence\", \"decoders\": [");
    lemon__print(out, replace, LEMON__BLANK, " ");
    lemon__print(out, ", {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}%s]},\n",
                 prefix ? ", {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}" : "");
}

static const char *lemon__json_bool(int value) { return value ? "true" : "false"; }

/*  ... or GPT-2's alphabet behind a pattern, which for GPT-2's own is part of the last step. */
static void lemon__json_byte_level(lemon__bytes *out, const lemon__rules *rules) {
    int own = rules->split <= LEMON__SPLIT_DIGITS;
    size_t i = 0;
    lemon__print(out, "\"normalizer\": %s,\n\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [",
                 rules->nfc ? "{\"type\": \"NFC\"}" : "null");
    if (rules->split == LEMON__SPLIT_DIGITS) lemon__print(out, "{\"type\": \"Digits\", \"individual_digits\": true}, ");
    while (!own && lemon__patterns[i].split != rules->split) i++;
    if (!own) {
        lemon__print(out, "{\"type\": \"Split\", \"pattern\": {\"Regex\": ");
        lemon__print_string(out, (const uint8_t *)lemon__patterns[i].regex, strlen(lemon__patterns[i].regex));
        lemon__print(out, "}, \"behavior\": \"Isolated\", \"invert\": false}, ");
    }
    lemon__print(out, "{\"type\": \"ByteLevel\", \"add_prefix_space\": %s, \"trim_offsets\": true, \"use_regex\": %s}"
                      "]},\n\"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, "
                      "\"use_regex\": true},\n", lemon__json_bool(rules->prefix), lemon__json_bool(own));
}

/*  BOS before a text, and before each of a pair. */
static void lemon__json_template(lemon__bytes *out, const lemon_tokenizer *t) {
    static const char *const parts[] = {
        "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": ",
        ", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}], \"pair\": [{\"SpecialToken\": {\"id\": ",
        ", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, {\"SpecialToken\": {\"id\": ",
        ", \"type_id\": 1}}, {\"Sequence\": {\"id\": \"B\", \"type_id\": 1}}], \"special_tokens\": {", ": {\"id\": ",
        ", \"tokens\": ["};
    int added = t->rules.add_bos && t->rules.bos >= 0;
    for (int k = 0; k < 6 && added; k++) {
        lemon__print(out, "%s", parts[k]);
        lemon__print_piece(out, t, t->rules.bos, -1);
    }
    if (added) lemon__print(out, "], \"ids\": [%ld]}}},\n", (long)t->rules.bos);
    else lemon__print(out, "\"post_processor\": null,\n");
}

static void lemon__tokenizer_to_json(const lemon_tokenizer *t, lemon__bytes *out) {
    lemon__bytes scored = lemon__bytes_in(out->ctx);
    int32_t id, size = lemon_tokenizer_size(t), n = 0;
    if (!t->rules.by_merges) lemon__scored_merges(t, &scored);
    if (scored.status) out->status = scored.status;
    int64_t n_merges = t->rules.by_merges ? t->pairs.count : scored.count / (int64_t)sizeof(lemon__scored);
    lemon__print(out, "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [");
    for (id = 0; id < size; id++) {
        int kind = t->kinds[id] & LEMON__KIND;
        if (kind != LEMON__CONTROL && kind != LEMON__ADDED && kind != LEMON__UNKNOWN) continue;
        lemon__print(out, "%s\n  {\"id\": %ld, \"content\": ", n++ ? "," : "", (long)id);
        lemon__print_piece(out, t, id, -1);
        lemon__print(out, ", \"single_word\": false, \"lstrip\": %s, \"rstrip\": %s, \"normalized\": false, "
                          "\"special\": %s}", lemon__json_bool(t->kinds[id] & LEMON__STRIP_LEFT),
                     lemon__json_bool(t->kinds[id] & LEMON__STRIP_RIGHT), lemon__json_bool(kind != LEMON__ADDED));
    }
    lemon__print(out, "],\n");
    if (t->rules.split) lemon__json_byte_level(out, &t->rules);
    else lemon__json_sentencepiece(out, t->rules.prefix);
    lemon__json_template(out, t);
    lemon__print(out, "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": ");
    if (t->rules.unknown >= 0) lemon__print_piece(out, t, t->rules.unknown, -1);
    else lemon__print(out, "null");
    lemon__print(out, ", \"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, \"fuse_unk\": %s, "
                      "\"byte_fallback\": %s, \"ignore_merges\": %s, \"vocab\": {", lemon__json_bool(!t->rules.split),
                 lemon__json_bool(!t->rules.split), lemon__json_bool(t->rules.whole_words));
    for (id = 0, n = 0; id < size; id++) {
        if ((t->kinds[id] & LEMON__KIND) == LEMON__UNUSED) continue;
        lemon__print(out, n++ ? ",\n  " : "\n  ");
        lemon__print_piece(out, t, id, -1);
        lemon__print(out, ": %ld", (long)id);
    }
    lemon__print(out, "},\n\"merges\": [");
    for (int64_t i = 0; i < n_merges && !out->status; i++) {
        lemon__scored s;
        if (t->rules.by_merges) s.merge = t->merges[i];
        else memcpy(&s, scored.data + (size_t)i * sizeof s, sizeof s);
        lemon__print(out, i ? ",\n  " : "\n  ");
        lemon__print_piece(out, t, s.merge.left, s.merge.right);
    }
    lemon__print(out, "]}}\n");
    lemon__bytes_free(&scored);
}

/*  What goes with a vocabulary, as tokenizer_config.json calls it and GGUF; from the third on tokens, by text and by id.  A
    key that has no name there goes through such a file by the name that GGUF has for it. */
static const char *const lemon__tags[][2] = {
    {"chat_template", "tokenizer.chat_template"}, {"add_eos_token", "tokenizer.ggml.add_eos_token"},
    {"pad_token", "tokenizer.ggml.padding_token_id"}, {"sep_token", "tokenizer.ggml.seperator_token_id"},
    {"cls_token", "tokenizer.ggml.cls_token_id"}, {"mask_token", "tokenizer.ggml.mask_token_id"}};
enum { LEMON__TAGS = sizeof lemon__tags / sizeof *lemon__tags };

/*  A key that came with a GGUF file as a member of tokenizer_config.json; lists have no place there. */
static void lemon__tag_to_config(const lemon_tokenizer *t, const lemon__key *key, lemon__bytes *out) {
    uint32_t number = key->type == LEMON__GGUF_U32 ? lemon__get32(key->value) : 0;
    int k = 0;
    while (k < LEMON__TAGS && !lemon__key_is(key, lemon__tags[k][1])) k++;
    int id = k > 1 && k < LEMON__TAGS;
    if ((key->type != LEMON__GGUF_U32 && key->type != LEMON__GGUF_BOOL && key->type != LEMON__GGUF_TEXT) ||
        (id && (key->type != LEMON__GGUF_U32 || number >= (uint32_t)lemon_tokenizer_size(t))))
        return;
    lemon__print(out, ",\n  ");
    lemon__print_string(out, k < LEMON__TAGS ? (const uint8_t *)lemon__tags[k][0] : key->name,
                        k < LEMON__TAGS ? strlen(lemon__tags[k][0]) : key->name_bytes);
    lemon__print(out, ": ");
    if (id) lemon__print_piece(out, t, (int32_t)number, -1);
    else if (key->type == LEMON__GGUF_TEXT) lemon__print_string(out, key->value + 8, key->bytes - 8);
    else if (key->type == LEMON__GGUF_BOOL) lemon__print(out, "%s", lemon__json_bool(*key->value));
    else lemon__print(out, "%lu", (unsigned long)number);
}

/*  The texts of BOS, EOS and unknown, and what came along. */
static void lemon__tokenizer_to_config(const lemon_model *model, lemon__bytes *out) {
    const lemon_tokenizer *t = model->tokenizer;
    const lemon_part *part = lemon__part_find(model, "gguf.tokenizer");
    const struct { const char *name; int32_t id; } ends[] = {
        {"bos_token", t->rules.bos}, {"eos_token", t->rules.eos}, {"unk_token", t->rules.unknown}};
    lemon__cursor c = lemon__cursor_at(part ? part->data : NULL, part ? part->bytes : 0);
    lemon__key key;
    lemon__print(out, "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\"");
    for (size_t i = 0; i < 3; i++) {
        if (ends[i].id < 0) continue;
        lemon__print(out, ",\n  \"%s\": ", ends[i].name);
        lemon__print_piece(out, t, ends[i].id, -1);
    }
    while (lemon__gguf_next(&c, &key)) lemon__tag_to_config(t, &key, out);
    lemon__print(out, ",\n  \"add_bos_token\": %s,\n  \"clean_up_tokenization_spaces\": false,\n  \"model_max_length\": "
                 "%ld\n}\n", lemon__json_bool(t->rules.add_bos && t->rules.bos >= 0), (long)model->config.max_seq);
}

/*  A token is a text, or an object that has it as "content"; of several chat templates the first is taken. */
static int32_t lemon__tag_value(const lemon__json *json, int32_t node) {
    lemon__json_type type = lemon__json_type_of(json, node);
    return type == LEMON__JSON_OBJECT  ? lemon__json_get(json, node, "content")
           : type == LEMON__JSON_ARRAY ? lemon__json_get(json, node + 1, "template")
                                       : node;
}

/*  The other way: member i of tokenizer_config.json as a key. */
static void lemon__tag_to_gguf(lemon__pack *pack, const lemon_tokenizer *t, lemon__json *json, int32_t i) {
    int32_t node = lemon__tag_value(json, i + 1);
    lemon__json_type type = lemon__json_type_of(json, node);
    const lemon__json_node *own = &json->nodes[i];
    char name[LEMON__NAME];
    size_t n;
    const uint8_t *text = lemon__json_string(json, node, &n);
    int64_t number = -1;
    int k = 0;
    while (k < LEMON__TAGS && !lemon__json_is(json, i, lemon__tags[k][0])) k++;
    if (k == LEMON__TAGS && (own->bytes < 11 || memcmp(json->text + own->start, "tokenizer.", 10) != 0 ||
                             !lemon__name_ok(json->text + own->start, own->bytes)))
        return;
    if (k < LEMON__TAGS) lemon__format(name, sizeof name, "%s", lemon__tags[k][1]);
    else lemon__format(name, sizeof name, "%.*s", (int)own->bytes, (const char *)json->text + own->start);
    if (type == LEMON__JSON_STRING && text == NULL) pack->status = LEMON_E_MEMORY;
    else if (k > 1 && k < LEMON__TAGS) number = text ? lemon_tokenizer_find(t, (const char *)text, n) : -1;
    else if (text) lemon__gguf_put_text(pack, name, (const char *)text, n);
    else if (type == LEMON__JSON_TRUE || type == LEMON__JSON_FALSE)
        lemon__gguf_put(pack, name, LEMON__GGUF_BOOL, type == LEMON__JSON_TRUE);
    else if (!lemon__json_int(json, node, &number)) return;
    if (number >= 0 && number <= UINT32_MAX) lemon__gguf_put(pack, name, LEMON__GGUF_U32, (uint64_t)number);
}

static void lemon__tags_to_gguf(lemon__pack *pack, const lemon_model *model) {
    const lemon_part *chat = lemon__part_find(model, "chat_template.jinja");
    lemon__json json;
    if (chat) lemon__gguf_put_text(pack, lemon__tags[0][1], (const char *)chat->data, chat->bytes);
    if (lemon__part_json(pack->ctx, model, "tokenizer_config.json", &json) == LEMON_E_MEMORY) pack->status = LEMON_E_MEMORY;
    if (lemon__json_type_of(&json, 0) == LEMON__JSON_OBJECT)
        for (int32_t i = 1; i < json.nodes[0].next; i = json.nodes[i + 1].next)
            lemon__tag_to_gguf(pack, model->tokenizer, &json, i);
    lemon__json_close(&json);
}

/* ---- loading: the content decides ---- */

/*  Whether a brace and a quote stand there; llama2.c's file begins with a small number, which has zeros. */
static int lemon__looks_like_json(const uint8_t *p, size_t n) {
    size_t i, braces = 0;
    for (i = 0; i < n && (lemon__is_space((char)p[i]) || (p[i] == '{' && braces == 0)); i++) braces += p[i] == '{';
    return i < n && p[i] == '"' && braces;
}

LEMON_API lemon_status lemon_tokenizer_load_reader(lemon_ctx *ctx, const lemon_reader *reader, int32_t vocab_size,
                                                   lemon_tokenizer **tokenizer) {
    if (lemon__lacks(ctx, __func__, tokenizer && lemon__reader_ok(reader))) return LEMON_E_ARG;
    lemon_reader r = *reader;
    lemon_status status = LEMON__FORMATS ? lemon__hold(ctx, &r) : lemon__one_format(ctx, r.name);
    int json = !status && lemon__looks_like_json(r.map, (size_t)r.size);
    int proto = !status && r.size > 3 && r.map[0] == 10 && r.map[2] == 10;      /* a piece, and its text */
    *tokenizer = NULL;
    if (!status && !json && vocab_size != 0 && (vocab_size < LEMON__FIRST_PIECE || vocab_size > LEMON__MAX_PIECES))
        status = lemon__fail(ctx, LEMON_E_ARG, "%s: vocab_size is %ld, expected %d to %d", r.name, (long)vocab_size,
                             LEMON__FIRST_PIECE, LEMON__MAX_PIECES);
    if (!status) status = lemon__tokenizer_new(ctx, tokenizer);
    if (!status)
        status = (json ? lemon__hf_load : proto ? lemon__sp_load : lemon__llama2c_load)(ctx, &r, vocab_size, *tokenizer);
    lemon__reader_close(&r);
    return lemon__tokenizer_done(ctx, status, tokenizer);
}

LEMON_API lemon_status lemon_tokenizer_load(lemon_ctx *ctx, const char *path, int32_t vocab_size,
                                            lemon_tokenizer **tokenizer) {
    lemon_reader reader;
    if (lemon__lacks(ctx, __func__, tokenizer != NULL)) return LEMON_E_ARG;
    *tokenizer = NULL;
    lemon_status status = lemon_file_reader(ctx, path, &reader);
    return status ? status : lemon_tokenizer_load_reader(ctx, &reader, vocab_size, tokenizer);
}

/* ---- text to training data ---- */

static lemon_status lemon__tokens_document(lemon_ctx *ctx, const lemon_tokenizer *tokenizer, const char *text,
                                           size_t bytes, lemon_tokens *tokens) {
    int32_t bos = lemon_tokenizer_bos(tokenizer);
    while (bytes > 0 && lemon__is_space(text[bytes - 1])) bytes--;
    while (bytes > 0 && lemon__is_space(*text)) { text++; bytes--; }
    if (bytes == 0) return LEMON_OK;
    lemon_status status = bos < 0 ? LEMON_OK : lemon_tokens_push(ctx, tokens, bos);
    return status ? status : lemon_encode(ctx, tokenizer, text, bytes, tokens);
}

/*  Whether a line without its newline is the mark between documents. */
static int lemon__is_mark(const char *line, size_t bytes) {
    static const char mark[] = "<|endoftext|>";
    if (bytes > 0 && line[bytes - 1] == '\r') bytes--;
    return bytes == sizeof mark - 1 && memcmp(line, mark, bytes) == 0;
}

LEMON_API lemon_status lemon_tokens_from_text(lemon_ctx *ctx, const lemon_tokenizer *tokenizer, const char *text,
                                              size_t bytes, lemon_tokens *tokens) {
    size_t from = 0, next;
    lemon_status status = LEMON_OK;
    if (lemon__lacks(ctx, __func__, tokenizer && tokens && (text || bytes == 0))) return LEMON_E_ARG;
    int64_t before = tokens->count;
    for (size_t line = 0; line < bytes && !status; line = next) {
        const char *newline = (const char *)memchr(text + line, '\n', bytes - line);
        size_t end = newline ? (size_t)(newline - text) : bytes;
        next = end + 1;
        if (!lemon__is_mark(text + line, end - line)) continue;
        status = lemon__tokens_document(ctx, tokenizer, text + from, line - from, tokens);
        from = next;
    }
    if (!status && from < bytes) status = lemon__tokens_document(ctx, tokenizer, text + from, bytes - from, tokens);
    if (status) tokens->count = before;
    return status;
}

/*  Raw ids of 2 or 4 bytes each. */
static lemon_status lemon__tokens_ids(lemon_ctx *ctx, const lemon_reader *reader, size_t width, int32_t vocab_size,
                                      lemon_tokens *tokens) {
    lemon__cursor c = lemon__cursor_over(reader);
    lemon_status status = LEMON_OK;
    if (c.size % width != 0)
        return lemon__fail(ctx, LEMON_E_FORMAT, "%s: size is %llu bytes, expected a multiple of %d; the file is cut "
                           "short", reader->name, (unsigned long long)c.size, (int)width);
    while (c.at < c.size && !status) {
        uint32_t id = width == 2 ? lemon__take16(&c) : lemon__take32(&c);
        if (id >= (uint32_t)vocab_size)
            return lemon__fail(
                ctx, LEMON_E_FORMAT, "%s: token %llu is %lu, expected 0 to %ld; it was made for another vocabulary",
                reader->name, (unsigned long long)(c.at / width - 1), (unsigned long)id, (long)vocab_size - 1);
        status = lemon_tokens_push(ctx, tokens, (int32_t)id);
    }
    return status;
}

static lemon_status lemon__tokens_file(lemon_ctx *ctx, const lemon_tokenizer *tokenizer, int32_t vocab_size,
                                       const char *path, lemon_tokens *tokens) {
    size_t width = strcmp(lemon__ending(path), ".u16") == 0 ? 2 : strcmp(lemon__ending(path), ".u32") == 0 ? 4 : 0;
    lemon_reader reader;
    lemon_status status = lemon_file_reader(ctx, path, &reader);
    if (!status) status = lemon__hold(ctx, &reader);
    if (!status && width) status = lemon__tokens_ids(ctx, &reader, width, vocab_size, tokens);
    else if (!status && tokenizer == NULL)
        status = lemon__fail(ctx, LEMON_E_ARG, "%s: is text, but there is no tokenizer to read it with; give --tokenizer "
                             "FILE, or token ids in a .u16 or .u32 file", path);
    else if (!status && lemon__vocabulary_check(ctx, tokenizer, vocab_size)) status = lemon__blame(ctx, path, LEMON_E_ARG);
    else if (!status) status = lemon_tokens_from_text(ctx, tokenizer, (const char *)reader.map, (size_t)reader.size, tokens);
    lemon__reader_close(&reader);
    return status;
}

LEMON_API lemon_status lemon_tokens_from_files(lemon_ctx *ctx, const lemon_tokenizer *tokenizer, int32_t vocab_size,
                                               const char *const *paths, int64_t n_paths, lemon_tokens *tokens) {
    lemon_status status = LEMON_OK;
    if (lemon__lacks(ctx, __func__, tokens && (paths || n_paths < 1) && vocab_size > 0)) return LEMON_E_ARG;
    int64_t before = tokens->count;
    for (int64_t i = 0; i < n_paths && !status; i++)
        status = paths[i] ? lemon__tokens_file(ctx, tokenizer, vocab_size, paths[i], tokens)
                          : lemon__fail(ctx, LEMON_E_ARG, "lemon_tokens_from_files: a path is NULL");
    if (status) tokens->count = before;
    return status;
}

LEMON__BRIEF_END
/* ---- learning a vocabulary ---- */

/*  How often each distinct piece of a text stands in it. */
typedef struct lemon__tally {
    lemon__words words;
    int64_t *counts;
    int64_t capacity;
} lemon__tally;

/*  0: no memory. */
static int lemon__tally_add(lemon_ctx *ctx, lemon__tally *tally, size_t start, size_t bytes) {
    const int32_t i = lemon__words_find(&tally->words, tally->words.blob + start, bytes);
    const int64_t n = tally->words.count;
    if (i >= 0) { tally->counts[i]++; return 1; }
    if (!lemon__room(ctx, &tally->counts, &tally->capacity, n + 1, sizeof *tally->counts)) return 0;
    tally->counts[n] = 1;
    return lemon__words_push(ctx, &tally->words, start, bytes, 1);
}

static void lemon__tally_free(lemon_ctx *ctx, lemon__tally *tally) {
    lemon__free(ctx, tally->counts, (size_t)tally->capacity * sizeof *tally->counts);
    lemon__words_free(ctx, &tally->words);
}

/*  Two neighbouring symbols.  Its first 8 bytes are the word under which it is found. */
typedef struct lemon__pair {
    int32_t left, right;
    int64_t count;                  /* over the whole text */
    int64_t sighting;               /* the newest of the words that it was seen in, -1: none */
} lemon__pair;

typedef struct lemon__sighting { int64_t older; int32_t word; } lemon__sighting;

typedef struct lemon__learner {
    lemon_ctx *ctx;
    lemon_status status;            /* the first that was wrong */
    lemon_tokenizer *tokenizer;
    lemon__tally words;             /* the distinct words of the text; once they are spelled, their spans are of symbols */
    lemon_tokens symbols;           /* -1 is a character that has no piece */
    lemon__words pair_names;
    lemon__pair *pairs;
    lemon__sighting *sightings;
    int64_t pairs_capacity, n_sightings, sightings_capacity;
    lemon__heap heap;
} lemon__learner;

/*  Letters (with all that is not ASCII), digits and marks cling to their like; 0 is what stands alone. */
static int lemon__char_class(uint8_t c) {
    if (c >= 0x80 || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return 1;
    if (c >= '0' && c <= '9') return 2;
    return c <= ' ' || c == 0x7f ? 0 : 3;
}

/*  The rule of words: a run of letters, of digits or of marks, with the blank before it; any other blank or control
    character is a word of its own.  Whether two characters belong together depends on these two alone, so the
    encoder, which knows no words, cannot join across words either. */
static size_t lemon__word_end(const uint8_t *text, size_t n, size_t at) {
    if (text[at] == ' ' && at + 1 < n && lemon__char_class(text[at + 1]) != 0) at++;
    int class_of_run = lemon__char_class(text[at++]);
    while (class_of_run != 0 && at < n && lemon__char_class(text[at]) == class_of_run) at++;
    return at;
}

/*  Lower for what is more frequent, then for what comes first. */
static uint64_t lemon__learn_key(int64_t count, uint64_t order) {
    return (uint64_t)(UINT32_MAX - lemon__min(count, UINT32_MAX)) << 32 | order;
}

static void lemon__learn_offer(lemon__learner *l, uint64_t key) {
    if (lemon__heap_push(l->ctx, &l->heap, key)) l->status = LEMON_E_MEMORY;
}

/*  Single characters first: the blank, which goes before every text, then the most frequent ones, in half of the room
    at most. Bytes that are no character, and NUL, which ends pieces in llama2.c, stay bytes. */
static void lemon__learn_chars(lemon__learner *l, const uint8_t *text, size_t n, int32_t size) {
    lemon__tally chars = {{text, NULL, 0, 0, NULL, 0, 0}, NULL, 0};
    uint64_t best;
    int64_t room = ((int64_t)size - LEMON__FIRST_PIECE + 1) / 2;
    for (size_t at = 0, bytes; at < n && !l->status; at += bytes) {
        bytes = lemon__char_bytes(text + at, n - at);
        int alone = text[at] == ' ' || text[at] == 0 || (bytes == 1 && text[at] >= 0x80);
        if (!alone && !lemon__tally_add(l->ctx, &chars, at, bytes)) l->status = LEMON_E_MEMORY;
    }
    for (int64_t i = 0; i < chars.words.count; i++) lemon__learn_offer(l, lemon__learn_key(chars.counts[i], (uint64_t)i));
    if (!l->status) l->status = lemon__tokenizer_add(l->ctx, l->tokenizer, LEMON__NORMAL, 0.0f, " ", 1);
    for (int64_t i = 1; i < room && !l->status && lemon__heap_pop(&l->heap, &best); i++) {
        const lemon__span *span = &chars.words.spans[best & UINT32_MAX];
        l->status = lemon__tokenizer_add(l->ctx, l->tokenizer, LEMON__NORMAL, 0.0f, text + span->start, span->bytes);
    }
    l->heap.count = 0;
    lemon__tally_free(l->ctx, &chars);
}

/*  The distinct words, each spelled in characters. */
static void lemon__learn_words(lemon__learner *l, const uint8_t *text, size_t n) {
    l->words.words.blob = text;
    for (size_t at = 0, end; at < n && !l->status; at = end) {
        end = lemon__word_end(text, n, at);
        if (!lemon__tally_add(l->ctx, &l->words, at, end - at)) l->status = LEMON_E_MEMORY;
    }
    for (int64_t w = 0; w < l->words.words.count && !l->status; w++) {
        lemon__span *word = &l->words.words.spans[w];
        const size_t from = (size_t)l->symbols.count;
        for (size_t at = word->start, end = at + word->bytes, bytes; at < end && !l->status; at += bytes) {
            bytes = lemon__char_bytes(text + at, end - at);
            l->status = lemon_tokens_push(l->ctx, &l->symbols, lemon__words_find(&l->tokenizer->pieces, text + at, bytes));
        }
        word->start = from;
        word->bytes = (size_t)l->symbols.count - from;
    }
}

/*  The pair of two symbols, made if it is new; NULL: no memory, which l->status says then. */
static lemon__pair *lemon__learn_pair(lemon__learner *l, int32_t left, int32_t right) {
    const lemon__pair fresh = {left, right, 0, -1};
    int32_t i = lemon__words_find(&l->pair_names, &fresh, 8);
    if (i >= 0) return &l->pairs[i];
    i = (int32_t)l->pair_names.count;
    if (lemon__room(l->ctx, &l->pairs, &l->pairs_capacity, i + 1, sizeof fresh)) {
        l->pair_names.blob = (const uint8_t *)l->pairs;
        l->pairs[i] = fresh;
        if (lemon__words_push(l->ctx, &l->pair_names, (size_t)i * sizeof fresh, 8, 1)) return &l->pairs[i];
    }
    l->status = LEMON_E_MEMORY;
    return NULL;
}

static uint64_t lemon__pair_key(const lemon__pair *pair) {
    return lemon__learn_key(pair->count, (uint64_t)pair->left << 16 | (uint64_t)pair->right);
}

/*  Two neighbours appear in a word (sign 1) or go (sign -1).  Pairs that became more frequent are offered to the heap
    again; those that became rarer are put right when they come up. */
static void lemon__learn_count(lemon__learner *l, int32_t word, int32_t left, int32_t right, int sign) {
    lemon__pair *pair = left < 0 || right < 0 ? NULL : lemon__learn_pair(l, left, right);
    if (pair == NULL) return;
    pair->count += sign * l->words.counts[word];
    if (sign < 0) return;
    if (pair->sighting < 0 || l->sightings[pair->sighting].word != word) {
        const lemon__sighting seen = {pair->sighting, word};
        if (!lemon__room(l->ctx, &l->sightings, &l->sightings_capacity, l->n_sightings + 1, sizeof seen)) {
            l->status = LEMON_E_MEMORY;
            return;
        }
        l->sightings[l->n_sightings] = seen;
        pair->sighting = l->n_sightings++;
    }
    lemon__learn_offer(l, lemon__pair_key(pair));
}

/*  Joins a pair wherever it stands in a word, from the left, and counts what changes around it. */
static void lemon__learn_join(lemon__learner *l, int32_t word, int32_t left, int32_t right, int32_t piece) {
    lemon__span *span = &l->words.words.spans[word];
    int32_t *s = l->symbols.ids + span->start;
    size_t i = 0, n = 0, length = span->bytes;
    while (i < length) {
        int32_t before = n > 0 ? s[n - 1] : -1, after = i + 2 < length ? s[i + 2] : -1;
        if (s[i] != left || i + 1 >= length || s[i + 1] != right) { s[n++] = s[i++]; continue; }
        lemon__learn_count(l, word, left, right, -1);
        lemon__learn_count(l, word, before, left, -1);
        lemon__learn_count(l, word, right, after, -1);
        lemon__learn_count(l, word, before, piece, 1);
        lemon__learn_count(l, word, piece, after, 1);
        s[n++] = piece;
        i += 2;
    }
    span->bytes = n;
}

/*  The piece that two pieces make: the next id, or one that was made before from another pair. */
static int32_t lemon__learn_piece(lemon__learner *l, int32_t left, int32_t right, float score) {
    lemon_tokenizer *t = l->tokenizer;
    size_t a = t->pieces.spans[left].bytes, b = t->pieces.spans[right].bytes;
    uint8_t *room = lemon__tokenizer_room(l->ctx, t, a + b);
    if (room == NULL) { l->status = LEMON_E_MEMORY; return -1; }
    memcpy(room, t->blob + t->pieces.spans[left].start, a);
    memcpy(room + a, t->blob + t->pieces.spans[right].start, b);
    int32_t known = lemon__words_find(&t->pieces, room, a + b);
    if (known >= 0) return known;
    l->status = lemon__tokenizer_push(l->ctx, t, LEMON__NORMAL, score, a + b);
    return lemon_tokenizer_size(t) - 1;
}

/*  The most frequent pair, smallest ids first where several are.  NULL: there is none left, or no memory. */
static lemon__pair *lemon__learn_best(lemon__learner *l) {
    uint64_t top;
    while (!l->status && lemon__heap_pop(&l->heap, &top)) {
        lemon__pair *pair = lemon__learn_pair(l, (int32_t)(top >> 16 & 0xffff), (int32_t)(top & 0xffff));
        if (pair->count > 0 && lemon__pair_key(pair) == top) return pair;
        if (pair->count > 0 && lemon__pair_key(pair) > top) lemon__learn_offer(l, lemon__pair_key(pair));
    }
    return NULL;
}

static void lemon__learn_pieces(lemon__learner *l, int32_t size) {
    int32_t first = lemon_tokenizer_size(l->tokenizer), known;
    while (!l->status && (known = lemon_tokenizer_size(l->tokenizer)) < size) {
        const lemon__pair *best = lemon__learn_best(l);
        if (best == NULL && !l->status)
            l->status = lemon__fail(l->ctx, LEMON_E_ARG, "size of the vocabulary is %ld, expected at most %ld: the text has "
                                    "no more pairs to learn; give more text", (long)size, (long)known);
        if (best == NULL) return;
        const int32_t left = best->left, right = best->right;
        int64_t i = best->sighting;
        int32_t piece = lemon__learn_piece(l, left, right, -(float)(known - first));
        for (; i >= 0 && !l->status; i = l->sightings[i].older) lemon__learn_join(l, l->sightings[i].word, left, right, piece);
        if (!l->status) l->status = lemon__tick(l->ctx, "tokenizer", known + 1 - first, size - first, (double)NAN);
    }
}

LEMON_API lemon_status lemon_tokenizer_train(lemon_ctx *ctx, const char *text, size_t bytes, int32_t size,
                                             lemon_tokenizer **tokenizer) {
    const uint8_t *p = (const uint8_t *)text;
    lemon__learner l;
    if (lemon__lacks(ctx, __func__, tokenizer != NULL)) return LEMON_E_ARG;
    *tokenizer = NULL;
    if (!LEMON__BPE) return lemon__no_bpe(ctx);
    if ((text == NULL && bytes > 0) || size <= LEMON__FIRST_PIECE || size > 65536)
        return lemon__fail(ctx, LEMON_E_ARG, "size of the vocabulary is %ld, expected %d to 65536", (long)size,
                           LEMON__FIRST_PIECE + 1);
    memset(&l, 0, sizeof l);
    l.ctx = ctx;
    l.status = lemon__tokenizer_new(ctx, &l.tokenizer);
    if (!l.status) l.status = lemon__tokenizer_add_bytes(ctx, l.tokenizer);
    if (!l.status) lemon__learn_chars(&l, p, bytes, size);
    if (!l.status) lemon__learn_words(&l, p, bytes);
    for (int32_t w = 0; !l.status && w < l.words.words.count; w++) {
        const lemon__span *span = &l.words.words.spans[w];
        for (size_t i = span->start + 1; !l.status && i < span->start + span->bytes; i++)
            lemon__learn_count(&l, w, l.symbols.ids[i - 1], l.symbols.ids[i], 1);
    }
    if (!l.status) lemon__learn_pieces(&l, size);
    if (!l.status) l.tokenizer->rules.prefix = LEMON__PREFIX_ALWAYS;
    if (!l.status) l.status = lemon__tokenizer_finish(ctx, "vocabulary", l.tokenizer);
    lemon__tally_free(ctx, &l.words);
    lemon_tokens_free(ctx, &l.symbols);
    lemon__words_free(ctx, &l.pair_names);
    lemon__free(ctx, l.pairs, (size_t)l.pairs_capacity * sizeof *l.pairs);
    lemon__free(ctx, l.sightings, (size_t)l.sightings_capacity * sizeof *l.sightings);
    lemon__heap_free(ctx, &l.heap);
    *tokenizer = l.tokenizer;
    return lemon__tokenizer_done(ctx, l.status, tokenizer);
}
LEMON__BRIEF_BEGIN
/* ====================================================================================================================
   10  INFERENCE

   To score the next token, a token needs the keys and values of all tokens before it, in every layer, and nothing else of
   them.  A session keeps those (the KV cache), so that each token is computed once.  A prompt goes through in large
   pieces (prefill, matrix times matrix), then one token at a time (decoding, matrix times vector: as fast as the weights
   can be read from memory).  In each layer the new rows q [n, H*C] meet the cached keys and values [length, K*C].

   The next id is drawn from  p_i = exp(z_i / temperature) / sum over j of exp(z_j / temperature),  z [V] being the scores,
   among the top_k likeliest (Fan et al. 2018), of these the fewest that sum to top_p (nucleus sampling, Holtzman et al.
   2020), of these what has at least min_p times the best one's probability (Nguyen et al. 2024).
   ================================================================================================================== */

struct lemon_session {
    lemon_ctx *ctx;
    const lemon_model *model;
    lemon_session_options o;
    lemon__walk walk;
    lemon_arena arena;
    lemon_tensor *cache;                    /* [n_layers, 2] keys and values [max_seq, K*C], as they are stored */
    float *keys, *values;                   /* [max_seq, K*C] of one layer at a time, where they are not stored as f32 */
    float *logits;                          /* [V] */
    int64_t length;
};

static lemon_status lemon__session_memory(lemon_session *s) {
    const lemon_config *c = &s->model->config;
    const int halves = s->o.cache != LEMON_F32;
    const int64_t width = lemon_joint_size(c, LEMON_JOINT_KEY), n = s->o.max_seq;
    lemon_status status = lemon__walk_open(s->ctx, &s->arena, s->model, s->o.prefill, n, &s->walk);
    if (status) return status;
    s->logits = lemon__floats(s->ctx, &s->arena, 1, c->vocab_size);
    s->cache = (lemon_tensor *)lemon__numbers(s->ctx, &s->arena, c->n_layers, 2, sizeof *s->cache);
    s->keys = halves ? lemon__floats(s->ctx, &s->arena, n, width) : NULL;
    s->values = halves ? lemon__floats(s->ctx, &s->arena, n, width) : NULL;
    if (!s->logits || !s->cache || (halves && (!s->keys || !s->values))) return LEMON_E_MEMORY;
    for (int64_t i = 0; i < 2 * c->n_layers; i++) {
        void *rows = lemon__numbers(s->ctx, &s->arena, n, width, lemon_row_bytes(s->o.cache, 1));
        if (rows == NULL) return LEMON_E_MEMORY;
        s->cache[i] = lemon__view(rows, s->o.cache, n, width);
    }
    return LEMON_OK;
}

LEMON_API void lemon_session_defaults(lemon_session_options *options) {
    static const lemon_session_options defaults = {0, 256, LEMON_F32};
    if (options) *options = defaults;
}

LEMON_API lemon_status lemon_session_open_with(lemon_ctx *ctx, const lemon_model *model,
                                               const lemon_session_options *options, lemon_session **session) {
    if (lemon__lacks(ctx, __func__, model && options && session)) return LEMON_E_ARG;
    *session = NULL;
    if (options->max_seq < 0 || options->prefill < 1 || (options->cache != LEMON_F32 && options->cache != LEMON_F16))
        return lemon__fail(ctx, LEMON_E_ARG, "lemon_session_open: max_seq is %lld, prefill %lld, cache %s, expected at "
                           "least 0, at least 1, and f32 or f16", (long long)options->max_seq,
                           (long long)options->prefill, lemon_dtype_name(options->cache));
    lemon_session *s = (lemon_session *)lemon__calloc(ctx, sizeof *s);
    if (s == NULL) return LEMON_E_MEMORY;
    s->ctx = ctx;
    s->model = model;
    s->o = *options;
    if (s->o.max_seq == 0 || s->o.max_seq > model->config.max_seq) s->o.max_seq = model->config.max_seq;
    s->o.prefill = lemon__min(s->o.prefill, s->o.max_seq);
    lemon_status status = lemon__session_memory(s);
    if (status) lemon_session_close(s);
    else *session = s;
    return status;
}

LEMON_API lemon_status lemon_session_open(lemon_ctx *ctx, const lemon_model *model, lemon_session **session) {
    lemon_session_options options;
    lemon_session_defaults(&options);
    return lemon_session_open_with(ctx, model, &options, session);
}

LEMON_API void lemon_session_close(lemon_session *session) {
    if (session == NULL) return;
    lemon_arena_free(session->ctx, &session->arena);
    lemon__free(session->ctx, session, sizeof *session);
}

LEMON_API int64_t lemon_session_length(const lemon_session *session) { return session ? session->length : 0; }

LEMON_API lemon_status lemon_session_rewind(lemon_session *session, int64_t length) {
    if (session == NULL) return LEMON_E_ARG;
    if (length < 0 || length > session->length)
        return lemon__fail(session->ctx, LEMON_E_ARG, "lemon_session_rewind: length is %lld, expected 0 to %lld",
                           (long long)length, (long long)session->length);
    session->length = length;
    return LEMON_OK;
}

/*  A checksum of a model's weights, or of its norms alone, which tell models of one shape apart. */
static uint32_t lemon__model_crc(lemon_ctx *ctx, const lemon_model *model, int norms) {
    uint32_t crc = 0;
    for (int64_t i = 0; model && i < model->n_params; i++) {
        const lemon_tensor *t = &model->params[i];
        if (t->rows == 1 || !norms) crc = lemon__checksum(ctx, crc, t->data, lemon_tensor_bytes(t));
    }
    return crc;
}

static void lemon__session_part(const lemon_session *s, int64_t i, char *name, size_t size, lemon_tensor *t) {
    lemon__format(name, size, "%s.%lld", i % 2 ? "values" : "keys", (long long)i / 2);
    *t = s->cache[i];
    t->rows = s->length;
}

LEMON_API lemon_status lemon_session_save(lemon_session *session, const lemon_writer *writer) {
    lemon__pack pack;
    lemon_tensor t;
    char name[LEMON__NAME];
    if (lemon__lacks(session ? session->ctx : NULL, __func__, lemon__writer_ok(writer))) return LEMON_E_ARG;
    lemon__pack_open(session->ctx, &pack);
    lemon__pack_text(&pack, "requires", "session", 7);
    lemon__pack_config(&pack, "", &session->model->config);
    lemon__pack_int(&pack, "norms", lemon__model_crc(session->ctx, session->model, 1));
    lemon__pack_int(&pack, "length", session->length);
    for (int64_t i = 0; session->length > 0 && i < 2 * session->model->config.n_layers; i++) {
        lemon__session_part(session, i, name, sizeof name, &t);
        lemon__pack_tensor(&pack, name, &t, t.dtype);
    }
    lemon_status status = lemon__pack_write(&pack, writer);
    lemon__pack_close(&pack);
    return status;
}

/*  A saved session is of this model, and fits. */
static lemon_status lemon__session_check(const lemon_session *s, const lemon__unpack *u, int64_t *length) {
    lemon_config config;
    int64_t norms = 0;
    lemon_status status = lemon__unpack_config(u, "", &config);
    if (!status) status = lemon__unpack_int(u, "norms", &norms);
    if (!status) status = lemon__unpack_int(u, "length", length);
    if (status) return status;
    if (memcmp(&config, &s->model->config, sizeof config) != 0 || norms != lemon__model_crc(s->ctx, s->model, 1))
        return lemon__fail(s->ctx, LEMON_E_ARG, "%s: is of another model; give it to a session of its own", u->source.name);
    if (*length < 0 || *length > s->o.max_seq)
        return lemon__fail(s->ctx, LEMON_E_ARG, "%s: length is %lld, expected at most %lld, what this session can hold",
                           u->source.name, (long long)*length, (long long)s->o.max_seq);
    return LEMON_OK;
}

LEMON_API lemon_status lemon_session_restore(lemon_session *session, const lemon_reader *reader) {
    lemon__unpack u;
    lemon_tensor t, found;
    char name[LEMON__NAME];
    int64_t length = 0;
    if (lemon__lacks(session ? session->ctx : NULL, __func__, lemon__reader_ok(reader))) return LEMON_E_ARG;
    session->length = 0;
    lemon_status status = lemon__unpack_open(session->ctx, reader, "session", "session", &u);
    if (status) return status;
    status = lemon__session_check(session, &u, &length);
    session->length = length;
    for (int64_t i = 0; !status && length > 0 && i < 2 * session->model->config.n_layers; i++) {
        lemon__session_part(session, i, name, sizeof name, &t);
        status = lemon__unpack_tensor(&u, name, &found);
        if (!status && found.dtype != t.dtype)
            status = lemon__fail(session->ctx, LEMON_E_ARG, "%s: the cache is %s, expected %s, this session's",
                                 u.source.name, lemon_dtype_name(found.dtype), lemon_dtype_name(t.dtype));
        if (!status)
            status = lemon__unpack_shape(&u, name, &found, t.rows, t.cols, "the session's length and the model's heads");
        if (!status) memcpy(t.data, found.data, lemon_tensor_bytes(&t));
    }
    if (status) session->length = 0;
    lemon__unpack_close(&u);
    return status;
}

LEMON__BRIEF_END
/*  Stores the newest rows, and gives all of them back as they are stored: what is computed must not depend on the pieces
    in which a text came. */
static void lemon__session_keep(const lemon_session *s, lemon_tensor *cache, float *rows) {
    uint16_t *halves = (uint16_t *)cache->data;
    const size_t old = (size_t)(s->length * cache->cols), all = old + (size_t)(s->walk.seq * cache->cols);
    for (size_t i = old; i < all; i++) halves[i] = lemon_f16_from_f32(rows[i]);
    for (size_t i = 0; i < all; i++) rows[i] = lemon_f32_from_f16(halves[i]);
}

/*  n <= prefill tokens through all layers; walk.x then holds their stream. */
LEMON__APART void lemon__session_piece(lemon_session *s, const int32_t *ids, int64_t n) {
    LEMON_ASSERT(n <= s->o.prefill && s->length + n <= s->o.max_seq);
    s->walk.batch = 1;
    s->walk.seq = n;
    s->walk.pos = s->length;
    s->walk.kv_rows = s->o.max_seq;
    lemon__walk_embed(&s->walk, ids);
    for (int64_t layer = 0; layer < s->model->config.n_layers; layer++) {
        lemon_tensor *cache = &s->cache[2 * layer];
        float *keys = s->keys ? s->keys : (float *)cache[0].data, *values = s->keys ? s->values : (float *)cache[1].data;
        lemon__walk_look(&s->walk, layer, keys, values);
        if (s->keys) lemon__session_keep(s, &cache[0], keys);
        if (s->keys) lemon__session_keep(s, &cache[1], values);
        lemon__walk_think(&s->walk, layer, keys, values);
    }
    s->length += n;
}

LEMON_API lemon_status lemon_session_feed(lemon_session *session, const int32_t *ids, int64_t n, float **logits) {
    if (session == NULL) return LEMON_E_ARG;
    int64_t left = session->o.max_seq - session->length;
    if (ids == NULL || n < 1 || n > left)
        return lemon__fail(session->ctx, LEMON_E_ARG,
                           "lemon_session_feed: n is %lld, expected 1 to %lld, what is left of the context",
                           (long long)n, (long long)left);
    lemon_status status = lemon__check_ids(session->ctx, session->model, ids, n);
    while (!status && n > 0) {
        int64_t piece = lemon__min(n, session->o.prefill);
        lemon__session_piece(session, ids, piece);
        ids += piece;
        n -= piece;
    }
    if (status || logits == NULL) return status;
    const lemon__walk *w = &session->walk;
    lemon__walk_norm(&session->walk, LEMON_FINAL_NORM, 0);
    lemon__weight_product(w->ctx, 1, w->y + (w->seq - 1) * w->model->config.d_model,
                          lemon_model_param(w->model, LEMON_OUTPUT, 0), session->logits);
    *logits = session->logits;
    return LEMON_OK;
}

/* ---- sampling ---- */

LEMON_API void lemon_sampling_defaults(lemon_sampling *sampling) {
    static const lemon_sampling defaults = {1.0f, 0, 0.9f, 0.0f, 1, NULL, 0};
    if (sampling) *sampling = defaults;
}

static int32_t lemon__argmax(const float *x, int32_t n) {      /* exercise 1 */
    int32_t best = 0, i;
    for (i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/*  Sorts ids by falling score, lower id first on ties: a merge sort, for it needs no global to compare through. */
static void lemon__rank(const float *score, int32_t *ids, int32_t *other, int32_t n) {
    int32_t *from = ids, *to = other;
    for (int32_t width = 1; width < n; width = width > n / 2 ? n : width * 2) {
        for (int32_t i = 0; i < n; i += 2 * width) {
            int32_t a = i, mid = n - i > width ? i + width : n, b = mid, end = n - mid > width ? mid + width : n, out = i;
            while (a < mid || b < end)
                to[out++] = b >= end || (a < mid && !(score[from[b]] > score[from[a]])) ? from[a++] : from[b++];
            if (end == n) break;
        }
        int32_t *swap = from; from = to; to = swap;
    }
    if (from != ids) memcpy(ids, from, (size_t)n * sizeof *ids);
}

/*  Which ids may be candidates at all: to rank a whole vocabulary takes as long as a small model's token.  What weighs
    less than the n-th part of what top_p leaves out comes after those that reach top_p; the best one has p = 1. */
static int32_t lemon__sample_ids(const float *p, int32_t n, const lemon_sampling *sampling, double total, int32_t *ids) {
    float least = sampling->min_p, left = (float)(0.999 * (1.0 - (double)sampling->top_p) * total / n);
    int32_t count = 0;
    if (left > least) least = left;
    if (sampling->top_k > 0 || least > 1.0f) least = 0.0f;
    for (int32_t i = 0; i < n; i++)
        if (!(p[i] < least)) ids[count++] = i;
    return count;
}

/*  How many of the ranked candidates stay; p holds probabilities, which sum to `total` over all ids. */
static int32_t lemon__candidates(const float *p, const int32_t *ranked, int32_t n, const lemon_sampling *sampling,
                                 double total) {      /* exercise 7 */
    int32_t keep = n, i;
    double sum = 0.0;
    if (sampling->top_k > 0 && sampling->top_k < n)
        for (keep = sampling->top_k, total = 0.0, i = 0; i < keep; i++) total += (double)p[ranked[i]];
    for (i = 0; i < keep && sampling->top_p < 1.0f; i++) {      /* the fewest that reach top_p, at least one */
        sum += (double)p[ranked[i]];
        if (sum >= (double)sampling->top_p * total) keep = i + 1;
    }
    while (keep > 1 && p[ranked[keep - 1]] < sampling->min_p * p[ranked[0]]) keep--;
    return keep;
}

LEMON_API int32_t lemon_sample(float *logits, int32_t n, const lemon_sampling *sampling, lemon_rng *rng, int32_t *scratch) {
    int32_t *ranked = scratch, i;
    double sum = 0.0, total = 0.0;
    if (logits == NULL || sampling == NULL || n < 1) return -1;
    if (!(sampling->temperature > 0.0f)) return lemon__argmax(logits, n);
    if (rng == NULL || scratch == NULL) return -1;
    float top = lemon__max_one(logits, n);
    for (i = 0; i < n; i++) {
        logits[i] = lemon__exp_one((logits[i] - top) / sampling->temperature);
        total += (double)logits[i];
    }
    int32_t keep = lemon__sample_ids(logits, n, sampling, total, ranked);
    lemon__rank(logits, ranked, scratch + n, keep);
    keep = lemon__candidates(logits, ranked, keep, sampling, total);
    for (i = 0; i < keep; i++) sum += (double)logits[ranked[i]];
    double target = lemon_rng_uniform(rng) * sum;
    for (i = 0, sum = 0.0; i < keep - 1; i++) {
        sum += (double)logits[ranked[i]];
        if (target < sum) break;
    }
    return ranked[i];
}

LEMON__BRIEF_BEGIN
/* ---- text from a prompt ---- */

typedef struct lemon__generation {
    lemon_ctx *ctx;
    const lemon_model *model;
    lemon_session *session;
    lemon_tokens *tokens;
    int32_t *scratch;
    lemon_rng rng;
    const lemon_sampling *sampling;
    int (*on_token)(void *user, int32_t id, const char *text, size_t bytes);    /* may be NULL */
    void *user;
    char *held;                         /* text that was not handed out yet, for it may begin a stop */
    int64_t n_held, capacity;
    lemon_stop stop;
} lemon__generation;

static lemon_status lemon__generation_open(lemon_ctx *ctx, const lemon_model *model, lemon_tokens *tokens,
                                           const lemon_sampling *sampling, lemon__generation *g) {
    const lemon__generation fresh = {ctx, model, NULL, tokens, NULL, {0}, sampling, NULL, NULL, NULL, 0, 0,
                                     LEMON_STOP_COUNT};
    *g = fresh;
    lemon_rng_seed(&g->rng, sampling->seed);
    g->scratch = (int32_t *)lemon__malloc(ctx, (size_t)model->config.vocab_size * 2 * sizeof *g->scratch);
    return g->scratch ? lemon_session_open(ctx, model, &g->session) : LEMON_E_MEMORY;
}

static void lemon__generation_close(lemon__generation *g) {
    lemon_session_close(g->session);
    lemon__free(g->ctx, g->scratch, (size_t)g->model->config.vocab_size * 2 * sizeof *g->scratch);
    lemon__free(g->ctx, g->held, (size_t)g->capacity);
}

/*  Where a stop stands in a text (*whole 1), else where the end of the text may begin one, else n. */
static int64_t lemon__find_stop(const lemon_sampling *sampling, const char *text, int64_t n, int *whole) {
    for (*whole = 1; *whole >= 0; --*whole)
        for (int64_t at = 0; at < n; at++)
            for (int64_t i = 0; i < sampling->n_stops; i++) {
                int64_t length = sampling->stops[i] ? (int64_t)strlen(sampling->stops[i]) : 0;
                if (length > 0 && (length > n - at ? !*whole : *whole) &&
                    memcmp(text + at, sampling->stops[i], (size_t)lemon__min(length, n - at)) == 0)
                    return at;
            }
    *whole = 0;
    return n;
}

/*  Hands a token's text to the caller, but for what must be held back; text NULL: the end, nothing is held any longer. */
static lemon_status lemon__hand_out(lemon__generation *g, int32_t id, const char *text, size_t bytes) {
    int whole = 0;
    if (!lemon__room(g->ctx, &g->held, &g->capacity, g->n_held + (int64_t)bytes, 1)) return LEMON_E_MEMORY;
    if (text) memcpy(g->held + g->n_held, text, bytes);
    g->n_held += (int64_t)bytes;
    int64_t n = text ? lemon__find_stop(g->sampling, g->held, g->n_held, &whole) : g->n_held;
    int enough = g->on_token && (text || n > 0) && g->on_token(g->user, id, g->held, (size_t)n);
    if (whole || enough) g->stop = whole ? LEMON_STOP_TEXT : LEMON_STOP_CALLER;
    g->n_held -= n;
    memmove(g->held, g->held + n, (size_t)g->n_held);
    if (whole) g->n_held = 0;
    return LEMON_OK;
}

/*  Draws, hands out and feeds tokens until something ends it. */
static lemon_status lemon__generate_loop(lemon__generation *g, int64_t n_new, float *logits) {
    const lemon_tokenizer *t = g->model->tokenizer;
    lemon_status status = LEMON_OK;
    int64_t i, prompt = g->tokens->count;
    lemon__tick_begin(g->ctx, "generate");
    for (i = 0; !status && i < n_new; i++) {
        const char *text;
        size_t bytes;
        int32_t id = lemon_sample(logits, g->model->config.vocab_size, g->sampling, &g->rng, g->scratch),
                previous = g->tokens->ids[g->tokens->count - 1];
        if (id == lemon_tokenizer_bos(t) || id == lemon_tokenizer_eos(t)) { g->stop = LEMON_STOP_END; break; }
        status = lemon_decode(g->ctx, t, previous, id, &text, &bytes);
        if (!status) status = lemon_tokens_push(g->ctx, g->tokens, id);
        if (!status) status = lemon__hand_out(g, id, text, bytes);
        if (status || g->stop || i + 1 == n_new) break;
        status = lemon__tick(g->ctx, "generate", i + 1, n_new, (double)NAN);
        if (status) break;
        if (lemon_session_length(g->session) >= g->model->config.max_seq) { g->stop = LEMON_STOP_CONTEXT; break; }
        status = lemon_session_feed(g->session, &id, 1, &logits);
    }
    if (!status && g->stop < LEMON_STOP_CALLER) status = lemon__hand_out(g, -1, NULL, 0);
    i = g->tokens->count - prompt;
    return status ? status : lemon__tick(g->ctx, "generate", i, i, (double)NAN);
}

LEMON_API lemon_status lemon_generate(lemon_ctx *ctx, const lemon_model *model, const char *prompt, int64_t n_new,
                                      const lemon_sampling *sampling,
                                      int (*on_token)(void *user, int32_t id, const char *text, size_t bytes),
                                      void *user, lemon_tokens *tokens, lemon_stop *stop) {
    lemon__generation g;
    float *logits = NULL;
    if (lemon__lacks(ctx, __func__, model && sampling && tokens && (sampling->n_stops < 1 || sampling->stops)))
        return LEMON_E_ARG;
    const lemon_tokenizer *t = model->tokenizer;
    if (t == NULL) return lemon__fail(ctx, LEMON_E_ARG, "the model has no tokenizer; give one with --tokenizer FILE");
    if (lemon__vocabulary_check(ctx, t, model->config.vocab_size)) return LEMON_E_ARG;
    tokens->count = 0;
    lemon_status status = lemon__generation_open(ctx, model, tokens, sampling, &g);
    g.on_token = on_token;
    g.user = user;
    if (!status) status = lemon_tokens_push(ctx, tokens, lemon_tokenizer_bos(t));
    if (!status && prompt && *prompt) status = lemon_encode(ctx, t, prompt, strlen(prompt), tokens);
    if (!status && tokens->count > model->config.max_seq)
        status = lemon__fail(ctx, LEMON_E_ARG,
                             "the prompt has %lld tokens, expected at most %d, the model's context (max_seq); shorten it",
                             (long long)tokens->count, (int)model->config.max_seq);
    if (!status) status = lemon_session_feed(g.session, tokens->ids, tokens->count, &logits);
    if (!status) status = lemon__generate_loop(&g, n_new, logits);
    if (stop) *stop = g.stop;
    lemon__generation_close(&g);
    return status;
}

LEMON__BRIEF_END
#ifndef LEMON_NO_TRAIN
LEMON__BRIEF_BEGIN
/* ====================================================================================================================
   11  TRAINING

   Text is one long row of tokens, cut into windows of T; a window's inputs are t[s..s+T-1], its targets the same shifted
   by one.  A step takes B windows, runs the tape forward and backward, shortens the gradient g to the length `clip` if it
   is longer (Pascanu et al. 2013), and moves every weight by AdamW (Kingma and Ba 2015; Loshchilov and Hutter 2019):

        m = 0.9 m + 0.1 g      v = 0.95 v + 0.05 g^2      w -= lr * (m' / (sqrt(v') + 1e-8) + decay * w)

   with m' = m / (1 - 0.9^n) and v' = v / (1 - 0.95^n) at step n, for both begin at zero.  m is where the gradient has been
   pointing, v how large it is.  lr rises for `warmup` steps, then falls to min_lr along half a cosine (Loshchilov and
   Hutter 2017).

   Nothing random is kept but a seed and a position: the order of windows is a function of (seed, epoch: how often the
   text was gone through), so a run that is resumed from weights, m, v and the step number goes on with the same bits.
   ================================================================================================================== */

static int64_t lemon__default_seq(const lemon_config *c, int64_t seq) {
    return seq > 0 ? seq : lemon__min(256, c->max_seq);
}

static lemon_status lemon__check_seq(lemon_ctx *ctx, const lemon_config *c, int64_t seq) {
    if (seq >= 1 && seq <= c->max_seq) return LEMON_OK;
    return lemon__fail(ctx, LEMON_E_ARG, "seq is %lld, expected 1 to %d, the model's context (max_seq)", (long long)seq,
                       (int)c->max_seq);
}

/* ---- the loss of a language model on a tape: for evaluation, training and learned operators ---- */

typedef struct lemon__objective {
    lemon_tape *tape;
    lemon_var hidden, loss;             /* the last states, normed; the loss */
    int32_t *inputs, *targets;          /* [batch * seq] */
    float *taught;                      /* [batch * seq, width] of `states`, the teacher's for the whole text, */
    float *states;                      /*   where these are kept */
    int64_t batch, seq, width;
    int recompute;
} lemon__objective;

static const lemon_loss_options lemon__plain_loss = {0.0f, 1.0f, 1.0f};

static lemon_status lemon__objective_open(lemon_ctx *ctx, lemon_arena *arena, int64_t batch, int64_t seq,
                                          lemon__objective *q) {
    q->batch = batch;
    q->seq = seq;
    q->inputs = lemon__ids(ctx, arena, batch, seq);
    q->targets = lemon__ids(ctx, arena, batch, seq);
    return q->inputs && q->targets ? lemon_tape_open(ctx, &q->tape) : LEMON_E_MEMORY;
}

static void lemon__objective_loss(lemon__objective *q, const lemon_config *c, const lemon_var *weights,
                                  lemon_var taught, lemon_var teaching, const lemon_loss_options *options) {
    q->hidden = lemon__tape_llama(q->tape, c, weights, q->inputs, q->batch, q->seq, q->recompute);
    q->loss = lemon_tape_loss(q->tape, q->hidden, weights[lemon__param_index(c, LEMON_OUTPUT, 0)], q->targets, taught,
                              teaching, options);
}

/* ---- evaluation ---- */

enum { LEMON__EVAL_ROWS = 2048 };

/*  For n tokens; q->tape is to be closed whatever comes. */
static lemon_status lemon__eval_open(lemon_ctx *ctx, const lemon_model *model, lemon_arena *arena, int64_t n, int64_t seq,
                                     lemon__objective *q) {
    lemon_var *weights = lemon__ids(ctx, arena, 1, model->n_params);
    int64_t batch = lemon__max(1, lemon__min(LEMON__EVAL_ROWS / seq, lemon__ceil_div(n - 1, seq)));
    lemon_status status = weights ? lemon__objective_open(ctx, arena, batch, seq, q) : LEMON_E_MEMORY;
    if (status) return status;
    lemon__tape_weights(q->tape, model, NULL, weights);
    lemon__objective_loss(q, &model->config, weights, -1, -1, &lemon__plain_loss);
    return lemon_tape_plan(q->tape, 0, NULL);
}

/*  The mean over ids[1..n-1]; places beyond the last target get target -1 and do not count.  what: name for progress, or NULL
    for none. */
static lemon_status lemon__eval_run(lemon_ctx *ctx, const lemon__objective *e, const int32_t *ids, int64_t n,
                                    const char *what, double *loss) {
    lemon_status status = LEMON_OK;
    double sum = 0.0;
    int64_t step = e->batch * e->seq;
    for (int64_t at = 0; !status && at < n - 1; at += step) {
        const int64_t done = lemon__min(at + step, n - 1);
        for (int64_t i = 0; i < step; i++) {
            int inside = at + i + 1 < n;
            e->inputs[i] = inside ? ids[at + i] : 0;
            e->targets[i] = inside ? ids[at + i + 1] : -1;
        }
        status = lemon_tape_forward(e->tape);
        if (!status) sum += (double)lemon_tape_value(e->tape, e->loss)[0] * (double)(done - at);
        if (!status && what) status = lemon__tick(ctx, what, done, n - 1, sum / (double)done);
    }
    *loss = sum / (double)(n - 1);
    return status;
}

static lemon_status lemon__eval_once(lemon_ctx *ctx, const lemon_model *model, const int32_t *ids, int64_t n, int64_t seq,
                                     const char *what, double *loss) {
    lemon__objective e;
    lemon_arena arena = {NULL};
    memset(&e, 0, sizeof e);
    lemon_status status = lemon__eval_open(ctx, model, &arena, n, seq, &e);
    if (!status) status = lemon__eval_run(ctx, &e, ids, n, what, loss);
    lemon_tape_close(e.tape);
    lemon_arena_free(ctx, &arena);
    return status;
}

LEMON_API lemon_status lemon_eval(lemon_ctx *ctx, const lemon_model *model, const lemon_tokens *tokens, int64_t seq,
                                  int64_t max_tokens, double *loss, int64_t *counted) {
    if (lemon__lacks(ctx, __func__, model && tokens && loss)) return LEMON_E_ARG;
    if (seq < 0) return lemon__fail(ctx, LEMON_E_ARG, "seq is %lld, expected 0 or more", (long long)seq);
    int64_t n = max_tokens > 0 ? lemon__min(max_tokens, tokens->count) : tokens->count;
    seq = lemon__default_seq(&model->config, seq);
    lemon_status status = lemon__check_seq(ctx, &model->config, seq);
    if (!status && n < 2)
        status = lemon__fail(ctx, LEMON_E_ARG, "the text has %lld tokens, expected at least 2", (long long)n);
    if (!status) status = lemon__check_ids(ctx, model, tokens->ids, n);
    if (status) return status;
    lemon__tick_begin(ctx, "eval");
    status = lemon__eval_once(ctx, model, tokens->ids, n, seq, "eval", loss);
    if (counted) *counted = n - 1;
    return status;
}

/* ---- options ---- */

/*  By name, for they are many: what is not named is 0, and the moments f32. */
LEMON_API void lemon_train_defaults(lemon_train_options *o) {
    if (o == NULL) return;
    memset(o, 0, sizeof *o);
    o->steps = 100;
    o->batch = 8;
    o->accumulate = 1;
    o->lr = 1e-3;
    o->min_lr = -1.0;
    o->warmup = -1;
    o->weight_decay = 0.1;
    o->clip = 1.0;
    o->temperature = 1.0;
    o->seed = 1;
}

/*  Puts numbers in place of "choose for me". */
static void lemon__train_resolve(const lemon_config *c, lemon_train_options *o) {
    o->seq = lemon__default_seq(c, o->seq);
    if (o->min_lr < 0.0) o->min_lr = o->lr / 10.0;
    if (o->warmup < 0) o->warmup = o->steps / 20;
    if (o->teacher == NULL) o->distill = 0.0;
}

/*  The texts and the teacher fit the model. */
static lemon_status lemon__train_check_fit(lemon_ctx *ctx, const lemon_model *model, const lemon_tokens *tokens,
                                           const lemon_train_options *o) {
    const lemon_tokens *e = o->eval_tokens;
    lemon_status status = LEMON_OK;
    if (tokens->count < o->seq + 1)
        return lemon__fail(ctx, LEMON_E_ARG, "the text has %lld tokens, expected at least %lld (seq + 1); give more text or a "
                           "smaller seq", (long long)tokens->count, (long long)o->seq + 1);
    status = lemon__check_ids(ctx, model, tokens->ids, tokens->count);
    if (!status && o->teacher && o->teacher->config.vocab_size != model->config.vocab_size)
        status = lemon__fail(ctx, LEMON_E_ARG, "the teacher's vocab_size is %d, expected %d, the student's",
                             (int)o->teacher->config.vocab_size, (int)model->config.vocab_size);
    if (!status && o->teacher) status = lemon__check_seq(ctx, &o->teacher->config, o->seq);
    if (!status && e && e->count < 2)
        status = lemon__fail(ctx, LEMON_E_ARG, "the evaluation text has %lld tokens, expected at least 2",
                             (long long)e->count);
    return status || e == NULL ? status : lemon__check_ids(ctx, model, e->ids, e->count);
}

static lemon_status lemon__train_check(lemon_ctx *ctx, const lemon_model *model, const lemon_tokens *tokens,
                                       const lemon_train_options *o) {
    const struct { const char *name; int64_t value, low, high; } whole[] = {
        {"steps", o->steps, 1, INT64_C(1) << 40}, {"batch", o->batch, 1, 1 << 20},
        {"accumulate", o->accumulate, 1, o->batch}, {"eval_every", o->eval_every, 0, INT64_MAX},
        {"save_every", o->save_every, 0, INT64_MAX}};
    const struct { const char *name; double value, low, high; } real[] = {
        {"lr", o->lr, 0.0, 1e30},     {"min_lr", o->min_lr, 0.0, 1e30},  {"weight_decay", o->weight_decay, 0.0, 1e3},
        {"clip", o->clip, 0.0, 1e30}, {"distill", o->distill, 0.0, 1.0}, {"temperature", o->temperature, 1e-3, 1e3}};
    lemon_status status = lemon__check_seq(ctx, &model->config, o->seq);
    for (size_t i = 0; !status && i < sizeof whole / sizeof whole[0]; i++)
        status = lemon__check_whole(ctx, whole[i].name, whole[i].value, whole[i].low, whole[i].high);
    for (size_t i = 0; !status && i < sizeof real / sizeof real[0]; i++)
        if (!(real[i].value >= real[i].low && real[i].value <= real[i].high))
            status = lemon__fail(ctx, LEMON_E_ARG, "%s is %g, expected %g to %g", real[i].name, real[i].value,
                                 real[i].low, real[i].high);
    if (!status && o->moments != LEMON_F32 && o->moments != LEMON_BF16)
        status = lemon__fail(ctx, LEMON_E_ARG, "moments is %d, expected LEMON_F32 or LEMON_BF16", (int)o->moments);
    if (!status && o->batch % o->accumulate)
        status = lemon__fail(ctx, LEMON_E_ARG, "accumulate is %lld, expected a divisor of batch, which is %lld",
                             (long long)o->accumulate, (long long)o->batch);
    if (!status && o->accumulate % lemon__ranks(ctx))
        status = lemon__fail(ctx, LEMON_E_ARG, "accumulate is %lld, expected a multiple of the number of processes, %d",
                             (long long)o->accumulate, lemon__ranks(ctx));
    return status ? status : lemon__train_check_fit(ctx, model, tokens, o);
}

/*  The learning rate of step s = 1 ... steps. */
static double lemon__rate(const lemon_train_options *o, int64_t s) {      /* exercise 5 */
    if (s <= o->warmup) return o->lr * (double)s / (double)o->warmup;
    if (o->schedule == LEMON_CONSTANT || o->steps <= o->warmup) return o->lr;
    const double t = (double)(s - o->warmup) / (double)(o->steps - o->warmup);
    return o->min_lr + 0.5 * (o->lr - o->min_lr) * (1.0 + cos(3.141592653589793 * t));
}

LEMON__BRIEF_END
/* ---- the optimiser: the weights cut into segments that lie within one parameter each ---- */

enum { LEMON__SEGMENT = 16384, LEMON__PIECE = 512, LEMON__RECENT = 10 };

typedef struct lemon__segment { int64_t at, count, param; float decay; } lemon__segment;

typedef struct lemon__adam {
    float *w, *g;                       /* [count] */
    lemon_tensor m, v;                  /* [1, count] the moments, f32 or bf16 */
    int64_t count, n_segments;
    lemon__segment *segments;
    double *squares;                    /* [n_segments] sums of g^2 */
    float rate, scale, unbias_m, unbias_v;      /* of this step: lr, by clipping, 1 / (1 - 0.9^n), 1 / (1 - 0.95^n) */
    lemon_isa isa;
} lemon__adam;

/*  Memory for a->count numbers in at most n segments. */
static lemon_status lemon__adam_make(lemon_ctx *ctx, lemon_arena *arena, int64_t n, lemon_dtype moments, lemon__adam *a) {
    const size_t each = lemon_row_bytes(moments, 1);
    a->isa = ctx->isa;
    a->g = lemon__floats(ctx, arena, 1, a->count);
    a->m = lemon__view(lemon__numbers(ctx, arena, 1, a->count, each), moments, 1, a->count);
    a->v = lemon__view(lemon__numbers(ctx, arena, 1, a->count, each), moments, 1, a->count);
    a->segments = (lemon__segment *)lemon_arena_alloc(ctx, arena, (size_t)n * sizeof *a->segments);
    a->squares = (double *)lemon_arena_alloc(ctx, arena, (size_t)n * sizeof *a->squares);
    return a->g && a->m.data && a->v.data && a->segments && a->squares ? LEMON_OK : LEMON_E_MEMORY;
}

/*  Cuts `size` numbers from `begin` on, which belong to one parameter, into segments. */
static void lemon__adam_segments(lemon__adam *a, int64_t begin, int64_t size, int64_t param, float decay) {
    for (int64_t at = 0; at < size; at += LEMON__SEGMENT) {
        const lemon__segment s = {begin + at, lemon__min(LEMON__SEGMENT, size - at), param, decay};
        a->segments[a->n_segments++] = s;
    }
}

static lemon_status lemon__adam_open(lemon_ctx *ctx, lemon_arena *arena, const lemon_model *model, double decay,
                                     lemon_dtype moments, lemon__adam *a) {
    int64_t layer, most = model->n_params + model->block_count / LEMON__SEGMENT;
    a->w = model->block;
    a->count = model->block_count;
    if (lemon__adam_make(ctx, arena, most, moments, a)) return LEMON_E_MEMORY;
    for (int64_t i = 0; i < model->n_params; i++) {
        const lemon_tensor *t = &model->params[i];
        int matrix = lemon__roles[lemon__param_role(&model->config, i, &layer)].matrix;
        lemon__adam_segments(a, (const float *)t->data - model->block, t->rows * t->cols, i, matrix ? (float)decay : 0.0f);
    }
    return LEMON_OK;
}

/*  One pass over w, g, m, v, which leaves what w was in g; vectors by name, for compilers may not vectorise a square root
    that sets errno. */
#define LEMON__SQRT_one sqrtf
#define LEMON__SQRT_m256 _mm256_sqrt_ps
#define LEMON__SQRT_m512(x) _mm512_maskz_sqrt_ps(0xffff, x)
#define LEMON__SQRT_wasm wasm_f32x4_sqrt
#define LEMON__ADAM(V) \
LEMON__TARGET_##V LEMON__INLINE LEMON__VEC_##V lemon__blend_##V(float keep, LEMON__VEC_##V old, LEMON__VEC_##V more) { \
    return LEMON__ADD_##V(LEMON__MUL_##V(LEMON__SET_##V(keep), old), more); \
} \
LEMON__TARGET_##V static int64_t lemon__adam_##V(const lemon__adam *a, const lemon__segment *s, float *m, float *v, \
                                                 int64_t i) { \
    enum { lanes = sizeof(LEMON__VEC_##V) / 4 }; \
    float *w = a->w + s->at, *g = a->g + s->at; \
    LEMON__VEC_##V x, mean, square, step; \
    for (; i + lanes <= s->count; i += lanes) { \
        x = LEMON__MUL_##V(LEMON__GET_##V(g + i), LEMON__SET_##V(a->scale)); \
        mean = lemon__blend_##V(0.9f, LEMON__GET_##V(m + i), LEMON__MUL_##V(LEMON__SET_##V(0.1f), x)); \
        square = LEMON__MUL_##V(LEMON__MUL_##V(LEMON__SET_##V(0.05f), x), x); \
        square = lemon__blend_##V(0.95f, LEMON__GET_##V(v + i), square); \
        step = LEMON__SQRT_##V(LEMON__MUL_##V(square, LEMON__SET_##V(a->unbias_v))); \
        step = LEMON__DIV_##V(LEMON__MUL_##V(mean, LEMON__SET_##V(a->unbias_m)), \
                              LEMON__ADD_##V(step, LEMON__SET_##V(1e-8f))); \
        step = lemon__blend_##V(s->decay, LEMON__GET_##V(w + i), step); \
        LEMON__PUT_##V(m + i, mean); \
        LEMON__PUT_##V(v + i, square); \
        LEMON__PUT_##V(g + i, LEMON__GET_##V(w + i)); \
        LEMON__PUT_##V(w + i, LEMON__SUB_##V(LEMON__GET_##V(w + i), LEMON__MUL_##V(LEMON__SET_##V(a->rate), step))); \
    } \
    return i; \
}
LEMON__ADAM(one)
LEMON__VECTORS(LEMON__ADAM)

/*  Some of a parameter's numbers; m, v: their moments. */
#define LEMON__ADAM_OF(V) if (a->isa == LEMON__ISA_##V) done = lemon__adam_##V(a, s, m, v, 0);
static void lemon__adam_piece(const lemon__adam *a, const lemon__segment *s, float *m, float *v) {
    int64_t done = 0;
    LEMON__VECTORS(LEMON__ADAM_OF)
    lemon__adam_one(a, s, m, v, done);
}

/*  A segment; moments of bf16 are widened and rounded again piece by piece, in cache.  Rounding to nearest will do: a step
    moves them by a twentieth or more of what is new, and bf16 rounds off less than a 256th. */
static void lemon__adam_task(void *arg, int64_t index, int worker) {
    const lemon__adam *a = (const lemon__adam *)arg;
    lemon__segment s = a->segments[index];
    const int64_t end = s.at + s.count;
    const size_t each = lemon_row_bytes(a->m.dtype, 1);
    float wide_m[LEMON__PIECE], wide_v[LEMON__PIECE];
    (void)worker;
    if (a->m.dtype == LEMON_F32) {
        lemon__adam_piece(a, &s, (float *)a->m.data + s.at, (float *)a->v.data + s.at);
        return;
    }
    for (; s.at < end; s.at += s.count) {
        s.count = lemon__min(LEMON__PIECE, end - s.at);
        lemon_tensor m = lemon__view((uint8_t *)a->m.data + (size_t)s.at * each, a->m.dtype, 1, s.count);
        lemon_tensor v = lemon__view((uint8_t *)a->v.data + (size_t)s.at * each, a->v.dtype, 1, s.count);
        lemon_row_to_f32(&m, 0, wide_m);
        lemon_row_to_f32(&v, 0, wide_v);
        lemon__adam_piece(a, &s, wide_m, wide_v);
        lemon_row_from_f32(&m, 0, wide_m);
        lemon_row_from_f32(&v, 0, wide_v);
    }
}

static void lemon__square_task(void *arg, int64_t index, int worker) {
    const lemon__adam *a = (const lemon__adam *)arg;
    const lemon__segment *s = &a->segments[index];
    const float *g = a->g + s->at;
    (void)worker;
    a->squares[index] = 0.0;
    for (int64_t i = 0; i < s->count; i += 256)
        a->squares[index] += (double)lemon__dot(g + i, g + i, lemon__min(256, s->count - i));
}

/*  The length of the whole gradient. */
static double lemon__adam_norm(lemon_ctx *ctx, lemon__adam *a) {
    double sum = 0.0;
    lemon__parallel(ctx, a->n_segments, lemon__square_task, a);
    for (int64_t i = 0; i < a->n_segments; i++) sum += a->squares[i];
    return sqrt(sum);
}

/*  Update number `step` (from 1) with a gradient that is `norm` long, clipped to `clip` if that is not 0. */
static void lemon__adam_step(lemon_ctx *ctx, lemon__adam *a, int64_t step, double rate, double norm, double clip) {
    a->rate = (float)rate;
    a->scale = clip > 0.0 && norm > clip ? (float)(clip / norm) : 1.0f;
    a->unbias_m = (float)(1.0 / (1.0 - pow(0.9, (double)step)));
    a->unbias_v = (float)(1.0 / (1.0 - pow(0.95, (double)step)));
    lemon__parallel(ctx, a->n_segments, lemon__adam_task, a);
}

LEMON__BRIEF_BEGIN
/* ---- which windows a step takes ---- */

typedef struct lemon__windows {
    const lemon_tokens *tokens;
    int64_t seq, count;                 /* full windows in the text */
    lemon_order order;
    uint64_t seed;
    int64_t epoch;                      /* of the permutation at hand; -1: none */
    int64_t *permutation;               /* [count] */
} lemon__windows;

static lemon_status lemon__windows_open(lemon_ctx *ctx, lemon_arena *arena, const lemon_tokens *tokens, int64_t seq,
                                        lemon_order order, uint64_t seed, lemon__windows *w) {
    const lemon__windows fresh = {tokens, seq, (tokens->count - 1) / seq, order, seed, -1, NULL};
    *w = fresh;
    w->permutation = (int64_t *)lemon_arena_alloc(ctx, arena, (size_t)w->count * sizeof *w->permutation);
    return w->permutation ? LEMON_OK : LEMON_E_MEMORY;
}

static void lemon__windows_shuffle(lemon__windows *w, int64_t epoch) {
    lemon_rng rng;
    lemon_rng_seed(&rng, w->seed ^ (uint64_t)epoch * 0xd1342543de82ef95u);
    for (int64_t i = 0; i < w->count; i++) w->permutation[i] = i;
    for (int64_t i = w->count - 1; i > 0; i--) {
        int64_t j = lemon_rng_below(&rng, i + 1);
        int64_t t = w->permutation[i]; w->permutation[i] = w->permutation[j]; w->permutation[j] = t;
    }
    w->epoch = epoch;
}

/*  Which window stands at a position in the endless sequence of epochs. */
static int64_t lemon__windows_at(lemon__windows *w, int64_t position) {
    if (w->order == LEMON_SEQUENTIAL) return position % w->count;
    if (w->epoch != position / w->count) lemon__windows_shuffle(w, position / w->count);
    return w->permutation[position % w->count];
}

/*  The windows from position on, as the tape reads them. */
static void lemon__objective_fill(lemon__objective *q, lemon__windows *windows, int64_t position) {
    int64_t seq = q->seq;
    for (int64_t i = 0; i < q->batch; i++) {
        int64_t row = lemon__windows_at(windows, position + i) * seq;
        memcpy(q->inputs + i * seq, windows->tokens->ids + row, (size_t)seq * sizeof *q->inputs);
        memcpy(q->targets + i * seq, windows->tokens->ids + row + 1, (size_t)seq * sizeof *q->targets);
        if (q->taught)
            memcpy(q->taught + i * seq * q->width, q->states + row * q->width, (size_t)(seq * q->width) * sizeof *q->taught);
    }
}

/* ---- the trainer ---- */

typedef struct lemon__trainer {
    lemon_ctx *ctx;
    lemon_model *model;
    lemon_train_options o;              /* resolved */
    lemon_arena arena, large;           /* large: gradients and moments */
    lemon__adam adam;
    lemon__windows windows;
    lemon__objective q, eval;           /* on one part of a batch; on the text held out */
    int64_t done;                       /* steps */
    uint32_t data_crc, teacher_crc;
    double recent[LEMON__RECENT];       /* losses of the last steps */
    double started;
    size_t planned, scratch;
    int stepped;                        /* adam.g holds the weights of before the last step */
} lemon__trainer;

/*  A forward pass over whole sequences, some at a time, and the keys and values of the layer at hand. */
typedef struct lemon__run { lemon__walk walk; float *k, *v; } lemon__run;

static lemon_status lemon__run_open(lemon_ctx *ctx, lemon_arena *arena, const lemon_model *model, int64_t batch,
                                    int64_t seq, lemon__run *run) {
    int64_t width = lemon_joint_size(&model->config, LEMON_JOINT_KEY);
    lemon_status status = lemon__walk_open(ctx, arena, model, batch * seq, seq, &run->walk);
    run->k = lemon__floats(ctx, arena, batch * seq, width);
    run->v = lemon__floats(ctx, arena, batch * seq, width);
    run->walk.batch = batch;
    run->walk.seq = run->walk.kv_rows = seq;
    return status ? status : run->k && run->v ? LEMON_OK : LEMON_E_MEMORY;
}

/*  The teacher's last normed states for the whole text, window by window, 1,024 rows or a window at a time. */
static lemon_status lemon__trainer_ask(lemon__trainer *t, float *states) {
    const lemon_model *teacher = t->o.teacher;
    const int64_t seq = t->o.seq, most = lemon__max(1, 1024 / seq), d = teacher->config.d_model;
    lemon_arena arena = {NULL};
    lemon__run run;
    lemon__walk *w = &run.walk;
    lemon_status status = lemon__run_open(t->ctx, &arena, teacher, most, seq, &run);
    for (int64_t at = 0; !status && at < t->windows.count; at += w->batch) {
        w->batch = lemon__min(most, t->windows.count - at);
        w->x = states + at * seq * d;
        lemon__walk_embed(w, t->windows.tokens->ids + at * seq);
        for (int64_t layer = 0; layer < teacher->config.n_layers; layer++) lemon__walk_layer(w, layer, run.k, run.v);
        lemon__walk_norm(w, LEMON_FINAL_NORM, 0);
        memcpy(w->x, w->y, (size_t)(lemon__walk_rows(w) * d) * sizeof *w->x);
        status = lemon__tick(t->ctx, "ask the teacher", at + w->batch, t->windows.count, (double)NAN);
    }
    lemon_arena_free(t->ctx, &arena);
    return status;
}

/*  The teacher's last states on the tape: made at each step, or kept from one reading of the text. */
static lemon_var lemon__trainer_taught(lemon__trainer *t, const lemon_var *theirs) {
    const lemon_config *teacher = &t->o.teacher->config;
    lemon__objective *q = &t->q;
    const int64_t rows = q->batch * q->seq;
    if (!t->o.keep_teacher) return lemon__tape_llama(q->tape, teacher, theirs, q->inputs, q->batch, q->seq, 0);
    q->width = teacher->d_model;
    q->states = lemon__floats(t->ctx, &t->arena, t->windows.count * q->seq, q->width);
    q->taught = lemon__floats(t->ctx, &t->arena, rows, q->width);
    return q->states && q->taught ? lemon_tape_leaf(q->tape, q->taught, NULL, rows, q->width) : -1;
}

static lemon_status lemon__trainer_tape(lemon__trainer *t) {
    const lemon_train_options *o = &t->o;
    const lemon_model *teacher = o->distill > 0.0 ? o->teacher : NULL;
    const lemon_loss_options loss = {(float)o->distill, (float)o->temperature, (float)(1.0 / (double)o->accumulate)};
    lemon_var *weights = lemon__ids(t->ctx, &t->arena, 1, t->model->n_params), taught = -1, teaching = -1,
              *theirs = lemon__ids(t->ctx, &t->arena, 1, teacher ? teacher->n_params : 0);
    lemon_status status = lemon__objective_open(t->ctx, &t->arena, o->batch / o->accumulate, o->seq, &t->q);
    if (status || weights == NULL || theirs == NULL) return LEMON_E_MEMORY;
    t->q.recompute = o->recompute;
    if (teacher) {
        lemon__tape_weights(t->q.tape, teacher, NULL, theirs);
        taught = lemon__trainer_taught(t, theirs);
        teaching = theirs[lemon__param_index(&teacher->config, LEMON_OUTPUT, 0)];
    }
    lemon__tape_weights(t->q.tape, t->model, t->adam.g, weights);
    lemon__objective_loss(&t->q, &t->model->config, weights, taught, teaching, &loss);
    return lemon_tape_plan(t->q.tape, 1, NULL);
}

/*  What saving takes, mostly the tokenizer's text: asked for and given back, so that no run ends for want of it. */
static lemon_status lemon__trainer_save_room(lemon__trainer *t) {
    const size_t room = ((size_t)3 << 20) + 128 * (size_t)t->model->config.vocab_size;
    void *p = lemon__malloc(t->ctx, room);
    lemon__free(t->ctx, p, room);
    return p ? LEMON_OK : LEMON_E_MEMORY;
}

/*  All memory that the run will need. */
static lemon_status lemon__trainer_claim(lemon__trainer *t, const lemon_tokens *tokens) {
    const lemon_tokens *e = t->o.eval_tokens;
    lemon_status status = lemon__adam_open(t->ctx, &t->large, t->model, t->o.weight_decay, t->o.moments,
                                           &t->adam);
    if (!status) status = lemon__windows_open(t->ctx, &t->arena, tokens, t->o.seq, t->o.order, t->o.seed, &t->windows);
    if (!status) status = lemon__trainer_tape(t);
    if (!status && e) status = lemon__eval_open(t->ctx, t->model, &t->arena, e->count, t->o.seq, &t->eval);
    return status || t->o.save_path == NULL ? status : lemon__trainer_save_room(t);
}

static void lemon__trainer_release(lemon__trainer *t) {
    lemon_tape_close(t->q.tape);
    lemon_tape_close(t->eval.tape);
    lemon_arena_free(t->ctx, &t->arena);
    lemon_arena_free(t->ctx, &t->large);
    memset(&t->q, 0, sizeof t->q);
    memset(&t->eval, 0, sizeof t->eval);
    memset(&t->adam, 0, sizeof t->adam);
}

/*  Where that is too much, gradients and moments lie in scratch: a step reads and writes them from end to end, as disks like
    it. */
static lemon_status lemon__trainer_memory(lemon__trainer *t, const lemon_tokens *tokens) {
    const size_t peak = t->ctx->peak;
    const int64_t numbers = (t->o.moments == LEMON_F32 ? 3 : 2) * t->model->block_count;
    lemon_status status = lemon__trainer_claim(t, tokens);
    if (status == LEMON_E_MEMORY && lemon__scratch_path(t->ctx)) {
        lemon__trainer_release(t);
        t->ctx->peak = peak;                            /* of what comes to nothing there is no memory in use */
        t->scratch = (size_t)numbers * sizeof(float);
        status = lemon__arena_scratch_beside(t->ctx, &t->large, ".training", numbers);
        if (!status) status = lemon__trainer_claim(t, tokens);
    }
    if (status != LEMON_E_MEMORY || (t->scratch && t->q.tape == NULL)) return status;   /* a full disk was told by name */
    return lemon__fail(t->ctx, LEMON_E_MEMORY, "out of memory: of %.4g MB, %.4g MB are in use, and activations of batch %lld "
                       "/ %lld, seq %lld take %.4g MB more; give a smaller batch or seq, accumulate, recompute, or a file in "
                       "place of memory (scratch; --max-memory)",
                       (double)t->ctx->options.memory / 1e6, (double)t->ctx->bytes / 1e6, (long long)t->o.batch,
                       (long long)t->o.accumulate, (long long)t->o.seq, t->q.tape ? (double)t->q.tape->plan_bytes / 1e6 : 0.0);
}

static lemon_status lemon__trainer_open(lemon__trainer *t, const lemon_tokens *tokens) {
    lemon_status status = lemon__trainer_memory(t, tokens);
    if (!status && t->q.states) status = lemon__trainer_ask(t, t->q.states);
    if (status) return status;
    t->data_crc = lemon_crc32(0, tokens->ids, (size_t)tokens->count * sizeof *tokens->ids);
    t->teacher_crc = lemon__model_crc(t->ctx, t->o.teacher, 0);
    t->planned = t->ctx->peak;          /* nothing is allocated from here on */
    if (t->o.on_plan) t->o.on_plan(t->o.user, t->planned, t->scratch);
    return LEMON_OK;
}

/* ---- saving and resuming ---- */

/*  All that decides the course of a run, by the names of the tool's flags. */
typedef struct lemon__condition { const char *name; double value; } lemon__condition;
enum { LEMON__CONDITIONS = 17 };

static void lemon__train_conditions(const lemon__trainer *t, lemon__condition *out) {
    const lemon_train_options *o = &t->o;
    const int falls = o->schedule == LEMON_COSINE;      /* a constant rate may go on for longer, and a warm-up of 1 is none */
    const int64_t warmup = falls ? o->warmup : lemon__max(1, o->warmup);
    const lemon__condition list[LEMON__CONDITIONS] = {
        {"schedule", (double)o->schedule}, {"steps", falls ? (double)o->steps : 0.0}, {"batch", (double)o->batch},
        {"seq", (double)o->seq}, {"accumulate", (double)o->accumulate}, {"lr", o->lr},
        {"min-lr", falls ? o->min_lr : 0.0}, {"warmup", (double)warmup}, {"weight-decay", o->weight_decay}, {"clip", o->clip},
        {"distill", o->distill}, {"temperature", o->temperature}, {"order", (double)o->order}, {"seed", (double)o->seed},
        {"moments", (double)o->moments}, {"data", (double)t->data_crc}, {"teacher", (double)t->teacher_crc}};
    memcpy(out, list, sizeof list);
}

static lemon_status lemon__resume_path(lemon__trainer *t, char *path, size_t size) {
    if (lemon__format(path, size, "%s.resume", t->o.save_path) < (int)size) return LEMON_OK;
    return lemon__fail(t->ctx, LEMON_E_ARG, "the path to save to has %lu bytes, expected at most %lu",
                       (unsigned long)strlen(t->o.save_path), (unsigned long)size - 8);
}

/*  The numbers that a later run needs to go on. */
enum { LEMON__STATES = 4 };
static const char *const lemon__state_names[LEMON__STATES] = {"weights", "m", "v", "recent"};

static lemon_tensor lemon__trainer_state(lemon__trainer *t, int i) {
    if (i == 0) return lemon__view(t->adam.w, LEMON_F32, 1, t->adam.count);
    if (i < 3) return i == 1 ? t->adam.m : t->adam.v;
    return lemon__view(t->recent, LEMON_F64, 1, LEMON__RECENT);
}

static lemon_status lemon__trainer_save_state(lemon__trainer *t) {
    lemon__condition conditions[LEMON__CONDITIONS];
    lemon__pack pack;
    char path[4096];
    lemon_status status = lemon__resume_path(t, path, sizeof path);
    if (status) return status;
    lemon__pack_open(t->ctx, &pack);
    lemon__pack_text(&pack, "requires", "training", 8);
    lemon__pack_config(&pack, "", &t->model->config);
    lemon__train_conditions(t, conditions);
    for (int i = 0; i < LEMON__CONDITIONS; i++) lemon__pack_real(&pack, conditions[i].name, conditions[i].value);
    lemon__pack_int(&pack, "done", t->done);
    for (int i = 0; i < LEMON__STATES; i++) {
        lemon_tensor state = lemon__trainer_state(t, i);
        lemon__pack_tensor(&pack, lemon__state_names[i], &state, state.dtype);
    }
    status = lemon__pack_write_file(&pack, path);
    lemon__pack_close(&pack);
    return status;
}

/*  The model, and what a later run needs to go on. */
static lemon_status lemon__trainer_save(lemon__trainer *t, int state) {
    if (t->o.save_path == NULL || t->ctx->options.rank > 0) return LEMON_OK;
    lemon_status status = lemon_save(t->ctx, t->o.save_path, t->model, LEMON_F32);
    return status || !state ? status : lemon__trainer_save_state(t);
}

static lemon_status lemon__resume_check(const lemon__trainer *t, const lemon__unpack *u) {
    lemon__condition now[LEMON__CONDITIONS];
    lemon_config config;
    double then = 0.0;
    lemon_status status = lemon__unpack_config(u, "", &config);
    if (!status && memcmp(&config, &t->model->config, sizeof config) != 0)
        status = lemon__refuse(u, LEMON_E_ARG, "is of a model of another shape; give the model with which the run began");
    lemon__train_conditions(t, now);
    for (int i = 0; !status && i < LEMON__CONDITIONS; i++) {
        status = lemon__unpack_real(u, now[i].name, &then);
        if (!status && (then < now[i].value || then > now[i].value))
            status = lemon__refuse(u, LEMON_E_ARG,
                                   "--%s is %.9g, expected %.9g, with which the run began; give the same, or begin "
                                   "anew without --resume", now[i].name, now[i].value, then);
    }
    return status;
}

static lemon_status lemon__trainer_resume(lemon__trainer *t) {
    lemon_reader reader;
    lemon__unpack u;
    char path[4096];
    lemon_status status = t->o.save_path ? lemon__resume_path(t, path, sizeof path)
                                         : lemon__fail(t->ctx, LEMON_E_ARG, "resume needs save_path");
    if (!status) status = lemon_file_reader(t->ctx, path, &reader);
    if (!status) status = lemon__unpack_open(t->ctx, &reader, "training", "training", &u);
    if (status) return status;
    status = lemon__resume_check(t, &u);
    if (!status) status = lemon__unpack_int(&u, "done", &t->done);
    if (!status && (t->done < 0 || t->done > t->o.steps))
        status = lemon__fail(t->ctx, LEMON_E_ARG, "%s: %lld steps are done, expected at most --steps, which is %lld",
                             path, (long long)t->done, (long long)t->o.steps);
    for (int i = 0; !status && i < LEMON__STATES; i++) {
        lemon_tensor to = lemon__trainer_state(t, i), found;
        status = lemon__unpack_shaped(&u, lemon__state_names[i], to.dtype, 1, to.cols, "the model's size", &found);
        if (!status) memcpy(to.data, found.data, lemon_tensor_bytes(&to));
    }
    lemon__unpack_close(&u);
    return status;
}

/* ---- one step, and all of them ---- */

/*  Weights that give states which are not finite are taken back: those of before the last step gave a loss.  Not with
    several processes, which would have to agree on it. */
static int lemon__trainer_undo(lemon__trainer *t) {
    const float *states = (const float *)t->q.tape->values[t->q.hidden].tensor.data;       /* the loss has yet to read them */
    const int64_t d = t->model->config.d_model;
    int64_t row = 0;
    if (!t->stepped || lemon__ranks(t->ctx) > 1) return 0;
    while (row < t->q.batch * t->q.seq && lemon__finite((double)lemon__dot(states + row * d, states + row * d, d))) row++;
    if (row == t->q.batch * t->q.seq) return 0;
    memcpy(t->adam.w, t->adam.g, (size_t)t->adam.count * sizeof *t->adam.w);
    t->done--;
    return 1;
}

/*  The gradient of a whole batch in adam.g, and the step's loss and KL. */
static lemon_status lemon__trainer_gradient(lemon__trainer *t, lemon_step *step) {
    const int64_t first = t->ctx->options.rank;
    lemon_status status = LEMON_OK;
    if (first >= t->o.accumulate) memset(t->adam.g, 0, (size_t)t->adam.count * sizeof *t->adam.g);
    for (int64_t part = first; !status && part < t->o.accumulate; part += lemon__ranks(t->ctx)) {
        lemon__objective_fill(&t->q, &t->windows, t->done * t->o.batch + part * t->q.batch);
        status = lemon_tape_forward(t->q.tape);
        if (!status && part == first) {
            if (lemon__trainer_undo(t)) { step->loss = (double)NAN; return LEMON_OK; }
            memset(t->adam.g, 0, (size_t)t->adam.count * sizeof *t->adam.g);
        }
        if (!status) status = lemon_tape_backward(t->q.tape);
        if (status) break;
        step->loss += (double)lemon_tape_value(t->q.tape, t->q.loss)[0] / (double)t->o.accumulate;
        step->kl += (double)lemon_tape_value(t->q.tape, t->q.loss)[1] / (double)t->o.accumulate;
    }
    if (!status) status = lemon__all_reduce(t->ctx, t->adam.g, t->adam.count, sizeof *t->adam.g);
    if (!status) status = lemon__all_reduce(t->ctx, &step->loss, 1, sizeof step->loss);
    return status ? status : lemon__all_reduce(t->ctx, &step->kl, 1, sizeof step->kl);
}

static lemon_status lemon__trainer_diverged(lemon__trainer *t, const lemon_step *step) {
    char name[64] = "loss";
    int64_t i;
    for (i = 0; i < t->adam.n_segments && lemon__finite(t->adam.squares[i]); i++) {}
    if (i < t->adam.n_segments)
        lemon__param_name(t->model, t->adam.segments[i].param, LEMON__STYLE_LEMON, NULL, name, sizeof name);
    lemon__trainer_save(t, t->done + 1 == step->step);          /* moments are not taken back: then there is no going on */
    return lemon__fail(t->ctx, LEMON_E_DIVERGED,
                       "step %lld: the loss is %g, the gradient of \"%s\" is not finite; the weights are "
                       "those after step %lld; %s", (long long)step->step, step->loss, name, (long long)t->done,
                       step->step > 1 ? "lower lr or clip more" : "look for NaN or Inf in the model and its teacher");
}

static lemon_status lemon__trainer_eval(lemon__trainer *t, double *loss) {
    const lemon_tokens *e = t->o.eval_tokens;
    return lemon__eval_run(t->ctx, &t->eval, e->ids, e->count, NULL, loss);
}

static lemon_status lemon__trainer_step(lemon__trainer *t) {
    lemon_step step = {t->done + 1, (t->done + 1) * t->o.batch * t->o.seq, 0.0, 0.0, lemon__rate(&t->o, t->done + 1),
                       0.0, 0.0, (double)NAN};
    lemon_status status = lemon__trainer_gradient(t, &step);
    if (status) return status;
    step.grad_norm = lemon__adam_norm(t->ctx, &t->adam);
    if (!lemon__finite(step.loss) || !lemon__finite(step.kl) || !lemon__finite(step.grad_norm))
        return lemon__trainer_diverged(t, &step);
    lemon__adam_step(t->ctx, &t->adam, step.step, step.lr, step.grad_norm, t->o.clip);
    t->stepped = 1;
    t->recent[t->done % LEMON__RECENT] = step.loss;
    t->done++;
    if (t->o.eval_tokens && t->o.eval_every > 0 && t->done % t->o.eval_every == 0)
        status = lemon__trainer_eval(t, &step.eval_loss);
    step.seconds = lemon__seconds() - t->started;
    if (!status && t->o.on_step) t->o.on_step(t->o.user, &step);
    if (!status) status = lemon__tick(t->ctx, "train", t->done, t->o.steps, step.loss);
    if (status == LEMON_E_CANCELLED && t->done == t->o.steps) status = LEMON_OK;       /* nothing was left to stop */
    if (status == LEMON_E_CANCELLED) {
        status = lemon__trainer_save(t, 1);
        return status ? status : lemon__fail(t->ctx, LEMON_E_CANCELLED, "training was stopped after step %lld of %lld",
                                             (long long)t->done, (long long)t->o.steps);
    }
    if (!status && t->o.save_every > 0 && (t->done % t->o.save_every == 0 || t->done == t->o.steps))
        status = lemon__trainer_save(t, 1);
    return status;
}

static lemon_status lemon__trainer_finish(lemon__trainer *t, lemon_train_result *result) {
    const lemon_train_result fresh = {t->done, t->done * t->o.batch * t->o.seq, 0.0, (double)NAN, 0.0, t->planned, t->scratch};
    int64_t n = lemon__min(t->done, LEMON__RECENT);
    lemon_status status = LEMON_OK;
    *result = fresh;
    for (int64_t i = 0; i < n; i++) result->train_loss += t->recent[i] / (double)n;
    if (t->o.eval_tokens) status = lemon__trainer_eval(t, &result->eval_loss);
    result->seconds = lemon__seconds() - t->started;
    return status;
}

LEMON_API lemon_status lemon_train(lemon_ctx *ctx, lemon_model *model, const lemon_tokens *tokens,
                                   const lemon_train_options *options, lemon_train_result *result) {
    lemon__trainer t;
    lemon_train_result ignored;
    if (lemon__lacks(ctx, __func__, model && tokens && options)) return LEMON_E_ARG;
    if (model->block == NULL)
        return lemon__fail(ctx, LEMON_E_ARG,
                           "lemon_train: the model does not own f32 weights; lemon_model_clone makes one that does");
    memset(&t, 0, sizeof t);
    t.ctx = ctx;
    t.model = model;
    t.o = *options;
    t.started = lemon__seconds();
    lemon__tick_begin(ctx, "train");
    lemon__train_resolve(&model->config, &t.o);
    lemon_status status = lemon__train_check(ctx, model, tokens, &t.o);
    if (!status) status = lemon__trainer_open(&t, tokens);
    if (!status && t.o.resume) status = lemon__trainer_resume(&t);
    while (!status && t.done < t.o.steps) status = lemon__trainer_step(&t);
    if (!status) status = lemon__trainer_finish(&t, result ? result : &ignored);
    if (!status && (t.o.save_every == 0 || t.o.resume)) status = lemon__trainer_save(&t, 0);   /* nothing was left to do */
    lemon__trainer_release(&t);
    return lemon__memory_or_file(ctx, status);
}

LEMON__BRIEF_END
#ifndef LEMON_NO_FUSE
LEMON__BRIEF_BEGIN
/* ====================================================================================================================
   12  FUSION

   Every way of making a small transformer from the weights of a large one is a choice of the same two linear operators.
   The layer operator says which teacher layers a student layer is made of; the dimension operator is a pair of maps at
   each joint of the network, a write map on the output side of a matrix and a read map on its input side:

        W_student = sum over k in the field of  weight_k * Out_k * W_k * In_k^T   (+ a correction, where one was solved)
        [out, in]            Out_k [out, teacher's out], W_k [teacher's out, teacher's in], In_k [in, teacher's in]

   There is one type for them (lemon_operators), one function that applies them, and a row in a table for each method that
   fills them:

        select, drop      channels evenly spaced; the first layers, or spaced ones           Xu et al. 2024 (2311.18823)
        subclone          channels ranked by activation, rescaled; spaced layers             Samragh et al. 2023 (2312.09299)
        slicegpt          channels by principal components                                   Ashkboos et al. 2024 (2401.15024)
        modegpt           pairs of matrices decomposed: Nystrom, CR, SVD                     Lin et al. 2024 (2408.09632)
        ligo              from a selection, operators learned by gradients                   Wang et al. 2023 (2303.00980)
        lemon             operators solved on activations by least squares, layer by layer, and learned where asked for;
                          without the solving, learned alone: the recipe of the paper        Chen et al. 2024

   How lemon solves.  Some text goes through the teacher.  Those of its layers are kept that turn the stream most, the ends
   always.  The student's residual stream is a projection P of the teacher's on the directions in which its normalised
   activations vary most.  Then, layer by layer, with the activations of both models on the same text at hand:
     1. read maps: the student's normalised activation y_s must predict the teacher's y_t:  In^T = E[y_t y_s^T] E[y_s y_s^T]^-1;
     2. heads and neurons are chosen by how much they write;
     3. the matrices that write to the stream are solved against what the student still lacks, P x_t - x_s, over all
        teacher layers up to the next one that is kept: so dropped layers are made up for, and errors do not pile up.
   Each solution is pulled towards plain fusion, by a ridge whose strength is chosen on a tenth of the text held out.

   How lemon learns.  What is solved layer by layer is not the best for the whole.  So the student then goes four times
   through the text, a window a step, and all its weights move by gradients towards the teacher's predictions, which are
   made once (nine tenths of the loss), and the text (one tenth); where they come to is the correction.  Small steps on
   soft targets get far more out of a little text than a pass of training does: after this, solving needs only as many
   rows as its unknowns ask for.
   ================================================================================================================== */

/* ---- places: which map stands at which side of which role ---- */

static const struct { const char *name; lemon_joint joint; int per_layer; } lemon__places[LEMON_PLACE_COUNT] = {
    {"residual", LEMON_JOINT_RESIDUAL, 0}, {"gain", LEMON_JOINT_RESIDUAL, 0}, {"read_output", LEMON_JOINT_RESIDUAL, 0},
    {"read_attn", LEMON_JOINT_RESIDUAL, 1}, {"read_ffn", LEMON_JOINT_RESIDUAL, 1}, {"query", LEMON_JOINT_QUERY, 1},
    {"key", LEMON_JOINT_KEY, 1}, {"value", LEMON_JOINT_VALUE, 1}, {"read_heads", LEMON_JOINT_HEADS, 1},
    {"ffn", LEMON_JOINT_FFN, 1}, {"read_neurons", LEMON_JOINT_FFN, 1}, {"query_norm", LEMON_JOINT_HEAD, 1},
    {"key_norm", LEMON_JOINT_HEAD, 1}};

/*  out, in: places of a role's maps (LEMON_PLACE_COUNT: none, the vocabulary), a bias being the row of its matrix's
    outputs; gain: the norm whose gain the role reads (LEMON_ROLE_COUNT: none). */
static const struct { lemon_place out, in; lemon_role gain; } lemon__role_places[LEMON_ROLE_COUNT] = {
    {LEMON_PLACE_COUNT, LEMON_AT_RESIDUAL, LEMON_ROLE_COUNT}, {LEMON_PLACE_COUNT, LEMON_AT_GAIN, LEMON_ROLE_COUNT},
    {LEMON_AT_QUERY, LEMON_AT_READ_ATTN, LEMON_ATTN_NORM}, {LEMON_AT_KEY, LEMON_AT_READ_ATTN, LEMON_ATTN_NORM},
    {LEMON_AT_VALUE, LEMON_AT_READ_ATTN, LEMON_ATTN_NORM}, {LEMON_AT_RESIDUAL, LEMON_AT_READ_HEADS, LEMON_ROLE_COUNT},
    {LEMON_PLACE_COUNT, LEMON_AT_GAIN, LEMON_ROLE_COUNT}, {LEMON_AT_FFN, LEMON_AT_READ_FFN, LEMON_FFN_NORM},
    {LEMON_AT_FFN, LEMON_AT_READ_FFN, LEMON_FFN_NORM}, {LEMON_AT_RESIDUAL, LEMON_AT_READ_NEURONS, LEMON_ROLE_COUNT},
    {LEMON_PLACE_COUNT, LEMON_AT_QUERY, LEMON_ROLE_COUNT}, {LEMON_PLACE_COUNT, LEMON_AT_KEY, LEMON_ROLE_COUNT},
    {LEMON_PLACE_COUNT, LEMON_AT_VALUE, LEMON_ROLE_COUNT}, {LEMON_PLACE_COUNT, LEMON_AT_QUERY_NORM, LEMON_ROLE_COUNT},
    {LEMON_PLACE_COUNT, LEMON_AT_KEY_NORM, LEMON_ROLE_COUNT}, {LEMON_PLACE_COUNT, LEMON_AT_GAIN, LEMON_ROLE_COUNT},
    {LEMON_PLACE_COUNT, LEMON_AT_READ_OUTPUT, LEMON_FINAL_NORM}};

LEMON_API const char *lemon_place_name(lemon_place place) {
    return (unsigned)place < LEMON_PLACE_COUNT ? lemon__places[place].name : "unknown";
}

/* ---- operator sets ---- */

static int64_t lemon__cells(const lemon_operators *ops) { return ops->student.n_layers * ops->slots; }

/*  The slot's own map: student 0 where it has none (slot 0's serves), field 0 where it contributes nothing. */
static lemon_map *lemon__own_map(const lemon_operators *ops, int place, int64_t layer, int64_t slot) {
    if (!lemon__places[place].per_layer) layer = slot = 0;
    return &ops->maps[place * lemon__cells(ops) + layer * ops->slots + slot];
}

/*  A set's maps stand in one array, so a map alone tells where it stands. */
static int64_t lemon__map_count(const lemon_operators *ops) { return LEMON_PLACE_COUNT * lemon__cells(ops); }
static int lemon__map_place(const lemon_operators *ops, const lemon_map *map) {
    return (int)((map - ops->maps) / lemon__cells(ops));
}

/*  The channels of a map's place in a teacher or student. */
static int64_t lemon__map_channels(const lemon_operators *ops, const lemon_map *map, const lemon_config *c) {
    return lemon_joint_size(c, lemon__places[lemon__map_place(ops, map)].joint);
}

LEMON_API const lemon_map *lemon_operators_map(const lemon_operators *operators, lemon_place place, int64_t layer,
                                               int64_t slot) {
    if (operators == NULL || (unsigned)place >= LEMON_PLACE_COUNT || layer < 0 ||
        layer >= operators->student.n_layers || slot < 0 || slot >= operators->slots)
        return NULL;
    const lemon_map *map = lemon__own_map(operators, (int)place, layer, slot);
    return map->student ? map : lemon__own_map(operators, (int)place, layer, 0);
}

LEMON_API void lemon_operators_free(lemon_ctx *ctx, lemon_operators *operators) {
    if (operators == NULL) return;
    lemon_arena_free(ctx, &operators->arena);
    lemon__reader_close(&operators->source);
    lemon__free(ctx, operators, sizeof *operators);
}

/*  The end of all that makes operators: on failure nothing is left of them. */
static lemon_status lemon__operators_done(lemon_ctx *ctx, lemon_status status, lemon_operators **operators) {
    if (status) {
        lemon_operators_free(ctx, *operators);
        *operators = NULL;
    }
    return status;
}

/*  Two configs agree in their fields from `from` on; the first that differs is named. */
static lemon_status lemon__same_fields(lemon_ctx *ctx, const lemon_config *is, const lemon_config *expected, int from,
                                       const char *whose, const char *why) {
    for (int i = from; i < LEMON__SHAPE; i++)
        if (lemon__field_value(is, i) != lemon__field_value(expected, i))
            return lemon__fail(ctx, LEMON_E_ARG, "%s%s is %d, expected %d, %s", whose, lemon__fields[i].name,
                               (int)lemon__field_value(is, i), (int)lemon__field_value(expected, i), why);
    return LEMON_OK;
}

/*  Vocabularies are equal and nothing is added to what the teacher has. */
static lemon_status lemon__same_family(lemon_ctx *ctx, const lemon_config *t, const lemon_config *s) {
    return lemon__same_fields(ctx, s, t, LEMON__SIZES - 1, "", "the teacher's: a student keeps its family");
}

static lemon_status lemon__operators_new(lemon_ctx *ctx, const lemon_config *teacher, const lemon_config *student,
                                         int64_t slots, lemon_operators **out) {
    lemon_operators *ops = (lemon_operators *)lemon__calloc(ctx, sizeof *ops);
    size_t cells = (size_t)(student->n_layers * slots);
    *out = ops;
    if (ops == NULL) return LEMON_E_MEMORY;
    ops->teacher = *teacher;
    ops->student = *student;
    ops->slots = slots;
    ops->layer = (int32_t *)lemon_arena_alloc(ctx, &ops->arena, cells * sizeof *ops->layer);
    ops->layer_weight = (float *)lemon_arena_alloc(ctx, &ops->arena, cells * sizeof *ops->layer_weight);
    ops->maps = (lemon_map *)lemon_arena_alloc(ctx, &ops->arena, LEMON_PLACE_COUNT * cells * sizeof *ops->maps);
    ops->correction = (lemon_tensor *)lemon_arena_alloc(ctx, &ops->arena,
                                                        (size_t)lemon__param_count(student) * sizeof *ops->correction);
    if (!ops->layer || !ops->layer_weight || !ops->maps || !ops->correction)
        return lemon__operators_done(ctx, LEMON_E_MEMORY, out);
    for (int64_t i = 0; i < (int64_t)cells; i++) ops->layer[i] = -1;
    return LEMON_OK;
}

static void lemon__map_shape(const lemon_operators *ops, lemon_map *map, int64_t field) {
    map->student = lemon__map_channels(ops, map, &ops->student);
    map->teacher = lemon__map_channels(ops, map, &ops->teacher);
    map->field = field;
}

/*  Gives a map its place's shape and `field` coefficients a student channel, all zero; the index too where sparse. */
static lemon_status lemon__map_make(lemon_ctx *ctx, lemon_operators *ops, lemon_map *map, int64_t field) {
    lemon__map_shape(ops, map, field);
    map->index = field < map->teacher ? lemon__ids(ctx, &ops->arena, map->student, field) : NULL;
    map->value = lemon__floats(ctx, &ops->arena, map->student, field);
    return map->value && (map->index || field == map->teacher) ? LEMON_OK : LEMON_E_MEMORY;
}

LEMON_API lemon_status lemon_operators_create(lemon_ctx *ctx, const lemon_config *teacher, const lemon_config *student,
                                              int64_t slots, lemon_operators **operators) {
    if (lemon__lacks(ctx, __func__, teacher && student && operators)) return LEMON_E_ARG;
    *operators = NULL;
    lemon_status status = lemon_config_check(ctx, teacher);
    if (!status) status = lemon_config_check(ctx, student);
    if (!status) status = lemon__same_family(ctx, teacher, student);
    if (!status) status = lemon__check_whole(ctx, "slots", slots, 1, teacher->n_layers);
    return status ? status : lemon__operators_new(ctx, teacher, student, slots, operators);
}

LEMON_API lemon_status lemon_operators_set_map(lemon_ctx *ctx, lemon_operators *operators, lemon_place place,
                                               int64_t layer, int64_t slot, int64_t field, lemon_map **map) {
    if (lemon__lacks(ctx, __func__, operators && map)) return LEMON_E_ARG;
    *map = NULL;
    lemon_status status = lemon__check_whole(ctx, "place", (int64_t)place, 0, LEMON_PLACE_COUNT - 1);
    if (status) return status;
    int each = lemon__places[place].per_layer;
    status = lemon__check_whole(ctx, "layer", layer, 0, each ? operators->student.n_layers - 1 : 0);
    if (!status) status = lemon__check_whole(ctx, "slot", slot, 0, each ? operators->slots - 1 : 0);
    if (status) return status;
    lemon_map *at = lemon__own_map(operators, (int)place, layer, slot);
    status = lemon__check_whole(ctx, "field", field, 0, lemon__map_channels(operators, at, &operators->teacher));
    if (!status) status = lemon__map_make(ctx, operators, at, field);
    if (!status) *map = at;
    return status;
}

/*  What a stranger's file or method filled in: every map that a weight needs is there, all point into the teacher, and no
    layer is empty. */
static lemon_status lemon__operators_check(lemon_ctx *ctx, const lemon_operators *ops) {
    lemon_status status = LEMON_OK;
    int64_t layer;
    for (int64_t i = 0; !status && i < lemon__cells(ops); i++)
        status = lemon__check_whole(ctx, "layer", ops->layer[i], -1, ops->teacher.n_layers - 1);
    for (int64_t i = 0; !status && i < lemon__map_count(ops); i++) {
        const lemon_map *map = &ops->maps[i];
        for (int64_t k = 0; map->index && k < map->student * map->field; k++)
            if (map->index[k] < 0 || map->index[k] >= map->teacher)
                return lemon__fail(ctx, LEMON_E_ARG, "the map \"%s\" has the index %d, expected 0 to %lld",
                                   lemon__places[lemon__map_place(ops, map)].name, (int)map->index[k],
                                   (long long)map->teacher - 1);
    }
    for (int64_t i = 0; !status && i < 2 * lemon__param_count(&ops->student); i++) {
        lemon_role role = lemon__param_role(&ops->student, i / 2, &layer);
        int64_t side = i % 2 ? lemon__role_places[role].out : lemon__role_places[role].in;
        if (side < LEMON_PLACE_COUNT && lemon_operators_map(ops, (lemon_place)side, layer, 0)->student == 0)
            return lemon__fail(ctx, LEMON_E_ARG, "the map \"%s\" of student layer %lld is missing", lemon__places[side].name,
                               (long long)layer);
    }
    for (int64_t i = 0, held = 0; !status && i < lemon__cells(ops); i++) {
        held = (i % ops->slots && held) || ops->layer[i] >= 0;
        if (!held && (i + 1) % ops->slots == 0)         /* whose weights would all be 0 */
            return lemon__fail(ctx, LEMON_E_ARG, "student layer %lld has no teacher layer, expected one in a slot at least",
                               (long long)(i / ops->slots));
    }
    return status;
}

/*  The map written out: dense [student, teacher]. */
static void lemon__map_expand(const lemon_map *map, float *out) {
    if (map->index == NULL && map->field > 0) {
        memcpy(out, map->value, (size_t)(map->student * map->teacher) * sizeof *out);
        return;
    }
    memset(out, 0, (size_t)(map->student * map->teacher) * sizeof *out);
    for (int64_t i = 0; i < map->student; i++)
        for (int64_t f = 0; f < map->field; f++)
            out[i * map->teacher + map->index[i * map->field + f]] += map->value[i * map->field + f];
}

/* ---- apply ---- */

/*  y[rows, student] = w[rows, teacher] * map^T + beta * y, beta 0 or 1. */
static void lemon__map_cols(lemon_ctx *ctx, const lemon_map *map, const float *w, int64_t rows, float beta, float *y) {
    if (map->index == NULL && map->field > 0) {
        lemon__gemm_threads(ctx, 0, 1, rows, map->student, map->teacher, 1.0f, w, map->teacher, map->value,
                            map->teacher, beta, y, map->student);
        return;
    }
    for (int64_t r = 0; r < rows; r++, w += map->teacher, y += map->student)
        for (int64_t i = 0; i < map->student; i++) {
            float sum = 0.0f;
            for (int64_t f = 0; f < map->field; f++) sum += map->value[i * map->field + f] * w[map->index[i * map->field + f]];
            y[i] = beta > 0.0f ? y[i] + sum : sum;
        }
}

/*  The gain that a student's role reads a teacher's weight with, in f32, where gains are folded; NULL: there is none. */
static lemon_status lemon__folded_gain(lemon_ctx *ctx, lemon_arena *arena, const lemon_model *teacher, lemon_role role,
                                       int64_t layer, int fold, float **gain) {
    const lemon_tensor *norm = fold ? lemon_model_param(teacher, lemon__role_places[role].gain, layer) : NULL;
    *gain = norm ? lemon__floats(ctx, arena, 1, norm->cols) : NULL;
    if (norm == NULL) return LEMON_OK;
    if (*gain == NULL) return LEMON_E_MEMORY;
    lemon_row_to_f32(norm, 0, *gain);
    return LEMON_OK;
}

/*  Row `row` of a weight in f32, times a gain where there is one. */
static void lemon__folded_row(const lemon_tensor *w, int64_t row, const float *gain, float *out) {
    lemon_row_to_f32(w, row, out);
    for (int64_t c = 0; gain && c < w->cols; c++) out[c] *= gain[c];
}

/*  Rows from ... from+count-1 of a weight so, shared by threads. */
typedef struct lemon__decoding { const lemon_tensor *w; const float *gain; int64_t from; float *out; } lemon__decoding;

static void lemon__decoding_task(void *arg, int64_t index, int worker) {
    const lemon__decoding *d = (const lemon__decoding *)arg;
    (void)worker;
    lemon__folded_row(d->w, d->from + index, d->gain, d->out + index * d->w->cols);
}

static void lemon__folded_rows(lemon_ctx *ctx, const lemon_tensor *w, int64_t from, int64_t count, const float *gain,
                               float *out) {
    lemon__decoding d = {w, gain, from, out};
    lemon__parallel(ctx, count, lemon__decoding_task, &d);
}

/*  A teacher's weight in f32 as a student's role reads it: [rows, cols], with the gain of its norm where gains are
    folded.  NULL: no memory. */
static float *lemon__teacher_weight(lemon_ctx *ctx, lemon_arena *arena, const lemon_model *teacher, lemon_role role,
                                    int64_t layer, int fold) {
    const lemon_tensor *w = lemon_model_param(teacher, role, layer);
    float *out = lemon__floats(ctx, arena, w->rows, w->cols), *gain;
    if (lemon__folded_gain(ctx, arena, teacher, role, layer, fold, &gain) || out == NULL) return NULL;
    lemon__folded_rows(ctx, w, 0, w->rows, gain, out);
    return out;
}

/*  How many slots a role sums over, and the teacher layer of one: -1 where the slot is empty. */
static int64_t lemon__role_slots(const lemon_operators *ops, lemon_role role) {
    return lemon__roles[role].per_layer ? ops->slots : 1;
}

static int64_t lemon__slot_layer(const lemon_operators *ops, lemon_role role, int64_t layer, int64_t slot) {
    return lemon__roles[role].per_layer ? ops->layer[layer * ops->slots + slot] : 0;
}

/*  One term of a parameter: weight * Out * W * In^T.  W is decoded by panels of its rows, so that it never stands whole in
    f32, and of a sparse Out only the rows that it reads. */
enum { LEMON__PANEL = 512 };

typedef struct lemon__term {
    lemon_ctx *ctx;
    const lemon_map *write, *read;  /* write NULL: the rows stay as they are */
    const lemon_tensor *w;
    float weight;
    float *gain, *rows;             /* [cols]; [threads, cols] */
    float *panel;                   /* [PANEL, cols] */
    int64_t from;
} lemon__term;

/*  Row `index` of a panel of Out W, Out being sparse or not there. */
static void lemon__term_task(void *arg, int64_t index, int worker) {
    const lemon__term *t = (const lemon__term *)arg;
    const int64_t field = t->write ? t->write->field : 1, cols = t->w->cols;
    float *out = t->panel + index * cols, *row = t->rows + worker * cols;
    memset(out, 0, (size_t)cols * sizeof *out);
    for (int64_t f = 0; f < field; f++) {
        const int64_t at = (t->from + index) * field + f;
        const float v = t->write ? t->weight * t->write->value[at] : t->weight;
        lemon__folded_row(t->w, t->write ? t->write->index[at] : at, t->gain, row);
        for (int64_t c = 0; c < cols; c++) out[c] += v * row[c];
    }
}

static void lemon__term_sparse(lemon__term *t, int64_t rows, float *out) {
    for (t->from = 0; t->from < rows; t->from += LEMON__PANEL) {
        const int64_t count = lemon__min(LEMON__PANEL, rows - t->from);
        lemon__parallel(t->ctx, count, lemon__term_task, t);
        lemon__map_cols(t->ctx, t->read, t->panel, count, 1.0f, out + t->from * t->read->student);
    }
}

/*  product [n, cols] = weight * out [n, rows] * W, as a sum over panels of W's rows. */
static void lemon__times_weight(lemon_ctx *ctx, const float *out, int64_t n, float weight, const lemon_tensor *w,
                                const float *gain, float *panel, float *product) {
    for (int64_t from = 0; from < w->rows; from += LEMON__PANEL) {
        const int64_t count = lemon__min(LEMON__PANEL, w->rows - from);
        lemon__folded_rows(ctx, w, from, count, gain, panel);
        lemon__gemm_threads(ctx, 0, 0, n, w->cols, count, weight, out + from, w->rows, panel, w->cols,
                            from > 0 ? 1.0f : 0.0f, product, w->cols);
    }
}

/*  out += weight * Out * W * In^T for one slot. */
static lemon_status lemon__apply_slot(lemon_ctx *ctx, const lemon_operators *ops, const lemon_model *teacher,
                                      lemon_role role, int64_t layer, int64_t slot, float *out) {      /* exercise 9 */
    const int64_t source = lemon__slot_layer(ops, role, layer, slot);
    lemon__term t;
    lemon_arena arena = {NULL};
    float *product = NULL;
    t.ctx = ctx;
    t.write = lemon_operators_map(ops, lemon__role_places[role].out, layer, slot);
    t.read = lemon_operators_map(ops, lemon__role_places[role].in, layer, slot);
    t.weight = lemon__roles[role].per_layer ? ops->layer_weight[layer * ops->slots + slot] : 1.0f;
    if (source < 0 || t.read->field == 0 || (t.write && t.write->field == 0)) return LEMON_OK;
    t.w = lemon_model_param(teacher, role, source);
    const int64_t rows = t.write ? t.write->student : t.w->rows;
    const int dense = t.write && t.write->index == NULL;
    lemon_status status = lemon__folded_gain(ctx, &arena, teacher, role, source, ops->fold_gains, &t.gain);
    t.rows = lemon__floats(ctx, &arena, ctx->threads, t.w->cols);
    t.panel = lemon__floats(ctx, &arena, LEMON__PANEL, t.w->cols);
    if (dense) product = lemon__floats(ctx, &arena, rows, t.w->cols);
    if (!t.rows || !t.panel || (dense && !product)) status = LEMON_E_MEMORY;
    if (!status && dense) {
        lemon__times_weight(ctx, t.write->value, rows, t.weight, t.w, t.gain, t.panel, product);
        lemon__map_cols(ctx, t.read, product, rows, 1.0f, out);
    } else if (!status) lemon__term_sparse(&t, rows, out);
    lemon__pages(ctx, t.w->data, lemon_tensor_bytes(t.w), LEMON__GONE);
    lemon_arena_free(ctx, &arena);
    return status;
}

/*  w + c: f32 by f32 as solving does it; an f64 is the exact difference to some float, which it gives back. */
static void lemon__correct(const lemon_tensor *c, float *w) {
    const float *f32 = c->dtype == LEMON_F32 ? (const float *)c->data : NULL;
    const double *f64 = c->dtype == LEMON_F64 ? (const double *)c->data : NULL;
    for (int64_t i = 0; f32 && i < c->rows * c->cols; i++) w[i] += f32[i];
    for (int64_t i = 0; f64 && i < c->rows * c->cols; i++) w[i] = (float)((double)w[i] + f64[i]);
}

/*  One parameter of the student. */
static lemon_status lemon__apply_param(lemon_ctx *ctx, const lemon_operators *ops, const lemon_model *teacher,
                                       int correction, int64_t param, lemon_model *student) {
    int64_t layer;
    lemon_role role = lemon__param_role(&ops->student, param, &layer);
    lemon_tensor *out = &student->params[param];
    const int folded = ops->fold_gains && lemon__role_places[role].in == LEMON_AT_GAIN &&
                       (role != LEMON_FINAL_NORM || !ops->student.tied_embeddings);     /* a norm's gain is in its readers */
    float *w = (float *)out->data;
    lemon_status status = LEMON_OK;
    lemon__zero(ctx, w, lemon_tensor_bytes(out));
    if (folded) for (int64_t i = 0; i < out->cols; i++) w[i] = 1.0f;
    else for (int64_t slot = 0; !status && slot < lemon__role_slots(ops, role); slot++)
        status = lemon__apply_slot(ctx, ops, teacher, role, layer, slot, w);
    if (!status && correction) lemon__correct(&ops->correction[param], w);
    return status;
}

/*  A student without weights, which get their places one by one: in scratch where there is some (in `file`, or beside it
    where that is NULL), else all at once. */
static lemon_status lemon__student_create(lemon_ctx *ctx, const lemon_config *config, struct lemon__file *file,
                                          lemon_model **student) {
    lemon_status status = LEMON_OK;
    if (lemon__scratch_path(ctx) == NULL) return lemon_model_create(ctx, config, student);
    if (file == NULL) status = lemon__scratch_beside(ctx, ".student", lemon_config_params(config), &file);
    if (!status) status = lemon__model_new(ctx, config, student);
    if (status) lemon__scratch_close(file);
    return status ? status : lemon__arena_scratch(ctx, &(*student)->arena, file);
}

static lemon_status lemon__student_place(lemon_model *student, int64_t param) {
    lemon_tensor *t = &student->params[param];
    if (t->data) return LEMON_OK;
    t->dtype = LEMON_F32;
    t->data = lemon__scratch_take(((lemon__arena_block *)student->arena.blocks)->file, lemon_tensor_bytes(t));
    return t->data ? LEMON_OK : LEMON_E_IO;
}

/*  All parameters of a student from the `from`th on; *done counts them. */
static lemon_status lemon__apply_all(lemon_ctx *ctx, const lemon_operators *ops, const lemon_model *teacher, int correction,
                                     lemon_model *student, volatile int64_t *done) {
    lemon_status status = lemon__workspaces(ctx);
    for (int64_t i = 0; !status && i < student->n_params; i++) {
        status = lemon__student_place(student, i);
        if (status || (done && i < *done)) continue;
        status = lemon__apply_param(ctx, ops, teacher, correction, i, student);
        lemon__pages(ctx, student->params[i].data, lemon_tensor_bytes(&student->params[i]), LEMON__GONE);
        if (!status) status = lemon__tick(ctx, "apply", i + 1, student->n_params, (double)NAN);
        if (!status && done) *done = i + 1;
    }
    return status;
}

LEMON_API lemon_status lemon_operators_apply(lemon_ctx *ctx, const lemon_operators *operators,
                                             const lemon_model *teacher, int correction, lemon_model **student) {
    if (lemon__lacks(ctx, __func__, operators && teacher && student)) return LEMON_E_ARG;
    *student = NULL;
    lemon_status status = lemon__same_fields(ctx, &teacher->config, &operators->teacher, 0, "the teacher's ",
                                             "that of the operators' teacher");
    if (!status) status = lemon__operators_check(ctx, operators);
    if (!status) status = lemon__student_create(ctx, &operators->student, NULL, student);
    if (!status) status = lemon__apply_all(ctx, operators, teacher, correction, *student, NULL);
    if (!status) status = lemon_model_carry(ctx, teacher, *student);
    return lemon__model_done(ctx, status, student);
}

/* ---- saving and loading ---- */

static void lemon__map_name(const lemon_operators *ops, const lemon_map *map, const char *part, char *out, size_t size) {
    int64_t cell = (map - ops->maps) % lemon__cells(ops);
    lemon__format(out, size, "map.%s.%lld.%lld.%s", lemon__places[lemon__map_place(ops, map)].name,
             (long long)(cell / ops->slots), (long long)(cell % ops->slots), part);
}

static void lemon__correction_name(const lemon_config *c, int64_t param, char *out, size_t size) {
    int64_t layer;
    lemon_role role = lemon__param_role(c, param, &layer);
    lemon__format(out, size, "correction.%s.%lld", lemon__roles[role].name, (long long)layer);
}

static void lemon__pack_map(lemon__pack *pack, const lemon_operators *ops, const lemon_map *map) {
    const lemon_tensor value = lemon__view(map->value, LEMON_F32, map->student, map->field),
                       index = lemon__view(map->index, LEMON_I32, map->student, map->field);
    char name[80];
    if (map->student == 0) return;
    lemon__map_name(ops, map, "field", name, sizeof name);
    lemon__pack_int(pack, name, map->field);
    lemon__map_name(ops, map, "value", name, sizeof name);
    if (map->field > 0) lemon__pack_tensor(pack, name, &value, LEMON_F32);
    lemon__map_name(ops, map, "index", name, sizeof name);
    if (map->field > 0 && map->index) lemon__pack_tensor(pack, name, &index, LEMON_I32);
}

LEMON_API lemon_status lemon_operators_save(lemon_ctx *ctx, const char *path, const lemon_operators *operators) {
    const lemon_operators *ops = operators;
    lemon__pack pack;
    char name[80];
    if (lemon__lacks(ctx, __func__, path && operators)) return LEMON_E_ARG;
    const lemon_tensor layer = lemon__view(ops->layer, LEMON_I32, 1, lemon__cells(ops)),
                       weight = lemon__view(ops->layer_weight, LEMON_F32, 1, lemon__cells(ops));
    lemon__pack_open(ctx, &pack);
    lemon__pack_text(&pack, "requires", "operators", 9);
    lemon__pack_config(&pack, "teacher.", &ops->teacher);
    lemon__pack_config(&pack, "student.", &ops->student);
    lemon__pack_text(&pack, "method", ops->method, strlen(ops->method));
    lemon__pack_int(&pack, "fold_gains", ops->fold_gains);
    lemon__pack_int(&pack, "slots", ops->slots);
    lemon__pack_tensor(&pack, "layer", &layer, LEMON_I32);
    lemon__pack_tensor(&pack, "layer_weight", &weight, LEMON_F32);
    for (int64_t i = 0; i < lemon__map_count(ops); i++) lemon__pack_map(&pack, ops, &ops->maps[i]);
    for (int64_t i = 0; i < lemon__param_count(&ops->student); i++) {
        if (ops->correction[i].data == NULL) continue;
        lemon__correction_name(&ops->student, i, name, sizeof name);
        lemon__pack_tensor(&pack, name, &ops->correction[i], ops->correction[i].dtype);
    }
    lemon_status status = lemon__pack_write_file(&pack, path);
    lemon__pack_close(&pack);
    return status;
}

static lemon_status lemon__unpack_field_of(const lemon__unpack *u, const char *name, int64_t high, int64_t *value) {
    lemon_status status = lemon__unpack_int(u, name, value);
    if (status || (*value >= 0 && *value <= high)) return status;
    return lemon__refuse(u, LEMON_E_FORMAT, "%s is %lld, expected 0 to %lld", name, (long long)*value, (long long)high);
}

/*  All of a map is checked against the file before memory is taken for it. */
static lemon_status lemon__unpack_map(const lemon__unpack *u, lemon_operators *ops, lemon_map *map) {
    const char *why = "the student's shape and the map's field";
    lemon_tensor value = {NULL, LEMON_F32, 0, 0}, index = value;
    char name[80];
    lemon__map_name(ops, map, "field", name, sizeof name);
    if (!lemon__unpack_has(u, name)) return LEMON_OK;
    lemon__map_shape(ops, map, 0);
    lemon_status status = lemon__unpack_field_of(u, name, map->teacher, &map->field);
    if (status || map->field == 0) return status ? status : lemon__map_make(u->ctx, ops, map, 0);
    lemon__map_name(ops, map, "value", name, sizeof name);
    status = lemon__unpack_shaped(u, name, LEMON_F32, map->student, map->field, why, &value);
    lemon__map_name(ops, map, "index", name, sizeof name);
    if (!status && map->field < map->teacher)
        status = lemon__unpack_shaped(u, name, LEMON_I32, map->student, map->field, why, &index);
    map->value = (float *)value.data;
    map->index = (int32_t *)index.data;
    return status;
}

static lemon_status lemon__unpack_correction(const lemon__unpack *u, lemon_operators *ops, int64_t param) {
    lemon_tensor *c = &ops->correction[param], t;
    int64_t layer;
    char name[80];
    lemon__correction_name(&ops->student, param, name, sizeof name);
    if (lemon__words_find(&u->tensor_names, name, strlen(name)) < 0) return LEMON_OK;
    lemon__param_shape(&ops->student, lemon__param_role(&ops->student, param, &layer), &c->rows, &c->cols);
    lemon_status status = lemon__unpack_tensor(u, name, &t);
    c->dtype = t.dtype == LEMON_F64 ? LEMON_F64 : LEMON_F32;
    if (!status) status = lemon__unpack_shaped(u, name, c->dtype, c->rows, c->cols, "the student's shape", &t);
    if (!status) c->data = t.data;
    return status;
}

/*  An empty set of the shapes that the file names; its tables are there, so memory for them may be taken. */
static lemon_status lemon__unpack_operators(lemon_ctx *ctx, const lemon__unpack *u, lemon_operators **operators) {
    const char *method = NULL, *why = "the student's layers times slots";
    lemon_config teacher, student;
    lemon_tensor layer, weight;
    size_t bytes = 0;
    int64_t fold = 0, slots = 0;
    lemon_status status = lemon__unpack_config(u, "teacher.", &teacher);
    if (!status) status = lemon__unpack_config(u, "student.", &student);
    if (!status) status = lemon__unpack_text(u, "method", &method, &bytes);
    if (!status) status = lemon__unpack_field_of(u, "fold_gains", 1, &fold);
    if (!status) status = lemon__unpack_field_of(u, "slots", teacher.n_layers, &slots);
    if (!status && lemon__same_family(ctx, &teacher, &student)) status = lemon__blame(ctx, u->source.name, LEMON_E_FORMAT);
    if (!status && (slots < 1 || student.n_layers > u->tensor_names.count))
        status = lemon__refuse(u, LEMON_E_FORMAT, "slots is %lld and n_layers %d, which the file cannot hold",
                               (long long)slots, (int)student.n_layers);
    if (!status) status = lemon__unpack_shaped(u, "layer", LEMON_I32, 1, student.n_layers * slots, why, &layer);
    if (!status) status = lemon__unpack_shaped(u, "layer_weight", LEMON_F32, 1, student.n_layers * slots, why, &weight);
    if (!status) status = lemon__operators_new(ctx, &teacher, &student, slots, operators);
    if (status) return status;
    (*operators)->fold_gains = (int)fold;
    memcpy((*operators)->method, method, bytes < sizeof (*operators)->method ? bytes : sizeof (*operators)->method - 1);
    memcpy((*operators)->layer, layer.data, lemon_tensor_bytes(&layer));
    memcpy((*operators)->layer_weight, weight.data, lemon_tensor_bytes(&weight));
    return LEMON_OK;
}

LEMON_API lemon_status lemon_operators_load(lemon_ctx *ctx, const char *path, lemon_operators **operators) {
    lemon_reader reader;
    lemon__unpack u;
    if (lemon__lacks(ctx, __func__, path && operators)) return LEMON_E_ARG;
    *operators = NULL;
    lemon_status status = lemon_file_reader(ctx, path, &reader);
    if (!status) status = lemon__unpack_open(ctx, &reader, "operators", "operators", &u);
    if (status) return status;
    status = lemon__unpack_operators(ctx, &u, operators);
    lemon_operators *ops = *operators;
    for (int64_t i = 0; !status && i < lemon__map_count(ops); i++)
        if (i % lemon__cells(ops) == 0 || lemon__places[i / lemon__cells(ops)].per_layer)
            status = lemon__unpack_map(&u, ops, &ops->maps[i]);
    for (int64_t i = 0; !status && i < lemon__param_count(&ops->student); i++) status = lemon__unpack_correction(&u, ops, i);
    if (!status && lemon__operators_check(ctx, ops)) status = lemon__blame(ctx, u.source.name, LEMON_E_FORMAT);
    if (!status) {
        ops->source = u.source;
        memset(&u.source, 0, sizeof u.source);
    }
    lemon__unpack_close(&u);
    return lemon__operators_done(ctx, status, operators);
}

/* ---- the methods, and a fusion under way ---- */

enum { LEMON__MAKES_NEW, LEMON__SELECTS, LEMON__SLICES, LEMON__DECOMPOSES, LEMON__LEARNS, LEMON__SOLVES };

typedef struct lemon__method {
    const char *name;
    int kind;                       /* of the above; from SLICES on gains are folded, from LEARNS on fields may be wider */
    int spaced;                     /* layers spread, ends pinned; 0: the first ones */
    int ranked;                     /* channels by activation; 0: evenly spaced */
    int rescaled;                   /* reads grow by sqrt(teacher / student), so that outputs keep their size */
    int needs_text;
    int64_t learn, slots;           /* steps, and layers in a field, where the options leave them to the method */
} lemon__method;

enum { LEMON__METHODS = 8, LEMON__ALL_LAYERS = 4096, LEMON__ROWS_AN_UNKNOWN = 32, LEMON__MUCH_TO_LEARN = 100000000 };
static const lemon__method lemon__methods[LEMON__METHODS] = {
    {"lemon", LEMON__SOLVES, 1, 1, 0, 1, 0, 3},    {"ligo", LEMON__LEARNS, 1, 0, 0, 1, 100, LEMON__ALL_LAYERS},
    {"subclone", LEMON__SELECTS, 1, 1, 1, 1, 0, 1}, {"select", LEMON__SELECTS, 0, 0, 0, 0, 0, 1},
    {"drop", LEMON__SELECTS, 1, 0, 0, 0, 0, 1},     {"slicegpt", LEMON__SLICES, 0, 1, 0, 1, 0, 1},
    {"modegpt", LEMON__DECOMPOSES, 0, 1, 0, 1, 0, 1}, {"random", LEMON__MAKES_NEW, 0, 0, 0, 0, 0, 1}};

static const lemon__method *lemon__method_find(const char *name) {
    for (int i = 0; name && i < LEMON__METHODS; i++)
        if (strcmp(name, lemon__methods[i].name) == 0) return &lemon__methods[i];
    return NULL;
}

/*  Activations of all rows of the text: an entry of lemon__fill's stores. */
typedef struct lemon__rows { float *data; int64_t width; } lemon__rows;     /* [rows, width] */

/*  At the front of scratch: whose it is, and how far it came. */
typedef struct lemon__stage {
    uint32_t print, size;
    volatile int64_t step;
    double flops, seconds;          /* of all runs up to there */
} lemon__stage;

/*  Streams, and what was measured of the teacher, as they were after a step. */
typedef struct lemon__copy { float *t, *s; double *measured; } lemon__copy;

typedef struct lemon__fill {
    lemon_ctx *ctx;
    const lemon_model *teacher;
    const lemon_config *tc, *sc;
    const lemon_fuse_options *o;
    const lemon__method *method;
    int64_t learn;                  /* steps; negative: so many times through the text, until its windows are counted */
    int64_t tokens;                 /* of text, at most */
    lemon_operators *ops;
    lemon_arena arena, solve, work; /* for the whole fusion, for the solving, for a part of it */
    int64_t dt, ds, qt, qs, nt, ns; /* widths, the teacher's and the student's: stream, heads' outputs, neurons, */
    int64_t wide_t, wide_s;         /*   and the widest of each */
    const int32_t *ids;             /* calibration text: windows of seq tokens, the last of them held out */
    int64_t seq, windows, kept, batch;
    int64_t kept_all, before;       /* windows that all processes keep, and those before this one's */
    int64_t ahead;                  /* 1: the token behind the last window is there, to be predicted */
    int64_t *main;                  /* [L student] the teacher layer that each student layer stands for */
    double *channel;                /* what lemon__observe found: mean |x| of channels [D], */
    double *neuron;                 /*   mean |output| of neurons [L, F], */
    double *head;                   /*   mean length of heads' outputs [L, H], */
    double *influence;              /*   1 - cosine between a layer's input and output [L], */
    double *covariance;             /*   and E[y y^T] of the normalised stream [D, D]; all of the teacher, in one block */

    int fusing, keep;               /* a model is wanted; all operators are wanted to the end */
    lemon__stage *stage;            /* where the work stands, in scratch; NULL: there is none */
    struct lemon__file *file;       /*   that scratch; the student owns it */
    int64_t step;                   /*   when this run began: teacher layers watched, then the basis, then layers solved */
    double flops, began;            /* when it began, less what runs before took */
    lemon__copy copy[2];            /* in scratch, by turns: what the next step needs */
    int applied;                    /* the student is whole */
    lemon_model *student;           /* lemon, from here on: solved so far */
    float *p;                       /* [ds, dt] the projection of the streams */
    int64_t field;                  /* teacher channels that a student channel reads */
    lemon__rows *store;             /* rows of activations, by LEMON__XT ... LEMON__TARGET */
    const char *what;               /* for the progress callback: which part of the work, and layers of it */
    int64_t done, total;
    lemon_status status;            /* the first error, or that a callback asked to stop: what follows does nothing */
    lemon__run t, s;                /* both models on the batch at hand, */
    int64_t first, rows;            /*   which begins with that window and has so many rows, */
    int held;                       /*   held out or not */
    double *energy;                 /* importance of heads, then of neurons */
    int32_t *chosen;
} lemon__fill;

static int lemon__solves(const lemon__fill *f) { return f->method->kind == LEMON__SOLVES && f->o->solve; }

/*  1 where a fusion cannot go on: after an error, or for want of memory if what a part needs is not there. */
static int lemon__stuck(lemon__fill *f, int there) {
    if (!f->status && !there) f->status = LEMON_E_MEMORY;
    return f->status != LEMON_OK;
}

/*  What gradients move: the maps, or (on a set that is filled without them) the student's weights, as corrections. */
static int lemon__learns_maps(const lemon__fill *f) {
    return f->learn != 0 && ((f->method->kind >= LEMON__LEARNS && !lemon__solves(f)) || !f->o->correction);
}

/*  Steps of learning where the options leave them to the method: a solved student goes through its text four times,
    unless it is so large that gradients and their moments would be the largest thing there is. */
static void lemon__fill_begin(lemon__fill *f, lemon_ctx *ctx, const lemon_model *teacher, const lemon_config *student,
                              const lemon_fuse_options *o) {
    memset(f, 0, sizeof *f);
    f->ctx = ctx;
    f->teacher = teacher;
    f->tc = &teacher->config;
    f->sc = student;
    f->o = o;
    f->method = lemon__method_find(o->method);
    f->learn = f->method->learn;
    if (lemon__solves(f)) f->learn = o->correction && lemon_config_params(student) <= LEMON__MUCH_TO_LEARN ? -4 : 0;
    if (o->learn_steps >= 0) f->learn = o->learn_steps;
    f->tokens = o->tokens > 0 ? o->tokens : f->learn < 0 ? 65536 : 32768;
    f->dt = f->tc->d_model;
    f->ds = f->sc->d_model;
    f->qt = lemon_joint_size(f->tc, LEMON_JOINT_HEADS);
    f->qs = lemon_joint_size(f->sc, LEMON_JOINT_HEADS);
    f->nt = f->tc->d_ffn;
    f->ns = f->sc->d_ffn;
    f->wide_t = lemon__max(lemon__max(f->dt, f->qt), f->nt);
    f->wide_s = lemon__max(lemon__max(f->ds, f->qs), f->ns);
    f->flops = ctx->flops;
    f->began = lemon__seconds();
}

static void lemon__fill_end(lemon__fill *f) {
    lemon_model_free(f->ctx, f->student);
    lemon_arena_free(f->ctx, &f->work);
    lemon_arena_free(f->ctx, &f->solve);
    lemon_arena_free(f->ctx, &f->arena);
    lemon__spare_free(f->ctx, 0);
}

/* ---- scratch: the student's weights, and where the work stands, so that it goes on there after a kill ---- */

enum { LEMON__STAGE = 4096, LEMON__STAGE_SECONDS = 10 };

/*  Numbers that are measured of the teacher: channels, neurons, heads, influence, covariance. */
static int64_t lemon__measured(const lemon__fill *f) {
    return f->dt + f->tc->n_layers * (f->nt + f->tc->n_heads + 1) + f->dt * f->dt;
}

/*  A checksum of all that the bits of the result come from: scratch of other work is not gone on with.  Of the teacher,
    some rows of each weight. */
static uint32_t lemon__fuse_print(const lemon__fill *f) {
    const int64_t numbers[] = {f->ctx->isa, f->seq, f->windows, f->kept, f->learn, f->o->field_layers, f->o->field_dims,
                               f->o->solve, f->o->correction, (int64_t)f->o->seed, f->ops->slots};
    uint32_t crc = lemon_crc32(0, LEMON_VERSION, sizeof LEMON_VERSION);
    crc = lemon_crc32(crc, f->method->name, strlen(f->method->name));
    crc = lemon_crc32(crc, numbers, sizeof numbers);
    crc = lemon_crc32(crc, f->tc, sizeof *f->tc);
    crc = lemon_crc32(crc, f->sc, sizeof *f->sc);
    if (f->ids) crc = lemon_crc32(crc, f->ids, (size_t)(f->windows * f->seq) * sizeof *f->ids);
    for (int64_t i = 0; i < 2 * f->teacher->n_params; i++) {
        const lemon_tensor *w = &f->teacher->params[i / 2];
        crc = lemon_crc32(crc, lemon__row(w, i % 2 * (w->rows - 1)), lemon_row_bytes(w->dtype, w->cols));
    }
    return crc;
}

/*  Opens scratch: as an earlier run of the same work left it, else anew. */
static lemon_status lemon__stage_open(lemon__fill *f, size_t room) {
    uint32_t print = lemon__fuse_print(f);
    lemon_status status = LEMON_OK;
    for (int anew = 0; anew < 2 && !status && f->stage == NULL; anew++) {
        status = lemon__scratch_open(f->ctx, "", room, anew, &f->file);
        lemon__stage *stage = status ? NULL : (lemon__stage *)lemon__scratch_take(f->file, LEMON__STAGE);
        if (stage && anew) stage->print = print, stage->size = sizeof *stage;
        if (stage && stage->print == print && stage->size == sizeof *stage) f->stage = stage;
        else if (!status) lemon__scratch_close(f->file);
        if (!status && !stage) status = LEMON_E_IO;
    }
    if (status) return status;
    f->flops -= f->stage->flops;
    f->began -= f->stage->seconds;
    return LEMON_OK;
}

/*  The student, whose weights are made one by one; in staged scratch behind places for the copies, and for P, which is found
    once. */
static void lemon__student_open(lemon__fill *f) {
    const int staged = lemon__solves(f) && !f->keep && lemon__ranks(f->ctx) == 1;
    const size_t rows = (size_t)(f->windows * f->seq) * sizeof(float);
    int64_t numbers = lemon_config_params(f->sc);
    if (f->status || f->student) return;
    if (staged) numbers += 2 * (f->windows * f->seq * (f->dt + f->ds) + 2 * lemon__measured(f)) + f->ds * f->dt;
    if (lemon__scratch_path(f->ctx) && f->fusing)
        f->status = lemon__stage_open(f, (size_t)numbers * sizeof(float) + LEMON__SCRATCH_MORE);
    if (!f->status) f->status = lemon__student_create(f->ctx, f->sc, f->file, &f->student);
    if (f->status || !f->stage || !staged) return;
    f->step = f->stage->step;
    for (int k = 0; k < 2; k++) {
        f->copy[k].t = (float *)lemon__scratch_take(f->file, rows * (size_t)f->dt);
        f->copy[k].s = (float *)lemon__scratch_take(f->file, rows * (size_t)f->ds);
        f->copy[k].measured = (double *)lemon__scratch_take(f->file, (size_t)lemon__measured(f) * sizeof(double));
        if (!f->copy[k].t || !f->copy[k].s || !f->copy[k].measured) f->status = LEMON_E_IO;
    }
    f->p = (float *)lemon__scratch_take(f->file, (size_t)(f->ds * f->dt) * sizeof(float));
    if (f->p == NULL) f->status = LEMON_E_IO;
}

/*  Ends a step of so many: copies what the next one needs, and then says so.  Watching a layer takes less time than that, so
    only some are saved.  The two copies take turns, so it is one an odd number of steps after the last, and the last of
    those that watch. */
static void lemon__stage_save(lemon__fill *f, int64_t step) {
    const lemon__copy *c = &f->copy[step % 2];
    const size_t rows = (size_t)(f->windows * f->seq) * sizeof(float);
    if (f->status || !f->stage || !c->t || (step - f->stage->step) % 2 == 0) return;
    const double since = lemon__seconds() - f->began - f->stage->seconds;
    if (step < f->tc->n_layers - 1 && since < (double)LEMON__STAGE_SECONDS) return;
    lemon__move(f->ctx, c->t, f->store[0].data, rows * (size_t)f->dt);
    if (step > f->tc->n_layers) lemon__move(f->ctx, c->s, f->store[1].data, rows * (size_t)f->ds);
    else lemon__move(f->ctx, c->measured, f->channel, (size_t)lemon__measured(f) * sizeof *f->channel);
    f->stage->flops = f->ctx->flops - f->flops;
    f->stage->seconds = lemon__seconds() - f->began;
    f->status = lemon__scratch_flush(f->file);
    if (!f->status) f->stage->step = step;
    if (!f->status) f->status = lemon__scratch_flush(f->file);
}

/*  What was measured up to the step where this run began, and with `streams` the streams as they were then. */
static void lemon__stage_load(lemon__fill *f, int streams) {
    const lemon__copy *now = &f->copy[f->step % 2], *c = &f->copy[lemon__min(f->step, f->tc->n_layers) % 2];
    const size_t rows = (size_t)(f->windows * f->seq) * sizeof(float);
    if (f->step == 0 || f->status) return;
    memcpy(f->channel, c->measured, (size_t)lemon__measured(f) * sizeof *f->channel);
    if (streams) memcpy(f->store[0].data, now->t, rows * (size_t)f->dt);
    if (streams && f->step > f->tc->n_layers) memcpy(f->store[1].data, now->s, rows * (size_t)f->ds);
}

/*  Layers of a model will soon be read, or not again. */
static void lemon__layer_pages(const lemon__fill *f, const lemon_model *model, int64_t layer, int advice) {
    const int64_t each = lemon__per_layer(&model->config);
    for (int64_t i = 1 + layer * each; layer < model->config.n_layers && i < 1 + (layer + 1) * each; i++)
        lemon__pages(f->ctx, model->params[i].data, lemon_tensor_bytes(&model->params[i]), advice);
}

/*  The last teacher layer that student layer i answers for: up to the next one that is kept. */
static int64_t lemon__field_end(const lemon__fill *f, int64_t i) {
    return i + 1 < f->sc->n_layers ? f->main[i + 1] - 1 : f->tc->n_layers - 1;
}

/*  How many slots of a solved student layer hold a teacher layer: slot k that k behind the main one. */
static int64_t lemon__slots_used(const lemon__fill *f, int64_t i) {
    return lemon__min(f->ops->slots, lemon__field_end(f, i) + 1 - f->main[i]);
}

/*  Sums over what this process has seen become sums over what all have seen. */
static void lemon__sum_up(lemon__fill *f, double *sums, int64_t count) {
    if (!f->status) f->status = lemon__all_reduce(f->ctx, sums, count, sizeof *sums);
}

LEMON__BRIEF_END
/* ---- rows of activations ----
        A pass over the text goes batch by batch:  for (lemon__rewind(f); lemon__next_batch(f);) ...
        A store keeps some numbers of every row from one pass to the next: the streams x_t and x_s, what a problem's sources
        are, what the student's stream lacks, and what its targets are. ---- */

enum { LEMON__XT, LEMON__XS, LEMON__SOURCE, LEMON__LACK, LEMON__TARGET };       /* the last: one a slot, LEMON__TARGET + k */
enum { LEMON__FUSE_ROWS = 1024 };

/*  What fusion keeps to in memory where it has scratch. */
static size_t lemon__fuse_memory(const lemon__fill *f) {
    const size_t own = lemon__scratch_path(f->ctx) ? (size_t)4000000000u : SIZE_MAX / 2;
    return (own < f->ctx->options.memory ? own : f->ctx->options.memory) / 10 * 9;
}

/*  Numbers of activations that are kept, walks included, and bytes of what else there is at once: a factor and a block of
    targets, or an eigenproblem. */
static int64_t lemon__rows_numbers(const lemon__fill *f) {
    return f->windows * f->seq * (f->dt + 2 * f->ds + f->wide_s + f->ops->slots * f->wide_t) +
           f->batch * f->seq * (3 * (f->dt + f->ds) + 4 * (f->qt + f->qs) + 2 * (f->nt + f->ns));
}

static size_t lemon__work_bytes(const lemon__fill *f) {
    const size_t n = (size_t)f->wide_s, dt = (size_t)f->dt;
    const size_t solve = 8 * n * n + 24 * LEMON__FUSE_ROWS * n + 4 * (size_t)(f->ns + f->ds) * (size_t)f->nt;
    return solve > 32 * dt * dt ? solve : 32 * dt * dt;
}

/*  Activations go to scratch where there would else be too little memory for the rest. */
static lemon_status lemon__rows_spill(lemon__fill *f) {
    const int64_t numbers = lemon__rows_numbers(f);
    if (!lemon__scratch_path(f->ctx) || f->solve.blocks ||
        f->ctx->bytes + 4 * (size_t)numbers + lemon__work_bytes(f) <= lemon__fuse_memory(f))
        return LEMON_OK;
    return lemon__arena_scratch_beside(f->ctx, &f->solve, ".rows", numbers);
}

static void lemon__rows_make(lemon__fill *f, int store, int64_t width) {
    f->store[store].width = width;
    f->store[store].data = lemon__floats(f->ctx, &f->solve, f->windows * f->seq, width);
    lemon__stuck(f, f->store[store].data != NULL);
}

/*  The rows of the batch at hand. */
static float *lemon__batch(const lemon__fill *f, int store) {
    return f->store[store].data + f->first * f->seq * f->store[store].width;
}

/*  Rows of the batch at hand, so wide as all of the store is from then on: a pass begins with the first batch. */
static void lemon__copy_in(const lemon__fill *f, int store, const float *rows, int64_t width) {
    f->store[store].width = width;
    memcpy(lemon__batch(f, store), rows, (size_t)(f->rows * width) * sizeof *rows);
}

static void lemon__rewind(lemon__fill *f) { f->first = f->t.walk.batch = 0; }

/*  Points both walks at the next batch of streams.  Batches do not straddle the border between windows kept and held
    out.  0: there is no more. */
static int lemon__next_batch(lemon__fill *f) {
    f->first += f->t.walk.batch;
    if (!f->status) f->status = lemon__tick(f->ctx, f->what, f->done, f->total, (double)NAN);
    if (f->first >= f->windows || f->status) return 0;
    f->held = f->first >= f->kept;
    f->t.walk.batch = f->s.walk.batch = lemon__min(f->batch, (f->held ? f->windows : f->kept) - f->first);
    f->rows = f->t.walk.batch * f->seq;
    f->t.walk.x = lemon__batch(f, LEMON__XT);
    if (f->store[LEMON__XS].data) f->s.walk.x = lemon__batch(f, LEMON__XS);
    return 1;
}

/* ---- covariances: float32 products of a batch of rows, summed in float64 ---- */

typedef struct lemon__cov {
    double *sum;                    /* [m, n]: sum over rows of a_row^T b_row */
    float *part;                    /* [PANEL, n] */
    int64_t m, n;
    int64_t row, col;               /* where the panel at hand begins */
} lemon__cov;

/*  On sums that are there, or (NULL) new ones. */
static lemon_status lemon__cov_make(lemon_ctx *ctx, lemon_arena *arena, int64_t m, int64_t n, double *sum, lemon__cov *cov) {
    cov->m = m;
    cov->n = n;
    cov->sum = sum ? sum : lemon__doubles(ctx, arena, m, n);
    cov->part = lemon__floats(ctx, arena, lemon__min(m, LEMON__PANEL), n);
    return cov->sum && cov->part ? LEMON_OK : LEMON_E_MEMORY;
}

/*  Row `index` of a panel's products is added to the sums. */
static void lemon__cov_task(void *arg, int64_t index, int worker) {
    const lemon__cov *cov = (const lemon__cov *)arg;
    const int64_t n = cov->n - cov->col;
    const float *part = cov->part + index * n;
    double *sum = cov->sum + (cov->row + index) * cov->n + cov->col;
    (void)worker;
    for (int64_t c = 0; c < n; c++) sum[c] += (double)part[c];
}

/*  Where a and b are the same rows, only what is right of the diagonal, by panels: half the work (SYRK). */
static void lemon__cov_add(lemon_ctx *ctx, lemon__cov *cov, const float *a, const float *b, int64_t rows) {
    for (cov->row = 0; cov->row < cov->m; cov->row += LEMON__PANEL) {
        const int64_t size = lemon__min(LEMON__PANEL, cov->m - cov->row), from = a == b ? cov->row : 0, n = cov->n - from;
        cov->col = from;
        lemon__gemm_threads(ctx, 1, 0, size, n, rows, 1.0f, a + cov->row, cov->m, b + from, cov->n, 0.0f, cov->part, n);
        lemon__parallel(ctx, size, lemon__cov_task, cov);
    }
}

/*  The lower triangle from the upper one, by squares, so that both are read and written a few rows at a time. */
typedef struct lemon__mirror { const double *up; double *low; int64_t n; } lemon__mirror;

static void lemon__mirror_task(void *arg, int64_t index, int worker) {
    const lemon__mirror *m = (const lemon__mirror *)arg;
    const int64_t i = 32 * index, n = m->n;
    (void)worker;
    for (int64_t j = 0; j <= i; j += 32)
        for (int64_t r = i; r < lemon__min(i + 32, n); r++)
            for (int64_t c = j; c < lemon__min(j + 32, r); c++) m->low[r * n + c] = m->up[c * n + r];
}

/*  low: of the same matrix or of another one. */
static void lemon__mirror_up(lemon_ctx *ctx, const double *up, double *low, int64_t n) {
    lemon__mirror m;
    m.up = up, m.low = low, m.n = n;
    lemon__parallel(ctx, lemon__ceil_div(n, 32), lemon__mirror_task, &m);
}

LEMON__INLINE double lemon__dot64(const double *a, const double *b, int64_t n) {
    double lane[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    int64_t i;
    for (i = 0; i + 8 <= n; i += 8)
        for (int64_t j = 0; j < 8; j++) lane[j] += a[i + j] * b[i + j];
    for (int64_t j = 0; i < n; i++, j++) lane[j] += a[i] * b[i];
    return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

/*  A = L L^T in place, lower triangle; *ok 0 if A is not positive definite. */
LEMON__INLINE void lemon__cholesky_small_body(double *a, int64_t lda, int64_t n, int *ok) {
    *ok = 1;
    for (int64_t i = 0; i < n && *ok; i++) {
        for (int64_t j = 0; j < i; j++)
            a[i * lda + j] = (a[i * lda + j] - lemon__dot64(a + i * lda, a + j * lda, j)) / a[j * lda + j];
        a[i * lda + i] -= lemon__dot64(a + i * lda, a + i * lda, i);
        *ok = a[i * lda + i] > 0.0;
        a[i * lda + i] = sqrt(a[i * lda + i]);
    }
}
LEMON__CLONES(lemon__cholesky_small, (double *a, int64_t lda, int64_t n, int *ok), (a, lda, n, ok))

/*  L^-1 of a lower triangle, by its columns: up [n, n] receives (L^-1)^T, so that both are read in order. */
LEMON__INLINE void lemon__invert_small_body(const double *a, int64_t lda, int64_t n, double *up) {
    memset(up, 0, (size_t)(n * n) * sizeof *up);
    for (int64_t j = 0; j < n; j++) {
        up[j * n + j] = 1.0 / a[j * lda + j];
        for (int64_t i = j + 1; i < n; i++)
            up[j * n + i] = -lemon__dot64(a + i * lda + j, up + j * n + j, i - j) / a[i * lda + i];
    }
}
LEMON__CLONES(lemon__invert_small, (const double *a, int64_t lda, int64_t n, double *up), (a, lda, n, up))

/*  A Cholesky factor by blocks: all but the blocks on the diagonal is products (lemon__gemm64).  The inverses of those
    blocks stand apart, so that solving is products too.  What came before is taken from a panel of blocks at a time, since
    reading it is half of the time for one; in a panel, block after block. */
enum { LEMON__FACTOR = 128, LEMON__FACTORS = 2 * LEMON__FACTOR };

typedef struct lemon__factor {
    lemon_ctx *ctx;
    int64_t n;
    double *a;                      /* [n, n]: the lower triangle is L; the upper one is not touched */
    double *inverse;                /* [n / FACTOR] blocks (L_jj^-1)^T, each [size, size] */
    double *spare;                  /* [most rows, FACTOR] */
} lemon__factor;

/*  For at most so many rows to solve for; 0: those of a factor whose spare room l has. */
static lemon_status lemon__factor_make(lemon_ctx *ctx, lemon_arena *arena, int64_t n, int64_t rows, lemon__factor *l) {
    l->ctx = ctx;
    l->n = n;
    l->a = lemon__doubles(ctx, arena, n, n);
    l->inverse = lemon__doubles(ctx, arena, lemon__ceil_div(n, LEMON__FACTOR), LEMON__FACTOR * LEMON__FACTOR);
    if (rows > 0) l->spare = lemon__doubles(ctx, arena, lemon__max(n, rows), LEMON__FACTOR);
    return l->a && l->inverse && l->spare ? LEMON_OK : LEMON_E_MEMORY;
}

/*  x [rows, size] (ldx apart) = x * t, where t is [size, size], or its transpose. */
static void lemon__factor_times(const lemon__factor *l, double *x, int64_t rows, int64_t ldx, const double *t,
                                int64_t size, int trans) {
    memset(l->spare, 0, (size_t)(rows * size) * sizeof *l->spare);
    lemon__gemm64(l->ctx, trans, 0, rows, size, size, 1.0, x, ldx, t, size, l->spare, size);
    for (int64_t i = 0; i < rows; i++) memcpy(x + i * ldx, l->spare + i * size, (size_t)size * sizeof *x);
}

/*  L from the lower triangle of A; 0 if that is not positive definite. */
static int lemon__factor_run(const lemon__factor *l) {
    const int64_t n = l->n;
    int ok = 1;
    for (int64_t j = 0; j < n && ok; j += LEMON__FACTOR) {
        const int64_t size = lemon__min(LEMON__FACTOR, n - j), below = n - j - size, in = j % LEMON__FACTORS,
                      wide = in ? size : lemon__min(LEMON__FACTORS, n - j), k = in ? in : j;
        double *at = l->a + j * n + j, *inverse = l->inverse + j * LEMON__FACTOR;
        if (k > 0) lemon__gemm64(l->ctx, 1, 1, n - j, wide, k, -1.0, at - k, n, at - k, n, at, n);
        lemon__cholesky_small(l->ctx->isa)(at, n, size, &ok);
        if (!ok) break;
        lemon__invert_small(l->ctx->isa)(at, n, size, inverse);
        if (below > 0) lemon__factor_times(l, at + size * n, below, n, inverse, size, 0);
    }
    return ok;
}

/*  x [rows, n] = x (L L^T)^-1, in place. */
static void lemon__factor_solve(const lemon__factor *l, double *x, int64_t rows) {
    const int64_t n = l->n, last = (n - 1) / LEMON__FACTOR * LEMON__FACTOR;
    for (int64_t j = 0; j < n; j += LEMON__FACTOR) {
        const int64_t size = lemon__min(LEMON__FACTOR, n - j), in = j % LEMON__FACTORS,
                      wide = in ? size : lemon__min(LEMON__FACTORS, n - j), k = in ? in : j;
        if (k > 0) lemon__gemm64(l->ctx, 1, 0, rows, wide, k, -1.0, x + j - k, n, l->a + j * n + j - k, n, x + j, n);
        lemon__factor_times(l, x + j, rows, n, l->inverse + j * LEMON__FACTOR, size, 0);
    }
    for (int64_t j = last; j >= 0; j -= LEMON__FACTOR) {
        const int64_t size = lemon__min(LEMON__FACTOR, n - j), panel = j - j % LEMON__FACTORS,
                      end = lemon__min(panel + LEMON__FACTORS, n), whole = j + size == end,
                      to = whole ? panel : j, from = j + size, k = whole ? n - end : end - from;
        if (k > 0)
            lemon__gemm64(l->ctx, 0, 0, rows, from - to, k, -1.0, x + from, n, l->a + from * n + to, n, x + to, n);
        lemon__factor_times(l, x + j, rows, n, l->inverse + j * LEMON__FACTOR, size, 1);
    }
}

/* ---- least squares: given rows s of a source and t of a target, the W that minimises
            sum |t - W s|^2 + ridge * mean(diag S) * |W - W0|^2,    S = sum s s^T, R = sum (t - W0 s) s^T,
        which is W = W0 + R (S + ridge * mean I)^-1 (Hoerl and Kennard 1970), by Cholesky in float64.  The ridge is the one of a
        few whose W predicts best on rows that were held out; some of the targets tell.  Targets are solved for in blocks, so
        that R never stands whole in memory. ---- */

enum { LEMON__RIDGES = 5, LEMON__JUDGES = 256, LEMON__BLOCK_OF_TARGETS = 1024 };
static const double lemon__ridges[LEMON__RIDGES] = {1e-4, 1e-3, 1e-2, 1e-1, 1.0};

/*  What is solved for, from a store of m columns.  W0 is dense (w), or the transpose of a selection that a map holds. */
typedef struct lemon__target {
    int store;
    int64_t m;
    const lemon_map *select;
    float *w;                       /* [m, n] W0 where it is dense; receives W, */
    float *turned;                  /*   or this, [n, m], where it is not NULL, its transpose */
} lemon__target;

typedef struct lemon__squares {
    lemon__fill *f;
    int64_t n;
    lemon__factor l;
    const double *s;                /* S above its diagonal; below it is the first factor's memory */
    double *diagonal;               /* of S */
    lemon__factor of[LEMON__RIDGES];        /* those that there was memory to keep; a NULL: none */
    int ridge;                      /* that l is of; -1: none yet */
    lemon__cov cov;                 /* of a block of targets: R, then the step R (S + ...)^-1 */
    double *r;                      /* R of those that judge a ridge, */
    float *step;                    /*   and their step */
    int32_t *ids, *where;           /* the targets of the block, and back: where[target] or -1 */
    const lemon__target *target;    /* for tasks: of so many of them */
    int64_t count;
    float *rest, *guess, *w;        /* [batch, block] t - W0 s, and the step's part of it; [block, n] W0, then W */
    double *room;                   /* [threads, n, n + 1] where targets have fields; else NULL */
    int32_t *allowed;               /* [threads, n] */
} lemon__squares;

/*  Opens a problem of n unknowns and at most `most` targets, and sums up S of the rows to learn from. */
static void lemon__squares_open(lemon__fill *f, int64_t n, int64_t most, lemon__squares *q) {
    const int64_t block = lemon__max(lemon__min(most, LEMON__BLOCK_OF_TARGETS), 1), rows = f->batch * f->seq,
                  judges = lemon__min(block, LEMON__JUDGES);
    lemon__cov s;
    memset(q, 0, sizeof *q);
    q->f = f;
    q->n = n;
    q->ridge = -1;
    q->diagonal = lemon__doubles(f->ctx, &f->work, 1, n);
    q->r = lemon__doubles(f->ctx, &f->work, judges, n);
    q->step = lemon__floats(f->ctx, &f->work, judges, n);
    q->ids = lemon__ids(f->ctx, &f->work, 1, block);
    q->where = lemon__ids(f->ctx, &f->work, 1, most);
    q->rest = lemon__floats(f->ctx, &f->work, rows, block);
    q->guess = lemon__floats(f->ctx, &f->work, rows, judges);
    q->w = lemon__floats(f->ctx, &f->work, block, n);
    lemon__stuck(f, q->diagonal && q->r && q->step && q->ids && q->where && q->rest && q->guess && q->w);
    lemon__stuck(f, !lemon__factor_make(f->ctx, &f->work, n, block, &q->l));
    lemon__stuck(f, !lemon__cov_make(f->ctx, &f->work, block, n, NULL, &q->cov));
    if (lemon__stuck(f, !lemon__cov_make(f->ctx, &f->work, n, n, q->l.a, &s))) return;
    for (lemon__rewind(f); lemon__next_batch(f);)
        if (!f->held) lemon__cov_add(f->ctx, &s, lemon__batch(f, LEMON__SOURCE), lemon__batch(f, LEMON__SOURCE), f->rows);
    lemon__sum_up(f, q->l.a, n * n);
    q->s = q->l.a;
    for (int64_t i = 0; i < n; i++) q->diagonal[i] = q->l.a[i * n + i];
}

/*  Leaves the factor at hand be, and goes on in other memory where there is enough; else the next one takes its place. */
static void lemon__squares_another(lemon__squares *q) {
    lemon__fill *f = q->f;
    lemon__factor l = q->l;
    if (q->ridge < 0) return;
    if (f->ctx->bytes + lemon__work_bytes(f) <= lemon__fuse_memory(f) &&
        !lemon__factor_make(f->ctx, &f->work, q->n, 0, &l))
        q->l = l;
    else q->of[q->ridge].a = NULL;
}

/*  Factors S + ridge; 0 where that is not positive definite. */
static int lemon__squares_factor(lemon__squares *q, int ridge) {
    double mean = 0.0;
    int64_t n = q->n;
    if (q->ridge == ridge) return 1;
    if (q->of[ridge].a) {
        q->l = q->of[q->ridge = ridge];
        return 1;
    }
    lemon__squares_another(q);
    for (int64_t i = 0; i < n; i++) mean += q->diagonal[i] / (double)n;
    lemon__mirror_up(q->f->ctx, q->s, q->l.a, n);
    for (int64_t i = 0; i < n; i++) q->l.a[i * n + i] = q->diagonal[i] + lemon__ridges[ridge] * mean + 1e-30;
    q->ridge = lemon__factor_run(&q->l) ? ridge : -1;
    if (q->ridge == ridge) q->of[ridge] = q->l;
    return q->ridge == ridge;
}

/*  Row `index` of the batch at hand: the targets of a block, less what a selection predicts of them. */
static void lemon__rest_task(void *arg, int64_t index, int worker) {
    const lemon__squares *q = (const lemon__squares *)arg;
    const lemon__target *t = q->target;
    const float *target = lemon__batch(q->f, t->store) + index * t->m, *s = lemon__batch(q->f, LEMON__SOURCE) + index * q->n;
    float *rest = q->rest + index * q->count;
    (void)worker;
    for (int64_t c = 0; c < q->count; c++) rest[c] = target[q->ids[c]];
    for (int64_t i = 0; !t->w && i < t->select->student; i++) {
        const int32_t to = q->where[t->select->index ? t->select->index[i] : 0];
        if (to >= 0) rest[to] -= t->select->value[i] * s[i];
    }
}

/*  What W0 leaves of a block of targets, on the batch at hand. */
static void lemon__squares_rest(lemon__squares *q, const lemon__target *t, int64_t count) {
    lemon__fill *f = q->f;
    q->target = t;
    q->count = count;
    lemon__parallel(f->ctx, f->rows, lemon__rest_task, q);
    if (t->w)
        lemon__gemm_threads(f->ctx, 0, 1, f->rows, count, q->n, -1.0f, lemon__batch(f, LEMON__SOURCE), q->n, q->w, q->n, 1.0f,
                            q->rest, count);
}

/*  W0 and R of a block: targets ids[0 ... count-1]. */
static void lemon__squares_cross(lemon__squares *q, const lemon__target *t, int64_t count) {
    lemon__fill *f = q->f;
    if (!t->w) memset(q->w, 0, (size_t)(count * q->n) * sizeof *q->w);
    for (int64_t i = 0; i < t->m; i++) q->where[i] = -1;
    for (int64_t c = 0; c < count; c++) {
        q->where[q->ids[c]] = (int32_t)c;
        if (t->w) memcpy(q->w + c * q->n, t->w + q->ids[c] * q->n, (size_t)q->n * sizeof *q->w);
    }
    for (int64_t i = 0; !t->w && i < t->select->student; i++) {
        const int32_t to = q->where[t->select->index ? t->select->index[i] : 0];
        if (to >= 0) q->w[to * q->n + i] = t->select->value[i];
    }
    q->cov.m = count;
    lemon__zero(f->ctx, q->cov.sum, (size_t)(count * q->n) * sizeof *q->cov.sum);
    for (lemon__rewind(f); lemon__next_batch(f);) {
        if (f->held) break;
        lemon__squares_rest(q, t, count);
        lemon__cov_add(f->ctx, &q->cov, q->rest, lemon__batch(f, LEMON__SOURCE), f->rows);
    }
    lemon__sum_up(f, q->cov.sum, count * q->n);
}

/*  How much better a ridge's step predicts held-out rows of the targets that judge than W0 does: the change of the sum of
    squares; infinite where there is no factor. */
static double lemon__squares_try(lemon__squares *q, const lemon__target *t, int64_t count, int ridge) {
    lemon__fill *f = q->f;
    double gain = 0.0;
    if (f->status || !lemon__squares_factor(q, ridge)) return (double)INFINITY;
    memcpy(q->cov.sum, q->r, (size_t)(count * q->n) * sizeof *q->r);
    lemon__factor_solve(&q->l, q->cov.sum, count);
    for (int64_t i = 0; i < count * q->n; i++) q->step[i] = (float)q->cov.sum[i];
    for (lemon__rewind(f), f->first = f->kept; lemon__next_batch(f);) {
        lemon__squares_rest(q, t, count);
        lemon__gemm_threads(f->ctx, 0, 1, f->rows, count, q->n, 1.0f, lemon__batch(f, LEMON__SOURCE), q->n, q->step,
                            q->n, 0.0f, q->guess, count);
        for (int64_t i = 0; i < f->rows * count; i++)
            gain += (double)q->guess[i] * ((double)q->guess[i] - 2.0 * (double)q->rest[i]);
    }
    lemon__sum_up(f, &gain, 1);
    return gain;
}

/*  The ridge whose step does best for some targets, evenly spaced; -1 where none does better than W0.  From the middle one
    upwards, or else downwards, as long as it gets better: error falls and then rises again as a ridge grows. */
static int lemon__squares_choose(lemon__squares *q, const lemon__target *t) {
    const int64_t count = lemon__min(t->m, LEMON__JUDGES);
    const int middle = LEMON__RIDGES / 2;
    int best = middle;
    if (q->f->status) return -1;
    for (int64_t i = 0; i < count; i++) q->ids[i] = (int32_t)(i * t->m / count);
    lemon__squares_cross(q, t, count);
    memcpy(q->r, q->cov.sum, (size_t)(count * q->n) * sizeof *q->r);
    double least = lemon__squares_try(q, t, count, middle);
    for (int up = 1; up >= -1 && best == middle; up -= 2)
        for (int k = middle + up; k >= 0 && k < LEMON__RIDGES; k += up) {
            double gain = lemon__squares_try(q, t, count, k);
            if (!(gain < least)) break;
            least = gain, best = k;
        }
    return least < 0.0 ? best : -1;
}

/*  out[c * step + r] = in[r, c], by squares. */
static void lemon__transpose(const float *in, int64_t rows, int64_t cols, float *out, int64_t step) {
    for (int64_t i = 0; i < rows; i += 32)
        for (int64_t j = 0; j < cols; j += 32)
            for (int64_t c = j; c < lemon__min(j + 32, cols); c++)
                for (int64_t r = i; r < lemon__min(i + 32, rows); r++) out[c * step + r] = in[r * cols + c];
}

/*  Target `index` of the block where a teacher channel is read from those student channels alone where P is not zero:
    by the rows of S that these are, with a ridge of 1e-3. */
static void lemon__masked_task(void *arg, int64_t index, int worker) {
    const lemon__squares *q = (const lemon__squares *)arg;
    const lemon__fill *f = q->f;
    const int64_t ds = f->ds;
    const float *p = f->p + q->ids[index];
    int32_t *allowed = q->allowed + worker * ds;
    double *a = q->room + worker * ds * (ds + 1), *b = a + ds * ds, mean = 0.0;
    int64_t n = 0;
    int ok;
    for (int64_t i = 0; i < ds; i++)
        if (p[i * f->dt] < 0.0f || p[i * f->dt] > 0.0f) allowed[n++] = (int32_t)i;
    for (int64_t i = 0; i < n; i++) mean += q->diagonal[allowed[i]] / (double)n;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < i; j++) a[i * n + j] = q->s[allowed[j] * ds + allowed[i]];
        a[i * n + i] = q->diagonal[allowed[i]] + 1e-3 * mean + 1e-30;
        b[i] = q->cov.sum[index * ds + allowed[i]];
    }
    lemon__cholesky_small(f->ctx->isa)(a, n, n, &ok);
    if (!ok) return;
    for (int64_t i = 0; i < n; i++) b[i] = (b[i] - lemon__dot64(a + i * n, b, i)) / a[i * n + i];
    for (int64_t i = n - 1; i >= 0; i--) {
        b[i] /= a[i * n + i];
        for (int64_t j = 0; j < i; j++) b[j] -= a[i * n + j] * b[i];
    }
    for (int64_t i = 0; i < n; i++) q->w[index * ds + allowed[i]] += (float)b[i];
}

/*  All targets by one ridge (-1: W0 is not to be bettered), or where there is room for that each in its own field. */
static void lemon__squares_solve(lemon__squares *q, const lemon__target *t, int ridge) {
    if (q->f->status || (ridge < 0 && !q->room)) return;
    if (ridge >= 0) lemon__squares_factor(q, ridge);
    for (int64_t from = 0; !q->f->status && from < t->m; from += LEMON__BLOCK_OF_TARGETS) {
        const int64_t count = lemon__min(LEMON__BLOCK_OF_TARGETS, t->m - from);
        for (int64_t i = 0; i < count; i++) q->ids[i] = (int32_t)(from + i);
        lemon__squares_cross(q, t, count);
        if (ridge < 0) lemon__parallel(q->f->ctx, count, lemon__masked_task, q);
        else lemon__factor_solve(&q->l, q->cov.sum, count);
        for (int64_t i = 0; ridge >= 0 && i < count * q->n; i++) q->w[i] += (float)q->cov.sum[i];
        if (t->turned) lemon__transpose(q->w, count, q->n, t->turned + from, t->m);
        else memcpy(t->w + from * q->n, q->w, (size_t)(count * q->n) * sizeof *q->w);
    }
}

/* ---- the symmetric eigenproblem: Householder's reduction to three diagonals, then implicit QL steps on those
        (Martin, Reinsch and Wilkinson 1968; Bowdler et al. 1968), in float64.  Threads share rows while it is reduced, and
        columns of the eigenvectors afterwards: each number is made by one thread, in one order. ---- */

enum { LEMON__EIGEN_ROWS = 32, LEMON__SWEEPS = 64 };

struct lemon__eigen_job;
typedef void (*lemon__eigen_run)(const struct lemon__eigen_job *g, int64_t from, int64_t to);

typedef struct lemon__eigen_job {
    lemon_ctx *ctx;
    double *a, *z, *d, *e;
    int64_t n, at;                  /* rows and columns from `at` on are still to be reduced */
    lemon__eigen_run run;
    const double *v, *w;            /* the last mirror, and the next one */
    double *p, *next;               /* v p^T + p v^T is to be subtracted; A w */
    double *turns;                  /* [SWEEPS, 2n] cosines and sines of QL steps that z has not seen yet: */
    int64_t first[LEMON__SWEEPS], last[LEMON__SWEEPS], sweeps;      /* of rows last-1, last-2, ... first, in that order */
} lemon__eigen_job;

/*  Rows of A: the last mirror's update, and at once the product with the next one; so A is read once for each mirror. */
LEMON__INLINE void lemon__mirror_rows_body(const lemon__eigen_job *g, int64_t from, int64_t to) {
    const int64_t n = g->n, at = g->at;
    const double *v = g->v, *p = g->p;
    for (int64_t i = from; i < to; i++) {
        double *row = g->a + i * n, vi = v[i], pi = p[i];
        for (int64_t j = at; j < n; j++) row[j] -= vi * p[j] + pi * v[j];
        g->next[i] = lemon__dot64(row + at, g->w + at, n - at);
    }
}
LEMON__CLONES(lemon__mirror_rows, (const lemon__eigen_job *g, int64_t from, int64_t to), (g, from, to))

/*  A body over all rows from `at` on, shared by threads. */
static void lemon__eigen_task(void *arg, int64_t index, int worker) {
    const lemon__eigen_job *g = (const lemon__eigen_job *)arg;
    const int64_t from = g->at + index * LEMON__EIGEN_ROWS;
    (void)worker;
    g->run(g, from, lemon__min(from + LEMON__EIGEN_ROWS, g->n));
}

static void lemon__eigen_rows(lemon__eigen_job *g, int64_t at, lemon__eigen_run run) {
    g->at = at;
    g->run = run;
    lemon__parallel(g->ctx, lemon__ceil_div(g->n - at, LEMON__EIGEN_ROWS), lemon__eigen_task, g);
}

/*  x[0 ... n-1], a row beside the diagonal, -> the direction that is mirrored; what is left of it beside the diagonal. */
static double lemon__mirror_of(double *x, int64_t n) {
    double norm = sqrt(lemon__dot64(x, x, n)), e = x[0] > 0.0 ? -norm : norm;
    x[0] -= e;
    double size = sqrt(lemon__dot64(x, x, n));
    for (int64_t i = 0; i < n; i++) x[i] = size > 0.0 ? x[i] / size : 0.0;
    return e;
}

/*  A [n, n] -> tridiagonal d, e with A = Q tridiag Q^T; row k of A keeps the k-th mirror, from column k + 1 on. */
static void lemon__tridiagonal(lemon__eigen_job *g) {
    int64_t n = g->n;
    double *swap;
    g->w = g->v = g->p;                                     /* zeros: nothing to subtract at first */
    for (int64_t k = 0; k + 2 < n; k++) {
        double *row = g->a + k * n, dot = 0.0;
        for (int64_t i = k; i < n; i++) row[i] -= g->v[k] * g->p[i] + g->p[k] * g->v[i];
        g->e[k] = lemon__mirror_of(row + k + 1, n - k - 1);
        g->w = row;
        lemon__eigen_rows(g, k + 1, lemon__mirror_rows(g->ctx->isa));
        for (int64_t i = k + 1; i < n; i++) dot += g->next[i] * row[i];
        for (int64_t i = k + 1; i < n; i++) g->next[i] = 2.0 * (g->next[i] - dot * row[i]);
        g->v = row;
        swap = g->p, g->p = g->next, g->next = swap;
    }
    lemon__eigen_rows(g, lemon__max(0, n - 2), lemon__mirror_rows(g->ctx->isa));
    if (n > 1) g->e[n - 2] = g->a[(n - 2) * n + n - 1];
    for (int64_t i = 0; i < n; i++) g->d[i] = g->a[i * n + i];
}

/*  Rows of z = Q^T, row i mirror_0 (mirror_1 (... e_i)): each starts as the identity's, mirrored from the last to the first. */
LEMON__INLINE void lemon__mirrored_body(const lemon__eigen_job *g, int64_t from, int64_t to) {
    const int64_t n = g->n;
    for (int64_t i = from; i < to; i++) {
        memset(g->z + i * n, 0, (size_t)n * sizeof *g->z);
        g->z[i * n + i] = 1.0;
    }
    for (int64_t k = lemon__min(n - 3, to - 2); k >= 0; k--) {
        const double *v = g->a + k * n;
        for (int64_t i = lemon__max(from, k + 1); i < to; i++) {
            double *q = g->z + i * n, dot = 2.0 * lemon__dot64(q + k + 1, v + k + 1, n - k - 1);
            for (int64_t j = k + 1; j < n; j++) q[j] -= dot * v[j];
        }
    }
}
LEMON__CLONES(lemon__mirrored, (const lemon__eigen_job *g, int64_t from, int64_t to), (g, from, to))

/*  One QL step on rows l ... m of the tridiagonal; what rows of z must turn by is recorded. */
static void lemon__ql_step(lemon__eigen_job *job, int64_t l, int64_t m) {
    double *d = job->d, *e = job->e, *turn = job->turns + job->sweeps * 2 * job->n;
    double g = (d[l + 1] - d[l]) / (2.0 * e[l]), r = sqrt(g * g + 1.0), s = 1.0, c = 1.0, p = 0.0;
    int64_t i;
    g = d[m] - d[l] + e[l] / (g + (g < 0.0 ? -r : r));
    job->last[job->sweeps] = m;
    for (i = m - 1; i >= l; i--) {
        double f = s * e[i], b = c * e[i];
        r = sqrt(f * f + g * g);
        e[i + 1] = r;
        if (!(r > 0.0)) break;
        s = f / r;
        c = g / r;
        g = d[i + 1] - p;
        r = (d[i] - g) * s + 2.0 * c * b;
        p = s * r;
        d[i + 1] = g + p;
        g = c * r - b;
        *turn++ = c;
        *turn++ = s;
    }
    job->first[job->sweeps++] = i + 1;
    d[i < l ? l : i + 1] -= p;
    if (i < l) e[l] = g;
    e[m] = 0.0;
}

LEMON__INLINE void lemon__turn_rows_body(const lemon__eigen_job *g, double *z, int64_t width) {
    for (int64_t t = 0; t < g->sweeps; t++) {
        const double *turn = g->turns + t * 2 * g->n;
        for (int64_t i = g->last[t] - 1; i >= g->first[t]; i--, turn += 2) {
            double *z0 = z + i * width, *z1 = z0 + width, c = turn[0], s = turn[1];
            for (int64_t k = 0; k < width; k++) {
                double f = z1[k];
                z1[k] = s * z0[k] + c * f;
                z0[k] = c * z0[k] - s * f;
            }
        }
    }
}
LEMON__CLONES(lemon__turn_rows, (const lemon__eigen_job *g, double *z, int64_t width), (g, z, width))

/*  So many columns of z that all their rows lie in a worker's buffer, and turn there. */
static int64_t lemon__turn_width(int64_t n) { return lemon__max(1, lemon__min(32, LEMON__FLOATS64 / 2 / n)); }

static void lemon__turn_task(void *arg, int64_t index, int worker) {
    const lemon__eigen_job *g = (const lemon__eigen_job *)arg;
    const int64_t n = g->n, from = index * lemon__turn_width(n), width = lemon__min(lemon__turn_width(n), n - from);
    double *z = (double *)(void *)lemon__workspace(g->ctx, worker);
    for (int64_t i = 0; i < n; i++) memcpy(z + i * width, g->z + i * n + from, (size_t)width * sizeof *z);
    lemon__turn_rows(g->ctx->isa)(g, z, width);
    for (int64_t i = 0; i < n; i++) memcpy(g->z + i * n + from, z + i * width, (size_t)width * sizeof *z);
}

static void lemon__turn_all(lemon__eigen_job *g) {
    lemon__parallel(g->ctx, lemon__ceil_div(g->n, lemon__turn_width(g->n)), lemon__turn_task, g);
    g->sweeps = 0;
}

/*  Eigenvalues d (in no order) and eigenvectors, the rows of z, of the symmetric a [n, n], which is destroyed. */
static lemon_status lemon__eigen(lemon_ctx *ctx, double *a, int64_t n, double *d, double *z) {
    lemon__eigen_job g;
    size_t bytes = (size_t)((3 + 2 * LEMON__SWEEPS) * n) * sizeof(double);
    int64_t m;
    lemon_status status = n > LEMON__FLOATS64 / 2 ? LEMON_E_ARG : lemon__workspaces(ctx);
    if (status) return status;
    memset(&g, 0, sizeof g);
    g.ctx = ctx, g.a = a, g.n = n, g.d = d, g.z = z;
    g.e = (double *)lemon__calloc(ctx, bytes);
    if (g.e == NULL) return LEMON_E_MEMORY;
    g.p = g.e + n, g.next = g.p + n, g.turns = g.next + n;
    lemon__tridiagonal(&g);
    lemon__eigen_rows(&g, 0, lemon__mirrored(ctx->isa));
    for (int64_t l = 0; l < n; l++)
        for (int step = 0; step < 100; step++) {
            for (m = l; m + 1 < n && fabs(g.e[m]) > 1e-16 * (fabs(d[m]) + fabs(d[m + 1])); m++) {}
            if (m == l) break;
            lemon__ql_step(&g, l, m);
            if (g.sweeps == LEMON__SWEEPS) lemon__turn_all(&g);
        }
    lemon__turn_all(&g);
    ctx->flops += 9.0 * (double)n * (double)n * (double)n;
    lemon__free(ctx, g.e, bytes);
    return LEMON_OK;
}

LEMON__BRIEF_BEGIN
/* ---- choosing: the `count` best of `total`, in rising order; NULL scores: evenly spaced ---- */

static void lemon__choose(lemon__fill *f, const double *score, int64_t total, int64_t count, int32_t *out) {
    float *s = lemon__floats(f->ctx, &f->work, 1, total);
    int32_t *ids = lemon__ids(f->ctx, &f->work, 2, total);
    double top = 0.0;
    int64_t n = 0;
    if (lemon__stuck(f, s && ids)) return;
    for (int64_t i = 0; score == NULL && i < count; i++) out[i] = (int32_t)(i * total / count);
    if (score == NULL) return;
    for (int64_t i = 0; i < total; i++) top = score[i] > top ? score[i] : top;
    for (int64_t i = 0; i < total; i++) {
        s[i] = top > 0.0 ? (float)(score[i] / top) : 0.0f;
        ids[i] = (int32_t)i;
    }
    lemon__rank(s, ids, ids + total, (int32_t)total);
    for (int64_t i = 0; i < count; i++) s[ids[i]] = 2.0f;           /* above all others: marked, then gathered in order */
    for (int64_t i = 0; i < total; i++)
        if (s[i] > 1.0f) out[n++] = (int32_t)i;
}

/*  Query heads for the student, [H student].  Query heads that share a key-value head in the student come, where it can
    be so, from one that they share in the teacher: its heads are cut into groups of the student's size, the best first,
    and the best groups are taken.  Else the best heads, in order. */
static void lemon__choose_heads(lemon__fill *f, const double *score, int32_t *query) {
    const lemon_config *t = f->tc, *s = f->sc;
    int64_t group_t = t->n_heads / t->kv_heads, group_s = s->n_heads / s->kv_heads, parts = group_t / group_s;
    int32_t *order = lemon__ids(f->ctx, &f->work, 1, t->n_heads), *groups = lemon__ids(f->ctx, &f->work, 1, s->kv_heads);
    double *total = lemon__doubles(f->ctx, &f->work, parts, t->kv_heads);
    if (parts * t->kv_heads < s->kv_heads) { lemon__choose(f, score, t->n_heads, s->n_heads, query); return; }
    if (lemon__stuck(f, order && groups && total)) return;
    for (int64_t i = 0; i < t->n_heads; i++) order[i] = (int32_t)i;
    for (int64_t g = 0; g < t->kv_heads; g++)                       /* this key-value head's queries, the best first */
        for (int64_t i = 0; i < parts * group_s; i++) {
            int32_t *o = order + g * group_t, swap = o[i];
            int64_t best = i;
            for (int64_t j = i + 1; score && j < group_t; j++)
                if (score[o[j]] > score[o[best]]) best = j;
            o[i] = o[best];
            o[best] = swap;
            total[g * parts + i / group_s] += score ? score[o[i]] : 0.0;
        }
    lemon__choose(f, score ? total : NULL, parts * t->kv_heads, s->kv_heads, groups);
    for (int64_t g = 0; g < s->kv_heads; g++)
        for (int64_t i = 0; i < group_s; i++)
            query[g * group_s + i] = order[groups[g] / parts * group_t + groups[g] % parts * group_s + i];
}

/*  A map to be filled in; NULL after an error. */
static lemon_map *lemon__fill_map(lemon__fill *f, int place, int64_t layer, int64_t slot, int64_t field) {
    lemon_map *map = lemon__own_map(f->ops, place, layer, slot);
    if (!f->status) f->status = lemon__map_make(f->ctx, f->ops, map, field);
    return f->status ? NULL : map;
}

/* ---- the maps of attention, given the query heads that stay ---- */

/*  One student key-value channel as the weighted mean of the same channel of the teacher heads that its queries used to
    read: where the weights are the queries' energies this is the least-squares merge, min sum E|q|^2 |k - k_h|^2. */
static void lemon__merge_channel(const lemon_config *t, const int32_t *query, int64_t group, const double *energy,
                                 int64_t stride, int64_t channel, int32_t *index, float *value) {
    int64_t per = t->n_heads / t->kv_heads, j, used = 0;
    double sum = 0.0;
    for (int64_t i = 0; i < group; i++) sum += energy ? energy[query[i] * stride] : 1.0;
    for (int64_t i = 0; i < group; i++) {
        int32_t from = (int32_t)(query[i] / per * t->head_dim + channel);
        double part = sum > 0.0 ? (energy ? energy[query[i] * stride] : 1.0) / sum : 1.0 / (double)group;
        for (j = 0; j < used && index[j] != from; j++) {}
        if (j == used) { index[used] = from; value[used++] = 0.0f; }
        value[j] += (float)part;
    }
    if (used == 1) value[0] = 1.0f;                         /* nothing merged: exactly a copy */
}

/*  energy: how much each teacher head matters, for keys [H, C/2] in each plane, for values [H]; NULL: all alike. */
static void lemon__map_key_values(lemon__fill *f, int place, int64_t layer, const int32_t *query, const double *energy) {
    const int64_t group = f->sc->n_heads / f->sc->kv_heads, ratio = f->tc->head_dim / f->sc->head_dim;
    const int64_t width = lemon__min(lemon__min(group, f->tc->kv_heads), lemon_joint_size(f->tc, LEMON_JOINT_KEY) - 1);
    lemon_map *map = lemon__fill_map(f, place, layer, 0, width);
    const int keys = place == LEMON_AT_KEY;
    for (int64_t i = 0; map && i < map->student; i++) {
        const int64_t c = i % f->sc->head_dim, plane = c / 2 * ratio;
        lemon__merge_channel(f->tc, query + i / f->sc->head_dim * group, group, keys && energy ? energy + plane : energy,
                             keys ? f->tc->head_dim / 2 : 1, keys ? 2 * plane + c % 2 : c * ratio, map->index + i * width,
                             map->value + i * width);
    }
}

/*  A selection: student channel i is scale times teacher channel index[i]. */
static void lemon__select_at(lemon__fill *f, int place, int64_t layer, const int32_t *index, float scale) {
    lemon_map *map = lemon__fill_map(f, place, layer, 0, 1);
    for (int64_t i = 0; map && i < map->student; i++) {
        if (map->index) map->index[i] = index[i];
        map->value[i] = scale;
    }
}

/*  Maps of queries, keys, values and heads' outputs of a layer.  With fewer channels a head, student plane i is teacher
    plane i * ratio, which turns at the same speed, and queries (where they are normed, their gain) shrink so that scores
    keep their scale.  planes, writes: the energies by which keys and values are merged. */
static void lemon__map_heads(lemon__fill *f, int64_t layer, const int32_t *query, const double *planes,
                             const double *writes, float read_scale) {
    int64_t ratio = f->tc->head_dim / f->sc->head_dim;
    int32_t *turning = lemon__ids(f->ctx, &f->work, 2, f->qs), *plain = turning ? turning + f->qs : NULL;
    const float shrink = 1.0f / sqrtf((float)ratio);
    if (lemon__stuck(f, turning != NULL)) return;
    for (int64_t i = 0; i < f->qs; i++) {
        int64_t from = (int64_t)query[i / f->sc->head_dim] * f->tc->head_dim, c = i % f->sc->head_dim;
        turning[i] = (int32_t)(from + c / 2 * ratio * 2 + c % 2);
        plain[i] = (int32_t)(from + c * ratio);
    }
    lemon__select_at(f, LEMON_AT_QUERY, layer, turning, shrink);
    lemon__select_at(f, LEMON_AT_READ_HEADS, layer, plain, read_scale);
    for (int64_t i = 0; i < f->sc->head_dim; i++) plain[i] = (int32_t)(i / 2 * ratio * 2 + i % 2);
    if (f->sc->qk_norm) lemon__select_at(f, LEMON_AT_QUERY_NORM, layer, plain, shrink);
    if (f->sc->qk_norm) lemon__select_at(f, LEMON_AT_KEY_NORM, layer, plain, 1.0f);
    lemon__map_key_values(f, LEMON_AT_KEY, layer, query, planes);
    lemon__map_key_values(f, LEMON_AT_VALUE, layer, query, writes);
}

/* ---- watching the teacher ---- */

static void lemon__run_attend(lemon__run *run, int64_t layer) {
    lemon__walk_look(&run->walk, layer, run->k, run->v);
    lemon__walk_attend(&run->walk, run->k, run->v);
}

static void lemon__run_neurons(lemon__run *run, int64_t layer) {
    lemon__walk_norm(&run->walk, LEMON_FFN_NORM, layer);
    lemon__walk_neurons(&run->walk, layer);
}

static void lemon__add_columns(const float *x, int64_t rows, int64_t cols, int absolute, double *sum) {
    for (int64_t r = 0; r < rows; r++, x += cols)
        for (int64_t c = 0; c < cols; c++) sum[c] += absolute ? fabs((double)x[c]) : (double)x[c];
}

static void lemon__add_lengths(const float *x, int64_t rows, int64_t groups, int64_t each, double *sum) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t g = 0; g < groups; g++, x += each) sum[g] += sqrt((double)lemon__dot(x, x, each));
}

static void lemon__add_squares(const float *x, int64_t rows, int64_t groups, int64_t each, double *sum) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t g = 0; g < groups; g++, x += each) {
            double square = 0.0;
            for (int64_t i = 0; i < each; i++) square += (double)x[i] * (double)x[i];
            sum[g] += square;
        }
}

/*  1 - cosine between two streams, summed over rows. */
static double lemon__turned(const float *before, const float *after, int64_t rows, int64_t n) {
    double sum = 0.0;
    for (int64_t r = 0; r < rows; r++, before += n, after += n) {
        double both = (double)lemon__dot(before, after, n);
        double size = (double)lemon__dot(before, before, n) * (double)lemon__dot(after, after, n);
        sum += size > 0.0 ? 1.0 - both / sqrt(size) : 0.0;
    }
    return sum;
}

static void lemon__observe_stream(lemon__fill *f, lemon__walk *w, lemon__cov *cov) {
    lemon__walk_norm(w, -1, 0);
    lemon__cov_add(f->ctx, cov, w->y, w->y, lemon__walk_rows(w));
}

/*  One teacher layer on the batch at hand, with what is measured on the way; before: room for a copy of the stream. */
static void lemon__observe_layer(lemon__fill *f, int64_t layer, lemon__cov *cov, float *before) {
    lemon__walk *w = &f->t.walk;
    memcpy(before, w->x, (size_t)(f->rows * f->dt) * sizeof *before);
    lemon__observe_stream(f, w, cov);
    lemon__run_attend(&f->t, layer);
    lemon__add_lengths(w->z, f->rows, f->tc->n_heads, f->tc->head_dim, f->head + layer * f->tc->n_heads);
    lemon__walk_write(w, LEMON_WO, layer, w->z);
    lemon__observe_stream(f, w, cov);
    lemon__run_neurons(&f->t, layer);
    lemon__add_columns(w->gate, f->rows, f->nt, 1, f->neuron + layer * f->nt);
    lemon__walk_write(w, LEMON_W_DOWN, layer, w->gate);
    lemon__add_columns(w->x, f->rows, f->dt, 1, f->channel);
    f->influence[layer] += lemon__turned(before, w->x, f->rows, f->dt);
}

/*  How many windows are watched: those that are kept, but of a teacher of a thousand million numbers or more only half, for
    means over some thousands of tokens change little and it is much of the work. */
static int64_t lemon__watched(const lemon__fill *f) {
    if (lemon_config_params(f->tc) < 1000000000) return f->kept;
    return lemon__max(f->kept_all / 2, lemon__min(f->kept_all, 4096 / f->seq)) - f->before;
}

/*  Fills channel, neuron, head, influence and covariance from windows that are kept, layer by layer, so that each
    layer's weights are read once. */
static void lemon__observe(lemon__fill *f) {
    lemon__cov cov;
    int64_t watched = lemon__watched(f);
    float *before = lemon__floats(f->ctx, &f->work, f->batch * f->seq, f->dt);
    if (!f->status) f->status = lemon__rows_spill(f);
    if (!f->status) f->status = lemon__run_open(f->ctx, &f->solve, f->teacher, f->batch, f->seq, &f->t);
    lemon__rows_make(f, LEMON__XT, f->dt);
    f->channel = lemon__doubles(f->ctx, &f->arena, 1, lemon__measured(f));
    if (lemon__stuck(f, before && f->channel)) return;
    f->neuron = f->channel + f->dt;
    f->head = f->neuron + f->tc->n_layers * f->nt;
    f->influence = f->head + f->tc->n_layers * f->tc->n_heads;
    f->covariance = f->influence + f->tc->n_layers;
    if (lemon__stuck(f, !lemon__cov_make(f->ctx, &f->work, f->dt, f->dt, f->covariance, &cov))) return;
    f->what = "watch the teacher";
    f->total = f->tc->n_layers;
    lemon__stage_load(f, f->step < f->total);
    for (lemon__rewind(f); f->step == 0 && lemon__next_batch(f) && f->first < watched;)
        lemon__walk_embed(&f->t.walk, f->ids + f->first * f->seq);
    for (int64_t layer = lemon__min(f->step, f->total); !f->status && layer < f->total; layer++) {
        f->done = layer;
        lemon__layer_pages(f, f->teacher, layer + 1, LEMON__SOON);
        for (lemon__rewind(f); lemon__next_batch(f) && f->first < watched;) {
            lemon__observe_layer(f, layer, &cov, before);
            if (layer + 1 == f->tc->n_layers) lemon__observe_stream(f, &f->t.walk, &cov);
        }
        lemon__layer_pages(f, f->teacher, layer, LEMON__GONE);
        lemon__stage_save(f, layer + 1);
    }
    if (!f->status) f->status = lemon__tick(f->ctx, f->what, f->total, f->total, (double)NAN);
    lemon__sum_up(f, f->channel, lemon__measured(f));
    lemon__mirror_up(f->ctx, f->covariance, f->covariance, f->dt);
    lemon__arena_release(f->ctx, &f->work, NULL);
}

/* ---- methods that select: select, drop, subclone, and the start of those that learn ---- */

static float lemon__read_scale(const lemon__fill *f, int64_t teacher, int64_t student) {
    return f->method->rescaled ? sqrtf((float)teacher / (float)student) : 1.0f;
}

/*  Main layers are spread, the ends pinned to the ends (a single one is the last), or the first ones.  Slot 0 is the main
    layer with weight 1; further slots are its nearest neighbours, with weight 0 until something is learned. */
static void lemon__select_layers(lemon__fill *f) {
    const int64_t total = f->tc->n_layers, gaps = f->sc->n_layers - 1;
    for (int64_t i = 0; i <= gaps; i++) {
        const int64_t spread = gaps > 0 ? (2 * i * (total - 1) + gaps) / (2 * gaps) : total - 1;
        const int64_t main = f->main[i] = f->method->spaced ? spread : i;
        int32_t *layer = f->ops->layer + i * f->ops->slots;
        layer[0] = (int32_t)main;
        f->ops->layer_weight[i * f->ops->slots] = 1.0f;
        for (int64_t k = 1, step = 1; k < f->ops->slots && step <= total; step++) {
            if (main - step >= 0) layer[k++] = (int32_t)(main - step);
            if (k < f->ops->slots && main + step < total) layer[k++] = (int32_t)(main + step);
        }
    }
}

static void lemon__fill_selected(lemon__fill *f) {
    const int64_t most = lemon__max(lemon__max(f->ds, f->ns), f->sc->n_heads);
    const float scale = lemon__read_scale(f, f->dt, f->ds), heads = lemon__read_scale(f, f->tc->n_heads, f->sc->n_heads),
                neurons = lemon__read_scale(f, f->nt, f->ns);
    const int ranked = f->method->ranked;
    int32_t *index = lemon__ids(f->ctx, &f->arena, 1, most);
    if (ranked) lemon__observe(f);
    if (lemon__stuck(f, index != NULL)) return;
    lemon__select_layers(f);
    lemon__choose(f, ranked ? f->channel : NULL, f->dt, f->ds, index);
    for (int place = LEMON_AT_RESIDUAL; place <= LEMON_AT_READ_FFN; place++)
        for (int64_t layer = 0; layer < (lemon__places[place].per_layer ? f->sc->n_layers : 1); layer++)
            lemon__select_at(f, place, layer, index, place <= LEMON_AT_GAIN ? 1.0f : scale);
    for (int64_t layer = 0; !f->status && layer < f->sc->n_layers; layer++) {
        lemon__choose_heads(f, ranked ? f->head + f->main[layer] * f->tc->n_heads : NULL, index);
        lemon__map_heads(f, layer, index, NULL, NULL, heads);
        lemon__choose(f, ranked ? f->neuron + f->main[layer] * f->nt : NULL, f->nt, f->ns, index);
        lemon__select_at(f, LEMON_AT_FFN, layer, index, 1.0f);
        lemon__select_at(f, LEMON_AT_READ_NEURONS, layer, index, neurons);
    }
}

/* ---- lemon: the basis of the student's residual stream ---- */

/*  The next block of channels: the one with most energy that is not taken yet, and those most correlated with it. */
static void lemon__basis_block(const double *cov, int64_t n, char *taken, int64_t size, int32_t *block) {
    for (int64_t i = 0; i < size; i++) {
        double best = -1.0;
        for (int64_t j = 0; j < n; j++) {
            double c = i == 0 ? cov[j * n + j] : fabs(cov[block[0] * n + j]) / sqrt(cov[j * n + j] + 1e-30);
            if (taken[j] || !(c > best)) continue;
            best = c;
            block[i] = (int32_t)j;
        }
        taken[block[i]] = 1;
    }
}

/*  Rows of P [ds, dt]: the eigenvectors of the covariance with the largest eigenvalues; with a field, those of its
    blocks of `field` channels.  So a student channel reads `field` teacher channels (one: a selection; all: the
    principal components), and the rows are orthogonal, which the norms need: |P x| must go with |x|.  They are scaled so that
    the student's stream is as large as the teacher's: eps keeps its meaning. */
static void lemon__basis(lemon__fill *f) {
    const int64_t n = f->dt, field = f->field, rows = f->ds;
    double mine = 0.0, all = 0.0;
    float *c = lemon__floats(f->ctx, &f->work, n, n), *pc = lemon__floats(f->ctx, &f->work, rows, n);
    double *a = lemon__doubles(f->ctx, &f->work, field, field), *z = lemon__doubles(f->ctx, &f->work, field, field);
    double *d = lemon__doubles(f->ctx, &f->work, 1, n), *vectors = lemon__doubles(f->ctx, &f->work, n, n);
    int32_t *block = lemon__ids(f->ctx, &f->work, 1, field), *order = lemon__ids(f->ctx, &f->work, 1, n);
    char *taken = (char *)lemon_arena_alloc(f->ctx, &f->work, (size_t)n);
    if (lemon__stuck(f, a && z && d && vectors && block && order && taken && c && pc)) return;
    for (int64_t at = 0; at < n; at += field) {
        int64_t size = lemon__min(field, n - at);
        lemon__basis_block(f->covariance, n, taken, size, block);
        for (int64_t i = 0; i < size; i++)
            for (int64_t j = 0; j < size; j++) a[i * size + j] = f->covariance[block[i] * n + block[j]];
        if (lemon__stuck(f, !lemon__eigen(f->ctx, a, size, d + at, z))) return;
        for (int64_t i = 0; i < size; i++)
            for (int64_t j = 0; j < size; j++) vectors[(at + i) * n + block[j]] = z[i * size + j];
    }
    lemon__choose(f, d, n, rows, order);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < n; j++) f->p[i * n + j] = (float)vectors[order[i] * n + j];
    for (int64_t i = 0; i < n; i++) all += f->covariance[i * n + i];
    for (int64_t i = 0; i < n * n; i++) c[i] = (float)f->covariance[i];
    lemon__gemm_threads(f->ctx, 0, 0, rows, n, n, 1.0f, f->p, n, c, n, 0.0f, pc, n);
    for (int64_t i = 0; i < rows * n; i++) mine += (double)pc[i] * (double)f->p[i];
    const float scale = (float)sqrt(all * (double)rows / (mine * (double)n));
    for (int64_t i = 0; i < rows * n; i++) f->p[i] *= scale;
}

/*  A map from a dense matrix [student, teacher], keeping in each row the places where `pattern` is not zero. */
static void lemon__map_from(lemon__fill *f, lemon_map *map, const float *dense, const float *pattern, int64_t field) {
    if (!f->status) f->status = lemon__map_make(f->ctx, f->ops, map, field);
    if (f->status) return;
    if (map->index == NULL) memcpy(map->value, dense, (size_t)(map->student * map->teacher) * sizeof *dense);
    for (int64_t i = 0; map->index && i < map->student; i++)
        for (int64_t c = 0, n = 0; c < map->teacher && n < field; c++)
            if (pattern[i * map->teacher + c] < 0.0f || pattern[i * map->teacher + c] > 0.0f) {
                map->index[i * field + n] = (int32_t)c;
                map->value[i * field + n++] = dense[i * map->teacher + c];
            }
}

/*  The rows of P, or of its squares, each over the sum of its squares: P's own inverse, for a read map ((P P^T)^-1 P, as
    the rows are orthogonal), and what gains go by, the best diagonal for P diag(g) P^T.  NULL: no memory, or an error. */
static float *lemon__basis_over(lemon__fill *f, int squared) {
    float *matrix = f->status ? NULL : lemon__floats(f->ctx, &f->work, f->ds, f->dt);
    for (int64_t i = 0; matrix && i < f->ds; i++) {
        const float *p = f->p + i * f->dt;
        double size = 0.0;
        for (int64_t c = 0; c < f->dt; c++) size += (double)p[c] * (double)p[c];
        for (int64_t c = 0; c < f->dt; c++)
            matrix[i * f->dt + c] = (float)((double)p[c] * (squared ? (double)p[c] : 1.0) / size);
    }
    return matrix;
}

/*  P, and the maps that follow from it alone. */
static void lemon__solve_basis(lemon__fill *f) {
    const int64_t n = f->dt;
    if (!f->p) f->p = lemon__floats(f->ctx, &f->solve, f->ds, n);
    f->field = f->method->kind == LEMON__SOLVES && f->o->field_dims > 0 ? lemon__min(f->o->field_dims, n) : n;
    if (lemon__stuck(f, f->p != NULL)) return;
    if (f->ds == n) for (int64_t i = 0; i < n; i++) f->p[i * n + i] = 1.0f;
    else if (f->step <= f->tc->n_layers) lemon__basis(f);
    const float *gain = lemon__basis_over(f, 1);
    if (lemon__stuck(f, gain != NULL)) return;
    lemon__map_from(f, lemon__own_map(f->ops, LEMON_AT_RESIDUAL, 0, 0), f->p, f->p, f->field);
    lemon__map_from(f, lemon__own_map(f->ops, LEMON_AT_GAIN, 0, 0), gain, f->p, f->field);
    lemon__arena_release(f->ctx, &f->work, NULL);
}

/* ---- lemon: read maps ---- */

/*  A read map of the stream: the teacher's norm (the target) from the student's (the source), both without gains, pulled
    towards P's own inverse.  mean: room for sums of both over the rows learned from, or NULL. */
static void lemon__solve_read(lemon__fill *f, int place, int64_t layer, int64_t slot, double *mean) {
    float *w = lemon__floats(f->ctx, &f->work, f->dt, f->ds), *matrix = lemon__basis_over(f, 0);
    const lemon__target t = {LEMON__TARGET + (int)slot, f->dt, NULL, w, matrix};
    const int masked = f->field < f->dt;
    lemon__squares q;
    if (lemon__stuck(f, w && matrix)) return;
    for (lemon__rewind(f); lemon__next_batch(f);) {
        lemon__walk_norm(&f->t.walk, -1, 0);
        lemon__walk_norm(&f->s.walk, -1, 0);
        lemon__copy_in(f, t.store, f->t.walk.y, f->dt);
        lemon__copy_in(f, LEMON__SOURCE, f->s.walk.y, f->ds);
        if (mean && !f->held) lemon__add_columns(f->t.walk.y, f->rows, f->dt, 0, mean);
        if (mean && !f->held) lemon__add_columns(f->s.walk.y, f->rows, f->ds, 0, mean + f->dt);
    }
    lemon__transpose(matrix, f->ds, f->dt, w, f->ds);
    lemon__squares_open(f, f->ds, f->dt, &q);
    if (masked) q.room = lemon__doubles(f->ctx, &f->work, f->ctx->threads, f->ds * (f->ds + 1));
    if (masked) q.allowed = lemon__ids(f->ctx, &f->work, f->ctx->threads, f->ds);
    if (lemon__stuck(f, !masked || (q.room && q.allowed))) return;
    lemon__squares_solve(&q, &t, masked ? -1 : lemon__squares_choose(&q, &t));
    lemon__map_from(f, lemon__own_map(f->ops, place, layer, slot), matrix, f->p, masked ? f->field : f->dt);
}

/* ---- lemon: weights of the student ---- */

/*  A weight of the student as its maps make it. */
static void lemon__solve_apply(lemon__fill *f, lemon_role role, int64_t layer) {
    const int64_t param = lemon__param_index(f->sc, role, layer);
    if (!f->status) f->status = lemon__student_place(f->student, param);
    if (!f->status) f->status = lemon__apply_param(f->ctx, f->ops, f->teacher, 1, param, f->student);
}

/*  P W [ds, n] of a teacher's matrix that writes to the stream; NULL: no memory. */
static const float *lemon__projected(lemon__fill *f, lemon_role role, int64_t layer) {
    const lemon_tensor *t = lemon_model_param(f->teacher, role, layer);
    float *rows = lemon__floats(f->ctx, &f->work, LEMON__PANEL, t->cols);
    float *pw = lemon__floats(f->ctx, &f->work, f->ds, t->cols);
    if (rows && pw) lemon__times_weight(f->ctx, f->p, f->ds, 1.0f, t, NULL, rows, pw);
    return rows ? pw : NULL;
}

/*  A map that holds a selection becomes the dense one that is solved from there, for what the store has, if that is better. */
static void lemon__solve_select(lemon__fill *f, lemon_map *map, int store, lemon__squares *q) {
    lemon__target t = {store, map->teacher, map, NULL, NULL};
    const int ridge = lemon__squares_choose(q, &t);
    if (ridge < 0) return;
    t.turned = lemon__floats(f->ctx, &f->ops->arena, map->student, map->teacher);
    if (lemon__stuck(f, t.turned != NULL)) return;
    lemon__squares_solve(q, &t, ridge);
    map->field = map->teacher;
    map->index = NULL;
    map->value = t.turned;
}

/*  A weight of the student as its maps make it, kept as the start of its correction; NULL: no memory, or an error before. */
static float *lemon__correction_begin(lemon__fill *f, int64_t param) {
    if (f->status) return NULL;
    const lemon_tensor *w = &f->student->params[param];
    float *plain = lemon__floats(f->ctx, &f->ops->arena, w->rows, w->cols);
    if (lemon__stuck(f, plain != NULL)) return NULL;
    f->ops->correction[param] = lemon__view(plain, LEMON_F32, w->rows, w->cols);
    memcpy(plain, w->data, lemon_tensor_bytes(w));
    return (float *)w->data;
}

/*  The difference is the correction, and the weight what both make: so applying the set gives the same bits. */
static void lemon__correction_end(lemon__fill *f, int64_t param) {
    float *w = (float *)f->student->params[param].data, *extra = (float *)f->ops->correction[param].data;
    for (int64_t c = 0; c < f->ops->correction[param].rows * f->ops->correction[param].cols; c++) {
        const float plain = extra[c];
        extra[c] = w[c] - plain;
        w[c] = plain + extra[c];
    }
}

/*  A block of the student, attention or FFN, with what it has read; then the matrix at its end, which writes to the stream
    (role): the source is what it reads, targets are what the teacher's read, and what the student's stream lacks,
    P x_t - x_s.  Inner read maps (heads, neurons) are solved first, from the selections that they hold now; then the weight,
    pulled towards what the maps make of it.  The student's stream goes on through it. */
static void lemon__solve_block(lemon__fill *f, lemon_role role, int64_t i) {
    const int heads = role == LEMON_WO;
    const int64_t n = heads ? f->qs : f->ns, param = lemon__param_index(f->sc, role, i);
    lemon__target t = {LEMON__LACK, f->ds, NULL, NULL, NULL};
    lemon__walk *s = &f->s.walk;
    lemon__squares q;
    for (int own = heads ? LEMON_ATTN_NORM : LEMON_FFN_NORM; own < (int)role; own++) lemon__solve_apply(f, (lemon_role)own, i);
    for (int own = LEMON_BQ; heads && own <= LEMON_K_NORM; own++)
        if (lemon__has_role(f->sc, (lemon_role)own)) lemon__solve_apply(f, (lemon_role)own, i);
    for (lemon__rewind(f); lemon__next_batch(f);) {
        float *r = lemon__batch(f, LEMON__LACK);
        if (heads) lemon__run_attend(&f->s, i);
        else lemon__run_neurons(&f->s, i);
        lemon__copy_in(f, LEMON__SOURCE, heads ? s->z : s->gate, n);
        memcpy(r, s->x, (size_t)(f->rows * f->ds) * sizeof *r);
        lemon__gemm_threads(f->ctx, 0, 1, f->rows, f->ds, f->dt, 1.0f, f->t.walk.x, f->dt, f->p, f->dt, -1.0f, r, f->ds);
    }
    lemon__squares_open(f, n, lemon__max(heads ? f->qt : f->nt, f->ds), &q);
    for (int64_t slot = 0; slot < lemon__slots_used(f, i); slot++) {
        lemon_map *map = lemon__own_map(f->ops, (int)lemon__role_places[role].in, i, slot);
        if (map->field > 0) lemon__solve_select(f, map, LEMON__TARGET + (int)slot, &q);
    }
    lemon__solve_apply(f, role, i);
    if (f->o->correction && (t.w = lemon__correction_begin(f, param)) != NULL) {
        lemon__squares_solve(&q, &t, lemon__squares_choose(&q, &t));
        lemon__correction_end(f, param);
    }
    for (lemon__rewind(f); lemon__next_batch(f);) lemon__walk_write(s, role, i, lemon__batch(f, LEMON__SOURCE));
    lemon__arena_release(f->ctx, &f->work, NULL);
}

/* ---- lemon: attention ---- */

/*  For each head, x [rows, H, C]: sum [H, C, C] += x_h^T x_h, or with energy [H] only that += the sum of x_h^T x_h * sum_h;
    part [C, C]. */
static void lemon__head_squares(lemon__fill *f, const float *x, int64_t rows, float *part, double *sum, double *energy) {
    const int64_t d = f->tc->head_dim;
    for (int64_t h = 0; h < f->tc->n_heads; h++, x += d, sum += d * d) {
        lemon__gemm_threads(f->ctx, 1, 0, d, d, rows, 1.0f, x, f->qt, x, f->qt, 0.0f, part, d);
        for (int64_t i = 0; !energy && i < d * d; i++) sum[i] += (double)part[i];
        for (int64_t i = 0; energy && i < d * d; i++) energy[h] += (double)part[i] * sum[i];
    }
}

/*  What a read map misses on average, m = E y_t - In^T E y_s, goes through the teacher's matrices to the student's biases:
    b + W m, the latter as their correction.  mean: sums over the rows learned from, of y_t and then of y_s. */
static void lemon__solve_intercept(lemon__fill *f, int64_t layer, const double *mean) {
    float *read = lemon__floats(f->ctx, &f->work, f->ds, f->dt), *lack = lemon__floats(f->ctx, &f->work, 1, f->dt);
    if (lemon__stuck(f, read && lack)) return;
    lemon__map_expand(lemon__own_map(f->ops, LEMON_AT_READ_ATTN, layer, 0), read);
    for (int64_t c = 0; c < f->dt; c++) {
        double sum = mean[c];
        for (int64_t i = 0; i < f->ds; i++) sum -= mean[f->dt + i] * (double)read[i * f->dt + c];
        lack[c] = (float)(sum / (double)(f->kept_all * f->seq));
    }
    for (int64_t which = 0; which < 3; which++) {
        lemon_role role = (lemon_role)(LEMON_WQ + which);
        const lemon_map *write = lemon__own_map(f->ops, (int)lemon__role_places[role].out, layer, 0);
        float *w = lemon__teacher_weight(f->ctx, &f->work, f->teacher, role, f->main[layer], 1);
        float *out = lemon__floats(f->ctx, &f->work, 1, write->teacher),
              *extra = lemon__floats(f->ctx, &f->ops->arena, 1, write->student);
        if (lemon__stuck(f, w && out && extra)) return;
        lemon__gemm_threads(f->ctx, 0, 1, 1, write->teacher, f->dt, 1.0f, lack, f->dt, w, f->dt, 0.0f, out, write->teacher);
        lemon__map_cols(f->ctx, write, out, 1, 0.0f, extra);
        f->ops->correction[lemon__param_index(f->sc, (lemon_role)(LEMON_BQ + which), layer)] =
            lemon__view(extra, LEMON_F32, 1, write->student);
    }
}

/*  The read map of the student's attention, the teacher's main layer up to its attention, and which heads stay. */
static void lemon__solve_attention_in(lemon__fill *f, int64_t i) {
    int64_t d = f->tc->head_dim;
    double *mean = lemon__doubles(f->ctx, &f->arena, 1, f->dt + f->ds);
    lemon__solve_read(f, LEMON_AT_READ_ATTN, i, 0, mean);
    lemon__arena_release(f->ctx, &f->work, NULL);
    double *planes = lemon__doubles(f->ctx, &f->work, 1, f->qt / 2);
    double *sum = lemon__doubles(f->ctx, &f->work, f->tc->n_heads, d * d);
    float *part = lemon__floats(f->ctx, &f->work, d, d);
    if (lemon__stuck(f, mean && planes && sum && part)) return;
    for (lemon__rewind(f); lemon__next_batch(f);) {
        lemon__run_attend(&f->t, f->main[i]);
        lemon__add_squares(f->t.walk.q, f->rows, f->qt / 2, 2, planes);
        lemon__head_squares(f, f->t.walk.z, f->rows, part, sum, NULL);
        lemon__copy_in(f, LEMON__TARGET, f->t.walk.z, f->qt);
        lemon__walk_write(&f->t.walk, LEMON_WO, f->main[i], f->t.walk.z);
    }
    lemon__sum_up(f, mean, f->dt + f->ds), lemon__sum_up(f, planes, f->qt / 2), lemon__sum_up(f, sum, f->tc->n_heads * d * d);
    const float *w = lemon__projected(f, LEMON_WO, f->main[i]);
    if (lemon__stuck(f, w != NULL)) return;
    memset(f->energy, 0, (size_t)f->tc->n_heads * sizeof *f->energy);
    lemon__head_squares(f, w, f->ds, part, sum, f->energy);         /* E |P Wo_h z_h|^2 */
    lemon__choose_heads(f, f->energy, f->chosen);
    lemon__map_heads(f, i, f->chosen, planes, f->energy, 1.0f);
    if (f->sc->qkv_bias && f->o->correction) lemon__solve_intercept(f, i, mean);
    lemon__arena_release(f->ctx, &f->work, NULL);
}

/* ---- lemon: the feed-forward block ---- */

/*  The neurons' energies, E h^2 |P w_down|^2, into energy [F]; squares: E h^2. */
static void lemon__neuron_energy(lemon__fill *f, int64_t layer, const double *squares, double *energy) {
    const float *w = lemon__projected(f, LEMON_W_DOWN, layer);
    if (lemon__stuck(f, w != NULL)) return;
    for (int64_t j = 0; j < f->nt; j++) energy[j] = 0.0;
    for (int64_t i = 0; i < f->ds; i++, w += f->nt)
        for (int64_t j = 0; j < f->nt; j++) energy[j] += (double)w[j] * (double)w[j] * squares[j];
}

/*  One teacher layer of the field through its FFN; where it has a slot, its read map and its neurons' energies. */
static void lemon__solve_ffn_in(lemon__fill *f, int64_t i, int64_t layer) {
    const int64_t slot = layer - f->main[i];
    const int used = slot < lemon__slots_used(f, i);
    lemon__walk *t = &f->t.walk;
    for (lemon__rewind(f); slot > 0 && lemon__next_batch(f);) {
        lemon__run_attend(&f->t, layer);
        lemon__walk_write(t, LEMON_WO, layer, t->z);
    }
    if (used) lemon__solve_read(f, LEMON_AT_READ_FFN, i, slot, NULL);
    lemon__arena_release(f->ctx, &f->work, NULL);
    double *squares = lemon__doubles(f->ctx, &f->work, 1, f->nt);
    if (lemon__stuck(f, squares != NULL)) return;
    for (lemon__rewind(f); lemon__next_batch(f);) {
        lemon__run_neurons(&f->t, layer);
        lemon__add_squares(t->gate, f->rows, f->nt, 1, squares);
        if (used) lemon__copy_in(f, LEMON__TARGET + (int)slot, t->gate, f->nt);
        lemon__walk_write(t, LEMON_W_DOWN, layer, t->gate);
    }
    lemon__sum_up(f, squares, f->nt);
    if (used) lemon__neuron_energy(f, layer, squares, f->energy + slot * f->nt);
    lemon__arena_release(f->ctx, &f->work, NULL);
}

/*  The best neurons of all slots together: each slot's maps select its own, and nothing where it has none. */
static void lemon__solve_neurons(lemon__fill *f, int64_t i) {
    static const int places[2] = {LEMON_AT_FFN, LEMON_AT_READ_NEURONS};
    lemon__choose(f, f->energy, lemon__slots_used(f, i) * f->nt, f->ns, f->chosen);
    for (int64_t slot = 0; !f->status && slot < f->ops->slots; slot++) {
        int64_t mine = 0;
        for (int64_t c = 0; c < f->ns; c++) mine += f->chosen[c] / f->nt == slot;
        for (int k = 0; k < 2; k++) {
            lemon_map *map = lemon__fill_map(f, places[k], i, slot, mine > 0 ? 1 : 0);
            for (int64_t c = 0; map && mine > 0 && c < f->ns; c++) {
                if (map->index) map->index[c] = (int32_t)(f->chosen[c] % f->nt);
                map->value[c] = f->chosen[c] / f->nt == slot ? 1.0f : 0.0f;
            }
        }
    }
    lemon__arena_release(f->ctx, &f->work, NULL);
}

/*  All of a student layer gets its place at once, so that a later run finds it there. */
static void lemon__solve_places(lemon__fill *f, int64_t i) {
    const int64_t each = lemon__per_layer(f->sc);
    for (int64_t k = 1 + i * each; !f->status && k < 1 + (i + 1) * each; k++) f->status = lemon__student_place(f->student, k);
}

/*  Forgets a layer's operators, which the student's weights hold now. */
static void lemon__solve_forget(lemon__fill *f, int64_t i, void *until) {
    const int64_t each = lemon__per_layer(f->sc);
    for (int place = 0; place < LEMON_PLACE_COUNT; place++)
        for (int64_t slot = 0; slot < f->ops->slots && lemon__places[place].per_layer; slot++)
            memset(lemon__own_map(f->ops, place, i, slot), 0, sizeof(lemon_map));
    for (int64_t k = 1 + i * each; k < 1 + (i + 1) * each; k++) f->ops->correction[k].data = NULL;
    lemon__arena_release(f->ctx, &f->ops->arena, until);
}

static void lemon__solve_layer(lemon__fill *f, int64_t i) {
    void *before = f->ops->arena.blocks;
    int64_t last = lemon__field_end(f, i);
    lemon__solve_places(f, i);
    for (int64_t layer = f->main[i]; layer <= last + 1; layer++) lemon__layer_pages(f, f->teacher, layer, LEMON__SOON);
    lemon__solve_attention_in(f, i);
    lemon__solve_block(f, LEMON_WO, i);
    for (int64_t layer = f->main[i]; !f->status && layer <= last; layer++) lemon__solve_ffn_in(f, i, layer);
    lemon__solve_neurons(f, i);
    lemon__solve_block(f, LEMON_W_DOWN, i);
    for (int64_t layer = f->main[i]; layer <= last; layer++) lemon__layer_pages(f, f->teacher, layer, LEMON__GONE);
    if (!f->keep) lemon__solve_forget(f, i, before);
    lemon__stage_save(f, f->tc->n_layers + 2 + i);
    lemon__layer_pages(f, f->student, i, LEMON__GONE);
}

/* ---- lemon: the output side ---- */

/*  What the covariances of norms say of a gain's normal equations: see lemon__solve_gain. */
typedef struct lemon__gain {
    lemon__cov s[2], t[2];          /* E[y_s y_s^T], E[y_t y_s^T] over the rows to learn from (0), and held out (1) */
    double *a[2], *b[2];            /* the equations: a g = b, of what is to be added to the gain */
} lemon__gain;

static void lemon__gain_make(lemon__fill *f, lemon__gain *g) {
    for (int k = 0; k < 2; k++) {
        g->a[k] = lemon__doubles(f->ctx, &f->work, f->ds, f->ds);
        g->b[k] = lemon__doubles(f->ctx, &f->work, 1, f->ds);
        lemon__stuck(f, g->a[k] && g->b[k] && !lemon__cov_make(f->ctx, &f->work, f->ds, f->ds, NULL, &g->s[k]) &&
                        !lemon__cov_make(f->ctx, &f->work, f->dt, f->ds, NULL, &g->t[k]));
    }
    for (lemon__rewind(f); lemon__next_batch(f);) {
        const float *s = lemon__batch(f, LEMON__SOURCE);
        lemon__cov_add(f->ctx, &g->s[f->held], s, s, f->rows);
        lemon__cov_add(f->ctx, &g->t[f->held], lemon__batch(f, LEMON__TARGET), s, f->rows);
    }
    for (int k = 0; k < 2 && !f->status; k++) {
        lemon__sum_up(f, g->s[k].sum, f->ds * f->ds);
        lemon__sum_up(f, g->t[k].sum, f->dt * f->ds);
        lemon__mirror_up(f->ctx, g->s[k].sum, g->s[k].sum, f->ds);
    }
}

/*  Es^T Es and Es^T Et of the embeddings, less their mean rows, for softmax does not see what all logits share. */
static void lemon__gain_logits(lemon__fill *f, float *ss, float *st) {
    const lemon_tensor *const from[2] = {&f->student->params[0], lemon_model_param(f->teacher, LEMON_OUTPUT, 0)};
    float *rows[2], *const to[2] = {ss, st};
    double *mean[2];
    int64_t vocab = f->sc->vocab_size, n;
    for (int k = 0; k < 2; k++) {
        rows[k] = lemon__floats(f->ctx, &f->work, LEMON__PANEL, from[k]->cols);
        mean[k] = lemon__doubles(f->ctx, &f->work, 1, from[k]->cols);
        if (lemon__stuck(f, rows[k] && mean[k])) return;
        for (int64_t r = 0; r < vocab; r++) {
            lemon_row_to_f32(from[k], r, rows[k]);
            for (int64_t c = 0; c < from[k]->cols; c++) mean[k][c] += (double)rows[k][c] / (double)vocab;
        }
    }
    for (int64_t at = 0; at < vocab; at += n) {
        n = lemon__min(LEMON__PANEL, vocab - at);
        for (int k = 0; k < 2; k++)
            for (int64_t r = 0; r < n; r++) {
                float *row = rows[k] + r * from[k]->cols;
                lemon_row_to_f32(from[k], at + r, row);
                for (int64_t c = 0; c < from[k]->cols; c++) row[c] -= (float)mean[k][c];
            }
        for (int k = 0; k < 2; k++)
            lemon__gemm_threads(f->ctx, 1, 0, f->ds, from[k]->cols, n, 1.0f, rows[0], f->ds, rows[k], from[k]->cols,
                                at > 0 ? 1.0f : 0.0f, to[k], from[k]->cols);
    }
}

/*  The step of the ridge that does best on held-out rows, step a step - 2 step b, added to the gain. */
static void lemon__gain_solve(lemon__fill *f, const lemon__gain *g, float *gain) {
    const int64_t n = f->ds;
    const double *held = g->a[1];
    double *step = lemon__doubles(f->ctx, &f->work, 1, n), *best = lemon__doubles(f->ctx, &f->work, 1, n), mean = 0.0,
           least = 0.0;
    lemon__factor l;
    if (lemon__stuck(f, step && best && !lemon__factor_make(f->ctx, &f->work, n, 1, &l))) return;
    for (int64_t i = 0; i < n; i++) mean += g->a[0][i * n + i] / (double)n;
    for (int k = 0; k < LEMON__RIDGES; k++) {
        double change = 0.0;
        memcpy(l.a, g->a[0], (size_t)(n * n) * sizeof *l.a);
        for (int64_t i = 0; i < n; i++) l.a[i * n + i] += lemon__ridges[k] * mean + 1e-30;
        if (!lemon__factor_run(&l)) continue;
        memcpy(step, g->b[0], (size_t)n * sizeof *step);
        lemon__factor_solve(&l, step, 1);
        for (int64_t i = 0; i < n; i++) change += step[i] * (lemon__dot64(held + i * n, step, n) - 2.0 * g->b[1][i]);
        if (!(change < least)) continue;
        least = change;
        memcpy(best, step, (size_t)n * sizeof *best);
    }
    for (int64_t i = 0; i < n; i++) gain[i] += (float)best[i];
}

/*  The final gain g of a tied student: least squares on centred logits, min E |Es diag(g) y_s - Et diag(g_t) y_t|^2,
    whose normal equations are (Es^T Es . E[y_s y_s^T]) g = diag(Es^T Et diag(g_t) E[y_t y_s^T]); Es, Et: lemon__gain_logits,
    the dot: number by number. */
static void lemon__solve_gain(lemon__fill *f) {
    int64_t ds = f->ds, dt = f->dt, param = lemon__param_index(f->sc, LEMON_FINAL_NORM, 0);
    float *ss = lemon__floats(f->ctx, &f->work, ds, ds), *st = lemon__floats(f->ctx, &f->work, ds, dt);
    float *gain = lemon__floats(f->ctx, &f->work, 1, dt);
    lemon__gain g;
    float *mine = lemon__correction_begin(f, param);
    if (lemon__stuck(f, gain && ss && st && mine)) return;
    lemon__gain_make(f, &g);
    lemon__gain_logits(f, ss, st);
    if (f->status) return;
    lemon_row_to_f32(lemon_model_param(f->teacher, LEMON_FINAL_NORM, 0), 0, gain);
    for (int k = 0; k < 2; k++)
        for (int64_t i = 0; i < ds; i++) {
            for (int64_t j = 0; j < ds; j++) g.a[k][i * ds + j] = (double)ss[i * ds + j] * g.s[k].sum[i * ds + j];
            for (int64_t j = 0; j < dt; j++) g.b[k][i] += (double)st[i * dt + j] * (double)gain[j] * g.t[k].sum[j * ds + i];
            for (int64_t j = 0; j < ds; j++) g.b[k][i] -= g.a[k][i * ds + j] * (double)mine[j];
        }
    lemon__gain_solve(f, &g, mine);
    lemon__correction_end(f, param);
}

/* ---- lemon: all of it ---- */

/*  The teacher's stream goes on through layers from ... to - 1. */
static void lemon__pass_layers(lemon__fill *f, int64_t from, int64_t to) {
    for (; from < to; from++)
        for (lemon__rewind(f); lemon__next_batch(f);) lemon__walk_layer(&f->t.walk, from, f->t.k, f->t.v);
}

/*  The streams after the embedding, and the teacher's after layers before the first that is kept; or what an earlier run
    left. */
static void lemon__solve_begin(lemon__fill *f) {
    if (f->step > f->tc->n_layers) {
        if (!f->status) f->status = lemon__student_place(f->student, 0);
        for (int64_t layer = 0; layer < f->step - f->tc->n_layers - 1; layer++) lemon__solve_places(f, layer);
        lemon__stage_load(f, 1);
        return;
    }
    lemon__solve_apply(f, LEMON_TOK_EMBED, 0);
    for (lemon__rewind(f); lemon__next_batch(f);) {
        lemon__walk_embed(&f->t.walk, f->ids + f->first * f->seq);
        lemon__walk_embed(&f->s.walk, f->ids + f->first * f->seq);
    }
    lemon__pass_layers(f, 0, f->main[0]);
    lemon__stage_save(f, f->tc->n_layers + 1);
}

/*  The teacher layers that are kept: first and last, and of the others those that turn the stream most (block
    influence, Men et al. 2024, 2403.03853): what they do can least be made up for by their neighbours.  Slots are the layers
    that a student layer answers for, main first, as many as the field allows.  Attention comes from the main layer alone:
    the other slots' maps there are empty. */
static void lemon__solve_layers(lemon__fill *f) {
    static const int places[7] = {LEMON_AT_READ_ATTN, LEMON_AT_QUERY, LEMON_AT_KEY, LEMON_AT_VALUE,
                                  LEMON_AT_READ_HEADS, LEMON_AT_QUERY_NORM, LEMON_AT_KEY_NORM};
    int32_t *chosen = lemon__ids(f->ctx, &f->work, 1, f->sc->n_layers);
    if (lemon__stuck(f, chosen != NULL)) return;
    f->influence[f->tc->n_layers - 1] = 1e30;
    if (f->sc->n_layers > 1) f->influence[0] = 1e30;
    lemon__choose(f, f->influence, f->tc->n_layers, f->sc->n_layers, chosen);
    for (int64_t i = 0; i < f->sc->n_layers; i++) f->main[i] = chosen[i];
    for (int64_t i = 0; !f->status && i < f->sc->n_layers; i++) {
        for (int64_t slot = 0; slot < lemon__slots_used(f, i); slot++) {
            f->ops->layer[i * f->ops->slots + slot] = (int32_t)(f->main[i] + slot);
            f->ops->layer_weight[i * f->ops->slots + slot] = 1.0f;
        }
        for (int64_t slot = 1; slot < f->ops->slots; slot++)
            for (int k = 0; k < (f->sc->qk_norm ? 7 : 5); k++) lemon__fill_map(f, places[k], i, slot, 0);
    }
}

/*  What is known before the first layer: which layers stay, and P; and room for all that solving keeps of a row. */
static void lemon__solve_open(lemon__fill *f) {
    lemon__student_open(f);
    lemon__observe(f);
    lemon__solve_layers(f);
    if (!f->status) f->status = lemon__run_open(f->ctx, &f->solve, f->student, f->batch, f->seq, &f->s);
    lemon__rows_make(f, LEMON__XS, f->ds);
    lemon__rows_make(f, LEMON__SOURCE, f->wide_s);
    lemon__rows_make(f, LEMON__LACK, f->ds);
    for (int64_t slot = 0; slot < f->ops->slots; slot++) lemon__rows_make(f, LEMON__TARGET + (int)slot, f->wide_t);
    f->energy = lemon__doubles(f->ctx, &f->solve, 1, lemon__max(f->ops->slots * f->nt, f->tc->n_heads));
    f->chosen = lemon__ids(f->ctx, &f->solve, 1, lemon__max(f->ns, f->sc->n_heads));
    lemon__stuck(f, f->energy && f->chosen);
    lemon__solve_basis(f);
    f->what = "solve";
    f->done = 0;
    f->total = f->sc->n_layers;
}

static void lemon__fill_solved(lemon__fill *f) {
    lemon__solve_open(f);
    lemon__solve_begin(f);
    f->done = lemon__max(0, f->step - f->tc->n_layers - 1);
    for (; !f->status && f->done < f->sc->n_layers; f->done++) lemon__solve_layer(f, f->done);
    lemon__solve_read(f, LEMON_AT_READ_OUTPUT, 0, 0, NULL);
    lemon__arena_release(f->ctx, &f->work, NULL);
    lemon__solve_apply(f, LEMON_FINAL_NORM, 0);
    if (!f->sc->tied_embeddings) lemon__solve_apply(f, LEMON_OUTPUT, 0);
    else if (f->o->correction) lemon__solve_gain(f);
    f->applied = 1;
    if (!f->status) f->status = lemon__tick(f->ctx, f->what, f->done, f->total, (double)NAN);
    lemon_arena_free(f->ctx, &f->solve);
}

/* ---- slicegpt and modegpt: the baselines that solve too, each part by itself, on the teacher's activations alone.  Their
        papers cut the stream (slicegpt) or the inner joints (modegpt); what a paper leaves whole is cut as well as can be:
                        slicegpt                                  modegpt
        layers          block influence                           block influence (the paper's measure of layers)
        stream          principal components (its section 3)      the same
        heads           the largest outputs                       columns (CR) with the largest |q| |k| (type II)
        head_dim        every r-th plane                          the same; values by SVD with wo (its type III)
        neurons         the largest outputs                       ridge leverage scores, and Nystrom's w_down (its type I)
        SliceGPT turns each block by its own components Q_i, with adapters Q_i^T Q_i+1 in the stream, for which a LLaMA has no
        room: they are the identity where all blocks share the components of their common covariance.  (Turning each block
        and folding the nearest rotation to each adapter into the matrices was tried too: it is far worse.)  The gain at the
        end of a tied student is diag(P diag(g) P^T). ---- */

typedef struct lemon__pieces {
    lemon__cov neurons, values;                 /* of the rows to learn from; of all */
    double *queries, *keys, *squares;           /* sums of squares of channels */
} lemon__pieces;

/*  The streams through a teacher layer, watched; its neurons are stored where they are to be solved for. */
static void lemon__parts_watch(lemon__fill *f, int64_t layer, lemon__pieces *p) {
    lemon__walk *t = &f->t.walk;
    const int decomposes = f->method->kind == LEMON__DECOMPOSES;
    const int64_t kv = lemon_joint_size(f->tc, LEMON_JOINT_KEY), n = decomposes ? f->nt : 0;
    p->queries = lemon__doubles(f->ctx, &f->work, 1, f->qt);
    p->keys = lemon__doubles(f->ctx, &f->work, 1, kv);
    p->squares = lemon__doubles(f->ctx, &f->work, 1, f->nt);
    lemon__stuck(f, p->queries && p->keys && p->squares);
    lemon__stuck(f, !lemon__cov_make(f->ctx, &f->work, kv, kv, NULL, &p->values));
    lemon__stuck(f, !lemon__cov_make(f->ctx, &f->work, n, n, NULL, &p->neurons));
    for (lemon__rewind(f); lemon__next_batch(f);) {
        lemon__run_attend(&f->t, layer);
        lemon__add_squares(t->q, f->rows, f->qt, 1, p->queries);
        lemon__add_squares(f->t.k, f->rows, kv, 1, p->keys);
        lemon__cov_add(f->ctx, &p->values, f->t.v, f->t.v, f->rows);
        lemon__walk_write(t, LEMON_WO, layer, t->z);
        lemon__run_neurons(&f->t, layer);
        lemon__add_squares(t->gate, f->rows, f->nt, 1, p->squares);
        if (decomposes) lemon__copy_in(f, LEMON__TARGET, t->gate, f->nt);
        if (decomposes && !f->held) lemon__cov_add(f->ctx, &p->neurons, t->gate, t->gate, f->rows);
        lemon__walk_write(t, LEMON_W_DOWN, layer, t->gate);
    }
    if (f->status) return;
    lemon__sum_up(f, p->queries, f->qt), lemon__sum_up(f, p->keys, kv), lemon__sum_up(f, p->squares, f->nt);
    lemon__sum_up(f, p->values.sum, kv * kv);
    if (decomposes) lemon__sum_up(f, p->neurons.sum, n * n);
    lemon__mirror_up(f->ctx, p->values.sum, p->values.sum, kv);
    lemon__mirror_up(f->ctx, p->neurons.sum, p->neurons.sum, n);
}

/*  P's inverse reads everywhere. */
static void lemon__parts_read(lemon__fill *f, int place, int64_t i) {
    const float *inverse = lemon__basis_over(f, 0);
    if (!lemon__stuck(f, inverse != NULL)) lemon__map_from(f, lemon__own_map(f->ops, place, i, 0), inverse, f->p, f->dt);
}

/*  Type III, for narrower heads: the values v of a key-value head come through fewer channels.  With G = E[v v^T] = L L^T,
    v = L s, where the s of all tokens together point everywhere alike.  What the stream gets of them is P Wo L s from each
    query, so by the SVD least is lost, in the mean square, where of s is kept what lies along the directions u that P Wo L
    makes longest: the eigenvectors of L^T H L with the largest eigenvalues, H = sum over queries of (P Wo)^T (P Wo).  The
    student's value is u^T s = (L^-T u)^T v, and L u puts it back in the place of v. */
typedef struct lemon__narrow {
    int64_t n;                      /* the teacher's head_dim */
    double *low, *h, *form;         /* G, then L; H; L^T H L, */
    double *u, *size;               /*   its eigenvectors, in rows, and eigenvalues */
    double *x;                      /* L^-T of one of these */
} lemon__narrow;

/*  G of the values from `first` on, in a unit of its own, and H of the queries; w = P Wo. */
static void lemon__narrow_sums(const lemon__fill *f, const int32_t *queries, int64_t group, int64_t first,
                               const lemon__cov *values, const float *w, lemon__narrow *t) {
    const double *g = values->sum + first * values->m + first;
    const int64_t n = t->n;
    double mean = 0.0;
    for (int64_t a = 0; a < n; a++) mean += g[a * values->m + a] / (double)n;
    for (int64_t a = 0; a < n; a++)
        for (int64_t b = 0; b < n; b++) t->low[a * n + b] = g[a * values->m + b] / mean + (a == b ? 1e-6 : 0.0);
    memset(t->h, 0, (size_t)(n * n) * sizeof *t->h);
    for (int64_t i = 0; i < group * f->ds; i++) {
        const float *row = w + i % f->ds * f->qt + queries[i / f->ds] * n;
        for (int64_t a = 0; a < n; a++)
            for (int64_t b = 0; b < n; b++) t->h[a * n + b] += (double)row[a] * (double)row[b];
    }
}

/*  An entry of L^T H L. */
static double lemon__narrow_form(const lemon__narrow *t, int64_t a, int64_t b) {
    double sum = 0.0;
    for (int64_t c = a; c < t->n; c++)
        for (int64_t r = b; r < t->n; r++) sum += t->low[c * t->n + a] * t->h[c * t->n + r] * t->low[r * t->n + b];
    return sum;
}

static void lemon__narrow_write(const lemon__narrow *t, const double *u, float *value) {
    for (int64_t a = t->n - 1; a >= 0; a--) {
        t->x[a] = u[a];
        for (int64_t b = a + 1; b < t->n; b++) t->x[a] -= t->low[b * t->n + a] * t->x[b];
        t->x[a] /= t->low[a * t->n + a];
        value[a] = (float)t->x[a];
    }
}

static void lemon__narrow_read(const lemon__narrow *t, const double *u, float *heads) {
    for (int64_t a = 0; a < t->n; a++)
        for (int64_t b = 0; b <= a; b++) heads[a] += (float)(t->low[a * t->n + b] * u[b]);
}

/*  Values that are merged from several heads, or without a G that has an L, are left as they are, in all of the layer. */
static void lemon__parts_values(lemon__fill *f, int64_t i, const lemon__cov *values) {
    const int64_t n = f->tc->head_dim, kept = f->sc->head_dim, group = f->sc->n_heads / f->sc->kv_heads;
    const float *w = lemon__projected(f, LEMON_WO, f->main[i]);
    lemon_map *write = lemon__own_map(f->ops, LEMON_AT_VALUE, i, 0), *read = lemon__own_map(f->ops, LEMON_AT_READ_HEADS, i, 0);
    float *v = lemon__floats(f->ctx, &f->work, write->student, values->m), *o = lemon__floats(f->ctx, &f->work, f->qs, f->qt);
    double *m = lemon__doubles(f->ctx, &f->work, 4 * n + 2, n);
    int32_t *order = lemon__ids(f->ctx, &f->work, 1, kept);
    if (lemon__stuck(f, w && v && o && m && order)) return;
    lemon__narrow t = {n, m, m + n * n, m + 2 * n * n, m + 3 * n * n, m + 4 * n * n, m + 4 * n * n + n};
    for (int64_t h = 0; h < f->sc->kv_heads; h++) {
        const int32_t *queries = f->chosen + h * group;
        const int64_t each = f->tc->n_heads / f->tc->kv_heads, first = queries[0] / each * n;
        int ok = 1;
        for (int64_t q = 1; q < group; q++) ok &= queries[q] / each * n == first;
        if (ok) lemon__narrow_sums(f, queries, group, first, values, w, &t);
        if (ok) lemon__cholesky_small(f->ctx->isa)(t.low, n, n, &ok);
        if (!ok) return;
        for (int64_t k = 0; k < n * n; k++) t.form[k] = lemon__narrow_form(&t, k / n, k % n);
        if (lemon__stuck(f, !lemon__eigen(f->ctx, t.form, n, t.size, t.u))) return;
        lemon__choose(f, t.size, n, kept, order);
        for (int64_t c = 0; c < kept; c++) {
            const double *u = t.u + order[c] * n;
            lemon__narrow_write(&t, u, v + (h * kept + c) * values->m + first);
            for (int64_t q = 0; q < group; q++)
                lemon__narrow_read(&t, u, o + ((h * group + q) * kept + c) * f->qt + queries[q] * n);
        }
    }
    lemon__map_from(f, write, v, v, values->m);
    lemon__map_from(f, read, o, o, f->qt);
}

static void lemon__parts_attention(lemon__fill *f, int64_t i, const lemon__pieces *p) {
    int64_t per = f->tc->n_heads / f->tc->kv_heads, dim = f->tc->head_dim, c;
    const int decomposes = f->method->kind == LEMON__DECOMPOSES;
    double *planes = lemon__doubles(f->ctx, &f->work, 1, f->qt / 2);
    if (lemon__stuck(f, planes != NULL)) return;
    for (int64_t h = 0; h < f->tc->n_heads; h++)
        for (c = 0, f->energy[h] = 0.0; c < dim; c++) {
            planes[(h * dim + c) / 2] += p->queries[h * dim + c];
            f->energy[h] += sqrt(p->queries[h * dim + c] * p->keys[h / per * dim + c]);
        }
    lemon__choose_heads(f, decomposes ? f->energy : f->head + f->main[i] * f->tc->n_heads, f->chosen);
    lemon__map_heads(f, i, f->chosen, planes, f->energy, 1.0f);
    if (decomposes && f->sc->head_dim != dim) lemon__parts_values(f, i, &p->values);
}

/*  Type I: scores diag(C (C + mean I)^-1), C = E[h h^T], or sizes where C will not do: 1 - mean (C + mean I)^-1, whose
    diagonal is |L^-1 e|^2.  L takes the place of C. */
static void lemon__parts_leverage(lemon__fill *f, const lemon__pieces *p) {
    const int64_t n = f->nt;
    double *low = p->neurons.sum, *inverse = lemon__doubles(f->ctx, &f->work, n, n), mean = 0.0;
    int ok;
    if (lemon__stuck(f, inverse != NULL)) return;
    for (int64_t a = 0; a < n; a++) mean += low[a * n + a] / (double)n;
    for (int64_t a = 0; a < n; a++) low[a * n + a] += mean;
    lemon__cholesky_small(f->ctx->isa)(low, n, n, &ok);
    if (ok) lemon__invert_small(f->ctx->isa)(low, n, n, inverse);
    for (int64_t a = 0; a < n; a++, inverse += n)
        f->energy[a] = ok ? 1.0 - mean * lemon__dot64(inverse + a, inverse + a, n - a) : p->squares[a];
}

/*  The neurons that are chosen; for modegpt W_down' = W_down C S (S^T C S)^-1, C = E[h h^T] of the outputs, S the choice. */
static void lemon__parts_neurons(lemon__fill *f, int64_t i, const lemon__pieces *p) {
    const int decomposes = f->method->kind == LEMON__DECOMPOSES;
    lemon__squares q;
    if (decomposes) lemon__parts_leverage(f, p);
    else lemon__neuron_energy(f, f->main[i], p->squares, f->energy);
    lemon__choose(f, f->energy, f->nt, f->ns, f->chosen);
    lemon__select_at(f, LEMON_AT_FFN, i, f->chosen, 1.0f);
    lemon__select_at(f, LEMON_AT_READ_NEURONS, i, f->chosen, 1.0f);
    if (!decomposes) return;
    f->store[LEMON__SOURCE].width = f->ns;
    for (lemon__rewind(f); lemon__next_batch(f);) {
        float *s = lemon__batch(f, LEMON__SOURCE), *t = lemon__batch(f, LEMON__TARGET);
        for (int64_t r = 0; r < f->rows; r++)
            for (int64_t c = 0; c < f->ns; c++) s[r * f->ns + c] = t[r * f->nt + f->chosen[c]];
    }
    lemon__squares_open(f, f->ns, f->nt, &q);
    lemon__solve_select(f, lemon__own_map(f->ops, LEMON_AT_READ_NEURONS, i, 0), LEMON__TARGET, &q);
}

static void lemon__fill_parts(lemon__fill *f) {
    lemon__pieces p;
    lemon__solve_open(f);
    for (lemon__rewind(f); lemon__next_batch(f);) lemon__walk_embed(&f->t.walk, f->ids + f->first * f->seq);
    for (int64_t i = 0; !f->status && i < f->sc->n_layers; i++) {
        lemon__pass_layers(f, i > 0 ? f->main[i - 1] + 1 : 0, f->main[i]);
        lemon__parts_watch(f, f->main[i], &p);
        lemon__parts_read(f, LEMON_AT_READ_ATTN, i);
        lemon__parts_read(f, LEMON_AT_READ_FFN, i);
        lemon__parts_attention(f, i, &p);
        lemon__parts_neurons(f, i, &p);
        lemon__arena_release(f->ctx, &f->work, NULL);
        f->done = i + 1;
    }
    if (!f->status) f->status = lemon__tick(f->ctx, f->what, f->done, f->total, (double)NAN);
    lemon__parts_read(f, LEMON_AT_READ_OUTPUT, 0);
    lemon__arena_release(f->ctx, &f->work, NULL);
    lemon_arena_free(f->ctx, &f->solve);
}

/* ---- learning the operators by gradients: the student's weights are products on the tape, Out * W * In^T with W fixed,
        and the loss of the language model reaches the maps and the layer weights through them ---- */

enum { LEMON__LEARN_ROWS = 2048 };

typedef struct lemon__learn {
    lemon__fill *f;
    lemon_arena arena;
    lemon__adam adam;               /* over all maps written out dense, then the layer weights */
    float *mask;                    /* 1: learned, 0: outside the receptive field */
    int64_t *at;                    /* [maps of the set] where in the block, -1: not learned */
    lemon_var *map;                 /* [maps of the set] */
    lemon_var *source;              /* [parameters of the teacher] folded weights, -1: not yet on the tape */
    lemon_var *alpha;               /* [L student] layer weights */
    lemon__objective q;
    lemon__windows windows;
    lemon_tokens text;
} lemon__learn;

/*  The mask of a map whose field is limited: what it reads now (solved), or the channels that stand within field_dims
    of its own in the order of activation (selected). */
static void lemon__learn_mask(lemon__learn *l, const lemon_map *map, float *mask) {
    lemon__fill *f = l->f;
    int64_t n = map->teacher, half = f->o->field_dims / 2;
    float *score = lemon__floats(f->ctx, &l->arena, 1, n);
    int32_t *order = lemon__ids(f->ctx, &l->arena, 2, n), *rank = order ? order + n : NULL;
    if (lemon__stuck(f, score && order)) return;
    for (int64_t j = 0; j < n; j++) {
        score[j] = f->channel ? (float)f->channel[j] : 0.0f;
        order[j] = (int32_t)j;
    }
    lemon__rank(score, order, rank, (int32_t)n);
    for (int64_t j = 0; j < n; j++) rank[order[j]] = (int32_t)j;
    lemon__map_expand(map, mask);
    for (int64_t i = 0; i < map->student; i++) {
        int64_t own = map->index ? rank[map->index[i * map->field]] : rank[i];
        for (int64_t j = 0; j < n; j++) {
            float now = mask[i * n + j];
            int inside = rank[j] >= own - half && rank[j] < own - half + f->o->field_dims;
            mask[i * n + j] = (lemon__solves(f) ? now < 0.0f || now > 0.0f : inside) ? 1.0f : 0.0f;
        }
    }
}

/*  Where the maps that are learned stand in the block: all that matrices are made with. */
static void lemon__learn_places(lemon__learn *l) {
    const lemon_operators *ops = l->f->ops;
    for (int64_t i = 0; i < lemon__map_count(ops); i++) {
        int place = lemon__map_place(ops, &ops->maps[i]);
        l->at[i] = -1;
        if (ops->maps[i].field == 0 || place == LEMON_AT_GAIN) continue;
        if (place == LEMON_AT_READ_OUTPUT && ops->student.tied_embeddings) continue;
        l->at[i] = l->adam.count;
        l->adam.count += ops->maps[i].student * ops->maps[i].teacher;
    }
}

/*  The variable of the map that serves a slot; -1 where the slot contributes nothing. */
static lemon_var lemon__learn_map(const lemon__learn *l, lemon_place place, int64_t layer, int64_t slot) {
    const lemon_map *map = lemon_operators_map(l->f->ops, place, layer, slot);
    return map && map->field > 0 ? l->map[map - l->f->ops->maps] : -1;
}

/*  A teacher weight on the tape, gains folded, as a constant. */
static lemon_var lemon__learn_source(lemon__learn *l, lemon_role role, int64_t layer) {
    lemon__fill *f = l->f;
    const lemon_tensor *t = lemon_model_param(f->teacher, role, layer);
    lemon_var *at = &l->source[role == LEMON_OUTPUT ? lemon__param_count(f->tc) : t - f->teacher->params];
    if (*at >= 0) return *at;
    float *w = lemon__teacher_weight(f->ctx, &l->arena, f->teacher, role, layer, f->ops->fold_gains);
    return *at = w ? lemon_tape_leaf(l->q.tape, w, NULL, t->rows, t->cols) : -1;
}

/*  Out * W * In^T by the maps of a slot; -1 where it contributes nothing. */
static lemon_var lemon__learn_product(lemon__learn *l, lemon_role role, lemon_var w, int64_t layer, int64_t slot) {
    lemon_place out = lemon__role_places[role].out;
    lemon_var read = lemon__learn_map(l, lemon__role_places[role].in, layer, slot),
              write = lemon__learn_map(l, out, layer, slot);
    if (read < 0 || (write < 0 && out != LEMON_PLACE_COUNT)) return -1;
    w = lemon_tape_matmul(l->q.tape, w, 0, read, 1);
    return out == LEMON_PLACE_COUNT ? w : lemon_tape_matmul(l->q.tape, write, 0, w, 0);
}

/*  A matrix of the student.  Selected slots share all maps and differ in weight only: their sources are mixed, then
    mapped, and the layer operator is learned too.  Solved slots have maps of their own: mapped one by one and added. */
static lemon_var lemon__learn_matrix(lemon__learn *l, lemon_role role, int64_t layer) {
    const lemon_operators *ops = l->f->ops;
    int64_t slots = lemon__role_slots(ops, role);
    lemon_var sum = -1, *terms = lemon__ids(l->f->ctx, &l->arena, 1, slots);
    if (terms == NULL) return -1;
    if (slots > 1 && lemon__own_map(ops, LEMON_AT_FFN, layer, 1)->student == 0) {
        for (int64_t slot = 0; slot < slots; slot++)
            terms[slot] = lemon__learn_source(l, role, ops->layer[layer * slots + slot]);
        return lemon__learn_product(l, role, lemon_tape_mix(l->q.tape, terms, slots, l->alpha[layer]), layer, 0);
    }
    for (int64_t slot = 0; slot < slots; slot++) {
        int64_t source = lemon__slot_layer(ops, role, layer, slot);
        if (source < 0) continue;
        lemon_var term = lemon__learn_product(l, role, lemon__learn_source(l, role, source), layer, slot);
        if (term >= 0) sum = sum < 0 ? term : lemon_tape_add(l->q.tape, sum, term);
    }
    return sum;
}

/*  All weights of the student as variables; gains of the stream as they are, corrections added as constants. */
static void lemon__learn_weights(lemon__learn *l, const lemon_model *student, lemon_var *weights) {
    int64_t layer;
    for (int64_t i = 0; i < student->n_params; i++) {
        lemon_role role = lemon__param_role(l->f->sc, i, &layer);
        const lemon_tensor *c = &l->f->ops->correction[i];
        if (lemon__role_places[role].in == LEMON_AT_GAIN) {
            weights[i] = lemon_tape_weight(l->q.tape, &student->params[i]);
            continue;
        }
        weights[i] = lemon__learn_matrix(l, role, layer);
        if (c->data && l->f->o->correction)
            weights[i] = lemon_tape_add(l->q.tape, weights[i], lemon_tape_weight(l->q.tape, c));
    }
}

static void lemon__learn_block(lemon__learn *l) {
    lemon_operators *ops = l->f->ops;
    lemon_ctx *ctx = l->f->ctx;
    int64_t sources = lemon__param_count(l->f->tc) + 1;
    l->at = (int64_t *)lemon_arena_alloc(ctx, &l->arena, (size_t)lemon__map_count(ops) * sizeof *l->at);
    l->map = lemon__ids(ctx, &l->arena, 1, lemon__map_count(ops));
    l->alpha = lemon__ids(ctx, &l->arena, 1, ops->student.n_layers);
    l->source = lemon__ids(ctx, &l->arena, 1, sources);
    if (lemon__stuck(l->f, l->at && l->map && l->alpha && l->source)) return;
    for (int64_t i = 0; i < sources; i++) l->source[i] = -1;
    lemon__learn_places(l);
    int64_t at = l->adam.count;
    l->adam.count += lemon__cells(ops);
    l->adam.w = lemon__floats(ctx, &l->arena, 1, l->adam.count);
    l->mask = lemon__floats(ctx, &l->arena, 1, l->adam.count);
    if (!l->f->status)
        l->f->status = lemon__adam_make(ctx, &l->arena, lemon__ceil_div(l->adam.count, LEMON__SEGMENT), LEMON_F32, &l->adam);
    if (lemon__stuck(l->f, l->adam.w && l->mask)) return;
    lemon__adam_segments(&l->adam, 0, l->adam.count, 0, 0.0f);
    for (int64_t i = 0; i < l->adam.count; i++) l->mask[i] = 1.0f;
    memcpy(l->adam.w + at, ops->layer_weight, (size_t)lemon__cells(ops) * sizeof(float));
    for (int64_t i = 0; i < ops->student.n_layers; i++, at += ops->slots)
        l->alpha[i] = lemon_tape_leaf(l->q.tape, l->adam.w + at, l->adam.g + at, 1, ops->slots);
    for (int64_t i = 0; i < lemon__map_count(ops); i++) {
        const lemon_map *map = &ops->maps[i];
        if ((at = l->at[i]) < 0) continue;
        lemon__map_expand(map, l->adam.w + at);
        l->map[i] = lemon_tape_leaf(l->q.tape, l->adam.w + at, l->adam.g + at, map->student, map->teacher);
        if (l->f->o->field_dims > 0 && lemon__places[lemon__map_place(ops, map)].joint == LEMON_JOINT_RESIDUAL)
            lemon__learn_mask(l, map, l->mask + at);
    }
}

static lemon_status lemon__learn_open(lemon__learn *l, const lemon_model *student) {
    lemon__fill *f = l->f;
    const lemon_tokens text = {(int32_t *)lemon__unconst(f->ids), f->kept * f->seq, f->kept * f->seq};
    lemon_var *weights = lemon__ids(f->ctx, &l->arena, 1, student->n_params);
    int64_t batch = lemon__max(1, LEMON__LEARN_ROWS / f->seq);
    if (lemon__stuck(f, weights && !lemon__objective_open(f->ctx, &l->arena, batch, f->seq, &l->q))) return f->status;
    lemon__learn_block(l);
    l->text = text;
    if (!f->status)
        f->status = lemon__windows_open(f->ctx, &l->arena, &l->text, f->seq, LEMON_RANDOM, f->o->seed, &l->windows);
    if (f->status) return f->status;
    lemon__learn_weights(l, student, weights);
    lemon__objective_loss(&l->q, f->sc, weights, -1, -1, &lemon__plain_loss);
    return f->status = lemon_tape_plan(l->q.tape, 1, NULL);
}

static void lemon__learn_steps(lemon__learn *l) {
    lemon__fill *f = l->f;
    lemon_train_options o;
    lemon_train_defaults(&o);
    o.steps = f->learn;
    o.lr = f->o->learn_lr < 0.0 ? 3e-3 : f->o->learn_lr;
    lemon__train_resolve(f->sc, &o);
    for (int64_t step = 1; !f->status && step <= o.steps; step++) {
        memset(l->adam.g, 0, (size_t)l->adam.count * sizeof(float));
        lemon__objective_fill(&l->q, &l->windows, (step - 1) * l->q.batch);
        f->status = lemon_tape_forward(l->q.tape);
        if (!f->status) f->status = lemon_tape_backward(l->q.tape);
        if (f->status) return;
        const double loss = (double)lemon_tape_value(l->q.tape, l->q.loss)[0];
        for (int64_t i = 0; i < l->adam.count; i++) l->adam.g[i] *= l->mask[i];
        double norm = lemon__adam_norm(f->ctx, &l->adam);
        lemon__adam_step(f->ctx, &l->adam, step, lemon__rate(&o, step), norm, o.clip);
        f->status = lemon__finite(loss) && lemon__finite(norm) ? lemon__tick(f->ctx, "learn", step, o.steps, loss)
            : lemon__fail(f->ctx, LEMON_E_DIVERGED, "learning step %lld: the loss is %g; lower learn_lr",
                          (long long)step, loss);
    }
}

/*  What was learned, back into the set: each map anew, so that the old ones are still there if they turn out better. */
static void lemon__learn_write(lemon__learn *l) {
    lemon_operators *ops = l->f->ops;
    for (int64_t which = 0; which < lemon__map_count(ops); which++) {
        lemon_map *map = &ops->maps[which];
        const float *w = l->adam.w + l->at[which], *mask = l->mask + l->at[which];
        int64_t field = 0;
        if (l->at[which] < 0) continue;
        for (int64_t i = 0; i < map->student; i++) {
            int64_t n = 0;
            for (int64_t j = 0; j < map->teacher; j++) n += mask[i * map->teacher + j] > 0.0f;
            field = lemon__max(field, n);
        }
        lemon__map_from(l->f, map, w, mask, field);
    }
    memcpy(ops->layer_weight, l->adam.w + l->adam.count - lemon__cells(ops), (size_t)lemon__cells(ops) * sizeof(float));
}

static void lemon__held_out_loss(lemon__fill *f, const lemon_model *student, double *loss) {
    const int64_t n = (f->windows - f->kept) * f->seq + f->ahead;
    double sums[2] = {0.0, (double)n - 1.0};
    if (f->windows == f->kept) sums[1] = 0.0;
    else if (!f->status) f->status = lemon__eval_once(f->ctx, student, f->ids + f->kept * f->seq, n, f->seq, NULL, loss);
    if (f->status || lemon__ranks(f->ctx) == 1) return;
    if (sums[1] > 0.0) sums[0] = *loss * sums[1];
    lemon__sum_up(f, sums, 2);
    *loss = sums[0] / sums[1];
}

/*  The student that the operators make, where solving has not left it. */
static void lemon__student_apply(lemon__fill *f) {
    if (f->applied) return;
    lemon__student_open(f);
    if (!f->status)
        f->status = lemon__apply_all(f->ctx, f->ops, f->teacher, f->o->correction, f->student,
                                     f->stage && f->learn == 0 ? &f->stage->step : NULL);
    f->applied = !f->status;
}

/*  Takes a student that learned if held-out text says so; 0: it does not.  *loss: on it, before and after. */
static int lemon__learn_kept(lemon__fill *f, lemon_model *learned, double *before, double *after) {
    lemon__held_out_loss(f, learned, after);
    const int better = !f->status && *after < *before;
    lemon_model_free(f->ctx, better ? f->student : learned);
    if (better) f->student = learned;
    else *after = *before;
    return better;
}

/*  Refines the operators. */
static void lemon__learn_operators(lemon__fill *f, double *before, double *after) {
    lemon__learn l;
    lemon_model *learned = NULL;
    lemon_operators *ops = f->ops;
    const size_t maps = (size_t)lemon__map_count(ops) * sizeof *ops->maps, layers = (size_t)lemon__cells(ops) * sizeof(float);
    lemon_map *old = (lemon_map *)lemon_arena_alloc(f->ctx, &ops->arena, maps);
    float *old_weight = lemon__floats(f->ctx, &ops->arena, 1, lemon__cells(ops));
    memset(&l, 0, sizeof l);
    l.f = f;
    if (!lemon__stuck(f, old && old_weight) && !lemon__learn_open(&l, f->student)) {
        lemon__learn_steps(&l);
        memcpy(old, ops->maps, maps);
        memcpy(old_weight, ops->layer_weight, layers);
        lemon__learn_write(&l);
    }
    if (!f->status) f->status = lemon_operators_apply(f->ctx, ops, f->teacher, f->o->correction, &learned);
    if (!lemon__learn_kept(f, learned, before, after) && !f->status) {
        memcpy(ops->maps, old, maps);
        memcpy(ops->layer_weight, old_weight, layers);
    }
    lemon_tape_close(l.q.tape);
    lemon_arena_free(f->ctx, &l.arena);
}

/* ---- learning on top of a set that is there: the student's own weights move by gradients, on the teacher's predictions for
        the text at hand, a window a step.  Where they come to is the correction from then on. ---- */

/*  What a student that settled has beyond its maps, exactly: applying the set gives its bits. */
static void lemon__settle_write(lemon__fill *f, const lemon_model *student) {
    lemon_operators *ops = f->ops;
    lemon_model *plain = NULL;
    f->status = lemon_operators_apply(f->ctx, ops, f->teacher, 0, &plain);
    for (int64_t i = 0; !f->status && i < student->n_params; i++) {
        const lemon_tensor *t = &student->params[i];
        const float *now = (const float *)t->data, *maps = (const float *)plain->params[i].data;
        double *c = lemon__doubles(f->ctx, &ops->arena, t->rows, t->cols);
        if (lemon__stuck(f, c != NULL)) break;
        for (int64_t j = 0; j < t->rows * t->cols; j++) c[j] = (double)now[j] - (double)maps[j];
        ops->correction[i] = lemon__view(c, LEMON_F64, t->rows, t->cols);
    }
    lemon_model_free(f->ctx, plain);
}

/*  Lets the student settle. */
static void lemon__settle(lemon__fill *f, double *before, double *after) {
    const lemon_tokens text = {(int32_t *)lemon__unconst(f->ids), f->kept * f->seq, f->kept * f->seq};
    lemon_model *settled = NULL;
    lemon_train_options o;
    lemon_train_defaults(&o);
    o.steps = f->learn;
    o.batch = 1;
    o.seq = f->seq;
    o.lr = f->o->learn_lr < 0.0 ? 0.2 / (double)f->ds : f->o->learn_lr;
    o.teacher = f->teacher;
    o.keep_teacher = 1;
    o.distill = 0.9;                /* the rest is the text's, which corrects a teacher that is not perfect */
    o.seed = f->o->seed;
    f->status = lemon_model_clone(f->ctx, f->student, &settled);
    if (!f->status) f->status = lemon_train(f->ctx, settled, &text, &o, NULL);
    if (lemon__learn_kept(f, settled, before, after) && !f->fusing) lemon__settle_write(f, settled);
}

/* ---- options, text, and the calls ---- */

LEMON_API void lemon_fuse_defaults(lemon_fuse_options *o) {
    static const lemon_fuse_options defaults = {"lemon", 0, 0, 0, 0, 1, 1, -1, -1.0, 1};
    if (o) *o = defaults;
}

/* ---- a shape for a budget: all that can be are tried ---- */

typedef struct lemon__shaping {
    const lemon_config *teacher;
    lemon_config want, best;        /* sizes that are given, or 0; the best shape so far, */
    double distance;                /*   and how far it is from what was asked for */
    int64_t params, least;          /* the budget; the smallest student that was seen */
} lemon__shaping;

/*  Sizes are multiples of this: of the powers of two up to 64 that the teacher's is a multiple of, the largest that leaves
    sixteen to choose from. */
static int32_t lemon__shape_step(int32_t size) {
    int32_t step = 1;
    while (step < 64 && size % (2 * step) == 0 && size / (2 * step) >= 16) step *= 2;
    return step;
}

static double lemon__shape_distance(const lemon__shaping *g, const lemon_config *s) {
    const lemon_config *t = g->teacher;
    const double share[4] = {log((double)s->d_model / t->d_model), log((double)s->n_layers / t->n_layers),
                             log((double)s->n_heads / t->n_heads), log((double)s->d_ffn / t->d_ffn)};
    const double head = log((double)s->head_dim / t->head_dim), group = share[2] - log((double)s->kv_heads / t->kv_heads),
                 unused = 10.0 * log((double)lemon_config_params(s) / (double)g->params);
    double mean = (share[0] + share[1] + share[2] + share[3]) / 4.0, sum = head * head + group * group + unused * unused;
    for (int i = 0; i < 4; i++) sum += (share[i] - mean) * (share[i] - mean);
    return sum;
}

/*  Key-value heads, so that about as many query heads share one as in the teacher. */
static int32_t lemon__shape_groups(const lemon_config *t, int32_t heads) {
    double group = (double)t->n_heads / t->kv_heads, least = 1e30;
    int32_t best = 1;
    for (int32_t k = 1; k <= heads && k <= t->kv_heads; k++) {
        double off = fabs(log((double)heads / k / group));
        if (heads % k || !(off < least)) continue;
        least = off;
        best = k;
    }
    return best;
}

/*  A shape but for d_ffn, which takes what is left of the budget; 0 where nothing is left for it. */
static int lemon__shape_try(lemon__shaping *g, lemon_config *s) {
    int64_t step = lemon__shape_step(g->teacher->d_ffn);
    s->d_ffn = g->want.d_ffn > 0 ? g->want.d_ffn : (int32_t)step;
    int64_t least = lemon_config_params(s);
    if (least > 0 && (g->least == 0 || least < g->least)) g->least = least;
    if (least == 0 || least > g->params) return 0;
    int64_t more = (g->params - least) / (3 * step * s->d_model * s->n_layers) * step;
    if (g->want.d_ffn == 0) s->d_ffn = (int32_t)lemon__min(g->teacher->d_ffn, s->d_ffn + more);
    double distance = lemon__shape_distance(g, s);
    if (distance < g->distance) g->distance = distance, g->best = *s;
    return 1;
}

/*  All widths and depths that go with some heads; from the second on a depth too many ends it. */
static void lemon__shape_heads(lemon__shaping *g, lemon_config *s) {
    const lemon_config *t = g->teacher, *want = &g->want;
    const int tied = t->d_model == t->n_heads * t->head_dim;
    const int32_t step = lemon__shape_step(t->d_model), own = tied ? s->n_heads * s->head_dim : step;
    if (tied && want->d_model > 0 && want->d_model != own) return;
    for (s->d_model = want->d_model > 0 ? want->d_model : own; s->d_model <= t->d_model; s->d_model += step) {
        s->n_layers = want->n_layers > 0 ? want->n_layers : 1;
        for (int deep = 1; deep && s->n_layers <= t->n_layers; s->n_layers++)
            deep = lemon__shape_try(g, s) && want->n_layers == 0;
        if (tied || want->d_model > 0) return;
    }
}

LEMON_API lemon_status lemon_fuse_shape(lemon_ctx *ctx, const lemon_config *teacher, int64_t params, lemon_config *student) {
    lemon__shaping g;
    if (lemon__lacks(ctx, __func__, teacher && student)) return LEMON_E_ARG;
    if (lemon_config_check(ctx, teacher)) return LEMON_E_ARG;
    memset(&g, 0, sizeof g);
    g.teacher = teacher, g.want = *student, g.params = params, g.distance = 1e30;
    int64_t whole = lemon_config_params(teacher);
    if (params > whole)
        return lemon__fail(ctx, LEMON_E_ARG, "params is %lld, expected at most %lld, the teacher's", (long long)params,
                           (long long)whole);
    lemon_config s = *teacher;
    for (s.head_dim = teacher->head_dim; s.head_dim >= 2; s.head_dim--) {
        if (teacher->head_dim % s.head_dim || s.head_dim % 2 || (g.want.head_dim > 0 && s.head_dim != g.want.head_dim))
            continue;
        for (s.n_heads = 1; s.n_heads <= teacher->n_heads; s.n_heads++) {
            s.kv_heads = g.want.kv_heads > 0 ? g.want.kv_heads : lemon__shape_groups(teacher, s.n_heads);
            if (s.n_heads % s.kv_heads || (g.want.n_heads > 0 && s.n_heads != g.want.n_heads)) continue;
            lemon__shape_heads(&g, &s);
        }
    }
    if (g.distance < 1e30) { *student = g.best; return LEMON_OK; }
    if (g.least == 0)
        return lemon__fail(ctx, LEMON_E_ARG, "the sizes given go with no shape of this teacher's; leave one of them out");
    return lemon__fail(ctx, LEMON_E_ARG, "params is %lld, expected at least %lld, the smallest student of this teacher, "
                       "whose vocabulary is %d", (long long)params, (long long)g.least, (int)teacher->vocab_size);
}

/*  How many teacher layers a student layer's field holds. */
static int64_t lemon__field_slots(const lemon__fill *f) {
    int64_t own = lemon__solves(f) ? 1 : f->method->slots;
    if (f->method->kind < LEMON__LEARNS) return 1;
    return lemon__min(f->o->field_layers > 0 ? f->o->field_layers : own, f->tc->n_layers);
}

/*  Shapes that can be had from this teacher; the message names the nearest one where this cannot. */
static lemon_status lemon__fuse_check_shape(lemon_ctx *ctx, const lemon_config *t, const lemon_config *s,
                                            const lemon_fuse_options *o) {
    int nearest;
    if (s->vocab_size == t->vocab_size && lemon__method_find(o->method)->kind == LEMON__MAKES_NEW) return LEMON_OK;
    lemon_status status = lemon__same_family(ctx, t, s);
    for (int i = 0; !status && i < LEMON__SIZES; i++) {
        int is = (int)lemon__field_value(s, i), most = (int)lemon__field_value(t, i);
        if (is > most && lemon__fields[i].offset != offsetof(lemon_config, kv_heads))      /* these can be copied */
            status = lemon__fail(ctx, LEMON_E_ARG,
                                 "%s is %d, expected at most %d, the teacher's; %d is the nearest that can be",
                                 lemon__fields[i].name, is, most, most);
    }
    if (status || t->head_dim % s->head_dim == 0) return status;
    for (nearest = (int)s->head_dim; t->head_dim % nearest || nearest % 2; nearest++) {}
    return lemon__fail(ctx, LEMON_E_ARG,
                       "head_dim is %d, expected a divisor of the teacher's %d, so that RoPE's speeds agree; "
                       "%d is the nearest that can be", (int)s->head_dim, (int)t->head_dim, nearest);
}

static lemon_status lemon__fuse_check(lemon_ctx *ctx, const lemon_model *teacher, const lemon_config *student,
                                      const lemon_fuse_options *o) {
    lemon_status status = lemon_config_check(ctx, student);
    if (!status && lemon__method_find(o->method) == NULL)
        status = lemon__fail(ctx, LEMON_E_ARG, "method is \"%.40s\", expected lemon, ligo, subclone, select, drop, slicegpt, "
                             "modegpt or random", o->method ? o->method : "(NULL)");
    if (!status && o->tokens != 0 && o->tokens < 64)
        status = lemon__fail(ctx, LEMON_E_ARG, "tokens is %lld, expected 0 or at least 64", (long long)o->tokens);
    if (!status && (o->seq < 0 || o->field_layers < 0 || o->field_dims < 0 || !lemon__finite(o->learn_lr)))
        status = lemon__fail(ctx, LEMON_E_ARG,
                             "seq is %lld, field_layers %lld, field_dims %lld, learn_lr %g, expected numbers, and "
                             "sizes not below 0", (long long)o->seq, (long long)o->field_layers,
                             (long long)o->field_dims, o->learn_lr);
    return status ? status : lemon__fuse_check_shape(ctx, &teacher->config, student, o);
}

/*  Text of the teacher's own, at temperature 1: windows that each begin with BOS. */
static lemon_status lemon__sample_text(lemon_ctx *ctx, const lemon_model *teacher, int64_t count, int64_t seq,
                                       uint64_t seed, lemon_tokens *text) {
    const int32_t vocab = teacher->config.vocab_size;
    const int32_t first = teacher->tokenizer ? lemon_tokenizer_bos(teacher->tokenizer) : vocab > 1;
    lemon_sampling plain;
    lemon__generation g;
    float *logits = NULL;
    int64_t i;
    int32_t id;
    lemon_sampling_defaults(&plain);
    plain.top_p = 1.0f;
    plain.seed = seed;
    lemon_status status = lemon__generation_open(ctx, teacher, text, &plain, &g);
    while (!status && text->count < count) {
        lemon_session_rewind(g.session, 0);
        for (i = 0, id = first; !status && i < seq; i++) {
            status = lemon_tokens_push(ctx, text, id);
            if (!status) status = lemon_session_feed(g.session, &id, 1, &logits);
            if (!status) id = lemon_sample(logits, vocab, &plain, &g.rng, g.scratch);
        }
        if (!status) status = lemon__tick(ctx, "sample text", lemon__min(text->count, count), count, (double)NAN);
    }
    lemon__generation_close(&g);
    return status;
}

/*  Cuts n tokens into windows, ten at least where that can be, and holds a tenth of them out. */
static void lemon__fill_cut(lemon__fill *f, int64_t n) {
    f->seq = lemon__default_seq(f->tc, f->o->seq);
    f->seq = lemon__min(f->seq, lemon__min(f->tc->max_seq, f->sc->max_seq));
    while (n / f->seq < 10 && f->seq > 16) f->seq /= 2;
    f->windows = n / f->seq;
    f->kept = f->windows - lemon__max(1, f->windows / 10);
    f->batch = lemon__max(1, LEMON__FUSE_ROWS / f->seq);
    f->kept_all = f->kept;
    if (f->learn < 0) f->learn *= -f->kept;
}

/*  Where this process's share of n windows begins: whole batches, so that each is summed up by itself whoever has it. */
static int64_t lemon__share_begin(const lemon__fill *f, int64_t n, int64_t rank) {
    return lemon__min(n, lemon__ceil_div(n, f->batch) * rank / lemon__ranks(f->ctx) * f->batch);
}

/*  This process's share of the windows that are kept, and of those held out, and the token behind them: some have none. */
static lemon_status lemon__fill_share(lemon__fill *f) {
    const int64_t rank = f->ctx->options.rank, held = f->windows - f->kept;
    const int64_t from = lemon__share_begin(f, f->kept, rank), kept = lemon__share_begin(f, f->kept, rank + 1) - from;
    const int64_t out = lemon__share_begin(f, held, rank), last = lemon__share_begin(f, held, rank + 1) - out;
    int32_t *ids = lemon__ids(f->ctx, &f->arena, kept + last + 1, f->seq);
    if (ids == NULL) return LEMON_E_MEMORY;
    f->before = from;
    f->ahead = out + last < held;
    memcpy(ids, f->ids + from * f->seq, (size_t)(kept * f->seq) * sizeof *ids);
    memcpy(ids + kept * f->seq, f->ids + (f->kept + out) * f->seq, (size_t)(last * f->seq + f->ahead) * sizeof *ids);
    f->ids = ids;
    f->kept = kept;
    f->windows = kept + last;
    return LEMON_OK;
}

/*  A window is held out, one is watched; learning begins at two, for a window's last target stands behind it. */
static lemon_status lemon__fill_text(lemon__fill *f, const lemon_tokens *text) {
    const int64_t n = lemon__min(f->tokens, text->count), least = f->learn ? 3 : 2;
    f->ids = text->ids;
    lemon__fill_cut(f, n);
    if (f->windows < least || f->seq < 2)
        return lemon__fail(f->ctx, LEMON_E_ARG, "the text has %lld tokens, too few to fuse by, expected at least %lld; give "
                           "some thousands", (long long)n, (long long)(least * lemon__max(2, f->seq)));
    if (lemon__ranks(f->ctx) > 1 && lemon__fill_share(f)) return LEMON_E_MEMORY;
    if (lemon__ranks(f->ctx) > 1 && f->learn > 0)
        return lemon__fail(f->ctx, LEMON_E_UNSUPPORTED, "learn_steps is %lld, expected 0: one process learns, or trains after",
                           (long long)f->learn);
    return lemon__check_ids(f->ctx, f->teacher, text->ids, n);
}

/*  Windows that solving can do without: where learning follows, some rows for each unknown are enough. */
static int64_t lemon__fill_spared(const lemon__fill *f) {
    const int64_t enough = lemon__ceil_div(LEMON__ROWS_AN_UNKNOWN * f->wide_s, f->seq);
    return f->learn > 0 ? lemon__max(0, f->kept - enough) : 0;
}

/*  Fills the operators (solves on as many of the last windows as it takes), and learns them where asked for; what both come
    to on held-out text. */
static void lemon__fill_run(lemon__fill *f, lemon_fuse_result *result) {
    const int64_t cut = lemon__solves(f) ? lemon__fill_spared(f) : 0;
    f->ops->fold_gains = f->method->kind >= LEMON__SLICES;
    if (cut) f->ids += cut * f->seq;
    f->kept -= cut, f->kept_all -= cut, f->windows -= cut;
    if (f->method->kind == LEMON__SLICES || f->method->kind == LEMON__DECOMPOSES) lemon__fill_parts(f);
    else if (lemon__solves(f)) lemon__fill_solved(f);
    else lemon__fill_selected(f);
    if (cut) f->ids -= cut * f->seq;
    f->kept += cut, f->kept_all += cut, f->windows += cut;
    lemon__arena_release(f->ctx, &f->work, NULL);
    if (f->status || f->ids == NULL) return;
    lemon__student_apply(f);
    lemon__held_out_loss(f, f->student, &result->init_loss);
    if (f->status || f->learn == 0) return;
    result->learned_from = result->init_loss;
    if (lemon__learns_maps(f)) lemon__learn_operators(f, &result->learned_from, &result->init_loss);
    else lemon__settle(f, &result->learned_from, &result->init_loss);
}

/*  All that a fill needs, then the fill: on the given text, or the teacher's own where the method needs some. */
static void lemon__fill_open(lemon__fill *f, const lemon_tokens *text, lemon_operators **operators,
                             lemon_fuse_result *result) {
    int needs_text = f->method->needs_text || f->learn != 0;
    lemon_tokens own = {NULL, 0, 0};
    f->status = lemon__operators_new(f->ctx, f->tc, f->sc, lemon__field_slots(f), operators);
    if (f->status) return;
    f->ops = *operators;
    memcpy(f->ops->method, f->method->name, strlen(f->method->name) + 1);
    f->main = (int64_t *)lemon_arena_alloc(f->ctx, &f->arena, (size_t)f->sc->n_layers * sizeof *f->main);
    f->store = (lemon__rows *)lemon_arena_alloc(f->ctx, &f->arena, (size_t)(LEMON__TARGET + f->ops->slots) * sizeof *f->store);
    if (!lemon__stuck(f, f->main && f->store) && text == NULL && needs_text) {
        f->status = lemon__sample_text(f->ctx, f->teacher, f->tokens, lemon__default_seq(f->tc, f->o->seq), f->o->seed, &own);
        text = &own;
    }
    if (!f->status && text) f->status = lemon__fill_text(f, text);
    if (!f->status) lemon__fill_run(f, result);
    if (f->fusing && !f->status) lemon__student_apply(f);
    if (f->ids && needs_text) result->calibration_tokens = f->windows * f->seq;
    result->flops = f->ctx->flops - f->flops;
    result->seconds = lemon__seconds() - f->began;
    lemon_tokens_free(f->ctx, &own);
}

/*  The baseline that knows nothing of the teacher but its vocabulary. */
static void lemon__fill_random(lemon__fill *f, const lemon_tokens *text, double *loss) {
    f->status = f->fusing ? lemon_model_create(f->ctx, f->sc, &f->student)
        : lemon__fail(f->ctx, LEMON_E_ARG, "method \"%s\" has no operators", f->method->name);
    if (!f->status) f->status = lemon_model_init(f->ctx, f->student, f->o->seed);
    if (!f->status && text) f->status = lemon__fill_text(f, text);
    if (!f->status && text) lemon__held_out_loss(f, f->student, loss);
}

/* ---- what it will take: the operations of what stands above, in the order in which it stands there ---- */

/*  A layer's operations for a token. */
static double lemon__cost_layer(const lemon_config *c, int64_t seq) {
    const double d = c->d_model, q = (double)lemon_joint_size(c, LEMON_JOINT_HEADS),
                 kv = (double)lemon_joint_size(c, LEMON_JOINT_KEY);
    const double keys = c->window > 0 ? fmin(c->window, 0.5 * (double)seq) : 0.5 * (double)seq;
    return 2.0 * d * (2.0 * q + 2.0 * kv + 3.0 * c->d_ffn) + 4.0 * q * keys;
}

static double lemon__cost_square(double n) { return n * (n + fmin(n, LEMON__PANEL)); }

/*  Least squares with n unknowns: the factors, then m targets, choosing among ridges on some of them.  Three are tried
    where the middle one or larger ones do best, four where smaller ones do: the mean is counted. */
enum { LEMON__TRIED = LEMON__RIDGES - 1 };

static void lemon__cost_factors(lemon_fuse_forecast *p, const lemon__fill *f, double n) {
    const double ridges = (double)LEMON__TRIED - 0.5, factor = LEMON__FACTOR;
    p->flops += (double)(f->kept * f->seq) * lemon__cost_square(n);
    p->flops64 += ridges * n * n * (n / 3.0 + factor);
}

static void lemon__cost_targets(lemon_fuse_forecast *p, const lemon__fill *f, double n, double m, int dense) {
    const double ridges = (double)LEMON__TRIED - 0.5, factor = LEMON__FACTOR, judges = fmin(m, LEMON__JUDGES),
                 kept = (double)(f->kept * f->seq), held = (double)((f->windows - f->kept) * f->seq);
    p->flops += n * (dense ? 4.0 : 2.0) * ((judges + m) * kept + ridges * judges * held);
    p->flops64 += (ridges * judges + m) * n * (2.0 * n + 4.0 * factor);
}

/*  What solving does for each student layer; used: teacher layers whose neurons it reads.  Where no ridge is better than
    what was there before, nothing is solved, which only the text can tell: of neurons and corrections half are counted. */
static void lemon__cost_solve(lemon_fuse_forecast *p, const lemon__fill *f, double used) {
    const double dt = (double)f->dt, ds = (double)f->ds, qt = (double)f->qt, qs = (double)f->qs, nt = (double)f->nt,
                 ns = (double)f->ns, kv = (double)lemon_joint_size(f->sc, LEMON_JOINT_KEY);
    const int64_t slots = (int64_t)used;
    for (int64_t slot = 0; slot <= slots; slot++) lemon__cost_factors(p, f, ds), lemon__cost_targets(p, f, ds, dt, 1);
    p->flops += 2.0 * (double)(f->windows * f->seq) * (qt * f->tc->head_dim + 2.0 * ds * dt) + 2.0 * ds * dt * (qt + used * nt);
    p->flops += 2.0 * ds * ((qs + 2.0 * kv + 2.0 * ns) * dt + qt * (dt + qs) + used * nt * (dt + 0.5 * ns));
    lemon__cost_factors(p, f, qs), lemon__cost_targets(p, f, qs, qt, 0);
    lemon__cost_factors(p, f, ns);
    for (int64_t slot = 0; slot < slots; slot++) lemon__cost_targets(p, f, ns, 0.5 * nt, 0);
    if (f->o->correction) lemon__cost_targets(p, f, qs, 0.5 * ds, 1), lemon__cost_targets(p, f, ns, 0.5 * ds, 1);
}

/*  Weights that settle: the teacher reads once, a window of the student goes forward and back each step, and a loss. */
static void lemon__cost_learning(lemon_fuse_forecast *p, const lemon__fill *f) {
    const double seq = (double)f->seq, steps = (double)f->learn, vocab = f->tc->vocab_size;
    const double student = f->sc->n_layers * lemon__cost_layer(f->sc, f->seq) + 2.0 * vocab * (double)f->ds;
    if (f->learn <= 0 || lemon__learns_maps(f)) return;
    p->flops += seq * (steps * (3.0 * student + 2.0 * vocab * (double)f->dt) + (double)(f->windows - f->kept) * student);
    p->flops += (double)(f->kept * f->seq) * f->tc->n_layers * lemon__cost_layer(f->tc, f->seq);
}

static void lemon__cost_all(lemon_fuse_forecast *p, const lemon__fill *f) {
    const double seq = (double)f->seq, dt = (double)f->dt, ds = (double)f->ds, vocab = f->tc->vocab_size,
                 lt = f->tc->n_layers, ls = f->sc->n_layers, teacher = lt * lemon__cost_layer(f->tc, f->seq),
                 student = ls * lemon__cost_layer(f->sc, f->seq);
    p->flops += (double)(f->windows - f->kept) * seq * (student + 2.0 * vocab * ds);                     /* the loss */
    if (f->method->ranked && f->windows)
        p->flops += (double)lemon__watched(f) * seq * (teacher + (2.0 * lt + 1.0) * lemon__cost_square(dt));
    if (!lemon__solves(f)) return;
    p->flops64 += f->ds < f->dt ? 9.0 * dt * dt * dt : 0.0;
    p->flops += 2.0 * ds * dt * (dt + (f->sc->tied_embeddings ? 1.0 : 2.0) * vocab);
    p->flops += (double)f->windows * seq * (teacher + student);
    for (int64_t i = 0; i < f->sc->n_layers; i++)
        lemon__cost_solve(p, f, fmin((double)f->ops->slots, fmax(1.0, floor(lt / ls))));
    lemon__cost_factors(p, f, ds), lemon__cost_targets(p, f, ds, dt, 1);
}

/*  Operations a second of a product of some size, the better of two. */
static double lemon__cost_speed(lemon_ctx *ctx) {
    const int64_t n = 1024;
    lemon_arena arena = {NULL};
    float *a = lemon__floats(ctx, &arena, 3 * n, n);
    double best = 1e30;
    for (int k = 0; a && k < 3; k++) {
        double began = lemon__seconds(), flops = ctx->flops;
        lemon__gemm_threads(ctx, 0, 0, n, n, n, 1.0f, a, n, a + n * n, n, 0.0f, a + 2 * n * n, n);
        ctx->flops = flops;
        best = fmin(best, lemon__seconds() - began);
    }
    lemon_arena_free(ctx, &arena);
    return 2.0 * (double)(n * n * n) / best;
}

/*  Bytes: of memory what there is already, the work, and so much of the factors as there is room for; of scratch what
    goes there, or would not fit. */
static void lemon__plan_bytes(const lemon__fill *f, lemon_fuse_forecast *forecast) {
    const double most = (double)lemon__fuse_memory(f), weights = 4.0 * (double)lemon_config_params(f->sc),
                 rows = lemon__solves(f) || f->method->ranked ? 4.0 * (double)lemon__rows_numbers(f) : 0.0;
    const int scratch = lemon__scratch_path(f->ctx) != NULL;
    forecast->memory = (double)f->ctx->bytes + (lemon__solves(f) ? (double)lemon__work_bytes(f) : 0.0);
    *(scratch ? &forecast->scratch : &forecast->memory) += weights;
    *(forecast->memory + rows <= most ? &forecast->memory : &forecast->scratch) += rows;
    if (!lemon__solves(f)) return;
    forecast->memory = fmax(forecast->memory,
                            fmin(forecast->memory + 8.0 * (LEMON__TRIED - 1) * (double)(f->ns * f->ns), most));
    if (scratch) forecast->scratch += 8.0 * (double)(f->windows * f->seq * (f->dt + f->ds) + 2 * lemon__measured(f));
}

LEMON_API lemon_status lemon_fuse_plan(lemon_ctx *ctx, const lemon_model *teacher, const lemon_config *student,
                                       int64_t tokens, const lemon_fuse_options *options, lemon_fuse_forecast *forecast) {
    lemon_operators ops;
    lemon__fill f;
    if (lemon__lacks(ctx, __func__, teacher && student && options && forecast)) return LEMON_E_ARG;
    memset(forecast, 0, sizeof *forecast);
    lemon_status status = lemon__fuse_check(ctx, teacher, student, options);
    if (!status) status = lemon__workspaces(ctx);
    if (status) return status;
    lemon__fill_begin(&f, ctx, teacher, student, options);
    f.ops = &ops;
    ops.slots = lemon__field_slots(&f);
    if (tokens > 0 || f.method->needs_text) lemon__fill_cut(&f, tokens > 0 ? lemon__min(tokens, f.tokens) : f.tokens);
    lemon__cost_learning(forecast, &f);
    int64_t spared = lemon__solves(&f) ? lemon__fill_spared(&f) : 0;
    f.kept -= spared, f.windows -= spared;
    lemon__cost_all(forecast, &f);
    lemon__plan_bytes(&f, forecast);
    forecast->flops += forecast->flops64;
    forecast->seconds = (forecast->flops + forecast->flops64) / (0.8 * lemon__cost_speed(ctx));
    lemon__fill_end(&f);
    return LEMON_OK;
}

/*  What both calls have in common: operators, or a model where they are NULL. */
static lemon_status lemon__fuse_any(lemon_ctx *ctx, const lemon_model *teacher, const lemon_config *student,
                                    const lemon_tokens *text, const lemon_fuse_options *options,
                                    lemon_operators **operators, lemon_model **model, lemon_fuse_result *result) {
    lemon_fuse_result r = {0, (double)NAN, (double)NAN, 0.0, 0.0};
    lemon_operators *ops = NULL;
    lemon_status status = lemon__fuse_check(ctx, teacher, student, options);
    lemon__fill f;
    if (status) return status;
    lemon__fill_begin(&f, ctx, teacher, student, options);
    f.fusing = operators == NULL;
    f.keep = !f.fusing || lemon__learns_maps(&f) || !lemon__solves(&f);
    if (f.method->kind == LEMON__MAKES_NEW) lemon__fill_random(&f, text, &r.init_loss);
    else lemon__fill_open(&f, text, operators ? operators : &ops, &r);
    if (f.fusing && !f.status) {
        *model = f.student;
        f.student = NULL;
        f.status = lemon_model_carry(ctx, teacher, *model);
    }
    lemon_operators_free(ctx, ops);
    lemon__fill_end(&f);
    if (result) *result = r;
    return lemon__memory_or_file(ctx, f.status);
}

LEMON_API lemon_status lemon_operators_fill(lemon_ctx *ctx, const lemon_model *teacher, const lemon_config *student,
                                            const lemon_tokens *text, const lemon_fuse_options *options,
                                            lemon_operators **operators, lemon_fuse_result *result) {
    if (lemon__lacks(ctx, __func__, teacher && student && options && operators)) return LEMON_E_ARG;
    *operators = NULL;
    return lemon__operators_done(ctx, lemon__fuse_any(ctx, teacher, student, text, options, operators, NULL, result),
                                 operators);
}

LEMON_API lemon_status lemon_fuse(lemon_ctx *ctx, const lemon_model *teacher, const lemon_config *student,
                                  const lemon_tokens *text, const lemon_fuse_options *options, lemon_model **model,
                                  lemon_fuse_result *result) {
    if (lemon__lacks(ctx, __func__, teacher && student && options && model)) return LEMON_E_ARG;
    *model = NULL;
    return lemon__model_done(ctx, lemon__fuse_any(ctx, teacher, student, text, options, NULL, model, result), model);
}

/* ---- what came of it: some tokens go through two models, side by side ---- */

enum { LEMON__PROBE = 512 };

typedef struct lemon__probe {
    lemon_ctx *ctx;
    lemon_arena arena;
    lemon_tokens own;
    const int32_t *ids;
    int64_t rows, seq;
    lemon__run run[2];
    int64_t layer[2];               /* that comes next */
} lemon__probe;

/*  A model at the beginning of the tokens. */
static lemon_status lemon__probe_model(lemon__probe *p, int which, const lemon_model *m) {
    lemon__run *run = &p->run[which];
    lemon_status status = lemon__check_ids(p->ctx, m, p->ids, p->rows);
    if (!status) status = lemon__run_open(p->ctx, &p->arena, m, p->rows / p->seq, p->seq, run);
    if (!status) lemon__walk_embed(&run->walk, p->ids);
    return status;
}

static lemon_status lemon__probe_open(lemon_ctx *ctx, const lemon_model *a, const lemon_model *b, const lemon_tokens *text,
                                      lemon__probe *p) {
    lemon_status status = LEMON_OK;
    memset(p, 0, sizeof *p);
    p->ctx = ctx;
    p->seq = lemon__min(lemon__default_seq(&a->config, 0), b->config.max_seq);
    if (text == NULL) status = lemon__sample_text(ctx, a, LEMON__PROBE, p->seq, 2, &p->own), text = &p->own;
    if (status) return status;
    p->ids = text->ids;
    p->seq = lemon__min(p->seq, text->count);
    if (p->seq < 4) return lemon__fail(ctx, LEMON_E_ARG, "the text has %lld tokens, too few to compare by",
                                       (long long)text->count);
    p->rows = lemon__max(1, lemon__min(LEMON__PROBE, text->count) / p->seq) * p->seq;
    status = lemon__probe_model(p, 0, a);
    return status || a == b ? status : lemon__probe_model(p, 1, b);
}

static void lemon__probe_close(lemon__probe *p) {
    lemon_tokens_free(p->ctx, &p->own);
    lemon_arena_free(p->ctx, &p->arena);
}

/*  One of the models goes on through its layers up to `end`, which comes next then. */
static lemon_status lemon__probe_walk(lemon__probe *p, int which, int64_t end) {
    lemon__run *run = &p->run[which];
    int64_t total = run->walk.model->config.n_layers;
    lemon_status status = LEMON_OK;
    for (; !status && p->layer[which] < lemon__min(end, total); p->layer[which]++) {
        lemon__walk_layer(&run->walk, p->layer[which], run->k, run->v);
        status = lemon__tick(p->ctx, "compare layers", p->layer[which] + 1, total, (double)NAN);
    }
    return status;
}

/*  U-centred in place, g_ij - (s_i + s_j - s / (n-1)) / (n-2) and 0 on the diagonal, s_i sums of rows and s of all, and of
    length 1: then the product of two is CKA. */
static void lemon__gram_centre(float *gram, int64_t n, double *sum) {
    double all = 0.0, square = 0.0;
    int64_t j;
    for (int64_t i = 0; i < n; i++) {
        gram[i * n + i] = 0.0f;
        for (j = 0, sum[i] = 0.0; j < n; j++) sum[i] += (double)gram[i * n + j];
        all += sum[i];
    }
    for (int64_t i = 0; i < n; i++)
        for (j = 0; j < n; j++) {
            double g = (double)gram[i * n + j] - (sum[i] + sum[j] - all / (double)(n - 1)) / (double)(n - 2);
            gram[i * n + j] = i == j ? 0.0f : (float)g;
            if (i != j) square += g * g;
        }
    for (int64_t i = 0; i < n * n && square > 0.0; i++) gram[i] = (float)((double)gram[i] / sqrt(square));
}

/*  [layers + 1, rows * rows] of a model's normalised stream; NULL: *status tells. */
static float *lemon__grams(lemon__probe *p, int which, lemon_status *status) {
    lemon__walk *w = &p->run[which].walk;
    int64_t layers = w->model->config.n_layers, d = w->model->config.d_model, n = p->rows;
    float *grams = lemon__floats(p->ctx, &p->arena, layers + 1, n * n), *g = grams;
    double *sum = lemon__doubles(p->ctx, &p->arena, 1, n);
    *status = grams && sum ? LEMON_OK : LEMON_E_MEMORY;
    for (int64_t i = 0; !*status && i <= layers; i++, g += n * n) {
        *status = lemon__probe_walk(p, which, i);
        lemon__walk_norm(w, -1, 0);
        lemon__gemm_threads(p->ctx, 0, 1, n, n, d, 1.0f, w->y, d, w->y, d, 0.0f, g, n);
        lemon__gram_centre(g, n, sum);
    }
    return *status ? NULL : grams;
}

LEMON_API lemon_status lemon_cka(lemon_ctx *ctx, const lemon_model *a, const lemon_model *b, const lemon_tokens *text,
                                 float *cka) {
    lemon__probe p;
    float *of_b;
    if (lemon__lacks(ctx, __func__, a && b && cka)) return LEMON_E_ARG;
    lemon_status status = lemon__probe_open(ctx, a, b, text, &p);
    float *of_a = of_b = status ? NULL : lemon__grams(&p, 0, &status);
    if (!status && a != b) of_b = lemon__grams(&p, 1, &status);
    if (!status)
        lemon__gemm_threads(ctx, 0, 1, a->config.n_layers + 1, b->config.n_layers + 1, p.rows * p.rows, 1.0f, of_a,
                            p.rows * p.rows, of_b, p.rows * p.rows, 0.0f, cka, b->config.n_layers + 1);
    lemon__probe_close(&p);
    return status;
}

/*  |P x_t - x_s|^2 / |P x_t|^2 over the rows, where both models stand; x: room for P x_t. */
static float lemon__stream_error(lemon__probe *p, const lemon_map *write, float *x) {
    const lemon__walk *t = &p->run[0].walk, *s = &p->run[1].walk;
    double off = 0.0, all = 0.0;
    lemon__map_cols(p->ctx, write, t->x, p->rows, 0.0f, x);
    for (int64_t i = 0; i < p->rows * write->student; i++) {
        off += ((double)x[i] - (double)s->x[i]) * ((double)x[i] - (double)s->x[i]);
        all += (double)x[i] * (double)x[i];
    }
    return all > 0.0 ? (float)(off / all) : 0.0f;
}

LEMON_API lemon_status lemon_operators_error(lemon_ctx *ctx, const lemon_operators *operators, const lemon_model *teacher,
                                             const lemon_model *student, const lemon_tokens *text, float *error) {
    lemon__probe p;
    if (lemon__lacks(ctx, __func__, operators && teacher && student && error)) return LEMON_E_ARG;
    lemon_status status = lemon__same_fields(ctx, &teacher->config, &operators->teacher, 0, "the teacher's ",
                                             "that of the operators' teacher");
    if (!status)
        status = lemon__same_fields(ctx, &student->config, &operators->student, 0, "the student's ",
                                    "that of the operators' student");
    if (status) return status;
    int64_t layers = student->config.n_layers;
    status = lemon__probe_open(ctx, teacher, student, text, &p);
    if (!status && teacher == student) status = lemon__probe_model(&p, 1, student);
    float *x = status ? NULL : lemon__floats(ctx, &p.arena, p.rows, student->config.d_model);
    if (!status && x == NULL) status = LEMON_E_MEMORY;
    for (int64_t i = 0; !status && i <= layers; i++) {
        int64_t end = i < layers ? operators->layer[i * operators->slots] : teacher->config.n_layers;
        status = lemon__probe_walk(&p, 0, i ? end : 0);
        if (!status) status = lemon__probe_walk(&p, 1, i);
        error[i] = lemon__stream_error(&p, lemon_operators_map(operators, LEMON_AT_RESIDUAL, 0, 0), x);
    }
    lemon__probe_close(&p);
    return status;
}
LEMON__BRIEF_END
#endif /* LEMON_NO_FUSE */
#endif /* LEMON_NO_TRAIN */

#ifdef __cplusplus
}
#endif
#if defined(__GNUC__) || defined(__clang__)
#pragma GCC diagnostic pop
#elif defined(_MSC_VER)
#pragma warning(pop)
#endif
#ifdef __clang__
#pragma STDC FP_CONTRACT DEFAULT
#endif
#endif /* LEMON_IMPLEMENTED */
#endif /* LEMON_IMPLEMENTATION */

/*
    LICENCE - choose whichever you prefer.

    ALTERNATIVE A - Public Domain (www.unlicense.org)
    This is free and unencumbered software released into the public domain.  Anyone is free to copy, modify, publish, use,
    compile, sell, or distribute this software, either in source code form or as a compiled binary, for any purpose,
    commercial or non-commercial, and by any means.  In jurisdictions that recognize copyright laws, the author or authors
    of this software dedicate any and all copyright interest in the software to the public domain.  We make this dedication
    for the benefit of the public at large and to the detriment of our heirs and successors.  We intend this dedication to
    be an overt act of relinquishment in perpetuity of all present and future rights to this software under copyright law.
    THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
    WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT.  IN NO EVENT SHALL THE AUTHORS BE
    LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
    OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

    ALTERNATIVE B - MIT No Attribution
    Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
    documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
    rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
    persons to whom the Software is furnished to do so.
    THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
    WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT.  IN NO EVENT SHALL THE AUTHORS OR
    COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
    OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
*/
