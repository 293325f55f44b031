use super::*;
use crate::tables::Tables;

const HEADER: &str = "row_id,kind,model,accelerator_id,gpus,seq_len,mfu_pct,colour";

#[test]
fn shipped_rows_are_read() {
    let rows = rows(published_training()).unwrap();
    let first = rows.iter().find(|row| row.row_id == "KOR22-002").unwrap();
    assert_eq!(first.kind, RowKind::Train);
    assert_eq!(
        (first.tp, first.pp, first.gpus),
        (Some(8), Some(1), Some(8))
    );
    assert_eq!((first.mfu_pct, first.hfu_pct), (Some(41.5), Some(43.7)));
    assert_eq!(first.sequence_parallel, Some(true));
    assert_eq!(first.derived_fields, ["tokens_per_s_per_gpu"]);
    assert_eq!(first.confidence, Some(Confidence::High));
    assert_eq!(first.virtual_stages, None);
    let rate = 4.0 * 2048.0 / (1.10 * 8.0);
    assert!((first.token_rate().unwrap() / rate - 1.0).abs() < 1e-5);
    for row in &rows {
        assert!(
            row.source_id.is_some() && row.source_url.is_some(),
            "{}",
            row.row_id
        );
        assert!(row.confidence.is_some(), "{}", row.row_id);
    }
}

#[test]
fn columns_are_found_by_name() {
    let text = format!("\u{feff}{HEADER}\nA-1,train,\"GPT, plain\",h100,512.0,,41.5,red\n");
    let rows = rows(&text).unwrap();
    assert_eq!(rows[0].model, "GPT, plain");
    assert_eq!((rows[0].gpus, rows[0].seq_len), (Some(512), None));
    assert_eq!((rows[0].mfu_pct, rows[0].tp), (Some(41.5), None));
}

#[track_caller]
fn refuses(text: &str, says: &[&str]) {
    let error = rows(text).unwrap_err().to_string();
    for part in says {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn bad_rows_are_refused_with_their_line() {
    refuses(
        "row_id,model\n",
        &["kind, accelerator_id, gpus, seq_len", "hint:"],
    );
    refuses("", &["row_id", "hint:"]);
    refuses(&format!("{HEADER},kind\n"), &["two columns 'kind'"]);
    let row = |row: &str| format!("{HEADER}\nA-1,train,m,h100,8,2048,40,\n{row}\n");
    refuses(
        &row("A-2,train,m,h100,8.5,2048,40,"),
        &["line 3", "gpus", "'8.5'", "whole number"],
    );
    refuses(
        &row("A-2,train,m,h100,8,2048,NaN,"),
        &["line 3", "mfu_pct", "finite"],
    );
    refuses(&row("A-2,train,m,h100,8,-1,,"), &["line 3", "seq_len"]);
    refuses(
        &row("A-2,training,m,h100,8,1,,"),
        &["kind", "train, hetero"],
    );
    refuses(&row(",train,m,h100,8,1,,"), &["row_id", "is empty"]);
    refuses(&row("A-1,train,m,h100,8,1,,"), &["'A-1'", "earlier row"]);
    refuses(&row("A-2,train,m"), &["line: 3", "hint:"]);
}

fn shape(cells: &str) -> Option<crate::model::Model> {
    let header = "row_id,kind,accelerator_id,gpus,model,params_total_b,params_active_b,layers,\
                  hidden,heads,ffn_hidden,vocab,seq_len,flops_convention";
    let text = format!("{header}\nA,train,h100,8,{cells}\n");
    rows(&text).unwrap()[0].shape(&Tables::builtin().unwrap())
}

#[test]
fn rows_become_models() {
    // A preset, with the row's vocabulary.
    let gpt = shape("GPT-3 175B,174.6,,96,12288,96,49152,51200,2048,").unwrap();
    assert_eq!((gpt.id.as_str(), gpt.vocab), ("gpt3-175b", 51200));
    // No dimensions but a known name.
    assert_eq!(shape("Kimi_K2,,,,,,,,4096,").unwrap().id, "kimi-k2");
    assert_eq!(
        shape("LLAMA3_70B SFT,,,,,,,,4096,").unwrap().id,
        "llama3-70b"
    );
    assert!(shape("Unheard of,70,,,,,,,4096,").is_none());
    // Megatron-Bridge trains DeepSeek-V3 with one module more unless a row says otherwise.
    let deepseek = |name: &str, convention: &str| {
        let cells = format!("{name},671,37.5,61,7168,128,2048,129280,4096,{convention}");
        shape(&cells).unwrap().mtp_modules
    };
    assert_eq!(deepseek("DeepSeekV3", "mbridge-causal"), 1);
    assert_eq!(deepseek("DeepSeekV3 (w/o MTP)", "mbridge-causal"), 0);
    assert_eq!(deepseek("DeepSeek-V3", "none (tokens/s)"), 0);
    // Own dimensions: the total decides between plain and gated.
    let own = shape("Mine,6.4,,32,4096,32,16384,50000,2048,").unwrap();
    assert_eq!((own.ffn_matrices, own.head_dim, own.kv_heads), (2, 128, 32));
    assert_eq!(
        shape("Mine,9,,32,4096,32,16384,50000,2048,")
            .unwrap()
            .ffn_matrices,
        3
    );
    assert_eq!(
        shape("Mine,,,32,4096,32,16384,50000,2048,")
            .unwrap()
            .ffn_matrices,
        2
    );
    // Experts cannot be guessed, and impossible shapes are none.
    assert!(shape("Mine,100,10,32,4096,32,1024,50000,2048,").is_none());
    assert!(shape("Mine,,,32,4096,99999999999,16384,50000,2048,").is_none());
}

/// Every training row whose convention and shape are known prints what its own throughput gives,
/// within the rounding of its source; the rows that do not are listed with the reason, and no
/// others.
#[test]
fn rows_recompute_their_own_figures() {
    let tables = Tables::builtin().unwrap();
    let exceptions = arithmetic_exceptions().unwrap();
    let mut listed: BTreeSet<&str> = BTreeSet::new();
    for exception in &exceptions {
        assert!(!exception.reason.is_empty() && !exception.source.is_empty());
        for row in &exception.rows {
            assert!(listed.insert(row), "{row} is listed twice");
        }
    }
    let (mut agreeing, mut wrong) = (0, Vec::new());
    for row in rows(published_training()).unwrap() {
        let Ok(checks) = row.check_figures(&tables) else {
            continue;
        };
        let off: Vec<_> = checks.iter().filter(|check| !check.agrees()).collect();
        match (off.is_empty(), listed.remove(row.row_id.as_str())) {
            (true, false) => agreeing += 1,
            (false, true) => {}
            (true, true) => wrong.push(format!("{} is listed and agrees", row.row_id)),
            (false, false) => wrong.push(format!("{}: {off:?}", row.row_id)),
        }
    }
    assert!(wrong.is_empty(), "{} agree\n{}", agreeing, wrong.join("\n"));
    assert!(listed.is_empty(), "listed but not recomputed: {listed:?}");
    assert!(agreeing > 250, "only {agreeing} rows were recomputed");
}
