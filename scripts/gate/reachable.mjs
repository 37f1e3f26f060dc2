import { chmodSync, mkdtempSync, rmdirSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

const OTHERS_ENTER = 0o001;

/**
 * Some tests run programs as another user, who cannot enter a clone below a private home folder.
 * Returns { root, wrap, end }: where the clone can be reached by everybody, what makes of a
 * command one that sees it there, and an end that leaves nothing behind.
 */
export function makeReachable(root) {
  if (process.getuid?.() !== 0 || othersCanEnter(root)) {
    return { root, wrap: (command) => command, end: () => {} };
  }
  const mounted = mkdtempSync(join(tmpdir(), "sidecar-clone-"));
  chmodSync(mounted, 0o755);
  // The mount is the command's own and goes with it.
  const script = 'mount --bind "$1" "$2" && cd "$2" && shift 2 && exec "$@"';
  return {
    root: mounted,
    wrap: (command) => ["unshare", "--mount", "sh", "-c", script, "sh", root, mounted, ...command],
    end: () => rmdirSync(mounted),
  };
}

function othersCanEnter(folder) {
  const open = (statSync(folder).mode & OTHERS_ENTER) !== 0;
  return open && (folder === "/" || othersCanEnter(dirname(folder)));
}
