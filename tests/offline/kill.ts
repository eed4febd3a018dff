/**
 * A process that submits without a connection, says what is durable, and is
 * killed.
 *
 * @module
 */

import { NodeHost } from "../../mod.ts";
import { SqliteOutbox } from "../../src/sqlite/mod.ts";
import { bytes } from "../support/bytes.ts";
import { FaultyLogDB } from "../support/faults.ts";
import { RegularJournal } from "../machines/journal.ts";

const [path, start] = Deno.args;
const logDB = new FaultyLogDB();
logDB.faults.append = () => "fail";
const host = new NodeHost({ logDB, outbox: new SqliteOutbox(path!) });
const replica = await host.startCluster(
  (c, n) => new RegularJournal({}, c, n),
  { clusterID: 1n, nodeID: 1n },
);
for (let i = Number(start);; i++) {
  replica.submit(bytes(`${i}`)).then(() =>
    Deno.stdout.writeSync(bytes(`${i}\n`))
  );
  // Some share a write, some do not.
  if (i % 3 === 0) await host.env.turn();
}
