#!/usr/bin/env python3
"""Goes on training a Hugging Face folder that lemon.h wrote, in plain PyTorch: for those who have a GPU.
train_hf.py FOLDER IDS.u16 STEPS BATCH SEQ LR      prints a line "step,loss,norm of the gradients" for each step, as does
lemon train FOLDER OUT --data IDS.u16 --steps .. --batch .. --seq .. --lr .. --order sequential --schedule constant --warmup 0
Ids of a text that fits on a command line:  lemon tokenize FOLDER "$(cat TEXT)" | python3 -c 'import sys, array
array.array("H", map(int, sys.stdin.read().split())).tofile(sys.stdout.buffer)' > IDS.u16
"""
import glob, json, math, struct, sys
import torch
import torch.nn.functional as F

TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
folder, ids_file, steps, batch, seq, lr = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]), float(sys.argv[6])
device = "cuda" if torch.cuda.is_available() else "cpu"
config = json.load(open(folder + "/config.json"))
heads, kv, eps = config["num_attention_heads"], config["num_key_value_heads"], config["rms_norm_eps"]
head, window, scaling = config["head_dim"], config.get("sliding_window"), config.get("rope_scaling")
speed = config["rope_theta"] ** (-torch.arange(0, head, 2, device=device) / head)
if scaling:             # slow planes turn slower; in LLaMA 3 not those that turn often enough within its first context
    assert scaling["rope_type"] in ("linear", "llama3"), "%s is not known here" % scaling
    low, high = scaling.get("low_freq_factor", 0), scaling.get("high_freq_factor", 0)
    turns = speed / (2 * math.pi) * scaling.get("original_max_position_embeddings", 0)
    speed *= 1 - (1 - 1 / scaling["factor"]) * (((high - turns) / (high - low)).clamp(0, 1) if high else 1)


def load(folder):
    """All tensors of all safetensors files, as float32 parameters."""
    weights = {}
    for path in sorted(glob.glob(folder + "/*.safetensors")):
        raw = bytearray(open(path, "rb").read())
        n = struct.unpack("<Q", raw[:8])[0]
        for name, t in json.loads(raw[8:8 + n]).items():
            if name != "__metadata__":
                a, b = t["data_offsets"]
                w = torch.frombuffer(raw[8 + n + a:8 + n + b], dtype=TYPES[t["dtype"]]).reshape(t["shape"])
                weights[name] = torch.nn.Parameter(w.to(device, torch.float32, copy=True))
    return weights


def norm(x, gain):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * gain


def rope(x, angles):    # x [B, heads, T, head]: channels i and i + head/2 turn together
    a, b = x.chunk(2, -1)
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)


def forward(w, ids):
    x, (b, t) = w["model.embed_tokens.weight"][ids], ids.shape
    angles = torch.arange(t, device=device)[:, None] * speed
    mask = torch.full((t, t), -math.inf, device=device)
    mask = mask.triu(1) + mask.tril(-window if window else -t)
    for i in range(config["num_hidden_layers"]):
        p = lambda name, of="weight": w.get("model.layers.%d.%s.%s" % (i, name, of))
        linear = lambda name: F.linear(y, p(name), p(name, "bias"))
        y = norm(x, p("input_layernorm"))
        q, k, v = (linear("self_attn.%s_proj" % n).view(b, t, -1, head) for n in "qkv")
        if p("self_attn.q_norm") is not None:
            q, k = norm(q, p("self_attn.q_norm")), norm(k, p("self_attn.k_norm"))
        q, k, v = rope(q.transpose(1, 2), angles), rope(k.transpose(1, 2), angles), v.transpose(1, 2)
        k, v = (z.repeat_interleave(heads // kv, 1) for z in (k, v))
        z = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(head) + mask, -1) @ v
        x = x + z.transpose(1, 2).reshape(b, t, -1) @ p("self_attn.o_proj").T
        y = norm(x, p("post_attention_layernorm"))
        x = x + (F.silu(linear("mlp.gate_proj")) * linear("mlp.up_proj")) @ p("mlp.down_proj").T
    return norm(x, w["model.norm.weight"]) @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T


weights = load(folder)
text = torch.frombuffer(bytearray(open(ids_file, "rb").read()), dtype=torch.int16).to(device, torch.long) & 0xFFFF
groups = [{"params": [w for w in weights.values() if w.dim() == d], "weight_decay": 0.1 * (d == 2)} for d in (1, 2)]
optimiser = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), eps=1e-8)
for step in range(steps):
    at = [(step * batch + i) % ((len(text) - 1) // seq) * seq for i in range(batch)]
    logits = forward(weights, torch.stack([text[a:a + seq] for a in at]))
    loss = F.cross_entropy(logits.flatten(0, 1), torch.cat([text[a + 1:a + seq + 1] for a in at]))
    optimiser.zero_grad()
    loss.backward()
    length = torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
    optimiser.step()
    print("%d,%.6f,%.6f" % (step + 1, loss.item(), length), flush=True)
