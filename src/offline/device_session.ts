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
import type { OutboxParts, Purged } from "../nodehost/outbox.ts";
import type { StoredSession } from "./stored_session.ts";

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
function findPurged(
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

/** Lookup of the sessions of this device, before the first session of an outbox is opened. */
export class DeviceLookup {
  /** Session of this device from before its data was purged, if one was found. */
  purged: Purged | undefined;
  /** True if the outbox contains no trace of an earlier process. */
  readonly isFresh: boolean;
  readonly #parts: OutboxParts;
  readonly #stored: StoredSession;
  readonly #stopped: AbortSignal;
  #lookup: Promise<void> | undefined;

  /** Creates the lookup of an outbox. */
  constructor(
    parts: OutboxParts,
    stored: StoredSession,
    isFresh: boolean,
    stopped: AbortSignal,
  ) {
    this.#parts = parts;
    this.#stored = stored;
    this.isFresh = isFresh;
    this.#stopped = stopped;
  }

  /** Looks up the sessions of this device, until that has succeeded once. */
  async check(): Promise<void> {
    const { device } = this.#parts;
    if (device === undefined) return;
    try {
      await (this.#lookup ??= this.#lookUp(device));
    } catch (error) {
      this.#lookup = undefined;
      throw error;
    }
  }

  /** Derives the client id from the name of the device; if the device has a session and the outbox is empty, its data was purged. */
  async #lookUp(device: string): Promise<void> {
    const { context, machine, proposals, reads } = this.#parts;
    await reads.upToDate(this.#stopped);
    const { principal } = this.#stored.client;
    const clientID = deviceClientID(context.clusterID, principal, device);
    const purged = this.isFresh ? findPurged(machine, clientID) : undefined;
    if (purged !== undefined) {
      this.purged = purged;
      context.event({ type: "purged", ...purged });
      // A client id has one session at a time.
      await proposals.retire(purged.session);
    }
    this.#stored.client = { ...this.#stored.client, clientID };
  }
}
