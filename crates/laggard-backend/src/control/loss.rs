//! Ranks that are gone, in words.

use super::Position;
use laggard_types::Rank;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

/// Ranks that vanished without having left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Who is gone, in ascending order: one rank, or those of a whole host.
    pub ranks: Vec<Rank>,
    /// The host that they ran on.
    pub host: String,
    /// Nobody of this host is left.
    pub whole_host: bool,
    /// How that was noticed.
    pub how: How,
    /// What was last heard of them; ranks that were never heard of are absent.
    pub last: Vec<LastSeen>,
}

/// How a loss was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The connection closed: the process ended or was killed.
    Closed,
    /// No sign of life for so long: the process is stopped, or its host is gone.
    Silent(Duration),
    /// It sent something that is no message.
    Garbled,
    /// Its leader is gone, and it did not report to rank 0 as others do then.
    Unheard,
}

/// The last sign of life of a rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastSeen {
    /// The rank.
    pub rank: Rank,
    /// How long before the loss was noticed.
    pub age: Duration,
    /// Where it was, if it ever said.
    pub position: Option<Position>,
    /// What it was doing there, as the run describes it; may be empty.
    pub words: String,
}

impl Display for Loss {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.ranks.as_slice() {
            [rank] => write!(f, "rank {rank} on host {} is gone: ", self.host)?,
            ranks if self.whole_host => {
                write!(f, "host {} ({}) is gone: ", self.host, name(ranks))?;
            }
            ranks => write!(f, "{} on host {} are gone: ", name(ranks), self.host)?,
        }
        match self.how {
            How::Closed => write!(f, "its connection closed")?,
            How::Silent(lasting) => {
                write!(f, "no sign of life for {:.1} s", lasting.as_secs_f64())?;
            }
            How::Garbled => write!(f, "it sent what is no message")?,
            How::Unheard => write!(f, "it was not heard of after its host's leader had gone")?,
        }
        self.fmt_last(f)
    }
}

impl Loss {
    fn fmt_last(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(youngest) = self.last.iter().min_by_key(|last| last.age) else {
            return Ok(());
        };
        write!(f, "; last seen {:.1} s before", youngest.age.as_secs_f64())?;
        let steps = self
            .last
            .iter()
            .filter_map(|last| Some(last.position?.step));
        match (steps.clone().min(), steps.max()) {
            (Some(first), Some(last)) if first != last => {
                write!(f, " in steps {first} to {last}")?;
            }
            (Some(step), _) => write!(f, " in step {step}")?,
            _ => {}
        }
        match self.last.as_slice() {
            [only] if !only.words.is_empty() => write!(f, ", {}", only.words),
            _ => Ok(()),
        }
    }
}

/// "ranks 4 to 7", "ranks 1, 3 and 5".
fn name(ranks: &[Rank]) -> String {
    let is_run = ranks.windows(2).all(|pair| pair[1] == pair[0] + 1);
    match ranks {
        [] => "no rank".to_owned(),
        [rank] => format!("rank {rank}"),
        [first, .., last] if is_run && ranks.len() > 2 => format!("ranks {first} to {last}"),
        [others @ .., last] => {
            let others: Vec<_> = others.iter().map(ToString::to_string).collect();
            format!("ranks {} and {last}", others.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(rank: Rank, step: u32, words: &str) -> LastSeen {
        let position = Some(Position { step, operation: 3 });
        let (age, words) = (Duration::from_millis(180), words.to_owned());
        LastSeen {
            rank,
            age,
            position,
            words,
        }
    }

    #[test]
    fn losses_are_told_in_words() {
        let check = |ranks: &[Rank], how, last: Vec<LastSeen>, expect: &str| {
            let loss = Loss {
                ranks: ranks.to_vec(),
                host: "h2".to_owned(),
                whole_host: ranks.len() > 1,
                how,
                last,
            };
            assert_eq!(loss.to_string(), expect);
        };
        check(
            &[3],
            How::Closed,
            vec![last(3, 17, "backward of layer 2")],
            "rank 3 on host h2 is gone: its connection closed; last seen 0.2 s before in step 17, \
             backward of layer 2",
        );
        check(
            &[4, 5, 6, 7],
            How::Silent(Duration::from_secs(5)),
            vec![last(4, 17, "forward"), last(5, 18, "")],
            "host h2 (ranks 4 to 7) is gone: no sign of life for 5.0 s; last seen 0.2 s before in \
             steps 17 to 18",
        );
        check(
            &[1, 3, 5],
            How::Closed,
            vec![],
            "host h2 (ranks 1, 3 and 5) is gone: its connection closed",
        );
    }
}
