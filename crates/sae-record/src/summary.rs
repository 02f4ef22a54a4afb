//! What a finished run says of itself, `summary.json`: the evaluation, the features, where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use sae_config::file::{LONGEST_TEXT, read_text};
use sae_config::{Site, Variant};
use serde::de::{Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::RecordError;
use crate::error::{read_json, write_json};
use crate::metric::{Metric, Values};

/// A finished run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The run's id.
    pub id: String,
    /// The type of SAE.
    pub variant: Variant,
    /// Whether it came to its end.
    pub status: Status,
    /// Optimiser steps taken.
    pub steps: u64,
    /// Tokens trained on.
    pub training_tokens: u64,
    /// Dictionary elements, by site.
    pub n_features: BTreeMap<Site, u64>,
    /// Features active on at least one of `alive_tokens` tokens of the training data, by site.
    pub alive: BTreeMap<Site, u64>,
    /// Tokens that `alive` is told from.
    pub alive_tokens: u64,
    /// The final evaluation.
    pub evaluation: Evaluation,
    /// What its metrics are; summaries of earlier versions do not say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
    /// What it was computed from; summaries of earlier versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Inputs>,
    /// What it was made with.
    pub versions: Versions,
}

/// Fingerprints of what a run was computed from. Results of different inputs do not belong on one picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// The language model: its configuration and weights as stored.
    pub model: String,
    /// The training data: every shard's length, rows and footer; column and tokeniser.
    pub training: String,
    /// The evaluation data, likewise.
    pub evaluation: String,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All steps were taken.
    Finished,
    /// The loss became non-finite; the state before is what was evaluated and kept.
    Diverged,
}

/// What a run was made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The version of this software.
    pub sae: String,
    /// The commit that it was built from.
    pub commit: String,
    /// The version of libtorch that it was built against.
    pub libtorch: String,
    /// The device that it ran on.
    pub device: String,
}

impl Summary {
    /// Reads `summary.json`.
    pub fn load(path: &Path) -> Result<Self, RecordError> {
        let failed = |error: serde_json::Error| RecordError::format(path, error);
        let text = read_text(path, LONGEST_TEXT).map_err(RecordError::file("read", path))?;
        let mut summary: serde_json::Value = serde_json::from_str(&text).map_err(failed)?;
        // Earlier versions wrote one number for all sites.
        if let Some(count) = summary["n_features"].as_u64() {
            let sites = summary["alive"].as_object().into_iter().flat_map(|alive| alive.keys());
            let counts: serde_json::Value = sites.map(|site| (site.clone(), count)).collect();
            summary["n_features"] = counts;
        }
        serde_json::from_value(summary).map_err(failed)
    }

    /// Writes `summary.json`, whole or not at all. It is the last file of a run: with it, the run is finished.
    pub fn save(&self, path: &Path) -> Result<(), RecordError> {
        write_json(path, self)
    }
}

impl Inputs {
    /// Reads `inputs.json`.
    pub fn load(path: &Path) -> Result<Self, RecordError> {
        read_json(path, LONGEST_TEXT)
    }

    /// Writes `inputs.json`, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), RecordError> {
        write_json(path, self)
    }
}

/// What an evaluation finds of a member: its metrics, which [`Summary::metrics`] declares. The spliced pass is used
/// whatever the member was trained on.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Tokens evaluated on.
    pub tokens: u64,
    /// The metrics of the member, all its SAEs together.
    pub values: Values,
    /// Those of each SAE, by the site that it writes.
    pub sites: BTreeMap<Site, Values>,
    /// Those of every later `hook_resid_pre`, and of the last `hook_resid_post`.
    pub downstream: BTreeMap<Site, Values>,
}

/// The member's metrics stand beside `tokens`, `sites` and `downstream`.
impl Serialize for Evaluation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("tokens", &self.tokens)?;
        for (name, value) in self.values.iter() {
            map.serialize_entry(name, &value)?;
        }
        map.serialize_entry("sites", &self.sites)?;
        map.serialize_entry("downstream", &self.downstream)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Evaluation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap;

        impl<'de> Visitor<'de> for OfMap {
            type Value = Evaluation;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an evaluation")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Evaluation, A::Error> {
                let (mut tokens, mut sites, mut downstream) = (None, None, None);
                let mut values = Values::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "tokens" => tokens = Some(map.next_value()?),
                        "sites" => sites = Some(map.next_value()?),
                        "downstream" => downstream = Some(map.next_value()?),
                        name => {
                            let value: Option<f64> = map.next_value()?;
                            values.set(name, value.unwrap_or(f64::NAN));
                        }
                    }
                }
                Ok(Evaluation {
                    tokens: tokens.ok_or_else(|| A::Error::missing_field("tokens"))?,
                    values,
                    sites: sites.ok_or_else(|| A::Error::missing_field("sites"))?,
                    downstream: downstream.ok_or_else(|| A::Error::missing_field("downstream"))?,
                })
            }
        }

        deserializer.deserialize_map(OfMap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evaluation_is_one_table() {
        let site = Site::resid_pre(1);
        let evaluation = Evaluation {
            tokens: 8,
            values: Values::from([("kl", 0.5), ("l0", 3.0)]),
            sites: BTreeMap::from([(site, Values::from([("mse", 0.25)]))]),
            downstream: BTreeMap::new(),
        };
        let json = serde_json::to_string(&evaluation).unwrap();
        let expected = r#"{"tokens":8,"kl":0.5,"l0":3.0,"sites":{"blocks.1.hook_resid_pre":{"mse":0.25}},"downstream":{}}"#;
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<Evaluation>(&json).unwrap(), evaluation);
        let error = serde_json::from_str::<Evaluation>(r#"{"tokens": 8, "kl": 1.0}"#).unwrap_err();
        assert!(error.to_string().contains("`sites`"), "{error}");
    }
}
