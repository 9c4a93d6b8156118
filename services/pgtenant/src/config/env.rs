//! The layer of the environment: `PGTENANT_SECTION__KEY`.

use std::ffi::OsString;

use super::Problem;
use super::field::{CLUSTERS, FIELDS, is_section};
use super::layer::Layer;

const PREFIX: &str = "PGTENANT_";

/// Variables of the command line and of other parts: no settings of the server.
const OTHERS: &[&str] = &["URL", "TOKEN", "TOKEN_FILE", "CA", "SECRETS_DIR", "CACHE_DIR", "RDS_CA_URL", "FAULT"];

/// Takes every variable that is a setting. The second value warns of those that look like one and are none.
pub(crate) fn layer(variables: impl IntoIterator<Item = (OsString, OsString)>) -> (Layer, Vec<Problem>) {
    let mut layer = Layer::default();
    let mut warnings = Vec::new();
    let mut found: Vec<(String, OsString)> = variables
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
        .collect();
    // A whole cluster as JSON comes before its parts.
    found.sort();
    for (name, value) in found {
        let Some(tail) = name.strip_prefix(PREFIX) else { continue };
        match path(tail) {
            Some(path) => match value.into_string() {
                Ok(text) => layer.put_text(&path, text, &name),
                Err(_) => layer.problems.push(Problem::new(&name, &path.join("."), "is not UTF-8".to_owned())),
            },
            None if is_foreign(tail) => {}
            None => warnings.push(Problem::new(&name, "", "is not a setting and is passed over".to_owned())),
        }
    }
    (layer, warnings)
}

/// The path of a variable: sections are parted by `__`. None: it is not meant as a setting.
fn path(tail: &str) -> Option<Vec<String>> {
    let mut parts = tail.split("__").map(str::to_ascii_lowercase);
    let head = parts.next()?;
    if let Some(name) = tail.strip_prefix("SLACK_").filter(|_| !tail.contains("__")) {
        let key = name.to_ascii_lowercase();
        return FIELDS.iter().any(|f| f.key == format!("slack.{key}")).then(|| vec!["slack".to_owned(), key]);
    }
    if !tail.contains("__") {
        let known = FIELDS.iter().any(|f| f.key == head);
        return known.then(|| vec![head]);
    }
    if !is_section(&head) {
        // A mistyped section is a mistake, not another program's variable.
        return Some(std::iter::once(head).chain(parts).collect());
    }
    let in_clusters = head == CLUSTERS;
    let mut path = vec![head];
    for (index, part) in parts.enumerate() {
        path.push(match (in_clusters, index) {
            (false, _) => part,
            // Cluster names are DNS labels: no underscore.
            (true, 0) => part.replace('_', "-"),
            (true, _) => camel_case(&part),
        });
    }
    Some(path)
}

/// `allowed_namespaces` becomes `allowedNamespaces`.
fn camel_case(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut upper = false;
    for letter in text.chars() {
        match letter {
            '_' => upper = true,
            _ if upper => {
                result.extend(letter.to_uppercase());
                upper = false;
            }
            _ => result.push(letter),
        }
    }
    result
}

/// Variables that other programs put there: the command line, and Kubernetes for a Service called `pgtenant`.
fn is_foreign(tail: &str) -> bool {
    OTHERS.contains(&tail) || tail == "PORT" || tail.starts_with("PORT_") || tail.starts_with("SERVICE_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(tail: &str) -> Option<String> {
        path(tail).map(|p| p.join("."))
    }

    #[test]
    fn variables_name_settings() {
        assert_eq!(paths("LISTEN").as_deref(), Some("listen"));
        assert_eq!(paths("LEDGER__MAX_CONNECTIONS").as_deref(), Some("ledger.max_connections"));
        assert_eq!(
            paths("CLUSTERS__EU_WEST__ALLOWED_NAMESPACES").as_deref(),
            Some("clusters.eu-west.allowedNamespaces")
        );
        assert_eq!(
            paths("CLUSTERS__DEFAULT__LIMITS__DATABASES_PER_NAMESPACE").as_deref(),
            Some("clusters.default.limits.databasesPerNamespace")
        );
        for name in ["SLACK_BOT_TOKEN_FILE", "SLACK__BOT_TOKEN_FILE"] {
            assert_eq!(paths(name).as_deref(), Some("slack.bot_token_file"));
        }
        assert_eq!(paths("SLACK_TOKEN"), None);
        assert_eq!(paths("LEDGR__URL").as_deref(), Some("ledgr.url"));
        assert_eq!(paths("URL"), None);
    }

    #[test]
    fn variables_of_others_are_passed_over_in_silence() {
        let names = ["PGTENANT_TOKEN", "PGTENANT_SERVICE_HOST", "PGTENANT_PORT_80_TCP"];
        let (layer, warnings) = layer(names.map(|name| (name.into(), "x".into())));
        assert!(layer.problems.is_empty() && warnings.is_empty());
        let (_, warnings) = super::layer([("PGTENANT_LISTN".into(), "x".into())]);
        assert_eq!(warnings.len(), 1);
    }
}
