//! The text form of a layout: `dp2,tp4,pp2,vp2,cp1,ep2,zero1,sp,recompute`, the latter with a
//! number where only so many layers of each piece are computed again.

use super::{Layout, LayoutError, Recompute, Zero};
use std::fmt;

/// The largest degree that is taken for meant: a layout lists its replicas.
const LARGEST_DEGREE: u32 = 1 << 20;

impl Layout {
    /// Reads the text form, in any order, separated by `,`, `-` or `x`; `=` may stand before a
    /// number. What is not given is 1 or off, and each replica gets one micro-batch.
    ///
    /// # Errors
    /// For what is unknown, zero, absurdly large, or given twice.
    pub fn parse(text: &str) -> Result<Self, LayoutError> {
        let fail = |why: String| LayoutError::Unreadable {
            text: text.to_owned(),
            why,
        };
        let needs = |part: &str| {
            fail(format!(
                "`{part}` needs a number from 1 to {LARGEST_DEGREE}"
            ))
        };
        let mut layout = Self::data_parallel(1, 1);
        let mut seen: Vec<&str> = Vec::new();
        let parts = text.split([',', '-', 'x']).map(str::trim);
        for part in parts.filter(|part| !part.is_empty()) {
            let digits = part.find(|c: char| c.is_ascii_digit());
            let (name, number) = part.split_at(digits.unwrap_or(part.len()));
            let name = name.trim_end_matches('=');
            if seen.contains(&name) {
                return Err(fail(format!("`{name}` is given twice")));
            }
            seen.push(name);
            match (name, number) {
                ("sp", "") => layout.sequence_parallel = true,
                ("recompute", "") => layout.recompute = Recompute::Layers,
                ("recompute", layers) => {
                    layout.recompute = Recompute::Layers;
                    layout.recompute_layers = Some(positive(layers).ok_or_else(|| needs(part))?);
                }
                ("zero", "0") => layout.zero = Zero::None,
                ("zero", "1") => layout.zero = Zero::Optimizer,
                ("zero", "2") => layout.zero = Zero::Gradients,
                ("zero", "3") => layout.zero = Zero::Parameters,
                ("zero", _) => return Err(fail("zero is 0, 1, 2 or 3".to_owned())),
                _ => {
                    let degree = layout.degree(name).ok_or_else(|| {
                        fail(format!(
                            "`{part}` is unknown; known: dp, tp, pp, vp, cp and ep with a number, \
                             zero0 to zero3, sp, recompute and recomputeN"
                        ))
                    })?;
                    *degree = positive(number).ok_or_else(|| needs(part))?;
                }
            }
        }
        if seen.is_empty() {
            return Err(fail(
                "it is empty; for example `dp4` or `dp2,tp2`".to_owned(),
            ));
        }
        layout.micro_batches = vec![1; layout.data_parallel as usize];
        Ok(layout)
    }

    fn degree(&mut self, name: &str) -> Option<&mut u32> {
        match name {
            "dp" => Some(&mut self.data_parallel),
            "tp" => Some(&mut self.tensor_parallel),
            "pp" => Some(&mut self.pipeline_parallel),
            "vp" => Some(&mut self.virtual_stages),
            "cp" => Some(&mut self.context_parallel),
            "ep" => Some(&mut self.expert_parallel),
            _ => None,
        }
    }
}

/// What is not the default; `dp` always.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dp{}", self.data_parallel)?;
        for (name, degree) in [
            ("tp", self.tensor_parallel),
            ("pp", self.pipeline_parallel),
            ("vp", self.virtual_stages),
            ("cp", self.context_parallel),
            ("ep", self.expert_parallel),
        ] {
            if degree != 1 {
                write!(f, ",{name}{degree}")?;
            }
        }
        match self.zero {
            Zero::None => {}
            Zero::Optimizer => f.write_str(",zero1")?,
            Zero::Gradients => f.write_str(",zero2")?,
            Zero::Parameters => f.write_str(",zero3")?,
        }
        if self.sequence_parallel {
            f.write_str(",sp")?;
        }
        match (self.recompute, self.recompute_layers) {
            (Recompute::None, _) => Ok(()),
            (Recompute::Layers, None) => f.write_str(",recompute"),
            (Recompute::Layers, Some(layers)) => write!(f, ",recompute{layers}"),
        }
    }
}

/// A number from 1 on that is not absurdly large.
fn positive(text: &str) -> Option<u32> {
    let number = text.parse().ok();
    number.filter(|number| (1..=LARGEST_DEGREE).contains(number))
}
