//! From what was typed to what is measured.

use crate::args::{BenchArgs, Measured, Places};
use crate::failure::Usage;
use crate::launcher::Launch;
use crate::settings::{init_timeout_of, known_model};
use anyhow::Result;
use laggard_measure::{Late, ProductShape, Repetitions, Settings, Sizes, SweepSettings};
use laggard_record::Placement;
use laggard_specs::{Model, Tables};
use laggard_types::{Collective, DataType, ReduceOp, parse_bytes};
use std::path::PathBuf;
use std::time::Duration;

/// Ranks where nothing is said and there is no GPU.
const RANKS_MAX: usize = 4;
/// Calls of a size where nothing is said: enough for a 95th percentile.
const USUAL_CALLS: u32 = 100;
/// Kernels where nothing is said, on GPUs and on processors: what vendors' own figures are of, and
/// what a core computes in some hundredths of a second.
const SQUARES: [u64; 2] = [8192, 1024];
const TOKENS: [u64; 2] = [8192, 512];
const TRIAD_BYTES: [u64; 2] = [3 << 30, 192 << 20];

/// What to measure, and the world that it is measured in: of its job only ranks and time limits
/// count.
pub(super) fn of(
    args: &BenchArgs,
    launch: Option<&Launch>,
    gpus: Option<usize>,
) -> Result<(SweepSettings, Settings)> {
    let tables = Tables::builtin()?;
    let ranks = ranks(args, launch, gpus)?;
    let smallest = tables
        .models()
        .iter()
        .min_by_key(|model| model.parameters());
    let model = smallest.ok_or_else(|| Usage("the tables have no model".to_owned()))?;
    let mut world = Settings::new(model.clone(), ranks, PathBuf::new());
    world.timeout = Duration::from_secs(args.timeout);
    world.init_timeout = init_timeout_of(args.init_timeout, launch);
    let has = |part: Measured| match &args.only[..] {
        [] => part != Measured::Pairs,
        only => only.contains(&part),
    };
    let place = usize::from(gpus.is_none());
    let triad_bytes = match &args.triad_bytes {
        Some(text) => bytes("--triad-bytes", text)?,
        None => TRIAD_BYTES[place],
    };
    let pair_bytes = bytes("--pair-bytes", &args.pair_bytes)?;
    let settings = SweepSettings {
        collectives: collectives(&has),
        sizes: Sizes {
            first: bytes("-b", &args.min_bytes)?,
            last: bytes("-e", &args.max_bytes)?,
            factor: args.step_factor,
        },
        placements: match args.place {
            Places::Out => vec![Placement::OutOfPlace],
            Places::In => vec![Placement::InPlace],
            Places::Both => vec![Placement::OutOfPlace, Placement::InPlace],
        },
        data_type: data_type(&args.datatype)?,
        op: reduction(&args.op)?,
        calls: match args.iters {
            Some(count) => Repetitions::Exactly(count),
            None => Repetitions::Within {
                most: USUAL_CALLS,
                time: Duration::from_millis(args.point_time),
            },
        },
        warm_up: args.warmup_iters,
        products: match has(Measured::Gemm) {
            true => products(args, &tables, place)?,
            false => Vec::new(),
        },
        triad_bytes: has(Measured::Triad).then_some(triad_bytes),
        rounds: args.rounds,
        pair_bytes: has(Measured::Pairs).then_some(pair_bytes),
        late: args.late.as_deref().map(late).transpose()?,
        timeout: world.timeout,
    };
    Ok((settings, world))
}

fn ranks(args: &BenchArgs, launch: Option<&Launch>, gpus: Option<usize>) -> Result<u32> {
    if let Some(launch) = launch {
        if args.ranks.is_some_and(|ranks| ranks != launch.size) {
            let (launcher, size) = (launch.launcher, launch.size);
            let hint = "hint: leave out --ranks";
            return Err(Usage(format!("{launcher} has started {size} ranks\n{hint}")).into());
        }
        return Ok(launch.size);
    }
    let processors = || std::thread::available_parallelism().map_or(1, |count| count.get());
    let own = gpus.unwrap_or_else(|| processors().min(RANKS_MAX));
    let ranks = args.ranks.unwrap_or(u32::try_from(own).unwrap_or(u32::MAX));
    match (1..=Settings::MOST_RANKS).contains(&ranks) {
        true => Ok(ranks),
        false => {
            let hint = format!(
                "hint: give --ranks a number from 1 to {}",
                Settings::MOST_RANKS
            );
            Err(Usage(format!("no benchmark has {ranks} ranks\n{hint}")).into())
        }
    }
}

fn collectives(has: &impl Fn(Measured) -> bool) -> Vec<Collective> {
    let name = |collective: Collective| match collective {
        Collective::AllReduce => Measured::AllReduce,
        Collective::ReduceScatter => Measured::ReduceScatter,
        Collective::AllGather => Measured::AllGather,
        Collective::AllToAll => Measured::AllToAll,
        Collective::Broadcast => Measured::Broadcast,
        _ => Measured::SendRecv,
    };
    let is_asked = |it: &Collective| has(Measured::Collectives) || has(name(*it));
    let all = SweepSettings::COLLECTIVES.into_iter();
    all.filter(is_asked).collect()
}

fn bytes(flag: &str, text: &str) -> Result<u64> {
    let read = parse_bytes(text);
    let hint = "hint: for example `64K` or `128M`";
    Ok(read.map_err(|error| Usage(format!("{flag}: {error}\n{hint}")))?)
}

/// By laggard's names, or those of nccl-tests.
fn data_type(name: &str) -> Result<DataType> {
    let own = DataType::ALL.into_iter().find(|it| it.name() == name);
    let other = || match name {
        "bfloat16" => Some(DataType::Bf16),
        "half" => Some(DataType::F16),
        "float" => Some(DataType::F32),
        "double" => Some(DataType::F64),
        "int32" => Some(DataType::I32),
        "int64" => Some(DataType::I64),
        _ => None,
    };
    own.or_else(other).ok_or_else(|| {
        let names = DataType::ALL.map(DataType::name).join(", ");
        Usage(format!(
            "no data type is called `{name}`\nhint: -d takes {names}"
        ))
        .into()
    })
}

fn reduction(name: &str) -> Result<ReduceOp> {
    Ok(match name {
        "sum" => ReduceOp::Sum,
        "min" => ReduceOp::Min,
        "max" => ReduceOp::Max,
        "avg" => ReduceOp::Avg,
        _ => {
            let words = format!(
                "no reduction is called `{name}`\nhint: -o takes sum, min, max or avg, as in \
                 nccl-tests; the folder of the result is --output"
            );
            return Err(Usage(words).into());
        }
    })
}

fn late(text: &str) -> Result<Late> {
    let parts = text.split_once(':').and_then(|(rank, by)| {
        let by = by.parse().ok().filter(|us| (1..=10_000_000).contains(us))?;
        let by = Duration::from_micros(by);
        Some(Late {
            rank: rank.parse().ok()?,
            by,
        })
    });
    let hint = "hint: `--late 1:200` is rank 1 by 200 us";
    Ok(parts.ok_or_else(|| Usage(format!("cannot read --late `{text}`\n{hint}")))?)
}

fn products(args: &BenchArgs, tables: &Tables, place: usize) -> Result<Vec<ProductShape>> {
    let squares = match &args.gemm[..] {
        [] => vec![SQUARES[place]],
        given => given.to_vec(),
    };
    let square = |n: &u64| ProductShape {
        name: format!("{n} cubed"),
        m: *n,
        n: *n,
        k: *n,
    };
    let mut products: Vec<ProductShape> = squares.iter().map(square).collect();
    if let Some(name) = &args.model {
        let model = known_model(name, tables)?;
        let tokens = args.tokens.unwrap_or(TOKENS[place]);
        products.extend(of_layer(&model, (tokens, args.tensor_parallel))?);
    }
    Ok(products)
}

/// The products of a layer forward, as one of so many ranks has them: matrices that read the
/// layer's input are split by outputs, the others by inputs (Shoeybi et al. 2019, section 3). Where
/// there are more ranks than heads of keys and values, several have the same one.
fn of_layer(model: &Model, (tokens, split): (u64, u64)) -> Result<Vec<ProductShape>> {
    if model.experts.is_some() || model.latent_attention.is_some() {
        let words = format!(
            "layers of {} have experts or latent attention, whose products are not these\nhint: \
             give --model one without, such as llama3-8b",
            model.id
        );
        return Err(Usage(words).into());
    }
    let divides = |count: u64| count.is_multiple_of(split);
    let shares_heads = divides(model.kv_heads) || split.is_multiple_of(model.kv_heads);
    if !(divides(model.heads) && shares_heads && divides(model.ffn_hidden)) {
        let words = format!(
            "{} heads, {} heads of keys and values and {} features of {} are not divided by \
             {split}\nhint: give --tensor-parallel a number that divides them",
            model.heads, model.kv_heads, model.ffn_hidden, model.id
        );
        return Err(Usage(words).into());
    }
    let heads = model.heads / split;
    let kv_heads = (model.kv_heads / split).max(1);
    let (hidden, ffn) = (model.hidden, model.ffn_hidden / split);
    let parts = [
        ("qkv", hidden, (heads + 2 * kv_heads) * model.head_dim),
        ("out", heads * model.head_dim, hidden),
        ("up", hidden, (model.ffn_matrices - 1) * ffn),
        ("down", ffn, hidden),
    ];
    let shape = |(part, inputs, outputs): (&str, u64, u64)| ProductShape {
        name: format!("{} {part}", model.id),
        m: tokens,
        n: outputs,
        k: inputs,
    };
    Ok(parts.map(shape).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_nccl_tests_are_understood() {
        let check = |name: &str, expect| assert_eq!(data_type(name).ok(), expect, "{name}");
        check("float", Some(DataType::F32));
        check("bfloat16", Some(DataType::Bf16));
        check("i64", Some(DataType::I64));
        check("fp4", None);
        assert_eq!(reduction("avg").ok(), Some(ReduceOp::Avg));
        let words = reduction("results").err().map(|error| error.to_string());
        assert!(words.is_some_and(|words| words.contains("--output")));
    }

    #[test]
    fn late_ranks_are_read() {
        let read = |text: &str| late(text).ok().map(|late| (late.rank, late.by.as_micros()));
        assert_eq!(read("1:200"), Some((1, 200)));
        for wrong in ["1", "1:", ":200", "1:0", "1:-3", "x:5", "1:99999999999"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn layers_are_split_as_by_tensor_parallelism() {
        let tables = Tables::builtin().unwrap();
        let model = tables.model("llama3-70b").unwrap();
        let of = |split| {
            let products = of_layer(model, (8192, split)).unwrap().into_iter();
            products.map(|it| (it.m, it.n, it.k)).collect::<Vec<_>>()
        };
        assert_eq!(
            of(8),
            [
                (8192, 1280, 8192),
                (8192, 8192, 1024),
                (8192, 7168, 8192),
                (8192, 8192, 3584)
            ]
        );
        assert_eq!(of(1)[0], (8192, 10_240, 8192));
        // Two ranks have the same head of keys and values.
        assert_eq!(of(16)[0], (8192, (4 + 2) * 128, 8192));
    }

    #[test]
    fn layers_that_are_not_of_these_products_are_refused() {
        let tables = Tables::builtin().unwrap();
        let check = |name: &str, split, expect: &str| {
            let model = tables.model(name).unwrap();
            let error = of_layer(model, (512, split)).expect_err(name).to_string();
            assert!(
                error.contains(expect) && error.contains("hint: "),
                "{error}"
            );
        };
        check("deepseek-v3", 1, "latent attention");
        check("mixtral-8x7b", 1, "experts");
        check("llama3-70b", 3, "64 heads");
        check("llama3-70b", 128, "not divided by 128");
    }
}
