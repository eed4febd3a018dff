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

import {
  type IFork,
  type IRefusal,
  type IStateMachine,
  NodeHost,
  type Result,
} from "@sampan/sampan";
import {
  deviceID,
  IndexedDBBlockStore,
  IndexedDBOutbox,
  IndexedDBSnapshotStore,
} from "@sampan/sampan/indexeddb";
import { RemoteLogDB } from "@sampan/sampan/sync/client";

const SEATS = 8;

/** A command: a person books a seat, or frees the one they have. */
interface Booking {
  readonly seat: number;
  readonly name: string;
  readonly free: boolean;
}

function encode(booking: Booking): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(booking));
}

// A command may come from any page, also from one that was tampered with. An
// update() that throws stops the replica, so decoding does not throw.
function decode(cmd: Uint8Array): Booking | undefined {
  try {
    const { seat, name, free } = JSON.parse(new TextDecoder().decode(cmd));
    const isSeat = Number.isInteger(seat) && seat >= 0 && seat < SEATS;
    const isName = typeof name === "string" && name !== "" && name.length <= 40;
    return isSeat && isName ? { seat, name, free: free === true } : undefined;
  } catch {
    return undefined;
  }
}

function refused(reason: string): Result {
  return { value: 0n, data: new TextEncoder().encode(reason) };
}

/** The state machine: who has which seat; an empty name for a free one. */
export class Boat
  implements IStateMachine<null, string[]>, IFork<IStateMachine>, IRefusal {
  #seats: string[] = Array(SEATS).fill("");

  // The rule that must hold on every device: no seat is booked twice.
  update(cmd: Uint8Array): Result {
    const booking = decode(cmd);
    if (booking === undefined) return refused("This is not a booking");
    const { seat, name, free } = booking;
    const holder = this.#seats[seat]!;
    if (holder !== "" && holder !== name) {
      return refused(`Seat ${seat + 1} belongs to ${holder} already`);
    }
    this.#seats[seat] = free ? "" : name;
    return { value: 1n };
  }

  lookup(): string[] {
    return [...this.#seats];
  }

  // Results of value 0 are refusals: the page that booked is told the reason.
  refusal({ value, data }: Result): string | undefined {
    return value === 0n ? new TextDecoder().decode(data) : undefined;
  }

  // A fork shows what was booked here and is not committed yet.
  fork(): Boat {
    const boat = new Boat();
    boat.#seats = this.lookup();
    return boat;
  }

  saveSnapshot(w: WritableStream<Uint8Array>): Promise<void> {
    return new Blob([JSON.stringify(this.#seats)]).stream().pipeTo(w);
  }

  async recoverFromSnapshot(r: ReadableStream<Uint8Array>): Promise<void> {
    this.#seats = await new Response(r).json();
  }

  close(): void {}
}

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
  const replica = await host.startCluster(() => new Boat(), {
    clusterID: 1n,
    nodeID: await deviceID(),
  });

  const name = element("name") as HTMLInputElement;
  name.value = localStorage.getItem("name") ?? "";
  name.oninput = (): void => {
    localStorage.setItem("name", name.value);
    show();
  };

  const boat = replica.watch<string[]>(null);
  const buttons = Array.from({ length: SEATS }, (_, seat) => {
    const button = document.createElement("button");
    button.onclick = async (): Promise<void> => {
      const free = boat.getSnapshot()?.[seat] === name.value;
      await replica.submit(encode({ seat, name: name.value, free }));
    };
    const item = document.createElement("li");
    item.append(button);
    element("seats").append(item);
    return button;
  });

  function show(): void {
    for (const [seat, holder] of (boat.getSnapshot() ?? []).entries()) {
      const button = buttons[seat]!;
      const isMine = holder !== "" && holder === name.value;
      button.textContent = holder || "free";
      button.ariaLabel = `Seat ${seat + 1}: ${holder || "free"}`;
      button.ariaPressed = `${isMine}`;
      button.disabled = name.value === "" || holder !== "" && !isMine;
    }
    element("state").textContent = logDB.state;
    element("state").dataset["state"] = logDB.state;
    const pending = replica.pending();
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
      line.append(`${booking.reason} `, button);
      return line;
    }));
  }
  boat.subscribe(show);
  replica.onPending(show);
  logDB.watch(show);
  show();
}

if ("document" in globalThis) await showPage();
