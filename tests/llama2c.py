"""What llama2.c makes of a checkpoint: run.c's reader of version 0, runq.c's of version 2, and their forward pass, in Python
without anything of lemon.h.

llama2c.py MODEL.bin IDS.u16 N [TOKENIZER.bin]    the mean loss on the first N + 1 ids; with a vocabulary their text instead
"""
import math, operator, struct, sys

data = open(sys.argv[1], "rb").read()
count = int(sys.argv[3])
ids = struct.unpack("<%dH" % (count + 1), open(sys.argv[2], "rb").read()[:2 * count + 2])
version = 2 if data[:4] == b"24ka" else 0
at = 8 if version else 0
assert version == 0 or struct.unpack_from("<i", data, 4)[0] == 2
dim, ffn, layers, heads, kv, vocab, context = struct.unpack_from("<7i", data, at)
shared, group = (vocab > 0, 0) if version == 0 else struct.unpack_from("<Bi", data, 36)
vocab, head, at = abs(vocab), dim // heads, 256 if version else 28


def floats(n):
    global at
    at += 4 * n
    return struct.unpack_from("<%df" % n, data, at - 4 * n)


def matrix(rows, cols):
    global at
    if version == 0:
        x = floats(rows * cols)
    else:
        q = struct.unpack_from("<%db" % (rows * cols), data, at)
        at += rows * cols
        s = floats(rows * cols // group)
        x = [q[i] * s[i // group] for i in range(rows * cols)]
    return [x[r * cols:(r + 1) * cols] for r in range(rows)]


each = lambda make: [make() for _ in range(layers)]
square, narrow = (lambda: matrix(dim, dim)), (lambda: matrix(kv * head, dim))
if version == 0:
    embed, att_norm = matrix(vocab, dim), each(lambda: floats(dim))
    wq, wk, wv, wo = each(square), each(narrow), each(narrow), each(square)
    ffn_norm = each(lambda: floats(dim))
    w1, w2, w3 = each(lambda: matrix(ffn, dim)), each(lambda: matrix(dim, ffn)), each(lambda: matrix(ffn, dim))
    final_norm = floats(dim)
    floats(context * head)
else:
    att_norm, ffn_norm, final_norm = each(lambda: floats(dim)), each(lambda: floats(dim)), floats(dim)
    embed = matrix(vocab, dim)
    wq, wk, wv, wo = each(square), each(narrow), each(narrow), each(square)
    w1, w2, w3 = each(lambda: matrix(ffn, dim)), each(lambda: matrix(dim, ffn)), each(lambda: matrix(ffn, dim))
output = embed if shared else matrix(vocab, dim)
assert at == len(data), "%d bytes are left" % (len(data) - at)

dot = lambda a, b: sum(map(operator.mul, a, b))
times = lambda w, x: [dot(row, x) for row in w]


def norm(x, gain):
    scale = 1 / math.sqrt(dot(x, x) / dim + 1e-5)
    return [g * scale * v for g, v in zip(gain, x)]


def turned(x, position):
    out = []
    for i in range(0, len(x), 2):
        angle = position / 10000 ** (i % head / head)
        c, s = math.cos(angle), math.sin(angle)
        out += [x[i] * c - x[i + 1] * s, x[i] * s + x[i + 1] * c]
    return out


def softmax(x):
    e = [math.exp(v - max(x)) for v in x]
    return [v / sum(e) for v in e]


if len(sys.argv) > 4:
    pieces, raw, at, out = [], open(sys.argv[4], "rb").read(), 4, b""
    while at < len(raw):
        n = struct.unpack_from("<i", raw, at + 4)[0]
        pieces.append(raw[at + 8:at + 8 + n])
        at += 8 + n
    assert len(pieces) == vocab and max(map(len, pieces)) == struct.unpack_from("<i", raw)[0]
    for before, i in zip(ids, ids[1:]):
        piece = pieces[i][1:] if before == 1 and pieces[i][:1] == b" " else pieces[i]
        out += bytes([int(piece[3:5], 16)]) if piece[:3] == b"<0x" and piece[5:] == b">" else piece
    sys.stdout.buffer.write(out)
    sys.exit()

keys, values, loss = each(list), each(list), 0.0
for position in range(count):
    x = list(embed[ids[position]])
    for l in range(layers):
        y = norm(x, att_norm[l])
        q = turned(times(wq[l], y), position)
        keys[l].append(turned(times(wk[l], y), position))
        values[l].append(times(wv[l], y))
        z = []
        for h in range(heads):
            g = h * kv // heads * head
            p = softmax([dot(q[h * head:(h + 1) * head], k[g:g + head]) / math.sqrt(head) for k in keys[l]])
            z += [dot(p, [v[g + i] for v in values[l]]) for i in range(head)]
        x = list(map(operator.add, x, times(wo[l], z)))
        y = norm(x, ffn_norm[l])
        y = [a / (1 + math.exp(-a)) * b for a, b in zip(times(w1[l], y), times(w3[l], y))]
        x = list(map(operator.add, x, times(w2[l], y)))
    loss -= math.log(softmax(times(output, norm(x, final_norm)))[ids[position + 1]]) / count
print("%.9f" % loss)
