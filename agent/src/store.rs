//! The replica on disk: one SQLite database a workspace, one SQL table a core [`Table`].
//!
//! Invariant: a batch is applied whole, in order, and reads on this connection see it at once; [`Store::commit`] returns
//! only when everything applied survives a power cut. A read that fails never answers "absent": it unwinds out of the
//! core with [`ReadFailed`], which the host catches and names. Why: a core that takes a failing disk for an empty one
//! would re-create what is there.
//! Spec: docs/sync.md#stored-before-sent.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use weft_agent_core::store::{Read, Row, Table, Write};

use crate::durable;

/// Version of the SQL layout; `PRAGMA user_version`.
const SCHEMA_VERSION: i64 = 1;
/// Pages of 4 KiB that the cache may hold: 8 MiB a workspace.
const CACHE_KIB: i64 = 8 * 1024;
/// The write-ahead log is cut back to this after a checkpoint.
const WAL_BYTES_MAX: i64 = 16 * 1024 * 1024;

/// Why the replica cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StoreError {
    #[error(
        "the database {} is damaged ({what}). Your files are untouched. Stop the agent, move that file away and join the \
         workspace again with a link from another member; what only this device held is in the folder and is taken in anew",
        path.display()
    )]
    Damaged { path: PathBuf, what: String },
    #[error("the database {} was written by a newer weft (layout {found}); upgrade weft", path.display())]
    Newer { path: PathBuf, found: i64 },
    #[error("the disk that holds {} is full: free some space; syncing goes on by itself", path.display())]
    Full { path: PathBuf },
    #[error("the database {} is in use by another program; stop it", path.display())]
    Busy { path: PathBuf },
    #[error("the database {} cannot be used: {what}", path.display())]
    Failed { path: PathBuf, what: String },
}

/// What a failed read unwinds with.
pub(crate) struct ReadFailed(pub(crate) StoreError);

/// The database of one workspace, owned by one thread.
pub(crate) struct Store {
    db: Connection,
    path: PathBuf,
    /// There while the database is open: found at the next start, it means the last end was not clean.
    open_mark: Option<PathBuf>,
    in_transaction: bool,
}

impl Store {
    /// Opens or creates `dir/replica.db`; checks it when it was not closed cleanly; migrates after copying it.
    pub(crate) fn open(dir: &Path) -> Result<Store, StoreError> {
        let path = dir.join("replica.db");
        let io = |error: std::io::Error| StoreError::Failed { path: path.clone(), what: error.to_string() };
        durable::make_private_dir(dir).map_err(io)?;
        let open_mark = dir.join("open");
        let unclean = open_mark.exists();
        let db = Connection::open(&path).map_err(|error| named(&path, &error))?;
        let store = Store { db, path: path.clone(), open_mark: Some(open_mark.clone()), in_transaction: false };
        store.configure().map_err(|error| named(&path, &error))?;
        if unclean {
            store.check()?;
        }
        store.migrate(dir)?;
        fs::write(&open_mark, b"").map_err(io)?;
        Ok(store)
    }

    /// A second connection that only reads, and sees what was committed.
    pub(crate) fn open_reader(dir: &Path) -> Result<Store, StoreError> {
        let path = dir.join("replica.db");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&path, flags).map_err(|error| named(&path, &error))?;
        db.busy_timeout(std::time::Duration::from_secs(5)).map_err(|error| named(&path, &error))?;
        Ok(Store { db, path, open_mark: None, in_transaction: false })
    }

    /// From the next read on, everything is read as it was at one moment. For a reader.
    pub(crate) fn freeze(&self) -> Result<(), StoreError> {
        self.db.execute_batch("BEGIN").map_err(|error| named(&self.path, &error))
    }

    fn configure(&self) -> rusqlite::Result<()> {
        self.db.busy_timeout(std::time::Duration::from_secs(5))?;
        let _mode: String = self.db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        self.db.pragma_update(None, "synchronous", "FULL")?;
        self.db.pragma_update(None, "cache_size", -CACHE_KIB)?;
        self.db.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX)?;
        self.db.pragma_update(None, "trusted_schema", "OFF")?;
        self.db.set_prepared_statement_cache_capacity(128);
        Ok(())
    }

    fn check(&self) -> Result<(), StoreError> {
        let answer: rusqlite::Result<String> = self.db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
        match answer {
            Ok(answer) if answer == "ok" => Ok(()),
            Ok(what) => Err(StoreError::Damaged { path: self.path.clone(), what }),
            Err(error) => Err(named(&self.path, &error)),
        }
    }

    fn migrate(&self, dir: &Path) -> Result<(), StoreError> {
        let failed = |error: rusqlite::Error| named(&self.path, &error);
        let found: i64 = self.db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
        if found > SCHEMA_VERSION {
            return Err(StoreError::Newer { path: self.path.clone(), found });
        }
        if found == SCHEMA_VERSION {
            return Ok(());
        }
        if found > 0 {
            let copy = dir.join(format!("replica-layout-{found}.db"));
            let _absent = fs::remove_file(&copy);
            self.db.execute("VACUUM INTO ?1", params![copy.to_string_lossy()]).map_err(failed)?;
        }
        let mut steps = String::from("BEGIN IMMEDIATE;");
        for table in Table::ALL {
            // Short rows live in the index itself; long values would make its pages sparse.
            let long = [Table::Envelopes, Table::Outbox, Table::Documents, Table::Pieces].contains(&table);
            let shape = if long { "" } else { "WITHOUT ROWID" };
            steps.push_str(&format!(
                "CREATE TABLE IF NOT EXISTS {} (key BLOB PRIMARY KEY NOT NULL, value BLOB NOT NULL) {shape};",
                table.name()
            ));
        }
        steps.push_str(&format!("PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"));
        self.db.execute_batch(&steps).map_err(failed)
    }

    /// Applies a batch inside the running transaction, which it begins if there is none.
    pub(crate) fn apply(&mut self, batch: &[Write]) -> Result<(), StoreError> {
        let result = self.try_apply(batch);
        result.map_err(|error| named(&self.path, &error))
    }

    fn try_apply(&mut self, batch: &[Write]) -> rusqlite::Result<()> {
        if !self.in_transaction {
            self.db.execute_batch("BEGIN IMMEDIATE")?;
            self.in_transaction = true;
        }
        for write in batch {
            let table = write.table.name();
            match &write.value {
                Some(value) => self
                    .db
                    .prepare_cached(&format!("INSERT OR REPLACE INTO {table} (key, value) VALUES (?1, ?2)"))?
                    .execute(params![write.key, value.as_ref()])?,
                None => self
                    .db
                    .prepare_cached(&format!("DELETE FROM {table} WHERE key = ?1"))?
                    .execute(params![write.key])?,
            };
        }
        Ok(())
    }

    /// Makes everything applied so far durable.
    pub(crate) fn commit(&mut self) -> Result<(), StoreError> {
        if !self.in_transaction {
            return Ok(());
        }
        self.db.execute_batch("COMMIT").map_err(|error| named(&self.path, &error))?;
        self.in_transaction = false;
        Ok(())
    }

    fn try_get(&self, table: Table, key: &[u8]) -> rusqlite::Result<Option<Bytes>> {
        self.db
            .prepare_cached(&format!("SELECT value FROM {} WHERE key = ?1", table.name()))?
            .query_row(params![key], |row| row.get::<_, Vec<u8>>(0))
            .optional()
            .map(|value| value.map(Bytes::from))
    }

    fn try_has(&self, table: Table, key: &[u8]) -> rusqlite::Result<bool> {
        self.db.prepare_cached(&format!("SELECT 1 FROM {} WHERE key = ?1", table.name()))?.exists(params![key])
    }

    fn try_scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> rusqlite::Result<Vec<Row>> {
        let (from, strict) = match after {
            Some(after) if after >= prefix => (after, ">"),
            _ => (prefix, ">="),
        };
        let end = prefix_end(prefix);
        let bound = if end.is_some() { "AND key < ?3" } else { "AND ?3 IS NULL" };
        let mut statement = self.db.prepare_cached(&format!(
            "SELECT key, value FROM {} WHERE key {strict} ?1 {bound} ORDER BY key LIMIT ?2",
            table.name()
        ))?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![from, limit, end], |row| {
            Ok((row.get::<_, Vec<u8>>(0)?, Bytes::from(row.get::<_, Vec<u8>>(1)?)))
        })?;
        rows.collect()
    }

    /// Unwinds out of the core without the panic hook's message.
    fn unwind(&self, error: &rusqlite::Error) -> ! {
        std::panic::resume_unwind(Box::new(ReadFailed(named(&self.path, error))))
    }
}

impl Read for Store {
    fn get(&self, table: Table, key: &[u8]) -> Option<Bytes> {
        match self.try_get(table, key) {
            Ok(value) => value,
            Err(error) => self.unwind(&error),
        }
    }
    fn has(&self, table: Table, key: &[u8]) -> bool {
        match self.try_has(table, key) {
            Ok(there) => there,
            Err(error) => self.unwind(&error),
        }
    }
    fn scan(&self, table: Table, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Vec<Row> {
        match self.try_scan(table, prefix, after, limit) {
            Ok(rows) => rows,
            Err(error) => self.unwind(&error),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let Some(open_mark) = &self.open_mark else { return };
        if self.in_transaction {
            // Not a clean end: the mark stays, and the next start checks the database.
            let _rolled_back = self.db.execute_batch("ROLLBACK");
            return;
        }
        let _checkpointed = self.db.execute_batch("PRAGMA optimize; PRAGMA wal_checkpoint(TRUNCATE)");
        let _gone = fs::remove_file(open_mark);
    }
}

/// The smallest byte string greater than all that start with `prefix`; `None` if there is none.
fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end: Vec<u8> = prefix.iter().take(last + 1).copied().collect();
    if let Some(byte) = end.last_mut() {
        *byte += 1;
    }
    Some(end)
}

fn named(path: &Path, error: &rusqlite::Error) -> StoreError {
    let path = path.to_path_buf();
    let what = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged { path, what },
        Some(ErrorCode::DiskFull) => StoreError::Full { path },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy { path },
        _ => StoreError::Failed { path, what },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use weft_agent_core::store::MemoryStore;

    fn put(table: Table, key: &[u8], value: &[u8]) -> Write {
        Write { table, key: key.to_vec(), value: Some(Bytes::copy_from_slice(value)) }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Whatever is written and removed, SQLite scans exactly as the store in memory that the simulator uses.
        #[test]
        fn scans_as_the_store_in_memory(
            rows in prop::collection::vec((prop::collection::vec(prop::sample::select(vec![0u8, 1, 0x7f, 0xfe, 0xff]), 0..4), any::<bool>()), 0..24),
            prefix in prop::collection::vec(prop::sample::select(vec![0u8, 0xfe, 0xff]), 0..3),
            after in prop::option::of(prop::collection::vec(prop::sample::select(vec![0u8, 1, 0xff]), 0..4)),
            limit in 0usize..6,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut store = Store::open(dir.path()).unwrap();
            let mut memory = MemoryStore::default();
            let batch: Vec<Write> = rows.iter().enumerate()
                .map(|(n, (key, keep))| Write { table: Table::Meta, key: key.clone(), value: keep.then(|| Bytes::from(vec![n as u8])) })
                .collect();
            store.apply(&batch).unwrap();
            memory.apply(&batch);
            prop_assert_eq!(
                store.scan(Table::Meta, &prefix, after.as_deref(), limit),
                memory.scan(Table::Meta, &prefix, after.as_deref(), limit)
            );
        }
    }

    /// What was committed is there after an end that was not clean; what was not, is not.
    #[test]
    fn a_crash_keeps_commits_and_only_those() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        store.apply(&[put(Table::Ops, b"a", b"1")]).unwrap();
        store.commit().unwrap();
        store.apply(&[put(Table::Ops, b"b", b"2")]).unwrap();
        assert!(store.get(Table::Ops, b"b").is_some(), "reads see what was applied");
        drop(store);
        assert!(dir.path().join("open").exists(), "the mark of an unclean end stays");
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.get(Table::Ops, b"a").unwrap().as_ref(), b"1");
        assert_eq!(store.get(Table::Ops, b"b"), None);
        drop(store);
        assert!(!dir.path().join("open").exists());
    }

    /// A damaged database is named at the start after an unclean end, and the text says what to do.
    #[test]
    fn damage_is_found_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let rows: Vec<Write> = (0..2000u32).map(|n| put(Table::Documents, &n.to_be_bytes(), &[7; 400])).collect();
        store.apply(&rows).unwrap();
        store.commit().unwrap();
        drop(store);
        fs::write(dir.path().join("open"), b"").unwrap();
        let path = dir.path().join("replica.db");
        let mut bytes = fs::read(&path).unwrap();
        let len = bytes.len();
        bytes[len / 3..len / 2].fill(0xa5);
        fs::write(&path, bytes).unwrap();
        let error = Store::open(dir.path()).err().expect("refused");
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("join the workspace again"));
    }

    /// A database of a later layout is refused, not changed.
    #[test]
    fn a_newer_layout_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(Store::open(dir.path()).unwrap());
        Connection::open(dir.path().join("replica.db")).unwrap().pragma_update(None, "user_version", 99).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(StoreError::Newer { found: 99, .. })));
    }

    /// A read that fails unwinds with its reason instead of answering "absent".
    #[test]
    fn a_failing_read_is_never_absent() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store.db.execute_batch("DROP TABLE meta").unwrap();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| store.get(Table::Meta, b"x")));
        let payload = caught.expect_err("unwinds");
        assert!(payload.downcast_ref::<ReadFailed>().is_some());
    }
}
