//! In what the runs of a sweep differ: their configurations as dotted keys and values.

use std::collections::{BTreeMap, BTreeSet};

use sae_config::RunConfig;
use serde_json::Value;

use crate::AnalysisError;

/// What stands where a run has no such key.
pub const ABSENT: &str = "–";

/// A configuration's values by dotted key, as text.
pub type Facets = BTreeMap<String, String>;

/// All values of a configuration. Lists stand whole, as JSON.
pub fn flatten(config: &RunConfig) -> Result<Facets, AnalysisError> {
    let value = serde_json::to_value(config).map_err(|error| AnalysisError::Input {
        action: "tell a run's configuration by key",
        message: error.to_string(),
    })?;
    let mut facets = Facets::new();
    collect("", &value, &mut facets);
    Ok(facets)
}

fn collect(key: &str, value: &Value, facets: &mut Facets) {
    let text = match value {
        Value::Object(table) => {
            for (name, value) in table {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                collect(&key, value, facets);
            }
            return;
        }
        Value::Null => return,
        Value::String(text) => text.clone(),
        // 16 and 16.0 are one value.
        Value::Number(number) => {
            number.as_f64().map_or_else(|| number.to_string(), |number| number.to_string())
        }
        other => other.to_string(),
    };
    facets.insert(key.to_owned(), text);
}

/// The keys whose values are not the same in all of these; a key that some have and others have not is one of them.
pub fn differing(all: &[&Facets]) -> BTreeSet<String> {
    let keys: BTreeSet<&String> = all.iter().flat_map(|facets| facets.keys()).collect();
    keys.into_iter()
        .filter(|key| all.iter().any(|facets| facets.get(*key) != all[0].get(*key)))
        .cloned()
        .collect()
}

/// The values of these keys.
pub fn select<'a>(facets: &Facets, keys: impl IntoIterator<Item = &'a String>) -> Facets {
    let value = |key: &String| facets.get(key).cloned().unwrap_or_else(|| ABSENT.to_owned());
    keys.into_iter().map(|key| (key.clone(), value(key))).collect()
}

/// `sae.expansion = 16, train.lr = 0.001`.
pub fn describe(facets: &Facets) -> String {
    let pairs: Vec<String> = facets.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    pairs.join(", ")
}

/// Orders values as a reader expects: numbers by size, everything else by the alphabet.
pub fn compare(a: &Facets, b: &Facets) -> std::cmp::Ordering {
    let number = |text: &str| text.parse::<f64>().ok();
    for ((_, a), (_, b)) in a.iter().zip(b) {
        let order = match (number(a), number(b)) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            _ => a.cmp(b),
        };
        if order.is_ne() {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

#[cfg(test)]
mod tests {
    use super::{ABSENT, Facets, compare, describe, differing, select};

    fn facets(pairs: &[(&str, &str)]) -> Facets {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn keys_that_differ_or_are_missing_are_told() {
        let a = facets(&[("sae.expansion", "8"), ("train.lr", "0.1"), ("loss.kl.coeff", "1")]);
        let b = facets(&[("sae.expansion", "16"), ("train.lr", "0.1")]);
        let keys = differing(&[&a, &b]);
        assert_eq!(keys.iter().collect::<Vec<_>>(), ["loss.kl.coeff", "sae.expansion"]);
        assert!(differing(&[]).is_empty() && differing(&[&a]).is_empty());
        let own = select(&b, &keys);
        assert_eq!(describe(&own), format!("loss.kl.coeff = {ABSENT}, sae.expansion = 16"));
        // By size, not by the alphabet.
        let of = |value| facets(&[("sae.expansion", value)]);
        assert!(compare(&of("8"), &of("16")).is_lt() && compare(&of("b"), &of("a")).is_gt());
    }
}
