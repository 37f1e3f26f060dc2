import { expect, test } from "bun:test";

import { encodeCommit } from "../../../src/backup/format/codec.ts";
import { FORMAT, keys, type Commit, type FileEntry } from "../../../src/backup/format/format.ts";
import { Contents } from "../../../src/backup/history/contents.ts";
import { nextTurn, systemClock } from "../../../src/platform/clock.ts";
import type { GetOptions } from "../../../src/store/store.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { sha256 } from "../../support/readings.ts";

/** Takes its time, and knows how many were asked for at once. */
class SlowStore extends MemoryStore {
  readonly asked: string[] = [];
  most = 0;
  #going = 0;

  override async get(key: string, options?: GetOptions): Promise<Uint8Array> {
    this.asked.push(key);
    this.#going += 1;
    this.most = Math.max(this.most, this.#going);
    for (let n = 0; n < 20; n += 1) await nextTurn();
    this.#going -= 1;
    return super.get(key, options);
  }
}

/** A file with a slice in each of so many commits; the one at `missing` is not there. */
async function fileInPieces(store: SlowStore, count: number, missing = 0): Promise<FileEntry> {
  const header = { format: FORMAT, user: "u", machine: "m", changed: 0, deletedCount: 0, bytes: 0 };
  const slices: string[] = [];
  for (let position = 1; position <= count; position += 1) {
    const slice = `slice ${position} `;
    slices.push(slice);
    if (position === missing) continue;
    const commit: Commit = {
      ...header,
      position,
      id: `commit-${position}`,
      time: position,
      entries: [],
      deleted: [],
    };
    const members = new Map([["delta/log", Buffer.from(`before ${slice}`)]]);
    await store.put(keys.commit(position), await encodeCommit(commit, members));
  }
  const content = slices.join("");
  return {
    type: "file",
    path: "log",
    mode: 0o644,
    mtimeNs: "1",
    size: content.length,
    sha256: sha256(content),
    extents: slices.map(({ length }, n) => ({
      commit: n + 1,
      member: "delta/log",
      offset: "before ".length,
      length,
    })),
  };
}

test("the slices of a file are fetched some ahead, each commit once, and come in order", async () => {
  const store = new SlowStore(systemClock);
  const entry = await fileInPieces(store, 40);
  const pieces = await Array.fromAsync(new Contents(store).read(entry));
  expect(sha256(Buffer.concat(pieces))).toBe(entry.sha256);
  expect(store.asked.toSorted()).toEqual(entry.extents.map((_, n) => keys.commit(n + 1)));
  expect(store.most).toBeGreaterThan(2);
  expect(store.most).toBeLessThanOrEqual(8);
});

test("a slice that is gone is told where it is needed, and nothing is left unhandled", async () => {
  const store = new SlowStore(systemClock);
  const entry = await fileInPieces(store, 8, 4);
  const read: Uint8Array[] = [];
  const work = (async () => {
    for await (const piece of new Contents(store).read(entry)) read.push(piece);
  })();
  await expect(work).rejects.toMatchObject({ kind: "missing" });
  expect(read).toHaveLength(3);
});
