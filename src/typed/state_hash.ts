/**
 * Hash of the state of a typed machine.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { hash64, hashKey, hashValue, lanes } from "../kv/hash.ts";
import { PlainWriter } from "./plain.ts";

/** Hash of a state with its active changes. */
export function stateHash(
  { sums: [low, high] }: { readonly sums: readonly [number, number] },
  active: ReadonlyMap<string, number>,
): bigint {
  for (const [name, index] of active) {
    const writer = new PlainWriter().string(name);
    const end = writer.length;
    writer.varint(index);
    hashKey(writer.view, 0, end);
    hashValue(writer.view, end, writer.length);
    low = low + lanes[0]! | 0;
    high = high + lanes[1]! | 0;
  }
  return hash64(low, high);
}
