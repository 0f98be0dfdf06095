//! Tests of `sessile top` without a terminal: rates, order, choice, and every picture as text.

use std::collections::BTreeMap;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};

use super::draw::{Look, draw, text};
use super::keys::action;
use super::model::{Away, Model, Rate};
use super::reading::{Asker, EVENTS_KEPT, Reading};
use super::rows::{SortBy, rows};
use super::view::{Action, Front, View};
use crate::admin::StickTableView;
use crate::cli::tests::{answering_each, parse};
use crate::events::{DatedEvent, Event, EventKind, EventPage, EventRing};
use crate::metrics::Status;
use crate::metrics::status::{
    AdmissionStatus, BackendStatus, BackendTotals, DrainingProcess, ListenerStatus, ListenerTotals, PoolStatus,
    ProcessStatus, ProcessUsage, RequestTotals, StickTableStatus,
};
use crate::pool::HotKey;
use crate::remote_text::is_unsafe;

const PLAIN: Look = Look { colours: false };

fn backend(name: &str, state: &str, open: u64, totals: BackendTotals) -> BackendStatus {
    BackendStatus {
        name: name.into(),
        address: "10.0.0.1:8080".into(),
        state: state.into(),
        since_s: Some(11_520),
        leases: open,
        weight: 1,
        totals,
        ..BackendStatus::default()
    }
}

fn totals(connections: u64, connect_failures: u64, bytes: u64) -> BackendTotals {
    BackendTotals {
        connections,
        connect_failures,
        bytes_up: bytes,
        bytes_down: 2 * bytes,
        connect_us_mean: Some(412),
        ..BackendTotals::default()
    }
}

/// A process with an HTTP pool of three backends, one of them down and one drained, and a pool without trouble.
fn status() -> Status {
    let down = BackendStatus { complaint: "connection refused".into(), ..backend("web2", "down", 0, totals(50, 9, 0)) };
    let drained = BackendStatus {
        runtime: Some("draining".into()),
        drain_s: Some(75),
        ..backend("web3", "up", 7, totals(80, 0, 4_096))
    };
    let requests = RequestTotals {
        responses: [("2xx".to_owned(), 900), ("5xx".to_owned(), 3)].into(),
        first_byte_us_mean: Some(1_500),
        ..RequestTotals::default()
    };
    let web = PoolStatus {
        name: "web".into(),
        balance: "rendezvous".into(),
        breaks: [("down".to_owned(), 12), ("drain".to_owned(), 3), ("full".to_owned(), 0)].into(),
        requests: Some(requests),
        backends: vec![backend("web1", "up", 3, totals(100, 1, 1 << 20)), down, drained],
        ..PoolStatus::default()
    };
    let api = PoolStatus {
        name: "api".into(),
        backends: vec![backend("a1", "up", 40, totals(4_000, 0, 0))],
        ..PoolStatus::default()
    };
    let table = StickTableStatus {
        name: "web".into(),
        pools: vec!["web".into()],
        known: 432,
        displaced: 3,
        full: true,
        known_by_age: [("1440m", 2), ("1m", 10), ("5m", 20), ("60m", 400), ("30m", 0)]
            .map(|(class, count)| (class.to_owned(), count))
            .into(),
        known_by_backend: [("web1".to_owned(), 300)].into(),
        ..StickTableStatus::default()
    };
    Status {
        version: "0.1.0".into(),
        ready: true,
        uptime_s: 11_520,
        generation: 3,
        process: ProcessStatus { pid: 4_711, ..ProcessStatus::default() },
        admission: AdmissionStatus { open: 50, max: 10_000, ..AdmissionStatus::default() },
        usage: Some(ProcessUsage { resident_bytes: 12 << 20, ..ProcessUsage::default() }),
        listeners: vec![listener(1_000, 4)],
        pools: vec![web, api],
        stick_tables: vec![table],
        ..Status::default()
    }
}

fn listener(accepted: u64, reset: u64) -> ListenerStatus {
    let ended = [("done".to_owned(), 900), ("backend_reset".to_owned(), reset)].into();
    ListenerStatus { totals: ListenerTotals { accepted, ended, ..ListenerTotals::default() }, ..Default::default() }
}

fn event(id: u64, kind: EventKind, text: &str, backend: &str) -> DatedEvent {
    Event { id, unix_ms: 1_709_251_199_000 + id, ..Event::new(kind, text).of_backend("web", backend) }.into()
}

fn events() -> Vec<DatedEvent> {
    let down = event(1, EventKind::Down, "backend web/web2 is down: connect: Connection refused", "web2");
    vec![down, event(2, EventKind::Drain, "backend web/web3: draining, by command", "web3")]
}

fn view_of(key: &str, share: f64) -> StickTableView {
    let hot = HotKey { key: key.into(), share, share_error: 0.0, backend: Some("web1".into()) };
    StickTableView { stick_table: StickTableStatus { name: "web".into(), ..Default::default() }, hottest: vec![hot] }
}

fn reading(at_s: u64, status: Status) -> Reading {
    Reading { at: Duration::from_secs(at_s), status, hottest: None, events: Vec::new() }
}

/// The same process two seconds later: ten connections, four MiB and two failures more at `web1`, one client moved.
fn later() -> Status {
    let mut status = status();
    status.listeners = vec![listener(1_024, 6)];
    let web = &mut status.pools[0];
    web.backends[0].totals = totals(110, 3, 5 << 20);
    web.breaks.insert("down".to_owned(), 14);
    let requests = web.requests.as_mut().expect("requests");
    requests.responses = [("2xx".to_owned(), 1_000), ("5xx".to_owned(), 5)].into();
    requests.local_replies = [("5xx".to_owned(), 2)].into();
    status
}

fn model() -> Model {
    let mut model = Model::default();
    model.take(Reading { hottest: Some(vec![view_of("10.0.0.9", 0.601)]), events: events(), ..reading(1, status()) });
    model.take(reading(3, later()));
    model
}

fn rate_of(model: &Model, pool: usize, backend: usize) -> Rate {
    let pool = &model.status.pools[pool];
    model.rates.of_backend(pool, &pool.backends[backend])
}

#[test]
fn rates_are_the_growth_between_two_readings_of_one_process() {
    let model = model();
    let web1 = rate_of(&model, 0, 0);
    assert_eq!((web1.new, web1.errors, web1.requests), (Some(5.0), Some(1.0), None));
    assert_eq!((web1.bytes_up, web1.bytes_down), (Some(2_097_152.0), Some(4_194_304.0)));
    assert_eq!(rate_of(&model, 0, 1).new, Some(0.0));
    let web = model.rates.of_pool(&model.status.pools[0]);
    assert_eq!((web.requests, web.errors), (Some(52.0), Some(2.0)), "four answers 5xx");
    let process = model.rates.process;
    assert_eq!((process.new, process.errors, process.bytes_up), (Some(12.0), Some(1.0), Some(2_097_152.0)));
    assert_eq!(model.rates.moved(), Some(1.0));
}

#[test]
fn after_a_restart_there_is_no_rate_and_then_a_right_one() {
    let mut model = model();
    // A process that was killed has counted less, whatever its number.
    let mut restarted = status();
    restarted.pools[0].backends[0].totals = totals(7, 0, 100);
    for pid in [4_711, 4_712] {
        restarted.process.pid = pid;
        model.take(reading(5, restarted.clone()));
        assert_eq!(rate_of(&model, 0, 0), Rate::default(), "{pid}");
        assert_eq!(model.rates.of_pool(&model.status.pools[0]), Rate::default(), "{pid}");
        let unchanged = if pid == 4_711 { Some(0.0) } else { None };
        assert_eq!(rate_of(&model, 1, 0).new, unchanged, "{pid}");
        model.take(reading(3, later()));
    }
    model.take(reading(6, restarted.clone()));
    restarted.pools[0].backends[0].totals = totals(17, 0, 100);
    model.take(reading(8, restarted));
    assert_eq!(rate_of(&model, 0, 0).new, Some(5.0));
}

#[test]
fn what_is_added_has_no_rate_at_first_and_a_zero_interval_gives_none() {
    let mut model = model();
    let mut more = later();
    more.pools[1].backends.push(backend("a2", "awaited", 0, totals(500, 0, 0)));
    model.take(reading(4, more.clone()));
    assert_eq!(rate_of(&model, 1, 1).new, None);
    assert_eq!(rate_of(&model, 1, 0).new, Some(0.0));
    model.take(reading(4, more));
    assert_eq!(model.rates.process.new, None);
}

#[test]
fn without_a_response_what_was_known_stays_but_for_its_rates() {
    let mut model = model();
    model.miss(Duration::from_secs(8), "admin socket s: gone".to_owned());
    assert_eq!(model.away, Some(Away { time: Duration::from_secs(5), why: "admin socket s: gone".to_owned() }));
    assert_eq!((model.status.pools.len(), model.rates.process), (2, Rate::default()));
    model.take(reading(9, later()));
    assert_eq!(model.away, None);
}

#[test]
fn the_oldest_events_are_forgotten() {
    let mut model = model();
    let more = (0..EVENTS_KEPT + 5).map(|id| event(id, EventKind::Up, "up", "web1"));
    model.take(Reading { events: more.collect(), ..reading(4, later()) });
    assert_eq!(model.events.len() as u64, EVENTS_KEPT);
    assert_eq!(model.events[0].event.id, 5);
}

#[test]
fn backends_stay_below_their_pool_in_every_order() {
    let model = model();
    let names = |sort| rows(&model, sort).iter().map(|row| row.name().to_owned()).collect::<Vec<_>>().join(" ");
    let mut sort = SortBy::default();
    for (word, order) in [
        ("file", "web web1 web2 web3 api a1"),
        ("open", "api a1 web web3 web1 web2"),
        ("new", "web web1 web2 web3 api a1"),
        ("errors", "web web1 web2 web3 api a1"),
        ("name", "api a1 web web1 web2 web3"),
    ] {
        assert_eq!((sort.word(), names(sort)), (word, order.to_owned()));
        sort = sort.next();
    }
    assert_eq!(sort, SortBy::File, "the first order follows the last");
    let mut quick = later();
    quick.pools[1].backends[0].totals = totals(9_000, 0, 0);
    let mut model = Model::default();
    model.take(reading(1, status()));
    model.take(reading(2, quick));
    assert_eq!(rows(&model, SortBy::New)[0].name(), "api");
    assert_eq!(rows(&model, SortBy::Errors)[0].name(), "web");
}

fn chosen(view: &View, model: &Model) -> String {
    let rows = rows(model, view.sort);
    view.place(&rows).map(|place| rows[place].name().to_owned()).unwrap_or_default()
}

#[test]
fn the_chosen_row_is_kept_by_its_name() {
    let mut model = model();
    let mut view = View::default();
    let press = |view: &mut View, model: &Model, keys: &[Action]| {
        keys.iter().for_each(|key| assert!(view.apply(*key, &rows(model, view.sort)), "{key:?}"));
    };
    assert_eq!(chosen(&view, &model), "web");
    press(&mut view, &model, &[Action::Down, Action::Down, Action::Down]);
    assert_eq!(chosen(&view, &model), "web3");
    for _ in 0..5 {
        press(&mut view, &model, &[Action::Sort]);
        assert_eq!(chosen(&view, &model), "web3", "{:?}", view.sort);
    }
    // A reload removes it, and another one brings it back.
    let mut without = later();
    without.pools[0].backends.pop();
    model.take(reading(4, without));
    view.settle(&rows(&model, view.sort));
    assert_eq!(chosen(&view, &model), "api", "what is at its place");
    model.take(reading(5, later()));
    assert_eq!(chosen(&view, &model), "web3");
    model.take(reading(6, Status::default()));
    assert_eq!(chosen(&view, &model), "");
    model.take(reading(7, later()));
    press(&mut view, &model, &[Action::PageDown]);
    assert_eq!(chosen(&view, &model), "a1");
    press(&mut view, &model, &[Action::Last, Action::Down]);
    assert_eq!(chosen(&view, &model), "a1");
    press(&mut view, &model, &[Action::Up, Action::PageUp, Action::Up, Action::First]);
    assert_eq!(chosen(&view, &model), "web");
}

#[test]
fn a_key_closes_what_it_has_opened_and_escape_ends_from_the_list_alone() {
    let model = model();
    let mut view = View::default();
    for (key, front) in [
        (Action::Details, Front::Details),
        (Action::Help, Front::Help),
        (Action::Back, Front::List),
        (Action::Details, Front::Details),
        (Action::Details, Front::List),
    ] {
        assert!(view.apply(key, &rows(&model, view.sort)));
        assert_eq!(view.front, front);
    }
    assert!(view.apply(Action::Pause, &[]) && view.paused);
    assert!(view.apply(Action::Pause, &[]) && !view.paused);
    assert!(!view.apply(Action::Back, &[]) && !view.apply(Action::Quit, &[]));
}

#[test]
fn keys_mean_what_the_help_says() {
    let plain = |code| action(&KeyEvent::new(code, KeyModifiers::NONE));
    let control = |letter| action(&KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL));
    assert_eq!((control('c'), control('l'), control('s')), (Some(Action::Quit), Some(Action::Redraw), None));
    for (code, means) in [
        (KeyCode::Char('q'), Action::Quit),
        (KeyCode::Esc, Action::Back),
        (KeyCode::Up, Action::Up),
        (KeyCode::Char('j'), Action::Down),
        (KeyCode::Home, Action::First),
        (KeyCode::Enter, Action::Details),
        (KeyCode::Char('e'), Action::Details),
        (KeyCode::Char('s'), Action::Sort),
        (KeyCode::Char('p'), Action::Pause),
        (KeyCode::Char('?'), Action::Help),
    ] {
        assert_eq!(plain(code), Some(means), "{code:?}");
    }
    assert_eq!(plain(KeyCode::Char('x')), None);
}

fn drawn(model: &Model, view: &View, look: Look, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, view, look)).unwrap();
    terminal.backend().buffer().clone()
}

fn lines(buffer: &Buffer) -> Vec<String> {
    let area = buffer.area;
    let line = |y| (0..area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..area.height).map(line).collect()
}

fn screen(model: &Model, view: &View, width: u16, height: u16) -> String {
    lines(&drawn(model, view, PLAIN, width, height)).join("\n")
}

#[test]
fn everything_fits_80_by_24() {
    let shown = screen(&model(), &View::default(), 80, 24);
    let expected = "\
sessile 0.1.0  ready  open 50/10000  new 12/s  in 2.0M/s  out 4.0M/s
errors 1.0/s  drains 1  up 3h12m  generation 3  pid 4711  memory 12.0 MiB
 NAME             STATE         SINCE   OPEN  NEW/S  ERR/S   IN/S  OUT/S LATENCY
>web              1/3 up                  10    5.0    2.0   2.0M   4.0M   1.5ms
   web1           up            3h12m      3    5.0    1.0   2.0M   4.0M   412µs
   web2           down          3h12m      0      0      0     0B     0B   412µs
   web3           draining         1m      7      0      0     0B     0B   412µs
 api              1/1 up                  40      0      0     0B     0B
   a1             up            3h12m     40      0      0     0B     0B   412µs
MOVED  17 known clients, 1.0/s: 14 down, 3 drain of web
KNOWN  432 in web, full, displaced 3, seen <1m 10, <5m 20, <1h 400, <24h 2
HOT    60.1 % 10.0.0.9 at web1 of web
EVENTS (UTC)
23:59:59 down     backend web/web2 is down: connect: Connection refused
23:59:59 drain    backend web/web3: draining, by command";
    assert_eq!(shown.trim_end().rsplit_once('\n').unwrap().0.trim_end(), expected, "\n{shown}");
    assert_eq!(shown.lines().last().unwrap(), "q end  ? help  e details  s sort: file  p pause");
    assert_eq!(shown.lines().count(), 24);
}

#[test]
fn a_narrow_screen_has_what_counts_most() {
    let mut view = View::default();
    let model = model();
    let shown = screen(&model, &view, 40, 10);
    let expected = "\
sessile 0.1.0  ready  open 50/10000
new 12/s  in 2.0M/s  out 4.0M/s
errors 1.0/s  drains 1  up 3h12m
 NAME         STATE          OPEN  NEW/S
>web          1/3 up           10    5.0
   web1       up                3    5.0
   web2       down              0      0
   web3       draining          7      0
MOVED  17 known clients, 1.0/s: 14 down…
q end  ? help  e details  s sort: file …";
    assert_eq!(shown, expected, "\n{shown}");
    // The table follows the chosen row.
    view.apply(Action::Last, &rows(&model, view.sort));
    let shown = screen(&model, &view, 40, 10);
    assert!(shown.contains("\n>  a1         up               40      0\n"), "{shown}");
    for (width, height) in [(1, 1), (3, 2), (12, 4), (40, 3), (20, 60), (0, 0)] {
        for front in [Action::Redraw, Action::Details, Action::Help] {
            let mut view = View::default();
            view.apply(front, &rows(&model, view.sort));
            assert_eq!(screen(&model, &view, width, height).split('\n').count(), usize::from(height).max(1));
        }
    }
}

#[test]
fn a_large_screen_has_more_columns_and_more_events() {
    let mut model = model();
    let more = (3..60).map(|id| event(id, EventKind::Up, &format!("backend web/web1 is up, time {id}"), "web1"));
    model.take(Reading { events: more.collect(), ..reading(5, later()) });
    let shown = screen(&model, &View::default(), 160, 50);
    for part in
        ["REQ/S", "WEIGHT ADDRESS", "COMPLAINT", " 10.0.0.1:8080 ", " connection refused", "time 59\n", "time 30\n"]
    {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    assert!(shown.lines().next().unwrap().ends_with("pid 4711  memory 12.0 MiB"), "one line\n{shown}");
    assert_eq!(shown.lines().count(), 50);
    let few = screen(&model, &View::default(), 80, 24);
    assert!(few.contains("time 59\n") && !few.contains("time 30\n"), "{few}");
}

#[test]
fn many_backends_leave_room_for_the_lists() {
    let mut model = model();
    let mut status = later();
    status.pools[1].backends = (0..200).map(|n| backend(&format!("a{n}"), "up", n, totals(n, 0, 0))).collect();
    model.take(reading(5, status));
    let mut view = View::default();
    view.apply(Action::Last, &rows(&model, view.sort));
    let shown = screen(&model, &view, 80, 24);
    for part in [">  a199 ", "\nMOVED ", "\nKNOWN ", "\nHOT ", "\nEVENTS ", "draining, by command"] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
}

#[test]
fn details_have_everything_about_a_backend_and_its_events_alone() {
    let model = model();
    let mut view = View::default();
    for key in [Action::Down, Action::Down, Action::Details] {
        view.apply(key, &rows(&model, view.sort));
    }
    let shown = screen(&model, &view, 80, 24);
    for part in [
        "BACKEND web/web2\n",
        "state      down, for 3h12m\n",
        "complaint  connection refused\n",
        "total      50 connections, 9 failed\n",
        "23:59:59 down     backend web/web2 is down",
        "\nq end  ? help  Esc back  p pause",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    assert!(!shown.contains("draining, by command"), "{shown}");
    view.apply(Action::First, &rows(&model, view.sort));
    let shown = screen(&model, &view, 80, 24);
    for part in
        ["POOL web\n", "balance    rendezvous\n", "moved      14 down, 3 drain\n", "responses  2xx 1000, 5xx 5\n"]
    {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    view.apply(Action::Help, &rows(&model, view.sort));
    let shown = screen(&model, &view, 80, 24);
    assert!(shown.contains("Enter, e          details and events of the row, and back\n"), "{shown}");
}

#[test]
fn a_process_that_is_away_pauses_or_hurts_is_said_in_words() {
    let mut model = model();
    let mut hurt = later();
    hurt.log_dropped = 256;
    hurt.admission.at_limit = true;
    hurt.process.draining = vec![DrainingProcess { pid: 99, open: 5, ..DrainingProcess::default() }];
    model.take(reading(5, hurt));
    let mut view = View::default();
    view.apply(Action::Pause, &[]);
    let shown = screen(&model, &view, 80, 24);
    for part in
        ["paused", "open 50/10000 at the limit", "log lines dropped 256", "process 99 stopping, open 5", "p go on"]
    {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    view.apply(Action::Pause, &[]);
    model.miss(Duration::from_secs(17), "admin socket s: No such file or directory".to_owned());
    let shown = screen(&model, &view, 80, 24);
    assert!(shown.lines().next().unwrap().starts_with("sessile 0.1.0  AWAY"), "{shown}");
    assert!(shown.contains("\nno response for 12s, tries again: admin socket s: No such file"), "{shown}");
    assert!(shown.contains("web2           down") && shown.contains(" - "), "{shown}");
}

#[test]
fn names_from_outside_move_no_cursor() {
    let evil = "\u{1b}[2J\u{9b}31m\u{202e}x\n\t\u{7}\u{feff}世界";
    let mut status = later();
    status.version = evil.into();
    status.stick_tables[0].name = evil.into();
    status.stick_tables[0].known_by_age = [(evil.to_owned(), 3)].into();
    for pool in &mut status.pools {
        pool.name = evil.into();
        pool.balance = evil.into();
        pool.breaks = BTreeMap::from([(evil.to_owned(), 4)]);
        for backend in &mut pool.backends {
            backend.name = evil.into();
            backend.address = evil.into();
            backend.state = evil.into();
            backend.complaint = evil.into();
            backend.runtime = Some(evil.into());
        }
    }
    let mut hostile = event(1, EventKind::Down, "", evil);
    hostile.event.text = evil.into();
    hostile.event.pool = Some(evil.into());
    hostile.time = format!("2024T{evil}");
    let mut model = Model::default();
    model.take(Reading { hottest: Some(vec![view_of(evil, 0.5)]), events: vec![hostile], ..reading(1, status) });
    model.miss(Duration::from_secs(2), evil.to_owned());
    for front in [Action::Redraw, Action::Details] {
        let mut view = View::default();
        view.apply(front, &[]);
        for place in 0..2 {
            for (width, height) in [(80, 24), (40, 10), (160, 50)] {
                let buffer = drawn(&model, &view, PLAIN, width, height);
                let cells = buffer.content.iter().map(|cell| cell.symbol());
                let bad: Vec<_> = cells.filter(|symbol| symbol.contains(is_unsafe)).collect();
                assert!(bad.is_empty(), "{bad:?} at {width}x{height}, row {place}");
            }
            view.apply(Action::Down, &rows(&model, view.sort));
        }
    }
    let printed = text(&model);
    assert!(printed.iter().all(|line| !line.contains(is_unsafe)), "{printed:#?}");
    assert!(printed.concat().contains("\\u{1b}[2J"), "{printed:#?}");
}

#[test]
fn colours_repeat_what_a_word_says_and_are_left_out_on_request() {
    let model = model();
    let view = View::default();
    let colours = |buffer: &Buffer| -> Vec<(String, Color)> {
        let cells = buffer.content.iter().filter(|cell| cell.fg != Color::Reset);
        cells.map(|cell| (cell.symbol().to_owned(), cell.fg)).collect()
    };
    assert_eq!(colours(&drawn(&model, &view, PLAIN, 80, 24)), []);
    let coloured = drawn(&model, &view, Look { colours: true }, 80, 24);
    let red: String = colours(&coloured).into_iter().filter(|(_, fg)| *fg == Color::Red).map(|(s, _)| s).collect();
    assert!(red.contains("down") && red.contains("errors 1.0/s"), "{red}");
    assert_eq!(lines(&coloured), lines(&drawn(&model, &view, PLAIN, 80, 24)), "the words are the same");
    let chosen = &coloured[(1, 3)];
    assert!(chosen.modifier.contains(Modifier::REVERSED) && coloured[(0, 3)].symbol() == ">", "{chosen:?}");
}

#[test]
fn a_text_has_every_row() {
    let mut model = model();
    let mut status = later();
    status.pools[1].backends = (0..200).map(|n| backend(&format!("a{n}"), "up", n, totals(n, 0, 0))).collect();
    model.take(reading(5, status));
    let printed = text(&model);
    assert!(printed.iter().any(|line| line.starts_with("   a199 ")), "{printed:#?}");
    assert!(printed.iter().all(|line| line.chars().count() <= 80 && !line.ends_with(' ')), "{printed:#?}");
    assert_eq!(printed.last().unwrap(), "23:59:59 drain    backend web/web3: draining, by command");
}

fn answers(bodies: &[String]) -> Vec<(String, String)> {
    bodies.iter().map(|body| ("200 OK".to_owned(), body.clone())).collect()
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("JSON")
}

fn ring(from: &str, count: usize) -> EventRing {
    let ring = EventRing::new();
    for n in 0..count {
        ring.note(1_709_251_199_000, Event::new(EventKind::Up, &format!("{from} {n}")));
    }
    ring
}

#[test]
fn a_reading_asks_for_new_events_and_seldom_for_keys() {
    let (first, other) = (ring("first", 3), EventRing::new());
    other.note(1_709_251_300_000, Event::new(EventKind::Start, "other"));
    let page = |ring: &EventRing, after| json(&ring.page(after, |_| true));
    let status = json(&status());
    let bodies = [
        status.clone(),
        json(&[view_of("k", 0.5)]),
        page(&first, u64::MAX),
        page(&first, 0),
        status.clone(),
        page(&first, 3),
        status,
        page(&other, 3),
        page(&other, u64::MAX),
        page(&other, 0),
    ];
    let folder = tempfile::tempdir().unwrap();
    let (socket, served) = answering_each(folder.path(), answers(&bodies));
    let mut asker = Asker::new(socket);
    let texts = |reading: &Reading| reading.events.iter().map(|dated| dated.event.text.to_string()).collect::<Vec<_>>();
    let reading = asker.ask().unwrap();
    assert_eq!(texts(&reading), ["first 0", "first 1", "first 2"]);
    assert_eq!(reading.hottest.unwrap()[0].hottest[0].key, "k");
    let reading = asker.ask().unwrap();
    assert_eq!((texts(&reading), reading.hottest), (vec![], None));
    assert_eq!(texts(&asker.ask().unwrap()), ["other"], "another process has taken the socket");
    let asked = served.join().unwrap();
    let asked: Vec<_> = asked.iter().map(|request| request.split(' ').nth(1).unwrap()).collect();
    let all = format!("/events?after={}", u64::MAX);
    assert_eq!(asked[..4], ["/status", "/stick-table", &all, "/events?after=0"]);
    assert_eq!(asked[4..], ["/status", "/events?after=3", "/status", "/events?after=3", &all, "/events?after=0"]);
}

#[test]
fn one_picture_is_printed_as_text_or_as_json() {
    let empty = json(&EventPage { next: 7, ..EventPage::default() });
    let bodies =
        [json(&status()), json(&[view_of("10.0.0.9", 0.5)]), empty.clone(), empty.clone(), json(&later()), empty];
    for option in ["--once", "--json"] {
        let folder = tempfile::tempdir().unwrap();
        let (socket, served) = answering_each(folder.path(), answers(&bodies));
        let mut out = Vec::new();
        let line = format!("sessile top {option} --socket {}", socket.display());
        assert_eq!(parse(&line).unwrap().print(&mut out).unwrap(), 0);
        served.join().unwrap();
        let out = String::from_utf8(out).unwrap();
        if option == "--once" {
            // 24 connections in a second, or in more where the machine has no time.
            let new =
                out.strip_prefix("sessile 0.1.0  ready  open 50/10000  new ").and_then(|rest| rest.split_once("/s"));
            let new: f64 = new.and_then(|(new, _)| new.parse().ok()).unwrap_or_else(|| panic!("{out}"));
            assert!(new > 1.0 && new < 25.0, "{out}");
            assert!(out.contains("\n   web2           down "), "{out}");
        } else {
            let value: serde_json::Value = serde_json::from_str(&out).unwrap();
            assert_eq!(value["status"]["pools"][0]["name"], "web");
            assert!(value["rates"]["pools"]["web"]["backends"]["web1"]["new"].as_f64() > Some(1.0), "{value}");
            assert_eq!(value["stick_tables"][0]["hottest"][0]["key"], "10.0.0.9");
        }
    }
}
