//! What the kernel knows of a process: memory in use, time on cores.

use std::fs;
use std::path::PathBuf;

use umbel_proto::time::Duration;

/// The kernel counts time on cores in hundredths of a second, on every architecture that matters here.
const TICKS_PER_SECOND: u64 = 100;
/// User and system time, counted from the field behind the process's name.
const USER_TICKS_INDEX: usize = 11;

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
        let exact = fs::read_to_string(self.0.join("smaps_rollup")).ok().and_then(|text| kib_field(&text, "Rss:"));
        let text = || fs::read_to_string(self.0.join("status")).ok();
        exact.or_else(|| kib_field(&text()?, "VmRSS:")).map(|kib| kib * 1024)
    }

    /// Time on cores so far, all threads together; `None` where the kernel does not say.
    pub(super) fn cpu_time(&self) -> Option<Duration> {
        let ticks = cpu_ticks(&fs::read_to_string(self.0.join("stat")).ok()?)?;
        Some(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }
}

fn kib_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?; // the name may hold anything, brackets too
    let mut times = fields.split(' ').skip(USER_TICKS_INDEX);
    let (user, system): (u64, u64) = (times.next()?.parse().ok()?, times.next()?.parse().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_is_read() {
        let stat = "12 (a b) c) S 1 2 3 4 5 6 7 8 9 10 1234 66 0 0 20 0";
        assert_eq!(cpu_ticks(stat), Some(1300));
        assert_eq!(cpu_ticks("12 (a"), None);
        assert_eq!(kib_field("VmSize:\t 9 kB\nVmRSS:\t  2048 kB\n", "VmRSS:"), Some(2048));
        assert_eq!(kib_field("VmRSS: lots", "VmRSS:"), None);
        assert!(Process::current().resident_bytes().is_some_and(|bytes| bytes > 0));
    }
}
