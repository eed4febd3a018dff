/**
 * A whole system in one process, over simulated network, storage and time:
 * servers on one log, devices that submit commands, and operators, with all that
 * goes wrong with them.
 *
 * @module
 */

import { ErrUpdateFailed, type Replica } from "../../mod.ts";
import { SYNC_BUFFERED_BYTES_MAX } from "../../src/limits.ts";
import { WorldContext } from "./context.ts";
import { Device, type Seat } from "./device.ts";
import { drain, inTurn } from "./env.ts";
import type { History } from "./history.ts";
import { Importer } from "./importer.ts";
import { LogService } from "./log.ts";
import { ALL, commandOf, POISON, textOfSubmission } from "./machines.ts";
import type { End, Plan, Step } from "./plan.ts";
import { Server } from "./server.ts";
import { Tokens } from "./tokens.ts";
import { expectedView, type Place, Workload } from "./workload.ts";

export { drawPlan } from "./plan.ts";
export type { Plan, Profile, Step } from "./plan.ts";

/** Time in which everything must be live once the faults have stopped, in simulated milliseconds. */
const HEAL_MS = 300_000;

/** Time in which every call must be answered once everything is live, in simulated milliseconds. */
const ANSWER_MS = 6_000;

/** Time after which no append that was told to be of unknown outcome lands any more. */
const LATE_MS = 7_000;

/** Time after which a server no longer holds the log for a reader that is away. */
const ABSENT_MS = 310_000;

/** Time after which the devices that run must know that a cluster of the server has failed. */
const FAILURE_KNOWN_MS = 20_000;

/** The servers and devices of a plan. */
export class World {
  readonly plan: Plan;
  readonly context: WorldContext;
  readonly devices: Device[] = [];
  readonly servers: readonly Server[];
  readonly log: LogService;
  readonly tokens: Tokens = new Tokens();
  readonly workload: Workload;
  readonly #importer: Importer;
  readonly #named = new Map<string, Device>();
  /** Place of the device that its user looks at next. */
  #looked = 0;

  constructor(plan: Plan, history: History) {
    this.plan = plan;
    const context = this.context = new WorldContext(
      plan.seed,
      plan.profile,
      history,
    );
    this.log = new LogService(context);
    this.workload = new Workload(context);
    this.#importer = new Importer(context, this.workload);
    this.servers = plan.profile.servers.map((_, i) =>
      new Server(context, i, this.log, this.tokens)
    );
    plan.profile.devices.forEach((profile, i) => {
      const { origin } = profile;
      this.#add(
        new Device(
          context,
          this.servers,
          this.tokens,
          BigInt(i + 1),
          profile,
          undefined,
          origin === undefined
            ? undefined
            : this.devices.find((one) => one.profile.origin === origin),
        ),
      );
    });
  }

  /** Runs all steps, ends the faults, waits until everything is live, and leaves the final states in the history. */
  async run(): Promise<void> {
    await inTurn(() => this.begin());
    const { steps } = this.plan;
    for (let i = 0; i < steps.length;) {
      // A turn of the event loop for each wait, in which unhandled rejections are reported.
      await inTurn(() => {
        do {
          this.step(steps[i]!);
          drain();
        } while (steps[i++]!.kind !== "wait" && i < steps.length);
      });
    }
    await inTurn(() => this.heal());
    if (this.plan.profile.checksLog) {
      await inTurn(() => this.#checkLog());
      await inTurn(() => this.heal());
    }
    await inTurn(() => this.finish());
    await inTurn(() => this.end());
  }

  /** Starts everything. */
  begin(): void {
    if (this.log.isRemote) this.log.start();
    for (const server of this.servers) server.start();
    this.context.advance(200);
    for (const device of this.devices) device.start();
    this.context.advance(200);
  }

  // ------------------------------------------------------------------- steps

  #add(device: Device): void {
    this.devices.push(device);
    this.#named.set(device.name, device);
  }

  #device(name: string): Device | undefined {
    return this.#named.get(name);
  }

  #server(name: string): Server | undefined {
    return this.servers.find((server) => server.name === name);
  }

  /** Replica of a cluster in a process, while it runs and is on the present history. */
  #place(at: string, cluster: bigint): Place | undefined {
    const device = this.#device(at);
    if (device === undefined) {
      const server = this.#server(at);
      const replica = server?.replica(cluster);
      const { env, process } = server ?? {};
      if (replica === undefined || env === undefined) return undefined;
      return {
        process: process!,
        env,
        cluster,
        replica,
        isOver: () => env.isDead || server!.process !== process,
        isReplaced: () => false,
      };
    }
    const { process } = device;
    if (!device.has(cluster)) return undefined;
    const { replica } = device.seat(cluster);
    if (process === undefined || replica === undefined) return undefined;
    const { name, env } = process;
    return {
      process: name,
      env,
      cluster,
      replica,
      isOver: () => process.isOver,
      isReplaced: () => device.seat(cluster).replica !== replica,
    };
  }

  /** Takes one step; one that does not apply does nothing. */
  step(step: Step): void {
    const { history, network } = this.context;
    switch (step.kind) {
      case "wait":
        return this.#wait(step.ms);
      case "submit": {
        const device = this.#device(step.device);
        const cluster = BigInt(step.cluster + 1);
        if (device === undefined || device.profile.name.endsWith("'")) return;
        if (!device.has(cluster)) return;
        return device.submit(
          cluster,
          `k${step.key}`,
          step.flag,
          step.filling,
        );
      }
      case "propose": {
        const place = this.#place(step.at, BigInt(step.cluster + 1));
        if (place === undefined) return;
        return this.workload.propose(
          place,
          `k${step.key}`,
          step.session,
          step.filling,
          step.abortMs,
        );
      }
      case "read":
      case "staleRead":
      case "naRead":
      case "view":
      case "watch":
        return this.#look(
          step.at,
          BigInt(step.cluster + 1),
          step.kind,
          step.key,
        );
      case "session": {
        const place = this.#place(step.at, BigInt(step.cluster + 1));
        if (place !== undefined) this.workload.openSession(place);
        return;
      }
      case "closeSession": {
        const cluster = BigInt(step.cluster + 1);
        const place = this.#place("s0", cluster);
        if (place !== undefined) {
          this.workload.closeSession(place, step.session);
        }
        return;
      }
      case "cut":
        history.fault(`cut: ${step.how}`);
        return network.cut(step.at, step.how);
      case "stall":
        history.fault("stall");
        return network.stall(step.at, step.ms);
      case "offline": {
        history.fault("offline");
        const server = this.#server(step.at);
        if (server !== undefined) server.isUnreachable = true;
        else this.#device(step.at)?.goOffline(step.how);
        return;
      }
      case "online": {
        const server = this.#server(step.at);
        if (server !== undefined) server.isUnreachable = false;
        const device = this.#device(step.at);
        if (device !== undefined) device.isOffline = false;
        return;
      }
      case "end":
        return this.#end(step.at, step.how, step.written);
      case "start":
        return this.#start(step.at);
      case "suspend":
      case "resume":
        return this.#suspend(step.at, step.kind, step.lost);
      case "expireToken":
        history.fault("token expires");
        return this.tokens.expire(step.owner);
      case "renewToken":
        return this.#renew(step.owner);
      case "evict":
        return this.#evict(BigInt(step.cluster + 1));
      case "compact": {
        const place = this.#place(step.at, BigInt(step.cluster + 1));
        if (place === undefined) return;
        return this.context.background(
          place.env,
          `requestSnapshot() in ${place.process}`,
          place.replica.requestSnapshot().catch((error) =>
            history.failed(error)
          ),
        );
      }
      case "copyOutbox": {
        const device = this.#device(step.device);
        if (device !== undefined) this.#copy(device);
        return;
      }
      case "adoptOutbox": {
        const device = this.#device(step.device);
        for (const { replica } of device?.seats ?? []) replica?.adoptOutbox();
        return;
      }
      case "breakStore":
        return this.#breakStore(step);
      case "show":
      case "hide":
        return this.#device(step.device)?.show(step.kind === "show");
      case "dismiss":
        return this.#device(step.device)?.dismissRefused();
      case "backup":
        return this.log.backUp();
      case "restore":
        return this.#restore();
      case "poison": {
        const place = this.#place(step.at, BigInt(step.cluster + 1));
        if (place !== undefined) {
          this.workload.propose(place, "k0", -1, 0, 0, POISON);
        }
        return;
      }
      case "operate":
        for (const server of this.servers) this.#operate(server);
        for (const device of this.devices) this.#operateFor(device);
        return;
      case "startOver": {
        const device = this.#device(step.device);
        for (const seat of device?.seats ?? []) {
          if (device!.isOnOtherHistory(seat)) device!.startOver(seat);
        }
        return;
      }
      case "breakReads":
      case "mendReads": {
        const server = this.#server(step.at);
        if (server === undefined) return;
        if (step.kind === "mendReads") return this.log.mend(server.process);
        history.fault("reads of the log fail");
        return this.log.break(server.process);
      }
      case "damage":
        return this.#damage(step);
      case "export":
        return this.#export(step.at, BigInt(step.cluster + 1), step.parts);
    }
  }

  /** Lets time pass, in which the users look at their devices. */
  #wait(ms: number): void {
    const { context } = this;
    for (let left = ms; left > 0;) {
      const part = Math.min(left, 1 + (ms >> 1));
      context.advance(part);
      left -= part;
      for (const device of this.#looks()) this.#observe(device);
      for (const server of this.servers) server.observe();
    }
  }

  /** Devices that their users look at now. */
  #looks(): readonly Device[] {
    const { devices } = this;
    const { looks } = this.context.profile;
    if (looks === 0 || looks >= devices.length) return devices;
    const from = this.#looked;
    this.#looked = (from + looks) % devices.length;
    return Array.from(
      { length: looks },
      (_, i) => devices[(from + i) % devices.length]!,
    );
  }

  #end(at: string, how: End, written: number): void {
    if (at === "log") {
      if (!this.log.isRemote || !this.log.isUp) return;
      this.context.history.fault(`log: ${how}`);
      if (how === "stop") {
        this.context.until(this.log.stop(how), "Stop of the log");
        return;
      }
      // Resolves at once: it only forgets its process.
      void this.log.stop(how);
      this.log.crash(how, written);
      return;
    }
    const device = this.#device(at);
    const server = this.#server(at);
    if (how === "stop") {
      device?.resume();
      server?.env?.resume();
    }
    device?.stop(how, written);
    server?.stop(how, written);
  }

  #start(at: string): void {
    if (at === "log") {
      if (this.log.isRemote && !this.log.isUp) this.log.start();
      return;
    }
    this.#device(at)?.start();
    this.#server(at)?.start();
  }

  #suspend(at: string, kind: "suspend" | "resume", lost: boolean): void {
    const device = this.#device(at);
    if (device !== undefined) {
      return kind === "resume" ? device.resume(lost) : device.suspend();
    }
    const env = this.#server(at)?.env;
    if (env === undefined) return;
    if (kind === "resume") return env.resume(lost);
    this.context.history.fault("suspension");
    env.suspend();
  }

  #renew(owner: string): void {
    if (!this.tokens.renew(owner)) return;
    for (const device of this.devices) {
      if (device.owner === owner) device.process?.db.reconnect();
    }
  }

  /** Opens so many sessions of other clients that those of the devices are evicted. */
  #evict(cluster: bigint): void {
    const { context } = this;
    for (const server of this.servers) {
      const replica = server.replica(cluster);
      if (replica === undefined || server.env === undefined) continue;
      context.history.session("evicted", cluster);
      for (let i = 0; i < context.profile.sessionsMax; i++) {
        context.background(
          server.env,
          `openSession() in ${server.process}`,
          replica.openSession(),
        );
      }
      return;
    }
  }

  /** Another device begins with a copy of a device's outbox. */
  #copy(device: Device): void {
    const { context } = this;
    const name = `${device.name}'`;
    if (
      device.name !== device.owner || this.#device(name) !== undefined ||
      device.outbox.isDamaged
    ) return;
    context.history.fault("outbox copied");
    for (const cluster of context.clusters) {
      context.history.excuse(cluster, "copy");
    }
    const copy = new Device(
      context,
      this.servers,
      this.tokens,
      BigInt(this.devices.length + 1),
      {
        ...device.profile,
        name,
        hasCopy: false,
        // One tab of another browser.
        ...(device.origin === undefined ? {} : { origin: name }),
      },
      device.outbox.copy(),
    );
    if (device.origin !== undefined) {
      copy.origin!.disk("outbox").token = device.origin.disk("outbox").token;
    }
    this.#add(copy);
    copy.inherit(device);
    copy.start();
  }

  #breakStore(
    { at, store, after, times, how }: Step & { kind: "breakStore" },
  ): void {
    this.context.history.fault(`${store}: ${how}`);
    if (store === "log") {
      if (how === "full") this.log.disk?.breakWrites(after, times, how);
      return;
    }
    this.#device(at)?.breakStore(store, after, times, how);
  }

  #damage({ device, store, how, block }: Step & { kind: "damage" }): void {
    if (store !== "log") {
      const owner = this.#device(device);
      owner?.damage(store, how, block);
      if (store === "outbox") owner?.start();
      return;
    }
    if (this.log.disk === undefined) return;
    this.#stopServers();
    if (this.log.damage(how, block)) {
      this.context.history.fault(`block of log ${how}`);
    }
    this.#startServers();
  }

  /** Kills the servers and the log. */
  #stopServers(): void {
    const { log } = this;
    for (const server of this.servers) server.stop("kill", 0);
    if (!log.isRemote || !log.isUp) return;
    // Resolves at once: it only forgets its process.
    void log.stop("kill");
    log.crash("kill", 0);
  }

  #startServers(): void {
    if (this.log.isRemote) this.log.start();
    for (const server of this.servers) server.start();
  }

  /** Has the operator and the users repair the stores that report damage, which they do not survive without. */
  #repair(): void {
    const { log, devices } = this;
    if (log.isDamaged) {
      this.#stopServers();
      log.disk!.repair();
    }
    for (const device of devices) device.repair();
  }

  /** Puts the log back to its backup; everything of the servers starts again. */
  #restore(): void {
    const { context, log } = this;
    if (!log.hasBackup) return;
    context.history.fault("restore");
    this.#stopServers();
    for (const server of this.servers) server.erase();
    context.restores++;
    log.restore();
    for (const cluster of context.clusters) {
      context.history.restored(cluster, log.lastIndex(cluster));
    }
    this.#startServers();
  }

  #operate(server: Server): void {
    if (!server.isUp || server.isWell) return;
    server.operate(() => {
      if (server.failedForMs < FAILURE_KNOWN_MS || this.servers.length > 1) {
        return;
      }
      for (const { name, process, isOffline, awakeMs } of this.devices) {
        // A suspended process, which shows nothing to anybody, learns it once it runs again.
        if (isOffline || awakeMs < FAILURE_KNOWN_MS) continue;
        if (process?.db.state === "live") {
          this.context.fail(
            "status",
            `${name} is live while the server's cluster has failed`,
          );
        }
      }
    });
  }

  /** Has the operator skip the entry at which the code of a device throws, or its user start other code. */
  #operateFor(device: Device): void {
    if (!this.context.profile.mixedCode) return;
    for (const seat of device.seats) {
      const error = device.failureOf(seat);
      if (error === undefined || device.process?.env.isSuspended) continue;
      const isNamed = error instanceof ErrUpdateFailed &&
        error.index === error.upTo;
      if (isNamed) this.servers[0]!.skipFor(seat.cluster, error);
      else {
        device.stop("stop", 0);
        device.start();
        return;
      }
    }
  }

  /** Exports a snapshot and reads some of its parts, or all to import them on another host. */
  #export(at: string, cluster: bigint, parts: number): void {
    const place = this.#place(at, cluster);
    if (place === undefined) return;
    const { history } = this.context;
    history.met("event", "export");
    if (parts === 0) return this.#importer.move(place);
    const read = async (): Promise<void> => {
      const reader = place.replica.exportSnapshot().getReader();
      for (let i = 0; i < parts; i++) {
        if ((await reader.read()).done) return;
      }
      await reader.cancel();
    };
    this.context.background(
      place.env,
      `exportSnapshot() in ${place.process}`,
      read().catch((error) => history.failed(error)),
    );
  }

  // ------------------------------------------------------------------- looks

  #hasCopies({ owner, origin, wasCut }: Device): boolean {
    // An outbox that a power cut has put back turns out to be one in the tab that leads.
    if (origin !== undefined && wasCut) return true;
    return this.#named.has(`${owner}'`);
  }

  /** Committed commands that a replica shows; undefined while it recovers. */
  #committed(replica: Replica): readonly string[] | undefined {
    if (replica.error !== undefined) return undefined;
    try {
      const list = replica.staleRead(ALL) as string[] | Promise<unknown>;
      if (!(list instanceof Promise)) return list;
      list.catch(() => {});
    } catch (error) {
      this.context.history.failed(error);
    }
    return undefined;
  }

  #look(
    at: string,
    cluster: bigint,
    kind: "read" | "staleRead" | "naRead" | "view" | "watch",
    number: number,
  ): void {
    const place = this.#place(at, cluster);
    if (place === undefined) return;
    const key = number < 0 ? ALL : `k${number}`;
    const device = this.#device(at);
    if (device === undefined) {
      if (kind === "watch") return;
      return this.workload.lookup(place, kind, key);
    }
    const seat = device.seat(cluster);
    if (!this.#isPresent(device, seat)) return;
    this.#noteSkip(seat);
    if (kind === "watch") {
      if (this.#hasCopies(device) || seat.watched.has(key)) return;
      const watch = this.workload.watch(
        place,
        key,
        () =>
          seat.restores === this.context.restores && !seat.isReconciling &&
          !this.#hasCopies(device),
        () => this.#mayRepeat(device, seat),
      );
      seat.watched.set(key, { replica: place.replica, watch });
      return;
    }
    if (kind !== "view") return this.workload.lookup(place, kind, key);
    this.#view(device, seat, place, key);
  }

  /** Checks that the watches of a device show what its views show, once nothing changes any more. */
  #checkWatches(device: Device, seat: Seat): void {
    const { name, process } = device;
    const { replica } = seat;
    if (process === undefined || replica === undefined) return;
    const committed = this.#committed(replica);
    if (committed === undefined || this.#hasCopies(device)) return;
    const isShown = (command: string): boolean =>
      !seat.isCopied && !device.hides(command);
    for (const [key, watched] of seat.watched) {
      if (watched.replica !== replica) continue;
      const expected = expectedView(replica, committed, [], key, isShown);
      const shown = watched.watch.getSnapshot() ?? [];
      const isSame = shown.length === expected.length &&
        shown.every((command, i) => command === expected[i]);
      if (isSame) continue;
      this.context.fail(
        "watch",
        `Watch of ${key} on ${name} shows ${shown} instead of ${expected}`,
      );
    }
  }

  #view(device: Device, seat: Seat, place: Place, key: string): void {
    // Until it is known which one sends on, each may show what the other sends.
    if (this.#hasCopies(device)) return;
    const committed = this.#committed(place.replica);
    if (committed === undefined) return;
    const isShown = (command: string): boolean =>
      !seat.isCopied && !device.hides(command);
    const shown = [...seat.shown];
    const { replica } = place;
    const storing = seat.storing(device.process!);
    this.workload.lookup(
      place,
      "view",
      key,
      (list) => {
        const expected = expectedView(
          replica,
          committed,
          storing,
          key,
          isShown,
        );
        if (!this.#mayHide(device, seat)) return expected;
        const hidden = expectedView(replica, committed, [], key, () => false);
        const isHiding = hidden.length < expected.length &&
          list.length === hidden.length;
        if (!isHiding) return expected;
        seat.isHiding = true;
        return hidden;
      },
      {
        isPresent: () =>
          seat.restores === this.context.restores && !seat.isReconciling &&
          !this.#hasCopies(device),
        mayRepeat: () => this.#mayRepeat(device, seat),
        answered: (list) => {
          if (key === ALL) this.#checkShown(device, seat, shown, list);
        },
      },
    );
  }

  /**
   * True if a device may hide its queued commands: from when it meets another
   * command in the place of its own until it knows the cause. An outbox that a power
   * cut has put back does; it then turns out to be a copy, which `finish()` checks.
   */
  #mayHide({ wasCut }: Device, { isCopied }: Seat): boolean {
    return wasCut && !isCopied;
  }

  /**
   * Commands that a device may show twice. A store that says that a write is durable
   * may lose in a power cut that commands were sent, which the outbox cannot know
   * before it has asked the server for a session: the server returns the one that it
   * has used. Until then it shows them as queued, beside those that are committed.
   */
  #mayRepeat(device: Device, seat: Seat): ReadonlySet<string> {
    const mayRepeat = this.context.profile.lyingSyncs &&
      this.#mayHide(device, seat);
    return new Set(mayRepeat ? this.#queued(seat) : []);
  }

  /** Commands that wait in the outbox and that a view must show. */
  #queued(seat: Seat): string[] {
    return (seat.replica?.pending() ?? [])
      .filter(({ state }) => state === "queued")
      .map(textOfSubmission)
      .filter((name) => seat.mustShow(name));
  }

  /** True if a device shows the present history of the server. */
  #isPresent(device: Device, seat: Seat): boolean {
    const { restores } = this.context;
    if (seat.restores === restores && !seat.isReconciling) return true;
    const { connected, process } = device;
    const { replica, cluster } = seat;
    const [server] = this.servers;
    if (
      connected !== restores || process?.db.state !== "live" ||
      replica?.status.state !== "running"
    ) return false;
    // Its submissions are not shown before that.
    if (seat.isReconciling) {
      seat.isReconciling = replica.pending().some(({ state }) =>
        state === "queued"
      );
    }
    if (seat.isReconciling) return false;
    const list = this.#committed(replica);
    const served = server?.replica(cluster);
    const all = served === undefined ? undefined : this.#committed(served);
    if (list === undefined || all === undefined) return false;
    // One of the two may have applied an entry that is skipped.
    const applied = Math.min(replica.appliedIndex, served!.appliedIndex);
    if (applied < this.context.history.lastSkip(cluster)) return false;
    const length = Math.min(all.length, list.length);
    for (let i = 0; i < length; i++) {
      if (all[i] === list[i]) continue;
      this.context.fail(
        "history",
        `${device.name} is live with ${list}, where the server has ${all}`,
      );
      return false;
    }
    seat.restores = restores;
    seat.applied = 0;
    seat.committed = [];
    return true;
  }

  /** Expects nothing of what a device showed that has not read the last decision to skip an entry: the device may have applied that. */
  #noteSkip(seat: Seat): void {
    const { history, profile } = this.context;
    if (!profile.mixedCode) return;
    if (seat.applied < history.lastSkip(seat.cluster)) seat.forget();
  }

  /** Looks at a device, as its user does. */
  #observe(device: Device): void {
    const { process } = device;
    if (process === undefined || process.env.isSuspended) return;
    for (const seat of device.seats) {
      const place = this.#place(device.name, seat.cluster);
      if (place === undefined) continue;
      const { appliedIndex, error, status } = place.replica;
      if (status.state !== seat.state) {
        this.context.history.transition("replica", seat.state, status.state);
        seat.state = status.state;
      }
      if (error !== undefined || !this.#isPresent(device, seat)) continue;
      this.#noteSkip(seat);
      if (appliedIndex < seat.applied) {
        this.context.fail(
          "monotonic",
          `${process.name} went back from ${seat.applied} to ${appliedIndex}`,
        );
      }
      seat.applied = appliedIndex;
      const committed = this.#committed(place.replica);
      if (committed === undefined) continue;
      if (committed.length < seat.committed.length) {
        this.context.fail(
          "monotonic",
          `${process.name} shows less than before`,
        );
      }
      seat.committed = committed;
      if (this.#hasCopies(device)) continue;
      this.#view(device, seat, place, ALL);
    }
  }

  /** Checks that commands that were submitted before a view was looked at are in sight. */
  #checkShown(
    device: Device,
    seat: Seat,
    shown: readonly string[],
    list: readonly string[],
  ): void {
    const seen = new Set<string>();
    const mayRepeat = this.#mayRepeat(device, seat);
    for (const name of list) {
      if (seen.has(name) && !mayRepeat.has(name)) {
        this.context.fail("view", `${device.name} sees one twice: ${list}`);
      }
      seen.add(name);
    }
    const queued = this.#mayHide(device, seat) ? this.#queued(seat) : [];
    const isHiding = queued.some((name) =>
      shown.includes(name) && !seen.has(name)
    );
    if (isHiding) seat.isHiding = true;
    for (const name of shown) {
      if (isHiding && queued.includes(name)) continue;
      // A command that was refused in between has vanished rightly.
      if (!seen.has(name) && seat.mustShow(name)) {
        this.context.fail(
          "view",
          `${device.name} does not see ${name}: ${list}`,
        );
      }
    }
  }

  // ----------------------------------------------------------------- the end

  /** Ends all faults, and waits until every device has everything. */
  heal(): void {
    const { context, log } = this;
    context.isHealing = true;
    log.mend(undefined);
    this.#repair();
    if (log.disk !== undefined) log.disk.faulty.fault = undefined;
    if (log.isRemote && !log.isUp) log.start();
    for (const server of this.servers) {
      server.isUnreachable = false;
      server.env?.resume();
      server.start();
    }
    for (const device of this.devices) {
      device.isOffline = false;
      device.mend();
      device.resume();
      this.#renew(device.owner);
      device.start();
      device.show(true);
    }
    // Only faulty appends land late.
    if (context.profile.appendFaults > 0) context.advance(LATE_MS);
    const until = context.clock.now + HEAL_MS;
    while (!this.#isSettled && context.clock.now < until) {
      context.advance(500);
      for (const server of this.servers) this.#operate(server);
      const looks = new Set(this.#looks());
      for (const device of this.devices) {
        for (const seat of device.seats) {
          if (device.isOnOtherHistory(seat)) device.startOver(seat);
        }
        this.#operateFor(device);
        if (looks.has(device)) this.#observe(device);
      }
      for (const server of this.servers) server.observe();
    }
    // Calls that waited for a connection need one or two round trips more.
    if (this.#isSettled) return context.advance(ANSWER_MS);
    const applied = this.servers.map((server) =>
      context.clusters.map((cluster) => server.replica(cluster)?.appliedIndex)
    );
    const [first] = applied;
    const behind = this.devices.filter((device) =>
      this.#connectionOf(device) !== "live" ||
      device.seats.some(({ cluster, replica }) =>
        replica?.appliedIndex !== first![Number(cluster) - 1] ||
        replica!.pending().some(({ state }) => state === "queued")
      )
    );
    context.fail(
      "liveness",
      `Never settled: servers at ${applied.join("; ")}; ${
        behind.map((device) => device.describe()).join("; ")
      }`,
    );
  }

  get #isSettled(): boolean {
    if (!this.servers.every(({ isWell, isServing }) => isWell && isServing)) {
      return false;
    }
    /** Applied index of each cluster. */
    const applied = new Map<bigint, number>();
    const isSame = (cluster: bigint, replica: Replica | undefined): boolean => {
      if (replica === undefined) return false;
      const { appliedIndex } = replica;
      const others = applied.get(cluster);
      if (others === undefined) applied.set(cluster, appliedIndex);
      return others === undefined || others === appliedIndex;
    };
    for (const server of this.servers) {
      for (const cluster of this.context.clusters) {
        if (!isSame(cluster, server.replica(cluster))) return false;
      }
    }
    return this.devices.every((device) => {
      const hasCopy = device.seats.some(({ isCopied }) => isCopied);
      const state = this.#connectionOf(device);
      // A device whose outbox is a copy says so.
      if (state !== "live" && !(hasCopy && state === "blocked")) return false;
      return device.seats.every(({ cluster, replica, isCopied }) =>
        isSame(cluster, replica) &&
        (isCopied ||
          replica!.pending().every(({ state }) => state !== "queued"))
      );
    });
  }

  /** State of the connection of a device: that of the tab that leads, if it is one of several. */
  #connectionOf({ origin, process, tabState }: Device): string | undefined {
    if (origin === undefined) return process?.db.state;
    if (tabState !== "following" && tabState !== "leading") return undefined;
    const leading = this.devices.filter((one) =>
      one.origin === origin && one.tabState === "leading"
    );
    return leading.length === 1 ? leading[0]!.process!.db.state : undefined;
  }

  /** Checks that the log is compacted, and short after that (H7). */
  #checkLog(): void {
    const { context } = this;
    const { snapshotEntries, compactionOverhead, fullSnapshotInterval } =
      context.profile;
    // A server holds the log for absent readers for a limited time only.
    context.advance(ABSENT_MS);
    const [server] = this.servers;
    for (const cluster of context.clusters) {
      // Snapshots of a machine on disk hold its state now and then only.
      const interval = server!.kind(cluster) === "disk"
        ? fullSnapshotInterval
        : 1;
      const entries = 3 * interval * snapshotEntries;
      for (let i = 0; i < entries; i++) {
        const place = this.#place(server!.name, cluster);
        if (place === undefined) break;
        this.workload.propose(place, "k0", -1, 0, 0);
        context.advance(20);
      }
      context.advance(5_000);
      const { first, last } = server!.replica(cluster)!.logInfo!;
      const most = entries + compactionOverhead + 20;
      if (last - first > most) {
        context.fail(
          "compaction",
          `Log has entries ${first} to ${last}, more than ${most}`,
        );
      }
    }
  }

  /** Records the final states. */
  finish(): void {
    const { context } = this;
    for (const device of this.devices) {
      const { name, seats } = device;
      for (const seat of seats) {
        this.#checkWatches(device, seat);
        const { cluster, isHiding, isCopied } = seat;
        // With another history it has started over.
        if (!isHiding || isCopied || context.profile.restores) continue;
        context.fail("view", `${name} has hidden its commands of ${cluster}`);
      }
    }
    for (const cluster of context.clusters) {
      for (const server of this.servers) {
        this.#final(
          server.process,
          server.kind(cluster),
          server.version,
          cluster,
          server.replica(cluster),
        );
      }
      for (const device of this.devices) {
        if (!device.has(cluster)) continue;
        const { process, profile } = device;
        const seat = device.seat(cluster);
        this.#final(
          process?.name ?? profile.name,
          seat.kind,
          profile.version,
          cluster,
          seat.replica,
        );
      }
    }
    for (const { name, outbox, seats } of this.devices) {
      const pending = seats.reduce(
        (sum, { replica }) => sum + (replica?.pending().length ?? 0),
        0,
      );
      // A block stays while one of its commands is pending, and that before it may.
      context.history.queue(
        `Outbox of ${name}, in blocks of commands,`,
        outbox.names().filter((key) => /\/k\/\w+$/.test(key)).length,
        pending + seats.length,
      );
    }
    const { network } = context;
    network.open();
    context.history.queue(
      "transport",
      network.bufferedBytesMax,
      2 * SYNC_BUFFERED_BYTES_MAX,
    );
    for (const server of this.servers) {
      if (server.connections > network.open(server.name)) {
        context.fail("server", `${server.name} has connections that are over`);
      }
    }
  }

  #final(
    process: string,
    machine: string,
    version: number,
    cluster: bigint,
    replica: Replica | undefined,
  ): void {
    const { context } = this;
    if (replica === undefined) return;
    const list = this.#committed(replica);
    if (list === undefined) {
      return context.fail("final", `${process} does not show its state`);
    }
    const hash = context.settle(replica.getHash());
    if (hash === undefined || "error" in hash) {
      return context.fail("final", `${process} has no hash: ${hash?.error}`);
    }
    context.history.final({
      process,
      cluster,
      machine,
      appliedIndex: replica.appliedIndex,
      hash: hash.value.hash,
      stateVersion: version,
      list,
      pending: new Map(
        replica.pending().flatMap(({ cmd, state }) =>
          state === "applied" ? [] : [[commandOf(cmd), state]]
        ),
      ),
    });
  }

  /** Stops every process; records what is left behind. */
  end(): void {
    const { context, log } = this;
    for (const device of this.devices) device.stop("stop", 0);
    for (const server of this.servers) server.stop("stop", 0);
    if (log.isRemote && log.isUp) {
      context.until(log.stop("stop"), "Stop of the log");
    }
    context.until(log.close(), "Close of the log");
    context.end();
  }
}
