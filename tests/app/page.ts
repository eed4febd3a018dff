/**
 * The page of the app.
 *
 * @module
 */

import { NodeHost } from "../../mod.ts";
import {
  deviceID,
  IndexedDBOutbox,
  IndexedDBSnapshotStore,
} from "../../src/indexeddb/mod.ts";
import { RemoteLogDB } from "../../src/sync/client/mod.ts";
import { Board, type Card, COLUMNS, type Edit, encode } from "./board.ts";

const element = (id: string): HTMLElement => document.getElementById(id)!;

const logDB = new RemoteLogDB(location.href.replace(/^http/, "ws"));
const showState = (): void => {
  element("state").textContent = logDB.state;
  element("login").hidden = logDB.state !== "needs-auth";
};
logDB.watch(showState);
showState();

const host = new NodeHost({
  logDB,
  outbox: new IndexedDBOutbox("board-outbox"),
  snapshots: new IndexedDBSnapshotStore("board-snapshots"),
});
const replica = await host.startCluster(() => new Board(), {
  clusterID: 1n,
  nodeID: await deviceID(),
  hashEntries: 16,
});

function submit(edit: Edit): void {
  replica.submit(encode(edit)).catch((error) => {
    element("state").textContent = String(error);
  });
}

function lineOf(card: Card): HTMLLIElement {
  const line = document.createElement("li");
  const title = document.createElement("input");
  title.value = card.title;
  title.onchange = (): void =>
    submit({ type: "rename", id: card.id, title: title.value });
  const column = document.createElement("select");
  column.append(...COLUMNS.map((name) => new Option(name)));
  column.value = card.column;
  column.onchange = (): void =>
    submit({
      type: "move",
      id: card.id,
      column: column.value as Card["column"],
    });
  line.append(title, column);
  return line;
}

const cards = replica.watch<Card[]>(null);
function show(): void {
  element("cards").replaceChildren(...(cards.getSnapshot() ?? []).map(lineOf));
  const refused = replica.pending().filter(({ state }) => state === "refused");
  element("refused").replaceChildren(...refused.map((submission) => {
    const line = document.createElement("li");
    const dismiss = document.createElement("button");
    dismiss.textContent = "OK";
    dismiss.onclick = (): void => void submission.dismiss();
    line.append(submission.reason ?? "", dismiss);
    return line;
  }));
  document.body.dataset["pending"] = String(
    replica.pending().filter(({ state }) => state === "queued").length,
  );
}
cards.subscribe(show);
replica.onPending(show);
show();

element("add").onsubmit = (event): void => {
  event.preventDefault();
  const title = element("title") as HTMLInputElement;
  submit({ type: "add", id: crypto.randomUUID(), title: title.value });
  title.value = "";
};
