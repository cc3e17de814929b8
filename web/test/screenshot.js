// Makes docs/demo.png, or another file: node screenshot.js [file] [--dark] [--phone]
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { chat, launch } from "./browser.js";
import { serve } from "./service.js";

const args = process.argv.slice(2);
const flag = (name) => args.includes(`--${name}`);
const file = args.find((a) => !a.startsWith("--")) ?? fileURLToPath(new URL("../../docs/demo.png", import.meta.url));

test(`screenshot ${file}`, async (t) => {
  const service = await serve(t, "--presence-grace=100ms");
  const phone = flag("phone");
  const { page, a, b } = await chat(t, await launch(t), service.url, "general", {
    viewport: phone ? { width: 390, height: 844 } : { width: 1240, height: 880 },
    colorScheme: flag("dark") ? "dark" : "light",
  });
  const show = async (name) => phone && page.getByRole("navigation").getByRole("button", { name: new RegExp(`^Session ${name}`) }).click();
  await a.signIn("ann");
  await a.is("open");
  await show("B");
  await b.signIn("ben");
  await b.note("Signed in as ben.").waitFor();
  await show("A");
  await a.people(["ann you", "ben"]);
  for (const [name, p] of [["B", b], ["A", a]]) {
    await show(name);
    await p.join("general"); // anew: of how they signed in nothing is shown
    await p.joined();
  }
  await a.say("Tunnel ahead, you will lose me");
  await b.shows(["Tunnel ahead, you will lose me"]);
  await show("B");
  await b.say("Just come back, the room remembers");
  await a.message("Just come back, the room remembers").waitFor({ state: "attached" });
  await show("A");
  await a.button("Go offline").click();
  await show("B");
  await b.say("Build 512 is green");
  await service.publish("general", { text: "Deploy of build 512 has begun" }, "--from", "deploy-bot");
  await b.message("Deploy of build 512 has begun").waitFor();
  await show("A");
  await a.say("Did I miss something?");
  await a.button("Go online").click();
  await a.note("Resumed").waitFor();
  await b.message("Did I miss something?").waitFor({ state: "attached" });
  await page.waitForTimeout(3000); // typing is told again after that
  await show("B");
  await b.root.getByLabel("Message", { exact: true }).pressSequentially("You did");
  await show("A");
  await a.typing("ben is typing…");
  if (!phone) await b.button("Frames").click();
  await page.mouse.move(0, 0);
  await page.evaluate(() => document.activeElement.blur());
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve))));
  await page.screenshot({ path: file, animations: "disabled" });
  await page.context().close();
});
