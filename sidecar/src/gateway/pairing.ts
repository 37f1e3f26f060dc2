import { z } from "zod";

import type { Logger } from "../platform/log.ts";

const TIMEOUT_MS = 10_000;
/** Nobody has more browsers than this; a flood of requests is not answered with a flood of approvals. */
const MAX_AT_ONCE = 20;

const listSchema = z.looseObject({
  pending: z.array(
    z.looseObject({
      requestId: z.string().min(1),
      deviceId: z.string().min(1),
      role: z.string().optional(),
      roles: z.array(z.string()).default([]),
      platform: z.string().optional(),
    }),
  ),
  paired: z.array(
    z.looseObject({
      deviceId: z.string().min(1),
      approvedVia: z.string().optional().catch(undefined),
      scopes: z.array(z.string()).catch([]),
    }),
  ),
});
type Pairings = z.infer<typeof listSchema>;

/** Asks the gateway, as its supervisor. */
export type AskGateway = (method: string, params: object, timeoutMs: number) => Promise<unknown>;

/**
 * Approves the devices that wait: a browser that opens the control UI is asked for a pairing although it has shown the
 * gateway's token, and nobody is here to grant it. Without the token, or with a wrong one, OpenClaw turns a device away
 * before it becomes a request. Throws where the gateway cannot be asked.
 */
export async function approvePairings(ask: AskGateway, log: Logger): Promise<void> {
  const pairings = listSchema.parse(await ask("device.pair.list", {}, TIMEOUT_MS));
  for (const { requestId, deviceId, platform } of trusted(pairings).slice(0, MAX_AT_ONCE)) {
    await ask("device.pair.approve", { requestId }, TIMEOUT_MS);
    log.info({ device: deviceId.slice(0, 12), platform }, "A device with the token was paired");
  }
}

/**
 * A device that is known already may have come with its own, lesser credential to ask for more: that is granted only
 * where it holds everything anyway. Nodes run commands on other machines; those a person has to approve.
 */
function trusted({ pending, paired }: Pairings): Pairings["pending"] {
  return pending.filter(({ deviceId, role = "operator", roles }) => {
    if ([role, ...roles].some((wanted) => wanted !== "operator")) return false;
    const known = paired.find((device) => device.deviceId === deviceId);
    if (!known) return true;
    return known.approvedVia === "owner" && known.scopes.includes("operator.admin");
  });
}
