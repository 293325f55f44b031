//! What a manifest must fulfil so that analyses can index into it without fear.

use crate::error::RecordError;
use crate::manifest::Manifest;
use std::path::Path;

/// A field and what is wrong with it.
type Fault = (String, String);

/// Refuses a manifest whose numbers are not finite or whose references lead nowhere.
pub(crate) fn check_manifest(manifest: &Manifest, path: &Path) -> Result<(), RecordError> {
    check_floats(manifest)
        .and_then(|()| check_places(manifest))
        .and_then(|()| check_operations(manifest))
        .and_then(|()| check_programs(manifest))
        .map_err(|(field, why)| RecordError::InvalidField {
            path: path.to_owned(),
            field,
            why,
        })
}

fn check_floats(manifest: &Manifest) -> Result<(), Fault> {
    let workload = &manifest.workload;
    not_negative("workload.parameters", workload.parameters)?;
    not_negative(
        "workload.recompute_flop_per_token",
        workload.recompute_flop_per_token,
    )?;
    if let Some(flop) = workload.flop_per_token_causal {
        not_negative("workload.flop_per_token_causal", flop)?;
    }
    if let Some(flop) = workload.flop_per_token_full {
        not_negative("workload.flop_per_token_full", flop)?;
    }
    for (index, class) in manifest.classes.iter().enumerate() {
        positive(
            &format!("classes[{index}].relative_rate"),
            class.relative_rate,
        )?;
        if let Some(peak) = &class.peak {
            positive(
                &format!("classes[{index}].peak.flop_per_s"),
                peak.flop_per_s,
            )?;
        }
    }
    for (index, fault) in manifest.truth.iter().enumerate() {
        if !fault.size.is_finite() {
            let why = format!("is {}, not a finite number", fault.size);
            return Err((format!("truth[{index}].size"), why));
        }
    }
    Ok(())
}

fn check_places(manifest: &Manifest) -> Result<(), Fault> {
    let world = manifest.schedule.world_size();
    has_length("ranks", manifest.ranks.len(), world)?;
    has_length(
        "schedule.stage_of_rank",
        manifest.schedule.stage_of_rank.len(),
        world,
    )?;
    if world == 0 {
        return Err((
            "schedule.program_of_rank".to_owned(),
            "names no rank".to_owned(),
        ));
    }
    for (rank, place) in manifest.ranks.iter().enumerate() {
        is_below(
            || format!("ranks[{rank}].host"),
            place.host,
            manifest.hosts.len(),
        )?;
        is_below(
            || format!("ranks[{rank}].class"),
            place.class,
            manifest.classes.len(),
        )?;
        if let Some(quota) = place.cpu_quota {
            positive(&format!("ranks[{rank}].cpu_quota"), quota)?;
        }
        if let Some(load) = place.other_load {
            not_negative(&format!("ranks[{rank}].other_load"), load)?;
        }
    }
    check_hosts(manifest)
}

fn check_hosts(manifest: &Manifest) -> Result<(), Fault> {
    let hosts = manifest.hosts.len();
    for (index, host) in manifest.hosts.iter().enumerate() {
        is_below(|| format!("hosts[{index}].machine"), host.machine, hosts)?;
    }
    for (index, link) in manifest.links.iter().enumerate() {
        let field = |name: &str| format!("links[{index}].{name}");
        is_below(|| field("from_host"), link.from_host, hosts)?;
        is_below(|| field("to_host"), link.to_host, hosts)?;
        if link.latency_ns < 0 {
            return Err((field("latency_ns"), format!("is {}", link.latency_ns)));
        }
        positive(&field("bandwidth_bytes_per_s"), link.bandwidth_bytes_per_s)?;
    }
    Ok(())
}

fn check_operations(manifest: &Manifest) -> Result<(), Fault> {
    let schedule = &manifest.schedule;
    let count = schedule.operations.len();
    for (id, operation) in schedule.operations.iter().enumerate() {
        let field = |name: &str| format!("schedule.operations[{id}].{name}");
        for needed in &operation.after {
            is_below(|| field("after"), *needed, count)?;
        }
        not_negative(&field("flop"), operation.flop)?;
        not_negative(&field("attention_flop"), operation.attention_flop)?;
        if let Some(axis) = operation.axis {
            is_below(|| field("axis"), axis, schedule.axes.len())?;
        } else if operation.kind.meets() {
            return Err((
                field("axis"),
                "is missing, but the operation meets others".to_owned(),
            ));
        }
    }
    Ok(())
}

fn check_programs(manifest: &Manifest) -> Result<(), Fault> {
    let schedule = &manifest.schedule;
    let world = schedule.world_size();
    for (index, program) in schedule.programs.iter().enumerate() {
        for id in &program.operations {
            let field = || format!("schedule.programs[{index}].operations");
            is_below(field, *id, schedule.operations.len())?;
        }
    }
    for (rank, program) in schedule.program_of_rank.iter().enumerate() {
        let field = || format!("schedule.program_of_rank[{rank}]");
        is_below(field, *program, schedule.programs.len())?;
    }
    for (rank, stage) in schedule.stage_of_rank.iter().enumerate() {
        is_below(|| format!("schedule.stage_of_rank[{rank}]"), *stage, world)?;
    }
    for (index, axis) in schedule.axes.iter().enumerate() {
        let field = || format!("schedule.axes[{index}].groups");
        let mut taken = vec![false; world];
        for rank in axis.groups.iter().flatten() {
            is_below(field, *rank, world)?;
            if std::mem::replace(&mut taken[*rank as usize], true) {
                return Err((field(), format!("name rank {rank} twice")));
            }
        }
    }
    Ok(())
}

fn not_negative(field: &str, value: f64) -> Result<(), Fault> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err((
        field.to_owned(),
        format!("is {value}, not a finite number of at least 0"),
    ))
}

fn positive(field: &str, value: f64) -> Result<(), Fault> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err((
        field.to_owned(),
        format!("is {value}, not a finite number above 0"),
    ))
}

fn has_length(field: &str, length: usize, expect: usize) -> Result<(), Fault> {
    if length == expect {
        return Ok(());
    }
    Err((
        field.to_owned(),
        format!("has {length} entries for {expect} ranks"),
    ))
}

fn is_below(field: impl Fn() -> String, index: u32, length: usize) -> Result<(), Fault> {
    if (index as usize) < length {
        return Ok(());
    }
    Err((field(), format!("refers to entry {index} of {length}")))
}
