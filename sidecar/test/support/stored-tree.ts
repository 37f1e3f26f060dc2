import type { Entry } from "../../src/backup/format/format.ts";
import { Contents } from "../../src/backup/history/contents.ts";
import { foldTree } from "../../src/backup/history/history.ts";
import type { Store } from "../../src/store/store.ts";
import type { Described } from "./tree.ts";

/** The newest tree in the store as `describeTree` describes a folder, every content read and hashed. */
export async function storedTree(
  store: Store,
  options: { readonly directoryTimes?: boolean } = {},
): Promise<Readonly<Record<string, Described>>> {
  const tree = await foldTree(store);
  const entries = [...(tree?.entries.values() ?? [])];
  const contents = new Contents(store);
  const groups = new Map<string, string[]>();
  for (const entry of entries) {
    if (entry.type !== "file" || entry.hardlink === undefined) continue;
    groups.set(entry.hardlink, [...(groups.get(entry.hardlink) ?? []), entry.path].sort());
  }
  const described: [string, Described][] = [];
  for (const entry of entries) {
    const one = await describeEntry(entry, contents, options);
    const group = entry.type === "file" ? groups.get(entry.hardlink ?? "") : undefined;
    const first = (group?.length ?? 0) > 1 ? group?.[0] : undefined;
    described.push([entry.path, first === undefined ? one : { ...one, hardlink: first }]);
  }
  return Object.fromEntries(described.sort(([a], [b]) => (a < b ? -1 : 1)));
}

async function describeEntry(
  entry: Entry,
  contents: Contents,
  { directoryTimes = true }: { readonly directoryTimes?: boolean },
): Promise<Described> {
  const { mtimeNs } = entry;
  if (entry.type === "symlink") return { type: "symlink", mtimeNs, target: entry.target };
  const mode = entry.mode.toString(8).padStart(4, "0");
  if (entry.type === "directory")
    return { type: "directory", mode, mtimeNs: directoryTimes ? mtimeNs : "" };
  const hasher = new Bun.CryptoHasher("sha256");
  for await (const piece of contents.read(entry)) hasher.update(piece);
  return { type: "file", mode, mtimeNs, sha256: hasher.digest("hex") };
}
