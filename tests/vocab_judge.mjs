// Compares ids with what another tokenizer gives the same strings:  node vocab_judge.mjs JUDGE VOCABULARY STRINGS IDS
//   hf             Hugging Face's own library (Rust, as @anush008/tokenizers) on VOCABULARY, a tokenizer.json; special tokens
//                  are looked for; what it makes of the ids must be IDS.texts, too
//   llama.cpp      node-llama-cpp on VOCABULARY, a GGUF file; special tokens are not looked for
//   vectors        VOCABULARY.inp and VOCABULARY.out, as they come with llama.cpp; STRINGS is then written, IDS read if there
//   llama, llama3, gpt2    the packages llama-tokenizer-js, llama3-tokenizer-js, gpt-tokenizer, which bring their own
// Exit status 1 if any string differs, but for the reasons that are known of a judge and hold for that very string; see excuses.
// Packages are looked for in build/judges.
import fs from 'node:fs'
import { execFileSync } from 'node:child_process'
import { createRequire } from 'node:module'

const [judge, vocabulary, strings, ids] = process.argv.slice(2)
const folder = new URL('./build/judges/', import.meta.url)
const module = path => import(new URL('node_modules/' + path, folder).href)
const original = () => createRequire(folder)('@anush008/tokenizers')

function * records (file, width) {
  const data = fs.readFileSync(file)
  for (let at = 0; at < data.length;) {
    const n = data.readUInt32LE(at) * width
    yield data.subarray(at + 4, at + 4 + n)
    at += 4 + n
  }
}

let decode = null
const judges = {
  async hf () {
    const t = original().Tokenizer.fromFile(vocabulary)
    decode = list => t.decode(list, false)
    return async s => (await t.encode(s, null, { addSpecialTokens: false })).getIds()
  },
  async 'llama.cpp' () {
    const { getLlama } = await module('node-llama-cpp/dist/index.js')
    const llama = await getLlama({ gpu: false, build: 'never', logLevel: 'error' })
    const model = new llama._bindings.AddonModel(fs.realpathSync(vocabulary), { addonExports: llama._bindings, vocabOnly: true, useMmap: true })
    if (!await model.init()) throw new Error('llama.cpp does not load ' + vocabulary)
    return s => s === '' ? [] : Array.from(model.tokenize(s, false))
  },
  async llama () {
    const t = (await module('llama-tokenizer-js/llama-tokenizer.js')).default
    return s => s === '' ? [] : t.encode(s, false, true)
  },
  async llama3 () {
    const t = (await module('llama3-tokenizer-js/bundle/llama3-tokenizer-with-baked-data.js')).default
    return s => t.encode(s, { bos: false, eos: false })
  },
  async gpt2 () {
    const t = await module('gpt-tokenizer/esm/encoding/r50k_base.js')
    return s => t.encode(s, { disallowedSpecial: new Set() })
  }
}

// Which of \p{L}, \p{N}, \p{M}, \s a character is: in the original, in Node's Unicode, in the table of llama.cpp's source.
const kinds = ['\\p{L}', '\\p{N}', '\\p{M}', '\\s']
function originalKind () {
  const { Tokenizer } = original()
  const steps = kinds.map(Regex => Tokenizer.fromString(JSON.stringify({
    version: '1.0', truncation: null, padding: null, added_tokens: [], normalizer: null, post_processor: null, decoder: null,
    pre_tokenizer: { type: 'Split', pattern: { Regex }, behavior: 'Removed', invert: false },
    model: { type: 'WordLevel', vocab: { a: 0 }, unk_token: 'a' }
  })).getPreTokenizer())
  return c => steps.findIndex(p => p.preTokenizeString(c).length === 0)
}
const nodeKind = c => kinds.findIndex(k => new RegExp(k, 'u').test(c))
function llamaKind () {
  const git = ['-C', new URL('llama.cpp', folder).pathname, 'show', 'HEAD:src/unicode-data.cpp']
  const [, flags, spaces] = execFileSync('git', git, { encoding: 'utf8', maxBuffer: 1 << 26 }).split(/unicode_ranges_flags|unicode_set_whitespace/)
  const ranges = [...flags.matchAll(/\{(0x\w+), (0x\w+)\}/g)].map(m => [+m[1], +m[2]])
  const blank = new Set([...spaces.split('};')[0].matchAll(/0x\w+/g)].map(Number))
  return c => {
    const code = c.codePointAt(0), [, bits] = ranges.findLast(([from]) => from <= code)
    return bits & 4 ? 0 : bits & 2 ? 1 : bits & 16 ? 2 : blank.has(code) ? 3 : -1
  }
}

// Why a string may differ: it has a character that the judge's Unicode, older or newer, takes for another kind than the
// original does (U+FEFF, which is white space for JavaScript alone, is such a one); or one of whose bytes the vocabulary has
// no piece, for llama.cpp does not join what stands around that.  The judge `hf`, the original itself, has no excuse.
function excuses () {
  if (judge === 'hf' || judge === 'vectors') return () => false
  const theirs = judge === 'llama.cpp' ? llamaKind() : nodeKind, right = originalKind()
  const json = judge === 'llama.cpp' ? JSON.parse(fs.readFileSync(ids.replace('.ids', '.json'), 'utf8')) : null
  const letter = b => String.fromCodePoint(b <= 32 ? 256 + b : b >= 127 && b <= 160 ? 162 + b : b === 173 ? 323 : b)
  const missing = json?.pre_tokenizer ? b => !(letter(b) in json.model.vocab) : () => false
  return s => Buffer.from(s).some(missing) || Array.from(s).some(c => theirs(c) !== right(c))
}

if (judge === 'vectors') {
  const texts = fs.readFileSync(vocabulary + '.inp', 'utf8').split('\n__ggml_vocab_test__\n')
  const want = fs.readFileSync(vocabulary + '.out', 'utf8').split('\n')
  if (!fs.existsSync(ids)) {
    const length = b => { const n = Buffer.alloc(4); n.writeUInt32LE(b.length); return n }
    fs.writeFileSync(strings, Buffer.concat(texts.map(t => Buffer.from(t)).flatMap(b => [length(b), b])))
    process.exit(0)
  }
  let at = 0
  judges.vectors = async () => () => want[at++].trim().split(' ').filter(w => w).map(Number)
}

const encode = await judges[judge](), excused = excuses()
const mine = records(ids, 4), texts = decode ? records(ids + '.texts', 1) : null
let count = 0, bad = 0, known = 0
for (const bytes of records(strings, 1)) {
  const got = mine.next().value, list = Array.from({ length: got.length / 4 }, (_, i) => got.readUInt32LE(4 * i))
  const string = bytes.toString('utf8'), want = Array.from(await encode(string))
  const text = texts?.next().value.toString('utf8'), read = decode && list.length ? await decode(list) : texts ? '' : undefined
  count++
  if (want.length === list.length && want.every((id, i) => id === list[i]) && text === read) continue
  if (excused(string)) { known++; continue }
  if (bad++ >= +(process.env.SHOW ?? 3)) continue
  console.log('  ' + JSON.stringify(string.slice(0, 300)) + '\n    lemon ' + list.slice(0, 60).join(' ') + '\n    judge ' + want.slice(0, 60).join(' '))
  if (text !== read) console.log('    lemon ' + JSON.stringify(text.slice(0, 300)) + '\n    judge ' + JSON.stringify(read.slice(0, 300)))
}
const why = known ? `; ${known} for what the judge does not know` : ''
console.log(`${bad ? 'FAIL' : 'ok  '} ${judge} ${vocabulary}: ${count} strings, ${bad} differ${why}`)
process.exit(bad ? 1 : 0)
