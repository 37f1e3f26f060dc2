import { expect, test } from "bun:test";

import { openStore } from "../../src/store/open-store.ts";
import { scriptedServer } from "../support/scripted-server.ts";
import { tempDir } from "../support/temp-dir.ts";

const credentials = () => ({ accessKeyId: "a", secretAccessKey: "b" });
const hello = new TextEncoder().encode("hello");

test("openStore opens a folder", async () => {
  using dir = tempDir();
  const store = openStore({ url: `file://${dir.path}/with%20space` });
  await store.put("a", hello);
  expect(await Bun.file(`${dir.path}/with space/a`).text()).toBe("hello");
});

test.each([
  ["s3://bucket", "/bucket/a", "s3://bucket"],
  ["s3://bucket/", "/bucket/a", "s3://bucket"],
  ["s3://bucket/users/u1/backup", "/bucket/users/u1/backup/a", "s3://bucket/users/u1/backup"],
  ["s3://my.bucket-1/x/", "/my.bucket-1/x/a", "s3://my.bucket-1/x"],
])("openStore opens the bucket %s", async (url, path, name) => {
  await using server = await scriptedServer(() => ({ headers: { etag: '"e"' } }));
  const store = openStore({ url, credentials, endpoint: server.endpoint, region: "eu-1" });
  await store.put("a", hello);
  expect(store.name).toBe(name);
  expect(server.requests.map((request) => request.url.split("?")[0])).toEqual([path]);
  expect(server.requests[0]?.headers.authorization).toContain("/eu-1/s3/");
});

test.each([
  ["", "neither s3://bucket/prefix nor file:///path"],
  ["/data/backup", "neither s3://bucket/prefix nor file:///path"],
  ["https://bucket.example.com", "neither s3://bucket/prefix nor file:///path"],
  ["s3:bucket", "no bucket in it"],
  ["s3://", "no bucket in it"],
  ["s3:///prefix", "no bucket in it"],
  ["s3://bucket:9000/x", "a port in it"],
  ["s3://bucket/x?region=auto", "more than a path in it"],
  ["file://host/path", "a host in it"],
  ["file:///", "the root folder"],
])("openStore refuses %j", (url, found) => {
  expect(() => openStore({ url, credentials })).toThrow(`": ${found}`);
});

test("openStore refuses a bucket without credentials", () => {
  expect(() => openStore({ url: "s3://bucket" })).toThrow(
    'Cannot open the store "s3://bucket": no credentials for it',
  );
});

test.each(["s3://key:secret@bucket/x", "s3://bucket/x?secret=secret#secret", "ftp://secret@x/"])(
  "openStore does not repeat a secret in %j",
  (url) => {
    let message = "";
    try {
      openStore({ url, credentials });
    } catch (error) {
      message = String(error);
    }
    expect(message).toContain("Cannot open the store");
    expect(message).not.toContain("secret");
  },
);
