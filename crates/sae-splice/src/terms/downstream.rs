//! MSE between the spliced and the original model's activations at later sites, the mean over these (the reference's
//! `in_to_orig`, of the paper's `e2e+ds`).

use sae_config::loss::DownstreamConfig;
use sae_config::{Site, SiteKind};
use sae_model::ModelConfig;
use sae_nn::loss;
use tch::Tensor;

use super::Term;
use crate::SpliceError;

#[derive(Debug)]
pub(super) struct Downstream {
    sites: Vec<Site>,
}

impl Downstream {
    pub(super) fn of(options: &DownstreamConfig) -> Self {
        Self { sites: options.sites.clone() }
    }
}

impl Term for Downstream {
    fn sites(&self) -> &[Site] {
        &self.sites
    }

    fn at_site(&self, spliced: &Tensor, clean: &Tensor) -> Result<Option<Tensor>, SpliceError> {
        Ok(Some(loss::mse(spliced, clean)?))
    }
}

/// Names the sites where the configuration leaves them out: every `hook_resid_pre` after the first dictionary where none
/// writes.
pub(super) fn resolve(
    options: &mut DownstreamConfig,
    model: &ModelConfig,
    written: &[Site],
) -> Result<(), SpliceError> {
    if options.sites.is_empty() {
        options.sites = model
            .sites()
            .filter(|site| site.kind == SiteKind::ResidPre)
            .filter(|site| Some(site) > written.first() && !written.contains(site))
            .collect();
    }
    for site in &options.sites {
        model.check_site(*site)?;
    }
    if options.sites.is_empty() {
        return Err(SpliceError::NothingDownstream);
    }
    Ok(())
}
