/**
 * Format of the values in etcd: the puts of a log, and its metadata.
 *
 * Each value begins with a checksum, the format version and the id of the cluster,
 * so that a damaged or misplaced value is never read as records. `format.md` has the
 * layout.
 *
 * This module needs Deno.
 *
 * @module
 */

import { ByteReader, ByteWriter, crc32, encodeText } from "../bytes.ts";
import { batchesLength, putBatches } from "../log/block.ts";
import type { Epoch } from "../log/history.ts";
import type { Checkpoint, LogBatch, Records } from "../log/log.ts";

const VERSION = 1;
/** Format version of announcements. */
const ANNOUNCEMENT_VERSION = 2;
/** Position of the format version in a value. */
const VERSION_AT = 4;
/** Size of checksum, version and cluster id, in bytes. */
const HEAD = 4 + 1 + 8;
const SHA256_BYTES = 32;

/** Position of a put in its log, as the put itself says it. */
export interface PutHeader {
  /** Random number of the process that wrote it. */
  readonly writer: bigint;
  /** Number of the put among those of its writer. */
  readonly sequence: number;
  /** Index of the record before its first. */
  readonly follows: number;
  /** Last epoch at or before `follows`, if there is one. */
  readonly epoch: Epoch | undefined;
}

/** Put of a log, decoded. */
export interface LogPut extends PutHeader {
  /** Batches of records with consecutive indexes; their bytes are views of the value. */
  readonly batches: readonly LogBatch[];
  /** Index of its last record. */
  readonly last: number;
}

/** Position between two puts of a log. */
export interface Position {
  /** Version of the log's key, which is the number of puts before the position. */
  readonly version: number;
  /** Revision before which all those puts, and after which all others, were committed. */
  readonly revision: number;
  /** Index of the last record before the position. */
  readonly index: number;
  /** Last epoch at or before `index`, if there is one. */
  readonly epoch: Epoch | undefined;
}

/** Pointer to a snapshot in the store that the processes share. */
export interface EtcdSnapshotPointer {
  /** Index of the last entry in the snapshot. */
  readonly index: number;
  /** Size of its container, in bytes. */
  readonly size: number;
  /** SHA-256 of its container. */
  readonly sha256: Uint8Array;
  /** Id of the snapshot in its store. */
  readonly id: string;
}

/** Snapshots of a cluster that a live server holds, and where it serves them. */
export interface SnapshotCopies {
  /** Base URL of its HTTP. */
  readonly url: string;
  /** Snapshots that it has read back; their ids are names as `nameOf()` makes them. */
  readonly snapshots: readonly EtcdSnapshotPointer[];
}

/** Writes checksum, version and cluster id into the first bytes, which are reserved for them. */
function seal(
  bytes: Uint8Array<ArrayBuffer>,
  clusterID: bigint,
  version = VERSION,
): Uint8Array<ArrayBuffer> {
  const view = new DataView(bytes.buffer);
  view.setUint8(VERSION_AT, version);
  view.setBigUint64(5, clusterID, true);
  view.setUint32(0, crc32(bytes, 0, 4), true);
  return bytes;
}

/** Reader of the bytes after checksum, version and cluster id, which it verifies. */
function unseal(
  bytes: Uint8Array,
  clusterID: bigint,
  known = VERSION,
): ByteReader {
  const reader = new ByteReader(bytes);
  if (reader.u32() !== crc32(bytes, 0, 4)) {
    throw new RangeError(`Checksum of ${bytes.length} bytes is wrong`);
  }
  const version = reader.u8();
  if (version !== known) {
    throw new RangeError(
      `Format version is ${version}, and this code knows ${known}; update it`,
    );
  }
  const found = reader.u64();
  if (found !== clusterID) {
    throw new RangeError(`Value belongs to cluster ${found}`);
  }
  return reader;
}

function writeEpoch(writer: ByteWriter, epoch: Epoch | undefined): ByteWriter {
  return epoch === undefined
    ? writer.u8(0)
    : writer.u8(1).varint(epoch.index).u64(epoch.id);
}

function readEpoch(reader: ByteReader): Epoch | undefined {
  const flag = reader.u8();
  if (flag > 1) throw new RangeError(`Flag of the epoch is ${flag}`);
  return flag === 0 ? undefined : { index: reader.varint(), id: reader.u64() };
}

/** Encodes batches as one put. */
export function encodePut(
  clusterID: bigint,
  { writer, sequence, follows, epoch }: PutHeader,
  batches: readonly Records[],
): Uint8Array {
  const head = writeEpoch(
    new ByteWriter().u64(writer).varint(sequence).varint(follows),
    epoch,
  ).varint(batches.length).view();
  const value = new Uint8Array(HEAD + head.length + batchesLength(batches));
  value.set(head, HEAD);
  putBatches(value, HEAD + head.length, batches);
  return seal(value, clusterID);
}

/**
 * Decodes a put.
 *
 * @throws RangeError if it is damaged, of another version, or of another cluster
 */
export function decodePut(value: Uint8Array, clusterID: bigint): LogPut {
  const reader = unseal(value, clusterID);
  const writer = reader.u64();
  const sequence = reader.varint();
  const follows = reader.varint();
  const epoch = readEpoch(reader);
  const batches: LogBatch[] = [];
  let last = follows;
  for (let left = reader.varint(); left > 0; left--) {
    const ends: number[] = [];
    let end = 0;
    for (let records = reader.varint(); records > 0; records--) {
      ends.push(end += reader.varint());
    }
    if (ends.length === 0) throw new RangeError(`Batch after ${last} is empty`);
    const records = { bytes: reader.raw(end), ends };
    batches.push({ follows: last, first: last + 1, records });
    last += ends.length;
  }
  if (reader.remaining > 0) {
    throw new RangeError(
      `Put has ${reader.remaining} bytes beyond its records`,
    );
  }
  return { writer, sequence, follows, epoch, batches, last };
}

/** Encodes the metadata of a log: the position at which it starts. */
export function encodeMeta(clusterID: bigint, base: Position): Uint8Array {
  const { version, revision, index, epoch } = base;
  const writer = new ByteWriter().raw(new Uint8Array(HEAD))
    .varint(index).varint(version).varint(revision);
  return seal(writeEpoch(writer, epoch).finish(), clusterID);
}

/**
 * Decodes the metadata of a log.
 *
 * @throws RangeError if they are damaged, of another version, or of another cluster
 */
export function decodeMeta(value: Uint8Array, clusterID: bigint): Position {
  const reader = unseal(value, clusterID);
  const index = reader.varint();
  const version = reader.varint();
  const revision = reader.varint();
  return { index, version, revision, epoch: readEpoch(reader) };
}

/** Encodes the pointers of a cluster, newest first. */
export function encodePointers(
  clusterID: bigint,
  pointers: readonly EtcdSnapshotPointer[],
): Uint8Array {
  const writer = new ByteWriter().raw(new Uint8Array(HEAD));
  return seal(writePointers(writer, pointers).finish(), clusterID);
}

function writePointers(
  writer: ByteWriter,
  pointers: readonly EtcdSnapshotPointer[],
): ByteWriter {
  writer.varint(pointers.length);
  for (const { index, size, sha256, id } of pointers) {
    writer.varint(index).varint(size).raw(sha256)
      .bytes(encodeText(id, "Id of the snapshot"));
  }
  return writer;
}

/**
 * Decodes the pointers of a cluster.
 *
 * @throws RangeError if they are damaged, of another version, or of another cluster
 */
export function decodePointers(
  value: Uint8Array,
  clusterID: bigint,
): EtcdSnapshotPointer[] {
  return readPointers(unseal(value, clusterID));
}

function readPointers(reader: ByteReader): EtcdSnapshotPointer[] {
  const pointers: EtcdSnapshotPointer[] = [];
  for (let left = reader.varint(); left > 0; left--) {
    pointers.push({
      index: reader.varint(),
      size: reader.varint(),
      sha256: reader.raw(SHA256_BYTES),
      id: new TextDecoder().decode(reader.bytes()),
    });
  }
  return pointers;
}

/** Encodes the snapshots of a cluster that a server holds. */
export function encodeCopies(
  clusterID: bigint,
  { url, snapshots }: SnapshotCopies,
): Uint8Array {
  const writer = new ByteWriter().raw(new Uint8Array(HEAD))
    .bytes(encodeText(url, "URL of the server"));
  return seal(writePointers(writer, snapshots).finish(), clusterID);
}

/**
 * Decodes the snapshots of a cluster that a server holds.
 *
 * @throws RangeError if they are damaged, of another version, or of another cluster
 */
export function decodeCopies(
  value: Uint8Array,
  clusterID: bigint,
): SnapshotCopies {
  const reader = unseal(value, clusterID);
  const url = new TextDecoder().decode(reader.bytes());
  return { url, snapshots: readPointers(reader) };
}

/** Announcement of a live replica. */
export interface Announcement {
  /** Changes that its code knows, undefined while it starts. */
  readonly changes: readonly string[] | undefined;
  /** Name of its server; empty if it has none. */
  readonly server: string;
  /** URL of its server; empty if it announces none. */
  readonly url: string;
  /** Fingerprint of its code; empty if its server announces none. */
  readonly code: string;
}

/** Fields of an announcement that follow its changes. Unknown ones are left out. */
const FIELD = { server: 1, code: 2, url: 3 } as const;

/** Encodes the announcement of a replica. */
export function encodeAnnouncement(
  clusterID: bigint,
  { changes, server, code, url }: Announcement,
): Uint8Array {
  const writer = new ByteWriter().raw(new Uint8Array(HEAD))
    .u8(changes === undefined ? 0 : 1).varint(changes?.length ?? 0);
  for (const change of changes ?? []) {
    writer.bytes(encodeText(change, "Name of a change"));
  }
  writer.varint(FIELD.server).bytes(encodeText(server, "Name of a server"))
    .varint(FIELD.code).bytes(encodeText(code, "Fingerprint of the code"))
    .varint(FIELD.url).bytes(encodeText(url, "URL of a server"));
  return seal(writer.finish(), clusterID, ANNOUNCEMENT_VERSION);
}

/**
 * Decodes the announcement of a replica, of this version or of the one before it,
 * which had the changes only.
 *
 * @throws RangeError if it is damaged, of another version, or of another cluster
 */
export function decodeAnnouncement(
  value: Uint8Array,
  clusterID: bigint,
): Announcement {
  const isOld = value[VERSION_AT] === VERSION;
  const reader = unseal(
    value,
    clusterID,
    isOld ? VERSION : ANNOUNCEMENT_VERSION,
  );
  const text = (): string => new TextDecoder().decode(reader.bytes());
  const isStarted = reader.u8() === 1;
  const changes: string[] = [];
  if (isOld) {
    while (reader.remaining > 0) changes.push(text());
  } else {
    for (let left = reader.varint(); left > 0; left--) changes.push(text());
  }
  const fields = new Map<number, string>();
  while (reader.remaining > 0) fields.set(reader.varint(), text());
  return {
    changes: isStarted ? changes : undefined,
    server: fields.get(FIELD.server) ?? "",
    code: fields.get(FIELD.code) ?? "",
    url: fields.get(FIELD.url) ?? "",
  };
}

/** Encodes a checkpoint of a replica of the process `writer`. */
export function encodeCheckpoint(
  clusterID: bigint,
  writer: bigint,
  { nodeID, index, state, stateVersion, sessions }: Checkpoint,
): Uint8Array {
  const bytes = new ByteWriter().raw(new Uint8Array(HEAD))
    .u64(writer).u64(nodeID).varint(index).u64(sessions)
    .u8(state === undefined ? 0 : 1).u64(state ?? 0n)
    .u8(stateVersion === undefined ? 0 : 1).varint(stateVersion ?? 0)
    .finish();
  return seal(bytes, clusterID);
}

/**
 * Decodes a checkpoint.
 *
 * @throws RangeError if it is damaged, of another version, or of another cluster
 */
export function decodeCheckpoint(
  value: Uint8Array,
  clusterID: bigint,
): { readonly writer: bigint; readonly checkpoint: Checkpoint } {
  const reader = unseal(value, clusterID);
  const writer = reader.u64();
  const nodeID = reader.u64();
  const index = reader.varint();
  const sessions = reader.u64();
  const hasState = reader.u8() === 1;
  const state = reader.u64();
  const hasVersion = reader.u8() === 1;
  const stateVersion = reader.varint();
  return {
    writer,
    checkpoint: {
      nodeID,
      index,
      sessions,
      state: hasState ? state : undefined,
      stateVersion: hasVersion ? stateVersion : undefined,
    },
  };
}
