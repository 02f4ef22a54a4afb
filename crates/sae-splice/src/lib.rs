//! Splice.
mod error;
pub use error::SpliceError;
