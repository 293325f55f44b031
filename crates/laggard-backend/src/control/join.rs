//! How ranks find and connect to each other: cards over the messenger, calls along the tree, and a
//! go from the root once all are there. Everything within one deadline.

use super::card::{Card, listen};
use super::engine::WayToRoot;
use super::greeting::{Calling, Key, Reception, read_by, write_by};
use super::tree::{ROOT, Tree};
use crate::messenger::all_gather;
use crate::{BackendError, Messenger};
use laggard_types::Rank;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Pause between two looks for callers.
const LOOK: Duration = Duration::from_millis(1);
/// What travels up, and then down, once all connections are there.
const GO: u8 = 0x60;

/// What joining leaves.
pub(super) struct Joined {
    pub tree: Tree,
    /// This rank's.
    pub card: Card,
    /// The job's.
    pub key: Key,
    /// Non-blocking.
    pub streams: Vec<(Rank, TcpStream)>,
    /// On rank 0, if there are ranks elsewhere that might lose their leader.
    pub reception: Option<Reception>,
    /// On those that might.
    pub way_to_root: Option<WayToRoot>,
}

struct Joining {
    rank: Rank,
    cards: Vec<Card>,
    tree: Tree,
    begin: Instant,
    deadline: Instant,
}

pub(super) fn join(
    messenger: &dyn Messenger,
    host: &str,
    limit: Duration,
) -> Result<Joined, BackendError> {
    let rank = messenger.rank();
    let begin = Instant::now();
    let deadline = begin + limit;
    let listener = listen(rank)?;
    let own = Card::write(rank, host, &listener)?;
    let cards = all_gather(messenger, &own.encode(), deadline)?;
    let cards: Option<Vec<_>> = cards.iter().map(|card| Card::decode(card)).collect();
    let cards = cards.filter(|cards| cards.len() == messenger.size() as usize);
    let cards = cards.ok_or_else(|| BackendError::Invalid {
        rank,
        call: "join of the control plane".to_owned(),
        why: "what another rank says of itself cannot be read\n\
              hint: run the same version of laggard everywhere"
            .to_owned(),
    })?;
    let names: Vec<_> = cards.iter().map(|card| card.host.clone()).collect();
    let tree = Tree::new(&names);
    let joining = Joining {
        rank,
        cards,
        tree,
        begin,
        deadline,
    };
    let key = joining.cards[ROOT as usize].key;
    let reception = Reception::new(listener, key, rank).map_err(|error| BackendError::System {
        what: format!("rank {rank}: a listening socket"),
        why: error.to_string(),
    })?;
    joining.connect(reception)
}

impl Joining {
    fn connect(self, mut reception: Reception) -> Result<Joined, BackendError> {
        let parent = match self.tree.parent_of(self.rank) {
            Some(parent) => Some((parent, self.call(parent)?)),
            None => None,
        };
        let children = self.receive(&mut reception)?;
        self.await_go(parent.as_ref(), &children)?;
        let streams: Vec<_> = parent.into_iter().chain(children).collect();
        for (peer, stream) in &streams {
            stream
                .set_nonblocking(true)
                .map_err(|error| self.left(*peer, &error))?;
        }
        let is_root = self.rank == ROOT;
        let has_far = self
            .tree
            .hosts
            .iter()
            .skip(1)
            .any(|host| host.ranks.len() > 1);
        let leader = self.tree.leader_of(self.rank);
        let may_lose_leader = ![ROOT, self.rank].contains(&leader);
        Ok(Joined {
            streams,
            reception: (is_root && has_far).then_some(reception),
            way_to_root: may_lose_leader.then(|| WayToRoot {
                key: self.cards[ROOT as usize].key,
                addresses: self.addresses(ROOT),
            }),
            card: self.cards[self.rank as usize].clone(),
            key: self.cards[ROOT as usize].key,
            tree: self.tree,
        })
    }

    fn addresses(&self, to: Rank) -> Vec<SocketAddr> {
        self.cards[to as usize].sockets(&self.cards[self.rank as usize])
    }

    fn call(&self, to: Rank) -> Result<TcpStream, BackendError> {
        let addresses = self.addresses(to);
        let calling = Calling {
            key: &self.cards[ROOT as usize].key,
            from: self.rank,
            to,
            addresses: &addresses,
        };
        calling
            .connect(self.deadline)
            .map_err(|why| BackendError::Unreachable {
                rank: self.rank,
                other: to,
                host: self.tree.host_of(to).name.clone(),
                why,
            })
    }

    /// Waits until all children have called.
    fn receive(&self, reception: &mut Reception) -> Result<Vec<(Rank, TcpStream)>, BackendError> {
        let mut missing = self.tree.children_of(self.rank);
        let mut streams = BTreeMap::new();
        while !missing.is_empty() {
            let now = Instant::now();
            if now >= self.deadline {
                return Err(self.late(missing));
            }
            for (rank, stream) in reception.turn(now) {
                if let Some(at) = missing.iter().position(|child| *child == rank) {
                    missing.swap_remove(at);
                    streams.insert(rank, stream);
                }
            }
            if !missing.is_empty() {
                std::thread::sleep(LOOK);
            }
        }
        Ok(streams.into_iter().collect())
    }

    /// Hears from all children that all below them are there, tells the parent, and waits for the
    /// go, which says that all of the tree is there.
    fn await_go(
        &self,
        parent: Option<&(Rank, TcpStream)>,
        children: &[(Rank, TcpStream)],
    ) -> Result<(), BackendError> {
        for (child, stream) in children {
            stream
                .set_nonblocking(false)
                .map_err(|error| self.left(*child, &error))?;
            self.hear(*child, stream)?;
        }
        if let Some((parent, stream)) = parent {
            self.say(*parent, stream)?;
            self.hear(*parent, stream)?;
        }
        children
            .iter()
            .try_for_each(|(child, stream)| self.say(*child, stream))
    }

    fn hear(&self, peer: Rank, stream: &TcpStream) -> Result<(), BackendError> {
        let mut go = [0];
        match read_by(stream, &mut go, self.deadline) {
            Ok(()) if go == [GO] => Ok(()),
            Ok(()) => Err(self.left(peer, &io::ErrorKind::InvalidData.into())),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(self.late(vec![peer])),
            Err(error) => Err(self.left(peer, &error)),
        }
    }

    fn say(&self, peer: Rank, stream: &TcpStream) -> Result<(), BackendError> {
        write_by(stream, &[GO], self.deadline).map_err(|error| self.left(peer, &error))
    }

    fn left(&self, peer: Rank, error: &io::Error) -> BackendError {
        BackendError::Unreachable {
            rank: self.rank,
            other: peer,
            host: self.tree.host_of(peer).name.clone(),
            why: format!("it ended the connection before all ranks were there: {error}"),
        }
    }

    fn late(&self, mut missing: Vec<Rank>) -> BackendError {
        missing.sort_unstable();
        let names: Vec<_> = missing.iter().map(|rank| self.tree.name(*rank)).collect();
        BackendError::Timeout {
            rank: self.rank,
            waited: self.begin.elapsed(),
            waiting_for: format!("{} to join the control plane", names.join(", ")),
            missing,
        }
    }
}
