import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { MachineProcess } from "../support/machine-process.ts";
import { OpenclawClient } from "../support/openclaw-client.ts";
import { installedOpenclaw } from "../support/openclaw.ts";
import { s3Behind } from "../support/s3-machine.ts";
import { S3_START_LIMIT_MS } from "../support/s3-server.ts";
import { tempDir } from "../support/temp-dir.ts";
import { describeVolume, plantTree, wipe } from "../support/volume.ts";

const SESSION = "agent:main:end-to-end";
const WORDS = "said before the volume was lost";

test(
  "with the real gateway, proxy and store, a lost volume comes back as it was, the gateway's sessions too",
  async () => {
    using folder = tempDir();
    const { proxy, env: storeEnv } = await s3Behind();
    await using _ = proxy;
    installedOpenclaw();
    const env = { ...storeEnv, GATEWAY_COMMAND: undefined };
    let before: ReturnType<typeof describeVolume>;
    {
      await using machine = await MachineProcess.start({ folder: folder.path, env });
      await machine.untilReady(180_000);
      {
        const { client, hello } = await OpenclawClient.connect(
          `ws://127.0.0.1:${machine.ports.public}/`,
          machine.token,
        );
        using connected = client;
        expect(hello["type"]).toBe("hello-ok");
        await connected.call("sessions.create", { key: SESSION, label: "End to end" });
        await connected.call("chat.inject", { sessionKey: SESSION, message: WORDS });
      }
      plantTree(join(machine.dataDir, "workspace/tree"));
      for (const write of [
        () => writeFileSync(join(machine.dataDir, "workspace/by-hand.md"), "by hand"),
        () =>
          machine.fetchPublic("/files/upload?path=/data/workspace/up.bin", {
            method: "POST",
            body: "uploaded",
          }),
      ]) {
        const { backup } = await machine.report();
        const started = performance.now();
        await write();
        await machine.untilReport(
          (report) => report.backup.position > backup.position,
          "a new commit",
          10_000,
        );
        expect(performance.now() - started).toBeLessThan(4_000);
      }
      const asked = performance.now();
      expect(await machine.stop()).toBe(0);
      expect(performance.now() - asked).toBeLessThan(117_000);
      expect(machine.lines.filter((line) => "raw" in line)).toEqual([]);
      expect(JSON.stringify(machine.lines)).not.toContain(machine.token);
      before = describeVolume(machine.dataDir);
      expect(databasesOf(machine.dataDir).length).toBeGreaterThan(1);
      wipe(machine.dataDir);
    }
    {
      // First with a gateway that touches nothing, to compare what came back.
      await using machine = await MachineProcess.start({ folder: folder.path, env: storeEnv });
      await machine.untilReady(120_000);
      const after = describeVolume(machine.dataDir);
      expect(comparable(after)).toEqual(comparable(before));
      const databases = databasesOf(machine.dataDir);
      expect(databases.length).toBeGreaterThan(1);
      for (const path of databases) {
        using database = new Database(path, { readonly: true });
        expect([path, database.query("PRAGMA integrity_check").values()]).toEqual([path, [["ok"]]]);
      }
      expect(await machine.stop()).toBe(0);
    }
    await using machine = await MachineProcess.start({ folder: folder.path, env });
    await machine.untilReady(180_000);
    const { client } = await OpenclawClient.connect(
      `ws://127.0.0.1:${machine.ports.public}/`,
      machine.token,
    );
    using connected = client;
    expect(JSON.stringify(await connected.call("chat.history", { sessionKey: SESSION }))).toContain(
      WORDS,
    );
    expect(await machine.stop()).toBe(0);
  },
  S3_START_LIMIT_MS + 600_000,
);

/** Without what is not brought back: caches of the gateway, locks, and what SQLite keeps beside its databases. */
function comparable(tree: ReturnType<typeof describeVolume>): unknown {
  const left = Object.entries(tree).filter(
    ([path]) =>
      !/^openclaw\/(?:cache|tmp|plugin-skills|npm|tools|logs)(?:\/|$)/.test(path) &&
      !/lock\.sqlite|generation-writer\.sqlite|\.memory-reindex-/.test(path) &&
      !/(?:^|\/)(?:node_modules|\.cache|\.npm)(?:\/|$)/.test(path) &&
      !/-(?:wal|shm|journal)$/.test(path),
  );
  return Object.fromEntries(
    left.map(([path, { mtimeNs: _, sha256, ...entry }]) => {
      // A database comes back as its content in one state, not as its bytes; a folder of them gains no time of its own.
      if (path.endsWith(".sqlite")) return [path, entry];
      return [path, entry.type === "file" ? { ...entry, sha256, mtimeNs: _ } : entry];
    }),
  );
}

function databasesOf(dataDir: string): string[] {
  return readdirSync(join(dataDir, "openclaw"), { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".sqlite") && !/lock|generation-writer/.test(path))
    .map((path) => join(dataDir, "openclaw", path))
    .filter((path) => statSync(path).isFile());
}
