import { readFileSync } from "node:fs";

/** An account of this machine, as /etc/passwd has it. */
export interface User {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/** The users that children run as; undefined where a child keeps the sidecar's own. */
export interface ChildUsers {
  readonly agent: User | undefined;
  readonly caddy: User | undefined;
}

/**
 * Looks up `agent` and `caddy` by name, never by number: uid 1000 may be a real person on a developer's machine.
 * Only root can change users, so without it both are undefined.
 */
export function findChildUsers(
  options: { readonly isRoot?: boolean; readonly passwdPath?: string } = {},
): ChildUsers {
  const { isRoot = process.getuid?.() === 0, passwdPath = "/etc/passwd" } = options;
  if (!isRoot) return { agent: undefined, caddy: undefined };
  const passwd = readFileSync(passwdPath, "utf8");
  return { agent: userNamed("agent", passwd), caddy: userNamed("caddy", passwd) };
}

/** The user `name` of a passwd file; undefined if there is none, or it is root under another name. */
export function userNamed(name: string, passwd: string): User | undefined {
  for (const line of passwd.split("\n")) {
    const [found, , uid, gid] = line.split(":");
    if (found !== name || !/^\d{1,10}$/.test(uid ?? "") || !/^\d{1,10}$/.test(gid ?? "")) continue;
    return Number(uid) === 0 ? undefined : { name, uid: Number(uid), gid: Number(gid) };
  }
  return undefined;
}
