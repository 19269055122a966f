"""lemon.h from Python, by the standard library alone.  First, once:

    cc -O3 -shared -fPIC -DLEMON_IMPLEMENTATION -x c ../../lemon.h -o liblemon.so -lm -pthread
    python3 lemon.py ./liblemon.so ../data/teacher.lemon /tmp/student.lemon

A pattern to copy from: the structs are those of lemon.h 0.1, field by field.  """
import ctypes
import sys
from ctypes import POINTER, byref, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_size_t, c_uint64, c_void_p


def struct(name, **fields):
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


Config = struct("Config", d_model=c_int32, n_layers=c_int32, n_heads=c_int32, kv_heads=c_int32, head_dim=c_int32,
                d_ffn=c_int32, vocab_size=c_int32, max_seq=c_int32, tied_embeddings=c_int32, rope_theta=c_float,
                rms_norm_eps=c_float, qkv_bias=c_int32, qk_norm=c_int32, window=c_int32, rope_scaling=c_int32,
                rope_original=c_int32, rope_factor=c_float, rope_slow=c_float, rope_fast=c_float, rope_magnitude=c_float)
Tokens = struct("Tokens", ids=POINTER(c_int32), count=c_int64, capacity=c_int64)
Sampling = struct("Sampling", temperature=c_float, top_k=c_int32, top_p=c_float, min_p=c_float, seed=c_uint64,
                  stops=POINTER(c_char_p), n_stops=c_int32)
FuseOptions = struct("FuseOptions", method=c_char_p, tokens=c_int64, seq=c_int64, field_layers=c_int64,
                     field_dims=c_int64, solve=c_int, correction=c_int, learn_steps=c_int64, learn_lr=c_double,
                     seed=c_uint64)
OnToken = ctypes.CFUNCTYPE(c_int, c_void_p, c_int32, POINTER(ctypes.c_char), c_size_t)


class Lemon:                                    # the library and a context
    def __init__(self, path):
        self.c = ctypes.CDLL(path)
        self.c.lemon_open.restype = c_void_p
        self.c.lemon_error.restype = c_char_p
        self.c.lemon_config_params.restype = c_int64
        self.ctx = c_void_p(self.c.lemon_open(None))
        if not self.ctx:
            raise RuntimeError("a context does not open")

    def check(self, status):
        if status:
            raise RuntimeError(self.c.lemon_error(self.ctx).decode())

    def close(self):
        self.c.lemon_close(self.ctx)

    def load(self, path):
        model = c_void_p()
        self.check(self.c.lemon_load(self.ctx, path.encode(), byref(model)))
        return Model(self, model)


class Model:
    def __init__(self, lemon, pointer):
        self.lemon, self.pointer = lemon, pointer
        self.config = ctypes.cast(pointer, POINTER(Config)).contents       # the first field of a lemon_model

    def close(self):
        self.lemon.c.lemon_model_free(self.lemon.ctx, self.pointer)

    def save(self, path, dtype=0):
        self.lemon.check(self.lemon.c.lemon_save(self.lemon.ctx, path.encode(), self.pointer, dtype))

    def generate(self, prompt, n, temperature=0.0, seed=1):     # the ids of all, and the continuation's text
        pieces, tokens = [], Tokens()
        sampling = Sampling(temperature, top_p=1.0, seed=seed)
        hear = OnToken(lambda user, id, text, count: pieces.append(text[:count]) or 0)
        try:
            self.lemon.check(self.lemon.c.lemon_generate(self.lemon.ctx, self.pointer, prompt.encode(), c_int64(n),
                                                         byref(sampling), hear, None, byref(tokens), None))
            return tokens.ids[:tokens.count], b"".join(pieces).decode(errors="replace")
        finally:
            self.lemon.c.lemon_tokens_free(self.lemon.ctx, byref(tokens))

    def fuse(self, tokens=2048, **shape):
        options, student, config = FuseOptions(), c_void_p(), Config.from_buffer_copy(self.config)
        for name, value in shape.items():
            setattr(config, name, value)
        self.lemon.c.lemon_fuse_defaults(byref(options))
        options.tokens = tokens
        self.lemon.check(self.lemon.c.lemon_fuse(self.lemon.ctx, self.pointer, byref(config), None, byref(options),
                                                 byref(student), None))
        return Model(self.lemon, student)


if __name__ == "__main__":
    library, teacher_path, student_path = sys.argv[1:4]
    lemon = Lemon(library)
    teacher = lemon.load(teacher_path)
    print("text" + teacher.generate("Once upon a time", 20)[1])
    student = teacher.fuse(d_model=32, n_layers=2, n_heads=2, kv_heads=1, d_ffn=64)
    student.save(student_path)
    again = lemon.load(student_path)
    print("student", lemon.c.lemon_config_params(byref(again.config)))
    try:
        lemon.load("there is no such file")
    except RuntimeError as error:
        print("error", error)
    for model in (again, student, teacher):
        model.close()
    lemon.close()
