// People: who they are, who is there, and that they write. Against the service itself.
import assert from "node:assert/strict";
import { test } from "node:test";
import { chat, launch } from "./browser.js";
import { road, serve } from "./service.js";

test("sessions are people", async (t) => {
  const service = await serve(t, "--presence-grace=100ms");
  const browser = await launch(t);

  await t.test("two users see each other come, be away, and go", async (t) => {
    const { a, b } = await chat(t, browser, service.url, "people");
    await a.people(["Session A you", "Session B"]);
    await a.signIn("ann");
    await a.note("Signed in as ann.").waitFor();
    await b.note("ann is here.").waitFor();
    await b.people(["ann", "Session B you"]);
    assert.equal(await b.note("Session A has left.").count(), 0, "it is still there, as ann");
    await b.signIn("ben");
    await a.people(["ann you", "ben"]);
    await b.people(["ann", "ben you"]);
    assert.equal(await a.root.getByRole("status").textContent(), "connected as ann");

    await b.button("Away").click();
    assert.equal(await b.button("Away").getAttribute("aria-pressed"), "true");
    await a.people(["ann you", "ben away"]);
    await a.root.getByText("2 people here, 1 away").waitFor();
    await b.button("Cut connection").click();
    await b.note("Resumed").last().waitFor();
    await a.people(["ann you", "ben away"]); // it is said again after a reconnect
    await b.button("Away").click();
    await a.people(["ann you", "ben"]);

    await b.button("Go offline").click();
    await a.note("ben has left.").waitFor();
    await a.people(["ann you"]);
    await b.root.getByText("here when last connected").waitFor();
    await b.button("Go online").click();
    await a.note("ben is here.").last().waitFor();
    await a.people(["ann you", "ben"]);
    await b.join("elsewhere");
    await a.people(["ann you"]);
    await b.people(["ben you"]);
  });

  await t.test("messages are from the user, and one may be in two sessions", async (t) => {
    const { a, b } = await chat(t, browser, service.url, "twice");
    const other = await chat(t, browser, service.url, "twice");
    await a.signIn("ann");
    await a.people(["ann you", "Session B", ...(await strangers(other))]);
    await b.signIn("ann");
    await b.people(["ann you 2 sessions", ...(await strangers(other))]);
    await a.say("from ann");
    await other.a.shows(["from ann"]);
    await b.shows(["from ann"]);
    assert.equal(await other.a.message("from ann").locator(".who").textContent(), "ann");
    assert.equal(await b.message("from ann").locator(".who").textContent(), "you");
    await b.button("Sign out").click();
    await b.note("Signed out.").waitFor();
    await b.is("open");
    await other.a.people(["Session A you", "Session B", "ann", await stranger(b)]);
    assert.equal(await b.root.getByLabel("Name").evaluate((el) => el.readOnly), false);
  });

  await t.test("a sign-in survives a reconnect, with what was missed and what was not sent", async (t) => {
    const way = await road(t, service.port);
    const { a, b } = await chat(t, browser, way.url, "survives", { outage: true });
    await a.signIn("ann");
    await b.signIn("ben");
    await a.people(["ann you", "ben"]);
    await a.say("before");
    await b.shows(["before"]);
    await a.button("Go offline").click();
    await a.say("late");
    await b.say("missed");
    await b.shows(["before", "missed"]);
    await a.button("Go online").click();
    await b.shows(["before", "missed", "late"]);
    await a.shows(["before", "missed", "late"]);
    way.cut();
    await a.note("Resumed").nth(2).waitFor(); // the sign-in was the first
    await b.say("again");
    await a.shows(["before", "missed", "late", "again"]);
    assert.equal(await a.root.getByRole("status").textContent(), "connected as ann");
    for (const text of ["before", "late"]) assert.equal(await b.message(text).locator(".who").textContent(), "ann");
  });

  await t.test("a sign-in survives a new service, whose tokens are others", async (t) => {
    const old = await serve(t, "--presence-grace=100ms");
    const way = await road(t, old.port);
    const { a } = await chat(t, browser, way.url, "replaced", { outage: true });
    await a.signIn("ann");
    await a.people(["ann you", "Session B"]);
    await old.stop();
    const next = await serve(t);
    way.port = next.port;
    await a.note("Resumed with a gap").waitFor();
    await a.people(["ann you", "Session B"]);
  });

  await t.test("a sign-in is renewed before it ends, in the same session", async (t) => {
    const ways = [];
    // Tokens live for an hour: that one ends soon is said in the service's place, all else is the service's.
    const prepare = (page) => page.routeWebSocket(/\/ws/, (ws) => ws.connectToServer() && ways.push(ws));
    const { page, a } = await chat(t, browser, service.url, "renewed", { prepare });
    await a.signIn("ann");
    await a.people(["ann you", "Session B"]);
    const session = await a.root.locator(".state").getAttribute("title");
    await a.button("Frames").click();
    const expiring = { id: "", type: "system", data: { event: "expiring", in_ms: 60_000 }, timestamp: new Date().toISOString() };
    const n = ways.length;
    const answer = page.waitForResponse(/\/dev\/token/);
    ways.at(-1).send(JSON.stringify(expiring));
    assert.equal((await answer).status(), 200);
    await a.note("The sign-in ends in 60.0 s unless it is renewed.").waitFor();
    await a.note("The sign-in is renewed, until").waitFor();
    await a.root.locator(".frame").filter({ hasText: '"token": "…"' }).waitFor();
    assert.doesNotMatch(await page.locator("body").textContent(), /eyJ/);
    assert.equal(ways.length, n);
    assert.equal(await a.root.locator(".state").getAttribute("title"), session);
  });

  await t.test("a bad name is refused in words, and an odd one is shown as text", async (t) => {
    const { a } = await chat(t, browser, service.url, "names", { outage: true });
    await a.signIn("é".repeat(100)); // 200 bytes
    await a.note(/^Not signed in: .*128/).waitFor();
    assert.equal(await a.root.getByRole("status").textContent(), "connected");
    const evil = `<img src=x onerror="document.title='owned'">`;
    await a.signIn(evil);
    await a.people([`${evil} you`, "Session B"]);
    assert.equal(await a.root.locator("img").count(), 0);
  });

  await t.test("the token is never shown", async (t) => {
    const { page, a } = await chat(t, browser, service.url, "secret");
    await a.button("Frames").click();
    await a.signIn("ann");
    await a.people(["ann you", "Session B"]);
    assert.doesNotMatch(await page.locator("body").textContent(), /eyJ/);
    assert.doesNotMatch(service.log(), /eyJ/);
  });

  await t.test("others see that somebody writes, until he has said it or stopped", async (t) => {
    const { page, a, b } = await chat(t, browser, service.url, "typing", { prepare: (page) => page.clock.install() });
    await a.signIn("ann");
    await b.people(["ann", "Session B you"]);
    const field = a.root.getByLabel("Message", { exact: true });
    await field.pressSequentially("hel");
    await b.typing("ann is typing…");
    await service.publish("typing", { text: "later" });
    await a.shows(["later"]);
    assert.equal(await a.root.locator(".typing").textContent(), "", "one's own writing came before that");
    await field.press("Enter");
    await b.shows(["later", "hel"]);
    await b.typing(/^$/);
    await page.clock.fastForward(3100);
    await field.pressSequentially("and");
    await b.typing("ann is typing…");
    await page.clock.fastForward(5100);
    await b.typing(/^$/);
  });
});

// stranger is what others' pages call an anonymous session.
const stranger = async (p) => {
  await p.is("open");
  const title = await p.root.locator(".state").getAttribute("title");
  return title.match(/session (\w{6})/)[1] + "…";
};
const strangers = async ({ a, b }) => [await stranger(a), await stranger(b)];

test("history is paged", async (t) => {
  const service = await serve(t);
  const browser = await launch(t);

  await t.test("by the button and by scrolling to the top, without moving what is read, up to the beginning", async (t) => {
    const texts = Array.from({ length: 120 }, (_, i) => `line ${i}`);
    for (const text of texts) await service.publish("long", { text });
    const { page, a } = await chat(t, browser, service.url, "long");
    const scroll = a.root.locator(".scroll");
    const at = (text) => a.message(text).evaluate((el) => Math.round(el.getBoundingClientRect().top));
    const older = a.button("Older messages");
    await a.say("now");
    await older.click();
    await a.shows([...texts.slice(70), "now"]);
    assert.equal(await a.root.locator(".beginning").isVisible(), false);

    await scroll.evaluate((el) => (el.scrollTop = 60));
    const before = await at("line 70");
    await older.evaluate((el) => el.click()); // a pointer would scroll it into view
    await a.shows([...texts.slice(20), "now"]);
    const after = await at("line 70");
    assert.ok(Math.abs(after - before) <= 1, `it moved from ${before} to ${after}`);

    await scroll.hover();
    await page.mouse.wheel(0, -100_000);
    await a.shows([...texts, "now"]);
    await a.root.getByText("This is the beginning of what the room has kept.").waitFor({ state: "attached" });
    assert.equal(await older.count(), 0);
  });

  await t.test("and a room without messages says so", async (t) => {
    const { a } = await chat(t, browser, service.url, "empty");
    await a.button("Older messages").press("Enter");
    await a.root.getByText("This is the beginning").waitFor();
    assert.deepEqual(await a.texts(), []);
    assert.equal(await a.root.locator(".scroll").evaluate((el) => el === document.activeElement), true); // where the button was
  });
});
