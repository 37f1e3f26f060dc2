import { expect, test } from "bun:test";

import { Patience } from "../../src/backup/patience.ts";
import { StoreError } from "../../src/store/store.ts";
import { ManualClock } from "../support/manual-clock.ts";

function denied(): StoreError {
  return new StoreError("denied", "Cannot put: denied, as the test wants it");
}

test("Patience asks again at once when there are new credentials, also where they come during a try", async () => {
  const clock = new ManualClock();
  let renewal = new AbortController();
  const renew = (): void => {
    const before = renewal;
    renewal = new AbortController();
    before.abort();
  };
  const reaches: string[] = [];
  const patience = new Patience({
    clock,
    renewed: () => renewal.signal,
    onChange: (reach) => reaches.push(reach),
  });
  let tries = 0;
  const { signal } = new AbortController();
  const answer = patience.insist(
    async () => {
      tries += 1;
      if (tries === 2) renew();
      if (tries < 4) throw denied();
      return "well";
    },
    { signal, timeoutMs: 60_000 },
  );
  await clock.advance(1_000);
  expect(tries).toBe(1);
  renew();
  await clock.advance(0);
  expect(tries).toBe(3);
  await clock.advance(1_000);
  expect(tries).toBe(3);
  renew();
  await clock.advance(0);
  expect(await answer).toBe("well");
  expect(reaches).toEqual(["denied", "ok"]);
});
