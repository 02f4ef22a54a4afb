//! The members of a bank: dictionaries at sites of one model, and what each is trained on.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sae_config::architecture::SplicedPrefixes;
use sae_config::loss::{LossConfig, Scope, Term};
use sae_config::{Architecture, Site};
use sae_nn::{Dictionary, Sizes};
use tch::Tensor;

use crate::segment::Prefix;
use crate::terms::{self, MemberTerm};
use crate::{SpliceError, SplicedModel};

/// A run's dictionaries, and its loss with every site resolved.
#[derive(Debug)]
pub struct Member {
    dictionaries: Vec<PlacedDictionary>,
    loss: LossConfig,
    terms: Vec<MemberTerm>,
    /// Of initialisation, and of what is drawn in training.
    seed: u64,
}

/// A dictionary in a model. An SAE reads and writes one site; a transcoder reads what goes into a part of the model, and
/// writes what comes out of it.
#[derive(Debug)]
pub struct PlacedDictionary {
    /// The site whose activation the dictionary reads.
    pub reads: Site,
    /// The site whose activation its reconstruction replaces; its name.
    pub writes: Site,
    /// The dictionary.
    pub dictionary: Dictionary,
}

impl PlacedDictionary {
    /// An SAE at a site.
    pub fn sae(site: Site, dictionary: Dictionary) -> Self {
        Self { reads: site, writes: site, dictionary }
    }
}

/// What a dictionary of a member is, where it is initialised.
#[derive(Debug, Clone, PartialEq)]
pub struct DictionaryPlan {
    /// The site that is read.
    pub reads: Site,
    /// The site that is written.
    pub writes: Site,
    /// The architecture.
    pub architecture: Architecture,
    /// Dictionary elements, F.
    pub n_features: usize,
    /// Whether there is a linear skip connection.
    pub skip: bool,
}

impl DictionaryPlan {
    /// The paper's autoencoder at a site.
    pub fn sae(site: Site, n_features: usize) -> Self {
        let architecture = Architecture::default();
        Self { reads: site, writes: site, architecture, n_features, skip: false }
    }
}

impl Member {
    /// A member with these dictionaries, in the order in which the model computes the sites that they write.
    pub fn new(
        model: &SplicedModel,
        dictionaries: Vec<PlacedDictionary>,
        loss: &LossConfig,
    ) -> Result<Self, SpliceError> {
        let config = model.model().config();
        for PlacedDictionary { reads, writes, dictionary } in &dictionaries {
            let sizes = dictionary.sizes();
            for (site, found) in [(*reads, sizes.input), (*writes, sizes.output)] {
                config.check_site(site)?;
                let expected = config.width(site.kind);
                if found != expected {
                    return Err(SpliceError::Width { site, found, expected });
                }
            }
            if reads > writes {
                return Err(SpliceError::Order { reads: *reads, writes: *writes });
            }
        }
        let sites: Vec<Site> = dictionaries.iter().map(|placed| placed.writes).collect();
        let loss = terms::resolved(loss, config, &sites)?;
        let terms = terms::of(&loss);
        let on = |scope: Scope| {
            let own = loss.terms().into_iter().filter(move |term| term.scope() == scope);
            own.filter(|term| !matches!(term, Term::Sparsity(_))).any(|term| term.is_trained_on())
        };
        let own_term = on(Scope::Dictionary) || on(Scope::Output);
        let reached = terms.iter().flat_map(|own| own.term.sites()).max();
        // A site is read before its dictionary replaces it: only a later one sees the reconstruction.
        let trained = |placed: &&PlacedDictionary| placed.dictionary.is_trained();
        let last_trained = dictionaries.iter().rev().find(trained).map(|placed| &placed.writes);
        if !own_term && reached <= last_trained {
            return Err(SpliceError::NothingDownstream);
        }
        if last_trained.is_none() {
            return Err(SpliceError::NothingTrained);
        }
        Ok(Self { dictionaries, loss, terms, seed: 0 })
    }

    /// A member with initialised autoencoders of the paper's kind; see [`Member::initialised`].
    pub fn random(
        model: &SplicedModel,
        sites: &[Site],
        n_features: usize,
        loss: &LossConfig,
        seed: u64,
    ) -> Result<Self, SpliceError> {
        let plans: Vec<DictionaryPlan> =
            sites.iter().map(|site| DictionaryPlan::sae(*site, n_features)).collect();
        Self::initialised(model, &plans, loss, seed, Vec::new())
    }

    /// A member with initialised dictionaries, of which the i-th draws from the i-th stream of `seed`, and with those that
    /// are there already, in place of the ones that write their sites; a frozen one ([`Dictionary::freeze`]) stays as it is,
    /// and of several that write one site the last is taken. The others are initialised as without them.
    pub fn initialised(
        model: &SplicedModel,
        plans: &[DictionaryPlan],
        loss: &LossConfig,
        seed: u64,
        pretrained: Vec<PlacedDictionary>,
    ) -> Result<Self, SpliceError> {
        let lm = model.model();
        let mut pretrained: BTreeMap<Site, PlacedDictionary> =
            pretrained.into_iter().map(|placed| (placed.writes, placed)).collect();
        let mut dictionaries = Vec::with_capacity(plans.len());
        for (stream, plan) in plans.iter().enumerate() {
            if let Some(found) = pretrained.remove(&plan.writes) {
                dictionaries.push(found);
                continue;
            }
            let DictionaryPlan { reads, writes, n_features, skip, .. } = *plan;
            let width = |site: Site| lm.config().width(site.kind);
            let sizes =
                Sizes { input: width(reads), output: width(writes), features: n_features, skip };
            let (device, kind) = (lm.device(), lm.full_kind());
            let options = &plan.architecture;
            let dictionary = Dictionary::random(options, sizes, seed, stream as u64, device, kind)?;
            dictionaries.push(PlacedDictionary { reads, writes, dictionary });
        }
        Ok(Self { seed, ..Self::new(model, dictionaries, loss)? })
    }

    /// The dictionaries, in the order in which the model computes the sites that they write.
    pub fn dictionaries(&self) -> &[PlacedDictionary] {
        &self.dictionaries
    }

    /// The dictionary that writes a site.
    pub fn dictionary(&self, site: Site) -> Option<&Dictionary> {
        let found = self.dictionaries.iter().find(|placed| placed.writes == site);
        found.map(|placed| &placed.dictionary)
    }

    /// The sites that its dictionaries read and write.
    pub fn sites(&self) -> impl Iterator<Item = Site> {
        self.dictionaries.iter().flat_map(|placed| [placed.reads, placed.writes])
    }

    /// Takes in what the dictionaries are to observe of a batch ([`crate::Outcome::observed`]); frozen ones do not.
    pub fn observe(&self, observed: &[(usize, Vec<Tensor>)]) -> Result<(), SpliceError> {
        for (index, observed) in observed {
            let dictionary = &self.dictionaries[*index].dictionary;
            if dictionary.is_trained() {
                dictionary.observe(observed)?;
            }
        }
        Ok(())
    }

    /// Which prefixes of its dictionaries a member's passes on a batch splice in, one a pass.
    pub(crate) fn spliced_prefixes(&self, micro_batch: u64) -> Vec<Prefix> {
        let nested = self.trained().filter_map(|dictionary| {
            let options = dictionary.options();
            let count = options.prefixes(dictionary.n_features()).len();
            (count > 1).then(|| (options.spliced(), count))
        });
        // A dictionary with fewer prefixes is whole at the others.
        let nested = nested.max_by_key(|(_, count)| *count);
        match nested {
            Some((spliced, count)) if self.is_spliced() => match spliced {
                SplicedPrefixes::All => (0..count).map(Some).collect(),
                SplicedPrefixes::Drawn => {
                    let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
                    rng.set_stream(micro_batch);
                    vec![Some(rng.random_range(0..count))]
                }
            },
            _ => vec![None],
        }
    }

    /// The loss, with every site that the configuration leaves to the model.
    pub fn loss(&self) -> &LossConfig {
        &self.loss
    }

    /// The terms of the loss.
    pub(crate) fn terms(&self) -> &[MemberTerm] {
        &self.terms
    }

    pub(crate) fn has_term(&self, name: &str) -> bool {
        self.terms.iter().any(|own| own.name == name)
    }

    /// The sites after the dictionaries that a term looks at.
    pub(crate) fn compared_sites(&self) -> impl Iterator<Item = Site> {
        self.terms.iter().flat_map(|own| own.term.sites()).copied()
    }

    /// The dictionaries that are trained; the others are frozen and stand beside them.
    pub fn trained(&self) -> impl Iterator<Item = &Dictionary> {
        let dictionaries = self.dictionaries.iter().map(|placed| &placed.dictionary);
        dictionaries.filter(|dictionary| dictionary.is_trained())
    }

    /// The names of the tensors that `select` takes of the trained dictionaries, `<site>.<name>`, with the tensors.
    fn named<'a, I: Iterator<Item = (&'static str, &'a Tensor)>>(
        &'a self,
        select: impl Fn(&'a Dictionary) -> I,
    ) -> Vec<(String, &'a Tensor)> {
        let mut all = Vec::new();
        for placed in self.dictionaries.iter().filter(|placed| placed.dictionary.is_trained()) {
            for (name, tensor) in select(&placed.dictionary) {
                all.push((format!("{}.{name}", placed.writes), tensor));
            }
        }
        all
    }

    /// The parameters that are trained, with names: those of the first trained dictionary, of the second, and so on.
    pub fn named_parameters(&self) -> Vec<(String, &Tensor)> {
        self.named(Dictionary::parameters)
    }

    /// The buffers of the trained dictionaries, likewise.
    pub fn named_buffers(&self) -> Vec<(String, &Tensor)> {
        self.named(Dictionary::buffers)
    }

    /// The parameters that are trained, in the order of [`Member::named_parameters`].
    pub fn parameters(&self) -> Vec<&Tensor> {
        self.named_parameters().into_iter().map(|(_, tensor)| tensor).collect()
    }

    /// Refuses dictionaries that read in one block and write in another: activation checkpointing computes the blocks one by
    /// one.
    pub(crate) fn check_within_blocks(&self) -> Result<(), SpliceError> {
        let across = self.dictionaries.iter().find(|own| own.reads.block != own.writes.block);
        match across {
            None => Ok(()),
            Some(own) => Err(SpliceError::AcrossBlocks { reads: own.reads, writes: own.writes }),
        }
    }

    /// The block that the spliced pass starts from: the first dictionary's.
    pub fn start(&self) -> usize {
        self.dictionaries.iter().map(|placed| placed.reads.block).min().unwrap_or(0)
    }

    /// The last site that the loss looks at, where it does not need the model's output.
    pub(crate) fn until(&self) -> Option<Site> {
        if self.scope() == Scope::Output {
            return None;
        }
        self.sites().chain(self.compared_sites()).max()
    }

    /// Whether the loss looks at anything after the dictionaries; if not, every one sees the clean activation.
    pub fn is_spliced(&self) -> bool {
        self.scope() > Scope::Dictionary
    }

    fn scope(&self) -> Scope {
        self.terms.iter().map(|own| own.scope).max().unwrap_or(Scope::Dictionary)
    }
}
