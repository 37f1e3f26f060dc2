import { expect, test } from "bun:test";

import { endLeftovers, findGateways } from "../../src/gateway/leftovers.ts";
import { systemClock, type Clock } from "../../src/platform/clock.ts";
import { tempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

const signal = new AbortController().signal;
/** Ten times as fast. */
const fast: Clock = {
  ...systemClock,
  monotonic: () => systemClock.monotonic() * 10,
  sleep: (ms, given) => systemClock.sleep(ms / 10, given),
};

/** A process that looks like a gateway's helper for `stateDir`. */
async function helper(stateDir: string, seconds: number) {
  const name = "/x/dist/process/spawn-broker/worker.js";
  const child = Bun.spawn(["bash", "-c", `exec -a ${name} sleep ${seconds}`], {
    env: { PATH: process.env["PATH"] ?? "", OPENCLAW_STATE_DIR: stateDir },
  });
  await until(() => findGateways(stateDir).includes(child.pid), "the helper");
  return {
    child,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

test("a start waits for the last gateway's helpers, which end by themselves", async () => {
  using dir = tempDir();
  await using own = await helper(dir.path, 0.5);
  await endLeftovers({ stateDir: dir.path, clock: systemClock, signal });
  expect(await own.child.exited).toBe(0);
});

test("a helper that does not end is killed", async () => {
  using dir = tempDir();
  await using own = await helper(dir.path, 60);
  await endLeftovers({ stateDir: dir.path, clock: fast, signal });
  await own.child.exited;
  expect(own.child.signalCode).toBe("SIGKILL");
});

test("a helper that survives even that keeps the gateway down", async () => {
  using dir = tempDir();
  await using own = await helper(dir.path, 60);
  const kill = (): void => undefined;
  await expect(endLeftovers({ stateDir: dir.path, clock: fast, signal, kill })).rejects.toThrow(
    `processes ${own.child.pid} of the last one do not end`,
  );
});

test("processes of another state, and others of this one, are none of our business", async () => {
  using dir = tempDir();
  using other = tempDir();
  await using own = await helper(other.path, 60);
  await using tool = {
    child: Bun.spawn(["sleep", "60"], { env: { OPENCLAW_STATE_DIR: dir.path } }),
    async [Symbol.asyncDispose]() {
      this.child.kill("SIGKILL");
      await this.child.exited;
    },
  };
  await endLeftovers({ stateDir: dir.path, clock: systemClock, signal });
  expect(own.child.exitCode).toBeNull();
  expect(tool.child.exitCode).toBeNull();
});
