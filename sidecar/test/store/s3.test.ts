import { beforeAll } from "bun:test";

import { PrefixedStore } from "../../src/store/prefixed.ts";
import { S3Store } from "../../src/store/s3.ts";
import { S3_START_LIMIT_MS, s3ForTests } from "../support/s3-server.ts";
import { testStore } from "./contract.ts";

beforeAll(async () => {
  await s3ForTests();
}, S3_START_LIMIT_MS);

testStore("S3Store", {
  open: async () => {
    const s3 = await s3ForTests();
    return new PrefixedStore(
      new S3Store({ ...s3, credentials: () => s3 }),
      `${crypto.randomUUID()}/`,
    );
  },
});
