/** Replaces every secret it knows by "[redacted]". */
export interface Redactor {
  (text: string): string;
  /** These are secrets as well from now on. Of what was added, the last few hundred are remembered: renewed secrets run out. */
  add(secrets: readonly string[]): void;
}

const MAX_ADDED = 300;

/**
 * Returns a function that replaces every occurrence of `secrets` by "[redacted]", also as it stands percent-encoded in
 * a URL and escaped in JSON. The second line of defence: nothing should log a secret in the first place.
 */
export function createRedactor(secrets: readonly string[]): Redactor {
  let added: readonly string[] = [];
  let redact = redactorOf(secrets);
  return Object.assign((text: string) => redact(text), {
    add(more: readonly string[]) {
      added = [...new Set([...added, ...more])].slice(-MAX_ADDED);
      redact = redactorOf([...secrets, ...added]);
    },
  });
}

function redactorOf(secrets: readonly string[]): (text: string) => string {
  const forms = new Set<string>();
  for (const secret of secrets) {
    // Shorter ones would blacken ordinary words.
    if (secret.length < 8) continue;
    forms.add(secret);
    forms.add(encodeURIComponent(secret));
    forms.add(JSON.stringify(secret).slice(1, -1));
  }
  if (forms.size === 0) return (text) => text;
  const pattern = new RegExp(
    [...forms]
      .sort((a, b) => b.length - a.length)
      .map((form) => RegExp.escape(form))
      .join("|"),
    "g",
  );
  return (text) => text.replace(pattern, "[redacted]");
}
