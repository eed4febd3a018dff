import { serveMachine } from "../../src/worker/mod.ts";
import {
  type DiskHandle,
  type Image,
  linesOf,
  type MemoryDisk,
  notesOf,
  OnDiskNotes,
} from "../machines/notes.ts";

/** File of the disk: the name of the worker. */
const path = (globalThis as unknown as { readonly name: string }).name;

/** Disk that is a file, which loses nothing. */
const disk = {
  open(): DiskHandle {
    const read = (): Image => {
      try {
        const [index, ...lines] = Deno.readTextFileSync(path).split("\n");
        return { index: Number(index), notes: notesOf(lines) };
      } catch (error) {
        if (!(error instanceof Deno.errors.NotFound)) throw error;
        return { index: 0, notes: new Map() };
      }
    };
    const commit = ({ index, notes }: Image): Promise<void> =>
      Deno.writeTextFile(path, `${index}\n${linesOf(notes).join("")}`);
    return { read, commit, sync: () => Promise.resolve() };
  },
};

serveMachine(() => new OnDiskNotes(disk as unknown as MemoryDisk));
