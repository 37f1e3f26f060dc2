import { expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import { copyTemplate, filesInEnvironment } from "../../src/gateway/workspace.ts";
import { tempDir } from "../support/temp-dir.ts";

const SHIPPED = join(import.meta.dir, "../../../container/default-workspace");

function machine(): Disposable & {
  readonly path: string;
  readonly options: { dataDir: string; templateDir: string; env: Record<string, string> };
  in(name: string): string;
} {
  const dir = tempDir();
  const options = {
    dataDir: join(dir.path, "data"),
    templateDir: join(dir.path, "template"),
    env: {} as Record<string, string>,
  };
  mkdirSync(join(options.dataDir, "workspace"), { recursive: true });
  mkdirSync(join(options.templateDir, "memory"), { recursive: true });
  writeFileSync(join(options.templateDir, "AGENTS.md"), "template agents");
  writeFileSync(join(options.templateDir, "SOUL.md"), "template soul");
  writeFileSync(join(options.templateDir, "memory/README.md"), "template memory");
  return {
    path: dir.path,
    options,
    in: (name) => join(options.dataDir, "workspace", name),
    [Symbol.dispose]: () => dir[Symbol.dispose](),
  };
}

function base64(text: string): string {
  return Buffer.from(text).toString("base64");
}

test("a new workspace is a copy of the template", async () => {
  using own = machine();
  const result = await copyTemplate(own.options);
  expect(result).toEqual({ written: ["AGENTS.md", "SOUL.md", "memory/README.md"], problems: [] });
  expect(readFileSync(own.in("memory/README.md"), "utf8")).toBe("template memory");
});

test("files given in the environment win over the template, and may be others", async () => {
  using own = machine();
  const env = { SOUL_MD_B64: base64("own soul"), MY_NOTES_MD_B64: base64("notes") };
  await copyTemplate({ ...own.options, env });
  expect(readFileSync(own.in("SOUL.md"), "utf8")).toBe("own soul");
  expect(readFileSync(own.in("MY_NOTES.md"), "utf8")).toBe("notes");
  expect(readFileSync(own.in("AGENTS.md"), "utf8")).toBe("template agents");
});

test("a file that is there is never overwritten", async () => {
  using own = machine();
  writeFileSync(own.in("SOUL.md"), "the user's");
  const env = { SOUL_MD_B64: base64("own soul") };
  const result = await copyTemplate({ ...own.options, env });
  expect(result.written).toEqual(["AGENTS.md", "memory/README.md"]);
  expect(readFileSync(own.in("SOUL.md"), "utf8")).toBe("the user's");
});

test("after the first boot nothing comes back", async () => {
  using own = machine();
  await copyTemplate(own.options);
  rmSync(own.in("SOUL.md"));
  writeFileSync(own.in("AGENTS.md"), "changed");
  const env = { SOUL_MD_B64: base64("own soul") };
  expect(await copyTemplate({ ...own.options, env })).toEqual({ written: [], problems: [] });
  expect(existsSync(own.in("SOUL.md"))).toBe(false);
  expect(readFileSync(own.in("AGENTS.md"), "utf8")).toBe("changed");
});

test("a restored workspace stays what it was", async () => {
  using own = machine();
  writeFileSync(own.in("AGENTS.md"), "restored");
  expect(await copyTemplate({ ...own.options, restored: true })).toEqual({
    written: [],
    problems: [],
  });
  expect(readdirSync(own.in(""))).toEqual(["AGENTS.md"]);
  expect((await copyTemplate(own.options)).written).toEqual([]);
});

test("a copy that was cut off is completed", async () => {
  using own = machine();
  await copyTemplate(own.options);
  const record = join(own.options.dataDir, ".sidecar/template.json");
  const whole = JSON.parse(readFileSync(record, "utf8")) as { files: unknown };
  // As a kill leaves it after the first file: written, and not yet recorded.
  writeFileSync(record, JSON.stringify({ version: 1, done: false, files: {} }));
  rmSync(own.in("SOUL.md"));
  rmSync(own.in("memory"), { recursive: true });
  expect((await copyTemplate(own.options)).written).toEqual(["SOUL.md", "memory/README.md"]);
  expect(JSON.parse(readFileSync(record, "utf8"))).toEqual({ ...whole, done: true });
});

test("what was copied is remembered by its hash", async () => {
  using own = machine();
  writeFileSync(own.in("SOUL.md"), "the user's");
  await copyTemplate({ ...own.options, env: { USER_MD_B64: base64("user") } });
  const record = join(own.options.dataDir, ".sidecar/template.json");
  expect(JSON.parse(readFileSync(record, "utf8"))).toEqual({
    version: 1,
    done: true,
    files: {
      "AGENTS.md": { sha256: hash("template agents"), from: "template" },
      "SOUL.md": { from: "user" },
      "USER.md": { sha256: hash("user"), from: "environment" },
      "memory/README.md": { sha256: hash("template memory"), from: "template" },
    },
  });
});

test("links in the workspace are not followed", async () => {
  using own = machine();
  const outside = join(own.path, "outside");
  mkdirSync(outside);
  symlinkSync(outside, own.in("memory"));
  symlinkSync(join(outside, "soul"), own.in("SOUL.md"));
  const { written, problems } = await copyTemplate(own.options);
  expect(written).toEqual(["AGENTS.md"]);
  expect(problems).toHaveLength(2);
  expect(readdirSync(outside)).toEqual([]);
});

test.each([
  [{ SOUL_MD_B64: "not base64!" }, [], ['Cannot use "SOUL_MD_B64": its value is not base64']],
  [{ SOUL_MD_B64: "YQ" }, ["SOUL.md"], []],
  [{ SOUL_MD_B64: "YQ==\n" }, ["SOUL.md"], []],
  [{ SOUL_MD_B64: "" }, [], []],
  [{ "../X_MD_B64": "YQ==", x_MD_B64: "YQ==", _MD_B64: "YQ==" }, [], []],
  [
    { BIG_MD_B64: base64("x".repeat(1024 * 1024 + 1)) },
    [],
    ['Cannot use "BIG_MD_B64": 1048577 bytes are too many'],
  ],
])("variables are files only where name and value are right: case %#", (env, names, faults) => {
  const { files, problems } = filesInEnvironment(env);
  expect([...files.keys()]).toEqual(names);
  expect(problems).toEqual(faults);
});

test("a variable that cannot be used does not keep the others from the workspace", async () => {
  using own = machine();
  const env = { SOUL_MD_B64: "%%%", USER_MD_B64: base64("user") };
  const { written, problems } = await copyTemplate({ ...own.options, env });
  expect(written).toContain("USER.md");
  expect(problems).toHaveLength(1);
});

test("the template that comes with a machine is complete and short enough for every session", async () => {
  using own = machine();
  const { written } = await copyTemplate({ ...own.options, templateDir: SHIPPED });
  expect(written).toEqual([
    "AGENTS.md",
    "HEARTBEAT.md",
    "IDENTITY.md",
    "SOUL.md",
    "TOOLS.md",
    "USER.md",
    "memory/README.md",
  ]);
  expect(readFileSync(own.in("AGENTS.md"), "utf8").length).toBeLessThan(20_000);
  expect(readFileSync(own.in("USER.md"), "utf8").length).toBeLessThan(4_000);
});

function hash(text: string): string {
  return new Bun.CryptoHasher("sha256").update(text).digest("hex");
}
