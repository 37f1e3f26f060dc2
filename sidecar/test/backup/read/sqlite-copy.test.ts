import { Database } from "bun:sqlite";
import { expect, setDefaultTimeout, test } from "bun:test";
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import { dispose } from "../../../src/backup/commit/batch.ts";
import { COPIES_FOLDER } from "../../../src/backup/notice/ignore.ts";
import { CopyFolder, cleanCopies } from "../../../src/backup/read/copy-folder.ts";
import { readPath } from "../../../src/backup/read/reader.ts";
import { Root } from "../../../src/volume/root.ts";
import {
  FILL,
  copyOf,
  databaseVolume,
  opened,
  otherProcess,
  rowsOf,
} from "../../support/databases.ts";
import { tempDir } from "../../support/temp-dir.ts";
import { until } from "../../support/until.ts";

// Nearly all of these start processes, on machines that may be busy.
setDefaultTimeout(60_000);

test.each(["delete", "truncate", "persist", "wal"])(
  "readPath reads a database at rest in journal mode %s, and leaves nothing beside it",
  async (mode) => {
    using data = databaseVolume();
    const path = join(data.path, "x.db");
    {
      await using _ = await otherProcess(
        path,
        `db.run("PRAGMA journal_mode = ${mode}"); ${FILL} db.close()`,
      );
    }
    const before = readdirSync(data.path);
    using copy = await opened(await readPath("x.db", data.context), data.path);
    expect(rowsOf(copy)).toBe(500);
    const after = readdirSync(data.path).filter((name) => name.startsWith("x.db"));
    expect(after.sort()).toEqual(before.filter((name) => name.startsWith("x.db")).sort());
    expect(data.rests.get("x.db")).toBeGreaterThan(0);
  },
);

test("readPath reads what only the log holds, and leaves the log alone", async () => {
  using data = databaseVolume();
  const path = join(data.path, "agent.sqlite");
  await using _ = await otherProcess(
    path,
    `db.run("PRAGMA journal_mode = WAL"); db.run("PRAGMA wal_autocheckpoint = 0"); ${FILL}`,
  );
  expect(lstatSync(path).size).toBeLessThanOrEqual(4096);
  const log = () => lstatSync(`${path}-wal`, { bigint: true });
  const before = log();
  const reading = await readPath("agent.sqlite", data.context);
  using copy = await opened(reading, data.path);
  expect(rowsOf(copy)).toBe(500);
  expect([log().ino, log().size, log().mtimeNs]).toEqual([before.ino, before.size, before.mtimeNs]);
  expect(await readPath("agent.sqlite-wal", data.context)).toMatchObject({ kind: "gone" });
  expect(await readPath("agent.sqlite-shm", data.context)).toMatchObject({ kind: "gone" });
});

test("readPath reads a database whose writer was killed, without writing its log back", async () => {
  using data = databaseVolume();
  const path = join(data.path, "x.db");
  {
    await using _ = await otherProcess(path, `db.run("PRAGMA journal_mode = WAL"); ${FILL}`);
  }
  const before = readFileSync(`${path}-wal`);
  using copy = await opened(await readPath("x.db", data.context), data.path);
  expect(rowsOf(copy)).toBe(500);
  expect(readFileSync(`${path}-wal`).equals(before)).toBe(true);
});

test("readPath says same for a database that was not written", async () => {
  using data = databaseVolume();
  const path = join(data.path, "x.db");
  await using _ = await otherProcess(path, `db.run("PRAGMA journal_mode = WAL"); ${FILL}`);
  const first = await readPath("x.db", data.context);
  await copyOf(first);
  if (first.kind !== "changed") throw new Error(first.kind);
  data.index.restamp([{ ...first.item, racy: false }]);
  expect(await readPath("x.db", data.context)).toMatchObject({ kind: "same" });
});

test("readPath keeps pages in their places: few of them change with a few rows", async () => {
  using data = databaseVolume();
  const path = join(data.path, "x.db");
  using db = new Database(path, { create: true });
  db.run("PRAGMA journal_mode = WAL");
  db.run("CREATE TABLE t (id INTEGER PRIMARY KEY, x)");
  const insert = (n: number) =>
    db.transaction(() => {
      for (let i = 0; i < n; i += 1) db.run("INSERT INTO t (x) VALUES (?)", ["z".repeat(1_000)]);
    })();
  insert(5_000);
  const before = await copyOf(await readPath("x.db", data.context));
  insert(20);
  const after = await copyOf(await readPath("x.db", data.context));
  let differ = 0;
  for (let at = 0; at < after.length; at += 4_096) {
    if (!after.subarray(at, at + 4_096).equals(before.subarray(at, at + 4_096))) differ += 1;
  }
  expect(after.length / 4_096).toBeGreaterThan(1_000);
  expect(differ).toBeLessThan(30);
});

test.each([
  ["wal", "NORMAL"],
  ["delete", "OFF"],
  ["truncate", "OFF"],
])(
  "readPath copies a database under a live writer in journal mode %s, with every row committed before",
  async (mode, sync) => {
    using data = databaseVolume();
    const path = join(data.path, "live.db");
    await using writer = await otherProcess(
      path,
      `db.run("PRAGMA busy_timeout = 10000"); db.run("PRAGMA journal_mode = ${mode}"); db.run("PRAGMA synchronous = ${sync}"); ${FILL}
     db.run("CREATE TABLE u (n INTEGER PRIMARY KEY, x)");`,
      `const start = Date.now(); let n = 0;
     const tick = () => {
       for (let i = 0; i < 4; i += 1) {
         n += 1;
         db.transaction(() => { db.run("INSERT INTO u VALUES (?, ?)", [n, "w".repeat(200)]); db.run("UPDATE t SET x = ? WHERE id = ?", ["n" + n, (n * 7) % 500 + 1]); })();
       }
       fs.writeFileSync(path + ".rows", String(n));
       if (Date.now() - start < 20_000) setTimeout(tick, 5);
     };
     tick();`,
    );
    void writer;
    const written = () =>
      existsSync(`${path}.rows`) ? Number(readFileSync(`${path}.rows`, "utf8")) : 0;
    await until(() => written() > 10, "the writer to write");
    const start = performance.now();
    const first = written();
    let copies = 0;
    while (performance.now() - start < 3_000) {
      const before = written();
      using copy = await opened(await readPath("live.db", data.context), data.path);
      expect(rowsOf(copy, "u")).toBeGreaterThanOrEqual(before);
      const { highest } = copy
        .query<{ highest: number }, []>("SELECT max(n) AS highest FROM u")
        .get() ?? { highest: -1 };
      // The row and the update of one transaction are both there.
      const { x } = copy
        .query<{ x: string }, [number]>("SELECT x FROM t WHERE id = ?")
        .get(((highest * 7) % 500) + 1) ?? { x: "" };
      expect(x).toBe(`n${highest}`);
      copies += 1;
    }
    const perSecond = (written() - first) / ((performance.now() - start) / 1_000);
    expect(copies).toBeGreaterThan(3);
    expect(perSecond).toBeGreaterThan(50);
  },
);

test("readPath copies a large database page by page under a live writer", async () => {
  using data = databaseVolume();
  const path = join(data.path, "large.db");
  await using writer = await otherProcess(
    path,
    `db.run("PRAGMA journal_mode = WAL"); db.run("PRAGMA synchronous = OFF");
     db.run("CREATE TABLE t (id INTEGER PRIMARY KEY, x)");
     for (let j = 0; j < 75; j += 1) db.transaction(() => { for (let i = 0; i < 1000; i += 1) db.run("INSERT INTO t (x) VALUES (?)", ["y".repeat(1000)]); })();`,
    `const start = Date.now(); const tick = () => { db.run("INSERT INTO t (x) VALUES ('late')"); if (Date.now() - start < 30_000) setTimeout(tick, 3); }; tick();`,
  );
  void writer;
  using copy = await opened(await readPath("large.db", data.context), data.path);
  expect(rowsOf(copy)).toBeGreaterThanOrEqual(75_000);
  expect(readdirSync(join(data.path, COPIES_FOLDER))).toEqual([]);
});

test("readPath puts a hot journal back in a copy, never in the database", async () => {
  using data = databaseVolume();
  const path = join(data.path, "x.db");
  {
    await using _ = await otherProcess(
      path,
      `${FILL} db.run("PRAGMA cache_size = 5"); db.run("BEGIN"); db.run("UPDATE t SET x = 'half done' || randomblob(200)"); `,
    );
  }
  const before = [readFileSync(path), readFileSync(`${path}-journal`)];
  expect(before[1]?.length).toBeGreaterThan(0);
  using copy = await opened(await readPath("x.db", data.context), data.path);
  expect(copy.query("SELECT count(*) FROM t WHERE x LIKE 'half%'").values()).toEqual([[0]]);
  expect(rowsOf(copy)).toBe(500);
  expect(readFileSync(path).equals(before[0] ?? Buffer.alloc(0))).toBe(true);
  expect(readFileSync(`${path}-journal`).equals(before[1] ?? Buffer.alloc(0))).toBe(true);
});

test.each(["delete", "wal"])(
  "readPath reads a database that is locked for good in journal mode %s",
  async (mode) => {
    using data = databaseVolume();
    await using _ = await otherProcess(
      join(data.path, "x.db"),
      `db.run("PRAGMA locking_mode = EXCLUSIVE"); db.run("PRAGMA journal_mode = ${mode}"); ${FILL}`,
    );
    using copy = await opened(await readPath("x.db", data.context), data.path);
    expect(rowsOf(copy)).toBe(500);
  },
);

test("readPath skips a database that is locked and written all the time", async () => {
  using data = databaseVolume();
  const path = join(data.path, "x.db");
  await using _ = await otherProcess(
    path,
    `db.run("PRAGMA locking_mode = EXCLUSIVE"); db.run("PRAGMA journal_mode = WAL"); db.run("PRAGMA synchronous = OFF"); ${FILL}
     db.run("INSERT INTO t (x) VALUES (zeroblob(20000000))");`,
    `const start = Date.now(); while (Date.now() - start < 20_000) db.run("UPDATE t SET x = x || 'a' WHERE id = 1");`,
  );
  const reading = await readPath("x.db", data.context);
  expect(reading).toMatchObject({ kind: "skipped", path: "x.db", reason: "busy_database" });
  // Should it be the check that made it too slow, the next time goes without.
  expect(data.context.isCheckDue("x.db")).toBe(false);
});

test("readPath keeps the last good copy of a damaged database", async () => {
  using data = databaseVolume();
  const path = join(data.path, "x.db");
  {
    await using _ = await otherProcess(
      path,
      `${FILL} db.run("CREATE INDEX i ON t (x)"); db.close()`,
    );
  }
  const good = await readPath("x.db", data.context);
  if (good.kind !== "changed") throw new Error(good.kind);
  const bytes = await copyOf(good);
  data.index.restamp([good.item]);
  bytes.fill(0xaa, 8_192, 20_480);
  writeFileSync(path, bytes);
  data.context.checkAll();
  expect(await readPath("x.db", data.context)).toMatchObject({
    kind: "skipped",
    reason: "corrupt_database",
  });
  // Where there is no good one, what is there is better than nothing.
  copyFileSync(path, join(data.path, "y.db"));
  const only = await readPath("y.db", data.context);
  if (only.kind !== "changed" || only.item.entry.type !== "file") throw new Error(only.kind);
  expect(only.item.entry.sqlite).toBeUndefined();
  expect((await copyOf(only)).equals(bytes)).toBe(true);
});

test.each([
  ["small", 1_000, "each time"],
  ["large", 17_000_000, "once an hour"],
])("readPath checks a %s database of %d bytes %s", async (_, bytes, when) => {
  using data = databaseVolume();
  const path = join(data.path, "x.db");
  using db = new Database(path, { create: true });
  db.run("CREATE TABLE t (a)");
  db.run("INSERT INTO t VALUES (zeroblob(?))", [bytes]);
  expect(data.context.isCheckDue("x.db")).toBe(true);
  dispose([await readPath("x.db", data.context)]);
  expect(data.context.isCheckDue("x.db")).toBe(when === "each time");
  data.context.checkAll();
  expect(data.context.isCheckDue("x.db")).toBe(true);
});

test("readPath reads what only starts like a database as a file, and its neighbours too", async () => {
  using data = databaseVolume();
  const noise = Buffer.alloc(10_000, "encrypted ");
  const bytes = Buffer.concat([Buffer.from("SQLite format 3\0"), noise]);
  writeFileSync(join(data.path, "x.db"), bytes);
  writeFileSync(join(data.path, "x.db-wal"), "not one either");
  const reading = await readPath("x.db", data.context);
  expect((await copyOf(reading)).equals(bytes)).toBe(true);
  if (reading.kind !== "changed" || reading.item.entry.type !== "file") throw new Error("kind");
  expect(reading.item.entry.sqlite).toBeUndefined();
  data.index.restamp([reading.item]);
  expect(await readPath("x.db-wal", data.context)).toMatchObject({ kind: "changed" });
});

test("readPath reads many databases with few processes", async () => {
  using data = databaseVolume();
  const names = Array.from({ length: 20 }, (_, i) => `x ?#%é${i}.db`);
  for (const name of names) {
    using db = new Database(join(data.path, name), { create: true });
    db.run("CREATE TABLE t (a)");
    db.run("INSERT INTO t VALUES (1)");
  }
  const readings = await Promise.all(names.map((name) => readPath(name, data.context)));
  for (const reading of readings) {
    using copy = await opened(reading, data.path);
    expect(rowsOf(copy)).toBe(1);
  }
});

test("readPath takes no database from outside, whatever is swapped meanwhile", async () => {
  using data = databaseVolume();
  using outside = tempDir();
  for (const dir of [join(outside.path, "d"), join(data.path, "d")]) {
    mkdirSync(dir);
    using db = new Database(join(dir, "x.db"), { create: true });
    db.run("PRAGMA journal_mode = WAL");
    db.run("CREATE TABLE t (a)");
    db.run("INSERT INTO t VALUES (?)", [dir.startsWith(outside.path) ? "SECRET" : "inside"]);
  }
  const swapper = Bun.spawn(
    [
      process.execPath,
      "-e",
      `const fs = require("node:fs"); const root = ${JSON.stringify(data.path)}, out = ${JSON.stringify(outside.path)};
     const end = Date.now() + 20_000; process.stdout.write("ready");
     while (Date.now() < end) {
       try { fs.renameSync(root + "/d", root + "/kept"); fs.symlinkSync(out + "/d", root + "/d"); } catch {}
       for (let t = performance.now(); performance.now() - t < 1.7;);
       try { fs.unlinkSync(root + "/d"); } catch {}
       try { fs.renameSync(root + "/kept", root + "/d"); } catch {}
       for (let t = performance.now(); performance.now() - t < 2.3;);
     }`,
    ],
    { stdout: "pipe" },
  );
  try {
    await swapper.stdout.getReader().read();
    const end = performance.now() + 3_000;
    let copies = 0;
    while (performance.now() < end) {
      for (const path of ["d/x.db", "kept/x.db"]) {
        const reading = await readPath(path, data.context);
        if (reading.kind !== "changed" || !reading.content) continue;
        const bytes = await copyOf(reading);
        expect(bytes.includes("SECRET")).toBe(false);
        copies += 1;
      }
    }
    expect(copies).toBeGreaterThan(0);
  } finally {
    swapper.kill("SIGKILL");
    await swapper.exited;
  }
});

test.skipIf(process.getuid?.() !== 0)("readPath opens databases as the agent's user", async () => {
  const nobody = { uid: 65_534, gid: 65_534 };
  using data = databaseVolume({ agent: nobody });
  chmodSync(data.path, 0o755);
  mkdirSync(join(data.path, "d"));
  Bun.spawnSync(["chown", "65534:65534", join(data.path, "d")]);
  const path = join(data.path, "d", "x.db");
  {
    await using _ = await otherProcess(path, `db.run("PRAGMA journal_mode = WAL"); ${FILL}`);
  }
  rmSync(`${path}-shm`);
  Bun.spawnSync(["chown", "65534:65534", path, `${path}-wal`]);
  using copy = await opened(await readPath("d/x.db", data.context), data.path);
  expect(rowsOf(copy)).toBe(500);
  for (const name of readdirSync(join(data.path, "d"))) {
    expect(lstatSync(join(data.path, "d", name)).uid).toBe(65_534);
  }
  // One that is not the agent's is read by way of a copy that is.
  renameSync(path, join(data.path, "root.db"));
  renameSync(`${path}-wal`, join(data.path, "root.db-wal"));
  for (const name of ["root.db", "root.db-wal"]) {
    Bun.spawnSync(["chown", "0:0", join(data.path, name)]);
    chmodSync(join(data.path, name), 0o600);
  }
  using second = await opened(await readPath("root.db", data.context), data.path);
  expect(rowsOf(second)).toBe(500);
});

test("the process that reads databases sees none of our environment", async () => {
  using data = databaseVolume();
  const path = join(data.path, "x.db");
  await using _ = await otherProcess(
    path,
    `db.run("PRAGMA locking_mode = EXCLUSIVE"); db.run("PRAGMA journal_mode = WAL"); ${FILL}`,
  );
  process.env["SIDECAR_TEST_SECRET"] = "SECRET";
  const reading = readPath("x.db", data.context);
  let environment = "";
  await until(() => {
    for (const pid of childrenOf(process.pid)) {
      const command = readFileSync(`/proc/${pid}/cmdline`, "utf8");
      if (command.includes("sqlite-child")) {
        environment = `env:${readFileSync(`/proc/${pid}/environ`, "utf8")}`;
      }
    }
    return environment !== "";
  }, "the process to run");
  delete process.env["SIDECAR_TEST_SECRET"];
  expect(environment).not.toContain("SECRET");
  data.context[Symbol.dispose]();
  expect(await reading).toMatchObject({ kind: "skipped", reason: "busy_database" });
});

test("readPath reads a database on a volume that is full", () => {
  using dir = tempDir();
  const modules = join(import.meta.dir, "../../../src");
  const script = `
    import { Database } from "bun:sqlite"; import { writeFileSync } from "node:fs";
    const load = (name) => import(${JSON.stringify(modules)} + "/" + name);
    const { ReadContext } = await load("backup/read/read-context.ts"), { readPath } = await load("backup/read/reader.ts");
    const { Index } = await load("backup/index.ts"), { Root } = await load("volume/root.ts");
    const { createIgnore } = await load("backup/notice/ignore.ts"), { systemClock: clock } = await load("platform/clock.ts");
    const path = ${JSON.stringify(dir.path)};
    const db = new Database(path + "/x.db", { create: true });
    db.run("CREATE TABLE t (x)"); db.run("INSERT INTO t VALUES (zeroblob(500000))");
    try { writeFileSync(path + "/fill", Buffer.alloc(3_000_000)); } catch {}
    const context = new ReadContext({ root: new Root(path), index: new Index(":memory:"), ignore: createIgnore(), clock });
    const { kind, message, item } = await readPath("x.db", context);
    console.log(kind, message ?? item.entry.sqlite);`;
  const mounted = `mount -t tmpfs -o size=2m none "${dir.path}" && exec "$0" -e "$1"`;
  const child = Bun.spawnSync(["unshare", "-Urm", "sh", "-c", mounted, process.execPath, script]);
  // Where a user may make no namespace of its own, there is no small volume to fill.
  if (/unshare|mount/.test(child.stderr.toString())) return;
  expect(child.stdout.toString() + child.stderr.toString()).toBe("changed true\n");
});

test("cleanCopies removes what a killed process left, and follows no link", async () => {
  using data = databaseVolume();
  using outside = tempDir();
  writeFileSync(join(outside.path, "keep"), "x");
  using root = new Root(data.path);
  await cleanCopies(root);
  mkdirSync(join(data.path, COPIES_FOLDER, "left/deep"), { recursive: true });
  appendFileSync(join(data.path, COPIES_FOLDER, "left/deep/copy.sqlite"), "x");
  symlinkSync(outside.path, join(data.path, COPIES_FOLDER, "left/link"));
  await cleanCopies(root);
  expect(readdirSync(join(data.path, COPIES_FOLDER))).toEqual([]);
  expect(existsSync(join(outside.path, "keep"))).toBe(true);
  {
    using folder = new CopyFolder(root, undefined);
    expect(lstatSync(folder.path).mode & 0o777).toBe(0o700);
  }
  expect(readdirSync(join(data.path, COPIES_FOLDER))).toEqual([]);
});

function childrenOf(pid: number): string[] {
  const threads = readdirSync(`/proc/${pid}/task`);
  return threads.flatMap((thread) =>
    readFileSync(`/proc/${pid}/task/${thread}/children`, "utf8").split(" ").filter(Boolean),
  );
}

test("reading a database that was left with its log does not make it look changed", async () => {
  using data = databaseVolume();
  const live = join(data.path, "live.db");
  const writer = new Database(live, { create: true });
  writer.run("PRAGMA journal_mode = WAL");
  writer.run("CREATE TABLE t (n)");
  writer.run("INSERT INTO t VALUES (1)");
  // As after a kill: nobody has it open, and the rows are in the log.
  for (const end of ["", "-wal", "-shm"])
    copyFileSync(live + end, join(data.path, `left.db${end}`));
  writer.close();
  const first = await readPath("left.db", data.context);
  expect(first).toMatchObject({ kind: "changed", again: false });
  if (first.kind !== "changed") return;
  data.index.restamp([{ ...first.item, racy: false }]);
  // The stamps of before still hold: it need not even be opened.
  data.rests.clear();
  expect(await readPath("left.db", data.context)).toMatchObject({ kind: "same" });
  expect(data.rests.size).toBe(0);
});
