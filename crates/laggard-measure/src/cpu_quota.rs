//! The processor time that control groups allow this process. Source: Linux,
//! Documentation/admin-guide/cgroup-v2.rst (`cpu.max`) and Documentation/scheduler/sched-bwc.rst
//! (`cpu.cfs_quota_us`, `cpu.cfs_period_us`).

use std::fs;
use std::path::{Path, PathBuf};

/// Processors' worth of time that the tightest of this process's control groups allows; `None`
/// where none limits it.
pub(crate) fn cpu_quota() -> Option<f64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    quota(&groups, Path::new("/sys/fs/cgroup"))
}

fn quota(groups: &str, root: &Path) -> Option<f64> {
    let limits = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next().unwrap_or(""), fields.next().unwrap_or("/"));
        if controllers.is_empty() {
            return limits_above(root, path, of_version_2);
        }
        if !controllers.split(',').any(|name| name == "cpu") {
            return Vec::new();
        }
        let by_name = limits_above(&root.join("cpu"), path, of_version_1);
        match by_name.is_empty() {
            true => limits_above(&root.join(controllers), path, of_version_1),
            false => by_name,
        }
    });
    limits.min_by(f64::total_cmp)
}

/// Limits of a group and of all that it is in.
fn limits_above(mount: &Path, group: &str, read: fn(&Path) -> Option<f64>) -> Vec<f64> {
    let group: PathBuf = mount.join(group.trim_start_matches('/'));
    let above = group.ancestors().take_while(|path| path.starts_with(mount));
    above.filter_map(read).collect()
}

fn of_version_2(group: &Path) -> Option<f64> {
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    let mut fields = text.split_whitespace();
    let quota: f64 = fields.next()?.parse().ok()?;
    let period: f64 = fields.next()?.parse().ok()?;
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

fn of_version_1(group: &Path) -> Option<f64> {
    let read = |name| -> Option<f64> {
        let text = fs::read_to_string(group.join(name)).ok()?;
        text.trim().parse().ok()
    };
    let (quota, period) = (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let check = |groups: &str, expect: Option<f64>| {
            assert_eq!(quota(groups, root.path()), expect, "{groups}");
        };
        check("0::/job/rank", None);
        write("job/cpu.max", "150000 100000\n");
        write("job/rank/cpu.max", "max 100000\n");
        check("0::/job/rank", Some(1.5));
        check("0::/job/other", Some(1.5));
        check("0::/elsewhere", None);
        write("cpu/slow/cpu.cfs_quota_us", "5000\n");
        write("cpu/slow/cpu.cfs_period_us", "10000\n");
        write("cpu/cpu.cfs_quota_us", "-1\n");
        write("cpu/cpu.cfs_period_us", "100000\n");
        check("4:memory:/slow\n1:cpu:/slow\n", Some(0.5));
        check("1:cpu:/\n", None);
        check("4:memory:/slow\n", None);
        write("cpu,cpuacct/both/cpu.cfs_quota_us", "25000\n");
        write("cpu,cpuacct/both/cpu.cfs_period_us", "100000\n");
        check("3:cpu,cpuacct:/both\n", Some(0.25));
        check("nonsense", None);
    }
}
