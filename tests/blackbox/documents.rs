//! Every command in the documents works.
//!
//! A block of commands (```` ```sh ````, or ```` ```console ```` of which the lines with `$ ` are the commands) is preceded by a
//! comment, which readers do not see:
//!
//! - `<!-- run -->`: it is run here. The blocks of a document run one after the other in one bash with `set -euo pipefail`, on a
//!   terminal, in an empty folder, with `pgtenant` on PATH; see [`crate::stage`] for what is around them.
//! - `<!-- not run: REASON -->`: it can not be run here, as `make run` itself.
//! - `<!-- file: PATH -->` before any other block: the block is written to that file when its turn comes.

use std::fs;
use std::path::PathBuf;

use pgtenant_tests::repository;

use crate::stage::Stage;

/// What a document wants to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Block {
    Run { line: usize, script: String },
    File { path: String, text: String },
    Skip,
}

fn documents() -> Vec<PathBuf> {
    let docs = fs::read_dir(repository().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    all.extend(["README.md", "CONTRIBUTING.md"].map(|name| repository().join(name)));
    all.sort();
    all
}

/// The blocks of a document, and the lines of those that want a comment and have none.
fn blocks(text: &str) -> (Vec<Block>, Vec<usize>) {
    let (mut blocks, mut unmarked) = (Vec::new(), Vec::new());
    let mut lines = text.lines().enumerate();
    let mut mark = "";
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.trim().strip_prefix("```") else {
            mark = if line.trim().is_empty() { mark } else { line.trim() };
            continue;
        };
        let body: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```").collect();
        let comment = mark.strip_prefix("<!-- ").and_then(|mark| mark.strip_suffix(" -->")).unwrap_or_default();
        let commands = ["sh", "bash", "console"].contains(&language);
        let prompt = if language == "console" { "$ " } else { "" };
        if comment == "run" {
            // What is not typed stays an empty line, so that lines can be counted.
            let typed: Vec<&str> = body.iter().map(|line| line.strip_prefix(prompt).unwrap_or_default()).collect();
            blocks.push(Block::Run { line: number + 1, script: typed.join("\n") });
        } else if let Some(path) = comment.strip_prefix("file: ") {
            blocks.push(Block::File { path: path.to_owned(), text: body.join("\n") });
        } else if comment.starts_with("not run: ") {
            blocks.push(Block::Skip);
        } else if commands {
            unmarked.push(number + 1);
        }
        mark = "";
    }
    (blocks, unmarked)
}

#[test]
fn blocks_are_read_with_their_comments() {
    let text = "<!-- run -->\n\n```console\n$ one\nits output\n$ two\n```\n<!-- file: /etc/x -->\n```toml\na = 1\n```\n\
                <!-- not run: no -->\n```sh\nmake\n```\n```json\n{}\n```\ntext\n```sh\nforgotten\n```\n";
    let (blocks, unmarked) = blocks(text);
    let run = Block::Run { line: 3, script: "one\n\ntwo".to_owned() };
    let file = Block::File { path: "/etc/x".to_owned(), text: "a = 1".to_owned() };
    assert_eq!(blocks, [run, file, Block::Skip]);
    assert_eq!(unmarked, [20]);
}

#[test]
fn every_block_of_commands_says_whether_it_is_run() {
    let mut missing = Vec::new();
    for path in documents() {
        let (_, unmarked) = blocks(&fs::read_to_string(&path).unwrap());
        missing.extend(unmarked.iter().map(|line| format!("{}:{line}", path.display())));
    }
    assert!(missing.is_empty(), "put `<!-- run -->` or `<!-- not run: REASON -->` before:\n{}", missing.join("\n"));
}

/// It takes its time, and no part of what other documents need.
const LABS: &str = "failover.md";

#[tokio::test]
async fn every_command_of_fail_over_works() {
    let text = fs::read_to_string(repository().join("docs").join(LABS)).unwrap();
    Stage::of_a_lab().run(LABS, &blocks(&text).0).await.unwrap_or_else(|said| panic!("{said}"));
}

#[tokio::test]
async fn every_command_that_is_marked_works() {
    let mut failed = Vec::new();
    for path in documents() {
        let (blocks, _) = blocks(&fs::read_to_string(&path).unwrap());
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == LABS || !blocks.iter().any(|block| matches!(block, Block::Run { .. })) {
            continue;
        }
        let stage = match name.as_str() {
            "operators.md" => Stage::of_an_operator().await,
            "kubernetes.md" => Stage::of_kubernetes().await,
            _ => Stage::of_a_developer().await,
        };
        if let Err(said) = stage.run(&name, &blocks).await {
            failed.push(said);
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
