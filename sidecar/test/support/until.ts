/** Waits until `condition` returns something truthy, and returns it. Fails after `limitMs` with what was waited for. */
export async function until<T>(
  condition: () => T | Promise<T>,
  what: string,
  limitMs = 5_000,
): Promise<NonNullable<T>> {
  const deadline = performance.now() + limitMs;
  for (;;) {
    const result = await condition();
    if (result) return result;
    if (performance.now() > deadline) throw new Error(`Waited ${limitMs} ms in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
