import { BlockList, isIP } from "node:net";

/**
 * Whom a request comes from: the peer, or, where the peer is Caddy beside us (loopback), whom its X-Forwarded-For names.
 * Of that list, which the client may have begun, the last public address counts: what stands after it was added by the
 * platform's and our own proxies, what stands before it may be invented.
 */
export function clientAddress(peer: string | undefined, forwardedFor: string | undefined): string {
  if (peer === undefined) return "unknown";
  if (forwardedFor === undefined || !contains(loopback, peer)) return peer;
  const hops = forwardedFor
    .split(",")
    .map((hop) => hop.trim())
    .filter((hop) => isIP(hop) !== 0);
  return hops.findLast((hop) => !contains(internal, hop)) ?? hops.at(-1) ?? peer;
}

const loopback = blockList([
  ["127.0.0.0", 8],
  ["::1", 128],
]);
/** Loopback, private and link-local networks: proxies of the platform, never a client on the internet. */
const internal = blockList([
  ["127.0.0.0", 8],
  ["::1", 128],
  ["10.0.0.0", 8],
  ["172.16.0.0", 12],
  ["192.168.0.0", 16],
  ["169.254.0.0", 16],
  ["fc00::", 7],
  ["fe80::", 10],
]);

function blockList(subnets: readonly (readonly [string, number])[]): BlockList {
  const list = new BlockList();
  for (const [net, prefix] of subnets) list.addSubnet(net, prefix, familyOf(net));
  return list;
}

function contains(list: BlockList, address: string): boolean {
  return isIP(address) !== 0 && list.check(address, familyOf(address));
}

function familyOf(address: string): "ipv4" | "ipv6" {
  return isIP(address) === 6 ? "ipv6" : "ipv4";
}
