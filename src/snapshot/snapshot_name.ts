/**
 * A name that says all that is known of a snapshot.
 *
 * Stores keep a snapshot under it: to list them opens none, and what is damaged
 * inside of one hides neither it nor another.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Epoch } from "../log/history.ts";
import type { Type } from "../statemachine/types.ts";
import type { SnapshotInfo } from "./store.ts";

const COMPRESSIONS = { n: "none", g: "gzip", d: "deflate-raw" } as const;

/** A snapshot, and how many were made before it. */
export interface Made {
  readonly info: SnapshotInfo;
  readonly order: number;
}

function hex(value: number | bigint, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}

/** What a name tells, in groups: cluster, index, kind, node, type, compression, files, imported, size, epoch, order. */
const NAME =
  /^([0-9a-f]{16})-([0-9a-f]{14})-([fm])-([0-9a-f]{16})-([123])([ngd])-([0-9a-f]+)-([io])-([0-9a-f]+)-([0-9a-f]+)\.([0-9a-f]{16}|)-([0-9a-f]+)$/;

/** The name of a snapshot; a `RangeError` if its header makes no sense. */
export function nameOf(
  info: Omit<SnapshotInfo, "id">,
  order: number,
): string {
  const { clusterID, nodeID, index, kind, type, compression, epoch } = info;
  const name = [
    hex(clusterID, 16),
    hex(index, 14),
    kind[0],
    hex(nodeID, 16),
    type + compression[0]!,
    hex(info.files, 1),
    info.imported ? "i" : "o",
    hex(info.size, 1),
    epoch === undefined ? "0." : `${hex(epoch.index, 1)}.${hex(epoch.id, 16)}`,
    hex(order, 8),
  ].join("-");
  if (!NAME.test(name)) throw new RangeError(`Header makes no sense: ${name}`);
  return name;
}

/** Reads a name, which is the snapshot's id too; undefined if it is none of a snapshot. */
export function parseName(id: string): Made | undefined {
  const match = NAME.exec(id);
  if (match === null) return undefined;
  const part = (i: number): string => match[i]!;
  const number = (i: number): number => parseInt(part(i), 16);
  const word = (i: number): bigint => BigInt(`0x${part(i)}`);
  const epoch: Epoch | undefined = part(11) === ""
    ? undefined
    : { index: number(10), id: word(11) };
  const info: SnapshotInfo = {
    id,
    clusterID: word(1),
    index: number(2),
    kind: part(3) === "f" ? "full" : "metadata",
    nodeID: word(4),
    type: number(5) as Type,
    compression: COMPRESSIONS[part(6) as keyof typeof COMPRESSIONS],
    files: number(7),
    imported: part(8) === "i",
    size: number(9),
    ...(epoch === undefined ? {} : { epoch }),
  };
  return { info, order: number(12) };
}
