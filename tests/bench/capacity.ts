/**
 * Capacity model of servers on etcd: from one machine to ten million devices, which
 * bound comes first, computed from measured constants.
 *
 * ```sh
 * deno run tests/bench/capacity.ts
 * ```
 *
 * @module
 */

/** Constant of the model. */
interface Constant {
  readonly value: number;
  readonly unit: string;
  readonly what: string;
  /** Source: a measurement, a limit or an assumption. */
  readonly from: string;
}

/** Load of one application: every device is connected. */
export const LOAD = {
  devicesPerCluster: {
    value: 100,
    unit: "devices",
    what: "devices of a cluster",
    from: "assumed",
  },
  commandsPerCluster: {
    value: 1,
    unit: "/s",
    what: "commands of a cluster, from all its devices",
    from: "assumed",
  },
  commandBytes: {
    value: 100,
    unit: "B",
    what: "size of a command",
    from: "assumed",
  },
  stateBytes: {
    value: 1_000_000,
    unit: "B",
    what: "snapshot of a cluster",
    from: "assumed",
  },
  snapshotEntries: {
    value: 1_000,
    unit: "entries",
    what: "entries between two snapshots (`snapshotEntries`)",
    from: "chosen",
  },
  devicesPerRegion: {
    value: 1_000_000,
    unit: "devices",
    what: "devices that one region serves",
    from: "chosen",
  },
  serversPerCluster: {
    value: 2,
    unit: "servers",
    what: "servers that have a cluster: the balancer sends its pages to these",
    from: "chosen",
  },
} as const satisfies Readonly<Record<string, Constant>>;

/** Constants of the software and of one machine with two shared cores. */
export const MEASURED = {
  putsPerSecond: {
    value: 3_700,
    unit: "/s",
    what: "puts of 200 callers on three etcd nodes",
    from: "a client in Deno and the nodes on two cores",
  },
  putBytes: {
    value: 277,
    unit: "B",
    what: "etcd's database, for each put of one command",
    from: "10,000 puts of 158 B on etcd 3.4, one node",
  },
  etcdBytes: {
    value: 8e9,
    unit: "B",
    what: "etcd's database at most",
    from: "`--quota-backend-bytes`",
  },
  followCores: {
    value: 0.97 / 3_000,
    unit: "cores",
    what: "a server's part in one command a second: read, apply, or put",
    from: "`etcd/clusters`: 0.97 cores for 1,000 on each of three",
  },
  frameCores: {
    value: 15e-6,
    unit: "cores",
    what: "sending one command to one page, with nothing to share a frame with",
    from: "`crowd/fan-out`",
  },
  clusterBytes: {
    value: 215e3,
    unit: "B",
    what: "memory of a server for a cluster on etcd",
    from: "`etcd/clusters`: 314 MiB with 1,000, 99 with 50",
  },
  pageBytes: {
    value: 50e3,
    unit: "B",
    what: "memory of a server for a connection with one cluster",
    from: "`crowd/visitors`: 247 MiB with 5,000",
  },
  frameBytes: {
    value: 18,
    unit: "B",
    what: "a command in a frame of its own, besides itself, TCP and TLS",
    from: "`server.counts` after 100 commands to 10 pages",
  },
  connections: {
    value: 4_096,
    unit: "pages",
    what: "connections of a server (`limits.connections`)",
    from: "default of `serve()`",
  },
  serverCores: {
    value: 1,
    unit: "cores",
    what: "cores that a server process can use",
    from: "JavaScript has one thread",
  },
  serverBytes: {
    value: 2e9,
    unit: "B",
    what: "memory of a server process",
    from: "chosen",
  },
  sqliteCommands: {
    value: 192_000,
    unit: "/s",
    what: "commands that one server takes on SQLite, of 100 clients",
    from: "`sync`, durability normal",
  },
  use: {
    value: 0.5,
    unit: "",
    what:
      "share of a bound that is used, so that a third of the servers or one of three nodes may be lost",
    from: "chosen",
  },
} as const satisfies Readonly<Record<string, Constant>>;

/** Number of units that a bound allows. */
export interface Bound {
  readonly name: string;
  readonly most: number;
}

const { use } = MEASURED;

function bound(name: string, most: number): Bound {
  return { name, most: Math.floor(most * use.value) };
}

/** Bound that comes first. */
function first(bounds: readonly Bound[]): Bound {
  return bounds.reduce((a, b) => b.most < a.most ? b : a);
}

/** Entries of a cluster that etcd keeps: up to the older of two snapshots, and those until the next. */
const KEPT_ENTRIES = 3 * LOAD.snapshotEntries.value;

/** Bounds of the clusters of one etcd. */
export function etcdBounds(): Bound[] {
  const { putsPerSecond, putBytes, etcdBytes } = MEASURED;
  return [
    bound("puts", putsPerSecond.value / LOAD.commandsPerCluster.value),
    bound("space", etcdBytes.value / (putBytes.value * KEPT_ENTRIES)),
  ];
}

/** Bounds of the pages of one server. */
export function serverBounds(): Bound[] {
  const { connections, pageBytes, clusterBytes, serverBytes } = MEASURED;
  const { followCores, frameCores, serverCores } = MEASURED;
  const { devicesPerCluster, commandsPerCluster, serversPerCluster } = LOAD;
  // With a page comes its part of a cluster, which its other servers have as well.
  const clusters = serversPerCluster.value / devicesPerCluster.value;
  const commands = commandsPerCluster.value;
  return [
    bound("connections", connections.value),
    bound(
      "memory",
      serverBytes.value / (pageBytes.value + clusters * clusterBytes.value),
    ),
    bound(
      "processor",
      serverCores.value /
        (commands * frameCores.value + clusters * commands * followCores.value),
    ),
  ];
}

/** One scale of the table. */
export interface Scale {
  readonly devices: number;
  readonly clusters: number;
  readonly regions: number;
  /** Etcds of a region, of three nodes each; 0 where SQLite on one server suffices. */
  readonly etcds: number;
  /** Servers of a region. */
  readonly servers: number;
  /** Commands a second in a region. */
  readonly commands: number;
  /** Commands sent to pages a second in a region. */
  readonly sent: number;
  /** Bytes in the etcds of a region. */
  readonly logBytes: number;
  /** Bytes of the two newest snapshots of each cluster of a region. */
  readonly snapshotBytes: number;
  /** Bytes a second that a region sends to pages. */
  readonly pageBytes: number;
  /** Bytes a second that a region writes as snapshots. */
  readonly savedBytes: number;
  /** Part that must be added next. */
  readonly next: string;
}

/** Requirements of a number of devices. */
export function scaleOf(devices: number): Scale {
  const { devicesPerCluster, commandsPerCluster, devicesPerRegion } = LOAD;
  const regions = Math.ceil(devices / devicesPerRegion.value);
  const here = Math.ceil(devices / regions);
  const clusters = Math.ceil(here / devicesPerCluster.value);
  const commands = clusters * commandsPerCluster.value;
  const server = first(serverBounds());
  const etcd = first(etcdBounds());
  const pages = Math.ceil(here / server.most);
  const isSmall = pages === 1 &&
    commands < MEASURED.sqliteCommands.value * use.value;
  const etcds = isSmall ? 0 : Math.ceil(clusters / etcd.most);
  const servers = isSmall ? 1 : Math.max(3, pages);
  const sent = commands * devicesPerCluster.value;
  const saved = commands / LOAD.snapshotEntries.value * LOAD.stateBytes.value;
  /** Devices at which another server, etcd or region is needed. */
  const more: Bound[] = [
    { name: `a server (${server.name})`, most: servers * server.most },
    ...(isSmall ? [] : [{
      name: `an etcd (${etcd.name})`,
      most: etcds * etcd.most * devicesPerCluster.value,
    }]),
  ];
  return {
    devices,
    clusters: clusters * regions,
    regions,
    etcds,
    servers,
    commands,
    sent,
    logBytes: isSmall ? 0 : clusters * KEPT_ENTRIES * MEASURED.putBytes.value,
    snapshotBytes: 2 * clusters * LOAD.stateBytes.value,
    pageBytes: sent * (LOAD.commandBytes.value + MEASURED.frameBytes.value),
    savedBytes: saved,
    next: first(more).name,
  };
}

/** Scales of the table. */
export const SCALES: readonly number[] = [
  1e3,
  1e4,
  1e5,
  1e6,
  1e7,
];

function count(value: number): string {
  return value.toLocaleString("en", {
    maximumFractionDigits: value < 10 ? 1 : 0,
  });
}

function bytes(value: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  for (; value >= 1000 && at < units.length - 1; at++) value /= 1000;
  return `${count(value)} ${units[at]}`;
}

function render(rows: readonly (readonly string[])[]): string {
  const [head] = rows;
  const widths = head!.map((_, i) =>
    Math.max(...rows.map((row) => row[i]!.length))
  );
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, i) => cell.padEnd(widths[i]!)).join(" | ")} |`;
  const rule = `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`;
  return [line(head!), rule, ...rows.slice(1).map(line)].join("\n");
}

/** Table of the scales, as Markdown. */
export function scalesTable(): string {
  const rows = SCALES.map(scaleOf).map((scale) => [
    count(scale.devices),
    count(scale.clusters),
    count(scale.regions),
    scale.etcds === 0 ? "none: SQLite" : count(scale.etcds),
    count(scale.servers),
    `${count(scale.commands)}/s`,
    `${count(scale.sent)}/s`,
    scale.etcds === 0 ? "" : bytes(scale.logBytes),
    bytes(scale.snapshotBytes),
    `${bytes(scale.savedBytes)}/s`,
    `${bytes(scale.pageBytes)}/s`,
    scale.next,
  ]);
  return render([[
    "devices",
    "clusters",
    "regions",
    "etcds of a region",
    "servers of a region",
    "commands",
    "sent to pages",
    "log in etcd",
    "two snapshots each",
    "snapshots written",
    "to pages",
    "needed next",
  ], ...rows]);
}

/** Table of the bounds, as Markdown; the one that comes first is marked. */
export function boundsTable(): string {
  const of = (unit: string, bounds: readonly Bound[]): string[][] => {
    const least = first(bounds);
    return bounds.map((one) => [
      unit,
      one.name,
      count(one.most),
      one === least ? "comes first" : "",
    ]);
  };
  return render([
    ["one", "bound by", "holds", ""],
    ...of("etcd, clusters", etcdBounds()),
    ...of("server, pages", serverBounds()),
  ]);
}

/** Table of the constants, as Markdown. */
export function constantsTable(): string {
  const shown = ({ value, unit }: Constant): string => {
    if (unit === "B") return bytes(value);
    if (unit === "cores") {
      return value < 0.1 ? `${count(value * 1e6)} µs` : `${value}`;
    }
    const text = count(value);
    return unit === "/s" ? `${text}/s` : text;
  };
  const all: readonly Constant[] = [
    ...Object.values(LOAD),
    ...Object.values(MEASURED),
  ];
  return render([
    ["constant", "value", "from"],
    ...all.map((one) => [one.what, shown(one), one.from]),
  ]);
}

/** Everything that the guide has of the model. */
export function capacity(): string {
  return [scalesTable(), boundsTable(), constantsTable()].join("\n\n");
}

if (import.meta.main) {
  // deno-lint-ignore no-console
  console.log(capacity());
}
