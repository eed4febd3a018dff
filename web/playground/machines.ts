/**
 * Machines that the page offers, as their source text.
 *
 * @module
 */

/** Machine that the page offers. */
export interface Sample {
  /** Name in URLs. */
  readonly id: string;
  /** Name on the page. */
  readonly title: string;
  /** Source text. */
  readonly code: string;
}

const COUNTER = `// Every replica runs a copy of this machine. It gets the same
// commands in the same order: they are its only input.
const initial = { count: 0 };
const commands = ["add 1", "add 5", "double"];

function update(state, command) {
  const [verb, number] = command.split(" ");
  if (verb === "add") state.count += Number(number);
  else if (verb === "double") state.count *= 2;
  else return "unknown command";
  return state.count; // the answer to the proposer
}
`;

const KEY_VALUE = `// Keys and values, with a compare-and-swap: of two replicas
// that swap at the same time, the first one in the log wins.
const initial = { color: "red" };
const commands = ["set boat sampan", "swap color red blue", "remove boat"];

function update(state, command) {
  const [verb, key, value, next] = command.split(" ");
  if (verb === "set") state[key] = value;
  else if (verb === "remove") delete state[key];
  else if (verb === "swap") {
    if (state[key] !== value) return "refused: it is " + state[key];
    state[key] = next;
  } else return "unknown command";
  return "done";
}
`;

const CLOCK = `// "stamp" reads the clock of the replica: state and command
// are no longer the only inputs, so the replicas diverge.
const initial = { count: 0, seen: null };
const commands = ["add 1", "stamp"];

function update(state, command) {
  if (command === "stamp") state.seen = Date.now() % 100000;
  else state.count += Number(command.split(" ")[1]);
  return state.count;
}
`;

const FORGETFUL =
  `// "total" is outside of the state: a snapshot does not have it.
// Take a snapshot, crash a replica, restart it, and add 1.
const initial = { shown: 0 };
const commands = ["add 1", "add 5"];
let total = 0;

function update(state, command) {
  total += Number(command.split(" ")[1]);
  state.shown = total;
  return total;
}
`;

/** Machines that the page offers; the first one is shown first. */
export const SAMPLES: readonly Sample[] = [
  { id: "counter", title: "Counter", code: COUNTER },
  { id: "keys", title: "Keys and values", code: KEY_VALUE },
  { id: "clock", title: "Reads the clock", code: CLOCK },
  { id: "forgetful", title: "Forgets in its snapshot", code: FORGETFUL },
];

/** Returns the machine with an id; the first one for an id that does not exist. */
export function sampleOf(id: string | null): Sample {
  return SAMPLES.find((sample) => sample.id === id) ?? SAMPLES[0]!;
}
