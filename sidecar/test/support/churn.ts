import {
  appendFileSync,
  chmodSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";

/** A generator of numbers in [0, 1) that gives the same ones for the same seed. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** Does `steps` random things to the tree below the folder `root`, as people and agents do. */
export function churn(root: string, steps: number, random: () => number): void {
  const pick = <T>(items: readonly T[]): T | undefined =>
    items[Math.floor(random() * items.length)];
  const path = (): string => {
    const depth = 1 + Math.floor(random() * 3);
    const parts = Array.from({ length: depth }, () => `d${Math.floor(random() * 4)}`);
    return join(root, ...parts, `f${Math.floor(random() * 12)}`);
  };
  const text = (bytes: number): string => String(random()).repeat(Math.ceil(bytes / 18));
  const actions: (() => void)[] = [
    () => write(path(), text(random() * 2_000)),
    () => write(path(), text(random() * 2_000)),
    () => write(path(), text(70_000 + random() * 200_000)),
    () => appendFileSync(path(), text(50)),
    () => rmSync(path(), { recursive: true, force: true }),
    () => rmSync(dirname(path()), { recursive: true, force: true }),
    () => renameSync(path(), path()),
    () => renameSync(dirname(path()), dirname(path())),
    () => symlinkSync(text(10), path()),
    () => linkSync(path(), path()),
    () => mkdirSync(path(), { recursive: true }),
    () => chmodSync(path(), 0o600 + Math.floor(random() * 0o100)),
  ];
  for (let step = 0; step < steps; step += 1) {
    try {
      pick(actions)?.();
    } catch {
      // What it wanted to act on is not there, or something else is.
    }
  }
  // The top is never empty: that would halt the backup.
  write(join(root, "workspace", "kept"), "kept");
}

function write(path: string, content: string): void {
  const parent = dirname(path);
  mkdirSync(parent, { recursive: true });
  if (!isFolder(path)) writeFileSync(path, content);
  else if (readdirSync(path).length === 0) rmSync(path, { recursive: true });
}

function isFolder(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}
