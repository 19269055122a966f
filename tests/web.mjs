/*  web.mjs speed TEACHER TEXT ISA WRITTEN TRAINED ...   a table: tokens a second in Node, and as a share of the native ones
    web.mjs page TEACHER TEXT                            the page in Chromium; expects TEXT, INIT and LOSS of the
                                                         environment; called by web.sh, prints ok and FAIL lines */
import {execFileSync} from "node:child_process";
import {createServer} from "node:http";
import {readFileSync} from "node:fs";
import {createRequire} from "node:module";
import {Lemon} from "../examples/bindings/lemon.mjs";

const [job, teacher, text, ...more] = process.argv.slice(2);
const folder = new URL("../examples/web/build/", import.meta.url), work = new URL("build/web/", import.meta.url);
const fuse = {d_model: 64, n_layers: 3, n_heads: 4, kv_heads: 2, d_ffn: 176, tokens: 4096};

function speed(native) {
  const lemon = new Lemon(readFileSync(new URL("lemon.wasm", folder)));
  const best = (tokens, what) => Math.max(...(process.env.UPDATE ? [1, 2, 3] : [1]).map(() => {
    const start = performance.now();
    what();
    return 1000 * tokens / (performance.now() - start);
  }));
  lemon.load(0, readFileSync(teacher));
  lemon.text(readFileSync(text));
  lemon.fuse(fuse);
  lemon.generate(0, "Once", 20);                // by then the machine code is the fast one
  const written = best(200, () => lemon.generate(0, "Once upon a time", 200)), trained = best(30 * 4 * 64, () => lemon.train(30, 4, 64, 2e-3));
  console.log("| one thread | tokens/s written | wasm's share | tokens/s trained | wasm's share |\n|---|---|---|---|---|");
  console.log(`| ${lemon.string(lemon.c.web_isa())}, Node ${process.versions.node.split(".")[0]} | ${written.toFixed(0)} | | ${trained.toFixed(0)} | |`);
  for (; native.length; native = native.slice(3)) {
    const [isa, w, t] = native;
    console.log(`| native, ${isa} | ${Number(w).toFixed(0)} | ${(written / w).toFixed(2)} | ${Number(t).toFixed(0)} | ${(trained / t).toFixed(2)} |`);
  }
}

const ok = (good, name, more = "") => console.log(good ? "ok   " + name : `FAIL ${name}: ${more}`);
const near = (a, b, by) => Math.abs(a - b) <= by;

async function page() {
  const {chromium} = createRequire(new URL("package.json", work))("playwright-core");
  const types = {html: "text/html", wasm: "application/wasm"}, fetched = [];
  const server = createServer((request, answer) => {
    const name = request.url === "/" ? "index.html" : request.url.slice(1);
    fetched.push(name);
    try { answer.writeHead(200, {"content-type": types[name.split(".").pop()]}).end(readFileSync(new URL(name, folder))); }
    catch { answer.writeHead(404).end(); }
  }).listen(0);
  const browser = await chromium.launch({executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-gpu"]});
  const view = await browser.newPage({viewport: {width: 1280, height: 900}});
  const errors = [];
  view.on("pageerror", e => errors.push(String(e)));
  view.on("console", m => m.type() === "error" && errors.push(m.text()));
  view.setDefaultTimeout(60000);
  const shown = id => view.textContent("#" + id);
  const done = async what => {
    await view.waitForFunction(w => { const t = document.getElementById("doing").textContent; return t.startsWith(w) && /done|not done/.test(t); }, what);
    return (await shown("doing")) + (await shown("problem"));
  };
  const saved = async () => {                   // the student's file
    const [file] = await Promise.all([view.waitForEvent("download"), view.click("#save")]);
    await done("Saving");
    return file.path();
  };
  const natively = async file => JSON.parse(execFileSync("../examples/lemon", ["eval", await file, "--data", text, "--json", "--quiet"])
    .toString().trim().split("\n").pop()).loss;
  const set = (id, value) => view.$eval("#" + id, (e, v) => { e.value = v; e.dispatchEvent(new Event("input")); e.dispatchEvent(new Event("change")); }, value);

  await view.goto(`http://localhost:${server.address().port}/`);
  await view.waitForFunction(() => document.getElementById("doing").textContent.startsWith("Ready"));
  ok((await shown("doing")).includes("wasm"), "the page starts with the vector kernels", await shown("doing"));
  server.close();                               // nothing is fetched any more: it works off-line
  ok(fetched.sort().join() === "index.html,lemon.wasm", "two files are all that is fetched", fetched.join());

  await view.setInputFiles("#file", {name: "broken.lemon", mimeType: "", buffer: Buffer.from("LEMON is not this")});
  ok((await done("Reading broken.lemon")).includes("not done") && (await shown("problem")).length > 10, "a broken file is refused in words", await shown("problem"));
  await view.setInputFiles("#file", teacher);
  ok((await done("Reading teacher.lemon")).includes(": done"), "a checkpoint by the file picker", await shown("problem"));
  ok(/Parameters[\d,]{5,}/.test(await shown("shape")) && (await shown("shape")).includes("Width128"), "its shape is shown", await shown("shape"));

  const bytes = readFileSync(text).toString();  // the text by dropping it
  await view.evaluate(t => {
    const data = new DataTransfer();
    data.items.add(new File([t], "text.txt"));
    dispatchEvent(new DragEvent("drop", {dataTransfer: data}));
  }, bytes);
  await view.waitForFunction(n => document.getElementById("text").value.length === n, bytes.length);
  ok(true, "a text by drag and drop");

  for (const [id, value] of Object.entries(fuse)) await set(id, value);
  ok((await shown("size")).includes("% of the teacher"), "sliders tell the student's size", await shown("size"));
  await view.focus("#d_model");
  await view.keyboard.press("ArrowRight");
  ok(await view.inputValue("#d_model") === "66", "a slider by the keyboard", await view.inputValue("#d_model"));
  await view.keyboard.press("ArrowLeft");
  await view.focus("#fuse");
  await view.keyboard.press("Enter");
  const fused = await done("Fusing"), init = Number(await view.getAttribute("#size", "data-loss"));
  ok(near(init, process.env.INIT, 0.02), `fused: loss ${init}, by the native tool ${process.env.INIT}`, fused);
  const maps = await view.$$eval("canvas.map", all => all.map(c => c.getAttribute("aria-label") + new Set(c.getContext("2d").getImageData(0, 0, c.width, c.height).data).size));
  ok(maps.length === 2 && maps.every(m => /\d x \d/.test(m)) && /64 x 128/.test(maps[1]), "heat maps of the operators", maps.join());

  const before = await natively(saved());
  await set("steps", 30), await set("batch", 4), await set("seq", 64), await set("rate", 0.002);
  await view.click("#train");
  await view.waitForFunction(() => /^Step \d/.test(document.getElementById("trained").textContent));
  ok(true, "the page tells of steps while it trains");
  const trained = await done("Training"), loss = Number(await view.getAttribute("#trained", "data-loss"));
  ok(near(loss, process.env.LOSS, 0.03), `trained: loss ${loss}, by the native tool ${process.env.LOSS}`, trained);
  const after = await natively(saved());
  ok(after < before, `training lowers the loss on its text: natively ${before.toFixed(4)} before, ${after.toFixed(4)} after`);
  ok(await view.$eval("#loss", c => new Set(c.getContext("2d").getImageData(0, 0, c.width, c.height).data).size > 3), "the curve is drawn");

  await set("who", "0"), await set("n", 20);
  await view.click("#say");
  await done("Writing");
  ok((await shown("said")).trim() === ("Once upon a time" + process.env.TEXT).trim(), "the teacher writes what it writes natively", await shown("said"));
  await set("who", "1");
  await view.click("#say");
  await done("Writing");
  ok((await shown("said")).length > 30, "the student writes", await shown("said"));

  await set("steps", 100000);
  await view.click("#train");
  await view.waitForFunction(() => losses.length > 3);
  await view.click("#stop");
  await done("Training");
  await view.waitForFunction(() => !document.getElementById("say").disabled);
  await view.click("#say");
  ok((await done("Writing")).includes(": done"), "work can be stopped, and the student is still there", await shown("problem"));
  ok(readFileSync(await saved()).length > 100000, "the student is saved");

  const unnamed = await view.$$eval("input, select, textarea, button, canvas, progress", all => all.filter(e =>
    !(e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim())).map(e => e.id));
  ok(unnamed.length === 0, "each control has a name for screen readers", unnamed.join());
  const {nodes} = await (await view.context().newCDPSession(view)).send("Accessibility.getFullAXTree");
  const tree = nodes.filter(n => !n.ignored).map(n => ({role: n.role?.value, name: n.name?.value ?? "", live: n.properties?.find(p => p.name === "live")?.value.value}));
  const roles = ["heading", "button", "textbox", "slider", "spinbutton", "combobox", /ima?g/, "progressbar", /region/, "log"];
  const wrong = roles.filter(r => { const all = tree.filter(n => n.role?.match(r)); return !all.length || all.some(n => !n.name.trim()); });
  ok(wrong.length === 0, "what a screen reader is told: all roles are there, each with its name", `${wrong.join()}: ${JSON.stringify(tree.filter(n => !n.name))}`);
  const live = tree.filter(n => n.live && n.live !== "off").map(n => n.live).sort().join();
  ok(/^assertive(,polite){2,}$/.test(live), "and it is told when the text, the work or an error changes", live);
  for (const [name, width, height, colorScheme] of [["phone", 360, 740, "light"], ["tablet", 820, 1180, "dark"], ["desk", 1440, 900, "light"]]) {
    await view.setViewportSize({width, height});
    await view.emulateMedia({colorScheme});
    const wide = await view.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    ok(wide <= 0, `nothing sticks out at ${width} pixels`, `${wide} pixels`);
    await view.screenshot({path: new URL(name + ".png", work).pathname, fullPage: true});
  }
  ok(errors.length === 0, "no error in the console", errors.join("; "));
  await browser.close();
}

if (job === "speed") speed(more); else await page();
