/**
 * Messages of etcd's API that this log uses.
 *
 * They are encoded here rather than by generated code: they are few, and their
 * numbers are a stable part of etcd 3.
 *
 * This module needs Deno.
 *
 * @module
 */

import { encodeMessage, type Fields, MessageReader } from "./protobuf.ts";

/** Paths of the methods. */
export const Method = {
  Range: "/etcdserverpb.KV/Range",
  Txn: "/etcdserverpb.KV/Txn",
  Compact: "/etcdserverpb.KV/Compact",
  Watch: "/etcdserverpb.Watch/Watch",
  LeaseGrant: "/etcdserverpb.Lease/LeaseGrant",
  LeaseRevoke: "/etcdserverpb.Lease/LeaseRevoke",
  /** Stream of which one request and one response are used. */
  LeaseKeepAlive: "/etcdserverpb.Lease/LeaseKeepAlive",
  Status: "/etcdserverpb.Maintenance/Status",
  Authenticate: "/etcdserverpb.Auth/Authenticate",
} as const;

/** Header of each response. */
export interface Header {
  /** Id of the etcd cluster. */
  readonly clusterID: bigint;
  /** Id of the member that answered. */
  readonly memberID: bigint;
  /** Revision of the store when the request was applied. */
  readonly revision: number;
}

/** Key with its value and revisions. */
export interface KeyValue {
  readonly key: Uint8Array;
  /** Revision at which the key was created. */
  readonly createRevision: number;
  /** Revision of the last put. */
  readonly modRevision: number;
  /** Number of puts since the key was created. */
  readonly version: number;
  readonly value: Uint8Array;
}

/** Response to a range request. */
export interface RangeResponse {
  readonly header: Header;
  readonly kvs: readonly KeyValue[];
  /** True if there are more keys than the limit. */
  readonly more: boolean;
}

/** Response to a transaction. */
export interface TxnResponse {
  readonly header: Header;
  /** True if all comparisons held. */
  readonly succeeded: boolean;
  /** Keys found by each range request of the branch that was run, in order. */
  readonly ranges: readonly (readonly KeyValue[])[];
}

/** Change of a key. */
export interface WatchEvent {
  /** True if the key was deleted. */
  readonly isDelete: boolean;
  readonly kv: KeyValue;
}

/** Message on a watch stream. */
export interface WatchResponse {
  readonly header: Header;
  readonly watchID: number;
  readonly created: boolean;
  readonly canceled: boolean;
  /** First revision that the store still has, if the watch was cancelled because it began before it. */
  readonly compactRevision: number;
  readonly reason: string;
  readonly events: readonly WatchEvent[];
}

/** State of a member. */
export interface StatusResponse {
  readonly header: Header;
  readonly version: string;
  /** Size of the database, in bytes. */
  readonly dbSize: number;
  /** Id of the leader that the member knows, 0 without one. */
  readonly leader: bigint;
}

/** Request of the keys in a range. */
export interface RangeRequest {
  readonly key: Uint8Array;
  /** End of the range, exclusive; only `key` without it. */
  readonly end?: Uint8Array | undefined;
  /** Revision at which the keys are read; the newest without it. */
  readonly revision?: number | undefined;
  /** Most keys to return. */
  readonly limit?: number | undefined;
  /** Omits the values. */
  readonly keysOnly?: boolean | undefined;
}

/** Comparison of a transaction. */
export interface Compare {
  readonly key: Uint8Array;
  /** Revision of the last put that the key must have, 0 if it must not exist. */
  readonly modRevision: number;
}

/** Operation of a transaction. */
export type Operation =
  | { readonly range: RangeRequest }
  | {
    readonly put: Uint8Array;
    readonly value: Uint8Array;
    /** Lease with whose end the key is removed. */
    readonly lease?: bigint | undefined;
  }
  | {
    readonly remove: Uint8Array;
    /** End of the range, exclusive; only the key without it. */
    readonly end?: Uint8Array | undefined;
  };

const NO_HEADER: Header = { clusterID: 0n, memberID: 0n, revision: 0 };

function rangeFields(request: RangeRequest): Fields {
  const { key, end, revision, limit, keysOnly } = request;
  return [
    [1, key],
    ...(end === undefined ? [] : [[2, end] as const]),
    ...(limit === undefined ? [] : [[3, limit] as const]),
    ...(revision === undefined ? [] : [[4, revision] as const]),
    ...(keysOnly ? [[8, true] as const] : []),
  ];
}

function operationFields(operation: Operation): Fields {
  if ("range" in operation) return [[1, rangeFields(operation.range)]];
  if ("put" in operation) {
    const { put, value, lease } = operation;
    return [[2, [
      [1, put],
      [2, value],
      ...(lease === undefined ? [] : [[3, lease] as const]),
    ]]];
  }
  const { remove, end } = operation;
  return [[3, [
    [1, remove],
    ...(end === undefined ? [] : [[2, end] as const]),
  ]]];
}

/** Encodes a range request. */
export function encodeRange(request: RangeRequest): Uint8Array {
  return encodeMessage(rangeFields(request));
}

/** Encodes a transaction. */
export function encodeTxn(
  compare: readonly Compare[],
  success: readonly Operation[],
  failure: readonly Operation[] = [],
): Uint8Array {
  const MOD = 2;
  return encodeMessage([
    ...compare.map(({ key, modRevision }) =>
      [1, [[2, MOD], [3, key], [6, modRevision]]] as const
    ),
    ...success.map((one) => [2, operationFields(one)] as const),
    ...failure.map((one) => [3, operationFields(one)] as const),
  ]);
}

/** Encodes a request to compact the history before a revision. */
export function encodeCompact(revision: number): Uint8Array {
  return encodeMessage([[1, revision]]);
}

/** Encodes a request to watch a key, or the keys before `end`, from a revision on. */
export function encodeWatch(
  watchID: number,
  { key, end }: { readonly key: Uint8Array; readonly end?: Uint8Array },
  revision: number,
): Uint8Array {
  return encodeMessage([[1, [
    [1, key],
    ...(end === undefined ? [] : [[2, end] as const]),
    [3, revision],
    [7, watchID],
  ]]]);
}

/** Encodes a request of a lease. */
export function encodeLeaseGrant(seconds: number): Uint8Array {
  return encodeMessage([[1, seconds]]);
}

/** Encodes a request to keep, or to revoke, a lease. */
export function encodeKeepAlive(id: bigint): Uint8Array {
  return encodeMessage([[1, id]]);
}

/** Encodes a request to end a watch. */
export function encodeUnwatch(watchID: number): Uint8Array {
  return encodeMessage([[2, [[1, watchID]]]]);
}

/** Encodes a request of a token for a user. */
export function encodeAuthenticate(name: string, password: string): Uint8Array {
  return encodeMessage([[1, name], [2, password]]);
}

function decodeHeader(bytes: Uint8Array): Header {
  const reader = new MessageReader(bytes);
  let clusterID = 0n;
  let memberID = 0n;
  let revision = 0;
  while (reader.next()) {
    if (reader.field === 1) clusterID = reader.u64();
    else if (reader.field === 2) memberID = reader.u64();
    else if (reader.field === 3) revision = reader.int();
  }
  return { clusterID, memberID, revision };
}

function decodeKeyValue(bytes: Uint8Array): KeyValue {
  const reader = new MessageReader(bytes);
  const none: Uint8Array = new Uint8Array(0);
  const kv = {
    key: none,
    createRevision: 0,
    modRevision: 0,
    version: 0,
    value: none,
  };
  while (reader.next()) {
    if (reader.field === 1) kv.key = reader.bytes();
    else if (reader.field === 2) kv.createRevision = reader.int();
    else if (reader.field === 3) kv.modRevision = reader.int();
    else if (reader.field === 4) kv.version = reader.int();
    else if (reader.field === 5) kv.value = reader.bytes();
  }
  return kv;
}

/** Header of any response. */
export function headerOf(bytes: Uint8Array): Header {
  const reader = new MessageReader(bytes);
  while (reader.next()) {
    if (reader.field === 1) return decodeHeader(reader.bytes());
  }
  return NO_HEADER;
}

/** Decodes the response to a range request. */
export function decodeRange(bytes: Uint8Array): RangeResponse {
  const reader = new MessageReader(bytes);
  let header = NO_HEADER;
  let more = false;
  const kvs: KeyValue[] = [];
  while (reader.next()) {
    if (reader.field === 1) header = decodeHeader(reader.bytes());
    else if (reader.field === 2) kvs.push(decodeKeyValue(reader.bytes()));
    else if (reader.field === 3) more = reader.bool();
  }
  return { header, kvs, more };
}

/** Decodes the response to a transaction. */
export function decodeTxn(bytes: Uint8Array): TxnResponse {
  const reader = new MessageReader(bytes);
  let header = NO_HEADER;
  let succeeded = false;
  const ranges: (readonly KeyValue[])[] = [];
  while (reader.next()) {
    if (reader.field === 1) header = decodeHeader(reader.bytes());
    else if (reader.field === 2) succeeded = reader.bool();
    else if (reader.field === 3) {
      const operation = new MessageReader(reader.bytes());
      while (operation.next()) {
        if (operation.field === 1) {
          ranges.push(decodeRange(operation.bytes()).kvs);
        }
      }
    }
  }
  return { header, succeeded, ranges };
}

function decodeEvent(bytes: Uint8Array): WatchEvent {
  const reader = new MessageReader(bytes);
  let isDelete = false;
  let kv = decodeKeyValue(bytes.subarray(0, 0));
  while (reader.next()) {
    if (reader.field === 1) isDelete = reader.int() === 1;
    else if (reader.field === 2) kv = decodeKeyValue(reader.bytes());
  }
  return { isDelete, kv };
}

/** Decodes a message of a watch stream. */
export function decodeWatch(bytes: Uint8Array): WatchResponse {
  const reader = new MessageReader(bytes);
  let header = NO_HEADER;
  let watchID = 0;
  let created = false;
  let canceled = false;
  let compactRevision = 0;
  let reason = "";
  const events: WatchEvent[] = [];
  while (reader.next()) {
    switch (reader.field) {
      case 1:
        header = decodeHeader(reader.bytes());
        break;
      case 2:
        watchID = reader.int();
        break;
      case 3:
        created = reader.bool();
        break;
      case 4:
        canceled = reader.bool();
        break;
      case 5:
        compactRevision = reader.int();
        break;
      case 6:
        reason = reader.text();
        break;
      case 11:
        events.push(decodeEvent(reader.bytes()));
    }
  }
  return {
    header,
    watchID,
    created,
    canceled,
    compactRevision,
    reason,
    events,
  };
}

/** Decodes the state of a member. */
export function decodeStatus(bytes: Uint8Array): StatusResponse {
  const reader = new MessageReader(bytes);
  let header = NO_HEADER;
  let version = "";
  let dbSize = 0;
  let leader = 0n;
  while (reader.next()) {
    if (reader.field === 1) header = decodeHeader(reader.bytes());
    else if (reader.field === 2) version = reader.text();
    else if (reader.field === 3) dbSize = reader.int();
    else if (reader.field === 4) leader = reader.u64();
  }
  return { header, version, dbSize, leader };
}

/** Decodes the token of a user. */
export function decodeAuthenticate(bytes: Uint8Array): string {
  const reader = new MessageReader(bytes);
  let token = "";
  while (reader.next()) if (reader.field === 2) token = reader.text();
  return token;
}

/** Decodes a lease: its id, and the seconds until it ends, 0 if it has ended. */
export function decodeLease(
  bytes: Uint8Array,
): { readonly id: bigint; readonly seconds: number } {
  const reader = new MessageReader(bytes);
  let id = 0n;
  let seconds = 0;
  while (reader.next()) {
    if (reader.field === 2) id = reader.u64();
    else if (reader.field === 3) seconds = reader.int();
  }
  return { id, seconds };
}
