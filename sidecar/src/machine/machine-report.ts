import type { StateHistory } from "../health/reasons.ts";
import type { Report } from "../health/report.ts";
import type { MachineIdentity } from "../platform/fly.ts";
import { readMemory } from "../platform/memory.ts";
import type { ServiceStatus } from "../supervisor/spec.ts";
import type { Space } from "../volume/space.ts";
import type { VolumeLife } from "./volume-life.ts";

export interface ReportSources {
  readonly identity: MachineIdentity;
  readonly version: string;
  readonly user: string;
  readonly storeName: string;
  readonly history: StateHistory;
  readonly uptimeMs: number;
  readonly services: readonly ServiceStatus[];
  readonly volume: VolumeLife;
  readonly space: Space;
  /** Milliseconds since the epoch. */
  readonly lastActive: number | undefined;
}

/** Puts report v1 together from what the parts say of themselves. */
export function machineReport(sources: ReportSources): Report {
  const { identity, version, user, history, uptimeMs, services, space, lastActive } = sources;
  return {
    v: 1,
    machine: {
      id: identity.id,
      ...(identity.app === undefined ? {} : { app: identity.app }),
      ...(identity.region === undefined ? {} : { region: identity.region }),
      ...(identity.image === undefined ? {} : { image: identity.image }),
      version,
      user,
    },
    state: history.state,
    since: history.since,
    uptimeS: Math.floor(uptimeMs / 1_000),
    reasons: [...history.reasons],
    services: services.map(serviceReport),
    backup: backupReport(sources),
    volume: { bytes: space.bytes, free: space.free, files: space.files },
    memory: { ...readMemory(), sidecarBytes: process.memoryUsage.rss() },
    ...(lastActive === undefined ? {} : { lastActiveAt: iso(lastActive) }),
  };
}

function serviceReport(status: ServiceStatus): Report["services"][number] {
  const { name, state, pid, since, restarts, lastExit, ready, memoryBytes } = status;
  return {
    name,
    state,
    ...(pid === undefined ? {} : { pid }),
    since: iso(since),
    restarts,
    ...(lastExit === undefined ? {} : { lastExit: { ...lastExit, at: iso(lastExit.at) } }),
    ready,
    ...(memoryBytes === undefined ? {} : { memoryBytes }),
  };
}

function backupReport({ volume, storeName }: ReportSources): Report["backup"] {
  const status = volume.backupStatus();
  if (status) {
    const { reason: _, warnings: __, skipped, ...rest } = status;
    return { ...rest, skipped: [...skipped] };
  }
  const restore = volume.progress;
  return {
    state: volume.restingState,
    position: volume.position,
    lagMs: Math.round(volume.unsettledMs),
    pendingFiles: 0,
    pendingBytes: 0,
    skipped: [],
    skippedCount: 0,
    store: storeName,
    sentBytes: 0,
    requests: { a: 0, b: 0 },
    commitsToday: 0,
    budget: 0,
    ...(restore === undefined
      ? {}
      : {
          restore: {
            files: restore.files,
            filesDone: restore.filesDone,
            bytes: restore.bytes,
            bytesDone: restore.bytesDone,
            ...(restore.etaS === undefined ? {} : { etaS: restore.etaS }),
          },
        }),
  };
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
