//! Configurations of one pool, and what placement alone does under them.

use std::net::{Ipv4Addr, SocketAddr};

use sessile::pool::{PickScene, Pool};
use sessile::sticky::Facts;

use super::POOL;
use crate::support::backend::listener;

/// One configuration.
#[derive(Debug, Clone)]
pub struct Table {
    /// Keys before the first table.
    pub top: String,
    /// Of the listener.
    pub listener: String,
    /// KiB of the stick table.
    pub kib: u64,
    /// Of the pool.
    pub options: String,
    /// `off`, or an inline table.
    pub check: String,
    /// Everything after the pool.
    pub after: String,
    /// Weights of the first backends; the rest is not there.
    pub weights: Vec<u16>,
    /// Where all of them are.
    pub addresses: Vec<SocketAddr>,
}

impl Table {
    /// So many of these backends, no checks, and so many KiB of stick table.
    pub fn new(addresses: &[SocketAddr], count: usize, kib: u64) -> Self {
        Self {
            top: String::new(),
            listener: String::new(),
            kib,
            options: String::new(),
            check: "\"off\"".into(),
            after: String::new(),
            weights: vec![1; count],
            addresses: addresses.to_vec(),
        }
    }

    /// The same with so many backends of weight 1.
    #[must_use]
    pub fn with(&self, count: usize) -> Self {
        Self { weights: vec![1; count], ..self.clone() }
    }

    /// As a file.
    pub fn text(&self) -> String {
        let mut text = format!("{}[log]\nconnections = false\nlevel = \"warn\"\n", self.top);
        text += &listener(POOL, &self.listener);
        text += &format!("[[pool]]\nname = \"{POOL}\"\nsend_proxy = \"v2\"\ncheck = {}\n", self.check);
        text += &format!("stick_table = \"{} KiB\"\n{}", self.kib, self.options);
        for (index, (address, weight)) in self.addresses.iter().zip(&self.weights).enumerate() {
            text += &format!("[[pool.backend]]\nname = \"b{index}\"\naddress = \"{address}\"\nweight = {weight}\n");
        }
        text + &self.after
    }

    /// Where placement alone puts clients: a pool without stick table, with all its backends up.
    pub fn placement(&self) -> impl Fn(u64) -> u8 + use<> {
        let checked = sessile::config::check(&self.text(), &|_| Ok(Vec::new())).expect("a good file");
        let pool = Pool::new(&checked.config.pools[0], None, 1);
        move |key| {
            let source = Some(Ipv4Addr::from(key as u32).into());
            let pick = pool.pick(&PickScene::new(&Facts { source, ..Facts::default() }, &[], 0)).expect("a backend");
            pick.backend.name()[1..].parse().expect("b and a number")
        }
    }
}
