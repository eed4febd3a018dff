import { assert, assertEquals, assertMatch } from "@std/assert";
import type { RemoteStatus } from "../../src/sync/client/mod.ts";
import { messageOf } from "../../web/app/trouble.ts";
import {
  clusterOf,
  linkTo,
  type Place,
  placeOf,
  slugOf,
  WELCOME,
} from "../../web/app/names.ts";
import { quote, reasonOf, sentenceOf } from "../../web/app/words.ts";

Deno.test("a link names a board in letters of any language, alone or on two devices", () => {
  const places: Place[] = [
    { board: "holiday-plans", device: "here", isTwo: false },
    { board: "urlaub-2027", device: "left", isTwo: false },
    { board: "假期", device: "right", isTwo: false },
    { board: "رحلة", device: "here", isTwo: true },
  ];
  for (const place of places) {
    const { hash } = new URL(linkTo(place), "http://localhost/");
    assertEquals(placeOf(hash, undefined), place);
  }
  const welcome = { board: WELCOME, device: "here", isTwo: true };
  assertEquals(placeOf("", "holiday"), welcome);
  assertEquals(placeOf("#%E0%A4%A", undefined).device, "here");
  assertEquals(placeOf("#:last", undefined), welcome);
  assertEquals(placeOf("#:last", "holiday"), {
    ...welcome,
    board: "holiday",
    isTwo: false,
  });
});

Deno.test("a board's name is the same however it is written, and its cluster follows from it", () => {
  for (const name of ["Holiday plans", " holiday--PLANS! ", "holiday plans?"]) {
    assertEquals(slugOf(name), "holiday-plans");
  }
  assertEquals(slugOf("Cafe\u0301"), slugOf("Café"));
  assertEquals(slugOf("…"), "");
  assert(slugOf("x".repeat(200)).length <= 60);
  // Devices and servers of every release have to agree on it.
  assertEquals(clusterOf("welcome"), 12118324604004901907n);
  const ids = Array.from({ length: 1000 }, (_, i) => clusterOf(`board-${i}`));
  assertEquals(new Set(ids).size, 1000);
  assert(ids.every((id) => id >= 1n << 63n && id < 1n << 64n));
});

Deno.test("U18 commands and refusals are told in sentences that quote what was typed", () => {
  const lookup = {
    card: (id: string) => id === "a" ? "Rope" : undefined,
    list: (id: string) => id === "todo" ? "To do" : undefined,
  };
  const tell = (name: string, args: unknown): string =>
    sentenceOf({ name, args }, lookup).replaceAll(/[\u2068\u2069]/g, "");
  assertEquals(tell("tick", { id: "a", done: true }), "ticked “Rope”");
  assertEquals(
    tell("move", { id: "a", list: "todo", before: null }),
    "moved “Rope” to “To do”",
  );
  assertEquals(tell("archive", { id: "z" }), "archived a card");
  assertEquals(
    tell("add", { id: "z", list: "todo", text: "Sail" }),
    "added “Sail” to “To do”",
  );
  assertMatch(tell("later", {}), /newer code/);
  assertEquals([...quote("字".repeat(500))].length, 64);
  assertMatch(reasonOf("archived"), /archived/);
  assertMatch(reasonOf("Too long."), /^Too long\.$/);
  assertMatch(reasonOf(undefined), /cannot be known/);
});

Deno.test("U33 U38 U14 each state of the connection that lasts has words and a way out", () => {
  const nothing = (): void => {};
  const later = (): Promise<void> => Promise.resolve();
  const told = (
    code: string | undefined,
    isPluggedIn = true,
  ): string | undefined => {
    const status = {
      state: "offline",
      retryInMs: 3200,
      addresses: [],
      clusters: [],
      ...(code === undefined
        ? {}
        : { reason: { code, message: `It is ${code}.` } }),
    } as unknown as RemoteStatus;
    const message = messageOf(status, isPluggedIn, nothing, nothing, {
      save: later,
      startOver: later,
    });
    return message &&
      [
        message.tone,
        ...message.remedies?.map(([text]) => text) ?? [],
        message.countdown ?? "",
      ].join();
  };
  assertEquals(told(undefined), undefined);
  assertEquals(told(undefined, false), "info,Plug in,");
  assertEquals(told("unreachable"), "warn,Now,Next try in 4 s.");
  assertEquals(
    told("other-history"),
    "bad,Save what is here,Take the server’s board,",
  );
  assertEquals(told("newer-code"), "warn,Reload,");
  assertEquals(
    told("replica-failed"),
    "bad,Save what is here,Reload,Take the server’s board,",
  );
});
