import {
  chmodSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";

import { Dir } from "../../src/volume/dir.ts";
import { setTimes } from "../../src/volume/ns-times.ts";
import { Root } from "../../src/volume/root.ts";

/** Makes a tree of everything that has broken a backup somewhere: names, modes, times, links, sizes. */
export function makeOddTree(path: string): void {
  const file = (name: string, content: string | Uint8Array, mode = 0o644): void => {
    writeFileSync(`${path}/${name}`, content);
    chmodSync(`${path}/${name}`, mode);
  };
  mkdirSync(`${path}/workspace/empty`, { recursive: true });
  mkdirSync(`${path}/openclaw/credentials`, { recursive: true, mode: 0o700 });
  mkdirSync(`${path}/home`);
  file("top.md", "at the top\n");
  file("workspace/with space", "a");
  file("workspace/new\nline", "b");
  file("workspace/\u00e9", "composed");
  file("workspace/e\u0301", "decomposed");
  file(`workspace/${"x".repeat(255)}`, "long");
  file(`workspace/${"é".repeat(127)}`, "long in bytes");
  file("workspace/-rf", "dash");
  file("workspace/.hidden", "dot");
  file("workspace/empty file", "");
  file("workspace/\u0001", "control");
  file("workspace/🦞", "astral");
  file("workspace/secret", "0600", 0o600);
  file("workspace/script.sh", "#!/bin/sh\n", 0o755);
  file("workspace/nobody reads this", "0000", 0o000);
  const deep = `workspace/${Array.from({ length: 40 }, (_, n) => `level ${n}`).join("/")}`;
  mkdirSync(`${path}/${deep}`, { recursive: true });
  file(`${deep}/leaf`, "deep");
  file("workspace/same 1", "the same content");
  file("workspace/same 2", "the same content");
  file("openclaw/medium.bin", pseudoRandom(200_000));
  file("home/large.bin", pseudoRandom(3_000_000));
  file("home/names", "one inode");
  linkSync(`${path}/home/names`, `${path}/workspace/another name`);
  linkSync(`${path}/home/names`, `${path}/home/a third`);
  symlinkSync("../home/names", `${path}/workspace/link`);
  symlinkSync("/etc/passwd", `${path}/workspace/outward`);
  symlinkSync("nowhere at all", `${path}/dangling`);
  symlinkSync("workspace", `${path}/home/to folder`);
  lutimesSync(`${path}/dangling`, 1_600_000_000, 1_600_000_000);
  mkdirSync(`${path}/workspace/read only`);
  file("workspace/read only/inside", "ro");
  chmodSync(`${path}/workspace/read only`, 0o555);
  using root = new Root(path);
  using top = root.dir("");
  age(top, 1_700_000_000_123_456_789n);
}

/** Bytes that do not compress, the same ones each time. */
export function pseudoRandom(size: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(size);
  let state = seed;
  for (let at = 0; at < size; at += 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes[at] = state >>> 24;
  }
  return bytes;
}

/** Gives everything below `dir` a time of its own, with nanoseconds. */
function age(dir: Dir, from: bigint): bigint {
  let at = from;
  for (const name of readdirSync(dir.self).sort()) {
    const stat = dir.lstat(name);
    if (stat.isDirectory()) {
      using child = dir.openDir(name);
      at = age(child, at);
    }
    at += 1_000_000_007n;
    setTimes(dir, name, at);
  }
  return at;
}

/** Whether this process may do what the machine's may: give files away, read what nobody may read. */
export function isRoot(): boolean {
  return statSync("/proc/self").uid === 0;
}
