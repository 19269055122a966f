/*  11_mpi.c - several processes train one model, or calibrate one fusion; the only thing of it that is not lemon.h's own
    is a sum over all processes, which MPI has a call for.

        make -C examples mpi                (Open MPI: apt-get install libopenmpi-dev openmpi-bin)
        mpirun -n 2 examples/build/11_mpi train MODEL OUT TEXT STEPS PARTS
        mpirun -n 2 examples/build/11_mpi fuse TEACHER OUT TEXT D LAYERS HEADS KV_HEADS FFN

    Each process reads all of the text and works on its share: of the PARTS that a batch of 8 windows is cut into, or of the
    calibration windows.  The losses are those of one process, but for the order in which numbers are summed.  Process 0
    saves, each tenth step too; where OUT.resume is there, training goes on from it.  When a process dies, MPI ends all. */
#ifndef LEMON_LINKED
#define LEMON_IMPLEMENTATION
#endif
#include "lemon.h"
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*  For lemon_options: sums over all processes, by pieces, for MPI counts with an int. */
static int all_reduce(void *user, void *buffer, int64_t count, size_t bytes) {
    enum { PIECE = 1 << 24 };
    char *at = (char *)buffer;
    (void)user;
    for (; count > 0; count -= PIECE, at += PIECE * bytes)
        if (MPI_Allreduce(MPI_IN_PLACE, at, count < PIECE ? (int)count : PIECE, bytes == 4 ? MPI_FLOAT : MPI_DOUBLE, MPI_SUM,
                          MPI_COMM_WORLD) != MPI_SUCCESS)
            return 1;
    return 0;
}

static void show(void *user, const lemon_step *step) {
    if (*(const int *)user == 0) printf("step %lld loss %.9f\n", (long long)step->step, step->loss);
    fflush(stdout);
}

static lemon_status train(lemon_ctx *ctx, lemon_model *model, const lemon_tokens *text, char **argv, int *rank) {
    lemon_train_options options;
    char resume[1024];
    FILE *file;
    lemon_train_defaults(&options);
    options.steps = strtoll(argv[5], NULL, 10);
    options.accumulate = strtoll(argv[6], NULL, 10);
    options.save_path = argv[3];
    options.save_every = 10;
    options.schedule = LEMON_CONSTANT, options.warmup = 10;
    options.on_step = show;
    options.user = rank;
    snprintf(resume, sizeof resume, "%s.resume", argv[3]);
    file = fopen(resume, "rb");
    options.resume = file != NULL;
    if (file) fclose(file);
    return lemon_train(ctx, model, text, &options, NULL);
}

static lemon_status fuse(lemon_ctx *ctx, const lemon_model *teacher, const lemon_tokens *text, char **argv, int rank) {
    lemon_config shape = teacher->config;
    lemon_fuse_options options;
    lemon_fuse_result result;
    lemon_model *student = NULL;
    lemon_status status;
    shape.d_model = atoi(argv[5]), shape.n_layers = atoi(argv[6]), shape.n_heads = atoi(argv[7]);
    shape.kv_heads = atoi(argv[8]), shape.d_ffn = atoi(argv[9]);
    lemon_fuse_defaults(&options);
    options.learn_steps = 0;
    status = lemon_fuse(ctx, teacher, &shape, text, &options, &student, &result);
    if (!status && rank == 0) {
        printf("held-out loss %.9f\n", result.init_loss);
        status = lemon_save(ctx, argv[3], student, LEMON_F32);
    }
    lemon_model_free(ctx, student);
    return status;
}

int main(int argc, char **argv) {
    lemon_options options;
    lemon_model *loaded = NULL, *model = NULL;
    lemon_tokens text = {NULL, 0, 0};
    const char *path;
    lemon_ctx *ctx;
    lemon_status status;
    memset(&options, 0, sizeof options);
    MPI_Init(&argc, &argv);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &options.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &options.ranks);
    options.all_reduce = all_reduce;
    options.threads = 1;
    if (!((argc == 7 && strcmp(argv[1], "train") == 0) || (argc == 10 && strcmp(argv[1], "fuse") == 0))) {
        if (options.rank == 0) fprintf(stderr, "usage: see the top of 11_mpi.c\n");
        MPI_Finalize();
        return 2;
    }
    ctx = lemon_open(&options);
    path = argv[4];
    status = lemon_load(ctx, argv[2], &loaded);
    if (!status) status = lemon_model_clone(ctx, loaded, &model);
    if (!status) status = lemon_tokens_from_files(ctx, model->tokenizer, model->config.vocab_size, &path, 1, &text);
    if (!status && argv[1][0] == 't') status = train(ctx, model, &text, argv, &options.rank);
    else if (!status) status = fuse(ctx, model, &text, argv, options.rank);
    if (status) fprintf(stderr, "11_mpi: process %d: %s: %s\n", options.rank, lemon_status_name(status), lemon_error(ctx));
    lemon_tokens_free(ctx, &text);
    lemon_model_free(ctx, model);
    lemon_model_free(ctx, loaded);
    lemon_close(ctx);
    if (status) MPI_Abort(MPI_COMM_WORLD, 1);               /* the others would wait for this one */
    MPI_Finalize();
    return 0;
}
