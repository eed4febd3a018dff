/**
 * Names of blocks that belong to a cluster: a prefix, the id of the cluster in
 * 16 hexadecimal digits, and what its owner adds.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { BlockStore } from "./store.ts";

/** Range of all names that begin with `prefix`, which ends with a slash. */
export function rangeOf(prefix: string): [from: string, to: string] {
  return [prefix, `${prefix.slice(0, -1)}0`];
}

/** Clusters that have a block whose name begins with `prefix`, in order of their ids. */
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
    // The next cluster's names come after all of this one's.
    from = `${prefix}${id}0`;
  }
}
