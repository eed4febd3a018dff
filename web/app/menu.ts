/**
 * Menu of a board, loaded when it is first opened: its title, other boards, its
 * archive, its keys.
 *
 * This module runs in a browser.
 *
 * @module
 */

import { choices, labelled, type PageParts } from "./dialogs.ts";
import { button, h } from "./dom.ts";
import { linkTo, slugOf, TITLE_LENGTH_MAX } from "./names.ts";
import { recentBoards } from "./recent.ts";
import { PERSON_LENGTH_MAX } from "./visit.ts";
import { quote } from "./words.ts";

const KEYS: readonly (readonly [keys: string, what: string])[] = [
  ["↑ ↓ ← →", "go from card to card"],
  ["Alt + arrow", "move the card"],
  ["Enter", "write; Enter again to keep it, Esc to leave it"],
  ["T", "tick"],
  ["Delete", "archive"],
  ["M", "everything else about the card"],
  ["N", "new card in this list"],
  ["Ctrl + Z", "undo; with Shift redo"],
];

/** Tasks of a menu whose code is not in it. */
export interface MenuTasks {
  /** Has the browser save the board and what waits to be sent. */
  save(): Promise<void>;
  /** Puts a board, and edits, on this one from files that were saved. */
  load(files: readonly File[]): Promise<void>;
  /** Opens the inspector of the replica. */
  inspect(): void;
}

/** Fills a dialog with everything that concerns the whole board. */
export function fillMenu(
  dialog: HTMLDialogElement,
  parts: PageParts,
  tasks: MenuTasks,
): void {
  const { person } = parts;
  const title = parts.title();
  const self = h("input", {
    type: "text",
    value: person.name,
    dir: "auto",
    autocomplete: "off",
    maxLength: PERSON_LENGTH_MAX,
    onchange: (): void => {
      person.name = self.value;
    },
  });
  const { place, app, actions, voice } = parts;
  const name = h("input", {
    type: "text",
    value: title,
    dir: "auto",
    placeholder: place.board,
    maxLength: TITLE_LENGTH_MAX,
  });
  const other = h("input", {
    type: "text",
    required: true,
    autocomplete: "off",
    placeholder: "holiday-plans",
  });
  const archive = h("ul", { className: "archive" });
  const watch = app.watch.archive();
  const show = (): void => {
    const cards = watch.getSnapshot() ?? [];
    archive.replaceChildren(
      ...cards.slice(0, 200).map(({ id, text }) =>
        h(
          "li",
          {},
          h("span", { dir: "auto" }, text),
          button("Bring back", () => {
            actions.run(actions.do.restore({ id }), id);
          }, { ariaLabel: `Bring back ${quote(text)}` }),
          button("Delete for ever", () => {
            actions.run(actions.do.remove({ id }), id);
          }, { ariaLabel: `Delete for ever ${quote(text)}` }),
        )
      ),
      ...(cards.length === 0
        ? [h("li", { className: "hint" }, "Nothing is archived.")]
        : []),
    );
  };
  const files = h("input", {
    type: "file",
    id: "files",
    multiple: true,
    accept: ".snapshot,.json",
    hidden: true,
    onchange: (): void => {
      tasks.load([...files.files ?? []])
        .catch((error) => voice.complain(error));
    },
  });
  const recent = recentBoards().filter((board) => board !== place.board);
  const link = (board: string): HTMLLIElement =>
    h(
      "li",
      {},
      h("a", { href: linkTo({ ...place, board }), dir: "auto" }, board),
    );
  dialog.append(
    h(
      "form",
      {
        method: "dialog",
        onsubmit: (): void => {
          const typed = name.value.trim();
          if (typed === title) return;
          actions.run(actions.do.name({ title: typed }), "");
        },
      },
      labelled("Title of this board", name),
      h("button", { type: "submit", className: "main" }, "Save"),
    ),
    h(
      "form",
      {
        onsubmit: (event: Event): void => {
          event.preventDefault();
          const board = slugOf(other.value);
          if (board !== "") location.href = linkTo({ ...place, board });
        },
      },
      labelled("Open another board, or begin one", other),
      h("button", { type: "submit" }, "Open"),
    ),
    ...(recent.length > 0
      ? [h("ul", { className: "recent" }, ...recent.map(link))]
      : []),
    ...(place.device === "here"
      ? [labelled("Your name, as others here see it", self)]
      : []),
    h("h3", {}, "Archive"),
    archive,
    h("h3", {}, "Keys"),
    h(
      "dl",
      { className: "keys" },
      ...KEYS.flatMap(([keys, what]) => [
        h("dt", {}, keys),
        h("dd", {}, what),
      ]),
    ),
    choices(dialog, [
      [
        "Save the board to a file",
        () => void tasks.save().catch((error) => voice.complain(error)),
      ],
      ["Import from a file", (): void => files.click()],
      ["Inspect", (): void => tasks.inspect()],
      ["Guides", (): void => {
        (top ?? globalThis).location.href = "guide/";
      }],
    ]),
  );
  show();
  dialog.addEventListener("close", watch.subscribe(show));
}
