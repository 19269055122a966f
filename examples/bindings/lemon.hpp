// lemon.hpp - lemon.h for C++11: what was opened closes itself, what fails throws lemon::error.  A pattern to copy from, not
// a whole wrapping; get() hands out the C object for all that is not here.
#ifndef LEMON_HPP
#define LEMON_HPP
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>
#include "lemon.h"

namespace lemon {

struct error : std::runtime_error {
    lemon_status status;
    error(lemon_status s, const std::string &what) : std::runtime_error(what), status(s) {}
};

// Shared by all that was made with it, so it closes last.
class context {
    std::shared_ptr<lemon_ctx> ctx_;

public:
    explicit context(const lemon_options *options = nullptr) : ctx_(lemon_open(options), lemon_close) {
        if (!ctx_) throw error(LEMON_E_MEMORY, "a context does not open");
    }
    lemon_ctx *get() const { return ctx_.get(); }
    void check(lemon_status status) const {
        if (status != LEMON_OK) throw error(status, lemon_error(get()));
    }
};

class tokens {
    context ctx_;
    lemon_tokens ids_;

public:
    explicit tokens(const context &ctx) : ctx_(ctx), ids_() {}
    tokens(const tokens &) = delete;
    tokens &operator=(const tokens &) = delete;
    ~tokens() { lemon_tokens_free(ctx_.get(), &ids_); }
    lemon_tokens *get() { return &ids_; }
    std::vector<int32_t> vector() const { return std::vector<int32_t>(ids_.ids, ids_.ids + ids_.count); }
};

class model {
    context ctx_;
    std::shared_ptr<lemon_model> model_;

    // C calls this; what the function throws must not cross C's frames, so it waits in `thrown`.
    struct listener {
        const std::function<bool(const std::string &)> *hear;
        std::exception_ptr thrown;
    };
    static int on_token(void *user, int32_t, const char *text, size_t bytes) {
        listener *l = static_cast<listener *>(user);
        try {
            return *l->hear && !(*l->hear)(std::string(text, bytes));
        } catch (...) {
            l->thrown = std::current_exception();
            return 1;
        }
    }

public:
    model(const context &ctx, lemon_model *owned)
        : ctx_(ctx), model_(owned, [ctx](lemon_model *m) { lemon_model_free(ctx.get(), m); }) {}
    static model load(const context &ctx, const std::string &path) {
        lemon_model *m = nullptr;
        ctx.check(lemon_load(ctx.get(), path.c_str(), &m));
        return model(ctx, m);
    }
    const lemon_config &config() const { return model_->config; }
    lemon_model *get() const { return model_.get(); }
    void save(const std::string &path, lemon_dtype dtype = LEMON_F32) const {
        ctx_.check(lemon_save(ctx_.get(), path.c_str(), get(), dtype));
    }
    // Ids of prompt and continuation; `hear` sees each piece of text, and ends the text by returning false.
    std::vector<int32_t> generate(const std::string &prompt, int64_t n, const lemon_sampling &sampling,
                                  const std::function<bool(const std::string &)> &hear = nullptr) const {
        listener l = {&hear, nullptr};
        tokens ids(ctx_);
        lemon_status status =
            lemon_generate(ctx_.get(), get(), prompt.c_str(), n, &sampling, on_token, &l, ids.get(), nullptr);
        if (l.thrown) std::rethrow_exception(l.thrown);
        ctx_.check(status);
        return ids.vector();
    }
    model fuse(const lemon_config &shape, const lemon_fuse_options &options, const lemon_tokens *text = nullptr) const {
        lemon_model *student = nullptr;
        ctx_.check(lemon_fuse(ctx_.get(), get(), &shape, text, &options, &student, nullptr));
        return model(ctx_, student);
    }
};

}  // namespace lemon
#endif
