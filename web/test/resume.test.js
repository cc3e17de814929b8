import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { chat, launch, until } from "./browser.js";
import { road, serve } from "./service.js";

test("a connection may fail, the chat goes on", async (t) => {
  const service = await serve(t);
  const browser = await launch(t);

  await t.test("however often it is cut, nothing is missed and nothing is doubled", async (t) => {
    const way = await road(t, service.port);
    const { a, b } = await chat(t, browser, way.url, "cuts", { outage: true });
    const want = [];
    const cutting = (async () => {
      for (; way.cuts < 16; await pause(60)) way.cut();
    })();
    while (way.cuts < 16) {
      want.push(`m${want.length}`);
      await service.publish("cuts", { text: want.at(-1) });
    }
    await cutting;
    await a.shows(want);
    await b.shows(want);
  });

  await t.test("what was missed offline arrives when online again, and is marked", async (t) => {
    const { a, b } = await chat(t, browser, service.url, "offline");
    await b.say("before");
    await a.shows(["before"]);
    await a.button("Go offline").click();
    await a.is("offline");
    await b.say("while away");
    await service.publish("offline", { text: "from a shell" });
    await b.shows(["before", "while away", "from a shell"]);
    await a.shows(["before"]);
    await a.button("Go online").click();
    await a.note("Resumed: 2 replayed").waitFor();
    await b.say("after");
    await a.shows(["before", "while away", "from a shell", "after"]);
    assert.equal(await a.root.locator(".replayed").count(), 2);
    assert.equal(await b.root.locator(".replayed").count(), 0);
    assert.equal(await a.message("while away").locator(".replayed").count(), 1);
  });

  await t.test("the button cuts, and the session comes back by itself", async (t) => {
    const { a, b } = await chat(t, browser, service.url, "button");
    await a.button("Cut connection").click();
    await b.say("quick");
    await a.note("Resumed").waitFor();
    await a.shows(["quick"]);
  });

  await t.test("what was written offline is sent when online again", async (t) => {
    const { a, b } = await chat(t, browser, service.url, "queued");
    await a.button("Go offline").click();
    await a.say("one");
    await a.say("two");
    await a.message("two").getByText("waiting for the connection").waitFor();
    await b.say("zero");
    await b.shows(["zero"]);
    await a.shows(["one", "two"]);
    await a.button("Go online").click();
    await b.shows(["zero", "one", "two"]);
    await a.shows(["zero", "one", "two"]); // in the room's order
    await a.message("two").locator(".status", { hasText: /^sent$/ }).waitFor();
  });

  await t.test("a message that did not get through before a cut is sent again", async (t) => {
    const way = await road(t, service.port);
    const { a, b } = await chat(t, browser, way.url, "unheard", { outage: true });
    way.in = false;
    await a.say("unheard");
    await a.message("unheard").getByText("sending", { exact: true }).waitFor();
    way.cut();
    way.in = true;
    await b.shows(["unheard"]);
    await a.message("unheard").locator(".status", { hasText: /^sent$/ }).waitFor();
    await a.shows(["unheard"]);
  });

  await t.test("a message that got through, but whose ack did not, is not doubled", async (t) => {
    const way = await road(t, service.port);
    const { a, b } = await chat(t, browser, way.url, "unacked", { outage: true });
    const witness = await chat(t, browser, service.url, "unacked");
    way.out = false;
    await a.say("said");
    await a.message("said").getByText("sending", { exact: true }).waitFor();
    await witness.a.shows(["said"]);
    way.cut();
    way.out = true;
    await a.note("Resumed").waitFor();
    await b.note("Resumed").waitFor();
    await a.say("next");
    await a.shows(["said", "next"]);
    await b.shows(["said", "next"]);
    await witness.a.shows(["said", "next"]);
  });

  await t.test("a dead path is noticed by its silence", async (t) => {
    const way = await road(t, service.port);
    const { page, a } = await chat(t, browser, way.url, "dead", { outage: true, prepare: (page) => page.clock.install() });
    way.out = false;
    await page.clock.fastForward(15_000);
    assert.equal(await a.state(), "open");
    await page.clock.fastForward(11_000); // ping_ms is over: the page asks
    await page.clock.fastForward(5_000);
    assert.equal(await a.state(), "open");
    await page.clock.fastForward(6_000);
    await a.note("no sign of life").waitFor();
    way.cut();
    way.out = true;
    await page.clock.fastForward(30_000);
    await a.note("Resumed").waitFor();
  });

  await t.test("while nobody answers, it waits longer each time, up to 30 s", async (t) => {
    const way = await road(t, service.port);
    const prepare = async (page) => {
      await page.addInitScript(() => (Math.random = () => 30)); // the jitter's upper end, for slow machines in half minutes
      await page.clock.install();
    };
    const { page, a } = await chat(t, browser, way.url, "backoff", { outage: true, prepare });
    const wait = async () => Number.parseFloat((await a.root.locator(".when").textContent()).replace("in ", ""));
    way.refusing = true;
    way.cut();
    const waits = (s) => until(async () => `it waits ${s} times as long; it waits ${await wait()} s`, async () => 15 * s < (await wait()) && (await wait()) <= 30 * s);
    for (const want of [1, 2, 4, 8, 16, 30, 30]) {
      await waits(want);
      await page.clock.fastForward(want * 30_000);
    }
    await waits(30);
    way.refusing = false;
    await page.clock.fastForward(30 * 30_000);
    await a.note("Resumed").waitFor();
    way.cut();
    await waits(1);
  });
});

test("the page survives a new version of the service", async (t) => {
  const old = await serve(t);
  const way = await road(t, old.port);
  const { a, b } = await chat(t, await launch(t), way.url, "deploy", { outage: true });
  await a.say("before");
  await b.shows(["before"]);
  await old.stop();
  await a.note("The server ends this connection").waitFor();
  const next = await serve(t);
  way.port = next.port;
  // History was in the old process's memory, and the page says so.
  for (const p of [a, b]) {
    await p.note(/^Gap: .*position\.$/).waitFor();
    await p.note("Resumed with a gap").waitFor();
  }
  await b.say("after");
  await a.shows(["before", "after"]);
});
