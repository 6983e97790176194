//! The keys of a configuration and their documentation, read from the types' own comments.

use super::Config;
use rl_agents::Algo;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// One key: its dotted path and its documentation.
pub(super) struct Key {
    pub path: String,
    pub doc: String,
    /// Whether more keys stand below it (a TOML table of its own).
    pub table: bool,
}

/// Every key of a configuration for `algo`, in the order of the fields.
pub(super) fn keys(algo: &Algo) -> Vec<Key> {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Config>().to_value();
    let agent_doc = schema["properties"]["agent"]["description"].clone();
    schema["properties"]["agent"] = algo.schema();
    schema["properties"]["agent"]["description"] = agent_doc;
    let mut keys = Vec::new();
    collect(&schema, "", &mut keys, 0);
    keys
}

/// Sections are one level deep; what lies below is one key's value (a schedule, an optimizer).
fn collect(schema: &Value, prefix: &str, keys: &mut Vec<Key>, depth: usize) {
    let Some(properties) = schema["properties"].as_object() else { return };
    for (name, property) in properties {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let doc = property["description"].as_str().unwrap_or_default().replace('\n', " ");
        let table = depth == 0 && property["properties"].is_object();
        keys.push(Key { path: path.clone(), doc, table });
        if table {
            collect(property, &path, keys, depth + 1);
        }
    }
}

/// `config` as TOML, each key below its documentation.
///
/// # Panics
/// When the configuration names no known algorithm; one that was resolved does.
pub fn to_toml(config: &Config) -> String {
    let algo = rl_agents::algo(&config.algo).expect("a resolved configuration names a known algorithm");
    let values = toml::Table::try_from(config).expect("a configuration is plain data");
    let mut out = String::new();
    for key in keys(algo) {
        let value = key.path.split('.').fold(None::<&toml::Value>, |at, part| match at {
            None => values.get(part),
            Some(table) => table.get(part),
        });
        if key.table {
            out += &format!("\n# {}\n[{}]\n", key.doc, key.path);
        } else if let Some(value) = value {
            let name = key.path.rsplit('.').next().unwrap_or(&key.path);
            out += &format!("# {}\n{name} = {}\n", key.doc, inline(value));
        }
    }
    out
}

/// A value on one line.
fn inline(value: &toml::Value) -> String {
    match value {
        toml::Value::Table(table) => {
            let pairs: Vec<String> = table.iter().map(|(k, v)| format!("{k} = {}", inline(v))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        other => other.to_string(),
    }
}
