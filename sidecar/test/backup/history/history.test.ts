import { expect, setDefaultTimeout, test } from "bun:test";

import { keys, type Entry } from "../../../src/backup/format/format.ts";
import {
  HistoryError,
  foldTree,
  newestCheckpoint,
  readCommit,
  readHead,
} from "../../../src/backup/history/history.ts";
import { olderVersions } from "../../../src/backup/restore/salvage.ts";
import { FaultyStore, flipBit } from "../../support/faulty-store.ts";
import { HistoryWriter } from "../../support/history.ts";
import { MemoryStore } from "../../support/memory-store.ts";

// The machine may be busy.
setDefaultTimeout(60_000);

function link(path: string, target: string): Entry {
  return { type: "symlink", path, target, mtimeNs: "0" };
}

/** A history of `count` commits, each of which sets one path, with checkpoints at the positions given. */
async function history(count: number, checkpoints: readonly number[] = []) {
  const store = new MemoryStore();
  const writer = new HistoryWriter(store);
  for (let position = 1; position <= count; position += 1) {
    await writer.commit({ entries: [link(`p${position % 7}`, String(position))] });
    if (checkpoints.includes(position)) await writer.checkpoint();
  }
  return { store, writer };
}

function asRecord(tree: { readonly entries: ReadonlyMap<string, Entry> } | undefined) {
  return Object.fromEntries(tree?.entries ?? []);
}

async function kindOf(reading: Promise<unknown>): Promise<string> {
  const error = await reading.then(
    () => undefined,
    (error: unknown) => error,
  );
  return error instanceof HistoryError ? error.kind : String(error);
}

test("the newest position is found by list, from a known one or from nothing", async () => {
  const { store } = await history(5);
  expect(await readHead(new MemoryStore())).toBe(0);
  expect(await readHead(store)).toBe(5);
  for (const known of [1, 4, 5]) expect(await readHead(store, { known })).toBe(5);
  await store.put("commits/notes.txt", new Uint8Array());
  expect(await readHead(store)).toBe(5);
});

test("a position that is not there any more is not taken for the newest", async () => {
  const { store } = await history(5);
  expect(await readHead(store, { known: 9 })).toBe(5);
  await store.delete(store.keys);
  expect(await readHead(store, { known: 5 })).toBe(0);
});

test("more than a page of commits is listed to its end", async () => {
  const store = new MemoryStore();
  for (let position = 1; position <= 2_345; position += 1) {
    await store.put(keys.commit(position), new Uint8Array(1));
  }
  expect(await readHead(store)).toBe(2_345);
  expect(await readHead(store, { known: 17 })).toBe(2_345);
});

test("the newest checkpoint is the last one with a manifest, at or before a position", async () => {
  const { store } = await history(9, [3, 6]);
  await store.put("checkpoints/0000000008/part-1.tar.zst", new Uint8Array());
  expect(await newestCheckpoint(store)).toBe(6);
  expect(await newestCheckpoint(store, { atOrBefore: 5 })).toBe(3);
  expect(await newestCheckpoint(store, { atOrBefore: 2 })).toBeUndefined();
});

test("a commit is read and must say that it is the one asked for", async () => {
  const { store } = await history(3);
  expect((await readCommit(store, 2)).commit.position).toBe(2);
  expect(await kindOf(readCommit(store, 4))).toBe("incomplete");
  await store.put(keys.commit(4), await store.get(keys.commit(3)));
  expect(await kindOf(readCommit(store, 4))).toBe("broken");
  store.tamper(keys.commit(2), flipBit);
  expect(await kindOf(readCommit(store, 2))).toBe("broken");
});

test("a tree at any position is the same from any checkpoint or from the start", async () => {
  const { store, writer } = await history(60, [20, 40]);
  const newest = await foldTree(store);
  expect(newest?.entries).toEqual(writer.entries);
  expect(newest?.head).toMatchObject({ position: 60, id: writer.head?.id ?? "" });
  expect(newest?.checkpoint?.position).toBe(40);
  expect(newest?.headers.length).toBe(20);
  const at33 = await foldTree(store, { at: 33 });
  await store.delete([keys.manifest(20), keys.manifest(40)]);
  const again = await foldTree(store, { at: 33 });
  expect(again?.checkpoint).toBeUndefined();
  expect(asRecord(at33)).toEqual(asRecord(again));
  expect(at33?.entries.get("p5")).toEqual(link("p5", "33"));
  expect(await foldTree(new MemoryStore())).toBeUndefined();
  expect(await kindOf(foldTree(store, { at: 61 }))).toBe("unknown_position");
});

test("a damaged checkpoint is passed over for an older one", async () => {
  const { store, writer } = await history(30, [10, 20]);
  store.tamper(keys.manifest(20), (bytes) => bytes.subarray(0, bytes.length - 9));
  const tree = await foldTree(store);
  expect(tree?.checkpoint?.position).toBe(10);
  expect(asRecord(tree)).toEqual(asRecord(writer));
});

test("a hole, a stranger and damage among the commits are said, never skipped", async () => {
  const holed = await history(9);
  await holed.store.delete([keys.commit(4)]);
  await expect(foldTree(holed.store)).rejects.toThrow('"commits/0000000004.tar.zst" is missing');
  const broken = await history(9);
  broken.store.tamper(keys.commit(4), flipBit);
  expect(await kindOf(foldTree(broken.store))).toBe("broken");
  const forked = await history(3);
  await forked.writer.commit({ header: { parent: "somebody-else" } });
  await expect(foldTree(forked.store)).rejects.toThrow("does not follow the commit before it");
  const beheaded = await history(9);
  await beheaded.store.delete([keys.commit(1), keys.commit(2)]);
  expect(await kindOf(foldTree(beheaded.store))).toBe("unknown_position");
});

test("commits that retention removes while they are read are planned around once", async () => {
  const { store, writer } = await history(20);
  let raced = false;
  const faulty = new FaultyStore(store, async ({ key, phase }) => {
    if (raced || phase !== "before" || key !== keys.commit(3)) return;
    raced = true;
    await writer.checkpoint();
    await store.delete(Array.from({ length: 19 }, (_, n) => keys.commit(n + 1)));
  });
  const tree = await foldTree(faulty);
  expect(tree?.checkpoint?.position).toBe(20);
  expect(tree?.entries.size).toBe(7);
  expect(raced).toBe(true);
});

test("older versions of a file come newest first, past what cannot be read", async () => {
  const store = new MemoryStore();
  const writer = new HistoryWriter(store);
  for (const content of ["one", "two", "three", "four"]) {
    const bytes = Buffer.from(content);
    const position = (writer.head?.position ?? 0) + 1;
    await writer.commit({
      members: new Map([["data/f", bytes]]),
      entries: [
        {
          type: "file",
          path: "f",
          mode: 0o644,
          mtimeNs: "0",
          size: bytes.length,
          sha256: new Bun.CryptoHasher("sha256").update(bytes).digest("hex"),
          extents: [{ commit: position, member: "data/f", offset: 0, length: bytes.length }],
        },
      ],
    });
    if (position === 1) await writer.checkpoint();
  }
  store.tamper(keys.commit(3), flipBit);
  await store.delete([keys.commit(1)]);
  const newest = writer.entries.get("f");
  const files = newest?.type === "file" ? [newest] : [];
  const found = await Array.fromAsync(olderVersions(store, files, { position: 4 }));
  expect(found.map(({ position }) => position)).toEqual([2, 1]);
});
