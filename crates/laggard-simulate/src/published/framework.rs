//! Which framework a row used.

use laggard_specs::{PublishedRow, Recompute};

use crate::job::{Family, Framework, Frameworks};

/// The framework that a row names, else the one whose words stand in it, else that of its source,
/// else the usual one for its layout and accelerator.
pub(super) fn framework_of<'a>(
    row: &PublishedRow,
    family: Family,
    frameworks: &'a Frameworks,
) -> &'a Framework {
    let notes = row.notes.as_deref().unwrap_or_default();
    let says = |word: &String| row.model.contains(word.as_str()) || notes.contains(word.as_str());
    let by_words = |one: &&Framework| one.words.iter().any(says);
    let of_source = |one: &&Framework| {
        let source = row.source_id.as_ref();
        source.is_some_and(|source| one.published_sources.contains(source))
    };
    let entries = &frameworks.entries;
    let named = row.framework.as_deref();
    named
        .and_then(|name| frameworks.named(name).or_else(|| within(name, frameworks)))
        .or_else(|| entries.iter().find(by_words))
        .or_else(|| entries.iter().find(of_source))
        .or_else(|| frameworks.named(usual(row, family)))
        .unwrap_or(&entries[0])
}

/// The framework whose longest name stands in a longer one, such as `NeMo 25.02 (Megatron Core)`.
fn within<'a>(name: &str, frameworks: &'a Frameworks) -> Option<&'a Framework> {
    let letters = |text: &str| -> String {
        let kept = text.chars().filter(char::is_ascii_alphanumeric);
        kept.map(|letter| letter.to_ascii_lowercase()).collect()
    };
    let name = letters(name);
    let found = |one: &Framework| {
        let names = std::iter::once(&one.id).chain(&one.aliases);
        let names = names.map(|own| letters(own));
        names
            .filter(|own| name.contains(own.as_str()))
            .map(|own| own.len())
            .max()
    };
    let entries = frameworks.entries.iter();
    let with = entries.filter_map(|one| Some((found(one)?, one)));
    with.max_by_key(|(length, _)| *length).map(|(_, one)| one)
}

/// What such layouts are run with as a rule: compilers on TPUs and their like, Megatron-LM where
/// ranks share a layer or form a pipeline, and sharded data parallelism in PyTorch otherwise.
/// Megatron-LM got flash kernels in 2023: an Ampere run that says what it recomputed is older.
fn usual(row: &PublishedRow, family: Family) -> &'static str {
    let model_parallel = [row.tp, row.pp].iter().flatten().any(|&degree| degree > 1);
    let recomputes = row
        .recomputation()
        .is_some_and(|what| what != Recompute::None);
    match (family, model_parallel) {
        (Family::Tpu | Family::Other, _) => "jax",
        (Family::Ampere, true) if recomputes => "megatron-lm-2022",
        (_, true) => "megatron-lm",
        (_, false) => "pytorch-fsdp",
    }
}
