import { expect, test } from "bun:test";
import { join } from "node:path";

import type { Failpoint } from "../../../src/backup/commit/committer.ts";
import { readHead } from "../../../src/backup/history/history.ts";
import { DirectoryStore } from "../../../src/store/directory.ts";
import { churn, seeded } from "../../support/churn.ts";
import { storedTree } from "../../support/stored-tree.ts";
import { tempDir } from "../../support/temp-dir.ts";
import { describeTree } from "../../support/tree.ts";

const MAIN = join(import.meta.dir, "../../fixtures/replicator-main.ts");
const SKIP = { skip: [".sidecar", ".last-sync", ".sidecar-tmp-last-sync"] };
const POINTS: readonly Failpoint[] = [
  "blob-put",
  "attempt-saved",
  "commit-put",
  "before-record",
  "recorded",
];

function start(orders: object): Bun.Subprocess<"ignore", "pipe", "inherit"> {
  return Bun.spawn([process.execPath, MAIN, JSON.stringify(orders)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
}

test.each([
  ["at each failpoint in turn", 1, true],
  ["at any moment", 2, false],
])(
  "a replicator that is killed %s, twenty times, loses nothing",
  async (_name, seed, atPoints) => {
    using dir = tempDir();
    const volume = join(dir.path, "data");
    const store = join(dir.path, "store");
    const random = seeded(seed);
    churn(volume, 60, random);
    for (let round = 0; round < 20; round += 1) {
      const point = POINTS[round % POINTS.length];
      const child = start(
        atPoints
          ? { volume, store, killAt: { point, hit: 1 + Math.floor(round / 10) } }
          : { volume, store },
      );
      // A kill at random comes between nothing done yet and a few commits made.
      const deadline = performance.now() + (atPoints ? 20_000 : 250 + random() * 600);
      while (child.exitCode === null && child.signalCode === null && performance.now() < deadline) {
        churn(volume, 5, random);
        await Bun.sleep(20);
      }
      child.kill("SIGKILL");
      await child.exited;
      expect(child.signalCode).toBe("SIGKILL");
    }
    const landed = await readHead(new DirectoryStore(store));
    // Three of the five points come after the put.
    if (atPoints) expect(landed).toBeGreaterThan(8);
    const last = start({ volume, store, finish: true });
    expect(await last.exited).toBe(0);
    expect(await storedTree(new DirectoryStore(store))).toEqual(describeTree(volume, SKIP));
  },
  240_000,
);
