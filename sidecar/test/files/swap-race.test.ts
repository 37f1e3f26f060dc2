import { expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { caller, filesApp, filesVolume } from "../support/files-volume.ts";
import { describeTree } from "../support/tree.ts";

const SWAP_MS = 4_000;

test("nothing outside is read, changed, made or deleted while folders and links change places", async () => {
  using volume = filesVolume();
  mkdirSync(join(volume.outside, "deep/deeper"), { recursive: true });
  for (const name of ["f", "g", "deep/f", "deep/deeper/f"]) {
    writeFileSync(join(volume.outside, name), "SECRET");
  }
  const before = describeTree(volume.outside);
  const swapper = Bun.spawn(
    [
      process.execPath,
      join(import.meta.dir, "../fixtures/swapper.ts"),
      join(volume.path, "workspace"),
      volume.outside,
      String(SWAP_MS),
    ],
    { stdout: "pipe", stderr: "inherit" },
  );
  const state = { running: true };
  const finished = swapper.exited.then(() => (state.running = false));
  const call = caller(filesApp(volume));
  const content = JSON.stringify({ content: "WRITTEN" });
  const operations: readonly (readonly [string, () => ReturnType<typeof call>])[] = [
    ["read", () => call("GET", "/read", { path: "f" })],
    ["read below", () => call("GET", "/read", { path: "x/f" })],
    ["download", () => call("GET", "/download", { path: "f" })],
    ["download below", () => call("GET", "/download", { path: "x/g" })],
    ["list", () => call("GET", "/list", { path: "x" })],
    ["list above", () => call("GET", "/list", { path: "" })],
    ["write", () => call("POST", "/write", { path: "f", body: content })],
    ["write below", () => call("POST", "/write", { path: "x/f", body: content })],
    ["write new", () => call("POST", "/write", { path: "x/new/folder/f", body: content })],
    ["upload", () => call("POST", "/upload", { path: "x/g", body: "UPLOADED" })],
    ["mkdir", () => call("POST", "/mkdir", { path: "x/made/folder" })],
    ["delete below", () => call("DELETE", "/delete", { path: "x/f" })],
    ["delete deep", () => call("DELETE", "/delete", { path: "x/deep" })],
    ["delete", () => call("DELETE", "/delete", { path: "x" })],
    ["move in", () => call("POST", "/move", { body: move("x/f", "moved") })],
    ["move out", () => call("POST", "/move", { body: move("moved", "x/f") })],
  ];
  const statuses = new Map<number, number>();
  try {
    while (state.running) {
      for (const [name, operation] of operations) {
        const { status, text } = await operation();
        statuses.set(status, (statuses.get(status) ?? 0) + 1);
        expect([name, text.includes("SECRET")]).toEqual([name, false]);
        expect([name, status]).not.toEqual([name, 500]);
      }
    }
  } finally {
    swapper.kill();
    await finished;
  }
  expect(describeTree(volume.outside)).toEqual(before);
  // Both sides of the race were met.
  expect(statuses.get(200)).toBeGreaterThan(0);
  expect(statuses.get(403)).toBeGreaterThan(0);
}, 30_000);

function move(from: string, to: string): string {
  return JSON.stringify({ from, to });
}
