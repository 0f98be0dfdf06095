//! `sessile top` in a real terminal: what a reader sees while a backend dies, is drained, and a client moves; other sizes,
//! colours, and how the terminal is left.
//!
//! The terminal is a `tmux` of the test's own. Invariant: whatever ends the command, the settings of the terminal are
//! those of before.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::backend::{Backend, listener, pool};
use crate::support::load_support::Client;
use crate::support::sessile::command;
use crate::support::{Sessile, eventually, has};

/// What runs in the terminal: the command, and then what says how it ended and that it left the terminal as it was.
const SCRIPT: &str = r#"cd "$1" && shift
stty -g > before
sh -c 'echo $$ > pid; exec "$0" "$@"' "$@"
code=$?
stty -g > after
echo "ended $code"
exec cat
"#;

/// A terminal with `sessile top`; it ends when dropped.
struct Terminal {
    dir: TempDir,
}

impl Terminal {
    fn start(sessile: &Sessile, (width, height): (u16, u16), variable: Option<&str>) -> Self {
        let dir = tempfile::tempdir().expect("a scratch directory");
        fs::write(dir.path().join("script"), SCRIPT).expect("the file is written");
        let terminal = Self { dir };
        let mut tmux = terminal.tmux(&["new-session", "-d"]);
        tmux.args(["-x", &width.to_string(), "-y", &height.to_string()]);
        tmux.args(variable.into_iter().flat_map(|variable| ["-e", variable]));
        tmux.arg("sh").arg(terminal.dir.path().join("script")).arg(terminal.dir.path());
        tmux.args([env!("CARGO_BIN_EXE_sessile"), "top", "--socket"]).arg(sessile.dir.path().join("admin.sock"));
        let output = tmux.output().expect("tmux runs");
        assert!(output.status.success(), "{output:?}");
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.arg("-S").arg(self.dir.path().join("socket")).args(["-u", "-f", "/dev/null"]).args(arguments);
        tmux.env_remove("TMUX").env_remove("NO_COLOR").envs([("SHELL", "/bin/sh"), ("RUST_BACKTRACE", "0")]);
        tmux
    }

    /// What tmux answers to a command.
    fn said(&self, arguments: &[&str]) -> String {
        let output = self.tmux(arguments).output().expect("tmux runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn press(&self, key: &str) {
        self.said(&["send-keys", key]);
    }

    fn resize(&self, width: u16, height: u16) {
        self.said(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    fn screen(&self) -> String {
        self.said(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as it should be; the screen.
    fn shows(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        eventually(&format!("a screen with {what}"), || Some(self.screen()).filter(|screen| is_so(screen)))
    }

    fn has(&self, part: &str) -> String {
        self.shows(part, |screen| screen.contains(part))
    }

    /// Waits until the row of a backend or a pool has this part.
    fn row_has(&self, name: &str, part: &str) {
        self.shows(&format!("{part} at {name}"), |screen| row(screen, name).is_some_and(|row| row.contains(part)));
    }

    /// Waits for the end of the command; its exit code. The terminal is as it was before.
    fn end(&self) -> String {
        let screen = self.has("ended ");
        let settings = ["before", "after"].map(|name| fs::read_to_string(self.dir.path().join(name)).expect("a file"));
        assert_eq!(settings[0], settings[1], "{screen}");
        assert_eq!(self.said(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]).trim(), "0 1", "{screen}");
        screen.split("ended ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a code").to_owned()
    }

    fn signal(&self, signal: Signal) {
        let pid = fs::read_to_string(self.dir.path().join("pid")).expect("a file");
        let pid = pid.trim().parse().ok().and_then(Pid::from_raw).expect("a process");
        kill_process(pid, signal).expect("the process is there");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let screen = self.tmux(&["capture-pane", "-p"]).output().map(|output| output.stdout).unwrap_or_default();
            eprintln!("--- the screen\n{}", String::from_utf8_lossy(&screen));
        }
        let _ = self.tmux(&["kill-server"]).output();
    }
}

fn row<'s>(screen: &'s str, name: &str) -> Option<&'s str> {
    screen.lines().find(|line| line.trim_start_matches(['>', ' ']).split(' ').next() == Some(name))
}

/// The backend that answers a line of a client with this address.
fn home(sessile: &Sessile, client: IpAddr) -> String {
    let answer = Client::connect_from(client, sessile.address("l")).ask("x");
    answer.split(' ').next().expect("a name").to_owned()
}

/// A process with two backends that are checked.
fn checked(backends: &[Backend; 2]) -> Sessile {
    let check = "[pool.check]\nkind = \"tcp\"\ninterval = \"50ms\"\nrise = 2\nfall = 1\n";
    let addresses = backends.each_ref().map(|backend| backend.address);
    let pool = pool("p", "", &addresses).replace("[pool.check]\nkind = \"off\"\n", check);
    Sessile::start(&(listener("p", "") + &pool))
}

fn backends() -> [Backend; 2] {
    ["b0", "b1"].map(Backend::named)
}

#[test]
fn a_reader_sees_a_backend_die_a_client_move_and_a_drain_at_every_size() {
    if !has("a_reader_sees_a_backend_die_a_client_move_and_a_drain_at_every_size", "tmux") {
        return;
    }
    let backends = backends();
    let mut sessile = checked(&backends);
    let mut clients = (1..=250).map(|number| IpAddr::from(Ipv4Addr::new(127, 0, 17, number)));
    let client = clients.find(|client| home(&sessile, *client) == "b0").expect("a client of b0");
    let terminal = Terminal::start(&sessile, (80, 24), None);
    terminal.row_has("b0", " up ");
    terminal.row_has("b1", " up ");
    terminal.row_has("p", " 2/2 up ");
    terminal.press("Down");
    terminal.has("\n>  b0 ");

    let [b0, b1] = backends;
    drop(b0);
    terminal.row_has("b0", " down ");
    terminal.has("backend p/b0 is down");
    assert_eq!(home(&sessile, client), "b1");
    terminal.has("MOVED  1 known client,");
    terminal.has(": 1 down of p\n");
    let drained = command(&["drain", "p/b1", "--socket"]).arg(sessile.admin()).output().expect("the command runs");
    assert!(drained.status.success(), "{drained:?}");
    terminal.row_has("b1", " draining ");
    terminal.has("drains 1  ");

    terminal.resize(40, 10);
    terminal.shows("40 columns, whole", |screen| {
        let is_narrow = screen.lines().count() == 10 && screen.lines().all(|line| line.chars().count() <= 40);
        let has_foot = screen.lines().last().is_some_and(|line| line.starts_with("q end"));
        is_narrow && has_foot && screen.contains("  OPEN  NEW/S\n") && screen.contains("\n>  b0 ")
    });
    terminal.resize(160, 50);
    terminal.has(" COMPLAINT\n");
    terminal.row_has("b1", &b1.address.to_string());
    terminal.resize(80, 24);
    terminal.shows("80 columns", |screen| screen.contains("SINCE") && !screen.contains("COMPLAINT"));

    terminal.press("e");
    terminal.shows("details of b0 alone", |screen| {
        let of_b0 = ["BACKEND p/b0\n", "backend p/b0 is down"].iter().all(|part| screen.contains(part));
        of_b0 && !screen.contains("backend p/b1: ")
    });
    terminal.press("Escape");
    terminal.row_has("b0", " down ");
    terminal.press("s");
    terminal.has("s sort: open");

    terminal.press("C-l");
    terminal.row_has("b0", " down ");

    // Another process, and for a while none.
    assert_eq!(sessile.upgrade(None)["accepted"], true);
    terminal.has(&format!("  pid {}", sessile.pid()));
    sessile.signal(Signal::KILL);
    terminal.has("\nno response for ");
    terminal.shows("the same row", |screen| screen.contains("  AWAY  ") && screen.contains("\n>  b0 "));
    sessile.restart();
    terminal.shows("the process again, and the same row and order", |screen| {
        ["  ready  ", "\n>  b0 ", "s sort: open"].iter().all(|part| screen.contains(part))
    });

    terminal.press("p");
    terminal.has("  p go on");
    terminal.press("q");
    assert_eq!(terminal.end(), "0");
}

#[test]
fn whatever_ends_it_the_terminal_is_as_it_was() {
    if !has("whatever_ends_it_the_terminal_is_as_it_was", "tmux") {
        return;
    }
    let backends = backends();
    let sessile = checked(&backends);
    let begin = || {
        let terminal = Terminal::start(&sessile, (80, 24), None);
        terminal.has("q end");
        assert_eq!(terminal.said(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]).trim(), "1 0");
        terminal
    };
    for key in ["C-c", "Escape"] {
        let terminal = begin();
        terminal.press(key);
        assert_eq!(terminal.end(), "0", "{key}");
    }
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let terminal = begin();
        terminal.signal(signal);
        assert_eq!(terminal.end(), "0", "{signal:?}");
    }
    if cfg!(debug_assertions) {
        let terminal = begin();
        terminal.press("F12");
        assert_eq!(terminal.end(), "101");
        assert!(terminal.screen().contains("a panic by key"), "{}", terminal.screen());
    }
}

#[test]
fn colours_are_left_out_where_they_are_not_wanted() {
    if !has("colours_are_left_out_where_they_are_not_wanted", "tmux") {
        return;
    }
    let backends = backends();
    let sessile = checked(&backends);
    for (variable, wanted) in [(None, true), (Some("NO_COLOR="), true), (Some("NO_COLOR=1"), false)] {
        let terminal = Terminal::start(&sessile, (80, 24), variable);
        terminal.row_has("b0", " up ");
        let codes = terminal.said(&["capture-pane", "-p", "-e"]);
        let codes = codes.split("\u{1b}[").skip(1).filter_map(|rest| rest.split_once('m'));
        let numbers: Vec<u32> = codes.flat_map(|(code, _)| code.split(';')).filter_map(|n| n.parse().ok()).collect();
        let is_coloured = numbers.iter().any(|number| matches!(number, 30..=38 | 40..=48 | 90..=107));
        assert_eq!(is_coloured, wanted, "{variable:?}: {numbers:?}");
    }
}

#[test]
fn without_a_terminal_one_picture_is_printed() {
    let backends = backends();
    let sessile = checked(&backends);
    let print = |option: &[&str]| {
        let output = command(&[&["top"], option, &["--socket"]].concat()).arg(sessile.admin()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for option in [&[][..], &["--once"]] {
        let text = print(option);
        assert!(text.starts_with("sessile ") && row(&text, "b1").is_some() && !text.contains('\u{1b}'), "{text}");
        assert!(text.contains("  new 0/s  ") && text.contains("start    "), "{text}");
    }
    let value: Value = serde_json::from_str(&print(&["--json"])).unwrap();
    assert_eq!(value["status"]["pid"], sessile.pid());
    assert_eq!(value["rates"]["pools"]["p"]["backends"]["b0"]["new"], 0.0);
}
