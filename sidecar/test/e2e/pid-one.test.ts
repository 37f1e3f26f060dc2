import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { MachineProcess } from "../support/machine-process.ts";
import { tempDir } from "../support/temp-dir.ts";

const LIMIT_MS = 120_000;
/** A namespace where the sidecar is the first process, as in a container. */
const AS_PID_ONE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
/** A gateway whose tools leave orphans behind, one of which will not hear of an end. */
const GATEWAY = `
  Bun.serve({ port: Number(process.env.GATEWAY_PORT), fetch: () => new Response("ok") });
  const deaf = "trap '' TERM HUP INT; while :; do sleep 1; done";
  Bun.spawn(["/bin/sh", "-c", "setsid /bin/sh -c \\"$0\\" >/dev/null 2>&1 & exit 0", deaf]);
  for (let n = 0; n < 50; n += 1) Bun.spawn(["/bin/sh", "-c", "(sleep 0.1 &) ; exit 0"]);`;

test.each([
  ["PID 1", AS_PID_ONE],
  ["the child of another init", []],
])(
  "as %s the machine boots, reaps what its gateway leaves behind, and is gone with all of it when asked",
  async (_, wrapper) => {
    using folder = tempDir();
    const env = { GATEWAY_COMMAND: JSON.stringify([process.execPath, "-e", GATEWAY]) };
    await using machine = await MachineProcess.start({ folder: folder.path, env, wrapper });
    await machine.untilReady();
    const marker = readFileSync(join(machine.dataDir, ".sidecar/volume.json"), "utf8");
    expect(marker).toContain('"ready"');
    expect(await machine.stop()).toBe(0);
    // The sweep says so where it cannot end something.
    expect(JSON.stringify(machine.lines)).not.toContain("could not be ended");
    expect(machine.lines.filter((line) => "raw" in line)).toEqual([]);
  },
  LIMIT_MS,
);

test(
  "as PID 1 a signal is obeyed from the moment that Bun runs",
  async () => {
    using folder = tempDir();
    for (const delayMs of [150, 300, 600]) {
      await using machine = await MachineProcess.start({
        folder: folder.path,
        wrapper: AS_PID_ONE,
      });
      await Bun.sleep(delayMs);
      machine.signal("SIGTERM");
      // Before its handlers stand the kernel drops what is sent to PID 1: as a platform would, the test asks again.
      const again = setInterval(() => machine.signal("SIGTERM"), 700);
      try {
        expect(await machine.exited).toBe(0);
      } finally {
        clearInterval(again);
      }
    }
  },
  LIMIT_MS,
);
