/**
 * A simulated device: it submits commands, dies, is offline, suspended, copied and
 * refused.
 *
 * @module
 */

import {
  ErrClusterClosed,
  ErrDiverged,
  ErrOtherHistory,
  ErrOutboxCopied,
  ErrProposalRefused,
  ErrSkippedApplied,
  ErrStoreFull,
  ErrSystemBusy,
  ErrUnknownOutcome,
  ErrUpdateFailed,
  type HostEvent,
  NodeHost,
  type Replica,
  type ReplicaStatus,
  type Submission,
  type Watch,
} from "../../mod.ts";
import { BlockOutbox, type BlockStore } from "../../src/ports/mod.ts";
import { BlockSnapshotStore } from "../../src/snapshot/block_snapshot_store.ts";
import { RemoteLogDB, type RemoteState } from "../../src/sync/client/mod.ts";
import { decodeMessage } from "../../src/sync/message_codec.ts";
import { unpackFrame } from "../../src/sync/packing.ts";
import type { Transport } from "../../src/sync/transport.ts";
import { SharedTabs } from "../../src/tabs/shared_tabs.ts";
import type { TabState } from "../../src/tabs/tab_state.ts";
import {
  derivedSeed,
  type SimulatedEnv,
} from "../../src/testing/simulated_clock.ts";
import type { Cut } from "../../src/testing/simulated_network.ts";
import { SimulatedOrigin, type SimulatedTab } from "../tabs/origin.ts";
import type { WorldContext } from "./context.ts";
import {
  type Damage,
  missedIfLost,
  reportsDamage,
  SimulatedDisk,
} from "./disk.ts";
import type { Operation } from "./history.ts";
import {
  ALL,
  type Build,
  commandOf,
  DENIED,
  drawCode,
  encodeCommand,
  keyOf,
  type LedgerKind,
  POISON,
  startLedger,
  textOf,
  textOfSubmission,
} from "./machines.ts";
import type { DeviceProfile, End } from "./plan.ts";
import type { Server } from "./server.ts";
import type { Tokens } from "./tokens.ts";

/** Submitted command, over all lives of the process. */
export interface Command {
  readonly text: string;
  readonly operation: Operation;
  isStored: boolean;
  /** True while the outbox stores it: the view shows it, and no more if that fails. */
  isStoring: boolean;
  isDismissed: boolean;
  /** True if the outbox could not take it. */
  isTurnedDown: boolean;
}

/** Watch of a view. */
export interface Watched {
  readonly replica: Replica;
  readonly watch: Watch<string[]>;
}

/** One cluster on a device. */
export class Seat {
  readonly cluster: bigint;
  readonly kind: LedgerKind;
  /** Disk of an on-disk machine. */
  readonly disk: SimulatedDisk;
  /** Commands of the device: of all tabs of its origin. */
  readonly commands: Map<string, Command>;
  /** Submissions that its processes have got, by command. */
  readonly submissions: Map<string, Submission> = new Map();
  /** Commands that its present process must show until they are refused. */
  readonly shown: Set<string> = new Set();
  replica: Replica | undefined;
  /** State of its replica when it was last looked at. */
  state: ReplicaStatus["state"] | "starting" = "starting";
  /** Error of a start that failed. */
  failure: unknown;
  isStartingOver = false;
  /** True once its outbox has turned out to be a copy. */
  isCopied = false;
  /** Set while its present process has shown a view without the queued commands. */
  isHiding = false;
  /** Set once it has started over, as long as it may not know yet, also in a later process, which of its submissions the server has. */
  isReconciling = false;
  /** Number of restores of the log that its state comes from; -1 while that is not known. */
  restores = 0;
  /** Highest applied index that was seen. */
  applied = 0;
  /** Longest list of committed commands that was seen. */
  committed: readonly string[] = [];
  /** Watches of its present process, by key. */
  readonly watched: Map<string, Watched> = new Map();

  constructor(
    cluster: bigint,
    kind: LedgerKind,
    disk: SimulatedDisk,
    commands: Map<string, Command> = new Map(),
  ) {
    this.cluster = cluster;
    this.kind = kind;
    this.disk = disk;
    this.commands = commands;
  }

  /** True if a command is stored here, and the cluster may have it. */
  mustShow(name: string): boolean {
    const { isDismissed } = this.commands.get(name)!;
    const state = this.submissions.get(name)?.state ?? "queued";
    // A copied submission is sent by the other device, and shown after that. Code
    // that throws at a poisoned command does not show it.
    return !isDismissed && !this.isCopied && !name.endsWith(DENIED) &&
      !name.endsWith(POISON) &&
      (state === "queued" || state === "applied");
  }

  /** Commands that a process is storing. */
  storing({ name }: Process): string[] {
    const storing: string[] = [];
    for (const { isStoring, operation, text } of this.commands.values()) {
      if (isStoring && operation.process === name) storing.push(text);
    }
    return storing;
  }

  /** Expects nothing of what it showed before: its state is built again. */
  forget(): void {
    this.shown.clear();
    this.applied = 0;
    this.committed = [];
  }
}

/** Tab of a process. */
interface Tab {
  readonly page: SimulatedTab;
  readonly tabs: SharedTabs;
  /** True once it was suspended. */
  wasAway: boolean;
}

/** Process of a device, from its start to its end. */
export interface Process {
  readonly name: string;
  readonly env: SimulatedEnv;
  readonly db: RemoteLogDB;
  /** Hosts: one, or one for each cluster. */
  readonly hosts: readonly NodeHost[];
  /** Build of its machines. */
  readonly build: Build;
  /** Tab that it is; undefined for a process with stores of its own. */
  readonly tab: Tab | undefined;
  /** Time at which it began, or was last resumed. */
  awakeAt: number;
  isOver: boolean;
}

/** Store of a device that its tabs share. */
type StoreName = "outbox" | "copy" | "snapshots";

/** Host of a cluster in a process. */
function hostOf({ hosts }: Process, { cluster }: Seat): NodeHost {
  return hosts[Number(cluster) - 1] ?? hosts[0]!;
}

/** A device, over all lives of its process. */
export class Device {
  readonly name: string;
  readonly owner: string;
  readonly profile: DeviceProfile;
  readonly seats: readonly Seat[];
  readonly outbox: SimulatedDisk;
  readonly copy: SimulatedDisk;
  readonly snapshots: SimulatedDisk;
  /** Origin whose stores it shares, as one of its tabs; undefined if it has stores of its own. */
  readonly origin: SimulatedOrigin | undefined;
  /** Tabs of that origin, itself among them; itself alone if it has stores of its own. */
  readonly tabs: Device[];
  readonly #nodeID: bigint;
  readonly #context: WorldContext;
  readonly #random: () => number;
  readonly #code: () => number;
  readonly #servers: readonly Server[];
  readonly #tokens: Tokens;
  process: Process | undefined;
  isOffline = false;
  /** True if a write of its copy may have failed since its process began: the copy then ends there. */
  #isCopyBroken = false;
  /** True once a power cut may have put its outbox back. */
  wasCut = false;
  /** Number of restores of the log before its last connection. */
  connected = 0;
  #count = 0;
  #state: RemoteState = "offline";

  constructor(
    context: WorldContext,
    servers: readonly Server[],
    tokens: Tokens,
    nodeID: bigint,
    profile: DeviceProfile,
    outbox?: SimulatedDisk,
    beside?: Device,
  ) {
    this.#context = context;
    this.#servers = servers;
    this.#tokens = tokens;
    this.#nodeID = beside === undefined ? nodeID : beside.#nodeID;
    this.profile = profile;
    this.name = profile.name;
    this.owner = profile.owner;
    this.#random = context.random(profile.name);
    this.#code = context.random(`code of ${profile.name}`);
    this.outbox = beside?.outbox ?? outbox ?? new SimulatedDisk(context.env);
    this.outbox.isLying = context.profile.lyingSyncs;
    this.copy = beside?.copy ?? new SimulatedDisk(context.env);
    this.snapshots = beside?.snapshots ?? new SimulatedDisk(context.env);
    const clusters = profile.clusters?.map((i) => context.clusters[i]!) ??
      context.clusters;
    this.seats = clusters.map((cluster, i) =>
      new Seat(
        cluster,
        profile.kinds[i]!,
        new SimulatedDisk(context.env),
        beside?.seats[i]?.commands,
      )
    );
    this.origin = profile.origin === undefined
      ? undefined
      : beside?.origin ?? this.#newOrigin(profile.origin);
    this.tabs = beside?.tabs ?? [];
    this.tabs.push(this);
  }

  #newOrigin(name: string): SimulatedOrigin {
    const { clock, seed } = this.#context;
    const origin = `origin ${name}`;
    return new SimulatedOrigin(
      clock,
      derivedSeed(seed, origin),
      (store) => this[store as StoreName].faulty,
    );
  }

  /** State of its tab; undefined if it has stores of its own, or does not run. */
  get tabState(): TabState | undefined {
    return this.process?.tab?.tabs.status.state;
  }

  /** True if no view of its machines shows a command, committed or not. */
  hides(command: string): boolean {
    if (command.endsWith(DENIED)) return true;
    return command.endsWith(POISON) &&
      this.process?.build.throwsAt?.(command) !== false;
  }

  /** Error with which the machine of a cluster has failed; undefined if it has not. */
  failureOf({ replica }: Seat): unknown {
    return replica?.status.state === "failed"
      ? replica.status.error
      : undefined;
  }

  /** One of its clusters. */
  seat(cluster: bigint): Seat {
    return this.seats.find((seat) => seat.cluster === cluster)!;
  }

  /** True if it has a cluster. */
  has(cluster: bigint): boolean {
    return this.seats.some((seat) => seat.cluster === cluster);
  }

  /** True if the applied state of its machines survives a kill. */
  #isDurable({ kind }: Seat): boolean {
    return kind === "disk" || this.profile.hasCopy;
  }

  /** True if a replica has been told that its history is not the server's. */
  isOnOtherHistory({ failure, replica, isStartingOver }: Seat): boolean {
    const { process } = this;
    if (process === undefined || isStartingOver) return false;
    return failure instanceof ErrOtherHistory ||
      // A store that failed had cut a start over short.
      failure instanceof ErrStoreFull ||
      failure instanceof ErrUnknownOutcome ||
      replica?.status.error instanceof ErrOtherHistory ||
      // Its machine had failed before, which is what the replica says.
      replica?.status.state === "failed" &&
        process.db.status.error instanceof ErrOtherHistory;
  }

  // ------------------------------------------------------------- its process

  #connect(env: SimulatedEnv, url: string): Transport {
    const { network, restores } = this.#context;
    const number = Number(/server(\d+)/.exec(url)?.[1] ?? 0);
    const server = this.#servers[number]!;
    if (this.isOffline || !server.isServing) return network.refuse(env);
    const [here, there] = network.connect(
      this.name,
      env,
      server.name,
      server.env!,
    );
    here.onFrame = (frame): void => this.#arrived(frame);
    this.connected = restores;
    server.accept(there, url);
    return here;
  }

  /** Cuts the connection now and then when a part of a snapshot has arrived. */
  #arrived(frame: Uint8Array): void {
    const context = this.#context;
    if (!context.profile.cutSnapshots) return;
    if (decodeMessage(unpackFrame(frame)).type !== "chunk") return;
    if (context.isHealing || this.#random() % 6 > 0) return;
    context.history.fault("snapshot cut off");
    this.goOffline(
      (["clean", "halves", "silent"] as const)[this.#random() % 3]!,
    );
  }

  /** Milliseconds for which its process has run without a suspension; 0 while it does not run. */
  get awakeMs(): number {
    const { process } = this;
    return process === undefined || process.env.isSuspended
      ? 0
      : this.#context.clock.now - process.awakeAt;
  }

  /** Suspends its process; the browser tells a tab before that, or does not. */
  suspend(): void {
    const { process } = this;
    if (process === undefined || process.env.isSuspended) return;
    this.#context.history.fault("suspension");
    if (process.tab !== undefined) {
      const { page } = process.tab;
      const event = (["freeze", "hide", undefined] as const)[
        this.#random() % 3
      ];
      if (event !== undefined) page.happen(event);
      process.tab.wasAway = true;
      return page.suspend();
    }
    process.env.suspend();
  }

  /** Continues its process, if that is suspended; with `lost`, its clock has not advanced in between. */
  resume(lost = false): void {
    const { process } = this;
    if (!process?.env.isSuspended) return;
    process.awakeAt = this.#context.clock.now;
    if (process.tab === undefined) return process.env.resume(lost);
    const { page, tabs } = process.tab;
    page.resume(lost);
    page.soon(() => {
      if (tabs.status.state === "cached") page.happen("resume");
    });
  }

  /** Shows its tab to its user, or hides it. */
  show(isVisible: boolean): void {
    const { process } = this;
    if (process?.tab === undefined) return;
    const { page } = process.tab;
    page.isVisible = isVisible;
    if (!process.env.isSuspended) page.happen("visibility");
  }

  /** Takes the network away. */
  goOffline(how: Cut): void {
    this.isOffline = true;
    this.#context.network.cut(this.name, how);
  }

  /** Opens a store of the device, for a tab under the lease of the one that leads. */
  #store(
    name: StoreName,
    env: SimulatedEnv,
    tab: SimulatedTab | undefined,
  ): BlockStore {
    return tab?.store(name) ?? this.#open(this[name], env);
  }

  #open(disk: SimulatedDisk, env: SimulatedEnv): BlockStore {
    const random = this.#random;
    return disk.open(
      env,
      this.profile.isSlow ? (): number => 1 + random() % 4 : undefined,
    );
  }

  /** Begins to start; other actors go on during the start. */
  start(): void {
    if (this.process !== undefined) return;
    const context = this.#context;
    const { profile, history } = context;
    const { hasCopy, clock, usesAllServers } = this.profile;
    const { name, env } = context.newProcess(this.name, clock);
    const page = this.origin?.tab(env);
    const count = usesAllServers ? this.#servers.length : 1;
    const first = Number(this.#nodeID) % this.#servers.length;
    const urls = Array.from(
      { length: count },
      (_, i) => `ws://server${(first + i) % this.#servers.length}/sync`,
    );
    const db = new RemoteLogDB(urls, {
      env,
      hints: () => () => {},
      token: () => this.#tokens.held(this.owner),
      ...(hasCopy ? { copy: this.#store("copy", env, page) } : {}),
      connect: (url) => this.#connect(env, url),
    });
    const outbox = new BlockOutbox(this.#store("outbox", env, page), { env });
    const isDurable = this.seats.every((seat) => this.#isDurable(seat));
    const stores = isDurable
      ? {
        snapshots: new BlockSnapshotStore(
          this.#store("snapshots", env, page),
          { env },
        ),
      }
      : {};
    const tab = page && {
      page,
      wasAway: false,
      tabs: new SharedTabs("app", page.platform, {
        code: 1,
        onCluster: undefined,
      }),
    };
    const newHost = (): NodeHost =>
      new NodeHost({
        ...(tab === undefined ? {} : { tabs: tab.tabs }),
        logDB: db,
        env,
        outbox,
        ...stores,
        onEvent: (event) => this.#noteEvent(process, event),
      });
    const { splitsHosts } = this.profile;
    const hosts = splitsHosts ? this.seats.map(newHost) : [newHost()];
    if (splitsHosts) history.met("event", "two hosts in a process");
    const awakeAt = context.clock.now;
    const build: Build = {
      version: this.profile.version,
      filling: 0,
      throwsAt: profile.mixedCode ? drawCode(this.#code) : undefined,
    };
    const process: Process = {
      name,
      env,
      db,
      hosts,
      build,
      tab,
      awakeAt,
      isOver: false,
    };
    this.process = process;
    this.#state = "offline";
    let present = "joining";
    tab?.tabs.watch(({ state }) => {
      history.transition("tab", present, state);
      present = state;
      if (state === "memory") {
        context.fail(
          "tabs",
          `${name} shares nothing: ${tab.tabs.status.reason}`,
        );
      }
    });
    const states = new Map<bigint, string>();
    db.watch(({ state, error, clusters }) => {
      if (error !== undefined) history.failed(error);
      for (const { clusterID, state } of clusters) {
        const before = states.get(clusterID) ?? "waiting";
        if (state === before) continue;
        history.transition("cluster", before, state);
        states.set(clusterID, state);
      }
      if (state === this.#state) return;
      history.transition("connection", this.#state, state);
      this.#state = state;
    });
    for (const seat of this.seats) {
      seat.restores = profile.restores ? -1 : 0;
      seat.replica = undefined;
      seat.state = "starting";
      seat.failure = undefined;
      seat.isStartingOver = false;
      seat.isCopied = this.tabs.some((tab) =>
        tab !== this && tab.process !== undefined &&
        tab.seat(seat.cluster).isCopied
      );
      seat.isHiding = false;
      seat.applied = 0;
      seat.committed = [];
      seat.watched.clear();
      // What was committed is known from the log alone, and that may not arrive for long.
      const isKept = isDurable && tab === undefined &&
        !(this.#isCopyBroken && seat.kind !== "disk");
      if (!isKept) seat.shown.clear();
      this.#startSeat(process, seat);
    }
    this.#isCopyBroken = this.copy.faulty.fault !== undefined;
  }

  #startSeat(process: Process, seat: Seat): void {
    const context = this.#context;
    const { profile } = context;
    context.background(
      process.env,
      `start of ${process.name}`,
      startLedger(
        hostOf(process, seat),
        seat.kind,
        {
          clusterID: seat.cluster,
          nodeID: this.#nodeID,
          snapshotEntries: this.profile.snapshotEntries,
          hashEntries: profile.hashEntries,
          compression: profile.compression,
        },
        this.#open(seat.disk, process.env),
        process.build,
      ).then(
        (replica) => this.#started(process, seat, replica),
        (error) => this.#startFailed(process, seat, error),
      ),
    );
  }

  #startFailed(process: Process, seat: Seat, error: unknown): void {
    if (process.isOver) return;
    // It is being stopped.
    if (this.process !== process && error instanceof ErrClusterClosed) return;
    const { profile, history } = this.#context;
    history.failed(error);
    seat.failure = error;
    const mayDiverge = profile.restores || profile.lyingSyncs;
    if (mayDiverge && error instanceof ErrDiverged) return;
    if (this.#reportsDamage(error)) return;
    // The tab that leads has reported it.
    if (
      process.tab !== undefined && this.outbox.isDamaged &&
      error instanceof ErrClusterClosed
    ) return;
    if (
      profile.fullStores &&
      (error instanceof ErrStoreFull || error instanceof ErrUnknownOutcome)
    ) return;
    this.#context.fail("start", `${this.name} did not start: ${error}`);
  }

  #started(process: Process, seat: Seat, replica: Replica): void {
    if (process.isOver) return;
    seat.replica = replica;
    for (const submission of replica.pending()) {
      const name = commandOf(submission.cmd);
      const command = seat.commands.get(name);
      if (command === undefined || command.isTurnedDown) {
        this.#context.fail(
          "outbox",
          `${this.name} has ${name}, never submitted there`,
        );
        continue;
      }
      if (command.isDismissed) continue;
      this.#stored(seat, command);
      this.#follow(seat, command, submission);
    }
  }

  #noteEvent(process: Process, event: HostEvent): void {
    if (process.isOver) return;
    const context = this.#context;
    const { profile, history } = context;
    context.noteEvent("device", event);
    const mayDiverge = profile.restores || profile.lyingSyncs;
    const { clusterID } = event as { clusterID?: bigint };
    const seat = clusterID === undefined ? undefined : this.seat(clusterID);
    switch (event.type) {
      case "outbox failed":
        if (event.error instanceof ErrOutboxCopied) {
          // All tabs have one outbox.
          for (const tab of this.tabs) tab.seat(clusterID!).isCopied = true;
          history.met("event", "outbox is a copy");
          // An outbox that a power cut put back looks the same.
          if (!profile.copies && !profile.powerCuts && !profile.lyingSyncs) {
            context.fail("outbox", `${this.name} is no copy`);
          }
        }
        break;
      case "failed":
        if (mayDiverge && event.error instanceof ErrDiverged) break;
        if (
          profile.poisons && (event.failure instanceof ErrUpdateFailed ||
            event.failure instanceof ErrSkippedApplied)
        ) {
          // Until it has read the decision to skip that entry, it shows the state before it.
          seat?.forget();
          break;
        }
        context.fail("device", `${this.name} failed: ${event.error}`);
        break;
      case "diverged":
      case "hash failed":
        // Hashes may show it before the log does.
        if (mayDiverge) break;
        context.fail("device", `${this.name} ${event.type}: ${event.error}`);
        break;
      case "close failed":
        context.fail("device", `${this.name} ${event.type}: ${event.error}`);
    }
  }

  /** Disks of the device. */
  get #disks(): SimulatedDisk[] {
    const machines = this.seats.map(({ disk }) => disk);
    return [this.outbox, this.copy, this.snapshots, ...machines];
  }

  /** Ends the process. */
  stop(how: End, written: number): void {
    const { process } = this;
    if (process === undefined) return;
    const context = this.#context;
    this.process = undefined;
    const { tab } = process;
    context.history.fault(`${tab === undefined ? "device" : "tab"}: ${how}`);
    if (how === "stop") {
      const stop = async (): Promise<void> => {
        await Promise.all(process.hosts.map((host) => host.stop()));
        await process.db.close();
      };
      context.until(stop(), `Stop of ${process.name}`);
      process.isOver = true;
      return;
    }
    this.#die(process);
    // The browser goes on, and with it what the tab has begun to write.
    if (tab !== undefined && how === "kill") return;
    for (const other of this.tabs) {
      const { process } = other;
      other.process = undefined;
      if (process !== undefined) other.#die(process);
    }
    this.origin?.cutPower();
    for (const disk of this.#disks) {
      disk.crash(how === "kill" ? Infinity : written % (disk.unsynced + 1));
    }
    if (how !== "power cut") return;
    for (const { name, seats } of this.tabs) {
      context.history.mayLose(name);
      for (const { cluster, shown } of seats) {
        context.history.excuse(cluster, "power cut");
        shown.clear();
      }
    }
    for (const tab of this.tabs) tab.wasCut = true;
  }

  #die(process: Process): void {
    process.isOver = true;
    this.#context.network.die(this.name);
    if (process.tab === undefined) process.env.kill();
    else process.tab.page.kill();
  }

  /** Kills all its tabs. */
  #killAll(): void {
    for (const tab of this.tabs) tab.stop("kill", 0);
    // Their browser has ended, too.
    this.origin?.cutPower();
  }

  /** Damages a block of one of its stores, which its next start finds; an outbox while its process runs, which that does not survive. */
  damage(
    store: "copy" | "snapshots" | "outbox",
    how: Damage,
    block: number,
  ): void {
    if (store === "outbox") this.#killAll();
    if (this.tabs.some(({ process }) => process !== undefined)) return;
    const disk = this[store];
    const names = how === "lost" && store === "outbox"
      ? missedIfLost(disk.names())
      : disk.names();
    if (names.length === 0) return;
    this.#context.history.fault(`block of ${store} ${how}`);
    disk.damage(names[block % names.length]!, how, this.#random);
    for (const tab of this.tabs) {
      for (const { shown } of tab.seats) shown.clear();
    }
  }

  /** Has its user repair the outbox, if it is damaged, and start the process again. */
  repair(): void {
    if (!this.outbox.isDamaged) return;
    this.#killAll();
    this.outbox.repair();
  }

  /** True if an error rightly reports a damaged outbox; a store that may be thrown away must not report it. */
  #reportsDamage(error: unknown): boolean {
    if (!this.outbox.isDamaged || !reportsDamage(error)) return false;
    this.#context.history.met("event", "damage of the outbox reported");
    return true;
  }

  /** Begins to start over on the server's history, as its user asks. */
  startOver(seat: Seat): void {
    const { process } = this;
    if (process === undefined || seat.isStartingOver) return;
    this.#context.history.met("event", "start over");
    seat.failure = undefined;
    seat.isStartingOver = true;
    seat.replica = undefined;
    seat.restores = -1;
    seat.isReconciling = true;
    // Cut short, it may have taken effect: the next process then begins with nothing.
    seat.forget();
    this.#context.background(
      process.env,
      `startOver() in ${process.name}`,
      hostOf(process, seat).startOver(seat.cluster).then((replica) => {
        seat.isStartingOver = false;
        if (process.isOver) return;
        seat.forget();
        seat.failure = undefined;
        this.#started(process, seat, replica);
      }, (error) => {
        seat.isStartingOver = false;
        this.#startFailed(process, seat, error);
      }),
    );
  }

  // ------------------------------------------------------------ its commands

  /** Draws the text of its next command. */
  next(key: string, flag: string): string {
    return `${this.name}:${this.#count++}:${key}:${flag}`;
  }

  /** Submits a command. */
  submit(cluster: bigint, key: string, flag: string, filling: number): void {
    const { process } = this;
    const seat = this.seat(cluster);
    const { replica } = seat;
    if (replica === undefined || process === undefined) return;
    const { history, profile } = this.#context;
    const text = this.next(key, flag);
    const operation = history.begin({
      process: process.name,
      cluster,
      kind: "submit",
      key,
      input: text,
      session: this.name,
    });
    const command: Command = {
      text,
      operation,
      isStored: false,
      isStoring: true,
      isDismissed: false,
      isTurnedDown: false,
    };
    seat.commands.set(text, command);
    const end = (kind: "rejected" | "unknown", error: unknown): void =>
      history.end(operation, { kind, error });
    replica.submit(encodeCommand(text, filling)).then(
      (submission) => {
        command.isStoring = false;
        if (process.isOver) return;
        this.#stored(seat, command);
        this.#follow(seat, command, submission);
      },
      (error) => {
        command.isStoring = false;
        // The answer of a process that is dead reaches no caller.
        if (process.isOver) return;
        if (error instanceof ErrStoreFull || error instanceof ErrSystemBusy) {
          command.isTurnedDown = true;
          end("rejected", error);
        } else if (
          error instanceof ErrUnknownOutcome ||
          error instanceof ErrOutboxCopied && seat.isCopied ||
          error instanceof ErrClusterClosed ||
          error instanceof ErrDiverged && profile.restores ||
          this.#reportsDamage(error)
        ) end("unknown", error);
        else {
          end("unknown", error);
          this.#context.fail("submit", `submit of ${text}: ${error}`);
        }
      },
    );
  }

  #stored(seat: Seat, command: Command): void {
    command.isStored = true;
    this.#context.history.stored(command.operation);
    seat.shown.add(command.text);
  }

  #follow(seat: Seat, command: Command, submission: Submission): void {
    const { history } = this.#context;
    const { operation, text } = command;
    const { process } = this;
    seat.submissions.set(text, submission);
    const settled = (state: string): void =>
      history.transition("submission", "queued", state);
    submission.result.then(
      ({ value, data }) => {
        settled("applied");
        // A later process may get it again.
        if (operation.end === undefined) operation.answeredBy = process?.name;
        if (textOf(data) !== text) {
          this.#context.fail("result", `${text} has the result of another`);
        }
        history.end(operation, { kind: "ok", value: Number(value) });
      },
      (error) => {
        if (error instanceof ErrProposalRefused) {
          settled("refused");
          history.end(operation, { kind: "rejected", error });
        } else if (
          process?.tab?.wasAway && error instanceof ErrUnknownOutcome &&
          error.applied
        ) {
          // Other tabs have acknowledged it, and its entry is compacted.
          history.met("event", "result lost to a tab that was away");
        } else if (
          error instanceof ErrUnknownOutcome || error instanceof ErrOutboxCopied
        ) {
          settled("unknown");
          history.end(operation, { kind: "unknown", error });
        } // Otherwise it stays in the outbox.
        else history.failed(error);
      },
    );
  }

  /** Takes over the commands of a device whose outbox was copied here. */
  inherit({ seats }: Device): void {
    for (const { cluster, commands, submissions } of seats) {
      const seat = this.seat(cluster);
      for (const [text, command] of commands) {
        seat.commands.set(text, { ...command });
      }
      for (const [text, one] of submissions) seat.submissions.set(text, one);
    }
  }

  /** Has a store fail at one of its next writes. */
  breakStore(
    store: "outbox" | "copy" | "snapshots" | "machine",
    after: number,
    times: number,
    how: "full" | "unknown" | "unknown after",
  ): void {
    const disk = store === "machine" ? this.seats[0]!.disk : this[store];
    disk.breakWrites(after, times, how);
    if (store === "copy") this.#isCopyBroken = true;
  }

  /** Ends the faults of its stores. */
  mend(): void {
    for (const disk of this.#disks) disk.faulty.fault = undefined;
  }

  /** Dismisses some of the refused submissions. */
  dismissRefused(): void {
    const { process } = this;
    if (process === undefined) return;
    for (const { replica, commands } of this.seats) {
      for (const submission of replica?.pending() ?? []) {
        if (submission.state !== "refused" || this.#random() % 2 > 0) continue;
        const command = commands.get(textOfSubmission(submission))!;
        command.isDismissed = command.operation.isDismissed = true;
        this.#context.background(
          process.env,
          `dismiss() in ${process.name}`,
          submission.dismiss(),
        );
      }
    }
  }

  /** Describes its state, for a failure. */
  describe(): string {
    const { name, process } = this;
    if (process === undefined) return `${name} is down`;
    const { db } = process;
    const seats = this.seats.map(({ cluster, kind, replica, failure }) => {
      if (replica === undefined) return `${cluster} (${kind}) ${failure}`;
      const pending = replica.pending().map(({ cmd, state }) =>
        `${commandOf(cmd)} ${state}`
      );
      return `${cluster} (${kind}) at ${replica.appliedIndex}, ${replica.status.state} ${
        replica.status.error ?? ""
      }: ${pending}`;
    });
    return `${name} ${this.tabState ?? ""} ${db.state} ${
      db.status.error ?? ""
    }, ${seats.join(", ")}`;
  }
}

export { ALL, keyOf };
