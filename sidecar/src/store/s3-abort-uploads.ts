import {
  AbortMultipartUploadCommand,
  ListMultipartUploadsCommand,
  type ListMultipartUploadsCommandOutput,
  type S3Client,
} from "@aws-sdk/client-s3";

/** Pages of 1,000 uploads. */
const MAX_PAGES = 100;

export interface AbortRequest {
  readonly client: S3Client;
  readonly target: { readonly Bucket: string; readonly Prefix: string };
  /** Uploads that began before this time, by the server's clock. */
  readonly beforeMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** Gives up uploads in parts that were never completed: nobody sees them, and they cost what they hold. Resolves with their number. */
export async function abortUploads(request: AbortRequest): Promise<number> {
  const { client, target, beforeMs, signal } = request;
  const options = signal ? { abortSignal: signal } : {};
  let aborted = 0;
  let marker: { readonly KeyMarker?: string; readonly UploadIdMarker?: string } = {};
  for (let pages = 0; pages < MAX_PAGES; pages += 1) {
    const command = new ListMultipartUploadsCommand({ ...target, ...marker });
    const page: ListMultipartUploadsCommandOutput = await client.send(command, options);
    for (const { Key, UploadId, Initiated } of page.Uploads ?? []) {
      if (!Key?.startsWith(target.Prefix) || !UploadId || !Initiated) continue;
      if (Initiated.getTime() > beforeMs) continue;
      const abort = new AbortMultipartUploadCommand({ Bucket: target.Bucket, Key, UploadId });
      await client.send(abort, options).catch((error: unknown) => {
        // Completed or given up meanwhile.
        if ((error as { name?: unknown }).name !== "NoSuchUpload") throw error;
      });
      aborted += 1;
    }
    const { IsTruncated, NextKeyMarker, NextUploadIdMarker } = page;
    if (!IsTruncated || !NextKeyMarker) break;
    marker = {
      KeyMarker: NextKeyMarker,
      ...(NextUploadIdMarker ? { UploadIdMarker: NextUploadIdMarker } : {}),
    };
  }
  return aborted;
}
