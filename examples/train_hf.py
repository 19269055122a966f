#!/usr/bin/env python3
"""Goes on training a Hugging Face folder that lemon.h wrote, in plain PyTorch: for those who have a GPU.

train_hf.py FOLDER IDS.u16 STEPS BATCH SEQ LR      prints a line "step,loss" for each step, in the manner of
lemon train FOLDER OUT --data IDS.u16 --steps .. --batch .. --seq .. --lr .. --order sequential --schedule constant --warmup 0
"""
import glob, json, math, struct, sys
import torch
import torch.nn.functional as F

TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
folder, ids_file, steps, batch, seq, lr = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]), float(sys.argv[6])
device = "cuda" if torch.cuda.is_available() else "cpu"
config = json.load(open(folder + "/config.json"))
heads, kv, eps = config["num_attention_heads"], config["num_key_value_heads"], config["rms_norm_eps"]
head = config["head_dim"]


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


def rope(x, angles):
    """x [B, heads, T, head]: channels i and i + head/2 turn together."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)


def forward(w, ids):
    x, (b, t) = w["model.embed_tokens.weight"][ids], ids.shape
    frequency = config["rope_theta"] ** (-torch.arange(0, head, 2, device=device) / head)
    angles = torch.arange(t, device=device)[:, None] * frequency
    mask = torch.full((t, t), -math.inf, device=device).triu(1)
    for i in range(config["num_hidden_layers"]):
        p = lambda name: w["model.layers.%d.%s.weight" % (i, name)]
        y = norm(x, p("input_layernorm"))
        q, k, v = ((y @ p("self_attn.%s_proj" % n).T).view(b, t, -1, head).transpose(1, 2) for n in "qkv")
        q, k = rope(q, angles), rope(k, angles)
        k, v = (z.repeat_interleave(heads // kv, 1) for z in (k, v))
        z = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(head) + mask, -1) @ v
        x = x + z.transpose(1, 2).reshape(b, t, -1) @ p("self_attn.o_proj").T
        y = norm(x, p("post_attention_layernorm"))
        x = x + (F.silu(y @ p("mlp.gate_proj").T) * (y @ p("mlp.up_proj").T)) @ p("mlp.down_proj").T
    return norm(x, w["model.norm.weight"]) @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T


weights = load(folder)
text = torch.frombuffer(bytearray(open(ids_file, "rb").read()), dtype=torch.int16).to(device, torch.long) & 0xFFFF
windows = (len(text) - 1) // seq
groups = [{"params": [w for w in weights.values() if w.dim() == d], "weight_decay": 0.1 * (d == 2)} for d in (1, 2)]
optimiser = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), eps=1e-8)
for step in range(steps):
    at = [(step * batch + i) % windows * seq for i in range(batch)]
    logits = forward(weights, torch.stack([text[a:a + seq] for a in at]))
    loss = F.cross_entropy(logits.flatten(0, 1), torch.cat([text[a + 1:a + seq + 1] for a in at]))
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
    optimiser.step()
    print("%d,%.6f" % (step + 1, loss.item()), flush=True)
