import { randomBytes } from "node:crypto";

import type { Clock } from "../../platform/clock.ts";
import { isStoreError, type Store } from "../../store/store.ts";
import { isCodecError } from "../format/codec-error.ts";
import { checkCommit, decodeCommit, encodeCommit } from "../format/codec.ts";
import { FORMAT, keys, positionOf, type Commit, type CommitHeader } from "../format/format.ts";
import type { Index } from "../index.ts";
import { putTimeoutMs, type Patience } from "../patience.ts";
import type { Reading } from "../read/reading.ts";
import { dispose } from "./batch.ts";
import { sendBlobs } from "./blobs.ts";
import { latest, planCommit, type Plan } from "./plan.ts";
import { Turns } from "./turns.ts";

/** After so long without a commit the numbers after ours are looked at before one is written: they may have been taken, and even removed again. */
const TRUST_MS = 3_600_000;
/** A commit that cannot be understood is fetched so often before it is believed to be like that. */
const LOOKS = 5;

/** Where a commit can be cut off. */
export type Failpoint = "blob-put" | "attempt-saved" | "commit-put" | "before-record" | "recorded";

export interface CommitterOptions {
  readonly store: Store;
  readonly index: Index;
  readonly clock: Clock;
  readonly patience: Patience;
  readonly user: string;
  readonly machine: string;
  /** "off" for a store that cannot put conditionally: then nothing keeps two machines apart. */
  readonly fence: "on" | "off";
  /** Called at each failpoint, and awaited: for tests that end the process there. */
  readonly at?: (point: Failpoint) => void | Promise<void>;
}

export interface CommitOptions {
  readonly signal: AbortSignal;
  /** Makes the commit even where nothing changed: proof that the history is still ours. */
  readonly allowEmpty?: boolean;
}

export type CommitResult =
  /** Durable in the store, and recorded. */
  | {
      readonly kind: "committed";
      readonly header: CommitHeader;
      /** Size of the commit as it stands in the store, without its blobs. */
      readonly commitBytes: number;
      /** Paths that stay dirty. */
      readonly again: readonly string[];
      /** Those of them that the history has nothing of what was read of; beside the failures. */
      readonly left: readonly string[];
      readonly failures: readonly PathFailure[];
    }
  /** There was nothing to commit. */
  | {
      readonly kind: "nothing";
      readonly again: readonly string[];
      readonly left: readonly string[];
      readonly failures: readonly PathFailure[];
    }
  /** Somebody else goes on with this history. Final: this committer never writes again. */
  | { readonly kind: "fenced"; readonly by: Holder }
  /** The store cannot put conditionally. */
  | { readonly kind: "unfenced" };

/** What is known of the commit that stands where ours should. */
export interface Holder {
  readonly position: number;
  readonly id?: string | undefined;
  readonly machine?: string | undefined;
}

/** A path that could not be sent, for a reason of its own. */
interface PathFailure {
  readonly path: string;
  readonly error: unknown;
}

type Judgement =
  | { readonly kind: "ours"; readonly commit: Commit }
  | { readonly kind: "missing" }
  | { readonly kind: "theirs"; readonly by: Holder };

type Attempt =
  | { readonly kind: "done"; readonly header: CommitHeader; readonly commitBytes: number }
  /** An earlier attempt of ours turned out to have landed; it is recorded now, and the batch comes after it. */
  | { readonly kind: "overtaken" }
  | { readonly kind: "fenced"; readonly by: Holder }
  | { readonly kind: "unfenced" };

/**
 * Writes the history: one commit at a time, each under the number after the last. The store's conditional create decides who
 * owns a number; what we tried is remembered before it is sent, so that an answer that got lost is never taken for a
 * stranger's commit, nor a stranger's for ours. Source: backup.md, "From a change to a commit".
 */
export class Committer {
  readonly #options: CommitterOptions;
  readonly #turns = new Turns();
  /** Wall time of the last proof that nothing stands after our head. */
  #provenAt: number | undefined;
  #suspicious = false;
  #fencedBy: Holder | undefined;

  constructor(options: CommitterOptions) {
    this.#options = options;
  }

  get fencedBy(): Holder | undefined {
    return this.#fencedBy;
  }

  /** The clock jumped, or the machine slept: look before the next commit. */
  suspect(): void {
    this.#suspicious = true;
  }

  /**
   * Makes one commit of `batch` and resolves when it is durable and recorded, however long the store takes. Owns the
   * contents of the readings from here on. Throws the signal's reason; whatever was thrown, the batch's paths are still dirty.
   */
  async commit(batch: readonly Reading[], options: CommitOptions): Promise<CommitResult> {
    try {
      return await this.#turns.take(() => this.#commit(latest(batch), options), options.signal);
    } finally {
      dispose(batch);
    }
  }

  /** The answer of `work`, during which no commit is under way: nothing is sent, and the index names all that the history does. */
  async between<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    return this.#turns.take(work, signal);
  }

  async #commit(readings: readonly Reading[], options: CommitOptions): Promise<CommitResult> {
    const { index, store, patience } = this.#options;
    if (this.#fencedBy) return { kind: "fenced", by: this.#fencedBy };
    const blobs = await sendBlobs(readings, {
      store,
      index,
      patience,
      signal: options.signal,
      onSent: () => this.#at("blob-put"),
    });
    const { failures } = blobs;
    for (;;) {
      const position = (index.head()?.position ?? 0) + 1;
      const plan = planCommit(readings, { index, position, sent: blobs.sent });
      if (plan.restamped.length > 0) index.restamp(plan.restamped);
      const again = [...new Set([...plan.again, ...failures.map(({ path }) => path)])];
      const { left } = plan;
      if (plan.items.length === 0 && plan.deleted.length === 0 && !options.allowEmpty)
        return { kind: "nothing", again, left, failures };
      const attempt = await this.#attempt(plan, { position, signal: options.signal });
      switch (attempt.kind) {
        case "done": {
          const { header, commitBytes } = attempt;
          return { kind: "committed", header, commitBytes, again, left, failures };
        }
        case "overtaken":
          break;
        case "fenced":
          this.#fencedBy = attempt.by;
          return attempt;
        case "unfenced":
          return attempt;
      }
    }
  }

  async #attempt(
    plan: Plan,
    { position, signal }: { readonly position: number; readonly signal: AbortSignal },
  ): Promise<Attempt> {
    const { index, patience } = this.#options;
    const commit = this.#compose(plan, position);
    await checkCommit(commit, plan.members);
    const bytes = await encodeCommit(commit, plan.members);
    // Before it is sent: a put that seems to fail may still land, at any time.
    index.addAttempt(position, commit.id);
    await this.#at("attempt-saved");
    for (let misses = 0; ; misses += 1) {
      const answer = await this.#putCommit(position, { bytes, signal });
      if (answer === "unfenced") return { kind: "unfenced" };
      if (answer === "stored") break;
      if (answer === "beyond") return { kind: "fenced", by: { position: position + 1 } };
      const found = await this.#judge(position, signal);
      if (found.kind === "theirs") return { kind: "fenced", by: found.by };
      if (found.kind === "missing") {
        // The number is refused and nothing stands there: the same again, never the next one.
        await patience.pause(misses, signal);
        continue;
      }
      if (found.commit.id === commit.id) break;
      this.#recordEarlier(found.commit);
      return { kind: "overtaken" };
    }
    await this.#at("commit-put");
    await this.#at("before-record");
    const header = headerOf(commit);
    index.record(header, { entries: plan.items, deleted: plan.deleted });
    this.#prove();
    await this.#at("recorded");
    return { kind: "done", header, commitBytes: bytes.length };
  }

  #compose(plan: Plan, position: number): Commit {
    const { index, clock, user, machine } = this.#options;
    const head = index.head();
    return {
      format: FORMAT,
      position,
      id: randomBytes(16).toString("hex"),
      ...(head ? { parent: head.id } : {}),
      user,
      machine,
      time: Math.max((head?.time ?? 0) + 1, Math.floor(clock.now())),
      changed: plan.items.length,
      deletedCount: plan.deletedCount,
      bytes: plan.bytes,
      entries: plan.items.map(({ entry }) => entry),
      deleted: [...plan.deleted],
    };
  }

  /** Puts a commit under its number. "taken": something stands there; "beyond": not there, but after it. */
  async #putCommit(
    position: number,
    { bytes, signal }: { readonly bytes: Uint8Array; readonly signal: AbortSignal },
  ): Promise<"stored" | "taken" | "beyond" | "unfenced"> {
    const { store, patience, fence } = this.#options;
    const key = keys.commit(position);
    const tryOnce = async (signal: AbortSignal): Promise<"stored" | "taken" | "beyond"> => {
      // Within each try: an outage may last longer than what we know is worth.
      if (this.#mustLook(position)) {
        const page = await store.list(keys.commits, { after: keys.commit(position - 1), signal });
        const positions = page.objects.map((object) => positionOf(object.key));
        if (positions.includes(position)) return "taken";
        if (positions.some((other) => other !== undefined)) return "beyond";
        this.#prove();
      }
      if (fence === "off" && (await store.head(key, { signal }))) return "taken";
      await store.put(key, bytes, { ifAbsent: fence === "on", signal });
      return "stored";
    };
    try {
      return await patience.insist(tryOnce, {
        signal,
        timeoutMs: putTimeoutMs(bytes.length),
        missingIsTrouble: true,
      });
    } catch (error) {
      if (isStoreError(error, "exists")) return "taken";
      if (isStoreError(error, "unsupported")) return "unfenced";
      throw error;
    }
  }

  /**
   * Says whose commit stands at `position`. What cannot be read cannot be ours, ours are written whole; but it may have been
   * damaged on its way to us, and who is taken for fenced stops for good.
   */
  async #judge(position: number, signal: AbortSignal): Promise<Judgement> {
    const { patience, index } = this.#options;
    for (let looks = 1; ; looks += 1) {
      try {
        const commit = await this.#read(position, signal);
        if (commit.position === position && index.isAttempt(position, commit.id))
          return { kind: "ours", commit };
        return { kind: "theirs", by: { position, id: commit.id, machine: commit.machine } };
      } catch (error) {
        if (isStoreError(error, "missing")) return { kind: "missing" };
        if (!isCodecError(error)) throw error;
        if (error.kind === "newer" || looks === LOOKS) return { kind: "theirs", by: { position } };
        await patience.pause(looks, signal);
      }
    }
  }

  async #read(position: number, signal: AbortSignal): Promise<Commit> {
    const { store, patience } = this.#options;
    const key = keys.commit(position);
    const bytes = await patience.insist((signal) => store.get(key, { signal }), {
      signal,
      timeoutMs: putTimeoutMs(0),
    });
    return (await decodeCommit(bytes, { key })).commit;
  }

  /** The disk may have moved on since that attempt: its stamps match nothing, so the next scan reads those paths again. */
  #recordEarlier(commit: Commit): void {
    this.#options.index.record(headerOf(commit), {
      entries: commit.entries.map((entry) => ({ entry, stamp: "", racy: true })),
      deleted: commit.deleted,
    });
    this.#prove();
  }

  #mustLook(position: number): boolean {
    if (this.#suspicious) return true;
    const known = this.#provenAt ?? (position === 1 ? undefined : this.#options.index.head()?.time);
    // Either way: a clock that went back says as little as one that went far ahead.
    return known === undefined || Math.abs(this.#options.clock.now() - known) > TRUST_MS;
  }

  #prove(): void {
    this.#suspicious = false;
    this.#provenAt = this.#options.clock.now();
  }

  async #at(point: Failpoint): Promise<void> {
    await this.#options.at?.(point);
  }
}

function headerOf(commit: Commit): CommitHeader {
  const { entries: _entries, deleted: _deleted, ...header } = commit;
  return header;
}
