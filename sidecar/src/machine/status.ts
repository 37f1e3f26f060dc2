import { ControlPlane } from "../health/control-plane.ts";
import { StateHistory, type Cause, type StateChange } from "../health/reasons.ts";
import type { MachineEventType } from "../health/report.ts";
import type { Readiness } from "../health/routes.ts";
import type { Clock } from "../platform/clock.ts";
import type { Logger } from "../platform/log.ts";
import type { Credentials } from "../store/credentials.ts";
import type { ServiceStatus } from "../supervisor/spec.ts";
import type { Disk } from "./disk.ts";
import { serviceCause } from "./service-cause.ts";
import type { VolumeEvent, VolumeLife } from "./volume-life.ts";

/** The parts that the machine's state follows from. */
export interface StatusSources {
  readonly services: () => readonly ServiceStatus[];
  readonly volume: VolumeLife;
  readonly disk: Disk;
  /** Of the store; undefined where it needs none. */
  readonly credentials: Credentials | undefined;
}

const EVERY_MS = 1_000;
/** What comes and goes is told this often at most. */
const WARN_AGAIN_MS = 3_600_000;

const READ_ONLY =
  "The volume is read-only, which a disk that fails becomes: nothing can be written or committed; restart the machine, and attach another volume if it stays so, which is restored from the backup";

/** Follows the state of the whole machine, and tells the log and the control plane when it changes. */
export class Status {
  readonly history: StateHistory;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #plane: ControlPlane | undefined;
  readonly #sources: StatusSources;
  #stopping = false;
  /** The parts have all been started, or one has failed. */
  #started = false;
  #wasReady = false;
  /** Every service was ready, or had died, at least once: one that dies again and again is not booting each time. */
  #haveTried = false;
  #failure: string | undefined;
  /** The causes of the last look, by part and kind. */
  #known: ReadonlySet<string> = new Set();
  /** When each was told of last. */
  readonly #warned = new Map<string, number>();
  #cancel: (() => void) | undefined;

  constructor(
    sources: StatusSources,
    options: {
      readonly clock: Clock;
      readonly log: Logger;
      readonly plane: ControlPlane | undefined;
    },
  ) {
    this.#sources = sources;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#plane = options.plane;
    this.history = new StateHistory(options.clock);
  }

  /** Looks every second, for what changes without anybody saying so. */
  start(): void {
    this.refresh();
    this.#cancel = this.#clock.after(EVERY_MS, () => this.start());
  }

  end(): void {
    this.#cancel?.();
  }

  /** All parts were asked to start. */
  started(): void {
    this.#started = true;
    this.refresh();
  }

  /** A part could not be started: the machine stays up and says so. */
  failed(error: unknown): void {
    this.#failure = error instanceof Error ? error.message : String(error);
    this.started();
  }

  stopping(): void {
    this.#stopping = true;
    this.refresh();
  }

  get isStopping(): boolean {
    return this.#stopping;
  }

  readiness(): Readiness {
    if (this.#stopping) return { ready: false, waitingFor: ["stop"] };
    const waitingFor = this.#sources
      .services()
      .filter((service) => !service.ready)
      .map((service) => service.name);
    if (!this.#sources.volume.isReady) waitingFor.unshift("volume");
    return { ready: waitingFor.length === 0, waitingFor };
  }

  /** Takes in what the parts say now. */
  refresh(): void {
    const { volume } = this.#sources;
    const causes = this.#causes();
    const booted = this.#isBooted();
    const change = this.history.update({
      stopping: this.#stopping,
      restoring: volume.isRestoring,
      booted,
      causes,
    });
    const { state } = this.history;
    const { before } = change;
    if (state === "ready" || state === "degraded")
      this.#warn(causes, { isTold: before !== undefined && state === "degraded" });
    if (before === undefined) {
      if (state === "degraded") this.#tellOf(change);
      return;
    }
    const fields = { state, before, reasons: causes.filter(isProblem).map(inWords) };
    if (state === "degraded") this.#log.warn(fields, "The machine is degraded");
    else this.#log.info(fields, "The machine's state changed");
    if (state === "ready") this.event(this.#wasReady ? "recovered" : "ready", {});
    if (state === "degraded") this.event("degraded", { reasons: causes });
    this.#wasReady ||= state === "ready";
    this.#plane?.changed();
  }

  /** Tells the control plane of every cause that has appeared, unless the event of the machine's state does. */
  #warn(causes: readonly Cause[], { isTold }: { readonly isTold: boolean }): void {
    const now = this.#clock.monotonic();
    const known = this.#known;
    this.#known = new Set(causes.map(keyOf));
    for (const cause of causes) {
      const key = keyOf(cause);
      if (known.has(key) || now - (this.#warned.get(key) ?? -Infinity) < WARN_AGAIN_MS) continue;
      this.#warned.set(key, now);
      if (cause.severity === "notice")
        this.#log.warn({ reason: inWords(cause) }, "Something should be known of the machine");
      if (!isTold) this.event("warning", { ...cause });
    }
  }

  /** Says what else is wrong now with a machine that was degraded before, and what is not any more. */
  #tellOf({ appeared, gone }: StateChange): void {
    for (const reason of appeared.filter(isProblem))
      this.#log.warn({ reason: inWords(reason) }, "Something else is wrong with the machine");
    const over = gone.filter(({ part }) => !appeared.some((reason) => reason.part === part));
    for (const reason of over.filter(isProblem))
      this.#log.info({ reason: inWords(reason) }, "Something is not wrong any more");
    if (appeared.length + gone.length > 0) this.#plane?.changed();
  }

  /** Passes on what happened to the volume or its backup. */
  tell({ type, message, details }: VolumeEvent): void {
    // "recovered" is what the control plane is told of the whole machine.
    this.event(type === "recovered" ? "reachable" : type, {
      ...(message === undefined ? {} : { message }),
      ...details,
    });
  }

  event(type: MachineEventType, details: Readonly<Record<string, unknown>>): void {
    this.#plane?.event(type, details);
  }

  /** Booting ends when everything was ready once, or when it has come to something that only others can help with. */
  #isBooted(): boolean {
    if (this.#wasReady || this.#failure !== undefined || this.#sources.volume.isStuck) return true;
    this.#haveTried ||=
      this.#started &&
      this.#sources
        .services()
        .every(
          ({ ready, state }) =>
            ready || state === "failed" || state === "backoff" || state === "stopped",
        );
    return this.#haveTried;
  }

  #causes(): Cause[] {
    const { volume, disk, credentials, services } = this.#sources;
    const causes = volume.causes();
    const lapse = credentials?.cause();
    if (lapse) causes.push({ part: "backup", ...lapse });
    if (this.#failure !== undefined)
      causes.unshift({ part: "machine", kind: "failed", message: this.#failure });
    for (const service of services()) {
      const cause = serviceCause(service);
      if (cause) causes.push(cause);
    }
    if (disk.isReadOnly) causes.push({ part: "volume", kind: "failing", message: READ_ONLY });
    if (disk.isLow) {
      const { free } = disk.space;
      const message = `Only ${Math.floor(free / 2 ** 20)} MiB are free on the volume: delete files or extend it`;
      causes.push({ part: "volume", kind: "disk_low", message });
    }
    return causes;
  }
}

function isProblem({ severity }: Cause): boolean {
  return severity !== "notice";
}

function keyOf({ part, kind }: Cause): string {
  return `${part} ${kind}`;
}

function inWords({ part, message }: Cause): string {
  return `${part}: ${message}`;
}
