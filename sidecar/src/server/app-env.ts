import type { RequestIdVariables } from "hono/request-id";

/** What every route finds in its hono context. */
export interface AppEnv {
  Bindings: {
    /** Address at the other end of the connection. */
    readonly peer?: string | undefined;
    /** Whoever reads a body calls it for each piece: Bun does not count what comes in as a sign of life. */
    readonly touch?: () => void;
    /** Ends the connection if it is still receiving after so many seconds. */
    readonly closeWithin?: (seconds: number) => void;
  };
  Variables: RequestIdVariables;
}
