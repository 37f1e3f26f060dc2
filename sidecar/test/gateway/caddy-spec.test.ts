import { expect, test } from "bun:test";
import { chmodSync, copyFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";

import { caddySpec, isLoopback } from "../../src/gateway/caddy-spec.ts";
import { findChildUsers, type User } from "../../src/gateway/users.ts";
import { freePorts } from "../support/free-ports.ts";
import { installedCaddy } from "../support/openclaw.ts";
import { runChild } from "../support/run-child.ts";
import { tempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

const CADDYFILE = join(import.meta.dir, "../../../container/Caddyfile");
const SERVER = { hostname: "127.0.0.1", port: 0, maxRequestBodySize: 1024 * 1024 * 1024 };

interface FrontOptions {
  readonly publicOrigin?: string;
  readonly caddyfile?: string;
  readonly user?: User;
  /** Nobody listens on the gateway's port. */
  readonly gatewayDown?: boolean;
}

/** Caddy before a stub of the sidecar and one of the gateway; each answers with its name and what it was asked. */
async function startFront(options: FrontOptions = {}) {
  const dir = tempDir();
  // Caddy may run as a user of its own.
  chmodSync(dir.path, 0o755);
  const answer = (name: string) => async (request: Request) => {
    const { pathname, search } = new URL(request.url);
    const bytes = (await request.arrayBuffer()).byteLength;
    const forwardedFor = request.headers.get("x-forwarded-for");
    return Response.json({ name, pathname, search, bytes, forwardedFor });
  };
  const sidecar = Bun.serve({ ...SERVER, fetch: answer("sidecar") });
  const gateway = Bun.serve({ ...SERVER, fetch: answer("gateway") });
  const [publicPort = 0, closedPort = 0] = await freePorts(2);
  const spec = caddySpec({
    caddy: installedCaddy(),
    caddyfile: options.caddyfile ?? CADDYFILE,
    runtimeDir: join(dir.path, "run"),
    ports: {
      sidecar: sidecar.port ?? 0,
      public: publicPort,
      gateway: options.gatewayDown ? closedPort : (gateway.port ?? 0),
    },
    publicOrigin: options.publicOrigin,
    path: process.env["PATH"] ?? "",
    ...(options.user ? { user: options.user } : {}),
  });
  const child = await runChild(spec);
  const stop = async (): Promise<void> => {
    await child[Symbol.asyncDispose]();
    await Promise.all([sidecar.stop(true), gateway.stop(true)]);
    dir[Symbol.dispose]();
  };
  try {
    await child.admitted(20_000);
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    spec,
    child,
    sidecar,
    closedPort,
    port: publicPort,
    url: `http://127.0.0.1:${publicPort}`,
    async ask(path: string, init?: RequestInit): Promise<Record<string, unknown>> {
      const response = await fetch(`http://127.0.0.1:${publicPort}${path}`, init);
      return (await response.json()) as Record<string, unknown>;
    },
    [Symbol.asyncDispose]: stop,
  };
}

test("files and the machine are the sidecar's, everything else the gateway's", async () => {
  await using front = await startFront();
  for (const [path, name] of [
    ["/files", "sidecar"],
    ["/files/", "sidecar"],
    ["/files/a%2Fb/c", "sidecar"],
    ["/machine", "sidecar"],
    ["/machine/status", "sidecar"],
    ["/", "gateway"],
    ["/filesystem", "gateway"],
    ["/machinery", "gateway"],
    ["/x/files/y", "gateway"],
    ["/readyz", "gateway"],
    ["/metrics", "gateway"],
  ]) {
    expect(await front.ask(`${path}?q=1`)).toMatchObject({ name, pathname: path, search: "?q=1" });
  }
});

test("the gateway learns where a client is, unless all are on this computer", async () => {
  await using open = await startFront();
  expect(await open.ask("/")).toMatchObject({ forwardedFor: "127.0.0.1" });
  await using local = await startFront({ publicOrigin: "http://127.0.0.1:18789" });
  expect(await local.ask("/")).toMatchObject({ forwardedFor: null });
  expect(await local.ask("/files")).toMatchObject({ forwardedFor: "127.0.0.1" });
});

test("a forged address is not believed", async () => {
  await using front = await startFront();
  const headers = { "x-forwarded-for": "203.0.113.9" };
  expect(await front.ask("/", { headers })).toMatchObject({ forwardedFor: "127.0.0.1" });
});

test.each([
  [undefined, false],
  ["https://one.fly.dev", false],
  ["http://127.0.0.1:18789", true],
  ["http://localhost:1", true],
  ["http://[::1]:1", true],
  ["https://127.0.0.1.example.test", false],
  ["nonsense", false],
])("origin %s is this computer: %p", (origin, expected) => {
  expect(isLoopback(origin)).toBe(expected);
});

test("bodies up to 100 MB go to the gateway, larger ones only to the files", async () => {
  await using front = await startFront();
  const body = new Uint8Array(101_000_000);
  expect(await front.ask("/files/big", { method: "PUT", body })).toMatchObject({
    name: "sidecar",
    bytes: body.length,
  });
  const small = body.subarray(0, 99_000_000);
  expect(await front.ask("/upload", { method: "POST", body: small })).toMatchObject({
    name: "gateway",
    bytes: small.length,
  });
  const refused = await fetch(`${front.url}/upload`, { method: "POST", body }).catch(() => null);
  // Caddy may also close the connection while we are still sending.
  expect(refused?.status ?? 413).toBe(413);
}, 60_000);

test("while the gateway is away people see a page that tries again, and programs a plain 503", async () => {
  await using front = await startFront({ gatewayDown: true });
  const html = { accept: "text/html,application/xhtml+xml,*/*;q=0.8" };
  const [page, api, post] = await Promise.all([
    fetch(`${front.url}/chat?token=t`, { headers: html }),
    fetch(`${front.url}/api`, { headers: { accept: "application/json" } }),
    fetch(`${front.url}/api`, { headers: html, method: "POST", body: "x" }),
  ]);
  expect(page.status).toBe(503);
  expect(page.headers.get("retry-after")).toBe("5");
  expect(page.headers.get("cache-control")).toBe("no-store");
  expect(page.headers.get("content-type")).toBe("text/html; charset=utf-8");
  const text = await page.text();
  expect(text).toContain('http-equiv="refresh"');
  expect(text).not.toMatch(/src=|href=|token/);
  for (const response of [api, post]) {
    expect(response.status).toBe(503);
    expect(response.headers.get("retry-after")).toBe("5");
    expect(response.headers.get("content-type")).toBe("text/plain; charset=utf-8");
    expect((await response.text()).length).toBeLessThan(200);
  }
}, 60_000);

test("a gateway that restarts is a pause", async () => {
  await using front = await startFront({ gatewayDown: true });
  const waiting = fetch(`${front.url}/`);
  // The request is under way once Caddy has answered a later one.
  await front.ask("/machine/livez");
  const gateway = Bun.serve({ ...SERVER, port: front.closedPort, fetch: () => new Response("up") });
  try {
    expect(await (await waiting).text()).toBe("up");
  } finally {
    await gateway.stop(true);
  }
});

test("neither query strings nor headers are in its log", async () => {
  await using front = await startFront();
  const init = { headers: { authorization: "Bearer hush-header", cookie: "c=hush-cookie" } };
  await front.ask("/?token=hush-1", init);
  await front.ask("/files/a?sig=hush-2", init);
  await front.sidecar.stop(true);
  await fetch(`${front.url}/files/gone?sig=hush-3`, {
    headers: { ...init.headers, referer: "https://x.test/?token=hush-4" },
  });
  const logged = (part: string) => front.child.lines.some((line) => line.includes(part));
  await until(() => logged('"/files/gone"'), "the requests to be logged");
  expect(logged("hush")).toBe(false);
  for (const line of front.child.lines.filter((text) => text.includes("/files"))) {
    expect(() => JSON.parse(line)).not.toThrow();
  }
});

test("checks are not in its log", async () => {
  await using front = await startFront();
  await front.ask("/machine/livez");
  await front.ask("/machine/readyz");
  await front.ask("/machine/status");
  const logged = (part: string) => front.child.lines.some((line) => line.includes(part));
  await until(() => logged('"/machine/status"'), "the request to be logged");
  expect(logged("livez") || logged("readyz")).toBe(false);
});

test("one SIGTERM ends it", async () => {
  await using front = await startFront();
  await front.spec.stop?.(front.child.running, {
    budgetMs: 5_000,
    signal: new AbortController().signal,
  });
  expect((await front.child.exit).code).toBe(0);
});

test("a failed start is no reason to start again and again", async () => {
  using dir = tempDir();
  const taken = Bun.serve({ ...SERVER, hostname: "0.0.0.0", fetch: () => new Response() });
  const spec = caddySpec({
    caddy: installedCaddy(),
    caddyfile: CADDYFILE,
    runtimeDir: join(dir.path, "run"),
    ports: { sidecar: 1, public: taken.port ?? 0, gateway: 1 },
    publicOrigin: undefined,
    path: process.env["PATH"] ?? "",
  });
  await using child = await runChild(spec);
  const exit = await child.exit;
  await taken.stop(true);
  expect(exit.code).toBe(1);
  expect(await spec.judge?.(exit)).toEqual({
    kind: "failed",
    reason: expect.stringContaining("address already in use"),
  });
  expect(await spec.judge?.({ ...exit, code: undefined, signal: "SIGKILL" })).toMatchObject({
    kind: "backoff",
  });
});

const { caddy } = findChildUsers();

test.skipIf(!caddy)(
  "it runs as its own user, also where that one cannot enter the folder of its Caddyfile",
  async () => {
    using hidden = tempDir();
    const caddyfile = join(hidden.path, "Caddyfile");
    copyFileSync(CADDYFILE, caddyfile);
    chmodSync(hidden.path, 0o700);
    await using front = await startFront({ caddyfile, ...(caddy ? { user: caddy } : {}) });
    const status = await Bun.file(`/proc/${front.child.running.pid}/status`).text();
    expect(status).toMatch(new RegExp(`^Uid:\\s+${caddy?.uid}\\s`, "m"));
    expect(front.child.lines.filter((line) => line.includes("permission denied"))).toEqual([]);
  },
);

test("a run-time folder that is somebody else's is refused", async () => {
  using dir = tempDir();
  const runtimeDir = join(dir.path, "run");
  mkdirSync(join(dir.path, "real"));
  await Bun.$`ln -s ${join(dir.path, "real")} ${runtimeDir}`.quiet();
  const spec = caddySpec({
    caddyfile: CADDYFILE,
    runtimeDir,
    ports: { sidecar: 1, public: 2, gateway: 3 },
    publicOrigin: undefined,
    path: "",
  });
  await expect(spec.launch(new AbortController().signal)).rejects.toThrow("no folder of our own");
});
