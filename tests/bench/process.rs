//! The kernel's figures for a process: memory in use, time on cores.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use umbel_proto::time::Duration;

/// A process of this machine.
#[derive(Debug, Clone)]
pub(super) struct Process(PathBuf);

impl Process {
    /// This one.
    pub(super) fn current() -> Self {
        Self(PathBuf::from("/proc/self"))
    }

    /// The one with this id.
    pub(super) fn with_id(id: u32) -> Self {
        Self(PathBuf::from(format!("/proc/{id}")))
    }

    /// Memory that it has in use (resident set), bytes; `None` where the kernel does not say.
    pub(super) fn resident_bytes(&self) -> Option<u64> {
        // `status` is what the kernel adds up cheaply, and late; `smaps_rollup` counts pages.
        let exact = fs::read_to_string(self.0.join("smaps_rollup"))
            .ok()
            .and_then(|text| kib_field(&text, "Rss:"));
        let text = || fs::read_to_string(self.0.join("status")).ok();
        exact
            .or_else(|| kib_field(&text()?, "VmRSS:"))
            .map(|kib| kib * 1024)
    }

    /// How much of that is not pages of files, as text for a row's note. The rest includes the
    /// program, which processes share and the kernel may drop.
    pub(super) fn of_its_own(&self) -> String {
        let text = fs::read_to_string(self.0.join("smaps_rollup")).ok();
        let kib = text.and_then(|text| kib_field(&text, "Anonymous:"));
        kib.map_or_else(String::new, |kib| {
            format!("; {kib} KiB of it are its own, the rest pages of the program's file")
        })
    }

    /// Each thread's time on cores; `None` where the kernel does not say.
    fn cpu_times(&self) -> Option<CpuTimes> {
        let mut times = BTreeMap::new();
        for thread in fs::read_dir(self.0.join("task")).ok()?.flatten() {
            // A thread may end between the two.
            if let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) {
                times.insert(thread.file_name(), first_number(&text)?);
            }
        }
        Some(CpuTimes(times))
    }
}

/// The calling thread's time on cores; `None` where the kernel does not say.
pub(super) fn thread_cpu_time() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(first_number(&text)?))
}

/// Nanoseconds on cores, by thread.
struct CpuTimes(BTreeMap<OsString, u64>);

impl CpuTimes {
    /// Time added since then. A thread that ended in between takes its time with it.
    fn since(&self, before: &Self) -> Duration {
        let added = |(thread, ns): (&OsString, &u64)| {
            ns.saturating_sub(before.0.get(thread).copied().unwrap_or(0))
        };
        Duration::from_nanos(self.0.iter().map(added).sum())
    }
}

/// A piece of work by some processes: how long it takes, and what each of them does for it.
pub(super) struct Meter {
    started: Instant,
    before: Vec<(Process, Option<CpuTimes>)>,
}

/// The figures that a [`Meter`] read.
pub(super) struct Reading {
    /// Seconds that passed.
    pub(super) wall: f64,
    /// Seconds on cores, by process; `None` where the kernel does not say.
    pub(super) cpu: Vec<Option<f64>>,
}

impl Meter {
    /// From now on.
    pub(super) fn start(processes: impl IntoIterator<Item = Process>) -> Self {
        let with_times = |process: Process| {
            let times = process.cpu_times();
            (process, times)
        };
        let before = processes.into_iter().map(with_times).collect();
        Self {
            started: Instant::now(),
            before,
        }
    }

    /// Until now.
    pub(super) fn stop(self) -> Reading {
        let wall = self.started.elapsed().as_secs_f64();
        let spent = |(process, before): (Process, Option<CpuTimes>)| {
            Some(process.cpu_times()?.since(&before?).as_secs_f64())
        };
        Reading {
            wall,
            cpu: self.before.into_iter().map(spent).collect(),
        }
    }
}

impl Reading {
    /// Seconds on cores of all processes together.
    pub(super) fn cpu_sum(&self) -> Option<f64> {
        self.cpu.iter().copied().sum()
    }
}

fn kib_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    first_number(line)
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read() {
        assert_eq!(first_number("7104926 151 3\n"), Some(7_104_926));
        assert_eq!(
            kib_field("VmSize:\t 9 kB\nVmRSS:\t  2048 kB\n", "VmRSS:"),
            Some(2048)
        );
        assert_eq!(kib_field("VmRSS: lots", "VmRSS:"), None);
        assert!(
            Process::current()
                .resident_bytes()
                .is_some_and(|bytes| bytes > 0)
        );
    }

    #[test]
    fn time_on_cores_is_counted_by_thread() {
        let times = |of: &[(&str, u64)]| {
            CpuTimes(of.iter().map(|&(thread, ns)| (thread.into(), ns)).collect())
        };
        let (before, after) = (
            times(&[("1", 10), ("2", 70)]),
            times(&[("1", 15), ("3", 4)]),
        );
        assert_eq!(after.since(&before), Duration::from_nanos(9));
    }
}
