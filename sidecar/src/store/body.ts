import type { Body, BodySource } from "./store.ts";

export interface ReadOptions {
  /** For the error text. */
  readonly key: string;
  readonly signal?: AbortSignal | undefined;
}

export function sizeOf(body: Body): number {
  return body instanceof Uint8Array ? body.byteLength : body.sizeBytes;
}

/**
 * The chunks of `source`. Fails with the source's own error, with an error if it gives more or fewer bytes than it said,
 * or with the signal's reason, also while the source hangs. Chunks are as the source gave them: it may reuse their memory.
 */
export async function* exactly(
  source: BodySource,
  options: ReadOptions,
): AsyncGenerator<Uint8Array> {
  const { key, signal } = options;
  const { sizeBytes } = source;
  using abort = rejection(signal);
  const chunks = source.open()[Symbol.asyncIterator]();
  let ended = false;
  let given = 0;
  try {
    for (;;) {
      const pull = chunks.next();
      // Without the chunk: a promise that lasts keeps what every race came to, here a whole file.
      await Promise.race([pull.then(() => undefined), abort.promise]);
      const next = await pull;
      if (next.done) break;
      given += next.value.byteLength;
      if (given > sizeBytes) {
        throw new Error(`Cannot put "${key}": the source gives more than its ${sizeBytes} bytes`);
      }
      if (next.value.byteLength > 0) yield next.value;
    }
    ended = true;
    if (given < sizeBytes) {
      throw new Error(`Cannot put "${key}": the source gave ${given} of its ${sizeBytes} bytes`);
    }
  } finally {
    // Not awaited: a source that hangs would hold us here, and its last word changes nothing.
    if (!ended) chunks.return?.().catch(() => undefined);
  }
}

/** As `exactly`, but the last bytes come only once the source has ended well, and each chunk is a copy. */
export async function* exactlyHeldBack(
  source: BodySource,
  options: ReadOptions,
): AsyncGenerator<Uint8Array> {
  let held: Uint8Array | undefined;
  for await (const chunk of exactly(source, options)) {
    if (held) yield held;
    held = new Uint8Array(chunk);
  }
  if (held) yield held;
}

/** The whole body in memory, with the failures of `exactly`. */
export async function collect(body: Body, options: ReadOptions): Promise<Uint8Array> {
  if (body instanceof Uint8Array) return body;
  const bytes = new Uint8Array(body.sizeBytes);
  let offset = 0;
  for await (const chunk of exactly(body, options)) {
    bytes.set(chunk, offset);
    offset += chunk.byteLength;
  }
  return bytes;
}

/** The result of `work`, or the signal's reason as soon as it aborts; what is left of the work then goes unheard. */
export async function orAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  using abort = rejection(signal);
  return await Promise.race([work, abort.promise]);
}

/** A promise that only ever rejects: with the signal's reason, once it aborts. */
function rejection(signal: AbortSignal | undefined): Disposable & { promise: Promise<never> } {
  const { promise, reject } = Promise.withResolvers<never>();
  promise.catch(() => undefined);
  const onAbort = (): void => reject(signal?.reason as Error);
  if (signal?.aborted) onAbort();
  signal?.addEventListener("abort", onAbort, { once: true });
  return { promise, [Symbol.dispose]: () => signal?.removeEventListener("abort", onAbort) };
}
