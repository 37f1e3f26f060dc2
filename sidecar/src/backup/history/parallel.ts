/**
 * Runs `action` for each item, at most `limit` at the same time, in order. The first failure, or the signal, keeps further
 * items from being started; rejects with it once those under way have ended.
 */
export async function forEachParallel<T>(
  items: Iterable<T>,
  action: (item: T) => Promise<void>,
  options: { readonly limit: number; readonly signal?: AbortSignal | undefined },
): Promise<void> {
  const { limit, signal } = options;
  const queue = items[Symbol.iterator]();
  let failed: { readonly error: unknown } | undefined;
  const work = async (): Promise<void> => {
    for (let next = queue.next(); !next.done && !failed; next = queue.next()) {
      try {
        signal?.throwIfAborted();
        await action(next.value);
      } catch (error) {
        failed ??= { error };
      }
    }
  };
  await Promise.all(Array.from({ length: limit }, work));
  if (failed) throw failed.error;
}
