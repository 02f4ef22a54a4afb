//! Hook sites: the places in a transformer where activations are read or replaced, named as TransformerLens names them.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which activation of a block. The order is the order of computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SiteKind {
    /// The residual stream before the block.
    ResidPre,
    /// What the heads of attention have mixed, side by side: `n_heads · d_head` wide.
    AttnZ,
    /// What attention adds to the residual stream.
    AttnOut,
    /// The residual stream between attention and MLP.
    ResidMid,
    /// The normalised input of the MLP, before the norm's weight and bias.
    MlpNormalized,
    /// The input of the MLP, after the norm's weight and bias. (The same as the one before where these are folded into the
    /// MLP, as TransformerLens does by default.)
    MlpIn,
    /// The hidden layer of the MLP after its activation function (and gate): `d_mlp` wide.
    MlpPost,
    /// What the MLP adds to the residual stream.
    MlpOut,
    /// The residual stream after the block.
    ResidPost,
}

impl SiteKind {
    /// All kinds, in the order of computation.
    pub const ALL: [Self; 9] = [
        Self::ResidPre,
        Self::AttnZ,
        Self::AttnOut,
        Self::ResidMid,
        Self::MlpNormalized,
        Self::MlpIn,
        Self::MlpPost,
        Self::MlpOut,
        Self::ResidPost,
    ];

    /// The hook's name, without its block.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ResidPre => "hook_resid_pre",
            Self::AttnZ => "attn.hook_z",
            Self::AttnOut => "hook_attn_out",
            Self::ResidMid => "hook_resid_mid",
            Self::MlpNormalized => "ln2.hook_normalized",
            Self::MlpIn => "mlp.hook_in",
            Self::MlpPost => "mlp.hook_post",
            Self::MlpOut => "hook_mlp_out",
            Self::ResidPost => "hook_resid_post",
        }
    }
}

/// A site: a block and one of its activations. Ordered as the model computes them.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, JsonSchema, Serialize, Deserialize,
)]
#[schemars(with = "String", extend("x-kind" = "site", "pattern" = pattern()))]
#[serde(try_from = "String", into = "String")]
pub struct Site {
    /// The block, counted from 0.
    pub block: usize,
    /// The activation.
    pub kind: SiteKind,
}

impl Site {
    /// `blocks.{block}.hook_resid_pre`.
    pub const fn resid_pre(block: usize) -> Self {
        Self { block, kind: SiteKind::ResidPre }
    }

    /// The residual stream after the block: `blocks.{block}.hook_resid_post`.
    pub const fn resid_post(block: usize) -> Self {
        Self { block, kind: SiteKind::ResidPost }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blocks.{}.{}", self.block, self.kind.name())
    }
}

/// What the names of sites match.
fn pattern() -> String {
    let names = SiteKind::ALL.map(|kind| kind.name().replace('.', "\\."));
    format!("^blocks\\.[0-9]+\\.({})$", names.join("|"))
}

/// A name that is not a site's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a site; sites are written `blocks.<block>.<hook>`, as in `blocks.6.hook_resid_pre`, the hook being \
     one of hook_resid_pre, attn.hook_z, hook_attn_out, hook_resid_mid, ln2.hook_normalized, mlp.hook_in, mlp.hook_post, \
     hook_mlp_out, hook_resid_post"
)]
pub struct ParseSiteError(String);

impl FromStr for Site {
    type Err = ParseSiteError;

    fn from_str(text: &str) -> Result<Self, ParseSiteError> {
        let parse = || {
            let (block, hook) = text.strip_prefix("blocks.")?.split_once('.')?;
            let kind = SiteKind::ALL.into_iter().find(|kind| kind.name() == hook)?;
            Some(Self { block: block.parse().ok()?, kind })
        };
        parse().ok_or_else(|| ParseSiteError(text.to_owned()))
    }
}

impl TryFrom<String> for Site {
    type Error = ParseSiteError;

    fn try_from(text: String) -> Result<Self, ParseSiteError> {
        text.parse()
    }
}

impl From<Site> for String {
    fn from(site: Site) -> Self {
        site.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::Site;

    #[test]
    fn names_round_trip_and_order_follows_computation() {
        for name in ["blocks.0.hook_resid_pre", "blocks.11.hook_mlp_out", "blocks.3.mlp.hook_in"] {
            assert_eq!(name.parse::<Site>().map(|site| site.to_string()).as_deref(), Ok(name));
        }
        assert!(Site::resid_post(1) < Site::resid_pre(2));
        for bad in ["blocks.x.hook_resid_pre", "blocks.1.hook_q", "6", "blocks.1"] {
            assert!(bad.parse::<Site>().is_err(), "{bad}");
        }
    }
}
