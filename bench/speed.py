"""Puts the tables that make -C bench train, generate and fuse print into README.md, all of what they print into results/.

    make -s -C bench train generate fuse | python3 bench/speed.py "On a machine of ..."     from the repository's root
    python3 bench/speed.py --table      only prints what the README shows of bench/results/speed.md

The argument says what it was measured on, and how; it is kept with the figures.
"""
import subprocess
import sys

RESULTS = "bench/results/speed.md"
HEADS = ("| shape |", "| to save memory |", "| work |", "| fusion apply")


def shown(text):
    """The first paragraph and the tables that begin with one of HEADS, as they are; breakdowns have other heads."""
    first, *blocks = text.split("\n\n")
    tables = ("\n".join(line for line in block.splitlines() if line.startswith("|")) for block in blocks)
    return "\n\n".join([first] + [table for table in tables if table.startswith(HEADS)]) + "\n"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    if sys.argv[1] == "--table":
        with open(RESULTS, encoding="utf-8") as f:
            print(shown(f.read()), end="")
        return
    text = sys.argv[1] + "\n\n" + sys.stdin.read()
    if "\n|" not in shown(text):
        sys.exit("speed.py: no table in what was read, expected the output of make -C bench train, generate, fuse")
    with open(RESULTS, "w", encoding="utf-8") as f:
        f.write(text)
    subprocess.run(["tests/into_readme.sh", "speed"], input=shown(text), check=True, encoding="utf-8")


main()
