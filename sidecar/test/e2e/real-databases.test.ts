import { Database } from "bun:sqlite";
import { expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";

import { DirectoryStore } from "../../src/store/directory.ts";
import { bring, filesAt } from "../support/live-backup.ts";
import { MachineProcess } from "../support/machine-process.ts";
import { OpenclawClient } from "../support/openclaw-client.ts";
import { installedOpenclaw } from "../support/openclaw.ts";
import { tempDir } from "../support/temp-dir.ts";

const SESSION = "agent:main:busy";
const TALK_MS = 8_000;

test("while the real gateway writes, every position has its databases whole, and what was said before it", async () => {
  using folder = tempDir();
  installedOpenclaw();
  const said: { readonly word: string; readonly position: number }[] = [];
  await using machine = await MachineProcess.start({
    folder: folder.path,
    env: { GATEWAY_COMMAND: undefined },
  });
  await machine.untilReady(180_000);
  const { client } = await OpenclawClient.connect(
    `ws://127.0.0.1:${machine.ports.public}/`,
    machine.token,
  );
  {
    using connected = client;
    await connected.call("sessions.create", { key: SESSION, label: "Busy" });
    const start = performance.now();
    for (let n = 0; performance.now() - start < TALK_MS; n += 1) {
      const message = `word-${n}-${"said ".repeat(200)}`;
      await connected.call("chat.inject", { sessionKey: SESSION, message });
      if (n % 40 === 0)
        said.push({ word: `word-${n}-`, position: (await machine.sync()).position });
    }
  }
  expect(await machine.stop()).toBe(0);

  const store = new DirectoryStore(join(folder.path, "store/users/user-1/backup"));
  using scratch = tempDir();
  const checked = new Set<string>();
  const last = said.at(-1)?.position ?? 0;
  for (let position = 1; position <= last; position += 1) {
    const files = await filesAt(store, position);
    expect(files.filter(({ path }) => /-(?:wal|shm|journal)$/.test(path))).toEqual([]);
    for (const entry of files) {
      if (entry.sqlite !== true || checked.has(entry.sha256)) continue;
      checked.add(entry.sha256);
      const path = await bring(store, entry, scratch.path);
      using database = new Database(path, { readonly: true });
      const damage = database.query("PRAGMA integrity_check").values();
      expect([position, entry.path, damage]).toEqual([position, entry.path, [["ok"]]]);
      rmSync(path);
    }
  }
  for (const { word, position } of said) {
    const files = await filesAt(store, position);
    const entry = files.find(({ path }) =>
      path.endsWith("agents/main/agent/openclaw-agent.sqlite"),
    );
    if (!entry) throw new Error(`position ${position} has no sessions`);
    const path = await bring(store, entry, scratch.path);
    using database = new Database(path, { readonly: true });
    expect([word, database.serialize().includes(word)]).toEqual([word, true]);
  }
  console.log(
    `${last} positions, ${checked.size} copies of the gateway's databases, all of them whole`,
  );
}, 400_000);
