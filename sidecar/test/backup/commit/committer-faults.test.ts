import { expect, test } from "bun:test";
import {
  appendFileSync,
  closeSync,
  copyFileSync,
  openSync,
  readFileSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";

import { Committer } from "../../../src/backup/commit/committer.ts";
import { Contents } from "../../../src/backup/history/contents.ts";
import { foldTree, readHead } from "../../../src/backup/history/history.ts";
import { Index } from "../../../src/backup/index.ts";
import { createIgnore } from "../../../src/backup/notice/ignore.ts";
import { Patience } from "../../../src/backup/patience.ts";
import { ReadContext } from "../../../src/backup/read/read-context.ts";
import { readPath } from "../../../src/backup/read/reader.ts";
import type { Reading } from "../../../src/backup/read/reading.ts";
import { Root } from "../../../src/volume/root.ts";
import { seeded } from "../../support/churn.ts";
import { drive } from "../../support/drive.ts";
import { FaultyStore, type Fault, type FaultScript } from "../../support/faulty-store.ts";
import { ManualClock } from "../../support/manual-clock.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { pseudoRandom } from "../../support/odd-tree.ts";
import { changedFile, gone, sha256 } from "../../support/readings.ts";
import { tempDir } from "../../support/temp-dir.ts";

/** Every second step or so goes wrong, in every way a store has. */
function trouble(random: () => number): FaultScript {
  const faults: readonly (Fault | undefined)[] = [
    { fail: "unavailable" },
    { fail: "throttled" },
    { hang: true },
    { delayMs: 2_000 },
    ...Array.from({ length: 6 }, () => undefined),
  ];
  return () => faults[Math.floor(random() * faults.length)];
}

test.each([1, 2, 3, 4])(
  "with a store full of trouble and a process that dies, the history is the model's (seed %i)",
  async (seed) => {
    using dir = tempDir();
    const random = seeded(seed);
    const clock = new ManualClock();
    const memory = new MemoryStore(clock);
    const store = new FaultyStore(memory, trouble(random), clock);
    using index = new Index(join(dir.path, "index.sqlite"));
    const patience = new Patience({ clock, random });
    class Killed extends Error {}
    const make = (): Committer =>
      new Committer({
        store,
        index,
        clock,
        patience,
        user: "user-1",
        machine: "machine-1",
        fence: "on",
        at: () => {
          if (random() < 0.1) throw new Killed();
        },
      });
    let committer = make();
    const model = new Map<string, string>();
    for (let round = 0; round < 30; round += 1) {
      const dirty = new Set<string>();
      for (let change = 0; change < 4; change += 1) {
        const path = `f${Math.floor(random() * 10)}`;
        dirty.add(path);
        if (random() < 0.3) model.delete(path);
        else model.set(path, `${round}`.repeat(random() < 0.2 ? 40_000 : 3));
      }
      // What a batch says is what is there when it is read: tried until it is durable, as the replicator does.
      for (let done = false; !done;) {
        const batch = [...dirty].map((path): Reading => {
          const content = model.get(path);
          return content === undefined ? gone(path) : changedFile(path, content);
        });
        const limit = new AbortController();
        const cancel = clock.after(random() < 0.2 ? 3_000 : 3_600_000, () => limit.abort());
        try {
          const work = committer.commit(batch, { signal: limit.signal });
          const result = await drive(clock, work, { stepMs: 2_000, limitMs: 7_200_000 });
          expect(["committed", "nothing"]).toContain(result.kind);
          done = true;
        } catch (error) {
          if (!(error instanceof Killed) && !limit.signal.aborted) throw error;
          // Dead, or out of time; whoever comes next knows no more than the index.
          committer = make();
        } finally {
          cancel();
        }
      }
    }
    const tree = await foldTree(memory);
    const stored = [...(tree?.entries.values() ?? [])].map((entry) => [
      entry.path,
      entry.type === "file" ? entry.sha256 : "",
    ]);
    expect(Object.fromEntries(stored)).toEqual(
      Object.fromEntries([...model].map(([path, content]) => [path, sha256(content)])),
    );
    expect(await readHead(memory)).toBe(index.head()?.position ?? -1);
    expect(tree?.head.id).toBe(index.head()?.id ?? "");
  },
  120_000,
);

test.each([1, 2])(
  "with a store full of trouble and a process that dies, deltas make up what was on the disk (seed %i)",
  async (seed) => {
    using dir = tempDir();
    const random = seeded(seed);
    const upTo = (count: number): number => Math.floor(random() * count);
    const clock = new ManualClock(Date.now());
    const memory = new MemoryStore(clock);
    const store = new FaultyStore(memory, trouble(random), clock);
    using root = new Root(dir.path);
    using index = new Index(join(dir.path, "index.sqlite"));
    using context = new ReadContext({ root, index, ignore: createIgnore(), clock });
    const patience = new Patience({ clock, random });
    class Killed extends Error {}
    const at = (): void => {
      if (random() < 0.1) throw new Killed();
    };
    const who = { user: "user-1", machine: "machine-1", fence: "on" } as const;
    const make = (): Committer => new Committer({ store, index, clock, patience, ...who, at });
    let committer = make();
    const names = ["a", "b", "c"];
    const file = (name: string): string => join(dir.path, name);
    for (const name of names) writeFileSync(file(name), pseudoRandom(800_000, name.charCodeAt(0)));
    let deltas = 0;
    for (let round = 0; round < 40; round += 1) {
      const name = names[upTo(3)] ?? "a";
      const change = upTo(10);
      if (change < 4) appendFileSync(file(name), pseudoRandom(1 + upTo(5_000), round));
      else if (change < 6) appendFileSync(file(name), pseudoRandom(600_000, round));
      else if (change < 8) {
        const fd = openSync(file(name), "r+");
        writeSync(fd, `round ${round}`, upTo(700_000));
        closeSync(fd);
      } else if (change < 9) copyFileSync(file("a"), file(name === "a" ? "b" : name));
      else truncateSync(file(name), 500_000 + upTo(300_000));
      for (let isDone = false; !isDone;) {
        context.startBatch();
        const batch: Reading[] = [];
        for (const path of names) batch.push(await readPath(path, context));
        deltas += batch.filter(
          (one) => one.kind === "changed" && one.content?.kind === "delta",
        ).length;
        try {
          const work = committer.commit(batch, { signal: new AbortController().signal });
          const result = await drive(clock, work, { stepMs: 2_000, limitMs: 7_200_000 });
          if (result.kind !== "committed" && result.kind !== "nothing")
            throw new Error(result.kind);
          isDone = result.left.length === 0;
        } catch (error) {
          if (!(error instanceof Killed)) throw error;
          committer = make();
        }
      }
    }
    expect(deltas).toBeGreaterThan(20);
    const tree = await foldTree(memory);
    const contents = new Contents(memory);
    for (const path of names) {
      const entry = tree?.entries.get(path);
      if (entry?.type !== "file") throw new Error(`no ${path}`);
      const content = Buffer.concat(await Array.fromAsync(contents.read(entry)));
      expect(content.equals(readFileSync(file(path)))).toBe(true);
      expect(entry.sha256).toBe(sha256(content));
      expect(index.get(path)?.entry).toEqual(entry);
    }
  },
  120_000,
);
