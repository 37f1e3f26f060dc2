import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { DirectoryStore } from "../../../src/store/directory.ts";
import { setTimes } from "../../../src/volume/ns-times.ts";
import { Root } from "../../../src/volume/root.ts";
import { HistoryWriter } from "../../support/history.ts";
import { makeOddTree, pseudoRandom } from "../../support/odd-tree.ts";
import { tempDir } from "../../support/temp-dir.ts";
import { describeTree } from "../../support/tree.ts";

// The machine may be busy.
setDefaultTimeout(60_000);

const CHILD = join(import.meta.dir, "../../fixtures/boot-child.ts");
const OURS = { skip: [".sidecar", "lost+found"] };

interface Boot {
  readonly killed: boolean;
  readonly steps: readonly string[];
  readonly outcome: Record<string, unknown> | undefined;
}

/** Boots a volume in a process of its own, which dies at a step, or so many milliseconds after it began. */
async function boot(
  { objects, volume }: { readonly objects: string; readonly volume: string },
  death: { readonly step?: string; readonly afterMs?: number } = {},
): Promise<Boot> {
  const child = Bun.spawn([process.execPath, CHILD, objects, volume, death.step ?? ""], {
    stdout: "pipe",
    stderr: "inherit",
  });
  const lines: string[] = [];
  const decoder = new TextDecoder();
  let rest = "";
  let doomed = false;
  for await (const chunk of child.stdout) {
    const parts = (rest + decoder.decode(chunk)).split("\n");
    rest = parts.pop() ?? "";
    lines.push(...parts);
    if (death.afterMs !== undefined && !doomed && lines.includes("begin")) {
      doomed = true;
      setTimeout(() => child.kill("SIGKILL"), death.afterMs);
    }
  }
  await child.exited;
  const outcome = lines.find((line) => line.startsWith("outcome "));
  return {
    killed: child.signalCode === "SIGKILL",
    steps: lines.filter((line) => line.startsWith("step ")).map((line) => line.slice(5)),
    outcome: outcome === undefined ? undefined : (JSON.parse(outcome.slice(8)) as Boot["outcome"]),
  };
}

/** A history of a tree that takes a while to restore. */
async function history(objects: string, tree: string): Promise<HistoryWriter> {
  makeOddTree(tree);
  for (let n = 0; n < 300; n += 1) {
    mkdirSync(`${tree}/workspace/many/${n % 17}`, { recursive: true });
    writeFileSync(`${tree}/workspace/many/${n % 17}/${n}`, pseudoRandom(2_000 + n, n + 1));
  }
  for (let n = 0; n < 20; n += 1) writeFileSync(`${tree}/home/b${n}`, pseudoRandom(70_000, n + 7));
  const writer = new HistoryWriter(new DirectoryStore(objects));
  await writer.commitTree(tree);
  return writer;
}

/** Makes what is never backed up, without a trace in the folder it is made in. */
function addIgnored(volume: string): void {
  using root = new Root(volume);
  using top = root.dir("");
  const { mtimeNs } = top.lstat("workspace");
  mkdirSync(`${volume}/workspace/node_modules/x`, { recursive: true });
  writeFileSync(`${volume}/workspace/node_modules/x/index.js`, "ignored, and kept");
  setTimes(top, "workspace", mtimeNs);
}

test.each(["marked", "staged", "filled", "placing", "placed", "ready"])(
  "a restore that is killed at %s is finished by the next boot",
  async (step) => {
    using objects = tempDir();
    using tree = tempDir();
    using volume = tempDir();
    await history(objects.path, tree.path);
    const at = { objects: objects.path, volume: volume.path };
    const first = await boot(at, { step });
    expect(first.killed).toBe(true);
    const second = await boot(at);
    expect(second.outcome).toMatchObject({ state: "ready", position: 1, unrestored: [] });
    expect(describeTree(volume.path, OURS)).toEqual(describeTree(tree.path));
    // What was placed after the stamps were taken is looked at again, and found to be the same.
    const changed = second.outcome?.["changed"] as string[];
    expect(changed.filter((path) => path.includes("/"))).toEqual([]);
  },
  60_000,
);

test("a restore that is killed twenty times at random ends with the very tree", async () => {
  using objects = tempDir();
  using tree = tempDir();
  await history(objects.path, tree.path);
  const wanted = describeTree(tree.path);
  let killed = 0;
  let volume = tempDir();
  try {
    for (let round = 0; killed < 20 && round < 60; round += 1) {
      const at = { objects: objects.path, volume: volume.path };
      const { outcome } = await boot(at, { afterMs: Math.random() * 250 });
      if (outcome === undefined) {
        killed += 1;
        continue;
      }
      // It was faster than death: a whole tree, and once more from the start.
      expect(outcome).toMatchObject({ state: "ready", position: 1, unrestored: [] });
      expect(describeTree(volume.path, OURS)).toEqual(wanted);
      volume[Symbol.dispose]();
      volume = tempDir();
    }
    const { outcome } = await boot({ objects: objects.path, volume: volume.path });
    expect(outcome).toMatchObject({ state: "ready", position: 1, unrestored: [] });
    expect(describeTree(volume.path, OURS)).toEqual(wanted);
    expect(killed).toBeGreaterThan(0);
  } finally {
    volume[Symbol.dispose]();
  }
}, 120_000);

test.each(["kept", "filled", "aside", "placed", "brought back", "ready"])(
  "an old copy that is killed at %s on its way forward gets there at the next boot",
  async (step) => {
    using objects = tempDir();
    using tree = tempDir();
    using volume = tempDir();
    const writer = await history(objects.path, tree.path);
    const at = { objects: objects.path, volume: volume.path };
    expect((await boot(at)).outcome).toMatchObject({ state: "ready", position: 1 });
    addIgnored(volume.path);
    writeFileSync(`${tree.path}/workspace/many/0/0`, "changed by others");
    writeFileSync(`${tree.path}/home/new`, "new");
    rmSync(`${tree.path}/workspace/many/3`, { recursive: true });
    renameSync(`${tree.path}/home/b1`, `${tree.path}/workspace/b1`);
    await writer.commitTree(tree.path);
    const first = await boot(at, { step });
    expect([first.killed, first.steps.at(-1)?.startsWith(step)]).toEqual([true, true]);
    expect((await boot(at)).outcome).toMatchObject({ state: "ready", position: 2 });
    const found = Object.entries(describeTree(volume.path, OURS));
    const ignored = found.filter(([path]) => path.includes("node_modules"));
    expect(ignored.map(([path]) => path)).toEqual([
      "workspace/node_modules",
      "workspace/node_modules/x",
      "workspace/node_modules/x/index.js",
    ]);
    const rest = found.filter(([path]) => !path.includes("node_modules"));
    const wanted = describeTree(tree.path);
    expect(Object.fromEntries(rest)).toEqual(wanted);
    const own = readdirSync(`${volume.path}/.sidecar`);
    expect(own.filter((name) => name.startsWith("replaced") || name === "restore")).toEqual([]);
  },
  60_000,
);
