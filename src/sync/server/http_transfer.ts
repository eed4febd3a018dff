/**
 * Parts that the transfers of snapshots over HTTP share.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { SampanError } from "../../statemachine/errors.ts";
import type { Core } from "./core.ts";
import type { Identity } from "./hooks.ts";
import type { ReadPermission } from "./read_permission.ts";
import type { SnapshotOffer } from "./snapshot_offer.ts";
import type { TransferSlot } from "./transfer_slots.ts";

/** Error that is answered with an HTTP status of its own. */
export class RequestRejected extends SampanError {
  /** Name that `instanceof` compares. */
  static override readonly errorName = "RequestRejected";
  /** Status of the response. */
  readonly status: number;
  /** Creates an error that is answered with `status`. */
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** Takes a slot for a snapshot transfer. */
export function takeSlot(
  core: Core,
  identity: Identity,
  address: string | undefined,
): TransferSlot {
  if (core.isStopping) {
    throw new RequestRejected(503, "Server is stopping; try again later");
  }
  const slot = core.quotas.takeTransfer({ identity, address });
  if (slot === undefined) {
    throw new RequestRejected(
      503,
      "Too many snapshots are in progress; try again later",
    );
  }
  return slot;
}

/** Content of a snapshot that is sent; ends with an error if the client reads too slowly, as it prevents compaction of the log. */
export function sentSnapshot(
  core: Core,
  { content, retention }: Pick<SnapshotOffer, "content" | "retention">,
  permission: Pick<ReadPermission, "checkRecent">,
  slot: TransferSlot,
  ended: () => void,
): ReadableStream<Uint8Array> {
  const work = core.telemetry.begin("snapshot");
  const reader = content.getReader();
  let controller: ReadableStreamDefaultController<Uint8Array>;
  let cancelTimer: (() => void) | undefined;
  let isOver = false;
  const end = (error?: unknown): void => {
    if (isOver) return;
    isOver = true;
    cancelTimer?.();
    work.end(error);
    retention.release();
    ended();
  };
  const abort = (reason: string): void => {
    const error = new RequestRejected(408, reason);
    controller.error(error);
    reader.cancel(error).catch(() => {});
    end(error);
  };
  const wait = (): void => {
    cancelTimer?.();
    cancelTimer = core.env.setTimer(
      () =>
        abort(`Snapshot was not read for ${core.limits.slowMs} ms, too slowly`),
      core.limits.slowMs,
    );
  };
  slot.start();
  slot.evict = abort;
  return new ReadableStream({
    start: (started): void => {
      controller = started;
      wait();
    },
    pull: async (): Promise<void> => {
      // The client waits for the state machine now.
      cancelTimer?.();
      try {
        if (!await permission.checkRecent()) {
          throw new RequestRejected(
            403,
            "You may no longer read this cluster",
          );
        }
        const { done, value } = await reader.read();
        if (done) {
          controller.close();
          return end();
        }
        core.telemetry.counts.snapshots += value.length;
        slot.transferred(value.length);
        controller.enqueue(value);
        wait();
      } catch (error) {
        reader.cancel(error).catch(() => {});
        end(error);
        throw error;
      }
    },
    cancel: async (reason): Promise<void> => {
      end(reason);
      await reader.cancel(reason);
    },
  }, { highWaterMark: 0 });
}
