import { expect, test } from "bun:test";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "../..");

interface Package {
  readonly version?: string;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

/** `npm install` leaves out packages of other platforms that its registry does not have, and `npm ci` then refuses. */
test.each(["package-lock.json", "container/openclaw/package-lock.json"])(
  "%s has an entry for every package that another one names",
  async (path) => {
    const { packages } = (await Bun.file(join(ROOT, path)).json()) as {
      packages: Readonly<Record<string, Package>>;
    };

    const missing = Object.entries(packages).flatMap(([at, entry]) =>
      namesIn(entry)
        .filter((name) => !placesFor(name, at).some((place) => packages[place]?.version))
        .map((name) => `${name}, for ${at || "the project"}`),
    );

    expect(missing).toEqual([]);
  },
);

test("package-lock.json is the lock of package.json", async () => {
  const wanted = (await Bun.file(join(ROOT, "package.json")).json()) as Package;
  const lock = (await Bun.file(join(ROOT, "package-lock.json")).json()) as {
    packages: Readonly<Record<string, Package>>;
  };
  const { dependencies, devDependencies } = lock.packages[""] ?? {};

  expect({ dependencies, devDependencies }).toEqual({
    dependencies: wanted.dependencies,
    devDependencies: wanted.devDependencies,
  });
});

function namesIn({ dependencies, devDependencies, optionalDependencies }: Package): string[] {
  return Object.keys({ ...dependencies, ...devDependencies, ...optionalDependencies });
}

/** Where a package named by the one at `at` may be, from the nearest on. */
function placesFor(name: string, at: string): string[] {
  const nested = at === "" ? [] : at.split("/node_modules/");
  const folders = nested.map((_, index) => nested.slice(0, index + 1).join("/node_modules/"));
  return ["", ...folders].toReversed().map((folder) => join(folder, "node_modules", name));
}
