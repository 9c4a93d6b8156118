//! The layer of the flags: one for each setting that is not secret, made from the list of settings.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::Problem;
use super::field::{FIELDS, Field, Kind};
use super::layer::Layer;

/// `--config FILE`, a flag for each setting, and `--set KEY=VALUE` for clusters.
#[derive(Debug, Clone, Default)]
pub(crate) struct SettingsArgs {
    /// The settings file; none: [`super::DEFAULT_FILE`] if it is there.
    pub(crate) config: Option<PathBuf>,
    flags: Vec<(&'static Field, String)>,
    sets: Vec<(String, String)>,
}

impl SettingsArgs {
    /// The values that were given.
    pub(crate) fn layer(&self) -> Layer {
        let mut layer = Layer::default();
        for (key, text) in &self.sets {
            let origin = format!("--set {key}");
            let path: Vec<String> = key.split('.').map(str::to_owned).collect();
            match Field::find(key) {
                Some(Field { kind: Kind::Secret, .. }) => layer.problems.push(Problem::new(
                    &origin,
                    key,
                    format!("every process on this machine can read flags; use {key}_file"),
                )),
                _ => layer.put_text(&path, text.clone(), &origin),
            }
        }
        for (field, text) in &self.flags {
            let path: Vec<String> = field.key.split('.').map(str::to_owned).collect();
            let flag = field.flag().unwrap_or_default();
            layer.put_text(&path, text.clone(), &format!("--{flag}"));
        }
        layer
    }
}

fn placeholder(kind: Kind) -> &'static str {
    match kind {
        Kind::Address => "ADDRESS:PORT",
        Kind::LedgerUrl => "URL",
        Kind::Secret => "SECRET",
        Kind::Path => "PATH",
        Kind::Bool => "BOOL",
        Kind::Integer(..) | Kind::Number(_) => "NUMBER",
        Kind::Duration(..) => "TIME",
        Kind::Size(_) => "BYTES",
        Kind::Choice(_) => "WORD",
        Kind::LogLevel => "LEVEL",
        Kind::Label => "NAME",
        Kind::Https | Kind::Url => "URL",
        Kind::Text => "TEXT",
        Kind::Channels | Kind::Users => "JSON",
    }
}

impl clap::Args for SettingsArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help(format!("Settings file [default: {} if it is there]", super::DEFAULT_FILE));
        let set = Arg::new("set")
            .long("set")
            .value_name("KEY=VALUE")
            .action(ArgAction::Append)
            .value_parser(key_and_value)
            .help("Any setting by its key, as clusters.default.environment=production; lists and tables are JSON");
        let flags = FIELDS.iter().filter_map(|field| {
            let flag = field.flag()?;
            let default = field.default.map(|text| format!(" [default: {text}]")).unwrap_or_default();
            let arg = Arg::new(field.key)
                .long(flag)
                .value_name(placeholder(field.kind))
                .help_heading("Settings")
                .help(format!("{}{default} [env: {}]", field.help, field.variable()));
            // `--apps-allow-mass-removal` alone says yes.
            Some(match field.kind {
                Kind::Bool => arg.num_args(0..=1).default_missing_value("true").require_equals(true),
                _ => arg,
            })
        });
        command.arg(config).arg(set).args(flags)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for SettingsArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let flags = FIELDS
            .iter()
            .filter(|field| field.kind != Kind::Secret)
            .filter_map(|field| Some((field, matches.get_one::<String>(field.key)?.clone())))
            .collect();
        let sets = matches.get_many::<(String, String)>("set").unwrap_or_default().cloned().collect();
        Ok(Self { config: matches.get_one("config").cloned(), flags, sets })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}
