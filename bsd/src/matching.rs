//! Which attached row belongs to which open file. The kernel tells of a row only who touched it last, so it
//! is a conclusion, in steps from the surest to the weakest. What none of them settles belongs to nobody:
//! a descriptor in a message between two processes.

use crate::raw::BpfRow;

/// An open file that a row may belong to.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// What tells it from others.
    pub id: u64,
    /// Who has it.
    pub pids: Vec<u32>,
    /// The row that belonged to it at the last look.
    pub before: Option<&'a BpfRow>,
}

impl Candidate<'_> {
    /// Whether `row` may be what it was attached as, later: counters only rise.
    fn continues(&self, row: &BpfRow) -> bool {
        self.before.is_some_and(|before| {
            before.interface == row.interface
                && before.received <= row.received
                && before.written <= row.written
        })
    }

    fn has(&self, pid: u32) -> bool {
        self.pids.contains(&pid)
    }
}

/// For each row the id of its file.
pub fn assign(rows: &[BpfRow], candidates: &[Candidate<'_>]) -> Vec<Option<u64>> {
    let mut taken = vec![false; candidates.len()];
    let mut out = vec![None; rows.len()];
    type Step = fn(&Candidate<'_>, &BpfRow) -> bool;
    let steps: [Step; 4] = [
        // As before, and whoever touched it last has it.
        |candidate, row| candidate.continues(row) && candidate.has(row.pid),
        // As before, and touched last by who touched it then: passed on, inherited, or in flight.
        |candidate, row| {
            candidate.continues(row) && candidate.before.is_some_and(|before| before.pid == row.pid)
        },
        // Newly attached by one that has it.
        |candidate, row| candidate.before.is_none() && candidate.has(row.pid),
        // Attached anew, to another interface.
        |candidate, row| candidate.has(row.pid),
    ];
    for step in steps {
        for (row, slot) in rows.iter().zip(&mut out) {
            if slot.is_some() {
                continue;
            }
            let found = (0..candidates.len())
                .find(|index| !taken[*index] && step(&candidates[*index], row));
            if let Some(index) = found {
                taken[index] = true;
                *slot = Some(candidates[index].id);
            }
        }
    }
    // One row and one file are left: inherited or passed on before anybody looked, and not yet touched.
    let left: Vec<usize> = (0..rows.len()).filter(|index| out[*index].is_none()).collect();
    let free: Vec<usize> = (0..candidates.len())
        .filter(|index| !taken[*index] && candidates[*index].before.is_none())
        .collect();
    if let ([row], [candidate]) = (left.as_slice(), free.as_slice()) {
        out[*row] = Some(candidates[*candidate].id);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pid: u32, interface: &str, received: u64) -> BpfRow {
        BpfRow {
            pid,
            interface: interface.as_bytes().to_vec(),
            promiscuous: false,
            received,
            matched: 0,
            dropped: 0,
            written: 0,
            buffer: 4096,
            locked: false,
        }
    }

    fn file<'a>(id: u64, pids: &[u32], before: Option<&'a BpfRow>) -> Candidate<'a> {
        Candidate { id, pids: pids.to_vec(), before }
    }

    #[test]
    fn each_to_its_process() {
        let rows = [row(7, "em0", 0), row(8, "em0", 0)];
        let files = [file(80, &[8], None), file(70, &[7], None)];
        assert_eq!(assign(&rows, &files), [Some(70), Some(80)]);
    }

    #[test]
    fn several_of_one_process_stay_with_their_interface() {
        let (first, second) = (row(7, "em0", 10), row(7, "em1", 5));
        let files = [file(1, &[7], Some(&first)), file(2, &[7], Some(&second))];
        assert_eq!(assign(&[row(7, "em1", 6), row(7, "em0", 11)], &files), [Some(2), Some(1)]);
        // One was attached anew.
        assert_eq!(assign(&[row(7, "em2", 0), row(7, "em1", 6)], &files), [Some(1), Some(2)]);
    }

    #[test]
    fn a_row_stays_with_its_file_when_its_toucher_is_dead() {
        let before = row(7, "em0", 10);
        let files = [file(1, &[9], Some(&before)), file(2, &[5], None)];
        assert_eq!(assign(&[row(7, "em0", 12)], &files), [Some(1)]);
        // Its number is another's by now, who holds something else.
        let files = [file(1, &[9], Some(&before)), file(2, &[7], None)];
        assert_eq!(assign(&[row(7, "em0", 12)], &files), [Some(1)]);
    }

    #[test]
    fn what_nobody_has_belongs_to_nobody() {
        assert_eq!(assign(&[row(7, "em0", 1)], &[]), [None]);
        let files = [file(1, &[8], None), file(2, &[9], None)];
        assert_eq!(assign(&[row(7, "em0", 1)], &files), [None], "two may have it");
        assert_eq!(assign(&[row(7, "em0", 1)], &files[..1]), [Some(1)], "one alone can");
        let rows = [row(7, "em0", 1), row(6, "em0", 1)];
        assert_eq!(assign(&rows, &files[..1]), [None, None]);
    }
}
