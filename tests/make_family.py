#!/usr/bin/env python3
"""Writes a Hugging Face folder (with `gguf` a GGUF file) of a small random model of the LLaMA family, and prints its loss
on ids in windows of SEQ, computed here in float64 after Hugging Face's modeling files; nothing of lemon.h is in it.

make_family.py FAMILY OUT IDS.u16 SEQ [gguf]
"""
import json, math, os, struct, sys
import numpy as np

D, LAYERS, FFN, VOCAB, CONTEXT, EPS = 64, 2, 96, 512, 256, 1e-6
FAMILIES = {
    "llama": {}, "smollm": {"heads": 6, "kv": 3, "head_dim": 10, "tied": True}, "tinyllama": {"heads": 8, "kv": 1},
    "llama3": {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                "original_max_position_embeddings": 32}, "theta": 500.0},
    "linear": {"rope_scaling": {"type": "linear", "factor": 2.5}},
    "yarn": {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}, "tied": True},
    "mistral": {"type": "mistral", "sliding_window": 24},
    "qwen2": {"type": "qwen2", "bias": True, "tied": True, "config": {"use_sliding_window": False, "sliding_window": 24}},
    "qwen2-yarn": {"type": "qwen2", "bias": True, "rope_scaling": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "attention_factor": 1.3, "beta_fast": 8,
        "beta_slow": 0.5}},
    "qwen3": {"type": "qwen3", "norm": True, "head_dim": 32, "tied": True},
    "phi3": {"type": "phi3", "fused": True, "config": {"sliding_window": None, "original_max_position_embeddings": CONTEXT}},
    "phi3-window": {"type": "phi3", "fused": True, "sliding_window": 24}}

family, out, ids, seq = sys.argv[1], sys.argv[2], np.fromfile(sys.argv[3], "<u2").astype(int), int(sys.argv[4])
f = FAMILIES[family]
H, K, tied, theta, scaling = f.get("heads", 4), f.get("kv", 2), f.get("tied", False), f.get("theta", 10000.0), f.get("rope_scaling")
C, window = f.get("head_dim", D // H), f.get("sliding_window")
random = np.random.RandomState(sum(map(ord, family)))


def draw(rows, cols, size=1.0):
    return (size * random.randn(rows, cols) / math.sqrt(cols)).astype("<f4")


w = {"model.embed_tokens.weight": draw(VOCAB, D, 2 if tied else 8), "model.norm.weight": (1 + 0.3 * random.randn(D)).astype("<f4")}
for i in range(LAYERS):
    at = "model.layers.%d." % i
    for name, rows, cols in (("self_attn.q_proj", H * C, D), ("self_attn.k_proj", K * C, D), ("self_attn.v_proj", K * C, D),
                             ("self_attn.o_proj", D, H * C), ("mlp.gate_proj", FFN, D), ("mlp.up_proj", FFN, D), ("mlp.down_proj", D, FFN)):
        w[at + name + ".weight"] = draw(rows, cols, 1.5)
        if f.get("bias") and name[10:] in ("q_proj", "k_proj", "v_proj"):
            w[at + name + ".bias"] = draw(1, rows, 3)[0]
    for name in ("input_layernorm", "post_attention_layernorm"):
        w[at + name + ".weight"] = (1 + 0.3 * random.randn(D)).astype("<f4")
    for name in ("q_norm", "k_norm") if f.get("norm") else ():
        w[at + "self_attn." + name + ".weight"] = (1.5 + 0.5 * random.randn(C)).astype("<f4")
if not tied:
    w["lm_head.weight"] = draw(VOCAB, D, 2)

# ---- the forward pass ----

speed, size = 1.0 / theta ** (np.arange(0, C, 2) / C), 1.0
if scaling:
    kind, factor = scaling.get("rope_type", scaling.get("type")), scaling["factor"]
    length = scaling.get("original_max_position_embeddings")
    if kind == "linear":
        speed = speed / factor
    elif kind == "llama3":
        low, high, wave = scaling["low_freq_factor"], scaling["high_freq_factor"], 2 * math.pi / speed
        smooth = (length / wave - low) / (high - low)
        scaled = np.where(wave > length / low, speed / factor, speed)
        between = (wave >= length / high) & (wave <= length / low)
        speed = np.where(between, (1 - smooth) * speed / factor + smooth * speed, scaled)
    else:
        def plane(turns):
            return C * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))
        low = max(math.floor(plane(scaling.get("beta_fast", 32))), 0)
        high = min(math.ceil(plane(scaling.get("beta_slow", 1))), C - 1)
        ramp = np.clip((np.arange(C // 2) - low) / max(high - low, 0.001), 0, 1)
        speed = speed / factor * ramp + speed * (1 - ramp)
        size = scaling.get("attention_factor", 0.1 * math.log(factor) + 1)


def norm(x, gain):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * gain


def turn(x):                                    # [T, heads, C]
    angle = np.arange(len(x))[:, None] * np.concatenate([speed, speed])
    half = np.concatenate([-x[..., C // 2:], x[..., :C // 2]], -1)
    return size * (x * np.cos(angle)[:, None] + half * np.sin(angle)[:, None])


def heads(x, name, count, turns):
    y = x @ w[name + "_proj.weight"].astype(float).T + w.get(name + "_proj.bias", 0.0)
    y = y.reshape(len(x), count, C)
    if name + "_norm.weight" in w:
        y = norm(y, w[name + "_norm.weight"])
    return turn(y) if turns else y


def logits(tokens):
    x = w["model.embed_tokens.weight"][tokens].astype(float)
    T = len(tokens)
    back = np.arange(T)[:, None] - np.arange(T)
    hidden = (back < 0) | (back >= (window or T))
    for i in range(LAYERS):
        at = "model.layers.%d." % i
        y = norm(x, w[at + "input_layernorm.weight"])
        q, k, v = (heads(y, at + "self_attn." + n, c, n < "v") for n, c in (("q", H), ("k", K), ("v", K)))
        k, v = np.repeat(k, H // K, 1), np.repeat(v, H // K, 1)
        s = np.einsum("thc,shc->hts", q, k) / math.sqrt(C)
        s = np.exp(np.where(hidden, -1e300, s - np.where(hidden, -1e300, s).max(-1, keepdims=True)))
        z = np.einsum("hts,shc->thc", s / s.sum(-1, keepdims=True), v).reshape(T, H * C)
        x = x + z @ w[at + "self_attn.o_proj.weight"].astype(float).T
        y = norm(x, w[at + "post_attention_layernorm.weight"])
        gate = y @ w[at + "mlp.gate_proj.weight"].astype(float).T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ w[at + "mlp.up_proj.weight"].astype(float).T)) @ w[at + "mlp.down_proj.weight"].astype(float).T
    return norm(x, w["model.norm.weight"]) @ w["model.embed_tokens.weight" if tied else "lm_head.weight"].astype(float).T


total = 0.0
for s in range(0, len(ids) - 1, seq):
    z, target = logits(ids[s:s + seq][:len(ids) - 1 - s]), ids[s + 1:s + seq + 1]
    z = z - z.max(-1, keepdims=True)
    total += (np.log(np.exp(z).sum(-1)) - z[np.arange(len(target)), target]).sum()
print("%.9f" % (total / (len(ids) - 1)))

# ---- the files ----

if f.get("fused"):
    for i in range(LAYERS):
        at = "model.layers.%d." % i
        w[at + "self_attn.qkv_proj.weight"] = np.concatenate([w.pop(at + "self_attn.%s_proj.weight" % n) for n in "qkv"])
        w[at + "mlp.gate_up_proj.weight"] = np.concatenate([w.pop(at + "mlp.%s_proj.weight" % n) for n in ("gate", "up")])
if "gguf" in sys.argv:                          # Phi-3 alone: its rows stand as Hugging Face has them
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
             "self_attn.qkv_proj": "attn_qkv", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
             "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    text = lambda s: struct.pack("<Q", len(s)) + s.encode()
    keys = [text("general.architecture") + struct.pack("<I", 8) + text("phi3"),
            text("tokenizer.ggml.model") + struct.pack("<I", 8) + text("no_vocab")]
    for name, value in (("embedding_length", D), ("block_count", LAYERS), ("attention.head_count", H), ("attention.head_count_kv", K),
                        ("feed_forward_length", FFN), ("vocab_size", VOCAB), ("context_length", CONTEXT), ("rope.dimension_count", C)):
        keys.append(text("phi3." + name) + struct.pack("<II", 4, value))
    keys.append(text("phi3.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, EPS))
    table, blob = b"", b""
    for name, value in w.items():
        layer, short = ("blk.%s." % name.split(".")[2], name.split(".", 3)[3]) if ".layers." in name else ("", name)
        table += text(layer + names[short[:-7]] + ".weight") + struct.pack("<I", value.ndim)
        table += struct.pack("<%dQ" % value.ndim, *value.shape[::-1]) + struct.pack("<IQ", 0, len(blob))
        blob += value.tobytes() + bytes(-value.nbytes % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(w), len(keys)) + b"".join(keys) + table
    open(out, "wb").write(head + bytes(-len(head) % 32) + blob)
    sys.exit()
os.makedirs(out, exist_ok=True)
header, blob = {}, b""
for name, value in w.items():
    header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [len(blob), len(blob) + value.nbytes]}
    blob += value.tobytes()
text = json.dumps(header).encode()
open(os.path.join(out, "model.safetensors"), "wb").write(struct.pack("<Q", len(text)) + text + blob)
config = {"model_type": f.get("type", "llama"), "hidden_size": D, "intermediate_size": FFN, "num_hidden_layers": LAYERS,
          "num_attention_heads": H, "num_key_value_heads": K, "vocab_size": VOCAB, "max_position_embeddings": CONTEXT,
          "tie_word_embeddings": tied, "rope_theta": theta, "rms_norm_eps": EPS, "hidden_act": "silu", "torch_dtype": "float32"}
config.update({} if C * H == D else {"head_dim": C}, **({"sliding_window": window} if window else {}))
config.update({"rope_scaling": scaling} if scaling else {}, **f.get("config", {}))
json.dump(config, open(os.path.join(out, "config.json"), "w"), indent=2)
