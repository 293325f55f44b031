//! A small trace in ByteDance's format.

use parquet::data_type::{ByteArray, ByteArrayType, FloatType, Int32Type, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// One row of the trace.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) replica: i32,
    pub(crate) stage: i32,
    pub(crate) step: i64,
    pub(crate) kind: &'static str,
    pub(crate) sequence: i32,
    pub(crate) start: f32,
    pub(crate) duration: f32,
}

pub(crate) const FORWARD: &str = "forward-compute";
pub(crate) const BACKWARD: &str = "backward-compute";

/// Two stages, two micro-batches, one forward one backward: type, number, begin, end.
const STAGES: [&[(&str, i32, f32, f32)]; 2] = [
    &[
        (FORWARD, 0, 1.0, 2.0),
        (FORWARD, 1, 2.0, 3.0),
        (BACKWARD, 0, 6.0, 7.0),
        (BACKWARD, 1, 9.0, 10.0),
        ("forward-send", 0, 2.0, 2.25),
        ("forward-send", 1, 3.0, 3.25),
        ("backward-recv", 0, 3.5, 6.0),
        ("backward-recv", 1, 6.25, 9.0),
    ],
    &[
        (FORWARD, 0, 2.25, 4.0),
        (BACKWARD, 0, 4.0, 6.0),
        (FORWARD, 1, 6.0, 7.0),
        (BACKWARD, 1, 7.0, 9.0),
        ("forward-recv", 0, 0.5, 2.25),
        ("forward-recv", 1, 2.5, 4.25),
        ("backward-send", 0, 6.0, 6.25),
        ("backward-send", 1, 9.0, 9.25),
    ],
];

/// Around the computations of every stage.
const FRAME: [(&str, i32, f32, f32); 7] = [
    ("params-all-gather", 0, 0.0, 0.25),
    ("gc", 0, 11.0, 11.0),
    ("layernorm-grads-all-reduce", 0, 11.0, 11.125),
    ("embedding-grads-all-reduce", 0, 11.125, 11.25),
    ("grads-reduce-scatter", 0, 11.25, 11.5),
    ("optimizer-clip-main-grad", 0, 11.5, 11.75),
    ("optimizer", 0, 11.75, 12.0),
];

/// Two replicas of two stages, two steps.
pub(crate) fn trace() -> Vec<Row> {
    let mut rows = Vec::new();
    for step in [7, 9] {
        for replica in 0..2 {
            for (stage, operations) in (0..).zip(STAGES) {
                for &(kind, sequence, start, end) in operations.iter().chain(&FRAME) {
                    let duration = end - start;
                    rows.push(Row {
                        replica,
                        stage,
                        step,
                        kind,
                        sequence,
                        start,
                        duration,
                    });
                }
            }
        }
    }
    rows
}

/// Writes rows as a trace; `skip` leaves a column out.
pub(crate) fn write(path: &Path, rows: &[Row], skip: &str) {
    let columns = [
        ("dp_rank", "required int32"),
        ("stage", "required int32"),
        ("rank", "required int32"),
        ("step", "required int64"),
        ("optype", "required binary"),
        ("start_ts", "required float"),
        ("duration", "optional float"),
        ("seq_id", "required int32"),
        ("mc", "required int32"),
        ("mb_id", "required int32"),
        ("gmc", "required int32"),
    ];
    let columns: Vec<_> = columns.iter().filter(|(name, _)| *name != skip).collect();
    let fields: Vec<String> = columns
        .iter()
        .map(|(name, kind)| format!("{kind} {name};"))
        .collect();
    let schema = parse_message_type(&format!("message trace {{ {} }}", fields.join(" ")));
    let file = File::create(path).expect("a file");
    let properties = Arc::new(WriterProperties::builder().build());
    let schema = Arc::new(schema.expect("a schema"));
    let mut writer = SerializedFileWriter::new(file, schema, properties).expect("a writer");
    let mut group = writer.next_row_group().expect("a group");
    for (name, _) in columns {
        let mut column = group.next_column().expect("open").expect("a column");
        write_column(&mut column, name, rows);
        column.close().expect("closed");
    }
    group.close().expect("closed");
    writer.close().expect("closed");
}

fn write_column(column: &mut SerializedColumnWriter<'_>, name: &str, rows: &[Row]) {
    let is_compute = |row: &Row| row.kind.ends_with("compute");
    let int = |row: &Row| match name {
        "dp_rank" => row.replica,
        "stage" => row.stage,
        "rank" => row.stage * 2 + row.replica,
        "seq_id" => row.sequence,
        "mc" if is_compute(row) || row.kind == "params-all-gather" => 0,
        "mb_id" if is_compute(row) => row.sequence,
        "gmc" if is_compute(row) => row.stage,
        _ => -1,
    };
    let written = match name {
        "step" => {
            let steps: Vec<i64> = rows.iter().map(|row| row.step).collect();
            column.typed::<Int64Type>().write_batch(&steps, None, None)
        }
        "optype" => {
            let kinds: Vec<ByteArray> = rows.iter().map(|row| row.kind.into()).collect();
            column
                .typed::<ByteArrayType>()
                .write_batch(&kinds, None, None)
        }
        "start_ts" => {
            let starts: Vec<f32> = rows.iter().map(|row| row.start).collect();
            column.typed::<FloatType>().write_batch(&starts, None, None)
        }
        // A duration that is infinite stands for one without a value.
        "duration" => {
            let levels: Vec<i16> = rows
                .iter()
                .map(|r| i16::from(r.duration.is_finite()))
                .collect();
            let levels = if rows.iter().any(|row| row.duration.is_nan()) {
                vec![1; rows.len()]
            } else {
                levels
            };
            let values = rows
                .iter()
                .map(|row| row.duration)
                .filter(|d| !d.is_infinite());
            let values: Vec<f32> = values.collect();
            column
                .typed::<FloatType>()
                .write_batch(&values, Some(&levels), None)
        }
        _ => {
            let ints: Vec<i32> = rows.iter().map(int).collect();
            column.typed::<Int32Type>().write_batch(&ints, None, None)
        }
    };
    written.expect("a column");
}
