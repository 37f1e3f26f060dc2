import type { StoreReads } from "../history/history.ts";

export interface StoredObject {
  readonly key: string;
  readonly sizeBytes: number;
  /** By the server's clock. */
  readonly modifiedMs: number;
  /** Its age when it was listed, by the server's clock. */
  readonly ageMs: number;
}

/** Every object below `prefix`, by key, all after `after`; page by page, so that nobody holds them all. */
export async function* eachObject(
  store: Pick<StoreReads, "list">,
  prefix: string,
  options: { readonly after?: string | undefined; readonly signal?: AbortSignal | undefined } = {},
): AsyncGenerator<StoredObject> {
  const { signal } = options;
  let { after } = options;
  for (;;) {
    const from = after === undefined ? {} : { after };
    const page = await store.list(prefix, { signal, ...from });
    for (const { key, sizeBytes, modifiedMs } of page.objects)
      yield { key, sizeBytes, modifiedMs, ageMs: page.nowMs - modifiedMs };
    after = page.objects.at(-1)?.key;
    if (!page.more || after === undefined) return;
  }
}
