import { expect, test } from "bun:test";

import { plainSpec } from "../../src/gateway/plain-spec.ts";
import { freePorts } from "../support/free-ports.ts";
import { runChild } from "../support/run-child.ts";
import { tempDir } from "../support/temp-dir.ts";

const LISTENS =
  "Bun.serve({ port: Number(process.env.GATEWAY_PORT), fetch: () => new Response() })";

test("a plain command is ready when its port accepts, and is told which port that is", async () => {
  using dir = tempDir();
  const [port = 0] = await freePorts(1);
  let prepared = 0;
  const spec = plainSpec({
    command: [process.execPath, "-e", LISTENS],
    port,
    dataDir: dir.path,
    env: { GATEWAY_PORT: String(port), PATH: process.env["PATH"] ?? "" },
    prepare: async () => {
      prepared += 1;
    },
  });
  await using child = await runChild(spec);
  expect(prepared).toBe(1);
  await child.admitted(20_000);
  const alive = spec.liveness.probe(child.running, AbortSignal.timeout(5_000));
  expect(await alive).toBeUndefined();
  child.running.signal("SIGTERM");
  expect((await child.exit).signal).toBe("SIGTERM");
  const dead = spec.liveness.probe(child.running, AbortSignal.timeout(5_000));
  expect(await dead).toBe(`nothing listens on port ${port}`);
});
