import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { test } from "node:test";
import { promisify } from "node:util";
import { chat, launch, pane } from "./browser.js";
import { serve } from "./service.js";

const run = promisify(execFile);

test("the page is a chat of two sessions", async (t) => {
  const service = await serve(t);
  const browser = await launch(t);

  await t.test("what one says both see, in one order, and the sender learns that it was sent", async (t) => {
    const { a, b } = await chat(t, browser, service.url, "both");
    await a.say("hello from A");
    await b.shows(["hello from A"]);
    await b.say("hello from B");
    await a.shows(["hello from A", "hello from B"]);
    await b.shows(["hello from A", "hello from B"]);
    await a.message("hello from A").locator(".status", { hasText: /^sent$/ }).waitFor();
    assert.equal(await a.message("hello from B").locator(".who").textContent(), "Session B");
    assert.equal(await b.message("hello from B").locator(".who").textContent(), "you");
  });

  await t.test("a burst keeps its order on both sides", async (t) => {
    const { a, b } = await chat(t, browser, service.url, "burst");
    const want = Array.from({ length: 30 }, (_, i) => `m${i}`);
    for (const text of want) await a.say(text);
    await b.shows(want);
    await a.shows(want);
  });

  await t.test("a message from the command line arrives, from whom it says", async (t) => {
    const { a, b } = await chat(t, browser, service.url, "shell");
    await service.publish("shell", { text: "built" }, "--from", "ci");
    await service.publish("shell", { build: 7, ok: true });
    await a.shows(["built", '{\n  "build": 7,\n  "ok": true\n}']);
    await b.shows(await a.texts());
    assert.equal(await a.message("built").locator(".who").textContent(), "ci");
    assert.equal(await a.root.locator(".msg .who").last().textContent(), "backend");
  });

  await t.test("rooms are apart, and a session can change its own", async (t) => {
    const { a, b } = await chat(t, browser, service.url, "old");
    await b.join("new/room:1");
    await b.note("Joined new/room:1").waitFor();
    await a.say("only here");
    await service.publish("new/room:1", { text: "only there" });
    await a.shows(["only here"]);
    await b.shows(["only there"]);
  });

  await t.test("data is shown as text, never as HTML", async (t) => {
    const { page, a } = await chat(t, browser, service.url, "html");
    const evil = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`;
    await service.publish("html", { text: evil }, "--from", "<b>bold</b>");
    await a.shows([evil]);
    assert.equal(await a.root.locator(".who").textContent(), "<b>bold</b>");
    await a.button("Frames").click();
    assert.equal(await page.title(), "realtime");
    assert.equal(await page.locator("img, b").count(), 0);
  });

  await t.test("frames are shown in both directions", async (t) => {
    const { a } = await chat(t, browser, service.url, "frames");
    await a.button("Frames").click();
    await a.say("look");
    await a.shows(["look"]);
    const frames = a.root.locator(".frame");
    await frames.filter({ hasText: "↑" }).filter({ hasText: '"text": "look"' }).waitFor();
    await frames.filter({ hasText: "↓" }).filter({ hasText: '"type": "ack"' }).waitFor();
    await frames.filter({ hasText: '"event": "welcome"' }).waitFor();
    await a.button("Frames").click();
    assert.equal(await a.root.locator(".frames").isVisible(), false);
  });

  await t.test("a refusal is readable and final", async (t) => {
    const { a } = await chat(t, browser, service.url, "fine");
    for (const [room, why] of [["..", /4502.*not a room name.*\/ last\)/], ["@global", /4502.*the server's own/]]) {
      await a.join(room);
      await a.is("ended");
      assert.match(await a.root.locator(".note").last().textContent(), why);
    }
    await a.join("fine");
    await a.is("open");
  });

  await t.test("the shell lines can be copied and do what they say", async (t) => {
    const { page, a, b } = await chat(t, browser, service.url, "general", { permissions: ["clipboard-read", "clipboard-write"] });
    await page.getByRole("button", { name: "Copy the command line" }).click();
    const line = await page.evaluate(() => navigator.clipboard.readText());
    assert.equal(line, `go run ./cmd/realtime publish general '{"text":"hi"}'`);
    await run("sh", ["-c", line.replace("go run ./cmd/realtime publish", `${service.bin} publish --addr ${service.grpc}`)]);
    await a.shows(["hi"]);
    await page.getByRole("button", { name: "Copy the grpcurl line" }).click();
    const call = await page.evaluate(() => navigator.clipboard.readText());
    const body = /^grpcurl -plaintext -d '(\{.*\})' 127\.0\.0\.1:9090 realtime\.v1\.PublisherService\/Publish$/.exec(call)[1];
    assert.deepEqual(JSON.parse(body), { room: "general", message: { data: '{"text":"hi"}' } });
    await b.join("it's;$(false)"); // refused, and harmless in a shell
    await b.is("ended");
    assert.equal(await page.locator(".shell code").first().textContent(), `go run ./cmd/realtime publish 'it'\\''s;$(false)' '{"text":"hi"}'`);
  });

  await t.test("two pages see each other", async (t) => {
    const one = await chat(t, browser, service.url, "pages");
    const two = await chat(t, browser, service.url, "pages");
    await one.a.say("from one");
    await two.b.shows(["from one"]);
    assert.match(await pane(two.page, "B").message("from one").locator(".who").textContent(), /^[a-z2-7]{6}…$/);
  });
});
