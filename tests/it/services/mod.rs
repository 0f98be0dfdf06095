//! Programs that people really run, behind the balancer: what they and their own clients see is what they would see
//! without it.

mod checks;
mod https;
mod many_checks;
mod one_port;
mod postgres;
mod redis;
mod ssh;
