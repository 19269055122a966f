#!/usr/bin/env python3
"""Writes a Hugging Face folder from a llama2.c version 0 checkpoint, with nothing of lemon.h in it: what lemon.h reads is
compared with the checkpoint itself.

make_hf.py CHECKPOINT.bin FOLDER F32|F16|BF16 SHARDS [odd]      odd: old-style data that are not aligned, tensors shuffled
"""
import json, os, random, struct, sys

source, folder, dtype, shards, odd = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), "odd" in sys.argv
data = open(source, "rb").read()
dim, ffn, layers, heads, kv, vocab, context = struct.unpack("<7i", data[:28])
tied, vocab, head = vocab > 0, abs(vocab), dim // heads
at = 28


def take(rows, cols):
    """The next matrix, as a list of rows of bytes."""
    global at
    got = [data[at + 4 * cols * r:at + 4 * cols * (r + 1)] for r in range(rows)]
    at += 4 * rows * cols
    return got


def halves(rows):
    """Hugging Face turns channels i and i + head/2 together, llama2.c 2i and 2i + 1: rows change places head by head."""
    out = []
    for h in range(len(rows) // head):
        block = rows[h * head:(h + 1) * head]
        out += block[0::2] + block[1::2]
    return out


def stored(rows):
    if dtype == "F32":
        return b"".join(rows)
    floats = struct.unpack("<%df" % (sum(map(len, rows)) // 4), b"".join(rows))
    if dtype == "F16":
        return struct.pack("<%de" % len(floats), *floats)
    bits = struct.unpack("<%dI" % len(floats), struct.pack("<%df" % len(floats), *floats))
    return struct.pack("<%dH" % len(bits), *(((b + 0x7FFF + (b >> 16 & 1)) >> 16) for b in bits))


tensors = {"model.embed_tokens.weight": take(vocab, dim)}
names = [("input_layernorm", 1, dim), ("self_attn.q_proj", dim, dim), ("self_attn.k_proj", kv * head, dim),
         ("self_attn.v_proj", kv * head, dim), ("self_attn.o_proj", dim, dim), ("post_attention_layernorm", 1, dim),
         ("mlp.gate_proj", ffn, dim), ("mlp.down_proj", dim, ffn), ("mlp.up_proj", ffn, dim)]
for name, rows, cols in names:
    for layer in range(layers):
        got = take(rows, cols)
        tensors["model.layers.%d.%s.weight" % (layer, name)] = halves(got) if "q_proj" in name or "k_proj" in name else got
tensors["model.norm.weight"] = take(1, dim)
at += 4 * context * head
if not tied:
    tensors["lm_head.weight"] = take(vocab, dim)

os.makedirs(folder, exist_ok=True)
order, weight_map = list(tensors), {}
if odd:
    random.Random(1).shuffle(order)
for k in range(shards):
    mine = order[k * len(order) // shards:(k + 1) * len(order) // shards]
    file = "model.safetensors" if shards == 1 else "model-%05d-of-%05d.safetensors" % (k + 1, shards)
    header, blob = {}, b""
    for name in mine:
        rows = tensors[name]
        raw = stored(rows)
        header[name] = {"dtype": dtype, "shape": [len(rows)] * (len(rows) > 1) + [len(rows[0]) // 4],
                        "data_offsets": [len(blob), len(blob) + len(raw)]}
        blob += raw
        weight_map[name] = file
    text = json.dumps(header).encode()
    text += b" " * ((1 - len(text)) % 8 if odd else -len(text) % 8)
    open(os.path.join(folder, file), "wb").write(struct.pack("<Q", len(text)) + text + blob)
if shards > 1:
    json.dump({"metadata": {}, "weight_map": weight_map}, open(os.path.join(folder, "model.safetensors.index.json"), "w"))
config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": dim, "intermediate_size": ffn,
          "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv, "vocab_size": vocab,
          "max_position_embeddings": context, "tie_word_embeddings": tied, "rope_theta": 10000.0, "rms_norm_eps": 1e-05,
          "hidden_act": "silu", "torch_dtype": {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype]}
json.dump(config, open(os.path.join(folder, "config.json"), "w"), indent=2)
