//! Architectures of dictionaries: the options of each, one file an architecture. What they compute stands in
//! `sae-nn::architecture`, likewise.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Makes the enum of all architectures: its variant, its name in configurations, its file.
macro_rules! architectures {
    ($($(#[doc = $doc:literal])* $variant:ident, $name:literal, $file:ident;)*) => {
        $(mod $file;)*
        $(pub use $file::$variant;)*

        /// How a dictionary makes a code of an activation, with the options of the architecture:
        /// `architecture = { topk = { k = 32 } }`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum Architecture {
            $($(#[doc = $doc])* #[serde(rename = $name)] $variant($variant),)*
        }

        impl Architecture {
            /// The names of all architectures.
            pub const NAMES: &[&str] = &[$($name),*];

            /// The architecture's name.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }

            /// What no option shows by itself; `Err` has the key below the architecture's, what was found, and what was
            /// expected. `n_features` is F, where the width of the activations is known.
            pub fn check(&self, n_features: Option<usize>) -> Result<(), OptionError> {
                match self {
                    $(Self::$variant(options) => options.check(n_features),)*
                }
            }

            /// Whether weights of the other's options compute the same with these: what differs matters in training alone.
            pub fn computes_as(&self, other: &Self) -> bool {
                match (self, other) {
                    $((Self::$variant(own), Self::$variant(other)) => own.computes_as(other),)*
                    _ => false,
                }
            }

            /// Tensors `[N, F]` that a training pass keeps for its backward pass.
            pub(crate) fn kept_tensors(&self) -> f64 {
                match self {
                    $(Self::$variant(_) => $variant::KEPT_TENSORS,)*
                }
            }

            /// Where each prefix of a dictionary of `n_features` elements ends that has a reconstruction of its own, rising; the
            /// last is the whole.
            pub fn prefixes(&self, n_features: usize) -> Vec<usize> {
                match self {
                    $(Self::$variant(options) => options.prefixes(n_features),)*
                }
            }

            /// Which of the prefixes a training step splices into the model.
            pub fn spliced(&self) -> SplicedPrefixes {
                match self {
                    $(Self::$variant(options) => options.spliced(),)*
                }
            }

            /// The names of the architectures that are made sparse like this.
            pub fn made_sparse_by(sparsity: Sparsity) -> Vec<&'static str> {
                let all = [$(($name, $variant::SPARSITY)),*];
                all.into_iter().filter(|(_, own)| *own == sparsity).map(|(name, _)| name).collect()
            }

            /// What keeps the number of active features small.
            pub fn sparsity(&self) -> Sparsity {
                match self {
                    $(Self::$variant(_) => $variant::SPARSITY,)*
                }
            }
        }
    };
}

// One line an architecture.
architectures! {
    /// The paper's.
    Relu, "relu", relu;
    /// A fixed number of features a token.
    TopK, "topk", topk;
    /// A fixed number of features a token on average over a batch.
    BatchTopK, "batch_topk", batch_topk;
    /// Nested dictionaries, each a prefix of the next.
    Matryoshka, "matryoshka", matryoshka;
    /// A threshold a feature, trained.
    JumpRelu, "jumprelu", jumprelu;
}

pub use matryoshka::SplicedPrefixes;

/// What every architecture's options have.
trait Options: PartialEq + Sized {
    const SPARSITY: Sparsity;
    /// See [`Architecture::kept_tensors`]; the code alone, where gradients are written out.
    const KEPT_TENSORS: f64 = 1.0;

    /// See [`Architecture::check`].
    fn check(&self, _n_features: Option<usize>) -> Result<(), OptionError> {
        Ok(())
    }

    /// See [`Architecture::computes_as`].
    fn computes_as(&self, other: &Self) -> bool {
        self == other
    }

    /// See [`Architecture::prefixes`].
    fn prefixes(&self, n_features: usize) -> Vec<usize> {
        vec![n_features]
    }

    /// See [`Architecture::spliced`].
    fn spliced(&self) -> SplicedPrefixes {
        SplicedPrefixes::Drawn
    }
}

impl Architecture {
    /// Spliced passes that a training step makes of a dictionary of `n_features` elements.
    pub(crate) fn spliced_passes(&self, n_features: usize) -> usize {
        match self.spliced() {
            SplicedPrefixes::Drawn => 1,
            SplicedPrefixes::All => self.prefixes(n_features).len(),
        }
    }
}

/// What keeps the number of active features small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sparsity {
    /// The loss's sparsity term, a norm with p above 0.
    Norm,
    /// The loss's sparsity term: a norm, or, with p = 0, the number of active features, for which there is a gradient.
    NormOrNumber,
    /// The architecture, which keeps a number of its own; a sparsity term comes on top.
    Kept,
}

/// An option that does not go with the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionError {
    /// The key, below the architecture's.
    pub key: &'static str,
    /// What was found.
    pub found: String,
    /// What was expected, and what to do.
    pub expected: String,
}

impl Default for Architecture {
    fn default() -> Self {
        Self::Relu(Relu {})
    }
}

/// Refuses more active features than there are.
fn check_k(k: usize, n_features: Option<usize>) -> Result<(), OptionError> {
    match n_features {
        Some(n_features) if k > n_features => Err(OptionError {
            key: "k",
            found: k.to_string(),
            expected: format!(
                "a dictionary of {n_features} elements has no more than these to keep"
            ),
        }),
        _ => Ok(()),
    }
}
