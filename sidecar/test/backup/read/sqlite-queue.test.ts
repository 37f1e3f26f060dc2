import { dlopen } from "bun:ffi";
import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { closeSync, openSync, readFileSync, statSync, unlinkSync } from "node:fs";
import { join } from "node:path";

import { OpenFile } from "../../../src/backup/read/open-file.ts";
import type { ChildAnswer, ChildJob } from "../../../src/backup/read/sqlite-process.ts";
import { SqliteQueue } from "../../../src/backup/read/sqlite-queue.ts";
import { systemClock } from "../../../src/platform/clock.ts";
import { listProcesses } from "../../../src/supervisor/process-list.ts";
import { Root } from "../../../src/volume/root.ts";
import { ManualClock } from "../../support/manual-clock.ts";
import { tempDir } from "../../support/temp-dir.ts";
import { until } from "../../support/until.ts";

/** A folder with databases, and questions about them. */
function databases(options: { readonly clock?: typeof systemClock } = {}) {
  const folder = tempDir();
  const root = new Root(folder.path);
  const dir = root.dir("");
  const stop = new AbortController();
  const reader = new SqliteQueue({ clock: options.clock ?? systemClock, signal: stop.signal });
  const outputs: OpenFile[] = [];
  return {
    stop,
    path: folder.path,
    ask(name: string, mode: ChildJob["mode"] = "rest"): Promise<ChildAnswer> {
      const path = join(folder.path, name);
      using database = new Database(path);
      database.run("create table if not exists t (x)");
      const output = new OpenFile(openSync(`${path}.out`, "w+"));
      unlinkSync(`${path}.out`);
      outputs.push(output);
      const { dev, ino, size } = statSync(path, { bigint: true });
      return reader.ask({
        job: { name, inode: `${dev}:${ino}`, mode, check: false },
        folder: dir,
        output,
        sizeBytes: Number(size),
      });
    },
    [Symbol.dispose]() {
      stop.abort(new Error("the test is over"));
      for (const output of outputs) output[Symbol.dispose]();
      dir[Symbol.dispose]();
      root[Symbol.dispose]();
      folder[Symbol.dispose]();
    },
  };
}

/** Holds the process that reads databases, as any process of the same user may, and returns its number. */
async function hold(): Promise<number> {
  // It is started a moment after it was asked, and may be done a few milliseconds later.
  await Promise.resolve();
  return until(() => {
    const child = listProcesses().find(
      ({ pid, parent, zombie }) =>
        parent === process.pid &&
        !zombie &&
        readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("sqlite-child"),
    );
    if (child) process.kill(child.pid, "SIGSTOP");
    return child?.pid;
  }, "the process that reads databases");
}

const PIDFD_OPEN = 434n;
const PIDFD_GETFD = 438n;

/** A descriptor for the standard output of another process, as whoever may trace that one can have. */
function outputOf(pid: number): number {
  const libc = dlopen("libc.so.6", {
    syscall: { args: ["i64", "i64", "i64", "i64"], returns: "i64" },
  });
  const pidfd = Number(libc.symbols.syscall(PIDFD_OPEN, BigInt(pid), 0n, 0n));
  const fd = Number(libc.symbols.syscall(PIDFD_GETFD, BigInt(pidfd), 1n, 0n));
  libc.close();
  closeSync(pidfd);
  if (fd < 0) throw new Error(`Cannot take the output of process ${pid}`);
  return fd;
}

test("SqliteQueue does not wait for whoever else holds the output of its process", async () => {
  using data = databases();
  const answer = data.ask("a.sqlite");
  const pid = await hold();
  const fd = outputOf(pid);
  process.kill(pid, "SIGCONT");
  expect(await answer).toMatchObject({ kind: "copied" });
  expect(await data.ask("b.sqlite")).toMatchObject({ kind: "copied" });
  closeSync(fd);
});

test("SqliteQueue ends a process that says more than it was asked for", async () => {
  using data = databases();
  const answer = data.ask("a.sqlite");
  const fd = outputOf(await hold());
  const flood = Bun.spawn(["sh", "-c", "yes | tr -d '\\n'"], { stdin: "ignore", stdout: fd });
  closeSync(fd);
  expect(await answer).toMatchObject({ kind: "lost", message: "it said too much" });
  flood.kill("SIGKILL");
  expect(await data.ask("b.sqlite")).toMatchObject({ kind: "copied" });
});

test("SqliteQueue gives up the database that takes too long, and goes on with the others", async () => {
  const clock = new ManualClock();
  using data = databases({ clock });
  const answers = ["a.sqlite", "b.sqlite", "c.sqlite"].map((name) => data.ask(name));
  await hold();
  const passing = setInterval(() => void clock.advance(1_000), 5);
  try {
    const [first, ...others] = await Promise.all(answers);
    expect(first).toMatchObject({
      kind: "lost",
      message: expect.stringContaining("not read within"),
    });
    // So that it is left alone for as much longer.
    expect(first?.tookMs).toBeGreaterThan(1_000);
    expect(others).toMatchObject([{ kind: "copied" }, { kind: "copied" }]);
  } finally {
    clearInterval(passing);
  }
});

test("SqliteQueue answers nothing but lost once it was stopped", async () => {
  using data = databases();
  const answers = [data.ask("a.sqlite"), data.ask("b.sqlite")];
  await hold();
  data.stop.abort(new Error("stopped"));
  expect(await Promise.all(answers)).toMatchObject([{ kind: "lost" }, { kind: "lost" }]);
  expect(await data.ask("c.sqlite")).toMatchObject({ kind: "lost" });
});

test("SqliteQueue reads the others while some never come to an end", async () => {
  using data = databases();
  const hanging = ["a.sqlite", "b.sqlite", "c.sqlite"];
  for (const name of hanging) {
    using _ = new Database(join(data.path, name), { create: true });
  }
  const stuck = hanging.map((name) => {
    const answer = data.ask(name, "shared");
    // Whoever opens it waits for somebody who writes into it.
    Bun.spawnSync(["mkfifo", join(data.path, `${name}-journal`)]);
    return answer;
  });
  let ended = 0;
  for (const answer of stuck) void answer.then(() => (ended += 1));
  for (const name of ["d.sqlite", "e.sqlite", "f.sqlite"]) {
    expect(await data.ask(name)).toMatchObject({ kind: "copied" });
    expect(ended).toBe(0);
  }
  data.stop.abort(new Error("stopped"));
  for (const answer of await Promise.all(stuck)) {
    expect(answer.kind).toBe("lost");
    expect(answer.tookMs).toBeGreaterThan(0);
  }
});
