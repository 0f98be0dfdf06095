//! A disk that is dead and a resolver that does not answer.

use super::*;

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
    sessile.says("stick-table cannot be written: writing");
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
    let accepted = sessile.reload(&named);
    assert!(accepted["accepted"] == true, "{accepted}");
    let warnings = accepted["warnings"].to_string();
    assert!(warnings.contains("cannot be resolved") && warnings.contains("the backend is down"), "{accepted}");
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    sessile.signal(Signal::TERM);
    assert_eq!(sessile.wait().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(16), "{:?}", begun.elapsed());
}
