//! Numbers and names at given places of the kernel's bytes, in this machine's byte order. What does not lie
//! within the bytes is `None`.

macro_rules! number {
    ($name:ident, $type:ty) => {
        /// The number at `at`.
        pub(crate) fn $name(bytes: &[u8], at: usize) -> Option<$type> {
            let end = at.checked_add(size_of::<$type>())?;
            bytes.get(at..end)?.try_into().ok().map(<$type>::from_ne_bytes)
        }
    };
}

number!(byte, u8);
number!(word, u32);
number!(signed, i32);
number!(long, u64);

/// An id that is never negative where it means something.
pub(crate) fn id(bytes: &[u8], at: usize) -> Option<u32> {
    signed(bytes, at).and_then(|number| u32::try_from(number).ok())
}

/// The name in a field of `size` bytes, up to its first NUL.
pub(crate) fn name(bytes: &[u8], at: usize, size: usize) -> Option<&[u8]> {
    bytes.get(at..at.checked_add(size)?).map(until_nul)
}

/// The bytes before the first NUL.
pub(crate) fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    &bytes[..end]
}
