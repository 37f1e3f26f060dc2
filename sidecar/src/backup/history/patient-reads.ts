import type { Clock } from "../../platform/clock.ts";
import { StoreError } from "../../store/store.ts";
import type { Patience } from "../patience.ts";
import type { StoreReads } from "./history.ts";

/** A request that brings nothing for so long has failed. */
const STALL_MS = 60_000;
/** What the largest object may take, at 100 KB a second. */
const WHOLE_MS = 20 * 60_000;

export interface PatientReadsOptions {
  readonly patience: Patience;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** The same store, asked again for ever where it does not answer. Only a stream that breaks off is the caller's to repeat. */
export function patientReads(store: StoreReads, options: PatientReadsOptions): StoreReads {
  const { patience, clock, signal } = options;
  const slow = { signal, timeoutMs: WHOLE_MS };
  const quick = { signal, timeoutMs: STALL_MS };
  return {
    get: (key, rest) => patience.insist((signal) => store.get(key, { ...rest, signal }), slow),
    // A bucket or folder that is not there may be put in place at any time.
    list: (prefix, rest) =>
      patience.insist((signal) => store.list(prefix, { ...rest, signal }), {
        ...quick,
        missingIsTrouble: true,
      }),
    stream: async (key, rest) => {
      // Not the signal of one try: that one ends when the stream begins.
      const open = (): Promise<ReadableStream<Uint8Array>> =>
        store.stream(key, { ...rest, signal });
      return guarded(await patience.insist(open, quick), { key, clock });
    },
  };
}

/** The same stream; fails where nothing comes any more. */
function guarded(
  stream: ReadableStream<Uint8Array>,
  { key, clock }: { readonly key: string; readonly clock: Clock },
): ReadableStream<Uint8Array> {
  const reader = stream.getReader();
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const late = Promise.withResolvers<never>();
      const cancel = clock.after(STALL_MS, () =>
        late.reject(
          new StoreError("unavailable", `Cannot read "${key}": nothing came for ${STALL_MS} ms`),
        ),
      );
      try {
        const { done, value } = await Promise.race([reader.read(), late.promise]);
        if (done) controller.close();
        else controller.enqueue(value);
      } catch (error) {
        // Not awaited: a stream that hangs may hang here too.
        void reader.cancel().catch(() => undefined);
        throw error;
      } finally {
        cancel();
      }
    },
    cancel: (reason) => reader.cancel(reason),
  });
}
