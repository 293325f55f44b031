//! JSON, pretty and stable, and its published schemas.

use laggard_analyze::{Analysis, Bench, Comparison};
use laggard_record::BenchSamples;
use schemars::{JsonSchema, schema_for};

/// The analysis as JSON.
pub fn analysis(analysis: &Analysis) -> String {
    pretty(analysis)
}

/// The comparison as JSON.
pub fn comparison(comparison: &Comparison) -> String {
    pretty(comparison)
}

/// The benchmark as JSON.
pub fn bench(bench: &Bench) -> String {
    pretty(bench)
}

/// The JSON Schema of [`analysis`], as in `docs/schema/analysis.schema.json`.
pub fn analysis_schema() -> String {
    schema::<Analysis>()
}

/// The JSON Schema of [`comparison`], as in `docs/schema/comparison.schema.json`.
pub fn comparison_schema() -> String {
    schema::<Comparison>()
}

/// The JSON Schema of [`bench()`], as in `docs/schema/bench.schema.json`.
pub fn bench_schema() -> String {
    schema::<Bench>()
}

/// The JSON Schema of a benchmark's samples, as in `docs/schema/bench-samples.schema.json`.
pub fn bench_samples_schema() -> String {
    schema::<BenchSamples>()
}

fn schema<T: JsonSchema>() -> String {
    pretty(schema_for!(T).as_value())
}

fn pretty<T: serde::Serialize>(value: &T) -> String {
    let mut text = serde_json::to_string_pretty(value)
        .expect("these types have string keys only and no serializer of their own");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examples;
    use std::path::Path;

    fn check_schema(name: &str, schema: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../docs/schema")
            .join(name);
        if std::env::var_os("LAGGARD_BLESS").is_some() {
            std::fs::write(&path, schema).unwrap();
        }
        let published = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            published == schema,
            "{} is out of date; run the tests with LAGGARD_BLESS=1 and look at what changed",
            path.display()
        );
    }

    #[test]
    fn published_schemas_are_up_to_date() {
        check_schema("analysis.schema.json", &analysis_schema());
        check_schema("comparison.schema.json", &comparison_schema());
        check_schema("bench.schema.json", &bench_schema());
        check_schema("bench-samples.schema.json", &bench_samples_schema());
    }

    #[test]
    fn json_reads_back() {
        for example in examples::all() {
            let read: Analysis = serde_json::from_str(&analysis(&example)).unwrap();
            assert_eq!(analysis(&read), analysis(&example));
        }
        let example = examples::comparison();
        let read: Comparison = serde_json::from_str(&comparison(&example)).unwrap();
        assert_eq!(comparison(&read), comparison(&example));
    }

    #[test]
    fn what_is_not_a_number_is_null() {
        let mut example = examples::clean();
        example.loss = f64::NAN;
        assert!(analysis(&example).contains("\"loss\": null"));
    }
}
