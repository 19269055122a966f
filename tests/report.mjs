/*  report.mjs FOLDER   the pages FOLDER/fuse.html and FOLDER/train.html in Chromium; called by report.sh, prints ok and FAIL
                        lines, leaves screenshots and PDFs beside them. */
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";
import {readFileSync} from "node:fs";

const folder = process.argv[2] + "/";
const {chromium} = createRequire(folder + "package.json")("playwright-core");
const ok = (good, name, more = "") => console.log(good ? "ok   " + name : `FAIL ${name}: ${more}`);
const sizes = [["phone", 360, 740], ["tablet", 820, 1180], ["desk", 1440, 900]];

/*  In the page: of all texts that show, the contrast with what is behind them (WCAG 2.1), and those below 4.5. */
function contrasts() {
  const parse = c => { const m = c.match(/[\d.]+/g)?.map(Number) ?? [0, 0, 0, 0]; return m.length < 4 ? [...m, 1] : m; };
  const over = (a, b) => a.slice(0, 3).map((v, i) => v * a[3] + b[i] * (1 - a[3])).concat(1);
  const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => {
    const layers = [];
    for (; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let worst = 21, bad = [], n = 0;
  for (let t; (t = walk.nextNode());) {
    const e = t.parentElement, style = getComputedStyle(e);
    if (!t.textContent.trim() || !e.getClientRects().length || e.closest("title, [aria-hidden]") || style.visibility === "hidden") continue;
    const paper = behind(e), a = light(over(parse(e.closest("svg") ? style.fill : style.color), paper)), b = light(paper);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    n++;
    worst = Math.min(worst, ratio);
    if (ratio < 4.5) bad.push(`"${t.textContent.trim().slice(0, 20)}" ${ratio.toFixed(2)}`);
  }
  return {worst, bad, n};
}

/*  In the page: lines and marks against the paper, which need 3. */
function lineContrasts() {
  const rgb = c => c.match(/[\d.]+/g).map(Number);
  const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = light(rgb(getComputedStyle(document.body).backgroundColor));
  return Math.min(...[...document.querySelectorAll("path.line, path.plus, path.minus")].map(p => light(rgb(getComputedStyle(p).stroke)))
    .map(l => (Math.max(l, paper) + 0.05) / (Math.min(l, paper) + 0.05)));
}

async function looks(view, name) {
  for (const [size, width, height] of sizes)
    for (const colorScheme of ["light", "dark"]) {
      const what = `${name}, ${size}, ${colorScheme}`;
      await view.setViewportSize({width, height});
      await view.emulateMedia({colorScheme});
      const wide = await view.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      const small = await view.evaluate(() => Math.min(...[...document.querySelectorAll("svg.plot text")].map(t =>
        parseFloat(getComputedStyle(t).fontSize) * t.ownerSVGElement.getBoundingClientRect().width / t.ownerSVGElement.viewBox.baseVal.width)));
      const text = await view.evaluate(contrasts), lines = await view.evaluate(lineContrasts);
      ok(wide <= 0, `${what}: nothing sticks out`, `${wide} pixels`);
      ok(small >= 10.5, `${what}: letters in figures have ${small.toFixed(1)} pixels`);
      ok(text.bad.length === 0 && lines >= 3, `${what}: contrast of ${text.n} texts at least ${text.worst.toFixed(2)}, of lines ${lines.toFixed(2)}`,
        text.bad.slice(0, 3).join(", "));
      await view.screenshot({path: `${folder}${name}-${size}-${colorScheme}.png`, fullPage: true});
    }
}

async function structure(view, name) {
  const found = await view.evaluate(() => {
    const all = s => [...document.querySelectorAll(s)], levels = all("h1, h2, h3").map(h => Number(h.tagName[1]));
    return {
      lang: document.documentElement.lang, title: document.title, scripts: all("script, link, img, iframe").length,
      headings: levels[0] === 1 && levels.filter(l => l === 1).length === 1 && levels.every((l, i) => i === 0 || l <= levels[i - 1] + 1),
      unnamed: all("svg").filter(s => !s.getAttribute("aria-label")).length + all("table").filter(t => !t.caption?.textContent.trim()).length,
      heads: all("thead th").filter(h => !h.scope).length + all("tbody th").filter(h => h.scope !== "row").length,
      ids: new Set(all("[id]").map(e => e.id)).size === all("[id]").length, main: all("main").length};
  });
  ok(found.lang === "en" && found.title.length > 5 && found.main === 1 && found.headings && found.ids, `${name}: language, title, main part, order of headings`, JSON.stringify(found));
  ok(found.unnamed === 0 && found.heads === 0, `${name}: each figure and table has a name, each head of a table its direction`, JSON.stringify(found));
  ok(found.scripts === 0, `${name}: no script, nothing from elsewhere`);
}

async function keyboard(view, name) {
  const reach = await view.evaluate(() => document.querySelectorAll("summary, [tabindex='0']").length);
  await view.evaluate(() => { document.activeElement.blur(); scrollTo(0, 0); });
  const seen = new Set();
  for (let i = 0; i < reach + 2; i++) {
    await view.keyboard.press("Tab");
    const at = await view.evaluate(() => { const e = document.activeElement; return e.matches("summary, [tabindex='0']") ? [...document.querySelectorAll("summary, [tabindex='0']")].indexOf(e) : -1; });
    if (at >= 0) seen.add(at);
  }
  const hidden = await view.evaluate(() => [...document.querySelectorAll("details:not([open]) [tabindex='0']")].length);
  ok(seen.size === reach - hidden, `${name}: the keyboard reaches all ${reach - hidden} folds and tables`, `${seen.size}`);
  const ring = await view.evaluate(() => { const e = document.querySelector("summary"); e.focus({focusVisible: true}); return getComputedStyle(e).outlineStyle; });
  ok(ring !== "none", `${name}: what has the focus shows it`);
  await view.focus("figure summary");
  await view.keyboard.press("Enter");
  const rows = await view.evaluate(() => document.querySelector("figure details[open] tbody")?.rows.length ?? 0);
  ok(rows > 1, `${name}: Enter opens the table of values`, `${rows} rows`);
}

async function values(view, name, touch) {
  const plot = view.locator("svg.plot").first();
  await plot.scrollIntoViewIfNeeded();
  const box = await plot.boundingBox(), x = box.x + box.width * 0.6, y = box.y + box.height * 0.5;
  const shown = () => view.evaluate(() => [...document.querySelectorAll(".tip")].filter(t => getComputedStyle(t).visibility === "visible").map(t => t.textContent));
  ok((await shown()).length === 0, `${name}: no value shows by itself`);
  if (touch) await view.touchscreen.tap(x, y); else await view.mouse.move(x, y);
  const tips = await shown();
  ok(tips.length === 1 && /at [\d.]+k?.*[\d.]{3,}/.test(tips[0]), `${name}: values under the ${touch ? "finger" : "pointer"}`, JSON.stringify(tips));
  await view.screenshot({path: `${folder}${name}-${touch ? "finger" : "pointer"}.png`});
}

async function paper(view, name) {
  await view.emulateMedia({media: "print", colorScheme: "dark"});
  const colours = await view.evaluate(() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]);
  ok(colours[0] === "rgb(255, 255, 255)" && colours[1] === "rgb(27, 27, 31)", `${name}: paper is white, also for those who read in the dark`, colours.join());
  await view.setViewportSize({width: 680, height: 980});            // what is left of A4 at 96 pixels an inch
  const wide = await view.evaluate(() => [...document.querySelectorAll("svg, table, pre, p")].filter(e => e.getBoundingClientRect().right > 680).map(e => e.tagName));
  ok(wide.length === 0, `${name}: nothing is cut off on paper`, wide.join());
  await view.pdf({path: `${folder}${name}.pdf`, format: "A4", margin: {top: "14mm", bottom: "14mm", left: "14mm", right: "14mm"}, printBackground: true});
  const pages = (readFileSync(`${folder}${name}.pdf`, "latin1").match(/\/Type\s*\/Page\b/g) ?? []).length;
  ok(pages > 0 && pages < 15, `${name}: ${pages} pages of PDF`);
}

const browser = await chromium.launch({executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-gpu"]});
for (const name of ["fuse", "train"]) {
  const view = await browser.newPage(), fetched = [], errors = [], url = pathToFileURL(`${folder}${name}.html`).href;
  view.on("request", r => fetched.push(r.url()));
  view.on("pageerror", e => errors.push(String(e)));
  view.on("console", m => m.type() === "error" && errors.push(m.text()));
  await view.goto(url);
  await structure(view, name);
  await looks(view, name);
  await view.setViewportSize({width: 1440, height: 900});
  await values(view, name, false);
  await view.mouse.move(0, 0);
  await keyboard(view, name);
  ok(fetched.length === 1 && errors.length === 0, `${name}: one file is all that is fetched, no error in the console`, fetched.concat(errors).join());
  await view.goto(url);
  await paper(view, name);
  const phone = await (await browser.newContext({viewport: {width: 360, height: 740}, hasTouch: true, isMobile: true})).newPage();
  await phone.goto(url);
  await values(phone, name, true);
}
await browser.close();
