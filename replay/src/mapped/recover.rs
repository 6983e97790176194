//! Which rows of a file are whole.

use super::header::{Commit, NO_CEILING, Note};
use std::ops::Range;

/// Why none can be given out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Damaged(&'static str),
    PowerLoss,
}

/// The rows that are whole, by what the header says.
///
/// Serial s shares its slot with s + slots, which is written only if it is below the limit. So the rows from
/// limit − slots on are whole as far as they were ever live:
///
/// * While the system runs, the file is what the processes that mapped it have stored, though they be killed: the note's
///   limit holds, and both the note's live rows and the commit's had been published. As the limit was at most slack rows
///   after the note's last row, no row that the newer of the two ranges makes live lies before limit − slots.
/// * After the system went down each page is as new or old as chance will have it. The commit is as it was flushed, rows
///   included, and until a newer one was on the disk nothing from its ceiling on was given out.
pub(super) fn recover(
    commit: &Commit,
    note: &Note,
    (capacity, slots): (u64, u64),
    boot: u64,
) -> Result<Range<u64>, Refusal> {
    for live in [&commit.live, &note.live] {
        if live.start > live.end || live.end - live.start > capacity || live.end > u64::MAX / 2 {
            return Err(Refusal::Damaged("it has live rows that are not possible"));
        }
    }
    if note.epoch > commit.epoch {
        return Err(Refusal::Damaged("what it says of its rows is older than the rows"));
    }
    let from =
        |live: Range<u64>, limit: u64| live.start.max(limit.saturating_sub(slots)).min(live.end)..live.end;
    if commit.boot == boot && boot != 0 {
        if note.epoch < commit.epoch {
            // Killed before anything was given out.
            return Ok(commit.live.clone());
        }
        let newer = if note.live.end > commit.live.end { &note.live } else { &commit.live };
        return Ok(from(newer.clone(), note.limit));
    }
    if commit.ceiling == NO_CEILING {
        return Err(Refusal::PowerLoss);
    }
    Ok(from(commit.live.clone(), commit.ceiling))
}
