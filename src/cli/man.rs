//! `sessile man`: manual pages, made from the command line and from the topics of `sessile help`.
//!
//! Section 1 has a page for every command, section 5 one for the configuration file, section 7 one for each other topic.
//! Has no text of its own. Invariant: the pages depend on the binary alone, not on the machine or the day.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::CommandFactory;
use clap_mangen::roff::{Roff, bold, roman};

use super::help::{REFERENCE, TOPICS, Topic, examples, markup, roff};
use super::{Arguments, CommandError, exit_codes};

/// What stands at the foot of every page.
const SOURCE: &str = concat!("sessile ", env!("CARGO_PKG_VERSION"));
/// No date: an argument of `.TH` that is there and empty.
const NO_DATE: &str = "\"\"";

/// Arguments of `sessile man`.
#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// Folder to write every page to, made if it is missing; without it, the page of sessile is printed.
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

impl ManArgs {
    /// Writes all pages into the folder, or prints the first one.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<u8, CommandError> {
        let pages = pages()?;
        match &self.dir {
            None => out.write_all(&pages[0].text)?,
            Some(dir) => {
                let named = |error: io::Error| CommandError::Usage(format!("{}: {error}", dir.display()));
                std::fs::create_dir_all(dir).map_err(named)?;
                pages.iter().try_for_each(|page| std::fs::write(dir.join(&page.file), &page.text)).map_err(named)?;
                writeln!(out, "{}: {} pages", dir.display(), pages.len())?;
            }
        }
        Ok(0)
    }
}

/// A manual page.
struct ManPage {
    /// Name of the file, with the section behind its last dot.
    file: String,
    text: Vec<u8>,
}

/// Every page; the first one is that of sessile itself.
fn pages() -> io::Result<Vec<ManPage>> {
    let mut whole = Arguments::command();
    whole.build(); // gives commands their names "sessile-run" and so on
    let mut pages = Vec::new();
    add_commands(&whole, &mut pages)?;
    for topic in TOPICS {
        pages.push(of_topic(topic)?);
    }
    Ok(pages)
}

fn add_commands(command: &clap::Command, pages: &mut Vec<ManPage>) -> io::Result<()> {
    pages.push(of_command(command)?);
    command.get_subcommands().filter(|below| !below.is_hide_set()).try_for_each(|below| add_commands(below, pages))
}

fn of_command(command: &clap::Command) -> io::Result<ManPage> {
    let man = clap_mangen::Man::new(command.clone()).date(NO_DATE).source(SOURCE).manual("sessile");
    let file = man.get_filename();
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut rest = Roff::new();
    // "sessile-certs-dev" of `sessile certs dev`; the page of sessile itself has all codes.
    let name = command.get_display_name().and_then(|name| name.strip_prefix("sessile-"));
    rest.control("SH", ["EXIT STATUS"]);
    roff::add(&mut rest, &markup::parse(&exit_codes::table_of(name)));
    let examples = name.map(|name| examples(&name.replace('-', " "))).unwrap_or_default();
    if !examples.is_empty() {
        rest.control("SH", ["EXAMPLES"]);
        roff::add(&mut rest, &examples);
    }
    see_also(&mut rest, &file);
    rest.to_writer(&mut text)?;
    Ok(ManPage { file, text })
}

fn of_topic(topic: &Topic) -> io::Result<ManPage> {
    let (name, section) = name_and_section(topic);
    let file = format!("{name}.{section}");
    let mut page = Roff::new();
    page.control("TH", [&*name, section, NO_DATE, SOURCE, "sessile"]);
    page.control("SH", ["NAME"]).text([roman(format!("{name} - {}", topic.about()))]);
    page.control("SH", ["DESCRIPTION"]);
    roff::add(&mut page, &topic.blocks());
    if section == "5" {
        page.control("SH", ["EVERY KEY"]);
        let lines: Vec<_> = REFERENCE.lines().map(str::to_owned).collect();
        roff::keep_lines(&mut page, "0", &lines);
    }
    see_also(&mut page, &file);
    let mut text = Vec::new();
    page.to_writer(&mut text)?;
    Ok(ManPage { file, text })
}

/// The topic of the configuration is the page of the file.
fn name_and_section(topic: &Topic) -> (String, &'static str) {
    match topic.name {
        "config" => ("sessile.toml".to_owned(), "5"),
        name => (format!("sessile-{name}"), "7"),
    }
}

/// Appends the names of all pages but those of single commands and of `file` itself.
fn see_also(page: &mut Roff, file: &str) {
    page.control("SH", ["SEE ALSO"]);
    let topics = TOPICS.iter().map(name_and_section);
    let others = [("sessile".to_owned(), "1")].into_iter().chain(topics);
    let others = others.filter(|(name, section)| format!("{name}.{section}") != file).enumerate();
    let names = others.flat_map(|(index, (name, section))| {
        let comma = if index == 0 { "" } else { ", " };
        [roman(comma), bold(name), roman(format!("({section})"))]
    });
    page.text(names.collect::<Vec<_>>());
}
