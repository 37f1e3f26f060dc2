import { dlopen, ptr } from "bun:ffi";

const WNOHANG = 1;
const WEXITED = 4;
const WNOWAIT = 0x0100_0000;
const P_ALL = 0;
const PR_SET_CHILD_SUBREAPER = 36;
/** Where siginfo_t holds the pid, in 32-bit words, on 64-bit Linux. */
const SI_PID = 4;

/** The few system calls that the runtime has no function for. */
export interface Libc {
  /** Orphaned descendants become our children instead of init's. Returns false if the kernel refuses. */
  becomeSubreaper(): boolean;
  /** True if some child is a zombie. Takes nothing. */
  anyZombie(): boolean;
  /** Takes the zombie `pid`. Returns false if it is none of ours, or alive. */
  reap(pid: number): boolean;
  /** Ends the process at once, from any thread and also as PID 1, which no signal of its own can kill. */
  exitNow(code: number): void;
}

let opened: Libc | undefined;

/** Throws where the C library cannot be called. */
export function libc(): Libc {
  opened ??= open();
  return opened;
}

function open(): Libc {
  const { symbols } = dlopenFirst(["libc.so.6", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"]);
  // Over a buffer made first: a typed array that makes its own later leaves the pointer stale.
  const info = new Int32Array(new ArrayBuffer(128));
  const status = new Int32Array(new ArrayBuffer(8));
  return {
    becomeSubreaper: () => symbols.prctl(PR_SET_CHILD_SUBREAPER, 1n, 0n, 0n, 0n) === 0,
    anyZombie() {
      info[SI_PID] = 0;
      const result = symbols.waitid(P_ALL, 0, ptr(info), WEXITED | WNOHANG | WNOWAIT);
      return result === 0 && info[SI_PID] !== 0;
    },
    reap: (pid) => symbols.waitpid(pid, ptr(status), WNOHANG) === pid,
    // oxlint-disable-next-line eslint/no-underscore-dangle -- the C library's name for it
    exitNow: (code) => symbols._exit(code),
  };
}

function dlopenFirst(names: readonly string[]): ReturnType<typeof load> {
  let failure: unknown;
  for (const name of names) {
    try {
      return load(name);
    } catch (error) {
      failure = error;
    }
  }
  throw new Error('Cannot open "libc": none of its known names loads', { cause: failure });
}

// oxlint-disable-next-line typescript/explicit-function-return-type -- the symbols' types follow from the table
function load(name: string) {
  return dlopen(name, {
    waitid: { args: ["i32", "i32", "ptr", "i32"], returns: "i32" },
    waitpid: { args: ["i32", "ptr", "i32"], returns: "i32" },
    prctl: { args: ["i32", "u64", "u64", "u64", "u64"], returns: "i32" },
    _exit: { args: ["i32"], returns: "void" },
  });
}
