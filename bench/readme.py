#!/usr/bin/env python3
"""readme.py: the README's picture, its table of the default job and that of the shipped teacher, from what was measured.

    make -C bench readme     runs `make -C examples run`, puts its table and the teacher's into bench/results and README.md,
                             and draws bench/results/starts.svg
    readme.py --picture      the picture alone, from bench/results/effectiveness-b3.csv
    readme.py --teacher      the teacher's table alone
"""
import collections
import csv
import json
import math
import os
import resource
import statistics
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
STEP = 2048                                              # tokens
SHOWN = [("random", "random numbers", "#777777", 12), ("subclone", "subcloned", "#2b6cb0", 10), ("lemon", "fused", "#b35900", -20)]
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 340, 50, 40, 44, 50


def curves():
    """{start: [(tokens, mean, deviation)]}, each budget at the rate that did best on seed 1, which is left out where it is the only one."""
    runs = collections.defaultdict(lambda: collections.defaultdict(dict))
    with open(os.path.join(ROOT, "bench/results/effectiveness-b3.csv"), encoding="utf-8") as f:
        for r in csv.DictReader(f):
            if r["distill"] == "0":
                runs[r["method"], int(r["budget"])][r["rate"]][r["seed"]] = float(r["loss"])
    out = collections.defaultdict(list)
    for (method, budget), rates in sorted(runs.items()):
        best = min((by["1"], rate) for rate, by in rates.items() if "1" in by)[1]
        losses = list(rates[best].values())
        if len(losses) >= 3:
            out[method].append((budget * STEP, statistics.mean(losses), statistics.stdev(losses)))
    return out


def picture():
    lines = curves()
    values = [m for name, _, _, _ in SHOWN for _, m, _ in lines[name]]
    tokens = [t for name, _, _, _ in SHOWN for t, _, _ in lines[name]]
    low, high, first, last = math.floor(min(values)), math.ceil(max(values)), math.log(min(tokens)), math.log(max(tokens))

    def x(t):
        return LEFT + (WIDTH - LEFT - RIGHT) * (math.log(t) - first) / (last - first)

    def y(v):
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - v) / (high - low)

    out = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="13" '
           'role="img" aria-label="Loss by tokens of training, of students that start from random numbers, subcloned, and fused">'
           % (WIDTH, HEIGHT, WIDTH, HEIGHT), '<rect width="100%" height="100%" fill="#fff"/>',
           '<text x="%d" y="24" font-size="15">Students a third of their teacher: loss on other text, by tokens of training</text>' % LEFT]
    for v in range(low, high + 1):
        out.append('<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%d</text>'
                   % (LEFT, WIDTH - RIGHT, y(v), y(v), LEFT - 8, y(v) + 4, v))
    for t in sorted(set(tokens)):
        out.append('<text x="%.1f" y="%d" text-anchor="middle">%d k</text>' % (x(t), HEIGHT - BOTTOM + 20, round(t / 1000)))
    out.append('<text x="%d" y="%d" text-anchor="middle">tokens of training; each point is a run of its own, mean of three seeds</text>'
               % ((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10))
    for name, label, colour, above in SHOWN:
        c = lines[name]
        out.append('<polyline points="%s" fill="none" stroke="%s" stroke-width="2.5"/>' % (" ".join("%.1f,%.1f" % (x(t), y(m)) for t, m, _ in c), colour))
        for t, m, s in c:
            out.append('<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="%s"/><circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>'
                       % (x(t), x(t), y(m + s), y(m - s), colour, x(t), y(m), colour))
        out.append('<text x="%.1f" y="%.1f" fill="%s" font-weight="bold">%s</text>' % (x(c[1][0]) + 8, y(c[1][1]) - above, colour, label))
    out.append("</svg>\n")
    with open(os.path.join(ROOT, "bench/results/starts.svg"), "w", encoding="utf-8") as f:
        f.write("\n".join(out))


def table():
    """The rows that `make -C examples run` prints, and how long it took."""
    subprocess.run(["make", "-s", "-C", "examples", "lemon", "build/run", "build/train.txt", "build/valid.txt"], cwd=ROOT, check=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    rows = [line.split() for line in said("make", "-s", "-C", "examples", "run").split("\n")]
    rows = [r[:5] for r in rows if len(r) == 6 and r[0] in ("random", "subclone", "lemon")]
    if len(rows) != 3:
        sys.exit("readme: `make -C examples run` printed no table of three starts")
    new = ["| `make -C examples run` | start loss | end loss | tokens to random's end | calibration tokens |", "|---|---|---|---|---|"]
    took = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    put("measured", new + ["| " + " | ".join(r) + " |" for r in rows] + ["", "All of it took %.0f s of processor time." % took])


def put(name, lines):
    """Lines become bench/results/NAME.md, and what stands between the marks of that name in README.md."""
    text = "\n".join(lines) + "\n"
    with open(os.path.join(ROOT, "bench/results/%s.md" % name), "w", encoding="utf-8") as f:
        f.write(text)
    subprocess.run(["tests/into_readme.sh", name], cwd=ROOT, input=text, check=True, encoding="utf-8")


def said(*command):
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True, encoding="utf-8").stdout


def teacher():
    """What examples/data/teacher.lemon is, and its loss on the text that is held out of all training."""
    subprocess.run(["make", "-s", "-C", "examples", "lemon", "build/valid.txt"], cwd=ROOT, check=True)
    path = "examples/data/teacher.lemon"
    info = json.loads(said("examples/lemon", "info", path, "--json").splitlines()[-1])
    loss = json.loads(said("examples/lemon", "eval", path, "--data", "examples/build/valid.txt", "--json", "--quiet").splitlines()[-1])
    shown = [("parameters", info["params"]), ("width", info["d_model"]), ("layers", info["n_layers"]),
             ("heads, for keys", "%d, %d" % (info["n_heads"], info["kv_heads"])), ("FFN neurons", info["d_ffn"]), ("vocabulary", info["vocab_size"]),
             ("context", info["max_seq"]), ("type", info["dtype"]), ("MB", "%.1f" % (os.path.getsize(os.path.join(ROOT, path)) / 1e6)),
             ("loss on valid.txt", "%.4f" % loss["loss"])]
    put("teacher", ["| " + " | ".join(name for name, _ in shown) + " |", "|" + "---|" * len(shown),
                    "| " + " | ".join(str(value) for _, value in shown) + " |"])


if "--picture" not in sys.argv:
    teacher()
if not {"--picture", "--teacher"} & set(sys.argv):
    table()
if "--teacher" not in sys.argv:
    picture()
