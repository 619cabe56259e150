//! Whose turn it is: the stream's, or that of rows that tables had before.

/// Behind a chunk of rows as many bytes of the stream come before the next one, unless the stream has
/// nothing to tell. Without that the rows of a large table, which are read faster than Kafka takes
/// them, leave no room for anything else.
#[derive(Debug, Default)]
pub(in crate::pipeline) struct Turns {
    owed_to_stream: usize,
}

impl Turns {
    /// Rows went out, encoded to so many bytes.
    pub(super) fn observe_rows(&mut self, bytes: usize) {
        self.owed_to_stream = bytes;
    }

    /// The stream tells something of so many bytes, whatever becomes of it.
    pub(in crate::pipeline) fn observe_stream(&mut self, bytes: usize) {
        self.owed_to_stream = self.owed_to_stream.saturating_sub(bytes);
    }

    /// The stream has nothing to tell.
    pub(in crate::pipeline) fn observe_quiet_stream(&mut self) {
        self.owed_to_stream = 0;
    }

    /// True where rows wait until the stream has told something, or has nothing to tell.
    pub(in crate::pipeline) fn is_of_stream(&self) -> bool {
        self.owed_to_stream > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_rows_the_stream_tells_as_much_as_they_were() {
        let mut turns = Turns::default();
        assert!(!turns.is_of_stream(), "nothing went out");
        turns.observe_rows(100);
        turns.observe_stream(60);
        assert!(turns.is_of_stream());
        turns.observe_stream(40);
        assert!(!turns.is_of_stream());
        // What it tells in the turn of rows is not saved up.
        turns.observe_stream(1_000);
        turns.observe_rows(10);
        assert!(turns.is_of_stream());
    }

    #[test]
    fn a_quiet_stream_leaves_its_turn_to_rows() {
        let mut turns = Turns::default();
        turns.observe_rows(100);
        turns.observe_quiet_stream();
        assert!(!turns.is_of_stream());
    }

    #[test]
    fn rows_that_become_no_event_cost_no_turn() {
        let mut turns = Turns::default();
        turns.observe_rows(0);
        assert!(!turns.is_of_stream());
    }
}
