//! Prints what sealing and opening cost. Not a timed test: run with `--ignored --nocapture`.

use std::time::Instant;

use rand_core::Rng;

use super::world::World;
use crate::envelope::{Draft, Kind, open_head, seal};
use crate::id::{ChainId, Link};
use crate::keyring::Keyring;

#[test]
#[ignore = "prints figures, proves nothing"]
fn figures() {
    let mut world = World::found(40);
    let mut keyring = Keyring::new();
    keyring.insert(world.epoch.clone());
    let mut noise = vec![0; 256 * 1024];
    world.rng.fill_bytes(&mut noise);
    let founder = world.founder.clone();
    let start = Instant::now();
    for _ in 0..500 {
        world.invite(&founder, crate::membership::Role::Reader);
    }
    eprintln!("500 ops made and inserted: {:?}", start.elapsed());
    let text: Vec<u8> =
        (0..40_000u32).flat_map(|n| format!("line {} of {}\n", n * 7919 % 1000, n).into_bytes()).collect();
    for (name, body) in [
        ("text 1 KB", &text[..1024]),
        ("text 256 KiB", &text[..256 * 1024]),
        ("noise 1 KB", &noise[..1024]),
        ("noise 256 KiB", &noise[..]),
    ] {
        let rounds = if body.len() > 2000 { 200 } else { 4000 };
        let mut last = None;
        let start = Instant::now();
        for seq in 1..=rounds {
            let draft = Draft {
                kind: Kind::Content,
                epoch: &world.epoch,
                chain: ChainId { device: world.founder.device.id(), incarnation: 1 },
                seq,
                prev: Link([0; 32]),
                op_heads: world.set.heads(),
                body,
                leaf_changes: &[],
            };
            last = Some(seal(draft, &world.workspace(), &world.founder.device, &mut world.rng).unwrap());
        }
        let sealing = start.elapsed() / rounds as u32;
        let bytes = last.unwrap().sealed.into_bytes();
        let public = world.founder.device.public();
        let (mut head_time, mut verify_time, mut body_time) = <_>::default();
        for _ in 0..rounds {
            let start = Instant::now();
            let head = open_head(&world.workspace(), &keyring, &bytes).unwrap();
            head_time += start.elapsed();
            let start = Instant::now();
            let head = head.verify(&public).unwrap();
            verify_time += start.elapsed();
            let start = Instant::now();
            assert_eq!(head.open_body(&keyring, &bytes).unwrap().len(), body.len());
            body_time += start.elapsed();
        }
        let each = |time: std::time::Duration| time / rounds as u32;
        eprintln!(
            "{name}: {} bytes sealed; seal {sealing:?}, open head {:?}, verify {:?}, open body {:?}",
            bytes.len(),
            each(head_time),
            each(verify_time),
            each(body_time),
        );
    }
}
