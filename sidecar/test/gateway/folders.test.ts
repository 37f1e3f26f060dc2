import { expect, test } from "bun:test";
import {
  chownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import { prepareFolders } from "../../src/gateway/folders.ts";
import { systemClock } from "../../src/platform/clock.ts";
import { tempDir } from "../support/temp-dir.ts";

const asRoot = test.skipIf(process.getuid?.() !== 0);
const agent = { uid: 54_321, gid: 54_322 };
const options = { owner: undefined, clock: systemClock, signal: new AbortController().signal };

function ownerOf(path: string): { uid: number; gid: number } {
  const { uid, gid } = lstatSync(path);
  return { uid, gid };
}

test("the folders are made where they are missing", async () => {
  using dir = tempDir();
  mkdirSync(join(dir.path, "workspace"));
  expect(await prepareFolders(dir.path, options)).toBe(0);
  expect(readdirSync(dir.path).sort()).toEqual(["home", "openclaw", "workspace"]);
});

test("a link in a folder's place is refused", async () => {
  using dir = tempDir();
  using outside = tempDir();
  symlinkSync(outside.path, join(dir.path, "home"));
  await expect(prepareFolders(dir.path, options)).rejects.toThrow("home");
  expect(readdirSync(outside.path)).toEqual([]);
});

asRoot("the folders become the agent's and the volume root's", async () => {
  using dir = tempDir();
  chownSync(dir.path, agent.uid, agent.gid);
  mkdirSync(join(dir.path, "openclaw/state"), { recursive: true });
  writeFileSync(join(dir.path, "openclaw/state/db"), "");
  expect(await prepareFolders(dir.path, { ...options, owner: agent })).toBe(5);
  expect(ownerOf(dir.path)).toEqual({ uid: 0, gid: 0 });
  expect(statSync(dir.path).mode & 0o777).toBe(0o755);
  for (const path of ["home", "openclaw", "openclaw/state", "openclaw/state/db"]) {
    expect(ownerOf(join(dir.path, path))).toEqual(agent);
  }
  expect(await prepareFolders(dir.path, { ...options, owner: agent })).toBe(0);
});

asRoot("a link changes hands itself, and what it points to does not", async () => {
  using dir = tempDir();
  using outside = tempDir();
  const file = join(outside.path, "file");
  writeFileSync(file, "");
  mkdirSync(join(dir.path, "workspace"));
  symlinkSync(file, join(dir.path, "workspace/link"));
  symlinkSync(outside.path, join(dir.path, "workspace/folder"));
  await prepareFolders(dir.path, { ...options, owner: agent });
  expect(ownerOf(join(dir.path, "workspace/link"))).toEqual(agent);
  expect(ownerOf(file)).toEqual({ uid: 0, gid: 0 });
  expect(ownerOf(outside.path)).toEqual({ uid: 0, gid: 0 });
});

asRoot("a wrong owner far down is found when asked to be thorough", async () => {
  using dir = tempDir();
  mkdirSync(join(dir.path, "openclaw/a/b"), { recursive: true });
  await prepareFolders(dir.path, { ...options, owner: agent });
  const file = join(dir.path, "openclaw/a/b/file");
  writeFileSync(file, "");
  expect(await prepareFolders(dir.path, { ...options, owner: agent })).toBe(0);
  expect(await prepareFolders(dir.path, { ...options, owner: agent, thorough: true })).toBe(1);
  expect(ownerOf(file)).toEqual(agent);
});
