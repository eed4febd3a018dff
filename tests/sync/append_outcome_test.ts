import { assert, assertEquals } from "@std/assert";
import { ErrUnknownOutcome, MemoryLogDB, NodeHost } from "../../mod.ts";
import { ErrOrderLost } from "../../src/log/order_errors.ts";
import { ErrRemote, RemoteLogDB } from "../../src/sync/client/mod.ts";
import { serve } from "../../src/sync/server/mod.ts";
import type { Log, LogDB } from "../../src/log/log.ts";
import { Stock } from "../etcd/stock.ts";

/** Logs whose appends by the server fail, each part of an append for a reason of its own. */
class PartedLogDB extends MemoryLogDB implements LogDB {
  readonly #reasons: Error[];

  constructor(reasons: readonly Error[]) {
    super();
    this.#reasons = [...reasons];
  }

  override open(clusterID: bigint, nodeID: bigint): Log {
    const log = super.open(clusterID, nodeID);
    if (nodeID === 1n) return log;
    // The server's.
    log.append = async (): Promise<number> => {
      const reason = this.#reasons.shift()!;
      await new Promise((resolve) =>
        setTimeout(resolve, this.#reasons.length === 0 ? 100 : 10)
      );
      throw reason;
    };
    return log;
  }
}

const lost = new ErrOrderLost("server 2 has appended");
const unknown = new ErrUnknownOutcome("no answer within 10 ms");

for (
  const [first, second, expected] of [
    [lost, unknown, ErrUnknownOutcome],
    [lost, lost, ErrRemote],
  ] as const
) {
  Deno.test(`H5 commands of one append whose parts fail one after the other, ${first.name} and ${second.name}, end with ${expected.errorName}`, async () => {
    const logDB = new PartedLogDB([first, second]);
    const host = new NodeHost({ logDB });
    await host.startCluster(() => new Stock(false), {
      clusterID: 1n,
      nodeID: 1n,
    });
    // It takes a moment, so that each command is a part.
    const server = serve(host, {
      validate: (): Promise<undefined> =>
        new Promise<undefined>((resolve) => setTimeout(resolve, 5)),
    });
    const remote = new RemoteLogDB([server.url]);
    const page = new NodeHost({ logDB: remote });
    const replica = await page.startCluster(() => new Stock(false), {
      clusterID: 1n,
      nodeID: 2n,
    });
    const outcomes = await Promise.allSettled([
      replica.propose(new Uint8Array([1])),
      replica.propose(new Uint8Array([2])),
    ]);
    for (const one of outcomes) {
      assert(one.status === "rejected");
      assert(one.reason instanceof expected, `${one.reason}`);
    }
    assertEquals(outcomes.length, 2);
    await page.stop();
    await remote.close();
    await server.shutdown();
    await host.stop();
    await logDB.close();
  });
}
