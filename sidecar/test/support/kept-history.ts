import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { keys, positionOf } from "../../src/backup/format/format.ts";
import { Contents } from "../../src/backup/history/contents.ts";
import { foldTree } from "../../src/backup/history/history.ts";
import { removeDoomed, type RemovalResult } from "../../src/backup/keep/removal.ts";
import { drive } from "./drive.ts";
import { FaultyStore, type FaultScript } from "./faulty-store.ts";
import { ManualClock } from "./manual-clock.ts";
import { MemoryStore } from "./memory-store.ts";
import { replica, type ReplicaOptions } from "./replica.ts";
import { tempDir } from "./temp-dir.ts";

const never = new AbortController().signal;
export const DAY = 86_400_000;

/** A volume whose days pass in a moment, with all that its backup ever was. */
export function keptHistory(
  options: Partial<ReplicaOptions> & { readonly script?: FaultScript } = {},
) {
  const { script, ...rest } = options;
  const dir = tempDir();
  const volume = join(dir.path, "data");
  mkdirSync(volume);
  const clock = new ManualClock(Date.UTC(2026, 5, 1, 12));
  const memory = new MemoryStore(clock);
  const store = new FaultyStore(memory, script, clock);
  const one = replica({ store, clock, volume, ...rest });
  const { replicator, index, snapshot } = one;
  const files = new Map<string, string>();
  /** The files at each position that was the last of a day. */
  const trees = new Map<number, ReadonlyMap<string, string>>();
  const contentOf = async (position: number): Promise<Map<string, string>> => {
    const tree = await foldTree(memory, { at: position });
    const contents = new Contents(memory);
    const found = new Map<string, string>();
    for (const entry of tree?.entries.values() ?? []) {
      if (entry.type !== "file" || entry.path.startsWith(".")) continue;
      const hasher = new Bun.CryptoHasher("sha256");
      const chunks: Uint8Array[] = [];
      for await (const chunk of contents.read(entry)) {
        hasher.update(chunk);
        chunks.push(chunk.slice());
      }
      if (hasher.digest("hex") !== entry.sha256)
        throw new Error(`"${entry.path}" at ${position} is not what it was`);
      found.set(entry.path, Buffer.concat(chunks).toString());
    }
    return found;
  };
  return {
    ...one,
    volume,
    clock,
    memory,
    store,
    files,
    trees,
    contentOf,
    write(path: string, content: string): void {
      mkdirSync(join(volume, path, ".."), { recursive: true });
      writeFileSync(join(volume, path), content);
      files.set(path, content);
    },
    remove(path: string): void {
      rmSync(join(volume, path));
      files.delete(path);
    },
    /** Commits what there is, and waits for the checkpoint that this may begin. */
    async commit(): Promise<number> {
      await drive(clock, replicator.flush(never));
      const position = index.head()?.position ?? 0;
      trees.set(position, new Map(files));
      return position;
    },
    /** A day of which the last thing is a commit, with a checkpoint. */
    async day(): Promise<number> {
      clock.jump(DAY);
      const position = await this.commit();
      const is = (): boolean => index.checkpoint()?.position === position;
      for (let step = 0; step < 100 && !is(); step += 1) {
        await new Promise((resolve) => setTimeout(resolve, 1));
        await clock.advance(250);
      }
      return position;
    },
    night(changes: { readonly signal?: AbortSignal } = {}): Promise<RemovalResult> {
      const { signal = never } = changes;
      const removal = { store, reads: store, index, snapshot, writer: replicator, clock, signal };
      return drive(clock, removeDoomed(removal));
    },
    checkpoints: (): number[] =>
      memory.keys.flatMap((key) =>
        key.startsWith(keys.checkpoints) ? (positionOf(key) ?? []) : [],
      ),
    commits: (): number[] =>
      memory.keys.flatMap((key) => (key.startsWith(keys.commits) ? (positionOf(key) ?? []) : [])),
    blobs: (): string[] => memory.keys.filter((key) => key.startsWith(keys.blobs)),
    start: () => replicator.start(never),
    async [Symbol.asyncDispose]() {
      await drive(clock, replicator.stop(AbortSignal.abort(new Error("the test is over"))));
      one[Symbol.dispose]();
      dir[Symbol.dispose]();
    },
  };
}
