//! Nothing: a crate that has only a benchmark wants a library all the same.
