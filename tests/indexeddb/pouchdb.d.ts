// Types for what the measurements use of PouchDB.
export default class PouchDB {
  constructor(name: string, options?: { auto_compaction?: boolean });
  bulkDocs(
    docs: readonly object[],
  ): Promise<readonly ({ id: string; rev: string } | { error: unknown })[]>;
  get(id: string): Promise<object>;
  destroy(): Promise<void>;
}
