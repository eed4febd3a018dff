/**
 * Names of the blocks of a cluster: a prefix, the cluster id in 16 hexadecimal
 * digits, and a part chosen by the owner of the blocks.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { BlockStore } from "./store.ts";

/** Range of all names that begin with `prefix`, which must end with a slash. */
export function rangeOf(prefix: string): [from: string, to: string] {
  return [prefix, `${prefix.slice(0, -1)}0`];
}

/** Ids of the clusters that have a block whose name begins with `prefix`, in ascending order. */
export async function clustersUnder(
  store: BlockStore,
  prefix: string,
): Promise<bigint[]> {
  const found: bigint[] = [];
  let [from, to] = rangeOf(prefix);
  for (;;) {
    const [key] = await store.keys(from, to, { limit: 1 });
    if (key === undefined) return found;
    const id = key.slice(prefix.length).split("/", 1)[0]!;
    if (/^[0-9a-f]{16}$/.test(id)) found.push(BigInt(`0x${id}`));
    // Skip the other blocks of this cluster.
    from = `${prefix}${id}0`;
  }
}
