/**
 * What every store keeps: immutable objects under keys.
 *
 * A key is ASCII: letters, digits and `-_./`, without a leading slash, at most 1,024 bytes (R2 normalises anything
 * else and would merge two names into one object). Its components are file names: never empty, `.`, `..` or over 255
 * bytes; anything else fails with kind `unsupported`. Reads also take the keys of objects that others put there. All stores are strongly consistent: what a put acknowledged, the
 * next get, head and list see.
 */
export interface Store {
  /** For people and logs: where this is, without secrets. */
  readonly name: string;

  /**
   * Stores `body` under `key`; resolves when it is durable. All or nothing: a failed put leaves no object, or the whole one.
   * With `ifAbsent` the first put of a key wins and every later one fails with kind `exists`, also when two race.
   * A retry after a lost answer can therefore meet `exists` on its own success: the caller compares what is there.
   */
  put(key: string, body: Body, options?: PutOptions): Promise<void>;

  /** The bytes of an object, or of a range of it. Fails with kind `missing` if it is not there. */
  get(key: string, options?: GetOptions): Promise<Uint8Array>;

  /** The same as a stream, for objects that need not fit into memory. Fails with kind `missing` before the first byte. */
  stream(key: string, options?: GetOptions): Promise<ReadableStream<Uint8Array>>;

  /** What is known of an object without its bytes; undefined if it is not there. */
  head(key: string, options?: SignalOption): Promise<ObjectInfo | undefined>;

  /** One page of the objects whose key starts with `prefix`, ordered by key (by bytes), all after the key `after`. */
  list(prefix: string, options?: ListOptions): Promise<ListPage>;

  /** Removes objects; a missing one is a success. */
  delete(keys: readonly string[], options?: SignalOption): Promise<void>;

  /**
   * Gives up what puts below `prefix` that were cut off have left behind, which no list shows. Resolves with their number.
   * Not there where a put leaves nothing.
   */
  abortUploads?(prefix: string, options: AbortUploadsOptions): Promise<number>;
}

/**
 * Bytes, or a source of known size that can be opened again for a retry. A source that throws, or gives more or fewer
 * bytes than its size, fails the put with its own error (no StoreError) and leaves no object.
 */
export type Body = Uint8Array | BodySource;

export interface BodySource {
  readonly sizeBytes: number;
  open(): AsyncIterable<Uint8Array>;
}

export interface SignalOption {
  /** Ends the call with the signal's reason. What it was about to do may have happened. */
  readonly signal?: AbortSignal | undefined;
}

export interface AbortUploadsOptions extends SignalOption {
  /** By the server's clock: far above what a put that goes on may take. */
  readonly olderThanMs: number;
}

export interface PutOptions extends SignalOption {
  readonly ifAbsent?: boolean;
}

export interface GetOptions extends SignalOption {
  /** Half-open range of bytes; an `end` past the object is cut. */
  readonly range?: { readonly start: number; readonly end: number };
}

export interface ListOptions extends SignalOption {
  readonly after?: string;
  /** At most this many objects in the page; at most, and by default, 1,000. */
  readonly limit?: number;
}

export interface ObjectInfo {
  readonly key: string;
  readonly sizeBytes: number;
  /** When it was stored, in milliseconds since the epoch, by the server's clock. */
  readonly modifiedMs: number;
}

export interface ListPage {
  readonly objects: readonly ObjectInfo[];
  /** True when more objects follow the last one of this page. */
  readonly more: boolean;
  /** The server's clock in milliseconds since the epoch: retention never trusts ours. */
  readonly nowMs: number;
}

export type StoreErrorKind =
  /** The key is taken and `ifAbsent` was asked for. */
  | "exists"
  /** There is no such object, or no such bucket or folder. */
  | "missing"
  /** The credentials are refused (401, 403): trying again will not help. */
  | "denied"
  /** Asked to slow down (429, 503 SlowDown). */
  | "throttled"
  /** The store cannot do what was asked, such as a conditional put (501). */
  | "unsupported"
  /** Anything that may pass: no connection, 5xx, a time-out, a torn answer. The write may have happened. */
  | "unavailable";

export class StoreError extends Error {
  readonly kind: StoreErrorKind;

  constructor(kind: StoreErrorKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "StoreError";
    this.kind = kind;
  }
}

/** True if `error` is a store's error of one of `kinds`. */
export function isStoreError(
  error: unknown,
  ...kinds: readonly StoreErrorKind[]
): error is StoreError {
  return error instanceof StoreError && (kinds.length === 0 || kinds.includes(error.kind));
}
