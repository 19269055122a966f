#!/usr/bin/env python3
"""Reads a .lemon file with nothing but Python's standard library; the format stands at the top of lemon.h's chapter 8.

lemon_read.py FILE [TENSOR]      lists keys and tensors, or prints a tensor's numbers, a row on each line
"""
import struct, sys, zlib

TYPES = ["f32", "bf16", "f16", "q8", "q4", "u8", "i32", "f64"]


def parse(blob):
    """-> keys {name: int, float or bytes}, tensors {name: (type, rows, cols, bytes)}"""
    magic, version, flags, n_keys, n_tensors, keys_size, table_size, data_size, _, meta_crc, crc = struct.unpack(
        "<8s4I4Q2I", blob[:64])
    if magic != b"LEMON\r\n\x1a" or version != 1 or flags or crc != zlib.crc32(blob[:60]):
        raise ValueError("this is no .lemon file of version 1")
    at, end = 64, 64 + keys_size + table_size
    if meta_crc != zlib.crc32(blob[64:end]):
        raise ValueError("keys or table are damaged")
    keys, tensors, data = {}, {}, (end + 63) // 64 * 64
    for _ in range(n_keys):
        n, kind, size = struct.unpack_from("<HHI", blob, at)
        name, value = blob[at + 8:at + 8 + n].decode(), blob[at + 8 + n:at + 8 + n + size]
        keys[name] = struct.unpack("<q" if kind == 1 else "<d", value)[0] if kind < 3 else value
        at += 8 + n + size
    for _ in range(n_tensors):
        n, kind, rows, cols, offset, size, crc = struct.unpack_from("<HHQQQQI", blob, at)
        body = blob[data + offset:data + offset + size]
        if zlib.crc32(body) != crc:
            raise ValueError("a tensor is damaged")
        tensors[blob[at + 40:at + 40 + n].decode()] = (TYPES[kind], rows, cols, body)
        at += 40 + n
    return keys, tensors


def numbers(kind, cols, row):
    """The numbers of one row; q8 and q4 are blocks of 32 with an f16 scale, the last one padded."""
    if kind == "bf16":
        return [struct.unpack("<f", b"\0\0" + row[i:i + 2])[0] for i in range(0, 2 * cols, 2)]
    if kind not in ("q8", "q4"):
        return list(struct.unpack("<%d%s" % (cols, {"f32": "f", "f16": "e", "u8": "B", "i32": "i", "f64": "d"}[kind]), row))
    out, size = [], 34 if kind == "q8" else 18
    for at in range(0, len(row), size):
        scale, q = struct.unpack_from("<e", row, at)[0], row[at + 2:at + size]
        q = struct.unpack("<32b", q) if kind == "q8" else [(b & 15) - 8 for b in q] + [(b >> 4) - 8 for b in q]
        out += [scale * x for x in q]
    return out[:cols]


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    keys, tensors = parse(open(sys.argv[1], "rb").read())
    if len(sys.argv) > 2:
        kind, rows, cols, body = tensors[sys.argv[2]]
        for r in range(rows):
            print(*("%.9g" % x for x in numbers(kind, cols, body[r * len(body) // rows:(r + 1) * len(body) // rows])))
    else:
        for name, value in keys.items():
            print(name, "=", value if not isinstance(value, bytes) or len(value) < 60 else "%d bytes" % len(value))
        for name, (kind, rows, cols, _) in tensors.items():
            print(name, kind, [rows, cols])
