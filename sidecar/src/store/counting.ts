import { sizeOf } from "./body.ts";
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

/** What was asked of a store so far, whether it succeeded or not: refused requests are billed too. */
export interface StoreCounts {
  /** Puts and lists, R2's class A. A put of several parts counts once. */
  readonly classA: number;
  /** Gets and heads, R2's class B. */
  readonly classB: number;
  /** Calls of delete, which R2 does not bill. */
  readonly deletes: number;
  /** Bytes of the bodies of puts, each attempt of ours counted. */
  readonly sentBytes: number;
  /** Bytes of objects that arrived. */
  readonly receivedBytes: number;
}

/** Passes everything on to a store and counts it. */
export class CountingStore implements Store {
  readonly name: string;
  readonly #store: Store;
  #classA = 0;
  #classB = 0;
  #deletes = 0;
  #sentBytes = 0;
  #receivedBytes = 0;

  constructor(store: Store) {
    this.name = store.name;
    this.#store = store;
  }

  get counts(): StoreCounts {
    return {
      classA: this.#classA,
      classB: this.#classB,
      deletes: this.#deletes,
      sentBytes: this.#sentBytes,
      receivedBytes: this.#receivedBytes,
    };
  }

  put(key: string, body: Body, options?: PutOptions): Promise<void> {
    this.#classA += 1;
    this.#sentBytes += sizeOf(body);
    return this.#store.put(key, body, options);
  }

  async get(key: string, options?: GetOptions): Promise<Uint8Array> {
    this.#classB += 1;
    const bytes = await this.#store.get(key, options);
    this.#receivedBytes += bytes.byteLength;
    return bytes;
  }

  async stream(key: string, options?: GetOptions): Promise<ReadableStream<Uint8Array>> {
    this.#classB += 1;
    const stream = await this.#store.stream(key, options);
    return stream.pipeThrough(
      new TransformStream<Uint8Array, Uint8Array>({
        transform: (chunk, controller) => {
          this.#receivedBytes += chunk.byteLength;
          controller.enqueue(chunk);
        },
      }),
    );
  }

  head(key: string, options?: SignalOption): Promise<ObjectInfo | undefined> {
    this.#classB += 1;
    return this.#store.head(key, options);
  }

  list(prefix: string, options?: ListOptions): Promise<ListPage> {
    this.#classA += 1;
    return this.#store.list(prefix, options);
  }

  delete(keys: readonly string[], options?: SignalOption): Promise<void> {
    this.#deletes += 1;
    return this.#store.delete(keys, options);
  }

  async abortUploads(prefix: string, options: AbortUploadsOptions): Promise<number> {
    this.#classA += 1;
    return (await this.#store.abortUploads?.(prefix, options)) ?? 0;
  }
}
