#!/bin/sh
# Fetches llm.c and llama2.c and builds what train and generate compare with: build/peer_llmc, build/llama2c.  FROM: where the
# two repositories lie.
cd "$(dirname "$0")" || exit 1
from=${FROM:-https://github.com/karpathy}
mkdir -p build/peers
for name in llm.c llama2.c; do
    [ -d "build/peers/$name" ] || git clone -q --depth 1 "$from/$name" "build/peers/$name" 2> build/peers/git.log ||
        { echo "peers: $name could not be fetched: $(tail -n 1 build/peers/git.log)"; continue; }
    flags="-w -Ofast -march=native -fopenmp"
    # shellcheck disable=SC2086
    case $name in
    llm.c) ${CC:-cc} $flags -I build/peers/llm.c peer_llmc.c -o build/peer_llmc -lm ;;
    *) ${CC:-cc} $flags build/peers/llama2.c/run.c -o build/llama2c -lm ;;
    esac && echo "peers: $name is installed"
done
