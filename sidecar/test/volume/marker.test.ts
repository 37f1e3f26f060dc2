import { expect, test } from "bun:test";
import {
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";

import { holdsFiles, readMarker, writeMarker } from "../../src/volume/marker.ts";
import { Root } from "../../src/volume/root.ts";
import { tempDir } from "../support/temp-dir.ts";

const READY = { user: "me", state: "ready", position: 7 } as const;

test("a marker is read as it was written, with the fields of others kept", () => {
  using dir = tempDir();
  using root = new Root(dir.path);
  expect(readMarker(root)).toEqual({ kind: "missing" });
  writeMarker(root, { ...READY, later: { a: 1 } });
  expect(statSync(`${dir.path}/.sidecar`).mode & 0o777).toBe(0o700);
  const reading = readMarker(root);
  expect(reading).toEqual({
    kind: "ok",
    marker: { ...READY, version: 1, later: { a: 1 } },
  });
  if (reading.kind === "ok") writeMarker(root, { ...reading.marker, position: 8 });
  expect(JSON.parse(readFileSync(`${dir.path}/.sidecar/volume.json`, "utf8"))).toEqual({
    ...READY,
    version: 1,
    position: 8,
    later: { a: 1 },
  });
  expect(readdirSync(`${dir.path}/.sidecar`)).toEqual(["volume.json"]);
});

test("a folder of our name that others could enter becomes ours alone", () => {
  using dir = tempDir();
  using root = new Root(dir.path);
  mkdirSync(`${dir.path}/.sidecar`, { mode: 0o777 });
  const mine = process.geteuid?.() ?? 0;
  if (mine === 0) chownSync(`${dir.path}/.sidecar`, 12_345, 12_345);
  writeMarker(root, READY);
  const { uid, mode } = statSync(`${dir.path}/.sidecar`);
  expect([uid, mode & 0o7777]).toEqual([mine, 0o700]);
});

test("a marker that a crash left half written does not count and is replaced", () => {
  using dir = tempDir();
  using root = new Root(dir.path);
  mkdirSync(`${dir.path}/.sidecar`);
  writeFileSync(`${dir.path}/.sidecar/volume.json.new`, '{"ver');
  expect(readMarker(root).kind).toBe("missing");
  writeMarker(root, READY);
  expect(readMarker(root).kind).toBe("ok");
});

test.each([
  ["an empty file", ""],
  ["no JSON", "{"],
  ["no object", "null"],
  ["no version", '{"user":"me","state":"ready","position":1}'],
  ["a state nobody knows", '{"version":1,"user":"me","state":"odd","position":1}'],
  ["a negative position", '{"version":1,"user":"me","state":"ready","position":-1}'],
  ["far too much", `"${"x".repeat(300_000)}"`],
])("a marker that is %s is damaged, never missing", (_, text) => {
  using dir = tempDir();
  using root = new Root(dir.path);
  mkdirSync(`${dir.path}/.sidecar`);
  writeFileSync(`${dir.path}/.sidecar/volume.json`, text);
  expect(readMarker(root)).toMatchObject({
    kind: "damaged",
    message: expect.stringContaining("repair it"),
  });
});

test("a marker of a newer version is refused with what to do", () => {
  using dir = tempDir();
  using root = new Root(dir.path);
  mkdirSync(`${dir.path}/.sidecar`);
  writeFileSync(`${dir.path}/.sidecar/volume.json`, '{"version":2,"anything":true}');
  expect(readMarker(root)).toMatchObject({
    kind: "newer",
    message: expect.stringContaining("start the newer image"),
  });
});

test("no link is followed to a marker, to read it or to write it", () => {
  using dir = tempDir();
  using other = tempDir();
  using root = new Root(dir.path);
  writeFileSync(`${other.path}/volume.json`, JSON.stringify({ version: 1, ...READY }));
  symlinkSync(other.path, `${dir.path}/.sidecar`);
  expect(readMarker(root).kind).toBe("damaged");
  expect(() => writeMarker(root, READY)).toThrow();
  rmSync(`${dir.path}/.sidecar`);
  mkdirSync(`${dir.path}/.sidecar`);
  symlinkSync(`${other.path}/volume.json`, `${dir.path}/.sidecar/volume.json`);
  expect(readMarker(root).kind).toBe("damaged");
  symlinkSync(`${other.path}/planted`, `${dir.path}/.sidecar/volume.json.new`);
  writeMarker(root, { ...READY, position: 9 });
  expect(existsSync(`${other.path}/planted`)).toBe(false);
  expect(JSON.parse(readFileSync(`${other.path}/volume.json`, "utf8"))).toMatchObject({
    position: 7,
  });
  expect(readMarker(root)).toMatchObject({ kind: "ok", marker: { position: 9 } });
});

test("only what is not ours counts as files", () => {
  using dir = tempDir();
  using root = new Root(dir.path);
  mkdirSync(`${dir.path}/lost+found`);
  mkdirSync(`${dir.path}/.sidecar`);
  writeFileSync(`${dir.path}/.sidecar/index.sqlite`, "");
  expect(holdsFiles(root)).toBe(false);
  mkdirSync(`${dir.path}/workspace`);
  expect(holdsFiles(root)).toBe(true);
});
