use super::*;
use laggard_backend::threads::{ThreadOptions, worlds};
use std::sync::Arc;
use std::thread;

/// A network of known speed: messages between some hosts take time in proportion to their size.
struct Slow {
    inner: Arc<dyn Messenger>,
    bytes_per_s: [f64; 4],
}

impl Slow {
    fn bandwidth(&self, peer: Rank) -> f64 {
        let [own, other] = [self.rank(), peer].map(|rank| self.bytes_per_s[rank as usize % 4]);
        own.min(other)
    }
}

impl Messenger for Slow {
    fn rank(&self) -> Rank {
        self.inner.rank()
    }

    fn size(&self) -> u32 {
        self.inner.size()
    }

    fn send(&self, to: Rank, message: &[u8], deadline: Instant) -> Result<(), BackendError> {
        let time = message.len() as f64 / self.bandwidth(to);
        thread::sleep(Duration::from_secs_f64(time));
        self.inner.send(to, message, deadline)
    }

    fn receive(
        &self,
        from: Rank,
        message: &mut [u8],
        deadline: Instant,
    ) -> Result<(), BackendError> {
        self.inner.receive(from, message, deadline)
    }
}

fn probe(
    messengers: Vec<Arc<dyn Messenger>>,
    places: HostPlaces<'_>,
    deadline: Instant,
) -> Vec<Result<Vec<Link>, MeasureError>> {
    let options = LinkOptions::default();
    thread::scope(|scope| {
        let probe = |messenger: Arc<dyn Messenger>| {
            let options = &options;
            scope.spawn(move || probe_links(&*messenger, places, options, deadline))
        };
        let threads: Vec<_> = messengers.into_iter().map(probe).collect();
        threads.into_iter().map(|it| it.join().unwrap()).collect()
    })
}

fn messengers(ranks: u32) -> Vec<Arc<dyn Messenger>> {
    let worlds = worlds(ranks, &ThreadOptions::default()).unwrap();
    worlds.into_iter().map(|world| world.messenger).collect()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// Eight ranks on four hosts of one machine; the links of host 2 have a tenth of the bandwidth.
#[test]
fn links_of_known_speed() {
    let bytes_per_s = [100e6, 100e6, 10e6, 100e6];
    let messengers = messengers(8).into_iter().map(|inner| {
        let slow = Slow { inner, bytes_per_s };
        Arc::new(slow) as Arc<dyn Messenger>
    });
    let places = HostPlaces {
        host_of_rank: &[0, 1, 2, 3, 0, 1, 2, 3],
        machine_of_rank: &[0; 8],
    };
    let found = probe(messengers.collect(), places, soon());
    let links: Vec<Vec<Link>> = found.into_iter().map(Result::unwrap).collect();
    assert!(links[1..].iter().all(Vec::is_empty));
    let pairs: Vec<_> = links[0]
        .iter()
        .map(|it| (it.from_host, it.to_host))
        .collect();
    assert_eq!(pairs, [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]);
    for link in &links[0] {
        let is_slow = link.from_host == 2 || link.to_host == 2;
        let (true_bandwidth, bytes) = if is_slow {
            (10e6, 64 << 10)
        } else {
            (100e6, 256 << 10)
        };
        // Sleeps are only ever too long, so a probe can show less than the truth, not more.
        assert!(link.bandwidth_bytes_per_s <= true_bandwidth, "{link:?}");
        assert!(link.bytes <= bytes && link.latency_ns >= 0, "{link:?}");
    }
}

#[test]
fn bandwidth_is_of_the_median_round_trip() {
    let milliseconds = [20, 400, 10].map(Duration::from_millis);
    let found = bandwidth(1_000_000, &milliseconds);
    assert!((found - 100e6).abs() < 1.0, "{found}");
    assert!(bandwidth(1, &[Duration::ZERO]).is_finite());
}

#[test]
fn nothing_to_probe() {
    let places = HostPlaces {
        host_of_rank: &[0, 0],
        machine_of_rank: &[0, 0],
    };
    for found in probe(messengers(2), places, soon()) {
        assert_eq!(found.unwrap(), []);
    }
}

#[test]
fn silence_is_an_error() {
    let places = HostPlaces {
        host_of_rank: &[0, 1],
        machine_of_rank: &[0, 1],
    };
    let only = messengers(2).into_iter().take(1).collect();
    let deadline = Instant::now() + Duration::from_millis(20);
    let found = probe(only, places, deadline).remove(0);
    let text = found.unwrap_err().to_string();
    assert!(text.contains("rank 0, probing links"), "{text}");
    assert!(text.contains("missing: 1"), "{text}");
}

fn check_rounds(machine_of_host: &[u32], most_rounds: usize) {
    let hosts: Vec<HostRank> = (0..)
        .zip(machine_of_host)
        .map(|(host, &machine)| HostRank {
            host,
            machine,
            rank: host,
        })
        .collect();
    let rounds = rounds(&hosts);
    let count = hosts.len();
    assert!(rounds.len() <= most_rounds, "{count}: {}", rounds.len());
    let mut seen = BTreeSet::new();
    for round in &rounds {
        let mut busy = BTreeSet::new();
        for &(from, to) in round {
            assert!(from < to && seen.insert((from, to)), "{count}: {from} {to}");
            for machine in BTreeSet::from([hosts[from].machine, hosts[to].machine]) {
                assert!(busy.insert(machine), "{count}: machine {machine} twice");
            }
        }
    }
    let partners = |host| {
        seen.iter()
            .filter(|(a, b)| *a == host || *b == host)
            .count()
    };
    for host in 0..count {
        let expect = if count <= ALL_PAIRS_HOSTS {
            count - 1..=count - 1
        } else {
            let distances = count.ilog2() as usize;
            2 * distances - 1..=2 * distances
        };
        assert!(expect.contains(&partners(host)), "{count}: {host}");
    }
}

#[test]
fn pairs_in_few_rounds() {
    check_rounds(&[0], 0);
    check_rounds(&[0, 1], 1);
    for hosts in 3..=16_u32 {
        let machines: Vec<u32> = (0..hosts).collect();
        check_rounds(&machines, (hosts.next_power_of_two() - 1) as usize);
    }
    for hosts in [17_u32, 31, 32, 33, 64, 100, 1000] {
        let machines: Vec<u32> = (0..hosts).collect();
        check_rounds(&machines, 4 * hosts.ilog2() as usize - 1);
    }
    // One machine: one pair at a time. Two machines of three hosts each: the same.
    check_rounds(&[0; 5], 10);
    check_rounds(&[0, 0, 0, 1, 1, 1], 15);
}
