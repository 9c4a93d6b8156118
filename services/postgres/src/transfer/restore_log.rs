//! What `pg_restore` says on its standard error, read.

/// A statement that the server refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// The server's words.
    pub(super) message: String,
    /// The beginning of the statement.
    pub(super) command: String,
}

/// What went wrong, as far as the program went on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) failures: Vec<Failure>,
    /// Whether every failure was understood, and is the server's refusal of its statement.
    pub(super) complete: bool,
}

const ERROR: &str = "error: could not execute query: ";
const COMMAND: &str = "Command was: ";
const TOTAL: &str = "warning: errors ignored on restore: ";
/// libpq's own words, and no server's: the statement was not refused, and each one after it fails as well.
const LOST: [&str; 6] = [
    "server closed the connection unexpectedly",
    "no connection to the server",
    "SSL connection has been closed unexpectedly",
    "SSL SYSCALL error",
    "could not receive data from server",
    "could not send data to server",
];
/// What a newer program sets and an older server does not know.
const HARMLESS: &str = "SET transaction_timeout ";

impl Log {
    pub(super) fn read(stderr: &str) -> Self {
        let mut log = Self::default();
        let (mut harmless, mut total, mut lost) = (0, None, false);
        for message in messages(stderr) {
            if let Some(rest) = message.strip_prefix(ERROR) {
                let (text, command) = rest.split_once(COMMAND).unwrap_or((rest, ""));
                let message = text.trim_start_matches("ERROR:").split_whitespace().collect::<Vec<_>>().join(" ");
                lost |= LOST.iter().any(|words| message.contains(words));
                // It is cut after so many bytes, and then ends with dots.
                let command = command.trim().trim_end_matches("...").to_owned();
                match command.starts_with(HARMLESS) {
                    true => harmless += 1,
                    false => log.failures.push(Failure { message, command }),
                }
            } else if let Some(rest) = message.strip_prefix(TOTAL) {
                total = rest.trim().parse::<usize>().ok();
            }
        }
        log.complete = !lost && total == Some(log.failures.len() + harmless);
        log
    }
}

/// Each begins with the program's name at the beginning of a line.
fn messages(stderr: &str) -> impl Iterator<Item = &str> {
    let mut rest = stderr;
    std::iter::from_fn(move || {
        const NAME: &str = "pg_restore: ";
        let begin = if rest.starts_with(NAME) { 0 } else { rest.find("\npg_restore: ")? + 1 };
        let text = &rest[begin + NAME.len()..];
        let end = text.find("\npg_restore: ").map_or(text.len(), |at| at + 1);
        rest = &text[end..];
        Some(&text[..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_statement() {
        let stderr = "pg_restore: while INITIALIZING:
pg_restore: error: could not execute query: ERROR:  unrecognized configuration parameter \"transaction_timeout\"
Command was: SET transaction_timeout = 0;
pg_restore: while PROCESSING TOC:
pg_restore: error: could not execute query: ERROR:  permission denied to create extension \"postgis\"
HINT:  Must be superuser to create this extension.
Command was: CREATE EXTENSION IF NOT EXISTS postgis WITH SCHEMA public;


pg_restore: warning: errors ignored on restore: 2
";
        let log = Log::read(stderr);
        assert!(log.complete);
        let [failure] = &log.failures[..] else { panic!("{log:?}") };
        assert_eq!(
            failure.message,
            "permission denied to create extension \"postgis\" HINT: Must be superuser to create this extension."
        );
        assert_eq!(failure.command, "CREATE EXTENSION IF NOT EXISTS postgis WITH SCHEMA public;");
    }

    #[test]
    fn a_lost_connection_is_no_refusal() {
        let stderr = "pg_restore: while PROCESSING TOC:
pg_restore: error: could not execute query: server closed the connection unexpectedly
\tThis probably means the server terminated abnormally
\tbefore or while processing the request.
Command was: COMMENT ON TABLE public.orders IS 'what was ordered';


pg_restore: error: could not execute query: no connection to the server
Command was: CREATE INDEX ON public.lines (order_id);


pg_restore: warning: errors ignored on restore: 2
";
        assert!(!Log::read(stderr).complete);
    }

    #[test]
    fn what_is_not_understood_is_not_passed_over() {
        assert!(!Log::read("pg_restore: error: connection to server failed\n").complete);
        assert!(!Log::read("pg_restore: warning: errors ignored on restore: 1\n").complete);
    }
}
