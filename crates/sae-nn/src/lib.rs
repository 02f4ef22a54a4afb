//! SAEs.
mod error;
pub use error::SaeError;
