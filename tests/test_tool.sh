#!/bin/sh
# The command line tool: exit statuses, messages, JSON, every command, malformed files; then the whole job on real data.
cd "$(dirname "$0")" || exit 1
. ./harness.sh
scratch=$PWD/${CHECK_SCRATCH:-build/scratch/tool}
mkdir -p "$scratch"
here=$PWD
lemon=$PWD/../examples/lemon
stories=$PWD/../examples/stories
data=$(data_folder)
cd "$scratch" || exit 1

# run ARGS...: the tool's exit status in $status, its output in out, its messages in err.
run() {
    "$lemon" "$@" > out 2> err < /dev/null
    status=$?
}

# expect STATUS TEXT ARGS...: the exit status, and a message that contains the text, in the one form that errors have.
expect() {
    want=$1
    text=$2
    shift 2
    run "$@"
    name="exit $want: lemon $*"
    if [ "$status" -ne "$want" ]; then fail "$name" "exit $status, $(head -n 1 err)"
    elif [ "$want" -ne 0 ] && ! grep -q '^lemon: error: ' err; then fail "$name" "no message"
    elif ! cat out err | grep -qF -e "$text"; then fail "$name" "expected \"$text\", got \"$(head -n 1 err)\""
    else ok "$name"; fi
}

# field NAME: a field of the JSON object that is the last line of out.
field() { tail -n 1 out | sed -n "s/.*[{ ]\"$1\": *\(\"[^\"]*\"\|\[[^]]*\]\|[^,}]*\).*/\1/p"; }

# fields NAME FIELDS...: the last line is one object with these fields, and with no other.
fields() {
    name=$1
    shift
    line=$(tail -n 1 out)
    case $line in "{"*"}") ;; *) fail "$name" "no object: $line"; return ;; esac
    for each in "$@"; do
        [ -n "$(field "$each")" ] || { fail "$name" "no $each in $line"; return; }
    done
    count=$(echo "$line" | sed 's/"text": "\([^"\\]\|\\.\)*"/"text": ""/' | grep -o '"[a-z0-9_]*":' | wc -l)
    if [ "$count" -eq $# ]; then ok "$name"; else fail "$name" "$count fields, expected $#"; fi
}

# holds NAME EXPRESSION: arithmetic by awk.
holds() { if awk "BEGIN { exit !($2) }" < /dev/null; then ok "$1"; else fail "$1" "$2"; fi; }

# ---- usage ----

expect 0 "usage: lemon COMMAND"
expect 0 "usage: lemon COMMAND" --help
expect 0 "lemon" --version
commands="info fuse train compare generate chat eval convert tokenize vocab init"
for command in $commands; do
    expect 0 "usage: lemon $command" $command --help
done
# What the help shows can be typed as it stands, with nothing but what is shipped: run here, by the path that the tool was called by.
for command in "" $commands; do
    rm -rf typed
    mkdir typed
    "$lemon" $command --help | sed -n '/^\(for example\|example\),/,/^[^ ]/p' | grep '^  ' > typed/lines.sh
    check "the example of lemon $command runs" sh -c "cd typed && sed 's/--steps 100/--steps 2/; s/--steps 30/--steps 2/; s/--count 500/--count 60/; s/--fraction 0.25/& --tokens 2k --learn 2/; s/--report/--tokens 2k &/' lines.sh > short.sh && test -s short.sh && sh -e short.sh < /dev/null"
done
expect 0 "usage: lemon fuse" help fuse
expect 0 "65536 for lemon where it learns" help fuse
expect 0 "| tail -n 1 | jq ." help eval
expect 0 "usage: lemon COMMAND" help
expect 2 "no command" bogus
expect 2 "expected lemon COMMAND ... --json" --json info m.lemon
expect 2 "expected lemon generate MODEL --prompt TEXT" generate m.lemon "Once upon a time"
expect 2 "expected lemon eval MODEL --data FILE" eval m.lemon text.txt
expect 2 "did you mean lemon generate?" gen
expect 2 "did you mean --prompt?" generate a -p text
expect 2 "but of lemon train; did you mean --temp?" generate a --temperature 1
expect 2 "did you mean lemon fuse?" fus
expect 2 "did you mean lemon fuse?" fues
expect 2 "did you mean lemon compare?" compair
expect 2 "did you mean --layers?" fuse a b --layer 3
expect 2 "is no flag of lemon fuse, but of lemon train" fuse a b --steps 3
expect 2 "did you mean lemon?" fuse a b --method lemn
expect 2 "argument" info
expect 2 "argument" convert a.lemon
expect 2 "--bogus" info m.lemon --bogus
expect 2 "--steps" train m.lemon out.lemon --data t.txt
expect 2 "--data" eval m.lemon
expect 2 "abc" train m.lemon out.lemon --data t.txt --steps abc
expect 2 "--steps" train m.lemon out.lemon --data t.txt --steps 0
expect 2 "--top-p" generate m.lemon --top-p 1.5
expect 2 "--method" fuse m.lemon out.lemon --dim 8 --layers 1 --heads 1 --kv-heads 1 --ffn 8 --method lemmon
expect 2 "--dtype" convert m.lemon out.lemon --dtype f8
expect 2 "or --params N, or --fraction X" fuse m.lemon out.lemon
expect 2 "contradict" fuse m.lemon out.lemon --params 1M --fraction 0.5
expect 2 "--fraction" fuse m.lemon out.lemon --fraction 1.5
expect 2 "--fraction is 0, expected a number above 0" fuse m.lemon out.lemon --fraction 0
expect 2 "--params" fuse m.lemon out.lemon --params 1.M
expect 2 "--dim" fuse m.lemon out.lemon --layers 1 --heads 1 --kv-heads 1 --ffn 8
expect 2 "--threads" info m.lemon --threads 1000

# ---- a small world: a vocabulary, a model and a text of our own ----

"$stories" --seed 5 --count 60 > text.txt
"$stories" --seed 6 --count 6 > held.txt
expect 0 "" vocab tok.bin --data text.txt --size 300 --quiet
expect 0 "" init m.lemon --dim 32 --layers 4 --heads 4 --kv-heads 2 --ffn 64 --seq 64 --tokenizer tok.bin --quiet
run info m.lemon --json
fields "info --json" format dtype params d_model n_layers n_heads kv_heads head_dim d_ffn vocab_size max_seq rope_theta \
    rms_norm_eps tied_embeddings
holds "info: $(field params) parameters as the formula has it" \
    "$(field params) == 300 * 32 + 32 + 4 * (2 * 32 + 2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32)"
run tokenize m.lemon "Hello, you"
check "tokenize writes one line of ids, BOS first" grep -qE '^1( [0-9]+)+$' out
expect 0 "" tokenize m.lemon "- no flag"

# Hugging Face's kind of vocabulary, without BOS, in place of the model's own and in a new model
awk 'BEGIN {
    printf "{\"added_tokens\": [{\"id\": 256, \"content\": \"<|endoftext|>\", \"special\": true}],"
    printf "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, \"decoder\": {\"type\": \"ByteLevel\"},"
    printf "\"model\": {\"type\": \"BPE\", \"vocab\": {\"he\": 257, \"llo\": 258, \"lo\": 259"
    for (i = 33; i < 127; i++) printf ", \"%s%c\": %d", i == 34 || i == 92 ? "\\" : "", i, i
    printf "}, \"merges\": [\"h e\", \"l o\", \"l lo\"]}}"
}' > tokenizer.json
run tokenize m.lemon hello! --tokenizer tokenizer.json
check "tokenize knows tokenizer.json, and adds no BOS where it has none" grep -qx '257 258 33' out
expect 0 "" init j.lemon --dim 32 --layers 1 --heads 2 --kv-heads 1 --ffn 32 --seq 64 --tokenizer tokenizer.json --quiet
run tokenize j.lemon hello!
check "a model keeps it" grep -qx '257 258 33' out

# What people give by mistake is refused by what to do about it
mkdir -p nothing
expect 1 "nothing: is a folder without config.json" info nothing
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:0000000000000000000000000000000000000000\nsize 99\n' > pointer.gguf
expect 1 "git lfs pull fetches it" info pointer.gguf
expect 0 "" convert m.lemon lfs --quiet
expect 1 "give the name of the folder" info lfs/model.safetensors
cp pointer.gguf lfs/model.safetensors
expect 1 "git lfs pull fetches it" info lfs
rm lfs/model.safetensors
expect 1 "PyTorch's .bin files must be saved as safetensors" info lfs
expect 1 "format is not text" train m.lemon never.lemon --data m.lemon --steps 2
expect 1 "leave out --resume" train m.lemon never.lemon --data text.txt --steps 2 --resume
expect 2 "the teacher itself" fuse m.lemon m.lemon --fraction 0.5
expect 1 "that is --max-memory" fuse m.lemon never.lemon --fraction 0.5 --method random --max-memory 60k

train="train m.lemon t.lemon --data text.txt --steps 12 --batch 4 --seq 32 --lr 5e-3"
run $train --eval-data held.txt --log log.csv --json
check "training ends well" test "$status" -eq 0
fields "train --json" steps tokens train_loss eval_loss tokens_per_second peak_bytes flops
holds "train: steps and tokens" "$(field steps) == 12 && $(field tokens) == 12 * 4 * 32"
check "the log has its head" grep -qx 'step,tokens,loss,kl,lr,grad_norm,seconds' log.csv
holds "and a line a step" "$(grep -c '^[0-9]*,[0-9]*,' log.csv) == 12"
cut -d, -f1-6 log.csv > whole.csv
loss=$(field eval_loss)
"$lemon" $train --eval-every 1 --eval-data held.txt --log log.csv < /dev/null >&- 2>&-
check "a closed output is exit 1" test $? -eq 1
"$lemon" train --help 2> /dev/null >&-
check "of help too" test $? -eq 1
check "and what would go there goes into no file" sh -c 'cut -d, -f1-6 log.csv | cmp - whole.csv && "$0" info t.lemon > /dev/null' "$lemon"
run eval t.lemon --data held.txt --seq 32 --json
fields "eval --json" loss ppl tokens
holds "eval has the loss that training ended with" "($loss - $(field loss))^2 < 1e-10"
holds "perplexity is e to the loss" "($(field ppl) / exp($(field loss)) - 1)^2 < 1e-10"
first=$(field loss)
run eval m.lemon --data held.txt --seq 32 --json
holds "training lowered it" "$first < $(field loss) - 0.1"

run $train --threads 1 --quiet
cp t.lemon one.lemon
run $train --threads 2 --quiet
check "one thread and two train the same file" cmp one.lemon t.lemon

# ---- saved, interrupted, resumed ----

run $train --save-every 4 --quiet
check "saving as it goes does not change the run" cmp one.lemon t.lemon
cp t.lemon.resume whole.resume
expect 2 "--lr" $train --resume --lr 4e-3
expect 2 "--schedule" $train --resume --schedule constant
expect 2 "--moments" $train --resume --moments bf16
expect 0 "" $train --resume --quiet
check "a finished run resumed is the same" cmp one.lemon t.lemon
rm -f t.lemon t.lemon.resume
expect 1 "t.lemon.resume" $train --resume
long="train m.lemon i.lemon --data text.txt --batch 4 --seq 32 --lr 5e-3 --schedule constant"
if command -v timeout > /dev/null; then
    timeout -s INT 1 true
    timeout --preserve-status -s INT 5 "$lemon" $long --steps 1000000 > out 2> err < /dev/null
    status=$?
    check "an interrupt is exit 3" test "$status" -eq 3
    check "with the state saved" test -f i.lemon.resume
    steps=$(sed -n 's/.*step \([0-9]*\) of.*/\1/p' err | tail -n 1)
    check "progress line by line: what, how far, how fast, the loss, time left" grep -qE \
        '^train  [0-9]+ of 1000000  [0-9.]+/s  loss [0-9.]+  [0-9:]+ left$' err
    check "the message says where it stopped" test -n "$steps"
    more=$((${steps:-0} + 3))
    expect 0 "" $long --steps $more --resume --quiet --warmup 50000
    cp i.lemon resumed.lemon
    rm -f i.lemon i.lemon.resume
    run $long --steps $more --quiet --warmup 50000
    check "resumed, it ends with the bits of the run that was never stopped" cmp resumed.lemon i.lemon
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do cat text.txt text.txt; done > much.txt
    rm -f i.lemon i.lemon.resume
    timeout --preserve-status -s INT 0.3 "$lemon" train m.lemon i.lemon --data much.txt --steps 1000000 --seq 32 --teacher m.lemon \
        --keep-teacher > out 2> err < /dev/null
    check "stopped before its first step, it is exit 3 and says that nothing was saved" \
        sh -c "test $? -eq 3 -a ! -e i.lemon.resume && grep -q 'nothing was saved' err"
else
    skip "an interrupt is exit 3"
fi
expect 4 "not finite" train m.lemon n.lemon --data text.txt --steps 50 --batch 2 --seq 32 --lr 1000 --clip 0 --weight-decay 1000
expect 0 "" info n.lemon
expect 0 "lemon: warning: the loss rose from" train m.lemon n.lemon --data text.txt --steps 20 --batch 2 --seq 32 --lr 20

# ---- fusing ----

shape="--dim 16 --layers 2 --heads 2 --kv-heads 1 --ffn 32"
run fuse one.lemon f.lemon $shape --data text.txt --tokens 3000 --save-operators f.ops --report f.html --json
check "fusing ends well" test "$status" -eq 0
fields "fuse --json" method teacher_params student_params calibration_tokens flops seconds peak_bytes init_loss
holds "fuse: parameters of the student" "$(field student_params) == 300 * 16 + 16 + 2 * (2 * 16 + 2 * 16 * 16 + 2 * 8 * 16 + 3 * 32 * 16)"
check "the report is a page with figures of its own" grep -q '<svg' f.html
check "and refers to nothing outside" sh -c '! grep -qE "(src|href)=.?https?:" f.html'
for part in "way from a guess to the teacher" "How alike the layers are (CKA)" "query heads" "What is lost of the teacher" \
    "What they write" "layer operator" "How to repeat it" "one.lemon f.lemon"; do
    check "the report has: $part" grep -qF "$part" f.html
done
check "two CKA maps, of 5 and of 3 by 5 streams" test "$(grep -o '<td style="--v:[0-9.]*"' f.html | wc -l)" -eq 40
check "a teacher's layer is most like itself" test "$(grep -o 'after layer 2, after layer 2: [0-9.]*' f.html)" = "after layer 2, after layer 2: 1.000"
run fuse one.lemon nf.lemon $shape --tokens 1000 --report nf.html --quiet
check "a report without data, on text of the teacher's own" grep -qF "the teacher's own, as no data were given" nf.html
for method in random ligo; do
    run fuse one.lemon nf.lemon $shape --data text.txt --tokens 1000 --method $method --learn 2 --report nf.html --quiet
    check "a report of --method $method" test "$status" -eq 0 -a -s nf.html
done
expect 0 "" fuse one.lemon g.lemon $shape --operators f.ops --quiet
check "saved operators give the same student" cmp f.lemon g.lemon
expect 0 "" fuse one.lemon g.lemon $shape --data text.txt --tokens 3000 --quiet
check "which is that of a run that saved and reported nothing" cmp f.lemon g.lemon
# At its own shape the student is the teacher, on the same text: the tenth that was held out, whoever says so.
run fuse one.lemon same.lemon --dim 32 --layers 4 --heads 4 --kv-heads 2 --ffn 64 --data held.txt --learn 0 --save-operators same.ops \
    --report same.html --json
loss=$(field init_loss)
said=$(sed -n 's/.*The teacher[^ ]* is \([0-9.]*\) there.*/\1/p' same.html)
holds "the report has the teacher's loss on the text that was held out, $said" "(${said:-0} - ${loss:-1})^2 < 1e-6"
run fuse one.lemon g.lemon --operators same.ops --data held.txt --json
holds "saved operators tell the same loss" "($(field init_loss) - ${loss:-1})^2 < 1e-10"
for method in lemon ligo subclone select drop slicegpt modegpt random; do
    run fuse one.lemon "$method.lemon" $shape --data text.txt --tokens 2000 --method $method --learn 2 --json
    check "fuse --method $method" test "$status" -eq 0
done
expect 0 "" fuse one.lemon o.lemon $shape --tokens 1000 --no-solve --learn 2 --field-layers 2 --field-dims 4 --quiet
expect 0 "" fuse one.lemon o.lemon $shape --tokens 1000 --no-correction --untie --quiet
head -c 400 text.txt > little.txt
run fuse one.lemon v.lemon $shape --data text.txt --tokens 2000 --trim-vocab little.txt --report f.html --json
fields "fuse --trim-vocab --json" method teacher_params student_params calibration_tokens flops seconds peak_bytes init_loss kept_tokens
kept=$(field kept_tokens)
holds "the student has the tokens that were kept" "$(field student_params) == ${kept:-0} * 16 + 16 + 2 * (2 * 16 + 2 * 16 * 16 + 2 * 8 * 16 + 3 * 32 * 16)"
holds "not all, and the bytes at least" "${kept:-0} < 300 && ${kept:-0} >= 259"
check "the report says so" grep -q "$kept of 300 tokens were kept" f.html
run convert one.lemon tv.lemon --trim-vocab little.txt --json --quiet
check "convert --trim-vocab makes a teacher of that vocabulary" test "$(field vocab_size)" = "$kept"
expect 0 "" train v.lemon d.lemon --data text.txt --steps 3 --batch 2 --seq 32 --teacher tv.lemon --quiet
run tokenize tv.lemon "$(head -n 1 little.txt)"
check "which reads the text as before, but for the ids" test "$(wc -w < out)" -eq "$("$lemon" tokenize one.lemon "$(head -n 1 little.txt)" | wc -w)"

# Whose a model is goes with its students, whatever becomes of their vocabulary.
run convert one.lemon whose --quiet
printf -- '---\nlicense: mit\nbase_model:\n- some/one\n---\n' > whose/README.md
printf 'do as you like' > whose/LICENSE
solved="--data text.txt --tokens 1000 --learn 2"
for flags in "$solved" "$solved --trim-vocab little.txt" "--operators f.ops" "--data text.txt --tokens 1000 --method random"; do
    # shellcheck disable=SC2086
    "$lemon" fuse whose s.lemon $shape $flags --quiet > out 2>&1
    "$lemon" convert s.lemon s.gguf --quiet > out 2>&1
    "$lemon" convert s.lemon student-folder --quiet > out 2>&1
    check "a student's licence and source, fuse $flags" sh -c \
        'grep -aq general.license s.gguf && grep -aq some/one s.gguf && cmp whose/README.md student-folder/README.md && cmp whose/LICENSE student-folder/LICENSE'
    rm -rf student-folder s.gguf s.lemon
done
expect 1 "none.txt" fuse one.lemon o.lemon $shape --trim-vocab none.txt
printf 'ab' > two.u16
expect 2 "--data is two.u16" fuse one.lemon o.lemon $shape --trim-vocab little.txt --data two.u16
# A shape for a budget: met from below, with the sizes that are given, refused where there is none.
size=$("$lemon" info one.lemon --json | tail -n 1 | sed 's/.*"params": \([0-9]*\).*/\1/')
run fuse one.lemon b.lemon --fraction 0.5 --data text.txt --tokens 2000 --json
holds "--fraction 0.5 gives a student of $(field student_params) from $size" \
    "$(field student_params) <= 0.5 * $size && $(field student_params) >= 0.9 * 0.5 * $size"
check "and says the shape" grep -q -- '--dim [0-9]* --layers [0-9]* --heads' out
run fuse one.lemon b.lemon --params 0.02M --layers 3 --data text.txt --tokens 2000 --json --quiet
holds "--params 0.02M" "$(field student_params) <= 20000 && $(field student_params) >= 17000"
for word in 20K 0.02m; do
    run fuse one.lemon b2.lemon --params $word --method random --quiet
    check "--params $word is understood" test "$status" -eq 0
done
run info b.lemon --json
holds "with the layers that were asked for" "$(field n_layers) == 3"
expect 2 "at least" fuse one.lemon b.lemon --params 10
expect 2 "at most" fuse one.lemon b.lemon --params 1G

# Two models side by side, and one by turns.
run compare one.lemon f.lemon --data held.txt --seq 32 -n 12 --json
check "compare ends well" test "$status" -eq 0
check "it shows loss, size, speed and text" sh -c 'for w in parameters weights loss "bits a byte" reads writes; do grep -q "^$w" out || exit 1; done'
here_loss=$(tail -n 1 out | sed 's/.*"models": \[{[^}]*"loss": \([0-9.]*\).*/\1/')
check "as one object" sh -c 'tail -n 1 out | grep -q "^{\"models\": \[{\"model\": .*}, {.*}\]}$"'
run eval one.lemon --data held.txt --seq 32 --json
holds "compare has the loss of eval" "($(field loss) - ${here_loss:-0})^2 < 1e-12"
expect 2 "--data" compare one.lemon f.lemon
run compare one.lemon f.lemon --data held.txt --seq 32 -n 0 --json
check "compare -n 0: the speed of writing is not known" sh -c 'grep -q "^writes.*not known *not known" out &&
    test "$(tail -n 1 out | grep -o "\"tokens_per_second\": null" | wc -l)" -eq 2'
expect 1 "none.lemon" compare one.lemon none.lemon --data held.txt
printf 'Once\n\n/new\nThere\n' | "$lemon" chat one.lemon -n 9 --seed 3 --json > out 2> err
check "chat: a line of text for each turn, then JSON" test "$(wc -l < out)" -ge 4
fields "chat --json" text tokens tokens_per_second
first=$(cat out | sed 's/, "tokens_per_second.*//')
printf 'Once\n\n/new\nThere\n' | "$lemon" chat one.lemon -n 9 --seed 3 --json > out 2> err
check "the same turns, the same text" test "$first" = "$(sed 's/, "tokens_per_second.*//' out)"
printf 'Once\n/help\n\n/new\nThere\n' | "$lemon" chat one.lemon -n 9 --seed 3 --json > out 2> err
check "what is no command of chat's is told, and no text" test "$first" = "$(sed 's/, "tokens_per_second.*//' out)" -a \
    "$(grep -c '/help is not known here, /new and /quit are' err)" -eq 1
printf 'Once upon\n\n\n\n\n\n\n' | "$lemon" chat one.lemon -n 20 > out 2> err
check "chat goes on when the context of 64 is full, and says so once" test $? -eq 0 -a "$(grep -c 'context of 64' err)" -eq 1

expect 2 "the nearest" fuse one.lemon o.lemon --dim 33 --layers 2 --heads 2 --kv-heads 1 --ffn 32
expect 2 "kv_heads" fuse one.lemon o.lemon --dim 16 --layers 2 --heads 2 --kv-heads 3 --ffn 32
expect 0 "" train f.lemon d.lemon --data text.txt --steps 3 --batch 2 --seq 32 --teacher one.lemon --distill 0.9 --temperature 2 --quiet

# ---- generating, converting ----

run generate one.lemon --prompt "Once" -n 20 --temp 0 --json
fields "generate --json" text tokens tokens_per_second
first=$(field tokens)
run generate one.lemon --prompt "Once" -n 20 --temp 0 --seed 9 --json
check "greedy text knows no seed" test "$first" = "$(field tokens)"
run generate one.lemon -n 30 --temp 1.5 --top-p 1 --seed 1 --json
first=$(field tokens)
run generate one.lemon -n 30 --temp 1.5 --top-p 1 --seed 2 --json
check "another seed, another text" test "$first" != "$(field tokens)"
for dtype in f32 bf16 f16 q8 q4; do
    run convert one.lemon c.lemon --dtype $dtype --quiet
    run info c.lemon --json
    check "convert to $dtype" test "$(field dtype)" = "\"$dtype\""
done
expect 0 "" convert one.lemon c.lemon --quiet
check "convert without a type is a copy" cmp one.lemon c.lemon
for out in out.gguf out-hf out.bin; do
    expect 0 "" convert one.lemon $out --quiet
    run info $out --json
    case $out in out.gguf) format=gguf ;; out-hf) format=hf ;; *) format=llama2c ;; esac
    check "$out is $format" test "$(field format)" = "\"$format\""
    [ $format != hf ] || check "and is called a folder" grep -q "^$out: Hugging Face folder, llama, " out
done
check "the vocabulary of a .bin is beside it" sh -c '"$0" tokenize out.bin "$1" --tokenizer out.tokenizer.bin > beside; "$0" tokenize one.lemon "$1" | cmp - beside' "$lemon" "Once there was"
expect 0 "" convert one.lemon shards/ --shard-size 20k --quiet
check "--shard-size makes shards" test -f shards/model.safetensors.index.json -a -f shards/model-00002-of-*.safetensors
expect 0 "" convert shards shards --dtype bf16 --shard-size 1G --quiet
check "a folder is replaced, its old index gone" test -f shards/model.safetensors -a ! -f shards/model.safetensors.index.json
expect 2 "dtype is q8, which a Hugging Face folder cannot carry" convert one.lemon folder --dtype q8
check "what is refused leaves no folder" test ! -e folder -a ! -e folder.tmp
expect 2 "dtype is bf16, which llama2.c" convert one.lemon x.bin --dtype bf16
run convert one.lemon c.lemon --dtype q8 --quiet
expect 0 "f32" convert c.lemon from-q8 --quiet
run convert c.lemon q8.bin --json --quiet
check "q8 as llama2.c's version 2" test "$(od -An -td4 -j4 -N4 q8.bin | tr -d ' ')" = 2
check "which is q8" test "$(field dtype)" = '"q8"'
run convert q8.bin again.bin --quiet
check "and stays so where no type is given" test "$(od -An -td4 -j4 -N4 again.bin | tr -d ' ')" = 2
if command -v python3 > /dev/null; then
    run convert out.gguf plain.lemon --dtype f32 --quiet
    python3 "$here/../examples/lemon_read.py" plain.lemon tok_embed > plain.txt
    python3 "$here/../examples/lemon_read.py" c.lemon tok_embed > rounded.txt
    check "lemon_read.py reads f32 and q8" sh -c 'paste -d " " plain.txt rounded.txt | awk "{ n = NF / 2
        for (i = 1; i <= n; i++) { d = \$i - \$(i + n); if (d < 0) d = -d; if (d > worst) worst = d } }
        END { exit !(NR > 200 && worst > 0 && worst < 0.01) }"'
else
    skip "lemon_read.py"
fi
expect 0 "" convert one.lemon array.h --quiet
check "a C array compiles" sh -c 'echo "#include \"array.h\"" > array.c && ${CC:-cc} -c array.c -o array.o'

# ---- a reader without a heap ----

no_heap=$here/../examples/10_no_heap.c
check "10_no_heap.c compiles, with a file" ${CC:-cc} -std=c99 -Wall -Wextra -pedantic -Werror -g -fsanitize=address,undefined \
    -fno-sanitize-recover=all "$no_heap" -o no_heap -lm
check "and with an array" ${CC:-cc} -std=c99 -O1 -DMODEL_FILE='"array.h"' -DMODEL=array_lemon -I. "$no_heap" -o no_heap_array -lm
if command -v nm > /dev/null; then
    check "it calls nothing that allocates" sh -c '! nm -u no_heap_array | grep -qE "alloc|free|fopen"'
fi
check "it lists keys and tensors" sh -c './no_heap one.lemon | grep -q "^layers.0.w_down f32 "'
check "the array says the same" sh -c './no_heap one.lemon > a.txt && ./no_heap_array | cmp - a.txt'
check "and has the same numbers" sh -c './no_heap one.lemon tok_embed > a.txt && ./no_heap_array tok_embed | cmp - a.txt && test $(wc -l < a.txt) -eq 300'
if command -v python3 > /dev/null; then
    for dtype in f32 bf16 f16 q8 q4; do
        run convert one.lemon t.$dtype.lemon --dtype $dtype --quiet
        for tensor in layers.1.w_down final_norm tokenizer.lengths tokenizer.pieces; do
            ./no_heap t.$dtype.lemon $tensor > a.txt
            python3 "$here/../examples/lemon_read.py" t.$dtype.lemon $tensor | cmp -s - a.txt || echo "$dtype $tensor" >> differ.txt
        done
    done
    check "10_no_heap.c and lemon_read.py read the same numbers of every type" test ! -e differ.txt -a -s a.txt
fi
refused=0
size=$(wc -c < t.q4.lemon 2> /dev/null || echo 0)
for at in 0 7 9 17 25 33 41 57 61 64 70 200 700 1200 $((size - 100)); do
    head -c "$at" t.q4.lemon > short.lemon
    cp t.q4.lemon flipped.lemon && printf '\377' | dd of=flipped.lemon bs=1 seek="$at" conv=notrunc 2> /dev/null
    for file in short.lemon flipped.lemon; do
        ./no_heap $file > a.txt 2> b.txt
        [ $? -eq 1 ] && [ ! -s b.txt ] && grep -q "damaged" a.txt && refused=$((refused + 1))
    done
done
holds "10_no_heap.c refuses what is cut short or bent, $refused of 30" "$refused == 30"

# ---- what cannot be done ----

: > empty.lemon
head -c 5000 one.lemon > cut.lemon
head -c 30 one.lemon > stub.lemon
printf 'Once upon a time there was a text that was no model at all, and that was that.' > prose.lemon
head -c 4096 /dev/zero > zero.bin
cp one.lemon bent.lemon && printf 'XYZ' | dd of=bent.lemon bs=1 seek=3000 conv=notrunc 2> /dev/null
for file in empty.lemon cut.lemon stub.lemon prose.lemon zero.bin bent.lemon f.ops whole.resume f.html tok.bin none.lemon .; do
    expect 1 "$file" info $file
done
for file in empty.lemon cut.lemon prose.lemon one.lemon none.bin; do
    expect 1 "$file" tokenize m.lemon hello --tokenizer $file
done
for file in empty.lemon one.lemon whole.resume; do
    expect 1 "$file" fuse one.lemon o.lemon $shape --operators $file
done
expect 1 "none.txt" eval m.lemon --data none.txt
: > empty.txt
printf 'abc' > odd.u16
expect 1 "empty.txt: tokens is 0, expected at least 2" eval m.lemon --data empty.txt
expect 1 "odd.u16" eval m.lemon --data odd.u16
expect 1 "empty.txt: tokens is 0, expected at least 2" train m.lemon o.lemon --data text.txt --steps 2 --eval-data empty.txt
printf '\5\0\6\0\7\0\10\0\11\0' > few.u16
expect 1 "few.u16: the text has 5 tokens, expected at least 33" train m.lemon o.lemon --data few.u16 --steps 2 --seq 32
expect 1 "few.u16: the text has 5 tokens, too few to fuse by, expected at least 48" fuse m.lemon o.lemon $shape --data few.u16

# Questions: the likelihoods are those of eval, so a choice of what the model says greedily wins; ties are wrong.
said=$("$lemon" generate m.lemon --prompt "a" --temp 0 -n 1 --json --quiet | tail -n 1 | sed 's/.*"text": \("[^"]*"\).*/\1/')
printf '{"id": 7, "of": {"a": [1.5e3 , "\\"]}"], "b": {}}, "prompt": "a", "choices": [%s, "\\u00e9\\n"], "answer": 0}\n\n%s\n' "$said" \
    '{"answer":1,"choices":["x","x"],"prompt":"","why":null}' > c.jsonl
run eval m.lemon --choices c.jsonl --json
fields "eval --choices" accuracy accuracy_normalised items
holds "what is said greedily wins, a tie is wrong" "$(field items) == 2 && $(field accuracy) == 0.5"
for bad in '{"prompt": "a", "choices": ["b"], "answer": 0}' '{"prompt": "a", "choices": ["b", "c"], "answer": 2}' \
    '{"prompt": "a", "choices": ["b", "c\ud800"], "answer": 0}' '{"prompt": "a", "choices": ["b", "c"], "answer": 0} x' '[' \
    '{"prompt": "a", "choices": ["b", "c"], "answer": "0"}' '{"more": [1, {"prompt": "a", "choices": ["b", "c"], "answer": 0}' \
    '{"more": "a, "prompt": "a", "choices": ["b", "c"], "answer": 0}' '{"more": }' '{"more": "'; do
    printf '%s\n' "$bad" > c.jsonl
    expect 1 "c.jsonl: line 1" eval m.lemon --choices c.jsonl
done
expect 2 "contradict" eval m.lemon --choices c.jsonl --data empty.txt
expect 1 "none/out.lemon" convert one.lemon none/out.lemon
# What the format of OUT cannot carry is said before the work, not after it.
expect 2 "head_dim is 8, expected 4" fuse one.lemon early.bin --dim 16 --layers 2 --heads 4 --kv-heads 2 --ffn 32 --tokens 1000
check "a fusion does not begin" test ! -e early.bin.part
expect 0 "" init wide.lemon --dim 16 --layers 1 --heads 4 --kv-heads 2 --head-dim 8 --ffn 32 --seq 32 --bytes --quiet
expect 2 "head_dim is 8, expected 4" train wide.lemon early.bin --data text.txt --steps 2 --log early.csv
check "nor does training" test ! -e early.csv
cp one.lemon keep.lemon
expect 1 "cut.lemon" convert cut.lemon keep.lemon
check "a failure leaves the old file as it was" cmp one.lemon keep.lemon
check "and nothing beside it" sh -c '! ls *.tmp'
LEMON_ISA=neon run info m.lemon
check "an ISA that this CPU lacks is wrong usage" test "$status" -eq 2

# ---- real data ----

if [ -z "$data" ]; then
    skip "the whole job on stories260K"
    done_checking
fi
real="--tokenizer $data/tok512.bin"
run eval "$data/stories260K.bin" $real --data "$data/tinystories_valid.txt" --json
holds "stories260K: loss 1.4447836 on 104,970 targets" "($(field loss) - 1.4447836)^2 < 1e-10 && $(field tokens) == 104970"
run eval "$data/stories260K-v1.bin" $real --data "$data/tinystories_valid.txt" --max-tokens 20000 --json
holds "stories260K-v1: loss 1.3531445 on the first 20,000" "($(field loss) - 1.3531445)^2 < 1e-10"
run tokenize "$data/stories260K.bin" "$(printf 'Hello, wörld! 日本 🙂\n\ttabs  two')" $real
check "tok512 gives the ids of shared/data" test "$(cat out)" = \
    "1 346 306 414 432 263 198 185 420 341 443 410 233 154 168 233 159 175 410 243 162 156 133 13 12 413 412 430 419 410 259 424 414"
run generate "$data/stories260K.bin" $real --prompt "Once upon a time, there was a dog" -n 160 --temp 0 --json
check "stories260K: greedy ids, token for token" test "$(field tokens | tr -d '[],')" = "$(tr -s ' \n' ' ' < "$data/greedy_dog.ids" | sed 's/ *$//')"
whole=$("$lemon" generate "$data/stories260K.bin" $real --prompt "Once upon a time, there was a dog" -n 160 --temp 0 --quiet)
check "--stop ends the text before it" test "${whole%%. He*}" != "$whole" -a "${whole%%. He*}" = "$("$lemon" generate \
    "$data/stories260K.bin" $real --prompt "Once upon a time, there was a dog" -n 160 --temp 0 --quiet --stop ". He")"
run generate "$data/stories260K.bin" $real -n 200 --temp 0 --json
check "and from BOS alone" test "$(field tokens | tr -d '[],')" = "$(tr -s ' \n' ' ' < "$data/greedy_empty.ids" | sed 's/ *$//')"
run fuse "$data/stories260K.bin" third.lemon $real --dim 48 --layers 3 --heads 6 --kv-heads 3 --ffn 112 --tokens 12k \
    --data "$data/tinystories_train.txt" --json
holds "stories260K fused to $(field student_params) parameters, about a third" \
    "$(field student_params) < 0.4 * $(field teacher_params) && $(field student_params) > 0.3 * $(field teacher_params)"
holds "it starts at $(field init_loss), below 3.7" "$(field init_loss) < 3.7"
run train third.lemon trained.lemon --data "$data/tinystories_train.txt" --steps 50 --batch 16 --seq 128 --lr 2e-3 --schedule constant \
    --eval-data "$data/tinystories_valid.txt" --json
loss=$(field eval_loss)
holds "after 50 steps it is at $loss, below 2.9" "$loss < 2.9"
run eval trained.lemon --data "$data/tinystories_valid.txt" --seq 128 --json
holds "loaded again it has that loss" "($(field loss) - $loss)^2 < 1e-10"
run generate trained.lemon --prompt "Once upon a time" -n 40 --temp 0 --json
check "and goes on with a story" test "$(field tokens | wc -w)" -gt 20
done_checking
