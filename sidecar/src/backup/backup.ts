import type { Clock } from "../platform/clock.ts";
import type { Logger } from "../platform/log.ts";
import type { CountingStore } from "../store/counting.ts";
import { probeConditionalPut } from "../store/probe.ts";
import { dropBallast, layBallast } from "../volume/ballast.ts";
import type { Owner } from "../volume/dir.ts";
import { OWN_FOLDER, updateMarker, whyNotReady } from "../volume/marker.ts";
import type { Root } from "../volume/root.ts";
import { dispose } from "./commit/batch.ts";
import { lastSyncFile } from "./commit/last-sync.ts";
import type { BackupStatus, ReplicatorEvent } from "./commit/replicator-status.ts";
import { Replicator } from "./commit/replicator.ts";
import { keys } from "./format/format.ts";
import { Index } from "./index.ts";
import { Checkpoints } from "./keep/checkpoints.ts";
import { Nightly } from "./keep/nightly.ts";
import { DirtySet } from "./notice/dirty.ts";
import {
  IGNORE_FILE,
  RULE_FOLDERS,
  createIgnore,
  readRules,
  type Ignore,
} from "./notice/ignore.ts";
import { Rewatch } from "./notice/rewatch.ts";
import type { ScanRequest } from "./notice/scanner.ts";
import { Scanner } from "./notice/scanner.ts";
import { Watcher } from "./notice/watcher.ts";
import type { PatienceOptions } from "./patience.ts";
import { cleanCopies } from "./read/copy-folder.ts";
import { ReadContext } from "./read/read-context.ts";
import { readPath } from "./read/reader.ts";
import { whyRefused } from "./refusal.ts";
import { backupWarnings, type Noticed } from "./warnings.ts";

/** People are reminded of a mass deletion for so long. */
const REMIND_MS = 86_400_000;

/** Where the index of a volume is. */
function indexPath(root: Root): string {
  return `${root.path}/${OWN_FOLDER}/index.sqlite`;
}

export interface BackupOptions {
  /** The volume, without private folders. */
  readonly root: Root;
  readonly user: string;
  readonly machine: string;
  /** The user's `backup/` prefix. */
  readonly store: CountingStore;
  /** See PatienceOptions. */
  readonly renewed?: PatienceOptions["renewed"];
  /** Closed by whoever opened it. */
  readonly index: Index;
  /** Who owns the databases: they are opened as this user. */
  readonly agent?: Owner | undefined;
  readonly fence: "on" | "off";
  readonly clock: Clock;
  readonly log: Logger;
  readonly onEvent: (event: ReplicatorEvent) => void;
}

/** What keeps the store up with a volume that is ready: the watcher, the scans, the reader and the commits, as one part. */
export class Backup {
  readonly name = "replicator";
  readonly #options: BackupOptions;
  readonly #context: ReadContext;
  readonly #watcher: Watcher;
  readonly #rewatch: Rewatch;
  readonly #scanner: Scanner;
  readonly #replicator: Replicator;
  readonly #nightly: Nightly;
  readonly #ending = new AbortController();
  #nights: Promise<void> | undefined;
  #scanErrors: Noticed["errors"] = [];
  #unwatched: string | undefined;
  #massDeletion: Noticed["massDeletion"];
  #ignore: Ignore;

  constructor(options: BackupOptions) {
    this.#options = options;
    const { root, index, agent, clock, log, store } = options;
    this.#ignore = createIgnore(readRules(root));
    const dirty = new DirtySet({ clock, onDue: () => this.#replicator.wake() });
    this.#context = new ReadContext({
      root,
      index,
      ignore: this.#ignore,
      clock,
      agent,
      onRest: (path, ms) => dirty.rest(path, ms),
    });
    this.#rewatch = new Rewatch(clock);
    this.#watcher = new Watcher({
      path: root.path,
      ignore: () => this.#ignore,
      isDatabase: (path) => isDatabase(index, path),
      onDirty: (path, kind) => {
        if (isRuleFile(path)) this.#reloadRules();
        dirty.hint(path, kind);
      },
      onLost: (kind, reason) => {
        if (kind === "failed") this.#unwatched = reason;
        // The scan that tried again goes on anyway.
        if (kind === "failed" && !this.#rewatch.failed()) return;
        log.warn({ kind, reason }, "Changes may have gone unseen; the volume is scanned");
        this.#replicator.rescan();
      },
    });
    this.#scanner = new Scanner({ volume: root.path, index: indexPath(root) });
    const snapshot = (): Index => new Index(indexPath(root), { readonly: true }).freeze();
    this.#replicator = new Replicator({
      ...options,
      onEvent: (event) => this.#onEvent(event),
      dirty,
      read: (path) => readPath(path, this.#context),
      isDatabase: (path) => this.#context.isDatabase(path),
      onEnding: () => this.#context[Symbol.dispose](),
      scan: (request) => this.#scan(request),
      probe: (signal) => probeConditionalPut(store, keys.probe, { signal, clock }),
      refuse: () => whyRefused(root, options.user),
      isWatching: () => this.#watcher.isWatching,
      makeRoom: () => this.#makeRoom(),
      lastSync: lastSyncFile(root, log),
      onRecorded: () => this.#context.startBatch(),
      counts: () => store.counts,
      checkpoints: new Checkpoints({
        ...options,
        snapshot,
        onDue: () => this.#context.checkAll(),
      }),
    });
    this.#nightly = new Nightly({
      ...options,
      snapshot,
      writer: this.#replicator,
      isBusy: () => this.#isBusy(),
    });
  }

  async start(signal: AbortSignal): Promise<void> {
    this.#notePosition();
    await cleanCopies(this.#options.root);
    this.#rewatch.begin();
    await this.#watcher.start();
    await this.#replicator.start(signal);
    this.#nights = this.#nightly.run(AbortSignal.any([signal, this.#ending.signal]));
  }

  /** Scans and commits what is left, as far as the signal allows. */
  async stop(signal: AbortSignal): Promise<void> {
    this.#ending.abort(new Error("The backup was stopped"));
    await this.#watcher.stop();
    await this.#nights;
    await this.#replicator.stop(signal);
    await this.#scanner.close();
    this.#context[Symbol.dispose]();
    this.#notePosition();
  }

  /** Resolves when what is on the volume now is durable in the store. */
  flush(signal: AbortSignal): Promise<{ readonly position: number; readonly lagMs: number }> {
    return this.#replicator.flush(signal);
  }

  status(): BackupStatus {
    const status = this.#replicator.status();
    const massDeletion = this.#massDeletion;
    const now = this.#options.clock.now();
    const warnings = backupWarnings({
      ...status,
      errors: this.#scanErrors,
      unwatched: this.#watcher.isWatching ? undefined : this.#unwatched,
      restless: this.#context.restless,
      massDeletion: massDeletion && now - massDeletion.at < REMIND_MS ? massDeletion : undefined,
    });
    return { ...status, ...this.#nightly.status(), warnings };
  }

  #onEvent(event: ReplicatorEvent): void {
    if (event.type === "mass_delete") {
      const position = Number(event.details?.["position"] ?? 0);
      this.#massDeletion = { message: event.message, position, at: this.#options.clock.now() };
    }
    this.#options.onEvent(event);
  }

  #isBusy(): "idle" | "busy" | "away" {
    const { state, pendingFiles } = this.#replicator.status();
    if (state === "idle") return pendingFiles === 0 ? "idle" : "busy";
    return state === "committing" ? "busy" : "away";
  }

  /** Keeps the position beside the marker as well, for a boot that finds no index. */
  #notePosition(): void {
    const { root, index, user, log } = this.#options;
    try {
      const position = index.head()?.position;
      if (position !== undefined && whyNotReady(root, user) === undefined)
        updateMarker(root, { position });
    } catch (error) {
      log.warn({ error }, "Cannot write the position to the volume's marker");
    }
  }

  async #scan(request: ScanRequest): ReturnType<Scanner["scan"]> {
    this.#reloadRules();
    // Watching that has failed is tried again with each look at the whole volume.
    const mayWatch = request.path === undefined && !this.#ending.signal.aborted;
    if (mayWatch && !this.#watcher.isWatching && this.#rewatch.begin()) await this.#watcher.start();
    const result = await this.#scanner.scan(request);
    this.#clean(result.leftovers);
    if (request.path === undefined) {
      this.#scanErrors = result.errors;
      await this.#keepRoom();
    }
    return result;
  }

  /** So that commits can be recorded on a volume that somebody has filled, as long as that lasts. */
  async #keepRoom(): Promise<void> {
    const { root, log } = this.#options;
    try {
      await layBallast(root);
    } catch (error) {
      log.debug({ error }, "Cannot keep room for a full volume");
    }
  }

  #makeRoom(): boolean {
    const { root, log } = this.#options;
    const isFreed = dropBallast(root);
    if (isFreed) log.warn({}, "The volume is full; the room kept for commits is used now");
    return isFreed;
  }

  #reloadRules(): void {
    this.#ignore = createIgnore(readRules(this.#options.root));
    this.#context.ignore = this.#ignore;
  }

  /** Removes what killed writes have left behind. */
  #clean(leftovers: readonly string[]): void {
    const { root, log } = this.#options;
    for (const path of leftovers) {
      try {
        using place = root.place(path, { links: "refuse" });
        place.dir.unlink(place.name);
      } catch (error) {
        // Gone or moved by now, or the disk will not have it: the next scan looks again.
        log.debug({ path, error }, "Cannot remove an unfinished file");
      }
    }
    if (leftovers.length > 0) log.info({ files: leftovers.length }, "Removed unfinished files");
  }
}

/** True if the tree on the volume is the one that the index describes. Reads what looks changed: a new stamp alone says nothing. */
export async function treeEqualsIndex(
  index: Index,
  options: {
    readonly root: Root;
    readonly agent?: Owner | undefined;
    readonly clock: Clock;
    readonly signal: AbortSignal;
  },
): Promise<boolean> {
  const { root, agent, clock, signal } = options;
  const paths: string[] = [];
  const scanner = new Scanner({ volume: root.path, index: indexPath(root) });
  const { outcome, gone } = await scanner.scan({
    signal,
    onBatch: (batch) => void paths.push(...batch.changed),
  });
  signal.throwIfAborted();
  if (outcome !== "complete" || gone > 0) return false;
  using context = new ReadContext({
    root,
    index,
    ignore: createIgnore(readRules(root)),
    clock,
    agent,
  });
  for (const path of paths) {
    signal.throwIfAborted();
    const reading = await readPath(path, context);
    dispose([reading]);
    // What is never backed up, or cannot be, is no difference to the history.
    const isOutside = reading.kind === "skipped" || reading.kind === "gone";
    if (reading.kind === "changed" || (isOutside && index.get(path))) return false;
  }
  return true;
}

function isDatabase(index: Index, path: string): boolean {
  const entry = index.get(path)?.entry;
  return entry?.type === "file" && entry.sqlite === true;
}

function isRuleFile(path: string): boolean {
  return RULE_FOLDERS.some((folder) => path === `${folder}/${IGNORE_FILE}`);
}
