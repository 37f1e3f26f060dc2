import type { Clock } from "../../platform/clock.ts";
import type { StoreReads } from "../history/history.ts";
import { withinTime } from "../within-time.ts";

const LIST_MS = 60_000;
/** What the largest manifest may take, at 100 KB a second. */
const GET_MS = 20 * 60_000;

/** The same store, whose answers fail with `unavailable` where they do not come: nightly work can be left until tomorrow. */
export function timedReads(
  store: StoreReads,
  { clock, signal }: { readonly clock: Clock; readonly signal: AbortSignal },
): StoreReads {
  return {
    get: (key, options) =>
      withinTime((signal) => store.get(key, { ...options, signal }), {
        clock,
        signal,
        limitMs: GET_MS,
      }),
    list: (prefix, options) =>
      withinTime((signal) => store.list(prefix, { ...options, signal }), {
        clock,
        signal,
        limitMs: LIST_MS,
      }),
    stream: (key, options) => store.stream(key, { ...options, signal }),
  };
}
