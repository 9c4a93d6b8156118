//! A change as `git apply` and `patch` read it.

use similar::TextDiff;

/// The difference of two texts of one file as a unified diff; nothing where there is none.
pub(crate) fn unified(path: &str, before: &str, after: &str) -> String {
    if before == after {
        return String::new();
    }
    let diff = TextDiff::from_lines(before, after);
    let (old, new) = (name("a", path), name("b", path));
    diff.unified_diff().context_radius(3).header(&old, &new).to_string()
}

/// A name as git writes it: in quotes where it has to be, and with a tab where it would not be seen to end.
fn name(side: &str, path: &str) -> String {
    let special = |c: char| c.is_control() || c == '"' || c == '\\';
    if path.contains(special) {
        let mut quoted = format!("\"{side}/");
        for c in path.chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                c if c.is_control() => {
                    let mut buffer = [0; 4];
                    quoted.extend(c.encode_utf8(&mut buffer).bytes().map(|byte| format!("\\{byte:03o}")));
                }
                c => quoted.push(c),
            }
        }
        return quoted + "\"";
    }
    let end = if path.contains(' ') { "\t" } else { "" };
    format!("{side}/{path}{end}")
}
