//! Metrics: what each is called and means, and values by name.
//!
//! A probe declares its metrics; the declarations stand in `summary.json` beside the values, and whoever shows a value reads
//! there what it is.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The names of the metrics that figures of their own are made of.
pub mod name {
    /// Active features per token.
    pub const L0: &str = "l0";
    /// Next-token cross-entropy of the original model, nats.
    pub const CE_ORIGINAL: &str = "ce_original";
    /// The same with the SAEs spliced in.
    pub const CE_SPLICED: &str = "ce_spliced";
    /// The second less the first.
    pub const CE_INCREASE: &str = "ce_increase";
    /// Share of the cross-entropy lost to zero ablation that is recovered.
    pub const CE_RECOVERED_ZERO: &str = "ce_recovered_zero";
    /// KL divergence of the spliced model's output from the original's, nats.
    pub const KL: &str = "kl";
    /// Share of tokens at which both models rank the same token first.
    pub const TOP1_AGREEMENT: &str = "top1_agreement";
    /// Mean squared error.
    pub const MSE: &str = "mse";
    /// Explained variance.
    pub const EXPLAINED_VARIANCE: &str = "explained_variance";
}

/// What a metric is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// Its key among the values.
    pub name: Cow<'static, str>,
    /// What it is told of.
    pub scope: Scope,
    /// The unit; empty for numbers without one.
    pub unit: Cow<'static, str>,
    /// Which values are better.
    pub better: Better,
    /// How the values of tokens become one: the formula, in words.
    pub reduction: Cow<'static, str>,
}

/// What a metric is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// A run, all its SAEs together.
    Run,
    /// A site that an SAE writes.
    Site,
    /// A site after the SAEs.
    Downstream,
}

/// Which values of a metric are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Small ones.
    Less,
    /// Large ones.
    More,
    /// It describes; neither is.
    Neither,
}

impl Metric {
    /// A declaration.
    pub const fn new(
        name: &'static str,
        scope: Scope,
        unit: &'static str,
        better: Better,
        reduction: &'static str,
    ) -> Self {
        Self {
            name: Cow::Borrowed(name),
            scope,
            unit: Cow::Borrowed(unit),
            better,
            reduction: Cow::Borrowed(reduction),
        }
    }
}

/// Values of metrics by name, in the order in which they were measured. JSON has no NaN: what is not finite is written as
/// null, and read back as NaN.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Values(Vec<(String, f64)>);

impl Values {
    /// A metric's value; NaN where it was not measured.
    pub fn get(&self, name: &str) -> f64 {
        self.iter().find(|(own, _)| *own == name).map_or(f64::NAN, |(_, value)| value)
    }

    /// Adds a value, in place of one of the same name.
    pub fn set(&mut self, name: &str, value: f64) {
        match self.0.iter_mut().find(|(own, _)| own == name) {
            Some((_, own)) => *own = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// All values with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

impl<const N: usize> From<[(&str, f64); N]> for Values {
    fn from(values: [(&str, f64); N]) -> Self {
        Self(values.map(|(name, value)| (name.to_owned(), value)).into())
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, &value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap;

        impl<'de> Visitor<'de> for OfMap {
            type Value = Values;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("metrics by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Values, A::Error> {
                let mut values = Values::default();
                while let Some((name, value)) = map.next_entry::<String, Option<f64>>()? {
                    values.set(&name, value.unwrap_or(f64::NAN));
                }
                Ok(values)
            }
        }

        deserializer.deserialize_map(OfMap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_survives_json() {
        let values = Values::from([("mse", f64::INFINITY), ("explained_variance", 0.5)]);
        let json = serde_json::to_string(&values).unwrap();
        assert_eq!(json, r#"{"mse":null,"explained_variance":0.5}"#);
        let again: Values = serde_json::from_str(&json).unwrap();
        assert!(again.get("mse").is_nan() && again.get("cosine").is_nan());
        assert!((again.get("explained_variance") - 0.5).abs() < 1e-12);
    }

    #[test]
    fn declarations_survive_json() {
        let metric = Metric::new(name::KL, Scope::Run, "nats", Better::Less, "mean over tokens");
        let json = serde_json::to_string(&metric).unwrap();
        assert_eq!(serde_json::from_str::<Metric>(&json).unwrap(), metric);
    }
}
