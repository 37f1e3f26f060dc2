import { expect, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import { caller, filesApp, filesVolume } from "../support/files-volume.ts";

const WORKSPACE = "/home/node/.openclaw/workspace";

test("GET /list gives folders first, then files by name, without dotfiles, in the wire's keys", async () => {
  using volume = filesVolume();
  const at = (name: string): string => join(volume.path, "workspace", name);
  for (const name of [
    "b.TXT",
    "Ärger.md",
    "zebra",
    "a.tar.gz",
    "B2",
    ".hidden",
    ".sidecar-tmp-x",
  ]) {
    writeFileSync(at(name), "12345");
  }
  for (const name of ["zoo", "Apes", ".git"]) mkdirSync(at(name));
  utimesSync(at("zebra"), 1_700_000_000.125, 1_700_000_000.125);
  const call = caller(filesApp(volume));
  const { status, json } = await call("GET", "/list", { path: WORKSPACE });
  expect(status).toBe(200);
  const files = json["files"] as Record<string, unknown>[];
  expect(Object.keys(json)).toEqual(["files"]);
  expect(files.map(({ name }) => name)).toEqual(
    ["Apes", "zoo"].concat(
      ["a.tar.gz", "Ärger.md", "b.TXT", "B2", "zebra"].toSorted((a, b) => a.localeCompare(b)),
    ),
  );
  expect(files.at(-1)).toEqual({
    name: "zebra",
    path: `${WORKSPACE}/zebra`,
    type: "file",
    size: 5,
    modified: "2023-11-14T22:13:20.125Z",
    extension: "",
  });
  expect(files.find(({ name }) => name === "b.TXT")?.["extension"]).toBe("TXT");
  expect(files.find(({ name }) => name === "a.tar.gz")?.["extension"]).toBe("gz");
  expect(files[0]).toMatchObject({ type: "directory", path: `${WORKSPACE}/Apes` });
  expect(Object.keys(files[0] ?? {}).toSorted()).toEqual([
    "modified",
    "name",
    "path",
    "size",
    "type",
  ]);
});

test.each([
  [WORKSPACE, `${WORKSPACE}/docs`],
  [`${WORKSPACE}/`, `${WORKSPACE}/docs`],
  ["/home/node/workspace", "/home/node/workspace/docs"],
  ["/root/clawd", "/root/clawd/docs"],
  ["/data/workspace", "/data/workspace/docs"],
  ["/home//node/workspace", "/home//node/workspace/docs"],
])("the paths of a listing of %p are spelled as it was", async (path, expected) => {
  using volume = filesVolume();
  mkdirSync(join(volume.path, "workspace/docs"));
  writeFileSync(join(volume.path, "workspace/docs/a"), "x");
  const call = caller(filesApp(volume));
  const { json } = await call("GET", "/list", { path });
  expect((json["files"] as { path: string }[]).map((file) => file.path)).toEqual([expected]);
  const inner = await call("GET", "/list", { path: expected });
  expect(inner.json["files"]).toMatchObject([{ path: `${expected}/a` }]);
});

test("a relative path, and none for a listing, start at the workspace", async () => {
  using volume = filesVolume();
  mkdirSync(join(volume.path, "workspace/docs"));
  writeFileSync(join(volume.path, "workspace/docs/a"), "hello");
  const call = caller(filesApp(volume));
  expect((await call("GET", "/list")).json["files"]).toMatchObject([{ path: "docs" }]);
  expect((await call("GET", "/list", { path: "docs" })).json["files"]).toMatchObject([
    { path: "docs/a" },
  ]);
  expect((await call("GET", "/read", { path: "docs/a" })).json["content"]).toBe("hello");
});

test("a listing shows a link as what it leads to, and one that leads out as itself", async () => {
  using volume = filesVolume();
  const at = (name: string): string => join(volume.path, "workspace", name);
  writeFileSync(join(volume.outside, "secret"), "x".repeat(1_000));
  mkdirSync(at("folder"));
  writeFileSync(at("file"), "12345");
  symlinkSync("folder", at("to-folder"));
  symlinkSync("file", at("to-file"));
  symlinkSync(join(volume.outside, "secret"), at("to-secret"));
  symlinkSync(volume.outside, at("to-outside"));
  symlinkSync("nowhere", at("to-nowhere"));
  symlinkSync("../.sidecar", at("to-private"));
  symlinkSync("..", at("to-root"));
  const call = caller(filesApp(volume));
  const { json } = await call("GET", "/list", { path: WORKSPACE });
  const types = Object.fromEntries(
    (json["files"] as { name: string; type: string; size: number }[]).map((file) => [
      file.name,
      [file.type, file.type === "file" ? file.size : 0],
    ]),
  );
  expect(types).toEqual({
    folder: ["directory", 0],
    "to-folder": ["directory", 0],
    "to-root": ["directory", 0],
    file: ["file", 5],
    "to-file": ["file", 5],
    "to-nowhere": ["file", 7],
    "to-outside": ["file", volume.outside.length],
    "to-private": ["file", 11],
    "to-secret": ["file", volume.outside.length + 7],
  });
});

test("GET /read gives text as text and everything else as base64, byte for byte", async () => {
  using volume = filesVolume();
  const binary = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  writeFileSync(join(volume.path, "workspace/text"), "\uFEFFgrün 🎉\r\n\0end");
  writeFileSync(join(volume.path, "workspace/binary"), binary);
  writeFileSync(join(volume.path, "workspace/empty"), "");
  const call = caller(filesApp(volume));
  const text = await call("GET", "/read", { path: "text" });
  expect(text.json).toEqual({ content: "\uFEFFgrün 🎉\r\n\0end", size: 19, encoding: "utf-8" });
  const other = await call("GET", "/read", { path: "binary" });
  expect(other.json).toEqual({
    content: binary.toString("base64"),
    size: 256,
    encoding: "base64",
  });
  const empty = await call("GET", "/read", { path: "empty" });
  expect(empty.json).toEqual({ content: "", size: 0, encoding: "utf-8" });
});

test("POST /write stores the text, makes the parents and answers in the wire's keys", async () => {
  using volume = filesVolume();
  const call = caller(filesApp(volume));
  const path = `${WORKSPACE}/new/folder/grün 🎉.md`;
  const { status, json } = await call("POST", "/write", {
    path,
    body: JSON.stringify({ content: "grün" }),
  });
  expect(status).toBe(200);
  expect(json).toEqual({ success: true, path, size: 5 });
  expect(readFileSync(join(volume.path, "workspace/new/folder/grün 🎉.md"), "utf8")).toBe("grün");
});

test("POST /mkdir makes the parents, takes an existing folder, and is 409 on a file", async () => {
  using volume = filesVolume();
  const call = caller(filesApp(volume));
  const path = `${WORKSPACE}/x/y`;
  for (let round = 0; round < 2; round += 1) {
    const { status, json } = await call("POST", "/mkdir", { path });
    expect([status, json]).toEqual([200, { success: true, path }]);
  }
  expect(statSync(join(volume.path, "workspace/x/y")).isDirectory()).toBe(true);
  writeFileSync(join(volume.path, "workspace/file"), "x");
  const taken = await call("POST", "/mkdir", { path: `${WORKSPACE}/file` });
  expect([taken.status, taken.json["code"]]).toEqual([409, "exists"]);
});

test("DELETE /delete removes files, links and whole folders", async () => {
  using volume = filesVolume();
  const at = (name: string): string => join(volume.path, "workspace", name);
  writeFileSync(join(volume.outside, "kept"), "kept");
  mkdirSync(at("folder/inner"), { recursive: true });
  writeFileSync(at("folder/inner/file"), "x");
  writeFileSync(at("file"), "x");
  symlinkSync(volume.outside, at("link"));
  const call = caller(filesApp(volume));
  for (const name of ["folder", "file", "link"]) {
    const { status, json } = await call("DELETE", "/delete", { path: `${WORKSPACE}/${name}` });
    expect([status, json]).toEqual([200, { success: true }]);
  }
  expect(readdirSync(join(volume.path, "workspace"))).toEqual([]);
  expect(readdirSync(volume.outside)).toEqual(["kept"]);
});

test("POST /move renames, makes the parents and replaces a file", async () => {
  using volume = filesVolume();
  writeFileSync(join(volume.path, "workspace/a"), "new");
  writeFileSync(join(volume.path, "workspace/b"), "old");
  const call = caller(filesApp(volume));
  const move = (from: string, to: string) =>
    call("POST", "/move", { body: JSON.stringify({ from, to }) });
  const first = await move(`${WORKSPACE}/a`, `${WORKSPACE}/b`);
  expect([first.status, first.json]).toEqual([200, { success: true }]);
  expect(readFileSync(join(volume.path, "workspace/b"), "utf8")).toBe("new");
  expect((await move("b", "/home/node/.openclaw/x/y")).status).toBe(200);
  expect(readFileSync(join(volume.path, "openclaw/x/y"), "utf8")).toBe("new");
});

test("POST /upload stores the raw body, whatever its type", async () => {
  using volume = filesVolume();
  const call = caller(filesApp(volume));
  const bytes = Buffer.from(Array.from({ length: 100_000 }, (_, i) => i % 251));
  const path = `${WORKSPACE}/new/file.bin`;
  const { status, json } = await call("POST", "/upload", { path, body: bytes });
  expect([status, json]).toEqual([200, { success: true, path, size: 100_000 }]);
  expect(readFileSync(join(volume.path, "workspace/new/file.bin")).equals(bytes)).toBe(true);
  const empty = await call("POST", "/upload", { path: `${WORKSPACE}/empty` });
  expect(empty.json).toEqual({ success: true, path: `${WORKSPACE}/empty`, size: 0 });
});

test("GET /download gives the bytes, their length and type, as an attachment in a sandbox", async () => {
  using volume = filesVolume();
  const name = `a "b" 100%; ü's.html`;
  writeFileSync(join(volume.path, "workspace", name), "<script>1</script>");
  const call = caller(filesApp(volume));
  const { status, text, headers } = await call("GET", "/download", { path: name });
  expect([status, text]).toEqual([200, "<script>1</script>"]);
  expect(headers.get("content-type")).toBe("text/html");
  expect(headers.get("content-length")).toBe("18");
  expect(headers.get("content-disposition")).toBe(
    `attachment; filename="a _b_ 100_; _'s.html"; filename*=UTF-8''a%20%22b%22%20100%25%3B%20%C3%BC%27s.html`,
  );
  expect(headers.get("x-content-type-options")).toBe("nosniff");
  expect(headers.get("content-security-policy")).toContain("sandbox");
});

test.each([
  ["a.md", "text/markdown"],
  ["a.PDF", "application/pdf"],
  ["a.json", "application/json"],
  ["a.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"],
  ["Makefile", "application/octet-stream"],
  ["md", "application/octet-stream"],
  ["a.unheard-of", "application/octet-stream"],
])("a download of %s is %s", async (name, type) => {
  using volume = filesVolume();
  writeFileSync(join(volume.path, "workspace", name), "1");
  const { headers } = await caller(filesApp(volume))("GET", "/download", { path: name });
  expect(headers.get("content-type")).toBe(type);
});

test.each([
  ["GET", "/list", "missing", 404, "not_found"],
  ["GET", "/list", "file", 400, "not_directory"],
  ["GET", "/read", "missing", 404, "not_found"],
  ["GET", "/read", "folder", 400, "is_directory"],
  ["GET", "/read", "", 400, "bad_request"],
  ["GET", "/read", "big", 413, "too_large"],
  ["GET", "/read", "file/x", 400, "not_directory"],
  ["GET", "/download", "missing", 404, "not_found"],
  ["GET", "/download", "folder", 400, "is_directory"],
  ["DELETE", "/delete", "missing", 404, "not_found"],
  ["DELETE", "/delete", "", 400, "bad_request"],
  ["DELETE", "/delete", "/home/node/workspace", 403, "denied"],
  ["DELETE", "/delete", "/home/node/.openclaw/", 403, "denied"],
  ["DELETE", "/delete", "/data", 400, "is_directory"],
  ["POST", "/mkdir", "file/x", 409, "exists"],
  ["POST", "/upload", "folder", 400, "is_directory"],
  ["POST", "/upload", "file/x", 400, "not_directory"],
  ["GET", "/read", "/etc/passwd", 403, "outside_root"],
  ["GET", "/read", "/home/node/.openclaw-x/file", 403, "outside_root"],
  ["GET", "/list", "/home/node", 403, "outside_root"],
  ["GET", "/read", "/data/.sidecar/index", 403, "private"],
  ["POST", "/upload", "/data/.sidecar/x", 403, "private"],
  ["DELETE", "/delete", "/data/.sidecar", 403, "private"],
  ["GET", "/read", "../openclaw/x", 400, "bad_name"],
  ["GET", "/read", "/home/node/workspace/../../../etc/passwd", 400, "bad_name"],
  ["GET", "/read", "./file", 400, "bad_name"],
  ["GET", "/read", "nul\0name", 400, "bad_name"],
  ["POST", "/upload", "n".repeat(256), 400, "bad_name"],
  ["POST", "/mkdir", "a/".repeat(300), 400, "bad_name"],
  ["GET", "/read", "link-out", 403, "outside_root"],
  ["GET", "/download", "link-out", 403, "outside_root"],
  ["GET", "/list", "link-folder", 403, "outside_root"],
  ["POST", "/upload", "link-out", 403, "outside_root"],
  ["POST", "/upload", "link-folder/new", 403, "outside_root"],
  ["POST", "/mkdir", "link-folder/new", 403, "outside_root"],
  ["DELETE", "/delete", "link-folder/precious", 403, "outside_root"],
  ["GET", "/read", "fifo", 400, "special"],
  ["GET", "/download", "fifo", 400, "special"],
  ["POST", "/upload", "fifo", 400, "special"],
  ["GET", "/list", "fifo", 400, "not_directory"],
])("%s %s of %j is %i %s", async (...[method, route, path, status, code]) => {
  using volume = filesVolume();
  const at = (name: string): string => join(volume.path, "workspace", name);
  mkdirSync(at("folder"));
  writeFileSync(at("file"), "x");
  writeFileSync(at("big"), "x".repeat(2_000));
  writeFileSync(join(volume.outside, "precious"), "precious");
  symlinkSync(join(volume.outside, "precious"), at("link-out"));
  symlinkSync(volume.outside, at("link-folder"));
  Bun.spawnSync(["mkfifo", at("fifo")]);
  const before = readdirSync(join(volume.path, "workspace"));
  const call = caller(filesApp(volume, { limits: { readBytes: 1_000 } }));
  const { json, ...answer } = await call(method, route, { path });
  expect([answer.status, json["code"]]).toEqual([status, code]);
  expect(Object.keys(json)).toEqual(["error", "code", "requestId"]);
  expect(json["requestId"]).toBe(answer.headers.get("x-request-id"));
  expect(readdirSync(volume.outside)).toEqual(["precious"]);
  expect(readFileSync(join(volume.outside, "precious"), "utf8")).toBe("precious");
  expect(readdirSync(join(volume.path, "workspace"))).toEqual(before);
});

test.each([
  ["/write", "no json", 400, "bad_request"],
  ["/write", JSON.stringify({}), 400, "bad_request"],
  ["/write", JSON.stringify({ content: 5 }), 400, "bad_request"],
  ["/write", JSON.stringify({ content: "x".repeat(1_001) }), 413, "too_large"],
  ["/write", "x".repeat(20_000), 413, "too_large"],
  ["/write", JSON.stringify({ content: "\u0001".repeat(1_000) }), 200, undefined],
  ["/upload", "x".repeat(1_001), 413, "too_large"],
  ["/upload", "x".repeat(1_000), 200, undefined],
  ["/move", JSON.stringify({ from: "a" }), 400, "bad_request"],
  ["/move", JSON.stringify({ from: "missing", to: "new/b" }), 404, "not_found"],
  ["/move", JSON.stringify({ from: "folder", to: "folder/x/y" }), 400, "bad_name"],
  ["/move", JSON.stringify({ from: "a\ud800", to: "b" }), 400, "bad_name"],
  ["/move", JSON.stringify({ from: "/data/workspace", to: "b" }), 403, "denied"],
  ["/move", JSON.stringify({ from: "file", to: "/data/.sidecar/x" }), 403, "private"],
  ["/move", JSON.stringify({ from: "file", to: "/tmp/x" }), 403, "outside_root"],
])("POST %s with the body %.60s is %i", async (...[route, body, status, code]) => {
  using volume = filesVolume();
  mkdirSync(join(volume.path, "workspace/folder"));
  writeFileSync(join(volume.path, "workspace/file"), "old");
  const call = caller(filesApp(volume, { limits: { writeBytes: 1_000, uploadBytes: 1_000 } }));
  const path = "new/folder/file";
  const answer = await call("POST", route, { path, body });
  expect([answer.status, answer.json["code"]]).toEqual([status, code]);
  const names = readdirSync(join(volume.path, "workspace"));
  expect(names.includes("new")).toBe(status === 200);
  expect(readFileSync(join(volume.path, "workspace/file"), "utf8")).toBe("old");
});

test("a path that is not UTF-8 is 400, any other name works", async () => {
  using volume = filesVolume();
  const { app } = filesApp(volume);
  const send = (query: string): Response | Promise<Response> =>
    app.request(`/files/upload?token=token-of-the-gateway&path=${query}`, {
      method: "POST",
      body: "x",
    });
  expect((await send("%ff%fe")).status).toBe(400);
  for (const name of [
    "%25ff",
    "a+b",
    "\uFFFD",
    "line\nbreak",
    "-rf",
    "\\",
    "~",
    "a?b#c&d=e",
    "…",
  ]) {
    expect((await send(encodeURIComponent(name))).status).toBe(200);
    expect(existsSync(join(volume.path, "workspace", name))).toBe(true);
  }
});

test("a write follows a link that stays inside, and keeps mode and owner of the file", async () => {
  using volume = filesVolume();
  const file = join(volume.path, "workspace/file");
  writeFileSync(file, "old");
  chmodSync(file, 0o741);
  if (process.getuid?.() === 0) chownSync(file, 1234, 1235);
  symlinkSync("/home/node/workspace/file", join(volume.path, "workspace/link"));
  const call = caller(filesApp(volume, { owner: ownerForTests() }));
  const body = JSON.stringify({ content: "new" });
  expect((await call("POST", "/write", { path: "link", body })).status).toBe(200);
  expect(lstatSync(join(volume.path, "workspace/link")).isSymbolicLink()).toBe(true);
  expect(readFileSync(file, "utf8")).toBe("new");
  expect(statSync(file).mode & 0o777).toBe(0o741);
  if (process.getuid?.() === 0) expect(statSync(file)).toMatchObject({ uid: 1234, gid: 1235 });
});

test.if(process.getuid?.() === 0)("what the API creates belongs to the agent", async () => {
  using volume = filesVolume();
  const owner = { uid: 4321, gid: 4322 };
  const call = caller(filesApp(volume, { owner }));
  await call("POST", "/write", { path: "a/b/written", body: JSON.stringify({ content: "x" }) });
  await call("POST", "/upload", { path: "c/uploaded", body: "x" });
  await call("POST", "/mkdir", { path: "d/e" });
  await call("POST", "/move", { body: JSON.stringify({ from: "c/uploaded", to: "f/g/moved" }) });
  for (const path of ["a", "a/b", "a/b/written", "c", "d", "d/e", "f", "f/g", "f/g/moved"]) {
    expect(statSync(join(volume.path, "workspace", path))).toMatchObject(owner);
  }
});

test.each([
  [503, ["write", "upload", "mkdir", "delete", "move"]],
  [403, ["write", "upload", "mkdir", "delete", "move"]],
  [507, ["write", "upload", "mkdir"]],
] as const)(
  "while writes are refused with %i, %p answer so and reading goes on",
  async (status, refused) => {
    using volume = filesVolume();
    writeFileSync(join(volume.path, "workspace/file"), "x");
    writeFileSync(join(volume.path, "workspace/other"), "x");
    const writable = () => ({ status, error: "Not now", code: "not_now" });
    const call = caller(filesApp(volume, { writable }));
    const move = JSON.stringify({ from: "other", to: "third" });
    const answers = {
      write: await call("POST", "/write", { path: "new", body: JSON.stringify({ content: "" }) }),
      upload: await call("POST", "/upload", { path: "new", body: "x" }),
      mkdir: await call("POST", "/mkdir", { path: "new" }),
      delete: await call("DELETE", "/delete", { path: "file" }),
      move: await call("POST", "/move", { body: move }),
    };
    for (const [route, answer] of Object.entries(answers)) {
      const expected = (refused as readonly string[]).includes(route) ? status : 200;
      expect([route, answer.status]).toEqual([route, expected]);
      if (expected === status)
        expect(answer.json).toMatchObject({ error: "Not now", code: "not_now" });
    }
    expect(existsSync(join(volume.path, "workspace/new"))).toBe(false);
    expect((await call("GET", "/list")).status).toBe(200);
  },
);

test("a listing of 10,000 files lets the event loop turn all the while", async () => {
  using volume = filesVolume();
  for (let i = 0; i < 10_000; i += 1) {
    writeFileSync(join(volume.path, "workspace", `file-${(i * 7919) % 10_000}.txt`), "");
  }
  const call = caller(filesApp(volume));
  const state = { done: false, turns: 0 };
  const listing = call("GET", "/list").finally(() => (state.done = true));
  while (!state.done) {
    state.turns += 1;
    await Bun.sleep(1);
  }
  expect(((await listing).json["files"] as unknown[]).length).toBe(10_000);
  expect(state.turns).toBeGreaterThan(5);
}, 30_000);

function ownerForTests(): { uid: number; gid: number } {
  return { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
}
