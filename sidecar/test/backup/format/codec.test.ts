import { expect, test } from "bun:test";
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { zstdCompressSync, zstdDecompressSync } from "node:zlib";

import * as fc from "fast-check";

import { CodecError } from "../../../src/backup/format/codec-error.ts";
import {
  MAX_COMMIT_BYTES,
  checkCommit,
  decodeCommit,
  encodeCommit,
} from "../../../src/backup/format/codec.ts";
import type { Commit } from "../../../src/backup/format/format.ts";
import { commitCase } from "../../support/backup-arbitraries.ts";
import { tempDir } from "../../support/temp-dir.ts";

const HASH = "a".repeat(64);

function commitOf(paths: Readonly<Record<string, string>>): {
  readonly commit: Commit;
  readonly members: Map<string, Uint8Array>;
} {
  const members = new Map<string, Uint8Array>();
  const entries = Object.entries(paths).map(([path, content]) => {
    const bytes = Buffer.from(content);
    members.set(`data/${path}`, bytes);
    return {
      type: "file" as const,
      path,
      mode: 0o640,
      mtimeNs: "1700000000123456789",
      size: bytes.length,
      sha256: HASH,
      extents: [{ commit: 3, member: `data/${path}`, offset: 0, length: bytes.length }],
    };
  });
  const commit = {
    format: 1,
    position: 3,
    id: "an-id-of-ours",
    parent: "the-one-before",
    user: "user-1",
    machine: "machine-1",
    time: 1_700_000_000_000,
    changed: entries.length,
    deletedCount: 1,
    bytes: 0,
    entries,
    deleted: ["gone"],
  };
  return { commit, members };
}

function plain(members: ReadonlyMap<string, Uint8Array>): Record<string, string> {
  return Object.fromEntries([...members].map(([k, v]) => [k, Buffer.from(v).toString("base64")]));
}

async function kindOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    return error instanceof CodecError ? error.kind : String(error);
  }
  return "read";
}

test("a commit comes back as it was, whatever its files are called", async () => {
  await fc.assert(
    fc.asyncProperty(commitCase, async ({ commit, members }) => {
      const back = await decodeCommit(await encodeCommit(commit, members));
      expect(back.commit).toEqual(commit);
      expect(plain(back.members)).toEqual(plain(members));
    }),
    { numRuns: 150 },
  );
}, 60_000);

test("a commit of 3,000 entries comes back as it was", async () => {
  const files: Record<string, string> = {};
  for (let n = 0; n < 3_000; n += 1) files[`folder/${n}.md`] = `content ${n}`;
  const { commit, members } = commitOf(files);
  const back = await decodeCommit(await encodeCommit(commit, members));
  expect(back.commit).toEqual(commit);
  expect(back.members.size).toBe(3_000);
});

test("a commit without any change can be written and read", async () => {
  const { commit, members } = commitOf({});
  expect((await decodeCommit(await encodeCommit(commit, members))).commit).toEqual(commit);
});

test("a commit keeps fields that this version does not know", async () => {
  const { commit, members } = commitOf({ "a.md": "a" });
  const newer = {
    ...commit,
    note: "of a later minor version",
    entries: commit.entries.map((entry) => ({ ...entry, xattrs: { user: "x" } })),
  };
  const back = await decodeCommit(await encodeCommit(newer, members));
  expect(back.commit).toEqual(newer);
});

test("a commit opens with zstd, tar and jq alone", async () => {
  using dir = tempDir();
  const files = {
    "workspace/notes.md": "# notes\n",
    [`workspace/${"long-".repeat(45)}/${"n".repeat(250)}`]: "long",
    "workspace/two\nlines é": "odd",
    "workspace/empty": "",
  };
  const { commit, members } = commitOf(files);
  writeFileSync(join(dir.path, "X"), await encodeCommit(commit, members));
  const sh = (script: string) =>
    Bun.spawnSync(["sh", "-euc", script], { cwd: dir.path, stderr: "pipe" });
  const unpacked = sh("zstd -dc < X | tar -x --no-same-owner -p");
  expect(unpacked.stderr.toString()).toBe("");
  expect(unpacked.exitCode).toBe(0);
  for (const [path, content] of Object.entries(files)) {
    const at = join(dir.path, "data", path);
    expect(readFileSync(at, "utf8")).toBe(content);
    expect(statSync(at).mode & 0o777).toBe(0o640);
    expect(statSync(at).mtimeMs).toBe(1_700_000_000_000);
  }
  expect(sh("zstd -dc X | tar -t | head -1").stdout.toString()).toBe(".commit.json\n");
  expect(
    sh(
      `zstd -dc X | tar -xO .commit.json | jq -r '.position, .deleted[0], .entries[0].path'`,
    ).stdout.toString(),
  ).toBe("3\ngone\nworkspace/notes.md\n");
});

test("a commit whose format is newer is refused with what to do", async () => {
  const { commit, members } = commitOf({ "a.md": "a" });
  const bytes = await encodeCommit({ ...commit, format: 2 }, members);
  const failure = await decodeCommit(bytes, { key: "commits/3" }).catch((error: unknown) => error);
  expect(failure).toMatchObject({
    kind: "newer",
    message:
      'Cannot read "commits/3": it has format 2, this sidecar knows 1; use the newer image that wrote it',
  });
});

test("a commit with any byte changed is not read, or reads the same", async () => {
  const { commit, members } = commitOf({ "a.md": "some content", "b.md": "more content" });
  const bytes = await encodeCommit(commit, members);
  for (let at = 0; at < bytes.length; at += 1) {
    const bad = Uint8Array.from(bytes);
    bad[at] = (bad[at] ?? 0) ^ 0x55;
    try {
      const back = await decodeCommit(bad);
      expect(back.commit).toEqual(commit);
      expect(plain(back.members)).toEqual(plain(members));
    } catch (error) {
      expect(error).toMatchObject({ name: "CodecError", kind: "corrupt" });
    }
  }
}, 60_000);

test("a commit that is cut anywhere is not read, or is whole all the same", async () => {
  const { commit, members } = commitOf({ "a.md": "some content", "b.md": "more content" });
  const bytes = await encodeCommit(commit, members);
  for (let length = 0; length < bytes.length; length += 1) {
    try {
      const back = await decodeCommit(bytes.subarray(0, length));
      expect(plain(back.members)).toEqual(plain(members));
    } catch (error) {
      expect(error).toMatchObject({ name: "CodecError", kind: "corrupt" });
    }
  }
}, 60_000);

test("a zstd bomb is refused before it is unpacked", async () => {
  const bomb = zstdCompressSync(Buffer.alloc(MAX_COMMIT_BYTES + 1));
  expect(bomb.length).toBeLessThan(100_000);
  expect(await kindOf(decodeCommit(bomb))).toBe("corrupt");
});

test.each([
  ["../outside"],
  ["/etc/passwd"],
  ["a/../../b"],
  ["a//b"],
  ["a/."],
  [""],
  ["a/"],
  ["a\0b"],
])("a commit that names the path %j is not read", async (path) => {
  const { commit, members } = commitOf({ "a.md": "a" });
  const entries = [{ type: "directory" as const, path, mode: 0o755, mtimeNs: "0" }];
  const entry = await encodeCommit({ ...commit, entries }, members);
  expect(await kindOf(decodeCommit(entry))).toBe("corrupt");
  expect(await kindOf(checkCommit({ ...commit, entries }, members))).not.toBe("read");
  const deletion = await encodeCommit({ ...commit, deleted: [path] }, members);
  expect(await kindOf(decodeCommit(deletion))).toBe("corrupt");
});

test.each([
  ["a missing member", (_: Commit, members: Map<string, Uint8Array>) => members.clear()],
  [
    "a member that is too short",
    (_: Commit, members: Map<string, Uint8Array>) => members.set("data/a.md", Buffer.alloc(1)),
  ],
  ["the same path twice", (commit: Commit) => void commit.entries.push(...commit.entries)],
  [
    "extents that do not add up",
    (commit: Commit) => {
      for (const entry of commit.entries) if (entry.type === "file") entry.size += 1;
    },
  ],
])("a commit with %s is not read", async (_name, damage) => {
  const { commit, members } = commitOf({ "a.md": "content" });
  expect(await kindOf(checkCommit(commit, members))).toBe("read");
  damage(commit, members);
  expect(await kindOf(checkCommit(commit, members))).toContain("could not be read again");
  expect(await kindOf(decodeCommit(await encodeCommit(commit, members)))).toBe("corrupt");
});

test("a tar that was made elsewhere with a link in it is not read", async () => {
  using dir = tempDir();
  const { commit, members } = commitOf({});
  const tar = join(dir.path, "X.tar");
  writeFileSync(tar, zstdDecompressSync(await encodeCommit(commit, members)));
  mkdirSync(join(dir.path, "data"));
  Bun.spawnSync(["sh", "-euc", "ln -s /etc data/x; tar -rf X.tar data/x"], { cwd: dir.path });
  chmodSync(tar, 0o600);
  expect(await kindOf(decodeCommit(zstdCompressSync(readFileSync(tar))))).toBe("corrupt");
});

test("a name that is no Unicode is refused when it is written", async () => {
  const { commit } = commitOf({});
  const work = encodeCommit(commit, new Map([["data/\uD800", Buffer.from("x")]]));
  expect(await kindOf(work)).toContain("it is not Unicode");
});
