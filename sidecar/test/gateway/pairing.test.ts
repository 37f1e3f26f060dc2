import { expect, test } from "bun:test";

import { approvePairings } from "../../src/gateway/pairing.ts";
import { capturedLog } from "../support/captured-log.ts";

const wish = { requestId: "r", deviceId: "d", role: "operator", roles: ["operator"] };
const both = { ...wish, roles: ["operator", "node"] };
const admin = { deviceId: "d", approvedVia: "owner", scopes: ["operator.admin"] };
const other = { ...admin, deviceId: "other" };
const reader = { ...admin, scopes: ["operator.read"] };
const coded = { ...admin, approvedVia: "setup-code" };

test.each([
  ["a new device is approved", { pending: wish, paired: [] }],
  ["a new device beside others is approved", { pending: wish, paired: [other] }],
  ["a node is not approved", { pending: { ...wish, role: "node" }, paired: [] }],
  ["a device that wants to be a node too is not approved", { pending: both, paired: [] }],
  ["a known device that may do everything is approved", { pending: wish, paired: [admin] }],
  ["a known device that may read is not approved", { pending: wish, paired: [reader] }],
  ["a device paired by a code is not approved", { pending: wish, paired: [coded] }],
])("%s", async (name, { pending, paired }) => {
  const asked: unknown[] = [];
  const ask = async (method: string, params: object): Promise<unknown> => {
    asked.push([method, params]);
    return method === "device.pair.list" ? { pending: [pending], paired } : {};
  };
  await approvePairings(ask, capturedLog());
  const expected = [
    ["device.pair.list", {}],
    ["device.pair.approve", { requestId: "r" }],
  ];
  expect(asked).toEqual(name.endsWith("not approved") ? expected.slice(0, 1) : expected);
});

test("a flood of requests is not answered with a flood of approvals", async () => {
  let approvals = 0;
  const pending = Array.from({ length: 500 }, (_, index) => ({
    ...wish,
    requestId: `r${index}`,
    deviceId: `d${index}`,
  }));
  const ask = async (method: string): Promise<unknown> => {
    if (method === "device.pair.list") return { pending, paired: [] };
    approvals += 1;
    return {};
  };
  await approvePairings(ask, capturedLog());
  expect(approvals).toBe(20);
});
