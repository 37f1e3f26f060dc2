import { isStoreError, type ObjectInfo, type Store } from "../../store/store.ts";
import { isCodecError } from "../format/codec-error.ts";
import { decodeCommit, type DecodedCommit } from "../format/codec.ts";
import {
  keys,
  positionOf,
  type CheckpointHeader,
  type CommitHeader,
  type Entry,
} from "../format/format.ts";
import { decodeManifest } from "../format/manifest.ts";
import type { Head } from "../index.ts";
import { Tree } from "./fold.ts";

/** So many commits are read at the same time, and at most so many compressed bytes of them, but at least one. */
const WINDOW_COMMITS = 16;
const WINDOW_BYTES = 8 * 1024 * 1024;
const COLLECT_BYTES = 8 * 1024 * 1024;

export type HistoryErrorKind =
  /** Something that must be there is not: a removal raced, or it is lost. Planning again may help. */
  | "incomplete"
  /** What is there contradicts itself or is damaged. */
  | "broken"
  /** There is no such position, or not any more. */
  | "unknown_position";

/** The history cannot be read. A newer format is a CodecError `newer`, a store that does not answer a StoreError. */
export class HistoryError extends Error {
  readonly kind: HistoryErrorKind;

  constructor(kind: HistoryErrorKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "HistoryError";
    this.kind = kind;
  }
}

/** What reading the history needs of a store. */
export type StoreReads = Pick<Store, "get" | "stream" | "list">;

export interface ReadOptions {
  readonly signal?: AbortSignal | undefined;
}

/** The tree at one position of the history. */
export interface FoldedTree {
  readonly head: Head;
  /** The checkpoint it was built from; undefined where it was built from the first commit on. */
  readonly checkpoint: { readonly position: number; readonly time: number } | undefined;
  /** Of the commits after the checkpoint, oldest first. */
  readonly headers: readonly CommitHeader[];
  readonly entries: ReadonlyMap<string, Entry>;
}

export interface FoldOptions extends ReadOptions {
  /** The position wanted; the newest by default. */
  readonly at?: number | undefined;
  /** Sees each commit on its way, oldest first: its contents are in hand for a moment. */
  readonly onCommit?: (decoded: DecodedCommit) => void;
}

/** The newest position, 0 where there is no commit. `known` is one that was seen before: LIST starts there. */
export async function readHead(
  store: StoreReads,
  options: ReadOptions & { readonly known?: number | undefined } = {},
): Promise<number> {
  const { known = 0, signal } = options;
  if (known > 1) {
    const newer = (await listCommits(store, { after: known - 1, signal })).at(-1);
    if (newer) return newer.position;
    // Not even the known one is there: look at all there is before saying so.
  }
  const checkpoint = await newestCheckpoint(store, { signal });
  const after = checkpoint === undefined ? 0 : checkpoint - 1;
  const last = (await listCommits(store, { after, signal })).at(-1);
  if (last || after === 0) return last?.position ?? 0;
  return (await listCommits(store, { after: 0, signal })).at(-1)?.position ?? 0;
}

/** The position of the newest checkpoint, at or before a position where one is given; undefined if there is none. */
export async function newestCheckpoint(
  store: StoreReads,
  options: ReadOptions & { readonly atOrBefore?: number | undefined } = {},
): Promise<number | undefined> {
  return (await checkpointsBefore(store, options))[0];
}

/** The positions that commits and checkpoints are there for, newest first. */
export async function listPositions(
  store: StoreReads,
  options: ReadOptions & { readonly atOrBefore: number },
): Promise<{ readonly commits: readonly number[]; readonly checkpoints: readonly number[] }> {
  const { atOrBefore, signal } = options;
  const commits = (await listCommits(store, { after: 0, signal }))
    .map(({ position }) => position)
    .filter((position) => position <= atOrBefore)
    .toReversed();
  return { commits, checkpoints: await checkpointsBefore(store, options) };
}

/** Throws HistoryError (`incomplete`, `broken`). */
export async function readCommit(
  store: StoreReads,
  position: number,
  options: ReadOptions = {},
): Promise<DecodedCommit> {
  const key = keys.commit(position);
  const decoded = await readTwice(key, async () =>
    decodeCommit(await store.get(key, options), { key }),
  );
  if (decoded.commit.position === position) return decoded;
  throw new HistoryError(
    "broken",
    `Cannot use "${key}": it says that it is position ${decoded.commit.position}`,
  );
}

/** A checkpoint's header, its entries put into `tree`. Throws HistoryError (`incomplete`, `broken`). */
export async function readCheckpoint(
  store: StoreReads,
  position: number,
  options: ReadOptions = {},
): Promise<{ readonly header: CheckpointHeader; readonly tree: Tree }> {
  const key = keys.manifest(position);
  return readTwice(key, async () => {
    const { header, entries } = await decodeManifest(await store.get(key, options), { key });
    const tree = new Tree();
    for await (const entry of entries) tree.put(entry);
    if (header.position === position) return { header, tree };
    throw new HistoryError(
      "broken",
      `Cannot use "${key}": it says that it is position ${header.position}`,
    );
  });
}

/**
 * The whole tree at a position: the newest checkpoint at or before it and the commits since. Undefined where there is no
 * commit at all. What vanishes while it is read is looked for again once, from a newer checkpoint perhaps.
 */
export async function foldTree(
  store: StoreReads,
  options: FoldOptions = {},
): Promise<FoldedTree | undefined> {
  try {
    return await foldOnce(store, options);
  } catch (error) {
    if (!(error instanceof HistoryError) || error.kind !== "incomplete") throw error;
    return foldOnce(store, options);
  }
}

async function foldOnce(store: StoreReads, options: FoldOptions): Promise<FoldedTree | undefined> {
  const { at, signal } = options;
  const base = await readBase(store, options);
  const listed = await listCommits(store, { after: base.position, signal });
  const last = listed.at(-1)?.position ?? base.position;
  if (last === 0 && at === undefined) return undefined;
  const wanted = at ?? last;
  if (wanted > last) {
    throw new HistoryError(
      "unknown_position",
      `Cannot read position ${wanted}: the last is ${last}`,
    );
  }
  const todo = listed.filter(({ position }) => position <= wanted);
  checkNoHole(todo, { from: base.position, to: wanted });

  const headers: CommitHeader[] = [];
  let head = base.head;
  let decoded = 0;
  for (const window of windowsOf(todo)) {
    signal?.throwIfAborted();
    // Decoded contents do not make Bun collect any sooner: left to itself, it would hold those of many windows.
    decoded += window.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    if (decoded > COLLECT_BYTES) {
      Bun.gc(true);
      decoded = 0;
    }
    const commits = await Promise.all(
      window.map(({ position }) => readCommit(store, position, { signal })),
    );
    for (const read of commits) {
      const { entries, deleted, ...header } = read.commit;
      if (head ? header.parent !== head.id : header.parent !== undefined) {
        throw new HistoryError(
          "broken",
          `Cannot use "${keys.commit(header.position)}": it does not follow the commit before it`,
        );
      }
      base.tree.apply({ entries, deleted });
      headers.push(header);
      head = { position: header.position, id: header.id, time: header.time };
      options.onCommit?.(read);
    }
  }
  if (!head) throw new HistoryError("unknown_position", `Cannot read position ${wanted}`);
  return { head, checkpoint: base.checkpoint, headers, entries: base.tree.entries };
}

interface Base {
  readonly position: number;
  readonly head: Head | undefined;
  readonly checkpoint: { readonly position: number; readonly time: number } | undefined;
  readonly tree: Tree;
}

/** The newest checkpoint that can be used, or the empty tree before the first commit. */
async function readBase(store: StoreReads, { at, signal }: FoldOptions): Promise<Base> {
  let fault: unknown;
  for (const position of await checkpointsBefore(store, { atOrBefore: at, signal })) {
    try {
      const { header, tree } = await readCheckpoint(store, position, { signal });
      const { id, time } = header;
      return { position, head: { position, id, time }, checkpoint: { position, time }, tree };
    } catch (error) {
      // An older one and more commits say the same; it is only when none will do that this one matters.
      if (!(error instanceof HistoryError)) throw error;
      fault ??= error;
    }
  }
  const [first] = (await store.list(keys.commits, { limit: 1, signal })).objects;
  if (first && positionOf(first.key) !== 1) {
    throw new HistoryError(
      fault === undefined ? "unknown_position" : "incomplete",
      `Cannot read ${at === undefined ? "the history" : `position ${at}`}: no checkpoint can be read and the first commit kept is "${first.key}"`,
      { cause: fault },
    );
  }
  return { position: 0, head: undefined, checkpoint: undefined, tree: new Tree() };
}

interface ListedCommit {
  readonly position: number;
  readonly sizeBytes: number;
}

async function listCommits(
  store: StoreReads,
  { after, signal }: { readonly after: number; readonly signal: AbortSignal | undefined },
): Promise<ListedCommit[]> {
  const found: ListedCommit[] = [];
  const start = after > 0 ? keys.commit(after) : undefined;
  for await (const { key, sizeBytes } of listAll(store, keys.commits, { after: start, signal })) {
    const position = positionOf(key);
    if (position !== undefined) found.push({ position, sizeBytes });
  }
  return found;
}

/** Positions of checkpoints, newest first. */
async function checkpointsBefore(
  store: StoreReads,
  { atOrBefore = Infinity, signal }: ReadOptions & { readonly atOrBefore?: number | undefined },
): Promise<number[]> {
  const found: number[] = [];
  for await (const { key } of listAll(store, keys.checkpoints, { signal })) {
    const position = positionOf(key);
    if (position !== undefined && position <= atOrBefore) found.push(position);
  }
  return found.toReversed();
}

async function* listAll(
  store: StoreReads,
  prefix: string,
  options: ReadOptions & { readonly after?: string | undefined },
): AsyncGenerator<ObjectInfo> {
  let { after } = options;
  for (;;) {
    const page = await store.list(prefix, {
      signal: options.signal,
      ...(after === undefined ? {} : { after }),
    });
    yield* page.objects;
    after = page.objects.at(-1)?.key;
    if (!page.more || after === undefined) return;
  }
}

function checkNoHole(
  listed: readonly ListedCommit[],
  { from, to }: { readonly from: number; readonly to: number },
): void {
  let expected = from + 1;
  for (const { position } of listed) {
    if (position !== expected) break;
    expected += 1;
  }
  if (expected > to) return;
  throw new HistoryError(
    "incomplete",
    `Cannot read the history up to position ${to}: "${keys.commit(expected)}" is missing`,
  );
}

function* windowsOf(listed: readonly ListedCommit[]): Generator<readonly ListedCommit[]> {
  let window: ListedCommit[] = [];
  let bytes = 0;
  for (const commit of listed) {
    const full = window.length === WINDOW_COMMITS || bytes + commit.sizeBytes > WINDOW_BYTES;
    if (full && window.length > 0) {
      yield window;
      window = [];
      bytes = 0;
    }
    window.push(commit);
    bytes += commit.sizeBytes;
  }
  if (window.length > 0) yield window;
}

/** Damage may have happened on the way: what cannot be understood is fetched once more. */
async function readTwice<T>(key: string, read: () => Promise<T>): Promise<T> {
  try {
    try {
      return await read();
    } catch (error) {
      if (!isCodecError(error, "corrupt")) throw error;
      return await read();
    }
  } catch (error) {
    if (isStoreError(error, "missing")) {
      throw new HistoryError("incomplete", `Cannot read "${key}": it is missing`, { cause: error });
    }
    if (isCodecError(error, "corrupt")) {
      throw new HistoryError("broken", `Cannot use "${key}": it is damaged`, { cause: error });
    }
    throw error;
  }
}
