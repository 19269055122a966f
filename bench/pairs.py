#!/usr/bin/env python3
"""pairs.py - small models judged by more than loss: which of two endings do they find likelier?

    make -C bench pairs             what is measured already is not done again; ARGS="--students a4 --budgets 0,50"
    python3 bench/pairs.py --table  only the table

The story generator makes pairs of endings (stories --pairs): number after a count, pronoun after a name, what a material does
when it falls, whose thing it was.  Students are those of effectiveness.py, made and trained as there, on the teacher's logits,
at the rates that were found best there; a right ending is one of which the model thinks more by byte.  Rows are appended to
results/pairs.csv as they come.
"""
import argparse
import csv
import json
import os
import subprocess
import sys

import effectiveness as e

METHODS = ["random", "select", "subclone", "ligo", "slicegpt", "modegpt", "paper", "lemon"]
KINDS = {"number": "number", "pronoun": "pronoun", "falls": "what falls", "whose": "whose"}
EACH = 250                                  # questions of a kind
PATH = os.path.join(e.RESULTS, "pairs.csv")
FIELDS = ["student", "method", "budget", "seed"] + list(KINDS)


def questions():
    """A file for each kind."""
    paths = {kind: os.path.join(e.WORK, "pairs-%s.jsonl" % kind) for kind in KINDS}
    if not all(os.path.exists(path) for path in paths.values()):
        lines = subprocess.run([e.STORIES, "--seed", "7", "--pairs", "--count", str(EACH * len(KINDS))], check=True,
                               stdout=subprocess.PIPE, text=True).stdout.splitlines()
        for kind, path in paths.items():
            with open(path, "w", encoding="utf-8") as f:
                f.write("\n".join(line for line in lines if json.loads(line)["kind"] == kind) + "\n")
    return paths


def scores(teacher, model):
    return {kind: e.run([e.TOOL, "eval", model, "--choices", path] + e.common(teacher))[0]["accuracy_normalised"]
            for kind, path in questions().items()}


def load():
    if not os.path.exists(PATH):
        return {}
    with open(PATH, newline="", encoding="utf-8") as f:
        return {(r["student"], r["method"], int(r["budget"]), int(r["seed"])): r for r in csv.DictReader(f)}


def append(rows, key, found):
    row = dict(zip(FIELDS, key), **{kind: "%.4f" % x for kind, x in found.items()})
    new = not os.path.exists(PATH)
    with open(PATH, "a", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, FIELDS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
    rows[key] = row
    print(*row.values(), flush=True)


def measure(rows, student, method, budget, seed, threads):
    key = (student, method, budget, seed)
    if key in rows:
        return
    begun, _ = e.start(student, method, seed, threads)
    if budget == 0:
        append(rows, key, scores(student[0], begun))
        return
    known = e.curves(student).get((method, 1), {}).get(budget)
    if known is None:
        print("pairs: effectiveness.py has no rate for %s, %s, %d steps: left out" % (student, method, budget))
        return
    out = os.path.join(e.WORK, "pairs-%d.lemon" % os.getpid())
    e.run(e.train_command(student, method, begun, out, 1, budget, known["best"]["rate"], seed, threads))
    append(rows, key, scores(student[0], out))
    os.remove(out)


def table():
    """Percent of right answers, mean and deviation over seeds."""
    rows, out = load(), []
    for student in dict.fromkeys(key[0] for key in rows):
        budgets = sorted({key[2] for key in rows if key[0] == student and key[1] != "teacher"})
        out += ["**%s**, right answers in percent, before training and after steps on the teacher's logits" %
                (e.STUDENTS[student][0][0].upper() + e.STUDENTS[student][0][1:]), "",
                "| start | steps |" + "".join(" %s |" % name for name in KINDS.values()) + " all |", "|---|---:|" + "---:|" * (len(KINDS) + 1)]
        for method, budget in [("teacher", 0)] + [(m, b) for b in budgets for m in METHODS]:
            found = [row for key, row in rows.items() if key[:3] == (student, method, budget)]
            if found:
                columns = [[100 * float(row[kind]) for row in found] for kind in KINDS]
                columns.append([sum(values) / len(KINDS) for values in zip(*columns)])
                out.append("| %s | %s |" % (method, "" if method == "teacher" else budget) + "".join(
                    " %.0f ± %.0f |" % (e.mean(c), e.spread(c)) if len(c) > 1 else " %.0f |" % c[0] for c in columns))
        out.append("")
    return "\n".join(out)


def main():
    parser = argparse.ArgumentParser(description="students judged by pairs of endings")
    parser.add_argument("--students", type=lambda v: v.split(","), default=["a4"])
    parser.add_argument("--budgets", type=lambda v: [int(x) for x in v.split(",")], default=[0, 50])
    parser.add_argument("--methods", type=lambda v: v.split(","), default=METHODS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", default="0")
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args()
    if not options.table:
        os.makedirs(e.WORK, exist_ok=True)
        rows = load()
        for student in options.students:
            if student not in e.STUDENTS or e.TEACHERS[student[0]][2] != "stories":
                sys.exit("pairs: %s is no student of a teacher of stories" % student)
            if (student, "teacher", 0, 1) not in rows:
                append(rows, (student, "teacher", 0, 1), scores(student[0], e.TEACHERS[student[0]][0]))
            for budget in options.budgets:
                for method in options.methods:
                    for seed in range(1, options.seeds + 1):
                        measure(rows, student, method, budget, seed, options.threads)
        with open(PATH.replace(".csv", ".md"), "w", encoding="utf-8") as f:
            f.write(table())
    print(table(), end="")


if __name__ == "__main__":
    main()
