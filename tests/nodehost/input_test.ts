import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import {
  ErrClusterNotFound,
  MemoryLogDB,
  MemorySnapshotStore,
  NodeHost,
  type ReplicaConfig,
} from "../../mod.ts";
import { SESSIONS_MAX } from "../../src/limits.ts";
import { bytes } from "../support/bytes.ts";
import { checked, rejection } from "../support/environment.ts";
import { FaultySnapshotStore } from "../support/faults.ts";
import { KINDS, proposeAll, start, startOn } from "../support/clusters.ts";
import { streamOf } from "../support/streams.ts";

Deno.test(
  "H11 ids and numbers of another type or out of range are a TypeError or RangeError that names them, and nothing is started",
  checked(async () => {
    await using host = new NodeHost();
    const wrong: Partial<Record<keyof ReplicaConfig, unknown>>[] = [
      { clusterID: -1n },
      { clusterID: 2n ** 64n },
      { clusterID: 1 },
      { nodeID: 0n },
      { nodeID: 2n ** 64n },
      { nodeID: undefined },
      { trustedNode: 0n },
      { snapshotEntries: -1 },
      { snapshotEntries: 0.5 },
      { snapshotEntries: NaN },
      { compactionOverhead: Infinity },
      { fullSnapshotInterval: -1 },
      { hashEntries: 2 ** 53 },
      { sessionsMax: 0 },
      { sessionsMax: SESSIONS_MAX + 1 },
      { pendingProposalsMax: 0 },
      { pendingBytesMax: 0 },
    ];
    for (const config of wrong) {
      for (const kind of KINDS) {
        const error = await rejection(
          startOn(host, { kind, config: config as Partial<ReplicaConfig> }),
        );
        const [value] = Object.values(config);
        const isOut = value !== 1 && value !== undefined;
        assertInstanceOf(error, isOut ? RangeError : TypeError);
        const [name] = Object.keys(config);
        assertEquals(error.message.startsWith(`${name} is `), true);
      }
    }
    assertInstanceOf(
      await rejection(host.importSnapshot(-1n, streamOf(bytes("")))),
      RangeError,
    );
    assertInstanceOf(
      await rejection(host.stopCluster(1n)),
      ErrClusterNotFound,
    );
    await startOn(host, { config: { clusterID: 0n, nodeID: 2n ** 64n - 1n } });
  }),
);

Deno.test(
  "H11 changing a configuration after the call has no effect",
  checked(async () => {
    await using logDB = new MemoryLogDB();
    await using host = new NodeHost({ logDB });
    const config: ReplicaConfig = {
      clusterID: 1n,
      nodeID: 1n,
      pendingProposalsMax: 2,
    };
    const starting = host.startCluster(() => ({
      update: () => ({ value: 0n }),
      lookup: () => null,
      saveSnapshot: () => {},
      recoverFromSnapshot: () => {},
      close: () => {},
    }), config);
    config.clusterID = 2n;
    config.pendingProposalsMax = 1;
    const replica = await starting;
    assertEquals(replica.clusterID, 1n);
    await Promise.all([
      replica.propose(bytes("a")),
      replica.propose(bytes("b")),
    ]);
  }),
);

Deno.test(
  "H10 closing logs and stores is idempotent, and works by await using",
  checked(async () => {
    for (
      const make of [
        () => new MemoryLogDB(),
        () => new MemorySnapshotStore(),
        () => new FaultySnapshotStore(),
      ]
    ) {
      await using part = make();
      await part.close();
      await part.close();
    }
    await using host = new NodeHost();
    await proposeAll(await startOn(host, {}), "a");
  }),
);

Deno.test(
  "H11 clusters on one host and log are independent",
  checked(async () => {
    const { host, replica } = await start();
    const others = [];
    for (let clusterID = 2n; clusterID < 20n; clusterID++) {
      const kind = KINDS[Number(clusterID) % KINDS.length]!;
      others.push(await startOn(host, { kind, config: { clusterID } }));
    }
    await Promise.all(others.map((other, i) => proposeAll(other, `${i}`)));
    await proposeAll(replica, "a");
    for (const [i, other] of others.entries()) {
      assertEquals(await other.read(null), [`${i}`]);
    }
    await host.stop();
  }),
);

Deno.test(
  "T5 every error class is exported under the name its errors carry",
  checked(async () => {
    const front: Record<string, unknown> = await import("../../mod.ts");
    const classes = Object.entries(front).filter(([name]) =>
      name.startsWith("Err")
    );
    assert(classes.length > 20);
    for (const [name, value] of classes) {
      const ErrorClass = value as { errorName: string } & typeof Error;
      assertEquals(ErrorClass.errorName, name);
      // A class of another copy of the code: only the name is the same.
      const Copy = class extends Error {
        static readonly errorName: string = name;
      };
      assert(new Copy() instanceof ErrorClass, name);
    }
  }),
);
