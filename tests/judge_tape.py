"""judge_tape.py CASES: works out in PyTorch, in float64, the gradients that judge_tape.c printed.  A line each: NAME, and the worst
difference of a leaf's gradient (or of the loss) from PyTorch's, as a share of the largest number in it."""
import math, sys
import torch
import torch.nn.functional as F


def rope(x, head, seq):
    t = torch.arange(len(x)) % seq
    angles = t[:, None].double() * 10000.0 ** (-torch.arange(0, head, 2).double() / head)
    y = x.view(len(x), -1, head // 2, 2)
    c, s = angles.cos()[:, None], angles.sin()[:, None]
    return torch.stack([y[..., 0] * c - y[..., 1] * s, y[..., 0] * s + y[..., 1] * c], -1).reshape(x.shape)


def attention(q, k, v, heads, kv, head, seq, window):
    q, k, v = (z.view(-1, seq, n, head).transpose(1, 2) for z, n in ((q, heads), (k, kv), (v, kv)))
    k, v = (z.repeat_interleave(heads // kv, 1) for z in (k, v))
    i = torch.arange(seq)
    back = i[:, None] - i[None]
    mask = torch.where((back < 0) | (back >= window), -math.inf, 0.0).double()
    return (torch.softmax(q @ k.transpose(2, 3) / math.sqrt(head) + mask, -1) @ v).transpose(1, 2).reshape(-1, heads * head)


def norm(x, gain):
    y = x.view(len(x), -1, gain.shape[1])
    return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-5) * gain).reshape(x.shape)


OPERATIONS = {
    "matmul_nn": lambda x, i: x[0] @ x[1], "matmul_nt": lambda x, i: x[0] @ x[1].T,
    "matmul_tn": lambda x, i: x[0].T @ x[1], "matmul_tt": lambda x, i: x[0].T @ x[1].T,
    "add": lambda x, i: x[0] + x[1], "bias": lambda x, i: x[0] + x[1],
    "rms_norm": lambda x, i: norm(x[0], x[1]), "rms_norm_heads": lambda x, i: norm(x[0], x[1]),
    "rope": lambda x, i: rope(x[0], 12, 8), "swiglu": lambda x, i: F.silu(x[0]) * x[1],
    "attention": lambda x, i: attention(x[0], x[1], x[2], 4, 2, 12, 12, 12),
    "attention_window": lambda x, i: attention(x[0], x[1], x[2], 4, 2, 12, 12, 5),
    "mix": lambda x, i: x[3][0, 0] * x[0] + x[3][0, 1] * x[1] + x[3][0, 2] * x[2],
    "embed": lambda x, i: x[0][i[0]], "loss": lambda x, i: x[0], "distill": lambda x, i: x[0]}


def judge(name, leaves, ids, loss, grads):
    rest = 3 if name == "distill" else 1
    y = OPERATIONS[name](leaves[:len(leaves) - rest], ids)
    logits = y @ leaves[-rest].T
    ce = F.cross_entropy(logits, ids[-1])
    kl, total, parts = torch.zeros(()).double(), ce, leaves
    if name == "distill":
        teacher = F.log_softmax(leaves[-2] @ leaves[-1].T / 1.7, -1).detach()
        kl = F.kl_div(F.log_softmax(logits / 1.7, -1), teacher, reduction="batchmean", log_target=True)
        total, parts, grads = 0.3 * ce + 0.7 * 1.7 ** 2 * kl, leaves[:-2], grads[:-2]   # nothing flows into a teacher
    wanted = torch.autograd.grad(total, parts)
    return max([abs(loss[0] - ce.item()) / ce.item(), abs(loss[1] - kl.item())] +
               [((g.view(w.shape) - w).abs().max() / w.abs().max()).item() for g, w in zip(grads, wanted)])


case = None
for line in list(open(sys.argv[1])) + ["case end"]:
    word, *rest = line.split()
    if word == "case":
        if case: print("%s %.3g" % (case, judge(case, leaves, ids, loss, grads)))
        case, leaves, ids, grads = rest[0], [], [], []
    elif word == "leaf":
        leaves.append(torch.tensor([float(v) for v in rest[2:]]).double().view(int(rest[0]), int(rest[1])).requires_grad_())
    elif word == "ids": ids.append(torch.tensor([int(v) for v in rest]))
    elif word == "loss": loss = [float(v) for v in rest]
    else: grads.append(torch.tensor([float(v) for v in rest]).double())
