import { isFullIndex } from "../index-schema.ts";
import { Patience } from "../patience.ts";
import { ContentChanged, type Reading } from "../read/reading.ts";
import { dispose } from "./batch.ts";
import { Bell } from "./bell.ts";
import { watchClock } from "./clock-gap.ts";
import { Committer, type CommitResult } from "./committer.ts";
import { failedPaths } from "./failed.ts";
import { Flushes, syncError } from "./flushes.ts";
import { Guard } from "./guard.ts";
import { Intake, type Taken } from "./intake.ts";
import { DAILY_BUDGET, commitIntervalMs } from "./pace.ts";
import type { ReplicatorOptions } from "./replicator-options.ts";
import type { BackupStatus } from "./replicator-status.ts";
import { Scans } from "./scans.ts";
import { SkippedPaths } from "./skipped.ts";
import { Standing } from "./standing.ts";

const PROBE_TIMEOUT_MS = 60_000;
const IDLE_ROUND_MS = 50;
/** A path that could not be sent is left alone for so long. */
const REST_MS = 2_000;

/**
 * Keeps the store up with the volume: reads what has settled, commits it, one commit at a time, and checks from time to
 * time that nothing was missed. Stops for good when the history has passed to somebody else, and holds still while the
 * volume is not known to be whole.
 */
export class Replicator {
  readonly name = "replicator";
  readonly #options: ReplicatorOptions;
  readonly #committer: Committer;
  readonly #patience: Patience;
  readonly #standing: Standing;
  readonly #guard: Guard;
  readonly #scans: Scans;
  readonly #intake: Intake;
  readonly #bell: Bell;
  readonly #flushes = new Flushes();
  readonly #skipped = new SkippedPaths();
  readonly #ending = new AbortController();
  #running: Promise<unknown> | undefined;
  /** What is being read while another batch is being sent. */
  #ahead: Promise<Taken> | undefined;
  #now: Taken | undefined;
  #committing = false;
  #admitted = false;
  #lastCommit: number | undefined;
  #backlog = false;

  constructor(options: ReplicatorOptions) {
    this.#options = options;
    const { clock, random, log, dirty, scan } = options;
    this.#bell = new Bell(clock);
    this.#standing = new Standing({
      ...options,
      onChange: (obstacle) => this.#onStanding(obstacle),
    });
    this.#patience = new Patience({
      clock,
      renewed: options.renewed,
      ...(random ? { random } : {}),
      onChange: (reach, error) => this.#standing.setReach(reach, error),
    });
    this.#scans = new Scans({
      clock,
      log,
      scan,
      refuse: options.refuse,
      isWatching: options.isWatching,
      onFound: (paths) => dirty.found(paths),
      onOutcome: (halt) => this.#standing.setTree(halt),
    });
    this.#intake = new Intake({
      ...options,
      scans: this.#scans,
      isDatabase: (path) => options.isDatabase?.(path) ?? false,
      onLate: () => this.#bell.ring(),
    });
    this.#committer = new Committer({ ...options, patience: this.#patience });
    this.#guard = new Guard({
      ...options,
      patience: this.#patience,
      confirm: async (signal) => {
        await this.#scans.fresh(signal);
        return this.#standing.obstacle === undefined;
      },
    });
  }

  /** Begins, and resolves at once: the store may be away for hours. Ends when the signal aborts, or by `stop`. */
  async start(signal: AbortSignal): Promise<void> {
    const both = AbortSignal.any([signal, this.#ending.signal]);
    this.#running = Promise.allSettled([
      this.#scans.run(both),
      watchClock(this.#options.clock, { onGap: (ms) => this.#onClockGap(ms), signal: both }),
      this.#work(both),
    ]);
  }

  /** Commits what is left, as far as the signal allows, and ends. */
  async stop(signal: AbortSignal): Promise<void> {
    if (this.#running === undefined) return;
    if (!this.#ending.signal.aborted && !this.#standing.isFinal) {
      this.#patience.hurry();
      this.#intake.hurry();
      try {
        await this.flush(signal);
      } catch (error) {
        const { pendingFiles } = this.status();
        this.#options.log.warn({ error, pendingFiles }, "Cannot make the last commit");
      }
    }
    this.#ending.abort(new Error("The backup was stopped"));
    await this.#running;
  }

  /** Something is due. */
  wake(): void {
    this.#bell.ring();
  }

  /** Something happened that nobody noticed: the watcher lost events, or was down. */
  rescan(): void {
    this.#scans.request();
  }

  /** Scans, and commits all that is dirty by then; resolves when it is durable. Throws why it cannot be. */
  async flush(signal: AbortSignal): Promise<{ readonly position: number; readonly lagMs: number }> {
    if (this.#running === undefined || this.#ending.signal.aborted)
      throw new Error("Cannot sync the volume: the backup is not running");
    this.#checkAble();
    const both = AbortSignal.any([signal, this.#ending.signal]);
    try {
      await this.#scans.fresh(both);
      this.#checkAble();
      const done = this.#flushes.wait(this.#options.clock.monotonic(), both);
      this.#bell.ring();
      await done;
    } catch (error) {
      throw syncError(error, { isLate: both.aborted, reason: this.#standing.reason?.message });
    }
    const { position, lagMs } = this.status();
    return { position, lagMs };
  }

  /**
   * Says whether this machine still owns the history, by an empty commit. False where it does not, and where nothing could
   * keep two machines apart.
   */
  async prove(signal: AbortSignal): Promise<boolean> {
    const { fence, refuse } = this.#options;
    if (!this.#admitted || this.#standing.obstacle || refuse?.() || fence === "off") return false;
    const both = AbortSignal.any([signal, this.#ending.signal]);
    const result = await this.#committer.commit([], { signal: both, allowEmpty: true });
    if (result.kind === "fenced" || result.kind === "unfenced") this.#standing.end(result);
    return result.kind === "committed" && this.#standing.obstacle === undefined;
  }

  /** The answer of `work`, during which no commit is under way. It should be short. */
  async between<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    return this.#committer.between(work, signal);
  }

  status(): BackupStatus {
    const { index, clock, store, dirty, counts, budget = DAILY_BUDGET } = this.#options;
    const head = index.head();
    const { sentBytes, classA, classB } = counts?.() ?? { sentBytes: 0, classA: 0, classB: 0 };
    const { state } = this.#standing;
    return {
      state: state === "ok" ? (this.#committing ? "committing" : "idle") : state,
      reason: this.#standing.reason,
      position: head?.position ?? 0,
      ...(head ? { lastCommitAt: new Date(head.time).toISOString() } : {}),
      lagMs: dirty.lagMs,
      pendingFiles: this.#pendingFiles(),
      pendingBytes: this.#now?.batch.bytes ?? 0,
      ...this.#skipped.report(this.#scans.last),
      store: store.name,
      sentBytes,
      requests: { a: classA, b: classB },
      commitsToday: index.commitsOn(clock.now()),
      budget,
    };
  }

  async #work(signal: AbortSignal): Promise<void> {
    try {
      await this.#admit(signal);
      this.#admitted = true;
      for (let failures = 0; !this.#standing.isFinal;) {
        await this.#waitForWork(signal);
        try {
          await this.#round(signal);
          failures = 0;
          this.#standing.clearFault();
        } catch (error) {
          signal.throwIfAborted();
          if (isFullIndex(error) && this.#options.makeRoom?.()) continue;
          // Neither the store nor a single file: the disk, the index, or the process itself.
          this.#standing.setFault(error);
          failures += 1;
          await this.#patience.pause(failures, signal);
        }
      }
    } finally {
      this.#options.onEnding?.();
      const ahead = await this.#ahead?.catch(() => undefined);
      if (ahead) dispose(ahead.batch.readings);
      await this.#intake.end();
      await this.#options.checkpoints?.ended();
    }
  }

  /** Resolves when the first commit may be made: the fence holds, and somebody has looked at the whole tree. */
  async #admit(signal: AbortSignal): Promise<void> {
    const { fence, probe } = this.#options;
    const looked = this.#scans.first(signal);
    looked.catch(() => undefined);
    if (fence === "on") {
      const answer = await this.#patience.insist(probe, {
        signal,
        timeoutMs: PROBE_TIMEOUT_MS,
        missingIsTrouble: true,
      });
      if (answer === "unfenced") this.#standing.end({ kind: "unfenced" });
    }
    await looked;
  }

  async #waitForWork(signal: AbortSignal): Promise<void> {
    for (;;) {
      signal.throwIfAborted();
      const waitMs = this.#standing.obstacle ? undefined : this.#untilWorkMs();
      if (waitMs === 0) return;
      await this.#bell.wait(waitMs, signal);
    }
  }

  /** Milliseconds until a commit should be made; undefined where nothing is dirty. */
  #untilWorkMs(): number | undefined {
    const { dirty, clock, index, budget = DAILY_BUDGET } = this.#options;
    if (this.#ahead) return 0;
    this.#flushes.advance((wanted) => dirty.owes(wanted));
    const { wanted } = this.#flushes;
    if (wanted && (this.#intake.hasLate || dirty.waitsFor(wanted))) return 0;
    const due = this.#intake.hasLate ? 0 : dirty.nextDueMs();
    // A backlog is not kept waiting: it makes few commits, and large ones.
    if (due === undefined || this.#backlog || this.#lastCommit === undefined) return due;
    const now = clock.now();
    const interval = commitIntervalMs({ now, commitsToday: index.commitsOn(now), budget });
    return Math.max(due, this.#lastCommit + interval - clock.monotonic());
  }

  async #round(signal: AbortSignal): Promise<void> {
    const taking = this.#ahead ?? this.#take(signal);
    this.#ahead = undefined;
    const taken = await taking;
    this.#now = taken;
    const { batch, items } = taken;
    this.#backlog = batch.full;
    let result: CommitResult | undefined;
    try {
      this.#skipped.note(batch.readings);
      if (await this.#mayCommit(batch.readings, signal)) {
        if (batch.full) this.#ahead = this.#take(signal);
        this.#ahead?.catch(() => undefined);
        this.#committing = true;
        result = await this.#committer.commit(batch.readings, { signal });
      } else {
        dispose(batch.readings);
      }
    } finally {
      this.#committing = false;
      this.#now = undefined;
      if (result === undefined) this.#options.dirty.putBack(items, REST_MS);
    }
    const done = result ? await this.#after(result, { taken, signal }) : items.length;
    // Only folders that turned out to be unchanged, or nothing that may be taken yet: never round and round at full speed.
    if (done === 0) await this.#bell.wait(IDLE_ROUND_MS, signal);
  }

  async #mayCommit(batch: readonly Reading[], signal: AbortSignal): Promise<boolean> {
    const refusal = this.#options.refuse?.();
    if (refusal) this.#standing.setTree(refusal);
    if (this.#standing.obstacle) return false;
    return this.#guard.allows(batch, signal);
  }

  async #take(signal: AbortSignal): Promise<Taken> {
    return this.#intake.take({ also: this.#flushes.wanted, signal });
  }

  /** Returns how many paths need nothing more. */
  async #after(
    result: CommitResult,
    { taken: { items, batch }, signal }: { readonly taken: Taken; readonly signal: AbortSignal },
  ): Promise<number> {
    const { log, dirty, clock, lastSync, onRecorded } = this.#options;
    if (result.kind === "fenced" || result.kind === "unfenced") {
      dirty.putBack(items);
      this.#standing.end(result);
      return 0;
    }
    const isAwaited = this.#flushes.wanted !== undefined;
    const failed = failedPaths(result, batch.readings, { isAwaited });
    this.#intake.settle(items, { again: result.again, failed });
    for (const { path, error } of result.failures) {
      if (error instanceof ContentChanged) continue;
      this.#skipped.fail(path);
      log.warn({ path, error }, "Cannot send a file; it is tried again");
    }
    if (!this.#ahead && this.#intake.reading === 0) onRecorded?.();
    if (result.kind === "committed") {
      this.#lastCommit = clock.monotonic();
      await lastSync?.write(result.header);
      const settled = dirty.size === 0 && !this.#ahead;
      this.#options.checkpoints?.consider({ bytes: result.commitBytes, settled }, signal);
    }
    this.#flushes.note(items, { failed, now: clock.monotonic() });
    this.#flushes.advance((wanted) => dirty.owes(wanted));
    return items.length - failed.size;
  }

  #onStanding(obstacle: Error | undefined): void {
    if (obstacle) this.#flushes.fail(obstacle);
    this.#bell.ring();
  }

  #onClockGap(gapMs: number): void {
    this.#options.log.warn({ gapMs }, "The clock jumped; the volume is scanned");
    this.#committer.suspect();
    this.#scans.request();
  }

  #checkAble(): void {
    const { obstacle } = this.#standing;
    if (obstacle)
      throw new Error("Cannot sync the volume: nothing may be committed", { cause: obstacle });
  }

  #pendingFiles(): number {
    return this.#options.dirty.size + (this.#now?.items.length ?? 0) + this.#intake.reading;
  }
}
