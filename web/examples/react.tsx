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
import { kv, type KVRow, NodeHost, type Watch } from "@sampan/sampan";
import {
  deviceID,
  IndexedDBKVStateMachine,
  IndexedDBOutbox,
  IndexedDBSnapshotStore,
} from "@sampan/sampan/indexeddb";
import { RemoteLogDB } from "@sampan/sampan/sync/client";

// The replica of this device. Its state, and what it has not sent yet, are in
// IndexedDB: the page opens and takes edits without a network.
const logDB = new RemoteLogDB(location.origin.replace("http", "ws"));
const host = new NodeHost({
  logDB,
  outbox: new IndexedDBOutbox("react-outbox"),
  snapshots: new IndexedDBSnapshotStore("react-snapshots"),
});
const replica = await host.startOnDiskCluster(
  () => new IndexedDBKVStateMachine("react-state"),
  { clusterID: 1n, nodeID: await deviceID() },
);

// One row for each item: its key sorts by time, its value is the text.
const list = replica.watch<KVRow[]>(kv.range());
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
const newKey = (): string => `${Date.now()}-${crypto.randomUUID()}`;

/** The answer to a watched query; React renders again whenever it changes. */
function useWatch<A>(watch: Watch<A>): A | undefined {
  return useSyncExternalStore(watch.subscribe, watch.getSnapshot);
}

// Outside of the component: with another function, React would subscribe again.
const onState = (changed: () => void): () => void => logDB.watch(changed);
const onPending = (changed: () => void): () => void =>
  replica.onPending(changed);

function ShoppingList(): ReactNode {
  const items = useWatch(list) ?? [];
  const state = useSyncExternalStore(onState, () => logDB.state);
  const waiting = useSyncExternalStore(
    onPending,
    () => replica.pending().length,
  );

  // Resolves once the edit is durable on this device; it is shown at once.
  async function add(event: SubmitEvent<HTMLFormElement>): Promise<void> {
    event.preventDefault();
    const form = event.currentTarget;
    const item = String(new FormData(form).get("item")).trim();
    form.reset();
    if (item !== "") await replica.submit(kv.put(newKey(), item));
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
        {items.map(({ key, value }) => (
          <li key={text(key)}>
            <span>{text(value)}</span>
            <button
              type="button"
              aria-label={`Remove ${text(value)}`}
              onClick={() => replica.submit(kv.delete(key))}
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
