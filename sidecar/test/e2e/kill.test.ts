import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

import { MachineProcess } from "../support/machine-process.ts";
import { tempDir } from "../support/temp-dir.ts";
import { describeVolume, plantTree, wipe } from "../support/volume.ts";

const ROUNDS = 20;
const LIMIT_MS = 300_000;
const BUSY = JSON.stringify([
  process.execPath,
  resolve(import.meta.dir, "../fixtures/busy-gateway.ts"),
]);

test(
  `killed ${ROUNDS} times at random while it commits, a machine goes on by itself and loses nothing`,
  async () => {
    using folder = tempDir();
    const env = { GATEWAY_COMMAND: BUSY };
    for (let round = 0; round < ROUNDS; round += 1) {
      await using machine = await MachineProcess.start({ folder: folder.path, env });
      if (round % 4 === 0) await machine.untilReady();
      await Bun.sleep(300 + Math.random() * 1_500);
      machine.signal("SIGKILL");
      await machine.exited;
    }
    let before: ReturnType<typeof describeVolume>;
    {
      await using machine = await MachineProcess.start({ folder: folder.path, env });
      const report = await machine.untilReady();
      expect(report.backup.state).not.toBe("fenced");
      expect(await machine.stop()).toBe(0);
      before = describeVolume(machine.dataDir);
      expect(Object.keys(before)).toContain("workspace/busy/transcript.jsonl");
      wipe(machine.dataDir);
    }
    await using machine = await MachineProcess.start({ folder: folder.path });
    await machine.untilReady();
    expect(withoutDatabase(describeVolume(machine.dataDir))).toEqual(withoutDatabase(before));
    using database = new Database(join(machine.dataDir, "openclaw/state/busy.sqlite"));
    expect(database.query("PRAGMA integrity_check").values()).toEqual([["ok"]]);
    expect(
      database.query<{ n: number }, []>("SELECT COUNT(*) AS n FROM rows").get()?.n,
    ).toBeGreaterThan(0);
    expect(await machine.stop()).toBe(0);
  },
  LIMIT_MS,
);

test(
  `killed ${ROUNDS} times at random while it restores, a machine ends with the tree that was backed up`,
  async () => {
    using folder = tempDir();
    let before: ReturnType<typeof describeVolume>;
    {
      await using machine = await MachineProcess.start({ folder: folder.path });
      await machine.untilReady();
      plantTree(join(machine.dataDir, "workspace/tree"));
      for (let n = 0; n < 3_000; n += 1) {
        writeFileSync(
          join(machine.dataDir, `workspace/tree/empty/${n}.txt`),
          `file ${n} ${"x".repeat(n)}`,
        );
      }
      for (let n = 0; n < 20; n += 1) {
        writeFileSync(
          join(machine.dataDir, `workspace/tree/large-${n}.bin`),
          Buffer.alloc(1_000_000, n),
        );
      }
      await machine.sync();
      expect(await machine.stop()).toBe(0);
      before = describeVolume(machine.dataDir);
      wipe(machine.dataDir);
    }
    let cut = 0;
    for (let round = 0; round < ROUNDS; round += 1) {
      await using machine = await MachineProcess.start({ folder: folder.path });
      await Bun.sleep(150 + Math.random() * 600);
      machine.signal("SIGKILL");
      await machine.exited;
      if (!existsSync(join(machine.dataDir, "workspace"))) cut += 1;
      else if (round < ROUNDS - 1) wipe(machine.dataDir);
    }
    // Otherwise nothing of a restore was ever cut off, and this test has shown nothing.
    expect(cut).toBeGreaterThan(0);
    await using machine = await MachineProcess.start({ folder: folder.path });
    await machine.untilReady(120_000);
    expect(describeVolume(machine.dataDir)).toEqual(before);
    expect(await machine.stop()).toBe(0);
    expect(
      readdirSync(join(machine.dataDir, ".sidecar")).filter((name) =>
        /^(?:restore|replaced)/.test(name),
      ),
    ).toEqual([]);
  },
  LIMIT_MS,
);

function withoutDatabase(tree: ReturnType<typeof describeVolume>): unknown {
  return Object.fromEntries(Object.entries(tree).filter(([path]) => !path.includes("busy.sqlite")));
}
