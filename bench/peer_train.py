"""The same training step in PyTorch: LLaMA with tied embeddings, forward, cross-entropy, backward, clipping, AdamW.

    peer_train.py D LAYERS HEADS KV_HEADS FFN VOCAB T B THREADS SECONDS

Prints tokens a second of the best step and of the mean step, and the peak of resident memory in bytes.
"""
import resource
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

D, LAYERS, HEADS, KV, FFN, VOCAB, T, B, THREADS = map(int, sys.argv[1:10])
SECONDS = float(sys.argv[10])
C = D // HEADS
torch.set_num_threads(THREADS)
torch.set_num_interop_threads(1)
torch.manual_seed(1)

ANGLES = torch.outer(torch.arange(T).float(), 10000.0 ** (-torch.arange(0, C, 2).float() / C))
COS, SIN = torch.cat([ANGLES, ANGLES], 1).cos(), torch.cat([ANGLES, ANGLES], 1).sin()
MASK = torch.full((T, T), float("-inf")).triu(1)


def rope(x):                                   # [B, heads, T, C]
    half = torch.cat([-x[..., C // 2:], x[..., :C // 2]], -1)
    return x * COS + half * SIN


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(D))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = Norm(), Norm()
        self.q, self.k, self.v = (nn.Linear(D, n * C, bias=False) for n in (HEADS, KV, KV))
        self.o = nn.Linear(D, D, bias=False)
        self.gate, self.up = nn.Linear(D, FFN, bias=False), nn.Linear(D, FFN, bias=False)
        self.down = nn.Linear(FFN, D, bias=False)

    def forward(self, x):
        y = self.norm1(x)
        q, k, v = (p(y).view(B, T, n, C).transpose(1, 2) for p, n in ((self.q, HEADS), (self.k, KV), (self.v, KV)))
        q, k = rope(q), rope(k)
        if KV != HEADS:
            k, v = (t.repeat_interleave(HEADS // KV, 1) for t in (k, v))
        p = torch.baddbmm(MASK.expand(B * HEADS, T, T), q.reshape(-1, T, C), k.reshape(-1, T, C).transpose(1, 2),
                          alpha=C ** -0.5).softmax(-1)
        z = torch.bmm(p, v.reshape(-1, T, C)).view(B, HEADS, T, C).transpose(1, 2).reshape(B, T, D)
        x = x + self.o(z)
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, D)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = Norm()

    def forward(self, ids, targets):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return F.cross_entropy((self.norm(x) @ self.embed.weight.T).view(-1, VOCAB), targets.reshape(-1))


model = Llama()
adam = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), foreach=True)
times = []
while len(times) < 4 or sum(times[1:]) < SECONDS:
    start = time.perf_counter()
    ids = torch.randint(VOCAB, (B, T + 1))
    loss = model(ids[:, :-1], ids[:, 1:])
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adam.step()
    adam.zero_grad(set_to_none=True)
    times.append(time.perf_counter() - start)
times = times[1:]                              # the first one makes the optimiser's state
print(B * T / min(times), B * T * len(times) / sum(times), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
