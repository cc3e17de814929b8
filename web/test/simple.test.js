// The simplest program that resumes: it keeps the id of the last frame, whatever that was, and knows nothing else.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { launch, open, until } from "./browser.js";
import { road, serve } from "./service.js";

const program = `
class RealtimeClient {
connect() {
this.ws = new WebSocket(\`\${this.url}?last_id=\${this.lastMessageId}\`);
this.ws.onclose = () => this.scheduleReconnect();
this.ws.onmessage = (e) => {
const msg = JSON.parse(e.data);
this.lastMessageId = msg.id;
this.onMessage(msg);
};
}
scheduleReconnect() {
const delay = Math.min(1000 * Math.pow(2, this.retries), 30000);
setTimeout(() => this.connect(), delay);
this.retries++;
}
}
`;

// start runs the program in an empty page of another origin. Without retries being set its delay is none: it comes back at once, always.
async function start(t, browser, url, path) {
  const site = createServer((_, answer) => answer.setHeader("Content-Type", "text/html").end('<!doctype html><link rel="icon" href="data:,">'));
  site.listen(0, "127.0.0.1");
  await once(site, "listening");
  t.after(() => site.close());
  const page = await open(t, browser, `http://127.0.0.1:${site.address().port}`, { outage: true });
  await page.addScriptTag({ content: program });
  await page.evaluate((url) => {
    window.got = [];
    window.program = new RealtimeClient();
    program.url = url;
    program.onMessage = (msg) => got.push(msg);
    program.connect();
  }, url.replace("http", "ws") + path);
  await until("the first frame has come", () => page.evaluate(() => got.length > 0));
  return page;
}

// talk publishes n messages to each room from sessions of their own, as fast as they may.
const talk = (page, url, rooms, n) =>
  page.evaluate(
    async ({ url, rooms, n }) => {
      const say = async (room, name) => {
        const ws = new WebSocket(`${url}/ws/${room}`);
        await new Promise((resolve) => (ws.onopen = resolve));
        for (let i = 0; i < n; i++) {
          ws.send(JSON.stringify({ type: "chat", data: { text: `${room} ${name} ${i} ${"x".repeat((i * 37) % 500)}` } }));
          await new Promise((resolve) => setTimeout(resolve, 55));
        }
        ws.close();
      };
      await Promise.all(rooms.flatMap((room) => ["ann", "ben", "cat"].map((name) => say(room, name))));
    },
    { url: url.replace("http", "ws"), rooms, n },
  );

// history asks the service itself what was said in a room.
const history = (page, url, room) =>
  page.evaluate(
    async ({ url, room }) => {
      const ws = new WebSocket(`${url}/ws/${room}`);
      const all = [];
      let before;
      await new Promise((resolve) => (ws.onopen = resolve));
      do {
        ws.send(JSON.stringify({ type: "history", data: { limit: 100, before } }));
        const page = await new Promise((resolve) => (ws.onmessage = (e) => JSON.parse(e.data).type === "history" && resolve(JSON.parse(e.data).data)));
        all.unshift(...page.messages);
        before = page.next && all[0].id;
      } while (before);
      ws.close();
      return all.map((m) => m.id);
    },
    { url: url.replace("http", "ws"), room },
  );

// check waits until the program has all of a room, and that it has it in order.
async function check(t, page, url, room, n) {
  const want = await history(page, url, room);
  assert.equal(want.length, n);
  const got = () => page.evaluate((room) => got.filter((m) => m.room === room && m.type === "chat").map((m) => m.id), room);
  await until("everything has come", async () => {
    const have = new Set(await got());
    return want.every((id) => have.has(id));
  });
  const all = await got();
  assert.deepEqual([...new Set(all)], want, "not in the room's order");
  // On a young node too: what a resume looks for further back than the node goes was never his to get.
  const gaps = await page.evaluate((room) => got.filter((m) => m.room === room && m.data?.event === "gap").map((m) => m.data.reason), room);
  assert.deepEqual(gaps, []);
  t.diagnostic(`${room}: ${n} messages, ${all.length - n} repeats`);
}

test("a program that only keeps the last id has every message of its room", async (t) => {
  const service = await serve(t);
  const browser = await launch(t);
  const rnd = (n) => Math.floor(Math.random() * n);

  await t.test("with connections that end after any number of bytes", async (t) => {
    const way = await road(t, service.port);
    const page = await start(t, browser, way.url, "/ws/bytes");
    way.budget = () => rnd(5000);
    way.cut();
    await talk(page, service.url, ["bytes"], 60);
    way.budget = () => Infinity;
    await check(t, page, service.url, "bytes", 180);
    t.diagnostic(`${way.cuts} cuts`);
    assert.ok(way.cuts > 20, `only ${way.cuts} cuts`);
  });

  await t.test("when it also sends, and the last frame was an ack, a pong or an error", async (t) => {
    const way = await road(t, service.port);
    const page = await start(t, browser, way.url, "/ws/own");
    await page.evaluate(() => {
      let n = 0;
      const own = [{ type: "ping" }, { type: "nonsense", ref: "x" }, { type: "presence", data: { status: "online" }, ref: "y" }, { type: "who" }];
      setInterval(() => program.ws.readyState === 1 && program.ws.send(JSON.stringify(own[n++ % own.length])), 7);
    });
    way.budget = () => 800 + rnd(5000);
    way.cut();
    await talk(page, service.url, ["own"], 60);
    way.budget = () => Infinity;
    await check(t, page, service.url, "own", 180);
    t.diagnostic(`${way.cuts} cuts`);
    const types = await page.evaluate(() => [...new Set(got.map((m) => m.type))].sort());
    assert.deepEqual(types, ["chat", "error", "pong", "presence", "ack", "system"].sort());
    assert.ok(way.cuts > 20, `only ${way.cuts} cuts`);
  });

  await t.test("of several rooms, with a URL that has a query already", async (t) => {
    const way = await road(t, service.port);
    const page = await start(t, browser, way.url, "/ws?room=left&room=right");
    const talking = talk(page, service.url, ["left", "right"], 50);
    for (let i = 0; i < 12; i++) {
      await pause(100 + rnd(150));
      way.cut();
    }
    await talking;
    await check(t, page, service.url, "left", 150);
    await check(t, page, service.url, "right", 150);
  });

  await t.test("and goes on with a new service that has forgotten all, and says so", async (t) => {
    const old = await serve(t);
    const way = await road(t, old.port);
    const page = await start(t, browser, way.url, "/ws/deploy");
    await old.publish("deploy", { text: "old" });
    await until("it has come", () => page.evaluate(() => got.some((m) => m.data?.text === "old")));
    await old.stop();
    const next = await serve(t);
    way.port = next.port;
    await until("the gap is told", () => page.evaluate(() => got.some((m) => m.room === "deploy" && m.data?.event === "gap")));
    await next.publish("deploy", { text: "new" });
    await until("the new has come", () => page.evaluate(() => got.some((m) => m.data?.text === "new")));
  });
});
