//! What ranks tell each other before they connect: host, network, addresses, port and key.

use super::greeting::Key;
use super::wire::{Fields, Writer};
use crate::BackendError;
use laggard_types::Rank;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use std::fs::{self, File};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

/// One rank's card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Card {
    /// Name of the host, as the run calls it.
    pub host: String,
    /// Ranks with the same text share a network stack, so loopback leads from one to the other.
    network: String,
    /// Addresses of the host beside loopback.
    addresses: Vec<IpAddr>,
    port: u16,
    /// That of rank 0 is the job's.
    pub key: Key,
}

impl Card {
    /// The card of a rank that listens for callers.
    pub(super) fn write(
        rank: Rank,
        host: &str,
        listener: &TcpListener,
    ) -> Result<Self, BackendError> {
        let system = |what: &str, why: String| BackendError::System {
            what: format!("rank {rank}: {what}"),
            why,
        };
        let port = listener
            .local_addr()
            .map_err(|e| system("a listening socket", e.to_string()))?;
        let mut key = Key::default();
        let random = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut key));
        random.map_err(|error| system("reading /dev/urandom", error.to_string()))?;
        let addresses = addresses().map_err(|why| system("listing network interfaces", why))?;
        Ok(Self {
            host: host.to_owned(),
            network: network(),
            addresses,
            port: port.port(),
            key,
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Writer(Vec::new());
        out.bytes(self.host.as_bytes());
        out.bytes(self.network.as_bytes());
        out.list(&self.addresses, |out, address| match address {
            IpAddr::V4(address) => out.bytes(&address.octets()),
            IpAddr::V6(address) => out.bytes(&address.octets()),
        });
        out.u16(self.port);
        out.0.extend(self.key);
        out.0
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        Some(Self {
            host: fields.string()?,
            network: fields.string()?,
            addresses: fields.list(|fields| {
                let octets = fields.bytes()?;
                let four = <[u8; 4]>::try_from(octets.as_slice()).map(IpAddr::from);
                four.or_else(|_| <[u8; 16]>::try_from(octets.as_slice()).map(IpAddr::from))
                    .ok()
            })?,
            port: fields.u16()?,
            key: fields.0.try_into().ok()?,
        })
    }

    /// Where a rank with this card can be called, from one with that of `caller`.
    pub(super) fn sockets(&self, caller: &Self) -> Vec<SocketAddr> {
        let is_near = !self.network.is_empty() && self.network == caller.network;
        let loopback = [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            Ipv6Addr::LOCALHOST.into(),
        ];
        let near = loopback.into_iter().filter(|_| is_near);
        let all = near.chain(self.addresses.iter().copied());
        all.map(|address| SocketAddr::new(address, self.port))
            .collect()
    }
}

/// A socket for callers on all addresses and a port that the system picks.
pub(super) fn listen(rank: Rank) -> Result<TcpListener, BackendError> {
    // On Linux the first takes IPv4 callers too, unless IPv6 is off.
    let any = [
        IpAddr::from(Ipv6Addr::UNSPECIFIED),
        Ipv4Addr::UNSPECIFIED.into(),
    ];
    let sockets = any.map(|address| SocketAddr::new(address, 0));
    TcpListener::bind(sockets.as_slice()).map_err(|error| BackendError::System {
        what: format!("rank {rank}: a listening socket"),
        why: error.to_string(),
    })
}

/// The boot of the machine and the network namespace; empty if the system does not tell.
fn network() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let namespace = fs::read_link("/proc/self/ns/net");
    match (boot, namespace) {
        (Ok(boot), Ok(namespace)) => format!("{} {}", boot.trim(), namespace.display()),
        _ => String::new(),
    }
}

/// Addresses of interfaces that are up, IPv4 first. Without loopback, and without IPv6 link-local
/// addresses, which mean nothing without the name of the caller's interface.
fn addresses() -> Result<Vec<IpAddr>, String> {
    let interfaces = getifaddrs().map_err(|error| error.to_string())?;
    let mut found: Vec<IpAddr> = interfaces
        .filter(|interface| {
            let flags = interface.flags;
            flags.contains(InterfaceFlags::IFF_UP) && !flags.contains(InterfaceFlags::IFF_LOOPBACK)
        })
        .filter_map(|interface| {
            let address = interface.address?;
            let four = address.as_sockaddr_in().map(|four| IpAddr::V4(four.ip()));
            four.or_else(|| address.as_sockaddr_in6().map(|six| IpAddr::V6(six.ip())))
        })
        .filter(|address| match address {
            IpAddr::V4(_) => true,
            IpAddr::V6(six) => !six.is_unicast_link_local(),
        })
        .collect();
    found.sort_by_key(IpAddr::is_ipv6);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(network: &str) -> Card {
        Card {
            host: "h1".to_owned(),
            network: network.to_owned(),
            addresses: vec![
                [10, 0, 0, 1].into(),
                Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into(),
            ],
            port: 4711,
            key: [7; 16],
        }
    }

    #[test]
    fn cards_survive_the_exchange_and_stumps_are_refused() {
        let bytes = card("here").encode();
        assert_eq!(Card::decode(&bytes), Some(card("here")));
        for length in 0..bytes.len() {
            assert_eq!(Card::decode(&bytes[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn loopback_is_for_those_of_one_network() {
        let check = |caller: &str, first: &str, count: usize| {
            let sockets = card("here").sockets(&card(caller));
            assert_eq!(
                (sockets[0].to_string().as_str(), sockets.len()),
                (first, count)
            );
        };
        check("here", "127.0.0.1:4711", 4);
        check("there", "10.0.0.1:4711", 2);
        assert_eq!(card("").sockets(&card("")).len(), 2, "unknown networks");
    }
}
