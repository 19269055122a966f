// 10,000 strings, the same in every run: real text of many scripts, code, emoji, control characters, random characters of
// all of Unicode, and pieces of the vocabulary put together.  node vocab_strings.mjs OUT [TEXT FILE...]
// OUT is for each string its length (uint32) and its UTF-8 bytes.
// node vocab_strings.mjs OUT --characters: every character of Unicode instead, between a letter and a digit, behind a blank,
// and with marks of a low and a high class before and behind it.
import fs from 'node:fs'

const out = []
const put = s => {
  const bytes = Buffer.from(s.toWellFormed(), 'utf8'), head = Buffer.alloc(4)
  head.writeUInt32LE(bytes.length)
  out.push(head, bytes)
}
if (process.argv[3] === '--characters') {
  const part = c => { const s = String.fromCodePoint(c); return `a${s}1 ${s}x${s}\u0323${s}\u0345${s.normalize('NFD')}` }
  for (const [from, to] of [[0, 0xd800], [0xe000, 0x34000], [0xe0000, 0xe0200]])
    for (let c = from; c < to; c += 16) put(Array.from({ length: 16 }, (_, i) => part(c + i)).join(' '))
  fs.writeFileSync(process.argv[2], Buffer.concat(out))
  process.exit(0)
}

let state = 12345n
const below = n => {
  state = (state * 6364136223846793005n + 1442695040888963407n) & 0xffffffffffffffffn
  return Number((state >> 33n) % BigInt(n))
}
const pick = list => list[below(list.length)]

const scripts = [
  'The quick brown fox jumps over the lazy dog. ', "don't can't I'll we've they're I'm he'd It'S ALL'LL ", 'fa\u00e7ade na\u00efve \u00dcber stra\u00dfe ',
  '\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3067\u3059\u3002', '\u4e2d\u6587\u5b57\u7b26\uff0c\u6d4b\u8bd5\uff01', '\ud55c\uad6d\uc5b4 \ubb38\uc7a5\uc785\ub2c8\ub2e4. ',
  '\u0420\u0443\u0441\u0441\u043a\u0438\u0439 \u0442\u0435\u043a\u0441\u0442, ', '\u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac \u03ba\u03b5\u03af\u03bc\u03b5\u03bd\u03bf ',
  '\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u0648\u0627\u0644\u0646\u0635 ', '\u05e2\u05d1\u05e8\u05d9\u05ea \u05d8\u05e7\u05e1\u05d8 ',
  '\u0939\u093f\u0928\u094d\u0926\u0940 \u092a\u093e\u0920 ', '\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22\u0e17\u0e35\u0e48 ', '\u10e5\u10d0\u10e0\u10d7\u10e3\u10da\u10d8 ',
  '\u12a0\u121b\u122d\u129b ', '\u1780\u17b6\u179f\u17b6\u1781\u17d2\u1798\u17c2\u179a ', '\ud83d\ude42\ud83d\udc68\u200d\ud83d\udc69\u200d\ud83d\udc67\ud83c\uddf3\ud83c\uddf1\u2764\ufe0f\ud83d\udc4d\ud83c\udffd',
  'int main(void) {\n\treturn x->y[3] != 0x1F; // ok\n}\n', '<div class="a">&nbsp;</div>\r\n', '3.14159 1,000,000 2024-05-06 \u00bd \u2163 \u0661\u0662\u0663 \u4e09 ',
  'e\u0301a\u0308o\u0323\u0302 A\u030a \u1e9b\u0323 \u212b \u2126 \ufb01 \u1100\u1161\u11a8 \uac00\u11a8 ', '   \t\t  \n\n \r\n \u00a0\u3000\u2003 ', '\u2581\u2581 \u2581x',
  '\u0000\u0001\u0007\u001b[0m\u007f\u0080\u009f\u00ad', '\ufffd\ufffe\uffff\ufeff\u{10ffff}\u{e0100}\u{1f1e6}', '<s></s><unk><0x0A><|endoftext|> <|im_start|>user<|eot_id|>']

const random = () => {
  for (;;) {
    const kind = below(5)
    const c = kind === 0 ? below(0x80) : kind === 1 ? below(0x800) : kind === 2 ? below(0x10000)
      : kind === 3 ? 0x10000 + below(0x24000) : below(0x110000)
    if ((c & 0xf800) !== 0xd800) return String.fromCodePoint(c)
  }
}
const texts = process.argv.slice(3).map(f => fs.readFileSync(f, 'utf8'))
const piece = () => {
  const kind = below(8)
  if (kind < 3 && texts.length) {
    const t = pick(texts), at = below(t.length)
    return t.slice(at, at + 1 + below(60))
  }
  if (kind < 6) {
    const t = pick(scripts), at = below(2) ? 0 : below(t.length)
    return t.slice(at, at + 1 + below(t.length))
  }
  if (kind === 6) return Array.from({ length: 1 + below(12) }, random).join('')
  return pick([' ', '  ', '\n', 'a', '1', '12', '1234', "'", "'s", "'S", '\t', '.', '...', '\u00e9', '\u0301', '-']).repeat(1 + below(6))
}
for (let i = 0; i < 10000; i++) {
  let s = ''
  for (let n = 1 + below(i % 100 ? 5 : 60); n > 0; n--) s += piece()
  put(s)
}
fs.writeFileSync(process.argv[2], Buffer.concat(out))
