//! The unit in the hands of systemd itself, which is booted in namespaces of its own: start, reload, upgrade, restart,
//! watchdog.
//!
//! Files, processes, cgroups and ports of the machine are out of its reach. Invariant: the files of `config/` are used as
//! they are; what the test adds stands in folders `.d` beside them.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::support::backend::{Backend, pool};
use crate::support::load_support::Client;
use crate::support::{PATIENCE, eventually, has, is_root, skip};

/// Makes a cgroup, boots systemd below it, and removes it. `$1`: folder of the test, `$2`: the binary, `$3`: `config/`.
const BOOT: &str = r#"
mount --make-rprivate /
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
group=/sys/fs/cgroup/sessile-booted-$$
mkdir "$group"
trap 'find "$group" -depth -type d -exec rmdir {} +' EXIT
# Inside: a shell becomes the first process of the machine.
unshare --fork --pid --kill-child --mount --cgroup --uts --ipc --net bash -ec '
    echo $$ >"$0/cgroup.procs"
    exec unshare --cgroup bash -ec "$1" "$2" "$3" "$4"
' "$group" '
    umount /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount -t proc proc /proc
    mount -t tmpfs tmpfs /run
    for folder in /etc /usr/bin /var/lib /usr/lib/systemd/system-generators; do
        mkdir -p /run/over$folder/upper /run/over$folder/work
        mount -t overlay -o "lowerdir=$folder,upperdir=/run/over$folder/upper,workdir=/run/over$folder/work" overlay $folder
    done
    rm -f /usr/lib/systemd/system-generators/*
    ip link set lo up
    cp "$1" /usr/bin/sessile
    cp "$2"/sessile.service "$2"/sessile.socket /etc/systemd/system/
    cp -r "$0"/drop-ins/. /etc/systemd/system/
    systemd-sysusers "$2/sessile.sysusers.conf"
    mkdir /etc/sessile
    install -o sessile -m 600 "$0/sessile.toml" /etc/sessile/sessile.toml
    exec env -i PATH="$PATH" container=test /lib/systemd/systemd --system --unit=booted.target --show-status=no
' "$1" "$2" "$3"
"#;

/// Units that are not those of a whole machine, and shorter times.
const DROP_INS: &[(&str, &str)] = &[
    ("booted.target", "[Unit]\nDefaultDependencies=no\n"),
    ("sessile.socket.d/test.conf", "[Unit]\nDefaultDependencies=no\n"),
    ("dbus.socket.d/test.conf", "[Unit]\nDefaultDependencies=no\n"),
    ("dbus.service.d/test.conf", "[Unit]\nDefaultDependencies=no\n"),
    (
        "sessile.service.d/test.conf",
        "[Unit]\nDefaultDependencies=no\n[Service]\nTimeoutStopSec=1\nWatchdogSec=2\n\
         StandardOutput=append:/run/out.log\nStandardError=append:/run/err.log\n",
    ),
];

const FRONT: &str = "127.0.0.1:443";

/// A booted systemd.
struct Machine {
    outer: Child,
    /// Its first process, as the machine outside counts.
    first: u32,
    dir: tempfile::TempDir,
}

impl Machine {
    /// Boots, with no service started; `None` where that cannot be done.
    fn boot(test: &str, config: &str) -> Option<Self> {
        let programs = ["unshare", "nsenter", "systemctl", "systemd-sysusers", "ip"];
        if !is_root(test) || !programs.iter().all(|program| has(test, program)) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in DROP_INS {
            let path = dir.path().join("drop-ins").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::write(dir.path().join("sessile.toml"), config).unwrap();
        let log = File::create(dir.path().join("boot.log")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "bash", "-ec", BOOT, "boot"]).arg(dir.path()).arg(env!("CARGO_BIN_EXE_sessile"));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("config"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut machine = Self { outer: command.spawn().unwrap(), first: 0, dir };
        let give_up = Instant::now() + PATIENCE;
        while machine.outer.try_wait().unwrap().is_none() && Instant::now() < give_up {
            machine.first = descendant(machine.outer.id(), "systemd").unwrap_or_default();
            if machine.first != 0 && machine.systemctl(&["show", "--property=Version"]).status.success() {
                return Some(machine);
            }
            thread::sleep(Duration::from_millis(20));
        }
        skip(test, &format!("systemd cannot be booted here: {}", machine.said()));
        None
    }

    fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("boot.log")).unwrap_or_default()
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first.to_string(), "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup"]);
        command.arg(program).args(arguments).stdin(Stdio::null());
        command
    }

    fn systemctl(&self, arguments: &[&str]) -> Output {
        self.command("systemctl", arguments).output().unwrap()
    }

    /// Runs systemctl; whether it succeeded.
    fn order(&self, arguments: &[&str]) -> bool {
        self.systemctl(arguments).status.success()
    }

    fn property(&self, name: &str) -> String {
        let output = self.systemctl(&["show", "sessile.service", "--value", &format!("--property={name}")]);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn write_config(&self, text: &str) {
        let path = self.dir.path().join("sessile.toml");
        fs::write(&path, text).unwrap();
        let target = "/etc/sessile/sessile.toml";
        assert!(self.command("cp", &[path.to_str().unwrap(), target]).status().unwrap().success());
    }

    /// Does something in the network of the machine.
    fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let network = File::open(format!("/proc/{}/ns/net", self.first)).unwrap();
        let enter = || {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(enter).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn connect(&self) -> Client {
        self.inside(|| Client::connect(FRONT.parse().unwrap()))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.command("cat", &["/run/err.log"]).output().map(|output| output.stdout).unwrap_or_default();
            eprintln!("--- {}\n--- standard error of sessile\n{}", self.said(), String::from_utf8_lossy(&log));
        }
        // The first process takes all others with it; the outer one then removes the cgroup.
        match rustix::process::Pid::from_raw(self.first as i32) {
            Some(first) => drop(rustix::process::kill_process(first, rustix::process::Signal::KILL)),
            None => drop(self.outer.kill()),
        }
        let _ = self.outer.wait();
    }
}

/// A process of this name below another one.
fn descendant(pid: u32, name: &str) -> Option<u32> {
    if fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name) {
        return Some(pid);
    }
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().find_map(|child| descendant(child.parse().ok()?, name))
}

fn config(backend: SocketAddr) -> String {
    let listener = "[[listener]]\nname = \"l\"\nbind = \"systemd:https\"\npool = \"p\"\n";
    format!("stop_deadline = \"30s\"\n{listener}{}", pool("p", "", &[backend]))
}

#[test]
fn systemd_starts_reloads_restarts_and_watches_the_service() {
    // The backend is in the network of the machine, so its port is free whatever runs outside.
    let address: SocketAddr = "127.0.0.1:8000".parse().unwrap();
    let good = config(address);
    let Some(machine) = Machine::boot("systemd_starts_reloads_restarts_and_watches_the_service", &good) else {
        return;
    };
    let _backend = machine.inside(|| Backend::on(address, |stream| crate::support::backend::echo("b", &stream)));
    assert!(machine.order(&["start", "sessile.socket", "sessile.service"]), "{:?}", machine.property("Result"));
    assert_eq!(machine.property("StatusText"), "serving: generation 1, 0 connections, 1 of 1 backends up");
    assert_eq!((machine.property("User"), machine.property("SubState")), ("sessile".into(), "running".into()));

    let mut held = machine.connect();
    assert_eq!(held.ask("x"), "b x");
    assert!(machine.order(&["reload", "sessile"]));
    machine.write_config(&("nonsense = 1\n".to_owned() + &good));
    assert!(!machine.order(&["reload", "sessile"]), "a refused file");
    assert_eq!((machine.property("SubState"), held.ask("y")), ("running".into(), "b y".into()));
    let status = machine.property("StatusText");
    assert!(status.starts_with("serving: generation 2, 1 connection, ") && status.contains("nonsense"), "{status}");
    machine.write_config(&good);

    // An upgrade: what is open moves, and systemd follows the new process, which gives it signs of life.
    let before = machine.property("MainPID");
    let upgrade = machine.command("sessile", &["upgrade"]).output().unwrap();
    assert!(upgrade.status.success(), "{upgrade:?}");
    eventually("systemd to follow", || (machine.property("MainPID") != before).then_some(()));
    let followed = machine.property("MainPID");
    assert_eq!(held.ask("moved"), "b moved");
    assert_eq!(machine.connect().ask("new"), "b new");
    eventually("the status of the new process", || {
        machine.property("StatusText").starts_with("serving: ").then_some(())
    });
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        assert_eq!((machine.property("MainPID"), machine.property("SubState")), (followed.clone(), "running".into()));
        thread::sleep(Duration::from_millis(200));
    }
    assert!(machine.order(&["reload", "sessile"]), "the new process speaks for the service");
    assert_eq!((machine.property("NRestarts"), held.ask("still")), ("0".into(), "b still".into()));

    // A restart where the process cannot ask systemd, for want of D-Bus: what is open may finish, though that takes longer
    // than TimeoutStopSec; what comes meanwhile waits.
    let first = machine.property("MainPID");
    let mut restart = machine.command("systemctl", &["restart", "sessile"]).spawn().unwrap();
    eventually("the stop to begin", || (machine.property("SubState") == "stop-sigterm").then_some(()));
    let begun = Instant::now();
    eventually("listeners to close", || machine.property("StatusText").starts_with("draining: 1 ").then_some(()));
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(held.ask("still"), "b still");
        thread::sleep(Duration::from_millis(100));
    }
    let mut waiting = machine.connect();
    drop(held);
    assert_eq!(waiting.ask("at last"), "b at last");
    assert!(restart.wait().unwrap().success());
    let second = machine.property("MainPID");
    assert!(second != first && machine.property("Result") == "success");

    // A process that hangs is replaced, and the port stays open meanwhile.
    assert!(machine.command("kill", &["-STOP", &second]).status().unwrap().success());
    let mut patient = machine.connect();
    eventually("another process", || (machine.property("NRestarts") == "1").then_some(()));
    assert_eq!(patient.ask("z"), "b z");
    drop(patient);

    // A configuration with an error is not started again and again.
    machine.write_config("nonsense = 1\n");
    assert!(!machine.order(&["restart", "sessile"]));
    assert_eq!((machine.property("ActiveState"), machine.property("ExecMainStatus")), ("failed".into(), "64".into()));
}

#[test]
fn a_restart_keeps_open_connections_and_waiting_clients_and_a_stop_does_not() {
    let test = "a_restart_keeps_open_connections_and_waiting_clients_and_a_stop_does_not";
    let address: SocketAddr = "127.0.0.1:8000".parse().unwrap();
    // Without a socket of systemd: the port is the process's own.
    let own_port = config(address).replace("systemd:https", FRONT);
    if !has(test, "dbus-daemon") {
        return;
    }
    let Some(machine) = Machine::boot(test, &own_port) else { return };
    if !machine.order(&["start", "dbus.socket", "dbus.service"]) {
        skip(test, "D-Bus cannot be started here");
        return;
    }
    let _backend = machine.inside(|| Backend::on(address, |stream| crate::support::backend::echo("b", &stream)));
    assert!(machine.order(&["start", "sessile.service"]), "{:?}", machine.property("Result"));
    let mut held: Vec<_> = (0..50).map(|_| machine.connect()).collect();
    held.iter_mut().for_each(|held| assert_eq!(held.ask("x"), "b x"));
    for round in 1..=3 {
        let before = machine.property("MainPID");
        let begun = Instant::now();
        let mut restart = machine.command("systemctl", &["restart", "sessile"]).spawn().unwrap();
        // Clients come all the time; none is refused.
        let mut served = 0;
        while restart.try_wait().unwrap().is_none() {
            assert_eq!(machine.connect().ask("new"), "b new");
            served += 1;
        }
        assert!(restart.wait().unwrap().success());
        println!("round {round}: {:?}, {served} clients served meanwhile", begun.elapsed());
        assert_ne!(machine.property("MainPID"), before);
        held.iter_mut().for_each(|held| assert_eq!(held.ask("still"), "b still"));
        eventually("the store to be emptied", || (machine.property("NFileDescriptorStore") == "0").then_some(()));
        assert_eq!((machine.property("NRestarts"), machine.property("Result")), ("0".into(), "success".into()));
    }
    // After an upgrade the new process is asked and stores as the first one did.
    let upgrade = machine.command("sessile", &["upgrade"]).output().unwrap();
    assert!(upgrade.status.success(), "{upgrade:?}");
    assert!(machine.order(&["restart", "sessile"]));
    held.iter_mut().for_each(|held| assert_eq!(held.ask("still"), "b still"));

    // A stop: what is open may finish here.
    let mut stop = machine.command("systemctl", &["stop", "sessile"]).spawn().unwrap();
    eventually("the drain", || machine.property("StatusText").starts_with("draining: 50 ").then_some(()));
    let mut last = held.pop().unwrap();
    drop(held);
    assert_eq!((last.ask("still"), stop.try_wait().unwrap().is_none()), ("b still".into(), true));
    drop(last);
    assert!(stop.wait().unwrap().success());

    // With a socket of systemd, which every process gets anew.
    machine.write_config(&config(address));
    assert!(machine.order(&["start", "sessile.socket", "sessile.service"]));
    let mut held = machine.connect();
    assert_eq!(held.ask("x"), "b x");
    assert!(machine.order(&["restart", "sessile"]));
    assert_eq!((held.ask("still"), machine.connect().ask("new")), ("b still".into(), "b new".into()));
}
