import { expect, setDefaultTimeout, test } from "bun:test";

import { SEATS, isolate } from "../support/namespace.ts";

setDefaultTimeout(60_000);

test.each(SEATS)(
  "Reaper as %s takes a thousand orphans and steals no exit code of three hundred children",
  async (seat) => {
    await using run = isolate("reaper-main.ts", { seat });
    const code = await run.exited;
    expect({ code, output: run.output() }).toMatchObject({ code: 0 });
    const result = run.events.at(-1);
    expect(result).toMatchObject({ wrong: [], zombies: 0 });
    expect(result?.["pid"] === 1).toBe(seat === "PID 1");
    expect(Number(result?.["zombiesForMs"])).toBeLessThan(2_000);
    expect(Number(result?.["reaped"])).toBeGreaterThanOrEqual(1_000);
  },
);
