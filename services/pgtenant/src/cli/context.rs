//! What every client command has: the options that all share, and through them the control plane.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use secrecy::SecretString;

use super::error::{CliError, Result};
use super::http::{Client, ClientOptions};
use super::output::{Format, Output, note};

/// Where `pgtenant dev` listens.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const WAIT_TIMEOUT: Duration = Duration::from_secs(600);

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// The control plane
    #[arg(long, global = true, env = "PGTENANT_URL", default_value = DEFAULT_URL, value_name = "URL")]
    pub(crate) url: String,
    /// File whose first line is the token [env: PGTENANT_TOKEN holds the token itself, PGTENANT_TOKEN_FILE names a file]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// No colours, as with NO_COLOR
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// How long to wait: for an answer [default: 30s], and with --wait for the end [default: 10m]
    #[arg(long, global = true, value_parser = humantime::parse_duration, value_name = "TIME")]
    pub(crate) timeout: Option<Duration>,
}

/// What a client command works with.
#[derive(Debug)]
pub(crate) struct Context {
    args: GlobalArgs,
    /// Standard output.
    pub(crate) out: Output,
}

impl Context {
    /// Reads the options; connects to nothing.
    pub(crate) fn new(args: GlobalArgs) -> Self {
        let out = Output::new(args.output, args.no_color);
        Self { args, out }
    }

    /// The control plane.
    ///
    /// # Errors
    /// The URL can not be used, or there is no token.
    pub(crate) fn client(&self) -> Result<Client> {
        let token = self.token()?;
        let options = ClientOptions { url: self.args.url.clone(), token, timeout: self.request_timeout() };
        let client = Client::new(&options)?;
        if is_exposed(client.base()) {
            note(&format!("warning: the token goes to {} unencrypted; use https", client.base()));
        }
        Ok(client)
    }

    /// The flag comes before the variables.
    fn token(&self) -> Result<SecretString> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(path) = &self.args.token_file {
            return token_of(path, "--token-file names the token's file");
        }
        if let Some(token) = variable("PGTENANT_TOKEN") {
            let text = token.to_str().ok_or_else(|| CliError::failed("PGTENANT_TOKEN is not text"))?;
            return Ok(SecretString::from(text.trim()));
        }
        if let Some(path) = variable("PGTENANT_TOKEN_FILE") {
            return token_of(Path::new(&path), "PGTENANT_TOKEN_FILE names the token's file");
        }
        Err(CliError::failed("there is no token").hint(
            "set PGTENANT_TOKEN, or PGTENANT_TOKEN_FILE (--token-file) to a file that holds it; `pgtenant dev` writes one \
             into DIR/env: `. DIR/env` sets it",
        ))
    }

    /// How long one answer may take.
    pub(crate) fn request_timeout(&self) -> Duration {
        self.args.timeout.unwrap_or(REQUEST_TIMEOUT)
    }

    /// How long a command with `--wait` may take.
    pub(crate) fn wait_timeout(&self) -> Duration {
        self.args.timeout.unwrap_or(WAIT_TIMEOUT)
    }

    /// What `--timeout` says.
    pub(crate) fn given_timeout(&self) -> Option<Duration> {
        self.args.timeout
    }

    /// Whether a person can be asked.
    pub(crate) fn is_interactive(&self) -> bool {
        std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }
}

fn token_of(path: &Path, hint: &str) -> Result<SecretString> {
    crate::config::read_secret(path).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        CliError::failed(format!("{error}{cause}")).hint(hint)
    })
}

/// Whether a token can be read on its way.
fn is_exposed(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    url.scheme() == "http" && !local
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_that_is_given_is_for_answers_and_for_waits() {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            global: GlobalArgs,
        }
        let timeouts = |arguments: &[&str]| {
            let context = Context::new(<Alone as clap::Parser>::parse_from(arguments).global);
            (context.request_timeout().as_secs(), context.wait_timeout().as_secs())
        };
        assert_eq!(timeouts(&["pgtenant"]), (30, 600));
        assert_eq!(timeouts(&["pgtenant", "--timeout", "2s"]), (2, 2));
        assert_eq!(timeouts(&["pgtenant", "--timeout", "20m"]), (1200, 1200));
    }

    #[test]
    fn tokens_are_exposed_on_the_network_only() {
        for (url, exposed) in [
            ("http://127.0.0.1:1", false),
            ("http://[::1]:1", false),
            ("http://localhost", false),
            ("https://pg.example", false),
            ("http://pg.example", true),
        ] {
            assert_eq!(is_exposed(&url.parse().unwrap()), exposed, "{url}");
        }
    }
}
