//! `pgtenant completions`.

use clap::{Args, CommandFactory as _, ValueEnum};

use super::Cli;
use super::context::Context;
use super::error::{Outcome, Result};

/// Arguments of `pgtenant completions`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  pgtenant completions bash > ~/.local/share/bash-completion/completions/pgtenant
  pgtenant completions zsh > \"${fpath[1]}/_pgtenant\"
  pgtenant completions fish > ~/.config/fish/completions/pgtenant.fish")]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn run(context: &Context, args: &CompletionsArgs) -> Result<Outcome> {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pgtenant", &mut script);
    context.out.line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Outcome::Done)
}
