/**
 * Import of a board from the files that an export has written. Loaded when it is
 * first needed.
 *
 * This module runs in a browser.
 *
 * @module
 */

import { openSnapshot } from "../../src/ports/mod.ts";
import type { TypedMachine } from "../../src/typed/mod.ts";
import type { Card, List } from "./board.ts";
import type { BoardApp } from "./device.ts";
import type { PageParts } from "./dialogs.ts";
import { quote } from "./words.ts";

/** Cards in one command: a file can have more than a command may. */
const COMMAND_CARDS_MAX = 100;

/** Edit in a file: a command that waited to be sent when the file was written. */
interface SavedEdit {
  readonly state: string;
  /** Bytes of the command, in Base64. */
  readonly cmd: string;
}

/** Command of the board, decoded. */
interface Call {
  readonly name: string;
  readonly args: unknown;
}

/** Parts of the page that an import uses. */
export interface ImportParts {
  /** Typed access to the board. */
  readonly app: BoardApp;
  /** Creates a machine of the board. */
  create(): TypedMachine;
  /** Decodes a command. */
  decode(cmd: Uint8Array): Call | undefined;
  /** True if a command waits on this device already. */
  isPending(cmd: Uint8Array): boolean;
}

/** Lists with cards, as the command `fill` takes them. */
type Lists = Parameters<BoardApp["do"]["fill"]>[0]["lists"];

/** Content of a file. */
interface Content {
  readonly title: string;
  readonly lists: Lists;
}

/**
 * Reads the board in an exported snapshot: a machine of the same kind recovers from
 * it, apart from the one that is shown.
 */
async function readBoard(
  file: Blob,
  create: ImportParts["create"],
): Promise<Content> {
  const snapshot = await openSnapshot(file.stream());
  const machine = create();
  await machine.recoverFromSnapshot(
    snapshot.payload,
    [],
    new AbortController().signal,
  );
  await snapshot.finish();
  const ask = <T>(name: string, ...args: unknown[]): T =>
    machine.lookup({ name, args }) as T;
  const archive = ask<readonly Card[]>("archive");
  const all = ask<readonly List[]>("lists");
  const ids = new Set(all.map(({ id }) => id));
  const lists = all.map(({ id, title }, i) => ({
    id,
    title,
    cards: [
      ...ask<readonly Card[]>("cards", id),
      // A card in the archive may be of a list that was removed.
      ...archive.filter(({ list }) => list === id || i === 0 && !ids.has(list)),
    ].map(({ id, text, done, archived }) => ({ id, text, done, archived })),
  }));
  return { title: ask<{ title: string }>("about").title, lists };
}

/** Cuts lists into those of several commands. */
function* commandsOf(lists: Lists): Generator<Lists> {
  for (const { id, title, cards } of lists) {
    for (let at = 0; at === 0 || at < cards.length; at += COMMAND_CARDS_MAX) {
      yield [{ id, title, cards: cards.slice(at, at + COMMAND_CARDS_MAX) }];
    }
  }
}

/** Puts the board of a file on the one that is shown; returns what it had, in words. */
async function importBoard(
  file: Blob,
  { app, create }: ImportParts,
): Promise<string> {
  const { title, lists } = await readBoard(file, create);
  // Each command is durable before the next: an import that ends early is repeated.
  for (const part of commandsOf(lists)) await app.do.fill({ lists: part });
  const about = await app.ask.about();
  if (title !== "" && about.title === "") await app.do.name({ title });
  const cards = lists.reduce((sum, { cards }) => sum + cards.length, 0);
  return `${count(lists.length, "list")} and ${count(cards, "card")}`;
}

/** Submits the edits of a file that do not wait here already; returns how many, in words. */
async function importEdits(
  file: Blob,
  { app, decode, isPending }: ImportParts,
): Promise<string> {
  const saved: unknown = JSON.parse(await file.text());
  if (!Array.isArray(saved)) {
    throw new TypeError(`Content is ${typeof saved}, and no list of edits`);
  }
  const edits = saved.map(({ state, cmd }: SavedEdit) => {
    const bytes = Uint8Array.from(atob(cmd), (c) => c.charCodeAt(0));
    const call = decode(bytes);
    if (call === undefined || !(call.name in app.do)) {
      throw new TypeError(`Edit ${call?.name} is unknown to this board`);
    }
    return { state, bytes, call };
  });
  const missing = edits.filter(({ state, bytes }) =>
    state === "queued" && !isPending(bytes)
  );
  for (const { call: { name, args } } of missing) {
    await app.do[name as keyof typeof app.do](args as never);
  }
  return count(missing.length, "edit");
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}

/** Imports files, each of which is a board or edits; returns what happened, in words. */
export async function importFiles(
  files: readonly File[],
  parts: ImportParts,
): Promise<string> {
  // A board before the edits that were made on it.
  const sorted = [...files].sort((a, b) =>
    Number(a.name.endsWith(".json")) - Number(b.name.endsWith(".json"))
  );
  const done: string[] = [];
  for (const file of sorted) {
    const work = file.name.endsWith(".json") ? importEdits : importBoard;
    const found = await work(file, parts).catch((error) => {
      throw new Error(
        `${
          quote(file.name)
        } cannot be imported: it is no board or list of edits that this page has saved, or it is damaged (${error.message})`,
        { cause: error },
      );
    });
    done.push(`${found} from ${quote(file.name)}`);
  }
  return `Imported ${
    done.join(", and ")
  }. What the board had already was left as it is.`;
}

/** Puts what was saved in files on the board, by edits: they are decided like any others. */
export async function loadFiles(
  files: readonly File[],
  { app, machine, replica, messages }: PageParts,
): Promise<void> {
  const text = await importFiles(files, {
    app,
    create: machine.create,
    decode: (cmd) => machine.decode(cmd),
    isPending: (cmd) =>
      replica.pending().some((one) => `${one.cmd}` === `${cmd}`),
  });
  messages.set("import", {
    tone: "info",
    text,
    remedies: [["Dismiss", (): void => messages.set("import", undefined)]],
  });
}
