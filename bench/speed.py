"""Puts the tables that make -C bench train, generate and fuse print into README.md, all of what they print into results/.

    make -C bench train generate fuse | python3 bench/speed.py      from the repository's root
"""
import sys

BEGIN, END = "<!-- speed:begin -->\n", "<!-- speed:end -->\n"
HEADS = ("| shape |", "| to save memory |", "| work |", "| fusion apply")


def tables(text):
    """The tables that begin with one of HEADS, as they are; breakdowns have other heads."""
    blocks = ("\n".join(line for line in block.splitlines() if line.startswith("|")) for block in text.split("\n\n"))
    return [block for block in blocks if block.startswith(HEADS)]


def main():
    text = sys.stdin.read()
    found = tables(text)
    if not found:
        sys.exit("speed.py: no table in what was read, expected the output of make -C bench train, generate, fuse")
    with open("bench/results/speed.md", "w", encoding="utf-8") as f:
        f.write(text)
    with open("README.md", encoding="utf-8") as f:
        before, rest = f.read().split(BEGIN)
    after = rest.split(END)[1]
    with open("README.md", "w", encoding="utf-8") as f:
        f.write(before + BEGIN + "\n" + "\n\n".join(found) + "\n\n" + END + after)


main()
