import { expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import { encodeCommit } from "../../../src/backup/format/codec.ts";
import { keys } from "../../../src/backup/format/format.ts";
import type { Reading } from "../../../src/backup/read/reading.ts";
import { systemClock } from "../../../src/platform/clock.ts";
import { DirectoryStore } from "../../../src/store/directory.ts";
import { drive } from "../../support/drive.ts";
import { FaultyStore, faultAt, type FaultScript } from "../../support/faulty-store.ts";
import { ManualClock } from "../../support/manual-clock.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { replica, type ReplicaOptions } from "../../support/replica.ts";
import { storedTree } from "../../support/stored-tree.ts";
import { tempDir } from "../../support/temp-dir.ts";
import { describeTree } from "../../support/tree.ts";
import { until } from "../../support/until.ts";

const HOUR = 3_600_000;
const never = new AbortController().signal;
const SKIP = { skip: [".sidecar", ".last-sync"] };

interface BenchOptions extends Partial<ReplicaOptions> {
  readonly script?: FaultScript;
  readonly files?: Readonly<Record<string, string>>;
}

/** A volume, a strict store in memory, and fake time. */
function bench(options: BenchOptions = {}) {
  const dir = tempDir();
  const volume = join(dir.path, "data");
  const clock = new ManualClock(Date.now());
  const memory = new MemoryStore(clock);
  const store = new FaultyStore(memory, options.script, clock);
  const write = (path: string, content: string): void => {
    mkdirSync(join(volume, path, ".."), { recursive: true });
    writeFileSync(join(volume, path), content);
  };
  for (const [path, content] of Object.entries(options.files ?? { "workspace/a.md": "a" }))
    write(path, content);
  const { script: _script, files: _files, ...rest } = options;
  const one = replica({ store, clock, volume, ...rest });
  const { replicator } = one;
  const commits = (): number => memory.keys.filter((key) => key.startsWith("commits/")).length;
  return {
    ...one,
    volume,
    clock,
    memory,
    store,
    write,
    commits,
    remove: (path: string) => rmSync(join(volume, path), { recursive: true }),
    start: () => replicator.start(never),
    flush: () => drive(clock, replicator.flush(never)),
    /** Lets fake time pass until the condition holds. */
    reach: (condition: () => boolean, stepMs = 250) =>
      drive(
        clock,
        (async () => {
          while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
        })(),
        { stepMs, limitMs: 3 * HOUR },
      ),
    async [Symbol.asyncDispose]() {
      await drive(clock, replicator.stop(AbortSignal.abort(new Error("the test is over"))));
      one[Symbol.dispose]();
      dir[Symbol.dispose]();
    },
  };
}

test("a volume comes into the store as it is, and stays the same with every change", async () => {
  await using t = bench({
    files: {
      "workspace/notes.md": "notes",
      "workspace/big.bin": "big".repeat(100_000),
      "openclaw/empty": "",
      "home/two\nlines": "odd",
    },
  });
  symlinkSync("notes.md", join(t.volume, "workspace/link"));
  mkdirSync(join(t.volume, "workspace/empty-folder"));
  await t.start();
  await t.flush();
  expect(await storedTree(t.memory)).toEqual(describeTree(t.volume, SKIP));
  t.write("workspace/notes.md", "other notes");
  t.remove("workspace/empty-folder");
  renameSync(join(t.volume, "workspace/big.bin"), join(t.volume, "home/moved.bin"));
  t.write("openclaw/new/deep/file", "new");
  await t.flush();
  expect(await storedTree(t.memory)).toEqual(describeTree(t.volume, SKIP));
  expect(t.replicator.status()).toMatchObject({
    state: "idle",
    lagMs: 0,
    pendingFiles: 0,
    skippedCount: 0,
    budget: 5_000,
  });
  const lastSync = readFileSync(join(t.volume, ".last-sync"), "utf8");
  expect(lastSync).toMatch(/^20\d\d-.*Z position \d+\n$/);
});

test("nothing changed makes no commit", async () => {
  await using t = bench();
  await t.start();
  await t.flush();
  const before = t.commits();
  await t.flush();
  await t.clock.advance(120_000);
  expect(t.commits()).toBe(before);
});

test("a burst of 100 small files is one put", async () => {
  await using t = bench();
  await t.start();
  await t.flush();
  await t.reach(() => t.index.checkpoint() !== undefined);
  const { a } = t.replicator.status().requests;
  for (let n = 0; n < 100; n += 1) t.write(`workspace/${n}.md`, `content ${n}`);
  await t.flush();
  expect(t.replicator.status().requests.a).toBe(a + 1);
});

test("the first change goes at once, the next ones as the pace allows", async () => {
  await using t = bench();
  await t.start();
  await t.flush();
  await t.clock.advance(60_000);
  const before = t.commits();
  t.write("workspace/a.md", "a2");
  t.dirty.hint("workspace/a.md");
  const start = t.clock.monotonic();
  await t.reach(() => t.commits() === before + 1, 50);
  expect(t.clock.monotonic() - start).toBeLessThan(1_000);
  for (let n = 0; n < 20; n += 1) {
    t.write("workspace/a.md", `a${n}`);
    t.dirty.hint("workspace/a.md");
    await t.clock.advance(500);
  }
  await t.reach(() => t.commits() === before + 2, 50);
  // What is left of the day, by what is left of 5,000 commits: at least a second, at most thirty.
  expect(t.clock.monotonic() - start).toBeGreaterThanOrEqual(1_000);
  expect(t.clock.monotonic() - start).toBeLessThan(45_000);
});

test("after the first full upload there is a checkpoint, and the tree is read from it", async () => {
  await using t = bench();
  await t.start();
  await t.flush();
  await t.reach(() => t.index.checkpoint() !== undefined);
  const { position } = t.index.checkpoint() ?? { position: 0 };
  expect(t.memory.keys).toContain(keys.manifest(position));
  expect(await storedTree(t.memory)).toEqual(describeTree(t.volume, SKIP));
});

test("a checkpoint that cannot be written disturbs nothing", async () => {
  const noCheckpoints: FaultScript = (step) =>
    step.key.startsWith("checkpoints/") ? { fail: "denied" } : undefined;
  await using t = bench({ script: noCheckpoints });
  await t.start();
  await t.flush();
  t.write("workspace/b.md", "b");
  await t.flush();
  expect(t.types()).toEqual([]);
  expect(t.index.checkpoint()).toBeUndefined();
  expect(await storedTree(t.memory)).toEqual(describeTree(t.volume, SKIP));
});

test("another machine's commit ends everything", async () => {
  await using t = bench();
  await t.start();
  const { position } = await t.flush();
  const commit = {
    format: 1,
    position: position + 1,
    id: "another-machines-id",
    user: "user-1",
    machine: "machine-2",
    time: 1,
    changed: 0,
    deletedCount: 0,
    bytes: 0,
    entries: [],
    deleted: [],
  };
  await t.memory.put(keys.commit(position + 1), await encodeCommit(commit, new Map()));
  t.write("workspace/a.md", "a2");
  await expect(t.flush()).rejects.toThrow("written by machine-2");
  expect(t.replicator.status()).toMatchObject({ state: "fenced", position });
  expect(t.replicator.status().pendingFiles).toBeGreaterThan(0);
  expect(t.types()).toEqual(["fenced"]);
  const asked = t.store.steps.length;
  await t.clock.advance(10 * 60_000);
  await expect(t.flush()).rejects.toThrow("nothing may be committed");
  expect(t.store.steps.length).toBe(asked);
});

test("a store that cannot fence gets no commit, unless the fence is off", async () => {
  const script = faultAt({ operation: "put", ifAbsent: true }, { fail: "unsupported" });
  {
    await using t = bench({ script });
    await t.start();
    await t.reach(() => t.replicator.status().state === "unfenced");
    await t.clock.advance(60_000);
    expect(t.commits()).toBe(0);
    expect(t.types()).toEqual(["unfenced"]);
  }
  await using t = bench({ script, fence: "off" });
  await t.start();
  await t.flush();
  expect(await storedTree(t.memory)).toEqual(describeTree(t.volume, SKIP));
});

test("a volume that is suddenly empty is not committed, and the backup goes on when it is back", async () => {
  await using t = bench();
  await t.start();
  const { position } = await t.flush();
  renameSync(join(t.volume, "workspace"), join(t.volume, "..", "aside"));
  t.dirty.hint("workspace", "path");
  await t.reach(() => t.replicator.status().state === "halted");
  expect(t.replicator.status().reason?.kind).toBe("emptied");
  await expect(t.flush()).rejects.toThrow("nothing may be committed");
  await t.clock.advance(120_000);
  expect(t.commits()).toBe(position);
  renameSync(join(t.volume, "..", "aside"), join(t.volume, "workspace"));
  await t.reach(() => t.replicator.status().state === "idle");
  t.write("workspace/b.md", "b");
  await t.flush();
  expect(t.types()).toEqual(["halted", "resumed"]);
  expect(await storedTree(t.memory)).toEqual(describeTree(t.volume, SKIP));
});

test("a volume without its marker is not committed", async () => {
  let halt: { kind: string; message: string } | undefined;
  await using t = bench({ refuse: () => halt });
  await t.start();
  const { position } = await t.flush();
  halt = { kind: "marker", message: "the marker is gone" };
  t.write("workspace/b.md", "b");
  await expect(t.flush()).rejects.toThrow("nothing may be committed");
  expect(t.commits()).toBe(position);
  halt = undefined;
  await t.reach(() => t.replicator.status().state === "idle");
  await t.flush();
  expect(t.types()).toEqual(["halted", "resumed"]);
});

test("a mass deletion is committed, told, and the position before it is pinned", async () => {
  const files: Record<string, string> = { "workspace/kept.md": "kept" };
  for (let n = 0; n < 120; n += 1) files[`workspace/many/${n}`] = `content ${n}`;
  await using t = bench({ files });
  await t.start();
  const { position } = await t.flush();
  t.remove("workspace/many");
  await t.flush();
  expect(await storedTree(t.memory)).toEqual(describeTree(t.volume, SKIP));
  expect(t.events).toMatchObject([{ type: "mass_delete", details: { position, count: 121 } }]);
  const pin = t.memory.keys.find((key) => key.startsWith(keys.pins)) ?? "";
  const text = new TextDecoder().decode(await t.memory.get(pin));
  expect(JSON.parse(text)).toMatchObject({ position, reason: "mass_delete" });
});

test("a folder that only moved is no deletion", async () => {
  const files: Record<string, string> = { "workspace/kept.md": "kept" };
  for (let n = 0; n < 120; n += 1) files[`workspace/many/${n}`] = `content ${n}`;
  await using t = bench({ files });
  await t.start();
  await t.flush();
  renameSync(join(t.volume, "workspace/many"), join(t.volume, "workspace/moved"));
  await t.flush();
  expect(t.types()).toEqual([]);
  expect(t.memory.keys.some((key) => key.startsWith(keys.pins))).toBe(false);
});

test("an hour without the store is told once, kept in order, and caught up with", async () => {
  await using t = bench();
  await t.start();
  await t.flush();
  t.store.script = (step) => (step.phase === "before" ? { fail: "unavailable" } : undefined);
  const outage = t.clock.monotonic();
  for (let minute = 0; minute < 60; minute += 1) {
    t.write("workspace/a.md", `minute ${minute}`);
    t.write(`workspace/minutes/${minute}.md`, "content".repeat(1_000));
    t.dirty.hint("workspace/a.md");
    t.dirty.hint(`workspace/minutes/${minute}.md`);
    await drive(t.clock, t.clock.sleep(60_000), { stepMs: 5_000 });
    expect(t.replicator.status().lagMs).toBeGreaterThan(minute * 50_000);
  }
  expect(t.replicator.status()).toMatchObject({ state: "unreachable" });
  // One batch is in hand; of everything else only the names are kept.
  expect(t.replicator.status().pendingBytes).toBeLessThan(100_000);
  expect(t.clock.monotonic() - outage).toBeGreaterThanOrEqual(HOUR);
  t.store.script = () => undefined;
  await t.flush();
  expect(t.types()).toEqual(["unreachable", "recovered"]);
  const told = t.log.lines.filter(({ level }) => level === "error");
  expect(told).toHaveLength(1);
  expect(await storedTree(t.memory)).toEqual(describeTree(t.volume, SKIP));
}, 60_000);

test("refused credentials are an event at once", async () => {
  await using t = bench({ script: faultAt({ phase: "before" }, { fail: "denied" }, 2) });
  await t.start();
  await t.flush();
  expect(t.types()).toEqual(["denied", "recovered"]);
});

test("after the clock jumped the volume is scanned and the store is looked at first", async () => {
  await using t = bench();
  await t.start();
  await t.flush();
  const lists = (): number => t.store.steps.filter(({ operation }) => operation === "list").length;
  const before = lists();
  t.write("workspace/unnoticed.md", "no watcher told of this");
  t.clock.jump(30_000);
  await t.reach(() => t.index.get("workspace/unnoticed.md") !== undefined);
  expect(lists()).toBeGreaterThan(before);
});

test("an index that cannot be written halts the backup until it can", async () => {
  await using t = bench();
  await t.start();
  await t.flush();
  const record = t.index.record.bind(t.index);
  t.index.record = () => {
    throw new Error("the disk is full");
  };
  t.write("workspace/a.md", "a2");
  t.dirty.hint("workspace/a.md");
  await t.reach(() => t.replicator.status().state === "halted");
  expect(t.replicator.status().reason?.message).toBe("the disk is full");
  t.index.record = record;
  await t.flush();
  expect(t.types()).toEqual(["halted", "resumed"]);
  expect(await storedTree(t.memory)).toEqual(describeTree(t.volume, SKIP));
});

test("on a full volume the room kept for it is used before the backup halts", async () => {
  let room = 1;
  await using t = bench({ makeRoom: () => room-- > 0 });
  await t.start();
  await t.flush();
  const record = t.index.record.bind(t.index);
  t.index.record = (...args) => {
    if (room > 0) throw Object.assign(new Error("the disk is full"), { code: "SQLITE_FULL" });
    record(...args);
  };
  t.write("workspace/a.md", "a2");
  await t.flush();
  expect(room).toBe(0);
  expect(t.types()).toEqual([]);
  expect(await storedTree(t.memory)).toEqual(describeTree(t.volume, SKIP));
});

test("stopping commits what is left", async () => {
  await using t = bench();
  await t.start();
  t.write("workspace/last.md", "last words");
  await drive(t.clock, t.replicator.stop(never));
  expect(await storedTree(t.memory)).toEqual(describeTree(t.volume, SKIP));
  await drive(t.clock, t.replicator.stop(never));
});

test("stopping without a store ends when its time is over, and says what is left", async () => {
  await using t = bench({
    script: (step) => (step.phase === "before" ? { hang: true } : undefined),
  });
  await t.start();
  const limit = new AbortController();
  const stopped = t.replicator.stop(limit.signal);
  t.clock.after(20_000, () => limit.abort(new Error("no time left")));
  await drive(t.clock, stopped);
  expect(t.log.lines.some(({ message }) => message === "Cannot make the last commit")).toBe(true);
  expect(t.commits()).toBe(0);
});

test("stopping is not kept from its last commit by a request that hangs", async () => {
  let hangs = false;
  await using t = bench({
    script: ({ operation, key, phase }) => {
      if (!hangs || operation !== "put" || phase !== "before" || !key.startsWith("commits/"))
        return undefined;
      hangs = false;
      return { hang: true };
    },
  });
  await t.start();
  await t.flush();
  hangs = true;
  t.write("workspace/last.md", "last words");
  t.dirty.hint("workspace/last.md");
  await t.reach(() => !hangs);
  const limit = new AbortController();
  t.clock.after(20_000, () => limit.abort(new Error("no time left")));
  await drive(t.clock, t.replicator.stop(limit.signal));
  expect(await storedTree(t.memory)).toEqual(describeTree(t.volume, SKIP));
});

test("stopping does not sleep through the end of an outage", async () => {
  let away = false;
  await using t = bench({
    script: ({ phase }) => (away && phase === "before" ? { fail: "unavailable" } : undefined),
    random: () => 0.99,
  });
  await t.start();
  await t.flush();
  away = true;
  t.write("workspace/last.md", "last words");
  t.dirty.hint("workspace/last.md");
  // By then it asks once in half a minute.
  const later = t.clock.monotonic() + 10 * 60_000;
  await t.reach(() => t.clock.monotonic() > later, 5_000);
  away = false;
  const limit = new AbortController();
  t.clock.after(5_000, () => limit.abort(new Error("no time left")));
  await drive(t.clock, t.replicator.stop(limit.signal));
  expect(await storedTree(t.memory)).toEqual(describeTree(t.volume, SKIP));
});

test("a file that cannot be read is shown and holds up nothing", async () => {
  await using t = bench();
  writeFileSync(Buffer.concat([Buffer.from(`${t.volume}/workspace/`), Buffer.from([0xff])]), "x");
  await t.start();
  await t.flush();
  expect(t.replicator.status()).toMatchObject({
    skippedCount: 1,
    skipped: [{ reason: "bad_name" }],
  });
  expect(t.index.get("workspace/a.md")).toBeDefined();
});

test("a sync sends a file again that changed while it was sent, and is over when that is durable", async () => {
  let sent = 0;
  const path = "workspace/large.bin";
  const script: FaultScript = ({ operation, phase, key }) => {
    if (operation !== "put" || phase !== "before" || !key.startsWith("blobs/")) return undefined;
    sent += 1;
    if (sent === 1) t.write(path, "y".repeat(300_000));
    return undefined;
  };
  await using t = bench({ script, files: { [path]: "x".repeat(300_000) } });
  await t.start();
  await t.flush();
  expect(sent).toBe(2);
  expect(await storedTree(t.memory)).toEqual(describeTree(t.volume, SKIP));
});

/** Reads like the machine, but for a database that is busy as long as it is told. */
function busy(path: string, isBusy: () => boolean) {
  const message = `Cannot copy the database "${path}": it is written all the time`;
  return (read: (path: string) => Promise<Reading>) =>
    async (wanted: string): Promise<Reading> =>
      wanted === path && isBusy()
        ? { kind: "skipped", path, reason: "busy_database", message }
        : read(wanted);
}

test("a sync waits for a database that is busy for a moment", async () => {
  let reads = 0;
  const files = { "a.db": "a database", "workspace/b": "b" };
  await using t = bench({ files, wrapRead: busy("a.db", () => (reads += 1) <= 5) });
  await t.start();
  await t.flush();
  expect(reads).toBe(6);
  expect(t.index.get("a.db")).toBeDefined();
});

test("a sync says which database could not be read, and what else there is is durable", async () => {
  let isBusy = true;
  const files = { "a.db": "a database", "workspace/b": "b" };
  await using t = bench({ files, wrapRead: busy("a.db", () => isBusy) });
  await t.start();
  const message =
    'Cannot sync the volume: Cannot copy the database "a.db": it is written all the time';
  await expect(t.flush()).rejects.toThrow(message);
  expect(t.index.get("workspace/b")).toBeDefined();
  expect(t.index.get("a.db")).toBeUndefined();
  const inTime = t.replicator.flush(AbortSignal.timeout(200));
  await expect(inTime).rejects.toThrow('in time: Cannot copy the database "a.db"');
  isBusy = false;
  await t.flush();
  expect(t.index.get("a.db")).toBeDefined();
});

test("with real time and a store in a folder the same happens", async () => {
  using dir = tempDir();
  const volume = join(dir.path, "data");
  mkdirSync(join(volume, "workspace"), { recursive: true });
  for (let n = 0; n < 300; n += 1) writeFileSync(join(volume, "workspace", `${n}`), `${n}`);
  const store = new DirectoryStore(join(dir.path, "store"));
  using one = replica({ store, clock: systemClock, volume });
  await one.replicator.start(never);
  await one.replicator.flush(never);
  expect(await storedTree(store)).toEqual(describeTree(volume, SKIP));
  writeFileSync(join(volume, "workspace/7"), "seven");
  one.dirty.hint("workspace/7");
  const position = one.index.head()?.position ?? 0;
  await until(
    () => (one.index.head()?.position ?? 0) > position,
    "the change is committed",
    60_000,
  );
  await one.replicator.stop(never);
  expect(await storedTree(store)).toEqual(describeTree(volume, SKIP));
  expect(existsSync(join(volume, ".last-sync"))).toBe(true);
}, 90_000);
