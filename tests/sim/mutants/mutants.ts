/**
 * Mutants: deliberate faults of the product, each a replacement in one source
 * file. They are the test of the simulated worlds: one of the oracles must notice
 * each within its number of seeds.
 *
 * Those that survive are listed in {@linkcode SURVIVORS}, each with the reason; they
 * say what the worlds cannot see yet.
 *
 * @module
 */

/** Deliberate fault. */
export interface Mutant {
  /** Description of the fault, and its name. */
  readonly name: string;
  /** Source file, from the root of the project. */
  readonly file: string;
  /** Text that occurs exactly once in the file. */
  readonly find: string;
  /** Text in its place. */
  readonly replace: string;
  /** Number of worlds within which it must be noticed, of the seeds from 1 on. */
  readonly seeds: number;
  /** Changes of what the seeds draw, so that the worlds have the faults that show it. */
  readonly changes?: string;
}

/** Mutants that survive the worlds stated for them, and the reason of each as far as it is known. */
export const SURVIVORS: ReadonlyMap<string, string> = new Map([
  [
    "refusal forgotten by a tab that hears of it before its command",
    "Needs a message about a refusal that overtakes the one about its command, which another tab sends; and at the next change of the leader the tab reads the store, which has both",
  ],
  [
    "read index one too low",
    "A replica beside its log has nearly always applied the last entry when it is asked",
  ],
  [
    "digest of a duplicate not compared by the session table",
    "Needs two holders of one session that send other commands as the same series; the claim of the session prevents nearly all of it",
  ],
  [
    "digest of a result not compared by its caller",
    "Needs two holders of one session that send other commands as the same series; the claim of the session prevents nearly all of it",
  ],
  [
    "claim of a session not checked against its holder",
    "A copy of an outbox is noticed by other means too: by the next series, and by the digests of what was sent",
  ],
  [
    "holder goes on after another process has claimed its session",
    "Its next series meets what the other process has sent, and it stops there",
  ],
  [
    "copy of an outbox not noticed when it claims the session",
    "A copy of an outbox is noticed by other means too: by the next series, and by the digests of what was sent",
  ],
  [
    "proposal lost by a restored server never answered",
    "The worlds kill their servers before a restore, and devices stop at another history",
  ],
  [
    "log compacted behind a reader",
    "The replica recovers from the snapshot, which is right, only slower",
  ],
  [
    "write of unknown outcome taken for failed by a log",
    "Needs a write that took effect without an answer and a reader before the next write: seldom met",
  ],
  [
    "outbox sends commands beyond its stored limit",
    "Needs a kill between the sending and the storing, and then the loss of the session: seldom met",
  ],
  [
    "submission of unknown outcome submitted again in another session",
    "Needs a command applied unseen in a session that is then evicted: seldom met",
  ],
  [
    "session that the cluster has evicted not given up at a restart",
    "The refusal of the claim has the session given up, only later",
  ],
  [
    "history of an outbox's session not checked",
    "The reader of the log checks its epoch, too",
  ],
  [
    "append of unknown outcome reported as failed by a server",
    "Proposals of devices outside of sessions over a log with such faults: seldom met",
  ],
  [
    "tab that may not write any more goes on as the leader",
    "Its lock was stolen, and messages of a leader with a higher epoch depose it too; its writes are refused in any case",
  ],
  [
    "tab takes the lead without a higher epoch",
    "The token of a store has a random part too, so that the writes of the earlier leader are refused all the same, and the lock has one leader at a time",
  ],
  [
    "append queue of a client sends behind records of unknown outcome",
    "The session stops at the gap, and calls outside of sessions overlap",
  ],
]);

/** All mutants. */
export const MUTANTS: readonly Mutant[] = [
  // -------------------------------------------------------------------- reads
  {
    name: "read without a read index",
    file: "src/nodehost/reads.ts",
    find: "const index = this.#readIndex();\n",
    replace: "const index: MaybePromise<number> = machine.applied;\n",
    seeds: 40,
  },
  {
    name: "read that shares a request for the read index begun before it",
    file: "src/nodehost/reads.ts",
    find: "this.#requested = index.then(settled, settled);\n",
    replace:
      "this.#next = index.finally(() => this.#next = undefined);\n    this.#next.catch(() => {});\n    this.#requested = index.then(settled, settled);\n",
    seeds: 400,
  },
  {
    name: "read index one too low",
    file: "src/log/cluster_log.ts",
    find: "() => this.#check().last)",
    replace: "() => this.#check().last - 1)",
    seeds: 40,
  },
  // ----------------------------------------------------------------- sessions
  {
    name: "duplicate of a series applied again",
    file: "src/rsm/session_table.ts",
    find: '? "duplicate"\n      : "conflict";',
    replace: '? "apply"\n      : "conflict";',
    seeds: 100,
  },
  {
    name: "gap in a session taken for a skip",
    file: "src/rsm/session_table.ts",
    find: 'if (series >= next) return "gap";',
    replace: `if (series > next) {
      while (session.next < series) {
        session.slots.push({ digest: SKIPPED, result: undefined });
        session.next++;
      }
      return this.admit(session, series, lag, digest);
    }
    if (series >= next) return "gap";`,
    seeds: 200,
  },
  {
    name: "digest of a duplicate not compared by the session table",
    file: "src/rsm/session_table.ts",
    find: "return digest === slot.digest || digest === SKIPPED ||",
    replace: "return true || digest === SKIPPED ||",
    seeds: 60,
    changes: "copies",
  },
  {
    name: "digest of a result not compared by its caller",
    file: "src/nodehost/proposals.ts",
    find: "digest(bytes, start!, start! + size!) === found;",
    replace: "true;",
    seeds: 60,
    changes: "copies",
  },
  {
    name: "series acknowledged that the client still waits for",
    file: "src/rsm/session_table.ts",
    find: "Math.min(series - lag, session.next) - 1)",
    replace: "Math.min(series, session.next) - 1)",
    seeds: 200,
  },
  {
    name: "newest session evicted instead of the oldest",
    file: "src/rsm/session_table.ts",
    find: "return lru.oldest!.item;",
    replace: "return lru.newest!.item;",
    seeds: 40,
    changes: "evictions",
  },
  {
    name: "proposals do not count as use of a session",
    file: "src/rsm/session_table.ts",
    find: "this.touch(session);\n    this.#acknowledge(session,",
    replace: "this.#acknowledge(session,",
    seeds: 200,
  },
  {
    name: "share of an owner not enforced at eviction",
    file: "src/rsm/session_table.ts",
    find: "if (list.size > this.#share) this.#overShare.add(owner);",
    replace: "",
    seeds: 200,
  },
  {
    name: "claim of a session not checked against its holder",
    file: "src/rsm/session_table.ts",
    find: "if (session.holder === from) session.holder = holder;",
    replace: "session.holder = holder;",
    seeds: 60,
    changes: "copies",
  },
  {
    name: "holder goes on after another process has claimed its session",
    file: "src/nodehost/proposals.ts",
    find: 'outcome === "claimed" && state?.holder !== undefined &&',
    replace: "false && state?.holder !== undefined &&",
    seeds: 60,
    changes: "copies",
  },
  // ---------------------------------------------------------------- proposals
  {
    name: "append outside of sessions retried after an unknown outcome",
    file: "src/nodehost/append_batcher.ts",
    find:
      "if (this.#closed === undefined) this.#listener.failed(batch, error);",
    replace: `if (this.#closed !== undefined) return;
    const isUnknown = (error as Error).name === "ErrUnknownOutcome";
    if (isUnknown && batch.sessions.size + batch.controls.length === 0) {
      queueMicrotask(() => this.#send(batch));
    } else this.#listener.failed(batch, error);`,
    seeds: 100,
  },
  {
    name: "append of unknown outcome reported as not sent by a client",
    file: "src/sync/client/append_queue.ts",
    find: "for (const { reject } of inFlight) reject(unknown);",
    replace: "for (const { reject } of inFlight) reject(unsent);",
    seeds: 100,
  },
  {
    name: "append of unknown outcome reported as failed by a server",
    file: "src/sync/server/append_pipeline.ts",
    find: "const isUnknown = mayBeInLog(error, outcomes);",
    replace: "const isUnknown = false;",
    seeds: 60,
    changes: "appendFaults=3",
  },
  {
    name: "sessions not sent again after a failed append",
    file: "src/nodehost/proposals.ts",
    find: "if (state.sender === this) this.#stall(state);",
    replace: "",
    seeds: 100,
  },
  {
    name: "append in flight counted for ever",
    file: "src/nodehost/append_batcher.ts",
    find: "this.#inFlight--;\n",
    replace: "",
    seeds: 100,
  },
  {
    name: "proposal lost by a restored server never answered",
    file: "src/nodehost/proposals.ts",
    find: "for (let i = this.#single.first; i < upTo; i++) {\n",
    replace: "for (let i = upTo; i < upTo; i++) {\n",
    seeds: 60,
    changes: "restores",
  },
  {
    name: "result that is a refusal reported as a success",
    file: "src/nodehost/proposals.ts",
    find: "if (reason === undefined) proposal.resolve(result);",
    replace: 'if (reason !== "") proposal.resolve(result);',
    seeds: 40,
    changes: "refusals=3",
  },
  // ---------------------------------------------------------------- snapshots
  {
    name: "compaction one entry too far",
    file: "src/nodehost/snapshot_maker.ts",
    find: "const upTo = older.index - (overhead ?? compactionOverhead);",
    replace: "const upTo = older.index - (overhead ?? compactionOverhead) + 1;",
    seeds: 60,
    changes: "compaction",
  },
  {
    name: "log compacted up to the newest snapshot",
    file: "src/nodehost/snapshot_maker.ts",
    find: "if (good < SNAPSHOTS_KEPT) continue;",
    replace: "if (good < 1) continue;",
    seeds: 60,
    changes: "compaction",
  },
  {
    name: "log compacted behind a reader",
    file: "src/log/cluster_log.ts",
    find: "for (const need of this.needs) upTo = Math.min(upTo, need.after);\n",
    replace: "",
    seeds: 60,
    changes: "compaction",
  },
  {
    name: "snapshot without sessions",
    file: "src/rsm/state_machine.ts",
    find: "sessions: encodeSkips(this.#table.encode(true), this.skips),",
    replace:
      "sessions: encodeSkips(new SessionTable().encode(true), this.skips),",
    seeds: 60,
    changes: "compaction",
  },
  {
    name: "results of sessions missing after a recovery",
    file: "src/rsm/session_table.ts",
    find: "if (result === undefined) writer.u8(LOST);",
    replace: "if (true) writer.u8(LOST);",
    seeds: 60,
    changes: "compaction",
  },
  {
    name: "sessions kept from before a recovery",
    file: "src/rsm/state_machine.ts",
    find:
      "this.#table = table;\n      this.#applied = this.#read = this.#opened",
    replace: "this.#applied = this.#read = this.#opened",
    seeds: 60,
    changes: "compaction",
  },
  {
    name: "snapshots of a state with a skipped entry kept",
    file: "src/nodehost/snapshot_maker.ts",
    find: "if (!isUsable(info.index, skips)) await place.remove(info);",
    replace: "",
    seeds: 60,
    changes: "poisons,compaction",
  },
  {
    name: "state kept that contains an entry that is skipped later",
    file: "src/rsm/state_machine.ts",
    find: "throw new ErrSkippedApplied(skip);",
    replace: "return;",
    seeds: 60,
    changes: "poisons,mixedCode",
  },
  // -------------------------------------------------------------------- the log
  {
    name: "log compacted while a backup copies it",
    file: "src/log/block_log.ts",
    find: "this.needs.add(need);\n      const release",
    replace: "const release",
    seeds: 100,
    changes: "restores,compaction",
  },
  {
    name: "epoch of a reader not checked",
    file: "src/log/cluster_log.ts",
    find:
      "!(known?.index === epoch.index && known.id === epoch.id) &&\n      // Epochs",
    replace: "false &&\n      // Epochs",
    seeds: 60,
    changes: "restores",
  },
  {
    name: "log that is shorter than what a reader has applied not noticed",
    file: "src/log/cluster_log.ts",
    find: "if (after > this.last) {\n",
    replace: "if (after > this.last + 1_000_000) {\n",
    seeds: 150,
    changes: "restores",
  },
  {
    name: "one reader not woken by an append",
    file: "src/log/cluster_log.ts",
    find: "for (const wake of waiting) wake();",
    replace: "for (const wake of waiting.slice(1)) wake();",
    seeds: 40,
  },
  {
    name: "append answered before it is durable",
    file: "src/log/block_log.ts",
    find:
      ": this.#withMeta(this.#run.base, true, epochs, block),\n      this.#options.durability,",
    replace:
      ': this.#withMeta(this.#run.base, true, epochs, block),\n      "relaxed",',
    seeds: 60,
    changes: "powerCuts",
  },
  {
    name: "write of unknown outcome taken for failed by a log",
    file: "src/log/block_log.ts",
    find: "if (!this.#isInDoubt) return;",
    replace: "if (this.#isInDoubt !== undefined) return;",
    seeds: 60,
    changes: "fullStores",
  },
  {
    name: "entry that an operator skips applied all the same",
    file: "src/rsm/state_machine.ts",
    find: "if (skip === undefined) return false;",
    replace: "if (skip === undefined || kind > 0) return false;",
    seeds: 60,
    changes: "poisons",
  },
  // ------------------------------------------------------------------- outbox
  {
    name: "submission acknowledged before it is stored",
    file: "src/offline/submission_queue.ts",
    find: "return (merging?.stored ?? this.outbox.add(bytes)).then(",
    replace: `this.outbox.add(bytes).catch(() => {});
    return Promise.resolve(submission.id).then(`,
    seeds: 100,
  },
  {
    name: "submission that could not be stored stays in the view",
    file: "src/offline/submission_queue.ts",
    find: "this.#leaveStoring(submission);\n    this.generation++;",
    replace: "this.#leaveStoring(submission);",
    seeds: 400,
    changes: "fullStores",
  },
  {
    name: "outbox sends commands beyond its stored limit",
    file: "src/offline/durable_session.ts",
    find: "const upTo = Math.min(outbox.sendLimit, queue.lastInMemory);",
    replace: "const upTo = queue.lastInMemory;",
    seeds: 60,
    changes: "evictions,fullStores",
  },
  {
    name: "commands that were sent when added forgotten at a restart",
    file: "src/offline/block_queue.ts",
    find: "sendLimit = Math.max(sendLimit, block.last);",
    replace: "",
    seeds: 60,
    changes: "evictions",
  },
  {
    name: "submission of unknown outcome submitted again in another session",
    file: "src/offline/durable_session.ts",
    find: "if (submission !== undefined && error.applied === undefined) {",
    replace: "if (submission === undefined && error.applied === undefined) {",
    seeds: 60,
    changes: "evictions",
  },
  {
    name: "session that the cluster has evicted not given up at a restart",
    file: "src/offline/durable_session.ts",
    find: "if (isGone) this.#giveUp(this.#session);",
    replace: "",
    seeds: 60,
    changes: "evictions",
  },
  {
    name: "history of an outbox's session not checked",
    file: "src/offline/history_check.ts",
    find: "this.#answer ??= this.#ask(known ?? { index });",
    replace: "this.#answer ??= Promise.resolve();",
    seeds: 60,
    changes: "restores",
  },
  {
    name: "copy of an outbox not noticed when it claims the session",
    file: "src/offline/session_claim.ts",
    find: "if (now.holder !== holder || isBehind(now)) return",
    replace: "if (false) return",
    seeds: 60,
    changes: "copies",
  },
  {
    name: "copies of an outbox start over with client ids of their own",
    file: "src/offline/start_over.ts",
    find: "isUsed ? nextClientID(clientID) : clientID",
    replace: "env.random64()",
    seeds: 250,
    changes: "restores,copies",
  },
  {
    name: "refusal not stored",
    file: "src/offline/submission_queue.ts",
    find: "this.#keep(submission);\n    this.#noteSettled(submission);\n",
    replace:
      'this.#keep(submission);\n    if (state !== "refused") this.#noteSettled(submission);\n',
    seeds: 200,
    changes: "poisons,mixedCode,compaction",
  },
  {
    name: "refusal of the view told before it is durable",
    file: "src/offline/submission_queue.ts",
    find: "await this.outbox.flush();\n        for (const one of durable)",
    replace: "for (const one of durable)",
    seeds: 400,
    changes: "poisons,mixedCode,compaction",
  },
  {
    name: "refused submission stays in the view",
    file: "src/offline/submission_queue.ts",
    find:
      "this.#unqueue(submission.id);\n    submission.settle(state, reason, refused)",
    replace:
      'if (state !== "refused") this.#unqueue(submission.id);\n    submission.settle(state, reason, refused)',
    seeds: 40,
    changes: "refusals=3",
  },
  {
    name: "applied submission stays pending for 2 ms",
    file: "src/offline/submission_queue.ts",
    find: `this.removeApplied(submission);
    this.changed();
    settle(submission);`,
    replace: `this.#parts.context.env.setTimer(() => {
      this.removeApplied(submission);
      this.changed();
      settle(submission);
    }, 2);`,
    seeds: 40,
  },
  {
    name: "decided submissions never removed from the outbox",
    file: "src/offline/block_queue.ts",
    find: "decided: this.#decided,\n    };\n",
    replace: "decided: this.#head.decided,\n    };\n",
    seeds: 400,
  },
  // --------------------------------------------------------------------- view
  {
    name: "view not made again after a commit",
    file: "src/offline/optimistic_view.ts",
    find: "return this.index === applied && this.generation === generation;",
    replace: "return this.generation === generation;",
    seeds: 100,
  },
  {
    name: "view keeps a pending command that another has replaced",
    file: "src/offline/optimistic_view.ts",
    find: "return this.index === applied && this.generation === generation;",
    replace: "return this.index === applied;",
    seeds: 200,
  },
  {
    name: "watch not woken by a commit",
    file: "src/watch/same_answer.ts",
    find: "if (Object.is(one, other)) return true;",
    replace:
      "if (Object.is(one, other) || Array.isArray(one) && one.length > 3) return true;",
    seeds: 40,
  },
  // --------------------------------------------------------------------- sync
  {
    name: "command that validate refuses accepted",
    file: "src/sync/server/admission.ts",
    find: "if (reason === undefined) return this.#add(i, cmd, place);",
    replace: 'if (reason !== "") return this.#add(i, cmd, place);',
    seeds: 40,
    changes: "refusals=3",
  },
  {
    name: "credit of an append never returned",
    file: "src/sync/server/append_pipeline.ts",
    find: "connection.appendProcessed(pending.credit, commands);",
    replace: "",
    seeds: 200,
  },
  {
    name: "silent connection never noticed by a client",
    file: "src/sync/client/connection.ts",
    find: "if (this.#isAsked) {\n      return this.close(",
    replace: "if (this.#isAsked && silence < 0) {\n      return this.close(",
    seeds: 100,
  },
  {
    name: "follower sent a batch that does not follow its last one",
    file: "src/sync/server/log_stream.ts",
    find: "this.#position !== batch.follows || this.#reader !== undefined ||",
    replace: "this.#reader !== undefined ||",
    seeds: 200,
  },
  {
    name: "append queue of a client sends behind records of unknown outcome",
    file: "src/sync/client/append_queue.ts",
    find: "for (const { reject } of waiting) reject(unsent);",
    replace: "this.#waiting = waiting;",
    seeds: 200,
  },
  {
    name: "refusal forgotten by a tab that hears of it before its command",
    file: "src/offline/submission_queue.ts",
    find: "early.set(number, settled);",
    replace: "return;",
    seeds: 300,
    changes: "tabs,refusals=5",
  },
  // --------------------------------------------------------------------- tabs
  {
    name: "epoch not compared in the transaction of a write",
    file: "src/tabs/tab_group.ts",
    find: "if (own !== undefined && token === own) return undefined;",
    replace: "if (own !== undefined) return undefined;",
    seeds: 400,
    changes: "tabs",
  },
  {
    name: "tab that may not write any more goes on as the leader",
    file: "src/tabs/tab_group.ts",
    find:
      "if (own !== undefined) queueMicrotask(() => notify(() => this.depose()));\n",
    replace: "",
    seeds: 400,
    changes: "tabs",
  },
  {
    name: "tab takes the lead without a higher epoch",
    file: "src/tabs/tab_group.ts",
    find: "if (i === 0) epoch = Math.max(epoch, known + 1);",
    replace: "if (i === 0) epoch = Math.max(1, known);",
    seeds: 400,
    changes: "tabs",
  },
  {
    name: "lead taken only of the first store",
    file: "src/tabs/tab_group.ts",
    find:
      "        if (hold !== this.#hold) return;\n      }\n      this.#epoch = epoch;",
    replace:
      "        if (hold !== this.#hold) return;\n        if (i === 0) break;\n      }\n      this.#epoch = epoch;",
    seeds: 40,
    changes: "tabs",
  },
];
