import { expect, test } from "bun:test";

import { exactly } from "../../src/store/body.ts";
import { countedChunks } from "../support/chunks-in-memory.ts";

test("a body that is passed on is not kept in memory", async () => {
  const chunks = countedChunks(400);
  const source = { sizeBytes: chunks.sizeBytes, open: chunks.source };
  const { signal } = new AbortController();
  let bytes = 0;
  for await (const chunk of exactly(source, { key: "k", signal })) bytes += chunk.byteLength;
  expect(bytes).toBe(chunks.sizeBytes);
  expect(chunks.most).toBeLessThan(60);
});
