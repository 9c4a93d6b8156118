//! The command line: what can be typed, and who does it.

mod accept;
mod apply;
mod audit;
mod aws;
mod backup;
mod bootstrap;
mod cluster;
mod completions;
mod config;
mod confirm;
mod context;
mod db;
mod drill;
mod error;
mod events;
mod first_token;
mod health;
mod http;
mod lab;
mod migrate_values;
mod move_database;
mod name;
mod operation;
mod output;
mod plan;
mod report;
mod restore;
mod rotate;
mod server;
pub(crate) mod server_args;
mod switchover;
mod token;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Arg, CommandFactory as _, Parser, Subcommand};

use context::{Context, GlobalArgs};
use error::{CliError, Outcome, Result};

/// Databases with roles and credentials on shared PostgreSQL clusters, by self-service
#[derive(Debug, Parser)]
#[command(
    name = "pgtenant",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Client commands read PGTENANT_URL and PGTENANT_TOKEN (or PGTENANT_TOKEN_FILE).

Examples:
  pgtenant db create idp-dev/my-db
  pgtenant db connect idp-dev/my-db
  pgtenant plan -f apps/

Exit status: 0 done, 1 failed, 2 wrong usage, 3 changes found by `plan --exit-code` or
`migrate values --exit-code`."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start everything on this machine: clusters, ledger, control plane, an apps folder
    Dev(server_args::DevArgs),
    /// Run the control plane beside clusters that are there
    Serve(server_args::ServeArgs),
    /// Bring the ledger's schema up to date; `migrate values`: files of older charts
    Migrate(server_args::MigrateArgs),
    /// Print what an apps folder would change
    Plan(plan::PlanArgs),
    /// Make the databases that an apps folder defines, through REST
    Apply(apply::ApplyArgs),
    /// Databases
    #[command(subcommand)]
    Db(db::DbCommand),
    /// What a database can be restored from
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Back from a snapshot
    #[command(subcommand)]
    Restore(restore::RestoreCommand),
    /// Replace the passwords of a whole cluster
    Rotate(rotate::RotateArgs),
    /// Shared clusters
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Requests and how far they have come
    #[command(subcommand)]
    Operation(operation::OperationCommand),
    /// What happens to databases and clusters
    Events(events::EventsArgs),
    /// Who did what
    Audit(audit::AuditArgs),
    /// Tokens for REST and the command line
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Highly available clusters of every kind on this machine, to try and to break
    #[command(subcommand)]
    Lab(lab::LabCommand),
    /// Tell a load balancer whether a server is the primary or a standby
    Health(Box<health::HealthArgs>),
    /// What Amazon has to be told of pgtenant
    #[command(subcommand)]
    Aws(aws::AwsCommand),
    /// Settings of the server
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print a script that completes commands in a shell
    Completions(completions::CompletionsArgs),
}

/// Reads the arguments, does what they say, and gives the exit status.
pub(crate) fn run() -> ExitCode {
    let Cli { global, command } = parse();
    match dispatch(global, command) {
        Ok(outcome) => outcome.code(),
        Err(error) => error.report(),
    }
}

/// The line of usage beside an error names what was typed and what is missing. Clap would have what a variable holds among it, as if it
/// had to be typed.
fn parse() -> Cli {
    fn without_variables(command: clap::Command) -> clap::Command {
        let is_set = |arg: &Arg| arg.get_env().is_some_and(|name| std::env::var_os(name).is_some());
        command.mut_args(|arg| if is_set(&arg) { arg.hide(true) } else { arg }).mut_subcommands(without_variables)
    }
    Cli::try_parse().unwrap_or_else(|error| {
        let again = || without_variables(Cli::command()).try_get_matches().err();
        let named = matches!(error.kind(), ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict);
        named.then(again).flatten().unwrap_or(error).exit()
    })
}

fn dispatch(global: GlobalArgs, command: Command) -> Result<Outcome> {
    let context = Context::new(global);
    match command {
        Command::Dev(args) => server::dev(args),
        Command::Serve(args) => server::serve(&args),
        Command::Migrate(args) => migrate(&context, &args),
        Command::Aws(command) => aws::run(&context, &command),
        Command::Config(command) => config::run(&context, &command),
        Command::Completions(args) => completions::run(&context, &args),
        client => block_on(run_client(&context, client)),
    }
}

async fn run_client(context: &Context, command: Command) -> Result<Outcome> {
    match command {
        Command::Plan(args) => plan::run(context, &args).await,
        Command::Apply(args) => apply::run(context, &args).await,
        Command::Db(command) => db::run(context, command).await,
        Command::Backup(command) => backup::run(context, command).await,
        Command::Restore(command) => restore::run(context, command).await,
        Command::Rotate(args) => rotate::run(context, &args).await,
        Command::Cluster(command) => cluster::run(context, command).await,
        Command::Operation(command) => operation::run(context, command).await,
        Command::Events(args) => events::run(context, &args).await,
        Command::Audit(args) => audit::run(context, &args).await,
        Command::Token(command) => token::run(context, command).await,
        Command::Health(args) => health::run(&args).await,
        Command::Lab(command) => lab::run(context, command).await,
        Command::Aws(command) => aws::run(context, &command),
        Command::Config(command) => config::run(context, &command),
        Command::Completions(args) => completions::run(context, &args),
        Command::Dev(args) => server::dev(args),
        Command::Serve(args) => server::serve(&args),
        Command::Migrate(args) => migrate(context, &args),
    }
}

fn migrate(context: &Context, args: &server_args::MigrateArgs) -> Result<Outcome> {
    match &args.command {
        Some(server_args::MigrateCommand::Values(values)) => migrate_values::run(context, values),
        None => server::migrate(args),
    }
}

/// One thread is enough for a client and starts faster.
fn block_on(work: impl Future<Output = Result<Outcome>>) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("can not start: {error}")))?;
    runtime.block_on(work)
}

/// Reads the entries of a list.
fn read<T: serde::de::DeserializeOwned>(items: Vec<http::Document>) -> Result<Vec<T>> {
    let fault = |error: serde_yaml_ng::Error| {
        CliError::failed(format!("the answer can not be understood: {error}"))
            .hint("is the control plane of another version? --output json prints what it sent")
    };
    items.into_iter().map(|item| serde_yaml_ng::from_value(item).map_err(fault)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            for inner in command.get_subcommands().filter(|c| c.get_name() != "help") {
                check(inner, &path);
            }
            let alone = !command.is_subcommand_required_set() && !command.is_arg_required_else_help_set();
            if command.get_subcommands().next().is_none() || alone {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example") && help.contains("pgtenant "), "{path} has no example");
            }
        }
        check(&Cli::command(), "");
    }

    #[test]
    fn no_flag_takes_a_secret() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments() {
                let name = arg.get_long().unwrap_or_default();
                let secret = name.ends_with("token") || name.ends_with("password") || name.ends_with("secret");
                assert!(!secret, "--{name} would be seen by every process");
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn server_arguments_are_read() {
        #[derive(Debug, Parser)]
        struct Serve {
            #[command(flatten)]
            args: server_args::ServeArgs,
        }
        Serve::command().debug_assert();
        let serve =
            Serve::try_parse_from(["serve", "--config", "a.toml", "--apps-allow-mass-removal", "--listen", "[::]:1"]);
        assert_eq!(serve.unwrap().args.settings.config.as_deref(), Some(std::path::Path::new("a.toml")));
        assert!(Serve::try_parse_from(["serve", "--ledger-password", "x"]).is_err());
    }
}
