//! Groups of runs: what has a curve of its own.
//!
//! A group is what differs in the configuration and is not swept to trace a frontier: the architecture with its options,
//! the placement, and the objective. The paper's three types are groups by their names; the others are named after what
//! tells them apart from those: `topk e2e`, `transcoder local`, `e2e, kl.coeff = 2`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use sae_config::loss::{LossConfig, Term};
use sae_config::{Architecture, RunConfig, Site, Variant};
use serde::{Deserialize, Serialize};

use super::FinishedRun;
use super::facets::{Facets, describe, differing, select};

/// A group of runs. They are ordered: the paper's three first, then by architecture, placement, objective.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Group {
    /// The place in [`Architecture::NAMES`]; the paper's is the first.
    architecture: usize,
    placement: Placement,
    /// What is minimised.
    pub objective: Objective,
    /// What else tells it from other groups of the sweep, as `kl.coeff = 2`.
    detail: String,
}

/// Where dictionaries read and write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Placement {
    /// They read the site that they write.
    Sae,
    /// They write another site than they read.
    Transcoder,
    /// The same, with a linear skip connection.
    SkipTranscoder,
}

/// What is minimised beside the sparsity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Objective {
    /// The paper's `local`.
    Local,
    /// The paper's `e2e`.
    E2e,
    /// The paper's `e2e+ds`.
    E2eDs,
    /// Other terms, by their keys below `loss`, joined by `+`: `local+kl`. `other` where none is trained on.
    Terms(String),
}

const TRANSCODER: &str = "transcoder";
const SKIP: &str = "skip";
const NO_TERM: &str = "other";

impl Group {
    /// The paper's `local`.
    pub const LOCAL: Self = Self::paper(Objective::Local);
    /// The paper's `e2e`.
    pub const E2E: Self = Self::paper(Objective::E2e);
    /// The paper's `e2e+ds`.
    pub const E2E_DS: Self = Self::paper(Objective::E2eDs);

    const fn paper(objective: Objective) -> Self {
        Self { architecture: 0, placement: Placement::Sae, objective, detail: String::new() }
    }

    /// A run's, as far as it follows from the run alone.
    pub fn of(config: &RunConfig) -> Self {
        let name = config.sae.architecture.name();
        let architecture = Architecture::NAMES.iter().position(|known| *known == name);
        let placement =
            match (config.placements().any(|(reads, writes)| reads != writes), config.sae.skip) {
                (false, _) => Placement::Sae,
                (true, false) => Placement::Transcoder,
                (true, true) => Placement::SkipTranscoder,
            };
        Self {
            architecture: architecture.unwrap_or_default(),
            placement,
            objective: Objective::of(config),
            detail: String::new(),
        }
    }

    /// The place of its architecture in [`Architecture::NAMES`].
    pub(crate) fn architecture(&self) -> usize {
        self.architecture
    }

    /// In words.
    pub fn describe(&self) -> String {
        let minimises = match &self.objective {
            Objective::Local => "minimises the MSE between the SAE's input and output".to_owned(),
            Objective::E2e => "minimises the KL divergence between the original model's output and the spliced one's".to_owned(),
            Objective::E2eDs => {
                "minimises that KL divergence, and the MSE to later layers' original activations".to_owned()
            }
            Objective::Terms(terms) if terms == NO_TERM => "minimises the sparsity alone".to_owned(),
            Objective::Terms(terms) => format!("minimises the terms {}", terms.replace('+', ", ")),
        };
        let words = self.words().join(" ");
        let parts = [words, minimises, self.detail.clone()];
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join("; ")
    }

    /// What it is beside its objective, as `topk transcoder`.
    fn words(&self) -> Vec<&'static str> {
        let architecture = (self.architecture > 0).then(|| Architecture::NAMES[self.architecture]);
        let placement: &[&str] = match self.placement {
            Placement::Sae => &[],
            Placement::Transcoder => &[TRANSCODER],
            Placement::SkipTranscoder => &[TRANSCODER, SKIP],
        };
        architecture.into_iter().chain(placement.iter().copied()).collect()
    }
}

impl Objective {
    fn of(config: &RunConfig) -> Self {
        match config.variant() {
            Variant::Local => Self::Local,
            Variant::E2e => Self::E2e,
            Variant::E2eDs => Self::E2eDs,
            Variant::Other => {
                let terms = config.loss.terms().into_iter().filter(Term::is_trained_on);
                let keys: Vec<&str> =
                    terms.map(|term| term.name()).filter(|key| *key != "sparsity").collect();
                Self::Terms(if keys.is_empty() { NO_TERM.to_owned() } else { keys.join("+") })
            }
        }
    }

    fn parse(word: &str) -> Option<Self> {
        let paper = [Self::Local, Self::E2e, Self::E2eDs];
        let known = || {
            word == NO_TERM || word.split('+').all(|key| LossConfig::RECONSTRUCTING.contains(&key))
        };
        paper
            .into_iter()
            .find(|objective| objective.to_string() == word)
            .or_else(|| known().then(|| Self::Terms(word.to_owned())))
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::E2e => "e2e",
            Self::E2eDs => "e2e+ds",
            Self::Terms(terms) => terms,
        })
    }
}

/// The group of each run: of runs that agree in architecture, placement, objective and sites, those that differ in an
/// option of these are groups of their own. What sets the number of active features is no such option.
pub(super) fn groups(runs: &[FinishedRun]) -> Vec<Group> {
    let mut groups: Vec<Group> = runs.iter().map(|run| Group::of(&run.config)).collect();
    let bases = groups.clone();
    let mut keys: BTreeMap<(&Group, &[Site]), BTreeSet<String>> = BTreeMap::new();
    for (place, run) in runs.iter().enumerate() {
        let own = (&bases[place], run.config.sae.sites.as_slice());
        let keys = keys.entry(own).or_insert_with(|| {
            let alike: Vec<&Facets> = runs
                .iter()
                .zip(&bases)
                .filter(|(other, base)| (*base, other.config.sae.sites.as_slice()) == own)
                .map(|(other, _)| &other.all_facets)
                .collect();
            differing(&alike).into_iter().filter(|key| is_option(key)).collect()
        });
        let told = select(&run.all_facets, &*keys);
        let told: Facets =
            told.into_iter().map(|(key, value)| (short(&key).to_owned(), value)).collect();
        groups[place].detail = describe(&told);
    }
    groups
}

/// Whether runs that differ in this key are of different groups.
fn is_option(key: &str) -> bool {
    let of_architecture = key.strip_prefix(ARCHITECTURE).and_then(|key| key.split_once('.'));
    match of_architecture {
        Some((_, option)) => option != "k",
        None => key == "sae.reads" || (key.starts_with(LOSS) && key != "loss.sparsity.coeff"),
    }
}

/// The prefix of the keys of an architecture's options.
pub(super) const ARCHITECTURE: &str = "sae.architecture.";
const LOSS: &str = "loss.";

/// A key without what the group's name says already.
fn short(key: &str) -> &str {
    let option = key.strip_prefix(ARCHITECTURE).and_then(|key| key.split_once('.'));
    option.map_or(key.strip_prefix(LOSS).unwrap_or(key), |(_, option)| option)
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for word in self.words() {
            write!(f, "{word} ")?;
        }
        write!(f, "{}", self.objective)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ", {}", self.detail) }
    }
}

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("expected a group of runs, as local or topk e2e, found {text:?}");
        let (name, detail) = text.split_once(", ").unwrap_or((text, ""));
        let mut words: Vec<&str> = name.split(' ').collect();
        let objective = Objective::parse(words.pop().unwrap_or_default()).ok_or_else(unknown)?;
        let mut found = Self { detail: detail.to_owned(), ..Self::paper(objective) };
        if words.ends_with(&[TRANSCODER, SKIP]) {
            found.placement = Placement::SkipTranscoder;
            words.truncate(words.len() - 2);
        } else if words.ends_with(&[TRANSCODER]) {
            found.placement = Placement::Transcoder;
            words.pop();
        }
        if let Some(name) = words.pop() {
            let place = Architecture::NAMES.iter().position(|known| *known == name);
            found.architecture = place.ok_or_else(unknown)?;
        }
        if words.is_empty() { Ok(found) } else { Err(unknown()) }
    }
}

impl TryFrom<String> for Group {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Group> for String {
    fn from(group: Group) -> Self {
        group.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        // The paper's architecture is the one that has no name of its own here.
        assert_eq!(Architecture::NAMES[0], Architecture::default().name());
        let names = [
            "local",
            "e2e+ds",
            "topk e2e",
            "transcoder local",
            "batch_topk transcoder e2e",
            "topk transcoder skip local",
            "local+kl",
            "other",
            "e2e, kl.coeff = 2, sparsity.p = 1",
        ];
        for text in names {
            assert_eq!(text.parse::<Group>().unwrap().to_string(), text);
        }
        for text in
            ["", "topk", "e2e topk", "nothing local", "topk topk local", "skip local", "kl+nothing"]
        {
            assert!(text.parse::<Group>().is_err(), "{text}");
        }
        let topk: Group = "topk local".parse().unwrap();
        assert!(Group::LOCAL < Group::E2E && Group::E2E_DS < topk);
        assert!("fvu".parse::<Group>().unwrap() < topk);
    }

    #[test]
    fn options_tell_groups_apart_and_strengths_do_not() {
        for key in [
            "loss.kl.coeff",
            "loss.sparsity.p",
            "sae.architecture.matryoshka.prefixes",
            "sae.reads",
        ] {
            assert!(is_option(key), "{key}");
        }
        for key in [
            "loss.sparsity.coeff",
            "sae.architecture.topk.k",
            "sae.seed",
            "train.lr",
            "sae.expansion",
        ] {
            assert!(!is_option(key), "{key}");
        }
        assert_eq!(short("sae.architecture.jumprelu.bandwidth"), "bandwidth");
        assert_eq!((short("loss.kl.coeff"), short("sae.reads")), ("kl.coeff", "sae.reads"));
    }
}
