#!/bin/sh
# Vocabularies as other programs see them: make judges-vocab.  Needs node, npm, git, python3 and the network once; all goes
# to build/judges-vocab.  Compared are
#   llama.cpp's own test vectors (they come with the npm package node-llama-cpp), for each type of vocabulary that we know,
#   the ids of 10,000 strings, by @huggingface/tokenizers from the same tokenizer.json, by llama.cpp itself, and by three
#   packages that bring real vocabularies along.
# What may differ is known, and no more than that may: U+FEFF is white space for JavaScript alone; its Digits takes only
# ASCII ones (Hugging Face's own takes all of \p{N}, as llama.cpp does); llama.cpp and the packages know an older Unicode;
# where a vocabulary has no piece for a byte (starcoder, refact), llama.cpp does not join what stands around it.
cd "$(dirname "$0")" || exit 1
dir=build/judges-vocab
mkdir -p $dir
if [ ! -d $dir/node_modules/node-llama-cpp ]; then
    echo '{"private": true}' > $dir/package.json
    (cd $dir && npm install --ignore-scripts --no-audit --no-fund @huggingface/tokenizers node-llama-cpp gpt-tokenizer \
        llama3-tokenizer-js llama-tokenizer-js) > $dir/npm.log 2>&1 || { cat $dir/npm.log; exit 1; }
fi
models=$dir/llama.cpp/models
[ -d $models ] ||
    git clone -q -c advice.detachedHead=false $dir/node_modules/node-llama-cpp/llama/gitRelease.bundle $dir/llama.cpp || exit 1
${CC:-cc} -O2 -w vocab_ids.c -o build/vocab_ids -lm -pthread || exit 1
texts=
for f in tinystories_valid.txt tinyshakespeare.txt; do
    for d in "$LEMON_DATA" ../../shared/data; do [ -f "$d/$f" ] && texts="$texts $d/$f" && break; done
done
node vocab_strings.mjs $dir/strings.bin $texts || exit 1

failed=0
# judge NAME VOCABULARY IDS KNOWN: at most KNOWN strings may differ
judge() {
    SHOW=${SHOW:-0} node vocab_judge.mjs "$1" "$2" "${5:-$dir/strings.bin}" "$3" > $dir/judge.log 2>&1
    differ=$(sed -n 's/.* strings, \([0-9]*\) differ$/\1/p' $dir/judge.log)
    if [ -n "$differ" ] && [ "$differ" -le "$4" ]; then sed 's/^FAIL/ok  /' $dir/judge.log
    else cat $dir/judge.log; failed=1; fi
}

for name in llama-spm phi-3 gpt-2 mpt starcoder refact command-r llama-bpe qwen2 qwen35; do
    gguf=$models/ggml-vocab-$name.gguf
    json=$dir/$name.json
    python3 vocab_gguf.py $gguf $json $([ $name = llama-spm ] && echo $dir/$name.bin $dir/$name.model) || exit 1
    for vocabulary in $json $([ $name = llama-spm ] && echo $dir/$name.bin $dir/$name.model); do
        rm -f $dir/vectors.ids
        node vocab_judge.mjs vectors $gguf $dir/vectors.bin $dir/vectors.ids
        build/vocab_ids $vocabulary $dir/vectors.bin $dir/vectors.ids > /dev/null || exit 1
        judge vectors $gguf $dir/vectors.ids 0 $dir/vectors.bin
    done
    build/vocab_ids $json $dir/strings.bin $dir/$name.ids || exit 1
    if [ $name = llama-spm ]; then
        build/vocab_ids $dir/$name.model $dir/strings.bin $dir/model.ids || exit 1
        if cmp $dir/model.ids $dir/$name.ids; then echo "ok   tokenizer.model gives 10000 strings the ids of tokenizer.json"
        else echo "FAIL tokenizer.model and tokenizer.json differ"; failed=1; fi
    fi
    build/vocab_ids $json $dir/strings.bin $dir/$name.special special > /dev/null || exit 1
    case $name in starcoder | refact | command-r) known=180 ;; *) known=10 ;; esac
    judge hf $json $dir/$name.special $known
    judge llama.cpp $gguf $dir/$name.ids 5
done
python3 vocab_gguf.py $models/ggml-vocab-qwen2.gguf $dir/qwen2-nfc.json --nfc || exit 1
build/vocab_ids $dir/qwen2-nfc.json $dir/strings.bin $dir/nfc.special special || exit 1
judge hf $dir/qwen2-nfc.json $dir/nfc.special 0
judge llama llama-tokenizer-js $dir/llama-spm.ids 0
judge llama3 llama3-tokenizer-js $dir/llama-bpe.special 10
judge gpt2 gpt-tokenizer $dir/gpt-2.ids 10
exit $failed
