use super::*;
use crate::options::Kind;

fn option(tokens_per_s: f64, net: Option<f64>, mw: Option<f64>) -> PlanOption {
    PlanOption {
        kind: Kind::Pools,
        name: String::new(),
        jobs: Vec::new(),
        uses: Vec::new(),
        figures: Figures {
            tokens_per_s,
            model_tokens_per_s: tokens_per_s,
            net_dollars_per_hour: net,
            power_mw: mw,
            ..Figures::default()
        },
        can_win: true,
        paces: None,
    }
}

#[test]
fn the_front_has_what_nothing_beats_in_everything() {
    let list = [
        option(10.0, Some(5.0), Some(3.0)),
        option(8.0, Some(5.0), Some(3.0)),
        option(8.0, Some(5.0), Some(2.0)),
        option(10.0, Some(5.0), Some(3.0)),
        option(1.0, Some(9.0), Some(3.0)),
    ];
    let ranking = rank(&list, Objective::Tokens).expect("a ranking");
    assert_eq!(ranking.front, [0, 2, 3, 4]);
    // Of equals the earlier.
    assert_eq!(ranking.order, [0, 3, 1, 2, 4]);
    assert_eq!(ranking.one_model, Some(0));
    let ranking = rank(&list, Objective::NetDollars).expect("a ranking");
    assert_eq!(ranking.order[0], 4);
}

#[test]
fn what_cannot_win_or_has_no_number_is_not_ranked() {
    let mut list = [
        option(10.0, None, None),
        option(0.0, Some(1.0), None),
        option(20.0, Some(-1.0), None),
    ];
    list[2].can_win = false;
    assert_eq!(
        rank(&list, Objective::Tokens).expect("a ranking").order,
        [0]
    );
    assert_eq!(
        rank(&list, Objective::NetDollars).expect("a ranking").order,
        [1]
    );
    let refused = rank(&list, Objective::TokensPerMwh).expect_err("no power");
    assert!(
        refused.to_string().contains("power_watts_per_device"),
        "{refused}"
    );
}

#[test]
fn what_is_missing_is_what_is_blamed() {
    let refused = |list: &[PlanOption], objective: Objective| {
        rank(list, objective)
            .expect_err("nothing to compare")
            .to_string()
    };
    let nothing_kept = [option(0.0, None, Some(3.0))];
    for objective in [
        Objective::Tokens,
        Objective::Mfu,
        Objective::Time,
        Objective::TokensPerMwh,
    ] {
        let text = refused(&nothing_kept, objective);
        assert!(text.contains("no job keeps a token"), "{text}");
    }
    let no_price = [option(10.0, None, Some(3.0))];
    for objective in [Objective::NetDollars, Objective::DollarsPerToken] {
        let text = refused(&no_price, objective);
        assert!(text.contains("no class has a price"), "{text}");
    }
}
