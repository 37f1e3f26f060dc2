import type { BodySource } from "../../store/store.ts";
import type { IndexedEntry } from "../index.ts";
import type { Piece } from "./delta.ts";

/** What reading one path of the volume came to. */
export type Reading =
  /** Nothing is there, or nothing that is backed up. */
  | { readonly kind: "gone"; readonly path: string }
  /** As the index has it; only the stamp is new. */
  | { readonly kind: "same"; readonly item: IndexedEntry }
  | {
      readonly kind: "changed";
      /** `entry.extents` says where the store has the content already; it is empty where `content` must be sent first. */
      readonly item: IndexedEntry;
      readonly content: NewContent | undefined;
      /** True where it changed while it was read: what was read is recorded, and the path stays dirty. */
      readonly again: boolean;
    }
  /** It is there and cannot or must not be backed up. Never a deletion, never in the way of the rest. */
  | {
      readonly kind: "skipped";
      readonly path: string;
      readonly reason: SkipReason;
      readonly message: string;
    };

export type SkipReason =
  /** Permissions, or it turns into something else each time it is looked at. */
  | "unreadable"
  | "too_big"
  /** The name, or a link's target, is not UTF-8, or too deep. */
  | "bad_name"
  /** Another file system is mounted there. */
  | "other_mount"
  /** SQLite's own check found it damaged; the last good copy stays. */
  | "corrupt_database"
  /** Locked or rewritten all the time: tried again later. */
  | "busy_database"
  /** The disk itself fails: nothing may be committed from it. */
  | "failing";

/** Content the store does not have yet. */
export type NewContent =
  /** At most `INLINE_BYTES`: travels inside the commit. */
  | { readonly kind: "inline"; readonly bytes: Uint8Array }
  /**
   * Larger: sent as the blob of its hash before the commit. The source fails on its last chunk where the bytes it gave do
   * not have the hash of the entry (ContentChanged), so that a file rewritten while it is sent never becomes a wrong blob.
   */
  | { readonly kind: "blob"; readonly source: BodySource; dispose(): void }
  /** A large file that changed a little: pieces of the content that the path had, and of what is new. */
  | {
      readonly kind: "delta";
      /** sha256 of the entry it was compared with. It holds for no other. */
      readonly base: string;
      readonly pieces: readonly Piece[];
      readonly fresh: FreshBytes;
      /** What it comes to, in extents. */
      readonly extents: number;
      dispose(): void;
    };

/** The new bytes of a delta, one after the other: in the commit, or sent before it as the blob of their own hash, as `blob` above is. */
export type FreshBytes =
  | { readonly kind: "inline"; readonly bytes: Uint8Array }
  | { readonly kind: "blob"; readonly sha256: string; readonly source: BodySource };

/** Up to this size content stands in the commit itself, above it in a blob. Source: backup.md, "Send little". */
export const INLINE_BYTES = 64 * 1024;

/** A file is no longer what it was when it was hashed. It stays dirty and is read again. */
export class ContentChanged extends Error {
  constructor(path: string) {
    super(`Cannot send "${path}": it changed while it was sent`);
    this.name = "ContentChanged";
  }
}
