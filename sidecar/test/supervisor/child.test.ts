import { expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { systemClock } from "../../src/platform/clock.ts";
import { ChildLog } from "../../src/supervisor/child-log.ts";
import { spawnChild, type Child } from "../../src/supervisor/child.ts";
import { isRunning, processInfo } from "../../src/supervisor/process-list.ts";
import type { Launch } from "../../src/supervisor/spec.ts";
import { tempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

setDefaultTimeout(30_000);

const clock = systemClock;

/** Starts a script; its group is killed when the scope ends. */
function start(script: string, launch: Partial<Launch> = {}) {
  const log = new ChildLog("test", { clock });
  const child = spawnChild(
    {
      command: ["sh", "-c", script],
      cwd: "/",
      env: { PATH: process.env["PATH"] ?? "/usr/bin:/bin" },
      ...launch,
    },
    { clock, log, env: { EXTRA: "given" } },
  );
  const lines = () => log.recent(1_000).map(({ line }) => line);
  const said = (line: string) =>
    until(() => lines().includes(line), `"${line}" in ${lines().join(" | ")}`);
  return { child, lines, said, [Symbol.dispose]: () => killGroup(child) };
}

/** Also after the child's own end, when it would not any more. */
function killGroup(child: Child): void {
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // Nobody left.
  }
}

test.each([
  ["exit 0", { code: 0, signal: undefined }],
  ["exit 42", { code: 42, signal: undefined }],
  ["kill -9 $$", { code: undefined, signal: "SIGKILL" }],
  ["kill -11 $$", { code: undefined, signal: "SIGSEGV" }],
])("spawnChild tells how `%s` ended", async (script, expected) => {
  using run = start(script);
  expect(await run.child.ended).toMatchObject(expected);
});

test("spawnChild gives its environment, ours, and nothing else", async () => {
  using run = start("env", { env: { ONE: "1", PATH: "/usr/bin:/bin" } });
  await run.child.ended;
  const names = run.lines().map((line) => line.slice(0, line.indexOf("=")));
  expect(names).toContain("ONE");
  expect(run.lines()).toContain("EXTRA=given");
  expect(names).not.toContain("HOME");
});

test("spawnChild runs in its folder, in a session and a group of its own", async () => {
  using dir = tempDir();
  using run = start("pwd; echo up; exec sleep 60", { cwd: dir.path });
  await run.said("up");
  expect(run.lines()).toContain(dir.path);
  const { pid } = run.child;
  expect(processInfo(pid)).toMatchObject({ session: pid, group: pid, parent: process.pid });
});

test("spawnChild drops to a user and group, with no others", async () => {
  using run = start("id -u; id -g; id -G", { user: { uid: 65_534, gid: 65_534 } });
  await run.child.ended;
  expect(run.lines()).toEqual(["65534", "65534", "65534"]);
});

test("spawnChild sets how soon the kernel kills for memory", async () => {
  using run = start("exec sleep 60", { oomScoreAdj: 321 });
  expect(readFileSync(`/proc/${run.child.pid}/oom_score_adj`, "utf8")).toBe("321\n");
});

test("spawnChild says what is wrong with a command or a folder", () => {
  using dir = tempDir();
  const file = join(dir.path, "plain");
  writeFileSync(file, "text");
  chmodSync(file, 0o644);
  const launch =
    (command: [string], cwd = "/") =>
    () =>
      start("", { command, cwd });
  expect(launch(["no-such-command-here"])).toThrow(
    'Cannot start "no-such-command-here": no such command',
  );
  expect(launch([file])).toThrow(`Cannot start "${file}": it may not be executed`);
  expect(launch(["true"], "/no/such/folder")).toThrow(
    'Cannot start "true": no folder "/no/such/folder"',
  );
  expect(launch(["true"], file)).toThrow(`Cannot start "true": no folder "${file}"`);
});

test("a signal to the group reaches grandchildren, one to the child does not", async () => {
  using run = start(
    "sh -c 'trap \"echo grandchild\" USR1; echo up; while :; do sleep 0.05; done' & trap 'echo child' USR1; while :; do wait; done",
  );
  await run.said("up");
  run.child.signal("SIGUSR1");
  await run.said("child");
  expect(run.lines()).not.toContain("grandchild");
  run.child.signalGroup("SIGUSR1");
  await run.said("grandchild");
});

test("a signal after the end is a success and reaches nobody", async () => {
  using run = start("sleep 60 & echo $!");
  await run.child.ended;
  const orphan = Number(run.lines()[0]);
  run.child.signal("SIGKILL");
  run.child.signalGroup("SIGKILL");
  const info = processInfo(orphan);
  expect(info && isRunning(info)).toBe(true);
});

test("ended comes soon after the exit though an orphan holds the pipe, with all that was said", async () => {
  using run = start("echo first; sleep 60 & echo last; exit 3");
  const begun = performance.now();
  expect(await run.child.ended).toEqual({
    code: 3,
    signal: undefined,
    lastLines: ["first", "last"],
  });
  expect(performance.now() - begun).toBeLessThan(10_000);
});

test("the last words of a child arrive whole, also without a newline", async () => {
  using run = start(
    "i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done; printf end; exit 1",
  );
  const { lastLines } = await run.child.ended;
  expect(lastLines).toHaveLength(50);
  expect(lastLines.slice(-2)).toEqual(["line 499", "end"]);
});

test("both streams are read", async () => {
  using run = start("echo out; echo err >&2; exit 0");
  await run.child.ended;
  expect(run.lines().toSorted()).toEqual(["err", "out"]);
});

test("a child stops being running when it is a zombie, whatever signal 0 says", async () => {
  using run = start(
    // It ends once its parent has become a program that waits for nobody.
    "(until grep -q sleep /proc/$$/comm; do :; done) & echo $!; exec sleep 60",
  );
  await until(() => run.lines().length > 0, "the pid");
  const pid = Number(run.lines()[0]);
  const info = await until(() => {
    const now = processInfo(pid);
    return now?.zombie ? now : undefined;
  }, "a zombie");
  process.kill(pid, 0);
  expect(isRunning(info)).toBe(false);
});
