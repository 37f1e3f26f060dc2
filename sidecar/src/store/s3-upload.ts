import { Readable } from "node:stream";

import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  type S3Client,
} from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";

import type { Clock } from "../platform/clock.ts";
import { exactlyHeldBack, orAborted, sizeOf } from "./body.ts";
import type { Body, StoreError } from "./store.ts";

const PART_BYTES = 8 << 20;
const MAX_PARTS = 10_000;
/** R2 answers 500 to more parts of one upload at a time. */
const PARTS_IN_FLIGHT = 2;
const ABANDON_LIMIT_MS = 5_000;

export interface UploadOptions {
  /** Sends again after what may pass. */
  readonly client: S3Client;
  /** Sends a request once. */
  readonly once: S3Client;
  readonly target: { readonly Bucket: string; readonly Key: string };
  readonly body: Body;
  readonly ifAbsent: boolean;
  readonly signal?: AbortSignal | undefined;
  readonly clock: Clock;
  /** The error that a failed request is thrown as. */
  readonly explain: (error: unknown) => StoreError;
}

/** Puts a large body in parts. The object appears with the last request, which is sent once the source has ended well. */
export async function uploadParts(options: UploadOptions): Promise<void> {
  const { target, body, ifAbsent, signal } = options;
  const sizeBytes = sizeOf(body);
  // Ends the other part and the source at the first failure: lib-storage by itself would send all the rest first.
  const failed = new AbortController();
  const ended = signal ? AbortSignal.any([signal, failed.signal]) : failed.signal;
  const source =
    body instanceof Uint8Array
      ? body
      : Readable.from(exactlyHeldBack(body, { key: target.Key, signal: ended }));
  const upload = new Upload({
    client: uploadClient(options, { ended, failed }),
    params: {
      ...target,
      Body: source,
      ContentLength: sizeBytes,
      ...(ifAbsent ? { IfNoneMatch: "*" } : {}),
    },
    partSize: Math.max(PART_BYTES, Math.ceil(sizeBytes / MAX_PARTS)),
    queueSize: PARTS_IN_FLIGHT,
  });
  try {
    await upload.done();
  } catch (error) {
    signal?.throwIfAborted();
    if (!failed.signal.aborted) throw error;
    throw options.explain(failed.signal.reason);
  } finally {
    if (source instanceof Readable) source.destroy();
  }
}

/** What lib-storage needs of a client: requests that end with `ended`, and a conditional last one that is sent only once. */
function uploadClient(
  options: UploadOptions,
  signals: { readonly ended: AbortSignal; readonly failed: AbortController },
): S3Client {
  const { client, once, ifAbsent } = options;
  type Command = Parameters<S3Client["send"]>[0];
  const send = async (command: Command): Promise<unknown> => {
    if (command instanceof AbortMultipartUploadCommand) return abandon(command, options);
    const sender = ifAbsent && command instanceof CompleteMultipartUploadCommand ? once : client;
    try {
      return await orAborted(sender.send(command, { abortSignal: signals.ended }), signals.ended);
    } catch (error) {
      signals.failed.abort(error);
      throw error;
    }
  };
  return { config: client.config, send } as unknown as S3Client;
}

/** Never fails: the server removes the parts of unfinished uploads by itself (R2 after 7 days). */
async function abandon(
  command: AbortMultipartUploadCommand,
  options: UploadOptions,
): Promise<unknown> {
  const limit = new AbortController();
  const cancel = options.clock.after(ABANDON_LIMIT_MS, () => limit.abort());
  try {
    return await options.once.send(command, { abortSignal: limit.signal });
  } catch {
    return undefined;
  } finally {
    cancel();
  }
}
