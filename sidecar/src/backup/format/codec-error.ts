/**
 * An object of the store cannot be understood. `corrupt`: its bytes are damaged, or no version of ours would have written
 * them. `newer`: a newer sidecar wrote it, which must be used to read it.
 */
export class CodecError extends Error {
  readonly kind: "corrupt" | "newer";

  constructor(kind: "corrupt" | "newer", message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "CodecError";
    this.kind = kind;
  }
}

/** True if `error` is a codec's error of one of `kinds` (of any, where none is given). */
export function isCodecError(
  error: unknown,
  ...kinds: readonly CodecError["kind"][]
): error is CodecError {
  return error instanceof CodecError && (kinds.length === 0 || kinds.includes(error.kind));
}
