import { dlopen } from "bun:ffi";
import { closeSync, constants, openSync } from "node:fs";

const F_SETSIG = 10;
const F_SETLEASE = 1024;
const F_WRLCK = 1;
/** Ignored where nobody waits for it; the default, SIGIO, would end the process. */
const SIGURG = 23;

/**
 * Takes a write lease on a file, as its owner may: until it is given up, or the kernel takes it back after 45 s, whoever
 * opens the file waits, or is refused with EAGAIN where he does not want to.
 */
export function holdLease(path: string): Disposable {
  const libc = dlopen("libc.so.6", {
    fcntl: { args: ["i32", "i32", "i32"], returns: "i32" },
  });
  const fd = openSync(path, constants.O_RDWR);
  libc.symbols.fcntl(fd, F_SETSIG, SIGURG);
  if (libc.symbols.fcntl(fd, F_SETLEASE, F_WRLCK) !== 0) {
    throw new Error(`Cannot take a lease on "${path}"`);
  }
  return {
    [Symbol.dispose]() {
      closeSync(fd);
      libc.close();
    },
  };
}
