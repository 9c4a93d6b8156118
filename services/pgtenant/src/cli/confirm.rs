//! Asking before something is done that can not be undone.

use std::io::{BufRead as _, Write as _};

use super::context::Context;
use super::error::{CliError, Result};

/// Asks `question`; `y` or `yes` goes on. With `yes` nobody is asked, and without a terminal nobody can be.
///
/// # Errors
/// The answer was no, or there is nobody to ask.
pub(crate) fn confirm(context: &Context, yes: bool, question: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    let answer = ask(context, &format!("{question} [y/N] "))?;
    if matches!(answer.to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(CliError::failed("nothing was done"))
}

/// Has `word` typed, which nobody does by accident.
///
/// # Errors
/// Something else was typed, or there is nobody to ask.
pub(crate) fn confirm_word(context: &Context, yes: bool, warning: &str, word: &str) -> Result<()> {
    if yes {
        return Ok(());
    }
    if ask(context, &format!("{warning}\nType {word} to go on: "))? == word {
        return Ok(());
    }
    Err(CliError::failed("nothing was done"))
}

fn ask(context: &Context, prompt: &str) -> Result<String> {
    if !context.is_interactive() {
        return Err(CliError::usage("this must be confirmed, and there is no terminal to ask on").hint("add --yes"));
    }
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "{prompt}").and_then(|()| err.flush());
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}
