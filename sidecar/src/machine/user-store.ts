import type { Config } from "../config.ts";
import type { Clock } from "../platform/clock.ts";
import type { Logger } from "../platform/log.ts";
import { CountingStore } from "../store/counting.ts";
import { Credentials, type CredentialsEvent } from "../store/credentials.ts";
import { openStore } from "../store/open-store.ts";
import { PrefixedStore } from "../store/prefixed.ts";

export interface UserStoreOptions {
  readonly clock: Clock;
  readonly log: Logger;
  readonly onSecrets: (secrets: readonly string[]) => void;
  readonly onEvent: (event: CredentialsEvent) => void;
}

export interface UserStore {
  /** The part of the configured store that is this user's, counted. */
  readonly store: CountingStore;
  /** Undefined for a store that needs none. */
  readonly credentials: Credentials | undefined;
}

/** The store of this machine's user; undefined with the backup off. */
export function userStore(config: Config, options: UserStoreOptions): UserStore | undefined {
  const { backup, userId, dataDir } = config;
  if (!backup) return undefined;
  const { endpoint, region, credentials: initial, credentialsFile: file } = backup.s3;
  const credentials = backup.url.startsWith("s3://")
    ? new Credentials({ ...options, initial, file, volume: dataDir })
    : undefined;
  const store = openStore({
    url: backup.url,
    endpoint,
    region,
    credentials: credentials && (() => credentials.provide()),
    onDenied: (used) => credentials?.refused(used) ?? false,
    clock: options.clock,
  });
  const own = new PrefixedStore(store, `users/${userId}/backup/`);
  return { store: new CountingStore(own), credentials };
}
