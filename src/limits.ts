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

/** Records and their lengths in one block of a log that is kept in blocks, in bytes; one batch more may pass it. */
export const LOG_BLOCK_BYTES_MAX: number = 1024 * 1024;

/** Of a log that is kept in blocks, the newest records that are in memory too, in bytes; twice as many at most. */
export const LOG_TAIL_BYTES: number = 2 * 1024 * 1024;

/** Blocks of a log that a reader has at hand before it asks for them, in bytes; one block more may pass it. */
export const LOG_READ_AHEAD_BYTES_MAX: number = 1024 * 1024;

/** Epochs from before its start that a log remembers, in epochs; the last of them always. */
export const LOG_EPOCHS_MAX: number = 256;

/** Sessions of a cluster unless its first record says otherwise, in sessions. */
export const SESSIONS_DEFAULT: number = 4096;

/** The largest session limit a cluster's first record may set, in sessions. */
export const SESSIONS_MAX: number = 1024 * 1024;

/** How far a series may run ahead of what its client has acknowledged, in series. Part of the replicated rules: every replica must have the same. */
export const SESSION_WINDOW_MAX: number = 8192;

/** Result data kept for one session until acknowledged, in bytes. Part of the replicated rules: every replica must have the same. */
export const SESSION_RESULT_BYTES_MAX: number = 4 * 1024 * 1024;

/** Result data kept for all sessions of a cluster until acknowledged, in bytes. */
export const SESSIONS_RESULT_BYTES_MAX: number = 64 * 1024 * 1024;

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

/** A page of rows in a block store, in bytes; one row more may pass it. */
export const PACKED_PAGE_BYTES: number = 32 * 1024;

/** Rows of one page, in rows. */
export const PACKED_PAGE_ROWS: number = 1024;

/** Changes that a packed store writes in the background once they are so many, in bytes. */
export const PACKED_FLUSH_BYTES: number = 256 * 1024;

/** Changes that may wait for the write under way before the next update has to wait too, in bytes; one update more may pass it. */
export const PACKED_PENDING_BYTES_MAX: number = 1024 * 1024;

/** Pages that go with one write, in bytes. */
export const PACKED_WRITE_BYTES_MAX: number = 2 * 1024 * 1024;

/** Log of a packed store of up to four times as many bytes, in bytes. */
export const PACKED_LOG_BYTES: number = 8 * 1024 * 1024;

/** What a block of the log counts for beyond its content, in bytes. */
export const PACKED_LOG_BLOCK_BYTES: number = 1024;

/** Pages that are in memory unless told otherwise, in bytes. */
export const PACKED_MEMORY_BYTES: number = 64 * 1024 * 1024;

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

/** How long a database of the browser may take to open before it is asked again, and then given up, in milliseconds. */
export const STORE_OPEN_MS_MAX: number = 5_000;

/** How long an upgrade waits for a page that holds the older version open, in milliseconds. */
export const STORE_BLOCKED_MS_MAX: number = 10_000;

/** How long a page waits for the one before it to let go of a store, in milliseconds. */
export const STORE_LOCK_MS_MAX: number = 2_000;

/** How often a store that waits looks at what it waits for, in milliseconds. */
export const STORE_TICK_MS: number = 1_000;

/** Looks without a sign of life after which a connection to a database is taken for dead, in looks. */
export const STORE_TICKS_MAX: number = 30;

/** How long the user's answer to a request for persistence is waited for, in milliseconds. */
export const PERSISTENCE_MS_MAX: number = 5_000;

/** One block of a snapshot in a block store, in bytes. */
export const SNAPSHOT_CHUNK_BYTES: number = 256 * 1024;
