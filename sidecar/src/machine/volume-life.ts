import { Backup, treeEqualsIndex } from "../backup/backup.ts";
import type {
  BootEvent,
  BootOutcome,
  BootStatus,
  Halted,
  Ready,
} from "../backup/boot/boot-outcome.ts";
import { bootVolume, catchUp, finishFresh, type BootContext } from "../backup/boot/boot.ts";
import type { BackupStatus, ReplicatorEvent } from "../backup/commit/replicator-status.ts";
import type { Progress } from "../backup/restore/progress.ts";
import type { Cause } from "../health/reasons.ts";
import type { Clock } from "../platform/clock.ts";
import type { Logger } from "../platform/log.ts";
import type { CountingStore } from "../store/counting.ts";
import { dropBallast } from "../volume/ballast.ts";
import type { Owner } from "../volume/dir.ts";
import type { Root } from "../volume/root.ts";
import {
  accessOf,
  backupCauses,
  causesOf,
  isRestoring,
  mayPass,
  restingState,
  type Access,
  type Phase,
  type RestingState,
} from "./volume-phase.ts";

/** Something that happened to the volume or its backup. */
export interface VolumeEvent {
  readonly type: BootEvent["type"] | ReplicatorEvent["type"];
  readonly message?: string;
  readonly details?: Readonly<Record<string, unknown>>;
}

export interface VolumeLifeOptions {
  readonly root: Root;
  readonly user: string;
  readonly machine: string;
  /** The user's `backup/` prefix; undefined with the backup off. */
  readonly store: CountingStore | undefined;
  /** See PatienceOptions. */
  readonly renewed?: (() => AbortSignal | undefined) | undefined;
  readonly fence: "on" | "off";
  readonly agent: Owner | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  /** Puts the first files of a volume in place, before anything of it is committed. */
  readonly furnish: (options: {
    readonly restored: boolean;
    readonly signal: AbortSignal;
  }) => Promise<void>;
  /** Ends the gateway for good: another machine answers for this user now. */
  readonly endGateway: () => Promise<void>;
  /** Ends the gateway while the volume is brought up to date, and starts it again. */
  readonly withoutGateway: (work: () => Promise<void>) => Promise<void>;
  readonly onEvent: (event: VolumeEvent) => void;
  /** Something that shows in the status has changed. */
  readonly onChange: () => void;
}

/** What may have passed by itself, such as a full disk, is looked at again after so long. */
const AGAIN_MS = 5 * 60_000;
/** An index that is damaged again so soon is not rebuilt for ever. */
const REBUILD_AGAIN_MS = 3_600_000;
/** How often a restore that goes on is in the log. */
const LOG_PROGRESS_MS = 5_000;

const DECIDING: BootStatus = { state: "deciding", message: "Looking at the volume and the store" };

/** The volume from the first look at it to the last commit: what it is, what may be done with it, and its backup. */
export class VolumeLife {
  readonly #options: VolumeLifeOptions;
  readonly #life = new AbortController();
  #phase: Phase = { kind: "booting", status: DECIDING };
  #ready: Ready | undefined;
  #backup: Backup | undefined;
  #catchingUp: Promise<void> = Promise.resolve();
  #fenced: string | undefined;
  #progress: Progress | undefined;
  #loggedAt = -Infinity;
  #told: BootStatus["state"] | undefined;
  #rebuiltAt = -Infinity;

  constructor(options: VolumeLifeOptions) {
    this.#options = options;
  }

  /** Resolves when the files are in place and the gateway may have them; never where a person has to decide. Rejects with the signal's reason. */
  async boot(signal: AbortSignal): Promise<void> {
    for (;;) {
      const outcome = await bootVolume(this.#context(), signal);
      signal.throwIfAborted();
      if (this.#accept(outcome)) {
        const restored = outcome.position > 0;
        await this.#options.furnish({ restored, signal });
        if (outcome.fresh) finishFresh(this.#options.root);
        return;
      }
      if (!mayPass(outcome)) await aborted(signal);
      // Opening the index takes some room as well.
      if (this.#makeRoom()) continue;
      await this.#options.clock.sleep(AGAIN_MS, signal);
    }
  }

  #makeRoom(): boolean {
    try {
      return dropBallast(this.#options.root);
    } catch {
      // What is wrong with the disk has been said already.
      return false;
    }
  }

  /** Begins the backup, or, where the store did not answer at boot, the wait for it. Resolves at once. */
  async startBackup(): Promise<void> {
    const ready = this.#ready;
    if (!ready || !this.#options.store) return;
    if (ready.settled) await this.#begin(ready);
    else this.#catchingUp = this.#catchUp(ready).catch((error: unknown) => this.#failed(error));
  }

  /** Makes the last commit, as far as the signal allows. */
  async stop(signal: AbortSignal): Promise<void> {
    this.#life.abort(new Error("The machine is stopping"));
    await this.#catchingUp;
    await this.#backup?.stop(signal);
    this.#backup = undefined;
    this.#ready?.index?.[Symbol.dispose]();
    this.#ready = undefined;
  }

  /** Resolves when what is on the volume now is durable. Throws a sentence for people where it cannot be. */
  async flush(signal: AbortSignal): Promise<{ readonly position: number; readonly lagMs: number }> {
    if (!this.#options.store) throw new Error("Cannot sync the volume: no backup is configured");
    if (this.#backup) return this.#backup.flush(signal);
    throw new Error(`Cannot sync the volume: ${this.access.message}`);
  }

  get isReady(): boolean {
    return this.#phase.kind === "settled" || this.#phase.kind === "unsettled";
  }

  get isRestoring(): boolean {
    return isRestoring(this.#phase);
  }

  /** True where booting has come to a point where only a person or the store can help. */
  get isStuck(): boolean {
    const phase = this.#phase;
    return (
      phase.kind === "halted" || (phase.kind === "booting" && phase.status.state === "waiting")
    );
  }

  get progress(): Progress | undefined {
    return this.isRestoring ? this.#progress : undefined;
  }

  get access(): Access {
    return accessOf(this.#phase, { fenced: this.#fenced, progress: this.progress });
  }

  /** Where the volume stands in its history, as far as it is known. */
  get position(): number {
    return this.#ready?.position ?? 0;
  }

  /** Of the running backup; undefined before it runs. */
  backupStatus(): BackupStatus | undefined {
    return this.#backup?.status();
  }

  /** The state of the backup where it does not run. */
  get restingState(): "off" | RestingState {
    return this.#options.store ? restingState(this.#phase) : "off";
  }

  /** Milliseconds since when nothing could be committed, for a volume whose store has not answered yet. */
  get unsettledMs(): number {
    const phase = this.#phase;
    return phase.kind === "unsettled" ? this.#options.clock.monotonic() - phase.sinceMs : 0;
  }

  causes(): Cause[] {
    const { unrestored = [] } = this.#ready ?? {};
    return [...causesOf(this.#phase), ...backupCauses(this.#backup?.status(), unrestored)];
  }

  /** Returns true where the volume is ready. */
  #accept(outcome: BootOutcome): outcome is Ready {
    switch (outcome.state) {
      case "ready":
        this.#ready = outcome;
        this.#setPhase(
          outcome.settled
            ? { kind: "settled" }
            : { kind: "unsettled", sinceMs: this.#options.clock.monotonic() },
        );
        return true;
      case "halted":
        if (this.#phase.kind !== "halted" || this.#phase.halt.message !== outcome.message) {
          const { kind, message: reason } = outcome;
          this.#options.log.error({ kind, reason }, "The volume cannot be used");
          this.#tellHalted(outcome);
        }
        this.#setPhase({ kind: "halted", halt: outcome });
        return false;
      default:
        return false;
    }
  }

  async #begin(ready: Ready): Promise<void> {
    const { store } = this.#options;
    const { index } = ready;
    if (!store || !index) return;
    this.#backup = new Backup({
      ...this.#options,
      store,
      index,
      onEvent: (event) => this.#onBackupEvent(event),
    });
    // It ends by `stop`, which makes the last commit; the signal to stop the machine must not keep it from that.
    await this.#backup.start(new AbortController().signal);
    this.#setPhase({ kind: "settled" });
  }

  async #catchUp(ready: Ready): Promise<void> {
    const signal = this.#life.signal;
    const outcome = await catchUp({ ...this.#context(), index: ready.index }, signal);
    if (outcome.state === "ready") {
      this.#ready = { ...ready, index: outcome.index };
      return this.#begin(this.#ready);
    }
    this.#options.log.warn(
      { state: outcome.state, reason: outcome.message },
      "The store knows more than this volume",
    );
    if (outcome.state === "halted") {
      this.#tellHalted(outcome);
      this.#setPhase({ kind: "halted", halt: outcome });
      await this.#options.endGateway();
      return;
    }
    await this.#bootAgain();
  }

  /** Looks at the volume as a machine that starts does. */
  async #bootAgain(): Promise<void> {
    await this.#options.withoutGateway(async () => {
      const backup = this.#backup;
      this.#backup = undefined;
      await backup?.stop(AbortSignal.abort(new Error("The volume is looked at anew")));
      this.#ready?.index?.[Symbol.dispose]();
      this.#ready = undefined;
      this.#setPhase({ kind: "booting", status: DECIDING });
      await this.boot(this.#life.signal);
      await this.startBackup();
    });
  }

  /** A boot finds out that the index is damaged, and rebuilds it from the store. */
  #rebuildIndex(): void {
    const now = this.#options.clock.monotonic();
    if (this.#life.signal.aborted || now - this.#rebuiltAt < REBUILD_AGAIN_MS) return;
    this.#rebuiltAt = now;
    const before = this.#catchingUp;
    this.#catchingUp = before
      .then(() => this.#bootAgain())
      .catch((error: unknown) => this.#failed(error));
  }

  #failed(error: unknown): void {
    if (this.#life.signal.aborted) return;
    const message = error instanceof Error ? error.message : String(error);
    this.#options.log.error({ error }, "Cannot begin the backup");
    const halt: Halted = { state: "halted", kind: "failing", message };
    this.#tellHalted(halt);
    this.#setPhase({ kind: "halted", halt });
  }

  #tellHalted({ kind, message }: Halted): void {
    // What has diverged says so itself.
    if (kind !== "diverged")
      this.#options.onEvent({ type: "halted", message, details: { reason: kind } });
  }

  #onBackupEvent(event: ReplicatorEvent): void {
    const { log, endGateway, onEvent, onChange } = this.#options;
    if (event.type === "fenced") {
      this.#fenced = event.message;
      endGateway().catch((error: unknown) =>
        log.error({ error }, "Cannot end the gateway of a fenced machine"),
      );
    }
    if (event.type === "damaged_index") this.#rebuildIndex();
    onEvent(event);
    onChange();
  }

  #context(): BootContext {
    const { root, user, machine, store, renewed, clock, agent, log, onEvent, onChange } =
      this.#options;
    return {
      root,
      user,
      machine,
      store,
      renewed,
      clock,
      owner: agent,
      treeEqualsIndex: (index, signal) => treeEqualsIndex(index, { root, agent, clock, signal }),
      onStatus: (status) => {
        this.#tell(status);
        if (this.#phase.kind === "unsettled" && status.state === "waiting")
          this.#setPhase({ ...this.#phase, reason: status.message, isDenied: status.isDenied });
        // A halted volume that is only looked at again stays halted for everybody else.
        if (this.#phase.kind === "booting" || status.state === "restoring") {
          this.#setPhase({ kind: "booting", status });
        }
      },
      onProgress: (progress) => {
        this.#progress = progress;
        const now = clock.monotonic();
        if (now - this.#loggedAt >= LOG_PROGRESS_MS || progress.filesDone === progress.files) {
          this.#loggedAt = now;
          log.info({ ...progress }, "Files are coming back from the backup");
        }
        onChange();
      },
      onEvent,
    };
  }

  /** One line for each step, and one for a wait, however often the store is asked. */
  #tell({ state, message, isDenied }: BootStatus): void {
    const { log, onEvent } = this.#options;
    const waited = this.#told === "waiting";
    this.#told = state;
    if (state !== "waiting") log.info({ state, reason: message }, "The volume is being made ready");
    else if (!waited) {
      log.warn({ reason: message }, "The store cannot be used; it is asked again");
      onEvent({ type: isDenied ? "denied" : "unreachable", message });
    }
  }

  #setPhase(phase: Phase): void {
    this.#phase = phase;
    this.#options.onChange();
  }
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason as Error);
    else signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
  });
}
