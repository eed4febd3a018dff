/**
 * A program that relies on the types of a release, for every way of installing one.
 *
 * This module needs Deno.
 *
 * @module
 */

/** Output of {@linkcode consumer} when it runs. */
export const CONSUMER_OUTPUT = "2 1 1 function true\n";

/** Text of a program that imports the host and the key-value machines, each from a module. */
export function consumer(host: string, machines: string): string {
  return `
import {
  type IStateMachine,
  MemoryLogDB,
  NodeHost,
  type Result,
} from "${host}";
import { kv, KVStateMachine } from "${machines}";

class Counter implements IStateMachine<null, bigint> {
  #count = 0n;
  update(_cmd: Uint8Array): Result {
    return { value: ++this.#count };
  }
  lookup(): bigint {
    return this.#count;
  }
  saveSnapshot(): void {}
  recoverFromSnapshot(): void {}
  close(): void {}
}

await using logDB = new MemoryLogDB();
await using host = new NodeHost({ logDB });
const config = { clusterID: 1n, nodeID: 1n };
const replica = await host.startCluster(() => new Counter(), config);
const { value } = await replica.propose(new Uint8Array(1));
const sum: bigint = value + 1n;
// @ts-expect-error It is a bigint.
const text: string = value;
// @ts-expect-error An id is a bigint.
const wrong = (): unknown => host.stopCluster(1);
const machine = new KVStateMachine();
machine.update(kv.put("a", "b"));
const found: Uint8Array | undefined = machine.lookup(kv.get("a"));
const { index } = await replica.requestSnapshot();
console.log(String(sum), String(text), found?.length, typeof wrong, index > 0);
`;
}
