// What the protocol says of tokens, of who is there and of pages, tried against a scripted service.
import assert from "node:assert/strict";
import { test } from "node:test";
import { launch, until } from "./browser.js";
import { frame, scripted, subscribed, tokens, welcome } from "./script.js";
import { serve } from "./service.js";

const member = (user_id, more) => ({ user_id, status: "online", since: "2026-01-15T10:30:00.000Z", sessions: 1, ...more });
const presence = (data, more) => frame("presence", data, { room: "r", ...more });
const chats = (from, to) => Array.from({ length: to - from }, (_, i) => frame("chat", { text: `m${from + i}` }, { room: "r" }));

// quiet is a service on which nothing happens by itself.
const quiet = (more) => ({ opened: (socket) => socket.send(welcome(), subscribed("r", more)) });

// hear waits for the n-th frame of a type that the page sent.
async function hear(socket, type, n = 1) {
  const all = () => socket.got.filter((f) => f.type === type);
  await until(() => `${n} frames ${type}; there are ${all().length}`, () => all().length >= n);
  return all()[n - 1];
}

test("the page follows the protocol of people", async (t) => {
  const service = await serve(t);
  const browser = await launch(t);
  const start = async (t, script, options) => {
    const all = await scripted(t, browser, service.url, script, options);
    await all.a.join("r");
    await all.a.joined();
    await until("it is there", () => all.sockets.length === 1);
    return all;
  };

  await t.test("all pages of who is there are read; what a frame says meanwhile is newer", async (t) => {
    const { a, sockets: [s] } = await start(t, quiet({ presence: "events", grants: "rwph" }));
    const first = await hear(s, "who");
    assert.equal(first.room, "r");
    s.send(
      presence({ status: "offline", user_id: "cat", since: "2026-01-15T10:30:00.000Z" }),
      presence({ changes: [{ status: "away", user_id: "ann", since: "2026-01-15T10:30:00.000Z" }, { status: "online", user_id: "eve", since: "2026-01-15T10:30:00.000Z" }] }),
      presence({ members: [member("ann"), member("ben", { sessions: 3 })], users: 4, sessions: 6, next: "ben" }, { ref: first.ref }),
    );
    const second = await hear(s, "who", 2);
    assert.equal(second.data.after, "ben");
    s.send(presence({ members: [member("cat"), member("me")], users: 4, sessions: 6 }, { ref: second.ref }));
    await a.people(["Session A you", "ann away", "ben 3 sessions", "eve"]);
    assert.equal(await a.root.locator(".note").filter({ hasText: "is here" }).count(), 0, "nobody came: they were there");
    s.send(presence({ status: "online", user_id: "cat", since: "2026-01-15T10:30:00.000Z" }), presence({ status: "online", user_id: "ann", since: "2026-01-15T10:30:00.000Z" }));
    await a.note("cat is here.").waitFor();
    await a.people(["Session A you", "ann", "ben 3 sessions", "cat", "eve"]);
    assert.equal(await a.note("ann").count(), 0);
  });

  await t.test("a question that comes too early is asked again, and one that failed is told", async (t) => {
    const { a, sockets: [s] } = await start(t, quiet({ presence: "events" }));
    const first = await hear(s, "who");
    await a.button("Older messages").click();
    s.send(frame("error", { code: "busy", error: "one at a time", retry_after_ms: 1 }, { room: "r", ref: first.ref }));
    assert.deepEqual(await hear(s, "who", 2), first);
    assert.equal(s.got.filter((f) => f.type === "history").length, 0, "two questions at once");
    s.send(frame("error", { code: "internal", error: "it broke" }, { room: "r", ref: first.ref }));
    await a.note("Who is here could not be read: it broke.").waitFor();
    const history = await hear(s, "history");
    s.send(frame("error", { code: "internal", error: "that too" }, { room: "r", ref: history.ref }));
    await a.note("Older messages could not be read: that too.").waitFor();
    await a.button("Older messages").click();
    await hear(s, "history", 2);
  });

  await t.test("a large room has numbers, and names again when it is small", async (t) => {
    const { a, sockets: [s] } = await start(t, quiet({ presence: "counts", users: 1500, sessions: 1700 }));
    await a.root.getByText("1,500 people here in 1,700 sessions, too many to name").waitFor();
    s.send(presence({ mode: "counts", users: 1, sessions: 1 }));
    await a.root.getByText("1 person here in 1 session, too many to name").waitFor();
    assert.equal(s.got.length, 0);
    s.send(presence({ mode: "events" }));
    const who = await hear(s, "who");
    s.send(presence({ members: [member("ann")], users: 1, sessions: 1 }, { ref: who.ref }));
    await a.people(["ann"]);
    s.send(presence({ mode: "counts", users: 2000, sessions: 2000 }));
    await a.people([]);
    await a.root.getByText("2,000 people here").waitFor();
  });

  await t.test("where presence is not told the page says so, and where one may not write", async (t) => {
    const { a, sockets: [s] } = await start(t, quiet({ presence: "off", grants: "r" }));
    await a.root.getByText("Who is here is not told").waitFor();
    await a.note("You may read here, but not write.").waitFor();
    assert.equal(await a.root.getByLabel("Message", { exact: true }).isVisible(), false);
    assert.equal(await a.button("Older messages").count(), 0);
    assert.equal(s.got.length, 0);
  });

  await t.test("it signs in by a subprotocol and renews in time, out of sight", async (t) => {
    const script = {
      opened(socket) {
        const user = socket.protocols.length ? "ann" : "me";
        socket.send(welcome({ user }), subscribed("r"));
      },
    };
    const { page, a, sockets } = await start(t, script, { prepare: (page) => tokens(page, (user, n) => `${user}-token-${n}`) });
    await a.button("Frames").click();
    await a.signIn("ann");
    await until("it is back", () => sockets.length === 2);
    assert.deepEqual(sockets[0].protocols, []);
    assert.deepEqual(sockets[1].protocols, ["realtime", "bearer.ann-token-1"]);
    assert.equal(sockets[1].query.get("refuse"), "close");
    sockets[1].send(frame("system", { event: "expiring", in_ms: 60_000 }));
    const auth = await hear(sockets[1], "auth");
    assert.deepEqual(auth.data, { token: "ann-token-2" });
    sockets[1].send(frame("system", { event: "renewed", expires: "2030-01-01T12:00:00.000Z" }));
    await a.note("The sign-in is renewed, until").waitFor();
    assert.doesNotMatch(await page.locator("body").textContent(), /token-/);
    sockets[1].close(1012, "");
    await until("it is back", () => sockets.length === 3);
    assert.deepEqual(sockets[2].protocols, ["realtime", "bearer.ann-token-2"]);
  });

  await t.test("after the token's end it comes back with a new one, and stays away if there is none", async (t) => {
    const answer = (user, n) => (n < 4 ? `${user}-${n}` : [403, { error: { code: "no", message: "not any more" } }]);
    const script = { opened: (socket) => socket.send(welcome({ user: socket.protocols.length ? "ann" : "me" }), subscribed("r")) };
    const { a, sockets } = await start(t, script, { outage: true, prepare: (page) => tokens(page, answer) });
    await a.signIn("ann");
    await until("it is back", () => sockets.length === 2);
    await a.is("open");
    sockets[1].close(4500, "token expired");
    await until("it is back", () => sockets.length === 3);
    assert.deepEqual(sockets[2].protocols, ["realtime", "bearer.ann-2"]);
    await a.is("open");
    sockets[2].send(frame("error", { code: "bad_token", error: "of a renewal" }));
    await a.note("Refused: of a renewal (bad_token).").waitFor();
    sockets[2].close(1012, "");
    await until("it is back", () => sockets.length === 4);
    assert.deepEqual(sockets[3].protocols, ["realtime", "bearer.ann-2"]);
    await a.is("open");
    sockets[3].send(frame("system", { event: "expiring", in_ms: 60_000 }));
    await hear(sockets[3], "auth");
    sockets[3].send(frame("system", { event: "expiring", in_ms: 60_000 }));
    await a.note("The sign-in could not be renewed: not any more.").waitFor();
    sockets[3].close(4500, "token expired");
    await a.is("ended");
    await a.note("Closed for good (4500: no new token: not any more).").waitFor();
    await a.button("Sign out").click();
    await until("it is back", () => sockets.length === 5);
    assert.deepEqual(sockets[4].protocols, []);
  });

  await t.test("a new token that is refused is not tried for ever, an old one is replaced once", async (t) => {
    const script = {
      opened(socket, n) {
        if (n !== 3 && n !== 4 && n !== 5) return socket.send(welcome({ user: "ann" }), subscribed("r"));
        socket.send(frame("error", { code: "bad_token", error: "not valid" }));
        socket.close(4502, "not valid");
      },
    };
    const { a, sockets } = await start(t, script, { prepare: (page) => tokens(page, (user, n) => `${user}-${n}`) });
    await a.signIn("ann");
    await until("it is back", () => sockets.length === 2);
    await a.is("open");
    sockets[1].close(1012, "");
    await a.is("ended");
    assert.deepEqual(sockets.slice(2).map((s) => s.protocols[1]), ["bearer.ann-1", "bearer.ann-2"]);
    await a.note("Closed for good (4502: not valid).").waitFor();
    await a.button("Connect now").click();
    await until("it was tried once more", () => sockets.length === 5);
    assert.equal(sockets[4].protocols[1], "bearer.ann-3");
    await a.is("ended");
  });

  await t.test("while nobody gives tokens, one stays who one is", async (t) => {
    const prepare = (page) => tokens(page, () => [503, { error: { code: "draining", message: "not now" } }]);
    const { a, sockets } = await start(t, quiet(), { outage: true, prepare });
    await a.signIn("ann");
    await a.note("Not signed in: not now.").waitFor();
    assert.equal(await a.state(), "open");
    assert.equal(sockets.length, 1);
  });

  await t.test("who does not look for a minute is away, and says so on each connection", async (t) => {
    const look = (page, hidden) =>
      page.evaluate((hidden) => {
        Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
        document.dispatchEvent(new Event("visibilitychange"));
      }, hidden);
    const script = {
      opened: (socket) => socket.send(welcome({ ping_ms: 1e9 }), subscribed("r")),
      heard: (socket, f) => f.type === "ping" && socket.send(frame("pong", null), frame("chat", { text: `pong ${++pongs}` }, { room: "r" })),
    };
    let pongs = 0;
    const { page, a, sockets } = await start(t, script, { prepare: (page) => page.clock.install() });
    const told = (s) => s.got.filter((f) => f.type === "presence").map((f) => f.data.status);
    const back = async (n) => {
      await look(page, false);
      await a.message(`pong ${n}`).waitFor(); // it also asks whether the path is alive
    };
    await look(page, true);
    await page.clock.fastForward(40_000);
    await back(1);
    await look(page, true);
    await page.clock.fastForward(59_000);
    assert.deepEqual(told(sockets[0]), []);
    await page.clock.fastForward(1_500);
    await hear(sockets[0], "presence");
    sockets[0].close(1012, "");
    await until("it is back", () => sockets.length === 2);
    await hear(sockets[1], "presence");
    await back(2);
    await hear(sockets[1], "presence", 2);
    assert.deepEqual([...told(sockets[0]), ...told(sockets[1])], ["away", "away", "online"]);
    await a.button("Away").click();
    await look(page, true);
    await page.clock.fastForward(61_000);
    await back(3);
    await a.button("Away").click();
    await hear(sockets[1], "presence", 4);
    assert.deepEqual(told(sockets[1]), ["away", "online", "away", "online"]);
  });

  await t.test("typing is told every 3 s at most, and no more where it is not taken", async (t) => {
    const { page, a, sockets: [s] } = await start(t, quiet(), { prepare: (page) => page.clock.install() });
    const field = a.root.getByLabel("Message", { exact: true });
    await field.pressSequentially("many letters");
    await page.clock.fastForward(2_900);
    await field.press("x");
    await page.clock.fastForward(200);
    await field.press("y");
    await until("it is told twice", () => s.typing.length === 2);
    assert.deepEqual(s.typing[0], { type: "typing", room: "r" });
    for (const from of ["ann", "me", "ben"]) s.send(frame("typing", null, { room: "r", from }));
    await a.typing("ann and ben are typing…");
    s.send(presence({ status: "offline", user_id: "ann" }));
    await a.typing("ben is typing…");
    s.send(frame("error", { code: "unknown_type", error: "no such type" }));
    await a.note("Others do not see that you are typing: no such type.").waitFor();
    await page.clock.fastForward(10_000);
    await field.press("z");
    await field.press("Enter");
    await hear(s, "chat");
    assert.equal(s.typing.length, 2);
  });

  await t.test("history is asked for before the first message, then by page, and says where it ends", async (t) => {
    const { a, sockets: [s] } = await start(t, quiet());
    const old = chats(0, 4);
    const now = frame("chat", { text: "now" }, { room: "r" });
    s.send(frame("chat", { text: "everywhere" }, { room: "@global" }), now);
    await a.message("now").waitFor();
    const older = a.button("Older messages");
    const answer = async (n, messages, more) => s.send(frame("history", { messages, ...more }, { room: "r", ref: (await hear(s, "history", n)).ref }));
    await older.click();
    await answer(1, [old[2], old[3], now], { next: "o2" });
    await a.shows(["m2", "m3", "everywhere", "now"]);
    await older.click();
    await answer(2, [], { next: "o1" }); // nothing for us on it: the next is asked for
    await answer(3, [old[0], old[1]], { truncated: true });
    await a.shows(["m0", "m1", "m2", "m3", "everywhere", "now"]);
    await a.root.getByText("Older messages are no longer kept.").waitFor();
    const asked = s.got.filter((f) => f.type === "history").map((f) => f.data);
    assert.deepEqual(asked, [{ limit: 50, before: now.id }, { limit: 50, page: "o2" }, { limit: 50, page: "o1" }]);
  });

  await t.test("what is no longer shown can be asked for again", async (t) => {
    const { a, sockets: [s] } = await start(t, quiet());
    const older = a.button("Older messages");
    await older.click();
    const first = await hear(s, "history");
    s.send(frame("history", { messages: chats(0, 2) }, { room: "r", ref: first.ref }));
    await a.root.getByText("This is the beginning").waitFor();
    const more = chats(2, 520);
    s.send(...more);
    await a.message("m519").waitFor();
    await older.evaluate((el) => el.click());
    const again = await hear(s, "history", 2);
    const shown = await a.texts();
    assert.equal(again.data.before, more.find((f) => f.data.text === shown[0]).id);
  });

  await t.test("an answer to a question of the connection before is nobody's", async (t) => {
    const { a, sockets } = await start(t, quiet({ presence: "events" }));
    const who = await hear(sockets[0], "who");
    sockets[0].close(1012, "");
    await until("it is back", () => sockets.length === 2);
    const anew = await hear(sockets[1], "who");
    assert.notEqual(anew.ref, who.ref);
    sockets[1].send(presence({ members: [member("old")], users: 1, sessions: 1 }, { ref: who.ref }), presence({ members: [member("new")], users: 1, sessions: 1 }, { ref: anew.ref }));
    await a.people(["new"]);
  });
});
