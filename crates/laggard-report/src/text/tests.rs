use super::*;
use crate::examples;

fn widest(text: &str) -> usize {
    text.lines()
        .map(|line| line.chars().count())
        .max()
        .unwrap_or(0)
}

#[test]
fn a_clean_run_reads_like_this() {
    let text = analysis(&examples::clean(), Style::plain(88));
    insta::assert_snapshot!(text, @r#"
    No rank, host or class holds this job back: stragglers cost 0.6 % of the time, and no
    persistent difference is beyond chance.

      step time              102.30 ms median, p5 100.36 ms, p95 108.64 ms over 380 steps
      MFU                    38.2 % [37.2, 39.2] (causal, dense bf16; peak 2.0 PFLOP/s:
                             datasheet; 39.3 % with full attention counted)
      straggler penalty      0.6 % [0.5, 0.7] of the time
      slowdown               1.006 [1.005, 1.007] against the mean over ranks of compute and
                             the mean of transfers
      throughput             80,078 tokens/s
      job                    llama-160m, dp2, 2 ranks on 1 host
      steps                  380 of 400 steps (20 left out as warm-up), wall time, measured

    where the capacity goes: share of step time x sum of peaks
      peak                  100.0 %               ██████████████████████████████████████████
      unexplained rest        0.2 % [0.2, 0.2]                                             █
      transient differences   0.6 % [0.5, 0.7]                                             ▉
      exposed communication   2.1 % [1.9, 2.3]                                            █▋
      input and launch        0.4 % [0.4, 0.4]                                            ▊
      optimizer               3.2 % [2.9, 3.5]                                           █▋
      kernels below peak     55.3 % [54.3, 56.3]                  ███████████████████████▎
      utilisation (MFU)      38.2 % [37.2, 39.2]  ████████████████
      below 0.05 % each: uneven work, slow ranks

    ranks: own is the time of a step's work without waiting
      rank  host    own [ms]  excess  charged  waits  last in
         0  host-0     91.90  -0.2 %    0.3 %  2.5 %    3.1 %
         1  host-0     92.33  +0.3 %    0.3 %  2.4 %    3.0 %

    classes: median of own time over ranks and steps
      class     ranks  own [ms]     p5    p95  waits
      H100 SXM      2     92.07  87.47  99.44  4.0 %
    "#);
}

#[test]
#[expect(clippy::too_many_lines, reason = "the snapshot is the whole report")]
fn a_mixed_run_reads_like_this() {
    let style = Style {
        glyphs: Glyphs::Ascii,
        ..Style::plain(88)
    };
    let text = analysis(&examples::mixed(), style);
    insta::assert_snapshot!(text, @r#"
    Stragglers cost 24.8 % of the time: equal shares for unequal classes (15.2 %), and rank
    5 on host-1, slow since step 420 (7.4 %).

      step time              54.70 ms median, p5 53.66 ms, p95 58.09 ms over 950 steps
                             (virtual time)
      share of measured peak 43.1 % [42.1, 44.1] (synthetic step, not your job's; causal,
                             dense fp32; peak 412.0 GFLOP/s: measured by gemm on this
                             machine; 44.4 % with full attention counted)
      straggler penalty      24.8 % [23.9, 25.7] of the time
      slowdown               1.330 [1.314, 1.346] against the mean over ranks of compute and
                             the mean of transfers
      throughput             599,049 tokens/s (virtual time)
      job                    tiny-gpt, dp8, 8 ranks on 2 hosts
      steps                  950 of 1,000 steps (50 left out as warm-up), virtual time,
                             measured

    findings
      1. Classes of different speed have equal shares: GB200-like waits 61 % of the step.
         cost        15.2 % [14.8, 15.6] of the time
         evidence    own time per micro-batch: GB200-like 21 ms, H100-like 46 ms
         what to do  Give GB200-like 2.2 times the micro-batches of H100-like.
      2. Rank 5 on host-1 takes 18.1 % longer than its class for the same work.
         cost        7.4 % [6.8, 8.0] of the time
         slower by   18.1 % [17.4, 18.8] than its peers
         since       step 420 (between 412 and 431): 18.1 % longer from there on
         evidence    last in 74 % of steps; chance alone gives 20 %
                     forward and backward are slower alike
                     its share of descheduled time is that of its peers
                     and 1 more in the JSON and HTML reports
         what to do  Check the clocks and the temperature of that device, or take it out;
                     without it the step would take 7.4 % less.
      3. [inconclusive] Compute times vary from step to step.
         cost        1.8 % [0.6, 3.0] of the time
         what to do  Record with the machine otherwise idle to tell jitter from contention.

    where the capacity goes: share of step time x sum of peaks
      peak                              100.0 %               ##############################
      unexplained rest                    1.1 % [1.0, 1.2]                                 #
      host pauses                         0.4 % [0.4, 0.4]                                 #
      transient differences               1.8 % [1.6, 2.0]                                 #
      slow ranks                          7.4 % [6.7, 8.1]                              ###
      mixed generations at equal shares  15.2 % [14.2, 16.2]                        #####
      exposed communication               4.3 % [3.9, 4.7]                        ##
      input and launch                    0.6 % [0.5, 0.7]                        #
      optimizer                           2.1 % [1.9, 2.3]                        #
      kernels below peak                 24.0 % [23.0, 25.0]              ########
      share of measured peak             43.1 % [42.1, 44.1]  #############
      exposed communication is tp 3.0 % [2.9, 3.1], dp 1.3 % [1.2, 1.4]
      below 0.05 % each: slow nodes

    what if: one unit as its peers are on average, all else as measured, over 400 steps
      unit              saves  95 %          of the loss  step then
      rank 5            7.0 %  [6.8, 7.2]         28.2 %   51.06 ms
      rank 1            0.4 %  [0.2, 0.6]          1.6 %   54.68 ms
      rank 3            0.3 %  [0.1, 0.5]          1.2 %   54.74 ms
      host host-1       7.1 %  [6.9, 7.3]         28.6 %   51.00 ms
      class H100-like  15.0 %  [14.8, 15.2]       60.5 %   46.66 ms

    ranks: own is the time of a step's work without waiting
      rank  host    emulated class  own [ms, virtual]   excess  charged   waits  last in
         0  host-0  GB200-like                  20.96   -0.2 %        -  61.7 %        -
         1  host-0  GB200-like                  21.06   +0.3 %    0.6 %  61.5 %    6.0 %
         2  host-0  H100-like                   46.15   +0.3 %        -  15.6 %        -
         3  host-0  H100-like                   46.14   +0.3 %    0.5 %  15.7 %    5.0 %
         4  host-1  H100-like                   46.17   +0.4 %        -  15.6 %        -
         5  host-1  H100-like                   54.33  +18.1 %    7.4 %   0.6 %   74.0 %
         6  host-1  H100-like                   45.80   -0.4 %        -  16.3 %        -
         7  host-1  H200-like                   41.00    0.0 %    0.4 %  25.1 %    4.0 %
      charged to no rank: class mix 15.2 %, every rank together 0.3 %

    classes: median of own time over ranks and steps
      class                  ranks  own [ms, virtual]     p5    p95   waits
      GB200-like (emulated)      2              21.00  19.95  22.68  61.6 %
      H100-like (emulated)       5              46.00  43.70  49.68  15.9 %
      H200-like (emulated)       1              41.00  38.95  44.28  25.0 %

    caveats
      - 8 ranks shared 2 cores: times are on a virtual clock driven by CPU time, so memory
        bandwidth and caches are shared in ways that a cluster does not share them
      - classes are emulated by scaled work
      - the step is laggard's own, not your job's
    "#);
}

#[test]
fn a_sketch_reads_like_this() {
    let text = analysis(&examples::sketch(), Style::plain(88));
    let from = text.find("where the time goes").expect("a waterfall");
    insta::assert_snapshot!(&text[from..], @r#"
    where the time goes: share of step time
      step                  100.0 %               ██████████████████████████████████████████
      transient differences   4.0 % [3.6, 4.4]                                            ██
      slow ranks              9.0 % [8.1, 9.9]                                        ████▍
      step of equal ranks    87.0 % [86.0, 88.0]  ████████████████████████████████████▌
      below 0.05 % each: host pauses, mixed generations at equal shares

    ranks: the 12 charged with most, then 4 typical ones; 219,888 left out
      rank  host    own [ms]  excess  charged  waits  last in
         5  host-0      1595  -0.4 %    8.5 %  2.7 %   85.0 %
        21  host-2      1610  +0.5 %    0.0 %  2.9 %    0.1 %
        28  host-3      1608  +0.4 %    0.0 %  2.6 %    0.1 %
        24  host-3      1608  +0.4 %    0.0 %  2.5 %    0.1 %
        15  host-1      1608  +0.4 %    0.0 %  2.4 %    0.1 %
         4  host-0      1608  +0.4 %    0.0 %  2.8 %    0.1 %
        34  host-4      1608  +0.4 %    0.0 %  2.3 %    0.1 %
        14  host-1      1608  +0.4 %    0.0 %  3.0 %    0.1 %
        39  host-4      1608  +0.4 %    0.0 %  2.6 %    0.1 %
        11  host-1      1608  +0.3 %    0.0 %  2.0 %    0.1 %
         2  host-0      1607  +0.3 %    0.0 %  2.0 %    0.1 %
        25  host-3      1607  +0.3 %    0.0 %  2.6 %    0.1 %
        16  host-2      1603  +0.1 %    0.0 %  2.3 %    0.1 %
        29  host-3      1603  +0.1 %    0.0 %  2.5 %    0.1 %
        32  host-4      1603  +0.1 %    0.0 %  2.9 %    0.1 %
        35  host-4      1604  +0.1 %    0.0 %  2.9 %    0.1 %
      charged to no rank: class mix 0.0 %, every rank together 1.1 %

    classes: median of own time over ranks and steps
      class      ranks  own [ms]    p5   p95  waits
      H100 SXM  219904      1602  1522  1730  4.0 %

    caveats
      - the record is a sketch, without the samples of operations
    "#);
}

#[test]
fn a_comparison_reads_like_this() {
    let text = comparison(&examples::comparison(), Style::plain(88));
    insta::assert_snapshot!(text, @r#"
    B is slower than A: its median step takes 16.2 % longer.

      figure                        A        B  B / A  95 %            change
      step time, median [ms]    102.3    118.9  1.162  [1.151, 1.173]  significant
      tokens per second       160,156  137,796  0.860  [0.852, 0.868]  significant
      straggler penalty [%]    0.6100   0.6400  1.050  [0.750, 1.350]  within chance

    caveats
      - B has 24 steps that count
    "#);
}

#[test]
fn no_line_is_longer_than_the_width() {
    let hostile = [examples::hostile(), examples::not_finite()];
    for example in examples::all().iter().chain(&hostile) {
        for width in [0, 40, 47, 60, 72, 80, 100, 132, 200] {
            for glyphs in [Glyphs::Unicode, Glyphs::Ascii] {
                let text = analysis(
                    example,
                    Style {
                        color: false,
                        width,
                        glyphs,
                    },
                );
                let (widest, limit) = (widest(&text), width.max(Style::MIN_WIDTH));
                assert!(widest <= limit, "{widest} > {limit}:\n{text}");
                assert!(glyphs == Glyphs::Unicode || text.is_ascii(), "{text}");
            }
        }
    }
    for width in [40, 60, 80] {
        assert!(widest(&comparison(&examples::comparison(), Style::plain(width))) <= width);
    }
}

#[test]
fn colour_is_only_where_the_style_asks_for_it_and_changes_nothing_else() {
    for example in examples::all().iter().chain([&examples::hostile()]) {
        let plain = analysis(example, Style::plain(100));
        assert!(!plain.contains('\u{1b}'));
        let colored = analysis(
            example,
            Style {
                color: true,
                ..Style::plain(100)
            },
        );
        assert!(colored.contains("\u{1b}[1m"));
        assert_eq!(without_escapes(&colored), plain);
    }
}

fn without_escapes(text: &str) -> String {
    let mut out = String::new();
    let mut parts = text.split('\u{1b}');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        out.push_str(
            part.split_once('m')
                .expect("an escape sequence ends in m")
                .1,
        );
    }
    out
}

#[test]
fn a_virtual_clock_and_emulated_classes_are_named_beside_the_numbers() {
    let text = analysis(&examples::mixed(), Style::plain(100));
    let line = |start: &str| {
        text.lines()
            .find(|l| l.trim_start().starts_with(start))
            .unwrap()
    };
    assert!(line("step time").contains("virtual"));
    assert!(line("throughput").contains("virtual"));
    assert!(text.contains("own [ms, virtual]"));
    assert!(text.contains("GB200-like (emulated)"));
    assert!(line("share of measured peak").contains("not your job's"));
    assert_eq!(
        text.matches("driven by CPU time").count(),
        1,
        "caveats are printed once"
    );
}

#[test]
fn many_ranks_are_cut_and_it_says_so() {
    let text = analysis(&examples::large(), Style::plain(100));
    assert!(text.contains("48 left out"));
}

#[test]
fn nan_is_never_printed() {
    let text = analysis(&examples::not_finite(), Style::plain(100));
    assert!(text.contains("n/a") && !text.contains("NaN") && !text.contains("inf "));
}
