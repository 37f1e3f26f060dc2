import {
  mkdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  chmodSync,
  linkSync,
} from "node:fs";
import { join } from "node:path";

import { describeTree, type Described } from "./tree.ts";

/** What is on the volume and not in the backup, by design. */
const NOT_BACKED_UP = [".sidecar", ".last-sync", "lost+found", ".sidecar-copies"];

/** Everything that a restore must bring back. */
export function describeVolume(dataDir: string): Readonly<Record<string, Described>> {
  return describeTree(dataDir, { skip: NOT_BACKED_UP });
}

/** The volume is lost: an empty one takes its place. */
export function wipe(dataDir: string): void {
  rmSync(dataDir, { recursive: true, force: true });
  mkdirSync(dataDir);
}

/** Puts a tree with all that a backup must keep below `folder`. */
export function plantTree(folder: string): void {
  mkdirSync(join(folder, "empty"), { recursive: true });
  mkdirSync(join(folder, "deep/er/and/deeper"), { recursive: true });
  writeFileSync(join(folder, "plain.md"), "# plain\n");
  writeFileSync(join(folder, "deep/er/and/deeper/leaf.txt"), "leaf");
  writeFileSync(join(folder, "nothing.txt"), "");
  writeFileSync(join(folder, "run.sh"), "#!/bin/sh\n");
  chmodSync(join(folder, "run.sh"), 0o750);
  writeFileSync(join(folder, "a name\nwith ünïcode ☃.txt"), "odd");
  writeFileSync(join(folder, "n".repeat(255)), "long name");
  writeFileSync(join(folder, "large.bin"), randomBytes(300_000));
  writeFileSync(join(folder, "copy-of-large.bin"), "small for now");
  symlinkSync("deep/er", join(folder, "link"));
  symlinkSync("/nowhere/at/all", join(folder, "dangling"));
  linkSync(join(folder, "plain.md"), join(folder, "hard.md"));
  utimesSync(join(folder, "run.sh"), 1_000_000_000.123, 1_000_000_000.456);
  utimesSync(join(folder, "empty"), 1_234_567_890, 1_234_567_890);
}

function randomBytes(count: number): Uint8Array {
  const bytes = new Uint8Array(count);
  for (let at = 0; at < count; at += 65_536)
    crypto.getRandomValues(bytes.subarray(at, at + 65_536));
  return bytes;
}
