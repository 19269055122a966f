// demo.cpp TEACHER STUDENT - lemon.h from C++: loads, generates, fuses, saves.
//     c++ -std=c++11 -O2 -I../.. demo.cpp -o demo -pthread && ./demo ../data/teacher.lemon /tmp/student.lemon
#define LEMON_IMPLEMENTATION
#include "lemon.hpp"
#include <cstdio>

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    try {
        lemon::context ctx;
        lemon::model teacher = lemon::model::load(ctx, argv[1]);
        lemon_sampling greedy;
        lemon_sampling_defaults(&greedy);
        greedy.temperature = 0;
        std::string text;
        teacher.generate("Once upon a time", 20, greedy, [&text](const std::string &piece) {
            text += piece;
            return true;
        });
        std::printf("text%s\n", text.c_str());

        lemon_config shape = teacher.config();
        shape.d_model = 32, shape.n_layers = 2, shape.n_heads = 2, shape.kv_heads = 1, shape.d_ffn = 64;
        lemon_fuse_options options;
        lemon_fuse_defaults(&options);
        options.tokens = 2048;
        lemon::model student = teacher.fuse(shape, options);
        student.save(argv[2]);
        std::printf("student %lld\n", static_cast<long long>(lemon_config_params(&lemon::model::load(ctx, argv[2]).config())));
        try {
            lemon::model::load(ctx, "there is no such file");
        } catch (const lemon::error &e) {
            std::printf("error %s\n", e.what());
        }
    } catch (const std::exception &e) {
        std::fprintf(stderr, "lemon: error: %s\n", e.what());
        return 1;
    }
    return 0;
}
