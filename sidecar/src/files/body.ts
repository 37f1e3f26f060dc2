import type { z } from "zod";

import { FilesError } from "./files-error.ts";
import type { MemoryShare } from "./memory-budget.ts";

/** A body to read. */
export interface Incoming {
  readonly request: Request;
  readonly limitBytes: number;
  /** Called for each piece that arrives. */
  readonly touch?: (() => void) | undefined;
}

/** Throws `too_large` where the request says beforehand that its body is over the limit. */
export function checkDeclaredLength({ request, limitBytes }: Incoming): void {
  if ((declaredLength(request) ?? 0) > limitBytes) throw tooLarge(limitBytes);
}

/** The body as it arrives. Throws FilesError `too_large` past the limit, and `incomplete` where the client goes away. */
export async function* bodyChunks({
  request,
  limitBytes,
  touch,
}: Incoming): AsyncGenerator<Uint8Array> {
  const declared = declaredLength(request);
  const reader = request.body?.getReader();
  let size = 0;
  try {
    for (;;) {
      const chunk = await reader?.read();
      if (!chunk?.value) break;
      touch?.();
      size += chunk.value.byteLength;
      if (size > limitBytes) break;
      yield chunk.value;
    }
  } catch (error) {
    throw new FilesError("incomplete", "Cannot read the body: the client went away", {
      cause: error,
    });
  } finally {
    // Does nothing after the end. A stream that broke rejects here too, and has said so already.
    void reader?.cancel().then(undefined, () => {});
  }
  if (size > limitBytes) throw tooLarge(limitBytes);
  if (declared !== undefined && size < declared) {
    throw new FilesError(
      "incomplete",
      `Cannot read the body: it has ${size} bytes instead of ${declared}`,
    );
  }
}

/** The body as JSON of the given shape, which is held in memory as `share`. Throws FilesError. */
export async function jsonBody<T>(
  incoming: Incoming & { readonly share: MemoryShare },
  schema: z.ZodType<T>,
): Promise<T> {
  checkDeclaredLength(incoming);
  const chunks: Uint8Array[] = [];
  for await (const chunk of bodyChunks(incoming)) {
    incoming.share.add(chunk.byteLength);
    chunks.push(chunk);
  }
  let value: unknown;
  try {
    value = JSON.parse(Buffer.concat(chunks).toString("utf8"));
  } catch {
    // Without the parser's words: they quote the body.
    throw new FilesError("bad_request", "Cannot read the body: it is not JSON");
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const fault = parsed.error.issues[0];
  throw new FilesError(
    "bad_request",
    `Cannot read the body: "${fault?.path.join(".") ?? ""}": ${fault?.message ?? "not understood"}`,
  );
}

function declaredLength(request: Request): number | undefined {
  const header = request.headers.get("content-length");
  return header !== null && /^\d+$/.test(header) ? Number(header) : undefined;
}

function tooLarge(limitBytes: number): FilesError {
  return new FilesError("too_large", `Cannot take the body: it has more than ${limitBytes} bytes`);
}
