import { expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { systemClock } from "../../src/platform/clock.ts";
import { ChildLog } from "../../src/supervisor/child-log.ts";
import { spawnChild } from "../../src/supervisor/child.ts";
import {
  ChildrenFile,
  whereWeRun,
  type ChildrenRecord,
} from "../../src/supervisor/children-file.ts";
import { processInfo } from "../../src/supervisor/process-list.ts";
import { MARK } from "../../src/supervisor/process-tree.ts";
import { Roster } from "../../src/supervisor/roster.ts";
import { Dir, openTrustedDir } from "../../src/volume/dir.ts";
import { capturedLog } from "../support/captured-log.ts";
import { tempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";

setDefaultTimeout(30_000);

const clock = systemClock;

function folder() {
  const temp = tempDir();
  const dir = new Dir(openTrustedDir(temp.path), "");
  return {
    path: temp.path,
    dir,
    file: new ChildrenFile(dir),
    roster: () => new Roster({ clock, log: capturedLog(), dir }),
    [Symbol.dispose]() {
      dir[Symbol.dispose]();
      temp[Symbol.dispose]();
    },
  };
}

/** A child of `sh`, and the pid of a sleep that it has moved to a session of its own. */
async function start(script: string, env: Readonly<Record<string, string>> = {}) {
  const log = new ChildLog("test", { clock });
  const child = spawnChild(
    { command: ["sh", "-c", script], cwd: "/", env: { PATH: process.env["PATH"] ?? "/bin" } },
    { clock, log, env },
  );
  const words = await until(() => log.recent(1)[0]?.line, "the child's first line");
  return { child, told: Number(words) };
}

const alive = (pid: number): boolean => processInfo(pid)?.zombie === false;
const gone = (pid: number) => until(() => !alive(pid), `process ${pid} to be gone`);

/** The record of a sidecar that is no more. */
function recordOf(more: Partial<ChildrenRecord>): ChildrenRecord {
  return {
    v: 1,
    ...whereWeRun(),
    run: "gone",
    sidecar: { pid: process.pid, startTicks: 1 },
    children: [],
    ...more,
  };
}

test("Roster writes down who it is before any child, and each child with its start", async () => {
  using place = folder();
  const roster = place.roster();
  expect(await roster.takeOver()).toBe(0);
  const mark = roster.environment("web")[MARK] ?? "";
  const own = processInfo(process.pid)?.startTicks;
  expect(place.file.read()).toMatchObject({
    ...whereWeRun(),
    sidecar: { pid: process.pid, startTicks: own },
    children: [],
  });
  expect(mark).toBe(`${place.file.read()?.run}/web`);
  const { child } = await start("echo 1; exec sleep 60");
  roster.add("web", child);
  const { pid, startTicks } = child;
  expect(place.file.read()?.children).toEqual([
    { name: "web", pid, startTicks: Number(startTicks) },
  ]);
  expect(readdirSync(place.path)).toEqual(["children.json"]);
  child.signalGroup("SIGKILL");
  await child.ended;
});

test("takeOver ends a recorded child, its session and its descendants", async () => {
  using place = folder();
  const { child, told } = await start("setsid sleep 60 & sleep 60 & echo $!; wait");
  const { pid, startTicks = 0 } = child;
  place.file.write(recordOf({ children: [{ name: "web", pid, startTicks }] }));
  expect(await place.roster().takeOver()).toBe(3);
  await child.ended;
  await gone(told);
});

test("takeOver finds by the mark what was never written down", async () => {
  using place = folder();
  const { child, told } = await start("setsid sleep 60 & echo $!", { [MARK]: "gone/web" });
  await child.ended;
  expect(alive(told)).toBe(true);
  place.file.write(recordOf({}));
  expect(await place.roster().takeOver()).toBe(1);
  await gone(told);
});

test.each([
  ["another start time", { ticks: 1 }],
  ["another boot", { record: { boot: "other" } }],
  ["another namespace", { record: { namespace: "pid:[1]" } }],
])("takeOver spares a process with the number of an old one but %s", async (_what, change) => {
  const { ticks = 0, record = {} }: { ticks?: number; record?: Partial<ChildrenRecord> } = change;
  using place = folder();
  const { child } = await start("echo 1; exec sleep 60");
  const { pid, startTicks = 0 } = child;
  const children = [{ name: "web", pid, startTicks: startTicks + ticks }];
  place.file.write(recordOf({ children, ...record }));
  expect(await place.roster().takeOver()).toBe(0);
  expect(alive(pid)).toBe(true);
  child.signalGroup("SIGKILL");
  await child.ended;
});

test("takeOver refuses while the sidecar of the record lives", async () => {
  using place = folder();
  const { child } = await start("echo 1; exec sleep 60");
  const { pid, startTicks = 0 } = child;
  place.file.write(recordOf({ sidecar: { pid, startTicks } }));
  await expect(place.roster().takeOver()).rejects.toThrow(
    `Cannot take over the children of process ${pid}: it is a sidecar that still runs`,
  );
  expect(alive(pid)).toBe(true);
  child.signalGroup("SIGKILL");
  await child.ended;
});

test.each([
  ["nothing", undefined],
  ["no JSON", "{"],
  ["another shape", `{"v":2}`],
  ["an empty file", ""],
])("takeOver goes on where the record is %s", async (_what, text) => {
  using place = folder();
  if (text !== undefined) writeFileSync(join(place.path, "children.json"), text);
  // As a crash in the middle of a write leaves it.
  writeFileSync(join(place.path, "children.json.new"), "half");
  expect(await place.roster().takeOver()).toBe(0);
  expect(place.file.read()?.children).toEqual([]);
});

test("Roster says once that it cannot write, and goes on", async () => {
  using place = folder();
  const log = capturedLog();
  const roster = new Roster({ clock, log, dir: place.dir });
  const { child } = await start("echo 1; exec sleep 60");
  // A folder in the way of the new file.
  place.dir.mkdir("children.json.new");
  await roster.takeOver();
  roster.add("web", child);
  expect(log.lines.map(({ message }) => message)).toEqual(["Children cannot be written down"]);
  child.signalGroup("SIGKILL");
  await child.ended;
});

test("clear ends what a dead child left, in its session or with its mark, and nothing else", async () => {
  using place = folder();
  const roster = place.roster();
  const other = await start("echo 1; exec sleep 60", roster.environment("other"));
  const web = await start("trap '' TERM; sleep 60 & echo $!", roster.environment("web"));
  roster.add("web", web.child);
  roster.add("other", other.child);
  const stray = await start("setsid sleep 60 & echo $!", roster.environment("web"));
  await web.child.ended;
  await stray.child.ended;
  expect(alive(web.told) && alive(stray.told)).toBe(true);
  await Promise.all([roster.clear("web"), roster.clear("web")]);
  await gone(web.told);
  await gone(stray.told);
  expect(alive(other.child.pid)).toBe(true);
  await roster.clear("unknown");
  other.child.signalGroup("SIGKILL");
  await other.child.ended;
});
