import { Database } from "bun:sqlite";
import { expect, setDefaultTimeout, test } from "bun:test";
import {
  appendFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import { DirtySet } from "../../../src/backup/notice/dirty.ts";
import { createIgnore } from "../../../src/backup/notice/ignore.ts";
import { Watcher, type WatcherOptions } from "../../../src/backup/notice/watcher.ts";
import { systemClock } from "../../../src/platform/clock.ts";
import { tempDir } from "../../support/temp-dir.ts";
import { until } from "../../support/until.ts";

// The machine may be busy.
setDefaultTimeout(30_000);

async function watching(path: string, options: Partial<WatcherOptions> = {}) {
  const dirty: { path: string; kind: "path" | "tree" }[] = [];
  const lost: string[] = [];
  const watcher = new Watcher({
    path,
    ignore: () => createIgnore(),
    onDirty: (changed, kind) => dirty.push({ path: changed, kind }),
    onLost: (kind) => lost.push(kind),
    ...options,
  });
  await watcher.start();
  expect(watcher.isWatching).toBe(true);
  const saw = (changed: string, kind: "path" | "tree" = "path") =>
    until(
      () => dirty.some((item) => item.path === changed && item.kind === kind),
      `a hint of ${changed}`,
    );
  return { dirty, lost, watcher, saw, [Symbol.asyncDispose]: () => watcher.stop() };
}

function inotifyWatches(): number {
  let watches = 0;
  for (const fd of readdirSync("/proc/self/fdinfo")) {
    try {
      const info = readFileSync(`/proc/self/fdinfo/${fd}`, "utf8");
      watches += info.split("\n").filter((line) => line.startsWith("inotify")).length;
    } catch {
      // Closed by now.
    }
  }
  return watches;
}

test("Watcher hints at files that are made, written, moved and deleted, and at new folders as a whole", async () => {
  using dir = tempDir();
  mkdirSync(join(dir.path, "a"));
  writeFileSync(join(dir.path, "a/old"), "x");
  await using seen = await watching(dir.path);
  writeFileSync(join(dir.path, "a/new"), "x");
  await seen.saw("a/new");
  appendFileSync(join(dir.path, "a/old"), "x");
  await seen.saw("a/old");
  renameSync(join(dir.path, "a/old"), join(dir.path, "moved"));
  await seen.saw("moved");
  rmSync(join(dir.path, "a/new"));
  mkdirSync(join(dir.path, "b/c"), { recursive: true });
  await seen.saw("b", "tree");
  await until(() => {
    writeFileSync(join(dir.path, "b/c/deep"), String(Math.random()));
    return seen.dirty.some((item) => item.path === "b/c/deep");
  }, "a hint in a new folder");
});

test("Watcher says nothing of what is ignored, and does not follow links", async () => {
  using dir = tempDir();
  using outside = tempDir();
  mkdirSync(join(dir.path, "workspace/node_modules"), { recursive: true });
  mkdirSync(join(dir.path, ".sidecar"));
  symlinkSync(outside.path, join(dir.path, "workspace/link"));
  await using seen = await watching(dir.path);
  writeFileSync(join(outside.path, "x"), "x");
  writeFileSync(join(dir.path, ".sidecar/x"), "x");
  writeFileSync(join(dir.path, "workspace/node_modules/x"), "x");
  writeFileSync(join(dir.path, "workspace/last"), "x");
  await seen.saw("workspace/last");
  expect(new Set(seen.dirty.map(({ path }) => path))).toEqual(new Set(["workspace/last"]));
});

test("Watcher says nothing of what lies deeper than anything that is backed up", async () => {
  using dir = tempDir();
  await using seen = await watching(dir.path);
  // One call for each folder: a path to all of them is longer than a path can be.
  const made = Bun.spawnSync(
    ["sh", "-c", "for i in $(seq 400); do mkdir a && cd -P a; done; : > bottom"],
    {
      cwd: dir.path,
    },
  );
  expect(made.exitCode).toBe(0);
  writeFileSync(join(dir.path, "after"), "");
  await seen.saw("after");
  const depths = seen.dirty.map(({ path }) => path.split("/").length);
  expect(Math.max(...depths)).toBeLessThanOrEqual(256);
});

test("Watcher takes a database's log for the database", async () => {
  using dir = tempDir();
  using db = new Database(join(dir.path, "x.db"), { create: true });
  db.run("PRAGMA journal_mode = WAL");
  db.run("CREATE TABLE t (a)");
  await using seen = await watching(dir.path, { isDatabase: (path) => path === "x.db" });
  db.run("INSERT INTO t VALUES (1)");
  await seen.saw("x.db");
  expect(seen.dirty.every(({ path }) => path === "x.db")).toBe(true);
});

test("Watcher needs one inotify watch for each folder, and gives them back", async () => {
  using dir = tempDir();
  for (let i = 0; i < 200; i += 1) {
    mkdirSync(join(dir.path, String(i)));
    for (let j = 0; j < 10; j += 1) writeFileSync(join(dir.path, String(i), String(j)), "");
  }
  const before = inotifyWatches();
  const seen = await watching(dir.path);
  expect(inotifyWatches() - before).toBe(201);
  await seen.watcher.stop();
  await seen.watcher.stop();
  expect(seen.watcher.isWatching).toBe(false);
  await until(() => inotifyWatches() === before, "the watches to be given back");
});

test("Watcher says that it cannot watch where there are not enough watches, and can be started again", async () => {
  using dir = tempDir();
  for (let i = 0; i < 60; i += 1) mkdirSync(join(dir.path, String(i)));
  const module = join(import.meta.dir, "../../../src/backup/notice/watcher.ts");
  const script = `
    import { writeFileSync, rmSync } from "node:fs";
    import { Watcher } from ${JSON.stringify(module)};
    const limit = (n) => writeFileSync("/proc/sys/user/max_inotify_watches", String(n));
    const path = ${JSON.stringify(dir.path)}, said = [];
    const ignore = () => ({ matches: () => false, covers: () => false });
    const watcher = new Watcher({ path, ignore, onDirty: (p) => said.push(p), onLost: (kind) => said.push(kind) });
    limit(20); await watcher.start(); said.push(watcher.isWatching);
    limit(200); await watcher.start(); said.push(watcher.isWatching);
    writeFileSync(path + "/1/x", "x");
    for (let i = 0; i < 300 && !said.includes("1/x"); i += 1) await Bun.sleep(10);
    await watcher.stop(); console.log(JSON.stringify([...new Set(said)]));`;
  const child = Bun.spawnSync(["unshare", "-Ur", process.execPath, "-e", script], {
    timeout: 30_000,
  });
  // Where a user may make no namespace of its own, the limit cannot be lowered for one process.
  if (child.stderr.toString().includes("unshare")) return;
  expect(JSON.parse(child.stdout.toString())).toEqual(["failed", false, true, "1/x"]);
});

test("Watcher and DirtySet together miss nothing of a churn", async () => {
  using dir = tempDir();
  const dirty = new DirtySet({ clock: systemClock });
  await using seen = await watching(dir.path, {
    onDirty: (path, kind) => dirty.hint(path, kind),
    onLost: () => dirty.hint("", "tree"),
  });
  void seen;
  const script = `
    const fs = require("node:fs"); const root = ${JSON.stringify(dir.path)};
    let seed = 7; const random = (n) => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
    const path = () => root + "/" + Array.from({ length: 1 + random(4) }, () => "n" + random(6)).join("/");
    for (let i = 0; i < 3000; i += 1) try {
      const at = path();
      if (i % 5 === 0) fs.mkdirSync(at, { recursive: true });
      else if (i % 7 === 0) fs.rmSync(at, { recursive: true, force: true });
      else if (i % 11 === 0) fs.renameSync(at, path());
      else fs.writeFileSync(at + "f" + random(5), String(i));
    } catch {}`;
  const child = Bun.spawn([process.execPath, "-e", script]);
  await child.exited;
  const all = (readdirSync(dir.path, { recursive: true }) as string[]).filter((path) =>
    lstatSync(join(dir.path, path)).isFile(),
  );
  expect(all.length).toBeGreaterThan(20);
  const hinted: { path: string; kind: "path" | "tree" }[] = [];
  const covered = (path: string) =>
    hinted.some(
      (item) =>
        item.path === path ||
        (item.kind === "tree" && (item.path === "" || path.startsWith(`${item.path}/`))),
    );
  await until(
    () => {
      hinted.push(...dirty.take(1_000));
      return all.every(covered);
    },
    "every file to be hinted at",
    10_000,
  );
  expect(existsSync(dir.path)).toBe(true);
});
