/**
 * Sessions that a device has opened under its name, by which a device whose data
 * was purged learns what the cluster has of it.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { encodeText } from "../bytes.ts";
import type { CurrentMachine } from "../nodehost/current_machine.ts";
import type { Purged } from "../nodehost/outbox.ts";

const FNV_OFFSET = 14695981039346656037n;
const FNV_PRIME = 1099511628211n;

/** Client id derived from the names of cluster, principal and device (FNV-1a). */
export function deviceClientID(
  clusterID: bigint,
  principal: string | undefined,
  device: string,
): bigint {
  const name = `${clusterID}/${principal ?? ""}/${device}`;
  let hash = FNV_OFFSET;
  for (const byte of encodeText(name, "device")) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * FNV_PRIME);
  }
  return hash;
}

/** Finds the session that this device opened in the cluster before its data was purged. */
export function findPurged(
  machine: CurrentMachine,
  clientID: bigint,
): Purged | undefined {
  const session = machine.sessionOf(clientID, 0, undefined);
  const known = session === undefined
    ? undefined
    : machine.sessionInfo(session);
  return session === undefined || known === undefined
    ? undefined
    : { session, decided: known.next - 1 };
}
