//! The replica on disk: one SQLite database a workspace, one SQL table a core [`Table`].
//!
//! Invariant: a batch is applied whole, in order, and reads on this connection see it at once; [`Store::commit`] returns
//! only when everything applied survives a power cut. A read that fails never answers "absent": it unwinds out of the
//! core with [`ReadFailed`], which the host catches and names; so does a value that is not the one that was written. Why:
//! a core that takes a failing disk for an empty one would re-create what is there, or remove it.
//! `sum` has the checksums, `kept` the copy of the keys beside the database, `salvage` what is made of one that cannot be
//! read, `scrub` the reading of what nobody reads.
//! Spec: docs/sync.md#stored-before-sent, docs/sync.md#damage.

mod kept;
mod migrate;
pub(crate) mod salvage;
pub(crate) mod scrub;
mod sum;

use std::any::Any;
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use weft_agent_core::damage::{Damaged, is_kept_beside, set_aside};
use weft_agent_core::store::{Read, Row, Table, Write};

use crate::durable;
use kept::Kept;
use sum::Totals;

/// The database in a replica's folder.
pub(crate) const FILE: &str = "replica.db";
/// Pages of 4 KiB that the cache may hold: 8 MiB a workspace.
const CACHE_KIB: i64 = 8 * 1024;
/// The write-ahead log is cut back to this after a checkpoint.
const WAL_BYTES_MAX: i64 = 16 * 1024 * 1024;

/// Why the replica cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StoreError {
    #[error(
        "the database {} is damaged ({what}). Your files are untouched. Run `weft repair` in this folder: it keeps the \
         damaged database under another name, keeps what is in the folder, and brings the rest from the other devices",
        path.display()
    )]
    Damaged { path: PathBuf, what: String },
    #[error(
        "a stored value is damaged (in {}, of the database {}). Weft rebuilds it from what is here and what the other devices \
         hold; your files are untouched",
        damaged.table.name(), path.display()
    )]
    Value { path: PathBuf, damaged: Damaged },
    #[error("the database {} was changed by another program; it is looked at again", path.display())]
    Foreign { path: PathBuf },
    #[error("the database {} was written by a newer weft (layout {found}); upgrade weft", path.display())]
    Newer { path: PathBuf, found: i64 },
    #[error("the disk that holds {} is full: free some space; syncing goes on by itself", path.display())]
    Full { path: PathBuf },
    #[error("the database {} is in use by another program; stop it", path.display())]
    Busy { path: PathBuf },
    #[error("the database {} cannot be used: {what}", path.display())]
    Failed { path: PathBuf, what: String },
}

impl StoreError {
    fn is_full(&self) -> bool {
        matches!(self, StoreError::Full { .. })
    }
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
    totals: Totals,
    kept: Kept,
    /// Changes when another connection commits.
    data_version: Cell<i64>,
    /// How many values were found damaged, and taken away, when it was opened.
    pub(crate) healed: usize,
}

impl Store {
    /// Opens or creates `dir/replica.db`; checks it; migrates after copying it. Damaged values are taken away, so that what
    /// depends on them is rebuilt by whoever opens a machine from it.
    pub(crate) fn open(dir: &Path) -> Result<Store, StoreError> {
        Self::open_after(dir, &[])
    }

    /// As [`Store::open`], when these values are known to be damaged.
    pub(crate) fn open_after(dir: &Path, known: &[Damaged]) -> Result<Store, StoreError> {
        let path = dir.join(FILE);
        let is_empty = fs::metadata(&path).is_ok_and(|meta| meta.len() == 0);
        // The copy of the keys says that there was a database.
        if (is_empty || !path.exists()) && kept::file(dir).exists() {
            let what = if is_empty { "it is empty" } else { "it is gone" };
            return Err(StoreError::Damaged { path, what: what.to_owned() });
        }
        let unclean = dir.join("open").exists();
        let mut store = Self::connect(dir)?;
        if unclean {
            store.check()?;
        }
        store.migrate(dir)?;
        store.totals = Totals::read(&store.db).map_err(|error| named(&path, &error))?;
        let mut found = store.verify(false)?;
        found.extend(known.iter().filter(|known| !found.contains(known)).cloned().collect::<Vec<_>>());
        store.heal(dir, &found)?;
        store.ready(dir)
    }

    /// A new database.
    pub(crate) fn begin(dir: &Path) -> Result<Store, StoreError> {
        let store = Self::connect(dir)?;
        store.migrate(dir)?;
        store.ready(dir)
    }

    fn connect(dir: &Path) -> Result<Store, StoreError> {
        let path = dir.join(FILE);
        let io = |error: std::io::Error| failed(&path, &error);
        durable::make_private_dir(dir).map_err(io)?;
        let db = Connection::open(&path).map_err(|error| named(&path, &error))?;
        let store = Self::of(db, path, Some(dir.join("open")));
        store.configure().map_err(|error| named(&store.path, &error))?;
        Ok(store)
    }

    fn of(db: Connection, path: PathBuf, open_mark: Option<PathBuf>) -> Store {
        let (totals, kept, data_version) = (Totals::default(), Kept::default(), Cell::new(0));
        Store { db, path, open_mark, in_transaction: false, totals, kept, data_version, healed: 0 }
    }

    /// From here on it is in use.
    fn ready(mut self, dir: &Path) -> Result<Store, StoreError> {
        let path = self.path.clone();
        let io = |error: std::io::Error| failed(&path, &error);
        self.totals = Totals::read(&self.db).map_err(|error| named(&path, &error))?;
        kept::write(dir, &self).map_err(io)?;
        fs::write(dir.join("open"), b"").map_err(io)?;
        self.changed_outside()?;
        Ok(self)
    }

    /// A second connection that only reads, and sees what was committed.
    pub(crate) fn open_reader(dir: &Path) -> Result<Store, StoreError> {
        let path = dir.join(FILE);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&path, flags).map_err(|error| named(&path, &error))?;
        db.busy_timeout(std::time::Duration::from_secs(5)).map_err(|error| named(&path, &error))?;
        Ok(Self::of(db, path, None))
    }

    /// The replica's folder.
    pub(crate) fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
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

    /// What is damaged, or gone. `deep`: reads the sealed bytes of all envelopes and pieces as well.
    pub(crate) fn verify(&self, deep: bool) -> Result<Vec<Damaged>, StoreError> {
        sum::verify(&self.db, &self.totals, deep).map_err(|error| named(&self.path, &error))
    }

    /// Takes damaged values away, keeping their bytes aside, and puts back what is kept beside the database.
    fn heal(&mut self, dir: &Path, found: &[Damaged]) -> Result<(), StoreError> {
        if found.is_empty() {
            return Ok(());
        }
        self.healed = found.len();
        for damaged in found {
            let key = damaged.key.as_deref().map(hex);
            tracing::error!(
                table = damaged.table.name(),
                key,
                "a stored value is damaged; what depends on it is rebuilt"
            );
        }
        self.try_heal(dir, found).map_err(|error| named(&self.path, &error))
    }

    fn try_heal(&mut self, dir: &Path, found: &[Damaged]) -> rusqlite::Result<()> {
        self.db.execute_batch(
            "CREATE TABLE IF NOT EXISTS damaged (name TEXT NOT NULL, key BLOB NOT NULL, value, seconds INTEGER NOT NULL)",
        )?;
        self.begin_transaction()?;
        for Damaged { table, key } in found {
            let Some(key) = key else { continue };
            let aside = format!(
                "INSERT INTO damaged (name, key, value, seconds) SELECT ?1, key, value, unixepoch() FROM {} WHERE key = ?2",
                table.name()
            );
            // Bytes that cannot be read at all are not worth more than going on.
            let _unreadable = self.db.execute(&aside, params![table.name(), key]);
        }
        self.try_apply(&set_aside(found))?;
        let lost =
            |row: &Write| is_kept_beside(row.table, &row.key) && found.iter().any(|damaged| damaged.table == row.table);
        for row in kept::read(dir).into_iter().filter(lost) {
            if !self.try_has(row.table, &row.key)? {
                self.try_apply(&[row])?;
            }
        }
        let concerned = found.iter().map(|damaged| damaged.table).chain([Table::Meta]);
        for table in concerned {
            let total = sum::look(&self.db, table, false)?.total;
            self.totals.set(table, total);
        }
        self.try_commit()
    }

    /// Whether another program wrote into the database since this was asked last.
    pub(crate) fn changed_outside(&self) -> Result<bool, StoreError> {
        let version: rusqlite::Result<i64> =
            self.db.prepare_cached("PRAGMA data_version").and_then(|mut one| one.query_row([], |row| row.get(0)));
        let version = version.map_err(|error| named(&self.path, &error))?;
        let before = self.data_version.replace(version);
        Ok(before != 0 && before != version)
    }

    /// The error that says so.
    pub(crate) fn foreign(&self) -> StoreError {
        StoreError::Foreign { path: self.path.clone() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Does what reads; an error if a read failed.
    pub(crate) fn reading<T>(&self, what: impl FnOnce(&Store) -> T) -> Result<T, StoreError> {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| what(self))) {
            Ok(done) => Ok(done),
            Err(payload) => {
                Err(failure(&self.path, payload).unwrap_or_else(|payload| std::panic::resume_unwind(payload)))
            }
        }
    }

    fn begin_transaction(&mut self) -> rusqlite::Result<()> {
        if !self.in_transaction {
            self.db.execute_batch("BEGIN IMMEDIATE")?;
            self.in_transaction = true;
        }
        Ok(())
    }

    /// Applies a batch inside the running transaction, which it begins if there is none.
    pub(crate) fn apply(&mut self, batch: &[Write]) -> Result<(), StoreError> {
        let result = self.try_apply(batch);
        result.map_err(|error| named(&self.path, &error))
    }

    fn try_apply(&mut self, batch: &[Write]) -> rusqlite::Result<()> {
        self.begin_transaction()?;
        for write in batch {
            let table = write.table.name();
            let old: Option<i64> = self
                .db
                .prepare_cached(&format!("SELECT sum FROM {table} WHERE key = ?1"))?
                .query_row(params![write.key], |row| row.get(0))
                .optional()?;
            let new = write.value.as_ref().map(|value| sum::of_row(write.table, &write.key, value));
            match (&write.value, new) {
                (Some(value), Some(sum)) => self
                    .db
                    .prepare_cached(&format!("INSERT OR REPLACE INTO {table} (key, sum, value) VALUES (?1, ?2, ?3)"))?
                    .execute(params![write.key, sum, value.as_ref()])?,
                _ => self
                    .db
                    .prepare_cached(&format!("DELETE FROM {table} WHERE key = ?1"))?
                    .execute(params![write.key])?,
            };
            self.totals.replace(write.table, old, new);
            self.kept.note(write.table, &write.key);
        }
        Ok(())
    }

    /// Makes everything applied so far durable.
    pub(crate) fn commit(&mut self) -> Result<(), StoreError> {
        self.try_commit().map_err(|error| named(&self.path, &error))?;
        if self.kept.is_due() {
            self.keep();
        }
        Ok(())
    }

    fn try_commit(&mut self) -> rusqlite::Result<()> {
        if self.in_transaction {
            self.totals.write(&self.db)?;
            self.db.execute_batch("COMMIT")?;
            self.in_transaction = false;
        }
        Ok(())
    }

    /// Writes the copy of the keys. Going on without a new one is better than not going on: the next commit tries again.
    fn keep(&mut self) {
        let written = self.path.parent().map(|dir| kept::write(dir, self));
        match written {
            Some(Err(error)) => tracing::warn!(%error, "the copy of the keys cannot be written"),
            Some(Ok(())) | None => self.kept.written(),
        }
    }

    fn try_get(&self, table: Table, key: &[u8]) -> rusqlite::Result<Option<Bytes>> {
        self.db
            .prepare_cached(&format!("SELECT sum, value FROM {} WHERE key = ?1", table.name()))?
            .query_row(params![key], |row| Ok(checked(table, key, row.get_ref(0)?, row.get_ref(1)?)))
            .optional()
            .map(|value| value.map(|value| value.unwrap_or_else(|| self.unwind_damaged(table, key))))
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
            "SELECT key, sum, value FROM {} WHERE key {strict} ?1 {bound} ORDER BY key LIMIT ?2",
            table.name()
        ))?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map(params![from, limit, end], |row| {
            let key = row.get::<_, Vec<u8>>(0)?;
            let value = checked(table, &key, row.get_ref(1)?, row.get_ref(2)?);
            Ok((key, value))
        })?;
        let whole = |row: rusqlite::Result<(Vec<u8>, Option<Bytes>)>| {
            let (key, value) = row?;
            let value = value.unwrap_or_else(|| self.unwind_damaged(table, &key));
            Ok((key, value))
        };
        rows.map(whole).collect()
    }

    fn unwind_damaged(&self, table: Table, key: &[u8]) -> ! {
        Damaged { table, key: Some(key.to_vec()) }.unwind()
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
        let open_mark = open_mark.clone();
        if self.kept.is_stale() {
            self.keep();
        }
        let _checkpointed = self.db.execute_batch("PRAGMA optimize; PRAGMA wal_checkpoint(TRUNCATE)");
        let _gone = fs::remove_file(open_mark);
    }
}

/// The error in what a read of this database unwound with; anything else is given back.
pub(crate) fn failure(path: &Path, payload: Box<dyn Any + Send>) -> Result<StoreError, Box<dyn Any + Send>> {
    let payload = match payload.downcast::<Damaged>() {
        Ok(damaged) => return Ok(StoreError::Value { path: path.to_path_buf(), damaged: *damaged }),
        Err(payload) => payload,
    };
    payload.downcast::<ReadFailed>().map(|failed| failed.0)
}

/// A value, if it is the one that was written under this key.
fn checked(
    table: Table,
    key: &[u8],
    sum: rusqlite::types::ValueRef<'_>,
    value: rusqlite::types::ValueRef<'_>,
) -> Option<Bytes> {
    let (sum, value) = (sum.as_i64().ok()?, value.as_blob().ok()?);
    (sum::of_row(table, key, value) == sum).then(|| Bytes::copy_from_slice(value))
}

fn hex(key: &[u8]) -> String {
    key.iter().take(64).map(|byte| format!("{byte:02x}")).collect()
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
        // What SQLite keeps beside the database needs room as well, and its want has no name of its own.
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) if durable::is_without_room(&path) => {
            StoreError::Full { path }
        }
        _ => StoreError::Failed { path, what },
    }
}

fn failed(path: &Path, error: &std::io::Error) -> StoreError {
    let path = path.to_path_buf();
    if durable::is_full(error) {
        StoreError::Full { path }
    } else {
        StoreError::Failed { path, what: error.to_string() }
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
        assert!(error.to_string().contains("`weft repair`"));
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

    /// A database that has no room says so by name, keeps what was committed, and takes more once there is room.
    #[test]
    fn a_full_disk_is_named_and_over_when_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        store.apply(&[put(Table::Ops, b"a", b"1")]).unwrap();
        store.commit().unwrap();
        let pages: i64 = store.db.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        store.db.query_row("PRAGMA max_page_count = 1", [], |row| row.get::<_, i64>(0)).unwrap();
        let full = store.apply(&[put(Table::Documents, b"large", &vec![7; 64 * 4096])]).unwrap_err();
        assert!(matches!(full, StoreError::Full { .. }), "{full}");
        drop(store);
        let mut store = Store::open(dir.path()).unwrap();
        assert!(store.get(Table::Ops, b"a").is_some() && store.get(Table::Documents, b"large").is_none());
        store.apply(&[put(Table::Documents, b"large", &vec![7; 64 * 4096])]).unwrap();
        store.commit().unwrap();
        assert!(store.db.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).unwrap() > pages);
    }
}
