//! What sources say of the network, in words.

use laggard_types::BytesPerSecond;

use crate::network::FabricOptions;

/// Accelerators of a server, where a source gives its cards together.
const PER_SERVER: f64 = 8.0;
/// Bytes per second of one Gb/s.
const GIGABIT: f64 = 1e9 / 8.0;
/// A Slingshot-11 card carries 200 Gb/s, and machines with it have one for each accelerator.
/// Source: HPE Slingshot data sheet; <https://arxiv.org/abs/2408.14090> for Alps.
const SLINGSHOT_GIGABITS: f64 = 200.0;

/// The links that the words give; what they do not say stays that of the usual server.
pub(super) fn fabric_options(words: Option<&str>) -> FabricOptions {
    let words = words.unwrap_or_default();
    FabricOptions {
        scale_out_bandwidth: cards(words).map(|gigabits| BytesPerSecond(gigabits * GIGABIT)),
        domain_ranks: accelerators_per_node(words),
        ..FabricOptions::default()
    }
}

/// Gb/s of one accelerator's share: `8x200Gb`, `1600 Gb/s per node`, `400Gb RDMA per GPU`.
fn cards(words: &str) -> Option<f64> {
    let parts: Vec<&str> = words.split([' ', ',', '(', ')']).collect();
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| *number > 0.0);
    let gigabits = |text: &str| number(text.strip_suffix("Gb")?);
    for (at, part) in parts.iter().enumerate() {
        let next = parts.get(at + 1).copied().unwrap_or_default();
        if let Some((count, rate)) = part.split_once('x') {
            // `4x Omni-Path 100Gb` has the rate two words on.
            let later = || {
                parts[at + 1..]
                    .iter()
                    .take(2)
                    .find_map(|part| gigabits(part))
            };
            let rate = if rate.is_empty() {
                later()
            } else {
                gigabits(rate)
            };
            if let (Some(count), Some(rate)) = (number(count), rate) {
                return Some(count * rate / PER_SERVER);
            }
        }
        if let Some(rate) = gigabits(part).filter(|_| words.contains("per GPU")) {
            return Some(rate);
        }
        if let Some(rate) = number(part).filter(|_| next == "Gb/s" && words.contains("per node")) {
            return Some(rate / PER_SERVER);
        }
    }
    words.contains("Slingshot").then_some(SLINGSHOT_GIGABITS)
}

/// `4 GH200 per node`.
fn accelerators_per_node(words: &str) -> Option<u32> {
    let before = words.split(" per node").next()?;
    let mut last = before.rsplit(' ');
    let (what, count) = (last.next()?, last.next()?);
    let count = count
        .parse()
        .ok()
        .filter(|count| (1..=1024).contains(count))?;
    (!what.contains('/') && words.contains(" per node")).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_links() {
        let check = |words: &str, gigabits: Option<f64>, domain: Option<u32>| {
            assert_eq!(cards(words), gigabits, "{words}");
            assert_eq!(accelerators_per_node(words), domain, "{words}");
        };
        check("NVSwitch + 8x200Gb HDR IB", Some(200.0), None);
        check(
            "NVLink3 + 4x Omni-Path 100Gb per 8 GPUs (Jean Zay)",
            Some(50.0),
            None,
        );
        check("4x100Gb RoCE per 8 GPUs", Some(50.0), None);
        check("3200 Gb/s per node", Some(400.0), None);
        check(
            "NVSwitch + 400Gb RDMA per GPU (Grand Teton)",
            Some(400.0),
            None,
        );
        let alps = "Alps Clariden: 4 GH200 per node, NVLink; Slingshot between nodes";
        check(alps, Some(200.0), Some(4));
        check("NVL72 + IB", None, None);
        check("", None, None);
        check("0x0Gb", None, None);
    }
}
