/**
 * The page: a shared list. Its replica is on the device, so that
 * it opens, shows and takes edits with no network; what waits to be sent is on
 * the device too.
 *
 * This module runs in a browser.
 *
 * @module
 */

import {
  type HostEvent,
  type KVRow,
  KVStateMachine,
  NodeHost,
  type Replica,
  type Submission,
} from "../../mod.ts";
import {
  deviceID,
  IndexedDBKVStateMachine,
  IndexedDBOutbox,
  IndexedDBSnapshotStore,
  requestPersistence,
  storageStatus,
} from "../../src/indexeddb/mod.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import { ALL, type Item, itemsOf, newKey, remove, write } from "./list.ts";
import { Plug } from "./plug.ts";

const CLUSTER = 1n;

function element<T extends HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

/** Shows an error to the person. */
function complain(error: unknown): void {
  element("problem").textContent = error instanceof Error
    ? error.message
    : String(error);
}

/** Name of this device, which the server set as a cookie: it outlives the storage of the page (U1). */
function deviceName(): string | undefined {
  return /(?:^|; )sampan-device=([^;]+)/.exec(document.cookie)?.[1];
}

/** Shows where the page stands, and while it is not live why, and when it tries again. */
function showState(logDB: RemoteLogDB, plug: Plug): void {
  const pill = element("state");
  const { state, reason, retryInMs } = logDB.status;
  element("history").hidden = reason?.code !== "other-history";
  pill.dataset["state"] = state;
  pill.textContent = state === "failed" ? "server has failed" : state;
  const words = plug.isIn ? reason?.message : "The plug is pulled";
  const next = retryInMs === undefined || !plug.isIn
    ? ""
    : ` Next try in ${Math.ceil(retryInMs / 1000)} s.`;
  // Edits stay on the device, and are sent once they can be.
  element("server-problem").textContent = words === undefined
    ? ""
    : `${
      words.replace(/\.$/, "")
    }.${next} Your edits are kept, and sent later.`;
  element<HTMLButtonElement>("retry").hidden = next === "";
}

/** Has the browser save a file. */
function save(name: string, content: Blob): void {
  const link = document.createElement("a");
  link.download = name;
  link.href = URL.createObjectURL(content);
  link.click();
  // The browser has to have begun.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Saves the list that is here, as a snapshot another host can import, and the edits that were not sent. */
async function saveWhatIsHere(host: NodeHost): Promise<void> {
  const { snapshot, pending } = await host.exportData(CLUSTER);
  save("list.snapshot", await new Response(snapshot).blob());
  if (pending.length === 0) return;
  const edits = pending.map(({ id, state, cmd }) => ({
    id,
    state,
    cmd: btoa(String.fromCharCode(...cmd)),
  }));
  save("edits.json", new Blob([JSON.stringify(edits)]));
}

/** Offers a way on where the server has another history than this device (U33, U36). */
function offerStartOver(host: NodeHost): void {
  const buttons = [element("save"), element("start-over")] as const;
  const act = (work: () => Promise<void>) => async (): Promise<void> => {
    for (const button of buttons) button.setAttribute("disabled", "");
    await work().catch(complain);
    for (const button of buttons) button.removeAttribute("disabled");
  };
  buttons[0].onclick = act(() => saveWhatIsHere(host));
  buttons[1].onclick = act(async () => {
    await host.startOver(CLUSTER);
    await host.stop();
    location.reload();
  });
}

/** Lets the person pull the plug, and put it in again. */
function offerPlug(plug: Plug, logDB: RemoteLogDB): void {
  const button = element<HTMLButtonElement>("plug");
  const show = (): void => {
    button.ariaPressed = String(!plug.isIn);
    button.textContent = plug.isIn ? "Pull the plug" : "Plug in again";
  };
  button.onclick = (): void => {
    plug.isIn = !plug.isIn;
    show();
    if (plug.isIn) logDB.reconnect();
  };
  show();
}

/** One row of the list; what the server does not have yet is marked. */
class Row {
  readonly element: HTMLLIElement = document.createElement("li");
  readonly #done = document.createElement("input");
  readonly #text = document.createElement("input");
  readonly #gone = document.createElement("button");
  #item: Item;

  constructor(item: Item, submit: (cmd: Uint8Array) => void) {
    this.#item = item;
    this.#done.type = "checkbox";
    this.#text.type = "text";
    this.#text.ariaLabel = "text";
    this.#gone.type = "button";
    this.#gone.textContent = "remove";
    this.#done.onchange = (): void =>
      submit(write({ ...this.#item, done: this.#done.checked }));
    this.#text.onchange = (): void =>
      submit(write({ ...this.#item, text: this.#text.value }));
    this.#gone.onclick = (): void => submit(remove(this.#item));
    this.element.append(this.#done, this.#text, this.#gone);
  }

  show(item: Item, isPending: boolean): void {
    this.#item = item;
    this.#done.checked = item.done;
    this.#done.ariaLabel = `${item.text}: done`;
    this.#gone.ariaLabel = `remove ${item.text}`;
    // What is being typed is not taken away under the fingers.
    if (document.activeElement !== this.#text) this.#text.value = item.text;
    this.element.className = [
      item.done ? "done" : "",
      isPending ? "pending" : "",
    ].join(" ").trim();
  }
}

/** The list on the page. */
class List {
  readonly #rows = new Map<string, Row>();
  readonly #submit: (cmd: Uint8Array) => void;

  constructor(submit: (cmd: Uint8Array) => void) {
    this.#submit = submit;
  }

  show(items: readonly Item[], committed: readonly Item[]): void {
    const list = element("items");
    const known = new Map(
      committed.map((item) => [item.key, JSON.stringify(item)]),
    );
    for (const [key, row] of [...this.#rows]) {
      if (items.some((item) => item.key === key)) continue;
      row.element.remove();
      this.#rows.delete(key);
    }
    for (const [i, item] of items.entries()) {
      let row = this.#rows.get(item.key);
      if (row === undefined) {
        row = new Row(item, this.#submit);
        this.#rows.set(item.key, row);
      }
      if (list.children[i] !== row.element) {
        list.insertBefore(row.element, list.children[i] ?? null);
      }
      row.show(item, known.get(item.key) !== JSON.stringify(item));
    }
  }
}

/** Shows the edits that the server or the state machine refused, until they are dismissed. */
function showRefused(replica: Replica): void {
  const refused = replica.pending().filter(({ state }) =>
    state === "refused" || state === "unknown"
  );
  element("refused").replaceChildren(...refused.map((submission) => {
    const line = document.createElement("p");
    const dismiss = document.createElement("button");
    dismiss.type = "button";
    dismiss.textContent = "dismiss";
    dismiss.onclick = (): void => {
      submission.dismiss().catch(complain);
    };
    line.append(`An edit was refused: ${reasonOf(submission)} `, dismiss);
    return line;
  }));
}

function reasonOf({ state, reason }: Submission): string {
  return state === "unknown"
    ? "the server cannot tell whether it was applied."
    : `${reason}.`;
}

async function start(): Promise<void> {
  const plug = new Plug();
  const url = new URL("/sync", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const logDB = new RemoteLogDB(url.href, {
    connect: plug.connect,
    fetch: plug.fetch,
  });
  offerPlug(plug, logDB);
  const tell = (): void => showState(logDB, plug);
  logDB.watch(tell);
  // The time of the next try comes closer while nothing else happens.
  setInterval(tell, 1_000);
  tell();
  element("retry").onclick = (): void => logDB.reconnect();
  const host = new NodeHost({
    logDB,
    device: deviceName(),
    outbox: new IndexedDBOutbox("sampan-outbox"),
    snapshots: new IndexedDBSnapshotStore("sampan-snapshots"),
    onEvent(event: HostEvent): void {
      if (event.type === "failed" || event.type === "diverged") {
        complain(event.error);
      } else if (event.type === "purged") {
        element("problem").textContent =
          `The browser has cleared what this page kept. What the server had of this device is back (${event.decided} edits); what was not sent is lost.`;
      }
    },
  });
  offerStartOver(host);
  const replica = await host.startOnDiskCluster(
    () => new IndexedDBKVStateMachine("sampan-state"),
    {
      clusterID: CLUSTER,
      nodeID: await deviceID(),
      hashEntries: 64,
      replayMachine: () => new KVStateMachine(),
    },
  );

  const submit = (cmd: Uint8Array): void => {
    replica.submit(cmd).catch(complain);
  };
  const list = new List(submit);
  const optimistic = replica.watch<KVRow[]>(ALL);
  const committed = replica.watch<KVRow[]>(ALL, { view: "committed" });
  const show = async (): Promise<void> => {
    list.show(
      itemsOf(optimistic.getSnapshot() ?? []),
      itemsOf(committed.getSnapshot() ?? []),
    );
    const waiting = replica.pending().filter(({ state }) => state === "queued");
    element("pending").textContent = String(waiting.length);
    element("applied").textContent = String(replica.appliedIndex);
    showRefused(replica);
    const { hash } = await replica.getHash();
    element("hash").textContent = hash.toString(16).padStart(16, "0");
  };
  for (const watch of [optimistic, committed]) {
    watch.subscribe(() => void show().catch(complain));
  }
  replica.onPending(() => void show().catch(complain));
  await show();

  element<HTMLFormElement>("add").onsubmit = (event): void => {
    event.preventDefault();
    const text = element<HTMLInputElement>("text");
    if (text.value.trim() === "") return;
    submit(write({ key: newKey(), text: text.value, done: false }));
    text.value = "";
  };
  // Without its handler, the browser would send the form and load the page again.
  element("add").querySelector("button")!.disabled = false;
  element("kept").textContent = await keptHow();
}

/** Describes how durable the browser's storage is. */
async function keptHow(): Promise<string> {
  await requestPersistence();
  const { mode, reason } = await storageStatus();
  switch (mode) {
    case "persistent":
      return "on this device, until you delete it";
    case "best-effort":
      return "on this device, as long as the browser has room";
    case "memory":
      return `in memory, until this page is closed. ${reason ?? ""}`;
  }
}

start().catch((error) => {
  element("state").dataset["state"] = "failed";
  element("state").textContent = "failed";
  complain(error);
});
navigator.serviceWorker?.register("worker.js").catch(() => {
  // Without it the page opens only where there is a network.
});
