import { fileURLToPath } from "node:url";

import type { Clock } from "../platform/clock.ts";
import { DeferredStore } from "./deferred.ts";
import { DirectoryStore } from "./directory.ts";
import { PrefixedStore } from "./prefixed.ts";
import type { CredentialsProvider, S3StoreOptions } from "./s3-settings.ts";
import type { Store } from "./store.ts";

export interface OpenStoreOptions {
  /** `s3://bucket`, `s3://bucket/prefix` or `file:///path`. */
  readonly url: string;
  /** Needed for `s3://`: asked before every request, so that what it gives can change. */
  readonly credentials?: CredentialsProvider | undefined;
  /** See S3StoreOptions. */
  readonly onDenied?: S3StoreOptions["onDenied"];
  /** Where the S3 API is, such as `https://ACCOUNT.r2.cloudflarestorage.com`; AWS's own by default. */
  readonly endpoint?: string | undefined;
  /** "auto" by default, R2's only one. */
  readonly region?: string | undefined;
  /** The bucket in the path instead of the host name; true by default where there is an endpoint. */
  readonly forcePathStyle?: boolean | undefined;
  readonly clock?: Clock | undefined;
}

/** The store that a URL means. Throws where the URL means none; nothing is contacted yet. */
export function openStore(options: OpenStoreOptions): Store {
  const { url, credentials, clock } = options;
  const parsed = parse(url);
  if (parsed.protocol === "file:") return new DirectoryStore(folderOf(parsed), { clock });

  if (parsed.hostname === "") throw refused(url, "no bucket in it");
  if (!credentials) throw refused(url, "no credentials for it");
  const bucket = parsed.hostname;
  const store = new DeferredStore(`s3://${bucket}`, async () => {
    const { S3Store } = await import("./s3.ts");
    return new S3Store({ ...options, bucket, credentials });
  });
  const prefix = parsed.pathname.replace(/^\/+|\/+$/g, "");
  return prefix === "" ? store : new PrefixedStore(store, `${prefix}/`);
}

function parse(url: string): URL {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (!parsed || (parsed.protocol !== "s3:" && parsed.protocol !== "file:")) {
    throw refused(url, "neither s3://bucket/prefix nor file:///path");
  }
  if (parsed.username !== "" || parsed.password !== "") {
    throw refused(url, "credentials do not belong into it");
  }
  if (parsed.search !== "" || parsed.hash !== "") throw refused(url, "more than a path in it");
  if (parsed.port !== "") throw refused(url, "a port in it, which belongs to the endpoint");
  return parsed;
}

function folderOf(url: URL): string {
  if (url.hostname !== "") throw refused(url.href, "a host in it: file:/// takes three slashes");
  if (url.pathname === "/") throw refused(url.href, "the root folder");
  return fileURLToPath(url);
}

function refused(url: string, found: string): Error {
  // What stands before an @ or after a ? may be a secret in the wrong place.
  const shown = url.replace(/\/\/[^/]*@/, "//…@").replace(/[?#].*$/s, "?…");
  return new Error(`Cannot open the store "${shown}": ${found}`);
}
