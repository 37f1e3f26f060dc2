import { Readable } from "node:stream";

import {
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from "@aws-sdk/client-s3";

import { systemClock, type Clock } from "../platform/clock.ts";
import { collect, orAborted, sizeOf } from "./body.ts";
import { checkKey, checkRange, pageSize } from "./key.ts";
import { abortUploads } from "./s3-abort-uploads.ts";
import { kindOfCode, s3Error } from "./s3-error.ts";
import { s3Settings, useMd5, type S3Credentials, type S3StoreOptions } from "./s3-settings.ts";
import { uploadParts } from "./s3-upload.ts";
import {
  StoreError,
  isStoreError,
  type AbortUploadsOptions,
  type Body,
  type GetOptions,
  type ListOptions,
  type ListPage,
  type ObjectInfo,
  type PutOptions,
  type SignalOption,
  type Store,
} from "./store.ts";

const MIB = 1 << 20;
/** Bodies up to this size are one request. */
const SINGLE_PUT_BYTES = 8 * MIB;
/**
 * With `ifAbsent`, up to here: that PutObject honours the condition is what the probe proves. CompleteMultipartUpload
 * takes it too, on AWS and R2, but other servers ignore it there (Ceph 16 does).
 */
const SINGLE_CONDITIONAL_PUT_BYTES = 64 * MIB;
const DELETE_BATCH = 1_000;
const TRIES = 3;

/**
 * A bucket of an S3 server. Nothing but the options counts: the SDK's own chain of credentials, AWS_* variables and
 * ~/.aws are never looked at. Facts about R2: design of the backup, "R2 and SDK facts".
 */
export class S3Store implements Store {
  readonly name: string;
  readonly #bucket: string;
  readonly #clock: Clock;
  /** Sends a request once: for what must not be repeated without looking. */
  readonly #once: S3Client;
  /** Sends again after what may pass. */
  readonly #client: S3Client;
  readonly #onDenied: S3StoreOptions["onDenied"];
  /** What the last request was signed with. */
  #credentials: S3Credentials | undefined;
  #secrets: readonly string[] = [];
  /** The server's clock minus ours, as of the last answer that told. */
  #skewMs = 0;

  constructor(options: S3StoreOptions) {
    this.name = `s3://${options.bucket}`;
    this.#bucket = options.bucket;
    this.#clock = options.clock ?? systemClock;
    this.#onDenied = options.onDenied;
    const settings = s3Settings(options, (credentials) => this.#noteCredentials(credentials));
    this.#client = new S3Client({ ...settings, maxAttempts: TRIES });
    const { requestHandler } = this.#client.config;
    this.#once = new S3Client({ ...settings, requestHandler, maxAttempts: 1 });
    for (const client of [this.#client, this.#once]) {
      client.middlewareStack.add(
        (next) => (args) => {
          useMd5(args.request);
          return next(args);
        },
        { step: "build", priority: "low", name: "useMd5" },
      );
    }
  }

  async put(key: string, body: Body, options: PutOptions = {}): Promise<void> {
    checkKey(key);
    const { ifAbsent = false, signal } = options;
    signal?.throwIfAborted();
    const limit = ifAbsent ? SINGLE_CONDITIONAL_PUT_BYTES : SINGLE_PUT_BYTES;
    if (sizeOf(body) > limit) {
      await this.#putParts(key, body, options);
      return;
    }
    const bytes = await collect(body, { key, signal });
    const command = new PutObjectCommand({
      ...this.#at(key),
      Body: bytes,
      ...(ifAbsent ? { IfNoneMatch: "*" } : {}),
    });
    const client = ifAbsent ? this.#once : this.#client;
    await this.#try({ verb: "put", key, conditional: ifAbsent }, signal, () =>
      client.send(command, sendOptions(signal)),
    );
  }

  async get(key: string, options: GetOptions = {}): Promise<Uint8Array> {
    const { body, sizeBytes } = await this.#open(key, options);
    return this.#try({ verb: "get", key }, options.signal, async () => {
      const bytes = new Uint8Array(sizeBytes);
      let offset = 0;
      for await (const chunk of body as AsyncIterable<Uint8Array>) {
        bytes.set(chunk, offset);
        offset += chunk.byteLength;
      }
      if (offset < sizeBytes) throw new Error(`only ${offset} of ${sizeBytes} bytes came`);
      return bytes;
    });
  }

  async stream(key: string, options: GetOptions = {}): Promise<ReadableStream<Uint8Array>> {
    const { body } = await this.#open(key, options);
    const chunks = body[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
    return new ReadableStream<Uint8Array>({
      pull: (controller) =>
        this.#try({ verb: "get", key }, options.signal, async () => {
          const next = await chunks.next();
          if (next.done) controller.close();
          else controller.enqueue(next.value);
        }),
      cancel: () => {
        body.destroy();
      },
    });
  }

  async head(key: string, options: SignalOption = {}): Promise<ObjectInfo | undefined> {
    const { signal } = options;
    try {
      return await this.#try({ verb: "look at", key }, signal, async () => {
        const answer = await this.#client.send(
          new HeadObjectCommand(this.#at(key)),
          sendOptions(signal),
        );
        return infoOf(key, answer.ContentLength, answer.LastModified);
      });
    } catch (error) {
      if (isStoreError(error, "missing")) return undefined;
      throw error;
    }
  }

  list(prefix: string, options: ListOptions = {}): Promise<ListPage> {
    const { after, signal } = options;
    const command = new ListObjectsV2Command({
      Bucket: this.#bucket,
      Prefix: prefix,
      MaxKeys: pageSize(options.limit),
      ...(after ? { StartAfter: after } : {}),
    });
    command.middlewareStack.add(
      (next) => async (args) => {
        const result = await next(args);
        this.#noteTime(result.response);
        return result;
      },
      { step: "deserialize", name: "noteTime" },
    );
    return this.#try({ verb: "list", key: prefix }, signal, async () => {
      const answer = await this.#client.send(command, sendOptions(signal));
      return {
        objects: (answer.Contents ?? []).map((object) =>
          infoOf(object.Key ?? "", object.Size, object.LastModified),
        ),
        more: answer.IsTruncated ?? false,
        nowMs: this.#clock.now() + this.#skewMs,
      };
    });
  }

  async delete(keys: readonly string[], options: SignalOption = {}): Promise<void> {
    const { signal } = options;
    for (const key of keys) checkKey(key);
    for (let start = 0; start < keys.length; start += DELETE_BATCH) {
      const batch = keys.slice(start, start + DELETE_BATCH);
      const [first = ""] = batch;
      const command = new DeleteObjectsCommand({
        Bucket: this.#bucket,
        Delete: { Quiet: true, Objects: batch.map((key) => ({ Key: key })) },
      });
      const answer = await this.#try({ verb: "delete", key: first }, signal, () =>
        this.#client.send(command, sendOptions(signal)),
      );
      this.#checkDeleted(answer.Errors ?? []);
    }
  }

  abortUploads(prefix: string, options: AbortUploadsOptions): Promise<number> {
    const { olderThanMs, signal } = options;
    const verb = "abort the uploads of";
    return this.#try({ verb, key: prefix }, signal, () =>
      abortUploads({
        client: this.#client,
        target: { Bucket: this.#bucket, Prefix: prefix },
        beforeMs: this.#clock.now() + this.#skewMs - olderThanMs,
        signal,
      }),
    );
  }

  #checkDeleted(errors: readonly Failure[]): void {
    const failed = errors.filter((error) => error.Code !== "NoSuchKey");
    const [first] = failed;
    if (!first) return;
    const others = failed.length === 1 ? "" : ` and ${failed.length - 1} others`;
    throw new StoreError(
      kindOfCode(first.Code),
      `Cannot delete "${first.Key ?? ""}"${others} in bucket "${this.#bucket}": the store answers ${first.Code ?? "with an error"}`,
    );
  }

  async #putParts(key: string, body: Body, options: PutOptions): Promise<void> {
    const { ifAbsent = false, signal } = options;
    if (ifAbsent && (await this.head(key, { signal }))) {
      // Saves sending it all to be refused at the end; the condition there decides.
      throw new StoreError(
        "exists",
        `Cannot put "${key}" in bucket "${this.#bucket}": it exists already`,
      );
    }
    await uploadParts({
      client: this.#client,
      once: this.#once,
      target: this.#at(key),
      body,
      ifAbsent,
      signal,
      clock: this.#clock,
      explain: (error) => this.#error(error, { verb: "put", key, conditional: ifAbsent }),
    });
  }

  /** The body of an object or of a range of it. A range beyond the end is empty. */
  async #open(key: string, options: GetOptions): Promise<OpenBody> {
    const { range, signal } = options;
    if (range) checkRange(range);
    // HTTP has no empty range: one byte tells whether the object is there.
    const last = range && Math.max(range.end - 1, range.start);
    const command = new GetObjectCommand({
      ...this.#at(key),
      ...(range ? { Range: `bytes=${range.start}-${last}` } : {}),
    });
    return this.#try({ verb: "get", key }, signal, async () => {
      const answer = await this.#client
        .send(command, sendOptions(signal))
        .catch((error: unknown) => {
          if ((error as { name?: unknown }).name === "InvalidRange") return undefined;
          throw error;
        });
      const body = answer?.Body as Readable | undefined;
      const sizeBytes = answer?.ContentLength;
      if (!body) return { body: Readable.from([]), sizeBytes: 0 };
      if (range && range.start === range.end) {
        body.destroy();
        return { body: Readable.from([]), sizeBytes: 0 };
      }
      if (sizeBytes === undefined || (range && answer?.ContentRange === undefined)) {
        body.destroy();
        throw new Error("the answer has no length, or is not of the range asked for");
      }
      return { body, sizeBytes };
    });
  }

  #at(key: string): { Bucket: string; Key: string } {
    return { Bucket: this.#bucket, Key: key };
  }

  async #try<T>(
    attempt: { readonly verb: string; readonly key: string; readonly conditional?: boolean },
    signal: AbortSignal | undefined,
    action: () => Promise<T>,
  ): Promise<T> {
    for (let renewals = 0; ; renewals += 1) {
      signal?.throwIfAborted();
      try {
        // The SDK's pauses between its attempts, of up to 20 s, do not heed the signal.
        return await orAborted(action(), signal);
      } catch (error) {
        signal?.throwIfAborted();
        const failure = this.#error(error, attempt);
        // What was refused has not happened: it can be asked again as it is.
        const isRenewed = failure.kind === "denied" && this.#onDenied?.(this.#credentials);
        if (!isRenewed || renewals > 0) throw failure;
      }
    }
  }

  #error(
    error: unknown,
    attempt: { readonly verb: string; readonly key: string; readonly conditional?: boolean },
  ): StoreError {
    return s3Error(error, { ...attempt, bucket: this.#bucket, secrets: this.#secrets });
  }

  #noteCredentials(credentials: S3Credentials): void {
    if (credentials === this.#credentials) return;
    this.#credentials = credentials;
    const { accessKeyId, secretAccessKey, sessionToken = "" } = credentials;
    // Answers to requests signed with the earlier ones may still come.
    const earlier = this.#secrets.slice(0, 3);
    this.#secrets = [sessionToken, secretAccessKey, accessKeyId, ...earlier];
  }

  #noteTime(response: unknown): void {
    const { headers } = Object(response) as { headers?: Readonly<Record<string, string>> };
    const date = Date.parse(headers?.["date"] ?? "");
    if (!Number.isNaN(date)) this.#skewMs = date - this.#clock.now();
  }
}

interface OpenBody {
  readonly body: Readable;
  readonly sizeBytes: number;
}

interface Failure {
  readonly Key?: string | undefined;
  readonly Code?: string | undefined;
}

function infoOf(key: string, size: number | undefined, modified: Date | undefined): ObjectInfo {
  if (size === undefined || !modified) {
    throw new Error("the answer lacks the size or the time of an object");
  }
  return { key, sizeBytes: size, modifiedMs: modified.getTime() };
}

function sendOptions(signal: AbortSignal | undefined): { abortSignal?: AbortSignal } {
  return signal ? { abortSignal: signal } : {};
}
