/**
 * Page with an inspector of a replica in memory, under a policy that permits no
 * inline style and no inline script.
 *
 * This module runs in a browser.
 *
 * @module
 */

import { MemoryOutbox, NodeHost, type Replica } from "../../mod.ts";
import { inspect } from "../../src/inspector/mod.ts";
import { defineMachine, table, typed } from "../../src/typed/mod.ts";
import * as v from "valibot";

const notes = defineMachine({
  name: "notes",
  version: 1,
  state: () => ({ notes: table<{ text: string }>() }),
  commands: {
    write: {
      args: v.object({ id: v.string(), text: v.string() }),
      run: ({ notes }, { id, text }) => {
        notes.set(id, { text });
        return undefined;
      },
    },
  },
  queries: { count: ({ notes }) => notes.size },
});

const host = new NodeHost({ outbox: new MemoryOutbox() });
const start = (): Promise<Replica> =>
  host.startConcurrentCluster(notes.create, {
    clusterID: 1n,
    nodeID: 1n,
  }) as Promise<Replica>;
let replica = await start();

/** Writes a note, through the present replica. */
async function write(id: string, text: string): Promise<void> {
  const { result } = await typed(replica, notes).do.write({ id, text });
  await result;
}

const violations: string[] = [];
document.addEventListener("securitypolicyviolation", (event) => {
  violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});

const element = inspect({
  host,
  replica,
  machine: notes,
  restart: start,
});
element.addEventListener("replica", (event) => {
  replica = (event as CustomEvent<Replica>).detail;
});
document.body.append(element);

Object.assign(globalThis, {
  stage: {
    write,
    violations,
    count: () => replica.read({ name: "count", args: [] }),
  },
});
document.documentElement.dataset["sampan"] = "ready";
