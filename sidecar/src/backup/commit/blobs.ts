import { isStoreError, type Store } from "../../store/store.ts";
import { keys } from "../format/format.ts";
import type { Index } from "../index.ts";
import { putTimeoutMs, type Patience } from "../patience.ts";
import { ContentChanged, type FreshBytes, type Reading } from "../read/reading.ts";
import { contentOf, pathOf } from "./plan.ts";

/** Blobs on their way at one time. */
const PARALLEL = 4;

export interface SendOptions {
  readonly store: Store;
  readonly index: Pick<Index, "locate" | "get">;
  readonly patience: Patience;
  readonly signal: AbortSignal;
  readonly onSent?: () => void | Promise<void>;
}

export interface SentBlobs {
  /** Hashes that stand in the store now, with their sizes. */
  readonly sent: ReadonlyMap<string, number>;
  /** Paths whose content was not what it had been; nothing was stored of them. */
  readonly failures: readonly { readonly path: string; readonly error: unknown }[];
}

type Source = Extract<FreshBytes, { kind: "blob" }>["source"];

/**
 * Sends what a batch needs to have in the store before its commit names it. Waits for the store as long as it takes; a file
 * that changed or vanished while it was sent is handed back and holds up nothing. Throws the signal's reason.
 */
export async function sendBlobs(
  readings: readonly Reading[],
  options: SendOptions,
): Promise<SentBlobs> {
  const queue = [...wantedBlobs(readings, options.index)];
  const sent = new Map<string, number>();
  const failures: { path: string; error: unknown }[] = [];
  const work = async (): Promise<void> => {
    for (let next = queue.shift(); next; next = queue.shift()) {
      const [hash, candidates] = next;
      // The same content may lie under several paths: the first that still has it will do.
      for (const { path, source } of candidates) {
        try {
          await sendBlob(hash, source, options);
        } catch (error) {
          if (options.signal.aborted || isStoreError(error)) throw error;
          failures.push({ path, error });
          continue;
        }
        sent.set(hash, source.sizeBytes);
        await options.onSent?.();
        break;
      }
    }
  };
  const workers = await Promise.allSettled(
    Array.from({ length: Math.min(PARALLEL, queue.length) }, work),
  );
  for (const worker of workers) if (worker.status === "rejected") throw worker.reason;
  return { sent, failures };
}

function wantedBlobs(
  readings: readonly Reading[],
  index: SendOptions["index"],
): Map<string, { readonly path: string; readonly source: Source }[]> {
  const wanted = new Map<string, { path: string; source: Source }[]>();
  for (const reading of readings) {
    const blob = blobOf(reading, index);
    if (!blob) continue;
    const candidates = wanted.get(blob.sha256) ?? [];
    candidates.push({ path: pathOf(reading), source: blob.source });
    wanted.set(blob.sha256, candidates);
  }
  return wanted;
}

/** What of a reading is to be sent by itself; undefined where that is nothing, or would be in vain. */
function blobOf(
  reading: Reading,
  index: SendOptions["index"],
): { readonly sha256: string; readonly source: Source } | undefined {
  const content = contentOf(reading);
  if (reading.kind !== "changed" || !content || content.kind === "inline") return undefined;
  const { entry } = reading.item;
  if (entry.type !== "file" || index.locate(entry.sha256)) return undefined;
  if (content.kind === "blob") return { sha256: entry.sha256, source: content.source };
  if (content.fresh.kind === "inline") return undefined;
  const known = index.get(entry.path)?.entry;
  return known?.type === "file" && known.sha256 === content.base ? content.fresh : undefined;
}

async function sendBlob(hash: string, source: Source, options: SendOptions): Promise<void> {
  const { store, patience, signal } = options;
  const key = keys.blob(hash);
  const timeoutMs = putTimeoutMs(source.sizeBytes);
  const put = (ifAbsent: boolean): Promise<void> =>
    patience.insist(
      async (signal) => {
        try {
          await store.put(key, source, { ifAbsent, signal });
        } catch (error) {
          // However a store wraps it: asking again cannot bring the old content back.
          throw contentChangedIn(error) ?? error;
        }
      },
      { signal, timeoutMs, missingIsTrouble: true },
    );
  try {
    await put(true);
    return;
  } catch (error) {
    if (isStoreError(error, "unsupported")) {
      // Content under its own hash needs no condition, it only saves sending it twice.
      await put(false);
      return;
    }
    if (!isStoreError(error, "exists")) throw error;
  }
  const there = await patience.insist((signal) => store.head(key, { signal }), {
    signal,
    timeoutMs: putTimeoutMs(0),
  });
  // Mostly it is whole: from a commit that was cut off, or of another tree.
  if (there?.sizeBytes !== source.sizeBytes) await put(false);
}

function contentChangedIn(error: unknown): ContentChanged | undefined {
  for (let depth = 0; depth < 5 && error instanceof Error; depth += 1) {
    if (error instanceof ContentChanged) return error;
    error = error.cause;
  }
  return undefined;
}
