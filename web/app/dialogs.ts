/**
 * Everything that can be done with a card, a list or a board, in a dialog: nothing
 * needs a pointer, or a key that a phone does not have.
 *
 * This module runs in a browser.
 *
 * @module
 */

import type { Actions, Voice } from "./actions.ts";
import type { board, Card, List } from "./board.ts";
import type { BoardApp, BoardReplica, Device } from "./device.ts";
import { button, h, iconButton } from "./dom.ts";
import type { Messages } from "./messages.ts";
import { type Place, TEXT_LENGTH_MAX, TITLE_LENGTH_MAX } from "./names.ts";
import { quote } from "./words.ts";

/** Parts of the page that dialogs use. */
export interface DialogParts {
  /** Place that the page shows. */
  readonly place: Place;
  /** Typed access to the board. */
  readonly app: BoardApp;
  /** Edits of this person. */
  readonly actions: Actions;
  /** Part that speaks to the person. */
  readonly voice: Voice;
  /** Lists in order. */
  lists(): readonly List[];
  /** Cards of a list in order. */
  cards(list: string): readonly Card[];
}

/** Parts of the page that its menu and its inspector use, too. */
export interface PageParts extends DialogParts {
  readonly device: Device;
  readonly replica: BoardReplica;
  /** Machine of the board. It is given: this file has a copy of the library of its own. */
  readonly machine: typeof board;
  readonly messages: Messages;
  /** Title of the board; empty without one. */
  readonly title: () => string;
  /** Person, as others see them. */
  readonly person: { name: string };
  /** Removes what this device has of the board, and loads it again. */
  readonly startOver: () => Promise<void>;
}

/** Opens a dialog with a title; `fill` fills it, and may return a function to call at its end. */
export function openDialog(
  title: string,
  fill: (dialog: HTMLDialogElement) => (() => void) | void,
): HTMLDialogElement {
  const titleID = "dialog-title";
  const dialog = h(
    "dialog",
    { "aria-labelledby": titleID },
    h(
      "div",
      { className: "head" },
      h("h2", { id: titleID, dir: "auto" }, title),
      iconButton("close", "Close", () => dialog.close()),
    ),
  );
  document.body.append(dialog);
  const end = fill(dialog);
  dialog.onclose = (): void => {
    end?.();
    dialog.remove();
  };
  // A press beside it closes it.
  dialog.onpointerdown = ({ target }): void => {
    if (target === dialog) dialog.close();
  };
  dialog.showModal();
  return dialog;
}

/** Opens a dialog with a part of the page that is loaded when it is first needed; `instead` is shown where that is not possible. */
export function openPart<T>(
  title: string,
  load: () => Promise<T>,
  fill: (part: T, dialog: HTMLDialogElement) => void,
  instead =
    "This is not on this device yet: open it once while you are online.",
): void {
  openDialog(title, (dialog) => {
    load().then(
      (part) => fill(part, dialog),
      () => dialog.append(h("p", {}, instead)),
    );
  });
}

/** Field with a label above it. */
export function labelled(text: string, field: HTMLElement): HTMLLabelElement {
  return h("label", {}, h("span", {}, text), field);
}

/** Row of buttons, each of which closes the dialog. */
export function choices(
  dialog: HTMLDialogElement,
  all: readonly (readonly [text: string, run: () => void, isOff?: boolean])[],
): HTMLElement {
  return h(
    "div",
    { className: "choices" },
    ...all.map(([text, run, isOff = false]) =>
      button(text, () => {
        dialog.close();
        run();
      }, { disabled: isOff })
    ),
  );
}

/** Opens a card. */
export function openCard(card: Card, parts: DialogParts): void {
  const { actions, voice } = parts;
  const { id } = card;
  openDialog("Card", (dialog) => {
    const text = h("textarea", {
      value: card.text,
      rows: 4,
      dir: "auto",
      maxLength: TEXT_LENGTH_MAX,
    });
    const lists = h(
      "select",
      {},
      ...parts.lists().map(({ id, title }) =>
        h("option", { value: id, selected: id === card.list }, title)
      ),
    );
    const rows = parts.cards(card.list);
    const at = rows.findIndex((row) => row.id === id);
    const move = (before: string | null) => (): void => {
      actions.run(actions.do.move({ id, list: card.list, before }), id);
    };
    const form = h(
      "form",
      {
        method: "dialog",
        onsubmit: (): void => {
          const typed = text.value.trim();
          if (typed !== "" && typed !== card.text) {
            actions.run(actions.do.write({ id, text: typed }), id);
          }
          const list = lists.value;
          if (list === card.list) return;
          const before = parts.cards(list)[0]?.id ?? null;
          actions.run(actions.do.move({ id, list, before }), id);
        },
      },
      labelled("Text", text),
      labelled("List", lists),
      h("button", { type: "submit", className: "main" }, "Save"),
    );
    dialog.append(
      form,
      choices(dialog, [
        ["To the top", move(rows[0]?.id ?? null), at <= 0],
        ["Up", move(rows[at - 1]?.id ?? null), at <= 0],
        ["Down", move(rows[at + 2]?.id ?? null), at >= rows.length - 1],
        ["To the end", move(null), at >= rows.length - 1],
        ["Archive", (): void => {
          actions.run(actions.do.archive({ id }), id);
          voice.say(`${quote(card.text)} is archived`);
        }],
      ]),
    );
  });
}

/** Opens a list. */
export function openList(list: List, parts: DialogParts): void {
  const { actions } = parts;
  const { id } = list;
  openDialog("List", (dialog) => {
    const title = h("input", {
      type: "text",
      value: list.title,
      dir: "auto",
      maxLength: TITLE_LENGTH_MAX,
    });
    const lists = parts.lists();
    const at = lists.findIndex((one) => one.id === id);
    const cards = parts.cards(id);
    const done = cards.filter(({ done }) => done);
    const move = (before: string | null) => (): void => {
      actions.run(actions.do.moveList({ id, before }), id);
    };
    dialog.append(
      h(
        "form",
        {
          method: "dialog",
          onsubmit: (): void => {
            const typed = title.value.trim();
            if (typed === "" || typed === list.title) return;
            actions.run(actions.do.renameList({ id, title: typed }), id);
          },
        },
        labelled("Title", title),
        h("button", { type: "submit", className: "main" }, "Save"),
      ),
      choices(dialog, [
        ["Move back", move(lists[at - 1]?.id ?? null), at <= 0],
        [
          "Move forward",
          move(lists[at + 2]?.id ?? null),
          at >= lists.length - 1,
        ],
        [
          `Archive what is done (${done.length})`,
          (): void => {
            for (const { id } of done) {
              actions.run(actions.do.archive({ id }), id);
            }
          },
          done.length === 0,
        ],
        [
          "Remove the list",
          (): void => actions.run(actions.do.removeList({ id }), id),
          cards.length > 0,
        ],
      ]),
      ...(cards.length > 0
        ? [
          h(
            "p",
            { className: "hint" },
            "A list can be removed once it is empty.",
          ),
        ]
        : []),
    );
  });
}
