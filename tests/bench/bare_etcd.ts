/**
 * Client of etcd with nothing around it: the rival of the log on etcd, and a look
 * at what that has put.
 *
 * This module needs Deno.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { Client, credentials, Metadata } from "../../src/deps/grpc_js.ts";
import {
  decodeRange,
  decodeWatch,
  encodeRange,
  encodeWatch,
  type KeyValue,
  Method,
} from "../../src/etcd/messages.ts";
import { encodeMessage } from "../../src/etcd/protobuf.ts";

const PUT = "/etcdserverpb.KV/Put";

const buffer = (value: Uint8Array): Buffer =>
  Buffer.from(value.buffer, value.byteOffset, value.byteLength);
const same = (value: Buffer): Buffer => value;

/** Connection to one node, which calls it without retries and without a second node. */
export class BareEtcd implements Disposable {
  readonly #client: Client;

  /** Creates a client of the node at `endpoint`. */
  constructor(endpoint: string) {
    this.#client = new Client(
      new URL(endpoint).host,
      credentials.createInsecure(),
      {
        "grpc.max_receive_message_length": -1,
        "grpc.max_send_message_length": -1,
        "grpc.use_local_subchannel_pool": 1,
      },
    );
  }

  #call(method: string, request: Uint8Array, ms: number): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(
        method,
        buffer,
        same,
        request,
        new Metadata(),
        { deadline: Date.now() + ms },
        (error, value) => error === null ? resolve(value!) : reject(error),
      );
    });
  }

  /** Puts a value. */
  async put(key: Uint8Array, value: Uint8Array, ms = 10_000): Promise<void> {
    await this.#call(PUT, encodeMessage([[1, key], [2, value]]), ms);
  }

  /** Reads a key with a quorum. */
  async get(key: Uint8Array): Promise<KeyValue | undefined> {
    const request = encodeRange({ key });
    return decodeRange(await this.#call(Method.Range, request, 10_000)).kvs[0];
  }

  /** Receives all puts of a key up to its version `last`, without a look at the values. */
  replay(key: Uint8Array, last: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const stream = this.#client.makeBidiStreamRequest(
        Method.Watch,
        buffer,
        same,
        new Metadata(),
      );
      stream.on("data", (message: Buffer) => {
        const version = decodeWatch(message).events.at(-1)?.kv.version ?? 0;
        if (version < last) return;
        resolve();
        stream.cancel();
      });
      stream.on("error", reject);
      stream.write(encodeWatch(1, { key }, 1));
    });
  }

  /** Closes the connection. */
  [Symbol.dispose](): void {
    this.#client.close();
  }
}
