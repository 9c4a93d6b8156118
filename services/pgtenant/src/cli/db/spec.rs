//! What is wished for, as options.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

/// `--mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeArg {
    /// Removing the claim drops the database, its roles and its credentials
    Standard,
    /// Removing the claim keeps them
    Protected,
}

impl ModeArg {
    /// As REST writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Protected => "protected",
        }
    }
}

/// The spec of a claim; what is not given is the control plane's to choose.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SpecArgs {
    /// What removing the claim does [default: standard]
    #[arg(long, value_enum)]
    mode: Option<ModeArg>,
    /// The shared cluster [default: default]
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// A schema beside public; more than once for several
    #[arg(long = "schema", value_name = "NAME", value_delimiter = ',')]
    schemas: Vec<String>,
    /// An extension; more than once for several
    #[arg(long = "extension", value_name = "NAME", value_delimiter = ',')]
    extensions: Vec<String>,
    /// Connections that each role may have at once [default: no limit]
    #[arg(long, value_name = "N")]
    connection_limit: Option<i32>,
    /// The Slack channel that hears what becomes of it [default: those that are linked to the namespace]
    #[arg(long, value_name = "CHANNEL")]
    slack_channel: Option<String>,
}

impl SpecArgs {
    /// The fields that were given, as JSON.
    pub(crate) fn fields(&self) -> Map<String, Value> {
        let Self { mode, cluster, schemas, extensions, connection_limit, slack_channel } = self;
        let mut fields = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                fields.insert(key.to_owned(), value);
            }
        };
        put("mode", mode.map(|mode| mode.as_str().into()));
        put("cluster", cluster.clone().map(Value::from));
        put("schemas", (!schemas.is_empty()).then(|| schemas.clone().into()));
        put("extensions", (!extensions.is_empty()).then(|| extensions.clone().into()));
        put("connectionLimit", connection_limit.map(Value::from));
        put("slackChannel", slack_channel.clone().map(Value::from));
        fields
    }
}
