/**
 * Every bound of the system, in one place, each with its unit last in its name.
 *
 * This module is browser compatible.
 *
 * @module
 */

/** The largest command a proposal may carry, in bytes. */
export const COMMAND_BYTES_MAX: number = 1024 * 1024;

/** The records one batch of the log may hold, in bytes. A record of the largest command always fits. */
export const BATCH_BYTES_MAX: number = COMMAND_BYTES_MAX + 64 * 1024;

/** The most records one batch of the log may hold, in records. */
export const BATCH_RECORDS_MAX: number = 1024;

/** The most entries given to one `update()` of a machine, in entries. */
export const UPDATE_ENTRIES_MAX: number = 1024;

/** Commands given to one `update()` of a machine, in bytes; one command more may pass it. */
export const UPDATE_BYTES_MAX: number = 4 * 1024 * 1024;

/** Buffer from which the records of small proposals are cut, in bytes. */
export const SLAB_BYTES: number = 64 * 1024;

/** Proposals of one replica that may wait for an answer, in proposals. */
export const PENDING_PROPOSALS_MAX: number = 65_536;

/** Commands of one replica that may wait for an answer, in bytes. */
export const PENDING_BYTES_MAX: number = 64 * 1024 * 1024;

/** Reads of one replica that may wait for a read index or for the state to reach it, in reads. */
export const PENDING_READS_MAX: number = 65_536;

/** Appends of one replica that may be under way at once, in appends. */
export const APPENDS_IN_FLIGHT_MAX: number = 16;

/** Sessions of a cluster unless its first record says otherwise, in sessions. */
export const SESSIONS_DEFAULT: number = 4096;

/** The largest session limit a cluster's first record may set, in sessions. */
export const SESSIONS_MAX: number = 1024 * 1024;

/** How far a series may run ahead of what its client has acknowledged, in series. Part of the replicated rules: every replica must have the same. */
export const SESSION_WINDOW_MAX: number = 8192;

/** Result data kept for one session until acknowledged, in bytes. Part of the replicated rules: every replica must have the same. */
export const SESSION_RESULT_BYTES_MAX: number = 4 * 1024 * 1024;

/** The owner a register record may name, in bytes. */
export const SESSION_OWNER_BYTES_MAX: number = 256;

/** The payload of one block of a snapshot container, in bytes. */
export const SNAPSHOT_BLOCK_BYTES_MAX: number = 64 * 1024;

/** Compressed bytes of a snapshot that are inflated in one step, to about a thousand times as many at most, in bytes. */
export const SNAPSHOT_INFLATE_BYTES_MAX: number = 4 * 1024;

/** The header of a snapshot container, in bytes. */
export const SNAPSHOT_HEADER_BYTES_MAX: number = 4096;

/** The session section of a snapshot container, in bytes. */
export const SNAPSHOT_SESSIONS_BYTES_MAX: number = 1024 * 1024 * 1024;

/** External files in one snapshot, in files. */
export const SNAPSHOT_FILES_MAX: number = 65_536;

/** Metadata of one external file, in bytes. With the file's id it fits in one block. */
export const SNAPSHOT_FILE_METADATA_BYTES_MAX: number =
  SNAPSHOT_BLOCK_BYTES_MAX - 8;

/** Full snapshots kept, in snapshots. */
export const SNAPSHOTS_KEPT: number = 2;

/** Hash checkpoints kept for comparison, in checkpoints. */
export const CHECKPOINTS_KEPT: number = 64;

/** Key of the key-value machines, in bytes. */
export const KV_KEY_BYTES_MAX: number = 64 * 1024;

/** Value of the key-value machines, in bytes. */
export const KV_VALUE_BYTES_MAX: number = COMMAND_BYTES_MAX;

/** Parts of one atomic batch of the key-value machines, in parts. */
export const KV_BATCH_PARTS_MAX: number = 65_536;

/** How long a stop waits for a machine that does not settle, in milliseconds. */
export const STOP_TIMEOUT_MS: number = 5_000;

/** The longest run of applying without giving the event loop a turn, in milliseconds. */
export const APPLY_SLICE_MS: number = 8;

/** First wait before an append or a read of the log that failed is tried again, in milliseconds. */
export const RETRY_FIRST_MS: number = 20;

/** Longest wait before an append or a read of the log that failed is tried again, in milliseconds. */
export const RETRY_LAST_MS: number = 5_000;

/** Time after which an on-disk machine with updates in core is synced, in milliseconds. */
export const SYNC_INTERVAL_MS: number = 1_000;

/** Applied entries after which an on-disk machine with updates in core is synced, in entries. */
export const SYNC_ENTRIES_MAX: number = 16_384;
