//! How much memory there is left to take.

/// Bytes that this process can still take without swapping: what the system has available, or what is left of the limit
/// of its control group if that is less. `None` where it is not told, which is everywhere but on Linux.
pub(crate) fn available() -> Option<u64> {
    #[cfg(target_os = "linux")]
    return linux::available(std::path::Path::new("/"));
    #[cfg(not(target_os = "linux"))]
    return None;
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::read_to_string;
    use std::path::Path;

    /// As [`super::available`], for a file system that begins at `root`.
    pub(super) fn available(root: &Path) -> Option<u64> {
        let meminfo = read_to_string(root.join("proc/meminfo")).ok()?;
        let of_system = entry(&meminfo, "MemAvailable:")?.checked_mul(1024)?;
        let groups = read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let of_group = groups.lines().filter_map(|line| of_group(root, line)).min();
        Some(of_group.map_or(of_system, |of_group| of_group.min(of_system)))
    }

    /// The number after `name` at the beginning of a line.
    fn entry(text: &str, name: &str) -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
    }

    /// What one hierarchy of control groups leaves, by a line of /proc/self/cgroup: `id:controllers:path`.
    fn of_group(root: &Path, line: &str) -> Option<u64> {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (mounts, files): (&[&str], _) = if controllers.is_empty() {
            // Version 2, alone or beside version 1.
            let files = ["memory.max", "memory.current", "inactive_file "];
            (&["sys/fs/cgroup", "sys/fs/cgroup/unified"], files)
        } else if controllers.split(',').any(|controller| controller == "memory") {
            let files = ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "];
            (&["sys/fs/cgroup/memory"], files)
        } else {
            return None;
        };
        // The limits of the groups around it hold too. In a container the path may be that of the host, of which only
        // the end is mounted, at the root; so what is not there is skipped.
        let folders = Path::new(path.trim_start_matches('/')).ancestors();
        folders
            .flat_map(|group| mounts.iter().map(move |mount| root.join(mount).join(group)))
            .filter_map(|folder| left(&folder, files))
            .min()
    }

    /// Limit − usage of one group. Pages of files that were not used lately count as free, for they are given up first
    /// (it is how Kubernetes counts as well).
    fn left(folder: &Path, [limit, usage, inactive]: [&str; 3]) -> Option<u64> {
        let number = |file: &str| read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
        // `max` is no number: no limit.
        let (limit, usage) = (number(limit)?, number(usage)?);
        let stat = read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let inactive = entry(&stat, inactive).unwrap_or(0);
        Some(limit.saturating_sub(usage.saturating_sub(inactive)))
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use std::fs::{create_dir_all, write};

        /// A file system with these files in it.
        fn files(files: &[(&str, &str)]) -> tempfile::TempDir {
            let root = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = root.path().join(path);
                create_dir_all(path.parent().unwrap()).unwrap();
                write(path, text).unwrap();
            }
            root
        }

        const MEMINFO: (&str, &str) =
            ("proc/meminfo", "MemTotal:       100 kB\nMemFree: 10 kB\nMemAvailable:      50 kB\n");

        #[test]
        fn the_least_of_all_limits_counts() {
            let told = |more: &[(&str, &str)]| {
                let root = files(&[&[MEMINFO], more].concat());
                available(root.path())
            };
            assert_eq!(told(&[]), Some(51_200));
            let v2 = ("proc/self/cgroup", "0::/a/b\n");
            assert_eq!(told(&[v2]), Some(51_200));
            let max = ("sys/fs/cgroup/a/b/memory.max", "max\n");
            let current = ("sys/fs/cgroup/a/b/memory.current", "1000\n");
            assert_eq!(told(&[v2, max, current]), Some(51_200));
            let limit = ("sys/fs/cgroup/a/b/memory.max", "5000\n");
            assert_eq!(told(&[v2, limit, current]), Some(4_000));
            let stat = ("sys/fs/cgroup/a/b/memory.stat", "anon 5\ninactive_file 300\nactive_file 9\n");
            assert_eq!(told(&[v2, limit, current, stat]), Some(4_300));
            // The group around it.
            let outer = [("sys/fs/cgroup/a/memory.max", "3000"), ("sys/fs/cgroup/a/memory.current", "1500")];
            assert_eq!(told(&[&[v2, limit, current][..], &outer].concat()), Some(1_500));
            let over = ("sys/fs/cgroup/a/memory.max", "1000");
            assert_eq!(told(&[v2, limit, current, outer[1], over]), Some(0));
        }

        #[test]
        fn version_1_and_containers() {
            let groups = ("proc/self/cgroup", "9:cpu,cpuacct:/x\n4:memory:/docker/c0ffee\n0::/\n");
            let root = files(&[
                MEMINFO,
                groups,
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9000"),
                ("sys/fs/cgroup/memory/memory.usage_in_bytes", "2000"),
                ("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 70\n"),
            ]);
            assert_eq!(available(root.path()), Some(7_070));
            // Version 2 beside it, with less to give.
            let both = [
                ("sys/fs/cgroup/unified/memory.max", "600"),
                ("sys/fs/cgroup/unified/memory.current", "100"),
            ];
            for (file, text) in both {
                let path = root.path().join(file);
                create_dir_all(path.parent().unwrap()).unwrap();
                write(path, text).unwrap();
            }
            assert_eq!(available(root.path()), Some(500));
        }

        #[test]
        fn what_is_not_told_is_not_known() {
            assert_eq!(available(files(&[]).path()), None);
            assert_eq!(available(files(&[("proc/meminfo", "MemTotal: 5 kB\n")]).path()), None);
            let here = super::super::available().unwrap();
            assert!(here > 1 << 20);
        }
    }
}
