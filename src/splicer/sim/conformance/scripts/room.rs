//! The send buffer is full: when an event reports room again.

use super::super::Class::{All, End};
use super::super::ConformanceScript;
use super::super::ScriptStep::*;
use super::RESET;

pub const SCRIPTS: &[ConformanceScript] = &[
    ConformanceScript {
        name: "a socket that was full tells once when there is room",
        on_unix: true,
        steps: &[
            Dials,
            Accept,
            Watch,
            Events("w", "w"),
            Fill,
            NoEvent,
            ReadsAll,
            Events("w", "w"),
            NoEvent,
            Send(100, &[All]),
        ],
    },
    ConformanceScript {
        name: "room is not told to one that was not refused",
        on_unix: false,
        steps: &[Dials, Accept, Watch, Events("w", "w"), Send(1_000, &[All]), Reads(1_000), NoEvent],
    },
    ConformanceScript {
        name: "a full socket tells arrivals, and not room",
        on_unix: true,
        steps: &[
            Dials,
            Accept,
            Watch,
            Events("w", "w"),
            Fill,
            Sends(10),
            Events("r", "r"),
            Recv(100, &[All]),
            Finishes,
            Events("rf", "rf"),
            Recv(10, &[End]),
            ReadsAll,
            Events("w", "rwf"),
            Send(100, &[All]),
        ],
    },
    ConformanceScript {
        name: "a full socket is reset",
        on_unix: false,
        steps: &[Dials, Accept, Watch, Events("w", "w"), Fill, Resets, Events("rwfx", "rwfx"), Send(100, &[RESET])],
    },
];
