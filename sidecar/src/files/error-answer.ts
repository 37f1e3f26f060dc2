import type { Context } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";

import { isVolumeError, type VolumeErrorKind } from "../volume/volume-error.ts";
import { FilesError, type FilesErrorKind } from "./files-error.ts";

type Answer = readonly [status: ContentfulStatusCode, code: string];

const VOLUME: Readonly<Record<VolumeErrorKind, Answer>> = {
  missing: [404, "not_found"],
  exists: [409, "exists"],
  not_directory: [400, "not_directory"],
  is_directory: [400, "is_directory"],
  not_empty: [409, "not_empty"],
  special: [400, "special"],
  outside_root: [403, "outside_root"],
  // Not 404: that the machine has such a folder is no secret, and a client told "missing" would try to create it.
  private: [403, "private"],
  bad_name: [400, "bad_name"],
  too_large: [413, "too_large"],
  denied: [403, "denied"],
  no_space: [507, "no_space"],
  failing: [503, "volume_failing"],
};

const FILES: Readonly<Record<FilesErrorKind, Answer>> = {
  bad_request: [400, "bad_request"],
  too_large: [413, "too_large"],
  incomplete: [400, "incomplete"],
  busy: [503, "busy"],
};

/** The answer to a request that ended in `error`: `{error, code, requestId}`. Throws what is nobody's business but ours. */
export function errorAnswer(error: Error, c: Context): Response {
  if (isVolumeError(error)) return answer(c, VOLUME[error.kind], error.message);
  if (!(error instanceof FilesError)) throw error;
  if (error.kind === "busy") c.header("Retry-After", "1");
  return answer(c, FILES[error.kind], error.message);
}

function answer(c: Context, [status, code]: Answer, error: string): Response {
  return c.json({ error, code, requestId: c.get("requestId") }, status);
}
