import { expect, test } from "bun:test";
import { join } from "node:path";

import { Committer } from "../../../src/backup/commit/committer.ts";
import { foldTree, readHead } from "../../../src/backup/history/history.ts";
import { Index } from "../../../src/backup/index.ts";
import { Patience } from "../../../src/backup/patience.ts";
import type { Reading } from "../../../src/backup/read/reading.ts";
import { seeded } from "../../support/churn.ts";
import { drive } from "../../support/drive.ts";
import { FaultyStore, type Fault, type FaultScript } from "../../support/faulty-store.ts";
import { ManualClock } from "../../support/manual-clock.ts";
import { MemoryStore } from "../../support/memory-store.ts";
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
