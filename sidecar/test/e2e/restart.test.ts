import { expect, test } from "bun:test";

import { MachineProcess } from "../support/machine-process.ts";
import { tempDir } from "../support/temp-dir.ts";

const LIMIT_MS = 120_000;

test(
  "nobody can start the gateway on a volume that is not ready for it",
  async () => {
    using folder = tempDir();
    {
      await using machine = await MachineProcess.start({ folder: folder.path });
      await machine.untilReady();
      await machine.stop();
    }
    const env = { USER_ID: "user-2" };
    await using machine = await MachineProcess.start({ folder: folder.path, env });
    await machine.untilReport(({ state }) => state === "degraded", "the volume is refused");
    const answer = await machine.fetch("/machine/services/gateway/restart", { method: "POST" });

    expect(answer.status).toBe(409);
    expect(await answer.text()).toContain("the volume is not ready for it");
    const { services } = await machine.report();
    expect(services.find(({ name }) => name === "gateway")?.state).toBe("initial");
    const caddy = await machine.fetch("/machine/services/caddy/restart", { method: "POST" });
    expect(caddy.status).toBe(202);
  },
  LIMIT_MS,
);
