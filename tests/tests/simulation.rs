//! A bounded number of simulated worlds; `WEFT_SIM_SEEDS` says how many. More: `cargo sim -- --seeds 0..100000`.

use weft_agent_core::workspace::Workspace;
use weft_tests::sim::plan::Case;
use weft_tests::sim::run::run;
use weft_tests::sim::sabotage::{NAMES, Sabotage};
use weft_tests::sim::world::FAULTS;

fn seeds() -> u64 {
    std::env::var("WEFT_SIM_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(200)
}

fn fails(seed: u64, profile: &str, sabotage: Sabotage) -> bool {
    let Some(case) = Case::draw(seed, Some(profile)) else { return false };
    run::<Workspace>(&case, sabotage, false).is_err()
}

/// Runs the seeds under a profile, or each under the one it draws; what breaks.
fn broken(seeds: std::ops::Range<u64>, profile: Option<&str>) -> Vec<String> {
    let run = |seed| {
        let Some(case) = Case::draw(seed, profile) else { return Some(format!("there is no profile {profile:?}")) };
        let violation = run::<Workspace>(&case, Sabotage::default(), false).err()?;
        let name = case.profile.name;
        let how = profile.map(|name| format!(" --profile {name}")).unwrap_or_default();
        Some(format!(
            "seed {seed} ({name}) breaks {}: {}\n  replay: cargo sim -- --seed {seed}{how} --trace",
            violation.oracle, violation.detail
        ))
    };
    seeds.filter_map(run).collect()
}

#[track_caller]
fn nothing_breaks(broken: &[String]) {
    assert!(broken.is_empty(), "{} seeds fail:\n{}", broken.len(), broken.join("\n"));
}

/// In an honest world nothing breaks, whatever the seed.
#[test]
fn honest_worlds_keep_every_promise() {
    nothing_breaks(&broken(0..seeds(), None));
}

/// Where members are removed, by owners and admins, also at the same time and while others cannot hear of it, those who
/// stay end with one answer, and nothing that they wrote is lost.
#[test]
fn worlds_with_removals_keep_every_promise() {
    nothing_breaks(&broken(0..seeds() / 4, Some("removals")));
}

/// Where disks damage or lose rows of a database, while its agent runs or while it is down, no file is lost, everybody is
/// equal in the end, and nothing but the damage is complained of.
#[test]
fn worlds_with_damaged_disks_keep_every_promise() {
    nothing_breaks(&broken(0..seeds() / 4, Some("damage")));
}

/// Relays that drop, double, damage, delay, replay and misattribute what they pass on change nothing, and once they are
/// honest again everything is as if they always had been.
#[test]
fn worlds_with_lying_relays_keep_every_promise() {
    nothing_breaks(&broken(0..seeds() / 4, Some("liars")));
}

/// A member who signs twice, backdates, claims powers, makes wrong keys, boasts and slanders is sorted out: those who stay
/// agree on everything, have lost nothing, and blame nobody else.
#[test]
fn worlds_with_a_hostile_member_keep_every_promise() {
    nothing_breaks(&broken(0..seeds() / 2, Some("hostile")));
}

/// Where everybody makes and takes checkpoints all the time nothing is different in the end, and nobody is blamed.
#[test]
fn worlds_with_checkpoints_keep_every_promise() {
    nothing_breaks(&broken(0..seeds() / 4, Some("checkpoints")));
}

/// A member who offers newcomers, and whoever was away for long, checkpoints that lie is found out: nothing forged stays, nothing
/// of anybody's own goes, and whoever was shown a forged text is told whose it was. Some are shown one.
#[test]
fn worlds_with_poisoned_checkpoints_keep_every_promise() {
    nothing_breaks(&broken(0..seeds() / 5, Some("poison")));
    let deceived = |seed| {
        let case = Case::draw(seed, Some("poison")).unwrap();
        run::<Workspace>(&case, Sabotage::default(), false).unwrap().deceived
    };
    assert!((0..seeds().max(100)).any(|seed| deceived(seed) > 0), "nobody is ever shown a forged text");
}

/// Somebody who was removed, and goes on with all the keys they had in the old rooms and the lobby, learns nothing that was
/// written by anybody who knew, keeps nobody from settling, and gets nobody else blamed.
#[test]
fn worlds_with_a_former_member_keep_every_promise() {
    nothing_breaks(&broken(0..seeds() / 4, Some("former")));
}

/// The relays of a few worlds lie in every way there is.
#[test]
fn relays_lie_in_every_way() {
    let mut lied = [0; FAULTS.len()];
    for seed in 0..10 {
        let case = Case::draw(seed, Some("liars")).unwrap();
        let figures = run::<Workspace>(&case, Sabotage::default(), false).unwrap();
        lied.iter_mut().zip(figures.lied).for_each(|(sum, count)| *sum += count);
    }
    for (fault, count) in FAULTS.iter().zip(lied) {
        assert!(count > 0, "no relay lied so: {fault:?}");
    }
}

/// Seeds that once failed.
#[test]
fn what_once_broke_holds() {
    let honest = [
        11317, 14896, 16892, 18231, 18484, 20498, 24278, 34863, 35736, 37930, 41490, 43527, 25506, 48954, 52613, 61739,
        65374, 11183, 47408, 54134, 86428, 87036, 89704,
    ];
    let kept: [(Option<&str>, &[u64]); 6] = [
        (None, &honest),
        (Some("removals"), &[68, 528, 568, 583, 773, 1035, 2087, 3177, 3458, 8546]),
        (
            Some("hostile"),
            &[16, 17, 22, 50, 57, 119, 200, 292, 340, 1259, 2245, 2523, 2629, 3335, 3798, 5883, 7106, 9570, 11987],
        ),
        (Some("former"), &[3, 4, 7, 8, 139, 144, 175, 215, 266, 325, 403, 1905, 2578, 4092, 5412, 5577, 5769, 10834]),
        (Some("poison"), &[206, 686, 704, 1052, 1408, 3209]),
        (Some("checkpoints"), &[451, 1193, 2676, 3706, 3818]),
    ];
    let seeds = kept.into_iter().flat_map(|(profile, seeds)| seeds.iter().map(move |seed| (profile, *seed)));
    let all: Vec<String> = seeds.flat_map(|(profile, seed)| broken(seed..seed + 1, profile)).collect();
    nothing_breaks(&all);
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
        let found = (0..1000).any(|seed| fails(seed, profile, sabotage) && !fails(seed, profile, Sabotage::default()));
        assert!(found, "nothing fails without {name}");
    }
}
