//! What every verb needs of its surroundings: where results and complaints go,
//! whether a person is there to be asked, and the daemon.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ublk_target::control::client::Client;
use ublk_target::control::protocol::{Answer, ErrorCode, Failure, Request};

use crate::Done;
use crate::cli::{Cli, Consent};
use crate::output::{Style, table};

/// How long a connection to the daemon is used again; csnapd hangs up on who says nothing
/// for two minutes.
const FRESH: Duration = Duration::from_secs(30);

/// The surroundings of one command.
pub struct Session {
    /// How results are printed.
    pub style: Style,
    /// The daemon's run directory.
    pub run_dir: PathBuf,
    out: Box<dyn Write>,
    client: Option<Client>,
    /// When the daemon answered last.
    answered: Instant,
    closed: bool,
}

impl Session {
    /// The surroundings of this process.
    #[must_use]
    pub fn of_process(cli: &Cli) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self {
            style: Style::of(&cli.common, terminal),
            run_dir: cli.common.run_dir.clone(),
            out: Box::new(io::BufWriter::new(stdout)),
            client: None,
            answered: Instant::now(),
            closed: false,
        }
    }

    /// Connects to the daemon.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn connect(&mut self) -> Done {
        if self.client.is_none() {
            self.client = Some(Client::connect(&self.run_dir)?);
        }
        Ok(())
    }

    /// Asks the daemon, connecting first if needed.
    ///
    /// # Errors
    /// What the daemon answered, or that it cannot be reached.
    pub fn call(&mut self, request: Request) -> Done<Answer> {
        let fresh = self.answered.elapsed() < FRESH;
        let client = match self.client.take().filter(|_| fresh) {
            Some(client) => client,
            None => Client::connect(&self.run_dir)?,
        };
        let answer = self.client.insert(client).call(request);
        self.answered = Instant::now();
        answer
    }

    /// Every item of an answer that comes page by page. `request` asks for the page that
    /// begins where it is told; `page` takes one, and where the next begins.
    ///
    /// # Errors
    /// As [`Self::call`], and those of `page`.
    pub fn pages<T, P>(
        &mut self,
        request: impl Fn(Option<P>) -> Request,
        page: impl Fn(Answer) -> Done<(Vec<T>, Option<P>)>,
    ) -> Done<Vec<T>> {
        let (mut all, mut next) = page(self.call(request(None))?)?;
        while next.is_some() {
            let (items, after) = page(self.call(request(next))?)?;
            all.extend(items);
            next = after;
        }
        Ok(all)
    }

    /// Prints a list in the chosen style.
    ///
    /// # Errors
    /// An unknown field, or stdout cannot be written.
    pub fn print<T: table::Row>(&mut self, items: &[T]) -> Done {
        let text = table::list(items, &self.style)?;
        self.write(&text)
    }

    /// Refuses a wrong `-o` for what is printed when the work is done, before it is
    /// begun.
    ///
    /// # Errors
    /// As [`Self::print`].
    pub fn check_fields<T: table::Row>(&self) -> Done {
        table::list::<T>(&[], &self.style).map(drop)
    }

    /// Prints everything about each item.
    ///
    /// # Errors
    /// As [`Self::print`].
    pub fn show<T: table::Row>(&mut self, items: &[T]) -> Done {
        let text = table::show(items, &self.style)?;
        self.write(&text)
    }

    /// Writes text to stdout at once.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn write(&mut self, text: &str) -> Done {
        let written = self
            .out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.flush());
        written.map_err(|error| {
            self.closed = error.kind() == io::ErrorKind::BrokenPipe;
            Failure::new(
                ErrorCode::Error,
                format!("cannot write to standard output: {error}"),
            )
        })
    }

    /// Whether the reader of stdout went away, as `head` does: no reason to
    /// complain.
    #[must_use]
    pub fn stdout_closed(&self) -> bool {
        self.closed
    }

    /// Tells a person something that is not the result.
    pub fn say(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Tells what went wrong and what to do.
    pub fn complain(&self, failure: &Failure) {
        self.say(&format!("csnapctl: {}", failure.message));
        if let Some(next) = &failure.next {
            self.say(&format!("  next: {next}"));
        }
    }

    /// Says what is about to go and asks for consent. `Ok(false)` after a dry run.
    ///
    /// # Errors
    /// [`ErrorCode::Usage`] when nobody can be asked, [`ErrorCode::Error`] when the
    /// answer is no.
    pub fn confirm(&self, consent: Consent, what: &str) -> Done<bool> {
        if consent.dry_run {
            self.say(what);
            self.say("Nothing was done (--dry-run).");
            return Ok(false);
        }
        if consent.yes {
            return Ok(true);
        }
        self.say(what);
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            let message = "this needs consent, and there is no terminal to ask on";
            return Err(Failure::new(ErrorCode::Usage, message)
                .next("add --yes to do it, or --dry-run to see what would be done"));
        }
        let _ = write!(io::stderr(), "Go on? [y/N] ");
        let mut answer = String::new();
        let _ = io::stdin().lock().read_line(&mut answer);
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(true),
            _ => Err(Failure::new(ErrorCode::Error, "nothing was done")),
        }
    }
}
