//! Wrappers: what Gymnasium's make of the same observations, recorded by tests/golden/wrappers.py of the workspace, and what
//! they promise beyond.

mod atari;
mod gymnasium;
mod images;
mod promises;
mod recorded;
mod script;
