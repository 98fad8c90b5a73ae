//! What changes from run to run: the program's command line, the files put into
//! the guest and the scripts that run there, in one tar file on a disk of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::cache::{make_dir, remove_dir, write};
use super::error::{Error, Result, Trying};
use super::tool::{run, succeeds, tool};

/// A file or directory of the host and its place in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// On the host.
    pub host: PathBuf,
    /// In the guest, absolute.
    pub guest: PathBuf,
}

impl FromStr for Put {
    type Err = Error;

    /// `HOST[:GUEST]`; without a place it goes into `/root`, with a place that ends
    /// in a slash into that directory.
    fn from_str(text: &str) -> Result<Self> {
        let (host, guest) = text.rsplit_once(':').unwrap_or((text, "/root/"));
        let name = Path::new(host).file_name();
        let name = name.ok_or_else(|| Error::Argument(format!("{text:?} names no file")))?;
        if !guest.starts_with('/') {
            let problem = format!("{text:?}: the place in the guest must be absolute");
            return Err(Error::Argument(problem));
        }
        let guest = if guest.ends_with('/') {
            Path::new(guest).join(name)
        } else {
            guest.into()
        };
        Ok(Self {
            host: host.into(),
            guest,
        })
    }
}

/// Which program is the guest's first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Init {
    /// A script of ours: nothing else runs.
    #[default]
    Plain,
    /// The script and `systemd-udevd`.
    Udev,
    /// systemd; the program starts after `multi-user.target`.
    Systemd,
}

/// Everything that goes into the payload.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    /// Program and arguments.
    pub program: Vec<String>,
    /// Variables for it.
    pub environment: Vec<(String, String)>,
    /// Files.
    pub puts: Vec<Put>,
    /// First program.
    pub init: Init,
    /// Whether `/results` is sent back.
    pub results: bool,
    /// Extra disks, for `/dev/guest/diskN`.
    pub disks: usize,
    /// Rows and columns of the terminal; the program gets it instead of the ports.
    pub terminal: Option<(u16, u16)>,
}

impl Payload {
    /// Writes the tar file at `file`, staged in the directory `work`.
    ///
    /// # Errors
    /// If a file to be put is not there, or a step fails.
    pub fn build(&self, work: &Path, file: &Path) -> Result {
        remove_dir(work)?;
        let own = work.join(".guest");
        make_dir(&own)?;
        script(&own.join("init"), include_str!("inside/init.sh"))?;
        script(&own.join("run"), include_str!("inside/run.sh"))?;
        script(&own.join("program"), &self.program_script())?;
        write(&own.join("conf"), self.configuration())?;
        let bin = work.join("usr/local/bin");
        make_dir(&bin)?;
        script(
            &bin.join("guest-power-cut"),
            include_str!("inside/power-cut.sh"),
        )?;
        let units = work.join("etc/systemd/system");
        make_dir(&units)?;
        let service = include_str!("inside/guest-program.service");
        write(&units.join("guest-program.service"), service)?;
        write(
            &units.join("guest.target"),
            include_str!("inside/guest.target"),
        )?;
        for put in &self.puts {
            copy(put, work)?;
        }
        let mut tar = tool("tar");
        tar.args(["--owner=0", "--group=0", "--numeric-owner", "-C"]);
        run(tar.arg(work).arg("-cf").arg(file).arg("."))?;
        remove_dir(work)
    }

    fn program_script(&self) -> String {
        let mut text = String::from("#!/bin/bash\n");
        for (name, value) in &self.environment {
            text.push_str(&format!("export {name}={}\n", quoted(value)));
        }
        let words: Vec<String> = self.program.iter().map(|word| quoted(word)).collect();
        text.push_str(&format!("exec -- {}\n", words.join(" ")));
        text
    }

    fn configuration(&self) -> String {
        let (first, mode) = match self.init {
            Init::Plain => ("/.guest/init", "plain"),
            Init::Udev => ("/.guest/init", "udev"),
            Init::Systemd => ("/usr/lib/systemd/systemd", "systemd"),
        };
        let (rows, columns) = self.terminal.unwrap_or((24, 80));
        format!(
            "GUEST_PID1={first}\nGUEST_MODE={mode}\nGUEST_GET={}\nGUEST_DISKS={}\n\
             GUEST_TTY={}\nGUEST_ROWS={rows}\nGUEST_COLUMNS={columns}\n",
            u8::from(self.results),
            self.disks,
            u8::from(self.terminal.is_some()),
        )
    }
}

/// A word as bash reads it back unchanged.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn script(path: &Path, text: &str) -> Result {
    write(path, text)?;
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(path, mode).trying(|| format!("make {} executable", path.display()))
}

fn copy(put: &Put, work: &Path) -> Result {
    let host = fs::canonicalize(&put.host).trying(|| format!("find {}", put.host.display()))?;
    let inside = put.guest.strip_prefix("/").unwrap_or(&put.guest);
    let place = work.join(inside);
    if let Some(above) = place.parent() {
        make_dir(above)?;
    }
    if is_program(&host) {
        // Debug information is most of a program and of no use in there.
        let mut strip = tool("strip");
        strip.arg("--strip-debug").arg("-o").arg(&place).arg(&host);
        if succeeds(&mut strip)? {
            return Ok(());
        }
    }
    run(tool("cp").arg("-aT").arg(&host).arg(&place)).map(drop)
}

fn is_program(path: &Path) -> bool {
    let mut start = [0; 4];
    let read = fs::File::open(path).and_then(|mut f| std::io::Read::read_exact(&mut f, &mut start));
    path.is_file() && read.is_ok() && start == *b"\x7fELF"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_says_where_it_goes() {
        let guest = |text: &str| text.parse::<Put>().unwrap().guest;
        assert_eq!(guest("target/release/csnapd"), Path::new("/root/csnapd"));
        assert_eq!(guest("a:/usr/local/bin/"), Path::new("/usr/local/bin/a"));
        assert_eq!(guest("x/a:/etc/b"), Path::new("/etc/b"));
        assert!("a:relative".parse::<Put>().is_err());
        assert!("/".parse::<Put>().is_err());
    }

    #[test]
    fn words_survive_the_shell() {
        let words = [
            "plain",
            "two words",
            "it's",
            "$HOME `x` \"y\" \\",
            "",
            "ä\nb",
        ];
        let payload = Payload {
            program: [&["printf", "%s|"], &words[..]]
                .concat()
                .into_iter()
                .map(str::to_owned)
                .collect(),
            environment: vec![("ODD".into(), "it's $1".into())],
            ..Payload::default()
        };
        let mut bash = tool("bash");
        let shown = run(bash.arg("-c").arg(payload.program_script())).unwrap();
        assert_eq!(shown, format!("{}|", words.join("|")));
        assert!(
            payload
                .program_script()
                .contains(r"export ODD='it'\''s $1'")
        );
    }
}
