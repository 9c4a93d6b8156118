//! Why a command failed: what is printed on stderr, and the exit status.

use std::io::Write as _;
use std::process::ExitCode;

use super::http::HttpError;

/// How a command ended that did what it could.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done: 0.
    Done,
    /// Something was refused or is wrong, and has been printed: 1.
    Failed,
    /// There are changes, and `--exit-code` asked for it: 3.
    Changes,
    /// As a shell says that a program was ended by a signal: 128 and the signal.
    Status(u8),
}

impl Outcome {
    /// The exit status.
    pub(crate) fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Changes => 3,
            Self::Status(status) => status,
        })
    }
}

/// Why a command could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The command can not be meant like that.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to write instead.
        hints: Vec<String>,
    },
    /// It could not be done.
    #[error("{message}")]
    Failed {
        /// What is wrong.
        message: String,
        /// What to do.
        hints: Vec<String>,
    },
    /// The control plane did not do it.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Standard output can not be written.
    #[error("can not write the output: {0}")]
    Output(#[from] std::io::Error),
}

/// `Result` with [`CliError`].
pub(crate) type Result<T, E = CliError> = std::result::Result<T, E>;

impl CliError {
    /// A wrong use of the command.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hints: Vec::new() }
    }

    /// A failure.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), hints: Vec::new() }
    }

    /// The same, with a line of advice.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Self::Usage { hints, .. } | Self::Failed { hints, .. } = &mut self {
            hints.push(hint.into());
        }
        self
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Usage { hints, .. } | Self::Failed { hints, .. } => hints.clone(),
            Self::Http(error) => error.hints(),
            Self::Output(_) => Vec::new(),
        }
    }

    /// The `error:` and `hint:` lines.
    pub(crate) fn render(&self) -> String {
        let mut text = format!("error: {}\n", indent(&self.to_string()));
        for hint in self.hints() {
            text.push_str(&format!("hint: {}\n", indent(&hint)));
        }
        text
    }

    /// Prints what is to be said and gives the exit status. A reader that went away is no error.
    pub(crate) fn report(&self) -> ExitCode {
        if let Self::Output(error) = self
            && error.kind() == std::io::ErrorKind::BrokenPipe
        {
            return ExitCode::SUCCESS;
        }
        // There is nobody left to tell if stderr is gone.
        let _ = std::io::stderr().lock().write_all(self.render().as_bytes());
        ExitCode::from(if matches!(self, Self::Usage { .. }) { 2 } else { 1 })
    }
}

fn indent(text: &str) -> String {
    text.trim_end().replace('\n', "\n  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_hints_are_lines() {
        let error = CliError::failed("first\nsecond").hint("do this");
        assert_eq!(error.render(), "error: first\n  second\nhint: do this\n");
    }
}
