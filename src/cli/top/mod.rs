//! `sessile top`: what the running process does now, drawn again and again in a terminal, or once as text or JSON.
//!
//! Asks the admin socket for the views that other commands show, and adds rates to them: `reading` asks, `model` computes,
//! `rows` and `view` are the list and the place in it, `draw` makes lines of text, `screen` owns the terminal. Invariants:
//! the process is asked once in an interval, and not at all while the display is paused; no text of the process reaches
//! the terminal before `draw::cells` has made it harmless.

#[cfg(feature = "top")]
mod draw;
#[cfg(feature = "top")]
mod keys;
#[cfg(feature = "top")]
mod model;
#[cfg(feature = "top")]
mod reading;
#[cfg(feature = "top")]
mod rows;
#[cfg(feature = "top")]
mod screen;
#[cfg(feature = "top")]
#[cfg(test)]
mod tests;
#[cfg(feature = "top")]
mod view;

use std::io::Write;

use super::CommandError;
use super::load::RunningProcess;

/// Arguments of `sessile top`.
#[derive(Debug, clap::Args)]
#[cfg_attr(not(feature = "top"), allow(dead_code, reason = "a binary without the feature reads no argument"))]
pub(super) struct TopArgs {
    #[command(flatten)]
    running: RunningProcess,
    /// Seconds from one look at the process to the next.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    interval: u64,
    /// Print one picture as text and end, after two looks at the process; the default where standard output is no terminal.
    #[arg(long)]
    once: bool,
    /// Print one picture as one JSON object and end, after two looks at the process.
    #[arg(long, conflicts_with = "once")]
    json: bool,
}

#[cfg(feature = "top")]
impl TopArgs {
    /// Shows the process until a key ends it, or prints it once.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<u8, CommandError> {
        use std::io::IsTerminal as _;

        let interval = std::time::Duration::from_secs(self.interval);
        let mut asker = reading::Asker::new(self.running.socket()?);
        let mut model = model::Model::default();
        model.take(asker.ask()?);
        if !self.once && !self.json && std::io::stdout().is_terminal() {
            let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            screen::show(asker, model, interval, draw::Look { colours: !no_colour })?;
            return Ok(0);
        }
        std::thread::sleep(interval);
        model.take(asker.ask()?);
        if self.json {
            super::print_json(out, &model)?;
        } else {
            draw::text(&model).iter().try_for_each(|line| writeln!(out, "{line}"))?;
        }
        Ok(0)
    }
}

#[cfg(not(feature = "top"))]
impl TopArgs {
    /// Says that this binary cannot do it.
    pub(super) fn run(&self, _out: &mut impl Write) -> Result<u8, CommandError> {
        Err(CommandError::Usage("top: this sessile was built without its feature `top`".to_owned()))
    }
}
