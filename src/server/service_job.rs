//! [`ServiceJob`]: what the service manager does with the unit of this process, as `systemctl` says it.
//!
//! Decides nothing (`upgrade` does). The signal to stop is the same for a stop and a restart, and only the manager knows
//! which of them it is. Invariant: a manager that cannot be asked, or does not answer, costs [`ANSWER_MAX`] and no more.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::detached::{self, Patience};

/// How long `systemctl` may take, for all questions together.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// How often it is looked whether `systemctl` has ended.
const LOOK: Duration = Duration::from_millis(5);

/// What the service manager does with the unit of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceJob {
    /// The unit is started again once this process has ended.
    pub restarts: bool,
    /// The unit keeps descriptors while no process of it runs.
    pub keeps_descriptors: bool,
}

impl ServiceJob {
    /// Asks the service manager; an error says why there is no answer.
    pub async fn of_this_process() -> Result<Self, String> {
        // The time of `systemctl` itself is limited below.
        let patience = Patience { each: 2 * ANSWER_MAX, whole: 2 * ANSWER_MAX };
        detached::finished_within("systemctl", patience, ask).await.map_err(|unfinished| unfinished.to_string())?
    }
}

/// The unit of a process.
#[derive(Debug, PartialEq, Eq)]
struct UnitName {
    name: String,
    /// True if the manager of a user has started it, and not that of the system.
    of_user: bool,
}

impl UnitName {
    /// The unit to which a control group belongs, from the text of `/proc/self/cgroup`: a service is a group below
    /// slices. `None`: the process belongs to no service.
    fn of_cgroup(text: &str) -> Option<Self> {
        let below = |hierarchy: &str| text.lines().find_map(|line| line.split_once(hierarchy));
        // The unified hierarchy, and the one of systemd where there are several.
        [below("0::"), below(":name=systemd:")].into_iter().flatten().find_map(|(_, path)| Self::of_path(path))
    }

    fn of_path(path: &str) -> Option<Self> {
        let groups: Vec<_> = path.split('/').collect();
        let behind_slices = groups.iter().rposition(|group| group.ends_with(".slice")).map_or(0, |at| at + 1);
        let unit = groups[behind_slices..].iter().find(|group| !group.is_empty())?;
        // A name that the kernel uses itself has a mark in front.
        let name = unit.strip_prefix('_').unwrap_or(unit);
        let of_user =
            groups[..behind_slices].iter().any(|group| group.starts_with("user@") && group.ends_with(".service"));
        name.ends_with(".service").then(|| Self { name: name.to_owned(), of_user })
    }
}

fn ask() -> Result<ServiceJob, String> {
    let text = std::fs::read_to_string("/proc/self/cgroup").map_err(|error| format!("/proc/self/cgroup: {error}"))?;
    let unit = UnitName::of_cgroup(&text).ok_or("this process belongs to no unit")?;
    let until = Instant::now() + ANSWER_MAX;
    let most = systemctl(&unit, &["show", "--property=FileDescriptorStoreMax", "--value", &unit.name], until)?;
    // All jobs: in a pattern a backslash of the name would have a meaning.
    let jobs = systemctl(&unit, &["list-jobs", "--no-legend", "--plain", "--full"], until)?;
    Ok(ServiceJob { restarts: restarts(&jobs, &unit.name), keeps_descriptors: keeps_descriptors(&most) })
}

fn keeps_descriptors(most: &str) -> bool {
    most.trim().parse::<u64>().is_ok_and(|most| most > 0)
}

/// True if there is a job that starts the unit after its stop. A line is number, unit, type and state.
fn restarts(jobs: &str, unit: &str) -> bool {
    jobs.lines().any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        matches!(words[..], [_, of, kind, state] if of == unit
            && (matches!(kind, "restart" | "try-restart") || (kind, state) == ("start", "waiting")))
    })
}

fn systemctl(unit: &UnitName, arguments: &[&str], until: Instant) -> Result<String, String> {
    let mut command = Command::new("systemctl");
    command.arg(if unit.of_user { "--user" } else { "--system" }).args(["--no-pager", "--no-ask-password"]);
    command.args(arguments).env("LC_ALL", "C").env("SYSTEMD_COLORS", "0");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| format!("systemctl: {error}"))?;
    output(child, until).map_err(|why| format!("systemctl {why}"))
}

/// What a program says that ends in time. Kills it otherwise: a program that says more than a pipe takes does not end.
fn output(mut child: Child, until: Instant) -> Result<String, String> {
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => std::thread::sleep(LOOK),
            waited => {
                let _ = child.kill();
                let _ = child.wait();
                waited.map_err(|error| error.to_string())?;
                return Err(format!("does not answer within {} s", ANSWER_MAX.as_secs()));
            }
        }
    };
    let said = |pipe: Option<&mut dyn Read>| {
        let mut text = String::new();
        pipe.map(|pipe| pipe.read_to_string(&mut text));
        text
    };
    if status.success() {
        return Ok(said(child.stdout.as_mut().map(|pipe| pipe as &mut dyn Read)));
    }
    let why = said(child.stderr.as_mut().map(|pipe| pipe as &mut dyn Read));
    Err(format!("fails: {}", why.lines().next().unwrap_or("it says nothing")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(cgroup: &str) -> Option<(String, bool)> {
        UnitName::of_cgroup(cgroup).map(|unit| (unit.name, unit.of_user))
    }

    #[test]
    fn the_unit_is_the_group_below_the_slices() {
        let system = |name: &str| Some((name.to_owned(), false));
        let user = |name: &str| Some((name.to_owned(), true));
        assert_eq!(unit("0::/system.slice/sessile.service\n"), system("sessile.service"));
        assert_eq!(
            unit("0::/system.slice/system-sessile.slice/sessile@a\\x2db.service\n"),
            system("sessile@a\\x2db.service")
        );
        assert_eq!(unit("0::/sessile.service"), system("sessile.service"));
        assert_eq!(unit("0::/system.slice/sessile.service/below"), system("sessile.service"), "a part of the unit");
        assert_eq!(unit("0::/system.slice/_cpu.service"), system("cpu.service"));
        let of_user = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/sessile.service";
        assert_eq!(unit(of_user), user("sessile.service"));
        let several = "9:name=systemd:/system.slice/sessile.service\n8:pids:/other.service\n0::/\n";
        assert_eq!(unit(several), system("sessile.service"), "several hierarchies");
        let unified = "9:name=systemd:/\n8:pids:/\n0::/system.slice/sessile.service\n";
        assert_eq!(unit(unified), system("sessile.service"));
    }

    #[test]
    fn a_process_outside_of_a_service_has_no_unit() {
        for cgroup in [
            "",
            "0::/\n",
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/shell.scope",
            "0::/user.slice/user-1000.slice/session-3.scope",
            "0::/system.slice/docker-0123.scope",
            "0::/kubepods/burstable/pod1/0123",
            "5:cpu:/system.slice/sessile.service\n0::/\n",
        ] {
            assert_eq!(unit(cgroup), None, "{cgroup}");
        }
    }

    #[test]
    fn a_restart_is_told_from_a_stop() {
        // As systemd 252 says it.
        assert!(restarts("12 sessile.service restart running\n", "sessile.service"));
        assert!(restarts(
            "  7 other.service stop running\n 15 sessile.service try-restart waiting\n",
            "sessile.service"
        ));
        assert!(restarts("3 sessile.service start waiting", "sessile.service"));
        for jobs in [
            "",
            "18 sessile.service stop running\n",
            "18 sessile.service start running\n",
            "18 other-sessile.service restart running\n",
            "No jobs running.\n",
            "restart sessile.service\n",
        ] {
            assert!(!restarts(jobs, "sessile.service"), "{jobs}");
        }
    }

    #[test]
    fn a_unit_keeps_descriptors_if_it_says_how_many() {
        assert!(keeps_descriptors("8\n"));
        for none in ["0\n", "", "[not set]", "-1"] {
            assert!(!keeps_descriptors(none), "{none}");
        }
    }

    fn run(script: &str, within: Duration) -> Result<String, String> {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
        output(command.spawn().unwrap(), Instant::now() + within)
    }

    #[test]
    fn a_program_that_fails_or_hangs_is_an_error_in_time() {
        let long = Duration::from_secs(20);
        assert_eq!(run("echo 8", long), Ok("8\n".to_owned()));
        assert_eq!(run("echo no bus >&2; echo more >&2; exit 1", long), Err("fails: no bus".to_owned()));
        assert_eq!(run("exit 4", long), Err("fails: it says nothing".to_owned()));
        let begun = Instant::now();
        let late = run("exec sleep 60", Duration::from_millis(50)).unwrap_err();
        assert!(late.starts_with("does not answer within"), "{late}");
        assert!(begun.elapsed() < long);
    }
}
