// The page, driven through the browser's own protocol over two pipes: no package is needed.
//
//     node browser.mjs BROWSER SERVER [PICTURE]

import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import assert from "node:assert/strict";

const [browserPath, serverPath, picture] = process.argv.slice(2);
const BUSY = 30_000;
const dir = mkdtempSync(join(tmpdir(), "search-page-"));
const children = [];

const eventually = async (what, look) => {
  const until = Date.now() + BUSY;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > until) throw new Error("not in half a minute: " + what);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};

const serve = async (...args) => {
  const server = spawn(serverPath, args, { stdio: ["ignore", "pipe", "ignore"] });
  children.push(server);
  for await (const line of createInterface(server.stdout)) {
    const at = line.match(/^listening on (http:.*)$/);
    if (at) return at[1];
  }
  throw new Error("the server does not listen");
};

const metric = async (at, name) => {
  const text = await (await fetch(at + "/metrics")).text();
  return Number(text.split("\n").find((line) => line.startsWith(name + " ")).slice(name.length + 1));
};

// Messages end with a zero byte.
const browse = () => {
  const flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server", "--remote-debugging-pipe", "--user-data-dir=" + join(dir, "profile")];
  const browser = spawn(browserPath, flags, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
  children.push(browser);
  const waiting = new Map();
  let last = 0, rest = "";
  browser.stdio[4].setEncoding("utf8").on("data", (text) => {
    const messages = (rest + text).split("\0");
    rest = messages.pop();
    for (const message of messages.map((one) => JSON.parse(one))) {
      const { resolve, reject } = waiting.get(message.id) ?? {};
      waiting.delete(message.id);
      if (message.error) reject?.(new Error(JSON.stringify(message.error)));
      else resolve?.(message.result);
    }
  });
  let gone;
  const end = (why) => {
    gone ??= new Error("the browser is gone: " + why);
    waiting.forEach(({ reject }) => reject(gone));
  };
  browser.on("exit", (code, signal) => end(signal ?? code));
  browser.on("error", (error) => end(error.message));
  // Of what it is told when it is gone.
  browser.stdio[3]?.on("error", (error) => end(error.message));
  return (method, params = {}, sessionId) => new Promise((resolve, reject) => {
    if (gone) return reject(gone);
    const id = ++last;
    waiting.set(id, { resolve, reject });
    browser.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + "\0");
  });
};

const open = async (say, url, width, height = 800) => {
  const { targetId } = await say("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await say("Target.attachToTarget", { targetId, flatten: true });
  const page = (method, params) => say(method, params, sessionId);
  await page("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: width < 500 });
  await page("Page.enable");
  await page("Page.navigate", { url });
  const run = async (expression) => {
    const { result, exceptionDetails } = await page("Runtime.evaluate", { expression, returnByValue: true });
    if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails));
    return result.value;
  };
  await eventually("the page", () => run("document.readyState === 'complete' && document.activeElement?.id === 'q'"));
  const key = async (name, code, text) => {
    const of = { key: name, code: name, windowsVirtualKeyCode: code, text };
    await page("Input.dispatchKeyEvent", { type: "keyDown", ...of });
    await page("Input.dispatchKeyEvent", { type: "keyUp", ...of, text: undefined });
  };
  const type = (text) => page("Input.insertText", { text });
  return { page, run, key, type, close: () => say("Target.closeTarget", { targetId }) };
};

const test = async () => {
  const files = join(dir, "files");
  mkdirSync(files);
  for (let number = 0; number < 12; number += 1) {
    writeFileSync(join(files, `leaf-${number}.rs`), `// a file\nfn pour_${number}() { tea(<b>"${number}"</b>) }\n`);
  }
  const quick = await serve("--listen", "127.0.0.1:0", "--root", files);
  const slow = await serve("--listen", "127.0.0.1:0", "--root", files, "--slow", "100h");
  const say = browse();

  for (const width of [1000, 360]) {
    const { run, key, type, close } = await open(say, quick, width);
    // All is to be found, whatever else the machine has to do.
    assert.equal(await run("document.getElementById('timeout').value"), "500ms");
    await run("document.getElementById('timeout').value = '20s'");
    // By keyboard alone: the text has the focus, and Enter searches.
    await type("tea(<b>");
    await key("Enter", 13, "\r");
    await eventually("that all stopped", () => run("document.getElementById('facts').textContent.includes('all stopped')"));
    assert.equal(await run("document.querySelectorAll('#hits li').length"), 12);
    assert.equal(await run("document.querySelectorAll('#hits mark').length"), 12);
    // What is found is text, whatever it looks like.
    assert.equal(await run("document.querySelectorAll('#hits b').length"), 0);
    assert.equal(await run("document.getElementById('state').textContent"), "All has been searched.");
    assert.equal(await run("document.documentElement.scrollWidth <= innerWidth"), true, "as wide as the window");
    assert.equal(await run("performance.getEntriesByType('resource').every((one) => one.name.startsWith(location.origin) || one.name.startsWith('data:'))"), true);
    const tree = await run("document.getElementById('tree').textContent");
    assert.match(tree, /^search “tea\(<b>” limit 20s; nobody at workthread 1 /);
    assert.doesNotMatch(tree, /works/);
    // A bad question: the sentence is there.
    await run("document.getElementById('timeout').value = 'soon'; document.getElementById('q').focus()");
    await key("Enter", 13, "\r");
    await eventually("the sentence", () => run("document.getElementById('state').textContent.includes('no length of time')"));
    await close();
  }

  // Esc stops; so does closing the page.
  for (const [number, end] of ["Esc", "closing"].entries()) {
    const { run, key, type, close } = await open(say, slow, 1000);
    await run("document.getElementById('timeout').value = '60s'");
    await type("tea");
    await key("Enter", 13, "\r");
    await eventually("work", async () => (await metric(slow, "search_working")) > 0);
    await eventually("who works", () => run("document.querySelectorAll('#tree li.works').length > 0"));
    if (end === "Esc") {
      await key("Escape", 27);
      await eventually("the word on it", () => run("document.getElementById('state').textContent.startsWith('Stopped here')"));
    } else {
      await close();
    }
    await eventually(`the end of the work by ${end}`, async () => (await metric(slow, "search_working")) === 0);
    await eventually("the count of it", async () => (await metric(slow, 'search_ended_total{by="client_gone"}')) === number + 1);
  }

  // A file that cannot be opened to the end: what does not stop is named, and the file that it reads.
  const stuck = join(files, "leaf-7.rs");
  rmSync(stuck);
  execFileSync("mkfifo", [stuck]);
  const { run, key, type, close } = await open(say, quick, 1000);
  await type("tea");
  // A busy machine may take longer to get there.
  let late = [];
  const hangs = (text) => /^thread \d+ has not looked since the cancel, for .*, reads leaf-7\.rs$/.test(text);
  for (const limit of ["500ms", "4s", "20s"]) {
    await run(`document.getElementById('timeout').value = '${limit}'; document.getElementById('facts').replaceChildren()`);
    await key("Enter", 13, "\r");
    await eventually("who has not stopped, or that all have", () => run("/still at work|all stopped/.test(document.getElementById('facts').textContent)"));
    const stuck = await run("document.getElementById('facts').textContent.includes('still at work')");
    late = stuck ? await run("Array.from(document.querySelectorAll('#tree li.late'), (one) => one.textContent)") : [];
    if (late.some(hangs)) break;
  }
  assert.ok(late.some(hangs), late.join("; "));
  await close();
  if (picture) await paint(say);
};

// Three backends with the sources that Cargo keeps, on a disk that is not fast, and a limit that is met.
const paint = async (say) => {
  const backends = [];
  for (const number of [1, 2, 3]) backends.push((await serve("serve-backend", "--share", number + "/3", "--slow", "1ms")).slice("http://".length));
  const { page, run, key, type } = await open(say, await serve("--listen", "127.0.0.1:0", "--backends", backends.join()), 900, 560);
  const search = async (limit) => {
    await run(`document.getElementById('timeout').value = '${limit}'; document.getElementById('q').value = ''; document.getElementById('q').focus()`);
    await type("unsafe impl Send");
    await key("Enter", 13, "\r");
    await eventually("that all stopped", () => run("document.getElementById('facts').textContent.includes('all stopped')"));
  };
  // The first connects.
  await search("100ms");
  await search("500ms");
  const { data } = await page("Page.captureScreenshot", { format: "png" });
  writeFileSync(picture, Buffer.from(data, "base64"));
};

try {
  await test();
  console.log("the page in a browser: searches, shows hits, closes; the work has ended");
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  await Promise.all(children.map((child) => new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve();
    child.on("exit", resolve);
    child.kill("SIGKILL");
  })));
  // Processes of the browser's may still be writing there: what they leave is the system's to clean.
  try {
    rmSync(dir, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  } catch (error) {
    console.error("left behind:", error.message);
  }
}
