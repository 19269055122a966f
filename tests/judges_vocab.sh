#!/bin/sh
# Vocabularies as other programs see them.  `make judges` compares
#   llama.cpp's own test vectors (they come with node-llama-cpp's source), for each type of vocabulary that we know;
# `make judges-vocab` (STRINGS=10000) besides these
#   the ids of 10,000 strings, and the texts of those ids, by @huggingface/tokenizers from the same tokenizer.json,
#   the ids by llama.cpp itself, and by three packages that bring real vocabularies along.
# What may differ is known, and no more than that may: U+FEFF is white space for JavaScript alone; its Digits takes only
# ASCII ones (Hugging Face's own takes all of \p{N}, as llama.cpp does); llama.cpp and the packages know an older Unicode;
# where a vocabulary has no piece for a byte (starcoder, refact), llama.cpp does not join what stands around it; a blank
# behind a BOS within a text is dropped here, as llama2.c does, and by Hugging Face only at the beginning.
cd "$(dirname "$0")" || exit 1
. ./harness.sh
. ./judges_install.sh
dir=build/judges-vocab
models=$judges/llama.cpp/models
mkdir -p $dir
if [ ! -d "$models" ]; then
    skip "vocabularies: no source of llama.cpp"
    done_checking
fi
${CC:-cc} -O2 -w vocab_ids.c -o build/vocab_ids -lm -pthread || exit 1

# judge NAME VOCABULARY IDS KNOWN: at most KNOWN strings may differ
judge() {
    SHOW=${SHOW:-0} node vocab_judge.mjs "$1" "$2" "${5:-$dir/strings.bin}" "$3" > $dir/judge.log 2>&1
    said=$(sed -n 's/^ok   //p; s/^FAIL //p' $dir/judge.log)
    differ=$(echo "$said" | sed -n 's/.* strings, \([0-9]*\) differ$/\1/p')
    if [ -n "$differ" ] && [ "$differ" -le "$4" ]; then ok "$said"; else fail "${said:-$1}" "$(tail -n 3 $dir/judge.log)"; fi
}

# made NAME: a vocabulary of llama.cpp's as files that lemon.h reads, by another program
made() { python3 vocab_gguf.py "$models/ggml-vocab-$1.gguf" $dir/$1.json $([ $1 = llama-spm ] && echo $dir/$1.bin $dir/$1.model); }

for name in llama-spm phi-3 gpt-2 mpt starcoder refact command-r llama-bpe qwen2 qwen35; do
    made $name || fail "vocab_gguf.py $name"
    for vocabulary in $dir/$name.json $([ $name = llama-spm ] && echo $dir/$name.bin $dir/$name.model); do
        rm -f $dir/vectors.ids
        node vocab_judge.mjs vectors "$models/ggml-vocab-$name.gguf" $dir/vectors.bin $dir/vectors.ids
        build/vocab_ids $vocabulary $dir/vectors.bin $dir/vectors.ids > /dev/null
        judge vectors "$models/ggml-vocab-$name.gguf" $dir/vectors.ids 0 $dir/vectors.bin
    done
done
[ -n "$STRINGS" ] || done_checking

texts=
for f in tinystories_valid.txt tinyshakespeare.txt; do
    for d in "$LEMON_DATA" ../../shared/data; do [ -f "$d/$f" ] && texts="$texts $d/$f" && break; done
done
# shellcheck disable=SC2086
node vocab_strings.mjs $dir/strings.bin $texts || exit 1
for name in llama-spm phi-3 gpt-2 mpt starcoder refact command-r llama-bpe qwen2 qwen35; do
    build/vocab_ids $dir/$name.json $dir/strings.bin $dir/$name.ids
    if [ $name = llama-spm ]; then
        build/vocab_ids $dir/$name.model $dir/strings.bin $dir/model.ids
        if cmp $dir/model.ids $dir/$name.ids; then ok "tokenizer.model gives 10000 strings the ids of tokenizer.json"
        else fail "tokenizer.model and tokenizer.json differ"; fi
    fi
    build/vocab_ids $dir/$name.json $dir/strings.bin $dir/$name.special special > /dev/null
    case $name in starcoder | refact | command-r) known=180 ;; *) known=10 ;; esac
    judge hf $dir/$name.json $dir/$name.special $known
    judge texts $dir/$name.json $dir/$name.special 20
    judge llama.cpp "$models/ggml-vocab-$name.gguf" $dir/$name.ids 5
done
python3 vocab_gguf.py "$models/ggml-vocab-qwen2.gguf" $dir/qwen2-nfc.json --nfc
build/vocab_ids $dir/qwen2-nfc.json $dir/strings.bin $dir/nfc.special special
judge hf $dir/qwen2-nfc.json $dir/nfc.special 0
judge llama llama-tokenizer-js $dir/llama-spm.ids 0
judge llama3 llama3-tokenizer-js $dir/llama-bpe.special 10
judge gpt2 gpt-tokenizer $dir/gpt-2.ids 10
done_checking
