import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { gzipSync } from "node:zlib";
import { stopBundler } from "../../web/bundle.ts";
import {
  bundlePlayground,
  PLAYGROUND_BYTES_MAX,
} from "../../web/playground.ts";
import {
  compile,
  ErrMachineCode,
  hashName,
} from "../../web/playground/machine.ts";
import { countRounds } from "../../web/playground/rounds.ts";
import { sampleOf, SAMPLES } from "../../web/playground/machines.ts";
import {
  type Recorded,
  Run,
  type Setup,
  setupOf,
  urlOf,
} from "../../web/playground/run.ts";
import { TOURS } from "../../web/playground/tours.ts";
import type { Action, Name, ReplicaView } from "../../web/playground/world.ts";

/** Time after the last moment of a tour in which its consequences happen, in milliseconds. */
const AFTER_MS = 8_000;

const BASE = new URL("https://example.org/playground/");

function setupFor(setup: Partial<Setup>): Setup {
  return {
    seed: 1,
    tour: undefined,
    code: sampleOf(null).code,
    actions: [],
    ...setup,
  };
}

function tourSetup(number: number, seed = 1): Setup {
  const { code } = sampleOf(TOURS[number]!.machine);
  return setupFor({ tour: number, seed, code });
}

/** Plays a tour to its end. */
async function play(number: number, seed?: number): Promise<Run> {
  const run = await Run.start(tourSetup(number, seed));
  await run.advance(run.tourMs + AFTER_MS);
  return run;
}

/** All that a run shows, as text. */
function shown({ world, sentences }: Run): string {
  return JSON.stringify([
    world.now,
    world.events,
    world.cells,
    world.first,
    sentences,
    world.replicas.map((view) => [
      view.phase,
      view.applied,
      view.state,
      view.hash?.text,
      [...view.marks],
      view.waiting.size,
    ]),
  ]);
}

function statesOf(run: Run): unknown[] {
  return run.world.replicas.map(({ state }) =>
    state === undefined ? undefined : JSON.parse(state)
  );
}

/** Asserts that all replicas run with the whole log and one hash; returns their state. */
function agreed(run: Run): unknown {
  const { replicas, last } = run.world;
  const [a] = replicas as [ReplicaView];
  for (const { phase, applied, state, hash } of replicas) {
    assertEquals([phase, applied], ["running", last]);
    assertEquals([state, hash?.text], [a.state, a.hash?.text]);
  }
  return JSON.parse(a.state!);
}

function said(run: Run, words: RegExp): void {
  const texts = run.sentences.map(({ text }) => text);
  assert(texts.some((text) => words.test(text)), `${words} in ${texts}`);
}

/** Lets a person do something now, and time pass after it. */
async function act(run: Run, action: Action, ms = 100): Promise<void> {
  assert(run.world.can(action), JSON.stringify(action));
  run.act(action);
  await run.advance(run.world.now + ms);
}

function propose(on: Name, command: string, session = true): Action {
  return { do: "propose", on, command, session };
}

const SEEDS = [1, 2, 7];

Deno.test("H1 the playground's tour shows that one order leads to one state", async () => {
  for (const seed of SEEDS) {
    const run = await play(0, seed);
    agreed(run);
    said(run, /All three have applied #9/);
    await run.close();
  }
});

Deno.test("H7 H8 the playground's tour shows a crash, snapshots, a compaction, and recoveries", async () => {
  for (const seed of SEEDS) {
    const crash = await play(1, seed);
    agreed(crash);
    said(crash, /B applies #1–#8 from the beginning/);
    await crash.close();
    const snapshot = await play(2, seed);
    agreed(snapshot);
    said(snapshot, /The log drops what is up to #7/);
    said(snapshot, /C recovers the snapshot at #9, then applies #10/);
    assertEquals(snapshot.world.first, 8);
    assertEquals(snapshot.world.replica("C").marks.get(9), "snapshot");
    await snapshot.close();
  }
});

Deno.test("H3 H5 the playground's tour shows that a command in a session is applied once, and one outside of any session twice", async () => {
  for (const seed of SEEDS) {
    const run = await play(3, seed);
    assertEquals(agreed(run), { count: 16 });
    const { cells, replicas } = run.world;
    const repeated = cells.filter(({ repeats }) => repeats !== undefined);
    assertEquals(
      repeated.map((
        { text, repeats, inSession },
      ) => [text, repeats, inSession]),
      [
        ["add 5", 5, false],
        ["add 5", 7, true],
        ["add 1", 9, true],
      ],
    );
    for (const { marks } of replicas) {
      assertEquals(
        repeated.map(({ index }) => marks.get(index)),
        ["applied", "passed", "passed"],
      );
    }
    await run.close();
  }
});

Deno.test("H1 H3 the playground's tour shows a replica that was cut off, and its refused command", async () => {
  for (const seed of SEEDS) {
    const run = await play(4, seed);
    assertEquals(agreed(run), { color: "blue", boat: "sampan" });
    said(run, /The message “swap color red green” from C is lost/);
    await run.close();
  }
});

Deno.test("H12 the playground's tour shows that replicas with a machine that reads the clock diverge, where, and how they heal", async () => {
  for (const seed of SEEDS) {
    const run = await Run.start(tourSetup(5, seed));
    await run.advance(9_000);
    const states = statesOf(run) as { count: number; seen: number }[];
    assertEquals(states.map(({ count }) => count), [1, 1, 1]);
    assertEquals(new Set(states.map(({ seen }) => seen)).size, 3);
    await run.advance(15_000);
    const { replicas } = run.world;
    assertEquals(
      replicas.map(({ phase, differs }) => [phase, differs]),
      [
        ["running", undefined],
        ["diverged", { after: 4, upTo: 8 }],
        ["diverged", { after: 4, upTo: 8 }],
      ],
    );
    await run.advance(24_500);
    assertEquals(replicas.map(({ differsAt }) => differsAt), [undefined, 6, 6]);
    await run.advance(run.tourMs + AFTER_MS);
    agreed(run);
    said(run, /B answers again, from a snapshot that agrees with A/);
    await run.close();
  }
});

Deno.test("a seed and the actions in a URL repeat a run of the playground", async () => {
  const first = await Run.start(setupFor({ seed: 42 }));
  // Frames of unequal length, as in a browser.
  for (const to of [17, 250, 1_004]) await first.advance(to);
  await act(first, propose("A", "add 5"), 333);
  await act(first, { do: "lose answer", on: "B" }, 7);
  await act(first, propose("B", "double"), 400);
  await act(first, { do: "slow", on: "C" }, 11);
  first.act(propose("C", "add 1"));
  first.act({ do: "snapshot", on: "A" });
  await first.advance(6_000);
  await act(first, { do: "pause", on: "A" }, 1_300);
  await act(first, { do: "cut", on: "B" }, 900);
  await act(first, { do: "crash", on: "C" }, 800);
  await act(first, { do: "restart", on: "C" }, 5_000);
  await act(first, { do: "resume", on: "A" }, 1_000);
  await act(first, { do: "join", on: "B" }, 0);
  for (let i = 0; i < 5; i++) {
    await first.step();
    first.act(propose("A", `add ${i}`));
  }
  await first.advance(60_000);
  const state = agreed(first);
  assertEquals(state, { count: 10 + 1 + 0 + 1 + 2 + 3 + 4 });

  const url = urlOf(BASE, first.setup, first.recorded);
  const { setup, unread } = setupOf(new URL(url.href));
  assertEquals(unread, undefined);
  assertEquals(setup.actions, first.recorded);
  const again = await Run.start(setup);
  for (let to = 90; to < 60_000; to += 90) await again.advance(to);
  await again.advance(60_000);
  assertEquals(shown(again), shown(first));
  assertEquals(again.recorded, first.recorded);

  const other = await Run.start({ ...setup, seed: 43 });
  await other.advance(60_000);
  assert(shown(other) !== shown(first));
  for (const run of [first, again, other]) await run.close();
});

Deno.test("R5 H17 a machine of the playground that throws stops every replica at the same entry, until they skip it", async () => {
  const code = `const initial = { n: 0 };
    function update(state, command) {
      if (command === "bad") throw new Error("no such command");
      state.n++;
    }`;
  const run = await Run.start(setupFor({ code }));
  await act(run, propose("A", "good"), 3_000);
  assertEquals(agreed(run), { n: 1 });
  await act(run, propose("B", "bad"), 3_000);
  for (const { phase, failure } of run.world.replicas) {
    assertEquals(phase, "failed");
    assertMatch(failure!, /no such command/);
  }
  said(run, /update\(\) threw at #6/);
  await act(run, { do: "skip", on: "C" }, 25_000);
  assertEquals(agreed(run), { n: 1 });
  assertEquals([...run.world.skipped], [6]);
  await act(run, propose("A", "good"), 3_000);
  assertEquals(agreed(run), { n: 2 });
  await run.close();
});

Deno.test("H12 a machine of the playground that forgets a part of its state in a snapshot diverges", async () => {
  const run = await Run.start(setupFor({ code: sampleOf("forgetful").code }));
  await act(run, propose("A", "add 5"), 2_000);
  await act(run, { do: "snapshot", on: "A" }, 2_000);
  await act(run, { do: "crash", on: "C" });
  await act(run, { do: "restart", on: "C" }, 5_000);
  await act(run, propose("A", "add 1"), 2_000);
  await act(run, propose("B", "add 1"), 20_000);
  said(run, /C and A have different hashes at #8/);
  // Its snapshot agrees with A, and what follows it does not: it heals in vain.
  const healed = run.sentences.find(({ text }) =>
    text.startsWith("C answers again")
  );
  assert(healed!.times > 1);
  await run.close();
});

Deno.test("the code of a machine of the playground that is not right is refused in words", () => {
  const cases: [string, RegExp][] = [
    ["const initial = {", /not valid JavaScript/],
    ["throw new Error('early')", /fails at once. Error: early/],
    ["const initial = {}", /no function update/],
    ["function update() {}", /no object named initial/],
    [
      "const initial = {}, commands = 5; function update() {}",
      /commands is 5, not a list/,
    ],
    [
      "const initial = { votes: new Map() }; function update() {}",
      /state\.votes is a Map, which a snapshot cannot carry/,
    ],
    [
      "const initial = { n: 1 }, commands = ['a']; function update(s) { s.n = s.x / 2 }",
      /state\.n is NaN/,
    ],
    [
      "const initial = {}, commands = ['a']; function update(s) { s.x.y = 1 }",
      /throws at the command “a”/,
    ],
  ];
  for (const [code, words] of cases) {
    const error = assertThrows(() => compile(code), ErrMachineCode);
    assertMatch(error.message, words);
  }
  for (const { code, id } of SAMPLES) {
    assert(compile(code).commands.length > 0, id);
  }
});

Deno.test("R12 the code of a machine of the playground sees the clock and the random numbers of its replica only", () => {
  const { create } = compile(`const initial = {};
    function update(state) {
      return [Date.now(), new Date().getTime(), performance.now(), Math.random(),
        Math.max(1, 2), new Date(5).getTime(), typeof crypto];
    }`);
  const { update } = create({ now: () => 1234, random: () => 0.25 });
  assertEquals(
    update({}, ""),
    [1234, 1234, 1234, 0.25, 2, 5, "undefined"],
  );
});

Deno.test("an address of the playground that is malformed means the default", () => {
  const found = (text: string): Setup => setupOf(new URL(text, BASE)).setup;
  assertEquals(found(""), tourSetup(0));
  assertEquals(found("?tour=6&seed=9"), tourSetup(5, 9));
  assertEquals(found("?tour=7&seed=-1"), tourSetup(0));
  assertEquals(found("?tour=0"), setupFor({}));
  const { code } = sampleOf("keys");
  assertEquals(found("?machine=keys"), setupFor({ code }));
  const recorded: Recorded = { at: 5, action: { do: "cut", on: "B" } };
  for (
    const [run, actions] of [
      ["[", []],
      ["{}", []],
      ['[[5,"cut","B"],[6,"cut","D"],[7,"fly","A"],["x","cut","A"]]', [
        recorded,
      ]],
      ['[[1e12,"cut","B"],[5,"propose","A",3,true]]', []],
    ] as const
  ) {
    assertEquals(
      found(`#${new URLSearchParams({ run })}`),
      setupFor({ actions }),
    );
  }
  // Code runs only once the person has read it.
  const own = urlOf(BASE, setupFor({ code: "own" }));
  const { setup, unread } = setupOf(own);
  assertEquals([setup.code, unread], [sampleOf(null).code, "own"]);
});

Deno.test("different hashes have different names in the playground", () => {
  const names = new Set<string>();
  for (let i = 0n; i < 100n; i++) {
    names.add(hashName(i * 0x9E3779B97F4A7C15n & 0xFFFFFFFFFFFFFFFFn).text);
  }
  assert(names.size > 95, `${names.size} names`);
});

Deno.test({
  name: "the playground is one file that loads nothing else, within its weight",
  // The bundler is a process of its own.
  sanitizeOps: false,
  sanitizeResources: false,
  async fn(): Promise<void> {
    const { html, policy } = await bundlePlayground();
    await stopBundler();
    const weight = gzipSync(html, { level: 9 }).length;
    assert(weight <= PLAYGROUND_BYTES_MAX, `${weight} bytes`);
    const body = html.replace(/<script[\s\S]*<\/script>/, "");
    for (const [, url] of body.matchAll(/(?:src|href)="([^"]*)"/g)) {
      assertMatch(url!, /^(data:|#|\.$)/);
    }
    assert(html.includes(policy) && /default-src 'none'/.test(policy));
  },
});

/** Loops and functions without an end. */
const ENDLESS = [
  "while (true);",
  "for (;;) {}",
  "for (let i = 0; i < 1; ) {}",
  "for (let i = 0;; (i)) ;",
  "outer: for (;;) { continue outer; }",
  "do { state.n++ } while (state.n > 0)",
  "for (const x of { [Symbol.iterator]: () => ({ next: () => ({ done: false }) }) }) ;",
  "for (const of of endless()) ;",
  "fibonacci(60)",
  "const f = (n) => { if (n > 0) { f(n - 1); f(n - 1); } }; f(60)",
  "const f = (n) => n < 2 ? n : f(n - 1) + f(n - 2); f(60)",
  "const o = { m(n) { return n < 2 ? n : o.m(n - 1) + o.m(n - 2) } }; o.m(60)",
  "class A { m(n) { return n < 2 ? n : this.m(n - 1) + this.m(n - 2) } } new A().m(60)",
  "let a; const set = () => a = 1, f = (b) => (c) => b; while (true) set(f(1)(2))",
  "`${(() => { while (1); })()}`",
  "try { while (true) { try { state.n++ } catch {} } } finally { state.n = 0 }",
  "if (/[/)]while/.test('x\\'') || 4 / 2 / 1) while (1 /* ) */) ;",
];

const endlessMachine = (body: string): string =>
  `const initial = { n: 0 }, commands = ["go"];
  function* endless() { for (;;) yield 1; }
  function fibonacci(n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }
  function update(state, command) { ${body} }`;

Deno.test("the playground stops code without an end, and says so in a sentence", () => {
  for (const body of ENDLESS) {
    const { message } = assertThrows(
      () => compile(endlessMachine(body)),
      ErrMachineCode,
      "update() does not return from the command “go”. It was stopped after 100,000 rounds",
      body,
    );
    assertMatch(message, /one of them has no end$/);
  }
  assertThrows(
    () => compile("while (true);"),
    ErrMachineCode,
    "The code does not come to an end by itself. It was stopped after",
  );
});

Deno.test("the playground counts rounds without another effect on the code", () => {
  const code = `
    let log = [], i = 0, o = { while: 1, for: (x) => x, of: [1] };
    for (let i = 0, n = 3; i < n; i++) { if (i === 1) continue; log.push(i) }
    for (const [key, value] of Object.entries({ a: 1 })) log.push(key + value);
    for (const key in { p: 1, q: 2 }) log.push(key);
    for (const of of o.of) log.push(of);
    a: while (i < 9, i++ < 5) { for (;;) { if (i > 3) break a; break } }
    do i--; while (i > 0)
    function add(a, b = (() => { return 2 })()) { return a + b }
    const text = \`\${add(1)} while (\${\`}\${o.for(7)}\`}) { for (;;)\`;
    switch (i) { case 0: log.push([0, null].map((x) => x), (() => ({ z: 1 }))()) }
    const parts = "a/b while (1)/g".split(/\\/|[/(]/), half = (8) / 2 / o.while;
    log.push(i, text, parts.length, half, [..."xy"].map((x) => { return x + i }).join());
    return JSON.stringify(log);`;
  const counted = countRounds(code, true);
  const plain: unknown = new Function(code)();
  let rounds = 0;
  const each = (values: unknown): unknown => values;
  const found: unknown = new Function("$round", "$each", counted)(
    () => void rounds++,
    each,
  );
  assertEquals(found, plain);
  // Each loop and each function that is called was counted.
  assert(rounds >= 12 && rounds < 40, `${rounds}`);
  for (const { code } of SAMPLES) compile(code);
});
