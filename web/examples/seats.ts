/**
 * A state machine of your own in a page that works offline: the seats of a boat.
 *
 * ```sh
 * deno run -A web/examples/run.ts seats
 * ```
 *
 * Open http://localhost:8002 and http://127.0.0.1:8002: to a browser these are
 * two devices. Stop the server, book the same seat on both, reload, and start
 * the server again. One of the two gets the seat; the other is told who has it.
 *
 * This file is loaded twice: the server runs the state machine, and the page
 * runs it too and shows it.
 *
 * @module
 */

import * as v from "valibot";
import { NodeHost } from "@sampan/sampan";
import {
  deviceID,
  IndexedDBBlockStore,
  IndexedDBOutbox,
  IndexedDBSnapshotStore,
} from "@sampan/sampan/indexeddb";
import { RemoteLogDB } from "@sampan/sampan/sync/client";
import { defineMachine, table, typed } from "@sampan/sampan/typed";

const SEATS = 8;

/** Name of a seat in the state. */
const keyOf = (seat: number): string => `${seat}`;

// What a page may send. Anything else, also from a page that was tampered with, is
// refused by the page itself and by the server.
const booking = v.object({
  seat: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(SEATS - 1)),
  name: v.pipe(v.string(), v.nonEmpty(), v.maxLength(40)),
});

/** The state machine: who has which seat. */
export const boat = defineMachine({
  name: "boat",
  version: 1,
  state: () => ({ holders: table<string>() }),
  commands: {
    // The rule that must hold on every device: no seat is booked twice.
    book: {
      args: booking,
      run: ({ holders }, { seat, name }, ctx) => {
        const holder = holders.get(keyOf(seat));
        if (holder !== undefined) return ctx.reject("taken");
        holders.set(keyOf(seat), name);
        return undefined;
      },
    },
    free: {
      args: booking,
      run: ({ holders }, { seat, name }, ctx) => {
        if (holders.get(keyOf(seat)) !== name) return ctx.reject("not-yours");
        holders.delete(keyOf(seat));
        return undefined;
      },
    },
  },
  queries: {
    // The answer: the name of each seat's holder, empty for a free one.
    seats: ({ holders }) =>
      Array.from(
        { length: SEATS },
        (_, seat) => holders.get(keyOf(seat)) ?? "",
      ),
  },
});

/** Starts the replica of this device, and shows it. */
async function showPage(): Promise<void> {
  document.getElementById("app")!.innerHTML = `
    <main>
      <header><h1>Seats of the boat</h1><span id="state" role="status"></span></header>
      <p><label>Your name <input id="name" maxlength="40" autocomplete="name"></label></p>
      <ol id="seats" class="seats"></ol>
      <p id="waiting" role="status"></p>
      <section id="refused" aria-live="polite"></section>
    </main>`;
  const element = (id: string): HTMLElement => document.getElementById(id)!;

  const logDB = new RemoteLogDB(location.origin.replace("http", "ws"), {
    // The log is kept on the device too: without a network, a machine in memory
    // starts from its last snapshot and the entries after it.
    copy: () => new IndexedDBBlockStore("seats-log"),
  });
  const host = new NodeHost({
    logDB,
    outbox: new IndexedDBOutbox("seats-outbox"),
    snapshots: new IndexedDBSnapshotStore("seats-snapshots"),
  });
  const replica = await host.startConcurrentCluster(boat.create, {
    clusterID: 1n,
    nodeID: await deviceID(),
  });
  const app = typed(replica, boat);

  const name = element("name") as HTMLInputElement;
  name.value = localStorage.getItem("name") ?? "";
  name.oninput = (): void => {
    localStorage.setItem("name", name.value);
    show();
  };

  const seats = app.watch.seats();
  const buttons = Array.from({ length: SEATS }, (_, seat) => {
    const button = document.createElement("button");
    button.onclick = async (): Promise<void> => {
      const isMine = seats.getSnapshot()?.[seat] === name.value;
      const edit = { seat, name: name.value };
      await (isMine ? app.do.free(edit) : app.do.book(edit));
    };
    const item = document.createElement("li");
    item.append(button);
    element("seats").append(item);
    return button;
  });

  function show(): void {
    for (const [seat, holder] of (seats.getSnapshot() ?? []).entries()) {
      const button = buttons[seat]!;
      const isMine = holder !== "" && holder === name.value;
      button.textContent = holder || "free";
      button.ariaLabel = `Seat ${seat + 1}: ${holder || "free"}`;
      button.ariaPressed = `${isMine}`;
      button.disabled = name.value === "" || holder !== "" && !isMine;
    }
    element("state").textContent = logDB.state;
    element("state").dataset["state"] = logDB.state;
    const pending = app.pending();
    const waiting = pending.filter(({ state }) => state === "queued").length;
    element("waiting").textContent = waiting === 0
      ? "Everything is sent"
      : `Waiting to be sent: ${waiting}`;
    // A refusal stays, also over a reload, until the person has seen it.
    const refusals = pending.filter(({ state }) => state === "refused");
    element("refused").replaceChildren(...refusals.map((booking) => {
      const line = document.createElement("p");
      const button = document.createElement("button");
      button.textContent = "OK";
      button.onclick = (): Promise<void> => booking.dismiss();
      const { seat } = booking.args as { readonly seat: number };
      const holder = seats.getSnapshot()?.[seat] ?? "";
      const now = holder === ""
        ? "is free again"
        : `belongs to ${holder} already`;
      line.append(`Seat ${seat + 1} ${now} `, button);
      return line;
    }));
  }
  seats.subscribe(show);
  app.onPending(show);
  logDB.watch(show);
  show();
}

if ("document" in globalThis) await showPage();
