//! Packages of other suites of Debian, fetched without touching the machine's own
//! apt: a private configuration with its own sources, lists and cache. Mirror and
//! keyring come from the machine's entry, so `Release` files are verified as ever.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::cache::{Cache, make_dir, write};
use super::error::Result;
use super::sources::{Kind, Source, render};
use super::tool::{run, tool};

/// A private apt.
#[derive(Debug)]
pub struct Apt {
    config: PathBuf,
}

impl Apt {
    /// One with `suites` of the mirror only, named `name` in the cache; its lists
    /// are fetched anew.
    ///
    /// # Errors
    /// If a file cannot be written or the lists cannot be fetched.
    pub fn new(cache: &Cache, name: &str, mirror: &Source, suites: &[&str]) -> Result<Self> {
        Self::make(cache, name, render(mirror, Kind::Binary, suites), "-")
    }

    /// One with the machine's own sources and `suites` besides.
    ///
    /// # Errors
    /// As [`Apt::new`].
    pub fn beside_own(cache: &Cache, name: &str, mirror: &Source, suites: &[&str]) -> Result<Self> {
        let own = "/etc/apt/sources.list.d";
        Self::make(cache, name, render(mirror, Kind::Binary, suites), own)
    }

    /// One with what the packages of `suites` are built from.
    ///
    /// # Errors
    /// As [`Apt::new`].
    pub fn of_sources(cache: &Cache, name: &str, mirror: &Source, suites: &[&str]) -> Result<Self> {
        Self::make(cache, name, render(mirror, Kind::Source, suites), "-")
    }

    fn make(cache: &Cache, name: &str, entries: String, parts: &str) -> Result<Self> {
        let dir = cache.path("apt").join(name);
        for below in ["lists/partial", "cache/archives/partial"] {
            make_dir(&dir.join(below))?;
        }
        let sources = dir.join("guest.sources");
        write(&sources, entries)?;
        let config = dir.join("apt.conf");
        write(&config, configuration(&dir, &sources, parts))?;
        let apt = Self { config };
        run(apt.command("apt-get").arg("update"))?;
        Ok(apt)
    }

    /// Names of packages that begin so.
    ///
    /// # Errors
    /// If apt fails.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let text = run(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Downloads packages into a directory.
    ///
    /// # Errors
    /// If apt fails.
    pub fn download(&self, packages: &[String], into: &Path) -> Result {
        make_dir(into)?;
        let mut command = self.command("apt-get");
        command.arg("download").args(packages).current_dir(into);
        run(&mut command).map(drop)
    }

    /// `apt-get` or `apt-cache` with this configuration.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = tool(program);
        command
            .arg("--config-file")
            .arg(&self.config)
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

fn configuration(dir: &Path, sources: &Path, parts: &str) -> String {
    let (dir, sources) = (dir.display(), sources.display());
    // The sandbox user cannot write below a private directory.
    format!(
        "Dir::Etc::sourcelist \"{sources}\";\n\
         Dir::Etc::sourceparts \"{parts}\";\n\
         Dir::State::lists \"{dir}/lists\";\n\
         Dir::Cache \"{dir}/cache\";\n\
         Dir::Cache::archives \"{dir}/cache/archives\";\n\
         APT::Sandbox::User \"root\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         Acquire::Retries \"3\";\n"
    )
}
