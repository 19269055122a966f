#!/bin/sh
# Vocabularies as other programs see them.  `make judges` compares
#   llama.cpp's own test vectors (they come with node-llama-cpp's source), for each type of vocabulary that we know;
# `make judges-vocab` (STRINGS=10000) besides these
#   the ids of 10,000 strings, and the texts of those ids, with the originals: Hugging Face's library from the same
#   tokenizer.json, SentencePiece from the same tokenizer.model; and for six vocabularies those of every character of Unicode;
#   the ids by llama.cpp itself, and by three packages that bring real vocabularies along.
# With the originals nothing may differ.  The others know an older or a newer Unicode, for which vocab_judge.mjs asks proof.
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
${CC:-cc} -O1 -w -DLEMON_NO_TRAIN -DLEMON_NO_FUSE vocab_ids.c -o build/vocab_ids -lm -pthread || exit 1

# judge NAME VOCABULARY IDS [STRINGS]: none may differ, but for a reason that vocab_judge.mjs names
judge() {
    SHOW=${SHOW:-0} node vocab_judge.mjs "$1" "$2" "${4:-$dir/strings.bin}" "$3" > $dir/judge.log 2>&1
    status=$?
    said=$(sed -n 's/^ok   //p; s/^FAIL //p' $dir/judge.log)
    if [ $status = 0 ]; then ok "$said"; else fail "${said:-$1}" "$(tail -n 3 $dir/judge.log)"; fi
}

# made NAME: a vocabulary of llama.cpp's as files that lemon.h reads, by another program
made() { python3 vocab_gguf.py "$models/ggml-vocab-$1.gguf" $dir/$1.json $([ $1 = llama-spm ] && echo $dir/$1.bin $dir/$1.model); }

for name in llama-spm phi-3 gpt-2 mpt starcoder refact command-r llama-bpe qwen2 qwen35; do
    made $name || fail "vocab_gguf.py $name"
    for vocabulary in $dir/$name.json $([ $name = llama-spm ] && echo $dir/$name.bin $dir/$name.model); do
        rm -f $dir/vectors.ids
        node vocab_judge.mjs vectors "$models/ggml-vocab-$name.gguf" $dir/vectors.bin $dir/vectors.ids
        build/vocab_ids $vocabulary $dir/vectors.bin $dir/vectors.ids > /dev/null
        judge vectors "$models/ggml-vocab-$name.gguf" $dir/vectors.ids $dir/vectors.bin
    done
done
[ -n "$STRINGS" ] || done_checking

texts=
for f in tinystories_valid.txt tinyshakespeare.txt; do
    for d in "$LEMON_DATA" ../../shared/data; do [ -f "$d/$f" ] && texts="$texts $d/$f" && break; done
done
# shellcheck disable=SC2086
node vocab_strings.mjs $dir/strings.bin $texts || exit 1
node vocab_strings.mjs $dir/characters.bin --characters || exit 1
/usr/bin/python3 -c "import sentencepiece" 2> /dev/null || apt_install python3-sentencepiece

# original VOCABULARY: Hugging Face's library on all strings, and on all characters where the vocabulary cuts in its own way
original() {
    build/vocab_ids $dir/$1.json $dir/strings.bin $dir/$1.special special > /dev/null
    judge hf $dir/$1.json $dir/$1.special
    case $1 in llama-spm | gpt-2 | starcoder | llama-bpe | qwen35 | *-nfc) ;; *) return ;; esac
    build/vocab_ids $dir/$1.json $dir/characters.bin $dir/characters.ids special > /dev/null
    judge hf $dir/$1.json $dir/characters.ids $dir/characters.bin
}

for name in llama-spm phi-3 gpt-2 mpt starcoder refact command-r llama-bpe qwen2 qwen35; do
    original $name
    build/vocab_ids $dir/$name.json $dir/strings.bin $dir/$name.ids
    judge llama.cpp "$models/ggml-vocab-$name.gguf" $dir/$name.ids
done
python3 vocab_gguf.py "$models/ggml-vocab-qwen2.gguf" $dir/qwen2-nfc.json --nfc
original qwen2-nfc
for strings in strings characters; do
    build/vocab_ids $dir/llama-spm.model $dir/$strings.bin $dir/model.ids > /dev/null
    if said=$(/usr/bin/python3 vocab_sentencepiece.py $dir/llama-spm.model $dir/$strings.bin $dir/model.ids 2>&1); then ok "$said"
    else fail "sentencepiece, $strings" "$said"; fi
done
judge llama llama-tokenizer-js $dir/llama-spm.ids
judge llama3 llama3-tokenizer-js $dir/llama-bpe.special
judge gpt2 gpt-tokenizer $dir/gpt-2.ids
done_checking
