/**
 * The page of the playground: plays a run, shows it, and takes what the person does.
 *
 * @module
 */

import { Cards } from "./cards.ts";
import { byID, create, setText } from "./elements.ts";
import { ErrMachineCode } from "./machine.ts";
import { sampleOf, SAMPLES } from "./machines.ts";
import type { Sentence } from "./narration.ts";
import {
  Run,
  sampleWith,
  SEED_MAX,
  type Setup,
  setupOf,
  urlOf,
} from "./run.ts";
import { Tape } from "./tape.ts";
import { TOURS } from "./tours.ts";
import { Wires } from "./wires.ts";
import type { Action, Name, ReplicaView } from "./world.ts";

/** Longest step of time in one frame, in milliseconds: a page in the background does not catch up. */
const FRAME_MS_MAX = 100;

/** Shortest time between two announcements to screen readers, in milliseconds. */
const ANNOUNCE_MS = 1_500;

const WELCOME =
  "Propose something at a replica, then break what you like. Or take the tour above.";

const play = byID<HTMLButtonElement>("play");
const code = byID<HTMLTextAreaElement>("code");
const command = byID<HTMLInputElement>("command");
const form = byID<HTMLFormElement>("propose");
const speed = byID<HTMLSelectElement>("speed");
const sample = byID<HTMLSelectElement>("sample");
const tape = new Tape(byID("tape"));
const wires = new Wires(byID("wires"));
const cards = new Cards(byID("replicas"), byID("ports"), act, isInSession);

let run: Run | undefined;
/** Code of the last run in which no machine has failed. */
let worked = SAMPLES[0]!.code;
/** Code that the person can go back to. */
let before = worked;
let isPlaying = true;
/** Simulated time that the frames have reached, in milliseconds. */
let reached = 0;
let lastFrame: number | undefined;
let isFrameWanted = false;
let shownVersion = -1;
/** Lines of the sentences that are shown. */
const lines = new Map<Sentence, HTMLLIElement>();
let announced: Sentence | undefined;
let announcedAt = -Infinity;
/** Timer of the next announcement. */
let announcing: ReturnType<typeof setTimeout> | undefined;

function isInSession(): boolean {
  return (form.elements.namedItem("session") as HTMLInputElement).checked;
}

// ------------------------------------------------------------------------ time

function wantFrame(): void {
  if (isFrameWanted) return;
  isFrameWanted = true;
  requestAnimationFrame(onFrame);
}

function onFrame(time: number): void {
  isFrameWanted = false;
  const elapsed = Math.min(FRAME_MS_MAX, time - (lastFrame ?? time));
  lastFrame = time;
  void pass(isPlaying ? elapsed * Number(speed.value) : 0);
}

/** Lets simulated time pass, shows the run, and asks for the next frame if there will be something new. */
async function pass(ms: number): Promise<void> {
  const current = run;
  if (current === undefined) return;
  reached += ms;
  await current.advance(Math.floor(reached));
  if (current !== run) return;
  show(current);
  if (isPlaying && !current.isQuiet) wantFrame();
  else lastFrame = undefined;
}

function setPlaying(isNow: boolean): void {
  isPlaying = isNow;
  play.dataset.does = isNow ? "pause" : "play";
  setText(play.querySelector("span")!, isNow ? "Pause" : "Play");
  wantFrame();
}

function act(action: Action): void {
  run?.act(action);
  wantFrame();
}

// ---------------------------------------------------------------------- showing

function show(current: Run): void {
  const { world, sentences } = current;
  const now = isPlaying ? Math.max(reached, world.now) : world.now;
  wires.update(world, now);
  cards.tick();
  setText(byID("time"), `${(world.now / 1_000).toFixed(1)} s`);
  if (current.isTold) byID("next").hidden = false;
  document.documentElement.dataset.sampan = current.isQuiet ? "quiet" : "busy";
  announce(sentences);
  if (world.version === shownVersion && sentences.length === lines.size) return;
  shownVersion = world.version;
  tape.update(world);
  cards.update(world);
  tell(current);
  if (isFailed(current) && sampleWith(current.setup.code) === undefined) {
    const { failedAt, name } = world.replicas.find(isThrown)!;
    offerBack(
      `update() has thrown at #${failedAt} of the log, at ${name}: what it threw is under “What happened”. Skip the entry at a replica, or mend the code and run it again.`,
      worked,
    );
  }
}

function isThrown({ phase, failedAt }: ReplicaView): boolean {
  return phase === "failed" && failedAt !== undefined;
}

/** True if `update()` has thrown in a run. */
function isFailed({ world }: Run): boolean {
  return world.replicas.some(isThrown);
}

/** Says what is wrong with the code, and offers code that worked; with an empty text, neither. */
function offerBack(wrong: string, code: string): void {
  setText(byID("wrong"), wrong);
  before = code;
  byID("back").hidden = wrong === "";
}

/** Shows the newest sentences. */
function tell({ sentences, setup }: Run): void {
  const list = byID("sentences");
  const isFollowing =
    list.scrollTop + list.clientHeight > list.scrollHeight - 60;
  // Older ones change no more.
  for (const sentence of sentences.slice(Math.max(0, lines.size - 8))) {
    const { at, tone, text, times } = sentence;
    let line = lines.get(sentence);
    if (line === undefined) {
      const time = create("time", "", (at / 1_000).toFixed(1));
      line = create("li", "", time, create("span", "", text));
      line.dataset.tone = tone;
      lines.set(sentence, line);
      list.append(line);
    }
    if (times > 1) {
      setText(line.lastElementChild!, `${text} (${times} times)`);
    }
  }
  if (isFollowing) list.scrollTop = list.scrollHeight;
  const newest = sentences.at(-1);
  const step = sentences.findLast(({ tone }) => tone === "step");
  const said = setup.tour === undefined ? newest : step;
  const beside = setup.tour === undefined || newest === step
    ? undefined
    : newest;
  setText(byID("said"), said?.text ?? WELCOME);
  setText(byID("now"), beside?.text ?? "");
  byID("now").dataset.tone = beside?.tone ?? "plain";
}

/** Announces the newest sentence to screen readers, not too often. */
function announce(sentences: readonly Sentence[]): void {
  if (announcing !== undefined || announced === sentences.at(-1)) return;
  const now = performance.now();
  const wait = announcedAt + ANNOUNCE_MS - now;
  if (wait > 0) {
    // Also if no frame follows, because nothing happens any more.
    announcing = setTimeout(() => {
      announcing = undefined;
      if (run !== undefined) announce(run.sentences);
    }, wait);
    return;
  }
  const from = announced === undefined ? 0 : sentences.indexOf(announced) + 1;
  const fresh = sentences.slice(from);
  // What leads through the tour before what only happens.
  const next = fresh.find(({ tone }) => tone === "step") ?? fresh.at(-1);
  if (next === undefined) return;
  announced = next;
  announcedAt = now;
  setText(byID("live"), next.text);
}

// ------------------------------------------------------------------------- runs

/** Starts a run in place of the present one; leaves that one if the machine is not right. */
async function begin(setup: Setup): Promise<void> {
  let next: Run;
  try {
    next = await Run.start(setup);
  } catch (error) {
    if (!(error instanceof ErrMachineCode)) throw error;
    // The present run goes on.
    offerBack(error.message, run?.setup.code ?? worked);
    return;
  }
  offerBack("", worked);
  const previous = run;
  if (previous !== undefined && !isFailed(previous)) {
    worked = previous.setup.code;
  }
  run = next;
  await previous?.close();
  reached = next.world.now;
  shownVersion = -1;
  lines.clear();
  announced = undefined;
  byID("sentences").replaceChildren();
  setText(byID("seed"), String(setup.seed));
  setText(byID("said"), WELCOME);
  setText(byID("now"), "");
  const known = sampleWith(setup.code);
  if (code.value !== setup.code && known !== undefined) code.value = setup.code;
  sample.value = known?.id ?? "own";
  command.placeholder = next.machine.commands.at(-1) ?? "a command";
  for (const [i, link] of links.entries()) {
    const isCurrent = i === (setup.tour ?? links.length - 1);
    if (isCurrent) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "center" });
    } else link.removeAttribute("aria-current");
  }
  offerNext(setup);
  // In a page in the background no frame comes.
  show(next);
  setPlaying(true);
}

/** Starts a run, and makes the address repeat it. */
async function go(setup: Setup): Promise<void> {
  await begin(setup);
  if (run?.setup === setup) remember("pushState", hrefOf(setup));
}

/** Puts an address into the address bar. */
function remember(how: "pushState" | "replaceState", href: string): void {
  try {
    history[how](null, "", href);
  } catch {
    // A page from a file may not change its address: its links still work.
  }
}

function hrefOf(setup: Setup): string {
  const { search, hash } = urlOf(new URL(location.href), setup);
  return `${search}${hash}`;
}

function seed(): number {
  return run?.setup.seed ?? 1;
}

function free(text: string): Setup {
  return { seed: seed(), tour: undefined, code: text, actions: [] };
}

function tourSetup(number: number): Setup {
  return {
    seed: seed(),
    tour: number,
    code: sampleOf(TOURS[number]!.machine).code,
    actions: [],
  };
}

/** Links to the runs of the tour; the last one is to a run without words. */
const links: readonly HTMLAnchorElement[] = [
  ...TOURS.map(({ title }, i) => linkTo(`${i + 1}`, title, () => tourSetup(i))),
  linkTo("+", "On your own", () => free(SAMPLES[0]!.code)),
];

function linkTo(
  sign: string,
  title: string,
  setup: () => Setup,
): HTMLAnchorElement {
  const badge = create("i", "", sign);
  badge.setAttribute("aria-hidden", "true");
  const link = create("a", "", badge, title);
  link.href = hrefOf(setup());
  link.onclick = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    void go(setup());
  };
  return link;
}

/** Sets the link to what follows a tour. */
function offerNext({ tour }: Setup): void {
  const next = byID<HTMLAnchorElement>("next");
  next.hidden = true;
  if (tour === undefined) return;
  const link = links[tour + 1]!;
  next.href = link.href;
  setText(next, `Next: ${TOURS[tour + 1]?.title ?? "On your own"}`);
  next.onclick = (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    link.click();
  };
}

/** Runs the code in the editor. */
function runCode(): void {
  byID("brought").hidden = true;
  const { code: current, actions } = brought ?? { code: "", actions: [] };
  brought = undefined;
  void go({
    ...free(code.value),
    actions: code.value === current ? actions : [],
  });
}

/** Setup with code that a link brought and the person has not run yet. */
let brought: Setup | undefined;

/** Starts the run of the present address. */
async function open(): Promise<void> {
  const { setup, unread } = setupOf(new URL(location.href));
  brought = unread === undefined ? undefined : { ...setup, code: unread };
  byID("brought").hidden = unread === undefined;
  await begin(unread === undefined ? setup : { ...setup, actions: [] });
  if (unread !== undefined) {
    code.value = unread;
    sample.value = "own";
  }
}

// ---------------------------------------------------------------------- controls

byID("tour").append(...links.map((link) => create("li", "", link)));
sample.append(
  ...SAMPLES.map(({ id, title }) => new Option(title, id)),
  new Option("Your own", "own"),
);

play.onclick = () => setPlaying(!isPlaying);

byID("step").onclick = async () => {
  setPlaying(false);
  const current = run;
  if (current === undefined) return;
  await current.step();
  reached = current.world.now;
  show(current);
};

speed.onchange = wantFrame;

form.onsubmit = (event) => {
  event.preventDefault();
  const on = new FormData(form).get("on") as Name;
  const text = command.value.trim();
  if (text === "") return;
  act({ do: "propose", on, command: text, session: isInSession() });
  command.select();
};

sample.onchange = () => {
  if (sample.value === "own") return code.focus();
  void go(free(sampleOf(sample.value).code));
};

code.oninput = () => {
  sample.value = sampleWith(code.value)?.id ?? "own";
};

code.onkeydown = (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) runCode();
};

byID("run").onclick = runCode;

byID("back").onclick = () => {
  code.value = before;
  sample.value = sampleWith(before)?.id ?? "own";
  code.focus();
  if (run?.setup.code === before) offerBack("", worked);
  else void go(free(before));
};

byID("again").onclick = () => {
  if (run !== undefined) void go({ ...run.setup, actions: [] });
};

byID("reseed").onclick = () => {
  if (run === undefined) return;
  const next = 1 + Math.floor(Math.random() * SEED_MAX);
  void go({ ...run.setup, seed: next, actions: [] });
};

byID("copy").onclick = async (event) => {
  if (run === undefined) return;
  const button = event.currentTarget as HTMLButtonElement;
  const url = urlOf(new URL(location.href), run.setup, run.recorded);
  remember("replaceState", url.search + url.hash);
  try {
    await navigator.clipboard.writeText(url.href);
    setText(button, "Copied");
  } catch {
    // Without permission, the link is in the address bar.
    setText(button, "In the address bar");
  }
  setTimeout(() => setText(button, "Copy link"), 2_000);
};

addEventListener("popstate", () => void open());

await open();
