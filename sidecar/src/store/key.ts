import { StoreError } from "./store.ts";

const MAX_KEY_BYTES = 1_024;
/** A file's name has at most as many bytes, and every store takes the keys that every other takes. */
const MAX_COMPONENT_BYTES = 255;
const LEGAL = /^[A-Za-z0-9._/-]+$/;

/** Throws a StoreError of kind `unsupported` unless every store can keep an object under `key`. */
export function checkKey(key: string): void {
  const found = problem(key);
  if (found !== undefined) {
    throw new StoreError(
      "unsupported",
      `Cannot use the key ${JSON.stringify(key.slice(0, 80))}: ${found}`,
    );
  }
}

function problem(key: string): string | undefined {
  if (!LEGAL.test(key)) return "only letters, digits and -_./ are allowed";
  if (key.length > MAX_KEY_BYTES) return `longer than ${MAX_KEY_BYTES} bytes`;
  for (const component of key.split("/")) {
    if (component === "") return "an empty component, or a slash at its start or end";
    if (component === "." || component === "..") return `a component "${component}"`;
    if (component.length > MAX_COMPONENT_BYTES) {
      return `a component longer than ${MAX_COMPONENT_BYTES} bytes`;
    }
  }
  return undefined;
}

/** Throws a RangeError unless `range` is a half-open range of bytes. */
export function checkRange(range: { readonly start: number; readonly end: number }): void {
  const { start, end } = range;
  if (!Number.isSafeInteger(start) || !Number.isSafeInteger(end) || start < 0 || end < start) {
    throw new RangeError(`Cannot read the range ${start} to ${end}: not a range of bytes`);
  }
}

/** The number of objects in a page: `limit` within 1 and 1,000. */
export function pageSize(limit = 1_000): number {
  return Math.min(Math.max(Math.trunc(limit), 1), 1_000);
}
