/**
 * Checks of a snapshot before it is imported.
 *
 * A container with right checksums may still be one from which no replica can start.
 * An import cannot be undone, so everything that can be checked without a state
 * machine is checked before anything is stored.
 *
 * This module is browser compatible.
 *
 * @module
 */

import { ByteReader } from "../bytes.ts";
import { messageOf } from "../describe.ts";
import { IMPORT_INDEX_MAX } from "../limits.ts";
import { SessionTable } from "../rsm/session_table.ts";
import { decodeSkips } from "../rsm/skipped_entries.ts";
import { openSnapshot } from "../snapshot/reader.ts";
import { ErrSnapshotCorrupted } from "../snapshot/errors.ts";
import type { SnapshotHeader } from "../snapshot/store.ts";
import { SampanError } from "../statemachine/errors.ts";
import { ErrSnapshotMismatch } from "./errors.ts";

/**
 * Checks the header of a snapshot.
 *
 * @throws ErrSnapshotMismatch if it is not a full snapshot of the cluster, or no log could follow it
 */
export function checkImport(clusterID: bigint, header: SnapshotHeader): void {
  const { index, epoch } = header;
  if (header.clusterID !== clusterID) {
    throw new ErrSnapshotMismatch(
      `Snapshot belongs to cluster ${header.clusterID}, not to cluster ${clusterID}`,
    );
  }
  if (header.kind !== "full") {
    throw new ErrSnapshotMismatch(
      "Snapshot has metadata only and no state: make a full one with exportSnapshot()",
    );
  }
  if (index > IMPORT_INDEX_MAX) {
    throw new ErrSnapshotMismatch(
      `Snapshot ends at entry ${index}, over the limit of ${IMPORT_INDEX_MAX}: no log could follow it`,
    );
  }
  if (epoch !== undefined && (epoch.index > index || epoch.index === 0)) {
    throw new ErrSnapshotMismatch(
      `Snapshot ends at entry ${index}, and names an epoch that begins later, at ${epoch.index}`,
    );
  }
}

/**
 * Reads a whole container without storing it: its session table must be valid at
 * its index, and compressed data must decompress.
 *
 * @throws ErrSnapshotMismatch if the session table is missing or malformed
 * @throws ErrSnapshotCorrupted if the container is damaged
 */
export async function inspectSnapshot(
  source: ReadableStream<Uint8Array>,
): Promise<void> {
  const reader = await openSnapshot(source);
  try {
    checkSessions(reader.header.index, reader.sessions);
    await drain(reader.payload);
    await reader.files(async (_id, _metadata, content) => {
      await drain(content);
    });
  } catch (error) {
    await reader.cancel().catch(() => {});
    if (error instanceof SampanError || reader.sourceError !== undefined) {
      throw error;
    }
    throw new ErrSnapshotCorrupted(
      `Snapshot cannot be decompressed: ${messageOf(error)}`,
      0,
      {
        cause: error,
      },
    );
  }
}

function checkSessions(index: number, bytes: Uint8Array): void {
  const table = new SessionTable<never>();
  try {
    const reader = new ByteReader(bytes);
    table.decodeFrom(reader);
    decodeSkips(reader);
    const { newest } = table;
    if (newest > index) {
      throw new RangeError(
        `Session table of the snapshot has session ${newest}, opened after the index of the snapshot, ${index}`,
      );
    }
  } catch (cause) {
    throw new ErrSnapshotMismatch(
      bytes.length === 0
        ? "Snapshot has no session table"
        : `Session table of the snapshot at index ${index} is malformed`,
      { cause },
    );
  }
}

async function drain(content: ReadableStream<Uint8Array>): Promise<void> {
  const reader = content.getReader();
  while (!(await reader.read()).done);
}
