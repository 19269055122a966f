// lemon.mjs TEACHER STUDENT - lemon.h from Node (and with it from Deno and Bun) by the wasm of examples/web: loads, generates,
// fuses, saves.   make -C ../web && node lemon.mjs ../data/teacher.lemon /tmp/student.lemon
import {readFileSync, writeFileSync} from "node:fs";

export class Lemon {
  // on: {progress(what, done, total, loss), step(step, loss, rate), token(bytes)}, each of them optional
  constructor(wasm, on = {}) {
    const module = new WebAssembly.Module(wasm), imports = {};
    const env = {
      seconds: () => performance.now() / 1000,
      progress: (what, done, total, loss) => on.progress?.(this.string(what), done, total, loss),
      step: (step, loss, rate) => on.step?.(step, loss, rate),
      token: (at, count) => this.pieces.push(this.slice(at, count)) && on.token?.(this.slice(at, count)),
    };
    for (const i of WebAssembly.Module.imports(module)) (imports[i.module] ??= {})[i.name] = env[i.name] ?? (() => 0);
    this.c = new WebAssembly.Instance(module, imports).exports;
    this.c._initialize?.();
    this.check(this.c.web_open());
  }
  slice(at, count) { return new Uint8Array(this.c.memory.buffer, at >>> 0, count >>> 0).slice(); }
  string(at) {
    const all = new Uint8Array(this.c.memory.buffer), from = at >>> 0;
    return new TextDecoder().decode(all.subarray(from, all.indexOf(0, from)));
  }
  out() { return this.slice(this.c.web_data(), this.c.web_bytes()); }
  number() { return Number(new TextDecoder().decode(this.out())); }
  check(status) { if (status) throw new Error(this.string(this.c.web_error())); }
  put(bytes) {
    const at = this.c.web_alloc(bytes.length) >>> 0;
    new Uint8Array(this.c.memory.buffer).set(bytes, at);
    return at;
  }
  with(text, call) {
    const at = this.put(new TextEncoder().encode(text + "\0"));
    try { this.check(call(at)); } finally { this.c.web_free(at); }
  }
  load(which, bytes) { this.check(this.c.web_load(which, this.put(bytes), bytes.length)); }      // 0: the teacher, 1: the student
  info(which) { this.check(this.c.web_info(which)); return JSON.parse(new TextDecoder().decode(this.out())); }
  text(bytes) {
    const at = this.put(bytes);
    try { this.check(this.c.web_text(at, bytes.length)); } finally { this.c.web_free(at); }
    return this.number();
  }
  fuse({method = "lemon", d_model, n_layers, n_heads, kv_heads, d_ffn, tokens = 2048}) {
    this.with(method, at => this.c.web_fuse(at, d_model, n_layers, n_heads, kv_heads, d_ffn, tokens));
    return this.number();                       // the student's loss on held-out text
  }
  train(steps, batch, seq, rate) { this.check(this.c.web_train(steps, batch, seq, rate)); return this.number(); }
  generate(which, prompt, n, temperature = 0, seed = 1) {
    this.pieces = [];
    this.with(prompt, at => this.c.web_generate(which, at, n, temperature, seed));
    return Buffer.concat(this.pieces).toString();
  }
  save() { this.check(this.c.web_save(0)); return this.out(); }
}

function main(teacher, student) {
  const lemon = new Lemon(readFileSync(new URL("../web/build/lemon.wasm", import.meta.url)));
  lemon.load(0, readFileSync(teacher));
  console.log("text" + lemon.generate(0, "Once upon a time", 20));
  lemon.fuse({d_model: 32, n_layers: 2, n_heads: 2, kv_heads: 1, d_ffn: 64});
  writeFileSync(student, lemon.save());
  lemon.load(1, readFileSync(student));
  console.log("student", lemon.info(1).params);
  try { lemon.load(1, new Uint8Array(100)); } catch (e) { console.log("error", e.message); }
}
if (process.argv[1] === new URL(import.meta.url).pathname) main(...process.argv.slice(2));
