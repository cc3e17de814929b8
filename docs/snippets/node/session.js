// Holds a session and prints what it receives, a line for each message: room, sender, data.
//
// From the environment: URL, such as ws://127.0.0.1:8080/ws/general, and TOKEN_FILE, which holds a token. A program asks its
// backend for one instead. In a browser the same works with its own WebSocket, but for "ping" and terminate: see the protocol
// on keepalive.
import { readFile } from "node:fs/promises";
import WebSocket from "ws";

const { URL: url = "ws://127.0.0.1:8080/ws/general", TOKEN_FILE = "" } = process.env;
const silence = 60_000; // the node pings every 25 s: without a sign of it for so long the connection is dead

let lastId = ""; // of the last frame, whichever it was
let wait = 1000; // before the next attempt, at most

const token = async () => (await readFile(TOKEN_FILE, "utf8")).trim();

async function connect() {
  let ws;
  try {
    ws = new WebSocket(`${url}?refuse=close&last_id=${lastId}`, ["realtime", `bearer.${await token()}`], { handshakeTimeout: 10_000 });
  } catch (e) {
    return ended(1006, e.message);
  }
  const watch = setTimeout(() => ws.terminate(), silence);
  ws.on("ping", () => watch.refresh());
  ws.on("message", (text) => {
    watch.refresh();
    take(ws, JSON.parse(text));
  });
  ws.on("error", (e) => console.error(e.message)); // "close" follows
  ws.on("close", (code, reason) => {
    clearTimeout(watch);
    ended(code, reason);
  });
}

function take(ws, { id, type, room, from, data }) {
  lastId = id;
  if (type === "error") return console.error("error:", JSON.stringify(data));
  if (type !== "system") return console.log(room, from ?? "", JSON.stringify(data));
  switch (data?.event) {
    case "welcome":
      wait = 1000;
      break;
    case "gap": // messages are missing here: fetch the state anew
      console.error("gap:", JSON.stringify(data));
      break;
    case "expiring": // without a new token the session ends with 4500, and comes back with one
      token().then((token) => ws.send(JSON.stringify({ type: "auth", data: { token } }))).catch((e) => console.error(e.message));
  }
}

function ended(code, reason) {
  console.error(`closed: ${code} ${reason}`);
  // After these a session must not come back. 4500 is not among them: the next attempt brings a new token.
  if (code > 4500 || [1000, 1002, 1003, 1007, 1009].includes(code)) process.exit(1);
  setTimeout(connect, code === 1012 ? 0 : Math.random() * wait); // 1012: come back at once
  if (code !== 1012) wait = Math.min(wait * 2, 30_000);
}

connect();
