//! One layer of settings: keys, values, and the exact place that each came from.

use config::{ConfigError, Map, Source, Value, ValueKind};

use super::Problem;
use super::field::{CLUSTERS, Field, allowed_in, is_section};

/// The values of a file, of the environment, of the flags, or the defaults.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layer {
    values: Map<String, Value>,
    /// What was not taken.
    pub(crate) problems: Vec<Problem>,
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.values.clone())
    }
}

impl Layer {
    /// Takes a value that is text, as from a variable or a flag.
    pub(crate) fn put_text(&mut self, path: &[String], text: String, origin: &str) {
        if path.first().is_some_and(|head| head == CLUSTERS) {
            match structured(text, origin) {
                Ok(value) => self.put_cluster(path, value, origin),
                Err(message) => self.problems.push(Problem::new(origin, &path.join("."), message)),
            }
        } else {
            self.put_setting(path, ValueKind::String(text), origin, true);
        }
    }

    /// Takes a value with its type, as from a file. Tables of clusters come here whole.
    pub(crate) fn put_typed(&mut self, path: &[String], value: Value, origin: &str) {
        if path.first().is_some_and(|head| head == CLUSTERS) {
            self.put_cluster(path, value, origin);
        } else {
            self.put_setting(path, value.kind, origin, false);
        }
    }

    fn put_setting(&mut self, path: &[String], given: ValueKind, origin: &str, text: bool) {
        let key = path.join(".");
        let Some(field) = Field::find(&key) else {
            let message = unknown(path);
            self.problems.push(Problem::new(origin, &key, message));
            return;
        };
        match field.accept(given, text) {
            Ok(kind) => self.insert(path, Value::new(Some(&origin.to_owned()), kind)),
            Err(message) => self.problems.push(Problem::new(origin, &key, message)),
        }
    }

    fn put_cluster(&mut self, path: &[String], value: Value, origin: &str) {
        match (path, &value.kind) {
            ([_], ValueKind::Table(_)) | ([_, _, _, ..], _) | ([_, _], ValueKind::Table(_)) => {
                self.insert(path, value);
            }
            _ => self.problems.push(Problem::new(
                origin,
                &path.join("."),
                "must be a table, as [clusters.default] in the file".to_owned(),
            )),
        }
    }

    fn insert(&mut self, path: &[String], value: Value) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut map = &mut self.values;
        for parent in parents {
            let entry = map.entry(parent.clone()).or_insert_with(|| Value::new(None, Map::<String, Value>::new()));
            if !matches!(entry.kind, ValueKind::Table(_)) {
                entry.kind = ValueKind::Table(Map::new());
            }
            let ValueKind::Table(inner) = &mut entry.kind else { return };
            map = inner;
        }
        map.insert(last.clone(), value);
    }
}

/// Says that there is no such key, and which there are.
fn unknown(path: &[String]) -> String {
    match path {
        [section, ..] if path.len() > 1 && is_section(section) => {
            format!("is not a setting; [{section}] has {}", allowed_in(section))
        }
        [section] if is_section(section) => "must be a table".to_owned(),
        _ => format!("is not a setting; there are {}", allowed_in("")),
    }
}

/// Text of a cluster's variable: JSON where it is a list, a table, a number or a truth value, otherwise as it stands.
fn structured(text: String, origin: &str) -> Result<Value, String> {
    let looks_like_json = text.trim_start().starts_with(['{', '[', '"']);
    match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(json) => Ok(from_json(json, origin)),
        Err(error) if looks_like_json => Err(format!("is not JSON: {error}")),
        Err(_) => Ok(Value::new(Some(&origin.to_owned()), text)),
    }
}

pub(super) fn from_json(json: serde_json::Value, origin: &str) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => ValueKind::Nil,
        Json::Bool(value) => ValueKind::Boolean(value),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => ValueKind::I64(whole),
            None => ValueKind::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => ValueKind::String(text),
        Json::Array(list) => ValueKind::Array(list.into_iter().map(|v| from_json(v, origin)).collect()),
        Json::Object(map) => ValueKind::Table(map.into_iter().map(|(k, v)| (k, from_json(v, origin))).collect()),
    };
    Value::new(Some(&origin.to_owned()), kind)
}
