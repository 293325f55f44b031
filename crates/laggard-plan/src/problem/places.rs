//! Where classes stand: sites with their power, and the links between them.

use laggard_specs::{Cluster, Site, SiteLink};

use super::{PlanError, Terms};

/// The power of a place.
#[derive(Debug, Clone)]
pub struct Place {
    /// Id of the site.
    pub id: String,
    /// What it can draw.
    pub limit_watts: Option<f64>,
    /// Power drawn over power of computers.
    pub usage_effectiveness: Option<f64>,
    /// Whether the limit can be kept: the power of every class there is known.
    pub is_kept: bool,
    /// What everything there is said to be leased at, dollars per device and hour.
    pub lease_dollars_per_hour: Option<f64>,
}

/// A network between two places.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// The places, by position.
    pub sites: [usize; 2],
    /// Of all its lines, bytes per second in one direction.
    pub bytes_per_s: f64,
    /// One way, seconds.
    pub latency_s: f64,
}

impl Link {
    /// The other end.
    pub(crate) fn other(&self, site: usize) -> Option<usize> {
        match self.sites {
            [a, b] if a == site => Some(b),
            [a, b] if b == site => Some(a),
            _ => None,
        }
    }

    /// Whether its ends are these, in whatever order.
    pub(crate) fn joins(&self, [a, b]: [usize; 2]) -> bool {
        self.other(a) == Some(b)
    }
}

/// The sites of a cluster.
pub(super) fn places(cluster: &Cluster, terms: &Terms) -> Result<Vec<Place>, PlanError> {
    if terms.power_limit_watts.is_some() && cluster.sites.len() > 1 {
        return Err(PlanError::LimitOfSeveralSites {
            sites: cluster.sites.len(),
            cluster: cluster.id.clone(),
        });
    }
    let place = |site: &Site| Place {
        id: site.id.clone(),
        limit_watts: terms.power_limit_watts.or(site.power_limit_watts),
        usage_effectiveness: site.power_usage_effectiveness,
        is_kept: false,
        lease_dollars_per_hour: site
            .lease_dollars_per_device_hour
            .as_ref()
            .map(|price| price.typical),
    };
    Ok(cluster.sites.iter().map(place).collect())
}

/// What joins them.
pub(super) fn links(cluster: &Cluster) -> Vec<Link> {
    let site = |id: &String| cluster.sites.iter().position(|site| site.id == *id);
    let link = |link: &SiteLink| {
        Some(Link {
            sites: [site(&link.from)?, site(&link.to)?],
            bytes_per_s: link.bandwidth_bytes_per_s,
            latency_s: link.latency_s,
        })
    };
    cluster.links.iter().filter_map(link).collect()
}
