import { isStoreError } from "../../store/store.ts";
import { isVolumeError } from "../../volume/volume-error.ts";
import { isCodecError } from "../format/codec-error.ts";
import { HistoryError } from "../history/history.ts";
import { IndexError } from "../index-schema.ts";
import type { Index } from "../index.ts";
import type { Unrestored } from "../restore/build-tree.ts";
import { RestoreError } from "../restore/restore-error.ts";
import type { RestoreResult } from "../restore/restore.ts";
import type { Decision } from "./decide.ts";

/** What the volume is doing until it is ready; `message` is a sentence for people. */
export interface BootStatus {
  readonly state: "deciding" | "waiting" | "comparing" | "restoring";
  readonly message: string;
  /** True where it waits because the store refuses the credentials. */
  readonly isDenied?: boolean | undefined;
}

/** For the control plane. */
export interface BootEvent {
  readonly type: "restored" | "restore_failed" | "diverged";
  readonly details: Readonly<Record<string, unknown>>;
}

type HaltKind =
  | "diverged"
  | "wrong_user"
  | "newer"
  | "damaged_marker"
  /** The volume or the history cannot be read. */
  | "failing"
  /** The tree does not fit on the volume. */
  | "no_room";

export interface Halted {
  readonly state: "halted";
  readonly kind: HaltKind;
  /** What was found and what to do. */
  readonly message: string;
}

export interface Ready {
  readonly state: "ready";
  readonly position: number;
  /** A new machine: its first files have to be put there, then `finishFresh` is called. */
  readonly fresh: boolean;
  /** False where the store did not answer, or could not be compared with: nothing may be committed before `catchUp` says "ready". */
  readonly settled: boolean;
  /** Undefined with the backup off, and where a full volume has no room to open it: not settled then. The caller closes it. */
  readonly index: Index | undefined;
  /** What the history has and this boot could not bring back. */
  readonly unrestored: readonly Unrestored[];
}

export type BootOutcome =
  | Ready
  /** The signal came before the volume was ready. What was fetched is kept; nothing was committed. */
  | { readonly state: "waiting"; readonly message: string }
  | Halted;

export type CatchUpOutcome =
  | {
      readonly state: "ready";
      readonly position: number;
      /** The one that was given, else one that the caller closes. */
      readonly index: Index;
    }
  /** An old copy that has no changes of its own: end the gateway and boot the volume again, which brings it up to date. */
  | { readonly state: "behind"; readonly message: string }
  | Halted;

/** A decision that a person has to change something about. */
export type Refusal = Extract<Decision, { readonly message: string }>;

const KINDS: Readonly<Record<Refusal["kind"], HaltKind>> = {
  diverged: "diverged",
  "wrong-user": "wrong_user",
  newer: "newer",
  "damaged-marker": "damaged_marker",
};

/** The outcome of a boot that was decided against. */
export function refused(decision: Refusal): Halted {
  return { state: "halted", kind: KINDS[decision.kind], message: decision.message };
}

export function restoredEvent(result: RestoreResult): BootEvent {
  const { position, files, bytes, durationMs, replaced } = result;
  const unrestored = result.unrestored.slice(0, 100).map(({ path, reason }) => ({ path, reason }));
  const details = { position, files, bytes, durationMs, replaced, unrestored };
  return { type: "restored", details };
}

/** The outcome of a boot that failed. */
export function haltOf(error: unknown): Halted {
  const halted = (kind: HaltKind, advice: string): Halted => ({
    state: "halted",
    kind,
    message: messageOf(error) + advice,
  });
  if (isCodecError(error, "newer") || (error instanceof IndexError && error.kind === "newer")) {
    return halted("newer", "");
  }
  if (error instanceof RestoreError && error.kind === "no_room") return halted("no_room", "");
  if (isVolumeError(error, "no_space")) return halted("no_room", "; extend the volume");
  if (error instanceof HistoryError) {
    return halted("failing", "; repair the store, or restore an earlier moment of the history");
  }
  if (isVolumeError(error)) return halted("failing", "; check the volume, or attach another one");
  return halted("failing", "");
}

/** What is told while the store cannot be used. */
export function waitingFor(error: Error | undefined): BootStatus {
  const message = error?.message ?? "The store does not answer";
  return { state: "waiting", message, isDenied: isStoreError(error, "denied") };
}

/** The sentence of an error. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** What an earlier boot could not bring back. */
export function earlier(index: Index | undefined): Unrestored[] {
  const reason = "it could not be restored at an earlier boot";
  return (index?.unrestored() ?? []).map((path) => ({ path, reason }));
}

/** The signal came first. */
export function stopped(): BootOutcome {
  return { state: "waiting", message: "Stopped before the volume was ready" };
}
