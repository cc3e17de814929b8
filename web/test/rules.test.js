// What the protocol asks of a program, tried against a scripted service: close codes, ids and repeats.
import assert from "node:assert/strict";
import { test } from "node:test";
import { launch, until } from "./browser.js";
import { frame, id, scripted, subscribed, welcome } from "./script.js";
import { serve } from "./service.js";

test("the page follows the protocol", async (t) => {
  const service = await serve(t);
  const browser = await launch(t);

  await t.test("it returns after the codes that allow it and after no other", async (t) => {
    const script = {
      opened(socket, n) {
        socket.send(welcome(), subscribed(socket.room));
        if (n % 2) setTimeout(() => socket.close(Number(socket.room), `because ${socket.room}`), 20);
      },
    };
    const { a, sockets } = await scripted(t, browser, service.url, script);
    for (const code of [1001, 1011, 1012, 1013, 4000, 4001, 4003, 4400, 4499]) {
      await a.join(String(code));
      await a.note("Joined").nth(1).waitFor();
      await a.note(`Connection lost (${code}: because ${code}).`).waitFor();
      assert.equal(sockets.length % 2, 0, `after ${code}`);
    }
    for (const code of [1000, 1002, 1003, 1007, 1009, 4500, 4501, 4502, 4503, 4504, 4700, 4999]) {
      sockets.length = 0;
      await a.join(String(code));
      await a.is("ended");
      await a.note(`Closed for good (${code}: because ${code}).`).waitFor();
      assert.equal(sockets.length, 1, `after ${code}`);
    }
    await a.button("Connect now").click();
    await a.is("open");
  });

  await t.test("it comes back at once after 1012, and not at once after another", async (t) => {
    const script = {
      opened(socket, n) {
        socket.send(welcome(), subscribed(socket.room));
        if (n === 1) setTimeout(() => socket.close(Number(socket.room), ""), 20);
      },
    };
    const { page, a, sockets } = await scripted(t, browser, service.url, script);
    await page.evaluate(() => (Math.random = () => 60)); // a wait of a minute where there is one
    await a.join("1012");
    await until("it is back", () => sockets.length === 2);
    sockets.length = 0;
    await a.join("1001");
    await a.is("waiting");
    assert.match(await a.root.locator(".when").textContent(), /^in [3-6]\d\.\d s$/);
    assert.equal(sockets.length, 1);
  });

  await t.test("it resumes each room from that room's newest id", async (t) => {
    const here = frame("chat", { text: "here" }, { room: "r" });
    const global = frame("chat", { text: "all" }, { room: "@global" });
    const script = {
      opened(socket, n) {
        socket.send(welcome(), subscribed("r"));
        if (n > 1) return;
        socket.send(here, global, frame("system", { event: "restored" }));
        setTimeout(() => socket.close(1001, ""), 50);
      },
    };
    const { a, sockets } = await scripted(t, browser, service.url, script);
    await a.join("r");
    await until("it is back", () => sockets.length === 2);
    assert.deepEqual(sockets[0].last, []);
    assert.deepEqual(sockets[1].last.sort(), [here.id, global.id].sort());
    assert.equal(sockets[1].query.get("refuse"), "close");
  });

  await t.test("cut before the room said anything, it resumes from the welcome", async (t) => {
    const first = welcome();
    const script = {
      opened(socket, n) {
        socket.send(n === 1 ? first : welcome());
        if (n === 1) setTimeout(() => socket.close(1001, ""), 20);
      },
    };
    const { a, sockets } = await scripted(t, browser, service.url, script);
    await a.join("r");
    await until("it is back", () => sockets.length === 2);
    assert.deepEqual(sockets[1].last, [first.id]);
  });

  await t.test("a message that comes twice is shown once", async (t) => {
    const one = frame("chat", { text: "one" }, { room: "r" });
    const again = { ...one, id: "01a2ffff-ffff-7000" + one.id.slice(18) };
    const script = { opened: (socket) => socket.send(welcome(), subscribed("r"), one, again, frame("chat", { text: "two" }, { room: "r" })) };
    const { a } = await scripted(t, browser, service.url, script);
    await a.join("r");
    await a.shows(["one", "two"]);
  });

  await t.test("the last 200 frames are kept, shown or not, and 500 messages", async (t) => {
    const script = { opened: (socket) => socket.send(welcome(), subscribed("r")) };
    const { a, sockets } = await scripted(t, browser, service.url, script);
    await a.join("r");
    await a.note("Joined").waitFor();
    const send = (from, to) => {
      for (let i = from; i < to; i++) sockets[0].send(frame("chat", { text: `m${i}` }, { room: "r" }));
      return a.message(`m${to - 1}`).waitFor();
    };
    const frames = a.root.locator(".frame");
    await send(0, 250);
    await a.button("Frames").click();
    for (const last of [249, 599]) {
      assert.equal(await frames.count(), 200);
      assert.match(await frames.first().textContent(), new RegExp(`"m${last - 199}"`));
      assert.match(await frames.last().textContent(), new RegExp(`"m${last}"`));
      if (last === 249) await send(250, 600);
    }
    assert.equal((await a.texts()).length, 500);
  });

  await t.test("a gap is shown where it is", async (t) => {
    const gap = frame("system", { event: "gap", reason: "limit" }, { room: "r" });
    const script = {
      opened: (socket) => socket.send(welcome(), frame("chat", { text: "before" }, { room: "r" }), gap, frame("chat", { text: "behind" }, { room: "r" }), subscribed("r", { recovered: false })),
    };
    const { a } = await scripted(t, browser, service.url, script);
    await a.join("r");
    await a.shows(["before", "behind"]);
    const lines = await a.root.locator(".log > *").allTextContents();
    assert.match(lines[1], /^Gap: more was missed than a resume brings/);
  });

  await t.test("what got no ack before a cut is sent again with the same key, after the replay, and what did is not", async (t) => {
    const acked = frame("chat", { text: "acked" }, { room: "r", from: "me" });
    const script = {
      opened(socket, n) {
        socket.send(welcome());
        if (n === 1) socket.send(subscribed("r"));
      },
      heard(socket, f) {
        if (f.data?.text === "acked") socket.send(frame("ack", { id: acked.id }, { room: "r", ref: f.ref }));
      },
    };
    const { a, sockets } = await scripted(t, browser, service.url, script);
    await a.join("r");
    await a.note("Joined").waitFor();
    await a.say("acked");
    await a.message("acked").getByText("sent", { exact: true }).waitFor();
    await a.say("unheard");
    await until("it is sent", () => sockets[0].got.length === 2);
    sockets[0].close(1001, "");
    await until("it is back", () => sockets.length === 2);
    await a.is("open");
    assert.equal(sockets[1].got.length, 0, "sent before the replay was over");
    sockets[1].send(acked, subscribed("r", { recovered: true }));
    await until("it is sent again", () => sockets[1].got.length > 0);
    const [first, again] = [sockets[0].got[1], sockets[1].got[0]];
    assert.deepEqual(again, first);
    assert.match(first.key, /^[0-9a-f]{16}$/);
    sockets[1].send(frame("ack", { id: id(), duplicate: true }, { room: "r", ref: again.ref }));
    await a.message("unheard").getByText("sent before").waitFor();
    await a.shows(["acked", "unheard"]);
  });

  await t.test("what was confirmed and then fell into a gap is not sent again", async (t) => {
    const script = {
      opened(socket, n) {
        socket.send(welcome());
        if (n > 1) socket.send(frame("system", { event: "gap", reason: "expired" }, { room: "r" }));
        socket.send(subscribed("r", n > 1 ? { recovered: false } : {}));
      },
      heard: (socket, f) => f.data?.text === "kept" && socket.send(frame("ack", { id: id() }, { room: "r", ref: f.ref })),
    };
    const { a, sockets } = await scripted(t, browser, service.url, script);
    await a.join("r");
    await a.note("Joined").waitFor();
    await a.say("kept");
    await a.message("kept").getByText("sent", { exact: true }).waitFor();
    sockets[0].close(1001, "");
    await a.note("Resumed with a gap").waitFor();
    await a.say("next");
    await until("the next is sent", () => sockets[1].got.length > 0);
    assert.equal(sockets[1].got[0].data.text, "next");
  });

  await t.test("a refused message says why; one that may be repeated is", async (t) => {
    const script = {
      opened: (socket) => socket.send(welcome(), subscribed("r")),
      heard(socket, f) {
        const often = socket.got.filter((g) => g.key === f.key).length;
        if (f.data.text === "never") socket.send(frame("error", { code: "hook_denied", error: "not here" }, { room: "r", ref: f.ref }));
        else if (often < 3) socket.send(frame("error", { code: "overloaded", error: "too much", retry_after_ms: 1 }, { room: "r", ref: f.ref }));
        else socket.send(frame("ack", { id: id() }, { room: "r", ref: f.ref }));
      },
    };
    const { a } = await scripted(t, browser, service.url, script);
    await a.join("r");
    await a.note("Joined").waitFor();
    await a.say("never");
    await a.message("never").getByText("not sent: not here").waitFor();
    await a.say("later");
    await a.message("later").getByText("sent", { exact: true }).waitFor();
  });
});
