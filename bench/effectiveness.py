#!/usr/bin/env python3
"""effectiveness.py - what a start is worth: methods x students x budgets x seeds, with equal data and tuned rates.

    make -C bench effectiveness             all of it, for many hours; what is measured already is not done again
    make -C bench effectiveness QUICK=1     one student, a few methods, the short budgets, in under ten minutes
    make -C bench effectiveness ARGS="--students b3 --methods lemon,modegpt --budgets 25,50 --distill 1"
    python3 bench/effectiveness.py --table  only draws: Markdown to standard output, one SVG for each student

A run is: a student made by a method (lemon fuse), trained for a budget of steps of 2,048 tokens (lemon train: AdamW,
cosine from its rate to a tenth), and its loss on text that nobody saw.  Each budget is a run of its own, with its own
schedule.  Rates are tuned on seed 1, for each method, budget and objective alike: from the best rate of the budget before
(first: the middle of the grid) the neighbours in the grid are tried until both are worse.  A seed decides the text (its
documents come in another order, or from another seed of the story generator), what of it is calibrated on, the order of
the windows and all random numbers of a method.

Everything is charged: flops are those that the library counts for calibration, sampling, solving and learning (fuse) and
for forward, backward and the teacher's passes (train).  Calibration uses the beginning of the training text: no method
gets text that others do not.

Rows are appended to results/effectiveness-STUDENT.csv as they come.  To measure a method anew, delete its rows.
EFFECTIVENESS_PREFIX is put before each command (nice -n 19, for example).
"""
import argparse
import csv
import json
import math
import os
import random
import shlex
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
WORK = os.path.join(HERE, "build", "effectiveness")
RESULTS = os.path.join(HERE, "results")
DATA = os.environ.get("LEMON_DATA", os.path.join(ROOT, "..", "shared", "data"))
TOOL = os.path.join(ROOT, "examples", "lemon")
STORIES = os.path.join(ROOT, "examples", "stories")

TOKENS_A_STEP, CALIBRATION = 2048, 32768
RATES = [2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2]
BUDGETS = [25, 50, 200, 800, 3200]
BETWEEN = [12, 100, 400, 1600]              # lemon's alone: where its curve comes down to others' ends

TEACHERS = {                                # path, further arguments, whose text
    "a": (os.path.join(ROOT, "examples", "data", "teacher.lemon"), [], "stories"),
    "b": (os.path.join(DATA, "stories260K.bin"), ["--tokenizer", os.path.join(DATA, "tok512.bin")], "tinystories"),
    "c": (os.path.join(HERE, "data", "teacher.lemon"), [], "stories"),   # make -C bench teacher
}
STUDENTS = {                                # title; dim, layers, heads, kv heads, head_dim, ffn
    "b3": ("a third of stories260K", 48, 3, 6, 3, 8, 112),
    "a4": ("a quarter of the shipped teacher", 72, 4, 4, 2, 16, 208),
    "a8": ("an eighth of the shipped teacher", 48, 3, 4, 2, 16, 176),
    "c4": ("a quarter of the 10 M teacher", 176, 6, 5, 5, 32, 544),
    "c8": ("an eighth of the 10 M teacher", 128, 5, 4, 4, 32, 448),
    "b-width": ("stories260K, width only", 32, 5, 4, 2, 8, 88),
    "b-depth": ("stories260K, depth only", 64, 3, 8, 4, 8, 172),
    "b-kv": ("stories260K, fewer key-value heads only", 64, 5, 8, 2, 8, 172),
    "b-head": ("stories260K, narrower heads only", 64, 5, 8, 4, 4, 172),
    "b-ffn": ("stories260K, half the width with all its neurons", 32, 5, 4, 2, 8, 172),
    "c-gqa": ("the 10 M teacher, multi-head to grouped-query attention only", 320, 8, 10, 5, 32, 896),
}
METHODS = {                                 # arguments of lemon fuse
    "random": ["--method", "random"],
    "drop": ["--method", "drop"],
    "select": ["--method", "select"],
    "subclone": ["--method", "subclone"],
    "ligo": ["--method", "ligo"],
    "slicegpt": ["--method", "slicegpt"],
    "modegpt": ["--method", "modegpt"],
    "paper": ["--method", "lemon", "--no-solve", "--learn", "100"],
    "lemon": ["--method", "lemon"],
}
VARIANTS = {                                # ablations, named by what differs; run where they are asked for
    "paper-25": ["--method", "lemon", "--no-solve", "--learn", "25"],
    "paper-400": ["--method", "lemon", "--no-solve", "--learn", "400"],
    "lemon-no-correction": ["--no-correction"],
    "lemon-solved": ["--learn", "0"],
    "lemon-learn-460": ["--learn", "460"],
    "lemon-learn-1840": ["--learn", "1840"],
    "subclone-learn": ["--method", "subclone", "--tokens", "65536", "--learn", "920"],
    "slicegpt-learn": ["--method", "slicegpt", "--tokens", "65536", "--learn", "920"],
    "modegpt-learn": ["--method", "modegpt", "--tokens", "65536", "--learn", "920"],
    "modegpt-learn-460": ["--method", "modegpt", "--learn", "460"],
    "lemon-field-2": ["--field-layers", "2"],
    "lemon-field-3": ["--field-layers", "3"],
    "lemon-dims-1": ["--field-dims", "1"],
    "lemon-dims-4": ["--field-dims", "4"],
    "lemon-dims-16": ["--field-dims", "16"],
    "lemon-tokens-1k": ["--tokens", "1024"],
    "lemon-tokens-2k": ["--tokens", "2048"],
    "lemon-tokens-4k": ["--tokens", "4096"],
    "lemon-tokens-8k": ["--tokens", "8192"],
    "lemon-tokens-16k": ["--tokens", "16384"],
    "lemon-tokens-32k": ["--tokens", "32768"],
    "lemon-tokens-128k": ["--tokens", "131072"],
    "lemon-tokens-256k": ["--tokens", "262144"],
    "lemon-sampled": [],                    # no text is given: the teacher writes it
    "lemon-moments-bf16": [],
}
TRAINED = {"lemon-moments-bf16": ["--moments", "bf16"]}     # of lemon train
FIELDS = ["student", "method", "distill", "budget", "rate", "seed", "start_loss", "loss", "calibration_tokens",
          "fuse_flops", "train_flops", "fuse_seconds", "train_seconds"]


# ---- commands -------------------------------------------------------------------------------------------------------

def run(command, slice_seconds=0):
    """(The JSON of the last line of a command's output, whether it came to its end): an end after slice_seconds is none."""
    prefix = shlex.split(os.environ.get("EFFECTIVENESS_PREFIX", ""))
    if slice_seconds:
        prefix += ["timeout", "-s", "INT", str(slice_seconds)]
    done = subprocess.run(prefix + command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout.strip().splitlines()[-1]), True
    if done.returncode == 4:                # diverged
        return {"eval_loss": math.inf}, True
    if slice_seconds and done.returncode in (3, 124):
        return {}, False
    sys.exit("effectiveness: %s\n%s" % (shlex.join(command), done.stderr))


def common(teacher):
    return TEACHERS[teacher][1] + ["--json", "--quiet"]


def documents(path):
    with open(path, encoding="utf-8") as f:
        return f.read().split("<|endoftext|>\n")


def text(teacher, seed, steps):
    """The training text of a seed, long enough to go through it once where the source is endless."""
    endless = TEACHERS[teacher][2] == "stories"
    count = max(2000, 10 * steps)
    path = os.path.join(WORK, "stories-%d-%d.txt" % (seed, count) if endless else "tinystories-%d.txt" % seed)
    if os.path.exists(path):
        return path
    if endless:
        out = subprocess.run([STORIES, "--seed", str(100 + seed), "--count", str(count)], stdout=subprocess.PIPE,
                             check=True).stdout.decode()
    else:
        parts = documents(os.path.join(DATA, "tinystories_train.txt"))
        random.Random(seed).shuffle(parts)
        out = "\n<|endoftext|>\n".join(p.strip() for p in parts)
    with open(path + ".new", "w", encoding="utf-8") as f:
        f.write(out)
    os.rename(path + ".new", path)
    return path


def held_out(teacher):
    if TEACHERS[teacher][2] == "tinystories":
        return os.path.join(DATA, "tinystories_valid.txt")
    path = os.path.join(WORK, "stories-valid.txt")
    if not os.path.exists(path):
        with open(path, "w") as f:
            subprocess.run([STORIES, "--seed", "3", "--count", "150"], stdout=f, check=True)
    return path


def loss_of(teacher, model):
    return run([TOOL, "eval", model, "--data", held_out(teacher)] + common(teacher))[0]["loss"]


def shape(student):
    names = ["--dim", "--layers", "--heads", "--kv-heads", "--head-dim", "--ffn"]
    return [str(x) for pair in zip(names, STUDENTS[student][1:]) for x in pair]


def start(student, method, seed, threads):
    """A student before training, and what it cost; made once."""
    teacher = student[0]
    path = os.path.join(WORK, "%s-%s-%d.lemon" % (student, method, seed))
    if os.path.exists(path + ".json") and os.path.getmtime(path) > os.path.getmtime(TOOL):
        with open(path + ".json") as f:
            return path, json.load(f)
    arguments = METHODS.get(method) or VARIANTS[method]
    if method != "lemon-sampled" and method != "random":
        arguments = arguments + ["--data", text(teacher, seed, 0)]
    made, _ = run([TOOL, "fuse", TEACHERS[teacher][0], path] + shape(student) + arguments +
                  ["--seed", str(seed), "--threads", threads] + common(teacher))
    made["loss"] = loss_of(teacher, path)
    with open(path + ".json", "w") as f:
        json.dump(made, f)
    return path, made


def train_command(student, method, begun, out, distill, budget, rate, seed, threads):
    teacher = student[0]
    command = [TOOL, "train", begun, out, "--data", text(teacher, seed, budget), "--steps", str(budget), "--batch", "8",
               "--seq", "256", "--lr", repr(rate), "--seed", str(seed), "--threads", threads] + TRAINED.get(method, []) + \
        common(teacher)
    return command + (["--teacher", TEACHERS[teacher][0], "--distill", "1"] if distill else [])


def train(student, method, begun, distill, budget, rate, seed, threads, step_flops={}):
    out = os.path.join(WORK, "%s-%d.lemon" % (student, os.getpid()))
    if os.path.exists(out + ".resume"):
        os.remove(out + ".resume")
    if (student, distill) not in step_flops:
        one, _ = run(train_command(student, method, begun, out, distill, 1, 1e-4, seed, threads))
        step_flops[student, distill] = one["flops"]
    command = train_command(student, method, begun, out, distill, budget, rate, seed, threads)
    result, whole, began = {}, False, time.time()
    while not whole:                        # what was interrupted goes on where it stood
        result, whole = run(command + (["--resume"] if os.path.exists(out + ".resume") else []), slice_seconds=100)
    if result["eval_loss"] != math.inf:
        result["eval_loss"] = loss_of(student[0], out)
    result.update(flops=budget * step_flops[student, distill], seconds=time.time() - began)
    for path in (out, out + ".resume"):
        if os.path.exists(path):
            os.remove(path)
    return result


# ---- the comparison -------------------------------------------------------------------------------------------------

def csv_path(student):
    return os.path.join(RESULTS, "effectiveness-%s.csv" % student)


def load(student):
    rows = {}
    if os.path.exists(csv_path(student)):
        with open(csv_path(student), newline="") as f:
            for row in csv.DictReader(f):
                row = {k: v if k in ("student", "method") else float(v) for k, v in row.items()}
                rows[key_of(row)] = row
    return rows


def key_of(row):
    return (row["method"], int(row["distill"]), int(row["budget"]), float(row["rate"]), int(row["seed"]))


class Comparison:
    def __init__(self, student, threads):
        self.student, self.threads, self.rows = student, threads, load(student)

    def loss(self, method, distill, budget, rate, seed):
        key = (method, distill, budget, rate, seed)
        if key not in self.rows:
            path, made = start(self.student, method, seed, self.threads)
            result = train(self.student, method, path, distill, budget, rate, seed, self.threads)
            self.append({"student": self.student, "method": method, "distill": distill, "budget": budget, "rate": rate,
                         "seed": seed, "start_loss": made["loss"], "loss": result["eval_loss"],
                         "calibration_tokens": made["calibration_tokens"], "fuse_flops": made["flops"],
                         "train_flops": result["flops"], "fuse_seconds": round(made["seconds"], 2),
                         "train_seconds": round(result["seconds"], 2)})
        return self.rows[key]["loss"]

    def append(self, row):
        path = csv_path(self.student)
        new = not os.path.exists(path)
        with open(path, "a", newline="") as f:
            writer = csv.DictWriter(f, FIELDS, lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
        self.rows[key_of(row)] = row
        print("%s %-12s distill %d, %4d steps, rate %-6g seed %d: %.4f" %
              (self.student, row["method"], row["distill"], row["budget"], row["rate"], row["seed"], row["loss"]),
              flush=True)

    def tune(self, method, distill, budget, at):
        """The place in the grid of the best rate on seed 1, by walking downhill from `at`."""
        def loss(i):
            return self.loss(method, distill, budget, RATES[i], 1)
        while True:
            near = [i for i in (at - 1, at + 1) if 0 <= i < len(RATES)]
            best = min(near, key=loss)
            if not loss(best) < loss(at):
                return at
            at = best

    def method(self, method, distill, budgets, seeds):
        at = RATES.index(4e-3)
        for budget in sorted(budgets):
            at = self.tune(method, distill, budget, at)
            for seed in range(2, seeds + 1):
                self.loss(method, distill, budget, RATES[at], seed)


def compare(options):
    os.makedirs(WORK, exist_ok=True)
    os.makedirs(RESULTS, exist_ok=True)
    for most in options.budgets:            # the short budgets of all students first
        for student in options.students:
            if not os.path.exists(TEACHERS[student[0]][0]):
                print("effectiveness: %s is not there: %s is left out" % (TEACHERS[student[0]][0], student))
                continue
            comparison = Comparison(student, options.threads)
            for distill in options.distill:
                for method in options.methods:
                    between = BETWEEN if method == "lemon" and options.between else []
                    comparison.method(method, distill, [b for b in options.budgets + between if b <= most],
                                      options.seeds)


# ---- what came of it ------------------------------------------------------------------------------------------------

def curves(student):
    """{(method, distill): {budget: {"losses", "start", "flops"}}}, at the best rate of seed 1."""
    rows, out = load(student), {}
    for row in rows.values():
        if row["seed"] != 1:
            continue
        point = out.setdefault((row["method"], int(row["distill"])), {}).setdefault(int(row["budget"]), {})
        if "best" not in point or row["loss"] < point["best"]["loss"]:
            point["best"] = row
    for (method, distill), points in out.items():
        for budget, point in points.items():
            same = [r for r in rows.values() if (r["method"], int(r["distill"]), int(r["budget"]), r["rate"]) ==
                    (method, distill, budget, point["best"]["rate"])]
            point["losses"] = [r["loss"] for r in same]
            point["start"] = mean([r["start_loss"] for r in same])
            point["flops"] = mean([r["fuse_flops"] + r["train_flops"] for r in same])
            point["fuse_flops"] = mean([r["fuse_flops"] for r in same])
            point["calibration_tokens"] = same[0]["calibration_tokens"]
    return out


def mean(values):
    return sum(values) / len(values)


def spread(values):
    m = mean(values)
    return math.sqrt(sum((v - m) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 0.0


def reach(points, loss, what):
    """How much of `what` a curve needs to come down to `loss`, on straight lines over log steps; None: more than it has."""
    def at(budget):
        return (0.0 if budget == 0 else budget) if what == "steps" else points[budget]["flops"] if budget else \
            points[min(points)]["fuse_flops"]
    last, last_loss = 0, points[min(points)]["start"]
    if last_loss <= loss:
        return at(0)
    for budget in sorted(points):
        now = mean(points[budget]["losses"])
        if now <= loss:
            part = (last_loss - loss) / (last_loss - now)
            if last == 0:
                return at(0) + part * (at(budget) - at(0))
            return at(last) * (at(budget) / at(last)) ** part
        last, last_loss = budget, now
    return None


def cell(point):
    losses = point["losses"]
    return "%.3f ± %.3f" % (mean(losses), spread(losses)) if len(losses) > 1 else "%.3f" % losses[0]


def table(student, distill, out):
    all_points = {m: p for (m, d), p in curves(student).items() if d == distill}
    shown = [m for m in METHODS if m in all_points]
    if len(shown) < 2:
        return
    budgets = sorted({b for m in shown for b in all_points[m]} & set(BUDGETS))
    out.append("**%s**, %s" % (STUDENTS[student][0][0].upper() + STUDENTS[student][0][1:],
                               "trained on the teacher's logits" if distill else "trained on text alone"))
    out.append("")
    out.append("| start | before training |" + "".join(" %d steps |" % b for b in budgets) + " fusion, GFLOP |")
    out.append("|---|---|" + "---|" * (len(budgets) + 1))
    for m in shown:
        points = all_points[m]
        first = points[min(points)]
        out.append("| %s | %.3f |" % (m, first["start"]) +
                   "".join(" %s |" % (cell(points[b]) if b in points else "") for b in budgets) +
                   " %.1f |" % (first["fuse_flops"] / 1e9))
    if "lemon" in all_points:
        out.append("")
        out.append("What lemon needs to come down to where each of the others ends, as parts of what they took "
                   "(steps; all operations):")
        out.append("")
        out.append("| to reach |" + "".join(" %d steps |" % b for b in budgets))
        out.append("|---|" + "---|" * len(budgets))
        for m in shown:
            if m != "lemon":
                out.append("| %s |" % m + "".join(" %s |" % parts(all_points, m, b) for b in budgets))
    out.append("")


def learned(out):
    """lemon beside other starts that learn as it does: the same text, as many steps."""
    rows = []
    for student in STUDENTS:
        all_points = curves(student)
        for distill in (0, 1):
            for m in ("lemon", "modegpt-learn", "slicegpt-learn", "subclone-learn"):
                points = all_points.get((m, distill))
                if points and ("modegpt-learn", distill) in all_points:
                    first = points[min(points)]
                    rows.append((STUDENTS[student][0], "logits" if distill else "text", m.replace("-learn", ", then learned"), first["start"],
                                 {b: cell(points[b]) for b in points}, first["fuse_flops"] / 1e9))
    budgets = [b for b in BUDGETS if any(b in r[4] for r in rows if "learned" in r[2])]
    if not rows:
        return
    out += ["**The same learning on other starts**, on the text and for the steps that lemon takes", "",
            "| student | trained on | start | before training |" + "".join(" %d steps |" % b for b in budgets) + " fusion, GFLOP |",
            "|---|---|---|---|" + "---|" * (len(budgets) + 1)]
    out += ["| %s | %s | %s | %.3f |" % r[:4] + "".join(" %s |" % r[4].get(b, "") for b in budgets) + " %.1f |" % r[5] for r in rows]
    out.append("")


def compared(wanted):
    """(student, distill, {method: points}) of all that was measured, or of what is wanted."""
    for student in STUDENTS:
        for distill in (0, 1):
            if not wanted or (student, distill) in wanted:
                yield student, distill, {m: p for (m, d), p in curves(student).items() if d == distill}


def calibrations(all_points):
    """lemon with other lengths of calibration text, and as it is."""
    return [m for m in all_points if m == "lemon" or m.startswith("lemon-tokens-")]


def thrifty(wanted, out):
    """The operations that lemon needs where its calibration text suits the budget: what a fusion costs goes with that text."""
    for student, distill, all_points in compared(wanted):
        some = calibrations(all_points)
        if len(some) < 3:
            continue
        others = [m for m in METHODS if m in all_points and m != "lemon"]
        budgets = [b for b in BUDGETS if any(b in all_points[m] for m in some) and any(b in all_points[m] for m in others)]
        out += ["**With calibration text that suits the budget**, all operations that lemon needs to come down to where each of the "
                "others ends, as a part of theirs, and its calibration tokens: %s, trained on %s" %
                (STUDENTS[student][0], "the teacher's logits" if distill else "text alone"), "",
                "| to reach |" + "".join(" %d steps |" % b for b in budgets), "|---|" + "---|" * len(budgets)]
        out += ["| %s |" % m + "".join(" %s |" % least(all_points, some, m, b) for b in budgets) for m in others]
        out.append("")


def fewest(all_points, some, loss):
    """(The operations with which the thriftiest of some comes down to a loss, its calibration tokens), or None."""
    found = [(reach(all_points[m], loss, "flops"), all_points[m][min(all_points[m])]["calibration_tokens"]) for m in some]
    return min((f for f in found if f[0]), default=None)


def least(all_points, some, method, budget):
    """A cell of that table."""
    if budget not in all_points[method]:
        return ""
    point = all_points[method][budget]
    found = fewest(all_points, some, mean(point["losses"]))
    return "%.2f, %d" % (found[0] / point["flops"], found[1]) if found else "not reached"


CHANGES = {                                 # what the table of ablations says of each
    "lemon": "as it is", "lemon-moments-bf16": "trained on with AdamW's moments in bf16", "lemon-sampled": "on text that the teacher samples",
    "paper": "the paper's recipe, learned for 100 steps", "paper-25": "for 25 steps", "paper-400": "for 400 steps",
}


def ablations(wanted, out):
    """lemon with one thing changed at a time."""
    for student, distill, all_points in compared(wanted):
        names = [m for m in VARIANTS if m in all_points and m.split("-")[0] in ("lemon", "paper")]
        if len(names) < 3:
            continue
        budgets = [b for b in BUDGETS if sum(b in all_points[m] for m in names) > len(names) / 2]
        out += ["**What each part is worth**: %s, trained on %s" % (STUDENTS[student][0], "the teacher's logits" if distill else "text alone"),
                "", "| lemon | before training |" + "".join(" %d steps |" % b for b in budgets) + " fusion, GFLOP |",
                "|---|---|" + "---|" * (len(budgets) + 1)]
        for m in ["lemon"] + [m for m in names if m.startswith("lemon")] + [m for m in ("paper-25", "paper", "paper-400") if m in all_points]:
            points = all_points[m]
            first = points[min(points)]
            out.append("| %s | %.3f |" % (CHANGES.get(m) or "`%s`" % " ".join(VARIANTS[m]), first["start"]) +
                       "".join(" %s |" % (cell(points[b]) if b in points else "") for b in budgets) +
                       " %.1f |" % (first["fuse_flops"] / 1e9))
        out.append("")


def counted(out):
    """In how many of all comparisons lemon does better: students, kinds of training and other starts taken together."""
    asked = {"lemon is there before training": {}, "lemon has needed fewer operations then": {},
             "so it has where its calibration text suits the budget": {}, "lemon ends lower after as many steps": {}}
    for student in STUDENTS:
        curves_of = curves(student)
        for (method, distill), points in curves_of.items():
            all_points = {m: p for (m, d), p in curves_of.items() if d == distill}
            lemon, some = all_points.get("lemon"), calibrations(all_points)
            for budget in sorted(set(points) & set(BUDGETS)):
                if method not in METHODS or method == "lemon" or lemon is None:
                    continue
                loss, needed = mean(points[budget]["losses"]), points[budget]["flops"]
                flops = reach(lemon, loss, "flops")
                answers = [reach(lemon, loss, "steps") == 0,
                           flops < needed if flops else False if max(lemon) >= budget else None,
                           (fewest(all_points, some, loss) or (needed,))[0] < needed if len(some) > 2 else None,
                           mean(lemon[budget]["losses"]) < loss if budget in lemon else None]
                for by_budget, answer in zip(asked.values(), answers):
                    if answer is not None:
                        by_budget.setdefault(budget, []).append(answer)
    budgets = sorted({b for by_budget in asked.values() for b in by_budget})
    if not budgets:
        return
    out += ["**All comparisons together**, of lemon with where another start ends: in how many of them", "",
            "| after |" + "".join(" %d steps |" % b for b in budgets), "|---|" + "---|" * len(budgets)]
    out += ["| %s |" % what + "".join(" %d of %d |" % (sum(a[b]), len(a[b])) if b in a else " |" for b in budgets) for what, a in asked.items()]
    out.append("")


def parts(all_points, method, budget):
    if budget not in all_points[method]:
        return ""
    point, lemon = all_points[method][budget], all_points["lemon"]
    loss = mean(point["losses"])
    steps, flops = reach(lemon, loss, "steps"), reach(lemon, loss, "flops")
    if steps is None:
        return "not reached" if max(lemon) >= budget else ""
    return "%.2f; %.2f" % (steps / budget, flops / point["flops"])


COLORS = {"random": "#888888", "drop": "#b5a642", "select": "#8c564b", "subclone": "#1f77b4", "ligo": "#9467bd",
          "slicegpt": "#17becf", "modegpt": "#2ca02c", "paper": "#ff7f0e", "lemon": "#d62728"}


def panel(all_points, distill, what, left, top, width, height, out):
    """Loss over log steps or operations, with the spread over seeds as bars."""
    shown = {m: p for (m, d), p in all_points.items() if d == distill and m in METHODS}
    if not shown:
        return
    def x_of(b, p):
        return math.log(b * TOKENS_A_STEP if what == "tokens" else p["flops"])
    xs = [x_of(b, p) for points in shown.values() for b, p in points.items()]
    ys = [mean(p["losses"]) for points in shown.values() for p in points.values() if mean(p["losses"]) < 1e3]
    x0, x1, y0, y1 = min(xs), max(xs) + 1e-9, min(ys), max(ys) + 1e-9
    def px(x):
        return left + (x - x0) / (x1 - x0) * width
    def py(y):
        return top + height - (y - y0) / (y1 - y0) * height
    out.append('<rect x="%g" y="%g" width="%g" height="%g" fill="none" stroke="#999"/>' % (left, top, width, height))
    out.append('<text x="%g" y="%g">loss by %s, %s</text>' %
               (left, top - 6, what, "on the teacher's logits" if distill else "on text alone"))
    for i in range(5):
        y = y0 + (y1 - y0) * i / 4
        out.append('<text x="%g" y="%g" text-anchor="end">%.2f</text>' % (left - 4, py(y) + 4, y))
        x = x0 + (x1 - x0) * i / 4
        out.append('<text x="%g" y="%g" text-anchor="middle">%.1e</text>' % (px(x), top + height + 14, math.exp(x)))
    for m, points in shown.items():
        places = [(px(x_of(b, points[b])), points[b]["losses"]) for b in sorted(points)
                  if mean(points[b]["losses"]) < 1e3]
        out.append('<polyline fill="none" stroke="%s" stroke-width="%g" points="%s"/>' %
                   (COLORS[m], 2.5 if m == "lemon" else 1.3, " ".join("%.1f,%.1f" % (x, py(mean(l))) for x, l in places)))
        for x, losses in places:
            out.append('<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="%s" stroke-width="3"/>' %
                       (x, x, py(mean(losses) - spread(losses)), py(mean(losses) + spread(losses)), COLORS[m]))


def draw(student):
    all_points, out = curves(student), []
    for row, distill in enumerate((0, 1)):
        panel(all_points, distill, "tokens", 60, 50 + row * 330, 380, 270, out)
        panel(all_points, distill, "operations", 520, 50 + row * 330, 380, 270, out)
    for i, m in enumerate(METHODS):
        out.append('<text x="920" y="%d" fill="%s">%s</text>' % (60 + 18 * i, COLORS[m], m))
    with open(os.path.join(RESULTS, "effectiveness-%s.svg" % student), "w") as f:
        f.write('<svg xmlns="http://www.w3.org/2000/svg" width="1010" height="700" font-family="sans-serif" '
                'font-size="12"><rect width="100%%" height="100%%" fill="white"/>'
                '<text x="60" y="20" font-size="15">%s</text>\n%s\n</svg>\n' % (STUDENTS[student][0], "\n".join(out)))


# Of the tables, those that the README shows: where all methods were measured.  All of them stand in results/effectiveness.md.
SHOWN = (("b3", 0), ("a4", 1))


def tables(wanted):
    out = []
    for student in STUDENTS:
        for distill in (0, 1):
            if os.path.exists(csv_path(student)) and (wanted is None or (student, distill) in wanted):
                table(student, distill, out)
    learned(out)
    thrifty(wanted, out)
    ablations(wanted and wanted[:1], out)
    counted(out)
    return out


def report(readme, part):
    for student in STUDENTS:
        if os.path.exists(csv_path(student)):
            draw(student)
    if not readme:
        print("\n".join(tables(SHOWN if part == "readme" else None)))
        return
    with open(os.path.join(RESULTS, "effectiveness.md"), "w", encoding="utf-8") as f:
        f.write("\n".join(tables(None)))
    subprocess.run(["tests/into_readme.sh", "effectiveness"], cwd=ROOT, input="\n".join(tables(SHOWN)), check=True, encoding="utf-8")


def main():
    def names(known):
        def parse(value):
            chosen = value.split(",")
            for name in chosen:
                if name not in known:
                    raise argparse.ArgumentTypeError("%s is none of %s" % (name, ", ".join(known)))
            return chosen
        return parse

    def numbers(value):
        return [int(v) for v in value.split(",")]
    parser = argparse.ArgumentParser(description="methods x students x budgets x seeds")
    parser.add_argument("--students", type=names(STUDENTS), default=list(STUDENTS))
    parser.add_argument("--methods", type=names(list(METHODS) + list(VARIANTS)), default=list(METHODS))
    parser.add_argument("--budgets", type=numbers, default=BUDGETS)
    parser.add_argument("--distill", type=numbers, default=[0, 1])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", default="0")
    parser.add_argument("--between", type=int, default=1, help="0: lemon gets no budgets of its own")
    parser.add_argument("--quick", action="store_true", help="one student, three methods, two budgets, one seed")
    parser.add_argument("--table", nargs="?", const="all", choices=("all", "readme"),
                        help="run nothing, print what was measured, or what the README shows of it")
    parser.add_argument("--readme", action="store_true", help="run nothing, put it into README.md and results/effectiveness.md")
    options = parser.parse_args()
    if options.quick:
        global WORK, RESULTS
        RESULTS = WORK = os.path.join(HERE, "build", "effectiveness-quick")
        options.students, options.budgets, options.distill, options.seeds = ["a8"], [25, 50], [0, 1], 1
        options.between = 0
        options.methods = ["random", "subclone", "modegpt", "lemon"]
    if not options.table and not options.readme:
        compare(options)
    report(options.readme, options.table)


if __name__ == "__main__":
    main()
