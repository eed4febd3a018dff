/**
 * Snapshots of typed machines as bytes.
 *
 * @module
 */

import type { TypedMachine } from "../../src/typed/mod.ts";

/** Returns the snapshot of a machine. */
export async function snapshotOf(machine: TypedMachine): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  await machine.saveSnapshot(
    machine.prepareSnapshot(),
    new WritableStream({ write: (chunk) => void chunks.push(chunk) }),
    { addFile(): void {} },
    new AbortController().signal,
  );
  return new Uint8Array(await new Blob(chunks as BlobPart[]).arrayBuffer());
}

/** Recovers a machine from a snapshot, and returns it. */
export async function recover(
  machine: TypedMachine,
  bytes: Uint8Array,
): Promise<TypedMachine> {
  await machine.recoverFromSnapshot(
    new Blob([bytes as BlobPart]).stream(),
    [],
    new AbortController().signal,
  );
  return machine;
}
