import { assert, assertEquals, assertThrows } from "@std/assert";
import { ByteWriter } from "../../src/bytes.ts";
import {
  COMMAND_BYTES_MAX,
  REFUSAL_BYTES_MAX,
  SESSION_OWNER_BYTES_MAX,
  SESSIONS_MAX,
} from "../../src/limits.ts";
import { ErrLogCorrupted, packRecords } from "../../src/log/mod.ts";
import { epochRecord, RecordKind } from "../../src/log/records.ts";
import {
  claimRecord,
  configRecord,
  proposalHeadLength,
  putProposalHead,
  putSessionHead,
  RecordCursor,
  registerRecord,
  sessionHeadLength,
  skipEntryRecord,
  unregisterRecord,
} from "../../src/rsm/mod.ts";
import {
  makeStateMachine,
  proposal,
  sessionProposal,
  skip,
} from "../support/log_records.ts";
import { seeded } from "../support/random.ts";
import { Regular } from "../machines/hash_chain.ts";

const U64_MAX = (1n << 64n) - 1n;
const NUMBERS = [
  0,
  1,
  127,
  128,
  16_383,
  16_384,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32 - 1,
  2 ** 32,
  2 ** 35,
  2 ** 49 + 5,
  Number.MAX_SAFE_INTEGER,
];

/** A cursor that has read the head of a record which lies within other bytes. */
function read(record: Uint8Array): RecordCursor {
  const around = new Uint8Array(record.length + 40).fill(0x93);
  around.set(record, 17);
  const cursor = new RecordCursor();
  cursor.read(around, 17, 17 + record.length);
  assert(cursor.start >= 17 && cursor.start <= 17 + record.length);
  return cursor;
}

/** Decodes every field of a record of any kind. */
function readAll(record: Uint8Array): unknown[] {
  const cursor = read(record);
  const { kind, session, series, lag } = cursor;
  switch (kind) {
    case RecordKind.Epoch:
      return [kind, cursor.epoch()];
    case RecordKind.Config:
      return [kind, cursor.sessionsMax()];
    case RecordKind.Register: {
      const { clientID, owner } = cursor.registration();
      return [kind, clientID, ...owner];
    }
    case RecordKind.Unregister:
      return [kind, session];
    case RecordKind.Claim: {
      const { from, holder } = cursor.claim();
      return [kind, session, from, holder];
    }
    case RecordKind.Proposal:
      return [kind, cursor.originLow, cursor.originHigh, series];
    default:
      return [kind, session, series, lag];
  }
}

Deno.test("H11 RecordCursor decodes records of every kind", () => {
  for (const epoch of [0n, 5n, U64_MAX]) {
    assertEquals(readAll(epochRecord(epoch)), [RecordKind.Epoch, epoch]);
  }
  for (const max of [1, 4096, SESSIONS_MAX]) {
    assertEquals(readAll(configRecord(max)), [RecordKind.Config, max]);
  }
  for (const clientID of [0n, 1n << 63n, U64_MAX]) {
    for (const length of [0, 1, SESSION_OWNER_BYTES_MAX]) {
      const owner = new Uint8Array(length).fill(9);
      assertEquals(readAll(registerRecord(clientID, owner)), [
        RecordKind.Register,
        clientID,
        ...owner,
      ]);
    }
  }
  for (const session of NUMBERS) {
    assertEquals(readAll(unregisterRecord(session)), [
      RecordKind.Unregister,
      session,
    ]);
  }
});

Deno.test("H11 RecordCursor decodes heads of proposals, and the offset of the command", () => {
  const cmd = new Uint8Array([1, 2, 3]);
  for (const sequence of NUMBERS) {
    for (const origin of [0, 0x80000000, 0xFFFFFFFF, 0x01020304]) {
      const length = proposalHeadLength(sequence);
      const bytes = new Uint8Array(length + 3);
      const start = putProposalHead(bytes, 0, origin, ~origin >>> 0, sequence);
      assertEquals(start, length);
      bytes.set(cmd, start);
      assertEquals(readAll(bytes), [
        RecordKind.Proposal,
        origin,
        ~origin >>> 0,
        sequence,
      ]);
      assertEquals(read(bytes).start, 17 + length);
    }
  }
  for (const session of NUMBERS) {
    for (const series of NUMBERS) {
      for (const lag of NUMBERS) {
        const length = sessionHeadLength(session, series, lag);
        const bytes = new Uint8Array(length + 3);
        const kind = RecordKind.SessionProposal;
        const start = putSessionHead(bytes, 0, kind, session, series, lag);
        assertEquals(start, length);
        bytes.set(cmd, start);
        if (lag >= series) {
          assertThrows(() => read(bytes), RangeError, "unacknowledged");
          continue;
        }
        assertEquals(readAll(bytes), [kind, session, series, lag]);
        assertEquals(read(bytes).start, 17 + length);
        bytes[0] = RecordKind.Skip;
        // What follows says why it was refused.
        assertEquals(read(bytes).reason(), bytes.subarray(length));
        const long = new Uint8Array(length + REFUSAL_BYTES_MAX + 1);
        long.set(bytes);
        assertThrows(() => read(long), RangeError, "the limit is");
        assertEquals(readAll(bytes.subarray(0, length)), [
          RecordKind.Skip,
          session,
          series,
          lag,
        ]);
      }
    }
  }
});

Deno.test("H11 RecordCursor rejects a command over the limit", () => {
  const largest = proposal(1, new Uint8Array(COMMAND_BYTES_MAX));
  assertEquals(read(largest).kind, RecordKind.Proposal);
  assertThrows(
    () => read(proposal(1, new Uint8Array(COMMAND_BYTES_MAX + 1))),
    RangeError,
    "the limit is",
  );
  assertThrows(
    () => read(sessionProposal(1, 1, 0, new Uint8Array(COMMAND_BYTES_MAX + 1))),
    RangeError,
    "the limit is",
  );
});

Deno.test("H4 RecordCursor rejects session limits and owners out of range", () => {
  for (const max of [0, SESSIONS_MAX + 1]) {
    assertThrows(() => readAll(configRecord(max)), RangeError, "limit");
  }
  const owner = new Uint8Array(SESSION_OWNER_BYTES_MAX + 1);
  assertThrows(() => readAll(registerRecord(1n, owner)), RangeError, "limit");
});

/** One of each kind. */
const VALID: readonly Uint8Array[] = [
  epochRecord(0x0123456789abcdefn),
  configRecord(300),
  registerRecord(77n, new Uint8Array([1, 2, 3])),
  unregisterRecord(70_000),
  proposal(300, new Uint8Array([1, 2, 3])),
  sessionProposal(3, 300, 200, new Uint8Array([1, 2, 3])),
  skip(3, 300, 2),
  claimRecord(3, 5n, 1n << 63n),
  skipEntryRecord(300, "why"),
];

/** Decodes bytes that may be a record; true if they are one. */
function isRecord(bytes: Uint8Array): boolean {
  let found: unknown[];
  try {
    found = readAll(bytes);
  } catch (error) {
    assert(error instanceof RangeError, `${error}`);
    return false;
  }
  for (const part of found) {
    assert(
      typeof part === "bigint"
        ? part >= 0n && part <= U64_MAX
        : Number.isSafeInteger(part) && part as number >= 0,
    );
  }
  return true;
}

Deno.test("H11 RecordCursor rejects every truncated or extended record", () => {
  for (const record of VALID) {
    assert(isRecord(record));
    const carries = record[0] === RecordKind.Proposal ||
      record[0] === RecordKind.SessionProposal ||
      record[0] === RecordKind.Skip || record[0] === RecordKind.SkipEntry;
    const rest = record[0] === RecordKind.Skip ? 0 : 3;
    for (let length = 0; length < record.length; length++) {
      // A command may end anywhere; everything else tells its length.
      const isCut = !carries || length < record.length - rest;
      assertEquals(isRecord(record.subarray(0, length)), !isCut);
    }
    const long = new Uint8Array([...record, 0]);
    assertEquals(isRecord(long), carries);
  }
});

Deno.test("H11 RecordCursor decodes damaged bytes as a record, or throws a RangeError", () => {
  const { below, chance, pick } = seeded();
  for (const record of VALID) {
    for (let bit = 0; bit < record.length * 8; bit++) {
      const bad = record.slice();
      bad[bit >> 3]! ^= 1 << (bit & 7);
      isRecord(bad);
    }
  }
  for (let i = 0; i < 20_000; i++) {
    const bytes = new Uint8Array(below(30));
    for (let j = 0; j < bytes.length; j++) {
      bytes[j] = chance(0.3) ? 0xff : below(256);
    }
    if (chance(0.8) && bytes.length > 0) bytes[0] = pick(VALID)[0]!;
    isRecord(bytes);
  }
  for (let kind = 0; kind < 256; kind++) {
    const known = VALID.some((record) => record[0] === kind);
    if (!known) {
      assertThrows(
        () => read(new Uint8Array([kind, 1])),
        RangeError,
        "unknown",
      );
    }
  }
});

Deno.test("H11 RecordCursor rejects numbers beyond the safe integers", () => {
  const tooLarge = [
    [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x10],
    [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01],
    [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
  ];
  for (const bytes of tooLarge) {
    const record = new ByteWriter().u8(RecordKind.Unregister)
      .raw(new Uint8Array(bytes)).finish();
    assertThrows(() => read(record), RangeError);
  }
});

Deno.test("H11 StateMachine.apply() names the damaged record of a batch, and applies none after it", () => {
  const { below } = seeded();
  for (let i = 0; i < 3000; i++) {
    const machine = new Regular();
    const { stateMachine } = makeStateMachine({
      type: 1,
      create: () => machine,
    });
    const records = VALID.map((record) => record.slice());
    const damaged = below(records.length);
    const bad = records[damaged]!;
    bad[below(bad.length)]! ^= 1 << below(8);
    const batch = { follows: 0, first: 1, records: packRecords(...records) };
    try {
      stateMachine.apply([batch]);
    } catch (error) {
      assert(error instanceof ErrLogCorrupted, `${error}`);
      assertEquals(error.index, damaged + 1);
      assertEquals(machine.commands.length, 0);
      continue;
    }
    assertEquals(stateMachine.applied, records.length);
  }
});

Deno.test("H11 StateMachine.apply() rejects a batch whose records do not match its bytes", () => {
  const bytes = new Uint8Array([...proposal(1, new Uint8Array(3))]);
  const { length } = bytes;
  for (
    const ends of [
      [],
      [length + 1],
      [length, length + 4],
      [length, length],
      [-1, length],
      [length + 9, length],
    ]
  ) {
    const machine = new Regular();
    const { stateMachine } = makeStateMachine({
      type: 1,
      create: () => machine,
    });
    assertThrows(
      () =>
        stateMachine.apply([{
          follows: 0,
          first: 1,
          records: { bytes, ends },
        }]),
      ErrLogCorrupted,
    );
  }
});
