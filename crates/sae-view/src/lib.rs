//! `sae view`: a server on loopback that shows finished runs: the report, every feature of every run, and a prompt to try.
//!
//! Dashboards are read where they lie, a feature at a time, so that large dictionaries open at once ([`Library`]). The model runs in
//! a thread of its own ([`PromptThread`]), loaded when the first prompt is tried. The server answers those alone who know the address
//! that it prints, on this machine, and writes nothing ([`serve`]). This crate leaves the making of dashboards and the
//! work of the model to `sae-train`, and the page's browser of features to `sae-analysis`.
//!
//! ```
//! use std::path::Path;
//!
//! use sae_view::{Library, serve};
//!
//! // Finished runs (`sae_train::RunSpec`) that `sae features` has looked at, each with the name of its group.
//! let runs = Vec::new();
//! match Library::open(Path::new("runs/mine"), runs) {
//!     Ok(library) => {
//!         let server = serve(library, None, 0)?; // without prompts, on a free port
//!         println!("{}", server.address);
//!         server.join()?;
//!     }
//!     Err(error) => assert!(error.to_string().contains("`sae features runs/mine` makes them")),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod library;
mod page;
mod prompt;
mod server;

pub use error::ViewError;
pub use library::{Found, Library, Shelf};
pub use prompt::PromptThread;
pub use server::{Server, serve};
