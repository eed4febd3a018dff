/**
 * A shared shopping list in Solid.
 *
 * ```sh
 * deno run -A web/examples/run.ts solid
 * ```
 *
 * Open http://localhost:8007 and http://127.0.0.1:8007: to a browser these are
 * two devices. Stop the server, edit both lists, reload, start it again.
 *
 * @module
 */

/** @jsxImportSource solid-js */

import { type Accessor, For, from, type JSX } from "solid-js";
import { render } from "solid-js/web";
import { NodeHost } from "@sampan/sampan";
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
  copy: () => new IndexedDBBlockStore("solid-log"),
});
const host = new NodeHost({
  logDB,
  outbox: new IndexedDBOutbox("solid-outbox"),
  snapshots: new IndexedDBSnapshotStore("solid-snapshots"),
});
const replica = await host.startConcurrentCluster(shopping.create, {
  clusterID: 1n,
  nodeID: await deviceID(),
});
const app = typed(replica, shopping);
const list = app.watch.items();

/** A signal that has the new value after each call of the subscriber, until its owner is gone. */
function useSubscription<T>(
  subscribe: (changed: () => void) => () => void,
  value: () => T,
): Accessor<T> {
  return from<T>((set) => subscribe(() => set(value)), value());
}

function ShoppingList(): JSX.Element {
  const items = useSubscription(
    list.subscribe,
    () => list.getSnapshot() ?? [],
  );
  const marks = useSubscription(app.marks.subscribe, app.marks.getSnapshot);
  const state = useSubscription(
    (changed) => logDB.watch(changed),
    () => logDB.state,
  );
  const waiting = useSubscription(app.onPending, () => replica.pendingCount);

  // Resolves once the edit is durable on this device; it is shown at once.
  async function add(
    event: SubmitEvent & { readonly currentTarget: HTMLFormElement },
  ): Promise<void> {
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
        <span role="status" data-state={state()}>{state()}</span>
      </header>
      <form onSubmit={add}>
        <input name="item" aria-label="New item" autocomplete="off" required />
        <button type="submit">Add</button>
      </form>
      <ul>
        <For each={items()}>
          {(item) => (
            <li aria-busy={marks()?.items.has(item.id)}>
              <span>{item.text}</span>
              <button
                type="button"
                aria-label={`Remove ${item.text}`}
                onClick={() => app.do.remove({ id: item.id })}
              >
                Remove
              </button>
            </li>
          )}
        </For>
      </ul>
      <p role="status">
        {waiting() === 0
          ? "Everything is sent"
          : `Waiting to be sent: ${waiting()}`}
      </p>
    </main>
  );
}

render(() => <ShoppingList />, document.getElementById("app")!);
