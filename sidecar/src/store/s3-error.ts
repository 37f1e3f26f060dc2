import { StoreError, type StoreErrorKind } from "./store.ts";

export interface S3Attempt {
  /** What was tried, for "Cannot <verb>". */
  readonly verb: string;
  readonly bucket: string;
  readonly key: string;
  /** True for a put with `ifAbsent`: only then a 412 means that the key is taken. */
  readonly conditional?: boolean;
  /** Texts that no message may contain. */
  readonly secrets?: readonly string[];
}

/** Codes that say more than their HTTP status. Sources: the S3 API's and R2's lists of error codes. */
const BY_CODE: Readonly<Record<string, StoreErrorKind>> = {
  AccessDenied: "denied",
  ExpiredToken: "denied",
  InvalidAccessKeyId: "denied",
  InvalidToken: "denied",
  SignatureDoesNotMatch: "denied",
  Unauthorized: "denied",
  // The SDK takes our clock's offset from this answer: the next attempt is signed with the right time.
  RequestTimeTooSkewed: "unavailable",
  SlowDown: "throttled",
  TooManyRequests: "throttled",
  RequestLimitExceeded: "throttled",
  Throttling: "throttled",
  NotImplemented: "unsupported",
  NoSuchKey: "missing",
  NoSuchBucket: "missing",
  // The parts of an upload are gone: beginning again will do.
  NoSuchUpload: "unavailable",
};

const BY_STATUS: Readonly<Record<number, StoreErrorKind>> = {
  401: "denied",
  403: "denied",
  404: "missing",
  429: "throttled",
  501: "unsupported",
};

/** The StoreError for an error of the S3 client. Anything unknown is `unavailable`: the request may have been carried out. */
export function s3Error(error: unknown, attempt: S3Attempt): StoreError {
  if (error instanceof StoreError) return error;
  const { verb, bucket, key } = attempt;
  const status = statusOf(error);
  const code = codeOf(error);
  const kind = kindOf(status, code, attempt.conditional ?? false);
  const found =
    kind === "exists"
      ? "it exists already"
      : status === undefined
        ? (code ?? "no answer, or one of no use")
        : `the store answers ${status}${code === undefined ? "" : ` ${code}`}`;
  const message = `Cannot ${verb} "${key}" in bucket "${bucket}": ${found}`;
  return new StoreError(kind, scrub(message, attempt.secrets), { cause: causeOf(error, attempt) });
}

/** The kind of a code, as in the answer to the removal of many objects. */
export function kindOfCode(code: string | undefined): StoreErrorKind {
  return BY_CODE[code ?? ""] ?? "unavailable";
}

function kindOf(
  status: number | undefined,
  code: string | undefined,
  conditional: boolean,
): StoreErrorKind {
  if (status === 412) return conditional ? "exists" : "unavailable";
  return BY_CODE[code ?? ""] ?? BY_STATUS[status ?? 0] ?? "unavailable";
}

/** Only words: the client's errors carry the whole request with its signature, and what it was signed with. */
function causeOf(error: unknown, attempt: S3Attempt): Error {
  const text = error instanceof Error ? error.message : String(error);
  const words = text === "" || text === "UnknownError" ? (codeOf(error) ?? "no message") : text;
  return new Error(scrub(words.slice(0, 500), attempt.secrets));
}

function scrub(text: string, secrets: readonly string[] = []): string {
  let clean = text.replaceAll(/X-Amz-[A-Za-z-]+=[^&\s"]*/g, "X-Amz-…");
  // Nothing shorter is a secret, and would only make holes into words.
  for (const secret of secrets) if (secret.length >= 8) clean = clean.replaceAll(secret, "…");
  return clean;
}

function statusOf(error: unknown): number | undefined {
  const { $metadata } = Object(error) as { $metadata?: { httpStatusCode?: number } };
  return $metadata?.httpStatusCode;
}

function codeOf(error: unknown): string | undefined {
  const { Code, code, name } = Object(error) as { Code?: unknown; code?: unknown; name?: unknown };
  for (const candidate of [Code, code, name]) {
    if (
      typeof candidate === "string" &&
      candidate !== "" &&
      candidate !== "Error" &&
      candidate !== "Unknown"
    ) {
      return candidate.slice(0, 80);
    }
  }
  return undefined;
}
