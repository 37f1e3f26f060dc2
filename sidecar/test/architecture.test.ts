import { expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

import { tempDir } from "./support/temp-dir.ts";

const ROOT = resolve(import.meta.dir, "../..");
const OXLINT = join(ROOT, "node_modules/oxlint/bin/oxlint");

/** The rooms from which a room may import; everything else of ours is refused. */
const ARROWS: Readonly<Record<string, readonly string[]>> = {
  platform: [],
  store: ["platform"],
  volume: ["platform"],
  supervisor: ["platform", "store", "volume"],
  gateway: ["platform", "store", "volume"],
  files: ["platform", "store", "volume"],
  backup: ["platform", "store", "volume"],
  health: ["platform", "store", "volume"],
  server: ["platform", "store", "volume"],
};
/** The only room that may import a library. */
const LIBRARIES: Readonly<Record<string, string>> = {
  "@aws-sdk/client-s3": "store",
  chokidar: "backup",
  json5: "gateway",
  mime: "files",
  pino: "platform",
  "tar-stream": "backup",
};
const ROOMS = Object.keys(ARROWS);
const TARGETS = [
  ...ROOMS.map((room) => ({ from: `../${room}/subject.ts`, allowed: toRoom(room) })),
  ...["main", "machine", "config", "server"].map((name) => ({
    from: `../${name}.ts`,
    allowed: () => false,
  })),
  ...Object.entries(LIBRARIES).map(([library, owner]) => ({
    from: library,
    allowed: (room: string) => room === owner,
  })),
  ...["./subject.ts", "node:fs", "node:fs/promises", "bun", "bun:sqlite", "zod"].map((from) => ({
    from,
    allowed: () => true,
  })),
];

test.each(ROOMS)("the linter lets %s import what is below it and nothing else", (room) => {
  using dir = tempDir();
  const folder = join(dir.path, "sidecar/src", room);
  mkdirSync(folder, { recursive: true });
  writeConfig(dir.path);
  const targets = TARGETS.filter(({ from }) => from !== `../${room}/subject.ts`);
  for (const [index, { from }] of targets.entries()) {
    // A type is refused like a value.
    const kind = index % 2 === 0 ? "import" : "import type";
    writeFileSync(join(folder, `importer-${index}.ts`), `${kind} { a } from "${from}";\n`);
  }

  const refused = lint(dir.path);

  expect(targets.filter((_, index) => refused.has(index)).map(({ from }) => from)).toEqual(
    targets.filter(({ allowed }) => !allowed(room)).map(({ from }) => from),
  );
});

/** What each inner room of the backup may import of the others. */
const INNER: Readonly<Record<string, readonly string[]>> = {
  format: [],
  notice: ["format"],
  read: ["format", "notice"],
  commit: ["format", "notice", "read"],
  history: ["format"],
  keep: ["format", "read", "commit", "history"],
  restore: ["format", "history"],
  boot: ["format", "history", "restore"],
};

test.each(Object.keys(INNER))("the linter keeps the arrows inside the backup: %s", (room) => {
  using dir = tempDir();
  const folder = join(dir.path, "sidecar/src/backup", room);
  mkdirSync(folder, { recursive: true });
  writeConfig(dir.path);
  const others = Object.keys(INNER).filter((other) => other !== room);
  for (const [index, other] of others.entries()) {
    writeFileSync(
      join(folder, `importer-${index}.ts`),
      `import { a } from "../${other}/subject.ts";\n`,
    );
  }
  writeFileSync(join(folder, "importer-100.ts"), 'import { a } from "../../gateway/subject.ts";\n');
  writeFileSync(join(folder, "importer-101.ts"), 'import { a } from "../../machine.ts";\n');
  writeFileSync(join(folder, "importer-102.ts"), 'import { a } from "../../volume/root.ts";\n');

  const refused = lint(dir.path);

  expect(others.filter((_, index) => !refused.has(index))).toEqual([...(INNER[room] ?? [])]);
  expect([100, 101, 102].map((index) => refused.has(index))).toEqual([true, true, false]);
});

/** The project's rules, without those that would need its types. */
function writeConfig(folder: string): void {
  const config = JSON.parse(readFileSync(join(ROOT, ".oxlintrc.json"), "utf8")) as object;
  writeFileSync(join(folder, ".oxlintrc.json"), JSON.stringify({ ...config, options: {} }));
}

/** Indexes of the importers that the rule refuses. */
function lint(folder: string): Set<number> {
  const { stdout } = Bun.spawnSync(["node", OXLINT, "--format=json", "sidecar"], { cwd: folder });
  const { diagnostics } = JSON.parse(stdout.toString()) as {
    diagnostics: readonly { code: string; filename: string }[];
  };
  const refusals = diagnostics.filter(({ code }) => code.includes("no-restricted-imports"));
  return new Set(refusals.map(({ filename }) => Number(/importer-(\d+)\.ts$/.exec(filename)?.[1])));
}

function toRoom(target: string): (room: string) => boolean {
  return (room) => ARROWS[room]?.includes(target) ?? false;
}
