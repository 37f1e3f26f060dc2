import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import { findChildUsers, userNamed } from "../../src/gateway/users.ts";
import { tempDir } from "../support/temp-dir.ts";

const PASSWD = `root:x:0:0:root:/root:/bin/bash
agent:x:1000:1001:Agent,,,:/data/home:/bin/bash
agentsmith:x:1002:1002::/:/bin/sh
broken:x:abc:1::/:/bin/sh
toor:x:0:0::/root:/bin/sh
`;

test.each([
  ["agent", { name: "agent", uid: 1000, gid: 1001 }],
  ["caddy", undefined],
  ["broken", undefined],
  ["toor", undefined],
])("user %s is looked up by name", (name, expected) => {
  expect(userNamed(name, PASSWD)).toEqual(expected);
});

test("users are found as root alone", () => {
  using dir = tempDir();
  const passwdPath = join(dir.path, "passwd");
  writeFileSync(passwdPath, PASSWD);
  expect(findChildUsers({ isRoot: true, passwdPath })).toEqual({
    agent: { name: "agent", uid: 1000, gid: 1001 },
    caddy: undefined,
  });
  expect(findChildUsers({ isRoot: false, passwdPath })).toEqual({
    agent: undefined,
    caddy: undefined,
  });
});
