import type { Clock } from "../../platform/clock.ts";
import { isStoreError } from "../../store/store.ts";
import type { Owner } from "../../volume/dir.ts";
import { OWN_FOLDER, updateMarker, writeMarker } from "../../volume/marker.ts";
import type { Root } from "../../volume/root.ts";
import { isVolumeError } from "../../volume/volume-error.ts";
import type { StoreReads } from "../history/history.ts";
import { patientReads } from "../history/patient-reads.ts";
import type { Index } from "../index.ts";
import { Patience, type PatienceOptions } from "../patience.ts";
import type { Unrestored } from "../restore/build-tree.ts";
import { STAGING_NAME, removeOwn } from "../restore/place.ts";
import type { Progress } from "../restore/progress.ts";
import { RestoreError } from "../restore/restore-error.ts";
import { Restore, type RestoreResult } from "../restore/restore.ts";
import { gatherFacts, isWhole, positionOf, type GatheredFacts } from "./boot-facts.ts";
import { openIndexOf, recordCommit, removeIndex } from "./boot-index.ts";
import {
  earlier,
  haltOf,
  messageOf,
  refused,
  restoredEvent,
  stopped,
  waitingFor,
  type BootEvent,
  type BootOutcome,
  type BootStatus,
  type CatchUpOutcome,
  type Halted,
  type Ready,
  type Refusal,
} from "./boot-outcome.ts";
import { decide } from "./decide.ts";

export interface BootContext {
  /** The volume, without private folders. */
  readonly root: Root;
  readonly user: string;
  readonly machine: string;
  /** Undefined where the backup is off. */
  readonly store: StoreReads | undefined;
  /** See PatienceOptions. */
  readonly renewed?: PatienceOptions["renewed"];
  readonly clock: Clock;
  /** Who everything that is restored belongs to. */
  readonly owner?: Owner | undefined;
  /** Scans the volume: true if it has no change against the index. */
  readonly treeEqualsIndex: (index: Index, signal: AbortSignal) => Promise<boolean>;
  readonly onStatus?: (status: BootStatus) => void;
  readonly onProgress?: (progress: Progress) => void;
  readonly onEvent?: (event: BootEvent) => void;
  /** See `RestoreOptions`. */
  readonly onStep?: (step: string) => void;
  /** In [0, 1). */
  readonly random?: () => number;
}

/** Decides what the volume is and makes it ready, waiting for the store where nothing can be said without it. Never throws. */
export async function bootVolume(context: BootContext, signal: AbortSignal): Promise<BootOutcome> {
  return new Boot(context, signal).run();
}

/**
 * To be called when the store answers for the first time after a boot that was not settled, before the first commit.
 * Waits for the store. Throws the signal's reason.
 */
export async function catchUp(
  context: BootContext & { readonly index: Index | undefined },
  signal: AbortSignal,
): Promise<CatchUpOutcome> {
  return new Boot(context, signal, context.index).catchUp();
}

/** The first files of a new machine are there. */
export function finishFresh(root: Root): void {
  updateMarker(root, { fresh: undefined });
}

class Boot {
  readonly #context: BootContext;
  readonly #signal: AbortSignal;
  readonly #patience: Patience;
  readonly #indexPath: string;
  #index: Index | undefined;
  #unrestored: readonly Unrestored[] | undefined;
  /** Whether the tree is that of a position, once it was compared. */
  #compared: { readonly at: number; readonly equal: boolean } | undefined;
  #failures = 0;

  constructor(context: BootContext, signal: AbortSignal, index?: Index) {
    this.#context = context;
    this.#signal = signal;
    this.#index = index;
    this.#indexPath = `${context.root.path}/${OWN_FOLDER}/index.sqlite`;
    const { clock, random, renewed } = context;
    this.#patience = new Patience({
      clock,
      renewed,
      ...(random ? { random } : {}),
      onChange: (reach, error) => {
        if (reach !== "ok") context.onStatus?.(waitingFor(error));
      },
    });
  }

  async run(): Promise<BootOutcome> {
    let outcome: BootOutcome | undefined;
    try {
      this.#tell("deciding", "Looking at the volume and the store");
      while (!outcome) outcome = await this.#round();
    } catch (error) {
      outcome = this.#signal.aborted ? stopped() : haltOf(error);
    }
    if (outcome.state !== "ready") this.#index?.[Symbol.dispose]();
    return outcome;
  }

  async catchUp(): Promise<CatchUpOutcome> {
    const given = this.#index;
    let outcome: CatchUpOutcome | undefined;
    try {
      outcome = await this.#catchUp();
      return outcome;
    } finally {
      if (!given && outcome?.state !== "ready") this.#index?.[Symbol.dispose]();
    }
  }

  async #catchUp(): Promise<CatchUpOutcome> {
    try {
      for (;;) {
        const gathered = await this.#gather();
        const decision = decide(gathered.facts);
        const position = positionOf(gathered);
        switch (decision.kind) {
          case "continue":
            if (gathered.facts.store.kind === "known")
              return { state: "ready", position, index: this.#openIndex() };
            await this.#wait(gathered);
            break;
          case "record-own":
            await this.#recordOwn(position);
            break;
          case "compare":
            await this.#compare(position);
            break;
          case "restore":
          case "resume":
          case "restore-forward":
            return {
              state: "behind",
              message: `The volume stands at position ${position} and others went on; it has no changes of its own`,
            };
          case "wait":
          case "new":
          case "adopt":
            await this.#wait(gathered);
            break;
          default:
            return this.#refuse(decision);
        }
      }
    } catch (error) {
      this.#signal.throwIfAborted();
      return haltOf(error);
    }
  }

  /** One decision and what it takes. Returns undefined where another one is needed. */
  async #round(): Promise<BootOutcome | undefined> {
    const gathered = await this.#gather();
    const decision = decide(gathered.facts);
    switch (decision.kind) {
      case "new":
      case "adopt":
        return this.#begin(decision.kind);
      case "continue":
        // What a restore that was cut off after its end left behind.
        if (isWhole(gathered)) await removeOwn(this.#context.root, STAGING_NAME);
        return this.#ready(gathered);
      case "wait":
        await this.#wait(gathered);
        return undefined;
      case "record-own":
        await this.#recordOwn(positionOf(gathered));
        return undefined;
      case "compare":
        await this.#compare(positionOf(gathered));
        return undefined;
      case "restore":
      case "resume":
        await this.#restore("whole");
        return undefined;
      case "restore-forward":
        await this.#restore("forward");
        return undefined;
      default:
        return this.#refuse(decision);
    }
  }

  async #gather(): Promise<GatheredFacts> {
    const gathered = await gatherFacts({
      ...this.#context,
      signal: this.#signal,
      openIndex: () => this.#openIndex(),
      failures: this.#failures,
    });
    const { store } = gathered.facts;
    if (store.kind !== "unreachable") this.#failures = 0;
    if (store.kind !== "known" || this.#compared?.at !== store.at) return gathered;
    const facts = { ...gathered.facts, store: { ...store, treeEquals: this.#compared.equal } };
    return { ...gathered, facts };
  }

  #begin(kind: "new" | "adopt"): Ready {
    const { root, user, store } = this.#context;
    // The marker first: a folder of ours without one would be taken for what is left of another life.
    writeMarker(root, {
      user,
      state: "ready",
      position: 0,
      ...(kind === "new" ? { fresh: true } : {}),
    });
    // An index without a marker speaks of a history that the store does not have.
    removeIndex(this.#indexPath);
    const index = store ? this.#openIndex() : undefined;
    return {
      state: "ready",
      position: 0,
      fresh: kind === "new",
      settled: true,
      index,
      unrestored: [],
    };
  }

  #ready({ facts }: GatheredFacts): Ready {
    const marker = facts.marker.kind === "ok" ? facts.marker.marker : undefined;
    const off = facts.store.kind === "off";
    const settled = facts.store.kind !== "unreachable";
    const index = off ? undefined : this.#openIndex({ isOptional: !settled });
    return {
      state: "ready",
      position: index?.head()?.position ?? marker?.position ?? 0,
      fresh: marker?.fresh === true,
      settled,
      index,
      unrestored: this.#unrestored ?? earlier(index),
    };
  }

  async #wait({ obstacle }: GatheredFacts): Promise<void> {
    this.#context.onStatus?.(waitingFor(obstacle));
    const denied = isStoreError(obstacle, "denied", "missing");
    await this.#patience.pause(denied ? Infinity : this.#failures, this.#signal);
    this.#failures += 1;
  }

  async #recordOwn(at: number): Promise<void> {
    const position = at + 1;
    await recordCommit(this.#openIndex(), this.#reads(), { position, signal: this.#signal });
  }

  async #compare(at: number): Promise<void> {
    this.#tell("comparing", `Comparing the volume with position ${at} of its history`);
    const equal = await this.#context.treeEqualsIndex(this.#openIndex(), this.#signal);
    this.#compared = { at, equal };
  }

  async #restore(kind: "whole" | "forward"): Promise<void> {
    const { root, user, clock, owner, onProgress, onStep, onEvent } = this.#context;
    this.#tell("restoring", "Bringing the files back from the backup");
    const restore = new Restore({
      root,
      user,
      clock,
      owner,
      kind,
      store: this.#reads(),
      signal: this.#signal,
      openIndex: () => this.#openIndex(),
      ...(onProgress ? { onProgress } : {}),
      ...(onStep ? { onStep } : {}),
    });
    let result: RestoreResult;
    try {
      result = await restore.run();
    } catch (error) {
      const nothing = error instanceof RestoreError && error.kind === "no_history";
      if (isStoreError(error) || nothing) {
        // The next look at the store says what that means.
        this.#signal.throwIfAborted();
        this.#tell("waiting", (error as Error).message);
        await this.#patience.pause(this.#failures, this.#signal);
        this.#failures += 1;
        return;
      }
      if (!this.#signal.aborted) {
        onEvent?.({ type: "restore_failed", details: { message: messageOf(error) } });
      }
      throw error;
    }
    this.#compared = undefined;
    this.#unrestored = result.unrestored;
    onEvent?.(restoredEvent(result));
  }

  #reads(): StoreReads {
    const { store, clock } = this.#context;
    if (!store) throw new Error("Cannot read the history: the backup is off");
    return patientReads(store, { patience: this.#patience, clock, signal: this.#signal });
  }

  #openIndex(): Index;
  #openIndex(options: { readonly isOptional: boolean }): Index | undefined;
  #openIndex({ isOptional } = { isOptional: false }): Index | undefined {
    try {
      this.#index ??= openIndexOf(this.#context.root, this.#indexPath);
      return this.#index;
    } catch (error) {
      // The files are there, and those who can make room must get at them.
      if (isOptional && isVolumeError(error, "no_space")) return undefined;
      throw error;
    }
  }

  #refuse(decision: Refusal): Halted {
    if (decision.kind === "diverged") {
      const { reason, message } = decision;
      this.#context.onEvent?.({ type: "diverged", details: { reason, message } });
    }
    return refused(decision);
  }

  #tell(state: BootStatus["state"], message: string): void {
    this.#context.onStatus?.({ state, message });
  }
}
