import { expect, test } from "bun:test";

import { keys, type Extent } from "../../../src/backup/format/format.ts";
import { foldTree } from "../../../src/backup/history/history.ts";
import { writeCheckpoint } from "../../../src/backup/keep/checkpoint.ts";
import { drive } from "../../support/drive.ts";
import { flipBit } from "../../support/faulty-store.ts";
import { DAY, keptHistory } from "../../support/kept-history.ts";

const BIG = "big ".repeat(20_000);
const FILES = 70;
const never = new AbortController().signal;

/** A history in which each file stands in a commit of its own, beside one that is gone. */
async function scattered(options: Parameters<typeof keptHistory>[0] = {}) {
  const t = keptHistory(options);
  await t.start();
  t.write("workspace/big.bin", BIG);
  await t.day();
  for (let n = 0; n < FILES; n += 1) {
    t.write(`workspace/${n}.md`, `content of ${n}`);
    t.write("workspace/note", `note ${n}`);
    if (n % 10 === 0) t.write(`workspace/copy-${n}.md`, `content of ${n}`);
    await t.commit();
  }
  const { store, index, snapshot, clock, log } = t;
  const checkpoint = { store, index, snapshot, clock, log, user: "user-1", machine: "machine-1" };
  return { ...t, checkpoint: () => drive(clock, writeCheckpoint(checkpoint, never)) };
}

const partsOf = (names: readonly string[]): string[] =>
  names.filter((key) => key.includes("/part-"));

async function extentsAt(t: Awaited<ReturnType<typeof scattered>>): Promise<Extent[]> {
  const tree = await foldTree(t.memory);
  return [...(tree?.entries.values() ?? [])].flatMap((entry) =>
    entry.type === "file" ? entry.extents : [],
  );
}

test("a checkpoint puts contents of many commits together, and the tree stays the same", async () => {
  await using t = await scattered();
  await t.checkpoint();
  const position = t.index.head()?.position ?? 0;
  expect(t.index.checkpoint()?.position).toBe(position);
  expect(partsOf(t.memory.keys)).toHaveLength(1);
  expect(await t.contentOf(position)).toEqual(new Map(t.files));
  const extents = await extentsAt(t);
  expect(extents.filter(({ commit }) => commit !== undefined)).toEqual([]);
  // The blob stays where it is.
  expect(extents.filter(({ blob }) => blob !== undefined)).toHaveLength(1);
  // From now on the index points there too, so that new commits do.
  t.write("workspace/again.md", "content of 3");
  await t.commit();
  expect((await extentsAt(t)).filter(({ commit }) => commit !== undefined)).toEqual([]);
  expect(await t.contentOf(position + 1)).toEqual(new Map(t.files));
});

test("commits that were put together go once nothing older is kept", async () => {
  await using t = await scattered();
  await t.day();
  for (let n = 0; n < 9; n += 1) {
    t.write("workspace/note", `later ${n}`);
    await t.day();
  }
  const before = t.commits().length;
  expect((await t.night()).missing.count).toBe(0);
  expect(before - t.commits().length).toBeGreaterThan(FILES - 5);
  const position = t.index.head()?.position ?? 0;
  expect(await t.contentOf(position)).toEqual(new Map(t.files));
});

test("few scattered commits are left alone", async () => {
  await using t = keptHistory();
  await t.start();
  for (let n = 0; n < 20; n += 1) {
    t.write(`workspace/${n}.md`, `content of ${n}`);
    await t.commit();
  }
  t.clock.jump(DAY);
  t.write("workspace/a", "a");
  await t.day();
  expect(t.index.checkpoint()?.position).toBe(t.index.head()?.position);
  expect(partsOf(t.memory.keys)).toEqual([]);
});

test("a checkpoint that is cut off after its manifest is taken over as it is", async () => {
  await using t = await scattered();
  t.store.script = ({ operation, key, phase }) =>
    operation === "get" && phase === "before" && key.endsWith("manifest.json.zst")
      ? { fail: "unavailable" }
      : undefined;
  await expect(t.checkpoint()).rejects.toThrow("unavailable");
  t.store.script = () => undefined;
  const position = t.index.head()?.position ?? 0;
  expect(t.memory.keys).toContain(keys.manifest(position));
  const parts = partsOf(t.memory.keys);
  await t.checkpoint();
  expect(partsOf(t.memory.keys)).toEqual(parts);
  expect(t.index.checkpoint()?.position).toBe(position);
  t.write("workspace/note", "goes on");
  await t.commit();
  expect(await t.contentOf(position + 1)).toEqual(new Map(t.files));
});

test("parts that an attempt left behind are never written over", async () => {
  await using t = await scattered();
  t.store.script = ({ operation, key, phase }) =>
    operation === "put" && phase === "before" && key.endsWith("manifest.json.zst")
      ? { fail: "unavailable" }
      : undefined;
  await expect(t.checkpoint()).rejects.toThrow("unavailable");
  t.store.script = () => undefined;
  const [first = ""] = partsOf(t.memory.keys);
  const before = await t.memory.get(first);
  await t.checkpoint();
  expect(partsOf(t.memory.keys)).toHaveLength(2);
  expect(await t.memory.get(first)).toEqual(before);
  expect(await t.contentOf(t.index.head()?.position ?? 0)).toEqual(new Map(t.files));
});

test.each([
  ["a part that comes back damaged", "/part-"],
  ["a part that cannot be put", "/part-"],
])("%s leaves the tree where it was, and the checkpoint is written", async (name, key) => {
  await using t = await scattered();
  t.store.script = (step) => {
    if (!step.key.includes(key)) return undefined;
    if (name.includes("damaged"))
      return step.operation === "get" && step.phase === "after" ? { corrupt: flipBit } : undefined;
    return step.operation === "put" && step.phase === "before" ? { fail: "denied" } : undefined;
  };
  await t.checkpoint();
  t.store.script = () => undefined;
  const position = t.index.head()?.position ?? 0;
  expect(t.index.checkpoint()?.position).toBe(position);
  expect((await extentsAt(t)).filter(({ part }) => part !== undefined)).toEqual([]);
  expect(await t.contentOf(position)).toEqual(new Map(t.files));
});

test("content that the store no longer has stays where it is said to be", async () => {
  await using t = await scattered();
  const tree = await foldTree(t.memory);
  const entry = tree?.entries.get("workspace/5.md");
  if (entry?.type !== "file") throw new Error("there is no such file");
  const [extent] = entry.extents;
  await t.memory.delete([keys.commit(Number(extent?.["commit"]))]);
  await t.checkpoint();
  const after = t.index.get("workspace/5.md")?.entry;
  expect(after).toMatchObject({ extents: entry.extents });
  expect(t.index.get("workspace/6.md")?.entry).toMatchObject({
    extents: [{ member: "data/workspace/6.md" }],
  });
  expect(t.index.get("workspace/6.md")?.entry).not.toMatchObject({
    extents: [{ commit: expect.anything() }],
  });
});

test("files that grew bit by bit are put together and stay what they are", async () => {
  await using t = keptHistory();
  await t.start();
  const logs = [0, 1, 2, 3].map((n) => ({
    path: `workspace/${n}.jsonl`,
    text: `${n} ${BIG}${BIG}${BIG}${BIG}`,
  }));
  for (const { path, text } of logs) t.write(path, text);
  await t.day();
  for (let round = 0; round < 25; round += 1) {
    for (const log of logs) {
      log.text += `line ${round} ${"x".repeat(500)}\n`;
      t.write(log.path, log.text);
      await t.commit();
    }
  }
  const pieces = (path: string): number => {
    const entry = t.index.get(path)?.entry;
    return entry?.type === "file" ? entry.extents.length : 0;
  };
  const before = logs.map(({ path }) => pieces(path));
  expect(Math.min(...before)).toBeGreaterThan(16);
  const position = await t.day();
  expect(partsOf(t.memory.keys)).toHaveLength(0);
  t.write("workspace/note", "so that there is something to commit");
  expect(await t.day()).toBeGreaterThan(position);
  expect(partsOf(t.memory.keys)).toHaveLength(1);
  expect(Math.max(...logs.map(({ path }) => pieces(path)))).toBeLessThan(5);
  const [log] = logs;
  if (!log) throw new Error("there is no log");
  log.text += "one more line\n";
  t.write(log.path, log.text);
  const last = await t.commit();
  expect(await t.contentOf(last)).toEqual(new Map(t.files));
});
