/**
 * Hosts of the tests of typed machines.
 *
 * @module
 */

import { MemoryOutbox, NodeHost, type Replica } from "../../mod.ts";
import {
  type App,
  type MachineDefinition,
  typed,
  type TypedOptions,
  type TypedQuery,
} from "../../src/typed/mod.ts";

/** Host with one replica of a typed machine. */
export interface StartedMachine<I, R, Q, S> extends AsyncDisposable {
  readonly host: NodeHost;
  readonly replica: Replica<TypedQuery, unknown>;
  readonly app: App<I, R, Q, S>;
}

/** Starts a host with an outbox in memory and one replica of a typed machine. */
export async function startTyped<S, I, R, Q>(
  definition: MachineDefinition<S, I, R, Q>,
  options: TypedOptions = {},
): Promise<StartedMachine<I, R, Q, S>> {
  const host = new NodeHost({ outbox: new MemoryOutbox() });
  const replica = await host.startConcurrentCluster(definition.create, {
    clusterID: 1n,
    nodeID: 1n,
  });
  const app = typed(replica, definition, options);
  return {
    host,
    replica,
    app,
    [Symbol.asyncDispose]: () => host.stop(),
  };
}
