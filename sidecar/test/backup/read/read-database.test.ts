import { expect, setDefaultTimeout, test } from "bun:test";
import {
  closeSync,
  existsSync,
  ftruncateSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";

import { dispose } from "../../../src/backup/commit/batch.ts";
import { readPath } from "../../../src/backup/read/reader.ts";
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

test.each([
  ["delete", 512],
  ["wal", 512],
  ["delete", 65_536],
  ["wal", 65_536],
])("a database in mode %s with pages of %d bytes is copied whole", async (mode, pageSize) => {
  using data = databaseVolume();
  await using _ = await otherProcess(
    join(data.path, "x.db"),
    `db.run("PRAGMA page_size = ${pageSize}"); db.run("PRAGMA journal_mode = ${mode}"); ${FILL}`,
  );
  using copy = await opened(await readPath("x.db", data.context), data.path);
  expect(rowsOf(copy)).toBe(500);
  expect(copy.query("PRAGMA page_size").values()).toEqual([[pageSize]]);
});

test.each([
  ["a rule of its own that a row breaks", `"abs(a) > 5"`, ""],
  ["a function that only its owner has", `"abs(a) > 0"`, `["abs(a)", "own(a)"]`],
  ["a collation that only its owner has", `"a = 'x' COLLATE nocase"`, `["nocase", "ownone"]`],
])("a database with %s is backed up", async (_, rule, swap) => {
  using data = databaseVolume();
  const path = join(data.path, "x.db");
  {
    await using _ = await otherProcess(
      path,
      `db.run("CREATE TABLE t (a CHECK (" + ${rule} + "))"); db.run("PRAGMA ignore_check_constraints = ON");
       db.run("INSERT INTO t VALUES (1)"); db.close();`,
    );
  }
  if (swap !== "") {
    const [from = "", to = ""] = JSON.parse(swap) as string[];
    const bytes = readFileSync(path);
    bytes.write(to, bytes.indexOf(from), "latin1");
    writeFileSync(path, bytes);
  }
  const reading = await readPath("x.db", data.context);
  expect(reading).toMatchObject({ kind: "changed", item: { entry: { sqlite: true } } });
  expect((await copyOf(reading)).equals(readFileSync(path))).toBe(true);
});

test("a database that is damaged for a while keeps its last good copy, and is a database again after", async () => {
  using data = databaseVolume();
  const path = join(data.path, "x.db");
  {
    await using _ = await otherProcess(path, `${FILL} db.run("CREATE INDEX i ON t (x)")`);
  }
  const good = readFileSync(path);
  const overwrite = (at: number, length: number): void => {
    const fd = openSync(path, "r+");
    writeSync(fd, Buffer.alloc(length, 0xaa), 0, length, at);
    closeSync(fd);
  };
  const read = async () => {
    data.context.checkAll();
    const reading = await readPath("x.db", data.context);
    dispose([reading]);
    if (reading.kind === "changed" || reading.kind === "same") data.index.restamp([reading.item]);
    return reading;
  };
  const asPlain = { kind: "changed", item: { entry: { sha256: expect.any(String) } } };
  const asDatabase = { kind: "changed", item: { entry: { sqlite: true } } };

  // At first there is nothing better than its bytes.
  overwrite(8_192, 12_288);
  const first = await read();
  expect(first).toMatchObject(asPlain);
  expect(first).not.toMatchObject(asDatabase);
  writeFileSync(path, good);
  expect(await read()).toMatchObject(asDatabase);
  // Then there is: for pages, for its own header, and for what was cut off.
  const damages: readonly (() => void)[] = [
    () => overwrite(8_192, 12_288),
    () => overwrite(16, 8),
    () => {
      const fd = openSync(path, "r+");
      ftruncateSync(fd, 30_000);
      closeSync(fd);
    },
  ];
  for (const damage of damages) {
    damage();
    expect(await read()).toMatchObject({ kind: "skipped", reason: "corrupt_database" });
    expect(await read()).toMatchObject({ kind: "skipped", reason: "corrupt_database" });
    writeFileSync(path, good);
    const back = await read();
    expect(["same", "changed"]).toContain(back.kind);
    if (back.kind === "same" || back.kind === "changed")
      expect(back.item.entry).toMatchObject({ sqlite: true });
  }
  // What no longer says that it is a database is a file.
  writeFileSync(path, "notes");
  expect(await read()).toMatchObject(asPlain);
});

test.each([
  ["a FIFO for a log", (path: string) => Bun.spawnSync(["mkfifo", `${path}-wal`])],
  ["a FIFO for a journal", (path: string) => Bun.spawnSync(["mkfifo", `${path}-journal`])],
  [
    "a link for a log",
    (path: string, secret: string) => symlinkSync(`${secret}-wal`, `${path}-wal`),
  ],
  [
    "a link for a journal",
    (path: string, secret: string) => symlinkSync(`${secret}-wal`, `${path}-journal`),
  ],
  ["a link to nowhere for a log", (path: string) => symlinkSync("nowhere", `${path}-wal`)],
])("%s beside a database holds up nobody, and nothing from outside comes in", async (_, plant) => {
  using data = databaseVolume();
  using outside = tempDir();
  const secret = join(outside.path, "secret.db");
  await using other = await otherProcess(
    secret,
    `db.run("PRAGMA journal_mode = WAL"); db.run("CREATE TABLE t (x)"); db.run("INSERT INTO t VALUES ('SECRET')")`,
  );
  void other;
  const path = join(data.path, "x.db");
  {
    await using _ = await otherProcess(
      path,
      `db.run("PRAGMA journal_mode = WAL"); ${FILL} db.close()`,
    );
    for (const end of ["-wal", "-shm"]) rmSync(path + end, { force: true });
  }
  plant(path, secret);
  const reading = await readPath("x.db", data.context);
  using copy = await opened(reading, data.path);
  expect(rowsOf(copy)).toBe(500);
  expect(copy.serialize().includes("SECRET")).toBe(false);
  expect(existsSync(join(outside.path, "nowhere"))).toBe(false);
});

test("a database that is replaced by others all the time is copied as one of them", async () => {
  using data = databaseVolume();
  const path = join(data.path, "x.db");
  // One page more or less shows in the content, and so does a mixture of them.
  await using _ = await otherProcess(
    path,
    `${FILL} db.run("CREATE TABLE which (n)"); db.run("INSERT INTO which VALUES (0)"); db.close();
     const make = (n) => { fs.copyFileSync(path, path + n); const one = new Database(path + n);
       one.run("UPDATE which SET n = " + n); one.run("UPDATE t SET x = x || " + n); one.close(); };
     make(1); make(2);`,
    `let n = 0; const start = Date.now();
     const turn = () => { n += 1; fs.copyFileSync(path + (1 + n % 2), path + ".new"); fs.renameSync(path + ".new", path);
       if (Date.now() - start < 25_000) setTimeout(turn, 40); }; turn();`,
  );
  let copies = 0;
  const read = async (): Promise<boolean> => {
    const reading = await readPath("x.db", data.context);
    if (reading.kind === "skipped") expect(reading.reason).toBe("busy_database");
    if (reading.kind !== "changed") return false;
    using copy = await opened(reading, data.path);
    const n = copy.query<{ n: number }, []>("SELECT n FROM which").get()?.n;
    const same = copy.query("SELECT count(*) FROM t WHERE x LIKE '%' || ?").values(n ?? "none");
    if (n !== 0) expect(same).toEqual([[500]]);
    copies += 1;
    return copies > 5;
  };
  await until(read, "copies of either", 30_000);
});

test.each(["delete", "wal"])(
  "databases in mode %s that are written together are each copied whole",
  async (mode) => {
    using data = databaseVolume();
    const [one, two] = [join(data.path, "one.db"), join(data.path, "two.db")];
    await using _ = await otherProcess(
      one,
      `db.run("ATTACH " + JSON.stringify(${JSON.stringify(two)}).replaceAll('"', "'") + " AS two");
       db.run("PRAGMA busy_timeout = 5000");
       for (const name of ["main", "two"]) { db.run("PRAGMA " + name + ".journal_mode = ${mode}"); db.run("PRAGMA " + name + ".synchronous = OFF"); db.run("CREATE TABLE " + name + ".t (id INTEGER PRIMARY KEY, x)"); }`,
      `const start = Date.now(); const tick = () => {
         db.transaction(() => { for (const name of ["main", "two"]) db.run("INSERT INTO " + name + ".t (x) VALUES (?)", ["z".repeat(500)]); })();
         if (Date.now() - start < 20_000) setTimeout(tick, 4); }; tick();`,
    );
    let rows = 0;
    await until(
      async () => {
        for (const name of ["one.db", "two.db"]) {
          const reading = await readPath(name, data.context);
          if (reading.kind !== "changed") return false;
          using copy = await opened(reading, data.path);
          const [count, highest] = copy.query("SELECT count(*), max(id) FROM t").values()[0] ?? [];
          if (Number(count) > 0) expect(highest).toBe(count);
          rows = Number(count);
        }
        return rows > 100;
      },
      "both to have grown",
      30_000,
    );
  },
);

test("databases that a kill cut off in one transaction of both are put back, each in its copy", async () => {
  using data = databaseVolume();
  const [one, two] = [join(data.path, "one.db"), join(data.path, "two.db")];
  {
    await using _ = await otherProcess(
      one,
      `db.run("ATTACH " + JSON.stringify(${JSON.stringify(two)}).replaceAll('"', "'") + " AS two");
       for (const name of ["main", "two"]) { db.run("CREATE TABLE " + name + ".t (id INTEGER PRIMARY KEY, x)");
         db.transaction(() => { for (let i = 0; i < 500; i += 1) db.run("INSERT INTO " + name + ".t (x) VALUES (?)", ["y".repeat(300)]); })();
         db.run("PRAGMA " + name + ".cache_size = 5"); }
       db.run("BEGIN"); for (const name of ["main", "two"]) db.run("UPDATE " + name + ".t SET x = 'half done' || randomblob(300)");`,
    );
  }
  for (const name of ["one.db", "two.db"]) {
    expect(statSync(join(data.path, `${name}-journal`)).size).toBeGreaterThan(0);
    using copy = await opened(await readPath(name, data.context), data.path);
    expect(copy.query("SELECT count(*) FROM t WHERE x LIKE 'half%'").values()).toEqual([[0]]);
    expect(rowsOf(copy)).toBe(500);
  }
});
