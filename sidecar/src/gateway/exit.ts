import type { ChildExit } from "./child-service.ts";

/** Why OpenClaw refuses to start (exit 78). Only its text tells, and most of them begin with "requires state migration". */
export type Refusal =
  /** Another process, perhaps the last gateway's remains, holds the state. */
  | "owner"
  /** The config is missing, torn, or has a key that this version does not know. */
  | "config"
  /** Something in its state belongs to another user. */
  | "permission"
  /** A database is damaged. */
  | "corrupt"
  /** A newer OpenClaw has written the state; this one never will open it. */
  | "newer_schema"
  | "unknown";

/** What kind of end an exit is. */
export type ExitClass =
  | { readonly kind: "done" }
  | { readonly kind: "refused"; readonly refusal: Refusal }
  | { readonly kind: "killed"; readonly reason: string }
  | { readonly kind: "failed"; readonly reason: string };

/** In this order: each text may contain words of the later ones. */
const REFUSALS: readonly (readonly [Refusal, RegExp])[] = [
  ["newer_schema", /newer schema version|are newer than this build/i],
  ["owner", /owns gateway-lifecycle|CoordinatorContentionError/],
  ["permission", /\b(?:EACCES|EPERM)\b/],
  ["corrupt", /disk image is malformed|integrity_check failed|file is not a database/i],
  ["config", /Invalid config|missing gateway\.mode|Missing config|Unrecognized key/],
];

/** Shells and Bun report a death by signal also as 128 + its number. */
const SIGNAL_CODES: Readonly<Record<number, string>> = {
  134: "SIGABRT",
  137: "SIGKILL",
  139: "SIGSEGV",
  143: "SIGTERM",
};

/** Sorts an exit of OpenClaw. Source: field notes on its exit codes, measured with 2026.9.6. */
export function classifyExit(exit: ChildExit): ExitClass {
  if (exit.oomKilled) return { kind: "killed", reason: "killed for want of memory" };
  const signal = exit.signal ?? SIGNAL_CODES[exit.code ?? -1];
  if (signal !== undefined) return { kind: "killed", reason: `died of ${signal}` };
  if (exit.code === 0) return { kind: "done" };
  if (exit.code === 78) return { kind: "refused", refusal: classifyRefusal(exit.lastLines) };
  return { kind: "failed", reason: `exited with ${exit.code}` };
}

function classifyRefusal(lines: readonly string[]): Refusal {
  const text = lines.join("\n");
  return REFUSALS.find(([, pattern]) => pattern.test(text))?.[0] ?? "unknown";
}
