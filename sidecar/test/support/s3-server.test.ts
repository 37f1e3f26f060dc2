import { expect, test } from "bun:test";
import { spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";

import { tempDir } from "./temp-dir.ts";
import { until } from "./until.ts";

const SCRIPT = join(import.meta.dir, "../../../scripts/s3-server.mjs");

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

test.each(["SIGTERM", "SIGKILL", "a closed input"] as const)(
  "scripts/s3-server.mjs leaves no daemon and no folder after %s",
  async (ending) => {
    using dir = tempDir();
    const child = spawn("node", [SCRIPT], {
      env: { ...process.env, TMPDIR: dir.path },
      stdio: ["pipe", "pipe", "inherit"],
    });
    const ended = new Promise((resolve) => child.once("exit", resolve));
    const folder = (): string => join(dir.path, readdirSync(dir.path)[0] ?? "none");
    const pids = (): number[] => {
      const path = join(folder(), "pids");
      return existsSync(path) ? readdirSync(path).map(Number) : [];
    };
    await until(() => pids().length > 0, "the first daemon", 60_000);
    const started = pids();
    expect(started.every(alive)).toBe(true);
    if (ending === "a closed input") child.stdin.end();
    else child.kill(ending);
    await ended;
    await until(() => readdirSync(dir.path).length === 0, "the folder to go", 30_000);
    await until(() => !started.some(alive), "the daemons to end", 30_000);
  },
  120_000,
);

test("scripts/s3-server.mjs says what to install where Ceph is missing", async () => {
  const node = Bun.which("node") ?? "node";
  const child = Bun.spawn([node, SCRIPT], { env: { PATH: "/nonexistent" }, stderr: "pipe" });
  expect(await new Response(child.stderr).text()).toContain(
    "apt-get install --no-install-recommends radosgw ceph-mon ceph-osd ceph-common",
  );
  expect(await child.exited).toBe(1);
});
