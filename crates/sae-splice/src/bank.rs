//! The members of a bank: SAEs at sites of one model, and what each is trained on.

use std::collections::BTreeMap;

use sae_config::run::LossConfig;
use sae_config::{Site, SiteKind};
use sae_model::ModelConfig;
use sae_nn::Sae;
use tch::Tensor;

use crate::{SpliceError, SplicedModel};

/// A run's SAEs, one a site, and its loss with every site resolved.
#[derive(Debug)]
pub struct Member {
    saes: Vec<(Site, Sae)>,
    loss: LossConfig,
    downstream: Option<DownstreamTerm>,
}

/// The downstream term, resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct DownstreamTerm {
    /// Divided evenly among the sites.
    pub total_coeff: f64,
    /// The sites, in the order of computation.
    pub sites: Vec<Site>,
}

impl Member {
    /// A member with these SAEs, in the order of computation.
    pub fn new(
        model: &SplicedModel,
        saes: Vec<(Site, Sae)>,
        loss: &LossConfig,
    ) -> Result<Self, SpliceError> {
        let config = model.model().config();
        for (site, sae) in &saes {
            config.check_site(*site)?;
            if sae.d_model() != config.d_model {
                return Err(SpliceError::Width {
                    site: *site,
                    found: sae.d_model(),
                    expected: config.d_model,
                });
            }
        }
        let sites: Vec<Site> = saes.iter().map(|(site, _)| *site).collect();
        let downstream = resolve_downstream(config, &sites, loss)?;
        let on =
            |term: Option<sae_config::run::TermConfig>| term.is_some_and(|t| t.coeff.get() > 0.0);
        let own_term = on(loss.local) || on(loss.output) || on(loss.kl);
        let reached = downstream.as_ref().and_then(|term| term.sites.last());
        // A site is read before its SAE replaces it: only a later one sees what the SAE made.
        let last_trained =
            saes.iter().rev().find(|(_, sae)| sae.is_trained()).map(|(site, _)| site);
        if !own_term && reached <= last_trained {
            return Err(SpliceError::NothingDownstream);
        }
        if saes.iter().all(|(_, sae)| !sae.is_trained()) {
            return Err(SpliceError::NothingTrained);
        }
        Ok(Self { saes, loss: loss.clone(), downstream })
    }

    /// A member with initialised SAEs; the SAE at the i-th site draws from the i-th stream of `seed`.
    pub fn random(
        model: &SplicedModel,
        sites: &[Site],
        features: usize,
        loss: &LossConfig,
        seed: u64,
    ) -> Result<Self, SpliceError> {
        Self::with_pretrained(model, sites, features, loss, seed, Vec::new())
    }

    /// The same, with SAEs that are there already at some of the sites; a frozen one ([`Sae::freeze`]) stays as it is, and
    /// of several at one site the last is taken. At the other sites initialisation is the same as without them.
    pub fn with_pretrained(
        model: &SplicedModel,
        sites: &[Site],
        features: usize,
        loss: &LossConfig,
        seed: u64,
        pretrained: Vec<(Site, Sae)>,
    ) -> Result<Self, SpliceError> {
        let lm = model.model();
        let mut pretrained: BTreeMap<Site, Sae> = pretrained.into_iter().collect();
        let mut saes = Vec::with_capacity(sites.len());
        for (stream, site) in sites.iter().enumerate() {
            let sae = if let Some(found) = pretrained.remove(site) {
                found
            } else {
                let (d, kind) = (lm.config().d_model, lm.full_kind());
                Sae::random(d, features, seed, stream as u64, lm.device(), kind)?
            };
            saes.push((*site, sae));
        }
        Self::new(model, saes, loss)
    }

    /// The SAEs with their sites, in the order of computation.
    pub fn saes(&self) -> &[(Site, Sae)] {
        &self.saes
    }

    /// The SAE at a site.
    pub fn sae(&self, site: Site) -> Option<&Sae> {
        self.saes.iter().find(|(at, _)| *at == site).map(|(_, sae)| sae)
    }

    /// The loss as configured.
    pub fn loss(&self) -> &LossConfig {
        &self.loss
    }

    /// The downstream term with its sites.
    pub fn downstream(&self) -> Option<&DownstreamTerm> {
        self.downstream.as_ref()
    }

    /// The SAEs that are trained; the others are frozen and stand beside them.
    pub fn trained(&self) -> impl Iterator<Item = &(Site, Sae)> {
        self.saes.iter().filter(|(_, sae)| sae.is_trained())
    }

    /// The parameters that are trained: those of the first trained SAE, of the second, and so on.
    pub fn parameters(&self) -> Vec<&Tensor> {
        self.trained().flat_map(|(_, sae)| sae.parameters()).collect()
    }

    /// The block that the spliced pass starts from: the first SAE's.
    pub(crate) fn start(&self) -> usize {
        self.saes.first().map_or(0, |(site, _)| site.block)
    }

    /// The last site that the loss looks at, where it does not need the model's output.
    pub(crate) fn until(&self) -> Option<Site> {
        if self.loss.kl.is_some() {
            return None;
        }
        let downstream = self.downstream.iter().flat_map(|term| &term.sites).copied();
        self.saes.iter().map(|(site, _)| *site).chain(downstream).max()
    }

    /// Whether the loss looks at anything after the SAEs; if not, every SAE sees the clean activation.
    pub(crate) fn is_spliced(&self) -> bool {
        self.loss.kl.is_some() || self.downstream.is_some()
    }
}

fn resolve_downstream(
    config: &ModelConfig,
    sae_sites: &[Site],
    loss: &LossConfig,
) -> Result<Option<DownstreamTerm>, SpliceError> {
    let Some(term) = &loss.downstream else { return Ok(None) };
    let sites: Vec<Site> = if term.sites.is_empty() {
        config
            .sites()
            .filter(|site| site.kind == SiteKind::ResidPre)
            .filter(|site| Some(site) > sae_sites.first() && !sae_sites.contains(site))
            .collect()
    } else {
        term.sites.clone()
    };
    for site in &sites {
        config.check_site(*site)?;
    }
    if sites.is_empty() {
        return Err(SpliceError::NothingDownstream);
    }
    Ok(Some(DownstreamTerm { total_coeff: term.total_coeff.get(), sites }))
}
