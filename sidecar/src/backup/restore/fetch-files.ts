import { nextTurn, type Clock } from "../../platform/clock.ts";
import { isStoreError } from "../../store/store.ts";
import type { Root } from "../../volume/root.ts";
import { isVolumeError } from "../../volume/volume-error.ts";
import { isCodecError } from "../format/codec-error.ts";
import type { FileEntry } from "../format/format.ts";
import { WHOLE_BYTES, type Contents } from "../history/contents.ts";
import { forEachParallel } from "../history/parallel.ts";
import type { PlannedFile } from "./restore-plan.ts";
import type { Staging } from "./staging.ts";

/** Files that are fetched at the same time. Source: backup.md, "Restore". */
const PARALLEL = 16;
/** After so long others get their turn. */
const TURN_MS = 8;
/** A stream that breaks off is begun again so often; the requests themselves are repeated by the store. */
const STREAM_TRIES = 5;

export interface FailedFile {
  readonly file: PlannedFile;
  /** `missing`: the store does not have it, or not any more. `damaged`: it has something else. */
  readonly reason: "missing" | "damaged";
}

/** A volume whose files are taken instead of fetched. */
export interface LocalFiles {
  readonly root: Root;
  /** Whether the volume is believed to have the content at the path; it is verified all the same. */
  readonly has: (entry: FileEntry) => boolean;
}

export interface FetchOptions {
  readonly staging: Staging;
  readonly contents: Contents;
  readonly clock: Clock;
  readonly signal?: AbortSignal | undefined;
  /** Files that an earlier run staged and that have to be verified first. */
  readonly left: ReadonlyMap<string, unknown>;
  readonly local?: LocalFiles | undefined;
  readonly onDone: (file: PlannedFile) => void;
}

/** Brings all `files` into the staging folder, verified. Those whose content cannot be had are returned. */
export async function fetchFiles(
  files: Iterable<PlannedFile>,
  options: FetchOptions,
): Promise<FailedFile[]> {
  const failed: FailedFile[] = [];
  const { clock, signal } = options;
  let turnAt = clock.monotonic();
  const fetchOne = async (file: PlannedFile): Promise<void> => {
    // What is in hand is written without waiting for anything.
    if (clock.monotonic() - turnAt > TURN_MS) {
      await nextTurn();
      turnAt = clock.monotonic();
    }
    const reason = await fetchFile(file.entry, options);
    if (reason === undefined) options.onDone(file);
    else failed.push({ file, reason });
  };
  await forEachParallel(files, fetchOne, { limit: PARALLEL, signal });
  return failed;
}

async function fetchFile(
  entry: FileEntry,
  options: FetchOptions,
): Promise<FailedFile["reason"] | undefined> {
  const { staging, contents, left, local } = options;
  if (left.has(entry.path) && (await staging.verify(entry))) return undefined;
  if (local?.has(entry) === true && (await takeLocal(entry, { local, staging }))) return undefined;
  const inHand = contents.inHand(entry);
  if (inHand && staging.writeNow(entry, inHand)) return undefined;
  const first = await fetchContent(entry, options);
  if (first === undefined) return undefined;
  // It may have been damaged on its way.
  contents.forget(entry);
  return fetchContent(entry, options);
}

async function fetchContent(
  entry: FileEntry,
  { staging, contents, clock, signal }: FetchOptions,
): Promise<FailedFile["reason"] | undefined> {
  for (let tries = 1; ; tries += 1) {
    try {
      const pieces = contents.read(entry);
      const whole =
        entry.size <= WHOLE_BYTES
          ? staging.writeNow(entry, await Array.fromAsync(pieces))
          : await staging.write(entry, pieces);
      return whole ? undefined : "damaged";
    } catch (error) {
      signal?.throwIfAborted();
      if (isStoreError(error, "missing")) return "missing";
      if (isCodecError(error, "corrupt")) return "damaged";
      const passing = isStoreError(error, "unavailable", "throttled");
      if (!passing || tries === STREAM_TRIES) throw error;
      await clock.sleep(tries * 200, signal);
    }
  }
}

/** Takes the file from the volume itself, through no link. */
async function takeLocal(
  entry: FileEntry,
  { local, staging }: { readonly local: LocalFiles; readonly staging: Staging },
): Promise<boolean> {
  try {
    using place = local.root.place(entry.path, { links: "refuse" });
    return await staging.take(entry, place);
  } catch (error) {
    if (isVolumeError(error) && error.kind !== "failing" && error.kind !== "no_space") return false;
    throw error;
  }
}
