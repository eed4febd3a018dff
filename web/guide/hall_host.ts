/**
 * Worker with the whole host: machine, log, outbox and connection take no time of the
 * page's thread. What it is asked, and what it answers, are the messages of the
 * application, as few as the page needs.
 */

import { NodeHost } from "@sampan/sampan";
import {
  IndexedDBLogDB,
  IndexedDBOutbox,
  IndexedDBSnapshotStore,
} from "@sampan/sampan/indexeddb";
import { type Bookings, encode, type SeatCommand, Seats } from "./seats.ts";

/** Message of the page. */
export type ToHost =
  /** Submits a command; `call` is a number that the answer has too. */
  | {
    readonly kind: "submit";
    readonly call: number;
    readonly command: SeatCommand;
  }
  /** Forgets a refused command. */
  | { readonly kind: "dismiss"; readonly id: number }
  /** Stops the host; the worker ends after the answer. */
  | { readonly kind: "stop" };

/** All that the page shows. */
export interface Hall {
  /** Bookings, with those that are not decided yet. */
  readonly bookings: Bookings;
  /** Number of commands that are not decided yet. */
  readonly waiting: number;
  /** Commands that were refused, with the reason for the user, until they are dismissed. */
  readonly refused: readonly { readonly id: number; readonly reason: string }[];
}

/** Message of the worker. */
export type FromHost =
  | { readonly kind: "hall"; readonly hall: Hall }
  /** The command of a call is stored, and survives the page; or it is not, because of `error`. */
  | { readonly kind: "stored"; readonly call: number; readonly error?: string }
  | { readonly kind: "stopped" }
  /** The host could not start. */
  | { readonly kind: "failed"; readonly error: string };

const say = (message: FromHost): void => postMessage(message);

// With a server, the log is a RemoteLogDB.
const host = new NodeHost({
  logDB: new IndexedDBLogDB("hall-log"),
  outbox: new IndexedDBOutbox("hall-outbox"),
  snapshots: new IndexedDBSnapshotStore("hall-snapshots"),
});
const started = host.startCluster(() => new Seats(), {
  clusterID: 1n,
  nodeID: 1n,
  snapshotEntries: 1_000,
});

started.then((replica) => {
  const bookings = replica.watch<Bookings>(null);
  const show = (): void => {
    const pending = replica.pending();
    const refused = pending.filter(({ state }) => state === "refused");
    say({
      kind: "hall",
      hall: {
        bookings: bookings.getSnapshot() ?? {},
        waiting: pending.length - refused.length,
        refused: refused.map(({ id, reason = "" }) => ({ id, reason })),
      },
    });
  };
  bookings.subscribe(show);
  replica.onPending(show);
  show();
}, (error: Error) => say({ kind: "failed", error: error.message }));

async function submit(call: number, command: SeatCommand): Promise<void> {
  try {
    const replica = await started;
    await replica.submit(encode(command));
    say({ kind: "stored", call });
  } catch (error) {
    say({ kind: "stored", call, error: (error as Error).message });
  }
}

async function dismiss(id: number): Promise<void> {
  const replica = await started;
  await replica.pending().find((edit) => edit.id === id)?.dismiss();
}

// Messages that arrive before the start is done wait for it.
addEventListener("message", ({ data }: MessageEvent<ToHost>) => {
  switch (data.kind) {
    case "submit":
      return void submit(data.call, data.command);
    case "dismiss":
      return void dismiss(data.id);
    case "stop":
      return void host.stop().then(() => say({ kind: "stopped" }));
  }
});
