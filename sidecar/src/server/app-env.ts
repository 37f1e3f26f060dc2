import type { RequestIdVariables } from "hono/request-id";

/** What every route finds in its hono context. */
export interface AppEnv {
  Bindings: {
    /** Address at the other end of the connection. */
    readonly peer?: string | undefined;
  };
  Variables: RequestIdVariables;
}
