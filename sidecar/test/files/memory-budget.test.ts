import { expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";

import { TOKEN, caller, filesApp, filesVolume } from "../support/files-volume.ts";
import { until } from "../support/until.ts";

const MB = 1024 * 1024;
const AUTH = `Authorization: Bearer ${TOKEN}`;
const hostname = "127.0.0.1";

type End = () => void;

/** A server of /files that may hold 40 MB, and a file of 10 MB on its volume. */
function slowHost() {
  const volume = filesVolume();
  writeFileSync(join(volume.path, "workspace/big"), "x".repeat(10 * MB));
  const { app } = filesApp(volume, { limits: { heldBytes: 40 * MB } });
  const server = Bun.serve({
    port: 0,
    hostname,
    fetch: (request) => app.fetch(request),
  });
  const port = server.port ?? 0;
  const ends: End[] = [];
  return {
    /** Begins to read a file, and takes nothing of it. */
    async stall(): Promise<End> {
      const socket = await Bun.connect({ hostname, port, socket: { data: () => undefined } });
      socket.pause();
      socket.write(`GET /files/read?path=big HTTP/1.1\r\nHost: x\r\n${AUTH}\r\n\r\n`);
      const end = (): void => socket.terminate();
      ends.push(end);
      return end;
    },
    /** Sends a request, or a part of one. */
    async send(start: string, rest = ""): Promise<End> {
      const socket = connect({ host: hostname, port });
      socket.on("error", () => undefined);
      socket.write(`${start} HTTP/1.1\r\nHost: x\r\n${AUTH}\r\n${rest}`);
      const end = (): void => void socket.destroy();
      ends.push(end);
      return end;
    },
    async status(path = "/files/read?path=big"): Promise<number> {
      const response = await fetch(`http://${hostname}:${port}${path}`, {
        headers: { authorization: `Bearer ${TOKEN}` },
      });
      await response.arrayBuffer();
      return response.status;
    },
    async [Symbol.asyncDispose]() {
      for (const end of ends) end();
      await server.stop(true);
      volume[Symbol.dispose]();
    },
  };
}

const BODY = `Content-Length: ${50 * MB}\r\n\r\n{"content":"${"x".repeat(12 * MB)}`;

test.each<[what: string, begin: (host: ReturnType<typeof slowHost>) => Promise<End>]>([
  ["answers that nobody takes", (host) => host.stall()],
  ["bodies that do not end", (host) => host.send("POST /files/write?path=new", BODY)],
])("%s hold no more than the budget, and give it back when they are cut off", async (_, begin) => {
  await using host = slowHost();
  expect(await host.status()).toBe(200);
  const ends = await Promise.all(Array.from({ length: 8 }, () => begin(host)));
  await until(async () => (await host.status()) === 503, "the budget is used up");
  // Small ones always work.
  expect(await host.status("/files/list")).toBe(200);
  for (const end of ends) end();
  await until(async () => (await host.status()) === 200, "the budget is back");
});

test("answers that were read whole, failed, or had no body give the budget back", async () => {
  await using host = slowHost();
  for (let round = 0; round < 12; round += 1) {
    expect(await host.status()).toBe(200);
    expect(await host.status("/files/read?path=missing")).toBe(404);
    await host.send("HEAD /files/read?path=big", "\r\n");
  }
  expect(await host.status()).toBe(200);
});

test("a folder with too many entries is not listed", async () => {
  using volume = filesVolume();
  mkdirSync(join(volume.path, "workspace/full"));
  for (const name of ["a", "b", "c"]) writeFileSync(join(volume.path, "workspace/full", name), "");
  const list = async (listEntries: number): Promise<[number, unknown]> => {
    const call = caller(filesApp(volume, { limits: { listEntries } }));
    const { status, json } = await call("GET", "/list", { path: "full" });
    return [status, json["code"]];
  };
  expect(await list(3)).toEqual([200, undefined]);
  expect(await list(2)).toEqual([413, "too_large"]);
});
