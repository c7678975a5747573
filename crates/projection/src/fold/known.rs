//! What a lane knows of an entity: its state, and what of it lies in the store by the lane's own doing.

use fleetlog_event::EntityKey;

use crate::{Base, EntityChange, FoldProjector, Version};

/// An entity in a lane's cache, as the log has it up to what was folded last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Known<S> {
    /// The store has none of it.
    #[default]
    Absent,
    /// It has a state.
    State {
        /// Its version.
        version: Version,
        /// The state.
        state: Box<S>,
        /// What the state takes of memory, in bytes.
        state_bytes: usize,
        /// What the store has of it.
        stored: Stored<S>,
    },
}

/// What the store has of an entity once the write under way is taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stored<S> {
    /// The state as it is, written by who knows whom, perhaps an earlier version of the code.
    AsRead,
    /// The state as it is, written by this owner of the lane on its chain.
    AsWritten,
    /// None of it; events were folded.
    Nothing,
    /// An earlier state, written by who knows whom; events were folded since.
    SomethingBefore,
    /// This earlier state, written by this owner; events were folded since.
    Before(Box<S>),
}

impl<S> Known<S> {
    /// A state that was read from the store.
    pub(super) fn read(version: Version, state: Box<S>, state_bytes: usize) -> Self {
        Self::State { version, state, state_bytes, stored: Stored::AsRead }
    }

    /// A state whose earlier one nobody read.
    pub(super) fn folded(version: Version, state: Box<S>, state_bytes: usize) -> Self {
        Self::State { version, state, state_bytes, stored: Stored::SomethingBefore }
    }

    /// Whether the store has all of it, or will have with the write under way.
    pub(super) fn is_written(&self) -> bool {
        matches!(self, Self::Absent | Self::State { stored: Stored::AsRead | Stored::AsWritten, .. })
    }

    /// The state, if there is one.
    pub(super) fn state(&self) -> Option<(Version, &S)> {
        match self {
            Self::Absent => None,
            Self::State { version, state, .. } => Some((*version, state)),
        }
    }

    /// What the state takes of memory, in bytes.
    pub(super) fn state_bytes(&self) -> usize {
        match self {
            Self::Absent => 0,
            Self::State { state_bytes, .. } => *state_bytes,
        }
    }

    /// Events were folded.
    pub(super) fn fold(&mut self, version: Version, state: Box<S>, state_bytes: usize) {
        let stored = match std::mem::take(self) {
            Self::Absent => Stored::Nothing,
            Self::State { stored: Stored::AsRead, .. } => Stored::SomethingBefore,
            Self::State { state, stored: Stored::AsWritten, .. } => Stored::Before(state),
            Self::State { stored, .. } => stored,
        };
        *self = Self::State { version, state, state_bytes, stored };
    }

    /// What is to be written of it, if anything; from then on the store has it.
    pub(super) fn change<P>(&mut self, projector: &P, key: EntityKey) -> Option<EntityChange<P::Write>>
    where
        P: FoldProjector<State = S>,
        S: serde::Serialize,
    {
        if self.is_written() {
            return None;
        }
        let Self::State { version, state, stored, .. } = self else { return None };
        let readable = |state: &S| {
            let mut writes = Vec::new();
            projector.writes(&key, state, &mut writes);
            writes
        };
        let writes = readable(state);
        let base = match std::mem::replace(stored, Stored::AsWritten) {
            Stored::Nothing => Base::Nothing,
            Stored::SomethingBefore | Stored::AsRead | Stored::AsWritten => Base::Unknown,
            Stored::Before(before) => Base::Written(unchanged(&writes, &readable(&before))),
        };
        let home = projector.home(&key);
        Some(EntityChange {
            home,
            version: *version,
            state: encode_state(P::ID, &**state),
            writes,
            base,
            key,
        })
    }
}

/// Which of the writes say what was said before: where each place is named once, it was said there or nowhere.
fn unchanged<W: PartialEq>(writes: &[W], before: &[W]) -> Vec<bool> {
    writes.iter().enumerate().map(|(at, write)| before.get(at) == Some(write)).collect()
}

/// A state is plain data with text keys and finite numbers, so it always has a JSON form; that it has not is a bug of
/// the projector, and a panic in a projector is Permanent.
fn encode_state<S: serde::Serialize>(id: &str, state: &S) -> Vec<u8> {
    serde_json::to_vec(state)
        .unwrap_or_else(|error| panic!("fold `{id}`: its state has no JSON form: {error}"))
}
