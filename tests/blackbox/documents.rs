//! Every command in the documents works.
//!
//! A block of commands (```` ```sh ```` or ```` ```console ````, of which the lines with `$ ` are the commands) is preceded
//! by a comment, which readers do not see:
//!
//! - `<!-- run -->`: it is run here. The blocks of a document run one after the other in one bash with `set -euo pipefail`, in an
//!   empty folder, with `pgtenant` on PATH. They find a running `pgtenant dev`: `DIR` is its folder, and the lines of `DIR/env`
//!   are read. The guide for operators has a cluster of its own instead.
//! - `<!-- not run: REASON -->`: it can not be run here, as `make run` itself.
//! - `<!-- file: PATH -->` before any block: a file with this content is there for what follows.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use pgtenant_testkit::free_port;
use pgtenant_tests::{Cli, Dev, Folder, Own, binary, repository};
use secrecy::ExposeSecret as _;

/// A document's commands take some ten seconds on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a comment says of the block behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mark {
    Run,
    NotRun,
    File(String),
    None,
}

impl Mark {
    fn of(line: &str) -> Self {
        let inner = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
        match inner {
            Some("run") => Self::Run,
            Some(text) if text.starts_with("not run: ") => Self::NotRun,
            Some(text) => text.strip_prefix("file: ").map_or(Self::None, |path| Self::File(path.to_owned())),
            None => Self::None,
        }
    }
}

/// A fenced block; lines are counted from 0.
struct Block<'a> {
    mark: Mark,
    language: &'a str,
    fence: usize,
    body: Vec<&'a str>,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let (mut blocks, mut mark) = (Vec::new(), Mark::None);
    let mut lines = text.lines().enumerate();
    while let Some((fence, line)) = lines.next() {
        if let Some(language) = line.trim().strip_prefix("```") {
            let body = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```").collect();
            blocks.push(Block { mark: std::mem::replace(&mut mark, Mark::None), language, fence, body });
        } else if !line.trim().is_empty() {
            mark = Mark::of(line.trim());
        }
    }
    blocks
}

fn documents() -> Vec<PathBuf> {
    let docs = fs::read_dir(repository().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    all.push(repository().join("README.md"));
    all.push(repository().join("CONTRIBUTING.md"));
    all.sort();
    all
}

/// A script in which each command has the line that it has in the document. `preamble` takes the first, which is the title.
fn script(text: &str, preamble: &str) -> String {
    let mut lines = vec![String::new(); text.lines().count() + 1];
    lines[0] = preamble.replace('\n', "; ");
    for Block { mark, language, fence, body } in blocks(text) {
        match mark {
            Mark::Run => {
                for (index, line) in body.iter().enumerate() {
                    let command = if language == "console" { line.strip_prefix("$ ") } else { Some(*line) };
                    lines[fence + 1 + index] = command.unwrap_or_default().to_owned();
                }
            }
            Mark::File(path) => {
                lines[fence] = format!("mkdir -p \"$(dirname '{path}')\"; cat > '{path}' <<'END_OF_THE_FILE'");
                for (index, line) in body.iter().enumerate() {
                    lines[fence + 1 + index] = (*line).to_owned();
                }
                lines[fence + 1 + body.len()] = "END_OF_THE_FILE".to_owned();
            }
            Mark::NotRun | Mark::None => {}
        }
    }
    lines.join("\n")
}

/// Runs a script to its end; the error has the document, the line, the command and what was said.
async fn bash(cli: &Cli, document: &str, text: &str, folder: &Path) -> Result<(), String> {
    fs::create_dir(folder.join("bin")).unwrap();
    fs::create_dir(folder.join("work")).unwrap();
    symlink(binary(), folder.join("bin/pgtenant")).unwrap();
    fs::write(folder.join("script"), text).unwrap();
    let mut command: Command = cli.command_of("bash".as_ref(), &[]);
    let search = format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").unwrap());
    command.arg(folder.join("script")).current_dir(folder.join("work"));
    command.env("PATH", search).env("HOME", folder).env("DOCUMENT", document).stdin(Stdio::null());
    let mut command = tokio::process::Command::from(command);
    let output = tokio::time::timeout(PATIENCE, command.kill_on_drop(true).output()).await;
    let output = output.map_err(|_| format!("{document}: not done after {PATIENCE:?}"))?.unwrap();
    if output.status.success() {
        return Ok(());
    }
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let tail =
        |text: &str| text.lines().rev().take(60).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
    let place = err.lines().rfind(|line| line.starts_with(document)).unwrap_or(document);
    Err(format!("{place}\nended with {}\nstdout:\n{}\nstderr:\n{}", output.status, tail(&out), tail(&err)))
}

/// Stops at the first command that fails, and says which: the line is that of the document, in a function that of its call.
const STRICT: &str = "set -Eeuo pipefail; trap 'n=${#BASH_LINENO[@]}; \
    echo \"$DOCUMENT:$((n > 1 ? BASH_LINENO[n - 2] : LINENO)): $BASH_COMMAND\" >&2' ERR";

fn name_of(path: &Path) -> String {
    path.strip_prefix(repository()).unwrap().display().to_string()
}

#[test]
fn every_block_of_commands_says_whether_it_is_run() {
    let mut missing = Vec::new();
    for path in documents() {
        for Block { mark, language, fence, .. } in blocks(&fs::read_to_string(&path).unwrap()) {
            if ["sh", "bash", "console"].contains(&language) && mark == Mark::None {
                missing.push(format!("{}:{}", path.display(), fence + 1));
            }
        }
    }
    assert!(missing.is_empty(), "put `<!-- run -->` or `<!-- not run: REASON -->` before:\n{}", missing.join("\n"));
}

#[test]
fn a_script_has_the_lines_of_its_document() {
    let text = "# Title\n\n<!-- run -->\n```console\n$ one\nsaid\n$ two\n```\n<!-- file: /a/b -->\n```toml\nx = 1\n```\n```sh\nno\n```\n";
    let script = script(text, "first\nsecond");
    let lines: Vec<&str> = script.lines().collect();
    assert_eq!((lines[0], lines[4], lines[5], lines[6]), ("first; second", "one", "", "two"));
    assert_eq!((lines[10], lines[11]), ("x = 1", "END_OF_THE_FILE"));
    assert!(!script.contains("no\n"));
}

/// A development environment of their own: others break its apps folder.
#[tokio::test]
async fn every_command_that_is_marked_works() {
    let dev = Dev::fresh().await;
    dev.api().is_ready("demo", "orders").await;
    let cli = dev.cli().env("DIR", &dev.dir);
    let mut failed = Vec::new();
    for path in documents().iter().filter(|path| !path.ends_with("operators.md")) {
        let text = fs::read_to_string(path).unwrap();
        if blocks(&text).iter().any(|block| block.mark == Mark::Run) {
            let (folder, name) = (Folder::new("documents"), name_of(path));
            let text = script(&text, &format!("{STRICT}; . \"$DIR/env\""));
            failed.extend(bash(&cli, &name, &text, folder.path()).await.err());
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// Before the commands of the guide for operators: `pgtenant serve` goes on behind what follows, and `systemctl restart pgtenant`
/// starts it again.
const SERVE: &str = r#"
served=
serve() { setpriv --pdeathsig KILL -- "$PGTENANT" "${again[@]}" >> serve.log 2>&1 & served=$!; until grep -q '"observedAt":"' <(curl -sf -H "Authorization: Bearer $(cat ETC/operator.token)" http://ADDRESS/v1/clusters/default/preflight); do kill -0 $served; sleep 0.1; done; }
pgtenant() { if [ "$1" = serve ]; then again=("$@"); serve; else command pgtenant "$@"; fi; }
systemctl() { kill $served; wait $served || true; serve; }
trap '[ -z "$served" ] || kill -KILL $served' EXIT
mkdir -p ETC; cp "$CA" ETC/ca.crt"#;

/// It finds a cluster that nothing was done to, and a superuser. `/etc/pgtenant`, `/var/lib/pgtenant` and `/srv` are folders of the
/// test, all hosts of the guide are this cluster, and REST is on a free port.
#[tokio::test]
async fn the_guide_for_operators_works() {
    let own = Own::start(false, &[]).await;
    let place = own.place();
    let folder = Folder::new("operators");
    let address = format!("127.0.0.1:{}", free_port());
    let etc = folder.join("etc").display().to_string();
    let path = repository().join("docs/operators.md");
    let preamble = format!("{STRICT}\n{}", SERVE.trim());
    let mut text =
        script(&fs::read_to_string(&path).unwrap(), &preamble).replace("ETC", &etc).replace("ADDRESS", &address);
    let (host, port) = place.hosts[0].split_once(':').unwrap();
    for name in ["db1.example", "db2.example", "ledger.example"] {
        text = text.replace(&format!("{name}:5432"), &place.hosts[0]);
        text = text.replace(&format!("host={name} port=5432"), &format!("host={host} port={port}"));
    }
    for (before, after) in [("/etc/pgtenant", "etc"), ("/var/lib/pgtenant", "lib"), ("/srv/", "srv/")] {
        text = text.replace(before, &folder.join(after).display().to_string());
    }
    text = text.replace("127.0.0.1:8080", &address);
    let cli = Cli::new()
        .env("PGPASSWORD", own.cluster.superuser_password().expose_secret())
        .env("PGTENANT", binary())
        .env("CA", &place.ca);
    if let Err(problem) = bash(&cli, "docs/operators.md", &text, folder.path()).await {
        let log = fs::read_to_string(folder.join("work/serve.log")).unwrap_or_default();
        panic!("{problem}\nthe control plane's log:\n{log}");
    }
    // What the guide promises of these commands.
    let log = fs::read_to_string(folder.join("work/serve.log")).unwrap();
    assert!(!log.contains("DriftRepaired"), "another login of the provisioner changes nothing: {log}");
    let files = pgtenant_tests::files_below(&folder.join("lib/store/secrets"));
    assert_eq!(files.iter().filter(|file| file.ends_with(".json")).count(), 6, "{files:?}");
    let script = fs::read_to_string(folder.join("work/bootstrap.sql")).unwrap();
    for file in ["prov_a.password", "prov_b.password"] {
        let password = fs::read_to_string(folder.join("etc").join(file)).unwrap();
        assert!(password.trim().len() == 40 && !script.contains(password.trim()));
    }
}
