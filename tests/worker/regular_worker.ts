import { serveMachine } from "../../src/worker/mod.ts";
import { RegularNotes } from "../machines/notes.ts";

serveMachine(() => new RegularNotes());
