//! What can go wrong when SAEs are spliced into a model.

use sae_config::message::without_frames;
use sae_model::ModelError;
use sae_nn::SaeError;
use tch::TchError;

/// A spliced model that could not be built or run.
#[derive(Debug, thiserror::Error)]
pub enum SpliceError {
    /// The language model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// An SAE.
    #[error(transparent)]
    Sae(#[from] SaeError),
    /// libtorch failed.
    #[error("libtorch failed: {}", without_frames(.0))]
    Torch(#[from] TchError),
    /// An SAE does not fit the activation at its site.
    #[error(
        "the SAE at {site} is made for activations of width {found}, the model's are {expected} wide"
    )]
    Width {
        /// The site.
        site: sae_model::Site,
        /// The SAE's width.
        found: usize,
        /// The model's.
        expected: usize,
    },
    /// A dictionary reads what the model computes after the site that it writes.
    #[error(
        "a dictionary cannot read {reads} and write {writes}, which the model computes before it"
    )]
    Order {
        /// The site that is read.
        reads: sae_model::Site,
        /// The site that is written.
        writes: sae_model::Site,
    },
    /// A dictionary that reads in one block and writes in another, with activation checkpointing.
    #[error(
        "activation checkpointing (train.recompute) computes the blocks one by one, and a dictionary reads {reads} and \
         writes {writes}: leave it out"
    )]
    AcrossBlocks {
        /// The site that is read.
        reads: sae_model::Site,
        /// The site that is written.
        writes: sae_model::Site,
    },
    /// An edit of a feature that is not there.
    #[error("there is no feature {feature} at {site}: {}", if *n_features == 0 {
        "no dictionary of the run writes there".to_owned()
    } else {
        format!("its dictionary has {n_features}, counted from 0")
    })]
    NoFeature {
        /// The site.
        site: sae_model::Site,
        /// The feature.
        feature: u32,
        /// Dictionary elements there; 0 where there is no dictionary.
        n_features: usize,
    },
    /// The downstream term has no site after an SAE that nothing else trains.
    #[error(
        "loss.downstream has no site: no hook_resid_pre lies after the SAE; name sites in loss.downstream.sites \
         (the last block's hook_resid_post, say) or leave the term out"
    )]
    NothingDownstream,
    /// All SAEs of a member are frozen.
    #[error(
        "no SAE is left to train: all are pretrained and frozen; set sae.retrain, or add a site without a pretrained one"
    )]
    NothingTrained,
    /// An activation was asked for that the clean pass did not keep.
    #[error("the clean pass did not keep the activation at {site}")]
    NotRecorded {
        /// The site.
        site: sae_model::Site,
    },
}
