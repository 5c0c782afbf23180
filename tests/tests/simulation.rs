//! A bounded number of simulated worlds; `WEFT_SIM_SEEDS` says how many. More: `cargo sim -- --seeds 0..100000`.

use weft_agent_core::workspace::Workspace;
use weft_tests::sim::plan::Case;
use weft_tests::sim::run::run;
use weft_tests::sim::sabotage::{NAMES, Sabotage};

fn seeds() -> u64 {
    std::env::var("WEFT_SIM_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(200)
}

fn fails(seed: u64, profile: &str, sabotage: Sabotage) -> bool {
    let Some(case) = Case::draw(seed, Some(profile)) else { return false };
    run::<Workspace>(&case, sabotage, false).is_err()
}

/// In an honest world nothing breaks, whatever the seed.
#[test]
fn honest_worlds_keep_every_promise() {
    let mut broken = Vec::new();
    for seed in 0..seeds() {
        let case = Case::draw(seed, None).unwrap();
        if let Err(violation) = run::<Workspace>(&case, Sabotage::default(), false) {
            broken.push(format!(
                "seed {seed} ({}) breaks {}: {}\n  replay: cargo sim -- --seed {seed} --trace",
                case.profile.name, violation.oracle, violation.detail
            ));
        }
    }
    assert!(broken.is_empty(), "{} seeds fail:\n{}", broken.len(), broken.join("\n"));
}

/// A seed says everything that happens.
#[test]
fn the_same_seed_gives_the_same_digest() {
    for seed in 0..seeds().min(20) {
        let case = Case::draw(seed, None).unwrap();
        let digest = || run::<Workspace>(&case, Sabotage::default(), false).map(|figures| figures.digest);
        assert_eq!(digest(), digest(), "seed {seed}");
    }
}

/// Each defence matters: without it some seed in a small range fails that passes with it.
#[test]
fn every_defence_matters() {
    for name in NAMES {
        let sabotage = Sabotage::named(name).unwrap();
        let profile = sabotage.profile();
        let found = (0..200).any(|seed| fails(seed, profile, sabotage) && !fails(seed, profile, Sabotage::default()));
        assert!(found, "nothing fails without {name}");
    }
}
