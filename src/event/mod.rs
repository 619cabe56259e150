//! From a row to a domain event. (in work)
