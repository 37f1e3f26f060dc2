/** The `backup` part of report v1, but for what only restores and verification know. Source: machine.md, Health and status. */
export interface BackupStatus {
  readonly state: "idle" | "committing" | "halted" | "fenced" | "unfenced" | "unreachable";
  /** Why it is not working; undefined where it is. */
  readonly reason: { readonly kind: string; readonly message: string } | undefined;
  /** What one should know of and that keeps nothing from working. */
  readonly warnings?: readonly { readonly kind: string; readonly message: string }[];
  /** Number of the last commit that is durable in the store and recorded; 0 before the first. */
  readonly position: number;
  /** ISO 8601. */
  readonly lastCommitAt?: string;
  /** Age of the oldest change that is not in the store yet; 0 where there is none. */
  readonly lagMs: number;
  readonly pendingFiles: number;
  /** Of the contents on their way; what has not been read yet is not counted. */
  readonly pendingBytes: number;
  /** Files that are there and are not backed up, and why; the first 100. */
  readonly skipped: readonly SkippedPath[];
  readonly skippedCount: number;
  readonly store: string;
  readonly sentBytes: number;
  readonly requests: { readonly a: number; readonly b: number };
  readonly commitsToday: number;
  readonly budget: number;
  /** When blobs of the store were read back last, ISO 8601. */
  readonly lastVerifiedAt?: string;
  /** `repaired`: what was damaged was sent again. */
  readonly lastVerifyResult?: "ok" | "repaired" | "failed";
  /** What retention removed last. */
  readonly lastRemoval?: { readonly at: string; readonly objects: number; readonly bytes: number };
}

export interface SkippedPath {
  readonly path: string;
  readonly reason: string;
}

export interface ReplicatorEvent {
  readonly type:
    /** Another machine writes this history: no more commits, the gateway must stop. */
    | "fenced"
    /** The store cannot refuse a second put: no commits. */
    | "unfenced"
    /** The volume is not known to be whole, or commits cannot be made: none until "resumed". */
    | "halted"
    | "resumed"
    /** No commits until the index is rebuilt, which a new boot of the volume does. */
    | "damaged_index"
    | "mass_delete"
    /** Something in the store is damaged or gone; the details say whether it could be sent again. */
    | "verify_failed"
    /** What retention no longer keeps was removed. */
    | "removed"
    /** The store does not answer, or refuses our credentials, until "recovered". */
    | "unreachable"
    | "denied"
    | "recovered";
  readonly message: string;
  readonly details?: Readonly<Record<string, string | number>>;
}
