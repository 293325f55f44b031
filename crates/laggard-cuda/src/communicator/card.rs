//! What ranks tell each other before they use NCCL together, and whether it can work.

use crate::{CudaError, NcclVersion};
use laggard_types::Rank;
use std::collections::BTreeMap;

/// What a rank says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Card {
    pub version: NcclVersion,
    pub host: String,
    /// PCI address of its GPU.
    pub gpu: String,
    /// Multiprocessors of its GPU.
    pub multiprocessors: u32,
    /// Whether `NCCL_MULTI_RANK_GPU_ENABLE` is set to something other than 0.
    pub shares: bool,
    /// `NCCL_HOSTID`, by which NCCL tells hosts apart.
    pub host_id: String,
    /// `CUDA_VISIBLE_DEVICES`, if it is set.
    pub visible: String,
}

/// What stands between two fields on the wire; no field has it.
const BETWEEN: char = '\n';

impl Card {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let NcclVersion {
            major,
            minor,
            patch,
        } = self.version;
        let (shares, multiprocessors) = (u32::from(self.shares), self.multiprocessors);
        let fields = [
            format!("{major} {minor} {patch} {shares} {multiprocessors}"),
            one_line(&self.host),
            one_line(&self.gpu),
            one_line(&self.host_id),
            one_line(&self.visible),
        ];
        fields.join(&BETWEEN.to_string()).into_bytes()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let [numbers, host, gpu, host_id, visible] = text.split(BETWEEN).collect::<Vec<_>>()[..]
        else {
            return None;
        };
        let numbers: Result<Vec<u32>, _> = numbers.split(' ').map(str::parse).collect();
        let [major, minor, patch, shares, multiprocessors] = numbers.ok()?[..] else {
            return None;
        };
        Some(Self {
            version: NcclVersion {
                major,
                minor,
                patch,
            },
            host: host.to_owned(),
            gpu: gpu.to_owned(),
            multiprocessors,
            shares: shares != 0,
            host_id: host_id.to_owned(),
            visible: visible.to_owned(),
        })
    }
}

/// Refuses ranks that cannot use NCCL together, whose cards these are, in order. Gives how many
/// multiprocessors each rank of the fullest GPU has for itself; `None` if none share any.
pub(crate) fn check(cards: &[Card]) -> Result<Option<u32>, CudaError> {
    let mut versions: BTreeMap<NcclVersion, Vec<Rank>> = BTreeMap::new();
    for (rank, card) in (0..).zip(cards) {
        versions.entry(card.version).or_default().push(rank);
    }
    if versions.len() > 1 {
        let said = versions.iter().map(|(version, ranks)| {
            let first = ranks.first().copied().unwrap_or(0);
            let host = cards.get(first as usize).map_or("", |card| &card.host);
            match ranks.len() {
                1 => format!("{version} on rank {first} (host {host})"),
                count => format!("{version} on {count} ranks, the first {first} (host {host})"),
            }
        });
        let versions = said.collect::<Vec<_>>().join(", ");
        return Err(CudaError::NcclVersions { versions });
    }
    let mut by_gpu: BTreeMap<(&str, &str), Vec<(Rank, &Card)>> = BTreeMap::new();
    for (rank, card) in (0..).zip(cards) {
        let others = by_gpu.entry((&card.host, &card.gpu)).or_default();
        for (other, first) in others.iter() {
            if let Some(hint) = hindrance(first, card) {
                return Err(shared_gpu((*other, rank), card, hint));
            }
        }
        others.push((rank, card));
    }
    let mut least = None;
    for ranks in by_gpu.values() {
        let [(first, card), .., (last, _)] = ranks[..] else {
            continue;
        };
        let each = card.multiprocessors as usize / ranks.len();
        if each == 0 {
            let hint = format!(
                "fewer ranks on it: calls of {} do not fit {} multiprocessors at the same time",
                ranks.len(),
                card.multiprocessors
            );
            return Err(shared_gpu((first, last), card, hint));
        }
        let each = u32::try_from(each).unwrap_or(u32::MAX);
        least = Some(least.map_or(each, |least: u32| least.min(each)));
    }
    Ok(least)
}

fn shared_gpu((a, b): (Rank, Rank), card: &Card, hint: String) -> CudaError {
    CudaError::SharedGpu {
        a,
        b,
        gpu: card.gpu.clone(),
        host: card.host.clone(),
        hint,
    }
}

/// What keeps two ranks from sharing a GPU, as a hint. Source: NCCL's user guide, environment
/// variables; before 2.30 NCCL takes GPUs for the same if address and host are, and
/// `NCCL_HOSTID` is taken for the host (src/init.cc, src/misc/utils.cc), which has not been tried.
fn hindrance(a: &Card, b: &Card) -> Option<String> {
    let seen = match (a.visible.as_str(), b.visible.as_str()) {
        ("", "") => String::new(),
        (a, b) => format!(" (CUDA_VISIBLE_DEVICES is `{a}` and `{b}`)"),
    };
    if a.version.lets_ranks_share_gpus() {
        let is_allowed = a.shares && b.shares;
        return (!is_allowed).then(|| {
            format!(
                "give each rank its own GPU{seen}, or run with --allow-shared-gpu and set \
                 NCCL_MULTI_RANK_GPU_ENABLE=1 on all ranks"
            )
        });
    }
    let is_told_apart = !a.host_id.is_empty() && !b.host_id.is_empty() && a.host_id != b.host_id;
    (!is_told_apart).then(|| {
        format!(
            "give each rank its own GPU{seen}, or take NCCL 2.30 or later with \
             NCCL_MULTI_RANK_GPU_ENABLE=1; with NCCL {}, another NCCL_HOSTID for each rank may do",
            a.version
        )
    })
}

fn one_line(text: &str) -> String {
    text.replace(BETWEEN, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(code: i32, host: &str, gpu: &str) -> Card {
        Card {
            version: NcclVersion::from_code(code),
            host: host.to_owned(),
            gpu: gpu.to_owned(),
            multiprocessors: 58,
            shares: false,
            host_id: String::new(),
            visible: String::new(),
        }
    }

    #[test]
    fn cards_survive_the_wire() {
        let card = Card {
            shares: true,
            host_id: "rank 3".to_owned(),
            visible: "GPU-7".to_owned(),
            ..card(22_809, "node\n1", "0000:1b:00.0")
        };
        let come = Card::decode(&card.encode()).unwrap();
        assert_eq!(come.host, "node 1");
        assert_eq!((come.version, come.gpu), (card.version, card.gpu));
        assert!(come.shares && come.host_id == "rank 3" && come.visible == "GPU-7");
        assert_eq!(come.multiprocessors, 58);
        assert_eq!(Card::decode(b"2 28 9 0 1\nnode"), None);
        assert_eq!(Card::decode(b"2 28 x 0 1\na\nb\nc\n"), None);
    }

    #[test]
    fn other_versions_are_refused_with_their_ranks() {
        let cards = [
            card(22_809, "a", "0"),
            card(22_809, "a", "1"),
            card(23_007, "b", "0"),
        ];
        assert_eq!(check(&cards[..2]), Ok(None));
        let text = check(&cards).unwrap_err().to_string();
        let expect = "2.28.9 on 2 ranks, the first 0 (host a), 2.30.7 on rank 2 (host b)";
        assert!(text.contains(expect), "{text}");
        assert!(text.contains("LAGGARD_CUDA_PATH"), "{text}");
    }

    #[test]
    fn a_gpu_is_shared_only_where_nccl_can() {
        let shared = |code, change: fn(usize, &mut Card)| {
            let mut cards = [
                card(code, "a", "7"),
                card(code, "b", "7"),
                card(code, "a", "7"),
            ];
            cards
                .iter_mut()
                .enumerate()
                .for_each(|(at, card)| change(at, card));
            check(&cards)
        };
        let text = shared(23_007, |_, _| {}).unwrap_err().to_string();
        assert!(
            text.starts_with("ranks 0 and 2 share the GPU 7 of host a"),
            "{text}"
        );
        assert!(
            text.contains("NCCL_MULTI_RANK_GPU_ENABLE=1 on all ranks"),
            "{text}"
        );
        let told = shared(23_007, |at, card| card.visible = at.to_string());
        let text = told.unwrap_err().to_string();
        assert!(
            text.contains("CUDA_VISIBLE_DEVICES is `0` and `2`"),
            "{text}"
        );
        assert!(shared(23_007, |at, card| card.shares = at == 0).is_err());
        assert_eq!(shared(23_007, |_, card| card.shares = true), Ok(Some(29)));
        // Older ones do not know that variable.
        let text = shared(22_809, |_, card| card.shares = true)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("with NCCL 2.28.9, another NCCL_HOSTID"),
            "{text}"
        );
        assert!(shared(22_809, |_, card| card.host_id = "same".to_owned()).is_err());
        assert_eq!(
            shared(22_809, |at, card| card.host_id = at.to_string()),
            Ok(Some(29))
        );
        // Of three on one GPU, the first and the last are one host.
        let cards = ["x", "y", "x"].map(|host_id| Card {
            host_id: host_id.to_owned(),
            ..card(22_809, "a", "7")
        });
        let text = check(&cards).unwrap_err().to_string();
        assert!(text.starts_with("ranks 0 and 2 share"), "{text}");
        // As many as fit, and one more.
        let many = |ranks| {
            let card = Card {
                shares: true,
                ..card(23_007, "a", "7")
            };
            check(&vec![card; ranks])
        };
        assert_eq!((many(8), many(58)), (Ok(Some(7)), Ok(Some(1))));
        let text = many(59).unwrap_err().to_string();
        assert!(
            text.contains("calls of 59 do not fit 58 multiprocessors"),
            "{text}"
        );
    }
}
