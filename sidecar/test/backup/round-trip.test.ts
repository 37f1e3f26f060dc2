import { Database } from "bun:sqlite";
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";

import { bootVolume } from "../../src/backup/boot/boot.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import type { Store } from "../../src/store/store.ts";
import { Root } from "../../src/volume/root.ts";
import { makeOddTree, pseudoRandom } from "../support/odd-tree.ts";
import { replica } from "../support/replica.ts";
import { tempDir } from "../support/temp-dir.ts";
import { describeTree } from "../support/tree.ts";

// The machine may be busy.
setDefaultTimeout(60_000);

const TREE = { skip: [".sidecar", ".sidecar-copies", ".last-sync", "lost+found"] };

/** Commits all that is on the volume, and says where the history stands then and what was sent for it. */
async function replicate(store: Store, volume: string) {
  using one = replica({ store, clock: systemClock, volume });
  const { signal } = new AbortController();
  await one.replicator.start(signal);
  const { position } = await one.replicator.flush(AbortSignal.timeout(30_000));
  await one.replicator.stop(AbortSignal.timeout(30_000));
  return { position, sentBytes: one.replicator.status().sentBytes };
}

async function restore(store: Store, volume: string) {
  using root = new Root(volume);
  const outcome = await bootVolume(
    {
      root,
      user: "user-1",
      machine: "machine-2",
      store,
      clock: systemClock,
      treeEqualsIndex: async () => false,
    },
    new AbortController().signal,
  );
  if (outcome.state === "ready") outcome.index?.[Symbol.dispose]();
  return outcome;
}

test("what a machine replicated another one restores, and then has nothing to send", async () => {
  using objects = tempDir();
  using first = tempDir();
  using second = tempDir();
  const store = new DirectoryStore(objects.path);
  makeOddTree(first.path);
  mkdirSync(`${first.path}/openclaw/state`);
  using database = new Database(`${first.path}/openclaw/state/main.sqlite`);
  database.run("PRAGMA journal_mode = WAL");
  database.run("CREATE TABLE messages (text TEXT)");
  database.run("INSERT INTO messages VALUES ('only in the log so far')");
  await replicate(store, first.path);
  // A second and a third commit: changed, moved, gone.
  writeFileSync(`${first.path}/home/large.bin`, pseudoRandom(2_500_000, 5));
  rmSync(`${first.path}/workspace/level 0`, { recursive: true });
  await replicate(store, first.path);
  writeFileSync(`${first.path}/workspace/later`, "later");
  const { position } = await replicate(store, first.path);

  const outcome = await restore(store, second.path);
  expect(outcome).toMatchObject({ state: "ready", position, unrestored: [] });
  const isDatabase = (path: string): boolean => path.startsWith("openclaw/state");
  const plain = (path: string) =>
    Object.entries(describeTree(path, TREE)).filter(([name]) => !isDatabase(name));
  expect(plain(second.path)).toEqual(plain(first.path));
  const before = readdirSync(`${objects.path}/blobs`).length;
  const again = await replicate(store, second.path);
  expect(again.position).toBe(position);
  expect(readdirSync(`${objects.path}/blobs`).length).toBe(before);

  // Opened last: that alone writes beside a database.
  using copy = new Database(`${second.path}/openclaw/state/main.sqlite`);
  const messages = copy.query("SELECT text FROM messages").all();
  expect(messages).toEqual([{ text: "only in the log so far" }]);
});
