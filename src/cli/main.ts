/**
 * Command line for operators: `deno task sampan <command>`, or
 * `deno run --allow-all <URL of this module> <command>`.
 *
 * Exit status: 0 for success, 1 if the command failed or found damage, 2 for an
 * invalid command line, 130 when interrupted (143 by SIGTERM, 129 by SIGHUP). No
 * partly written file is left behind.
 *
 * This module needs Deno.
 *
 * @module
 */

import { resolve } from "node:path";
import { parseArgs, type ParseArgsConfig } from "node:util";
import { NodeHost } from "../nodehost/node_host.ts";
import { DataFolder } from "../sqlite/data_folder.ts";
import { ErrStoreLocked } from "../store/errors.ts";
import { encodeShown, isU64 } from "../bytes.ts";
import { callServer, ErrOperation, foreignOwner } from "./control.ts";
import {
  type Call,
  type Operations,
  type Outcome,
  type Progress,
  restore,
  run,
  verifyFile,
} from "./operations.ts";
import { ProgressBar } from "./progress.ts";
import { downloadSnapshot, uploadSnapshot } from "./remote.ts";
import { checkSchemas, lockSchemas } from "./schema_lock.ts";

const USAGE = `Commands for the data folder of a Sampan server

Usage: sampan <command> [options]

  info                            clusters, logs and snapshots of a data folder
  snapshot export FILE            write the state of a cluster to a new file
  snapshot import FILE            start a cluster that has no log yet from a file
  snapshot verify FILE            verify a snapshot file
  log stat                        count the records of the logs
  log verify                      verify all logs and snapshots
  log skip INDEX                  make every replica skip an entry, and
                                  restart the cluster if it has failed
  activate CHANGE                 activate a change of behaviour of a typed
                                  machine in the server that runs it
  backup FILE                     write a backup of the folder to a new file
  restore FILE                    create a data folder from a backup
  schema lock MODULE              write what the typed machines that a module
                                  exports store into a lock file
  schema check MODULE             compare them with the lock file

Options:
  --data FOLDER      the data folder (default: data)
  --cluster N        the cluster, by its id (export, import, skip, activate:
                     required; log: all)
  --reason TEXT      reason to skip the entry (log skip: required); its author sees it
  --force            activate, although a live server does not know the change: it stops
  --url URL          export from, or import into, a server over HTTP instead
  --token TOKEN      the token for that server; better in the variable SAMPAN_TOKEN
  --lock FILE        the lock file of schema lock and check (default: sampan.lock.json)
  --json             print the result as JSON
  --help             print this help

While a server has the folder open, the command runs inside that server.
`;

export { type Control, serveControl } from "./control.ts";

/** Error for an invalid command line. */
class UsageError extends Error {}

const OPTIONS = {
  data: { type: "string", default: "data" },
  cluster: { type: "string" },
  reason: { type: "string" },
  force: { type: "boolean", default: false },
  url: { type: "string" },
  token: { type: "string" },
  lock: { type: "string", default: "sampan.lock.json" },
  json: { type: "boolean", default: false },
  help: { type: "boolean", short: "h", default: false },
} as const satisfies ParseArgsConfig["options"];

type Option = keyof typeof OPTIONS;

/** Options and arguments of each command, besides `--json` and `--help`. */
const COMMANDS: Readonly<
  Record<
    string,
    { readonly options: readonly Option[]; readonly argument?: string }
  >
> = {
  "info": { options: ["data"] },
  "snapshot export": {
    options: ["data", "cluster", "url", "token"],
    argument: "FILE",
  },
  "snapshot import": {
    options: ["data", "cluster", "url", "token"],
    argument: "FILE",
  },
  "snapshot verify": { options: [], argument: "FILE" },
  "log stat": { options: ["data", "cluster"] },
  "log verify": { options: ["data", "cluster"] },
  "log skip": { options: ["data", "cluster", "reason"], argument: "INDEX" },
  "activate": { options: ["data", "cluster", "force"], argument: "CHANGE" },
  "backup": { options: ["data"], argument: "FILE" },
  "restore": { options: ["data"], argument: "FILE" },
  "schema lock": { options: ["lock"], argument: "MODULE" },
  "schema check": { options: ["lock"], argument: "MODULE" },
};

interface Command {
  readonly name: string;
  readonly argument: string;
  readonly values: ReturnType<typeof parse>["values"];
}

function parse(
  args: string[],
): ReturnType<
  typeof parseArgs<{ options: typeof OPTIONS; allowPositionals: true }>
> {
  try {
    return parseArgs({ args, options: OPTIONS, allowPositionals: true });
  } catch (error) {
    throw new UsageError((error as Error).message.split(/\.\s/)[0]);
  }
}

/** Parses a command line; undefined if it asks for help. */
function commandOf(args: string[]): Command | undefined {
  const { values, positionals } = parse(args);
  if (values.help) return undefined;
  const [first, second] = positionals;
  if (first === undefined) {
    throw new UsageError(`Name a command: ${Object.keys(COMMANDS).join(", ")}`);
  }
  const isPair = `${first} ${second}` in COMMANDS;
  const name = isPair ? `${first} ${second}` : first;
  const command = COMMANDS[name];
  if (command === undefined) {
    throw new UsageError(`There is no command "${positionals.join(" ")}"`);
  }
  const rest = positionals.slice(isPair ? 2 : 1);
  const expected = command.argument === undefined ? 0 : 1;
  if (rest.length < expected) {
    throw new UsageError(`${name} needs ${command.argument}`);
  }
  if (rest.length > expected) {
    throw new UsageError(`${name} takes no "${rest[expected]}"`);
  }
  const allowed: readonly string[] = [...command.options, "json", "help"];
  // `values` has the defaults, too.
  const given = args.filter((arg) => arg.startsWith("--"))
    .map((arg) => arg.slice(2).split("=")[0]!);
  for (const option of given) {
    if (!allowed.includes(option)) {
      throw new UsageError(`${name} takes no --${option}`);
    }
  }
  if (values.url !== undefined) {
    if (given.includes("data")) {
      throw new UsageError(
        `--url (${values.url}) and --data (${values.data}) exclude each other: give one`,
      );
    }
    checkURL(values.url);
  }
  return { name, argument: rest[0] ?? "", values };
}

function checkURL(url: string): void {
  if (URL.canParse(url) && /^(http|ws)s?:/i.test(url)) return;
  throw new UsageError(
    `--url is "${url}": give the URL of a server, such as https://example.org/`,
  );
}

function clusterOf({ values: { cluster }, name }: Command): string {
  if (cluster === undefined) throw new UsageError(`${name} needs --cluster`);
  return checkCluster(cluster);
}

function checkCluster(cluster: string): string {
  if (/^\d{1,20}$/.test(cluster) && isU64(BigInt(cluster))) return cluster;
  throw new UsageError(
    `--cluster is "${cluster}": give the id of a cluster, 0 to 2^64-1`,
  );
}

function skipArguments(command: Command): Operations["log skip"] {
  const { name, argument, values: { reason = "" } } = command;
  const index = Number(argument);
  if (!/^\d+$/.test(argument) || !Number.isSafeInteger(index) || index < 1) {
    throw new UsageError(
      `"${argument}" is not an index: give the number of an entry, from 1 on`,
    );
  }
  if (reason.trim() === "") throw new UsageError(`${name} needs --reason`);
  return { cluster: clusterOf(command), index, reason };
}

/** Operation of a command. */
function callOf(command: Command): Call {
  const { name, argument: file, values } = command;
  const only = values.cluster === undefined
    ? {}
    : { cluster: checkCluster(values.cluster) };
  switch (name) {
    case "info":
      return { name, args: {} };
    case "snapshot export":
    case "snapshot import":
      return {
        name,
        args: { cluster: clusterOf(command), file: resolve(file) },
      };
    case "log stat":
    case "log verify":
      return { name, args: only };
    case "log skip":
      return { name, args: skipArguments(command) };
    case "activate":
      return {
        name,
        args: {
          cluster: clusterOf(command),
          change: file,
          force: command.values.force ?? false,
        },
      };
    case "backup":
      return { name, args: { file: resolve(file) } };
    default:
      throw new UsageError(`There is no command "${name}"`);
  }
}

async function execute(
  command: Command,
  progress: (progress: Progress) => void,
  signal: AbortSignal,
): Promise<Outcome> {
  const { name, argument: file, values } = command;
  if (name === "snapshot verify") {
    return await verifyFile(file, progress, signal);
  }
  if (name === "schema lock") return await lockSchemas(file, values.lock);
  if (name === "schema check") return await checkSchemas(file, values.lock);
  if (name === "restore") {
    return await restore(values.data, file, progress, signal);
  }
  if (values.url !== undefined) {
    const { url } = values;
    const token = values.token ?? Deno.env.get("SAMPAN_TOKEN");
    const request = { url, token, cluster: clusterOf(command), file, signal };
    return name === "snapshot export"
      ? await downloadSnapshot(request, progress)
      : await uploadSnapshot(request, progress);
  }
  return await onFolder(values.data, callOf(command), progress, signal);
}

/** Runs an operation in the server that has the folder open; without one, on the folder itself. */
async function onFolder(
  path: string,
  call: Call,
  progress: (progress: Progress) => void,
  signal: AbortSignal,
): Promise<Outcome> {
  const outcome = await callServer(path, call, progress, signal);
  if (outcome !== undefined) return outcome;
  let folder: DataFolder;
  try {
    // Only an import may create a folder.
    const create = call.name === "snapshot import";
    folder = await DataFolder.open(path, { create });
  } catch (error) {
    if (!(error instanceof ErrStoreLocked)) throw error;
    const owner = foreignOwner(path);
    throw new ErrStoreLocked(
      owner === undefined
        ? `Another process has ${path} open and accepts no commands: stop it first, or have it call serveControl()`
        : `A server of another user (uid ${owner}) has ${path} open: run this command as that user`,
      { cause: error },
    );
  }
  try {
    const { logDB, snapshots } = folder;
    await using host = new NodeHost({ logDB, snapshots });
    return await run(call, { folder, host, progress, signal });
  } finally {
    await folder.close();
  }
}

function print(
  to: typeof Deno.stdout | typeof Deno.stderr,
  text: string,
): void {
  const bytes = encodeShown(text);
  try {
    for (let at = 0; at < bytes.length;) at += to.writeSync(bytes.subarray(at));
  } catch (error) {
    // The reader has closed the pipe, as `head` does.
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  }
}

function report(json: boolean, { ok, data, text }: Outcome): number {
  print(
    Deno.stdout,
    json ? `${JSON.stringify(data, undefined, 2)}\n` : `${text}\n`,
  );
  return ok ? 0 : 1;
}

function fail(json: boolean, error: unknown): void {
  const { name, message } = error instanceof ErrOperation
    ? { name: error.errorClass, message: error.message }
    : error instanceof Error
    ? error
    : new Error(String(error));
  print(
    Deno.stderr,
    json
      ? `${JSON.stringify({ error: name, message })}\n`
      : `sampan: ${message}\n`,
  );
}

/** Signals that interrupt a command, with the exit status of each. */
const SIGNALS: readonly (readonly [Deno.Signal, number])[] =
  Deno.build.os === "windows"
    ? [["SIGINT", 130]]
    : [["SIGINT", 130], ["SIGTERM", 143], ["SIGHUP", 129]];

/** Runs a command; resolves to the exit status. */
async function main(args: string[]): Promise<number> {
  const interrupted = new AbortController();
  let status = 0;
  const listeners = SIGNALS.map(([name, code]) => {
    const listener = (): void => {
      // A second signal does not wait for the operation to end.
      if (interrupted.signal.aborted) Deno.exit(status);
      status = code;
      interrupted.abort(new Error("Interrupted"));
    };
    Deno.addSignalListener(name, listener);
    return [name, listener] as const;
  });
  const json = args.includes("--json");
  const bar = new ProgressBar();
  try {
    const command = commandOf(args);
    if (command === undefined) {
      print(Deno.stdout, USAGE);
      return 0;
    }
    const outcome = await execute(
      command,
      (progress) => bar.update(progress),
      interrupted.signal,
    );
    bar.stop();
    return report(json, outcome);
  } catch (error) {
    bar.stop();
    if (interrupted.signal.aborted) return status;
    if (error instanceof UsageError) {
      print(Deno.stderr, `sampan: ${error.message}. Try --help.\n`);
      return 2;
    }
    fail(json, error);
    return 1;
  } finally {
    for (const listener of listeners) Deno.removeSignalListener(...listener);
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
