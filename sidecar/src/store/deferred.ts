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

/** A store that is loaded by its first use: the SDK behind S3 takes longer to read than the rest of a boot. */
export class DeferredStore implements Store {
  readonly name: string;
  readonly #load: () => Promise<Store>;
  #store: Promise<Store> | undefined;

  constructor(name: string, load: () => Promise<Store>) {
    this.name = name;
    this.#load = load;
  }

  async put(key: string, body: Body, options?: PutOptions): Promise<void> {
    return (await this.#loaded()).put(key, body, options);
  }

  async get(key: string, options?: GetOptions): Promise<Uint8Array> {
    return (await this.#loaded()).get(key, options);
  }

  async stream(key: string, options?: GetOptions): Promise<ReadableStream<Uint8Array>> {
    return (await this.#loaded()).stream(key, options);
  }

  async head(key: string, options?: SignalOption): Promise<ObjectInfo | undefined> {
    return (await this.#loaded()).head(key, options);
  }

  async list(prefix: string, options?: ListOptions): Promise<ListPage> {
    return (await this.#loaded()).list(prefix, options);
  }

  async delete(keys: readonly string[], options?: SignalOption): Promise<void> {
    return (await this.#loaded()).delete(keys, options);
  }

  async abortUploads(prefix: string, options: AbortUploadsOptions): Promise<number> {
    return (await (await this.#loaded()).abortUploads?.(prefix, options)) ?? 0;
  }

  #loaded(): Promise<Store> {
    this.#store ??= this.#load();
    return this.#store;
  }
}
