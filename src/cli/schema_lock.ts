/**
 * Lock file of the typed machines of an application: what is stored under which
 * version, so that a change of it without a new version is noticed before it is
 * deployed.
 *
 * This module needs Deno.
 *
 * @module
 */

import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { describe } from "../describe.ts";
import { coreOf } from "../typed/core.ts";
import {
  describeMachine,
  fingerprintOf,
  type MachineDescription,
  type ToJSONSchema,
} from "../typed/mod.ts";
import { ErrOperation } from "./control.ts";
import type { Json, Outcome } from "./operations.ts";

const FORMAT = 1;

/** Machine in a lock file. */
interface LockedMachine extends MachineDescription {
  readonly fingerprint: string;
}

/** Contents of a lock file: machines by name. */
interface LockFile {
  readonly format: number;
  readonly machines: Readonly<Record<string, LockedMachine>>;
}

/** Keywords of JSON Schema that say nothing about which values are valid. */
const ANNOTATIONS: ReadonlySet<string> = new Set([
  "$schema",
  "$id",
  "$comment",
  "title",
  "description",
  "examples",
  "deprecated",
]);

/** Keywords of JSON Schema whose keys are names of the application, and whose values are schemas. */
const NAMED: ReadonlySet<string> = new Set([
  "properties",
  "patternProperties",
  "dependentSchemas",
  "$defs",
]);

/** Keywords of JSON Schema whose values are data of the application. */
const LITERALS: ReadonlySet<string> = new Set(["const", "enum", "default"]);

/** Copy of a JSON value with its keys in order, except those of `properties`, which is that of the stored keys; in a schema, without annotations. */
function normalized(value: unknown, isSchema = false): Json {
  if (Array.isArray(value)) {
    return value.map((part) => normalized(part, isSchema));
  }
  if (typeof value !== "object" || value === null) return value as Json;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => !isSchema || !ANNOTATIONS.has(key))
      .sort(([one], [other]) => one < other ? -1 : 1)
      .map(([key, part]) => [
        key,
        NAMED.has(key)
          ? Object.fromEntries(
            Object.entries(part as object)
              .map(([name, of]) => [name, normalized(of, isSchema)]),
          )
          : normalized(part, isSchema && !LITERALS.has(key)),
      ]),
  );
}

function isSame(one: unknown, other: unknown): boolean {
  return JSON.stringify(normalized(one, true)) ===
    JSON.stringify(normalized(other, true));
}

/** Differences between a locked machine and its definition. */
interface Comparison {
  /** Changes after which something that is stored could not be read, or would be read differently. */
  readonly problems: readonly string[];
  /** Changes that the lock file does not have yet. */
  readonly news: readonly string[];
}

/** Compares a definition with what was locked. */
export function compareWithLock(
  locked: MachineDescription,
  now: MachineDescription,
): Comparison {
  const problems: string[] = [];
  const news: string[] = [];
  const { name } = locked;
  compareState(locked, now, problems, news);
  for (const [command, before] of Object.entries(locked.commands)) {
    const after = now.commands[command];
    const what = `command ${command} of ${name}`;
    if (after === undefined) {
      problems.push(
        `${what} is gone: it is in logs and outboxes; keep it, and what it did`,
      );
    } else if (after.version < before.version) {
      problems.push(
        `${what} has version ${after.version}, and had ${before.version}`,
      );
    } else if (after.version > before.version) {
      news.push(`${what} has version ${after.version}`);
    } else if (before.args === null && after.args !== null) {
      news.push(`arguments of ${what} can be compared from now on`);
    } else if (!isSame(before.args, after.args)) {
      problems.push(
        after.args === null
          ? `arguments of ${what} cannot be compared: their schema has no JSON Schema now; export \`toJSONSchema\` beside the machine`
          : `arguments of ${what} changed, its version did not: raise version ${before.version}, and convert old arguments in upcast`,
      );
    }
  }
  for (const command of Object.keys(now.commands)) {
    if (!Object.hasOwn(locked.commands, command)) {
      news.push(`command ${command} of ${name} is new`);
    }
  }
  for (const change of locked.changes) {
    if (!now.changes.includes(change)) {
      problems.push(
        `change ${
          describe(change)
        } of ${name} is gone: it may be active in logs and snapshots; keep it in changes`,
      );
    }
  }
  for (const change of now.changes) {
    if (!locked.changes.includes(change)) {
      news.push(`change ${describe(change)} of ${name} is new`);
    }
  }
  return { problems, news };
}

function compareState(
  locked: MachineDescription,
  now: MachineDescription,
  problems: string[],
  news: string[],
): void {
  const what = `state of ${locked.name}`;
  if (now.version < locked.version) {
    problems.push(
      `${what} has version ${now.version}, and had ${locked.version}`,
    );
    return;
  }
  if (now.version > locked.version) {
    news.push(`${what} has version ${now.version}`);
    return;
  }
  const kind = (part: readonly string[] | null): string =>
    part === null ? "value" : "table";
  for (const [part, before] of Object.entries(locked.state)) {
    const after = now.state[part];
    if (after === undefined || kind(after) !== kind(before)) {
      problems.push(
        `${
          kind(before)
        } ${part} is gone from the ${what}, its version did not change: raise version ${locked.version}, and migrate`,
      );
    } else if (!isSame(before, after)) {
      // Indexes are computed from the rows.
      news.push(`indexes of ${part} in the ${what} changed`);
    }
  }
  for (const [part, after] of Object.entries(now.state)) {
    if (!Object.hasOwn(locked.state, part)) {
      problems.push(
        `${
          kind(after)
        } ${part} is new in the ${what}, its version did not change: raise version ${locked.version}, and migrate`,
      );
    }
  }
}

/** True for a definition that any copy of this library created. */
function isDefinition(value: unknown): value is object {
  return typeof value === "object" && value !== null &&
    coreOf(value) !== undefined;
}

/** Machines that a module exports, by name. It may export a function `toJSONSchema`, too, for the schemas of its library. */
async function machinesOf(path: string): Promise<LockFile["machines"]> {
  const module: Record<string, unknown> = await import(
    pathToFileURL(resolve(path)).href
  );
  const { toJSONSchema } = module;
  const convert = typeof toJSONSchema === "function"
    ? toJSONSchema as ToJSONSchema
    : undefined;
  const machines: Record<string, LockedMachine> = {};
  for (const one of new Set(Object.values(module).filter(isDefinition))) {
    const machine = {
      fingerprint: fingerprintOf(one),
      ...describeMachine(one, convert),
    };
    if (Object.hasOwn(machines, machine.name)) {
      throw new ErrOperation(
        "ErrOperation",
        `${path} exports two machines of the name ${machine.name}: export the version that is released next`,
      );
    }
    machines[machine.name] = machine;
  }
  if (Object.keys(machines).length === 0) {
    throw new ErrOperation(
      "ErrOperation",
      `${path} exports no machine that defineMachine() created`,
    );
  }
  return machines;
}

/** Reads a lock file; undefined if it does not exist. */
function read(path: string): LockFile | undefined {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return undefined;
    throw error;
  }
  const lock = JSON.parse(text) as Partial<LockFile> | null;
  if (lock?.format !== FORMAT || typeof lock.machines !== "object") {
    throw new ErrOperation(
      "ErrOperation",
      `${path} is not a lock file of format ${FORMAT}: use the version of Sampan that wrote it, or delete it and lock again`,
    );
  }
  return lock as LockFile;
}

function compareAll(
  locked: LockFile["machines"],
  now: LockFile["machines"],
): Comparison {
  const names = Object.keys({ ...locked, ...now }).sort();
  const all = names.map((name): Comparison => {
    const before = locked[name];
    const after = now[name];
    if (before === undefined) {
      return { problems: [], news: [`machine ${name} is new`] };
    }
    return after === undefined
      ? { problems: [`machine ${name} is gone`], news: [] }
      : compareWithLock(before, after);
  });
  return {
    problems: all.flatMap(({ problems }) => problems),
    news: all.flatMap(({ news }) => news),
  };
}

function report(
  ok: boolean,
  { problems, news }: Comparison,
  text: string,
): Outcome {
  return { ok, data: { ok, problems, news }, text };
}

const lines = (texts: readonly string[]): string =>
  texts.map((text) => `${text[0]!.toUpperCase()}${text.slice(1)}`).join("\n");

/** Compares the machines that a module exports with a lock file. */
export async function checkSchemas(
  module: string,
  path: string,
): Promise<Outcome> {
  const lock = read(path);
  if (lock === undefined) {
    throw new ErrOperation(
      "ErrOperation",
      `${path} does not exist: write it with \`sampan schema lock ${module}\`, and commit it`,
    );
  }
  const found = compareAll(lock.machines, await machinesOf(module));
  const { problems, news } = found;
  if (problems.length > 0) return report(false, found, lines(problems));
  return news.length === 0
    ? report(true, found, `${path} is up to date`)
    : report(
      false,
      found,
      `${
        lines(news)
      }\nWrite it down with \`sampan schema lock ${module}\`, and commit ${path}`,
    );
}

/** Writes the lock file of the machines that a module exports, unless something stored could not be read any more. */
export async function lockSchemas(
  module: string,
  path: string,
): Promise<Outcome> {
  const machines = await machinesOf(module);
  const found = compareAll(read(path)?.machines ?? {}, machines);
  if (found.problems.length > 0) {
    return report(
      false,
      found,
      `${
        lines(found.problems)
      }\n${path} is unchanged. If nothing of that was ever stored, delete it and lock again`,
    );
  }
  const lock = { format: FORMAT, machines: normalized(machines) };
  writeFileSync(path, `${JSON.stringify(lock, undefined, 2)}\n`);
  return report(true, found, `${path} has ${Object.keys(machines).join(", ")}`);
}
