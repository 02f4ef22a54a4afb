//! The type of an SAE: what has a curve of its own on a frontier.

use std::fmt;
use std::str::FromStr;

use sae_config::{Architecture, RunConfig, Variant};
use serde::{Deserialize, Serialize};

/// What an SAE is trained on, and what it is: the paper's three types by their names, `topk e2e`, `transcoder local`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SaeType {
    /// The place in [`Architecture::NAMES`]; the paper's is the first.
    architecture: usize,
    /// Whether any dictionary writes another site than it reads.
    transcoder: bool,
    /// What is minimised.
    pub objective: Variant,
}

impl SaeType {
    /// The paper's `local`.
    pub const LOCAL: Self = Self::paper(Variant::Local);
    /// The paper's `e2e`.
    pub const E2E: Self = Self::paper(Variant::E2e);
    /// The paper's `e2e+ds`.
    pub const E2E_DS: Self = Self::paper(Variant::E2eDs);
    /// The paper's architecture on another mixture of terms.
    pub const OTHER: Self = Self::paper(Variant::Other);

    /// The paper's architecture on an objective.
    pub const fn paper(objective: Variant) -> Self {
        Self { architecture: 0, transcoder: false, objective }
    }

    /// A run's.
    pub fn of(config: &RunConfig) -> Self {
        let name = config.sae.architecture.name();
        let architecture = Architecture::NAMES.iter().position(|known| *known == name);
        Self {
            architecture: architecture.unwrap_or_default(),
            transcoder: config.placements().any(|(reads, writes)| reads != writes),
            objective: config.variant(),
        }
    }

    /// The place of its architecture in [`Architecture::NAMES`].
    pub(crate) fn architecture(self) -> usize {
        self.architecture
    }

    /// What it is beside its objective, as `topk transcoder`; none for the paper's SAEs.
    pub(crate) fn what(self) -> Option<String> {
        let name = (self.architecture > 0).then(|| Architecture::NAMES[self.architecture]);
        let words: Vec<&str> =
            name.into_iter().chain(self.transcoder.then_some(TRANSCODER)).collect();
        (!words.is_empty()).then(|| words.join(" "))
    }
}

const TRANSCODER: &str = "transcoder";

impl fmt::Display for SaeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what() {
            None => write!(f, "{}", self.objective),
            Some(what) => write!(f, "{what} {}", self.objective),
        }
    }
}

impl FromStr for SaeType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("expected a type of SAE, as local or topk e2e, found {text:?}");
        let mut words: Vec<&str> = text.split(' ').collect();
        let objectives = [Variant::Local, Variant::E2e, Variant::E2eDs, Variant::Other];
        let last = words.pop().unwrap_or_default();
        let objective = objectives.into_iter().find(|known| known.to_string() == last);
        let mut found = Self::paper(objective.ok_or_else(unknown)?);
        if words.last() == Some(&TRANSCODER) {
            found.transcoder = true;
            words.pop();
        }
        if let Some(name) = words.pop() {
            let place = Architecture::NAMES.iter().position(|known| *known == name);
            found.architecture = place.ok_or_else(unknown)?;
        }
        if words.is_empty() { Ok(found) } else { Err(unknown()) }
    }
}

impl TryFrom<String> for SaeType {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<SaeType> for String {
    fn from(sae_type: SaeType) -> Self {
        sae_type.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        // The paper's architecture is the one that has no name of its own here.
        assert_eq!(Architecture::NAMES[0], Architecture::default().name());
        for text in ["local", "e2e+ds", "topk e2e", "transcoder local", "batch_topk transcoder e2e"]
        {
            assert_eq!(text.parse::<SaeType>().unwrap().to_string(), text);
        }
        for text in ["", "topk", "e2e topk", "nothing local", "topk topk local"] {
            assert!(text.parse::<SaeType>().is_err(), "{text}");
        }
        assert!(SaeType::LOCAL < SaeType::E2E && SaeType::OTHER < "topk local".parse().unwrap());
    }
}
