//! A Weights & Biases sweep of the reference, expanded to jobs.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Kind, ModelSites, import, yaml};
use crate::ConfigError;
use crate::error::read;
use crate::sweep::{Expansion, ExpansionBuilder, check_count, run_id};

/// What of a sweep's file matters here; `metric` steers searches, of which a grid has none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sweep {
    name: Option<String>,
    #[serde(rename = "program")]
    _program: Option<String>,
    method: String,
    #[serde(rename = "metric")]
    _metric: Option<Value>,
    #[serde(rename = "description")]
    _description: Option<String>,
    #[serde(rename = "project")]
    _project: Option<String>,
    parameters: Map<String, Value>,
    command: Vec<String>,
}

/// A parameter and the values that the sweep tries for it, `None` for those that it does not vary.
type Parameter = (Vec<String>, Vec<Value>);

/// Reads a sweep's YAML and expands it over its base configuration, the last entry of `command`: a path from the working
/// directory, or the name of a file beside the sweep's; at most `most` runs. Returns the jobs and the warnings of the
/// import.
pub fn expand(
    path: &Path,
    bank_size: NonZeroUsize,
    most: usize,
    sites: &mut ModelSites<'_>,
) -> Result<(Expansion, Vec<String>), ConfigError> {
    let origin = path.display().to_string();
    let text = read(path)?;
    let value = yaml(&text, &origin)?;
    Kind::of(&value).require(Kind::Sweep, &origin)?;
    let sweep = Sweep::deserialize(value).map_err(|error| ConfigError::parse(&origin, &error))?;
    if sweep.method != "grid" {
        return Err(ConfigError::invalid(
            &origin,
            "method",
            format!("`{}`", sweep.method),
            "`grid` alone is supported: all combinations are run",
        ));
    }
    let base_path = base(path, &sweep, &origin)?;
    let base = yaml(&read(&base_path)?, &base_path.display().to_string())?;
    let mut parameters = Vec::new();
    flatten(&sweep.parameters, &mut Vec::new(), &mut parameters, &origin)?;

    let name = sweep
        .name
        .unwrap_or_else(|| path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-_+.".contains(c) { c } else { '-' })
        .skip_while(|c| *c == '.')
        .take(64)
        .collect();
    let sizes = parameters.iter().map(|(_, values)| values.len()).collect();
    check_count(&name, [sizes], most)?;
    let mut builder = ExpansionBuilder::new(&name, bank_size);
    let mut warnings: Vec<String> = Vec::new();
    for point in combinations(&parameters) {
        let mut config = base.clone();
        for (key, value) in &point {
            set(&mut config, key, value);
        }
        let run = import::import(config, &origin, sites)?;
        for warning in run.warnings {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        let values = varied(&point, &parameters);
        builder.add(run_id(&run.run.variant().to_string(), &values), values, run.run)?;
    }
    Ok((builder.finish()?, warnings))
}

fn base(path: &Path, sweep: &Sweep, origin: &str) -> Result<PathBuf, ConfigError> {
    let missing = |found: String| {
        ConfigError::invalid(
            origin,
            "command",
            found,
            "its last entry names the base configuration: a path from the working directory, or a file beside the \
             sweep's",
        )
    };
    let last = sweep.command.last().ok_or_else(|| missing("empty".to_owned()))?;
    let given = PathBuf::from(last);
    if given.is_file() {
        return Ok(given);
    }
    let beside = given.file_name().map(|name| path.with_file_name(name));
    beside
        .filter(|path| path.is_file())
        .ok_or_else(|| missing(format!("`{last}`, which is not there")))
}

/// Nested `parameters`, each with `values` or a `value`, as keys with their values in the order of the file.
fn flatten(
    parameters: &Map<String, Value>,
    above: &mut Vec<String>,
    all: &mut Vec<Parameter>,
    origin: &str,
) -> Result<(), ConfigError> {
    for (key, what) in parameters {
        above.push(key.clone());
        if let Some(inner) = what["parameters"].as_object() {
            flatten(inner, above, all, origin)?;
        } else if let Some(values) = what["values"].as_array().filter(|values| !values.is_empty()) {
            all.push((above.clone(), values.clone()));
        } else if let Some(value) = what.get("value") {
            all.push((above.clone(), vec![value.clone()]));
        } else {
            return Err(ConfigError::invalid(
                origin,
                "parameters",
                format!("`{}` without values", above.join(".")),
                "a grid has `values`, a `value`, or nested `parameters` for each",
            ));
        }
        above.pop();
    }
    Ok(())
}

/// All points, the last parameter varying fastest.
fn combinations(parameters: &[Parameter]) -> Vec<Vec<(&[String], &Value)>> {
    parameters.iter().fold(vec![Vec::new()], |points, (key, values)| {
        points
            .iter()
            .flat_map(|point: &Vec<(&[String], &Value)>| {
                values.iter().map(move |value| {
                    let mut point = point.clone();
                    point.push((key.as_slice(), value));
                    point
                })
            })
            .collect()
    })
}

/// Replaces a value, making tables on the way: a term of the loss may be null in the base.
fn set(config: &mut Value, key: &[String], value: &Value) {
    match key {
        [] => *config = value.clone(),
        [first, rest @ ..] => {
            if !config.is_object() {
                *config = Value::Object(Map::new());
            }
            set(&mut config[first.as_str()], rest, value);
        }
    }
}

/// What the sweep varies, as text.
fn varied(point: &[(&[String], &Value)], parameters: &[Parameter]) -> Vec<(String, String)> {
    point
        .iter()
        .zip(parameters)
        .filter(|(_, (_, values))| values.len() > 1)
        .map(|((key, value), _)| {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Array(list) => {
                    list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("-")
                }
                other => other.to_string(),
            };
            (key.join("."), value)
        })
        .collect()
}
