#!/bin/sh
# Installs llama.cpp (npm's node-llama-cpp) under build/peers and builds peer_llama with it; does nothing if that is done.
set -e
cd "$(dirname "$0")"
peers=$PWD/build/peers
[ -x build/peer_llama ] && exit 0
command -v npm > /dev/null || { echo "peers: no npm here; llama.cpp is left out"; exit 0; }
mkdir -p "$peers/include"
echo '{"private": true}' > "$peers/package.json"
(cd "$peers" && npm install --ignore-scripts --no-audit --no-fund node-llama-cpp@3.22.1) > "$peers/npm.log" 2>&1 ||
    { echo "peers: npm install failed: $(tail -n 1 "$peers/npm.log")"; exit 0; }
libraries=$peers/node_modules/@node-llama-cpp/linux-x64/bins/linux-x64
[ -d "$libraries" ] || { echo "peers: node-llama-cpp has no build for this machine"; exit 0; }
[ -d "$peers/llama.git" ] || git clone -q --bare "$peers/node_modules/node-llama-cpp/llama/gitRelease.bundle" "$peers/llama.git"
for header in include/llama.h ggml/include/ggml.h ggml/include/ggml-cpu.h ggml/include/ggml-backend.h \
    ggml/include/ggml-alloc.h ggml/include/ggml-opt.h ggml/include/gguf.h; do
    git --git-dir="$peers/llama.git" show "HEAD:$header" > "$peers/include/$(basename "$header")"
done
${CC:-cc} -O1 -I"$peers/include" peer_llama.c -o build/peer_llama -L"$libraries" -l:libllama.v0.5.0.so -l:libggml.v0.5.0.so \
    -l:libggml-base.so -lm -Wl,-rpath,"$libraries"
echo "peers: llama.cpp is installed"
