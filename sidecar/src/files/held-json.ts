import type { Context } from "hono";

import type { MemoryShare } from "./memory-budget.ts";

/** Shorter answers are given to the runtime as they are, and are no longer ours to count. */
const SHORT_BYTES = 64 * 1024;
const SLICE_BYTES = 256 * 1024;

/** Answers with `value` as JSON, whose bytes count as held until the client has taken them, however slowly. */
export function heldJson(c: Context, value: unknown, share: MemoryShare): Response {
  const bytes = new TextEncoder().encode(JSON.stringify(value));
  // hono throws the body of an answer to HEAD away, and tells nobody.
  if (bytes.length <= SHORT_BYTES || c.req.method === "HEAD") {
    share[Symbol.dispose]();
    return c.body(bytes, 200, { "Content-Type": "application/json" });
  }
  share.grow(bytes.length);
  const { signal } = c.req.raw;
  const end = (): void => share[Symbol.dispose]();
  if (signal.aborted) end();
  signal.addEventListener("abort", end, { once: true });
  let sent = 0;
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      controller.enqueue(bytes.subarray(sent, (sent += SLICE_BYTES)));
      if (sent < bytes.length) return;
      end();
      controller.close();
    },
    cancel: end,
  });
  return c.body(body, 200, { "Content-Type": "application/json" });
}
