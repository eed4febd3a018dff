/**
 * Name under which stores keep a snapshot. It carries the snapshot's header, so that
 * listing snapshots opens none, and damage inside one hides neither it nor others.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Epoch } from "../log/history.ts";
import type { Type } from "../statemachine/types.ts";
import type { SnapshotInfo } from "./store.ts";

const COMPRESSIONS = { n: "none", g: "gzip", d: "deflate-raw" } as const;

/** Snapshot as its name describes it. */
export interface NamedSnapshot {
  /** Header, size and origin. */
  readonly info: SnapshotInfo;
  /** Number of snapshots that its store had created before it. */
  readonly order: number;
}

function hex(value: number | bigint, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}

/** Parts of a name: cluster, index, kind, node, type, compression, files, imported, size, epoch, order. */
const NAME =
  /^([0-9a-f]{16})-([0-9a-f]{14})-([fm])-([0-9a-f]{16})-([123])([ngd])-([0-9a-f]+)-([io])-([0-9a-f]+)-([0-9a-f]+)\.([0-9a-f]{16}|)-([0-9a-f]+)$/;

/**
 * Name of a snapshot.
 *
 * @throws RangeError if its header is invalid
 */
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
  if (!NAME.test(name)) {
    throw new RangeError(`Header of the snapshot is invalid: ${name}`);
  }
  return name;
}

/** Parses a name, which is also the snapshot's id; undefined if it does not name a snapshot. */
export function parseName(id: string): NamedSnapshot | undefined {
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
