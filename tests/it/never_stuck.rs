//! What does not end or answer holds no start, no reload, no check and no exit: pipes in the place of files, a disk that
//! is dead, outputs that are full.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::backend::{Backend, listener, pool};
use crate::support::http::{unix_get, unix_post};
use crate::support::load_support::Client;
use crate::support::sessile::{command, run};
use crate::support::{PATIENCE, Sessile, eventually, has, is_root, skip};

/// What a command says in the end, which must come in time.
fn output_of(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    ends(&mut child);
    child.wait_with_output().unwrap()
}

fn ends(child: &mut Child) -> Option<i32> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if begun.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("the command does not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Exit code and both outputs of the binary with these arguments.
fn verdict(arguments: &[&str]) -> (Option<i32>, String) {
    let output = output_of(command(arguments));
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

fn make_pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// A reader and writer of a pipe with a name, which keeps readers waiting: it is opened and nothing is written.
fn silent_writer(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

/// Whatever can be in the place of a file, and what is said of it.
fn no_files(folder: &Path) -> Vec<(PathBuf, &'static str)> {
    let at = |name: &str| folder.join(name);
    make_pipe(&at("pipe"));
    make_pipe(&at("silent"));
    fs::create_dir(at("folder")).unwrap();
    symlink("/dev/zero", at("zero")).unwrap();
    File::create(at("sparse")).unwrap().set_len(1 << 30).unwrap();
    vec![
        (at("pipe"), "it is a pipe, not a file"),
        (at("silent"), "it is a pipe, not a file"),
        (at("folder"), "it is a folder, not a file"),
        (at("zero"), "it is a device, not a file"),
        (at("sparse"), "it is longer than 16 MiB"),
    ]
}

fn small_config() -> String {
    listener("p", "") + &pool("p", "", &["127.0.0.1:1".parse().unwrap()])
}

#[test]
fn a_configuration_that_is_no_file_is_refused_by_start_and_check_and_plan() {
    let dir = tempfile::tempdir().unwrap();
    let files = no_files(dir.path());
    let _writer = silent_writer(&dir.path().join("silent"));
    for (path, why) in files {
        let path = path.to_str().unwrap();
        for arguments in [
            &["run", "--config", path][..],
            &["check", path],
            &["plan", path, path],
            &["explain", "--config", path, "--client", "127.0.0.1"],
            &["status", "--config", path],
        ] {
            let (code, said) = verdict(arguments);
            assert_eq!(code, Some(64), "{arguments:?}: {said}");
            assert!(said.contains(why), "{arguments:?}: {said}");
        }
    }
}

#[test]
fn a_configuration_that_is_no_file_is_refused_by_a_reload_and_the_process_goes_on_and_ends() {
    let backend = Backend::named("b");
    let mut sessile = Sessile::start(&(listener("p", "") + &pool("p", "", &[backend.address])));
    let folder = sessile.dir.path().join("odd");
    fs::create_dir(&folder).unwrap();
    let files = no_files(&folder);
    let (_writer, _watchdog) = (silent_writer(&folder.join("silent")), Watchdog::over(sessile.pid()));
    for (path, why) in &files {
        fs::remove_file(sessile.file()).unwrap();
        symlink(path, sessile.file()).unwrap();
        let verdict = reload(&sessile);
        assert_eq!((&verdict["accepted"], &verdict["generation"]), (&false.into(), &1.into()), "{verdict}");
        assert!(verdict["problems"][0].as_str().unwrap().ends_with(why), "{verdict}");
        assert_eq!(Client::connect(sessile.address("l")).ask("x"), "b x");
    }
    sessile.signal(Signal::TERM);
    assert_eq!(sessile.wait().code(), Some(0));
}

/// Requests a reload of the file as it is.
fn reload(sessile: &Sessile) -> Value {
    serde_json::from_str(&unix_post(&sessile.admin(), "/reload").unwrap().1).unwrap()
}

/// A configuration that names a file in every place where one can be named; each name is the letter `F` and a number.
fn with_files(front: SocketAddr) -> String {
    format!(
        "[tls]\nticket_keys = \"$DIR/F1\"\n\
         [store]\nkind = \"redis\"\nurl = \"rediss://127.0.0.1:6379\"\nca = \"$DIR/F2\"\nuser = \"u\"\npassword_file = \"$DIR/F3\"\n\
         secret_file = \"$DIR/F4\"\n\
         [[listener]]\nname = \"l\"\nbind = \"{front}\"\ntls = \"terminate\"\npool = \"p\"\n\
         certificate = [{{ cert = \"$DIR/F5\", key = \"$DIR/F6\" }}]\nclient_certificate = {{ ca = \"$DIR/F7\" }}\n\
         [[pool]]\nname = \"p\"\nhttp = true\nbackend = [{{ name = \"a\", address = \"127.0.0.1:1\" }}]\ncheck = \"off\"\n\
         tls = {{ ca = \"$DIR/F8\"}}\n\
         cookie = {{ mode = \"insert\", keys = \"$DIR/F9\" }}\n"
    )
}

#[test]
fn keys_certificates_and_secrets_that_are_pipes_are_all_named_in_one_verdict() {
    const FILES: usize = 9;
    let mut sessile = Sessile::start(&small_config());
    let _watchdog = Watchdog::over(sessile.pid());
    for number in 1..=FILES {
        make_pipe(&sessile.dir.path().join(format!("F{number}")));
    }
    // A writer that never writes holds a reader that was not held by the open.
    let _writers: Vec<_> =
        (1..=FILES).step_by(2).map(|n| silent_writer(&sessile.dir.path().join(format!("F{n}")))).collect();
    let refused = sessile.reload(&with_files("127.0.0.1:0".parse().unwrap()));
    let (code, checked) = verdict(&["check", sessile.file().to_str().unwrap()]);
    let (started, said) = verdict(&["run", "--config", sessile.file().to_str().unwrap()]);
    assert_eq!((code, started, &refused["accepted"]), (Some(64), Some(64), &false.into()), "{refused}");
    for number in 1..=FILES {
        let named = format!("/F{number}\": it is a pipe, not a file");
        for text in [&refused.to_string().replace("\\\"", "\""), &checked, &said] {
            assert!(text.contains(&named), "F{number}: {text}");
        }
    }
    sessile.signal(Signal::TERM);
    assert_eq!(sessile.wait().code(), Some(0));
}

#[test]
fn a_pipe_in_the_place_of_the_lock_or_of_the_stick_table_holds_no_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sessile.toml");
    let start = |top: &str| {
        let admin = format!("[admin]\nsocket = \"{}\"\n", dir.path().join("admin.sock").display());
        fs::write(&file, top.to_owned() + &admin + &small_config()).unwrap();
        verdict(&["run", "--config", file.to_str().unwrap()])
    };
    make_pipe(&dir.path().join("admin.lock"));
    let (code, said) = start("");
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("admin.lock: it is a pipe, not a file"), "{said}");
    fs::remove_file(dir.path().join("admin.lock")).unwrap();
    let table = dir.path().join("stick-table");
    make_pipe(&table);
    let (code, said) = start(&format!("stick_table_file = \"{}\"\n", table.display()));
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("stick-table\": it is a pipe, not a file"), "{said}");
}

#[test]
fn a_pipe_that_the_caller_has_opened_for_a_command_is_read() {
    let config = small_config();
    for path in ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"] {
        let mut check = command(&["check", path]);
        check.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut check = check.spawn().unwrap();
        let mut input = check.stdin.take().unwrap();
        let (begin, rest) = config.split_at(config.len() / 2);
        input.write_all(begin.as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(50));
        input.write_all(rest.as_bytes()).unwrap();
        drop(input);
        assert_eq!(ends(&mut check), Some(0), "{path}");
    }
    let mut endless = command(&["check", "/dev/stdin"]);
    endless.stdin(File::open("/dev/zero").unwrap());
    let output = output_of(endless);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.as_str()), (Some(64), "sessile: /dev/stdin: it is longer than 16 MiB\n"));
}

/// A file system in the mount namespace of a process that never answers: there is no program behind it. Dropping this
/// makes every access to it fail.
struct DeadDisk {
    holder: Child,
    mounts: String,
    folder: PathBuf,
}

impl DeadDisk {
    /// Covers a folder; `None`: such a mount is not allowed here.
    fn over(folder: &Path, pid: u32) -> Option<Self> {
        let (mounts, at) = (format!("--mount=/proc/{pid}/ns/mnt"), folder.display());
        let options = "fd=3,rootmode=40000,user_id=0,group_id=0";
        let script =
            format!("exec 3<>/dev/fuse; mount -i -t fuse -o {options} dead '{at}'; echo mounted; exec sleep 1000");
        let mut holder = Command::new("nsenter");
        holder.args([&mounts, "sh", "-ec", &script]).stdout(Stdio::piped()).stdin(Stdio::null());
        let mut holder = holder.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let disk = Self { holder, mounts, folder: folder.to_owned() };
        (said == "mounted\n").then_some(disk)
    }

    /// Takes the disk away: the folder is there again.
    fn remove(self) {
        let (mounts, folder) = (self.mounts.clone(), self.folder.clone());
        drop(self);
        let mut umount = Command::new("nsenter");
        umount.arg(mounts).args(["umount", "-l"]).arg(folder);
        assert!(umount.status().unwrap().success());
    }
}

impl Drop for DeadDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A process in a mount namespace of its own; its configuration is a link into the folder `disk`.
fn beside_a_disk(config: &str) -> Sessile {
    let script = "d=$(dirname \"$3\"); mkdir \"$d/disk\"; mv \"$3\" \"$d/disk/\"; ln -s disk/sessile.toml \"$3\"\n\
                  exec \"$0\" \"$@\"";
    Sessile::start_in_shell(&["unshare", "-m"], script, config)
}

/// Kills a process that hangs, so that the test fails instead of hanging with it.
struct Watchdog(#[expect(dead_code, reason = "its end is the signal")] Sender<()>);

impl Watchdog {
    fn over(pid: u32) -> Self {
        let (alive, ended) = channel::<()>();
        thread::spawn(move || {
            if ended.recv_timeout(6 * PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        });
        Self(alive)
    }
}

fn has_thread(sessile: &Sessile, name: &str) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", sessile.pid())).unwrap().flatten();
    let mut names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.any(|comm| comm.trim_end() == name)
}

#[test]
fn a_disk_that_is_dead_holds_no_reload_no_watch_no_write_and_no_exit() {
    const TEST: &str = "a dead disk";
    if !is_root(TEST) || !["unshare", "nsenter", "mount"].iter().all(|program| has(TEST, program)) {
        return;
    }
    let checked = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = checked.local_addr().unwrap();
    let backend = Backend::named("b");
    let config = "watch = true\nstick_table_file = \"$DIR/disk/stick-table\"\nstick_table_interval = \"1s\"\n"
        .to_owned()
        + &listener("p", "")
        + "[[listener]]\nname = \"u\"\nbind = \"unix:$DIR/disk/front.sock\"\npool = \"keyless\"\n"
        + &pool("p", "", &[backend.address])
        + &pool("keyless", "balance = \"random\"", &[backend.address])
        + &pool("checked", "", &[address]).replace("kind = \"off\"", "kind = \"tcp\"\ninterval = \"100ms\"\nfall = 1");
    let mut sessile = beside_a_disk(&config);
    let _watchdog = Watchdog::over(sessile.pid());
    let folder = sessile.dir.path().join("disk");
    let Some(disk) = DeadDisk::over(&folder, sessile.pid()) else { return skip(TEST, "may not mount") };

    // The reload waits for its patience, and nothing else waits for the reload.
    let admin = sessile.admin();
    let begun = Instant::now();
    let waits = thread::spawn(move || unix_post(&admin, "/reload").unwrap());
    drop(checked);
    eventually("a check to fail meanwhile", || {
        let status = sessile.status();
        let pools = status["pools"].as_array().unwrap();
        pools.iter().any(|pool| pool["name"] == "checked" && pool["backends"][0]["state"] == "down").then_some(())
    });
    assert_eq!(Client::connect(sessile.address("l")).ask("x"), "b x");
    assert!(sessile.metrics().contains("sessile_"));
    assert!(begun.elapsed() < Duration::from_secs(9) && !waits.is_finished(), "{:?}", begun.elapsed());
    let (code, body) = waits.join().unwrap();
    assert!(code == 409 && body.contains("took longer than 10 s"), "{code} {body}");
    // Another one does not wait, and starts no thread that is stuck too.
    let begun = Instant::now();
    let again = reload(&sessile);
    assert!(again["problems"][0].as_str().unwrap().contains("took longer than 10 s, and is waited for"), "{again}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let complaint = eventually("the stick-table file to be named", || {
        let complaint = sessile.status()["stick_table_file"]["complaint"].as_str().map(str::to_owned);
        complaint.filter(|complaint| complaint.contains("took longer than 10 s"))
    });
    assert!(complaint.starts_with("writing \"") && complaint.contains("/disk/stick-table"), "{complaint}");

    // The disk is there again: what was stuck ends, and a reload reads.
    disk.remove();
    eventually("a reload to be accepted", || (reload(&sessile)["accepted"] == true).then_some(()));
    eventually("the stick-table file to be written", || {
        sessile.status()["stick_table_file"]["complaint"].is_null().then_some(())
    });

    // A reload that waits, a write that waits, and the end.
    let _disk = DeadDisk::over(&folder, sessile.pid()).expect("a mount as before");
    let admin = sessile.admin();
    let waits = thread::spawn(move || unix_post(&admin, "/reload"));
    eventually("the reload to wait", || has_thread(&sessile, "reading").then_some(()));
    sessile.signal(Signal::TERM);
    assert_eq!(sessile.wait().code(), Some(0));
    if let Some((_, body)) = waits.join().unwrap() {
        assert!(body.contains("the process is stopping"), "{body}");
    }
    assert!(sessile.said().contains("stick-table cannot be written: writing"), "the last write is named");
}

#[test]
fn a_resolver_that_does_not_answer_holds_no_reload_and_no_exit() {
    const TEST: &str = "a silent resolver";
    if !is_root(TEST) || !["unshare", "mount"].iter().all(|program| has(TEST, program)) {
        return;
    }
    // A loopback host of this process alone.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, 64 | high, middle, low);
    let Ok(_silent) = UdpSocket::bind((host, 53)) else { return skip(TEST, "may not be a resolver") };
    let script = format!(
        "d=$(dirname \"$3\"); printf 'nameserver {host}\\noptions timeout:30 attempts:1\\n' > \"$d/resolv.conf\"\n\
         mount --bind \"$d/resolv.conf\" /etc/resolv.conf\nexec \"$0\" \"$@\""
    );
    let mut sessile = Sessile::start_in_shell(&["unshare", "-m"], &script, &small_config());
    let _watchdog = Watchdog::over(sessile.pid());
    let named = small_config().replace("127.0.0.1:1", "no-such-host.example:1");
    let begun = Instant::now();
    let refused = sessile.reload(&named);
    let why = "looking up \"no-such-host.example:1\" took longer than 10 s";
    assert_eq!(refused["problems"][0].as_str(), Some(why), "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    // The resolver is still waited for, for twenty seconds more.
    sessile.signal(Signal::TERM);
    assert_eq!(sessile.wait().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
}

/// A pipe without room for one byte, and the end to read it from.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let size = rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    assert_eq!(rustix::io::write(&writer, &vec![b'\n'; size]).unwrap(), size);
    (reader, writer)
}

/// Refused by a reload with a message of a quarter of a megabyte.
fn many_problems() -> String {
    (0..4_000).map(|n| format!("an_unknown_key_with_a_long_name_{n} = {n}\n")).collect::<String>() + &small_config()
}

/// A process whose standard error is full for so long, while everything else goes on.
fn with_a_full_standard_error(time: Duration) {
    let begun = Instant::now();
    let (checks, checked) = channel();
    let probed = Backend::serving(move |_| checks.send(()).map_err(std::io::Error::other));
    let backend = Backend::named("b");
    let config = "workers = 1\n".to_owned()
        + &listener("p", "")
        + &pool("p", "", &[backend.address])
        + &pool("checked", "", &[probed.address]).replace("kind = \"off\"", "kind = \"tcp\"\ninterval = \"100ms\"");
    let (reader, writer) = full_pipe();
    let mut sessile = Sessile::spawn(&config, |command| {
        command.stderr(Stdio::from(writer));
    });
    sessile.ready();
    let _watchdog = Watchdog::over(sessile.pid());
    let lost = || sessile.metric("sessile_messages_lost_total");
    let mut held = Client::connect(sessile.address("l"));
    assert_eq!(held.ask("x"), "b x");
    // A panic is a message as well: the thread that says it serves other connections.
    let id = sessile.json("/connections?pool=p")["connections"][0]["id"].as_u64().unwrap();
    assert_eq!(unix_post(&sessile.admin(), &format!("/connections/{id}/panic")).unwrap().0, 202);
    let _ = held.try_ask("x");
    assert_eq!(Client::connect(sessile.address("l")).ask("x"), "b x");
    // A thousand messages of the control thread.
    let orders = Instant::now();
    for order in ["drain", "ready"].iter().cycle().take(1_000) {
        assert_eq!(unix_post(&sessile.admin(), &format!("/backends/checked/b0/{order}")).unwrap().0, 200);
    }
    assert!(orders.elapsed() < Duration::from_secs(15), "{:?}", orders.elapsed());
    let good = fs::read_to_string(sessile.file()).unwrap();
    eventually("messages to be lost", || {
        assert_eq!(sessile.reload(&many_problems())["accepted"], false);
        (lost() > 0.0).then_some(())
    });
    fs::write(sessile.file(), good).unwrap();
    while begun.elapsed() < time {
        checked.try_iter().for_each(drop);
        checked.recv_timeout(PATIENCE).expect("a check goes on");
        assert_eq!(Client::connect(sessile.address("l")).ask("x"), "b x");
        assert_eq!(unix_get(&sessile.admin(), "/readyz").unwrap().0, 200);
    }
    assert_eq!(reload(&sessile)["accepted"], true);
    let count = lost();
    let shown = run(&["status", "--socket", sessile.admin().to_str().unwrap()]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains(&format!("messages about the process: {count} lost")), "{count}: {shown}");

    // Read again: what waited comes whole, then what was lost is said.
    let mut lines = BufReader::new(File::from(reader)).lines().map(Result::unwrap).filter(|line| !line.is_empty());
    let first = lines.find(|line| line.contains("ready: 1 workers"));
    assert!(first.is_some_and(|line| serde_json::from_str::<Value>(&line).is_ok()), "lines of the start");
    assert!(lines.any(|line| line.contains("panicked at")), "the panic is said");
    let said = lines.find(|line| line.contains("messages about the process were lost")).expect("the loss is said");
    assert!(said.contains(&format!("{count} messages")), "{count}: {said}");
    sessile.signal(Signal::TERM);
    assert!(lines.any(|line| line.contains("stopping:")), "messages come again");
    assert_eq!(sessile.wait().code(), Some(0));
}

#[test]
fn a_full_standard_error_holds_no_check_no_admin_no_reload_and_what_it_lost_is_said() {
    with_a_full_standard_error(Duration::from_secs(5));
}

#[test]
#[ignore = "takes a minute"]
fn a_standard_error_that_is_full_for_a_minute_holds_nothing() {
    with_a_full_standard_error(Duration::from_secs(60));
}

#[test]
fn a_process_with_both_outputs_full_serves_and_ends_when_it_is_told_so() {
    let backend = Backend::named("b");
    let config = listener("p", "") + &pool("p", "", &[backend.address]);
    let ((_errors, error_end), (_lines, output_end)) = (full_pipe(), full_pipe());
    let mut sessile = Sessile::spawn(&config, |command| {
        command.stderr(Stdio::from(error_end)).stdout(Stdio::from(output_end));
    });
    sessile.ready();
    for _ in 0..100 {
        assert_eq!(Client::connect(sessile.address("l")).ask("x"), "b x");
    }
    assert_eq!(sessile.reload(&config)["accepted"], true);
    sessile.signal(Signal::TERM);
    assert_eq!(sessile.wait().code(), Some(0));
}

#[test]
fn a_start_that_fails_ends_although_its_standard_error_is_full() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let in_use = small_config().replace("127.0.0.1:0", &taken.local_addr().unwrap().to_string());
    for (config, code) in [("bogus = 1\n".to_owned(), 64), (in_use, 69)] {
        let (_reader, writer) = full_pipe();
        let mut sessile = Sessile::spawn(&config, |command| {
            command.stderr(Stdio::from(writer));
        });
        assert_eq!(sessile.wait().code(), Some(code), "{config}");
    }
}
