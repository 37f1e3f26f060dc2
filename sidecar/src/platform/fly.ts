import { hostname } from "node:os";

/** Who this machine is, as Fly tells it; the host's name elsewhere. */
export interface MachineIdentity {
  readonly id: string;
  readonly app: string | undefined;
  readonly region: string | undefined;
  readonly image: string | undefined;
}

/** Source: Fly's runtime environment, FLY_*. */
export function identifyMachine(
  environment: Readonly<Record<string, string | undefined>>,
): MachineIdentity {
  return {
    id: environment["FLY_MACHINE_ID"] ?? hostname(),
    app: environment["FLY_APP_NAME"],
    region: environment["FLY_REGION"],
    image: environment["FLY_IMAGE_REF"],
  };
}
