import { dlopen, ptr } from "bun:ffi";
import { closeSync, fchownSync } from "node:fs";

import type { ChildUser } from "./child-service.ts";

// Linux, the same on x86-64 and arm64.
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_REUSEPORT = 15;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;

/** sockaddr_in6 and sockaddr_in of all addresses. */
const ADDRESS_BYTES = { [AF_INET6]: 28, [AF_INET]: 16 };

/**
 * Takes a TCP port, on all addresses, so that nobody but `user` can listen there, also while nobody does. It is never
 * listened on by us: connections are refused until the user's program listens with SO_REUSEPORT, as Caddy does.
 * Throws where somebody has the port already. Disposing gives it back.
 */
export function holdPort(port: number, user: ChildUser): Disposable {
  const libc = open();
  const { symbols } = libc;
  try {
    // All IPv4 addresses are among those of IPv6. Without IPv6 nobody can listen there either.
    let family: typeof AF_INET6 | typeof AF_INET = AF_INET6;
    let fd = symbols.socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
      family = AF_INET;
      fd = symbols.socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    }
    if (fd < 0) throw new Error(`Cannot hold port ${port}: the system gives no socket`);
    try {
      const off = new Int32Array([0]);
      const on = new Int32Array([1]);
      if (family === AF_INET6) symbols.setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, ptr(off), 4);
      symbols.setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, ptr(on), 4);
      // A port is shared between sockets of one user alone.
      fchownSync(fd, user.uid, user.gid);
      const address = new DataView(new ArrayBuffer(ADDRESS_BYTES[family]));
      address.setUint16(0, family, true);
      address.setUint16(2, port);
      if (symbols.bind(fd, ptr(address), address.byteLength) !== 0) {
        throw new Error(`Cannot hold port ${port}: somebody else has it`);
      }
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    return { [Symbol.dispose]: () => closeSync(fd) };
  } finally {
    libc.close();
  }
}

// oxlint-disable-next-line typescript/explicit-function-return-type -- the symbols' types follow from the table
function open() {
  let failure: unknown;
  for (const name of ["libc.so.6", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"]) {
    try {
      return dlopen(name, {
        socket: { args: ["i32", "i32", "i32"], returns: "i32" },
        setsockopt: { args: ["i32", "i32", "i32", "ptr", "u32"], returns: "i32" },
        bind: { args: ["i32", "ptr", "u32"], returns: "i32" },
      });
    } catch (error) {
      failure = error;
    }
  }
  throw new Error('Cannot open "libc": none of its known names loads', { cause: failure });
}
