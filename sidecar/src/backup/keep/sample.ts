import type { Clock } from "../../platform/clock.ts";
import { isStoreError, type Store } from "../../store/store.ts";
import { keys } from "../format/format.ts";
import { putTimeoutMs } from "../patience.ts";
import { withinTime } from "../within-time.ts";
import { eachObject } from "./listing.ts";

/** What one night reads back; a single larger blob is read all the same. */
const MAX_BYTES = 64 * 1024 * 1024;
const MAX_BLOBS = 20;

export interface SampleOptions {
  readonly store: Pick<Store, "list" | "stream">;
  /** The last key of the sample before this one; "" to begin at the first. */
  readonly after: string;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

export interface Sample {
  readonly blobs: number;
  readonly bytes: number;
  /** Hashes of blobs that do not have their content. */
  readonly bad: readonly string[];
  /** For the next sample: in time every blob is read. */
  readonly next: string;
}

/** Reads some blobs back and compares them with their names. A blob that vanishes meanwhile is none. Throws the store's errors. */
export async function readSample({ store, after, clock, signal }: SampleOptions): Promise<Sample> {
  let blobs = 0;
  let bytes = 0;
  let next = "";
  const bad: string[] = [];
  const from = after === "" ? {} : { after };
  for await (const { key, sizeBytes } of eachObject(store, keys.blobs, { ...from, signal })) {
    const isFull = blobs >= MAX_BLOBS || bytes + sizeBytes > MAX_BYTES;
    if (isFull && blobs > 0) return { blobs, bytes, bad, next };
    next = key;
    const hash = key.slice(keys.blobs.length);
    if (!/^[0-9a-f]{64}$/.test(hash)) continue;
    const limits = { clock, signal, limitMs: putTimeoutMs(sizeBytes) };
    const isGood = (): Promise<boolean> =>
      withinTime((signal) => hasContent(store, { key, hash, signal }), limits);
    // Damage may have happened on the way.
    if (!(await isGood()) && !(await isGood())) bad.push(hash);
    blobs += 1;
    bytes += sizeBytes;
  }
  return { blobs, bytes, bad, next: "" };
}

async function hasContent(
  store: Pick<Store, "stream">,
  {
    key,
    hash,
    signal,
  }: { readonly key: string; readonly hash: string; readonly signal: AbortSignal },
): Promise<boolean> {
  const hasher = new Bun.CryptoHasher("sha256");
  try {
    const stream = await store.stream(key, { signal });
    for await (const chunk of stream) {
      signal.throwIfAborted();
      hasher.update(chunk);
    }
  } catch (error) {
    if (isStoreError(error, "missing")) return true;
    throw error;
  }
  return hasher.digest("hex") === hash;
}
