import type { Clock } from "../../platform/clock.ts";
import type { Owner } from "../../volume/dir.ts";
import { readMarker, writeMarker, type Marker } from "../../volume/marker.ts";
import type { Root } from "../../volume/root.ts";
import { syncFileSystem } from "../../volume/sync-file-system.ts";
import type { DecodedCommit } from "../format/codec.ts";
import type { FileEntry } from "../format/format.ts";
import { Contents } from "../history/contents.ts";
import { foldTree, type FoldedTree, type StoreReads } from "../history/history.ts";
import type { Index, IndexedEntry } from "../index.ts";
import { UNRESTORED, stampOf } from "../stamp.ts";
import { buildTree, type BuildResult, type Unrestored } from "./build-tree.ts";
import type { LocalFiles } from "./fetch-files.ts";
import { bringBack, findUnknown, readKept, writeKept } from "./kept.ts";
import { STAGED_TREE, STAGING_NAME, holdsOwn, placeTree, removeOwn } from "./place.ts";
import { ProgressMeter, type Progress } from "./progress.ts";
import { RestoreError } from "./restore-error.ts";
import { planRestore } from "./restore-plan.ts";
import { Staging } from "./staging.ts";

export interface RestoreOptions {
  /** The volume, without private folders. */
  readonly root: Root;
  readonly store: StoreReads;
  readonly user: string;
  readonly clock: Clock;
  /** Opens the index; asked only once the marker stands. It stays the caller's. */
  readonly openIndex: () => Index;
  /**
   * `whole`: onto a volume that is empty or damaged; what is there is put aside. `forward`: onto an older copy whose every
   * change is in the history; what it has already is not fetched, what is never backed up stays, the rest goes.
   */
  readonly kind: "whole" | "forward";
  readonly owner?: Owner | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (progress: Progress) => void;
  /** Called after each step with its name: what came before is done, and durable where it matters. */
  readonly onStep?: (step: string) => void;
}

export interface RestoreResult {
  readonly position: number;
  readonly files: number;
  readonly bytes: number;
  readonly durationMs: number;
  readonly unrestored: readonly Unrestored[];
  /** The folder with what was in the way, undefined where nothing was. */
  readonly replaced: string | undefined;
}

/**
 * Brings the newest tree of the history to the volume: staged, verified, then moved into place. The marker says
 * `restoring` from before the first byte until all is in place; cut off at any point and run again, it goes on with what
 * is staged, after verifying it. One run per object.
 */
export class Restore {
  readonly #options: RestoreOptions;
  readonly #meter: ProgressMeter;

  constructor(options: RestoreOptions) {
    this.#options = options;
    this.#meter = new ProgressMeter(options.clock, options.onProgress);
  }

  get progress(): Progress {
    return this.#meter.progress;
  }

  /** Throws RestoreError, HistoryError, CodecError `newer`, StoreError, VolumeError, and the signal's reason; the staging is kept. */
  async run(): Promise<RestoreResult> {
    const { clock, root, user, kind } = this.#options;
    const start = clock.monotonic();
    const reading = readMarker(root);
    const before = reading.kind === "ok" ? reading.marker : undefined;
    const cutOff = before?.state === "restoring" ? before.restore : undefined;
    let built: BuildResult | undefined;
    let placing = cutOff?.phase === "placing" ? before : undefined;
    if (!placing) {
      // Left by a restore that was cut off after its end.
      if (!cutOff) await removeOwn(root, STAGING_NAME);
      const restore = {
        phase: "staging",
        kind: cutOff?.kind ?? kind,
        replaced: cutOff?.replaced ?? `replaced-${clock.now()}`,
      } as const;
      const started = {
        position: 0,
        ...before,
        version: 1,
        user,
        state: "restoring",
        restore,
      } as const;
      ({ built, placing } = await this.#stage(started));
    }
    await this.#place(placing);
    if (built) this.#restamp();
    const replaced = placing.restore?.replaced ?? "";
    return {
      position: placing.position,
      files: built?.files ?? 0,
      bytes: built?.bytes ?? 0,
      durationMs: clock.monotonic() - start,
      unrestored: built?.unrestored ?? [],
      replaced: holdsOwn(root, replaced) ? replaced : undefined,
    };
  }

  /** All up to the point where nothing of the store is needed any more. Returns the marker that says so. */
  async #stage(
    marker: Marker & { readonly restore: object },
  ): Promise<{ readonly built: BuildResult; readonly placing: Marker }> {
    const { root, store, signal, owner, clock } = this.#options;
    const contents = new Contents(store, { signal });
    const fold = async (): Promise<FoldedTree> => {
      const onCommit = (decoded: DecodedCommit): void => contents.remember(decoded);
      const tree = await foldTree(store, { signal, onCommit });
      if (!tree) throw new RestoreError("no_history", "Cannot restore: the store has no commits");
      writeMarker(root, { ...marker, position: tree.head.position });
      this.#step("marked");
      return tree;
    };
    let tree = await fold();
    const index = this.#options.openIndex();
    const local = marker.restore?.kind === "forward" ? await this.#localFiles(index) : undefined;
    using base = root.dir(STAGED_TREE, { links: "refuse", create: { mode: 0o700 } });
    using staging = new Staging(base, { owner });
    const built = await buildTree({
      plan: async (again) => {
        if (again) tree = await fold();
        return { plan: planRestore(tree.entries), position: tree.head.position };
      },
      staging,
      contents,
      store,
      base,
      clock,
      signal,
      local,
      meter: this.#meter,
    });
    this.#step("staged");
    await syncFileSystem(base);
    this.#step("synced");
    const { head, checkpoint, headers } = tree;
    await index.fillGradually({ head, checkpoint, headers, entries: built.items });
    this.#step("filled");
    const restore = { ...marker.restore, phase: "placing" as const, names: base.names() };
    const placing = { ...marker, position: head.position, restore };
    writeMarker(root, placing);
    return { built, placing };
  }

  /** Remembers what an older copy has beside the history, before anything is taken from it. */
  async #localFiles(index: Index): Promise<LocalFiles> {
    const { root, signal } = this.#options;
    if (readKept(root) === undefined) await writeKept(root, await findUnknown(root, index, signal));
    this.#step("kept");
    const has = ({ path, sha256 }: FileEntry): boolean => {
      const known = index.get(path)?.entry;
      return known?.type === "file" && known.sha256 === sha256;
    };
    return { root, has };
  }

  /** Needs nothing of the store, and is not stopped half-way by the signal. */
  async #place(marker: Marker): Promise<void> {
    const { root, owner, onStep } = this.#options;
    const { kind = "whole", replaced = "", names = [] } = marker.restore ?? {};
    onStep?.("placing");
    placeTree(root, { names, replaced, onStep });
    if (kind === "forward") {
      const isAllBack = bringBack(root, readKept(root) ?? [], { replaced, owner });
      onStep?.("brought back");
      // The rest of it is in the history.
      if (isAllBack) await removeOwn(root, replaced);
    }
    const { restore: _, ...rest } = marker;
    writeMarker(root, { ...rest, state: "ready" });
    onStep?.("ready");
    await removeOwn(root, STAGING_NAME);
  }

  /** Being moved into place is a change of the moved thing itself, which shows in the stamp of a file. */
  #restamp(): void {
    const index = this.#options.openIndex();
    using top = this.#options.root.dir("", { links: "refuse" });
    const items: IndexedEntry[] = [];
    for (const { name, type, stamp } of index.children("")) {
      const item = index.get(name);
      if (!item || type === "directory" || stamp === UNRESTORED || !top.has(name)) continue;
      items.push({ ...item, stamp: stampOf(top.lstat(name)) ?? "" });
    }
    index.restamp(items);
  }

  #step(name: string): void {
    this.#options.onStep?.(name);
    this.#options.signal?.throwIfAborted();
  }
}
