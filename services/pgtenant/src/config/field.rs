//! Every setting: its key, what it accepts, its default. Files, variables, flags and `config check` all read this list.

use config::ValueKind;

use super::value;

/// What a setting accepts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// `host:port` to listen on.
    Address,
    /// A PostgreSQL URL without a password.
    LedgerUrl,
    /// Never shown, and never a flag.
    Secret,
    /// A path of a file or a directory.
    Path,
    /// `true` or `false`.
    Bool,
    /// A whole number within these bounds.
    Integer(i64, i64),
    /// A number above zero, up to this one.
    Number(f64),
    /// As `5m` or `1h 30m`, within these bounds in milliseconds.
    Duration(u64, u64),
    /// Bytes, as `262144` or `256KiB`, up to this number.
    Size(u64),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// As `info` or `info,pgtenant_engine=debug`.
    LogLevel,
    /// A name in Kubernetes, as of a namespace.
    Label,
    /// `https://HOST:PORT`, without a path.
    Https,
    /// A URL of either kind, with any path.
    Url,
    /// Text of any kind.
    Text,
    /// Channels of Slack, as JSON where it is text.
    Channels,
    /// People in Slack, as JSON where it is text.
    Users,
}

/// A setting.
#[derive(Debug)]
pub(crate) struct Field {
    /// Its key in the file, as `ledger.max_connections`.
    pub(crate) key: &'static str,
    /// What it accepts.
    pub(crate) kind: Kind,
    /// As text; none: not set.
    pub(crate) default: Option<&'static str>,
    /// For `--help`.
    pub(crate) help: &'static str,
}

const fn field(key: &'static str, kind: Kind, default: Option<&'static str>, help: &'static str) -> Field {
    Field { key, kind, default, help }
}

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;

/// Every setting but the clusters, in the order in which they are shown.
pub(crate) const FIELDS: &[Field] = &[
    field("listen", Kind::Address, Some("127.0.0.1:8080"), "Address and port that REST is served on"),
    field(
        "ledger.url",
        Kind::LedgerUrl,
        None,
        "PostgreSQL URL of the ledger, without a password; 1 to 9 hosts, parted by commas",
    ),
    field("ledger.password", Kind::Secret, None, "Password of the ledger's user"),
    field("ledger.password_file", Kind::Path, None, "File whose first line is the password of the ledger's user"),
    field("ledger.max_connections", Kind::Integer(5, 200), Some("10"), "Connections to the ledger at most"),
    field("log.format", Kind::Choice(&["text", "json"]), Some("text"), "Form of the log"),
    field("log.level", Kind::LogLevel, Some("info"), "What is logged, as info or info,pgtenant_engine=debug"),
    field("apps.dir", Kind::Path, None, "Apps folder to follow; not set: none"),
    field(
        "apps.rescan",
        Kind::Duration(SECOND, HOUR),
        Some("30s"),
        "How often the apps folder is read without a notice",
    ),
    field(
        "apps.max_removals",
        Kind::Integer(0, 1_000_000),
        Some("10"),
        "Claims that may vanish from the apps folder at once before removals are held back",
    ),
    field("apps.allow_mass_removal", Kind::Bool, Some("false"), "Let any number of claims vanish at once"),
    field(
        "kubernetes.enabled",
        Kind::Bool,
        Some("false"),
        "Serve PostgresqlDatabase and PostgresqlCluster resources, and the store kubernetes",
    ),
    field(
        "kubernetes.kubeconfig",
        Kind::Path,
        None,
        "Kubeconfig of the API server; not set: the Pod's ServiceAccount, or KUBECONFIG",
    ),
    field("kubernetes.namespace", Kind::Label, None, "Namespace of the control plane itself; not set: the Pod's"),
    field("kubernetes.webhook_listen", Kind::Address, Some("0.0.0.0:9443"), "Address and port of the webhooks"),
    field(
        "kubernetes.webhook_service",
        Kind::Label,
        Some("pgtenant-webhook"),
        "Service through which the API server reaches the webhooks, on port 443",
    ),
    field(
        "kubernetes.webhook_url",
        Kind::Https,
        None,
        "URL at which the API server reaches the webhooks, in place of a Service",
    ),
    field(
        "kubernetes.webhook_tls_dir",
        Kind::Path,
        None,
        "Folder with tls.crt and tls.key, as cert-manager keeps it; not set: pgtenant makes its own",
    ),
    field(
        "look.interval",
        Kind::Duration(SECOND, 24 * HOUR),
        Some("5m"),
        "How often each claim is looked at for drift",
    ),
    field("look.max_per_second", Kind::Number(1000.0), Some("1"), "Looks a second and cluster at most"),
    field(
        "work.concurrency",
        Kind::Integer(1, 32),
        Some("4"),
        "Claims of a cluster that are worked on at once; a cluster has 8 connections at most",
    ),
    field(
        "work.lease",
        Kind::Duration(3 * SECOND, HOUR),
        Some("15s"),
        "How long the claims under work wait when a replica has died",
    ),
    field(
        "work.watch",
        Kind::Duration(SECOND, HOUR),
        Some("10s"),
        "How often each cluster's members are asked who is the primary",
    ),
    field("work.postgresql_dir", Kind::Path, None, "Folder in which pg_dump and pg_restore are looked for first"),
    field("api.body_limit", Kind::Size(16 << 20), Some("256KiB"), "Bytes that a request's body may have"),
    field("api.request_timeout", Kind::Duration(SECOND, HOUR), Some("30s"), "Time in which a request is answered"),
    field("api.rate_limit", Kind::Integer(1, 1_000_000), Some("100"), "Requests a second that each token may make"),
    field("api.rate_burst", Kind::Integer(1, 1_000_000), Some("500"), "Requests that a token may make at once"),
    field("slack.signing_secret", Kind::Secret, None, "Secret with which Slack signs its requests"),
    field("slack.signing_secret_file", Kind::Path, None, "File whose first line is that secret"),
    field("slack.bot_token", Kind::Secret, None, "Token of the Slack app's bot"),
    field("slack.bot_token_file", Kind::Path, None, "File whose first line is that token"),
    field("slack.api_url", Kind::Url, Some("https://slack.com/api/"), "URL of Slack's Web API"),
    field("slack.platform_channel", Kind::Text, None, "Channel in which restores are approved, as C012AB3CD"),
    field("slack.channels", Kind::Channels, None, "Channels and the namespaces that each may see; a list as JSON"),
    field("slack.users", Kind::Users, None, "People who may do more or less than others; a list as JSON"),
    field(
        "slack.unlisted",
        Kind::Choice(&["nothing", "viewer", "tenant"]),
        Some("viewer"),
        "What all others may do in a channel that is linked to namespaces",
    ),
    field("slack.team", Kind::Text, None, "Workspace whose people are meant, as T012AB3CD; not set: all in a channel"),
    field("shutdown.grace", Kind::Duration(0, HOUR), Some("20s"), "Time that work under way is given on a stop"),
];

/// The section of the file that holds clusters.
pub(crate) const CLUSTERS: &str = "clusters";

impl Field {
    /// The setting with this key.
    pub(crate) fn find(key: &str) -> Option<&'static Self> {
        FIELDS.iter().find(|f| f.key == key)
    }

    /// Its variable, as `PGTENANT_LEDGER__MAX_CONNECTIONS`.
    pub(crate) fn variable(&self) -> String {
        // Slack's variables are as other programs call theirs; two underscores are understood as well.
        let parted = if self.key.starts_with("slack.") { "_" } else { "__" };
        format!("PGTENANT_{}", self.key.replace('.', parted).to_ascii_uppercase())
    }

    /// Its flag without the hyphens in front, as `ledger-max-connections`. Secrets have none.
    pub(crate) fn flag(&self) -> Option<String> {
        (self.kind != Kind::Secret).then(|| self.key.replace(['.', '_'], "-"))
    }

    /// The value as this setting keeps it. Text that comes from a variable or a flag is turned into its type.
    ///
    /// # Errors
    /// What is wrong and what is allowed; secrets are not quoted.
    pub(crate) fn accept(&self, given: ValueKind, text: bool) -> Result<ValueKind, String> {
        value::accept(self.kind, given, text)
    }
}

/// Whether a key begins a section of the file.
pub(crate) fn is_section(key: &str) -> bool {
    key == CLUSTERS || FIELDS.iter().any(|f| f.key.split_once('.').is_some_and(|(section, _)| section == key))
}

/// What may stand in a section (`""` is the file's top), for messages.
pub(crate) fn allowed_in(section: &str) -> String {
    let mut keys: Vec<&str> = Vec::new();
    for field in FIELDS {
        let key = match field.key.split_once('.') {
            Some((head, tail)) if head == section => tail,
            Some((head, _)) if section.is_empty() => head,
            None if section.is_empty() => field.key,
            _ => continue,
        };
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    if section.is_empty() {
        keys.push(CLUSTERS);
    }
    keys.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_the_key() {
        let field = Field::find("ledger.max_connections").unwrap();
        assert_eq!(field.variable(), "PGTENANT_LEDGER__MAX_CONNECTIONS");
        assert_eq!(field.flag().as_deref(), Some("ledger-max-connections"));
        assert_eq!(Field::find("ledger.password").unwrap().flag(), None);
        assert_eq!(allowed_in("log"), "format, level");
        assert_eq!(allowed_in(""), "listen, ledger, log, apps, kubernetes, look, work, api, slack, shutdown, clusters");
    }

    #[test]
    fn every_default_is_accepted() {
        for field in FIELDS {
            if let Some(text) = field.default {
                field.accept(ValueKind::String(text.to_owned()), true).unwrap();
            }
        }
    }

    #[test]
    fn every_secret_has_a_file_form() {
        for field in FIELDS.iter().filter(|f| f.kind == Kind::Secret) {
            let file = Field::find(&format!("{}_file", field.key)).unwrap();
            assert_eq!(file.kind, Kind::Path);
        }
    }
}
