//! Writes what is generated: `cargo run -p xtask -- openapi [--check]`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo run -p xtask -- openapi [--check]

  openapi   write openapi/openapi.json from the REST handlers
  --check   write nothing; fail when the file is not what would be written
";

/// A file that is made from the code.
struct Generated {
    path: PathBuf,
    text: String,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (task, check) = match arguments.as_slice() {
        [task] => (*task, false),
        [task, "--check"] => (*task, true),
        _ => ("", false),
    };
    let file = match task {
        "openapi" => Generated { path: PathBuf::from("openapi/openapi.json"), text: pgtenant_api::openapi_json() },
        _ => return tell(USAGE, 2),
    };
    match if check { file.check() } else { file.write() } {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => tell(&message, 1),
    }
}

impl Generated {
    fn place(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(&self.path)
    }

    fn write(&self) -> Result<(), String> {
        std::fs::write(self.place(), &self.text).map_err(|error| format!("{}: {error}\n", self.path.display()))
    }

    fn check(&self) -> Result<(), String> {
        match std::fs::read_to_string(self.place()) {
            Ok(text) if text == self.text => Ok(()),
            Ok(_) => Err(format!("{} is out of date: run `cargo run -p xtask -- openapi`\n", self.path.display())),
            Err(error) => Err(format!("{}: {error}\n", self.path.display())),
        }
    }
}

fn tell(message: &str, status: u8) -> ExitCode {
    // Nobody is left to be told when standard error is closed.
    let _ = io::stderr().write_all(message.as_bytes());
    ExitCode::from(status)
}
