# judges_install.sh: what the judges need, into build/judges; what cannot be had is missing then.  Sourced, not run; sets
# $judges, $modules, $libraries and $llama.

# apt_install PACKAGE: from Debian, where that can be done.
apt_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null || return
    { apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -o DPkg::Lock::Timeout=120 -y -qq --no-install-recommends "$1"; } \
        < /dev/null > "$judges/apt.log" 2>&1 || echo "# $1 was not installed"
}

judges=$PWD/build/judges
modules=$judges/node_modules
mkdir -p "$judges"
packages="node-llama-cpp@3.22.1 @huggingface/gguf@0.4.6 @huggingface/hub@2.17.5 @huggingface/tokenizers@0.2.0
    @anush008/tokenizers@0.6.0 gpt-tokenizer@4.0.0 llama-tokenizer-js@1.2.2 llama3-tokenizer-js@1.2.0"
if [ ! -d "$modules/@anush008/tokenizers" ] && command -v npm > /dev/null; then
    echo '{"private": true}' > "$judges/package.json"
    # shellcheck disable=SC2086
    (cd "$judges" && npm install --ignore-scripts --no-audit --no-fund $packages) > "$judges/npm.log" 2>&1 ||
        echo "# npm install failed: $(tail -n 1 "$judges/npm.log")"
fi
libraries=$modules/@node-llama-cpp/linux-x64/bins/linux-x64
llama=$judges/judge_llama
if [ ! -d "$judges/llama.cpp" ] && [ -d "$libraries" ]; then        # the headers come with the source of the same version
    git clone -q -n "$modules/node-llama-cpp/llama/gitRelease.bundle" "$judges/llama.cpp" &&
        git -C "$judges/llama.cpp" checkout -q HEAD -- include ggml/include models
fi
if [ ! -x "$llama" ] && [ -d "$judges/llama.cpp" ]; then
    ${CC:-cc} -O1 -I"$judges/llama.cpp/include" -I"$judges/llama.cpp/ggml/include" judge_llama.c -o "$llama" -L"$libraries" \
        -l:libllama.v0.5.0.so -l:libggml.v0.5.0.so -l:libggml-base.so -lm -Wl,-rpath,"$libraries" 2> "$judges/cc.log" ||
        cat "$judges/cc.log"
fi
