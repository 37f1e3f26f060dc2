import type { Config } from "../config.ts";
import type { Clock } from "../platform/clock.ts";
import { CountingStore } from "../store/counting.ts";
import { openStore } from "../store/open-store.ts";
import { PrefixedStore } from "../store/prefixed.ts";

/** The part of the configured store that is this user's, counted; undefined with the backup off. */
export function userStore({ backup, userId }: Config, clock: Clock): CountingStore | undefined {
  if (!backup) return undefined;
  const { endpoint, region, credentials } = backup.s3;
  const store = openStore({
    url: backup.url,
    endpoint,
    region,
    credentials: credentials && (() => credentials),
    clock,
  });
  return new CountingStore(new PrefixedStore(store, `users/${userId}/backup/`));
}
