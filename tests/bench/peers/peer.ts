/**
 * One product of the comparison, as its program uses it: a table of rows and, if
 * it has one, a text, each replicated through a server.
 *
 * This module runs in Deno and in Node.
 *
 * @module
 */

/** Options of a replica. */
export interface OpenOptions {
  /** URL of the server. */
  readonly url: string;
  /** Name of the device, unique among those of one server. */
  readonly device: string;
  /** Folder for what is durable; everything is in memory if absent. */
  readonly folder?: string | undefined;
  /** True if the replica connects at once; otherwise at `connect()`. */
  readonly online: boolean;
}

/** Change of a text: position, number of deleted code points, inserted text. */
export type Patch = readonly [
  position: number,
  deleted: number,
  inserted: string,
];

/** Network of a replica. */
interface Replica {
  /** Begins to connect. */
  connect(): void | Promise<void>;
  /** Ends what is open and closes the storage. */
  close(): void | Promise<void>;
}

/** Replica of a table of rows with text values. */
export interface Rows extends Replica {
  /** Makes one edit. */
  put(row: string, value: string): unknown;
  /** Makes many edits as one import; one by one if absent. */
  putAll?(rows: readonly (readonly [string, string])[]): unknown;
  /** Value of a row in the view of the application. */
  get(row: string): string | undefined | Promise<string | undefined>;
  /** All rows in the view of the application. */
  entries():
    | Iterable<readonly [string, string]>
    | Promise<Iterable<readonly [string, string]>>;
  /** Calls `listener` with the value of a row after each change that the application is told of. */
  onRow(row: string, listener: (value: string | undefined) => void): void;
  /** Resolves once all edits are durable on the device; absent if edits stay in memory. */
  durable?(): Promise<unknown>;
}

/** Replica of a text. */
export interface Text extends Replica {
  /** Makes one edit, of one or more patches; resolves if more would be too far ahead of the server. */
  edit(patches: readonly Patch[]): void | Promise<void>;
  /** Length of the text in the view of the application. */
  length(): number | Promise<number>;
  /** The text in the view of the application. */
  text(): string | Promise<string>;
}

/** One product. */
export interface Peer {
  /** Starts a server and resolves to its URL. */
  serve(folder: string): Promise<string>;
  /** Opens a replica of the table. */
  openRows(options: OpenOptions): Rows | Promise<Rows>;
  /** Opens a replica of the text; absent if the product has no text. */
  openText?(options: OpenOptions): Text | Promise<Text>;
}
