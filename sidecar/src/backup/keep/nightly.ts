import { z } from "zod";

import type { Clock } from "../../platform/clock.ts";
import type { Logger } from "../../platform/log.ts";
import type { Store } from "../../store/store.ts";
import type { Root } from "../../volume/root.ts";
import type { BackupStatus, ReplicatorEvent } from "../commit/replicator-status.ts";
import { keys } from "../format/format.ts";
import type { Index } from "../index.ts";
import { removeDoomed, type RemovalIndex, type RemovalResult, type Writer } from "./removal.ts";
import { removeReplaced } from "./replaced-folders.ts";
import { resend } from "./resend.ts";
import { readSample } from "./sample.ts";
import { nextNightMs } from "./schedule.ts";
import { timedReads } from "./timed-reads.ts";

/** A machine that has just started has better things to do. */
const SETTLE_MS = 5 * 60_000;
const LOOK_MS = 60_000;
/** For so long the work waits until nothing else is pending. */
const PATIENCE_MS = 6 * 3_600_000;
const UPLOAD_MS = 24 * 3_600_000;
const NOTE = "nightly";

const noteSchema = z.looseObject({
  /** When the work was begun last, in milliseconds since the epoch. */
  begunMs: z.number(),
  /** The last blob that was read back. */
  cursor: z.string().default(""),
  verified: z.object({ atMs: z.number(), result: z.enum(["ok", "repaired", "failed"]) }).optional(),
  removal: z.object({ atMs: z.number(), objects: z.number(), bytes: z.number() }).optional(),
});
type Note = z.infer<typeof noteSchema>;

/** What of nightly work people want to know. */
export type NightlyStatus = Pick<
  BackupStatus,
  "lastVerifiedAt" | "lastVerifyResult" | "lastRemoval"
>;

interface NightlyIndex extends RemovalIndex {
  /** See Index.note. */
  note(name: string): unknown;
  setNote(name: string, value: unknown): void;
}

export interface NightlyOptions {
  readonly store: Store;
  readonly index: NightlyIndex;
  /** Opens the index at one moment. */
  readonly snapshot: () => Index;
  readonly writer: Writer;
  /** Whether something else is pending; `away` where nothing may be committed at all. */
  readonly isBusy: () => "idle" | "busy" | "away";
  /** The volume, without private folders. */
  readonly root: Root;
  readonly clock: Clock;
  readonly log: Logger;
  readonly machine: string;
  readonly onEvent?: ((event: ReplicatorEvent) => void) | undefined;
}

/** The work that can wait for a quiet moment, once a day: removal, reading back, tidying up. */
export class Nightly {
  readonly #options: NightlyOptions;
  /** What was wrong tonight. */
  #found: "repaired" | "failed" | undefined;

  constructor(options: NightlyOptions) {
    this.#options = options;
  }

  /** Resolves when the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    try {
      await clock.sleep(SETTLE_MS, signal);
      for (;;) {
        await this.#untilDue(signal);
        await this.once(signal);
      }
    } catch (error) {
      if (!signal.aborted)
        log.error({ error }, "Nightly work has ended; it begins again with the next start");
    }
  }

  /** All of one night. What fails is logged and left for the next. Throws the signal's reason. */
  async once(signal: AbortSignal): Promise<void> {
    const before = this.#note();
    this.#found = undefined;
    this.#save({ begunMs: this.#options.clock.now() });
    const steps: readonly [string, (signal: AbortSignal) => Promise<void>][] = [
      ["remove what is no longer kept", (signal) => this.#remove(signal)],
      ["read back what was stored", (signal) => this.#verify(signal)],
      ["give up unfinished uploads", (signal) => this.#abortUploads(signal)],
      ["remove replaced folders", (signal) => this.#removeReplaced(signal)],
    ];
    for (const [step, work] of steps) {
      try {
        await work(signal);
      } catch (error) {
        if (signal.aborted) {
          // It was not this night's fault: the next start does it all.
          this.#save({ begunMs: before?.begunMs ?? 0 });
          throw error;
        }
        this.#options.log.warn(
          { step, error },
          "Cannot finish nightly work; it is tried again tomorrow",
        );
      }
    }
  }

  status(): NightlyStatus {
    const { verified, removal } = this.#note() ?? {};
    return {
      ...(verified
        ? { lastVerifiedAt: iso(verified.atMs), lastVerifyResult: verified.result }
        : {}),
      ...(removal
        ? { lastRemoval: { at: iso(removal.atMs), objects: removal.objects, bytes: removal.bytes } }
        : {}),
    };
  }

  async #untilDue(signal: AbortSignal): Promise<void> {
    const { clock, machine, isBusy } = this.#options;
    const note = this.#note();
    // There is nothing to keep in order on the first day.
    if (!note) this.#save({ begunMs: clock.now() });
    const due = nextNightMs(note?.begunMs ?? clock.now(), machine);
    // By the wall clock, and looked at often: machines sleep.
    while (clock.now() < due) await clock.sleep(LOOK_MS, signal);
    const begun = clock.monotonic();
    for (;;) {
      const state = isBusy();
      const isLate = clock.monotonic() - begun >= PATIENCE_MS;
      if (state === "idle" || (state === "busy" && isLate)) return;
      await clock.sleep(LOOK_MS, signal);
    }
  }

  async #remove(signal: AbortSignal): Promise<void> {
    const { store, clock, log } = this.#options;
    const reads = timedReads(store, { clock, signal });
    const result = await removeDoomed({ ...this.#options, reads, signal });
    const { removed, bytes, objects, keptFrom, stopped } = result;
    if (stopped)
      log.warn(
        { reason: stopped, objects },
        "Nothing more is removed: the history may not be ours",
      );
    if (removed > 0) {
      const freed = Math.round((bytes * removed) / Math.max(1, objects));
      this.#save({ removal: { atMs: clock.now(), objects: removed, bytes: freed } });
      log.info(
        { objects: removed, bytes: freed, position: keptFrom },
        "Removed what is no longer kept",
      );
      this.#tell("removed", {
        message: `${removed} objects that nothing kept needs were removed`,
        details: { objects: removed, bytes: freed },
      });
    }
    await this.#report(result, signal);
  }

  /** What is wrong with the history, as removal came by it. */
  async #report({ missing, unreadable }: RemovalResult, signal: AbortSignal): Promise<void> {
    if (missing.count === 0 && unreadable.length === 0) return;
    let back = 0;
    for (const key of missing.examples) {
      if (!key.startsWith(keys.blobs)) continue;
      if (await this.#resend(key.slice(keys.blobs.length), signal)) back += 1;
    }
    const left = missing.count - back + unreadable.length;
    this.#verified(left === 0 ? "repaired" : "failed", {
      message: `${missing.count} objects that the backup needs were missing, ${back} of them were sent again; ${unreadable.length} checkpoints cannot be read`,
      details: { missing: missing.count, repaired: back, unreadable: unreadable.length },
    });
  }

  async #verify(signal: AbortSignal): Promise<void> {
    const { store, clock } = this.#options;
    const after = this.#note()?.cursor ?? "";
    const { bad, blobs, next } = await readSample({ store, after, clock, signal });
    this.#save({ cursor: next });
    if (bad.length === 0) {
      if (this.#found === undefined) this.#save({ verified: { atMs: clock.now(), result: "ok" } });
      return;
    }
    let back = 0;
    for (const hash of bad) if (await this.#resend(hash, signal)) back += 1;
    const isBack = back === bad.length && this.#found !== "failed";
    this.#verified(isBack ? "repaired" : "failed", {
      message: `${bad.length} of ${blobs} blobs that were read back are damaged; ${back} of them were sent again`,
      details: { blobs, damaged: bad.length, repaired: back },
    });
  }

  async #resend(hash: string, signal: AbortSignal): Promise<boolean> {
    using snapshot = this.#options.snapshot();
    const entries = (): ReturnType<Index["all"]> => snapshot.all();
    const path = await resend(hash, { ...this.#options, entries, signal });
    if (path !== undefined) this.#options.log.info({ path }, "Sent a blob again that was damaged");
    return path !== undefined;
  }

  async #abortUploads(signal: AbortSignal): Promise<void> {
    const { store, log } = this.#options;
    const uploads = await store.abortUploads?.("", { olderThanMs: UPLOAD_MS, signal });
    if (uploads) log.info({ uploads }, "Gave up uploads that were never finished");
  }

  async #removeReplaced(signal: AbortSignal): Promise<void> {
    const { root, clock, log } = this.#options;
    const folders = await removeReplaced(root, { nowMs: clock.now(), signal });
    if (folders.length > 0) log.info({ folders }, "Removed what an old restore had moved aside");
  }

  #verified(
    result: "repaired" | "failed",
    what: Pick<ReplicatorEvent, "message" | "details">,
  ): void {
    const { clock, log } = this.#options;
    this.#found = result;
    this.#save({ verified: { atMs: clock.now(), result } });
    log.error({ result, ...what.details }, "The backup was not as it should be");
    this.#tell("verify_failed", what);
  }

  #tell(
    type: "removed" | "verify_failed",
    what: Pick<ReplicatorEvent, "message" | "details">,
  ): void {
    this.#options.onEvent?.({ type, ...what });
  }

  #note(): Note | undefined {
    return noteSchema.safeParse(this.#options.index.note(NOTE)).data;
  }

  #save(changes: Partial<Note>): void {
    const note = this.#note() ?? { begunMs: 0, cursor: "" };
    this.#options.index.setNote(NOTE, { ...note, ...changes });
  }
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
