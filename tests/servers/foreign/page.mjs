// The page of what does not stop, in a real browser, driven through its own protocol over two pipes: no package is needed.
//
//     node page.mjs BROWSER SERVER [PICTURE]

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import assert from "node:assert/strict";

const [browserPath, serverPath, picture] = process.argv.slice(2);
const BUSY = 60_000, TASKS = 10_000;
const dir = mkdtempSync(join(tmpdir(), "debug-page-"));
const children = [];

const eventually = async (what, look) => {
  const until = Date.now() + BUSY;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > until) throw new Error("not in a minute: " + what);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};

const serve = async () => {
  const server = spawn(serverPath, [TASKS], { stdio: ["ignore", "pipe", "ignore"] });
  children.push(server);
  for await (const line of createInterface(server.stdout)) {
    const at = line.match(/^listening on (http:.*)$/);
    if (at) return at[1];
  }
  throw new Error("the server does not listen");
};

// Messages end with a zero byte.
const browse = () => {
  const flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server", "--remote-debugging-pipe", "--user-data-dir=" + join(dir, "profile")];
  const browser = spawn(browserPath, flags, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
  children.push(browser);
  const waiting = new Map(), said = [];
  let last = 0, rest = "";
  browser.stdio[4].setEncoding("utf8").on("data", (text) => {
    const messages = (rest + text).split("\0");
    rest = messages.pop();
    for (const message of messages.map((one) => JSON.parse(one))) {
      if (message.method) { said.push(message); continue; }
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
  const say = (method, params = {}, sessionId) => new Promise((resolve, reject) => {
    if (gone) return reject(gone);
    const id = ++last;
    waiting.set(id, { resolve, reject });
    browser.stdio[3].write(JSON.stringify({ id, method, params, sessionId }) + "\0");
  });
  return { say, said };
};

const test = async () => {
  const server = await serve();
  const { say, said } = browse();
  const { targetId } = await say("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await say("Target.attachToTarget", { targetId, flatten: true });
  const page = (method, params) => say(method, params, sessionId);
  await page("Emulation.setDeviceMetricsOverride", { width: 1100, height: 700, deviceScaleFactor: 1, mobile: false });
  await page("Page.enable");
  await page("Runtime.enable");
  await page("Log.enable");
  await page("Page.navigate", { url: server + "/debug/cancel" });
  const run = async (expression) => {
    const { result, exceptionDetails } = await page("Runtime.evaluate", { expression, returnByValue: true });
    if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails));
    return result.value;
  };
  const state = () => run("document.getElementById('state')?.textContent ?? ''");
  const count = () => run("document.querySelectorAll('.row').length");
  const press = (key) => run(`document.getElementById('only-${key}').click()`);
  const row = (name) => run(`[...document.querySelectorAll('.row')].find((row) => row.querySelector('.name').textContent === ${JSON.stringify(name)})?.textContent ?? ''`);

  // All are there, and few of them in the page.
  await eventually("the rows", async () => /^1000[0-9] here/.test(await state()));
  assert.ok((await count()) < 60, "only what is in view");
  assert.equal(await run("document.getElementById('space').offsetHeight / 30"), Number((await state()).split(" ")[0]));
  assert.match(await row("server"), /context/);
  assert.equal(await run("document.querySelectorAll('.row b, .row i').length"), 0, "names are text");
  // The one that can never be woken stands out from the beginning.
  await press("never_woken");
  assert.match(await row("lost"), /can never be woken/);
  assert.equal(await count(), 1);
  await press("never_woken");

  // Told to stop, all of them.
  assert.equal(await (await fetch(server + "/cancel", { method: "POST" })).text(), "true");
  await eventually("that they were told", async () => Number((await state()).match(/, (\d+) do not stop/)?.[1]) > TASKS);
  await press("not_looked");
  assert.match(await row("reader"), /has not looked since the cancel/);
  assert.match(await row("server"), /context/, "what is above is listed, too");
  await press("not_looked");
  assert.match(await run("document.querySelector('.row:nth-child(1)').parentElement.textContent"), /a <i>cause<\/i>/);
  // One of them is polled, and the page sees it by itself.
  await fetch(server + "/poll", { method: "POST" });
  await run("document.getElementById('search').value = 'DEAF'; document.getElementById('search').dispatchEvent(new Event('input'))");
  await eventually("that it goes on", async () => /was told, and goes on.*1 polls since/.test(await row("<b>deaf</b>")));
  await run("document.getElementById('search').value = ''; document.getElementById('search').dispatchEvent(new Event('input'))");

  // Scrolled to the end; a row that stays is the same element after the next answer.
  await run("document.getElementById('rows').scrollTop = 1e9");
  await eventually("the last rows", () => run("Math.max(...[...document.querySelectorAll('.row')].map((row) => +row.getAttribute('aria-rowindex'))) === +document.getElementById('rows').getAttribute('aria-rowcount')"));
  assert.ok((await count()) < 60);
  await run("window.kept = document.querySelector('.row'); window.before = document.getElementById('state').textContent");
  await eventually("the next answer", () => run("document.getElementById('state').textContent !== window.before"));
  assert.equal(await run("window.kept.isConnected"), true);
  // Folded.
  await run("document.getElementById('rows').scrollTop = 0");
  await eventually("the first rows", async () => (await row("server")) !== "");
  await run("[...document.querySelectorAll('.row')].find((row) => row.querySelector('.name').textContent === 'ingest').querySelector('.fold').click()");
  assert.ok((await run("+document.getElementById('rows').getAttribute('aria-rowcount')")) < 10);
  await run("[...document.querySelectorAll('.row')].find((row) => row.querySelector('.name').textContent === 'ingest').querySelector('.fold').click()");
  // How long it takes to take ten thousand rows in: the machine may have something else to do, but not each time.
  const took = await run("Math.min(...Array.from({ length: 5 }, () => { const begin = performance.now(); list(); return performance.now() - begin; }))");
  assert.ok(took < 500, "the list is made in " + took + " ms");

  assert.equal(await run("performance.getEntriesByType('resource').every((one) => one.name.startsWith(location.origin))"), true);
  if (picture) {
    const { data } = await page("Page.captureScreenshot", { format: "png" });
    writeFileSync(picture, Buffer.from(data, "base64"));
  }
  // As wide as a telephone.
  await page("Emulation.setDeviceMetricsOverride", { width: 360, height: 700, deviceScaleFactor: 1, mobile: true });
  assert.equal(await run("document.documentElement.scrollWidth <= innerWidth"), true, "as wide as the window");
  // Nothing was refused by the page's own policy, and no script has failed.
  const bad = said.filter((one) => one.method === "Runtime.exceptionThrown" || one.method === "Log.entryAdded" && one.params.entry.level === "error");
  assert.deepEqual(bad.map((one) => JSON.stringify(one.params)), []);
  console.log(`the page of what does not stop, in ${browserPath}: ${TASKS} rows, listed in ${took.toFixed(1)} ms`);
};

try {
  await test();
} finally {
  for (const child of children) child.kill("SIGKILL");
  await new Promise((resolve) => setTimeout(resolve, 200));
  // Processes of the browser's may still be writing there: what they leave is the system's to clean.
  try {
    rmSync(dir, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  } catch (error) {
    console.error("left behind:", error.message);
  }
}
