// The real service, and a way to it that can fail.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);
const repository = fileURLToPath(new URL("../..", import.meta.url));
// What the one who runs the tests has set for a node of his own is not meant for these.
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("REALTIME_")));

// build returns the program: WEB_TEST_BIN, or what `go build` makes in a directory that lives as long as the test.
async function build(t) {
  if (process.env.WEB_TEST_BIN) return process.env.WEB_TEST_BIN;
  const dir = await mkdtemp(path.join(tmpdir(), "realtime-web-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const bin = path.join(dir, "realtime");
  await run("go", ["build", "-o", bin, "./cmd/realtime"], { cwd: repository });
  return bin;
}

// serve starts a node on free ports. It ends with the test, which fails if it does not end well.
export async function serve(t, ...options) {
  const bin = await build(t);
  const node = spawn(
    bin,
    ["serve", "--dev", "--edge-addr=127.0.0.1:0", "--grpc-addr=127.0.0.1:0", "--ops-addr=127.0.0.1:0", "--drain-window=100ms", ...options],
    { env, stdio: ["ignore", "pipe", "pipe"] },
  );
  const ended = once(node, "exit");
  let log = "";
  node.stderr.on("data", (b) => (log += b));
  const at = {};
  const lines = createInterface({ input: node.stdout });
  const ready = new Promise((resolve) =>
    lines.on("line", (line) => {
      const [, what, port] = /^(sessions|gRPC|open)\s+\D*127\.0\.0\.1:(\d+)/.exec(line) ?? [];
      if (what) at[what] = Number(port);
      if (what === "open") resolve();
    }),
  );
  await Promise.race([
    ready,
    ended.then(([code]) => {
      throw new Error(`realtime serve ended with ${code}:\n${log}`);
    }),
  ]);

  let stopped;
  const stop = () => {
    stopped ??= (async () => {
      node.kill("SIGTERM");
      const [code, signal] = await ended;
      if (code !== 0) throw new Error(`realtime serve ended with ${code ?? signal}:\n${log}`);
    })();
    return stopped;
  };
  t.after(stop);
  return {
    bin,
    port: at.sessions,
    grpc: `127.0.0.1:${at.gRPC}`,
    url: `http://127.0.0.1:${at.sessions}`,
    // publish goes through the command line, like in the README.
    publish: (room, data, ...more) => run(bin, ["publish", "--addr", `127.0.0.1:${at.gRPC}`, room, JSON.stringify(data), ...more], { env }),
    stop,
    log: () => log,
  };
}

// road is a TCP way to a port on which connections can be cut, refused, and made to carry nothing.
export async function road(t, port) {
  const ways = new Set();
  const r = {
    port,
    refusing: false,
    in: true, // does what the page sends arrive
    out: true, // does what is sent to the page
    budget: () => Infinity, // bytes to the page before a way is cut, also in the middle of a frame
    cuts: 0,
  };
  const server = net.createServer((from) => {
    if (r.refusing) return from.resetAndDestroy();
    const to = net.connect(r.port, "127.0.0.1");
    let left = r.budget();
    const cut = () => {
      if (!ways.delete(cut)) return;
      r.cuts++;
      from.resetAndDestroy();
      to.resetAndDestroy();
    };
    ways.add(cut);
    from.on("data", (b) => r.in && to.write(b));
    to.on("data", (b) => {
      if (!r.out) return;
      from.write(b.subarray(0, left), () => left <= 0 && cut());
      left -= b.length;
    });
    for (const s of [from, to]) s.on("error", () => {}).on("close", cut);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    r.cut();
    server.close();
  });
  r.cut = () => [...ways].forEach((cut) => cut());
  r.url = `http://127.0.0.1:${server.address().port}`;
  return r;
}
