/**
 * A source of `count` chunks that counts how many of those it gave are in memory at most, looked at now and then after a
 * full collection.
 */
export function countedChunks(count: number, sizeBytes = 64 * 1024) {
  const given: WeakRef<Uint8Array>[] = [];
  const counted = { most: 0, sizeBytes: count * sizeBytes, source };
  async function* source(): AsyncGenerator<Uint8Array> {
    for (let n = 0; n < count; n += 1) {
      const chunk = new Uint8Array(sizeBytes);
      given.push(new WeakRef(chunk));
      yield chunk;
      if (n % 50 !== 49) continue;
      // What a WeakRef has shown stays for the rest of its turn.
      await new Promise((resolve) => setImmediate(resolve));
      Bun.gc(true);
      counted.most = Math.max(counted.most, given.filter((ref) => ref.deref()).length);
    }
  }
  return counted;
}
