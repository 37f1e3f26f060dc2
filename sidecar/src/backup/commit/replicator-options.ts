import type { Clock } from "../../platform/clock.ts";
import type { Logger } from "../../platform/log.ts";
import type { StoreCounts } from "../../store/counting.ts";
import type { Store } from "../../store/store.ts";
import type { Index } from "../index.ts";
import type { ScanResult } from "../notice/scan.ts";
import type { ScanRequest } from "../notice/scanner.ts";
import type { PatienceOptions } from "../patience.ts";
import type { Reading } from "../read/reading.ts";
import type { Failpoint } from "./committer.ts";
import type { DirtyPaths } from "./intake.ts";
import type { LastSync } from "./last-sync.ts";
import type { ReplicatorEvent } from "./replicator-status.ts";
import type { Halt } from "./scans.ts";

/** See keep/checkpoints.ts. */
interface CheckpointWriter {
  consider(
    commit: { readonly bytes: number; readonly settled: boolean },
    signal: AbortSignal,
  ): void;
  ended(): Promise<void>;
}

/** What the replicator works with. */
export interface ReplicatorOptions {
  readonly store: Store;
  readonly index: Index;
  /** Whoever owns it calls `wake` when something is due. */
  readonly dirty: DirtyPaths;
  readonly read: (path: string) => Promise<Reading>;
  /** True while this path is read as a database, which is not waited for for long. */
  readonly isDatabase?: (path: string) => boolean;
  /** Told when nothing more will be read; what is being read then should end soon. */
  readonly onEnding?: () => void;
  readonly scan: (request: ScanRequest) => Promise<ScanResult>;
  readonly clock: Clock;
  readonly log: Logger;
  readonly user: string;
  readonly machine: string;
  readonly fence: "on" | "off";
  /** Finds out whether the store can refuse a second put; see store/probe.ts. */
  readonly probe: (signal: AbortSignal) => Promise<"fenced" | "unfenced">;
  /** Why nothing may be committed from this volume, such as a marker that is gone; undefined where all is well. Asked before every commit. */
  readonly refuse?: () => Halt | undefined;
  /** Whether changes are noticed as they happen; where not, the volume is scanned more often. */
  readonly isWatching?: () => boolean;
  /** Gives up room that was kept for when the volume is full; false where there is none left. */
  readonly makeRoom?: () => boolean;
  readonly lastSync?: LastSync;
  /** Writes the tree down from time to time. */
  readonly checkpoints?: CheckpointWriter;
  /** Told when everything that was read is recorded. */
  readonly onRecorded?: () => void;
  readonly onEvent?: (event: ReplicatorEvent) => void;
  readonly counts?: () => StoreCounts;
  readonly budget?: number;
  /** See PatienceOptions. */
  readonly renewed?: PatienceOptions["renewed"];
  /** In [0, 1). */
  readonly random?: () => number;
  /** See CommitterOptions. */
  readonly at?: (point: Failpoint) => void | Promise<void>;
}
