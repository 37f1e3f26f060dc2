import type { Clock } from "../platform/clock.ts";
import type { Logger } from "../platform/log.ts";
import { readCredentialsFile, stampOfFile } from "./credentials-file.ts";
import type { S3Credentials } from "./s3-settings.ts";
import { StoreError } from "./store.ts";

const LOOK_MS = 30_000;
/** A file that cannot be read may be half written: so soon it is looked at again before that is told. */
const LOOK_AGAIN_MS = 1_000;
/** So long before its credentials end, a machine that has no newer ones says so. */
const EXPIRY_ALARM_MS = 3_600_000;

export interface CredentialsEvent {
  readonly type:
    | "credentials_renewed"
    | "credentials_expiring"
    | "credentials_expired"
    | "credentials_unreadable";
  readonly message: string;
  readonly details: Readonly<Record<string, string>>;
}

export interface CredentialsOptions {
  /** In force until there are others. */
  readonly initial?: S3Credentials | undefined;
  /** Absolute path of a file that is read again whenever it changes. */
  readonly file?: string | undefined;
  /** Absolute path of the folder in which such a file would be within the agent's reach. */
  readonly volume?: string | undefined;
  readonly clock: Clock;
  readonly log: Logger;
  /** Told every secret before it is used for the first time. */
  readonly onSecrets?: (secrets: readonly string[]) => void;
  readonly onEvent?: (event: CredentialsEvent) => void;
}

/** What is wrong with the credentials. */
export interface CredentialsCause {
  readonly kind: "credentials_expiring" | "credentials_expired" | "credentials_unreadable";
  readonly message: string;
}

/**
 * The credentials of a store, which may be replaced at any time: by a file that changes, or by whoever calls `replace`. The
 * newest that came count. They are kept in memory alone. Source: backup.md, "R2 and SDK facts".
 */
export class Credentials {
  readonly #options: CredentialsOptions;
  #current: S3Credentials | undefined;
  #stamp: string | undefined;
  /** Why the file cannot be read, once that was told. */
  #fault: string | undefined;
  #misses = 0;
  #hasLooked = false;
  #told: CredentialsCause["kind"] | undefined;
  #warned: string | undefined;
  #renewal = new AbortController();
  #cancel: (() => void) | undefined;

  constructor(options: CredentialsOptions) {
    this.#options = options;
    this.#current = options.initial;
  }

  /** Looks at the file now, and every 30 s from now on. */
  start(): void {
    this.#cancel?.();
    this.#look();
    this.#judge();
    const wait = this.#misses === 1 ? LOOK_AGAIN_MS : LOOK_MS;
    this.#cancel = this.#options.clock.after(wait, () => this.start());
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  /** What the next request is signed with. Throws a StoreError `denied` where there is nothing. */
  provide(): S3Credentials {
    if (!this.#hasLooked) this.#look();
    if (this.#current) return this.#current;
    const why = this.#fault ?? "none were given";
    throw new StoreError("denied", `Cannot sign a request: there are no credentials: ${why}`);
  }

  /** The store has refused `used`: looks at the file at once. Returns true where the next request will be signed otherwise. */
  refused(used: S3Credentials | undefined): boolean {
    this.#look();
    return this.#current !== undefined && this.#current !== used;
  }

  /** Takes these from now on, until the file changes. */
  replace(credentials: S3Credentials): void {
    this.#take(credentials, "given by an operator");
    this.#judge();
  }

  /** Aborts as soon as there are other credentials than now: whoever waits after a refusal can go on. */
  renewed(): AbortSignal {
    return this.#renewal.signal;
  }

  /** ISO 8601; undefined where nobody said. */
  get expiresAt(): string | undefined {
    const at = this.#current?.expiresAt;
    return at === undefined ? undefined : new Date(at).toISOString();
  }

  /** What a person should do something about; undefined where all is well. */
  cause(): CredentialsCause | undefined {
    const left = this.#leftMs();
    const renew =
      this.#options.file === undefined
        ? "give the machine new ones by PUT /machine/credentials on its socket"
        : `put new ones into "${this.#options.file}"`;
    if (left <= 0) {
      const message = `The store's credentials expired at ${this.expiresAt}: ${renew}`;
      return { kind: "credentials_expired", message };
    }
    if (left <= EXPIRY_ALARM_MS) {
      const message = `The store's credentials expire at ${this.expiresAt}: ${renew}`;
      return { kind: "credentials_expiring", message };
    }
    if (this.#fault === undefined) return undefined;
    const rest = this.#current ? "; the earlier ones stay in use" : "";
    return { kind: "credentials_unreadable", message: `${this.#fault}${rest}` };
  }

  #leftMs(): number {
    const { expiresAt = Infinity } = this.#current ?? {};
    return expiresAt - this.#options.clock.now();
  }

  #look(): void {
    const { file, volume, log } = this.#options;
    this.#hasLooked = true;
    if (file === undefined) return;
    try {
      if (stampOfFile(file) === this.#stamp && this.#misses === 0) return;
      const { credentials, stamp, exposure } = readCredentialsFile(file, { volume });
      this.#misses = 0;
      this.#fault = undefined;
      if (exposure !== undefined && exposure !== this.#warned)
        log.warn({ file, reason: exposure }, "The credentials file is not for root alone");
      this.#warned = exposure;
      if (stamp === this.#stamp) return;
      this.#stamp = stamp;
      this.#take(credentials, `read from "${file}"`);
    } catch (error) {
      this.#misses += 1;
      if (this.#misses > 1 || !this.#current)
        this.#fault = `Cannot read the credentials file "${file}": ${wordsOf(error)}`;
    }
  }

  #take(credentials: S3Credentials, source: string): void {
    const before = this.#current;
    if (before && isSame(before, credentials)) return;
    const { accessKeyId, secretAccessKey, sessionToken } = credentials;
    this.#options.onSecrets?.([accessKeyId, secretAccessKey, sessionToken ?? ""].filter(Boolean));
    this.#current = credentials;
    const renewal = this.#renewal;
    this.#renewal = new AbortController();
    renewal.abort(new Error("There are new credentials"));
    const details = { source, ...(this.expiresAt ? { expiresAt: this.expiresAt } : {}) };
    this.#options.log.info(details, "The store's credentials are other ones now");
    // The first ones are no news.
    if (!before) return;
    const message = `The store's credentials were replaced: ${source}`;
    this.#options.onEvent?.({ type: "credentials_renewed", message, details });
  }

  /** Tells of what is wrong, once. */
  #judge(): void {
    const { log, onEvent } = this.#options;
    const cause = this.cause();
    if (cause?.kind === this.#told) return;
    this.#told = cause?.kind;
    if (!cause) return;
    const { kind, message } = cause;
    const details = this.expiresAt === undefined ? {} : { expiresAt: this.expiresAt };
    if (kind === "credentials_expiring") log.warn({ reason: kind, ...details }, message);
    else log.error({ reason: kind, ...details }, message);
    onEvent?.({ type: kind, message, details });
  }
}

function isSame(one: S3Credentials, other: S3Credentials): boolean {
  return (
    one.accessKeyId === other.accessKeyId &&
    one.secretAccessKey === other.secretAccessKey &&
    one.sessionToken === other.sessionToken &&
    one.expiresAt === other.expiresAt
  );
}

function wordsOf(error: unknown): string {
  const { code } = error as NodeJS.ErrnoException;
  if (code === "ENOENT") return "it is not there";
  if (code !== undefined) return `the disk answers ${code}`;
  const text = error instanceof Error ? error.message : String(error);
  return text.replace(/^Cannot use the credentials: /, "");
}
