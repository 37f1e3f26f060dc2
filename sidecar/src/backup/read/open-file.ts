import { closeSync, fstatSync, writeSync, type BigIntStats } from "node:fs";

/** A descriptor that is closed with its scope, unless it was taken. */
export class OpenFile implements Disposable {
  readonly fd: number;
  #taken = false;

  constructor(fd: number) {
    this.fd = fd;
  }

  stat(): BigIntStats {
    return fstatSync(this.fd, { bigint: true });
  }

  /** Appends all of `bytes`. */
  write(bytes: Uint8Array): void {
    for (let offset = 0; offset < bytes.length;) offset += writeSync(this.fd, bytes, offset);
  }

  /** Whoever takes the descriptor closes it. */
  take(): number {
    this.#taken = true;
    return this.fd;
  }

  [Symbol.dispose](): void {
    if (!this.#taken) closeSync(this.fd);
    this.#taken = true;
  }
}
