/** Deletions within this time count together. */
const WINDOW_MS = 60_000;
const FEW = 50;
const SHARE = 0.3;

/** Tells when more goes away at once than people and agents usually delete. Source: backup.md, "Never lose the backup". */
export class MassDeletion {
  #recent: { readonly at: number; readonly count: number }[] = [];
  #position = 0;
  #told = false;

  /**
   * Notes that `count` entries of `known` are about to go. Returns the position to pin, the one before the first of these
   * deletions, where they are too many; once per series.
   */
  note(deletions: {
    /** Monotonic. */
    readonly at: number;
    readonly count: number;
    /** Entries of the tree before. */
    readonly known: number;
    /** Of the history, before. */
    readonly position: number;
  }): { readonly position: number; readonly count: number } | undefined {
    this.#recent = this.#recent.filter(({ at }) => deletions.at - at < WINDOW_MS);
    if (this.#recent.length === 0) {
      this.#position = deletions.position;
      this.#told = false;
    }
    if (deletions.count > 0) this.#recent.push(deletions);
    const count = this.#recent.reduce((sum, one) => sum + one.count, 0);
    // The tree as it was before this series.
    const known = deletions.known + count - deletions.count;
    if (this.#told || count <= Math.max(FEW, SHARE * known)) return undefined;
    this.#told = true;
    return { position: this.#position, count };
  }
}
