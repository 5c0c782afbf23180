//! A database that cannot be read as a whole: it is set aside, and a new one made of what can be read of it.
//!
//! Invariant: the damaged file stays, under another name; nothing is taken from it but rows whose checksums are right; of
//! every table that is not whole the new database says so, and the core rebuilds it and asks peers.
//! Spec: docs/sync.md#damage.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, params};
use weft_agent_core::damage::{Damaged, set_aside};
use weft_agent_core::store::{Read, Table, Write};

use super::sum::{self, Totals};
use super::{FILE, Store, StoreError, kept, named};

/// Rows written at once.
const BATCH: usize = 256;

/// What a repair did.
#[derive(Debug)]
pub(crate) struct Salvaged {
    /// Where the damaged database is now.
    pub(crate) kept_as: PathBuf,
    /// Rows that could be read.
    pub(crate) rows: u64,
    /// Whether it is known who belongs here and which keys there are, so that peers can be met.
    pub(crate) can_return: bool,
}

/// What there was to repair.
#[derive(Debug)]
pub(crate) enum Repaired {
    /// Nothing.
    Whole,
    /// So many values, which the next machine opened from it rebuilds.
    Values(usize),
    /// The whole database.
    Replaced(Salvaged),
}

/// Repairs the database of a replica. Nothing may have it open. `stands`: no machine can be opened from it as it is.
pub(crate) fn repair(dir: &Path, stands: bool) -> Result<Repaired, StoreError> {
    let store = match Store::open(dir) {
        Ok(store) => store,
        Err(StoreError::Damaged { .. }) => return salvage(dir, false).map(Repaired::Replaced),
        Err(error) => return Err(error),
    };
    let found = match store.verify(true) {
        Ok(found) => found,
        Err(StoreError::Damaged { .. }) => {
            drop(store);
            return salvage(dir, false).map(Repaired::Replaced);
        }
        Err(error) => return Err(error),
    };
    let healed = store.healed + found.len();
    let begun = store.reading(|store| store.has(Table::Meta, b"genesis")).unwrap_or(false);
    drop(store);
    if healed > 0 {
        drop(Store::open_after(dir, &found)?);
        return Ok(Repaired::Values(healed));
    }
    if stands || !begun {
        return salvage(dir, true).map(Repaired::Replaced);
    }
    Ok(Repaired::Whole)
}

/// Sets the database of a replica aside and makes a new one.
/// `doubted`: what is made of other rows is not believed, although its checksums are right.
fn salvage(dir: &Path, doubted: bool) -> Result<Salvaged, StoreError> {
    let path = dir.join(FILE);
    let failed = |what: std::io::Error| StoreError::Failed { path: path.clone(), what: what.to_string() };
    let kept_as = set_file_aside(dir).map_err(failed)?;
    let _absent = fs::remove_file(dir.join("open"));
    let mut store = Store::begin(dir)?;
    let mut lost = Vec::new();
    let mut rows = 0;
    let old = open_old(&kept_as);
    for table in Table::ALL {
        let whole = match &old {
            Some(old) => old.copy(table, &mut store, &mut rows)?,
            None => false,
        };
        let made = [Table::Documents, Table::Versions].contains(&table);
        if !whole || doubted && made {
            lost.push(Damaged { table, key: None });
        }
    }
    store.apply(&set_aside(&lost))?;
    let absent: Vec<Write> = kept::read(dir).into_iter().filter(|row| !store.has(row.table, &row.key)).collect();
    store.apply(&absent)?;
    let has_keys = !store.scan(Table::Epochs, &[], None, 1).is_empty();
    let can_return = store.has(Table::Meta, b"genesis") && has_keys;
    store.commit()?;
    Ok(Salvaged { kept_as, rows, can_return })
}

/// Renames the database and what belongs to it.
fn set_file_aside(dir: &Path) -> std::io::Result<PathBuf> {
    let free = |number: &u32| !dir.join(format!("replica-damaged-{number}.db")).exists();
    let number = (1..u32::MAX).find(free).unwrap_or(u32::MAX);
    let to = dir.join(format!("replica-damaged-{number}.db"));
    for end in ["", "-wal", "-shm"] {
        match fs::rename(dir.join(format!("{FILE}{end}")), dir.join(format!("replica-damaged-{number}.db{end}"))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    crate::durable::sync_dir(dir)?;
    Ok(to)
}

/// A database of which nobody knows what can be read.
struct Old {
    db: Connection,
    totals: Totals,
    has_sums: bool,
}

fn open_old(path: &Path) -> Option<Old> {
    // What is in a write-ahead log can be read only by who may write.
    let wal = PathBuf::from(format!("{}-wal", path.display()));
    let access = if wal.exists() { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
    let db = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX).ok()?;
    let layout: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).ok()?;
    let totals = Totals::read(&db).unwrap_or_default();
    Some(Old { db, totals, has_sums: layout > 1 })
}

impl Old {
    /// Copies what can be read of a table, from both ends towards what cannot. Whether that is all there was.
    fn copy(&self, table: Table, store: &mut Store, count: &mut u64) -> Result<bool, StoreError> {
        let mut last: Vec<u8> = Vec::new();
        let mut whole = true;
        let name = table.name();
        let sum = if self.has_sums { "sum" } else { "NULL" };
        let forward = format!("SELECT key, value, {sum} FROM {name} WHERE key >= ?1 ORDER BY key");
        let backward = format!("SELECT key, value, {sum} FROM {name} WHERE key > ?1 ORDER BY key DESC");
        for (number, query) in [forward, backward].iter().enumerate() {
            if number == 1 && whole {
                break;
            }
            let mut end = false;
            let read = self.db.prepare(query).and_then(|mut statement| {
                let mut rows = statement.query(params![last])?;
                let mut read = Vec::new();
                while let Ok(row) = rows.next() {
                    let Some(row) = row else {
                        end = true;
                        break;
                    };
                    let (Ok(key), Ok(value)) = (row.get::<_, Vec<u8>>(0), row.get::<_, Vec<u8>>(1)) else { continue };
                    let right = match row.get::<_, Option<i64>>(2) {
                        Ok(None) => true,
                        Ok(Some(sum)) => sum::of_row(table, &key, &value) == sum,
                        Err(_) => false,
                    };
                    if number == 0 {
                        last.clone_from(&key);
                    }
                    if right {
                        read.push((key, value));
                    }
                    if read.len() >= BATCH {
                        // Handed on in parts, so that a large database is not read into memory at once.
                        *count += store.take(table, &mut read)?;
                    }
                }
                *count += store.take(table, &mut read)?;
                Ok(())
            });
            // A failure to write is no damage.
            match read {
                Err(error) if named(&store.path, &error).is_full() => {
                    return Err(named(&store.path, &error));
                }
                read => whole &= end && read.is_ok(),
            }
        }
        Ok(whole && self.has_sums && self.totals.of(table) == store.totals.of(table))
    }
}

impl Store {
    /// Writes rows, and says how many.
    fn take(&mut self, table: Table, rows: &mut Vec<(Vec<u8>, Vec<u8>)>) -> rusqlite::Result<u64> {
        let batch: Vec<Write> =
            rows.drain(..).map(|(key, value)| Write { table, key, value: Some(Bytes::from(value)) }).collect();
        self.try_apply(&batch)?;
        Ok(batch.len() as u64)
    }
}
