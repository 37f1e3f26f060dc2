import { createHash } from "node:crypto";

import type { S3ClientConfig } from "@aws-sdk/client-s3";

import type { Clock } from "../platform/clock.ts";
import { StoreError } from "./store.ts";

const CONNECT_LIMIT_MS = 10_000;
const IDLE_LIMIT_MS = 30_000;

export interface S3Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string | undefined;
  /** Milliseconds since the epoch. For the provider's own use: the server decides what has expired. */
  readonly expiresAt?: number | undefined;
}

/** Asked before every request, so it should answer from memory. A StoreError it throws is what the request fails with. */
export type CredentialsProvider = () => S3Credentials | Promise<S3Credentials>;

export interface S3StoreOptions {
  readonly bucket: string;
  readonly credentials: CredentialsProvider;
  /**
   * Told that the server refused `used`. True where the provider has others by now: the request is then sent once more.
   */
  readonly onDenied?: ((used: S3Credentials | undefined) => boolean) | undefined;
  /** "auto" by default, R2's only region. */
  readonly region?: string | undefined;
  /** AWS's own for the region by default. */
  readonly endpoint?: string | undefined;
  /** The bucket in the path instead of the host name; true by default where there is an endpoint. */
  readonly forcePathStyle?: boolean | undefined;
  readonly clock?: Clock | undefined;
  /** A connection on which nothing moves for so long is given up; 30 s by default. */
  readonly idleLimitMs?: number | undefined;
}

/** Everything the SDK would otherwise look up in the environment, in ~/.aws or at a metadata server. */
export function s3Settings(
  options: S3StoreOptions,
  note: (credentials: S3Credentials) => void,
): S3ClientConfig {
  const { region = "auto", endpoint, idleLimitMs = IDLE_LIMIT_MS } = options;
  return {
    credentials: async () => {
      const credentials = await provided(options.credentials);
      note(credentials);
      const { accessKeyId, secretAccessKey, sessionToken } = credentials;
      // Expired from the start, so that the SDK asks again for the next request instead of keeping them.
      const asked = { accessKeyId, secretAccessKey, expiration: new Date(0) };
      return sessionToken === undefined ? asked : { ...asked, sessionToken };
    },
    region,
    endpoint: endpoint ?? `https://s3.${region}.amazonaws.com`,
    forcePathStyle: options.forcePathStyle ?? endpoint !== undefined,
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    // R2 knows no 100-continue.
    expectContinueHeader: false,
    requestHandler: { connectionTimeout: CONNECT_LIMIT_MS, socketTimeout: idleLimitMs },
    defaultsMode: "standard",
    retryMode: "standard",
    useFipsEndpoint: false,
    useDualstackEndpoint: false,
    useArnRegion: false,
    disableMultiregionAccessPoints: true,
    disableS3ExpressSessionAuth: true,
    disableClockSkewCorrection: false,
    authSchemePreference: [],
    sigv4aSigningRegionSet: [],
    userAgentAppId: "sidecar",
  };
}

async function provided(provider: CredentialsProvider): Promise<S3Credentials> {
  try {
    return await provider();
  } catch (error) {
    if (error instanceof StoreError) throw error;
    throw new StoreError("unavailable", "Cannot sign a request: no credentials to be had", {
      cause: error,
    });
  }
}

/**
 * Puts Content-MD5 on a request with a body, in place of the SDK's newer checksums: every S3 server verifies it. Also
 * where the SDK insists on a checksum of its own (DeleteObjects). For a middleware before the signature.
 */
export function useMd5(request: unknown): void {
  const { headers, body } = request as { headers: Record<string, string>; body?: unknown };
  for (const name of Object.keys(headers)) {
    if (/^x-amz-(?:sdk-)?checksum-/i.test(name)) delete headers[name];
  }
  if (typeof body === "string" || body instanceof Uint8Array) {
    headers["content-md5"] = createHash("md5").update(body).digest("base64");
  }
}
