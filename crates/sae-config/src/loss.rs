//! The loss: a list of terms, with the options of each. What they compute stands in `sae-splice::terms`, one file a term.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Coefficient, Site};

/// How far into the model a term looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// At the dictionaries alone, each on the activation that it writes.
    Dictionary,
    /// At activations after them: a spliced pass to the last of these.
    Sites,
    /// At the model's output: a spliced pass to the end.
    Output,
}

/// Makes the types of a loss and of a term: the key below `loss`, the variant with its options, the scope, and the reference's
/// key, where it has one.
macro_rules! terms {
    ($($(#[doc = $doc:literal])* $key:ident, $Variant:ident($Options:ty), $Scope:ident $(, $reference:literal)?;)*) => {
        /// The terms of the loss. A term left out is neither trained on nor tracked; a coefficient of 0 tracks it.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct LossConfig {
            /// `coeff · mean_n ‖c_n‖_p / D`.
            pub sparsity: SparsityConfig,
            $(
                $(#[doc = $doc])*
                #[serde(default, skip_serializing_if = "Option::is_none")]
                $(#[schemars(extend("x-reference" = $reference))])?
                pub $key: Option<$Options>,
            )*
        }

        /// A term of a loss, with its options.
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub enum Term<'a> {
            /// `coeff · mean_n ‖c_n‖_p / D`.
            Sparsity(&'a SparsityConfig),
            $($(#[doc = $doc])* $Variant(&'a $Options),)*
        }

        impl LossConfig {
            /// The keys of the terms that reconstruct something: all but the sparsity.
            pub const RECONSTRUCTING: &[&str] = &[$(stringify!($key)),*];

            /// The sparsity alone.
            pub fn of(sparsity: SparsityConfig) -> Self {
                Self { sparsity, $($key: None),* }
            }

            /// The terms that are there, in the order in which they are recorded.
            pub fn terms(&self) -> Vec<Term<'_>> {
                let mut terms = vec![Term::Sparsity(&self.sparsity)];
                $(terms.extend(self.$key.as_ref().map(Term::$Variant));)*
                terms
            }
        }

        impl Term<'_> {
            /// The key below `loss`, which is the term's name in records.
            pub fn name(&self) -> &'static str {
                match self {
                    Self::Sparsity(_) => "sparsity",
                    $(Self::$Variant(_) => stringify!($key),)*
                }
            }

            /// The coefficient of the term.
            pub fn coeff(&self) -> Coefficient {
                match self {
                    Self::Sparsity(options) => options.coeff,
                    $(Self::$Variant(options) => options.coeff(),)*
                }
            }

            /// How far into the model it looks.
            pub fn scope(&self) -> Scope {
                match self {
                    Self::Sparsity(_) => Scope::Dictionary,
                    $(Self::$Variant(_) => Scope::$Scope,)*
                }
            }
        }
    };
}

// One line a term.
terms! {
    /// MSE between the SAE's output and its input (the reference's `out_to_in`).
    local, Local(TermConfig), Dictionary, "loss.out_to_in";
    /// The same, divided by the variance of the activations: the fraction of variance unexplained.
    fvu, Fvu(TermConfig), Dictionary;
    /// MSE between the SAE's output and the clean activation there (the reference's `out_to_orig`).
    output, Output(TermConfig), Dictionary, "loss.out_to_orig";
    /// MSE to the clean activations at later sites (the reference's `in_to_orig`).
    downstream, Downstream(DownstreamConfig), Sites;
    /// KL divergence of the spliced model's output distribution from the original's (the reference's `logits_kl`).
    kl, Kl(TermConfig), Output, "loss.logits_kl";
}

impl Term<'_> {
    /// Whether the loss depends on the term, which is tracked only where it does not.
    pub fn is_trained_on(&self) -> bool {
        self.coeff().get() > 0.0
    }
}

/// The sparsity term.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SparsityConfig {
    /// The sparsity coefficient, λ in the paper.
    #[schemars(extend("x-reference" = "loss.sparsity.coeff"))]
    pub coeff: Coefficient,
    /// The norm's exponent; 1 in the paper. 0 stands for the number of active features, of architectures that have a
    /// gradient for it.
    #[serde(default = "p_norm")]
    #[schemars(extend("x-reference" = "loss.sparsity.p_norm"))]
    pub p: Coefficient,
}

impl SparsityConfig {
    /// The paper's: the L1 norm.
    pub fn l1(coeff: Coefficient) -> Self {
        Self { coeff, p: p_norm() }
    }
}

/// A term with a coefficient.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TermConfig {
    /// What the term is multiplied by; with 0 it is tracked, not trained on.
    pub coeff: Coefficient,
}

impl TermConfig {
    fn coeff(self) -> Coefficient {
        self.coeff
    }
}

/// The downstream term.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DownstreamConfig {
    /// What the term is multiplied by, divided evenly among the sites.
    #[schemars(extend("x-reference" = "loss.in_to_orig.total_coeff"))]
    pub total_coeff: Coefficient,
    /// The sites; empty means every `hook_resid_pre` after the first SAE that has no SAE itself.
    #[serde(default)]
    #[schemars(extend("x-reference" = "loss.in_to_orig.hook_positions"))]
    pub sites: Vec<Site>,
}

impl DownstreamConfig {
    fn coeff(&self) -> Coefficient {
        self.total_coeff
    }
}

fn p_norm() -> Coefficient {
    Coefficient::try_from(1.0).unwrap_or_else(|_| unreachable!("1 is above 0"))
}
