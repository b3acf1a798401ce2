//! How encrypted reasoning travels through a client: in the `signature` of a thinking block of
//! Messages, in the `data` of `reasoning_details` of Chat Completions.
//!
//! Clients hand both back as they got them. Ours begin with a mark, so that what another provider
//! made is never taken for reasoning of the backend, which would refuse it.

/// Marks a signature as ours; the digit is the version of the format.
const MARK: &str = "tw1:";

/// The signature that carries `encrypted`. Reasoning without an encrypted form still gets a legal,
/// non-empty signature, for some clients drop thinking that is not signed.
pub(in crate::dialect) fn seal(encrypted: Option<&str>) -> String {
    format!("{MARK}{}", encrypted.unwrap_or_default())
}

/// The encrypted reasoning in a signature; `None` when it is foreign, carries none or was mangled.
pub(in crate::dialect) fn open(signature: &str) -> Option<&str> {
    let encrypted = signature.strip_prefix(MARK)?;
    (!encrypted.is_empty() && encrypted.bytes().all(|b| b.is_ascii_graphic())).then_some(encrypted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encrypted_reasoning_comes_back_byte_for_byte() {
        assert_eq!(open(&seal(Some("gAAAAAB+/=_-"))), Some("gAAAAAB+/=_-"));
    }

    #[test]
    fn foreign_empty_and_mangled_signatures_are_not_reasoning() {
        for signature in ["", "EqQBCkYIBhgCIkA=", "tw1:", "tw1:gAAA AAB", "tw2:gAAA"] {
            assert_eq!(open(signature), None, "{signature}");
        }
        assert_eq!(open(&seal(None)), None);
    }
}
