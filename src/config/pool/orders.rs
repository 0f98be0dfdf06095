//! [`PoolOrders`]: what orders at run time have made of the backends of a [`Pool`], beside what file and source say.
//!
//! Puts nothing in force. Invariants: a pool with orders keeps both lists, with and without them, so that an order can
//! end at any time; an order about a weight or an address ends once file or source has another value than when it was
//! given; a backend that was added is one of the file's from the moment that the file names it; a removed backend that
//! file and source name no more only drains to the end.

mod listed;

use std::collections::{BTreeMap, HashMap};

use super::{Address, Backend, Pool};
use crate::config::{Absence, BackendOrigin};
use crate::order::OrderOrigin;

/// The orders that stand for the backends of a pool.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PoolOrders {
    by_name: BTreeMap<String, StandingOrder>,
    /// The backends without the orders; empty where there is no order.
    plain: Vec<Backend>,
}

/// What orders have made of one backend.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StandingOrder {
    /// Where the last of them was given.
    pub by: OrderOrigin,
    /// The backend as it was added; `None`: file or source has it.
    pub added: Option<Backend>,
    /// Another weight than file, source or addition give.
    pub weight: Option<Instead<u16>>,
    /// Another address than file, source or addition give.
    pub address: Option<Instead<Address>>,
    /// The backend is to leave, or has left.
    pub removal: Option<Removal>,
}

/// A value in the place of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instead<T> {
    /// The value that was ordered.
    pub ordered: T,
    /// The value that file or source had then.
    pub of: T,
}

/// A removal by order.
#[derive(Debug, Clone, PartialEq)]
pub struct Removal {
    /// The backend as it was before the removal.
    pub backend: Backend,
    /// The times of its drain; `None`: it serves no client any more and has left.
    pub drain: Option<Absence>,
}

impl Removal {
    /// True if neither file nor source nor an addition has the backend any more, and it only drains to the end.
    fn is_left_over(&self) -> bool {
        self.backend.origin == BackendOrigin::Ordered { removal: None } && self.drain.is_some()
    }
}

impl StandingOrder {
    /// True if the backend only drains to the end, and nothing can take it back.
    fn is_left_over(&self) -> bool {
        self.added.is_none() && self.removal.as_ref().is_some_and(Removal::is_left_over)
    }

    fn is_empty(&self) -> bool {
        let Self { by: _, added, weight, address, removal } = self;
        added.is_none() && weight.is_none() && address.is_none() && removal.is_none()
    }

    /// Forgets what is void now that file and source have this backend, or none. False: nothing is left.
    fn follows(&mut self, plain: Option<&Backend>) -> bool {
        let base = match (plain, &self.added, &mut self.removal) {
            // From here on it is one of the file's.
            (Some(_), Some(_), _) => return false,
            (Some(plain), None, Some(removal)) if removal.is_left_over() && !plain.is_found() => return false,
            (Some(plain), None, _) => plain,
            (None, _, Some(Removal { drain: None, .. })) | (None, None, None) => return false,
            (None, Some(added), _) => added,
            // It drains to the end, and goes on as removed if the source names it before.
            (None, None, Some(removal)) => {
                removal.backend.origin = BackendOrigin::Ordered { removal: None };
                (self.weight, self.address) = (None, None);
                return true;
            }
        };
        self.weight.take_if(|weight| weight.of != base.weight || weight.ordered == base.weight);
        self.address.take_if(|address| address.of != base.written_address() || address.ordered == base.address);
        let now = plain.map(|plain| self.over(plain));
        if let (Some(removal), Some(now)) = (&mut self.removal, now) {
            removal.backend = now;
        }
        !self.is_empty()
    }

    /// What is ordered, in words.
    pub fn words(&self) -> Vec<String> {
        let added = self.added.iter().map(|_| "added".to_owned());
        let weight = self.weight.iter().map(|weight| format!("weight {} in place of {}", weight.ordered, weight.of));
        let address =
            self.address.iter().map(|address| format!("address {} in place of {}", address.ordered, address.of));
        let removed = self.removal.iter().map(|_| "removed".to_owned());
        added.chain(weight).chain(address).chain(removed).collect()
    }

    /// A backend with the weight and the address that were ordered.
    fn over(&self, base: &Backend) -> Backend {
        let weight = self.weight.as_ref().map_or(base.weight, |weight| weight.ordered);
        let address = self.address.as_ref().map_or(&base.address, |address| &address.ordered).clone();
        Backend { weight, address, ..base.clone() }
    }

    /// The backend that is in force; `None`: it has left. `plain`: that of file or source.
    fn in_force(&self, plain: Option<&Backend>) -> Option<Backend> {
        if let Some(Removal { backend, drain }) = &self.removal {
            let removal = Some((*drain)?);
            return Some(Backend { origin: BackendOrigin::Ordered { removal }, ..backend.clone() });
        }
        match (plain, &self.added) {
            (Some(plain), _) => Some(self.over(plain)),
            (None, Some(added)) => {
                Some(Backend { origin: BackendOrigin::Ordered { removal: None }, ..self.over(added) })
            }
            (None, None) => None,
        }
    }
}

impl PoolOrders {
    /// True if no order stands.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The order about a backend; `None`: there is none.
    pub fn of(&self, backend: &str) -> Option<&StandingOrder> {
        self.by_name.get(backend)
    }

    /// Every order, with the name of its backend, in the order of the names.
    pub fn all(&self) -> impl Iterator<Item = (&str, &StandingOrder)> {
        self.by_name.iter().map(|(name, order)| (name.as_str(), order))
    }

    /// Names of backends that orders have added, that no order removes, and that are no part of file or source.
    pub fn added(&self) -> impl Iterator<Item = &str> {
        self.all().filter(|(_, order)| order.added.is_some() && order.removal.is_none()).map(|(name, _)| name)
    }

    /// Names of backends that file or source have, and that orders have removed for good.
    pub fn removed(&self) -> impl Iterator<Item = &str> {
        let has_left = |order: &StandingOrder| order.removal.as_ref().is_some_and(|removal| removal.drain.is_none());
        self.all().filter(move |(_, order)| has_left(order)).map(|(name, _)| name)
    }
}

impl Pool {
    /// The backends that file and source name, without what orders have made of them.
    pub fn plain(&self) -> &[Backend] {
        if self.orders.is_empty() { &self.backends } else { &self.orders.plain }
    }

    /// The same pool with these backends in the place of those that file and source name.
    pub fn with_plain(&self, plain: Vec<Backend>) -> Self {
        self.settled(plain, self.orders.by_name.clone())
    }

    /// The same pool with the orders that stand for another one of its name.
    pub fn with_orders(&self, orders: &PoolOrders) -> Self {
        self.settled(self.plain().to_vec(), orders.by_name.clone())
    }

    /// The same pool with these orders alone.
    pub fn with_standing(&self, standing: impl IntoIterator<Item = (String, StandingOrder)>) -> Self {
        self.settled(self.plain().to_vec(), standing.into_iter().collect())
    }

    /// The same pool with another order about a backend; `None`: without one.
    pub fn with_order(&self, backend: &str, order: Option<StandingOrder>) -> Self {
        let mut by_name = self.orders.by_name.clone();
        match order {
            Some(order) => drop(by_name.insert(backend.to_owned(), order)),
            None => drop(by_name.remove(backend)),
        }
        self.settled(self.plain().to_vec(), by_name)
    }

    /// The same pool without the removed backends that are through.
    pub fn with_removals_over(&self, is_over: &dyn Fn(&str, Absence) -> bool) -> Self {
        let mut by_name = self.orders.by_name.clone();
        for (name, order) in &mut by_name {
            if let Some(removal) = &mut order.removal {
                removal.drain.take_if(|drain| is_over(name, *drain));
            }
        }
        if by_name == self.orders.by_name { self.clone() } else { self.settled(self.plain().to_vec(), by_name) }
    }

    /// The backends of file and source by the orders, as far as these are not void: first those that the file names, in
    /// its order, then those of the source and those that orders have added, each by name.
    fn settled(&self, plain: Vec<Backend>, mut by_name: BTreeMap<String, StandingOrder>) -> Self {
        if by_name.is_empty() {
            return Self { backends: plain, orders: PoolOrders::default(), ..self.clone() };
        }
        let places: HashMap<&str, &Backend> = plain.iter().map(|backend| (backend.name.as_str(), backend)).collect();
        by_name.retain(|name, order| order.follows(places.get(name.as_str()).copied()));
        let of_plain = plain.iter().filter_map(|backend| match by_name.get(&backend.name) {
            Some(order) => order.in_force(Some(backend)),
            None => Some(backend.clone()),
        });
        let added = by_name.iter().filter(|(name, _)| !places.contains_key(name.as_str()));
        let backends = of_plain.chain(added.filter_map(|(_, order)| order.in_force(None))).collect();
        let plain = if by_name.is_empty() { Vec::new() } else { plain };
        Self { backends, orders: PoolOrders { by_name, plain }, ..self.clone() }
    }
}

#[cfg(test)]
mod tests;
