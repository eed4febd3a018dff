/**
 * Commands and refusals of the board in words.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** Command with its arguments. */
export interface Call {
  /** Name of the command. */
  readonly name: string;
  /** Arguments, as they were decoded. */
  readonly args: unknown;
}

/** Arguments that commands of the board have. */
interface Arguments {
  readonly id?: string;
  readonly list?: string;
  readonly text?: string;
  readonly title?: string;
  readonly done?: boolean;
}

/** Finds the texts of what commands name by id. */
export interface Lookup {
  /** Text of a card. */
  card(id: string): string | undefined;
  /** Title of a list. */
  list(id: string): string | undefined;
}

/** Most characters of a text that are quoted. */
const QUOTED_MAX = 60;

/** Text in quotation marks, and in one direction of writing whatever is around it; long ones are cut. */
export function quote(text: string, most: number = QUOTED_MAX): string {
  const line = text.replaceAll(/\s+/g, " ");
  const characters = [...line];
  const cut = characters.length > most
    ? `${characters.slice(0, most - 1).join("")}…`
    : line;
  return `\u2068“${cut}”\u2069`;
}

/** Says what a command does: “ticked “Rope””. */
export function sentenceOf({ name, args }: Call, lookup: Lookup): string {
  const { id = "", list = "", text, title = "", done } = Object(
    args,
  ) as Arguments;
  const card = (): string => {
    const found = text ?? lookup.card(id);
    return found === undefined ? "a card" : quote(found);
  };
  const listOf = (id: string): string => {
    const found = lookup.list(id);
    return found === undefined ? "a list" : quote(found);
  };
  switch (name) {
    case "begin":
      return "began the board";
    case "fill":
      return "put a saved board on this one";
    case "name":
      return title === ""
        ? "took the board’s title away"
        : `named the board ${quote(title)}`;
    case "addList":
      return `added the list ${quote(title)}`;
    case "renameList":
      return `called a list ${quote(title)}`;
    case "moveList":
      return `moved the list ${listOf(id)}`;
    case "removeList":
      return "removed a list";
    case "add":
      return `added ${card()} to ${listOf(list)}`;
    case "write":
      return `wrote ${card()}`;
    case "tick":
      return `${done ? "ticked" : "unticked"} ${card()}`;
    case "move":
      return `moved ${card()} in ${listOf(list)}`.replace(
        " in ",
        lookup.list(list) === undefined ? " in " : " to ",
      );
    case "archive":
      return `archived ${card()}`;
    case "restore":
      return `brought ${card()} back`;
    case "remove":
      return "deleted an archived card";
    default:
      return "did something that only newer code knows";
  }
}

const REASONS: Readonly<Record<string, string>> = {
  gone: "The card was deleted in the meantime.",
  archived: "The card was archived in the meantime.",
  "no-list": "The list was removed in the meantime.",
  "not-empty": "The list has cards again.",
  "not-archived": "The card was brought back in the meantime.",
  exists: "It is on the board already.",
  full: "The board is full.",
  "sampan:newer": "The board does not know this kind of edit.",
  "sampan:threw": "The board failed at it.",
  "sampan:malformed": "The board does not know this kind of edit.",
};

/** Says why an edit was refused: by the machine with a code, or by the server in words. */
export function reasonOf(code: string | undefined): string {
  if (code === undefined) return "It cannot be known whether it was applied.";
  return REASONS[code] ?? `${code.replace(/\.$/, "")}.`;
}

/** Text that a person has typed, in a command; undefined if it has none. */
export function typedText({ args }: Call): string | undefined {
  const { text, title } = Object(args) as Arguments;
  return text ?? title;
}
