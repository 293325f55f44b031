use super::*;

#[test]
fn text_reads_or_says_why_not() {
    assert_eq!(Layout::parse("dp4"), Ok(Layout::data_parallel(4, 1)));
    for text in [
        "dp2,tp2,pp4,vp2,cp3,ep2,zero3,sp,recompute",
        "dp1,pp2,recompute3",
        "dp1,pp2",
        "dp2,zero1",
    ] {
        assert_eq!(
            Layout::parse(text).map(|l| l.to_string()),
            Ok(text.to_owned())
        );
    }
    assert_eq!(Layout::parse("tp=2xdp=3").map(|l| l.world_size()), Ok(6));
    for bad in [
        "",
        "dp0",
        "dpx",
        "zz3",
        "4",
        "dp2,dp2",
        "zero4",
        "zero",
        "sp2",
        "recompute0",
        "recompute2,recompute",
        "dp",
        "dp4294967295",
    ] {
        assert!(Layout::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_first_layers_of_each_piece_are_computed_again() {
    let check = |text: &str, layers: u32, again: u32| {
        let layout = Layout::parse(text).expect("readable");
        let share = layout.recomputed_share(layers).expect("a split");
        let expect = f64::from(again) / f64::from(layers);
        assert!((share - expect).abs() < 1e-12, "{text}: {share}");
    };
    check("dp2,pp2", 7, 0);
    check("dp2,pp2,recompute", 7, 7);
    check("dp2,pp2,recompute1", 7, 2);
    check("dp2,pp2,recompute4", 7, 7);
    check("dp2,pp2,vp2,recompute1", 6, 4);
    let layout = Layout::parse("dp2,recompute2").expect("readable");
    assert_eq!(
        [0, 1, 2].map(|place| layout.computes_again(place)),
        [true, true, false]
    );
    let none = Layout {
        recompute_layers: Some(1),
        ..Layout::data_parallel(2, 1)
    };
    for layers in [Some(0), Some(1)] {
        let wrong = Layout {
            recompute_layers: layers,
            recompute: match layers {
                Some(0) => Recompute::Layers,
                _ => Recompute::None,
            },
            ..none.clone()
        };
        let error = wrong.check(2).expect_err("no layers").to_string();
        assert!(error.contains("but none are"), "{error}");
    }
}

#[test]
fn every_rank_has_its_place() {
    let layout = Layout::parse("dp3,tp2,pp2,cp2").expect("readable");
    let all: Vec<_> = (0..24).map(|rank| layout.coordinates(rank)).collect();
    for (rank, at) in all.iter().enumerate() {
        assert_eq!(layout.rank(*at), rank as u32);
    }
    assert_eq!(all[1].tensor, 1, "tensor parallel is fastest");
    assert_eq!(all[23].pipeline, 1, "pipeline stages are farthest apart");
}

fn refused(text: &str, change: impl Fn(&mut Layout), part: &str) {
    let mut layout = Layout::parse(text).expect("readable");
    change(&mut layout);
    let error = layout
        .check(layout.world_size() as u32)
        .expect_err(part)
        .to_string();
    assert!(error.contains(part), "{error}");
}

#[test]
fn impossible_layouts_are_refused() {
    assert!(Layout::data_parallel(2, 1).check(2).is_ok());
    assert!(Layout::data_parallel(2, 1).check(3).is_err());
    let nothing = |_: &mut Layout| {};
    refused("dp2", |l| l.micro_batches = vec![1, 0], "replica 1 has no");
    refused(
        "dp2",
        |l| l.micro_batches = vec![1],
        "1 micro-batch shares for 2",
    );
    refused("dp2,vp2", nothing, "virtual stages need a pipeline");
    refused(
        "dp1,pp2,vp2",
        |l| l.micro_batches = vec![3],
        "multiples of pp",
    );
    refused(
        "dp1,pp2",
        |l| l.stage_layers = vec![1; 3],
        "3 numbers of layers for 2",
    );
    refused("dp3,ep2", nothing, "divides dp x cp");
    refused("dp2,ep2", |l| l.micro_batches = vec![1, 2], "share experts");
    refused("dp2,sp", nothing, "tp2 or more");
    refused("dp2,zero3", |l| l.overlap = false, "--no-overlap");
    refused("dp2,zero2", |l| l.micro_batches = vec![1, 2], "zero1");
}

#[test]
fn layers_are_split_evenly_or_as_told() {
    let layout = Layout::parse("dp1,pp2,vp2").expect("readable");
    assert_eq!(layout.layers_of_pieces(6), Ok(vec![2, 2, 1, 1]));
    assert!(
        layout.layers_of_pieces(2).is_err(),
        "a piece without layers"
    );
    let told = Layout {
        stage_layers: vec![3, 1, 2, 0],
        ..layout
    };
    assert_eq!(told.layers_of_pieces(6), Ok(vec![3, 1, 2, 0]));
    assert!(told.layers_of_pieces(7).is_err());
}
