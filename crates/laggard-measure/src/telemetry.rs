//! What processors do while a job runs: everybody's time from `/proc/stat`, this process's from its
//! threads' statistics. Where the system has no such files there are no rows, and no error.

use crate::job::Job;
use crate::manifest::monotonic_ns;
use laggard_record::Telemetry;
use laggard_types::Rank;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// Samples the processors that a job may use.
pub(crate) struct Sampler {
    /// Host of each processor of the job.
    host_of_processor: BTreeMap<u32, u32>,
    /// Nanoseconds of a tick of `/proc/stat`.
    tick_ns: i64,
    last: Option<Snapshot>,
}

/// Counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Snapshot {
    at_ns: i64,
    processors: BTreeMap<u32, Ticks>,
    /// Of each thread of this process: where it was last, and how long it has run.
    threads: BTreeMap<u32, Thread>,
}

/// Time of one processor since boot, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    busy: i64,
    steal: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Thread {
    processor: u32,
    run_ns: i64,
}

impl Sampler {
    /// A sampler, with its first look at the counters. Where other processes have ranks as well,
    /// `only_rank` looks after the processor that it is bound to and no other.
    pub(crate) fn new(job: &Job, only_rank: Option<Rank>) -> Self {
        let mut host_of_processor = BTreeMap::new();
        if only_rank.is_none() {
            let processors = job.reports.iter().flat_map(|report| &report.allowed_cpus);
            host_of_processor.extend(processors.map(|processor| (*processor, 0)));
        }
        for rank in (0..job.settings.ranks()).filter(|it| only_rank.is_none_or(|own| own == *it)) {
            if let Some(processor) = job.processor_of(rank) {
                host_of_processor.insert(processor, job.host_of_rank[rank as usize]);
            }
        }
        let tick_ns = tick_ns();
        let last = tick_ns.and_then(|_| Snapshot::take());
        Self {
            host_of_processor,
            tick_ns: tick_ns.unwrap_or(1),
            last,
        }
    }

    /// What the processors did since the last call.
    pub(crate) fn sample(&mut self) -> Vec<Telemetry> {
        let Some(last) = self.last.take() else {
            return Vec::new();
        };
        let Some(now) = Snapshot::take() else {
            return Vec::new();
        };
        let rows = self.between(&last, &now);
        self.last = Some(now);
        rows
    }

    fn between(&self, last: &Snapshot, now: &Snapshot) -> Vec<Telemetry> {
        let mut own: BTreeMap<u32, i64> = BTreeMap::new();
        for (id, thread) in &now.threads {
            // A thread that has moved is counted where it was seen last.
            let before = last.threads.get(id).map_or(0, |before| before.run_ns);
            *own.entry(thread.processor).or_default() += (thread.run_ns - before).max(0);
        }
        let mut rows = Vec::new();
        for (processor, host) in &self.host_of_processor {
            let ticks = (
                last.processors.get(processor),
                now.processors.get(processor),
            );
            let (Some(before), Some(after)) = ticks else {
                continue;
            };
            rows.push(Telemetry {
                host: *host,
                cpu: *processor,
                start_ns: last.at_ns,
                end_ns: now.at_ns,
                busy_ns: (after.busy - before.busy).max(0) * self.tick_ns,
                own_ns: own.get(processor).copied().unwrap_or(0),
                steal_ns: (after.steal - before.steal).max(0) * self.tick_ns,
            });
        }
        rows
    }
}

/// Share of the time of some processors that is in use while the calling thread sleeps for so long;
/// `None` where the system does not tell.
pub(crate) fn load(processors: &[u32], watch: Duration) -> Option<f64> {
    let (tick_ns, before) = (tick_ns()?, Snapshot::take()?);
    std::thread::sleep(watch);
    let after = Snapshot::take()?;
    let busy = |of: &Snapshot| -> Option<i64> {
        let ticks = processors
            .iter()
            .map(|processor| of.processors.get(processor));
        ticks.map(|ticks| ticks.map(|it| it.busy)).sum()
    };
    let used = (busy(&after)? - busy(&before)?) * tick_ns;
    let passed = (after.at_ns - before.at_ns) * i64::try_from(processors.len()).ok()?;
    (passed > 0).then(|| (used as f64 / passed as f64).clamp(0.0, 1.0))
}

impl Snapshot {
    /// Reads all counters; `None` where the system does not have them.
    fn take() -> Option<Self> {
        let processors = parse_processors(&fs::read_to_string("/proc/stat").ok()?);
        let threads = threads()?;
        Some(Self {
            at_ns: monotonic_ns().ok()?,
            processors,
            threads,
        })
    }
}

/// The threads of this process.
fn threads() -> Option<BTreeMap<u32, Thread>> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/task").ok()?.flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // A thread may end between one file and the next.
        let read = |name| fs::read_to_string(entry.path().join(name)).ok();
        let processor = read("stat").as_deref().and_then(parse_last_processor);
        let run_ns = read("schedstat").as_deref().and_then(parse_run_ns);
        if let (Some(processor), Some(run_ns)) = (processor, run_ns) {
            threads.insert(id, Thread { processor, run_ns });
        }
    }
    Some(threads)
}

/// Busy and stolen ticks per processor, from `/proc/stat`. Source: proc_stat(5); guest time is
/// part of user time already.
fn parse_processors(stat: &str) -> BTreeMap<u32, Ticks> {
    let parse = |line: &str| {
        let (name, counters) = line.strip_prefix("cpu")?.split_once(' ')?;
        let counters: Vec<i64> = counters
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?;
        let [user, nice, system, _idle, _iowait, irq, softirq, rest @ ..] = counters.as_slice()
        else {
            return None;
        };
        let busy = user + nice + system + irq + softirq;
        Some((
            name.parse().ok()?,
            Ticks {
                busy,
                steal: rest.first().copied().unwrap_or(0),
            },
        ))
    };
    stat.lines().filter_map(parse).collect()
}

/// Position of `processor` in `/proc/*/stat` behind the name in parentheses, which may hold spaces
/// and parentheses itself. Source: proc_pid_stat(5): field 39, where the name is field 2.
const PROCESSOR_FIELD: usize = 39 - 3;

fn parse_last_processor(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(PROCESSOR_FIELD)?.parse().ok()
}

/// Time on a processor, the first number of `/proc/*/schedstat`. Source: Linux,
/// Documentation/scheduler/sched-stats.rst.
fn parse_run_ns(schedstat: &str) -> Option<i64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

/// Nanoseconds of a tick, where the system counts in ticks.
fn tick_ns() -> Option<i64> {
    use nix::unistd::{SysconfVar, sysconf};
    let per_second = sysconf(SysconfVar::CLK_TCK).ok()??;
    // The cast widens on every platform; its width differs between platforms.
    (per_second > 0).then(|| 1_000_000_000 / per_second as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "\
cpu  300 10 60 4000 20 5 6 7 0 0
cpu0 100 10 20 2000 10 2 3 4 50 0
cpu1 200 0 40 2000 10 3 3 3 0 0
cpu12 1 2 3 4 5 6 7
intr 114930548 113199788 3 0 5
ctxt 1990473
cpufreq 1 2 3 4 5 6 7 8
";

    #[test]
    fn processors_are_read() {
        let ticks = parse_processors(STAT);
        assert_eq!(ticks.keys().copied().collect::<Vec<_>>(), [0, 1, 12]);
        assert_eq!(
            ticks[&0],
            Ticks {
                busy: 135,
                steal: 4
            }
        );
        assert_eq!(
            ticks[&1],
            Ticks {
                busy: 246,
                steal: 3
            }
        );
        assert_eq!(ticks[&12], Ticks { busy: 19, steal: 0 });
        assert!(parse_processors("cpu0 1 2 x 4 5 6 7\ncpu1 1 2\n").is_empty());
    }

    #[test]
    fn threads_are_read_whatever_their_name() {
        let fields: Vec<String> = (3..=52).map(|field| format!("{field}00")).collect();
        let stat = format!("4711 (r0) S (comp ute) {}\n", fields.join(" "));
        assert_eq!(parse_last_processor(&stat), Some(3900));
        assert_eq!(parse_last_processor("4711 (x) S 1 2 3"), None);
        assert_eq!(parse_last_processor(""), None);
        assert_eq!(parse_run_ns("123456789 55 9\n"), Some(123_456_789));
        assert_eq!(parse_run_ns("\n"), None);
    }

    #[test]
    fn rows_are_differences() {
        let thread = |processor, run_ns| Thread { processor, run_ns };
        let snapshot = |at_ns, busy, threads: &[(u32, Thread)]| Snapshot {
            at_ns,
            processors: [
                (0, Ticks { busy, steal: 4 }),
                (
                    1,
                    Ticks {
                        busy: 9,
                        steal: busy,
                    },
                ),
            ]
            .into(),
            threads: threads.iter().copied().collect(),
        };
        let last = snapshot(50, 10, &[(1, thread(0, 100)), (2, thread(1, 900))]);
        // Thread 2 has moved, 3 is new, and 1 goes on.
        let threads = [(1, thread(0, 160)), (2, thread(0, 901)), (3, thread(1, 7))];
        let now = snapshot(90, 13, &threads);
        let host_of_processor = [(0, 0), (1, 5), (2, 0)].into();
        let sampler = Sampler {
            host_of_processor,
            tick_ns: 10,
            last: None,
        };
        let row = |host, cpu, (busy_ns, own_ns, steal_ns)| Telemetry {
            host,
            cpu,
            start_ns: 50,
            end_ns: 90,
            busy_ns,
            own_ns,
            steal_ns,
        };
        let expect = [row(0, 0, (30, 61, 0)), row(5, 1, (0, 7, 30))];
        assert_eq!(sampler.between(&last, &now), expect);
    }
}
