import type { BootOutcome, BootStatus, Halted } from "../backup/boot/boot-outcome.ts";
import type { BackupStatus } from "../backup/commit/replicator-status.ts";
import { progressLine, type Progress } from "../backup/restore/progress.ts";
import type { Cause } from "../health/reasons.ts";

/** What /files may do with the volume now. */
export interface Access {
  readonly read: boolean;
  readonly write: boolean;
  readonly code: "booting" | "restoring" | "waiting_for_store" | "fenced" | "halted" | "ok";
  readonly message: string;
}

/** How far a volume has come. */
export type Phase =
  | { readonly kind: "booting"; readonly status: BootStatus }
  | { readonly kind: "halted"; readonly halt: Halted }
  /** The files are whole, and what the store holds is not known: nothing is committed. */
  | {
      readonly kind: "unsettled";
      readonly sinceMs: number;
      readonly reason?: string;
      readonly isDenied?: boolean | undefined;
    }
  | { readonly kind: "settled" };

/** The state of a backup that is not running. */
export type RestingState = "idle" | "restoring" | "halted" | "diverged" | "unreachable";

export function isRestoring(phase: Phase): boolean {
  return phase.kind === "booting" && phase.status.state === "restoring";
}

/** What a volume in this phase may be used for. A fenced one may be looked at, whatever its phase. */
export function accessOf(
  phase: Phase,
  {
    fenced,
    progress,
  }: { readonly fenced: string | undefined; readonly progress: Progress | undefined },
): Access {
  if (fenced !== undefined) return { read: true, write: false, code: "fenced", message: fenced };
  switch (phase.kind) {
    case "booting": {
      const { state, message } = phase.status;
      const code =
        state === "restoring" ? "restoring" : state === "waiting" ? "waiting_for_store" : "booting";
      const detail = progress ? `${message}: ${progressLine(progress)}` : message;
      return { read: false, write: false, code, message: detail };
    }
    case "halted": {
      const { kind, message } = phase.halt;
      // Files that are whole and the user's own can at least be looked at.
      return { read: kind === "diverged", write: false, code: "halted", message };
    }
    case "unsettled":
      return { read: true, write: true, code: "ok", message: unsettledMessage(phase.reason) };
    default:
      return { read: true, write: true, code: "ok", message: "The backup has not begun yet" };
  }
}

/** True for what may be over without anybody's doing, such as a full disk. */
export function mayPass(outcome: BootOutcome): boolean {
  return outcome.state === "halted" && (outcome.kind === "failing" || outcome.kind === "no_room");
}

export function restingState(phase: Phase): RestingState {
  if (phase.kind === "halted") return phase.halt.kind === "diverged" ? "diverged" : "halted";
  if (phase.kind === "unsettled") return "unreachable";
  if (phase.kind === "booting" && phase.status.state === "waiting") return "unreachable";
  return isRestoring(phase) ? "restoring" : "idle";
}

/** What of this phase keeps the machine from being ready, beyond that it takes its time. */
export function causesOf(phase: Phase): Cause[] {
  if (phase.kind === "halted") {
    return [{ part: "volume", kind: phase.halt.kind, message: phase.halt.message }];
  }
  if (phase.kind === "unsettled") {
    const kind = phase.isDenied ? "denied" : "unreachable";
    return [{ part: "backup", kind, message: unsettledMessage(phase.reason) }];
  }
  if (phase.kind === "booting" && phase.status.state === "waiting") {
    const message = `Nothing is started before the store says what belongs on the volume: ${phase.status.message}. ${ADVICE}`;
    return [{ part: "volume", kind: "waiting_for_store", message }];
  }
  return [];
}

/** What is wrong, or should be known, of a backup that runs, and of what a restore has left. */
export function backupCauses(
  status: Pick<BackupStatus, "reason" | "warnings"> | undefined,
  unrestored: readonly { readonly path: string; readonly reason: string }[],
): Cause[] {
  const causes: Cause[] = [];
  if (status?.reason) causes.push({ part: "backup", ...status.reason });
  const [first] = unrestored;
  if (first) {
    const message = `${unrestored.length} files could not be brought back from the backup, the first is "${first.path}": ${first.reason}; they stay in the history: restore an earlier moment of them, or write them anew`;
    causes.push({ part: "backup", kind: "unrestored", message });
  }
  for (const warning of status?.warnings ?? [])
    causes.push({ part: "backup", ...warning, severity: "notice" });
  return causes;
}

const ADVICE = "If it lasts, check BACKUP_URL and the R2_* variables";

function unsettledMessage(reason = "it does not answer"): string {
  return `The store cannot be used: ${reason}. The machine runs, and nothing is committed until it can. ${ADVICE}`;
}
