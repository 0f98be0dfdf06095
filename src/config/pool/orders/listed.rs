//! Orders at run time as [`BackendOrder`]s: [`Pool::ordered`] applies one, [`Pool::standing_orders`] lists those that
//! stand.
//!
//! Invariant: an order is taken as a whole or refused with a reason, and a pool after an order is one that a file could
//! have.

use super::{Instead, Removal, StandingOrder};
use crate::config::discover::BACKENDS_MAX;
use crate::config::value::{NAME_RULE, is_name, levels, order_address};
use crate::config::{Absence, Address, Backend, BackendOrigin, OnAdd, Pool, Range, RangeRule};
use crate::order::{BackendOrder, NewBackend, OrderKind, OrderOrigin, OrderRefusal};

/// The greatest weight of a backend.
const WEIGHT_MAX: u16 = 256;

impl Pool {
    /// The pool after an order about a backend. `given_ms`: when it was given, on the clock of the process. Drain and close
    /// change nothing here, and [`OrderKind::Ready`] only ends a removal.
    pub fn ordered(
        &self,
        backend: &str,
        kind: &OrderKind,
        by: &OrderOrigin,
        given_ms: i64,
    ) -> Result<Self, OrderRefusal> {
        let order = self.orders.of(backend).cloned().unwrap_or_default();
        let order = StandingOrder { by: by.clone(), ..order };
        let next = match kind {
            OrderKind::Drain | OrderKind::Close => return Ok(self.clone()),
            OrderKind::Ready if order.is_left_over() => return Err(self.is_removed(backend, &order)),
            OrderKind::Ready => StandingOrder { removal: None, ..order },
            OrderKind::Weight { weight } => self.weighed(backend, *weight, order)?,
            OrderKind::Address { address } => self.readdressed(backend, address.as_deref(), order)?,
            OrderKind::Add(new) => self.joined(backend, new, order)?,
            OrderKind::Remove { now } => self.leaving(backend, *now, order, given_ms)?,
        };
        let after = self.with_order(backend, Some(next));
        after.is_possible().map_err(|why| OrderRefusal::Refused(format!("pool {:?}: {why}", self.name)))?;
        Ok(after)
    }

    /// The orders that stand, as a file would have them: a backend that drains before it leaves counts as removed, and
    /// drains are no orders of this kind.
    pub fn standing_orders(&self) -> Vec<(BackendOrder, OrderOrigin)> {
        let mut orders = Vec::new();
        for (name, standing) in self.orders.all() {
            let StandingOrder { by, added, weight, address, removal } = standing;
            let mut push = |kind| {
                let order = BackendOrder { pool: self.name.as_str().into(), backend: name.into(), kind };
                orders.push((order, by.clone()));
            };
            match (added, removal) {
                (Some(_), Some(_)) => {}
                (None, Some(removal)) if removal.is_left_over() => {}
                (Some(added), None) => push(OrderKind::Add(standing.over(added).as_new())),
                (None, Some(_)) => push(OrderKind::Remove { now: false }),
                (None, None) => {
                    let weight = weight.as_ref().map(|weight| OrderKind::Weight { weight: Some(weight.ordered) });
                    let address = address.as_ref().map(|address| address.ordered.to_string().into());
                    let address = address.map(|address| OrderKind::Address { address: Some(address) });
                    weight.into_iter().chain(address).for_each(push);
                }
            }
        }
        orders
    }

    /// Says why a pool cannot be in force with the backends that orders have made.
    pub fn is_possible(&self) -> Result<(), String> {
        if self.discover.is_none() && self.backends.iter().filter(stays).all(|backend| backend.weight == 0) {
            return Err("no backend would be left that takes new clients".to_owned());
        }
        if self.discover.is_none()
            && let Some(range) = self.ranges.iter().find(|range| !self.serves(range))
        {
            return Err(format!("range {:?} would be left without a backend that it is pinned to", range.name));
        }
        if self.orders.all().filter(|(_, order)| order.added.is_some()).count() > BACKENDS_MAX {
            return Err(format!("at most {BACKENDS_MAX} backends can be added at run time"));
        }
        self.balance.holds(&self.backends)
    }

    /// True if a backend stays that a range may go to.
    fn serves(&self, range: &Range) -> bool {
        match &range.rule {
            RangeRule::Pin { backends, .. } => {
                self.backends.iter().filter(stays).any(|backend| backends.contains(&backend.name))
            }
            RangeRule::One | RangeRule::Prefix(_) => true,
        }
    }

    /// Refuses to change a backend that leaves.
    fn is_removed(&self, name: &str, order: &StandingOrder) -> OrderRefusal {
        let why = if order.is_left_over() { IS_LEFT_OVER } else { IS_REMOVED };
        OrderRefusal::Refused(format!("backend {}/{name} {why}", self.name))
    }

    /// The backend of this name without what orders have made of it; an error: there is none, or it is leaving.
    fn changeable(&self, name: &str) -> Result<&Backend, OrderRefusal> {
        let order = self.orders.of(name);
        if let Some(order) = order.filter(|order| order.removal.is_some()) {
            return Err(self.is_removed(name, order));
        }
        let plain = self.plain().iter().find(|backend| backend.name == name);
        plain
            .or_else(|| order?.added.as_ref())
            .ok_or_else(|| OrderRefusal::Unknown(format!("pool {:?} has no backend {name:?}", self.name)))
    }

    fn weighed(&self, name: &str, weight: Option<u16>, order: StandingOrder) -> Result<StandingOrder, OrderRefusal> {
        let base = self.changeable(name)?;
        if weight.is_some_and(|weight| weight > WEIGHT_MAX) {
            return Err(OrderRefusal::Refused(format!("a weight is between 0 and {WEIGHT_MAX}")));
        }
        self.may_differ_in_its_group(self.stick_table.is_some_and(|table| table.on_add == OnAdd::Move))?;
        Ok(StandingOrder { weight: weight.map(|ordered| Instead { ordered, of: base.weight }), ..order })
    }

    fn readdressed(
        &self,
        name: &str,
        address: Option<&str>,
        order: StandingOrder,
    ) -> Result<StandingOrder, OrderRefusal> {
        let base = self.changeable(name)?;
        let ordered = address.map(read_address).transpose()?;
        Ok(StandingOrder { address: ordered.map(|ordered| Instead { ordered, of: base.written_address() }), ..order })
    }

    fn joined(&self, name: &str, new: &NewBackend, order: StandingOrder) -> Result<StandingOrder, OrderRefusal> {
        let refused = |why: String| OrderRefusal::Refused(why);
        if order.removal.is_some() {
            return Err(self.is_removed(name, &order));
        }
        if order.added.is_some() || self.plain().iter().any(|backend| backend.name == name) {
            return Err(refused(format!("pool {:?} has a backend {name:?} already", self.name)));
        }
        if !is_name(name) {
            return Err(refused(format!("{name:?} is not a name: {NAME_RULE}")));
        }
        let NewBackend { address, weight, location, max_connections } = new;
        if *weight > WEIGHT_MAX {
            return Err(refused(format!("a weight is between 0 and {WEIGHT_MAX}")));
        }
        if *max_connections == Some(0) {
            return Err(refused("max_connections is at least 1".to_owned()));
        }
        self.may_differ_in_its_group(true)?;
        let added = Backend {
            name: name.to_owned(),
            address: read_address(address)?,
            host: None,
            weight: *weight,
            location: levels(location).map_err(|why| refused(format!("location \"{location}\" {why}")))?,
            backup: false,
            max_connections: *max_connections,
            origin: BackendOrigin::Ordered { removal: None },
        };
        Ok(StandingOrder { added: Some(added), ..order })
    }

    fn leaving(
        &self,
        name: &str,
        now: bool,
        order: StandingOrder,
        given_ms: i64,
    ) -> Result<StandingOrder, OrderRefusal> {
        // One that drains already may be removed at once.
        let drains = order.removal.as_ref().is_some_and(|removal| removal.drain.is_some());
        if !(now && drains) {
            self.changeable(name)?;
        }
        self.may_differ_in_its_group(true)?;
        let backend = self.backends.iter().find(|backend| backend.name == name).cloned();
        let Some(backend) = backend else { return Ok(order) };
        let length_ms = i64::try_from(self.drain_deadline.as_millis()).unwrap_or(i64::MAX);
        let drain = (!now).then(|| Absence { since_ms: given_ms, deadline_ms: given_ms.saturating_add(length_ms) });
        Ok(StandingOrder { removal: Some(Removal { backend, drain }), ..order })
    }

    /// Pools of one `stick_group` have equal backends, so that a change of one pool alone is refused.
    fn may_differ_in_its_group(&self, matters: bool) -> Result<(), OrderRefusal> {
        match &self.stick_group {
            Some(group) if matters => Err(OrderRefusal::Refused(format!(
                "pool {:?} is in stick_group {group:?}, and pools of one group have equal backends: change the file \
                 instead",
                self.name
            ))),
            _ => Ok(()),
        }
    }
}

/// Behind the name of a backend that cannot be changed.
const IS_REMOVED: &str = "is removed by an order: `sessile ready` takes it back";
/// Behind the name of a backend that neither file nor source has any more.
const IS_LEFT_OVER: &str = "is removed by an order and drains to the end: neither the file nor its source names it";

/// False for a backend that an order removes.
fn stays(backend: &&Backend) -> bool {
    !matches!(backend.origin, BackendOrigin::Ordered { removal: Some(_) })
}

fn read_address(written: &str) -> Result<Address, OrderRefusal> {
    order_address(written).map_err(|why| OrderRefusal::Refused(format!("address \"{written}\" {why}")))
}

impl Backend {
    /// The addition that makes this backend.
    pub fn as_new(&self) -> NewBackend {
        NewBackend {
            address: self.address.to_string().into(),
            weight: self.weight,
            location: self.location.join("/").into(),
            max_connections: self.max_connections,
        }
    }
}
