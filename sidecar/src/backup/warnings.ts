import type { BackupStatus } from "./commit/replicator-status.ts";

export interface Warning {
  readonly kind: string;
  /** What was found and what to do. */
  readonly message: string;
}

/** What the parts of a backup have noticed. */
export interface Noticed {
  readonly skipped: BackupStatus["skipped"];
  readonly skippedCount: number;
  /** Folders and entries that the last scan could not look at. */
  readonly errors: readonly { readonly path: string; readonly message: string }[];
  /** Why changes are not noticed as they happen; undefined where they are. */
  readonly unwatched: string | undefined;
  /** Files that change whenever they are read. */
  readonly restless: readonly string[];
  /** The last deletion of many files, for as long as people should be reminded of it. */
  readonly massDeletion:
    | { readonly message: string; readonly position: number; readonly at: number }
    | undefined;
}

/** A busy file or two is how an agent works. */
const MANY_RESTLESS = 3;

/** What one should know of that keeps the backup from nothing else, the most important first. */
export function backupWarnings(noticed: Noticed): Warning[] {
  const { skipped, skippedCount, errors, unwatched, restless, massDeletion } = noticed;
  const warnings: Warning[] = [];
  if (massDeletion) {
    const { message, position, at } = massDeletion;
    warnings.push({
      kind: "mass_delete",
      message: `${message}, since ${new Date(at).toISOString()}: if that was not meant, restore position ${position}`,
    });
  }
  const [error] = errors;
  if (error) {
    warnings.push({
      kind: "scan_errors",
      message: `${places(errors.length)} on the volume cannot be looked at, the first is "${error.path}": ${error.message}; what is below is neither backed up nor taken for deleted until it can be: check its owner and mode`,
    });
  }
  // What cannot be looked at is among the skipped, too.
  const failed = new Set(errors.map(({ path }) => path));
  const others = skipped.filter(({ path }) => !failed.has(path));
  const [first] = others;
  if (first) {
    const count = Math.max(others.length, skippedCount - failed.size);
    warnings.push({
      kind: "skipped",
      message: `${files(count)} on the volume ${count === 1 ? "is" : "are"} not backed up, the first is "${first.path}" (${first.reason}): see backup.skipped in the status`,
    });
  }
  if (unwatched !== undefined) {
    warnings.push({
      kind: "not_watching",
      message: `Changes are not noticed as they happen, the volume is scanned every few seconds instead: ${unwatched}; raise fs.inotify.max_user_watches, or have fewer folders`,
    });
  }
  if (restless.length >= MANY_RESTLESS) {
    warnings.push({
      kind: "restless",
      message: `${restless.length} files change whenever they are read, one is "${restless[0]}": they are backed up as they were at one moment, by way of a private copy; name them in .backupignore if they need not be`,
    });
  }
  return warnings;
}

function files(count: number): string {
  return count === 1 ? "1 file" : `${count} files`;
}

function places(count: number): string {
  return count === 1 ? "1 place" : `${count} places`;
}
