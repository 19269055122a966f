#!/bin/sh
# Programs that others wrote judge the files that lemon.h writes, and make some that it reads:  llama.cpp (npm's
# node-llama-cpp), Hugging Face's readers (@huggingface/gguf, hub, tokenizers), PyTorch (Debian's python3-torch), and
# make_hf.py, which writes folders with nothing of lemon.h in it.  They are installed into build/judges; what cannot be
# had is counted as skipped.
cd "$(dirname "$0")" || exit 1
. ./harness.sh
tests=$PWD
scratch=$tests/${CHECK_SCRATCH:-build/scratch/judges}
lemon=$tests/../examples/lemon
data=$(data_folder)
rm -rf "$scratch"
mkdir -p "$scratch"

. ./judges_install.sh
python=/usr/bin/python3
$python -c "import torch" 2> /dev/null || apt_install python3-torch
LLAMA_BACKENDS=$libraries
export LLAMA_BACKENDS OMP_NUM_THREADS=1 LEMON_THREADS=1      # two of them run at once

# ---- helpers ----

loss() { "$lemon" eval "$1" --data ids.u16 --seq "${2:-256}" --quiet | sed -n 's/^loss \([0-9.]*\).*/\1/p'; }

# row NAME: the row of README.md's table of judges that the tests after it stand for.
row() { row=$1; }
judged_by() { printf '%s|%s\n' "$row" "$1" >> "$scratch/rows"; }

# near NAME LIMIT A B: two numbers that are no further apart.
near() {
    judged_by "$(echo "$3 $4" | awk '{ d = $1 - $2; print d < 0 ? -d : d }')"
    if echo "$2 $3 $4" | awk '{ d = $2 - $3; if (d < 0) d = -d; exit !($2 != "" && $3 != "" && d <= $1) }'; then ok "$1 ($3, $4)"
    else fail "$1" "$3 and $4 differ by more than $2"; fi
}

# judged NAME LIMIT FILE SEQ MODE: llama.cpp loads a GGUF without a warning, and its loss is ours.
judged() {
    if "$llama" loss "$3" ids.u16 "$4" "$5" > judge.out 2>&1; then near "$1" "$2" "$(tail -n 1 judge.out)" "$(loss "$3" "$4")"
    else fail "$1" "$(head -n 1 judge.out)"; fi
}

# as_ids IDS: numbers on standard input as a file of ids.
as_ids() { $python -c 'import struct, sys; sys.stdout.buffer.write(b"".join(struct.pack("<H", int(i)) for i in sys.stdin.read().split()))' > "$1"; }

same_text() { judged_by 0; if [ -n "$2" ] && [ "$2" = "$3" ]; then ok "$1"; else fail "$1" "\"$2\" and \"$3\""; fi; }

if [ -z "$data" ] || [ ! -x "$lemon" ]; then
    skip "judges: no stories260K, or no examples/lemon"
    done_checking
fi
cd "$scratch" || exit 1
"$lemon" convert "$data/stories260K.bin" f32.gguf --tokenizer "$data/tok512.bin" --quiet > /dev/null
printf 'Hello, wörld! 日本 🙂\n\ttabs  two  <s> Once upon a time, there was a dog.' > text
head -c 12000 "$data/tinystories_valid.txt" | sed 's/<|endoftext|>//' | tr '\n' ' ' > prose
"$lemon" tokenize f32.gguf "$(cat prose)" > prose.ids
as_ids ids.u16 < prose.ids

# ---- the rest of the family: small random models of another writer, which tells their losses too ----

family_judges() {
    head -c 1400 prose.u16 > ids.u16
    for family in llama smollm tinyllama llama3 linear yarn mistral qwen2 qwen2-yarn qwen3 phi3 phi3-window; do
        want=$($python "$tests/make_family.py" $family made-$family ids.u16 64)
        row "folder, the whole family in"
        near "$family: a folder of another writer has its loss" 1e-5 "$(loss made-$family 64)" "$want"
        "$lemon" convert made-$family $family.gguf --tokenizer "$data/tok512.bin" --quiet > /dev/null
        "$lemon" convert $family.gguf back-$family --quiet > /dev/null
        row "folder, the whole family out"
        near "$family: through GGUF and a folder again" 1e-7 "$(loss back-$family 64)" "$(loss made-$family 64)"
        [ -x "$llama" ] || continue
        row "GGUF, the whole family"
        case $family in             # llama.cpp leaves windows out: within one it must agree
            mistral | phi3-window) judged "llama.cpp, $family, as long as the window" 1e-5 $family.gguf 24 plain ;;
            *) judged "llama.cpp, $family" 1e-5 $family.gguf 64 plain ;;
        esac
        row "GGUF, greedy text of the family"
        ids=$("$lemon" generate $family.gguf --temp 0 -n 20 --json --quiet | sed -n 's/.*"tokens": *\[\([0-9, ]*\)\].*/\1/p' | tr -d ,)
        same_text "   greedy text" "$("$llama" greedy $family.gguf 20 1 | cut -d ' ' -f "1-$(echo "$ids" | wc -w)")" "$ids"
        row "GGUF, students of the family"
        "$lemon" fuse made-$family student-$family.gguf --dim 48 --layers 1 --heads 3 --kv-heads 1 --ffn 64 \
            --data prose.u16 --tokens 2048 --tokenizer "$data/tok512.bin" --quiet > /dev/null
        judged "   a student by fuse" 1e-5 student-$family.gguf 24 plain
    done
    want=$($python "$tests/make_family.py" phi3 phi3-made.gguf ids.u16 64 gguf)
    row "GGUF, Phi-3"
    near "phi3: a GGUF of another writer has its loss" 1e-5 "$(loss phi3-made.gguf 64)" "$want"
    if [ -x "$llama" ]; then
        "$llama" loss phi3-made.gguf ids.u16 64 plain > judge.out 2>&1
        near "phi3: and llama.cpp's" 1e-5 "$(loss phi3-made.gguf 64)" "$(tail -n 1 judge.out)"
        "$llama" quantize phi3-made.gguf phi3-q8.gguf 7 > quantize.out 2>&1
        "$llama" quantize phi3-q8.gguf decoded.gguf 0 >> quantize.out 2>&1
        near "phi3: fused matrices of Q8_0, as llama.cpp decodes them" 1e-5 "$(loss phi3-q8.gguf 64)" "$(loss decoded.gguf 64)"
    fi
}

# ---- PyTorch goes on training ----

# torch_trains: train_hf.py's output for each line "NAME FOLDER STEPS IDS", as torch-NAME.csv; PyTorch takes long to load.
torch_trains() {
    $python -c 'import contextlib, runpy, sys
for name, folder, steps, ids in map(str.split, sys.stdin):
    sys.argv[1:] = folder, ids, steps, "4", "64", "1e-3"
    with open("torch-%s.csv" % name, "w") as out, contextlib.redirect_stdout(out):
        runpy.run_path("'"$tests/../examples/train_hf.py"'", run_name="__main__")' 2> torch.err || tail -n 1 torch.err
}

# trained_on NAME FOLDER STEPS IDS: losses and norms of gradients, ours and PyTorch's.
trained_on() {
    "$lemon" train "$2" trained-on.lemon --data "$4" --steps "$3" --batch 4 --seq 64 --lr 1e-3 --order sequential \
        --schedule constant --warmup 0 --log ours.csv --quiet > /dev/null
    tail -n +2 ours.csv | paste -d , "torch-$1.csv" - | awk -F , -v steps="$3" '
        function far(a, b) { return a > b ? a - b : b - a }
        { loss = far($2, $6) > loss ? far($2, $6) : loss; norm = far($3 / $9, 1) > norm ? far($3 / $9, 1) : norm }
        END { if (NR == steps) print loss, norm }' > worst
    row "folder, trained on"
    near "PyTorch's first $3 losses follow ours, $1: largest difference" 1e-3 "$(cut -d ' ' -f 1 worst)" 0
    row "folder, gradients"
    near "   and the norms of its gradients, relatively" 1e-3 "$(cut -d ' ' -f 2 worst)" 0
}

torch_judges() {
    "$lemon" convert ../f32.gguf hf --quiet > /dev/null
    head -c 110000 "$data/tinystories_valid.txt" > long
    "$lemon" tokenize hf "$(cat long)" | as_ids long.u16                # 200 steps see nothing twice
    echo llama hf 200 long.u16 > runs
    for family in llama3 linear mistral qwen2 qwen3 phi3; do echo $family back-$family 20 prose.u16; done >> runs
    torch_trains < runs
    # shellcheck disable=SC2086
    while read -r each; do trained_on $each; done < runs
    ${CC:-cc} -std=c99 -O0 -w -DLEMON_NO_FUSE "$tests/judge_tape.c" -o "$judges/judge_tape" -lm -pthread && "$judges/judge_tape" > gradients
    $python "$tests/judge_tape.py" gradients > gradients.txt 2> torch.err
    row "gradients of every operation"
    while read -r operation worst; do near "PyTorch's gradients of $operation, relative" 1e-5 "$worst" 0; done < gradients.txt
    check "of all 16 cases" test "$(wc -l < gradients.txt)" -eq 16
}

# Both by themselves in a folder of their own, beside all that follows.
mkdir family
cp ids.u16 family/prose.u16
(
    cd family || exit 1
    scratch=$PWD passed=0 failed=0 skipped=0
    if $python -c "import numpy" 2> /dev/null; then family_judges; else skip "the rest of the family: no numpy"; fi
    if $python -c "import torch" 2> /dev/null; then torch_judges; else skip "PyTorch"; fi
    echo "$passed $failed $skipped" > counts
) > family.out 2>&1 &

# ---- llama.cpp reads what lemon.h writes ----

if [ -x "$llama" ]; then
    for type in f32 f16 bf16 q8 q4; do          # llama.cpp rounds activations too where weights are quantised
        "$lemon" convert f32.gguf $type-out.gguf --dtype $type --quiet > /dev/null
        case $type in f32) limit=1e-5 defaults=1e-3 ;; f16 | bf16) limit=1e-3 defaults=1e-3 ;; *) limit=4e-3 defaults=4e-3 ;; esac
        case $type in f32) row "GGUF, F32" ;; f16 | bf16) row "GGUF, F16 and BF16" ;; *) row "GGUF, Q8_0 and Q4_0" ;; esac
        judged "llama.cpp, $type, F32 cache, no flash attention" $limit $type-out.gguf 256 plain
        case $type in q*) ;; *) row "GGUF, with its default cache" ;; esac
        judged "llama.cpp, $type, its defaults" $defaults $type-out.gguf 256 default
    done
    row "GGUF, vocabulary"
    same_text "llama.cpp tokenizes alike" "$("$llama" tokens f32.gguf text)" "$("$lemon" tokenize f32.gguf "$(cat text)")"
    same_text "llama.cpp tokenizes 12 kB alike" "$("$llama" tokens f32.gguf prose)" "$(cat prose.ids)"
    same_text "llama.cpp's greedy text is the reference's" "$("$llama" greedy f32.gguf 100 1)" \
        "$(tr '\n' ' ' < "$data/greedy_empty.ids" | cut -d ' ' -f 1-101)"
    "$lemon" init random.lemon --dim 96 --head-dim 32 --layers 2 --heads 4 --kv-heads 2 --ffn 160 --untie --quiet \
        --tokenizer "$data/tok512.bin" > /dev/null
    "$lemon" convert random.lemon random.gguf --quiet > /dev/null
    row "GGUF, F32"
    judged "llama.cpp, untied, heads wider than the model" 1e-5 random.gguf 64 plain

    # ---- and writes what lemon.h reads: the same loss, and the numbers that it decodes itself ----
    "$lemon" init wide.lemon --dim 256 --layers 2 --heads 4 --kv-heads 2 --ffn 512 --tokenizer "$data/tok512.bin" --quiet > /dev/null
    "$lemon" train wide.lemon trained.lemon --data ids.u16 --steps 40 --batch 4 --seq 64 --lr 2e-3 --quiet > /dev/null
    "$lemon" convert trained.lemon wide.gguf --quiet > /dev/null
    for type in 15:Q5_0 17:Q5_1; do     # what files called Q4_K_M and Q5_K_M have where rows are no multiple of 256
        "$llama" quantize random.gguf in.gguf "${type%:*}" > quantize.out 2>&1
        "$llama" quantize in.gguf decoded.gguf 0 >> quantize.out 2>&1
        row "GGUF, ten types that llama.cpp wrote"
        near "lemon.h reads ${type#*:} in place of K types" 1e-5 "$(loss in.gguf 64)" "$(loss decoded.gguf 64)"
    done
    for type in 2:Q4_0 3:Q4_1 8:Q5_0 9:Q5_1 7:Q8_0 15:Q4_K_M 17:Q5_K_M 18:Q6_K 1:F16 32:BF16; do
        "$llama" quantize wide.gguf in.gguf "${type%:*}" > quantize.out 2>&1
        "$llama" quantize in.gguf decoded.gguf 0 >> quantize.out 2>&1
        row "GGUF, ten types that llama.cpp wrote"
        near "lemon.h reads ${type#*:} as llama.cpp decodes it" 1e-5 "$(loss in.gguf 64)" "$(loss decoded.gguf 64)"
        row "GGUF, loss of those types"
        judged "llama.cpp's ${type#*:} has its loss" 5e-4 in.gguf 64 plain
    done
else
    skip "llama.cpp"
fi

# ---- keys that mean nothing here ----

row "GGUF, keys that it does not know"
judged_by 0
$python "$tests/gguf_keys.py" add f32.gguf keys.gguf
"$lemon" convert keys.gguf through.lemon --quiet > /dev/null
"$lemon" convert keys.gguf through.gguf --quiet > /dev/null
"$lemon" convert through.lemon again.gguf --quiet > /dev/null
check "keys of every type, through GGUF" $python "$tests/gguf_keys.py" same keys.gguf through.gguf
check "keys of every type, through .lemon and GGUF" $python "$tests/gguf_keys.py" same keys.gguf again.gguf
"$lemon" convert keys.gguf origin --quiet > /dev/null
"$lemon" convert origin origin.gguf --quiet > /dev/null
check "licence and source of a model are in a folder's README.md" sh -c 'printf -- "---\nlicense: mit\nbase_model: someone/something\n---\n" |
    cmp -s - origin/README.md'
if [ -d "$modules/@huggingface/gguf" ]; then
    (cd "$tests" && node judge_npm.mjs gguf "$scratch/origin.gguf") > origin.json 2>&1
    for key in '"license":"mit"' '"source.huggingface.repository":"someone/something"'; do
        check "   and back in GGUF, $key" grep -q "\"general.${key#?}" origin.json
    done
fi
if [ -x "$llama" ]; then
    row "GGUF, F32"
    judged "llama.cpp loads a file with such keys" 1e-5 through.gguf 256 plain
fi

# ---- a model of 300 MB never stands in memory twice: the heap may have 64 MB ----

$python "$tests/make_big.py" big
for out in "big2 --shard-size 100M --dtype bf16" "big.gguf --dtype q8" "big.lemon" "big3 --shard-size 50M"; do
    # shellcheck disable=SC2086
    (ulimit -d 65536; "$lemon" convert big $out --threads 1 --quiet > /dev/null) 2> heap.out
    status=$?
    if [ $status = 0 ]; then ok "a model of 300 MB becomes ${out%% *} in 64 MB of heap"
    else fail "a model of 300 MB becomes ${out%% *} in 64 MB of heap" "$(tail -n 1 heap.out)"; fi
done
"$lemon" convert big3 again.gguf --dtype q8 --quiet > /dev/null
check "   shards and one file are the same model" cmp big.gguf again.gguf
rm -rf big big2 big3 big.gguf big.lemon again.gguf

# ---- Hugging Face's readers ----

"$lemon" convert f32.gguf hf --quiet > /dev/null
"$lemon" convert f32.gguf shards --dtype bf16 --shard-size 100k --quiet > /dev/null
if [ -d "$modules/@huggingface/tokenizers" ]; then
    row "GGUF, keys and tensors"
    (cd "$tests" && node judge_npm.mjs gguf "$scratch/f32.gguf") > gguf.json 2>&1
    judged_by 0
    check "@huggingface/gguf finds 47 tensors" grep -q '"tensor_count":47' gguf.json
    check "@huggingface/gguf finds the config" grep -q '"llama.embedding_length":64.*"llama.attention.head_count_kv":4' gguf.json
    check "@huggingface/gguf finds shapes" grep -q '\["blk.0.ffn_down.weight",\[172,64\],0\]' gguf.json
    row "folder"
    for folder in hf shards; do
        (cd "$tests" && node judge_npm.mjs safetensors "$scratch/$folder") > st.json 2>&1
        check "@huggingface/hub finds shapes in $folder" \
            grep -q '"model.layers.4.mlp.down_proj.weight":{"dtype":"B*F[0-9]*","shape":\[64,172\]' st.json
        same_text "@huggingface/hub finds 47 tensors in $folder" "$(grep -o '"dtype"' st.json | wc -l)" 47
    done
    row "folder, tokenizer.json"
    same_text "@huggingface/tokenizers tokenizes alike" "$(cd "$tests" && node judge_npm.mjs tokens "$scratch/hf" "$scratch/prose")" \
        "$(cat prose.ids)"
else
    skip "Hugging Face's readers"
fi

# ---- a vocabulary that `lemon vocab` learned ----

"$lemon" vocab learned.bin --data prose --size 600 --quiet > /dev/null
"$lemon" init learned.lemon --dim 32 --layers 1 --heads 2 --kv-heads 1 --ffn 64 --tokenizer learned.bin --quiet > /dev/null
"$lemon" convert learned.lemon learned.gguf --quiet > /dev/null
"$lemon" convert learned.lemon learned --quiet > /dev/null
row "vocabulary that lemon vocab learned"
ids=$("$lemon" tokenize learned.lemon "$(cat text prose)")
cat text prose > both
if [ -x "$llama" ]; then same_text "llama.cpp tokenizes alike, learned here" "$("$llama" tokens learned.gguf both)" "$ids"; fi
if [ -d "$modules/@huggingface/tokenizers" ]; then
    same_text "@huggingface/tokenizers likewise, learned here" \
        "$(cd "$tests" && node judge_npm.mjs tokens "$scratch/learned" "$scratch/prose")" \
        "$("$lemon" tokenize learned.lemon "$(cat prose)")"
fi

# ---- a byte-level vocabulary, made without lemon.h ----

$python - > byte.json << 'END'
import collections, json, re
letters = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
letters += [b for b in range(256) if b not in letters]
alphabet = {b: chr(b if i < 188 else 256 + i - 188) for i, b in enumerate(letters)}
words = [[alphabet[b] for b in w.encode()] for w in re.findall(r" ?[A-Za-z]+", open("prose", encoding="utf-8").read())]
vocab, merges = [alphabet[b] for b in letters], []
while len(vocab) < 500:
    pairs = collections.Counter(p for w in words for p in zip(w, w[1:]))
    a, b = max(pairs, key=lambda p: (pairs[p], p))
    vocab.append(a + b)
    merges.append(a + " " + b)
    for w in words:
        for i in range(len(w) - 2, -1, -1):
            if i + 1 < len(w) and w[i] == a and w[i + 1] == b:
                w[i:i + 2] = [a + b]
print(json.dumps({"version": "1.0", "truncation": None, "padding": None,
    "added_tokens": [{"id": 500, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False,
                      "normalized": False, "special": True}],
    "normalizer": None, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "post_processor": None, "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
              "fuse_unk": False, "byte_fallback": False, "vocab": {w: i for i, w in enumerate(vocab + ["<|endoftext|>"])},
              "merges": merges}}))
END
"$lemon" init byte.lemon --dim 32 --layers 1 --heads 2 --kv-heads 1 --ffn 64 --tokenizer byte.json --quiet > /dev/null
"$lemon" convert byte.lemon byte.gguf --quiet > /dev/null
"$lemon" convert byte.gguf byte-hf --quiet > /dev/null
row "vocabulary of bytes"
ids=$("$lemon" tokenize byte-hf "$(cat prose)" | sed 's/^500 //')
same_text "a byte-level vocabulary through GGUF and a folder" "$("$lemon" tokenize byte.lemon "$(cat prose)" | sed 's/^500 //')" "$ids"
if [ -x "$llama" ]; then
    same_text "llama.cpp tokenizes 12 kB alike, byte-level" "$("$llama" tokens byte.gguf prose)" "$ids"
fi
if [ -d "$modules/@huggingface/tokenizers" ]; then
    same_text "@huggingface/tokenizers likewise, byte-level" "$(cd "$tests" && node judge_npm.mjs tokens "$scratch/byte-hf" "$scratch/prose")" "$ids"
fi

# ---- folders that lemon.h did not write ----

"$lemon" convert "$data/stories260K.bin" ours.bin --quiet > /dev/null
for kind in "F32 1" "F32 5 odd" "F16 1" "BF16 3"; do
    rm -rf made made.bin
    # shellcheck disable=SC2086
    $python "$tests/make_hf.py" "$data/stories260K.bin" made $kind
    "$lemon" convert made made.bin --dtype f32 --quiet > /dev/null
    case $kind in F32*) row "folder, F32" && judged_by 0 ;; *) row "folder, F16 and BF16" ;; esac
    case $kind in
        F32*) check "a folder of another writer, $kind: the same bits" cmp made.bin ours.bin ;;
        *) near "a folder of another writer, $kind" 2e-3 "$(loss made.bin)" "$(loss ours.bin)" ;;
    esac
done

# ---- a folder with nothing but SentencePiece's own file for a vocabulary ----

$python "$tests/vocab_gguf.py" f32.gguf vocabulary.json vocabulary.bin vocabulary.model
rm -rf made
$python "$tests/make_hf.py" "$data/stories260K.bin" made F32 1
cp vocabulary.model made/tokenizer.model
row "folder, tokenizer.model"
same_text "a folder's tokenizer.model tokenizes alike" "$("$lemon" tokenize made "$(cat prose)")" "$(cat prose.ids)"

# ---- llama2.c reads what lemon.h writes ----

row "llama2.c, version 0 and 2"
for type in f32 q8; do
    "$lemon" convert f32.gguf l2c-$type.bin --dtype $type --quiet > /dev/null
    head -c 98 ids.u16 > few.u16
    near "llama2.c's $type: loss" 1e-6 "$($python "$tests/llama2c.py" l2c-$type.bin few.u16 48)" \
        "$("$lemon" eval l2c-$type.bin --data few.u16 --quiet | sed -n 's/^loss \([0-9.]*\).*/\1/p')"
done
row "tokenizer.bin"
judged_by 0
check "the vocabulary that it writes beside a model is the one that came in" sh -c '"$0" convert "$1/stories260K.bin" \
    again.bin --tokenizer "$1/tok512.bin" --quiet && cmp again.tokenizer.bin "$1/tok512.bin"' "$lemon" "$data"
$python "$tests/llama2c.py" l2c-q8.bin ids.u16 200 l2c-q8.tokenizer.bin > read
check "and writes the ids of a text as that text" sh -c 'head -c "$(wc -c < read)" prose | cmp -s - read && test "$(wc -c < read)" -gt 300'

# ---- smaller vocabularies ----

row "a smaller vocabulary"
head -c 3000 prose > some
for kind in f32.gguf byte.lemon; do
    mkdir -p trimmed
    "$lemon" convert $kind trimmed/t.gguf --trim-vocab some --dtype f32 --quiet > /dev/null
    "$lemon" convert trimmed/t.gguf trimmed/hf --quiet > /dev/null
    cp some trimmed
    cd trimmed || exit 1
    "$lemon" tokenize t.gguf "$(cat some)" > some.ids
    as_ids ids.u16 < some.ids
    if [ -x "$llama" ]; then
        judged "llama.cpp, trimmed from $kind" 1e-5 t.gguf 64 plain
        same_text "   tokenizes alike" "$("$llama" tokens t.gguf some)" "$(cat some.ids)"
    fi
    if [ -d "$modules/@huggingface/tokenizers" ]; then
        same_text "@huggingface/tokenizers, trimmed from $kind" "$(cd "$tests" && node judge_npm.mjs tokens "$scratch/trimmed/hf" "$scratch/some")" "$(cat some.ids)"
    fi
    cd ..
    rm -rf trimmed
done
"$lemon" fuse f32.gguf student.gguf --dim 48 --layers 3 --heads 6 --kv-heads 3 --ffn 112 --trim-vocab some --data prose --quiet > /dev/null
"$lemon" tokenize student.gguf "$(cat some)" > student.ids
mv ids.u16 all.u16
as_ids ids.u16 < student.ids
if [ -x "$llama" ]; then judged "llama.cpp, a student of a smaller vocabulary" 1e-5 student.gguf 64 plain; fi
mv all.u16 ids.u16

# ---- what ran beside ----

wait
cat family.out
cat family/rows >> rows
read -r p f k < family/counts || fail "the family's judges ended early"
passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + k))

# ---- the table in README.md says what was measured ----

grep '^| .* | \(in\|out\) | .* | \(none\|[0-9]*e-[0-9]*\) |$' "$tests/../README.md" > table
while IFS='|' read -r _ name _ _ most _; do
    name=$(echo "$name" | sed 's/^ *//; s/ *$//')
    worst=$(awk -F '|' -v name="$name" '$1 == name && $2 + 0 >= worst { worst = $2 + 0; seen = 1 } END { if (seen) print worst }' rows)
    if [ -z "$worst" ]; then skip "README: $name was not judged"
    elif echo "$worst $most" | awk '{ exit !($1 <= ($2 == "none" ? 0 : $2)) }'; then ok "README: $name, at most${most}($worst)"
    else fail "README: $name" "$worst, at most$most"; fi
done < table
check "no judge is missing in README's table" awk -F '|' 'NR == FNR { gsub(/^ *| *$/, "", $2); known[$2] = 1; next }
    !($1 in known) { print $1; bad = 1 } END { exit bad }' table rows
done_checking
