//! Faults as text.

use super::{Fault, Kind};
use crate::MeasureError;
use laggard_types::Rank;
use std::str::FromStr;

/// The forms that there are, for hints.
const FORMS: &str = "slow-rank:RANK:FACTOR, slow-host:HOST:FACTOR, slow-stage:STAGE:FACTOR, \
                     slow-backward:RANK:FACTOR, jitter:SIGMA[@RANK], \
                     pause:STEPS:MILLISECONDS[@RANK], ragged:CV";
/// The form of one kind that `--help` shows too.
const FROM: &str = "let a fault begin later with +from=STEP at its end, such as \
                    slow-rank:1:1.3+from=100";

impl FromStr for Fault {
    type Err = MeasureError;

    fn from_str(spec: &str) -> Result<Self, MeasureError> {
        let refused = |(why, hint): Refusal| MeasureError::Fault {
            spec: spec.to_owned(),
            why,
            hint,
        };
        read(spec).map_err(refused)
    }
}

/// Why, and what to try.
type Refusal = (String, String);

fn read(spec: &str) -> Result<Fault, Refusal> {
    let (text, from_step) = match spec.split_once("+from=") {
        Some((text, step)) => (text, whole(step, "the step", FROM)?),
        None if spec.contains('+') => {
            return Err(("cannot read what follows `+`".into(), FROM.into()));
        }
        None => (spec, 0),
    };
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    let kind = match name {
        "slow-rank" => {
            let (rank, factor) = slow(rest, "slow-rank:RANK:FACTOR, such as slow-rank:1:1.3")?;
            Kind::SlowRank { rank, factor }
        }
        "slow-host" => {
            let (host, factor) = slow(rest, "slow-host:HOST:FACTOR, such as slow-host:0:1.2")?;
            Kind::SlowHost { host, factor }
        }
        "slow-stage" => {
            let form = "slow-stage:STAGE:FACTOR, such as slow-stage:1:1.3";
            let (stage, factor) = slow(rest, form)?;
            Kind::SlowStage { stage, factor }
        }
        "slow-backward" => {
            let form = "slow-backward:RANK:FACTOR, such as slow-backward:1:1.3";
            let (rank, factor) = slow(rest, form)?;
            Kind::SlowBackward { rank, factor }
        }
        "jitter" => {
            let form = "jitter:SIGMA[@RANK], such as jitter:0.1 or jitter:0.1@2";
            let (rest, rank) = at_rank(rest, form)?;
            Kind::Jitter {
                sigma: positive(rest, "the size", form)?,
                rank,
            }
        }
        "pause" => pause(rest)?,
        "ragged" => Kind::Ragged {
            variation: positive(
                rest,
                "the coefficient of variation",
                "ragged:CV, such as ragged:0.4",
            )?,
        },
        _ => {
            return Err((
                format!("unknown fault `{name}`"),
                format!("known faults: {FORMS}"),
            ));
        }
    };
    Ok(Fault {
        spec: spec.to_owned(),
        kind,
        from_step,
    })
}

fn slow(rest: &str, form: &str) -> Result<(u32, f64), Refusal> {
    let (who, factor) = rest.split_once(':').ok_or_else(|| too_short(form))?;
    let what = match form.split_once(':').map(|(name, _)| name) {
        Some("slow-host") => "the host",
        Some("slow-stage") => "the stage",
        _ => "the rank",
    };
    let who = whole(who, what, form)?;
    let factor = positive(factor, "the factor", form)?;
    if factor < 1.0 {
        let why = format!("the factor {factor} is below 1, and nothing can be made faster");
        return Err((why, format!("give {form}")));
    }
    Ok((who, factor))
}

fn pause(rest: &str) -> Result<Kind, Refusal> {
    let form = "pause:STEPS:MILLISECONDS[@RANK], such as pause:50:200 or pause:50:200@1";
    let (rest, rank) = at_rank(rest, form)?;
    let (every, milliseconds) = rest.split_once(':').ok_or_else(|| too_short(form))?;
    let every = whole(every, "the number of steps", form)?;
    if every == 0 {
        return Err((
            "the number of steps is 0".to_owned(),
            format!("give {form}"),
        ));
    }
    Ok(Kind::Pause {
        every,
        milliseconds: positive(milliseconds, "the time", form)?,
        rank,
    })
}

fn at_rank<'a>(rest: &'a str, form: &str) -> Result<(&'a str, Option<Rank>), Refusal> {
    match rest.split_once('@') {
        Some((rest, rank)) => Ok((rest, Some(whole(rank, "the rank", form)?))),
        None => Ok((rest, None)),
    }
}

fn whole(text: &str, what: &str, form: &str) -> Result<u32, Refusal> {
    text.parse().map_err(|_| {
        (
            format!("{what} `{text}` is not a whole number"),
            format!("give {form}"),
        )
    })
}

fn positive(text: &str, what: &str, form: &str) -> Result<f64, Refusal> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err((
            format!("{what} `{text}` is not a positive number"),
            format!("give {form}"),
        )),
    }
}

fn too_short(form: &str) -> Refusal {
    ("a part is missing".to_owned(), format!("give {form}"))
}
