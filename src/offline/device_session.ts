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
import { clientIDsFrom } from "./client_chain.ts";
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

/** Finds the last session that this device opened in the cluster before its data was purged, by the client ids that it may have had. */
function findPurged(
  machine: CurrentMachine,
  clientIDs: readonly bigint[],
): (Purged & { readonly clientID: bigint }) | undefined {
  for (const clientID of clientIDs.toReversed()) {
    const session = machine.sessionOf(clientID, 0, undefined);
    const known = session === undefined
      ? undefined
      : machine.sessionInfo(session);
    if (session !== undefined && known !== undefined) {
      return { session, decided: known.next - 1, clientID };
    }
  }
  return undefined;
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
    const { principal, clientID } = this.#stored.client;
    const clientIDs = clientIDsFrom(
      deviceClientID(context.clusterID, principal, device),
    );
    const found = this.isFresh ? findPurged(machine, clientIDs) : undefined;
    if (found !== undefined) {
      const { session, decided } = found;
      this.purged = { session, decided };
      context.event({ type: "purged", session, decided });
      // A client id has one session at a time.
      await proposals.retire(session);
    }
    this.#stored.client = {
      ...this.#stored.client,
      clientID: found?.clientID ??
        // The device has started over since.
        (clientIDs.includes(clientID) ? clientID : clientIDs[0]!),
    };
  }
}
