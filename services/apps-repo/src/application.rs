//! `application.yaml`: which chart an application uses.

use pgtenant_ledger::AppsProblem;
use pgtenant_model::is_slack_channel;

use crate::CHART;
use crate::reader::{Field, Reader, join};
use crate::scalar::Kind;
use crate::tree::{self, Data, Node};

const KEYS: [&str; 7] = ["apiVersion", "name", "description", "version", "slackChannel", "slackTriggers", "helm"];
const HELM_KEYS: [&str; 2] = ["chart", "chartVersion"];

/// Whose an application is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Application {
    /// Of [`CHART`].
    Ours {
        /// What is wrong with the file.
        problems: Vec<AppsProblem>,
        /// The channel that its databases name for their news, where they name none themselves.
        slack_channel: Option<String>,
    },
    /// Of another chart.
    Foreign,
    /// It can not be told.
    Unknown(Vec<AppsProblem>),
}

/// Reads an `application.yaml`; `file` is its name for messages.
pub(crate) fn parse(file: &str, text: &str) -> Application {
    let mut reader = Reader::new(file);
    let root = match tree::parse(text) {
        Ok(Some(root)) => root,
        Ok(None) => {
            reader.fault(0, "", "is empty; it must name the chart (helm.chart)");
            return Application::Unknown(reader.into_problems());
        }
        Err(fault) => {
            reader.fault(fault.line, "", &fault.message);
            return Application::Unknown(reader.into_problems());
        }
    };
    match chart(&root) {
        Some(chart) if chart == CHART => {
            check(&mut reader, Field { line: root.line, node: &root });
            Application::Ours { problems: reader.into_problems(), slack_channel: slack_channel(&root) }
        }
        Some(_) => Application::Foreign,
        None => {
            let message =
                format!("is missing or not text; it must name the application's chart, for databases {CHART:?}");
            reader.fault(root.line, "helm.chart", &message);
            Application::Unknown(reader.into_problems())
        }
    }
}

fn chart(root: &Node) -> Option<&str> {
    match &get(get(root, "helm")?, "chart")?.data {
        Data::Scalar { text, kind: Kind::Text } if !text.is_empty() => Some(text),
        _ => None,
    }
}

/// Argo CD takes several channels and whatever else there: what is not one channel is none of ours.
fn slack_channel(root: &Node) -> Option<String> {
    match &get(root, "slackChannel")?.data {
        Data::Scalar { text, kind: Kind::Text } if is_slack_channel(text) => Some(text.clone()),
        _ => None,
    }
}

fn get<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Data::Map(pairs) = &node.data else { return None };
    let named = |key: &Node| matches!(&key.data, Data::Scalar { text, .. } if text == name);
    pairs.iter().find(|(key, _)| named(key)).map(|(_, value)| &**value)
}

fn check(reader: &mut Reader<'_>, root: Field<'_>) {
    let Some(fields) = reader.map(root, "", &KEYS) else { return };
    for (key, field) in fields {
        match key {
            "helm" => {
                let helm = reader.map(field, key, &HELM_KEYS).unwrap_or_default();
                for (name, field) in helm {
                    reader.text(field, &join(key, name));
                }
            }
            "apiVersion" => {
                if let Some(version) = reader.text(field, key).filter(|version| *version != "v2") {
                    reader.fault(field.line, key, &format!("{version:?} is not known; write v2"));
                }
            }
            "slackTriggers" if matches!(field.node.data, Data::List(_)) => {
                reader.texts(field, key);
            }
            _ => {
                reader.text(field, key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render_problems;

    fn of(text: &str) -> String {
        match parse("f", text) {
            Application::Ours { problems, .. } => format!("ours\n{}", render_problems(&problems)),
            Application::Foreign => "foreign".to_owned(),
            Application::Unknown(problems) => format!("unknown\n{}", render_problems(&problems)),
        }
    }

    #[test]
    fn the_fields_of_the_tenants_documents_are_accepted() {
        let text = "apiVersion: v2\nname: orders\ndescription: \"Orders: all of them\"\nversion: 1.0.0\n\
                    slackChannel: '#orders'\nslackTriggers: on-sync-failed\nhelm:\n  chart: idp-postgresql\n  chartVersion: 0.5.0\n";
        assert_eq!(of(text), "ours\n");
        assert_eq!(of(&text.replace("on-sync-failed", "[on-sync-failed, on-deployed]")), "ours\n");
        assert_eq!(of("helm: {chart: idp-postgresql}"), "ours\n");
        assert_eq!(of("helm: {chart: \"idp-postgresql\"}\r\n"), "ours\n");
    }

    #[test]
    fn its_channel_is_that_of_its_databases() {
        let of =
            |channel: &str| match parse("f", &format!("slackChannel: {channel}\nhelm: {{chart: idp-postgresql}}\n")) {
                Application::Ours { slack_channel, problems } if problems.is_empty() => slack_channel,
                other => panic!("{other:?}"),
            };
        assert_eq!(of("'#orders'").as_deref(), Some("#orders"));
        assert_eq!(of("orders").as_deref(), Some("orders"));
        for none in ["''", "'#a;b'", "'#a, #b'", "'# orders'"] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn another_chart_is_not_looked_at() {
        assert_eq!(of("colour: red\nhelm: {chart: web, chartVersion: 7}\n"), "foreign");
    }

    #[test]
    fn each_fault_has_its_line() {
        let text = "apiVersion: v1\nnmae: x\nversion: 1.0\nhelm:\n  chart: idp-postgresql\n  version: 1.2.3\nname:\n";
        assert_eq!(
            of(text),
            "ours\n\
             f:1: apiVersion: \"v1\" is not known; write v2\n\
             f:2: nmae: is not known; did you mean `name`? (allowed: apiVersion, name, description, version, slackChannel, slackTriggers, helm)\n\
             f:3: version: 1.0 is a number and must be text; put it in quotes: \"1.0\"\n\
             f:6: helm.version: is not known (allowed: chart, chartVersion)\n\
             f:7: name: has no value; it must be text\n"
        );
    }

    #[test]
    fn what_names_no_chart_can_not_be_told() {
        let missing = "helm.chart: is missing or not text; it must name the application's chart, for databases \"idp-postgresql\"\n";
        assert_eq!(
            of("apiVersion: v2\nna"),
            "unknown\nf:2: is not valid YAML: a key is not followed by a colon and a space, here or just before\n"
        );
        for text in
            ["apiVersion: v2\n", "helm: {}", "helm: {chart: }", "helm: {chart: [a]}", "helm: {chart: 1}", "[]", "x"]
        {
            assert_eq!(of(text), format!("unknown\nf:1: {missing}"), "{text}");
        }
        assert_eq!(of(""), "unknown\nf: is empty; it must name the chart (helm.chart)\n");
        assert_eq!(of("# not yet\n"), "unknown\nf: is empty; it must name the chart (helm.chart)\n");
    }
}
