//! The bounds that are explored, by name.

use std::fmt;

use stateright::{Checker, Model as _};

use crate::fault::Fault;
use crate::referee::Verdict;
use crate::world::{Action, Bounds, Model};

/// Bounds and what they are for.
pub struct Named {
    /// What they are for.
    pub name: &'static str,
    /// How much may happen.
    pub bounds: Bounds,
    /// Where to stop, in states generated: the shortest orders of events have been seen by then.
    pub limit: Option<usize>,
}

const NONE: Bounds = Bounds {
    out: Vec::new(),
    inbound: Vec::new(),
    cuts: 0,
    power_cuts: 0,
    forgets: 0,
    refusals: 0,
    window: 2,
    external: false,
    on_release: false,
    reuse_ids: cfg!(feature = "whole"),
};

/// About a million states.
#[cfg(feature = "whole")]
pub fn short() -> Vec<Named> {
    vec![
        Named {
            name: "out, payloads in the store",
            bounds: Bounds { out: vec![2, 1, 2], cuts: 1, power_cuts: 1, external: true, ..NONE },
            limit: None,
        },
        Named {
            name: "out, to a broker that delivers late and forgets",
            bounds: Bounds { out: vec![2, 2], cuts: 1, power_cuts: 1, forgets: 1, on_release: true, ..NONE },
            limit: None,
        },
        Named {
            name: "out, with a store that refuses",
            bounds: Bounds { out: vec![2, 1], cuts: 1, power_cuts: 1, refusals: 1, external: true, ..NONE },
            limit: None,
        },
        Named {
            name: "in",
            bounds: Bounds { inbound: vec![2, 1, 2], cuts: 2, power_cuts: 1, forgets: 1, refusals: 1, ..NONE },
            limit: None,
        },
        Named {
            name: "in, with identifiers of sessions whose loss nobody heard of",
            bounds: Bounds { inbound: vec![2, 2], cuts: 2, forgets: 1, ..NONE },
            limit: None,
        },
        Named {
            name: "both ways",
            bounds: Bounds { out: vec![2], inbound: vec![2], cuts: 1, power_cuts: 1, forgets: 1, ..NONE },
            limit: None,
        },
    ]
}

/// What can happen to a session in RAM.
#[cfg(not(feature = "whole"))]
pub fn short() -> Vec<Named> {
    vec![
        Named { name: "small: out", bounds: Bounds { out: vec![2, 1, 2], cuts: 3, ..NONE }, limit: None },
        Named {
            name: "small: out, to a broker that delivers late and forgets",
            bounds: Bounds { out: vec![2, 1, 2], cuts: 3, forgets: 2, on_release: true, ..NONE },
            limit: None,
        },
        Named {
            name: "small: in",
            bounds: Bounds { inbound: vec![2, 1, 2, 2], cuts: 4, forgets: 1, ..NONE },
            limit: None,
        },
        Named {
            name: "small: both ways",
            bounds: Bounds { out: vec![2, 1], inbound: vec![2, 1], cuts: 2, forgets: 1, ..NONE },
            limit: None,
        },
    ]
}

/// The same, with more that goes wrong.
#[cfg(not(feature = "whole"))]
pub fn long() -> Vec<Named> {
    let mut all = short();
    all.push(Named {
        name: "small, long: in, five cuts, three sessions forgotten",
        bounds: Bounds { inbound: vec![2, 1, 2, 2], cuts: 5, forgets: 3, ..NONE },
        limit: Some(24_000_000),
    });
    all.push(Named {
        name: "small, long: both ways, three messages each",
        bounds: Bounds { out: vec![2, 1, 2], inbound: vec![2, 2, 1], cuts: 3, forgets: 2, ..NONE },
        limit: Some(24_000_000),
    });
    all
}

/// Where a fault should show, the smallest first.
#[cfg(not(feature = "whole"))]
pub fn seeded(_: Fault) -> Vec<Bounds> {
    vec![
        Bounds { out: vec![2, 1], cuts: 1, ..NONE },
        Bounds { inbound: vec![2, 1], cuts: 1, ..NONE },
        Bounds { out: vec![2, 2], cuts: 1, on_release: true, ..NONE },
        Bounds { inbound: vec![2, 2], cuts: 2, forgets: 1, ..NONE },
    ]
}

/// More than ten million.
#[cfg(feature = "whole")]
pub fn long() -> Vec<Named> {
    let mut all = short();
    all.extend([
        Named {
            name: "long: out, three messages, two cuts and two power cuts",
            bounds: Bounds { out: vec![2, 1, 2], cuts: 1, power_cuts: 2, external: true, ..NONE },
            limit: None,
        },
        Named {
            name: "long: out, to a broker that forgets twice",
            bounds: Bounds { out: vec![2, 1, 2], cuts: 1, power_cuts: 1, forgets: 2, on_release: true, ..NONE },
            limit: Some(24_000_000),
        },
        Named {
            name: "long: in, two sessions forgotten",
            bounds: Bounds { inbound: vec![2, 2, 1], cuts: 2, power_cuts: 2, forgets: 2, refusals: 1, ..NONE },
            limit: Some(24_000_000),
        },
        Named {
            name: "long: both ways, everything goes wrong",
            bounds: Bounds {
                out: vec![2, 1],
                inbound: vec![2, 2],
                cuts: 1,
                power_cuts: 1,
                forgets: 1,
                refusals: 1,
                external: true,
                ..NONE
            },
            limit: Some(24_000_000),
        },
    ]);
    all
}

/// Where a fault should show, the smallest first.
#[cfg(feature = "whole")]
pub fn seeded(_: Fault) -> Vec<Bounds> {
    vec![
        Bounds { out: vec![2, 1], cuts: 1, power_cuts: 1, refusals: 1, external: true, ..NONE },
        Bounds { inbound: vec![2, 1], cuts: 1, power_cuts: 1, ..NONE },
        Bounds { out: vec![2, 2], power_cuts: 2, on_release: true, ..NONE },
        Bounds { inbound: vec![2, 2], cuts: 1, power_cuts: 1, ..NONE },
        // The broker loses the session, and the CONNACK that says so is lost.
        Bounds { inbound: vec![2, 2], cuts: 2, forgets: 1, ..NONE },
    ]
}

/// The shortest way to a broken rule.
pub fn find(model: Model) -> Option<(Verdict, Vec<Action>)> {
    let checker = model.checker().spawn_bfs().join();
    let path = checker.discovery("no rule is broken")?;
    let verdict = path.last_state().verdict()?;
    Some((verdict, path.into_actions()))
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { out, inbound, cuts, power_cuts, forgets, refusals, window, .. } = self;
        write!(f, "QoS {out:?} out, QoS {inbound:?} in, {cuts} cuts, {power_cuts} power cuts, ")?;
        write!(f, "{forgets} sessions forgotten, {refusals} stores refused, {window} packets each way")?;
        for (is_so, what) in [
            (self.external, "payloads in the store"),
            (self.on_release, "broker delivers at PUBREL"),
            (self.reuse_ids, "identifiers start again"),
        ] {
            if is_so {
                write!(f, ", {what}")?;
            }
        }
        Ok(())
    }
}
