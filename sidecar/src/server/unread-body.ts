import type { Clock } from "../platform/clock.ts";

/** Bun throws away what comes of a declared body after the answer, at no cost in memory: up to here it may. */
const DISCARD_BYTES = 256 * 1024 * 1024;
/** Of a body without a length so much, and for so long, is read before the answer. */
const DRAIN_BYTES = 1024 * 1024;
const DRAIN_MS = 1_000;

/**
 * Sees to it that the client, or the proxy before it, gets an answer that was given before the end of its body: a
 * connection that is cut while the body is being sent often loses the answer. Resolves to true if the connection is to be
 * closed after the answer all the same, because what would still come has no bound.
 */
export async function mustCloseAfter(
  request: Request,
  { refused, clock }: { readonly refused: boolean; readonly clock: Clock },
): Promise<boolean> {
  const declared = request.headers.get("content-length");
  if (declared !== null) {
    return Number(declared) > DISCARD_BYTES && (refused || !request.bodyUsed);
  }
  if (!request.headers.has("transfer-encoding")) return false;
  if (request.bodyUsed) return refused;
  const stop = new AbortController();
  const drained = drain(request.body);
  try {
    return await Promise.race([
      drained.then((ended) => !ended),
      clock.sleep(DRAIN_MS, stop.signal).then(() => true),
    ]);
  } finally {
    stop.abort();
  }
}

/** Resolves to whether the end was reached within the bound. */
async function drain(body: ReadableStream<Uint8Array> | null): Promise<boolean> {
  const reader = body?.getReader();
  try {
    for (let size = 0; size <= DRAIN_BYTES;) {
      const chunk = await reader?.read();
      if (!chunk?.value) return true;
      size += chunk.value.byteLength;
    }
  } catch {
    // The client is gone: nothing more will come.
  }
  return false;
}
