//! The code under test connects: an accepted, a refused and an unanswered attempt.

use super::super::Class::{All, End, Later};
use super::super::ConformanceScript;
use super::super::ConnectTarget::{Accepting, Closed, Silent};
use super::super::ScriptStep::*;
use super::{REFUSED, RESET};
use crate::fault::Fault as Why;

pub const SCRIPTS: &[ConformanceScript] = &[
    ConformanceScript {
        name: "connected: writable is told, bytes go through",
        on_unix: true,
        steps: &[Connect(Accepting), Watch, Events("w", "w"), TakeError(&[None]), Send(100, &[All]), Reads(100)],
    },
    ConformanceScript {
        name: "connected to one that speaks first",
        on_unix: true,
        steps: &[Connect(Accepting), Sends(50), Watch, Events("rw", "rw"), Recv(100, &[All])],
    },
    ConformanceScript {
        name: "connected to one that says nothing and finishes",
        on_unix: true,
        steps: &[
            Connect(Accepting),
            Finishes,
            Watch,
            Events("rwf", "rwf"),
            TakeError(&[None]),
            Recv(100, &[End]),
            Send(10, &[All]),
        ],
    },
    ConformanceScript {
        name: "connected and reset at once",
        on_unix: false,
        steps: &[
            Connect(Accepting),
            Resets,
            Watch,
            Events("rwfx", "rwfx"),
            TakeError(&[Some(Why::Reset)]),
            TakeError(&[None]),
        ],
    },
    ConformanceScript {
        name: "connected and reset at once, found by reading",
        on_unix: false,
        steps: &[Connect(Accepting), Resets, Watch, Events("rwfx", "rwfx"), Recv(10, &[RESET])],
    },
    ConformanceScript {
        name: "connect refused",
        on_unix: false,
        steps: &[
            Connect(Closed),
            Watch,
            Events("rwfx", "rwfx"),
            TakeError(&[Some(Why::Refused)]),
            TakeError(&[None]),
            Recv(10, &[End]),
            Send(10, &[RESET]),
        ],
    },
    ConformanceScript {
        name: "connect refused, found by reading",
        on_unix: false,
        steps: &[Connect(Closed), Watch, Events("rwfx", "rwfx"), Recv(10, &[REFUSED]), Recv(10, &[End])],
    },
    ConformanceScript {
        name: "connect refused, found by sending",
        on_unix: false,
        steps: &[Connect(Closed), Watch, Events("rwfx", "rwfx"), Send(10, &[REFUSED])],
    },
    ConformanceScript {
        name: "a connect that nobody answers",
        on_unix: false,
        steps: &[
            Connect(Silent),
            Watch,
            NoEvent,
            Send(10, &[Later]),
            Recv(10, &[Later]),
            TakeError(&[None]),
            NoEvent,
            Drop,
        ],
    },
];
