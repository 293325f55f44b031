//! `laggard validate` on the rows that laggard ships and on files of a user's own.

use std::process::Output;

fn laggard(arguments: &[&str]) -> Output {
    crate::laggard(&[&["validate"], arguments].concat())
}

#[track_caller]
fn json(arguments: &[&str]) -> serde_json::Value {
    crate::json(&[&["validate"], arguments].concat())
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    file
}

/// The bounds that a user sees; those without each source are `fit_cost_model`'s.
#[test]
fn the_headline_is_printed_and_small() {
    let number = |of: &serde_json::Value, key: &str| of[key].as_f64().expect("a number");
    for (arguments, median, p90) in [
        (&[][..], 0.1, 0.25),
        (&["--framework-scalars"][..], 0.06, 0.15),
    ] {
        let found = json(arguments);
        assert!(number(&found, "median_absolute_relative_error") <= median);
        assert!(number(&found, "p90_absolute_relative_error") <= p90);
        let predicted = found["predictions"].as_array().expect("rows").len();
        let left_out = found["left_out"].as_array().expect("rows");
        assert!(predicted > 400 && predicted + left_out.len() == 649);
        let says_why = |row: &serde_json::Value| row["reason"].as_str().is_some();
        assert!(left_out.iter().all(says_why));
    }
    let text = laggard(&["--by", "accelerator"]);
    let text = String::from_utf8(text.stdout).expect("text");
    assert!(text.contains("Noise floor") && text.contains("h100-sxm5-80gb"));
}

#[test]
fn a_users_own_rows_need_few_columns() {
    let rows = file(
        "gpus,accelerator_id,kind,row_id,seq_len,model,tokens_per_s_per_gpu,dp,unheard of\n\
         8,H100,train,mine,8192,llama3-8b,11000,8,x\n\
         8,H100,train,other,8192,a model of our own,11000,8,x\n",
    );
    let found = json(&[rows.path().to_str().expect("a path")]);
    assert_eq!(found["predictions"][0]["row_id"], "mine");
    assert_eq!(found["left_out"][0]["row_id"], "other");
    let error = found["predictions"][0]["relative_error"].as_f64();
    assert!(error.expect("a number").abs() < 0.5, "{error:?}");
}

#[test]
fn bad_cells_are_named_by_file_line_and_column() {
    let check = |text: &str, expect: &[&str]| {
        let rows = file(text);
        let path = rows.path().to_str().expect("a path");
        let out = laggard(&[path]);
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(3), "{error}");
        for part in expect.iter().chain(&[path]) {
            assert!(error.contains(part), "{error}");
        }
    };
    let header = "row_id,kind,model,accelerator_id,gpus,seq_len,step_time_s\n";
    check(
        &format!("{header}a,train,GPT,h100,8,2048,fast\n"),
        &["line 2", "step_time_s", "fast"],
    );
    check(
        &format!("{header}a,train,GPT,h100,8,2048,1\nb,train,GPT,h100,eight,2048,1\n"),
        &["line 3", "gpus"],
    );
    check("row_id,kind\n", &["accelerator_id"]);
    check("", &["no column"]);
}

#[test]
fn a_file_without_predictable_rows_is_no_error() {
    let rows = file("row_id,kind,model,accelerator_id,gpus,seq_len\na,claim,GPT,h100,8,2048\n");
    let path = rows.path().to_str().expect("a path");
    assert!(json(&[path])["median_absolute_relative_error"].is_null());
    let text = laggard(&[path]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("No row can be predicted"));
}
