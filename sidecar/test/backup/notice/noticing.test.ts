import { Database } from "bun:sqlite";
import { expect, setDefaultTimeout, test } from "bun:test";
import { lstatSync, mkdirSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

import { dispose } from "../../../src/backup/commit/batch.ts";
import type { CommitHeader } from "../../../src/backup/format/format.ts";
import { Index, type IndexedEntry } from "../../../src/backup/index.ts";
import { DirtySet } from "../../../src/backup/notice/dirty.ts";
import { createIgnore } from "../../../src/backup/notice/ignore.ts";
import { Scanner } from "../../../src/backup/notice/scanner.ts";
import { Watcher } from "../../../src/backup/notice/watcher.ts";
import { ReadContext } from "../../../src/backup/read/read-context.ts";
import { readPath } from "../../../src/backup/read/reader.ts";
import { systemClock } from "../../../src/platform/clock.ts";
import { Root } from "../../../src/volume/root.ts";
import { tempDir } from "../../support/temp-dir.ts";

// The machine may be busy.
setDefaultTimeout(60_000);

/** Files, folders and links that come, change, move and go, and a database in the midst of it, for about three seconds. */
const CHURN = (volume: string): string => `
  const fs = require("node:fs"); const { Database } = require("bun:sqlite"); const root = ${JSON.stringify(volume)} + "/workspace";
  let seed = Number(process.argv.at(-1)) || 1; const random = (n) => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
  const at = () => root + "/" + Array.from({ length: 1 + random(4) }, () => "n" + random(5)).join("/");
  const db = new Database(root + "/live.db", { create: true }); db.run("PRAGMA journal_mode = WAL"); db.run("CREATE TABLE t (n)");
  const pause = new Int32Array(new SharedArrayBuffer(4)); const end = Date.now() + 3000;
  for (let i = 0; Date.now() < end; i += 1) try {
    const path = at(); const what = random(20);
    if (what < 5) fs.mkdirSync(path, { recursive: true });
    else if (what < 7) fs.rmSync(path, { recursive: true, force: true });
    else if (what < 9) fs.renameSync(path, at());
    else if (what < 10) fs.symlinkSync("../" + random(9), path);
    else if (what < 11) fs.linkSync(path + "f", at() + "f");
    else if (what < 12) fs.chmodSync(path, 0o700 + random(64));
    else if (what < 13) fs.writeFileSync(path + "f", Buffer.alloc(70_000 + random(90_000), String(i)));
    else if (what < 16) fs.appendFileSync(path + "f", "line " + i);
    else if (what < 18) fs.writeFileSync(path + "f", String(i));
    else db.run("INSERT INTO t VALUES (?)", [i]);
    if (i % 8 === 0) Atomics.wait(pause, 0, 0, 2);
  } catch {}
  db.close();`;

test.each([1, 2, 3])(
  "what is noticed and read under churn %d ends as what is on the disk",
  async (seed) => {
    using dir = tempDir();
    const volume = join(dir.path, "data");
    mkdirSync(join(volume, "workspace"), { recursive: true });
    using index = new Index(join(dir.path, "index.sqlite"));
    using root = new Root(volume);
    const ignore = createIgnore();
    const dirty = new DirtySet({ clock: systemClock });
    const isDatabase = (path: string): boolean => {
      const entry = index.get(path)?.entry;
      return entry?.type === "file" && entry.sqlite === true;
    };
    using context = new ReadContext({ root, index, ignore, clock: systemClock });
    const watcher = new Watcher({
      path: volume,
      ignore: () => ignore,
      isDatabase,
      onDirty: (path, kind) => dirty.hint(path, kind),
      onLost: () => dirty.hint("", "tree"),
    });
    const scanner = new Scanner({ volume, index: join(dir.path, "index.sqlite") });
    let position = 0;

    const look = (path: string) =>
      scanner.scan({
        path,
        onBatch: ({ changed, gone }) => dirty.found([...changed, ...gone]),
      });
    /** Reads what is due and puts it into the index, as a commit that is durable at once. */
    const step = async (all: boolean): Promise<number> => {
      const items = dirty.take(64, { also: () => all });
      const entries: IndexedEntry[] = [];
      const deleted: string[] = [];
      for (const item of items) {
        if (item.kind === "tree") {
          await look(item.path);
          continue;
        }
        const reading = await readPath(item.path, context);
        if (reading.kind === "gone") deleted.push(item.path);
        else if (reading.kind !== "skipped") entries.push(reading.item);
        dispose([reading]);
      }
      position += 1;
      index.record(header(position), { entries, deleted });
      context.startBatch();
      dirty.settled(items);
      return items.length;
    };

    await watcher.start();
    const child = Bun.spawn([process.execPath, "-e", CHURN(volume), String(seed)]);
    while (child.exitCode === null && child.signalCode === null) {
      if ((await step(false)) === 0) await Bun.sleep(20);
    }
    await watcher.stop();
    // As at a stop: scan, read what is left, until nothing is.
    for (let round = 0; round < 10; round += 1) {
      const { outcome, changed, gone } = await look("");
      expect(outcome).toBe("complete");
      while ((await step(true)) > 0) continue;
      if (changed + gone === 0) break;
      // What was read within two seconds of its change is read once more.
      if (round > 0) await Bun.sleep(500);
    }

    const held = new Map([...index.all()].map(({ entry }) => [entry.path, entry]));
    const paths = (readdirSync(join(volume, "workspace"), { recursive: true }) as string[]).map(
      (path) => `workspace/${path}`,
    );
    const found = paths.filter((path) => !/\.db-(?:wal|shm)$/.test(path));
    expect([...held.keys()].sort()).toEqual(["workspace", ...found].sort());
    for (const path of found) {
      const stat = lstatSync(join(volume, path));
      const entry = held.get(path);
      if (stat.isDirectory()) expect(entry?.type).toBe("directory");
      else if (stat.isSymbolicLink()) expect(entry?.type).toBe("symlink");
      else if (entry?.type !== "file") throw new Error(`${path} is held as a ${entry?.type}`);
      else if (entry.sqlite !== true) {
        const bytes = readFileSync(join(volume, path));
        const sha256 = new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
        expect([path, entry.sha256]).toEqual([path, sha256]);
        expect(entry.mode).toBe(stat.mode & 0o777);
      }
    }
    expect(isDatabase("workspace/live.db")).toBe(true);
    using live = new Database(join(volume, "workspace/live.db"), { readonly: true });
    expect(live.query("PRAGMA quick_check").values()).toEqual([["ok"]]);
  },
);

function header(position: number): CommitHeader {
  return {
    format: 1,
    position,
    id: `commit-${position}`,
    user: "u",
    machine: "m",
    time: position,
    changed: 0,
    deletedCount: 0,
    bytes: 0,
  };
}
