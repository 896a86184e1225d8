//! Memory that only the start needed is given back.
//!
//! Compiling rules and reading the kernel's types touch most of the program's code once, and leave the
//! allocator with pages that are nearly empty. A process that then waits for weeks shall not be charged
//! for them.

use std::ops::Range;
use std::path::Path;

use crate::ffi;

/// Gives back what the calling thread no longer needs of the heap, and lets go of the program's code:
/// what is run again is mapped again from the page cache. To be called once by the thread that started
/// the program, when all has been started.
pub fn settle() {
    ffi::collect_heap();
    let (Ok(program), Ok(maps)) = (std::env::current_exe(), std::fs::read("/proc/self/maps"))
    else {
        return;
    };
    for range in code(&maps, &program) {
        // Refused where memory is locked: then it is meant to stay.
        let _ = ffi::forget_pages(range);
    }
}

/// Where a program's headers, constants and code are mapped, from proc_pid_maps(5): its executable
/// mapping, and the one that begins with the file. No other read-only mapping of it, because the dynamic
/// linker has written relocations into one of those.
fn code(maps: &[u8], program: &Path) -> Vec<Range<usize>> {
    let mapping = |line: &[u8]| {
        let line = std::str::from_utf8(line).ok()?;
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let (permissions, offset) = (words.next()?, words.next()?);
        let path = line.get(line.find('/')?..)?;
        let first = offset.bytes().all(|digit| digit == b'0');
        let wanted = permissions == "r-xp" || (permissions == "r--p" && first);
        if !wanted || Path::new(path) != program {
            return None;
        }
        let address = |text| usize::from_str_radix(text, 16).ok();
        Some(address(start)?..address(end)?)
    };
    maps.split(|&byte| byte == b'\n').filter_map(mapping).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &[u8] = b"\
55d0a0000000-55d0a0338000 r--p 00000000 fe:00 77 /opt/a b/bpfwatch\n\
55d0a0338000-55d0a0c37000 r-xp 00337000 fe:00 77 /opt/a b/bpfwatch\n\
55d0a0c37000-55d0a0c8f000 r--p 00c35000 fe:00 77 /opt/a b/bpfwatch\n\
55d0a0c8f000-55d0a0c93000 rw-p 00c8c000 fe:00 77 /opt/a b/bpfwatch\n\
7f0000000000-7f0000028000 r--p 00000000 fe:00 12 /usr/lib/libc.so.6\n\
7f0000100000-7f0000200000 rw-p 00000000 00:00 0 \n\
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0 [stack]\n";

    #[test]
    fn code_is_the_first_and_the_executable_mapping_and_never_a_relocated_one() {
        let ranges = code(MAPS, Path::new("/opt/a b/bpfwatch"));
        assert_eq!(
            ranges,
            [0x55d0_a000_0000..0x55d0_a033_8000, 0x55d0_a033_8000..0x55d0_a0c3_7000]
        );
        assert!(code(MAPS, Path::new("/opt/other")).is_empty());
    }

    #[test]
    fn the_process_goes_on_after_it() {
        let before =
            code(&std::fs::read("/proc/self/maps").unwrap(), &std::env::current_exe().unwrap());
        assert_eq!(before.len(), 2, "{before:?}");
        settle();
        assert_eq!(format!("{:?}", vec![1.5, 2.5]), "[1.5, 2.5]");
    }
}
