import { checkKey } from "./key.ts";
import type {
  AbortUploadsOptions,
  Body,
  GetOptions,
  ListOptions,
  ListPage,
  ObjectInfo,
  PutOptions,
  SignalOption,
  Store,
} from "./store.ts";

/** A part of another store as a store of its own: every key is below `prefix`, which ends in a slash. */
export class PrefixedStore implements Store {
  readonly name: string;
  readonly #store: Store;
  readonly #prefix: string;

  constructor(store: Store, prefix: string) {
    if (!prefix.endsWith("/")) {
      throw new Error(`Cannot use the prefix "${prefix}": it does not end in a slash`);
    }
    checkKey(prefix.slice(0, -1));
    this.name = `${store.name}/${prefix.slice(0, -1)}`;
    this.#store = store;
    this.#prefix = prefix;
  }

  put(key: string, body: Body, options?: PutOptions): Promise<void> {
    return this.#store.put(this.#prefix + key, body, options);
  }

  get(key: string, options?: GetOptions): Promise<Uint8Array> {
    return this.#store.get(this.#prefix + key, options);
  }

  stream(key: string, options?: GetOptions): Promise<ReadableStream<Uint8Array>> {
    return this.#store.stream(this.#prefix + key, options);
  }

  async head(key: string, options?: SignalOption): Promise<ObjectInfo | undefined> {
    const info = await this.#store.head(this.#prefix + key, options);
    return info && { ...info, key };
  }

  async list(prefix: string, options: ListOptions = {}): Promise<ListPage> {
    const { after, ...rest } = options;
    const page = await this.#store.list(this.#prefix + prefix, {
      ...rest,
      ...(after === undefined ? {} : { after: this.#prefix + after }),
    });
    const objects = page.objects.map((object) => ({
      ...object,
      key: object.key.slice(this.#prefix.length),
    }));
    return { ...page, objects };
  }

  delete(keys: readonly string[], options?: SignalOption): Promise<void> {
    return this.#store.delete(
      keys.map((key) => this.#prefix + key),
      options,
    );
  }

  async abortUploads(prefix: string, options: AbortUploadsOptions): Promise<number> {
    return (await this.#store.abortUploads?.(this.#prefix + prefix, options)) ?? 0;
  }
}
