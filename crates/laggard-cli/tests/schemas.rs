//! The published form of plans, of tables of devices and of rehearsals: JSON Schemas that match the
//! code. `LAGGARD_BLESS=1` rewrites them.

use laggard_analyze::Fleet;
use laggard_plan::{PlanFile, Rehearsal};
use schemars::{JsonSchema, schema_for};
use std::path::Path;

#[track_caller]
fn check<T: JsonSchema>(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema");
    let path = folder.join(name);
    let schema = serde_json::to_string_pretty(&schema_for!(T)).expect("a schema") + "\n";
    if std::env::var_os("LAGGARD_BLESS").is_some_and(|value| value == "1") {
        std::fs::write(&path, &schema).expect("written");
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        schema == published,
        "{name} is out of date: run the tests with LAGGARD_BLESS=1 and look at what changed"
    );
}

#[test]
fn published_schemas_match_the_code() {
    check::<PlanFile>("plan.schema.json");
    check::<Fleet>("fleet.schema.json");
    check::<Rehearsal>("rehearsal.schema.json");
}
