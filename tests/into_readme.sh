#!/bin/sh
# into_readme.sh NAME: standard input becomes what stands between <!-- NAME:begin --> and <!-- NAME:end --> of the README.  The
# same is kept under bench/results by whoever calls this; test_figures.sh compares both.
readme=$(dirname "$0")/../README.md
awk -v begin="<!-- $1:begin -->" -v end="<!-- $1:end -->" '
    FILENAME == "-" { text = text $0 "\n"; next }
    $0 == begin { print; printf "\n%s\n", text; skip = 1 }
    $0 == end { skip = 0 }
    !skip { print }' - "$readme" > "$readme.new" && mv "$readme.new" "$readme"
