use super::*;
use crate::job::Family;
use laggard_specs::published_training;

const MEGATRON_STEPS: &str = include_str!("../../data/megatron_steps.csv");

fn jobs(text: &str) -> PublishedJobs {
    let tables = Tables::builtin().expect("tables");
    let frameworks = Frameworks::builtin().expect("frameworks");
    published_jobs(text, &tables, &frameworks).expect("rows")
}

fn errors(with_efficiency: bool, class: RowClass) -> ErrorSummary {
    let constants = Constants::builtin().expect("constants");
    let all = jobs(published_training()).jobs;
    let of_class = all.iter().filter(|job| job.class == class);
    let rows: Vec<PublishedComparison> = of_class
        .map(|job| job.compare(&constants, with_efficiency))
        .collect();
    summary("all", &rows.iter().collect::<Vec<_>>()).expect("rows")
}

/// Upper bounds of what the shipped constants reach; `fit_cost_model` prints the rest.
#[test]
fn headline_errors_stay_small() {
    let check = |with_efficiency, class, median: f64, p90: f64| {
        let found = errors(with_efficiency, class);
        let [is_median, is_p90] = [
            found.median_absolute_relative_error,
            found.p90_absolute_relative_error,
        ];
        assert!(
            is_median <= median && is_p90 <= p90,
            "{class:?}: {is_median} {is_p90}"
        );
    };
    check(false, RowClass::DenseHalf, 0.03, 0.13);
    check(true, RowClass::DenseHalf, 0.025, 0.13);
    check(false, RowClass::LowPrecision, 0.2, 0.4);
    check(false, RowClass::LongContext, 0.25, 0.4);
}

/// Calculon, which was made for these steps, is off by 3.65 % on average.
#[test]
fn megatrons_eight_steps_are_off_by_less_than_four_per_cent() {
    let constants = Constants::builtin().expect("constants");
    let steps = jobs(MEGATRON_STEPS).jobs;
    assert_eq!(steps.len(), 8);
    let error = |job: &PublishedJob| {
        let row = job.compare(&constants, false);
        (1.0 / (1.0 + row.relative_error) - 1.0).abs()
    };
    let mean = steps.iter().map(error).sum::<f64>() / 8.0;
    assert!(mean <= 0.04, "{mean}");
}

const HEADER: &str = "row_id,kind,source_id,model,layers,hidden,heads,ffn_hidden,vocab,seq_len,\
    global_batch_seqs,micro_batch,gpus,accelerator_id,tp,pp,dp,precision,step_time_s,notes";

fn one(cells: &str) -> Result<PublishedJob, String> {
    let mut jobs = jobs(&format!("{HEADER}\n{cells}\n"));
    match jobs.left_out.pop() {
        Some(left_out) => Err(left_out.reason),
        None => Ok(jobs.jobs.remove(0)),
    }
}

#[test]
fn rows_that_cannot_be_predicted_say_why() {
    let check = |cells: &str, reason: &str| {
        let found = one(cells).expect_err(reason);
        assert!(found.contains(reason), "{found}");
    };
    let model = "GPT,24,2048,16,8192,50000,2048";
    let row = |rest: &str| format!("a,train,S,{model},{rest}");
    check(
        &row("64,1,8,tpu-v9,1,1,8,bf16,1.0,"),
        "tpu-v9 is in no table",
    );
    check(
        &row("64,1,8,a100-sxm4-80gb,3,1,,bf16,1.0,"),
        "does not divide 8",
    );
    check(
        &row("64,1,32,a100-sxm4-80gb,1,32,1,bf16,1.0,"),
        "32 stages for 24 layers",
    );
    check(&row("64,1,8,a100-sxm4-80gb,1,1,8,bf16,,"), "no throughput");
    check(
        &row("64,1,8,a100-sxm4-80gb,1,1,8,bf16,1.0,OUTLIER of the table"),
        "an anomaly by its own notes",
    );
    check(
        "a,claim,S,GPT,24,2048,16,8192,50000,2048,64,1,8,a100-sxm4-80gb,1,1,8,bf16,1.0,",
        "not a training run",
    );
    check(
        "a,train,S,unheard of,,,,,,2048,64,1,8,a100-sxm4-80gb,1,1,8,bf16,1.0,",
        "dimensions are not given",
    );
}

#[test]
fn what_a_row_leaves_open_is_chosen() {
    let stated =
        one("a,train,S,GPT,24,2048,16,8192,50000,2048,64,1,8,a100-sxm4-80gb,1,1,8,bf16,1,")
            .expect("a job");
    let open = one("a,train,S,GPT,24,2048,16,8192,50000,2048,64,,8,a100-sxm4-80gb,1,1,8,bf16,1,")
        .expect("a job");
    let constants = Constants::builtin().expect("constants");
    let [stated_rate, open_rate] = [&stated, &open].map(|job| job.predict(&constants).tokens_per_s);
    assert!(open_rate >= stated_rate, "the best is taken");
    assert_eq!(stated.class, RowClass::DenseHalf);
    assert_eq!(open.predict(&constants).degrees.global_batch(), 64);

    let nothing = one("a,train,S,GPT,24,2048,16,8192,50000,2048,64,,8,a100-sxm4-80gb,,,,bf16,1,");
    assert_eq!(nothing.expect("a job").class, RowClass::LayoutAssumed);
}

#[test]
fn words_of_precision_are_understood() {
    let check = |words: &str, expect: Precision| assert_eq!(precision(words), expect, "{words}");
    check("bf16/fp16 mixed", Precision::Half);
    check("", Precision::Half);
    check("amp_fp8", Precision::Fp8);
    check("float8 tensorwise", Precision::Fp8);
    check("fp8/fp4 (unverified)", Precision::Fp8);
    check("nvfp4", Precision::Fp4);
}

#[test]
fn frameworks_are_found_by_column_word_and_source() {
    let frameworks = Frameworks::builtin().expect("frameworks");
    let find = |framework: &str, source: &str, layout: &str, notes: &str| {
        let text = format!(
            "row_id,kind,model,accelerator_id,gpus,seq_len,framework,source_id,tp,recompute,notes\n\
             a,train,GPT,x,8,2048,{framework},{source},{layout},{notes}\n"
        );
        let rows = laggard_specs::rows(&text).expect("rows");
        framework_of(&rows[0], Family::Ampere, &frameworks)
            .id
            .clone()
    };
    assert_eq!(find("NeMo", "MPT", ",", ""), "megatron-lm");
    assert_eq!(find("NVIDIA NeMo 25.02", "", ",", ""), "megatron-lm");
    assert_eq!(
        find("Megatron-DeepSpeed 0.14", "", ",", ""),
        "megatron-deepspeed"
    );
    assert_eq!(find("", "TITAN", ",", "2D + AsyncTP"), "torchtitan-async");
    assert_eq!(find("", "BLOOM", ",", ""), "megatron-deepspeed");
    assert_eq!(find("", "of our own", "8,", ""), "megatron-lm");
    assert_eq!(find("", "of our own", "8,full", ""), "megatron-lm-2022");
    assert_eq!(find("unheard of", "of our own", "1,", ""), "pytorch-fsdp");
}

/// The median of an even number of groups lies between the two in the middle.
#[test]
fn the_noise_floor_is_a_median_over_groups() {
    let row = |id: &str, layers: u32, step: f64| {
        format!(
            "{id},train,S,GPT,{layers},2048,16,8192,50000,2048,64,1,8,a100-sxm4-80gb,1,1,8,bf16,\
             {step},\n"
        )
    };
    let rows = [
        row("a", 24, 1.0),
        row("b", 24, 1.2),
        row("c", 12, 1.0),
        row("d", 12, 1.6),
        row("e", 6, 1.0),
    ];
    let jobs = jobs(&format!("{HEADER}\n{}", rows.concat())).jobs;
    let floor = noise_floor(&jobs)[0];
    assert_eq!((floor.groups, floor.rows), (2, 4));
    assert!((floor.median_ratio - 1.4).abs() < 1e-9, "{floor:?}");
    assert!((floor.largest_ratio - 1.6).abs() < 1e-9, "{floor:?}");
}
