//! `pgtenant aws`: it asks neither a control plane nor Amazon.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use pgtenant_model::{AuroraTopology, ClusterSpec, StoreSpec, Topology};
use pgtenant_rds::{Permission, permissions};
use pgtenant_secrets::{PolicyOptions, control_plane_policy, external_secrets_policy, login_policy};
use serde_json::{Value, json};

use super::context::Context;
use super::error::{CliError, Outcome, Result};
use super::server::settings;
use crate::config::SettingsArgs;

/// `pgtenant aws …`
#[derive(Debug, Clone, Subcommand)]
pub(super) enum AwsCommand {
    /// Print the least IAM policy with which it works, as JSON
    IamPolicy(IamPolicyArgs),
}

/// Arguments of `pgtenant aws iam-policy`.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "The clusters are those of the settings, or the one of a PostgresqlCluster in a file. Attach the policy to the role that
the control plane has by IRSA or EKS Pod Identity, or to the External Secrets Operator's.

Examples:
  pgtenant aws iam-policy --config /etc/pgtenant/pgtenant.toml --account 123456789012 > policy.json
  pgtenant aws iam-policy --cluster default --for external-secrets
  pgtenant aws iam-policy -f cluster.yaml --region eu-west-1"
)]
pub(super) struct IamPolicyArgs {
    /// One cluster of the settings [default: all]
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// A PostgresqlCluster, or its spec, as YAML or JSON, in the place of the settings
    #[arg(short, long = "file", value_name = "FILE", conflicts_with = "cluster")]
    file: Option<PathBuf>,
    /// Who is to have it
    #[arg(long = "for", value_name = "WHO", default_value = "control-plane")]
    who: Who,
    /// The account's number [default: any]
    #[arg(long, value_name = "NUMBER", value_parser = account)]
    account: Option<String>,
    /// The region of stores that name none [default: any]
    #[arg(long, env = "AWS_REGION", value_name = "REGION", value_parser = region)]
    region: Option<String>,
    #[command(flatten)]
    settings: SettingsArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Who {
    /// pgtenant itself
    ControlPlane,
    /// The External Secrets Operator
    ExternalSecrets,
}

fn account(text: &str) -> Result<String, &'static str> {
    let number = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    if number { Ok(text.to_owned()) } else { Err("is not a number of 12 digits") }
}

fn region(text: &str) -> Result<String, &'static str> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !text.is_empty() && text.bytes().all(plain) { Ok(text.to_owned()) } else { Err("is not a region, as eu-west-1") }
}

pub(super) fn run(context: &Context, command: &AwsCommand) -> Result<Outcome> {
    let AwsCommand::IamPolicy(args) = command;
    let clusters = match &args.file {
        Some(file) => vec![read(file)?],
        None => named(args)?,
    };
    let any = |given: &Option<String>| given.clone().unwrap_or_else(|| "*".to_owned());
    let (account, region) = (any(&args.account), any(&args.region));
    let options = PolicyOptions { account: &account, region: &region };
    let all = clusters.iter().flat_map(|cluster| statements(cluster, args.who, options));
    let statements = merged(all);
    if statements.is_empty() {
        return Err(CliError::failed("no cluster has anything on Amazon")
            .hint("a cluster keeps credentials in Secrets Manager with stores = [{ awsSecretsManager = {} }]"));
    }
    let policy = json!({"Version": "2012-10-17", "Statement": statements});
    let text = serde_json::to_string_pretty(&policy).map_err(|error| CliError::failed(error.to_string()))?;
    context.out.line(text)?;
    Ok(Outcome::Done)
}

fn named(args: &IamPolicyArgs) -> Result<Vec<ClusterSpec>> {
    let mut clusters = settings(&args.settings)?.clusters;
    let Some(name) = &args.cluster else { return Ok(clusters.into_values().collect()) };
    let missing = || CliError::failed(format!("the settings have no cluster {name:?}"));
    Ok(vec![clusters.remove(name).ok_or_else(missing)?])
}

fn read(file: &Path) -> Result<ClusterSpec> {
    let at = |why: String| CliError::failed(format!("{}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| at(error.to_string()))?;
    let mut document: Value = serde_yaml_ng::from_str(&text).map_err(|error| at(error.to_string()))?;
    if let Some(spec) = document.get_mut("spec") {
        document = spec.take();
    }
    let spec: ClusterSpec = serde_json::from_value(document).map_err(|error| at(error.to_string()))?;
    match spec.problems().first() {
        None => Ok(spec),
        Some(problem) => Err(at(format!("{}: {}", problem.field, problem.message))),
    }
}

/// What one cluster needs: its stores, those it had before among them, its login, and RDS.
fn statements(cluster: &ClusterSpec, who: Who, options: PolicyOptions<'_>) -> Vec<Value> {
    let stores = cluster.stores.iter().chain(&cluster.former_stores);
    let statements = stores.filter_map(|store| match (store, who) {
        (StoreSpec::AwsSecretsManager(store), Who::ControlPlane) => Some(control_plane_policy(store, options)),
        (StoreSpec::AwsSecretsManager(store), Who::ExternalSecrets) => Some(external_secrets_policy(store, options)),
        (StoreSpec::File(_) | StoreSpec::Kubernetes(_) | StoreSpec::ExternalSecret(_), _) => None,
    });
    let mut statements: Vec<_> = statements.flatten().collect();
    if who == Who::ControlPlane {
        statements.extend(cluster_statements(cluster, options));
    }
    statements
}

fn cluster_statements(cluster: &ClusterSpec, options: PolicyOptions<'_>) -> Vec<Value> {
    let aurora = match &cluster.topology {
        Topology::Aurora(aurora) => Some(aurora),
        Topology::Streaming(_)
        | Topology::Repmgr(_)
        | Topology::Haproxy(_)
        | Topology::Patroni(_)
        | Topology::PgAutoFailover(_) => None,
    };
    let login =
        cluster.provisioner.aws_secret.iter().flat_map(|secret| login_policy(secret, aurora.is_some(), options));
    // Most of them know no resources before the cluster is there.
    let rds =
        |aurora| json!({"Sid": "Rds", "Effect": "Allow", "Action": pgtenant_rds::actions(aurora), "Resource": "*"});
    let takes = cluster.backups.as_ref().and_then(|backups| backups.rds.as_ref()).is_some_and(|rds| rds.ensure);
    let narrow = aurora.into_iter().flat_map(|aurora| narrow_statements(aurora, takes, options));
    login.chain(aurora.map(rds)).chain(narrow).collect()
}

/// For copies of the cluster, and snapshots of it, by their names.
fn narrow_statements(aurora: &AuroraTopology, takes: bool, options: PolicyOptions<'_>) -> Vec<Value> {
    let partition = match &aurora.region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    };
    let statement = |Permission { name, actions, resources }: Permission| {
        let arn = |end: &String| format!("arn:{partition}:rds:{}:{}:{end}", aurora.region, options.account);
        let resources: Vec<String> = resources.iter().map(arn).collect();
        json!({"Sid": name, "Effect": "Allow", "Action": actions, "Resource": resources})
    };
    permissions(aurora, takes).into_iter().map(statement).collect()
}

/// Each statement once. Those of one name get numbers, since IAM wants names that are unique.
fn merged(all: impl Iterator<Item = Value>) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::new();
    for statement in all {
        if !merged.contains(&statement) {
            merged.push(statement);
        }
    }
    for index in 0..merged.len() {
        let same = merged[..index].iter().filter(|earlier| stem(earlier) == stem(&merged[index])).count();
        if same > 0 {
            merged[index]["Sid"] = json!(format!("{}{}", stem(&merged[index]), same + 1));
        }
    }
    merged
}

fn stem(statement: &Value) -> String {
    statement["Sid"].as_str().unwrap_or_default().trim_end_matches(|c: char| c.is_ascii_digit()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_statement_is_there_once_and_has_a_name_of_its_own() {
        let one = |name: &str, resource: &str| json!({"Sid": name, "Resource": resource});
        let all = [one("List", "*"), one("Read", "a"), one("List", "*"), one("Read", "b"), one("Read", "c")];
        let names: Vec<String> =
            merged(all.into_iter()).iter().map(|one| one["Sid"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names, ["List", "Read", "Read2", "Read3"]);
    }
}
