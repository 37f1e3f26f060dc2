import { DirectoryStore } from "../../src/store/directory.ts";
import { tempDir } from "../support/temp-dir.ts";
import { testStore } from "./contract.ts";

testStore("DirectoryStore", {
  open: async () => {
    const dir = tempDir();
    const store = new DirectoryStore(`${dir.path}/made/by/the/first/put`);
    return Object.assign(store, { [Symbol.asyncDispose]: async () => dir[Symbol.dispose]() });
  },
});
