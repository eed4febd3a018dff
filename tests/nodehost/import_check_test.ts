/** Snapshots with right checksums from which no replica can start. */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { toBytes } from "@std/streams";
import {
  ErrClusterAlreadyExist,
  ErrSnapshotCorrupted,
  ErrSnapshotMismatch,
  kv,
  KVStateMachine,
  MemoryLogDB,
  NodeHost,
} from "../../mod.ts";
import { openSnapshot, type SnapshotHeader } from "../../src/snapshot/mod.ts";
import { ByteWriter, crc32 } from "../../src/bytes.ts";
import { IMPORT_INDEX_MAX } from "../../src/limits.ts";
import { serve } from "../../src/sync/server/mod.ts";
import { makeContainer, source } from "../snapshot/container_fixtures.ts";

const CLUSTER = { clusterID: 1n, nodeID: 1n };

/** A good snapshot, in its parts. */
interface Parts {
  readonly header: SnapshotHeader;
  readonly sessions: Uint8Array;
  readonly payload: Uint8Array;
}

async function goodParts(): Promise<Parts> {
  await using host = new NodeHost();
  const replica = await host.startCluster(() => new KVStateMachine(), CLUSTER);
  await replica.propose(kv.put("boat", "sampan"));
  const reader = await openSnapshot(replica.exportSnapshot());
  const payload = await toBytes(reader.payload);
  await reader.finish();
  const { header, sessions } = reader;
  return { header, sessions, payload };
}

async function containerOf(parts: Parts): Promise<Uint8Array<ArrayBuffer>> {
  return (await makeContainer(parts)).bytes;
}

/** Everything that may be wrong with a snapshot whose checksums are right. */
function wrongOnes(good: Parts): Record<string, Parts> {
  const { header, sessions } = good;
  const headed = (part: Partial<SnapshotHeader>): Parts => ({
    ...good,
    header: { ...header, ...part },
  });
  const epoch = header.epoch!;
  const ahead = new ByteWriter().varint(4096).varint(1)
    .varint(header.index + 1).u64(1n).u64(1n).bytes(new Uint8Array([1]))
    .varint(0).varint(1).finish();
  return {
    "no sessions": { ...good, sessions: new Uint8Array() },
    "no sessions and no state": {
      ...good,
      sessions: new Uint8Array(),
      payload: new Uint8Array(),
    },
    "sessions that are none": { ...good, sessions: sessions.slice(0, -1) },
    "bytes behind the sessions": {
      ...good,
      sessions: new Uint8Array([...sessions, 1, 2, 3]),
    },
    "a session from behind its end": { ...good, sessions: ahead },
    "another cluster's": headed({ clusterID: 2n }),
    "no state but a replica's own record": headed({ kind: "metadata" }),
    "the largest index": headed({ index: Number.MAX_SAFE_INTEGER }),
    "an index without room behind it": headed({ index: IMPORT_INDEX_MAX + 1 }),
    "an epoch from behind its end": headed({
      epoch: { ...epoch, index: header.index + 1 },
    }),
    "an epoch at no index": headed({ epoch: { ...epoch, index: 0 } }),
  };
}

Deno.test("case A14: a snapshot from which no replica can start is refused, and a good one is accepted after it [H9, H11]", async () => {
  const good = await goodParts();
  const bytes = await containerOf(good);
  const wrong = Object.entries(wrongOnes(good));
  await using host = new NodeHost();
  await using server = serve(host, {
    sigterm: false,
    authenticate: () => ({ id: "operator" }),
    authorize: () => true,
  });
  const url = `${server.httpURL}clusters/1/snapshot`;
  const put = async (body: Uint8Array<ArrayBuffer>): Promise<number> => {
    const response = await fetch(url, { method: "PUT", body });
    await response.body?.cancel();
    return response.status;
  };
  for (const [what, parts] of wrong) {
    const container = await containerOf(parts);
    assertEquals(await put(container), 422, what);
    await assertRejects(
      () => host.importSnapshot(1n, source(container)),
      ErrSnapshotMismatch,
      undefined,
      what,
    );
    assertEquals(await host.snapshots.list(1n), [], what);
  }
  assertEquals(await put(bytes), 201);
  const replica = await host.startCluster(() => new KVStateMachine(), CLUSTER);
  assertEquals(
    await replica.read(kv.get("boat")),
    new TextEncoder().encode("sampan"),
  );
});

Deno.test("case A14: a snapshot with any byte lost or changed is refused, and nothing of it is stored [H8, H9]", async () => {
  const good = await goodParts();
  await using host = new NodeHost();
  for (const compression of ["none", "gzip", "deflate-raw"] as const) {
    const bytes = await containerOf({
      ...good,
      header: { ...good.header, compression },
    });
    for (let at = 0; at < bytes.length; at += 7) {
      const changed = bytes.slice();
      changed[at]! ^= 1;
      await assertRejects(() => host.importSnapshot(1n, source(changed)));
      await assertRejects(
        () => host.importSnapshot(1n, source(bytes.slice(0, at))),
      );
    }
    assertEquals(await host.snapshots.list(1n), []);
  }
});

Deno.test("case A14: compressed content that does not decompress is refused [H8, H9]", async () => {
  const good = await goodParts();
  await using host = new NodeHost();
  // Written uncompressed with a header that says compressed: its checksums are right.
  const plain = await containerOf(good);
  const { header } = good;
  const said = await containerOf({
    ...good,
    header: { ...header, compression: "gzip" },
  });
  const forged = forge(plain, said);
  await assertRejects(
    () => host.importSnapshot(1n, source(forged)),
    ErrSnapshotCorrupted,
  );
  assertEquals(await host.snapshots.list(1n), []);
  await host.importSnapshot(1n, source(said));
});

/** The blocks of a container behind the header of another one, with the checksums they have there. */
function forge(
  plain: Uint8Array,
  said: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const sizeAt = (bytes: Uint8Array, at: number): number =>
    8 + (bytes[at + 4]! | bytes[at + 5]! << 8 | bytes[at + 6]! << 16);
  const forged = plain.slice();
  forged.set(said.subarray(0, 16 + sizeAt(said, 16)));
  const view = new DataView(forged.buffer);
  let crc = 0;
  for (let at = 16; at < forged.length;) {
    const end = at + sizeAt(forged, at);
    crc = crc32(forged.subarray(at + 4, end), crc);
    view.setUint32(at, crc, true);
    at = end;
  }
  return forged;
}

Deno.test("case A14: only an import from which the start failed can be replaced by another one [H9]", async () => {
  const good = await goodParts();
  const bytes = await containerOf(good);
  // The session table is right; the payload is another application's.
  const foreign = await containerOf({
    ...good,
    header: { ...good.header, index: good.header.index + 5 },
    payload: new TextEncoder().encode("another application's state"),
  });
  await using logDB = new MemoryLogDB();
  await using host = new NodeHost({ logDB });
  await host.importSnapshot(1n, source(foreign));
  await assertRejects(
    () => host.importSnapshot(1n, source(bytes)),
    ErrClusterAlreadyExist,
  );
  await assertRejects(() =>
    host.startCluster(() => new KVStateMachine(), CLUSTER)
  );
  await host.importSnapshot(1n, source(bytes));
  const replica = await host.startCluster(() => new KVStateMachine(), CLUSTER);
  assertEquals(
    await replica.read(kv.get("boat")),
    new TextEncoder().encode("sampan"),
  );
  assert(replica.appliedIndex >= good.header.index);
  await host.stopCluster(1n);
  await assertRejects(
    () => host.importSnapshot(1n, source(bytes)),
    ErrClusterAlreadyExist,
  );
});
