//! Whether `laggard run` over MPI and `laggard analyze` name what a machine really does to a rank
//! or a host: a rank whose control group has a CPU quota, and a host behind a slow link; and
//! whether they leave clean runs of the same shapes alone. Beds are those of `scripts/testbed.sh`.
//!
//! A trial is right if the one expected cause is found at the one expected culprit and nobody else
//! is named; a clean one if nobody is named. After a wrong one, a clean run of the same layout
//! within one process, without a bed, tells whether the processors are uneven by themselves.
//!
//! Trials take turns with the kinds and the layouts. Exits with 77 if the machine cannot make such
//! a bed; `cluster_recall --help` shows what can be asked for.
#![expect(clippy::print_stdout, reason = "the table is the result")]

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use laggard_analyze::analyze;
use laggard_benches::Twin;
use laggard_record::Record;
use laggard_stats::Rng;
use serde_json::Value;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Exit code of a script that cannot do its work on this machine.
const SKIPPED: i32 = 77;
/// Share of its processor that a quota leaves a rank, per cent. A rank that waits for transfers
/// a fifth of the time does not notice 70 % and more.
const QUOTA: std::ops::RangeInclusive<u32> = 25..=45;
/// Rate of a slow host's link.
const SLOW: &str = "100mbit";
/// Steps of the clean run after a wrong trial.
const TWIN_STEPS: u32 = 200;

/// Layouts of the two ranks of one host, and of the four of four hosts; plain data parallel first.
const LAYOUTS: [&[&str]; 2] = [
    &["dp2", "pp2", "tp2,sp", "cp2", "dp2,zero3"],
    &[
        "dp4",
        "dp2,pp2",
        "dp2,tp2",
        "dp2,cp2",
        "dp4,zero3",
        "dp2,tp2,sp,zero1",
    ],
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Quota,
    SlowLink,
    /// The same ranks without a quota.
    CleanHost,
    /// The same hosts without a slow link.
    CleanHosts,
}

const KINDS: [Kind; 4] = [
    Kind::Quota,
    Kind::SlowLink,
    Kind::CleanHost,
    Kind::CleanHosts,
];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Quota => "quota",
            Self::SlowLink => "slow-link",
            Self::CleanHost => "clean-host",
            Self::CleanHosts => "clean-hosts",
        }
    }
}

/// One run, with what must be found in it.
struct Plan {
    kind: Kind,
    bed: Vec<String>,
    layout: &'static str,
    steps: u32,
    expect: Option<(&'static str, Value)>,
}

impl Plan {
    fn draw(kind: Kind, number: u32, options: &Options) -> Self {
        let mut rng = Rng::for_stream(options.seed, (kind as u64) << 32 | u64::from(number));
        let words = |text: String| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let one_host = "--hosts 1 --ranks-per-host 2";
        let (bed, steps, expect) = match kind {
            Kind::Quota => {
                let rank = rng.below(2);
                let range = (QUOTA.end() - QUOTA.start() + 1) as usize;
                let per_cent = QUOTA.start() + rng.below(range) as u32;
                let culprit = serde_json::json!({ "rank": rank });
                let bed = format!("{one_host} --quota {rank}:{per_cent}");
                (bed, 400, Some(("cpu_quota", culprit)))
            }
            Kind::SlowLink => {
                let host = rng.below(4);
                let culprit = serde_json::json!({ "host": host });
                let bed = format!("--hosts 4 --slow-host {host}:{SLOW}");
                (bed, 40, Some(("slow_link", culprit)))
            }
            Kind::CleanHost => (one_host.to_owned(), 400, None),
            Kind::CleanHosts => ("--hosts 4".to_owned(), 200, None),
        };
        let layouts = match kind {
            Kind::Quota | Kind::CleanHost => LAYOUTS[0],
            Kind::SlowLink | Kind::CleanHosts => LAYOUTS[1],
        };
        let turns = if options.layouts == Layouts::All {
            layouts.len()
        } else {
            1
        };
        Self {
            kind,
            bed: words(bed),
            layout: layouts[number as usize % turns],
            steps,
            expect,
        }
    }

    /// Makes the run and analyses it; `None` if this machine cannot.
    fn run(&self, options: &Options) -> Result<Option<Value>> {
        let folder = tempfile::tempdir()?;
        let record = folder.path().join("record");
        let output = Command::new(scripts().join("testbed.sh"))
            .args(["run", "--mpi", &options.mpi, "--timeout", "120"])
            .args(&self.bed)
            .arg("--")
            .arg(&options.laggard)
            .args(self.arguments(self.steps))
            .arg(&record)
            .output()?;
        match output.status.code() {
            Some(0) => {}
            Some(SKIPPED) => return Ok(None),
            code => bail!(
                "the run ended with {code:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            ),
        }
        let output = Command::new(&options.laggard)
            .args(["analyze", "--format", "json"])
            .arg(&record)
            .output()?;
        let analysis = serde_json::from_slice(&output.stdout);
        analysis.map(Some).with_context(|| {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            format!("the analysis: {errors}")
        })
    }

    /// Of a run of so many steps, up to the place of its record.
    fn arguments(&self, steps: u32) -> Vec<String> {
        let run = "run --quiet --model tiny --micro-batches 4";
        let arguments = format!("{run} --layout {} --steps {steps} -o", self.layout);
        arguments.split(' ').map(str::to_owned).collect()
    }

    /// What a clean run shows of the processors themselves. The layout says how many ranks it has.
    fn twin(&self, options: &Options) -> Result<Twin> {
        let folder = tempfile::tempdir()?;
        let record = folder.path().join("record");
        let output = Command::new(&options.laggard)
            .args(self.arguments(TWIN_STEPS))
            .arg(&record)
            .output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the clean run: {errors}");
        let analysis = analyze(&Record::open(&record)?, &Default::default());
        Ok(Twin::of(&analysis.context("the clean run")?))
    }

    /// Whether what the machine itself did to a wrong trial leaves the truth unknown, and what it
    /// did.
    fn disturbance(&self, analysis: &Value, options: &Options) -> Result<(bool, String)> {
        if let Some(contention) = contention(analysis) {
            return Ok((true, contention.to_owned()));
        }
        let twin = self.twin(options)?;
        let (apart, spread) = (1e2 * twin.apart, 1e2 * twin.spread);
        let told = format!("ranks of a clean run lie {apart:.1} % apart and vary by {spread:.1} %");
        Ok((twin.is_uneven(), told))
    }

    fn is_right(&self, analysis: &Value) -> bool {
        let named = named(analysis);
        match &self.expect {
            Some((cause, culprit)) => {
                let is_it = |(found, at): &(String, Value)| found == cause && at == culprit;
                named.iter().any(is_it) && named.iter().all(|(_, at)| at == culprit)
            }
            None => named.is_empty(),
        }
    }
}

/// What telemetry saw of other work on the processors.
fn contention(analysis: &Value) -> Option<&str> {
    let mut caveats = analysis["caveats"].as_array().into_iter().flatten();
    let caveat = caveats.find(|it| it["code"] == "outside_contention")?;
    caveat["message"].as_str()
}

/// Causes with culprits, of findings that have one.
fn named(analysis: &Value) -> Vec<(String, Value)> {
    let findings = analysis["findings"].as_array().into_iter().flatten();
    let culprit = |it: &&Value| it["culprit"].is_object();
    let pair = |it: &Value| {
        let cause = it["cause"].as_str().unwrap_or_default().to_owned();
        (cause, it["culprit"].clone())
    };
    findings.filter(culprit).map(pair).collect()
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts")
}

/// What the command line asks for.
#[derive(Parser)]
struct Options {
    /// The binary; without it, the one beside this.
    #[arg(long, value_name = "FILE", default_value_os_t = beside_this_binary())]
    laggard: PathBuf,
    /// openmpi or mpich.
    #[arg(long, value_name = "NAME", default_value = "openmpi")]
    mpi: String,
    #[arg(long, value_enum, default_value_t = Layouts::Dp)]
    layouts: Layouts,
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = KINDS)]
    kinds: Vec<Kind>,
    /// Trials of each kind.
    #[arg(long, value_name = "N", default_value_t = 20)]
    trials: u32,
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where each trial goes.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Exits with 1 if fewer trials of a kind are right; wrong ones that the machine itself has
    /// disturbed, as telemetry or a clean run right after tells, count as right.
    #[arg(long, value_name = "N", default_value_t = 0)]
    require: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Layouts {
    /// Data parallel alone.
    Dp,
    All,
}

fn beside_this_binary() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.with_file_name("laggard")
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let mut csv = options.csv.as_ref().map(File::create).transpose()?;
    if let Some(file) = &mut csv {
        writeln!(
            file,
            "kind,mpi,bed,layout,expected,named,right,exposed_communication,basis"
        )?;
    }
    let mut counts = vec![(0, 0); options.kinds.len()];
    for number in 0..options.trials {
        for (kind, (right, disturbed)) in options.kinds.iter().zip(&mut counts) {
            let plan = Plan::draw(*kind, number, &options);
            let Some(analysis) = plan.run(&options)? else {
                println!("SKIPPED: this machine cannot make such a bed");
                return Ok(ExitCode::from(SKIPPED as u8));
            };
            let is_right = plan.is_right(&analysis);
            *right += u32::from(is_right);
            let row = row(&plan, &options, &analysis, is_right);
            if !is_right {
                println!("wrong: {row}");
                let (is_disturbed, why) = plan.disturbance(&analysis, &options)?;
                match is_disturbed {
                    true => println!("DISTURBED, and not judged: {why}"),
                    false => println!("not disturbed: {why}"),
                }
                *disturbed += u32::from(is_disturbed);
            }
            if let Some(file) = &mut csv {
                writeln!(file, "{row}")?;
                file.flush()?;
            }
        }
    }
    for (kind, (right, disturbed)) in options.kinds.iter().zip(&counts) {
        println!(
            "{:<18} {right:>3} of {:>3}, {disturbed} wrong and disturbed",
            kind.name(),
            options.trials
        );
    }
    let is_met = |(right, disturbed): &(u32, u32)| right + disturbed >= options.require;
    Ok(match counts.iter().all(is_met) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn row(plan: &Plan, options: &Options, analysis: &Value, is_right: bool) -> String {
    let pair = |(cause, culprit): &(String, Value)| format!("{cause} {culprit}");
    let found: Vec<String> = named(analysis).iter().map(pair).collect();
    let expected = plan
        .expect
        .as_ref()
        .map(|(cause, culprit)| format!("{cause} {culprit}"));
    let terms = analysis["waterfall"].as_array().into_iter().flatten();
    let exposed = terms
        .filter(|term| term["level"] == "exposed_communication")
        .find_map(|term| term["share"]["value"].as_f64());
    let cells = [
        plan.kind.name().to_owned(),
        options.mpi.clone(),
        plan.bed.join(" "),
        plan.layout.to_owned(),
        expected.unwrap_or_default(),
        found.join("; "),
        is_right.to_string(),
        exposed
            .map(|share| format!("{share:.4}"))
            .unwrap_or_default(),
        analysis["subject"]["time_basis"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    ];
    let quoted = cells.map(|cell| format!("\"{}\"", cell.replace('"', "'")));
    quoted.join(",")
}
