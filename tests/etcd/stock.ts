/**
 * Stock of 100 pieces from which commands take some, and a program that serves it as
 * cluster 1 on etcd until it is killed.
 *
 * @module
 */

import {
  type IFork,
  type IStateMachine,
  NodeHost,
  type Result,
} from "../../mod.ts";
import { EtcdLogDB } from "../../src/etcd/mod.ts";
import { serve, type ValidateContext } from "../../src/sync/server/mod.ts";
import type { ServerSettings } from "./server_program.ts";

/** Pieces at the beginning. */
export const PIECES = 100;

/** Stock that takes what a command says, also if it has less; a strict one throws then. */
export class Stock implements IStateMachine<null, number>, IFork<Stock> {
  readonly #isStrict: boolean;
  #left: number;

  constructor(isStrict: boolean, left = PIECES) {
    this.#isStrict = isStrict;
    this.#left = left;
  }

  update(cmd: Uint8Array): Result {
    const left = this.#left - cmd[0]!;
    if (this.#isStrict && left < 0) throw new Error(`${left} pieces are left`);
    this.#left = left;
    return { value: 1n };
  }

  lookup(): number {
    return this.#left;
  }

  fork(): Stock {
    return new Stock(this.#isStrict, this.#left);
  }

  async saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
    const writer = w.getWriter();
    await writer.write(new Uint8Array([this.#left + 128]));
    writer.releaseLock();
  }

  async recoverFromSnapshot(r: ReadableStream<Uint8Array>): Promise<void> {
    this.#left = new Uint8Array(await new Response(r).arrayBuffer())[0]! - 128;
  }

  close(): void {}
}

/** Rule of the stock: a command takes no more than there is. */
export async function validate(
  _principal: unknown,
  cmd: Uint8Array,
  _clusterID: bigint,
  { lookup }: ValidateContext,
): Promise<string | undefined> {
  const left = await lookup!(null) as number;
  return left < cmd[0]! ? `Only ${left} are left` : undefined;
}

if (import.meta.main) {
  const { endpoints, nodeID, port } = JSON.parse(
    Deno.args[0]!,
  ) as ServerSettings;
  const logDB = new EtcdLogDB({ endpoints });
  const host = new NodeHost({ logDB });
  const replica = await host.startCluster(() => new Stock(false), {
    clusterID: 1n,
    nodeID: BigInt(nodeID),
  });
  const server = serve(host, {
    port,
    validate,
    limits: { heartbeatMs: 1_000 },
    fetch: async () => Response.json({ left: await replica.read(null) }),
  });
  // deno-lint-ignore no-console
  console.log(server.url);
}
