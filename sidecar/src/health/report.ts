import { z } from "zod";

/** Report v1: what a machine says of itself, at /machine/status and to the control plane. Source: machine.md, Health and status. */
export const reportSchema = z.object({
  v: z.literal(1),
  machine: z.object({
    id: z.string(),
    app: z.string().optional(),
    region: z.string().optional(),
    image: z.string().optional(),
    version: z.string(),
    user: z.string(),
  }),
  state: z.enum(["booting", "restoring", "ready", "degraded", "stopping"]),
  /** ISO 8601, when the state began. */
  since: z.string(),
  uptimeS: z.number(),
  /** Why the machine is not simply ready, the most important first, and what else one should know of. */
  reasons: z.array(
    z.object({
      part: z.string(),
      kind: z.string(),
      message: z.string(),
      since: z.string(),
      /** Not there for what makes the machine degraded. */
      severity: z.literal("notice").optional(),
    }),
  ),
  services: z.array(
    z.object({
      name: z.string(),
      state: z.enum([
        "initial",
        "starting",
        "running",
        "stopping",
        "killing",
        "stopped",
        "backoff",
        "failed",
      ]),
      pid: z.int().optional(),
      since: z.string(),
      restarts: z.int(),
      lastExit: z
        .object({
          code: z.int().optional(),
          signal: z.string().optional(),
          at: z.string(),
          reason: z.string(),
        })
        .optional(),
      ready: z.boolean(),
      memoryBytes: z.number().optional(),
    }),
  ),
  backup: z.object({
    state: z.enum([
      "off",
      "idle",
      "committing",
      "restoring",
      "halted",
      "fenced",
      "unfenced",
      "diverged",
      "unreachable",
    ]),
    /** Number of the last commit that is durable in the store; 0 before the first. */
    position: z.int(),
    lastCommitAt: z.string().optional(),
    /** Age of the oldest change that is not in the store yet; 0 where there is none. */
    lagMs: z.number(),
    pendingFiles: z.int(),
    pendingBytes: z.number(),
    /** Files that are there and are not backed up, and why. Bounded; the count is in `skippedCount`. */
    skipped: z.array(z.object({ path: z.string(), reason: z.string() })),
    skippedCount: z.int(),
    store: z.string(),
    sentBytes: z.number(),
    requests: z.object({ a: z.int(), b: z.int() }),
    commitsToday: z.int(),
    budget: z.int(),
    /** When objects of the backup were read back last, and whether something damaged could be sent again. */
    lastVerifiedAt: z.string().optional(),
    lastVerifyResult: z.enum(["ok", "repaired", "failed"]).optional(),
    /** What retention removed last. */
    lastRemoval: z.object({ at: z.string(), objects: z.int(), bytes: z.number() }).optional(),
    restore: z
      .object({
        files: z.int(),
        filesDone: z.int(),
        bytes: z.number(),
        bytesDone: z.number(),
        etaS: z.number().optional(),
      })
      .optional(),
  }),
  volume: z.object({ bytes: z.number(), free: z.number(), files: z.number() }),
  memory: z.object({
    totalBytes: z.number(),
    availableBytes: z.number(),
    sidecarBytes: z.number(),
  }),
  /** ISO 8601, when a person or the agent was last seen doing something. */
  lastActiveAt: z.string().optional(),
});
export type Report = z.infer<typeof reportSchema>;
export type Reason = Report["reasons"][number];
export type MachineState = Report["state"];

/** Something that happened, for the control plane and for people. */
export interface MachineEvent {
  readonly id: string;
  /** ISO 8601. */
  readonly at: string;
  readonly type: MachineEventType;
  readonly details: Readonly<Record<string, unknown>>;
}

export type MachineEventType =
  | "started"
  | "ready"
  | "degraded"
  | "recovered"
  | "stopped"
  | "error"
  | "restart"
  | "crash_loop"
  | "restored"
  | "restore_failed"
  | "fenced"
  | "diverged"
  | "mass_delete"
  | "verify_failed"
  | "removed"
  | "config_repaired"
  | "disk_low"
  | "idle_stop"
  /** A reason has appeared, without a change of the machine's state to degraded. */
  | "warning"
  | "halted"
  | "resumed"
  | "unfenced"
  | "damaged_index"
  | "unreachable"
  | "denied"
  | "reachable"
  | "credentials_renewed"
  | "credentials_expiring"
  | "credentials_expired"
  | "credentials_unreadable";
