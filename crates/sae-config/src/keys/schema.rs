//! The JSON schema of a configuration file, as its types give it, without what TOML does not have.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::RunConfig;

pub(super) fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    without_null(&mut schema);
    schema
}

/// TOML has no null: what may be left out is left out.
fn without_null(schema: &mut Value) {
    let null = json!({ "type": "null" });
    match schema {
        Value::Object(map) => {
            if map.get("default") == Some(&Value::Null) {
                map.remove("default");
            }
            if let Some(Value::Array(kinds)) = map.get_mut("type") {
                kinds.retain(|kind| kind != "null");
                if let [only] = kinds.as_slice() {
                    let only = only.clone();
                    map.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(words)) = map.get_mut("enum") {
                words.retain(|word| !word.is_null());
            }
            if let Some(Value::Array(kinds)) = map.get_mut("anyOf") {
                kinds.retain(|kind| *kind != null);
                if kinds.len() == 1 {
                    let only = kinds.remove(0);
                    map.remove("anyOf");
                    // What is said of the key goes before what is said of its type.
                    for (name, value) in only.as_object().into_iter().flatten() {
                        map.entry(name).or_insert_with(|| value.clone());
                    }
                }
            }
            map.values_mut().for_each(without_null);
        }
        Value::Array(values) => values.iter_mut().for_each(without_null),
        _ => {}
    }
}

/// The schema of a sweep in which `set` and `grid` know the keys of a run.
pub(super) fn with_keys_of_runs(mut sweep: Value) -> Value {
    let mut keys = Map::new();
    collect_keys(&mut keys, "", &schema_of::<RunConfig>());
    let lists: Map<String, Value> = keys
        .iter()
        .map(|(key, schema)| (key.clone(), json!({ "type": "array", "items": schema })))
        .collect();
    let fill = |table: &mut Value| {
        table["set"]["properties"] = Value::Object(keys.clone());
        table["grid"]["properties"] = Value::Object(lists.clone());
    };
    fill(&mut sweep["properties"]);
    fill(&mut sweep["properties"]["variants"]["items"]["properties"]);
    sweep
}

/// The schemas of all keys below a table, and of its tables, by dotted name.
fn collect_keys(keys: &mut Map<String, Value>, path: &str, schema: &Value) {
    for (name, property) in properties(schema) {
        let key = join(path, name);
        collect_keys(keys, &key, property);
        keys.insert(key, property.clone());
    }
    for choice in choices(schema) {
        collect_keys(keys, path, choice);
    }
}

pub(super) fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

/// The tables between which a table is chosen, each with its name as its only key.
pub(super) fn choices(schema: &Value) -> impl Iterator<Item = &Value> {
    schema["oneOf"].as_array().into_iter().flatten().filter(|choice| choice["type"] == "object")
}

pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A text of a schema on one line.
pub(super) fn text(schema: &Value, name: &str) -> Option<String> {
    let text = schema[name].as_str()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}
