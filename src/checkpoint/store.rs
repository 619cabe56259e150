//! The compacted topic that keeps checkpoints. (in work)
