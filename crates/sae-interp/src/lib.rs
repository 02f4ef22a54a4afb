//! What features mean: which concepts the tokens of a text have, as a parser says it; what features are, as a language model says it.
//!
//! A [`Labeller`] reads whole documents, so that what a window shows a part of is told by all of it, and says of every token which
//! concepts it has. How well features tell these concepts is counted by `sae_eval::concepts`.
//!
//! [`explain`] makes of a feature's dashboard a question for a language model, and reads its answer; [`score`] asks one whether
//! explanations tell excerpts of other documents apart; [`endpoint`] asks. This crate knows no model whose features they are, and writes
//! nothing but the answers that it keeps.
//!
//! ```
//! use sae_interp::{Labeller, Language};
//!
//! let mut labeller = Labeller::new(Language::Rust)?;
//! let has = |set: u128, name: &str| {
//!     let place = Language::Rust.concepts().iter().position(|concept| concept.name == name);
//!     place.is_some_and(|place| set >> place & 1 == 1)
//! };
//! // A document, and the bytes of its tokens `fn`, ` name` and `()`.
//! let found = labeller.label("fn name() {}", &[[0, 2], [2, 7], [7, 9]])?;
//! assert!(has(found[0], "fn") && has(found[1], "name of a function"));
//! assert!(has(found[2], "(") && has(found[2], ")") && !has(found[2], "fn"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod endpoint;
pub mod explain;
pub mod http;
mod labeller;
pub mod publish;
mod rust;
pub mod score;

pub use labeller::{Concept, LabelError, Labeller, Language};
