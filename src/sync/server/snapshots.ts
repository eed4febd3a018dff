/**
 * The snapshot somebody is to be sent: one the host has, if it is good for it,
 * else one that is made now.
 *
 * This module is browser compatible.
 *
 * @module
 */

import type { Retention } from "../../log/log.ts";
import type { NodeHost } from "../../nodehost/node_host.ts";
import { verifySnapshot } from "../../snapshot/verifier.ts";
import {
  ErrSnapshotCorrupted,
  ErrSnapshotVersion,
} from "../../snapshot/errors.ts";
import type {
  SnapshotHeader,
  SnapshotInfo,
  SnapshotStore,
} from "../../snapshot/store.ts";
import type { Hub } from "./hub.ts";

/** A snapshot on its way. */
export interface Offer {
  /** What it is. */
  readonly header: SnapshotHeader;
  /** External files in it. */
  readonly files: number;
  /** Bytes of it, 0 if nobody knows yet. */
  readonly size: number;
  /** The container, each block verified before it comes out. */
  readonly content: ReadableStream<Uint8Array>;
  /** Keeps the log after it until released (H7). */
  readonly retention: Retention;
}

/**
 * The newest snapshot that is no more than `lag` entries old, and holds all up to
 * index `least`; or a new one.
 *
 * @throws whatever `exportSnapshot()` throws: a replica known to be wrong offers none (H12)
 */
export async function offerSnapshot(
  host: NodeHost,
  hub: Hub,
  lag: number,
  least = 0,
): Promise<Offer> {
  // It begins with its first read: until then it only tells whether there may be
  // any.
  const fresh = hub.replica.exportSnapshot();
  const oldest = Math.max(hub.replica.appliedIndex - lag, least);
  const kept = await offerKept(host, hub, oldest);
  if (kept !== undefined) {
    await fresh.cancel();
    return kept;
  }
  // What the log still has now it has until the state is taken, too.
  const retention = hub.log.retain(hub.replica.appliedIndex);
  try {
    const { transform, header } = verifySnapshot();
    const content = fresh.pipeThrough(transform);
    return await begin(content, header, { files: 0, size: 0 }, retention);
  } catch (error) {
    retention.release();
    throw error;
  }
}

async function offerKept(
  host: NodeHost,
  hub: Hub,
  oldest: number,
): Promise<Offer | undefined> {
  const { log, replica, damaged, clusterID } = hub;
  const shared = host.logDB.snapshots;
  const stores: SnapshotStore[] = [host.snapshots];
  if (shared !== undefined && shared !== host.snapshots) stores.push(shared);
  for (const store of stores) {
    // Of another replica's, or one that was imported, a client that was wrong
    // could not tell whether it is right (H12).
    const info = (await store.list(clusterID)).find(({ kind, id, nodeID }) =>
      kind === "full" && nodeID === replica.nodeID && !damaged.has(id)
    );
    if (info === undefined || info.index < oldest) continue;
    const retention = log.retain(info.index);
    try {
      (await log.read(info.index, { epoch: info.epoch })).close();
      return await openReadOnly(hub, store, info, retention);
    } catch {
      // It is removed meanwhile, damaged, or of no use: there are others.
      retention.release();
    }
  }
  return undefined;
}

async function openReadOnly(
  hub: Hub,
  store: SnapshotStore,
  info: SnapshotInfo,
  retention: Retention,
): Promise<Offer> {
  const { transform, header, totals } = verifySnapshot();
  totals.catch((error) => {
    // Whoever asks next gets another one (H8).
    if (isDamage(error)) hub.damaged.add(info.id);
  });
  const content = (await store.open(info)).pipeThrough(transform);
  return await begin(content, header, info, retention);
}

function isDamage(error: unknown): boolean {
  return error instanceof ErrSnapshotCorrupted ||
    error instanceof ErrSnapshotVersion;
}

/** Reads as far as the header. */
async function begin(
  content: ReadableStream<Uint8Array>,
  header: Promise<SnapshotHeader>,
  { files, size }: Pick<SnapshotInfo, "files" | "size">,
  retention: Retention,
): Promise<Offer> {
  const reader = content.getReader();
  const first: Uint8Array[] = [];
  let known: SnapshotHeader | undefined;
  header.then((header) => known = header, () => {});
  while (known === undefined) {
    const { done, value } = await reader.read();
    if (done) break;
    first.push(value);
    // The header is told of a moment after its block.
    await Promise.resolve();
  }
  const whole = new ReadableStream<Uint8Array>({
    pull: async (controller): Promise<void> => {
      const held = first.shift();
      if (held !== undefined) return controller.enqueue(held);
      const { done, value } = await reader.read();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
  return { header: await header, files, size, content: whole, retention };
}
