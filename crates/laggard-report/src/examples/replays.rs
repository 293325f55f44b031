//! What-ifs and parts of communication of the mixed example.

use super::around;
use laggard_analyze::{Analysis, ExposedAxis, Unit, WhatIf, WhatIfUnit};

pub(super) fn fill(analysis: &mut Analysis) {
    analysis.exposed_communication = [("tp", 0.03), ("dp", 0.013)]
        .map(|(axis, share)| ExposedAxis {
            axis: axis.to_owned(),
            share: around(share, 0.001),
        })
        .into();
    let units = [
        (Unit::Rank(5), "rank 5", 0.07),
        (Unit::Rank(1), "rank 1", 0.004),
        (Unit::Rank(3), "rank 3", 0.003),
        (Unit::Rank(7), "rank 7", 0.002),
        (Unit::Host(1), "host host-1", 0.071),
        (Unit::Host(0), "host host-0", 0.0002),
        (Unit::Class(1), "class H100-like", 0.15),
        (Unit::Class(0), "class GB200-like", -0.02),
    ];
    analysis.what_if = WhatIf {
        steps: 400,
        units: units.map(unit).into(),
    };
}

fn unit((unit, name, saved): (Unit, &str, f64)) -> WhatIfUnit {
    WhatIfUnit {
        unit,
        name: name.to_owned(),
        step_time: 0.0549 * (1.0 - saved),
        saved: around(saved, 0.002),
        of_loss: Some(saved / 0.248),
    }
}
