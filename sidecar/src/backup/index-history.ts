import type { Database } from "bun:sqlite";

import type { CommitHeader } from "./format/format.ts";
import type { Head, KnownTree } from "./index.ts";

type Checkpoint = NonNullable<KnownTree["checkpoint"]>;

/** Where the history stands and what was tried of it, as the index remembers it. */
export class IndexHistory {
  readonly #db: Database;

  constructor(db: Database) {
    this.#db = db;
  }

  head(): Head | undefined {
    return this.value("head") as Head | undefined;
  }

  setHead({ position, id, time }: Head): void {
    this.setValue("head", { position, id, time });
  }

  checkpoint(): Checkpoint | undefined {
    return this.value("checkpoint") as Checkpoint | undefined;
  }

  setCheckpoint(checkpoint: Checkpoint): void {
    this.setValue("checkpoint", checkpoint);
    this.#db.run("DELETE FROM commits WHERE position <= ?", [checkpoint.position]);
  }

  addAttempt(position: number, id: string): void {
    this.#db.run("INSERT OR IGNORE INTO attempts (position, id) VALUES (?, ?)", [position, id]);
  }

  isAttempt(position: number, id: string): boolean {
    return (
      this.#db.query("SELECT 1 FROM attempts WHERE position = ? AND id = ?").get(position, id) !==
      null
    );
  }

  record(header: CommitHeader): void {
    this.setHead(header);
    this.addHeader(header);
    this.#db.run("DELETE FROM attempts WHERE position <= ?", [header.position]);
    const today = this.#commitsPerDay(header.time);
    this.setValue("today", { ...today, commits: today.commits + 1 });
  }

  commitsOn(time: number): number {
    return this.#commitsPerDay(time).commits;
  }

  addHeader(header: CommitHeader): void {
    this.#db.run("INSERT OR REPLACE INTO commits (position, header) VALUES (?, ?)", [
      header.position,
      JSON.stringify(header),
    ]);
  }

  headersAfter(position: number): CommitHeader[] {
    return this.#db
      .query<{ header: string }, [number]>(
        "SELECT header FROM commits WHERE position > ? ORDER BY position",
      )
      .all(position)
      .map((row) => JSON.parse(row.header) as CommitHeader);
  }

  value(key: string): unknown {
    const row = this.#db
      .query<{ value: string }, [string]>("SELECT value FROM meta WHERE key = ?")
      .get(key);
    return row ? JSON.parse(row.value) : undefined;
  }

  setValue(key: string, value: unknown): void {
    this.#db.run("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", [
      key,
      JSON.stringify(value),
    ]);
  }

  #commitsPerDay(time: number): { readonly day: number; readonly commits: number } {
    const day = Math.floor(time / 86_400_000);
    const last = this.value("today") as { day: number; commits: number } | undefined;
    return last?.day === day ? last : { day, commits: 0 };
  }
}
