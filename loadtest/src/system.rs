//! What the system tells: clocks, processors, processes.

use std::io;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of a clock that all processes share and that never steps back.
pub(crate) fn now() -> u64 {
    nanos(ClockId::Monotonic)
}

/// Milliseconds since 1970.
pub(crate) fn wall_ms() -> u64 {
    nanos(ClockId::Realtime) / 1_000_000
}

/// Processor time of this thread.
pub(crate) fn thread_cpu() -> u64 {
    nanos(ClockId::ThreadCPUTime)
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Sleeps: real time is what is measured here.
#[expect(clippy::disallowed_methods, reason = "a load comes at real instants")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Sleeps until an instant of [`now`].
pub(crate) fn sleep_until(at: u64) {
    let left = at.saturating_sub(now());
    if left > 0 {
        pause(Duration::from_nanos(left));
    }
}

/// Lets this process have as many files open as the system allows; answers how many.
pub(crate) fn raise_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Which processors the server and this program run on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) server: usize,
    pub(crate) load: usize,
    /// Whether they are kept apart.
    bound: bool,
}

impl Cores {
    /// The first two that this process may use; one for both where there is only one.
    pub(crate) fn pick() -> Self {
        let allowed = sched_getaffinity(None).ok();
        let mut cores =
            (0..CpuSet::MAX_CPU).filter(|core| allowed.as_ref().is_none_or(|set| set.is_set(*core)));
        let server = cores.next().unwrap_or(0);
        Self { server, load: cores.next().unwrap_or(server), bound: true }
    }

    /// Whichever the system gives to each.
    pub(crate) fn any() -> Self {
        Self { bound: false, ..Self::pick() }
    }

    /// Binds this thread, and what it starts from now on, to the load's core.
    pub(crate) fn bind_load(self) -> anyhow::Result<()> {
        bind(self.load)
    }

    /// Starts a process on the server's core.
    pub(crate) fn spawn(self, command: &mut Command) -> anyhow::Result<Child> {
        if self.bound {
            bind(self.server)?;
        }
        let child = command.spawn();
        if self.bound {
            bind(self.load)?;
        }
        child.with_context(|| format!("{} does not start", command.get_program().display()))
    }
}

fn bind(core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).context("this process cannot choose its processor")
}

/// Processor time of a process, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cpu {
    pub(crate) user: u64,
    pub(crate) system: u64,
}

impl Cpu {
    pub(crate) fn of(pid: u32) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        Self::read(&stat).unwrap_or_default()
    }

    /// Fields 14 and 15, counted from behind the name, which may hold anything.
    fn read(stat: &str) -> Option<Self> {
        /// A tick of the kernel's count, on every Linux.
        const TICK: u64 = 10_000_000;
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace().skip(11);
        let mut next = || Some(fields.next()?.parse::<u64>().ok()? * TICK);
        Some(Self { user: next()?, system: next()? })
    }

    pub(crate) const fn since(self, before: Self) -> Self {
        let user = self.user.saturating_sub(before.user);
        Self { user, system: self.system.saturating_sub(before.system) }
    }

    pub(crate) const fn all(self) -> u64 {
        self.user + self.system
    }
}

/// Resident memory of a process.
pub(crate) fn resident_of(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// A process that ends with its owner.
pub(crate) struct Owned(pub(crate) Child);

impl Owned {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Asks it to stop and waits.
    pub(crate) fn stop(&mut self) -> io::Result<()> {
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        for _ in 0..300 {
            if self.0.try_wait()?.is_some() {
                return Ok(());
            }
            pause(Duration::from_millis(100));
        }
        self.0.kill()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 300 45 0 0 20";
        assert_eq!(Cpu::read(stat), Some(Cpu { user: 3_000_000_000, system: 450_000_000 }));
        let before = Cpu::of(std::process::id()).all();
        let until = now() + 50_000_000;
        while now() < until {}
        assert!(Cpu::of(std::process::id()).all() > before);
        assert!(resident_of(std::process::id()) > 1 << 20);
    }
}
