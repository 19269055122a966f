"""A vocabulary of a GGUF file as Hugging Face's tokenizer.json, and of the "llama" type as llama2.c's tokenizer.bin and
SentencePiece's tokenizer.model too.

python3 vocab_gguf.py FILE.gguf OUT.json [OUT.bin OUT.model | --nfc]

Written without lemon.h in sight, so that its readers have something independent to read.  llama.cpp's test vectors come
with such files.  SentencePiece's scores become a list of merges as transformers makes it: every way to cut a piece in two
pieces, best piece first."""
import json, struct, sys

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
QWEN35 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def read(path):
    data = open(path, "rb").read()
    at = 8

    def number(kind):
        nonlocal at
        value = struct.unpack_from("<" + kind, data, at)[0]
        at += struct.calcsize(kind)
        return value

    def text():
        nonlocal at
        n = number("Q")
        at += n
        return data[at - n:at].decode("utf-8", "surrogateescape")

    def value(kind):
        if kind == 8:
            return text()
        if kind == 9:
            item, n = number("I"), number("Q")
            return [value(item) for _ in range(n)]
        return number("BbHhIif?__Qqd"[kind])

    assert data[:4] == b"GGUF"
    number("Q")
    keys = {}
    for _ in range(number("Q")):
        name = text()
        keys[name] = value(number("I"))
    return keys


def merges_of_scores(tokens, scores, types):
    ids = {t: i for i, t in enumerate(tokens) if types[i] == 1}
    found = []
    for i, t in enumerate(tokens):
        if types[i] == 1:
            cuts = [(ids[t[:k]], ids[t[k:]]) for k in range(1, len(t)) if t[:k] in ids and t[k:] in ids]
            found += [(-scores[i], i, a, b) for a, b in sorted(cuts)]
    return [tokens[a] + " " + tokens[b] for _, _, a, b in sorted(found, key=lambda m: m[:1] + m[2:])]


def pre_tokenizer(pre):
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    pattern = {"llama-bpe": LLAMA3, "qwen2": QWEN2, "qwen35": QWEN35}.get(pre)
    if pattern:
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        return {"type": "Sequence", "pretokenizers": [split, byte_level]}
    byte_level["use_regex"] = True
    if pre in ("refact", "starcoder", "command-r", "smollm"):
        digits = {"type": "Digits", "individual_digits": True}
        return {"type": "Sequence", "pretokenizers": [digits, byte_level]}
    assert pre in ("gpt-2", "mpt"), pre
    return byte_level


def convert(keys, nfc):
    g = lambda name, default=None: keys.get("tokenizer.ggml." + name, default)
    tokens, types, spm = g("tokens"), g("token_type"), g("model") == "llama"
    # llama.cpp takes </s> for a control token even where the file says otherwise (phi-3)
    added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": types[i] != 4 or t == "</s>"} for i, t in enumerate(tokens) if types[i] in (2, 3, 4)]
    bos = tokens[g("bos_token_id")] if g("add_bos_token", spm) else None
    template = ([{"SpecialToken": {"id": bos, "type_id": 0}}] if bos else []) + [{"Sequence": {"id": "A", "type_id": 0}}]
    specials = {bos: {"id": bos, "ids": [g("bos_token_id")], "tokens": [bos]}} if bos else {}
    out = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
           "pre_tokenizer": None,
           "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
           "post_processor": {"type": "TemplateProcessing", "single": template, "pair": [], "special_tokens": specials}}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": spm,
             "ignore_merges": g("pre") == "llama-bpe", "vocab": {t: i for i, t in enumerate(tokens)}}
    if spm:
        out["normalizer"] = {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
        out["decoder"] = {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
        model["unk_token"], model["fuse_unk"] = tokens[g("unknown_token_id", 0)], True
        model["merges"] = merges_of_scores(tokens, g("scores"), types)
    else:
        out["pre_tokenizer"] = pre_tokenizer(g("pre"))
        out["normalizer"] = {"type": "NFC"} if nfc else None    # Qwen and Command-R have it; GGUF cannot say so
        model["merges"] = g("merges")
    out["model"] = model
    return out


def write_bin(keys, path):
    tokens = keys["tokenizer.ggml.tokens"]
    names = {1: b"\n<s>\n", 2: b"\n</s>\n"}
    pieces = [names.get(i, t.replace("\u2581", " ").encode()) for i, t in enumerate(tokens)]
    with open(path, "wb") as out:
        out.write(struct.pack("<I", max(map(len, pieces))))
        for piece, score in zip(pieces, keys["tokenizer.ggml.scores"]):
            out.write(struct.pack("<fI", score, len(piece)) + piece)


def varint(n):
    return bytes([n & 127 | 128]) + varint(n >> 7) if n > 127 else bytes([n])


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value & (1 << 64) - 1)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def write_model(keys, path):
    g = lambda name, default: keys.get("tokenizer.ggml." + name, default)
    out = b""
    for token, score, kind in zip(g("tokens", 0), g("scores", 0), g("token_type", 0)):
        out += field(1, field(1, token.encode()) + field(2, score) + (field(3, kind) if kind != 1 else b""))
    out += field(2, field(3, 2) + field(4, len(g("tokens", 0))) + field(35, 1) + field(40, g("unknown_token_id", 0)) +
                 field(41, g("bos_token_id", 1)) + field(42, g("eos_token_id", 2)) + field(43, -1))
    out += field(3, field(1, b"identity") + field(2, b"") + field(3, 1) + field(4, 0) + field(5, 1))
    open(path, "wb").write(out)


if __name__ == "__main__":
    everything, nfc = read(sys.argv[1]), "--nfc" in sys.argv
    with open(sys.argv[2], "w", encoding="utf-8") as out:
        json.dump(convert(everything, nfc), out, ensure_ascii=False)
    if len(sys.argv) > 3 and not nfc:
        write_bin(everything, sys.argv[3])
        write_model(everything, sys.argv[4])
