//! Orders at run time in the model: what is added, changed and removed, and when that ends.

use super::*;
use crate::order::{NewBackend, OrderKind, OrderOrigin};

/// What orders have made of one backend.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Ordered {
    pub(super) added: Option<Known>,
    /// The weight that was ordered, and the one before.
    weight: Option<(u16, u16)>,
    /// The port, likewise.
    port: Option<(u16, u16)>,
    pub(super) leaves: Option<Leaves>,
}

/// A removal.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Leaves {
    known: Known,
    /// Since when it drains; `None`: it has left.
    pub(super) since_ms: Option<i64>,
    /// Neither file nor source has it any more.
    is_left_over: bool,
}

impl Ordered {
    pub(super) fn in_force(&self, plain: Option<&Known>) -> Option<Known> {
        if let Some(Leaves { known, since_ms, .. }) = &self.leaves {
            return since_ms.map(|since_ms| Known { absent_ms: None, leaves_ms: Some(since_ms), ..known.clone() });
        }
        Some(self.over(plain.or(self.added.as_ref())?))
    }

    fn over(&self, base: &Known) -> Known {
        let (weight, port) = (self.weight.map_or(base.weight, |it| it.0), self.port.map_or(base.port, |it| it.0));
        Known { weight, port, ..base.clone() }
    }
}

impl Model {
    /// Ends the orders that file and source have made void.
    pub(super) fn follow(&mut self) {
        let plain = self.plain();
        self.orders.retain(|name, order| {
            let is_written = self.written.backends.contains_key(name);
            let base = match (plain.get(name), &order.added, &mut order.leaves) {
                (Some(_), Some(_), _) => return false,
                (Some(_), None, Some(Leaves { is_left_over: true, .. })) if is_written => return false,
                (Some(plain), None, _) => plain.clone(),
                (None, None, Some(leaves @ Leaves { since_ms: Some(_), .. })) => {
                    leaves.is_left_over = true;
                    (order.weight, order.port) = (None, None);
                    return true;
                }
                (None, None, _) | (None, Some(_), Some(Leaves { since_ms: None, .. })) => return false,
                (None, Some(added), _) => added.clone(),
            };
            order.weight.take_if(|(ordered, of)| *of != base.weight || *ordered == base.weight);
            order.port.take_if(|(ordered, of)| *of != base.port || *ordered == base.port);
            if plain.contains_key(name) {
                let known = order.over(&base);
                order.leaves.iter_mut().for_each(|leaves| {
                    *leaves = Leaves { known: known.clone(), is_left_over: false, ..leaves.clone() };
                });
            }
            *order != Ordered::default()
        });
    }

    /// False: the order is refused.
    pub(super) fn order(&mut self, name: &str, kind: &OrderKind, now_ms: i64) -> bool {
        let plain = self.plain();
        let mut order = self.orders.get(name).cloned().unwrap_or_default();
        let base = plain.get(name).or(order.added.as_ref()).cloned();
        let (is_known, leaves) = (base.is_some(), order.leaves.clone());
        let base = base.unwrap_or(Known::at(0));
        match kind {
            OrderKind::Ready if leaves.as_ref().is_some_and(|leaves| leaves.is_left_over) => return false,
            OrderKind::Ready => order.leaves = None,
            OrderKind::Weight { weight } if is_known && leaves.is_none() => {
                order.weight = weight.map(|weight| (weight, base.weight));
            }
            OrderKind::Address { address } if is_known && leaves.is_none() => {
                order.port = address.as_ref().map(|address| (port_of(address), base.port));
            }
            OrderKind::Add(new) if !is_known && leaves.is_none() => {
                order.added = Some(Known { weight: new.weight, ..Known::at(port_of(&new.address)) });
            }
            OrderKind::Remove { now } => match leaves {
                None if is_known => {
                    let since_ms = (!now).then_some(now_ms);
                    order.leaves = Some(Leaves { known: order.over(&base), since_ms, is_left_over: false });
                }
                Some(leaves @ Leaves { since_ms: Some(_), .. }) if *now => {
                    order.leaves = Some(Leaves { since_ms: None, ..leaves });
                }
                _ => return false,
            },
            _ => return false,
        }
        self.orders.insert(name.to_owned(), order);
        self.follow();
        self.pass(now_ms);
        if *kind == OrderKind::Ready {
            self.ordered.remove(name);
        }
        true
    }

    /// Every connection has ended, and every backend is another one.
    pub(super) fn restart(&mut self) {
        self.open.clear();
        self.lives.clear();
    }
}

fn port_of(address: &str) -> u16 {
    address.rsplit(':').next().unwrap().parse().unwrap()
}

impl World {
    /// An order that adds, changes or removes a backend, or takes one back.
    pub(super) fn change(&mut self, random: &mut Random) {
        let known: Vec<_> = self.model.all().into_keys().chain(self.model.orders.keys().cloned()).collect();
        let new = ["r1", "r2", "r3", "p1", "q1", "s1"].map(str::to_owned).to_vec();
        let names = if known.is_empty() || random.one_in(4) { new } else { known };
        let name = names[random.below(names.len())].clone();
        let address = format!("10.0.0.1:{}", 1 + random.below(3));
        let weight = random.below(4) as u16;
        let kind = match random.below(8) {
            0 | 1 => OrderKind::Add(NewBackend { weight, ..NewBackend::at(address) }),
            2 => OrderKind::Weight { weight: Some(weight) },
            3 => OrderKind::Address { address: Some(address.into()) },
            4 if random.one_in(2) => OrderKind::Weight { weight: None },
            4 => OrderKind::Address { address: None },
            5 => OrderKind::Remove { now: false },
            6 => OrderKind::Remove { now: random.one_in(2) },
            _ => OrderKind::Ready,
        };
        let before = self.current.load_full();
        let next = before.pools[0].config().ordered(&name, &kind, &OrderOrigin::Command, self.now_ms);
        let is_taken = self.model.order(&name, &kind, self.now_ms);
        assert_eq!(next.is_ok(), is_taken, "{name} {kind:?}: {next:?}");
        let Ok(next) = next else { return };
        if let Some(config) = with_pool(&before, &next, self.now_ms) {
            self.put_in_force(config);
        }
        if kind == OrderKind::Ready {
            let now_ms = u64::try_from(self.now_ms).unwrap();
            self.current.load().pools[0].order(&name, AdminState::Ready, now_ms);
        }
    }

    /// The next process begins with what this one has kept, at another time of its clock.
    pub(super) fn restart(&mut self) {
        let before = self.current.load_full();
        let (now_ms, unix_ms) = (u64::try_from(self.now_ms).unwrap(), 1_800_000_000_000);
        let kept = RuntimeState::of(&before, now_ms, unix_ms).for_file().to_json();
        let state = RuntimeState::from_json(&kept).unwrap();
        assert_eq!(state.left_out(), None);
        let mut config = self.model.written.config();
        let pool = config.pools[0].with_found(state.found("web", now_ms, unix_ms));
        config.pools[0] = pool.with_standing(state.orders("web", now_ms, unix_ms));
        let admission = Arc::new(Admission::new(9));
        let snapshot = Snapshot::build(config, LoadedFiles::default(), None, 1, &admission);
        state.apply(&snapshot, now_ms, unix_ms);
        self.leases.clear();
        self.current = Current::new(snapshot);
        self.model.restart();
    }
}
