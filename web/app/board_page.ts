/**
 * The page of one board on one device.
 *
 * This module runs in a browser.
 *
 * @module
 */

import type { HostEvent } from "../../mod.ts";
import {
  ErrStoreFull,
  requestPersistence,
  storageStatus,
} from "../../src/indexeddb/mod.ts";
import type { Tabs } from "../../src/tabs/mod.ts";
import { newID } from "../../src/typed/mod.ts";
import { Actions } from "./actions.ts";
import { board as machine } from "./board.ts";
import { BoardView } from "./board_view.ts";
import { showConnection } from "./connection.ts";
import { type Device, openDevice, type Started } from "./device.ts";
import type { PageParts } from "./dialogs.ts";
import { h, icon, iconButton, setText } from "./dom.ts";
import { Frames } from "./frames.ts";
import { isRefused, type Later, loadLater } from "./lazy.ts";
import { type Message, Messages, RELOAD } from "./messages.ts";
import { linkTo, type Place, WELCOME } from "./names.ts";
import { DEVICES, Presence } from "./presence.ts";
import { rememberBoard } from "./recent.ts";
import type { RefusedEdits } from "./refused_edits.ts";
import type { BadDay } from "./trouble.ts";

/** State of this tab, as `data-sampan` of the page says it. */
export type TabState =
  | "joining"
  | "following"
  | "leading"
  | "memory"
  | "failed";

/** Sets the state of this tab. */
export function setTabState(state: TabState): void {
  document.documentElement.dataset["sampan"] = state;
}

/** State of the page by that of its tab. */
const TAB_STATES: Readonly<Record<Tabs["status"]["state"], TabState>> = {
  joining: "joining",
  opening: "joining",
  cached: "joining",
  following: "following",
  orphaned: "following",
  leading: "leading",
  memory: "memory",
  outdated: "failed",
  gone: "failed",
};

/** Milliseconds after which the page looks whether entries were applied that are no edits. */
const STAND_AGAIN_MS = 300;

/** Board of this page. */
class BoardPage {
  readonly #place: Place;
  readonly #messages = new Messages();
  readonly #header = h("header", { className: "top" });
  readonly #footer = h("footer", { ariaLabel: "State of this device" });
  #device: Device | undefined;

  constructor(place: Place) {
    this.#place = place;
    document.title = `${place.board} · Sampan`;
    document.getElementById("app")!.replaceChildren(
      this.#header,
      this.#messages.element,
      this.#footer,
      this.#messages.voices,
    );
    this.#header.append(this.#brand());
  }

  /** Device name beside another one, else a link to both. */
  #brand(): HTMLElement {
    const { device } = this.#place;
    const name = DEVICES[device];
    if (name !== undefined) {
      document.documentElement.classList.add("framed");
      return h(
        "p",
        { className: `device ${device}` },
        h("span", { className: "dot" }),
        name,
      );
    }
    return h("a", {
      className: "quiet brand",
      href: linkTo({ ...this.#place, device: "here", isTwo: true }),
      title: "Two devices side by side",
      ariaLabel: "Two devices side by side",
    }, icon("boat"));
  }

  async open(): Promise<void> {
    const { board, device } = this.#place;
    const opened = await openDevice(
      this.#place,
      (event) => this.#happened(event),
    );
    this.#device = opened;
    const pill = showConnection(opened, this.#messages, {
      save: () => this.#save(),
      startOver: () => this.#startOver(),
    });
    this.#header.append(pill);
    this.#show(await opened.start());
    this.#showTab();
    opened.tabs.watch(() => this.#showTab());
    if (device === "here") rememberBoard(board);
    this.#watchForNewCode();
  }

  /** Shows what this tab is among those with the same board. */
  #showTab(): void {
    const { state, reason } = this.#device!.tabs.status;
    setTabState(TAB_STATES[state]);
    if (state === "outdated") this.#tell("tab", reason!);
    else this.#messages.set("tab", undefined);
    if (state === "memory") this.#tell("storage", reason!);
  }

  /** Shows a message about a bad day. Its words may not be on this device yet: then it is the detail. */
  #tell(day: BadDay, detail: string): void {
    const dismiss = (): void => this.#messages.set(day, undefined);
    const save = this.#device && ((): Promise<void> => this.#save());
    loadLater().then(
      ({ badDay }) => badDay(day, detail, dismiss, save),
      (): Message => ({ tone: "bad", text: detail, remedies: [RELOAD] }),
    ).then((message) => this.#messages.set(day, message));
  }

  #show({ replica, app }: Started): void {
    const { plug, feed, logDB } = this.#device!;
    const { board, device } = this.#place;
    const actions = new Actions(app, {
      say: (text) => this.#messages.say(text),
      complain: (error) => this.#complain(error),
    });
    const parts: PageParts = {
      place: this.#place,
      device: this.#device!,
      replica,
      machine,
      app,
      actions,
      messages: this.#messages,
      voice: this.#messages,
      lists: () => view.lists,
      cards: (list) => view.cards(list),
      title: () => about.getSnapshot()?.title ?? "",
      // It begins after the view.
      get person() {
        return presence;
      },
      startOver: () => this.#startOver(),
    };
    const frames = new Frames(() => actions.isAwaited);
    const view = new BoardView({
      app,
      actions,
      voice: this.#messages,
      frames,
      dialogs: parts,
    });
    const refusedEdits = h("section", {
      id: "refused",
      ariaLabel: "Edits that were not applied",
      hidden: true,
    });
    this.#messages.element.after(refusedEdits, view.element);
    let refused: RefusedEdits | undefined;
    /** True once the page was without refused edits: after a reload they are there to be read, and no news. */
    let wasClean = false;
    const showRefused = async (): Promise<void> => {
      if (refused === undefined) {
        if (!app.pending().some(isRefused)) {
          wasClean = true;
          return;
        }
        const { RefusedEdits } = await loadLater();
        refused ??= new RefusedEdits(
          refusedEdits,
          wasClean,
          app,
          this.#messages,
          {
            card: (id) => view.textOf(id),
            list: (id) => view.lists.find((list) => list.id === id)?.title,
          },
          () => view.lists,
        );
      }
      refused.show();
    };
    const presence = new Presence({
      place: this.#place,
      device: this.#device!,
      voice: this.#messages,
      board: view.element,
      textOf: (card) => view.textOf(card),
      changed: (tags) => view.showTags(tags),
    });

    const title = h("h1", { dir: "auto" });
    const about = app.watch.about();
    const showTitle = (): void => {
      const known = about.getSnapshot()?.title ?? "";
      title.textContent = known || board;
      document.title = `${known || board} · Sampan`;
    };
    about.subscribe(showTitle);
    showTitle();

    const undo = iconButton("undo", "Undo", () => void actions.undo());
    const redo = iconButton("redo", "Redo", () => void actions.redo());
    const showHistory = (): void => {
      undo.disabled = !app.canUndo;
      redo.disabled = !app.canRedo;
    };
    app.onHistory(showHistory);
    showHistory();
    document.addEventListener("keydown", (event) => {
      const { key, ctrlKey, metaKey, shiftKey, target } = event;
      const isTyping = (target as HTMLElement).matches?.("input, textarea");
      if (!(ctrlKey || metaKey) || isTyping) return;
      const isRedo = key === "y" || key.toLowerCase() === "z" && shiftKey;
      if (isRedo) void actions.redo();
      else if (key === "z") void actions.undo();
      else return;
      event.preventDefault();
    });

    const pull = h(
      "button",
      {
        id: "plug",
        type: "button",
        onclick: (): void => {
          plug.isIn = !plug.isIn;
        },
      },
      icon("plug"),
      h("span"),
    );
    const showPlug = (): void => {
      pull.ariaPressed = `${!plug.isIn}`;
      pull.lastElementChild!.textContent = plug.isIn
        ? "Pull the plug"
        : "Plug in";
    };
    plug.addEventListener("change", showPlug);
    showPlug();
    const isFramed = device in DEVICES;
    const menu = iconButton(
      "more",
      "Board: archive, keys, other boards",
      () => this.#use(({ openMenu }) => openMenu(parts)),
      { id: "menu" },
    );
    this.#header.append(
      ...(isFramed ? [] : [presence.element]),
      h("span", { className: "space" }),
      undo,
      redo,
      pull,
      ...(isFramed ? [] : [
        iconButton(
          "share",
          "Share this board",
          () =>
            this.#use(({ openShare }) =>
              openShare(this.#place, this.#messages)
            ),
          { id: "share" },
        ),
      ]),
      menu,
    );
    if (isFramed) title.className = "unseen";
    this.#header.firstElementChild!.after(title);

    const texts = Object.fromEntries(
      ["pending", "applied", "hash", "kept"].map((
        id,
      ) => [id, h("span", { id })]),
    );
    this.#footer.append(
      h("p", {}, texts["pending"]!),
      h("p", {}, "applied to #", texts["applied"]!),
      h("p", {}, "hash ", texts["hash"]!),
      h("p", {}, texts["kept"]!),
    );
    void this.#tellKept(texts["kept"]!);

    let isBegun = false;
    const begin = (): void => {
      // The first device that sees an empty board begins it.
      if (
        isBegun || device === "right" || logDB.state !== "live" ||
        about.getSnapshot()?.begun !== false
      ) return;
      isBegun = true;
      actions.run(
        actions.do.begin({ lists: firstLists(board === WELCOME) }),
        "",
      );
    };
    logDB.watch(begin);
    about.subscribe(begin);
    // Both may have happened before.
    begin();

    const showPending = (): number => {
      const count = app.pending().filter(({ state }) => state === "queued")
        .length + actions.storing;
      texts["pending"]!.dataset["count"] = `${count}`;
      setText(
        texts["pending"]!,
        count === 0
          ? "all edits sent"
          : `${count} ${count === 1 ? "edit waits" : "edits wait"}`,
      );
      return count;
    };
    const stand = async (): Promise<void> => {
      const { index, hash } = await replica.getHash();
      setText(texts["applied"]!, `${index}`);
      const digits = hash.toString(16).padStart(16, "0");
      setText(texts["hash"]!, digits);
      feed.stand({
        applied: index,
        hash: digits,
        waiting: showPending(),
        isPluggedIn: plug.isIn,
      });
    };
    const showState = (): void => {
      showRefused().catch((error) => this.#messages.complain(error));
      showPending();
      // It fails only once the replica has ended, which is shown.
      stand().catch(() => {});
    };
    // Together with the cards, once for all changes of a moment.
    const changed = (): void => frames.request(showState);
    feed.onApplied = changed;
    // Sessions of other devices are part of the state, too, and no edits.
    setInterval(() => {
      if (texts["applied"]!.textContent !== `${replica.appliedIndex}`) {
        changed();
      }
    }, STAND_AGAIN_MS);
    actions.onStoring(() => void showPending());
    app.onPending(changed);
    app.marks.subscribe(changed);
    logDB.watch(changed);
    plug.addEventListener("change", changed);
    changed();
  }

  /** Uses a part of the page that is loaded when it is first needed. */
  #use(open: (parts: Later) => void): void {
    loadLater().then(open)
      .catch((error) => this.#messages.complain(error));
  }

  async #tellKept(text: HTMLElement): Promise<void> {
    if (this.#device!.storage.mode !== "memory") await requestPersistence();
    const { mode } = await storageStatus();
    text.textContent = {
      persistent: "kept on this device until you delete it",
      "best-effort": "kept on this device while the browser has room",
      memory: "in memory until this tab is closed",
    }[mode];
  }

  #watchForNewCode(): void {
    const worker: ServiceWorkerContainer | undefined = navigator.serviceWorker;
    if (worker === undefined) return;
    let isFirst = worker.controller === null;
    worker.oncontrollerchange = (): void => {
      // The first worker of a page has the same code as the page.
      if (isFirst) {
        isFirst = false;
        return;
      }
      this.#tell("code", "A newer version of this page is here");
    };
    // A server that was away may be back with newer code.
    const { logDB } = this.#device!;
    let wasLive = true;
    logDB.watch(() => {
      const isLive = logDB.state === "live";
      if (isLive && !wasLive) {
        worker.getRegistration().then((found) => found?.update())
          .catch(() => {});
      }
      wasLive = isLive;
    });
  }

  #complain(error: unknown): void {
    if (error instanceof ErrStoreFull) this.#tell("full", error.message);
    else this.#messages.complain(error);
  }

  #happened(event: HostEvent): void {
    switch (event.type) {
      case "failed":
        setTabState("failed");
        return;
      case "diverged":
        return this.#messages.complain(event.error);
      case "snapshot failed":
      case "outbox failed":
        if (event.error instanceof ErrStoreFull) {
          this.#tell("full", event.error.message);
        }
        return;
      case "purged":
        return this.#tell(
          "purged",
          `What the server had of this device is back (${event.decided} edits)`,
        );
    }
  }

  /** Saves the board that is here as a snapshot another host can import, and the edits that were not sent. */
  async #save(): Promise<void> {
    const { saveBoard } = await loadLater();
    await saveBoard(this.#device!, this.#place.board);
  }

  async #startOver(): Promise<void> {
    const { host, clusterID } = this.#device!;
    await host.startOver(clusterID);
    await host.stop();
    location.reload();
  }

  /** Says that the page could not start, and what can be done. */
  failed(error: unknown): void {
    setTabState("failed");
    const tell = (): void => {
      // The connection may have the better words for it.
      if (document.querySelector("[data-topic=connection].bad") !== null) {
        return;
      }
      this.#tell("start", error instanceof Error ? error.message : `${error}`);
    };
    loadLater().then(tell, tell);
  }
}

/** Lists that a board is begun with, on the first one with cards. */
function firstLists(isWelcome: boolean): {
  id: string;
  title: string;
  cards: { id: string; text: string; done: boolean }[];
}[] {
  const cards = (...texts: string[]): {
    id: string;
    text: string;
    done: boolean;
  }[] =>
    isWelcome
      ? texts.map((text) => ({
        id: newID(),
        text: text.replace("✓ ", ""),
        done: text.startsWith("✓ "),
      }))
      : [];
  return [
    {
      id: newID(),
      title: "To do",
      cards: cards("Rope, 12 m", "Mend the sail", "Fill the water tank"),
    },
    {
      id: newID(),
      title: "Doing",
      cards: cards("Paint the hull", "Ask Mei about the tide"),
    },
    { id: newID(), title: "Done", cards: cards("✓ Buy a compass") },
  ];
}

/** Shows a board on one device. */
export async function showBoard(place: Place): Promise<void> {
  const page = new BoardPage(place);
  await page.open().catch((error) => page.failed(error));
}
