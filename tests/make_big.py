#!/usr/bin/env python3
"""Writes a Hugging Face folder of a LLaMA of 300 MB in F32, the numbers all alike: for tests of memory.  make_big.py FOLDER"""
import json, os, struct, sys

D, LAYERS, HEADS, FFN, VOCAB = 512, 14, 8, 1536, 32000
shapes = {"model.embed_tokens.weight": [VOCAB, D], "model.norm.weight": [D]}
for i in range(LAYERS):
    for name, *shape in (("input_layernorm", D), ("self_attn.q_proj", D, D), ("self_attn.k_proj", D // 4, D), ("self_attn.v_proj", D // 4, D),
                         ("self_attn.o_proj", D, D), ("post_attention_layernorm", D), ("mlp.gate_proj", FFN, D), ("mlp.up_proj", FFN, D),
                         ("mlp.down_proj", D, FFN)):
        shapes["model.layers.%d.%s.weight" % (i, name)] = shape
shapes["lm_head.weight"] = [VOCAB, D]
header, at = {}, 0
for name, shape in shapes.items():
    size = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
    header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
    at += size
os.makedirs(sys.argv[1], exist_ok=True)
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
with open(os.path.join(sys.argv[1], "model.safetensors"), "wb") as f:
    f.write(struct.pack("<Q", len(text)) + text)
    piece = struct.pack("<f", 0.01) * 4096
    for size in range(at // len(piece)):
        f.write(piece)
    f.write(piece[:at % len(piece)])
json.dump({"model_type": "llama", "hidden_size": D, "intermediate_size": FFN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
           "num_key_value_heads": HEADS // 4, "vocab_size": VOCAB, "max_position_embeddings": 256, "tie_word_embeddings": False,
           "rope_theta": 10000.0, "rms_norm_eps": 1e-05, "hidden_act": "silu"}, open(os.path.join(sys.argv[1], "config.json"), "w"))
