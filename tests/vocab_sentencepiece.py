"""Compares ids, and the texts of them, with what SentencePiece itself gives the same strings:
python3 vocab_sentencepiece.py FILE.model STRINGS IDS, laid out as vocab_ids.c has them."""
import struct, sys

import sentencepiece


def records(path, width):
    data, at = open(path, "rb").read(), 0
    while at < len(data):
        n = struct.unpack_from("<I", data, at)[0] * width
        yield data[at + 4:at + 4 + n]
        at += 4 + n


model, strings, ids = sys.argv[1:]
judge = sentencepiece.SentencePieceProcessor(model_file=model)
count = bad = 0
for string, mine, text in zip(records(strings, 1), records(ids, 4), records(ids + ".texts", 1)):
    mine = [i for i, in struct.iter_unpack("<I", mine)]
    bad += judge.encode(string.decode()) != mine or judge.decode(mine) != text.decode("utf-8", "replace")
    count += 1
print(f"sentencepiece {model}: {count} strings, {bad} differ")
sys.exit(bad > 0 or count == 0)
