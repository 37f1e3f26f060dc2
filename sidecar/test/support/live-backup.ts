import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

import { Backup } from "../../src/backup/backup.ts";
import { bootVolume } from "../../src/backup/boot/boot.ts";
import type { FileEntry } from "../../src/backup/format/format.ts";
import { Contents } from "../../src/backup/history/contents.ts";
import { foldTree } from "../../src/backup/history/history.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { CountingStore } from "../../src/store/counting.ts";
import type { Store } from "../../src/store/store.ts";
import { Root } from "../../src/volume/root.ts";
import { capturedLog } from "./captured-log.ts";
import { sha256 } from "./readings.ts";

/** Boots the folder `volume` with what `store` has, and keeps a real backup of it until the scope ends. */
export async function liveBackup(store: Store, volume: string) {
  const root = new Root(volume);
  const counting = new CountingStore(store);
  const common = {
    root,
    user: "user-1",
    machine: "machine-1",
    store: counting,
    clock: systemClock,
  };
  const outcome = await bootVolume(
    { ...common, treeEqualsIndex: async () => false },
    AbortSignal.timeout(60_000),
  );
  if (outcome.state !== "ready" || !outcome.index) throw new Error(JSON.stringify(outcome));
  const { index } = outcome;
  const backup = new Backup({
    ...common,
    index,
    fence: "on",
    log: capturedLog(),
    onEvent: () => undefined,
  });
  const ending = new AbortController();
  await backup.start(ending.signal);
  let stopped = false;
  const stop = async (signal = AbortSignal.timeout(30_000)): Promise<void> => {
    if (stopped) return;
    stopped = true;
    await backup.stop(signal);
  };
  return {
    backup,
    stop,
    /** True if the newest position has this very content at `path`. */
    has(path: string, content: string): boolean {
      const entry = index.get(path)?.entry;
      return entry?.type === "file" && entry.sha256 === sha256(content);
    },
    holds: (path: string): boolean => index.get(path) !== undefined,
    async [Symbol.asyncDispose]() {
      await stop(AbortSignal.abort(new Error("The test is over")));
      ending.abort(new Error("The test is over"));
      index[Symbol.dispose]();
      root[Symbol.dispose]();
    },
  };
}

/** The files of the tree at one position. */
export async function filesAt(store: Store, position: number): Promise<readonly FileEntry[]> {
  const tree = await foldTree(store, { at: position });
  return [...(tree?.entries.values() ?? [])].filter((entry) => entry.type === "file");
}

/** Brings one file of the history to the folder `to`, and returns its path there. */
export async function bring(store: Store, entry: FileEntry, to: string): Promise<string> {
  const path = join(to, entry.path);
  mkdirSync(dirname(path), { recursive: true });
  const pieces: Uint8Array[] = [];
  for await (const piece of new Contents(store).read(entry)) pieces.push(piece);
  const bytes = Buffer.concat(pieces);
  if (sha256(bytes) !== entry.sha256) throw new Error(`${entry.path} is not what was committed`);
  writeFileSync(path, bytes);
  return path;
}
