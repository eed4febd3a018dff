/**
 * The works W1 to W7 that every product of the comparison does.
 *
 * This module needs Deno.
 *
 * @module
 */

import { recorded } from "../../replay/recorded.ts";
import { transactions } from "../../replay/commands.ts";
import { loadTrace } from "../../replay/trace.ts";
import { percentile } from "../report.ts";
import type { OpenOptions } from "./peer.ts";
import { CountingProxy, Program } from "./processes.ts";

/** One run of a work with one product. */
export interface Run {
  /** Command line of its program. */
  readonly command: readonly string[];
  /** Folder for this run. */
  readonly folder: string;
  /** Share of the full work, for a trial. */
  readonly share: number;
  /** Size of the client of an offline page, gzipped, in KiB. */
  readonly bundleKiB: () => Promise<number>;
}

/** One figure of a run. */
export interface Taken {
  readonly what: string;
  readonly unit: string;
  readonly value: number;
}

/** One work: what it measures, and how. */
export interface Work {
  readonly title: string;
  readonly run: (run: Run) => Promise<Taken[] | undefined>;
}

function count(run: Run, full: number, least = 1): number {
  return Math.max(least, Math.ceil(full * run.share));
}

/** Starts a server in a process of its own, with a folder of that name. */
async function startServer(
  run: Run,
  name = "server",
): Promise<{ program: Program; url: string }> {
  const program = await Program.start(run.command);
  const folder = `${run.folder}/${name}`;
  await Deno.mkdir(folder, { recursive: true });
  return { program, url: await program.call<string>("serve", folder) };
}

async function openRows(run: Run, options: OpenOptions): Promise<Program> {
  const program = await Program.start(run.command);
  await program.call("openRows", options);
  return program;
}

/** Folder of a device. */
async function folderOf(run: Run, device: string): Promise<string> {
  const folder = `${run.folder}/${device}`;
  await Deno.mkdir(folder, { recursive: true });
  return folder;
}

/** Starts a server that has this many rows. */
async function startFilled(
  run: Run,
  rows: number,
): Promise<{ program: Program; url: string }> {
  const server = await startServer(run);
  const { url } = server;
  await using first = await openRows(run, {
    url,
    device: "filler",
    online: true,
  });
  await using second = await openRows(run, {
    url,
    device: "observer",
    online: true,
  });
  await first.call("fill", rows);
  await second.call("until", "end", "end");
  return server;
}

/** Makes the edits of two devices, connects both, and waits until they are equal. */
async function converge(run: Run, url: string): Promise<number> {
  const edits = count(run, 10_000);
  const rows = Math.min(1_000, edits);
  await using a = await openRows(run, { url, device: "a", online: false });
  await using b = await openRows(run, { url, device: "b", online: false });
  await Promise.all([
    a.call("edit", edits, rows, "a"),
    b.call("edit", edits, rows, "b"),
  ]);
  const from = performance.now();
  await Promise.all([a.call("connect"), b.call("connect")]);
  await Promise.all([
    a.call("until", "end b", "end"),
    b.call("until", "end a", "end"),
  ]);
  for (;;) {
    const [one, two] = await Promise.all([
      a.call<string>("digest"),
      b.call<string>("digest"),
    ]);
    if (one === two) return performance.now() - from;
  }
}

async function w1(run: Run): Promise<Taken[]> {
  const server = await startServer(run);
  await using _timed = server.program;
  const value = await converge(run, server.url);
  // Counted in another run, which the proxy may slow down.
  const counted = await startServer(run, "counted");
  await using _counted = counted.program;
  const url = new URL(counted.url);
  await using proxy = new CountingProxy(Number(url.port));
  url.port = String(proxy.port);
  await converge(run, url.href);
  return [
    { what: "until both are equal", unit: "ms", value },
    { what: "sent and received", unit: "MB", value: proxy.bytes / 1e6 },
  ];
}

async function w2(run: Run): Promise<Taken[]> {
  const { program, url } = await startServer(run);
  await using _server = program;
  await using a = await openRows(run, { url, device: "a", online: true });
  await using b = await openRows(run, { url, device: "b", online: true });
  await b.call("follow", "warm-up", count(run, 200));
  await a.call("change", "warm-up", count(run, 200), 5);
  await b.call("followed");
  const edits = count(run, 1_000);
  await b.call("follow", "row", edits);
  const made = await a.call<number[]>("change", "row", edits, 5);
  const seen = await b.call<number[]>("followed");
  const took = made.map((time, i) => b.here(seen[i]!) - a.here(time));
  return [
    { what: "p50", unit: "ms", value: percentile(took, 0.5) },
    { what: "p99", unit: "ms", value: percentile(took, 0.99) },
  ];
}

async function w3(run: Run): Promise<Taken[]> {
  const rows = count(run, 100_000);
  const { program, url } = await startFilled(run, rows);
  await using _server = program;
  await using newcomer = await Program.start(run.command);
  const options = { url, device: "newcomer", online: true };
  const value = await newcomer.call<number>("openAndRead", options, rows >> 1);
  const resident = await newcomer.call<number>("resident");
  return [
    { what: "until row 50,000 is read", unit: "ms", value },
    { what: "memory of the client's process", unit: "MiB", value: resident },
  ];
}

async function w4(run: Run): Promise<Taken[] | undefined> {
  const { url: trace, ignore, note } = recorded("automerge-paper");
  if (ignore) throw new Error(`The recorded paper is missing${note}`);
  const { program, url } = await startServer(run);
  await using _server = program;
  await using a = await Program.start(run.command);
  await using b = await Program.start(run.command);
  for (const [device, client] of [["a", a], ["b", b]] as const) {
    const options = { url, device, online: true };
    if (!await client.call<boolean>("openText", options)) return undefined;
  }
  const { edits, text } = await paper(trace, run);
  const editsFile = `${run.folder}/edits.json`;
  const textFile = `${run.folder}/text`;
  await Deno.writeTextFile(editsFile, JSON.stringify(edits));
  await Deno.writeTextFile(textFile, text);
  const from = performance.now();
  await Promise.all([
    a.call("type", editsFile),
    b.call("untilText", textFile),
  ]);
  const value = (performance.now() - from) / 1000;
  return [{ what: "until the reader has the text", unit: "s", value }];
}

/** The first edits of the recorded paper, and the text after them. */
async function paper(from: URL, run: Run): Promise<{
  edits: ReturnType<typeof transactions>;
  text: string;
}> {
  const trace = await loadTrace(from);
  const all = transactions(trace);
  const edits = all.slice(0, count(run, all.length));
  if (edits.length === all.length) return { edits, text: trace.endContent };
  const text: string[] = [];
  for (const patches of edits) {
    for (const [position, deleted, inserted] of patches) {
      text.splice(position, deleted, ...inserted);
    }
  }
  return { edits, text: text.join("") };
}

async function w5(run: Run): Promise<Taken[]> {
  const { program, url } = await startServer(run);
  await using _server = program;
  const device = await openRows(run, {
    url,
    device: "a",
    folder: await folderOf(run, "a"),
    online: false,
  });
  await using _device = device;
  const took = await device.call<number[]>(
    "ownView",
    count(run, 2_000),
    count(run, 1_000),
  );
  const rate = await device.call<number>(
    "queue",
    count(run, 20_000),
    count(run, 1_000),
  );
  return [
    {
      what: "until one's own view shows it, p50",
      unit: "µs",
      value: percentile(took.slice(took.length >> 1), 0.5),
    },
    { what: "into the queue", unit: "k/s", value: rate / 1000 },
  ];
}

async function w6(run: Run): Promise<Taken[]> {
  return [
    { what: "client, gzipped", unit: "KiB", value: await run.bundleKiB() },
  ];
}

async function w7(run: Run): Promise<Taken[]> {
  const rows = count(run, 100_000);
  const folder = await folderOf(run, "a");
  const { program, url } = await startServer(run);
  {
    await using _server = program;
    const before = await openRows(run, {
      url,
      device: "a",
      folder,
      online: true,
    });
    await using observer = await openRows(run, {
      url,
      device: "b",
      online: true,
    });
    await before.call("fill", rows);
    await observer.call("until", "end", "end");
    await before.close();
  }
  await using reopened = await Program.start(run.command);
  const options = { url, device: "a", folder, online: false };
  const value = await reopened.call<number>("openAndRead", options, rows >> 1);
  return [{ what: "until row 50,000 is read", unit: "ms", value }];
}

/** The works, by name. */
export const WORKS: Readonly<Record<string, Work>> = {
  W1: {
    title:
      "two devices, 10,000 offline edits each on 1,000 rows, reconnect until both are equal",
    run: w1,
  },
  W2: { title: "one edit on A until B's application sees it", run: w2 },
  W3: { title: "newcomer, 100,000 rows on the server", run: w3 },
  W4: { title: "the recorded paper, typed here and read elsewhere", run: w4 },
  W5: { title: "edits offline, into what the device keeps", run: w5 },
  W6: { title: "what a page loads", run: w6 },
  W7: { title: "reopen with 100,000 rows, without a network", run: w7 },
};
