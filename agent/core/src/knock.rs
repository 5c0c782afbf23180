//! x
mod admission;
pub use admission::{ADMISSION_BYTES_MAX, Admission};
