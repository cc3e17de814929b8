// A service that says what a test wants it to.
import { open, pane } from "./browser.js";

// frames makes frames whose ids are in order, like the service's.
let made = 0;
export const id = () => `01a20000-${(++made).toString(16).padStart(4, "0")}-7000-8000-${made.toString(16).padStart(12, "0")}`;
export const frame = (type, data, more) => ({ id: id(), type, data, timestamp: new Date().toISOString(), ...more });
export const welcome = (more) => frame("system", { event: "welcome", session: "s", user: "me", node: "n", time: new Date().toISOString(), ping_ms: 25_000, ...more });
export const subscribed = (room, more) => frame("system", { event: "subscribed", replayed: 0, ...more }, { room });

// tokens answers the page's questions for tokens: answer(user, n) returns [status, body] for the n-th, or a token.
export function tokens(page, answer) {
  let n = 0;
  return page.route(/\/dev\/token\?/, (route) => {
    const user = new URL(route.request().url()).searchParams.get("user");
    const got = answer(user, ++n);
    const [status, json] = Array.isArray(got) ? got : [200, { user, token: got, expires: new Date(Date.now() + 3_600_000).toISOString() }];
    return route.fulfill({ status, json });
  });
}

// scripted opens the page with script in the service's place. Session B goes to a room of its own, where nothing happens.
export async function scripted(t, browser, url, script, options) {
  const sockets = [];
  const prepare = async (page) => {
    await options?.prepare?.(page);
    await page.addInitScript(() => (Math.random = () => 0.01));
    await page.routeWebSocket(/\/ws/, (ws) => {
      const query = new URL(ws.url()).searchParams;
      const room = query.get("room");
      const socket = { room, last: query.getAll("last_id"), query, got: [], typing: [], protocols: ws.protocols(), close: (code, reason) => ws.close({ code, reason }) };
      socket.send = (...frames) => frames.forEach((f) => ws.send(JSON.stringify(f)));
      if (room !== "idle") sockets.push(socket);
      ws.onMessage((text) => {
        const f = JSON.parse(text);
        if (f.type === "typing") return socket.typing.push(f);
        socket.got.push(f);
        if (room !== "idle") script.heard?.(socket, f);
      });
      if (room === "idle") socket.send(welcome(), subscribed(room));
      else script.opened(socket, sockets.length);
    });
  };
  const page = await open(t, browser, `${url}/?room=idle`, { ...options, prepare });
  return { page, a: pane(page, "A"), sockets };
}
