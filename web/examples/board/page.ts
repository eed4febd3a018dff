import { NodeHost } from "@sampan/sampan";
import * as stores from "@sampan/sampan/indexeddb";
import { RemoteLogDB } from "@sampan/sampan/sync/client";
import { newID, typed } from "@sampan/sampan/typed";
import { board } from "./machine.ts";

const logDB = new RemoteLogDB(location.origin.replace("http", "ws"), {
  copy: () => new stores.IndexedDBBlockStore("board-log"),
});
const outbox = new stores.IndexedDBOutbox("board-outbox");
const snapshots = new stores.IndexedDBSnapshotStore("board-snapshots");
const host = new NodeHost({ logDB, outbox, snapshots });
const config = { clusterID: 1n, nodeID: await stores.deviceID() };
const replica = await host.startConcurrentCluster(board.create, config);
const app = typed(replica, board);
const [login, add] = document.forms;
add!.onsubmit = (event) => {
  event.preventDefault();
  void app.do.add({ id: newID(), text: `${new FormData(add).get("text")}` });
  add!.reset();
};
const cards = app.watch.cards();
function show(): void {
  const items = cards.getSnapshot()?.map(({ id, text, by, done }) => {
    const item = document.createElement("button");
    item.textContent = `${done ? "✓" : "○"} ${text} (${by})`;
    item.ariaBusy = `${app.marks.getSnapshot()?.cards.has(id)}`;
    item.onclick = () => app.do.check({ id, done: !done });
    return item;
  });
  document.querySelector("section")!.replaceChildren(...items ?? []);
  document.querySelector("output")!.value = logDB.status.reason?.message ??
    logDB.state;
  login!.hidden = logDB.state !== "needs-auth";
}
for (const { subscribe } of [cards, app.marks]) subscribe(show);
logDB.watch(show);
void navigator.serviceWorker.register("worker.js");
