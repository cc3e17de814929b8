// Chromium, and the page as a person uses it.
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const limit = 20_000; // for whatever is waited for; machines that test are slow

// launch starts a browser that talks to loopback only. It ends with the test.
export async function launch(t) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
  });
  t.after(() => browser.close());
  return browser;
}

// open opens a page. What the browser complains of, and a request to elsewhere, fails the test at its end; an outage that
// the test makes itself is no complaint.
export async function open(t, browser, url, { prepare, outage = false, ...options } = {}) {
  const context = await browser.newContext({ locale: "en-GB", viewport: { width: 1280, height: 800 }, ...options });
  context.setDefaultTimeout(limit);
  const page = await context.newPage();
  const complaints = [];
  const expected = outage ? /^WebSocket connection to '\S+' failed|^Failed to load resource/ : /^$/;
  page.on("console", (m) => ["error", "warning"].includes(m.type()) && !expected.test(m.text()) && complaints.push(m.text()));
  page.on("pageerror", (e) => complaints.push(String(e)));
  page.on("request", (r) => /^(data:|http:\/\/127\.0\.0\.1[:/])/.test(r.url()) || complaints.push("requested " + r.url()));
  t.after(async () => {
    await context.close();
    assert.deepEqual(complaints, [], "the browser complained");
  });
  await prepare?.(page);
  await page.goto(url);
  return page;
}

// until waits for something to become true.
export async function until(what, check) {
  const end = Date.now() + limit;
  while (!(await check())) {
    if (Date.now() > end) assert.fail(`not within ${limit} ms: ${typeof what === "string" ? what : await what()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

// pane is one half of the page.
export function pane(page, name) {
  const root = page.locator(`section[aria-label="Session ${name}"]`);
  const texts = () => root.locator(".msg .text").allTextContents();
  const p = {
    root,
    texts,
    button: (label) => root.getByRole("button", { name: label }),
    message: (text) => root.locator(".msg").filter({ has: page.getByText(text, { exact: true }) }),
    note: (text) => root.locator(".note").filter({ hasText: text }),
    say: async (text) => {
      await root.getByLabel("Message", { exact: true }).fill(text);
      await root.getByRole("button", { name: "Send" }).click();
    },
    join: async (room) => {
      await root.getByLabel("Room").fill(room);
      await root.getByRole("button", { name: "Join" }).click();
    },
    signIn: async (name) => {
      await root.getByLabel("Name", { exact: true }).fill(name);
      await root.getByRole("button", { name: "Sign in" }).click();
    },
    // people waits until these are in the list, each with what is said of him, in any order: "ann you", "ben away".
    people: (want) => {
      const shown = () => root.locator(".people li").evaluateAll((all) => all.map((el) => [...el.children].map((c) => c.textContent).filter(Boolean).join(" ")).sort());
      const all = [...want].sort().join("|");
      return until(
        async () => `session ${name} lists\n${all}; it lists\n${(await shown()).join("|")}`,
        async () => (await shown()).join("|") === all,
      );
    },
    typing: (want) => root.locator(".typing").filter({ hasText: want }).waitFor({ state: "attached" }),
    state: () => root.getAttribute("data-state"),
    is: (want) => until(async () => `session ${name} is ${want}; it is ${await p.state()}`, async () => (await p.state()) === want),
    joined: () => root.locator(".note").filter({ hasText: /^(Joined|Resumed)/ }).last().waitFor({ state: "attached" }),
    shows: (want) =>
      until(
        async () => `session ${name} shows\n${want.join("|")}; it shows\n${(await texts()).join("|")}`,
        async () => (await texts()).join("|") === want.join("|"),
      ),
  };
  return p;
}

// chat opens the page in a room of its own and waits until both sessions have joined.
export async function chat(t, browser, url, room, options) {
  const page = await open(t, browser, `${url}/?room=${room}`, options);
  const a = pane(page, "A");
  const b = pane(page, "B");
  await a.joined();
  await b.joined();
  return { page, a, b };
}
