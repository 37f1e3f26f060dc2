import type { MarkerReading } from "../../volume/marker.ts";

/** What is known at boot before anything is changed. */
export interface BootFacts {
  /** Whose machine this is. */
  readonly user: string;
  readonly marker: MarkerReading;
  /** Whether anything is on the volume but `lost+found` and our own folder. */
  readonly files: boolean;
  readonly store: StoreFacts;
}

export type StoreFacts =
  /** No backup is configured. */
  | { readonly kind: "off" }
  | { readonly kind: "unreachable" }
  | {
      readonly kind: "known";
      /** The newest position; 0 where there are no commits, for sure. */
      readonly head: number;
      /** Where this volume stands in the history: what its index recorded last, else its marker's position. */
      readonly at: number;
      /** False where the store's commit at `at` (or the parent of the one after it) is known to be another's. */
      readonly sameHistory: boolean;
      /** Whether the commit at `at + 1` is one that this volume tried to write. */
      readonly nextIsOurs: boolean;
      /** Whether the tree on the volume is that of `at`; undefined where nobody has compared yet. */
      readonly treeEquals: boolean | undefined;
    };

/** Why the tree and the history cannot be brought together without a decision. */
type DivergedReason =
  /** Files without a marker, and a history: nobody knows what the files are. */
  | "unknown_files"
  /** Others went on from here, and so did this volume. */
  | "changed"
  /** The history ends before what this volume has recorded, or is another one: wrong store, or lost commits. */
  | "other_history";

export type Decision =
  /** A new machine: mark it ready, bootstrap, commit. */
  | { readonly kind: "new" }
  /** Bring the newest tree to an empty volume. */
  | { readonly kind: "restore" }
  /** Go on with a restore that was cut off. */
  | { readonly kind: "resume" }
  /** Nothing can be said before the store answers. */
  | { readonly kind: "wait" }
  /** A volume from before there were markers: it becomes the first commit. */
  | { readonly kind: "adopt" }
  | { readonly kind: "continue" }
  /** The next commit is ours and was not recorded any more: record it, then decide again. */
  | { readonly kind: "record-own" }
  /** Compare the tree with the position the volume stands at, then decide again. */
  | { readonly kind: "compare" }
  /** An old copy of the volume: bring it up to the head. */
  | { readonly kind: "restore-forward" }
  | { readonly kind: "diverged"; readonly reason: DivergedReason; readonly message: string }
  | { readonly kind: "wrong-user"; readonly message: string }
  | { readonly kind: "newer"; readonly message: string }
  | { readonly kind: "damaged-marker"; readonly message: string };

/** What to do with the volume. Total, and without effects. Source: backup.md, the table in "Restore". */
export function decide(facts: BootFacts): Decision {
  const { marker } = facts;
  if (marker.kind === "missing") return withoutMarker(facts);
  if (marker.kind === "newer") return { kind: "newer", message: marker.message };
  if (marker.kind === "damaged") return { kind: "damaged-marker", message: marker.message };
  const { user, state, position } = marker.marker;
  if (user !== facts.user) {
    return {
      kind: "wrong-user",
      message: `Cannot use the volume: it belongs to user "${user}", this machine to "${facts.user}"; attach the right volume or correct USER_ID`,
    };
  }
  return state === "restoring" ? interrupted(facts, position) : ready(facts, position);
}

function withoutMarker({ files, store }: BootFacts): Decision {
  if (store.kind === "unreachable") return { kind: "wait" };
  const history = store.kind === "known" && store.head > 0;
  if (!files) return { kind: history ? "restore" : "new" };
  if (!history) return { kind: "adopt" };
  return {
    kind: "diverged",
    reason: "unknown_files",
    message:
      "Cannot use the volume: it holds files but no marker, and the store has a history of this user; empty the volume to have that restored, or give the machine another BACKUP_URL to begin a history of these files",
  };
}

function interrupted({ store }: BootFacts, position: number): Decision {
  // Nothing is committed with the backup off, so a tree that is not whole does no harm; the marker keeps saying so.
  if (store.kind === "off") return { kind: "continue" };
  if (store.kind === "known" && store.head < position) return lost(position, store.head);
  return { kind: "resume" };
}

function ready({ files, store }: BootFacts, position: number): Decision {
  if (store.kind === "off") return { kind: "continue" };
  if (store.kind === "unreachable") return { kind: files || position === 0 ? "continue" : "wait" };
  const { head, at } = store;
  if (head < at) return lost(at, head);
  if (!store.sameHistory) {
    return {
      kind: "diverged",
      reason: "other_history",
      message: `Cannot go on from position ${at}: the store has another commit there; check BACKUP_URL, or save what you need and empty the volume to have the store's history restored`,
    };
  }
  // A ready volume without a single file was emptied from outside: nothing on it can be lost by restoring.
  if (!files && head > 0) return { kind: "restore" };
  if (head === at) return { kind: "continue" };
  if (store.nextIsOurs) return { kind: "record-own" };
  if (store.treeEquals === undefined) return { kind: "compare" };
  if (store.treeEquals) return { kind: "restore-forward" };
  return {
    kind: "diverged",
    reason: "changed",
    message: `Cannot go on from position ${at}: others have written up to ${head}, and this volume has changes of its own; save them and empty the volume to have the store's history restored`,
  };
}

function lost(at: number, head: number): Decision {
  return {
    kind: "diverged",
    reason: "other_history",
    message: `Cannot go on from position ${at}: the store's history ends at ${head}; check BACKUP_URL, or remove .sidecar from the volume to begin a new history with what is on it`,
  };
}
