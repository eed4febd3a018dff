import { serveMachine } from "../../src/worker/mod.ts";
import { ConcurrentNotes } from "../machines/notes.ts";

serveMachine(() => new ConcurrentNotes());
