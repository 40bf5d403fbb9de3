//! What a dependency on the toolkit costs before anything runs: crates, and a build from nothing.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::report::say;

/// What an application on PostgreSQL has in any case.
const SQLX: &str = r#"sqlx = { version = "0.9", default-features = false, features = ["runtime-tokio", "postgres"] }"#;

const BUILDS: usize = 2;

/// Builds both in turns, in directories of their own, with the versions of the workspace's lock file.
pub fn compare() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let toolkit = format!(
        "{SQLX}\neffectively = {{ path = {:?}, features = [\"postgres\"] }}",
        workspace.join("runtime")
    );
    let plain = Application::new(&workspace, SQLX);
    let ours = Application::new(&workspace, &toolkit);
    let (plain_crates, our_crates) = (plain.crates(), ours.crates());
    let mut fastest = [Duration::MAX; 2];
    for _ in 0..BUILDS {
        for (application, fastest) in [&plain, &ours].into_iter().zip(&mut fastest) {
            *fastest = application.build().min(*fastest);
        }
    }
    say(format_args!(
        "\nFrom nothing, debug profile, the faster of {BUILDS} builds each; crates without dev-dependencies"
    ));
    for (name, crates, took) in [
        (
            "sqlx with postgres and runtime-tokio",
            &plain_crates,
            fastest[0],
        ),
        (
            "effectively with postgres, and that",
            &our_crates,
            fastest[1],
        ),
    ] {
        say(format_args!(
            "  {name:<38}{:>5} crates{:>8.1} s",
            crates.len(),
            took.as_secs_f64()
        ));
    }
    let added: Vec<_> = our_crates
        .difference(&plain_crates)
        .map(String::as_str)
        .collect();
    say(format_args!("  added: {}", added.join(", ")));
}

struct Application {
    directory: TempDir,
}

impl Application {
    fn new(workspace: &Path, dependencies: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let manifest = format!(
            "[package]\nname = \"application\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n{dependencies}\n"
        );
        fs::write(directory.path().join("Cargo.toml"), manifest).expect("a manifest");
        fs::create_dir(directory.path().join("src")).expect("a directory");
        fs::write(directory.path().join("src/lib.rs"), "").expect("a source");
        fs::copy(
            workspace.join("Cargo.lock"),
            directory.path().join("Cargo.lock"),
        )
        .expect("a lock file");
        let application = Self { directory };
        application.cargo(&["fetch"]);
        application
    }

    fn crates(&self) -> BTreeSet<String> {
        let tree = self.cargo(&[
            "tree", "--edges", "no-dev", "--prefix", "none", "--format", "{p}",
        ]);
        // `name v1.2.3 (proc-macro)`: the name and the version. The first line is the application itself.
        let name = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        tree.lines()
            .skip(1)
            .filter(|line| !line.is_empty())
            .map(name)
            .collect()
    }

    fn build(&self) -> Duration {
        let target = self.directory.path().join("target");
        if target.exists() {
            fs::remove_dir_all(&target).expect("an empty target directory");
        }
        let begun = Instant::now();
        self.cargo(&["build", "--offline"]);
        begun.elapsed()
    }

    fn cargo(&self, words: &[&str]) -> String {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let run = Command::new(cargo)
            .args(words)
            .current_dir(self.directory.path())
            .env("CARGO_TARGET_DIR", self.directory.path().join("target"))
            .env_remove("RUSTFLAGS")
            .stderr(Stdio::piped())
            .output()
            .expect("cargo");
        assert!(
            run.status.success(),
            "cargo {words:?}: {}",
            String::from_utf8_lossy(&run.stderr)
        );
        String::from_utf8_lossy(&run.stdout).into_owned()
    }
}
