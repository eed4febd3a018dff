/**
 * Server of a cluster of word machines, for the tests of rehearsal.
 *
 * @module
 */

import type { NodeHost, Replica, ReplicaConfig } from "../../mod.ts";
import { Disk } from "../machines/journal.ts";
import { Counts, startWords, type WORD_KINDS } from "../machines/words.ts";
import { bytes } from "../support/bytes.ts";
import {
  packRecords,
  proposal,
  type RawClient,
  registerRecord,
  type World,
  world,
} from "../sync/server_support.ts";

/** Kind of a word machine. */
export type WordKind = typeof WORD_KINDS[number];

/** Signal that never aborts. */
export const NEVER: AbortSignal = new AbortController().signal;

/** Starts a server with word machines, and returns it with what they counted. */
export async function wordsWorld(
  kind: WordKind,
  options: NonNullable<Parameters<typeof world>[0]> & {
    readonly isSlow?: boolean;
  } = {},
): Promise<World & { counts: Counts }> {
  const counts = new Counts();
  counts.isSlow = options.isSlow ?? false;
  const disk = new Disk();
  const w = await world({
    ...options,
    start: (host: NodeHost, config: ReplicaConfig): Promise<Replica> =>
      startWords(host, config, kind, counts, disk),
  });
  return { ...w, counts };
}

/** Packs commands outside of sessions. */
export function packCommands(
  ...commands: readonly string[]
): ReturnType<typeof packRecords> {
  return packRecords(
    ...commands.map((cmd, i) => proposal(bytes(cmd), i + 1)),
  );
}

/** Opens a session and returns its index. */
export async function openSession(
  client: RawClient,
  clientID = 5n,
): Promise<number> {
  client.append(90, packRecords(registerRecord(clientID, new Uint8Array())));
  return (await client.next("appended", 90)).first;
}
