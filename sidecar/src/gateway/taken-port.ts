import { readFileSync, readdirSync, readlinkSync } from "node:fs";

const TABLES = ["/proc/net/tcp", "/proc/net/tcp6"];
/** State of a listening socket in those tables. */
const LISTEN = "0A";

/**
 * Throws where somebody listens on the TCP port, on any address, and says who: a gateway that cannot have its port ends
 * with a code that says nothing, and whoever holds it would be asked in its place. `variable` is what chooses the port.
 */
export function requireFreePort(port: number, variable: string): void {
  const inode = TABLES.map((table) => listenerIn(table, port)).find((found) => found !== undefined);
  if (inode === undefined) return;
  throw new Error(
    `Cannot use port ${port}: ${holderOf(inode)} listens on it; end it, or choose another port with ${variable}`,
  );
}

/** The inode of the socket that listens on `port`. */
function listenerIn(table: string, port: number): string | undefined {
  const wanted = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const rows = read(table).trim().split("\n").slice(1);
  return rows
    .map((row) => row.trim().split(/\s+/))
    .find(([, local = "", , state]) => state === LISTEN && local.endsWith(wanted))?.[9];
}

function holderOf(inode: string): string {
  for (const pid of readdirSync("/proc")) {
    if (!/^\d+$/.test(pid) || !holds(pid, `socket:[${inode}]`)) continue;
    return `process ${pid} (${read(`/proc/${pid}/comm`).trim()})`;
  }
  return "another process";
}

function holds(pid: string, target: string): boolean {
  const folder = `/proc/${pid}/fd`;
  try {
    return readdirSync(folder).some((fd) => {
      try {
        return readlinkSync(`${folder}/${fd}`) === target;
      } catch {
        return false;
      }
    });
  } catch {
    // Gone, or not ours to see.
    return false;
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}
