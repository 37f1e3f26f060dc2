import { expect, test } from "bun:test";
import {
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import { ConfigFile } from "../../src/gateway/config-file.ts";
import { mergeConfig, type JsonObject } from "../../src/gateway/config-merge.ts";
import { ManualClock } from "../support/manual-clock.ts";
import { tempDir } from "../support/temp-dir.ts";

const models = { kind: "unmanaged" } as const;

function volume(): Disposable & {
  readonly path: string;
  readonly file: string;
  readonly config: ConfigFile;
  readonly clock: ManualClock;
  read(): JsonObject;
  write(text: string): void;
  names(): string[];
} {
  const dir = tempDir();
  mkdirSync(join(dir.path, "openclaw"));
  mkdirSync(join(dir.path, ".sidecar"), { mode: 0o700 });
  const file = join(dir.path, "openclaw/openclaw.json");
  const clock = new ManualClock();
  const managed = managedFor(dir.path);
  return {
    path: dir.path,
    file,
    clock,
    config: new ConfigFile({ dataDir: dir.path, managed, clock }),
    read: () => JSON.parse(readFileSync(file, "utf8")) as JsonObject,
    write: (text) => writeFileSync(file, text),
    names: () => readdirSync(join(dir.path, "openclaw")).sort(),
    [Symbol.dispose]: () => dir[Symbol.dispose](),
  };
}

function managedFor(dataDir: string) {
  return { port: 1234, dataDir, publicOrigin: undefined, allowedOrigins: [], models };
}

test("a new volume gets a config, readable by its owner alone", async () => {
  using data = volume();
  expect(await data.config.prepare()).toBeUndefined();
  expect(data.read()).toEqual(mergeConfig({}, managedFor(data.path)));
  expect(statSync(data.file).mode & 0o777).toBe(0o600);
});

test("a config that says all it must is not written, comments and all", async () => {
  using data = volume();
  const text = `// mine\n${JSON.stringify(mergeConfig({ channels: {} }, managedFor(data.path)))}`;
  data.write(text);
  const { ino } = statSync(data.file);
  expect(await data.config.prepare()).toBeUndefined();
  expect(statSync(data.file).ino).toBe(ino);
  expect(readFileSync(data.file, "utf8")).toBe(text);
});

test("the user's keys survive a merge", async () => {
  using data = volume();
  data.write("{ channels: { telegram: { enabled: true } }, }");
  await data.config.prepare();
  expect(data.read()).toMatchObject({ channels: { telegram: { enabled: true } } });
  expect(data.read()).toHaveProperty("gateway.port", 1234);
});

test("a config that does not parse is put aside and the last good one used", async () => {
  using data = volume();
  data.write("{ channels: { telegram: { enabled: true } } }");
  await data.config.prepare();
  await data.config.remember();
  data.write('{ "channels": { "telegram"');
  const event = await data.config.prepare();
  expect(event).toEqual({
    type: "config_repaired",
    details: {
      reason: expect.stringContaining("no JSON5 at line 1"),
      keptAs: expect.stringMatching(/^openclaw\/openclaw\.json\.broken-2026-11-20T/),
      replacedBy: "last_good",
    },
  });
  expect(data.read()).toHaveProperty("channels.telegram.enabled", true);
  const kept = join(data.path, event?.details.keptAs ?? "");
  expect(readFileSync(kept, "utf8")).toBe('{ "channels": { "telegram"');
});

test("without a last good config the defaults stand in for one that does not parse", async () => {
  using data = volume();
  data.write("");
  expect(await data.config.prepare()).toMatchObject({ details: { replacedBy: "defaults" } });
  expect(data.read()).toHaveProperty("gateway.mode", "local");
});

test("a config that is gone comes back from the last good one", async () => {
  using data = volume();
  data.write("{ channels: { a: {} } }");
  await data.config.prepare();
  await data.config.remember();
  rmSync(data.file);
  const event = await data.config.prepare();
  expect(event?.details).toEqual({ reason: "there was no config", replacedBy: "last_good" });
  expect(data.read()).toHaveProperty("channels.a");
});

test("OpenClaw's own copy is used where it is newer than ours", async () => {
  using data = volume();
  await data.config.prepare();
  await data.config.remember();
  const theirs = join(data.path, "openclaw/openclaw.json.last-good");
  writeFileSync(theirs, '{ "gateway": {}, "channels": { "theirs": {} } }');
  const past = new Date(Date.now() - 3_600_000);
  utimesSync(theirs, past, past);
  data.write("{");
  await data.config.prepare();
  expect(data.read()).not.toHaveProperty("channels");
  const future = new Date(Date.now() + 3_600_000);
  utimesSync(theirs, future, future);
  data.write("{");
  await data.clock.advance(1_000);
  await data.config.prepare();
  expect(data.read()).toHaveProperty("channels.theirs");
});

test("a link in the config's place is never followed", async () => {
  using data = volume();
  using outside = tempDir();
  const secret = join(outside.path, "secret.json");
  writeFileSync(secret, '{ "channels": { "secret": {} } }');
  symlinkSync(secret, data.file);
  expect(await data.config.prepare()).toMatchObject({
    details: { reason: "it is no regular file" },
  });
  expect(data.read()).not.toHaveProperty("channels");
  expect(lstatSync(data.file).isFile()).toBe(true);
  expect(readFileSync(secret, "utf8")).toBe('{ "channels": { "secret": {} } }');
});

test("a link in the folder's place is refused", async () => {
  using data = volume();
  using outside = tempDir();
  rmSync(join(data.path, "openclaw"), { recursive: true });
  symlinkSync(outside.path, join(data.path, "openclaw"));
  await expect(data.config.prepare()).rejects.toThrow();
  expect(readdirSync(outside.path)).toEqual([]);
});

test("a config that OpenClaw refuses gives way to the last good one, once", async () => {
  using data = volume();
  data.write("{ channels: { good: {} } }");
  await data.config.prepare();
  await data.config.remember();
  data.write("{ frobnicate: 1, gateway: { mode: 'local' } }");
  expect(await data.config.prepare()).toBeUndefined();
  const event = await data.config.restoreLastGood();
  expect(event).toMatchObject({ type: "config_repaired", details: { replacedBy: "last_good" } });
  expect(data.read()).toHaveProperty("channels.good");
  expect(await data.config.restoreLastGood()).toBeUndefined();
});

test("a config that lost its gateway section counts as clobbered where there is a better one", async () => {
  using data = volume();
  data.write("{ channels: { good: {} } }");
  await data.config.prepare();
  await data.config.remember();
  data.write('{ "update": {} }');
  expect(await data.config.prepare()).toMatchObject({
    details: { reason: "it has lost its gateway.mode", replacedBy: "last_good" },
  });
  expect(data.read()).toHaveProperty("channels.good");
});

test("a refused config stays where there is no other", async () => {
  using data = volume();
  data.write("{ frobnicate: 1 }");
  await data.config.prepare();
  expect(await data.config.restoreLastGood()).toBeUndefined();
  expect(data.read()).toHaveProperty("frobnicate", 1);
});

test("only the last few broken configs are kept", async () => {
  using data = volume();
  for (let time = 0; time < 8; time += 1) {
    data.write(`{ broken ${time}`);
    await data.config.prepare();
    await data.clock.advance(1_000);
  }
  const broken = data.names().filter((name) => name.includes(".broken-"));
  expect(broken).toHaveLength(5);
  expect(readFileSync(join(data.path, "openclaw", broken[4] ?? ""), "utf8")).toBe("{ broken 7");
});
