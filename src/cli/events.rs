//! `sessile events`: what happened to the running process, as text or as JSON, once or as it comes.
//!
//! Keeps no event: the process does. Invariants: a line has at most [`COLUMNS`] columns, as long as its words allow; with
//! `--follow` an event is printed once, also over an upgrade, which goes on with the numbers; what cannot be shown any
//! more, and numbers that begin again, are said, with `--json` on standard error.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::builder::PossibleValuesParser;

use super::width::{COLUMNS, wrap};
use super::{CommandError, client, load::RunningProcess, print_json};
use crate::events::{DatedEvent, EVENTS_MAX, EventKind, EventPage};

/// Columns before the text: time and kind.
const INDENT: usize = 25;

/// How long one request waits for an event, in seconds.
const WAIT_S: u64 = 15;

/// Pause after a reply without events that came early, because too many others wait.
const PAUSE: Duration = Duration::from_secs(1);

/// How long a process that follows another one may take to answer.
const AWAY_MAX: Duration = Duration::from_secs(10);

/// Arguments of `sessile events`.
#[derive(Debug, clap::Args)]
pub(super) struct EventsArgs {
    #[command(flatten)]
    running: RunningProcess,
    /// Go on with events as they come.
    #[arg(short, long)]
    follow: bool,
    /// Show only events with a higher number: that of the last one seen.
    #[arg(long, value_name = "N", default_value_t = 0)]
    after: u64,
    /// Show only events of this kind; may be given several times.
    #[arg(long, value_name = "KIND", value_parser = PossibleValuesParser::new(EventKind::ALL.iter().map(|kind| kind.word())))]
    kind: Vec<String>,
    /// Show only events about this pool.
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Print one JSON object; with --follow, one for each event, one a line.
    #[arg(long)]
    json: bool,
}

impl EventsArgs {
    /// Sends the requests and prints the events.
    pub(super) fn run(&self, out: &mut impl Write) -> Result<u8, CommandError> {
        let socket = self.running.socket()?;
        let page = self.page(&socket, self.after, 0)?;
        if self.json && !self.follow {
            print_json(out, &page)?;
            return Ok(0);
        }
        let mut printer = Printer::default();
        let page = self.begin(&socket, page, &mut printer, out)?;
        if self.follow {
            self.go_on(&socket, page, &mut printer, AWAY_MAX, out)?;
        } else if page.events.is_empty() {
            let since = &page.since;
            match page.missed {
                0 => writeln!(out, "no such event since {since}")?,
                _ => writeln!(out, "no such event among those that are kept")?,
            }
        }
        Ok(0)
    }

    /// Prints the first page, or all events if the number of the question is none of this process.
    fn begin(
        &self,
        socket: &Path,
        page: EventPage,
        printer: &mut Printer,
        out: &mut impl Write,
    ) -> Result<EventPage, CommandError> {
        if self.after <= page.next {
            if self.after > 0 {
                self.say_missed(&page, self.after, out)?;
            }
            self.print(printer, &page, out)?;
            return Ok(page);
        }
        let EventPage { next, since, .. } = &page;
        self.say(
            &format!(
                "number {} is of an earlier process: a start without an upgrade begins again with 1, and the last event \
                 since {since} has number {next}",
                self.after
            ),
            out,
        )?;
        let page = self.page(socket, 0, 0)?;
        self.print(printer, &page, out)?;
        Ok(page)
    }

    /// Prints events as they come, until the process has ended or the reader has enough.
    fn go_on(
        &self,
        socket: &Path,
        mut page: EventPage,
        printer: &mut Printer,
        away_max: Duration,
        out: &mut impl Write,
    ) -> Result<(), CommandError> {
        let mut seen = Instant::now();
        loop {
            out.flush()?;
            let began = Instant::now();
            let next = match self.page(socket, page.next, WAIT_S) {
                Ok(next) => next,
                // The next process may be about to take the socket.
                Err(CommandError::Unavailable(_)) if seen.elapsed() < away_max => {
                    std::thread::sleep(away_max / 50);
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            seen = Instant::now();
            if next.since != page.since || next.next < page.next {
                // The events of another process, with numbers of its own.
                let since = &next.since;
                self.say(
                    &format!("another process has begun at {since} without an upgrade: numbers begin again"),
                    out,
                )?;
                page = self.page(socket, 0, 0)?;
                self.print(printer, &page, out)?;
                continue;
            }
            self.say_missed(&next, page.next, out)?;
            self.print(printer, &next, out)?;
            if next.events.is_empty() && began.elapsed() < PAUSE {
                std::thread::sleep(PAUSE);
            }
            page = next;
        }
    }

    fn print(&self, printer: &mut Printer, page: &EventPage, out: &mut impl Write) -> Result<(), CommandError> {
        for event in &page.events {
            if self.json {
                print_json(out, event)?;
            } else {
                out.write_all(printer.lines(event).as_bytes())?;
            }
        }
        Ok(())
    }

    /// Says how many events after a number are gone. They are of all kinds: what a filter leaves out is among them.
    fn say_missed(&self, page: &EventPage, after: u64, out: &mut impl Write) -> Result<(), CommandError> {
        let events = match page.missed {
            0 => return Ok(()),
            1 => "one event is".to_owned(),
            count => format!("{count} events are"),
        };
        self.say(
            &format!("after number {after}, {events} not kept any more: the process has the last {EVENTS_MAX}"),
            out,
        )
    }

    /// Says what is no event: on standard error, where standard output is for programs.
    fn say(&self, text: &str, out: &mut impl Write) -> Result<(), CommandError> {
        if self.json {
            let _ = writeln!(std::io::stderr(), "sessile events: {text}");
        } else {
            out.write_all(wrap(&format!("({text})"), COLUMNS, 1).as_bytes())?;
        }
        Ok(())
    }

    fn page(&self, socket: &Path, after: u64, wait_s: u64) -> Result<EventPage, CommandError> {
        let mut path = format!("/events?after={after}&wait={wait_s}");
        if !self.kind.is_empty() {
            path += &format!("&kind={}", self.kind.join(","));
        }
        if let Some(pool) = &self.pool {
            path += &format!("&pool={}", client::query_value(pool));
        }
        client::request(socket, "GET", &path)?.json(&[200])
    }
}

/// Writes events as text; the date stands before the first event of each day.
#[derive(Debug, Default)]
struct Printer {
    date: String,
}

impl Printer {
    fn lines(&mut self, dated: &DatedEvent) -> String {
        let (date, time) = dated.time.split_once('T').unwrap_or_default();
        let mut lines = String::new();
        if date != self.date {
            self.date = date.to_owned();
            // Writing to a String does not fail.
            let _ = writeln!(lines, "{date} (UTC)");
        }
        let time = time.get(..8).unwrap_or(time);
        let head = format!("{time} {:<15} ", dated.event.kind.word());
        lines + &wrap(&(head + &dated.event.text), COLUMNS, INDENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::{answering_each, parse};
    use crate::events::{Event, EventRing};

    fn ring() -> EventRing {
        let ring = EventRing::new();
        let reason = "connect: Connection refused (os error 111), after a while in which nothing else was heard of it";
        let down = Event::new(EventKind::Down, &format!("backend web/a is down: {reason}")).of_backend("web", "a");
        ring.note(1_709_251_199_000, down);
        ring.note(1_709_251_200_000, Event::new(EventKind::DrainForgotten, "backend web/b was drained"));
        ring
    }

    fn arguments(line: &str) -> EventsArgs {
        match parse(line).unwrap() {
            crate::cli::Command::Events(arguments) => arguments,
            other => panic!("{other:?}"),
        }
    }

    fn printed(line: &str, pages: &[EventPage]) -> (String, Vec<String>, Result<u8, CommandError>) {
        let folder = tempfile::tempdir().unwrap();
        let answers = pages.iter().map(|page| ("200 OK".to_owned(), serde_json::to_string(page).unwrap()));
        let (socket, served) = answering_each(folder.path(), answers.collect());
        let mut out = Vec::new();
        let result = arguments(&format!("{line} --socket {}", socket.display())).run(&mut out);
        (String::from_utf8(out).unwrap(), served.join().unwrap(), result)
    }

    #[test]
    fn a_line_has_80_columns_and_a_day_its_date() {
        let (text, requests, result) =
            printed("sessile events --kind down --kind up --pool a&b", &[ring().page(0, |_| true)]);
        assert_eq!(result.unwrap(), 0);
        assert_eq!(
            text,
            "2024-02-29 (UTC)\n\
             23:59:59 down            backend web/a is down: connect: Connection refused (os\n\
             \x20                        error 111), after a while in which nothing else was\n\
             \x20                        heard of it\n\
             2024-03-01 (UTC)\n\
             00:00:00 drain_forgotten backend web/b was drained\n"
        );
        assert!(text.lines().all(|line| line.len() <= COLUMNS));
        assert!(requests[0].starts_with("GET /events?after=0&wait=0&kind=down,up&pool=a%26b HTTP/1.0"), "{requests:?}");
    }

    #[test]
    fn json_is_the_reply_or_one_event_a_line() {
        let page = ring().page(0, |_| true);
        let (text, ..) = printed("sessile events --json", std::slice::from_ref(&page));
        assert_eq!(serde_json::from_str::<EventPage>(&text).unwrap(), page);
        let (text, ..) = printed("sessile events", &[EventRing::new().page(0, |_| true)]);
        assert_eq!(text, "no such event since 1970-01-01T00:00:00.000Z\n");
    }

    #[test]
    fn a_follower_prints_each_event_once_and_begins_again_with_another_process() {
        let (ring, other) = (ring(), EventRing::new());
        other.note(1_709_251_300_000, Event::new(EventKind::Start, "of another process"));
        let page = |ring: &EventRing, after| ring.page(after, |_| true);
        let first = page(&ring, 0);
        ring.note(1_709_251_201_000, Event::new(EventKind::Up, "backend web/a is up"));
        let pages = [page(&ring, 2), page(&other, 3), page(&other, 0)];
        let folder = tempfile::tempdir().unwrap();
        let answers = pages.iter().map(|page| ("200 OK".to_owned(), serde_json::to_string(page).unwrap()));
        let (socket, served) = answering_each(folder.path(), answers.collect());
        let arguments = arguments(&format!("sessile events --follow --json --socket {}", socket.display()));
        let mut out = Vec::new();
        let away_max = Duration::from_millis(200);
        let ended = arguments.go_on(&socket, first, &mut Printer::default(), away_max, &mut out);
        assert!(matches!(ended, Err(CommandError::Unavailable(_))), "the process has ended: {ended:?}");
        let events = String::from_utf8(out).unwrap();
        let events: Vec<DatedEvent> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let texts: Vec<_> = events.iter().map(|dated| &*dated.event.text).collect();
        assert_eq!(texts, ["backend web/a is up", "of another process"]);
        let asked: Vec<_> = served.join().unwrap().iter().map(|request| request[..22].to_owned()).collect();
        assert_eq!(asked, ["GET /events?after=2&wa", "GET /events?after=3&wa", "GET /events?after=0&wa"]);
    }

    /// What a follower prints that has seen `first` and then gets these pages, until the process has ended.
    fn followed(line: &str, first: EventPage, pages: &[EventPage]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let answers = pages.iter().map(|page| ("200 OK".to_owned(), serde_json::to_string(page).unwrap()));
        let (socket, served) = answering_each(folder.path(), answers.collect());
        let arguments = arguments(&format!("{line} --socket {}", socket.display()));
        let mut out = Vec::new();
        let away_max = Duration::from_millis(200);
        let ended = arguments.go_on(&socket, first, &mut Printer::default(), away_max, &mut out);
        assert!(matches!(ended, Err(CommandError::Unavailable(_))), "{ended:?}");
        served.join().unwrap();
        String::from_utf8(out).unwrap()
    }

    /// A ring that was full and has lost its first events.
    fn full(lost: usize) -> EventRing {
        let ring = EventRing::new();
        for _ in 0..EVENTS_MAX + lost {
            ring.note(1_709_251_199_000, Event::new(EventKind::Up, "up"));
        }
        ring
    }

    #[test]
    fn a_follower_that_was_too_slow_is_told_how_many_events_it_has_missed_and_after_which() {
        let ring = full(7);
        let page = |after| ring.page(after, |event| event.id > EVENTS_MAX as u64 + 6);
        let text = followed("sessile events --follow", EventPage { next: 2, ..page(2) }, &[page(2)]);
        let told = "(after number 2, 5 events are not kept any more: the process has the last 10000)\n";
        assert!(text.starts_with(told), "{text}");
        assert_eq!(text.matches("not kept").count(), 1, "{text}");
        let text = followed("sessile events --follow --json", EventPage { next: 2, ..page(2) }, &[page(2)]);
        assert!(text.lines().all(|line| serde_json::from_str::<DatedEvent>(line).is_ok()), "{text}");
        for (line, said) in [
            ("sessile events", ""),
            (
                "sessile events --after 6",
                "(after number 6, one event is not kept any more: the process has the last 10000)\n",
            ),
        ] {
            let after = arguments(line).after;
            let (text, ..) = printed(line, &[ring.page(after, |_| false)]);
            assert_eq!(text, format!("{said}no such event among those that are kept\n"));
        }
        assert!(!printed("sessile events --after 7", &[ring.page(7, |_| false)]).0.contains("not kept any more"));
    }

    #[test]
    fn an_upgrade_goes_on_with_the_numbers_and_a_start_begins_again_and_each_is_told() {
        let (before, upgraded, restarted) = (ring(), EventRing::new(), EventRing::new());
        let seen = before.page(0, |_| true);
        upgraded.note(1_709_251_300_000, Event::new(EventKind::Start, "of the next process"));
        upgraded.take_over(before.kept());
        let text = followed("sessile events --follow", seen.clone(), &[upgraded.page(2, |_| true)]);
        assert_eq!(text, "2024-03-01 (UTC)\n00:01:40 start           of the next process\n", "nothing was missed");
        restarted.note(1_709_251_300_000, Event::new(EventKind::Start, "of another process"));
        let pages = [restarted.page(2, |_| true), restarted.page(0, |_| true)];
        let text = followed("sessile events --follow", seen, &pages);
        let told =
            "(another process has begun at 2024-03-01T00:01:40.000Z without an upgrade:\n numbers begin again)\n";
        assert_eq!(text, format!("{told}2024-03-01 (UTC)\n00:01:40 start           of another process\n"));
        let pages = [restarted.page(50, |_| true), restarted.page(0, |_| true)];
        let (text, requests, _) = printed("sessile events --after 50", &pages);
        assert!(
            text.starts_with("(number 50 is of an earlier process: a start without an upgrade begins again"),
            "{text}"
        );
        assert!(text.ends_with("start           of another process\n"), "{text}");
        assert!(requests[1].starts_with("GET /events?after=0&"), "{requests:?}");
    }

    #[test]
    fn a_kind_that_does_not_exist_is_wrong_usage() {
        assert!(parse("sessile events --kind down --follow").is_ok());
        assert!(parse("sessile events --kind bogus").unwrap_err().use_stderr());
    }
}
