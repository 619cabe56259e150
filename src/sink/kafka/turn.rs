//! Two producers take turns.

/// Which of two producers. They take turns: while the transaction of one is being ended, the other's
/// is filled.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Turn {
    #[default]
    First,
    Second,
}

impl Turn {
    pub(super) const COUNT: usize = 2;

    pub(super) fn next(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    /// Its place among both.
    pub(super) fn index(self) -> usize {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }

    pub(super) fn of<T>(self, [first, second]: &[T; Self::COUNT]) -> &T {
        match self {
            Self::First => first,
            Self::Second => second,
        }
    }

    pub(super) fn of_mut<T>(self, [first, second]: &mut [T; Self::COUNT]) -> &mut T {
        match self {
            Self::First => first,
            Self::Second => second,
        }
    }

    /// The transactional id of a producer. A slot's name holds no slash, so none of them is another
    /// pipeline's.
    pub(super) fn transactional_id(self, pipeline: &str) -> String {
        match self {
            Self::First => pipeline.to_owned(),
            Self::Second => format!("{pipeline}/2"),
        }
    }
}
