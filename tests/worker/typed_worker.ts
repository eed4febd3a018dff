import { serveMachine } from "../../src/worker/mod.ts";
import { list } from "./typed_list.ts";

serveMachine(list.create);
