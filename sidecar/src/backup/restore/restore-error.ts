/** `no_room`: the volume is too small for the tree. `no_history`: there is nothing to restore. */
export class RestoreError extends Error {
  readonly kind: "no_room" | "no_history";

  constructor(kind: "no_room" | "no_history", message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "RestoreError";
    this.kind = kind;
  }
}
