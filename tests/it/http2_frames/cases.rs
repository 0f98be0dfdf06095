//! What a case is, what it allows, and how it is run.
//!
//! RFC 9113 §5.4 lets an endpoint use a generic code in place of a precise one, treat an error of a stream as one of
//! the connection, and close without GOAWAY; all of that is allowed to every case. Invariant: a connection that a case
//! leaves open still serves a request, and one that gets GOAWAY with an error is closed.

use std::fmt::Write;
use std::time::{Duration, Instant};

use super::site::Site;
use super::wire::*;
use crate::support::PATIENCE;

/// How long a case that is not over waits after the reply to its PING.
const AFTERMATH: Duration = Duration::from_secs(2);

/// Opaque bytes of the PING behind each case.
const MARK: [u8; 8] = *b"the mark";

/// What may happen.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowed {
    goaway: Option<u32>,
    reset: Option<u32>,
    status: Option<(u16, u16)>,
    alive: bool,
}

/// The connection ends by GOAWAY with this code, or without one.
pub const fn connection(code: u32) -> Allowed {
    Allowed { goaway: Some(code), reset: None, status: None, alive: false }
}

/// The stream ends by RST_STREAM with this code, or the connection does.
pub const fn stream(code: u32) -> Allowed {
    Allowed { goaway: Some(code), reset: Some(code), status: None, alive: false }
}

/// A message that is malformed: the stream or the connection ends, or the head is refused by a status.
pub const MALFORMED: Allowed =
    Allowed { goaway: Some(PROTOCOL_ERROR), reset: Some(PROTOCOL_ERROR), status: Some((400, 499)), alive: false };

/// Nothing happens: what was sent is valid, or has to be ignored.
pub const IGNORED: Allowed = Allowed { goaway: None, reset: None, status: None, alive: true };

/// The request is served.
pub const SERVED: Allowed = Allowed { goaway: None, reset: None, status: Some((200, 200)), alive: false };

impl Allowed {
    /// Nothing happens, or what was allowed before.
    pub const fn or_ignored(self) -> Self {
        Self { alive: true, ..self }
    }

    /// The request is served or refused by one of these, or what was allowed before.
    pub const fn or_status(self, first: u16, last: u16) -> Self {
        Self { status: Some((first, last)), ..self }
    }

    fn has(self, verdict: Verdict) -> bool {
        let fits = |allowed: u32, code: u32| [allowed, PROTOCOL_ERROR, INTERNAL_ERROR].contains(&code);
        match verdict {
            Verdict::GoAway { code, is_closed } => is_closed && self.goaway.is_some_and(|own| fits(own, code)),
            Verdict::Closed => self.goaway.is_some(),
            Verdict::Reset(code) => self.reset.is_some_and(|own| fits(own, code)),
            Verdict::Status(status) => self.status.is_some_and(|(first, last)| (first..=last).contains(&status)),
            Verdict::Alive => self.alive,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy)]
enum Verdict {
    GoAway {
        code: u32,
        is_closed: bool,
    },
    Closed,
    Reset(u32),
    /// Status of a response that was whole.
    Status(u16),
    /// The PING was replied to, and nothing else came.
    Alive,
}

/// One case: its section and title, what it allows, what it sends.
pub type Case = (&'static str, Allowed, fn(&mut Client));

/// Runs every case on a connection of its own; what was not allowed is reported at the end.
pub fn run(cases: &[Case]) {
    run_at(&Site::start(""), cases);
}

pub fn run_at(site: &Site, cases: &[Case]) {
    let mut wrong = String::new();
    for (title, allowed, send) in cases {
        let mut client = site.client();
        send(&mut client);
        let verdict = verdict(&mut client, *allowed);
        if !allowed.has(verdict) {
            let _ = writeln!(wrong, "{title}: {verdict:?}");
        } else if matches!(verdict, Verdict::Reset(_) | Verdict::Status(_) | Verdict::Alive)
            && let Some(why) = goes_on(&mut client)
        {
            let _ = writeln!(wrong, "{title}: {verdict:?}, and then {why}");
        }
    }
    println!("{} cases", cases.len());
    assert!(wrong.is_empty(), "\n{wrong}");
    site.is_at_rest();
}

/// Sends a PING behind the case, and waits for what happens to the stream that is watched.
fn verdict(client: &mut Client, allowed: Allowed) -> Verdict {
    client.frame(PING, 0, 0, MARK);
    let (mut give_up, mut status) = (Instant::now() + PATIENCE, None);
    loop {
        match client.next(give_up.saturating_duration_since(Instant::now())) {
            None => return Verdict::Alive,
            Some(Event::End) => return Verdict::Closed,
            Some(Event::GoAway { code, .. }) => {
                let (_, is_closed) = client.end(AFTERMATH);
                return Verdict::GoAway { code, is_closed };
            }
            Some(Event::Reset { stream, code }) if stream == client.watched => return Verdict::Reset(code),
            Some(Event::Pong(MARK)) if allowed.alive => return Verdict::Alive,
            Some(Event::Pong(MARK)) => give_up = Instant::now() + AFTERMATH,
            Some(event) => {
                status = event.status().filter(|_| is_of(&event, client.watched)).or(status);
                if let Some(status) = status.filter(|_| ends(&event, client.watched)) {
                    return Verdict::Status(status);
                }
            }
        }
    }
}

fn is_of(event: &Event, watched: u32) -> bool {
    matches!(event, Event::Headers { stream, .. } | Event::Data { stream, .. } if *stream == watched)
}

fn ends(event: &Event, watched: u32) -> bool {
    let is_end = matches!(event, Event::Headers { is_end: true, .. } | Event::Data { is_end: true, .. });
    is_end && is_of(event, watched)
}

/// Sends a request on a new stream; what is wrong with its response.
fn goes_on(client: &mut Client) -> Option<String> {
    let stream = client.last.max(client.watched) + 2;
    if stream > 0x7fff_ffff {
        return None;
    }
    let stream = stream | 1;
    client.get(stream, &[]);
    let give_up = Instant::now() + PATIENCE;
    loop {
        let event = client.next(give_up.saturating_duration_since(Instant::now()));
        match event {
            None => return Some("no response to the next request".to_owned()),
            Some(Event::End | Event::GoAway { .. }) => return Some(format!("{event:?}")),
            Some(Event::Reset { stream: of, .. }) if of == stream => return Some(format!("{event:?}")),
            Some(event) if is_of(&event, stream) => match event.status() {
                Some(200) => return None,
                Some(status) => return Some(format!("status {status} for the next request")),
                None => {}
            },
            Some(_) => {}
        }
    }
}
