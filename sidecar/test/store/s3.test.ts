import { beforeAll, expect, test } from "bun:test";

import {
  CreateMultipartUploadCommand,
  ListMultipartUploadsCommand,
  S3Client,
} from "@aws-sdk/client-s3";

import { CountingStore } from "../../src/store/counting.ts";
import { PrefixedStore } from "../../src/store/prefixed.ts";
import { S3Store } from "../../src/store/s3.ts";
import { S3_START_LIMIT_MS, s3ForTests } from "../support/s3-server.ts";
import { expectKind, testStore } from "./contract.ts";

beforeAll(() => s3ForTests().then(() => undefined), S3_START_LIMIT_MS);

async function bucket(): Promise<S3Store> {
  const s3 = await s3ForTests();
  return new S3Store({ ...s3, credentials: () => s3 });
}

testStore("S3Store", {
  open: async () => new PrefixedStore(await bucket(), `${crypto.randomUUID()}/`),
});

test("S3Store takes a key of 1,024 bytes", async () => {
  const store = await bucket();
  const key =
    `${crypto.randomUUID()}/${"deep/".repeat(300)}`.slice(0, 1_023).replace(/\/$/, "x") + "y";
  expect(key).toHaveLength(1_024);
  await store.put(key, new Uint8Array(3), { ifAbsent: true });
  await expectKind(store.put(key, new Uint8Array(4), { ifAbsent: true }), "exists");
  expect(await store.head(key)).toMatchObject({ sizeBytes: 3 });
  await store.delete([key]);
});

test("S3Store says denied for credentials that the server does not know", async () => {
  const s3 = await s3ForTests();
  const store = new S3Store({
    ...s3,
    credentials: () => ({ accessKeyId: "unknown", secretAccessKey: "wrong" }),
  });
  for (const call of [
    () => store.put("k", new Uint8Array(1), { ifAbsent: true }),
    () => store.get("k"),
    () => store.head("k"),
    () => store.list(""),
    () => store.delete(["k"]),
  ]) {
    await expectKind(call(), "denied");
  }
});

test("S3Store says missing for a bucket that is not there, not that nothing is in it", async () => {
  const s3 = await s3ForTests();
  const store = new S3Store({
    ...s3,
    bucket: `none-${crypto.randomUUID()}`,
    credentials: () => s3,
  });
  await expectKind(store.list(""), "missing");
  await expectKind(store.get("k"), "missing");
  await expectKind(store.put("k", new Uint8Array(1)), "missing");
});

test("S3Store gives up uploads that were cut off, below the prefix and old enough", async () => {
  const s3 = await s3ForTests();
  const { bucket: Bucket, endpoint, region } = s3;
  const client = new S3Client({ endpoint, region, credentials: s3, forcePathStyle: true });
  const folder = crypto.randomUUID();
  const uploads = async (): Promise<string[]> => {
    const command = new ListMultipartUploadsCommand({ Bucket, Prefix: folder });
    const { Uploads = [] } = await client.send(command);
    return Uploads.map(({ Key = "" }) => Key.slice(folder.length)).sort();
  };
  for (const key of ["/mine/a", "/mine/b", "/other/c"])
    await client.send(new CreateMultipartUploadCommand({ Bucket, Key: folder + key }));
  const store = new CountingStore(new PrefixedStore(await bucket(), `${folder}/mine/`));

  expect(await store.abortUploads("", { olderThanMs: 3_600_000 })).toBe(0);
  expect(await uploads()).toEqual(["/mine/a", "/mine/b", "/other/c"]);
  // Begun before a moment that is still to come.
  expect(await store.abortUploads("", { olderThanMs: -60_000 })).toBe(2);
  expect(await uploads()).toEqual(["/other/c"]);
  client.destroy();
});
