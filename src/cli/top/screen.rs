//! [`show`]: the terminal, from its first picture to its end.
//!
//! Knows no view of the process. Invariants: whatever ends the command (a key, a signal, an error, a panic), the terminal
//! is as it was before; at most one request is on its way, and none is begun while the display is paused; a process that
//! does not respond blocks no key.

use std::io;
use std::thread;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use super::draw::{Look, draw};
use super::keys::action;
use super::model::Model;
use super::reading::{Asker, Reading};
use super::rows::rows;
use super::view::{Action, View};
use crate::cli::CommandError;

/// Events of the terminal that may wait.
const EVENTS_MAX: usize = 64;

/// How long to wait before a process that does not respond is asked again, at most.
const RETRY: Duration = Duration::from_secs(1);

/// Shows the process until the reader has seen enough.
pub(super) fn show(asker: Asker, model: Model, interval: Duration, look: Look) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let mut signals = EndSignals::new()?;
        let _restores = Restores;
        let mut terminal = ratatui::try_init()?;
        let mut screen = Screen { view: View::default(), model, look };
        screen.run(&mut terminal, asker, interval, &mut signals).await
    });
    // A request without a response does not keep the terminal.
    runtime.shutdown_background();
    ended
}

/// Gives the terminal back when dropped. A panic does so before its message, by the hook of `ratatui`.
struct Restores;

impl Drop for Restores {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing. After a panic the hook has restored it, and the message stands there.
        let _ = match std::thread::panicking() {
            true => execute!(io::stdout(), Show),
            false => ratatui::try_restore().and_then(|()| execute!(io::stdout(), Show)),
        };
    }
}

/// Signals that end the command.
struct EndSignals([Signal; 4]);

impl EndSignals {
    fn new() -> io::Result<Self> {
        let [term, hangup, interrupt, quit] =
            [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit()].map(signal);
        Ok(Self([term?, hangup?, interrupt?, quit?]))
    }

    async fn any(&mut self) {
        let [term, hangup, interrupt, quit] = &mut self.0;
        tokio::select! {
            _ = term.recv() => {}
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
        }
    }
}

/// What has come of a request.
struct Response {
    /// When, since the command began.
    now: Duration,
    reading: Result<Reading, CommandError>,
}

/// Requests to the process, one after the other.
struct Requests {
    asker: Option<Asker>,
    /// When the next request begins.
    due: Instant,
    on_its_way: Option<JoinHandle<(Asker, Result<Reading, CommandError>)>>,
}

impl Requests {
    fn new(asker: Asker, first_in: Duration) -> Self {
        Self { asker: Some(asker), due: Instant::now() + first_in, on_its_way: None }
    }

    /// Waits for the response of the request that is on its way, or of the next one. May be dropped and called again.
    async fn response(&mut self, is_paused: bool) -> Result<Response, CommandError> {
        loop {
            if let Some(on_its_way) = &mut self.on_its_way {
                let ended = on_its_way.await;
                self.on_its_way = None;
                let (asker, reading) = ended.map_err(|panic| CommandError::Internal(format!("top: {panic}")))?;
                let now = asker.now();
                self.asker = Some(asker);
                return Ok(Response { now, reading });
            }
            if is_paused {
                std::future::pending::<()>().await;
            }
            sleep_until(self.due).await;
            self.on_its_way = self.asker.take().map(|mut asker| {
                spawn_blocking(move || {
                    let reading = asker.ask();
                    (asker, reading)
                })
            });
        }
    }
}

struct Screen {
    view: View,
    model: Model,
    look: Look,
}

impl Screen {
    /// Draws, and waits for what comes first: a signal, a key, or a response.
    async fn run(
        &mut self,
        terminal: &mut DefaultTerminal,
        asker: Asker,
        interval: Duration,
        signals: &mut EndSignals,
    ) -> Result<(), CommandError> {
        let mut events = events_of_terminal();
        let mut requests = Requests::new(asker, interval);
        loop {
            terminal.draw(|frame| draw(frame, &self.model, &self.view, self.look))?;
            tokio::select! {
                () = signals.any() => return Ok(()),
                event = events.recv() => {
                    let event = event.ok_or_else(|| io::Error::other("the terminal cannot be read"))?;
                    if !self.event(&event, terminal)? {
                        return Ok(());
                    }
                }
                response = requests.response(self.view.paused) => {
                    let is_good = self.take(response?);
                    requests.due = Instant::now() + if is_good { interval } else { interval.min(RETRY) };
                }
            }
        }
    }

    /// Does what a key wants; false: the command has to end.
    fn event(&mut self, event: &Event, terminal: &mut DefaultTerminal) -> Result<bool, CommandError> {
        let Event::Key(key) = event else { return Ok(true) };
        let Some(action) = action(key) else { return Ok(true) };
        if action == Action::Redraw {
            // `clear` would ask the terminal where its cursor is, and the answer would come among the keys.
            let size = terminal.size()?;
            terminal.resize(size.into())?;
        }
        Ok(self.view.apply(action, &rows(&self.model, self.view.sort)))
    }

    /// Takes a response, or notes that there was none: false.
    fn take(&mut self, Response { now, reading }: Response) -> bool {
        match reading {
            Ok(reading) => {
                self.model.take(reading);
                self.view.settle(&rows(&self.model, self.view.sort));
                true
            }
            Err(failure) => {
                self.model.miss(now, failure.to_string());
                false
            }
        }
    }
}

/// Events of the terminal, read by a thread of its own, which ends with the process.
fn events_of_terminal() -> mpsc::Receiver<Event> {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    events
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::cli::tests::answering_each;
    use crate::metrics::Status;

    #[tokio::test]
    async fn nothing_is_asked_while_paused_and_a_response_may_be_waited_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let status = serde_json::to_string(&Status { generation: 7, ..Status::default() }).unwrap();
        let page = serde_json::to_string(&crate::events::EventPage::default()).unwrap();
        let bodies = [status, "[]".to_owned(), page.clone(), page];
        let (socket, served) =
            answering_each(folder.path(), bodies.map(|body| ("200 OK".to_owned(), body)).into_iter().collect());
        let mut requests = Requests::new(Asker::new(socket), Duration::ZERO);
        assert!(timeout(Duration::from_millis(50), requests.response(true)).await.is_err());
        assert!(requests.on_its_way.is_none());
        // A key that comes meanwhile drops the wait, and not the request.
        let (go_on, held) = std::sync::mpsc::channel();
        let mut asker = requests.asker.take().unwrap();
        requests.on_its_way = Some(spawn_blocking(move || {
            let _ = held.recv();
            let reading = asker.ask();
            (asker, reading)
        }));
        assert!(timeout(Duration::from_millis(50), requests.response(false)).await.is_err());
        go_on.send(()).unwrap();
        let response = requests.response(true).await.unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(response.reading.unwrap().status.generation, 7);
        assert_eq!(served.join().unwrap().len(), 4);
        requests.due = Instant::now();
        let response = requests.response(false).await.unwrap_or_else(|failure| panic!("{failure}"));
        assert!(matches!(response.reading, Err(CommandError::Unavailable(_))));
    }
}
