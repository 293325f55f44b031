use proptest::prelude::*;

use super::*;

/// What stands in a piece: embeddings, layers, layers that predict further tokens, losses.
type Piece = [u64; 4];

/// Reads Megatron-LM's layout language: `(...)*N` and `x*N` repeat, `|` separates, `,` is nothing.
fn read(text: &str) -> Vec<Piece> {
    let mut rest = text.replace(',', "");
    // Groups first, which do not stand in each other, then single letters.
    while let Some((before, after)) = rest.split_once('(') {
        let (inside, after) = after.split_once(")*").unwrap();
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let (count, after) = after.split_at(digits);
        rest = before.to_owned() + &inside.repeat(count.parse().unwrap()) + after;
    }
    let mut pieces: Vec<Piece> = vec![[0; 4]];
    let mut letters = rest.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '|' {
            pieces.push([0; 4]);
            continue;
        }
        let kind = "EtmL".find(letter).unwrap();
        let mut count = 1;
        if letters.next_if_eq(&'*').is_some() {
            let mut digits = String::new();
            while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            count = digits.parse().unwrap();
        }
        pieces.last_mut().unwrap()[kind] += count;
    }
    pieces
}

/// What the pieces have to be.
fn expected(layers: &[u32], predicting: u64) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = layers.iter().map(|it| [0, u64::from(*it), 0, 0]).collect();
    pieces.first_mut().unwrap()[0] = 1;
    let last = pieces.last_mut().unwrap();
    (last[2], last[3]) = (predicting, 1);
    pieces
}

#[test]
fn the_language_is_read_as_documented() {
    let pieces = read("Et*3|(tt|)*29,m|L");
    assert_eq!(pieces.len(), 32);
    assert_eq!(
        (pieces[0], pieces[1], pieces[29]),
        ([1, 3, 0, 0], [0, 2, 0, 0], [0, 2, 0, 0])
    );
    assert_eq!((pieces[30], pieces[31]), ([0, 0, 1, 0], [0, 0, 0, 1]));
    assert_eq!(
        read("E||t|L"),
        [[1, 0, 0, 0], [0; 4], [0, 1, 0, 0], [0, 0, 0, 1]]
    );
}

#[test]
fn stages_by_hand() {
    let check = |pieces: &[u32], virtual_stages, expect: Stages| {
        assert_eq!(stages(pieces, virtual_stages, 0), expect, "{pieces:?}");
    };
    let layout = |text: &str| Stages::Layout(text.to_owned());
    check(&[32], 1, Stages::Even);
    check(&[4, 4, 4, 4], 2, Stages::Even);
    let ends = |first, last| Stages::Ends { first, last };
    check(&[7, 8, 8, 7], 1, ends(7, Some(7)));
    check(&[14, 9, 9], 1, ends(14, None));
    check(&[3, 5], 1, ends(3, None));
    check(&[7, 8, 8, 7], 2, layout("Et*7|(t*8|)*2t*7L"));
    check(&[4, 2, 3, 4], 1, layout("Et*4|t*2|t*3|t*4L"));
    check(&[4, 4, 0], 1, layout("Et*4|t*4|L"));
    check(&[0, 3, 3, 0], 1, layout("E|(t*3|)*2L"));
}

/// What a plan says of its pieces goes before an even split, also where a piece has no layer.
#[test]
fn pieces_are_the_plans() {
    let of = |stage_layers: &[u32], layers| {
        let layout = Layout {
            pipeline_parallel: 4,
            stage_layers: stage_layers.to_vec(),
            ..Layout::data_parallel(1, 4)
        };
        pieces(&layout, layers)
    };
    assert_eq!(of(&[], 9), Ok(vec![3, 2, 2, 2]));
    assert_eq!(of(&[2, 2, 3, 2], 9), Ok(vec![2, 2, 3, 2]));
    assert_eq!(of(&[0, 3, 3, 0], 6), Ok(vec![0, 3, 3, 0]));
    assert!(of(&[2, 2, 3, 2], 10).is_err());
}

proptest! {
    #[test]
    fn layouts_are_read_back(
        layers in prop::collection::vec(0..5_u32, 2..40),
        predicting in 0..3_u64,
    ) {
        prop_assert_eq!(read(&layout(&layers, predicting)), expected(&layers, predicting));
    }

    /// With the layers of its ends, Megatron-LM shares out the rest evenly.
    #[test]
    fn ends_leave_the_rest_even(
        (first, middle, last) in (1..9_u32, 1..9_u32, 1..9_u32),
        between in 0..6_usize,
    ) {
        let mut layers = vec![middle; between + 2];
        layers[0] = first;
        layers[between + 1] = last;
        let all: u32 = layers.iter().sum();
        let read = match stages(&layers, 1, 0) {
            Stages::Even => vec![all / layers.len() as u32; layers.len()],
            Stages::Ends { first, last } => {
                let rest = all - first - last.unwrap_or(0);
                let stages = layers.len() - 1 - usize::from(last.is_some());
                let mut read = vec![first];
                if stages > 0 {
                    prop_assert_eq!(rest % stages as u32, 0);
                    read.extend(vec![rest / stages as u32; stages]);
                }
                read.extend(last);
                read
            }
            Stages::Layout(text) => panic!("{text}"),
        };
        prop_assert_eq!(read, layers);
    }
}

#[test]
fn layers_with_experts_are_said_as_python_says_them() {
    let experts = |dense_layers, every| laggard_specs::Experts {
        count: 8,
        active: 2,
        shared: 0,
        ffn_hidden: 64,
        dense_layers,
        every,
        bias: false,
    };
    assert_eq!(pattern(61, &experts(3, 1)), "([0]*3+[1]*58)");
    assert_eq!(pattern(48, &experts(0, 2)), "([0,1]*24)");
    assert_eq!(pattern(9, &experts(1, 3)), "([0]*1+[0,0,1]*2+[0]*2)");
}
