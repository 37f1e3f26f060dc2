import { expect, test } from "bun:test";
import { lstatSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";

import type { FilesOptions } from "../../src/files/routes.ts";
import { Server } from "../../src/server/server.ts";
import { capturedLog } from "../support/captured-log.ts";
import { filesApp, filesVolume, TOKEN, type FilesVolume } from "../support/files-volume.ts";
import { until } from "../support/until.ts";

interface Running extends AsyncDisposable {
  readonly server: Server;
  readonly url: string;
}

async function serve(
  volume: FilesVolume,
  options: Partial<FilesOptions> & { readonly idleTimeoutS?: number } = {},
): Promise<Running> {
  const { idleTimeoutS, ...files } = options;
  const server = new Server({
    app: filesApp(volume, files).app,
    listen: { port: 0, hostname: "127.0.0.1" },
    log: capturedLog(),
    ...(idleTimeoutS === undefined ? {} : { idleTimeoutS }),
  });
  await server.start(AbortSignal.timeout(5_000));
  return {
    server,
    url: `http://127.0.0.1:${server.port}`,
    [Symbol.asyncDispose]: () => server.stop(AbortSignal.abort()),
  };
}

/** A connection on which the test says each byte. */
interface Wire extends Disposable {
  readonly received: () => string;
  readonly closed: () => boolean;
  send(bytes: string | Uint8Array): Promise<void>;
  destroy(): void;
  end(): void;
}

async function dial(port: number): Promise<Wire> {
  const socket = connect(port, "127.0.0.1");
  const state = { received: "", closed: false };
  socket.on("data", (chunk) => (state.received += chunk.toString("latin1")));
  socket.on("close", () => (state.closed = true));
  socket.on("error", () => (state.closed = true));
  await new Promise<void>((resolve) => socket.once("connect", () => resolve()));
  return {
    received: () => state.received,
    closed: () => state.closed,
    send: (bytes) =>
      new Promise((resolve) => {
        if (state.closed) resolve();
        else socket.write(bytes, () => resolve());
      }),
    destroy: () => socket.destroy(),
    end: () => socket.end(),
    [Symbol.dispose]: () => socket.destroy(),
  };
}

function uploadHead(path: string, header: string): string {
  return `POST /files/upload?path=${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${TOKEN}\r\n${header}\r\n\r\n`;
}

const workspace = (volume: FilesVolume): string[] => readdirSync(join(volume.path, "workspace"));

test("a download has a length, and a client that leaves costs nothing", async () => {
  using volume = filesVolume();
  const bytes = Buffer.from(Array.from({ length: 3_000_000 }, (_, i) => i % 251));
  writeFileSync(join(volume.path, "workspace/big.bin"), bytes);
  writeFileSync(join(volume.path, "workspace/empty"), "");
  await using running = await serve(volume);
  const get = (name: string, method = "GET") =>
    fetch(`${running.url}/files/download?path=${name}&token=${TOKEN}`, { method });
  const response = await get("big.bin");
  expect(response.headers.get("content-length")).toBe("3000000");
  expect(response.headers.get("transfer-encoding")).toBeNull();
  expect(Buffer.from(await response.arrayBuffer()).equals(bytes)).toBe(true);
  const head = await get("big.bin", "HEAD");
  expect([head.status, head.headers.get("content-length")]).toEqual([200, "3000000"]);
  const empty = await get("empty");
  expect([empty.headers.get("content-length"), await empty.text()]).toEqual(["0", ""]);
}, 30_000);

test("descriptors of downloads come back, finished or not", async () => {
  using volume = filesVolume();
  writeFileSync(join(volume.path, "workspace/big.bin"), new Uint8Array(20_000_000));
  await using running = await serve(volume);
  const descriptors = (): number => readdirSync("/proc/self/fd").length;
  const before = descriptors();
  for (let i = 0; i < 5; i += 1) {
    using wire = await dial(running.server.port);
    await wire.send(`GET /files/download?path=big.bin&token=${TOKEN} HTTP/1.1\r\nHost: x\r\n\r\n`);
    await until(() => wire.received().length > 0, "the first bytes");
  }
  await until(() => descriptors() <= before, "the descriptors", 15_000);
}, 30_000);

test.each(["Content-Length: 1000", "Transfer-Encoding: chunked"])(
  "a client that goes away mid-upload (%s) leaves the old file and nothing else",
  async (header) => {
    using volume = filesVolume();
    writeFileSync(join(volume.path, "workspace/old"), "old");
    await using running = await serve(volume);
    const part = header.startsWith("Content") ? "x".repeat(300) : `12c\r\n${"x".repeat(300)}\r\n`;
    for (const way of ["destroy", "end"] as const) {
      for (const path of ["old", "new/folder/file"]) {
        using wire = await dial(running.server.port);
        await wire.send(uploadHead(path, header) + part);
        await until(() => temporaryFiles(volume) === 1, "the upload has begun");
        wire[way]();
        await until(() => temporaryFiles(volume) === 0, "the upload was given up");
        await until(() => workspace(volume).join() === "old", "nothing is left");
        expect(readFileSync(join(volume.path, "workspace/old"), "utf8")).toBe("old");
      }
    }
  },
  30_000,
);

test("a client that stalls is cut off and leaves nothing, a slow one gets through", async () => {
  using volume = filesVolume();
  await using running = await serve(volume, { idleTimeoutS: 5 });
  using stalled = await dial(running.server.port);
  using slow = await dial(running.server.port);
  await stalled.send(`${uploadHead("stalled", "Content-Length: 100")}begin`);
  await slow.send(uploadHead("slow", "Content-Length: 48"));
  for (let i = 0; i < 48; i += 1) {
    await slow.send("x");
    await Bun.sleep(200);
  }
  await until(() => slow.received().includes('"size":48'), "the slow upload's answer");
  await until(() => stalled.closed(), "the stalled connection is closed", 15_000);
  await until(() => temporaryFiles(volume) === 0, "the stalled upload was given up");
  expect(workspace(volume)).toEqual(["slow"]);
}, 40_000);

test("of a body larger than declared, the declared part is the file", async () => {
  using volume = filesVolume();
  await using running = await serve(volume);
  using wire = await dial(running.server.port);
  await wire.send(`${uploadHead("file", "Content-Length: 10")}0123456789EXTRA`);
  await until(() => wire.received().includes('"size":10'), "the answer");
  expect(readFileSync(join(volume.path, "workspace/file"), "utf8")).toBe("0123456789");
  expect(workspace(volume)).toEqual(["file"]);
}, 30_000);

test("a declared length over the limit is 413 before the body, also to a client that reads last", async () => {
  using volume = filesVolume();
  writeFileSync(join(volume.path, "workspace/file"), "old");
  await using running = await serve(volume, { limits: { uploadBytes: 1_000_000 } });
  using eager = await dial(running.server.port);
  await eager.send(uploadHead("file", "Content-Length: 5000000"));
  await until(() => eager.received().includes("HTTP/1.1 413"), "413 before the body");
  using late = await dial(running.server.port);
  await late.send(uploadHead("file", "Content-Length: 5000000"));
  for (let i = 0; i < 50; i += 1) await late.send(new Uint8Array(100_000));
  await until(() => late.received().includes('"code":"too_large"'), "413 after the body");
  // The connection is still good for the next request.
  await late.send(`GET /files/health HTTP/1.1\r\nHost: x\r\n\r\n`);
  await until(() => late.received().includes("file-server"), "the next answer");
  expect(readFileSync(join(volume.path, "workspace/file"), "utf8")).toBe("old");
  expect(workspace(volume)).toEqual(["file"]);
}, 30_000);

test("a body without a length is 413 when the limit is reached, and the answer arrives", async () => {
  using volume = filesVolume();
  writeFileSync(join(volume.path, "workspace/file"), "old");
  await using running = await serve(volume, { limits: { uploadBytes: 1_000_000 } });
  using wire = await dial(running.server.port);
  await wire.send(uploadHead("file", "Transfer-Encoding: chunked"));
  const chunk = `186a0\r\n${"x".repeat(100_000)}\r\n`;
  for (let i = 0; i < 20; i += 1) await wire.send(chunk);
  await wire.send("0\r\n\r\n");
  await until(() => wire.received().includes("HTTP/1.1 413"), "413");
  expect(wire.received()).toContain("too_large");
  expect(readFileSync(join(volume.path, "workspace/file"), "utf8")).toBe("old");
  expect(workspace(volume)).toEqual(["file"]);
}, 30_000);

test.each(["fetch", "curl"])(
  "%s gets the 413 of an upload over the limit",
  async (client) => {
    using volume = filesVolume();
    await using running = await serve(volume, { limits: { uploadBytes: 1_000_000 } });
    const url = `${running.url}/files/upload?path=file&token=${TOKEN}`;
    if (client === "fetch") {
      const response = await fetch(url, { method: "POST", body: new Uint8Array(30_000_000) });
      expect(response.status).toBe(413);
      expect(await response.json()).toMatchObject({ code: "too_large" });
      return;
    }
    if (Bun.which("curl") === null) return;
    const curl = Bun.spawn(["curl", "-s", "-w", "%{http_code}", "--data-binary", "@-", url], {
      stdin: new Uint8Array(30_000_000),
      stdout: "pipe",
    });
    expect(await curl.stdout.text()).toEndWith("413");
    await curl.exited;
  },
  30_000,
);

test("a refused upload without a token gets its 401", async () => {
  using volume = filesVolume();
  await using running = await serve(volume);
  const response = await fetch(`${running.url}/files/upload?path=file`, {
    method: "POST",
    body: new Uint8Array(10_000_000),
  });
  expect(response.status).toBe(401);
  expect(workspace(volume)).toEqual([]);
}, 30_000);

test.each([
  ["wrong", "401"],
  [TOKEN, "413"],
])(
  "a body without an end (token %s) gets its %s at once, and not our attention for ever",
  async (token, status) => {
    using volume = filesVolume();
    await using running = await serve(volume, { limits: { uploadBytes: 1_000_000 } });
    using endless = await dial(running.server.port);
    await endless.send(
      `POST /files/upload?path=file&token=${token} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n`,
    );
    const chunk = `186a0\r\n${"x".repeat(100_000)}\r\n`;
    for (let i = 0; i < 20; i += 1) await endless.send(chunk);
    await until(() => endless.received().includes(`HTTP/1.1 ${status}`), "the answer");
    const limit = performance.now() + 30_000;
    while (!endless.closed() && performance.now() < limit) {
      await endless.send(chunk);
      await Bun.sleep(20);
    }
    expect(endless.closed()).toBe(true);
    expect(workspace(volume)).toEqual([]);
  },
  40_000,
);

test("stop lets a request end, takes no new one, and cuts what is left at the deadline", async () => {
  using volume = filesVolume();
  await using running = await serve(volume);
  const { port } = running.server;
  using ending = await dial(port);
  await ending.send(`${uploadHead("ending", "Content-Length: 10")}01234`);
  using hanging = await dial(port);
  await hanging.send(`${uploadHead("hanging", "Content-Length: 10")}01234`);
  await until(() => temporaryFiles(volume) === 2, "both uploads have begun");
  const deadline = new AbortController();
  const stopped = running.server.stop(deadline.signal);
  await until(() => refuses(port), "new connections are refused");
  await ending.send("56789");
  await until(() => ending.received().includes('"success":true'), "the upload's answer");
  deadline.abort();
  await stopped;
  await until(() => hanging.closed(), "the hanging connection is cut");
  await until(() => temporaryFiles(volume) === 0, "the hanging upload was given up");
  expect(workspace(volume)).toEqual(["ending"]);
  await running.server.stop(deadline.signal);
}, 30_000);

test("a port that is taken is said so", async () => {
  using volume = filesVolume();
  const other = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const server = new Server({
    app: filesApp(volume).app,
    listen: { port: other.port, hostname: "127.0.0.1" },
    log: capturedLog(),
  });
  try {
    await expect(server.start(AbortSignal.timeout(1_000))).rejects.toThrow(
      `Cannot listen on "127.0.0.1:${other.port}"`,
    );
  } finally {
    other.stop(true);
  }
}, 30_000);

test("a socket is for its owner alone, answers, and takes the place of one that a killed life left", async () => {
  using volume = filesVolume();
  const socket = join(volume.path, "machine.sock");
  for (let life = 0; life < 2; life += 1) {
    const server = new Server({
      app: filesApp(volume).app,
      listen: { socket },
      log: capturedLog(),
    });
    await server.start(AbortSignal.timeout(1_000));
    expect(lstatSync(socket).mode & 0o777).toBe(0o600);
    const answer = await fetch("http://localhost/health", { unix: socket });
    expect(answer.status).toBe(200);
    // The second life finds the file, as after a SIGKILL.
    if (life === 1) await server.stop(AbortSignal.abort());
  }
}, 30_000);

function temporaryFiles(volume: FilesVolume): number {
  return [...new Bun.Glob("**/.sidecar-tmp-*").scanSync({ cwd: volume.path, dot: true })].length;
}

function refuses(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.on("connect", () => {
      socket.destroy();
      resolve(false);
    });
    socket.on("error", () => resolve(true));
  });
}
