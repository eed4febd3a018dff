import {
  assertEquals,
  assertInstanceOf,
  assertMatch,
  assertStrictEquals,
} from "@std/assert";
import {
  ErrClusterAlreadyExist,
  ErrClusterNotFound,
  ErrUpdateFailed,
  type NodeHost,
} from "../../mod.ts";
import { bytes } from "../support/bytes.ts";
import { checked, rejection } from "../support/environment.ts";
import { hostOf, KINDS, proposeAll, startOn } from "../support/clusters.ts";
import type { MachineFaults } from "../machines/journal.ts";
import { newLogDB, test } from "../support/log_tests.ts";

/** Faults of a machine whose `update()` throws at one command, as long as `isBroken`. */
function breakable(at: string): { faults: MachineFaults; isBroken: boolean } {
  const broken = {
    isBroken: true,
    faults: {
      apply(command: string): void {
        if (broken.isBroken && command === at) throw new TypeError(`No ${at}`);
      },
    },
  };
  return broken;
}

function failureOf(host: NodeHost, clusterID = 1n): ErrUpdateFailed {
  const status = host.clusterStatus(clusterID)!;
  assertEquals(status.state, "failed");
  assertInstanceOf(status.error, ErrUpdateFailed);
  return status.error;
}

test(
  "case A10: the host reports which cluster has failed, at which entry and why, and the others continue [R5, H17]",
  checked(async () => {
    await using logDB = newLogDB();
    const { faults } = breakable("poison");
    const host = hostOf({ logDB });
    const replica = await startOn(host, { faults });
    const other = await startOn(host, { config: { clusterID: 2n } });
    await proposeAll(replica, "a", "b");
    assertEquals(host.clusterStatus(1n), {
      clusterID: 1n,
      nodeID: 1n,
      type: 1,
      state: "running",
      appliedIndex: replica.appliedIndex,
    });
    const before = replica.appliedIndex;
    const thrown = await rejection(replica.propose(bytes("poison")));
    const failure = failureOf(host);
    assertEquals([failure.index, failure.upTo], [before + 1, before + 1]);
    assertEquals([failure.clusterID, failure.nodeID], [1n, 1n]);
    assertStrictEquals(failure.cause, thrown);
    assertMatch(failure.message, /threw at entry 4 of cluster 1: No poison/);
    assertMatch(failure.message, /skipEntry\(1n, 4, reason\)/);
    assertStrictEquals(replica.failure, failure);
    await proposeAll(other, "fine");
    assertEquals(
      host.clusters().map(({ clusterID, state }) => [clusterID, state]),
      [[1n, "failed"], [2n, "running"]],
    );
    await host.stop();
  }),
);

test(
  "case A10: a cluster whose start fails is listed with the entry, and starts once its machine is fixed [R5, H17]",
  checked(async () => {
    for (const kind of KINDS) {
      await using logDB = newLogDB();
      const broken = breakable("poison");
      const first = hostOf({ logDB });
      const replica = await startOn(first, { kind });
      await proposeAll(replica, "a");
      await replica.propose(bytes("poison"));
      const index = replica.appliedIndex;
      await first.stop();
      const host = hostOf({ logDB });
      const error = await rejection(
        startOn(host, { kind, faults: broken.faults }),
      );
      assertStrictEquals(failureOf(host), error as ErrUpdateFailed);
      if (kind === "regular") assertEquals(failureOf(host).index, index);
      await startOn(host, { config: { clusterID: 2n } });
      assertInstanceOf(
        await rejection(host.restartCluster(2n)),
        ErrClusterAlreadyExist,
      );
      assertInstanceOf(
        await rejection(host.restartCluster(1n)),
        ErrUpdateFailed,
      );
      broken.isBroken = false;
      const again = await host.restartCluster(1n);
      assertEquals(again.appliedIndex, index);
      assertEquals(host.clusterStatus(1n)!.state, "running");
      await host.stopCluster(1n);
      assertEquals(host.clusterStatus(1n)!.state, "stopped");
      await host.stop();
    }
  }),
);

test(
  "case A10: stopping a cluster whose start has failed removes it from the list of failures [H17]",
  checked(async () => {
    const host = hostOf({});
    const error = new Error("Factory failed (test)");
    const factory = (): never => {
      throw error;
    };
    const config = { clusterID: 1n, nodeID: 1n };
    assertStrictEquals(
      await rejection(host.startCluster(factory, config)),
      error,
    );
    assertStrictEquals(host.clusterStatus(1n)!.error, error);
    await host.stopCluster(1n);
    assertEquals(host.clusters().map(({ state }) => state), ["stopped"]);
    assertInstanceOf(
      await rejection(host.stopCluster(1n)),
      ErrClusterNotFound,
    );
    assertInstanceOf(
      await rejection(host.restartCluster(2n)),
      ErrClusterNotFound,
    );
    await host.stop();
  }),
);
