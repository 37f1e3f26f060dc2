import { expect, test } from "bun:test";
import { spawn } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import { directoryError } from "../../src/store/directory-error.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import { StoreError, type StoreErrorKind } from "../../src/store/store.ts";
import { ManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";
import { until } from "../support/until.ts";
import { expectKind, testStore } from "./contract.ts";

const FIXTURE = join(import.meta.dir, "../fixtures/directory-store.ts");
const DAY_MS = 24 * 3_600_000;
const hello = new TextEncoder().encode("hello");

testStore("DirectoryStore", {
  open: async () => {
    const dir = tempDir();
    const store = new DirectoryStore(`${dir.path}/made/by/the/first/put`);
    return Object.assign(store, { [Symbol.asyncDispose]: async () => dir[Symbol.dispose]() });
  },
});

test("DirectoryStore keeps an object as a plain file that only we may read", async () => {
  using dir = tempDir();
  const path = join(dir.path, "store");
  await new DirectoryStore(path).put("a/b", hello);
  expect(await Bun.file(join(path, "a/b")).text()).toBe("hello");
  expect(statSync(join(path, "a/b")).mode & 0o777).toBe(0o600);
  for (const folder of [path, join(path, "a")]) expect(statSync(folder).mode & 0o777).toBe(0o700);
});

test("DirectoryStore says of a folder that is not there that nothing is in it, and makes none by reading", async () => {
  using dir = tempDir();
  const path = join(dir.path, "store");
  const store = new DirectoryStore(path);
  expect((await store.list("")).objects).toEqual([]);
  expect(await store.head("a")).toBeUndefined();
  await expectKind(store.get("a"), "missing");
  await store.delete(["a"]);
  expect(existsSync(path)).toBe(false);
});

test("DirectoryStore leads no key out of its folder", async () => {
  using dir = tempDir();
  writeFileSync(join(dir.path, "outside"), "secret");
  const path = join(dir.path, "store");
  const store = new DirectoryStore(path);
  await store.put("inside", hello);
  for (const key of ["../outside", "a/../../outside", "..", "", "/etc/passwd", "~unfinished/x"]) {
    await expectKind(store.get(key), "unsupported");
    await expectKind(store.stream(key), "unsupported");
    await expectKind(store.head(key), "unsupported");
  }
  for (const prefix of ["../", "..", "../store/", "/", "~unfinished/", "./"]) {
    expect((await store.list(prefix)).objects).toEqual([]);
  }
});

test("DirectoryStore takes a link for no object", async () => {
  using dir = tempDir();
  const path = join(dir.path, "store");
  const store = new DirectoryStore(path);
  await store.put("a", hello);
  symlinkSync(join(path, "a"), join(path, "link"));
  symlinkSync(dir.path, join(path, "folder"));
  await expectKind(store.get("link"), "missing");
  expect(await store.head("link")).toBeUndefined();
  expect((await store.list("")).objects.map((object) => object.key)).toEqual(["a"]);
});

test("DirectoryStore reads what others put there under names of their own", async () => {
  using dir = tempDir();
  mkdirSync(join(dir.path, "with space"));
  writeFileSync(join(dir.path, "with space", "é.md"), "hello");
  const store = new DirectoryStore(dir.path);
  const [object] = (await store.list("")).objects;
  expect(object).toMatchObject({ key: "with space/é.md", sizeBytes: 5 });
  expect(await store.get("with space/é.md")).toEqual(hello);
});

test("DirectoryStore calls a folder or an object in the way unsupported, not taken", async () => {
  using dir = tempDir();
  const store = new DirectoryStore(dir.path);
  await store.put("a/b", hello);
  for (const ifAbsent of [false, true]) {
    await expectKind(store.put("a", hello, { ifAbsent }), "unsupported");
    await expectKind(store.put("a/b/c", hello, { ifAbsent }), "unsupported");
  }
  await expectKind(store.get("a"), "missing");
});

test("DirectoryStore goes on when its folders are tidied away", async () => {
  using dir = tempDir();
  const store = new DirectoryStore(dir.path);
  await store.put("a/b/c", hello);
  await store.delete(["a/b/c"]);
  for (const folder of ["a/b", "a", "~unfinished"]) {
    Bun.spawnSync(["rmdir", join(dir.path, folder)]);
  }
  await store.put("a/b/c", hello, { ifAbsent: true });
  expect(await store.get("a/b/c")).toEqual(hello);
});

test("DirectoryStore removes what killed puts left behind, a day later", async () => {
  using dir = tempDir();
  const clock = new ManualClock(Date.now());
  const unfinished = join(dir.path, "~unfinished");
  mkdirSync(unfinished);
  const age = (name: string, ms: number): void => {
    writeFileSync(join(unfinished, name), "torn");
    utimesSync(join(unfinished, name), new Date(Date.now() - ms), new Date(Date.now() - ms));
  };
  age("old", DAY_MS + 60_000);
  age("young", DAY_MS - 3_600_000);
  const store = new DirectoryStore(dir.path, { clock });
  expect((await store.list("")).objects).toEqual([]);
  await store.put("a", hello);
  expect(readdirSync(unfinished)).toEqual(["young"]);
  clock.jump(DAY_MS + 60_000);
  await store.put("a", hello);
  expect(readdirSync(unfinished)).toEqual([]);
});

test("DirectoryStore leaves nothing behind of a put that fails or is refused", async () => {
  using dir = tempDir();
  const store = new DirectoryStore(dir.path);
  await store.put("a", hello);
  await expectKind(store.put("a", hello, { ifAbsent: true }), "exists");
  const failing = {
    sizeBytes: 10,
    async *open() {
      yield hello;
      throw new Error("broken");
    },
  };
  await expect(store.put("b", failing)).rejects.toThrow("broken");
  expect(readdirSync(join(dir.path, "~unfinished"))).toEqual([]);
});

test("DirectoryStore gives every key one winner among processes", async () => {
  using dir = tempDir();
  const won = await Promise.all(
    [1, 2, 3].map(async () => {
      const child = Bun.spawn([process.execPath, FIXTURE, "race", dir.path], { stderr: "inherit" });
      const winners = JSON.parse(await new Response(child.stdout).text()) as string[];
      return winners.map((key) => [key, String(child.pid)] as const);
    }),
  );
  const winners = won.flat();
  expect(winners).toHaveLength(300);
  expect(new Set(winners.map(([key]) => key)).size).toBe(300);
  const store = new DirectoryStore(dir.path);
  for (const [key, pid] of winners) {
    expect(new TextDecoder().decode(await store.get(key))).toBe(pid);
  }
}, 60_000);

test("DirectoryStore killed in a put keeps every acknowledged object whole and lists no other", async () => {
  using dir = tempDir();
  for (let round = 1; round <= 3; round += 1) {
    const child = spawn(process.execPath, [FIXTURE, "loop", dir.path], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const ended = new Promise((resolve) => child.once("exit", resolve));
    let said = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (said += text));
    await until(() => said.split("\n").length > 3 * round, "some puts", 20_000);
    child.kill("SIGKILL");
    await ended;
    const acknowledged = Number(said.trimEnd().split("\n").at(-1));
    const store = new DirectoryStore(dir.path);
    const { objects } = await store.list("");
    expect(objects.length).toBeGreaterThanOrEqual(acknowledged);
    for (const { key } of objects) {
      const bytes = await store.get(key);
      const number = Number(key.slice("loop/".length)) & 255;
      expect([key, bytes.byteLength, bytes.every((byte) => byte === number)]).toEqual([
        key,
        4 << 20,
        true,
      ]);
    }
  }
}, 60_000);

test("DirectoryStore says denied where it may not write", async () => {
  using dir = tempDir();
  const path = join(dir.path, "store");
  mkdirSync(path);
  chmodSync(path, 0o555);
  chmodSync(dir.path, 0o755);
  // Root may write everywhere: be nobody instead.
  const asNobody = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {};
  const child = spawn(process.execPath, [FIXTURE, "once", path], {
    stdio: ["ignore", "pipe", "inherit"],
    cwd: "/",
    ...asNobody,
  });
  let said = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (said += text));
  await new Promise((resolve) => child.once("exit", resolve));
  await until(() => said !== "", "the outcome");
  expect(said).toBe("denied\n");
});

test.each<[string, string, StoreErrorKind, string]>([
  ["ENOSPC", "put", "unavailable", "no space left on the disk of the store"],
  ["EDQUOT", "put", "unavailable", "the disk quota of the store is used up"],
  ["EACCES", "put", "denied", "permission denied"],
  ["EROFS", "put", "denied", "the file system is read-only"],
  ["EPERM", "delete", "denied", "not permitted"],
  ["EIO", "get", "unavailable", "the disk answers EIO"],
  ["ENOTDIR", "put", "unsupported", "an object is where a folder is needed"],
  ["ENOTDIR", "get", "missing", "there is no such object"],
])("DirectoryStore tells apart: %s on %s", (...[errno, verb, kind, found]) => {
  const cause = Object.assign(new Error(`${errno}: as the kernel says it`), {
    code: errno,
    syscall: "open",
  });
  const error = directoryError(cause, verb, "a/b");
  expect(error).toBeInstanceOf(StoreError);
  expect(error).toMatchObject({ kind, message: `Cannot ${verb} "a/b": ${found}`, cause });
});

test("DirectoryStore passes errors on that are not the disk's", () => {
  for (const error of [
    new Error("the source broke"),
    new DOMException("x", "AbortError"),
    "text",
  ]) {
    expect(directoryError(error, "put", "a")).toBe(error);
  }
});

test("DirectoryStore is unavailable, not empty, where something else stands in its folder's place", async () => {
  using dir = tempDir();
  writeFileSync(join(dir.path, "store"), "no folder");
  const store = new DirectoryStore(join(dir.path, "store"));
  await expectKind(store.list(""), "unavailable");
  await expectKind(store.put("key", hello, { ifAbsent: true }), "unavailable");
});

test("DirectoryStore gives up what killed puts have left behind, once it is old enough", async () => {
  using dir = tempDir();
  const path = join(dir.path, "store");
  const store = new DirectoryStore(path);
  expect(await store.abortUploads("", { olderThanMs: 0 })).toBe(0);
  await store.put("key", hello);
  writeFileSync(join(path, "~unfinished", "cut-off"), "cut o");
  expect(await store.abortUploads("", { olderThanMs: 3_600_000 })).toBe(0);
  expect(await store.abortUploads("", { olderThanMs: -60_000 })).toBe(1);
  expect(readdirSync(join(path, "~unfinished"))).toEqual([]);
  expect(await store.get("key")).toEqual(hello);
});
