#!/usr/bin/env python3
"""Adds keys of every type to a GGUF file, or says which of them are not in another: written without lemon.h.

gguf_keys.py add IN.gguf OUT.gguf
gguf_keys.py same A.gguf B.gguf      exit status 1 if a key of A is missing in B or has another value
"""
import struct, sys

NUMBERS = "BbHhIif?__Qqd"                       # struct's letters by GGUF's types; 8 is a text, 9 an array


def text(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def read(path):
    """The keys, each with its type and value as bytes; where they begin and end; all bytes of the file."""
    data, at, keys = open(path, "rb").read(), 24, {}

    def skip(kind):
        nonlocal at
        if kind == 8:
            at += 8 + struct.unpack_from("<Q", data, at)[0]
        elif kind == 9:
            item, n = struct.unpack_from("<IQ", data, at)
            at += 12
            for _ in range(n):
                skip(item)
        else:
            at += struct.calcsize(NUMBERS[kind])

    for _ in range(struct.unpack_from("<Q", data, 16)[0]):
        begin = at
        skip(8)
        name, value = data[begin + 8:at].decode(), at
        at += 4
        skip(struct.unpack_from("<I", data, value)[0])
        keys[name] = data[value:at]
    return keys, at, data


if sys.argv[1] == "same":
    mine, theirs = read(sys.argv[2])[0], read(sys.argv[3])[0]
    wrong = [k for k in mine if theirs.get(k) != mine[k]]
    print(len(mine), "keys;", len(wrong), "are missing or changed:", wrong)
    sys.exit(len(wrong) > 0)
keys, end, data = read(sys.argv[2])
added = [text("general.license") + struct.pack("<I", 8) + text("mit"), text("general.name") + struct.pack("<I", 8) + text("Näme"),
         text("general.source.huggingface.repository") + struct.pack("<I", 8) + text("someone/something"),
         text("general.tags") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b c"),
         text("tokenizer.chat_template") + struct.pack("<I", 8) + text("{% for m in messages %}{{ m }}\n{% endfor %}")]
for kind, letter in enumerate(NUMBERS):
    if letter != "_":
        value = struct.pack("<" + letter, 1.5 if letter in "fd" else 1)
        added += [text("x.one%d" % kind) + struct.pack("<I", kind) + value,
                  text("x.many%d" % kind) + struct.pack("<IIQ", 9, kind, 3) + 3 * value]
rows, at = struct.unpack_from("<Q", data, 8)[0], end
for _ in range(rows):                           # the table, behind which the data begin at a multiple of 32
    at += 8 + struct.unpack_from("<Q", data, at)[0]
    at += 4 + 8 * struct.unpack_from("<I", data, at)[0] + 12
head = data[:16] + struct.pack("<Q", len(keys) + len(added)) + data[24:end] + b"".join(added) + data[end:at]
open(sys.argv[3], "wb").write(head + bytes(-len(head) % 32) + data[at + -at % 32:])
