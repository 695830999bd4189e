//! What this machine, or the container around this process, has.

use std::path::Path;

/// None where it is unknown or without a bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Machine {
    /// Bytes of memory.
    pub(super) memory: Option<u64>,
    /// Mappings of memory that a process may have.
    pub(super) mappings: Option<u64>,
    /// Bytes of address space that this process may have.
    pub(super) address_space: Option<u64>,
}

impl Machine {
    pub(super) fn read() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let physical = read("/proc/meminfo").and_then(|text| of_meminfo(&text));
        let contained =
            read("/proc/self/cgroup").and_then(|text| of_cgroups(Path::new("/sys/fs/cgroup"), &text));
        Self {
            memory: [physical, contained].into_iter().flatten().min(),
            mappings: read("/proc/sys/vm/max_map_count").and_then(|text| text.trim().parse().ok()),
            address_space: read("/proc/self/limits").and_then(|text| of_limits(&text)),
        }
    }
}

/// `MemTotal:       24604044 kB`
fn of_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// `Max address space         unlimited            unlimited            bytes`
fn of_limits(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The lowest limit of the control groups around this process (version 2): `0::/system.slice/x.service`.
fn of_cgroups(root: &Path, text: &str) -> Option<u64> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let group = root.join(path);
    let limits = group.ancestors().take_while(|folder| folder.starts_with(root)).filter_map(|folder| {
        // `max` is no number.
        std::fs::read_to_string(folder.join("memory.max")).ok()?.trim().parse::<u64>().ok()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_writes_is_read() {
        assert_eq!(of_meminfo("MemTotal:       24604044 kB\nMemFree: 1 kB\n"), Some(24_604_044 * 1024));
        let limits = |value: &str| {
            format!(
                "Limit   Soft Limit\nMax address space         {value}            unlimited            bytes\n"
            )
        };
        assert_eq!(of_limits(&limits("unlimited")), None);
        assert_eq!(of_limits(&limits("4294967296")), Some(1 << 32));
    }

    #[test]
    fn of_nested_control_groups_the_lowest_limit_holds() {
        let root = tempfile::tempdir().unwrap();
        let service = root.path().join("system.slice/x.service");
        std::fs::create_dir_all(&service).unwrap();
        std::fs::write(service.join("memory.max"), "max\n").unwrap();
        std::fs::write(root.path().join("system.slice/memory.max"), "1000\n").unwrap();
        std::fs::write(root.path().join("memory.max"), "2000\n").unwrap();
        assert_eq!(of_cgroups(root.path(), "0::/system.slice/x.service\n"), Some(1000));
        assert_eq!(of_cgroups(root.path(), "0::/\n"), Some(2000));
        assert_eq!(of_cgroups(root.path(), "9:memory:/x\n"), None, "version 1");
    }
}
