//! `sessile run`: starts the balancer, with a configuration file or with the arguments alone.
//!
//! Serves nothing itself: `main` gets the [`ConfigSource`]. Invariant: `--print-config` prints the text that would be
//! served, if it would be accepted by a process that can write the folders that it names.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::one_line::OneLine;
use super::own_places::DEFAULT_FILE;
use super::{CommandError, load};
use crate::server::{self, ArgumentText, ConfigSource, RunOptions};

/// Arguments of `sessile run`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "sessile run [-c FILE]\n       sessile run --listen ADDRESS --backend ADDRESS... [OPTIONS]")]
pub(super) struct Run {
    /// The configuration file to serve [default: /etc/sessile/sessile.toml].
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Forget what the process before has kept: drains by command, orders and ejections.
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    one_line: OneLine,
    /// Print the configuration file that the arguments stand for, and exit.
    #[arg(long, requires = "listen", help_heading = OneLine::HEADING)]
    print_config: bool,
}

impl Run {
    /// The arguments that stand for a file.
    #[cfg(test)]
    pub(super) fn one_line(&self) -> &OneLine {
        &self.one_line
    }

    /// True if the command only prints.
    pub(super) fn prints(&self) -> bool {
        self.print_config
    }

    pub(super) fn options(&self) -> RunOptions {
        RunOptions { fresh: self.fresh }
    }

    /// The configuration to serve.
    pub(super) fn source(&self) -> Result<ConfigSource, CommandError> {
        if self.one_line.is_used() {
            return Ok(ConfigSource::Arguments(Arc::new(self.one_line.compose()?)));
        }
        match &self.config {
            Some(file) => Ok(ConfigSource::File(file.clone())),
            None => default_file(Path::new(DEFAULT_FILE)),
        }
    }

    /// Prints the text that the arguments stand for; an error names every argument with a problem.
    pub(super) fn print(&self, out: &mut impl Write) -> Result<u8, CommandError> {
        let composed = Arc::new(self.one_line.compose()?);
        let of_thread = Arc::clone(&composed);
        load::in_time(move || server::examine_for_another(of_thread.text()))?
            .map_err(|problems| refused(&composed, &problems))?;
        out.write_all(composed.text().as_bytes())?;
        Ok(0)
    }
}

fn refused(composed: &ArgumentText, problems: &[crate::config::Problem]) -> CommandError {
    let lines: Vec<_> = problems.iter().map(|problem| composed.at_argument(problem)).collect();
    CommandError::Usage(lines.join("\nsessile: "))
}

/// The file that is served if none is named; where it does not exist, the error shows how to start without one.
fn default_file(file: &Path) -> Result<ConfigSource, CommandError> {
    match file.try_exists() {
        Ok(false) => Err(CommandError::Usage(format!(
            "{}: there is no such file; name one with -c FILE, or serve without a file: \
             sessile run --listen 8080 --backend 127.0.0.1:9000",
            file.display()
        ))),
        _ => Ok(ConfigSource::File(file.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_file_that_is_not_there_is_an_error_with_a_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sessile.toml");
        let refused = default_file(&file).unwrap_err().to_string();
        assert!(refused.starts_with(&format!("{}: there is no such file", file.display())), "{refused}");
        assert!(refused.contains("-c FILE") && refused.contains("--listen 8080"), "{refused}");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(default_file(&file), Ok(ConfigSource::File(found)) if found == file));
    }
}
