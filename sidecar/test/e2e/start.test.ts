import { expect, test } from "bun:test";
import { readFileSync, statSync } from "node:fs";
import { createServer } from "node:net";
import { join, resolve } from "node:path";

import { freePorts } from "../support/free-ports.ts";
import { tempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

const START = resolve(import.meta.dir, "../../../scripts/start.mjs");
const STUB = resolve(import.meta.dir, "../fixtures/stub-gateway.ts");
/** Includes what a first run installs. */
const READY_LIMIT_MS = 240_000;
const LIMIT_MS = READY_LIMIT_MS + 120_000;

test(
  "npm start runs a machine, says where it is, refuses a second one and stops it on Ctrl-C",
  async () => {
    using dir = tempDir();
    const ports = await freePorts(3);
    await using first = start(dir.path, ports);
    await ready(first);
    const token = readFileSync(join(dir.path, "token"), "utf8").trim();

    expect(first.output()).toContain(`Control UI   http://127.0.0.1:${ports[1]}/`);
    expect(first.output()).toContain(`/#token=${token}`);
    expect(statSync(join(dir.path, "token")).mode & 0o777).toBe(0o600);
    expect(readFileSync(join(dir.path, "sidecar.log"), "utf8")).not.toContain(token);
    const listing = await fetch(`http://127.0.0.1:${ports[1]}/files/list?path=/data/workspace`, {
      headers: { authorization: `Bearer ${token}` },
    });
    expect(listing.status).toBe(200);

    await using second = start(dir.path, await freePorts(3));
    expect(await second.exited).toBe(2);
    expect(second.output()).toContain("already running");

    // The terminal tells both npm and its child, and npm passes it on.
    first.signal("SIGINT");
    first.signal("SIGINT");
    expect(await first.exited).toBe(0);
    expect(first.output()).toContain("Stopped (exit code 0)");
  },
  LIMIT_MS,
);

test(
  "npm start says how a sidecar ended that was killed, and starts again on the ports its children hold",
  async () => {
    using dir = tempDir();
    const ports = await freePorts(3);
    await using first = start(dir.path, ports);
    await ready(first);
    process.kill(Number(readFileSync(join(dir.path, "pid"), "utf8")), "SIGKILL");
    expect(await first.exited).toBe(137);
    expect(first.output()).toContain("ended by itself with 137");

    await using second = start(dir.path, ports);
    await ready(second);
    expect(second.output()).toContain("what it left running is ended first");
    second.signal("SIGINT");
    expect(await second.exited).toBe(0);
  },
  LIMIT_MS,
);

test(
  "npm start keeps the token that the environment names where its commands look for it",
  async () => {
    using dir = tempDir();
    const token = "a token of one's own".replaceAll(" ", "-");
    await using run = start(dir.path, await freePorts(3), {
      env: { OPENCLAW_GATEWAY_TOKEN: token },
    });
    await ready(run);

    expect(readFileSync(join(dir.path, "token"), "utf8").trim()).toBe(token);
  },
  LIMIT_MS,
);

test("npm start names a port that is taken and the flag for another", async () => {
  using dir = tempDir();
  const ports = await freePorts(3);
  const holder = createServer().listen(ports[1], "127.0.0.1");
  await using run = start(dir.path, ports);

  expect(await run.exited).toBe(2);
  expect(run.output()).toContain(`Port ${ports[1]}, meant for Caddy, is already taken`);
  expect(run.output()).toContain("--public-port");
  holder.close();
});

test.each([
  [["--port", "http"], "it is not a port number"],
  [["--port", "9000", "--public-port", "9000"], "twice"],
  [["--nope"], "npm start -- --help"],
])("npm start %p ends with what is wrong", async (flags, said) => {
  using dir = tempDir();
  await using run = start(dir.path, [], { flags });

  expect(await run.exited).toBe(2);
  expect(run.output()).toContain(said);
});

async function ready(run: ReturnType<typeof start>): Promise<void> {
  await until(
    () => {
      if (run.exitCode() !== null) throw new Error(`It ended:\n${run.output()}`);
      return run.output().includes("Ctrl-C stops it");
    },
    "the machine is ready",
    READY_LIMIT_MS,
  );
}

function start(
  dir: string,
  ports: readonly number[],
  { flags = [], env = {} }: { readonly flags?: readonly string[]; readonly env?: object } = {},
) {
  const names = ["--port", "--public-port", "--gateway-port"];
  const chosen = ports.flatMap((port, index) => [names[index] ?? "", String(port)]);
  const child = Bun.spawn(["node", START, "--dir", dir, ...chosen, ...flags], {
    env: {
      PATH: process.env["PATH"],
      HOME: process.env["HOME"],
      GATEWAY_COMMAND: JSON.stringify([process.execPath, STUB]),
      ...env,
    },
    stdout: "pipe",
    stderr: "pipe",
  });
  let output = "";
  const reading = [child.stdout, child.stderr].map(async (stream) => {
    for await (const chunk of stream.pipeThrough(new TextDecoderStream())) output += chunk;
  });
  return {
    output: () => output,
    exitCode: () => child.exitCode,
    signal: (name: NodeJS.Signals) => child.kill(name),
    exited: child.exited.then(async (code) => {
      await Promise.all(reading);
      return code;
    }),
    async [Symbol.asyncDispose]() {
      // A second signal ends the machine at once; what it started goes with it.
      if (child.exitCode === null) child.kill("SIGTERM");
      await child.exited;
    },
  };
}
