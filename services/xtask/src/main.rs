//! Writes what is generated: `cargo run -p xtask -- generate [--check]`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo run -p xtask -- generate [--check]

  generate  write openapi/openapi.json from the REST handlers, and crds/ and the chart's from the resources' types
  --check   write nothing; fail when a file is not what would be written
";

/// Where the definitions of the custom resources go: for people, and for Helm.
const CRDS: [&str; 2] = ["crds", "charts/pgtenant/files/crds"];

/// A file that is made from the code.
struct Generated {
    path: PathBuf,
    text: String,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let check = match arguments.as_slice() {
        ["generate"] => false,
        ["generate", "--check"] => true,
        _ => return tell(USAGE, 2),
    };
    let done =
        generated().and_then(|files| files.iter().try_for_each(|file| if check { file.check() } else { file.write() }));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => tell(&message, 1),
    }
}

fn generated() -> Result<Vec<Generated>, String> {
    let openapi = Generated { path: PathBuf::from("openapi/openapi.json"), text: pgtenant_api::openapi_json() };
    let mut files = vec![openapi];
    for definition in pgtenant_operator::crd::definitions() {
        let name = definition.metadata.name.clone().unwrap_or_default();
        let text = serde_yaml_ng::to_string(&definition).map_err(|error| format!("{name}: {error}\n"))?;
        files.extend(
            CRDS.map(|folder| Generated { path: PathBuf::from(format!("{folder}/{name}.yaml")), text: text.clone() }),
        );
    }
    Ok(files)
}

impl Generated {
    fn place(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(&self.path)
    }

    fn write(&self) -> Result<(), String> {
        let fault = |error: std::io::Error| format!("{}: {error}\n", self.path.display());
        let place = self.place();
        place.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(fault)?;
        std::fs::write(place, &self.text).map_err(fault)
    }

    fn check(&self) -> Result<(), String> {
        match std::fs::read_to_string(self.place()) {
            Ok(text) if text == self.text => Ok(()),
            Ok(_) => Err(format!("{} is out of date: run `cargo run -p xtask -- generate`\n", self.path.display())),
            Err(error) => Err(format!("{}: {error}\n", self.path.display())),
        }
    }
}

fn tell(message: &str, status: u8) -> ExitCode {
    // Nobody is left to be told when standard error is closed.
    let _ = io::stderr().write_all(message.as_bytes());
    ExitCode::from(status)
}
