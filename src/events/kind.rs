//! [`EventKind`]: the closed list of what happens to the process as a whole.
//!
//! Holds no event. Invariant: every kind has one word, which JSON has too, and one sentence of documentation; a word that
//! is not known, from another version, is read as [`EventKind::Other`].

use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal;)+) => {
        /// What an event is about; see [`EventKind::meaning`] for each.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum EventKind {
            $($(#[doc = $doc])+ #[serde(rename = $word)] $name,)+
            /// A kind of another version.
            #[default]
            #[serde(other, rename = "other")]
            Other,
        }

        impl EventKind {
            /// Every kind of this version.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Returns the word for JSON and commands.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)+ Self::Other => "other" }
            }

            /// Returns the documentation, one sentence.
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+).trim_ascii(),)+
                    Self::Other => "A kind of another version.",
                }
            }
        }
    };
}

kinds! {
    /// A process has begun to serve.
    Start = "start";
    /// The process was told to stop.
    Stop = "stop";
    /// A step of an upgrade or of a restart.
    Upgrade = "upgrade";
    /// A configuration was put in force, with its changes.
    Reload = "reload";
    /// A reload has given a backend another weight: keys may move to it or away from it.
    Weight = "weight";
    /// An order at run time has added, changed or removed a backend, or taken it back.
    Ordered = "ordered";
    /// The source of a pool names other backends than before, and these are in force.
    Discovered = "discovered";
    /// What the source of a pool says is not taken, with the reason; the last backends stay.
    DiscoverFailed = "discover_failed";
    /// What the source of a pool says is taken again.
    DiscoverWorks = "discover_works";
    /// The name of a backend has another address, and that is in force.
    Resolved = "resolved";
    /// What is found of the name of a backend is not taken, with the reason; its last address stays, or the backend is down.
    ResolveFailed = "resolve_failed";
    /// What is found of the name of a backend is taken again.
    ResolveWorks = "resolve_works";
    /// A configuration was refused, with its first problem.
    ReloadRefused = "reload_refused";
    /// Checks have found a backend down, with the reason.
    Down = "down";
    /// Checks have found a backend up.
    Up = "up";
    /// A backend passes its checks and is held down because it has flapped.
    Damped = "damped";
    /// This host could not run a check.
    CheckFailed = "check_failed";
    /// Failed connections have ejected a backend.
    Ejected = "ejected";
    /// An ejection is over.
    Returned = "returned";
    /// A drain has begun: by command, by an agent, because an order removes the backend, or because the source of the pool
    /// does not name it.
    Drain = "drain";
    /// The deadline of a drain has passed: the backend serves no client.
    Drained = "drained";
    /// A drain stands for so long that it may have been forgotten.
    DrainForgotten = "drain_forgotten";
    /// A drain or a removal has ended: by command, by an agent, or because the source of the pool names the backend again.
    Ready = "ready";
    /// A limit on connections is reached, of the process, of a listener or of sources.
    Limit = "limit";
    /// A limit on connections is left.
    LimitLeft = "limit_left";
    /// No descriptor was free, and accepting pauses.
    AcceptPaused = "accept_paused";
    /// Descriptors are free again.
    AcceptResumed = "accept_resumed";
    /// A stick table is full and loses entries.
    TableFull = "table_full";
    /// A stick table has lost no entry for ten minutes.
    TableRoom = "table_room";
    /// Lines of the access log are dropped or lost.
    LogLost = "log_lost";
    /// Lines of the access log are written again.
    LogWritten = "log_written";
    /// A file of this process cannot be written.
    FileFailed = "file_failed";
    /// A file of this process is written again.
    FileWritten = "file_written";
    /// The shared store is not used, or refuses writes.
    StoreDown = "store_down";
    /// The shared store works again.
    StoreUp = "store_up";
    /// Entries of stick tables, or orders, are not shared with other instances.
    FleetDown = "fleet_down";
    /// Entries of stick tables, or orders, are shared with other instances.
    FleetUp = "fleet_up";
    /// A certificate is not good yet, has expired, or expires soon.
    Certificate = "certificate";
}

impl EventKind {
    /// Returns the kind of this word; `None`: there is none.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.word() == word)
    }

    /// Kinds of events that end a condition which an event of this kind has begun, if they are about the same; empty if
    /// this kind begins no condition.
    pub fn ended_by(self) -> &'static [Self] {
        match self {
            Self::Down | Self::Damped => &[Self::Up],
            Self::Ejected => &[Self::Returned],
            Self::Drain | Self::Drained | Self::DrainForgotten => &[Self::Ready],
            Self::Limit => &[Self::LimitLeft],
            Self::AcceptPaused => &[Self::AcceptResumed],
            Self::TableFull => &[Self::TableRoom],
            Self::LogLost => &[Self::LogWritten],
            Self::FileFailed => &[Self::FileWritten],
            Self::StoreDown => &[Self::StoreUp],
            Self::FleetDown => &[Self::FleetUp],
            Self::ReloadRefused => &[Self::Reload],
            Self::DiscoverFailed => &[Self::DiscoverWorks],
            Self::ResolveFailed => &[Self::ResolveWorks],
            _ => &[],
        }
    }

    /// True if an event of this kind puts other backends or rules in force.
    pub fn is_of_configuration(self) -> bool {
        matches!(self, Self::Reload | Self::Discovered | Self::Resolved | Self::Ordered)
    }

    /// True if a condition that an event of this kind has begun is one of a process, and unknown to the next one.
    pub fn ends_with_its_process(self) -> bool {
        use EventKind::{
            AcceptPaused, DiscoverFailed, FileFailed, Limit, LogLost, ReloadRefused, ResolveFailed, TableFull,
        };
        matches!(
            self,
            AcceptPaused | DiscoverFailed | FileFailed | Limit | LogLost | ReloadRefused | ResolveFailed | TableFull
        )
    }
}

/// What a condition is of, where several of one kind may go on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The limits of single sources, beside that of the listener.
    Sources,
    /// Lines of the access log that are dropped, because the output takes too little.
    DroppedLines,
    /// Lines of the access log that the output refuses.
    RefusedLines,
    /// The file of drains and ejections.
    StateFile,
    /// The file of stick tables.
    StickTableFile,
    /// A subject of another version.
    #[serde(other)]
    Other,
}
