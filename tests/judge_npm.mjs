/*  What Hugging Face's own readers for JavaScript make of the files that lemon.h writes.

    node judge_npm.mjs gguf FILE           metadata and tensors by @huggingface/gguf, as JSON
    node judge_npm.mjs safetensors DIR     names and shapes by @huggingface/hub's safetensors reader, as JSON
    node judge_npm.mjs tokens DIR TEXT     ids of a text file by @huggingface/tokenizers                              */
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

const require = createRequire(path.join(process.cwd(), "build/judges/package.json"));
const load = async (name) => {
    const got = await import(require.resolve(name));
    return { ...got.default, ...got };
};
const [command, target, text] = process.argv.slice(2);
const plain = (key, value) => (typeof value === "bigint" ? Number(value) : value);

/*  The reader of repositories asks a server; this is one whose only repository is the folder. */
async function serve(url, options = {}) {
    const file = path.join(target, decodeURIComponent(new URL(url).pathname.split("/").pop()));
    if (!fs.existsSync(file)) return new Response("", { status: 404 });
    const all = fs.readFileSync(file);
    const range = /bytes=(\d+)-(\d+)/.exec(new Headers(options.headers).get("range") ?? "");
    const [from, to] = range ? [Number(range[1]), Math.min(Number(range[2]), all.length - 1)] : [0, all.length - 1];
    const headers = { "content-length": String(to - from + 1), "etag": '"1"',
                      "content-range": `bytes ${from}-${to}/${all.length}` };
    return new Response(options.method === "HEAD" ? null : all.subarray(from, to + 1), { status: range ? 206 : 200, headers });
}

if (command === "gguf") {
    const { gguf } = await load("@huggingface/gguf");
    const { metadata, tensorInfos } = await gguf(target, { allowLocalFile: true });
    for (const key of Object.keys(metadata)) if (Array.isArray(metadata[key])) metadata[key] = metadata[key].length;
    console.log(JSON.stringify({ metadata, tensors: tensorInfos.map((t) => [t.name, t.shape, t.dtype]) }, plain));
} else if (command === "safetensors") {
    const { parseSafetensorsMetadata } = await load("@huggingface/hub");
    const got = await parseSafetensorsMetadata({ repo: "local/model", fetch: serve, hubUrl: "http://127.0.0.1" });
    const headers = got.sharded ? Object.assign({}, ...Object.values(got.headers)) : got.header;
    delete headers.__metadata__;
    console.log(JSON.stringify({ sharded: got.sharded, tensors: headers }, plain));
} else if (command === "tokens") {        // by the JavaScript of the web, and by the library itself: they must agree
    const { Tokenizer } = await load("@huggingface/tokenizers");
    const read = (name) => JSON.parse(fs.readFileSync(path.join(target, name), "utf8"));
    const tokenizer = new Tokenizer(read("tokenizer.json"), read("tokenizer_config.json"));
    const string = fs.readFileSync(text, "utf8");
    const ids = tokenizer.encode(string).ids.join(" ");
    const original = require("@anush008/tokenizers").Tokenizer.fromFile(path.join(target, "tokenizer.json"));
    const same = (await original.encode(string)).getIds().join(" ");
    console.log(ids === same ? ids : `${ids} but ${same}`);
}
