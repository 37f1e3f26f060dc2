import { expect, test } from "bun:test";

import { clientAddress } from "../../src/server/client-address.ts";

test.each([
  ["203.0.113.7", undefined, "203.0.113.7"],
  ["203.0.113.7", "198.51.100.1", "203.0.113.7"],
  ["10.0.0.9", "198.51.100.1", "10.0.0.9"],
  ["127.0.0.1", undefined, "127.0.0.1"],
  ["127.0.0.1", "198.51.100.1", "198.51.100.1"],
  ["::1", "198.51.100.1", "198.51.100.1"],
  ["::ffff:127.0.0.1", "2001:db8::7", "2001:db8::7"],
  // Invented by the client, added by the platform's proxy, added by ours.
  ["127.0.0.1", "192.0.2.66, 198.51.100.1, 172.16.4.2", "198.51.100.1"],
  ["127.0.0.1", "198.51.100.1,fdaa:0:1::3", "198.51.100.1"],
  ["127.0.0.1", "172.16.4.2", "172.16.4.2"],
  ["127.0.0.1", "not an address", "127.0.0.1"],
  [undefined, "198.51.100.1", "unknown"],
])("a request from %p, forwarded for %p, counts as from %s", (peer, forwarded, expected) => {
  expect(clientAddress(peer, forwarded)).toBe(expected);
});
