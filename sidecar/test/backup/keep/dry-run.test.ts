import { expect, test } from "bun:test";

import { keys, type Entry } from "../../../src/backup/format/format.ts";
import { foldTree } from "../../../src/backup/history/history.ts";
import { dryRun } from "../../../src/backup/keep/removal.ts";
import { HistoryWriter } from "../../support/history.ts";
import { ManualClock } from "../../support/manual-clock.ts";
import { MemoryStore } from "../../support/memory-store.ts";

const DAY = 86_400_000;

/** A store with a history of small files, and fake time. */
function bench() {
  const clock = new ManualClock();
  const store = new MemoryStore(clock);
  const writer = new HistoryWriter(store);
  return {
    clock,
    store,
    writer,
    /** Commits one file whose content stands in this commit. */
    async write(path: string, content: string): Promise<void> {
      const bytes = Buffer.from(content);
      const position = (writer.head?.position ?? 0) + 1;
      const member = `data/${path}`;
      const entry: Entry = {
        type: "file",
        path,
        mode: 0o644,
        mtimeNs: "1",
        size: bytes.length,
        sha256: new Bun.CryptoHasher("sha256").update(bytes).digest("hex"),
        extents: [{ commit: position, member, offset: 0, length: bytes.length }],
      };
      await writer.commit({ entries: [entry], members: new Map([[member, bytes]]) });
      await clock.advance(1_000);
    },
    async blob(path: string, content: string): Promise<string> {
      const bytes = Buffer.from(content);
      const sha256 = new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
      await store.put(keys.blob(sha256), bytes);
      const extents = [{ blob: sha256, offset: 0, length: bytes.length }];
      const size = bytes.length;
      const file = { type: "file", path, mode: 0o644, mtimeNs: "1", size, sha256 } as const;
      await writer.commit({ entries: [{ ...file, extents }] });
      await clock.advance(1_000);
      return keys.blob(sha256);
    },
  };
}

test("a dry run of a store without a checkpoint a week old finds nothing", async () => {
  const t = bench();
  await t.write("a", "1");
  await t.write("a", "2");
  await t.writer.checkpoint();
  await t.clock.advance(6 * DAY);
  expect(await dryRun(t.store)).toMatchObject({ objects: 0, keptFrom: undefined, head: 2 });
});

test("a dry run says what would go, how much, and changes nothing", async () => {
  const t = bench();
  const old = await t.blob("big", "old ".repeat(1_000));
  await t.write("a", "1");
  await t.write("b", "stays");
  const kept = await t.blob("big", "new ".repeat(1_000));
  await t.write("a", "2");
  await t.writer.checkpoint();
  await t.clock.advance(8 * DAY);
  await t.write("a", "3");
  const before = t.store.keys;
  const report = await dryRun(t.store);
  expect(report).toMatchObject({
    objects: 4,
    keptFrom: 5,
    head: 6,
    // Commits 3 and 5 hold what the checkpoint needs.
    kinds: {
      manifests: { objects: 0 },
      commits: { objects: 3 },
      blobs: { objects: 1, bytes: 4_000 },
    },
    missing: { count: 0 },
    unreadable: [],
  });
  expect(report.examples).toEqual([keys.commit(1), keys.commit(2), keys.commit(4), old]);
  expect(t.store.keys).toEqual(before);
  expect(before).toContain(kept);
});

test("a dry run names what is needed and not there", async () => {
  const t = bench();
  const blob = await t.blob("big", "gone");
  await t.write("a", "1");
  await t.writer.checkpoint();
  await t.clock.advance(8 * DAY);
  await t.write("a", "2");
  await t.write("a", "3");
  await t.store.delete([blob, keys.commit(2)]);
  const { missing } = await dryRun(t.store);
  expect(missing).toEqual({ count: 2, examples: [keys.commit(2), blob] });
});

test("a checkpoint that is damaged is no ground to remove anything before it", async () => {
  const t = bench();
  await t.write("a", "1");
  await t.writer.checkpoint();
  await t.write("a", "2");
  await t.write("a", "3");
  await t.writer.checkpoint();
  await t.clock.advance(8 * DAY);
  await t.write("a", "4");
  expect(await dryRun(t.store)).toMatchObject({ keptFrom: 3, objects: 3 });
  t.store.tamper(keys.manifest(3), (bytes) => bytes.subarray(0, bytes.length >> 1));
  expect(await dryRun(t.store)).toMatchObject({ keptFrom: 1, objects: 0, unreadable: [3] });
  expect((await foldTree(t.store))?.head.position).toBe(4);
});

test("branches keep their base, and what they point into", async () => {
  const t = bench();
  const blob = await t.blob("big", "of the branch");
  await t.write("a", "1");
  await t.write("a", "2");
  await t.write("big", "small now");
  await t.writer.checkpoint();
  const bytes = await t.store.get(keys.commit(1));
  await t.clock.advance(8 * DAY);
  await t.write("a", "3");
  expect((await dryRun(t.store)).examples).toEqual([keys.commit(1), keys.commit(2), blob]);
  // A commit that names the blob, as one after position 2.
  await t.store.put(`branches/m1-1/${keys.commit(3)}`, bytes);
  expect((await dryRun(t.store)).examples).toEqual([]);
  await t.store.delete([`branches/m1-1/${keys.commit(3)}`]);
  await t.store.put("pins/mine", Buffer.from('{"format":1,"position":1}'));
  expect((await dryRun(t.store)).examples).toEqual([keys.commit(2)]);
});

test("pins that are over keep nothing, and nothing is removed where one cannot be read", async () => {
  const t = bench();
  await t.write("a", "1");
  await t.write("a", "2");
  await t.writer.checkpoint();
  await t.clock.advance(8 * DAY);
  const until = (ms: number): Buffer =>
    Buffer.from(JSON.stringify({ format: 1, position: 1, until: ms }));
  await t.store.put("pins/over", until(t.clock.now() - 1));
  await t.store.put("pins/branch-of-nobody", Buffer.from('{"format":1,"position":1}'));
  expect(await dryRun(t.store)).toMatchObject({ objects: 0, expiredPins: ["pins/over"] });
  await t.clock.advance(2 * DAY);
  expect(await dryRun(t.store)).toMatchObject({
    objects: 1,
    expiredPins: ["pins/branch-of-nobody", "pins/over"],
  });
  await t.store.put("pins/z", Buffer.from("no pin"));
  await expect(dryRun(t.store)).rejects.toThrow('Cannot tell what "pins/z" keeps');
});
