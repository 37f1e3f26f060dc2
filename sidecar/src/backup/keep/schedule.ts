const DAY_MS = 86_400_000;

/** When `machine` does its nightly work, in milliseconds after midnight, UTC: each at its own time, so that a fleet does not come at once. */
export function timeOfDayMs(machine: string): number {
  return Bun.hash.crc32(machine) % DAY_MS;
}

/** The first time after `lastMs` that is the machine's. */
export function nextNightMs(lastMs: number, machine: string): number {
  const offset = timeOfDayMs(machine);
  return Math.floor((lastMs - offset) / DAY_MS + 1) * DAY_MS + offset;
}
