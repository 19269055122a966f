// Compares ids with what another tokenizer gives the same strings:  node vocab_judge.mjs JUDGE VOCABULARY STRINGS IDS
//   hf             @huggingface/tokenizers on VOCABULARY, a tokenizer.json; special tokens are looked for
//   texts          the same, and what it makes of the ids, against IDS.texts
//   llama.cpp      node-llama-cpp on VOCABULARY, a GGUF file; special tokens are not looked for
//   vectors        VOCABULARY.inp and VOCABULARY.out, as they come with llama.cpp; STRINGS is then written, IDS read if there
//   llama, llama3, gpt2    the packages llama-tokenizer-js, llama3-tokenizer-js, gpt-tokenizer, which bring their own
// Exit status 1 if any string differs.  Packages are looked for in build/judges.
import fs from 'node:fs'

const [judge, vocabulary, strings, ids] = process.argv.slice(2)
const folder = new URL('./build/judges/', import.meta.url)
const module = path => import(new URL('node_modules/' + path, folder).href)

function * records (file, width) {
  const data = fs.readFileSync(file)
  for (let at = 0; at < data.length;) {
    const n = data.readUInt32LE(at) * width
    yield data.subarray(at + 4, at + 4 + n)
    at += 4 + n
  }
}

const judges = {
  async hf () {
    const { Tokenizer } = await module('@huggingface/tokenizers/dist/tokenizers.mjs')
    const t = new Tokenizer(JSON.parse(fs.readFileSync(vocabulary, 'utf8')), {})
    return s => t.encode(s, { add_special_tokens: false }).ids
  },
  async texts () {
    const { Tokenizer } = await module('@huggingface/tokenizers/dist/tokenizers.mjs')
    const t = new Tokenizer(JSON.parse(fs.readFileSync(vocabulary, 'utf8')), { clean_up_tokenization_spaces: false })
    return list => list.length ? t.decode(list, { skip_special_tokens: false, clean_up_tokenization_spaces: false }) : ''
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

const encode = await judges[judge]()
const mine = records(ids, 4), texts = judge === 'texts' ? records(ids + '.texts', 1) : null
let count = 0, bad = 0
for (const bytes of records(strings, 1)) {
  const got = mine.next().value, list = Array.from({ length: got.length / 4 }, (_, i) => got.readUInt32LE(4 * i))
  const want = texts ? encode(list) : Array.from(encode(bytes.toString('utf8')))
  count++
  if (texts) {
    const text = texts.next().value.toString('utf8')
    if (text !== want && bad++ < +(process.env.SHOW ?? 3)) console.log('  lemon ' + JSON.stringify(text.slice(0, 300)) + '\n  judge ' + JSON.stringify(want.slice(0, 300)))
    continue
  }
  if (want.length === list.length && want.every((id, i) => id === list[i])) continue
  if (bad++ < +(process.env.SHOW ?? 3)) console.log('  ' + JSON.stringify(bytes.toString('utf8').slice(0, 300)) + '\n    lemon ' + list.slice(0, 60).join(' ') + '\n    judge ' + want.slice(0, 60).join(' '))
}
console.log(`${bad ? 'FAIL' : 'ok  '} ${judge} ${vocabulary}: ${count} strings, ${bad} differ`)
process.exit(bad ? 1 : 0)
