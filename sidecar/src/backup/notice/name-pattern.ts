/** Whether a name is one that is meant. Takes at most the product of both lengths. */
export type NamePattern = (name: string) => boolean;

const STAR = Symbol("*");
type Token = typeof STAR | ((character: string) => boolean);

/** Reads one component of a rule: `*`, `?`, `[a-z]`, `[!a-z]`, and `\` before what stands for itself. Undefined where no name can match. */
export function parseName(pattern: string): NamePattern | undefined {
  if (pattern === "") return undefined;
  if (!/[*?[\\]/.test(pattern)) return (name) => name === pattern;
  const tokens: Token[] = [];
  for (let at = 0; at < pattern.length; at += 1) {
    const character = pattern[at] ?? "";
    if (character === "*") {
      if (tokens.at(-1) !== STAR) tokens.push(STAR);
    } else if (character === "?") tokens.push(() => true);
    else if (character === "[") {
      const found = parseClass(pattern, at + 1);
      if (!found) return undefined;
      tokens.push(found.has);
      at = found.end;
    } else {
      if (character === "\\") at += 1;
      const plain = pattern[at];
      // A backslash at the end stands before nothing.
      if (plain === undefined) return undefined;
      tokens.push((other) => other === plain);
    }
  }
  return (name) => matches(tokens, name);
}

/** Only the last star can need to take more: whatever an earlier one took more would leave the later one less. */
function matches(tokens: readonly Token[], name: string): boolean {
  let token = 0;
  let star = -1;
  let taken = 0;
  for (let at = 0; at < name.length;) {
    const next = tokens[token];
    if (next === STAR) {
      star = token;
      taken = at;
      token += 1;
    } else if (next?.(name[at] ?? "")) {
      token += 1;
      at += 1;
    } else {
      if (star < 0) return false;
      taken += 1;
      at = taken;
      token = star + 1;
    }
  }
  return tokens.slice(token).every((rest) => rest === STAR);
}

/** The class that starts after its bracket at `from`, and where its closing bracket is. Undefined where it has none. */
function parseClass(
  pattern: string,
  from: number,
): { readonly has: (character: string) => boolean; readonly end: number } | undefined {
  const negated = /[!^]/.test(pattern[from] ?? "");
  const first = negated ? from + 1 : from;
  const ranges: [low: string, high: string][] = [];
  for (let at = first; at < pattern.length; at += 1) {
    if (pattern[at] === "]" && at > first) {
      const has = (character: string): boolean =>
        negated !== ranges.some(([low, high]) => low <= character && character <= high);
      return { has, end: at };
    }
    if (pattern[at] === "\\") at += 1;
    const low = pattern[at] ?? "";
    const isRange = pattern[at + 1] === "-" && (pattern[at + 2] ?? "]") !== "]";
    if (isRange) at += pattern[at + 2] === "\\" ? 3 : 2;
    ranges.push([low, isRange ? (pattern[at] ?? "") : low]);
  }
  return undefined;
}
