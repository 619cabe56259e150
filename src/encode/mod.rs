//! From a domain event to the bytes of a record. (in work)
