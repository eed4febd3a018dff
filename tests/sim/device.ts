/**
 * A simulated device: it submits commands, dies, is offline, copied and
 * refused, and its user looks at it all the time.
 *
 * @module
 */

import {
  ErrClusterClosed,
  ErrDiverged,
  ErrOtherHistory,
  ErrOutboxCopied,
  ErrStoreFull,
  ErrUnknownOutcome,
  ErrUpdateFailed,
  type HostEvent,
  NodeHost,
  type Replica,
  type Result,
  type Submission,
} from "../../mod.ts";
import { BlockOutbox, type BlockStore } from "../../src/ports/mod.ts";
import { BlockSnapshotStore } from "../../src/snapshot/block_snapshot_store.ts";
import { RemoteLogDB, type RemoteState } from "../../src/sync/client/mod.ts";
import { decodeMessage } from "../../src/sync/message_codec.ts";
import type { Transport } from "../../src/sync/transport.ts";
import { bytes, text } from "../support/bytes.ts";
import { BAD, CLUSTER, CUTS, type SimulationContext } from "./context.ts";
import { SimulatedDisk } from "./disk.ts";
import { DENIED, LEDGERS, POISON, startLedger } from "./machines.ts";
import type { End, Server } from "./server.ts";

/** Command of a device, with its outcome if known. */
export interface Command {
  readonly text: string;
  /** `asked` until `submit()` has settled; then `stored`, or `turned down` if the outbox could not take it. */
  state: "asked" | "stored" | "turned down";
  submission: Submission | undefined;
  result: Result | undefined;
  error: unknown;
  /** True if power was cut before it was certainly written. */
  mayBeLost: boolean;
  isDismissed: boolean;
  /** History of the server in which it was submitted. */
  readonly history: number;
}

/** True for commands that no machine shows, committed or not. */
export function isNeverShown(command: string): boolean {
  return command.includes(POISON) || command.includes(DENIED);
}

/** Process of a device, from its start to its stop or crash. */
export class Process {
  readonly db: RemoteLogDB;
  readonly host: NodeHost;
  replica: Replica | undefined;
  isOver = false;
  /** True once its outbox has turned out to be a copy. */
  isCopied = false;
  /** Error of a start that failed. */
  failure: unknown;
  isStartingOver = false;
  /** History of the server that its state comes from; -1 while that is not known. */
  history = 0;
  /** Highest applied index that was seen. */
  applied = 0;
  /** Longest list of committed commands that was seen. */
  committed: readonly string[] = [];
  readonly events: HostEvent[] = [];
  readonly states: Set<RemoteState> = new Set();

  constructor(db: RemoteLogDB, host: NodeHost) {
    this.db = db;
    this.host = host;
    db.watch(({ state }) => this.states.add(state));
  }
}

/** Settings of a device that are not drawn. */
export interface DeviceOptions {
  /** Principal of the device. @default its name */
  readonly owner?: string;
  /** Disk of its outbox. @default an empty one */
  readonly outbox?: SimulatedDisk;
}

/** A device, over all lives of its process. */
export class Device {
  readonly name: string;
  readonly nodeID: bigint;
  readonly owner: string;
  readonly kind: (typeof LEDGERS)[number];
  readonly outbox: SimulatedDisk;
  readonly #disks: readonly SimulatedDisk[];
  /** True if it has a copy of the log, and snapshots of its own. */
  readonly hasCopy: boolean;
  readonly #snapshotEntries: number;
  readonly #isSlow: boolean;
  readonly #context: SimulationContext;
  readonly #server: Server;
  readonly commands: Map<string, Command> = new Map();
  /** Commands that its present process must show until they are refused. */
  readonly shown: Set<string> = new Set();
  process: Process | undefined;
  isOffline = false;
  isCopied = false;
  /** Set once it has started over, as long as it may not know yet, also in a later process, which of its submissions the server has. */
  isReconciling = false;
  /** History of the server that its last connection led to. */
  connected = 0;
  /** True if it may have missed the outcome of a command. */
  hasSkipped = false;
  #count = 0;

  constructor(
    context: SimulationContext,
    server: Server,
    name: string,
    nodeID: bigint,
    { owner = name, outbox = new SimulatedDisk() }: DeviceOptions = {},
  ) {
    this.#context = context;
    this.#server = server;
    this.name = name;
    this.nodeID = nodeID;
    this.owner = owner;
    const { random } = context;
    this.kind = LEDGERS[random() % LEDGERS.length]!;
    this.hasCopy = this.kind !== "disk" && random() % 2 === 0;
    this.#snapshotEntries = random() % 2 === 0 ? 0 : 10 + random() % 20;
    this.#isSlow = random() % 2 === 0;
    this.outbox = outbox;
    this.#disks = [1, 2, 3].map(() => new SimulatedDisk());
  }

  /** True if its applied state survives a kill. */
  get #isDurable(): boolean {
    return this.kind === "disk" || this.hasCopy;
  }

  get replica(): Replica | undefined {
    return this.process?.replica;
  }

  /** True if a command is stored here, and the cluster may have it. */
  mustShow(command: string): boolean {
    const { submission, isDismissed } = this.commands.get(command)!;
    const state = submission?.state ?? "queued";
    // A copied submission is sent by the other device, and shown after that.
    return !isDismissed && !this.isCopied &&
      (state === "queued" || state === "applied");
  }

  /** True if it has been told that its history is not the server's. */
  get isOnOtherHistory(): boolean {
    const { process } = this;
    return process !== undefined && !process.isOver &&
      !process.isStartingOver &&
      (process.failure instanceof ErrOtherHistory ||
        // A store that failed had cut a start over short.
        process.failure instanceof ErrStoreFull ||
        process.failure instanceof ErrUnknownOutcome ||
        process.replica?.status.error instanceof ErrOtherHistory ||
        // Its machine had failed before, which is what the replica says.
        process.replica?.status.state === "failed" &&
          process.db.status.error instanceof ErrOtherHistory);
  }

  /** True if it has noticed that the server has another log than the one it knew. */
  get hasDiverged(): boolean {
    const { events, replica } = this.process!;
    if (events.some(({ type }) => type === "diverged")) return true;
    return replica === undefined
      ? events.length === 0
      : replica.error instanceof ErrDiverged;
  }

  // ------------------------------------------------------------- its process

  #connect(url: string): Transport {
    const { network, history } = this.#context;
    const [here, there] = network.connect(this.name);
    here.onFrame = (frame): void => this.#arrived(frame);
    if (this.isOffline || this.#server.isUnreachable || !this.#server.isUp) {
      network.refuse(here);
    } else {
      this.connected = history;
      this.#server.accept(there, url);
    }
    return here;
  }

  /** Cuts the connection now and then when a part of a snapshot has arrived. */
  #arrived(frame: Uint8Array): void {
    const context = this.#context;
    if (!context.profile.cutSnapshots) return;
    if (decodeMessage(frame).type !== "chunk") return;
    context.count("chunks");
    if (context.isHealing || !context.chance(6)) return;
    context.count("snapshots cut off");
    this.isOffline = true;
    context.network.cut(this.name, CUTS[context.random() % 3]!);
  }

  #open(disk: SimulatedDisk): BlockStore {
    const { env, random } = this.#context;
    return disk.open(
      env,
      this.#isSlow ? (): number => 1 + random() % 4 : undefined,
    );
  }

  /** Begins to start; other actors go on during the start. */
  start(): void {
    const context = this.#context;
    const { env, profile, hashEntries } = context;
    const [copy, snapshots, machine] = this.#disks.map((disk) =>
      this.#open(disk)
    );
    const db = new RemoteLogDB("ws://server/sync", {
      env,
      hints: () => () => {},
      token: () => this.#server.tokens.held(this.owner),
      ...(this.hasCopy ? { copy: copy! } : {}),
      connect: (url) => this.#connect(url),
    });
    const outbox = new BlockOutbox(this.#open(this.outbox), { env });
    const host = new NodeHost({
      logDB: db,
      env,
      outbox,
      ...(this.#isDurable
        ? { snapshots: new BlockSnapshotStore(snapshots!, { env }) }
        : {}),
      onEvent: (event) => this.#noteEvent(process, event),
    });
    const process: Process = new Process(db, host);
    process.history = profile.restores ? -1 : 0;
    this.process = process;
    // What was committed is known from the log alone, and that may not arrive for long.
    if (!this.#isDurable) this.shown.clear();
    const config = {
      clusterID: CLUSTER,
      nodeID: this.nodeID,
      snapshotEntries: this.#snapshotEntries,
      hashEntries,
    };
    context.background(
      startLedger(host, this.kind, config, machine!).then(
        (replica) => this.#started(process, replica),
        (error) => {
          if (process.isOver || this.process !== process) return;
          this.#startFailed(process, error);
        },
      ),
    );
  }

  #startFailed(process: Process, error: unknown): void {
    const { mayDiverge, profile } = this.#context;
    process.failure = error;
    if (mayDiverge && error instanceof ErrDiverged) {
      this.#context.count("device: start diverged");
    } else if (
      profile.restores && profile.fullStores &&
      (error instanceof ErrStoreFull || error instanceof ErrUnknownOutcome)
    ) this.#context.count("device: start over cut off");
    else this.#context.fail(`${this.name} did not start: ${error}`);
  }

  #started(process: Process, replica: Replica): void {
    if (process.isOver) return;
    process.replica = replica;
    for (const submission of replica.pending()) {
      const name = text(submission.cmd);
      const command = this.commands.get(name);
      if (command === undefined || command.state === "turned down") {
        this.#context.fail(`${this.name} has ${name}, never submitted there`);
        continue;
      }
      if (command.isDismissed) continue;
      command.state = "stored";
      command.mayBeLost = false;
      this.shown.add(name);
      this.#follow(command, submission);
    }
    this.#watch(process, replica);
  }

  #noteEvent(process: Process, event: HostEvent): void {
    process.events.push(event);
    if (process.isOver) return;
    const context = this.#context;
    const { profile, mayDiverge } = context;
    context.count(`device: ${event.type}`);
    switch (event.type) {
      case "outbox failed":
        if (event.error instanceof ErrOutboxCopied) {
          this.isCopied = process.isCopied = true;
          context.count("copied");
          // An outbox that a power cut put back looks the same.
          if (!profile.copies && !profile.powerCuts) {
            context.fail(`${this.name} is no copy`);
          }
        }
        break;
      case "recovered":
        this.hasSkipped = true;
        break;
      case "failed":
        if (mayDiverge && event.error instanceof ErrDiverged) break;
        if (profile.poisons && event.failure instanceof ErrUpdateFailed) {
          // Until it has read the decision to skip that entry, it shows the state before it.
          this.#forgetShown(process);
          break;
        }
        context.fail(`${this.name} failed: ${event.error}`);
        break;
      case "diverged":
      case "hash failed":
        // Hashes may show it before the log does.
        if (mayDiverge) break;
        context.fail(`${this.name} ${event.type}: ${event.error}`);
        break;
      case "close failed":
        context.fail(`${this.name} ${event.type}: ${event.error}`);
    }
  }

  /** Expects nothing of what it showed before: its state is built again. */
  #forgetShown(process: Process): void {
    this.shown.clear();
    process.applied = 0;
    process.committed = [];
  }

  /** Ends the process. */
  async stop(how: End): Promise<void> {
    const { process } = this;
    if (process === undefined) return;
    const context = this.#context;
    this.process = undefined;
    context.count(`device: ${how}`);
    const end = async (): Promise<void> => {
      await process.host.stop();
      await process.db.close();
    };
    if (how === "stop") {
      await context.env.until(end(), 20);
      process.isOver = true;
      this.hasSkipped = true;
      return;
    }
    process.isOver = true;
    context.network.die(this.name, "client");
    for (const disk of [this.outbox, ...this.#disks]) {
      const { unsynced } = disk.faulty;
      disk.crash(how === "kill" ? Infinity : context.random() % (unsynced + 1));
    }
    if (how === "power cut") {
      this.shown.clear();
      for (const command of this.commands.values()) command.mayBeLost = true;
    }
    this.hasSkipped = true;
    context.background(end());
  }

  /** Begins to start over on the server's history, as its user asks. */
  startOver(): void {
    const process = this.process!;
    const context = this.#context;
    context.count("starts over");
    process.failure = undefined;
    process.isStartingOver = true;
    process.replica = undefined;
    process.history = -1;
    this.isReconciling = true;
    context.background(
      process.host.startOver(CLUSTER).then((replica) => {
        process.isStartingOver = false;
        if (process.isOver) return;
        this.#forgetShown(process);
        process.failure = undefined;
        this.#started(process, replica);
      }, (error) => {
        process.isStartingOver = false;
        if (process.isOver || this.process !== process) return;
        this.#startFailed(process, error);
      }),
    );
  }

  // ------------------------------------------------------------ its commands

  /** Submits another command; it may be one that will be refused. */
  submit(): void {
    const { replica, process } = this;
    if (replica === undefined) return;
    const context = this.#context;
    const { refusals } = context.profile;
    const kind = refusals === 0 || !context.chance(refusals)
      ? ""
      : [POISON, DENIED, BAD][context.random() % 3]!;
    const name = `${this.name}:${this.#count++}:${kind}`;
    const command: Command = {
      text: name,
      state: "asked",
      submission: undefined,
      result: undefined,
      error: undefined,
      mayBeLost: false,
      isDismissed: false,
      history: process!.history,
    };
    this.commands.set(name, command);
    context.count("submitted");
    replica.submit(bytes(name)).then(
      (submission) => {
        if (process!.isOver) return;
        command.state = "stored";
        this.shown.add(name);
        this.#follow(command, submission);
      },
      (error) => {
        // The answer of a process that is dead reaches no caller.
        if (process!.isOver) return;
        if (error instanceof ErrStoreFull) command.state = "turned down";
        else if (error instanceof ErrOutboxCopied && this.isCopied) {
          // It may have been written just before that was found out.
        } else if (error instanceof ErrUnknownOutcome) {
          context.count("submit unknown");
        } else if (error instanceof ErrClusterClosed && context.mayDiverge) {
          command.state = "turned down";
        } else context.fail(`submit of ${name}: ${error}`);
      },
    );
  }

  #follow(command: Command, submission: Submission): void {
    command.submission = submission;
    command.error = undefined;
    submission.result.then(
      (result) => command.result = result,
      (error) => command.error = error,
    );
  }

  /** Watches the view as the user does: a submitted command never vanishes from it (U30). */
  #watch(process: Process, replica: Replica): void {
    const context = this.#context;
    if (this.kind === "plain" || this.kind === "concurrent") return;
    if (context.profile.copies) return;
    const watch = replica.watch<string[]>(null);
    let mine: string[] = [];
    watch.subscribe(() => {
      const list = watch.getSnapshot();
      if (list === undefined || process.isOver || context.isRestored) return;
      if (process.replica !== replica) return;
      if (process.history !== context.history) return;
      const shown = new Set(list);
      if (shown.size < list.length) {
        context.fail(`${this.name} sees one twice: ${list}`);
      }
      for (const name of mine) {
        if (!shown.has(name) && this.mustShow(name)) {
          context.fail(`${this.name} no longer sees ${name}`);
        }
      }
      mine = list.filter((name) => this.commands.has(name));
    });
  }

  /** Takes over the commands of a device whose outbox was copied here. */
  inherit({ commands }: Device): void {
    for (const [name, command] of commands) {
      this.commands.set(name, { ...command, mayBeLost: true });
    }
    this.hasSkipped = true;
  }

  /** Has the outbox fail at one of its next writes. */
  breakOutbox(): void {
    const context = this.#context;
    const { faulty } = this.outbox;
    const isUnknown = context.chance(2);
    faulty.fault = {
      at: faulty.writes + 1 + context.random() % 4,
      times: 1 + context.random() % 3,
      after: isUnknown && context.chance(2),
      error: isUnknown
        ? new ErrUnknownOutcome("write() got no answer")
        : new ErrStoreFull("ENOSPC: no space left"),
    };
  }

  /** Dismisses some of the refused submissions. */
  dismissRefused(): void {
    for (const submission of this.replica?.pending() ?? []) {
      if (submission.state !== "refused" || this.#context.chance(2)) continue;
      this.commands.get(text(submission.cmd))!.isDismissed = true;
      this.#context.background(submission.dismiss());
    }
  }

  /** Describes its state, for a failure. */
  describe(): string {
    const { name, kind } = this;
    const { db, replica, failure } = this.process!;
    if (replica === undefined) return `${name} (${kind}) ${failure}`;
    const pending = replica.pending().map(({ cmd, state }) =>
      `${text(cmd)} ${state}`
    );
    return `${name} (${kind}) ${db.state} ${db.status.error} at ${replica.appliedIndex}: ${pending}`;
  }
}
