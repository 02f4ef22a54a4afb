//! `--set KEY=VALUE`: other values of some keys of a configuration.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ConfigError;
use crate::error::from_table;
use crate::keys::FileKind;

/// The configuration with these values, not yet checked for what no single value shows, and its name in errors. Values are
/// written as in TOML, quotes left out where a text is expected; relative paths are seen from the working directory.
pub(crate) fn with<T: Serialize + DeserializeOwned>(
    config: &T,
    settings: &[String],
) -> Result<(T, String), ConfigError> {
    let mut table = toml::Table::try_from(config)
        .map_err(|error| ConfigError::parse("the configuration", &error))?;
    for setting in settings {
        table = with_setting::<T>(&table, setting).map_err(|error| elsewhere(setting, error))?;
    }
    let origin = format!("with --set {}", settings.join(" --set "));
    Ok((from_table(table, &origin)?, origin))
}

/// Where a key is unknown in its section, the keys of the same name in others are nearer than any of its own section.
fn elsewhere(setting: &str, error: ConfigError) -> ConfigError {
    let ConfigError::Parse { origin, message } = error else { return error };
    let key = setting.split('=').next().unwrap_or_default().trim();
    let name = format!(".{}", key.rsplit('.').next().unwrap_or_default());
    let keys =
        FileKind::ALL.into_iter().flat_map(FileKind::sections).flat_map(|section| section.keys);
    let mut named: Vec<String> =
        keys.map(|key| key.path).filter(|path| path.ends_with(&name) && path != key).collect();
    named.sort_unstable();
    named.dedup();
    if !message.contains("unknown field") || named.is_empty() {
        return ConfigError::Parse { origin, message };
    }
    let message = message.lines().filter(|line| !line.starts_with("did you mean"));
    let message = message.collect::<Vec<_>>().join("\n");
    let message = format!("{message}\ndid you mean `{}`?", named.join("` or `"));
    ConfigError::Parse { origin, message }
}

/// Where a word stands for a table of options, as `topk`, names those that must be given.
fn with_options(key: &str, word: &str, error: ConfigError) -> ConfigError {
    let path = format!("{key}.{word}");
    let mut sections = FileKind::ALL.into_iter().flat_map(FileKind::sections);
    let options = sections.find(|section| section.path == path).map(|section| section.keys);
    match (error, options) {
        (ConfigError::Parse { origin, message }, Some(options)) if !options.is_empty() => {
            let required = options.iter().filter(|option| option.is_required);
            let shown: Vec<&str> = required.map(|option| option.path.as_str()).collect();
            let shown = if shown.is_empty() { vec![options[0].path.as_str()] } else { shown };
            let message = format!("{message}\ngive --set {}=VALUE", shown.join("=VALUE --set "));
            ConfigError::Parse { origin, message }
        }
        (error, _) => error,
    }
}

/// A configuration's table with another value of a key, `KEY=VALUE`.
fn with_setting<T: DeserializeOwned>(
    table: &toml::Table,
    setting: &str,
) -> Result<toml::Table, ConfigError> {
    let origin = format!("--set {setting}");
    let failed = |message: String| ConfigError::Parse { origin: origin.clone(), message };
    let (key, text) = setting
        .split_once('=')
        .map(|(key, text)| (key.trim(), text.trim()))
        .ok_or_else(|| failed("expected KEY=VALUE, as model.path=/data/gpt2".to_owned()))?;
    let with = |mut value: toml::Value| {
        let mut table = table.clone();
        crate::sweep::resolve_value(key, &mut value, Path::new(""));
        crate::sweep::set(&mut table, key, value).map_err(failed)?;
        // What is wrong with a value is told of the setting that has it; what only several make right is checked at the end.
        from_table::<T>(table.clone(), &origin)?;
        Ok(table)
    };
    let as_text = || {
        let set = with(toml::Value::String(text.to_owned()));
        set.map_err(|error| with_options(key, text, error))
    };
    let value: Option<toml::Value> = (!text.contains('\n'))
        .then(|| toml::from_str::<toml::Table>(&format!("value = {text}")).ok()?.remove("value"))
        .flatten();
    match value {
        // A number or a date where a text is expected, as a split named 2024.
        Some(value) => with(value).or_else(|error| as_text().map_err(|_| error)),
        None => as_text().map_err(|error| match error {
            ConfigError::Parse { origin, message }
                if message.contains("expected a list") && !text.starts_with('[') =>
            {
                let message = format!("{message}\na list is written --set '{key}=[\"{text}\"]'");
                ConfigError::Parse { origin, message }
            }
            ConfigError::Parse { origin, message } if text.starts_with(['[', '{']) => {
                let message = format!(
                    "{message}\nit is no value of TOML, perhaps for lack of quotes, which a shell takes away: \
                     --set 'sae.sites=[\"blocks.3.hook_resid_pre\"]'"
                );
                ConfigError::Parse { origin, message }
            }
            error => error,
        }),
    }
}
