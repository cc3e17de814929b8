// Small screens, the keyboard, and eyes that need contrast.
import assert from "node:assert/strict";
import { test } from "node:test";
import { chat, launch, until } from "./browser.js";
import { serve } from "./service.js";

// faint returns the visible texts whose contrast is below WCAG's AA.
const faint = () => {
  const parse = (c) => c.match(/[\d.]+/g).map(Number);
  const over = (top, under) => {
    const [r, g, b, a = 1] = parse(top);
    return [r, g, b].map((v, i) => v * a + under[i] * (1 - a));
  };
  const light = (c) => {
    const [r, g, b] = c.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (el) => (el ? over(getComputedStyle(el).backgroundColor, ground(el.parentElement)) : [255, 255, 255]);
  const found = [];
  for (const el of document.querySelectorAll("body *")) {
    const text = [...el.childNodes].filter((n) => n.nodeType === Node.TEXT_NODE).map((n) => n.data.trim()).join("");
    if (!text || !el.checkVisibility() || el.disabled) continue;
    const under = ground(el);
    const [hi, lo] = [light(over(getComputedStyle(el).color, under)), light(under)].sort((a, b) => b - a);
    const ratio = (hi + 0.05) / (lo + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${el.className || el.tagName}: ${text.slice(0, 40)}`);
  }
  return found;
};

test("the page is for everybody", async (t) => {
  const service = await serve(t);
  const browser = await launch(t);

  for (const width of [320, 390]) {
    await t.test(`at ${width} px one session is shown at a time, and nothing is cut off`, async (t) => {
      const { page, a, b } = await chat(t, browser, service.url, `phone${width}`, { viewport: { width, height: 740 }, hasTouch: true });
      const tab = (name) => page.getByRole("navigation").getByRole("button", { name: new RegExp(`^Session ${name}`) });
      assert.equal(await b.root.isVisible(), false);
      await a.say("a word that is longer than any screen: " + "x".repeat(200));
      await a.say("second");
      await page.getByRole("button", { name: "Session B, 2 new" }).tap();
      assert.equal(await a.root.isVisible(), false);
      await b.message("second").waitFor();
      assert.equal(await tab("B").getAttribute("aria-label"), "Session B");
      await b.signIn("somebody whose name is longer than a phone is wide, and then some");
      await b.note("Signed in as").waitFor();
      await b.is("open");
      await b.button("Frames").tap();
      await b.root.locator(".people summary").tap();
      await page.locator(".shell summary").tap();
      const cut = await page.evaluate(() => {
        const limit = document.documentElement.clientWidth;
        const hidden = [...document.querySelectorAll("button, input, .msg, .note, .frame, .people li")].filter((el) => el.checkVisibility() && el.getBoundingClientRect().right > limit);
        return { page: document.documentElement.scrollWidth - limit, hidden: hidden.map((el) => el.className) };
      });
      assert.deepEqual(cut, { page: 0, hidden: [] });
      const small = await b.root.locator("button").evaluateAll((all) => all.filter((el) => el.checkVisibility() && el.offsetHeight < 40).map((el) => el.textContent));
      assert.deepEqual(small.filter((text) => text !== "Older messages"), []);
    });
  }

  await t.test("everything can be done with the keyboard, in the order of reading, and focus is seen", async (t) => {
    const { page, a, b } = await chat(t, browser, service.url, "keys");
    await a.people(["Session A you", "Session B"]);
    await b.people(["Session A", "Session B you"]);
    await page.locator("h1").click();
    const order = [];
    for (let i = 0; i < 32; i++) {
      await page.keyboard.press("Tab");
      const at = await page.evaluate(() => {
        const el = document.activeElement;
        if (el === document.body) return "";
        if (getComputedStyle(el).outlineStyle === "none" || getComputedStyle(el).outlineWidth === "0px") return "unseen: " + el.outerHTML;
        return el.getAttribute("aria-label") ?? (el.labels?.[0] ?? el).textContent.trim();
      });
      if (!at) break;
      order.push(at);
    }
    const of = (name) => ["Frames", "Room", "Join", "Cut connection", "Go offline", "Name", "Sign in", "Away", "2 people here", `Messages of session ${name}`, "Older messages", "Message", "Send"];
    assert.deepEqual(order, [...of("A"), ...of("B"), "Publish to keys from a shell", "Command line", "Copy the command line", "grpcurl", "Copy the grpcurl line"]);

    await a.root.getByLabel("Message", { exact: true }).focus();
    await page.keyboard.type("typed");
    await page.keyboard.press("Enter");
    await b.shows(["typed"]);
    assert.equal(await a.root.getByLabel("Message", { exact: true }).evaluate((el) => el === document.activeElement && el.value === ""), true);
    await a.button("Go offline").focus();
    await page.keyboard.press("Space");
    await a.is("offline");
    await page.keyboard.press("Space");
    await a.is("open");
    await a.root.getByLabel("Room").focus();
    await page.keyboard.press("Control+A");
    await page.keyboard.type("other");
    await page.keyboard.press("Enter");
    await a.note("Joined other").waitFor();
    await a.button("Frames").focus();
    await page.keyboard.press("Enter");
    await a.root.getByRole("region", { name: "Frames of session A" }).waitFor();
  });

  await t.test("messages and the state of the connection are announced", async (t) => {
    const { a } = await chat(t, browser, service.url, "live");
    const log = a.root.getByRole("log");
    assert.equal(await log.getAttribute("aria-live"), "polite");
    await a.say("hear me");
    await log.getByText("hear me").waitFor();
    await a.root.getByRole("status").getByText("connected").waitFor();
    await a.button("Go offline").click();
    await a.root.getByRole("status").getByText("offline").waitFor();
  });

  for (const colorScheme of ["light", "dark"]) {
    await t.test(`text is readable in ${colorScheme}`, async (t) => {
      const { page, a, b } = await chat(t, browser, service.url, colorScheme, { colorScheme });
      await a.button("Go offline").click();
      await b.say("missed");
      await service.publish(colorScheme, { n: 1, ok: true });
      await a.button("Go online").click();
      await a.note("Resumed").waitFor();
      await a.button("Frames").click();
      await b.signIn("ben");
      await b.button("Away").click();
      await a.root.getByText(/1 away$/).waitFor();
      await b.say("sent");
      await b.button("Go offline").click();
      await b.say("waiting");
      assert.deepEqual(await page.evaluate(faint), []);
      await b.button("Go online").click();
      await b.join("..");
      await b.is("ended");
      const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      assert.equal(/^rgb\((\d+)/.exec(ground)[1] < 128, colorScheme === "dark");
      assert.deepEqual(await page.evaluate(faint), []);
    });
  }

  await t.test("the newest message is in sight, unless somebody has scrolled up to read", async (t) => {
    const { page, a } = await chat(t, browser, service.url, "scroll");
    const scroll = a.root.locator(".scroll");
    const below = () => scroll.evaluate((el) => el.scrollHeight - el.scrollTop - el.clientHeight);
    const drawn = () => page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
    await Promise.all(Array.from({ length: 40 }, (_, i) => service.publish("scroll", { text: `line ${i}` })));
    await until("all are there", async () => (await a.texts()).length === 40);
    await until(async () => `the end is in sight; ${await below()} px are below`, async () => (await below()) < 2);
    await a.button("Frames").click();
    await until(async () => `the end is still in sight; ${await below()} px are below`, async () => (await below()) < 2);
    await scroll.hover();
    await page.mouse.wheel(0, -10_000);
    await until("the reader is at the top", () => scroll.evaluate((el) => el.scrollTop === 0));
    await drawn();
    await service.publish("scroll", { text: "new" });
    await a.message("new").waitFor({ state: "attached" });
    await drawn();
    assert.equal(await scroll.evaluate((el) => el.scrollTop), 0);
  });
});
