export type FilesErrorKind =
  /** The request itself makes no sense: no path, no JSON, a field missing. */
  | "bad_request"
  /** The body, or the file to read, is over the limit. */
  | "too_large"
  /** The body ended before its end: the client went away. */
  | "incomplete"
  /** Too much of the same at once; a moment later it works. */
  | "busy";

/** What a request to /files can end in besides what the volume says (VolumeError). */
export class FilesError extends Error {
  readonly kind: FilesErrorKind;

  constructor(kind: FilesErrorKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "FilesError";
    this.kind = kind;
  }
}
