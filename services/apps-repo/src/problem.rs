//! Problems in words that fit a line: what is quoted from a file is escaped and shortened.

use std::fmt::Write as _;

use pgtenant_ledger::AppsProblem;

/// Longest message and key; a file may hold a name of a megabyte.
const MAX_CHARS: usize = 400;
/// More problems than these are counted, not listed.
const MAX_PROBLEMS: usize = 1000;

/// A problem whose texts can be shown and stored.
pub(crate) fn problem(file: &str, line: u32, key: &str, message: &str) -> AppsProblem {
    AppsProblem {
        file: clean(file),
        line: i32::try_from(line).unwrap_or(i32::MAX),
        key: clean(key),
        message: clean(message),
    }
}

/// Each problem once, in order, and not too many.
pub(crate) fn listed(mut problems: Vec<AppsProblem>) -> Vec<AppsProblem> {
    problems.sort_by(|a, b| order(a).cmp(&order(b)));
    problems.dedup();
    let left_out = problems.len().saturating_sub(MAX_PROBLEMS);
    if left_out > 0 {
        problems.truncate(MAX_PROBLEMS);
        problems.push(problem("", 0, "", &format!("{left_out} more problems are not listed")));
    }
    problems
}

/// By file and line.
pub(crate) fn order(problem: &AppsProblem) -> (&str, i32, &str, &str) {
    (&problem.file, problem.line, &problem.key, &problem.message)
}

/// Control characters as escapes, at most [`MAX_CHARS`].
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len().min(MAX_CHARS));
    for (count, char) in text.chars().enumerate() {
        if count == MAX_CHARS {
            clean.push('…');
            break;
        }
        if char.is_control() {
            clean.extend(char.escape_default());
        } else {
            clean.push(char);
        }
    }
    clean
}

/// One problem a line, as compilers write them: `file:line: key: message`. Parts that a problem does not have are left out.
#[must_use]
pub fn render_problems(problems: &[AppsProblem]) -> String {
    let mut text = String::new();
    for AppsProblem { file, line, key, message } in problems {
        if !file.is_empty() {
            text.push_str(file);
            if *line > 0 {
                // Writing to a string does not fail.
                let _ = write!(text, ":{line}");
            }
            text.push_str(": ");
        }
        if !key.is_empty() {
            text.push_str(key);
            text.push_str(": ");
        }
        text.push_str(message);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line() {
        let all = [
            problem("a/b/values.yaml", 3, "postgresqlDatabases[0].mode", "no"),
            problem("a\nb", 0, "", "is not \u{1b}[31m read"),
            problem("", 0, "", "all of it"),
        ];
        assert_eq!(
            render_problems(&all),
            "a/b/values.yaml:3: postgresqlDatabases[0].mode: no\na\\nb: is not \\u{1b}[31m read\nall of it\n"
        );
        assert_eq!(problem("", 0, "", &"x".repeat(9000)).message.chars().count(), MAX_CHARS + 1);
    }
}
