/**
 * A shared shopping list in React.
 *
 * ```sh
 * deno run -A web/examples/run.ts react
 * ```
 *
 * Open http://localhost:8003 and http://127.0.0.1:8003: to a browser these are
 * two devices. Stop the server, edit both lists, reload, start it again.
 *
 * @module
 */

/** @jsxImportSource react */
/** @jsxImportSourceTypes @types/react */

import { type ReactNode, type SubmitEvent, useSyncExternalStore } from "react";
import { createRoot } from "react-dom/client";
import { NodeHost, type Watch } from "@sampan/sampan";
import {
  deviceID,
  IndexedDBBlockStore,
  IndexedDBOutbox,
  IndexedDBSnapshotStore,
} from "@sampan/sampan/indexeddb";
import { RemoteLogDB } from "@sampan/sampan/sync/client";
import { newID, typed } from "@sampan/sampan/typed";
import { shopping } from "./shopping.ts";

// The replica of this device. Its log, snapshots, and what it has not sent yet are
// in IndexedDB: the page opens and takes edits without a network.
const logDB = new RemoteLogDB(location.origin.replace("http", "ws"), {
  copy: () => new IndexedDBBlockStore("react-log"),
});
const host = new NodeHost({
  logDB,
  outbox: new IndexedDBOutbox("react-outbox"),
  snapshots: new IndexedDBSnapshotStore("react-snapshots"),
});
const replica = await host.startConcurrentCluster(shopping.create, {
  clusterID: 1n,
  nodeID: await deviceID(),
});
const app = typed(replica, shopping);
const list = app.watch.items();

/** The answer to a watched query; React renders again whenever it changes. */
function useWatch<A>(watch: Watch<A>): A | undefined {
  return useSyncExternalStore(watch.subscribe, watch.getSnapshot);
}

// Outside of the component: with another function, React would subscribe again.
const onState = (changed: () => void): () => void => logDB.watch(changed);

function ShoppingList(): ReactNode {
  const items = useWatch(list) ?? [];
  const marks = useWatch(app.marks);
  const state = useSyncExternalStore(onState, () => logDB.state);
  const waiting = useSyncExternalStore(
    app.onPending,
    () => replica.pendingCount,
  );

  // Resolves once the edit is durable on this device; it is shown at once.
  async function add(event: SubmitEvent<HTMLFormElement>): Promise<void> {
    event.preventDefault();
    const form = event.currentTarget;
    const text = String(new FormData(form).get("item"));
    form.reset();
    await app.do.add({ id: newID(), text });
  }

  return (
    <main>
      <header>
        <h1>Shopping list</h1>
        <span role="status" data-state={state}>{state}</span>
      </header>
      <form onSubmit={add}>
        <input name="item" aria-label="New item" autoComplete="off" required />
        <button type="submit">Add</button>
      </form>
      <ul>
        {items.map(({ id, text }) => (
          <li key={id} aria-busy={marks?.items.has(id)}>
            <span>{text}</span>
            <button
              type="button"
              aria-label={`Remove ${text}`}
              onClick={() =>
                app.do.remove({ id })}
            >
              Remove
            </button>
          </li>
        ))}
      </ul>
      <p role="status">
        {waiting === 0
          ? "Everything is sent"
          : `Waiting to be sent: ${waiting}`}
      </p>
    </main>
  );
}

createRoot(document.getElementById("app")!).render(<ShoppingList />);
