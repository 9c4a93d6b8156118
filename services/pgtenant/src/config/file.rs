//! The layer of the settings file. Each value remembers its line.

use std::path::Path;

use config::{Map, Value, ValueKind};
use toml::de::{DeTable, DeValue};

use super::Problem;
use super::field::{CLUSTERS, Field, is_section};
use super::layer::Layer;

/// Reads `text`, the content of the settings file at `path`.
pub(crate) fn layer(path: &Path, text: &str) -> Layer {
    let mut layer = Layer::default();
    let lines = Lines { path: path.display().to_string(), text };
    match DeTable::parse(text) {
        Ok(table) => {
            lines.walk(&mut layer, &mut Vec::new(), table.get_ref());
            let line = |problem: &Problem| problem.place.rsplit(':').next().and_then(|n| n.parse::<usize>().ok());
            layer.problems.sort_by_key(line);
        }
        Err(error) => {
            let place = error.span().map_or_else(|| lines.path.clone(), |span| lines.place(span.start));
            layer.problems.push(Problem::new(&place, "", format!("is not TOML: {}", error.message())));
        }
    }
    layer
}

struct Lines<'a> {
    path: String,
    text: &'a str,
}

impl Lines<'_> {
    fn place(&self, offset: usize) -> String {
        let before = self.text.get(..offset).unwrap_or(self.text);
        format!("{}:{}", self.path, 1 + before.matches('\n').count())
    }

    fn walk(&self, layer: &mut Layer, path: &mut Vec<String>, table: &DeTable<'_>) {
        for (key, value) in table {
            path.push(key.get_ref().to_string());
            let place = self.place(key.span().start);
            let dotted = path.join(".");
            match value.get_ref() {
                DeValue::Table(inner) if is_section(&dotted) => self.walk(layer, path, inner),
                // A table that is no section: its keys are unknown one by one.
                DeValue::Table(inner)
                    if path.first().is_some_and(|head| head != CLUSTERS) && Field::find(&dotted).is_none() =>
                {
                    if inner.is_empty() {
                        layer.put_typed(path, Value::new(Some(&place), ValueKind::Nil), &place);
                    }
                    self.walk(layer, path, inner);
                }
                other => layer.put_typed(path, self.value(other, &place), &place),
            }
            path.pop();
        }
    }

    fn value(&self, value: &DeValue<'_>, place: &str) -> Value {
        let kind = match value {
            DeValue::String(text) => ValueKind::String(text.to_string()),
            DeValue::Boolean(value) => ValueKind::Boolean(*value),
            // Numbers that do not fit stay text, which no numeric setting accepts.
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| ValueKind::String(number.as_str().to_owned()), ValueKind::I64),
            DeValue::Float(number) => {
                number.as_str().parse().map_or_else(|_| ValueKind::String(number.as_str().to_owned()), ValueKind::Float)
            }
            DeValue::Datetime(time) => ValueKind::String(time.to_string()),
            DeValue::Array(list) => ValueKind::Array(
                list.iter().map(|item| self.value(item.get_ref(), &self.place(item.span().start))).collect(),
            ),
            DeValue::Table(table) => {
                let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
                    let key: &std::borrow::Cow<'_, str> = key.get_ref();
                    (key.to_string(), self.value(value.get_ref(), &self.place(value.span().start)))
                };
                ValueKind::Table(table.iter().map(entry).collect::<Map<_, _>>())
            }
        };
        Value::new(Some(&place.to_owned()), kind)
    }
}
