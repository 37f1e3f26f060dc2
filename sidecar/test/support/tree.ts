import { lstatSync, readFileSync, readdirSync, readlinkSync } from "node:fs";

export interface Described {
  readonly type: "file" | "directory" | "symlink" | "special";
  /** Permission bits with setuid, setgid and sticky, as "0755"; absent for links, which have none of their own. */
  readonly mode?: string;
  readonly mtimeNs: string;
  readonly sha256?: string;
  readonly target?: string;
  /** The first path of the same inode, by the order of paths, where the file has several names in this tree. */
  readonly hardlink?: string;
}

export interface DescribeOptions {
  /** Names in the top folder that are left out with all that is below them. */
  readonly skip?: readonly string[];
  /** False leaves the times of folders out, which each change inside them moves. */
  readonly directoryTimes?: boolean;
}

/**
 * All that a restore has to bring back of the tree below the folder `path`, by path, in order: two trees are the same
 * if their descriptions are equal.
 */
export function describeTree(
  path: string,
  options: DescribeOptions = {},
): Readonly<Record<string, Described>> {
  const found = new Map<string, Described & { readonly inode?: string }>();
  const walk = (dir: string): void => {
    for (const name of readdirSync(`${path}/${dir}`)) {
      if (dir === "" && options.skip?.includes(name)) continue;
      const child = dir === "" ? name : `${dir}/${name}`;
      const described = describe(`${path}/${child}`, options);
      found.set(child, described);
      if (described.type === "directory") walk(child);
    }
  };
  walk("");
  const firsts = new Map<string, string>();
  const paths = [...found.keys()].sort();
  const shared = new Map<string, number>();
  for (const path of paths) {
    const inode = found.get(path)?.inode;
    if (inode === undefined) continue;
    shared.set(inode, (shared.get(inode) ?? 0) + 1);
    if (!firsts.has(inode)) firsts.set(inode, path);
  }
  return Object.fromEntries(
    paths.map((path) => {
      const { inode = "", ...described } = found.get(path) ?? { type: "special", mtimeNs: "" };
      const group = (shared.get(inode) ?? 0) > 1 ? firsts.get(inode) : undefined;
      return [path, group === undefined ? described : { ...described, hardlink: group }] as const;
    }),
  );
}

function describe(path: string, options: DescribeOptions): Described & { readonly inode?: string } {
  const stat = lstatSync(path, { bigint: true });
  const mode = (stat.mode & 0o7777n).toString(8).padStart(4, "0");
  const mtimeNs = stat.mtimeNs.toString();
  if (stat.isFile()) {
    const sha256 = new Bun.CryptoHasher("sha256").update(readFileSync(path)).digest("hex");
    return { type: "file", mode, mtimeNs, sha256, inode: `${stat.dev}:${stat.ino}` };
  }
  if (stat.isDirectory()) {
    return { type: "directory", mode, mtimeNs: options.directoryTimes === false ? "" : mtimeNs };
  }
  if (stat.isSymbolicLink()) return { type: "symlink", mtimeNs, target: readlinkSync(path) };
  return { type: "special", mode, mtimeNs };
}
