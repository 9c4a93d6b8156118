//! Every command in the documents works.
//!
//! A block of commands (```` ```sh ```` or ```` ```console ````, of which the lines with `$ ` are the commands) is preceded
//! by one of two comments, which readers do not see:
//!
//! - `<!-- run -->`: it is run here. The blocks of a document run one after the other in one bash with `set -euo pipefail`, in an
//!   empty folder, with `pgtenant` on PATH, the lines of `DIR/env` of a running `pgtenant dev` read, and `DIR` set.
//! - `<!-- not run: REASON -->`: it can not be run here, as `make run` itself.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use pgtenant_tests::{Folder, binary, repository, run};

use crate::shared;

/// A block of commands in a document.
struct Block {
    line: usize,
    run: bool,
    script: String,
}

fn documents() -> Vec<PathBuf> {
    let docs = fs::read_dir(repository().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    all.push(repository().join("README.md"));
    all.push(repository().join("CONTRIBUTING.md"));
    all.sort();
    all
}

/// The blocks of a document; `Err` names those without a comment.
fn blocks(text: &str) -> Result<Vec<Block>, Vec<usize>> {
    let (mut blocks, mut unmarked) = (Vec::new(), Vec::new());
    let mut lines = text.lines().enumerate();
    let mut mark = "";
    while let Some((number, line)) = lines.next() {
        let fence = line.trim();
        if let Some(language) = fence.strip_prefix("```") {
            let body: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```").collect();
            let language = language.split_whitespace().next().unwrap_or_default();
            if !["sh", "bash", "console"].contains(&language) {
                continue;
            }
            if !mark.starts_with("<!-- run") && !mark.starts_with("<!-- not run: ") {
                unmarked.push(number + 1);
            }
            let commands = body.iter().filter_map(|line| if language == "console" { line.strip_prefix("$ ") } else { Some(*line) });
            let script = commands.collect::<Vec<_>>().join("\n");
            blocks.push(Block { line: number + 1, run: mark.starts_with("<!-- run"), script });
            mark = "";
        } else if !fence.is_empty() {
            mark = fence;
        }
    }
    if unmarked.is_empty() { Ok(blocks) } else { Err(unmarked) }
}

#[test]
fn every_block_of_commands_says_whether_it_is_run() {
    let mut missing = Vec::new();
    for path in documents() {
        if let Err(lines) = blocks(&fs::read_to_string(&path).unwrap()) {
            missing.extend(lines.iter().map(|line| format!("{}:{line}", path.display())));
        }
    }
    assert!(missing.is_empty(), "put `<!-- run -->` or `<!-- not run: REASON -->` before:\n{}", missing.join("\n"));
}

#[tokio::test]
async fn every_command_that_is_marked_works() {
    let dev = shared::dev().await;
    dev.api().is_ready("demo", "orders").await;
    let mut failed = Vec::new();
    for path in documents() {
        let Ok(blocks) = blocks(&fs::read_to_string(&path).unwrap()) else { continue };
        if !blocks.iter().any(|block| block.run) {
            continue;
        }
        let folder = Folder::new("documents");
        fs::create_dir(folder.join("bin")).unwrap();
        fs::create_dir(folder.join("work")).unwrap();
        symlink(binary(), folder.join("bin/pgtenant")).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut script = "set -euo pipefail\n. \"$DIR/env\"\n".to_owned();
        for block in blocks.iter().filter(|block| block.run) {
            script.push_str(&format!("echo '== {name}:{}' >&2\n{}\n", block.line, block.script));
        }
        let file = folder.join("script");
        fs::write(&file, script).unwrap();
        let mut bash = dev.cli().command_of("bash".as_ref(), &[]);
        let search = format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").unwrap());
        bash.arg(&file).current_dir(folder.join("work")).env("PATH", search).env("DIR", &dev.dir);
        bash.env("HOME", folder.path());
        let done = run(bash).await;
        if done.status != 0 {
            let place = done.stderr.lines().rfind(|line| line.starts_with("== ")).unwrap_or("== ?");
            failed.push(format!("{place} ended with {}\n{}\n{}", done.status, done.stdout, done.stderr));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
