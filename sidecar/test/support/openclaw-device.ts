import { createHash, generateKeyPairSync, sign, type KeyObject } from "node:crypto";

const CLIENT = { id: "cli", version: "test", platform: "linux", mode: "cli" };
const SCOPES = ["operator.admin", "operator.read", "operator.write"];

/** A person's device with a key of its own, as the control UI in a browser is one. */
export class OpenclawDevice {
  readonly id: string;
  readonly #publicKey: string;
  readonly #privateKey: KeyObject;

  constructor() {
    const { publicKey, privateKey } = generateKeyPairSync("ed25519");
    const raw = publicKey.export({ type: "spki", format: "der" }).subarray(-32);
    this.id = createHash("sha256").update(raw).digest("hex");
    this.#publicKey = raw.toString("base64url");
    this.#privateKey = privateKey;
  }

  /** Tries to connect once. Resolves to the scopes that were granted, or to the reason of the refusal. */
  connect(url: string, token: string): Promise<readonly string[] | string> {
    return new Promise((resolve) => {
      const socket = new WebSocket(url);
      socket.addEventListener("close", ({ code, reason }) => resolve(`${code} ${reason}`));
      socket.addEventListener("message", ({ data }) => {
        const message = JSON.parse(String(data)) as Message;
        if (message.event === "connect.challenge") {
          socket.send(JSON.stringify(this.#connectFrame(message.payload, token)));
        } else if (message.type === "res" && message.ok) {
          resolve(message.payload.auth.scopes);
          socket.close();
        }
      });
    });
  }

  #connectFrame(challenge: { nonce: string; ts: number }, token: string): object {
    const { nonce, ts } = challenge;
    const signed = [
      "v3",
      this.id,
      CLIENT.id,
      CLIENT.mode,
      "operator",
      SCOPES.join(","),
      ts,
      token,
      nonce,
      CLIENT.platform,
      "",
    ].join("|");
    const signature = sign(null, Buffer.from(signed), this.#privateKey).toString("base64url");
    return {
      type: "req",
      id: "1",
      method: "connect",
      params: {
        minProtocol: 4,
        maxProtocol: 4,
        client: CLIENT,
        role: "operator",
        scopes: SCOPES,
        caps: [],
        auth: { token },
        device: { id: this.id, publicKey: this.#publicKey, signature, signedAt: ts, nonce },
      },
    };
  }
}

interface Message {
  readonly type: string;
  readonly event?: string;
  readonly ok?: boolean;
  readonly payload: {
    readonly nonce: string;
    readonly ts: number;
    readonly auth: { readonly scopes: readonly string[] };
  };
}
